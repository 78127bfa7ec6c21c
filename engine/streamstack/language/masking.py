"""Masks secrets in output: the log, announcements, and errors that reach a client under `--dev`.

Known ones are found by their value: what the environment holds under a name that says so, what settings keep secret,
and the inputs of the present run that are `sensitive`. Others are found by their form: credentials in a URL, bearer
tokens, JSON web tokens, and what is named a key, a token or a password.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import date
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

from streamstack.language.values import to_text

#: What stands in a secret's place.
MASK: Final = "***"
#: A shorter value is not a secret worth the name: `true` or `dev`, masked everywhere, would hide the message.
SHORTEST: Final = 6
#: A sensitive input may be short; a single letter is in every word.
_SHORTEST_INPUT: Final = 4

_SECRET_NAME: Final = re.compile(
    r"(?:^|_)(?:KEY|KEYS|APIKEY|SECRET|SECRETS|TOKEN|TOKENS|PASS|PASSWD|PASSWORD|PASSPHRASE|PWD|CREDENTIALS?|PRIVATE|"
    r"AUTH|SIGNATURE|SALT|PEPPER|COOKIE|SESSION|DSN)(?:_|$|[0-9])",
    re.IGNORECASE,
)
#: What shells and desktops set under such names. The working directory, masked, would hide every path in messages.
_OF_THE_SYSTEM: Final = frozenset(
    {
        "PWD",
        "SSH_AUTH_SOCK",
        "DBUS_SESSION_BUS_ADDRESS",
        "DESKTOP_SESSION",
        "SESSION_MANAGER",
        "XDG_SESSION_CLASS",
        "XDG_SESSION_DESKTOP",
        "XDG_SESSION_ID",
        "XDG_SESSION_PATH",
        "XDG_SESSION_TYPE",
    }
)
_URL_USER: Final = re.compile(r"(?<=://)[^\s/@:\"'<>]*:[^\s/@\"'<>]*(?=@)")
_URL_PASSWORD: Final = re.compile(r"://[^\s/@:\"'<>]*:([^\s/@\"'<>]+)@")
_SCHEME: Final = re.compile(r"\b(Bearer|Basic|Token|Digest)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
#: A run of its signs is looked at from the beginning only, and where two dots follow: else each `eyJ` in it would be
#: followed to its end, in quadratic time.
_JWT: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.)([A-Za-z0-9_-]*?\b)"
    r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
)
_KNOWN_FORMS: Final = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{12,}|sk_(?:live|test)_[A-Za-z0-9]{8,}|gh[opsu]_[A-Za-z0-9]{20,}|xox[abp]-[A-Za-z0-9-]{10,}|"
    r"AKIA[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{30,})"
)
_NAMED: Final = re.compile(
    r"""(?ix)
    ((?:api[_-]?key|access[_-]?token|refresh[_-]?token|client[_-]?secret|secret|token|passw(?:or)?d|pwd|sig(?:nature)?|
        x-amz-signature|x-goog-signature|(?<=[?&])key)["']?\s*(?:=|:)\s*["']?)
    ([^\s"'&,;{}()<>\[\]]{4,})
    """
)
_REVEALING: Final = re.compile(
    r"://|bearer|basic|token|eyJ|key|secret|passw|pwd|sig|gh[opsu]_|xox|AKIA|AIza|sk[-_]", re.IGNORECASE
)

_HARMLESS: Final = frozenset({"key", "keys", "session", "auth", "salt"})

#: Fields of the log that hold words, numbers and names of definitions alone: an input may equal one of them.
_OWN: Final = frozenset(
    {
        "attempt", "bytes", "chunks", "code", "database", "endpoint", "gap", "index", "level", "ms", "outcome",
        "place", "run", "sent", "status", "step", "stream", "timestamp", "types", "worker",
    }
)  # fmt: skip
#: More sensitive texts than these are not looked for one by one: every text that an author logs is masked then.
_MOST_TEXTS: Final = 200
#: Characters from which on a text is looked for by itself.
_LONG: Final = 1000


class _Sensitive:
    """The sensitive inputs of a run: their values, and what finds them in a text."""

    def __init__(self, values: Iterable[Any]) -> None:
        self.values: set[Any] = set()
        self._gather(values)
        self._pattern: re.Pattern[str] | None = None
        self._long: list[str] = []  # forms that take longer to compile into a pattern than to look for
        self._ready = False

    def _gather(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, Mapping):
                self._gather(value.values())
            elif isinstance(value, list | tuple):
                self._gather(value)
            elif value not in (None, "") and not isinstance(value, bool):
                self.values.add(value)

    def hide(self, text: str) -> str:
        """Return a text without them."""
        if text in self.values or len(self.values) > _MOST_TEXTS:
            return MASK
        if not self._ready:
            self._ready = True
            texts = [each if isinstance(each, str) else to_text(each) for each in self.values if _has_text(each)]
            forms = _forms(texts, _SHORTEST_INPUT)
            self._long = [each for each in forms if len(each) > _LONG]
            self._pattern = _compile([each for each in forms if len(each) <= _LONG])
        for form in self._long:
            text = text.replace(form, MASK)
        return text if self._pattern is None else self._pattern.sub(MASK, text)


def _has_text(value: Any) -> bool:
    return isinstance(value, str | int | float | Decimal | date)


#: The sensitive inputs of the present run.
_sensitive: ContextVar[_Sensitive | None] = ContextVar("sensitive", default=None)
_known: list[re.Pattern[str] | None] = [None]


def learn(environment: Mapping[str, str], settings: Iterable[str | None] = ()) -> None:
    """Remember the secrets of a project: those of the environment, by their names, and those that settings hold."""
    found = {value for name, value in environment.items() if _SECRET_NAME.search(name) and name not in _OF_THE_SYSTEM}
    found |= {value for value in settings if value}
    for value in (*environment.values(), *found):
        found |= {unquote(each) for each in _URL_PASSWORD.findall(value)}
    _known[0] = _pattern(found, SHORTEST)


def hide(values: Iterable[Any]) -> None:
    """Hide the values of sensitive inputs for the rest of the present run, in its task and those it starts."""
    sensitive = _Sensitive(values)
    if sensitive.values:
        _sensitive.set(sensitive)


def masked(text: str, *, forms: bool = True, inputs: bool = True) -> str:
    """Return a text without the secrets in it.

    Args:
        text: The text.
        forms: Whether to look for what has the form of a secret, too.
        inputs: Whether to look for the sensitive inputs of the run.
    """
    known, sensitive = _known[0], _sensitive.get()
    if known is not None:
        text = known.sub(MASK, text)
    if sensitive is not None and inputs:
        text = sensitive.hide(text)
    if not forms or not _REVEALING.search(text):
        return text
    text = _URL_USER.sub(MASK, text)
    text = _JWT.sub(rf"\1{MASK}", text)
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _KNOWN_FORMS.sub(MASK, text)
    return _NAMED.sub(rf"\1{MASK}", text)


def masked_value(value: Any, name: str = "") -> Any:
    """Return a value without the secrets in it, at any depth; what has a name that says so is masked whole."""
    if isinstance(value, str):
        return MASK if value and _is_secret(name) else masked(value)
    if isinstance(value, bytes | bytearray):
        return masked(bytes(value).decode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return {key: masked_value(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [masked_value(each, name) for each in value]
    sensitive = _sensitive.get()
    known = sensitive is not None and _has_text(value) and not isinstance(value, bool) and value in sensitive.values
    return MASK if known else value


def _is_secret(name: str) -> bool:
    """Tell whether what has a name is a secret; a name that says no more than `key` does not tell."""
    return name.lower() not in _HARMLESS and _SECRET_NAME.search(_snake(name)) is not None


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(".", "_")


def _pattern(secrets: Iterable[str], shortest: int) -> re.Pattern[str] | None:
    """Return what finds secrets."""
    return _compile(_forms(secrets, shortest))


def _compile(forms: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, forms))) if forms else None


def _forms(secrets: Iterable[str], shortest: int) -> list[str]:
    """Return how secrets are written: as they are, in JSON, URLs and Python; the longest first."""
    forms = set()
    for secret in secrets:
        stripped = secret.strip()
        if len(stripped) < shortest:
            continue
        forms |= {
            stripped,
            quote(stripped, safe=""),
            quote_plus(stripped),
            json.dumps(stripped)[1:-1],
            repr(stripped)[1:-1],
        }
        # The lines of a key in PEM are masked one by one.
        forms |= {line for line in stripped.splitlines() if len(line) >= 20 and not line.startswith("-----")}
    return sorted(forms, key=len, reverse=True)


def mask(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take the secrets out of an entry of the log (a processor of structlog)."""
    shown = {name: value if name in _OWN else masked_value(value, name) for name, value in entry.items()}
    if isinstance(event := entry.get("event"), str):
        shown["event"] = masked(event, inputs=False)  # `log` has masked its own message
    return shown

"""The settings of `email`, and how addresses are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from yarl import URL

from streamstack.language.kinds import Kind
from streamstack.spec import Constant, setting

_ADDRESS: Final = re.compile(r"(?:(?P<name>[^<>]*?)\s*<(?P<inner>[^<>\s]+)>|(?P<plain>\S+))")
#: Without quoted local parts and address literals, which no mailbox of today needs.
_SPEC: Final = re.compile(r"[^\s@<>()\[\]\\,;:\"]{1,64}@[^\W_](?:[\w-]*\w)?(?:\.[^\W_](?:[\w-]*\w)?)*")
#: The URL that stands for no server: messages are written to files.
FILES: Final = "file://"
_PORTS: Final = {"smtp": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Address:
    """A mail address with the name of who has it. The domain is in its ASCII form (IDNA)."""

    local: str
    domain: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def needs_utf8(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it."""
        return not self.local.isascii()


def is_line(text: str) -> bool:
    """Return whether a text can stand in a header: it holds no line break and no other control character."""
    return len(text.splitlines()) <= 1 and not any(each < " " or each == "\x7f" for each in text)


def parse_address(text: str) -> Address:
    """Return the address of `ada@example.org` or `Ada Lovelace <ada@example.org>`.

    Raises ValueError for anything else, such as several addresses. The message does not hold the text.
    """
    found = _ADDRESS.fullmatch(text.strip()) if is_line(text) else None
    spec = (found["inner"] or found["plain"]) if found else ""
    if found is None or not _SPEC.fullmatch(spec):
        raise ValueError("must be one address like ada@example.org or Ada Lovelace <ada@example.org>")
    local, _, domain = spec.rpartition("@")
    try:
        ascii_domain = URL.build(scheme="http", host=domain).raw_host or domain
    except ValueError:
        raise ValueError("must be an address with a valid domain") from None
    name = (found["name"] or "").strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1].replace('\\"', '"')
    return Address(local, ascii_domain, name)


def _address(value: Any) -> Address:
    if not isinstance(value, str):
        raise ValueError("must be an address like ada@example.org")  # noqa: TRY004 - one error for every value
    return parse_address(value)


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is submitted. ``secure`` is TLS from the first byte. Without a ``host``, messages become files."""

    host: str
    port: int
    secure: bool
    user: str | None = None
    password: str | None = None


def _server(value: Any) -> MailServer:
    """Read the URL of a server. Error messages do not contain it: it may hold a password."""
    hint = "write it like smtps://user:password@mail.example.org:465"
    if not isinstance(value, str):
        raise ValueError(f"must be the URL of a mail server: {hint}")  # noqa: TRY004 - one error for every value
    if value == FILES:
        return MailServer("", 0, secure=False)
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
        raise ValueError(f"must begin with smtp:// or smtps://, and hold a host: {hint}")
    user, password = (None if each is None else unquote(each) for each in (parts.username, parts.password))
    return MailServer(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "smtps", user or None, password)


@dataclass(frozen=True, slots=True)
class EmailSettings:
    """How mail is sent. Without a ``server``, `--dev` writes messages to files. Seconds and bytes."""

    server: MailServer | None = setting(
        Constant(parse=_server, code="bad-url", empty=True, pattern="^$|^smtps?://|^file://$"),
        "URL of the mail server: smtps://user:password@host:465 (TLS), or smtp://user:password@host:587 (STARTTLS). "
        "Special characters of the password are percent-encoded. file:// writes messages to `.streamstack/mail/`, as "
        "`--dev` does without a URL.",
        None,
        key="url",
        secret=True,
    )
    sender: Address | None = setting(
        Constant(parse=_address, empty=True),
        "Sender of messages whose step has no `from`: Shop <shop@example.org>.",
        None,
        key="from",
    )
    start_tls: str = setting(
        Constant(choices=("auto", "required", "off")),
        "STARTTLS for smtp:// URLs. `auto` uses it if the server offers it; a password is sent without TLS to this "
        "machine only. `required` fails without it. `off` never encrypts.",
        "auto",
    )
    timeout: float = setting(
        Constant(Kind.DURATION, positive=True), "Time-out for the connection, and for each reply of the server.", 30.0
    )
    pool_size: int = setting(
        Constant(Kind.INTEGER, 1, 100), "Maximum number of connections of each worker to the mail server.", 5
    )
    max_size: int = setting(Constant(Kind.SIZE, positive=True), "Maximum size of a message.", 25 * 1024 * 1024)

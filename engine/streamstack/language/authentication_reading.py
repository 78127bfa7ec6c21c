"""From the section `authentication` to the ways to tell callers, with all that is wrong or weak in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from streamstack.errors import Diagnostic, Mark
from streamstack.language.authentication_settings import (
    API_KEY_HEADER,
    BEARER,
    CLOCK_SKEW,
    EXPIRY,
    HASH,
    MOST_SKEW,
    SCOPE,
    TYPES,
    ApiKey,
    Jwt,
    Key,
    Method,
    Methods,
    Place,
    digest_of,
)
from streamstack.language.findings import find
from streamstack.language.names import DEFINITION
from streamstack.language.public_keys import PUBLIC_ALGORITHMS, SECRET_ALGORITHMS, algorithms_of
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.suggest import did_you_mean
from streamstack.language.units import parse_duration

_KEY_SOURCES: Final = ("secret", "publicKey", "jwksUrl")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DEFAULT: Final = re.compile(r"default\(\s*(?:\"[^\"]|'[^'])")
_LOCAL: Final = re.compile(r"localhost|127(?:\.[0-9]+){3}|::1")
#: Characters of an API key, at least.
_LEAST_KEY: Final = 20


def parse_authentication(
    node: Node | None, written: Node | None, folder: Path
) -> tuple[Methods, list[Diagnostic]]:
    """Return the ways to tell callers by name, and what is wrong with the section.

    ``written`` is the section before the environment was put in. Files are looked for from ``folder``. One that is
    wrong is left out; its finding keeps the project from being served.
    """
    findings: list[Diagnostic] = []
    methods: dict[str, Method] = {}
    for key, value in node.items if isinstance(node, Mapping) else ():
        if DEFINITION.fullmatch(key.text) is None or key.text == "none":
            message = f"`{key.text}` is no name for an authentication"
            hint = "begin with a letter, then letters, digits, `_` or `-`; `none` means no authentication"
            findings.append(find("bad-name", key.mark, message, hint))
        before = written.get(key.text) if isinstance(written, Mapping) else None
        if not isinstance(value, Mapping) or not isinstance(before, Mapping):
            message = f"`authentication.{key.text}` is a mapping."
            hint = f"write `{key.text}: {{type: jwt, secret: << env.JWT_SECRET >>}}`"
            findings.append(find("not-a-mapping", value.mark, message, hint))
            continue
        method = _Reading(key.text, value, before, folder).read(findings)
        if method is not None:
            methods[key.text] = method
    return methods, findings


class _Reading:
    """Reads one of them."""

    def __init__(self, name: str, node: Mapping, written: Mapping, folder: Path) -> None:
        self.name = name
        self.node = node
        self.written = written
        self.folder = folder
        self.found: list[Diagnostic] = []

    def read(self, findings: list[Diagnostic]) -> Method | None:
        """Return it, None where something is wrong; add what was found."""
        kind = self._text("type")
        method: Method | None = None
        if kind not in TYPES:
            node = self.node.get("type")
            mark = self.node.mark if node is None else node.mark
            meant = did_you_mean(kind or "", TYPES)
            self._add(
                "missing-parameter" if kind is None else "bad-setting",
                mark,
                f"`authentication.{self.name}` needs a `type`: jwt or apiKey{meant}",
                "add `type: jwt` or `type: apiKey`",
            )
        else:
            self._refuse_unknown(kind)
            method = self._jwt() if kind == "jwt" else self._api_key()
        findings += self.found
        return None if any(each.severity == "error" for each in self.found) else method

    # ------------------------------------------------------------- tokens

    def _jwt(self) -> Jwt:
        given = [key for key in _KEY_SOURCES if self._is_written(key)]
        if len(given) != 1:
            message = (
                f"`authentication.{self.name}` takes one of `secret`, `publicKey` and `jwksUrl`"
            )
            code = "conflicting-parameters" if given else "missing-parameter"
            self._add(code, self.node.mark, message, "write `secret: << env.JWT_SECRET >>`")
        source = given[0] if given else ""
        secret = self._text("secret", empty=True)
        public_key = self._public_key()
        url = self._jwks_url()
        algorithms = self._algorithms(source, public_key)
        if secret and secret.startswith("-----BEGIN"):
            self._refuse("secret", "a key in PEM is no secret: a public one goes under `publicKey`")
        elif secret:
            self._weigh_secret(secret, algorithms)
        self._tell_plain("secret", self.written.get("secret"))
        skew = self._duration("clockSkew", CLOCK_SKEW)
        if skew > MOST_SKEW:
            self._refuse("clockSkew", f"it is at most {MOST_SKEW / 60:.0f}m")
        expiry = self._text("expiry") or EXPIRY[0]
        if expiry not in EXPIRY:
            self._refuse("expiry", f"it is {' or '.join(EXPIRY)}{did_you_mean(expiry, EXPIRY)}")
        audiences = self._texts("audience")
        for key in ("issuer", "audience"):
            if _is_hollow(self.written.get(key)):
                self._refuse(
                    key, "an empty list would let every token pass: write the names, or take it out"
                )
        if url is not None and not audiences and not self._is_written("audience"):
            message = (
                f"`authentication.{self.name}` takes tokens that were issued for others: whoever "
                "publishes keys signs for all its customers"
            )
            self._add("weak-authentication", self.node.mark, message, "add `audience: ...`")
        return Jwt(
            self.name,
            algorithms,
            secret=secret or None,
            own=secret == "",
            public_key=public_key,
            jwks_url=url,
            issuers=self._texts("issuer"),
            audiences=audiences,
            places=self._places(),
            clock_skew=skew,
            lasting=expiry == "optional",
            mark=self.node.mark,
        )

    def _algorithms(self, source: str, public_key: str | None) -> tuple[str, ...]:
        fitting: tuple[str, ...] = SECRET_ALGORITHMS if source == "secret" else PUBLIC_ALGORITHMS
        of = "a secret" if source == "secret" else "a public key"
        if public_key is not None:
            try:
                fitting = algorithms_of(public_key)
            except ValueError as error:
                self._refuse("publicKey", str(error))
        if not self._is_written("algorithms"):
            return ("HS256",) if source == "secret" else fitting
        given = self._texts("algorithms")
        node = self.node.get("algorithms")
        if isinstance(node, Sequence) and not node.items:
            self._refuse("algorithms", "without any, no token could be valid")
        for name in given:
            if name in fitting:
                continue
            if name.lower() == "none":
                fault = "`none` is no signature: anybody could write such a token"
            elif name in (*SECRET_ALGORITHMS, *PUBLIC_ALGORITHMS):
                fault = (
                    f"`{name}` does not go with {of} of this kind, which takes {', '.join(fitting)}"
                )
            else:
                fault = f"there is no `{name}`{did_you_mean(name, fitting)}"
            self._refuse("algorithms", fault)
        return given

    def _public_key(self) -> str | None:
        text = self._text("publicKey")
        if text is None:
            return None
        if text.lstrip().startswith("-----BEGIN"):
            return text.replace("\\n", "\n")  # as environment variables hold lines
        file = self.folder / Path(text).expanduser()
        try:
            return file.read_bytes().decode("ascii")
        except (OSError, UnicodeDecodeError):
            self._refuse("publicKey", f"there is no key in PEM in the file {file}")
            return None

    def _jwks_url(self) -> str | None:
        text = self._text("jwksUrl")
        if text is None:
            return None
        try:
            parts = urlsplit(text)
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            known = False
        if not known:
            self._refuse("jwksUrl", "it is written like https://login.example.org/jwks.json")
        elif parts.scheme == "http" and not _LOCAL.fullmatch(parts.hostname or ""):
            message = (
                f"`authentication.{self.name}.jwksUrl`: keys that come without TLS can be "
                "exchanged on their way, and then anybody can sign tokens"
            )
            self._add("weak-authentication", self._mark("jwksUrl"), message, "write https://")
        return text

    def _weigh_secret(self, secret: str, algorithms: tuple[str, ...]) -> None:
        needed = max((int(name[2:]) // 8 for name in algorithms if name[:2] == "HS"), default=0)
        if len(secret.encode()) < needed:
            message = (
                f"`authentication.{self.name}.secret` has under {needed} bytes: whoever has a token can "
                "find it by trying"
            )
            hint = "make one with `openssl rand -base64 48`"
            self._add("weak-authentication", self._mark("secret"), message, hint)

    def _places(self) -> tuple[Place, ...]:
        node = self.node.get("from")
        if node is None or _is_null(node):
            return (BEARER,)
        places = []
        for item in node.items if isinstance(node, Sequence) else (node,):
            where, name = "", ""
            if isinstance(item, Scalar) and item.value == "header":
                where, name = BEARER.where, BEARER.name
            elif isinstance(item, Mapping) and len(item.items) == 1:
                key, value = item.items[0]
                where = key.text
                name = value.text if isinstance(value, Scalar) and value.value is not None else ""
            if where not in ("header", "cookie", "query") or not name or not _fits(where, name):
                message = (
                    f"`authentication.{self.name}.from`: this is no place that tokens are sent in"
                )
                hint = "write header, {header: X-Token}, {cookie: token} or {query: token}"
                self._add("bad-setting", item.mark, message, hint)
                continue
            places.append(Place(where, name))
        return tuple(places)

    # ------------------------------------------------------------- keys

    def _api_key(self) -> ApiKey:
        header, query = self._text("header"), self._text("query")
        if header is not None and query is not None:
            message = f"`authentication.{self.name}` has `header` and `query`: keys are sent in one of them"
            self._add("conflicting-parameters", self._mark("query"), message)
        place = (
            Place("header", header or API_KEY_HEADER) if query is None else Place("query", query)
        )
        if not _fits(place.where, place.name):
            self._refuse(place.where, "this is no name of a header")
        return ApiKey(self.name, tuple(self._keys()), place, self.node.mark)

    def _keys(self) -> Iterator[Key]:
        node, written = self.node.get("keys"), self.written.get("keys")
        if node is None or written is None or _is_null(written):
            message = f"`authentication.{self.name}` lacks `keys`."
            hint = (
                f"add `keys: [<< env.API_KEY >>]`; `streamstack token --auth {self.name}` makes one"
            )
            self._add("missing-parameter", self.node.mark, message, hint)
            return
        if isinstance(node, Mapping) and isinstance(written, Mapping):
            for (key, item), (_, before) in zip(node.items, written.items, strict=True):
                yield from self._named(key.text, item, before)
        elif isinstance(node, Sequence) and isinstance(written, Sequence):
            for item, before in zip(node.items, written.items, strict=True):
                self._tell_plain("keys", before)
                yield from self._read_key("", item)
        else:
            # One variable can hold several, with commas between: keys never have one inside.
            self._tell_plain("keys", written)
            for text in (node.text if isinstance(node, Scalar) and node.value else "").split(","):
                if text.strip():
                    yield from self._read_key("", node, text.strip())
            return
        if not node.items:
            self._refuse("keys", "without any, nobody could call")

    def _named(self, name: str, item: Node, before: Node) -> Iterator[Key]:
        """Read a key that has a name: it alone, or with its scopes."""
        scopes: tuple[str, ...] = ()
        if isinstance(item, Mapping) and isinstance(before, Mapping):
            for key, _ in item.items:
                if key.text not in ("key", "scopes"):
                    message = f"an API key has no `{key.text}`: it has `key` and `scopes`"
                    self._add("unknown-setting", key.mark, message)
            listed = item.get("scopes")
            scopes = self._list("scopes", listed) if listed is not None else ()
            for scope in scopes:
                if SCOPE.fullmatch(scope) is None:
                    self._refuse(
                        "keys", f"the scope `{scope}` holds a space, a quote or a backslash"
                    )
            inner, before_ = item.get("key"), before.get("key")
            if inner is None or before_ is None:
                self._add("missing-parameter", item.mark, f"the API key `{name}` lacks `key`")
                return
            item, before = inner, before_
        self._tell_plain("keys", before)
        yield from self._read_key(name, item, scopes=scopes)

    def _read_key(
        self, name: str, node: Node, text: str | None = None, scopes: tuple[str, ...] = ()
    ) -> Iterator[Key]:
        if text is None:
            if isinstance(node, Scalar) and node.value in (None, ""):
                return  # its variable is missing: nobody comes in with it
            if not isinstance(node, Scalar) or not isinstance(node.value, str):
                self._refuse("keys", "a key is a text: << env.API_KEY >>, or sha256:... of the key")
                return
            text = node.value.strip()
        hashed = HASH.fullmatch(text)
        if hashed is None and text.lower().startswith("sha256:"):
            self._refuse("keys", "after sha256: come the 64 hexadecimal digits of the hash")
            return
        if hashed is None and len(text) < _LEAST_KEY:
            message = (
                f"a key of `authentication.{self.name}` has under {_LEAST_KEY} characters: "
                "it can be found by trying"
            )
            hint = f"make one with `streamstack token --auth {self.name}`"
            self._add("weak-authentication", node.mark, message, hint)
        digest = digest_of(text) if hashed is None else bytes.fromhex(hashed[1])
        yield Key(name or f"key-{digest.hex()[:8]}", digest, scopes)

    # ------------------------------------------------------------- values

    def _refuse_unknown(self, kind: str) -> None:
        for key, _ in self.node.items:
            if key.text not in TYPES[kind]:
                message = f"`authentication.{self.name}` has no `{key.text}`{did_you_mean(key.text, TYPES[kind])}"
                hint = f"it takes {', '.join(TYPES[kind])}"
                self._add("unknown-setting", key.mark, message, hint)

    def _is_written(self, key: str) -> bool:
        node = self.written.get(key)
        return node is not None and not _is_null(node)

    def _text(self, key: str, *, empty: bool = False) -> str | None:
        node = self.node.get(key)
        if node is None or _is_null(node):
            return None
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, str) or not (empty or value.strip()):
            self._refuse(key, "a text is needed here")
            return None
        return value.strip()

    def _texts(self, key: str) -> tuple[str, ...]:
        node = self.node.get(key)
        return () if node is None or _is_null(node) else self._list(key, node)

    def _list(self, key: str, node: Node) -> tuple[str, ...]:
        texts = []
        for item in node.items if isinstance(node, Sequence) else (node,):
            value = item.value if isinstance(item, Scalar) else None
            if isinstance(value, str) and value.strip():
                texts.append(value.strip())
            elif value is not None or not isinstance(item, Scalar):
                message = f"`authentication.{self.name}.{key}`: a text is needed here"
                self._add("bad-setting", item.mark, message, "write a text, or a list of texts")
        return tuple(texts)

    def _duration(self, key: str, default: float) -> float:
        node = self.node.get(key)
        if node is None or _is_null(node):
            return default
        try:
            return parse_duration(node.value if isinstance(node, Scalar) else None)
        except ValueError as error:
            message = f"`authentication.{self.name}.{key}`: {error}"
            self._add("bad-duration", node.mark, message)
            return default

    def _tell_plain(self, key: str, written: Node | None) -> None:
        """Tell of a secret that stands in the file, be it as the default of a variable."""
        if not isinstance(written, Scalar) or not isinstance(written.value, str):
            return
        text = written.value.strip()
        if not text or HASH.fullmatch(text) or ("<<" in text and not _DEFAULT.search(text)):
            return
        message = (
            f"the value of `authentication.{self.name}.{key}` stands in the file in plain text"
        )
        self._add("secret-in-definition", written.mark, message)

    def _mark(self, key: str) -> Mark:
        node = self.node.get(key)
        return self.node.mark if node is None else node.mark

    def _refuse(self, key: str, message: str) -> None:
        self._add("bad-setting", self._mark(key), f"`authentication.{self.name}.{key}`: {message}")

    def _add(self, code: str, mark: Mark, message: str, hint: str | None = None) -> None:
        self.found.append(find(code, mark, message, hint))


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _is_hollow(written: Node | None) -> bool:
    """Whether it is a list with nothing in it, or with nothing in a place of it."""
    return isinstance(written, Sequence) and (
        not written.items or any(_is_null(item) for item in written.items)
    )


def _fits(where: str, name: str) -> bool:
    return where == "query" or _TOKEN.fullmatch(name) is not None

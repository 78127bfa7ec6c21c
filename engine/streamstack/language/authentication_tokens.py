"""An authentication by signed tokens, as it stands in the settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from streamstack.language.authentication_section import Section, fits, is_null
from streamstack.language.authentication_settings import (
    BEARER,
    CLOCK_SKEW,
    EXPIRY,
    MOST_SKEW,
    Jwt,
    Place,
)
from streamstack.language.public_keys import PUBLIC_ALGORITHMS, SECRET_ALGORITHMS, algorithms_of
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.suggest import did_you_mean

_KEY_SOURCES: Final = ("secret", "publicKey", "jwksUrl")
_LOCAL: Final = re.compile(r"localhost|127(?:\.[0-9]+){3}|::1")


class TokensReading(Section):
    """Reads one of type jwt."""

    def read(self) -> Jwt:
        """Return it, whatever was found to be wrong with it."""
        given = [key for key in _KEY_SOURCES if self.is_written(key)]
        if len(given) != 1:
            message = (
                f"`authentication.{self.name}` takes one of `secret`, `publicKey` and `jwksUrl`"
            )
            code = "conflicting-parameters" if given else "missing-parameter"
            self.add(code, self.node.mark, message, "write `secret: << env.JWT_SECRET >>`")
        source = given[0] if given else ""
        secret = self.text("secret", empty=True)
        public_key = self._public_key()
        url = self._jwks_url()
        algorithms = self._algorithms(source, public_key)
        if secret and secret.startswith("-----BEGIN"):
            self.refuse("secret", "a key in PEM is no secret: a public one goes under `publicKey`")
        elif secret:
            self._weigh_secret(secret, algorithms)
        self.tell_plain("secret", self.written.get("secret"))
        skew = self.duration("clockSkew", CLOCK_SKEW)
        if skew > MOST_SKEW:
            self.refuse("clockSkew", f"it is at most {MOST_SKEW / 60:.0f}m")
        expiry = self.text("expiry") or EXPIRY[0]
        if expiry not in EXPIRY:
            self.refuse("expiry", f"it is {' or '.join(EXPIRY)}{did_you_mean(expiry, EXPIRY)}")
        audiences = self.texts("audience")
        for key in ("issuer", "audience"):
            if _is_hollow(self.written.get(key)):
                self.refuse(
                    key, "an empty list would let every token pass: write the names, or take it out"
                )
        if url is not None and not audiences and not self.is_written("audience"):
            message = (
                f"`authentication.{self.name}` takes tokens that were issued for others: whoever "
                "publishes keys signs for all its customers"
            )
            self.add("weak-authentication", self.node.mark, message, "add `audience: ...`")
        return Jwt(
            self.name,
            algorithms,
            secret=secret or None,
            own=secret == "",
            public_key=public_key,
            jwks_url=url,
            issuers=self.texts("issuer"),
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
                self.refuse("publicKey", str(error))
        if not self.is_written("algorithms"):
            return ("HS256",) if source == "secret" else fitting
        given = self.texts("algorithms")
        node = self.node.get("algorithms")
        if isinstance(node, Sequence) and not node.items:
            self.refuse("algorithms", "without any, no token could be valid")
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
            self.refuse("algorithms", fault)
        return given

    def _public_key(self) -> str | None:
        text = self.text("publicKey")
        if text is None:
            return None
        if text.lstrip().startswith("-----BEGIN"):
            return text.replace("\\n", "\n")  # as environment variables hold lines
        try:
            file = self.folder / Path(text).expanduser()
            return file.read_bytes().decode("ascii")
        except (OSError, RuntimeError, ValueError):  # no file, no such home, no name of a file
            written = self.written.get("publicKey")
            # What a variable holds is not shown: it may be something else, and secret.
            bound = isinstance(written, Scalar) and "<<" in written.text
            shown = (
                "that the variable names" if bound else f"`{text}`, looked for from {self.folder}"
            )
            fault = f"there is no key in PEM in the file {shown}"
            self.refuse("publicKey", f"{fault}; PEM begins with -----BEGIN PUBLIC KEY-----")
            return None

    def _jwks_url(self) -> str | None:
        text = self.text("jwksUrl")
        if text is None:
            return None
        try:
            parts = urlsplit(text)
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            known = False
        if not known:
            self.refuse("jwksUrl", "it is written like https://login.example.org/jwks.json")
        elif parts.scheme == "http" and not _LOCAL.fullmatch(parts.hostname or ""):
            message = (
                f"`authentication.{self.name}.jwksUrl`: keys that come without TLS can be "
                "exchanged on their way, and then anybody can sign tokens"
            )
            self.add("weak-authentication", self.mark("jwksUrl"), message, "write https://")
        return text

    def _weigh_secret(self, secret: str, algorithms: tuple[str, ...]) -> None:
        needed = max((int(name[2:]) // 8 for name in algorithms if name[:2] == "HS"), default=0)
        if len(secret.encode()) < needed:
            message = (
                f"`authentication.{self.name}.secret` has under {needed} bytes: whoever has a token can "
                "find it by trying"
            )
            hint = "make one with `openssl rand -base64 48`"
            self.add("weak-authentication", self.mark("secret"), message, hint)

    def _places(self) -> tuple[Place, ...]:
        node = self.node.get("from")
        if node is None or is_null(node):
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
            if where not in ("header", "cookie", "query") or not name or not fits(where, name):
                message = (
                    f"`authentication.{self.name}.from`: this is no place that tokens are sent in"
                )
                hint = "write header, {header: X-Token}, {cookie: token} or {query: token}"
                self.add("bad-setting", item.mark, message, hint)
                continue
            places.append(Place(where, name))
        return tuple(places)


def _is_hollow(written: Node | None) -> bool:
    """Whether it is a list with nothing in it, or with nothing in a place of it."""
    return isinstance(written, Sequence) and (
        not written.items or any(is_null(item) for item in written.items)
    )

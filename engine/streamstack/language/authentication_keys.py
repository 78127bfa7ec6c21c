"""An authentication by API keys, as it stands in the settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamstack.language.authentication_section import Section, fits, is_null
from streamstack.language.authentication_settings import (
    API_KEY_HEADER,
    HASH,
    SCOPE,
    ApiKey,
    Key,
    Place,
    digest_of,
)
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence

#: Characters of an API key, at least.
_LEAST_KEY: Final = 20


class KeysReading(Section):
    """Reads one of type apiKey."""

    def read(self) -> ApiKey:
        """Return it, whatever was found to be wrong with it."""
        header, query = self.text("header"), self.text("query")
        if header is not None and query is not None:
            message = f"`authentication.{self.name}` has `header` and `query`: keys are sent in one of them"
            self.add("conflicting-parameters", self.mark("query"), message)
        place = (
            Place("header", header or API_KEY_HEADER) if query is None else Place("query", query)
        )
        if not fits(place.where, place.name):
            self.refuse(place.where, "this is no name that can be sent")
        return ApiKey(self.name, tuple(self._keys()), place, self.node.mark)

    def _keys(self) -> Iterator[Key]:
        node, written = self.node.get("keys"), self.written.get("keys")
        if node is None or written is None or is_null(written):
            message = f"`authentication.{self.name}` lacks `keys`."
            hint = (
                f"add `keys: [<< env.API_KEY >>]`; `streamstack token --auth {self.name}` makes one"
            )
            self.add("missing-parameter", self.node.mark, message, hint)
            return
        if isinstance(node, Mapping) and isinstance(written, Mapping):
            for (key, item), (_, before) in zip(node.items, written.items, strict=True):
                yield from self._named(key.text, item, before)
        elif isinstance(node, Sequence) and isinstance(written, Sequence):
            for item, before in zip(node.items, written.items, strict=True):
                self.tell_plain("keys", before)
                yield from self._read_key("", item)
        else:
            # One variable can hold several, with commas between: keys never have one inside.
            self.tell_plain("keys", written)
            for text in (node.text if isinstance(node, Scalar) and node.value else "").split(","):
                if text.strip():
                    yield from self._read_key("", node, text.strip())
            return
        if not node.items:
            self.refuse("keys", "without any, nobody could call")

    def _named(self, name: str, item: Node, before: Node) -> Iterator[Key]:
        """Read a key that has a name: it alone, or with its scopes."""
        scopes: tuple[str, ...] = ()
        if isinstance(item, Mapping) and isinstance(before, Mapping):
            for key, _ in item.items:
                if key.text not in ("key", "scopes"):
                    message = f"an API key has no `{key.text}`: it has `key` and `scopes`"
                    self.add("unknown-setting", key.mark, message)
            listed = item.get("scopes")
            scopes = self.list("scopes", listed) if listed is not None else ()
            for scope in scopes:
                if SCOPE.fullmatch(scope) is None:
                    self.refuse(
                        "keys", f"the scope `{scope}` holds a space, a quote or a backslash"
                    )
            inner, before_ = item.get("key"), before.get("key")
            if inner is None or before_ is None:
                self.add("missing-parameter", item.mark, f"the API key `{name}` lacks `key`")
                return
            item, before = inner, before_
        self.tell_plain("keys", before)
        yield from self._read_key(name, item, scopes=scopes)

    def _read_key(
        self, name: str, node: Node, text: str | None = None, scopes: tuple[str, ...] = ()
    ) -> Iterator[Key]:
        if text is None:
            if isinstance(node, Scalar) and node.value in (None, ""):
                return  # its variable is missing: nobody comes in with it
            if not isinstance(node, Scalar) or not isinstance(node.value, str):
                self.refuse("keys", "a key is a text: << env.API_KEY >>, or sha256:... of the key")
                return
            text = node.value.strip()
        hashed = HASH.fullmatch(text)
        if hashed is None and text.lower().startswith("sha256:"):
            self.refuse("keys", "after sha256: come the 64 hexadecimal digits of the hash")
            return
        if hashed is None and len(text) < _LEAST_KEY:
            message = (
                f"a key of `authentication.{self.name}` has under {_LEAST_KEY} characters: "
                "it can be found by trying"
            )
            hint = f"make one with `streamstack token --auth {self.name}`"
            self.add("weak-authentication", node.mark, message, hint)
        digest = digest_of(text) if hashed is None else bytes.fromhex(hashed[1])
        yield Key(name or f"key-{digest.hex()[:8]}", digest, scopes)

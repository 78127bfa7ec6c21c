"""The keys of a mapping of our own (a document, an input, a retry), read one by one."""

from __future__ import annotations

from collections.abc import Collection

from streamstack.errors import Mark
from streamstack.language.findings import FINDINGS
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.wording import describe, how_to_write, is_null, listed
from streamstack.language.parameters import Kind
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.suggest import nearest


class Fields:
    """The keys of one mapping. A null value counts as not given."""

    __slots__ = ("_faults", "_values", "mark", "node", "what")

    def __init__(self, node: Mapping, what: str, faults: Faults) -> None:
        self.node = node
        self.what = what  # how messages call it: `an endpoint`
        self.mark = node.mark
        self._faults = faults
        self._values = {name.text: value for name, value in node.items}

    def refuse_unknown(self, known: Collection[str], hint: str) -> None:
        """Report every key that is not known, with the one that may be meant."""
        for key, _ in self.node.items:
            name = key.text
            if name not in known:
                near = nearest(name, known)
                self._faults.add(
                    "unknown-key",
                    key.mark,
                    f"`{name}` is no key of {self.what}",
                    f"did you mean `{near}`?" if near else hint,
                )

    def get(self, key: str) -> Node | None:
        """Return a value that is given, or None."""
        node = self._values.get(key)
        return None if is_null(node) else node

    def key_mark(self, key: str) -> Mark:
        """Return the place of a key, or of the mapping where it has none."""
        found = self.node.key(key)
        return self.mark if found is None else found.mark

    def wrong(self, key: str, node: Node, wanted: str, hint: str) -> None:
        """Report a value of the wrong type."""
        self._faults.add(
            "wrong-type",
            node.mark,
            f"`{key}` of {self.what} is {wanted}, and this is {describe(node)}",
            hint,
        )

    def text(self, key: str, default: str = "") -> str:
        """Return a text. A number or boolean is taken as it is written."""
        node = self.get(key)
        if node is None:
            return default
        if isinstance(node, Scalar):
            return node.text
        self.wrong(key, node, "a text", how_to_write(Kind.TEXT, node))
        return default

    def optional_text(self, key: str) -> str | None:
        """Return a text, or None where none is given."""
        return None if self.get(key) is None else self.text(key)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        node = self.get(key)
        if node is None:
            return default
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        self.wrong(key, node, "true or false", how_to_write(Kind.BOOLEAN, node))
        return default

    def integer(self, key: str, minimum: int = 0) -> int | None:
        """Return an integer of at least ``minimum``."""
        node = self.get(key)
        if node is None:
            return None
        if isinstance(node, Scalar) and type(node.value) is int and node.value >= minimum:
            return node.value
        self.wrong(key, node, f"an integer of at least {minimum}", f"write {minimum} or more")
        return None

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        """Return one of a few words."""
        node = self.get(key)
        if node is None:
            return default
        if isinstance(node, Scalar) and isinstance(node.value, str):
            if node.value in choices:
                return node.value
            near = nearest(node.value, choices)
            hint = f"did you mean `{near}`?" if near else f"write {listed(choices)}"
            self.wrong(key, node, listed(choices), hint)
        else:
            self.wrong(key, node, listed(choices), f"write {listed(choices)}")
        return default

    def names(self, key: str) -> tuple[tuple[str, Mark], ...]:
        """Return a list of texts with their places."""
        node = self.get(key)
        if node is None:
            return ()
        if not isinstance(node, Sequence):
            shown = node.text if isinstance(node, Scalar) else "name"
            self.wrong(key, node, "a list of texts", f"write [{shown}]")
            return ()
        found: list[tuple[str, Mark]] = []
        for item in node.items:
            if isinstance(item, Scalar) and item.value is not None:
                found.append((item.text, item.mark))
            else:
                self.wrong(key, item, "a list of texts", "write [name, name]")
        return tuple(found)

    def codes(self, key: str) -> frozenset[str]:
        """Return the codes of findings that a list names."""
        found = set()
        for code, mark in self.names(key):
            if code in FINDINGS:
                found.add(code)
            else:
                near = nearest(code, FINDINGS)
                hint = f"did you mean `{near}`?" if near else ""
                self._faults.add("wrong-type", mark, f"`{code}` is no code of a finding", hint)
        return frozenset(found)

"""The key `authentication` of an endpoint: a name, a list (any of them), or {name: {scopes, optional}}."""

from __future__ import annotations

from typing import Final

from streamstack.language.authentication import SCOPE
from streamstack.language.definition import Authentication, Way
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.fields import Fields
from streamstack.language.loading.wording import is_null
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence

_HINT: Final = (
    "write a name, [name, name] for any of them, or {name: {scopes: [chat], optional: true}}"
)
#: What says that everybody may call.
NOBODY: Final = "none"


def read_authentication(fields: Fields, faults: Faults) -> Authentication | None:
    """Return who may call an endpoint; None for everybody."""
    node = fields.get("authentication")
    if node is None or (isinstance(node, Scalar) and node.value == NOBODY):
        return None
    reading = _Reading(faults)
    reading.read(node)
    if not reading.ways and not faults.failed:
        reading.refuse(node)
    # Even where something is wrong: it is not everybody who may call.
    return Authentication(tuple(reading.ways), reading.optional)


class _Reading:
    """Reads the ways in, whatever form they have."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.ways: list[Way] = []
        self.optional = False

    def read(self, node: Node) -> None:
        if isinstance(node, Sequence):
            for item in node.items:
                if isinstance(item, Sequence):
                    self.refuse(item)
                else:
                    self.read(item)
        elif isinstance(node, Mapping):
            for key, options in node.items:
                self._add(Way(key.text, self._options(options), key.mark))
        elif (
            isinstance(node.value, str)
            and node.value not in ("", NOBODY)
            and "<<" not in node.value
        ):
            self._add(Way(node.value, (), node.mark))
        else:
            self.refuse(node)

    def refuse(self, node: Node) -> None:
        """Report what is no authentication."""
        if isinstance(node, Scalar) and isinstance(node.value, str) and "<<" in node.value:
            told = "who may call is decided when the file is loaded: a binding can't stand here"
            self.faults.add("constant-required", node.mark, told, _HINT)
            return
        told = "`authentication` of an endpoint names those of the settings"
        self.faults.add("wrong-type", node.mark, told, _HINT)

    def _add(self, way: Way) -> None:
        if any(each.name == way.name for each in self.ways):
            self.faults.add("duplicate-name", way.mark, f"`{way.name}` is named twice")
        self.ways.append(way)

    def _options(self, node: Node) -> tuple[str, ...]:
        """Return the scopes that a way must give; note whether it is optional."""
        if is_null(node):
            return ()
        if not isinstance(node, Mapping):
            self.faults.add(
                "wrong-type", node.mark, "what stands below a name here is a mapping", _HINT
            )
            return ()
        fields = Fields(node, "an authentication", self.faults)
        fields.refuse_unknown(("scopes", "optional"), "it has `scopes` and `optional`")
        if fields.flag("optional"):
            self.optional = True
        listed = fields.get("scopes")
        if isinstance(listed, Scalar) and isinstance(listed.value, str):
            scopes = [(listed.value, listed.mark)]  # one alone needs no list
        else:
            scopes = list(fields.names("scopes"))
        for scope, mark in scopes:
            if SCOPE.fullmatch(scope) is None:
                told = f"`{scope}` is no scope: it has no spaces, quotes or backslashes"
                self.faults.add("wrong-type", mark, told, "write [chat, read] for several")
        return tuple(scope for scope, _ in scopes)

"""From the nodes of `inputParameters` to declared inputs."""

from __future__ import annotations

from typing import Any, Final

from streamstack.errors import Mark
from streamstack.language.definition import Input
from streamstack.language.inputs.types import (
    COMMON,
    COMMON_KEYS,
    CONSTRAINTS,
    FILTERS,
    KEYS,
    LOCATIONS,
    ON_INVALID,
    STREAM_FORMATS,
    TYPES,
    constraints_of,
)
from streamstack.language.loading.constants import mismatch
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.fields import Fields
from streamstack.language.loading.wording import KINDS, describe, how_to_write, is_null, listed
from streamstack.language.parameters import Kind
from streamstack.language.patterns import check_pattern
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence, plain
from streamstack.language.suggest import misspelt, nearest
from streamstack.language.units import parse_size
from streamstack.language.values import MISSING

_DEEPEST: Final = 16


def read_inputs(
    node: Node | None, faults: Faults, what: str = "inputParameters"
) -> tuple[Input, ...]:
    """Read declarations by name. Faults are added; a declaration that can't be read is left out."""
    return _read_inputs(node, faults, what, 0)


def _read_inputs(node: Node | None, faults: Faults, what: str, depth: int) -> tuple[Input, ...]:
    if node is None or is_null(node):
        return ()
    if not isinstance(node, Mapping):
        faults.cut(
            "wrong-type",
            node.mark,
            f"`{what}` is a mapping from names to declarations, and this is {describe(node)}",
            "write `name: {type: text}`",
        )
        return ()
    taken: dict[str, Mark] = {}
    found = []
    for key, value in node.items:
        name = key.text
        if not name or "<<" in name:
            faults.cut("bad-name", key.mark, f"`{name}` is no name for an input")
            continue
        declared = _read_input(name, key.mark, value, faults, depth)
        if declared is None:
            faults.holes = True
            continue
        found.append(declared)
        for alias in (name, *declared.aliases):
            if alias in taken:
                faults.add(
                    "duplicate-name",
                    key.mark,
                    f"`{alias}` already names the input in line {taken[alias].line}",
                )
            taken.setdefault(alias, key.mark)
    return tuple(found)


def _read_input(name: str, mark: Mark, node: Node, faults: Faults, depth: int) -> Input | None:
    if depth > _DEEPEST:
        faults.add(
            "too-deep",
            mark,
            f"declarations are nested more than {_DEEPEST} deep",
            "write `type: json` here",
        )
        return None
    if is_null(node):
        return Input(name=name, type="json", mark=mark)
    if isinstance(node, Scalar) and isinstance(node.value, str):
        if node.value in TYPES:
            return Input(name=name, type=node.value, mark=mark)
        meant = _type_meant(node.value)
        if meant is not None:
            # No description: one word that names a type, misspelt or as other languages call it.
            message = f"`{node.value}` is no type of inputs"
            hint = f"did you mean `{meant}`? A description is written {{description: ...}}"
            faults.add("unknown-type", node.mark, message, hint)
            return None
        return Input(name=name, type="json", mark=mark, description=node.value)
    if not isinstance(node, Mapping):
        faults.add(
            "wrong-type",
            node.mark,
            f"the declaration of `{name}` is a mapping or a type, and this is {describe(node)}",
            f"write `{name}: {{type: text}}`",
        )
        return None
    return _InputReader(name, mark, node, faults, depth).read()


def _type_meant(word: str) -> str | None:
    """Return the type that a word alone means, where it can hardly be a description."""
    found = COMMON.get(word.lower()) or misspelt(word, (*TYPES, *COMMON))
    return COMMON.get(found, found) if found else None


class _InputReader:
    """Reads one declaration."""

    def __init__(self, name: str, mark: Mark, node: Mapping, faults: Faults, depth: int) -> None:
        self.name = name
        self.mark = mark
        self.faults = faults
        self.depth = depth
        self.fields = Fields(node, f"the input `{name}`", faults)

    def read(self) -> Input | None:
        fields = self.fields
        type_ = self._type()
        if type_ is None:
            return None
        self._refuse_keys(type_)
        properties, items = fields.get("properties"), fields.get("items")
        declared = Input(
            name=self.name,
            type=type_,
            mark=self.mark,
            required=fields.flag("required"),
            nullable=fields.flag("nullable"),
            description=fields.text("description"),
            location=fields.choice("in", LOCATIONS, "") or None,
            aliases=tuple(alias for alias, _ in fields.names("aliases")),
            sensitive=fields.flag("sensitive"),
            min_length=fields.integer("minLength"),
            max_length=fields.integer("maxLength"),
            pattern=self._pattern(),
            filters=self._filters(),
            minimum=self._bound("minimum", type_),
            maximum=self._bound("maximum", type_),
            values=self._values(type_),
            properties=None
            if properties is None
            else _read_inputs(properties, self.faults, "properties", self.depth + 1),
            items=None
            if items is None
            else _read_input("items", fields.key_mark("items"), items, self.faults, self.depth + 1),
            min_items=fields.integer("minItems"),
            max_items=fields.integer("maxItems"),
            max_size=self._size("maxSize"),
            content_types=tuple(name for name, _ in fields.names("contentTypes")),
            decode=fields.choice("decode", STREAM_FORMATS, "") or None,
            on_invalid=fields.choice("onInvalid", ON_INVALID, "fail"),
            default=self._default(),
        )
        self._compare("minLength", declared.min_length, "maxLength", declared.max_length)
        self._compare("minimum", declared.minimum, "maximum", declared.maximum)
        self._compare("minItems", declared.min_items, "maxItems", declared.max_items)
        self._check_default(declared)
        return declared

    def _type(self) -> str | None:
        node = self.fields.get("type")
        if node is None:
            if self.fields.get("properties") is not None:
                return "object"
            if self.fields.get("items") is not None:
                return "list"
            if self.fields.get("values") is not None:
                return "enum"
            return "json"
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            self.fields.wrong("type", node, "the name of a type", "write `type: text`")
            return None
        if node.value in TYPES:
            return node.value
        near = COMMON.get(node.value.lower()) or nearest(node.value, TYPES)
        self.faults.add(
            "unknown-type",
            node.mark,
            f"`{node.value}` is no type of inputs",
            f"did you mean `{near}`?" if near else "",
        )
        return None

    def _refuse_keys(self, type_: str) -> None:
        for key, _ in self.fields.node.items:
            name = key.text
            if name in KEYS:
                if name == "in" and self.depth:
                    self.faults.add(
                        "bad-constraint",
                        key.mark,
                        "`in` belongs to an input, not to a property or item of one",
                        "take it out, or write it beside the outermost `type`",
                    )
            elif name not in CONSTRAINTS:
                near = _key_meant(name, type_)
                self.faults.add(
                    "unknown-key",
                    key.mark,
                    f"`{name}` is no key of an input's declaration",
                    f"did you mean `{near}`?"
                    if near
                    else f"its keys are {listed((*KEYS, *constraints_of(type_)), 'and')}",
                )
            elif type_ not in CONSTRAINTS[name]:
                belonging = constraints_of(type_)
                self.faults.add(
                    "bad-constraint",
                    key.mark,
                    f"`{name}` belongs to {listed(CONSTRAINTS[name])}, and this is of type {type_}",
                    f"the constraints of {type_} are {listed(belonging, 'and')}"
                    if belonging
                    else f"the type {type_} has no constraints: take it out",
                )

    def _pattern(self) -> str | None:
        node = self.fields.get("pattern")
        text = self.fields.optional_text("pattern")
        if node is None or text is None:
            return None
        try:
            check_pattern(text, self.fields.integer("maxLength"))
        except ValueError as error:
            self.faults.add("bad-pattern", node.mark, f"`pattern` of `{self.name}`: {error}")
            return None
        return text

    def _filters(self) -> tuple[str, ...]:
        found = []
        for word, mark in self.fields.names("filters"):
            if word in FILTERS:
                found.append(word)
            else:
                self.faults.add(
                    "bad-constraint",
                    mark,
                    f"`{word}` is no filter of inputs: it is {listed(FILTERS)}",
                )
        return tuple(found)

    def _bound(self, key: str, type_: str) -> Any:
        node = self.fields.get(key)
        if node is None:
            return None
        value = node.value if isinstance(node, Scalar) else None
        if type(value) is int or (type(value) is float and type_ == "decimal"):
            return value
        wanted = Kind.INTEGER if type_ == "integer" else Kind.NUMBER
        self.fields.wrong(key, node, KINDS[wanted], how_to_write(wanted, node))
        return None

    def _values(self, type_: str) -> tuple[Any, ...]:
        node = self.fields.get("values")
        if node is None:
            if type_ == "enum":
                self.faults.add(
                    "missing-parameter",
                    self.mark,
                    f"the enum `{self.name}` lacks `values`",
                    "add `values: [a, b]`",
                )
            return ()
        if not isinstance(node, Sequence):
            self.fields.wrong("values", node, "a list of values", "write [a, b]")
            return ()
        found: list[Any] = []
        for item in node.items:
            if not isinstance(item, Scalar) or item.value is None:
                self.fields.wrong(
                    "values", item, "a list of texts, numbers or booleans", "write [a, b]"
                )
            elif any(item.value == other and type(item.value) is type(other) for other in found):
                self.faults.add(
                    "bad-constraint",
                    item.mark,
                    f"`{item.text}` stands twice in `values`",
                    "take one out",
                )
            else:
                found.append(item.value)
        if not node.items:
            self.faults.add(
                "bad-constraint",
                node.mark,
                "`values` is empty, so that no value would fit",
                "add `[a, b]`",
            )
        return tuple(found)

    def _size(self, key: str) -> int | None:
        node = self.fields.get(key)
        if node is None:
            return None
        try:
            return parse_size(plain(node))
        except ValueError as error:
            self.faults.add("bad-size", node.mark, f"`{key}` of the input `{self.name}`: {error}")
            return None

    def _compare(self, low: str, least: Any, high: str, most: Any) -> None:
        if least is not None and most is not None and least > most:
            self.faults.add(
                "bad-constraint",
                self.fields.key_mark(low),
                f"`{low}` {least} is more than `{high}` {most}, so that no value would fit",
                "exchange the two",
            )

    def _default(self) -> Any:
        node = self.fields.node.get("default")
        return MISSING if node is None else plain(node)

    def _check_default(self, declared: Input) -> None:
        node = self.fields.node.get("default")
        if node is None or is_null(node):
            return
        if any("<<" in text for text in _texts(node)):
            self.faults.add(
                "constant-required",
                node.mark,
                f"the default of `{self.name}` holds a binding",
                f"leave it out, and write <<input.{self.name} | default(...)>> where it is read",
            )
            return
        if declared.required:
            self.faults.add(
                "bad-default",
                node.mark,
                f"`{self.name}` is required, so that its default is never used",
                "take one of the two out",
            )
        elif declared.type != "stream":
            fault = mismatch(declared, declared.default)
            if fault:
                self.faults.add("bad-default", node.mark, f"the default does not fit: {fault}")


def _key_meant(name: str, type_: str) -> str | None:
    """Return the key that is meant, one that fits the type before any other."""
    fitting = (*KEYS, *constraints_of(type_))
    common = next((each for each in COMMON_KEYS.get(name, ()) if each in fitting), None)
    return common or nearest(name, fitting) or nearest(name, (*KEYS, *CONSTRAINTS))


def _texts(node: Node) -> list[str]:
    if isinstance(node, Scalar):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, Sequence):
        return [text for item in node.items for text in _texts(item)]
    return [text for key, item in node.items for text in (key.text, *_texts(item))]

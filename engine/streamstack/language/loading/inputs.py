"""From the nodes of `inputParameters` to declared inputs, whether a constant fits one, and where requests hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from streamstack.errors import Mark
from streamstack.formats import DIALECTS
from streamstack.language.definition import Input
from streamstack.language.foreign import meant_key
from streamstack.language.keys import (
    COMMON_KEYS,
    COMMON_TYPES,
    CONSTRAINTS,
    INPUT_CONSTRAINTS,
    INPUT_KEYS,
    TYPES,
    constraints_of,
)
from streamstack.language.kinds import FACTS, Kind, out_of_range
from streamstack.language.loading.arguments import (
    ArgumentReader,
    Faults,
    as_meant,
    describe,
    how_to_write,
    python_values,
)
from streamstack.language.names import certain, did_you_mean, listed, misspelt, nearest, suggestion
from streamstack.language.nodes import Mapping, Node, Scalar, Sequence, plain
from streamstack.language.paths import parameters
from streamstack.language.patterns import check_pattern, compile_pattern
from streamstack.language.values import MISSING, kind
from streamstack.spec import is_null

_FIELDS: Final = (*INPUT_KEYS, *INPUT_CONSTRAINTS)
_NAMES: Final = frozenset(each.name for each in _FIELDS)
_KEY_NAMES: Final = tuple(each.name for each in INPUT_KEYS)
#: The integers that JSON and databases hold; the digits a decimal may have on either side.
_LARGEST: Final = 2**63 - 1
_FILTERS: Final[dict[str, Callable[[str], str]]] = {"trim": str.strip, "lower": str.lower, "upper": str.upper}
_DEEPEST: Final = 16


def read_inputs(node: Node | None, faults: Faults, what: str = "inputParameters") -> tuple[Input, ...]:
    """Read declarations by name. Faults are added; a declaration that can't be read is left out."""
    return _read_inputs(node, faults, what, 0)


def read_input(name: str, mark: Mark, node: Node, faults: Faults) -> Input | None:
    """Read one declaration. Faults are added; None for one that can't be read."""
    return _read_input(name, mark, node, faults, 0)


def _read_inputs(node: Node | None, faults: Faults, what: str, depth: int) -> tuple[Input, ...]:
    if node is None or is_null(node):
        return ()
    if not isinstance(node, Mapping):
        faults.cut(
            "wrong-type",
            node.mark,
            f"`{what}` must be a mapping from names to declarations, not {describe(node)}",
            "write `name: {type: text}`",
        )
        return ()
    taken: dict[str, Mark] = {}
    found = []
    for key, value in node.items:
        name = key.text
        if not name or "<<" in name:
            faults.cut("bad-name", key.mark, f"`{name}` is not a valid name for an input")
            continue
        declared = _read_input(name, key.mark, value, faults, depth)
        if declared is None:
            faults.holes = True
            continue
        found.append(declared)
        for alias in (name, *declared.aliases):
            if alias in taken:
                faults.add("duplicate-name", key.mark, f"`{alias}` already names the input in line {taken[alias].line}")
            taken.setdefault(alias, key.mark)
    return tuple(found)


def _read_input(name: str, mark: Mark, node: Node, faults: Faults, depth: int) -> Input | None:
    if depth > _DEEPEST:
        faults.add("too-deep", mark, f"declarations are nested more than {_DEEPEST} deep", "write `type: json` here")
        return None
    if is_null(node):
        return Input(name=name, type="json", mark=mark)
    if isinstance(node, Scalar) and isinstance(node.value, str):
        if node.value in TYPES:
            return Input(name=name, type=node.value, mark=mark)
        meant = _type_meant(node.value)
        if meant is not None:
            # No description: one word that names a type, misspelt or as other languages call it.
            message = f"unknown input type `{node.value}`"
            hint = f"did you mean `{meant}`? A description is written {{description: ...}}"
            sure = COMMON_TYPES.get(node.value.lower()) or certain(node.value, TYPES)
            replacement = node.replacement(0, len(node.text), sure) if sure else None
            faults.add("unknown-type", node.mark, message, hint, replacement)
            return Input(name=name, type=sure, mark=mark) if sure else None
        return Input(name=name, type="json", mark=mark, description=node.value)
    if not isinstance(node, Mapping):
        faults.add(
            "wrong-type",
            node.mark,
            f"the declaration of `{name}` must be a mapping or a type, not {describe(node)}",
            f"write `{name}: {{type: text}}`",
        )
        return None
    return _InputReader(name, mark, node, faults, depth).read()


def _type_meant(word: str) -> str | None:
    """Return the type that a word alone means, where it can hardly be a description."""
    found = COMMON_TYPES.get(word.lower()) or misspelt(word, (*TYPES, *COMMON_TYPES))
    return COMMON_TYPES.get(found, found) if found else None


class _InputReader:
    """Reads one declaration."""

    def __init__(self, name: str, mark: Mark, node: Mapping, faults: Faults, depth: int) -> None:
        self.name = name
        self.mark = mark
        self.node = node
        self.faults = faults
        self.depth = depth
        self.owner = f"the input `{name}`"

    def read(self) -> Input | None:
        type_ = self._type()
        if type_ is None:
            return None
        self._refuse_keys(type_)
        reader = ArgumentReader(self.faults, lambda *_: None, of_steps=False)
        unread = ("type", *(key.text for key, _ in self.node.items if key.text not in _NAMES))
        read = reader.read_arguments(_FIELDS, self.node, self.owner, "", unread=unread)
        values = python_values(_FIELDS, read)
        properties, items = self._get("properties"), self._get("items")
        if properties is not None:
            values["properties"] = _read_inputs(properties, self.faults, "properties", self.depth + 1)
        if items is not None:
            mark = (self.node.key("items") or self.node).mark
            values["items"] = _read_input("items", mark, items, self.faults, self.depth + 1)
        if "pattern" in values and not self._compiles(values["pattern"], values.get("max_length")):
            del values["pattern"]
        declared = Input(
            name=self.name,
            type=type_,
            mark=self.mark,
            minimum=self._bound("minimum", type_),
            maximum=self._bound("maximum", type_),
            values=self._values(type_),
            default=self._default(),
            **values,
        )
        self._compare("minLength", declared.min_length, "maxLength", declared.max_length)
        self._compare("minimum", declared.minimum, "maximum", declared.maximum)
        self._compare("minItems", declared.min_items, "maxItems", declared.max_items)
        self._check_default(declared)
        return declared

    def _get(self, key: str) -> Node | None:
        """Return a value that is given, or None."""
        node = self.node.get(key)
        return None if is_null(node) else node

    def _wrong(self, key: str, node: Node, wanted: str, hint: str, written: str = "") -> None:
        message = f"`{key}` of {self.owner} must be {wanted}, not {describe(node)}"
        replacement = node.rewrite(written) if written and isinstance(node, Scalar) else None
        self.faults.add("wrong-type", node.mark, message, hint, replacement)

    def _compiles(self, pattern: str, max_length: int | None) -> bool:
        try:
            check_pattern(pattern, max_length)
        except ValueError as error:
            mark = (self.node.get("pattern") or self.node).mark
            self.faults.add("bad-pattern", mark, f"`pattern` of `{self.name}`: {error}")
            return False
        return True

    def _type(self) -> str | None:
        node = self._get("type")
        if node is None:
            if self._get("properties") is not None:
                return "object"
            if self._get("items") is not None:
                return "list"
            if self._get("values") is not None:
                return "enum"
            return "json"
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            self._wrong("type", node, "the name of a type", "write `type: text`")
            return None
        if node.value in TYPES:
            return node.value
        common = COMMON_TYPES.get(node.value.lower())
        near, sure = common or nearest(node.value, TYPES), common or certain(node.value, TYPES)
        hint = f"did you mean `{near}`?" if near else ""
        replacement = node.replacement(0, len(node.text), sure) if sure else None
        self.faults.add("unknown-type", node.mark, f"unknown input type `{node.value}`", hint, replacement)
        return sure or None

    def _refuse_keys(self, type_: str) -> None:
        for key, _ in self.node.items:
            name = key.text
            if name in _KEY_NAMES:
                if name == "in" and self.depth:
                    self.faults.add(
                        "bad-constraint",
                        key.mark,
                        "`in` belongs to an input, not to a property or item of one",
                        "remove it, or write it beside the outermost `type`",
                    )
            elif name not in CONSTRAINTS:
                near, sure = _key_meant(name, type_)
                hint = f"did you mean `{near}`?"
                if not near:
                    hint = f"its keys are {listed((*_KEY_NAMES, *constraints_of(type_)), 'and')}"
                replacement = key.replacement(0, len(name), near) if sure and self.node.key(near) is None else None
                message = f"unknown key `{name}` in an input's declaration"
                self.faults.add("unknown-key", key.mark, message, hint, replacement)
            elif type_ not in CONSTRAINTS[name]:
                belonging = constraints_of(type_)
                self.faults.add(
                    "bad-constraint",
                    key.mark,
                    f"`{name}` applies to {listed(CONSTRAINTS[name])}, not to type {type_}",
                    f"the constraints of {type_} are {listed(belonging, 'and')}"
                    if belonging
                    else f"the type {type_} has no constraints: remove it",
                )

    def _bound(self, key: str, type_: str) -> Any:
        node = self._get(key)
        if node is None:
            return None
        value = node.value if isinstance(node, Scalar) else None
        if type(value) is int or (type(value) is float and type_ == "decimal"):
            return value
        wanted = Kind.INTEGER if type_ == "integer" else Kind.NUMBER
        self._wrong(key, node, FACTS[wanted].phrase, how_to_write(wanted, node), as_meant(wanted, node))
        return None

    def _values(self, type_: str) -> tuple[Any, ...]:
        node = self._get("values")
        if node is None:
            if type_ == "enum":
                self.faults.add(
                    "missing-parameter", self.mark, f"the enum `{self.name}` requires `values`", "add `values: [a, b]`"
                )
            return ()
        if not isinstance(node, Sequence):
            self._wrong("values", node, "a list of values", "write [a, b]")
            return ()
        found: list[Any] = []
        for item in node.items:
            if not isinstance(item, Scalar) or item.value is None:
                self._wrong("values", item, "a list of texts, numbers or booleans", "write [a, b]")
            elif type(item.value) is int and not -_LARGEST <= item.value <= _LARGEST:
                message = f"`{item.text}` is an integer beyond 64 bits, which no client can send"
                self.faults.add("bad-constraint", item.mark, message, f'write it as a text: "{item.text}"')
            elif any(item.value == other and type(item.value) is type(other) for other in found):
                self.faults.add(
                    "bad-constraint", item.mark, f"duplicate value `{item.text}` in `values`", "take one out"
                )
            else:
                found.append(item.value)
        if not node.items:
            self.faults.add(
                "bad-constraint", node.mark, "`values` is empty, so that no value would fit", "add `[a, b]`"
            )
        return tuple(found)

    def _compare(self, low: str, least: Any, high: str, most: Any) -> None:
        if least is not None and most is not None and least > most:
            self.faults.add(
                "bad-constraint",
                (self.node.key(low) or self.node).mark,
                f"`{low}` {least} is more than `{high}` {most}, so that no value would fit",
                "exchange the two",
            )

    def _default(self) -> Any:
        node = self.node.get("default")
        return MISSING if node is None else plain(node)

    def _check_default(self, declared: Input) -> None:
        node = self.node.get("default")
        if node is None or is_null(node):
            return
        if any("<<" in text for text in _texts(node)):
            self.faults.add(
                "constant-required",
                node.mark,
                f"the default of `{self.name}` holds a binding",
                f"remove it, and write <<input.{self.name} | default(...)>> where it is read",
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


def _key_meant(name: str, type_: str) -> tuple[str, bool]:
    """Return the key that is meant, one that fits the type before any other, and whether that is certain."""
    fitting = (*_KEY_NAMES, *constraints_of(type_))
    common = next((each for each in COMMON_KEYS.get(name, ()) if each in fitting), None)
    if common:
        return common, name != "optional"  # it means the opposite
    near, sure = meant_key(name, fitting)
    return near or nearest(name, (*_KEY_NAMES, *CONSTRAINTS)) or "", sure


def _texts(node: Node) -> list[str]:
    if isinstance(node, Scalar):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, Sequence):
        return [text for item in node.items for text in _texts(item)]
    return [text for key, item in node.items for text in (key.text, *_texts(item))]


# --------------------------------------------------------------------------------------- constants


def mismatch(declared: Input, value: Any, name: str = "") -> str:
    """Say how a constant breaks the declaration of an input, or nothing.

    ``name`` is how the message calls the value: `streamOptions.chunkSize`.
    """
    name = name or declared.name
    if value is None:
        return "" if declared.nullable else f"`{name}` is null; declare `nullable: true` to allow it"
    if isinstance(value, float) and not math.isfinite(value):
        return f"`{name}` is not a number that JSON can represent"
    return _CHECKS.get(declared.type, _written)(declared, value, name)


def _text(declared: Input, value: Any, name: str) -> str:
    if not isinstance(value, str):
        return _not(name, "a text", value)
    for each in declared.filters:
        value = _FILTERS[each](value)
    if declared.min_length is not None and len(value) < declared.min_length:
        return f"`{name}` has fewer than {declared.min_length} characters"
    if declared.max_length is not None and len(value) > declared.max_length:
        return f"`{name}` has more than {declared.max_length} characters"
    if declared.pattern is not None and not compile_pattern(declared.pattern).matches(value):
        return f"`{name}` does not match the pattern {declared.pattern}"
    return ""


def _number(declared: Input, value: Any, name: str) -> str:
    if declared.type == "integer" and type(value) is not int:
        return _not(name, "an integer", value)
    if type(value) not in (int, float):
        return _not(name, "a number", value)
    if declared.type == "integer" and not -_LARGEST <= value <= _LARGEST:
        return f"`{name}` is an integer beyond 64 bits"
    bound = out_of_range(value, declared.minimum, declared.maximum)
    return f"`{name}` must be {bound}" if bound else ""


def _boolean(_: Input, value: Any, name: str) -> str:
    return "" if isinstance(value, bool) else _not(name, "true or false", value)


def _enum(declared: Input, value: Any, name: str) -> str:
    if any(value == allowed and type(value) is type(allowed) for allowed in declared.values):
        return ""
    return f"`{name}` must be {listed(str(allowed) for allowed in declared.values)}"


def _list(declared: Input, value: Any, name: str) -> str:
    if not isinstance(value, list):
        return _not(name, "a list", value)
    if declared.min_items is not None and len(value) < declared.min_items:
        return f"`{name}` has fewer than {declared.min_items} items"
    if declared.max_items is not None and len(value) > declared.max_items:
        return f"`{name}` has more than {declared.max_items} items"
    if declared.items is not None:
        for index, item in enumerate(value):
            fault = mismatch(declared.items, item, f"{name}[{index}]")
            if fault:
                return fault
    return ""


def _object(declared: Input, value: Any, name: str) -> str:
    if not isinstance(value, dict):
        return _not(name, "a mapping", value)
    if declared.properties is None:
        return ""
    known = {inner.name: inner for inner in declared.properties}
    for key, item in value.items():
        if key not in known:
            return f"`{name}` has no property `{key}`{did_you_mean(key, known)}"
        fault = mismatch(known[key], item, f"{name}.{key}")
        if fault:
            return fault
    missing = [inner.name for inner in declared.properties if inner.required and inner.name not in value]
    return f"`{name}` lacks the required property `{missing[0]}`" if missing else ""


def _written(declared: Input, value: Any, name: str) -> str:
    """Check a value of a type that is written as text."""
    type_ = TYPES[declared.type]
    if declared.schema is not None:
        for part, message in declared.schema.find_faults(value):
            return f"`{name}{'.' if part and part[0] != '[' else ''}{part}` {message}"
        return ""
    if type_.raw:
        return f"`{name}` is a {declared.type}, which can't be written in a definition"
    if type_.parse is None or (isinstance(value, str) and type_.parse(value) is not None):
        return ""
    return _not(name, type_.phrase, value)


def _not(name: str, wanted: str, value: Any) -> str:
    shown = f'the text "{value}"' if isinstance(value, str) else f"of type {kind(value)}"
    return f"`{name}` must be {wanted}, not {shown}"


_CHECKS: Final[dict[str, Callable[[Input, Any, str], str]]] = {
    "text": _text,
    "integer": _number,
    "decimal": _number,
    "boolean": _boolean,
    "object": _object,
    "list": _list,
    "enum": _enum,
}


# ------------------------------------------------------------------------- what a request can send

#: What no single text can hold.
_LARGE = ("object", "list", "file", "stream")
_BODY = ("body", "wholeBody")


def check_sent(inputs: tuple[Input, ...], written: Collection[str], path: str, mark: Mark, faults: Faults) -> None:
    """Report inputs that the path, the query or the body can't hold, and parameters of the path.

    ``written`` are the names of all inputs, with those whose declaration was refused; ``path`` is
    empty where it could not be read.
    """
    _check_places(inputs, faults)
    if path:
        named = parameters(path)
        _check_path(named, inputs, written, mark, faults)
        _check_declared(named, inputs, faults)


def _every(inputs: tuple[Input, ...]) -> Iterator[Input]:
    for each in inputs:
        yield each
        yield from _every(each.properties or ())
        if each.items is not None:
            yield from _every((each.items,))


def check_promises(declared: tuple[Input, ...], faults: Faults) -> None:
    """Report what has no meaning for values that an endpoint sends."""
    for each in _every(declared):
        if TYPES[each.type].raw:
            message = f"`{each.name}` is a {each.type}, which no chunk or response can hold"
            faults.add("bad-constraint", each.mark, message, "write the type of the value as JSON, such as text")
        for key, values in (("in", each.location), ("aliases", each.aliases), ("filters", each.filters)):
            if values:
                message = f"`{key}` of `{each.name}` applies to inputs, not to what an endpoint sends"
                faults.add("bad-constraint", each.mark, message, "remove it")


def check_streams(inputs: tuple[Input, ...], method: str, format_: str, faults: Faults) -> None:
    """Report what no stream can be: more than one, a part of something, beside what else needs the body."""
    streams = [each for each in inputs if each.type == "stream"]
    for each in _every(inputs):
        if each.type == "stream" and each not in streams:
            faults.add(
                "bad-constraint",
                each.mark,
                "a stream is the whole request body, and no part of another input",
                "declare it beside the others, as `events: {type: stream}`",
            )
    for other in streams[1:]:
        faults.add(
            "bad-constraint",
            other.mark,
            f"`{other.name}` and `{streams[0].name}` are both the request body",
            "take one of the two out",
        )
    if streams:
        _check_stream(streams[0], inputs, method, format_, faults)


def _check_stream(stream: Input, inputs: tuple[Input, ...], method: str, format_: str, faults: Faults) -> None:
    """Report what does not go together with a stream of the request body."""
    if stream.location not in (None, "body", "wholeBody"):
        faults.add(
            "bad-constraint",
            stream.mark,
            f"`{stream.name}` is a stream, which only the body can be",
            "take the `in` out",
        )
    if stream.default is not MISSING:
        faults.add(
            "bad-default",
            stream.mark,
            f"`{stream.name}` is a stream: without a body it is one without items, and has no default",
            "take the default out",
        )
    if method in ("GET", "HEAD") and format_ not in ("auto", "websocket"):
        faults.add(
            "bad-constraint",
            stream.mark,
            f"`{stream.name}` is the request body, and {method} has none",
            "write `method: POST`",
        )
    if format_ in DIALECTS:
        faults.add(
            "bad-constraint",
            stream.mark,
            f"`format: {format_}` reads the request body itself, and `{stream.name}` is that body",
            "write another format, or take the messages as `{type: list}`",
        )
    for each in inputs:
        if each.type != "stream" and (each.location in _BODY or each.type == "file"):
            faults.add(
                "bad-constraint",
                each.mark,
                f"`{each.name}` is in the body, which the stream `{stream.name}` takes whole",
                "write `in: query`" if each.type != "file" else "take one of the two out",
            )


def _check_places(inputs: tuple[Input, ...], faults: Faults) -> None:
    """Report a body that is taken whole and in parts, and files outside of it."""
    whole = next((each for each in inputs if each.location == "wholeBody"), None)
    for each in inputs:
        if (
            whole is not None
            and each is not whole
            and each.location in _BODY
            and "stream" not in (whole.type, each.type)
        ):
            faults.add(
                "bad-constraint",
                each.mark,
                f"`{each.name}` is in the body, which `{whole.name}` takes whole",
                f"declare it as a property of `{whole.name}`, or write `in: query`",
            )
        if each.type == "file" and each.location not in (None, "body", "path"):
            faults.add(
                "bad-constraint",
                each.mark,
                f"`{each.name}` is a file, which only a part of the body can hold",
                "take the `in` out",
            )


def _check_path(
    named: list[str], inputs: tuple[Input, ...], written: Collection[str], mark: Mark, faults: Faults
) -> None:
    """Report parameters of the path that are not declared, or not as the path can hold them."""
    declared = {each.name: each for each in inputs}
    for name in named:
        found = declared.get(name)
        if found is None and name not in written:
            faults.add(
                "undeclared-path-parameter",
                mark,
                f"the path's parameter `{name}` is not declared",
                suggestion(name, declared, f"add `{name}: {{type: text}}` under `inputParameters`"),
            )
        elif found is not None and found.location not in (None, "path"):
            faults.add(
                "bad-constraint",
                found.mark,
                f"`{name}` is in the path, but is declared `in: {found.location}`",
                "take the `in` out, or give one of the two another name",
            )
        elif found is not None and found.type in _LARGE:
            faults.add(
                "bad-constraint",
                found.mark,
                f"`{name}` is in the path, which can't hold the type {found.type}",
                "declare it as text, and split it in the stack",
            )


def _check_declared(named: list[str], inputs: tuple[Input, ...], faults: Faults) -> None:
    """Report inputs that are declared to be in the path, and that the path does not name."""
    for each in inputs:
        if each.location == "path" and each.name not in named:
            faults.add(
                "undeclared-path-parameter",
                each.mark,
                f"`{each.name}` is declared `in: path`, and the path does not name it",
                suggestion(each.name, named, f"write {{{each.name}}} in the path"),
            )

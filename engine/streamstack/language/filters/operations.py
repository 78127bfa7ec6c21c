"""Declaration of the filters, functions and tests of expressions, and their errors for unsuitable values."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from streamstack.errors import RunError, fast_dataclass
from streamstack.language.kinds import FACTS, Kind, out_of_range, suits
from streamstack.language.operators import MAX_ITEMS, a_kind
from streamstack.language.values import Opaque, to_text
from streamstack.spec import Bound, Constant, Field

What = Literal["filter", "function", "test"]
#: Shapes that many take: what can be written as a text, what is a moment, what has items.
WRITABLE: Final = "text | number | boolean | timestamp | date"
MOMENT: Final = "timestamp | date | text | number"
ROWS: Final = "list | object"
_Code = TypeVar("_Code", bound=Callable[..., Any])


@fast_dataclass()
class ArgumentFault:
    """What is wrong with constant arguments: the finding, and what can be written for which argument, if certain."""

    code: str
    message: str
    hint: str = ""
    argument: int = 0
    instead: str = ""


#: Checks constant arguments (others are Jinja2 nodes).
Check = Callable[[Sequence[object]], ArgumentFault | None]


@dataclass(frozen=True, slots=True)
class Operation:
    """One filter, function or test of expressions.

    ``summary`` describes the result. ``example`` is an expression and ``result`` its value, both shown in the
    reference and run by the tests. ``fields`` are its arguments, without the value on the left; ``minimum`` and
    ``maximum`` count them; ``maximum`` None means any number. ``check`` validates constant arguments. ``call``
    validates its arguments first, ``code`` does not. ``shape`` is what it takes and gives, ``arguments`` the shapes of
    its arguments (see `declare`).
    """

    what: What
    name: str
    summary: str
    example: str
    result: Any
    code: Callable[..., Any]
    call: Callable[..., Any]
    fields: tuple[Field, ...]
    keywords: tuple[str, ...]
    minimum: int
    maximum: int | None
    any_keyword: bool = False
    check: Check | None = None
    shape: str = ""
    arguments: Sequence[str] = ()
    same_as: str = ""
    plugin: str = ""  # the file that declares it

    @property
    def takes(self) -> str:
        """What the value on its left must be, in the notation of `language.shapes`; "" is anything."""
        return self.shape.rpartition("->")[0].strip()

    @property
    def gives(self) -> str:
        """What its result is, in the notation of `language.shapes`; "" is anything."""
        return self.shape.rpartition("->")[2].strip()

    @property
    def usage(self) -> str:
        """How it is written, with its arguments."""
        arguments = [each.name if each.required else f"{each.name}={_shown(each.default)}" for each in self.fields]
        inside = ", ".join([*arguments, *(["..."] if self.maximum is None else [])])
        called = f"({inside})" if inside or self.what == "function" else ""
        if self.what == "filter":
            return f"`value | {self.name}{called}`"
        return f"`value is {self.name}{called}`" if self.what == "test" else f"`{self.name}{called}`"


FILTERS: Final[dict[str, Operation]] = {}
FUNCTIONS_OF_EXPRESSIONS: Final[dict[str, Operation]] = {}
TESTS: Final[dict[str, Operation]] = {}
_REGISTRIES: Final = {"filter": FILTERS, "function": FUNCTIONS_OF_EXPRESSIONS, "test": TESTS}

#: Filters whose argument (by position) names another filter or test.
NAMING: Final[dict[str, tuple[int, Literal["filter", "test"]]]] = {
    "map": (0, "filter"),
    "select": (0, "test"),
    "reject": (0, "test"),
    "selectattr": (1, "test"),
    "rejectattr": (1, "test"),
}

#: Jinja2's filters that have no place here, and what to write instead.
DROPPED: Final = {
    "attr": 'a value has items only: write `x["name"]`',
    "format": "write the text with `<<...>>` in it, or `~` to join texts",
    "pprint": "write `x | toJson`",
    "xmlattr": 'write `name="<<x | escape>>"`',
    "urlize": "write the link with `<<x | escape>>` in it",
    "forceescape": "write `x | escape`",
}


def declare(  # noqa: PLR0913  (what there is to say of one)
    what: What,
    name: str,
    example: str,
    result: Any,
    *,
    aliases: Sequence[str] = (),
    check: Check | None = None,
    takes: Mapping[str, Constant] = MappingProxyType({}),
    shape: str = "",
    arguments: Sequence[str] = (),
) -> Callable[[_Code], _Code]:
    """Register the function below as a filter, function or test of expressions.

    Its docstring is the description in the reference.

    Args:
        what, name: What it is, and how it is called.
        example, result: An expression, and its value.
        aliases: Further names.
        check: Validates constant arguments together.
        takes: The types of its arguments, by name: constants are checked when the file is loaded, others before each
            call. Null is allowed where it is the default.
        shape: What it takes and gives, in the notation of `language.shapes`: left of the arrow the value, right of it
            the result, which may refer to the value as `it` and to an argument by its name.
        arguments: The shapes of its arguments, by position; those in ``takes`` need none.
    """

    def register(code: _Code) -> _Code:
        parameters = list(inspect.signature(code).parameters.values())
        if what != "function":
            parameters = parameters[1:]
        fields = tuple(
            Field(
                p.name,
                takes.get(p.name, Bound()),
                "",
                required=p.default is p.empty,
                default=None if p.default is p.empty else p.default,
            )
            for p in parameters
            if p.kind is p.POSITIONAL_OR_KEYWORD
        )
        several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        operation = Operation(
            what=what,
            name=name,
            summary=" ".join((inspect.getdoc(code) or "").split()),
            example=example,
            result=result,
            code=code,
            call=_checked(code, name, fields, what != "function") if takes else code,
            fields=fields,
            keywords=tuple(each.name for each in fields),
            minimum=sum(each.required for each in fields),
            maximum=None if several else len(fields),
            any_keyword=any(p.kind is p.VAR_KEYWORD for p in parameters),
            check=_check_of(name, fields, check) if takes else check,
            shape=shape,
            arguments=arguments,
        )
        registry = _REGISTRIES[what]
        for one in (name, *aliases):
            if one in registry:
                raise ValueError(f"the {what} {one} is declared twice")
        registry[name] = operation
        for alias in aliases:
            registry[alias] = replace(operation, name=alias, same_as=name)
        return code

    return register


def whole(low: int = 0, high: int = MAX_ITEMS) -> Constant:
    """Return the type of an argument that is an integer within bounds."""
    return Constant(Kind.INTEGER, low, high)


#: The type of an argument that is a text.
TEXT: Final = Constant()


def fault_of(field: Field, name: str, value: Any) -> str:
    """Return why an argument is invalid, or nothing."""
    wanted = field.type
    if not isinstance(wanted, Constant) or (value is None and not field.required and field.default is None):
        return ""
    if not suits(wanted.kind, value):
        return f"`{field.name}` of `{name}` must be {FACTS[wanted.kind].phrase}, got {a_kind(value)}"
    if out_of_range(value, wanted.minimum, wanted.maximum):
        return f"`{field.name}` of `{name}` must be from {wanted.minimum} to {wanted.maximum:,}, got {value}"
    return ""


def _checked(
    code: Callable[..., Any],
    name: str,
    fields: tuple[Field, ...],
    filters: bool,  # noqa: FBT001
) -> Callable[..., Any]:
    """Return code that looks at its arguments first; a filter's come after the value on its left."""
    typed = tuple(each if isinstance(each.type, Constant) else None for each in fields)
    by_name = {each.name: each for each in typed if each is not None}
    first = int(filters)

    def call(*arguments: Any, **named: Any) -> Any:
        if len(arguments) > first:
            for field, value in zip(typed, arguments[first:], strict=False):
                if field is not None and (fault := fault_of(field, name, value)):
                    raise RunError("template", fault)
        for key, value in named.items():
            if key in by_name and (fault := fault_of(by_name[key], name, value)):
                raise RunError("template", fault)
        return code(*arguments, **named)

    return call


def _check_of(name: str, fields: tuple[Field, ...], check: Check | None) -> Check:
    def found(constants: Sequence[object]) -> ArgumentFault | None:
        for field, value in zip(fields, constants, strict=False):
            # Others are nodes, whose value is not known yet.
            known = value is None or isinstance(value, (bool, int, float, str, list, dict))
            if known and (fault := fault_of(field, name, value)):
                return ArgumentFault("bad-template", fault, _hint(field))
        return check(constants) if check is not None else None

    return found


def _hint(field: Field) -> str:
    return FACTS[field.type.kind].example if isinstance(field.type, Constant) else ""


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # As JSON writes it: a default may be a line break.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


# ------------------------------------------------------------------------------------ expectations


#: How many characters a filter that repeats a text may add: what callers send must not fill the memory.
MAX_ADDED: Final = 10_000_000


def wrong(name: str, needs: str, value: Any) -> RunError:
    """Return the error of a filter that was given another kind than it needs."""
    message = f"`{name}` needs {needs}, got {a_kind(value)}"
    if isinstance(value, Opaque):
        message += f"; {value.remedy}"
    elif value is None:
        message += "; write `| default(...)` before it"
    return RunError("template", message)


def failed(name: str, why: str) -> RunError:
    """Return the error of a filter that can't do its work on this value."""
    return RunError("template", f"`{name}`: {why}")


def limit_added(characters: int, name: str) -> None:
    """Refuse to make a text by so many characters longer than what it is made of, where they are too many."""
    if characters > MAX_ADDED:
        raise failed(name, f"the result would be too long: more than {MAX_ADDED:,} characters are added")


def text_of(value: Any, name: str) -> str:
    """Return the text a text filter works on: a text, or a number, boolean or timestamp as text.

    Null, lists, objects and streams are not text.
    """
    if type(value) is str:
        return value
    if value is None or isinstance(value, (list, dict, tuple, bytes, Opaque)):
        raise wrong(name, "a text", value)
    return to_text(value)


def text_argument(value: Any, name: str, argument: str) -> str:
    """Return an argument that must be a text."""
    if isinstance(value, str):
        return value
    raise RunError("template", f"`{argument}` of `{name}` must be a text, got {a_kind(value)}")


def integer_argument(value: Any, name: str, argument: str, low: int, high: int = MAX_ITEMS) -> int:
    """Return an argument that must be an integer within bounds."""
    if type(value) is not int:
        raise RunError("template", f"`{argument}` of `{name}` must be an integer, got {a_kind(value)}")
    if not low <= value <= high:
        raise RunError("template", f"`{argument}` of `{name}` must be from {low} to {high:,}, got {value}")
    return value


def number_of(value: Any, name: str) -> Any:
    """Return a number; a text that holds one is not a number."""
    if type(value) in (int, float, Decimal):
        return value
    hint = "; write `x | toDecimal` first" if isinstance(value, str) else ""
    raise RunError("template", wrong(name, "numbers", value).message + hint)


def items_of(value: Any, name: str) -> Sequence[Any]:
    """Return the items of a list. Of an object they are its keys, as in Jinja2."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, dict):
        return list(value)
    raise wrong(name, "a list", value)


def sequence_of(value: Any, name: str) -> Sequence[Any]:
    """Return the items of a list, or the characters of a text."""
    return value if isinstance(value, str) else items_of(value, name)


def object_of(value: Any, name: str) -> dict[str, Any]:
    """Return an object."""
    if isinstance(value, dict):
        return value
    raise wrong(name, "an object", value)


def values_at(items: Sequence[Any], path: Any) -> list[Any]:
    """Return what stands at a path in each item."""
    if type(path) is str and "." not in path and set(map(type, items)) <= {dict}:
        return [item.get(path) for item in items]
    return [at_path(item, path) for item in items]


def at_path(value: Any, path: Any) -> Any:
    """Return what stands at "a.b.0" in an item; null where nothing does.

    `sortBy`, `map(attribute=...)`, `selectattr` and their like find their field with it.
    """
    if type(path) is int:
        return value[path] if isinstance(value, list) and -len(value) <= path < len(value) else None
    for step in str(path).split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and step.lstrip("-").isdecimal():
            index = int(step)
            value = value[index] if -len(value) <= index < len(value) else None
        elif isinstance(value, Opaque):
            raise wrong("a path", "data", value)
        else:
            return None
    return value

"""How a filter, function or test of expressions is declared: once, beside its code.

A filter is a Python function of a value and its arguments. How many arguments it takes is read
from its signature; the reference's words, and the example that is also its test, stand above
it in ``@declare`` and in its docstring. A filter never changes what it is given.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

What = Literal["filter", "function", "test"]
_Code = TypeVar("_Code", bound=Callable[..., Any])
#: From constant arguments (others are Jinja2 nodes): code, message and hint of a finding.
Check = Callable[[Sequence[object]], tuple[str, str, str] | None]


@dataclass(frozen=True, slots=True)
class Operation:
    """One filter, function or test of expressions.

    ``summary`` says what it gives. ``example`` is an expression and ``result`` its value, both
    shown in the reference and run by the tests. ``minimum`` and ``maximum`` count the arguments
    without the value on the left; ``maximum`` None means any number.
    """

    what: What
    name: str
    summary: str
    example: str
    result: Any
    call: Callable[..., Any]
    arguments: tuple[str, ...]
    keywords: tuple[str, ...]
    minimum: int
    maximum: int | None
    any_keyword: bool = False
    check: Check | None = None
    same_as: str = ""

    @property
    def usage(self) -> str:
        """How it is written, with its arguments."""
        inside = ", ".join(self.arguments)
        called = f"({inside})" if inside or self.what == "function" else ""
        if self.what == "filter":
            return f"`value | {self.name}{called}`"
        return (
            f"`value is {self.name}{called}`" if self.what == "test" else f"`{self.name}{called}`"
        )


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


def declare(
    what: What,
    name: str,
    example: str,
    result: Any,
    *,
    aliases: Sequence[str] = (),
    check: Check | None = None,
) -> Callable[[_Code], _Code]:
    """Register the function below as a filter, function or test of expressions.

    Its docstring is what the reference says of it.
    """

    def register(code: _Code) -> _Code:
        parameters = list(inspect.signature(code).parameters.values())
        if what != "function":
            parameters = parameters[1:]
        plain = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        arguments = [
            p.name if p.default is p.empty else f"{p.name}={_shown(p.default)}" for p in plain
        ]
        operation = Operation(
            what=what,
            name=name,
            summary=" ".join((inspect.getdoc(code) or "").split()),
            example=example,
            result=result,
            call=code,
            arguments=(*arguments, "...") if several else tuple(arguments),
            keywords=tuple(p.name for p in plain),
            minimum=sum(p.default is p.empty for p in plain),
            maximum=None if several else len(plain),
            any_keyword=any(p.kind is p.VAR_KEYWORD for p in parameters),
            check=check,
        )
        registry = _REGISTRIES[what]
        for one in (name, *aliases):
            if one in registry:
                raise ValueError(f"the {what} {one} is declared twice")
        registry[name] = operation
        for alias in aliases:
            registry[alias] = _alias(operation, alias)
        return code

    return register


def _alias(operation: Operation, alias: str) -> Operation:
    fields = {name: getattr(operation, name) for name in Operation.__slots__}
    return Operation(**{**fields, "name": alias, "same_as": operation.name})


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # As JSON writes it: a default may be a line break.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)

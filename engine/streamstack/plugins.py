"""The public API of plug-ins: Python files of a project, which declare functions and filters of their own.

A decorated function stays as it is, so that it can be called and tested as usual. `language.plugins` reads its
signature when a project names the file under `plugins`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

_Code = TypeVar("_Code", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Declaration:
    """A function or filter that a plug-in declares."""

    what: Literal["function", "filter"]
    name: str
    code: Callable[..., Any]


#: The declarations of the plug-in that is being loaded; None while none is.
_declared: Final[ContextVar[list[Declaration] | None]] = ContextVar("declared", default=None)


def function(name: str) -> Callable[[_Code], _Code]:
    """Declare a function that definitions call as a step.

    Its annotations are the types of its parameters and its result, its docstring is its documentation; the names of its
    parameters are written in camelCase in YAML. `async def` runs in the event loop and must not block; `def` runs in a
    thread; an asynchronous generator returns a stream.

    Args:
        name: Its name in definitions: `family.name`, such as `prices.convert`, or a name alone.
    """
    return _declare("function", name)


def filter(name: str) -> Callable[[_Code], _Code]:  # noqa: A001  (what it declares)
    """Declare a filter of expressions: its first parameter is the value on its left. It must not block.

    Args:
        name: Its name in expressions, such as `initials`.
    """
    return _declare("filter", name)


def _declare(what: Literal["function", "filter"], name: str) -> Callable[[_Code], _Code]:
    # Files without types are plug-ins, too.
    if not isinstance(name, str):
        raise TypeError(f'write `@{what}("name")`: a declaration needs a name')

    def declare(code: _Code) -> _Code:
        declared = _declared.get()
        if declared is not None:
            declared.append(Declaration(what, name, code))
        return code

    return declare


@contextmanager
def collecting() -> Iterator[list[Declaration]]:
    """Yield a list that takes what is declared meanwhile."""
    found: list[Declaration] = []
    token = _declared.set(found)
    try:
        yield found
    finally:
        _declared.reset(token)

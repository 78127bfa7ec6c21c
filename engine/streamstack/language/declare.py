"""How a function of the language is declared: once, beside the code that runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamstack.spec import Field, fields_by_name

#: A parameter of a function is a field, as the keys of documents and settings are.
Parameter = Field


@dataclass(frozen=True, slots=True)
class Choice:
    """Parameters of which at most one may be given; one must be, where ``required``."""

    names: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Property:
    """A property of a stream that can be read without consuming it."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Configured:
    """A parameter that names something under a section of the settings, ``unless`` another one is given."""

    parameter: str
    section: str
    unless: str | None = None


@dataclass(frozen=True, slots=True)
class Effects:
    """What the analysis must know of a function beyond its parameters.

    ``gives``: "nothing", "value", "stream", or "either". ``waits_for_stream``: it reads a stream
    to its end before it gives anything (collect). ``emits``: it sends chunks. ``ends``: no step
    after it in its stack runs. ``leaves``: what a step that ends leaves: "frame" (return), "loop"
    (break), "turn" (continue), "" by an error (throw). ``closes``: nothing may be sent after it
    (done). ``calls``: the parameters that name functions of the project (call). ``shortens``: the
    stream it gives ends before its input does (streams.take), so that holding it all is no wait.
    ``sets``: it binds the keys of its main parameter as variables (set).
    ``rebinds``: the parameter whose value names a variable that it binds anew (append).
    ``publishes``: each key of this parameter becomes a variable when the step is done (parallel).
    ``configured``: the parameters that name what the settings hold (llm.chat).
    """

    gives: str = "nothing"
    waits_for_stream: bool = False
    emits: bool = False
    ends: bool = False
    leaves: str = ""
    closes: bool = False
    calls: tuple[str, ...] = ()
    shortens: bool = False
    sets: bool = False
    rebinds: str | None = None
    publishes: str | None = None
    configured: tuple[Configured, ...] = ()
    properties: tuple[Property, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example: shown in the reference, and run by the tests.

    ``stack`` is the YAML of a function stack. ``result`` is what its `return` gives; ``chunks`` the contents it emits.
    ``fails`` is the code of the error that ends it. ``inputs`` are bound as `input`.
    """

    title: str
    stack: str
    result: Any = None
    chunks: tuple[Any, ...] | None = None
    fails: str | None = None
    inputs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the language.

    It has either ``run``, called as ``run(run, **parameters)`` (a coroutine function is awaited), or ``compile``, which
    writes the Python that stands for the step. With ``sees_functions``, ``run`` also gets `functions`: those of the
    project by name. The first line of ``description`` is the summary.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    effects: Effects
    examples: tuple[Example, ...]
    run: Callable[..., Any] | None = None
    compile: Callable[[Any, Any], None] | None = None
    choices: tuple[Choice, ...] = ()
    sees_functions: bool = False

    @property
    def family(self) -> str:
        """The module it is declared in, which is also its chapter in the reference."""
        code = self.run or self.compile
        return code.__module__.rsplit(".", 1)[-1] if code is not None else ""

    @property
    def summary(self) -> str:
        return self.description.split("\n", 1)[0]

    @property
    def by_name(self) -> Mapping[str, Parameter]:
        return fields_by_name(self.parameters)

    @property
    def main(self) -> Parameter | None:
        return next((parameter for parameter in self.parameters if parameter.main), None)


def function(
    name: str,
    *parameters: Parameter,
    effects: Effects = Effects(),
    examples: Iterable[Example] = (),
    choices: Iterable[Choice] = (),
    compiled: bool = False,
    sees_functions: bool = False,
) -> Callable[[Callable[..., Any]], Function]:
    """Declare a function of the language by decorating the code that runs it.

    The docstring is its documentation. With ``compiled`` the decorated function writes code:
    it takes the node of the step (language.graph) and the code writer. Otherwise it is called in
    each run, with the run and the parameters.
    """

    def declare(code: Callable[..., Any]) -> Function:
        return Function(
            name=name,
            description=inspect.cleandoc(code.__doc__ or ""),
            parameters=parameters,
            effects=effects,
            examples=tuple(examples),
            run=None if compiled else code,
            compile=code if compiled else None,
            choices=tuple(choices),
            sees_functions=sees_functions,
        )

    return declare


class Registry(Mapping[str, Function]):
    """All functions a project can use, by name."""

    def __init__(self, functions: Iterable[Function]) -> None:
        self._functions: dict[str, Function] = {}
        for declared in functions:
            if declared.name in self._functions:
                raise ValueError(f"the function {declared.name} is declared twice")
            self._functions[declared.name] = declared

    def __getitem__(self, name: str) -> Function:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

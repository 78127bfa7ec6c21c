"""What the functions of a project do, as their callers see it; each is followed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from streamstack.errors import Mark
from streamstack.language.analysis.parts import constant
from streamstack.language.analysis.state import OF_EVERY_STREAM, SILENT, Voice
from streamstack.language.definition import FunctionDefinition, Items, Step
from streamstack.language.walk import steps_of
from streamstack.records import record


@record()
class Summary:
    """What a caller must know of a function.

    ``emits`` is the first step in it that does. ``stream_voice``: how the stream it gives emits and
    waits while it is read.
    """

    name: str
    voice: Voice = SILENT
    emits: Mark | None = None
    closes: bool = False
    comes_back: bool = True
    gives_stream: bool = False
    gives_plain: bool = True
    properties: frozenset[str] = OF_EVERY_STREAM
    stream_voice: Voice = SILENT
    brief: bool = False


class Callees:
    """The functions of a project, summed up when they are first called.

    ``sum_up`` follows one function. A function that calls itself, directly or through others, is
    taken to emit as it goes while it is being summed up: the proof accuses no one of what it can't see.
    """

    __slots__ = ("_functions", "_known", "_sum_up")

    def __init__(
        self,
        functions: Mapping[str, FunctionDefinition],
        sum_up: Callable[[FunctionDefinition, Callees], Summary],
    ) -> None:
        self._functions = functions
        self._sum_up = sum_up
        self._known: dict[str, Summary] = {}

    def summary(self, name: str) -> Summary | None:
        """Return what a function does; None where there is none of that name."""
        known = self._known.get(name)
        if known is not None or name not in self._functions:
            return known
        # Those it calls come first, so that a long chain of calls is no deep recursion here.
        order: list[str] = []
        open_calls = [(name, self._calls(name))]
        met = {name}
        while open_calls:
            present, calls = open_calls[-1]
            inner = next(calls, None)
            if inner is None:
                open_calls.pop()
                order.append(present)
            elif inner not in met and inner not in self._known:
                met.add(inner)
                open_calls.append((inner, self._calls(inner)))
        for each in order:
            if each not in self._known:
                waiting = [other for other in order if other not in self._known]
                for other in waiting:
                    self._known[other] = Summary(other, Voice(silent=False))
                summary = self._sum_up(self._functions[each], self)
                for other in waiting:
                    del self._known[other]
                self._known[each] = summary
        return self._known.get(name)

    def _calls(self, name: str) -> Iterator[str]:
        """Yield the functions of the project that a function calls."""
        for step in steps_of(self._functions[name].stack):
            yield from (each for each in called_by(step) if each in self._functions)


def called_by(step: Step) -> Iterator[str]:
    """Yield the names of the functions that a step calls, as far as they are constant."""
    for parameter in step.function.effects.calls:
        argument = step.arguments.given.get(parameter)
        for item in argument.items if isinstance(argument, Items) else (argument,):
            called = constant(item) if item is not None else None
            for each in called if isinstance(called, list) else (called,):
                if isinstance(each, str):
                    yield each


def called_itself(step: Step) -> Iterator[str]:
    """Yield what a step calls itself; the functions that `llm.chat` tells a model of are not."""
    if step.function.name == "call":
        yield from called_by(step)


def reached(name: str, functions: Mapping[str, FunctionDefinition]) -> Iterator[FunctionDefinition]:
    """Yield a function and those it calls, each once."""
    waiting, met = [name], {name}
    while waiting:
        function = functions.get(waiting.pop())
        if function is None:
            continue
        yield function
        for step in steps_of(function.stack):
            for each in called_itself(step):
                if each not in met:
                    met.add(each)
                    waiting.append(each)

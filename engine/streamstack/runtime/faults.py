"""From a Python exception in generated code to an error that its author can read."""

from __future__ import annotations

from asyncio import CancelledError, Task, current_task
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Final

from streamstack.errors import Place, RunError
from streamstack.language.definition import Arguments, Entries, Items, Step
from streamstack.language.expressions import Value, explain, failing_expression
from streamstack.language.expressions.compile import Expression
from streamstack.language.expressions.grammar import passes_on
from streamstack.language.values import MISSING, kind

#: What an expression may raise; anything else is a fault of the engine or of a plug-in.
_EXPRESSION_FAULTS = (NameError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError)


@dataclass(frozen=True, slots=True)
class Site:
    """What a line of generated code stands for: a step, or a section of its definition (`response`).

    ``names`` spells the names its values read.
    """

    step: Step | None
    section: str
    values: tuple[Value, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def located(error: Exception) -> RunError:
    """Return the RunError for what was raised, with the place in the definition it came from.

    Raises CancelledError for an error on the way out of a run (or a step) that is being stopped: it stays stopped.
    """
    if _hides_a_stop(error):
        raise CancelledError from error
    if isinstance(error, RunError) and error.place is not None:
        return error
    site, frame, direct = _site(error.__traceback__)
    if site is None or frame is None:
        if isinstance(error, RunError):
            return error
        return _internal(error)
    values = _reads(site, frame)
    failing = _failing(site, values)
    if isinstance(error, RunError):
        fault = error
        if _is_of_client(error, site, frame):
            fault = RunError("invalid-input", error.message, final=True)
            fault.__cause__ = error
    elif failing is not None and (
        isinstance(error, RecursionError) or (direct and isinstance(error, _EXPRESSION_FAULTS))
    ):
        fault = RunError("template", explain(error, failing, values))
        fault.__cause__ = error
    else:
        fault = _internal(error)
    mark = failing.mark if failing is not None else site.step.mark if site.step else None
    if mark is not None:
        read = {each.name for each in failing.reads} if failing is not None else set()
        types = ", ".join(f"{n} is {kind(held)}" for n, held in sorted(values.items()) if n in read)
        fault.place = Place(
            mark=mark,
            step=site.step.title if site.step is not None else site.section,
            path=site.step.path if site.step is not None else site.section,
            expression=failing.text if failing is not None else "",
            types=types,
        )
    return fault


#: The names that hold what a client sent, where the definition is an endpoint.
_SENT: Final = frozenset({"input", "sent", "request"})


def _is_of_client(error: RunError, site: Site, frame: FrameType) -> bool:
    """Tell whether an argument does not fit whose value the client chose: it is passed on as it was sent."""
    if not error.parameter or error.status < 500 or site.step is None or not frame.f_globals.get("__of_endpoint__"):
        return False
    arguments = dict(_named(site.step.arguments))
    if error.parameter == "*":
        chosen = [value for value in arguments.values() if value.constant is MISSING]
    else:
        chosen = [arguments[error.parameter]] if error.parameter in arguments else []
    return bool(chosen) and all(map(_is_as_sent, chosen))


def _named(argument: Any, name: str = "") -> Iterator[tuple[str, Value]]:
    """Yield the values of a step by the names of their parameters, those inside others, too."""
    if isinstance(argument, Value):
        yield name, argument
    elif isinstance(argument, Arguments):
        for key, inner in argument.by_name.items():
            yield from _named(inner, key)
    elif isinstance(argument, Entries):
        for entry in argument.entries:
            yield from _named(entry.argument, f"{name}.{entry.key}")
    elif isinstance(argument, Items):
        for index, inner in enumerate(argument.items):
            yield from _named(inner, f"{name}[{index}]")


def _is_as_sent(value: Value) -> bool:
    """Tell whether a value is what a client sent, or is put together from that and constants alone."""
    bound = list(value.bindings())
    return bool(bound) and all(
        isinstance(each, Expression)
        and bool(each.reads)
        and all(read.name in _SENT for read in each.reads)
        and passes_on(each.node)
        for each in bound
    )


def place_of(computed: Callable[..., Any]) -> Place | None:
    """Return the place of an expression that is computed for each item; None for a function of another kind."""
    sites = getattr(computed, "__globals__", {}).get("__sites__")
    if sites is None:
        return None
    lines = {line for _, _, line in computed.__code__.co_lines() if line}
    for site in (sites[line - 1] for line in sorted(lines)):
        if site.step is not None and site.values:
            value = site.values[0]
            return Place(value.mark, site.step.title, site.step.path, value.text)
    return None


def step_under_way(task: Task[Any]) -> Place | None:
    """Return the step that a suspended task waits in; None for a task that runs no definition."""
    found: Step | None = None
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        sites = frame.f_globals.get("__sites__") if frame is not None else None
        if frame is not None and sites is not None:
            found = sites[frame.f_lineno - 1].step or found
        # A coroutine, or a generator that `types.coroutine` has made one.
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return Place(found.mark, found.title, found.path) if found is not None else None


def _hides_a_stop(error: Exception) -> bool:
    """Whether an error was raised while this task's cancellation passed, which it then took the place of."""
    before = error.__context__
    while before is not None and not isinstance(before, CancelledError):
        before = before.__context__
    if before is None:
        return False
    task = current_task()
    return task is not None and task.cancelling() > 0


def _internal(error: Exception) -> RunError:
    fault = RunError("internal", f"{type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault


def _site(trace: TracebackType | None) -> tuple[Site | None, FrameType | None, bool]:
    """Find the innermost line of generated code in a traceback, and whether only the language stands below it."""
    site, frame, direct = None, None, False
    while trace is not None:
        sites = trace.tb_frame.f_globals.get("__sites__")
        if sites is not None:
            frame, direct = trace.tb_frame, True
            site = sites[trace.tb_lineno - 1]
        elif not str(trace.tb_frame.f_globals.get("__name__", "")).startswith(("streamstack.language.", "jinja2.")):
            direct = False
        trace = trace.tb_next
    return site, frame, direct


def _reads(site: Site, frame: FrameType) -> dict[str, Any]:
    """Return the names that the site's values read, with what they hold; without the unbound ones."""
    held: dict[str, Any] = {}
    for name, source in site.names.items():
        try:
            # Our own spelling of a name, seen from the frame that failed.
            held[name] = eval(source, frame.f_globals, dict(frame.f_locals))  # noqa: S307
        except Exception:  # noqa: BLE001, S112  (a name that is not bound has nothing to show)
            continue
    return held


def _failing(site: Site, values: dict[str, Any]) -> Value | None:
    """Return the expression that failed: the first that fails again, or the only one there is."""
    for value in site.values:
        if (found := failing_expression(value, values)) is not None:
            return found
    return site.values[0] if len(site.values) == 1 else None


def caught(error: Exception) -> dict[str, Any]:
    """Return an error as `catch` binds it."""
    fault = located(error)
    return {
        "code": fault.code,
        "message": fault.message,
        "status": fault.status,
        "step": fault.place.step if fault.place is not None else None,
        "details": fault.details,
    }

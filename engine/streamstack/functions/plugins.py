"""How functions and filters of plug-ins run."""

from __future__ import annotations

import asyncio
import inspect
from collections import abc
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, get_args, get_origin

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.operators import a_kind
from streamstack.language.plugins import Signature, line_of, without_none
from streamstack.language.values import Opaque
from streamstack.runtime.run import Run
from streamstack.runtime.values import Batches, Stream, iterate

#: Scalar types that arguments are checked against, and how messages name them.
_NAMED: Final[dict[Any, str]] = {
    str: "a text",
    int: "an integer",
    float: "a number",
    Decimal: "a number",
    bool: "true or false",
    bytes: "bytes",
    datetime: "a timestamp",
    date: "a date",
}
_STREAMS: Final = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)
#: Values of the language that need no conversion.
_SCALARS: Final = (str, int, float, Decimal, bytes, date, Opaque, type(None))


def make_run(signature: Signature) -> Callable[..., Any]:
    """Return what a step calls for a function of a plug-in.

    Plain functions run in a thread, since they may block; a run that is cancelled does not wait for the thread.
    """
    code, arguments = signature.code, _arguments_of(signature)
    if inspect.isasyncgenfunction(code):

        def stream(_: Run, **passed: Any) -> Stream:
            converted = arguments(passed)

            async def batches() -> Batches:
                items = code(**converted)
                try:
                    async for item in items:
                        yield [as_value(item)]
                except Exception as error:  # noqa: BLE001  (whatever a plug-in raises)
                    raise _fault(error, signature) from _cause(error)
                finally:
                    await items.aclose()

            return Stream(batches)

        return stream
    if inspect.iscoroutinefunction(code):

        async def call(_: Run, **passed: Any) -> Any:
            converted = arguments(passed)
            try:
                return as_value(await code(**converted))
            except Exception as error:  # noqa: BLE001  (whatever a plug-in raises)
                raise _fault(error, signature) from _cause(error)

        return call

    async def call_in_thread(_: Run, **passed: Any) -> Any:
        converted = arguments(passed)
        try:
            with clock.outside():
                result = await asyncio.to_thread(code, **converted)
            return as_value(result)
        except Exception as error:  # noqa: BLE001  (whatever a plug-in raises)
            raise _fault(error, signature) from _cause(error)

    return call_in_thread


def make_filter(name: str, signature: Signature) -> Callable[..., Any]:
    """Return what an expression calls for a filter of a plug-in."""
    code = signature.code
    checks = [(each, _converter(annotation, each)) for each, annotation in signature.annotations.items()]

    def call(*passed: Any, **named: Any) -> Any:
        placed = [convert(value) for (_, convert), value in zip(checks, passed, strict=False)]
        by_name = dict(checks)
        others = {key: by_name[key](value) for key, value in named.items()}
        try:
            return as_value(code(*placed, **others))
        except Exception as error:  # noqa: BLE001  (whatever a plug-in raises)
            raise _fault(error, signature) from _cause(error)

    call.__name__ = name
    return call


def _arguments_of(signature: Signature) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    converters = {name: _converter(annotation, name) for name, annotation in signature.annotations.items()}

    def convert(passed: Mapping[str, Any]) -> dict[str, Any]:
        return {name: converters[name](value) for name, value in passed.items()}

    return convert


def _converter(annotation: Any, name: str) -> Callable[[Any], Any]:
    """Return what turns a value of the language into one of a type. Raises RunError for what is none."""
    plain, null = without_none(annotation)
    origin, inner = get_origin(plain) or plain, get_args(plain)
    check = _scalar(origin, name)
    if origin in _STREAMS:
        check = _items
    elif origin is timedelta:
        check = _seconds
    elif origin in (list, abc.Sequence) and inner and inner[0] in _NAMED:
        each = _scalar(inner[0], name)

        def check(value: Any) -> Any:
            return [each(item) for item in value] if isinstance(value, list) else _refuse(name, "a list", value)

    def convert(value: Any) -> Any:
        return None if value is None and null else check(value)

    return convert


def _scalar(wanted: Any, name: str) -> Callable[[Any], Any]:
    if wanted not in _NAMED:
        return lambda value: value

    def check(value: Any) -> Any:
        if wanted in (float, Decimal) and isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            return value if type(value) is wanted or (wanted is float and type(value) is int) else wanted(str(value))
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        return value if fits else _refuse(name, _NAMED[wanted], value)

    return check


def _refuse(name: str, wanted: str, value: Any) -> Any:
    raise RunError("template", f"`{name}` must be {wanted}, not {a_kind(value)}", final=True, parameter=name)


def _seconds(value: Any) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


async def _items(value: Any) -> AsyncIterator[Any]:
    """Yield the items of a list or stream, which is closed at the end."""
    source = iterate(value)
    try:
        while batch := await source.batch():
            for item in batch:
                yield item
    finally:
        await source.close()


def as_value(value: Any) -> Any:
    """Return what a plug-in returns as a value of the language. Raises TypeError for what is none."""
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, (list, tuple)):
        return [as_value(each) for each in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("the keys of what it returns must be texts")
        return {key: as_value(each) for key, each in value.items()}
    raise TypeError(f"it returned a {type(value).__name__}, which is not a value of the language")


def _cause(error: Exception) -> BaseException | None:
    """Return what causes the error that takes the place of this one; an error of a run stays as it is."""
    return error.__cause__ if isinstance(error, RunError) else error


def _fault(error: Exception, signature: Signature) -> RunError:
    """Return the error of a run for what a plug-in raised, with its file and line: `internal`, unless it says more."""
    line = line_of(error, signature.file)
    place = f"{signature.file.name}:{line or signature.code.__code__.co_firstlineno}"
    if isinstance(error, RunError):
        error.about.setdefault("plugin", place)
        return error
    fault = RunError("internal", f"{type(error).__name__}: {error} ({place})")
    fault.about["plugin"] = place
    return fault

"""What `streamstack test --update` writes: what was observed where an expectation failed, or has no value yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from streamstack.errors import Mark
from streamstack.language.cases import Case, Exchange, Expect
from streamstack.language.rewriting import Duration
from streamstack.language.values import MISSING
from streamstack.testing.client import Chunk, ReceivedAnswer
from streamstack.testing.comparison import differs
from streamstack.testing.expectations import TOLERANCE, Failure
from streamstack.testing.runner import Observation

#: Decimals of times in seconds.
_PRECISION: Final = 6
#: The members of an error that a test is to expect.
_OF_ERRORS: Final = ("code", "message", "status")
#: What an error response has that differs from run to run, or says nothing.
_VARYING: Final = ("run", "type")

Values = dict[str, Any]


def observe(case: Case, seen: Observation, failures: Iterable[Failure]) -> tuple[Values, ...]:
    """Return what to write of each exchange of a test, by key of `expect`; nothing for what is right."""
    failed = {failure.mark for failure in failures}
    if seen.failure or len(seen.answers) != len(case.exchanges):
        return ({},) * len(case.exchanges)
    pairs = zip(case.exchanges, seen.answers, strict=True)
    return tuple(_observe(exchange, answer, seen, failed) for exchange, answer in pairs)


def _observe(exchange: Exchange, answer: ReceivedAnswer, seen: Observation, failed: set[Mark]) -> Values:
    expect = exchange.expect
    if not expect.marks:
        keys = _usual(answer)
    else:
        wrong = {key.partition(".")[0] for key, mark in expect.marks.items() if mark in failed}
        keys = [key for key in expect.marks if key in wrong or ("." not in key and getattr(expect, key) is None)]
        if expect.mark in failed:  # an error that nothing expects
            keys += [key for key in _unexpected(expect, answer) if key not in keys]
    values = {key: _OBSERVED[key](expect, answer, seen) for key in keys if key in _OBSERVED}
    return {key: value for key, value in values.items() if value is not MISSING}


def _usual(answer: ReceivedAnswer) -> list[str]:
    """Return what is written of an answer of which nothing is expected yet."""
    if answer.error is not None and answer.status is not None and answer.status >= 400:
        return ["status", "error"]
    value = answer.value() if answer.format == "json" else None
    # A stream as one document has its chunks.
    whole = answer.format == "json" and not (isinstance(value, Mapping) and "chunks" in value)
    return ["status", "body" if whole else "chunks", *(["error"] if answer.error is not None else [])]


def _unexpected(expect: Expect, answer: ReceivedAnswer) -> list[str]:
    if answer.error is None or expect.error is not None:
        return []
    return ["status", "error"] if answer.status is not None and answer.status >= 400 else ["error"]


def _chunks(_: Expect, answer: ReceivedAnswer, __: Observation) -> list[Values]:
    return [_chunk(chunk) for chunk in answer.chunks]


def _chunk(chunk: Chunk) -> Values:
    found = {"content": chunk.content, "event": chunk.event, "id": chunk.id, "at": round(chunk.at, _PRECISION)}
    found = {name: value for name, value in found.items() if value is not None or name == "content"}
    return found if chunk.metadata is MISSING else found | {"metadata": chunk.metadata}


def _body(expect: Expect, answer: ReceivedAnswer, _: Observation) -> Any:
    if isinstance(expect.body, str):
        return answer.body.decode("utf-8", "replace")
    value = answer.value()
    if answer.error is not None and isinstance(value, Mapping):
        return {name: each for name, each in value.items() if name not in _VARYING}
    return value


def _error(_: Expect, answer: ReceivedAnswer, __: Observation) -> Values | None:
    return None if answer.error is None else {key: answer.error[key] for key in _OF_ERRORS if key in answer.error}


def _done(expect: Expect, answer: ReceivedAnswer, _: Observation) -> Any:
    if answer.done is MISSING or isinstance(expect.done, bool):
        return answer.done is not MISSING
    return answer.done


def _outcome(_: Expect, answer: ReceivedAnswer, seen: Observation) -> Any:
    end = seen.end_of(answer)
    return MISSING if end is None else end.outcome


def _headers(expect: Expect, answer: ReceivedAnswer, _: Observation) -> Values:
    return {name: answer.headers.get(name) for name in expect.headers}


_OBSERVED: Final[Mapping[str, Callable[[Expect, ReceivedAnswer, Observation], Any]]] = {
    "status": lambda _, answer, __: MISSING if answer.status is None else answer.status,
    "headers": _headers,
    "text": lambda _, answer, __: answer.text,
    "body": _body,
    "chunks": _chunks,
    "events": lambda _, answer, __: list(answer.events),
    "error": _error,
    "done": _done,
    "elapsed": lambda _, answer, __: round(answer.ended, _PRECISION),
    "outcome": _outcome,
}


def holds(expected: Any, actual: Any) -> bool:
    """Return whether an observed value is as expected; times may differ by as much as they may in tests."""
    if isinstance(actual, Duration) and isinstance(expected, (int, float)):
        return abs(expected - actual) <= TOLERANCE
    if isinstance(expected, Mapping) and isinstance(actual, Mapping) and isinstance(actual.get("at"), Duration):
        others = {name: value for name, value in actual.items() if name != "at"}
        rest = {name: value for name, value in expected.items() if name != "at"}
        return ("at" not in expected or holds(expected["at"], actual["at"])) and not differs(rest, others)
    return not differs(expected, actual)

"""Compare what happened in a test with what was expected."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from streamstack.errors import Mark, RunError
from streamstack.language.cases import Case, Exchange, Expected, ExpectedCall
from streamstack.language.values import MISSING, to_json, to_text
from streamstack.testing.calls import Call, body_differs, fits_headers, fits_url
from streamstack.testing.client import Chunk, ReceivedAnswer, pieces_of
from streamstack.testing.comparison import counted, differs, shown
from streamstack.testing.runner import Observation

#: Seconds that times may differ: under a virtual clock, and by real time, where others keep the machine busy.
TOLERANCE: Final = 0.0005
REAL_TOLERANCE: Final = 0.25
#: The keys of a chunk that is expected with more than its content.
CHUNK_KEYS: Final = frozenset({"content", "event", "id", "metadata", "at"})
#: What stands for the message of a failure above.
_ABOVE: Final = "see above"
#: Chunks that are shown before and after those that differ.
_AROUND: Final = 2
#: Lines of a difference that are shown.
_MOST_LINES: Final = 40


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that was not met. ``diff`` are lines that begin with `-` (expected), `+` (received) or a blank."""

    mark: Mark
    message: str
    diff: tuple[str, ...] = ()
    definition: str = ""


def check(case: Case, seen: Observation) -> list[Failure]:
    """Return the expectations of a test that were not met."""
    if seen.failure:
        return [Failure(seen.failed_at or case.mark, seen.failure)]
    found = list(_unanswered(case, seen))
    causes = [each.message for each in found]
    for index, (exchange, answer) in enumerate(zip(case.exchanges, seen.answers, strict=True)):
        found += _Check(case, exchange, answer, seen, seen.rows[index] if index < len(seen.rows) else []).all()
        for violation in seen.contract[index] if index < len(seen.contract) else ():
            message = f"the response is not as its OpenAPI document says: {violation}"
            found.append(Failure(exchange.expect.mark, message))
    found += _failed_afters(case, seen)
    found += (Failure(case.mark, f"the server has a fault: {each}") for each in seen.unhandled)
    return _without_repetition(found, causes)


def _without_repetition(failures: Iterable[Failure], causes: Sequence[str]) -> list[Failure]:
    """Return failures that show causes which stand above them, and the place where the run ended, once."""
    found: list[Failure] = []
    places: set[str] = set()
    for each in failures:
        message, definition = each.message, "" if each.definition in places else each.definition
        places.add(each.definition)
        for cause in causes:
            definition = definition.replace(cause, _ABOVE)
            message = message if message == cause else message.replace(cause, _ABOVE)
        found.append(replace(each, message=message, definition=definition))
    return found


# -------------------------------------------------------------------------------------- one exchange


class _Check:
    def __init__(
        self,
        case: Case,
        exchange: Exchange,
        answer: ReceivedAnswer,
        seen: Observation,
        rows: Sequence[list[dict[str, Any]] | RunError],
    ) -> None:
        self._case = case
        self._expect = exchange.expect
        self._client = exchange.client
        self._answer = answer
        self._seen = seen
        self._rows = rows
        self._end = seen.end_of(answer)

    def all(self) -> list[Failure]:
        return [each for check in self._checks() for each in check]

    def _checks(self) -> Iterator[Iterator[Failure]]:
        yield self._status()
        yield self._errors()
        yield self._headers()
        yield self._texts()
        yield self._chunks()
        yield self._marks()
        yield self._times()
        yield self._client_actions()
        yield self._calls()
        yield self._database()
        yield self._mails()
        yield self._published()
        yield self._log()

    def _fail(self, key: str, message: str, diff: Sequence[str] = ()) -> Failure:
        mark = self._expect.marks.get(key, self._expect.mark)
        return Failure(mark, message, tuple(diff), self._definition())

    def _definition(self) -> str:
        """Return the place where the run ended by an error, with the error in full; "" if it did not."""
        error = None if self._end is None else self._end.error
        if error is None or error.code == "stopped":
            return ""
        place = f"{error.place.mark}: step `{error.place.step}`: " if error.place is not None else ""
        return f"{place}{error.code}: {error.full}"

    def _compare(self, key: str, expected: Any, actual: Any, name: str = "") -> Iterator[Failure]:
        if expected is not None and (reason := differs(expected, actual)):
            yield self._fail(key, f"{name or f'`{key}`'}: {reason.lstrip()}")

    def _status(self) -> Iterator[Failure]:
        expect, answer = self._expect, self._answer
        if expect.status is not None and answer.status != expect.status:
            received = answer.failure or f"received {answer.status}"
            if answer.error is not None:
                received += f": {_described(answer.error)}"
            yield self._fail("status", f"`status`: expected {expect.status}, {received}")

    def _errors(self) -> Iterator[Failure]:
        expect, answer = self._expect, self._answer
        refused = answer.status is not None and answer.status >= 400
        if expect.error is not None and expect.error is not False:
            yield from self._expected_error()
        elif answer.error is not None:
            if refused and expect.status is None:
                yield self._fail("", f"status {answer.status} was answered: {_described(answer.error)}")
            elif not refused and expect.outcome != "failed":
                yield self._fail("", f"the stream ended by an error: {_described(answer.error)}")
        elif answer.failure and not answer.left and (answer.status is None or expect.outcome != "failed"):
            yield self._fail("", answer.failure)
        if expect.outcome is not None:
            received = "rejected" if self._end is None else self._end.outcome
            yield from self._compare("outcome", expect.outcome, received)

    def _expected_error(self) -> Iterator[Failure]:
        expect, error = self._expect, self._answer.error
        if error is None and not self._answer.whole and self._end is not None and self._end.error is not None:
            # The format has no room for an error, or the client had left: the answer looks cut off.
            ended = self._end.error
            error = {"code": ended.code, "message": ended.public, "status": ended.status}
        if error is None:
            yield self._fail("error", "`error`: expected an error, and the answer ended without one")
        elif isinstance(expect.error, (str, Expected)):
            yield from self._compare("error", expect.error, error.get("code"))
        else:
            # `details` stands for whatever else the error has.
            yield from self._compare("error", expect.error, {**error, "details": error})

    def _headers(self) -> Iterator[Failure]:
        for name, expected in self._expect.headers.items():
            found = self._answer.headers.getall(name, [])
            actual: Any = found if isinstance(expected, list) else ", ".join(found)
            if expected is None:
                if found:
                    yield self._fail("headers", f"header `{name}`: expected none, received {shown(actual)}")
            elif reason := differs(expected, actual if found else MISSING):
                yield self._fail("headers", f"header `{name}`: {reason}")

    def _texts(self) -> Iterator[Failure]:
        expect, answer = self._expect, self._answer
        if expect.text is not None and (reason := differs(expect.text, answer.text)):
            diff = _line_diff(expect.text, answer.text) if isinstance(expect.text, str) else ()
            yield self._fail("text", "`text` differs" if diff else f"`text`: {reason}", diff)
        if expect.body != answer.body.decode("utf-8", "replace"):
            yield from self._compare("body", expect.body, answer.value())
        yield from self._compare("events", expect.events, answer.events)
        if expect.close is not None:
            yield from self._compare("close", expect.close, answer.close)

    # ------------------------------------------------------------------------------------ chunks

    def _chunks(self) -> Iterator[Failure]:
        expected, answer = self._expect.chunks, self._answer
        if expected is None:
            return
        chunks = answer.chunks
        if isinstance(expected, Expected):
            yield from self._compare("chunks", expected, [chunk.content for chunk in chunks])
            return
        if answer.format in ("text", "bytes"):
            sizes = [len(to_text(_content(each))) for each in expected if isinstance(_content(each), str)]
            chunks = pieces_of(answer, sizes) if len(sizes) == len(expected) else chunks
        wrong = [self._chunk_differs(*pair) for pair in zip(expected, chunks, strict=False)]
        if not any(wrong) and len(expected) == len(chunks):
            return
        first = next((index for index, reason in enumerate(wrong) if reason), min(len(expected), len(chunks)))
        message = f"`chunks`: expected {counted(len(expected), 'chunk')}, received {len(chunks)}"
        if len(expected) == len(chunks):
            message = f"`chunks`: chunk {first} differs: {wrong[first]}"
        yield self._fail(self._place_of(expected, chunks, first), message, self._chunk_diff(expected, chunks, first))

    def _place_of(self, expected: Sequence[Any], chunks: Sequence[Chunk], index: int) -> str:
        """Return the key whose place is that of a chunk that differs: of its first property that does, else its own."""
        keys = [f"chunks.{index}", "chunks"]
        if index < min(len(expected), len(chunks)) and _is_shape(expected[index]):
            chunk, names = chunks[index], expected[index].items()
            keys[:0] = [f"{keys[0]}.{name}" for name, each in names if self._property_differs(name, each, chunk)]
        return next(key for key in keys if key in self._expect.marks)

    def _chunk_differs(self, expected: Any, chunk: Chunk) -> str:
        if not _is_shape(expected):
            return _content_differs(expected, chunk)
        return "; ".join(filter(None, (self._property_differs(name, each, chunk) for name, each in expected.items())))

    def _property_differs(self, name: str, expected: Any, chunk: Chunk) -> str:
        if name == "content":
            return _content_differs(expected, chunk)
        if name == "at":
            return self._time_differs(expected, chunk.at, "at")
        actual = getattr(chunk, name)
        return "" if expected is None and actual in (None, MISSING) else differs(expected, actual, name)

    def _chunk_diff(self, expected: Sequence[Any], chunks: Sequence[Chunk], first: int) -> list[str]:
        """Return the chunks from a little before the first that differs, to a little after the last."""
        ends = 0
        while (
            min(len(expected), len(chunks)) - ends > first
            and not self._chunk_differs(expected[-1 - ends], chunks[-1 - ends])
            and len(expected) != len(chunks)
        ):
            ends += 1
        last_expected, last_received = len(expected) - ends, len(chunks) - ends
        lines = [
            f"  {_shown_chunk(chunk, expected[at])}" for at, chunk in enumerate(chunks[:first]) if at >= first - _AROUND
        ]
        for index in range(first, max(last_expected, last_received)):
            one = expected[index] if index < last_expected else MISSING
            other = chunks[index] if index < last_received else None
            if other is not None and one is not MISSING and not self._chunk_differs(one, other):
                lines.append(f"  {_shown_chunk(other, one)}")
                continue
            if one is not MISSING:
                lines.append(f"- {shown(_bare(one))}")
            if other is not None:
                lines.append(f"+ {_shown_chunk(other, one)}")
        lines += [f"  {_shown_chunk(chunk, MISSING)}" for chunk in chunks[last_received : last_received + _AROUND]]
        if len(lines) > _MOST_LINES:
            lines = [*lines[:_MOST_LINES], f"  … {len(lines) - _MOST_LINES} more lines"]
        return lines

    def _marks(self) -> Iterator[Failure]:
        expected, done = self._expect.done, self._answer.done
        if expected is None:
            return
        if isinstance(expected, bool):
            came = done is not MISSING or (self._answer.format in ("text", "bytes") and self._answer.whole)
            if came is not expected:
                yield self._fail("done", f"`done`: {'no end marker came' if expected else 'an end marker came'}")
            return
        if isinstance(done, Mapping) and done.keys() == {"content", "metadata"}:
            wanted = isinstance(expected, Mapping) and not expected.keys() <= done.keys()
            done = done["metadata"] if wanted else done
            done = done["content"] if isinstance(expected, str) else done
        yield from self._compare("done", expected, done)

    # ------------------------------------------------------------------------------------- times

    def _time_differs(self, expected: Any, actual: float, name: str) -> str:
        if not isinstance(expected, (int, float)) or isinstance(expected, bool):
            return differs(expected, round(actual, 6), name)
        late = actual - expected
        allowed = REAL_TOLERANCE if self._case.real_time else TOLERANCE
        if -TOLERANCE <= late <= allowed:
            return ""
        return f"`{name}`: expected {_seconds(expected)}, received {_seconds(actual)}"

    def _times(self) -> Iterator[Failure]:
        expect, answer = self._expect, self._answer
        if expect.elapsed is not None and (reason := self._time_differs(expect.elapsed, answer.ended, "elapsed")):
            yield self._fail("elapsed", reason)
        if expect.streamed is None:
            return
        ends = [call.ended for call in self._seen.calls if call.ended is not None]
        until = max(ends) - answer.began if ends else answer.ended
        streamed = bool(answer.chunks) and answer.chunks[0].at < until
        if streamed is not expect.streamed:
            what = "last upstream" if ends else "answer"
            first = f"the first chunk came at {_seconds(answer.chunks[0].at)}" if answer.chunks else "no chunk came"
            yield self._fail("streamed", f"`streamed`: {first}, and the {what} ended at {_seconds(until)}")

    def _client_actions(self) -> Iterator[Failure]:
        """Fail where the answer was over before the client left or stopped it: nothing of that was tested."""
        client, answer, expect = self._client, self._answer, self._expect
        if not answer.whole or answer.acted or (answer.error is not None and not expect.error and not expect.status):
            return
        received = counted(len(answer.chunks), "chunk")
        if client.leave_after is not None or client.resume_after is not None:
            yield self._fail("", f"the stream ended after {received}: the client never left")
        elif client.stop_after is not None:
            yield self._fail("", f"the stream ended after {received}: the client never stopped it")

    # ----------------------------------------------------------------- upstreams, database and log

    def _calls(self) -> Iterator[Failure]:
        if self._expect.calls is None:
            return
        calls = list(self._seen.calls)
        listed = [f"  {call.method} {call.url}" for call in calls]
        seen: set[int] = set()
        before = -1
        explained: set[int] = set()  # calls whose difference a failure shows
        for expected in self._expect.calls:
            reasons = [call_differs(expected, call) for call in calls]
            found = [at for at, reason in enumerate(reasons) if not reason]
            near = {at: reason for at, reason in enumerate(reasons) if reason and not reason.startswith("`url`")}
            seen.update(found)
            name = f"{expected.method + ' ' if expected.method else ''}{expected.url}"
            failed = None
            if expected.count is not None and len(found) != expected.count:
                failed = f"`calls`: {name}: expected {counted(expected.count, 'call')}, received {len(found)}"
                if near and len(found) < expected.count:
                    failed += f"; {counted(len(near), 'other call')}: {_nearest(near, seen)}"
                    explained.update(near)
            elif expected.count is None and not found:
                failed = f"`calls`: {name} was not called" + (f" so: {_nearest(near, seen)}" if near else "")
                explained.update(near)
            elif found and found[0] < before:
                failed = f"`calls`: {name} was called before the one that stands above it"
            if failed:
                yield Failure(expected.mark, failed, tuple(listed), self._definition())
            elif found:
                before = found[0]
        for at, call in enumerate(calls):
            if at not in seen | explained:
                yield self._fail(
                    "calls", f"`calls`: {call.method} {call.url} was called, and is not among them", listed
                )

    def _database(self) -> Iterator[Failure]:
        for expected, rows in zip(self._expect.database or (), self._rows, strict=False):
            if isinstance(rows, RunError):
                yield Failure(expected.mark, f"`database`: {rows.full}")
            elif reason := differs(expected.rows, json.loads(to_json(rows))):
                diff = (
                    [f"- {shown(each)}" for each in expected.rows] if isinstance(expected.rows, (list, tuple)) else []
                )
                diff += [f"+ {shown(each)}" for each in rows]
                yield Failure(expected.mark, f"`database`: {reason}", tuple(diff[:_MOST_LINES]), self._definition())

    def _mails(self) -> Iterator[Failure]:
        expected, mails = self._expect.mails, self._seen.mails
        if expected is None:
            return
        listed = [f"  {shown({name: mail[name] for name in ('to', 'subject')})}" for mail in mails]
        for wanted, mail in zip(expected, mails, strict=False):
            if reason := differs(wanted.parts, mail):
                yield Failure(wanted.mark, f"`mails`: {reason}", tuple(listed), self._definition())
        if len(expected) != len(mails):
            message = f"`mails`: expected {counted(len(expected), 'mail')}, sent {len(mails)}"
            yield self._fail("mails", message, listed)

    def _published(self) -> Iterator[Failure]:
        expected, messages = self._expect.published, self._seen.published
        if expected is None:
            return
        listed = [f"  {shown({name: each[name] for name in ('channel', 'content')})}" for each in messages]
        for wanted, each in zip(expected, messages, strict=False):
            if reason := differs(wanted.parts, json.loads(to_json(each))):
                yield Failure(wanted.mark, f"`published`: {reason}", tuple(listed), self._definition())
        if len(expected) != len(messages):
            message = f"`published`: expected {counted(len(expected), 'message')}, published {len(messages)}"
            yield self._fail("published", message, listed)

    def _log(self) -> Iterator[Failure]:
        for expected in self._expect.log or ():
            # What authors log is its event; other lines have a message beside it.
            if all(differs(expected, {"message": line.get("event"), **line}) for line in self._seen.log):
                lines = [f"  {shown(line)}" for line in self._seen.log[:_MOST_LINES]]
                yield self._fail("log", f"`log`: no line has {shown(expected)}", lines)


def _nearest(reasons: Mapping[int, str], expected: Collection[int]) -> str:
    """Return how a call differs from the expected one: preferably one that no other expectation means."""
    return reasons[min(reasons, key=lambda at: (at in expected, reasons[at].startswith("`method`"), at))]


def _is_shape(expected: Any) -> bool:
    """Whether an expected chunk is written with its properties, not as content that is an object."""
    return isinstance(expected, Mapping) and bool(expected) and expected.keys() <= CHUNK_KEYS


def _bare(expected: Any) -> Any:
    """Return the content of a chunk of which nothing else is expected; any other as it is."""
    return expected["content"] if isinstance(expected, Mapping) and expected.keys() == {"content"} else expected


def _content(expected: Any) -> Any:
    return expected.get("content", "") if _is_shape(expected) else expected


def _content_differs(expected: Any, chunk: Chunk) -> str:
    if isinstance(expected, str) and chunk.text == expected:
        return ""
    return differs(expected, chunk.content)


def _shown_chunk(chunk: Chunk, expected: Any) -> str:
    """Return a chunk with the properties that are expected of it."""
    if not _is_shape(expected) or expected.keys() == {"content"}:
        return shown(chunk.content)
    received: dict[str, Any] = {}
    for name in expected:
        actual = round(chunk.at, 6) if name == "at" else getattr(chunk, name)
        received[name] = None if actual is MISSING else actual
    return shown(received)


def _line_diff(expected: str, received: str) -> list[str]:
    """Return the lines of two texts that differ."""
    if "\n" not in expected and "\n" not in received:
        return [f"- {shown(expected)}", f"+ {shown(received)}"]
    from difflib import ndiff  # noqa: PLC0415  (failing tests only)

    lines = ndiff([shown(each) for each in expected.split("\n")], [shown(each) for each in received.split("\n")])
    return [line.rstrip() for line in lines if not line.startswith("?")][:_MOST_LINES]


def _seconds(value: float) -> str:
    return f"{value * 1000:.6g} ms" if value < 1 else f"{value:.6g} s"


def _described(error: Mapping[str, Any]) -> str:
    faults = error.get("errors")
    text = ": ".join(str(error[name]) for name in ("code", "message") if error.get(name) is not None) or shown(error)
    return f"{text} ({shown(faults)})" if faults else text


def call_differs(expected: ExpectedCall, call: Call) -> str:
    """Return how a call of an upstream differs from an expected one."""
    if not fits_url(expected.url, call.url):
        return f"`url`: {call.url}"
    if expected.method is not None and expected.method != call.method:
        return f"`method`: {call.method}"
    for name, value in expected.headers.items():
        if not fits_headers({name: value}, call.headers):
            received = ", ".join(call.headers.getall(name, []))
            return f"header `{name}`: expected {shown(value)}, received {shown(received) if received else 'none'}"
    if expected.body is not None and (reason := body_differs(expected.body, call)):
        return reason
    if expected.closed_early is not None and call.closed_early is not expected.closed_early:
        return f"`closedEarly`: {str(call.closed_early).lower()}"
    return ""


# ------------------------------------------------------------------------------------ the whole test


def _unanswered(case: Case, seen: Observation) -> Iterator[Failure]:
    problems = {call.problem: None for call in seen.calls if call.problem}
    return (Failure(case.mark, problem) for problem in problems)


def _failed_afters(case: Case, seen: Observation) -> Iterator[Failure]:
    """Fail for what went wrong where no client sees it, unless it is expected in the log."""
    expected = [each for exchange in case.exchanges for each in exchange.expect.log or ()]
    for line in seen.log:
        if line.get("event") == "after-failed" and all(differs(each, line) for each in expected):
            reason = line.get("message", line.get("reason"))
            yield Failure(
                case.mark, f"`after` failed: {line.get('code', 'internal')}: {reason}", (), str(line.get("place", ""))
            )


def uncalled(case: Case, seen: Observation) -> Iterator[Mark]:
    """Yield the places of upstreams that were never called."""
    called = {id(call.upstream) for call in seen.calls}
    for upstream in case.upstreams:
        if id(upstream) not in called:
            yield upstream.mark

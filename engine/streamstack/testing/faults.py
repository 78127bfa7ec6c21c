"""The fault sweep: a passing test is repeated with one fault at a time, and what holds always must still hold.

No expectations are needed. The test's own run without a fault is what answers are compared with.
"""

from __future__ import annotations

import os
import resource
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson

from streamstack.connections.database.temporary import TestDatabases
from streamstack.language.cases import Case, CaseClient, Place, Respond
from streamstack.language.definition import Endpoint, Project, Step
from streamstack.language.graph import constant, steps_with_called
from streamstack.language.values import MISSING
from streamstack.testing.answers import Fault
from streamstack.testing.calls import Call
from streamstack.testing.client import Chunk, ReceivedAnswer
from streamstack.testing.comparison import counted
from streamstack.testing.expectations import check
from streamstack.testing.runner import Injection, Observation, RunEnd, run_case
from streamstack.testing.session import TestProject

#: Places in one answer, or one stream, at which it is cut or left, and at which rarer faults are placed.
_MOST_PLACES: Final = 40
_FEW_PLACES: Final = 3
#: Seconds of the test's time in which an upstream must be closed whose client has left.
_CLOSED_WITHIN: Final = 1.0
#: Seconds that a client is away before it resumes, at most.
_LONGEST_AWAY: Final = 10.0
#: Seconds between the reads of a slow client.
_READ_DELAY: Final = 0.05
#: Seconds of the test's time after which clients leave that wait for longer than without a fault.
_CLIENT_TIMEOUT: Final = 1800.0
#: What upstreams say in their error answers: it must not reach the client.
CANARY: Final = "internal-7f3a9c51"
#: What a response never holds.
_INTERNAL: Final = (CANARY, "Traceback (most recent call last)", "asyncpg.", "streamstack.errors")
#: The shortest text that counts as a secret.
_SHORTEST: Final = 6
#: Bytes that the process may grow by in one run, where `server.maxMemory` allows no less.
_GROWTH: Final = 256 * 1024 * 1024
#: Methods of calls that may be repeated at any time (RFC 9110, section 9.2.2).
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
#: How the second run without a fault differs from the first: what differs then may differ always.
_SHIFT: Final = timedelta(days=11, hours=3, minutes=7, seconds=13, microseconds=123_456)
_DELAY: Final = 0.123

#: Functions whose chunks come in an order that depends on times.
_CONCURRENT: Final = frozenset({"parallel", "streams.merge"})
_TIMED: Final = frozenset({"streams.interval", "streams.window", "streams.changes", "streams.batch", "db.listen"})
_CHOOSING: Final = frozenset({"if", "switch", "streams.filter", "streams.take", "break", "continue", "return"})
_GATHERING: Final = frozenset({"streams.split"})
#: Parameters by which an author says what is done about a failure, unless they are constant and one of these.
_HANDLERS: Final = {
    "catch": (),
    "onError": ("fail",),
    "onInvalid": ("fail",),
    "onGap": ("fail",),
    "onLimit": ("fail",),
    "reconnect": (False, None),
    "allowStatus": (),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault: its name, as `--fault` takes it, and how it is injected. ``kind`` is one of `FAULTS`."""

    name: str
    kind: str
    injection: Injection


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold under a fault."""

    scenario: str
    reasons: tuple[str, ...]
    command: str


def _addressed(mail: Mapping[str, Any]) -> tuple[str, str]:
    return str(mail["to"]), mail["subject"]


@dataclass(slots=True)
class Sweep:
    """What a sweep found; ``count`` is the number of faults."""

    count: int = 0
    violations: list[Violation] = field(default_factory=list)


def sweep(
    project: TestProject,
    case: Case,
    databases: TestDatabases,
    folder: Path,
    *,
    file: str,
    kinds: Collection[str],
    only: str | None = None,
) -> Sweep:
    """Repeat a test that passes with one fault at a time.

    Args:
        project: The project under test.
        case: The test.
        databases: Makes its databases; None where the project uses none.
        folder: Where the project keeps what it makes itself.
        file: The file of the test, for the command that repeats a fault.
        kinds: Which of `FAULTS` are injected.
        only: The name of the only fault that is injected.
    """
    found = Sweep()

    def run(case: Case, injection: Injection) -> Observation:
        return run_case(project, case, databases, folder, injection)

    baseline = run(case, Injection())
    if failures := check(case, baseline):
        reason = f"the test passes, and fails when it is repeated: {failures[0].message}"
        found.violations.append(Violation("no fault", (reason,), ""))
        return found
    judge = _Judge(project, case, baseline, run(_shifted(case), Injection()))
    client_timeout = max((answer.ended for answer in baseline.answers), default=0.0) + _CLIENT_TIMEOUT
    for scenario in scenarios(case, baseline):
        if scenario.kind not in kinds or only not in (None, scenario.name):
            continue
        seen = run(case, replace(scenario.injection, client_timeout=client_timeout))
        if any(call.problem for call in seen.calls):
            continue  # the fault has no place in what was sent
        found.count += 1
        if reasons := tuple(dict.fromkeys(judge.violations(scenario, seen))):
            command = f"streamstack test {shlex.quote(file)} -k {shlex.quote(case.name)}"
            found.violations.append(
                Violation(scenario.name, reasons, f"{command} --fault {shlex.quote(scenario.name)}")
            )
    return found


def _shifted(case: Case) -> Case:
    """Return a test at another time, with other random numbers, and upstreams that are slower."""
    upstreams = tuple(
        replace(
            each,
            responds=tuple(replace(respond, first_after=respond.first_after + _DELAY) for respond in each.responds),
        )
        for each in case.upstreams
    )
    began = case.now or datetime.now(UTC)
    return replace(case, now=began + _SHIFT, seed=case.seed + 1, upstreams=upstreams)


# --------------------------------------------------------------------------------------- scenarios


def scenarios(case: Case, baseline: Observation) -> Iterator[Scenario]:
    """Yield every fault that a test can be repeated with, by what happened without one."""
    for call in baseline.calls:
        yield from _of_answer(case, call)
    for index, answer in enumerate(baseline.answers):
        if case.exchanges[index].client == CaseClient(background=case.exchanges[index].client.background):
            yield from _of_client(case, index, answer)
    for number in range(1, min(len(baseline.mails), _MOST_PLACES) + 1):
        yield Scenario(f"reject mail {number}", "mail", Injection(mails={number: "refused"}))
        yield Scenario(f"lose the mail server at mail {number}", "mail", Injection(mails={number: "lost"}))
    for number in _places(baseline.statements + 1, _MOST_PLACES)[1:]:
        name = f"break the connection before statement {number}"
        yield Scenario(name, "database", Injection(statement=number))
        name = f"break the connection after statement {number}"
        yield Scenario(name, "database", Injection(statement=number, lose_reply=True))
        name = f"lose the database at statement {number}"
        yield Scenario(name, "database", Injection(statement=number, stays_down=True))


def _of_answer(case: Case, call: Call) -> Iterator[Scenario]:
    number, events = call.number, call.events

    def scenario(name: str, kind: str, fault: Fault) -> Scenario:
        return Scenario(name, kind, Injection(answers={number: fault}))

    yield scenario(f"refuse call {number}", "refused", Fault(refuse=True))
    for status in (429, 500):
        yield scenario(f"answer call {number} with {status}", "status", Fault(respond=_refusal(case, status)))
    if call.respond is None or call.respond.refuse or call.respond.reset or call.respond.cut_after:
        return
    if call.respond.stall_after:
        return
    for count in _places(events + 1, _MOST_PLACES):
        place = Place("events", count)
        yield scenario(f"cut call {number} after {_events(count)}", "cut", Fault(cut_after=place))
    for count in _places(events, _FEW_PLACES):
        place = Place("events", count, "event")
        yield scenario(f"cut call {number} inside event {count + 1}", "cut", Fault(cut_after=place, reset=True))
    if call.respond.model is not None and call.chunks > 1:  # what ends the answer is in its last piece
        for count in _places(call.chunks, _FEW_PLACES):
            name = f"end call {number} early after {counted(count, 'piece')}"
            yield scenario(name, "cut", Fault(end_after=Place("chunks", count)))
    for count in _places(events, _FEW_PLACES):
        place = Place("events", count)
        yield scenario(f"stall call {number} after {_events(count)}", "stalled", Fault(stall_after=place))
    for count in _places(events, _FEW_PLACES):
        name = f"send an invalid event in call {number} after {_events(count)}"
        yield scenario(name, "invalid", Fault(invalid_after=count))


def _of_client(case: Case, index: int, answer: ReceivedAnswer) -> Iterator[Scenario]:
    background = case.exchanges[index].client.background
    whose = f" request {index + 1}" if len(case.exchanges) > 1 else ""

    def scenario(name: str, kind: str, stored: int | None = None, **client: Any) -> Scenario:
        clients = {index: CaseClient(**client, background=background)}
        return Scenario(name, kind, Injection(clients=clients, stored_chunks=stored))

    for count in _places(len(answer.chunks), _MOST_PLACES):
        yield scenario(f"leave{whose} after {counted(count, 'chunk')}", "leave", leave_after=count)
    if answer.chunks:
        yield scenario(f"read{whose} slowly", "slow", read_delay=_READ_DELAY)
    if "X-Stream-Id" in answer.headers:
        for count in _places(len(answer.chunks) + 1, _MOST_PLACES)[1:]:
            yield scenario(f"resume{whose} after {counted(count, 'chunk')}", "resume", resume_after=count)
            away = min(
                answer.chunks[min(count + 1, len(answer.chunks) - 1)].at - answer.chunks[count - 1].at, _LONGEST_AWAY
            )
            if away > 0:
                name = f"resume{whose} after {counted(count, 'chunk')} and {away:g} s"
                yield scenario(name, "resume", resume_after=count, resume_delay=away)
        for count in _places(len(answer.chunks), _FEW_PLACES)[1:]:
            away = min(answer.ended - answer.chunks[count - 1].at, _LONGEST_AWAY)
            name = f"resume{whose} after {counted(count, 'chunk')} and {away:g} s, with one chunk stored"
            yield scenario(name, "resume", stored=1, resume_after=count, resume_delay=away)


def _refusal(case: Case, status: int) -> Respond:
    body = orjson.dumps({"error": {"message": CANARY, "type": CANARY, "code": CANARY}})
    headers = (("Content-Type", "application/json"), ("X-Internal", CANARY))
    return Respond(case.mark, status=status, headers=headers, body=body)


def _places(count: int, most: int) -> list[int]:
    """Return the numbers from 0 below a count; of too many, some at equal distances, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(number * (count - 1) / (most - 1)) for number in range(most)})


def _events(count: int) -> str:
    return counted(count, "event")


# --------------------------------------------------------------------------------------- invariants


@dataclass(frozen=True, slots=True)
class Facts:
    """What an endpoint is allowed.

    Args:
        handles: Its steps do something about failures, so a run may complete although something failed.
        concurrent: The order of its chunks depends on times.
        timed: What its chunks are depends on times.
        chooses: It may pass over items.
        gathers: What was gathered of a chunk is sent when the run fails.
        outlives: The run goes on when the client has left.
        first: Seconds to the first chunk, at most; 0 disables it.
        silence: Seconds between two chunks, at most; 0 disables it.
    """

    handles: bool = False
    concurrent: bool = False
    timed: bool = False
    chooses: bool = False
    gathers: bool = False
    outlives: bool = False
    first: float = 0.0
    silence: float = 0.0

    @classmethod
    def of(cls, endpoint: Endpoint | None, project: Project) -> Facts:
        """Read the facts off the steps of an endpoint, and of the functions that it calls."""
        if endpoint is None:
            return cls()
        steps = list(steps_with_called(endpoint.stack, project.functions))
        names = {step.function.name for step in steps}
        return cls(
            handles=any(map(_handles, steps)),
            concurrent=bool(names & _CONCURRENT) or any("concurrency" in step.arguments.by_name for step in steps),
            timed=bool(names & _TIMED),
            chooses=bool(names & _CHOOSING) or any(step.when is not None for step in steps),
            gathers=bool(names & _GATHERING),
            outlives=endpoint.streaming.on_disconnect == "finish" or endpoint.streaming.resume is not None,
            first=endpoint.streaming.first_chunk_timeout,
            silence=endpoint.streaming.idle_timeout,
        )


def _handles(step: Step) -> bool:
    return any(
        name in step.arguments.by_name and constant(step.arguments.by_name[name]) not in allowed
        for name, allowed in _HANDLERS.items()
    )


@dataclass(slots=True)
class _Baseline:
    """An exchange without a fault, and which members of its chunks may differ from run to run."""

    answer: ReceivedAnswer
    facts: Facts
    volatile: frozenset[tuple[int, str]]
    stable: bool
    comparable: bool = True
    paced: bool = False  # by the body of the request, which a client that leaves at once sends at once

    @classmethod
    def of(cls, answer: ReceivedAnswer, other: ReceivedAnswer | None, facts: Facts) -> _Baseline:
        """Compare two runs without a fault."""
        others = other.chunks if other is not None else []
        volatile = frozenset(
            (index, name)
            for index, (one, two) in enumerate(zip(answer.chunks, others, strict=False))
            for name in _MEMBERS
            if getattr(one, name) != getattr(two, name)
        )
        stable = len(others) == len(answer.chunks) and not facts.concurrent
        return cls(answer, facts, volatile, stable)

    @property
    def bounds_others(self) -> bool:
        """Whether the chunks of a run with a fault must be the first of these."""
        return self.comparable and not self.facts.handles and not self.facts.timed

    @property
    def ends_with_marker(self) -> bool:
        return self.answer.done is not MISSING

    def without(self, gaps: Sequence[Any]) -> _Baseline:
        """Return what is left of the run when the client was told that chunks are missing."""
        if not all(isinstance(gap, dict) and gap.keys() >= {"from", "to"} for gap in gaps):
            return replace(self, comparable=False)
        missing = {number for gap in gaps for number in range(gap["from"], gap["to"] + 1)}
        left = [index for index in range(len(self.answer.chunks)) if index not in missing]
        return replace(
            self,
            answer=replace(self.answer, chunks=[self.answer.chunks[index] for index in left]),
            volatile=frozenset((at, name) for at, index in enumerate(left) for i, name in self.volatile if i == index),
        )

    def same(self, index: int, chunk: Chunk) -> bool:
        """Tell whether a chunk is the one that came at this place."""
        ours = self.answer.chunks[index]
        return all(
            getattr(ours, name) == getattr(chunk, name) for name in _MEMBERS if (index, name) not in self.volatile
        )

    def begins_with(self, answer: ReceivedAnswer) -> bool:
        """Tell whether an answer's chunks are the first ones of this."""
        if answer.format not in _CHUNKED:
            return bool(self.volatile) or not self.stable or self.answer.text.startswith(answer.text)
        if len(answer.chunks) > len(self.answer.chunks):
            return False
        if self.stable:
            first, last = answer.chunks[:-1], answer.chunks[-1:]
            return all(self.same(index, chunk) for index, chunk in enumerate(first)) and all(
                self.begins_with_chunk(len(first), chunk) for chunk in last
            )
        if self.volatile and not self.facts.concurrent:
            return True
        ours, theirs = (Counter(map(_identity, each.chunks)) for each in (self.answer, answer))
        return bool(self.volatile) or theirs <= ours

    def begins_with_chunk(self, index: int, chunk: Chunk) -> bool:
        """Tell whether a chunk is the one at this place, or its beginning: what was gathered when the run failed."""
        ours = self.answer.chunks[index]
        return self.same(index, chunk) or (self.facts.gathers and ours.text.startswith(chunk.text))

    def equals(self, answer: ReceivedAnswer) -> bool:
        """Tell whether an answer has all chunks of this, and no other."""
        same_length = answer.format not in _CHUNKED or len(answer.chunks) == len(self.answer.chunks)
        return same_length and self.begins_with(answer) and (bool(self.volatile) or answer.text == self.answer.text)


#: What a run's outcome is called by its steps, where the log is more precise.
_OF_RUNS: Final = {"timeout": "failed", "shutdown": "failed"}
#: Formats whose chunks can be told apart.
_CHUNKED: Final = frozenset({"sse", "ndjson", "json"})
#: The members of chunks that are compared; ids of resumable streams differ from run to run.
_MEMBERS: Final = ("event", "content", "metadata")


def _identity(chunk: Chunk) -> str:
    return repr((chunk.event, chunk.content, chunk.metadata))


class _Judge:
    """Knows what must hold under every fault of one test."""

    def __init__(self, project: TestProject, case: Case, baseline: Observation, other: Observation) -> None:
        self._case = case
        self._baseline = baseline
        edition = project.edition(case.env, variants=case.experiments)
        self._limit = edition.checked.settings.server.max_memory or _GROWTH
        self._exchanges: list[_Baseline] = []
        for index, answer in enumerate(baseline.answers):
            request = case.exchanges[index].request
            facts = Facts.of(edition.endpoint(request.method, request.path), edition.checked.project)
            second = other.answers[index] if index < len(other.answers) and not other.failure else None
            self._exchanges.append(replace(_Baseline.of(answer, second, facts), paced=request.pieces is not None))
        shown = b"".join(bytes(answer.body) + repr(answer.headers).encode() for answer in baseline.answers)
        texts = [
            *_INTERNAL,
            *(value for value in case.env.values() if len(value) >= _SHORTEST),
            os.fspath(project.root),
        ]
        self._secrets = [text.encode() for text in texts if text.encode() not in shown]
        self._expected_calls = Counter(map(_repetition, baseline.calls))
        self._peak = _peak()

    def violations(self, scenario: Scenario, seen: Observation) -> Iterator[str]:
        """Yield what does not hold."""
        if seen.failure:
            yield f"the run does not end: {seen.failure}"
            return
        for index, (baseline, answer) in enumerate(zip(self._exchanges, seen.answers, strict=False)):
            end = seen.end_of(answer)
            if len(self._exchanges) > 1 and index not in scenario.injection.clients:
                # What the client of one request gets may depend on what became of another one.
                baseline = replace(baseline, comparable=False)  # noqa: PLW2901  (the same, with less to compare)
            elif answer.gaps:
                baseline = baseline.without(answer.gaps)  # noqa: PLW2901
            yield from self._status(answer, end)
            yield from self._end(scenario, baseline, answer, seen)
            yield from self._chunks(scenario, baseline, answer, end)
            yield from self._texts(baseline, answer, end)
            yield from self._silence(scenario, baseline, answer)
        yield from self._upstreams(scenario, seen)
        yield from self._afters(seen)
        yield from self._rows(seen)
        yield from self._mails(seen)
        yield from self._log(seen)
        grown, self._peak = _peak() - self._peak, max(self._peak, _peak())
        if grown > self._limit:
            yield f"the process has grown by {grown >> 20} MB"

    def _status(self, answer: ReceivedAnswer, end: RunEnd | None) -> Iterator[str]:
        """Find a failure before the first chunk whose status is not true."""
        if end is None or end.error is None or answer.left or answer.chunks or answer.status is None:
            return
        begun = answer.body.startswith((b":", b"\n", b" "))  # a heartbeat has left before
        if answer.status < 400 and not begun and end.outcome != "cancelled":
            yield f"the run failed before the first chunk ({end.error.code}), and the status is {answer.status}"
        elif answer.status >= 400 and answer.status != end.error.status:
            yield f"the status is {answer.status}, and that of the error ({end.error.code}) is {end.error.status}"

    def _end(self, scenario: Scenario, baseline: _Baseline, answer: ReceivedAnswer, seen: Observation) -> Iterator[str]:
        """Find a failed stream that looks finished, a completed one that does not, and a failure that was swallowed."""
        end = seen.end_of(answer)
        if answer.left or end is None:
            return
        if answer.status is None:
            yield f"the run is {end.outcome}, and the client got no answer: {answer.failure}"
            return
        if end.outcome != "completed" and answer.status < 400:
            if answer.done is not MISSING:
                yield f"the run is {end.outcome}, and the answer has an end marker"
            elif answer.whole and answer.error is None:
                yield f"the run is {end.outcome}, and the answer ends as if it was complete"
            elif answer.error is None and answer.format in _CHUNKED:
                yield f"the run is {end.outcome}, and the client was not told"
        if end.outcome == "completed":
            if answer.error is not None and baseline.answer.error is None:
                yield "the run is completed, and the client got an error"
            elif not answer.whole or (baseline.comparable and baseline.ends_with_marker and answer.done is MISSING):
                yield f"the run is completed, and the answer does not look so: {answer.failure or 'no end marker'}"
            elif (
                scenario.kind == "invalid"
                and baseline.bounds_others
                and not baseline.facts.chooses
                and baseline.equals(answer)
            ):
                if len(seen.calls) == len(self._baseline.calls):  # else it was tried again
                    yield from self._passed_over(scenario)
            elif baseline.bounds_others and not baseline.equals(answer):
                if scenario.kind == "invalid" and len(answer.chunks) >= len(baseline.answer.chunks):
                    return  # data that is passed on as it is can't be invalid
                yield (
                    f"the run is completed, and the chunks are not those of the run without a fault: "
                    f"{len(answer.chunks)} instead of {len(baseline.answer.chunks)}"
                )

    def _passed_over(self, scenario: Scenario) -> Iterator[str]:
        """Find an invalid event before others that have all been sent on."""
        for number, fault in scenario.injection.answers.items():
            if fault.invalid_after is not None and self._baseline.calls[number - 1].events > fault.invalid_after + 1:
                yield "the run is completed, and the invalid event has left no trace"

    def _chunks(
        self, scenario: Scenario, baseline: _Baseline, answer: ReceivedAnswer, end: RunEnd | None
    ) -> Iterator[str]:
        """Find chunks that the run without a fault has not; and ones that a resumed stream lacks without a gap."""
        if answer.status is None or answer.status >= 400 or not baseline.bounds_others:
            return
        completed = end is not None and end.outcome == "completed"
        if scenario.kind == "invalid" and completed:
            return
        if not baseline.begins_with(answer):
            yield "the chunks are not the first ones of the run without a fault"
        elif scenario.kind == "resume" and not baseline.equals(answer):
            reported = "not in a gap" if answer.gaps else "no gap"
            yield f"the resumed stream has {len(answer.chunks)} of {len(baseline.answer.chunks)} chunks, and {reported}"

    def _texts(self, baseline: _Baseline, answer: ReceivedAnswer, end: RunEnd | None) -> Iterator[str]:
        """Find what is internal in what the client got."""
        texts = list(self._secrets)
        if end is not None and end.error is not None and end.error.public != end.error.message:
            texts += [each.encode() for each in (end.error.message, end.error.full) if len(each) >= _SHORTEST]
        if baseline.facts.handles:
            texts = [each for each in texts if each != CANARY.encode()]
        for text in texts:
            if text in answer.body or any(text in value.encode() for value in answer.headers.values()):
                yield f"the client got what is internal: {text.decode('utf-8', 'replace')}"

    def _silence(self, scenario: Scenario, baseline: _Baseline, answer: ReceivedAnswer) -> Iterator[str]:
        """Find a stream that is silent for longer than its `idleTimeout`."""
        first = answer.chunks[0].at if answer.chunks else answer.ended
        if baseline.facts.first and first > baseline.facts.first + _CLOSED_WITHIN:
            yield f"no chunk comes for {first:g} s, and the `firstChunkTimeout` is {baseline.facts.first:g} s"
        if not answer.chunks or not baseline.facts.silence or scenario.kind == "slow":
            return
        times = [*(chunk.at for chunk in answer.chunks), answer.ended]
        longest = max(two - one for one, two in pairwise(times))
        if longest > baseline.facts.silence + _CLOSED_WITHIN:
            yield f"the stream is silent for {longest:g} s, and its `idleTimeout` is {baseline.facts.silence:g} s"

    def _upstreams(self, scenario: Scenario, seen: Observation) -> Iterator[str]:
        """Find calls that are left open, go on when the client has left, or are repeated once a chunk was sent."""
        for call in seen.calls:
            if call.arrived is not None and call.ended is None and call.closed is None:
                yield f"call {call.number} ({call.method} {call.url.host}) is left open"
        counted = Counter[Any]()
        for call in seen.calls:
            counted[_repetition(call)] += 1
            if (
                _follows_chunk(call, seen.answers)
                and call.method not in _REPEATABLE
                and "webhook-id" not in call.headers  # by which its receiver knows it again
                and counted[_repetition(call)] > self._expected_calls[_repetition(call)]
            ):
                yield f"call {call.number} ({call.method} {call.url.host}) is repeated after the first chunk"
        if any(baseline.facts.outlives for baseline in self._exchanges):
            return
        over = max((each.began + each.ended for each in seen.answers), default=0.0)
        for call in seen.calls:
            until = call.ended if call.closed is None else call.closed
            if call.arrived is not None and call.arrived <= over and (until or over) > over + _CLOSED_WITHIN:
                yield f"call {call.number} ({call.url.host}) goes on when the answer is over, or the client has left"

    def _afters(self, seen: Observation) -> Iterator[str]:
        """Find what did not run `after` once, or with an outcome that the client did not see."""
        for end in seen.ends.values():
            for each in end.afters:
                if len(each.outcomes) != 1:
                    yield f"an `after` ran {counted(len(each.outcomes), 'time')}"
                elif each.outcomes != [_OF_RUNS.get(end.outcome, end.outcome)]:
                    yield f"an `after` ran with the outcome {each.outcomes[0]}, and the run is {end.outcome}"
        for baseline, answer in zip(self._exchanges, seen.answers, strict=False):
            own = seen.end_of(answer)
            if own is not None and (reason := _outcome_differs(baseline, answer, own)):
                yield f"{reason}, and the outcome is {own.outcome}"

    def _rows(self, seen: Observation) -> Iterator[str]:
        """Find rows that were written twice."""
        if any(baseline.facts.handles for baseline in self._exchanges):
            return
        for ours, theirs in zip(self._baseline.rows, seen.rows, strict=False):
            for expected, found in zip(ours, theirs, strict=False):
                if isinstance(expected, list) and isinstance(found, list) and len(found) > len(expected):
                    yield f"the database has {len(found)} rows instead of {len(expected)}"

    def _mails(self, seen: Observation) -> Iterator[str]:
        """Find mails that were sent twice."""
        ours, theirs = (Counter(map(_addressed, each.mails)) for each in (self._baseline, seen))
        for (to, subject), count in theirs.items():
            if count > (expected := ours[to, subject]) > 0:
                yield f"the mail `{subject}` to {to} is sent {counted(count, 'time')} instead of {expected}"

    def _log(self, seen: Observation) -> Iterator[str]:
        """Find failures inside the engine."""
        for end in seen.ends.values():
            if end.error is not None and end.error.code == "internal":
                yield f"an internal error: {end.error.full}"
        for line in seen.log:
            if "exception" in line:
                yield f"an internal error was logged: {line.get('event')}: {str(line['exception']).splitlines()[-1]}"


def _outcome_differs(baseline: _Baseline, answer: ReceivedAnswer, end: RunEnd) -> str:
    """Return what a client saw that does not go with the outcome of the run."""
    if answer.left:
        goes_on = any(chunk.at > answer.ended + _CLOSED_WITHIN for chunk in baseline.answer.chunks)
        early = goes_on and baseline.comparable and not baseline.facts.outlives and not baseline.paced
        return "the client has left" if early and end.outcome == "completed" else ""
    if answer.error is not None and baseline.answer.error is None and end.outcome == "completed":
        return "the client got an error"
    if answer.done is not MISSING and answer.error is None and end.outcome != "completed":
        return "the client got the end marker"
    return ""


def _follows_chunk(call: Call, answers: Sequence[ReceivedAnswer]) -> bool:
    """Return whether a chunk had been sent for the request that a call was made for, as far as that is known.

    That is the request before it, or one that was still being answered when that began: a run that failed may be
    followed by another one for a later request.
    """
    arrived = call.arrived
    before = [each for each in answers if arrived is not None and each.began <= arrived]
    if arrived is None or not before:
        return False
    last = max(each.began for each in before)
    possible = [each for each in before if each.began == last or each.began + each.ended > last]
    return any(each.chunks and each.began + each.chunks[0].at < arrived for each in possible)


def _repetition(call: Call) -> tuple[str, str, bytes]:
    return call.method, str(call.url), call.body


def _peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024

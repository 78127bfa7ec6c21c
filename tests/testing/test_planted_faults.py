"""Faults that are planted into the engine, each as a careless edit would make it, for the fault sweep to find."""

from __future__ import annotations
import __future__

import inspect
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import pytest

from streamstack.connections.database.postgres import PostgresDatabase
from streamstack.connections.database.temporary import TestServer
from streamstack.connections.http_client import UpstreamResponse
from streamstack.functions import http
from streamstack.language.cases import FAULTS
from streamstack.runtime import concurrency
from streamstack.runtime.decoders.decoder import Decoder
from streamstack.runtime.providers.openai import OpenAIReader
from streamstack.runtime.run import Run
from streamstack.server import deadlines, replies, service
from streamstack.server.response import LiveSink
from streamstack.server.resume import log, streams
from streamstack.testing.suite import Result, Session, read_suite

PROJECT = """\
method: POST
path: /relay
functionStack:
  - after: {do: [{log: {message: over, level: debug}}]}
  - http.stream: {url: http://words.example.org/v1, method: POST, json: {say: three}, decode: sseJson}
    as: events
  - forEach: {in: << events >>, as: event, do: [{stream: << event.data.word >>}]}
---
method: POST
path: /again
functionStack:
  - call: {function: relay, with: {}}
    retry: {times: 2, delay: 10ms}
---
kind: function
name: relay
functionStack:
  - http.stream: {url: http://words.example.org/v1, method: POST, json: {say: three}, decode: sseJson}
    as: events
  - forEach: {in: << events >>, as: event, do: [{stream: << event.data.word >>}]}
---
method: GET
path: /both
functionStack:
  - parallel:
      branches:
        one: [{http.request: http://one.example.org/}, {stream: one}]
        two: [{http.request: http://two.example.org/}, {stream: two}]
---
method: GET
path: /kept
streaming: {resume: {keep: 5m}}
functionStack:
  - forEach: {in: << range(6) >>, as: n, do: [{stream: {content: << n >>, delay: 1s}}]}
---
method: GET
path: /ahead
streaming: {resume: {keep: 5m}, onDisconnect: finish}
functionStack:
  - forEach: {in: << range(6) >>, as: n, do: [{stream: {content: << n >>, delay: 1s}}]}
---
method: GET
path: /patient
streaming: {firstChunkTimeout: 30s, idleTimeout: 60s}
functionStack:
  - http.stream: {url: http://words.example.org/v1, idleTimeout: 0s, firstChunkTimeout: 0s}
    as: events
  - forEach: {in: << events >>, as: event, do: [{stream: << event.data >>}]}
---
method: POST
path: /model
functionStack:
  - llm.chat: {provider: openai, model: gpt-5, apiKey: k, messages: Hello}
    as: reply
  - forEach: {in: << reply >>, as: delta, do: [{stream: << delta >>}]}
"""
DATA = """\
method: GET
path: /rows
functionStack:
  - db.query: SELECT word FROM words
    as: rows
  - forEach: {in: << rows >>, as: row, do: [{stream: << row.word >>}]}
---
method: POST
path: /add
functionStack:
  - db.insert: {table: words, values: {word: new}}
  - stream: added
"""
TESTS = """\
tests:
  - name: relay
    request: {method: POST, path: /relay}
    expect: {text: onetwothree}
    upstreams: &words
      - url: http://words.example.org/v1
        respond: {events: [{data: {word: one}}, {data: {word: two}}, {data: {word: three}}], delay: 2s}
  - name: again
    request: {method: POST, path: /again}
    upstreams: *words
  - name: both
    request: {path: /both}
    upstreams:
      - {url: http://one.example.org/, respond: {body: 1, firstAfter: 5s}}
      - {url: http://two.example.org/, respond: {body: 2, firstAfter: 10s}}
  - name: kept
    request: {path: /kept}
  - name: ahead
    request: {path: /ahead}
  - name: patient
    request: {path: /patient}
    upstreams: [{url: http://words.example.org/v1, respond: {events: [one, two], delay: 1s}}]
  - name: model
    request: {method: POST, path: /model}
    upstreams: [{url: https://api.openai.com/v1/chat/completions, respond: {model: {text: one two three}}}]
"""
DATA_TESTS = """\
sql: CREATE TABLE words (word text); INSERT INTO words VALUES ('one'), ('two');
tests:
  - name: rows
    request: {path: /rows}
    expect: {text: onetwo}
  - name: add
    request: {method: POST, path: /add}
    expect: {database: {sql: 'SELECT word FROM words', rows: [{word: one}, {word: two}, {word: new}]}}
"""

Planted = tuple[Any, str, str, str, str, str]
ERROR_END = "tail = encoder.error_end(error, fields, self._number())"
END = "encoder.end(self.summary(), self._number(), marked=self.ended)"
#: Whose function, what is written there, what is written instead, the test that is swept, a part of what is found.
PLANTED: Final[dict[str, Planted]] = {
    "a cut upstream is taken for a complete one":
        (UpstreamResponse, "_receive", "raise self._fault from error", "pass", "relay", "chunks are not those"),
    "an error status is taken for an answer":
        (http, "is_allowed", "return 200 <= status < upto", "return True", "both", "chunks are not"),
    "a failed stream ends cleanly":
        (LiveSink, "fail", ERROR_END, f"tail = {END}", "relay", "has an end marker"),
    "the end marker follows the error":
        (LiveSink, "fail", ERROR_END, f"{ERROR_END} + {END}", "relay", "has an end marker"),
    "a failed stream is cut without its error":
        (LiveSink, "fail", ERROR_END, "tail = None", "relay", "the client was not told"),
    "a failed stream just stops":
        (LiveSink, "fail", ERROR_END, 'tail = b""', "relay", "as if it was complete"),
    "the status is sent too early":
        (service, "exchange", "value = await timer", "answer._commit_quietly(); value = await timer",
         "relay", "and the status is 200"),
    "all errors have one status":
        (replies, "status_of", "return error.status if", "return 418 if", "relay", "the status is 418"),
    "an upstream is left open":
        (UpstreamResponse, "close", "self._response.close()", "OPEN.append(self)", "relay", "call 1"),
    "a run goes on when its client has left":
        (service.Service, "answer", "if served.outlives and not answer.resumable", "if True", "relay", "goes on"),
    "branches go on when one has failed":
        (concurrency, "stop", "task.cancel()\n    while", "pass\n    while", "both", "call 2 (two.example.org) goes"),
    "`after` runs twice":
        (Run, "finish", "if not each.outcomes", "if len(each.outcomes) < 2", "relay", "`after` ran 2 times"),
    "`after` does not run":
        (service.Service, "after", "if run.has_after", "if False", "relay", "`after` ran 0 times"),
    "`after` takes a client that left for a success":
        (service, "exchange", "if isinstance(error, asyncio.CancelledError):",
         'outcome = "completed"\n                if isinstance(error, asyncio.CancelledError):',
         "relay", "the outcome completed, and"),
    "`after` takes a failure for a success":
        (service, "exchange", 'outcome = ended = "failed"', 'outcome, ended = "completed", "failed"',
         "relay", "the outcome completed, and the run is failed"),
    "the log takes a failure for a success":
        (service, "exchange", "ended = outcome_of(", 'ended = "completed" or outcome_of(', "relay", "got an error"),
    "a resumed stream lacks a chunk":
        (service, "find_resumed", "position.number + 1", "position.number + 2", "kept", "not the first ones"),
    "a resumed stream repeats a chunk":
        (service, "find_resumed", "position.number + 1", "position.number", "kept", "not"),
    "the log of a stream loses a chunk":
        (log.StreamLog, "read", "max(position, self.first)", "max(position + (position == 3), self.first)",
         "kept", "not the first ones"),
    "a gap is not told":
        (streams.LogReader, "_copy_some", "if self.position < stream_log.first:", "if False:",
         "ahead", "chunks, and no gap"),
    "a gap says less than is missing":
        (streams.LogReader, "_copy_some", '"from": self.position,', '"from": self.position + 1,',
         "ahead", "chunks, and not in a gap"),
    "a model's answer that ends early is taken for a whole one":
        (OpenAIReader, "close", "raise lost(self.host)", "pass", "model", "chunks are not those"),
    "a step is tried again though it has sent":
        (concurrency.AttemptSink, "emit", "self.emitted = True", "pass", "again", "repeated after the first chunk"),
    "the idleTimeout of a stream is not kept":
        (deadlines.RunTimer, "_dues", "elif limits.idle:", "elif False:", "patient", "is silent for"),
    "the firstChunkTimeout of a stream is not kept":
        (deadlines.RunTimer, "_dues", "if limits.first_chunk:", "if False:", "patient", "no chunk comes for"),
    "the client gets an upstream's own words":
        (http, "status_error", "describe_status(answer.status)}", "describe_status(answer.status)}: {data!r}",
         "relay", "the client got what is internal"),
    "the client gets a database's own words":
        (replies, "_message", "error.full if dev else error.public", "error.full",
         "rows", "the client got what is internal"),
    "invalid chunks are dropped in silence":
        (Decoder, "_refuse", "", "return", "relay", "has left no trace"),
    "a lost database is taken for an empty one":
        (PostgresDatabase, "_run", "raise failure from (None if cause is failure else cause)", "return []",
         "rows", "chunks are not those"),
    "a statement is repeated that may have been done":
        (PostgresDatabase, "_run", "(repeatable or not touched or ran_surely_not(cause))", "True",
         "add", "the database has 4 rows instead of 3"),
}  # fmt: skip
DATABASE_TESTS: Final = ("rows", "add")
OPEN: list[Any] = []


def plant(patch: pytest.MonkeyPatch, owner: Any, name: str, before: str, after: str) -> None:
    """Replace a part of the source of a function."""
    function = inspect.unwrap(getattr(owner, name))
    source = dedent(inspect.getsource(function))
    if inspect.isclass(owner):
        source = source.replace("super()", f"super({owner.__name__}, self)")
    if not before:  # at the beginning of the body
        head, colon, body = source.partition(":\n")
        changed = f"{head}{colon}    {after}\n{body}"
    else:
        assert source.count(before) == 1, f"{before} does not stand once in {name}"
        changed = source.replace(before, after)
    scope: dict[str, Any] = {}
    code = compile(changed, inspect.getfile(function), "exec", __future__.annotations.compiler_flag)
    function.__globals__.setdefault("OPEN", OPEN)
    exec(code, function.__globals__, scope)  # noqa: S102  (the engine's own source, with one change)
    patch.setattr(owner, name, scope[name])


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two projects with tests, the second one with a database."""
    folders = []
    for name, definitions, tests in (("plain", PROJECT, TESTS), ("data", DATA, DATA_TESTS)):
        folder = tmp_path_factory.mktemp(name)
        (folder / "api.yaml").write_text(definitions)
        (folder / "api.test.yaml").write_text(tests)
        folders.append(folder)
    (folders[1] / "streamstack.yaml").write_text("databases: {main: {url: 'postgresql:///none'}}\n")
    return folders[0], folders[1]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """What the tests run with."""
    session = Session(tmp_path_factory.mktemp("session"), TestServer())
    yield session
    session.close()


def sweep(projects: tuple[Path, Path], name: str, session: Session, fault: str | None = None) -> Result:
    """Sweep one test, with faults of the database where it has one."""
    suite = read_suite([projects[name in DATABASE_TESTS] / "api.test.yaml"])
    assert not suite.failed, suite.findings
    (test,) = [each for each in suite.tests if each.case.name == name]
    session.faults = frozenset({"database", "leave"} if name in DATABASE_TESTS else FAULTS)
    session.fault = fault
    return session.run(test)


@pytest.mark.parametrize("name", ["relay", "again", "both", "kept", "ahead", "patient", "model", *DATABASE_TESTS])
def test_an_engine_without_planted_faults_passes(name: str, projects: tuple[Path, Path], session: Session) -> None:
    """Nothing is found where nothing was planted, under any fault."""
    result = sweep(projects, name, session)
    assert [each.message for each in result.failures] == []
    assert result.faults > 8


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(
    name: str, projects: tuple[Path, Path], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep of a test that passes finds the fault, without an expectation."""
    owner, function, before, after, test, found = PLANTED[name]
    plant(monkeypatch, owner, function, before, after)
    # One fault is enough for what every loss of a database shows.
    only = "lose the database at statement 1" if test == "rows" else None
    result = sweep(projects, test, session, only)
    assert result.faults
    assert any(found in each.message for each in result.failures), result.failures


def test_a_failure_names_the_command_that_repeats_it(
    projects: tuple[Path, Path], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fault, alone, leads to the same failure."""
    plant(monkeypatch, LiveSink, "fail", ERROR_END, "tail = None")
    failure = sweep(projects, "relay", session).failures[-1]
    (command,) = failure.diff
    *_, option, fault = shlex.split(command)
    assert option == "--fault"
    again = sweep(projects, "relay", session, fault)
    assert (again.failures, again.faults) == ((failure,), 1)

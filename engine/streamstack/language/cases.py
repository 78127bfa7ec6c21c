"""Tests of definitions as data: what a `*.test.yaml` file says, once it is read.

All durations are seconds. Places where the author may write an expected value hold plain values, lists and
dictionaries; a binding in them (`<< value | length > 3 >>`) is an `Expected`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from streamstack.errors import Mark
from streamstack.language.nodes import Node

#: The faults that a sweep can inject; `faults: all` and `--faults` mean all of them.
FAULTS = (
    "refused",  # an upstream refuses the connection
    "status",  # an upstream answers 429, 500
    "cut",  # an upstream's answer ends after each event, and inside one; a model's also in good order
    "stalled",  # an upstream stops sending, and keeps the connection
    "invalid",  # an upstream sends an event that can't be read
    "leave",  # the client leaves after each chunk
    "slow",  # the client reads slowly
    "database",  # the database is lost at each statement
    "mail",  # the mail server rejects each mail, and is lost while it takes it
    "resume",  # the client comes back after each chunk, also when older chunks are no longer stored
)


@dataclass(frozen=True, slots=True)
class Expected:
    """A binding where a value is expected.

    ``matches`` takes the actual value, which the binding sees as `value`: where the binding gives true or false, that
    is the answer; any other value has to be equal.
    """

    text: str
    mark: Mark
    matches: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Place:
    """A number of events, chunks, bytes or characters of an upstream's answer, and whether it lies inside the next."""

    unit: Literal["events", "chunks", "bytes", "characters"]
    count: int
    inside: Literal["", "event", "character"] = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is sent at once, ``after`` the previous piece or the head; ``binary`` are a WebSocket's bytes."""

    data: bytes
    after: float = 0.0
    binary: bool = False


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A model's answer, encoded in the protocol of the provider that is asked.

    ``first_after`` is the time to the first piece, ``every`` that between pieces. ``by`` is characters or words, of
    which ``size`` make a piece.
    """

    text: str = ""
    by: str = "words"
    size: int = 1
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()  # each {name, arguments, id}
    usage: Mapping[str, int] = field(default_factory=dict)  # {inputTokens, outputTokens}
    finish_reason: str | None = None
    first_after: float = 0.0
    every: float = 0.0


@dataclass(frozen=True, slots=True)
class Respond:
    """One answer of an upstream. At most one of ``body``, ``pieces``, ``model`` and ``messages`` is given.

    Args:
        body: The whole body; that of a `file:` as well, which is sent event by event or line by line with ``delay``.
        pieces: The body piece by piece, each with its time.
        messages: What a WebSocket sends: texts and bytes, each with its time.
        delay: Seconds between the events or lines of ``body``.
        first_after: Seconds before the head of the answer.
        cut_after: Where the connection ends without the end of the answer.
        stall_after: Where nothing more comes, though the connection stays.
        reset: A cut is a reset of the connection (RST), not its end.
        refuse: The connection is refused.
        invalid_after: How many events are followed by one that can't be read: a fault of sweeps only.
        end_after: Where the answer ends early, in good order as HTTP has it: a fault of sweeps only.
    """

    mark: Mark
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    pieces: tuple[Piece, ...] | None = None
    model: ModelAnswer | None = None
    messages: tuple[Piece, ...] | None = None
    delay: float = 0.0
    first_after: float = 0.0
    cut_after: Place | None = None
    stall_after: Place | None = None
    reset: bool = False
    refuse: bool = False
    invalid_after: int | None = None
    end_after: Place | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests an upstream answers. ``url`` may hold `*` for any text; None matches everything."""

    method: str | None = None
    url: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """An upstream: its answers in the order of the calls, the last of them for all further calls."""

    mark: Mark
    match: Match
    responds: tuple[Respond, ...]


@dataclass(frozen=True, slots=True)
class CaseRequest:
    """A request to the project. ``auth`` are the claims of a token that is minted for the endpoint's authentication.

    ``bind`` returns the path where that has bindings, given the answers so far; ``path`` is then as it is written.
    """

    mark: Mark
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    query: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = None  # encoded, with its Content-Type among the headers
    pieces: tuple[Piece, ...] | None = None  # a body that is sent in pieces, with times
    auth: Mapping[str, Any] | None = None
    messages: tuple[Piece, ...] | None = None  # what is sent over a WebSocket; None: it is an HTTP request
    bind: Callable[[Sequence[Mapping[str, Any]]], str] | None = None
    turn: CaseTurn | None = None


@dataclass(frozen=True, slots=True)
class CaseTurn:
    """What a test does in place of a request: it runs a tick of a ``task``, or waits some seconds.

    ``at`` is the time of the tick, now if it is None; ``event`` the message that starts the task.
    """

    task: str = ""
    at: datetime | None = None
    event: Any = None
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class CaseClient:
    """How the client behaves. Counts are of chunks."""

    leave_after: int | None = None  # closes the connection; 0: as soon as the request is sent
    stop_after: int | None = None  # sends DELETE /_streams/{id}, and reads on
    resume_after: int | None = None  # closes the connection and resumes with Last-Event-ID
    resume_delay: float = 0.0  # between leaving and coming back
    read_delay: float = 0.0  # between reads
    close_after: float | None = None  # closes the WebSocket, so long after its last message
    rating: Mapping[str, Any] | None = None  # the body of `POST /_runs/{run}/rating`, once the answer has come
    background: bool = False  # the next request is sent while this one is still read


@dataclass(frozen=True, slots=True)
class ExpectedCall:
    """Calls to an upstream that are expected; ``count`` None is at least one."""

    mark: Mark
    url: str
    method: str | None = None
    count: int | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    closed_early: bool | None = None  # the server closed the connection before the answer's end


@dataclass(frozen=True, slots=True)
class Expect:
    """What is expected; None is not looked at.

    ``marks`` has the place of each key that was written, of each chunk (`chunks.0`) and of its keys (`chunks.0.at`).
    """

    mark: Mark
    marks: Mapping[str, Mark] = field(default_factory=dict)
    status: int | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)  # null: absent
    text: Any = None  # the contents of all chunks, joined
    body: Any = None  # the exact text of the answer's body, or the value of a JSON one
    chunks: Any = None  # list: contents, or objects with some of content, event, id, metadata, at
    events: Any = None  # list of names, in the order they came
    error: Any = None  # {code, message, status}; None when none is expected and none was written
    done: Any = None  # the metadata of the end marker, or true/false
    close: Any = None  # the close code of a WebSocket
    streamed: bool | None = None  # the first chunk left before the last upstream's answer had ended
    elapsed: float | None = None
    outcome: str | None = None  # completed, failed, cancelled
    calls: tuple[ExpectedCall, ...] | None = None  # in order
    database: tuple[ExpectedRows, ...] | None = None
    mails: tuple[ExpectedMail, ...] | None = None  # all that are sent, in order
    published: tuple[ExpectedMessage, ...] | None = None  # all that definitions publish, in order
    log: tuple[Mapping[str, Any], ...] | None = None  # lines that must be among those logged


@dataclass(frozen=True, slots=True)
class ExpectedMail:
    """A mail that is expected to be sent; ``parts`` are those that are looked at, by name."""

    mark: Mark
    parts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExpectedMessage:
    """A message that is expected to be published to a channel; ``parts`` are those that are looked at, by name."""

    mark: Mark
    parts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Publication:
    """A message that the test publishes, ``after`` the request or the previous one."""

    mark: Mark
    channel: str
    content: Any = None
    event: str | None = None
    key: Any = None
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """Rows that a query gives when the test is over."""

    mark: Mark
    sql: str
    rows: Any
    database: str | None = None  # None: the only one


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, how its client behaves, and what is expected of the answer.

    ``sql`` is run before it. ``publish`` are messages of the test itself, while the client reads.
    """

    request: CaseRequest
    client: CaseClient
    expect: Expect
    sql: str = ""
    publish: tuple[Publication, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One test. Exchanges follow each other; most tests have one."""

    name: str
    mark: Mark
    node: Node
    exchanges: tuple[Exchange, ...]
    upstreams: tuple[Upstream, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)  # by table, before the test
    sql: str = ""  # run before the test
    now: datetime | None = None  # where the clock starts
    seed: int = 0
    real_time: bool = False
    tasks: bool | tuple[str, ...] = False  # tasks that run on their schedules: all, or those with these names
    experiments: Mapping[str, str] = field(default_factory=dict)  # the variant that all callers get, by experiment
    faults: frozenset[str] | None = None  # empty: none, also of those that are asked for


@dataclass(frozen=True, slots=True)
class CaseFile:
    """The tests of one file."""

    path: Path
    source: str
    tests: tuple[Case, ...]

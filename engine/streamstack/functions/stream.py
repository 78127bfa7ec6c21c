"""The Streaming response family: chunks, splitting and pacing, the end marker, status and headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamstack.language import kinds
from streamstack.language.definition import Arguments, Effects, Example, Parameter, function
from streamstack.language.graph import Node, values_in
from streamstack.language.kinds import Kind
from streamstack.runtime.compiler import Code, argument_source, source_of, value_of, values_among
from streamstack.runtime.pace import delay, pacer, resume
from streamstack.runtime.splitters import split_content
from streamstack.spec import Bound, Group

SPLITS = ("characters", "words", "sentences", "lines", "records")
PACES = ("burst", "fixed", "adaptive", "natural")


@function(
    "stream",
    Parameter(
        "content",
        Bound(not_null=True),
        "Content of the chunk: a text, or any value, which is sent as JSON.",
        required=True,
        main=True,
    ),
    Parameter("event", Bound(Kind.TEXT), "Event name, for clients that handle several kinds of events."),
    Parameter("id", Bound(Kind.TEXT), "Id of the chunk. Default: its index, from 0."),
    Parameter("metadata", Bound(), "Additional data about the chunk. Null omits it."),
    Parameter(
        "delay",
        Bound(Kind.DURATION, minimum=0),
        "Minimum time between this chunk and the previous one. The first chunk is sent immediately.",
    ),
    Parameter(
        "split",
        Group(
            (
                Parameter("by", Bound(Kind.TEXT, choices=SPLITS), "Unit to split by.", required=True),
                Parameter("size", Bound(Kind.INTEGER, minimum=1), "Number of units per chunk.", default=1),
            )
        ),
        "Split the content into several chunks. Their concatenation is the content.",
    ),
    Parameter(
        "pace",
        Group(
            (
                Parameter(
                    "mode",
                    Bound(Kind.TEXT, choices=PACES),
                    "`burst`: no delay. `fixed`: constant delay. `adaptive`: longer delay for longer chunks. "
                    "`natural`: varying delay, as if a person were typing.",
                    default="fixed",
                ),
                Parameter("interval", Bound(Kind.DURATION, minimum=0), "Time between chunks.", default=0.05),
                Parameter(
                    "jitter",
                    Bound(Kind.NUMBER, minimum=0, maximum=1),
                    "Random variation of the interval, 0 to 1. Default: 0.3 for `natural`, 0 for the others.",
                ),
            )
        ),
        "Timing of the chunks.",
    ),
    effects=Effects(emits=True),
    examples=[
        Example("send a text", "- stream: Hello", chunks=("Hello",)),
        Example(
            "split into words",
            "- stream: {content: one two three, split: {by: words, size: 2}}",
            chunks=("one two", " three"),
        ),
        Example(
            "send at a fixed pace",
            "- stream: {content: abcd, split: {by: characters, size: 2}, pace: {mode: fixed, interval: 5ms}}",
            chunks=("ab", "cd"),
        ),
        Example(
            "add metadata",
            "- stream: {content: {n: 1}, event: row, metadata: {chunkIndex: << stream.count >>}}",
            chunks=({"n": 1},),
        ),
    ],
    compiled=True,
)
def stream(node: Node, code: Code) -> None:
    """Send a chunk to the client, or several chunks with `split`.

    Chunks are flushed when the run waits for anything. Chunks emitted without waiting in between are sent
    together. A slow client slows the run down (backpressure). With `split`, `metadata` is evaluated for each
    chunk before the chunk is counted: `stream.count` is its index.
    """
    split, pace = node.arguments.get("split"), node.arguments.get("pace")
    pacer_name = None
    if isinstance(pace, Arguments):
        pacer_name = code.fresh("pace")
        options = ", ".join(_group(code, node, "pace", pace, name) for name in ("mode", "interval", "jitter"))
        key = code.literal(f"{code.title} {pacer_name}")
        code.line(f"{pacer_name} = {code.constant(pacer)}(run, {key}, {options})", *values_in(pace))
    if not isinstance(split, Arguments):
        if pacer_name is None:
            _emit(code, node, _source(code, node, "content"), _source(code, node, "event"), pacer_name)
        else:
            content = code.fresh("content")
            _assign(code, node, content, "content")
            _emit(code, node, content, _source(code, node, "event"), pacer_name)
        return
    pieces, event, piece = code.fresh("pieces"), code.fresh("event"), code.fresh("piece")
    by, size = (_group(code, node, "split", split, name) for name in ("by", "size"))
    code.line(f"{pieces} = {code.constant(split_content)}(")
    code.line(f" {source_of(code, node, 'content')},", *values_among(node, "content"))
    code.line(f" {by}, {size})", *values_in(split))
    _assign(code, node, event, "event")
    with code.indented(f"for {piece} in {pieces}:", blocks=1), code.looping():
        code.line("if clock.perf_counter() > run.slice_ends: await run.yield_to_loop()")
        _emit(code, node, piece, event, pacer_name)


def _group(code: Code, node: Node, group: str, arguments: Arguments, name: str) -> str:
    """Return source for a parameter of `split` or `pace`, or its default."""
    declared = node.step.function.by_name[group].type
    assert isinstance(declared, Group)
    parameter = next(inner for inner in declared.parameters if inner.name == name)
    argument = arguments.get(name)
    if argument is None:
        return code.literal(parameter.default)
    return argument_source(code, node, parameter.type, argument, parameter)


def _source(code: Code, node: Node, name: str) -> tuple[str, str]:
    return name, source_of(code, node, name)


def _assign(code: Code, node: Node, target: str, name: str) -> None:
    code.line(f"{target} = {source_of(code, node, name)}", *values_among(node, name))


def _emit(
    code: Code, node: Node, content: str | tuple[str, str], event: str | tuple[str, str], pacer_name: str | None
) -> None:
    """Write the emission of one chunk; content and event are Python names, or parameters to be evaluated in place."""
    if pacer_name is not None:
        waiting = code.fresh("waiting")
        code.line(f"{waiting} = {pacer_name}.schedule(run, {content})")
        code.line(f"if {waiting} is not None: await {waiting}; {code.constant(resume)}(run)")
    pause = value_of(node, "delay")
    if pause is not None:
        seconds = code.fresh("seconds")
        code.line(f"{seconds} = {source_of(code, node, 'delay')}", pause)
        code.line(f"if {seconds}: await {code.constant(delay)}(run, {seconds})")
    code.line("if emit(")
    for part in (content, event, _source(code, node, "id"), _source(code, node, "metadata")):
        if isinstance(part, str):
            code.line(f" {part},")
        else:
            name, source = part
            code.line(f" {source},", *values_among(node, name))
    code.line("): await drain()")
    if code.notes_sending and pause is None and pacer_name is None:
        code.line("run.sent_at = clock.monotonic()")


@function(
    "done",
    Parameter("content", Bound(), "Content of the end marker, such as [DONE]. Default: the number of chunks."),
    Parameter("metadata", Bound(), "Final metadata, such as completed, totalChunks, processingTime.", main=True),
    effects=Effects(emits=True, closes=True),
    examples=[
        Example("end a stream", '- stream: a\n- done: {content: "[DONE]", metadata: {completed: true}}', chunks=("a",))
    ],
    compiled=True,
)
def done(node: Node, code: Code) -> None:
    """Send the end marker of the stream. No chunks can follow.

    In SSE the end marker is `event: done`, in NDJSON a last line `{"done": ...}`. Text and CSV have no end
    marker.
    """
    content = value_of(node, "content")
    code.line("sink.done(")
    value = source_of(code, node, "content") if content is not None else "MISSING"
    code.line(f" {value},", *values_among(node, "content"))
    code.line(f" {source_of(code, node, 'metadata')},", *values_among(node, "metadata"))
    code.line(")")


def _no_cookies(value: Any) -> tuple[str, str] | None:
    """Return the problem with a constant for `cookies` of the wrong type, if there is one."""
    if value is None or isinstance(value, (dict, list)):
        return None
    return "a mapping or a list", "write a mapping, such as {name: value}"


@function(
    "respond",
    Parameter("status", Bound(Kind.INTEGER, minimum=200, maximum=599), "HTTP status."),
    Parameter(
        "headers",
        Bound(Kind.HEADERS),
        "Response headers by name: a text, or a list of values. If a whole object is bound, such as `<< "
        "reply.headers >>`, its connection, framing and encoding headers are omitted.",
    ),
    Parameter(
        "cookies",
        Bound(refuses=_no_cookies),
        "Cookies by name: a text, or {value, path, domain, maxAge, httpOnly, secure, sameSite}. Or a list of "
        '`Set-Cookie` texts, such as `<< reply.headers["set-cookie"] >>` of an upstream.',
    ),
    effects=Effects(opens=True),
    examples=[
        Example(
            "set a status and a header",
            "- respond: {status: 201, headers: {X-Kind: new}}\n- stream: ok",
            chunks=("ok",),
        )
    ],
    compiled=True,
)
def respond(node: Node, code: Code) -> None:
    """Set the status, headers and cookies of the response. Allowed only before the first chunk."""
    code.line("sink.respond(")
    code.line(f" {source_of(code, node, 'status')},", *values_among(node, "status"))
    headers, cookies = (source_of(code, node, name) for name in ("headers", "cookies"))
    if node.arguments.get("cookies") is None:
        code.line(f" {headers} or {{}}, {{}},", *values_among(node, "headers"))
    else:
        code.line(
            f" *{code.constant(_with_cookies)}({headers}, {cookies}),",
            *values_among(node, "headers"),
            *values_among(node, "cookies"),
        )
    code.line(")")


def _with_cookies(headers: Mapping[str, Any] | None, cookies: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return headers and cookies by name; cookies that are whole `Set-Cookie` texts become headers.

    Raises RunError ``template`` for what is neither an object nor a list.
    """
    if isinstance(cookies, list):
        headers = headers or {}
        # Of the same class: what was forwarded stays known as such.
        return type(headers)({**headers, "Set-Cookie": cookies}), {}  # type: ignore[call-arg]
    return headers or {}, kinds.mapping(cookies, "cookies") or {}


FUNCTIONS = (stream, done, respond)

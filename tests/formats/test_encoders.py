"""Encoders alone: what their specs claim, chunks that are taken back, events that are cut."""

from __future__ import annotations

from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.formats import BY_MEDIA_TYPE, BY_NAME, DIALECTS, FORMATS, NAMES
from streamstack.formats.spec import Encoder, EncoderOptions, Format, ResponseContext

STREAM = "hXlR9ReFVmu4TnF0pXY5Sw"
SUMMARY = {"chunks": 1, "elapsedMs": 5}
TOLD = {"code": "timeout", "message": "Too late.", "run": "r"}
EVERY = pytest.mark.parametrize("spec", FORMATS, ids=lambda spec: spec.name)


def encoder_of(spec: Format, stream: str = "", **options: Any) -> Encoder:
    """Return an encoder of a response; of a dialect's stream, where the dialect has both."""
    body = b'{"stream": true}' if spec.dialect else b""
    return spec.encoder(EncoderOptions(**options), ResponseContext("0123456789abcdef", stream=stream, body=body))


def whole_of(encoder: Encoder, *chunks: bytes) -> bytes:
    """Return a body: chunks, then the end."""
    return b"".join(chunks) + encoder.end(SUMMARY, len(chunks), marked=False)


@EVERY
def test_claims(spec: Format) -> None:
    """What a spec says of its format is what its encoder does."""
    encoder = encoder_of(spec)
    assert encoder.whole is spec.whole
    # A WebSocket has pings, which the format does not encode.
    assert bool(encoder.heartbeat()) is (spec.heartbeats and not spec.upgrade)
    assert bool(encoder.gap({"dropped": 3}, 1)) is spec.gaps

    def one(chunk: dict[str, Any] | None = None, **options: Any) -> bytes:
        fresh = encoder_of(spec, **options)
        given: dict[str, Any] = {"event": None, "id": None, "metadata": None} | (chunk or {})
        return whole_of(fresh, fresh.chunk("a", number=7, **given))

    plain = one()
    for field, value in {"event": "e", "id": "i", "metadata": {"m": 1}}.items():
        assert (one({field: value}) != plain) is (field in spec.carries), field
    assert (one(ids=False) != plain) is spec.numbered
    assert (one(done=False) != plain) is spec.done_event

    def marked(content: Any, metadata: Any) -> bytes:
        fresh = encoder_of(spec)
        parts = fresh.chunk("a", None, None, None, 0) + fresh.done(content, metadata, SUMMARY, 1)
        return parts + fresh.end(SUMMARY, 2, marked=True)

    assert (marked("x", None) != marked("y", None)) is ("done.content" in spec.carries)
    assert (marked("x", 1) != marked("x", 2)) is ("done.metadata" in spec.carries)
    assert (one(separator="|", end="!") == b"|a!") is spec.separated


@EVERY
def test_a_resumable_chunk_has_the_id_of_its_stream(spec: Format) -> None:
    """Chunks and the stream's own events have ids that say which they are; an author's id is refused."""
    if not spec.resumable:
        assert STREAM.encode() not in encoder_of(spec, STREAM).chunk("a", None, None, None, 3)
        return
    encoder = encoder_of(spec, STREAM)
    for number, data in enumerate(
        (
            encoder.chunk("a", None, None, None, 0),
            encoder.chunk("b", "e", None, {"m": 1}, 1),
            encoder.gap({"from": 0, "to": 2}, 2),
            encoder.error_end(RunError("timeout", "late"), TOLD, 3) or b"",
            encoder.done("bye", None, SUMMARY, 4),
        )
    ):
        assert f"{STREAM}/{number}".encode() in data
    with pytest.raises(RunError, match="has its own id"):
        encoder.chunk("c", None, "mine", None, 5)


@EVERY
def test_undo(spec: Format) -> None:
    """A chunk that is taken back leaves no trace: what follows is as without it."""
    first: Any
    second: Any
    first, second = ("a", "b") if spec.dialect else ({"x": 1}, {"y": 2})
    if spec.name == "bytes":
        first, second = b"a", b"b"
    encoder, other = encoder_of(spec), encoder_of(spec)
    encoder.chunk(first, None, None, None, 0)
    encoder.undo()
    assert encoder.held == other.held
    assert whole_of(encoder, encoder.chunk(second, None, None, None, 0)) == whole_of(
        other, other.chunk(second, None, None, None, 0)
    )


@pytest.mark.parametrize("name", DIALECTS)
def test_undo_in_a_dialect(name: str) -> None:
    """It gives back what was begun with it: a call, and the arguments that its end needs."""
    call = {"type": "toolCall", "index": 0, "id": "c", "name": "f", "arguments": '{"a":1'}
    rest = {"type": "toolCall", "index": 0, "id": "c", "name": "f", "arguments": "}"}
    for body in (b"{}", b'{"stream": true}'):
        bodies = []
        for taken_back in (None, call | {"id": "d"}, rest | {"arguments": "x"}, {"type": "text"}):
            encoder = BY_NAME[name].encoder(EncoderOptions(), ResponseContext("0" * 32, body=body))
            parts = [encoder.chunk(call, None, None, None, 0)]
            if taken_back is not None:
                extra = "t" if taken_back["type"] == "text" else taken_back
                encoder.chunk(extra, None, None, None, 1)
                encoder.undo()
            parts.append(encoder.chunk(rest, None, None, None, 1))
            bodies.append(whole_of(encoder, *parts))
        assert bodies[1:] == bodies[:1] * 3


def test_a_cut_event_has_no_id() -> None:
    """Wherever a line ends, an id that was read belongs to an event whose data was read before it."""
    for stream in ("", STREAM):
        encoder = encoder_of(BY_NAME["sse"], stream, retry=10)
        body = encoder.opening() + b"".join(
            (
                encoder.chunk("one\ntwo", "tick", None, None, 0),
                encoder.chunk({"n": 1}, None, None, {"m": 1}, 1),
                encoder.done("", None, SUMMARY, 2),
            )
        )
        for event in body.decode().split("\n\n")[:-1]:
            fields = [line.partition(":")[0] for line in event.split("\n")]
            assert "id" not in fields[:-1]
            assert fields[-1] == "id" or fields == ["event", "data"]


def test_names() -> None:
    """Every name, and every media type, is one format's; an alias can't be named."""
    assert len({each.name for each in FORMATS}) == len(FORMATS) == len(BY_NAME)
    assert sum(len(each.media_types) for each in FORMATS) == len(BY_MEDIA_TYPE)
    assert "jsonl" not in NAMES
    assert next(iter(BY_MEDIA_TYPE.values())).name == "sse"

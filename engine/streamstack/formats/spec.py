"""What a format is: one spec, and an encoder that turns the chunks of a response into bytes.

Encoders are pure: they know no request, no socket and no HTTP. What sends their bytes is in `server`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from streamstack.errors import RunError
from streamstack.formats.schemas import FormatSchemas
from streamstack.language.values import MISSING

#: Event names that an encoder remembers; an author who uses more only has slower chunks.
REMEMBERED: Final = 256

#: What ends a line of text: in server-sent events each begins another line of `data`.
LINE_BREAKS: Final = re.compile(r"\r\n|\r|\n")


class Shapes(Protocol):
    """Which events carry `{"content", "metadata"}`: decided when the definition is loaded."""

    def has_metadata(self, event: str | None) -> bool:
        """Whether chunks of this event name are objects with metadata."""


class NoShapes:
    """The shapes of a stack that gives no metadata."""

    def has_metadata(self, event: str | None) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """How an endpoint wants a format written, the same for all its responses.

    ``retry`` is milliseconds. ``separator`` stands between the chunks of a text, ``end`` after them. ``cache`` is what
    an encoder has learned of event names, for the responses to come.
    """

    shapes: Shapes = field(default_factory=NoShapes)
    ids: bool = True
    retry: int | None = None
    done: bool = True
    separator: str = ""
    end: str = ""
    cache: dict[Any, Any] = field(default_factory=dict)


class ResponseContext(NamedTuple):
    """What an encoder has to know of the one response that it writes.

    ``stream`` is the id of a resumable stream, "" of any other: each of its chunks and each event of its own then has
    the id `<stream>/<number>`. ``body`` is the body of the request: in a dialect it asks for a model, and for a stream.
    """

    run: str = ""
    started: datetime = datetime.fromtimestamp(0, UTC)
    stream: str = ""
    body: bytes = b""


class Encoder(ABC):
    """Encodes one response.

    ``number`` is the index of what is encoded: chunks and the stream's own events are counted together.
    """

    #: Whether it keeps all chunks, and `end` returns the whole body.
    whole: bool = False

    __slots__ = ("held", "options", "response")

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        self.options = options
        self.response = response
        self.held = 0  # bytes that it keeps until the end, where it is whole

    def opening(self) -> bytes:
        """Return what stands before the first bytes, in one piece with them."""
        return b""

    @abstractmethod
    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        """Return a chunk.

        Raises RunError ``template`` or ``not-in-dialect`` for what the format can't carry; then nothing has changed.
        """

    def shared_chunk(self, content: Any, event: Any, id: Any) -> tuple[bytes, bool] | None:  # noqa: A002
        """Return what all responses with these options have of a chunk, and whether it lacks its number.

        None for a format whose chunks have nothing in common. Raises as `chunk` does.
        """
        return None

    def numbered(self, data: bytes, number: int) -> bytes:
        """Return a shared chunk with its number."""
        return data

    def undo(self) -> None:  # noqa: B027  (most encoders remember nothing of a chunk)
        """Forget the last chunk: it is not sent."""

    def done(self, content: Any, metadata: Any, summary: Mapping[str, Any], number: int) -> bytes:
        """Return the author's end marker; ``summary`` has the figures of the stream."""
        return b""

    def end(self, summary: Mapping[str, Any], number: int, *, marked: bool) -> bytes:
        """Return the last bytes of a response that ended well; ``marked``: after the author's `done`."""
        return b""

    def error_end(self, error: RunError, fields: Mapping[str, Any], number: int) -> bytes | None:
        """Return the last bytes of a failed response; None where the format can't express it.

        ``fields`` is what clients may know of the error: `code`, `message`, `run`.
        """
        return None

    @property
    def ends_alike(self) -> bool:
        """Whether a good end has no mark, so that a failed response must look cut short even after `error_end`."""
        return False

    def problem(self, error: RunError, fields: Mapping[str, Any]) -> bytes | None:
        """Return the JSON body of an error before the first byte; None for a problem document (RFC 9457)."""
        return None

    def gap(self, missing: Mapping[str, Any], number: int) -> bytes:
        """Return what tells that chunks are missing: `{"dropped": n}`, or `{"from": n, "to": n}`."""
        return b""

    def heartbeat(self) -> bytes:
        """Return bytes that no reader takes for a chunk; none where the format has no room for any."""
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format: everything that is known of it without a chunk.

    Args:
        name: what `streaming.format` calls it.
        content_type: the Content-Type it is sent as.
        encoder: makes the encoder of one response.
        media_types: what an Accept header chooses it by; empty: a request can't choose it.
        allowed_types: the media types that an author's Content-Type may name; empty: any but an event stream.
        headers: further headers of its responses.
        carries: what it has room for beside content: `event`, `id` and `metadata` of chunks, `done.content` and
            `done.metadata` of the author's end marker.
        raw_json: content may be JSON text that is ready made (`orjson.Fragment`).
        numbered: chunks get their index as id, unless the author says otherwise.
        done_event: there is an event at the end, which `streaming.done` can leave out.
        separated: `streaming.separator` stands between its chunks, and `streaming.end` after them.
        heartbeats: it has room for heartbeats.
        gaps: it can tell that chunks are missing.
        resumable: a client can resume it by the id of a chunk.
        whole: it is sent in one piece, at the end.
        dialect: it is a model provider's protocol: it carries text and the items of `llm.chat`, and reads the body.
        upgrade: it leaves HTTP: a request asks for it with `Upgrade: websocket`.
        id_header: the response header that an SDK takes the request's id from.
        alias_of: the format that it is another media type of; `streaming.format` doesn't name it.
        schemas: what a dialect sends and reads; None for the formats that carry any content.
    """

    name: str
    content_type: str
    encoder: Callable[[EncoderOptions, ResponseContext], Encoder]
    media_types: tuple[str, ...] = ()
    allowed_types: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    carries: frozenset[str] = frozenset()
    raw_json: bool = False
    numbered: bool = False
    done_event: bool = False
    separated: bool = False
    heartbeats: bool = False
    gaps: bool = False
    resumable: bool = False
    whole: bool = False
    dialect: bool = False
    upgrade: bool = False
    id_header: bytes = b""
    alias_of: str = ""
    schemas: FormatSchemas | None = None


def end_marker(content: Any, metadata: Any, summary: Mapping[str, Any]) -> Any:
    """Return the data of the author's end marker.

    Its content as it is; with metadata beside it, both in one object; without content, the summary.
    """
    if content is MISSING or content is None:
        return summarize(metadata, summary)
    if metadata is None:
        return content
    return {"content": content, "metadata": metadata}


def summarize(metadata: Any, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the end of a stream tells: its figures, and the author's metadata."""
    if isinstance(metadata, Mapping):
        return {**summary, **metadata}
    if metadata is not None:
        return {**summary, "metadata": metadata}
    return dict(summary)


def to_utf8(text: str) -> bytes:
    """Return text as UTF-8.

    Halves of a surrogate pair that belong together are joined; a lone one becomes U+FFFD.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def refuse_id() -> RunError:
    """Return the error of a chunk of a resumable stream that has an id of its own."""
    return RunError(
        "template",
        "the chunk has its own id, but clients resume with the ids that `resume` assigns: "
        "take `id` out of the step `stream`",
    )

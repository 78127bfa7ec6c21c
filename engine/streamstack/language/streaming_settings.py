"""The keys of `streaming:`, on an endpoint and as defaults in streamstack.yaml."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from streamstack.errors import Diagnostic
from streamstack.formats import FORMATS, NAMES
from streamstack.language.nodes import Mapping
from streamstack.spec import Constant, Kind, Section, SettingsReader, fields_of, group_of, setting

#: What becomes of a slow reader.
SLOW_CLIENTS: Final = ("block", "disconnect", "dropOldest")
#: The formats that can tell a reader of dropped chunks, or that have no slow readers (`json` is sent whole).
TELLING: Final = ("auto", *(each.name for each in FORMATS if each.gaps or each.whole))
#: Formats of which a reader can come back: the others have no place for an id.
RESUMABLE: Final = ("auto", *(each.name for each in FORMATS if each.resumable and not each.alias_of))

_TIME: Final = Constant(Kind.DURATION, off=True)
_SIZE: Final = Constant(Kind.SIZE, positive=True)
_FLAG: Final = Constant(Kind.BOOLEAN)
_MAX_DURATION: Final = Section("maxDuration", "Maximum duration of a stream.", short="limit")
_SLOW_CLIENT: Final = Section(
    "slowClient",
    "What happens when a client reads too slowly: the run waits, the client is disconnected, or chunks are dropped.",
    short="mode",
)


@dataclass(frozen=True, slots=True)
class Resume:
    """Limits of the stored part of a resumable stream: seconds, chunks, bytes."""

    keep: float = setting(
        Constant(Kind.DURATION, positive=True, maximum=86_400.0),
        "Time that a run waits for a disconnected client, and that a finished stream can still be resumed.",
        300.0,
    )
    max_chunks: int = setting(
        Constant(Kind.INTEGER, 1, 1_000_000), "Maximum number of stored chunks; the oldest are dropped.", 10_000
    )
    max_size: int = setting(_SIZE, "Maximum size of all stored chunks; the oldest are dropped.", 16 * 1024 * 1024)


@dataclass(frozen=True, slots=True)
class Streaming:
    """How a stream lives (LANGUAGE: the wire). Times are in seconds, 0 is never; sizes in bytes.

    ``jitter`` is the part (0 to 1) by which `maxDuration` may be shorter, ``grace`` how long a reader's buffer may be
    full before `slowClient: disconnect` cuts it off. ``separator`` and ``end`` are for text.
    """

    format: str = setting(Constant(choices=NAMES), "Output format. `auto` follows the request's Accept header.", "auto")
    keep_alive: float = setting(
        _TIME, "Interval of heartbeats while nothing is sent. 0 or `false` disables them.", 15.0
    )
    first_chunk_timeout: float = setting(_TIME, "Time-out for the first chunk. 0 or `false` disables it.", 60.0)
    idle_timeout: float = setting(_TIME, "Time-out between two chunks. 0 or `false` disables it.", 300.0)
    max_duration: float = setting(_TIME, "Maximum duration of a stream.", 3600.0, key="limit", within=_MAX_DURATION)
    max_bytes: int | None = setting(_SIZE, "Maximum number of bytes that one response may send.", None)
    on_disconnect: str = setting(
        Constant(choices=("cancel", "finish")), "What happens to the run when the client disconnects.", "cancel"
    )
    resume: Resume | None = setting(
        group_of(Resume, switch="both", example="{keep: 5m, maxChunks: 10000}"),
        "Resumable streams: `true` for the defaults, or a mapping.",
        None,
    )
    slow_client: str = setting(
        Constant(choices=SLOW_CLIENTS),
        "`block` makes the run wait, `disconnect` closes the connection, `dropOldest` drops chunks.",
        "block",
        key="mode",
        within=_SLOW_CLIENT,
    )
    buffer: int = setting(_SIZE, "Maximum size of the send buffer of one client.", 256 * 1024)
    compress: bool = setting(_FLAG, "Compress the response with gzip for clients that accept it.", False)
    done: bool = setting(_FLAG, "End an SSE stream with a `done` event.", True)
    ids: bool = setting(_FLAG, "Add ids to SSE events.", True)
    separator: str = setting(Constant(verbatim=True), "Text between two chunks, in the format `text`.", "")
    end: str = setting(Constant(verbatim=True), "Text after the last chunk, in the format `text`.", "")
    jitter: float = setting(
        Constant(Kind.PART),
        "Random fraction by which the duration is shortened, so that clients do not all reconnect at once.",
        0.1,
        within=_MAX_DURATION,
    )
    grace: float = setting(
        Constant(Kind.DURATION, off=True, positive=True),
        "Time that the send buffer may be full before the client is disconnected.",
        5.0,
        within=_SLOW_CLIENT,
    )


def parse_streaming(node: Mapping, defaults: Streaming) -> tuple[Streaming, list[Diagnostic]]:
    """Return the defaults with what an endpoint's `streaming:` changes, and what is wrong with it.

    A value that is wrong leaves its default.
    """
    findings: list[Diagnostic] = []
    reader = SettingsReader(findings, of_definition=True)
    values = reader.values(fields_of(Streaming), node, "streaming")
    _check_together(reader, node, values, defaults)
    return replace(defaults, **values), findings


def check_streaming(reader: SettingsReader, node: Mapping, values: dict[str, Any], _: str) -> bool:
    """Check what of the project's defaults goes together."""
    _check_together(reader, node, values, Streaming())
    return True


def _check_together(reader: SettingsReader, node: Mapping, values: dict[str, Any], defaults: Streaming) -> None:
    """Report what does not go together; take the project's `resume` out where only the format speaks against it."""
    made = replace(defaults, **values)
    marks = {key.text: value.mark for key, value in node.items}
    # As a default of the project it is for the endpoints whose format can tell.
    if made.slow_client == "dropOldest" and made.format not in TELLING and "slowClient" in marks:
        message = (
            f"`slowClient`: `dropOldest` leaves chunks out, and `format: {made.format}` "
            "has no way to tell a reader of it"
        )
        hint = "write block or disconnect, or leave `format` out (SSE and NDJSON can tell)"
        reader.refuse(marks["slowClient"], message, hint)
    if made.resume is None or (conflict := _refuse_resume(made)) is None:
        return
    key, message, hint = conflict
    places = [marks[each] for each in ("resume", key) if each in marks]
    if "resume" not in values and key == "format":
        values["resume"] = None  # the project's default is for others
    elif places:
        reader.refuse(places[0], message, hint, "not-resumable")


def _refuse_resume(streaming: Streaming) -> tuple[str, str, str] | None:
    """Say which key `resume` does not go with, why, and what to write."""
    if streaming.format not in RESUMABLE:
        message = f"`format: {streaming.format}` is not resumable: it has no ids"
        return "format", message, f"write format {', '.join(RESUMABLE)}"
    if streaming.slow_client == "dropOldest":
        message = "clients resume to get the chunks they missed, which `slowClient: dropOldest` drops"
        return "slowClient", message, "write slowClient: block, or disconnect"
    if not streaming.ids:
        message = "clients resume with the id of their last chunk, which `ids: false` omits"
        return "ids", message, "leave `ids` out, or write `resume: false`"
    return None

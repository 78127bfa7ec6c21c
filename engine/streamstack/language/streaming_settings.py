"""The keys of `streaming:`, on an endpoint and as defaults in streamstack.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from streamstack.errors import Diagnostic, Mark
from streamstack.formats import FORMATS, NAMES
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.suggest import did_you_mean
from streamstack.language.units import parse_duration, parse_size

T = TypeVar("T")

#: Seconds that a stream may be kept at most, and chunks.
LONGEST_KEEP: Final = 86_400.0
MOST_CHUNKS: Final = 1_000_000

#: What becomes of a slow reader.
SLOW_CLIENTS: Final = ("block", "disconnect", "dropOldest")
#: The formats that can tell a reader of dropped chunks, or that have no slow readers (`json` is sent whole).
TELLING: Final = ("auto", *(each.name for each in FORMATS if each.gaps or each.whole))
#: Formats of which a reader can come back: the others have no place for an id.
RESUMABLE: Final = (
    "auto",
    *(each.name for each in FORMATS if each.resumable and not each.alias_of),
)


@dataclass(frozen=True, slots=True)
class Resume:
    """How much of a stream is kept for readers who come back: seconds, chunks, bytes."""

    keep: float = 300.0
    max_chunks: int = 10_000
    max_size: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Streaming:
    """How a stream lives (LANGUAGE: the wire). Times are in seconds, 0 is never; sizes in bytes.

    ``jitter`` is the part (0 to 1) by which `maxDuration` may be shorter, ``grace`` how long a reader's buffer may be
    full before `slowClient: disconnect` cuts it off. ``separator`` and ``end`` are for text.
    """

    format: str = "auto"
    keep_alive: float = 15.0
    first_chunk_timeout: float = 60.0
    idle_timeout: float = 300.0
    max_duration: float = 3600.0
    max_bytes: int | None = None
    on_disconnect: str = "cancel"
    resume: Resume | None = None
    slow_client: str = "block"
    buffer: int = 256 * 1024
    compress: bool = False
    done: bool = True
    ids: bool = True
    separator: str = ""
    end: str = ""
    jitter: float = 0.1
    grace: float = 5.0


def parse_streaming(
    node: Mapping, defaults: Streaming, *, unknown: str = "unknown-key"
) -> tuple[Streaming, list[Diagnostic]]:
    """Return the defaults with what a `streaming:` mapping changes, and what is wrong with it.

    A value that is wrong leaves its default. ``unknown`` is the code of a key that does not exist.
    """
    changes: dict[str, Any] = {}
    findings: list[Diagnostic] = []
    for key, value in node.items:
        known = _KEYS.get(key.text)
        if known is None:
            meant = did_you_mean(key.text, _KEYS)
            message = f"`streaming` has no `{key.text}`{meant}"
            findings.append(find(unknown, key.mark, message, f"it takes {', '.join(_KEYS)}"))
            continue
        if isinstance(value, Scalar) and value.value is None:
            continue
        name, parse = known
        try:
            if isinstance(value, Mapping) and key.text in _PARTS:
                changes |= _parts(key.text, value)
            else:
                changes[name] = parse(_scalar(key.text, value))
        except _RefusedError as refused:
            message = f"`{key.text}`: {refused.message}"
            findings.append(find(refused.code, refused.mark or value.mark, message, refused.hint))
    made = replace(defaults, **changes)
    findings += _check_together(node, made)
    if made.resume is not None and (fault := _refuse_resume(made)) is not None:
        marks = {key.text: value.mark for key, value in node.items}
        told = [marks[key] for key in ("resume", fault.key) if key in marks]
        if "resume" not in changes and fault.key == "format":
            made = replace(made, resume=None)  # the project's default is for others
        elif told:
            findings.append(find("not-resumable", told[0], fault.message, fault.hint))
    return made, findings


@dataclass(frozen=True, slots=True)
class _Conflict:
    """What `resume` does not go with."""

    key: str
    message: str
    hint: str


def _refuse_resume(streaming: Streaming) -> _Conflict | None:
    if streaming.format not in RESUMABLE:
        message = f"readers of `format: {streaming.format}` can't come back: it has no ids"
        return _Conflict("format", message, f"write format {', '.join(RESUMABLE)}")
    if streaming.slow_client == "dropOldest":
        message = (
            "readers come back for what they missed, and `slowClient: dropOldest` leaves it out"
        )
        return _Conflict("slowClient", message, "write slowClient: block, or disconnect")
    if not streaming.ids:
        message = (
            "readers come back with the id of their last chunk, and `ids: false` leaves it out"
        )
        return _Conflict("ids", message, "leave `ids` out, or write `resume: false`")
    return None


class _RefusedError(Exception):
    """A value that a key can't have; ``mark`` is its place where it is a part of the value only."""

    def __init__(
        self, code: str, message: str, hint: str | None = None, mark: Mark | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.mark = mark


def _parts(key: str, node: Mapping) -> dict[str, Any]:
    """Return what the parts of a key's mapping change."""
    parts = _PARTS[key]
    changes: dict[str, Any] = {}
    for part, value in node.items:
        known = parts.get(part.text)
        if known is None:
            message = f"it has no `{part.text}`{did_you_mean(part.text, parts)}"
            raise _RefusedError("bad-setting", message, f"write {', '.join(parts)}", part.mark)
        if isinstance(value, Scalar) and value.value is None:
            continue
        name, parse = known
        try:
            changes[name] = parse(_scalar(key, value))
        except _RefusedError as refused:
            message = f"`{part.text}`: {refused.message}"
            raise _RefusedError(refused.code, message, refused.hint, value.mark) from None
    return changes


def _check_together(node: Mapping, made: Streaming) -> list[Diagnostic]:
    """Return what is wrong with keys that can't stand side by side.

    Only where this mapping itself asks for dropped chunks: as a default of the project, it is for the endpoints whose
    format can tell of them.
    """
    if made.slow_client != "dropOldest" or made.format in TELLING:
        return []
    for key, value in node.items:
        if key.text == "slowClient":
            message = (
                f"`slowClient`: `dropOldest` leaves chunks out, and `format: {made.format}` "
                "has no way to tell a reader of it"
            )
            hint = "write block or disconnect, or leave `format` out (SSE and NDJSON can tell)"
            return [find("bad-setting", value.mark, message, hint)]
    return []


def _scalar(key: str, node: Node) -> Any:
    """Return the value of a scalar; resume is the one key that takes a mapping."""
    if not isinstance(node, Scalar):
        if key == "resume":
            return node
        if key in ("separator", "end"):
            hint = 'write it in quotes: "[DONE]"'
            raise _RefusedError(
                "bad-setting", "a text is needed here, not a list or a mapping", hint
            )
        raise _RefusedError("bad-setting", "one value is needed here, not a list or a mapping")
    if isinstance(node.value, str) and "<<" in node.value:
        raise _RefusedError("constant-required", "a binding can't stand here")
    return node.value


def _duration(value: Any) -> float:
    if value is False:
        return 0.0
    return _measure("bad-duration", parse_duration, value)


def _grace(value: Any) -> float:
    seconds = _duration(value)
    if seconds == 0:
        raise _RefusedError("bad-duration", "it must be more than 0", "write 5s, for example")
    return seconds


def _size(value: Any) -> int:
    size = _measure("bad-size", parse_size, value)
    if size == 0:
        raise _RefusedError("bad-size", "it must be more than 0 bytes")
    return size


def _measure(code: str, parse: Callable[[object], T], value: Any) -> T:
    try:
        return parse(value)
    except ValueError as error:
        raise _RefusedError(code, str(error)) from None


def _boolean(value: Any) -> bool:
    if value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise _RefusedError("bad-setting", "it must be true or false", "write true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _RefusedError("bad-setting", "it must be a text", "write it in quotes")
    return value


def _choose(served: tuple[str, ...], later: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if isinstance(value, str) and value in served:
            return value
        listed = ", ".join(served)
        if isinstance(value, str) and value in later:
            message = f"this version does not serve `{value}` yet"
            raise _RefusedError("not-yet", message, f"write {listed}")
        meant = did_you_mean(str(value), (*served, *later))
        raise _RefusedError("bad-setting", f"it must be one of {listed}{meant}", f"write {listed}")

    return parse


def _resume(value: Any) -> Resume | None:
    """Read `resume`: true or false, or how much is kept."""
    if not isinstance(value, Mapping):
        if isinstance(value, Sequence):
            raise _RefusedError("bad-setting", "this is a list", _RESUME)
        return Resume() if _boolean(value) else None
    changes: dict[str, Any] = {}
    for key, item in value.items:
        known = _RESUME_KEYS.get(key.text)
        if known is None:
            meant = did_you_mean(key.text, _RESUME_KEYS)
            message = f"it has no `{key.text}`{meant}"
            raise _RefusedError("bad-setting", message, f"it takes {', '.join(_RESUME_KEYS)}")
        if isinstance(item, Scalar) and item.value is None:
            continue
        name, parse = known
        try:
            changes[name] = parse(_scalar(key.text, item))
        except _RefusedError as refused:
            message = f"`{key.text}`: {refused.message}"
            raise _RefusedError(refused.code, message, refused.hint) from None
    return Resume(**changes)


def _keep(value: Any) -> float:
    seconds = _duration(value)
    if not 0 < seconds <= LONGEST_KEEP:
        raise _RefusedError("bad-duration", "it must be more than 0, and a day at most")
    return seconds


def _chunks(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value.strip()):
        value = int(value)
    if type(value) is not int or not 1 <= value <= MOST_CHUNKS:
        raise _RefusedError("bad-setting", f"a whole number from 1 to {MOST_CHUNKS} is needed here")
    return value


def _part_of_one(value: Any) -> float:
    """Return a part from 0 to 1, of `10%` or a number."""
    text = str(value).strip()
    try:
        part = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        part = -1.0
    if isinstance(value, bool) or not 0 <= part <= 1:
        raise _RefusedError("bad-setting", "it must be a part, from 0% to 100%", "write 10% or 0.1")
    return part


_RESUME: Final = "write true, or {keep: 5m, maxChunks: 10000}"
_RESUME_KEYS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "keep": ("keep", _keep),
    "maxChunks": ("max_chunks", _chunks),
    "maxSize": ("max_size", _size),
}
#: The keys of `resume:`.
RESUME_KEYS: Final = tuple(_RESUME_KEYS)

_KEYS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "format": ("format", _choose(NAMES, ())),
    "keepAlive": ("keep_alive", _duration),
    "firstChunkTimeout": ("first_chunk_timeout", _duration),
    "idleTimeout": ("idle_timeout", _duration),
    "maxDuration": ("max_duration", _duration),
    "maxBytes": ("max_bytes", _size),
    "onDisconnect": ("on_disconnect", _choose(("cancel", "finish"), ())),
    "resume": ("resume", _resume),
    "slowClient": ("slow_client", _choose(SLOW_CLIENTS, ())),
    "buffer": ("buffer", _size),
    "compress": ("compress", _boolean),
    "done": ("done", _boolean),
    "ids": ("ids", _boolean),
    "separator": ("separator", _text),
    "end": ("end", _text),
}
#: The keys whose value may be a mapping, and its parts.
_PARTS: Final[dict[str, dict[str, tuple[str, Callable[[Any], Any]]]]] = {
    "maxDuration": {"limit": ("max_duration", _duration), "jitter": ("jitter", _part_of_one)},
    "slowClient": {
        "mode": ("slow_client", _choose(SLOW_CLIENTS, ())),
        "grace": ("grace", _grace),
    },
}
#: The keys of `streaming:`.
STREAMING_KEYS: Final = tuple(_KEYS)

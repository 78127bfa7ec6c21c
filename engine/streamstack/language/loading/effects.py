"""Keys of an endpoint's `streaming:` that change nothing, because of what stands beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from streamstack.errors import Mark
from streamstack.formats import BY_NAME
from streamstack.formats.spec import Format
from streamstack.language.definition import Input
from streamstack.language.loading.faults import Faults
from streamstack.language.reading.nodes import Mapping, Scalar
from streamstack.language.streaming_settings import Streaming

#: What needs chunks that leave one after another. `resume` is refused with words of its own.
_CHUNKS: Final = (
    "format",
    "keepAlive",
    "maxBytes",
    "slowClient",
    "buffer",
    "compress",
    "done",
    "ids",
    "separator",
    "end",
)
_OWN_END: Final = "always has the end that its SDKs wait for"
_IN_ONE: Final = "is sent in one piece, at the end"

#: By key: in which formats it has an effect, and what the others are like.
_BY_FORMAT: Final[dict[str, tuple[Callable[[Format], bool], str]]] = {
    "keepAlive": (lambda format_: format_.heartbeats, "has no heartbeats"),
    "ids": (lambda format_: format_.numbered, "gives its chunks no numbers"),
    "done": (lambda format_: format_.done_event, "has no event at its end"),
    "separator": (lambda format_: format_.separated, "has a form of its own around its chunks"),
    "end": (lambda format_: format_.separated, "has a form of its own around its chunks"),
    "buffer": (lambda format_: not format_.whole, _IN_ONE),
    "compress": (lambda format_: not format_.whole, _IN_ONE),
    "slowClient": (lambda format_: not format_.whole, _IN_ONE),
}


def check_effects(
    node: Mapping,
    streaming: Streaming,
    defaults: Streaming,
    response_type: str,
    inputs: tuple[Input, ...],
    faults: Faults,
) -> None:
    """Report the keys of an endpoint's own `streaming:` that change nothing, where that is certain.

    Not those of the project's ``defaults``: each of them may be of use to some endpoint. What takes one of them back
    has an effect where that had one.
    """
    given = {key.text: key.mark for key, value in node.items if not _null(value)}
    if response_type == "json":
        receives = any(each.type == "stream" for each in inputs)
        useless = _CHUNKS if receives else (*_CHUNKS, "idleTimeout")
        for key in useless:
            if key in given:
                faults.add(
                    "no-effect",
                    given[key],
                    f"`{key}` has no effect: the endpoint answers with JSON in one piece",
                    "write `responseType: streaming`, or take it out",
                )
    else:
        _check_format(given, streaming, defaults, faults)
    _check_parts(node, streaming, response_type, faults)


def _check_format(
    given: dict[str, Mark], streaming: Streaming, defaults: Streaming, faults: Faults
) -> None:
    if (format_ := BY_NAME.get(streaming.format)) is None:
        return  # the request chooses it
    disconnects = "disconnect" in (streaming.slow_client, defaults.slow_client)
    for key, mark in given.items():
        effect, why = _BY_FORMAT.get(key, (None, ""))
        if effect is None or effect(format_):
            continue
        if key == "ids" and streaming.resume is not None:
            continue  # without them no reader can come back, whatever the format calls them
        if key == "slowClient" and disconnects:
            continue  # it is how long a reader has for that piece
        if key == "done" and format_.dialect:
            why = _OWN_END
        message = f"`{key}` has no effect: `format: {format_.name}` {why}"
        faults.add("no-effect", mark, message, "take it out, or write another format")


def _check_parts(node: Mapping, streaming: Streaming, response_type: str, faults: Faults) -> None:
    """Report the parts of keys that change nothing."""
    for key, part, mark in _parts(node):
        if (key, part) == ("slowClient", "grace"):
            mode = streaming.slow_client
            # Of an answer in one piece the whole key is told.
            if mode != "disconnect" and response_type != "json" and streaming.format != "json":
                message = f"`grace` has no effect: `slowClient: {mode}` cuts no reader off"
                faults.add("no-effect", mark, message, "write `mode: disconnect`, or take it out")
        elif (key, part) == ("maxDuration", "jitter"):
            if response_type == "json":
                message = "`jitter` has no effect: the endpoint answers with JSON in one piece"
                faults.add("no-effect", mark, message, "take it out")
            elif not streaming.max_duration:
                message = "`jitter` has no effect: `maxDuration` is off, so that nothing is shorter"
                faults.add("no-effect", mark, message, "give a `limit`, or take it out")


def _parts(node: Mapping) -> Iterator[tuple[str, str, Mark]]:
    for key, value in node.items:
        for part, item in value.items if isinstance(value, Mapping) else ():
            if not _null(item):
                yield key.text, part.text, part.mark


def _null(node: object) -> bool:
    return isinstance(node, Scalar) and node.value is None

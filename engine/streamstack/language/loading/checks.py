"""What of an endpoint's keys goes together: what a request can send, what `streaming` can change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

from streamstack.errors import Mark
from streamstack.formats import BY_NAME, DIALECTS
from streamstack.formats.spec import Format
from streamstack.language.definition import Input
from streamstack.language.loading.arguments import Faults
from streamstack.language.nodes import Mapping
from streamstack.language.paths import parameters
from streamstack.language.streaming_settings import Streaming
from streamstack.language.suggest import nearest
from streamstack.language.values import MISSING
from streamstack.spec import is_null

# ------------------------------------------------------------------------- what a request can send

#: What no single text can hold.
_LARGE = ("object", "list", "file", "stream")
_BODY = ("body", "wholeBody")


def check_sent(inputs: tuple[Input, ...], written: Collection[str], path: str, mark: Mark, faults: Faults) -> None:
    """Report inputs that the path, the query or the body can't hold, and parameters of the path.

    ``written`` are the names of all inputs, with those whose declaration was refused; ``path`` is
    empty where it could not be read.
    """
    _check_places(inputs, faults)
    if path:
        named = parameters(path)
        _check_path(named, inputs, written, mark, faults)
        _check_declared(named, inputs, faults)


def _every(inputs: tuple[Input, ...]) -> Iterator[Input]:
    for each in inputs:
        yield each
        yield from _every(each.properties or ())
        if each.items is not None:
            yield from _every((each.items,))


def check_streams(inputs: tuple[Input, ...], method: str, format_: str, faults: Faults) -> None:
    """Report what no stream can be: more than one, a part of something, beside what else needs the body."""
    streams = [each for each in inputs if each.type == "stream"]
    for each in _every(inputs):
        if each.type == "stream" and each not in streams:
            faults.add(
                "bad-constraint",
                each.mark,
                "a stream is the whole request body, and no part of another input",
                "declare it beside the others, as `events: {type: stream}`",
            )
    for other in streams[1:]:
        faults.add(
            "bad-constraint",
            other.mark,
            f"`{other.name}` and `{streams[0].name}` are both the request body",
            "take one of the two out",
        )
    if streams:
        _check_stream(streams[0], inputs, method, format_, faults)


def _check_stream(stream: Input, inputs: tuple[Input, ...], method: str, format_: str, faults: Faults) -> None:
    """Report what does not go together with a stream of the request body."""
    if stream.location not in (None, "body", "wholeBody"):
        faults.add(
            "bad-constraint",
            stream.mark,
            f"`{stream.name}` is a stream, which only the body can be",
            "take the `in` out",
        )
    if stream.default is not MISSING:
        faults.add(
            "bad-default",
            stream.mark,
            f"`{stream.name}` is a stream: without a body it is one without items, and has no default",
            "take the default out",
        )
    if method in ("GET", "HEAD"):
        faults.add(
            "bad-constraint",
            stream.mark,
            f"`{stream.name}` is the request body, and {method} has none",
            "write `method: POST`",
        )
    if format_ in DIALECTS:
        faults.add(
            "bad-constraint",
            stream.mark,
            f"`format: {format_}` reads the request body itself, and `{stream.name}` is that body",
            "write another format, or take the messages as `{type: list}`",
        )
    for each in inputs:
        if each.type != "stream" and (each.location in _BODY or each.type == "file"):
            faults.add(
                "bad-constraint",
                each.mark,
                f"`{each.name}` is in the body, which the stream `{stream.name}` takes whole",
                "write `in: query`" if each.type != "file" else "take one of the two out",
            )


def _check_places(inputs: tuple[Input, ...], faults: Faults) -> None:
    """Report a body that is taken whole and in parts, and files outside of it."""
    whole = next((each for each in inputs if each.location == "wholeBody"), None)
    for each in inputs:
        if (
            whole is not None
            and each is not whole
            and each.location in _BODY
            and "stream" not in (whole.type, each.type)
        ):
            faults.add(
                "bad-constraint",
                each.mark,
                f"`{each.name}` is in the body, which `{whole.name}` takes whole",
                f"declare it as a property of `{whole.name}`, or write `in: query`",
            )
        if each.type == "file" and each.location not in (None, "body", "path"):
            faults.add(
                "bad-constraint",
                each.mark,
                f"`{each.name}` is a file, which only a part of the body can hold",
                "take the `in` out",
            )


def _check_path(
    named: list[str], inputs: tuple[Input, ...], written: Collection[str], mark: Mark, faults: Faults
) -> None:
    """Report parameters of the path that are not declared, or not as the path can hold them."""
    declared = {each.name: each for each in inputs}
    for name in named:
        found = declared.get(name)
        if found is None and name not in written:
            near = nearest(name, declared)
            faults.add(
                "undeclared-path-parameter",
                mark,
                f"the path's parameter `{name}` is not declared",
                f"did you mean `{near}`?" if near else f"add `{name}: {{type: text}}` under `inputParameters`",
            )
        elif found is not None and found.location not in (None, "path"):
            faults.add(
                "bad-constraint",
                found.mark,
                f"`{name}` is in the path, but is declared `in: {found.location}`",
                "take the `in` out, or give one of the two another name",
            )
        elif found is not None and found.type in _LARGE:
            faults.add(
                "bad-constraint",
                found.mark,
                f"`{name}` is in the path, which can't hold the type {found.type}",
                "declare it as text, and split it in the stack",
            )


def _check_declared(named: list[str], inputs: tuple[Input, ...], faults: Faults) -> None:
    """Report inputs that are declared to be in the path, and that the path does not name."""
    for each in inputs:
        if each.location == "path" and each.name not in named:
            near = nearest(each.name, named)
            faults.add(
                "undeclared-path-parameter",
                each.mark,
                f"`{each.name}` is declared `in: path`, and the path does not name it",
                f"did you mean `{near}`?" if near else f"write {{{each.name}}} in the path",
            )


# ------------------------------------------------------------------ keys of `streaming` without effect

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
_OWN_FORM: Final = "has its own format for chunks"

#: By key: in which formats it has an effect, and what the others are like.
_BY_FORMAT: Final[dict[str, tuple[Callable[[Format], bool], str]]] = {
    "keepAlive": (lambda format_: format_.heartbeats, "has no heartbeats"),
    "ids": (lambda format_: format_.numbered, "does not number its chunks"),
    "done": (lambda format_: format_.done_event, "has no end event"),
    "separator": (lambda format_: format_.separated, _OWN_FORM),
    "end": (lambda format_: format_.separated, _OWN_FORM),
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
    given = {key.text: key.mark for key, value in node.items if not is_null(value)}
    if response_type == "json":
        receives = any(each.type == "stream" for each in inputs)
        useless = _CHUNKS if receives else (*_CHUNKS, "idleTimeout")
        for key in useless:
            if key in given:
                faults.add(
                    "no-effect",
                    given[key],
                    f"`{key}` has no effect: the endpoint sends a JSON response",
                    "write `responseType: streaming`, or remove it",
                )
    else:
        _check_format(given, streaming, defaults, faults)
    _check_parts(node, streaming, response_type, faults)


def _check_format(given: dict[str, Mark], streaming: Streaming, defaults: Streaming, faults: Faults) -> None:
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
        faults.add("no-effect", mark, message, "remove it, or write another format")


def _check_parts(node: Mapping, streaming: Streaming, response_type: str, faults: Faults) -> None:
    """Report the parts of keys that change nothing."""
    for key, part, mark in _parts_of(node):
        if (key, part) == ("slowClient", "grace"):
            mode = streaming.slow_client
            # Of an answer in one piece the whole key is told.
            if mode != "disconnect" and response_type != "json" and streaming.format != "json":
                message = f"`grace` has no effect: `slowClient: {mode}` does not disconnect clients"
                faults.add("no-effect", mark, message, "write `mode: disconnect`, or remove it")
        elif (key, part) == ("maxDuration", "jitter"):
            if response_type == "json":
                message = "`jitter` has no effect: the endpoint sends a JSON response"
                faults.add("no-effect", mark, message, "remove it")
            elif not streaming.max_duration:
                message = "`jitter` has no effect: `maxDuration` is off, so that nothing is shorter"
                faults.add("no-effect", mark, message, "give a `limit`, or remove it")


def _parts_of(node: Mapping) -> Iterator[tuple[str, str, Mark]]:
    for key, value in node.items:
        for part, item in value.items if isinstance(value, Mapping) else ():
            if not is_null(item):
                yield key.text, part.text, part.mark

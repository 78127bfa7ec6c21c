"""Whether a request to an endpoint can send the inputs that it declares."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from streamstack.errors import Mark
from streamstack.formats import DIALECTS
from streamstack.language.definition import Input
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.paths import parameters
from streamstack.language.suggest import nearest
from streamstack.language.values import MISSING

#: What no single text can hold.
_LARGE = ("object", "list", "file", "stream")
_BODY = ("body", "wholeBody")


def check_sent(
    inputs: tuple[Input, ...], written: Collection[str], path: str, mark: Mark, faults: Faults
) -> None:
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


def _check_stream(
    stream: Input, inputs: tuple[Input, ...], method: str, format_: str, faults: Faults
) -> None:
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
    named: list[str],
    inputs: tuple[Input, ...],
    written: Collection[str],
    mark: Mark,
    faults: Faults,
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
                f"did you mean `{near}`?"
                if near
                else f"add `{name}: {{type: text}}` under `inputParameters`",
            )
        elif found is not None and found.location not in (None, "path"):
            faults.add(
                "bad-constraint",
                found.mark,
                f"`{name}` stands in the path, and is declared `in: {found.location}`",
                "take the `in` out, or give one of the two another name",
            )
        elif found is not None and found.type in _LARGE:
            faults.add(
                "bad-constraint",
                found.mark,
                f"`{name}` stands in the path, which can't hold the type {found.type}",
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

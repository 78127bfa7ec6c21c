"""Whether a request to an endpoint can send the inputs that it declares."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from streamstack.errors import Mark
from streamstack.language.definition import Input
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.paths import parameters
from streamstack.language.suggest import nearest

#: What no single text can hold.
_LARGE = ("object", "list", "file", "stream")


def check_sent(
    inputs: tuple[Input, ...], written: Collection[str], path: str, mark: Mark, faults: Faults
) -> None:
    """Report inputs that the path, the query or the body can't hold, and parameters of the path.

    ``written`` are the names of all inputs, with those whose declaration was refused; ``path`` is
    empty where it could not be read.
    """
    _check_streams(inputs, faults)
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


def _check_streams(inputs: tuple[Input, ...], faults: Faults) -> None:
    """Refuse streams in a request; a function of the project may be handed one."""
    for each in _every(inputs):
        if each.type == "stream":
            faults.add(
                "not-yet",
                each.mark,
                "inputs of type `stream` are not served by this version: it reads the body whole",
                "take the body whole: `{type: json, in: wholeBody}`",
            )


def _check_places(inputs: tuple[Input, ...], faults: Faults) -> None:
    """Report a body that is taken whole and in parts, and files outside of it."""
    whole = next((each for each in inputs if each.location == "wholeBody"), None)
    for each in inputs:
        if whole is not None and each is not whole and each.location in ("body", "wholeBody"):
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

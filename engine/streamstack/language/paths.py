"""Paths of endpoints: literal segments, parameters, and a parameter that takes the rest of a path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from streamstack.errors import fast_dataclass

_LITERAL: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*")
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_-]*"
_PARAMETER: Final = re.compile(rf"\{{({_NAME})(:path)?\}}")
#: What other frameworks write for the rest of a path, and for a parameter that has a type or a pattern.
_OTHER_REST: Final = re.compile(
    rf"\*\*?|:({_NAME})\*|\{{(?:\*\*?({_NAME})?|({_NAME})(?:\.\.\.|\*|:\.[*+]))\}}|<path:({_NAME})>"
)
_OTHER_NAME: Final = re.compile(f":({_NAME})")
_OTHER_TYPED: Final = re.compile(rf"\{{({_NAME})[:?=][^{{}}]*\}}|(?<!<)<(?:\w+:)?({_NAME})>(?!>)")


@fast_dataclass()
class Segment:
    """A part of a path between two slashes.

    Args:
        literals: The author's texts around the parameters, percent-decoded: one more than there are parameters.
        names: The parameters.
        rest: Whether the one parameter takes all further segments, too.
    """

    literals: tuple[str, ...]
    names: tuple[str, ...] = ()
    rest: bool = False

    def match(self, text: str) -> list[str] | None:
        """Return the values of the parameters in a segment of a request; None where it does not match.

        A value has at least one character, and ends before the first text that may follow it.
        """
        first, *middle, last = self.literals
        if not text.startswith(first) or not text.endswith(last) or len(text) <= len(first) + len(last):
            return None
        values, at, end = [], len(first), len(text) - len(last)
        for literal in middle:
            found = text.find(literal, at + 1, end)
            if found < 0:
                return None
            values.append(text[at:found])
            at = found + len(literal)
        if at >= end:
            return None
        return [*values, text[at:end]]


def parse_path(path: str) -> list[Segment]:
    """Return the segments of a path that `refuse_path` has nothing against."""
    return [] if path == "/" else [_parse(part) for part in path[1:].split("/")]


def _parse(part: str) -> Segment:
    # What is split off is in turn a literal, a name, and whether it takes the rest.
    split = _PARAMETER.split(part)
    return Segment(tuple(unquote(each) for each in split[::3]), tuple(split[1::3]), rest=any(split[2::3]))


def parameters(path: str) -> list[str]:
    """Return the names of a path's parameters in their order."""
    return [name for segment in parse_path(path) for name in segment.names]


def shape(path: str) -> tuple[tuple[tuple[str, ...], bool], ...]:
    """Return a path without the names of its parameters: two of one shape match the same requests."""
    return tuple((segment.literals, segment.rest) for segment in parse_path(path))


def refuse_path(path: str) -> tuple[str, str] | None:
    """Say what is wrong with a path, and what to write; None where nothing is."""
    if not path.startswith("/"):
        return f"the path `{path}` does not begin with `/`", f"write /{path.lstrip('/')}"
    if path == "/":
        return None
    parts = path[1:].split("/")
    if "" in parts:
        written = "/" + "/".join(part for part in parts if part)
        return f"the path `{path}` has an empty segment", f"write {written}"
    if unquote(parts[0]).startswith("_"):
        return (f"the path `{path}` begins with `/_`, which is the server's own", "choose another first segment")
    named: set[str] = set()
    for part in parts:
        fault = _refuse_segment(part, named, last=part is parts[-1])
        if fault is not None:
            return fault
    return None


def _refuse_segment(part: str, named: set[str], *, last: bool) -> tuple[str, str] | None:
    if unquote(part) in (".", ".."):
        return f"the path has the segment `{part}`, which clients remove", "remove it"
    if (other := _OTHER_REST.fullmatch(part)) is not None:
        name = next(filter(None, other.groups()), "rest")
        return f"`{part}` is not a valid path segment", f"write {{{name}:path}} for the rest of the path"
    segment = _parse(part)
    for name in segment.names:
        if name in named:
            return (f"the path names the parameter `{name}` twice", "give one of the two another name")
        named.add(name)
    if segment.rest and (not last or segment.literals != ("", "")):
        return f"`{part}` takes the rest of the path", "make it the last segment, alone between slashes"
    if "" in segment.literals[1:-1]:
        return f"`{part}` has two parameters with nothing between them", "write a character between them, as in {a}-{b}"
    literals = "".join(_PARAMETER.split(part)[::3])
    if _LITERAL.fullmatch(literals) is not None and not _OTHER_NAME.fullmatch(part):
        return None
    return _explain(part, literals)


def _explain(part: str, literals: str) -> tuple[str, str]:
    """Say why a segment is not valid, whose ``literals`` are the texts around its parameters."""
    if (mark := next((each for each in literals if each in "?#"), "")) and not _OTHER_TYPED.search(part):
        return (f"the path holds `{mark}`", "declare query parameters under `inputParameters`, with `in: query`")
    if _OTHER_NAME.fullmatch(part):
        return f"`{part}` is not a valid path parameter", f"write {{{part[1:]}}}"
    if (typed := _OTHER_TYPED.search(part)) is not None:
        name = typed[1] or typed[2]
        return (
            f"`{typed[0]}` is not a valid path parameter",
            f"write {{{name}}}, and declare its type and `pattern` under `inputParameters`",
        )
    if any(each in literals for each in "<>{}"):
        return f"`{part}` is not a valid path segment", "write a parameter as {name}, with letters, digits, `_` or `-`"
    return f"`{part}` has characters a path can't have", "write other characters percent-encoded, as in %20"

"""Paths of endpoints: literal segments, parameters, and a parameter that takes the rest of a path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from streamstack.errors import fast_dataclass

_LITERAL: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*")
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_-]*"
#: A name that ends where the text around it goes on, as in `:from-:to`.
_NAME_IN_TEXT: Final = r"[A-Za-z_](?:[A-Za-z0-9_]|-(?=[A-Za-z0-9_]))*"
_PARAMETER: Final = re.compile(rf"\{{({_NAME})(:path)?\}}")
#: What other frameworks write for the rest of a path, and for a parameter that has a type or a pattern.
_OTHER_REST: Final = re.compile(
    rf"\*\*?|:({_NAME})[*+]|\{{(?:\*\*?({_NAME})?|({_NAME})(?:\.\.\.|\*|:\.[*+]))\}}|<path:({_NAME})>"
    rf"|\[\[?\.\.\.({_NAME})\]\]?"
)
_OTHER_NAME: Final = re.compile(
    rf":({_NAME})|(?:[$#]\{{|\{{\{{|\{{(?= )|\[|<<|<) *(?:input\.)?({_NAME}) *(?:\}}\}}|\}}|\]|>>|>)"
)
_OTHER_TYPED: Final = re.compile(rf"\{{({_NAME})[:?=][^{{}}]*\}}|(?<!<)<(?:\w+:)?({_NAME})>(?!>)")
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")


@fast_dataclass()
class PathFault:
    """What is wrong with a path, what to write, and the whole path as it is surely meant, "" where that is not sure."""

    message: str
    hint: str
    instead: str = ""


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

    @property
    def rank(self) -> tuple[object, ...]:
        """What orders segments that may match the same text: the one with more characters of its own is the first.

        If they have as many, the one with the longer text before its first parameter; then by the alphabet.
        """
        return -len("".join(self.literals)), [-len(each) for each in self.literals], self.literals

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


def refuse_path(path: str) -> PathFault | None:
    """Return what is wrong with a path; None where nothing is."""
    fault = _refuse(path)
    if fault is None:
        return None
    meant = _correct(path)
    sure = meant != path and _refuse(meant) is None
    message, hint = fault
    return PathFault(
        message, hint or (f"write {meant}" if sure else "write it like /api/orders/{id}"), meant if sure else ""
    )


def _refuse(path: str) -> tuple[str, str] | None:
    """Say what is wrong with a path, and what to write; "" for the path as it is meant."""
    if _ORIGIN.match(path):
        return f"the path `{path}` is a URL: an endpoint has no host of its own", ""
    if not path.startswith("/"):
        return f"the path `{path}` does not begin with `/`", ""
    if path == "/":
        return None
    parts = path[1:].split("/")
    if "" in parts:
        return f"the path `{path}` has an empty segment", ""
    if unquote(parts[0]).startswith("_"):
        return (f"the path `{path}` begins with `/_`, which is the server's own", "choose another first segment")
    named: set[str] = set()
    for part in parts:
        fault = _refuse_segment(part, named, last=part is parts[-1])
        if fault is not None:
            return fault
    return None


def _correct(path: str) -> str:
    """Return a path as it is meant, as far as one can tell."""
    parts = _ORIGIN.sub("", path).split("/")
    return "/" + "/".join(_correct_segment(part) for part in parts if part)


def _correct_segment(part: str) -> str:
    if (other := _OTHER_REST.fullmatch(part)) is not None:
        name = next(filter(None, other.groups()), "")
        return f"{{{name}:path}}" if name else part
    if part.endswith("?"):
        return part
    if not part.startswith(":"):
        return re.sub(_OTHER_NAME, lambda found: found[0] if found[1] else f"{{{found[2]}}}", part)
    # Where a segment begins with a parameter, a colon behind a separator is another one.
    return re.sub(rf"(?:(?<=^)|(?<=[-.~])):({_NAME_IN_TEXT})", r"{\1}", part)


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
    if _LITERAL.fullmatch(literals) is None or _OTHER_NAME.match(part) or re.search(r"[$#]\{", part):
        return _explain(part, literals)
    if "*" in literals:
        return f"`*` in `{part}` matches only itself", "write a parameter, as in {name}.pdf, or %2A for the character"
    if "\ufffd" in unquote(literals) and "\ufffd" not in literals and "%EF%BF%BD" not in literals.upper():
        return (
            f"`{part}` is not UTF-8 once it is decoded, so no request matches it",
            "encode characters as UTF-8: %C3%A9",
        )
    return None


def _explain(part: str, literals: str) -> tuple[str, str]:
    """Say why a segment is not valid, whose ``literals`` are the texts around its parameters."""
    if part.startswith(":") and part.endswith("?"):
        name = _correct_segment(part[:-1])
        return f"`{part}` is not a valid path parameter", f"write {name}, and a second endpoint for the path without it"
    meant = _correct_segment(part)
    if meant != part:
        return f"`{part}` is not a valid path parameter", f"write {meant}"
    if (mark := next((each for each in literals if each in "?#"), "")) and not _OTHER_TYPED.search(part):
        return (f"the path holds `{mark}`", "declare query parameters under `inputParameters`, with `in: query`")
    if (typed := _OTHER_TYPED.search(part)) is not None:
        name = typed[1] or typed[2]
        return (
            f"`{typed[0]}` is not a valid path parameter",
            f"write {{{name}}}, and declare its type and `pattern` under `inputParameters`",
        )
    if any(each in literals for each in "<>{}"):
        return f"`{part}` is not a valid path segment", "write a parameter as {name}, with letters, digits, `_` or `-`"
    return f"`{part}` has characters a path can't have", "write other characters percent-encoded, as in %20"

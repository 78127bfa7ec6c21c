"""Paths of endpoints: their syntax, their parameters, their shape."""

from __future__ import annotations

import re
from typing import Final

#: The methods an endpoint can answer.
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

_LITERAL: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")


def segments(path: str) -> list[str]:
    """Return the parts of a path between its slashes; none for `/`."""
    return [] if path == "/" else path[1:].split("/")


def parameter(segment: str) -> str | None:
    """Return the name of the parameter that a segment is, if it is one."""
    found = _PARAMETER.fullmatch(segment)
    return found[1] if found else None


def parameters(path: str) -> list[str]:
    """Return the names of a path's parameters in their order."""
    return [name for name in map(parameter, segments(path)) if name is not None]


def shape(path: str) -> str:
    """Return the path with its parameters unnamed: two of one shape match the same requests."""
    return "/" + "/".join("{}" if parameter(part) else part for part in segments(path))


def refuse_path(path: str) -> tuple[str, str] | None:
    """Say what is wrong with a path, and what to write; None where nothing is."""
    if not path.startswith("/"):
        return f"the path `{path}` does not begin with `/`", f"write /{path.lstrip('/')}"
    if path == "/":
        return None
    parts = segments(path)
    if "" in parts:
        written = "/" + "/".join(part for part in parts if part)
        return f"the path `{path}` has an empty segment", f"write {written}"
    if parts[0].startswith("_"):
        return (
            f"the path `{path}` begins with `/_`, which is the server's own",
            "choose another first segment",
        )
    named: set[str] = set()
    for part in parts:
        fault = _refuse_segment(part, named)
        if fault is not None:
            return fault
    return None


def _refuse_segment(part: str, named: set[str]) -> tuple[str, str] | None:
    name = parameter(part)
    if name is not None:
        if name in named:
            return (
                f"the path names the parameter `{name}` twice",
                "give one of the two another name",
            )
        named.add(name)
        return None
    if part in (".", ".."):
        return f"the path has the segment `{part}`, which clients take out", "leave it out"
    if "?" in part or "#" in part:
        mark = "?" if "?" in part else "#"
        return (
            f"the path holds `{mark}`",
            "declare query parameters under `inputParameters`, with `in: query`",
        )
    if part.startswith(":") and _PARAMETER.fullmatch(f"{{{part[1:]}}}"):
        return f"`{part}` is no parameter of a path", f"write {{{part[1:]}}}"
    if "<" in part or ">" in part:
        return f"`{part}` is no segment of a path", "write a parameter of the path as {name}"
    if "{" in part or "}" in part:
        return (
            f"`{part}` is no segment of a path: a parameter is a whole segment",
            "write {name}, with letters, digits, `_` or `-`, between two slashes",
        )
    if _LITERAL.fullmatch(part) is None:
        return (
            f"`{part}` has characters a path can't have",
            "write other characters percent-encoded, as in %20",
        )
    return None

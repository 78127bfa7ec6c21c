"""Routes: from a method and a path to what answers there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from streamstack.errors import RunError

T = TypeVar("T")

_NONE: Mapping[str, str] = {}


class _Branch(Generic[T]):
    """The routes of one method that share the segments so far."""

    __slots__ = ("literals", "names", "parameter", "target")

    def __init__(self) -> None:
        self.literals: dict[str, _Branch[T]] = {}
        self.parameter: _Branch[T] | None = None
        self.target: T | None = None
        self.names: tuple[str, ...] = ()

    def grow(self, segments: list[str], target: T) -> None:
        """Plant a route. The first one planted at a place stays there."""
        branch = self
        names = []
        for segment in segments:
            if segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                if branch.parameter is None:
                    branch.parameter = _Branch()
                branch = branch.parameter
            else:
                branch = branch.literals.setdefault(_decode(segment), _Branch())
        if branch.target is None:
            branch.target, branch.names = target, tuple(names)

    def find(self, segments: list[str], at: int = 0) -> tuple[_Branch[T], list[str]] | None:
        """Find the route of these segments; at each of them the literal beats the parameter."""
        if at == len(segments):
            return (self, []) if self.target is not None else None
        segment = segments[at]
        literal = self.literals.get(segment)
        if literal is not None and (found := literal.find(segments, at + 1)) is not None:
            return found
        # An empty segment is no value: /users/ is not /users/{id}.
        if (
            self.parameter is not None
            and segment
            and (found := self.parameter.find(segments, at + 1)) is not None
        ):
            found[1].insert(0, segment)
            return found
        return None


class Routes(Generic[T]):
    """All routes of a project. It never changes: a reload replaces it as a whole.

    Literal segments beat `{parameters}`, from left to right. A slash at the end makes no
    difference, unless both spellings are routes. Segments are split first and percent-decoded
    then, so that `%2F` belongs to a parameter's value.
    """

    __slots__ = ("_literals", "_trees")

    def __init__(self, routes: Iterable[tuple[str, str, T]]) -> None:
        self._trees: dict[str, _Branch[T]] = {}
        # Paths without parameters, as they come over the wire: the fast way.
        self._literals: dict[str, dict[str, tuple[T, Mapping[str, str]]]] = {}
        listed = list(routes)
        # A second round adds the other spelling of the slash at the end, where it is free.
        for spell in (str, _turn_slash):
            for method, path, target in listed:
                if not (spelled := spell(path)):
                    continue
                self._trees.setdefault(method, _Branch()).grow(spelled.split("/")[1:], target)
                if "{" not in spelled and "%" not in spelled:
                    literals = self._literals.setdefault(method, {})
                    literals.setdefault(spelled, (target, _NONE))

    def find(self, method: str, path: str) -> tuple[T, Mapping[str, str]] | None:
        """Find what answers a method at a raw path (without query), and the path's parameters.

        Raises RunError ``invalid-input`` for a path that is no UTF-8.
        """
        literals = self._literals.get(method)
        if literals is not None and (found := literals.get(path)) is not None:
            return found
        tree = self._trees.get(method)
        if tree is None or not path.startswith("/"):
            return None
        if "#" in path:
            raise RunError(
                "invalid-input", "a request names no part of what it asks for: leave # out"
            )
        segments = path[1:].split("/")
        if "%" in path:
            segments = [_decode(segment) for segment in segments]
        branch = tree.find(segments)
        if branch is None:
            return None
        node, values = branch
        # Only a branch with a target is found.
        return node.target, dict(zip(node.names, values, strict=True))  # type: ignore[return-value]

    def methods(self, path: str) -> list[str]:
        """List the methods that a raw path can be asked with, HEAD and OPTIONS among them."""
        found = [method for method in self._trees if self.find(method, path) is not None]
        if not found:
            return []
        implied = ["HEAD"] if "GET" in found else []
        return sorted({*found, *implied, "OPTIONS"})


def _turn_slash(path: str) -> str:
    if path == "/":
        return ""
    return path[:-1] if path.endswith("/") else path + "/"


def _decode(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise RunError(
            "invalid-input", "the path is no UTF-8: percent-encode its bytes as UTF-8"
        ) from None

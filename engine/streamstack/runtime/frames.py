"""Frames of a definition, and the Python functions that stand for them: their names, and how one leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Signal:
    """How a part of a stack that runs in a function of its own asks its caller to break, continue or return."""

    __slots__ = ("value", "what")

    def __init__(self, value: Any = None, what: str = "return") -> None:
        self.value = value
        self.what = what


BREAK = Signal(what="break")
CONTINUE = Signal(what="continue")


@dataclass(slots=True)
class Loop:
    """The innermost loop around a step: the Python names of its index, from 0, and its source."""

    index: str
    source: str | None


@dataclass(slots=True)
class Function:
    """One Python function being written. ``outlined``: it tells its caller by a Signal what to do."""

    outlined: bool = False
    waits: bool = False  # something in it is awaited
    loops: int = 0  # loops open within this function
    blocks: int = 0  # loops, `try` and `with` open within it, as Python counts them
    signals: set[str] = field(
        default_factory=set
    )  # break, continue, return: what it asks of its caller


@dataclass(slots=True)
class Frame:
    """One frame of the definition: which Python name each of its variables has."""

    names: dict[str, str]
    parent: Frame | None = None
    loop: Loop | None = None


RESERVED: Mapping[str, str] = {
    "request": "run.request()",
    "auth": "run.auth",
    "env": "run.context.env",
    "settings": "run.context.settings",
    "stream": "stream_object(sink)",
    "run": "run_object(run)",
    "experiment": "None",
}
PATHS: Mapping[tuple[str, str], str] = {
    ("stream", "count"): "sink.count",
    ("stream", "bytes"): "sink.bytes",
    ("run", "id"): "run.id",
    ("run", "elapsedMs"): "run.elapsed_ms",
    ("run", "startedAt"): "run.started",
    ("run", "outcome"): "run.outcome",
}
LOOP: Mapping[str, str] = {
    "index": "({loop.index} + 1)",
    "index0": "{loop.index}",
    "first": "({loop.index} == 0)",
    "last": "({loop.index} + 1 == {loop.source}.length)",
    "length": "{loop.source}.length",
}

#: All that generated code has of Python's builtins.
BUILTINS: Mapping[str, Any] = {
    "Exception": Exception,
    "NameError": NameError,
    "isinstance": isinstance,
    "range": range,
}
#: The other identifiers in generated code: parameters, and the attributes of what the engine hands in.
NAMES = frozenset(
    {
        *("run", "sink", "index", "stack", "headers"),
        *("emit", "drain", "done", "respond", "count", "bytes", "sent_at"),
        *(
            "request",
            "auth",
            "context",
            "env",
            "settings",
            "id",
            "elapsed_ms",
            "started",
            "outcome",
        ),
        *("after", "breathe", "yield_at"),
        *("batch", "close", "length", "turn", "value"),
    }
)

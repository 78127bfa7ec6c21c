"""What a function's parameter can hold. Pure description: schema, loader and compiler read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from streamstack.language.units import show_duration, show_size


class Nesting(Enum):
    """How a nested stack runs, for the analysis of names, loops and emission."""

    ONCE = "once"  # exactly once, in the step's own frame (db.transaction)
    LOOP = "loop"  # no, one or many times, in the step's own frame; break and continue mean it
    ALTERNATIVE = "alternative"  # at most one of the step's alternatives runs
    OTHERWISE = "otherwise"  # the alternative that runs when no other does (else, default)
    GUARDED = "guarded"  # may stop at any step (try.do)
    HANDLER = "handler"  # runs after a GUARDED stack failed (catch.do)
    FINALLY = "finally"  # runs however the GUARDED stack ended
    BRANCH = "branch"  # once, beside the others, on its own copy of the variables; a frame
    ITEM = "item"  # for each item, later, on its own copy; a frame (streams.map)
    DEFERRED = "deferred"  # when the run has ended (after); a frame on its own copy
    FRAME = "frame"  # at most once, in a frame of its own for `return` (cache.use)


@dataclass(frozen=True, slots=True)
class Binds:
    """A variable that a nested stack or expression sees: named by another parameter's value."""

    parameter: str  # the parameter that names it: `as`
    default: str | None = None  # its name when the author gives none: item
    stream: bool = False  # whether it may be a stream


class Kind(Enum):
    """The kinds of data a binding parameter expects; ANY takes all but a stream."""

    ANY = "any"
    TEXT = "text"
    URL = "url"  # a text; bindings inside its path or query are percent-encoded
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LIST = "list"
    OBJECT = "object"
    HEADERS = (
        "headers"  # an object of header fields; one that is bound as a whole is forwarded in part
    )
    DURATION = "duration"
    EVERY = "every"  # a number of items, or a duration
    SIZE = "size"
    RATE = "rate"  # how many in which time
    KEY = "key"  # what names something: a text, a number, a list of such
    STREAM = "stream"  # a stream only
    ITEMS = "items"  # a list or a stream
    ANY_OR_STREAM = "anyOrStream"  # a whole binding may hand over a stream
    SQL = "sql"  # a statement: a text whose bindings become its parameters


@dataclass(frozen=True, slots=True)
class Bound:
    """A value that may hold bindings; constants are checked when the file is loaded."""

    kind: Kind = Kind.ANY
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()  # for TEXT: the words allowed
    code: bool = False  # for TEXT: of words-with-hyphens, as the codes of errors are
    per_item: Binds | None = None  # evaluated for each item, which is bound under this name
    names: str = ""  # of a database: it is a "table", or names "columns" (a text, a list, or keys)
    expression: bool = False  # a value without a binding is a mistake: the same for every item
    # Says of a constant that the function would surely refuse what it takes instead, and what to write.
    refuses: Callable[[Any], tuple[str, str] | None] | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A whole binding or a boolean. ``per_item`` as in Bound."""

    per_item: Binds | None = None


@dataclass(frozen=True, slots=True)
class Constant:
    """A value known when the file is loaded: bindings are refused (`constant-required`)."""

    kind: Kind = Kind.TEXT
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """The name of a variable that a nested stack sees (`as`)."""


@dataclass(frozen=True, slots=True)
class StackOf:
    """A nested function stack."""

    nesting: Nesting
    binds: tuple[Binds, ...] = ()
    loop: bool = False  # whether `loop` is bound in it
    transaction: bool = False  # whether a database transaction stays open while it runs


@dataclass(frozen=True, slots=True)
class Group:
    """A mapping with parameters of its own (catch, split, pace).

    A plain function is given what ``make`` makes of it, else a dict: so it can tell it from an object that is a value.
    """

    parameters: tuple[Parameter, ...]
    make: Callable[[dict[str, Any]], Any] | None = None


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one kind of thing (elseIf, on: [codes])."""

    item: ParameterType


@dataclass(frozen=True, slots=True)
class Named:
    """A mapping from the author's names to one kind of thing (cases, branches, set)."""

    item: ParameterType
    keys_are_variables: bool = False  # each key must be a variable name
    names: str = ""  # of a database: its keys are "columns"
    taken: tuple[str, ...] = ()  # names that the function gives a meaning of its own
    least: int = 0  # how many there must be


@dataclass(frozen=True, slots=True)
class OneOf:
    """Either of two forms, told apart by the YAML node: a scalar, a list, or a mapping."""

    forms: tuple[ParameterType, ...]


ParameterType = Bound | Condition | Constant | Variable | StackOf | Group | ListOf | Named | OneOf


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function.

    ``default`` is what the function uses when the author gives nothing or null; it is documented and,
    for plain functions, passed by the compiled call.
    """

    name: str
    type: ParameterType
    description: str
    required: bool = False
    default: Any = None
    main: bool = False

    @property
    def python_name(self) -> str:
        """The keyword under which a plain function receives it: chunkSize is chunk_size, in is in_."""
        name = "".join("_" + c.lower() if c.isupper() else c for c in self.name)
        return name + "_" if name in _KEYWORDS else name


_KEYWORDS = frozenset(
    {"in", "from", "as", "is", "if", "else", "try", "finally", "return", "for", "with"}
)


@dataclass(frozen=True, slots=True)
class Choice:
    """Parameters of which at most one may be given; one must be, where ``required``."""

    names: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Property:
    """A property of a stream that can be read without consuming it."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Configured:
    """A parameter that names something under a section of the settings, ``unless`` another one is given."""

    parameter: str
    section: str
    unless: str | None = None


@dataclass(frozen=True, slots=True)
class Effects:
    """What the analysis must know of a function beyond its parameters.

    ``gives``: "nothing", "value", "stream", or "either". ``waits_for_stream``: it reads a stream
    to its end before it gives anything (collect). ``emits``: it sends chunks. ``ends``: no step
    after it in its stack runs. ``leaves``: what a step that ends leaves: "frame" (return), "loop"
    (break), "turn" (continue), "" by an error (throw). ``closes``: nothing may be sent after it
    (done). ``calls``: the parameters that name functions of the project (call). ``shortens``: the
    stream it gives ends before its input does (streams.take), so that holding it all is no wait.
    ``sets``: it binds the keys of its main parameter as variables (set).
    ``rebinds``: the parameter whose value names a variable that it binds anew (append).
    ``publishes``: each key of this parameter becomes a variable when the step is done (parallel).
    ``configured``: the parameters that name what the settings hold (llm.chat).
    """

    gives: str = "nothing"
    waits_for_stream: bool = False
    emits: bool = False
    ends: bool = False
    leaves: str = ""
    closes: bool = False
    calls: tuple[str, ...] = ()
    shortens: bool = False
    sets: bool = False
    rebinds: str | None = None
    publishes: str | None = None
    configured: tuple[Configured, ...] = ()
    properties: tuple[Property, ...] = field(default=())


def shown_default(parameter: Parameter) -> Any:
    """Return a default as authors write it: 1.0 of a duration, which is seconds, as `1s`."""
    wanted, default = parameter.type, parameter.default
    if isinstance(wanted, (Bound, Constant)) and type(default) in (int, float):
        return shown(wanted.kind, default)
    return default


def shown(kind: Kind, number: float) -> Any:
    """Return a number of a kind as authors write it: seconds and bytes have units."""
    if kind is Kind.DURATION:
        return show_duration(number)
    return show_size(number) if kind is Kind.SIZE else number


def parameters_by_name(parameters: tuple[Parameter, ...]) -> Mapping[str, Parameter]:
    """Index parameters by the name an author writes."""
    return {parameter.name: parameter for parameter in parameters}

"""What a YAML document declares, once its shape is known to be right. Every part knows its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeAlias

from streamstack.errors import Mark
from streamstack.language.declare import Function
from streamstack.language.units import Rate
from streamstack.language.values import MISSING
from streamstack.records import record

if TYPE_CHECKING:
    from streamstack.language.expressions import Value
    from streamstack.language.reading.source import Node
    from streamstack.language.streaming_settings import Streaming


@record()
class Stack:
    """Steps that run one after the other."""

    steps: tuple[Step, ...]
    mark: Mark


@record()
class Given:
    """A constant argument: checked and converted (a duration is seconds, a size is bytes)."""

    value: Any
    mark: Mark


@record()
class Arguments:
    """The arguments of a step, or of a group within them, by parameter name."""

    given: Mapping[str, Argument]
    mark: Mark

    def get(self, name: str) -> Argument | None:
        return self.given.get(name)


@record()
class Items:
    """A list of arguments (elseIf, branches of a merge)."""

    items: tuple[Argument, ...]
    mark: Mark


@record()
class Entry:
    """One key of the author's own and what it holds."""

    key: str
    mark: Mark
    argument: Argument


@record()
class Entries:
    """A mapping from the author's names to arguments, in written order (set, cases, branches)."""

    entries: tuple[Entry, ...]
    mark: Mark


# Value: a Bound or Condition parameter. Given: a Constant, or a Variable's name.
Argument: TypeAlias = "Value | Given | Stack | Arguments | Items | Entries"


@record()
class Retry:
    """How a step is tried again. Delays are seconds."""

    times: int
    delay: float = 1.0
    backoff: str = "exponential"
    max_delay: float = 30.0
    jitter: bool = True
    on: frozenset[str] = (
        frozenset()
    )  # empty: every error that trying again can mend (control.FINAL)


@record()
class Step:
    """One step: a function, its arguments, and the modifiers beside it."""

    function: Function
    arguments: Arguments
    mark: Mark  # of the step
    key_mark: Mark  # of the function's key
    path: str  # functionStack[2].forEach.do[0]
    name: str | None = None
    description: str | None = None
    result: str | None = None  # `as`
    result_mark: Mark | None = None
    when: Value | None = None
    timeout: Value | float | None = None  # seconds, or a binding
    retry: Retry | None = None
    disabled: bool = False
    allow: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """How traces and errors call the step."""
        return self.name or self.function.name


@record()
class Input:
    """A declared input parameter, or a property or item of one."""

    name: str
    type: str
    mark: Mark
    required: bool = False
    default: Any = MISSING
    nullable: bool = False
    description: str = ""
    location: str | None = None  # path, query, body, header, cookie, wholeBody; None: by rule
    aliases: tuple[str, ...] = ()
    sensitive: bool = False
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    filters: tuple[str, ...] = ()
    minimum: Any = None
    maximum: Any = None
    values: tuple[Any, ...] = ()
    properties: tuple[Input, ...] | None = None
    items: Input | None = None
    min_items: int | None = None
    max_items: int | None = None
    max_size: int | None = None  # bytes
    content_types: tuple[str, ...] = ()
    decode: str | None = None
    on_invalid: str = "fail"


@record()
class Way:
    """One way in: an authentication of the settings by its name, and the scopes it must give."""

    name: str
    scopes: tuple[str, ...]
    mark: Mark


@record()
class Authentication:
    """Who may call: whoever comes in by one of the ways; ``optional``: also who tries none."""

    ways: tuple[Way, ...]
    optional: bool = False


@record()
class RateLimit:
    """How often an endpoint may be called, and how many runs of it may be under way, by whom ``by`` says.

    ``by`` is `caller`, `ip` or `all`. What is a Value is a binding, evaluated for each request.
    """

    mark: Mark
    rate: Rate | Value | None = None
    by: str | Value = "caller"
    algorithm: str = "fixed"
    concurrent: int | Value | None = None

    @property
    def bindings(self) -> tuple[Value, ...]:
        """Those of its parts that are bindings."""
        parts = (self.rate, self.by, self.concurrent)
        return tuple(part for part in parts if part and not isinstance(part, (Rate, str, int)))

    @property
    def reads_input(self) -> bool:
        """Whether it can be known only when the request's inputs, or its body, are read."""
        return any(
            read.name == "input"
            or (read.name == "request" and (not read.path or read.path[0] == "body"))
            for value in self.bindings
            for read in value.reads
        )


@record()
class Endpoint:
    """`kind: endpoint`."""

    method: str
    path: str
    response_type: str  # streaming | json
    streaming: Streaming
    inputs: tuple[Input, ...]
    stack: Stack
    mark: Mark
    path_mark: Mark
    summary: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    headers: tuple[tuple[str, Value], ...] = ()
    unknown_inputs: str = "refuse"
    response: Value | None = None
    disabled: bool = False
    allow: frozenset[str] = frozenset()
    authentication: Authentication | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    cache: Node | None = None

    kind = "endpoint"

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}"


@record()
class FunctionDefinition:
    """`kind: function`: a stack that others call."""

    name: str
    inputs: tuple[Input, ...]
    stack: Stack
    mark: Mark
    name_mark: Mark
    description: str = ""
    summary: str = ""
    disabled: bool = False
    allow: frozenset[str] = frozenset()

    kind = "function"

    @property
    def title(self) -> str:
        return f"function {self.name}"


@record()
class Task:
    """`kind: task`: a stack that runs on a schedule."""

    name: str
    schedule: Node
    stack: Stack
    mark: Mark
    name_mark: Mark
    description: str = ""
    summary: str = ""
    disabled: bool = False
    allow: frozenset[str] = frozenset()

    kind = "task"

    @property
    def title(self) -> str:
        return f"task {self.name}"


Definition = Endpoint | FunctionDefinition | Task


@record()
class Project:
    """All definitions that are served together."""

    endpoints: tuple[Endpoint, ...] = ()
    functions: Mapping[str, FunctionDefinition] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()

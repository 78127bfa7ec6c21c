"""Definitions as they were read, and how functions are declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from streamstack.errors import Mark, fast_dataclass
from streamstack.language.kinds import Kind
from streamstack.language.shapes import Shape
from streamstack.language.values import MISSING, Rate
from streamstack.spec import Constant, Field, fields_by_name, setting

if TYPE_CHECKING:
    from streamstack.language import nodes
    from streamstack.language.expressions import Value
    from streamstack.language.settings import Streaming
    from streamstack.language.source import Node


#: A parameter of a function is a field, as the keys of documents and settings are.
Parameter = Field


@dataclass(frozen=True, slots=True)
class Choice:
    """Parameters of which at most one may be given, or ``several``; one must be, where ``required``."""

    names: tuple[str, ...]
    required: bool = True
    several: bool = False


@dataclass(frozen=True, slots=True)
class Property:
    """A property of a stream that can be read without consuming it."""

    name: str
    description: str
    shape: str = ""


@dataclass(frozen=True, slots=True)
class Configured:
    """A parameter that names something under a section of the settings, ``unless`` another one is given."""

    parameter: str
    section: str
    unless: str | None = None


@dataclass(frozen=True, slots=True)
class Effects:
    """What the analysis must know of a function beyond its parameters.

    ``gives``: "nothing", "value", "stream", or "either"; ``result`` is the shape of that (`language.shapes`).
    ``proves``: where that is true, these parameters are not null (password.verify).
    ``waits_for_stream``: it reads a stream to its end before it gives anything (collect). ``emits``: it sends
    chunks. ``ends``: no step after it in its stack runs. ``leaves``: what a step that ends leaves: "frame"
    (return), "loop" (break), "turn" (continue), "" by an error (throw). ``opens``: it must come before the first chunk
    (respond). ``closes``: nothing may be sent after it
    (done). ``calls``: the parameters that name functions of the project (call). ``shortens``: the stream it gives
    ends before its input does (streams.take), so that holding it all does not wait. ``sets``: it binds the keys of its
    main parameter as variables (set). ``rebinds``: the parameter whose value names a variable that it rebinds
    (append). ``publishes``: each key of this parameter becomes a variable when the step is done (parallel).
    ``configured``: the parameters that name what the settings hold (llm.chat).
    """

    gives: str = "nothing"
    result: str = ""
    proves: tuple[str, ...] = ()
    waits_for_stream: bool = False
    emits: bool = False
    ends: bool = False
    leaves: str = ""
    closes: bool = False
    opens: bool = False
    calls: tuple[str, ...] = ()
    shortens: bool = False
    sets: bool = False
    rebinds: str | None = None
    publishes: str | None = None
    configured: tuple[Configured, ...] = ()
    properties: tuple[Property, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example: shown in the reference, and run by the tests.

    ``stack`` is the YAML of a function stack. ``result`` is what its `return` gives; ``chunks`` the contents it emits.
    ``fails`` is the code of the error that ends it. ``inputs`` are bound as `input`.
    """

    title: str
    stack: str
    result: Any = None
    chunks: tuple[Any, ...] | None = None
    fails: str | None = None
    inputs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the language.

    It has either ``run``, called as ``run(run, **parameters)`` (a coroutine function is awaited), or ``compile``, which
    writes the Python that stands for the step. With ``sees_functions``, ``run`` also gets `functions`: those of the
    project by name. The first line of ``description`` is the summary.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    effects: Effects
    examples: tuple[Example, ...]
    run: Callable[..., Any] | None = None
    compile: Callable[[Any, Any], None] | None = None
    choices: tuple[Choice, ...] = ()
    sees_functions: bool = False
    plugin: str = ""  # the file that declares it

    @property
    def family(self) -> str:
        """The module it is declared in, which is also its chapter in the reference."""
        code = self.run or self.compile
        return code.__module__.rsplit(".", 1)[-1] if code is not None else ""

    @property
    def summary(self) -> str:
        return self.description.split("\n", 1)[0]

    @property
    def by_name(self) -> Mapping[str, Parameter]:
        return fields_by_name(self.parameters)

    @property
    def main(self) -> Parameter | None:
        return next((parameter for parameter in self.parameters if parameter.main), None)


def function(
    name: str,
    *parameters: Parameter,
    effects: Effects = Effects(),
    examples: Iterable[Example] = (),
    choices: Iterable[Choice] = (),
    compiled: bool = False,
    sees_functions: bool = False,
) -> Callable[[Callable[..., Any]], Function]:
    """Declare a function of the language by decorating the code that runs it.

    The docstring is its documentation. With ``compiled`` the decorated function writes code:
    it takes the node of the step (language.graph) and the code writer. Otherwise it is called in
    each run, with the run and the parameters.
    """

    def declare(code: Callable[..., Any]) -> Function:
        return Function(
            name=name,
            description=inspect.cleandoc(code.__doc__ or ""),
            parameters=parameters,
            effects=effects,
            examples=tuple(examples),
            run=None if compiled else code,
            compile=code if compiled else None,
            choices=tuple(choices),
            sees_functions=sees_functions,
        )

    return declare


class Registry(Mapping[str, Function]):
    """All functions a project can use, by name.

    ``make_run`` and ``make_filter`` return what is called for a function, and a filter, of a plug-in, from its
    `language.plugins.Signature`.
    """

    def __init__(
        self,
        functions: Iterable[Function],
        *,
        make_run: Callable[[Any], Callable[..., Any]] | None = None,
        make_filter: Callable[[str, Any], Callable[..., Any]] | None = None,
    ) -> None:
        self._functions: dict[str, Function] = {}
        self.make_run = make_run
        self.make_filter = make_filter
        for declared in functions:
            if declared.name in self._functions:
                raise ValueError(f"the function {declared.name} is declared twice")
            self._functions[declared.name] = declared

    def extended(self, functions: Iterable[Function]) -> Registry:
        """Return a registry with more functions: those of plug-ins."""
        return Registry([*self.values(), *functions], make_run=self.make_run, make_filter=self.make_filter)

    def __getitem__(self, name: str) -> Function:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)


@fast_dataclass()
class Stack:
    """Steps that run one after the other."""

    steps: tuple[Step, ...]
    mark: Mark


@fast_dataclass()
class ConstantArgument:
    """A constant argument: checked and converted (a duration is seconds, a size is bytes)."""

    value: Any
    mark: Mark


@fast_dataclass()
class Arguments:
    """The arguments of a step, or of a group within them, by parameter name."""

    by_name: Mapping[str, Argument]
    mark: Mark

    def get(self, name: str) -> Argument | None:
        return self.by_name.get(name)


@fast_dataclass()
class Items:
    """A list of arguments (elseIf, branches of a merge)."""

    items: tuple[Argument, ...]
    mark: Mark


@fast_dataclass()
class Entry:
    """One key of the author's own and what it holds."""

    key: str
    mark: Mark
    argument: Argument


@fast_dataclass()
class Entries:
    """A mapping from the author's names to arguments, in written order (set, cases, branches)."""

    entries: tuple[Entry, ...]
    mark: Mark


# Value: a Bound or Condition parameter. Given: a Constant, or a Variable's name.
Argument: TypeAlias = "Value | ConstantArgument | Stack | Arguments | Items | Entries"


@fast_dataclass()
class Retry:
    """How a step is tried again. Delays are seconds."""

    times: int
    delay: float = 1.0
    backoff: str = "exponential"
    max_delay: float = 30.0
    jitter: bool = True
    on: frozenset[str] = frozenset()  # empty: every error that trying again can mend (control.FINAL)


@fast_dataclass()
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


@fast_dataclass()
class JsonSchema:
    """A JSON Schema of the author's, compiled.

    ``find_faults`` returns the faults of a value: the name of each part, "" for the value itself, and a message that
    goes on from the name. ``shape`` is what is known of a value that has none.
    """

    source: dict[str, Any]  # as it was written, for models and API descriptions
    refers: bool  # whether it has references
    shape: Shape = field(compare=False)
    find_faults: Callable[[Any], list[tuple[str, str]]] = field(compare=False, repr=False)


@fast_dataclass()
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
    schema: JsonSchema | None = None


#: Methods whose inputs are in the query, unless they say otherwise.
IN_QUERY: Final = frozenset({"GET", "HEAD", "DELETE"})


def place_of(declared: Input, method: str, route: Collection[str], *, whole: bool) -> str:
    """Return where requests hold an input.

    Args:
        declared: The input.
        method: The method of the requests.
        route: The names of the path's parameters.
        whole: Whether another input is the whole body.
    """
    if declared.location is not None:
        return declared.location
    if declared.name in route:
        return "path"
    return "query" if whole or method in IN_QUERY else "body"


@fast_dataclass()
class Way:
    """One way in: an authentication of the settings by its name, and the scopes it must give."""

    name: str
    scopes: tuple[str, ...]
    mark: Mark


@fast_dataclass()
class Authentication:
    """Who may call: clients that pass one of the ways; ``optional``: also those without credentials."""

    ways: tuple[Way, ...]
    optional: bool = False


@fast_dataclass()
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
        return any(read.name in ("input", "sent") or read.is_body for value in self.bindings for read in value.reads)


@fast_dataclass()
class Cache:
    """How answers of an endpoint are stored and replayed. Times are seconds, ``max_size`` is bytes.

    ``by``: the key; None is the inputs and the caller. ``headers``: names of request headers, in small letters.
    """

    mark: Mark
    ttl: float
    by: Value | None = None
    headers: tuple[str, ...] = ()
    stale_while: float = 0.0
    statuses: tuple[int, ...] = (200,)
    max_size: int = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class InputRules:
    """How strictly inputs are checked, for a project and per endpoint."""

    convert: bool = setting(
        Constant(Kind.BOOLEAN),
        'Convert JSON values to the declared type, as texts of forms are: `"5"` for an integer, `5` for a text.',
        False,
    )
    unknown: str = setting(
        Constant(choices=("refuse", "ignore")),
        "Whether undeclared body properties are rejected or ignored. In the formats of LLM SDKs (`openai`), the "
        "default is `ignore`.",
        "refuse",
    )
    null_means_absent: bool = setting(
        Constant(Kind.BOOLEAN), "Treat null as not sent, for inputs that are not `nullable`.", False
    )
    empty_means_absent: bool = setting(Constant(Kind.BOOLEAN), "Treat an empty text as not sent.", False)

    def skips_empty_text(self, declared: Input) -> bool:
        """Tell whether an empty text in a query or a form stands for an input that was not sent."""
        if declared.type == "list":
            item = declared.items
            return self.empty_means_absent or item is None or item.type not in ("text", "enum")
        return "" not in declared.values and (self.empty_means_absent or declared.type not in ("text", "file"))


#: Inputs are checked so where nothing else is configured.
STRICT: Final = InputRules()


@fast_dataclass()
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
    input_rules: InputRules = InputRules()
    response: Value | None = None
    chunks: tuple[Input, ...] = ()  # what their content promises to be, by event name
    response_schema: Input | None = None
    disabled: bool = False
    allow: frozenset[str] = frozenset()
    authentication: Authentication | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    cache: Cache | None = None

    kind = "endpoint"

    @property
    def bindings(self) -> tuple[Value, ...]:
        """The values of its keys, which are evaluated before its steps."""
        headers = tuple(value for _, value in self.headers)
        limits = tuple(value for limit in self.rate_limits for value in limit.bindings)
        return headers + limits + (() if self.cache is None or self.cache.by is None else (self.cache.by,))

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def upgrades(self) -> bool:
        """Whether it can be opened as a WebSocket, whose handshake is a GET (RFC 6455, section 4.1)."""
        return (
            self.method == "GET"
            and self.response_type == "streaming"
            and self.streaming.format in ("auto", "websocket")
        )


@fast_dataclass()
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


@fast_dataclass()
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


@fast_dataclass()
class GroupDefinition:
    """`kind: group`: what the endpoints of its folder, and of those below it, have in common.

    ``stack`` are the calls of its `before` and `after`. ``root`` are its keys, which the endpoints inherit.
    """

    path: str  # "" without a prefix
    root: nodes.Mapping
    stack: Stack
    mark: Mark
    authentication: Authentication | None = None
    allow: frozenset[str] = frozenset()

    kind = "group"

    @property
    def title(self) -> str:
        return f"group {self.path}".rstrip()


Definition = Endpoint | FunctionDefinition | Task


@fast_dataclass()
class Project:
    """All definitions that are served together."""

    endpoints: tuple[Endpoint, ...] = ()
    functions: Mapping[str, FunctionDefinition] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)  # of its plug-ins (`filters.operations.Operation`)

    @property
    def definitions(self) -> tuple[Definition, ...]:
        return (*self.endpoints, *self.functions.values(), *self.tasks)

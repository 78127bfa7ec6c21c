"""Endpoints as the server holds them: the routes to them, and the reader of their requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes
from uuid import uuid4

from streamstack.errors import Mark, RunError
from streamstack.formats import BY_MEDIA_TYPE, BY_NAME
from streamstack.formats.dialect import find_request_faults
from streamstack.language.definition import Endpoint, Input
from streamstack.language.masking import hide
from streamstack.language.paths import Segment, parameters, parse_path
from streamstack.language.ratings import RATING_PATH, Ratings
from streamstack.language.settings import Cors as CorsSettings
from streamstack.language.settings import Resume, Settings
from streamstack.language.values import MISSING
from streamstack.runtime.coercion import invalid, invalid_input
from streamstack.runtime.decoders.decoder import LARGEST
from streamstack.runtime.inputs import Checker, Inputs, JsonText, Layout, Lookup
from streamstack.runtime.plan import Callee, Plan
from streamstack.runtime.run import Run
from streamstack.runtime.values import File
from streamstack.server.access import Guard, Limiter
from streamstack.server.bodies import (
    MOST_FIELDS,
    StreamedBody,
    close_files,
    json_at_hand,
    most_bytes,
    nothing,
    read_body,
    read_form,
)
from streamstack.server.experiments import Assignment
from streamstack.server.headers import CorsHeaders, own_headers
from streamstack.server.ratings import open_recent_runs, rating_stack
from streamstack.server.request import Addresses, Request
from streamstack.server.response import LiveSink, ResponseSink, ValueSink
from streamstack.server.response_cache import ResponseCache
from streamstack.server.response_options import PATIENCE, VALUE, Limits, ResponseOptions, choose
from streamstack.server.resume.log import ResumableSink, StreamPolicy
from streamstack.server.websocket import (
    MessageStream,
    WebSocket,
    WebSocketOptions,
    check_origin,
    upgrade_required,
    wants_upgrade,
)

if TYPE_CHECKING:
    from streamstack.server.service import Service

_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Reader:
    """Reads requests to one endpoint: their inputs, and `request` as its definition sees it.

    Args:
        checker: The declared inputs.
        max_body: Bytes that a body may have.
        reads_body: Whether the definition reads `request.body`.
        dialect: The schemas of the properties that a dialect reads of the body; None for other formats.
        largest: Bytes of a record, in a body that is read as it arrives.
        addresses: What finds the addresses of clients.
    """

    __slots__ = ("_addresses", "_checker", "_dialect", "_largest", "_max_body", "_reads_body", "_sensitive", "takes")

    def __init__(
        self,
        checker: Checker,
        *,
        max_body: int,
        reads_body: bool = False,
        dialect: Mapping[str, Any] | None = None,
        largest: int = LARGEST,
        addresses: Addresses | None = None,
    ) -> None:
        self._checker = checker
        self._max_body = max_body
        self._dialect = dialect
        self._reads_body = reads_body or dialect is not None
        self._largest = largest
        self._addresses = addresses or Addresses()
        self._sensitive = [each for each in checker.inputs if _holds_secrets(each)]
        streams = any(each.type == "stream" for each in checker.inputs)
        self.takes = not (self._reads_body or streams or self._sensitive)  # whether `take` ever reads anything

    def take(self, request: Request, parameters: Mapping[str, str]) -> Inputs | None:
        """Read the inputs of a request that is wholly here; None where that takes `read`. Raises as it does."""
        if not self.takes:
            return None
        layout = self._checker.layout(request.method, parameters)
        body = None
        if request.body_exists:
            data = json_at_hand(request, self._max_body)
            if data is None:
                return None
            body = JsonText(data) if layout.takes_body else None
        return layout.check(partial(_lookup, request, parameters), body)

    async def read(self, request: Request, parameters: Mapping[str, str]) -> Inputs:
        """Read, convert and check the inputs of a request. The caller closes the files with `close_inputs`.

        Raises RunError ``invalid-input``: 400 naming every fault, 413 for what is too long, 415 for a type not taken.
        """
        layout = self._checker.layout(request.method, parameters)
        if layout.stream is not None:
            inputs = self._read_around(layout, layout.stream, request, parameters)
        else:
            inputs = await self._read_whole(layout, request, parameters)
        if self._sensitive:
            hide(value for each in self._sensitive for value in _secrets(each, inputs[each.name]))
        return inputs

    async def _read_whole(self, layout: Layout, request: Request, parameters: Mapping[str, str]) -> Inputs:
        """Read all inputs. Where the bytes of the body are kept and no input is in it, it is not looked at."""
        body = None
        if request.body_exists and (layout.takes_body or self._reads_body):
            body = await read_body(request, layout, self._max_body, keep=self._reads_body)
        try:
            inputs = layout.check(partial(_lookup, request, parameters), body)
            if self._dialect and (faults := find_request_faults(request.body_bytes, self._dialect)):
                raise invalid([{"in": "body", "name": name, "message": message} for name, message in faults])
            return inputs
        except BaseException:
            if isinstance(body, dict):
                close_files(body)
            elif isinstance(body, File):
                body.close()
            raise

    def _read_around(self, layout: Layout, declared: Input, request: Request, parameters: Mapping[str, str]) -> Inputs:
        """Read all inputs but the body, which becomes a stream of what arrives."""
        streamed_body: StreamedBody | MessageStream | None = None
        if request.websocket is not None:
            streamed_body = request.websocket.receive(declared)
        elif request.body_exists:
            most = declared.max_size or self._max_body
            streamed_body = StreamedBody(request, declared, most=most, largest=self._largest)
        inputs = layout.check(partial(_lookup, request, parameters), None)
        if streamed_body is not None:
            request.streamed_body = streamed_body
            inputs[declared.name] = streamed_body.stream
            return inputs
        if declared.required:
            raise invalid_input("body", declared.name, "is required")
        inputs[declared.name] = nothing()
        inputs.absent = inputs.absent | {declared.name}
        return inputs

    def most(self, method: str, names: Sequence[str]) -> int:
        """Return how many bytes a body may have at most; ``names`` are those of the path's parameters."""
        return most_bytes(self._checker.layout(method, names), self._max_body)

    def show(self, request: Request, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        """Return `request` as definitions see it.

        In `query` a name that is repeated holds a list. `headers` are found by any spelling; a repeated one is joined
        by commas (RFC 9110, section 5.3). `id` is the client's X-Request-Id, else a new one.
        """
        query: dict[str, Any] = {}
        if raw := _raw_query(request):
            # Malformed bytes were refused before if an input is in the query; otherwise the endpoint does not read it.
            text = raw.decode("utf-8", "replace")
            for name, value in parse_qsl(text, keep_blank_values=True)[:MOST_FIELDS]:
                held = query.get(name)
                if held is None:
                    query[name] = value
                elif isinstance(held, list):
                    held.append(value)
                else:
                    query[name] = [held, value]
        headers = Headers()
        for name, value in request.headers.items():
            lower = name.lower()
            text = value if value.isascii() else _header_text(value)
            joint = "; " if lower == "cookie" else ", "
            headers[lower] = f"{headers[lower]}{joint}{text}" if lower in headers else text
        sent = headers.get("x-request-id", "")
        return {
            "method": request.method,
            "path": _readable(request.path),
            "parameters": dict(parameters),
            "query": query,
            "headers": headers,
            "cookies": {name: _header_text(value) for name, value in request.cookies.items()},
            "body": request.body_bytes,
            "text": request.body_bytes.decode("utf-8", "replace"),
            "ip": self._addresses.of(request),
            "id": sent if _ID.fullmatch(sent) else uuid4().hex,
        }


def _holds_secrets(declared: Input) -> bool:
    inner = (*(declared.properties or ()), *((declared.items,) if declared.items else ()))
    return declared.sensitive or any(map(_holds_secrets, inner))


def _secrets(declared: Input, value: Any) -> Iterator[Any]:
    """Yield what is sensitive of a value."""
    if declared.sensitive:
        yield value
    elif isinstance(value, Mapping):
        for each in declared.properties or ():
            yield from _secrets(each, value.get(each.name))
    elif isinstance(value, list) and declared.items is not None:
        for item in value:
            yield from _secrets(declared.items, item)


def close_inputs(inputs: Mapping[str, Any]) -> None:
    """Delete the files among the inputs. To be called when the run is over, what comes `after` it included."""
    for value in inputs.values():
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, File):
                one.close()


def _lookup(request: Request, route_parameters: Mapping[str, str], place: str) -> Lookup:
    """Return what finds the texts of a name in a place of the request."""
    if place == "path":
        return lambda name: (route_parameters[name],) if name in route_parameters else ()
    if place == "header":
        headers = request.headers
        return lambda name: headers.getall(name, ())
    if place == "cookie":
        cookies = request.cookies
        return lambda name: (cookies[name],) if name in cookies else ()
    form = read_form(_raw_query(request), "query")
    return lambda name: form.get(name, ())


def _raw_query(request: Request) -> bytes:
    """Return the query as it was sent; what was no ASCII is in it as its bytes."""
    query = request.rel_url.raw_query_string
    return query.encode("utf-8", "surrogatepass") if query else b""


class Headers(dict[str, str]):
    """Headers by their names in small letters, found by any spelling."""

    def __missing__(self, name: str) -> str:
        lower = name.lower()
        if lower == name:
            raise KeyError(name)
        return self[lower]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and dict.__contains__(self, name.lower())


def _readable(text: str) -> str:
    """Return a text with U+FFFD in place of the lone surrogates that stand for bytes which were no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _header_text(text: str) -> str:
    """Return the value of a header; one that is not UTF-8 is read as ISO-8859-1 (RFC 9110, section 5.5)."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


#: Bytes a request's body may have, where the settings say nothing.
MAX_BODY = 10 * 1024 * 1024

Start = Callable[[Run, dict[str, Any]], Coroutine[Any, Any, Any]]
AtOnce = Callable[[Run, dict[str, Any]], Any]
#: Reads what is here already; None where something has to be waited for, or looked at more closely.
Take = Callable[[Request, Mapping[str, str]], dict[str, Any] | None]
Read = Callable[[Request, Mapping[str, str]], Coroutine[Any, Any, dict[str, Any]]]
Show = Callable[[Request, Mapping[str, str]], Mapping[str, Any]]
Prepare = Callable[[Run, dict[str, Any]], list[tuple[str, str]]]


def _take_nothing(request: Request, parameters: Mapping[str, str]) -> dict[str, Any] | None:
    return None


async def _no_inputs(request: Request, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Read nothing: the inputs of an endpoint that has none."""
    return {}


def _show_little(request: Request, parameters: Mapping[str, str]) -> Mapping[str, Any]:
    return {"method": request.method, "path": request.path}


@dataclass(frozen=True, slots=True)
class EndpointHandler:
    """An endpoint, ready for requests.

    ``wire`` is the pattern for the wires of all its formats; with ``negotiated`` in it the format is the request's
    choice. ``at_once`` runs a stack in which nothing waits. ``read`` reads and checks the inputs, ``take`` does where
    they are all here; ``close`` deletes the files among them. ``show`` gives `request` as bindings see it. ``prepare``
    is called before the stack, with the run and its inputs: it assigns the variants of ``experiments``, and gives the
    endpoint's own headers, where they hold bindings.
    """

    method: str
    path: str
    start: Start
    wire: ResponseOptions
    file: str = ""
    limits: Limits = field(default_factory=Limits)
    at_once: AtOnce | None = None
    take: Take = _take_nothing
    read: Read = _no_inputs
    show: Show = _show_little
    close: Callable[[Mapping[str, Any]], None] | None = None
    prepare: Prepare | None = None
    experiments: Assignment | None = None
    max_body: int = MAX_BODY
    guard: Guard | None = None  # who may call; None is everybody
    limiter: Limiter | None = None  # how often; None is as often as one likes
    outlives: bool = False  # `onDisconnect: finish`
    receives: bool = False  # the body is read as it arrives
    resume: Resume | None = None  # readers may come back
    jobs: Mapping[str, Callee] | None = None  # the functions of its project, where that starts jobs
    cache: ResponseCache | None = None  # answers are stored and replayed
    web_socket: WebSocketOptions | None = None  # where it can be opened as one
    row: int = field(default=0, init=False)  # where its figures are kept
    wires: Mapping[str, ResponseOptions] = field(init=False)
    policy: StreamPolicy = field(init=False)  # of its streams, for readers who come back

    def __post_init__(self) -> None:
        wire = self.wire
        names = [each.name for each in BY_MEDIA_TYPE.values()] if wire.negotiated else [wire.format]
        if self.web_socket is not None:
            names.append("websocket")
        object.__setattr__(self, "wires", {name: self.wire.of(name) for name in names})
        policy = StreamPolicy.of(self.wire, self.limits.keep_alive, self.guard)
        object.__setattr__(self, "policy", policy)

    def begin(self, service: Service, run: Run, inputs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        """Run the stack for a request, or replay what an earlier one has sent."""
        return self.start(run, inputs) if self.cache is None else self.cache.answer(service, self, run, inputs)

    def take_rows(self, row_of: Callable[[str], int]) -> None:
        """Keep figures in these rows from now on, by their titles; said once, before there are requests."""
        object.__setattr__(self, "row", row_of(self.title))
        if self.experiments is not None:
            self.experiments.take_rows(row_of)

    @property
    def row_titles(self) -> list[str]:
        """The titles of the rows in which its figures are kept."""
        return [self.title, *(self.experiments.titles.values() if self.experiments is not None else ())]

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}"

    def open(self, request: Request, cors: CorsHeaders) -> ResponseSink:
        """Open the writer for a request.

        Raises RunError ``not-acceptable`` where its Accept header fits no format, ``forbidden`` where a page may not
        open the WebSocket that it asks for.
        """
        if self.web_socket is not None and wants_upgrade(request):
            check_origin(request, cors)
            request.websocket = WebSocket(request, self.web_socket)
            wire, lines = self.wires["websocket"], b""
        else:
            wire, lines = self.wire_for(request), cors.lines(request.headers.get("Origin"))
        sink: ResponseSink
        if wire.spec is VALUE:
            sink = ValueSink(wire, request, lines)
        elif self.resume is not None and wire.spec.resumable and request.method != "HEAD":
            sink = ResumableSink(wire, request, lines)
        else:
            sink = LiveSink(wire, request, lines)
        sink.row = self.row
        return sink

    def wire_for(self, request: Request) -> ResponseOptions:
        """Return the wire that a request asks for over HTTP. Raises as `open` does."""
        if self.wire.spec.upgrade:
            raise upgrade_required()
        if self.wire.negotiated:
            return self.wires[choose(request.headers.get("Accept"))]
        return self.wire


class UnservableError(Exception):
    """A definition that was found sound, and can't be served all the same."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(f"{mark}: {message}")


def make_endpoints(plans: Iterable[Plan], settings: Settings, *, dev: bool) -> list[EndpointHandler]:
    """Make what the service serves of the plans.

    Raises UnservableError, with the place.
    """
    server = settings.server
    addresses = Addresses(server.trusted_proxies, server.forwarded_header)
    made = [_make(plan, settings, addresses, dev=dev) for plan in plans]
    if settings.ratings is None:
        return made
    guards = {each.title: each.guard for each in made if each.path != RATING_PATH}
    cors, keep = make_cors(server.cors), settings.ratings.keep
    return [
        replace(each, start=rating_stack(each.start, guards, cors, keep), at_once=None)
        if each.path == RATING_PATH
        else each
        for each in made
    ]


def _dialect_of(endpoint: Endpoint) -> Mapping[str, Any] | None:
    """Return the schemas of what the format of an endpoint reads beside the inputs; None if it is not a dialect."""
    spec = BY_NAME.get(endpoint.streaming.format)
    if spec is None or not spec.dialect:
        return None
    reads = spec.schemas.reads if spec.schemas is not None else {}
    names = {each.name for each in endpoint.inputs}
    return {name: schema for name, schema in reads.items() if name not in names}


def _make(plan: Plan, settings: Settings, addresses: Addresses, *, dev: bool) -> EndpointHandler:
    endpoint = plan.endpoint
    names = parameters(endpoint.path)
    streams = endpoint.response_type == "streaming"
    reader = Reader(
        plan.checker,
        max_body=settings.server.max_body_size,
        reads_body=plan.reads_body,
        # In a dialect it is the body that asks for a stream, and for a model.
        dialect=_dialect_of(endpoint) if streams else None,
        largest=settings.http.max_event_size,
        addresses=addresses,
    )
    constant, prepare = _headers(plan)
    taken = [each for name, each in settings.experiments.items() if plan.experiments & {name, ""}]
    experiments = Assignment(endpoint.title, taken) if taken else None
    if experiments is not None or (settings.ratings is not None and endpoint.path != RATING_PATH):
        prepare = _preparing(endpoint.title, experiments, settings.ratings, prepare)
    guard = limiter = None
    if endpoint.authentication is not None:
        guard = Guard(endpoint.authentication, settings.authentication)
    if endpoint.rate_limits:
        limiter = Limiter(plan, addresses)
    try:
        layout = plan.checker.layout(endpoint.method, names)
        wire = _wire(plan, constant, cors=settings.server.cors is not None, dev=dev)
        largest = reader.most(endpoint.method, names)
    except (RunError, ValueError) as error:
        raise UnservableError(endpoint.mark, str(error)) from error
    return EndpointHandler(
        method=endpoint.method,
        path=endpoint.path,
        start=plan.start,
        at_once=None if guard or limiter or endpoint.cache or not reader.takes or streams else plan.at_once,
        wire=wire,
        file=endpoint.mark.file,
        limits=_limits(endpoint),
        take=reader.take,
        read=reader.read,
        show=reader.show,
        close=close_inputs if layout.files or layout.whole is not None else None,
        prepare=prepare,
        experiments=experiments,
        max_body=largest,
        receives=layout.stream is not None,
        guard=guard,
        limiter=limiter,
        outlives=endpoint.streaming.on_disconnect == "finish",
        resume=endpoint.streaming.resume,
        jobs=plan.jobs,
        cache=None if endpoint.cache is None else ResponseCache(plan, endpoint.cache, whole=not streams),
        web_socket=_web_socket(endpoint, guard) if endpoint.upgrades else None,
    )


def _web_socket(endpoint: Endpoint, guard: Guard | None) -> WebSocketOptions:
    streaming = endpoint.streaming
    return WebSocketOptions(
        keep_alive=streaming.keep_alive,
        largest=streaming.web_socket.max_message_size,
        rate=streaming.web_socket.message_rate,
        subprotocols=streaming.web_socket.subprotocols + (guard.subprotocols if guard is not None else ()),
        compress=streaming.compress,
    )


def _preparing(title: str, experiments: Assignment | None, ratings: Ratings | None, headers: Prepare | None) -> Prepare:
    """Return what assigns variants, remembers runs that can be rated, and evaluates headers."""

    def prepare(run: Run, inputs: dict[str, Any]) -> list[tuple[str, str]]:
        row = title if experiments is None else experiments.assign(run, inputs)
        if ratings is not None:
            run.context.resource(open_recent_runs).remember(run, title, row, ratings.keep)
        return headers(run, inputs) if headers is not None else []

    return prepare


def _headers(plan: Plan) -> tuple[tuple[tuple[str, str], ...], Prepare | None]:
    """Return the endpoint's own headers: as they are where none has a binding, else how to."""
    constants = {name: value.constant for name, value in plan.endpoint.headers}
    varied = () if plan.endpoint.cache is None else plan.endpoint.cache.headers
    vary = [("Vary", ", ".join(each.title() for each in varied))] if varied else []
    if MISSING not in constants.values():
        return (*own_headers(constants), *vary), None

    def evaluate(run: Run, inputs: dict[str, Any]) -> list[tuple[str, str]]:
        return [*own_headers(plan.headers(run, inputs), bound=True), *vary]

    return (), evaluate


def _wire(plan: Plan, headers: tuple[tuple[str, str], ...], *, cors: bool, dev: bool) -> ResponseOptions:
    streaming = plan.endpoint.streaming
    negotiated = False
    if plan.endpoint.response_type == "json":
        name = "value"
    elif streaming.format == "auto":
        name, negotiated = "sse", True
    else:
        name = streaming.format
    return ResponseOptions(
        name,
        shapes=plan.shapes,
        headers=headers,
        negotiated=negotiated,
        ids=streaming.ids,
        done=streaming.done,
        separator=streaming.separator,
        end=streaming.end,
        buffer=streaming.buffer,
        max_bytes=streaming.max_bytes or 0,
        slow=streaming.slow_client,
        grace=streaming.grace,
        patience=streaming.idle_timeout or PATIENCE,
        compress=streaming.compress and name != "value" and not BY_NAME[name].whole,
        cors=cors,
        dev=dev,
    )


def _limits(endpoint: Endpoint) -> Limits:
    streaming = endpoint.streaming
    if endpoint.response_type == "json":
        # One value has no first chunk, no pauses, and no heartbeat.
        return Limits(
            0,
            0,
            0,
            streaming.max_duration,
            body=streaming.first_chunk_timeout,
            arrival=streaming.idle_timeout if any(map(_is_stream, endpoint.inputs)) else 0,
        )
    return Limits(
        keep_alive=streaming.keep_alive,
        first_chunk=streaming.first_chunk_timeout,
        idle=streaming.idle_timeout,
        longest=streaming.max_duration,
        jitter=streaming.jitter,
        closing=streaming.grace if streaming.slow_client == "disconnect" else 0,
    )


def _is_stream(declared: Input) -> bool:
    return declared.type == "stream"


def make_cors(settings: CorsSettings | None) -> CorsHeaders:
    """Make the rules for other origins of the settings; None lets no other origin in."""
    if settings is None:
        return CorsHeaders()
    return CorsHeaders(
        origins=frozenset(settings.origins),
        headers=settings.headers,
        exposed=settings.expose_headers,
        credentials=settings.credentials,
        max_age=int(settings.max_age),
    )


T = TypeVar("T")

_NONE: Mapping[str, str] = {}


class _Branch(Generic[T]):
    """The routes of one method that share the segments so far."""

    __slots__ = ("literals", "names", "parameter", "patterns", "rest", "target")

    def __init__(self) -> None:
        self.literals: dict[str, _Branch[T]] = {}
        self.patterns: list[tuple[Segment, _Branch[T]]] = []
        self.parameter: _Branch[T] | None = None
        self.rest: tuple[T, tuple[str, ...]] | None = None
        self.target: T | None = None
        self.names: tuple[str, ...] = ()

    def add(self, segments: list[Segment], target: T) -> None:
        """Add a route. The first one at a place stays there."""
        branch = self
        names = tuple(name for segment in segments for name in segment.names)
        for segment in segments:
            if segment.rest:
                branch.rest = branch.rest or (target, names)
                return
            branch = branch._child(segment)
        if branch.target is None:
            branch.target, branch.names = target, names

    def _child(self, segment: Segment) -> _Branch[T]:
        if not segment.names:
            return self.literals.setdefault(segment.literals[0], _Branch())
        if segment.literals == ("", ""):
            self.parameter = self.parameter or _Branch()
            return self.parameter
        for pattern, branch in self.patterns:
            if pattern.literals == segment.literals:
                return branch
        added: _Branch[T] = _Branch()
        self.patterns.append((segment, added))
        self.patterns.sort(key=lambda each: each[0].rank)
        return added

    def find(self, segments: list[str], at: int = 0) -> tuple[T, tuple[str, ...], list[str]] | None:
        """Find the target of these segments, with the names and values of the parameters from here on.

        At each segment the literal beats a pattern, a pattern those of higher `rank`, those the parameter, and that
        the rest of the path.
        """
        if at == len(segments):
            return None if self.target is None else (self.target, self.names, [])
        segment = segments[at]
        literal = self.literals.get(segment)
        if literal is not None and (found := literal.find(segments, at + 1)) is not None:
            return found
        if not segment:
            return None  # an empty segment is not a value: /users/ is not /users/{id}
        for pattern, branch in self.patterns:
            values = pattern.match(segment)
            if values is not None and (found := branch.find(segments, at + 1)) is not None:
                found[2][:0] = values
                return found
        if self.parameter is not None and (found := self.parameter.find(segments, at + 1)) is not None:
            found[2].insert(0, segment)
            return found
        return None if self.rest is None else (*self.rest, ["/".join(segments[at:])])


class Routes(Generic[T]):
    """All routes of a project. It never changes: a reload replaces it as a whole.

    Literal segments beat `{parameters}`, and those `{rest:path}`, from left to right. A slash at the end makes no
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
        for spell in (str, _toggle_slash):
            for method, path, target in listed:
                if not (spelled := spell(path)):
                    continue
                self._trees.setdefault(method, _Branch()).add(_segments(spelled), target)
                if "{" not in spelled and "%" not in spelled:
                    literals = self._literals.setdefault(method, {})
                    literals.setdefault(spelled, (target, _NONE))

    def find(self, method: str, path: str) -> tuple[T, Mapping[str, str]] | None:
        """Find what answers a method at a raw path (without query), and the path's parameters.

        Raises RunError ``invalid-input`` for a path that is not UTF-8.
        """
        literals = self._literals.get(method)
        if literals is not None and (fixed := literals.get(path)) is not None:
            return fixed
        tree = self._trees.get(method)
        if tree is None or not path.startswith("/"):
            return None
        if "#" in path:
            raise RunError("invalid-input", "a request names no part of what it asks for: leave # out")
        segments = path[1:].split("/")
        if "%" in path:
            segments = [_decode(segment) for segment in segments]
        found = tree.find(segments)
        if found is None:
            return None
        target, names, values = found
        return target, dict(zip(names, values, strict=True))

    def methods(self, path: str) -> list[str]:
        """List the methods that a raw path can be asked with, HEAD and OPTIONS among them."""
        found = [method for method in self._trees if self.find(method, path) is not None]
        if not found:
            return []
        implied = ["HEAD"] if "GET" in found else []
        return sorted({*found, *implied, "OPTIONS"})


def _segments(path: str) -> list[Segment]:
    """Return the segments of a path; one that ends with a slash has an empty one at its end, and so has `/`."""
    return [*parse_path(path.removesuffix("/") or "/"), *([Segment(("",))] if path.endswith("/") else [])]


def _toggle_slash(path: str) -> str:
    if path == "/" or path.endswith(":path}"):
        return ""
    return path[:-1] if path.endswith("/") else path + "/"


def _decode(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise RunError("invalid-input", "the path is not UTF-8: percent-encode its bytes as UTF-8") from None

"""From compiled plans to served endpoints: what can be decided before there is a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streamstack.errors import Mark, RunError
from streamstack.formats import BY_NAME, DIALECTS
from streamstack.language.definition import Endpoint, Input
from streamstack.language.loading.checks import parameters
from streamstack.language.settings import Cors as CorsSettings
from streamstack.language.settings import Settings
from streamstack.language.values import MISSING
from streamstack.runtime.plan import Plan
from streamstack.runtime.run import Run
from streamstack.server.addresses import Addresses
from streamstack.server.authentication import Guard
from streamstack.server.cors import Cors
from streamstack.server.heads import own_headers
from streamstack.server.inputs import Reader, close_inputs
from streamstack.server.limits import Limiter
from streamstack.server.served import Own, Served
from streamstack.server.wire import PATIENCE, Limits, Wire


class UnservableError(Exception):
    """A definition that was found sound, and can't be served all the same."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(f"{mark}: {message}")


def make_endpoints(plans: Iterable[Plan], settings: Settings, *, dev: bool) -> list[Served]:
    """Make what the service serves of the plans.

    Raises UnservableError, with the place.
    """
    server = settings.server
    addresses = Addresses(server.trusted_proxies, server.forwarded_header)
    return [_make(plan, settings, addresses, dev=dev) for plan in plans]


def _make(plan: Plan, settings: Settings, addresses: Addresses, *, dev: bool) -> Served:
    endpoint = plan.endpoint
    names = parameters(endpoint.path)
    streams = endpoint.response_type == "streaming"
    reader = Reader(
        plan.checker,
        max_body=settings.server.max_body_size,
        # In a dialect it is the body that asks for a stream, and for a model.
        keeps_body=plan.reads_body or (streams and endpoint.streaming.format in DIALECTS),
        largest=settings.http.max_event_size,
        address=addresses.of,
    )
    constant, bound = _headers(plan)
    guard = limiter = None
    if endpoint.authentication is not None:
        guard = Guard(endpoint.authentication, settings.authentication)
    if endpoint.rate_limits:
        limiter = Limiter(plan, addresses)
    try:
        layout = plan.checker.layout(endpoint.method, names)
        wire = _wire(plan, constant, dev=dev)
        largest = reader.most(endpoint.method, names)
    except (RunError, ValueError) as error:
        raise UnservableError(endpoint.mark, str(error)) from error
    return Served(
        method=endpoint.method,
        path=endpoint.path,
        start=plan.start,
        at_once=plan.at_once
        if wire.format == "value" and reader.takes and not (guard or limiter)
        else None,
        wire=wire,
        file=endpoint.mark.file,
        limits=_limits(endpoint),
        take=reader.take,
        read=reader.read,
        show=reader.show,
        close=close_inputs if layout.files or layout.whole is not None else None,
        headers=bound,
        max_body=largest,
        receives=layout.stream is not None,
        guard=guard,
        limiter=limiter,
        outlives=endpoint.streaming.on_disconnect == "finish",
        resume=endpoint.streaming.resume,
    )


def _headers(plan: Plan) -> tuple[tuple[tuple[str, str], ...], Own | None]:
    """Return the endpoint's own headers: as they are where none has a binding, else how to."""
    given = {name: value.constant for name, value in plan.endpoint.headers}
    if MISSING not in given.values():
        return tuple(own_headers(given)), None

    def evaluate(run: Run, inputs: dict[str, Any]) -> list[tuple[str, str]]:
        return own_headers(plan.headers(run, inputs), bound=True)

    return (), evaluate


def _wire(plan: Plan, headers: tuple[tuple[str, str], ...], *, dev: bool) -> Wire:
    streaming = plan.endpoint.streaming
    negotiated = False
    if plan.endpoint.response_type == "json":
        name = "value"
    elif streaming.format == "auto":
        name, negotiated = "sse", True
    else:
        name = streaming.format
    return Wire(
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


def make_cors(settings: CorsSettings | None) -> Cors:
    """Make the rules for other origins of the settings; None lets no other origin in."""
    if settings is None:
        return Cors()
    return Cors(
        origins=frozenset(settings.origins),
        headers=settings.headers,
        exposed=settings.expose_headers,
        credentials=settings.credentials,
        max_age=int(settings.max_age),
    )

"""What an endpoint responds: media types with their schemas, and the errors that it can raise, by status."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from streamstack.errors import ERRORS
from streamstack.formats import BY_MEDIA_TYPE, BY_NAME
from streamstack.formats.spec import Format
from streamstack.language.definition import Arguments, ConstantArgument, Endpoint
from streamstack.language.expressions.compile import ObjectValue
from streamstack.language.graph import Graph, Node, constant
from streamstack.language.openapi.chunks import Payloads
from streamstack.language.openapi.components import PROBLEM, RATE_HEADERS, Components
from streamstack.language.openapi.requests import JSON
from streamstack.language.schema import Schema
from streamstack.spec import Nesting

#: What the functions fail with, by the beginning of their names: error codes, besides those of every run.
_FAILURES: Final[Mapping[str, tuple[str, ...]]] = {
    "email.": ("email-refused", "email-connection", "email-unconfirmed"),
    "webhook.": ("http-status", "http-connection"),
    "http.": ("http-status", "http-connection", "stream-lost", "invalid-chunk"),
    "websocket.": ("http-status", "http-connection", "stream-lost", "invalid-chunk"),
    "llm.": ("http-status", "http-connection", "stream-lost", "invalid-chunk"),
    "jwt.verify": ("unauthorized",),
    "rateLimit": ("rate-limited",),
    "db.patch": ("not-found",),
}
#: Functions whose statements may violate a constraint, which answers 400 or 409.
_WRITES: Final = frozenset(
    {"db.insert", "db.update", "db.upsert", "db.patch", "db.delete", "db.execute", "db.query", "db.first", "db.value"}
)
#: The names of responses that several endpoints share, and what is said of them.
_SHARED: Final[Mapping[int, tuple[str, str]]] = {
    400: ("BadRequest", "The request does not match the declared inputs. `errors` lists every problem."),
    401: ("Unauthorized", "Authentication is missing or invalid."),
    403: ("Forbidden", "The client is not allowed to do this."),
    404: ("NotFound", "The stream does not exist: it has expired, or it belongs to another client."),
    406: ("NotAcceptable", "The endpoint supports none of the formats in `Accept`."),
    409: ("Conflict", "The run was stopped, or the database has a conflicting row."),
    426: ("UpgradeRequired", "The endpoint is a WebSocket: it needs `Upgrade: websocket`."),
    413: ("ContentTooLarge", "The request body is too large."),
    415: ("UnsupportedMediaType", "The request body has a media type that is not supported."),
    422: ("UnprocessableContent", "The `Idempotency-Key` was used with a different request."),
    431: ("RequestHeaderFieldsTooLarge", "The path, the query string or a header is too long."),
    429: ("TooManyRequests", "The client exceeded a rate limit."),
    500: ("InternalServerError", "The server could not complete the request."),
    502: ("BadGateway", "An upstream failed, or sent something that can't be read."),
    503: ("ServiceUnavailable", "The server, or a service that it needs, can't handle the request now."),
    504: ("GatewayTimeout", "A time-out was exceeded."),
}
_HEADERS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After", *RATE_HEADERS), 503: ("Retry-After",)}
#: What stands for statuses that are not known before the run: of good responses, and of errors.
ANY_STATUS: Final = "default"
_ANY_ERROR: Final = ("4XX", "5XX")
#: Statuses of responses that have no content.
_BODILESS: Final = frozenset({204, 205, 304})


def formats_of(endpoint: Endpoint) -> list[tuple[str, Format]]:
    """Return the formats that a streaming endpoint has, by media type."""
    if endpoint.streaming.format == "auto":
        return list(BY_MEDIA_TYPE.items())
    spec = BY_NAME[endpoint.streaming.format]
    if spec.upgrade:
        return []
    named = next((value for name, value in endpoint.headers if name.lower() == "content-type"), None)
    media = spec.content_type if named is None else named.constant
    return [(media.partition(";")[0].strip() if isinstance(media, str) else "*/*", spec)]


def dialect_content(media: str, spec: Format) -> Schema:
    """Return the media types of a response in a dialect: events, and one object where it has that too."""
    assert spec.schemas is not None
    content: Schema = {media: {"itemSchema": dict(spec.schemas.event)}}
    if spec.schemas.document:
        content[JSON] = {"schema": dict(spec.schemas.document)}
    return content


def make_content(payloads: Payloads, formats: list[tuple[str, Format]]) -> Schema:
    """Return the media types of a streaming response."""
    content: Schema = {}
    line: Schema | None = None
    for media, spec in formats:
        if spec.whole:
            content[media] = {"schema": payloads.document()}
        elif spec.name == "sse":
            content[media] = {"itemSchema": payloads.event()}
        elif spec.resumable:
            line = line or payloads.reference("line", payloads.line())
            content[media] = {"itemSchema": line}
        else:
            content[media] = {} if spec.name == "bytes" else {"schema": {"type": "string"}}
    return content


def success_headers(endpoint: Endpoint, nodes: list[Node], components: Components) -> Schema:
    """Return the headers of a good response."""
    names = ["X-Run-Id"]
    if endpoint.streaming.resume is not None:
        names.append("X-Stream-Id")
    if any(each.rate for each in endpoint.rate_limits):
        names += RATE_HEADERS
    if endpoint.cache is not None:
        names += ("Age", "Cache-Status", *(("ETag",) if is_validated(endpoint) else ()))
    headers = components.headers(*names)
    own = [name for name, _ in endpoint.headers]
    for node in nodes:
        if node.step.function.name == "respond":
            written = node.arguments.get("headers")
            if isinstance(written, ObjectValue):
                own += [name for name, _ in written.entries]
            elif isinstance(known := constant(written), dict):
                own += map(str, known)
    for name in dict.fromkeys(own):
        if name.lower() not in ("content-type", *map(str.lower, headers)):
            headers[name] = {"schema": {"type": "string"}}
    return headers


def is_validated(endpoint: Endpoint) -> bool:
    """Tell whether responses have an entity tag: cached ones that are sent in one piece."""
    whole = endpoint.response_type == "json" or endpoint.streaming.format in ("auto", "json")
    return endpoint.cache is not None and whole and endpoint.method in ("GET", "HEAD")


def own_media_types(endpoint: Endpoint, nodes: list[Node]) -> list[str]:
    """Return the media types that headers of the endpoint and of its steps set; `*/*` for a binding."""
    found = [value.constant for name, value in endpoint.headers if name.lower() == "content-type"]
    for node in nodes:
        written = node.arguments.get("headers") if node.step.function.name == "respond" else None
        if isinstance(written, ObjectValue):
            found += [value.constant for name, value in written.entries if name.lower() == "content-type"]
        elif isinstance(known := constant(written), dict):
            found += [value for name, value in known.items() if str(name).lower() == "content-type"]
        elif written is not None:
            found.append(None)
    return [each.partition(";")[0].strip() if isinstance(each, str) else "*/*" for each in found]


def make_upgrade(endpoint: Endpoint, headers: Schema) -> Schema:
    """Return the response to the handshake of a WebSocket; OpenAPI has no place for the messages that follow."""
    takes = next((each for each in endpoint.inputs if each.type == "stream"), None)
    description = (
        "With `Upgrade: websocket` the connection becomes a WebSocket. Each chunk is a text message, a JSON object "
        "with `content`, and with `event`, `id` and `metadata` where they are set; `done`, `error` and `gap` are "
        "objects with that one property. Close codes: 1000 the clean end, 1001 shutdown, 1007 to 1009 an invalid "
        "message from the client, 1011 any other error."
    )
    if takes is not None:
        name = f"`{takes.name}` ({takes.decode})" if takes.decode else f"`{takes.name}`"
        description += f" Messages from the client are the input {name}."
    own = {name: each for name, each in headers.items() if name != "Content-Type"}
    return {"101": {"description": description, "headers": own}}


def success_statuses(graph: Graph, nodes: list[Node]) -> list[str]:
    """Return the statuses of good responses: 200, unless a step always sets another one; ANY_STATUS for a binding."""
    found: dict[str, None] = {}
    always = False
    for node in nodes:
        if node.step.function.name != "respond" or node.arguments.get("status") is None:
            continue
        status = constant(node.arguments.get("status"))
        found[str(status) if isinstance(status, int) else ANY_STATUS] = None
        always = always or (node in graph.root.nodes and node.step.when is None and not node.step.disabled)
    return list(found) if always else ["200", *(each for each in found if each != "200")]


# ------------------------------------------------------------------------------------------ errors


def raised(nodes: list[Node]) -> Iterator[tuple[int, str, str]]:
    """Yield the errors that steps throw and do not catch: status, code and message, which may be empty."""
    for node in nodes:
        name = node.step.function.name
        if name not in ("throw", "precondition") or node.step.disabled:
            continue
        code = constant(node.arguments.get("code"), node.step.function.by_name["code"].default)
        known = ERRORS.get(code) if isinstance(code, str) else None
        usual = 400 if name == "precondition" else 500 if known is None else known.status
        status = constant(node.arguments.get("status"), usual)
        message = constant(node.arguments.get("message"), node.step.function.by_name["message"].default)
        if not _is_caught(node, code):
            is_error = isinstance(status, int) and 400 <= status <= 599
            code = code if isinstance(code, str) else ""
            yield status if is_error else usual, code, message if isinstance(message, str) else ""


def raises_any_status(nodes: list[Node]) -> bool:
    """Tell whether the status of an error is a binding, or is for a plug-in to say."""
    if any(each.step.function.plugin for each in nodes):
        return True
    thrown = [each for each in nodes if each.step.function.name in ("throw", "precondition")]
    return any(not isinstance(constant(each.arguments.get("status"), 0), int) for each in thrown)


def _is_caught(node: Node, code: object) -> bool:
    """Tell whether a `try` around a step catches an error of a code, which is not a text if it is a binding."""
    block = node.block
    while block.owner is not None:
        if block.nesting is Nesting.GUARDED and isinstance(handler := block.owner.arguments.get("catch"), Arguments):
            codes = handler.get("on")
            if codes is None or (isinstance(codes, ConstantArgument) and code in codes.value):
                return True
        block = block.owner.block
    return False


def error_statuses(
    endpoint: Endpoint, nodes: list[Node], *, has_body: bool, has_parameters: bool, scopes: bool
) -> set[int]:
    """Return the statuses of errors that the endpoint can raise itself: those of its keys and of its functions."""
    found = {500, 503, 504}
    resumable = endpoint.streaming.resume is not None
    functions = {node.step.function.name for node in nodes if not node.step.disabled}
    if endpoint.inputs or has_body:
        found.add(400)
    if has_body:
        found |= {413, 415}
    if has_parameters:
        found.add(431)
    if endpoint.authentication is not None:
        found |= {401, 403} if scopes else {401}
    if endpoint.rate_limits:
        found.add(429)
    if endpoint.response_type == "streaming" and endpoint.streaming.format == "auto":
        found.add(406)
    if endpoint.upgrades:
        found |= {400, 403} if endpoint.streaming.format == "auto" else {400, 403, 426}
    if resumable:
        found |= {404, 406, 409, 429}
        if endpoint.method not in ("GET", "HEAD", "OPTIONS"):
            found |= {400, 422}
    for name in functions:
        for start, codes in _FAILURES.items():
            if name.startswith(start):
                found |= {ERRORS[code].status for code in codes}
    if functions & _WRITES:
        found |= {400, 409}
    return found


def make_errors(
    statuses: Collection[int],
    thrown: list[tuple[int, str, str]],
    components: Components,
    spec: Format | None,
    *,
    any_status: bool = False,
) -> Schema:
    """Return the responses to errors by status; ``spec`` is the dialect in which they are written.

    With ``any_status`` there are errors whose status is not known before the run.
    """
    own: dict[int, dict[str, str]] = {}
    for status, code, message in thrown:
        codes_of = own.setdefault(status, {})
        if code:
            codes_of.setdefault(code, message)
    responses: Schema = {}
    body = {PROBLEM: {"schema": components.schema("Problem")}}
    prefix = ""
    if spec is not None and spec.schemas is not None and spec.schemas.error:
        prefix = spec.name.capitalize()
        body[JSON] = {"schema": components.add("schemas", f"{prefix}Error", dict(spec.schemas.error))}
    for status in sorted({*statuses, *own}):
        name, description = _SHARED.get(status, ("", ""))
        name = f"{prefix}{name}"
        headers = components.headers("X-Run-Id", *_HEADERS.get(status, ()))
        codes = [f"`{code}`: {message}" if message else f"`{code}`." for code, message in own.get(status, {}).items()]
        if status in statuses and description:
            codes = [description, *codes] if codes else codes
        description = "\n\n".join(codes) or description or "An error."
        response = {"description": description, "headers": headers, "content": body}
        if codes or status not in _SHARED:
            responses[str(status)] = response
        else:
            responses[str(status)] = components.add("responses", name, response)
    for status_range in _ANY_ERROR if any_status else ():
        headers = components.headers("X-Run-Id")
        responses[status_range] = {"description": "Another error.", "headers": headers, "content": body}
    return responses


def is_bodiless(status: str) -> bool:
    """Tell whether responses of a status have no content."""
    return status.isdigit() and int(status) in _BODILESS

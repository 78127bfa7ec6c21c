"""The settings of a project, streamstack.yaml: each declared on the dataclass that holds it."""

from __future__ import annotations

import re
from collections import abc
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TextIO, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from streamstack.errors import Diagnostic
from streamstack.formats import FORMATS, NAMES
from streamstack.formats.items import REASONS
from streamstack.language.alerts import ALERTS, Alert, check_sends
from streamstack.language.authentication import AUTHENTICATION, Methods
from streamstack.language.channels import CHANNELS, ChannelSettings
from streamstack.language.definition import InputRules
from streamstack.language.environment import REDIS, RedisUrl, blame, parse_redis, substitute
from streamstack.language.experiments import EXPERIMENTS, Experiment, keys_in
from streamstack.language.findings import make_diagnostic
from streamstack.language.jobs import JobSettings
from streamstack.language.kinds import Kind
from streamstack.language.mail import EmailSettings
from streamstack.language.names import did_you_mean
from streamstack.language.nodes import Mapping, Node, Scalar
from streamstack.language.plugin_files import PLUGIN, PluginFile
from streamstack.language.ratings import RATINGS, Ratings
from streamstack.language.secrets import find_secrets
from streamstack.language.source import read
from streamstack.language.values import MISSING
from streamstack.language.web_socket import WebSocketSettings
from streamstack.spec import (
    Bound,
    Constant,
    Custom,
    Group,
    ListOf,
    Named,
    RefusedError,
    Section,
    SettingsReader,
    fields_of,
    group_of,
    is_null,
    is_written,
    setting,
)

# ----------------------------------------------------------------------------------------- server

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+|null", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: The headers in which proxies say who called; the first is the usual one (RFC 7239 has the other).
FORWARDED: Final = ("X-Forwarded-For", "Forwarded")
Network: TypeAlias = IPv4Network | IPv6Network

_DURATION: Final = Constant(Kind.DURATION)
_SIZE: Final = Constant(Kind.SIZE)
_FLAG: Final = Constant(Kind.BOOLEAN)
_TIME: Final = Constant(Kind.DURATION, off=True)


def _origin(value: Any) -> str:
    if value == "*":
        return "*"
    if not isinstance(value, str) or not _ORIGIN.fullmatch(value):
        raise ValueError('write an origin like https://example.org, without a path, or "*"')
    return value.lower()


def _header(value: Any) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("must be the name of a header, such as X-Request-Id")
    return value


def _network(value: Any) -> Network:
    hint = "write the addresses of your proxies: [127.0.0.1, 10.0.0.0/8]"
    try:
        network = ip_network(value if isinstance(value, str) else "", strict=False)
    except ValueError:
        raise RefusedError("must be an address or a network", hint) from None
    if not network.prefixlen:
        raise RefusedError("if everybody is believed, everybody can be anybody", hint)
    return network


def _forwarded(value: Any) -> str:
    known = {name.lower(): name for name in FORWARDED}
    found = known.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"it is {' or '.join(FORWARDED)}{did_you_mean(str(value), FORWARDED)}")
    return found


@dataclass(frozen=True, slots=True)
class Cors:
    """CORS settings (https://fetch.spec.whatwg.org/#http-cors-protocol).

    ``origins`` is ("*",) for any. ``headers`` are the allowed request headers; ("*",) allows any. ``max_age``
    is in seconds.
    """

    origins: tuple[str, ...] = setting(
        ListOf(Constant(parse=_origin), alone=True),
        "Allowed origins, such as https://example.org. `*` allows any origin.",
        example="[https://example.org]",
    )
    headers: tuple[str, ...] = setting(
        ListOf(Constant(parse=_header), alone=True),
        "Request headers that a page may send. `*` allows any header.",
        ("*",),
    )
    expose_headers: tuple[str, ...] = setting(
        ListOf(Constant(parse=_header), alone=True),
        "Response headers that a page may read.",
        ("X-Run-Id", "X-Stream-Id"),
    )
    credentials: bool = setting(_FLAG, "Allow cookies and HTTP authentication.", False)
    max_age: float = setting(_DURATION, "How long a browser may cache the preflight response.", 600.0)


def _check_cors(reader: SettingsReader, node: Mapping, values: dict[str, Any], name: str) -> bool:
    origins = values.get("origins", ())
    if "*" in origins and values.get("credentials"):
        place = node.get("origins") or node
        message = f'`{name}`: `credentials` can\'t go with origins: "*"; browsers refuse it.'
        reader.refuse(place.mark, message, "name the origins")
        return False
    return bool(origins)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Access to the metrics: with the ``token``, or open."""

    # Where it was kept in a file it ends with a line break, which no header can bring: texts are stripped.
    token: str | None = setting(Constant(), "Bearer token that `/_metrics` requires.", None, secret=True)
    open: bool = setting(_FLAG, "Serve `/_metrics` without a token.", False)


def _check_metrics(reader: SettingsReader, node: Mapping, values: dict[str, Any], _: str) -> bool:
    if "token" in values and values.get("open"):
        message = "`metrics` that are `open` need no `token`."
        reader.refuse(node.mark, message, "leave one of them out")
        return False
    return True


def _base_url(value: Any) -> str:
    text = value.rstrip("/") if isinstance(value, str) else ""
    if value != "/" and not re.match(r"https?://[^/]|/[^/]", text):
        raise ValueError("must be a URL such as https://api.example.org, or a path such as /v1")
    return text or "/"


@dataclass(frozen=True, slots=True)
class OpenApi:
    """The OpenAPI document. ``serve`` is None where it is served with `--dev`, to this machine, only."""

    serve: bool | None = setting(
        _FLAG, "Serve the document at `/_openapi.json`. Default: only with `--dev`, and only to this machine.", None
    )
    title: str = setting(Constant(Kind.PROSE), "Title of the API.", "API")
    version: str = setting(Constant(Kind.PROSE), "Version of the API.", "1.0.0")
    description: str | None = setting(Constant(Kind.PROSE), "Description of the API, in Markdown.", None)
    url: str = setting(Constant(Kind.PROSE, parse=_base_url), "Base URL of the API, as clients see it.", "/")


def _file(reader: SettingsReader, node: Node, name: str) -> Any:
    text = reader.constant(Constant(), node, name)
    return MISSING if text is MISSING else reader.folder / text


_FILE: Final = Custom({"type": "string"}, "name of a file", _file)


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate for HTTPS. Its files are read when the server starts: `validate` does not need them."""

    certificate: Path = setting(
        _FILE,
        "PEM file with the certificate, followed by its intermediate certificates.",
        example="/etc/ssl/example.org/fullchain.pem",
    )
    key: Path | None = setting(
        _FILE, "PEM file with the private key. Default: it is in the file of the certificate.", None
    )


@dataclass(frozen=True, slots=True)
class Server:
    """The HTTP server. ``max_body_size`` is in bytes, times are in seconds; ``head_timeout`` 0 disables it.

    ``max_connections`` applies to one process; it is lower if the system's limit on open files is.
    ``trusted_proxies`` are trusted for the client address in ``forwarded_header``.
    """

    host: str = setting(Constant(), "Address to listen on. `0.0.0.0` listens on every interface.", "127.0.0.1")
    port: int = setting(Constant(Kind.INTEGER, 0, 65535), "Port to listen on.", 8080)
    workers: int = setting(Constant(Kind.INTEGER, 1, 1024), "Number of worker processes.", 1)
    max_body_size: int = setting(Constant(Kind.SIZE), "Maximum size of a request body.", 10 * 1024 * 1024)
    max_connections: int = setting(
        Constant(Kind.INTEGER, 1, 1_000_000),
        "Maximum number of open connections for each worker process. Further requests get 503.",
        10_000,
    )
    max_memory: int = setting(
        Constant(Kind.SIZE, positive=True),
        "Maximum memory for requests that are still arriving, for each worker process: heads, bodies that are read "
        "whole, and pipelined requests. Above it, the oldest get 503, or are dropped.",
        256 * 1024 * 1024,
    )
    head_timeout: float = setting(_DURATION, "Time-out for reading the request line and headers. 0 disables it.", 30.0)
    worker_timeout: float = setting(
        Constant(Kind.DURATION),
        "Time after which a worker process that sends no heartbeat is replaced. 0 disables it.",
        30.0,
    )
    shutdown_timeout: float = setting(
        _DURATION, "Time that running requests have to finish after SIGTERM (graceful shutdown).", 30.0
    )
    trusted_proxies: tuple[Network, ...] = setting(
        ListOf(Constant(parse=_network), alone=True),
        "Addresses and networks of reverse proxies whose forwarded header is trusted for the client address.",
        (),
    )
    forwarded_header: str = setting(
        Constant(choices=FORWARDED, parse=_forwarded),
        "Header in which reverse proxies send the client address.",
        FORWARDED[0],
    )
    shutdown_delay: float = setting(
        _DURATION,
        "Time during which new requests are still accepted after SIGTERM, while health checks already report the "
        "shutdown.",
        0.0,
    )
    metrics: Metrics | None = setting(
        group_of(Metrics, check=_check_metrics), "Access to `/_metrics`: with a token, or open.", None
    )
    cors: Cors | None = setting(
        group_of(Cors, short="origins", switch="off", check=_check_cors),
        "CORS: allowed origins, or a mapping. `false` disables it.",
        None,
    )
    openapi: OpenApi = setting(
        group_of(OpenApi, short="serve"), "The OpenAPI document: whether it is served, or a mapping.", factory=OpenApi
    )
    tls: Tls | None = setting(group_of(Tls), "HTTPS: the certificate and its private key.", None)


# -------------------------------------------------------------------------------------- streaming

#: What becomes of a slow reader.
SLOW_CLIENTS: Final = ("block", "disconnect", "dropOldest")
#: The formats that can tell a reader of dropped chunks, or that have no slow readers (`json` is sent whole).
REPORTS_GAPS: Final = ("auto", *(each.name for each in FORMATS if each.gaps or each.whole))
#: Formats of which a reader can come back: the others have no place for an id.
RESUMABLE: Final = ("auto", *(each.name for each in FORMATS if each.resumable and not each.alias_of))

_POSITIVE_SIZE: Final = Constant(Kind.SIZE, positive=True)
_MAX_DURATION: Final = Section("maxDuration", "Maximum duration of a stream.", short="limit")
_SLOW_CLIENT: Final = Section(
    "slowClient",
    "What happens when a client reads too slowly: the run waits, the client is disconnected, or chunks are dropped.",
    short="mode",
)


@dataclass(frozen=True, slots=True)
class Resume:
    """Limits of the stored part of a resumable stream: seconds, chunks, bytes."""

    keep: float = setting(
        Constant(Kind.DURATION, positive=True, maximum=86_400.0),
        "Time that a run waits for a disconnected client, and that a finished stream can still be resumed.",
        300.0,
    )
    max_chunks: int = setting(
        Constant(Kind.INTEGER, 1, 1_000_000), "Maximum number of stored chunks; the oldest are dropped.", 10_000
    )
    max_size: int = setting(
        _POSITIVE_SIZE, "Maximum size of all stored chunks; the oldest are dropped.", 16 * 1024 * 1024
    )


@dataclass(frozen=True, slots=True)
class Streaming:
    """How a stream lives (LANGUAGE: the wire). Times are in seconds, 0 is never; sizes in bytes.

    ``jitter`` is the part (0 to 1) by which `maxDuration` may be shorter, ``grace`` how long a reader's buffer may be
    full before `slowClient: disconnect` cuts it off. ``separator`` and ``end`` are for text.
    """

    format: str = setting(
        Constant(choices=NAMES), "Output format. `auto` follows the request's Accept and Upgrade headers.", "auto"
    )
    keep_alive: float = setting(
        _TIME, "Interval of heartbeats while nothing is sent. 0 or `false` disables them.", 15.0
    )
    first_chunk_timeout: float = setting(_TIME, "Time-out for the first chunk. 0 or `false` disables it.", 60.0)
    idle_timeout: float = setting(_TIME, "Time-out between two chunks. 0 or `false` disables it.", 300.0)
    max_duration: float = setting(_TIME, "Maximum duration of a stream.", 3600.0, key="limit", within=_MAX_DURATION)
    max_bytes: int | None = setting(_POSITIVE_SIZE, "Maximum number of bytes that one response may send.", None)
    on_disconnect: str = setting(
        Constant(choices=("cancel", "finish")), "What happens to the run when the client disconnects.", "cancel"
    )
    resume: Resume | None = setting(
        group_of(Resume, switch="both", example="{keep: 5m, maxChunks: 10000}"),
        "Resumable streams: `true` for the defaults, or a mapping.",
        None,
    )
    slow_client: str = setting(
        Constant(choices=SLOW_CLIENTS),
        "`block` makes the run wait, `disconnect` closes the connection, `dropOldest` drops chunks.",
        "block",
        key="mode",
        within=_SLOW_CLIENT,
    )
    buffer: int = setting(_POSITIVE_SIZE, "Maximum size of the send buffer of one client.", 256 * 1024)
    compress: bool = setting(_FLAG, "Compress the response with gzip for clients that accept it.", False)
    done: bool = setting(_FLAG, "End an SSE stream with a `done` event.", True)
    ids: bool = setting(_FLAG, "Add ids to SSE events.", True)
    separator: str = setting(Constant(verbatim=True), "Text between two chunks, in the format `text`.", "")
    end: str = setting(Constant(verbatim=True), "Text after the last chunk, in the format `text`.", "")
    jitter: float = setting(
        Constant(Kind.PART),
        "Random fraction by which the duration is shortened, so that clients do not all reconnect at once.",
        0.1,
        within=_MAX_DURATION,
    )
    grace: float = setting(
        Constant(Kind.DURATION, off=True, positive=True),
        "Time that the send buffer may be full before the client is disconnected.",
        5.0,
        within=_SLOW_CLIENT,
    )
    web_socket: WebSocketSettings = setting(
        group_of(WebSocketSettings), "Limits and subprotocols of WebSockets.", factory=WebSocketSettings
    )


def parse_streaming(node: Mapping, defaults: Streaming) -> tuple[Streaming, list[Diagnostic]]:
    """Return the defaults with what an endpoint's `streaming:` changes, and what is wrong with it.

    A value that is wrong leaves its default.
    """
    findings: list[Diagnostic] = []
    reader = SettingsReader(findings, of_definition=True)
    values = reader.values(fields_of(Streaming), node, "streaming")
    _check_together(reader, node, values, defaults)
    return replace(defaults, **values), findings


def check_streaming(reader: SettingsReader, node: Mapping, values: dict[str, Any], _: str) -> bool:
    """Check what of the project's defaults goes together."""
    _check_together(reader, node, values, Streaming())
    return True


def _check_together(reader: SettingsReader, node: Mapping, values: dict[str, Any], defaults: Streaming) -> None:
    """Report what does not go together; take the project's `resume` out where only the format speaks against it."""
    made = replace(defaults, **values)
    marks = {key.text: value.mark for key, value in node.items}
    # As a default of the project it is for the endpoints whose format can tell.
    if made.slow_client == "dropOldest" and made.format not in REPORTS_GAPS and "slowClient" in marks:
        message = (
            f"`slowClient`: `dropOldest` leaves chunks out, and `format: {made.format}` "
            "has no way to tell a reader of it"
        )
        hint = "write block or disconnect, or leave `format` out (SSE and NDJSON can tell)"
        reader.refuse(marks["slowClient"], message, hint)
    if made.resume is None or (conflict := _refuse_resume(made)) is None:
        return
    key, message, hint = conflict
    places = [marks[each] for each in ("resume", key) if each in marks]
    if "resume" not in values and key == "format":
        values["resume"] = None  # the project's default is for others
    elif places:
        reader.refuse(places[0], message, hint, "not-resumable")


def _refuse_resume(streaming: Streaming) -> tuple[str, str, str] | None:
    """Say which key `resume` does not go with, why, and what to write."""
    if streaming.format not in RESUMABLE:
        message = f"`format: {streaming.format}` is not resumable: it has no ids"
        return "format", message, f"write format {', '.join(RESUMABLE)}"
    if streaming.slow_client == "dropOldest":
        message = "clients resume to get the chunks they missed, which `slowClient: dropOldest` drops"
        return "slowClient", message, "write slowClient: block, or disconnect"
    if not streaming.ids:
        message = "clients resume with the id of their last chunk, which `ids: false` omits"
        return "ids", message, "leave `ids` out, or write `resume: false`"
    return None


# -------------------------------------------------------------------------------------------- log


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how. ``format`` is text, json or None, which is text on a terminal, else json.

    With ``access``, each request is logged when it has ended, whatever the ``level``.
    """

    level: str = setting(Constant(choices=("debug", "info", "warning", "error")), "Minimum log level.", "info")
    format: str | None = setting(
        Constant(choices=("text", "json")), "Log format. Default: text on a terminal, otherwise JSON.", None
    )
    access: bool = setting(Constant(Kind.BOOLEAN), "Access log: log each request when it has ended.", True)

    def is_text(self, stream: TextIO) -> bool:
        """Return whether a log that goes to a stream is text for people."""
        return self.format == "text" if self.format else stream.isatty()


# -------------------------------------------------------------------------------------- databases

#: The name of the database that a project has without settings, and of the one that is meant among several.
MAIN: Final = "main"
#: Schemes of a `url`; each has its engine in `connections/database/__init__.py`.
SCHEMES: Final = ("postgresql", "postgres")
#: Connections that one server may have to a database.
LARGEST_POOL: Final = 1000


def _database_url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004 - one error for every value
    # A reader of the message must not see the password, so the URL is never shown.
    if urlsplit(value).scheme not in SCHEMES:
        raise ValueError("write it like postgresql://user:password@host:5432/name")
    return value


def _setup_file(reader: SettingsReader, node: Node, name: str) -> Any:
    text = reader.constant(Constant(), node, name)
    if text is MISSING:
        return MISSING
    file = reader.folder / text
    if not file.is_file():
        reader.refuse(node.mark, f"`{name}`: no such file: {file}")
        return MISSING
    return file


def _programs(reader: SettingsReader, node: Node, name: str) -> Any:
    text = reader.constant(Constant(), node, name)
    if text is MISSING:
        return MISSING
    try:
        folder = reader.folder / Path(text).expanduser()
    except RuntimeError:
        reader.refuse(node.mark, f"`{name}`: unknown user in {text}")
        return MISSING
    if not (folder / "postgres").is_file():
        reader.refuse(node.mark, f"`{name}`: the program `postgres` is missing in {folder}")
        return MISSING
    return folder


@dataclass(frozen=True, slots=True)
class Database:
    """One database. Without a ``url`` it is the embedded server; ``bin`` holds the programs of that, if not our own.

    ``setup`` are files of SQL, run once for each change. ``hold`` are the seconds that a cursor keeps its connection
    while its consumer is slow; what is left then goes to a file of at most ``spool`` bytes.
    """

    name: str = MAIN
    # << env.DATABASE_URL | default("") >>: the embedded server, unless the environment says otherwise.
    url: str | None = setting(
        Constant(empty=True, parse=_database_url, pattern=rf"^\s*$|^\s*({'|'.join(SCHEMES)})://"),
        "Connection URL: postgresql://user:password@host:5432/name. Without it, the embedded PostgreSQL is used.",
        None,
    )
    pool_size: int = setting(
        Constant(Kind.INTEGER, 1, LARGEST_POOL),
        "Maximum size of the connection pool of each worker. The connection for `db.listen` is not counted.",
        10,
    )
    pool_mode: str = setting(
        Constant(choices=("session", "transaction")),
        "`transaction` for a pooler in transaction mode (PgBouncer, Supabase, Neon).",
        "session",
    )
    setup: tuple[Path, ...] = setting(
        ListOf(Custom({"type": "string"}, "name of a file", _setup_file), alone=True),
        "SQL files, relative to this file. Each is run once, and again after it has changed.",
        (),
    )
    bin: Path | None = setting(
        Custom({"type": ["string", "null"]}, "folder", _programs),
        "Folder with the PostgreSQL binaries, for the embedded PostgreSQL.",
        None,
    )
    hold: float = setting(
        Constant(Kind.DURATION, positive=True),
        "Time that a streaming query may hold its connection while its consumer is slow.",
        5.0,
    )
    spool: int = setting(_SIZE, "Maximum size of the temporary file for the remaining rows of such a query.", 1024**3)

    @property
    def pooled(self) -> bool:
        """Whether a pooler gives each transaction whichever connection is free."""
        return self.pool_mode == "transaction"


#: What a project has that says nothing of databases.
EMBEDDED: Final[abc.Mapping[str, Database]] = MappingProxyType({MAIN: Database()})


def default_database(names: abc.Mapping[str, object]) -> str | None:
    """Return the database that steps mean which name none: the only one, or `main`; None where neither is."""
    if MAIN in names:
        return MAIN
    return next(iter(names)) if len(names) == 1 else None


def _database(name: str, mark: object, **values: Any) -> Database:
    return Database(name, **values)


def _check_database(reader: SettingsReader, node: Mapping, values: dict[str, Any], name: str) -> bool:
    if "bin" in values and "url" in values:
        message = f"`{name}.bin` is for the embedded server, and `url` names another."
        mark = (node.key("bin") or node).mark
        reader.refuse(mark, message, code="conflicting-parameters")
    return True


def _check_databases(reader: SettingsReader, node: Mapping, found: dict[str, Any], name: str) -> None:
    embedded = [
        (key.text, value)
        for key, value in node.items
        if key.text in found and found[key.text].url is None and not _has_url(value)
    ]
    for key, value in embedded[1:]:
        message = f"`{name}.{key}` has no `url`, and the embedded server is `{embedded[0][0]}` already."
        reader.refuse(value.mark, message, "give all of them but one a `url`")


def _has_url(node: Node) -> bool:
    """Whether a database has a URL, be it a wrong one, or one from a variable that is not set here."""
    url = node.get("url") if isinstance(node, Mapping) else None
    if isinstance(url, Scalar) and url.value is None:
        return url.source is None  # a variable's: `substitute` leaves no source
    return url is not None and not (isinstance(url, Scalar) and url.value == "")


# ------------------------------------------------------------------------------------------- http

_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*(?::[0-9]{1,5})?")
_TIMEOUTS: Final = Section("timeouts", "Time-outs for calls to upstreams. 0 disables one.")


def _host(value: Any) -> str:
    host = value.strip().lower() if isinstance(value, str) else ""
    try:
        ip_network(host, strict=False)
    except ValueError:
        if _HOST.fullmatch(host) is None:
            raise RefusedError(
                "write a host like api.example.org, *.example.org or 10.0.0.0/8",
                "leave out https:// and the path; a port is written api.example.org:8443",
            ) from None
    return host


def _proxy(value: Any) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL such as http://proxy.example.org:3128")
    return urlunsplit(parts)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How a project calls others. Times are in seconds, 0 is never; sizes in bytes.

    ``allow_hosts`` is None for any host. ``connect`` is for name, connection and TLS; ``total`` for a whole
    `http.request`; ``first_chunk`` and ``idle`` are for streams, and count what the loop gets, not bytes.
    ``proxy`` is the URL of a proxy that all calls go through, but for those of this machine.
    ``redirect`` is what tests of definitions put in the place of all hosts: an asynchronous function that returns a
    `connections.http.Route` for a request, None for one that goes where it says.
    """

    # Where no host of the list can be read none is allowed: never all of them.
    allow_hosts: tuple[str, ...] | None = setting(
        ListOf(Constant(parse=_host), alone=True),
        "Hosts that may be called: example.org, *.example.org, 10.0.0.0/8. Default: any host.",
        None,
    )
    deny_private_networks: bool = setting(_FLAG, "Reject calls to loopback, private and link-local addresses.", False)
    connect: float = setting(
        _TIME, "Time-out for the DNS lookup, TCP connection and TLS handshake.", 10.0, within=_TIMEOUTS
    )
    total: float = setting(_TIME, "Time-out for a whole `http.request`.", 60.0, within=_TIMEOUTS)
    first_chunk: float = setting(_TIME, "Time-out for the first item of a stream.", 60.0, within=_TIMEOUTS)
    idle: float = setting(_TIME, "Time-out between the items of a stream.", 300.0, within=_TIMEOUTS)
    max_body_size: int = setting(_SIZE, "Maximum size of a response body that `http.request` reads.", 100 * 1024 * 1024)
    max_event_size: int = setting(
        _SIZE, "Maximum size of a single event, line or record of a streamed response.", 10 * 1024 * 1024
    )
    # It may hold a password: no representation shows it.
    proxy: str | None = setting(
        Constant(parse=_proxy, pattern="^https?://"),
        "URL of a proxy for all outgoing requests except those to this machine: http://proxy.example.org:3128.",
        None,
        secret=True,
    )
    redirect: abc.Callable[[Any], abc.Awaitable[Any]] | None = None


# ----------------------------------------------------------------------------------------- models

#: The LLM providers; `runtime/providers` has a module for each.
PROVIDERS: Final = ("openai", "openaiResponses", "anthropic", "gemini")
#: The provider without a server: `runtime/providers/simulator.py` answers.
SIMULATOR: Final = "simulator"


def _model_address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004 - one error for every value
    if not value.startswith(("http://", "https://", "/")):
        raise RefusedError(
            "an address begins with http:// or https://, or with / where it is this server's own",
            "write https://api.example.org/v1",
        )
    return value


def _stand_in(value: Any) -> str:
    if value == SIMULATOR:
        return SIMULATOR
    try:
        return _model_address(value)
    except RefusedError as error:
        raise RefusedError(f"{error}; or it is {SIMULATOR}", f"write {SIMULATOR}") from None


@dataclass(frozen=True, slots=True)
class SimulatedCall:
    """A tool call that the simulator makes."""

    name: str = setting(Constant(), "Name of the tool.", example="weather")
    arguments: dict[str, Any] = setting(Named(Bound()), "Arguments.", factory=dict)


@dataclass(frozen=True, slots=True)
class Simulation:
    """How the provider `simulator` answers: what `options` may hold. Times are in seconds, counts are of pieces."""

    text: str | None = setting(
        Constant(Kind.PROSE, verbatim=True), "The answer. Default: one that repeats the last message.", None
    )
    by: str = setting(Constant(choices=("words", "characters")), "Unit of the pieces.", "words")
    size: int = setting(Constant(Kind.INTEGER, 1, 10_000), "Units in a piece.", 1)
    first_after: float = setting(_DURATION, "Delay before the first piece.", 0.0)
    every: float = setting(_DURATION, "Delay between pieces.", 0.03)
    reasoning: str = setting(Constant(Kind.PROSE, verbatim=True), "Reasoning that precedes the answer.", "")
    tool_calls: tuple[SimulatedCall, ...] | None = setting(
        ListOf(group_of(SimulatedCall, example="{name: weather, arguments: {city: Paris}}")),
        "Tool calls. Default: the tool that the last message names.",
        None,
    )
    finish_reason: str | None = setting(Constant(choices=REASONS), "Reason of the end. Default: `stop`.", None)
    fail_after: int | None = setting(
        Constant(Kind.INTEGER, 0), "Number of pieces after which the answer breaks off (`stream-lost`).", None
    )
    status: int | None = setting(
        Constant(Kind.INTEGER, 400, 599), "HTTP status to fail with, in place of an answer (`http-status`).", None
    )


def _check_model(reader: SettingsReader, node: Mapping, values: dict[str, Any], name: str) -> bool:
    """Require what a model of this provider needs."""
    if values.get("provider") == SIMULATOR:
        values.setdefault("model", SIMULATOR)
        options = node.get("options")
        if isinstance(options, Mapping):
            reader.values(fields_of(Simulation), options, f"{name}.options")
    elif "model" not in values:
        if not is_written(node.get("model")):
            message = f"`{name}` requires `model`."
            reader.refuse(node.mark, message, "add `model: gpt-4o-mini`", "missing-parameter")
        return False
    return True


@dataclass(frozen=True, slots=True)
class Model:
    """A model that definitions name: whose it is, what it is called there, where, with which key.

    What is None is the provider's default. ``without_key`` is the address that stands in while the key is missing, or
    SIMULATOR.
    """

    provider: str = setting(
        Constant(choices=(*PROVIDERS, SIMULATOR), empty=True),
        "The provider's API protocol; `simulator` answers without a key and without a network.",
        example="openai",
    )
    model: str = setting(
        Constant(Kind.PROSE, empty=True),
        "The provider's name of the model. Required for every provider but `simulator`.",
        "",
    )
    base_url: str | None = setting(
        Constant(parse=_model_address, empty=True), "Base URL, if it is not the provider's own.", None
    )
    api_key: str | None = setting(
        Constant(Kind.PROSE, empty=True),
        "API key. Default: the provider's environment variable, such as OPENAI_API_KEY.",
        None,
    )
    without_key: str | None = setting(
        Constant(parse=_stand_in, empty=True),
        "Who answers while the API key is missing: `simulator`, or a base URL. A path alone is a path of this server.",
        None,
    )
    options: dict[str, Any] = setting(
        Named(Bound()),
        "Additional fields of each request body, by the provider's names; for `simulator`, how it answers. The "
        "`options` of a step take precedence.",
        factory=dict,
    )


# ------------------------------------------------------------------------------------------ state

MEMORY: Final = "memory://"
_WRITE: Final = "write redis://localhost:6379, or memory://"
#: What may stand before the keys of a project, so that several share one Redis.
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{0,100}")


def _store(value: Any) -> RedisUrl | None:
    """Return the URL of Redis; None for memory. Error messages do not contain the URL."""
    if not isinstance(value, str):
        raise ValueError(f"must be the URL of a store: {_WRITE}")  # noqa: TRY004 - as for every value
    if value in (MEMORY, MEMORY.rstrip("/")):
        return None
    if not value.lower().startswith(REDIS):
        raise ValueError(f"it begins with none of {', '.join((MEMORY, *REDIS))}: {_WRITE}")
    return parse_redis(value)


def _prefix(value: Any) -> str:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not _PREFIX.fullmatch(text):
        raise ValueError("must be up to 100 letters, digits and . _ : -, such as shop")
    return text


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where state is kept: in the memory of each process, or in one Redis for all of them.

    ``prefix`` stands before the project's keys in Redis. ``max_entries`` holds for cached values and for counters
    alike, in memory; ``max_size`` is in bytes: in memory of all cached values, in Redis of one.
    """

    redis: RedisUrl | None = setting(
        Constant(parse=_store, code="bad-url", empty=True),
        "Store URL. `memory://` stores state in each process; redis://host:6379 shares it between all.",
        None,
        key="url",
        shown=MEMORY,
    )
    prefix: str = setting(
        Constant(Kind.PROSE, parse=_prefix),
        "Prefix of the project's keys in Redis, for several projects that share one Redis.",
        "",
    )
    max_entries: int = setting(
        Constant(Kind.INTEGER, 1, 100_000_000), "Maximum number of cached values, and of counters, in memory.", 100_000
    )
    max_size: int = setting(
        _SIZE, "Maximum size of all cached values in memory; in Redis, of one value.", 256 * 1024 * 1024
    )

    @property
    def shared(self) -> bool:
        """Whether other processes and machines share it."""
        return self.redis is not None


# -------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. ``settings`` are the author's own values; ``written`` the names under each section, right or not.

    Environment variables are in both; a value whose variable is missing is null.
    """

    server: Server = setting(group_of(Server), "The HTTP server.", factory=Server)
    streaming: Streaming = setting(
        group_of(Streaming, check=check_streaming),
        "Defaults for the `streaming` block of endpoints.",
        factory=Streaming,
    )
    inputs: InputRules = setting(
        group_of(InputRules),
        "Defaults for the `inputs` block of endpoints: how strictly inputs are checked.",
        factory=InputRules,
    )
    settings: dict[str, Any] = setting(
        Named(Bound()), "Your own values. Definitions read them as `settings`.", factory=dict
    )
    databases: abc.Mapping[str, Database] = setting(
        Named(
            Group(
                fields_of(Database),
                make=_database,
                check=_check_database,
                named=True,
                example="{url: << env.DATABASE_URL >>}",
            ),
            check=_check_databases,
        ),
        "PostgreSQL databases by name. Without any, `main` is an embedded PostgreSQL.",
        factory=lambda: EMBEDDED,
    )
    authentication: Methods = setting(
        AUTHENTICATION, "Authentication methods by name. Endpoints name them under `authentication`.", factory=dict
    )
    models: abc.Mapping[str, Model] = setting(
        Named(group_of(Model, whole=True, check=_check_model, example="{provider: openai, model: gpt-4o-mini}")),
        "LLMs by name, for `llm.chat: {model: name}`.",
        factory=dict,
    )
    state: StateSettings = setting(
        group_of(StateSettings, example="{url: memory://}"),
        "Store for caches, counters, rate limits, resumable streams and jobs.",
        factory=StateSettings,
    )
    jobs: JobSettings = setting(
        group_of(JobSettings, example="{concurrency: 4}"), "Background jobs.", factory=JobSettings
    )
    channels: abc.Mapping[str, ChannelSettings] = setting(
        CHANNELS,
        "History and limits of channels, by their names. `*` in a name matches any characters: `room-*`.",
        factory=dict,
    )
    http: HttpSettings = setting(group_of(HttpSettings), "Outgoing HTTP requests.", factory=HttpSettings)
    email: EmailSettings = setting(
        group_of(EmailSettings, example="{url: << env.SMTP_URL >>, from: shop@example.org}"),
        "The mail server for `email.send`.",
        factory=EmailSettings,
    )
    alerts: tuple[Alert, ...] = setting(
        ALERTS, "Alerts: thresholds on the figures of endpoints, and where they are sent.", ()
    )
    ratings: Ratings | None = setting(
        RATINGS, "Ratings of runs by clients, at `POST /_runs/{run}/rating`: `true`, or a mapping.", None
    )
    experiments: abc.Mapping[str, Experiment] = setting(
        EXPERIMENTS,
        "Experiments (A/B tests) by name. Definitions read the values of the caller's variant as `experiment.NAME`.",
        factory=dict,
    )
    plugins: tuple[PluginFile, ...] = setting(
        ListOf(PLUGIN, alone=True),
        "Python files with functions and filters of your own, relative to this file: plugins/prices.py. They are run "
        "when a project is read, also by `validate`.",
        (),
    )
    log: LogSettings = setting(group_of(LogSettings), "Logging: level, format and access log.", factory=LogSettings)
    ignore: tuple[str, ...] = setting(
        ListOf(Constant(), alone=True),
        "YAML files and folders that are not definitions, relative to this file: docker-compose.yml, infra/*.yaml. A "
        "name alone is found in every folder.",
        (),
    )
    written: abc.Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names(self, section: str) -> tuple[str, ...]:
        """Return the names configured under a section, such as `databases`."""
        return self.written.get(section, ())


#: The keys of streamstack.yaml.
SETTINGS: Final = fields_of(Settings)


def parse_section(name: str, node: Node | None, folder: Path = Path()) -> tuple[Any, list[Diagnostic]]:
    """Return one section as `Settings` holds it, and what is wrong with it."""
    findings: list[Diagnostic] = []
    section = next(each for each in SETTINGS if each.name == name)
    read = MISSING
    if node is not None and not is_null(node):
        read = SettingsReader(findings, folder).read(section.type, node, name)
    return getattr(Settings(), name) if read is MISSING else read, findings


def _sends_mail(email: Node | None) -> bool:
    return isinstance(email, Mapping) and all(is_written(email.get(name)) for name in ("url", "from"))


def load_settings(
    text: str | None, file: str, env: abc.Mapping[str, str], *, check_environment: bool = False
) -> tuple[Settings, list[Diagnostic]]:
    """Return the settings that a streamstack.yaml holds, and what is wrong with it.

    ``text`` is None without a file. A value that is wrong leaves its default. Missing
    environment variables are findings only with ``check_environment``.
    """
    if text is None:
        return Settings(), []
    documents, findings = read(text, file)
    if not documents:
        return Settings(), findings
    for extra in documents[1:]:
        message = "streamstack.yaml holds one document."
        findings.append(make_diagnostic("bad-setting", extra.root.mark, message, "take the `---` out"))
    root, missing = substitute(documents[0].root, env, check=check_environment, but=keys_in(documents[0].root))
    findings += missing
    if not isinstance(root, Mapping):
        findings.append(make_diagnostic("not-a-mapping", root.mark, "streamstack.yaml is a mapping."))
        return Settings(), sorted(findings)
    # As they are written, without the values of variables. Those of `authentication` are reported by their reader.
    written = documents[0].root
    if isinstance(written, Mapping):
        sections = tuple(item for item in written.items if item[0].text != "authentication")
        findings += find_secrets(Mapping(sections, written.mark))
    reader = SettingsReader(findings, Path(file).parent)
    values = reader.values(SETTINGS, root, "")
    names = {
        key.text: tuple(name.text for name, _ in node.items) for key, node in root.items if isinstance(node, Mapping)
    }
    values["databases"] = values.get("databases") or EMBEDDED
    check_sends(reader, root.get("alerts"), values.get("alerts", ()), email=_sends_mail(root.get("email")))
    return Settings(**values, written=names), sorted(blame(documents[0].root, findings, env))

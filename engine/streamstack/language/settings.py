"""The settings of a project: streamstack.yaml."""

from __future__ import annotations

import re
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.authentication_reading import parse_authentication
from streamstack.language.authentication_settings import Methods
from streamstack.language.database_settings import EMBEDDED, Database, parse_databases
from streamstack.language.environment import blame, substitute
from streamstack.language.findings import find
from streamstack.language.http_settings import HttpSettings, parse_http
from streamstack.language.model_settings import Model, parse_models
from streamstack.language.proxies import FORWARDED, Network, parse_proxies
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence, plain
from streamstack.language.reading.source import read
from streamstack.language.state_settings import StateSettings, parse_state
from streamstack.language.streaming_settings import Streaming, parse_streaming
from streamstack.language.suggest import did_you_mean
from streamstack.language.units import parse_duration, parse_size

#: Sections that stay nodes, for the parts of streamstack that use them; those of names and mappings.
SECTIONS: Final = (
    "authentication",
    "databases",
    "models",
    "state",
    "http",
    "email",
    "alerts",
    "experiments",
    "plugins",
)
#: Sections of the language that this version does not serve: ignoring one would mislead its author.
LATER: Final = frozenset(SECTIONS) - {
    "authentication",
    "databases",
    "http",
    "models",
    "state",
}
_NAMED: Final = frozenset({"authentication", "databases", "models", "experiments"})
_TOP: Final = ("server", "streaming", "settings", *SECTIONS)

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+|null", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of other origins may call (https://fetch.spec.whatwg.org/#http-cors-protocol).

    ``origins`` is ("*",) for any. ``headers`` are those a page may send; ("*",) is whatever it asks
    for. ``max_age`` is in seconds.
    """

    origins: tuple[str, ...]
    headers: tuple[str, ...] = ("*",)
    expose_headers: tuple[str, ...] = ("X-Run-Id", "X-Stream-Id")
    credentials: bool = False
    max_age: float = 600.0


@dataclass(frozen=True, slots=True)
class Metrics:
    """Who may see the figures of the server: who has the ``token``, or everybody."""

    token: str | None = field(default=None, repr=False)
    open: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """Where and how to serve. ``max_body_size`` is in bytes, times are in seconds; no ``head_timeout`` is 0.

    ``max_connections`` is what one process takes; fewer where the system lets it open fewer files.
    Of ``trusted_proxies`` is believed what they say in ``forwarded_header`` of who called.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    max_body_size: int = 10 * 1024 * 1024
    cors: Cors | None = None
    shutdown_timeout: float = 30.0
    trusted_proxies: tuple[Network, ...] = ()
    forwarded_header: str = FORWARDED[0]
    shutdown_delay: float = 0.0
    metrics: Metrics | None = None
    max_connections: int = 10_000
    head_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. ``settings`` are the author's own values, ``models`` by name; ``sections`` the rest, as nodes.

    Environment variables are in both; a value whose variable is missing is null.
    """

    server: Server = field(default_factory=Server)
    streaming: Streaming = field(default_factory=Streaming)
    settings: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Node] = field(default_factory=dict)
    models: abc.Mapping[str, Model] = field(default_factory=dict)
    http: HttpSettings = field(default_factory=HttpSettings)
    databases: abc.Mapping[str, Database] = field(default_factory=lambda: EMBEDDED)
    state: StateSettings = field(default_factory=StateSettings)
    authentication: Methods = field(default_factory=dict)

    def names(self, section: str) -> tuple[str, ...]:
        """Return the names configured under a section, such as `databases`."""
        node = self.sections.get(section)
        return tuple(key.text for key, _ in node.items) if isinstance(node, Mapping) else ()


def load_settings(
    text: str | None, file: str, env: abc.Mapping[str, str], *, check_environment: bool = False
) -> tuple[Settings, list[Diagnostic]]:
    """Return the settings that a streamstack.yaml holds, and what is wrong with it.

    ``text`` is None where there is no file. A value that is wrong leaves its default. Missing
    environment variables are findings only with ``check_environment``.
    """
    if text is None:
        return Settings(), []
    documents, findings = read(text, file)
    if not documents:
        return Settings(), findings
    for extra in documents[1:]:
        message = "streamstack.yaml holds one document."
        findings.append(find("bad-setting", extra.root.mark, message, "take the `---` out"))
    root, missing = substitute(documents[0].root, env, check=check_environment)
    findings += missing
    if not isinstance(root, Mapping):
        findings.append(find("not-a-mapping", root.mark, "streamstack.yaml is a mapping."))
        return Settings(), sorted(findings)
    settings = _Check(findings, Path(file).parent).settings(root, documents[0].root)
    return settings, sorted(blame(documents[0].root, findings, env))


class _Check:
    """The checks of a file's sections; what they find is added to one list. ``folder`` is the file's."""

    def __init__(self, findings: list[Diagnostic], folder: Path) -> None:
        self.findings = findings
        self.folder = folder

    def settings(self, root: Mapping, written: Node) -> Settings:
        """Return the settings of a file; ``written`` is its root before the environment was put in."""
        self._known("streamstack.yaml", root, _TOP)
        sections = {}
        for key, node in root.items:
            if key.text not in SECTIONS or (isinstance(node, Scalar) and node.value is None):
                continue
            if key.text in LATER:
                message = f"`{key.text}` is not served by this version: it would be ignored"
                self.findings.append(find("not-yet", key.mark, message))
            if key.text in _NAMED and not isinstance(node, Mapping):
                self._refuse_mapping(key.text, node)
                continue
            sections[key.text] = node
        server = self._section(root, "server")
        free = self._section(root, "settings")
        streaming = Streaming()
        found = self._section(root, "streaming")
        if found is not None:
            streaming, wrong = parse_streaming(found, streaming, unknown="unknown-setting")
            self.findings += wrong
        models, wrong = parse_models(sections.get("models"))
        self.findings += wrong
        http, wrong = parse_http(sections.get("http"))
        self.findings += wrong
        state, wrong = parse_state(sections.get("state"))
        self.findings += wrong
        databases, wrong = parse_databases(sections.get("databases"), self.folder)
        self.findings += wrong
        methods, wrong = parse_authentication(
            sections.get("authentication"),
            written.get("authentication") if isinstance(written, Mapping) else None,
            self.folder,
        )
        self.findings += wrong
        return Settings(
            self._server(server) if server is not None else Server(),
            streaming,
            plain(free) if free is not None else {},
            sections,
            models,
            http,
            databases,
            state,
            methods,
        )

    def _server(self, node: Mapping) -> Server:
        keys = {
            "host": ("host", self._text),
            "port": ("port", _whole(0, 65535)),
            "workers": ("workers", _whole(1, 1024)),
            "maxBodySize": ("max_body_size", parse_size),
            "shutdownTimeout": ("shutdown_timeout", parse_duration),
            "shutdownDelay": ("shutdown_delay", parse_duration),
            "maxConnections": ("max_connections", _whole(1, 1_000_000)),
            "headTimeout": ("head_timeout", parse_duration),
        }
        own = ("cors", "metrics", "trustedProxies", "forwardedHeader")
        self._known("server", node, (*keys, *own))
        changes = self._values("server", node, keys)
        changes |= self._proxies(node)
        metrics = node.get("metrics")
        if metrics is not None and not (isinstance(metrics, Scalar) and metrics.value is None):
            changes["metrics"] = self._metrics(metrics)
        cors = node.get("cors")
        if cors is not None and not (isinstance(cors, Scalar) and cors.value in (None, False)):
            changes["cors"] = self._cors(cors)
        return Server(**changes)

    def _proxies(self, node: Mapping) -> dict[str, Any]:
        """Check what is believed of proxies."""
        changes, wrong = parse_proxies(node)
        self.findings += wrong
        return changes

    def _metrics(self, node: Node) -> Metrics | None:
        """Check `metrics`: who may see the figures."""
        if not isinstance(node, Mapping):
            self._refuse_mapping("metrics", node)
            return None
        self._known("metrics", node, ("token", "open"))
        changes = self._values(
            "metrics", node, {"token": ("token", self._token), "open": ("open", _boolean)}
        )
        if "token" in changes and changes.get("open"):
            message = "`metrics` that are `open` need no `token`."
            self._refuse(node.mark, message, "leave one of them out")
            return None
        return Metrics(**changes)

    def _cors(self, node: Node) -> Cors | None:
        """Check `cors`: a mapping, or the origins alone."""
        if not isinstance(node, Mapping):
            origins = self._texts("cors", node, self._origin)
            return Cors(origins) if origins else None
        self._known("cors", node, ("origins", "headers", "exposeHeaders", "credentials", "maxAge"))
        changes = self._values(
            "cors",
            node,
            {"credentials": ("credentials", _boolean), "maxAge": ("max_age", parse_duration)},
        )
        for key, name in (("headers", "headers"), ("exposeHeaders", "expose_headers")):
            listed = node.get(key)
            if listed is not None and not (isinstance(listed, Scalar) and listed.value is None):
                changes[name] = self._texts(key, listed, self._header)
        given = node.get("origins")
        if given is None:
            message = "`cors` needs `origins`."
            hint = 'write origins: [https://example.org], or origins: "*" for any'
            self.findings.append(find("missing-parameter", node.mark, message, hint))
            return None
        origins = self._texts("origins", given, self._origin)
        if "*" in origins and changes.get("credentials"):
            message = '`credentials` can\'t go with origins: "*"; browsers refuse it.'
            self._refuse(given.mark, message, "name the origins")
            return None
        return Cors(origins, **changes) if origins else None

    def _values(
        self, section: str, node: Mapping, keys: dict[str, tuple[str, Callable[[Any], Any]]]
    ) -> dict[str, Any]:
        """Return the values of the keys that are given and right."""
        changes: dict[str, Any] = {}
        for key, value in node.items:
            if key.text not in keys or (isinstance(value, Scalar) and value.value is None):
                continue
            name, parse = keys[key.text]
            try:
                changes[name] = parse(value.value if isinstance(value, Scalar) else plain(value))
            except ValueError as error:
                code = {"parse_size": "bad-size", "parse_duration": "bad-duration"}.get(
                    parse.__name__, "bad-setting"
                )
                message = f"`{section}.{key.text}`: {error}"
                self.findings.append(find(code, value.mark, message))
        return changes

    def _texts(self, key: str, node: Node, parse: Callable[[Any], str]) -> tuple[str, ...]:
        """Return a text, or a list of texts, as a tuple."""
        items = node.items if isinstance(node, Sequence) else (node,)
        texts = []
        for item in items:
            try:
                texts.append(parse(item.value if isinstance(item, Scalar) else None))
            except ValueError as error:
                self._refuse(item.mark, f"`{key}`: {error}")
        return tuple(texts)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError("a text is needed here")
        return value

    def _token(self, value: Any) -> str:
        # Where it was kept in a file it ends with a line break, which no header can bring.
        return self._text(value.strip() if isinstance(value, str) else value)

    def _origin(self, value: Any) -> str:
        if value == "*":
            return "*"
        if not isinstance(value, str) or not _ORIGIN.fullmatch(value):
            raise ValueError(
                'an origin is written like https://example.org, without a path, or "*"'
            )
        return value.lower()

    def _header(self, value: Any) -> str:
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise ValueError("a header's name is needed here, such as X-Request-Id")
        return value

    def _section(self, root: Mapping, name: str) -> Mapping | None:
        node = root.get(name)
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return None
        if not isinstance(node, Mapping):
            self._refuse_mapping(name, node)
            return None
        return node

    def _known(self, section: str, node: Mapping, keys: tuple[str, ...]) -> None:
        for key, _ in node.items:
            if key.text not in keys:
                message = f"`{section}` has no `{key.text}`{did_you_mean(key.text, keys)}"
                hint = f"it takes {', '.join(keys)}"
                self.findings.append(find("unknown-setting", key.mark, message, hint))

    def _refuse(self, mark: Mark, message: str, hint: str | None = None) -> None:
        self.findings.append(find("bad-setting", mark, message, hint))

    def _refuse_mapping(self, name: str, node: Node) -> None:
        self.findings.append(find("not-a-mapping", node.mark, f"`{name}` is a mapping."))


def _whole(least: int, most: int) -> Callable[[Any], int]:
    """Return a parser of integers; digits as text, as the environment gives them, count."""

    def parse(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most} is needed here")
        return value

    return parse


def _boolean(value: Any) -> bool:
    if value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise ValueError("true or false is needed here")  # noqa: TRY004 - one error for every value
    return value

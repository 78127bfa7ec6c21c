"""The section `http` of streamstack.yaml: which hosts a project may call, and how long that may take."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping as Entries
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from streamstack.errors import Diagnostic
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence, plain
from streamstack.language.suggest import did_you_mean
from streamstack.language.units import parse_duration, parse_size

_NAME: Final = re.compile(
    r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*(?::[0-9]{1,5})?"
)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How a project calls others. Times are in seconds, 0 is never; sizes in bytes.

    ``allow_hosts`` is None for any host. ``connect`` is for name, connection and TLS; ``total`` for a whole
    `http.request`; ``first_chunk`` and ``idle`` are for streams, and count what the loop gets, not bytes.
    ``proxy`` is the URL of a proxy that all calls go through, but for those of this machine.
    ``stand_ins`` are origins that another one answers for, as tests of definitions have them.
    """

    allow_hosts: tuple[str, ...] | None = None
    deny_private_networks: bool = False
    connect: float = 10.0
    total: float = 60.0
    first_chunk: float = 60.0
    idle: float = 300.0
    max_body_size: int = 100 * 1024 * 1024
    max_event_size: int = 10 * 1024 * 1024
    stand_ins: Entries[str, str] = field(default_factory=dict)
    proxy: str | None = field(default=None, repr=False)  # it may hold a password


def parse_http(
    node: Node | None, defaults: HttpSettings = HttpSettings()
) -> tuple[HttpSettings, list[Diagnostic]]:
    """Return the defaults with what the section changes, and what is wrong with it.

    A value that is wrong leaves its default, but for `allowHosts`: then no host is allowed.
    """
    findings: list[Diagnostic] = []
    if node is None or _is_null(node):
        return defaults, findings
    if not isinstance(node, Mapping):
        findings.append(find("not-a-mapping", node.mark, "`http` is a mapping."))
        return defaults, findings
    changes = _read("http", node, _KEYS, findings)
    timeouts = node.get("timeouts")
    if isinstance(timeouts, Mapping):
        changes |= _read("timeouts", timeouts, _TIMEOUTS, findings)
    elif timeouts is not None and not _is_null(timeouts):
        findings.append(find("not-a-mapping", timeouts.mark, "`timeouts` is a mapping."))
    hosts = node.get("allowHosts")
    if hosts is not None and not _is_null(hosts):
        changes["allow_hosts"] = _hosts(hosts, findings)
    return replace(defaults, **changes), findings


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _read(
    section: str,
    node: Mapping,
    keys: dict[str, tuple[str, Callable[[Any], Any]] | None],
    findings: list[Diagnostic],
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for key, value in node.items:
        if key.text not in keys:
            message = f"`{section}` has no `{key.text}`{did_you_mean(key.text, keys)}"
            hint = f"it takes {', '.join(keys)}"
            findings.append(find("unknown-setting", key.mark, message, hint))
            continue
        known = keys[key.text]
        if known is None or _is_null(value):
            continue
        name, parse = known
        try:
            changes[name] = parse(value.value if isinstance(value, Scalar) else plain(value))
        except ValueError as error:
            code = {"parse_size": "bad-size", "_duration": "bad-duration"}.get(
                parse.__name__, "bad-setting"
            )
            findings.append(find(code, value.mark, f"`{section}.{key.text}`: {error}"))
    return changes


def _hosts(node: Node, findings: list[Diagnostic]) -> tuple[str, ...]:
    hosts = []
    for item in node.items if isinstance(node, Sequence) else (node,):
        value = item.value if isinstance(item, Scalar) else None
        host = value.strip().lower() if isinstance(value, str) else ""
        if not _is_host(host):
            message = (
                "`allowHosts`: a host is written like api.example.org, *.example.org or 10.0.0.0/8"
            )
            hint = "leave out https:// and the path; a port is written api.example.org:8443"
            findings.append(find("bad-setting", item.mark, message, hint))
            continue
        hosts.append(host)
    return tuple(hosts)


def _is_host(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return _NAME.fullmatch(text) is not None
    return True


def _boolean(value: Any) -> bool:
    if value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise ValueError("true or false is needed here")  # noqa: TRY004 - one error for every value
    return value


def _duration(value: Any) -> float:
    return 0.0 if value is False else parse_duration(value)


def _proxy(value: Any) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL such as http://proxy.example.org:3128 is needed here")
    return urlunsplit(parts)


_TIMEOUTS: Final[dict[str, tuple[str, Callable[[Any], Any]] | None]] = {
    "connect": ("connect", _duration),
    "total": ("total", _duration),
    "firstChunk": ("first_chunk", _duration),
    "idle": ("idle", _duration),
}
_KEYS: Final[dict[str, tuple[str, Callable[[Any], Any]] | None]] = {
    "allowHosts": None,
    "denyPrivateNetworks": ("deny_private_networks", _boolean),
    "timeouts": None,
    "maxBodySize": ("max_body_size", parse_size),
    "maxEventSize": ("max_event_size", parse_size),
    "proxy": ("proxy", _proxy),
}

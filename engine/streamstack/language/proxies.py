"""Which proxies are believed when they say who called: keys of `server` in streamstack.yaml."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, TypeAlias

from streamstack.errors import Diagnostic
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.suggest import did_you_mean

#: The headers in which proxies say so; the first is the usual one (RFC 7239 has the other).
FORWARDED: Final = ("X-Forwarded-For", "Forwarded")
Network: TypeAlias = IPv4Network | IPv6Network

_HINT: Final = "write the addresses of your proxies: [127.0.0.1, 10.0.0.0/8]"


def parse_proxies(server: Mapping) -> tuple[dict[str, Any], list[Diagnostic]]:
    """Return what the section `server` changes of the defaults, and what is wrong with it."""
    findings: list[Diagnostic] = []
    changes: dict[str, Any] = {}
    given = server.get("trustedProxies")
    if given is not None and not _is_null(given):
        items = given.items if isinstance(given, Sequence) else (given,)
        networks = [_network(item, findings) for item in items]
        changes["trusted_proxies"] = tuple(each for each in networks if each is not None)
    header = server.get("forwardedHeader")
    if header is not None and not _is_null(header):
        text = header.value if isinstance(header, Scalar) else None
        known = {name.lower(): name for name in FORWARDED}
        found = known.get(text.lower()) if isinstance(text, str) else None
        if found is None:
            meant = did_you_mean(str(text), FORWARDED)
            message = f"`server.forwardedHeader`: it is {' or '.join(FORWARDED)}{meant}"
            findings.append(find("bad-setting", header.mark, message))
        else:
            changes["forwarded_header"] = found
    return changes, findings


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _network(node: Node, findings: list[Diagnostic]) -> Network | None:
    text = node.value if isinstance(node, Scalar) else None
    try:
        if not isinstance(text, str):
            raise ValueError("not a text")  # noqa: TRY004 - one error for every value
        network = ip_network(text.strip(), strict=False)
    except ValueError:
        message = "`server.trustedProxies`: an address or a network is needed here"
        findings.append(find("bad-setting", node.mark, message, _HINT))
        return None
    if not network.prefixlen:
        message = "`server.trustedProxies`: if everybody is believed, everybody can be anybody"
        findings.append(find("bad-setting", node.mark, message, _HINT))
        return None
    return network

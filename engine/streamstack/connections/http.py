"""Requests to upstreams: their URLs, what follows a redirect, and which hosts and addresses may be connected to."""

from __future__ import annotations

import re
import socket
from asyncio import Transport
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from ssl import SSLContext
from typing import Any, Final

from multidict import CIMultiDict
from yarl import URL

from streamstack.errors import RunError
from streamstack.language.settings import HttpSettings

#: Statuses that may be another one at the next attempt (RFC 9110; 425 is RFC 8470).
TRANSIENT_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_PHRASES: Final = {int(status): status.phrase for status in HTTPStatus}
#: The content codings that a request accepts.
ACCEPTED: Final = "gzip, deflate, br"
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: What may follow a redirect to another origin; the rest may be a key of the first one.
_HARMLESS: Final = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "content-type", "last-event-id", "user-agent"}
)
_OF_BODY: Final = frozenset({"content-type", "content-encoding", "content-language"})
#: A URL that needs no quoting is left as it is: signed ones must not change.
_QUOTED: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What is asked. ``redirects`` is how many are followed; at 0 the redirect itself is the answer.

    ``length`` is that of a body that is read as it is sent, None where it is not known.
    """

    method: str
    url: URL
    headers: CIMultiDict[str]
    body: bytes | AsyncIterator[bytes] | None = None
    redirects: int = 10
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request is sent in place of its own URL, with more ``headers``; the URL's host is verified by ``tls``."""

    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: SSLContext | None = None


def parse_url(text: str, query: Mapping[str, Any] | None = None, *, web: str = "http") -> URL:
    """Return the URL that a text is, with more added to its query. ``web`` is its scheme: http or ws.

    Raises RunError ``template`` for any other URL. The message holds none of it: a URL may hold a key.
    """
    text = text.strip()
    if _CONTROL.search(text):  # yarl would drop line breaks and tabs in silence
        message = "`url` contains a line break or another control character"
        raise RunError("template", message, final=True, parameter="url")
    try:
        url = URL(text, encoded=_QUOTED.fullmatch(text) is not None)
        right = url.scheme in (web, web + "s") and bool(url.raw_host) and url.port is not None
        if right and query:
            url = url.extend_query(query)
    except (ValueError, TypeError):
        right = False
    if not right:
        message = f"`url` must be a URL such as {web}s://api.example.org/path"
        raise RunError("template", message, final=True, parameter="url")
    return url.with_fragment(None)


def describe_status(status: int) -> str:
    """Return a status and what it is called, such as "404 Not Found"."""
    return f"{status} {_PHRASES.get(status, '')}".rstrip()


def loggable(url: URL) -> str:
    """Return a URL as it may stand in a log: without its query and user, which may hold keys."""
    return str(url.with_query(None).with_user(None))


def follow(request: UpstreamRequest, status: int, location: str) -> UpstreamRequest:
    """Return the request that a redirect asks for (https://fetch.spec.whatwg.org/#http-redirect-fetch)."""
    web = "ws" if request.url.scheme in ("ws", "wss") else "http"
    try:
        url = request.url.join(URL(location, encoded=_QUOTED.fullmatch(location) is not None))
        if web == "ws" and url.scheme in ("http", "https"):
            url = url.with_scheme("ws" + url.scheme[4:])
        known = url.scheme in (web, web + "s") and bool(url.raw_host) and not _CONTROL.search(location)
    except ValueError:
        known = False
    if not known:
        raise RunError("http-connection", f"{request.url.host} redirects to what is not a URL", final=True)
    method, body, headers = request.method, request.body, request.headers.copy()
    length = request.length
    if url.origin() != request.url.origin():
        headers = CIMultiDict((name, value) for name, value in headers.items() if name.lower() in _HARMLESS)
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body, length = "GET", None, None
        for name in _OF_BODY:
            headers.popall(name, None)
    if not isinstance(body, bytes | None):
        raise RunError(
            "http-connection",
            f"{request.url.host} redirects, and a body that is read as it is sent can't be sent again",
            final=True,
        )
    return replace(request, method=method, url=url.with_fragment(None), headers=headers, body=body, length=length)


Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
#: What getaddrinfo gives: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[Any, ...]


def _networks(texts: str) -> tuple[Network, ...]:
    return tuple(map(ip_network, texts.split()))


#: Where clouds hand out a machine's own credentials; no upstream of anybody lives there.
METADATA: Final = _networks(
    "169.254.0.0/16 fe80::/10 "
    "fd00:ec2::/32 "  # Amazon
    "fd20:ce::254/128 "  # Google
    "100.100.100.200/32 "  # Alibaba
    "168.63.129.16/32 "  # Azure
    "192.0.0.192/32"  # Oracle
)
#: The names of the same, wherever they lead.
METADATA_NAMES: Final = frozenset(
    """
    metadata metadata.google.internal metadata.goog instance-data instance-data.ec2.internal metadata.tencentyun.com
    metadata.packet.net
    """.split()  # noqa: SIM905
)
#: What is not the public network: private, local, shared, reserved, documentation, multicast
#: (https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-).
PRIVATE: Final = _networks(
    """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 ::/128
    ::1/128 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10
    ff00::/8
    """
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = IPv6Network("::/96")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")


#: Bytes that can be read at once before the head of a response has come: an upstream may send interim responses
#: (100 Continue) for ever, and the event loop would parse all that it finds.
_HEAD_BUFFER: Final = 8 * 1024
#: Bytes from which the kernel sizes the buffer further.
_BODY_BUFFER: Final = 256 * 1024
#: Clears what was set for a socket's buffers, so that the kernel sizes them again (Linux 5.15; Python has no name).
_SO_BUF_LOCK: Final = 72


def limit_reading(sock: socket.socket) -> None:
    """Limit how much can be read at once, where `unlimit_reading` can undo it."""
    with suppress(OSError):
        sock.getsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HEAD_BUFFER)


def unlimit_reading(transport: Transport | None) -> None:
    """Let the kernel size the buffer of a connection once the head of a response has come."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BODY_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)


class RefusedAddressError(OSError):
    """An address that the settings forbid."""

    def __init__(self) -> None:
        # Without the address: the client of an endpoint may read this.
        super().__init__("the address is not allowed")


class NetworkGuard:
    """Judges hosts and addresses by the settings; ``dev`` lets the machine's own network be reached."""

    def __init__(self, settings: HttpSettings, *, dev: bool = False) -> None:
        self._denied: tuple[Network, ...] = () if dev else METADATA
        if settings.deny_private_networks:
            self._denied = (*METADATA, *PRIVATE)
        self._any_host = settings.allow_hosts is None
        self._names_denied = frozenset() if dev and not self._denied else METADATA_NAMES
        self._names: list[tuple[str, int | None]] = []
        networks: list[Network] = []
        for entry in settings.allow_hosts or ():
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                name, _, port = entry.partition(":")
                self._names.append((name, int(port) if port else None))
        self._networks = tuple(networks)
        #: The port of the proxy, if calls go through one: what it may reach is judged by `check_literal`.
        self.proxy_port: int | None = None
        #: Socket addresses that requests are redirected to, which are allowed whatever the settings say.
        self.trusted: set[tuple[str, int]] = set()

    def check_host(self, host: str, port: int) -> None:
        """Judge the host of a URL.

        Raises RunError ``http-connection``, not to be tried again.
        """
        name = host.lower().rstrip(".")
        if self._any_host:
            if name in self._names_denied:
                raise RunError(
                    "http-connection", f"the address of {host} is in a network that is not allowed", final=True
                )
            return
        if self._allows(name, port):
            return
        if (host, port) in self.trusted:
            return
        raise RunError("http-connection", f"requests to {host} are not allowed by `http.allowHosts`", final=True)

    def _allows(self, host: str, port: int) -> bool:
        address = _parse(host)
        if address is not None:
            return _within(address, self._networks)
        return any(
            (wanted is None or wanted == port) and (host.endswith(name[1:]) if name.startswith("*.") else host == name)
            for name, wanted in self._names
        )

    def make_socket(self, info: AddressInfo) -> socket.socket:
        """Make the socket for an address that is about to be connected to.

        Raises RefusedAddressError for one that is not allowed.
        """
        family, kind, protocol, _, target = info
        trusted = (target[0], target[1]) in self.trusted or target[1] == self.proxy_port
        if not trusted and not self.admits(target[0]):
            raise RefusedAddressError
        made = socket.socket(family, kind, protocol)
        # A stream may be silent for long: so a peer that has vanished is noticed after all.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        limit_reading(made)
        return made

    def check_literal(self, host: str) -> None:
        """Judge a host that is an address in any form: a proxy resolves names itself, and would connect to it.

        Raises RunError ``http-connection``, not to be tried again.
        """
        text = host.rstrip(".")
        if text.lower() == "localhost":
            text = "127.0.0.1"
        elif _parse(text) is None:
            try:
                text = socket.inet_ntoa(socket.inet_aton(text))  # 2130706433, 0x7f.1 and the like
            except OSError:
                return
        if not self.admits(text):
            raise RunError("http-connection", f"the address of {host} is in a network that is not allowed", final=True)

    def admits(self, text: str) -> bool:
        """Tell whether an address may be connected to."""
        address = _parse(text)
        if address is None:
            return False
        meant = (address, *_embedded(address))
        if not any(_within(each, self._denied) for each in meant):
            return True
        return _within(address, self._networks)


def _parse(text: str) -> Address | None:
    try:
        return ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return None


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _embedded(address: Address) -> tuple[Address, ...]:
    """Return the IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return ()
    found: list[Address] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found += address.teredo
    if any(address in each for each in (_NAT64, _LOCAL_NAT64, _COMPATIBLE, _TRANSLATED)):
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return tuple(found)

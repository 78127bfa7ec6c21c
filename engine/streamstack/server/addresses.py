"""Addresses of clients, as trusted proxies report them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import Final, TypeAlias

from streamstack.errors import RunError
from streamstack.functions.security import open_callers
from streamstack.language.authentication import Jwt
from streamstack.language.definition import Project
from streamstack.language.settings import FORWARDED, Network
from streamstack.runtime.run import Context
from streamstack.server.request import Request

Address: TypeAlias = IPv4Address | IPv6Address

#: The pairs of an element of Forwarded: cut at the semicolons that are not in quotes (RFC 7239, section 4).
_PAIR: Final = re.compile(r'(?:[^;"]|"[^"]*")+')
#: `for`: a token, or a text in quotes.
_FOR: Final = re.compile(r'\s*for\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)
#: The elements of Forwarded: cut at the commas that are not in quotes.
_ELEMENT: Final = re.compile(r'(?:[^,"]|"[^"]*")+')
#: How many proxies are looked at.
_MOST: Final = 50


class Addresses:
    """Tells the addresses of callers: the peer's, or what proxies that are trusted say of theirs.

    The header is read from its end, where the nearest proxy wrote: an address counts if the one after it is trusted.
    So what a caller itself put into the header is never believed.
    """

    __slots__ = ("_header", "_trusted")

    def __init__(self, trusted: tuple[Network, ...] = (), header: str = FORWARDED[0]) -> None:
        self._trusted = trusted
        self._header = header

    def of(self, request: Request) -> str | None:
        """Return the address of who called; None where the peer has none (a Unix socket)."""
        peer = request.remote
        if not self._trusted or not peer:
            return peer.removeprefix("::ffff:") if peer else None
        address = _parse(peer)
        if address is None or not self._trusts(address):
            return peer
        for hop in self._hops(request):
            found = _parse(hop)
            if found is None:
                break  # `unknown`, or a name: the proxy that wrote it is the last one known
            address = found
            if not self._trusts(address):
                break
        return str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)

    def _hops(self, request: Request) -> Iterator[str]:
        """Yield what the proxies wrote, the nearest first."""
        text = ",".join(request.headers.getall(self._header, ()))
        if self._header == FORWARDED[0]:
            yield from text.split(",")[: -_MOST - 1 : -1]
            return
        # Cut from the end as well: a quote that a caller left open would take in what the proxies wrote after it.
        for element in islice(_ELEMENT.finditer(text[::-1]), _MOST):
            yield _for(element[0][::-1])


def _for(element: str) -> str:
    for pair in _PAIR.findall(element):
        if (found := _FOR.match(pair)) is not None:
            return found[1] or found[2] or ""
    return ""


def _parse(text: str) -> Address | None:
    """Return an address, which may have a port or be in brackets; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class AuthenticationError(Exception):
    """An authentication that no client could ever pass."""


def prepare_callers(project: Project, context: Context, tell: Callable[[str], None]) -> None:
    """Make secrets for authentications without one, and announce them.

    Raises AuthenticationError where one can't be kept.
    """
    for name in sorted(set(_own(project, context))):
        try:
            context.resource(open_callers).tokens(name).signing_key()
        except RunError as error:
            raise AuthenticationError(error.message) from error
        tell(
            f"authentication.{name} has no secret of its own: one is kept in {context.folder / 'secrets' / name}, "
            "for this machine alone; give it one from the environment before others depend on it"
        )


def _own(project: Project, context: Context) -> Iterator[str]:
    """Yield the names of those that endpoints use."""
    for endpoint in project.endpoints:
        for way in endpoint.authentication.ways if endpoint.authentication is not None else ():
            method = context.authentication.get(way.name)
            if isinstance(method, Jwt) and method.own:
                yield way.name

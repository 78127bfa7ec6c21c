"""Sockets: options, ports to listen on, TLS, limits on file descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import sys
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from streamstack.language.settings import Tls

#: Bytes that the system takes before it has sent them; beyond, they stay with us, where `buffer` bounds them. Without
#: it the system would take megabytes for a reader who does not read, and the server could not see that it is slow.
UNSENT: Final = 128 * 1024
_LEAST: Final = 16 * 1024
#: Seconds of silence after which the system asks whether the peer still lives, seconds between such questions, and how
#: many may stay unanswered (tcp(7)).
_PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: The state of a connection in which both sides may send (tcp_states.h).
_ESTABLISHED: Final = 1
#: Seconds that a network may be away in any case.
_SHORTEST: Final = 30.0


class Socket:
    """The socket of a client's connection; what a system does not have is left out."""

    __slots__ = ("_patience", "_socket", "_unsent")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._socket: Any = transport.get_extra_info("socket")
        if getattr(self._socket, "family", None) not in {socket.AF_INET, socket.AF_INET6}:
            self._socket = None
        self._unsent = 0
        self._patience = 0.0
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            self._set(name, value)

    def configure(self, buffer: int, patience: float) -> None:
        """Hold so many bytes unsent; give up when the peer takes nothing for so many seconds (RFC 5482)."""
        unsent = max(min(buffer, UNSENT), _LEAST)
        if unsent != self._unsent:
            self._unsent = unsent
            self._set("TCP_NOTSENT_LOWAT", unsent)
        if patience != self._patience:
            self._patience = patience
            milliseconds = int(max(patience, _SHORTEST) * 1000)
            self._set("TCP_USER_TIMEOUT", min(milliseconds, 2**31 - 1))

    @property
    def peer_ended(self) -> bool:
        """Whether the peer has closed its side, or the connection is lost; False where the system doesn't tell."""
        option = getattr(socket, "TCP_INFO", None)
        if self._socket is None or option is None or self._socket.fileno() < 0:
            return False
        return bool(self._socket.getsockopt(socket.IPPROTO_TCP, option, 1)[0] != _ESTABLISHED)

    def _set(self, name: str, value: int) -> None:
        option = getattr(socket, name, None)
        if self._socket is not None and option is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)


#: Connections that the system keeps waiting for us.
BACKLOG: Final = 1024
#: On Linux it spreads connections over the sockets; elsewhere one socket may get them all.
_SPREADS: Final = sys.platform == "linux"
#: How often another free port is tried, where another process took it first.
_TRIES: Final = 5


class AddressError(Exception):
    """An address that can't be listened on."""


def bind(host: str, port: int, workers: int = 1) -> list[list[socket.socket]]:
    """Bind sockets for each worker, all to one port; none listens yet. Port 0 is any free one.

    Raises AddressError.
    """
    for _ in range(_TRIES):
        try:
            alone = _bind(host, port, together=False)
            if workers == 1:
                return [alone]
            # With SO_REUSEPORT alone, a second server would share the port with the first unseen.
            for each in alone:
                each.listen(1)
            chosen = alone[0].getsockname()[1]
            _close(alone)
            return _bind_all(host, chosen, workers)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue
            raise AddressError(explain(error, host, port)) from error
    raise AddressError(f"no free port was found on {host}: choose one with --port")


def _bind_all(host: str, port: int, workers: int) -> list[list[socket.socket]]:
    if not _SPREADS:
        shared = _bind(host, port, together=False)
        return [shared, *([each.dup() for each in shared] for _ in range(workers - 1))]
    with ExitStack() as undo:
        bound = []
        for _ in range(workers):
            sockets = _bind(host, port, together=True)
            undo.callback(_close, sockets)
            bound.append(sockets)
        undo.pop_all()
    return bound


def _bind(host: str, port: int, *, together: bool) -> list[socket.socket]:
    """Bind a socket to each address of a host, as `asyncio.create_server` does."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    refused: OSError | None = None
    with ExitStack() as undo:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                each = socket.socket(family, kind, protocol)
            except OSError as error:  # a kind of address that this machine does not have
                refused = error
                continue
            undo.callback(each.close)
            if sys.platform != "win32":
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if together:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and bound:
                port = bound[0].getsockname()[1]
            try:
                each.bind((address[0], port, *address[2:]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                refused = error  # a name may have addresses that this machine has not
                continue
            each.setblocking(False)
            bound.append(each)
        if not bound:
            raise refused or OSError(errno.EADDRNOTAVAIL, "no address")
        undo.pop_all()
    return bound


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        with suppress(OSError):
            each.close()


def explain(error: OSError, host: str, port: int) -> str:
    """Say what to do about an address that can't be had."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use already: stop what uses it, or choose another with --port"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user: choose one from 1024 on with --port"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is not an address of this machine: choose another with --host"
    return f"can't listen on {host}, port {port}: {error.strerror or error}"


class TlsError(Exception):
    """A certificate or a key that can't be used."""


class ServerTls:
    """The certificate of the server. Where it is reloaded, connections that are made later have the new one.

    Raises TlsError, as `reload` does.
    """

    def __init__(self, settings: Tls) -> None:
        self._settings = settings
        self._newest = self.context = _make_context(settings)
        self.context.sni_callback = self._choose  # called for each handshake, whether or not it names a server

    def reload(self) -> None:
        """Read the files again."""
        self._newest = _make_context(self._settings)

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._newest


def _make_context(settings: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password, OpenSSL would ask for that of an encrypted key on the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password="")
    except ssl.SSLError as error:
        files = " and ".join(str(each) for each in (settings.certificate, settings.key) if each is not None)
        raise TlsError(
            f"server.tls: {files} can't be used ({error.reason or 'not a PEM file'}): the certificate and its private "
            "key must be PEM files that belong together, and the key must not be encrypted"
        ) from error
    except OSError as error:
        unreadable = next((each for each in (settings.certificate, settings.key) if each and not _readable(each)), "")
        raise TlsError(f"server.tls: {unreadable}: {error.strerror}") from error
    return context


def _readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def url_of(host: str, port: int) -> str:
    """Return where this machine reaches what listens on a host of it."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


def shown(host: str, port: int, scheme: str = "http") -> str:
    """Return an address as messages show it."""
    name = {"0.0.0.0": "localhost", "::": "localhost", "": "localhost"}.get(host, host)  # noqa: S104
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens on a host; an unknown name is none."""
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return True  # nothing will listen there
    return all(ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in found)


#: As many as are asked for where the system would allow any number: some programs walk through all of them.
_MOST: Final = 65_536
#: What the process itself needs: log, database, pipes, definitions that are read.
_OWN: Final = 64


def allow_connections(wanted: int) -> tuple[int, str]:
    """Open the way to many files, and return how many connections there may be: ``wanted``, or as many as fit.

    A third of the files is left to what the runs open: upstreams, databases, uploads. With it comes what to tell
    the log, "" where all is well.
    """
    try:
        import resource  # noqa: PLC0415  (not on every system)
    except ImportError:
        return wanted, ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _MOST:
        best = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
            soft = best
        except (ValueError, OSError):
            pass  # as many as there are
    if soft == resource.RLIM_INFINITY:
        return wanted, ""
    fit = max(1, (soft - _OWN) * 2 // 3)
    if fit >= wanted:
        return wanted, ""
    return fit, (
        f"{fit} connections are taken at once, not the {wanted} of server.maxConnections: the system lets this process "
        f"open {soft} files; raise that with `ulimit -n` (systemd: LimitNOFILE)"
    )

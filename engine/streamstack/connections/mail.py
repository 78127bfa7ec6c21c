"""Delivery of mail: over SMTP, or to files where a developer has no mail server."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import aiosmtplib
import structlog

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.mail import EmailSettings, MailServer

log = structlog.get_logger("streamstack.run")

#: Seconds after which an unused connection is closed; servers close them after minutes.
_IDLE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as it is submitted: who sends it to whom, and its bytes. ``utf8``: it needs SMTPUTF8 (RFC 6531)."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    utf8: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A recipient that the server rejected, with its reply."""

    address: str
    code: int
    message: str


@dataclass(slots=True)
class Delivery:
    """What became of the recipients of a message."""

    accepted: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def check(self) -> None:
        """Raise RunError ``email-refused`` if no recipient was accepted."""
        if self.accepted or not self.refused:
            return
        raise RunError(
            "email-refused",
            f"the mail server rejected every recipient: {self.refused[0].code} {self.refused[0].message}",
            details={"refused": [_shown(each) for each in self.refused]},
            final=not all(400 <= each.code < 500 for each in self.refused),
        )

    def shown(self) -> dict[str, list[object]]:
        """Return it as a step gives it."""
        return {"accepted": [*self.accepted], "refused": [_shown(each) for each in self.refused]}


def _shown(refusal: Refusal) -> dict[str, object]:
    return {"address": refusal.address, "code": refusal.code, "message": refusal.message}


class Mailer(ABC):
    """Delivers messages. One per process."""

    def __init__(self, settings: EmailSettings) -> None:
        self.settings = settings

    @abstractmethod
    async def deliver(self, envelope: Envelope, begin: Callable[[], None]) -> Delivery:
        """Deliver a message to its recipients, those that are rejected aside.

        Args:
            envelope: The message.
            begin: Called when the server is about to take the message: from then on it may have been sent.

        Raises:
            RunError: ``email-refused``, ``email-connection`` or ``timeout`` if it was surely not sent;
                ``email-unconfirmed`` if it may have been.
        """

    async def aclose(self) -> None:  # noqa: B027  (most hold nothing open)
        """Close what is open."""


class FileMailer(Mailer):
    """Writes messages to files, for `--dev` without a mail server."""

    def __init__(self, settings: EmailSettings, folder: Path) -> None:
        super().__init__(settings)
        self._folder = folder

    async def deliver(self, envelope: Envelope, begin: Callable[[], None]) -> Delivery:
        name = f"{clock.now():%Y%m%d-%H%M%S}-{envelope.id.partition('@')[0][:12]}.eml"
        path = self._folder / name
        with clock.outside():
            await asyncio.to_thread(self._write, path, envelope.content)
        log.info("mail-written", file=str(path), to=list(envelope.recipients))
        return Delivery(list(envelope.recipients))

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class SmtpMailer(Mailer):
    """Submits messages over a pool of connections, which are reused while there is something to send."""

    def __init__(self, settings: EmailSettings, server: MailServer) -> None:
        super().__init__(settings)
        self._server = server
        self._slots = asyncio.Semaphore(settings.pool_size)
        self._idle: list[tuple[aiosmtplib.SMTP, asyncio.TimerHandle]] = []
        host = socket.gethostname()
        self._own_name = host if "." in host and host.isascii() else "[127.0.0.1]"

    async def aclose(self) -> None:
        while self._idle:
            client, timer = self._idle.pop()
            timer.cancel()
            await _quit(client)

    async def deliver(self, envelope: Envelope, begin: Callable[[], None]) -> Delivery:
        with clock.outside():
            async with self._slots:
                return await self._deliver(envelope, begin)

    async def _deliver(self, envelope: Envelope, begin: Callable[[], None]) -> Delivery:
        began = False
        try:
            async with self._connection(envelope) as client:
                delivery = await self._name_recipients(client, envelope)
                if delivery.accepted:
                    began = True
                    begin()
                    await client.data(envelope.content)
        except aiosmtplib.SMTPResponseException as error:
            raise _refused(error) from error
        except (OSError, aiosmtplib.SMTPException) as error:
            raise self._lost(error, began=began) from error
        delivery.check()
        return delivery

    @asynccontextmanager
    async def _connection(self, envelope: Envelope) -> AsyncIterator[aiosmtplib.SMTP]:
        """Yield a connection on which the message has begun (MAIL); it is reused if nothing fails."""
        client = self._reused()
        begun = False
        try:
            if client is not None:
                try:
                    await self._begin(client, envelope)
                    begun = True
                except (OSError, aiosmtplib.SMTPException):  # the server has closed it meanwhile, or has had enough
                    client.close()
            if not begun:
                client = await self._connect()
                await self._begin(client, envelope)
        except BaseException:
            if client is not None:
                client.close()
            raise
        assert client is not None
        done = False
        try:
            yield client
            done = True
        finally:
            if done and client.is_connected:
                timer = asyncio.get_running_loop().call_later(_IDLE, self._drop, client)
                self._idle.append((client, timer))
            else:
                client.close()

    def _reused(self) -> aiosmtplib.SMTP | None:
        while self._idle:
            client, timer = self._idle.pop()
            timer.cancel()
            if client.is_connected:
                return client
        return None

    def _drop(self, client: aiosmtplib.SMTP) -> None:
        self._idle = [each for each in self._idle if each[0] is not client]
        client.close()

    async def _connect(self) -> aiosmtplib.SMTP:
        server, mode = self._server, self.settings.start_tls
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=self._own_name,
            timeout=self.settings.timeout,
            use_tls=server.secure,
            start_tls=None if mode == "auto" and not server.secure else mode == "required" and not server.secure,
        )
        await client.connect()
        try:
            if server.user is not None:
                self._check_private(client)
                await client.login(server.user, server.password or "")
        except BaseException:
            client.close()
            raise
        return client

    def _check_private(self, client: aiosmtplib.SMTP) -> None:
        """Raise RunError where the password would cross a network in plain text."""
        if client.get_transport_info("sslcontext") is not None or self.settings.start_tls == "off":
            return
        if not ip_address(client.get_transport_info("peername")[0].partition("%")[0]).is_loopback:
            message = "the mail server offers no TLS, and the password would be sent in plain text"
            raise RunError("email-connection", message, final=True)

    async def _begin(self, client: aiosmtplib.SMTP, envelope: Envelope) -> None:
        """Check what the server can take, and name the sender."""
        if client.is_ehlo_or_helo_needed:
            await client.ehlo()
        options = []
        if client.supports_extension("size"):
            limit = client.esmtp_extensions["size"]
            if limit.isdecimal() and 0 < int(limit) < len(envelope.content):
                message = f"the message has {len(envelope.content)} bytes, and the mail server takes {limit}"
                raise RunError("email-refused", message, final=True)
            options.append(f"SIZE={len(envelope.content)}")
        if envelope.utf8:
            if not client.supports_extension("smtputf8"):
                message = "the mail server does not support addresses with characters outside ASCII (SMTPUTF8)"
                raise RunError("email-refused", message, final=True)
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        await client.mail(envelope.sender, options=options, encoding="utf-8" if envelope.utf8 else "ascii")

    async def _name_recipients(self, client: aiosmtplib.SMTP, envelope: Envelope) -> Delivery:
        delivery = Delivery()
        for address in envelope.recipients:
            try:
                await client.rcpt(address, encoding="utf-8" if envelope.utf8 else "ascii")
            except aiosmtplib.SMTPRecipientRefused as error:
                delivery.refused.append(Refusal(address, error.code, _line(error.message)))
            else:
                delivery.accepted.append(address)
        if not delivery.accepted and client.is_connected:
            await client.rset()
        return delivery

    def _lost(self, error: Exception, *, began: bool) -> RunError:
        late = isinstance(error, TimeoutError)
        what = f"did not reply within {self.settings.timeout:g} s" if late else "closed the connection"
        if began:
            message = f"the mail server {what} while it took the message, which may have been sent"
            return RunError("email-unconfirmed", message, final=True)
        if late:
            return RunError("timeout", f"the mail server {what}")
        if isinstance(error, aiosmtplib.SMTPServerDisconnected):
            return RunError("email-connection", f"the mail server {what} before it took the message")
        # What aiosmtplib says of names, ports, certificates and extensions; never a password.
        message = f"the mail server can't be used: {_line(str(error))}"
        return RunError("email-connection", message, final=not isinstance(error, OSError))


def _refused(error: aiosmtplib.SMTPResponseException) -> RunError:
    reply = f"{error.code} {_line(error.message)}"
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return RunError("email-connection", f"the mail server rejected the user or password: {reply}", final=True)
    what = {aiosmtplib.SMTPSenderRefused: "the sender", aiosmtplib.SMTPDataError: "the message"}.get(type(error))
    details = {"code": error.code, "message": _line(error.message)}
    message = f"the mail server rejected {what or 'the connection'}: {reply}"
    return RunError("email-refused", message, details=details, final=not 400 <= error.code < 500)


def _line(text: str) -> str:
    """Return the reply of a server on one line."""
    return " ".join(text.encode("utf-8", "replace").decode().split())[:300]


async def _quit(client: aiosmtplib.SMTP) -> None:
    try:
        await client.quit(timeout=1.0)
    except (OSError, aiosmtplib.SMTPException):
        client.close()

"""`streamstack call --websocket`: open a WebSocket, send messages, print those of the server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from stat import S_ISREG

import click
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol
from yarl import URL

from streamstack import __version__
from streamstack.testing.responses import AnswerPart, parts_of_message

#: What stands for the lines of standard input.
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Refusal(Exception):  # noqa: N818  (it is an answer)
    """The server answered over HTTP, with a status and a body."""

    status: int
    reason: str
    body: bytes


async def converse(
    url: URL,
    headers: Sequence[tuple[str, str]],
    messages: Sequence[str],
    timeout: float | None,
    show: Callable[[AnswerPart, int], bool],
) -> tuple[bool, str]:
    """Talk over a WebSocket until the server closes it.

    Args:
        url: Where it is, with http or https.
        headers: Further headers of the handshake.
        messages: What is sent. ``-`` is each line of standard input, at whose end the WebSocket is closed.
        timeout: Seconds without a message, None for no limit.
        show: Shows a part, of so many bytes; returns whether it is an error.

    Returns whether an error was shown, and how the connection was closed; "" for a good end. Raises Refusal, OSError,
    and InvalidHandshake.
    """
    offered = [each.strip() for name, value in headers if _is_subprotocol(name) for each in value.split(",")]
    try:
        connection = await connect(
            str(url.with_scheme("wss" if url.scheme == "https" else "ws")),
            additional_headers=[each for each in headers if not _is_subprotocol(each[0])],
            subprotocols=[Subprotocol(each) for each in offered] or None,
            user_agent_header=f"streamstack/{__version__}",
            max_size=None,
            open_timeout=timeout,
        )
    except InvalidStatus as refused:
        response = refused.response
        raise Refusal(response.status_code, response.reason_phrase, bytes(response.body or b"")) from None
    async with connection:
        run = connection.response.headers.get("X-Run-Id", "") if connection.response is not None else ""
        click.echo(f"101 Switching Protocols · WebSocket{f' · run {run}' if run else ''}", err=True)
        sending = asyncio.create_task(_send(connection, messages))
        failed = False
        try:
            while True:
                async with asyncio.timeout(timeout):
                    message = await connection.recv(decode=False)
                for part in parts_of_message(message.decode("utf-8", "replace")):
                    failed |= show(part, len(message))
        except TimeoutError:
            return failed, "nothing came for the time allowed by --timeout"
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                return failed, "the server closed the connection before the end"
            code = closed.rcvd.code
            return failed, "" if code in (1000, 1005) else f"the server closed with code {int(code)}"
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await sending


def _is_subprotocol(name: str) -> bool:
    return name.lower() == "sec-websocket-protocol"


async def _send(connection: ClientConnection, messages: Sequence[str]) -> None:
    for message in messages:
        if message != STDIN:
            await connection.send(message)
            continue
        async for line in _lines():
            await connection.send(line)
        await connection.close()


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of standard input as they come, without their ends."""
    try:
        is_file = S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, ValueError):  # it is none of the system's
        is_file = True
    if is_file:
        for line in sys.stdin:
            yield line.rstrip("\r\n")
        return
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        async for data in reader:
            yield data.decode("utf-8", "replace").rstrip("\r\n")
    finally:
        pipe.close()


__all__ = ["STDIN", "InvalidHandshake", "Refusal", "converse"]

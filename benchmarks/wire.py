"""HTTP as far as the load generator needs it: requests as bytes, answers taken apart."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
#: What ends a chunked body. It can't stand inside one of ours: no content holds CR.
LAST = b"\r\n0\r\n\r\n"
#: Seconds without a byte after which a server is given up.
PATIENCE = 60.0

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3,6})?(?:Z|\+00:00)")


class AnswerError(Exception):
    """An answer that is not what was asked for."""


def get(path: str) -> bytes:
    """Return a GET request that asks for server-sent events, on a connection that is kept."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\nUser-Agent: streamstack-bench\r\n\r\n"
    ).encode()


def post(path: str, body: Any, accept: str = "application/json") -> bytes:
    """Return a POST request with a JSON body, on a connection that is kept."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: {accept}\r\n"
        f"User-Agent: streamstack-bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. ``raw`` is all of it as it came, ``body`` without the framing."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes


def connect(port: int) -> socket.socket:
    """Return a blocking connection."""
    connection = socket.create_connection((HOST, port), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def fetch(port: int, request: bytes) -> Answer:
    """Send one request on a connection of its own and return the whole answer.

    Raises AnswerError for anything but a complete 200.
    """
    data = bytearray()
    with connect(port) as connection:
        connection.sendall(request)
        while not _complete(data):
            piece = connection.recv(1 << 18)
            if not piece:
                raise AnswerError(f"the connection was closed after {bytes(data[-200:])!r}")
            data += piece
    answer = _take_apart(bytes(data))
    if answer.status != 200:
        raise AnswerError(f"status {answer.status}: {answer.body[:500]!r}")
    return answer


def _complete(data: bytearray) -> bool:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", data[: end + 2])
    if length:
        return len(data) >= end + 4 + int(length[1])
    return data.endswith(LAST)


def _take_apart(raw: bytes) -> Answer:
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    body = _unchunked(rest) if chunked else rest
    return Answer(int(first.split()[1]), headers, body, raw)


def _unchunked(data: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def events(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a body of server-sent events, their data as JSON where it is, else as text."""
    found = []
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        fields: dict[str, Any] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
        if "data" in fields:
            found.append({**fields, "data": _plain(fields["data"])})
    return found


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def timeless(value: Any) -> Any:
    """Return a value with every timestamp replaced by the same word, to compare what else there is."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [timeless(inner) for inner in value]
    if isinstance(value, str) and _TIMESTAMP.fullmatch(value):
        return "<timestamp>"
    return value

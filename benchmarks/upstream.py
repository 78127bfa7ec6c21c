"""A stand-in for OpenAI's server: one answer of 200 pieces, made beforehand, as fast as it is asked for.

Started by itself it takes a port: `python upstream.py PORT`. It speaks as api.openai.com does: HTTP/1.1 with a
chunk of HTTP for each event, `chat.completion.chunk` objects, the usage at last, `[DONE]`.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
from typing import Any

HOST = "127.0.0.1"
#: Pieces of the text. Beside them there are the role's, the finish's and the usage's event.
PIECES = 200
_TEXT = "Streams carry what is said while it is being said ; nothing waits for the end of it ."
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def texts() -> list[str]:
    """Return the pieces of the text, a word each as a model's tokens are."""
    words = _TEXT.split()
    return [f" {words[number % len(words)]}" for number in range(PIECES)]


def _event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-CU5yTbZ8sZyqUyYv1mXw3tJhQ2rNk",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
        "choices": choices,
        "usage": usage,
    }
    return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def answer() -> bytes:
    """Return the whole answer, head and framing included."""
    events = [
        _event([_choice({"role": "assistant", "content": "", "refusal": None})]),
        *(_event([_choice({"content": text})]) for text in texts()),
        _event([_choice({}, "stop")]),
        _event([], {"prompt_tokens": 9, "completion_tokens": PIECES, "total_tokens": PIECES + 9}),
        b"data: [DONE]\n\n",
    ]
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in events) + b"0\r\n\r\n"


class _Peer:
    """One connection: what has come of its request, what is left of its answer."""

    __slots__ = ("came", "connection", "left")

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.came = b""
        self.left = memoryview(b"")

    def take(self, whole: bytes) -> bool:
        """Read; begin to answer a request that is complete. Return whether the connection goes on."""
        try:
            data = self.connection.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self.came += data
        head = self.came.find(b"\r\n\r\n")
        if head >= 0:
            length = _LENGTH.search(self.came, 0, head + 2)
            if length is None and b"chunked" in self.came[:head].lower():
                complete = self.came.endswith(b"0\r\n\r\n")
            else:
                complete = len(self.came) >= head + 4 + int(length[1] if length else 0)
            if complete:
                self.came = b""
                self.left = memoryview(whole)
        return True

    def send(self) -> bool:
        """Send what the connection takes. Return whether it goes on."""
        try:
            self.left = self.left[self.connection.send(self.left) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


def serve(port: int) -> None:
    """Answer requests for ever."""
    whole = answer()
    listener = socket.create_server((HOST, port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    peers: dict[int, _Peer] = {}
    while True:
        for number, ready in poll.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                peers[connection.fileno()] = _Peer(connection)
                poll.register(connection, select.EPOLLIN)
                continue
            peer = peers[number]
            before = bool(peer.left)
            going = peer.take(whole) if ready & ~select.EPOLLOUT else True
            if going and peer.left:
                going = peer.send()
            if not going:
                poll.unregister(number)
                peers.pop(number).connection.close()
            elif bool(peer.left) != before:
                wanted = select.EPOLLIN | (select.EPOLLOUT if peer.left else 0)
                poll.modify(number, wanted)


if __name__ == "__main__":
    serve(int(sys.argv[1]))

"""An EventSource whose connection is cut off comes back by itself, and its page gets each chunk once."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients.speaking import speaking
from tests.clients.test_npm import missing, run

COUNT = """
method: GET
path: /count
streaming: {resume: true, format: sse}
functionStack:
  - repeat:
      times: 60
      do:
        - stream: {content: << loop.index >>, delay: 5ms}
"""


@contextmanager
def cutting(address: str, after: int) -> Iterator[str]:
    """Stand before a server, and cut each second connection off after some bytes of its answer."""
    target = urlsplit(address)
    place = (target.hostname or "", target.port or 80)
    server = socket.create_server(("127.0.0.1", 0))
    asked = 0

    def pass_on(client: socket.socket, cut: bool) -> None:  # noqa: FBT001 (a closure's)
        with suppress(OSError), client, socket.create_connection(place) as other:
            # One request a connection: the next one is to be another's.
            other.sendall(re.sub(rb"(?i)keep-alive", b"close", client.recv(65536)))
            left = after if cut else 1 << 30
            while left > 0 and (data := other.recv(min(left, 65536))):
                client.sendall(data)
                left -= len(data)
            client.shutdown(socket.SHUT_RDWR)

    def listen() -> None:
        nonlocal asked
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            asked += 1
            thread = threading.Thread(target=pass_on, args=(client, asked % 2 == 1), daemon=True)
            thread.start()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_eventsource_comes_back(tmp_path: Path) -> None:
    """It sends the id of its last event, gets the rest, and stops at 204 when it is left to itself."""
    if missing():
        pytest.skip(missing())
    (tmp_path / "count.yaml").write_text(COUNT, "utf-8")
    with speaking(tmp_path) as address, cutting(address, 1500) as cut:
        told = run("eventsource.mjs", cut)
    for name, how in (("cut off", "done"), ("left to itself", "closed")):
        seen = told[name]["value"]
        assert seen["how"] == how, told
        assert seen["chunks"] == [str(number) for number in range(1, 61)]
        assert [each.rpartition("/")[2] for each in seen["ids"]] == [str(n) for n in range(60)]
        assert seen["done"] == 1
        assert seen["gaps"] == 0
        assert seen["opened"] >= 2

"""The servers that are measured: ourselves and the peers, each started on the servers' core."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from types import TracebackType
from typing import IO, Self

from machine import cores
from wire import HOST

HERE = Path(__file__).parent
#: Seconds a server has to start; 10,000 endpoints take their time.
START = 180.0
#: Seconds a server has to stop before it is killed.
STOP = 5.0

OURS = "streamstack"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that can be started. ``command`` gives its command line for a port."""

    name: str
    command: Callable[[int], Sequence[str]]
    needs: str = ""  # a program or a file that must be there


def streamstack() -> str:
    """Return the command of ourselves: that of the checkout's environment, else the one on the path."""
    own = HERE.parent / ".venv" / "bin" / "streamstack"
    found = os.environ.get("STREAMSTACK") or (str(own) if own.exists() else shutil.which("streamstack"))
    if found is None:
        raise FileNotFoundError("streamstack is not installed: run `make bench`, which installs it")
    return found


def ourselves(folder: Path) -> Peer:
    """Return streamstack, serving a folder."""
    return Peer(OURS, lambda port: [streamstack(), "serve", str(folder), "--port", str(port)])


def python(file: Path) -> Callable[[int], Sequence[str]]:
    """Return how a Python file that takes a port is started."""
    return lambda port: [sys.executable, str(file), str(port)]


def _python(file: str) -> Callable[[int], Sequence[str]]:
    return python(HERE / "peers" / file)


def _node(file: str) -> Callable[[int], Sequence[str]]:
    return lambda port: ["node", str(HERE / "peers" / file), str(port)]


_LITELLM = HERE / ".venv-litellm" / "bin" / "litellm"


def _litellm(port: int) -> Sequence[str]:
    config = str(HERE / "peers" / "litellm.yaml")
    return [str(_LITELLM), "--config", config, "--host", HOST, "--port", str(port)]


NCHAN = "nchan"
#: The module for nginx, of Debian's package libnginx-mod-nchan.
_NCHAN = os.environ.get("NCHAN_MODULE", "/usr/lib/nginx/modules/ngx_nchan_module.so")
_NCHAN_CONFIG = """
load_module {module};
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr error;
worker_rlimit_nofile 65536;
events {{ worker_connections 60000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /fanout {{
      nchan_subscriber eventsource;
      nchan_publisher;
      nchan_channel_id bench;
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"""


def _nchan(port: int) -> Sequence[str]:
    folder = Path(mkdtemp(prefix="nchan-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = folder / "nginx.conf"
    config.write_text(_NCHAN_CONFIG.format(module=_NCHAN, folder=folder, port=port))
    return ["nginx", "-p", str(folder), "-c", str(config)]


PEERS = {
    peer.name: peer
    for peer in (
        ourselves(HERE / "definitions"),
        Peer("aiohttp", _python("aiohttp_hand.py")),
        Peer("FastAPI", _python("fastapi_app.py")),
        Peer("sse-starlette", _python("sse_starlette_app.py")),
        Peer("Node http", _node("node_http.js"), needs="node"),
        Peer("Fastify", _node("fastify_app.js"), needs="node"),
        Peer("FastAPI + httpx", _python("fastapi_relay.py")),
        Peer("aiohttp client", _python("aiohttp_relay.py")),
        Peer("Node fetch", _node("node_relay.js"), needs="node"),
        Peer("LiteLLM", _litellm, needs=str(_LITELLM)),
        Peer("FastAPI + asyncpg", _python("fastapi_rows.py")),
        Peer("aiohttp + asyncpg", _python("aiohttp_rows.py")),
        Peer("sse-starlette, a queue each", _python("sse_starlette_fanout.py")),
        Peer(NCHAN, _nchan, needs=_NCHAN),
        Peer("Node ws", _node("node_ws_fanout.js"), needs="node"),
        Peer("Node + pg-cursor", _node("node_rows.js"), needs="node"),
    )
}


def available(name: str) -> bool:
    """Whether what a peer needs is on this machine."""
    needs = PEERS[name].needs
    return not needs or shutil.which(needs) is not None or (needs.startswith("/") and Path(needs).exists())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server, running while its `with` does. ``seconds`` is what its start took."""

    def __init__(
        self,
        peer: Peer,
        environment: Mapping[str, str] | None = None,
        *,
        core: int | None = None,
        user: str | None = None,
    ) -> None:
        self.name = peer.name
        self._core = cores()[0] if core is None else core
        self._environment = environment or {}
        self._user = user
        self.port = _free_port()
        self.seconds = 0.0
        self._command = peer.command(self.port)
        self._output: IO[bytes] = TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        core = self._core
        before = time.perf_counter()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=HERE,
            env={**os.environ, **self._environment},
            user=self._user,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509  (no threads here)
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.seconds = time.perf_counter() - before
        return self

    def _wait(self) -> None:
        assert self._process is not None
        until = time.perf_counter() + START
        while time.perf_counter() < until:
            if self._process.poll() is not None:
                break
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                return
            time.sleep(0.01)
        raise RuntimeError(f"{self.name} did not start: {self.told()}")

    def told(self) -> str:
        """Return the end of what the server printed."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")[-2000:]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._output.close()

"""Serve definitions/ and test its endpoints against their OpenAPI document with Schemathesis: `make schemathesis`.

Schemathesis has an environment of its own. Arguments are passed on to `schemathesis run`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from tests.redis import free_port

ROOT: Final = Path(__file__).parent.parent.parent
ENVIRONMENT: Final = ROOT / ".venv-schemathesis"
STREAMSTACK: Final = os.fspath(Path(sys.executable).with_name("streamstack"))
#: Seconds between the orders and prices that streams wait for.
EVENT_EVERY: Final = 0.1
#: Seconds that the server may take to start.
START_TIMEOUT: Final = 60.0


def main(arguments: list[str]) -> int:
    """Run Schemathesis over a copy of definitions/ and return its exit status."""
    with TemporaryDirectory() as folder:
        project = Path(folder) / "definitions"
        shutil.copytree(ROOT / "definitions", project, ignore=shutil.ignore_patterns(".streamstack"))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        log = Path(folder) / "log"
        with log.open("wb") as output:
            command = [STREAMSTACK, "serve", os.fspath(project), "--port", str(port), "--dev"]
            server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_until_ready(url, server)
            token = subprocess.run(
                [STREAMSTACK, "token", "--dir", os.fspath(project), "--claim", "sub=ada", "--scope", "chat"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
            ended = threading.Event()
            events = threading.Thread(target=_make_events, args=(url, ended))
            events.start()
            try:
                return _run(url, token, arguments)
            finally:
                ended.set()
                events.join()
        finally:
            server.terminate()
            server.wait()


def _run(url: str, token: str, arguments: list[str]) -> int:
    config = os.fspath(Path(__file__).with_name("schemathesis.toml"))
    command = [os.fspath(ENVIRONMENT / "bin" / "st"), "--config-file", config, "run", f"{url}/_openapi.json"]
    environment = os.environ | {"TOKEN": token}
    return subprocess.run([*command, *arguments], cwd=ROOT, env=environment, check=False).returncode


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    ended = threading.Event()
    for _ in range(int(START_TIMEOUT / 0.1)):
        if server.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/_ready").is_success:
                return
        except httpx.TransportError:
            ended.wait(0.1)
    raise SystemExit("definitions/ can't be served: streamstack serve definitions --dev")


def _make_events(url: str, ended: threading.Event) -> None:
    """Place orders and publish prices, so that streams of them begin."""
    with httpx.Client() as client:
        number = 0
        while not ended.wait(EVENT_EVERY):
            client.post(f"{url}/api/orders", json={"product": number % 10_000 + 1})
            client.put(f"{url}/api/price-board/ACME", json={"price": number})
            number += 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

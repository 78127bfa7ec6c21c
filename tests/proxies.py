"""Reverse proxies in front of servers on this machine: any by its command, nginx with the production configuration."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.redis import free_port
from tests.server.processes import Process

ROOT = Path(__file__).parent.parent
CONFIGURATION = ROOT / "deploy" / "nginx.conf"


def find_program(name: str) -> str | None:
    """Return the path of a server program, which Debian has outside of PATH; None if it is missing."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def run_proxy(command: Sequence[str], port: int, folder: Path) -> AsyncIterator[Process]:
    """Run a proxy until it accepts connections, and stop it afterwards."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, cwd=folder
    )
    proxy = Process(process, port)
    listening = asyncio.ensure_future(proxy.listen())
    try:
        for _ in range(500):
            try:
                (await proxy.connect()).close()
                break
            except OSError:
                assert process.returncode is None, proxy.lines
                await asyncio.sleep(0.02)
        yield proxy
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await listening


def configured(folder: Path, port: int, servers: dict[str, int]) -> str:
    """Return the configuration with the addresses and the folders of this machine put in."""
    text = CONFIGURATION.read_text("utf-8")
    for name, at in servers.items():
        text, count = re.subn(rf"server {name}:8080\b", f"server 127.0.0.1:{at}", text)
        assert count == 1, name
    text, count = re.subn(r"listen 8080;", f"listen 127.0.0.1:{port};", text)
    assert count == 1
    text = text.replace("/tmp/nginx.pid", str(folder / "nginx.pid"))
    temporary = "".join(
        f"  {each}_temp_path {folder / each};\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Limits of this machine's own.
    text = text.replace("worker_rlimit_nofile 65536;\n", "").replace("16384", "1024")
    return text.replace("http {\n", "http {\n" + temporary, 1)


@asynccontextmanager
async def nginx(folder: Path, servers: dict[str, int]) -> AsyncIterator[Process]:
    """Run nginx before servers, given by their names in the configuration and their ports."""
    program = find_program("nginx")
    assert program is not None
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(configured(folder, port, servers), "utf-8")
    command = (program, "-e", "stderr", "-p", str(folder), "-c", str(file), "-g", "daemon off;")
    async with run_proxy(command, port, folder) as proxy:
        yield proxy

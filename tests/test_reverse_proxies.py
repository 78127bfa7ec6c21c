"""docs/how-to/reverse-proxies.md: each configuration is run as it stands there, before `streamstack serve`."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.documents import ROOT, read_page
from tests.proxies import find_program, run_proxy
from tests.redis import free_port
from tests.server.processes import Process, serving
from tests.server.serving import Client
from tests.streaming_checks import (
    check_chunks,
    check_cut,
    check_leave,
    check_resume,
    check_upload,
    check_websocket,
    write_project,
)

PAGE: Final = ROOT / "docs" / "how-to" / "reverse-proxies.md"


def find(program: str) -> str:
    """Return where a program is; skip the test where it is missing."""
    found = find_program(program)
    if found is None:
        pytest.skip(f"{program} is missing: apt-get install {program.removesuffix('d')}")
    return found


def nginx(folder: Path, text: str, port: int) -> list[str]:
    """Return the command that runs nginx with the lines of the page."""
    paths = "".join(f"{each}_temp_path {folder};\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = f"pid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{text}}}\n"
    (folder / "proxy").write_text(text)
    return [find("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(folder / "proxy"), "-g", "daemon off;"]


def haproxy(folder: Path, text: str, port: int) -> list[str]:
    """Return the command that runs HAProxy."""
    (folder / "proxy").write_text(text)
    return [find("haproxy"), "-db", "-f", str(folder / "proxy")]


def caddy(folder: Path, text: str, port: int) -> list[str]:
    """Return the command that runs Caddy. Versions before 2.8 don't know `enable_full_duplex`."""
    if not is_recent():
        text = re.sub(r"^\{.*?^\}\n", "{\nadmin off\n}\n", text, count=1, flags=re.DOTALL | re.MULTILINE)
    else:
        text = text.replace("{\n", "{\nadmin off\n", 1)
    (folder / "proxy").write_text(text)
    return [find("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "proxy")]


def is_recent() -> bool:
    """Tell whether Caddy is 2.8 or newer: reads a request body after the response has begun, shows cut responses."""
    version = subprocess.run([find("caddy"), "version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", version)[:2])) >= (2, 8)


def varnish(folder: Path, text: str, port: int) -> list[str]:
    """Return the command that runs Varnish, which compiles its configuration."""
    program = find("varnishd")
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("varnishd needs a C compiler: apt-get install gcc")
    (folder / "proxy").write_text(text)
    listen = ("-a", f"127.0.0.1:{port}", "-n", str(folder), "-j", "none", "-s", "malloc,32m")
    return [program, "-F", "-f", str(folder / "proxy"), *listen]


def traefik(folder: Path, text: str, port: int) -> list[str]:
    """Return the command that runs Traefik, whose configuration has two parts."""
    static, dynamic = text.split("[http.", 1)
    (folder / "dynamic.toml").write_text(f"[http.{dynamic}")
    (folder / "static.toml").write_text(static.replace("/etc/traefik/streamstack.toml", str(folder / "dynamic.toml")))
    return [find("traefik"), f"--configFile={folder / 'static.toml'}"]


PROXIES: Final[dict[str, Callable[[Path, str, int], list[str]]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
    "varnish": varnish,
    "traefik": traefik,
}


def configuration(name: str, port: int, server: int) -> str:
    """Return the configuration of the page, with this test's ports in it."""
    language = {"caddy": "caddyfile", "varnish": "vcl", "traefik": "toml"}.get(name, name)
    block = "\n".join(each.text for each in read_page(PAGE).blocks if each.language == language)
    assert block
    if name == "varnish":
        text, count = re.subn(r'\.port = "8080"', f'.port = "{server}"', block)
    else:
        text, count = re.subn(r"\b127\.0\.0\.1:8080\b", f"127.0.0.1:{server}", f"{block}\n")
        text, listens = re.subn(r'(listen |bind :|^:|address = ":)80\b', rf"\g<1>{port}", text, flags=re.MULTILINE)
        assert listens == 1
    assert count == 1
    return text


@asynccontextmanager
async def proxied(name: str, folder: Path, server: int) -> AsyncIterator[Process]:
    """Run a proxy before a server."""
    port = free_port()
    command = PROXIES[name](folder, configuration(name, port, server), port)
    async with run_proxy(command, port, folder) as proxy:
        yield proxy


async def healthy(client: Client) -> bytes:
    """Return the status line of the server's health check."""
    client.ask("/_health", extra="Connection: close\r\n")
    line = await client.reader.readline()
    client.close()
    return line


@pytest.mark.parametrize("name", PROXIES)
async def test_streams_pass(tmp_path: Path, name: str) -> None:
    """Chunks, streamed uploads, clients that disconnect, clients that resume, a server that is killed."""
    project, folder = tmp_path / "project", tmp_path / "proxy"
    project.mkdir()
    folder.mkdir()
    write_project(project)
    settings = "server: {trustedProxies: [127.0.0.1]}\nstreaming: {keepAlive: 1s}\n"
    async with serving(project, streamstack=settings) as server, proxied(name, folder, server.port) as proxy:

        async def connect() -> Client:
            return await proxy.connect()

        for _ in range(200):  # Traefik listens before it has read its routes
            if b" 200 " in await healthy(await connect()):
                break
            await asyncio.sleep(0.05)
        await check_chunks(connect)
        await check_resume(connect)
        await check_leave(connect, server)
        await check_websocket(proxy.port)
        if name != "traefik" and (name != "caddy" or is_recent()):  # the page says so
            await check_upload(connect)
        if name != "caddy" or is_recent():
            await check_cut(connect, server)

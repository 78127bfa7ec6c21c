"""Who called, where proxies stand before the server: what they say is believed, what others say is not."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamstack.language.settings import load_settings
from streamstack.server.access import network_of
from streamstack.server.request import Addresses
from tests.redis import free_port
from tests.server.authenticating import project
from tests.server.serving import Reply, Server, parse

WHO = "path: /ip\nmethod: GET\nresponseType: json\nfunctionStack: [{return: << request.ip >>}]\n"
LIMITED = """
path: /l
method: GET
responseType: json
rateLimit: {limit: 1/minute, by: ip}
functionStack: [{return: 1}]
"""


async def ip(server: Server, *headers: str) -> str:
    """Return what the server takes a caller for who sends some header lines."""
    lines = "".join(f"{each}\r\n" for each in headers)
    raw = await server.raw(f"GET /ip HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{lines}\r\n".encode())
    return raw.partition(b"\r\n\r\n")[2].decode().strip('"')


async def test_nobody_is_believed_who_is_not_trusted(tmp_path: Path) -> None:
    """Without the setting, and from elsewhere: the peer's address counts, whatever it sends."""
    lines = ("X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "X-Real-IP: 203.0.113.9")
    for settings in ("{}", "server: {trustedProxies: [10.0.0.0/8, '::1']}"):
        async with project(tmp_path, settings, WHO, {}) as server:
            assert await ip(server) == "127.0.0.1"
            assert await ip(server, *lines) == "127.0.0.1"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "127.0.0.1"),
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 10.1.2.3,127.0.0.1"], "203.0.113.9"),
        (["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:DB8::1]:4711"], "2001:db8::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, nonsense"], "127.0.0.1"),
        (["198.51.100.1, nonsense, 10.1.2.3"], "10.1.2.3"),
        (["198.51.100.1, unknown"], "127.0.0.1"),
        ([""], "127.0.0.1"),
        ([", ,203.0.113.9"], "203.0.113.9"),
        (["1.2.3.4, " * 500 + "203.0.113.9"], "203.0.113.9"),
        (["10.0.0.1, " * 500 + "10.0.0.2"], "10.0.0.1"),
        (["203.0.113.9 "], "203.0.113.9"),
        (["0x7f.1"], "127.0.0.1"),
    ],
)
async def test_what_trusted_proxies_say(tmp_path: Path, lines: list[str], expected: str) -> None:
    """The header is read from its end: the first who is not trusted is the caller, all before is its own invention."""
    settings = "server: {trustedProxies: [127.0.0.1, 10.0.0.0/8]}"
    async with project(tmp_path, settings, WHO, {}) as server:
        assert await ip(server, *(f"X-Forwarded-For: {each}" for each in lines)) == expected
        assert await ip(server, "Forwarded: for=198.51.100.7") == "127.0.0.1", "not the header"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ('For="203.0.113.9:47";proto=https;by=10.0.0.1', "203.0.113.9"),
        ('for="[2001:db8::1]:47"', "2001:db8::1"),
        ("by=1.2.3.4;for=203.0.113.9, for=10.0.0.1", "203.0.113.9"),
        ('for="a,b", for=203.0.113.9', "203.0.113.9"),
        ("for=198.51.100.1, for=_hidden", "127.0.0.1"),
        ("for=198.51.100.1, proto=http", "127.0.0.1"),
        ('for="198.51.100.1', "127.0.0.1"),
        # What a caller left open, before what the proxy wrote.
        ('for=198.51.100.1;by=", for="[2001:db8::1]"', "2001:db8::1"),
        ('for=198.51.100.1;by=", for=203.0.113.9;host="t"', "203.0.113.9"),
        ('", for=203.0.113.9', "203.0.113.9"),
        ('host="t;for=198.51.100.1";for=203.0.113.9', "203.0.113.9"),
    ],
)
async def test_the_standard_header(tmp_path: Path, line: str, expected: str) -> None:
    """Forwarded (RFC 7239), where the settings say that the proxies write it; the other one is a caller's then."""
    settings = "server: {trustedProxies: [127.0.0.1, 10.0.0.0/8], forwardedHeader: forwarded}"
    async with project(tmp_path, settings, WHO, {}) as server:
        assert await ip(server, f"Forwarded: {line}") == expected
        assert await ip(server, "X-Forwarded-For: 198.51.100.7") == "127.0.0.1"


async def test_limits_go_by_it(tmp_path: Path) -> None:
    """Callers behind one proxy count apart, and none can count as another."""
    settings = "server: {trustedProxies: 127.0.0.1}"
    async with project(tmp_path, settings, LIMITED, {}) as server:

        async def ask(address: str) -> int:
            return (await server.get("/l", X_Forwarded_For=address)).status

        assert [await ask("203.0.113.1") for _ in range(2)] == [200, 429]
        assert [await ask(f"203.0.113.{n}, 203.0.113.2") for n in range(3)] == [200, 429, 429]
        assert [await ask(f"2001:db8:1:2::{n}") for n in range(1, 4)] == [200, 429, 429]
        assert await ask("2001:db8:1:3::1") == 200


def test_of_ipv6_a_network_counts_as_one() -> None:
    """A caller has all addresses of sixty-four bits; of IPv4 each address counts."""
    assert network_of("2001:db8::1") == network_of("2001:db8:0:0:ffff::") == "2001:db8::/64"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("203.0.113.9") == "203.0.113.9"
    assert network_of("") == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trustedProxies: [proxy.example]", "must be an address or a network"),
        ("trustedProxies: [5]", "must be an address or a network"),
        ("trustedProxies: {a: b}", "must be an address or a network"),
        ("trustedProxies: ['*']", "must be an address or a network"),
        ("trustedProxies: [0.0.0.0/0]", "everybody can be anybody"),
        ("forwardedHeader: Forwardet", "did you mean `Forwarded`"),
        ("forwardedHeader: [Forwarded]", "it is X-Forwarded-For or Forwarded"),
    ],
)
def test_settings_are_checked(text: str, told: str) -> None:
    """The finding says what is needed."""
    _, (finding,) = load_settings(f"server: {{{text}}}", "streamstack.yaml", {})
    assert finding.code == "bad-setting"
    assert told in finding.message


# ------------------------------------------------------------- nginx

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """Run nginx before a server, with what its own documentation says a proxy should send."""
    port = free_port()
    config = f"""
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""
    (folder / "nginx.conf").write_text(config)
    command = [str(NGINX), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if (folder / "nginx.pid").exists() and process.poll() is None:
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)


async def asked(port: int, path: str, address: str, forwarded: str = "") -> Reply:
    """Ask from another address of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    line = f"X-Forwarded-For: {forwarded}\r\n" if forwarded else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{line}\r\n".encode())
    try:
        return parse(await asyncio.wait_for(reader.read(), 10))
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_behind_nginx(tmp_path: Path) -> None:
    """A caller's own header is appended to, and nothing of it believed; one nginx behind another works too."""
    settings = "server: {trustedProxies: [127.0.0.1]}"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with project(tmp_path, settings, WHO + "---\n" + LIMITED, {}) as server:
        with nginx(tmp_path / "one", server.port) as inner, nginx(tmp_path / "two", inner) as outer:
            for port in (inner, outer):
                for forwarded in ("", "203.0.113.9", "203.0.113.9, 127.0.0.1", "nonsense"):
                    reply = await asked(port, "/ip", "127.0.0.2", forwarded)
                    assert reply.body == b'"127.0.0.2"', forwarded
            statuses = [
                (await asked(outer, "/l", address, forwarded)).status
                for address, forwarded in [
                    ("127.0.0.2", ""),
                    ("127.0.0.2", "203.0.113.9"),
                    ("127.0.0.3", "127.0.0.2"),
                    ("127.0.0.3", ""),
                ]
            ]
    assert statuses == [200, 429, 200, 429]


@pytest.mark.parametrize("trusted", [(), (ip_network("10.0.0.0/8"),)])
def test_an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_address(trusted: tuple[IPv4Network, ...]) -> None:
    """Else all of them would be one caller: those of one IPv6 network are."""
    peer: Any = SimpleNamespace(remote="::ffff:203.0.113.9")
    assert Addresses(trusted).of(peer) == "203.0.113.9"

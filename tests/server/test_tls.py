"""`server.tls`: HTTPS without a proxy."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.certificates import certified
from tests.server.processes import Process, refused, serving, settled, until
from tests.server.serving import Client
from tests.streaming_checks import TICKS, check_chunks, check_leave, check_resume, check_upload, write_project

TLS = "server: {tls: {certificate: cert.pem, key: key.pem}}\n"
OWN = """
method: GET
path: /own
functionStack:
  - http.request: /hello
    as: reply
  - stream: << reply.body >>
"""
HELLO = """
method: GET
path: /hello
responseType: json
functionStack: [{return: hello}]
"""
both = pytest.mark.parametrize("workers", ["1", "2"])


def trusting(folder: Path, *protocols: str) -> ssl.SSLContext:
    """Return what a client needs that trusts the certificate alone."""
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    context.set_alpn_protocols(list(protocols))
    return context


async def connect(server: Process, context: ssl.SSLContext) -> Client:
    """Connect with TLS."""
    return Client(*await asyncio.open_connection("127.0.0.1", server.port, ssl=context))


async def test_streams(tmp_path: Path) -> None:
    """Chunks leave as they are made, bodies are read as they arrive, clients leave and come back; no warning."""
    certified(tmp_path)
    context = trusting(tmp_path, "h2", "http/1.1")
    write_project(tmp_path)
    async with serving(tmp_path, streamstack=TLS, hello=HELLO, own=OWN) as server:
        assert any(line.endswith(f"on https://127.0.0.1:{server.port}") for line in server.lines)

        async def opened() -> Client:
            return await connect(server, context)

        client = await opened()
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        client.ask("/own", extra="Connection: close\r\n")
        assert b"data: hello" in await client.reader.read()
        client.close()
        await check_chunks(opened)
        await check_upload(opened)
        await check_leave(opened, server)
        await check_resume(opened)
        plain = await server.connect()
        plain.ask("/hello")
        assert await plain.reader.read() == b""  # it is not TLS
        plain.close()
        assert await server.stop() == 0
    assert [line for line in server.lines if '"level":"error"' in line or "Traceback" in line or "eof_" in line] == []


async def run_client(*command: str, **environment: str) -> str:
    """Run a client; return what it has printed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=os.environ | environment
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    return out.decode()


NODE = """
const response = await fetch(process.argv[1]);
for await (const text of response.body.pipeThrough(new TextDecoderStream())) process.stdout.write(text);
"""
HTTPX = """
import sys, ssl, httpx
with httpx.stream("GET", sys.argv[1], verify=ssl.create_default_context()) as response:
    sys.stdout.write("".join(response.iter_text()))
"""


@pytest.mark.parametrize("client", ["curl", "node", "httpx", "call"])
async def test_real_clients(tmp_path: Path, client: str) -> None:
    """Each verifies the certificate and reads the stream to its end."""
    if client in ("curl", "node") and shutil.which(client) is None:
        pytest.skip(f"{client} is missing")
    certificate = str(certified(tmp_path)[0])
    async with serving(tmp_path, streamstack=TLS, ticks=TICKS) as server:
        url = f"https://127.0.0.1:{server.port}/ticks"
        command = {
            "curl": ("curl", "-sN", "--cacert", certificate, url),
            "node": ("node", "--input-type=module", "-e", NODE, url),
            "httpx": (sys.executable, "-c", HTTPX, url),
            "call": (sys.executable, "-c", "from streamstack.cli import main; main()", "call", "GET", url),
        }[client]
        told = await run_client(*command, NODE_EXTRA_CA_CERTS=certificate, SSL_CERT_FILE=certificate)
    assert told.count("17" if client == "call" else "data: 1") >= 6
    assert "done" in told


@both
@pytest.mark.parametrize("how", ["SIGHUP", "--reload"])
async def test_a_renewed_certificate_is_used(tmp_path: Path, workers: str, how: str) -> None:
    """New connections have the new certificate; one that can't be used is reported, and the last one stays."""
    certified(tmp_path)
    old = trusting(tmp_path)
    options = ("--workers", workers, *(["--reload"] if how == "--reload" else []))
    async with serving(tmp_path, *options, streamstack=TLS, hello=HELLO, broken="") as server:
        first = await connect(server, old)

        async def renew() -> None:
            if how == "SIGHUP":
                server.process.send_signal(signal.SIGHUP)

        (tmp_path / "cert.pem").write_text("nothing")
        await renew()
        await server.said(r"server\.tls: .*cert\.pem.* can't be used .*stays in use")
        (await connect(server, old)).close()
        (tmp_path / "hello.yaml").write_text("path: ]")  # however broken the definitions are
        certified(tmp_path)
        new = trusting(tmp_path)
        await renew()

        async def renewed() -> bool:
            for _ in range(8):
                try:
                    (await connect(server, new)).close()
                except ssl.SSLCertVerificationError:
                    return False
            return True

        await settled(renewed)
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(server, old)
        first.ask("/hello", extra="Connection: close\r\n")
        assert b'"hello"' in await first.reader.read()
        first.close()
        if workers == "2":
            await until(lambda: len(server.workers()) == 2)
            os.kill(server.workers()[0], signal.SIGKILL)
            await server.said("another takes its place")
            assert await renewed()
        assert await server.stop() == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("missing", r"server\.tls: .*key\.pem: No such file"),
        ("other", r"server\.tls: .*cert\.pem and .*key\.pem can't be used .* belong together"),
        ("encrypted", r"server\.tls: .*must not be encrypted"),
        ("text", r"server\.tls: .*must be PEM files"),
    ],
)
async def test_unusable_files_are_reported(tmp_path: Path, change: str, told: str) -> None:
    """The message names the setting, the file and what it must be; no password is asked for."""
    _, key = certified(tmp_path)
    if change == "missing":
        key.unlink()
    elif change == "text":
        key.write_text("secret")
    elif change == "other":
        (tmp_path / "other").mkdir()
        key.write_bytes(certified(tmp_path / "other")[1].read_bytes())
    else:
        secret = load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))
    code, said = await refused(tmp_path, "--port", "0", streamstack=TLS, hello=HELLO)
    assert code == 2
    assert re.search(told, said), said
    assert "Traceback" not in said


async def test_one_file_may_hold_both(tmp_path: Path) -> None:
    """Without `key`, the private key is in the file of the certificate."""
    certificate, key = certified(tmp_path)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    key.unlink()
    settings = "server: {tls: {certificate: << env.CERTIFICATE | default('cert.pem') >>}}"
    async with serving(tmp_path, streamstack=settings, hello=HELLO) as server:
        client = await connect(server, trusting(tmp_path))
        client.ask("/hello", extra="Connection: close\r\n")
        assert b'"hello"' in await client.reader.read()
        client.close()

"""`streamstack serve` as a process: from YAML files to bytes, signals and exit codes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from pathlib import Path
from time import perf_counter

import pytest

from tests.server.declarations import GUARDED, SLOW
from tests.server.processes import refused, serving

HELLO = """
path: /hello/{name}
method: GET
inputParameters: {name: {type: text, required: true}}
headers: {X-Kind: greeting, X-Name: << input.name >>}
functionStack:
  - stream: Hello << input.name >>
"""
VALUE = """
path: /value
method: POST
responseType: json
inputParameters: {n: {type: integer, required: true}}
functionStack:
  - return: {twice: << input.n * 2 >>}
"""
GREEDY = """
path: /greedy
method: GET
functionStack:
  - forEach:
      in: << range(100000) >>
      as: i
      do:
        - forEach:
            in: << range(1000) >>
            as: j
            do:
              - set: {x: << j >>}
  - stream: done
"""


async def test_yaml_to_bytes(tmp_path: Path) -> None:
    """A folder of YAML is served: routes listed with their files, inputs checked, chunks sent."""
    async with serving(tmp_path, hello=HELLO, value=VALUE) as server:
        listed = "\n".join(server.lines)
        assert re.search(r"GET +/hello/\{name\} +\S*hello\.yaml", listed)
        assert re.search(r"POST +/value +\S*value\.yaml", listed)
        assert "2 endpoints" in listed
        hello = await server.ask("GET", "/hello/J%C3%BCrgen")
        value = await server.ask("POST", "/value", b'{"n": 21}')
        wrong = await server.ask("POST", "/value", b'{"n": "x", "m": 1}')
        assert await server.stop() == 0
    assert hello.body.startswith("data: Hello Jürgen\nid: 0\n\nevent: done\n".encode())
    assert hello.headers["x-kind"] == "greeting"
    assert (value.status, json.loads(value.body)) == (200, {"twice": 42})
    assert wrong.status == 400
    assert [fault["name"] for fault in json.loads(wrong.body)["errors"]] == ["n", "m"]


async def test_header_from_an_input_can_not_be_injected(tmp_path: Path) -> None:
    """A line break that an input brings into a header is two spaces there (RFC 9110, section 5.5)."""
    async with serving(tmp_path, hello=HELLO) as server:
        reply = await server.ask("GET", "/hello/a%0d%0aSet-Cookie:%20evil=1")
    assert (reply.status, reply.headers["x-name"]) == (200, "a  Set-Cookie: evil=1")
    assert "set-cookie" not in reply.headers


async def test_sigterm_lets_streams_finish(tmp_path: Path) -> None:
    """After SIGTERM nothing new is taken, the stream that runs ends in good order; exit code 0."""
    async with serving(tmp_path, slow=SLOW) as server:
        client = await server.connect()
        client.ask("/slow")
        await client.head()
        assert b"data: 1\n" in await client.chunk()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        with pytest.raises(OSError, match=r"refused|reset|Connect"):
            await server.connect()
        chunks = []
        while chunk := await client.chunk():
            chunks.append(chunk)
        assert b"data: 20\n" in b"".join(chunks)
        assert b"event: done" in chunks[-1]
        assert await asyncio.wait_for(server.process.wait(), 5) == 0
        client.close()


@pytest.mark.parametrize("signals", [1, 2])
async def test_sigterm_ends_streams_in_the_end(tmp_path: Path, signals: int) -> None:
    """Past `shutdownTimeout`, or at a second signal, streams get the error event; exit code 0."""
    patience = "100ms" if signals == 1 else "60s"
    settings = f"server: {{shutdownTimeout: {patience}}}"
    async with serving(tmp_path, slow=SLOW, streamstack=settings) as server:
        client = await server.connect()
        client.ask("/slow")
        await client.head()
        await client.chunk()
        for _ in range(signals):
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
        chunks = []
        while chunk := await client.chunk():
            chunks.append(chunk)
        assert b'event: error\ndata: {"code":"producer-lost"' in chunks[-1]
        assert await asyncio.wait_for(server.process.wait(), 5) == 0
        client.close()


async def test_idle_connections_do_not_keep_it(tmp_path: Path) -> None:
    """A connection without request is closed at once when the server stops."""
    async with serving(tmp_path, hello=HELLO) as server:
        client = await server.connect()
        client.ask("/_health")
        await client.head()
        began = perf_counter()
        assert await server.stop() == 0
        assert perf_counter() - began < 5
        client.close()


async def test_greedy_stack_is_fair(tmp_path: Path) -> None:
    """A stack that only computes does not keep others waiting."""
    async with serving(tmp_path, greedy=GREEDY, value=VALUE) as server:
        client = await server.connect()
        client.ask("/greedy")
        await asyncio.sleep(0.2)
        began = perf_counter()
        reply = await server.ask("POST", "/value", b'{"n": 1}')
        took = perf_counter() - began
        assert reply.status == 200
        assert took < 1
        # Its reader leaves: it stops, though it never waits for anything.
        client.close()
        assert await server.stop() == 0


async def test_settings_are_heard(tmp_path: Path) -> None:
    """CORS and the size of bodies come from streamstack.yaml, `--dev` from the command."""
    settings = "server: {cors: ['https://app.example'], maxBodySize: 64}"
    async with serving(tmp_path, "--dev", value=VALUE, streamstack=settings) as server:
        origin = "Origin: https://app.example\r\n"
        allowed = await server.ask("POST", "/value", b'{"n": 1}', origin)
        large = await server.ask("POST", "/value", b'{"n": 1' + b" " * 100 + b"}", origin)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert large.status == 413
    assert large.headers["access-control-allow-origin"] == "https://app.example"


async def test_body_that_stalls_is_not_waited_for(tmp_path: Path) -> None:
    """It is refused with 408, also where the answer is one value, which has no first chunk."""
    settings = "streaming: {firstChunkTimeout: 200ms}"
    async with serving(tmp_path, value=VALUE, streamstack=settings) as server:
        client = await server.connect()
        client.ask("/value", "POST", extra="Content-Length: 9\r\n")
        client.writer.write(b'{"n"')
        head = await asyncio.wait_for(client.head(), 10)
        client.close()
    assert b" 408 " in head


async def test_malformed_body_is_the_clients_fault(tmp_path: Path) -> None:
    """What says it is gzip and is not is answered with 400, and leaves no traceback in the log."""
    async with serving(tmp_path, value=VALUE) as server:
        reply = await server.ask("POST", "/value", b"no gzip", "Content-Encoding: gzip\r\n")
        assert await server.stop() == 0
    assert reply.status == 400
    assert not [line for line in server.lines if "Traceback" in line or "Unhandled" in line]


async def test_errors_are_not_served(tmp_path: Path) -> None:
    """A project with an error is shown its place and not served."""
    code, said = await refused(tmp_path, hello=HELLO.replace("input.name >>\n", "inptu.name >>\n"))
    assert code == 1
    assert re.search(r"hello\.yaml:\d+:\d+: error: unbound-name", said)
    assert "not served" in said


async def test_missing_environment_is_told(tmp_path: Path) -> None:
    """A variable that the settings need is named at start-up, by file and line."""
    settings = "settings: {key: << env.SURELY_NOT_SET >>}"
    code, said = await refused(tmp_path, hello=HELLO, streamstack=settings)
    assert code == 1
    assert re.search(r"streamstack\.yaml:1:\d+: error: .*SURELY_NOT_SET", said)
    assert "`streamstack validate --env` reports them too" in said


async def test_nothing_to_serve(tmp_path: Path) -> None:
    """An empty folder, and one that is not there, are reported apart."""
    code, said = await refused(tmp_path)
    assert (code, "no definitions" in said) == (2, True)
    code, said = await refused(tmp_path / "nope")
    assert (code, "no such folder" in said) == (2, True)


async def test_address_in_use(tmp_path: Path) -> None:
    """A port in use is reported as such, and how to choose one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = await refused(tmp_path, "--port", str(port), hello=HELLO)
    assert code == 2
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert "--port" in said
    assert "Traceback" not in said


async def test_address_of_nobody(tmp_path: Path) -> None:
    """So is a host that this machine does not have."""
    code, said = await refused(tmp_path, "--host", "192.0.2.1", hello=HELLO)
    assert (code, "--host" in said, "Traceback" in said) == (2, True, False)


SETTINGS = """
authentication:
  jwt: {type: jwt, secret: '<< env.NOT_SET_ANYWHERE | default("") >>'}
  other: {type: jwt, secret: ""}
"""


async def test_a_secret_of_its_own_is_told(tmp_path: Path) -> None:
    """The log says that a secret was made and where it is; an unused one is not made."""
    async with serving(tmp_path, streamstack=SETTINGS, mine=GUARDED) as server:
        said = "\n".join(server.lines)
        assert "authentication.jwt has no secret of its own" in said
        assert "authentication.other" not in said
        assert (await server.ask("GET", "/mine")).status == 401
        assert await server.stop() == 0
    kept = tmp_path / ".streamstack" / "secrets"
    assert [each.name for each in kept.iterdir()] == ["jwt"]
    assert (kept / "jwt").read_text().strip() not in "\n".join(server.lines)


async def test_a_secret_that_can_not_be_kept_is_no_start(tmp_path: Path) -> None:
    """Nothing is served under a secret that would be another one the next time."""
    (tmp_path / ".streamstack").write_text("in the way")
    code, said = await refused(tmp_path, streamstack=SETTINGS, mine=GUARDED)
    assert code == 2
    assert "give it one, from the environment" in said


async def test_an_authentication_that_is_not_there_is_no_start(tmp_path: Path) -> None:
    """An endpoint is never served to everybody by mistake."""
    code, said = await refused(tmp_path, streamstack="{}", mine=GUARDED)
    assert code == 1
    assert "unknown-authentication" in said

"""`streamstack call` sends and reads at once: an answer may come before the body has gone."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.calling import call, chunks_of, start

LARGE = 48 * 1024 * 1024
REFUSAL = b'{"code": "invalid-input", "detail": "the body is too large"}'
REFUSED = (
    b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
    % len(REFUSAL)
) + REFUSAL


CERTIFICATE = Path(__file__).parent.parent / "functions" / "self-signed.pem"


@contextmanager
def refusing(how: str, tls: ssl.SSLContext | None) -> Iterator[str]:
    """Refuse one request after its head, reading nothing of its body; then do with the connection what is said."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            # As servers do: else the system holds the refusal back behind a session ticket, and drops it with the rest.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(1)
                connection.sendall(REFUSED)
                if how == "stays":
                    over.wait(60)
                elif how == "leaves":
                    connection.shutdown(socket.SHUT_WR)
                    over.wait(60)

        thread = threading.Thread(target=refuse)
        thread.start()
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        thread.join()


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS that the command trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.mark.parametrize("how", ["stays", "leaves", "breaks off"])
@pytest.mark.parametrize("version", [None, "TLSv1_2", "TLSv1_3"])
def test_an_early_refusal_is_shown(tmp_path: Path, how: str, version: str | None, tls: ssl.SSLContext) -> None:
    """Whatever becomes of the connection: what the server said is shown, though it took nothing of a large body."""
    if version is not None:
        tls.maximum_version = ssl.TLSVersion[version]
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGE)
    with refusing(how, None if version is None else tls) as url:
        result = call("POST", "/", "--json", tmp_path / "large", "--url", url)
    assert result.exit_code == 1, result.output
    assert "413 Content Too Large" in result.stderr
    assert "invalid-input: the body is too large" in result.stderr


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"])
def test_an_answer_without_a_whole_head_is_none(head: bytes) -> None:
    """A server that goes away within its head has not answered, though what came looks like success."""
    result = told(head)
    assert result.exit_code == 2, result.output
    assert "does not answer: the connection was closed within the head" in result.stderr


def test_what_is_no_answer_is_shown_as_text() -> None:
    """Whatever listens there: its bytes do nothing to the terminal."""
    result = told(b"\x15\x03\x01\x1b[2J\r\n\r\n")
    assert result.exit_code == 2, result.output
    assert "what it says is not HTTP: " in result.stderr
    assert r"\x15\x03\x01\x1b[2J" in result.stderr


def told(answer: bytes) -> Result:
    """Ask a server that says this, and goes away."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def tell() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=tell)
        thread.start()
        result = call("GET", "/", "--url", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    return result


TEXT = ("-H", "Content-Type: text/plain")
ECHO = """
method: POST
path: /echo
inputParameters: {lines: {type: stream, decode: lines}}
functionStack:
  - forEach: {in: << input.lines >>, as: line, do: [{stream: << line >>}]}
"""


def test_an_answer_is_read_while_the_body_is_sent(tmp_path: Path) -> None:
    """A server that reads no more until its reader has read does not wait for good: both go on."""
    (tmp_path / "endpoints.yaml").write_text(ECHO)
    line = "x" * 1023
    (tmp_path / "lines").write_text(f"{line}\n" * 16_384)
    (tmp_path / "streamstack.yaml").write_text("server: {maxBodySize: 64MB}\n")
    result = call("POST", "/echo", "--json", tmp_path / "lines", *TEXT, "--dir", tmp_path)
    assert result.exit_code == 0, result.stderr
    shown = chunks_of(result)
    assert len(shown) == 16_385
    assert set(shown[:-1]) == {f'"{line}"'}


def test_what_a_pipe_brings_is_answered_before_it_ends(tmp_path: Path) -> None:
    """A line of the standard input is sent, and its chunk shown, before there is another."""
    (tmp_path / "endpoints.yaml").write_text(ECHO)
    with start("POST", "/echo", "--json", "-", *TEXT, "--dir", tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in ("one", "two", "three"):
            process.stdin.write(f"{word}\n")
            assert process.stdout.readline().endswith(f'ms  "{word}"\n')
        told = process.communicate(timeout=60)
    assert process.returncode == 0, told


def test_a_pipe_that_is_silent_is_let_go(tmp_path: Path) -> None:
    """Where the answer has ended the command ends, though the body has not."""
    endpoint = ECHO.replace("[{stream: << line >>}]", "[{stream: << line >>}, break]")
    (tmp_path / "endpoints.yaml").write_text(endpoint)
    with start("POST", "/echo", "--json", "-", *TEXT, "--dir", tmp_path) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("one\n")
        assert process.wait(60) == 0
        assert "Traceback" not in (told := process.stderr.read())
        assert "Fatal" not in told


def test_the_same_over_tls(tmp_path: Path, tls: ssl.SSLContext) -> None:
    """A large body is sent and a large answer read at once, by one thread: TLS takes no two."""
    size = 4 * 1024 * 1024
    with (tmp_path / "large").open("wb") as file:
        file.write(b"x" * size)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            plain, _ = server.accept()
            with tls.wrap_socket(plain, server_side=True) as connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(1)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size)
                left = size
                while left:
                    data = connection.recv(65_536)
                    connection.sendall(data)
                    left -= len(data)

        thread = threading.Thread(target=echo)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        result = call("POST", "/", "--json", tmp_path / "large", "--url", url)
        thread.join()
    assert result.exit_code == 0, result.stderr
    assert sum(len(each) - 2 for each in chunks_of(result)) == size

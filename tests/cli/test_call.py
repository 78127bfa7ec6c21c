"""`streamstack call`, of a project in this process and of servers of every manner."""

from __future__ import annotations

import os
import re
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamstack.cli import main
from tests.cli.calling import call, chunks_of

PROJECT = """
method: POST
path: /words
responseType: streaming
inputParameters:
  message: {type: text, required: true}
  count: {type: integer, default: 3, maximum: 10}
  options: {properties: {mark: {type: text, default: ""}}}
functionStack:
  - repeat:
      times: <<input.count>>
      do:
        - wait: 30ms
        - stream: << input.message ~ input.options.mark >>
---
method: GET
path: /fail/{n}
responseType: streaming
inputParameters: {n: integer}
functionStack:
  - repeat: {times: <<input.n>>, do: [{stream: x}]}
  - throw: {code: broken, message: It broke, status: 418}
---
method: POST
path: /upload
responseType: json
inputParameters: {file: {type: file, required: true}}
functionStack:
  - return: '<< {"name": input.file.name, "size": input.file.size} >>'
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of three endpoints."""
    (tmp_path / "endpoints.yaml").write_text(PROJECT)
    return tmp_path


def test_chunks_are_shown_as_they_come(project: Path) -> None:
    """Each chunk has its time; then come first chunk, intervals, total and count."""
    asked = ["-i", "message=Hi", "-i", "count=4", "-i", "options.mark=!"]
    result = call("post", "/words", *asked, "--dir", project)
    assert result.exit_code == 0, result.stderr
    assert chunks_of(result)[:4] == ['"Hi!"'] * 4
    assert chunks_of(result)[4].startswith('done  {"chunks":4,')
    times = [float(each) for each in re.findall(r"^ *([\d.]+) ms", result.stdout, re.MULTILINE)]
    assert times[3] - times[0] > 50
    told = result.stderr.splitlines()
    assert told[0].startswith("200 OK · text/event-stream; charset=utf-8 · run ")
    assert re.fullmatch(r"first chunk  \d+\.\d ms", told[1])
    assert re.fullmatch(r"intervals    median \d+\.\d ms, max \d+\.\d ms", told[2])
    assert re.fullmatch(r"total        \d+\.\d ms", told[3])
    assert re.fullmatch(r"chunks       4 \(\d+ bytes\)", told[4])


@pytest.mark.parametrize(
    ("accept", "chunks"),
    [
        ("application/x-ndjson", ['"Hi"', '"Hi"', '"Hi"']),
        ("text/plain", ['"Hi"', '"Hi"', '"Hi"']),
        ("application/json", ['"Hi"', '"Hi"', '"Hi"', "done"]),
    ],
)
def test_every_format_is_read(project: Path, accept: str, chunks: list[str]) -> None:
    """NDJSON, text and one JSON document show the same chunks."""
    result = call("POST", "/words", "-i", "message=Hi", "-H", f"Accept: {accept}", "--dir", project)
    assert result.exit_code == 0
    assert [each[:4] for each in chunks_of(result)] == chunks
    assert ("intervals" in result.stderr) is (accept != "application/json")


def test_error_answer_is_told(project: Path) -> None:
    """Faults are printed one a line, and an error with its place; the exit code says so."""
    result = call("POST", "/words", "-i", "count=99", "-i", "mesage=x", "--dir", project)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "400 Bad Request" in result.stderr
    assert "  count (in the body) must be at most 10\n" in result.stderr
    assert "  mesage (in the body) is not known here, did you mean `message`?\n" in result.stderr
    result = call("GET", "/fail/0", "--dir", project)
    assert result.exit_code == 1
    assert "418 I'm a Teapot" in result.stderr
    assert "broken: It broke\n" in result.stderr
    assert re.search(r"  at .*endpoints\.yaml:22:5, step throw\n", result.stderr)


def test_error_after_chunks_is_told(project: Path) -> None:
    """A stream that ends with an error, or too soon, fails."""
    result = call("GET", "/fail/2", "--dir", project)
    assert result.exit_code == 1
    assert chunks_of(result) == ['"x"', '"x"']
    assert '  error  {"code":"broken","message":"It broke"' in result.stderr
    result = call("GET", "/fail/2", "-H", "Accept: text/plain", "--dir", project)
    assert result.exit_code == 1
    assert "the answer was cut short: the server closed the connection" in result.stderr


def test_files_and_documents_are_sent(project: Path) -> None:
    """A file goes into a form, a JSON file is the body."""
    (project / "a.txt").write_text("abc")
    result = call("POST", "/upload", "-i", f"file=@{project / 'a.txt'}", "--dir", project)
    assert chunks_of(result) == ['{"name":"a.txt","size":3}']
    (project / "body.json").write_text('{"message": "Ho", "count": 1}')
    result = call("POST", "/words", "--json", project / "body.json", "--dir", project)
    assert chunks_of(result)[0] == '"Ho"'


LARGE = 48 * 1024 * 1024


@contextmanager
def taking() -> Iterator[tuple[str, list[bytes | int]]]:
    """Take one request to its end, whatever says where that is, and answer; give the head and the size of the rest."""
    seen: list[bytes | int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            connection, _ = server.accept()
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65_536)
                head, _, data = data.partition(b"\r\n\r\n")
                size, known = len(data), re.search(rb"Content-Length: (\d+)", head)
                while size < int(known[1]) if known else not data.endswith(b"0\r\n\r\n"):
                    piece = connection.recv(65_536)
                    assert piece, "the request ends too soon"
                    data, size = data[-5:] + piece, size + len(piece)
                seen.extend((head, size))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", seen
        thread.join()


@pytest.mark.parametrize("way", ["document", "file", "pipe"])
def test_what_is_sent_is_not_held(tmp_path: Path, way: str) -> None:
    """A body of 48 MB costs less than 4 MB of memory: a document, a file in a form, and what comes out of a pipe."""
    large, pipe = tmp_path / "large", tmp_path / "pipe"
    with large.open("wb") as file:
        file.truncate(LARGE)
    os.mkfifo(pipe)
    given: dict[str, list[str | Path]] = {
        "document": ["--json", large],
        "file": ["-i", f"f=@{large}"],
        "pipe": ["--json", pipe],
    }

    def fill() -> None:
        with pipe.open("wb") as file:
            for _ in range(LARGE // 65_536):
                file.write(b" " * 65_536)

    filling = threading.Thread(target=fill)
    if way == "pipe":
        filling.start()
    with taking() as (url, seen):
        tracemalloc.start()
        try:
            result = call("POST", "/", *given[way], "--url", url)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    if way == "pipe":
        filling.join()
    assert result.exit_code == 0, result.output
    head, size = seen
    assert isinstance(head, bytes)
    assert isinstance(size, int)
    assert size >= LARGE
    assert (b"Transfer-Encoding: chunked" in head) is (way == "pipe")
    assert (b"Content-Length: " in head) is (way != "pipe")
    assert peak < 4 * 1024 * 1024


def test_standard_input_is_sent(project: Path) -> None:
    """With `--json -` the body is what comes in, of unknown length."""
    document = '{"message": "Ho", "count": 1}'
    arguments = ["call", "POST", "/words", "--json", "-", "--dir", str(project)]
    result = CliRunner().invoke(main, arguments, input=document)
    assert chunks_of(result)[0] == '"Ho"'


def test_refusal_of_a_large_body_is_shown(project: Path) -> None:
    """A server that does not read it all is heard all the same."""
    (project / "streamstack.yaml").write_text("server: {maxBodySize: 1KB}\n")
    with (project / "large").open("wb") as file:
        file.truncate(LARGE)
    result = call("POST", "/words", "--json", project / "large", "--dir", project)
    assert result.exit_code == 1
    assert "413" in result.stderr


def test_name_of_a_file_is_not_the_file(project: Path, tmp_path: Path) -> None:
    """Where the file itself was meant, the command says how to send it."""
    file = tmp_path / "a.txt"
    file.write_text("abc")
    result = call("POST", "/upload", "-i", f"file={file}", "--dir", project)
    assert result.exit_code == 1
    assert f"hint: to send the file itself, write -i file=@{file}" in result.stderr
    assert "hint" not in call("POST", "/upload", "-i", "file=nothing", "--dir", project).stderr


def test_unsound_project_is_not_called(tmp_path: Path) -> None:
    """The findings are shown in place of an answer."""
    (tmp_path / "a.yaml").write_text(PROJECT.replace("input.message", "inputs.message"))
    result = call("GET", "/fail/0", "--dir", tmp_path)
    assert result.exit_code == 2
    assert "unbound-name" in result.stderr
    assert "can't be served: fix the errors above first\n" in result.stderr
    (tmp_path / "a.yaml").write_text("method: GET\npath: /a\nfunctionStack: [{stream: << env.NOT_SET >>}]\n")
    assert "first; `streamstack validate --env` reports them too\n" in call("GET", "/a", "--dir", tmp_path).stderr


def test_mistakes_are_told() -> None:
    """An impossible request is an error message, not a traceback."""
    result = call("GET", "words", "--url", "http://localhost:1")
    assert result.exit_code == 2
    assert "the path words begins with a slash: /words" in result.stderr
    result = call("GET", "/", "--url", f"localhost:{closed_port()}")
    assert result.exit_code == 2
    assert "does not answer: " in result.stderr
    result = call("GET", "/", "--url", "ftp://x")
    assert "write it like http://localhost:8080" in result.stderr


def closed_port() -> int:
    """Return an unused port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """Answer one request with these bytes, each in a packet of its own, then close."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(65_536)
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_packets_cut_anywhere_are_one_answer() -> None:
    """An answer that comes byte by byte is the answer that comes at once."""
    body = b"9\r\ndata: hi\n\r\n1\r\n\n\r\n9\r\ndata: a\n\n\r\n0\r\n\r\n"
    for pieces in ([HEAD + body], [HEAD, *(body[at : at + 1] for at in range(len(body)))]):
        with answering(*pieces) as url:
            result = call("GET", "/", "--url", url)
        assert chunks_of(result) == ['"hi"', '"a"']
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"9\r\ndata: hi\n\r\n1\r\n\n\r\n",
        HEAD + b"9\r\ndata: hi\n\r\n1\r\n\n\r\n5\r\nab",
        HEAD + b"9\r\ndata: hi\n\r\n1\r\n\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata: hi\n\n",
    ],
)
def test_answer_cut_short_fails(answer: bytes) -> None:
    """What came is shown, and that it was not all."""
    with answering(answer) as url:
        result = call("GET", "/", "--url", url)
    assert chunks_of(result) == ['"hi"']
    assert result.exit_code == 1
    assert "the answer was cut short: " in result.stderr


def test_silence_is_bounded_on_demand() -> None:
    """With --timeout a server that says nothing is left."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        result = call("GET", "/", "--url", url, "--timeout", "0.05")
    assert result.exit_code == 2
    assert "nothing came for the time allowed by --timeout" in result.stderr


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_what_is_no_http_is_told(answer: bytes) -> None:
    """A server of another kind does not answer, as far as we are concerned."""
    with answering(answer) as url:
        result = call("GET", "/", "--url", url)
    assert result.exit_code == 2
    assert "does not answer: " in result.stderr

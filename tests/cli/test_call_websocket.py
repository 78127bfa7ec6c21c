"""`streamstack call --websocket` opens a WebSocket, sends messages, and shows those of the server."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from streamstack.cli import main
from tests.cli.calling import call, chunks_of

ECHO = """
method: GET
path: /echo
inputParameters:
  times: {type: integer, minimum: 1, default: 2}
  messages: {type: stream, decode: json}
functionStack:
  - streams.take: {in: << input.messages >>, count: << input.times >>}
    as: some
  - forEach: {in: << some >>, as: message, do: [{stream: {event: echo, content: << message >>}}]}
  - done
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a project that echoes messages."""
    (tmp_path / "echo.yaml").write_text(ECHO, "utf-8")
    return tmp_path


def test_messages(folder: Path) -> None:
    """Each message is shown with its time, then the figures; a clean end is a success."""
    result = call("GET", "/echo", "--dir", folder, "--send", '"a"', "--send", '{"b": 1}')
    assert result.exit_code == 0, result.output
    shown = chunks_of(result)
    assert shown[:2] == ['{"event":"echo","content":"a"}', '{"event":"echo","content":{"b":1}}']
    assert shown[2].startswith("done")
    assert "101 Switching Protocols" in result.stderr
    assert "chunks       2" in result.stderr


def test_lines_of_standard_input(folder: Path) -> None:
    """`--send -` sends each line, and closes at the end."""
    arguments = ["call", "GET", "/echo", "-i", "times=9", "--dir", str(folder), "--send", "-"]
    result = CliRunner().invoke(main, arguments, input="1\n2\n3\n")
    assert result.exit_code == 0, result.output
    assert [each for each in chunks_of(result) if "echo" in each] == [
        f'{{"event":"echo","content":{n}}}' for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("GET", "/echo", "--send", "{"), 1, "invalid-chunk"),
        (("GET", "/echo", "-i", "times=0", "--websocket"), 1, "times (in the query)"),
        (("GET", "/nowhere", "--websocket"), 1, "not-found"),
        (("POST", "/echo", "--websocket"), 2, "opened with GET"),
        (("GET", "/echo", "--websocket", "--url", "http://127.0.0.1:9"), 2, "does not answer"),
    ],
)
def test_failures(folder: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    """Errors of the stream and of the handshake are shown; the exit code tells them apart."""
    result = call(*arguments, *(() if "--url" in arguments else ("--dir", folder)))
    assert result.exit_code == code, result.output
    assert text in result.output

"""One request from the command line, and its answer as it arrives."""

from __future__ import annotations

import http.client
import json
import mimetypes
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode, urlsplit

from streamstack.commands.bodies import Body, Part, of_bytes, of_file, of_open
from streamstack.commands.duplex import Duplex

_IN_QUERY: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_PIECE: Final = 64 * 1024


class UnreachableError(Exception):
    """No server answered."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request: ``target`` is path and query."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: Body | None

    @classmethod
    def of(
        cls,
        method: str,
        path: str,
        inputs: Sequence[str],
        document: BinaryIO | None,
        headers: Iterable[str],
    ) -> Question:
        """Make the request of a command line; what is in the document and in files is read when it is sent.

        Inputs go to the query, or into a form: it is the endpoint that knows their types, and converts them.

        Raises ValueError with what to write instead.
        """
        if not path.startswith("/"):
            raise ValueError(f"the path {path} begins with a slash: /{path}")
        method = method.upper()
        given = [_header(text) for text in headers]
        names = {name.lower() for name, _ in given}
        fields = _fields(inputs)
        body = None if document is None else Body((of_open(document),))
        content_type = "application/json"
        if document is None and method not in _IN_QUERY:
            body, content_type = _form(fields)
        else:
            texts = [(name, value) for name, value in fields if isinstance(value, str)]
            if len(texts) < len(fields):
                raise ValueError("a file is sent with POST, PUT or PATCH, and without --json")
            if texts:
                path += ("&" if "?" in path else "?") + urlencode(texts)
        if body is not None and "content-type" not in names:
            given.append(("Content-Type", content_type))
        if "accept" not in names:
            given.append(("Accept", "text/event-stream, application/json;q=0.9, */*;q=0.5"))
        return cls(method, quote(path, safe="/%?&=+:@!$'()*,;~[]-._"), tuple(given), body)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or any(each in text for each in "\r\n"):
        raise ValueError(f"a header is written 'Name: value', not {text!r}")
    return name.strip(), value.strip()


def _fields(inputs: Sequence[str]) -> list[tuple[str, str | Path]]:
    """Return names and values; `a.b=c` builds the object a, as JSON."""
    fields: list[tuple[str, str | Path]] = []
    objects: dict[str, dict[str, Any]] = {}
    for text in inputs:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"an input is written name=value, not {text!r}")
        if "." in name:
            first, *path = name.split(".")
            _place(objects.setdefault(first, {}), path, _guess(value), text)
        elif value.startswith("@"):
            fields.append((name, Path(value[1:])))
        else:
            fields.append((name, value))
    for name, held in objects.items():
        if any(each == name for each, _ in fields):
            raise ValueError(f"{name} is given whole and by its properties: give one of them")
        fields.append((name, json.dumps(held, ensure_ascii=False)))
    return fields


def _place(held: dict[str, Any], path: list[str], value: Any, text: str) -> None:
    for name in path[:-1]:
        inner = held.setdefault(name, {})
        # A value of its own, or another input's object? Objects alone can be built here.
        if type(inner) is not dict:
            raise ValueError(f"{text}: {name} has a value of its own already")
        held = inner
    held[path[-1]] = value


def _guess(text: str) -> Any:
    """Return a property's value: JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _form(fields: list[tuple[str, str | Path]]) -> tuple[Body | None, str]:
    """Return body and Content-Type of a form, in parts if it holds a file; nothing for no fields."""
    if not fields:
        return None, ""
    if all(isinstance(value, str) for _, value in fields):
        encoded = of_bytes(urlencode(fields).encode())
        return Body((encoded,)), "application/x-www-form-urlencoded"
    boundary = secrets.token_hex(16)
    parts: list[Part] = []
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
        if isinstance(value, Path):
            media = mimetypes.guess_type(value.name)[0] or "application/octet-stream"
            head += f'; filename="{_quoted(value.name)}"\r\nContent-Type: {media}'
            try:
                part = of_file(value)
            except OSError as error:
                raise ValueError(f"{value}: {error.strerror}") from None
        else:
            part = of_bytes(value.encode())
        parts += [of_bytes(f"{head}\r\n\r\n".encode()), part, of_bytes(b"\r\n")]
    parts.append(of_bytes(f"--{boundary}--\r\n".encode()))
    return Body(tuple(parts)), f"multipart/form-data; boundary={boundary}"


def _quoted(name: str) -> str:
    # WHATWG HTML, multipart/form-data encoding algorithm.
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


class Answer:
    """An answer that is still arriving. ``asked`` is when the request began; ``broken`` why it ended too soon."""

    def __init__(self, response: http.client.HTTPResponse, asked: float) -> None:
        self._response = response
        self.asked = asked
        self.broken = ""
        self.status = response.status
        self.reason = response.reason
        self.content_type = self.header("Content-Type")

    def header(self, name: str) -> str:
        """Return a header, "" where there is none."""
        return self._response.headers.get(name, "")

    def pieces(self) -> Iterator[bytes]:
        """Give the body as it arrives; at its end ``broken`` tells whether it was all."""
        while True:
            try:
                piece = self._response.read1(_PIECE)
            except TimeoutError:
                self.broken = "nothing came for the time allowed by --timeout"
                return
            except (http.client.HTTPException, OSError):
                self.broken = "the server closed the connection before the end"
                return
            if not piece:
                if self._response.length:  # what Content-Length still promised
                    self.broken = f"{self._response.length} bytes are missing"
                return
            yield piece

    def rest(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces())


@contextmanager
def ask(address: str, question: Question, timeout: float | None) -> Iterator[Answer]:
    """Send a request and give its answer once the head is there. ``timeout`` is in seconds.

    Raises UnreachableError where no server answers, UnreadableError where a file can't be sent.
    """
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UnreachableError(f"{address} is no address: write it like http://localhost:8080")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=timeout)
    except ValueError:
        raise UnreachableError(
            f"{address} is no address: write it like http://localhost:8080"
        ) from None
    try:
        asked = perf_counter()
        try:
            body = _begin(connection, parts.path.rstrip("/") + question.target, question)
            duplex = Duplex(connection.sock, body, timeout)
            likeness: Any = duplex  # of a socket, only this is used
            response = http.client.HTTPResponse(likeness, method=question.method)
            response.begin()
            if duplex.ended:  # http.client takes what came of the head for all of it
                raise http.client.IncompleteRead(b"")
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise UnreachableError(f"{address} does not answer: {_reason(error)}") from None
        yield Answer(response, asked)
    finally:
        connection.close()


def _begin(
    connection: http.client.HTTPConnection, target: str, question: Question
) -> Iterator[bytes] | None:
    """Send the head of a request, with every header as often as it is given; return its body as it is to be sent."""
    names = {name.lower() for name, _ in question.headers}
    connection.putrequest(
        question.method,
        target,
        skip_host="host" in names,
        skip_accept_encoding="accept-encoding" in names,
    )
    for name, value in question.headers:
        connection.putheader(name, value.encode())
    body = question.body
    length = 0 if body is None else body.length
    chunked = "transfer-encoding" in names
    if "content-length" not in names and not chunked:
        if length is None:
            chunked = True
            connection.putheader("Transfer-Encoding", "chunked")
        elif length or question.method not in _IN_QUERY:
            connection.putheader("Content-Length", str(length))
    connection.endheaders()
    if chunked:
        return _chunks(() if body is None else body.pieces())
    return None if body is None else body.pieces()


def _chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came for the time allowed by --timeout"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was closed within the head of the answer"
    if type(error) is http.client.BadStatusLine:
        return f"what it says is no HTTP: {str(error).strip()[:80]!r}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

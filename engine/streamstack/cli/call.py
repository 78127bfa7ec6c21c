"""`streamstack call`: send a request and print each chunk of the response as it arrives, with its time."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import os
import secrets
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from stat import S_ISREG
from statistics import median
from time import perf_counter
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode

import aiohttp
import click
import structlog
from multidict import CIMultiDict
from yarl import URL

from streamstack import __version__
from streamstack.cli.websocket import InvalidHandshake, Refusal, converse
from streamstack.connections.http_client import UpstreamResponse
from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.bodies import quoted
from streamstack.language.findings import WRITERS
from streamstack.language.masking import mask
from streamstack.language.project import find_root, read_project
from streamstack.server.app import serving_locally
from streamstack.server.context import DatabaseError
from streamstack.server.endpoints import UnservableError
from streamstack.testing.responses import MESSAGE, NOTHING, AnswerPart, AnswerReader, parsed

#: Exit codes: a whole answer; an error or an answer cut short; no answer.
COMPLETE, FAILED, NO_ANSWER = 0, 1, 2

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
#: Methods whose inputs go to the query.
_IN_QUERY: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
#: Bytes of a body that are read and sent at a time.
_PIECE: Final = 64 * 1024
_NO_PROGRESS: Final = "nothing came for the time allowed by --timeout"


class _NoAnswerError(click.ClickException):
    """No response to show."""

    exit_code = NO_ANSWER


@click.command(short_help="Call an endpoint and print each chunk as it arrives.")
@click.argument("method", type=click.Choice(_METHODS, case_sensitive=False), metavar="METHOD")
@click.argument("path")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="Input. Repeat it for a list; a.b=c sets a property; name=@file uploads a file.",
)
@click.option(
    "--json",
    "json_file",
    type=click.File("rb"),
    help="File with the JSON body, - for standard input; -i inputs are then sent in the query string.",
)
@click.option("--url", help="URL of a running server, such as http://localhost:8080.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Request header.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, path_type=Path),
    help="Project to serve if there is no --url.  [default: definitions, or the current folder]",
)
@click.option("--timeout", type=float, help="Time-out in seconds for the response to make progress.")
@click.option("--websocket", is_flag=True, help="Open a WebSocket.")
@click.option(
    "--send",
    "messages",
    multiple=True,
    metavar="TEXT",
    help="Message to send over a WebSocket; - for the lines of standard input.",
)
@click.pass_context
def call(  # noqa: PLR0913
    context: click.Context,
    method: str,
    path: str,
    *,
    inputs: tuple[str, ...],
    json_file: BinaryIO | None,
    url: str | None,
    headers: tuple[str, ...],
    directory: Path | None,
    timeout: float | None,
    websocket: bool,
    messages: tuple[str, ...],
) -> None:
    """Call an endpoint and print each chunk as it arrives, with the milliseconds since the request.

    PATH is a path such as /api/chat, or a full URL. For a path without --url, the project is served temporarily
    for the call. A summary follows: time to the first chunk, time between chunks, and total time.

    Exit codes: 0 for a complete response, 1 for an error or a truncated response, 2 if there was no response.
    """
    try:
        if "://" in path:
            if url is not None:
                raise ValueError("give a full URL, or a path and --url")
            url, path = _split_url(path)
        request = CallRequest.of(method, path, inputs, json_file, headers)
        if (opens := websocket or bool(messages)) and request.method != "GET":
            raise ValueError("a WebSocket is opened with GET")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        with _server(url, directory) as address:
            work = _converse(address, request, timeout, messages) if opens else _exchange(address, request, timeout)
            code = asyncio.run(work)
    finally:
        for part in request.body:
            part.file.close()
    context.exit(code)


def _split_url(text: str) -> tuple[str, str]:
    """Return the address and the target of a full URL."""
    scheme, _, rest = text.partition("#")[0].partition("://")
    host = rest.replace("?", "/", 1).partition("/")[0]
    target = rest[len(host) :]
    return f"{scheme}://{host}", target if target.startswith("/") else f"/{target}"


@contextmanager
def _server(url: str | None, directory: Path | None) -> Iterator[str]:
    """Yield the URL to call: the given one, or that of the project, served temporarily."""
    if url is not None:
        yield url
        return
    folder = directory or (Path("definitions") if Path("definitions").is_dir() else Path())
    checked = read_project(find_root(folder), REGISTRY, os.environ, check_environment=True)
    errors = [finding for finding in checked.findings if finding.severity == "error"]
    if errors:
        click.echo(WRITERS["text"](errors, checked.sources), nl=False, err=True)
        raise _NoAnswerError(f"the project can't be served: {checked.advice}")
    try:
        with _log_to_stderr(), serving_locally(checked, checked.environment) as address:
            yield address
    except (DatabaseError, UnservableError) as error:
        raise _NoAnswerError(str(error)) from None


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Write the log of the project to the standard error, apart from the chunks."""
    before = structlog.get_config()
    structlog.configure(
        processors=[
            _drop_refusals,
            structlog.processors.add_log_level,
            # Tracebacks without the values of variables, and nothing with a secret in it.
            structlog.processors.format_exc_info,
            mask,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop_refusals(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what the answer itself says, place included."""
    if event.get("event") in ("run-refused", "request"):
        raise structlog.DropEvent
    return event


# ----------------------------------------------------------------------------------------------- the request


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a body, which is read when it is sent; ``size`` in bytes, None if it is not known."""

    file: BinaryIO
    size: int | None
    name: str = "the body"


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A request: ``target`` is path and query, ``body`` is sent part by part."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: tuple[Part, ...]
    files: tuple[str, ...] = ()  # inputs whose value is the name of a file, which was not sent

    @classmethod
    def of(
        cls, method: str, path: str, inputs: Sequence[str], document: BinaryIO | None, headers: Sequence[str]
    ) -> CallRequest:
        """Make the request of a command line. Files are read when they are sent.

        Inputs go to the query or into a form: the endpoint knows their types, and converts them.

        Raises ValueError with what to write instead.
        """
        if not path.startswith("/"):
            raise ValueError(f"the path {path} begins with a slash: /{path}")
        method = method.upper()
        sent = [_header(text) for text in headers]
        names = {name.lower() for name, _ in sent}
        fields = _fields(inputs)
        body: tuple[Part, ...] = ()
        content_type = "application/json"
        if document is None and method not in _IN_QUERY:
            body, content_type = _form(fields)
        else:
            texts = [(name, value) for name, value in fields if isinstance(value, str)]
            if len(texts) < len(fields):
                raise ValueError("a file is sent with POST, PUT or PATCH, and without --json")
            if texts:
                path += ("&" if "?" in path else "?") + urlencode(texts)
        if document is not None:
            body = (Part(document, _size_left(document)),)
        if body and "content-type" not in names:
            sent.append(("Content-Type", content_type))
        if "accept" not in names:
            sent.append(("Accept", "text/event-stream, application/json;q=0.9, */*;q=0.5"))
        files = [
            f"{name}=@{value}" for name, value in fields if isinstance(value, str) and value and Path(value).is_file()
        ]
        target = quote(path, safe="/%?&=+:@!$'()*,;~[]-._")
        return cls(method, target, tuple(sent), body, tuple(files))

    @property
    def length(self) -> int | None:
        """The bytes of the body; None where that is not known before the end."""
        sizes = [part.size for part in self.body]
        return None if None in sizes else sum(size for size in sizes if size is not None)


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
            _place(objects.setdefault(first, {}), path, value, text)
        else:
            fields.append((name, Path(value[1:]) if value.startswith("@") else value))
    for name, built in objects.items():
        if any(each == name for each, _ in fields):
            raise ValueError(f"{name} is given whole and by its properties: give one of them")
        fields.append((name, json.dumps(built, ensure_ascii=False)))
    return fields


def _place(built: dict[str, Any], path: list[str], value: str, text: str) -> None:
    """Put a property's value into an object: JSON where it is JSON, else the text."""
    for name in path[:-1]:
        inner = built.setdefault(name, {})
        # A value of its own, or another input's object? Only objects can be built here.
        if type(inner) is not dict:
            raise ValueError(f"{text}: {name} has a value of its own already")
        built = inner
    try:
        built[path[-1]] = json.loads(value)
    except ValueError:
        built[path[-1]] = value


def _form(fields: list[tuple[str, str | Path]]) -> tuple[tuple[Part, ...], str]:
    """Return body and Content-Type of a form, multipart if it holds a file; no body for no fields."""
    if not any(isinstance(value, Path) for _, value in fields):
        encoded = (_text(urlencode(fields)),) if fields else ()
        return encoded, "application/x-www-form-urlencoded"
    boundary = secrets.token_hex(16)
    parts: list[Part] = []
    text = ""
    for name, value in fields:
        text += f'--{boundary}\r\nContent-Disposition: form-data; name="{quoted(name)}"'
        if isinstance(value, Path):
            media = mimetypes.guess_type(value.name)[0] or "application/octet-stream"
            text += f'; filename="{quoted(value.name)}"\r\nContent-Type: {media}\r\n\r\n'
            parts += [_text(text), _file(value)]
            text = "\r\n"
        else:
            text += f"\r\n\r\n{value}\r\n"
    parts.append(_text(f"{text}--{boundary}--\r\n"))
    return tuple(parts), f"multipart/form-data; boundary={boundary}"


def _text(text: str) -> Part:
    data = text.encode()
    return Part(BytesIO(data), len(data))


def _file(path: Path) -> Part:
    """Return a file as a part. Raises ValueError where it can't be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    return Part(file, _size_left(file), str(path))


def _size_left(file: BinaryIO) -> int | None:
    """Return the bytes that are left of an open file; None where that is not known, as of a pipe."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None
    # The kernel's own files (/proc) say 0 and hold something.
    known = S_ISREG(status.st_mode) and status.st_size
    return max(0, status.st_size - file.tell()) if known else None


# --------------------------------------------------------------------------------------------- the exchange


class _Socket(socket.socket):
    """A connection whose answer is read whatever becomes of the request."""

    __slots__ = ()

    def send(self, data: Any, flags: int = 0) -> int:
        """Send; a server that takes no more may have said why, and asyncio would drop that with the connection."""
        try:
            return super().send(data, flags)
        except ConnectionError:
            return len(data)

    def sendmsg(self, buffers: Any, *rest: Any) -> int:
        """Send several buffers, as `send`."""
        try:
            return super().sendmsg(buffers, *rest)
        except ConnectionError:
            return sum(map(len, buffers))

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive, the head of an answer apart: aiohttp forgets a head that comes in one packet with a broken body."""
        head, blank, _ = super().recv(size, socket.MSG_PEEK).partition(b"\r\n\r\n")
        return super().recv(len(head + blank) or size, flags)


class _Exchange:
    """One request and its answer, which may come before the whole body has been sent.

    Args:
        timeout: Seconds without progress, None for no limit. Waiting for input of our own does not count.
    """

    def __init__(self, request: CallRequest, timeout: float | None) -> None:
        self.failure = ""
        self._request = request
        self._timeout = timeout
        self._limit: asyncio.Timeout | None = None
        self._sockets: list[_Socket] = []

    def make_socket(self, address: Any) -> socket.socket:
        """Make a socket for the connection, as aiohttp asks for it."""
        self._sockets.append(_Socket(*address[:3]))
        return self._sockets[-1]

    async def hang_up(self) -> None:
        """End the connections, though a server may not have read what was sent: aiohttp would wait for it."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(100):
            await asyncio.sleep(0)
            if all(each.fileno() < 0 for each in self._sockets):
                break

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """Raise TimeoutError where nothing is sent or received for the time allowed."""
        async with asyncio.timeout(self._timeout) as self._limit:
            yield
        self._limit = None

    def _extend(self, seconds: float | None) -> None:
        if self._limit is not None and not self._limit.expired():
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(None if seconds is None else now + seconds)

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body as it is read. Sets ``failure`` if a file can't be read or has become shorter."""
        for part in self._request.body:
            remaining = part.size
            while remaining is None or remaining > 0:
                try:
                    piece = await self._read(part.file, _PIECE if remaining is None else min(remaining, _PIECE))
                except OSError as error:
                    self.failure = f"{part.name}: {error.strerror or error}"
                    raise
                if not piece:
                    break
                await asyncio.sleep(0)  # what has come is read before more is sent
                self._extend(self._timeout)
                yield piece
                remaining = None if remaining is None else remaining - len(piece)
            part.file.close()
            if remaining:
                self.failure = f"{part.name} became shorter while it was sent"
                raise OSError(self.failure)

    async def _read(self, file: BinaryIO, size: int) -> bytes:
        """Return the next bytes of a file; of a pipe, what has come."""
        try:
            descriptor = file.fileno()
        except (OSError, AttributeError):
            return file.read(size)
        await self._until_readable(descriptor)
        return os.read(descriptor, size)

    async def _until_readable(self, descriptor: int) -> None:
        """Wait for input of a pipe or a terminal; files always have some."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(descriptor, ready.set)
        except (OSError, NotImplementedError):  # epoll refuses files
            return
        self._extend(None)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)


async def _exchange(address: str, request: CallRequest, timeout: float | None) -> int:
    """Send a request and show its answer; return the exit code.

    Raises _NoAnswerError where no server answers, or a file can't be sent.
    """
    base = _parse_address(address)
    exchange = _Exchange(request, timeout)
    headers = CIMultiDict(request.headers)
    headers.setdefault("User-Agent", f"streamstack/{__version__}")
    headers.setdefault("Accept-Encoding", "identity")
    if request.body and request.length is not None and "Transfer-Encoding" not in headers:
        headers.setdefault("Content-Length", str(request.length))
    connector = aiohttp.TCPConnector(
        # Made here: aiohttp makes its own when it is imported, whatever SSL_CERT_FILE says by now.
        ssl=ssl.create_default_context() if base.scheme == "https" else True,
        socket_factory=exchange.make_socket,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(_send_once,),
        auto_decompress=False,
    ) as session:
        began = perf_counter()
        try:
            async with exchange.limited():
                response = await session.request(
                    request.method,
                    URL(str(base).rstrip("/") + request.target, encoded=True),
                    headers=headers,
                    data=exchange.body() if request.body else None,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, OSError, ValueError, _DisconnectedError) as error:
            reason = f"{address} does not answer: {_reason(error)}"
            raise _NoAnswerError(exchange.failure or reason) from None
        try:
            code = await _show(response, exchange, request, began)
        except RunError as error:
            raise _NoAnswerError(error.message) from None
        finally:
            response.close()
            await exchange.hang_up()
        if exchange.failure:
            raise _NoAnswerError(exchange.failure)
        return code


async def _converse(address: str, request: CallRequest, timeout: float | None, messages: Sequence[str]) -> int:
    """Talk over a WebSocket and show what the server sends; return the exit code. Raises as `_exchange` does."""
    url = URL(str(_parse_address(address)).rstrip("/") + request.target, encoded=True)
    headers = [each for each in request.headers if each[0].lower() != "accept"]
    timing = Timing(perf_counter())

    def show(part: AnswerPart, size: int) -> bool:
        timing.bytes += size
        return _show_part(replace(part, event="") if part.event == MESSAGE else part, timing, perf_counter())

    try:
        failed, broken = await converse(url, headers, messages, timeout, show)
    except Refusal as refusal:
        click.echo(f"{refusal.status} {refusal.reason}".strip(), err=True)
        _show_problem(refusal.body, request)
        return FAILED
    except (OSError, InvalidHandshake) as error:
        raise _NoAnswerError(f"{address} does not answer: {_reason(error)}") from None
    timing.end = perf_counter()
    if broken:
        click.echo(f"the answer was cut short: {broken}" if not failed else broken, err=True)
    for line in timing.lines():
        click.echo(line, err=True)
    return FAILED if failed or broken else COMPLETE


class _DisconnectedError(Exception):
    """The server closed the connection before the head of its answer was complete."""


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again when the server has closed the connection."""
    try:
        return await handler(request)
    except aiohttp.ServerDisconnectedError as error:
        raise _DisconnectedError from error


def _parse_address(address: str) -> URL:
    try:
        url = URL(address if "://" in address else f"http://{address}")
        sound = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        sound = False
    if not sound:
        raise _NoAnswerError(f"{address} is not an address: write it like http://localhost:8080")
    return url


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return _NO_PROGRESS
    if isinstance(error, _DisconnectedError):
        return "the connection was closed within the head of the answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"what it says is not HTTP: {' '.join(error.message.split())[:200]}"
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


async def _show(response: aiohttp.ClientResponse, exchange: _Exchange, request: CallRequest, began: float) -> int:
    """Show an answer as it comes, then its times. Return the exit code."""
    answer = UpstreamResponse(response, response.url.host or "")
    content_type = answer.headers.get("Content-Type", "")
    run = answer.headers.get("X-Run-Id")
    title = (f"{answer.status} {answer.reason}".strip(), content_type, f"run {run}" if run else "")
    click.echo(" · ".join(word for word in title if word), err=True)
    problem = bytearray()
    reader = AnswerReader(content_type)
    timing = Timing(began, at_once=reader.format == "json")
    broken, failed = "", False
    try:
        while True:
            async with exchange.limited():
                piece = await answer.read()
            now = perf_counter()
            if answer.status >= 400:
                problem += piece
            else:
                for part in reader.feed(piece) if piece else reader.close():
                    failed |= _show_part(part, timing, now)
            if not piece:
                break
            timing.bytes += len(piece)
    except TimeoutError:
        broken = _NO_PROGRESS
    except RunError as error:
        broken = "the server closed the connection before the end" if error.code == "stream-lost" else error.message
    timing.end = perf_counter()
    if answer.status >= 400:
        _show_problem(bytes(problem), request)
        return FAILED
    if broken:
        for part in reader.close():
            _show_part(part, timing, timing.end)
        click.echo(f"the answer was cut short: {broken}", err=True)
    for line in timing.lines():
        click.echo(line, err=True)
    return FAILED if failed or broken else COMPLETE


def _show_problem(body: bytes, request: CallRequest) -> None:
    lines = problem_lines(body)
    for line in lines:
        click.echo(line, err=True)
    if any("must be a file" in line for line in lines):
        for each in request.files:
            click.echo(f"hint: to send the file itself, write -i {each}", err=True)


def _show_part(part: AnswerPart, timing: Timing, now: float) -> bool:
    """Show one part; return whether it is an error."""
    if part.kind == "chunk":
        timing.chunks.append(now)
    label = part.event or ("" if part.kind == "chunk" else part.kind)
    offset = f"{(now - timing.began) * 1000:.1f} ms"
    words = [f"{offset:>9}", *([label] if label else []), shown(part)]
    click.echo("  ".join(words), err=part.kind == "error")
    sys.stdout.flush()
    return part.kind == "error"


@dataclass(slots=True)
class Timing:
    """When chunks came, in seconds of `perf_counter`; ``bytes`` are those of the body.

    ``at_once``: the chunks are those of one document, without times of their own.
    """

    began: float
    at_once: bool = False
    end: float = 0.0
    bytes: int = 0
    chunks: list[float] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the summary."""
        lines = []
        if self.chunks:
            lines.append(f"first chunk  {_duration(self.chunks[0] - self.began)}")
        gaps = [after - before for before, after in pairwise(self.chunks)]
        if gaps and not self.at_once:
            middle, longest = _duration(median(gaps)), _duration(max(gaps))
            lines.append(f"intervals    median {middle}, max {longest}")
        lines.append(f"total        {_duration(self.end - self.began)}")
        lines.append(f"chunks       {len(self.chunks)} ({_bytes(self.bytes)})")
        return lines


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _bytes(size: int) -> str:
    if size < 10_000:
        return f"{size} bytes"
    return f"{size / 1024:.1f} KB" if size < 10_000_000 else f"{size / 1024**2:.1f} MB"


# ----------------------------------------------------------------------------------------------- the answer


def shown(part: AnswerPart) -> str:
    """Return a part on one line: JSON as it was sent, text in quotes, so that its white space is seen."""
    value = parsed(part.text)
    if value is not NOTHING and (part.json or isinstance(value, (dict, list, str))):
        return part.text.replace("\n", " ").replace("\r", " ")
    return json.dumps(part.text, ensure_ascii=False)


def problem_lines(body: bytes) -> list[str]:
    """Return an error answer for people: its code and detail, then a line for each fault."""
    text = body.decode("utf-8", "replace").strip()
    value = parsed(text)
    if not isinstance(value, dict):
        return [text[:2000]] if text else []
    code, detail = value.get("code"), value.get("detail") or value.get("title")
    if code is None and detail is None:
        return [text[:2000]]
    lines = [": ".join(str(each) for each in (code, detail) if each)]
    faults = value.get("errors")
    for fault in faults if isinstance(faults, list) else []:
        if isinstance(fault, dict):
            place, name = fault.get("in", "request"), fault.get("name")
            where = f"{name} (in the {place})" if name else f"the {place}"
            lines.append(f"  {where} {fault.get('message', '')}")
    place = value.get("place")
    if isinstance(place, dict):
        file, line, column, step = (place.get(key, "?") for key in ("file", "line", "column", "step"))
        lines.append(f"  at {file}:{line}:{column}, step {step}")
    return lines

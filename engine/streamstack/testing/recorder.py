"""Records the answers of real upstreams, piece by piece with their times, as fixtures of a test."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from aiohttp import WSMsgType, web
from multidict import CIMultiDict

from streamstack.connections.http import UpstreamRequest
from streamstack.connections.http_client import HttpClient
from streamstack.errors import RunError
from streamstack.language import nodes, rewriting
from streamstack.language.bodies import media_of, media_of_pieces
from streamstack.language.cases import Case, Piece, Upstream
from streamstack.language.masking import masked
from streamstack.language.names import is_framing
from streamstack.language.rewriting import Duration, Rewriter, to_yaml
from streamstack.language.settings import HttpSettings
from streamstack.testing.answers import Sender, Written, disconnect
from streamstack.testing.calls import Call
from streamstack.testing.upstreams import LocalUpstreams

#: Headers of answers that definitions read; others identify an account, a session or a server.
_HEADERS: Final = re.compile(
    r"content-type|content-language|content-disposition|retry-after(-ms)?|location|link|etag|last-modified|"
    r"x-ratelimit-.*|anthropic-ratelimit-.*",
    re.IGNORECASE,
)
#: Types of whole bodies that a file holds as they are, by the suffix of its name.
_SUFFIXES: Final = {"application/json": ".json", "text/plain": ".txt", "text/csv": ".csv", "text/html": ".html"}
_LARGEST_MESSAGE: Final = 100 * 1024 * 1024


@dataclass(slots=True)
class Recording:
    """The answer of a real upstream to one call.

    Args:
        call: The call.
        status: The status, 101 of a WebSocket.
        headers: Those that definitions read.
        first_after: Seconds until the head came.
        pieces: The body, or the messages of a WebSocket, each with the seconds since the one before.
        whole: The body was sent with its length.
        fault: Why the answer has no end, or did not come.
    """

    call: Call
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    first_after: float = 0.0
    pieces: list[Piece] = field(default_factory=list)
    whole: bool = False
    fault: str = ""


class Recorder(LocalUpstreams):
    """Sends the calls that no upstream of a test answers to the hosts that they name, and records the answers."""

    def __init__(self, upstreams: Sequence[Upstream], settings: HttpSettings, *, dev: bool = False) -> None:
        super().__init__(upstreams)
        self.recordings: list[Recording] = []
        self._client = HttpClient(replace(settings, redirect=None), dev=dev)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await self._client.aclose()

    def _unanswered(self, call: Call) -> Sender:
        recording = Recording(call)
        self.recordings.append(recording)
        return _Relay(self._client, recording)


@dataclass(slots=True)
class _Relay:
    """Sends a call on, and its answer back."""

    client: HttpClient
    recording: Recording

    @property
    def events(self) -> int:
        return 0

    @property
    def chunks(self) -> int:
        return 0

    async def send(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Send the answer while it is recorded. See `Sender.send`."""
        headers = CIMultiDict((name, value) for name, value in call.headers.items() if not is_framing(name))
        for name in ("Host", "Content-Length"):
            headers.popall(name, None)
        headers["Accept-Encoding"] = "identity"  # a fixture is to be read
        asked = UpstreamRequest(call.method, call.url, headers, call.body or None, redirects=0)
        try:
            relay = self._relay_messages if call.url.scheme in ("ws", "wss") else self._relay_body
            response = await relay(request, call, asked)
        except RunError as error:
            self.recording.fault = error.message
            if request.transport is not None:
                disconnect(request.transport, reset=False)
            response = Written(keep=False)
        call.ended = asyncio.get_running_loop().time()
        return response

    async def _relay_body(self, request: web.BaseRequest, call: Call, asked: UpstreamRequest) -> web.StreamResponse:
        recording, clock = self.recording, _Clock()
        answer = await self.client.send(asked)
        try:
            recording.status, recording.first_after = answer.status, clock.lap()
            recording.headers = [(name, value) for name, value in answer.headers.items() if _HEADERS.fullmatch(name)]
            recording.whole = "Content-Length" in answer.headers
            relayed = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if not is_framing(name) and name.lower() not in ("content-length", "content-encoding"):
                    relayed.headers.add(name, value)
            await relayed.prepare(request)
            while data := await answer.read():
                recording.pieces.append(Piece(data, clock.lap()))
                call.sent += 1
                await relayed.write(data)
            await relayed.write_eof()
        finally:
            answer.close()
        return relayed

    async def _relay_messages(self, request: web.BaseRequest, call: Call, asked: UpstreamRequest) -> web.StreamResponse:
        recording, clock = self.recording, _Clock()
        remote = await self.client.connect(asked, _LARGEST_MESSAGE)
        recording.status, recording.first_after = 101, clock.lap()
        local = web.WebSocketResponse(decode_text=False)
        await local.prepare(request)

        async def forward() -> None:
            async for message in local:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    text = message.type is WSMsgType.TEXT
                    call.received.append(message.data.decode() if text else message.data)
                    await remote.send([call.received[-1]])

        forwarding = asyncio.create_task(forward())
        try:
            while (received := await remote.receive()) is not None:
                data, is_text = received
                recording.pieces.append(Piece(data, clock.lap(), binary=not is_text))
                call.sent += 1
                await (local.send_str(data.decode()) if is_text else local.send_bytes(data))
            await local.close()
        finally:
            forwarding.cancel()
            with suppress(asyncio.CancelledError):
                await forwarding
            await remote.close()
        return local


class _Clock:
    """Measures the time between one event and the next."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time()

    def lap(self) -> float:
        """Return the seconds since the last one, to the millisecond."""
        before, self._at = self._at, self._loop.time()
        return round(self._at - before, 3)


# ------------------------------------------------------------------------------- fixtures


def write_fixtures(case: Case, recordings: Sequence[Recording], folder: Path) -> list[dict[str, Any]]:
    """Write the answers of a test into `fixtures`; return the upstreams that give them, as they are written in YAML.

    ``folder`` is that of the test file. Secrets are masked. A call that had no answer gives none.
    """
    found: list[dict[str, Any]] = []
    by_match: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for recording in recordings:
        if not recording.status:
            continue
        call = recording.call
        # The query may hold a key.
        url = masked(str(call.url.with_query(None).with_user(None)))
        respond = _respond(recording, folder, f"{_slug(case.name)}-{call.number}")
        responds = by_match.get((call.method, url))
        if responds is None:
            responds = by_match[call.method, url] = []
            found.append({"match": {"method": call.method, "url": url}, "respond": responds})
        responds.append(respond)
    for upstream in found:
        if len(upstream["respond"]) == 1:
            (upstream["respond"],) = upstream["respond"]
    return found


def _respond(recording: Recording, folder: Path, name: str) -> dict[str, Any]:
    socket = recording.status == 101
    respond: dict[str, Any] = {} if recording.status in (101, 200) else {"status": recording.status}
    headers: dict[str, Any] = {}
    for header, value in recording.headers:
        headers.setdefault(header, []).append(masked(value))
    pieces = _masked(recording.pieces)
    media = next((value for header, value in recording.headers if header.lower() == "content-type"), "")
    suffix = _SUFFIXES.get(media.partition(";")[0].strip().lower())
    if not pieces:
        path = None
    elif recording.whole and suffix and not any(piece.binary for piece in pieces):
        path = folder / "fixtures" / f"{name}{suffix}"
        content = b"".join(piece.data for piece in pieces)
        respond["file"] = f"fixtures/{path.name}"
        implied = media_of(path)
    else:
        path = folder / "fixtures" / f"{name}.yaml"
        content = _listed(pieces).encode()
        respond["messages" if socket else "chunks"] = f"fixtures/{path.name}"
        implied = media_of_pieces(pieces, json=False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if media == implied:
            headers = {header: value for header, value in headers.items() if header.lower() != "content-type"}
    if headers:
        respond["headers"] = {header: value[0] if len(value) == 1 else value for header, value in headers.items()}
    if recording.first_after:
        respond["firstAfter"] = Duration(recording.first_after)
    if recording.fault and not socket:
        respond["cutAfter"] = {"bytes": sum(len(piece.data) for piece in pieces)}
    return respond


def _listed(pieces: Sequence[Piece]) -> str:
    """Return pieces as the list that `chunks` reads."""
    lines = []
    for piece in pieces:
        text = None if piece.binary else _decoded(piece.data)
        line: dict[str, Any] = {"after": Duration(piece.after)} if piece.after else {}
        line |= {"base64": b64encode(piece.data).decode()} if text is None else {"data": text}
        lines.append(f"- {to_yaml(line)}\n")
    return "".join(lines)


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _masked(pieces: Sequence[Piece]) -> list[Piece]:
    """Return pieces without secrets. Where one lies across pieces, what they are is one piece."""
    plain = b"".join(piece.data for piece in pieces)
    text = _decoded(plain)
    if text is None or any(piece.binary for piece in pieces):
        return [piece if _decoded(piece.data) is None else _mask(piece) for piece in pieces]
    hidden = masked(text).encode()
    if hidden == plain:
        return list(pieces)
    # A secret may lie across pieces.
    one_by_one = [piece if _decoded(piece.data) is None else _mask(piece) for piece in pieces]
    if b"".join(piece.data for piece in one_by_one) == hidden:
        return one_by_one
    return [Piece(hidden, sum(piece.after for piece in pieces))]


def _mask(piece: Piece) -> Piece:
    return replace(piece, data=masked(piece.data.decode()).encode())


def _slug(name: str) -> str:
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-")[:60] or "test"


def add_upstreams(text: str, added: Sequence[tuple[Case, Sequence[Mapping[str, Any]]]]) -> str:
    """Return the text of a test file with further upstreams in its tests."""
    rewriter = Rewriter(text, lambda expected, actual: type(expected) is type(actual) and expected == actual, _TREES)
    for case, upstreams in added:
        if not upstreams or not isinstance(case.node, nodes.Mapping):
            continue
        key, node = case.node.key("upstreams"), case.node.get("upstreams")
        if key is None or node is None:
            rewriter.insert(case.node, {"upstreams": list(upstreams)})
        elif isinstance(node, nodes.Sequence) and node.items:
            present = list(range(len(node.items)))
            rewriter.rewrite(key, node, present, [*present, *upstreams], flow=rewriter.is_flow(case.node))
        else:
            rewriter.write(key, node, list(upstreams), flow=rewriter.is_flow(case.node))
    return rewriting.apply(text, rewriter.replacements)


_TREES: Final = ("upstreams",)

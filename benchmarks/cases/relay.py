"""B2: a model's answer, relayed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from load import drive
from machine import cores, cpu_seconds
from results import Behind, Metric, Options, Target
from servers import HERE, OURS, Peer, Server, python
from upstream import PIECES, texts
from wire import LAST, AnswerError, events, fetch, post

#: Answers asked for at once.
LANES = 8
LITELLM = "LiteLLM"


class Relay:
    """An OpenAI upstream's events are parsed, and each piece of the text is sent on with its index."""

    key = "B2"
    title = f"Relay of an OpenAI stream of {PIECES} chunks: parse, take the delta, send it with an index"
    method = (
        f"{LANES} kept connections ask for answer after answer; the upstream is a process of its own beside the load "
        "(*upstream busy*), whose answer was made beforehand. µs/chunk is the server's CPU time. LiteLLM's proxy sends "
        "OpenAI's own chunks on, the others content and index."
    )
    peers = (OURS, "FastAPI + httpx", "aiohttp client", "Node fetch", LITELLM)
    metrics = (
        Metric("throughput", "chunks/s", more=True),
        Metric("server CPU", "µs/chunk"),
        Metric("server busy", "% of its core"),
        Metric("load busy", "% of its core"),
        Metric("upstream busy", "% of the load's core"),
    )
    targets = (
        Target("throughput", "FastAPI + httpx", 4),
        Target("throughput", "aiohttp client", 3),
        Target("throughput", "Node fetch", 1.2),
        Target("throughput", LITELLM, 50),
    )
    fresh = False

    def __init__(self) -> None:
        self._upstream: Server | None = None

    def behind(self, stack: ExitStack) -> Behind:
        upstream = Peer("the upstream", python(HERE / "upstream.py"))
        self._upstream = stack.enter_context(Server(upstream, core=cores()[1]))
        address = f"http://127.0.0.1:{self._upstream.port}/v1"
        return Behind({"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "stand-in"})

    def content(self, server: Server) -> Any:
        """Return each piece with its index; those of LiteLLM's chunks stand where they stand."""
        found = events(fetch(server.port, _request(server)).body)
        if server.name == LITELLM:
            chunks = [each["data"]["choices"] for each in found if each["data"] != "[DONE]"]
            said = [choices[0]["delta"].get("content") for choices in chunks if choices]
            return list(enumerate(filter(None, said)))
        *pieces, last = (each["data"] for each in found)
        if last != "[DONE]":
            raise AnswerError(f"{server.name} ends with {last}")
        return [(each["metadata"]["index"], each["content"]) for each in pieces]

    def measure(self, server: Server, options: Options) -> Mapping[str, float]:
        assert self._upstream is not None
        if self.content(server) != list(enumerate(texts())):
            raise AnswerError(f"{server.name} relays another text than the upstream's")
        request = _request(server)
        expected = fetch(server.port, request).body.count(b"data: ")

        def whole(buffer: bytearray, filled: int) -> bool:
            if not buffer.endswith(LAST, 0, filled):
                return False
            count = buffer.count(b"data: ", 0, filled)
            if count != expected:
                raise AnswerError(f"{count} events came, not {expected}")
            return True

        seconds = 1.0 if options.quick else 4.0
        drive(server, request, whole, lanes=LANES, seconds=0.3, size=1 << 18)
        before = cpu_seconds(self._upstream.process)
        load = drive(server, request, whole, lanes=LANES, seconds=seconds, size=1 << 18)
        upstream = cpu_seconds(self._upstream.process) - before
        return {
            "throughput": load.rate * PIECES,
            "server CPU": load.server_cpu / (load.answers * PIECES) * 1e6,
            "server busy": load.server_cpu / load.seconds * 100,
            "load busy": load.client_cpu / load.seconds * 100,
            "upstream busy": upstream / load.seconds * 100,
            "others on both cores": max(0.0, load.foreign_cpu - upstream) / load.seconds * 100,
        }


def _request(server: Server) -> bytes:
    if server.name == LITELLM:
        said = [{"role": "user", "content": "Say something."}]
        body = {"model": "gpt-4o-mini", "messages": said, "stream": True}
        return post("/v1/chat/completions", body, accept="text/event-stream")
    return post("/relay", {"message": "Say something."}, accept="text/event-stream")

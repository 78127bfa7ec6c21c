"""Ask a model at an upstream of the test's own, and take its answer item by item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamstack.errors import RunError
from streamstack.functions.llm import llm_chat
from streamstack.language.settings import HttpSettings, Model
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import Stream
from tests.collector import Collector
from tests.upstreams import Upstream, Wire, answer

WIRES = Path(__file__).parent / "wires"
SSE = "Content-Type: text/event-stream"
#: A model for each provider.
PROVIDERS = {
    "openai": "gpt-4o-mini",
    "openaiResponses": "gpt-5",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
}
USER: dict[str, Any] = {"role": "user", "content": "Hi"}


def wire(name: str) -> bytes:
    """Return the recorded bytes of an answer."""
    return (WIRES / f"{name}.sse").read_bytes()


@dataclass
class Said:
    """What came of an answer."""

    items: list[dict[str, Any]]
    error: RunError | None
    stream: Stream
    batches: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(item["text"] for item in self.items if item["type"] == "text")

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = self.stream["message"]
        return message

    @property
    def code(self) -> str | None:
        return self.error.code if self.error is not None else None


def stream_of(context: Context, provider: str | None = "openai", **given: Any) -> Stream:
    """Return the stream of an answer, not read yet."""
    run = llm_chat.run
    assert run is not None
    arguments: dict[str, Any] = {"functions": {}, "messages": [USER]} | given
    if provider is not None:
        arguments = {"provider": provider, "model": PROVIDERS[provider]} | arguments
    stream: Stream = run(Run(Collector(), context), **arguments)
    return stream


async def ask(
    upstream: Upstream | str | None = None,
    provider: str | None = "openai",
    *,
    settings: HttpSettings | None = None,
    env: Mapping[str, str] | None = None,
    models: Mapping[str, Model] | None = None,
    upto: int | None = None,
    **given: Any,
) -> Said:
    """Read an answer to its end or its error, or up to some items."""
    if upstream is not None:
        given["base_url"] = upstream if isinstance(upstream, str) else upstream.url
    context = Context(env=env or {}, http=settings or HttpSettings(), models=models or {})
    try:
        stream = stream_of(context, provider, **given).consume()
        said = Said([], None, stream)
        try:
            while batch := await stream.batch():
                said.batches.append(batch)
                said.items += batch
                if upto is not None and len(said.items) >= upto:
                    break
        except RunError as error:
            said.error = error
        finally:
            await stream.close()
        return said
    finally:
        await context.aclose()


async def answered(body: bytes | str, provider: str = "openai", **given: Any) -> Said:
    """Read an answer that is given whole, as events."""
    async with Upstream(answer(body, SSE)) as upstream:
        return await ask(upstream, provider, **given)


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces of a size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


async def send_events(to: Wire, data: bytes, *, head: bool = True) -> None:
    """Send some bytes of events, and leave the answer open."""
    if head:
        await to.head(SSE)
    await to.chunk(data)

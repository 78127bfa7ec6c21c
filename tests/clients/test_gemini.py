"""Google's own clients read endpoints in Gemini's wire, which an author writes: it has no format of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx2
import pytest
from google.genai import Client
from google.genai.errors import ClientError, ServerError, UnknownApiResponseError
from google.genai.types import GenerateContentResponse, HttpOptions

from tests.clients import test_npm
from tests.clients.speaking import CLIENTS, speaking
from tests.clients.test_npm import SKY, Told

SIMULATED = "This is a simulated answer in place of our-own."
WAYS = pytest.mark.parametrize("way", ["cut", "told"])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the definitions beside this file."""
    with speaking() as address:
        yield address


@pytest.fixture(scope="module")
def simulator(shared_postgres: str) -> Iterator[str]:
    """Serve definitions/, where the simulated Gemini is."""
    known = {"DATABASE_URL": shared_postgres}
    with speaking(CLIENTS.parent.parent / "definitions", known) as address:
        yield address


@pytest.fixture(scope="module")
def npm(address: str, simulator: str) -> Told:
    """Return what the npm client does."""
    if test_npm.missing():
        pytest.skip(test_npm.missing())
    return test_npm.run("gemini.mjs", address, simulator)


class Heard(list[GenerateContentResponse]):
    """The chunks that came."""

    @property
    def text(self) -> str:
        return "".join(
            part.text or ""
            for chunk in self
            for candidate in chunk.candidates or ()
            for part in (candidate.content and candidate.content.parts) or ()
        )

    @property
    def reasons(self) -> list[str]:
        candidates = [candidate for chunk in self for candidate in chunk.candidates or ()]
        return [each.finish_reason.value for each in candidates if each.finish_reason is not None]


def hear(url: str, wish: str, heard: Heard) -> None:
    """Ask, and take what comes; a client asks once unless configured otherwise."""
    with Client(api_key="none", vertexai=False, http_options=HttpOptions(base_url=url)) as client:
        stream: Iterator[Any] = client.models.generate_content_stream(model="our-own", contents=wish)
        heard.extend(stream)


async def hear_asynchronously(url: str, wish: str, heard: Heard) -> None:
    """Do the same with the asynchronous client, which reads with aiohttp."""
    options = HttpOptions(base_url=url)
    async with Client(api_key="none", vertexai=False, http_options=options).aio as client:
        async for chunk in await client.models.generate_content_stream(model="our-own", contents=wish):
            heard.append(chunk)


def test_the_simulator_is_read(simulator: str) -> None:
    """Its text whole, word by word, with usage and reason."""
    heard = Heard()
    hear(f"{simulator}/simulator/gemini", "What is a stream?", heard)
    assert SIMULATED in heard.text
    assert heard.text.endswith("a model answers instead.")
    assert heard.reasons == ["STOP"]
    used = heard[-1].usage_metadata
    assert used is not None
    assert used.prompt_token_count
    assert used.candidates_token_count == len(heard) - 1


@WAYS
def test_text_usage_reason_and_calls(address: str, way: str) -> None:
    """Each chunk is one of the client's."""
    heard = Heard()
    hear(f"{address}/{way}", "text", heard)
    assert [chunk.text for chunk in heard] == ["The", " sky", " is", ' "blüe"', "\n", "☁", ""]
    heard = Heard()
    hear(f"{address}/{way}", "limited", heard)
    assert (heard.text, heard.reasons) == ("Once upon a time", ["MAX_TOKENS"])
    used = heard[-1].usage_metadata
    assert used is not None
    assert (used.prompt_token_count, used.candidates_token_count) == (11, 4)
    heard = Heard()
    hear(f"{address}/{way}", "tools", heard)
    (call,) = heard[0].function_calls or []
    assert (call.id, call.name, call.args) == ("call_a", "weather", {"city": "Paris"})


@pytest.mark.parametrize(
    ("way", "error", "told"),
    [
        ("cut", httpx2.RemoteProtocolError, "peer closed connection"),
        ("told", ServerError, "503 UNAVAILABLE.*The model went to sleep"),
        ("untold", UnknownApiResponseError, "event: error"),
    ],
)
def test_failing_in_mid_stream_raises(address: str, way: str, error: type[Exception], told: str) -> None:
    """The text up to there; in the client's own error with our message where it is reported in Gemini's format."""
    heard = Heard()
    with pytest.raises(error, match=told):
        hear(f"{address}/{way}", "fails", heard)
    assert (heard.text, heard.reasons) == ("This is going", [])


@WAYS
def test_failing_before_the_start_raises_by_status(address: str, way: str) -> None:
    """The client's own error with the problem document."""
    with pytest.raises(ClientError, match="Nothing is left of the quota") as raised:
        hear(f"{address}/{way}", "refuses", Heard())
    assert raised.value.code == 429


def test_a_heartbeat_is_an_error_to_it(address: str) -> None:
    """It takes any line other than `data: ` for JSON: hence `keepAlive: 0`."""
    heard = Heard()
    with pytest.raises(UnknownApiResponseError, match="Raw response: :"):
        hear(f"{address}/untold", "slow", heard)
    assert heard.text == "One"


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
async def test_the_asynchronous_client(address: str) -> None:
    """It reads the same stream, and raises the same, or aiohttp's."""
    heard = Heard()
    await hear_asynchronously(f"{address}/told", "text", heard)
    assert (heard.text, heard.reasons) == (SKY, ["STOP"])
    errors = {"cut": aiohttp.ClientPayloadError, "told": ServerError, "untold": UnknownApiResponseError}
    for way, error in errors.items():
        heard = Heard()
        with pytest.raises(error):
            await hear_asynchronously(f"{address}/{way}", "fails", heard)
        assert (heard.text, heard.reasons) == ("This is going", [])


# -------------------------------------------------------------------------------------------- npm


def test_npm_reads_the_simulator(npm: Told) -> None:
    """Its text whole, with usage and reason."""
    seen = npm["simulator"]["seen"]
    assert SIMULATED in seen["text"]
    assert seen["text"].endswith("a model answers instead.")
    assert seen["reasons"] == ["STOP"]
    assert seen["usage"]["candidatesTokenCount"] == len(seen["text"].split())
    assert "error" not in npm["simulator"]


@WAYS
def test_npm_reads_text_usage_reason_and_calls(npm: Told, way: str) -> None:
    """As Python's does."""
    assert npm[f"{way} text"]["seen"]["text"] == SKY
    seen = npm[f"{way} limited"]["seen"]
    assert (seen["text"], seen["reasons"]) == ("Once upon a time", ["MAX_TOKENS"])
    assert seen["usage"]["totalTokenCount"] == 15
    (call,) = npm[f"{way} tools"]["seen"]["calls"]
    assert call == {"id": "call_a", "name": "weather", "args": {"city": "Paris"}}


def test_npm_raises_what_fails_in_mid_stream(npm: Told) -> None:
    """A connection that is cut, and an error in Gemini's words, which has our message."""
    cut, told = npm["cut fails"], npm["told fails"]
    assert (cut["error"]["name"], cut["error"]["message"]) == ("TypeError", "terminated")
    assert (told["error"]["name"], told["error"]["status"]) == ("ApiError", 503)
    assert "The model went to sleep" in told["error"]["message"]
    for each in (cut, told):
        assert (each["seen"]["text"], each["seen"]["reasons"]) == ("This is going", [])


@WAYS
def test_npm_raises_by_status_before_the_start(npm: Told, way: str) -> None:
    """Its own error with the problem document."""
    error = npm[f"{way} refuses"]["error"]
    assert (error["name"], error["status"]) == ("ApiError", 429)
    assert "Nothing is left of the quota" in error["message"]


def test_npm_passes_over_what_does_not_begin_with_data(npm: Told) -> None:
    """The chunk after a heartbeat is lost on it; our `event: error` too, but then the connection is cut."""
    failed, slow = npm["untold fails"], npm["untold slow"]
    assert failed["error"]["message"] == "terminated"
    assert failed["seen"]["text"] == "This is going"
    assert "error" not in slow
    assert (slow["seen"]["text"], slow["seen"]["reasons"]) == ("One", ["STOP"])

"""A path alone is this server's own address: for models and for every URL, guarded like any other."""

from __future__ import annotations

import pytest

from streamstack.errors import RunError
from streamstack.functions.http import http_request
from streamstack.language.settings import HttpSettings, Model
from streamstack.runtime.run import Address, Context, Run
from tests.collector import Collector
from tests.runtime.providers.asking import SSE, stream_of, wire
from tests.upstreams import Upstream, answer


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/a/b?c=d", "http://127.0.0.1:8080/a/b?c=d"),
        ("//evil.example/a", "//evil.example/a"),
        ("http://x.example/", "http://x.example/"),
        ("a/b", "a/b"),
        ("", ""),
    ],
)
def test_paths_alone_are_our_own(text: str, found: str) -> None:
    """Whatever else a text is, it is left as it is."""
    assert Address("http://127.0.0.1:8080").of(text) == found


def test_nowhere_is_told() -> None:
    """Where nothing listens, a path leads nowhere."""
    with pytest.raises(RunError, match="does not listen"):
        Address().of("/a")


async def test_models_and_urls_lead_home() -> None:
    """The model of `withoutKey`, and a request."""
    scripts = answer(wire("openai-text"), SSE), answer("{}", "Content-Type: application/json")
    async with Upstream(*scripts) as upstream:
        models = {"chat": Model("openai", "m", without_key="/sim/v1")}
        context = Context(models=models, address=Address(upstream.url))
        stream = stream_of(context, None, model="chat").consume()
        while await stream.batch():
            pass
        assert stream["message"]["content"] == "Grüße, 世界 🌍"
        assert http_request.run is not None
        reply = await http_request.run(Run(Collector(), context), url="/own?a=b")
        assert reply["status"] == 200
        await context.aclose()
    assert [asked.target for asked in upstream.asked] == ["/sim/v1/chat/completions", "/own?a=b"]


@pytest.mark.parametrize(
    "settings", [HttpSettings(deny_private_networks=True), HttpSettings(allow_hosts=("api.openai.com",))]
)
async def test_home_is_guarded_too(settings: HttpSettings) -> None:
    """Who forbids the machine's own network, or names the hosts, has forbidden this one."""
    async with Upstream(answer("{}")) as upstream:
        context = Context(address=Address(upstream.url), http=settings)
        stream = stream_of(context, base_url="/sim", api_key="k").consume()
        with pytest.raises(RunError) as caught:
            await stream.batch()
        assert (caught.value.code, caught.value.final) == ("http-connection", True)
        assert upstream.asked == []
        await context.aclose()

"""`webhook.send`: what receivers get, and when it is sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from streamstack.functions.webhooks import standard_key, standard_signature
from streamstack.language.settings import HttpSettings
from tests.stacks import run_stack
from tests.testing.running import run_one

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver:
    """Answers with statuses, in turn, the last of them from then on; 0 closes the connection."""

    def __init__(self, statuses: Sequence[int], headers: dict[str, str]) -> None:
        self.url = ""
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self._statuses = statuses
        self._headers = headers

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Keep a request and answer it."""
        self.requests.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        status = self._statuses[min(len(self.requests), len(self._statuses)) - 1]
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=status or 200, headers=self._headers)


@asynccontextmanager
async def receiver(*statuses: int, **headers: str) -> AsyncIterator[Receiver]:
    """Serve a receiver as long as the block lasts."""
    made = Receiver(statuses, {name.replace("_", "-"): value for name, value in headers.items()})
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield made
    finally:
        await runner.cleanup()


def step(url: str, more: str) -> str:
    """Return a stack that sends a webhook and gives its result."""
    sent = f"- webhook.send: {{url: '{url}', {more}, retry: {{times: 2, delay: 1ms}}}}\n"
    return f"{sent}  as: sending\n- return: << sending >>"


@pytest.mark.parametrize(
    ("more", "body"),
    [
        ("content: {a: ü}", '{"a":"ü"}'),
        ("content: << 'plain' >>", "plain"),
        ("content: {a: 1}, event: order.paid", None),
    ],
)
async def test_receivers_verify_it_with_their_library(more: str, body: str | None) -> None:
    """The signature is that of Standard Webhooks, by the library of the standard."""
    async with receiver(204) as got:
        outcome = await run_stack(step(got.url, f"secret: << input.secret >>, {more}"), {"secret": SECRET})
    assert outcome.error is None, outcome.error
    ((headers, content),) = got.requests
    Webhook(SECRET).verify(content, headers, json_parse=False)
    assert outcome.result == {"status": 204, "attempts": 1, "id": headers["webhook-id"]}
    if body is not None:
        assert content.decode() == body
        return
    payload = Webhook(SECRET).verify(content, headers)
    assert (payload["type"], payload["data"]) == ("order.paid", {"a": 1})
    assert abs((datetime.now(UTC) - datetime.fromisoformat(payload["timestamp"])).total_seconds()) < 60


def test_the_signature_is_that_of_the_specification() -> None:
    """The documented test vector of Standard Webhooks."""
    signature = standard_signature(
        standard_key(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("statuses", "headers", "attempts", "code"),
    [
        ((503, 200), {}, 2, None),
        ((0, 429, 201), {}, 3, None),
        ((408, 500, 504), {}, 3, "http-status"),
        ((0,), {}, 3, "http-connection"),
        ((400,), {}, 1, "http-status"),
        ((410,), {}, 1, "http-status"),
        ((501,), {}, 1, "http-status"),
        ((302,), {"Location": "/elsewhere"}, 1, "http-status"),
        ((503,), {"Retry_After": "3600"}, 1, "http-status"),  # longer than `maxDelay`
        ((503, 200), {"Retry_After": "0"}, 2, None),
    ],
)
async def test_it_is_sent_again_as_the_same_message(
    statuses: tuple[int, ...], headers: dict[str, str], attempts: int, code: str | None
) -> None:
    """What a receiver may mend is repeated with the same id and body, and nothing else."""
    async with receiver(*statuses, **headers) as got:
        outcome = await run_stack(step(got.url, "content: {a: 1}"))
    assert (outcome.error.code if outcome.error else None) == code
    assert len(got.requests) == attempts
    assert len({(sent["webhook-id"], content) for sent, content in got.requests}) == 1
    if outcome.error is None:
        assert outcome.result["attempts"] == attempts
    else:
        assert (outcome.error.final, outcome.error.about["attempts"]) == (True, attempts)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("id: << input.bad >>", "invalid-input"),
        ("headers: {X-A: << input.bad ~ 'x' >>}", "template"),
        ("secret: '%%%'", "template"),
        ("secret: ''", "template"),
    ],
)
async def test_what_can_not_be_sent_is_refused(more: str, code: str) -> None:
    """An id, a header or a secret that can't be is an error before anything is sent."""
    async with receiver(200) as got:
        outcome = await run_stack(step(got.url, f"content: 1, {more}"), {"bad": "a\r\nb"})
    assert outcome.error is not None
    assert (outcome.error.code, got.requests) == (code, [])


async def test_the_rules_of_the_network_apply() -> None:
    """A receiver in a private network is refused where the settings say so."""
    async with receiver(200) as got:
        outcome = await run_stack(step(got.url, "content: 1"), http=HttpSettings(deny_private_networks=True))
    assert outcome.error is not None
    assert (outcome.error.code, got.requests) == ("http-connection", [])


#: An endpoint that sends a webhook, and one that verifies it.
PROJECT = """\
method: POST
path: /send
responseType: streaming
functionStack:
  - webhook.send:
      url: https://receiver.example.org/hook
      event: order.paid
      content: {id: 7}
      id: msg_7
      secret: << env.SECRET >>
    as: sending
  - stream: << sending.id >>
---
method: POST
path: /receive
responseType: json
functionStack:
  - hmac.verify: {content: << request.body >>, secret: << env.SECRET >>, scheme: standardWebhooks}
    as: genuine
  - return: << genuine >>
"""


def test_waits_pass_in_virtual_time(tmp_path: Path) -> None:
    """In tests of definitions the receiver is an upstream, and the delays between attempts are exact."""
    test = """
env: {SECRET: c2VjcmV0}
request: {method: POST, path: /send}
upstreams:
  - match: {url: https://receiver.example.org/hook, headers: {webhook-id: msg_7}, body: {type: order.paid}}
    respond: [{status: 503}, {status: 429, headers: {Retry-After: 10}}, {status: 200}]
expect: {chunks: [{content: msg_7, at: 11s}], calls: [{url: "*", count: 3}]}
faults: all
"""
    assert run_one(tmp_path, PROJECT, test) == ""


@pytest.mark.parametrize(
    ("age", "changed", "genuine"), [(0, "", True), (200, "", True), (400, "", False), (0, "x", False)]
)
def test_streamstack_verifies_what_it_sends(tmp_path: Path, age: int, changed: str, genuine: bool) -> None:  # noqa: FBT001
    """`hmac.verify` with `standardWebhooks` accepts a recent message that is unchanged."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    stamp = str(int(now.timestamp()) - age)
    sent: dict[str, Any] = {"webhook-id": "msg_7", "webhook-timestamp": stamp}
    sent["webhook-signature"] = "v1,AAAA " + standard_signature(standard_key("c2VjcmV0"), "msg_7", stamp, b"hello")
    headers = "{" + ", ".join(f"{name}: '{value}'" for name, value in sent.items()) + "}"
    test = f"""
env: {{SECRET: whsec_c2VjcmV0}}
now: "{now.isoformat()}"
request: {{method: POST, path: /receive, text: hello{changed}, headers: {headers}}}
expect: {{body: {str(genuine).lower()}}}
"""
    assert run_one(tmp_path, PROJECT, test) == ""

"""Definitions that tell secrets: neither the log nor a client reads them."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from time import thread_time
from typing import Any

import pytest

from streamstack.language.masking import MASK, hide, learn, mask, masked, masked_value
from tests.server.processes import serving
from tests.upstreams import Upstream, answer

PASSWORD = "pa55/w0rd+of=database"
KEY = "the-key-of-the-model-0123456789"
TOKEN = "hidden-token-of-an-upstream-77"
INPUT = "correct horse battery"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJlLW9mLXRoaXM"
SECRETS = (PASSWORD, KEY, TOKEN, INPUT, JWT, "pa55%2Fw0rd", "sesame-of-the-caller")

SETTINGS = """
databases: {main: {url: << env.DATABASE_URL >>}}
models: {quick: {provider: openai, model: m, baseUrl: << env.BASE >>, apiKey: << env.MODEL_KEY >>}}
settings: {region: << env.REGION | default("eu") >>, token: << env.UPSTREAM_TOKEN >>}
"""

LEAKS = """
method: POST
path: /log
responseType: json
inputParameters:
  password: {type: text, sensitive: true}
  account: {type: object, properties: {pin: {type: text, sensitive: true}, name: text}}
functionStack:
  - log: the password is << input.password >>, the pin << input.account.pin >>, the key << env.MODEL_KEY >>
  - log:
      message: << input >>
      fields:
        authorization: << request.headers["authorization"] | default("") >>
        url: << env.DATABASE_URL >>
        token: abc
  - log: 'asked https://user:sesame-of-the-caller@api.example.org/x with Authorization: Bearer sesame-of-the-caller'
  - log: << settings >>
  - return: ok
---
method: POST
path: /throw
responseType: json
inputParameters: {password: {type: text, sensitive: true}}
functionStack:
  - throw: {code: own-code, message: '<< input.password ~ " and " ~ env.UPSTREAM_TOKEN ~ ", key - value" >>'}
---
method: POST
path: /number
responseType: json
inputParameters: {password: {type: text, sensitive: true}}
functionStack:
  - return: << (input.password ~ " " ~ settings.token) | toInteger >>
---
method: POST
path: /url
responseType: json
functionStack:
  - http.request: << "http://user:" ~ env.UPSTREAM_TOKEN ~ "@127.0.0.1:1/?api_key=" ~ env.MODEL_KEY >>
---
method: POST
path: /upstream
responseType: json
inputParameters: {to: text}
functionStack:
  - http.request: {url: << input.to >>, headers: {Authorization: Bearer << env.UPSTREAM_TOKEN >>}}
---
method: POST
path: /database
responseType: json
functionStack:
  - db.query: SELECT 1
---
method: POST
path: /model
functionStack:
  - llm.chat: {model: quick, messages: [{role: user, content: Hi}]}
    as: reply
  - forEach: {in: << reply >>, as: part, do: [{stream: << part >>}]}
"""


@pytest.mark.parametrize("options", [["--dev"], []])
async def test_nothing_secret_is_told(tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a definition logs it, throws it, or fails over it; with `--dev` and without."""
    told = f'{{"error": "wrong key {KEY} for Bearer {TOKEN}, {JWT}"}}'
    async with Upstream(answer(told, "Content-Type: application/json", status="401 No")) as upstream:
        monkeypatch.setenv("DATABASE_URL", f"postgresql://me:{PASSWORD.replace('/', '%2F')}@127.0.0.1:1/x")
        monkeypatch.setenv("MODEL_KEY", KEY)
        monkeypatch.setenv("UPSTREAM_TOKEN", TOKEN)
        monkeypatch.setenv("BASE", upstream.url)
        body = json.dumps({"password": INPUT, "account": {"pin": INPUT[::-1], "name": "Ada"}})
        answers = b""
        async with serving(tmp_path, *options, streamstack=SETTINGS, leaks=LEAKS) as server:
            for path in ("log", "throw", "number", "url", "upstream", "database", "model"):
                sent = body if path == "log" else json.dumps({"password": INPUT})
                if path in ("url", "database", "model"):
                    sent = "{}"
                if path == "upstream":
                    sent = json.dumps({"to": f"{upstream.url}/?token={TOKEN}"})
                reply = await server.ask("POST", f"/{path}", sent.encode(), f"Authorization: Bearer {JWT}\r\n")
                assert reply.status in (200, 401, 500, 502, 503), (path, reply)
                answers += reply.body
            await server.stop()
    said = "\n".join(server.lines)
    for secret in (*SECRETS, INPUT[::-1]):
        assert secret not in said, said
        assert secret.encode() not in answers, answers
    assert said.count("***") > 8
    assert "Ada" in said
    assert "key - value" in said
    assert '"region": "eu"' in said or '"region":"eu"' in said or "region" in said


def test_forms_of_secrets() -> None:
    """They are known by their form where they are not named."""
    for text in (
        "postgres://ada:s3cr3t-s3cr3t@db/x",
        "redis://:s3cr3t-s3cr3t@db/0",
        "Authorization: Bearer s3cr3t-s3cr3t",
        "authorization: basic s3cr3t-s3cr3t",
        "https://x.example/?api_key=s3cr3t-s3cr3t&a=b",
        '{"password": "s3cr3t-s3cr3t"}',
        "access_token: 's3cr3t-s3cr3t'",
        "client-secret=s3cr3t-s3cr3t",
        "https://bucket.example/o?X-Amz-Signature=s3cr3t-s3cr3t",
    ):
        assert "s3cr3t" not in masked(text), text
        assert "***" in masked(text)
    for text in ("sk-abcdefghijklmnop", JWT, "ghp_" + "a" * 30, "AKIA" + "A" * 16):
        assert masked(f"got {text}.") in ("got ***.", "got ***")


@pytest.mark.parametrize(
    "text",
    [
        "the key is missing",
        "a token of 3 parts",
        "http://127.0.0.1:8080/api?q=1",
        "definitions/a.yaml:3:5: step x (functionStack[0])",
        "mailto ada@example.org",
        "12 tokens, 4 keys",
    ],
)
def test_what_is_no_secret_is_told(text: str) -> None:
    """Words about secrets are none."""
    assert masked(text) == text


def test_names_of_secrets() -> None:
    """What has the name of a secret is masked whole; ordinary names are not."""
    entry = {"api_key": "abc", "accessToken": "abc", "X-Auth-Token": "abc", "key": "k", "run": "r", "n": 3}
    assert masked_value(entry) == {
        "api_key": "***", "accessToken": "***", "X-Auth-Token": "***", "key": "k", "run": "r", "n": 3,
    }  # fmt: skip


def test_known_values_are_found_however_they_are_written() -> None:
    """As they are, as JSON has them, as a URL has them; short ones are none."""
    try:
        learn(
            {"MY_SECRET": 'a"b/c d é', "HOME": "/home/ada", "API_KEY": "dev", "PWD": "/srv/shop"}, ["from-the-settings"]
        )
        for text in ('a"b/c d é', json.dumps('a"b/c d é'), "a%22b%2Fc%20d%20%C3%A9", "from-the-settings"):
            assert "***" in masked(f"<{text}>"), text
        told = "in /home/ada, dev, /srv/shop/x.yaml"  # PWD is the working directory, and no password
        assert masked(told) == told
    finally:
        learn({})


async def test_sensitive_inputs_of_one_run_only() -> None:
    """What is hidden is hidden in the task that hid it, and no longer."""
    hide([INPUT, {"pin": 12345}, ["x"]])
    assert masked(f"{INPUT} 12345 x") == "*** *** x"


def test_other_runs_are_told_of_it() -> None:
    """Another run may use the same word."""
    assert masked(INPUT) == INPUT


@pytest.mark.parametrize("unit", ["eyJaaaaa-", "eyJaaaaa-eyJ.b", "eyJ.", "://a:", "a@", "token ", "sk-", "secret='"])
def test_masking_takes_linear_time(unit: str) -> None:
    """Ten times the text takes about ten times as long, whatever it seems to hold."""

    def seconds(count: int) -> float:
        started = thread_time()
        masked(unit * count + "token")
        return thread_time() - started

    assert min(seconds(50_000) for _ in range(2)) < 40 * min(seconds(5_000) for _ in range(3)) + 0.05


def test_a_token_within_a_word_is_masked() -> None:
    """Also behind a hyphen, and with a dot at its end."""
    assert masked(f"jwt-{JWT}. x") == f"jwt-{MASK}. x"
    assert masked("jwt-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9 x").count("eyJ") == 2


def _entry(**fields: Any) -> dict[str, Any]:
    return dict(mask(None, "info", dict(fields)))


async def test_sensitive_values_are_masked_by_place() -> None:
    """Numbers too; an input that equals a word of the server's own leaves the line readable."""
    hide([4711, Decimal("1.10"), "info", "run-failed", "r1", "ab", date(2026, 1, 31)])
    shown = _entry(event="run-failed", level="info", run="r1", status=4711, pin=4711, price=Decimal("1.10"), short="ab")
    assert shown == {
        "event": "run-failed", "level": "info", "run": "r1", "status": 4711,
        "pin": MASK, "price": MASK, "short": MASK,
    }  # fmt: skip
    assert _entry(event="x", message="pin 4711, price 1.10, on 2026-01-31, abc") == {
        "event": "x", "message": f"pin {MASK}, price {MASK}, on {MASK}, abc",
    }  # fmt: skip
    assert _entry(event="x", items=[{"pin": 4711}], ok=True) == {"event": "x", "items": [{"pin": MASK}], "ok": True}


async def test_many_sensitive_values_are_masked_in_linear_time() -> None:
    """Each would be looked for in each line: from a few hundred on every text is masked whole."""
    hide([[f"secret-{n}" for n in range(100_000)], "x" * 1_000_000])
    started = thread_time()
    for _ in range(200):
        assert masked("a text of the log") == MASK
        assert _entry(event="x", message="text", n=3) == {"event": "x", "message": MASK, "n": 3}
    assert thread_time() - started < 1


async def test_a_long_sensitive_text_is_masked_in_linear_time() -> None:
    """What it looks like in URLs and JSON is written once for a run."""
    hide(["a b" * 100_000])
    started = thread_time()
    for _ in range(200):
        masked("a text of the log " * 50)
    assert thread_time() - started < 2
    assert masked(f"x {'a b' * 100_000} y {'a%20b' * 100_000}") == f"x {MASK} y {MASK}"


async def test_what_a_definition_logs_is_masked_where_it_is_logged(tmp_path: Path) -> None:
    """Under any name of a field, also one of the log's own."""
    text = (
        "method: POST\npath: /x\nresponseType: json\ninputParameters:\n  pin: {type: integer, sensitive: true}\n"
        "  word: {type: text, sensitive: true}\nfunctionStack:\n"
        "- log: {message: << input.pin >>, fields: {status: << input.pin >>, code: << input.word >>, n: 7}}\n"
        "- return: 1\n"
    )
    async with serving(tmp_path, leaks=text) as server:
        reply = await server.ask("POST", "/x", b'{"pin": 471199, "word": "info"}')
        assert reply.status == 200
        await server.stop()
    said = "\n".join(server.lines)
    assert "471199" not in said
    (line,) = [each for each in server.lines if '"n":7' in each.replace(" ", "") or "n=7" in each]
    assert line.count("***") == 3

"""`streamstack import curl`: endpoints that send what the command sends."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import httpx
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from streamstack.cli import main
from streamstack.cli.curl import CurlError, read_curl
from streamstack.cli.relay import make_relay
from streamstack.connections.http import Route, UpstreamRequest
from streamstack.functions import REGISTRY
from streamstack.language.project import Checked, read_project, validate
from streamstack.language.settings import HttpSettings, Streaming
from streamstack.server.app import serving_locally
from tests.runtime.providers.asking import SSE, wire
from tests.upstreams import Asked, Upstream, Wire, answer

COMMANDS = dict(
    part.strip().split("\n", 1)
    for part in (Path(__file__).parent / "curl_commands.txt").read_text("utf-8").split("## ")[1:]
)
#: What environment variables hold; those of the second part stand in commands, and must not be in what is written.
WRITTEN = {
    "GROQ_API_KEY": "gsk_0123456789abcdef0123",
    "OPENROUTER_API_KEY": "<OPENROUTER_API_KEY>",
    "ELEVENLABS_API_KEY": "xi-api-key",
    "DEEPGRAM_API_KEY": "YOUR_DEEPGRAM_API_KEY",
    "STRIPE_API_KEY": "sk_test_BQokikJOvBiI2HlWgH4olfQ2",
    "GITHUB_API_KEY": "<YOUR-TOKEN>",
    "EXAMPLE_API_KEY": "<YOUR_API_KEY>",
    "SLACK_TOKEN": "XXXXXXXXXXXXXXXXXXXXXXXX",
}
VARIABLES = {name: f"value-of-{name}" for name in re.findall(r"\$([A-Z_]+)", "".join(COMMANDS.values()))} | {"ID": "7"}
TEXTS = {"openai": "openai-text", "openaiResponses": "openaiResponses-text"}
TEXTS |= {"anthropic": "anthropic-text", "gemini": "gemini-text"}
#: Which answers are not JSON, by a part of the path.
ANSWERS = (
    ("/stream/", "Content-Type: text/event-stream", "event: message\ndata: hello\n\n"),
    ("/api/generate", "Content-Type: application/x-ndjson", '{"response": "hello"}\n'),
    ("/api/chat", "Content-Type: application/x-ndjson", '{"message": "hello"}\n'),
    ("/deployments/", "Content-Type: text/event-stream", 'data: {"text": "hello"}\n\ndata: [DONE]\n\n'),
    ("/v1/messages", "Content-Type: text/event-stream", "event: ping\ndata: hello\n\n"),
    ("/speech", "Content-Type: audio/mpeg", "hello"),
)


def run(*arguments: str, stdin: str = "") -> Result:
    """Run the command line."""
    return CliRunner().invoke(main, ["import", *arguments], input=stdin)


def project(folder: Path, text: str, upstream: str, origin: str) -> Checked:
    """Return a project of one definition, in which an upstream answers for the origin."""
    (folder / "relay.yaml").write_text(text, "utf-8")
    checked = read_project(folder, REGISTRY, {})
    assert checked.findings == []

    async def redirect(request: UpstreamRequest) -> Route | None:
        return Route(URL(upstream).join(request.url.relative())) if str(request.url.origin()) == origin else None

    http = HttpSettings(redirect=redirect)
    return replace(checked, settings=replace(checked.settings, http=http))


def responding(provider: str | None) -> Any:
    """Return what the upstream answers: events of a provider, else what suits the path."""

    async def respond(to: Wire) -> None:
        if provider is not None:
            await answer(wire(TEXTS[provider]), SSE)(to)
            return
        for part, media, body in ANSWERS:
            if part in to.asked.target:
                await answer(body, media)(to)
                return
        await answer('{"said": "hello"}', "Content-Type: application/json")(to)

    return respond


def content(asked: Asked) -> Any:
    """Return the body of a request in a form that does not depend on how it is written."""
    media = asked.headers.get("content-type", "").partition(";")[0]
    if media == "multipart/form-data":
        fields = re.findall(rb'name="(\w+)"(?:; filename="([^"]*)")?.*?\r\n\r\n(.*?)\r\n--', asked.body, re.DOTALL)
        return sorted(fields)
    try:
        return json.loads(asked.body)
    except ValueError:
        return parse_qsl(asked.body.decode(), keep_blank_values=True) or asked.body


def significant(asked: Asked, names: set[str]) -> dict[str, str]:
    """Return the header fields of a command, but for those of the client itself."""
    names = names - {"accept", "accept-encoding", "content-type", "user-agent"}
    return {name: value for name, value in asked.headers.items() if name in names}


async def send_curl(command: str, origin: str, upstream: str, folder: Path, env: Mapping[str, str]) -> None:
    """Run the command with curl itself, which asks the upstream."""
    (folder / "file.bin").write_bytes(b"content of the file")
    command = command.replace(origin, upstream)
    command = re.sub(r"@[/\w]+\.(?:mp3|wav)|picture\.png", lambda it: "@" * it[0].startswith("@") + "file.bin", command)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command),
        cwd=folder,
        env={**os.environ, **env, "no_proxy": "*"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await asyncio.wait_for(process.wait(), 20)


async def call(address: str, definition: str) -> httpx.Response:
    """Call the endpoint with its defaults, and values for what has none."""
    method = re.search(r"^method: (\w+)", definition, re.MULTILINE)
    path = re.search(r"^path: (\S+)", definition, re.MULTILINE)
    assert method is not None
    assert path is not None
    needed = re.findall(r"^  (\w+): \{type: (\w+), required: true\}", definition, re.MULTILINE)
    files = {name: ("file.bin", b"content of the file") for name, kind in needed if kind == "file"}
    values = {name: {"voiceId": "voice_id"}.get(name, name) for name, kind in needed if kind != "file"}
    sent: dict[str, Any] = {"json": values} if method[1] != "GET" else {}
    if files:
        sent = {"files": files, "data": values}
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.request(method[1], address + path[1], headers={"Accept": "*/*"}, **sent)


@pytest.mark.parametrize("name", COMMANDS)
async def test_endpoint_sends_what_curl_sends(name: str, tmp_path: Path) -> None:
    """Both ask the same upstream; the definition has no finding and no secret, and the answer arrives."""
    request = read_curl(COMMANDS[name])
    relay = make_relay(request)
    assert not any(secret in relay.text for secret in WRITTEN.values() if secret != "xi-api-key")
    found = re.search(r"provider: (\w+)", relay.text)
    provider = found[1] if found else None
    parts = urlsplit(re.search(r"https?://[^\s'\"?]+|\$AZURE_OPENAI_ENDPOINT", COMMANDS[name])[0])  # type: ignore[index]
    origin = f"{parts.scheme}://{parts.netloc}" if parts.netloc else parts.path
    async with Upstream(responding(provider)) as upstream:
        env = VARIABLES | WRITTEN | {"AZURE_OPENAI_ENDPOINT": upstream.url}
        await send_curl(COMMANDS[name], origin, upstream.url, tmp_path, env)
        checked = project(tmp_path, relay.text, upstream.url, origin)
        with serving_locally(checked, env) as address:
            reply = await call(address, relay.text)
    assert reply.status_code == 200, reply.text
    assert "Grüße" in reply.text if provider else "hello" in reply.text
    theirs, ours = upstream.asked
    assert theirs.headers["host"] != ours.headers["host"] or "$" in origin
    if provider is not None:
        before, after = (json.loads(each.body) for each in (theirs, ours))
        assert before.get("model") == after.get("model")
        text = next(iter(re.findall(r"message:[^}]*?default: '?(.*?)'?(?:, minLength|\n)", relay.text)))
        assert all(text in json.dumps(each) for each in (before, after))
        key = next((each for each in ("x-api-key", "x-goog-api-key", "authorization") if each in theirs.headers), "")
        assert ours.headers.get(key) == theirs.headers.get(key)
        return
    assert (ours.method, unquote(urlsplit(ours.target).path)) == (theirs.method, unquote(urlsplit(theirs.target).path))
    assert parse_qsl(urlsplit(ours.target).query) == parse_qsl(urlsplit(theirs.target).query)
    assert content(ours) == content(theirs)
    names = {each.lower() for each, _ in request.headers} | {"authorization"}
    assert significant(ours, names) == significant(theirs, names)


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("openai chat", ["set OPENAI_API_KEY"]),
        ("groq", ["waits for the whole answer", "set GROQ_API_KEY in the environment, or in .env: it is the"]),
        ("openrouter", ["the header `HTTP-Referer` was left out", "waits for", "set OPENROUTER_API_KEY"]),
        ("github", ["what follows the command was left out: `| jq '.[].title'`", "set GITHUB_API_KEY"]),
        ("put", ["`-k` was left out: certificates are always checked"]),
        ("weather", []),
    ],
)
def test_notes(name: str, notes: list[str]) -> None:
    """What has to be set, and what could not be taken, is on standard error."""
    result = run("curl", COMMANDS[name].removeprefix("curl "))
    assert result.exit_code == 0
    assert result.stdout == make_relay(read_curl(COMMANDS[name])).text
    lines = result.stderr.splitlines()
    assert len(lines) == len(notes)
    assert all(line.startswith("note: ") and note in line for line, note in zip(lines, notes, strict=True))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"curl -sSXPUT -d a=1 http://x.example", ("PUT", "http://x.example", "a=1")),
        ("curl.exe --request=PATCH x.example/a -d '' ", ("PATCH", "http://x.example/a", "")),
        ("$ curl -d a=1 -d 'b=2 $HOME' x.example", ("POST", "http://x.example", "a=1&b=2 $HOME")),
        (r'curl x.example -d "a=\$1&b=\"c\"" # comment', ("POST", "http://x.example", 'a=$1&b="c"')),
        (r"curl x.example -d $'It\'s\n\u00e4\x41'", ("POST", "http://x.example", "It's\näA")),
        ("curl 'x.example/#part' -d \\\n  a", ("POST", "http://x.example/", "a")),
        ("curl x.example -d '\"'\"'\"'\"'", ("POST", "http://x.example", '"\'"')),
        ("curl -I x.example", ("HEAD", "http://x.example", None)),
        ("curl -G x.example -d a=1", ("GET", "http://x.example", None)),
    ],
)
def test_words_of_the_shell(text: str, wanted: tuple[Any, ...]) -> None:
    """Quotes, escapes, comments, continued lines, options in every form."""
    request = read_curl(text)
    assert (request.method, request.url, request.data) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("wget https://x.example", "does not begin with `curl`"),
        ("curl -d a=1", "the command has no URL, and needs one"),
        ("curl a.example b.example", "the command has 2 URLs, and needs one: a.example b.example"),
        ("curl --foo x.example", "option --foo not recognized"),
        ("curl 'x.example", "a quote is not closed"),
        ('curl -H "X: $(cat key)" x.example', "`$(...` runs another command"),
        ("curl ftp://x.example/a", "the URL begins with ftp://: only http:// and https://"),
        ("curl -H", "option -H requires argument"),
        ("curl https://x.example/a?alt=sse&key=AIzaSECRET -d a", "quote the URL"),
        ("curl a.example https://x.example/?key=AIzaSECRET", "the command has 2 URLs, and needs one: a.example ..."),
    ],
)
def test_commands_that_can_not_be_read(text: str, told: str) -> None:
    """The message says why."""
    with pytest.raises(CurlError, match=re.escape(told)):
        read_curl(text)
    result = run("curl", "-", stdin=text) if text.startswith("curl") else run(text)
    assert result.exit_code == 2
    assert result.stderr.startswith("streamstack: ")
    assert "SECRET" not in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([""], "the command has no URL"),
        (["curl"], "the command has no URL"),
        ([" "], "the command has no URL"),
        (["wget https://x.example"], "`wget ...` is not a curl command"),
        (["http", "POST", "x.example"], "`http ...` is not a curl command"),
    ],
)
def test_words_that_are_no_command_of_curl(words: list[str], told: str) -> None:
    """The message says what is missing."""
    result = run("curl", *words)
    assert result.exit_code == 2
    assert told in result.stderr
    result = run("curl", "-", stdin=" ".join(words))
    assert (result.exit_code, told in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "rest",
    [
        "& curl y.example -H 'X-Key: SECRET'",
        "&& TOKEN=SECRET run",
        "| SECRETSECRETSECRET",
        "; a?key=SECRET",
        "&SECRET=1",
    ],
)
def test_what_follows_is_never_shown_with_a_secret(rest: str) -> None:
    """At most its first word is."""
    request = read_curl(f"curl x.example {rest}")
    assert len(request.notes) == 1
    assert "SECRET" not in request.notes[0]


@pytest.mark.parametrize(
    ("body", "is_json"),
    [
        ('{"a":NaN,"b":1}', False),
        ('{"a":1e999}', False),
        ("[-Infinity]", False),
        ('{"api_key": "SECRET1", "a": }', False),
        ("[" * 100_000, False),
        ('{"a":1e99}', True),
    ],
)
def test_bodies_that_claim_to_be_json(body: str, *, is_json: bool) -> None:
    """One that is not valid is sent as the text that it is, and noted."""
    relay = make_relay(read_curl(["curl", "https://x.example/a", "--json", body]))
    assert ("the body is not valid JSON" in relay.notes) is not is_json
    assert "SECRET1" not in relay.text
    assert validate({"relay.yaml": relay.text}, REGISTRY, Streaming(), None)[1] == []
    assert ("      json:" in relay.text) is is_json


@pytest.mark.parametrize(
    "words",
    [
        ["https://x.example/a", "-H", "X-Signature: 12ab"],
        ["https://x.example/a", "-H", "X-Hub-Signature-256: 12ab"],
        ["https://x.example/a?sig=12ab"],
        ["https://x.example/a?signature=12ab"],
        ["https://x.example/a?X-Amz-Credential=12ab"],
        ["https://x.example/a?X-Amz-Security-Token=12ab"],
        ["https://x.example/a?X-Goog-Signature=12ab"],
        ["https://x.example/a", "-H", "X-Amz-Security-Token: 12ab"],
        ["https://x.example/a", "-d", "signature=12ab"],
        ["https://x.example/a?token=1234512"],
    ],
)
def test_signatures_are_secrets(words: list[str]) -> None:
    """In headers, queries and forms, also where they look like numbers."""
    text = make_relay(read_curl(["curl", *words])).text
    assert "12ab" not in text
    assert "1234512" not in text
    assert "<< env.EXAMPLE_" in text or "<< env.X_" in text


@pytest.mark.parametrize(
    ("words", "media"),
    [
        (["https://x.example/v1/text-to-speech/abc", "--json", '{"text": "a"}'], "audio/mpeg"),
        (["https://x.example/v1/text-to-speech/abc/stream?output_format=pcm_16000", "-N"], "audio/pcm"),
        (["https://x.example/v1/sounds?output_format=mp3_44100_128", "-d", "a=b"], "audio/mpeg"),
        (["https://x.example/v1/audio/speech", "--json", '{"response_format": "wav"}'], "audio/wav"),
        (["https://x.example/a", "-H", "Accept: audio/*"], "application/octet-stream"),
        (["https://x.example/a/stream"], "application/octet-stream"),
        (["https://x.example/a/stream", "-N"], None),
        (["https://x.example/streams"], None),
        (["https://x.example/v1/text-to-speech/abc/with-timestamps"], None),
        (["https://x.example/v1/images?response_format=b64_json"], None),
    ],
)
def test_sound_and_streams_are_relayed_as_bytes(words: list[str], media: str | None) -> None:
    """Because of the path, the format that is asked for, or `Accept`."""
    text = make_relay(read_curl(["curl", *words])).text
    assert ("decode: bytes" in text) is (media is not None)
    assert f"Content-Type: {media}" in text or media is None
    assert validate({"relay.yaml": text}, REGISTRY, Streaming(), None)[1] == []


def test_what_is_left_out() -> None:
    """Here-documents, headers in files, proxies; `>` names the output."""
    request = read_curl("curl x.example -d @- -x proxy:1 -H @file <<EOF\n{}\nEOF")
    assert [note.partition(":")[0] for note in request.notes] == [
        "the here-document was left out",
        "the standard input was left out",
        "`-x` was left out",
        "the headers in `@file` were left out",
    ]
    assert read_curl("curl x.example > a.mp3").output == "a.mp3"


def test_words_that_a_shell_has_split() -> None:
    """The command may follow without quotes; what a variable held is a secret then, too."""
    result = run("curl", "-N", "https://api.example.com/v1/a", "-H", "Authorization: Bearer abcdefghijkl", "-hfoo")
    assert result.exit_code == 2
    result = run("curl", "-sN", "https://api.example.com/v1/a", "-H", "x-api-key: abcdefghijkl", "--path", "/mine")
    assert result.exit_code == 0
    assert "path: /mine\n" in result.stdout
    assert "x-api-key: << env.EXAMPLE_API_KEY >>" in result.stdout


def test_secrets_are_found_by_their_form() -> None:
    """In fields, paths and queries whose names tell nothing; users without a password are keys."""
    key = "sk_live_" + "a" * 24
    text = make_relay(
        read_curl(f"""curl 'https://user:pass1234@x.example/{"T" * 30}?key=abc&v={key}' --json '{{"a": ["{key}"]}}'""")
    ).text
    assert key not in text
    assert "pass1234" not in text
    assert "T" * 30 not in text
    assert text.count("<< env.") >= 4
    basic = make_relay(read_curl("curl -u me:$PASSWORD https://x.example")).text
    assert """Basic << ["me", env.PASSWORD] | join(':') | base64 >>""" in basic
    assert base64.b64encode(b"me").decode() not in basic


#: Texts that mean something to YAML, to the shell, to expressions, or to what looks for secrets.
TEXTS_OF_MEANING = (
    *("<< a >>", "<% if %>", "${input.x}", "a: b", "# c", " lead", "trail ", "'q'", '"d"', "yes", "null", "1e3", "0o7"),
    *("-", "- a", "@x", "!t", "|", "a\nb\n", "tab\there", "é🎉", "\u2028", "sk-abcdefghijklmnopqrst", "", "$HOME"),
    *("a\\<< b", "\ue000", "x\r\ny", "{{x}}", "{id}", "«»", "\x7f"),
)
TEXT = st.sampled_from(TEXTS_OF_MEANING)
VALUE = st.one_of(TEXT, st.integers(-(10**30), 10**30), st.booleans(), st.none(), st.floats(allow_nan=False))
BODY = st.recursive(VALUE, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2))
KEY = st.sampled_from(("messages", "model", "stream", "prompt", "a-b", "key", "token", "1x", "for", "é", "{id}"))
PATHS = ("/v1/chat/completions", "/a/{id}/b", "/v1/messages", "/responses", "/x y", "/", "", "/api/chat", "/é")


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=BODY | st.dictionaries(KEY, BODY, max_size=3),
    header=TEXT,
    query=st.dictionaries(KEY, TEXT, max_size=2),
    path=st.sampled_from(PATHS),
    form=st.booleans(),
)
def test_any_command_becomes_a_definition_without_findings(
    body: Any, header: str, query: dict[str, str], path: str, *, form: bool
) -> None:
    """Whatever a command holds, it is read or refused, and what is written is right."""
    words = ["curl", f"https://h.example{path}?{urlencode(query)}", "-H", f"X-A: {header}"]
    if form and isinstance(body, dict):
        words += [word for name, value in body.items() for word in ("-F", f"{name}={value}")]
    else:
        words += ["-d", json.dumps(body, ensure_ascii=False), "-H", "Content-Type: application/json"]
    with suppress(CurlError):
        text = make_relay(read_curl(shlex.join(words))).text
        found = validate({"relay.yaml": text}, REGISTRY, Streaming(), None)[1]
        assert found == [], text


def test_file_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out` makes folders, and never overwrites."""
    monkeypatch.chdir(tmp_path)
    arguments = ("curl", COMMANDS["mistral"], "--out", "definitions/mistral.yaml")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "/api/mistral/chat" in Path("definitions/mistral.yaml").read_text()
    result = run(*arguments)
    assert result.exit_code == 2
    assert "definitions/mistral.yaml: exists" in result.stderr

"""Who may call: tokens and keys, as they come over a socket, honest and forged."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from joserfc.jwk import ECKey, OKPKey, RSAKey
from structlog.testing import capture_logs

from streamstack.connections import authentication
from streamstack.functions.security import open_callers
from tests.server.authenticating import (
    BY_SECRET,
    SECRET,
    WHO,
    AnyKey,
    Publisher,
    bearer,
    claims,
    part,
    project,
    signed,
    told,
)
from tests.upstreams import Upstream, answer

KEYS: dict[str, AnyKey] = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}


def bare(header: str, signature: str = "AA") -> str:
    """Return a token with a header as it is written, and a signature of nothing."""
    return f"{part(header.encode())}.{part(json.dumps(claims()).encode())}.{signature}"


def pem(key: AnyKey) -> str:
    """Return the public key in PEM."""
    assert not isinstance(key, str)
    return key.as_pem(private=False).decode()


# ------------------------------------------------------------- tokens by a secret


async def test_a_token_tells_who_calls(tmp_path: Path) -> None:
    """Its claims are `auth`, with the scopes as a list and the name of the authentication."""
    payload = claims(scope="chat read", plan="pro")
    async with project(tmp_path) as server:
        reply = await server.get("/who", **bearer(signed(payload)))
        again = await server.get("/who", **bearer(signed(payload)))
    assert reply.status == 200
    assert told(reply.body) == payload | {"scopes": ["chat", "read"], "method": "jwt"}
    assert again.body == reply.body


async def test_no_token_is_told_what_is_needed(tmp_path: Path) -> None:
    """401 as a problem, with the challenge, the run, and where to send a token."""
    async with project(tmp_path) as server:
        reply = await server.get("/who")
        basic = await server.get("/who", Authorization="Basic YTpi")
    assert (reply.status, basic.status) == (401, 401)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["www-authenticate"] == "Bearer"
    document = told(reply.body)
    assert document["code"] == "unauthorized"
    assert document["run"] == reply.headers["x-run-id"]
    assert "Authorization: Bearer" in document["detail"]


async def test_the_body_is_not_read_and_inputs_are_not_told(tmp_path: Path) -> None:
    """A client without permission learns nothing of the inputs, and no body is waited for."""
    definition = WHO.replace("GET", "POST") + "inputParameters: {secret-plan: {type: text, required: true}}\n"
    async with project(tmp_path, definitions=definition) as server:
        client = await server.connect()
        client.writer.write(b"POST /who HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        data = await client.head() + await asyncio.wait_for(client.reader.read(500), 10)
    assert data.startswith(b"HTTP/1.1 401 ")
    assert b"secret-plan" not in data


@pytest.mark.parametrize(
    ("token", "detail"),
    [
        (lambda: bare('{"alg":"none"}', ""), "not a signed token"),
        (lambda: bare('{"alg":"none"}'), "signed in a way"),
        (lambda: bare('{"alg":"NoNe"}'), "signed in a way"),
        (lambda: bare("[1]"), "can't be read"),
        (lambda: bare("{}"), "can't be read"),
        (lambda: signed(algorithm="HS512"), "signed in a way"),
        (lambda: signed(key="another-secret-of-32-bytes-and-some-more"), "signature is not valid"),
        (lambda: signed(key="\0" * 32), "signature is not valid"),
        (lambda: signed(algorithm="RS256", key=KEYS["RS256"]), "signed in a way"),
        (lambda: signed(crit=["b64"], b64=False), "`crit`"),
        (lambda: signed(crit=[]), "`crit`"),
        (lambda: signed(cty="JWT"), "holds another token"),
        (lambda: signed(typ="logout+jwt"), "another purpose"),
        (lambda: signed(typ=7), "another purpose"),
        (lambda: signed(kid=["../../dev/null"]), "can't be read"),
        (lambda: signed(b"[]"), "holds no claims"),
        (lambda: signed(b"not json"), "holds no claims"),
        (lambda: signed(b'"text"'), "holds no claims"),
        (lambda: signed(claims(exp=None)), "when it expires"),
        (lambda: signed(claims(exp=time.time() - 31)), "has expired"),
        (lambda: signed(claims(exp="2999-01-01")), "`exp` is not a number"),
        (lambda: signed(claims(exp=True)), "`exp` is not a number"),
        (lambda: signed(claims(exp=[9e9])), "`exp` is not a number"),
        (lambda: signed(claims(nbf=time.time() + 40)), "not valid yet"),
        (lambda: signed(claims(nbf="soon")), "`nbf` is not a number"),
        (lambda: signed(claims(iat=time.time() + 40)), "not valid yet"),
        (lambda: signed(claims(sub=7)), "`sub` is not a text"),
        (lambda: signed(claims(aud="other")), "meant for an audience"),
        (lambda: "", "needs a token"),
        (lambda: "a.b", "not a signed token"),
        (lambda: "a.b.c.d.e", "not a signed token"),
        (lambda: "!!!.???.___", "not a signed token"),
        (lambda: "eyJ.eyJ.AAAA", "can't be read"),
        (lambda: "\u00e4.\u00f6.\u00fc", "not a signed token"),
        (lambda: signed() + " " + signed(), "not a signed token"),
        (lambda: signed(b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"), "holds no claims"),
    ],
)
async def test_what_is_no_valid_token_is_refused(tmp_path: Path, token: Any, detail: str) -> None:
    """Each with 401, never 500, with a reason that repeats nothing of what was sent."""
    async with project(tmp_path) as server:
        text = token()
        reply = await server.get("/who", **bearer(text))
    assert reply.status == 401, reply.body
    assert detail in told(reply.body)["detail"]
    if text:
        assert text.encode() not in reply.body
        assert "error=" in reply.headers["www-authenticate"]


async def test_what_a_header_points_to_is_never_used(tmp_path: Path) -> None:
    """`jwk`, `jku`, `x5u`, `x5c` and `kid` decide nothing: neither a key, nor an address, nor a file."""
    async with Upstream(answer("{}")) as upstream:
        forged = ECKey.generate_key("P-256")
        headers: dict[str, Any] = {
            "jwk": forged.as_dict(private=False),
            "jku": f"{upstream.url}/keys",
            "x5u": f"{upstream.url}/chain",
            "x5c": ["MIIB"],
        }
        async with project(tmp_path) as server:
            for header in ({name: value} for name, value in headers.items()):
                reply = await server.get("/who", **bearer(signed(**header)))
                assert reply.status == 200, header  # signed by the secret: what else it says is ignored
                reply = await server.get("/who", **bearer(signed(key="x" * 40, **header)))
                assert reply.status == 401
            for kid in ("../../../../dev/null", "' UNION SELECT 'x", "/etc/hostname", "x" * 3000):
                assert (await server.get("/who", **bearer(signed(kid=kid)))).status == 200
                forged_by_kid = signed(key="\0", kid=kid)
                assert (await server.get("/who", **bearer(forged_by_kid))).status == 401
        assert upstream.asked == []


async def test_clocks_may_be_off(tmp_path: Path) -> None:
    """By `clockSkew`, in both directions, and no more."""
    settings = "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>, clockSkew: 2m}\n"
    now = time.time()
    async with project(tmp_path, settings) as server:
        for changes, status in (
            ({"exp": now - 100}, 200),
            ({"exp": now - 130}, 401),
            ({"nbf": now + 100, "iat": now + 100}, 200),
            ({"nbf": now + 130}, 401),
        ):
            reply = await server.get("/who", **bearer(signed(claims(**changes))))
            assert reply.status == status, changes


async def test_a_token_that_is_remembered_expires_all_the_same(tmp_path: Path) -> None:
    """What was found valid a moment ago is not valid for ever."""
    settings = "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>, clockSkew: 0}\n"
    token = signed(claims(exp=time.time() + 1.2))
    async with project(tmp_path, settings) as server:
        first = await server.get("/who", **bearer(token))
        await asyncio.sleep(1.3)
        second = await server.get("/who", **bearer(token))
    assert (first.status, second.status) == (200, 401)
    assert told(second.body)["detail"] == "the token has expired"


async def test_remembered_tokens_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes when a new one comes."""
    monkeypatch.setattr("streamstack.connections.authentication.REMEMBERED", 3)
    async with project(tmp_path) as server:
        tokens = server.service.context.resource(open_callers).tokens("jwt")
        for n in range(10):
            assert (await tokens.verify(signed(claims(sub=str(n)))))["sub"] == str(n)
        assert tokens.remembered == 3


async def test_issuer_and_audience(tmp_path: Path) -> None:
    """Any of those configured; of an `aud` that is a list, one is enough; other types are refused."""
    settings = "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>, issuer: [a, b], audience: [x, y]}\n"
    async with project(tmp_path, settings) as server:
        for issuer, audience, status in (
            ("a", "x", 200),
            ("b", ["q", "y"], 200),
            ("c", "x", 401),
            (None, "x", 401),
            (["a"], "x", 401),
            ({"a": 1}, "x", 401),
            ("a", None, 401),
            ("a", "xy", 401),
            ("a", [], 401),
            ("a", ["x", 1], 401),
            ("a", {"x": 1}, 401),
            ("a", 1, 401),
        ):
            reply = await server.get("/who", **bearer(signed(claims(iss=issuer, aud=audience))))
            assert reply.status == status, (issuer, audience)


async def test_tokens_without_expiry_where_they_are_wanted(tmp_path: Path) -> None:
    """`expiry: optional` takes them."""
    settings = "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>, expiry: optional}\n"
    async with project(tmp_path, settings) as server:
        reply = await server.get("/who", **bearer(signed(claims(exp=None))))
    assert reply.status == 200


# ------------------------------------------------------------- where tokens are sent


async def test_places_are_tried_in_order(tmp_path: Path) -> None:
    """The first that has something counts, even if it is wrong."""
    settings = (
        "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>, "
        "from: [header, {header: X-Token}, {cookie: token}, {query: token}]}\n"
    )
    good, bad = signed(), signed(key="x" * 40)
    async with project(tmp_path, settings) as server:
        for path, headers, status in (
            ("/who", bearer(good), 200),
            ("/who", {"Authorization": f"bearer   {good}"}, 200),
            ("/who", {"X_Token": good}, 200),
            ("/who", {"Cookie": f"a=b; token={good}; c=d"}, 200),
            ("/who", {"Cookie": f'token="{good}"'}, 200),
            (f"/who?a=1&token={good}", {}, 200),
            (f"/who?token={good}", bearer(bad), 401),
            ("/who", {"Cookie": f"token={good}; token={good}"}, 401),
            (f"/who?token={good}&token={good}", {}, 401),
            ("/who", {"Cookie": f"xtoken={good}"}, 401),
            (f"/who?token={bad}", {"Cookie": f"token={good}"}, 200),
        ):
            reply = await server.get(path, **headers)
            assert reply.status == status, (path[:12], headers.keys())


async def test_a_header_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """A proxy might have looked at the other one."""
    token = signed()
    async with project(tmp_path) as server:
        raw = await server.raw(
            f"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
    assert b" 401 " in raw.split(b"\r\n")[0]
    assert b"sent more than once" in raw


async def test_a_huge_token_is_refused(tmp_path: Path) -> None:
    """By the header's limit, else by the token's own."""
    async with project(tmp_path) as server:
        reply = await server.get("/who", **bearer("a" * 20_000))
        callers = server.service.context.resource(open_callers)
        with pytest.raises(Exception, match="has more than 16384 characters"):
            await callers["jwt"].verify("a" * 20_000)
    assert reply.status == 431


async def test_cookies_are_not_for_pages_of_other_sites(tmp_path: Path) -> None:
    """A browser says where a request comes from; one that changes something must come from here, or be allowed."""
    settings = (
        "server: {cors: {origins: [https://app.example.org], credentials: true}}\n"
        "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>, from: [header, {cookie: token}]}\n"
    )
    definitions = WHO + "---" + WHO.replace("GET", "POST")
    token = signed()
    cookie = {"Cookie": f"token={token}"}
    foreign = {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"}
    ours = {"Sec_Fetch_Site": "cross-site", "Origin": "https://app.example.org"}
    async with project(tmp_path, settings, definitions) as server:
        for method, headers, status in (
            ("POST", cookie, 200),
            ("POST", cookie | {"Sec_Fetch_Site": "same-origin"}, 200),
            ("POST", cookie | ours, 200),
            ("POST", cookie | foreign, 403),
            ("POST", cookie | {"Sec_Fetch_Site": "same-site"}, 403),
            # Without TLS, and before 2023, browsers do not say where it comes from, but whose page it is.
            ("POST", cookie | {"Origin": "https://evil.example"}, 403),
            ("POST", cookie | {"Origin": "null"}, 403),
            ("POST", cookie | {"Origin": "http://test"}, 200),
            ("POST", cookie | {"Origin": "http://test:8080"}, 200),
            ("POST", cookie | {"Origin": "https://app.example.org"}, 200),
            ("GET", cookie | foreign, 200),
            ("POST", bearer(token) | foreign, 200),
        ):
            reply = await server.ask(method, "/who", b"", **headers)
            assert reply.status == status, (method, headers.keys())


async def test_nothing_that_was_sent_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither good tokens nor bad ones, nor a query that holds one."""
    caplog.set_level(logging.DEBUG)
    settings = "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>, from: [header, {query: t}]}\n"
    good, bad = signed(), signed(key="x" * 40)
    structlog.reset_defaults()
    with capture_logs() as logs:
        async with project(tmp_path, settings) as server:
            server.service.context.env  # noqa: B018  (the context is what the log could show)
            for token in (good, bad):
                await server.get(f"/who?t={token}")
                await server.get("/who", **bearer(token))
    text = repr(logs) + caplog.text
    assert logs
    assert good not in text
    assert bad not in text
    assert SECRET not in text


def test_secrets_are_not_shown() -> None:
    """What holds a secret or the hash of a key does not show it when it is printed."""
    from streamstack.language.settings import load_settings  # noqa: PLC0415

    text = BY_SECRET + "  keys: {type: apiKey, keys: [<< env.JWT_SECRET >>]}\n"
    settings, findings = load_settings(text, "streamstack.yaml", {"JWT_SECRET": SECRET})
    assert findings == []
    assert set(settings.authentication) == {"jwt", "keys"}
    shown = repr(settings.authentication)
    assert SECRET not in shown
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in shown


# ------------------------------------------------------------- scopes, several ways, none


async def test_scopes(tmp_path: Path) -> None:
    """All of them are needed, however a token spells them; without, 403 says which are missing."""
    definition = WHO.replace("authentication: jwt", "authentication: {jwt: {scopes: [chat, read]}}")
    async with project(tmp_path, definitions=definition) as server:
        for payload, status in (
            (claims(scope="read chat"), 200),
            (claims(scopes=["chat", "read"]), 200),
            (claims(scp=["chat"], scope="read"), 200),
            (claims(scope="chat"), 403),
            (claims(scope="chatread"), 403),
            (claims(scope={"chat": 1, "read": 1}), 403),
            (claims(), 403),
        ):
            reply = await server.get("/who", **bearer(signed(payload)))
            assert reply.status == status, payload
    assert told(reply.body)["code"] == "forbidden"
    assert told(reply.body)["detail"] == "the caller lacks the scopes chat, read"
    expected = 'Bearer error="insufficient_scope", scope="chat read"'
    assert reply.headers["www-authenticate"] == expected


KEYED = """
authentication:
  jwt: {type: jwt, secret: << env.JWT_SECRET >>}
  keys:
    type: apiKey
    keys:
      reports: {key: << env.REPORTS >>, scopes: [read]}
      partner: sha256:HASH
  sdk: {type: apiKey, header: Authorization, keys: << env.SDK >>}
  link: {type: apiKey, query: key, keys: [<< env.SDK >>]}
"""


async def test_several_ways_in(tmp_path: Path) -> None:
    """Any of them will do: tokens, keys by name, plain or hashed, and keys where SDKs send them."""
    partner, reports, first, second = ("p" * 30, "r" * 30, "f" * 30, "s" * 30)
    settings = KEYED.replace("HASH", hashlib.sha256(partner.encode()).hexdigest())
    definition = WHO.replace("authentication: jwt", "authentication: [jwt, keys, sdk, link]")
    environment = {"JWT_SECRET": SECRET, "REPORTS": reports, "SDK": f"{first}, {second}"}
    # In a list, an item is one key, commas and all.
    settings = settings.replace(
        "keys: [<< env.SDK >>]", f"keys: ['sha256:{hashlib.sha256(second.encode()).hexdigest()}']"
    )
    async with project(tmp_path, settings, definition, environment) as server:
        token = await server.get("/who", **bearer(signed()))
        by_name = await server.get("/who", X_API_Key=reports)
        hashed = await server.get("/who", X_API_Key=partner)
        sdk = await server.get("/who", **bearer(first))
        other = await server.get("/who", **bearer(second))
        link = await server.get(f"/who?key={second}")
        wrong = await server.get("/who", X_API_Key="w" * 30)
        hash_itself = await server.get("/who", X_API_Key="sha256:" + hashlib.sha256(partner.encode()).hexdigest())
        none = await server.get("/who")
    assert told(token.body)["sub"] == "ada"
    assert told(by_name.body) == {"sub": "reports", "scopes": ["read"], "method": "keys"}
    assert told(hashed.body) == {"sub": "partner", "scopes": [], "method": "keys"}
    assert told(sdk.body)["method"] == "sdk"
    assert told(sdk.body)["sub"] != told(other.body)["sub"]
    assert told(link.body)["method"] == "link"
    assert (wrong.status, hash_itself.status, none.status) == (401, 401, 401)
    assert none.headers["www-authenticate"] == 'Bearer, ApiKey header="X-API-Key", ApiKey query="key"'


async def test_a_way_with_scopes_beside_one_without(tmp_path: Path) -> None:
    """A caller who lacks the scopes of one way may come in by another."""
    key = "k" * 30
    settings = BY_SECRET + "  keys: {type: apiKey, keys: [<< env.KEY >>]}\n"
    definition = WHO.replace("authentication: jwt", "authentication: [jwt: {scopes: [admin]}, keys]")
    async with project(tmp_path, settings, definition, {"JWT_SECRET": SECRET, "KEY": key}) as server:
        both = await server.get("/who", X_API_Key=key, **bearer(signed()))
        alone = await server.get("/who", **bearer(signed()))
    assert (both.status, told(both.body)["method"]) == (200, "keys")
    assert alone.status == 403


async def test_optional(tmp_path: Path) -> None:
    """Without credentials `auth` is null; wrong credentials are refused."""
    definition = WHO.replace("authentication: jwt", "authentication: {jwt: {optional: true}}")
    async with project(tmp_path, definitions=definition) as server:
        nobody = await server.get("/who")
        somebody = await server.get("/who", **bearer(signed()))
        wrong = await server.get("/who", **bearer(signed(key="x" * 40)))
        bare_token = await server.get("/who", Authorization=signed())
        others = await server.get("/who", Authorization="Basic YTpi")
    assert (nobody.status, nobody.body) == (200, b"null")
    assert told(somebody.body)["sub"] == "ada"
    assert wrong.status == 401
    assert bare_token.status == 401  # a token without `Bearer` is not anonymous
    assert "Bearer ..." in told(bare_token.body)["detail"]
    assert (others.status, others.body) == (200, b"null")  # for a proxy, say


@pytest.mark.parametrize(
    ("ways", "path", "headers", "status"),
    [
        ("jwt: {optional: true}", "/who", {}, 200),
        ("jwt: {optional: true}", "/who", {"Authorization": "Basic YTpi"}, 200),  # for a proxy
        ("jwt: {optional: true}", "/who", {"Authorization": ""}, 401),
        ("jwt: {optional: true}", "/who", {"Authorization": "Bearer"}, 401),
        ("jwt: {optional: true}", "/who", {"Authorization": "bearer  "}, 401),
        ("jwt: {optional: true}", "/who", {"Authorization": "Token abc"}, 401),
        ("jwt: {optional: true}", "/who", {"Authorization": "Basic"}, 401),
        ("keys: {optional: true}", "/who", {"X_API_Key": ""}, 401),
        ("keys: {optional: true}", "/who", {"X_API_Key": "Bearer"}, 401),
        ("queried: {optional: true}", "/who?key=", {}, 401),
        ("queried: {optional: true}", "/who?other=", {}, 200),
        ("session: {optional: true}", "/who", {"Cookie": "token="}, 200),  # emptied by a logout
        ("session: {optional: true}", "/who", {"Cookie": "token=x"}, 401),
    ],
)
async def test_only_a_request_without_credentials_is_a_guest(
    tmp_path: Path, ways: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Empty credentials and those of another scheme are refused (RFC 6750, section 3.1), though they are optional."""
    settings = (
        "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>}\n"
        "  session: {type: jwt, secret: << env.JWT_SECRET >>, from: [{cookie: token}, header]}\n"
        "  keys: {type: apiKey, header: X-API-Key, keys: [<< env.KEY >>]}\n"
        "  queried: {type: apiKey, query: key, keys: [<< env.KEY >>]}\n"
    )
    definition = WHO.replace("authentication: jwt", f"authentication: {{{ways}}}")
    async with project(tmp_path, settings, definition, {"JWT_SECRET": SECRET, "KEY": "k" * 40}) as server:
        reply = await server.get(path, **headers)
    assert reply.status == status, reply
    if status == 401:
        assert reply.headers["www-authenticate"]


async def test_endpoints_without_authentication_take_everybody(tmp_path: Path) -> None:
    """`none` says so, and so does leaving it out; nothing that is sent is looked at."""
    definition = WHO.replace("authentication: jwt", "authentication: none")
    async with project(tmp_path, definitions=definition) as server:
        reply = await server.get("/who", **bearer("nonsense"))
    assert (reply.status, reply.body) == (200, b"null")


async def test_head_is_asked_and_a_preflight_is_not(tmp_path: Path) -> None:
    """HEAD tells no more than GET would; a preflight can't hold credentials (Fetch standard)."""
    settings = "server: {cors: [https://app.example.org]}\n" + BY_SECRET
    async with project(tmp_path, settings) as server:
        head = await server.ask("HEAD", "/who")
        mine = await server.ask("HEAD", "/who", b"", **bearer(signed()))
        preflight = await server.ask(
            "OPTIONS", "/who", Origin="https://app.example.org", Access_Control_Request_Method="GET"
        )
        page = await server.get("/who", Origin="https://app.example.org")
    assert (head.status, head.body, head.headers["www-authenticate"]) == (401, b"", "Bearer")
    assert mine.status == 200
    assert preflight.status == 204
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    assert page.status == 401
    assert page.headers["access-control-allow-origin"] == "https://app.example.org"


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        ("openai", ('"error":', '"type":"authentication_error"', '"code":"unauthorized"')),
        ("anthropic", ('"type":"error"', '"type":"authentication_error"')),
        ("sse", ('"code":"unauthorized"',)),
        ("ndjson", ('"code":"unauthorized"',)),
    ],
)
async def test_dialects_tell_it_in_their_own_words(tmp_path: Path, dialect: str, words: tuple[str, ...]) -> None:
    """SDKs get the error they know, with the status and the challenge."""
    definition = (
        "method: POST\npath: /v1\nauthentication: jwt\n"
        f"streaming: {{format: {dialect}}}\nfunctionStack: [{{stream: hello}}]\n"
    )
    async with project(tmp_path, definitions=definition) as server:
        reply = await server.ask("POST", "/v1", b'{"stream":true}', Content_Type="application/json")
        mine = await server.ask("POST", "/v1", b'{"stream":true}', Content_Type="application/json", **bearer(signed()))
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert all(word in reply.body.decode() for word in words), reply.body
    assert mine.status == (200 if dialect in ("openai", "anthropic") else 400)


# ------------------------------------------------------------- public keys


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_public_key(tmp_path: Path, algorithm: str) -> None:
    """From a file or the environment; its text as a secret signs nothing (key confusion)."""
    key = KEYS[algorithm]
    (tmp_path / "key.pem").write_text(pem(key))
    settings = (
        "authentication:\n  jwt: {type: jwt, publicKey: key.pem}\n  inline: {type: jwt, publicKey: << env.KEY >>}\n"
    )
    definition = WHO + "---" + WHO.replace("/who", "/inline").replace("tion: jwt", "tion: inline")
    confused = signed(key=pem(key), algorithm="HS256")
    other = type(key).generate_key  # another key of the same kind
    size: Any = {"RS256": 2048, "ES256": "P-256", "EdDSA": "Ed25519"}[algorithm]
    environment = {"KEY": pem(key).replace("\n", "\\n")}
    async with project(tmp_path, settings, definition, environment) as server:
        good = await server.get("/who", **bearer(signed(key=key, algorithm=algorithm)))
        inline = await server.get("/inline", **bearer(signed(key=key, algorithm=algorithm)))
        assert (good.status, inline.status) == (200, 200), good.body
        for token in (
            confused,
            signed(key=pem(key).strip(), algorithm="HS256"),
            signed(key=other(size), algorithm=algorithm),
            signed(key=KEYS["RS256"], algorithm="PS256") if algorithm != "RS256" else confused,
        ):
            reply = await server.get("/who", **bearer(token))
            assert reply.status == 401, reply.body


async def test_a_key_set_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are fetched once, again for an unknown name, but not for every one; old keys go."""
    monkeypatch.setattr(authentication, "PAUSE", 0.3)
    old, new = KEYS["RS256"], KEYS["ES256"]
    publisher = Publisher(old)
    async with Upstream(publisher.script) as upstream:
        settings = f"authentication:\n  jwt: {{type: jwt, jwksUrl: '{upstream.url}/keys', audience: me}}\n"
        by_old = bearer(signed(claims(aud="me"), old, "RS256", kid="rsa"))
        by_new = bearer(signed(claims(aud="me"), new, "ES256", kid="ec"))
        async with project(tmp_path, settings) as server:
            replies = await asyncio.gather(*(server.get("/who", **by_old) for _ in range(20)))
            assert {reply.status for reply in replies} == {200}
            assert publisher.asked == 1
            publisher.keys = [new]
            for n in range(20):  # names at random cost nothing within the pause
                token = signed(claims(aud="me"), new, "ES256", kid=f"made up {n}")
                assert (await server.get("/who", **bearer(token))).status == 401
            assert publisher.asked == 1
            await asyncio.sleep(0.35)
            assert (await server.get("/who", **by_new)).status == 200
            assert publisher.asked == 2
            # The old key is no longer published: what it signed is not valid, though it was remembered.
            assert (await server.get("/who", **by_old)).status == 401
            confused = signed(claims(aud="me"), pem(new), "HS256", kid="ec")
            assert (await server.get("/who", **bearer(confused))).status == 401
            wrong_kind = signed(claims(aud="me"), old, "RS256", kid="ec")
            assert (await server.get("/who", **bearer(wrong_kind))).status == 401
            nameless = signed(claims(aud="me"), new, "ES256")
            assert (await server.get("/who", **bearer(nameless))).status == 200
    assert upstream.asked[0].target == "/keys"


async def test_a_key_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any key no client can be authenticated: 503. Keys that are there are used on, for a while."""
    monkeypatch.setattr(authentication, "PAUSE", 0.05)
    monkeypatch.setattr(authentication, "SHORTEST", 0.1)
    monkeypatch.setattr(authentication, "STALE", 1.0)
    key = KEYS["ES256"]
    publisher = Publisher(key)
    publisher.away = True
    publisher.headers = ("Cache-Control: public, max-age=0",)

    def fresh() -> dict[str, str]:
        return bearer(signed(claims(aud="me", jti=time.perf_counter_ns()), key, "ES256", kid="ec"))

    async with Upstream(publisher.script) as upstream:
        settings = f"authentication:\n  jwt: {{type: jwt, jwksUrl: '{upstream.url}/', audience: me}}\n"
        async with project(tmp_path, settings) as server:
            reply = await server.get("/who", **fresh())
            assert (reply.status, told(reply.body)["code"]) == (503, "unavailable")
            assert "retry-after" in reply.headers
            publisher.away = False
            await asyncio.sleep(0.1)
            assert (await server.get("/who", **fresh())).status == 200
            publisher.away = True
            await asyncio.sleep(0.2)  # no longer fresh
            asked = publisher.asked
            assert (await server.get("/who", **fresh())).status == 200
            assert publisher.asked > asked
            await asyncio.sleep(1.0)  # too old
            assert (await server.get("/who", **fresh())).status == 503


async def test_keys_that_are_taken_back_are_worth_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers with no key at all is not away: its last keys, and what was remembered, go."""
    monkeypatch.setattr(authentication, "PAUSE", 0.0)
    key = KEYS["ES256"]
    publisher = Publisher(key)
    async with Upstream(publisher.script) as upstream:
        settings = f"authentication:\n  jwt: {{type: jwt, jwksUrl: '{upstream.url}/', audience: me}}\n"
        by_key = bearer(signed(claims(aud="me"), key, "ES256", kid="ec"))
        other = bearer(signed(claims(aud="me"), key, "ES256", kid="made up"))
        async with project(tmp_path, settings) as server:
            assert (await server.get("/who", **by_key)).status == 200
            publisher.keys = []
            assert (await server.get("/who", **other)).status == 503
            assert (await server.get("/who", **by_key)).status == 503
            publisher.keys = [key]
            assert (await server.get("/who", **by_key)).status == 200


async def test_a_key_server_that_hangs_holds_up_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one request waits for new keys, others go on with those there are."""
    monkeypatch.setattr(authentication, "PAUSE", 0.05)
    monkeypatch.setattr(authentication, "SHORTEST", 0.1)
    key = KEYS["ES256"]
    publisher = Publisher(key)
    publisher.headers = ("Cache-Control: max-age=0",)

    def fresh() -> dict[str, str]:
        return bearer(signed(claims(aud="me", jti=time.perf_counter_ns()), key, "ES256", kid="ec"))

    async with Upstream(publisher.script) as upstream:
        settings = f"authentication:\n  jwt: {{type: jwt, jwksUrl: '{upstream.url}/', audience: me}}\n"
        async with project(tmp_path, settings) as server:
            assert (await server.get("/who", **fresh())).status == 200
            publisher.delay = 1.5
            await asyncio.sleep(0.2)
            waiting = asyncio.create_task(server.get("/who", **fresh()))
            await asyncio.sleep(0.2)
            others = await asyncio.gather(*(server.get("/who", **fresh()) for _ in range(5)))
            assert not waiting.done()
            assert {reply.status for reply in others} == {200}
            assert (await waiting).status == 200


async def test_who_asks_and_leaves_has_keys_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who makes up names of keys and leaves neither begins it again each time nor ends it for others."""
    monkeypatch.setattr(authentication, "PAUSE", 0.05)
    key = KEYS["ES256"]
    publisher = Publisher(key)

    def naming(name: str) -> dict[str, str]:
        return bearer(signed(claims(aud="me"), key, "ES256", kid=name))

    async with Upstream(publisher.script) as upstream:
        settings = f"authentication:\n  jwt: {{type: jwt, jwksUrl: '{upstream.url}/', audience: me}}\n"
        async with project(tmp_path, settings) as server:
            publisher.delay = 1.0
            made_up = f"Authorization: {naming('made up')['Authorization']}\r\n"
            for _ in range(10):
                client = await server.connect()
                client.ask("/who", extra=made_up)
                await asyncio.sleep(0.02)
                client.close()
            await asyncio.sleep(0.1)
            assert (await server.get("/who", **naming("ec"))).status == 200
            assert publisher.asked == 1


async def test_keys_that_stay_the_same_leave_what_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Having them fetched, as any client can, does not make every token be checked again."""
    monkeypatch.setattr(authentication, "PAUSE", 0.0)
    key = KEYS["ES256"]
    publisher = Publisher(key)
    async with Upstream(publisher.script) as upstream:
        settings = f"authentication:\n  jwt: {{type: jwt, jwksUrl: '{upstream.url}/', audience: me}}\n"
        async with project(tmp_path, settings) as server:
            by_key = bearer(signed(claims(aud="me"), key, "ES256", kid="ec"))
            assert (await server.get("/who", **by_key)).status == 200
            unknown = bearer(signed(claims(aud="me"), key, "ES256", kid="made up"))
            assert (await server.get("/who", **unknown)).status == 401
            assert publisher.asked == 2
            checked: list[str] = []
            monkeypatch.setattr(authentication, "parse_token", checked.append)
            assert (await server.get("/who", **by_key)).status == 200
            assert checked == []


@pytest.mark.parametrize(
    "published",
    [
        "not json",
        "[]",
        '{"keys": 1}',
        '{"keys": []}',
        '{"keys": [null, 1, {}, {"kty": "oct", "k": "AAAA"}, {"kty": ["RSA"]}, {"kty": "RSA", "n": 1, "e": []}]}',
        '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}]}',
        '{"keys": [{"kty": "oct", "kid": "k", "alg": "HS256", "k": "' + part(SECRET.encode()) + '"}]}',
    ],
)
async def test_what_is_no_key_set_lets_nobody_in(tmp_path: Path, published: str) -> None:
    """Whatever is published; a secret that is published is none."""
    async with Upstream(answer(published)) as upstream:
        settings = f"authentication:\n  jwt: {{type: jwt, jwksUrl: '{upstream.url}/', audience: me}}\n"
        async with project(tmp_path, settings) as server:
            reply = await server.get("/who", **bearer(signed(claims(aud="me"), KEYS["ES256"], "ES256")))
            secret = await server.get("/who", **bearer(signed(claims(aud="me"), kid="k")))
    assert (reply.status, secret.status) == (503, 401)


async def test_weak_and_foreign_keys_of_a_set_are_passed_over(tmp_path: Path) -> None:
    """Keys for encryption, of too few bits, or for another algorithm check no signature."""
    key = KEYS["ES256"].as_dict(private=False)
    rsa = KEYS["RS256"]
    with pytest.warns(Warning, match="2048"):
        weak = RSAKey.generate_key(1024, {"kid": "weak"})
    listed = [key | {"kid": "enc", "use": "enc"}, key | {"kid": "ops", "key_ops": ["sign"]}]
    listed += [weak.as_dict(private=False), rsa.as_dict(private=False) | {"alg": "RS512"}]
    async with Upstream(answer(json.dumps({"keys": listed}))) as upstream:
        settings = f"authentication:\n  jwt: {{type: jwt, jwksUrl: '{upstream.url}/', audience: me}}\n"
        async with project(tmp_path, settings) as server:
            for signer, algorithm, kid, status in (
                (KEYS["ES256"], "ES256", "enc", 401),
                (KEYS["ES256"], "ES256", "ops", 401),
                (weak, "RS256", "weak", 401),
                (rsa, "RS256", "rsa", 401),
                (rsa, "RS512", "rsa", 200),
            ):
                token = signed(claims(aud="me"), signer, algorithm, kid=kid)
                assert (await server.get("/who", **bearer(token))).status == status, kid


# ------------------------------------------------------------- a secret of the project's own


async def test_an_empty_secret_is_replaced_by_one_of_the_project(tmp_path: Path) -> None:
    """It is made once, is its owner's alone, and signs what `jwt.sign` gives; an empty secret signs nothing."""
    settings = 'authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET | default("") >>}\n'
    login = """
---
method: POST
path: /login
responseType: json
functionStack:
  - jwt.sign: {claims: {sub: ada}, authentication: jwt}
    as: token
  - return: << token >>
"""
    async with project(tmp_path, settings, WHO + login, {}) as server:
        token = told(b'{"t":' + (await server.ask("POST", "/login")).body + b"}")["t"]
        reply = await server.get("/who", **bearer(token))
        empty = await server.get("/who", **bearer(signed(key="\0")))
    file = tmp_path / ".streamstack" / "secrets" / "jwt"
    assert reply.status == 200
    assert empty.status == 401
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = file.read_text()
    async with project(tmp_path, settings, WHO, {}) as server:
        again = await server.get("/who", **bearer(token))
    assert again.status == 200
    assert file.read_text() == kept

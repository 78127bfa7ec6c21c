from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from time import perf_counter
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest

from streamstack.connections.http import Route, UpstreamRequest
from streamstack.errors import RunError
from streamstack.language.settings import HttpSettings
from streamstack.runtime.values import File
from tests.functions.calling import call, context_of, run_calling
from tests.upstreams import Asked, Upstream, Wire, answer, answers

JSON = "Content-Type: application/json"


async def fails(**arguments: Any) -> RunError:
    """Return the error of a request."""
    with pytest.raises(RunError) as caught:
        await call("http.request", **arguments)
    return caught.value


# ------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize("size", [10, 300_000, 3_000_000])
async def test_large_bodies_have_their_length(size: int) -> None:
    """They are written in pieces, through a redirect too, and never as chunks, which some servers refuse."""
    there = answer("", "Location: /there", status="307 Temporary Redirect")
    async with Upstream(there, answer("{}", JSON)) as upstream:
        await call("http.request", url=upstream.url, method="POST", json={"text": "x" * size})
    for asked in upstream.asked:
        assert json.loads(asked.body)["text"] == "x" * size
        assert int(asked.headers["content-length"]) == len(asked.body)
        assert asked.headers["content-type"] == "application/json"
        assert "content-disposition" not in asked.headers
    assert len(upstream.asked) == 2


async def test_stack_asks_and_reads_the_answer() -> None:
    """From YAML to the wire and back: a request, and what its answer holds."""
    async with Upstream(answer('{"name": "Ada", "tags": [1, 2]}', JSON, "X-Part: a", "X-Part: b")) as upstream:
        ran = await run_calling(
            """
            - http.request:
                url: << input.url ~ "/people" >>
                query: {page: 2, tag: [a, "b c"], none: null}
                headers: {X-Key: k, X-None: null}
              as: reply
            - stream: << reply.body.name >>
            - return: << [reply.status, reply.body.tags, reply.headers["x-part"]] >>
            """,
            {"url": upstream.url},
        )
    assert ran.error is None
    assert ran.contents == ["Ada"]
    assert ran.result == [200, [1, 2], "a, b"]
    (asked,) = upstream.asked
    assert asked.target == "/people?page=2&tag=a&tag=b+c"
    assert asked.headers["x-key"] == "k"
    assert asked.headers["user-agent"].startswith("streamstack/")
    assert asked.headers["accept-encoding"] == "gzip, deflate, br"
    assert "x-none" not in asked.headers


@pytest.mark.parametrize(
    ("given", "content_type", "body"),
    [
        ({"json": {"a": [1, None, "é"]}}, "application/json", '{"a":[1,null,"é"]}'.encode()),
        ({"json": 0}, "application/json", b"0"),
        ({"form": {"a": "b c", "n": [1, 2], "z": None}}, "application/x-www-form-urlencoded", b"a=b+c&n=1&n=2"),
        ({"body": "té"}, "text/plain; charset=utf-8", "té".encode()),
        ({"body": b"\0\xff"}, "application/octet-stream", b"\0\xff"),
        ({"body": "<a/>", "headers": {"content-type": "application/xml"}}, "application/xml", b"<a/>"),
    ],
)
async def test_bodies_are_sent(given: dict[str, Any], content_type: str, body: bytes) -> None:
    """JSON, a form, a text or bytes, each with the Content-Type that says so."""
    async with Upstream(answer("")) as upstream:
        result = await call("http.request", url=upstream.url, method="post", **given)
    (asked,) = upstream.asked
    assert (asked.method, asked.headers["content-type"], asked.body) == ("POST", content_type, body)
    assert result["body"] is None


@pytest.mark.parametrize(
    "given",
    [
        {"url": "ftp://x.example/"},
        {"url": "/people"},
        {"url": "http://"},
        {"url": "http://x.example:99999/"},
        {"url": "http://[::1"},
        {"url": "http://x.example/", "json": 1, "body": "b"},
        {"url": "http://x.example/", "body": {"a": 1}},
        {"url": "http://127.0.0.1:9/", "headers": {"X-A": "a\r\nb"}},
        {"url": "http://127.0.0.1:9/", "headers": {"X A": "a"}},
        {"url": "http://127.0.0.1:9/", "method": "GET /evil"},
        {"url": "http://127.0.0.1:9/", "multipart": {"a": {"content": "a", "contentType": "text/csv\r\nX: 1"}}},
        {"url": "http://127.0.0.1:9/", "allow_status": ["none"]},
    ],
)
async def test_what_cannot_be_asked_is_the_authors_error(given: dict[str, Any]) -> None:
    """It is reported without what the parameters held, which may be a key."""
    async with Upstream(answer("", status="500 No")) as upstream:
        if "allow_status" in given:
            given = given | {"url": upstream.url}
        error = await fails(**given)
    assert error.code == "template"
    assert "evil" not in error.message


async def test_signed_url_is_sent_as_it_is() -> None:
    """What is quoted in a URL is not quoted another way, since signatures count on it."""
    async with Upstream(answer("")) as upstream:
        await call("http.request", url=upstream.url + "/a%2Fb?sig=x%2By%3D&t=1:2", query={"more": "ä&b"})
        await call("http.request", url=upstream.url + "/ä b?q=ü#part")
    assert [asked.target for asked in upstream.asked] == [
        "/a%2Fb?sig=x%2By%3D&t=1:2&more=%C3%A4%26b",
        "/%C3%A4%20b?q=%C3%BC",
    ]


# --------------------------------------------------------------------------- what is answered


@pytest.mark.parametrize(
    ("lines", "body", "decode", "value"),
    [
        ([JSON], b'\xef\xbb\xbf{"a": 1}', "auto", {"a": 1}),
        (["Content-Type: application/hal+json"], b"[1]", "auto", [1]),
        (["Content-Type: text/plain"], b'{"a": 1}', "json", {"a": 1}),
        (["Content-Type: text/plain; charset=iso-8859-1"], b"\xe9t\xe9", "auto", "été"),
        (["Content-Type: application/json; charset=iso-8859-1"], b'{"a":"\xe9"}', "auto", {"a": "é"}),
        (["Content-Type: application/json; charset=utf-16"], '{"a":"é"}'.encode("utf-16"), "auto", {"a": "é"}),
        (
            ["Content-Type: application/x-ndjson; charset=utf-16le"],
            '{"a":"é"}\n2'.encode("utf-16-le"),
            "auto",
            [{"a": "é"}, 2],
        ),
        (["Content-Type: text/html"], b"<p>", "auto", "<p>"),
        ([], b"\0\1", "auto", b"\0\1"),
        ([JSON], b"{}", "text", "{}"),
        ([JSON], b"{}", "bytes", b"{}"),
        ([], b'{"a":1}\n{"a":2}', "ndjson", [{"a": 1}, {"a": 2}]),
        (["Content-Type: text/csv"], b"a,b\n1,2\n", "auto", [{"a": "1", "b": "2"}]),
        ([], b"a\r\nb", "lines", ["a", "b"]),
        ([], b"data: x\n\n", "sse", [{"event": None, "id": None, "data": "x"}]),
        ([JSON], b"", "auto", None),
    ],
)
async def test_body_is_decoded(lines: list[str], body: bytes, decode: str, value: Any) -> None:
    """By its Content-Type, or as the author says."""
    async with Upstream(answer(body, *lines)) as upstream:
        result = await call("http.request", url=upstream.url, decode=decode)
    assert result["body"] == value


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("br", brotli.compress), ("identity", bytes)])
async def test_compressed_body_is_read(coding: str, encode: Any) -> None:
    """Gzip and br, as asked for."""
    body = encode(b'{"a": 1}')
    async with Upstream(answer(body, JSON, f"Content-Encoding: {coding}")) as upstream:
        result = await call("http.request", url=upstream.url)
    assert result["body"] == {"a": 1}


async def test_head_has_no_body() -> None:
    """Not even where its headers announce one."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nContent-Encoding: gzip\r\n\r\n"
    async with Upstream(answers(head)) as upstream:
        result = await call("http.request", url=upstream.url, method="HEAD")
    assert result["body"] is None


async def test_connection_is_used_again() -> None:
    """Requests of all runs share one pool."""

    async def twice(wire: Wire) -> None:
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        await wire.send(reply)
        upstream.asked.append(await wire.next())
        await wire.send(reply)

    async with Upstream(twice) as upstream, context_of() as context:
        from streamstack.functions.http import http_request  # noqa: PLC0415
        from streamstack.runtime.run import Run  # noqa: PLC0415
        from tests.collector import Collector  # noqa: PLC0415

        assert http_request.run is not None
        for _ in range(2):
            result = await http_request.run(Run(Collector(), context), url=upstream.url)
            assert result["body"] == b"ok"
    assert len(upstream.wires) == 1
    assert len(upstream.asked) == 2


async def test_no_cookie_goes_from_run_to_run() -> None:
    """The pool is shared, what servers set in it is not."""
    async with Upstream(answer("ok", "Set-Cookie: session=secret; Path=/")) as upstream:
        stack = "- repeat: {times: 2, do: [{http.request: {url: << input.url >>}, as: reply}]}"
        ran = await run_calling(stack, {"url": upstream.url})
    assert ran.error is None
    assert [asked.headers.get("cookie") for asked in upstream.asked] == [None, None]


# ---------------------------------------------------------------------------------- redirects


async def test_redirects_are_followed() -> None:
    """A POST becomes a GET where browsers do so, and stays one where it must."""
    for status, method in [("302 F", "GET"), ("303 S", "GET"), ("307 T", "POST"), ("308 P", "POST")]:
        moved = answer("", "Location: /there?x=%2F", status=status)
        async with Upstream(moved, answer("ok", "Content-Type: text/plain")) as upstream:
            result = await call("http.request", url=upstream.url + "/here", method="POST", body="b")
        assert result["body"] == "ok"
        last = upstream.asked[-1]
        assert (last.method, last.target) == (method, "/there?x=%2F")
        assert last.body == (b"b" if method == "POST" else b"")
        assert ("content-type" in last.headers) == (method == "POST")


async def test_keys_do_not_follow_to_another_host() -> None:
    """Whatever header may be a key stays where it was meant for."""
    headers = {"Authorization": "Bearer k", "X-Api-Key": "k", "Cookie": "k=1", "Accept": "text/plain"}
    async with Upstream(answer("ok")) as other:
        moved = answer("", f"Location: {other.url}/x", status="307 T")
        async with Upstream(moved) as upstream:
            await call("http.request", url=upstream.url, headers=headers)
    (asked,) = other.asked
    assert asked.headers["accept"] == "text/plain"
    assert not {"authorization", "x-api-key", "cookie"} & set(asked.headers)
    assert "Bearer k" in upstream.asked[0].headers.values()


async def test_redirects_end() -> None:
    """A circle is an error; without redirects the answer is the redirect itself."""
    async with Upstream(answer("", "Location: /", status="302 F")) as upstream:
        error = await fails(url=upstream.url, redirects=3)
        assert (error.code, error.message) == ("http-status", "127.0.0.1 redirects more than 3 times")
        assert len(upstream.asked) == 4
        result = await call("http.request", url=upstream.url, redirects=0)
    assert (result["status"], result["headers"]["location"]) == (302, "/")


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "javascript:1", "ftp://x/", "http://2852039166/x", "http://169.254.169.254./"]
)
async def test_redirect_to_what_is_no_web_is_refused(location: str) -> None:
    """No scheme but the web's is followed; an address that can't be asked is the upstream's fault."""
    async with Upstream(answer("", f"Location: {location}", status="302 F")) as upstream:
        error = await fails(url=upstream.url)
    assert error.code == "http-connection"


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found", "429 Too Many Requests", "500 No"])
async def test_status_from_400_is_an_error(status: str) -> None:
    """The error names host and status; body and headers are in its details, for the author."""
    async with Upstream(answer('{"error": "secret"}', JSON, "X-Request-Id: 7", status=status)) as upstream:
        error = await fails(url=upstream.url + "/path?key=secret", headers={"X-Key": "secret"})
    code = int(status[:3])
    assert (error.code, error.status) == ("http-status", 502)
    assert error.message.startswith(f"127.0.0.1 answered {code}")
    assert "secret" not in error.message
    assert error.details["status"] == code
    assert error.details["body"] == {"error": "secret"}
    assert error.details["headers"]["x-request-id"] == "7"


async def test_allowed_status_is_an_answer() -> None:
    """One by one, or a class of them."""
    for allowed in ([404], [409, "4xx"], ["4xx"]):
        async with Upstream(answer("gone", "Content-Type: text/plain", status="404 Not Found")) as upstream:
            result = await call("http.request", url=upstream.url, allow_status=allowed)
        assert (result["status"], result["body"]) == (404, "gone")


async def test_error_body_of_any_size_is_cut() -> None:
    """An error's body is read only as far as it tells something."""

    async def endless(wire: Wire) -> None:
        await wire.head("Content-Type: text/html", status="500 No")
        while True:
            await wire.chunk(b"<p>" * 10_000)

    async with Upstream(endless) as upstream:
        error = await fails(url=upstream.url)
    assert len(error.details["body"]) == 2000


@pytest.mark.parametrize(
    ("parts", "code", "told"),
    [
        ([b""], "http-connection", "broke off before it answered"),
        ([b"HTTP/1.1 200 OK\r\nContent-Ty"], "http-connection", "broke off before it answered"),
        ([b"SSH-2.0-OpenSSH_9\r\n\r\n"], "http-connection", "not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"], "stream-lost", "broke off"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf"], "stream-lost", "broke off"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\nhalf"], "stream-lost", "broke off"),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", gzip.compress(b"x" * 99)[:-9]],
            "stream-lost",
            "in the middle of its encoding",
        ),
        ([b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nno"], "invalid-chunk", "is not"),
        ([b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 2\r\n\r\nno"], "invalid-chunk", "zstd"),
        ([b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n<p>"], "invalid-chunk", "text/html"),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{"],
            "invalid-chunk",
            "not JSON",
        ),
    ],
)
async def test_fault_of_an_upstream_has_its_code(parts: list[bytes], code: str, told: str) -> None:
    """No answer, half an answer, another answer than was asked for."""
    async with Upstream(answers(*parts, every=0.03)) as upstream:
        error = await fails(url=upstream.url, decode="json")
    assert error.code == code
    assert told in error.message
    assert error.status == 502


async def test_refused_connection_is_told() -> None:
    """Connections to it are refused."""
    async with Upstream(answer("")) as upstream:
        pass
    error = await fails(url=upstream.url)
    assert (error.code, error.message) == ("http-connection", "127.0.0.1 refused the connection")


async def test_certificate_that_nobody_vouches_for_is_refused() -> None:
    """It is reported as such, and not tried again."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(__file__).with_name("self-signed.pem"))
    async with Upstream(answer("ok"), tls=tls) as upstream:
        error = await fails(url=upstream.url)
    assert (error.code, error.final) == ("http-connection", True)
    assert error.message == "the certificate of 127.0.0.1 is not valid"
    assert upstream.asked == []


async def test_unknown_name_is_told() -> None:
    """A name that does not exist (RFC 6761)."""
    error = await fails(url="http://unknown.invalid/")
    assert error.code == "http-connection"
    assert "unknown.invalid can't be resolved" in error.message


async def test_time_runs_out() -> None:
    """The time-out is for the whole: the head, and a body that trickles."""

    async def silent(wire: Wire) -> None:
        await wire.left()

    async def trickling(wire: Wire) -> None:
        await wire.head()
        while True:
            await wire.chunk(b"x")
            await asyncio.sleep(0.01)

    for script in (silent, trickling):
        async with Upstream(script) as upstream:
            started = perf_counter()
            error = await fails(url=upstream.url, timeout=0.15)
            assert perf_counter() - started < 1
        assert (error.code, error.status) == ("timeout", 504)
        assert error.message == "127.0.0.1 took longer than 0.15 s to answer"


async def test_body_over_the_limit_is_refused() -> None:
    """Though it is small on the wire: what counts is what it takes in memory."""
    bomb = gzip.compress(b"\0" * (5 << 20))
    async with Upstream(answer(bomb, "Content-Encoding: gzip")) as upstream:
        error = await fails(settings=HttpSettings(max_body_size=1 << 20), url=upstream.url)
    assert error.code == "limit-reached"


async def test_settings_guard_hosts_and_networks() -> None:
    """Hosts by name, addresses after resolution, each redirect again."""
    async with Upstream(answer("ok")) as upstream:
        moved = answer("", f"Location: http://localhost:{upstream.port}/", status="302 F")
        async with Upstream(moved) as first:
            error = await fails(settings=HttpSettings(allow_hosts=("localhost",)), url=first.url)
            assert "127.0.0.1 are not allowed" in error.message
            assert first.asked == []
            settings = HttpSettings(allow_hosts=("127.0.0.1",))
            error = await fails(settings=settings, url=first.url)
            assert "localhost are not allowed" in error.message
        settings = HttpSettings(deny_private_networks=True)
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            error = await fails(settings=settings, url=f"http://{host}:{upstream.port}/")
            assert error.code == "http-connection"
            assert "in a network that is not allowed" in error.message
            assert error.final
        settings = HttpSettings(allow_hosts=("127.0.0.0/8",), deny_private_networks=True)
        result = await call("http.request", settings, url=upstream.url)
    assert result["status"] == 200
    assert len(upstream.asked) == 1


async def test_redirect_answers_for_a_host() -> None:
    """Tests of definitions put their own server in the place of a named one, which is judged by its name."""
    async with Upstream(answer("ok", "Content-Type: text/plain")) as upstream:

        async def redirect(request: UpstreamRequest) -> Route:
            return Route(request.url.with_scheme("http").with_host("127.0.0.1").with_port(upstream.port), {"X-Of": "t"})

        settings = HttpSettings(
            allow_hosts=("api.example.org", "10.0.0.1"), deny_private_networks=True, redirect=redirect
        )
        result = await call("http.request", settings, url="https://api.example.org/v1/x%2Fy?a=b%20c")
        for url in ("https://other.example.org/", "https://127.0.0.1/"):
            with pytest.raises(RunError) as caught:
                await call("http.request", settings, url=url)
            assert "not allowed" in caught.value.message
    assert result["body"] == "ok"
    (asked,) = upstream.asked
    assert (asked.headers["host"], asked.target) == ("api.example.org", "/v1/x%2Fy?a=b%20c")
    assert asked.headers["x-of"] == "t"


# ---------------------------------------------------------------------------------- try again


async def test_retry_waits_as_the_answer_asks() -> None:
    """`retry-after-ms`, else Retry-After, is the least that is waited."""
    busy = answer("", "Retry-After: 7", "retry-after-ms: 150", status="429 Too Many Requests")
    async with Upstream(busy, answer("ok", "Content-Type: text/plain")) as upstream:
        started = perf_counter()
        ran = await run_calling(
            """
            - http.request: {url: << input.url >>}
              retry: {times: 2, delay: 1ms}
              as: reply
            - return: << reply.body >>
            """,
            {"url": upstream.url},
        )
        assert 0.14 < perf_counter() - started < 2
    assert ran.error is None
    assert ran.result == "ok"


async def test_retry_gives_up_where_the_wait_is_too_long() -> None:
    """Where the upstream asks for more than `maxDelay`, the error comes at once."""
    busy = answer("", "Retry-After: 60", status="503 Busy")
    async with Upstream(busy) as upstream:
        ran = await run_calling(
            """
            - http.request: {url: << input.url >>}
              retry: {times: 2, delay: 1ms, maxDelay: 5s}
              as: reply
            """,
            {"url": upstream.url},
        )
    assert ran.error is not None
    assert ran.error.code == "http-status"
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(("status", "asked"), [("401 No", 1), ("404 No", 1), ("429 Busy", 3), ("500 No", 3)])
async def test_only_what_may_pass_is_tried_again(status: str, asked: int) -> None:
    """401 stays 401; 429 and 500 may not."""
    async with Upstream(answer("", status=status)) as upstream:
        ran = await run_calling(
            """
            - http.request: {url: << input.url >>}
              retry: {times: 2, delay: 1ms}
              as: reply
            """,
            {"url": upstream.url},
        )
    assert ran.error is not None
    assert ran.error.code == "http-status"
    assert len(upstream.asked) == asked


async def test_error_is_caught_with_its_details() -> None:
    """What the upstream said is in `error.details`."""
    async with Upstream(answer('{"reason": "quota"}', JSON, status="403 Forbidden")) as upstream:
        ran = await run_calling(
            """
            - try:
                do:
                  - http.request: {url: << input.url >>}
                    as: reply
                catch:
                  on: [http-status]
                  do:
                    - return: << [error.code, error.details.status, error.details.body.reason] >>
            """,
            {"url": upstream.url},
        )
    assert ran.result == ["http-status", 403, "quota"]


async def test_answer_with_many_headers_is_read() -> None:
    """Long ones too, as security policies are."""
    lines = [f"X-{n}: {'v' * 500}" for n in range(60)] + [f"Policy: {'p' * 30_000}", JSON]
    async with Upstream(answer(json.dumps([1]), *lines)) as upstream:
        result = await call("http.request", url=upstream.url)
    assert result["body"] == [1]
    assert len(result["headers"]["policy"]) == 30_000


async def test_leaving_closes_the_connection() -> None:
    """A run that is cancelled before the head has come holds nothing open."""
    opened = asyncio.Event()

    async def silent(wire: Wire) -> None:
        opened.set()
        await wire.left()

    async with Upstream(silent) as upstream:
        task = asyncio.create_task(call("http.request", url=upstream.url))
        await opened.wait()
        left = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        wire = upstream.wires[0]
        assert wire.left_at is not None
        assert wire.left_at - left < 0.05


# --------------------------------------------------------------------------- bindings in a URL


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("<< input.url >>/people/<< input.x >>", "/people/a%2F..%2Fb%3Fc%3D1%26d%23%20%C3%A9%25"),
        ("<< input.url >>/p?q=<< input.x >>&n=1", "/p?q=a%2F..%2Fb%3Fc%3D1%26d%23%20%C3%A9%25&n=1"),
        ("<< input.url >>/<< input.x | urlEncode >>", "/a%2F..%2Fb%3Fc%3D1%26d%23%20%C3%A9%25"),
        ("<< input.url >>/<< input.path | safe >>/c", "/a/b/c"),
        ("<< input.url >>/<< input.path >>/c", "/a%2Fb/c"),
        ("http://127.0.0.1:<< input.port >>/<< input.n >>", "/7"),
        ("<< input.scheme >>://<< input.host >>/a/<< input.null >>b", "/a/b"),
        ("<< input.url ~ '/' ~ input.path >>", "/a/b"),
        ("<< input.url >>?q=<< input.dots >>", "/?q=.."),
    ],
)
async def test_binding_in_a_path_or_query_is_percent_encoded(written: str, target: str) -> None:
    """What is bound stays one segment or one value; a base, a whole URL and what is marked `safe` are as they are."""
    async with Upstream(answer("")) as upstream:
        ran = await run_calling(
            f"- http.request:\n    url: {written}\n  as: reply",
            {
                "url": upstream.url,
                "x": "a/../b?c=1&d# é%",
                "path": "a/b",
                "n": 7,
                "null": None,
                "port": upstream.port,
                "scheme": "http",
                "host": f"127.0.0.1:{upstream.port}",
                "dots": "..",
            },
        )
    assert ran.error is None
    assert upstream.asked[0].target == target


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("http://api.example<< input.x >>/b", "@127.0.0.1:1/x"),
        ("http://api.example<< input.x >>/b", ".evil.com"),
        ("http://api.example<< input.x >>", ".evil.com"),
        ("http://api.example:<< input.x >>/b", "80@evil.com"),
        ("http://a<< input.x >><< input.y >>/b", ".evil.com"),
        ("http://a<< input.x >>.example.com/b", "evil.com/"),
        ("http://a<< input.x >>-b/c", "x.evil.com#"),
    ],
)
async def test_binding_in_a_host_does_not_lead_to_another(written: str, value: str) -> None:
    """Where an author has begun the host, a value is a label of it, a port, or the path behind it."""
    ran = await run_calling(f"- http.request:\n    url: {written}\n  as: reply", {"x": value, "y": ""})
    assert ran.error is not None
    assert (ran.error.code, ran.error.status) == ("invalid-input", 400)


@pytest.mark.parametrize("value", [".", ".."])
async def test_binding_that_leads_out_of_a_path_is_refused(value: str) -> None:
    """Servers take `..` for the path above, however it is encoded: it is the caller's fault."""
    async with Upstream(answer("")) as upstream:
        ran = await run_calling(
            "- http.request:\n    url: << input.url >>/people/<< input.x >>/photo\n  as: reply",
            {"url": upstream.url, "x": value},
        )
    assert ran.error is not None
    assert (ran.error.code, ran.error.status) == ("invalid-input", 400)
    assert upstream.asked == []


# ----------------------------------------------------------------------------- multipart, and length


async def file_of(data: bytes, name: str = "Bär.csv") -> File:
    """Return a file as if it had been uploaded."""
    file = File(name, "text/csv")
    await file.write(data)
    return file


async def parts_of(asked: Asked) -> list[tuple[dict[str, str], bytes]]:
    """Return the headers and contents of a multipart body, read by the standard library."""
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + asked.body, policy=HTTP)
    assert not message.defects
    parts = []
    for part in message.walk():
        content = part.get_payload(decode=True)
        if isinstance(content, bytes):
            parts.append(({name.lower(): str(value) for name, value in part.items()}, content))
    return parts


@pytest.mark.parametrize("size", [0, 10, 3 * 1024 * 1024])
async def test_multipart_form_is_sent_with_its_length(size: int) -> None:
    """Texts, files, bytes and objects; a file in memory or on disk is read as it is sent."""
    data = b"x" * size
    file = await file_of(data)
    async with Upstream(answer("")) as upstream:
        await call(
            "http.request",
            url=upstream.url,
            method="POST",
            multipart={
                "model": "whisper-1",
                "n": [1, 2.5],
                "none": None,
                "file": file,
                "raw": b"\x00\r\n--",
                "meta": {"a": [1]},
                "named": {"content": "a,b", "filename": 'x"\r\n.csv', "contentType": "text/csv"},
            },
        )
    (asked,) = upstream.asked
    assert asked.headers["content-length"] == str(len(asked.body))
    assert "transfer-encoding" not in asked.headers
    parts = await parts_of(asked)
    contents = [(head["content-disposition"], head.get("content-type"), body) for head, body in parts]
    assert contents == [
        ('form-data; name="model"', None, b"whisper-1"),
        ('form-data; name="n"', None, b"1"),
        ('form-data; name="n"', None, b"2.5"),
        ('form-data; name="file"; filename="Bär.csv"', "text/csv", data),
        ('form-data; name="raw"; filename="raw"', "application/octet-stream", b"\x00\r\n--"),
        ('form-data; name="meta"', "application/json", b'{"a":[1]}'),
        ('form-data; name="named"; filename="x%22%0D%0A.csv"', "text/csv", b"a,b"),
    ]


async def test_file_is_sent_with_its_length() -> None:
    """Not in chunks, which stores such as S3 refuse."""
    file = await file_of(b"a,b\n" * 1000)
    async with Upstream(answer("")) as upstream:
        await call("http.request", url=upstream.url, method="PUT", body=file)
    (asked,) = upstream.asked
    assert asked.headers["content-length"] == "4000"
    assert asked.headers["content-type"] == "text/csv"
    assert asked.body == b"a,b\n" * 1000


# ---------------------------------------------------------------------------------------------- proxy


async def test_calls_go_through_the_proxy() -> None:
    """With its user and password; the name of the upstream is the proxy's to resolve."""
    async with Upstream(answer("hello")) as proxy:
        url = proxy.url.replace("//", "//ada:s3cret@")
        settings = HttpSettings(proxy=url, deny_private_networks=True)
        result = await call("http.request", settings, url="http://far.example/a?b=1", decode="text")
    assert result["body"] == "hello"
    (asked,) = proxy.asked
    assert asked.target == "http://far.example/a?b=1"
    assert asked.headers["host"] == "far.example"
    assert asked.headers["proxy-authorization"] == "Basic YWRhOnMzY3JldA=="


async def test_secure_calls_go_through_a_tunnel() -> None:
    """A proxy that refuses is reported as such, without its password."""
    async with Upstream(answer("", status="403 No")) as proxy:
        with pytest.raises(RunError) as caught:
            await call(
                "http.request",
                HttpSettings(proxy=proxy.url.replace("//", "//ada:s3cret@")),
                url="https://far.example/a",
            )
    assert (proxy.asked[0].method, proxy.asked[0].target) == ("CONNECT", "far.example:443")
    assert caught.value.code == "http-connection"
    assert "http.proxy" in caught.value.message
    assert "s3cret" not in caught.value.message


async def test_calls_of_this_machine_go_without_the_proxy() -> None:
    """An endpoint that calls its own server reaches it."""
    async with Upstream(answer("hello")) as upstream, Upstream(answer("")) as proxy:
        await call("http.request", HttpSettings(proxy=proxy.url), url=upstream.url)
    assert proxy.asked == []


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[::ffff:169.254.169.254]", "169.254.169.254."])
async def test_proxy_is_no_way_around_the_guard(host: str) -> None:
    """An address in any form is judged before the proxy is asked for it."""
    async with Upstream(answer("")) as proxy:
        with pytest.raises(RunError) as caught:
            await call("http.request", HttpSettings(proxy=proxy.url), url=f"http://{host}/")
    assert caught.value.code == "http-connection"
    assert "not allowed" in caught.value.message
    assert proxy.asked == []

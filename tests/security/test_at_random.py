"""Requests that were valid, changed at random: never a fault of ours, never a second answer, nothing left."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security.attacked import attacked, form, json, part, post, request, status_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionParam"),
    pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader"),
]

VALID = (
    request(b"GET /hello/x?q=a&n=5&d=1.5", b"h: a", b"Cookie: c=b", b"Accept: text/plain;q=0.5"),
    json(b'{"n": 5, "d": 1.25, "t": "text", "l": [1, "a"], "o": {"a": null}, "j": 1e5, "f": [0.1]}'),
    json(gzip.compress(b'{"n": 5}'), b"Content-Encoding: gzip"),
    request(
        b"POST /json",
        b"Content-Type: application/json",
        b"Transfer-Encoding: chunked",
        body=b'3\r\n{"n\r\n4;a=b\r\n": 5\r\n1\r\n}\r\n0\r\nA: b\r\n\r\n',
    ),
    post(b"/form", b"application/x-www-form-urlencoded", b"t=a+b%20c"),
    form(part(b"v"), part(b"abc", b'name="file"; filename="a.txt"', b"Content-Type: text/plain")),
    post(b"/rows", b"application/x-ndjson", b'{"a": 1}\n[2]\n"3"\n'),
    request(b"GET /kept", b"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA"),
    request(b"OPTIONS /json", b"Origin: https://a.example", b"Access-Control-Request-Method: POST"),
    request(b"HEAD http://x/hello/x"),
)
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"\xff", b"\xc3\xa4", b"%", b"%00", b"%0d%0a",
    b"\r\n\r\n", b"0\r\n\r\n", b"chunked", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Host: y\r\n",
    b"Expect: 100-continue\r\n", b"Content-Encoding: br\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"--XX",
    b"--XX--", b"[" * 300, b'{"', b'"', b"\\", b"1e999", b"9" * 500, b"x" * 20_000, b"A: b\r\n" * 200, b"HTTP/1.1",
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """Give a valid request with up to five changes."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["add", "replace", "cut", "repeat", "end"]))
        if kind == "add":
            data[at:at] = draw(st.sampled_from(PIECES))
        elif kind == "replace":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 20))]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 60))]
        else:
            data += draw(st.sampled_from(VALID))
    return bytes(data)


async def test_changed_requests(tmp_path: Path) -> None:
    """Each gets a 2xx or a 4xx, or a closed connection, and the reader beside stays on time."""
    thrown: list[bytes] = []

    @settings(max_examples=600, suppress_health_check=list(HealthCheck))
    @given(changed())
    def gather(data: bytes) -> None:
        thrown.append(data)

    await asyncio.to_thread(gather)
    wrong = []
    async with attacked(tmp_path) as attack:
        for at in range(0, len(thrown), 30):
            some = thrown[at : at + 30]
            answers = await asyncio.gather(*(attack.throw(each, end=True) for each in some))
            for data, answer in zip(some, answers, strict=True):
                if status_of(answer) // 100 not in (0, 1, 2, 4) or b"Traceback" in answer:
                    wrong.append((data, answer))
    assert len(thrown) > 500
    assert not wrong, wrong[0]

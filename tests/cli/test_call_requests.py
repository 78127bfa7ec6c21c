"""From a command line to a request."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path

import pytest

from streamstack.cli.call import CallRequest, _Exchange, _split_url


def question(method: str, path: str, *inputs: str, document: bytes | None = None) -> CallRequest:
    """Make a request without headers of its own."""
    file = None if document is None else BytesIO(document)
    return CallRequest.of(method, path, inputs, file, [])


def sent(asked: CallRequest) -> bytes:
    """Return what would be sent as the body."""

    async def collect() -> bytes:
        return b"".join([piece async for piece in _Exchange(asked, None).body()])

    return asyncio.run(collect())


def test_inputs_of_a_get_go_to_the_query() -> None:
    """Inputs are escaped; a path that has a query keeps it."""
    assert question("get", "/a", "q=x & y", "q=é").target == "/a?q=x+%26+y&q=%C3%A9"
    assert question("GET", "/a?b=1", "q=2").target == "/a?b=1&q=2"
    assert question("GET", "/ä b%2F").target == "/%C3%A4%20b%2F"
    assert question("GET", "/a").body == ()


def test_inputs_of_a_post_go_to_a_form() -> None:
    """The endpoint converts a form's texts to its types; a property builds its object."""
    asked = question("POST", "/a", "m=hi=1", "o.n=5", "o.p.q=true", "o.t=x y", "l=1", "l=2")
    assert sent(asked) == (
        b"m=hi%3D1&l=1&l=2&o=%7B%22n%22%3A+5%2C+%22p%22%3A+%7B%22q%22%3A+true%7D%2C+%22t%22%3A+%22x+y%22%7D"
    )
    assert dict(asked.headers)["Content-Type"] == "application/x-www-form-urlencoded"


def test_document_is_the_body() -> None:
    """With --json the inputs go to the query."""
    asked = question("POST", "/a", "dry=1", document=b"{}")
    assert (asked.target, sent(asked)) == ("/a?dry=1", b"{}")
    assert dict(asked.headers)["Content-Type"] == "application/json"


def test_headers_of_the_author_win() -> None:
    """A Content-Type or Accept that is given is not added again."""
    asked = CallRequest.of("POST", "/a", ["a=1"], None, ["content-type: text/x", "Accept:a/b"])
    assert asked.headers == (("content-type", "text/x"), ("Accept", "a/b"))


def test_file_makes_the_form_one_of_parts(tmp_path: Path) -> None:
    """A file is sent with its name and type, beside the texts."""
    (tmp_path / "a.csv").write_bytes(b"x,y")
    asked = question("POST", "/a", f"f=@{tmp_path / 'a.csv'}", "t=é")
    body = sent(asked)
    assert asked.length == len(body)
    assert b'name="f"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\nx,y\r\n' in body
    assert 'name="t"\r\n\r\né\r\n'.encode() in body


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (["novalue"], "an input is written name=value, not 'novalue'"),
        (["=x"], "an input is written name=value"),
        (["f=@/nowhere/at/all"], "No such file"),
        (["o=1", "o.n=5"], "o is given whole and by its properties"),
        (["o.n=5", "o.n.m=6"], "n has a value of its own already"),
    ],
)
def test_what_is_no_input_is_told(inputs: list[str], told: str) -> None:
    """A mistake on the command line is reported with what to write."""
    with pytest.raises(ValueError, match=told):
        question("POST", "/a", *inputs)


@pytest.mark.parametrize(
    ("url", "address", "target"),
    [
        ("http://a.example/x?y=1#z", "http://a.example", "/x?y=1"),
        ("https://a.example:8443", "https://a.example:8443", "/"),
        ("http://a.example?y=/1", "http://a.example", "/?y=/1"),
    ],
)
def test_full_url_is_address_and_target(url: str, address: str, target: str) -> None:
    """Its fragment is not sent."""
    assert _split_url(url) == (address, target)


def test_what_can_not_be_asked_is_told() -> None:
    """A path, a header, a file where it has no place."""
    with pytest.raises(ValueError, match="begins with a slash: /a"):
        question("GET", "a")
    with pytest.raises(ValueError, match="a header is written 'Name: value'"):
        CallRequest.of("GET", "/a", [], None, ["nonsense"])
    with pytest.raises(ValueError, match="a file is sent with POST"):
        question("GET", "/a", "f=@x")

"""Which route a path finds."""

from __future__ import annotations

from itertools import permutations

import pytest

from streamstack.errors import RunError
from streamstack.server.endpoints import Routes

ROUTES = Routes(
    [
        ("GET", "/", "root"),
        ("GET", "/users/me", "me"),
        ("GET", "/users/{id}", "user"),
        ("DELETE", "/users/{id}", "delete"),
        ("GET", "/users/{id}/posts/{post}", "post"),
        ("GET", "/users/me/drafts", "drafts"),
        ("POST", "/both", "without"),
        ("POST", "/both/", "with"),
        ("GET", "/café/{city}", "cafe"),
        ("GET", "/{any}/posts", "any"),
        ("HEAD", "/probe", "probe"),
        ("POST", "/models/{model}:generate", "generate"),
        ("POST", "/models/{model}:streamGenerate", "stream"),
        ("POST", "/models/{model}", "model"),
        ("POST", "/models/own:generate", "own"),
        ("GET", "/range/{from}..{to}.json", "range"),
        ("GET", "/range/{from}..{to}", "open"),
        ("GET", "/files/{rest:path}", "rest"),
        ("GET", "/files/{name}/meta", "meta"),
        ("GET", "/files/readme", "readme"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "target", "parameters"),
    [
        ("GET", "/", "root", {}),
        ("GET", "/users/me", "me", {}),
        ("GET", "/users/me/", "me", {}),
        ("GET", "/users/7", "user", {"id": "7"}),
        ("GET", "/users/7/", "user", {"id": "7"}),
        ("DELETE", "/users/me", "delete", {"id": "me"}),
        ("GET", "/users/me/posts/3", "post", {"id": "me", "post": "3"}),
        ("GET", "/users/me/drafts", "drafts", {}),
        ("GET", "/users/posts", "user", {"id": "posts"}),
        ("GET", "/ada/posts", "any", {"any": "ada"}),
        ("POST", "/both", "without", {}),
        ("POST", "/both/", "with", {}),
        ("GET", "/users/a%2Fb", "user", {"id": "a/b"}),
        ("GET", "/users/%6De", "me", {}),
        ("GET", "/users/J%C3%BCrgen%20B", "user", {"id": "Jürgen B"}),
        ("GET", "/users/a+b", "user", {"id": "a+b"}),
        ("GET", "/caf%C3%A9/k%C3%B6ln", "cafe", {"city": "köln"}),
        ("GET", "/users/{id}", "user", {"id": "{id}"}),
        ("POST", "/models/gpt-4:generate", "generate", {"model": "gpt-4"}),
        ("POST", "/models/a:b:generate", "generate", {"model": "a:b"}),
        ("POST", "/models/a%2Fb%3Agenerate", "generate", {"model": "a/b"}),
        ("POST", "/models/x:streamGenerate", "stream", {"model": "x"}),
        ("POST", "/models/:generate", "model", {"model": ":generate"}),
        ("POST", "/models/own:generate", "own", {}),
        ("GET", "/range/1..2", "open", {"from": "1", "to": "2"}),
        ("GET", "/range/1..2..3.json", "range", {"from": "1", "to": "2..3"}),
        ("GET", "/range/..", None, {}),
        ("GET", "/files/a", "rest", {"rest": "a"}),
        ("GET", "/files/a/b%2Fc/d/", "rest", {"rest": "a/b/c/d/"}),
        ("GET", "/files/readme", "readme", {}),
        ("GET", "/files/readme/x", "rest", {"rest": "readme/x"}),
        ("GET", "/files/a/meta", "meta", {"name": "a"}),
        ("GET", "/files/a/meta/b", "rest", {"rest": "a/meta/b"}),
        ("GET", "/files/", None, {}),
        ("GET", "/files", None, {}),
    ],
)
def test_route_is_found(method: str, path: str, target: str | None, parameters: dict[str, str]) -> None:
    """Literals beat patterns, those parameters, those the rest of a path; segments are decoded one by one."""
    assert ROUTES.find(method, path) == (target and (target, parameters))


@pytest.mark.parametrize("path", ["/nope", "/users", "/users//", "//users/me", "/Users/me", "*", ""])
def test_no_route(path: str) -> None:
    """An empty segment is not a value, letters count as they are written."""
    assert ROUTES.find("GET", path) is None


def test_methods_of_a_path() -> None:
    """A path knows its methods; HEAD comes with GET, OPTIONS with any."""
    assert ROUTES.methods("/users/me") == ["DELETE", "GET", "HEAD", "OPTIONS"]
    assert ROUTES.methods("/both") == ["OPTIONS", "POST"]
    assert ROUTES.methods("/nope") == []


def test_path_that_is_no_utf8() -> None:
    """Such a path is the caller's fault."""
    with pytest.raises(RunError, match="UTF-8"):
        ROUTES.find("GET", "/users/%ff")


@pytest.mark.parametrize(
    ("segment", "first", "others"),
    [
        ("a1b", "/a{x}", ["/{x}b", "/{x}"]),
        ("ab1b", "/ab{x}", ["/a{x}b", "/{x}1b", "/{x:path}"]),
        ("a-b", "/a{x}", ["/{x}-{y}", "/{x}b"]),
        ("x.y.z", "/{x}.{y}.z", ["/x.{y}", "/{x}.z"]),
    ],
)
def test_segments_with_literal_parts_have_an_order(segment: str, first: str, others: list[str]) -> None:
    """In whatever order the definitions are read, the same one of the routes that match is found."""
    for paths in permutations([first, *others]):
        found = Routes([("GET", path, path) for path in paths]).find("GET", f"/{segment}")
        assert found is not None
        assert found[0] == first

"""Paths of endpoints: what collides, and what to write in place of what other frameworks write."""

from __future__ import annotations

import pytest

from streamstack.language.paths import parse_path, refuse_path, shape


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/files/*", "write {rest:path} for the rest of the path"),
        ("/files/**", "write {rest:path} for the rest of the path"),
        ("/files/{*name}", "write {name:path} for the rest of the path"),
        ("/files/{name...}", "write {name:path} for the rest of the path"),
        ("/files/{name:.*}", "write {name:path} for the rest of the path"),
        ("/files/<path:name>", "write {name:path} for the rest of the path"),
        ("/files/:name*", "write {name:path} for the rest of the path"),
        ("/o/{id:int}", "write {id}, and declare its type and `pattern` under `inputParameters`"),
        ("/o/{id:[0-9]+}", "write {id}, and declare its type and `pattern` under `inputParameters`"),
        ("/o/<int:id>", "write {id}, and declare its type and `pattern` under `inputParameters`"),
        ("/o/:id", "write {id}"),
        ("/o/:id?", "write {id}, and a second endpoint for the path without it"),
        ("/f/*.pdf", "write a parameter, as in {name}.pdf, or %2A for the character"),
        ("/o/{rest:path}/x", "make it the last segment, alone between slashes"),
        ("/o/{a}{b}", "write a character between them, as in {a}-{b}"),
        ("/o/{a}-{a}", "give one of the two another name"),
        ("/%5Fmine", "choose another first segment"),
        ("/a/%2e%2E/b", "remove it"),
    ],
)
def test_hints(path: str, hint: str) -> None:
    """What other frameworks write gets the advice what to write here."""
    assert getattr(refuse_path(path), "hint", "") == hint


@pytest.mark.parametrize(
    ("path", "instead"),
    [
        ("/x/:id.json", "/x/{id}.json"),
        ("/x/:a-:b", "/x/{a}-{b}"),
        ("/x/:user-id", "/x/{user-id}"),
        ("/v/${id}", "/v/{id}"),
        ("/v/#{id}/w", "/v/{id}/w"),
        ("/x/[id]", "/x/{id}"),
        ("/x/[...slug]", "/x/{slug:path}"),
        ("/x/<id>", "/x/{id}"),
        ("/{{id}}", "/{id}"),
        ("/{ id }", "/{id}"),
        ("/<< input.id >>/x", "/{id}/x"),
        ("/files/{p*}", "/files/{p:path}"),
        ("https://example.org/a/:b", "/a/{b}"),
        ("http://example.org", "/"),
        ("z/{p}/", "/z/{p}"),
        ("//a//:b", "/a/{b}"),
        ("/files/*.pdf", ""),
        ("/x/a*", ""),
        ("/a/%FF", ""),
        ("/x/:id?", ""),
        ("/o/{id:int}", ""),
        ("/[id]/[id]", ""),
    ],
)
def test_what_is_surely_meant(path: str, instead: str) -> None:
    """A path that can't mean what it says is refused, and its replacement and the path in its hint are sound."""
    fault = refuse_path(path)
    assert fault is not None
    assert fault.instead == instead
    assert not instead or refuse_path(instead) is None
    written = fault.hint.removeprefix("write ")
    assert not written.startswith("/") or refuse_path(written) is None


@pytest.mark.parametrize(
    "path",
    [
        "/m/{model}:generate",
        "/m/{a}-{b}.{c}",
        "/f/{rest:path}",
        "/{any:path}",
        "/a/:1",
        "/x/a%2A",
        "/v1/models:run",
        "/a/{x}$",
    ],
)
def test_sound(path: str) -> None:
    """Parameters may stand inside a segment, and take the rest of a path."""
    assert refuse_path(path) is None


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("/a/{x}", "/a/{y}", True),
        ("/a/{x}", "/a/{y:path}", False),
        ("/a/{x:path}", "/a/{y:path}", True),
        ("/a/{x}:go", "/a/{y}:go", True),
        ("/a/{x}:go", "/a/{y}:stop", False),
        ("/a/{x}-{y}", "/a/{u}-{v}", True),
        ("/caf%C3%A9", "/caf%c3%a9", True),
        ("/a/%62", "/a/b", True),
    ],
)
def test_collisions(one: str, other: str, collide: bool) -> None:  # noqa: FBT001
    """Paths match the same requests whatever their parameters are called, and however characters are encoded."""
    assert (shape(one) == shape(other)) is collide


def test_matching_is_linear() -> None:
    """A long segment that almost matches costs no more than a look at each character."""
    segment = parse_path("/" + "-".join(f"{{p{n}}}" for n in range(20)) + "x")[0]
    assert segment.match("-" * 100_000) is None
    assert segment.match("-" * 100_000 + "x") is not None

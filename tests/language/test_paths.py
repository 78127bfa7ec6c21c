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
        ("/o/{rest:path}/x", "make it the last segment, alone between slashes"),
        ("/o/{a}{b}", "write a character between them, as in {a}-{b}"),
        ("/o/{a}-{a}", "give one of the two another name"),
        ("/%5Fmine", "choose another first segment"),
        ("/a/%2e%2E/b", "remove it"),
    ],
)
def test_hints(path: str, hint: str) -> None:
    """What other frameworks write gets the advice what to write here."""
    assert (refuse_path(path) or ("", ""))[1] == hint


@pytest.mark.parametrize(
    "path", ["/m/{model}:generate", "/m/{a}-{b}.{c}", "/f/{rest:path}", "/{any:path}", "/a/:1", "/x/a*"]
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

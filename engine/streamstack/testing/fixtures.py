"""Writes recorded answers of upstreams as fixtures of tests."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from streamstack.language import nodes, rewriting
from streamstack.language.bodies import media_of, media_of_pieces
from streamstack.language.cases import Case, Piece
from streamstack.language.masking import masked
from streamstack.language.rewriting import Duration, Rewriter, double_quoted, escaped
from streamstack.language.values import show_duration
from streamstack.testing.recorder import Recording
from streamstack.testing.suite import Session, Suite

#: Types of whole bodies that a file holds as they are, by the suffix of its name.
_SUFFIXES: Final = {"application/json": ".json", "text/plain": ".txt", "text/csv": ".csv", "text/html": ".html"}


def record(suite: Suite, session: Session, environment: Mapping[str, str]) -> Iterator[str]:
    """Run the tests of a suite with real upstreams, write their answers, and yield a line for each.

    ``environment`` is added to that of the tests: it has the keys of upstreams. Raises OSError for a file that can't
    be written.
    """
    added: dict[str, list[tuple[Case, Sequence[Mapping[str, Any]]]]] = {}
    for test in suite.tests:
        case = test.case
        for recording in (recordings := session.record(test, environment).recordings):
            call = recording.call
            called = f"{case.mark}: {call.method} {call.url.with_query(None).with_user(None)}"
            if recording.fault and not recording.status:
                yield f"{called} was not recorded: {recording.fault}"
            else:
                broken = f", which broke off: {recording.fault}" if recording.fault else ""
                yield f"{called} was recorded: status {recording.status}, {len(recording.pieces)} pieces{broken}"
        # Written before the next test, whose secrets are others.
        upstreams = write_fixtures(case, recordings, Path(test.file).parent)
        if upstreams:
            added.setdefault(test.file, []).append((case, upstreams))
    for file, changes in added.items():
        Path(file).write_text(add_upstreams(suite.sources[file], changes), "utf-8", newline="")


def write_fixtures(case: Case, recordings: Sequence[Recording], folder: Path) -> list[dict[str, Any]]:
    """Write the answers of a test into `fixtures`; return the upstreams that give them, as they are written in YAML.

    ``folder`` is that of the test file. Secrets are masked. A call that had no answer gives none.
    """
    found: list[dict[str, Any]] = []
    by_match: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for recording in recordings:
        if not recording.status:
            continue
        call = recording.call
        # The query may hold a key.
        url = masked(str(call.url.with_query(None).with_user(None)))
        respond = _respond(recording, folder, f"{_slug(case.name)}-{call.number}")
        responds = by_match.get((call.method, url))
        if responds is None:
            responds = by_match[call.method, url] = []
            found.append({"match": {"method": call.method, "url": url}, "respond": responds})
        responds.append(respond)
    for upstream in found:
        if len(upstream["respond"]) == 1:
            (upstream["respond"],) = upstream["respond"]
    return found


def _respond(recording: Recording, folder: Path, name: str) -> dict[str, Any]:
    socket = recording.status == 101
    respond: dict[str, Any] = {} if recording.status in (101, 200) else {"status": recording.status}
    headers: dict[str, Any] = {}
    for header, value in recording.headers:
        headers.setdefault(header, []).append(masked(value))
    pieces = _masked(recording.pieces)
    media = next((value for header, value in recording.headers if header.lower() == "content-type"), "")
    suffix = _SUFFIXES.get(media.partition(";")[0].strip().lower())
    if not pieces:
        path = None
    elif recording.whole and suffix and not any(piece.binary for piece in pieces):
        path = folder / "fixtures" / f"{name}{suffix}"
        content = b"".join(piece.data for piece in pieces)
        respond["file"] = f"fixtures/{path.name}"
        implied = media_of(path)
    else:
        path = folder / "fixtures" / f"{name}.json"
        content = _listed(pieces).encode()
        respond["messages" if socket else "chunks"] = f"fixtures/{path.name}"
        implied = media_of_pieces(pieces, json=False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if media == implied:
            headers = {header: value for header, value in headers.items() if header.lower() != "content-type"}
    if headers:
        respond["headers"] = {header: value[0] if len(value) == 1 else value for header, value in headers.items()}
    if recording.first_after:
        respond["firstAfter"] = Duration(recording.first_after)
    if recording.fault and not socket:
        respond["cutAfter"] = {"bytes": sum(len(piece.data) for piece in pieces)}
    return respond


def _listed(pieces: Sequence[Piece]) -> str:
    """Return pieces as the list that `chunks` reads. It is JSON: files of YAML are definitions."""
    lines = []
    for piece in pieces:
        text = None if piece.binary else _decoded(piece.data)
        line = {"after": show_duration(piece.after)} if piece.after else {}
        line |= {"base64": b64encode(piece.data).decode()} if text is None else {"data": escaped(text)}
        lines.append("  {" + ", ".join(f'"{name}": {double_quoted(value)}' for name, value in line.items()) + "}")
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _masked(pieces: Sequence[Piece]) -> list[Piece]:
    """Return pieces without secrets. Where one lies across pieces, what they are is one piece."""
    plain = b"".join(piece.data for piece in pieces)
    text = _decoded(plain)
    if text is None or any(piece.binary for piece in pieces):
        return [piece if _decoded(piece.data) is None else _mask(piece) for piece in pieces]
    hidden = masked(text).encode()
    if hidden == plain:
        return list(pieces)
    # A secret may lie across pieces.
    one_by_one = [piece if _decoded(piece.data) is None else _mask(piece) for piece in pieces]
    if b"".join(piece.data for piece in one_by_one) == hidden:
        return one_by_one
    return [Piece(hidden, sum(piece.after for piece in pieces))]


def _mask(piece: Piece) -> Piece:
    return replace(piece, data=masked(piece.data.decode()).encode())


def _slug(name: str) -> str:
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-")[:60] or "test"


def add_upstreams(text: str, added: Sequence[tuple[Case, Sequence[Mapping[str, Any]]]]) -> str:
    """Return the text of a test file with further upstreams in its tests."""
    rewriter = Rewriter(text, lambda expected, actual: type(expected) is type(actual) and expected == actual, _TREES)
    for case, upstreams in added:
        if not upstreams or not isinstance(case.node, nodes.Mapping):
            continue
        key, node = case.node.key("upstreams"), case.node.get("upstreams")
        if key is None or node is None:
            rewriter.insert(case.node, {"upstreams": list(upstreams)})
        elif isinstance(node, nodes.Sequence) and node.items:
            present = list(range(len(node.items)))
            rewriter.rewrite(key, node, present, [*present, *upstreams], flow=rewriter.is_flow(case.node))
        else:
            rewriter.write(key, node, list(upstreams), flow=rewriter.is_flow(case.node))
    return rewriting.apply(text, rewriter.replacements)


_TREES: Final = ("upstreams",)

"""Streams that are cut off at any byte, and what clients get that ask for no format of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients.speaking import speaking
from tests.clients.test_npm import missing, run

FEW = """
method: GET
path: /few
streaming: {resume: true%s}
functionStack:
  - stream: "one\\ntwo"
  - stream: {content: {n: 2}, event: message}
  - stream: three
  - done: {content: bye}  # as long in each run
"""
CHUNKS = ["one\ntwo", '{"n":2}', "three"]


def test_a_stream_cut_off_at_every_byte(tmp_path: Path) -> None:
    """Each client gets every chunk once and the end, wherever the connection broke."""
    if missing():
        pytest.skip(missing())
    (tmp_path / "few.yaml").write_text(FEW % ", format: sse", "utf-8")
    with speaking(tmp_path) as address:
        told = run("cuts.mjs", address)
    body = told["body"]["value"]
    for name in ("fetch-event-source", "eventsource", "eventsource-client"):
        seen = told[name]["value"]
        assert len(seen) == len(body) + 1
        # fetch-event-source takes an id at the end of its line, before the blank line that ends the event. No order of
        # fields helps where a connection is cut just between the two.
        between = {match.end() for match in re.finditer(r"(?m)^id: .*\n(?=\n)", body)}
        left_out = between if name == "fetch-event-source" else set()
        wrong = {cut: chunks for cut, chunks in enumerate(seen) if chunks != [*CHUNKS, "done"] and cut not in left_out}
        assert wrong == {}, name


def test_who_states_no_preference_gets_events(tmp_path: Path) -> None:
    """Axios and Xano's SDK get the stream; who asks for JSON gets the document."""
    if missing():
        pytest.skip(missing())
    (tmp_path / "few.yaml").write_text(FEW % "", "utf-8")
    with speaking(tmp_path) as address:
        told = run("asking.mjs", address)
    assert told["axios"]["value"]["type"] == "text/event-stream; charset=utf-8"
    for name in ("axios", "xano"):
        assert told[name]["value"]["body"].startswith("data: one\ndata: two\nid: ")
    assert told["axios, JSON"]["value"]["chunks"][2] == "three"

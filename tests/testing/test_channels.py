"""Channels in `streamstack test`: what the test publishes, what is published, and several subscribers at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.running import run_one

PROJECT = """
method: GET
path: /room
responseType: streaming
inputParameters: {name: text}
functionStack:
  - channel.subscribe: {channel: room, presence: << input.name >>}
    as: messages
  - forEach:
      in: << messages >>
      as: message
      do: [{stream: {event: << message.event >>, content: << message.content >>}}]
---
method: POST
path: /room
responseType: json
functionStack:
  - channel.publish: {channel: room, event: said, content: {text: hello}, key: [a, 1]}
    as: first
  - channel.publish: {channel: other, content: 7}
    as: second
  - return: << [first, second] >>
"""
SAY = "request: {method: POST, path: /room}\n"


TIMED = (
    "request: {path: /room?name=ada}\nclient: {leaveAfter: 3}\n"
    "publish: [{channel: room, content: a, after: 30m}, {channel: room, content: b, after: 1m}, "
    "{channel: room, event: e, content: c}]\n"
    "expect: {published: [], chunks: [{content: a, at: 30m}, {content: b, at: 31m}, {content: c, event: e}]}"
)
SEVERAL = (
    "requests:\n- request: {path: /room?name=ada}\n  client: {background: true, leaveAfter: 3}\n"
    "  expect: {events: [join, said, leave], chunks: [bob, {text: hello}, bob]}\n"
    "- request: {path: /room?name=bob}\n  client: {background: true, leaveAfter: 1}\n"
    "  expect: {chunks: [{text: hello}]}\n- request: {method: POST, path: /room}"
)


@pytest.mark.parametrize(
    ("test", "failure"),
    [
        (SAY + "expect: {published: [{channel: room, event: said}, {channel: other, content: 7, event: null}]}", ""),
        (SAY + "expect: {published: [{key: [a, 1]}, {content: << value > 6 >>}]}", ""),
        (SAY + "expect: {published: [{channel: room}]}", "`published`: expected 1 message, published 2"),
        (SAY + "expect: {published: [{content: 1}, {}]}", "`published`: `content`: expected 1"),
        (TIMED, ""),
        (SEVERAL, ""),
        (
            'request: {path: /room?name=ada}\nclient: {leaveAfter: 0}\npublish: {channel: "a\\0", content: a}',
            "the test's own `publish` failed",
        ),
        ("request: {path: /room?name=ada}", "maxDuration"),
    ],
)
def test_channels_in_tests(tmp_path: Path, test: str, failure: str) -> None:
    """A subscriber that nothing reaches is ended by `maxDuration`, as any stream."""
    found = run_one(tmp_path, PROJECT, test)
    assert failure in found
    assert failure or not found, found

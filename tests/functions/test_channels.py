"""The Channels family where its examples do not reach: several subscriptions, ends of runs, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.functions.channels import open_channels
from streamstack.language.channels import ChannelSettings
from streamstack.language.project import validate
from streamstack.language.settings import Streaming
from streamstack.runtime.run import Context, Run
from tests.collector import Collector
from tests.stacks import plan_of

MERGED = """
- channel.subscribe: a
  as: first
- channel.subscribe: {channel: a, where: << message.content > 1 >>}
  as: second
- channel.subscribe: {channel: b, since: start}
  as: third
- streams.merge: [<< first >>, << second >>, << third >>]
  as: all
- streams.take: {in: << all >>, count: 4}
  as: four
- channel.publish: {channel: a, content: 1}
  as: x
- channel.publish: {channel: a, content: 2}
  as: y
- collect: << four >>
  as: items
- return: << items | map(attribute='content') | sort >>
"""
UNREAD = """
- channel.subscribe: {channel: a, presence: ada}
  as: messages
- channel.presence: a
  as: present
- return: << present.count >>
"""
QUIET = """
- channel.publish: {channel: quiet, content: << input.content >>}
  as: id
- return: << id is string >>
"""
LEFT = """
- channel.publish: {channel: a, content: 1}
  as: x
- channel.subscribe: {channel: a, since: start, presence: ada}
  as: messages
- forEach:
    in: << messages >>
    as: message
    do: [{return: << message.content >>}]
"""


async def ran(context: Context, stack: str, inputs: Mapping[str, Any] | None = None) -> Any:
    """Run a stack; return what it returns, after the work of its end."""
    run = Run(Collector(), context)
    try:
        return await plan_of(stack).start(run, dict(inputs or {}))
    finally:
        await run.finish("completed")


async def test_several_subscriptions_in_one_run() -> None:
    """Each has its own way through the channel, and can be merged with others."""
    context = Context()
    await ran(context, "- channel.publish: {channel: b, content: 0}\n  as: x\n- return: 1")
    assert await ran(context, MERGED) == [0, 1, 2, 2]
    await context.aclose()


@pytest.mark.parametrize(("stack", "result"), [(UNREAD, 1), (LEFT, 1)])
async def test_a_subscription_ends_with_its_run(stack: str, result: Any) -> None:
    """Also one that was never read, or whose loop was left: neither a member nor a slot remains."""
    context = Context(channels={"a": ChannelSettings(max_subscribers=1)})
    for _ in range(3):
        assert await ran(context, stack) == result
    assert await context.resource(open_channels).members("a") == []
    await context.aclose()


@pytest.mark.parametrize("content", [None, "", 0, {"a": [1]}, b"x"])
async def test_publishing_needs_no_subscriber(content: Any) -> None:
    """Any data can be published."""
    context = Context()
    assert await ran(context, QUIET, {"content": content})
    await context.aclose()


@pytest.mark.parametrize("since", [True, {"last": -1}, {"last": 1, "more": 2}, {"first": 1}, [1]])
async def test_values_that_since_can_not_have(since: Any) -> None:
    """The message says what to write."""
    context = Context()
    stack = "- channel.subscribe: {channel: a, since: << input.since >>}\n  as: messages\n- return: 1"
    with pytest.raises(RunError, match="write last, start, a duration"):
        await ran(context, stack, {"since": since})
    await context.aclose()


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("last", []),
        ("start", []),
        ("10m", []),
        ("{last: 3}", []),
        ("5-1", ["wrong-type"]),
        ("first", ["wrong-type"]),
        ("{first: 3}", ["wrong-type"]),
    ],
)
def test_constants_of_since_are_checked(since: str, found: list[str]) -> None:
    """A constant id is a mistake: it would be the same for every client."""
    text = (
        "method: GET\npath: /a\nresponseType: streaming\nfunctionStack:\n"
        f"  - channel.subscribe: {{channel: a, since: {since}}}\n    as: messages\n"
        "  - forEach: {in: << messages >>, as: message, do: [{stream: << message.content >>}]}\n"
    )
    assert [each.code for each in validate({"a.yaml": text}, REGISTRY, Streaming(), None)[1]] == found

"""`kind: function`: what it sees, what it gives, what it may do."""

from __future__ import annotations

from tests.stacks import run_stack

DOUBLE = """
kind: function
name: double
inputParameters: {n: {type: integer, required: true, minimum: 0}, shout: {type: boolean, default: false}}
functionStack:
  - stream: << n is defined >>
    when: << input.shout >>
  - return: << input.n * 2 >>
"""


async def test_a_call_gives_what_the_function_returns() -> None:
    """Inputs are checked and filled with their defaults; the caller's variables are not seen."""
    outcome = await run_stack(
        """
        - set: {n: 4}
        - call: {function: double, with: {n: << n >>, shout: true}}
          as: twice
        - return: << twice >>
        """,
        also=DOUBLE,
    )
    assert outcome.error is None
    assert outcome.result == 8
    assert outcome.contents == [False]


async def test_inputs_that_do_not_fit_are_named() -> None:
    """A call with a bad input fails at the call; the fault is the definition's, not the client's."""
    outcome = await run_stack("- call: {function: double, with: {n: << 0 - 1 >>}}", also=DOUBLE)
    assert outcome.error is not None
    assert outcome.error.code == "template"
    assert outcome.error.status == 500
    assert "n must be" in outcome.error.message
    assert outcome.error.place is not None
    assert outcome.error.place.step == "call"


async def test_recursion_has_a_floor() -> None:
    """A function that calls itself for ever ends with limit-reached."""
    outcome = await run_stack(
        "- call: again",
        also="""
        kind: function
        name: again
        functionStack: [{call: again}]
        """,
    )
    assert outcome.error is not None
    assert outcome.error.code == "limit-reached"


async def test_a_stream_can_be_handed_over_and_back() -> None:
    """`with` and `return` carry streams."""
    outcome = await run_stack(
        """
        - streams.take: {in: [1, 2, 3], count: 2}
          as: few
        - call: {function: tens, with: {numbers: << few >>}}
          as: more
        - forEach: {in: << more >>, do: [{stream: << item >>}]}
        """,
        also="""
        kind: function
        name: tens
        inputParameters: {numbers: {type: stream, required: true}}
        functionStack:
          - streams.map: {in: << input.numbers >>, as: n, value: << n * 10 >>}
            as: mapped
          - return: << mapped >>
        """,
    )
    assert outcome.error is None, outcome.error
    assert outcome.contents == [10, 20]


async def test_a_bound_name_calls_only_what_is_allowed() -> None:
    """`oneOf` lists what a bound name may mean."""
    stack = "- call: {function: << input.which >>, oneOf: [double], with: {n: 2}}\n  as: r\n- return: << r >>"
    allowed = await run_stack(stack, {"which": "double"}, also=DOUBLE)
    refused = await run_stack(stack, {"which": "other"}, also=DOUBLE)
    assert allowed.result == 4
    assert refused.error is not None
    assert "double" in refused.error.message


async def test_inputs_come_whole_from_one_binding() -> None:
    """As a tool call's arguments do; null is none, and anything but an object is refused."""
    stack = "- call: {function: double, with: << input.given >>}\n  as: r\n- return: << r >>"
    assert (await run_stack(stack, {"given": {"n": 4}}, also=DOUBLE)).result == 8
    for given, told in (
        (None, "n is required"),
        ({"n": 4, "m": 1}, "m"),
        ("n", "`with` must be an object"),
        ([4], "`with` must be an object"),
    ):
        outcome = await run_stack(stack, {"given": given}, also=DOUBLE)
        assert outcome.error is not None
        assert outcome.error.code == "invalid-input"
        assert told in outcome.error.message, given

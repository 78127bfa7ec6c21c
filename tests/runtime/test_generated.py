"""The Python that stands for a stack: its names collide with no others, it compiles however steps are nested."""

from __future__ import annotations

import pytest

from streamstack.runtime.run import Context, Run
from tests.collector import Collector
from tests.stacks import Outcome, plan_of, run_stack


def failed(outcome: Outcome) -> str:
    """Return what went wrong."""
    assert outcome.error is not None
    return outcome.error.message


async def test_no_variable_meets_a_generated_name() -> None:
    """Whatever numbers an author gives his variables, the names made for loops are others."""
    names = [f"{stem}_{number}" for stem in ("item", "error", "x", "iterate") for number in range(40)]
    outcome = await run_stack(
        f"""
        - set: {{x: 0, {", ".join(f"{name}: 1" for name in names)}}}
        - forEach: {{in: [a], do: [{{log: << item >>}}]}}
        - try: {{do: [{{throw: x}}], catch: {{do: [{{log: << error.code >>}}]}}}}
        - parallel: {{branches: {{a: [{{set: {{x: branch}}}}]}}}}
        - return: << [x, {", ".join(names)}] | unique >>
        """
    )
    assert outcome.error is None
    assert outcome.result == [0, 1]


async def test_python_s_own_words_are_variables() -> None:
    """So are the names that the generated source uses itself."""
    words = "run sink emit drain clock index functions def class lambda async self MISSING Signal v_x"
    outcome = await run_stack(
        f"""
        - set: {{{", ".join(f"x_{word}: 0, {word}: 1" for word in words.split() if word != "run")}}}
        - forEach: {{in: [2], as: sink, do: [{{stream: << sink >>}}]}}
        - return: << [emit, drain, clock, index, functions, def, class, lambda, async, self, v_x] | sum >>
        """
    )
    assert outcome.contents == [2]
    assert outcome.result == 11


@pytest.mark.parametrize("text", ['"', "'", "\\", "\\'", '"]', "'''", "}", "\n", "\r", "\0", "\u2028", "{0}", "🙂"])
async def test_no_text_of_the_author_is_python(text: str) -> None:
    """Keys, cases, events and names stand in the source as what they are."""
    written = "".join(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else char for char in text)
    outcome = await run_stack(
        f"""
        - set: {{a: {{"{written}": << 1 >>, "text": "<< 2 >>{written}!"}}}}
          name: "{written}"
        - switch:
            value: "{written}"
            cases:
              "x{written}": []
              "{written}":
                - stream: {{content: << a >>, event: "{written}", id: "<< 1 >>{written}!"}}
        """
    )
    (chunk,) = outcome.sink.chunks
    assert chunk.content == {text: 1, "text": f"2{text}!"}
    assert (chunk.event, chunk.id) == (text, f"1{text}!")


async def test_an_empty_set_may_have_modifiers() -> None:
    """A block of Python is never empty."""
    outcome = await run_stack(
        """
        - set: {}
          when: << 1 == 1 >>
        - set: {}
          timeout: 1s
        - set: {}
          retry: {times: 1}
        - if: {condition: true, then: []}
        - try: {do: [], catch: {do: []}, finally: []}
        - forEach: {in: [1], do: [{set: {}}]}
        - parallel: {branches: {a: []}}
        - return: 1
        """
    )
    assert outcome.result == 1


@pytest.mark.parametrize("levels", range(1, 11))
async def test_handlers_nest_deeper_than_python_blocks(levels: int) -> None:
    """Python counts three blocks for a handler that has a `finally` beside it."""
    stack = "- return: inside"
    for _ in range(levels):
        inner = "\n".join("        " + line for line in stack.split("\n"))
        stack = f"- try:\n    do: [{{throw: x}}]\n    catch:\n      do:\n{inner}\n    finally: [{{set: {{a: 1}}}}]"
    assert (await run_stack(stack)).result == "inside"


async def test_the_item_of_a_map_may_be_set() -> None:
    """It is the body's own variable, like the item of a loop."""
    outcome = await run_stack(
        """
        - streams.map:
            in: [1, 2]
            do:
              - set: {item: << item + 1 >>, seen: << item >>}
              - return: << item >>
          as: more
        - collect: << more >>
          as: all
        - return: << [all, seen] >>
        """
    )
    assert outcome.result == [[2, 3], 3]


async def test_an_error_per_item_knows_the_item() -> None:
    """The message is about what failed, not about a name that only the item's function knows."""
    outcome = await run_stack(
        """
        - streams.map: {in: [{a: 1}], as: n, value: << n.b >>}
          as: made
        - collect: << made >>
          as: all
        """
    )
    assert "`n` has no item `b`" in failed(outcome)


@pytest.mark.parametrize("modifier", ["concurrency: 2", "concurrency: 1"])
async def test_an_error_in_a_part_knows_the_loop(modifier: str) -> None:
    """`loop` is passed on where a step has a Python function of its own too."""
    outcome = await run_stack(
        f"""
        - forEach:
            in: [1]
            {modifier}
            do:
              - stream: << input.few[loop.index] >>
                retry: {{times: 1}}
        """,
        {"few": [1]},
    )
    assert "no item `1`" in failed(outcome)


async def test_an_error_is_not_its_own_cause() -> None:
    """Who walks up the causes of an error comes to an end."""
    outcome = await run_stack("- throw: x")
    assert outcome.error is not None
    assert outcome.error.__cause__ is None


async def test_the_request_is_one_throughout_a_run() -> None:
    """It is made once, when it is first read: an id that is new for each request stays the same."""
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"id": len(made)}

    run = Run(Collector(), Context(), request=make)
    assert await plan_of("- return: << [request.id, request.id] >>").start(run, {}) == [1, 1]

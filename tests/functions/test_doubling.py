"""Values that double themselves in a loop end as an error of the definition, not of the process."""

from __future__ import annotations

import pytest

from tests.stacks import run_stack


@pytest.mark.parametrize(
    "steps",
    [
        "- set: {x: [1]}\n- repeat: {times: 64, do: [{set: {x: '<< [x, x] >>'}}]}",
        "- set: {x: [1]}\n- repeat: {times: 64, do: [{set: {x: [<< x >>, << x >>]}}]}",
        "- set: {x: {a: 1}}\n- repeat: {times: 64, do: [{set: {x: {a: << x >>, b: << x >>}}}]}",
        "- set: {x: [1]}\n- repeat: {times: 64, do: [{append: {to: x, value: << x >>}}]}",
        "- set: {x: ab}\n- repeat: {times: 64, do: [{set: {x: '<< x >><< x >>'}}]}",
        "- set: {x: [1], y: [1]}\n- repeat: {times: 64, do: [{set: {y: << x >>}}, {set: {x: '<< [x, y] >>'}}]}",
    ],
)
async def test_doubling_is_refused(steps: str) -> None:
    """The step that makes the value too large says so; the process goes on."""
    outcome = await run_stack(f"{steps}\n- return: << x >>")
    assert outcome.error is not None
    assert outcome.error.code == "template"
    assert "would have more than" in outcome.error.message


async def test_loops_of_appends_stay_linear() -> None:
    """Objects in a list are looked at when it has doubled."""
    one = "{append: {to: x, value: '<< {\"n\": [n]} >>'}}"
    steps = f"- set: {{x: []}}\n- forEach: {{in: << range(30000) >>, as: n, do: [{one}]}}"
    outcome = await run_stack(f"{steps}\n- return: << x | length >>")
    assert outcome.result == 30_000

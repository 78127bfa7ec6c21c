"""Probes of compiled definitions: they count what runs, and change nothing else."""

from __future__ import annotations

import re
from difflib import ndiff

from streamstack.runtime.probes import Probes
from tests.stacks import HEAD, plan_of, run_stack

STACK = """
- set: {n: << input.n >>}
- stream: small
  when: << n < 3 >>
- collect: [1]
  when: << n > 9 >>
  as: collected
- if:
    condition: << n == 1 >>
    then: [{stream: one}]
    elseIf: [{condition: << n == 2 >>, then: []}]
- if: {condition: << n == 1 >>, then: [], else: [{stream: other}]}
- switch: {value: << n >>, cases: {1: [{stream: a}], b: []}}
- switch: {value: << n >>, cases: {1: []}, default: [{stream: b}]}
- try:
    do: [{throw: lost, when: << n == 3 >>}, {stream: fine}]
    catch: {do: [{stream: caught}]}
- forEach: {in: << range(n) >>, as: i, do: [{call: {function: half, with: {n: << i >>}}}]}
- parallel: {branches: {a: [{stream: p}], b: [{return: 1}]}}
- streams.map: {in: [1, 2], do: [{return: << item >>}]}
  as: mapped
- collect: << mapped >>
  as: all
- stream: never
  disabled: true
"""
HALF = "kind: function\nname: half\ninputParameters: {n: integer}\nfunctionStack: [{return: << input.n / 2 >>}]\n"


async def hits(*numbers: int) -> dict[str, int]:
    """Return how often the steps and branches of the stack ran, by line and name."""
    probes = Probes()
    for number in numbers:
        outcome = await run_stack(STACK, {"n": number}, also=HALF, probes=probes)
        assert outcome.error is None
    taken = probes.take()
    assert probes.take() == {}
    # Of the endpoint: the function's steps have the same paths.
    return {
        f"{point.path.removeprefix('functionStack')} {point.branch}".strip(): taken.get(at, 0)
        for at, point in enumerate(probes.points)
        if point.mark.line <= len((HEAD + STACK).splitlines())
    }


async def test_what_runs_is_counted() -> None:
    """Steps count when they are begun, branches when they are taken: also those without steps, and none of them."""
    found = await hits(1, 2, 3)
    assert found["[0]"] == 3
    assert (found["[1]"], found["[1] when is true"], found["[1] when is false"]) == (2, 2, 1)
    assert (found["[2]"], found["[2] when is true"], found["[2] when is false"]) == (0, 0, 3)
    assert [found[f"[3] {name}"] for name in ("then", "else if 1", "no branch")] == [1, 1, 1]
    assert (found["[4] then"], found["[4] else"]) == (1, 2)
    assert [found[f"[5] {name}"] for name in ("1", "b", "no branch")] == [1, 0, 2]
    assert (found["[6] 1"], found["[6] default"]) == (1, 2)
    assert (found["[7]"], found["[7] catch"], found["[7].try.do[0]"], found["[7].try.do[1]"]) == (3, 1, 1, 2)
    assert (found["[8].forEach.do[0]"], found["[9].parallel.branches.b[0]"]) == (6, 3)
    assert found["[10].streams.map.do[0]"] == 6
    assert not any(name.startswith("[12]") for name in found)  # it is disabled


def test_a_plan_without_probes_has_none() -> None:
    """The plan that is served has no probe; with probes, all else is the same, but for an `else` that has one."""
    plain, probed = (
        [
            re.sub(r"_\d+", "", line)
            for line in plan_of(STACK, also=HALF, probes=probes).source.splitlines()
            if line.strip() != "pass"
        ]
        for probes in (None, Probes())
    )
    changes = [line for line in ndiff(plain, probed) if line[0] in "-+"]
    assert {line[2:].strip().partition("[")[0] for line in changes if line[0] == "+"} == {"c", "else:"}
    assert [line for line in changes if line[0] == "-"] == []

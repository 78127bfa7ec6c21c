"""`streamstack test --mutate`: changes of the definitions that no test notices are shown with their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from streamstack.cli import main
from streamstack.runtime.probes import Probes
from tests.stacks import plan_of, run_stack
from tests.testing.running import write

API = """\
method: GET
path: /count
inputParameters: {n: {type: integer, default: 2}}
functionStack:
  - precondition: {that: << input.n > 0 >>, code: too-few}
  - forEach:
      in: << range(input.n) >>
      as: i
      do:
        - stream: << i + 1 >>
          when: << i != 5 >>
        - name: Pause
          wait: 10ms
  - stream: {content: end, event: last}
  - log: ended
  - if: {condition: << input.n == 9 >>, then: [{stream: nine}]}
  - wait: 1ms
    disabled: true
"""
TESTS = """\
tests:
- {name: counts, request: {path: /count}, expect: {chunks: [1, 2, {content: end, event: last}]}}
- {name: one, request: {path: "/count?n=1"}, expect: {text: 1end}}
- {name: refused, request: {path: "/count?n=0"}, expect: {error: too-few}}
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_survivors_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: str) -> None:
    """A mutant that a test notices is counted; one that none does is shown; one that none reaches is shown apart."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, API, TESTS)
    result = CliRunner().invoke(main, ["test", "--mutate", "--jobs", jobs], catch_exceptions=False)
    *survived, summary, passed = result.stdout.splitlines()
    assert survived == [
        "api.yaml:11:17: survived: 5 became 6: 2 tests do not notice it",
        "api.yaml:13:11: survived: `Pause` was dropped: 2 tests do not notice it",
        'api.yaml:13:17: survived: "10ms" was changed: 2 tests do not notice it',
        "api.yaml:16:5: survived: `if` was dropped: 2 tests do not notice it",
        "api.yaml:16:21: survived: 9 became 10: 2 tests do not notice it",
        "api.yaml:16:49: not reached: `stream` was dropped: no test reaches it",
        'api.yaml:16:57: not reached: "nine" was changed: no test reaches it',
    ]
    assert summary == "12 of 17 mutants were noticed (70 %); no test reaches 2 more"
    assert (passed.startswith("3 tests passed"), result.exit_code) == (True, 0)


STACK = """
- set: {n: << input.n + 1 >>, o: {a: 1, b: [<< input.n >>, true]}, t: "<< input.n >> items"}
- stream: << n >>
  when: << n > 1 >>
- streams.filter: {in: [1, 2, 3], where: << item < 2 >>}
  as: few
- forEach: {in: << few >>, do: [{stream: << item >>}]}
- stream: << [o.a, o.b, t] >>
- stream: << "é" ~ n | default("none") >>
"""


async def chunks(probes: Probes, number: int) -> list[object]:
    """Return what the stack emits with a mutant, or the code of its error."""
    probes.active[0] = number
    outcome = await run_stack(STACK, {"n": 1}, probes=probes)
    return [outcome.error.code] if outcome.error else outcome.contents


async def test_each_mutant_is_one_change() -> None:
    """Without a chosen mutant nothing is different; each one is different from the rest of the plan in one place."""
    probes = Probes(mutates=True)
    plan = plan_of(STACK, probes=probes)
    assert "mutant" not in plan.source
    usual = await chunks(probes, -1)
    assert usual == (await run_stack(STACK, {"n": 1})).contents == [2, 1, [1, [1, True], "1 items"], "é2"]
    rest: list[object] = [1, [1, True], "1 items"]
    assert [(mutant.change, await chunks(probes, number)) for number, mutant in enumerate(probes.mutants)] == [
        ("`set` was dropped", ["template"]),
        ("1 became 2", [3, 1, rest, "é3"]),
        ("1 became 2", [2, 1, [2, [1, True], "1 items"], "é2"]),
        ("true became false", [2, 1, [1, [1, False], "1 items"], "é2"]),
        ('" items" was changed', [2, 1, [1, [1, True], "1 itemsx"], "é2"]),
        ("`stream` was dropped", [1, rest, "é2"]),
        ("1 became 2", [1, rest, "é2"]),
        ("`when` was negated", [1, rest, "é2"]),
        ("`streams.filter` was dropped", ["template"]),
        ("[1,2,3] became []", [2, rest, "é2"]),
        ("2 became 3", [2, 1, 2, rest, "é2"]),
        ("`where` was negated", [2, 2, 3, rest, "é2"]),
        ("`forEach` was dropped", [2, rest, "é2"]),
        ("`stream` was dropped", [2, rest, "é2"]),
        ("`stream` was dropped", [2, 1, "é2"]),
        ("`stream` was dropped", [2, 1, rest]),
        ('"é" was changed', [2, 1, rest, "éx2"]),
        ('"none" was changed', usual),  # the default is not used: an equivalent mutant
    ]

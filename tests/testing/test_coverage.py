"""Coverage of steps and branches: the text, and Cobertura's XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from streamstack.runtime.probes import Probes
from streamstack.testing.coverage import Coverage
from tests.stacks import run_stack

STACK = """\
- set: {n: << input.n >>}
- name: Say it
  stream: << n >>
  when: << n > 3 >>
- if: {condition: << n == 1 >>, then: [{stream: a}, {stream: b}], elseIf: [{condition: << n == 2 >>, then: [{log: b}]}]}
- log: end
"""


async def coverage_of(*numbers: int) -> Coverage:
    """Return the coverage of runs of the stack, which begins at line 6."""
    probes = Probes()
    taken = []
    for number in numbers:
        await run_stack(STACK, {"n": number}, probes=probes)
        taken.append(probes.take())
    if not numbers:
        await run_stack(STACK, {"n": 1}, probes=probes)
    coverage = Coverage([probes])
    for each in taken:
        coverage.add(probes, each)
    return coverage


async def test_what_was_missed_is_listed_with_its_place() -> None:
    """A step that never ran is listed without its branches; one that ran, with those that it never took."""
    assert (await coverage_of(1)).lines() == [
        "file                                                 steps  branches  covered",
        "test.yaml                                              5/7       2/5     58 %",
        "  test.yaml:8:5: Say it",
        "  test.yaml:10:5: if: else if 1",
        "  test.yaml:10:5: if: no branch",
        "  test.yaml:10:112: log",
        "all                                                    5/7       2/5     58 %",
    ]
    assert (await coverage_of(1, 2, 3, 4)).lines()[1:] == [
        "test.yaml                                              7/7       5/5    100 %",
        "all                                                    7/7       5/5    100 %",
    ]


async def test_cobertura(tmp_path: Path) -> None:
    """Each step is a line; of several on one line the least counts, and their branches are counted together."""
    file = tmp_path / "coverage.xml"
    (await coverage_of(1, 5)).write_cobertura(file, 1.5)
    root = ET.parse(file).getroot()  # noqa: S314  (it was written here)
    assert root.attrib["timestamp"] == "1500"
    counts = [root.attrib[name] for name in ("lines-covered", "lines-valid", "branches-covered", "branches-valid")]
    assert counts == ["6", "7", "4", "5"]
    (each,) = root.iterfind("packages/package/classes/class")
    assert (each.attrib["filename"], each.attrib["line-rate"]) == ("test.yaml", "0.8571")
    assert [line.attrib for line in each.iterfind("lines/line")] == [
        {"number": "6", "hits": "2", "branch": "false"},
        {"number": "8", "hits": "1", "branch": "true", "condition-coverage": "100% (2/2)"},
        {"number": "10", "hits": "0", "branch": "true", "condition-coverage": "66% (2/3)"},
        {"number": "11", "hits": "2", "branch": "false"},
    ]


async def test_nothing_was_run() -> None:
    """Without a test all is missed; without a step nothing is."""
    assert (await coverage_of()).steps.part == 0
    assert Coverage([Probes()]).lines()[-1].endswith("100 %")

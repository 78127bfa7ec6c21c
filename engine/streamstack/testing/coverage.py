"""Which steps and branches of the definitions the tests have run, as text and as Cobertura's XML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from streamstack import __version__
from streamstack.runtime.probes import RUN, Point, Probes

#: Points of a file that are listed in the text; more are counted.
_MOST: Final = 20


@dataclass(frozen=True, slots=True)
class Counted:
    """How many of some points were reached."""

    reached: int
    all: int

    @property
    def part(self) -> float:
        """The part that was reached, from 0 to 1; 1 where there was nothing to reach."""
        return self.reached / self.all if self.all else 1.0

    def __str__(self) -> str:
        return f"{self.reached}/{self.all}"


class Coverage:
    """The points of the projects under test, and how often each was reached."""

    def __init__(self, probes: Iterable[Probes]) -> None:
        self._points: dict[Point, int] = {point: 0 for each in probes for point in each.points}

    def add(self, probes: Probes, hits: Mapping[int, int]) -> None:
        """Add what `Probes.take` returned, in this process or in another one."""
        for number, count in hits.items():
            self._points[probes.points[number]] += count

    def of_reached_files(self) -> Coverage:
        """Return the coverage of the files of which anything was reached."""
        reached = {point.mark.file for point, count in self._points.items() if count}
        found = Coverage([])
        found._points = {point: count for point, count in self._points.items() if point.mark.file in reached}
        return found

    @property
    def steps(self) -> Counted:
        """The steps."""
        return _counted(self._points, branches=False)

    @property
    def branches(self) -> Counted:
        """The branches: those of `if`, `switch` and `try`, and a `when` that is true or false."""
        return _counted(self._points, branches=True)

    @property
    def files(self) -> Iterator[tuple[str, dict[Point, int]]]:
        """The points by file."""
        ordered = sorted(self._points, key=lambda point: (point.mark, point.path, point.branch))
        for file, points in groupby(ordered, key=lambda point: point.mark.file):
            yield file, {point: self._points[point] for point in points}

    def lines(self) -> list[str]:
        """Return the report as text: a line for each file, those below it that were missed, and the sum."""
        lines = [_row("file", "steps", "branches", "covered")]
        for file, points in self.files:
            steps, branches = _counted(points, branches=False), _counted(points, branches=True)
            lines.append(_row(file, str(steps), str(branches), _percent(steps, branches)))
            missed = list(_missed(points))
            lines += [f"  {each}" for each in missed[:_MOST]]
            if len(missed) > _MOST:
                lines.append(f"  and {len(missed) - _MOST} more")
        lines.append(_row("all", str(self.steps), str(self.branches), _percent(self.steps, self.branches)))
        return lines

    def write_cobertura(self, file: Path, timestamp: float) -> None:
        """Write the XML of Cobertura (coverage-04.dtd), in which each step is a line. Raises OSError.

        ``timestamp`` is the time of the run in seconds since 1970.
        """
        root = ET.Element("coverage", {**_rates(self._points), "version": __version__})
        root.set("timestamp", str(round(timestamp * 1000)))
        ET.SubElement(ET.SubElement(root, "sources"), "source").text = "."
        package = ET.SubElement(
            ET.SubElement(root, "packages"), "package", {"name": "definitions", **_rates(self._points, counts=False)}
        )
        classes = ET.SubElement(package, "classes")
        for name, points in self.files:
            attributes = {"name": name, "filename": name, **_rates(points, counts=False)}
            each = ET.SubElement(classes, "class", attributes)
            ET.SubElement(each, "methods")
            lines = ET.SubElement(each, "lines")
            for number, those in groupby(points, key=lambda point: point.mark.line):
                ET.SubElement(lines, "line", _line(number, {point: points[point] for point in those}))
        ET.indent(root)
        ET.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _counted(points: Mapping[Point, int], *, branches: bool) -> Counted:
    chosen = [count for point, count in points.items() if bool(point.branch) is branches]
    return Counted(sum(count > 0 for count in chosen), len(chosen))


def _missed(points: Mapping[Point, int]) -> Iterator[str]:
    """Yield the steps that were never run, and the branches never taken of those that were."""
    run = {(point.mark, point.path) for point, count in points.items() if count}
    for point, count in points.items():
        if count or point.branch == RUN or (point.branch and (point.mark, point.path) not in run):
            continue  # of a step that is listed, a `when` that is never true says nothing more
        yield f"{point.mark}: {point.title}" + (f": {point.branch}" if point.branch else "")


def _row(file: str, steps: str, branches: str, covered: str) -> str:
    return f"{file:<48} {steps:>9} {branches:>9} {covered:>8}"


def _percent(*counted: Counted) -> str:
    reached, points = sum(each.reached for each in counted), sum(each.all for each in counted)
    # Nothing but all of it is shown as 100 %.
    return f"{int(100 * reached / points) if points else 100} %"


def _rates(points: Mapping[Point, int], *, counts: bool = True) -> dict[str, str]:
    steps, branches = _counted(points, branches=False), _counted(points, branches=True)
    rates = {"line-rate": f"{steps.part:.4f}", "branch-rate": f"{branches.part:.4f}", "complexity": "0"}
    if not counts:
        return rates
    return rates | {
        "lines-covered": str(steps.reached),
        "lines-valid": str(steps.all),
        "branches-covered": str(branches.reached),
        "branches-valid": str(branches.all),
    }


def _line(number: int, points: Mapping[Point, int]) -> dict[str, str]:
    """Return the attributes of a line: of several steps on it, the one that ran least often counts."""
    steps: Sequence[int] = [count for point, count in points.items() if not point.branch]
    branches = _counted(points, branches=True)
    attributes = {"number": str(number), "hits": str(min(steps, default=0)), "branch": "false"}
    if branches.all:
        condition = f"{int(100 * branches.part)}% ({branches})"
        attributes |= {"branch": "true", "condition-coverage": condition}
    return attributes

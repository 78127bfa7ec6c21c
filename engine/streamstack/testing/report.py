"""Show the results of tests: failures with their differences, progress, a summary, and JUnit's XML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from streamstack.testing.expectations import Failure
from streamstack.testing.suite import Result

_STYLES: Final = {"-": "red", "+": "green"}
#: Characters that XML 1.0 has no way to write (section 2.2).
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Followed(Protocol):
    """What the progress shows: results of tests, and of mutants."""

    @property
    def file(self) -> str: ...

    @property
    def passed(self) -> bool: ...


F = TypeVar("F", bound=Followed)


class Report:
    """Writes on a console: with colours only on a terminal."""

    def __init__(self, console: Console, progress: Console) -> None:
        self._console = console
        self._progress = progress

    @contextmanager
    def follow(self, results: Iterable[F], count: int, title: str = "tests") -> Iterator[Iterator[F]]:
        """Show the progress of tests on a terminal while their results are read."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
        )
        shown = self._progress.is_terminal
        # Without a thread that draws it: processes are forked meanwhile.
        bar = Progress(*columns, console=self._progress, transient=True, disable=not shown, auto_refresh=False)
        with bar as progress:
            task = progress.add_task(title, total=count, now="")

            def followed() -> Iterator[F]:
                for result in results:
                    failed = "" if result.passed else "[red]failed[/] "
                    progress.update(task, advance=1, now=failed + escape(result.file), refresh=True)
                    yield result

            yield followed()

    def failures(self, results: Sequence[Result]) -> None:
        """Show the tests that failed, in the order of their files."""
        for result in results:
            if result.passed:
                continue
            self._line(Text.assemble((f"{result.mark}: ", "bold"), ("FAILED", "bold red"), f" {result.name}"))
            for failure in result.failures:
                for line in failure_lines(failure):
                    self._line(Text(line, style=_STYLES.get(line.strip()[:1], "")))
            for mark in result.uncalled:
                self._line(Text(f"  {mark}: this upstream was never called"))
            self._line(Text())

    def notes(self, results: Sequence[Result]) -> None:
        """Show the upstreams that passing tests never called."""
        for mark in sorted({mark for result in results if result.passed for mark in result.uncalled}):
            self._line(Text(f"{mark}: note: this upstream was never called", style="yellow"))

    def summary(self, results: Sequence[Result], seconds: float) -> None:
        """Show how many tests passed."""
        self._line(Text(summary(results, seconds), style="bold green" if all(_passed(results)) else "bold red"))

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)


def _passed(results: Iterable[Result]) -> Iterator[bool]:
    return (each.passed for each in results)


def failure_lines(failure: Failure) -> list[str]:
    """Return a failure as lines: its place and message, the difference, and where the definition failed."""
    lines = [f"  {failure.mark}: {failure.message}", *(f"    {line}" for line in failure.diff)]
    if failure.definition:
        lines.append(f"    at {failure.definition}")
    return lines


def summary(results: Sequence[Result], seconds: float) -> str:
    """Return one line about all tests."""
    failed = sum(not each.passed for each in results)
    passed = len(results) - failed
    text = f"{passed} {'test' if passed == 1 else 'tests'} passed"
    if faults := sum(each.faults for each in results):
        text += f", with {faults} {'fault' if faults == 1 else 'faults'}"
    return f"{text}, {failed} failed in {seconds:.1f} s" if failed else f"{text} in {seconds:.1f} s"


def write_junit(results: Sequence[Result], file: Path) -> None:
    """Write results as JUnit's XML. Raises OSError."""
    root = ET.Element("testsuites", name="streamstack")
    by_file: dict[str, list[Result]] = {}
    for result in results:
        by_file.setdefault(result.file, []).append(result)
    for name, those in by_file.items():
        failed = sum(not each.passed for each in those)
        total = sum(each.seconds for each in those)
        counts = {"tests": str(len(those)), "failures": str(failed), "errors": "0", "time": f"{total:.3f}"}
        suite = ET.SubElement(root, "testsuite", {"name": name, **counts})
        for each in those:
            attributes = {"classname": name, "name": _xml(each.name), "file": name, "line": str(each.mark.line)}
            case = ET.SubElement(suite, "testcase", {**attributes, "time": f"{each.seconds:.3f}"})
            if each.failures:
                lines = [line for failure in each.failures for line in failure_lines(failure)]
                fault = ET.SubElement(case, "failure", message=_xml(each.failures[0].message))
                fault.text = _xml("\n".join(lines))
    ET.indent(root)
    ET.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)

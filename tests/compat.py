"""Run the tests with the lowest and the newest versions that pyproject.toml allows: `make compat`.

On every Python of this machine that the project supports: those on PATH, and those of pyenv where it is installed. Each
pair has an environment of its own below .compat/, and its log beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final
from xml.etree import ElementTree as ET

from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT: Final = Path(__file__).parent.parent
ENVIRONMENTS: Final = ROOT / ".compat"
#: How uv resolves the dependencies of the project for each kind of versions.
RESOLUTIONS: Final = {"lowest": "lowest-direct", "newest": "highest"}
#: What `--short` runs: each dependency is used by one of these.
SHORT: Final = (
    "tests/language",
    "tests/test_house.py",
    "tests/connections",
    "tests/functions/test_http.py",
    "tests/functions/test_db.py",
    "tests/runtime/test_stacks.py",
    "tests/server/test_authentication.py",
    "tests/server/test_stream.py",
    "tests/server/test_connection.py",
    "tests/server/test_reload.py",
)

_ABOUT: Final = "import json, sys; print(json.dumps([sys.version.split()[0], sys.base_prefix]))"


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter of this machine."""

    version: Version
    path: str


@dataclass(frozen=True, slots=True)
class Result:
    """How the tests ended with one Python and one kind of versions."""

    python: Version
    versions: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    failure: str = ""  # why there is no result, or what failed

    @property
    def sound(self) -> bool:
        return not self.failed and not self.failure and self.passed > 0


def find_pythons(supported: SpecifierSet) -> list[Python]:
    """Return the interpreters that the project supports, one for each version."""
    found: dict[Version, Python] = {}
    for path in _candidates():
        try:
            answered = subprocess.run([path, "-c", _ABOUT], capture_output=True, text=True, timeout=30, check=True)
            text, prefix = json.loads(answered.stdout)
            version = Version(text)
        except (OSError, subprocess.SubprocessError, ValueError):
            continue  # a shim of a version that is not installed, or a pre-release
        inside = Path(prefix).resolve() == Path(sys.prefix).resolve()  # this environment
        if supported.contains(version, prereleases=True) and not inside:
            found.setdefault(version, Python(version, path))
    return [found[version] for version in sorted(found)]


def _candidates() -> Iterator[str]:
    if (pyenv := shutil.which("pyenv")) is not None:
        asked = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False)
        root = Path(asked.stdout.strip() or os.devnull)
        yield from (str(each) for each in sorted(root.glob("versions/*/bin/python3")))
    for folder in os.get_exec_path():
        for minor in range(11, 31):
            path = Path(folder) / f"python3.{minor}"
            if os.access(path, os.X_OK):
                yield str(path)


def install(python: Python, versions: str) -> Path:
    """Make the environment for one Python and one kind of versions; return its folder.

    Raises CalledProcessError where a package can't be had.
    """
    folder = ENVIRONMENTS / f"{python.version}-{versions}"
    ENVIRONMENTS.mkdir(exist_ok=True)
    executable = str(folder / "bin" / "python")
    pinned = folder.with_suffix(f"{folder.suffix}.txt")
    compiled = _uv(
        "pip", "compile", "pyproject.toml", "--python", python.path, "--no-header", "--no-annotate",
        "--resolution", RESOLUTIONS[versions],
    )  # fmt: skip
    tools = [
        line
        for line in (ROOT / "requirements" / "dev.in").read_text("utf-8").splitlines()
        if line and not line.startswith(("#", "-"))
    ]
    wanted = "\n".join((compiled, *tools))
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    pinned.write_text(compiled, "utf-8")
    _uv("venv", "--python", python.path, str(folder))
    _uv("pip", "install", "--python", executable, "--requirement", str(pinned), "--constraint",
        str(pinned), *tools)  # fmt: skip
    _uv("pip", "install", "--python", executable, "--no-deps", "--editable", ".")
    stamp.write_text(wanted, "utf-8")
    return folder


def _uv(*arguments: str) -> str:
    command = [sys.executable, "-m", "uv", "--quiet", "--no-progress", "--no-python-downloads"]
    command += arguments
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def run(python: Python, versions: str, jobs: int, chosen: list[str]) -> Result:
    """Run the tests with one Python and one kind of versions."""
    began = monotonic()
    try:
        folder = install(python, versions)
    except subprocess.CalledProcessError as error:
        why = " ".join((error.stderr or "").split())[:300]
        return Result(python.version, versions, 0, 0, 0, monotonic() - began, why)
    report, log = folder.with_name(f"{folder.name}.xml"), folder.with_name(f"{folder.name}.log")
    report.unlink(missing_ok=True)
    with log.open("w", encoding="utf-8") as written:
        subprocess.run(
            [folder / "bin" / "python", "-m", "pytest", "-q", "-n", str(jobs), "-p",
             "no:cacheprovider", f"--junitxml={report}", *chosen],
            cwd=ROOT, stdout=written, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    took = monotonic() - began
    if not report.exists():
        return Result(python.version, versions, 0, 0, 0, took, f"no result: see {log.name}")
    suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314  (pytest has just written it)
    assert suite is not None
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    names = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = count["tests"] - failed - count["skipped"]
    failure = "" if not names else f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
    return Result(python.version, versions, passed, failed, count["skipped"], took, failure)


def main() -> int:
    """Run the tests of each pair; print a table, return 1 where something fails."""
    parser = argparse.ArgumentParser(description=__doc__, prog='make compat ARGS="..."')
    parser.add_argument("--python", action="append", help="only versions that begin so: 3.12")
    parser.add_argument("--versions", choices=tuple(RESOLUTIONS), help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="processes for each run")
    parser.add_argument("--short", action="store_true", help="the tests that use dependencies most")
    options, chosen = parser.parse_known_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pythons = find_pythons(SpecifierSet(project["requires-python"]))
    if options.python:
        pythons = [
            each
            for each in pythons
            if any(re.match(rf"{re.escape(want)}(?!\d)", str(each.version)) for want in options.python)
        ]
    if not pythons:
        print("no Python that the project supports was found", file=sys.stderr)
        return 1
    chosen += SHORT if options.short else ()
    print(f"{'python':<10}{'versions':<10}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    results = []
    for python in pythons:
        for versions in [options.versions] if options.versions else RESOLUTIONS:
            result = run(python, versions, options.jobs, chosen)
            results.append(result)
            print(
                f"{result.python!s:<10}{result.versions:<10}{result.passed:>8}{result.failed:>8}"
                f"{result.skipped:>9}{result.seconds:>9.0f}  {result.failure}",
                flush=True,
            )
    return 0 if all(result.sound for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

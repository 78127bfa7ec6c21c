"""`streamstack init`: projects that validate, serve and stream at once."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from streamstack.cli import main
from streamstack.cli.init import TEMPLATES, project_files
from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from streamstack.server.app import serving_locally
from tests.documents import read_page

ROOT = Path(__file__).parent.parent.parent
FILES = {
    ".env",
    ".env.example",
    ".gitignore",
    ".github/workflows/streamstack.yml",
    ".vscode/extensions.json",
    ".vscode/settings.json",
    "README.md",
    "schemas/settings.schema.json",
    "schemas/streamstack.schema.json",
    "schemas/test.schema.json",
    "streamstack.yaml",
}
#: A request of each template, a part of its answer, and how many chunks it has at least.
REQUESTS: dict[str, tuple[str, str, Any, bytes, int]] = {
    "chat": ("POST", "/api/chat", {"message": "Hello"}, b"Hello", 40),
    "data": ("GET", "/api/products", None, b'"name":"Chair"', 3),
    "dashboard": ("GET", "/api/dashboard?count=5", None, b'"service":"shop"', 5),
    "webhook": ("GET", "/api/orders", None, b"event: done", 1),
}


def run(*arguments: str | Path) -> Result:
    """Run the command line."""
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.parametrize("template", TEMPLATES)
def test_project_is_complete_and_valid(template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files, the commands to run, and no finding, though no variable is set."""
    for name in ("WEBHOOK_SECRET", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "my project"
    result = run("init", folder, "--template", template)
    assert (result.exit_code, result.stderr) == (0, "")
    written = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
    assert set(project_files(template)) == written
    assert written >= FILES
    assert {each.suffixes[0] for each in (folder / "definitions").iterdir()} == {".yaml", ".test"}
    assert len((folder / "README.md").read_text().splitlines()) <= 9
    assert f"{len(written)} files written to {folder}" in result.stdout
    assert f"  cd '{folder}'\n  streamstack serve\n  curl -N localhost:8080/" in result.stdout
    assert result.stdout.endswith("  streamstack test\n")
    monkeypatch.chdir(folder)
    result = run("validate", "--strict", "--env")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    assert "change-me" not in (folder / ".env").read_text()


@pytest.mark.parametrize("template", TEMPLATES)
def test_project_streams(template: str, tmp_path: Path, postgres: str) -> None:
    """Served as it is written; the chunks arrive apart."""
    run("init", tmp_path, "--template", template)
    method, path, body, part, count = REQUESTS[template]
    checked = read_project(tmp_path / "definitions", REGISTRY, {"DATABASE_URL": postgres, "MEASURE_EVERY": "50ms"})
    assert checked.findings == []
    times, chunks = [], []
    with (
        serving_locally(checked, checked.environment) as address,
        httpx.stream(method, address + path, json=body, trust_env=False) as reply,
    ):
        assert reply.status_code == 200
        for data in reply.iter_raw():
            times.append(perf_counter())
            chunks.append(data)
    assert part in b"".join(chunks)
    assert b"event: done" in chunks[-1]
    assert b"".join(chunks).count(b"data: ") > count - 1
    if template in ("chat", "dashboard"):
        assert max(later - earlier for earlier, later in pairwise(times)) < (times[-1] - times[0]) / 2


def test_existing_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exists is named, not changed; the rest is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".env").symlink_to("elsewhere")
    (tmp_path / "other.txt").write_text("mine too")
    result = run("init")
    assert result.exit_code == 0
    assert result.stderr == ".env: exists, not changed\nREADME.md: exists, not changed\n"
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert "  cd " not in result.stdout
    count = len(project_files("chat"))
    assert f"{count - 2} files written to ." in result.stdout
    again = run("init")
    assert (again.exit_code, again.stderr.count("exists, not changed")) == (0, count)
    assert "0 files written" in again.stdout


@pytest.mark.parametrize("place", ["", "definitions", ".github"])
def test_file_in_the_place_of_a_folder(place: str, tmp_path: Path) -> None:
    """It is reported before anything is written."""
    folder = tmp_path / "project"
    if place:
        folder.mkdir()
    (folder / place).write_text("x")
    result = run("init", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"streamstack: {folder / place}: is a file, and has to be a folder\n"
    assert not place or [each.name for each in folder.iterdir()] == [place]


def test_folder_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of the system, and the place."""

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = run("init", tmp_path / "a")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"streamstack: {tmp_path / 'a'}")
    assert result.stderr.endswith(": Permission denied\n")


def test_unknown_template_lists_all() -> None:
    """The choices are in the message."""
    result = run("init", "--template", "cat")
    assert result.exit_code == 2
    assert "'cat' is not one of 'chat', 'data', 'dashboard', 'webhook'" in result.stderr


@pytest.mark.parametrize("name", ["definitions/chat.yaml", ".vscode/settings.json"])
def test_tutorial_shows_the_file_that_is_written(name: str) -> None:
    """The first page of the tutorial begins with the chat project."""
    page = read_page(ROOT / "docs" / "tutorial" / "getting-started.md")
    (block,) = [block for block in page.blocks if block.title == name]
    assert block.text + "\n" == project_files("chat")[name].decode()


def test_wheel_has_the_templates(tmp_path: Path) -> None:
    """Dot files and tests too: an installed streamstack writes the same projects."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    templates = ROOT / "engine" / "streamstack" / "templates"
    wanted = {
        f"streamstack/templates/{each.relative_to(templates).as_posix()}"
        for each in templates.rglob("*")
        if each.is_file() and ".streamstack" not in each.parts
    }
    assert len(wanted) > 20
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("template", TEMPLATES)
def test_project_passes_its_tests(template: str, tmp_path: Path, postgres: str) -> None:
    """Those that `init` writes."""
    run("init", tmp_path, "--template", template)
    result = run("test", tmp_path / "definitions", "--database", postgres)
    assert result.exit_code == 0, result.output
    assert re.search(r"^[2-9] tests passed in", result.output, re.MULTILINE)


def test_tutorial_changes_and_tests_the_project(tmp_path: Path) -> None:
    """A change of the endpoint fails two tests; with what the page says to expect, they pass again."""
    run("init", tmp_path)
    definitions = tmp_path / "definitions"
    replace(definitions / "chat.yaml", "<< item.text >>", "<< item.text | upper >>")
    result = run("test", definitions)
    assert (result.exit_code, "2 tests passed, 2 failed" in result.stdout + result.stderr) == (1, True)
    page = (ROOT / "docs" / "tutorial" / "getting-started.md").read_text("utf-8")
    for old, new in (
        ('"Hello" in value', '"HELLO" in value'),
        ('chunks: [Good, {content: " morning!", at: 100ms}]', 'chunks: [GOOD, {content: " MORNING!", at: 100ms}]'),
    ):
        assert new in page
        replace(definitions / "chat.test.yaml", old, new)
    assert run("test", definitions).exit_code == 0


def replace(path: Path, old: str, new: str) -> None:
    """Replace a part of a file, which is in it once."""
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")

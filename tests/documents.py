"""Pages of documentation, taken apart: their blocks, their links, the project that each page writes.

A block of YAML is a whole file without findings, unless marked otherwise:

- `title="definitions/x.yaml"` in its info string: a file of the page's project, beside this repository's definitions;
- `<!-- stack -->`, `<!-- inputs -->`, `<!-- endpoint -->` in the line above: a part of an endpoint;
  `<!-- test -->`: a test without its name; `<!-- settings -->`: a part of streamstack.yaml. Comments, since the
  site's Markdown takes no more than a title;
- `<!-- wrong -->` (alone or after one of these words): wrong on purpose.

In a `console` block each `$ ` begins a command, run in the page's project; what follows is its output.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
_FENCE: Final = re.compile(r"^( *)(`{3,})(.*)$")
_MARK: Final = re.compile(r"^ *<!-- ((?:stack|inputs|endpoint|settings|test|wrong| )+) -->$")
_TITLE: Final = re.compile(r'title="([^"]+)"')
_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. ``line`` is that of its first line of text, from 0."""

    language: str
    info: str
    text: str
    line: int

    @property
    def words(self) -> frozenset[str]:
        return frozenset(_TITLE.sub("", self.info).split())

    @property
    def title(self) -> str:
        match = _TITLE.search(self.info)
        return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, and the lines that the page shows for it, as a range of the page's lines."""

    text: str
    output: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page."""

    path: Path
    lines: list[str] = field(repr=False)
    blocks: list[Block] = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def prose(self) -> str:
        """The text outside of blocks."""
        kept, inside = [], ""
        for line in self.lines:
            fence = _FENCE.match(line)
            if fence and (not inside or (fence[2] == inside and not fence[3].strip())):
                inside = "" if inside else fence[2]
            elif not inside:
                kept.append(line)
        return "\n".join(kept)

    def commands(self) -> Iterator[Command]:
        """Give the commands of the console blocks."""
        for block in self.blocks:
            if block.language != "console":
                continue
            lines = block.text.split("\n")
            starts = [index for index, line in enumerate(lines) if line.startswith("$ ")]
            for start, following in zip(starts, [*starts[1:], len(lines)], strict=True):
                first = start
                while lines[first].endswith("\\"):
                    first += 1
                text = "\n".join(lines[start : first + 1]).removeprefix("$ ")
                output = "\n".join(lines[first + 1 : following])
                yield Command(text, output, block.line + first + 1, block.line + following)

    def links(self) -> list[str]:
        """Return where its links lead, those to other sites left out."""
        return [link for link in _LINK.findall(self.prose) if "://" not in link]

    def anchors(self) -> frozenset[str]:
        """Return the anchors of its headings, as GitHub makes them."""
        found: set[str] = set()
        for line in self.prose.split("\n"):
            if not re.match(r"#{1,6} ", line):
                continue
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.lstrip("#").strip()).lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            number, name = 0, slug
            while name in found:
                number += 1
                name = f"{slug}-{number}"
            found.add(name)
        return frozenset(found)


def read_page(path: Path) -> Page:
    """Take a page apart."""
    lines = path.read_text("utf-8").split("\n")
    blocks: list[Block] = []
    begin, fence, info = 0, "", ""
    for number, line in enumerate(lines):
        match = _FENCE.match(line)
        if match is None:
            continue
        if not fence:
            begin, fence, info = number + 1, match[2], match[3].strip()
            mark = _MARK.match(lines[number - 1]) if number else None
            if mark is not None:
                info += f" {mark[1]}"
        elif match[2] == fence and not match[3].strip():
            language, _, rest = info.partition(" ")
            blocks.append(Block(language, rest, "\n".join(lines[begin:number]), begin))
            fence = ""
    assert not fence, f"{path}:{begin}: a block is not closed"
    return Page(path, lines, blocks)


def is_generated(path: Path) -> bool:
    """Return whether `make docs` writes this page from declarations."""
    return path.read_text("utf-8").startswith("<!-- Written by `make docs`")


def pages() -> list[Page]:
    """Return every page that people wrote: README, docs/ and examples, without the pages that `make docs` generates."""
    paths = [
        ROOT / "README.md",
        *(path for path in sorted((ROOT / "docs").rglob("*.md")) if not is_generated(path)),
        *sorted((ROOT / "examples").glob("*/README.md")),
    ]
    return [read_page(path) for path in paths]


def write_project(page: Page, folder: Path) -> None:
    """Write the files that a page shows to a folder, beside the definitions it is about.

    Those are the definitions next to the page, or else this repository's.
    """
    beside = page.path.parent / "definitions"
    own = beside.is_dir() and page.path.parent != ROOT
    shutil.copytree(beside if own else ROOT / "definitions", folder / "definitions")
    settings, plugins = page.path.parent / "streamstack.yaml", page.path.parent / "plugins"
    if own and settings.exists():
        shutil.copy(settings, folder)
    if own and plugins.exists():
        shutil.copytree(plugins, folder / "plugins")
    for block in page.blocks:
        if block.title:
            target = folder / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            text = block.text + "\n"
            if target.name == "streamstack.yaml" and target.exists():
                text += _missing_sections(text, target.read_text("utf-8"))
            target.write_text(text, "utf-8")


def _missing_sections(shown: str, own: str) -> str:
    """Return the sections of this repository's settings that a page's do not have: its definitions need them."""
    has, wanted = yaml.safe_load(shown), yaml.safe_load(own)
    missing = {name: section for name, section in wanted.items() if name not in has}
    return yaml.safe_dump(missing) if missing else ""


def is_streamstack(command: str) -> bool:
    """Tell whether a command is one of ours, which needs no process of its own."""
    return shlex.split(command)[0] == "streamstack" and not re.search(r"[|;&<>]", command)

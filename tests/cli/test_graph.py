"""`streamstack graph` and `streamstack show` as they are typed: what they print, how they end."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from streamstack.cli import main
from streamstack.functions import REGISTRY

TWO = """\
method: GET
path: /a
functionStack:
  - forEach:
      in: [1, 2]
      do:
        - stream: << item >>
          name: 'Send "it" <b>&</b> | x'
---
kind: function
name: helper
functionStack: [{return: 1}]
"""
EVIL = """\
method: GET
path: /evil
functionStack:
  - set: {a: '"]; click x "javascript:1"'}
    name: "</text><script>x</script> \\u2028 ` \\u0007"
    description: x
  - stream: << a >>
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(TWO, "utf-8")
    return tmp_path


def parsed(picture: str) -> ET.Element:
    """Parse a picture that this process drew."""
    return ET.fromstring(picture)  # noqa: S314


def run(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_mermaid() -> None:
    """A flowchart with a subgraph for each definition of the file."""
    result = run("graph", "two.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[:3] == ["flowchart TD", 'subgraph g0["GET /a"]', 'g0_start(["start"])']
    assert 'g0_1[["1 forEach<br/>#91;1,2#93;"]]' in lines
    assert (
        'g0_2["2 stream: Send #34;it#34; #60;b#62;#38;#60;/b#62; #124; x<br/>#60;#60; item #62;#62;"]:::emits' in lines
    )
    assert 'g0_1 -->|"each turn"| g0_2' in lines
    assert 'g0_2 -->|"next turn"| g0_1' in lines
    assert 'subgraph g1["function helper"]' in lines
    assert 'g1_1 -->|"return"| g1_end' in lines


@pytest.mark.parametrize("wanted", ["GET /a", "/a"])
def test_one_definition(wanted: str) -> None:
    """It is named by its title, its path, or its name."""
    assert "helper" not in run("graph", "two.yaml", "--endpoint", wanted).stdout
    assert "/a" not in run("graph", "two.yaml", "--endpoint", "helper").stdout
    assert "/a" not in run("show", "two.yaml", "--python", "--endpoint", "function helper").stdout


def test_svg_is_one_picture() -> None:
    """Well-formed, with every step's function, name and value, and no box outside of it or over another."""
    result = run("graph", "two.yaml", "--format", "svg")
    assert (result.exit_code, result.stderr) == (0, "")
    tree = parsed(result.stdout)
    space = "{http://www.w3.org/2000/svg}"
    texts = ["".join(each.itertext()) for each in tree.iter(f"{space}text")]
    assert {"GET /a", "1 forEach", "[1,2]", "<< item >>", "do", "function helper"} <= set(texts)
    assert 'Send "it" <b>&</b> | x' in " ".join(texts)
    titles = [each.text for each in tree.iter(f"{space}title")]
    assert titles[1] == "two.yaml:7:11: functionStack[0].forEach.do[0]"
    width, height = float(tree.attrib["width"]), float(tree.attrib["height"])
    boxes = [
        [float(each.attrib[name]) for name in ("x", "y", "width", "height")]
        for each in tree.iter(f"{space}rect")
        if each.attrib.get("class", "").startswith("box")
    ]
    assert len(boxes) == 7
    for x, y, wide, high in boxes:
        assert x >= 0
        assert y >= 0
        assert x + wide <= width
        assert y + high <= height


@pytest.mark.parametrize("name", [name for name in REGISTRY if REGISTRY[name].examples])
def test_no_boxes_overlap(project: Path, name: str) -> None:
    """In the picture of every example, the boxes of steps stand beside or below one another."""
    for example in REGISTRY[name].examples:
        stack = "\n".join(f"  {line}" for line in example.stack.splitlines())
        head = "kind: function\nname: example\ninputParameters: {n: json, status: json}\n"
        (project / "one.yaml").write_text(f"{head}functionStack:\n{stack}\n", "utf-8")
        result = run("graph", "one.yaml", "--format", "svg")
        if result.exit_code == 1:
            continue  # it needs settings that this project has not
        tree = parsed(result.stdout)
        boxes = [
            [float(each.attrib[key]) for key in ("x", "y", "width", "height")]
            for each in tree.iter("{http://www.w3.org/2000/svg}rect")
            if each.attrib.get("class", "").startswith("box")
        ]
        for index, (x, y, wide, high) in enumerate(boxes):
            for left, top, width, height in boxes[index + 1 :]:
                apart = x + wide <= left or left + width <= x or y + high <= top or top + height <= y
                assert apart, example.title


def test_texts_of_the_author_are_escaped(project: Path) -> None:
    """Neither a picture nor a listing lets a text of the definition be more than text."""
    (project / "evil.yaml").write_text(EVIL, "utf-8")
    picture = run("graph", "evil.yaml", "--format", "svg").stdout
    tree = parsed(picture)
    assert {each.tag.rpartition("}")[2] for each in tree.iter()} <= {
        *("svg", "style", "defs", "marker", "path", "rect", "text", "g", "title")
    }
    chart = run("graph", "evil.yaml").stdout
    assert "script>" not in chart
    assert "click" not in [line.split()[0] for line in chart.splitlines()]
    listing = run("show", "evil.yaml", "--python").stdout
    kinds = {type(each) for each in ast.parse(listing).body}
    assert kinds <= {ast.AsyncFunctionDef, ast.FunctionDef}


def test_show_python() -> None:
    """The function that runs, with the place of each step before its lines."""
    result = run("show", "two.yaml", "--python")
    assert (result.exit_code, result.stderr) == (0, "")
    text = result.stdout
    first = text.partition("# function helper")[0]
    assert first.startswith("# GET /a\n")
    names = [node.name for node in ast.parse(first).body if isinstance(node, ast.AsyncFunctionDef)]
    assert names == ["stack"]
    lines = [line.strip() for line in first.splitlines()]
    place = lines.index('# two.yaml:7:11 Send "it" <b>&</b> | x (functionStack[0].forEach.do[0])')
    assert lines[place + 1] == "if emit("
    assert re.search(r"# iterate_\d+: streamstack\.runtime\.values\.iterate", first)


@pytest.mark.parametrize("arguments", [("graph",), ("show", "--python")])
def test_exit_codes(project: Path, arguments: tuple[str, ...]) -> None:
    """1 where the file has errors, 2 where there is nothing to print; each says why."""
    (project / "wrong.yaml").write_text("method: GET\npath: /w\nfunctionStack: [{steam: 1}]\n")
    (project / "empty.yaml").write_text("")
    result = run(*arguments, "wrong.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean `stream`?" in result.stderr
    for name, words in (("none.yaml", "no such file"), ("empty.yaml", "no definition")):
        result = run(*arguments, name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr
    result = run(*arguments, "two.yaml", "--endpoint", "helpr")
    assert result.exit_code == 2
    assert "did you mean `helper`?" in result.stderr
    assert "GET /a" in result.stderr


def test_show_needs_to_know_what() -> None:
    """`--python` is the only thing there is to show so far, and has to be asked for."""
    result = run("show", "two.yaml")
    assert result.exit_code == 2
    assert "--python" in result.stderr

"""`streamstack fix`: what it writes, what it leaves alone, how it ends."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamstack.cli import main
from streamstack.cli.validate import correct
from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.nodes import plain
from streamstack.language.project import validate
from streamstack.language.settings import Streaming
from streamstack.language.source import read

BEFORE = """\
metod: get   # the verb
path: /x
responseType: steaming
inputs:
  user-name: {type: string, min: 2, default: Ada}
  tags: {type: array, itmes: {type: str}, default: []}   # words
steps:
  # one after the other
- forEach: {list: << input.tags >>, item: t, then: [{strem: << t | upcase >>}]}
- sleep: 5ms

- http.request: {uri: 'https://x.example/', methd: POST}
  into: reply
- log: << reply.status === 200 && !input.tags ? 'a' : 'b' >>
- emit: << {"a": input.user-name} >>
- stream: << input.tags.length >>
- stream: Hi: << $input.tags.join(',').toUpperCase() >> << now() | date("YYYY-MM-DD") >>
- stream: {content: Hello, world}
- stream: >-
    << undefined >> and << uuid4() >>
"""
AFTER = """\
method: GET   # the verb
path: /x
responseType: streaming
inputParameters:
  user-name: {type: text, minLength: 2, default: Ada}
  tags: {type: list, items: {type: text}, default: []}   # words
functionStack:
  # one after the other
- forEach: {in: << input.tags >>, as: t, do: [{stream: << t | upper >>}]}
- wait: 5ms

- http.request: {url: 'https://x.example/', method: POST}
  as: reply
- log: "<< 'a' if reply.status == 200 and not input.tags else 'b' >>"
- stream: '<< {"a": input["user-name"]} >>'
- stream: << input.tags | length >>
- stream: 'Hi: << input.tags | join('','') | upper() >> << now() | date("%Y-%m-%d") >>'
- stream: {content: 'Hello, world'}
- stream: >-
    << null >> and << uuid() >>
"""


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["fix", *arguments], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_is_certain_is_written(folder: Path, line_end: str, mark: str) -> None:
    """Comments, layout, line ends and the byte order mark stay; a second run changes nothing."""
    file = folder / "a.yaml"
    file.write_bytes((mark + BEFORE.replace("\n", line_end)).encode())
    result = run()
    assert file.read_bytes().decode() == mark + AFTER.replace("\n", line_end)
    assert (result.exit_code, result.stdout) == (0, "a.yaml: corrected\n")
    assert result.stderr.startswith("1 of 1 file changed\n")
    assert run().stderr.startswith("0 of 1 file changed\n")


def test_diff_writes_nothing(folder: Path) -> None:
    """It shows the changes, and ends with 1 where there are some."""
    file = folder / "a.yaml"
    file.write_text(BEFORE, "utf-8")
    result = run("--diff")
    assert file.read_text("utf-8") == BEFORE
    assert result.exit_code == 1
    assert "-metod: get   # the verb\n+method: GET   # the verb\n" in result.stdout
    file.write_text(AFTER, "utf-8")
    assert (run("--diff").exit_code, run("--diff").stdout) == (0, "")


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ("- stream: << a >>", 1),
        ("- Create Variable: {name: x, value: 1}\n- stream: 1", 1),
        ("- stream: {<< a >>: 1}", 1),
        ("- stream: Room #5 is free", 0),
    ],
)
def test_what_is_not_certain_stays(folder: Path, steps: str, left: int) -> None:
    """Two words may be meant, or more has to change than the word: the author decides."""
    text = f"method: GET\npath: /x\nfunctionStack:\n{steps}\n"
    (folder / "a.yaml").write_text(text, "utf-8")
    result = run("a.yaml")
    assert (folder / "a.yaml").read_text("utf-8") == text
    assert (result.exit_code, "see `streamstack validate`" in result.stderr) == (left, True)


def test_only_the_chosen_files_change(folder: Path) -> None:
    """A file by name leaves the others of its project alone; a folder has its settings corrected too."""
    for name in ("a", "b"):
        text = f"metod: GET\npath: /{name}\nfunctionStack: [{{stream: 1}}]\n"
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    (folder / "streamstack.yaml").write_text("sever: {port: 1}\n", "utf-8")
    run("a.yaml")
    changed = [path.name for path in sorted(folder.iterdir()) if re.match("metod|sever", path.read_text("utf-8"))]
    assert changed == ["b.yaml", "streamstack.yaml"]
    assert run(".").exit_code == 0
    assert (folder / "streamstack.yaml").read_text("utf-8") == "server: {port: 1}\n"


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("missing.yaml",), 2)])
def test_nothing_to_correct(folder: Path, arguments: tuple[str, ...], code: int) -> None:
    """Without definitions it says what to write."""
    assert run(*arguments).exit_code == code


#: What is done to a definition, each by what it finds and what it writes.
DAMAGES = (
    (r"\bfunctionStack:", "steps:"),
    (r"\binputParameters:", "inputs:"),
    (r"^method:", "metod:"),
    (r"\bresponseType:", "response_type:"),
    (r"- stream:", "- emit:"),
    (r"- stream:", "- strem:"),
    (r"- forEach:", "- for_each:"),
    (r"- wait:", "- sleep:"),
    (r"(?<=stream: \{)content:", "contnet:"),
    (r"\| default\(", "| defualt("),
    (r"\| toInteger", "| to_int"),
    (r"\| length", "| size"),
    (r" == ", " === "),
    (r"<<\s*input\.", "<< $input."),
    (r"'(<< [^'\n]* >>)'", r"\1"),
    (r"type: integer", "type: int"),
    (r"type: text", "type: string"),
    (r"required: true", "requird: true"),
)
SOUND = sorted(Path(__file__).parents[2].joinpath("definitions").rglob("*.yaml"))
SOUND = [path for path in SOUND if path.name != "streamstack.yaml" and not path.name.endswith(".test.yaml")]


def _check(texts: object) -> list[Diagnostic]:
    return validate(texts, REGISTRY, Streaming(), None)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.stem)
def test_damage_is_undone(path: Path) -> None:
    """A definition with mistakes put into it becomes one that means the same, or has none of its own changed."""
    sound = path.read_text("utf-8")
    others = {each.name: each.read_text("utf-8") for each in SOUND if each.read_text("utf-8").startswith("kind: func")}
    known = len(_check({**others, path.name: sound}))
    pick = random.Random(path.name)  # noqa: S311
    for _ in range(4):
        damaged = sound
        for pattern, written in pick.sample(DAMAGES, 3):
            damaged = re.sub(pattern, written, damaged, count=1, flags=re.MULTILINE)
        changed, left = correct({**others, path.name: damaged}, _check, [path.name])
        fixed = changed.get(path.name, damaged)
        assert len(left) <= known, (damaged, left)
        assert _meaning(fixed) == _meaning(sound)
        assert _check({**others, path.name: fixed}) == left


def _meaning(text: str) -> object:
    documents, _ = read(text, "a.yaml")
    return [plain(each.root) for each in documents]


def test_an_error_is_corrected_that_hid_a_warning(folder: Path) -> None:
    """It leaves as many findings as before, of which one is an error no longer."""
    head = "method: GET\npath: /x\nresponseType: json\ninputParameters: {a: {type: text, required: true}}\n"
    file = folder / "w.yaml"
    file.write_text(head + "functionStack:\n- set: {x: 1}\n- return: << input.a | upcase >>\n")
    result = run("w.yaml")
    assert result.exit_code == 0
    assert "<< input.a | upper >>" in file.read_text()


def test_a_diff_of_a_file_without_a_last_line_break(folder: Path) -> None:
    """It says so as `diff` does, so that `git apply` can read it."""
    (folder / "a.yaml").write_text("method: GET\npath: /x\nresponseType: json\nsteps: [{return: 1}]")
    shown = run("--diff", "a.yaml").stdout
    assert shown.count("\n\\ No newline at end of file\n") == 2
    assert "\n+functionStack: [{return: 1}]\n" in shown


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("path: /a/:id", "path: /a/{id}"),
        ("path: /a/${id}.json", "path: /a/{id}.json"),
        ("path: '/a/[...id]'", "path: '/a/{id:path}'"),
        ("path: https://example.org/a/{id*}", "path: /a/{id:path}"),
        ("path: a/<id>/", "path: /a/{id}"),
        ("inputParameters: {id: {type: text, required: yes}}", "inputParameters: {id: {type: text, required: true}}"),
        (
            "inputParameters: {id: {type: text, nullable: 'off'}}",
            "inputParameters: {id: {type: text, nullable: false}}",
        ),
        ('inputParameters: {id: {type: text, maxLength: "5"}}', "inputParameters: {id: {type: text, maxLength: 5}}"),
        ('inputParameters: {id: {type: integer, maximum: "5"}}', "inputParameters: {id: {type: integer, maximum: 5}}"),
        ("inputParameters: {id: {type: text, filters: trim}}", "inputParameters: {id: {type: text, filters: [trim]}}"),
        ("functionStack: [{stream: << input.idd >>}]", "functionStack: [{stream: << input.id >>}]"),
        ("functionStack: [{stream: << 'a' | lowr >>}]", "functionStack: [{stream: << 'a' | lower >>}]"),
        ("functionStack: [{stream: 1, disabled: no}]", "functionStack: [{stream: 1, disabled: false}]"),
        ("functionStack: [{stream: {content: a, event: 5}}]", 'functionStack: [{stream: {content: a, event: "5"}}]'),
    ],
)
def test_each_exact_hint_is_written(folder: Path, before: str, after: str) -> None:
    """What a hint writes out exactly is written by `fix`; a file that is given several times counts once."""
    sound = {"method": "GET", "path": "/a/{id}", "inputParameters": "{id: text}", "functionStack": "[{stream: 1}]"}
    key = before.partition(":")[0]
    lines = {name: f"{name}: {text}" for name, text in sound.items()}
    file = folder / "a.yaml"
    file.write_text("\n".join((lines | {key: before}).values()) + "\n", "utf-8")
    result = run("a.yaml", "./a.yaml", str(file), ".")
    assert file.read_text("utf-8") == "\n".join((lines | {key: after}).values()) + "\n"
    assert (result.exit_code, result.stderr) == (0, "1 of 1 file changed\n")


def test_tests_are_corrected_with_the_definitions(folder: Path) -> None:
    """Keys, values, paths and variables of a test file are corrected, below a folder and by its name."""
    definition = (
        "method: GET\npath: /api/{id}/items\ninputParameters: {id: text}\nfunctionStack: [{stream: << env.KEY >>}]"
    )
    (folder / "a.yaml").write_text(definition)
    before = (
        "suite:   # all of them\r\n- it: a\r\n  when: {url: /api/5/itmes, verb: get}\r\n  env: {KEYS: 1}\r\n"
        "  then: {text: << value | upcase == 'A' >>, outcome: complete}\r\n"
    )
    after = (
        "tests:   # all of them\r\n- name: a\r\n  request: {path: /api/5/items, method: GET}\r\n  env: {KEY: 1}\r\n"
        "  expect: {text: << value | upper == 'A' >>, outcome: completed}\r\n"
    )
    for arguments in ((), ("a.test.yaml",)):
        (folder / "a.test.yaml").write_bytes(before.encode())
        run(*arguments)
        assert (folder / "a.test.yaml").read_bytes().decode() == after

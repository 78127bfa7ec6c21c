"""`streamstack validate` as it is typed: what it reads, what it says, how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamstack.cli import main
from streamstack.functions import REGISTRY
from streamstack.language.filters import FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS

SOUND = "method: GET\npath: /{name}\ninputParameters: {name: text}\nfunctionStack: [{stream: <<input.name>>}]\n"
WRONG = "method: GET\npath: /wrong\nfunctionStack: [{steam: 1}]\n"
UNUSED = "method: GET\npath: /unused\nfunctionStack: [{set: {a: 1}}, {stream: 1}]\n"
CALLING = "method: GET\npath: /calls\nfunctionStack: [{call: helper}]\n"
HELPER = "kind: function\nname: helper\nfunctionStack: [{stream: helped}]\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    """Write files; in a name `__` is a folder's end, and `.yaml` is added."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def validate(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["validate", *arguments], catch_exceptions=False)


def codes(result: Result) -> list[str]:
    """Return `file code` of each finding, from JSON."""
    return [f"{each['file']} {each['code']}" for each in json.loads(result.stdout)["findings"]]


def test_clean_project_exits_0(project: Path) -> None:
    """Without a path it checks `definitions/`, deeply, and says how many files it read."""
    write(project, definitions__a=SOUND, definitions__b__c=HELPER, elsewhere=WRONG)
    result = validate()
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "2 files checked, no problems\n"


def test_finding_exits_1(project: Path) -> None:
    """An error is reported with its place and its line."""
    write(project, definitions__a=WRONG)
    result = validate()
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "definitions/a.yaml:3:18: error: unknown-function: unknown function `steam`\n  3 | functionStack:"
    )
    assert result.stderr == "1 error in 1 file\n"


def test_warning_exits_1_only_if_strict(project: Path) -> None:
    """A warning fails the command with `--strict` alone."""
    write(project, a=UNUSED)
    assert validate().exit_code == 0
    assert validate("--strict").exit_code == 1
    assert "warning: unused-variable" in validate().stdout


@pytest.mark.parametrize("path", ["missing", "missing/a.yaml", "empty"])
def test_nothing_to_check_exits_2(project: Path, path: str) -> None:
    """A path that does not exist, or holds no definitions, is a failure."""
    (project / "empty").mkdir()
    result = validate(path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert path in result.stderr


def test_settings_tests_and_hidden_files_are_no_definitions(project: Path) -> None:
    """Of the YAML below a folder only definitions are read as such."""
    write(project, a=SOUND, streamstack="server: {port: 1}\n", **{"a.test": "tests: []\n"})
    write(project / ".github", workflow=WRONG)
    result = validate("--format", "json", ".")
    assert (result.exit_code, codes(result)) == (0, [])
    # A shell's `*` names them all.
    assert validate("a.yaml", "streamstack.yaml", "a.test.yaml").exit_code == 0


def test_file_is_checked_with_its_project(project: Path) -> None:
    """A file may call the functions of its project; only its own findings are reported."""
    write(project, streamstack="", a__calling=CALLING, b__helper=HELPER, b__wrong=WRONG)
    assert validate("a/calling.yaml").exit_code == 0
    assert validate("a").exit_code == 0
    assert codes(validate("--format", "json")) == ["b/wrong.yaml unknown-function"]


def test_settings_are_found_upwards(project: Path) -> None:
    """Settings beside `definitions/` are its project's, and their findings are reported with it."""
    write(project, streamstack="server: {prot: 1}\n", definitions__a=SOUND, notes=WRONG)
    for path in ("definitions", "definitions/a.yaml"):
        assert codes(validate("--format", "json", path)) == ["streamstack.yaml unknown-setting"]


def test_project_in_a_project_is_its_own(project: Path) -> None:
    """A folder with settings of its own below a project does not belong to it."""
    write(project, streamstack="", a=SOUND, inner__streamstack="", inner__a=SOUND)
    assert validate(".").exit_code == 0
    assert validate(".", "inner").stderr == "4 files checked, no problems\n"


@pytest.mark.parametrize("path", ["definitions", "definitions/a.yaml", "."])
def test_two_settings_of_one_project_are_an_error(project: Path, path: str) -> None:
    """Both are named: neither silently wins."""
    write(project, streamstack="", definitions__streamstack="", definitions__a=SOUND)
    result = validate(path)
    assert result.exit_code == 1
    assert "two: streamstack.yaml and definitions/streamstack.yaml" in result.stdout + result.stderr


def test_missing_environment_is_told_on_request(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--env` names the variables that are not set, in settings and in definitions."""
    monkeypatch.setenv("STREAMSTACK_SET", "1")
    write(
        project,
        streamstack="settings: {a: <<env.STREAMSTACK_A>>, b: <<env.STREAMSTACK_SET>>}\n",
        a="method: GET\npath: /\nfunctionStack: [{stream: <<env.STREAMSTACK_B>>}]\n",
    )
    assert validate().exit_code == 0
    result = validate("--env", "--format", "json")
    assert result.exit_code == 1
    assert codes(result) == ["a.yaml missing-environment", "streamstack.yaml missing-environment"]


def test_database_is_only_asked_where_its_variable_is_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the embedded one would be started and asked in its place; the variable is named instead."""
    monkeypatch.delenv("STREAMSTACK_URL", raising=False)
    write(
        project,
        streamstack="databases: {main: {url: <<env.STREAMSTACK_URL>>}, own: {}}\n",
        a="method: GET\npath: /\nresponseType: json\nfunctionStack:\n"
        "  - db.value: {sql: SELECT 1, database: main}\n    as: one\nresponse: <<one>>\n",
    )
    # It is not a second embedded server: elsewhere the variable is set.
    assert codes(validate("--format", "json")) == []
    result = validate("--database", "--format", "json")
    assert codes(result) == ["streamstack.yaml missing-environment"]
    assert result.exit_code == 1
    assert not (project / ".streamstack").exists()


def test_broken_file_hides_no_other(project: Path) -> None:
    """What can't be read is reported, and everything else is checked."""
    write(project, a="method: [GET\n", b=WRONG, c=CALLING, d=HELPER + "---\n: [\n")
    (project / "e.yml").write_bytes(b"method: GET\npath: /caf\xe9\n")
    assert codes(validate("--format", "json")) == [
        "a.yaml yaml-syntax",
        "b.yaml unknown-function",
        "d.yaml yaml-syntax",
        "e.yml yaml-syntax",
    ]


@pytest.mark.parametrize("format_", ["text", "json", "github", "sarif"])
def test_formats(project: Path, format_: str) -> None:
    """Every format ends with the same code, and machines get nothing but their format."""
    write(project, a=WRONG)
    result = validate("--format", format_)
    assert result.exit_code == 1
    assert "unknown-function" in result.stdout
    if format_ in ("json", "sarif"):
        json.loads(result.stdout)
        assert result.stderr == ""


def test_schema_is_written(project: Path) -> None:
    """`streamstack schema` writes one schema to the terminal, or all into a folder."""
    run = CliRunner().invoke
    assert json.loads(run(main, ["schema"]).stdout)["title"] == "streamstack definition"
    assert json.loads(run(main, ["schema", "settings"]).stdout)["title"] == "streamstack.yaml"
    assert run(main, ["schema", "sittings"]).exit_code == 2
    assert run(main, ["schema", "--out", "new/folder"]).exit_code == 0
    assert (project / "new" / "folder" / "endpoint.schema.json").is_file()


def test_functions_are_shown() -> None:
    """`streamstack functions` lists all, tells one at length, and knows what a slip meant."""
    run = CliRunner().invoke
    overview = run(main, ["functions"]).stdout
    for name in (*REGISTRY, *FILTERS, *FUNCTIONS_OF_EXPRESSIONS, *TESTS):
        assert name in overview
        assert run(main, ["functions", name, "--markdown"]).stdout.startswith("## `")
    assert "value \\| toJson" in run(main, ["functions", "--markdown"]).stdout
    assert "forEach" in run(main, ["functions"]).stdout
    assert "Required" in run(main, ["functions", "forEach"]).stdout
    assert run(main, ["functions", "--markdown"]).stdout.startswith("# Functions\n\n## Values\n\n### `set`")
    assert run(main, ["functions", "forEach", "--markdown"]).stdout.startswith("## `forEach`")
    slip = run(main, ["functions", "foreach"])
    assert slip.exit_code == 2
    assert "did you mean `forEach`?" in slip.stderr


COMPOSE = 'version: "3"\nservices: {web: {image: nginx}}\n'


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ("", ["compose.yaml not-a-definition", "infra/k8s/x.yaml not-a-definition"]),
        ("ignore: compose.yaml", ["infra/k8s/x.yaml not-a-definition"]),
        ("ignore: [compose.yaml, infra]", []),
        ("ignore: ['*.yaml']", []),
        ("ignore: [compose.yaml, 'infra/*']", []),
        ("ignore: [compose.yaml, x.yaml]", []),
        ("ignore: [compose.yaml, k8s/x.yaml]", []),
    ],
)
def test_foreign_files_can_be_ignored(project: Path, ignore: str, left: list[str]) -> None:
    """YAML of another program is one finding that says how to exclude it; `ignore` takes names, paths and patterns."""
    write(project, compose=COMPOSE, infra__k8s__x="apiVersion: v1\nkind: Service\nspec: {}\n", streamstack=ignore)
    assert codes(validate("--format", "json")) == left
    assert codes(validate("--format", "json", "infra")) == [each for each in left if each.startswith("infra")]


def test_ignored_file_is_checked_by_its_name(project: Path) -> None:
    """A file that is named on the command line is checked, whatever the settings ignore."""
    write(project, a=SOUND, compose=COMPOSE, streamstack="ignore: compose.yaml")
    assert codes(validate("--format", "json", "compose.yaml")) == ["compose.yaml not-a-definition"]
    assert "write" not in validate("compose.yaml").stderr
    assert "`ignore: [compose.yaml]`" in validate("compose.yaml").stdout


@pytest.mark.parametrize("more", ["", "a.yaml"])
def test_file_that_is_not_text_is_reported(project: Path, more: str) -> None:
    """A file that is not UTF-8 is a finding, also where it is the only one."""
    write(project, a=SOUND)
    (project / "bad.yaml").write_bytes(b"method: GET\npath: /\xff\n")
    result = validate("--format", "json", "bad.yaml", *more.split())
    assert (codes(result), result.exit_code) == (["bad.yaml yaml-syntax"], 1)


@pytest.mark.parametrize("path", ["pipe.yaml", ".", "/dev/zero"])
def test_only_regular_files_are_read(project: Path, path: str) -> None:
    """A pipe is not waited for, and a device is not read for ever."""
    os.mkfifo(project / "pipe.yaml")
    result = validate("--format", "json", path)
    assert codes(result) == [f"{'pipe.yaml' if path == '.' else path} yaml-syntax"]
    assert "regular file" in result.stdout


def test_key_is_not_read_from_a_device(project: Path) -> None:
    """A public key that is a device is a finding."""
    write(project, a=SOUND, streamstack="authentication: {jwt: {type: jwt, publicKey: /dev/zero}}")
    assert codes(validate("--format", "json")) == ["streamstack.yaml bad-setting"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tests: [broken: {\n", ["yaml-syntax"]),
        ("- a\n", ["not-a-mapping"]),
        ("nothing: 1\n", ["missing-parameter", "unknown-key"]),
        ("tests: [{name: a, request: {path: /a}, expect: {staus: 200}}]\n", ["unknown-key"]),
        ("tests: [{name: a, request: {path: /a}, expect: {status: many}}]\n", ["wrong-type"]),
        ("tests: [{name: a, request: {path: /a}, expect: {status: 200, text: a}}]\n", []),
    ],
)
def test_files_of_tests_are_checked(project: Path, text: str, found: list[str]) -> None:
    """The shape of `*.test.yaml` is checked, in its folder and by its name, unless it is ignored."""
    write(project, a=SOUND)
    (project / "a.test.yaml").write_text(text, "utf-8")
    expected = [f"a.test.yaml {code}" for code in found]
    assert codes(validate("--format", "json")) == expected
    assert codes(validate("--format", "json", "a.test.yaml")) == expected
    write(project, streamstack="ignore: '*.test.yaml'")
    assert codes(validate("--format", "json")) == []


@pytest.mark.parametrize("format_", ["text", "json", "github", "sarif"])
def test_odd_file_names_can_be_written(project: Path, format_: str) -> None:
    """A name with bytes that are not UTF-8, a line break and a percent sign breaks no format."""
    (project / os.fsdecode(b"x\xff\n%y.yaml")).write_text(WRONG, "utf-8")
    result = validate("--format", format_)
    assert result.exit_code == 1
    if format_ == "sarif":
        place = json.loads(result.stdout)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "x%FF%0A%25y.yaml"
    elif format_ == "json":
        assert json.loads(result.stdout)["findings"][0]["file"] == "x\ufffd\ufffd%y.yaml"
    else:
        assert "\n%y" not in result.stdout

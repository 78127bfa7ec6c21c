"""What yaml-language-server, which VS Code uses, shows to an author with our schemas."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from tests.clients.speaking import CLIENTS
from tests.clients.test_npm import missing

ROOT = CLIENTS.parent.parent
ENDPOINT = "method: GET\npath: /x\nfunctionStack:\n"


@dataclass
class Shown:
    """What the editor shows of one text: messages by line, hover texts, and what completion inserts by its label."""

    messages: dict[int, list[str]] = field(default_factory=dict)
    hover: str = ""
    inserts: dict[str, str] = field(default_factory=dict)


def vscode_schemas() -> Any:
    """Return `yaml.schemas` of the settings that the documentation shows."""
    page = (ROOT / "docs" / "tutorial" / "getting-started.md").read_text("utf-8")
    block = page.partition('```json title=".vscode/settings.json"\n')[2].partition("```")[0]
    return json.loads(block)["yaml.schemas"]


@cache
def show(text: str, schema: str = "streamstack", file: str = "") -> Shown:
    """Open a text; `|` marks the place of the cursor, for hover and completion.

    With a ``file``, the schema is the one that the documented settings of VS Code choose for it.
    """
    if missing():
        pytest.skip(missing())
    if not (CLIENTS / "node_modules" / "yaml-language-server").exists():
        pytest.skip("yaml-language-server is not installed: `make test` does it")
    before, cursor, after = text.partition("|")
    place = [before.count("\n"), len(before) - before.rfind("\n") - 1]
    places = [place] if cursor else []
    question: dict[str, Any] = {
        "root": ROOT.as_uri(),
        "file": file or "file.yaml",
        "schemas": vscode_schemas() if file else {(ROOT / "schemas" / f"{schema}.schema.json").as_uri(): "*.yaml"},
        "text": before + after,
        "hovers": places,
        "completions": places,
    }
    done = subprocess.run(
        ["node", CLIENTS / "editor.mjs"],
        input=json.dumps(question).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer = json.loads(done.stdout)
    shown = Shown()
    for each in answer["diagnostics"]:
        shown.messages.setdefault(each["line"], []).append(each["message"])
    if cursor:
        shown.hover = answer["hovers"][0]
        shown.inserts = {each["label"]: " ".join(each["insert"].split()) for each in answer["completions"][0]}
    return shown


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ("  - stream: {con|tent: a}\n", "Content of the chunk"),
        ("  - stream: {content: a, meta|data: {a: 1}}\n", "Additional data about the chunk"),
        ("  - call: {function: f, wi|th: {a: 1}}\n", "Inputs by name"),
        ("  - http.request: {url: 'https://a.example', js|on: {a: 1}}\n", "sent as JSON"),
        ("  - str|eam: a\n", "Send a chunk"),
    ],
)
def test_hover_describes_the_key(steps: str, says: str) -> None:
    """Hover shows the description of the key below it, also where it takes any value."""
    assert says in show(ENDPOINT + steps).hover


@pytest.mark.parametrize(
    ("text", "schema", "inserts"),
    [
        (
            f"{ENDPOINT}  - stream:\n      |\n",
            "streamstack",
            {"content": "content:", "metadata": "metadata:", "event": "event:"},
        ),
        (
            f"{ENDPOINT}  - |\n",
            "streamstack",
            {
                "as": "as:",
                "return": "return:",
                "collect": "collect: in: $1 limit: ${2:10000}",
                "stream": "stream: content:",
            },
        ),
        ("server:\n  |\n", "settings", {"port": "port: ${1:8080}", "maxBodySize": "maxBodySize: ${1:10MB}"}),
    ],
)
def test_completion_inserts_what_is_valid(text: str, schema: str, inserts: dict[str, str]) -> None:
    """Completion inserts the key with its colon, and a default of the right type."""
    assert show(text, schema).inserts.items() >= inserts.items()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (f"{ENDPOINT}  - stream: a\n    wait: 1s\n", 3, "Matches multiple schemas when only one must validate."),
        (f"{ENDPOINT}  - strem: a\n", 3, "Property strem is not allowed."),
        (f"{ENDPOINT}  - stream: a\n    whne: true\n", 4, "Property whne is not allowed."),
        (f"kind: query\n{ENDPOINT}  - stream: a\n", 0, "Value is not accepted."),
        ("kind: tasks\nname: x\nfunctionStack: []\n", 0, "Value is not accepted."),
    ],
)
def test_faults_are_underlined(text: str, line: int, says: str) -> None:
    """Two functions in a step, unknown keys and kinds are underlined where they stand."""
    assert any(says in each for each in show(text).messages[line])


@pytest.mark.parametrize("name", ["chat-stream", "order-notices"])
def test_definitions_are_clean(name: str) -> None:
    """The definitions of the repository have no message."""
    text = (ROOT / "definitions" / f"{name}.yaml").read_text("utf-8")
    assert show(text.replace("|", "\u00a6")).messages == {}


@pytest.mark.parametrize(
    ("file", "offered", "other"),
    [
        ("definitions/a.yaml", "functionStack", "databases"),
        ("definitions/deep/b.yaml", "functionStack", "databases"),
        ("streamstack.yaml", "databases", "functionStack"),
        ("definitions/streamstack.yaml", "databases", "functionStack"),
        ("definitions/a.test.yaml", "tests", "functionStack"),
    ],
)
def test_documented_settings_choose_the_schema(file: str, offered: str, other: str) -> None:
    """With the `.vscode/settings.json` of the documentation, each kind of file has the one schema that it needs."""
    inserts = show("|\n", file=file).inserts
    assert offered in inserts
    assert other not in inserts

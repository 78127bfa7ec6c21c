"""Write the pages of docs/reference/ from the declarations: `make docs`."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Final

import click

from streamstack.cli import main as main_command
from streamstack.errors import ERRORS
from streamstack.functions import FAMILIES
from streamstack.language.findings import FINDINGS, Finding
from streamstack.language.keys import MODIFIERS
from streamstack.language.reference import (
    definitions_reference,
    expressions_reference,
    reference,
    settings_reference,
    table,
    tests_reference,
)

ROOT: Final = Path(__file__).resolve().parent.parent
ENGINE: Final = ROOT / "engine" / "streamstack"
CASES: Final = ROOT / "tests" / "cases" / "invalid"
PAGES: Final = ROOT / "docs" / "reference"

#: A case may be longer than a reader wants to see.
_LONGEST: Final = 24

_NOTE: Final = "<!-- Written by `make docs` from the declarations: change those, not this file. -->"


def pages() -> dict[str, str]:
    """Return the pages of the reference by file name."""
    written = {
        "functions.md": _functions(),
        "filters.md": _expressions(),
        "definitions.md": _definitions(),
        "tests.md": _tests(),
        "settings.md": _settings(),
        "findings.md": _findings(),
        "errors.md": _errors(),
        "cli.md": _commands(),
    }
    return {name: f"{_NOTE}\n\n{text}" for name, text in written.items()}


def _functions() -> str:
    intro = (
        "The functions that a step can run. [Steps](../tutorial/steps.md) explains how to write steps. "
        "What a function returns is written as a shape: `[T]` is a list of T, `T?` is T or null, `{a: T, ...}` an "
        "object with the field `a` and perhaps others, `items of in` what the parameter `in` holds. `validate` checks "
        "paths and types by it. "
        "`streamstack functions NAME` prints the same reference in the terminal."
    )
    text = reference(FAMILIES).replace("# Functions\n", f"# Functions\n\n{intro}\n", 1)
    modifiers = (
        f"## Modifiers\n\nKeys that a step can have in addition to its function.\n\n{table(MODIFIERS, 'modifier')}\n"
    )
    return f"{text}\n{modifiers}"


def _expressions() -> str:
    intro = (
        "Filters, functions and tests for bindings (`<< ... >>`). A filter follows a value and `|`. Pass arguments by "
        "position or by name. A test follows `is` or `is not`. [Bindings](../tutorial/bindings.md) "
        "explains expressions."
    )
    return expressions_reference().replace("# Expressions\n", f"# Expressions\n\n{intro}\n", 1)


def _definitions() -> str:
    intro = (
        "The keys of the YAML documents in a project. [Endpoints](../tutorial/endpoints.md) explains them. The keys of "
        "steps are under [Functions](functions.md#modifiers)."
    )
    return definitions_reference().replace("# Definitions\n", f"# Definitions\n\n{intro}\n", 1)


def _settings() -> str:
    intro = (
        "The keys of `streamstack.yaml`. Keys are optional unless marked as required. Values can contain "
        "`<< env.NAME >>` or `<< env.NAME | default(...) >>`. Durations are written like `200ms`, `5s`, `10m`, `1h`, "
        "sizes like `64KB`, `10MB`. [Configuration](../how-to/configuration.md) explains them."
    )
    return settings_reference().replace("# Settings\n", f"# Settings\n\n{intro}\n", 1)


_TEST: Final = """\
tests:
  - name: relays the words as they come
    request: {method: POST, path: /api/stream-chat, body: {message: Hi}, auth: {sub: u1}}
    env: {OPENAI_API_KEY: test}
    upstreams:
      - url: https://api.openai.com/v1/chat/completions
        respond: {model: Hello world, cutAfter: {events: 2}}
    expect:
      status: 200
      chunks: [Hello, {content: " world", at: 0ms}]
      error: {code: stream-lost, message: << value | length > 3 >>}
      calls: [{url: https://api.openai.com/v1/chat/completions, count: 1}]
"""


def _tests() -> str:
    intro = (
        "The keys of `*.test.yaml` files. `streamstack validate` checks them, and `streamstack fix` corrects them, as "
        "it does definitions.\n\n"
        f'```yaml title="stream-chat.test.yaml"\n{_TEST}```\n\n'
        "Keys that stand beside `tests` are defaults of all tests of the file: a test's own variables, time and faults "
        "win, its own upstreams are asked first, its rows and SQL are added.\n\n"
        "An expected value is compared as it is written. In a list or mapping below `chunks`, `calls`, `headers`, "
        "`error`, `done` and `log`, only the keys that are written are compared. A binding is an expectation of its "
        "own: it reads `value`, which is the actual value, and `env`, and has to be true, or equal to the value. "
        "Elsewhere values hold no bindings.\n\n"
        "Times are written like `200ms`, `5s`, or as a number of milliseconds. Files are named from the folder of the "
        "test file."
    )
    return tests_reference().replace("# Tests\n", f"# Tests\n\n{intro}\n", 1)


def _findings() -> str:
    parts = [
        "# Findings",
        (
            "What `streamstack validate` reports, by code. An error prevents `serve` from starting; a "
            "warning does not. `allow: [code]` on a step or an endpoint silences a finding there. "
            "Each example is intentionally wrong."
        ),
    ]
    for severity, title in (("error", "Errors"), ("warning", "Warnings")):
        parts.append(f"## {title}")
        parts += [_finding(each) for each in FINDINGS.values() if each.severity == severity]
    return "\n\n".join(parts) + "\n"


def _finding(finding: Finding) -> str:
    parts = [f"### `{finding.code}`", f"{finding.meaning} Instead: {finding.hint}."]
    cases = [CASES / f"{finding.code}{suffix}" for suffix in (".yaml", ".test.yaml")]
    if case := next((each for each in cases if each.exists()), None):
        lines = case.read_text("utf-8").rstrip("\n").split("\n")
        told = [line.split(" ", 3) for line in case.with_suffix(".expected").read_text("utf-8").splitlines()]
        places = [
            f"line {place.partition(':')[0]}: {message}" for place, _, code, message in told if code == finding.code
        ]
        if len(lines) <= _LONGEST:
            shown = "\n".join(lines)
            parts.append(f"<!-- wrong -->\n```yaml\n{shown}\n```")
            parts.append("```text\n" + "\n".join(places) + "\n```")
        else:
            parts.append("```text\n" + "\n".join(places[:4]) + "\n```")
    return "\n\n".join(parts)


def _errors() -> str:
    raised = _raised()
    parts = [
        "# Errors",
        (
            "The predefined errors of a run, by code. [Errors](../tutorial/errors.md) explains how errors are sent to "
            "the client and how to catch them. The status applies if the error is not caught and no chunk has been "
            "sent. `throw` and `precondition` add codes of your own. If the message is not sent to the client, the "
            "client receives “The server could not complete this request.”, and the log contains the details."
        ),
        "| code | status | meaning | message is sent to the client |\n|---|---|---|---|\n"
        + "\n".join(
            f"| `{code}` | {error.status} | {error.meaning} | {'no' if error.internal else 'yes'} |"
            for code, error in ERRORS.items()
            if code in raised
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _commands() -> str:
    context = click.Context(main_command, info_name="streamstack", **main_command.context_settings)
    parts = [
        "# Command line",
        "The `streamstack` command and its subcommands. `streamstack COMMAND --help` prints the same text.",
    ]
    for name in main_command.list_commands(context):
        command = main_command.get_command(context, name)
        assert command is not None
        parts += _command(command, click.Context(command, context, name, **command.context_settings))
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, context: click.Context) -> list[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## `{command.name}`", f"```text\n{usage}\n```"]
    # Click marks a paragraph that is not to be wrapped with a backspace.
    text = inspect.cleandoc(command.help or "")
    for paragraph in text.split("\n\n"):
        is_block = paragraph.startswith("\b")
        body = paragraph.removeprefix("\b").strip("\n")
        parts.append(f"```text\n{body}\n```" if is_block else body)
    rows = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
    options = "\n".join(f"| `{name}` | {text.replace('|', chr(92) + '|')} |" for name, text in rows)
    parts.append(f"| option | meaning |\n|---|---|\n{options}")
    return parts


def _raised() -> frozenset[str]:
    """Return the codes that the engine raises: an error that can't happen yet is not documented."""
    return frozenset(
        code.value
        for path in ENGINE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("RunError") and node.args
        if isinstance(code := node.args[0], ast.Constant) and isinstance(code.value, str)
    )


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, "utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()

"""The command line."""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Final, NoReturn

import click

from streamstack import __version__
from streamstack.language.masking import masked
from streamstack.language.names import nearest
from streamstack.server.signals import Early

#: The commands in the order of the help, each with the module of this package that has a function of its name.
COMMANDS: Final = {
    "init": "init",
    "import": "imports",
    "serve": "serve",
    "validate": "validate",
    "test": "test",
    "fix": "validate",
    "call": "call",
    "graph": "definitions",
    "show": "definitions",
    "tasks": "tasks",
    "token": "token",
    "functions": "reference",
    "schema": "reference",
    "openapi": "openapi",
}
#: What other tools call a command, and what it is here.
_ELSEWHERE: Final = {
    "run": "serve",
    "start": "serve",
    "up": "serve",
    "server": "serve",
    "dev": "serve --dev --reload",
    "watch": "serve --reload",
    "check": "validate",
    "lint": "validate",
    "verify": "validate",
    "format": "fix",
    "repair": "fix",
    "curl": "call",
    "request": "call",
    "docs": "functions",
    "cron": "tasks",
    "schedule": "tasks",
    "jobs": "tasks",
    "new": "init",
    "create": "init",
    "scaffold": "init",
    "generate": "init",
}
#: Exit codes: nothing to report, problems in the files, could not run.
CLEAN, FOUND, FAILED = 0, 1, 2
#: The smallest project, shown when there is none.
FIRST_FILE: Final = """\
`streamstack init` writes a project. Or write an endpoint into a file, for example definitions/hello.yaml:

    method: GET
    path: /hello
    responseType: streaming
    functionStack:
      - stream: Hello
      - stream: {content: World, delay: 500ms}

Then start the server with `streamstack serve`, and call it with `streamstack call GET /hello`.\
"""


class Commands(click.Group):
    """A command group that imports a command only when it is called, so that `validate` starts without the server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name == "help":  # `help call` is `call --help`
            args = [*args[1:2], "--help"] if len(args) > 1 else ["--help"]
            if len(args) == 1:
                click.echo(ctx.get_help())
                ctx.exit()
            name = args[0]
        if name == "serve":
            ctx.obj = ctx.with_resource(Early())  # before the imports, which take the longest
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(_explain_unknown(name), ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"streamstack.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        return command


def _explain_unknown(name: str) -> str:
    """Return what to write instead of a command that does not exist."""
    meant = _ELSEWHERE.get(name) or nearest(name, COMMANDS)
    if meant is None and (near := nearest(name, _ELSEWHERE)):
        meant = _ELSEWHERE[near]
    if name.endswith((".yaml", ".yml")) or (meant is None and Path(name).exists()):
        return f"no such command `{name}`: write `streamstack serve {name}` or `streamstack validate {name}`"
    if meant is not None:
        return f"no such command `{name}`: did you mean `streamstack {meant}`?"
    return f"no such command `{name}`: there are {', '.join(COMMANDS)}"


def give_up(context: click.Context, reason: str, code: int = FAILED) -> NoReturn:
    """End the command with a reason."""
    click.echo(f"streamstack: {masked(reason)}", err=True)
    context.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamstack")
def main() -> None:
    """Streaming HTTP endpoints, declared in YAML."""

"""The command line: puts the parts together."""

from __future__ import annotations

from importlib import import_module

import click

from streamstack import __version__

#: The commands, in the order of the help; each is a module of `commands` and a function in it.
COMMANDS = ("serve", "validate", "call", "token", "functions", "schema")


class Commands(click.Group):
    """Imports a command when it is asked for: `validate` need not wait for the server's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"streamstack.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamstack")
def main() -> None:
    """HTTP endpoints that stream, declared in YAML."""

"""The command line: puts the parts together."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import click

from streamstack import __version__
from streamstack.server.signals import Early

#: The commands, in the order of the help; each is a module of `commands` and a function in it.
COMMANDS = ("serve", "validate", "call", "graph", "show", "token", "functions", "schema")
#: Those that neither listen nor call anybody: what does is imported only where it is used all the same.
SILENT = frozenset({"validate", "graph", "show", "functions", "schema"})


class Commands(click.Group):
    """Imports a command when it is asked for: `validate` need not wait for the server's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] == "serve":
            ctx.obj = ctx.with_resource(Early())  # before the imports, which take the longest
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in SILENT:
            # A quarter of a second, most of it for certificates.
            sys.modules.setdefault("aiohttp", _Postponed("aiohttp"))
        module = import_module(f"streamstack.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


class _Postponed(ModuleType):
    """Stands for a library until something of it is asked for; the standard LazyLoader loads what is imported."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        self.__dict__.update(import_module(self.__name__).__dict__)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"{self.__name__} has no {name}") from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamstack")
def main() -> None:
    """HTTP endpoints that stream, declared in YAML."""

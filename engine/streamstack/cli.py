"""The command line: puts the parts together."""

from __future__ import annotations

import click

from streamstack import __version__
from streamstack.commands.call import call
from streamstack.commands.functions import functions
from streamstack.commands.schema import schema
from streamstack.commands.serve import serve
from streamstack.commands.validate import validate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamstack")
def main() -> None:
    """HTTP endpoints that stream, declared in YAML."""


for command in (call, serve, validate, functions, schema):
    main.add_command(command)

"""The command line: puts the parts together."""

from __future__ import annotations

import click

from streamstack import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamstack")
def main() -> None:
    """HTTP endpoints that stream, declared in YAML."""

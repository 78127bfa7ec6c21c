"""`streamstack schema`: JSON Schemas for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from streamstack.functions import REGISTRY
from streamstack.language.schema import make_schemas


@click.command(short_help="Print the JSON Schemas for editors.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write all schemas to, instead of printing one.",
)
@click.argument("name", default="streamstack")
def schema(name: str, out: Path | None) -> None:
    """Print the JSON Schema of definitions for editors (or of `endpoint`, `settings`, `test`...)."""
    schemas = {
        file: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for file, content in make_schemas(REGISTRY).items()
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in schemas.items():
            (out / file).write_text(text, "utf-8")
        click.echo(f"{len(schemas)} schemas in {out}")
        return
    file = f"{name}.schema.json"
    if file not in schemas:
        names = ", ".join(each.removesuffix(".schema.json") for each in schemas)
        raise click.UsageError(f"unknown schema `{name}`; there are {names}")
    click.echo(schemas[file], nl=False)

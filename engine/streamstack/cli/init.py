"""`streamstack init`: write a small project that can be served and tested."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import click

from streamstack.cli import give_up
from streamstack.cli.reference import schema_text
from streamstack.functions import REGISTRY
from streamstack.language.schema import make_schemas

TEMPLATES: Final = ("chat", "data", "dashboard", "webhook")
#: The files of each template are in a folder of its name; these are in all of them.
_COMMON: Final = "common"
#: The schemas that .vscode/settings.json names.
_SCHEMAS: Final = ("streamstack.schema.json", "settings.schema.json", "test.schema.json")
#: Stands for a secret in .env.example; `init` writes a random one into .env.
_SECRET: Final = re.compile(r"(?<==)change-me$", re.MULTILINE)
_COMMANDS: Final = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@click.command(short_help="Write a new project.")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option(
    "--template", type=click.Choice(TEMPLATES), default=TEMPLATES[0], show_default=True, help="What the project does."
)
@click.pass_context
def init(context: click.Context, folder: Path, *, template: str) -> None:
    """Write a small project into a folder (the current one by default).

    The project can be served at once and has tests. chat streams a model's answer (simulated, until a key is set),
    data streams rows of PostgreSQL, dashboard streams live figures to a page, and webhook receives signed
    webhooks. Existing files are never overwritten.
    """
    files = project_files(template)
    try:
        _check_folders(folder, files)
        existing = [name for name, data in files.items() if not _write(folder / name, data)]
    except OSError as error:
        give_up(context, f"{error.filename}: {error.strerror}")
    for name in existing:
        click.echo(f"{folder / name}: exists, not changed", err=True)
    click.echo(f"{len(files) - len(existing)} files written to {folder}. Next:\n")
    if folder.resolve() != Path.cwd():
        click.echo(f"  cd {shlex.quote(str(folder))}")
    for line in next_commands(files["README.md"].decode()):
        click.echo(f"  {line}")


def project_files(template: str) -> dict[str, bytes]:
    """Return the files of a new project by their paths."""
    root = resources.files("streamstack") / "templates"
    files = {name: data for part in (_COMMON, template) for name, data in _walk(root / part)}
    example = files[".env.example"].decode()
    files[".env"] = _SECRET.sub(lambda _: secrets.token_hex(32), example).encode()
    schemas = make_schemas(REGISTRY)
    files |= {f"schemas/{name}": schema_text(schemas[name]).encode() for name in _SCHEMAS}
    return dict(sorted(files.items()))


def next_commands(readme: str) -> list[str]:
    """Return the commands that a README shows."""
    return [line for block in _COMMANDS.findall(readme) for line in block.splitlines()]


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _walk(each, f"{prefix}{each.name}/")
        else:
            yield f"{prefix}{each.name}", each.read_bytes()


def _check_folders(folder: Path, files: dict[str, bytes]) -> None:
    """Raise NotADirectoryError where a file is in the place of a folder, before anything is written."""
    for place in {parent for name in files for parent in (folder / name).parents}:
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(20, "is a file, and has to be a folder", str(place))


def _write(path: Path, data: bytes) -> bool:
    """Write a new file, and the folders above it; return False if it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            if path.name == ".env":  # it holds secrets
                path.chmod(0o600)
            file.write(data)
    except FileExistsError:
        return False
    return True

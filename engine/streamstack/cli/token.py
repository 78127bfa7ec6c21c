"""`streamstack token`: create credentials for testing endpoints."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from time import time
from typing import Any, NoReturn

import click

from streamstack.connections.authentication import own_secret
from streamstack.connections.tokens import Key, private_key, secret_key, sign
from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.authentication import ApiKey, Jwt, Method, Methods, digest_of, refuse_name
from streamstack.language.findings import write_text
from streamstack.language.names import did_you_mean
from streamstack.language.project import Checked, find_root, read_project
from streamstack.language.values import parse_duration

#: Random bytes of an API key: 43 characters.
_BYTES = 32


@click.command(short_help="Create a JWT or an API key for testing.")
@click.option("--auth", "name", help="Name under `authentication`.  [default: the only one]")
@click.option("--new", metavar="NAME", help="Create the first API key of a new authentication of this name.")
@click.option(
    "--claim",
    "claims",
    multiple=True,
    metavar="NAME=VALUE",
    help="Claim. The value is parsed as JSON if it is valid JSON.",
)
@click.option("--scope", "scopes", multiple=True, help="Scope. Repeat for each scope.")
@click.option("--expires", default="1h", show_default=True, help="Time until the token expires.")
@click.option(
    "--key",
    "key_file",
    type=click.File("r"),
    help="File with the private key in PEM, if the settings contain only the public key.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, path_type=Path),
    help="Project folder.  [default: definitions, or the current folder]",
)
def token(
    name: str | None,
    *,
    new: str | None,
    claims: tuple[str, ...],
    scopes: tuple[str, ...],
    expires: str,
    key_file: Any,
    directory: Path | None,
) -> None:
    """Create a token that the endpoints of a project accept, signed with the secret in its settings.

    For an API key authentication, create a new key, and print the hash to add to streamstack.yaml. --new prints
    all the lines that a project without API keys needs.

    Use it for testing and for your own scripts. Keep the secret safe: anyone who can read it can create valid
    tokens.
    """
    if new is not None:
        _make_first_key(new)
        return
    checked = _read(directory or (Path("definitions") if Path("definitions").is_dir() else Path()))
    method = _chosen(checked.settings.authentication, name)
    if isinstance(method, ApiKey):
        _make_key(method)
        return
    try:
        seconds = parse_duration(expires)
        extra = dict(_claim(text) for text in claims)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    now = int(time())
    made: dict[str, Any] = {"iat": now, "exp": now + max(int(seconds), 1)} | method.own_claims
    if scopes:
        made["scope"] = " ".join(scopes)
    try:
        key, algorithm = _signing(method, None if key_file is None else key_file.read(), checked)
        click.echo(sign(made | extra, key, algorithm))
    except RunError as error:
        _give_up(error.message)


def _read(folder: Path) -> Checked:
    checked = read_project(find_root(folder), REGISTRY, os.environ, check_environment=True)
    settings = [
        each for each in checked.findings if each.severity == "error" and Path(each.file).name == "streamstack.yaml"
    ]
    if settings:
        click.echo(write_text(settings, checked.sources), nl=False, err=True)
        _give_up("no token is created: fix the settings first")
    return checked


def _chosen(methods: Methods, name: str | None) -> Method:
    if not methods:
        _give_up(
            "streamstack.yaml has no `authentication`: `streamstack token --new partners` creates an API key and "
            "prints the lines to add"
        )
    if name is None and len(methods) == 1:
        return next(iter(methods.values()))
    if name is None:
        raise click.UsageError(f"say which with --auth: {', '.join(methods)}")
    if name not in methods:
        raise click.UsageError(f"unknown authentication `{name}`{did_you_mean(name, methods)}")
    return methods[name]


def _signing(method: Jwt, pem: str | None, checked: Checked) -> tuple[Key, str]:
    """Return the key to sign with, and how."""
    if pem is not None:
        key, algorithm = private_key(pem)
        taken = [each for each in method.algorithms if each in key.algorithms]
        if not taken:
            _give_up(f"the key signs with {algorithm}, and `{method.name}` takes {', '.join(method.algorithms)}")
        return key, algorithm if algorithm in taken else taken[0]
    secret = own_secret(checked.folder, method.name) if method.own else method.secret
    if secret is None:
        _give_up(f"`{method.name}` checks what others have signed: give the private key with --key FILE")
    return secret_key(secret, method.algorithms), method.algorithms[0]


def _make_key(method: ApiKey) -> None:
    """Print a new key, and the hash of it to add to the settings."""
    click.echo(f"the key is shown once. Under authentication.{method.name}.keys, add: {_print_key()}", err=True)


def _make_first_key(name: str) -> None:
    """Print a new key, and the settings in which it is the only one."""
    if fault := refuse_name(name):
        raise click.UsageError(": ".join(fault))
    hashed = _print_key()
    click.echo(
        "the key is shown once. Add to streamstack.yaml:\n\n"
        f"authentication:\n  {name}:\n    type: apiKey\n    keys:\n      - {hashed}\n\n"
        f"and to each endpoint that requires a key:\n\nauthentication: {name}",
        err=True,
    )


def _print_key() -> str:
    """Print a new key on standard output; return its hash, as the settings contain it."""
    key = secrets.token_urlsafe(_BYTES)
    click.echo(key)
    return f"sha256:{digest_of(key).hex()}"


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"a claim is written name=value, not {text!r}")
    if name == "sub":
        return name, value  # always a text, whatever it looks like
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _give_up(reason: str) -> NoReturn:
    click.echo(f"streamstack: {reason}", err=True)
    raise click.exceptions.Exit(2)

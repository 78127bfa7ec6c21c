"""`streamstack import`: turn a curl command into an endpoint that relays the request."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from streamstack.cli import give_up
from streamstack.cli.curl import CurlError, read_curl
from streamstack.cli.relay import make_relay


@click.command(
    "import",
    short_help="Turn a curl command into an endpoint.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("words", metavar="curl COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="New file to write, instead of printing.")
@click.option("--path", help="Path of the endpoint.  [default: made of the URL]")
@click.pass_context
def import_(context: click.Context, words: tuple[str, ...], *, out: Path | None, path: str | None) -> None:
    """Turn a curl command, as API documentations show it, into an endpoint that relays the request.

    Write the command in single quotes, `streamstack import curl 'https://... -H ...'`, or `-` to read it from
    standard input; then `$VARIABLES` become `<< env.VARIABLE >>`. Requests to language models use llm.chat, others
    http.stream or http.request. What is likely to vary becomes an input. Keys are never written: they are read
    from environment variables. Notes on standard error name these, and what was left out.

    Exit codes: 0 if the endpoint was written, 2 if the command can't be read.
    """
    try:
        relay = make_relay(read_curl(_command(words)), path)
    except CurlError as error:
        give_up(context, str(error))
    if out is None:
        click.echo(relay.text, nl=False)
    else:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("x", encoding="utf-8") as file:
                file.write(relay.text)
        except FileExistsError:
            give_up(context, f"{out}: exists; write another name after --out")
        except OSError as error:
            give_up(context, f"{error.filename}: {error.strerror}")
    for note in relay.notes:
        click.echo(f"note: {note}", err=True)


def _command(words: tuple[str, ...]) -> str | list[str]:
    """Return the text of a command, or its words where the shell has split it."""
    if words[0].startswith("curl ") and len(words) == 1:
        return words[0]
    if words[0] != "curl":
        raise CurlError(f"`{words[0][:40]}` can't be imported: write `streamstack import curl '...'`")
    if words[1:] == ("-",):
        text = sys.stdin.read().strip().removeprefix("$ ")
    elif len(words) == 2 and (re.search(r"[\s'\"]", words[1]) or words[1] in ("", "curl")):
        text = words[1].strip().removeprefix("$ ")
    else:
        text = None
    other = re.match(r"([A-Za-z][\w-]*)(?:\s|$)", " ".join(words[1:]) if text is None else text)
    if other is not None and other[1] not in ("curl", "localhost"):
        raise CurlError(f"`{other[1][:20]} ...` is not a curl command")
    if text is None:
        return list(words)
    return text if text.startswith("curl") else f"curl {text}"

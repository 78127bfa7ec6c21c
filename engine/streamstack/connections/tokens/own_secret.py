"""The secret of an authentication that was given none: made once, and kept where only its owner can read it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from streamstack.errors import RunError

log = structlog.get_logger("streamstack.server")

#: Random bytes of a secret.
_BYTES: Final = 48


def own_secret(folder: Path, name: str) -> str:
    """Return the secret that a project keeps below its folder `.streamstack`; make it where there is none.

    Raises RunError ``template`` where it can't be kept: its message is for the author alone.
    """
    file = folder / "secrets" / name
    try:
        if not file.exists():
            _make(file)
        _close(file)
        _keep_out(folder)
        secret = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise RunError(
            "template",
            f"the secret of `authentication.{name}` can't be kept in {file} ({reason}): "
            "give it one, from the environment",
            final=True,
        ) from None
    if len(secret) < _BYTES:
        raise RunError(
            "template", f"{file} holds no secret: delete it, and another one is made", final=True
        )
    return secret


def _close(file: Path) -> None:
    """See to it that nobody but its owner reads a secret: copied from elsewhere, it may be open to all.

    Raises OSError where that can't be mended.
    """
    mode = file.stat().st_mode
    if not mode & 0o077:
        return
    file.chmod(0o600)
    log.warning(
        "secret-was-open",
        file=str(file),
        mode=f"{mode & 0o777:o}",
        hint="others on this machine could read it: delete it, and another one is made",
    )


def _keep_out(folder: Path) -> None:
    """See to it that no version control takes the folder in, as the embedded database does."""
    # It may be there, or in a folder that can only be read.
    with suppress(OSError), (folder / ".gitignore").open("x", encoding="utf-8") as ignored:
        ignored.write("*\n")


def _make(file: Path) -> None:
    """Write a new secret, unless another process has been quicker: then that one's stands."""
    folder = file.parent.parent
    # Where root serves, the embedded PostgreSQL is another user and has to pass through.
    folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(opened, "w") as written:
            written.write(secrets.token_urlsafe(_BYTES) + "\n")
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()

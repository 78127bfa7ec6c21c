"""Files of SQL that make a database what the definitions need: run once for each change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import asyncpg

from streamstack.errors import RunError
from streamstack.language.sql import first_words

#: The key of the advisory lock under which one server at a time runs the files.
_LOCK: Final = 0x73747265616D  # "stream"

#: What would end the transaction that a file is run in.
_ENDING: Final = frozenset({"commit", "rollback", "abort"})
_RECORD: Final = """
CREATE TABLE IF NOT EXISTS streamstack_setup (
    file text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


async def apply_setup(connection: Any, files: Iterable[Path]) -> list[Path]:
    """Run the files whose content the database has not seen yet, each in a transaction; return them.

    What was run is recorded in the table `streamstack_setup`, by the file's name. Raises RunError ``database`` with the
    line of the file where PostgreSQL refuses it.
    """
    wanted = [(file, await asyncio.to_thread(file.read_text, "utf-8")) for file in files]
    applied: list[Path] = []
    if not wanted:
        return applied
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(_RECORD)
        for file, text in wanted:
            digest = sha256(text.encode()).hexdigest()
            seen = await connection.fetchval(
                "SELECT sha256 FROM streamstack_setup WHERE file = $1", file.name
            )
            if seen == digest:
                continue
            await _apply(connection, file, text, digest)
            applied.append(file)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    return applied


async def _apply(connection: Any, file: Path, text: str, digest: str) -> None:
    for word, start in first_words(text):
        if word in _ENDING:
            line = text.count("\n", 0, start) + 1
            raise RunError(
                "database",
                f"{file}:{line}: {word.upper()} in a setup file, which is run in one transaction: leave it out",
                final=True,
            )
    try:
        async with connection.transaction():
            await connection.execute(text)
            await connection.execute(
                "INSERT INTO streamstack_setup (file, sha256) VALUES ($1, $2) "
                "ON CONFLICT (file) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()",
                file.name,
                digest,
            )
    except asyncpg.PostgresError as error:
        position = getattr(error, "position", None)
        line = text.count("\n", 0, int(position) - 1) + 1 if position else 1
        raise RunError(
            "database",
            f"{file}:{line}: {error.message or error} ({error.sqlstate})",
            details={"code": error.sqlstate, "message": str(error)},
            final=True,
        ) from error

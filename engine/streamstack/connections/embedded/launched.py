"""The server's side of the launcher. What is here blocks: it is called in a thread of its own."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streamstack.connections.embedded.faults import EmbeddedError

#: Seconds; the launcher has shorter ones of its own.
START: Final = 180.0
STOP: Final = 30.0
#: Where the launcher finds this package; after the standard library, whose names stay its own.
_PACKAGES: Final = str(Path(__file__).parents[3])
_PROGRAM: Final = (
    f"import sys; sys.path.append({_PACKAGES!r})\n"
    "from streamstack.connections.embedded.launch import main\n"
    "main()"
)


@dataclass(slots=True)
class Launched:
    """A PostgreSQL that this process started. ``postmaster`` is the process id of the server itself."""

    host: str
    port: int
    postmaster: int
    _process: subprocess.Popen[bytes] = field(repr=False)

    def alive(self) -> bool:
        """Tell whether it still runs."""
        if self._process.poll() is not None:
            return False
        try:
            os.kill(self.postmaster, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def disown(self) -> None:
        """Close what this process has of it, which was forked off the one that started it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.returncode = 0  # it is not ours to wait for

    def stop(self) -> None:
        """End it and wait until it is gone; harmless where it is."""
        _end(self._process)


def launch(
    folder: Path, bin_folder: Path, settings: Mapping[str, str], roles: Mapping[str, str]
) -> Launched:
    """Start PostgreSQL on a `.streamstack` folder; ``roles`` (user, database) is what the lock tells others.

    Raises EmbeddedError.
    """
    task = {
        "folder": str(folder),
        "bin": str(bin_folder),
        "settings": dict(settings),
        "roles": dict(roles),
        "parent": os.getpid(),
    }
    process = subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        # Ctrl-C in a terminal is the server's to answer.
        start_new_session=True,
    )
    try:
        answer = _answer(process)
        return Launched(answer["host"], answer["port"], answer["pid"], process)
    except BaseException:
        _end(process)
        raise


def _answer(process: subprocess.Popen[bytes]) -> Mapping[str, Any]:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START):
            raise EmbeddedError(f"PostgreSQL did not start within {START:g} seconds")
    line = process.stdout.readline()
    with suppress(ValueError):
        answer = json.loads(line)
        if "error" in answer:
            raise EmbeddedError(answer["error"])
        if "host" in answer:
            return dict(answer)
    process.kill()
    said = (line + process.stdout.read(65536)).decode("utf-8", "replace").strip()
    raise EmbeddedError(f"PostgreSQL's launcher failed: {said or process.wait()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            # Said, since a forked worker may hold the pipe open.
            process.stdin.write(b"stop\n")
            process.stdin.close()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()

"""The log of the embedded PostgreSQL."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from streamstack.connections.embedded.logfile import Logfile


def test_log_is_bounded(tmp_path: Path) -> None:
    """However much is written, the newest is there, and no more than twice the limit."""
    path = tmp_path / "postgres.log"
    for _ in range(2):
        log = Logfile(path, limit=1000)
        for number in range(1000):
            log.write(f"line {number}\n".encode())
        log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["postgres.log", "postgres.log.1"]
    assert sum(file.stat().st_size for file in files) < 2 * 1020
    assert path.read_text().endswith("line 999\n")
    assert log.recent().splitlines()[-1] == "line 999"


def test_lost_log_stops_nothing(tmp_path: Path) -> None:
    """Where it can't begin anew, lines are lost, and that is all."""
    folder = tmp_path / "folder"
    folder.mkdir()
    log = Logfile(folder / "postgres.log", limit=10)
    (folder / "postgres.log").unlink()
    folder.rmdir()
    for _ in range(3):
        log.write(b"0123456789")
    log.close()
    assert log.recent() == "0123456789" * 3


def test_descriptor_of_another_file_is_let_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log can't begin anew, the old one stays open, so that its number becomes no other file's."""
    log = Logfile(tmp_path / "postgres.log", limit=10)

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    log.write(b"0123456789ab\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        log.write(b"lost\n")
    with (tmp_path / "another").open("wb") as another:
        log.close()
        another.write(b"mine")
    assert (tmp_path / "another").read_bytes() == b"mine"

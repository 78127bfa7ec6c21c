"""The log of the embedded PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from streamstack.connections.embedded.logfile import Logfile


def test_log_is_bounded(tmp_path: Path) -> None:
    """However much is written, the newest is there, and no more than twice the limit."""
    path = tmp_path / "postgres.log"
    for _ in range(2):
        log = Logfile(path, limit=1000)
        for number in range(1000):
            log.write(f"line {number}\n".encode())
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
    assert log.recent() == "0123456789" * 3

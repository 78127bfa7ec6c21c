"""Files of a project, as they lie in its folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from streamstack.errors import Diagnostic
from streamstack.language.project import read_texts


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    """A pipe, a device, a socket may have no end: they are told, and the others are read."""
    place = tmp_path / "odd.yaml"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(place))
    (tmp_path / "good.yaml").write_text("name: x\n")
    findings: list[Diagnostic] = []
    texts = read_texts([place, tmp_path / "good.yaml"], findings)
    assert list(texts.values()) == ["name: x\n"]
    assert ["not a regular file" in finding.message for finding in findings] == [True]

"""Files of a project, as they lie in its folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.project import read_project, read_texts


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    """A pipe, a device, a socket may have no end: they are reported, and the others are read."""
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


@pytest.mark.parametrize(("path", "codes"), [("/simulator/v1", []), ("/simulatr/v1", ["unknown-path"])])
def test_the_address_of_a_model_without_a_key_is_answered(tmp_path: Path, path: str, codes: list[str]) -> None:
    """A path alone is this server's own, where an endpoint has to answer below it."""
    model = f"{{provider: openai, model: m, withoutKey: {path}}}"
    (tmp_path / "streamstack.yaml").write_text(f"models:\n  chat: {model}\n")
    steps = "functionStack: [{stream: x}]"
    (tmp_path / "a.yaml").write_text(f"method: POST\npath: /simulator/{{v}}/chat/completions\n{_INPUT}{steps}\n")
    found = read_project(tmp_path, REGISTRY, {}).findings
    assert [each.code for each in found] == codes
    assert [each.line for each in found] == [2] * len(codes)


_INPUT = "inputParameters: {v: {type: text}}\n"

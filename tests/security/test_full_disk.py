"""A disk without room: uploads are refused, and say so."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.authenticating import project

UPLOAD = """
method: POST
path: /upload
responseType: json
inputParameters: {file: {type: file, maxSize: 4MB}}
functionStack: [{return: << input.file.size >>}]
"""


async def test_upload_to_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered with 503, and the log names the reason; a small one stays in memory and is served."""

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    kind = "multipart/form-data; boundary=X"
    head = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with capture_logs() as logged:
        async with project(tmp_path, "", UPLOAD) as server:
            large = head + b"x" * 2_000_000 + b"\r\n--X--\r\n"
            small = head + b"x" * 2_000 + b"\r\n--X--\r\n"
            refused = await server.ask("POST", "/upload", large, Content_Type=kind)
            taken = await server.ask("POST", "/upload", small, Content_Type=kind)
    assert (refused.status, taken.status, taken.body) == (503, 200, b"2000")
    told = [each for each in logged if each["event"] == "upload-not-kept"]
    assert [each["reason"] for each in told] == ["No space left on device"]

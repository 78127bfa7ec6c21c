"""Uploaded files: small in memory, large on disk, gone afterwards."""

from __future__ import annotations

import asyncio

import pytest

from streamstack.errors import RunError
from streamstack.language.values import kind, to_text
from streamstack.runtime.values import IN_MEMORY, File


@pytest.mark.parametrize("size", [0, 10, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
async def test_file_gives_back_what_was_written(size: int) -> None:
    """The bytes come back whole and in pieces, for several readers at once, wherever they are kept."""
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    file = File("a.bin", "application/octet-stream")
    for at in range(0, size, 100_000):
        await file.write(data[at : at + 100_000])

    async def pieces() -> bytes:
        return b"".join([piece async for piece in file.pieces(65_537)])

    assert file.size == size
    assert await file.read() == data
    assert list(await asyncio.gather(pieces(), pieces())) == [data, data]
    file.close()
    file.close()
    assert await file.read() == b""


async def test_file_has_properties_and_no_text() -> None:
    """Expressions see name, type and size; a file is not a text."""
    file = File("../../etc/pass\nwd", "text/plain")
    await file.write(b"abc")
    assert (file["name"], file["contentType"], file["size"]) == ("passwd", "text/plain", 3)
    assert kind(file) == "file"
    with pytest.raises(KeyError):
        file["path"]
    with pytest.raises(RunError):
        to_text(file)


def test_name_is_the_last_part_only() -> None:
    """A client's name for a file leads nowhere."""
    assert File("C:\\temp\\a.txt", "").name == "a.txt"
    assert File("/etc/passwd", "").name == "passwd"
    assert len(File("a" * 999, "").name) == 255

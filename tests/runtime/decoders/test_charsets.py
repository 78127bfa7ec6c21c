"""Charsets other than UTF-8, as their bytes come."""

from __future__ import annotations

import pytest

from streamstack.runtime.decoders.text import transcoder


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("utf-16", "hé".encode("utf-16"), "hé"),
        ("utf-16", "\ufeffhé".encode("utf-16-be"), "hé"),
        ("utf-16", b"\x00\xd8a\x00", "\ufffda"),
        ("utf-32", b"a\0\0\0", "a"),
        ("latin-1", b"\xe9", "é"),
    ],
)
def test_a_charset_is_read_wherever_it_is_cut(charset: str, data: bytes, text: str) -> None:
    """Without a byte order mark UTF-16 is little-endian; nothing an upstream sends is an error of ours."""
    for cut in range(len(data) + 1):
        transcode = transcoder(charset)
        taken = transcode(data[:cut], False) + transcode(data[cut:], False) + transcode(b"", True)
        assert taken.decode() == text

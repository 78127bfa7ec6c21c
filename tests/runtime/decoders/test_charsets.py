"""Charsets other than UTF-8, as their bytes come."""

from __future__ import annotations

import pytest

from streamstack.runtime.decoders import Options, decoder_for
from streamstack.runtime.decoders.decoder import transcoder
from tests.runtime.decoders.cutting import items_of


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("utf-16", "hé".encode("utf-16"), "hé"),
        ("utf-16", "\ufeffhé".encode("utf-16-be"), "hé"),
        ("utf-16", b"\x00\xd8a\x00", "\ufffda"),
        ("utf-32", b"a\0\0\0", "a"),
        ("latin-1", b"\xe9", "é"),
        ("auto", "ab€é".encode(), "ab€é"),
        ("auto", b"ab \x80 \xe9", "ab € é"),
        ("auto", b"\xe9", "é"),
        ("auto", "é".encode() + b"\xe9", "é\ufffd"),
        ("Auto", b"plain", "plain"),
    ],
)
def test_a_charset_is_read_wherever_it_is_cut(charset: str, data: bytes, text: str) -> None:
    """Without a byte order mark UTF-16 is little-endian; nothing an upstream sends is an error of ours."""
    for cut in range(len(data) + 1):
        transcode = transcoder(charset)
        taken = transcode(data[:cut], False) + transcode(data[cut:], False) + transcode(b"", True)
        assert taken.decode("utf-8", "replace") == text


@pytest.mark.parametrize("charset", [None, "auto", "windows-1252", "utf-8", "utf-16-be"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_a_byte_order_mark_counts_for_more(charset: str | None, encoding: str) -> None:
    """UTF-16 and UTF-8 with a mark are read as such, whatever was said."""
    data = "\ufeffname\r\nZoë €\r\n".encode(encoding)
    options = Options(charset=charset)
    assert items_of(lambda: decoder_for("csv", options), data) == [{"name": "Zoë €"}]
    assert items_of(lambda: decoder_for("lines", options), data) == ["name", "Zoë €"]

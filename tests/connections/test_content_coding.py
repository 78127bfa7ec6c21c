from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstack.connections.http_client import PIECE, decode, decoders_for
from streamstack.errors import RunError


def raw_deflate(data: bytes) -> bytes:
    """Compress without zlib's frame, as some servers do."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:]) + b"\0" * 7,
    "deflate": zlib.compress,
    "Deflate ": raw_deflate,
    "br": brotli.compress,
    "gzip, identity, br": lambda data: brotli.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("name", CODINGS)
@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=60))
def test_coding_is_undone_however_it_is_cut(name: str, data: bytes) -> None:
    """What was encoded comes out, cut at every byte, and its end is known."""
    wire = CODINGS[name](data)
    for at in range(len(wire) + 1):
        codings = decoders_for(name)
        found = b"".join(piece for part in (wire[:at], wire[at:]) if part for piece in decode(codings, part))
        assert found == data
        assert all(coding.complete for coding in codings)
    codings = decoders_for(name)
    whole = b"".join(piece for at in range(len(wire)) for piece in decode(codings, wire[at : at + 1]))
    assert whole == data


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_what_is_flushed_comes_at_once(name: str) -> None:
    """An event that the server flushed is decoded before the next one comes."""
    if name == "br":
        packer = brotli.Compressor()
        parts = [packer.process(b"one") + packer.flush(), packer.process(b"two") + packer.finish()]
    else:
        inflate = zlib.compressobj(wbits=31 if name == "gzip" else 15)
        parts = [
            inflate.compress(b"one") + inflate.flush(zlib.Z_SYNC_FLUSH),
            inflate.compress(b"two") + inflate.flush(),
        ]
    codings = decoders_for(name)
    assert [b"".join(decode(codings, part)) for part in parts] == [b"one", b"two"]


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_bomb_comes_in_small_pieces(name: str) -> None:
    """A hundred megabytes out of a few kilobytes are handed on in pieces; memory stays flat."""
    size = 100 << 20
    if name == "br":
        wire = brotli.compress(b"\0" * size, quality=5)
    else:
        packer = zlib.compressobj(wbits=31 if name == "gzip" else 15)
        wire = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(100)) + packer.flush()
    codings = decoders_for(name)
    tracemalloc.start()
    try:
        total = 0
        for piece in decode(codings, wire):
            total += len(piece)
            assert len(piece) <= 2 * PIECE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak < 4 << 20


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_cut_off_coding_is_not_complete(name: str) -> None:
    """An end in the middle of the coding is seen."""
    wire = CODINGS[name](b"some text that is long enough" * 9)
    codings = decoders_for(name)
    b"".join(decode(codings, wire[:-6]))
    assert not all(coding.complete for coding in codings)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_what_is_not_so_encoded_is_invalid(name: str) -> None:
    """It is the upstream's fault, told as such."""
    with pytest.raises(RunError, match="is not") as caught:
        b"".join(decode(decoders_for(name), b"\x1fNo such thing at all" * 20))
    assert caught.value.code == "invalid-chunk"


@pytest.mark.parametrize("name", ["zstd", "gzip, gzip, gzip, gzip", "compress"])
def test_coding_that_nobody_asked_for_is_refused(name: str) -> None:
    """Zstd and endless layers are not read."""
    with pytest.raises(RunError, match="not read"):
        decoders_for(name)


@pytest.mark.parametrize("name", [None, "", "identity", " , identity"])
def test_no_coding_is_none(name: str | None) -> None:
    """Nothing is undone where nothing was done."""
    codings = decoders_for(name)
    assert codings == []
    assert list(decode(codings, b"as it is")) == [b"as it is"]

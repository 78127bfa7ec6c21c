"""Bytes of other charsets as UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

#: Turns bytes of a charset, as they come, into UTF-8; the flag tells the end of the input.
Transcode = Callable[[bytes, bool], bytes]

#: What stands for: UTF-8 if the first characters beyond ASCII are, else what Windows writes in the West.
AUTO: Final = "auto"


def transcoder(charset: str) -> Transcode:
    """Return what turns bytes of a charset into UTF-8. Raises LookupError for a charset that is not known."""
    if charset.lower() == AUTO:
        return _guess()
    try:
        b"aaaa".decode(charset, "replace")  # refuses codecs that are no charset, such as base64
    except ValueError:
        raise LookupError(charset) from None
    decoder = codecs.getincrementaldecoder(charset)("replace")

    def transcode(data: bytes, final: bool) -> bytes:  # noqa: FBT001
        nonlocal decoder
        held = bytes(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final)
        except UnicodeError:
            # UTF-16 or UTF-32 without a mark of its byte order: little-endian, as the Encoding Standard has it.
            name = f"{codecs.lookup(charset).name}-le"
            decoder = codecs.getincrementaldecoder(name)("replace")
            text = decoder.decode(held + data, final)
        return text.encode("utf-8", "replace")

    return transcode


def _guess() -> Transcode:
    """Return what turns UTF-8 or windows-1252 into UTF-8: the first character beyond ASCII decides."""
    utf_8 = codecs.getincrementaldecoder("utf-8")()
    found: Transcode | None = None

    def transcode(data: bytes, final: bool) -> bytes:  # noqa: FBT001
        nonlocal found
        if found is None:
            held = bytes(utf_8.getstate()[0])
            data = held + data
            if data.isascii():
                return data
            try:
                utf_8.reset()
                text = utf_8.decode(data, final)
            except UnicodeDecodeError as error:
                # What is valid before the fault decides: one bad byte makes no other file of UTF-8.
                is_utf_8 = not data[: error.start].isascii()
                found = (lambda data, _: data) if is_utf_8 else transcoder("windows-1252")
            else:
                if text.isascii():
                    return text.encode()
                found = lambda data, _: data  # noqa: E731
        return found(data, final)

    return transcode

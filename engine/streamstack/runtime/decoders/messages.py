"""Decodes messages, of which each is complete: those of a WebSocket."""

from __future__ import annotations

from typing import Any, Final

from streamstack.errors import RunError
from streamstack.runtime.decoders import FORMATS, Options, decoder_for
from streamstack.runtime.decoders.decoder import Decoder, NotJsonError, excerpt, parse_json

#: Formats in which each message is one item. In the others its lines count.
_WHOLE: Final = frozenset({"auto", "json", "text", "bytes"})


class MessageDecoder:
    """Decodes the messages of one stream.

    Args:
        name: One of the formats of `decode`, or `auto`: a text message is parsed as JSON if it is valid JSON, otherwise
            it is a text; a binary message is bytes.
        options: What may be said about the format.
        sender: Where the messages come from, for errors.
    """

    def __init__(self, name: str, options: Options, sender: str) -> None:
        assert name in _WHOLE or name in FORMATS
        self._name = name
        self._options = options
        self._sender = sender
        self._number = 0
        self._skipped = 0
        self._lines: Decoder | None = None if name in _WHOLE else decoder_for(name, options)

    @property
    def skipped(self) -> int:
        """How many messages were invalid and left out."""
        return self._skipped if self._lines is None else self._lines.skipped

    def feed(self, data: bytes, *, is_text: bool) -> list[Any]:
        """Return the items of a message.

        Raises RunError ``invalid-chunk`` where that is what the author asked for.
        """
        self._number += 1
        if self._lines is not None:
            return self._feed_lines(self._lines, data)
        if self._name == "bytes" or (self._name == "auto" and not is_text):
            return [data]
        try:
            if self._name != "text":
                try:
                    return [parse_json(data)]
                except NotJsonError:
                    if self._name == "json":
                        raise
            return [data.decode()]
        except ValueError as error:
            return self._refuse(data, str(error) if self._name == "json" else "is not UTF-8")

    def _feed_lines(self, decoder: Decoder, data: bytes) -> list[Any]:
        """Decode a message of lines, the last of which needs no line break."""
        items: list[Any] = decoder.feed(data if data.endswith(b"\n") else data + b"\n")
        if decoder.failure is not None:
            raise decoder.failure
        return items

    def _refuse(self, data: bytes, message: str) -> list[Any]:
        number = self._number
        if self._options.on_invalid == "skip":
            self._skipped += 1
            return []
        if self._options.on_invalid == "give":
            text = data.decode("utf-8", "replace")
            return [{"invalid": {"number": number, "text": text, "message": message}}]
        raise RunError(
            "invalid-chunk",
            f"message {number} of {self._sender} {message}",
            status=self._options.status,
            details={"number": number, "text": excerpt(data), "message": message},
        )

"""The ids of resumable streams, and of the chunks in them: `<stream>/<n>`."""

from __future__ import annotations

import re
from secrets import token_urlsafe
from typing import Final, NamedTuple

from streamstack.errors import RunError
from streamstack.runtime.input_faults import invalid

#: An id of ours: 128 random bits.
STREAM_ID = re.compile(r"[A-Za-z0-9_-]{22}")
#: The number of what stands after everything: 15 digits, as many as are read.
LAST: Final = 999_999_999_999_999
#: What readers are told of a stream whose server is gone.
LOST: Final = "The server that ran this stopped before its end."
# More digits than any stream has chunks are no number of one.
_NUMBER = re.compile(r"[0-9]{1,15}")


class Position(NamedTuple):
    """The last chunk that a reader has: its stream, "" where it does not say, and its number."""

    stream: str
    number: int


def new_stream_id() -> str:
    """Return an id that nobody can guess."""
    return token_urlsafe(16)


def read_position(text: str) -> Position | None:
    """Read `<stream>/<n>`, or a number alone; None for what is neither."""
    stream, slash, number = text.strip().rpartition("/")
    if not _NUMBER.fullmatch(number) or (slash and not STREAM_ID.fullmatch(stream)):
        return None
    return Position(stream, int(number))


def unknown_stream() -> RunError:
    """Return the one answer for what there is not, for what is another's, and for what is no id."""
    return RunError("unknown-stream", "there is no such stream, or it was kept long enough")


def bad_position(name: str, place: str) -> RunError:
    """Return the error of a position that can't be read."""
    message = "must be the id of a chunk of this stream, or its number"
    return invalid([{"in": place, "name": name, "message": message}])

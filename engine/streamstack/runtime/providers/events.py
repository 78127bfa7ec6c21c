"""A model's answer decoded: its events become items one by one, none is kept."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import orjson

from streamstack.errors import RunError
from streamstack.runtime.decoders.decoder import Halted, OnInvalid
from streamstack.runtime.decoders.parsing import NotJsonError, SurrogateJoiner
from streamstack.runtime.decoders.sse import DONE, SseDecoder
from streamstack.runtime.providers.provider import AnswerReader

#: How many events are looked at, before an answer is taken for one whose events are never alike.
_LEARNERS: Final = 4
#: Stands for another text.
_OTHER: Final = b'"another text"'
#: What no event begins with.
_NEVER: Final = b"\0"


class AnswerDecoder(SseDecoder):
    """Gives the items that a reader makes of the events of an answer.

    Most servers write all pieces of the text in one form: identifiers, model and time are always the same. So what
    stands before and after the text is learnt, and of an event that begins and ends like this only the text is read.

    ``alive`` tells that an event has come that is more than a heartbeat. What a reader raises is the ``failure``, so
    that the items before it are not lost. Once the reader has ended, nothing that follows is read.
    """

    __slots__ = ("_after", "_before", "_events", "_reader", "alive", "learners")

    def __init__(self, reader: AnswerReader, on_invalid: OnInvalid, largest: int) -> None:
        super().__init__(on_invalid, largest, data="json")
        self._reader = reader
        self._events = 0
        self.learners = _LEARNERS
        self._before, self._after = _NEVER, b""
        self.alive = False

    def _give(self, data: bytes, items: list[Any]) -> None:
        self._give_all([data], items)

    def _give_all(self, datas: list[bytes], items: list[Any]) -> None:
        reader = self._reader
        if reader.ended:
            return
        loads = orjson.loads
        before, after = self._before, self._after
        for data in datas:
            if self._joiner is None and data.startswith(before) and data.endswith(after):
                try:
                    text = loads(data[len(before) : len(data) - len(after)])
                except orjson.JSONDecodeError:
                    text = None  # there is more in it
                if type(text) is str:
                    self._events += 1
                    self.alive = True
                    try:
                        reader.reply.add_text(text, items)
                    except RunError as error:
                        self.failure = error
                        raise Halted from None
                    continue
            if data == DONE:
                self.ended = True
                return
            try:
                value = self._parse(data)
            except NotJsonError as error:
                self._refuse(items, data, str(error))
                continue
            self._events += 1
            if self._joiner is not None:
                for ready in self._joiner.add(value):
                    self._take_event(ready, items)
                continue
            self._take_event(value, items)
            if self.learners and self._learn(data, value):
                before, after = self._before, self._after

    def _take_event(self, value: Any, items: list[Any]) -> None:
        """Give an event to the reader. Raises Halted where that ends the answer."""
        reader = self._reader
        if type(value) is not dict:
            told = f"an event of {reader.host} is not an object, as all of its are"
            self.failure = RunError("invalid-chunk", told)
            raise Halted
        if reader.has_heartbeats and reader.is_heartbeat(value):
            return
        self.alive = True
        try:
            reader.take(value, items)
        except RunError as error:
            self.failure = error
            raise Halted from None
        if reader.ended:
            raise Halted

    def _join(self, items: list[Any], joiner: SurrogateJoiner, *, final: bool) -> list[Any]:
        # What waits are events, before the reader takes them.
        if final or self.failure is not None or self.ended:
            with suppress(Halted):
                for value in joiner.end():
                    self._take_event(value, items)
        if joiner.is_empty:
            self._joiner = None
        return items

    def _learn(self, data: bytes, value: Mapping[str, Any]) -> bool:
        """Learn how the pieces of the text are written, of an event that holds one; tell whether it does."""
        said = self._reader.piece(value)
        if not said:
            return False
        self.learners -= 1
        before, found, after = data.rpartition(orjson.dumps(said))
        try:
            other = orjson.loads(before + _OTHER + after)
        except orjson.JSONDecodeError:
            return False
        # Another text in this place must be the piece of the text; all else is as it was.
        if not found or self._reader.piece(other) != "another text":
            return False
        self._before, self._after = before, after
        return True

    def _given(self, items: list[Any]) -> int:
        return self._events

"""A model's answer decoded: its events become items one by one, none is kept."""

from __future__ import annotations

from typing import Any

import orjson

from streamstack.errors import RunError
from streamstack.runtime.decoders.decoder import Halted, OnInvalid
from streamstack.runtime.decoders.sse import DONE, SseDecoder
from streamstack.runtime.providers.provider import AnswerReader


class AnswerDecoder(SseDecoder):
    """Gives the items that a reader makes of the events of an answer.

    ``alive`` tells that an event has come that is more than a heartbeat. What a reader raises is the ``failure``, so
    that the items before it are not lost. Once the reader has ended, nothing that follows is read.
    """

    __slots__ = ("_events", "_reader", "alive")

    def __init__(self, reader: AnswerReader, on_invalid: OnInvalid, largest: int) -> None:
        super().__init__(on_invalid, largest, data="json")
        self._reader = reader
        self._events = 0
        self.alive = False

    def _give(self, data: bytes, items: list[Any]) -> None:
        self._give_all([data], items)

    def _give_all(self, datas: list[bytes], items: list[Any]) -> None:
        reader = self._reader
        if reader.ended:
            return
        loads, take, has_heartbeats = orjson.loads, reader.take, reader.has_heartbeats
        for data in datas:
            try:
                value = loads(data)
            except orjson.JSONDecodeError as error:
                if data == DONE:
                    self.ended = True
                    return
                self._refuse(items, data, f"is not JSON: {error}")
                continue
            self._events += 1
            if type(value) is not dict:
                told = f"an event of {reader.host} is not an object, as all of its are"
                self.failure = RunError("invalid-chunk", told)
                raise Halted
            if has_heartbeats and reader.is_heartbeat(value):
                continue
            self.alive = True
            try:
                take(value, items)
            except RunError as error:
                self.failure = error
                raise Halted from None
            if reader.ended:
                raise Halted

    def _given(self, items: list[Any]) -> int:
        return self._events

"""What a model has said so far, whoever it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamstack.errors import RunError
from streamstack.formats.items import STOP, TOOL_CALLS, Item, finish_item, usage_item
from streamstack.runtime.providers.conversation import read_arguments


class Reply:
    """The answer as it grows; its `view` is what `message` shows.

    ``largest`` is how many characters an answer may have.
    """

    def __init__(self, provider: str, largest: int) -> None:
        self.provider = provider
        self.reason: str | None = None
        self.calls: list[dict[str, Any]] = []
        self.reasoning: list[Any] = []
        self._pieces: list[str] = []
        self._usage: Item | None = None
        self._figures: dict[str, int] = {}
        self._left = largest
        self._largest = largest

    def add_text(self, text: str, items: list[Item]) -> None:
        """Take the next piece of the text, and give it as an item. Raises as `count` does."""
        if text:
            self._left -= len(text)
            if self._left < 0:
                raise self._over()
            self._pieces.append(text)
            items.append({"type": "text", "text": text})

    def count(self, text: str) -> None:
        """Count what has to be kept.

        Raises RunError ``limit-reached``.
        """
        self._left -= len(text)
        if self._left < 0:
            raise self._over()

    def _over(self) -> RunError:
        return RunError(
            "limit-reached",
            f"the model's answer has more than {self._largest} characters: raise `http.maxBodySize`",
        )

    def add_call(
        self,
        id: str,  # noqa: A002  (as providers call it)
        name: str,
        arguments: str | Mapping[str, Any],
        items: list[Item],
        signature: str | None = None,
    ) -> None:
        """Take a whole tool call, and give it as an item."""
        read = read_arguments(arguments) if isinstance(arguments, str) else dict(arguments)
        call: dict[str, Any] = {"id": id, "name": name, "arguments": read}
        if signature is not None:
            call["signature"] = signature
        items.append({"type": "toolCall", "index": len(self.calls), **call})
        self.calls.append(call)

    def note_usage(self, **figures: Any) -> None:
        """Take figures of what was used; later ones go before earlier ones, and what is no number is none."""
        self._figures |= {
            name: value for name, value in figures.items() if type(value) is int and value >= 0
        }

    def finish(self, reason: str, said: str | None, items: list[Item]) -> None:
        """End the answer: give what was used, then why it ended; ``said`` is the provider's own word for it."""
        # Several providers say "stop" where they mean that tools are to be called.
        self.reason = TOOL_CALLS if reason == STOP and self.calls else reason
        if self._figures:
            self._usage = usage_item(**self._figures)
            items.append(self._usage)
        item = finish_item(self.reason)
        self.reason = item["reason"]
        items.append(item if said is None else {**item, "providerReason": said})

    @property
    def view(self) -> dict[str, Any]:
        """What has come so far: {role, content, toolCalls, finishReason, usage}."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        usage = self._usage
        seen: dict[str, Any] = {
            "role": "assistant",
            "content": self._pieces[0] if self._pieces else "",
            "toolCalls": [dict(call) for call in self.calls],
            "finishReason": self.reason,
            "usage": None
            if usage is None
            else {name: figure for name, figure in usage.items() if name != "type"},
        }
        if self.reasoning:
            seen["reasoning"] = {"provider": self.provider, "blocks": list(self.reasoning)}
        return seen

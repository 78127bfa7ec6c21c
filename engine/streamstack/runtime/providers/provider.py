"""What a provider of models is to us: a request in its own words, and a reader of its answer."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from streamstack.errors import RunError
from streamstack.formats.items import Item
from streamstack.runtime.providers.conversation import Turn
from streamstack.runtime.providers.reply import Reply

#: What providers call errors that may pass.
_PASSING: Final = re.compile(
    r"overloaded|rate_?limit|server_error|api_error|timeout|unavailable|internal|resource_exhausted|"
    r"deadline|aborted|^(?:408|409|425|429|5\d\d)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. ``schema`` is the JSON Schema of its inputs."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chat:
    """What is asked of a model. ``own`` tells that the provider itself is asked, not one that speaks like it."""

    model: str
    turns: tuple[Turn, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    max_tokens: int | None = None
    temperature: Any = None
    own: bool = True

    def system_text(self) -> str | None:
        """Return all that is said to the model beforehand, for providers that take one text."""
        texts = [self.system] if self.system else []
        texts += [turn.text for turn in self.turns if turn.role in ("system", "developer")]
        return "\n\n".join(text for text in texts if text) or None


class AnswerReader(ABC):
    """Makes items of the events of one answer. ``ended`` tells that its end marker was read."""

    #: The name of the provider.
    provider: ClassVar[str]
    #: Whether `is_heartbeat` has to be asked.
    has_heartbeats: ClassVar[bool] = False

    def __init__(self, host: str, largest: int) -> None:
        self.host = host
        self.reply = Reply(self.provider, largest)
        self.ended = False

    @abstractmethod
    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        """Add the items that an event's data gives.

        Raises RunError ``http-status`` for an error that the provider tells.
        """

    def is_heartbeat(self, data: Mapping[str, Any]) -> bool:
        """Whether an event says nothing but that the connection lives."""
        return False

    def piece(self, data: Mapping[str, Any]) -> str | None:
        """Return the piece of the text that an event holds, where `take` would do nothing but add it; else None."""
        return None

    def close(self, items: list[Item], *, marked: bool) -> None:
        """Take note that nothing more comes; ``marked`` where `[DONE]` said so.

        Raises RunError ``stream-lost`` where the answer is not at its end.
        """
        raise lost(self.host)

    def fail(self, data: Mapping[str, Any], error: Any) -> RunError:
        """Return the RunError for an error that the provider tells inside of an answer."""
        return told_error(self.host, data, error)


def lost(host: str) -> RunError:
    """Return the error of an answer that ended before its end marker."""
    return RunError("stream-lost", f"the answer of {host} ended before its end")


def told_error(host: str, data: Any, error: Any) -> RunError:
    """Return the error for one that a provider told in an answer that began well.

    Its own text is in the details alone: it may hold what no client should read.
    """
    about = error if isinstance(error, Mapping) else {"message": error}
    words = [about.get(name) for name in ("type", "status", "code")]
    named = [str(word) for word in words if isinstance(word, (str, int)) and word not in ("", True)]
    word = next((each for each in named if each != "error"), "")
    shown = f": {word}" if re.fullmatch(r"[\w.-]{1,60}", word) else ""
    return RunError(
        "http-status",
        f"{host} told an error in its answer{shown}",
        details={"body": data},
        final=not any(_PASSING.search(each) for each in named),
    )


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider: its address, its words.

    ``keys`` and ``addresses`` are variables of the environment, the first that is set counts. ``path`` gives what
    follows the address, ``headers`` takes the key.
    """

    name: str
    url: str
    keys: tuple[str, ...]
    addresses: tuple[str, ...]
    path: Callable[[str, str], str]
    headers: Callable[[str | None], dict[str, str]]
    body: Callable[[Chat], dict[str, Any]]
    reader: type[AnswerReader]


# What comes from outside has any shape: these give what is expected, or nothing. It was JSON, so its objects are dicts.


def part(data: Any, name: str) -> Mapping[str, Any]:
    """Return an object within an object; an empty one where there is none."""
    found = data.get(name) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def parts(data: Any, name: str) -> list[Mapping[str, Any]]:
    """Return the objects in a list within an object."""
    found = data.get(name) if isinstance(data, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def word(data: Any, name: str) -> str:
    """Return a text within an object; empty where there is none."""
    found = data.get(name) if isinstance(data, dict) else None
    return found if isinstance(found, str) else ""


def merge(body: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body with the author's own options laid over it; null takes a key out."""
    merged = dict(body)
    for name, value in options.items():
        present = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(present, Mapping):
            merged[name] = merge(dict(present), value)
        else:
            merged[name] = value
    return merged

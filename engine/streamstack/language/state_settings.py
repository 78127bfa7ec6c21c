"""The section `state` of streamstack.yaml: where what runs share is kept, and how much of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from streamstack.errors import Diagnostic
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Mapping, Node, Scalar, plain
from streamstack.language.redis_urls import REDIS, RedisUrl, parse_redis
from streamstack.language.suggest import did_you_mean
from streamstack.language.units import parse_size

MEMORY: Final = "memory://"
_WRITE: Final = "write redis://localhost:6379, or memory://"
#: What may stand before the keys of a project, so that several share one Redis.
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{0,100}")


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where state is kept: in the memory of each process, or in one Redis for all of them.

    ``prefix`` stands before the project's keys in Redis. ``max_entries`` holds for cached values and for counters
    alike, in memory; ``max_size`` is in bytes: in memory of all cached values, in Redis of one.
    """

    redis: RedisUrl | None = None
    prefix: str = ""
    max_entries: int = 100_000
    max_size: int = 256 * 1024 * 1024

    @property
    def shared(self) -> bool:
        """Whether other processes and machines share it."""
        return self.redis is not None


def parse_state(
    node: Node | None, defaults: StateSettings = StateSettings()
) -> tuple[StateSettings, list[Diagnostic]]:
    """Return the defaults with what the section changes, and what is wrong with it.

    A value that is wrong leaves its default.
    """
    findings: list[Diagnostic] = []
    if node is None or _is_null(node):
        return defaults, findings
    if not isinstance(node, Mapping):
        hint = "write `state: {url: memory://}`"
        findings.append(find("not-a-mapping", node.mark, "`state` is a mapping.", hint))
        return defaults, findings
    changes: dict[str, Any] = {}
    for key, value in node.items:
        known = _KEYS.get(key.text)
        if known is None:
            message = f"`state` has no `{key.text}`{did_you_mean(key.text, _KEYS)}"
            hint = f"it takes {', '.join(_KEYS)}"
            findings.append(find("unknown-setting", key.mark, message, hint))
            continue
        if _is_null(value):
            continue
        name, parse = known
        try:
            changes[name] = parse(value.value if isinstance(value, Scalar) else plain(value))
        except ValueError as error:
            code = _CODES.get(key.text, "bad-setting")
            findings.append(find(code, value.mark, f"`state.{key.text}`: {error}"))
    return replace(defaults, **changes), findings


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _url(value: Any) -> RedisUrl | None:
    """Return where Redis is; None for the memory. What is wrong with a URL is told without showing it."""
    if not isinstance(value, str):
        raise ValueError(f"the URL of a store is needed here: {_WRITE}")  # noqa: TRY004 - as for every value
    url = value.strip()
    if url in ("", MEMORY, MEMORY.rstrip("/")):  # nothing, as from `env.REDIS_URL | default("")`
        return None
    if not url.lower().startswith(REDIS):
        raise ValueError(f"it begins with none of {', '.join((MEMORY, *REDIS))}: {_WRITE}")
    return parse_redis(url)


def _prefix(value: Any) -> str:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not _PREFIX.fullmatch(text):
        raise ValueError("up to 100 letters, digits and . _ : - are needed here, such as shop")
    return text


def _entries(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value.strip()):
        value = int(value)  # as the environment gives it
    if type(value) is not int or not 1 <= value <= 100_000_000:
        raise ValueError("a whole number from 1 to 100000000 is needed here")
    return value


_KEYS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "url": ("redis", _url),
    "prefix": ("prefix", _prefix),
    "maxEntries": ("max_entries", _entries),
    "maxSize": ("max_size", parse_size),
}
_CODES: Final = {"url": "bad-url", "maxSize": "bad-size"}

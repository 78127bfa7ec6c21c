"""The section `state` of streamstack.yaml: where cached values and counters are kept, and how many."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from streamstack.errors import Diagnostic
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Mapping, Node, Scalar, plain
from streamstack.language.suggest import did_you_mean
from streamstack.language.units import parse_size

MEMORY: Final = "memory://"
_REDIS: Final = re.compile(r"rediss?://|unix://")


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Where state is kept. ``max_entries`` holds for cached values and for counters alike; ``max_size`` is in bytes."""

    url: str = MEMORY
    max_entries: int = 100_000
    max_size: int = 256 * 1024 * 1024


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
        except NotImplementedError as later:
            hint = "write `url: memory://`, or leave it out"
            findings.append(find("not-yet", value.mark, f"`state.url`: {later}", hint))
        except ValueError as error:
            code = "bad-size" if parse is parse_size else "bad-setting"
            findings.append(find(code, value.mark, f"`state.{key.text}`: {error}"))
    return replace(defaults, **changes), findings


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _url(value: Any) -> str:
    if isinstance(value, str) and _REDIS.match(value):
        raise NotImplementedError("this version keeps state in memory only, not in Redis")
    if value != MEMORY:
        raise ValueError(f"the URL of a store is needed here: write {MEMORY}")
    return MEMORY


def _entries(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value.strip()):
        value = int(value)  # as the environment gives it
    if type(value) is not int or not 1 <= value <= 100_000_000:
        raise ValueError("a whole number from 1 to 100000000 is needed here")
    return value


_KEYS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "url": ("url", _url),
    "maxEntries": ("max_entries", _entries),
    "maxSize": ("max_size", parse_size),
}

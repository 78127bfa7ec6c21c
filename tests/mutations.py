"""Valid definitions, changed at random in their characters or their nodes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from streamstack.language.nodes import plain
from streamstack.language.source import read

FOLDER = Path(__file__).parent / "cases" / "valid"
CASES = sorted(
    path for path in FOLDER.glob("*.yaml") if not path.name.endswith(".test.yaml") and path.stem != "settings-live"
)
TEXTS = [path.read_text("utf-8") for path in CASES]
DOCUMENTS = [plain(document.root) for text in TEXTS for document in read(text, "f")[0]]

#: Characters that mean something to YAML, to bindings or to terminals.
CHARACTERS = "<>{}[]()'\"|&*!%#:,-?@`\\ \n\t\r\x00\x1b\x85\u2028\ufeff\ud800é😀.0aZ_~=+/$^"
#: Values that stand where others are expected.
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, 1.5, float("inf"), "", " ", "text", "<<", ">>", "<<x>>", "<< x + 1 >>",
    "a <<x>> b", "<% for x in y %>", "<%", "<#", "\\<<", [], {}, [[]], [None], {"": None}, {"a": {"b": []}},
    {"<<x": ">>"}, {"stream": 1}, [{"stream": 1}], [{"set": {"x": "<<x>>"}}], "input", "loop", "5s", "stream",
    [{"break": None}], ["break"], {"do": []}, {"type": "object"}, "/a/{b}", {"call": "double"}, "x" * 5000,
)  # fmt: skip
KEYS = (
    "do", "in", "as", "when", "timeout", "retry", "stream", "forEach", "set", "", "<<", "kind", "path", "type",
    "items", "properties", "default", "call", "with", "try", "catch", "return", "allow", "a.b", "input", "x" * 300,
)  # fmt: skip


def mutate_characters(random_: random.Random, texts: Sequence[str] = TEXTS) -> str:
    """Return a valid text with characters or lines taken out, doubled, exchanged or put in."""
    text = random_.choice(texts)
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(text) + 1)
        end = min(len(text), at + random_.choice((1, 1, 1, 2, 5, 40)))
        piece = random_.choice(
            (
                "",
                text[at:end] * 2,
                random_.choice(CHARACTERS),
                random_.choice(CHARACTERS) * 60,
                text[(other := random_.randrange(len(text) + 1)) : other + end - at],
            )
        )
        text = text[:at] + piece + text[end:]
    return text


def mutate_nodes(random_: random.Random, documents: Sequence[Any] = DOCUMENTS) -> str:
    """Return a valid document, in YAML's JSON, with nodes taken out, doubled or replaced."""
    document = deepcopy(random_.choice(documents))
    for _ in range(random_.randint(1, 4)):
        places: list[tuple[Any, Any]] = []
        collect(document, places)
        if not places:
            break
        holder, key = random_.choice(places)
        change: Callable[[Any, Any, random.Random], None] = random_.choice(
            (take_out, double, replace, replace, wrap, rename)
        )
        change(holder, key, random_)
    text: str = json.dumps(document)
    return text


def collect(node: Any, places: list[tuple[Any, Any]]) -> None:
    """List every place below a node, as its holder and its key."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        places.append((node, key))
        collect(node[key], places)


def take_out(holder: Any, key: Any, _: random.Random) -> None:
    """Take a node out."""
    del holder[key]


def double(holder: Any, key: Any, random_: random.Random) -> None:
    """Put a node in a second time."""
    copy = deepcopy(holder[key])
    if isinstance(holder, list):
        holder.insert(key, copy)
    else:
        holder[random_.choice(KEYS)] = copy


def replace(holder: Any, key: Any, random_: random.Random) -> None:
    """Put another value in a node's place."""
    holder[key] = deepcopy(random_.choice(VALUES))


def wrap(holder: Any, key: Any, random_: random.Random) -> None:
    """Put a node below a key or in a list."""
    holder[key] = random_.choice(([holder[key]], {random_.choice(KEYS): holder[key]}))


def rename(holder: Any, key: Any, random_: random.Random) -> None:
    """Give a key another name."""
    if isinstance(holder, dict):
        holder[random_.choice(KEYS)] = holder.pop(key)

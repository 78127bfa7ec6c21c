"""Names: of variables, what a misspelt one may have meant, how messages list them; header fields never forwarded."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

#: Reserved names that come with a request, and why tasks do not have them.
OF_REQUESTS: Final = {
    "input": "has no inputs",
    "sent": "has no inputs",
    "request": "has no request",
    "auth": "has no client",
    "experiment": "takes part in no experiment",
}
#: Names that are bound in every run (LANGUAGE: reserved names).
RESERVED: Final = frozenset(
    {"auth", "env", "error", "experiment", "input", "loop", "request", "run", "sent", "settings", "stream"}
)

#: Words of the expression grammar, which no expression could read as a variable.
WORDS: Final = frozenset(
    {
        "True", "False", "None", "true", "false", "none", "null",
        "and", "or", "not", "in", "is", "if", "else",
    }
)  # fmt: skip

VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A code of an error: words-with-hyphens.
CODE: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
DEFINITION: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_VARIABLE_WORDS: Final = re.compile(r"[A-Za-z0-9_]+")
_LONGEST: Final = 40  # characters of a name that a message proposes
_CODE_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")


def code_of(text: str) -> str:
    """Return a text as the code of an error is written, or "" where it has no letter to begin with."""
    code = "-".join(word.lower() for word in _CODE_WORDS.findall(text))
    return code if CODE.fullmatch(code) else ""


def check_variable(name: str, allowed: str | None = None) -> tuple[str, str]:
    """Say why ``name`` can't be a variable and what to write instead; two empty texts where it can.

    This is the one rule for every name that becomes a variable: `as`, the keys of `set`, branches, what a loop, a
    `catch` or an expression for each item binds. Words of Python (`from`, `class`) are fine: in generated code each
    variable has a prefix. ``allowed`` is a reserved name that this place itself binds: `error` in `catch`.
    """
    if VARIABLE.fullmatch(name) is None:
        return f"`{name}` is not a valid name for a variable", _instead(name)
    if name in RESERVED and name != allowed:
        return f"`{name}` is reserved", f"write another name, such as `my_{name}`"
    if name in WORDS:
        return f"`{name}` is a word of expressions", f"write another name, such as `my_{name}`"
    if name.startswith("__"):
        return f"`{name}` begins with two underscores, which is reserved", _instead(name)
    return "", ""


def _instead(name: str) -> str:
    """Say which name to write instead of one that can't be a variable's."""
    words = _VARIABLE_WORDS.findall(unicodedata.normalize("NFKD", name[:100]))
    near = "_".join(words).lstrip("_")[:_LONGEST]
    if near[:1].isdigit():
        near = f"_{near}"
    if not near or check_variable(near)[0]:
        return "write letters (a to z), digits and _, with a letter first: my_list"
    return f"write `{near}`: letters (a to z), digits and _"


def identifier(variable: str, prefix: str) -> str:
    """Return the identifier that generated code has for a variable.

    It is the only way from a name in a definition to an identifier in Python.

    Raises:
        ValueError: for what is not a name of a variable, which the loader should have refused.
    """
    if VARIABLE.fullmatch(variable) is None:
        raise ValueError(f"not the name of a variable: {variable[:100]!r}")
    return prefix + variable


# ------------------------------------------------------------------------------------ did you mean


_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS: Final = re.compile(r"[\s_-]+")


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ", did you mean `x`?" for the nearest candidate, or "" where none is near."""
    found = nearest(word, candidates)
    return f", did you mean `{found}`?" if found else ""


#: Slips from which two words are not alike, and what stands for more.
_MOST: Final = 3
_MANY: Final = 99


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate nearest to a misspelt word.

    Case, and camel, snake or kebab spelling, count for nothing; two letters swapped count as one
    slip. A beginning that fits, or the last part of a dotted name, is near too.
    """
    return nearest_and_sure(word, candidates)[0] or None


def certain(word: str, candidates: Iterable[str]) -> str:
    """Return the candidate that a word is a misspelling of, where it is the only one that is near; else ""."""
    near, sure = nearest_and_sure(word, candidates)
    return near if sure else ""


def nearest_and_sure(word: str, candidates: Iterable[str]) -> tuple[str, bool]:
    """Return the candidate nearest to a word, "" for none, and whether it is a slip from no other."""
    near = sorted(_near(word, tuple(candidates)))
    slips = [distance for distance, _ in near if distance in (0, 1, 2)]
    sure = bool(slips) and len(word) >= 3 and (len(slips) == 1 or _is_alone(slips, len(word)))
    return (near[0][1], sure and near[0][0] == slips[0]) if near else ("", False)


def _is_alone(slips: list[float], length: int) -> bool:
    """Tell whether the nearest of several candidates is surely meant: it differs in spelling only, or in one slip."""
    return slips[0] < slips[1] and (slips[0] == 0 or length >= 4)


def _near(word: str, candidates: tuple[str, ...]) -> Iterator[tuple[float, str]]:
    """Yield the candidates near to a word, each with its distance."""
    folded = _fold(word)
    if not folded or len(word) > 100:
        return
    size, letters = len(folded), _letters(folded)
    for candidate, other, theirs in _folded(candidates):
        if candidate == word:
            continue
        # Most words are told apart by their letters: a slip changes two of them at most.
        if abs(len(other) - size) <= _MOST and (letters ^ theirs).bit_count() <= 2 * _MOST:
            distance = _distance(folded, other)
            if distance <= _allowed(folded, other):
                yield distance, candidate
                continue
        if other.endswith(folded) and other.rpartition(".")[2] == folded:
            yield 1.5, candidate
        elif size >= 3 and (other.startswith(folded) or (len(other) >= 3 and folded.startswith(other))):
            yield 2.5, candidate


@lru_cache(maxsize=16)
def _folded(candidates: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """Return candidates with what comparing them needs: many words are compared with the same ones."""
    return [(each, (folded := _fold(each)), _letters(folded)) for each in candidates]


def misspelt(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that a word can hardly not mean, where any word could stand.

    Nearer than ``nearest``: a short word is begun like it or has its letters in another order, a
    longer one has a slip or, from seven letters on, two.
    """
    folded = _fold(word)
    if len(folded) < 3 or len(word) > 100:
        return None
    found: list[tuple[int, str]] = []
    for candidate in candidates:
        other = _fold(candidate)
        distance = _distance(folded, other)
        if len(folded) <= 4:
            near = other.startswith(folded) or sorted(other) == sorted(folded)
        else:
            near = distance <= (1 if len(folded) < 7 else 2) and len(other) > 3
        if near:
            found.append((distance, candidate))
    return min(found)[1] if found else None


@lru_cache(maxsize=8192)
def _fold(word: str) -> str:
    return _SEPARATORS.sub("", _HUMP.sub("", word)).lower()


def _allowed(word: str, other: str) -> int:
    longest = max(len(word), len(other))
    most = 1 if longest <= 4 else 2 if longest <= 9 else 3
    return min(most, len(word) - 1)


@lru_cache(maxsize=8192)
def _letters(word: str) -> int:
    """Return which letters a word has, as bits."""
    bits = 0
    for letter in word:
        bits |= 1 << ord(letter) % 64
    return bits


def _distance(word: str, other: str) -> int:
    """Count the slips between two words: a letter added, left out, changed, or two swapped; up to three."""
    if word == other:
        return 0
    if abs(len(word) - len(other)) > _MOST or (_letters(word) ^ _letters(other)).bit_count() > 2 * _MOST:
        return _MANY
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(word, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and word[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > _MOST and min(last) > _MOST:
            return _MANY
        before, last = last, row
    return last[-1]


# ----------------------------------------------------------------------------------- header fields


#: Fields of the connection or of the framing of a body. `proxy-` and anything after it belongs to them too.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: What no value of a field may hold (RFC 9110, 5.5).
CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Fields of the opening handshake of a WebSocket that only its client may choose (RFC 6455, 4.1).
_HANDSHAKE: Final = frozenset(
    {"sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"}
)
#: Fields that are true of the message that they came with alone: its target, and how its body was encoded.
_OF_MESSAGE: Final = frozenset({"accept-encoding", "content-encoding", "host", "sec-websocket-protocol"})
#: Fields that are true of the bytes of one body alone (RFC 9110, 8.8.3 and 14.4; RFC 9530).
_OF_BYTES: Final = frozenset(
    {"content-digest", "content-md5", "content-range", "digest", "etag", "last-modified", "repr-digest"}
)


def is_framing(name: str) -> bool:
    """Tell whether only the HTTP implementation itself may send a field."""
    name = name.lower()
    return name in HOP_BY_HOP or name in _HANDSHAKE or name.startswith("proxy-")


class ForwardedHeaders(dict[str, Any]):
    """Headers that an author took from a mapping instead of writing them by name."""


def forward(headers: Mapping[str, Any]) -> ForwardedHeaders:
    """Return the headers of a mapping that may be sent in another message.

    Left out are the framing and hop-by-hop fields, those that `Connection` names, the target (`Host`) and the
    encodings: bodies are decoded when they are read, and of a body that was, also its digests and validators.
    """
    decoded = any(name.lower() == "content-encoding" for name in headers)
    named = {
        option.strip().lower()
        for name, value in headers.items()
        if name.lower() == "connection"
        for option in _texts(value)
    }
    return ForwardedHeaders(
        (name, value)
        for name, value in headers.items()
        if not is_framing(name)
        and name.lower() not in _OF_MESSAGE
        and name.lower() not in named
        and not (decoded and name.lower() in _OF_BYTES)
    )


def without_body(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of a mapping without those that describe its own body: its type, digests and validators."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _OF_BYTES and name.lower() != "content-type"
    }


def _texts(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        yield from str(each).split(",")


def suggestion(word: str, candidates: Iterable[str], otherwise: str = "") -> str:
    """Return "did you mean `x`?" for the nearest candidate, or what to say where none is near."""
    found = nearest(word, candidates)
    return f"did you mean `{found}`?" if found else otherwise


def listed(words: Iterable[str], last: str = "or") -> str:
    """Join words as a sentence does: a, b or c."""
    words = list(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"

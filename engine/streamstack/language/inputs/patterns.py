"""Patterns that texts must match, in time that grows with the length of the text and no faster.

Python's matcher tries one way after the other, so that a pattern such as `(a+)+$` takes years for thirty characters.
A pattern that could cost much is run by an automaton instead, which reads each character once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

#: The longest text (characters) that is matched where the declaration sets no `maxLength`.
LONGEST: Final = 10_000
#: Steps of Python's own matcher that one check may cost at worst; about 10 ms.
_MOST_STEPS: Final = 1_000_000
_MOST_STATES: Final = 400
_MOST_MOVES: Final = 50_000

# The parser that `re` itself uses: the one reading of a pattern that can't differ from it.
_parse: Final[Callable[..., Any]] = import_module("re._parser").parse

_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_CLASSES: Final = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


def compile_pattern(pattern: str, longest: int | None = None) -> Callable[[str], object]:
    """Return a function that tells whether a text of at most ``longest`` characters holds a match.

    As in JSON Schema, the pattern may match anywhere unless it is anchored, and `$` is the very end.
    Raises ValueError with what to write instead.
    """
    strict = _end_strictly(pattern)
    try:
        with warnings.catch_warnings():
            # `[A--` may mean something else one day; what it means today is what the author tried.
            warnings.simplefilter("ignore", FutureWarning)
            matcher = re.compile(strict)
            tree = _parse(strict)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"the pattern does not parse: {error}") from None
    length = LONGEST if longest is None else longest
    steps = _steps(tree, length)
    first = str(tree[0][1]) if len(tree) and str(tree[0][0]) == "AT" else ""
    if not first.startswith("AT_BEGINNING"):
        steps *= max(length, 1)
    if steps <= _MOST_STEPS:
        return matcher.search
    try:
        return _Automaton(tree, matcher.flags).matches
    except _UnsupportedError as unsupported:
        raise ValueError(
            f"the pattern uses {unsupported} and could take very long for some texts: "
            f"declare a smaller `maxLength`, or write it without repeating what repeats"
        ) from None


def _end_strictly(pattern: str) -> str:
    """Spell `$` as the very end: in `re` it also stands before a last line break."""
    if re.search(r"\(\?[aisux]*m", pattern):
        return pattern
    pieces = re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", pattern, re.DOTALL)
    return "".join(r"\Z" if piece == "$" else piece for piece in pieces)


def _steps(tree: Any, length: int) -> float:
    """Bound from above how many steps a backtracking matcher may take over a text."""
    steps = 1.0
    for operator, argument in tree:
        name = str(operator)
        if name in _REPEATS:
            low, high, body = argument
            most = min(int(high), length)
            inner = _steps(body, length)
            # What is inside can be divided anew at each turn: ways multiply.
            ways = inner if most < 2 else min(inner, 1e4) ** min(most, 64)
            steps *= ways * (most - min(int(low), most) + 1)
        elif name == "BRANCH":
            steps *= sum(_steps(each, length) for each in argument[1])
        elif name == "SUBPATTERN":
            steps *= _steps(argument[3], length)
        elif name == "ATOMIC_GROUP":
            steps *= _steps(argument, length)
        elif name in ("ASSERT", "ASSERT_NOT"):
            steps *= _steps(argument[1], length)
        elif name == "GROUPREF":
            steps *= max(length, 1)
        elif name == "GROUPREF_EXISTS":
            steps *= _steps(argument[1], length) + _steps(argument[2] or (), length)
        if steps > 1e100:
            return 1e100
    return steps


class _UnsupportedError(Exception):
    """The pattern has a part that an automaton can't follow; the message names it."""


class _Moves(dict[str, "_Moves"]):
    """A state of the automaton: the next state by character, found when first needed."""

    __slots__ = ("accepts", "accepts_end", "machine", "places")

    def __init__(self, machine: _Automaton, places: frozenset[int]) -> None:
        super().__init__()
        self.machine = machine
        self.places = places
        self.accepts = machine.final in places
        self.accepts_end = self.accepts or machine.final in machine.close(places, "end")

    def __missing__(self, character: str) -> _Moves:
        found = self if self.accepts else self.machine.step(self, character)
        self[character] = found
        return found


class _Automaton:
    """Runs a pattern by keeping all places it can be at (Thompson 1968), their sets made once."""

    def __init__(self, tree: Any, flags: int) -> None:
        # For each place: steps that take a character, and those that take none ("", "start", "end").
        self._takes: list[tuple[Callable[[str], object], int] | None] = []
        self._jumps: list[list[tuple[str, int]]] = []
        self._states: dict[frozenset[int], _Moves] = {}
        self._made = 0
        start = self._place()
        self.final = self._sequence(tree, start, flags)
        self._restart = self.close(frozenset({start}), "")
        self._start = self.close(frozenset({start}), "start")

    def matches(self, text: str) -> bool:
        """Tell whether the pattern matches anywhere in a text."""
        state = self._state(self._start)
        if text:
            for character in text:
                state = state[character]
            return state.accepts_end
        return self.final in self.close(self._start, "both")

    def step(self, state: _Moves, character: str) -> _Moves:
        """Return the state after one more character."""
        self._made += 1
        if self._made > _MOST_MOVES:  # bounded memory, whatever texts come
            self._made = 0
            self._states.clear()
        reached = set()
        for place in state.places:
            take = self._takes[place]
            if take is not None and take[0](character):
                reached.add(take[1])
        return self._state(self.close(frozenset(reached), "") | self._restart)

    def close(self, places: frozenset[int], where: str) -> frozenset[int]:
        """Return the places that can be reached without a character; ``where`` in the text this is."""
        reached = set(places)
        waiting = list(places)
        while waiting:
            for condition, place in self._jumps[waiting.pop()]:
                if place not in reached and (not condition or where in (condition, "both")):
                    reached.add(place)
                    waiting.append(place)
        return frozenset(reached)

    def _state(self, places: frozenset[int]) -> _Moves:
        found = self._states.get(places)
        if found is None:
            found = self._states[places] = _Moves(self, places)
        return found

    def _place(self) -> int:
        if len(self._takes) >= _MOST_STATES:
            raise _UnsupportedError("many repetitions")
        self._takes.append(None)
        self._jumps.append([])
        return len(self._takes) - 1

    def _jump(self, origin: int, target: int, condition: str = "") -> int:
        self._jumps[origin].append((condition, target))
        return target

    def _sequence(self, tree: Any, place: int, flags: int) -> int:
        """Add what a sequence of parts matches from a place on; return the place after it."""
        for operator, argument in tree:
            place = self._part(str(operator), argument, place, flags)
        return place

    def _part(self, name: str, argument: Any, place: int, flags: int) -> int:
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, body = argument
            return self._repeat(low, high, body, place, flags)
        if name == "BRANCH":
            end = self._place()
            for each in argument[1]:
                self._jump(self._sequence(each, self._jump(place, self._place()), flags), end)
            return end
        if name == "SUBPATTERN":
            _, added, removed, body = argument
            return self._sequence(body, place, (flags | added) & ~removed)
        if name == "AT":
            where = {
                "AT_BEGINNING": "start",
                "AT_BEGINNING_STRING": "start",
                "AT_END_STRING": "end",
            }.get(str(argument))
            if where is None or flags & re.MULTILINE:
                raise _UnsupportedError(r"\b or (?m)")
            return self._jump(place, self._place(), where)
        end = self._place()
        # The end of one character's match is a place of its own, never shared.
        self._takes[place] = (_taker(name, argument, flags), end)
        return end

    def _repeat(self, low: int, high: Any, body: Any, place: int, flags: int) -> int:
        for _ in range(low):
            place = self._sequence(body, self._jump(place, self._place()), flags)
        end = self._place()
        if str(high) == "MAXREPEAT":
            begin = self._jump(place, self._place())
            self._jump(begin, end)
            self._jump(self._sequence(body, self._jump(begin, self._place()), flags), begin)
            return end
        for _ in range(int(high) - low):
            self._jump(place, end)
            place = self._sequence(body, self._jump(place, self._place()), flags)
        self._jump(place, end)
        return end


def _taker(name: str, argument: Any, flags: int) -> Callable[[str], object]:
    """Return a function that tells whether one part of a pattern takes one character."""
    if name == "LITERAL":
        source = re.escape(chr(argument))
    elif name == "NOT_LITERAL":
        source = f"[^{_spell(argument)}]"
    elif name == "ANY":
        source = "."
    elif name == "IN":
        source = "[" + "".join(_member(str(kind), value) for kind, value in argument) + "]"
    else:
        names = {"GROUPREF": "a back-reference", "ASSERT": "(?=...)", "ASSERT_NOT": "(?!...)"}
        raise _UnsupportedError(names.get(name, "an atomic or conditional group"))
    return re.compile(source, flags & ~re.DEBUG & ~re.VERBOSE).fullmatch


def _member(name: str, value: Any) -> str:
    if name == "NEGATE":
        return "^"
    if name == "RANGE":
        return f"{_spell(value[0])}-{_spell(value[1])}"
    return _CLASSES[str(value)] if name == "CATEGORY" else _spell(value)


def _spell(point: int) -> str:
    return f"\\U{point:08x}"

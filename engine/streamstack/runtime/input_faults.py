"""The faults found in what was sent: collected, named, told in one error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.values import kind

#: Converts and checks one value. What is wrong with it goes to the faults, which know its name.
Check = Callable[[Any, "Faults"], Any]

#: How many faults one error names; a client mends these before it sees the rest.
MOST: Final = 50
#: How much of a name that a client made up is repeated to it.
LONGEST_NAME: Final = 80


class InexactError(Exception):
    """A number lost digits when the document was parsed as floats: it must be parsed anew."""


class Faults:
    """What is wrong with a value, found from the inside out.

    Each fault is the name of the part it is about, seen from where the check stands, and a message. ``exact`` says
    that numbers with a fraction are decimals here, as they were written.
    """

    __slots__ = ("exact", "found")

    def __init__(self, *, exact: bool = False) -> None:
        self.found: list[tuple[str, str]] = []
        self.exact = exact

    def add(self, message: str) -> None:
        """Add a fault of the value itself."""
        if len(self.found) < MOST:
            self.found.append(("", message))

    def add_at(self, name: str, message: str) -> None:
        """Add a fault of a part of the value."""
        if len(self.found) < MOST:
            if len(name) > LONGEST_NAME:
                name = name[:LONGEST_NAME] + "..."
            self.found.append((name.encode("utf-8", "replace").decode(), message))

    def under(self, before: int, key: str) -> None:
        """Name the faults found since there were ``before`` as those of the part ``key``."""
        found = self.found
        for index in range(before, len(found)):
            name, message = found[index]
            found[index] = (join(key, name), message)

    @property
    def full(self) -> bool:
        return len(self.found) >= MOST


def join(key: str, name: str) -> str:
    """Return the name of a part of a part: `items[3].price`."""
    return key + name if not name or name[0] == "[" else f"{key}.{name}"


def an(noun: str) -> str:
    """Return a noun with its article; null has none."""
    if noun == "null":
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def unlike(wanted: str, *, nullable: bool = False) -> Check:
    """Return what to do with a value of the wrong type: pass a null that is allowed, else say what to send."""

    def refuse(value: Any, faults: Faults) -> None:
        if value is None and nullable:
            return
        faults.add(f"must be {wanted}, not {an(kind(value))}")

    return refuse


def details_of(place: str, faults: Faults) -> list[dict[str, str]]:
    """Return the faults as the details of an error; ``place`` is where the values came from."""
    return [{"in": place, "name": name, "message": message} for name, message in faults.found]


def invalid(details: list[dict[str, str]], *, status: int = 400) -> RunError:
    """Return the one error that names all faults."""
    details = details[:MOST]
    told = "; ".join(
        f"{each['name'] or 'the ' + each['in']} {each['message']}" for each in details[:3]
    )
    if len(details) > 3:
        told += f"; and {len(details) - 3} more"
    return RunError("invalid-input", told, status=status, details=details)

"""What was found in one document while it was read."""

from __future__ import annotations

from collections.abc import Iterable

from streamstack.errors import Diagnostic, Mark
from streamstack.language.findings import find


class Faults:
    """The findings of one document, gathered as they are met.

    ``holes`` tells that something was left out of the definition because of a fault, so that an
    analysis of names would report what is only a consequence.
    """

    __slots__ = ("found", "holes")

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []
        self.holes = False

    def add(self, code: str, mark: Mark, message: str, hint: str = "") -> None:
        """Add a finding; without a hint of its own it has its code's."""
        self.found.append(find(code, mark, message, hint or None))

    def cut(self, code: str, mark: Mark, message: str, hint: str = "") -> None:
        """Add a finding that keeps a part out of the definition."""
        self.holes = True
        self.add(code, mark, message, hint)

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add findings that another part made."""
        self.found.extend(diagnostics)

    @property
    def failed(self) -> bool:
        """Whether any of them is an error."""
        return any(diagnostic.severity == "error" for diagnostic in self.found)

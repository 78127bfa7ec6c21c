"""The findings of one definition while it is followed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from streamstack.errors import Diagnostic, Mark
from streamstack.language.findings import find


class Reports:
    """Gathers findings, each once, but for those that `allow` silences."""

    __slots__ = ("_allowed", "found")

    def __init__(self, allowed: frozenset[str]) -> None:
        self.found: dict[tuple[str, Mark], Diagnostic] = {}
        self._allowed: tuple[frozenset[str], ...] = (allowed,)

    def silences(self, code: str) -> bool:
        """Tell whether a code is allowed here."""
        return any(code in codes for codes in self._allowed)

    def add(
        self, code: str, mark: Mark, message: str, hint: str | None = None, *, sure: bool = True
    ) -> None:
        """Add a finding; one that is not ``sure`` is a warning, whatever its code is else."""
        if self.silences(code) or (code, mark) in self.found:
            return
        finding = find(code, mark, message, hint)
        self.found[code, mark] = finding if sure else replace(finding, severity="warning")

    @property
    def allowed(self) -> tuple[frozenset[str], ...]:
        """What is allowed here, to be given to `within` later."""
        return self._allowed

    @contextmanager
    def within(self, allowed: tuple[frozenset[str], ...]) -> Iterator[None]:
        """Silence these codes in what is followed inside."""
        before, self._allowed = self._allowed, allowed
        yield
        self._allowed = before

"""Values of a definition: constants, expressions, texts with bindings, lists and objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from jinja2 import nodes

from streamstack.errors import Mark
from streamstack.language.expressions.compile import Spelling, compile_expression, compile_numbers, literal
from streamstack.language.values import MISSING, to_text
from streamstack.records import fast_dataclass


@fast_dataclass()
class Read:
    """A root name that an expression reads.

    ``path`` holds the constant items looked up in it. ``soft`` is set under `default` and
    `is defined`, where the name need not be bound. ``whole`` is set when the binding is just that
    name. ``mark`` is where the name stands in the file, ``expression`` what stands between << >>.
    """

    name: str
    path: tuple[str | int, ...]
    soft: bool
    whole: bool
    mark: Mark
    expression: str

    @property
    def is_body(self) -> bool:
        """Whether it reads the body of the request, or the request as a whole."""
        return self.name == "request" and (not self.path or self.path[0] in ("body", "text"))


@fast_dataclass()
class Value(ABC):
    """A value of a definition, with or without bindings."""

    mark: Mark

    @property
    def constant(self) -> Any:
        """The plain data, or MISSING when the value has bindings."""
        return MISSING

    @property
    def reads(self) -> tuple[Read, ...]:
        """Every root name it reads."""
        return ()

    @property
    def whole(self) -> bool:
        """Whether it is one whole << expression >>."""
        return False

    @property
    def text(self) -> str:
        """The expression as messages show it: what stands between << >>, or ""."""
        return ""

    @abstractmethod
    def source(self, names: Spelling) -> str:
        """Return Python source of one line, which may stand inside a larger expression."""

    def bindings(self) -> Iterator[Value]:
        """Yield the expressions and templates inside, in written order."""
        return iter(())


@fast_dataclass()
class Constant(Value):
    """Data without bindings. It is shared by all runs: nothing changes a value in place."""

    data: Any
    keys: tuple[Mark, ...] = field(default=(), compare=False)  # where those of an object stand

    @property
    def constant(self) -> Any:
        return self.data

    def source(self, names: Spelling) -> str:
        data = self.data
        if data is None or type(data) in (bool, int, str):
            return literal(data)
        return names.constant(data)


@fast_dataclass()
class Expression(Value):
    """One whole << expression >>, whose value keeps its type.

    ``start`` is the offset of the expression's text in the value's; its tree counts from there.
    """

    written: str
    node: nodes.Expr
    found: tuple[Read, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        return self.found

    @property
    def whole(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return self.written

    def source(self, names: Spelling) -> str:
        return compile_expression(self.node, names)

    @property
    def last_filter(self) -> str:
        """The name of the filter whose result it is, "" for none."""
        return self.node.name if isinstance(self.node, nodes.Filter) else ""

    def numbers(self, names: Spelling) -> str | None:
        """Return source of the integers of a whole `range(...)`, one by one; None for any other expression."""
        return compile_numbers(self.node, names)

    def bindings(self) -> Iterator[Value]:
        yield self


@fast_dataclass()
class Text(Value):
    """A text with bindings in it; always a text. ``parts`` are texts and Expressions in turn."""

    parts: tuple[str | Expression, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(read for part in self.bindings() for read in part.reads)

    @property
    def text(self) -> str:
        return next(self.bindings()).text

    def source(self, names: Spelling) -> str:
        to = names.constant(to_text)
        sources = [literal(part) if isinstance(part, str) else f"{to}({part.source(names)})" for part in self.parts]
        if len(sources) <= 4:
            return f"({' + '.join(sources)})"
        return f"''.join(({', '.join(sources)}))"

    def bindings(self) -> Iterator[Value]:
        return (part for part in self.parts if isinstance(part, Expression))

    @property
    def pieces(self) -> tuple[str, ...]:
        """The author's own text, cut where the bindings stand."""
        pieces = [""]
        for part in self.parts:
            if isinstance(part, str):
                pieces[-1] += part
            else:
                pieces.append("")
        return tuple(pieces)


@fast_dataclass()
class ListValue(Value):
    """A list with bindings somewhere inside."""

    items: tuple[Value, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(read for item in self.items for read in item.reads)

    @property
    def text(self) -> str:
        return next((item.text for item in self.items if item.text), "")

    def source(self, names: Spelling) -> str:
        return f"[{', '.join(item.source(names) for item in self.items)}]"

    def bindings(self) -> Iterator[Value]:
        for item in self.items:
            yield from item.bindings()


@fast_dataclass()
class ObjectValue(Value):
    """An object with bindings somewhere inside. Its keys are constant texts."""

    entries: tuple[tuple[str, Value], ...]
    keys: tuple[Mark, ...] = field(default=(), compare=False)  # where they stand

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(read for _, entry in self.entries for read in entry.reads)

    @property
    def text(self) -> str:
        return next((entry.text for _, entry in self.entries if entry.text), "")

    def get(self, key: str) -> Value | None:
        """Return the value under a key, None where there is none."""
        return next((entry for name, entry in self.entries if name == key), None)

    def source(self, names: Spelling) -> str:
        inside = ", ".join(f"{literal(key)}: {entry.source(names)}" for key, entry in self.entries)
        return "{" + inside + "}"

    def bindings(self) -> Iterator[Value]:
        for _, entry in self.entries:
            yield from entry.bindings()

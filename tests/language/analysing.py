"""Analyse definitions written in YAML, with functions that make, change and hold streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.analysis.walker import analyse
from streamstack.language.definition import (
    Definition,
    Effects,
    Function,
    FunctionDefinition,
    Parameter,
    Property,
    Registry,
    function,
)
from streamstack.language.kinds import Kind
from streamstack.language.loading.documents import read_document
from streamstack.language.loading.groups import Inheritance
from streamstack.language.settings import Streaming
from streamstack.language.source import read
from streamstack.spec import Binds, Bound, Condition, ListOf, Named, Nesting, OneOf, StackOf, Variable

_ITEM = (Binds("as", "item"),)
_IN = Parameter("in", Bound(Kind.ITEMS), "A stream.", required=True, main=True)


def _declare(name: str, *parameters: Parameter, effects: Effects) -> Function:
    def code(run: Any, **arguments: Any) -> None:
        """Do nothing."""

    return function(name, *parameters, effects=effects)(code)


#: Shaped like the functions that come with the families of streams, models and databases.
STAND_INS = (
    _declare(
        "ask",  # llm.chat
        Parameter("messages", Bound(), "What is asked.", main=True),
        effects=Effects(gives="stream", properties=(Property("message", "What has come."),)),
    ),
    _declare(
        "convert",  # streams.map
        _IN,
        Parameter("as", Variable(), "The item.", default="item"),
        Parameter("value", Bound(per_item=_ITEM[0]), "The new item."),
        Parameter("do", StackOf(Nesting.ITEM, _ITEM), "Steps that give the new item."),
        Parameter("concurrency", Bound(Kind.INTEGER), "How many at once.", default=1),
        effects=Effects(gives="stream"),
    ),
    _declare(
        "keep",  # streams.filter
        _IN,
        Parameter("as", Variable(), "The item.", default="item"),
        Parameter("where", Condition(per_item=_ITEM[0]), "Which.", required=True),
        effects=Effects(gives="stream"),
    ),
    _declare(
        "shorten",  # streams.take
        _IN,
        Parameter("count", Bound(Kind.INTEGER), "How many.", default=1),
        effects=Effects(gives="stream", shortens=True),
    ),
    _declare(
        "reverse",  # nothing can be given before the end has come
        _IN,
        effects=Effects(gives="stream", waits_for_stream=True),
    ),
    _declare(
        "mix",  # streams.merge
        Parameter(
            "streams",
            OneOf((ListOf(Bound(Kind.STREAM)), Named(Bound(Kind.STREAM)))),
            "Several.",
            required=True,
            main=True,
        ),
        effects=Effects(gives="stream"),
    ),
    _declare(
        "remember",  # cache.use
        Parameter("key", Bound(Kind.TEXT), "The key.", required=True),
        Parameter("do", StackOf(Nesting.FRAME), "Steps that give the value.", required=True),
        effects=Effects(gives="value"),
    ),
    _declare(
        "transaction",  # db.transaction
        Parameter("do", StackOf(Nesting.ONCE, transaction=True), "The steps.", required=True),
        effects=Effects(),
    ),
)
FUNCTIONS = Registry([*REGISTRY.values(), *STAND_INS])

CASES = Path(__file__).parent.parent / "cases" / "analysis"


@dataclass(frozen=True, slots=True)
class Case:
    """A stack, the documents of functions it may call, and `line:column code` of each finding."""

    title: str
    stack: str
    also: str
    expected: list[str]


def read_cases(name: str) -> list[Case]:
    """Read a file of cases: `=== title`, the stack, `---` and functions, `--> place code` for each finding."""
    cases = []
    for part in ("\n" + (CASES / f"{name}.txt").read_text("utf-8")).split("\n=== ")[1:]:
        title, _, rest = part.partition("\n")
        lines = rest.rstrip("\n").split("\n")
        expected = [line[4:] for line in lines if line.startswith("--> ")]
        text = "\n".join(line for line in lines if not line.startswith("--> "))
        stack, _, also = text.partition("\n---\n")
        cases.append(Case(title, stack, also, expected))
    return cases


#: Lines before the first step of a stack.
HEAD = "method: POST\npath: /t\nresponseType: {kind}\n{more}functionStack:\n"


def analyse_text(text: str) -> list[Diagnostic]:
    """Analyse the first document of a text; the others are functions it may call."""
    documents, found = read(text, "t.yaml")
    assert found == []
    definitions = []
    for document in documents:
        reading = read_document(document, FUNCTIONS, Inheritance(Streaming()))
        assert not reading.findings, reading.findings
        definitions.append(reading.definition)
    first = definitions[0]
    assert isinstance(first, Definition)
    functions: Mapping[str, FunctionDefinition] = {
        each.name: each for each in definitions if isinstance(each, FunctionDefinition)
    }
    return analyse(first, functions)


def find_in(stack: str, *, inputs: str = "", also: str = "", kind: str = "streaming", more: str = "") -> list[str]:
    """Analyse an endpoint's stack.

    Return its findings as `line:column code message`, lines counted from the stack's first as 1; null has tests of
    its own.
    """
    if inputs:
        more += "inputParameters:\n" + indent(dedent(inputs).strip("\n"), "  ") + "\n"
    head = HEAD.format(kind=kind, more=more)
    text = head + indent(dedent(stack).strip("\n"), "  ")
    if also:
        text += "\n---\n" + dedent(also).strip("\n")
    before = head.count("\n")
    return [
        f"{each.line - before}:{each.column - 2} {each.code} {each.message}"
        for each in analyse_text(text)
        if each.code != "may-be-null"
    ]


def codes_in(stack: str, **more: Any) -> list[str]:
    """Analyse an endpoint's stack; return `line:column code` of each finding."""
    return [" ".join(each.split(" ")[:2]) for each in find_in(stack, **more)]

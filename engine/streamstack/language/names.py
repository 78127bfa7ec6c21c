"""The names an author may give to variables, inputs and definitions."""

from __future__ import annotations

import re
from typing import Final

#: Names that are bound in every run (LANGUAGE: reserved names).
RESERVED: Final = frozenset(
    {
        "auth",
        "env",
        "error",
        "experiment",
        "input",
        "loop",
        "request",
        "run",
        "settings",
        "stream",
    }
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
_CODE_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")


def code_of(text: str) -> str:
    """Return a text as the code of an error is written, or "" where it has no letter to begin with."""
    code = "-".join(word.lower() for word in _CODE_WORDS.findall(text))
    return code if CODE.fullmatch(code) else ""


def refuse_variable(name: str, allowed: str | None = None) -> str:
    """Say why ``name`` can't be a variable, or nothing.

    ``allowed`` is a reserved name that this place itself binds: `error` in `catch`.
    """
    if VARIABLE.fullmatch(name) is None:
        return f"`{name}` is no name for a variable"
    if name in RESERVED and name != allowed:
        return f"`{name}` is reserved"
    if name in WORDS:
        return f"`{name}` is a word of expressions"
    return ""

"""The names an author may give to variables, inputs and definitions."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

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
        ValueError: for what is no name of a variable, which the loader should have refused.
    """
    if VARIABLE.fullmatch(variable) is None:
        raise ValueError(f"not the name of a variable: {variable[:100]!r}")
    return prefix + variable

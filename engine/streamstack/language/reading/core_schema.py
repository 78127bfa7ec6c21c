"""The types of plain YAML scalars: YAML 1.2's core schema and nothing else.

`on`, `yes`, `no` and `12:30` are text (https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import re
from typing import Final

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMERIC: Final = frozenset("+-.0123456789")
_LONGEST_NUMBER: Final = 400


def resolve(text: str) -> bool | int | float | str | None:
    """Return the value that a plain scalar's text stands for.

    Raises ValueError for a number of more than 400 digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    integer = _INTEGER.fullmatch(text)
    if not integer and not _FLOAT.fullmatch(text):
        return float(text.replace(".", "", 1)) if _INFINITE.fullmatch(text) else text
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("The number is too long.")
    if not integer:
        return float(text)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)

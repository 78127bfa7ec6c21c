"""What filters, functions and tests take and give, in the notation of `language.shapes`.

Left of the arrow stands what the value must be, right of it the result, which may refer to the value as `it` and to an
argument by its name. What is not listed takes and gives anything.
"""

from __future__ import annotations

from typing import Final

#: What has a text: everything else is refused by the filters of texts.
_TEXT: Final = "text | number | boolean | timestamp | date"
_MOMENT: Final = "timestamp | date | text | number"
_ROWS: Final = "list | object"

_FILTERS: Final = {
    f"{_TEXT} -> text": (
        "upper lower capitalize title trim strip replace striptags truncate truncateWords slug indent wordwrap center "
        "padStart padEnd regexReplace safe urlDecode"
    ),
    f"{_TEXT} -> [text]": "split lines chars",
    f"{_TEXT} -> integer": "wordCount wordcount",
    f"{_TEXT} -> boolean": "regexMatch",
    f"{_TEXT} -> text?": "regexFind",
    f"{_TEXT} -> text | bytes": "unbase64",
    f"{_TEXT} | object | list -> text": "urlEncode urlencode",
    f"{_TEXT} | bytes | list | object -> text": "base64 hash hmac",
    "any? -> text": "toText string escape e toJson tojson",
    "text | bytes -> any": "fromJson",
    "text | number | boolean | timestamp -> integer": "toInteger int",
    "text | number | boolean | timestamp -> decimal": "toDecimal float",
    "text | list | object -> list": "list",
    "text | list | object | bytes -> integer": "length count",
    "number -> it": "abs",
    "number -> number": "round",
    "number -> integer": "floor ceil",
    "number -> text": "filesizeformat",
    f"{_ROWS} -> number": "sum",
    f"{_ROWS} -> number?": "mean percentile",
    f"{_ROWS} -> items of it?": "min max",
    f"{_ROWS} | text -> items of it?": "random first last",
    f"{_ROWS} | text -> it": "reverse",
    f"{_ROWS} -> [items of it]": "sort sortBy unique select reject selectattr rejectattr",
    f"{_ROWS} -> list": "flatten",
    f"{_ROWS} -> [[any]]": "batch slice",
    f"{_ROWS} -> object": "groupBy indexBy fromEntries merge",
    f"{_ROWS} -> [{{grouper: any, list: [items of it]}}]": "groupby",
    f"{_ROWS} -> [any]": "map",
    "list | object | text -> text": "join",
    "list | object | text -> integer?": "indexOf",
    "object -> [text]": "keys",
    "object -> list": "values",
    "object -> [{key: text, value: any}]": "entries",
    "object? -> [[any]]": "items",
    "object -> [[any]] ": "dictsort",
    "object | list -> object | list": "pick omit",
    f"{_MOMENT} -> text": "date",
    f"{_MOMENT} -> timestamp": "toTimestamp",
    f"{_MOMENT} -> date": "toDate",
    f"{_MOMENT} -> timestamp | date": "addTime",
}
_FUNCTIONS: Final = {
    "timestamp": "now",
    "date": "today",
    "text": "uuid",
    "decimal": "random",
    "integer": "randomInteger",
    "[integer]": "range",
}
#: Tests that fail for other kinds; all others take anything.
_TESTS: Final = {"integer -> boolean": "even odd divisibleby"}


def _by_name(table: dict[str, str]) -> dict[str, tuple[str, str]]:
    found = {}
    for signature, names in table.items():
        takes, _, gives = signature.rpartition("->")
        found.update(dict.fromkeys(names.split(), (takes.strip(), gives.strip())))
    return found


#: By name: what it takes and what it gives.
FILTER_SIGNATURES: Final = _by_name(_FILTERS)
TEST_SIGNATURES: Final = _by_name(_TESTS)
FUNCTION_SIGNATURES: Final = _by_name(_FUNCTIONS)
#: Filters whose null comes of an empty list only.
OF_EMPTY: Final = frozenset({"first", "last", "min", "max", "mean", "percentile", "random"})
#: Arguments that must be of a kind, by position; those that `declare` types are not repeated.
ARGUMENT_KINDS: Final = {
    "regexMatch": ("text", "text"),
    "regexFind": ("text", "text | integer", "text"),
    "regexReplace": ("text", "text", "text", "integer"),
    "replace": ("", _TEXT),
    "addTime": ("text | number",),
    "percentile": ("number",),
    "range": ("integer", "integer?", "integer"),
    "hash": ("text",),
    "hmac": ("text", f"{_TEXT} | bytes | list | object"),
}

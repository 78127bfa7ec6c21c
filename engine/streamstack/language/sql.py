"""SQL with bindings: each << >> is a parameter of the statement, never a part of its text.

The text is scanned with PostgreSQL's lexical rules (PostgreSQL 18, section 4.1), so that a binding which
stands where no parameter can is reported before any database sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.expressions import Template, Text, Value

_KEYWORDS: Final = """
    all and any array as between both by case check coalesce cross cube current_date current_time current_timestamp
    distinct else end except exists extract filter for from full greatest group grouping groups having ilike in inner
    intersect interval into is isnull join lateral leading least left like limit localtime localtimestamp materialized
    natural not notnull nullif offset on only or order over overlaps overlay partition position range recursive right
    rollup row rows select sets similar some substring symmetric table tablesample then to trailing treat trim union
    unnest using values when where window with within
    bit bpchar char character dec decimal float int numeric precision time timestamp timestamptz varbit varchar varying
"""
#: Functions of PostgreSQL that change nothing (its manual, chapter 9).
_FUNCTIONS: Final = """
    count sum avg min max every bool_and bool_or string_agg array_agg json_agg jsonb_agg json_object_agg
    jsonb_object_agg stddev variance percentile_cont percentile_disc mode corr
    row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
    abs ceil ceiling floor round trunc mod power sqrt exp ln log sign pi random degrees radians width_bucket
    length char_length octet_length lower upper initcap btrim ltrim rtrim replace translate lpad rpad repeat reverse
    split_part strpos substr starts_with concat concat_ws format md5 sha256 encode decode chr ascii quote_ident
    quote_literal regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
    string_to_array array_to_string to_char to_date to_number to_timestamp
    now clock_timestamp statement_timestamp transaction_timestamp timeofday age date_part date_trunc date_bin make_date
    make_interval make_timestamp make_timestamptz justify_days justify_hours justify_interval isfinite
    generate_series generate_subscripts array_length array_position array_positions array_append array_prepend
    array_cat array_remove array_replace array_lower array_upper array_ndims cardinality
    to_json to_jsonb row_to_json array_to_json json_build_object jsonb_build_object json_build_array jsonb_build_array
    json_array_elements jsonb_array_elements json_array_elements_text jsonb_array_elements_text json_each jsonb_each
    json_each_text jsonb_each_text json_extract_path jsonb_extract_path json_array_length jsonb_array_length
    json_typeof jsonb_typeof jsonb_set jsonb_insert jsonb_strip_nulls jsonb_pretty jsonb_path_query jsonb_path_exists
    jsonb_path_query_array jsonb_path_query_first jsonb_populate_record jsonb_populate_recordset jsonb_to_record
    jsonb_to_recordset jsonb_object_keys json_object_keys
    to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd ts_headline
    lower_inc upper_inc isempty int4range int8range numrange tsrange tstzrange daterange
    gen_random_uuid pg_backend_pid pg_sleep pg_typeof version current_database current_schema current_setting
    to_regclass to_regtype obj_description
"""
PLAIN_CALLS: Final = frozenset((_KEYWORDS + _FUNCTIONS).split())


# --------------------------------------------------------------------------------------------- sql


#: Stands for a binding while a statement is scanned; neither YAML nor PostgreSQL lets it be in a text.
_BINDING: Final = "\0"

_WORD: Final = re.compile(
    r"""
    (?P<space>\s+)
    | (?P<comment>--[^\n]*|/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*'?|(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'?)
    | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*"?)
    | (?P<dollar>\$(?P<tag>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$)
    | (?P<number>\$[0-9]+)
    | (?P<name>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    | (?P<binding>\0)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SUBSCRIPT: Final = re.compile(r"\s*[\[.(]")
_COMMENT_PART: Final = re.compile(r"/\*|\*/")

#: After these words comes a name, which no parameter can be.
_BEFORE_NAMES: Final = {
    "into": "a table",
    "update": "a table",
    "table": "a table",
    "join": "a table",
    "from": "a table",
    "only": "a table",
    "as": "a name",
    "by": "a column",
}
#: `'...'` may follow these, a parameter may not.
_TYPES_BEFORE_TEXT: Final = frozenset({"interval", "date", "time", "timestamp", "timestamptz"})
_CLAUSES: Final = frozenset(
    {
        "select", "from", "where", "group", "order", "having", "limit", "offset", "set", "values",
        "returning", "union", "window", "fetch", "on", "using", "for",
    }
)  # fmt: skip
#: What may have a body of several statements.
_ROUTINES: Final = frozenset({"function", "procedure"})
_READS: Final = frozenset({"select", "values", "table", "show", "with"})
_WRITES: Final = frozenset({"insert", "update", "delete", "merge", "into", "nextval", "setval"})


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A binding that can't be a parameter where it stands; ``index`` counts the bindings from 0."""

    code: str
    index: int
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


class Statement:
    """The text of a statement, cut where its bindings stand. Equal texts with equal bindings share one."""

    __slots__ = (
        "_hash", "first", "gives_a_value", "misplaced", "pieces", "reads_only", "second", "selects", "shown", "words"
    )  # fmt: skip

    def __init__(self, pieces: tuple[str, ...], shown: tuple[str, ...] = ()) -> None:
        self.pieces = pieces
        self.shown = shown  # what stands between << and >>, for messages
        self._hash = hash((pieces, shown))
        text = _BINDING.join(pieces)
        tokens = list(_tokens(text))
        self.words = frozenset(each.text.lower() for each in tokens if each.kind == "name")
        self.first = first_word(text)
        #: Whether it only gives rows, as far as its words tell.
        self.selects = self.first in _READS and not self.words & _WRITES
        #: Whether running it twice surely does no more than running it once: it calls nothing that might write.
        self.reads_only = self.selects and not _may_write(tokens)
        #: Whether its first row surely exists and has a value, as far as its words tell.
        self.gives_a_value = _gives_a_value(tokens)
        self.misplaced = tuple(misplaced(text))
        end = _end(tokens)
        #: What stands behind its end: a second statement, which PostgreSQL refuses.
        self.second = "" if end is None else text[end:].replace(_BINDING, "<<...>>")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Statement)
            and self.pieces == other.pieces
            and self.shown == other.shown  # a message names the bindings of this step
        )

    def __hash__(self) -> int:
        return self._hash

    @property
    def count(self) -> int:
        """How many parameters it has."""
        return len(self.pieces) - 1

    def text(self, casts: Sequence[str] = ()) -> str:
        """Return the SQL with `$1`, `$2` ... for the bindings; ``casts`` are written behind them."""
        written = [self.pieces[0]]
        for number, after in enumerate(self.pieces[1:], 1):
            # Beside a letter or a digit, `$1` would become a part of that word.
            last = (written[-1] or "".join(written))[-1:]
            before = " " if last.isalnum() or last in ("_", "$") else ""
            space = " " if after[:1].isalnum() or after[:1] in ("_", "$") else ""
            cast = casts[number - 1] if casts else ""
            # `$1::text[1]` would be a type.
            bound = f"(${number}{cast})" if cast and _SUBSCRIPT.match(after) else f"${number}{cast}"
            written += [f"{before}{bound}{space}", after]
        return "".join(written)

    def shown_at(self, index: int) -> str:
        """Return how messages call a parameter."""
        if index < len(self.shown) and self.shown[index]:
            return f"<< {self.shown[index]} >>"
        return f"the value of ${index + 1}"


@lru_cache(maxsize=4096)
def statement_of(pieces: tuple[str, ...], shown: tuple[str, ...] = ()) -> Statement:
    """Return the statement of a text that is cut where its bindings stand."""
    return Statement(pieces, shown)


def statement_in(value: Value) -> Statement | None:
    """Return the statement that a value holds; None where it is none.

    Of a template, it is all of the author's own text, one part behind the other.
    """
    if isinstance(value, Template):
        return statement_of(value.program.written)
    if isinstance(value, Text):
        return statement_of(value.pieces, tuple(each.text for each in value.bindings()))
    if isinstance(value.constant, str):
        return statement_of((value.constant,))
    return None


def assembled(written: Sequence[Any]) -> tuple[Statement, list[Any]]:
    """Return the statement that a template wrote, and its parameters.

    ``written`` holds the author's own texts, and an object with a ``value`` for each binding.
    Raises RunError ``template`` for a binding that can't be a parameter.
    """
    pieces = [""]
    values = []
    for each in written:
        if isinstance(each, str):
            pieces[-1] += each
        else:
            values.append(each.value)
            pieces.append("")
    statement = statement_of(tuple(pieces))
    for fault in statement.misplaced:
        raise RunError("template", f"{fault.message}: {fault.hint}", final=True)
    return statement, values


#: What gives one row whatever there is, and never null.
_SURE: Final = frozenset({"count", "coalesce", "exists"})
_FEWER: Final = frozenset({"group", "having", "limit", "offset", "fetch", "union", "intersect", "except"})


def _gives_a_value(tokens: Sequence[_Token]) -> bool:
    """Whether a statement selects a count or values alone, or inserts a row and returns it."""
    depth, outer = 0, list[str]()
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.kind in ("name", "binding", "number"):
            outer.append(token.text.lower())
    if "insert" in outer:
        return "returning" in outer and "values" in outer and not {"conflict", "select"} & {*outer}
    if "select" not in outer or _FEWER & {*outer} or outer[0] not in ("select", "with"):
        return False
    selected = outer[len(outer) - outer[::-1].index("select") :]
    return ("from" not in selected and "where" not in selected) or selected[0] in _SURE


def _may_write(tokens: Sequence[_Token]) -> bool:
    """Whether a function is called that is not known to read only."""
    for token, after in pairwise(tokens):
        if after.text == "(" and token.kind in ("name", "quoted"):
            name = token.text.lower()
            if name not in PLAIN_CALLS:
                return True
    return False


def _end(tokens: Sequence[_Token]) -> int | None:
    """Return where a second statement begins; None where none does.

    As in psql, a `;` ends no statement in brackets (CREATE RULE), nor between BEGIN and END of a routine whose body is
    written in SQL.
    """
    words = [each.text.lower() for each in tokens if each.kind == "name"][:4]
    routine = words[:1] == ["create"] and not _ROUTINES.isdisjoint(words)
    depth, ended, begun = 0, False, False
    for token in tokens:
        word = token.text.lower()
        if token.kind == "comment":
            continue
        if word == ";" and depth <= 0:
            ended = begun
            continue
        if ended:
            return token.start
        begun = True
        if word == "(" or (routine and (word == "begin" or (word == "case" and depth > 0))):
            depth += 1
        elif word == ")" or (routine and word == "end" and depth > 0):
            depth -= 1
    return None


def first_word(text: str) -> str:
    """Return the first word of a statement, in small letters."""
    for token in _tokens(text):
        if token.kind == "name":
            return token.text.lower()
        if token.text != "(":
            break
    return ""


def first_words(text: str) -> Iterator[tuple[str, int]]:
    """Give the first word of each statement of a file, in small letters, and where it stands."""
    first = True
    for token in _tokens(text):
        if first and token.kind == "name":
            yield token.text.lower(), token.start
        first = token.text == ";"


def misplaced(text: str) -> Iterator[Misplaced]:
    """Report the bindings of a text that can't be parameters, and parameters that an author numbers himself."""
    index = 0
    before: list[_Token] = []
    clauses = [""]  # the clause at each depth of brackets
    for token in _tokens(text):
        if token.kind in ("string", "quoted", "dollar", "comment"):
            for _ in range(token.text.count(_BINDING)):
                yield _in_quotes(token, index)
                index += 1
        elif token.kind == "number":
            yield Misplaced(
                "sql-position",
                max(0, index - 1),
                f"`{token.text}` is not written by hand",
                "write the value's << binding >> in its place; it becomes the parameter",
            )
        elif token.kind == "binding":
            fault = _refuse(before, clauses[-1])
            if fault is not None:
                yield Misplaced("sql-position", index, *fault)
            index += 1
        elif token.kind == "name" and token.text.lower() in _CLAUSES:
            word = token.text.lower()
            if not (word == "from" and not _opens_a_clause(before, clauses)):
                clauses[-1] = word
        elif token.text == "(":
            clauses.append("")
        elif token.text == ")" and len(clauses) > 1:
            clauses.pop()
        before.append(token)


def _opens_a_clause(before: list[_Token], clauses: list[str]) -> bool:
    """Whether FROM begins the clause: not in `extract(year FROM x)`, nor in IS DISTINCT FROM."""
    last = before[-1].text.lower() if before else ""
    return (clauses[-1] != "" or len(clauses) == 1 or last == "delete") and last != "distinct"


def _in_quotes(token: _Token, index: int) -> Misplaced:
    if token.kind == "comment":
        return Misplaced(
            "quoted-binding",
            index,
            "a binding in a comment of the statement does nothing",
            "remove it from the comment",
        )
    if token.kind == "quoted":
        return Misplaced(
            "sql-position",
            index,
            "a binding can't be used as a name between double quotes",
            "write the name itself; `<% if %>` can choose between names",
        )
    inside = token.text.strip("'")
    hint = "remove the quotes: a binding is a value of its own"
    if token.text[0] == "'" and inside != _BINDING:
        parts = inside.split(_BINDING)
        shown = " || ".join(
            part
            for number, each in enumerate(parts)
            for part in ((["<<...>>"] if number else []) + ([f"'{each}'"] if each else []))
        )
        hint = f"join the parts: {shown}"
    return Misplaced("quoted-binding", index, "a binding inside an SQL string literal would be part of the text", hint)


def _refuse(before: list[_Token], clause: str) -> tuple[str, str] | None:
    """Return what is wrong with a binding behind some tokens, and what to write instead."""
    last = before[-1] if before else None
    if last is None:
        return "the statement itself can't come from a binding", "write the SQL out"
    word = last.text.lower() if last.kind == "name" else ""
    if word == "from" and clause != "from":
        return None  # extract(year FROM x), IS DISTINCT FROM x
    noun = _BEFORE_NAMES.get(word, "")
    if last.text == "," and clause in ("order", "group", "from"):
        noun = "a table" if clause == "from" else "a column"
    if noun:
        hint = f"write the name itself; `<% if %>` can choose between names, or `db.get` takes {noun}'s name"
        return f"a binding can't be used as the name of {noun}", hint.replace(" a name's name", " names")
    if word == "in":
        return "`IN` takes a list in brackets, and a binding is one value", "write = ANY(<<...>>)"
    if word in _TYPES_BEFORE_TEXT:
        return f"`{word}` takes a text written out, not a binding", f"write <<...>>::{word}"
    if last.text == "." and len(before) > 1:
        return "a binding can't be used as a name", "write the name itself"
    return None


def _tokens(text: str) -> Iterator[_Token]:
    """Give the tokens of a statement but for white space, and without comments that hold no binding."""
    at = 0
    while at < len(text):
        found = _WORD.match(text, at)
        assert found is not None
        kind, word = found.lastgroup or "sign", found.group()
        if kind == "tag":
            kind = "dollar"
        end = found.end()
        if kind == "dollar":
            close = text.find(word, end)
            end = len(text) if close < 0 else close + len(word)
        elif word == "/*":
            end = _end_of_comment(text, end)
        if kind not in ("space", "comment") or _BINDING in text[at:end]:
            yield _Token(kind, text[at:end], at)
        at = end


def _end_of_comment(text: str, at: int) -> int:
    """Return where a comment ends; comments nest (section 4.1.5)."""
    depth = 1
    while depth:
        found = _COMMENT_PART.search(text, at)
        if found is None:
            return len(text)
        depth += 1 if found.group() == "/*" else -1
        at = found.end()
    return at

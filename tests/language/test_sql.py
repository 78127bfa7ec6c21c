"""The scanner of SQL: where a binding may stand, and that no value ever is a part of the text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.language.sql import Statement, first_word, statement_of

B = "\0"


def cut(text: str) -> Statement:
    """Return the statement of a text in which `?` stands for a binding."""
    return Statement(tuple(text.split("?")))


def codes(text: str) -> list[tuple[str, int]]:
    """Return the findings of a text: the code, and which binding."""
    return [(each.code, each.index) for each in cut(text).misplaced]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT '?'",
        "SELECT 'it''s ?'",
        "SELECT E'a\\'?'",
        "SELECT e'\\\\\\'?'",
        "SELECT B'?'",
        "SELECT U&'d!0061?'",
        "SELECT $$?$$",
        "SELECT $tag$ $$ ? $tag$",
        "SELECT $été$ ? $été$",
        "SELECT 1 -- ?",
        "SELECT 1 /* ? */",
        "SELECT /* a /* b */ ? */ 1",
        "SELECT /* '' -- */ '/*?*/'",
        "SELECT 'never closed ?",
        "SELECT $$ never closed ?",
        "SELECT /* never closed ?",
    ],
)
def test_a_binding_in_quotes_or_comments_is_told(text: str) -> None:
    """Every kind of quote that PostgreSQL has, and comments within comments."""
    assert codes(text) == [("quoted-binding", 0)]


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("SELECT 1; SELECT 2", "SELECT 2"),
        ("SELECT ?;\nSELECT ? ; SELECT 3", "SELECT <<...>> ; SELECT 3"),
        ("SELECT 1; -- first\n (SELECT 2)", "(SELECT 2)"),
        ("SELECT ';' || E'\\';' || U&';'; VALUES (1)", "VALUES (1)"),
        ("BEGIN; COMMIT", "COMMIT"),
        ("SELECT $1; SELECT $$", "SELECT $$"),
        ("CREATE TABLE begin (a int); END", "END"),
        ("CREATE FUNCTION f() RETURNS int RETURN 1; SELECT f()", "SELECT f()"),
    ],
)
def test_a_second_statement_is_seen(text: str, second: str) -> None:
    """PostgreSQL prepares one statement; where another begins is where the first one's `;` stands."""
    assert cut(text).second == second


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT 1;",
        ";SELECT 1 ; ; -- SELECT 2;\n /* ; SELECT /* ; */ 3 */ ;",
        "SELECT ';', \";\", $$; SELECT 2$$, $a$;$$;$a$, E'\\';', ';SELECT'';'",
        "CREATE RULE r AS ON INSERT TO a DO ALSO (DELETE FROM b; DELETE FROM c);",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END;",
        "create or replace procedure p() begin atomic insert into a values (1); select 2; end",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$",
    ],
)
def test_one_statement_is_one(text: str) -> None:
    """Neither a `;` at the end, in quotes, in comments, in brackets, nor in the body of a routine ends a statement."""
    assert cut(text).second == ""


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ?",
        "SELECT 'a' || ? || 'b'",
        "SELECT 'it''s' || ?",
        "SELECT E'\\'' || ?",
        "SELECT '\\' || ?",  # a backslash is a character of a plain string
        "SELECT $$'$$ || ?",
        "SELECT $a$ $$ $a$ || ?",
        "SELECT a$b$c + ? FROM t",  # $ within a name
        'SELECT "a""b" = ? FROM t',
        "SELECT 1 /* a /* b */ c */ + ?",
        "SELECT 1 -- it's\n + ?",
        "SELECT * FROM t WHERE a = ANY(?) ORDER BY b LIMIT ? OFFSET ?",
        "SELECT extract(year FROM ?::timestamptz)",
        "SELECT * FROM t WHERE a IS DISTINCT FROM ?",
        "INSERT INTO t (a, b) VALUES (?, ?), (?, ?)",
        "UPDATE t SET a = ?, b = ? WHERE c = ?",
        "SELECT * FROM f(?, ?) WHERE a IN (?, ?)",
    ],
)
def test_a_binding_where_a_value_can_stand_is_fine(text: str) -> None:
    """What looks like the beginning of a quote and is none hides no binding."""
    assert codes(text) == []


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("SELECT * FROM ?", 0),
        ("SELECT * FROM a, ?", 0),
        ("SELECT * FROM a JOIN ? ON true", 0),
        ("INSERT INTO ? VALUES (1)", 0),
        ("UPDATE ? SET a = 1", 0),
        ("DELETE FROM ?", 0),
        ("SELECT ? FROM t ORDER BY ?", 1),
        ("SELECT 1 FROM t GROUP BY a, ?", 0),
        ("SELECT 1 AS ?", 0),
        ('SELECT "?" FROM t', 0),
        ("SELECT a.? FROM a", 0),
        ("?", 0),
        ("SELECT * FROM t WHERE a IN ?", 0),
        ("SELECT interval ?", 0),
        ("SELECT * FROM t WHERE a = $1", 0),
    ],
)
def test_a_binding_where_a_name_must_stand_is_told(text: str, index: int) -> None:
    """A parameter is not a name; for numbered parameters the hint says to write bindings."""
    assert codes(text) == [("sql-position", index)]


@given(st.text(alphabet="'\"$E\\/*-\n ab1;(),.\0", max_size=30))
def test_any_text_is_scanned_to_its_end(text: str) -> None:
    """The scanner has an end and an answer for every text, and reports each binding once at most."""
    statement = Statement(tuple(text.split(B)))
    indices = [each.index for each in statement.misplaced if "written by hand" not in each.message]
    assert len(indices) == len(set(indices))
    assert all(0 <= index < statement.count for index in indices)


@given(st.integers(1, 40))
def test_where_a_text_is_cut_changes_nothing(at: int) -> None:
    """A binding is judged by where it stands alone."""
    text = "SELECT 'a' || b, $$x$$, \"c\" -- end"
    at = min(at, len(text))
    inside = re.finditer(r"(?<=')a(?=')|(?<=\$\$)x\$(?=\$)|(?<=\")c(?=\")|(?<=--).*", text)
    quoted = any(match.start() <= at <= match.end() for match in inside)
    assert [each.index for each in Statement((text[:at], text[at:])).misplaced] == [0] * quoted
    # `$1` beside `$$` or a letter keeps apart from it
    assert "$1" in Statement((text[:at], text[at:])).text()


@given(st.lists(st.text(max_size=8).filter(lambda each: B not in each), min_size=1, max_size=5))
def test_the_text_holds_the_pieces_and_numbers_only(pieces: list[str]) -> None:
    """What is sent is the author's text with $1, $2 ... between: there is no place for a value."""
    statement = statement_of(tuple(pieces))
    casts = ["::text"] * statement.count
    for given_casts in ((), casts):
        cast = "(::text)" if given_casts else "()"
        expected = re.escape(pieces[0])
        for number, piece in enumerate(pieces[1:], 1):
            expected += rf" ?\(?\${number}{cast}\)? ?{re.escape(piece)}"
        assert re.fullmatch(expected, statement.text(given_casts))


def test_a_cast_before_a_bracket_stays_a_cast() -> None:
    """`$1::int8[1]` would be the name of a type."""
    assert cut("SELECT ?[1]").text(["::int8[]"]) == "SELECT ($1::int8[])[1]"


def test_a_parameter_never_joins_a_word() -> None:
    """A letter or a digit beside a binding does not become a part of it."""
    assert cut("SELECT a?b").text() == "SELECT a $1 b"
    assert cut("SELECT ?5").text() == "SELECT $1 5"


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("SELECT a FROM t WHERE lower(b) = ?", True),
        ("  (SELECT 1)", True),
        ("WITH x AS (SELECT 1) SELECT * FROM x", True),
        ("SELECT count(*) FROM t", True),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", False),
        ("SELECT * INTO u FROM t", False),
        ("SELECT nextval('s')", False),
        ("SELECT pg_notify('a', 'b')", False),
        ("SELECT pay_out(?)", False),
        ('SELECT "pay_out"(?)', False),
        ("SELECT bank.pay_out (?)", False),
        ("SELECT 'pay_out(1)'", True),
        ("INSERT INTO t VALUES (1)", False),
        ("CALL p()", False),
        ("", False),
    ],
)
def test_only_what_surely_reads_may_be_sent_twice(text: str, reads: bool) -> None:  # noqa: FBT001
    """An unknown function may write."""
    assert cut(text).reads_only is reads


def test_the_first_word_is_found_behind_comments_and_brackets() -> None:
    """Where a statement begins is not where its text begins."""
    assert first_word("/* a */ -- b\n ((Select 1))") == "select"


def test_messages_name_the_bindings_of_their_own_step() -> None:
    """Two steps with one text and other bindings are two statements."""
    one, two = statement_of(("a ", ""), ("input.x",)), statement_of(("a ", ""), ("input.y",))
    assert one != two
    assert (one.shown_at(0), two.shown_at(0)) == ("<< input.x >>", "<< input.y >>")

"""Words of other tools: each gets the advice of what is written here, and hides no other error of the file."""

from __future__ import annotations

import pytest

from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language import foreign
from streamstack.language.filters import FILTERS, FUNCTIONS_OF_EXPRESSIONS
from streamstack.language.project import validate
from streamstack.language.settings import Streaming

HEAD = """\
method: POST
path: /x
inputParameters:
  q: {type: text, default: a}
  n: {type: integer, default: 1}
  tags: {type: list, default: []}
  user-name: {type: text, default: Ada}
functionStack:
"""


def findings_of(text: str) -> list[Diagnostic]:
    """Validate one file."""
    return validate({"a.yaml": text}, REGISTRY, Streaming(), {})[1]


def advice_for(expression: str) -> str:
    """Return message and hint of the first finding of an expression."""
    quoted = expression.replace("'", "''")
    found = findings_of(f"{HEAD}- stream: '<< {quoted} >>'\n")
    assert found, expression
    return f"{found[0].message} | {found[0].hint}"


#: Filters of Xano, PHP, JavaScript, Python, Liquid and Benthos, with a part of the advice.
FILTERS_ELSEWHERE = {
    "to_int": "toInteger", "parseInt": "toInteger", "intval": "toInteger", "to_decimal": "toDecimal",
    "parseFloat": "toDecimal", "number": "toDecimal", "to_text": "toText", "to_string": "toText", "str": "toText",
    "strlen": "length", "len": "length", "size": "length", "array_length": "length", "upcase": "upper",
    "toUpperCase": "upper", "strtoupper": "upper", "to_upper": "upper", "downcase": "lower", "strtolower": "lower",
    "ucfirst": "capitalize", "ucwords": "title", "json_encode": "toJson", "json_decode": "fromJson",
    "parse_json": "fromJson", "base64_encode": "base64", "base64_decode": "unbase64", "btoa": "base64",
    "url_encode": "urlEncode", "encodeURIComponent": "urlEncode", "url_decode": "urlDecode", "explode": "split",
    "implode": "join", "str_replace": "replace", "replaceAll": "replace", "strip_tags": "striptags",
    "htmlspecialchars": "escape", "slugify": "slug", "array_reverse": "reverse", "uniq": "unique",
    "array_unique": "unique", "flat": "flatten", "array_merge": "merge", "array_keys": "keys",
    "array_values": "values", "unpick": "omit", "index_by": "indexBy", "group_by": "groupBy", "sort_by": "sortBy",
    "orderBy": "sortBy", "array_sum": "sum", "avg": "mean", "average": "mean", "array_max": "max", "ceiling": "ceil",
    "str_pad": "pad", "lpad": "padStart", "formatDate": "date", "strftime": "date", "format_timestamp": "date",
    "strtotime": "toTimestamp", "regex_match": "regexMatch", "preg_replace": "regexReplace", "md5": 'hash("md5")',
    "sha256": "hash", "hmac_sha256": 'hmac("sha256", key)', "first_notnull": "default", "coalesce": "default",
    "substr": "x[0:5]", "concat": "~", "contains": "in text", "starts_with": "regexMatch", "is_null": "is none",
    "is_empty": "is empty", "filter": "selectattr", "find": "selectattr", "pluck": "map(attribute", "reduce": "sum",
    "sprintf": "~", "number_format": "~", "add": "a + b", "divided_by": "a / b", "lambda": "forEach",
    "filter_empty": "reject", "array_diff": "rejectattr", "get": "x.a.b", "to_bool": "is true", "csv_encode": "join",
    "ltrim": "trim", "create_uid": "uuid()", "shuffle": "random",
}  # fmt: skip


@pytest.mark.parametrize(("word", "instead"), FILTERS_ELSEWHERE.items())
def test_filters(word: str, instead: str) -> None:
    """None of them is near one of ours by its letters: `to_int` suggested `count`."""
    assert instead in advice_for(f"input.q | {word}")


@pytest.mark.parametrize(
    ("expression", "instead"),
    [
        ('input.q ? "a" : "b"', 'write `"a" if input.q else "b"`'),
        ('input.n > 1 ? [1, 2] : {"a": 1}', 'write `[1, 2] if input.n > 1 else {"a": 1}`'),
        ("input.tags.length", "write `input.tags | length`"),
        ("input.q.size", "write `input.q | length`"),
        ("loop_index", "`loop.index`"),
        ("array_length(input.tags)", "value | length"),
        ("input.q === true", "write `==`"),
        ("input.q !== true", "write `!=`"),
        ("input.q <> 1", "write `!=`"),
        ("input.q && input.n", "write `and`"),
        ("!input.q", "write `not x`"),
        ("input.q ?? 1", "x | default(...)"),
        ("input.q?.a", "default(...)"),
        ("$input.q", "`input`"),
        ("$item.x", "`item`"),
        ("$var.total", "name alone"),
        ("$json.x", "`input`"),
        ("$env.KEY", "`env`"),
        ("undefined", "`null`"),
        ("nil", "`null`"),
        ("input.user-name", '`input["user-name"]`'),
        ("input.n++", "write `x + 1`"),
        ("input.n += 1", "- set:"),
        ("`Hello ${input.q}`", "join values with `~`"),
        ("\u201ca\u201d", "straight quotes"),
        ("input.tags.map(x => x.id)", "list | map(attribute="),
        ("lambda x: x", "expressions have no functions"),
        ("input.tags | map(lambda x: x)", "expressions have no functions"),
        ("new Date()", "now()"),
        ("typeof input.q", "x is string"),
        ("input.q.toUpperCase()", "value | upper"),
        ("input.q.trim().toLowerCase()", "value | trim"),
        ("input.tags.join(',')", "value | join"),
        ("input.tags.filter(1)", "selectattr"),
        ("JSON.stringify(input.tags)", "value | toJson"),
        ("JSON.parse(input.q)", "value | fromJson"),
        ("Math.max(1, 2)", "[a, b] | max"),
        ("Math.floor(1.5)", "value | floor"),
        ("Object.keys(input.q)", "value | keys"),
        ("Date.now()", "now()"),
        ("time()", "now()"),
        ("uuid4()", "uuid()"),
        ("randint(1, 6)", "randomInteger"),
        ("len(input.q)", "value | length"),
        ("isset(input.q)", "default(...)"),
        ("console.log(input.q)", "- log:"),
        ("getenv('A')", "env.NAME"),
        ("if(input.q, 1, 2)", "a if condition else b"),
        ('input.q | date("YYYY-MM-DD")', 'date("%Y-%m-%d")'),
        ('input.q | date("Y-m-d H:i")', 'date("%Y-%m-%d %H:%M")'),
        ('input.q | regexMatch("/^x$/i")', '("^x$", "i")'),
        ('input.q | regexReplace("(a)", "$1")', "\\\\1"),
        ("remote_ip", "`request.ip`"),
        ("body.name", "`request.body`"),
        ("user_id", "`auth.sub`"),
        ("Math", "values have no code"),
    ],
)
def test_expressions(expression: str, instead: str) -> None:
    """Syntax, functions, methods and names of JavaScript, PHP, Python, n8n and Xano."""
    assert instead in advice_for(expression)


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("Create Variable", "set"), ("var.update", "set"), ("External API Request", "http.request"),
        ("External API Request (Streaming)", "http.stream"), ("conditional", "if"), ("function.run", "call"),
        ("perform_later", "job.start"),
        ("console.log", "log"), ("lambda", "no code runs here"), ("streaming.heartbeat", "keepAlive"),
        ("Direct Database Query", "db.query"), ("Add Record", "db.insert"), ("For Each Loop", "forEach"),
        ("For Loop", "repeat"), ("Try Catch", "try"), ("Stop and Error", "throw"), ("HTTP Request", "http.request"),
        ("Loop Over Items", "forEach"), ("AI Agent", "llm.chat"), ("Router", "switch"), ("broker", "streams.merge"),
        ("bloblang", "no code runs here"), ("uses", "call"), ("setTimeout", "wait"), ("Promise.all", "parallel"),
        ("memoize", "cache.use"), ("redis.incr", "counter.add"), ("elif", "else"), ("dedupe", "streams.changes"),
    ],
)  # fmt: skip
def test_steps(word: str, instead: str) -> None:
    """Functions of Xano, n8n, Make, Benthos and GitHub Actions."""
    found = [each for each in findings_of(f"{HEAD}- {word}: 1\n") if each.code == "unknown-function"]
    assert found
    assert instead in found[0].hint


@pytest.mark.parametrize(
    ("steps", "word", "meant"),
    [
        ("- forEach: {list: << input.tags >>, do: [{stream: 1}]}", "list", "in"),
        ("- forEach: {in: << input.tags >>, item: t, do: [{stream: << t >>}]}", "item", "as"),
        ("- forEach: {in: << input.tags >>, steps: [{stream: 1}]}", "steps", "do"),
        ("- if: {if: << input.n >>, then: [{stream: 1}]}", "if", "condition"),
        ("- stream: {text: a}", "text", "content"),
        ("- stream: {content: a, type: b}", "type", "event"),
        ("- http.request: {uri: 'https://a.example/'}\n  into: x\n- stream: << x >>", "uri", "url"),
        ("- while: {test: << input.n >>, do: [{stream: 1}]}", "test", "condition"),
        ("- repeat: {count: 2, do: [{stream: 1}]}", "count", "times"),
        ("- try: {do: [{stream: 1}], except: []}", "except", "catch"),
        ("- throw: {error_type: a, msg: b}", "msg", "message"),
    ],
)
def test_keys(steps: str, word: str, meant: str) -> None:
    """Parameters by their names elsewhere are read as what they mean, so that the rest is checked too."""
    found = findings_of(f"{HEAD}{steps}\n")
    assert [each.hint for each in found if f"`{word}`" in each.message] == [f"did you mean `{meant}`?"]
    assert "missing-parameter" not in {each.code for each in found}


def test_all_errors_are_found_in_one_round() -> None:
    """Misspelt and foreign keys, functions, filters and names of one file are reported together."""
    text = """\
metod: POST
path: /x
inputs: {tags: {type: array, itmes: text}}
steps:
- forEach: {list: << input.tags >>, as: t, do: [{strem: << t | to_int >>}, {print: << nothing >>}]}
- stream: << input.tagz >>
  wen: << inptu.tags >>
"""
    words = [
        "metod",
        "inputs",
        "array",
        "itmes",
        "steps",
        "list",
        "strem",
        "to_int",
        "print",
        "nothing",
        "tagz",
        "wen",
        "inptu",
    ]
    messages = [each.message for each in findings_of(text)]
    assert [word for word in words if not any(f"`{word}`" in message for message in messages)] == []
    assert len(messages) == len(words)


@pytest.mark.parametrize(
    "foreign_step",
    [
        "Create Variable: {name: total, value: 0}",
        "lambda: total = 0",
        "Update Variable: {var: total, steps: [{stream: 1}]}",
        "do_something: {deep: [{as: total}]}",
        "no_such_function: {in: << tags >>}\n  as: total",
    ],
)
def test_names_are_checked_beside_steps_of_another_shape(foreign_step: str) -> None:
    """An unknown function does not hide misspelt names, and what it may bind is not reported as unbound."""
    text = f"""\
method: POST
path: /x
inputParameters: {{tags: {{type: list}}}}
functionStack:
- {foreign_step}
- append: {{to: total, value: << totl >>}}
- log: << total.deep ~ input.tagz >>
"""
    found = [(each.code, each.message.split("`")[1]) for each in findings_of(text)]
    names = [each for each in found if each[0] in ("unbound-name", "unknown-property", "no-chunks")]
    assert names == [("unbound-name", "totl"), ("unknown-property", "input")]
    assert found[0][0] == "unknown-function"


def test_every_word_leads_to_something_that_exists() -> None:
    """A name that a table proposes is a function or filter of this language, and no word is one itself."""
    for advice in foreign.FUNCTIONS.values():
        assert not advice.name or advice.name in REGISTRY
    for advice in foreign.FILTERS.values():
        assert not advice.name or advice.name.partition("(")[0] in FILTERS
    for advice in foreign.CALLS.values():
        assert not advice.name or advice.name in FUNCTIONS_OF_EXPRESSIONS
    assert len(foreign.FUNCTIONS) + len(foreign.FILTERS) + len(foreign.NAMES) + len(foreign.CALLS) > 800

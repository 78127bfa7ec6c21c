"""What a caller sends to a statement can only be answered with a 4xx, whatever column or place it goes to."""

from __future__ import annotations

import json
from pathlib import Path

from streamstack.functions import REGISTRY
from streamstack.language.project import validate
from streamstack.language.settings import Streaming
from tests.postgres import query
from tests.server.authenticating import project

COLUMNS = {
    "text": "text", "short": "varchar(5)", "int2": "smallint", "int4": "integer", "int8": "bigint", "plain": "numeric",
    "price": "numeric(5,2)", "float4": "real", "float8": "double precision", "bool": "boolean", "json": "json",
    "jsonb": "jsonb", "timestamptz": "timestamptz", "timestamp": "timestamp", "date": "date", "time": "time",
    "interval": "interval", "uuid": "uuid", "bytea": "bytea", "texts": "text[]", "ints": "integer[]", "inet": "inet",
    "range": "int4range", "char": '"char"',
}  # fmt: skip
TABLE = f"CREATE TABLE everything ({', '.join(f'{name} {type_}' for name, type_ in COLUMNS.items())})"
#: Where a binding stands in a statement, beside the columns.
PLACES = {
    "limit": "db.query: SELECT 1 AS one LIMIT << input.v >>",
    "offset": "db.query: SELECT 1 AS one OFFSET << input.v >>",
    "series": "db.query: SELECT generate_series(1, << input.v >>) LIMIT 1",
    "lower": "db.query: SELECT lower(<< input.v >>)",
    "cast": "db.query: SELECT << input.v >>::integer",
    "sum": "db.query: SELECT 1 + << input.v >> AS n",
    "regex": "db.query: SELECT 'a' ~ << input.v >> AS n",
    "like": "db.query: SELECT 'a' LIKE << input.v >> AS n",
    "any": "db.query: SELECT 1 = ANY(<< [input.v] >>) AS n",
    "json path": "db.query: SELECT '{}'::jsonb -> << input.v >>",
    "plain": "db.query: SELECT << input.v >> AS n",
    "factorial": "db.query: SELECT 10::numeric ^ << input.v >> AS n",
    "get limit": "db.get: {table: everything, limit: << input.v >>}",
    "get offset": "db.get: {table: everything, offset: << input.v >>}",
    "object": "db.insert: {table: everything, values: {jsonb: {a: << input.v >>}}}",
    "key": "db.insert: {table: everything, values: {jsonb: '<< {input.v | toText: 1} >>'}}",
    "rows": "db.insert: {table: everything, rows: '<< [{\"text\": input.v}, {\"text\": input.v}] >>'}",
    "typed rows": "db.insert: {table: everything, rows: '<< [{\"int4\": input.v, \"date\": input.v}] >>'}",
    "stream": "db.stream: SELECT << input.v >>::text AS n",
    "notify": "db.query: SELECT pg_notify('a', << input.v >>)",
    "listen": "db.listen: << input.v >>",
}  # fmt: skip
PLACES |= {f"insert {each}": f"db.insert: {{table: everything, values: {{{each}: << input.v >>}}}}" for each in COLUMNS}
PLACES |= {
    f"where {each}": f"db.get: {{table: everything, where: {{{each}: << input.v >>}}}}"
    for each in COLUMNS
    if each != "json"  # has no equality
}
VALUES = {
    "text": ["", "\\u0000", "a\\u0000b", "\\ud800", "a\\udfffb", "x" * 100_000, "NaN", "infinity", "-infinity", "1e400",
             "9" * 400, "99999-01-01", "0000-00-00", "{", "'", "[1,", "{1", "a" * 70, "\\uffff"],
    "integer": ["0", "-1", str(2**31), str(2**32), str(2**63 - 1), str(-(2**63)), str(2**63), str(2**64), "9" * 300],
    "decimal": ["0.1", "1e308", "-1e308", "5e-324", "1" + "0" * 40 + ".5", "1e-400", "0." + "1" * 5000],
    "list": ["[]", "[null]", '["\\u0000"]', "[[1],[1,2]]", '[1,"a"]', f"[{2**63}]", "[[]]", "[{}]"],
    "object": ["{}", '{"\\u0000": 1}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"\\udc00": 1}'],
    "boolean": ["true"],
    "timestamp": ['"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"', '"0001-01-01T00:00:00+14:00"',
                  '"9999-12-31T23:59:59-12:00"'],
    "date": ['"0001-01-01"', '"9999-12-31"'],
}  # fmt: skip


TAKE = "\n  - streams.take: {in: << r >>, count: 0}\n    as: few\n  - collect: << few >>\n    as: r"


def endpoints() -> dict[tuple[str, str], str]:
    """Return an endpoint for each place and type of input that `validate` does not refuse."""
    texts = {}
    for place, step in PLACES.items():
        for kind in VALUES:
            reads = TAKE if step.startswith(("db.stream", "db.listen")) else ""
            text = (
                f"method: POST\npath: /{kind}/{place.replace(' ', '-')}\nresponseType: json\n"
                f"inputParameters: {{v: {{type: {kind}, required: true}}}}\n"
                f"functionStack:\n  - {step}\n    as: r{reads}\nresponse: << 1 >>\n"
            )
            findings = validate({"t.yaml": text}, REGISTRY, Streaming(), {}, {})[1]
            if not any(each.severity == "error" for each in findings):
                texts[place, kind] = text
    return texts


async def test_a_caller_can_choose_no_500(postgres: str, tmp_path: Path) -> None:
    """Whatever value of whatever type meets whatever column: stored, found, or refused with a public message."""
    query(postgres, TABLE)
    failures = []
    served = endpoints()
    assert len(served) > 200, "most of them can be served"
    definitions = "---\n".join(served.values())
    async with project(tmp_path, f"databases: {{main: {{url: '{postgres}'}}}}", definitions, {}) as server:
        for place, kind in served:
            if place == "listen" and kind != "text":
                continue  # the definition is wrong
            replies = {}
            for value in VALUES[kind]:
                body = '{"v": %s}' % (json.dumps(value).replace("\\\\u", "\\u") if kind == "text" else value)
                path = f"/{kind}/{place.replace(' ', '-')}"
                replies[value] = await server.ask("POST", path, body.encode(), Content_Type="application/json")
            # Where every value fails, it is the definition that is wrong: a list for a number, say.
            failed = {value[:40]: each.body for value, each in replies.items() if each.status >= 500}
            if len(failed) < len(VALUES[kind]):
                failures += [(place, kind, value, body) for value, body in failed.items()]
    assert failures == []

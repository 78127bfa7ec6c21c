"""Declared inputs: what is taken, what it becomes, and how the rest is refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.language.definition import InputRules
from streamstack.language.operators import contains, lacks
from streamstack.language.values import to_json
from streamstack.runtime.inputs import Inputs, compile_inputs
from streamstack.runtime.values import File, Stream
from tests.declaring import compile_yaml, declare, faults_of, send_form, send_json, send_texts

ZONE = timezone(timedelta(hours=2))

#: (declaration, JSON that is taken, what it becomes)
TAKEN: list[tuple[str, str, Any]] = [
    ("{type: text}", '"héllo 😀"', "héllo 😀"),
    ("{type: text}", '""', ""),
    ("{type: text, filters: [trim, lower], minLength: 1, maxLength: 3}", '"  ABC "', "abc"),
    ("{type: text, filters: [upper]}", '"straße"', "STRASSE"),
    ("{type: text, pattern: '^[a-z]+$'}", '"abc"', "abc"),
    ("{type: text, nullable: true}", "null", None),
    ("{type: integer}", "5", 5),
    ("{type: integer}", "-0", 0),
    ("{type: integer}", "5.0", 5),
    ("{type: integer}", "1e3", 1000),
    ("{type: integer}", "9223372036854775807", 2**63 - 1),
    ("{type: integer, maximum: 100000000000000000000}", "99999999999999999999", 10**20 - 1),
    ("{type: integer, minimum: 1, maximum: 5}", "5", 5),
    ("{type: decimal}", "5", Decimal(5)),
    ("{type: decimal}", "1.10", Decimal("1.10")),
    ("{type: decimal}", "0.1234567890123456789012345678901", Decimal("0.1234567890123456789012345678901")),
    ("{type: decimal}", "12345678901234567890123", Decimal(12345678901234567890123)),
    ("{type: decimal, minimum: 0.1, maximum: 0.3}", "0.1", Decimal("0.1")),
    ("{type: boolean}", "true", True),
    ("{type: boolean}", "false", False),
    ("{type: timestamp}", '"2026-01-31T12:00:00Z"', datetime(2026, 1, 31, 12, tzinfo=UTC)),
    (
        "{type: timestamp}",
        '"2026-01-31t12:00:00.123456789+02:00"',
        datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=ZONE),
    ),
    ("{type: date}", '"2024-02-29"', date(2024, 2, 29)),
    ("{type: uuid}", '"0B8E5D1C-3F6A-4C57-9D0E-2F4B8A6C1E90"', "0b8e5d1c-3f6a-4c57-9d0e-2f4b8a6c1e90"),
    ("{type: email}", '"ada+x@mail.example.com"', "ada+x@mail.example.com"),
    ("{type: url}", '"https://example.com:8443/a?b=c#d"', "https://example.com:8443/a?b=c#d"),
    ("{type: object}", '{"a": {"b": [1]}}', {"a": {"b": [1]}}),
    ("{type: list}", '[1, "a", null]', [1, "a", None]),
    ("{type: list, items: integer, minItems: 1, maxItems: 2}", "[1, 2]", [1, 2]),
    ("{type: list, items: {type: integer, nullable: true}}", "[1, null]", [1, None]),
    ("{type: enum, values: [a, 1, 1.5, true]}", '"a"', "a"),
    ("{type: enum, values: [a, 1, 1.5, true]}", "1", 1),
    ("{type: enum, values: [a, 1, 1.5, true]}", "1.0", 1),
    ("{type: enum, values: [a, 1, 1.5, true]}", "1.50", 1.5),
    ("{type: enum, values: [a, 1, 1.5, true]}", "true", True),
    ("{type: json}", "null", None),
    ("{type: json}", '[{"a": 1.5}]', [{"a": 1.5}]),
    ("What is asked for", '"x"', "x"),
]

#: (declaration, JSON that is refused, name of the fault, part of its message)
REFUSED: list[tuple[str, str, str, str]] = [
    ("{type: text}", "5", "x", "must be a text, not an integer"),
    ("{type: text}", "null", "x", "must be a text, not null"),
    ("{type: text, minLength: 1}", '""', "x", "must not be empty"),
    ("{type: text, minLength: 2}", '"a"', "x", "must have at least 2 characters"),
    ("{type: text, maxLength: 2}", '"😀😀😀"', "x", "must have at most 2 characters"),
    ("{type: text, filters: [trim], minLength: 1}", '"  "', "x", "must not be empty"),
    ("{type: text, pattern: '^[a-z]+$'}", '"aB"', "x", "must match the pattern ^[a-z]+$"),
    ("{type: text, pattern: '^[a-z]+$'}", r'"a\n"', "x", "must match the pattern"),
    ("{type: integer}", '"5"', "x", "must be an integer, not a text"),
    ("{type: integer}", "true", "x", "must be an integer, not a boolean"),
    ("{type: integer}", "5.5", "x", "must be an integer, without a fraction"),
    ("{type: integer}", "[5]", "x", "must be an integer, not a list"),
    ("{type: integer}", "{}", "x", "must be an integer, not an object"),
    ("{type: integer}", "9223372036854775808", "x", "must be between -9223372036854775808 and 9223372036854775807"),
    ("{type: integer}", "1e300", "x", "must be between"),
    ("{type: integer, minimum: 1}", "0", "x", "must be at least 1"),
    ("{type: integer, maximum: 5}", "6", "x", "must be at most 5"),
    ("{type: integer, minimum: 1, maximum: 5}", "6", "x", "must be between 1 and 5"),
    ("{type: decimal}", '"1.5"', "x", "must be a decimal, not a text"),
    ("{type: decimal}", "true", "x", "must be a decimal, not a boolean"),
    ("{type: decimal, maximum: 0.3}", "0.30000000000000000001", "x", "must be at most 0.3"),
    ("{type: boolean}", '"true"', "x", "must be true or false, not a text"),
    ("{type: boolean}", "1", "x", "must be true or false, not an integer"),
    ("{type: timestamp}", '"2026-01-31T12:00:00"', "x", "with its offset from UTC, such as"),
    ("{type: timestamp}", '"2026-02-30T12:00:00Z"', "x", "must be a timestamp"),
    ("{type: timestamp}", '"20260131T120000Z"', "x", "must be a timestamp"),
    ("{type: timestamp}", '"0001-01-01T00:00:00+14:00"', "x", "must be a timestamp"),
    ("{type: timestamp}", "1769860800", "x", "such as 2026-01-31T12:00:00Z, not an integer"),
    ("{type: date}", '"2026-2-3"', "x", "must be a date such as 2026-01-31"),
    ("{type: date}", '"2023-02-29"', "x", "must be a date"),
    ("{type: uuid}", '"{0b8e5d1c-3f6a-4c57-9d0e-2f4b8a6c1e90}"', "x", "must be a UUID such as"),
    ("{type: email}", '"ada@@example.com"', "x", "must be an e-mail address such as"),
    ("{type: email}", r'"ada@example.com\nBcc: x@y.z"', "x", "must be an e-mail address"),
    ("{type: url}", '"example.com/page"', "x", "must be an absolute URL such as"),
    ("{type: url}", '"javascript://example.com/%0aalert(1)"', "x", "must be an absolute URL"),
    ("{type: url}", '"https://[::1"', "x", "must be an absolute URL"),
    ("{type: url}", '"https://e.com:99999/"', "x", "must be an absolute URL"),
    ("{type: object}", "[]", "x", "must be an object, not a list"),
    ("{type: list}", "{}", "x", "must be a list, not an object"),
    ("{type: list, items: integer}", '[1, "2", 3]', "x[1]", "must be an integer, not a text"),
    ("{type: list, minItems: 1}", "[]", "x", "must have at least 1 item"),
    ("{type: list, maxItems: 2}", "[1,2,3]", "x", "must have at most 2 items"),
    ("{type: enum, values: [a, 1]}", '"b"', "x", 'must be one of "a", 1'),
    ("{type: enum, values: [a, 1]}", '"1"', "x", "must be one of"),
    ("{type: enum, values: [a, 1]}", "true", "x", "must be one of"),
    ("{type: enum, values: [a, 1]}", "[]", "x", 'must be one of "a", 1, not a list'),
    ("{type: file}", '"abc"', "x", "must be a file: send the body as multipart/form-data"),
    ("{properties: {chunkSize: {type: integer}}}", '{"chunkSize": "5"}', "x.chunkSize", "must be an integer"),
    (
        "{properties: {chunkSize: {type: integer}}}",
        '{"chunksize": 5}',
        "x.chunksize",
        "is not known here, did you mean `chunkSize`?",
    ),
    (
        "{items: {properties: {price: {type: decimal, required: true}}}}",
        '[{"price": 1.5}, {}]',
        "x[1].price",
        "is required",
    ),
    ("{properties: {a: text}}", "5", "x", "must be an object, not an integer"),
]


@pytest.mark.parametrize(("declaration", "sent", "value"), TAKEN)
def test_json_is_taken(declaration: str, sent: str, value: Any) -> None:
    """A value that fits becomes a value of the language, of exactly its type."""
    found = send_json(compile_yaml(f"x: {declaration}"), f'{{"x": {sent}}}')["x"]
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, (Decimal, datetime)):
        assert str(found) == str(value)


@pytest.mark.parametrize(("declaration", "sent", "name", "message"), REFUSED)
def test_json_is_refused(declaration: str, sent: str, name: str, message: str) -> None:
    """A value that does not fit is named, with what to send, in the language's own words."""
    checker = compile_yaml(f"x: {declaration}")
    faults = faults_of(lambda: send_json(checker, f'{{"x": {sent}}}'))
    assert [each for each, _ in faults] == [name]
    assert message in faults[0][1]
    assert not any(word in faults[0][1] for word in ("str", "dict", "int ", "float", "None"))


TEXTS: list[tuple[str, list[str], Any]] = [
    ("{type: text}", [" a "], " a "),
    ("{type: text}", [""], ""),
    ("{type: integer}", ["5"], 5),
    ("{type: integer}", [" -5 "], -5),
    ("{type: integer}", ["+5"], 5),
    ("{type: integer}", [""], None),
    ("{type: decimal}", ["1.10"], Decimal("1.10")),
    ("{type: decimal}", ["-1e3"], Decimal("-1e3")),
    ("{type: boolean}", ["true"], True),
    ("{type: boolean}", ["False"], False),
    ("{type: boolean}", ["1"], True),
    ("{type: boolean}", ["0"], False),
    ("{type: timestamp}", ["2026-01-31T12:00:00 02:00"], datetime(2026, 1, 31, 12, tzinfo=ZONE)),
    ("{type: date}", ["2026-01-31"], date(2026, 1, 31)),
    ("{type: enum, values: [a, 1, true]}", ["1"], 1),
    ("{type: enum, values: [a, 1, true]}", ["true"], True),
    ("{type: list}", ["a", "5"], ["a", 5]),
    ("{type: list, items: text}", ["a"], ["a"]),
    ("{type: list, items: text}", ["a", ""], ["a", ""]),
    ("{type: list, items: integer}", ["1", "2"], [1, 2]),
    ("{type: list, items: integer}", ["", "2"], [2]),
    ("{type: list, items: {properties: {a: integer}}}", ['{"a":1}', "{}"], [{"a": 1}, {"a": None}]),
    ("{type: object}", ['{"a": 5}'], {"a": 5}),
    ("{properties: {a: decimal}}", ['{"a": 5.10}'], {"a": Decimal("5.10")}),
    ("{type: json}", ["5"], 5),
    ("{type: json}", ["hello world"], "hello world"),
    ("{type: json}", ['["a"]'], ["a"]),
]


@pytest.mark.parametrize(("declaration", "texts", "value"), TEXTS)
def test_texts_are_converted(declaration: str, texts: list[str], value: Any) -> None:
    """What arrives as text, in a query or a form, becomes the declared type."""
    checker = compile_yaml(f"x: {declaration}")
    found = send_texts(checker, x=texts)["x"]
    assert found == value
    assert type(found) is type(value)
    assert send_form(checker, {"x": texts})["x"] == value


@pytest.mark.parametrize(
    ("declaration", "texts", "name", "message"),
    [
        ("{type: integer}", ["abc"], "x", "must be an integer, not a text"),
        ("{type: integer}", ["5.0"], "x", "must be an integer"),
        ("{type: integer}", ["٥"], "x", "must be an integer"),
        ("{type: integer}", ["1_000"], "x", "must be an integer"),
        ("{type: integer}", ["9" * 5000], "x", "must be an integer"),
        ("{type: integer}", ["9" * 300], "x", "must be between"),
        ("{type: integer}", ["5", "6"], "x", "is sent 2 times: send it once"),
        ("{type: decimal}", ["nan"], "x", "must be a decimal"),
        ("{type: decimal}", ["Infinity"], "x", "must be a decimal"),
        ("{type: decimal}", ["1e9999"], "x", "must be a decimal with an exponent of at most 400"),
        ("{type: boolean}", ["yes"], "x", "must be true or false"),
        ("{type: list, items: integer}", ["1", "b"], "x[1]", "must be an integer"),
        ("{type: list, items: integer, maxItems: 1}", ["1", "2"], "x", "at most 1 item"),
        ("{type: object}", ["{"], "x", "must be JSON: "),
        ("{type: object}", ["[1]"], "x", "must be an object, not a list"),
        ("{type: text}", ["a\udc80"], "x", "must be UTF-8"),
        ("{type: file}", ["a"], "x", "must be a file"),
    ],
)
def test_texts_are_refused(declaration: str, texts: list[str], name: str, message: str) -> None:
    """A text that is not of the declared type is refused."""
    checker = compile_yaml(f"x: {declaration}")
    faults = faults_of(lambda: send_texts(checker, x=texts))
    assert [each for each, _ in faults] == [name]
    assert message in faults[0][1]


CHAT = """
message: {type: text, required: true, minLength: 1}
history: {type: list, items: {type: object}, default: []}
streamOptions:
  type: object
  aliases: [options]
  properties:
    chunkSize: {type: integer, default: 5, minimum: 1, maximum: 50}
    ratio: {type: decimal, default: 0.10}
    tags: {type: list, default: [a]}
"""


def test_absent_inputs_have_their_defaults() -> None:
    """An absent object with properties is built from their defaults; `in` tells what was sent."""
    found = send_json(compile_yaml(CHAT), '{"message": "Hi"}')
    assert found == {
        "message": "Hi",
        "history": [],
        "streamOptions": {"chunkSize": 5, "ratio": Decimal("0.1"), "tags": ["a"]},
    }
    assert "message" in found
    assert "history" not in found
    assert "streamOptions" not in found
    assert "nonsense" not in found
    assert contains("message", found)
    assert lacks("history", found)
    assert json.loads(to_json(found))["streamOptions"]["ratio"] == 0.1


def test_absent_input_without_default_is_null() -> None:
    """An optional input that is absent is null, and was not sent; a null that is sent was."""
    checker = compile_yaml("a: text\nb: {type: text, nullable: true, default: x}")
    assert send_json(checker, "{}") == {"a": None, "b": "x"}
    sent = send_json(checker, '{"b": null}')
    assert sent == {"a": None, "b": None}
    assert "b" in sent


def test_partly_sent_object_is_filled() -> None:
    """A sent object has the defaults of the properties that it lacks; an alias is another name."""
    found = send_json(compile_yaml(CHAT), '{"message": "Hi", "options": {"chunkSize": 9}}')
    assert found["streamOptions"] == {"chunkSize": 9, "ratio": Decimal("0.1"), "tags": ["a"]}
    assert "streamOptions" in found


def test_runs_share_no_default() -> None:
    """What one run does to a default, no other run sees."""
    checker = compile_yaml(CHAT)
    first = send_json(checker, '{"message": "Hi"}')
    first["history"].append(1)
    first["streamOptions"]["tags"].append(1)
    second = send_json(checker, '{"message": "Hi"}')
    assert second["history"] == []
    assert second["streamOptions"]["tags"] == ["a"]


def test_every_fault_is_named_in_one_error() -> None:
    """One error names all faults by their place, name and message."""
    with pytest.raises(RunError) as caught:
        send_json(compile_yaml(CHAT), '{"mesage": "Hi", "history": [1, {}], "options": {"chunkSize": 0, "ratio": []}}')
    assert caught.value.code == "invalid-input"
    assert caught.value.status == 400
    assert caught.value.details == [
        {"in": "body", "name": "message", "message": "is required"},
        {"in": "body", "name": "history[0]", "message": "must be an object, not an integer"},
        {"in": "body", "name": "options.chunkSize", "message": "must be between 1 and 50"},
        {"in": "body", "name": "options.ratio", "message": "must be a decimal, not a list"},
        {"in": "body", "name": "mesage", "message": "is not known here, did you mean `message`?"},
    ]
    assert caught.value.message.startswith("message is required; history[0] must be an object")
    assert caught.value.message.endswith("; and 2 more")


def test_places_are_told_apart() -> None:
    """Faults say where the value came from, and what belongs elsewhere."""
    checker = compile_yaml(
        "id: integer\nlimit: {type: integer, in: query}\ntoken: {type: text, in: header, required: true}\nbody: text"
    )
    sent = {"path": {"id": ["x"]}, "query": {"limit": ["5"]}}

    def lookups(place: str) -> Any:
        return lambda name: sent.get(place, {}).get(name, ())

    with pytest.raises(RunError) as caught:
        checker.layout("POST", ("id",)).check(lookups, {"id": ["5"], "body": ["a"]})
    assert [(each["in"], each["name"]) for each in caught.value.details] == [
        ("path", "id"),
        ("header", "token"),
        ("body", "id"),
    ]
    assert caught.value.details[2]["message"] == "belongs in the path, not here"


def test_inputs_keep_the_declared_order() -> None:
    """Inputs of several places stand in the order in which they are declared."""
    checker = compile_yaml("a: text\nid: integer\nb: {type: text, in: query}")
    layout = checker.layout("POST", ["id"])
    found = layout.check(lambda _: {"id": ["5"], "b": ["x"]}.get, {"a": ["y"]})  # type: ignore[arg-type,return-value]
    assert list(found.items()) == [("a", "y"), ("id", 5), ("b", "x")]


def test_alias_and_name_exclude_one_another() -> None:
    """An input sent under two names is reported, in JSON and in a query."""
    checker = compile_yaml("size: {type: integer, aliases: [s, n]}")
    told = "is another name of size: send one of them"
    assert faults_of(lambda: send_json(checker, '{"size": 1, "s": 2}')) == [("s", told)]
    assert faults_of(lambda: send_json(checker, '{"s": 1, "n": 2}')) == [("n", told)]
    assert faults_of(lambda: send_texts(checker, size="1", s="2")) == [("s", told)]
    assert send_json(checker, '{"n": 2}') == {"size": 2}


def test_unknown_properties_are_let_be_on_demand() -> None:
    """With `unknownInputs: ignore` what is not declared is skipped, at any depth."""
    checker = compile_yaml(CHAT, InputRules(unknown="ignore"))
    found = send_json(checker, '{"message": "a", "more": 1, "options": {"more": 1}}')
    assert list(found) == ["message", "history", "streamOptions"]
    assert "more" not in found["streamOptions"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"message": ', "must be JSON: "),
        ('{"message": NaN}', "must be JSON: "),
        ('{"message": Infinity}', "must be JSON: "),
        ('{"message": 1e9999}', "must be JSON: "),
        ('{"message": "\\ud800"}', "must be JSON: "),
        (b'{"message": "\xff"}', "must be JSON: it is not UTF-8"),
        ("[]", "must be an object, not a list"),
        ("null", "must be an object, not null"),
        ('"text"', "must be an object, not a text"),
        ("[" * 10_000 + "]" * 10_000, "must not be nested more than 250 deep"),
        ('{"message":' * 10_000, "must not be nested more than 250 deep"),
        ('{"history":' + "[" * 300 + "]" * 300 + "}", "must not be nested more than 250 deep"),
    ],
)
def test_malformed_documents_are_one_fault(body: str | bytes, message: str) -> None:
    """A body that is not JSON, or not an object, is one fault of the body as a whole."""
    checker = compile_yaml(CHAT)
    faults = faults_of(lambda: send_json(checker, body))
    assert len(faults) == 1
    assert faults[0][0] == ""
    assert faults[0][1].startswith(message)


def test_empty_body_is_an_empty_object() -> None:
    """An empty body gives the defaults, or names what is required."""
    assert send_json(compile_yaml("a: {type: integer, default: 1}"), b"") == {"a": 1}
    assert send_json(compile_yaml("a: {type: integer, default: 1}"), b"\n ") == {"a": 1}
    checker = compile_yaml("a: {type: integer, required: true}")
    assert faults_of(lambda: send_json(checker, b"")) == [("a", "is required")]


def test_what_is_nested_as_deep_as_allowed_can_be_written_again() -> None:
    """The deepest document that is taken can be sent back."""
    deep = "[" * 248 + "]" * 248
    found = send_json(compile_yaml("x: json"), f'{{"x": {deep}}}')
    assert to_json({"content": found}).count(b"[") == 248


def test_decimals_beside_free_json_leave_it_as_it_is() -> None:
    """Free JSON holds the same numbers whether or not a decimal stands beside it, and all keep their digits."""
    checker = compile_yaml("price: decimal\nfree: json")
    free = '{"a": [1.5, 123456789012345678901, 2, 9007199254740993.5, -9999999999999999999, 1.10]}'
    for price in ("0.10", "1"):
        found = send_json(checker, f'{{"price": {price}, "free": {free}}}')
        assert str(found["price"]) == price
        numbers = [1.5, 123456789012345678901, 2, Decimal("9007199254740993.5"), -9999999999999999999, 1.1]
        assert [(type(each), each) for each in found["free"]["a"]] == [(type(each), each) for each in numbers]


@pytest.mark.parametrize("number", ["0." + "1" * 10_001, "1." + "0" * 10_001, "-" + "1" * 200 + "." + "1" * 9_801])
def test_decimals_of_endless_digits_are_refused(number: str) -> None:
    """Before and after the point, in JSON and as a text; 10,000 digits are taken, and free JSON has floats."""
    checker = compile_yaml("price: decimal\nfree: json")
    told = [("price", "must be a decimal with at most 10000 digits")]
    assert faults_of(lambda: send_json(checker, f'{{"price": {number}}}')) == told
    body = f'{{"price": {number[:10_001]}, "free": {number}}}'
    found = send_json(checker, body)
    assert str(found["price"]) == number[:10_001]
    assert found["free"] == float(number)
    checker = compile_yaml("prices: {type: list, items: decimal}")
    body = f'{{"prices": [1, {number}]}}'
    assert faults_of(lambda: send_json(checker, body))[0][0] == "prices[1]"


def test_no_message_holds_what_was_sent() -> None:
    """Neither messages nor details repeat a value, of a sensitive input or of another."""
    yaml = """
    password: {type: text, sensitive: true, maxLength: 3, pattern: '^[a-z]+$'}
    pin: {type: integer, sensitive: true, maximum: 5}
    plan: {type: enum, values: [gold, silver], sensitive: true}
    mail: {type: email}
    options: {type: object}
    """
    secrets = {"password": "hunter2!", "pin": 987654, "plan": "hunter2!", "mail": "hunter2!"}
    checker = compile_yaml(yaml)
    with pytest.raises(RunError) as caught:
        send_json(checker, json.dumps(secrets | {"options": "hunter2!"}))
    told = f"{caught.value.message} {caught.value.details}"
    assert len(caught.value.details) == 5
    assert "hunter2" not in told
    assert "987654" not in told
    assert "gold" not in told


def test_faults_are_bounded() -> None:
    """A body of a hundred thousand faults gets an answer of fifty."""
    checker = compile_yaml("x: {type: list, items: integer}")
    with pytest.raises(RunError) as caught:
        send_json(checker, json.dumps({"x": ["a"] * 100_000, **{f"k{n}": 1 for n in range(1000)}}))
    assert len(caught.value.details) == 50
    long = faults_of(lambda: send_json(checker, json.dumps({"n" * 5000: 1})))
    assert len(long[0][0]) < 100


def test_calls_take_values_of_the_language() -> None:
    """A function is given decimals, timestamps, files and streams as they are; null is not given."""
    checker = compile_yaml(
        "a: {type: decimal, default: 1}\nb: timestamp\nc: {type: text, required: true}\nd: json\n"
        "e: {type: list, items: date}\nf: {type: integer, nullable: true, default: 5}\ng: file"
    )
    file = File("a.txt", "text/plain")
    given = {
        "a": None,
        "b": datetime(2026, 1, 1),  # noqa: DTZ001  (what a database gives)
        "c": "x",
        "d": {"x": Decimal(1)},
        "e": [date(2026, 1, 1)],
        "f": None,
        "g": file,
    }
    found = checker.check(given)
    assert found == {**given, "a": Decimal(1), "b": datetime(2026, 1, 1, tzinfo=UTC)}
    assert "a" not in found
    assert checker.check({"c": "x", "a": 0.1})["a"] == Decimal("0.1")
    assert faults_of(lambda: checker.check({"c": None, "f": "5", "z": 1})) == [
        ("c", "is required"),
        ("f", "must be an integer, not a text"),
        ("z", "is not known here"),
    ]


def test_calls_refuse_streams_where_values_are_declared() -> None:
    """A stream is not a value, and the message says what to write."""

    async def nothing() -> Any:
        yield []

    checker = compile_yaml("a: json\nb: {type: list}")
    faults = faults_of(lambda: checker.check({"a": Stream(nothing), "b": Stream(nothing)}))
    assert [name for name, _ in faults] == ["a", "b"]
    assert "`collect` it first" in faults[0][1]


def test_pattern_costs_time_in_proportion() -> None:
    """Patterns that would keep Python's matcher busy for years are answered at once."""
    checker = compile_yaml("x: {type: text, pattern: '^(a+)+$', maxLength: 100000}")
    assert send_json(checker, json.dumps({"x": "a" * 99_999}))
    faults = faults_of(lambda: send_json(checker, json.dumps({"x": "a" * 99_999 + "b"})))
    assert faults == [("x", "must match the pattern ^(a+)+$")]


@pytest.mark.parametrize(
    "yaml",
    [
        "a: {type: json, in: wholeBody}\nb: {type: text, in: body}",
        "a: {type: json, in: wholeBody}\nb: {type: json, in: wholeBody}",
    ],
)
def test_what_can_not_be_served_is_refused_at_load(yaml: str) -> None:
    """A declaration that no request could be checked by is refused with its place."""
    declared = declare(yaml)
    with pytest.raises(ValueError, match=r"^inputs\.yaml:\d+:\d+: "):
        compile_inputs(declared).layout("POST")


def test_inputs_are_plain_data() -> None:
    """Checked inputs are a mapping like any other to code that writes or walks them."""
    found = send_json(compile_yaml(CHAT), '{"message": "Hi"}')
    assert isinstance(found, Inputs)
    assert found.get("history") == []
    assert list(found) == ["message", "history", "streamOptions"]
    assert type(found["streamOptions"]) is dict

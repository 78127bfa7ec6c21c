"""Declared inputs under requests at random: never an error of ours, never unlike their schema."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from streamstack.errors import RunError
from streamstack.language.values import to_json
from streamstack.runtime.inputs import Checker, Inputs, JsonText, compile_inputs
from tests.requests_at_random import ODD, anything, declaration, fitting_object, object_schema, spoilt

NAMES = ("a", "b", "c", "d")


def endpoint(seed: int) -> tuple[Random, Checker]:
    """Return the checker of inputs at random, with what goes on picking."""
    pick = Random(seed)  # noqa: S311
    inputs = tuple(declaration(pick, name) for name in NAMES[: pick.randint(1, 4)])
    return pick, compile_inputs(inputs)


def outcome(checker: Checker, method: str, texts: dict[str, list[Any]], body: Any) -> Inputs | None:
    """Return the inputs of a request, or None where it is refused with faults that are named."""
    layout = checker.layout(method)
    refusal = None
    try:
        found = layout.check(lambda _: lambda name: texts.get(name, ()), body)
    except RunError as error:
        refusal = error
    if refusal is None:
        to_json(found)
        return found
    assert refusal.code == "invalid-input", refusal.message
    assert all(each["message"] for each in refusal.details)
    assert to_json(refusal.details) != b"[]"
    return None


@pytest.mark.parametrize("block", range(10))
def test_schema_says_the_same(block: int) -> None:
    """What a JSON Schema of the declaration takes is taken, and what it refuses is refused."""
    taken = refused = 0
    for seed in range(block * 100, block * 100 + 100):
        pick, checker = endpoint(seed)
        said = object_schema(checker.inputs)
        validator = Draft202012Validator(said, format_checker=FormatChecker(["date", "uuid"]))
        for _ in range(4):
            body = fitting_object(pick, checker.inputs, pick.choice([0.0, 0.1]))
            data = json.dumps(body)
            if "9" * 20 in data or "0" * 400 in data:
                continue  # numbers that no float can hold are not JSON to us
            found = outcome(checker, "POST", {}, JsonText(data.encode()))
            valid = validator.is_valid(json.loads(data))
            assert (found is not None) is valid, (said, data)
            taken += valid
            refused += not valid
            # Free values of calls are those of JSON too.
            if found is not None and "." not in data:
                assert checker.check(json.loads(data)).keys() == found.keys()
    assert taken > 50
    assert refused > 50


@pytest.mark.parametrize("block", range(10))
def test_no_body_is_an_error_of_ours(block: int) -> None:
    """Two hundred bodies a block, many of them spoilt, are taken or refused, never more than that."""
    taken = 0
    for seed in range(block * 50, block * 50 + 50):
        pick, checker = endpoint(seed)
        for _ in range(4):
            document = fitting_object(pick, checker.inputs) if pick.random() < 0.8 else anything(pick)
            data = spoilt(pick, document)
            taken += outcome(checker, "POST", {}, JsonText(data)) is not None
    assert taken > 10


@pytest.mark.parametrize("block", range(5))
def test_no_text_is_an_error_of_ours(block: int) -> None:
    """Two hundred queries and forms a block are taken or refused, never more than that."""
    for seed in range(block * 50, block * 50 + 50):
        pick, checker = endpoint(seed)
        for _ in range(2):
            fitted = fitting_object(pick, checker.inputs)
            sent: dict[str, list[Any]] = {}
            for name, value in fitted.items():
                values = value if isinstance(value, list) and pick.random() < 0.7 else [value]
                sent[name] = [
                    pick.choice(ODD) if pick.random() < 0.2 else each if isinstance(each, str) else json.dumps(each)
                    for each in values
                ]
            outcome(checker, "GET", sent, None)
            outcome(checker, "POST", {}, sent)

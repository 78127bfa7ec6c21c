"""Declarations, values and requests at random, the same ones for the same seed."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

from streamstack.errors import Mark
from streamstack.language.definition import Input

MARK = Mark("generated.yaml", 1, 1)
WORDS = ("a", "b", "chunkSize", "items", "ü", "x y", "")
ODD = ("", " ", "5", "-1", "true", "null", "é😀", "\x00", "a" * 300, "2026-01-31", "[1]", '{"a":1}', "1e999")
LARGEST = 2**63 - 1


def declaration(pick: Random, name: str = "x", depth: int = 0) -> Input:
    """Return a declared input of any type that JSON can carry, nested at most three deep."""
    types = ["text", "integer", "decimal", "boolean", "date", "uuid", "enum", "json"]
    types += ["object", "list"] * (2 if depth < 3 else 0)
    declared = Input(
        name=name, type=pick.choice(types), mark=MARK, required=pick.random() < 0.3, nullable=pick.random() < 0.2
    )
    low = pick.choice([None, 0, 1, 2])
    high = pick.choice([None, 2, 5])
    match declared.type:
        case "text":
            pattern = pick.choice([None, None, "^[a-z]+$", "5", "^(a|b)*$"])
            return replace(declared, min_length=low, max_length=high, pattern=pattern)
        case "integer" | "decimal":
            return replace(declared, minimum=low, maximum=pick.choice([None, 5, 1000]))
        case "enum":
            return replace(declared, values=("a", "5", 5, 1.5, True)[: pick.randint(1, 5)])
        case "object" if pick.random() < 0.8:
            names = pick.sample(WORDS[:-1], pick.randint(0, 4))
            return replace(declared, properties=tuple(declaration(pick, name, depth + 1) for name in names))
        case "list":
            items = declaration(pick, "items", depth + 1) if pick.random() < 0.8 else None
            return replace(declared, min_items=low, max_items=high, items=items)
    return declared


def schema(declared: Input) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that says the same as a declaration."""
    found = _schema(declared)
    if declared.nullable and "type" in found:
        found["type"] = [found["type"], "null"]
    if declared.nullable and "enum" in found:
        found["enum"] = [*found["enum"], None]
    return found


def _schema(declared: Input) -> dict[str, Any]:
    def given(**keys: Any) -> dict[str, Any]:
        return {name: value for name, value in keys.items() if value is not None}

    match declared.type:
        case "text":
            return {"type": "string"} | given(
                minLength=declared.min_length,
                maxLength=declared.max_length,
                pattern=declared.pattern and declared.pattern.replace("$", r"\Z"),
            )
        case "integer":
            low = -LARGEST - 1 if declared.minimum is None else declared.minimum
            high = LARGEST if declared.maximum is None else declared.maximum
            return {"type": "integer", "minimum": low, "maximum": high}
        case "decimal":
            return {"type": "number"} | given(minimum=declared.minimum, maximum=declared.maximum)
        case "boolean":
            return {"type": "boolean"}
        case "date" | "uuid":
            return {"type": "string", "format": declared.type}
        case "enum":
            return {"enum": list(declared.values)}
        case "object":
            return {"type": "object"} | ({} if declared.properties is None else object_schema(declared.properties))
        case "list":
            return {"type": "array"} | given(
                minItems=declared.min_items,
                maxItems=declared.max_items,
                items=None if declared.items is None else schema(declared.items),
            )
    return {}


def object_schema(properties: tuple[Input, ...]) -> dict[str, Any]:
    """Return the JSON Schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": {each.name: schema(each) for each in properties},
        "required": [each.name for each in properties if each.required],
        "additionalProperties": False,
    }


def anything(pick: Random, depth: int = 0) -> Any:
    """Return any JSON value."""
    kinds = ["null", "bool", "int", "float", "text"] + ["list", "object"] * (depth < 3)
    match pick.choice(kinds):
        case "null":
            return None
        case "bool":
            return pick.random() < 0.5
        case "int":
            return pick.choice([0, 1, 5, -1, 1000, 2**63 - 1, 2**63, -(2**63), 10**25, 10**500])
        case "float":
            return pick.choice([0.5, 1.0, 5.0, -0.0, 1.5, 1e15, 1e19, 1e300, 0.1, 5e-324])
        case "text":
            return pick.choice(ODD)
        case "list":
            return [anything(pick, depth + 1) for _ in range(pick.randint(0, 4))]
    return {pick.choice(WORDS): anything(pick, depth + 1) for _ in range(pick.randint(0, 3))}


def fitting(pick: Random, declared: Input, slips: float = 0.1) -> Any:
    """Return a value that fits a declaration, but for some slips."""
    if pick.random() < slips:
        return anything(pick)
    if declared.nullable and pick.random() < 0.2:
        return None
    match declared.type:
        case "text":
            return "".join(pick.choices("ab5", k=pick.randint(0, 6)))
        case "integer":
            return pick.choice([0, 1, 2, 5, 5.0, 999])
        case "decimal":
            return pick.choice([0, 1, 2.5, 5, 999.999])
        case "boolean":
            return pick.random() < 0.5
        case "date":
            return pick.choice(["2026-01-31", "2024-02-29", "2023-02-29"])
        case "uuid":
            return "0b8e5d1c-3f6a-4c57-9d0e-2f4b8a6c1e9" + pick.choice("0af")
        case "enum":
            return pick.choice([*declared.values, "b"])
        case "object" if declared.properties is not None:
            return fitting_object(pick, declared.properties, slips)
        case "list":
            count = pick.randint(0, 4)
            if declared.items is None:
                return [anything(pick, 2) for _ in range(count)]
            return [fitting(pick, declared.items, slips) for _ in range(count)]
        case "object":
            return {"a": anything(pick, 2)}
    return anything(pick, 2)


def fitting_object(pick: Random, properties: tuple[Input, ...], slips: float = 0.1) -> dict[str, Any]:
    """Return an object that fits declared properties, but for some slips."""
    found = {
        each.name: fitting(pick, each, slips) for each in properties if pick.random() < (0.95 if each.required else 0.7)
    }
    if pick.random() < slips:
        found[pick.choice(WORDS)] = anything(pick)
    return found


def spoilt(pick: Random, document: Any) -> bytes:
    """Return a document as JSON, in which some bytes may be other ones."""
    data = bytearray(json.dumps(document, ensure_ascii=pick.random() < 0.5).encode())
    for _ in range(pick.choice([0, 0, 1, 3])):
        at = pick.randrange(len(data) + 1)
        data[at : at + pick.randint(0, 2)] = pick.choice(
            [b"", b"{", b"[" * 400, b'"', b"\\ud800", b"\xff", b"NaN", b"1e400", b"9" * 400, b"\x00", b","]
        )
    return bytes(data)

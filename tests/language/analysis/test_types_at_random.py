"""Definitions written at random: those without findings run, whatever valid inputs they get.

`make fuzz` writes other definitions each time, and more of them. To write 20,000 from seed 7, and print how many runs
failed and of what: `python -m tests.language.analysis.test_types_at_random 20000 7`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.definition import Endpoint, Project
from streamstack.language.project import validate
from streamstack.language.settings import Streaming
from streamstack.runtime.inputs import compile_inputs
from streamstack.runtime.plan import compile_project
from streamstack.runtime.run import Context, Run
from tests.collector import Collector

Kind = str
KINDS = ("integer", "decimal", "text", "boolean", "list", "object", "date")
#: Runs of one definition, each with other inputs.
RUNS = 6
_ALLOW = ["unused-variable", "unreachable", "buffers-stream", "unread-stream", "no-chunks"]
_CALLED = """
---
kind: function
name: twice
inputParameters:
  n: {type: integer, required: true}
  more: text
functionStack:
  - return: << input.n * 2 >>
    when: << input.n > 0 >>
---
kind: function
name: words
inputParameters: {said: {type: text, required: true}}
functionStack:
  - set: {words: << input.said | split >>}
  - return: {words: << words >>, first: << words | first >>, size: << input.said | length >>}
"""


class Writer:
    """Writes one definition; ``names`` are the paths in scope, by the kind they probably have."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  (no secret)
        self.names: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
        self.inputs: dict[str, dict[str, Any]] = {}
        self._serial = 0

    def definition(self) -> str:
        """Return a definition as YAML."""
        for _ in range(self.chance.randint(2, 5)):
            self.input()
        steps = [*self.steps(0, self.chance.randint(2, 5)), {"stream": self.value("text")}]
        head = f"method: POST\npath: /t\nallow: {json.dumps(_ALLOW)}\ninputParameters: {json.dumps(self.inputs)}\n"
        return f"{head}functionStack:\n" + "".join(f"  - {json.dumps(step)}\n" for step in steps) + _CALLED

    def maybe(self, share: float) -> bool:
        return self.chance.random() < share

    def fresh(self, stem: str) -> str:
        self._serial += 1
        return f"{stem}{self._serial}"

    # -- inputs

    def input(self) -> None:
        name = self.fresh("i")
        kind, declared = self.declaration(2)
        choice = self.chance.random()
        if choice < 0.5:
            declared["required"] = True
        elif choice < 0.75 and kind != "object":
            declared["default"] = self.given(declared)
        if self.maybe(0.15):
            declared["nullable"] = True
        self.inputs[name] = declared
        self.know(f"input.{name}", kind, declared)

    def know(self, path: str, kind: Kind, declared: dict[str, Any]) -> None:
        self.names[kind].append(path)
        for name, inner in declared.get("properties", {}).items():
            self.know(f"{path}.{name}", _KIND_OF[inner["type"]], inner)

    def declaration(self, depth: int) -> tuple[Kind, dict[str, Any]]:
        types = ["integer", "integer", "decimal", "text", "text", "boolean", "date", "enum"]
        type_ = self.chance.choice([*types, "list", "list", "object"] if depth else types)
        declared: dict[str, Any] = {"type": type_}
        if type_ in ("integer", "decimal") and self.maybe(0.5):
            declared |= {"minimum": self.chance.choice([0, 1]), "maximum": 9}
        if type_ == "enum":
            declared["values"] = ["red", "green", "blue"]
        if type_ == "list":
            declared["items"] = self.declaration(depth - 1)[1]
            if self.maybe(0.3):
                declared["minItems"] = 1
        if type_ == "object":
            declared["properties"] = {}
            for name in ("a", "b"):
                inner = self.declaration(depth - 1)[1]
                if self.maybe(0.5):
                    inner["required"] = True
                declared["properties"][name] = inner
        return _KIND_OF[type_], declared

    def given(self, declared: dict[str, Any]) -> Any:
        """Return a valid value of an input."""
        pick = self.chance
        match declared["type"]:
            case "integer":
                return pick.randint(declared.get("minimum", -3), declared.get("maximum", 9))
            case "decimal":
                return pick.choice([1.5, declared.get("minimum", -0.5), 2])
            case "text":
                return pick.choice(["", "Ada", "a,b c", "7", "Zoë\n!"])
            case "boolean":
                return self.maybe(0.5)
            case "date":
                return "2026-11-30"
            case "enum":
                return pick.choice(declared["values"])
            case "list":
                return [self.given(declared["items"]) for _ in range(pick.randint(declared.get("minItems", 0), 3))]
            case _:
                return self.given_properties(declared["properties"])

    def given_properties(self, properties: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, inner in properties.items():
            if inner.get("required") or self.maybe(0.5):
                found[name] = None if inner.get("nullable") and self.maybe(0.5) else self.given(inner)
        return found

    # -- expressions

    def value(self, kind: Kind, depth: int = 2) -> Any:
        """Return a value for a parameter: a binding, a text with bindings, seldom a constant."""
        if kind == "text" and self.maybe(0.3):
            return f"said << {self.expression(self.chance.choice(KINDS), depth)} >>."
        return f"<< {self.expression(kind, depth)} >>"

    def name(self, kind: Kind) -> str:
        known = self.names[kind]
        return self.chance.choice(known) if known else self.literal(kind)

    def literal(self, kind: Kind) -> str:
        return self.chance.choice(_LITERALS[kind])

    def expression(self, kind: Kind, depth: int) -> str:
        if self.maybe(0.04):
            kind = self.chance.choice(KINDS)
        if depth <= 0 or self.maybe(0.55):
            found = self.name(kind) if self.maybe(0.75) else self.literal(kind)
            return f"({found} | default({self.literal(kind)}))" if self.maybe(0.25) else found
        made = self.chance.choice(_GRAMMAR[kind])
        while "{" in made:
            before, _, rest = made.partition("{")
            hole, _, after = rest.partition("}")
            inner = self.expression(hole, depth - 1) if hole in KINDS else self.name(hole.removesuffix("!"))
            made = before.replace("{", "\0") + inner.replace("{", "\0").replace("}", "\1") + after
        made = made.replace("\0", "{").replace("\1", "}").replace("\2", "{").replace("\3", "}")
        return f"({made})"

    def condition(self) -> str:
        if self.maybe(0.35):
            path = self.name(self.chance.choice(KINDS))
            return self.chance.choice([f"<< {path} is not none >>", f"<< {path} is none >>", f"<< {path} >>"])
        return f"<< {self.expression('boolean', 2)} >>"

    # -- steps

    def steps(self, depth: int, count: int) -> list[dict[str, Any]]:
        return [self.step(depth) for _ in range(count)]

    def body(self, depth: int, extra: tuple[Kind, str] | None = None) -> list[dict[str, Any]]:
        """Write a nested stack; what it binds is known in it alone."""
        before = {kind: list(names) for kind, names in self.names.items()}
        if extra is not None:
            self.names[extra[0]] += [extra[1]] * 3
        found = self.steps(depth + 1, self.chance.randint(1, 3))
        self.names = before
        return found

    def bind(self, kind: Kind) -> str:
        name = self.fresh("v")
        self.names[kind].append(name)
        return name

    def step(self, depth: int) -> dict[str, Any]:
        kind = self.chance.choice(KINDS)
        pick = self.chance.random()
        if pick < 0.3 or depth > 2:
            return self.leaf(kind)
        if pick < 0.45:
            step: dict[str, Any] = {"if": {"condition": self.condition(), "then": self.body(depth)}}
            if self.maybe(0.5):
                step["if"]["else"] = self.body(depth)
            return step
        if pick < 0.62:
            item = self.fresh("e")
            of = self.chance.choice(KINDS)
            loop = {"in": self.value("list"), "as": item, "do": self.body(depth, (of, item))}
            return {"forEach": loop}
        if pick < 0.68:
            return {"repeat": {"times": self.value("integer", 1), "do": self.body(depth, ("integer", "loop.index"))}}
        if pick < 0.74:
            return {"try": {"do": self.body(depth), "catch": {"do": self.body(depth, ("text", "error.message"))}}}
        if pick < 0.8:
            cases = {word: self.body(depth) for word in ("red", "7", "true")}
            return {"switch": {"value": self.value(kind), "cases": cases, "default": self.body(depth)}}
        if pick < 0.86:
            name, of = self.fresh("v"), self.chance.choice(KINDS)
            branches = {name: [*self.body(depth), {"return": self.value(of)}], self.fresh("w"): self.body(depth)}
            self.names[of].append(name)
            return {"parallel": {"branches": branches}}
        return self.leaf(kind)

    def leaf(self, kind: Kind) -> dict[str, Any]:
        match self.chance.randint(0, 12):
            case 0 | 1 | 2 | 3:
                value = self.value(kind)
                if self.maybe(0.1):
                    value = None
                return {"set": {self.bind(kind): value}}
            case 4 | 5:
                return {"stream": self.value(kind)}
            case 6:
                twice: dict[str, Any] = {"function": "twice", "with": {"n": self.value("integer")}}
                return {"call": twice, "as": self.bind("integer")}
            case 7:
                words: dict[str, Any] = {"function": "words", "with": {"said": self.value("text")}}
                name = self.bind("object")
                self.names["list"].append(f"{name}.words")
                self.names["text"].append(f"{name}.first")
                self.names["integer"].append(f"{name}.size")
                return {"call": words, "as": name}
            case 8:
                return {"precondition": {"that": self.condition()}}
            case 9:
                value, condition = self.value("list"), self.condition()
                return {"collect": value, "when": condition, "as": self.bind("list")}
            case 10:
                return {"throw": {"code": "no", "message": self.value("text", 1)}, "when": self.condition()}
            case 11:
                item = self.fresh("e")
                name = self.fresh("s")
                of = self.chance.choice(KINDS)
                before = {kind: list(names) for kind, names in self.names.items()}
                self.names[of] += [item] * 3
                mapped = {"streams.map": {"in": self.value("list"), "as": item, "value": self.value(of)}, "as": name}
                self.names = before
                read = {"collect": f"<< {name} >>", "as": self.bind("list")}
                return {"if": {"condition": True, "then": [mapped, read]}}
            case _:
                return {"stream": {"content": self.value(kind), "metadata": {"n": self.value("integer")}}}


_KIND_OF = {
    "integer": "integer",
    "decimal": "decimal",
    "text": "text",
    "enum": "text",
    "boolean": "boolean",
    "date": "date",
    "list": "list",
    "object": "object",
}
_LITERALS: dict[Kind, tuple[str, ...]] = {
    "integer": ("0", "1", "2", "7"),
    "decimal": ("1.5", "0.25"),
    "text": ('"x"', '"a,b"', '""'),
    "boolean": ("true", "false"),
    "list": ("[]", "[1, 2]", '["a", "b"]', "[null, 3]"),
    "object": ('{"a": 1}', '{"a": null, "b": "x"}'),
    "date": ("today()",),
}
#: How each kind is made of others; `{list}` is an expression, `\2` and `\3` are braces.
_GRAMMAR: dict[Kind, tuple[str, ...]] = {
    "integer": (
        "{integer} + {integer}", "{integer} - {integer}", "{integer} * {integer}", "{integer} // {integer}",
        "{integer} % {integer}", "-{integer}", "{list} | length", "{text} | length", "{list} | sum", "{list} | first",
        "{list} | max", "{list}[0]", "{object}.a", "{integer} if {boolean} else {integer}", "{integer} | abs",
        "{decimal} | round", "{integer} or {integer}", "{integer} if {boolean}", "{text} | wordCount",
        '{text} | indexOf("a")', "stream.count", "{text} | toInteger(0)", "[{integer}, {integer}] | min",
    ),
    "decimal": (
        "{decimal} + {integer}", "{integer} / {integer}", "{decimal} * {decimal}", "{list} | mean",
        "{decimal} | round(1)",
        "{integer} | toDecimal", "{decimal} if {boolean} else {decimal}", "{list} | percentile(50)",
    ),
    "text": (
        "{text} + {text}", "{text} ~ {integer}", "{text} | upper", "{text} | trim", '{list} | join(",")',
        "{text}[:2]",
        "{integer} | toText", '{text} | replace("a", "b")', "{list} | first", "{object}.b", '{object}["a"]',
        "{text} if {boolean} else {text}", "{text} | truncate(5)", "{object} | toJson", '{date} | date("%d.%m.%Y")',
        '{text} | regexFind("[a-z]+")', "{text} * {integer}", "{text} | first", "{text} or {text}",
        "{text} | padStart(5)",
    ),
    "boolean": (
        "{integer} > {integer}", "{integer} == {integer}", "{text} == {text}", "{text} < {text}", "not {boolean}",
        "{boolean} and {boolean}", "{boolean} or {boolean}", "{text} is none", "{integer} is not none",
        "{integer} in {list}",
        '"a" in {text}', "{list} | length > 0", "{list} is empty", "{date} > {date}", '{text} | regexMatch("^a")',
        "{integer} is even", "{object} is mapping", "{integer} is number", "{decimal} <= {decimal}",
        "{list} is not empty",
    ),
    "list": (
        "[{integer}, {integer}]", "{list} + {list}", "{list} | sort", '{text} | split(",")', "range({integer})",
        "{list} | unique", "{list} | reverse", '{list} | map("toText")', "{list} if {boolean} else {list}",
        "{object} | keys",
        '{list} | map(attribute="a")', "{list} | select", '{list} | reject("none")', "{list}[1:]",
        "{list} or []", "{text} | chars",
        '{list} | sortBy("a")', "{list} | first(2)", "{object} | values", "{list} | batch(2)", "{object} | entries",
    ),
    "object": (
        '\2"a": {integer}, "b": {text}\3', "{object} if {boolean} else {object}", "[{object}, {object}] | merge",
        "{list} | first", '{list} | groupBy("a")', '{object} | pick("a")', '\2"a": {list}\3',
    ),
    "date": ('{date} | addTime("1 day")', "{date} | toDate", "{date} if {boolean} else {date}"),
}  # fmt: skip


async def run_once(plan: Any, endpoint: Endpoint, given: dict[str, Any]) -> RunError | None:
    """Run a definition with inputs; return the error that it ended in."""
    nulls = {name: None for name, value in given.items() if value is None}
    declared = tuple(each for each in endpoint.inputs if each.name not in nulls)
    sent = {name: value for name, value in given.items() if value is not None}
    values = {**compile_inputs(declared).check(sent), **nulls}  # null is a value only where a client sends it
    run, error = Run(Collector(), Context()), None
    try:
        await asyncio.wait_for(plan.start(run, values), 10)
    except RunError as raised:
        error = raised
    await run.finish("completed")
    return error


class Figures:
    """What became of definitions written from some seeds on."""

    def __init__(self) -> None:
        self.written = self.clean = self.runs = 0
        self.failed: list[tuple[int, str]] = []
        self.found: Counter[str] = Counter()

    async def add(self, seed: int) -> None:
        """Write, check and run one definition."""
        writer = Writer(seed)
        text = writer.definition()
        project, findings = validate({"t.yaml": text}, REGISTRY, Streaming())
        self.written += 1
        if findings:
            self.found.update({each.code for each in findings})
            return
        self.clean += 1
        plans = compile_project(Project(project.endpoints, project.functions))
        for _ in range(RUNS):
            given = writer.given_properties(writer.inputs)
            error = await run_once(plans[0], project.endpoints[0], given)
            self.runs += 1
            if error is not None and error.code in ("template", "internal"):
                self.failed.append((seed, f"{error.message} [{error.place}]"))

    @property
    def share(self) -> float:
        """The share of runs that failed."""
        return len(self.failed) / max(1, self.runs)


async def test_definitions_without_findings_run() -> None:
    """Of definitions without findings, fewer than 1 % of the runs with valid inputs fail for null or a wrong kind."""
    fuzzing = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
    first, count = (time.time_ns() % 10**9, 20_000) if fuzzing else (0, 400)
    figures = Figures()
    for seed in range(first, first + count):
        await figures.add(seed)
    assert figures.clean > count / 50, figures.clean
    assert figures.share < 0.01, (figures.share, figures.failed[:5])


async def main(count: int, first: int) -> None:
    """Print the figures of some definitions."""
    figures = Figures()
    for seed in range(first, first + count):
        await figures.add(seed)
    messages = Counter(message.partition(" [")[0] for _, message in figures.failed)
    seeds = {message.partition(" [")[0]: seed for seed, message in figures.failed}
    lines = [
        f"{figures.written} written, {figures.clean} clean, {figures.runs} runs, {len(figures.failed)} failed",
        str(dict(figures.found.most_common())),
        *(f"{number:6} {each} (seed {seeds[each]})" for each, number in messages.most_common(40)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

"""No text of a definition becomes Python: names are checked where they are read, all else is quoted."""

from __future__ import annotations

import ast
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamstack.functions import REGISTRY
from streamstack.language.definition import Endpoint, Entries, Function, FunctionDefinition, Project
from streamstack.language.expressions.compile import UnsafeSource, compile_source, literal
from streamstack.language.keys import MODIFIERS
from streamstack.language.kinds import Kind
from streamstack.language.loading.documents import load
from streamstack.language.names import check_variable, identifier
from streamstack.language.nodes import plain
from streamstack.language.settings import Streaming
from streamstack.language.source import read
from streamstack.runtime.compiler import Code
from streamstack.runtime.plan import compile_project
from streamstack.spec import (
    Bound,
    Condition,
    Constant,
    Custom,
    Group,
    ListOf,
    Named,
    OneOf,
    SchemaOf,
    StackOf,
    Tagged,
    Type,
    Variable,
)

ENGINE = Path(__file__).parents[2] / "engine" / "streamstack"

#: In every hostile text; it may stand in string constants, and nowhere else.
MARK = "zqx"
#: What a text sets that is run.
TRAP = "STREAMSTACK_TEST_TRAP"
_RUN = f"__import__('os').environ.__setitem__('{TRAP}', '{MARK}')"
HOSTILE = (
    f"{MARK}[{_RUN}]",
    f"{MARK}', {_RUN}, '",
    f'{MARK}"}}: {_RUN}, "',
    f"{MARK} = 0\n{_RUN}\n",
    f"{MARK}; import os; os._exit(3)  #",
    f"{MARK}-list",
    f"{MARK}.__class__.__mro__",
    f"{MARK}=lambda: {_RUN}",
    f"{{{MARK}}}\\",
    f"\u2028{MARK}\r\x85{_RUN}",
    f"<< {MARK}.__class__ | default('{_RUN}') >>",
    f"<< '{MARK}'.__class__ >>",
    f"<< {{'{MARK}': \"'+{_RUN}+'\"}} >>",
    f"<% set ａ = '{MARK}' %><< ａ >>",
    f"<< {MARK}ｘ | default({MARK}ª) >>",
)
#: Names that an author may choose, and that must not be what they are in Python.
SHADOWS = ("exec", "__import__", "emit", "class", "None", "run", "v_x", "ｅmit")

ATTRIBUTES = frozenset(
    {"emit", "drain", "done", "respond", "count", "bytes", "sent_at", "request", "auth", "context"}
    | {"env", "settings", "id", "elapsed_ms", "started", "outcome", "after", "yield_to_loop", "slice_ends"}
    | {"monotonic", "perf_counter"}
    | {"batch", "close", "length", "schedule", "value", "sink", "join"}
)
_OWN = re.compile(r"v_(\d+_)?[A-Za-z_][A-Za-z0-9_]*|[A-Za-z_]+_\d+|_b|run|sink|emit|drain|index")
_FIXED = frozenset(
    {"stack", "headers", "functions", "clock", "MISSING", "BREAK", "CONTINUE", "Signal"}
    | {"limited", "retried", "guarded", "stream_object", "run_object", "loop_object"}
    | {"Exception", "NameError", "isinstance", "range"}
)

HEAD: dict[str, Any] = {
    "method": "GET",
    "path": "/test",
    "unknownInputs": "ignore",
    "headers": {"X-One": "two", "X-Two": "<< input.a >>"},
    "inputParameters": {"a": {"type": "text", "default": "b", "description": "c"}},
    "rateLimit": {"limit": "5/s", "by": "<< request.ip >>"},
}
FUNCTION: dict[str, Any] = {
    "kind": "function",
    "name": "other",
    "inputParameters": {"a": {"type": "text", "default": "b"}},
    "functionStack": [{"return": "<< input.a >>"}],
}
#: What no example of a function shows.
MORE: list[list[dict[str, Any]]] = [
    [{"call": {"function": "other", "with": {"a": "b"}}, "as": "c"}],
    [{"call": {"function": "<< input.a >>", "oneOf": ["other"], "with": "<< {'a': 1} >>"}}],
    [
        {
            "stream": {"content": "a", "event": "e", "id": "<< 1 >>i", "metadata": {"k": "<< 1 >>"}},
            "name": "n",
            "description": "d",
            "when": "<< 1 == 1 >>",
            "timeout": "5s",
            "retry": {"times": 2, "on": ["timeout"]},
            "allow": ["no-chunks"],
        }
    ],
    [{"stream": {"content": "abc", "split": {"by": "words", "size": 2}, "pace": {"interval": "1ms"}}}],
    [{"forEach": {"in": [1], "as": "x", "concurrency": 2, "do": [{"set": {"y": "<< x >>"}}]}}],
    [{"try": {"do": [{"throw": "x"}], "catch": {"as": "e", "on": ["x"], "do": [{"log": "<< e >>"}]}}}],
    [{"set": {"a": "<% for i in [1] %><< i ~ 'x' >><% endfor %>"}}],
    [{"set": {"a": "<% macro m(p) %><< p >><% endmacro %><< m(p='y') >>"}}],
]


def checked(source: str) -> None:
    """Check that generated source holds nothing but what the compiler writes."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        match node:
            case ast.Attribute():
                assert node.attr in ATTRIBUTES, node.attr
                continue
            case ast.Name():
                names = [node.id]
            case ast.arg():
                names = [node.arg]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                assert not node.decorator_list
                names = [node.name]
            case ast.Nonlocal():
                names = node.names
            case ast.ExceptHandler():
                names = [node.name] if node.name else []
            case ast.keyword():
                assert node.arg is not None
                assert MARK not in node.arg
            case ast.Import() | ast.ImportFrom() | ast.Global() | ast.ClassDef() | ast.Delete():
                pytest.fail(f"the source holds {ast.dump(node)[:200]}")
        for name in names:
            assert name in _FIXED or _OWN.fullmatch(name), name
            assert MARK not in name or _OWN.fullmatch(name), name


def judge(documents: list[dict[str, Any]]) -> str:
    """Load and compile what may be hostile; return "refused" or "compiled" when it is harmless."""
    os.environ.pop(TRAP, None)
    text = "\n---\n".join(json.dumps(document) for document in documents)
    parsed, findings = read(text, "test.yaml")
    if findings:
        return "refused"
    endpoints, functions = [], {}
    for document in parsed:
        definition, found = load(document, REGISTRY, Streaming())
        if definition is None or any(each.severity == "error" for each in found):
            return "refused"
        if isinstance(definition, Endpoint):
            endpoints.append(definition)
        elif isinstance(definition, FunctionDefinition):
            functions[definition.name] = definition
    for plan in compile_project(Project(tuple(endpoints), functions)):
        checked(plan.source)
    assert TRAP not in os.environ
    return "compiled"


def places(node: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each scalar and, with True at its end, of each key."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (key, True)
            yield from ((key, *rest) for rest in places(value))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from ((index, *rest) for rest in places(value))
    else:
        yield (False,)


def planted(node: Any, path: tuple[Any, ...], text: str) -> Any:
    """Return a copy with a text at a place."""
    head, rest = path[0], path[1:]
    if not rest:
        return text
    if isinstance(node, list):
        return [planted(v, rest, text) if i == head else v for i, v in enumerate(node)]
    if rest == (True,):
        return {(text if key == head else key): value for key, value in node.items()}
    return {k: planted(v, rest, text) if k == head else v for k, v in node.items()}


def stacks_of(function: Function) -> Iterator[Any]:
    """Yield the stacks that a function's examples show."""
    for example in function.examples:
        (document,), _ = read(f"stack:\n{indent(example.stack, '  ')}\n", "example.yaml")
        yield plain(document.root)["stack"]


@pytest.mark.parametrize("name", REGISTRY)
def test_a_hostile_text_at_each_place_of_each_function(name: str) -> None:
    """Every key and every value of its examples, one after the other; a text is refused or quoted.

    Each place meets some of the texts, and each text some place of each kind.
    """
    texts = (*HOSTILE, *SHADOWS)
    every = ((stack, path) for stack in stacks_of(REGISTRY[name]) for path in places(stack))
    for number, (stack, path) in enumerate(every):
        for offset in range(0, len(texts), 4):
            text = texts[(number + offset) % len(texts)]
            judge([{**HEAD, "functionStack": planted(stack, path, text)}, FUNCTION])


@pytest.mark.parametrize("text", [*HOSTILE, *SHADOWS])
def test_a_hostile_text_at_each_place_of_documents(text: str) -> None:
    """What stands around the steps, modifiers, and what no example shows."""
    outcomes = set()
    for stack in MORE:
        documents = [{**HEAD, "functionStack": stack}, FUNCTION]
        assert judge(documents) == "compiled", stack
        for path in places(documents):
            outcomes.add(judge(planted(documents, path, text)))
    assert "compiled" in outcomes


SOUND_NAMES = ("a", "b", "item", "my_list", "class", "exec", "emit", "v_x")
TEXTS = st.sampled_from(HOSTILE[:10]) | st.text(max_size=8).map(lambda text: MARK + text)
_SOUND: dict[Kind, list[Any]] = {
    Kind.DURATION: ["5s"], Kind.SIZE: ["1KB"], Kind.EVERY: [2], Kind.RATE: ["3/min"],
    Kind.INTEGER: [1, 2], Kind.NUMBER: [1, 0.5], Kind.BOOLEAN: [True, False],
    Kind.LIST: [["a"]], Kind.OBJECT: [{"k": "v"}], Kind.HEADERS: [{"k": "v"}], Kind.STREAM: ["<< input.a >>"],
    Kind.ITEMS: [[1]], Kind.SQL: ["SELECT << input.a >>", f"SELECT '{MARK}' || << input.a >>"],
}  # fmt: skip


def mostly(sound: list[Any], hostile: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw what is right seven times of eight, so that a definition with many places may be compiled."""
    return st.integers(0, 7).flatmap(lambda dice: st.sampled_from(sound) if dice else hostile)


def arguments(wanted: Type, depth: int) -> st.SearchStrategy[Any]:
    """Draw what may stand for a parameter: what is right, and hostile texts in the place of it or inside it."""
    match wanted:
        case Bound():
            inside = st.dictionaries(TEXTS, TEXTS, max_size=2) | st.lists(TEXTS, max_size=2)
            bound = TEXTS.map(lambda text: f"<< {json.dumps(text, ensure_ascii=False)} >>")
            hostile = TEXTS | inside | bound | bound.map(lambda text: f"{MARK}'{text}")
            if wanted.choices or wanted.expression or wanted.code or wanted.kind in _SOUND:
                sound = [*wanted.choices] or _SOUND.get(wanted.kind, ["<< 1 + 1 >>"])
                return mostly(["x"] if wanted.code else sound, hostile)
            return hostile
        case Condition():
            return mostly([True, f"<< '{MARK}]' == 1 >>"], TEXTS)
        case Constant():
            if wanted.choices or wanted.kind in _SOUND:
                return mostly([*wanted.choices] or _SOUND[wanted.kind], TEXTS)
            return TEXTS
        case Variable():
            return mostly([*SOUND_NAMES], TEXTS)
        case StackOf():
            return st.lists(steps(depth + 1), max_size=2)
        case Group():
            return mappings(wanted.parameters, depth)
        case ListOf():
            return st.lists(arguments(wanted.item, depth), min_size=1, max_size=2)
        case Named():
            keys = mostly([*SOUND_NAMES], TEXTS) if wanted.keys_are_variables else TEXTS
            return st.dictionaries(keys, arguments(wanted.item, depth), min_size=1, max_size=2)
        case OneOf():
            return st.one_of([arguments(form, depth) for form in wanted.forms])
        case SchemaOf():
            return mostly([True, {"type": "object"}], st.dictionaries(TEXTS, TEXTS, max_size=2) | TEXTS)
        case Tagged() | Custom():
            return TEXTS


@st.composite
def mappings(draw: Any, parameters: Any, depth: int) -> dict[str, Any]:
    """Draw a mapping of parameters: those required, some of the others."""
    return {
        parameter.name: draw(arguments(parameter.type, depth))
        for parameter in parameters
        if parameter.required or draw(st.integers(0, 3)) == 0
    }


@st.composite
def steps(draw: Any, depth: int = 0) -> dict[str, Any]:
    """Draw a step of any function, with modifiers; deep down only simple ones."""
    names = list(REGISTRY) if depth < 2 else ["stream", "set", "append", "return", "log"]
    function = REGISTRY[draw(st.sampled_from(names))]
    main = function.main
    if main is not None and isinstance(main.type, Named):
        step = {function.name: draw(arguments(main.type, depth))}
    else:
        step = {function.name: draw(mappings(function.parameters, depth))}
        for choice in function.choices:
            given = [name for name in choice.names if name in step[function.name]]
            for name in given[1:]:
                del step[function.name][name]
            if not given and choice.required:
                wanted = function.by_name[choice.names[0]].type
                step[function.name][choice.names[0]] = draw(arguments(wanted, depth))
    for modifier in MODIFIERS:
        if draw(st.integers(0, 7)) == 0 and (modifier.name != "as" or function.effects.gives != "nothing"):
            step[modifier.name] = draw(arguments(modifier.type, depth))
    return step


def test_generated_definitions() -> None:
    """All functions, all their parameters, all modifiers, texts and names of any kind."""
    outcomes: Counter[str] = Counter()

    @settings(max_examples=500, suppress_health_check=list(HealthCheck))
    @given(stack=st.lists(steps(), min_size=1, max_size=3))
    def run(stack: list[dict[str, Any]]) -> None:
        outcomes[judge([{**HEAD, "functionStack": stack}, FUNCTION])] += 1

    run()
    # A generator whose definitions were all refused would prove nothing.
    assert outcomes["compiled"] > outcomes.total() / 5


def test_each_example_is_compiled() -> None:
    """What the hostile texts are put into gets past the reader without them."""
    for name in REGISTRY:
        for stack in stacks_of(REGISTRY[name]):
            assert judge([{**HEAD, "functionStack": stack}, FUNCTION]) == "compiled", name


@given(text=st.text())
def test_a_name_is_a_variable_or_refused(text: str) -> None:
    """The check of the reader is never laxer than that of the compiler."""
    if check_variable(text)[0] == "":
        assert identifier(text, "v_") == f"v_{text}"
        ast.parse(f"v_{text} = 0")
    else:
        assert check_variable(text)[1]


@pytest.mark.parametrize("name", [*HOSTILE, "my-list", "", "1a", "a b", "größe"])
def test_the_compiler_refuses_a_name_that_was_not_checked(name: str) -> None:
    """Should a reader ever forget to check one, no source is made of it."""
    (document,), _ = read(json.dumps({**HEAD, "functionStack": [{"collect": [1], "as": "a"}, {"set": {"b": 1}}]}), "t")
    definition, _ = load(document, REGISTRY, Streaming())
    assert isinstance(definition, Endpoint)
    collect, set_ = definition.stack.steps
    variables = set_.arguments.by_name["variables"]
    assert isinstance(variables, Entries)
    entries = replace(variables, entries=(replace(variables.entries[0], key=name),))
    for step in (
        replace(collect, result=name),
        replace(set_, arguments=replace(set_.arguments, by_name={"variables": entries})),
    ):
        with pytest.raises(ValueError, match="not the name of a variable"):
            compile_project(Project((replace(definition, stack=replace(definition.stack, steps=(step,))),)))


@pytest.mark.parametrize("value", [object(), [], (), {}, SimpleNamespace(), b"x", 1j])
def test_only_plain_data_is_a_literal(value: object) -> None:
    """The `repr` of anything else could be any source."""
    with pytest.raises(TypeError):
        literal(value)


class Odd(str):
    """A text whose `repr` is not its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _RUN


def test_a_literal_is_what_it_says() -> None:
    """A text of a subclass is quoted like any other."""
    assert ast.literal_eval(literal(Odd("x"))) == "x"


@pytest.mark.parametrize(
    "text", [_RUN, "().__class__", "open('x')", "import os", "v_x.__class__", "run.__dict__", "1 +", "__builtins__"]
)
def test_source_with_other_names_never_runs(text: str) -> None:
    """The last wall: it is compiled, looked at, and refused before any of it runs."""
    os.environ.pop(TRAP, None)
    code = Code("GET /x")
    code.line(text)
    with pytest.raises(UnsafeSource, match="GET /x"):
        code.compile()
    with pytest.raises(UnsafeSource):
        compile_source(f"lambda: ({text})", "x", "eval", frozenset())
    assert TRAP not in os.environ


#: The modules that write generated code.
WRITERS = [
    *(ENGINE / "functions").glob("*.py"),
    *(ENGINE / "runtime" / f"{name}.py" for name in ("compiler", "plan")),
    *(ENGINE / "language" / "expressions" / f"{n}.py" for n in ("compile", "templates", "grammar")),
]


@pytest.mark.parametrize("path", WRITERS, ids=lambda path: path.stem)
def test_source_is_quoted_by_one_function(path: Path) -> None:
    """No module that writes code quotes by itself: `repr` and `!r` stand in `literal` and in messages only."""
    tree = ast.parse(path.read_text("utf-8"))
    allowed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Raise, ast.FunctionDef))
        and (isinstance(node, ast.Raise) or node.name in ("literal", "__repr__", "_described"))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        quotes = isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
        quotes |= isinstance(node, ast.Call) and ast.unparse(node.func).endswith("repr")
        assert not quotes or id(node) in allowed, f"{path.name}:{getattr(node, 'lineno', 0)}"

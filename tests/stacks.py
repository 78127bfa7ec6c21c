"""Run a function stack written in YAML, in this process, and look at what it emits and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.definition import Endpoint, Function, FunctionDefinition, Project, Registry
from streamstack.language.loading.documents import load
from streamstack.language.mail import EmailSettings
from streamstack.language.settings import EMBEDDED, Database, HttpSettings, StateSettings, Streaming
from streamstack.language.source import read
from streamstack.runtime.plan import Plan, compile_project
from streamstack.runtime.probes import Probes
from streamstack.runtime.run import Context, Run
from tests.collector import Collector

HEAD = "method: GET\npath: /test\nresponseType: streaming\nunknownInputs: ignore\nfunctionStack:\n"


@dataclass
class Outcome:
    """What a run came to."""

    result: Any
    error: RunError | None
    sink: Collector
    run: Run
    plan: Plan
    contents: list[Any] = field(default_factory=list)


def plan_of(stack: str, *, also: str = "", functions: Iterable[Function] = (), probes: Probes | None = None) -> Plan:
    """Compile a stack; ``also`` holds more documents (functions), ``functions`` declares more of the language."""
    text = HEAD + indent(dedent(stack).strip("\n") or "[]", "  ") + ("\n---\n" + dedent(also) if also else "")
    registry = Registry([*REGISTRY.values(), *functions])
    documents, findings = read(text, "test.yaml")
    assert findings == []
    endpoints, called = [], {}
    for document in documents:
        definition, findings = load(document, registry, Streaming())
        assert findings == []
        if isinstance(definition, Endpoint):
            endpoints.append(definition)
        if isinstance(definition, FunctionDefinition):
            called[definition.name] = definition
    (plan,) = compile_project(Project(tuple(endpoints), called), probes)
    return plan


async def run_stack(
    stack: str,
    inputs: Mapping[str, Any] | None = None,
    *,
    also: str = "",
    functions: Iterable[Function] = (),
    http: HttpSettings | None = None,
    databases: Mapping[str, Database] | None = None,
    state: StateSettings | None = None,
    email: EmailSettings | None = None,
    folder: Path | None = None,
    probes: Probes | None = None,
) -> Outcome:
    """Run a stack to its end, and what it registered with `after`; with a ``folder``, as `--dev` does."""
    plan = plan_of(stack, also=also, functions=functions, probes=probes)
    sink = Collector()
    context = Context(
        env={"HOME_TOWN": "Ghent"},
        settings={"unit": "kg"},
        http=http or HttpSettings(),
        databases=databases or EMBEDDED,
        state=state or StateSettings(),
        email=email or EmailSettings(),
        dev=folder is not None,
        folder=folder or Path(),
    )
    run = Run(sink, context)
    result, error = None, None
    try:
        result = await plan.start(run, dict(inputs or {}))
    except RunError as raised:
        error = raised
    await run.finish("failed" if error else "completed")
    await context.aclose()
    return Outcome(result, error, sink, run, plan, [chunk.content for chunk in sink.chunks])

"""What a definition says outside of its steps: `response` and `headers`."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.definition import Endpoint, Project
from streamstack.language.loading.documents import load
from streamstack.language.settings import Streaming
from streamstack.language.source import read
from streamstack.runtime.plan import Plan, compile_project
from streamstack.runtime.run import Context, Run
from tests.collector import Collector


def plan_of(text: str) -> Plan:
    """Compile one endpoint."""
    documents, found = read(dedent(text).lstrip("\n"), "test.yaml")
    assert found == []
    endpoint, found = load(documents[0], REGISTRY, Streaming())
    assert found == []
    assert isinstance(endpoint, Endpoint)
    (plan,) = compile_project(Project((endpoint,), {}))
    return plan


async def answer(text: str, inputs: dict[str, Any]) -> Any:
    """Run one endpoint; return its answer."""
    return await plan_of(text).start(Run(Collector(), Context()), inputs)


async def test_a_return_does_not_pass_by_the_response() -> None:
    """It ends the steps; what is answered is the `response`, with the variables as they are."""
    text = """
        method: GET
        path: /test
        responseType: json
        response: {steps: << steps >>}
        functionStack:
          - set: {steps: 1}
          - forEach: {in: [1], do: [{if: {condition: << item == 1 >>, then: [{return: early}]}}]}
          - set: {steps: 2}
        """
    assert await answer(text, {}) == {"steps": 1}


async def test_an_error_in_the_response_has_its_place() -> None:
    """Its author gets file, line, column and expression, as in a step."""
    text = """
        method: GET
        path: /test
        responseType: json
        response: {sum: << 1 + input.x >>}
        inputParameters: {x: json}
        functionStack: [{log: a}]
        """
    with pytest.raises(RunError) as raised:
        await answer(text, {"x": "a"})
    place = raised.value.place
    assert place is not None
    assert (place.path, place.mark.line, place.expression) == ("response", 4, "1 + input.x")


def test_headers_read_the_reserved_names() -> None:
    """Those of the stream and of the run too; an error in them has its place."""
    plan = plan_of(
        """
        method: GET
        path: /test
        responseType: streaming
        headers: {X-Count: << stream.count >>, X-Item: "<< input.few[0] >>"}
        inputParameters: {few: list}
        functionStack: [{stream: a}]
        """
    )
    run = Run(Collector(), Context())
    assert plan.headers(run, {"few": ["a"]}) == {"X-Count": 0, "X-Item": "a"}
    with pytest.raises(RunError) as raised:
        plan.headers(run, {"few": []})
    place = raised.value.place
    assert place is not None
    assert (place.path, place.mark.line, place.expression) == ("headers", 4, "input.few[0]")

"""Every function is documented, and every example in its declaration runs and gives what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamstack.functions import FAMILIES, REGISTRY
from streamstack.language.definition import Example, Function
from streamstack.language.settings import Database
from streamstack.runtime.probes import Probes
from tests.functions.example_upstream import HOST, example_upstream
from tests.stacks import Outcome, run_stack

EXAMPLES = [
    pytest.param(example, id=f"{declared.name}: {example.title}")
    for declared in REGISTRY.values()
    for example in declared.examples
]
#: Functions whose examples need more than a stack, and where they are shown instead.
SHOWN_ELSEWHERE = {"call": "tests/runtime/test_calls.py"}


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_gives_what_it_says(example: Example, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The declaration's example is loaded, run and compared: with probes and mutants, and without."""
    if "db." in example.stack:
        url: str = request.getfixturevalue("postgres")
        databases = {"main": Database(url=url)}
        outcome = await run_stack(example.stack, example.inputs, databases=databases)
    elif "email.send" in example.stack:
        outcome = await run_stack(example.stack, example.inputs, folder=tmp_path)
    elif HOST in example.stack:
        async with example_upstream() as http:
            outcome = await run_stack(example.stack, example.inputs, http=http)
    else:
        _compare(example, await run_stack(example.stack, example.inputs, probes=Probes(mutates=True)))
        outcome = await run_stack(example.stack, example.inputs)
    _compare(example, outcome)


def _compare(example: Example, outcome: Outcome) -> None:
    if example.fails is not None:
        assert outcome.error is not None
        assert outcome.error.code == example.fails
        return
    assert outcome.error is None, outcome.error
    assert outcome.result == example.result
    if example.chunks is not None:
        assert tuple(outcome.contents) == example.chunks


@pytest.mark.parametrize("declared", REGISTRY.values(), ids=lambda declared: declared.name)
def test_a_function_is_documented(declared: Function) -> None:
    """A function has a summary that ends, described parameters, and an example."""
    assert declared.summary.endswith(".")
    assert all(parameter.description for parameter in declared.parameters)
    assert declared.examples or declared.name in SHOWN_ELSEWHERE


def test_a_function_has_one_main_parameter_at_the_most() -> None:
    """A bare value stands for one parameter only."""
    for declared in REGISTRY.values():
        assert sum(parameter.main for parameter in declared.parameters) <= 1, declared.name


def test_families_hold_every_function_once() -> None:
    """The registry is the families, nothing more."""
    names = [declared.name for family in FAMILIES.values() for declared in family]
    assert sorted(names) == sorted(REGISTRY)

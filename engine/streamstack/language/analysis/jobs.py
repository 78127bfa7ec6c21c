"""Jobs: what a function that runs as one can't have, and where a job would start too early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamstack.errors import Diagnostic, Mark
from streamstack.language.definition import Definition, FunctionDefinition, Stack, Step
from streamstack.language.findings import make_diagnostic
from streamstack.language.graph import JOB_START, called_by, called_itself, reached, steps_of, values_of

#: Types of inputs that can't be stored.
_LIVE = ("file", "stream")


def check_jobs(definition: Definition, functions: Mapping[str, FunctionDefinition]) -> list[Diagnostic]:
    """Report the jobs of a definition that can't run, or start before a transaction that may be rolled back."""
    found = []
    for step in steps_of(definition.stack):
        if step.function.name == JOB_START:
            found += [each for name in called_by(step) for each in _check_function(step, name, functions)]
        elif step.function.name == "db.transaction":
            found += [
                make_diagnostic(
                    "job-in-transaction",
                    inner.key_mark,
                    f"`{inner.title}` starts a job while a transaction is open: the job may run before it is committed",
                )
                for stack in (each for each in step.arguments.by_name.values() if isinstance(each, Stack))
                for inner in steps_of(stack)
                if _starts_job(inner, functions)
            ]
    return found


def _starts_job(step: Step, functions: Mapping[str, FunctionDefinition]) -> bool:
    called = (each for name in called_itself(step) for each in reached(name, functions))
    return step.function.name == JOB_START or any(
        inner.function.name == JOB_START for each in called for inner in steps_of(each.stack)
    )


def _check_function(step: Step, name: str, functions: Mapping[str, FunctionDefinition]) -> Iterator[Diagnostic]:
    """Report what a function that is started as a job can't have."""
    function = functions.get(name)
    for declared in () if function is None else function.inputs:
        if declared.type in _LIVE:
            message = (
                f"the input `{declared.name}` of `{name}` is of type {declared.type}: the inputs of a job are stored"
            )
            yield make_diagnostic("job-input", step.key_mark, message)
    place = next(_requests_in(name, functions), None)
    if place is not None:
        message = f"`{name}` runs as a job, without a request and its response, which {place} is about"
        yield make_diagnostic("request-in-job", step.key_mark, message)


def _requests_in(name: str, functions: Mapping[str, FunctionDefinition]) -> Iterator[Mark]:
    """Yield where a function, or one that it calls, reads the request or sets the head of the response."""
    for function in reached(name, functions):
        for step in steps_of(function.stack):
            if step.function.effects.opens:
                yield step.key_mark
            yield from (read.mark for value in values_of(step) for read in value.reads if read.name == "request")

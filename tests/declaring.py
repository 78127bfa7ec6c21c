"""Declared inputs from YAML, for tests."""

from __future__ import annotations

from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.language.definition import STRICT, Input, InputRules
from streamstack.language.loading.arguments import Faults
from streamstack.language.loading.inputs import read_inputs
from streamstack.language.source import read
from streamstack.runtime.inputs import Checker, Form, Inputs, JsonText, compile_inputs


def declare(yaml: str) -> tuple[Input, ...]:
    """Read what would stand under `inputParameters`."""
    documents, findings = read(yaml, "inputs.yaml")
    assert not findings, findings
    faults = Faults()
    declared = read_inputs(documents[0].root, faults)
    assert not faults.failed, vars(faults) if hasattr(faults, "__dict__") else faults
    return declared


def compile_yaml(yaml: str, rules: InputRules = STRICT) -> Checker:
    """Compile what would stand under `inputParameters`."""
    return compile_inputs(declare(yaml), rules)


def send_json(checker: Checker, body: bytes | str) -> Inputs:
    """Check a JSON body, without a server."""
    data = body if isinstance(body, bytes) else body.encode()
    return checker.layout("POST").check(lambda _: lambda _: (), JsonText(data))


def send_texts(checker: Checker, method: str = "GET", /, **texts: Any) -> Inputs:
    """Check texts of a query, without a server."""
    sent = {name: value if isinstance(value, list) else [value] for name, value in texts.items()}
    return checker.layout(method).check(lambda _: lambda name: sent.get(name, ()), None)


def send_form(checker: Checker, form: Form) -> Inputs:
    """Check the fields of a form, without a server."""
    return checker.layout("POST").check(lambda _: lambda _: (), form)


def faults_of(work: Any) -> list[tuple[str, str]]:
    """Return name and message of each fault that the work is refused for."""
    with pytest.raises(RunError) as caught:
        work()
    assert caught.value.code == "invalid-input"
    assert caught.value.details
    return [(each["name"], each["message"]) for each in caught.value.details]

"""What the hints of findings say to write."""

from __future__ import annotations

import pytest

from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.streaming_settings import Streaming
from streamstack.language.validate import validate

HEAD = "method: GET\npath: /x\n"


def findings_of(steps: str, head: str = HEAD) -> list[Diagnostic]:
    """Validate an endpoint with these steps, and one that streams."""
    text = f"{head}functionStack:\n{steps}\n- stream: end\n"
    return validate({"a.yaml": text}, REGISTRY, Streaming(), {})[1]


@pytest.mark.parametrize(
    ("steps", "write"),
    [
        ("- stream: hi\n  delay: 5ms", "stream: {content: ..., delay: ...}"),
        ("- stream: [hi]\n  delay: 5ms", "stream: {content: ..., delay: ...}"),
        ("- try: {do: [{stream: << 1 >>, delay: 5ms}]}", "stream: {content: ..., delay: ...}"),
        ("- forEach: << [1] >>\n  do: [{stream: 1}]", "forEach: {in: ..., do: ...}"),
        ("- forEach: [1]\n  do: [{stream: 1}]", "forEach: {in: ..., do: ...}"),
        ("- if: << true >>\n  then: [{stream: 1}]", "if: {condition: ..., then: ...}"),
        (
            "- if: << true >>\n  then: [{stream: 1}]\n  else: [{stream: 2}]",
            "if: {condition: ..., then: ..., else: ...}",
        ),
    ],
)
def test_a_parameter_beside_a_bare_value_is_written_with_it(steps: str, write: str) -> None:
    """Moved to the right alone it would stand below a value, which is no YAML."""
    hints = [each.hint for each in findings_of(steps) if each.code == "unknown-modifier"]
    assert hints
    assert all(hint.endswith(f": write `{write}`") for hint in hints)


@pytest.mark.parametrize("steps", ["- stream:\n  delay: 5ms", "- stream: {id: 1}\n  delay: 5ms"])
def test_a_parameter_beside_a_mapping_moves_right(steps: str) -> None:
    """There the other parameters have their names already."""
    hints = [each.hint for each in findings_of(steps) if each.code == "unknown-modifier"]
    assert hints == ["`delay` belongs to `stream`: write it two spaces further right"]

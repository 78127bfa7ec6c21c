"""Whatever happens to a file, `validate` reports it and never falls over; what it lets pass is served."""

from __future__ import annotations

import random

from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.findings import FINDINGS, WRITERS
from streamstack.language.project import validate
from streamstack.language.settings import Settings, Streaming
from streamstack.runtime.plan import compile_project
from streamstack.server.endpoints import make_endpoints
from tests.mutations import mutate_characters, mutate_nodes


def check(text: str, findings: list[Diagnostic]) -> None:
    """Findings are sorted, stand once, know their place and can be written down."""
    lines = text.count("\n") + text.count("\r") + 1
    assert findings == sorted(set(findings))
    for finding in findings:
        assert finding.code in FINDINGS
        assert 1 <= finding.line <= lines
        assert finding.column >= 1
        assert finding.message
    for write in WRITERS.values():
        write(findings, {"f": text})


def test_changed_definitions_are_reported_or_served() -> None:
    """2,500 definitions changed at random are reported, or can be served; nothing is raised."""
    random_ = random.Random(20261122)  # noqa: S311  (no secret)
    sound = broken = 0
    for number in range(2500):
        text = mutate_nodes(random_) if number % 2 else mutate_characters(random_)
        try:
            # The settings that they are served with have no authentication.
            names: dict[str, tuple[str, ...]] = {"authentication": ()}
            project, findings = validate({"f": text}, REGISTRY, Streaming(), {}, names)
            check(text, findings)
            if not any(finding.severity == "error" for finding in findings):
                make_endpoints(compile_project(project), Settings(), dev=False)
                sound += 1
        except BaseException as error:
            error.add_note(f"number {number}:\n{text}")
            raise
        broken += bool(findings)
    assert broken > 1000
    assert sound > 100

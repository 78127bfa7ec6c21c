from __future__ import annotations

import pytest

from streamstack.language.reading.source import read
from streamstack.language.settings import load_settings
from streamstack.language.state_settings import StateSettings, parse_state


def parse(text: str) -> tuple[StateSettings, list[tuple[int, str, str]]]:
    """Return the settings of a section, and line, code and message of what is wrong with it."""
    documents, findings = read(text, "streamstack.yaml")
    assert findings == []
    settings, found = parse_state(documents[0].root if documents else None)
    return settings, [(each.line, each.code, each.message) for each in found]


def test_nothing_given_is_the_defaults() -> None:
    """In memory, 100,000 values, 256 MB."""
    assert parse("") == (StateSettings("memory://", 100_000, 256 << 20), [])
    assert parse("url:\nmaxSize:\n") == (StateSettings(), [])


def test_everything_can_be_set() -> None:
    """Every key of the section has its place, also as the environment gives it."""
    text = "state: {url: << env.URL >>, maxEntries: << env.MANY >>, maxSize: 1MB}"
    settings, findings = load_settings(text, "x", {"URL": "memory://", "MANY": "50"})
    assert findings == []
    assert settings.state == StateSettings("memory://", 50, 1 << 20)


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("url: redis://localhost:6379/0", "not-yet", "not in Redis"),
        ("url: rediss://h", "not-yet", "not in Redis"),
        ("url: postgres://x", "bad-setting", "write memory://"),
        ("url: 5", "bad-setting", "write memory://"),
        ("maxEntry: 5", "unknown-setting", "did you mean `maxEntries`"),
        ("maxEntries: 0", "bad-setting", "from 1 to"),
        ("maxEntries: many", "bad-setting", "from 1 to"),
        ("maxEntries: true", "bad-setting", "from 1 to"),
        ("maxSize: big", "bad-size", "`state.maxSize`"),
        ("[memory]", "not-a-mapping", "`state` is a mapping"),
        ("memory://", "not-a-mapping", "`state` is a mapping"),
    ],
)
def test_faults_are_told_with_their_place(text: str, code: str, told: str) -> None:
    """Each is a finding; the setting keeps its default."""
    settings, findings = parse("\n" + text)
    ((line, found, message),) = findings
    assert (line, found) == (2, code)
    assert told in message
    assert settings == StateSettings()

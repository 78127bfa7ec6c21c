from __future__ import annotations

import pytest

from streamstack.language.settings import HttpSettings, parse_section
from streamstack.language.source import read


def parse(text: str) -> tuple[HttpSettings, list[tuple[int, str, str]]]:
    """Return the settings of a section, and line, code and message of what is wrong with it."""
    documents, findings = read(text, "streamstack.yaml")
    assert findings == []
    settings, found = parse_section("http", documents[0].root if documents else None)
    return settings, [(each.line, each.code, each.message) for each in found]


def test_nothing_given_is_the_defaults() -> None:
    """Any host, private networks too, 10 s to connect, 60 s for an answer."""
    assert parse("") == (HttpSettings(), [])
    assert parse("allowHosts:\ntimeouts:\n") == (HttpSettings(), [])


def test_everything_can_be_set() -> None:
    """Every key of the section has its place."""
    settings, findings = parse(
        "allowHosts: [API.example.org, '*.example.com', 'a.b:8443', 10.0.0.0/8, '::1']\n"
        "denyPrivateNetworks: true\n"
        "timeouts: {connect: 2s, total: 1m, firstChunk: 30s, idle: false}\n"
        "maxBodySize: 1MB\nmaxEventSize: 64KB\n"
    )
    assert findings == []
    assert settings == HttpSettings(
        allow_hosts=("api.example.org", "*.example.com", "a.b:8443", "10.0.0.0/8", "::1"),
        deny_private_networks=True,
        connect=2,
        total=60,
        first_chunk=30,
        idle=0,
        max_body_size=1 << 20,
        max_event_size=64 << 10,
    )


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("allowHost: [a.b]", "unknown-setting", "did you mean `allowHosts`"),
        ("timeouts: {conect: 1s}", "unknown-setting", "did you mean `connect`"),
        ("timeouts: 5s", "not-a-mapping", "`http.timeouts` is a mapping"),
        ("[a]", "not-a-mapping", "`http` is a mapping"),
        ("allowHosts: ['https://api.example.org']", "bad-setting", "write a host like"),
        ("allowHosts: [1]", "bad-setting", "write a host like"),
        ("allowHosts: {a: b}", "bad-setting", "write a host like"),
        ("denyPrivateNetworks: sure", "bad-setting", "true or false"),
        ("timeouts: {idle: soon}", "bad-duration", "`http.timeouts.idle`"),
        ("maxBodySize: big", "bad-size", "`http.maxBodySize`"),
    ],
)
def test_faults_are_told_with_their_place(text: str, code: str, told: str) -> None:
    """Each is a finding; the setting keeps its default."""
    _, findings = parse("\n" + text)
    ((line, found, message),) = findings
    assert (line, found) == (2, code)
    assert told in message


def test_wrong_host_opens_nothing() -> None:
    """Where no host of the list could be read, none is allowed: never all of them."""
    settings, _ = parse("allowHosts: ['https://x']")
    assert settings.allow_hosts == ()

from __future__ import annotations

import re

import pytest

from streamstack.language.environment import RedisUrl
from streamstack.language.findings import write_text
from streamstack.language.settings import StateSettings, load_settings, parse_section
from streamstack.language.source import read


def parse(text: str) -> tuple[StateSettings, list[tuple[int, str, str]]]:
    """Return the settings of a section, and line, code and message of what is wrong with it."""
    documents, findings = read(text, "streamstack.yaml")
    assert findings == []
    settings, found = parse_section("state", documents[0].root if documents else None)
    return settings, [(each.line, each.code, each.message) for each in found]


def test_nothing_given_is_the_defaults() -> None:
    """In memory, 100,000 values, 256 MB."""
    assert parse("") == (StateSettings(None, "", 100_000, 256 << 20), [])
    assert parse("url:\nmaxSize:\n") == (StateSettings(), [])


def test_everything_can_be_set() -> None:
    """Every key of the section has its place, also as the environment gives it."""
    text = "state: {url: << env.URL >>, prefix: shop, maxEntries: << env.MANY >>, maxSize: 1MB}"
    settings, findings = load_settings(text, "x", {"URL": "redis://h", "MANY": "50"})
    assert findings == []
    assert settings.state == StateSettings(RedisUrl("h"), "shop", 50, 1 << 20)
    assert settings.state.shared
    for url in ("memory://", "''", "' '"):
        memory, found = parse(f"url: {url}")
        assert (memory, memory.shared, found) == (StateSettings(), False, [])


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("redis://localhost:6379/0", RedisUrl(), "redis://localhost:6379"),
        ("redis://h", RedisUrl("h"), "redis://h:6379"),
        ("REDIS://h/", RedisUrl("h"), "redis://h:6379"),
        ("redis://[::1]:6380/3", RedisUrl("::1", 6380, database=3), "redis://[::1]:6380"),
        ("redis://:p%40ss@h", RedisUrl("h", password="p@ss"), "redis://h:6379"),
        ("redis://me:p@h?db=2", RedisUrl("h", database=2, user="me", password="p"), "redis://h:6379"),
        (
            "rediss://me:p@h:7000/1?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            RedisUrl(
                "h",
                7000,
                database=1,
                tls=True,
                user="me",
                password="p",
                options={"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
            ),
            "rediss://h:7000",
        ),
        (
            "unix:///run/redis.sock?db=1&password=p",
            RedisUrl(path="/run/redis.sock", database=1, password="p"),
            "unix:///run/redis.sock",
        ),
    ],
)
def test_urls_of_redis(url: str, expected: RedisUrl, shown: str) -> None:
    """Host, port, database, user and TLS are read; what is shown of it holds no secret."""
    settings, findings = parse(f"url: '{url}'")
    assert findings == []
    assert settings.redis == expected
    assert str(settings.redis) == shown
    assert "p@ss" not in repr(settings)
    assert "password" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:hush@h:port", "can't be read: write redis://localhost:6379"),
        ("redis://:hu/sh@h", "in a password, write / as %2F"),
        ("redis://:hush@h:99999", "can't be read"),
        ("redis://:hush@/0", "names no host"),
        ("redis://:hush@h/shop", "a database of Redis is a number"),
        ("redis://:hu#sh@h", "can't be read"),
        ("redis://:hush@h/0#x", "nothing may follow a #"),
        ("redis://:hu sh@h", "write %20"),
        ("redis://h?passwd=hush", "it knows db, username, password"),
        ("rediss://h?ssl_cert_reqs=hush", "`ssl_cert_reqs` is none, optional or required"),
        ("unix://hush/redis.sock", "write unix:///run/redis/redis.sock"),
        ("unix://", "write unix:///run/redis/redis.sock"),
        ("valkey://:hush@h", "begins with none of memory://, redis://"),
        ("hush@h:6379", "write redis://localhost:6379"),
    ],
)
def test_a_malformed_url_is_told_without_its_text(url: str, told: str) -> None:
    """The finding says what to write; neither it nor the report of it holds anything of the URL."""
    text = f"state:\n  url: '{url}'\n"
    settings, findings = load_settings(text, "streamstack.yaml", {})
    password = re.search("//:[^/ ]+@", url) is not None
    codes = ["bad-url", "secret-in-definition"] if password else ["bad-url"]
    assert sorted((each.code, each.line) for each in findings) == [(code, 2) for code in codes]
    report = write_text(findings, {"streamstack.yaml": text})
    assert told in report
    assert "hush" not in report
    assert "sh@" not in report
    assert settings.state == StateSettings()


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("url: postgres://x", "bad-url", "write redis://localhost:6379, or memory://"),
        ("url: 5", "bad-url", "must be the URL of a store"),
        ("prefix: a b", "bad-setting", "letters, digits"),
        ("prefix: [a]", "bad-setting", "letters, digits"),
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

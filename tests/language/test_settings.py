"""streamstack.yaml: what it may hold, what it gives, and what is wrong with it, at its place."""

from __future__ import annotations

import pytest

from streamstack.errors import Diagnostic
from streamstack.language.findings import FINDINGS, make_diagnostic
from streamstack.language.settings import (
    Cors,
    LogSettings,
    Metrics,
    Model,
    Resume,
    Server,
    Settings,
    Streaming,
    load_settings,
    parse_streaming,
)
from streamstack.language.source import Mapping, read

FILE = "streamstack.yaml"


def load(text: str, **env: str) -> Settings:
    """Return settings that are free of findings."""
    settings, findings = load_settings(text, FILE, env, check_environment=True)
    assert findings == []
    return settings


def told(text: str, **env: str) -> list[tuple[int, int, str]]:
    """Return line, column and code of each finding."""
    findings = load_settings(text, FILE, env, check_environment=True)[1]
    return [(d.line, d.column, d.code) for d in findings]


def one(text: str, **env: str) -> Diagnostic:
    """Return the one finding there is."""
    findings = load_settings(text, FILE, env, check_environment=True)[1]
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "server:\nsettings:\nhttp:\n"])
def test_nothing_configured_gives_the_defaults(text: str | None) -> None:
    """Without a file, or with an empty one, everything has its default."""
    settings, findings = load_settings(text, FILE, {})
    assert findings == []
    assert settings == Settings()
    assert settings.streaming == Streaming(
        format="auto",
        keep_alive=15.0,
        first_chunk_timeout=60.0,
        idle_timeout=300.0,
        max_duration=3600.0,
        max_bytes=None,
        on_disconnect="cancel",
        resume=None,
        slow_client="block",
        buffer=262144,
        compress=False,
        done=True,
        ids=True,
    )


def test_all_of_server_is_typed() -> None:
    """Durations are seconds, sizes bytes."""
    settings = load(
        """\
server:
  host: 0.0.0.0
  port: 9000
  workers: 4
  maxBodySize: 5MB
  shutdownTimeout: 1m
  shutdownDelay: 5s
  metrics: {token: <<env.METRICS>>}
  cors:
    origins: [https://A.example, "http://localhost:3000"]
    headers: [X-Key]
    exposeHeaders: X-Cost
    credentials: true
    maxAge: 1h
""",
        METRICS="secret\n",
    )
    cors = Cors(("https://a.example", "http://localhost:3000"), ("X-Key",), ("X-Cost",), True, 3600.0)
    assert settings.server == Server(
        "0.0.0.0", 9000, 4, 5 * 1024**2, cors=cors, shutdown_timeout=60.0, shutdown_delay=5.0, metrics=Metrics("secret")
    )
    assert "secret" not in repr(settings.server)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ('server: {cors: {origins: "*"}}', ("*",)),
        ('server: {cors: "*"}', ("*",)),
        ("server: {cors: [https://a.example]}", ("https://a.example",)),
        ("server: {cors: {origins: https://a.example}}", ("https://a.example",)),
    ],
)
def test_origins_may_stand_alone(text: str, origins: tuple[str, ...]) -> None:
    """One origin, a list, or a star; with or without the mapping around it."""
    cors = load(text).server.cors
    assert cors == Cors(origins)


def test_cors_can_be_turned_off() -> None:
    """`false` and null mean no CORS."""
    assert load("server: {cors: false}").server.cors is None
    assert load("server: {cors: }").server.cors is None


def test_settings_are_free_values() -> None:
    """`settings` may hold anything, with environment variables in it."""
    settings = load("settings: {a: [1, {b: <<env.X>>}], c: 'is <<env.X>>!', on: yes}", X="<<env.Y>>")
    assert settings.settings == {"a": [1, {"b": "<<env.Y>>"}], "c": "is <<env.Y>>!", "on": "yes"}


def test_names_of_sections_can_be_asked_for() -> None:
    """Those that are written, right or not."""
    text = "databases:\n  main: {url: <<env.URL>>}\n  old: {url: postgres://o}\nplugins: [absent.py]\n"
    settings, findings = load_settings(text, FILE, {"URL": "postgres://h/d"}, check_environment=True)
    assert [(found.line, found.code) for found in findings] == [(4, "bad-setting")]
    assert settings.names("databases") == ("main", "old")
    assert settings.names("models") == ()
    assert settings.databases["main"].url == "postgres://h/d"


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ("- a", (1, 1), "not-a-mapping"),
        ("server: 8080", (1, 9), "not-a-mapping"),
        ("settings: x", (1, 11), "not-a-mapping"),
        ("streaming: sse", (1, 12), "not-a-mapping"),
        ("servers: {}", (1, 1), "unknown-setting"),
        ("server: {prot: 1}", (1, 10), "unknown-setting"),
        ("server: {port: 70000}", (1, 16), "bad-setting"),
        ("server: {port: http}", (1, 16), "bad-setting"),
        ("server: {port: true}", (1, 16), "bad-setting"),
        ("server: {port: [1]}", (1, 16), "bad-setting"),
        ("server: {workers: 0}", (1, 19), "bad-setting"),
        ("server: {workers: 1025}", (1, 19), "bad-setting"),
        ("server: {shutdownDelay: soon}", (1, 25), "bad-duration"),
        ("server: {metrics: yes}", (1, 19), "not-a-mapping"),
        ("server: {metrics: {tokken: x}}", (1, 20), "unknown-setting"),
        ('server: {metrics: {token: ""}}', (1, 27), "bad-setting"),
        ('server: {metrics: {token: "  "}}', (1, 27), "bad-setting"),
        ("server: {metrics: {open: maybe}}", (1, 26), "bad-setting"),
        ("server: {metrics: {token: x, open: true}}", (1, 19), "bad-setting"),
        ("server: {host: 5}", (1, 16), "bad-setting"),
        ("server: {maxBodySize: big}", (1, 23), "bad-size"),
        ("server: {maxConnections: 0}", (1, 26), "bad-setting"),
        ("server: {headTimeout: soon}", (1, 23), "bad-duration"),
        ("server: {shutdownTimeout: 5 min}", (1, 27), "bad-duration"),
        ("server: {cors: {headers: [a]}}", (1, 16), "missing-parameter"),
        ("server: {cors: {origins: [a.example]}}", (1, 27), "bad-setting"),
        ("server: {cors: {origins: [https://a.example/]}}", (1, 27), "bad-setting"),
        ('server: {cors: {origins: "*", credentials: true}}', (1, 26), "bad-setting"),
        ('server: {cors: {origins: "*", headers: [a b]}}', (1, 41), "bad-setting"),
        ('server: {cors: {origins: "*", credentials: 1}}', (1, 44), "bad-setting"),
        ('server: {cors: {origins: "*", maxAge: x}}', (1, 39), "bad-duration"),
        ('server: {cors: {origin: "*", origins: "*"}}', (1, 17), "unknown-setting"),
        ("streaming: {fromat: sse}", (1, 13), "unknown-setting"),
        ("streaming: {format: xml}", (1, 21), "bad-setting"),
        ("streaming: {format: openAi}", (1, 21), "bad-setting"),
        ("settings: {a: <<env.NOT_SET>>}", (1, 15), "missing-environment"),
        ("settings:\n  a: 'x <<env.NOT_SET>>'", (2, 9), "missing-environment"),
        ("settings: {a: <<input.x>>}", (1, 15), "bad-template"),
        ("settings: {a: <<env.A | upper>>}", (1, 15), "bad-template"),
        ("settings: {a: '<<env.A'}", (1, 16), "bad-template"),
        ("settings: {a: 1, a: 2}", (1, 18), "duplicate-key"),
        ("settings: {a: 1}\n---\nserver: {}", (3, 1), "bad-setting"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(text: str, place: tuple[int, int], code: str) -> None:
    """One finding, at the value or key that is wrong."""
    found = one(text, A="x")
    assert ((found.line, found.column), found.code) == (place, code)
    assert (found.file, found.severity) == (FILE, "error")
    assert found.hint


def test_what_is_wrong_leaves_its_default() -> None:
    """The rest of the settings is still there."""
    settings, findings = load_settings("server: {port: x, shutdownTimeout: 3s}", FILE, {})
    assert (settings.server.port, settings.server.shutdown_timeout) == (8080, 3.0)
    assert len(findings) == 1


def test_a_misspelt_section_is_named() -> None:
    """An unknown key comes with the one that was meant."""
    message = one("database: {a: {url: x}}").message
    assert message == "`streamstack.yaml` has no `database`, did you mean `databases`?"


# ------------------------------------------------------------------------------------ environment


def test_text_from_the_environment_is_converted() -> None:
    """A typed setting takes the text of a variable."""
    settings = load(
        "server: {port: <<env.PORT>>, maxBodySize: <<env.SIZE>>}\n"
        "streaming: {done: <<env.DONE>>, keepAlive: <<env.ALIVE>>}\n",
        PORT="9000",
        SIZE="1MB",
        DONE="false",
        ALIVE="2s",
    )
    assert (settings.server.port, settings.server.max_body_size) == (9000, 1024**2)
    assert (settings.streaming.done, settings.streaming.keep_alive) == (False, 2.0)


def test_a_bad_value_from_the_environment_is_not_repeated() -> None:
    """It may be a secret; the finding names the setting."""
    found = one("server: {port: <<env.PORT>>}", PORT="hunter2")
    assert (found.column, found.code) == (16, "bad-setting")
    assert "hunter2" not in found.message + found.hint


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'<<env.X | default(\"a b\")>>'", "a b"),
        ("\"<<env.X|default('it')>>\"", "it"),
        ('<< env.X | default("") >>', ""),
        ('\'<<env.X | default("a\\"b")>>\'', 'a"b'),
        ("'<<env.X | default(\">>\")>>'", ">>"),
        ("<<env.X | default(8080)>>", 8080),
        ("<<env.X | default(true)>>", True),
        ("on <<env.X | default(true)>>", "on true"),
        ("'  <<env.SET>>  '", "here"),
        ("'<<env.SET>>/<<env.SET>>'", "here/here"),
        (r"'\<<env.X>>'", "<<env.X>>"),
        ("'<<env.SET | default(\"no\")>>'", "here"),
        ('<<env.EMPTY | default("no")>>', ""),
    ],
)
def test_variables_and_defaults_are_put_in(written: str, value: object) -> None:
    """A default is a text, a number or a boolean; a variable that is set, even empty, wins."""
    assert load(f"settings:\n  a: {written}\n", SET="here", EMPTY="").settings == {"a": value}


def test_a_missing_variable_is_told_only_when_asked() -> None:
    """Otherwise its value is null, and a typed setting keeps its default."""
    text = "server: {port: <<env.PORT>>}\nsettings: {a: 'x<<env.A>>', b: 1}\n"
    settings, findings = load_settings(text, FILE, {})
    assert findings == []
    assert settings.server.port == 8080
    assert settings.settings == {"a": None, "b": 1}
    assert told(text) == [(1, 16, "missing-environment"), (2, 17, "missing-environment")]
    assert "The environment variable PORT is not set." in str(load_settings(text, FILE, {}, check_environment=True)[1])


# -------------------------------------------------------------------------------------- streaming


def streaming(text: str) -> tuple[Streaming, list[tuple[int, str]]]:
    """Parse a `streaming:` mapping; return column and code of each finding."""
    root = read(text, "a.yaml")[0][0].root
    assert isinstance(root, Mapping)
    made, findings = parse_streaming(root, Streaming(keep_alive=1.0))
    return made, [(d.column, d.code) for d in findings]


def test_all_of_streaming_is_typed() -> None:
    """What is given changes the defaults; what is not, keeps them."""
    made, findings = streaming(
        "{format: ndjson, firstChunkTimeout: 5s, idleTimeout: 0, maxDuration: 100, maxBytes: 1MB, "
        "onDisconnect: cancel, resume: false, slowClient: block, buffer: 1KB, compress: false, "
        "done: false, ids: false, keepAlive: }"
    )
    assert findings == []
    assert made == Streaming("ndjson", 1.0, 5.0, 0.0, 0.1, 1024**2, "cancel", None, "block", 1024, False, False, False)
    assert streaming("{keepAlive: false}")[0].keep_alive == 0.0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{slowClient: [block]}", "bad-setting"),
        ("{slowClient: drop}", "bad-setting"),
        ("{maxDuration: [1h]}", "bad-setting"),
        ("{resume: maybe}", "bad-setting"),
        ("{resume: [5m]}", "not-a-mapping"),
        ("{format: [sse]}", "bad-setting"),
        ("{onDisconnect: stop}", "bad-setting"),
        ("{done: 1}", "bad-setting"),
        ("{compress: maybe}", "bad-setting"),
        ("{buffer: 0}", "bad-size"),
        ("{maxBytes: many}", "bad-size"),
        ("{keepAlive: true}", "bad-duration"),
        ("{idleTimeout: -1s}", "bad-duration"),
        ("{buffer: <<input.size>>}", "constant-required"),
    ],
)
def test_what_streaming_can_not_be_is_told_at_the_value(text: str, code: str) -> None:
    """The finding stands at the value; the default stays."""
    made, findings = streaming(text)
    assert findings == [(text.index(":") + 3, code)]
    assert made == Streaming(keep_alive=1.0)


def test_what_may_be_in_parts() -> None:
    """`maxDuration` and `slowClient` take a mapping; what it leaves out keeps its default."""
    made, findings = streaming(
        "{maxDuration: {limit: 1h, jitter: 25%}, slowClient: {mode: disconnect, grace: 2s}, compress: true}"
    )
    assert findings == []
    assert (made.max_duration, made.jitter, made.slow_client, made.grace, made.compress) == (
        3600.0,
        0.25,
        "disconnect",
        2.0,
        True,
    )
    assert streaming("{maxDuration: {jitter: 0}}")[0] == Streaming(keep_alive=1.0, jitter=0.0)
    assert streaming("{maxDuration: {jitter: 0.5}}")[0].jitter == 0.5
    assert streaming("{slowClient: dropOldest}")[0].slow_client == "dropOldest"


@pytest.mark.parametrize(
    ("text", "at", "code"),
    [
        ("{maxDuration: {jitter: 110%}}", "110", "bad-setting"),
        ("{maxDuration: {jitter: -1}}", "-1", "bad-setting"),
        ("{maxDuration: {jitter: some}}", "some", "bad-setting"),
        ("{maxDuration: {jitter: nan}}", "nan", "bad-setting"),
        ("{maxDuration: {jitter: true}}", "true", "bad-setting"),
        ("{maxDuration: {limit: long}}", "long", "bad-duration"),
        ("{maxDuration: {most: 1h}}", "most", "unknown-key"),
        ("{resume: {kept: 5m}}", "kept", "unknown-key"),
        ("{resume: {keep: 0}}", "0", "bad-duration"),
        ("{resume: {keep: 2d}}", "2d", "bad-duration"),
        ("{resume: {maxChunks: 0}}", "0", "bad-setting"),
        ("{resume: {maxChunks: 1.5}}", "1.5", "bad-setting"),
        ("{resume: {maxSize: 0}}", "0", "bad-size"),
        ("{slowClient: {mode: drop}}", "drop}", "bad-setting"),
        ("{slowClient: {mode: disconnect, grace: 0}}", "0", "bad-duration"),
        ("{slowClient: {mode: [block]}}", "[", "bad-setting"),
        ("{slowClient: {grace: <<input.s>>}}", "<<", "constant-required"),
        ("{slowClient: dropOldest, format: text}", "dropOldest", "bad-setting"),
        ("{format: openai, slowClient: {mode: dropOldest}}", "{mode", "bad-setting"),
    ],
)
def test_what_parts_can_not_be_is_told_at_the_part(text: str, at: str, code: str) -> None:
    """The finding stands at the part that is wrong."""
    assert streaming(text)[1] == [(text.index(at) + 1, code)]


@pytest.mark.parametrize("format_", ["auto", "sse", "ndjson", "json"])
def test_dropped_chunks_need_a_format_that_can_tell(format_: str) -> None:
    """There is no finding where a gap can be told, or where everything is sent in one piece."""
    assert streaming(f"{{slowClient: dropOldest, format: {format_}}}")[1] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", Resume(300.0, 10_000, 16 * 1024**2)),
        ("false", None),
        ("{}", Resume()),
        ("{keep: 10s, maxChunks: }", Resume(keep=10.0)),
        ("{keep: 1d, maxChunks: 5, maxSize: 1MB}", Resume(86400.0, 5, 1024**2)),
    ],
)
def test_resume_says_how_much_is_kept(text: str, expected: Resume | None) -> None:
    """`true` stands for the defaults."""
    made, findings = streaming(f"{{onDisconnect: finish, resume: {text}}}")
    assert findings == []
    assert (made.resume, made.on_disconnect) == (expected, "finish")


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("{resume: true, format: text}", 10),
        ("{format: openai, resume: {keep: 5m}}", 26),
        ("{ids: false, resume: true}", 22),
    ],
)
def test_what_has_no_ids_is_not_resumed(text: str, column: int) -> None:
    """A format without ids, or `ids: false`, does not go with `resume`."""
    assert streaming(text)[1] == [(column, "not-resumable")]


def test_the_resume_of_a_project_is_for_the_endpoints_that_can() -> None:
    """An endpoint whose format has no ids leaves it out, without being told."""
    root = read("{format: text}", "a.yaml")[0][0].root
    assert isinstance(root, Mapping)
    assert parse_streaming(root, Streaming(resume=Resume())) == (Streaming("text"), [])


def test_an_unknown_key_of_an_endpoint_has_the_code_of_keys() -> None:
    """Only in streamstack.yaml is it an unknown setting."""
    assert streaming("{keepalive: 5s}")[1] == [(2, "unknown-key")]


# --------------------------------------------------------------------------------------- findings


def test_a_finding_takes_severity_and_hint_from_its_code() -> None:
    """`find` fills in what is not given, and refuses an undeclared code."""
    mark = read("a: 1", "a.yaml")[0][0].root.mark
    assert make_diagnostic("unbound-name", mark, "m").severity == "error"
    assert make_diagnostic("maybe-unbound", mark, "m").severity == "warning"
    assert make_diagnostic("bad-size", mark, "m").hint == FINDINGS["bad-size"].hint
    assert make_diagnostic("bad-size", mark, "m", "h").hint == "h"
    with pytest.raises(KeyError):
        make_diagnostic("no-such-code", mark, "m")


@pytest.mark.parametrize("code", sorted(FINDINGS))
def test_every_code_is_explained(code: str) -> None:
    """Kebab-case, a meaning that is a sentence, and a hint that says what to do."""
    found = FINDINGS[code]
    assert found.code == code
    assert code.replace("-", "").isalpha()
    assert code == code.lower()
    assert found.meaning[0].isupper() or found.meaning[0] == "`"
    assert found.meaning.endswith(".")
    assert found.hint
    assert not found.hint.endswith(".")


# ------------------------------------------------------------------------------------- models


def test_models_are_typed() -> None:
    """Each has its name; the environment may fill any part, and what is empty counts as not given."""
    settings = load(
        "models:\n"
        "  chat: {provider: openai, model: << env.MODEL >>, apiKey: << env.KEY | default('') >>}\n"
        "  own: {provider: anthropic, model: 4.5, baseUrl: https://x.example, withoutKey: /sim}\n",
        MODEL="gpt-x",
    )
    assert settings.models == {
        "chat": Model("openai", "gpt-x"),
        "own": Model("anthropic", "4.5", "https://x.example", None, "/sim"),
    }
    assert settings.names("models") == ("chat", "own")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models: [chat]", [(1, 9, "not-a-mapping")]),
        ("models: {chat: gpt}", [(1, 16, "not-a-mapping")]),
        ("models: {chat: {provider: openai}}", [(1, 16, "missing-parameter")]),
        ("models: {chat: {provider: open, model: m}}", [(1, 27, "bad-setting")]),
        ("models: {chat: {provider: openai, model: [m]}}", [(1, 42, "bad-setting")]),
        ("models: {chat: {provider: openai, model: true}}", [(1, 42, "bad-setting")]),
        ("models: {a: {provider: openai, model: m, baseUrl: x.org}}", [(1, 51, "bad-setting")]),
        ("models: {a: {provider: openai, model: m, key: k}}", [(1, 42, "unknown-setting")]),
        ("models: {a: {provider: openai, model: <<env.M>>}}", [(1, 39, "missing-environment")]),
    ],
)
def test_wrong_models_are_told(text: str, found: list[tuple[int, int, str]]) -> None:
    """At their places; what is wrong is not a model."""
    assert told(text) == found
    assert load_settings(text, FILE, {})[0].models.get("a", None) is None or "key" in text


def test_log_settings() -> None:
    """The request log is on, at level info, in the form that fits where it goes, unless set."""
    assert load_settings("", "x", {})[0].log == LogSettings("info", None, access=True)
    text = "log: {level: warning, format: text, access: << env.ACCESS >>}"
    settings, findings = load_settings(text, "x", {"ACCESS": "false"})
    assert findings == []
    assert settings.log == LogSettings("warning", "text", access=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{level: loud}", "`log.level`: must be one of debug, info, warning, error"),
        ("{format: xml}", "`log.format`: must be one of text, json"),
        ("{access: often}", "`log.access`: must be true or false"),
        ("{levl: info}", "`log` has no `levl`, did you mean `level`?"),
        ("often", "`log` is a mapping."),
    ],
)
def test_log_settings_that_are_wrong(text: str, message: str) -> None:
    """What is wrong is reported, and the default holds."""
    settings, findings = load_settings(f"log: {text}", "x", {})
    assert [each.message for each in findings] == [message]
    assert settings.log == LogSettings()


def test_worker_timeout() -> None:
    """A duration; 0 is for ever."""
    settings, findings = load_settings("server: {workerTimeout: 2m}", "x", {})
    assert (findings, settings.server.worker_timeout) == ([], 120.0)
    assert load_settings("server: {workerTimeout: 0}", "x", {})[0].server.worker_timeout == 0
    assert load_settings("", "x", {})[0].server.worker_timeout == 30.0

"""From a test in YAML to its result: every expectation holds or fails, every client behaves as it is written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from streamstack.testing import client, runner
from tests.testing.running import HELLO, failures, run, run_one

API = (
    HELLO
    + """\
---
method: GET
path: /plain
responseType: streaming
streaming: {format: text, separator: " "}
functionStack:
  - stream: Hello
  - stream: World
---
method: GET
path: /fails
responseType: streaming
functionStack:
  - stream: Hello
  - throw: {code: broken, message: it broke, status: 503}
---
method: GET
path: /refuses
responseType: streaming
inputParameters: {n: {type: integer, required: true}}
functionStack:
  - stream: << input.n >>
---
method: POST
path: /relay
responseType: streaming
functionStack:
  - http.stream: {url: https://words.example.org/v1, method: POST, json: {say: Hello}}
    as: events
  - forEach: {in: << events >>, as: event, do: [{stream: << event.data >>}]}
  - log: {message: relayed, level: info}
---
method: POST
path: /ask
responseType: json
functionStack:
  - http.request: {url: "http://one.example.org/a?x=1", headers: {X-Key: k}}
  - http.request: {url: "http://two.example.org/b", method: POST, json: {n: [1, 2]}}
response: {ok: true, at: << now() >>, dice: << [randomInteger(1, 1000000), uuid()] >>}
---
method: GET
path: /ticks
responseType: streaming
streaming: {resume: {}, onDisconnect: finish}
functionStack:
  - after: {do: [{log: {message: "ended << run.outcome >>"}}]}
  - forEach: {in: << range(5) >>, as: n, do: [{stream: {content: << n >>, delay: 100ms}}]}
---
method: GET
path: /long
responseType: streaming
functionStack:
  - after: {do: [{log: {message: "ended << run.outcome >>"}}]}
  - forEach: {in: << range(100000) >>, as: n, do: [{stream: {content: << n >>, delay: 1s}}]}
---
method: GET
path: /bulk
responseType: streaming
streaming: {format: ndjson}
functionStack:
  - set: {text: << "x" * 20000 >>}
  - forEach: {in: << range(100) >>, as: n, do: [{stream: << text >>}]}
"""
)
SSE = "upstreams: [{match: {url: 'https://words.example.org/*'}, respond: {events: [Hel, lo], delay: 10ms}}]\n"
OTHERS = "upstreams: [{match: {url: 'http://*'}, respond: {body: {}}}]\n"


@pytest.mark.parametrize(
    ("request_", "right", "wrong", "message"),
    [
        ("path: /hello", "status: 200", "status: 201", "`status`: expected 201, received 200"),
        ("path: /none", "status: 404", "status: 200", "`status`: expected 200, received 404: not-found"),
        (
            "path: /hello",
            "headers: {content-type: '<< value | regexMatch(\"^text/event-stream\") >>', x-none: null}",
            "headers: {X-Run-Id: null}",
            "header `X-Run-Id`: expected none, received",
        ),
        ("path: /hello", "text: HelloWorld", "text: Hello", '`text` differs\n    - "Hello"\n    + "HelloWorld"'),
        ("path: /plain", "text: Hello World", "text: '<< value | length > 11 >>'", "does not hold for"),
        ("path: /plain", "body: Hello World", "body: Hello", '`body`: expected "Hello", received "Hello World"'),
        ("path: /plain", "chunks: [Hello, ' World']", "chunks: [Hello, World]", "chunk 1 differs"),
        (
            "path: /hello",
            "chunks: [Hello, {content: World, event: word, metadata: {n: 2}, at: 50ms}]",
            "chunks: [Hello, {content: World, at: 49ms}]",
            (
                'chunk 1 differs: `at`: expected 49 ms, received 50 ms\n      "Hello"\n'
                '    - {"content":"World","at":0.049}\n    + {"content":"World","at":0.05}'
            ),
        ),
        (
            "path: /hello",
            "chunks: << value | length == 2 >>",
            "chunks: [Hello, between, World]",
            '`chunks`: expected 3 chunks, received 2\n      "Hello"\n    - "between"\n      "World"',
        ),
        (
            "path: /hello",
            "events: [message, word, done]",
            "events: [message, done]",
            "`events`: expected 2 items, received 3",
        ),
        ("path: /hello", "done: {words: 2}", "done: {words: 3}", "`done`: `words`: expected 3, received 2"),
        ("path: /hello", "done: true", "done: false", "`done`: an end marker came"),
        ("path: /hello", "elapsed: 50ms", "elapsed: 51ms", "`elapsed`: expected 51 ms, received 50 ms"),
        ("path: /hello", "streamed: true", "streamed: false", "`streamed`: the first chunk came at 0 ms"),
        ("path: /hello", "outcome: completed", "outcome: failed", '`outcome`: expected "failed", received "completed"'),
        ("path: /hello", "error: false", "error: broken", "`error`: expected an error, and the answer ended without"),
        ("path: /fails", "error: {code: broken, message: it broke}", "error: {message: x}", 'received "it broke"'),
        ("path: /fails", "error: broken", "text: Hello", "ended by an error: broken: it broke\n    at api.yaml:"),
        ("path: /refuses", "error: {code: invalid-input, status: 400}", "text: ''", "status 400 was answered"),
        ("{path: /refuses, query: {n: 3}}", "chunks: ['3']", "chunks: [4]", "expected 4, received"),
    ],
)  # fmt: skip
def test_expectation_of_the_answer(tmp_path: Path, request_: str, right: str, wrong: str, message: str) -> None:
    """Each expectation passes where it holds; where not, its failure says what was received."""
    request = request_ if request_.startswith("{") else f"{{{request_}}}"
    assert run_one(tmp_path, API, f"request: {request}\nexpect: {{{right}}}") == ""
    failure = run_one(tmp_path, API, f"request: {request}\nexpect: {{{wrong}}}")
    assert message in failure.replace(str(tmp_path) + "/", "")


def test_all_differences_of_a_chunk_are_shown_at_the_place_of_the_first(tmp_path: Path) -> None:
    """A failure has the line of the property that differs, also of a time, and names all differences."""
    test = """\
tests:
  - name: it
    request: {path: /hello}
    expect:
      chunks:
        - Hello
        - content: World
          event: word
          at: 49ms
          metadata: {n: 1, m: 2}
"""
    (result,) = run(tmp_path, API, test)
    (failure,) = result.failures
    assert (failure.mark.line, failure.mark.column) == (9, 11)
    assert failure.message == (
        "`chunks`: chunk 1 differs: `at`: expected 49 ms, received 50 ms; `metadata.n`: expected 1, received 2; "
        "`metadata.m` is missing; expected 2"
    )


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("streamed: true", "streamed: false", "the first chunk came at"),
        (
            "calls: [{url: https://words.example.org/v1, method: POST, count: 1, body: {say: Hello}}]",
            "calls: [{url: https://words.example.org/v1, body: {say: Bye}}]",
            'was not called so: `body.say`: expected "Bye", received "Hello"',
        ),
        ("calls: [{url: 'https://*', closedEarly: false}]", "calls: []", "was called, and is not among them"),
        ("log: [relayed]", "log: [other]", '`log`: no line has {"message":"other"}'),
        ("log: [{message: relayed, level: info}]", "log: [{message: relayed, level: error}]", "no line has"),
    ],
)
def test_expectation_of_effects(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    """Calls of an https upstream, and lines of the log, are compared as the answer is."""
    test = "request: {method: POST, path: /relay}\n" + SSE
    assert run_one(tmp_path, API, f"{test}expect: {{{right}}}") == ""
    assert message in run_one(tmp_path, API, f"{test}expect: {{{wrong}}}")


def test_calls_have_an_order(tmp_path: Path) -> None:
    """Calls that are expected in another order fail, and so does one without an upstream."""
    test = "request: {method: POST, path: /ask}\n"
    one, two = "{url: 'http://one.example.org/a', headers: {x-key: k}}", "{url: 'http://two.example.org/b'}"
    assert run_one(tmp_path, API, f"{test}{OTHERS}expect: {{calls: [{one}, {two}]}}") == ""
    assert "was called before" in run_one(tmp_path, API, f"{test}{OTHERS}expect: {{calls: [{two}, {one}]}}")
    assert "no upstream of this test answers GET" in run_one(tmp_path, API, f"{test}expect: {{error: true}}")


@pytest.mark.parametrize(
    ("test", "failure"),
    [
        ("client: {leaveAfter: 2}\nexpect: {chunks: ['0', '1'], outcome: cancelled, log: [ended cancelled]}", ""),
        ("client: {leaveAfter: 0}\nexpect: {chunks: [], outcome: cancelled, log: [ended cancelled]}", ""),
        ("client: {leaveAfter: 2}\nexpect: {outcome: completed}", 'expected "completed", received "cancelled"'),
    ],
)
def test_client_that_leaves(tmp_path: Path, test: str, failure: str) -> None:
    """A client closes its connection after some chunks, or as soon as the request is sent; `after` knows."""
    got = run_one(tmp_path, API, "request: {path: /long}\n" + test)
    assert failure in got if failure else got == ""


@pytest.mark.parametrize(
    "test",
    [
        "expect: {chunks: ['0', '1', '2', '3', '4'], elapsed: 400ms, log: [ended completed]}",
        "client: {resumeAfter: 2}\nexpect: {chunks: [0, 1, 2, 3, 4], done: true, events: << 'gap' not in value >>}",
        "client: {leaveAfter: 1}\nexpect: {chunks: ['0'], outcome: completed, log: [ended completed]}",
        "client: {stopAfter: 2}\nexpect: {chunks: [0, 1], error: stopped, outcome: cancelled, log: [ended cancelled]}",
    ],
)
def test_client_of_a_resumable_stream(tmp_path: Path, test: str) -> None:
    """A client resumes without gaps or duplicates, stops a stream, and may leave one that goes on."""
    assert run_one(tmp_path, API, "request: {path: /ticks}\n" + test) == ""


def test_client_that_reads_slowly(tmp_path: Path) -> None:
    """A client that pauses between reads gets everything, later than one that does not."""
    text = "chunks: << value | length == 100 >>"
    assert run_one(tmp_path, API, f"request: {{path: /bulk}}\nexpect: {{{text}, elapsed: 0s}}") == ""
    slow = run_one(
        tmp_path, API, f"request: {{path: /bulk}}\nclient: {{readDelay: 1s}}\nexpect: {{{text}, elapsed: 0s}}"
    )
    assert slow.startswith("`elapsed`: expected 0 ms, received ")


def test_time_and_chance_are_the_tests_own(tmp_path: Path) -> None:
    """The clock starts where the test says, and random values are the same each time; another seed gives others."""
    test = "request: {method: POST, path: /ask}\n" + OTHERS
    at = f"{test}now: 2030-01-02T03:04:05Z\nexpect: {{body: {{at: '2030-01-02T03:04:05Z'}}}}"
    assert run_one(tmp_path, API, at) == ""
    first = run_one(tmp_path, API, f"{test}expect: {{body: {{dice: []}}}}")
    assert "received 2" in first
    assert run_one(tmp_path, API, f"{test}expect: {{body: {{dice: []}}}}") == first
    assert run_one(tmp_path, API, f"{test}seed: 7\nexpect: {{body: {{dice: []}}}}") != first


def test_environment_is_the_tests_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees the variables that it names, and none of the process or of `.env`; settings have them too."""
    monkeypatch.setenv("FROM_PROCESS", "leaks")
    definitions = (
        "method: GET\npath: /e\nresponseType: json\nfunctionStack: []\n"
        "response: << [env.FROM_PROCESS | default('no'), env.FROM_FILE | default('no'), settings.own] >>\n"
    )
    files = {".env": "FROM_FILE=leaks\n", "streamstack.yaml": "settings: {own: '<< env.OWN | default(\"unset\") >>'}\n"}
    test = "request: {path: /e}\n"
    assert run_one(tmp_path, definitions, f"{test}expect: {{body: [no, no, unset]}}", files) == ""
    assert run_one(tmp_path, definitions, f"{test}env: {{OWN: mine}}\nexpect: {{body: [no, no, mine]}}", files) == ""


def test_state_is_empty_for_each_test(tmp_path: Path) -> None:
    """Counters and limits start at nothing in each test, and live as long as its requests."""
    definitions = (
        "method: GET\npath: /c\nresponseType: json\nrateLimit: 2/1m\n"
        "functionStack: [{counter.add: {key: c}, as: n}]\nresponse: << n >>\n"
    )
    each = "{request: {path: /c}, expect: {body: %d}}"
    refused = "{request: {path: /c}, expect: {status: 429, error: rate-limited}}"
    test = f"  - name: %s\n    requests: [{each % 1}, {each % 2}, {refused}]\n"
    settings = {"streamstack.yaml": "state: {url: redis://redis.invalid}\n"}
    results = run(tmp_path, definitions, "tests:\n" + test % "one" + test % "two", settings)
    assert [failures(each) for each in results] == ["", ""]


def test_clients_authenticate(tmp_path: Path) -> None:
    """`auth` mints a token, or an API key, that the endpoint accepts, whatever the project checks signatures with."""
    api = (
        "method: GET\npath: /%s\nauthentication: {%s: {scopes: [read]}}\nresponseType: json\nfunctionStack: []\n"
        "response: << auth.sub >>\n"
    )
    definitions = "---\n".join(api % (name, name) for name in ("own", "jwks", "keys"))
    settings = dedent("""\
        authentication:
          own: {type: jwt, secret: ''}
          jwks: {type: jwt, jwksUrl: https://login.example.org/jwks.json, issuer: i, audience: a, from: {cookie: t}}
          keys: {type: apiKey, keys: ['sha256:%s']}
        """) % ("0" * 64)
    test = (
        "  - name: %s\n    requests:\n"
        "      - {request: {path: /%s, auth: {sub: u1, scope: read}}, expect: {body: %s}}\n"
        "      - {request: {path: /%s, auth: {sub: u1}}, expect: {error: {status: 403}}}\n"
        "      - {request: {path: /%s}, expect: {status: 401, error: unauthorized}}\n"
    )
    tests = "tests:\n" + "".join(test % (name, name, "u1", name, name) for name in ("own", "jwks", "keys"))
    results = run(tmp_path, definitions, tests, {"streamstack.yaml": settings})
    assert [failures(each) for each in results] == ["", "", ""]
    wrong = run_one(tmp_path, HELLO, "request: {path: /hello, auth: {sub: u1}}")
    assert wrong.startswith("`auth` has no use: this endpoint has no `authentication`")


@pytest.mark.parametrize(
    ("body", "expected", "same"),
    [
        ("{a: {}}", "{a: {n: null}}", True),
        ("{n: 5}", "{n: '5'}", True),
        ("{n: 5, m: 1}", "{n: 5}", True),
        ("{n: [5]}", "{n: << value | length == 1 >>}", True),
        ("{n: 'true'}", "{n: true}", False),
        ("{n: 5}", "{n: << value.none.at >>}", False),
        ("{n: 5}", "'{\"n\":5}'", True),
        ("{n: 5}", "'{\"n\":6}'", False),
    ],
)
def test_bodies_of_calls_are_compared_alike(tmp_path: Path, body: str, expected: str, *, same: bool) -> None:
    """An upstream's `match.body` holds where the same `body` holds among the expected calls."""
    api = f"""\
method: GET
path: /ask
responseType: json
functionStack:
  - http.request: {{url: "http://one.example.org/", method: POST, json: {body}}}
response: {{}}
"""
    upstream = "match: {url: 'http://*'%s}, respond: {body: {}}"
    test = "upstreams: [{%s}]\nrequest: {path: /ask}\nexpect: {calls: [{url: 'http://*'%s}]}\n"
    written = f", body: {expected}"
    assert (run_one(tmp_path, api, test % (upstream % "", written)) == "") is same
    assert (run_one(tmp_path, api, test % (upstream % written, "")) == "") is same


DATABASE = """\
method: POST
path: /items
responseType: json
inputParameters: {name: {type: text}}
functionStack:
  - db.insert: {table: items, values: {name: << input.name >>}}
    as: item
response: << item >>
"""
SETUP = {
    "streamstack.yaml": "databases: {main: {url: 'postgresql://app@db.invalid/production', setup: schema.sql}}\n",
    "schema.sql": "CREATE TABLE items (id int GENERATED ALWAYS AS IDENTITY, name text, at date, tags jsonb);",
}


def test_database_is_the_tests_own(tmp_path: Path) -> None:
    """Each test has the tables of the setup files and its own rows, on no server that the settings name."""
    same = """\
    request: {method: POST, path: /items, body: {name: new}}
    rows: {items: [{name: first, at: 2030-01-02, tags: [a]}, {}]}
    sql: ALTER TABLE items ALTER name SET DEFAULT 'unnamed'
    expect:
      body: {id: 3, name: new}
      database:
        - sql: SELECT name, at, tags FROM items ORDER BY id
          rows: [{name: first, at: '2030-01-02', tags: [a]}, {name: %s}, {name: new}]
"""
    tests = "tests:\n" + "".join(
        f"  - name: {name}\n{same % row}" for name, row in (("a", "unnamed"), ("b", "unnamed"), ("c", "x"))
    )
    results = run(tmp_path, DATABASE, tests, SETUP)
    assert [failures(each) for each in results[:2]] == ["", ""]
    assert '`database`: `[1].name`: expected "x", received "unnamed"\n    - {"name":"first"' in failures(results[2])


def test_faults_of_a_database_are_the_tests(tmp_path: Path) -> None:
    """SQL that a database refuses fails the test that has it, with the database's own words."""
    faults = {
        "sql: SELEC": "syntax error",
        "rows: {missing: [{a: 1}]}": "missing",
        "expect: {database: {sql: SELECT nothing, rows: []}}": 'column "nothing" does not exist',
    }
    test = "  - name: number {}\n    request: {{method: POST, path: /items}}\n    {}\n"
    tests = "tests:\n" + "".join(test.format(*each) for each in enumerate(faults))
    results = run(tmp_path, DATABASE, tests, SETUP)
    assert [reason in failures(each) for reason, each in zip(faults.values(), results, strict=True)] == [True] * 3
    broken = run_one(
        tmp_path, DATABASE, "request: {method: POST, path: /items}", SETUP | {"schema.sql": "CREATE TABL x;"}
    )
    assert "schema.sql:1: syntax error" in broken


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("    sql: SELEC\n    request: {method: POST, path: /items}\n", "3:5"),
        ("    request: {method: POST, path: /items}\n    rows: {missing: [{a: 1}]}\n", "4:5"),
        ("    requests:\n      - request: {method: POST, path: /items}\n        sql: SELEC\n", "5:9"),
    ],
)
def test_faults_of_a_tests_own_sql_have_its_place(tmp_path: Path, key: str, place: str) -> None:
    """What a test puts into its database fails at its key, as the test's own."""
    (result,) = run(tmp_path, DATABASE, f"tests:\n  - name: it\n{key}", SETUP)
    (failure,) = result.failures
    assert f"{failure.mark.line}:{failure.mark.column}" == place
    assert failure.message.startswith(f"the test's own `{'rows' if 'rows' in key else 'sql'}` failed: ")


@pytest.mark.parametrize(
    ("path", "client_", "failure"),
    [
        ("/hello", "leaveAfter: 9", "the stream ended after 2 chunks: the client never left"),
        ("/ticks", "resumeAfter: 9", "the stream ended after 5 chunks: the client never left"),
        ("/ticks", "stopAfter: 9", "the stream ended after 5 chunks: the client never stopped it"),
        ("/hello", "leaveAfter: 2", ""),
        ("/ticks", "resumeAfter: 5", ""),
    ],
)
def test_clients_that_never_act_fail(tmp_path: Path, path: str, client_: str, failure: str) -> None:
    """A test whose stream is over before its client leaves or stops it has tested nothing of that."""
    assert run_one(tmp_path, API, f"request: {{path: {path}}}\nclient: {{{client_}}}\n") == failure


def test_differing_call_is_shown_once(tmp_path: Path) -> None:
    """A call that differs in its body or headers is shown with the difference, and not as an unexpected one too."""
    test = f"request: {{method: POST, path: /relay}}\n{SSE}expect: {{calls: {{url: 'https://*', %s}}}}\n"
    assert run_one(tmp_path, API, test % "count: 2, body: {say: Bye}") == (
        '`calls`: https://*: expected 2 calls, received 0; 1 other call: `body.say`: expected "Bye", received "Hello"\n'
        "      POST https://words.example.org/v1"
    )
    assert run_one(tmp_path, API, test % "headers: {X-A: b}") == (
        '`calls`: https://* was not called so: header `X-A`: expected "b", received none\n'
        "      POST https://words.example.org/v1"
    )


def test_call_without_an_upstream_is_explained_once(tmp_path: Path) -> None:
    """The failures that follow from it refer to the first one."""
    lines = run_one(tmp_path, API, "request: {method: POST, path: /relay}\nexpect: {status: 200, text: x}").split("\n")
    assert lines[0].startswith("no upstream of this test answers POST https://words.example.org/v1: add `- match: ")
    assert lines[1] == "`status`: expected 200, received 502: http-connection: see above"
    assert lines[2].endswith("step `forEach`: http-connection: see above")
    assert lines[3:] == ["`text` differs", '    - "x"', '    + ""']


STALLED = """\
  - http.stream: {url: https://words.example.org/, firstChunkTimeout: 0, idleTimeout: 0}
    as: words
  - forEach: {in: << words >>, as: word, do: [{stream: << word >>}]}
"""
ENDLESS = "streaming: {firstChunkTimeout: 0, idleTimeout: 0, maxDuration: 0, keepAlive: 0}\nfunctionStack:\n"


@pytest.mark.parametrize(
    ("stack", "expect", "failure"),
    [
        (STALLED, "{}", "nothing will happen any more: no timer is set, at 3630 s of virtual time; waiting are:"),
        (STALLED, "{}", "api.yaml:8:5: step `forEach`\n  the client had received 1 chunk"),
        ("  - repeat: {times: 200000, do: [{stream: x}]}\n", "{}", "the answer has no end in sight"),
        ("  - repeat: {times: 200000, do: [{stream: {content: x, delay: 1h}}]}\n", "{}", "no end in sight"),
        (
            "  - stream: x\n  - after: {do: [{throw: {code: late, message: too late}}]}\n",
            "{text: x}",
            "`after` failed: late: too late",
        ),
    ],
)
def test_hostile_tests_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: str, expect: str, failure: str
) -> None:
    """A test that would wait or run for ever fails, and says so; so does an error that no client sees."""
    monkeypatch.setattr(client, "MOST_CHUNKS", 1000)
    monkeypatch.setattr(runner, "STALL_LIMIT", 0.5)
    upstreams = "upstreams: [{url: 'https://words.example.org/', respond: {events: [a], stallAfter: {events: 1}}}]"
    definition = f"method: GET\npath: /h\nresponseType: streaming\n{ENDLESS}{stack}"
    assert failure in run_one(tmp_path, definition, f"request: {{path: /h}}\n{upstreams}\nexpect: {expect}")


def test_settings_of_an_environment(tmp_path: Path) -> None:
    """Settings that are read from the environment hold for one test: formats, names, and what is wrong with them."""
    settings = (
        "streaming: {format: '<< env.FORMAT | default(\"sse\") >>'}\n"
        "http: {maxBodySize: '<< env.SIZE | default(\"1MB\") >>'}\n"
    )
    test = "  - name: {}\n    request: {{path: /hello}}\n    env: {}\n    expect: {}\n"
    tests = "tests:\n" + "".join(
        test.format(*each)
        for each in (
            ("usual", "{}", "{headers: {Content-Type: text/event-stream; charset=utf-8}}"),
            ("other", "{FORMAT: text}", "{headers: {Content-Type: text/plain; charset=utf-8}, text: HelloWorld}"),
            ("wrong", "{SIZE: soon}", "{text: HelloWorld}"),
        )
    )
    results = run(tmp_path, HELLO, tests, {"streamstack.yaml": settings})
    assert [failures(each) for each in results[:2]] == ["", ""]
    assert "streamstack.yaml:2:" in failures(results[2])


def test_faults_of_the_server_fail_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nothing handles in a callback of the server fails the test, though the client sees nothing."""

    async def send(*arguments: Any, **named: Any) -> client.ReceivedAnswer:
        asyncio.get_running_loop().call_soon([].pop)
        return await client.send(*arguments, **named)

    monkeypatch.setattr(runner, "send", send)
    failure = run_one(tmp_path, HELLO, "request: {path: /hello}\nexpect: {text: HelloWorld}")
    assert failure.startswith("the server has a fault: Exception in callback")
    assert failure.endswith("IndexError('pop from empty list')")

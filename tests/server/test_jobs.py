"""Background jobs in the memory of a server, from the step that starts them to the bytes of their progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamstack.cli import main
from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from streamstack.runtime.plan import compile_project
from streamstack.server.endpoints import make_endpoints
from tests.server.authenticating import BY_SECRET, claims, project, signed
from tests.server.processes import serving
from tests.server.resuming import contents, events, until
from tests.server.serving import Reply, Server

#: An endpoint that starts any function, with any inputs; those who are known may start them by `/own`.
DEFINITIONS = """
method: POST
path: /jobs
responseType: json
inputParameters:
  function: {type: text, default: count}
  with: {type: object, default: {}}
  key: {type: text}
functionStack: &start
  - job.start:
      function: << input.function >>
      oneOf: [count, fail, large, endless, chain, opaque, twice]
      with: << input.with >>
      key: << input.key >>
      retry: {times: 1, delay: << RETRY >>, jitter: false}
    as: job
  - respond: {status: 202}
  - return: << job >>
---
method: POST
path: /own
authentication: jwt
responseType: json
inputParameters: {key: {type: text}}
functionStack:
  - job.start: {function: count, key: << input.key >>}
    as: job
  - return: << job >>
---
method: GET
path: /jobs/{id}
responseType: json
inputParameters: {id: {type: text, required: true}}
functionStack: [{job.status: << input.id >>, as: status}, {return: << status >>}]
---
method: DELETE
path: /jobs/{id}
responseType: json
inputParameters: {id: {type: text, required: true}}
functionStack: [{job.cancel: << input.id >>, as: found}, {return: << found >>}]
---
kind: function
name: count
inputParameters: {times: {type: integer, default: 3}, delay: {type: integer, default: 5}}
functionStack:
  - repeat: {times: << input.times >>, do: [{stream: {content: << loop.index >>, delay: << input.delay >>}}]}
  - return:
      times: << input.times >>
      by: << auth.sub | default(null) >>
      request: << request >>
      count: << stream.count >>
---
kind: function
name: fail
inputParameters: {code: {type: text, default: http-connection}}
functionStack: [{stream: 1}, {throw: {code: << input.code >>, message: no}}]
---
kind: function
name: large
functionStack:
  - repeat: {times: 300, do: [{stream: << "x" * 10000 >>}]}
  - return: << "y" * 100 >>
---
kind: function
name: endless
functionStack: [{stream: 1}, {wait: 1h}]
---
kind: function
name: chain
inputParameters: {n: {type: integer, default: 0}}
functionStack:
  - counter.add: {key: chain}
    as: links
  - job.start: {function: chain, with: {n: << links >>}}
    as: next
  - return: << next.id >>
---
kind: function
name: opaque
functionStack:
  - streams.take: {in: [1, 2], count: 1}
    as: taken
  - return: << taken >>
---
kind: function
name: twice
functionStack:
  - counter.add: {key: twice}
    as: n
  - stream: << n >>
  - throw: {code: http-connection, message: no}
    when: << n == 1 >>
  - return: << n >>
---
method: GET
path: /links
responseType: json
functionStack: [{counter.add: {key: chain, by: 0}, as: n}, {return: << n >>}]
"""


def definitions(retry: str = "20ms") -> str:
    """Return the definitions, with the pause before an attempt."""
    return DEFINITIONS.replace("<< RETRY >>", retry).replace(" &start", "")


@asynccontextmanager
async def served(folder: Path, jobs: str = "{}", retry: str = "20ms") -> AsyncIterator[Server]:
    """Serve the definitions with these settings of jobs."""
    async with project(folder, f"jobs: {jobs}\n{BY_SECRET}", definitions(retry)) as server:
        yield server


async def post(server: Server, path: str = "/jobs", token: str = "", **body: Any) -> Reply:
    """Ask with a JSON body."""
    headers = {"Authorization": token} if token else {}
    return await server.ask("POST", path, json.dumps(body).encode(), Content_Type="application/json", **headers)


async def start(server: Server, function: str = "count", key: str | None = None, inputs: Any = None) -> str:
    """Start a job; return its id."""
    body = {"function": function, "key": key, "with": inputs}
    reply = await post(server, **{name: value for name, value in body.items() if value is not None})
    assert reply.status == 202, reply.body
    return str(json.loads(reply.body)["id"])


async def progress(server: Server, name: str, after: str = "") -> list[dict[str, str]]:
    """Read the progress of a job to its end."""
    reply = await server.get(f"/_streams/{name}{after}")
    assert reply.complete
    return events(reply.body)


async def status(server: Server, name: str) -> Any:
    """Return what `job.status` gives."""
    return json.loads((await server.get(f"/jobs/{name}")).body)


async def test_a_job_goes_on_by_itself(tmp_path: Path) -> None:
    """Its id is answered at once; progress, result and state are there during the job and after, for a while."""
    async with served(tmp_path, "{keep: 1s}") as server:
        name = await start(server, inputs={"times": 20})
        assert (await status(server, name)) | {"id": "", "attempt": 0} == {
            "id": "",
            "function": "count",
            "state": "running",
            "attempt": 0,
            "result": None,
            "error": None,
        }
        found = await progress(server, name)
        assert [each["data"] for each in found[:-1]] == [str(n) for n in range(1, 21)]
        result: dict[str, Any] = {"times": 20, "by": None, "request": {}, "count": 20}
        assert (found[-1]["event"], json.loads(found[-1]["data"])) == ("done", result)
        assert [each["id"] for each in found] == [f"{name}/{n}" for n in range(21)]
        assert await progress(server, name, "?after=17") == found[18:]
        assert (await server.get(f"/_streams/{name}", Last_Event_ID=f"{name}/20")).status == 204
        ended = await status(server, name)
        assert (ended["state"], ended["attempt"], ended["result"]) == ("completed", 1, result)
        assert json.loads((await server.ask("DELETE", f"/jobs/{name}")).body) is False
        assert (await server.ask("DELETE", f"/_streams/{name}")).status == 204
        await asyncio.sleep(1.1)
        assert (await server.get(f"/_streams/{name}")).status == 404
        assert await status(server, name) is None


async def test_jobs_wait_for_a_place(tmp_path: Path) -> None:
    """More than `concurrency` wait; the head of their streams is answered; more than `maxQueued` are refused."""
    async with served(tmp_path, "{concurrency: 1, maxQueued: 2}") as server:
        first = await start(server, "endless")
        await until(lambda: server.service.jobs.busy)
        waiting, cancelled = await start(server), await start(server)
        refused = await post(server)
        assert (refused.status, json.loads(refused.body)["code"]) == (503, "unavailable")
        assert (await status(server, waiting))["state"] == "waiting"
        reader = await server.connect()
        reader.ask(f"/_streams/{waiting}", extra="Connection: close\r\n")
        assert b" 200 " in await reader.head()
        assert json.loads((await server.ask("DELETE", f"/jobs/{cancelled}")).body) is True
        assert json.loads((await progress(server, cancelled))[-1]["data"])["code"] == "stopped"
        assert (await server.ask("DELETE", f"/_streams/{first}")).status == 204
        assert contents(await reader.rest())[-1] == "done"
        states = [(await status(server, each))["state"] for each in (first, waiting, cancelled)]
        assert states == ["cancelled", "completed", "cancelled"]


async def test_a_key_is_its_callers(tmp_path: Path) -> None:
    """One caller's key starts one job of a function; another's starts another, which only that one can see."""
    async with served(tmp_path) as server:
        ann, bob = (f"Bearer {signed(claims(sub=name))}" for name in ("ann", "bob"))
        names = [json.loads((await post(server, "/own", token, key="a")).body)["id"] for token in (ann, ann, bob)]
        assert names[0] == names[1] != names[2]
        path = f"/_streams/{names[0]}"
        for method in ("GET", "DELETE", "HEAD"):
            assert [
                (await server.ask(method, path, Authorization=bob)).status,
                (await server.ask(method, path)).status,
            ] == [404, 404]
        found = events((await server.get(path, Authorization=ann)).body)
        assert json.loads(found[-1]["data"])["by"] == "ann"
        assert await start(server, key="k") == await start(server, key="k", inputs={"times": 1})
        assert await start(server, "twice", key="k") != await start(server, key="k")


@pytest.mark.parametrize(
    ("function", "inputs", "told"),
    [
        ("twice", {}, ["1", "restarted", "2", "done"]),
        ("fail", {}, ["1", "restarted", "1", "error"]),
        ("fail", {"code": "limit-reached"}, ["1", "error"]),  # trying again can't mend it
        ("opaque", {}, ["error"]),
    ],
)
async def test_an_error_is_followed_by_another_attempt(
    tmp_path: Path, function: str, inputs: dict[str, Any], told: list[str]
) -> None:
    """In the same stream, which says so; the error that remains is its end, and what `job.status` gives."""
    async with served(tmp_path) as server:
        name = await start(server, function, inputs=inputs)
        found = await progress(server, name)
        assert [each.get("event") or each["data"] for each in found] == told
        end = await status(server, name)
        assert end["state"] == ("completed" if told[-1] == "done" else "failed")
        assert end["attempt"] == 1 + ("restarted" in told)
        if told[-1] == "error":
            data = json.loads(found[-1]["data"])
            assert end["error"] == {"code": data["code"], "message": data["message"]}


async def test_a_job_is_cancelled_while_it_waits_for_its_next_attempt(tmp_path: Path) -> None:
    """And meanwhile it holds no place."""
    async with served(tmp_path, "{concurrency: 1}", retry="1h") as server:
        name = await start(server, "fail")
        assert contents((await server.get(f"/_streams/{await start(server)}")).body)[-1] == "done"
        assert (await status(server, name))["state"] == "running"
        assert (await server.ask("DELETE", f"/_streams/{name}")).status == 204
        assert contents((await server.get(f"/_streams/{name}")).body) == ["1", "error"]
        assert (await status(server, name))["state"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"with": {"times": "many"}}, "invalid-input"),  # the client chose it
        ({"with": {"other": 1}}, "invalid-input"),
        ({"with": {"times": 10**30}}, "invalid-input"),
        ({"function": "unknown"}, "template"),
        ({"function": "fail", "with": {"code": "x" * 2000}}, "limit-reached"),
    ],
)
async def test_inputs_are_checked_when_the_job_starts(tmp_path: Path, body: dict[str, Any], code: str) -> None:
    """What does not fit, and what is too large to be stored, fails in the step, and starts nothing."""
    async with served(tmp_path, "{maxSize: 1KB}") as server:
        reply = await post(server, **body)
        assert (reply.status, json.loads(reply.body)["code"]) == (400 if code == "invalid-input" else 500, code)
        assert not server.service.jobs.busy


async def test_a_slow_reader_does_not_hold_a_job_back(tmp_path: Path) -> None:
    """It gets a gap for what it has missed, and so does one that comes late; the result of a job is bounded, too."""
    async with served(tmp_path, "{maxProgress: 200KB, maxSize: 1KB}") as server:
        slow = await server.connect(limit=1 << 16)
        name = await start(server, "large")
        slow.ask(f"/_streams/{name}", extra="Connection: close\r\n")
        assert b" 200 " in await slow.head()
        await until(lambda: not server.service.jobs.busy)
        assert (await status(server, name))["state"] == "completed"
        assert server.service.streams.size < 300_000
        for found in (events(await slow.rest()), await progress(server, name)):
            named = [each["event"] for each in found if "event" in each]
            assert named == ["gap", "done"]
            assert found[-2]["data"] == "x" * 10000
            assert found[-1]["data"] == "y" * 100


async def test_jobs_that_start_jobs_come_to_an_end(tmp_path: Path) -> None:
    """The depth of jobs that start one another is bounded, as that of calls is."""
    async with served(tmp_path) as server:
        await start(server, "chain")
        await until(lambda: not server.service.jobs.busy)
        assert json.loads((await server.get("/links")).body) == 61


async def test_a_job_has_a_longest_time(tmp_path: Path) -> None:
    """One that never returns ends with `timeout`."""
    async with served(tmp_path, "{maxDuration: 200ms}") as server:
        name = await start(server, "endless")
        assert json.loads((await progress(server, name))[-1]["data"])["code"] == "timeout"
        assert (await status(server, name))["state"] == "failed"


async def test_jobs_end_with_their_server(tmp_path: Path) -> None:
    """Readers of those that run and of those that wait get `producer-lost`, once `shutdownTimeout` is over."""
    (tmp_path / "streamstack.yaml").write_text("server: {shutdownTimeout: 300ms}\njobs: {concurrency: 1}\n")
    text = definitions().replace("authentication: jwt\n", "")
    async with serving(tmp_path, jobs=text) as server:
        names = []
        for body in ({"function": "endless"}, {"function": "count"}):
            reply = await server.ask("POST", "/jobs", json.dumps(body).encode())
            names.append(json.loads(reply.body)["id"])
        readers = [await server.connect() for _ in names]
        for name, each in zip(names, readers, strict=True):
            each.ask(f"/_streams/{name}", extra="Connection: close\r\n")
            assert b" 200 " in await each.head()
        await server.stop()
        for each in readers:
            end = events(await each.rest())[-1]
            assert (end["event"], json.loads(end["data"])["code"]) == ("error", "producer-lost")
            each.close()


async def test_a_reload_leaves_running_jobs_alone(tmp_path: Path) -> None:
    """They end as they began; those that begin after it run the functions as they are by then, if there are any."""
    async with served(tmp_path, "{concurrency: 1}") as server:
        running = await start(server, inputs={"times": 20})
        await until(lambda: server.service.jobs.busy)
        waiting, gone = await start(server), await start(server, "fail")
        text = definitions().replace("      times: << input.times >>\n", "      new: true\n")
        text = text.replace("name: fail\n", "name: other\n").replace("[count, fail,", "[count,")
        (tmp_path / "endpoints.yaml").write_text(text)
        checked = read_project(tmp_path, REGISTRY, {"JWT_SECRET": "x" * 32})
        server.service.replace(make_endpoints(compile_project(checked.project), checked.settings, dev=False))
        ends = [json.loads((await progress(server, each))[-1]["data"]) for each in (running, waiting, gone)]
        assert ("times" in ends[0], ends[1].get("new"), ends[2]["code"]) == (True, True, "template")


def test_call_waits_for_the_jobs_that_it_starts(tmp_path: Path) -> None:
    """`streamstack call` serves a project for one request: what that has started ends before the command does."""
    (tmp_path / "jobs.yaml").write_text(definitions("100ms").replace("authentication: jwt\n", ""))
    result = CliRunner().invoke(main, ["call", "POST", "/jobs", "-i", "function=twice", "--dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "202 Accepted" in result.output
    assert "job-retry" in result.output
    assert "producer-lost" not in result.output

"""Jobs that several servers share by their Redis: one queue, and others that go on where one has died."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from streamstack.connections import redis_jobs
from streamstack.connections.jobs import STRIDE, Job
from streamstack.connections.redis import Redis as Redis_
from streamstack.connections.redis_jobs import RedisJobs
from streamstack.connections.serialization import dumps
from streamstack.connections.stream_store import StreamStore
from streamstack.language.environment import parse_redis
from streamstack.language.settings import Resume
from streamstack.server import jobs
from streamstack.server.resume.log import Origin
from streamstack.server.resume.store import write_origin
from tests.redis import RedisServer
from tests.server.authenticating import BY_SECRET, claims, project, signed
from tests.server.processes import Process, serving, until
from tests.server.resuming import events
from tests.server.serving import Server

#: A function that counts its attempts in Redis, and an endpoint that starts it.
DEFINITIONS = """
kind: function
name: work
inputParameters: {times: {type: integer, default: 3}, delay: {type: decimal, default: 20}}
functionStack:
  - counter.add: {key: begun}
    as: begun
  - repeat:
      times: << input.times >>
      do: [{stream: {content: "<< [begun, loop.index] >>", delay: "<< input.delay >>"}}]
  - counter.add: {key: ended}
  - return: << begun >>
---
method: POST
path: /jobs
responseType: json
inputParameters:
  times: {type: integer, default: 3}
  delay: {type: decimal, default: 20}
  key: {type: text}
  onLost: {type: text, default: restart}
functionStack:
  - if:
      condition: << input.onLost == "fail" >>
      then:
        - job.start: {function: work, with: {times: << input.times >>, delay: << input.delay >>}, onLost: fail}
          as: job
      else:
        - job.start: {function: work, with: {times: << input.times >>, delay: << input.delay >>}, key: << input.key >>}
          as: job
  - return: << job >>
---
method: GET
path: /jobs/{id}
responseType: json
inputParameters: {id: {type: text, required: true}}
functionStack: [{job.status: << input.id >>, as: status}, {return: << status >>}]
---
method: GET
path: /counts
responseType: json
functionStack:
  - counter.add: {key: begun, by: 0}
    as: begun
  - counter.add: {key: ended, by: 0}
    as: ended
  - return: << [begun, ended] >>
"""


async def ask(server: Server | Process, method: str, path: str, body: Any = None) -> Any:
    """Return the JSON that is answered."""
    data = b"" if body is None else json.dumps(body).encode()
    if isinstance(server, Process):
        return json.loads((await server.ask(method, path, data)).body)
    return json.loads((await server.ask(method, path, data, Content_Type="application/json")).body)


async def start(server: Server | Process, **inputs: Any) -> str:
    """Start a job; return its id."""
    return str((await ask(server, "POST", "/jobs", inputs))["id"])


def settings(url: str, jobs: str = "{}", more: str = "") -> str:
    """Return the text of streamstack.yaml."""
    return f"state: {{url: '{url}'}}\njobs: {jobs}\n{more}"


async def servers(
    stack: AsyncExitStack, folder: Path, url: str, jobs: str = "{concurrency: 2}", count: int = 2
) -> list[Server]:
    """Serve the project some times in this process."""
    found = []
    for name in range(count):
        (folder / str(name)).mkdir()
        found.append(await stack.enter_async_context(project(folder / str(name), settings(url, jobs), DEFINITIONS)))
    return found


async def processes(
    stack: AsyncExitStack, folder: Path, url: str, jobs: str = "{concurrency: 2}", count: int = 2
) -> list[Process]:
    """Serve the project in some processes."""
    text = settings(url, jobs, "server: {shutdownTimeout: 300ms}\n")
    folders = [folder / str(number) for number in range(count)]
    for each in folders:
        each.mkdir()
    contexts = [serving(each, streamstack=text, jobs=DEFINITIONS) for each in folders]
    return list(await asyncio.gather(*map(stack.enter_async_context, contexts)))


def expire_lease(url: str, job: str) -> None:
    """Have the lease of the process that runs a job run out now."""
    with Redis.from_url(url) as redis:
        worker = redis.hget("streamstack:jobs-running:", job)
        assert worker, "it does not run"
        redis.delete(b"streamstack:stream-worker:" + worker)


def told(body: bytes) -> list[Any]:
    """Return the data of chunks, and the names of other events."""
    return [each.get("event") or json.loads(each["data"]) for each in events(body)]


async def test_any_server_reads_and_runs_a_job(tmp_path: Path, redis_url: str) -> None:
    """Twenty jobs of two servers run once each, at either, and either has their progress, state and result."""
    async with AsyncExitStack() as stack:
        one, other = await servers(stack, tmp_path, redis_url)
        names = await asyncio.gather(*(start(each) for each in (one, other) for _ in range(10)))
        assert len(set(names)) == 20
        bodies = await asyncio.gather(*(other.get(f"/_streams/{name}") for name in names))
        for name, reply in zip(names, bodies, strict=True):
            assert reply.complete
            *chunks, end = told(reply.body)
            assert [index for _, index in chunks] == [1, 2, 3]
            assert end == "done"
            status = await ask(one, "GET", f"/jobs/{name}")
            assert (status["state"], status["attempt"], status["result"]) == ("completed", 1, chunks[0][0])
        assert await ask(one, "GET", "/counts") == [20, 20]
        await until(lambda: not (one.service.jobs.busy or other.service.jobs.busy))
        with Redis.from_url(redis_url) as redis:
            assert redis.exists("streamstack:jobs-running:", "streamstack:jobs-waiting:") == 0
            assert all(redis.ttl(f"streamstack:job:{name}") > 0 for name in names)


async def test_one_key_starts_one_job_wherever(tmp_path: Path, redis_url: str) -> None:
    """Of many that start at once at two servers one runs; its id is returned as long as it is stored."""
    async with AsyncExitStack() as stack:
        both = await servers(stack, tmp_path, redis_url)
        names = await asyncio.gather(*(start(each, key="a") for each in both for _ in range(10)))
        assert len(set(names)) == 1
        await both[0].get(f"/_streams/{names[0]}")
        assert await start(both[1], key="a") == names[0]
        assert await start(both[1], key="b") != names[0]
        assert (await ask(both[0], "GET", "/counts"))[0] == 2


async def test_a_job_belongs_to_its_caller_at_every_server(tmp_path: Path, redis_url: str) -> None:
    """Its claims are those of the run, wherever it runs; no other caller can read or cancel it."""
    definitions = DEFINITIONS.replace("path: /jobs\n", "path: /jobs\nauthentication: jwt\n")
    definitions = definitions.replace("return: << begun >>", "return: << auth.sub >>")
    async with AsyncExitStack() as stack:
        both = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            text = settings(redis_url, more=BY_SECRET)
            both.append(await stack.enter_async_context(project(tmp_path / name, text, definitions)))
        ann, bob = (f"Bearer {signed(claims(sub=name, roles=['x']))}" for name in ("ann", "bob"))
        reply = await both[0].ask("POST", "/jobs", b"{}", Content_Type="application/json", Authorization=ann)
        path = f"/_streams/{json.loads(reply.body)['id']}"
        for each in both:
            assert [(await each.ask(method, path, Authorization=bob)).status for method in ("GET", "DELETE")] == [
                404,
                404,
            ]
            found = events((await each.get(path, Authorization=ann)).body)
            assert (found[-1]["event"], found[-1]["data"]) == ("done", "ann")


async def test_waiting_jobs_are_counted_cancelled_and_bounded(tmp_path: Path, redis_url: str) -> None:
    """Of jobs that wait, the head of the stream is answered; any server cancels them; too many are refused."""
    async with AsyncExitStack() as stack:
        one, other = await servers(stack, tmp_path, redis_url, "{concurrency: 1, maxQueued: 2}")
        running = [await start(one, times=1000) for _ in range(2)]
        for name in running:
            await until_state(one, name, "running")
        waiting = [await start(other) for _ in range(2)]
        assert (await ask(one, "GET", f"/jobs/{waiting[0]}"))["state"] == "waiting"
        assert (await one.ask("HEAD", f"/_streams/{waiting[0]}")).status == 200
        refused = await one.ask("POST", "/jobs", b"{}", Content_Type="application/json")
        assert (refused.status, json.loads(refused.body)["code"]) == (503, "unavailable")
        assert (await one.ask("DELETE", f"/_streams/{waiting[0]}")).status == 204
        assert told((await other.get(f"/_streams/{waiting[0]}")).body) == ["error"]
        for name in running:  # one of them runs at the other server
            assert (await one.ask("DELETE", f"/_streams/{name}")).status == 204
        assert told((await other.get(f"/_streams/{waiting[1]}")).body)[-1] == "done"
        assert (await ask(one, "GET", f"/jobs/{running[0]}"))["state"] == "cancelled"


async def until_state(server: Server | Process, name: str, state: str) -> None:
    """Wait until a job has a state."""
    for _ in range(300):
        if (await ask(server, "GET", f"/jobs/{name}"))["state"] == state:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(state)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers look at the queue often, and take jobs over soon."""
    monkeypatch.setattr(redis_jobs, "GRACE", 0.1)
    monkeypatch.setattr(jobs, "_INTERVAL", 0.05)


async def test_a_killed_server_loses_no_job(tmp_path: Path, redis_url: str) -> None:
    """Another one runs them again, exactly one; a reader gets `restarted`, and no chunk twice or missing."""
    async with AsyncExitStack() as stack:
        servers = await processes(stack, tmp_path, redis_url, count=3)
        name = await start(servers[0], times=20, delay=50)
        await until(lambda: any("job-started" in line for each in servers for line in each.lines))
        (victim,) = (each for each in servers if "job-started" in "".join(each.lines))
        one, other = (each for each in servers if each is not victim)
        follower = await one.connect()
        follower.ask(f"/_streams/{name}", extra="Connection: close\r\n")
        assert b" 200 " in await follower.head()
        body = await follower.chunk()
        victim.process.kill()
        expire_lease(redis_url, name)
        body += await asyncio.wait_for(follower.rest(), 30)
        follower.close()
        chunks = told(body)
        cut = chunks.index("restarted")
        assert chunks[:cut] == [[1, n] for n in range(1, cut + 1)]
        assert chunks[cut + 1 :] == [[2, n] for n in range(1, 21)] + ["done"]
        assert json.loads(events(body)[cut]["data"]) == {"attempt": 2}
        numbers = [int(each["id"].partition("/")[2]) for each in events(body)]
        assert numbers == [*range(cut), *range(STRIDE, STRIDE + 22)]
        assert await ask(other, "GET", "/counts") == [2, 1]
        assert sum("job-started" in line for each in (one, other) for line in each.lines) == 1
        # One that had chunks which the store never got comes back: the restart tells it so.
        late = await other.ask("GET", f"/_streams/{name}?after={cut + 7}")
        assert told(late.body)[0] == "restarted"


async def test_a_server_that_stops_hands_its_jobs_back(tmp_path: Path, redis_url: str) -> None:
    """After `shutdownTimeout` they run at another one, at once; one that must not run twice ends as lost."""
    async with AsyncExitStack() as stack:
        (one,) = await processes(stack, tmp_path, redis_url, count=1)
        name, once = await start(one, times=400, delay=5), await start(one, times=400, onLost="fail")
        await until(lambda: sum("job-started" in line for line in one.lines) == 2)
        client = await one.connect()
        client.ask(f"/_streams/{name}", extra="Connection: close\r\n")
        assert b" 200 " in await client.head()
        await client.chunk()
        (tmp_path / "b").mkdir()
        other = await stack.enter_async_context(project(tmp_path / "b", settings(redis_url), DEFINITIONS))
        await one.stop()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):  # it was cut: the client comes back
            await client.rest()
        client.close()
        chunks = told((await other.get(f"/_streams/{name}")).body)
        cut = chunks.index("restarted")
        assert chunks[:cut] == [[chunks[0][0], n] for n in range(1, cut + 1)]
        assert chunks[cut + 1 :] == [[3, n] for n in range(1, 401)] + ["done"]
        status = await ask(other, "GET", f"/jobs/{once}")
        assert (status["state"], status["error"]["code"]) == ("failed", "producer-lost")
        assert json.loads(events((await other.get(f"/_streams/{once}")).body)[-1]["data"])["code"] == "producer-lost"


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_was_only_paused_lets_go(tmp_path: Path, redis_url: str) -> None:
    """Its job was taken over: it stops, its own readers come back, and nothing it still says is in the stream."""
    async with AsyncExitStack() as stack:
        both = await servers(stack, tmp_path, redis_url, "{concurrency: 1}")
        name = await start(both[0], times=300, delay=5)
        await until_state(both[0], name, "running")
        (old,) = (each for each in both if each.service.jobs.busy)
        (new,) = (each for each in both if each is not old)
        client = await old.connect()
        client.ask(f"/_streams/{name}", extra="Connection: close\r\n")
        assert b" 200 " in await client.head()
        expire_lease(redis_url, name)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.rest()
        body = (await new.get(f"/_streams/{name}")).body
        assert not old.service.jobs.busy
        chunks = told(body)
        cut = chunks.index("restarted")
        assert chunks[:cut] == [[1, n] for n in range(1, cut + 1)]
        assert chunks[cut + 1 :] == [[2, n] for n in range(1, 301)] + ["done"]
        assert (await old.get(f"/_streams/{name}")).body == body
        assert await ask(old, "GET", "/counts") == [2, 1]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("empty", [True, False])
async def test_a_job_outlives_redis(tmp_path: Path, *, empty: bool) -> None:
    """While it is away the job goes on; back with or without its data, it has the result and the rest of the stream."""
    redis = RedisServer(tmp_path / "redis").start()
    async with AsyncExitStack() as stack:
        stack.callback(redis.stop)
        (one,) = await servers(stack, tmp_path, redis.url, count=1)
        name = await start(one, times=100, delay=15)
        await until_state(one, name, "running")
        redis.kill()
        await asyncio.sleep(0.1)
        redis.start(empty=empty)
        chunks = told((await one.get(f"/_streams/{name}")).body)
        assert chunks == [[1, n] for n in range(1, 101)] + ["done"]
        await until_state(one, name, "completed")
        (tmp_path / "late").mkdir()
        late = await stack.enter_async_context(project(tmp_path / "late", settings(redis.url), DEFINITIONS))
        assert told((await late.get(f"/_streams/{name}")).body)[-1] == "done"


@asynccontextmanager
async def queues(url: str, count: int, *, alive: bool = False) -> AsyncIterator[list[RedisJobs]]:
    """The queue, as some processes see it; without leases unless they are alive."""
    redis = Redis_(parse_redis(url))
    stores = [StreamStore(redis, f"worker-{n}") for n in range(count)]
    try:
        for each in stores if alive else ():
            await each.renew()
        yield [RedisJobs(redis, each, 100, 60, 60) for each in stores]
    finally:
        await redis.aclose()


@pytest.mark.usefixtures("impatient")
async def test_each_job_is_claimed_once(redis_url: str) -> None:
    """Of ten processes that claim at once one has each job; so it is with the jobs of processes that died."""
    async with queues(redis_url, 30, alive=True) as found:
        names = [await found[0].add(Job(f"job-{n}", "", "work", b""), {"next": 0, "worker": ""}) for n in range(20)]
        for losses, processes in enumerate((found[:10], found[10:20], found[20:])):
            if losses:
                with Redis.from_url(redis_url) as redis:
                    redis.delete(*(f"streamstack:stream-worker:worker-{10 * losses - n}" for n in range(1, 11)))
                for _ in range(2):
                    for each in processes:
                        await each.check([])
                    await asyncio.sleep(0.15)
            claimed = await asyncio.gather(*(each.claim() for each in processes for _ in range(4)))
            assert Counter(job.id for job in claimed if job is not None) == Counter(names)
            assert {(job.claims, job.losses) for job in claimed if job is not None} == {(losses + 1, losses)}


@pytest.mark.usefixtures("impatient")
async def test_a_claim_with_an_older_number_counts_for_nothing(redis_url: str) -> None:
    """A process whose job another one has claimed can neither end it nor hand it back nor hold it."""
    async with queues(redis_url, 2) as (one, other):
        await one.add(Job("job", "", "work", b""), {"next": 0, "worker": ""})
        old = await one.claim()
        assert old is not None
        for _ in range(2):
            await other.check([])
            await asyncio.sleep(0.15)
        new = await other.claim()
        assert new is not None
        old.state = "completed"
        assert (await one.settle(old), await one.release(old), await one.check([old])) == (False, False, ["job"])
        found = await other.find("job")
        assert found is not None
        assert (found.state, found.claims, await other.check([new])) == ("running", 2, [])
        assert await other.release(new)
        assert await one.count() == 1


@pytest.mark.usefixtures("impatient")
async def test_what_becomes_of_jobs_that_can_not_go_on(tmp_path: Path, redis_url: str) -> None:
    """A function that is gone, a job that killed too many servers, one that is cancelled meanwhile: an error each."""
    async with queues(redis_url, 1) as (dead,):
        arguments = dumps({"times": 1})
        origin = write_origin(Origin("", "", "", "sse", "", Resume(), job=True))
        fields: dict[str, bytes | str | int] = {
            "next": 0,
            "worker": "",
            "origin": origin,
            "key": "",
            "status": 200,
            "lines": b"",
        }
        jobs = {
            "template": Job("A" * 22, "a", "gone", arguments),
            "producer-lost": Job("B" * 22, "b", "work", arguments),
            "stopped": Job("C" * 22, "c", "work", arguments),
            "": Job("D" * 22, "d", "work", arguments),
        }
        for job in jobs.values():
            await dead.add(job, fields)
            assert await dead.claim() is not None
        with Redis.from_url(redis_url) as redis:
            redis.hset("streamstack:job:" + "B" * 22, "losses", 9)
        assert await dead.cancel("C" * 22) == "worker-0"
        async with AsyncExitStack() as stack:
            (one,) = await servers(stack, tmp_path, redis_url, count=1)
            for code, job in jobs.items():
                reply = await one.get(f"/_streams/{job.id}")
                end = events(reply.body)[-1]
                assert end["event"] == ("error" if code else "done")
                assert not code or json.loads(end["data"])["code"] == code
                status = await ask(one, "GET", f"/jobs/{job.id}")
                assert status["state"] == {"": "completed", "stopped": "cancelled"}.get(code, "failed")

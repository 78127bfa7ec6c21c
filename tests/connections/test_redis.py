from __future__ import annotations

import asyncio
import random
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from redis.exceptions import ConnectionError as LostError
from structlog.testing import capture_logs

from streamstack.connections.redis import ANSWER, PATIENCE, Client, Redis, Script, execute_command
from streamstack.errors import RunError
from streamstack.language.environment import RedisUrl, parse_redis
from tests.certificates import certified
from tests.redis import RedisServer, free_port


async def get(store: Redis, key: bytes = b"k", *, again: bool = False) -> bytes | None:
    """Ask for a value."""
    value: bytes | None = await store.run(lambda client: execute_command(client, "GET", key), again=again)
    return value


async def put(store: Redis, value: bytes, key: bytes = b"k") -> None:
    """Keep a value."""
    await store.run(lambda client: execute_command(client, "SET", key, value))


async def test_it_is_reached_by_port_and_by_socket(own_redis: RedisServer) -> None:
    """Both are the same Redis; databases are apart."""
    one = Redis(parse_redis(own_redis.url))
    other = Redis(parse_redis(f"unix://{own_redis.socket}"))
    apart = Redis(parse_redis(f"redis://127.0.0.1:{own_redis.port}/3"))
    await put(one, b"v")
    assert await get(other) == b"v"
    assert await get(apart) is None
    for each in (one, other, apart):
        await each.aclose()


async def test_a_connection_that_was_closed_unheard_is_made_anew(own_redis: RedisServer) -> None:
    """An event loop may report it only when it is written to, and by an error of its own (uvloop's RuntimeError)."""
    store = Redis(parse_redis(own_redis.url))
    await put(store, b"v")
    asked = 0

    async def closed(client: Client) -> bytes | None:
        nonlocal asked
        asked += 1
        pool: Any = client.connection_pool
        connection = await pool.get_connection()
        writer = attrgetter("_writer")(connection)
        await pool.release(connection)
        if asked == 1:

            def refuse(data: object) -> None:
                raise RuntimeError("the handler is closed")

            writer.writelines = refuse
        value: bytes | None = await execute_command(client, "GET", b"k")
        return value

    assert await store.run(closed, again=True) == b"v"
    assert asked == 2
    asked = 0
    with pytest.raises(RunError) as refused:
        await store.run(closed)
    assert refused.value.code == "state-unreachable"
    await store.aclose()


def test_keys_have_the_project_s_prefix() -> None:
    """Two projects of one Redis do not meet."""
    assert Redis(RedisUrl()).key("cache", b'"a"') == b'streamstack:cache:"a"'
    assert Redis(RedisUrl(), "shop").key("cache", "ü") == "streamstack:shop:cache:ü".encode()


async def test_a_script_is_known_again_after_a_restart(own_redis: RedisServer) -> None:
    """A Redis that never saw it is given its text."""
    store = Redis(parse_redis(own_redis.url))
    script = Script("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[2])}")
    assert await store.call(script, [b"a", b"n"], [5]) == [b"a", b"5", 1]
    assert await store.call(script, [b"a", b"n"], [5]) == [b"a", b"5", 2]
    own_redis.kill()
    own_redis.start(empty=True)
    assert await store.call(script, [b"a", b"n"], [5]) == [b"a", b"5", 1]
    await store.aclose()


async def test_out_of_reach_from_the_beginning_is_told_at_once() -> None:
    """Nothing listens: 503, with the place, and no waiting."""
    store = Redis(RedisUrl("127.0.0.1", free_port(), password="hush"))
    began = monotonic()
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(RunError) as raised:
                await get(store)
    assert monotonic() - began < PATIENCE
    error = raised.value
    assert (error.code, error.status) == ("state-unreachable", 503)
    assert f"the state at {store.url} is out of reach" in error.message
    assert error.public == "The server could not complete this request."
    assert [each["event"] for each in logs] == ["state-unreachable"], "told once"
    assert "hush" not in f"{error.message}{logs}"
    await store.aclose()


async def test_what_comes_while_it_is_started_anew_is_not_lost(own_redis: RedisServer) -> None:
    """A command after a kill waits for the start, and gets what was stored; all connections are made again."""
    store = Redis(parse_redis(own_redis.url))
    await asyncio.gather(*(put(store, b"v") for _ in range(20)))
    own_redis.kill()
    asked = [asyncio.create_task(get(store)) for _ in range(100)]
    await asyncio.sleep(0.05)
    await asyncio.to_thread(own_redis.start)
    assert await asyncio.gather(*asked) == [b"v"] * 100
    assert await asyncio.gather(*(get(store) for _ in range(50))) == [b"v"] * 50
    await store.aclose()


async def test_it_is_found_again_however_long_it_was_away(own_redis: RedisServer) -> None:
    """A command meanwhile fails at once, after the first; the next one after the start is served."""
    store = Redis(parse_redis(own_redis.url))
    await put(store, b"v")
    own_redis.kill()
    with capture_logs() as logs:
        with pytest.raises(RunError, match="out of reach"):
            await get(store)
        began = monotonic()
        refused = await asyncio.gather(*(get(store) for _ in range(50)), return_exceptions=True)
        assert {getattr(each, "code", "") for each in refused} == {"state-unreachable"}
        assert monotonic() - began < PATIENCE
        await asyncio.to_thread(own_redis.start)
        assert await asyncio.gather(*(get(store) for _ in range(50))) == [b"v"] * 50
    assert [each["event"] for each in logs] == ["state-unreachable", "state-reached"]
    await store.aclose()


async def test_work_that_may_be_repeated_survives_a_lost_connection(own_redis: RedisServer) -> None:
    """A command under way when Redis is killed is sent again, where the caller allows it; else it is an error."""
    store = Redis(parse_redis(own_redis.url))
    wait = [asyncio.create_task(store.run(_block, again=again)) for again in (True, False)]
    await asyncio.sleep(0.1)
    own_redis.kill()
    await asyncio.to_thread(own_redis.start)
    assert await wait[0] is None
    with pytest.raises(RunError) as raised:
        await wait[1]
    assert raised.value.code == "state-unreachable"
    await store.aclose()


async def _block(client: object) -> object:
    return await execute_command(client, "BLPOP", "nothing", 0.7)  # type: ignore[arg-type]  # the client of the test's store


async def test_one_that_does_not_answer_is_given_up(own_redis: RedisServer) -> None:
    """A Redis that hangs takes one caller's time, and not everybody's; when it goes on, it serves."""
    store = Redis(parse_redis(own_redis.url))
    await put(store, b"v")
    own_redis.pause()
    try:
        with pytest.raises(RunError, match="does not answer in time"):
            await get(store)
        began = monotonic()
        for _ in range(10):
            with pytest.raises(RunError, match="silent a moment ago"):
                await get(store)
        assert monotonic() - began < 1
        await asyncio.sleep(0.6)
        with pytest.raises(RunError, match="does not answer in time"):
            await get(store)
    finally:
        own_redis.resume()
    await asyncio.sleep(0.6)
    assert await get(store) == b"v"
    await store.aclose()


async def test_who_listens_may_wait_for_long(own_redis: RedisServer) -> None:
    """Commands that wait for what comes have connections of their own, and no time-out."""
    store = Redis(parse_redis(own_redis.url))
    listener = store.listener()
    waiting = asyncio.create_task(execute_command(listener, "BLPOP", "list", 10))
    await asyncio.sleep(ANSWER + 0.3)
    assert not waiting.done()
    await store.run(lambda client: execute_command(client, "RPUSH", "list", "item"))
    assert await waiting == (b"list", b"item")
    again = asyncio.create_task(execute_command(listener, "BLPOP", "list", 10))
    await asyncio.sleep(0.1)
    own_redis.kill()
    with pytest.raises(LostError) as raised:
        await again
    assert store.fault(raised.value).code == "state-unreachable"
    await listener.aclose()
    await store.aclose()


async def test_scripts_of_many_go_together(own_redis: RedisServer) -> None:
    """Each gets its own answer, those included that are refused or cancelled; few packets carry them."""
    store = Redis(parse_redis(own_redis.url))
    echo = Script("if ARGV[1] == 'bad' then return redis.error_reply('ERR bad') end return ARGV[1]")
    await store.call(echo, [], ["first"])
    tasks = [asyncio.create_task(store.call(echo, [], ["bad" if n % 10 == 0 else str(n)])) for n in range(700)]
    await asyncio.sleep(0)
    for each in tasks[5::10]:
        each.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for n, answer in enumerate(answers):
        if n % 10 == 0:
            assert isinstance(answer, RunError), n
            assert "refuses: bad" in answer.message
        elif n % 10 == 5:
            assert isinstance(answer, asyncio.CancelledError), n
        else:
            assert answer == str(n).encode()
    clients = own_redis.query("CLIENT", "LIST").decode().splitlines()
    assert len([each for each in clients if "cmd=evalsha" in each]) == 1
    await store.aclose()


async def test_one_that_reads_only_is_left(own_redis: RedisServer) -> None:
    """A Redis that became a replica is reported as such; connections are made again, wherever its name leads."""
    store = Redis(parse_redis(own_redis.url))
    await put(store, b"v")
    own_redis.query("REPLICAOF", "127.0.0.1", str(free_port()))
    with pytest.raises(RunError, match="read only replica"):
        await put(store, b"w")
    assert len(own_redis.query("CLIENT", "LIST").splitlines()) == 1, "but for this connection, there are none"
    own_redis.query("REPLICAOF", "NO", "ONE")
    await put(store, b"w")
    await store.aclose()


async def test_a_command_that_is_cancelled_confuses_no_other(own_redis: RedisServer) -> None:
    """An answer that comes too late reaches no other command."""
    store = Redis(parse_redis(own_redis.url))
    await put(store, b"right")
    for _ in range(20):
        task = asyncio.create_task(store.run(lambda client: execute_command(client, "ECHO", "wrong")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        assert await get(store) == b"right"
    await store.aclose()


async def test_who_is_cancelled_stops(own_redis: RedisServer) -> None:
    """Whenever that happens: redis-py alone goes on where the cancellation meets the end of a write."""
    store = Redis(parse_redis(own_redis.url))
    await put(store, b"v")
    chance = random.Random(3)  # noqa: S311 (chance, not secrets)
    for _ in range(40):
        tasks = [asyncio.create_task(get(store)) for _ in range(20)]
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        cancelled = [each for each in tasks if each.cancel()]
        await asyncio.wait(tasks)
        assert all(each.cancelled() for each in cancelled)
    await store.aclose()


@pytest.mark.parametrize("url", ["redis://:wrong@127.0.0.1", "redis://who:right@127.0.0.1"])
async def test_a_wrong_password_is_told_without_it(tmp_path_factory: pytest.TempPathFactory, url: str) -> None:
    """The message names the setting; the right one is accepted."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), ("--requirepass", "right")).start()
    try:
        wrong = Redis(parse_redis(f"{url}:{server.port}"))
        with pytest.raises(RunError, match="refuses the user or the password") as raised:
            await get(wrong)
        assert "right" not in raised.value.message
        assert "wrong" not in raised.value.message
        right = Redis(parse_redis(f"redis://:right@127.0.0.1:{server.port}"))
        assert await get(right) is None
        none = Redis(parse_redis(server.url))
        with pytest.raises(RunError, match=r"refuses"):
            await get(none)
        for each in (wrong, right, none):
            await each.aclose()
    finally:
        server.stop()


async def test_a_refusal_of_redis_is_told(tmp_path: Path, own_redis: RedisServer) -> None:
    """Out of memory, say: 503 as well, with Redis's own words."""
    own_redis.query("CONFIG", "SET", "maxmemory", "1")
    store = Redis(parse_redis(own_redis.url))
    with pytest.raises(RunError, match=r"refuses: .*maxmemory") as raised:
        await put(store, b"v")
    assert (raised.value.code, raised.value.status) == ("state-unreachable", 503)
    assert await get(store) is None
    await store.aclose()


async def test_tls(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Who signed the certificate is checked, and what is wrong is reported; scripts and restarts work as without."""
    certificate, key = certified(tmp_path_factory.mktemp("tls"))
    port = free_port()
    given = {"tls-port": port, "tls-auth-clients": "no", "tls-key-file": key}
    given |= {"tls-cert-file": certificate, "tls-ca-cert-file": certificate}
    options = tuple(word for name, value in given.items() for word in (f"--{name}", str(value)))
    server = RedisServer(tmp_path_factory.mktemp("redis"), options)
    try:
        server.start()
    except AssertionError:
        pytest.skip("this redis-server has no TLS: apt-get install redis-server")
    try:
        right = Redis(parse_redis(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"))
        await put(right, b"v")
        assert await get(right) == b"v"
        assert await right.call(Script("return ARGV[1]"), [], ["x"]) == b"x"
        server.kill()
        asked = asyncio.create_task(get(right))
        await asyncio.to_thread(server.start)
        assert await asked == b"v"
        for url, told in [
            (f"rediss://127.0.0.1:{port}", "TLS fails (CERTIFICATE_VERIFY_FAILED)"),
            (f"rediss://127.0.0.1:{server.port}", "it does not answer in time"),
            (f"redis://127.0.0.1:{port}", "is out of reach"),
        ]:
            wrong = Redis(parse_redis(url))
            with pytest.raises(RunError) as raised:
                await get(wrong)
            assert told in raised.value.message
            await wrong.aclose()
        await right.aclose()
    finally:
        server.stop()

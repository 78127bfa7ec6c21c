"""`deploy/`: what the files say agrees, and the same servers behind the same nginx do what they promise."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import yaml

from streamstack.language.values import parse_duration
from streamstack.server.connection import KEEP_ALIVE
from streamstack.server.service import ABORT_TIMEOUT
from tests.proxies import CONFIGURATION, find_program, nginx
from tests.server.processes import Process, gone, serving, until
from tests.server.serving import Client

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROJECT = DEPLOY / "project"

needs_nginx = pytest.mark.skipif(find_program("nginx") is None, reason="nginx is missing: apt-get install nginx-light")


def read(name: str) -> Any:
    """Read one YAML document."""
    return yaml.safe_load((DEPLOY / name).read_text("utf-8"))


def manifest(kind: str) -> Any:
    """Return the one manifest of a kind."""
    found = [
        each
        for path in (DEPLOY / "kubernetes").glob("*.yaml")
        for each in yaml.safe_load_all(path.read_text("utf-8"))
        if each["kind"] == kind
    ]
    assert len(found) == 1, kind
    return found[0]


def container() -> Any:
    """Return the container of the pods."""
    (found,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def needed() -> set[str]:
    """Return the variables without which the project does not start."""
    text = (PROJECT / "streamstack.yaml").read_text("utf-8")
    return set(re.findall(r"<<\s*env\.(\w+)\s*>>", text))


def directives(name: str) -> list[str]:
    """Return the value of a directive of nginx."""
    text = re.sub(r"#.*", "", CONFIGURATION.read_text("utf-8"))
    return [found.strip() for found in re.findall(rf"\b{name}\s+([^;{{]+);", text)]


def seconds(text: str) -> float:
    """Return the seconds of a time as nginx writes it."""
    return parse_duration(text)


# ------------------------------------------------------------------------------- what is said


def test_every_variable_is_given() -> None:
    """What the project needs stands in the environment of every way to run it; secrets stand in no file."""
    assert needed() == {"DATABASE_URL", "REDIS_URL", "JWT_SECRET", "METRICS_TOKEN"}
    composed = read("compose.yaml")["services"]["one"]["environment"]
    assert needed() <= composed.keys()
    given = {each["name"]: each for each in container()["env"]}
    assert needed() <= given.keys()
    for name in needed():
        reference = given[name]["valueFrom"]["secretKeyRef"]
        assert reference["key"] in manifest("Secret")["stringData"]
        assert reference["name"] == manifest("Secret")["metadata"]["name"]
    for name in ("JWT_SECRET", "METRICS_TOKEN", "POSTGRES_PASSWORD"):
        assert re.search(rf"^{name}=$", (DEPLOY / "example.env").read_text(), re.MULTILINE)
        assert f"${{{name}:?" in (DEPLOY / "compose.yaml").read_text()
    resources = read("kubernetes/kustomization.yaml")["resources"]
    assert "secret.example.yaml" not in resources
    files = {path.name for path in (DEPLOY / "kubernetes").iterdir()}
    assert set(resources) == files - {"kustomization.yaml", "secret.example.yaml"}


def test_streams_may_finish() -> None:
    """Every way of stopping a server gives it more time than it may take: the delay, its streams, the last words."""
    servers = read("compose.yaml")["services"]
    for name in ("one", "two"):
        times = servers[name]["environment"]
        taken = parse_duration(times["SHUTDOWN_DELAY"]) + parse_duration(times["SHUTDOWN_TIMEOUT"])
        assert parse_duration(servers[name]["stop_grace_period"]) > taken + 2 * ABORT_TIMEOUT
    assert parse_duration(servers["nginx"]["stop_grace_period"]) >= taken
    times = {each["name"]: each.get("value") for each in container()["env"]}
    taken = parse_duration(times["SHUTDOWN_DELAY"]) + parse_duration(times["SHUTDOWN_TIMEOUT"])
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > taken + 2 * ABORT_TIMEOUT
    # Told once that it is not ready, a pod gets nothing more before the delay is over.
    probe = container()["readinessProbe"]
    told = (probe["periodSeconds"] + probe["timeoutSeconds"]) * probe["failureThreshold"]
    assert told < parse_duration(times["SHUTDOWN_DELAY"])


def test_addresses_agree() -> None:
    """Ports and paths are the same wherever they are named."""
    (port,) = container()["ports"]
    assert port["containerPort"] == 8080
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert container()["readinessProbe"]["httpGet"] == {"path": "/_ready", "port": port["name"]}
    assert container()["livenessProbe"]["tcpSocket"] == {"port": port["name"]}
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Service")["spec"]["selector"].items() <= labels.items()
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    # Who applies the manifests again does not take back what the autoscaler has added.
    assert "replicas" not in manifest("Deployment")["spec"]
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == manifest("Deployment")["metadata"]["name"]
    rules = manifest("Ingress")["spec"]["rules"]
    paths = [each["path"] for rule in rules for each in rule["http"]["paths"]]
    assert not any("/_metrics".startswith(path) for path in paths)
    services = read("compose.yaml")["services"]
    assert {each.split()[0] for each in directives("server")} == {
        f"{name}:8080" for name in services if services[name].get("image") == "streamstack"
    }


def test_servers_come_again_where_they_were() -> None:
    """A proxy looks addresses up once: those of the servers are theirs, so that it stays when they go and come."""
    composed = read("compose.yaml")
    services = composed["services"]
    hosts = dict(each.split(":") for each in services["nginx"]["extra_hosts"])
    assert hosts.keys() == {name for name in services if services[name]["image"] == "streamstack"}
    (pool,) = composed["networks"]["inside"]["ipam"]["config"]
    for name, address in hosts.items():
        assert services[name]["networks"]["inside"]["ipv4_address"] == address
        assert ip_address(address) in ip_network(pool["subnet"])
        assert ip_address(address) not in ip_network(pool["ip_range"])  # no other client gets it
        assert services["nginx"]["depends_on"][name] == {"condition": "service_healthy"}
    assert "inside" in services["nginx"]["networks"]
    assert ip_network(pool["ip_range"]).subnet_of(ip_network(pool["subnet"]))  # type: ignore[arg-type]  # both are IPv4


def test_nothing_is_rooted() -> None:
    """Servers run as an ordinary user, on a file system that they can't change but where they must."""
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = pod["securityContext"]["runAsUser"]
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {each["mountPath"]: each["name"] for each in container()["volumeMounts"]}
    assert mounted.keys() == {"/app/.streamstack", "/tmp"}
    assert set(mounted.values()) == {each["name"] for each in pod["volumes"]}
    image = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert f"USER {user}:{user}\n" in image
    assert f"--uid {user} " in image
    for name in ("one", "two"):
        server = read("compose.yaml")["services"][name]
        assert server["read_only"] is True
        assert server["cap_drop"] == ["ALL"]
        assert {each.partition(":")[0] for each in server["tmpfs"]} == mounted.keys()
    # Data stays where only the servers reach it, and nothing but nginx is reached from outside.
    services = read("compose.yaml")["services"]
    assert read("compose.yaml")["networks"]["inside"]["internal"] is True
    assert {name for name in services if "ports" in services[name]} == {"nginx"}
    assert services["redis"]["networks"] == services["postgres"]["networks"] == ["inside"]


def test_the_image_takes_what_is_there() -> None:
    """Each file that the image copies is in the checkout, and is not ignored; packages are pinned by their hashes."""
    image = (DEPLOY / "Dockerfile").read_text("utf-8").replace("${PROJECT}", "deploy/project")
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    copied = [
        source for line in re.findall(r"^COPY (?!--from)(.+)$", image, re.MULTILINE) for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in let_in), source
    assert "*" in ignored
    installs = re.findall(r"pip install (.*?)(?=\s\\|$)", image, re.MULTILINE)
    assert installs
    assert all("--require-hashes" in each or "--no-index" in each for each in installs)
    assert re.search(r'^ENTRYPOINT \["streamstack", "serve", ', image, re.MULTILINE)


def test_nginx_lets_streams_through() -> None:
    """Nothing is held back or cut, and a request is never sent twice that may have been heard."""
    assert directives("proxy_buffering") == ["off"]
    assert directives("proxy_http_version") == ["1.1"]
    assert directives("proxy_next_upstream") == ["error"]
    settings = yaml.safe_load(re.sub(r"<<.*?>>", "x", (PROJECT / "streamstack.yaml").read_text()))
    silence = parse_duration(settings["streaming"]["keepAlive"])
    assert seconds(directives("proxy_read_timeout")[0]) > 2 * silence
    # nginx lets go first: it never writes to a connection that the server is about to close.
    assert seconds(directives("keepalive_timeout")[0]) < KEEP_ALIVE
    assert directives("proxy_set_header X-Forwarded-For") == ["$remote_addr"]


# ----------------------------------------------------------------------------- what is done


@dataclass
class Topology:
    """Two servers behind nginx, with Redis and PostgreSQL."""

    proxy: Process
    one: Process
    two: Process

    async def note(self, text: str) -> tuple[int, dict[str, Any]]:
        """Keep a note, through nginx."""
        reply = await self.proxy.ask("POST", "/api/notes", json.dumps({"text": text}).encode())
        return reply.status, json.loads(reply.body)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres: str, redis_url: str) -> Path:
    """The project in a folder of the test's own, and the environment that its servers need."""
    for name, value in {
        "DATABASE_URL": postgres,
        "REDIS_URL": redis_url,
        "JWT_SECRET": "a secret of these tests alone, 32 bytes and more",
        "METRICS_TOKEN": "figures",
        "WORKERS": "2",
        "SHUTDOWN_DELAY": "1500ms",
        "SHUTDOWN_TIMEOUT": "10s",
    }.items():
        monkeypatch.setenv(name, value)
    return Path(shutil.copytree(PROJECT, tmp_path / "project"))


def limit(project: Path, rate: str) -> None:
    """Let notes come as often as a test needs."""
    file = project / "definitions" / "notes.yaml"
    text, count = re.subn(r"rateLimit: \S+", f"rateLimit: {rate}", file.read_text("utf-8"))
    assert count == 1
    file.write_text(text, "utf-8")


@asynccontextmanager
async def deployed(project: Path, tmp_path: Path) -> AsyncIterator[Topology]:
    """Start all of it."""
    host = ("--host", "127.0.0.1")
    (tmp_path / "nginx").mkdir()
    async with (
        serving(project, *host) as one,
        serving(project, *host) as two,
        nginx(tmp_path / "nginx", {"one": one.port, "two": two.port}) as proxy,
    ):
        yield Topology(proxy, one, two)


async def times_of(server: Process, path: str) -> tuple[bytes, list[float]]:
    """Read a stream to its end; return all of it, and when each piece came."""
    client = await server.connect()
    try:
        client.ask(path, extra="Connection: close\r\nAccept: text/event-stream\r\n")
        pieces, times = [], []
        while piece := await asyncio.wait_for(client.reader.read(65536), 20):
            pieces.append(piece)
            times.append(perf_counter())
        return b"".join(pieces), times
    finally:
        client.close()


async def load(ask: Callable[[int], Coroutine[Any, Any, int]], stop: asyncio.Event, clients: int = 6) -> list[int]:
    """Ask again and again, several at once; return the statuses."""
    found: list[int] = []

    async def client(number: int) -> None:
        while not stop.is_set():
            found.append(await ask(number))
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return found


@needs_nginx
async def test_chunks_pass_nginx_as_they_come(environment: Path, tmp_path: Path) -> None:
    """A stream is not gathered on its way, is whole, and ends where it ends."""
    async with deployed(environment, tmp_path) as topology:
        raw, times = await times_of(topology.proxy, "/api/ticks?count=6&every=200")
        assert (await topology.proxy.ask("GET", "/_metrics")).status == 404
    assert raw.count(b"data: ") == 7
    assert raw.endswith(b"0\r\n\r\n")
    assert len(times) >= 6
    whole = times[-1] - times[0]
    assert whole > 0.7
    assert max(later - sooner for sooner, later in pairwise(times)) < whole / 2


@needs_nginx
async def test_servers_share_what_they_keep(environment: Path, tmp_path: Path) -> None:
    """Whichever server and worker is asked: notes are in one database, counts and limits in one Redis."""
    limit(environment, "50/hour")
    async with deployed(environment, tmp_path) as topology:
        kept = [await topology.note(f"note {number}") for number in range(40)]
        extra = "Authorization: Bearer figures\r\n"
        texts = [
            (await each.ask("GET", "/_metrics", extra=extra)).body.decode() for each in (topology.one, topology.two)
        ]
        more = [(await topology.note("more"))[0] for _ in range(20)]
    assert (more.count(200), more.count(429)) == (10, 10)
    assert {status for status, _ in kept} == {200}
    assert sorted(note["count"] for _, note in kept) == list(range(1, 41))
    assert len({note["id"] for _, note in kept}) == 40
    counts = [
        int(re.search(r'endpoint="POST /api/notes",status="2xx"} (\d+)', text)[1])  # type: ignore[index]
        for text in texts
    ]
    assert sum(counts) == 40
    assert min(counts) > 0


async def begin(server: Process, path: str, chunks: int) -> tuple[Client, bytes]:
    """Begin a stream and read some chunks of it; return the connection and what came."""
    client = await server.connect()
    client.ask(path, extra="Accept: text/event-stream\r\n")
    raw = b""
    while raw.count(b"\ndata: ") < chunks:
        raw += await asyncio.wait_for(client.reader.readuntil(b"\n\n"), 20)
    return client, raw


def name_of(raw: bytes) -> str:
    """Return the id of a stream."""
    found = re.search(rb"X-Stream-Id: ([\w-]+)", raw)
    assert found is not None
    return found[1].decode()


@needs_nginx
async def test_a_stream_goes_on_at_the_other_server(environment: Path, tmp_path: Path) -> None:
    """A reader whose connection broke gets the rest from a server that never ran the stream, and can stop it there."""
    async with deployed(environment, tmp_path) as topology:
        for other in (topology.two, topology.proxy):
            client, raw = await begin(topology.one, "/api/ticks?count=12&every=100", 3)
            client.close()
            seen = int(re.findall(rb"id: \S+/(\d+)\n", raw)[-1])
            name = name_of(raw)
            rest = await other.ask("GET", f"/_streams/{name}", extra=f"Last-Event-ID: {name}/{seen}\r\n")
            assert rest.status == 200
            told = re.findall(rb"data: (\d+)\nid: %b/(\d+)\n" % name.encode(), rest.body)
            assert told == [(b"%d" % (n + 1), b"%d" % n) for n in range(seen + 1, 12)]
            assert rest.body.count(b"event: done") == 1
            last = f"Last-Event-ID: {name}/12\r\n"
            assert (await other.ask("GET", f"/_streams/{name}", extra=last)).status == 204
        client, raw = await begin(topology.one, "/api/ticks?count=10000&every=50", 2)
        assert (await topology.two.ask("DELETE", f"/_streams/{name_of(raw)}")).status == 204
        end = await asyncio.wait_for(client.reader.readuntil(b"\r\n0\r\n\r\n"), 20)
        client.close()
    assert b'"code":"stopped"' in end


@needs_nginx
async def test_a_killed_worker_fails_nobody_else(environment: Path, tmp_path: Path) -> None:
    """A worker that is killed is replaced; requests that come then are answered, by it or by the other server."""
    async with deployed(environment, tmp_path) as topology:
        victims = topology.one.workers()
        os.kill(victims[0], signal.SIGKILL)
        replies = [await topology.proxy.ask("GET", "/api/ticks?count=1&every=0") for _ in range(40)]
        assert {reply.status for reply in replies} == {200}
        await until(lambda: len(topology.one.workers()) == 2 and not any(map(gone, victims[1:])))
        direct = [await topology.one.ask("GET", "/api/ticks?count=1&every=0") for _ in range(20)]
        assert {reply.status for reply in direct} == {200}


@needs_nginx
async def test_a_server_goes_without_a_failure(environment: Path, tmp_path: Path) -> None:
    """SIGTERM to one server under load: its streams finish, all requests are answered, the other takes over."""
    limit(environment, "1000000/hour")
    async with deployed(environment, tmp_path) as topology:
        stop = asyncio.Event()

        async def ask(number: int) -> int:
            if number % 2:
                return (await topology.note("under load"))[0]
            return (await topology.proxy.ask("GET", "/api/ticks?count=1&every=0")).status

        loading = asyncio.ensure_future(load(ask, stop))
        streaming = [
            asyncio.ensure_future(times_of(server, "/api/ticks?count=40&every=100"))
            for server in (topology.one, topology.proxy, topology.proxy, topology.proxy)
        ]
        await asyncio.sleep(0.7)
        topology.one.process.send_signal(signal.SIGTERM)
        await topology.one.said("stopping")
        assert (await topology.one.ask("GET", "/_ready")).status == 503
        assert await asyncio.wait_for(topology.one.process.wait(), 30) == 0
        with pytest.raises(OSError, match=r"refused|reset|Connect"):
            await topology.one.connect()
        after = [await topology.note("after") for _ in range(20)]
        stop.set()
        statuses = await loading
        for raw, _ in await asyncio.gather(*streaming):
            assert raw.count(b"data: ") == 41
            assert b"event: done" in raw
        assert await topology.two.stop() == 0
    assert {status for status, _ in after} == {200}
    assert len(statuses) > 50
    assert set(statuses) == {200}
    assert "Traceback" not in "\n".join((*topology.one.lines, *topology.two.lines))

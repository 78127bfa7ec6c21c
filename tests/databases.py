"""Fixtures: a real PostgreSQL for a test. A `conftest.py` takes them in by name.

``STREAMSTACK_TEST_POSTGRES`` (a URL) adds a server to those found on the machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import GIVEN, Server, create_database, drop_database, programs

PROGRAMS = programs()
SERVERS = [*(["given"] if GIVEN else []), *PROGRAMS]

__all__ = ["database_url", "own_postgres", "postgres", "postgres_cluster", "postgres_servers", "shared_postgres"]


class Servers:
    """The servers of a session, each started by the first test that needs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[str, Server] = {}

    def url(self, name: str) -> str:
        """Return the URL of a server."""
        if name == "given":
            assert GIVEN is not None
            return GIVEN
        if name not in self._started:
            self._started[name] = Server(self._folder / name, PROGRAMS[name]).start()
        return self._started[name].url

    def stop(self) -> None:
        """Stop them all."""
        for server in self._started.values():
            server.stop()


@pytest.fixture(scope="session")
def postgres_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The session's servers."""
    servers = Servers(tmp_path_factory.mktemp("postgres"))
    yield servers
    servers.stop()


@pytest.fixture(params=SERVERS)
def database_url(request: pytest.FixtureRequest, postgres_servers: Servers) -> Iterator[str]:
    """The URL of an empty database, on every server there is; dropped afterwards."""
    yield from _fresh(postgres_servers.url(request.param))


@pytest.fixture
def postgres(postgres_servers: Servers) -> Iterator[str]:
    """The URL of an empty database, on one server; dropped afterwards."""
    yield from _fresh(postgres_servers.url(SERVERS[-1]))


@pytest.fixture(scope="session")
def shared_postgres(postgres_servers: Servers) -> Iterator[str]:
    """The URL of one database for all tests that serve definitions and do not look at what is in it."""
    yield from _fresh(postgres_servers.url(SERVERS[-1]))


def _fresh(server: str) -> Iterator[str]:
    made = create_database(server)
    yield made
    drop_database(server, made)


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of a server that has run and was stopped, to be copied."""
    folder = tmp_path_factory.mktemp("cluster")
    Server(folder, PROGRAMS["embedded-18"]).start().stop()
    return folder


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Path) -> Iterator[Server]:
    """A running server of the test's own, which it may kill, stop and start."""
    # A short path: the sockets lie beside the data then, and the URL stays the same over restarts.
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(postgres_cluster / "postgres", folder / "postgres")
    server = Server(folder, PROGRAMS["embedded-18"]).start()
    yield server
    server.stop()

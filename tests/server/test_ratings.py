"""Ratings of runs: who may rate what, how often, and what becomes of a rating."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from streamstack.server.metrics import RATINGS, SharedCounters, WorkerMetrics, exposition
from streamstack.server.reloading import unshared
from tests.server.processes import Process, serving
from tests.testing.running import run

SETTINGS = """
server: {metrics: {open: true}, cors: https://app.example.org}
ratings: {scale: SCALE, keep: 1m, function: save}
experiments:
  size:
    by: << request.headers["x-key"] | default("k") >>
    variants: {small: {}, large: {}}
authentication:
  keys: {type: apiKey, keys: {ann: ann-has-this-key-of-many-letters, bob: bob-has-this-key-of-many-letters}}
"""
API = """
method: GET
path: /open
functionStack: [{stream: << experiment.size.variant >>}]
---
method: GET
path: /mine
authentication: keys
streaming: {resume: RESUME}
functionStack: [{stream: 1}]
---
method: GET
path: /at-once
responseType: json
functionStack: [{return: 1}]
---
kind: function
name: save
inputParameters: {endpoint: text, rating: json, comment: text, experiment: object}
functionStack:
  - log: {message: saved, fields: << input >>}
"""
ANN, BOB = (f"X-API-Key: {name}-has-this-key-of-many-letters\r\n" for name in ("ann", "bob"))


async def rate(server: Process, rated: str, extra: str = "", **body: Any) -> tuple[int, Any]:
    """Rate a run; return the status and the body of the answer."""
    answer = await server.ask("POST", f"/_runs/{rated}/rating", json.dumps(body).encode(), extra)
    return answer.status, json.loads(answer.body or b"null")


async def run_of(server: Process, path: str, extra: str = "") -> str:
    """Call an endpoint; return the id of the run."""
    return (await server.ask("GET", path, extra=extra)).headers["x-run-id"]


async def test_runs_are_rated(tmp_path: Path) -> None:
    """A rating is counted for the endpoint and the variant, logged, and passed to the function of the settings."""
    settings, api = SETTINGS.replace("SCALE", "stars"), API.replace("RESUME", "true")
    async with serving(tmp_path, api=api, streamstack=settings) as server:
        rated = await run_of(server, "/open")
        assert await rate(server, rated, rating=2) == (200, {"run": rated, "rating": 2})
        assert (await rate(server, rated, rating=5, comment="better"))[0] == 200, "a later one replaces it"
        assert (await rate(server, await run_of(server, "/at-once"), rating=5))[0] == 200
        for body, fault in (
            ({"rating": 6}, "rating"),
            ({"rating": "5"}, "rating"),
            ({}, "rating"),
            ({"rating": 1, "comment": "x" * 2001}, "comment"),
            ({"rating": 1, "other": 1}, "other"),
        ):
            status, problem = await rate(server, rated, **body)
            assert (status, [each["name"] for each in problem["errors"]]) == (400, [fault])
        assert (await rate(server, "0" * 32, rating=5))[0] == 404
        mine = await run_of(server, "/mine", ANN)
        assert [(await rate(server, mine, extra, rating=5))[0] for extra in ("", BOB, ANN)] == [404, 404, 200]
        refused = await server.ask("GET", "/mine")
        assert (await rate(server, refused.headers["x-run-id"], ANN, rating=5))[0] == 404, "it never ran"
        figures = (await server.ask("GET", "/_metrics")).body.decode()
        found = [line for line in figures.splitlines() if line.startswith("streamstack_ratings{")]
        variant = next(line for line in found if "/open" in line).partition('variant="')[2].partition('"')[0]
        assert sorted(found) == [
            'streamstack_ratings{endpoint="GET /at-once",rating="5"} 1',
            'streamstack_ratings{endpoint="GET /mine",rating="5"} 1',
            f'streamstack_ratings{{endpoint="GET /open",experiment="size",variant="{variant}",rating="5"}} 1',
        ]
        logged = [json.loads(line) for line in server.lines if line.startswith("{")]
        assert [each["rating"] for each in logged if each["event"] == "run-rated"] == [2, 5, 5, 5]
        saved = [each for each in logged if each["event"] == "saved"]
        wanted = {"endpoint": "GET /open", "rating": 5, "comment": "better", "experiment": {"size": variant}}
        assert saved[1].items() >= wanted.items()
        origin = "Origin: https://app.example.org\r\nAccess-Control-Request-Method: POST\r\n"
        preflight = await server.ask("OPTIONS", f"/_runs/{rated}/rating", extra=origin)
        assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, "https://app.example.org")
        statuses = [(await rate(server, rated, rating=1))[0] for _ in range(60)]
        assert statuses[-1] == 429


async def test_workers_share_what_can_be_rated(tmp_path: Path, redis_url: str) -> None:
    """With Redis, any worker takes the rating of a run that another one answered, and their figures agree."""
    settings = SETTINGS.replace("SCALE", "thumbs") + f"state: {{url: {redis_url}}}\n"
    api = API.replace("RESUME", "false")
    async with serving(tmp_path, "--workers", "2", api=api, streamstack=settings) as server:
        runs = [await run_of(server, "/mine", ANN) for _ in range(6)]
        for rating in ("up", "down"):
            assert {(await rate(server, each, ANN, rating=rating))[0] for each in runs} == {200}
        figures = (await server.ask("GET", "/_metrics")).body.decode()
        assert 'streamstack_ratings{endpoint="GET /mine",rating="down"} 6' in figures
        assert 'rating="up"' not in figures


def test_a_rating_that_was_counted_before_is_not_below_zero() -> None:
    """A rating that replaces one of an earlier server leaves no count below zero."""
    counters = SharedCounters(())
    counters.register_titles(["GET /x"])
    WorkerMetrics(counters).rate("GET /x", "up", "down")
    lines = [line for line in exposition(counters).decode().splitlines() if line.startswith("streamstack_ratings{")]
    assert lines == ['streamstack_ratings{endpoint="GET /x",rating="up"} 1']
    assert set(RATINGS) == {"1", "2", "3", "4", "5", "up", "down"}


@pytest.mark.parametrize(("rating", "failure"), [("5", ""), ("up", "could not rate the run")])
def test_tests_rate_runs(tmp_path: Path, rating: str, failure: str) -> None:
    """The client of a test rates the run that it has read, and the function is observed."""
    settings = SETTINGS.replace("SCALE", "stars")
    (result,) = run(
        tmp_path,
        API.replace("RESUME", "false"),
        f"tests: [{{name: rates, experiments: {{size: large}}, request: {{path: /open}}, client: {{rating: {rating}}}, "
        f"expect: {{chunks: [large], log: [{{event: saved}}, {{event: run-rated, rating: {rating}}}]}}}}]",
        {"streamstack.yaml": settings},
    )
    assert failure in " ".join(each.message for each in result.failures)
    assert result.passed == (not failure)


def test_workers_need_a_shared_state(tmp_path: Path) -> None:
    """Without Redis a worker would not find the runs of another: the server says so, and what to write."""
    (tmp_path / "api.yaml").write_text(API.replace("RESUME", "false"), "utf-8")
    (tmp_path / "streamstack.yaml").write_text(SETTINGS.replace("SCALE", "stars"), "utf-8")
    (refused,) = unshared(read_project(tmp_path, REGISTRY, {}))[0]
    assert (
        "streamstack.yaml:3:10: `ratings` finds a run only in the worker that answered it: set `state.url`" in refused
    )

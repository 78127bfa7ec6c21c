"""What several workers can't share while state is kept in memory: each has its own."""

from __future__ import annotations

from collections.abc import Iterator

from streamstack.language.definition import Definition, Endpoint
from streamstack.language.graph import steps_of
from streamstack.language.project import Checked

_ELSEWHERE = "set `state.url` to redis://..., or `server.workers` to 1"
#: What functions keep, by the beginnings of their names.
_KEPT = {"cache.": "cached values", "counter.": "counters", "rateLimit": "rate limits"}


def unshared(checked: Checked) -> tuple[list[str], list[str]]:
    """Return why a project can't be served by several workers, and what each of them would have of its own."""
    if checked.settings.state.shared:
        return [], []
    refused = [
        f"{endpoint.mark}: `resume` finds a stream only in the worker that began it: {_ELSEWHERE}"
        for endpoint in checked.project.endpoints
        if not endpoint.disabled and _resumes(endpoint)
    ]
    kept = sorted(set(_kept(checked)))
    warned = []
    if kept:
        names = " and ".join(kept)
        warned.append(f"each worker has {names} of its own: to share them, {_ELSEWHERE}")
    return refused, warned


def _resumes(endpoint: Endpoint) -> bool:
    return bool(endpoint.streaming.resume)


def _kept(checked: Checked) -> Iterator[str]:
    project = checked.project
    for endpoint in project.endpoints:
        if endpoint.rate_limits and not endpoint.disabled:
            yield _KEPT["rateLimit"]
    definitions: list[Definition] = [*project.endpoints, *project.functions.values()]
    for definition in definitions:
        if definition.disabled:
            continue
        for step in steps_of(definition.stack):
            for start, what in _KEPT.items():
                if step.function.name.startswith(start):
                    yield what

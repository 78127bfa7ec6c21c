"""Check tests against the project that they test."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import zip_longest
from typing import Final
from urllib.parse import unquote

from streamstack.errors import ERRORS, Diagnostic, Mark
from streamstack.language import nodes
from streamstack.language.cases import Case, CaseFile, Exchange
from streamstack.language.definition import ConstantArgument, Definition, Endpoint, Project
from streamstack.language.experiments import Experiment
from streamstack.language.expressions.compile import Constant
from streamstack.language.findings import make_diagnostic
from streamstack.language.graph import all_values, steps_of
from streamstack.language.names import certain, listed, nearest, suggestion
from streamstack.language.nodes import Scalar
from streamstack.language.paths import parse_path

#: What only a stream has, of the keys of `expect`.
_OF_STREAMS: Final = ("text", "chunks", "events", "done", "streamed")
#: A response with one of these may be what a test of a wrong path or method is for.
_NOT_FOUND: Final = (404, 405)


def check_cases(
    file: CaseFile,
    project: Project,
    configured: Mapping[str, Collection[str]],
    experiments: Mapping[str, Experiment] | None = None,
) -> list[Diagnostic]:
    """Report what the tests of a file ask of a project that has no such thing.

    ``configured`` are the names that the settings have, by section; of a section that is not in it any name passes.
    ``experiments`` are those of the settings; None where they are not known.
    """
    codes, variables = _codes(project), _variables(project)
    found: list[Diagnostic] = []
    for case in file.tests:
        found += _check_environment(case, variables)
        found += _check_experiments(case, experiments) if experiments is not None else ()
        for name in case.tasks if isinstance(case.tasks, tuple) else ():
            written = case.node.get("tasks") if isinstance(case.node, nodes.Mapping) else None
            found += _check_task(name, case.mark if written is None else written.mark, project)
        for exchange, node in _exchanges(case):
            found += _check_request(exchange, node, project)
            found += _check_databases(exchange, configured.get("databases"))
            found += _check_code(exchange, codes)
    return found


def _exchanges(case: Case) -> Iterator[tuple[Exchange, nodes.Mapping]]:
    """Yield each exchange with the mapping that it is written in."""
    written = case.node.get("requests") if isinstance(case.node, nodes.Mapping) else None
    listed_ = written.items if isinstance(written, nodes.Sequence) else [case.node]
    for exchange, node in zip_longest(case.exchanges, listed_):
        if exchange is not None and isinstance(node, nodes.Mapping):
            yield exchange, node


def find_endpoint(path: str, method: str, endpoints: Collection[Endpoint]) -> Endpoint | None:
    """Return the endpoint that answers a request: literal segments before parameters."""
    matching = [each for each in endpoints if answers(each, path) and _takes(each, method)]
    return min(matching, key=lambda each: [segment.names != () for segment in parse_path(each.path)], default=None)


def _takes(endpoint: Endpoint, method: str) -> bool:
    return method in (endpoint.method, "OPTIONS") or (method == "HEAD" and endpoint.method == "GET")


def answers(endpoint: Endpoint, path: str) -> bool:
    """Return whether the path of a request, which may have a query string, is that of an endpoint."""
    segments = [unquote(each) for each in path.partition("?")[0].split("/")[1:]]
    known = parse_path(endpoint.path)
    segments = segments if segments != [""] else []
    if known and known[-1].rest and len(segments) >= len(known):
        known, segments = known[:-1], segments[: len(known) - 1]
    return len(known) == len(segments) and all(
        segment.match(text) is not None if segment.names else segment.literals[0] == text
        for segment, text in zip(known, segments, strict=True)
    )


def _check_request(exchange: Exchange, node: nodes.Mapping, project: Project) -> list[Diagnostic]:
    request, expect = exchange.request, exchange.expect
    if request.turn is not None:
        return _check_task(request.turn.task, request.mark, project) if request.turn.task else []
    if request.path.startswith("/_") or not project.endpoints:  # the server's own; or they are elsewhere
        return []
    endpoint = find_endpoint(request.path, request.method, project.endpoints)
    if endpoint is not None:
        return _check_endpoint(exchange, endpoint)
    meant_code = expect.error.get("code") if isinstance(expect.error, dict) else None
    if expect.status in _NOT_FOUND or meant_code in ("not-found", "method-not-allowed"):
        return []
    written = node.get("request")
    path = written.get("path") if isinstance(written, nodes.Mapping) else None
    mark = path.mark if path is not None else request.mark
    if others := [each for each in project.endpoints if answers(each, request.path)]:
        message = f"no endpoint answers {request.method} {request.path}"
        hint = f"did you mean {listed(f'`method: {each.method}`' for each in others)}?"
        return [make_diagnostic("unknown-path", mark, message, hint)]
    titles = {_filled(each.path, request.path): each.title for each in project.endpoints}
    near, sure = nearest(request.path, titles), certain(request.path, titles)
    replacement = path.replacement(0, len(path.text), sure) if isinstance(path, Scalar) and sure else None
    hint = f"did you mean {titles[near]}?" if near else "write the path of an endpoint, or expect `status: 404`"
    return [make_diagnostic("unknown-path", mark, f"no endpoint answers the path {request.path}", hint, replacement)]


def _check_task(name: str, mark: Mark, project: Project) -> list[Diagnostic]:
    """Report a task that the project does not have."""
    names = [each.name for each in project.tasks]
    if name in names:
        return []
    hint = suggestion(name, names, "write the name of a `kind: task` document")
    return [make_diagnostic("unknown-task", mark, f"the project has no task `{name}`", hint)]


def _filled(path: str, requested: str) -> str:
    """Return the path of an endpoint with the parameters of a request that has as many segments."""
    segments = requested.partition("?")[0].split("/")
    declared = path.split("/")
    if len(declared) != len(segments):
        return path
    return "/".join(mine if "{" in their else their for their, mine in zip(declared, segments, strict=True))


def _check_endpoint(exchange: Exchange, endpoint: Endpoint) -> list[Diagnostic]:
    """Report what an endpoint can't do, whatever it is asked for."""
    expect, client = exchange.expect, exchange.client
    found = []
    if endpoint.response_type == "json":
        for key in _OF_STREAMS:
            value = getattr(expect, key)
            if value is not None and value is not False:
                message = f"{endpoint.title} responds with JSON, so the response has no `{key}`"
                hint = "expect `body`, which is the value, or write `responseType: streaming` in the definition"
                found.append(make_diagnostic("unmet-expectation", expect.marks.get(key, expect.mark), message, hint))
    elif endpoint.streaming.resume is None and (client.resume_after is not None or client.stop_after is not None):
        message = f"{endpoint.title} does not resume, so its stream can't be resumed or cancelled"
        hint = "write `streaming: {resume: true}` in the definition, or `leaveAfter`"
        found.append(make_diagnostic("unmet-expectation", exchange.request.mark, message, hint))
    if exchange.request.auth is not None and endpoint.authentication is None:
        message = f"{endpoint.title} has no authentication, so `auth` is ignored"
        hint = "remove it, or write `authentication` in the definition"
        found.append(make_diagnostic("no-effect", exchange.request.mark, message, hint))
    return found


def _check_databases(exchange: Exchange, known: Collection[str] | None) -> Iterator[Diagnostic]:
    for rows in exchange.expect.database or ():
        if known is None:
            continue
        if rows.database is not None and rows.database not in known and (known or rows.database != "default"):
            near = nearest(rows.database, known)
            hint = f"did you mean `{near}`?" if near else None
            yield make_diagnostic(
                "unknown-database", rows.mark, f"the settings have no database `{rows.database}`", hint
            )
        elif rows.database is None and len(known) > 1:
            hint = f"add `database: {next(iter(known))}`"
            yield make_diagnostic(
                "unknown-database", rows.mark, f"the settings have several databases: {listed(known, 'and')}", hint
            )


def _definitions(project: Project) -> tuple[Definition, ...]:
    return (*project.endpoints, *project.functions.values(), *project.tasks)


def _codes(project: Project) -> frozenset[str] | None:
    """Return the codes that the steps of a project throw; None where one of them is known only in a run."""
    found: set[str] = set(ERRORS)
    for definition in _definitions(project):
        for step in steps_of(definition.stack):
            if step.function.plugin:
                return None  # it may raise any
            if step.function.name not in ("throw", "precondition"):
                continue
            code = step.arguments.get("code")
            data = code.value if isinstance(code, ConstantArgument) else getattr(code, "data", None)
            if code is not None and not isinstance(code, ConstantArgument) and not isinstance(code, Constant):
                return None
            found.add(str(data))
    return frozenset(found)


def _check_code(exchange: Exchange, codes: frozenset[str] | None) -> Iterator[Diagnostic]:
    expect = exchange.expect
    code = expect.error.get("code") if isinstance(expect.error, dict) else None
    if codes is None or not isinstance(code, str) or code in codes:
        return
    near = nearest(code, codes)
    hint = f"did you mean `{near}`?" if near else "write a code of the reference of errors, or one that a step throws"
    mark: Mark = expect.marks.get("error", expect.mark)
    yield make_diagnostic("unmet-expectation", mark, f"no step fails with the code `{code}`", hint)


def _variables(project: Project) -> frozenset[str]:
    """Return the environment variables that definitions read."""
    return frozenset(
        str(read.path[0])
        for definition in _definitions(project)
        for value in all_values(definition)
        for read in value.reads
        if read.name == "env" and read.path
    )


def _check_experiments(case: Case, experiments: Mapping[str, Experiment]) -> Iterator[Diagnostic]:
    """Report experiments and variants that the settings lack."""
    for name, variant in case.experiments.items():
        known = experiments[name].variants if name in experiments else experiments
        if name in experiments and variant in known:
            continue
        word = variant if name in experiments else name
        owner = f"the experiment `{name}` has no variant" if name in experiments else "the settings have no experiment"
        mark = next((key.mark for key in _keys(case.node, "experiments") if key.text == name), case.mark)
        near = suggestion(word, known, f"write {listed(known)}" if known else "declare it under `experiments`")
        yield make_diagnostic("unknown-variant", mark, f"{owner} `{word}`", near)


def _keys(node: nodes.Node, name: str) -> Iterator[Scalar]:
    written = node.get(name) if isinstance(node, nodes.Mapping) else None
    yield from (key for key, _ in written.items) if isinstance(written, nodes.Mapping) else ()


def _check_environment(case: Case, read: frozenset[str]) -> Iterator[Diagnostic]:
    """Report variables that are misspelt: others may be read by a library, or be there for another test."""
    for key in _keys(case.node, "env"):
        near = certain(key.text, read - case.env.keys()) if key.text not in read else ""
        if near:
            message = f"no definition reads the environment variable {key.text}"
            replacement = key.replacement(0, len(key.text), near)
            yield make_diagnostic("unused-variable", key.mark, message, f"did you mean {near}?", replacement)

"""All that can be proved of a project's files before it is served."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from streamstack.errors import Diagnostic
from streamstack.language.analysis.checks import (
    check_authentication,
    check_format,
    check_optional_auth,
    check_resume,
)
from streamstack.language.analysis.references import check_calls, check_configured
from streamstack.language.analysis.texts import check_texts, suppress
from streamstack.language.analysis.walker import Callees, analyse, callees_of
from streamstack.language.declare import Registry
from streamstack.language.definition import Definition, Endpoint, FunctionDefinition, Project, Task
from streamstack.language.findings import find
from streamstack.language.graph import all_values
from streamstack.language.loading.checks import shape
from streamstack.language.loading.documents import Reading, read_document
from streamstack.language.reading.nodes import Document
from streamstack.language.reading.source import read
from streamstack.language.streaming_settings import Streaming

#: A name in a document that could not be read, so that calls of it are not reported as well.
_NAME: Final = re.compile(r"^name:[ \t]*[\"']?([A-Za-z0-9_-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A document and what was read of it."""

    document: Document
    reading: Reading

    @property
    def definition(self) -> Definition | None:
        return self.reading.definition

    @property
    def failed(self) -> bool:
        return any(finding.severity == "error" for finding in self.reading.findings)


@dataclass(frozen=True, slots=True)
class _Around:
    """What a definition is checked against: the rest of its project."""

    functions: Mapping[str, FunctionDefinition]
    callees: Callees
    unread: Collection[str]  # functions that could not be read
    configured: Mapping[str, Collection[str]]
    environment: Mapping[str, str] | None


def validate(
    files: Mapping[str, str],
    registry: Registry,
    streaming_defaults: Streaming,
    environment: Mapping[str, str] | None = None,
    configured: Mapping[str, Collection[str]] | None = None,
) -> tuple[Project, list[Diagnostic]]:
    """Read a project's files, given as texts by name, and report all that is wrong with them.

    The project holds what has no error; a definition that is disabled is checked and left out. Findings are sorted,
    each stands once. With an ``environment``, variables that are read and missing from it are reported.
    ``configured`` are the names that the settings have, by section; of a section that is not in it any name passes.
    Nothing is raised, whatever the texts.
    """
    findings: list[Diagnostic] = []
    entries: list[_Entry] = []
    unread: set[str] = set()
    for file in sorted(files):
        documents, found = read(files[file], file)
        findings += found
        if found:
            unread.update(_NAME.findall(files[file]))
        entries += [
            _Entry(document, read_document(document, registry, streaming_defaults))
            for document in documents
        ]
    functions: dict[str, FunctionDefinition] = {}
    findings += _name_functions(entries, functions)
    sound: list[Definition] = []
    around = _Around(
        functions, callees_of(functions), unread - functions.keys(), configured or {}, environment
    )
    collisions = _collide(entries)
    for entry in entries:
        definition = entry.definition
        kept = entry.reading.findings
        if definition is not None:
            later = _check(entry, definition, around)
            later += collisions.get(id(definition), [])
            later += [finding for finding in kept if finding.severity == "warning"]
            later = suppress(later, definition, entry.document.root)
            kept = [finding for finding in kept if finding.severity == "error"] + later
            if not definition.disabled and not any(each.severity == "error" for each in kept):
                sound.append(definition)
        findings += kept
    return _make_project(sound), sorted(set(findings))


def _name_functions(
    entries: list[_Entry], functions: dict[str, FunctionDefinition]
) -> list[Diagnostic]:
    """Index the functions by name; report names that are given twice, of tasks too."""
    found = []
    tasks: dict[str, Task] = {}
    for entry in entries:
        definition = entry.definition
        if isinstance(definition, (FunctionDefinition, Task)) and definition.name:
            known: Mapping[str, FunctionDefinition | Task] = (
                functions if isinstance(definition, FunctionDefinition) else tasks
            )
            first = known.get(definition.name)
            if first is not None:
                found.append(
                    find(
                        "duplicate-name",
                        definition.name_mark,
                        f"the {definition.kind} `{definition.name}` is declared in {first.name_mark} too",
                    )
                )
            elif isinstance(definition, FunctionDefinition):
                functions[definition.name] = definition
            else:
                tasks[definition.name] = definition
    return found


def _collide(entries: list[_Entry]) -> dict[int, list[Diagnostic]]:
    """Report endpoints that answer the same requests, by the id of the definition."""
    first: dict[tuple[str, str], Endpoint] = {}
    found: dict[int, list[Diagnostic]] = {}
    for entry in entries:
        endpoint = entry.definition
        if not isinstance(endpoint, Endpoint) or not endpoint.path or endpoint.disabled:
            continue
        other = first.setdefault((endpoint.method, shape(endpoint.path)), endpoint)
        if other is not endpoint:
            found[id(endpoint)] = [
                find(
                    "route-collision",
                    endpoint.path_mark,
                    f"{endpoint.title} answers the same requests as {other.title} in {other.path_mark}",
                )
            ]
    return found


def _check(entry: _Entry, definition: Definition, around: _Around) -> list[Diagnostic]:
    """Report what the shape alone does not show."""
    found = check_calls(definition, around.functions, around.unread)
    found += check_configured(definition, around.configured)
    conditions = {each.mark for each in entry.reading.findings if each.code == "not-an-expression"}
    found += check_texts(entry.document.root, conditions)
    if isinstance(definition, Endpoint):
        found += check_format(definition, around.functions)
        found += check_resume(definition, around.functions)
        found += check_authentication(definition, around.configured.get("authentication"))
        found += check_optional_auth(definition, around.functions)
    if around.environment is not None:
        found += _missing_environment(definition, around.environment)
    if entry.reading.whole:
        proved = analyse(definition, around.callees)
        # Where something is wrong with the shape, what only looks mistaken may be its consequence.
        found += [each for each in proved if each.severity == "error"] if entry.failed else proved
    return found


def _missing_environment(
    definition: Definition, environment: Mapping[str, str]
) -> list[Diagnostic]:
    return [
        find(
            "missing-environment",
            read_.mark,
            f"the environment variable {read_.path[0]} is not set",
        )
        for value in all_values(definition)
        for read_ in value.reads
        if read_.name == "env"
        and read_.path
        and not read_.soft
        and str(read_.path[0]) not in environment
    ]


def _make_project(sound: list[Definition]) -> Project:
    return Project(
        endpoints=tuple(each for each in sound if isinstance(each, Endpoint)),
        functions={each.name: each for each in sound if isinstance(each, FunctionDefinition)},
        tasks=tuple(each for each in sound if isinstance(each, Task)),
    )

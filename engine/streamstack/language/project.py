"""Read and validate a project: its files, settings and definitions."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.analysis.caching import check_cache
from streamstack.language.analysis.cases import check_cases
from streamstack.language.analysis.checks import (
    check_authentication,
    check_bytes,
    check_cors,
    check_format,
    check_own_paths,
    check_resume,
    check_texts,
    check_ways,
    end_of,
    is_answered,
    suppress,
)
from streamstack.language.analysis.jobs import check_jobs
from streamstack.language.analysis.names import check_calls, check_configured
from streamstack.language.analysis.promises import check_declared
from streamstack.language.analysis.walker import Callees, analyse, callees_of
from streamstack.language.cases import CaseFile
from streamstack.language.definition import (
    STRICT,
    Definition,
    Endpoint,
    FunctionDefinition,
    GroupDefinition,
    InputRules,
    Project,
    Registry,
    Task,
)
from streamstack.language.environment import read_env_file
from streamstack.language.experiments import Experiment, check_experiments, shape_of
from streamstack.language.expressions.parse import use_filters
from streamstack.language.findings import make_diagnostic
from streamstack.language.graph import all_values
from streamstack.language.loading.documents import Reading, read_document
from streamstack.language.loading.groups import Inheritance, is_group
from streamstack.language.loading.ratings import rating_endpoint
from streamstack.language.names import suggestion
from streamstack.language.nodes import Document
from streamstack.language.paths import shape
from streamstack.language.plugins import load_plugins
from streamstack.language.settings import Settings, Streaming, load_settings
from streamstack.language.shapes import ANY
from streamstack.language.source import read
from streamstack.language.test_files import read_test_file

#: A name in a document that could not be read, so that calls of it are not reported as well.
_NAME: Final = re.compile(r"^name:[ \t]*[\"']?([A-Za-z0-9_-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A document and what was read of it."""

    document: Document
    reading: Reading

    @property
    def definition(self) -> Definition | None:
        return None if isinstance(self.reading.definition, GroupDefinition) else self.reading.definition

    @property
    def group(self) -> GroupDefinition | None:
        return self.reading.definition if isinstance(self.reading.definition, GroupDefinition) else None

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
    endpoints: tuple[Endpoint, ...] = ()
    experiments: Mapping[str, Experiment] = field(default_factory=dict)


def validate(
    files: Mapping[str, str],
    registry: Registry,
    streaming_defaults: Streaming,
    environment: Mapping[str, str] | None = None,
    configured: Mapping[str, Collection[str]] | None = None,
    input_rules: InputRules = STRICT,
    experiments: Mapping[str, Experiment] | None = None,
) -> tuple[Project, list[Diagnostic]]:
    """Read a project's files, given as texts by name, and report all that is wrong with them.

    The project holds what has no error; a definition that is disabled is checked and left out. Findings are sorted,
    each stands once. With an ``environment``, variables that are read and missing from it are reported.
    ``configured`` are the names that the settings have, by section; of a section that is not in it any name passes.
    Nothing is raised, whatever the texts.
    """
    findings: list[Diagnostic] = []
    unread: set[str] = set()
    documents: list[Document] = []
    for file in sorted(files):
        read_here, found = read(files[file], file)
        findings += found
        if found:
            unread.update(_NAME.findall(files[file]))
        documents += read_here
    inherited = Inheritance(streaming_defaults)
    entries = _read_groups(documents, registry, inherited)
    groups, found = _groups_of(entries)
    findings += found
    failed = [each.group for each in entries if each.group is not None and each.failed]
    for document in documents:
        if not is_group(document):
            passed_on = inherited.of(document.root.mark.file, groups) if groups else inherited
            reading = read_document(document, registry, passed_on, input_rules)
            if any(each in failed for each in passed_on.groups):  # what it lacks is reported there
                found = [each for each in reading.findings if not _is_within(each, failed)]
                reading = replace(reading, findings=found, whole=False, unread=None)
            entries.append(_Entry(document, reading))
    findings += _report_duplicates(entries)
    functions: dict[str, FunctionDefinition] = {}
    for entry in entries:
        if isinstance(entry.definition, FunctionDefinition) and entry.definition.name:
            functions.setdefault(entry.definition.name, entry.definition)
    sound: list[Definition] = []
    endpoints = tuple(each.definition for each in entries if isinstance(each.definition, Endpoint))
    configured = configured or {}
    experiment = shape_of(experiments or {}, configured["experiments"]) if "experiments" in configured else ANY
    callees = callees_of(functions, experiment)
    around = _Around(
        functions, callees, unread - functions.keys(), configured, environment, endpoints, experiments or {}
    )
    collisions = _collide(entries)
    for entry in entries:
        definition = entry.definition
        found_here = entry.reading.findings
        if entry.group is not None:
            found_here = _check_group(entry.group, around) + found_here
        if definition is not None:
            later = _check(entry, definition, around)
            later += collisions.get(id(definition), [])
            later += [finding for finding in found_here if finding.severity == "warning"]
            errors = [finding for finding in found_here if finding.severity == "error"]
            found_here = suppress(later, errors, definition, entry.document.root)
            if not definition.disabled and not any(each.severity == "error" for each in found_here):
                sound.append(definition)
        findings += found_here
    return _make_project(sound), sorted(set(findings))


def _read_groups(documents: list[Document], registry: Registry, inherited: Inheritance) -> list[_Entry]:
    return [_Entry(each, read_document(each, registry, inherited)) for each in documents if is_group(each)]


def _groups_of(entries: list[_Entry]) -> tuple[list[GroupDefinition], list[Diagnostic]]:
    """Return the groups, one for each folder, and report the folders that have several."""
    first: dict[PurePath, GroupDefinition] = {}
    found = []
    for group in (each.group for each in entries):
        if group is None:
            continue
        folder = PurePath(group.mark.file).parent
        other = first.setdefault(folder, group)
        if other is not group:
            message = f"the folder `{folder}` has a group in {other.mark} too"
            found.append(make_diagnostic("duplicate-name", group.mark, message, "write all keys in one of them"))
    return list(first.values()), found


def _is_within(finding: Diagnostic, groups: list[GroupDefinition]) -> bool:
    """Return whether a finding is about a value of a group that has been reported there."""
    return any(finding.file == each.mark.file and each.mark <= finding.mark <= end_of(each.root) for each in groups)


def _check_group(group: GroupDefinition, around: _Around) -> list[Diagnostic]:
    """Report what is wrong with a group though it had no endpoints."""
    found = check_calls(group, around.functions, around.unread)
    found += check_ways(group.authentication, around.configured.get("authentication"))
    return [each for each in found if each.code not in group.allow]


def _report_duplicates(entries: list[_Entry]) -> list[Diagnostic]:
    """Report functions and tasks whose name another one has."""
    first: dict[tuple[str, str], FunctionDefinition | Task] = {}
    found = []
    for entry in entries:
        each = entry.definition
        if not isinstance(each, (FunctionDefinition, Task)) or not each.name:
            continue
        other = first.setdefault((each.kind, each.name), each)
        if other is not each:
            message = f"the {each.kind} `{each.name}` is declared in {other.name_mark} too"
            found.append(make_diagnostic("duplicate-name", each.name_mark, message))
    return found


def _collide(entries: list[_Entry]) -> dict[int, list[Diagnostic]]:
    """Report endpoints that answer the same requests, by the id of the definition."""
    first: dict[tuple[object, ...], Endpoint] = {}
    found: dict[int, list[Diagnostic]] = {}
    for entry in entries:
        endpoint = entry.definition
        if not isinstance(endpoint, Endpoint) or not endpoint.path or endpoint.disabled:
            continue
        other = first.setdefault((endpoint.method, shape(endpoint.path)), endpoint)
        if other is not endpoint:
            found[id(endpoint)] = [
                make_diagnostic(
                    "route-collision",
                    endpoint.path_mark,
                    f"{endpoint.title} matches the same requests as {other.title} in {other.path_mark}",
                )
            ]
    return found


def _check(entry: _Entry, definition: Definition, around: _Around) -> list[Diagnostic]:
    """Report what the shape alone does not show."""
    found = check_calls(definition, around.functions, around.unread)
    found += check_configured(definition, around.configured)
    if all(each.path for each in around.endpoints):  # else one that could not be read may be meant
        found += check_own_paths(definition, around.endpoints)
    found += check_jobs(definition, around.functions)
    found += check_bytes(definition)
    conditions = {each.mark for each in entry.reading.findings if each.code == "not-an-expression"}
    found += check_texts(entry.document.root, conditions)
    if isinstance(definition, Endpoint):
        found += check_format(definition, around.functions)
        found += check_cors(definition)
        found += check_resume(definition, around.functions)
        found += check_authentication(definition, around.configured.get("authentication"))
        found += check_cache(definition, around.functions)
        if around.experiments:
            found += check_experiments(definition, around.functions, around.experiments)
        if entry.reading.whole:
            found += check_declared(definition, around.functions, around.callees.results)
    if around.environment is not None:
        found += _missing_environment(definition, around.environment)
    if entry.reading.whole:
        proved = analyse(definition, around.callees)
        # Where something is wrong with the shape, what only looks mistaken may be its consequence.
        found += [each for each in proved if each.severity == "error"] if entry.failed else proved
    elif entry.reading.unread is not None:
        found += analyse(definition, around.callees, entry.reading.unread)
    return found


def _missing_environment(definition: Definition, environment: Mapping[str, str]) -> list[Diagnostic]:
    return [
        make_diagnostic("missing-environment", read_.mark, f"the environment variable {read_.path[0]} is not set")
        for value in all_values(definition)
        for read_ in value.reads
        if read_.name == "env" and read_.path and not read_.soft and str(read_.path[0]) not in environment
    ]


def _make_project(sound: list[Definition]) -> Project:
    return Project(
        endpoints=tuple(each for each in sound if isinstance(each, Endpoint)),
        functions={each.name: each for each in sound if isinstance(each, FunctionDefinition)},
        tasks=tuple(each for each in sound if isinstance(each, Task)),
    )


#: The file of a project's settings, at its root.
SETTINGS: Final = "streamstack.yaml"
#: The folder that holds the definitions where the root holds other things too.
DEFINITIONS: Final = "definitions"

#: The folder of what is made while a project is served, the embedded database above all.
OWN: Final = ".streamstack"

_SUFFIXES: Final = (".yaml", ".yml")
_TESTS: Final = (".test.yaml", ".test.yml")


@dataclass(frozen=True, slots=True)
class Checked:
    """A project as it was read.

    ``sources`` are the texts of its files by name, settings included. ``environment`` are the
    variables of the process, and those of its `.env`. ``registry`` has the functions of its plug-ins, too.
    """

    root: Path
    project: Project
    settings: Settings
    findings: list[Diagnostic]
    sources: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    registry: Registry = field(default_factory=lambda: Registry(()), repr=False)

    @property
    def folder(self) -> Path:
        """Where the project keeps what it makes itself: beside its settings, or in its own folder."""
        settings = find_settings(self.root)
        return (self.root if settings is None else settings.parent) / OWN

    def ignores(self, path: Path) -> bool:
        """Return whether the settings ignore a file."""
        return is_ignored(path, self.folder.parent, self.settings.ignore)

    @property
    def failed(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def advice(self) -> str:
        """What to do about its errors."""
        codes = {finding.code for finding in self.findings if finding.severity == "error"}
        lacking = codes == {"missing-environment"}  # which `validate` alone passes over
        return "fix the errors above first" + ("; `streamstack validate --env` reports them too" if lacking else "")


def find_settings(folder: Path) -> Path | None:
    """Return the settings of a project: in its folder, or upwards as far as the repository goes."""
    for candidate in (folder, *folder.resolve().parents):
        if (candidate / SETTINGS).is_file():
            return candidate / SETTINGS
        if (candidate / ".git").exists():
            return None
    return None


def _folder_of_project(folder: Path) -> Path:
    """Return the folder of the project that a folder belongs to: that of its settings, or else its repository.

    A folder with neither belongs to the working directory, if it is below that.
    """
    settings = find_settings(folder)
    if settings is not None:
        found = settings.resolve().parent
        return found.parent if found.name == DEFINITIONS else found
    whole = folder.resolve()
    repository = next((each for each in (whole, *whole.parents) if (each / ".git").exists()), None)
    current = Path.cwd()
    return repository or (current if whole.is_relative_to(current) else whole)


def _check_single(settings: Path) -> list[Diagnostic]:
    """Report settings that a project has twice: beside its folder `definitions`, and in it."""
    folder = settings.resolve().parent
    outer = folder.parent if folder.name == DEFINITIONS else folder
    both = [each / SETTINGS for each in (outer, outer / DEFINITIONS)]
    if not all(each.is_file() for each in both):
        return []
    message = f"a project has one `{SETTINGS}`, and here are two: {' and '.join(map(display_name, both))}"
    return [make_diagnostic("bad-setting", Mark(display_name(settings), 1, 1), message, "move all settings into one")]


def environment_file(folder: Path) -> Path:
    """Return where the `.env` file of a project is, if it has one: beside its settings, or in its folder."""
    settings = find_settings(folder)
    return (folder if settings is None else settings.parent) / ".env"


def find_root(path: Path) -> Path:
    """Return the folder of the project that a file or folder belongs to.

    It is the folder of the settings, or `definitions` in it where the path lies there; without
    settings the folder itself.
    """
    folder = path if path.is_dir() else path.parent
    settings = find_settings(folder)
    if settings is None:
        return folder
    definitions = settings.parent / DEFINITIONS
    inside = folder.resolve().is_relative_to(definitions.resolve())
    return definitions if inside and definitions.is_dir() else settings.parent


def find_files(folder: Path) -> list[Path]:
    """Return the definitions below a folder: all YAML but settings, tests and what is hidden.

    A folder below it with settings of its own is a project of its own, and left out.
    """
    return [Path(parent, name) for parent, names in _walk(folder) for name in names if is_definition(name)]


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders of one project with the names of their files."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            each for each in folders if not each.startswith(".") and not Path(parent, each, SETTINGS).is_file()
        )
        yield parent, sorted(names)


def find_tests(folder: Path) -> list[Path]:
    """Return the tests of definitions below a folder."""
    return [Path(parent, name) for parent, names in _walk(folder) for name in names if is_test(Path(name))]


def is_ignored(path: Path, folder: Path, patterns: Iterable[str]) -> bool:
    """Return whether a pattern of `ignore` matches a file, or a folder that it is in.

    Args:
        path: The file.
        folder: The folder of the settings, which the patterns are relative to.
        patterns: Names, or paths, with `*` and `?`.
    """
    absolute, top = (Path(os.path.normpath(Path.cwd() / each)) for each in (path, folder))
    if not absolute.is_relative_to(top):
        return False
    inside = absolute.relative_to(top)
    return any(each.match(pattern) for pattern in patterns for each in (inside, *inside.parents[:-1]))


def is_test(path: Path) -> bool:
    """Return whether a file holds tests of definitions."""
    return path.name.endswith(_TESTS) and not path.name.startswith(".")


def is_definition(name: str) -> bool:
    """Tell whether a file of this name holds definitions."""
    return name.endswith(_SUFFIXES) and not name.startswith(".") and not name.endswith(_TESTS) and name != SETTINGS


def read_project(
    root: Path,
    registry: Registry,
    environment: Mapping[str, str],
    *,
    check_environment: bool = False,
    more: Iterable[Path] = (),
    folders: Iterable[Path] = (),
    env_file: bool = True,
) -> Checked:
    """Read and check a project: its settings and every definition below its root.

    ``environment`` is what `env` reads, beside what the `.env` file has and it lacks; only with
    ``check_environment`` is a variable that is missing a finding. ``more`` are files that belong to
    it wherever they lie, ``folders`` others whose definitions do, except those that the settings ignore. Without
    ``env_file`` the `.env` file is not read. Raises OSError for a file that can't be opened.
    """
    file = environment_file(root)
    variables, findings = read_env_file(file, display_name(file)) if env_file else ({}, [])
    environment = {**variables, **environment}
    place = find_settings(root)
    texts = read_texts([] if place is None else [place], findings)
    name = display_name(place or root / SETTINGS)
    settings, found = load_settings(texts.get(name), name, environment, check_environment=check_environment)
    if place is not None:
        found += _check_single(place)
    plugins = load_plugins(settings.plugins, registry)
    registry = registry.extended(plugins.functions)
    use_filters(plugins.filters)
    found += plugins.findings
    top = root if place is None else place.parent
    files = [file for folder in (root, *folders) for file in find_files(folder)]
    sources = read_texts([*(each for each in files if not is_ignored(each, top, settings.ignore)), *more], findings)
    with uncollected():
        project, wrong = validate(
            sources,
            registry,
            settings.streaming,
            environment if check_environment else None,
            names_of(settings),
            settings.inputs,
            settings.experiments,
        )
    project = replace(project, filters=plugins.filters)
    wrong += _unanswered(settings, project, texts.get(name, ""), name)
    wrong += _unwatched(settings, project)
    if settings.ratings is not None and project.endpoints:
        rating, unfit = rating_endpoint(settings.ratings, project.functions, registry)
        if rating is not None:
            unread = [settings.ratings.function] if any(each.severity == "error" for each in wrong) else []
            unfit += check_calls(rating, project.functions, [each for each in unread if each])
            project = replace(project, endpoints=(*project.endpoints, rating))
        wrong += unfit
    findings = sorted({*findings, *found, *wrong})
    return Checked(root, project, settings, findings, texts | sources, environment, registry)


def read_registry(folder: Path, registry: Registry) -> Registry:
    """Return the functions of the project that a folder belongs to, those of its plug-ins included, for the reference.

    Its filters are used from then on. Raises OSError for a file that can't be opened.
    """
    place = find_settings(folder)
    if place is None:
        return registry
    name = display_name(place)
    settings, _ = load_settings(read_texts([place], []).get(name), name, {})
    plugins = load_plugins(settings.plugins, registry)
    use_filters(plugins.filters)
    return registry.extended(plugins.functions)


def _unanswered(settings: Settings, project: Project, text: str, name: str) -> list[Diagnostic]:
    """Report the addresses for models without a key that are paths which no endpoint answers."""
    found = []
    for model in settings.models.values():
        path = model.without_key
        if path is None or not path.startswith("/") or is_answered(path, project.endpoints, below=True):
            continue
        at = max(text.find(path), 0)
        mark = Mark(name, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
        found.append(make_diagnostic("unknown-path", mark, f"no endpoint answers below `{path}`"))
    return found


def _unwatched(settings: Settings, project: Project) -> list[Diagnostic]:
    """Report alerts whose endpoint is none of the project."""
    titles = [each.title for each in project.endpoints]
    return [
        make_diagnostic(
            "unknown-path",
            alert.mark,
            f"no endpoint is `{alert.endpoint}`, which the alert `{alert.name}` watches",
            suggestion(alert.endpoint, [*titles, *(each.path for each in project.endpoints)], f"write {titles[0]}"),
        )
        for alert in settings.alerts
        if titles and alert.endpoint is not None and alert.mark is not None and not any(map(alert.watches, titles))
    ]


def read_tests(checked: Checked, paths: Iterable[Path]) -> tuple[list[CaseFile], list[Diagnostic], dict[str, str]]:
    """Return the tests of files, without those that have errors, with the findings and the texts of all of them.

    Raises OSError for a file that can't be opened.
    """
    findings: list[Diagnostic] = []
    texts = read_texts(paths, findings)
    files = []
    for name, text in texts.items():
        file, found = _read_tests(name, text, None if checked.failed else checked.project, checked.settings)
        findings += found
        if not any(each.severity == "error" for each in found):
            files.append(file)
    return files, findings, texts


def _read_tests(name: str, text: str, project: Project | None, settings: Settings) -> tuple[CaseFile, list[Diagnostic]]:
    """Read a file of tests. Without a ``project``, since it has errors, they are not compared with it."""
    file, found = read_test_file(Path(name), name, text, _folder_of_project(Path(name).parent))
    if project is not None:
        found = sorted({*found, *check_cases(file, project, names_of(settings), settings.experiments)})
    return file, found


def names_of(settings: Settings) -> dict[str, Collection[str]]:
    """Return the names that definitions can refer to, by section of the settings."""
    return {
        "models": settings.names("models"),
        "databases": tuple(settings.databases),
        "authentication": settings.names("authentication"),
        "experiments": settings.names("experiments"),
    }


def check_again(checked: Checked, texts: Mapping[str, str]) -> list[Diagnostic]:
    """Return the findings of a project that has other texts now, those of its settings and tests included."""
    place = find_settings(checked.root)
    name = display_name(place or checked.root / SETTINGS)
    settings, found = load_settings(texts.get(name), name, checked.environment)
    tests = {file: text for file, text in texts.items() if is_test(Path(file))}
    definitions = {file: text for file, text in texts.items() if file != name and file not in tests}
    names = names_of(settings)
    project, wrong = validate(
        definitions, checked.registry, settings.streaming, None, names, settings.inputs, settings.experiments
    )
    found += wrong
    failed = any(each.severity == "error" for each in found)
    for file, text in tests.items():
        found += _read_tests(file, text, None if failed else project, settings)[1]
    return sorted(set(found))


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector away: what is made of definitions stays.

    Looking through all of it again and again took 40 % of the time of a thousand files.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # All of it joins what is old, or it would be looked through at once.
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def read_texts(paths: Iterable[Path], findings: list[Diagnostic]) -> dict[str, str]:
    """Return the texts of files by the names that findings carry; what is not UTF-8 is reported.

    Raises OSError for a file that can't be opened.
    """
    texts = {}
    for path in paths:
        name = display_name(path)
        if path.exists() and not path.is_file():
            message = "this is not a regular file, so it is not read"  # a pipe would be waited for, for ever
            findings.append(make_diagnostic("yaml-syntax", Mark(name, 1, 1), message, "replace it with a regular file"))
            continue
        content = path.read_bytes()
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError as error:
            before = content[: error.start].decode()
            mark = Mark(name, before.count("\n") + 1, len(before) - before.rfind("\n"))
            message = "the file is not UTF-8 text from here on"
            findings.append(make_diagnostic("yaml-syntax", mark, message, "save it as UTF-8"))
    return texts


def display_name(path: Path) -> str:
    """Return a path as messages show it: from the current folder where it lies below it."""
    here = Path.cwd()
    absolute = Path(os.path.normpath(here / path))
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else str(absolute)

"""What concerns a whole endpoint (optional authentication, dialects, resume) or the text of a document (secrets)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from streamstack.errors import Diagnostic, Mark
from streamstack.formats import BY_NAME
from streamstack.formats.items import refuse
from streamstack.formats.spec import Format
from streamstack.language import nodes
from streamstack.language.definition import (
    Arguments,
    Authentication,
    ConstantArgument,
    Definition,
    Endpoint,
    FunctionDefinition,
    Input,
    Step,
    Task,
)
from streamstack.language.expressions import Read, Value
from streamstack.language.expressions.compile import Constant, Expression, ListValue, ObjectValue, Text
from streamstack.language.expressions.grammar import becomes_text
from streamstack.language.findings import make_diagnostic
from streamstack.language.foreign import NAMES, look_up
from streamstack.language.graph import all_values, called_by, called_itself, constant, reached, steps_of
from streamstack.language.kinds import Kind
from streamstack.language.names import suggestion
from streamstack.language.nodes import Scalar, Sequence
from streamstack.language.secrets import find_secrets
from streamstack.language.settings import default_database
from streamstack.language.values import MISSING
from streamstack.spec import Bound

#: Functions whose effects no transaction takes back, by the beginnings of their names.
_OUTSIDE: Final = ("http.", "websocket.", "llm.", "email.", "webhook.", "channel.publish", "job.", "cache.", "counter.")


def check_task(
    task: Task, functions: Mapping[str, FunctionDefinition], databases: Collection[str] | None
) -> list[Diagnostic]:
    """Report the databases of a schedule that the settings lack, and what a transaction does not hold."""
    schedule, found = task.schedule, list[Diagnostic]()
    needs = schedule.once == "effect" or (schedule.on is not None and schedule.on.kind == "database")
    name = schedule.on.database if schedule.on is not None else schedule.database
    if needs and databases is not None:
        if name is not None and name not in databases:
            message = f"the settings have no database `{name}`"
            found.append(make_diagnostic("unknown-database", task.name_mark, message, suggestion(name, databases, "")))
        elif name is None and databases and default_database(dict.fromkeys(databases)) is None:
            message = f"which database does the schedule mean? The settings have {', '.join(databases)}"
            found.append(make_diagnostic("unknown-database", task.name_mark, message, "name it in `schedule`"))
    if schedule.once != "effect":
        return found
    for step in steps_of(task.stack):
        called = (each for name in called_by(step) for each in reached(name, functions))
        if _is_outside(step) or any(_is_outside(each) for function in called for each in steps_of(function.stack)):
            message = (
                f"`{step.title}` is not part of the transaction of `once: effect`: it is repeated when another server "
                "takes the tick over"
            )
            found.append(make_diagnostic("not-in-transaction", step.key_mark, message))
    return found


def _is_outside(step: Step) -> bool:
    """Return whether a step has effects that a rollback does not undo; reading over HTTP has none."""
    name = step.function.name
    method = constant(step.arguments.by_name.get("method")) if name.startswith("http.") else MISSING
    reads = name.startswith("http.") and (method in ("GET", "HEAD") or step.arguments.get("method") is None)
    return name.startswith(_OUTSIDE) and not reads and name != "cache.get"


def check_authentication(endpoint: Endpoint, known: Collection[str] | None) -> list[Diagnostic]:
    """Report names that the settings lack, and `auth` where authentication is optional.

    ``known`` are the names that the settings have; None where that is not known.
    """
    if endpoint.authentication is None:
        return [
            make_diagnostic(
                "auth-without-authentication",
                read.mark,
                f"`auth` is always null in {endpoint.title}, which has no authentication",
            )
            for value in all_values(endpoint)
            for read in value.reads
            if read.name == "auth"
        ]
    return check_ways(endpoint.authentication, known)


def check_ways(authentication: Authentication | None, known: Collection[str] | None) -> list[Diagnostic]:
    """Report the names of an authentication that the settings lack."""
    found = []
    for way in () if authentication is None else authentication.ways:
        if known is None or way.name in known:
            continue
        found.append(
            make_diagnostic(
                "unknown-authentication",
                way.mark,
                f"the settings have no authentication `{way.name}`",
                suggestion(way.name, known) or None,
            )
        )
    return found


def check_bytes(definition: Definition) -> list[Diagnostic]:
    """Report the body of a request as bytes inside a text: a signature over that text would never match."""
    return [
        make_diagnostic("bytes-in-text", read.mark, "`request.body` is bytes, which become base64 in a text")
        for value in all_values(definition)
        if any(read.is_body for read in value.reads)
        for read in _bytes_in_texts(value)
    ]


def _bytes_in_texts(value: Value) -> Iterator[Read]:
    if isinstance(value, (ListValue, ObjectValue)):
        for inner in value.items if isinstance(value, ListValue) else (entry for _, entry in value.entries):
            yield from _bytes_in_texts(inner)
        return
    for part in value.bindings():
        if not isinstance(part, Expression):
            continue
        if becomes_text(part.node, _is_body, whole=isinstance(value, Text)):
            yield next(read for read in part.reads if read.name == "request" and read.path == ("body",))


def _is_body(name: str, path: tuple[str | int, ...]) -> bool:
    return name == "request" and path == ("body",)


def check_cors(endpoint: Endpoint) -> list[Diagnostic]:
    """Report headers of CORS that an endpoint sets itself: they would not be in the responses to preflight requests."""
    written = [(name, value.mark) for name, value in endpoint.headers]
    for step in steps_of(endpoint.stack):
        headers = step.arguments.get("headers") if step.function.name == "respond" else None
        if isinstance(headers, ObjectValue):
            written += [(name, mark) for (name, _), mark in zip(headers.entries, headers.keys, strict=True)]
        elif isinstance(headers, Constant) and isinstance(headers.data, dict):
            written += zip(headers.data, headers.keys, strict=True)
    return [
        make_diagnostic("cors-header", mark, f"`{name}` is a header of CORS: use `server.cors` of the settings")
        for name, mark in written
        if name.lower().startswith("access-control-")
    ]


_Found = TypeVar("_Found", bound=tuple[Any, ...])

#: Inputs whose values are not text, by type, and one such value.
_SAMPLES: Final[Mapping[str, Any]] = {"integer": 0, "decimal": 0.5, "boolean": True, "list": []}


#: By function: its parameters that not every format has a place for, and what the specs call that.
_PLACES: Final[Mapping[str, Mapping[str, str]]] = {
    "stream": {"event": "event", "id": "id", "metadata": "metadata"},
    "done": {"content": "done.content", "metadata": "done.metadata"},
}


def check_format(endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]) -> list[Diagnostic]:
    """Report the steps that surely send what the endpoint's fixed format can't carry."""
    spec = BY_NAME.get(endpoint.streaming.format)
    if endpoint.response_type != "streaming" or spec is None:
        return []
    found = list(_left_out(endpoint, spec))
    return found + _check_dialect(endpoint, functions) if spec.dialect else found


def _left_out(endpoint: Endpoint, spec: Format) -> Iterator[Diagnostic]:
    """Report what has no place beside the content. Functions that are called may be for other formats, too."""
    for step in steps_of(endpoint.stack):
        for name, key in _PLACES.get(step.function.name, {}).items():
            value = step.arguments.get(name)
            if key in spec.carries or not isinstance(value, Value) or value.constant is None:
                continue
            message = f"`{name}` has no effect: `format: {spec.name}` sends {_sent(key, spec)}"
            hint = "remove it, or write another format"
            yield make_diagnostic("no-effect", value.mark, message, hint)


def _sent(key: str, spec: Format) -> str:
    if not key.startswith("done"):
        return "the content alone"
    return "what its SDKs wait for at the end" if spec.dialect else "nothing of `done`"


def _check_dialect(endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]) -> list[Diagnostic]:
    """Report the steps that surely send what the endpoint's dialect can't carry.

    Of a function that it calls, the finding stands at the call.
    """
    hint = f"`format: {endpoint.streaming.format}` carries text, and the items that `llm.chat` gives"
    return [
        make_diagnostic(
            "not-in-dialect", mark, f"{called} sends content that {fault}" if called else f"the content {fault}", hint
        )
        for mark, called, (_, fault) in _own_and_called(endpoint, functions, _faults)
    ]


def _own_and_called(
    endpoint: Endpoint, functions: Mapping[str, FunctionDefinition], search: Callable[[Definition], Iterable[_Found]]
) -> Iterator[tuple[Mark, str, _Found]]:
    """Search an endpoint and the functions that it calls; each thing found begins with its value.

    Yield where the finding stands and which call leads to it ("" for the endpoint's own steps).
    """
    for each in search(endpoint):
        yield each[0].mark, "", each
    for step in steps_of(endpoint.stack):
        for name in called_itself(step):
            for callee in reached(name, functions):
                for each in search(callee):
                    yield step.key_mark, f"`{name}` is called, and {each[0].mark}", each


def _faults(definition: Definition) -> Iterator[tuple[Value, str]]:
    inputs = {each.name: each for each in getattr(definition, "inputs", ())}
    for step in steps_of(definition.stack):
        value = _content(step)
        if value is not None and (fault := refuse(_known(value, inputs))) is not None:
            yield value, fault


def _content(step: Step) -> Value | None:
    """Return what a step sends as it is; pieces of a text are text, whatever was cut."""
    if step.function.name != "stream":
        return None
    value = step.arguments.get("content")
    split = step.arguments.get("split")
    if split is not None and not _cuts_records(split):
        return None
    return value if isinstance(value, Value) else None


def _cuts_records(split: Any) -> bool:
    if not isinstance(split, Arguments):
        return False
    by = split.get("by")
    return (by.value if isinstance(by, ConstantArgument) else getattr(by, "constant", None)) == "records"


def _known(value: Value, inputs: Mapping[str, Input]) -> Any:
    """Return what is known of a value: its type, or the parts of an object; MISSING for nothing."""
    if value.constant is not MISSING:
        return value.constant
    if isinstance(value, ListValue):
        return []
    if isinstance(value, ObjectValue):
        return {key: _known(inner, inputs) for key, inner in value.entries}
    name = value.text.strip().removeprefix("input.") if value.whole else ""
    if name in inputs and len(value.reads) == 1 and value.reads[0].path == (name,):
        return _SAMPLES.get(inputs[name].type, MISSING)
    return MISSING


def check_own_paths(definition: Definition, endpoints: Collection[Endpoint]) -> list[Diagnostic]:
    """Report the URLs that are paths of this server which no endpoint answers."""
    found = []
    for step in steps_of(definition.stack):
        for parameter in step.function.parameters:
            value = step.arguments.get(parameter.name)
            if not isinstance(parameter.type, Bound) or parameter.type.kind is not Kind.URL:
                continue
            path = _own_path(value) if isinstance(value, Value) else None
            below = parameter.name == "baseUrl"
            if path is None or is_answered(path, endpoints, below=below) or not isinstance(value, Value):
                continue
            shown = path.replace(_BOUND, "<<...>>")
            known = [each.path for each in endpoints]
            message = f"no endpoint answers {'below ' if below else ''}`{shown}`"
            found.append(make_diagnostic("unknown-path", value.mark, message, suggestion(shown, known) or None))
    return found


#: Stands for a binding in a path.
_BOUND: Final = "\0"


def _own_path(value: Value) -> str | None:
    """Return the path that a URL of this server has; None for one of another server, or that is not known."""
    parts = value.parts if isinstance(value, Text) else (value.constant,)
    text = "".join(part if isinstance(part, str) else _BOUND for part in parts)
    if not isinstance(parts[0], str) or not text.startswith("/") or text.startswith(("//", "/_")):
        return None
    return re.split(r"[?#]", text, maxsplit=1)[0]


def is_answered(path: str, endpoints: Iterable[Endpoint], *, below: bool = False) -> bool:
    """Tell whether an endpoint answers a path, or paths below it."""
    wanted = path.strip("/").split("/")
    if below and wanted == [""]:
        wanted = []  # every path is below `/`
    for endpoint in endpoints:
        known = endpoint.path.strip("/").split("/")
        rest = "{" in known[-1] and ":path}" in known[-1]
        if len(known) < len(wanted) and not rest:
            continue
        if not below and not rest and len(known) != len(wanted):
            continue
        if all(_BOUND in mine or _matches(mine, their) for mine, their in zip(wanted, known, strict=False)):
            return True
    return False


def _matches(segment: str, declared: str) -> bool:
    pattern = ".+".join(map(re.escape, re.split(r"\{[^{}]*\}", declared)))
    return re.fullmatch(pattern, segment) is not None


_HINT = "take `id` out, or write `resume: false`: put your own id into the content or the metadata"


def check_resume(endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]) -> list[Diagnostic]:
    """Report `id` on the chunks of an endpoint that gives them ids itself.

    Of a function that it calls, the finding stands at the call.
    """
    if endpoint.streaming.resume is None:
        return []
    why = "clients resume with the ids that `resume` assigns"
    return [
        make_diagnostic(
            "not-resumable",
            mark,
            f"{called} gives a chunk its own id: {why}" if called else f"the chunk has its own id, but {why}",
            _HINT,
        )
        for mark, called, _ in _own_and_called(endpoint, functions, _ids)
    ]


def _ids(definition: Definition) -> Iterator[tuple[Value]]:
    for step in steps_of(definition.stack):
        if step.function.name == "stream":
            value = step.arguments.get("id")
            if isinstance(value, Value) and value.constant is not None:
                yield (value,)


# -- the text of a document

#: Its values are types and descriptions, whatever the names.
_DECLARATIONS: Final = "inputParameters"


_PATH: Final = r"(?:input|sent|request|auth|env|settings)(?:\.[A-Za-z_]\w*|\[(?:\d+|'[^'\n]*'|\"[^\"\n]*\")\])+"
#: A name in the brackets of Jinja2 and n8n, or a reserved one as JavaScript, Ruby, the shell and Xano write it.
_FOREIGN: Final = re.compile(
    r"<<.*?>>"
    r"|(?:^=)?\{\{-? *(\$?[A-Za-z_][^{}]*?) *-?\}\}"
    r"|[$#]\{ *((?:input|sent|request|auth|env|settings|loop|stream|run)\b[^{}]*?) *\}"
    r"|\$\{! *([^{}]*?) *\}"  # Benthos
    r"|\{%([-+]? *(?:if|elif|else|endif|for|endfor|set|endset|macro|endmacro|raw|endraw)\b[^{}%]*?)%\}"
    rf"|(?<![\w$/])\$({_PATH})|(?<![\w%])%({_PATH})%",
    re.DOTALL,
)
#: An input whose binding lacks its brackets.
_BARE: Final = re.compile(r"(?:input|sent)\.([A-Za-z_]\w*)(?:\.\w+|\[\d+\])*")
_MARKS: Final = frozenset("{$%")
#: The root of a path, in other tools of two words: `github.event`.
_ROOT: Final = re.compile(r"\$?[A-Za-z_]\w*")


#: One that means what it means here.
_RESERVED: Final = re.compile(r"\$?(?:input|sent|request|auth|env|settings|loop|stream|run)\b")


def check_texts(root: nodes.Node, reported: Collection[Mark] = ()) -> list[Diagnostic]:
    """Report texts that are, or look like, secrets, and bindings in the brackets of other tools.

    ``reported`` are the places of texts whose brackets are reported elsewhere.
    """
    declared = root.get(_DECLARATIONS) if isinstance(root, nodes.Mapping) else None
    inputs = {key.text for key, _ in declared.items} if isinstance(declared, nodes.Mapping) else set()
    return [*find_secrets(root, unnamed=(_DECLARATIONS,)), *_search(root, reported, inputs)]


def _search(node: nodes.Node, reported: Collection[Mark], inputs: Collection[str]) -> Iterator[Diagnostic]:
    """Yield the bindings that other tools would read as such. ``inputs`` are the declared ones."""
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _search(item, reported, inputs)
    elif isinstance(node, nodes.Mapping):
        for _, item in node.items:
            yield from _search(item, reported, inputs)
    elif isinstance(node.value, str) and node.mark not in reported and not _MARKS.isdisjoint(node.value):
        yield from _foreign(node, node.value)
    elif (bare := _BARE.fullmatch(node.text)) is not None and node.style == "plain" and bare[1] in inputs:
        hint = f"write `<<{node.text}>>`"
        message = f"`{node.text}` is a text, and is sent unchanged"
        yield make_diagnostic("foreign-binding", node.mark, message, hint, node.rewrite(f"<<{node.text}>>"))


def _foreign(node: Scalar, text: str) -> Iterator[Diagnostic]:
    for match in _FOREIGN.finditer(text):
        if match.lastindex is None:
            continue  # a binding
        written, inner, instead = match[0], match[1] or match[2] or match[3] or match[5] or match[6] or "", ""
        root = _ROOT.match(inner)
        advice = look_up(root[0], NAMES) if root is not None else None
        if match[4] is not None:
            instead = f"<%{match[4]}%>"
        elif _RESERVED.match(inner):
            instead = f"<<{inner.lstrip('$')}>>"
        elif match[3] is None and root is not None and advice is not None and advice.name:
            instead = f"<<{advice.name}{inner[root.end() :]}>>"
        elif not inner.startswith("$") and match[3] is None:
            instead = f"<<{inner}>>"
        hint = "write a value of this definition between << and >>, such as <<input.name>>"
        if instead:
            hint = f"write `{instead}`"
        replacement = node.replacement(match.start(), match.end(), instead) if instead else None
        mark = node.mark_at(match.start())
        yield make_diagnostic("foreign-binding", mark, f"`{written}` is sent unchanged", hint, replacement)


def suppress(
    findings: Iterable[Diagnostic], unsuppressed: Iterable[Diagnostic], definition: Definition, root: nodes.Node
) -> list[Diagnostic]:
    """Leave out the findings of a document that its author allows.

    Those of ``unsuppressed`` stay: nothing can run without what they miss. Where they are allowed, they say so.
    """
    ranges = _ranges(definition, root)

    def allowed(finding: Diagnostic) -> bool:
        return finding.code in definition.allow or any(
            finding.code in codes and begin <= finding.mark <= end for codes, begin, end in ranges
        )

    left = [finding for finding in findings if not allowed(finding)]
    for each in unsuppressed:
        why = "`allow` silences warnings and what is proved about names and streams: this has to be corrected"
        left.append(replace(each, hint="; ".join(filter(None, (each.hint, why)))) if allowed(each) else each)
    return left


def _ranges(definition: Definition, root: nodes.Node) -> list[tuple[frozenset[str], Mark, Mark]]:
    """Return the codes that steps allow, each with the first and last place of its step."""
    allowing = {step.mark: step.allow for step in steps_of(definition.stack) if step.allow}
    if not allowing:
        return []
    return [(allowing[node.mark], node.mark, end_of(node)) for node in _mappings(root) if node.mark in allowing]


def _mappings(node: nodes.Node) -> Iterable[nodes.Mapping]:
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _mappings(item)
    elif isinstance(node, nodes.Mapping):
        yield node
        for _, item in node.items:
            yield from _mappings(item)


def end_of(node: nodes.Node) -> Mark:
    """Return the last place of a node."""
    if isinstance(node, Scalar):
        return max(node.mark, node.mark_at(len(node.text)))
    inner = node.items if isinstance(node, Sequence) else [each for pair in node.items for each in pair]
    return max((end_of(each) for each in inner), default=node.mark)

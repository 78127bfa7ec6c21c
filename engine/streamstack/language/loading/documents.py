"""From a document to a definition: the keys of each kind, and every fault with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Final

from streamstack.errors import Diagnostic, Mark, fast_dataclass
from streamstack.formats import BY_NAME, DIALECTS
from streamstack.formats.spec import Format
from streamstack.language.authentication import SCOPE
from streamstack.language.definition import (
    STRICT,
    Arguments,
    Authentication,
    Cache,
    ConstantArgument,
    Definition,
    Endpoint,
    FunctionDefinition,
    GroupDefinition,
    Input,
    InputRules,
    Items,
    RateLimit,
    Registry,
    Stack,
    Task,
    Way,
)
from streamstack.language.expressions import Value
from streamstack.language.keys import CACHE, DOCUMENTS, LIMIT, METHODS, TYPES, WAY
from streamstack.language.loading.arguments import (
    ArgumentReader,
    Faults,
    check_content_type,
    describe,
    format_of_headers,
    python_values,
    read_headers,
)
from streamstack.language.loading.groups import CallReader, Inheritance, without_rejections
from streamstack.language.loading.inputs import check_promises, check_sent, check_streams, read_input, read_inputs
from streamstack.language.loading.steps import StepReader
from streamstack.language.names import DEFINITION, certain, nearest, suggestion
from streamstack.language.nodes import Document, Mapping, Node, Scalar, Sequence
from streamstack.language.paths import refuse_path
from streamstack.language.settings import RESUMABLE, Streaming, parse_streaming
from streamstack.language.values import MISSING, parse_rate
from streamstack.spec import fields_of, is_null

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Keys of which the text is looked at more closely than its type, and `streaming`, which has a reader of its own.
_UNREAD: Final = ("kind", "method", "path", "name", "streaming", "authentication", "before", "after")


@fast_dataclass()
class Reading:
    """What could be read of a document, with all that was found.

    ``definition`` stands even where there are errors, as far as it could be read. ``whole`` tells
    that nothing was left out of it, so that its names can be analysed. ``unread`` are the words of the steps that were,
    where nothing else was left out; None without any.
    """

    definition: Definition | GroupDefinition | None
    findings: list[Diagnostic]
    whole: bool
    unread: frozenset[str] | None = None


def load(
    document: Document, registry: Registry, streaming_defaults: Streaming, input_rules: InputRules = STRICT
) -> tuple[Definition | GroupDefinition | None, list[Diagnostic]]:
    """Load a document; None where it has an error, since it could not be run.

    All faults of the document are found in one go. Nothing is raised.
    """
    reading = read_document(document, registry, Inheritance(streaming_defaults), input_rules)
    failed = any(finding.severity == "error" for finding in reading.findings)
    return None if failed else reading.definition, reading.findings


def read_document(
    document: Document, registry: Registry, inheritance: Inheritance, input_rules: InputRules = STRICT
) -> Reading:
    """Read as much of a document as its faults allow.

    ``inheritance`` is what it has from the settings and its groups, ``input_rules`` are those of the settings.
    """
    faults = Faults()
    root = document.root
    if not isinstance(root, Mapping):
        faults.add(
            "not-a-mapping",
            root.mark,
            f"a definition must be a mapping of keys, not {describe(root)}",
            "write `method: GET`, `path: /...`, `functionStack:` and so on",
        )
        return Reading(None, faults.found, whole=False)
    if _is_foreign(root):
        faults.add(
            "not-a-definition",
            root.mark,
            "is this a definition? It has none of `method`, `path` and `functionStack`",
            f"if not, add it to streamstack.yaml: `ignore: [{PurePath(root.mark.file).name}]`",
        )
        return Reading(None, faults.found, whole=False)
    definition = _DocumentReader(root, registry, faults).read(inheritance, input_rules)
    sound = definition is not None and not faults.holes
    unread = None if faults.unread is None or not sound else frozenset(faults.unread)
    return Reading(definition, faults.found, whole=sound and unread is None, unread=unread)


def _is_foreign(root: Mapping) -> bool:
    """Return whether a document has unknown keys, and none that only a definition has, not even misspelt."""
    names = [key.text for key, _ in root.items]
    known = {field.name for fields in DOCUMENTS.values() for field in fields}
    kind = root.get("kind")
    if isinstance(kind, Scalar) and kind.text in DOCUMENTS:
        return False
    own = ("method", "path", "functionStack", "inputParameters", "responseType")
    return any(name not in known for name in names) and not any(name in own or nearest(name, own) for name in names)


class _DocumentReader:
    """Reads one document whose root is a mapping."""

    def __init__(self, root: Mapping, registry: Registry, faults: Faults) -> None:
        self.root = root
        self.faults = faults
        self.owner = "a definition"
        steps = StepReader(registry, faults)
        self.arguments = ArgumentReader(faults, steps.read_stack, of_steps=False)
        self.calls = CallReader(faults, self.arguments, steps)

    def read(self, inheritance: Inheritance, input_rules: InputRules) -> Definition | GroupDefinition | None:
        kind = self._kind()
        if kind is None:
            return None
        self.owner = f"{'an' if kind == 'endpoint' else 'a'} {kind}"
        fields = DOCUMENTS[kind]
        unread = [each.name for each in fields if each.name in _UNREAD]
        self._move_declarations()
        self.root, _ = self.arguments.as_meant(fields, self.root, self.owner)
        written = self.root
        if kind in ("endpoint", "group"):
            self.root = inheritance.apply(written) if kind == "endpoint" else without_rejections(written)
        read = self.arguments.read_arguments(fields, self.root, self.owner, "", unread=unread)
        values = python_values(fields, read)
        common = {
            "stack": values.get("function_stack") or Stack((), self.root.mark),
            "mark": self.root.mark,
            "summary": values.get("summary", ""),
            "description": values.get("description", ""),
            "disabled": values.get("disabled", False),
            "allow": frozenset(values.get("allow", ())),
        }
        if kind in ("endpoint", "group"):
            common["stack"] = self.calls.around(self.root, common["stack"])
        if kind == "endpoint":
            return self._endpoint(values, common, inheritance, input_rules)
        if kind == "group":
            return replace(self._group(values, common, inheritance.streaming), root=written)
        common |= {"name": self._name(), "name_mark": self._mark_of("name")}
        return self._function(common) if kind == "function" else self._task(common)

    def _move_declarations(self) -> None:
        """Report declarations below `inputs`, as other tools call them, and read them as what they are."""
        rules, key = self._get("inputs"), self.root.key("inputs")
        if not isinstance(rules, Mapping) or key is None or self.root.key("inputParameters") is not None:
            return
        if not any(isinstance(value, Mapping) or getattr(value, "text", "") in TYPES for _, value in rules.items):
            return
        message = "`inputs` of an endpoint is how strictly its inputs are checked, and not what they are"
        replacement = key.replacement(0, len(key.text), "inputParameters")
        self.faults.add("unknown-key", key.mark, message, "did you mean `inputParameters`?", replacement)
        renamed = (
            (replace(name, text="inputParameters") if name is key else name, value) for name, value in self.root.items
        )
        self.root = replace(self.root, items=tuple(renamed))

    def _get(self, key: str) -> Node | None:
        """Return a value that is given, or None."""
        node = self.root.get(key)
        return None if is_null(node) else node

    def _mark_of(self, key: str) -> Mark:
        node = self._get(key)
        return self.root.mark if node is None else node.mark

    def _kind(self) -> str | None:
        node = self._get("kind")
        if node is None:
            return "endpoint"
        if isinstance(node, Scalar) and node.text in DOCUMENTS:
            return node.text
        shown = f"`{node.text}`" if isinstance(node, Scalar) else describe(node)
        hint = suggestion(node.text, DOCUMENTS) if isinstance(node, Scalar) else ""
        sure = certain(node.text, DOCUMENTS) if isinstance(node, Scalar) else ""
        replacement = node.replacement(0, len(node.text), sure) if sure and isinstance(node, Scalar) else None
        self.faults.add("bad-kind", node.mark, f"{shown} is not a document kind", hint, replacement)
        return None

    def _endpoint(
        self, values: dict[str, Any], common: dict[str, Any], inheritance: Inheritance, input_rules: InputRules
    ) -> Endpoint:
        streaming_defaults = inheritance.streaming
        declared = self._get("inputParameters")
        inputs = read_inputs(declared, self.faults)
        path, method = self._path(inheritance.prefix), self._method()
        names = {key.text for key, _ in declared.items} if isinstance(declared, Mapping) else set()
        check_sent(inputs, names, path, self._mark_of("path"), self.faults)
        response_type = values.get("response_type", "streaming")
        headers = read_headers(self._get("headers"), self.faults)
        chosen = format_of_headers(headers) if response_type == "streaming" else ""
        if chosen and streaming_defaults.format == "auto":
            resume = streaming_defaults.resume if chosen in RESUMABLE else None
            streaming_defaults = replace(streaming_defaults, format=chosen, resume=resume)
        streaming = self._streaming(streaming_defaults, response_type, inputs)
        if chosen and streaming.format == "auto":
            streaming = replace(streaming, format=chosen)
        # The SDKs send all that their own server takes; an endpoint declares what it uses of it.
        speaks = response_type == "streaming" and streaming.format in DIALECTS
        check_streams(inputs, method, streaming.format if response_type == "streaming" else "", self.faults)
        if response_type == "streaming" and streaming.format == "websocket" and method not in ("GET", ""):
            message = f"`format: websocket` is opened with a GET request, and the method is {method}"
            self.faults.add("bad-method", self._mark_of("method"), message, "write `method: GET`")
        check_content_type(headers, response_type, streaming.format, self.faults)
        return Endpoint(
            method=method,
            path=path,
            path_mark=self._mark_of("path"),
            response_type=response_type,
            streaming=streaming,
            inputs=inputs,
            tags=values.get("tags", ()),
            headers=headers,
            input_rules=self._input_rules(values, replace(input_rules, unknown="ignore") if speaks else input_rules),
            response=values.get("response"),
            chunks=self._chunks(response_type),
            response_schema=self._response_schema(response_type),
            authentication=self._authentication(),
            rate_limits=self._rate_limits(values.get("rate_limit", ())),
            cache=self._cache(values.get("cache"), inputs),
            **common,
        )

    def _chunks(self, response_type: str) -> tuple[Input, ...]:
        """Return the types that chunks are declared to have, by event name."""
        chunks = read_inputs(self._get("chunks"), self.faults, "chunks")
        check_promises(chunks, self.faults)
        if chunks and response_type == "json":
            message = "the endpoint sends a JSON response, so it has no `chunks`"
            self.faults.add("no-effect", self._mark_of("chunks"), message, "write `responseSchema`")
        return chunks

    def _response_schema(self, response_type: str) -> Input | None:
        node, key = self._get("responseSchema"), self.root.key("responseSchema")
        if node is None or key is None:
            return None
        declared = read_input("responseSchema", key.mark, node, self.faults)
        if declared is not None:
            check_promises((declared,), self.faults)
        if response_type != "json":
            message = "a streaming endpoint has no single response"
            self.faults.add("no-effect", key.mark, message, "write `chunks`, with a type for each event name")
        return declared

    def _input_rules(self, values: dict[str, Any], defaults: InputRules) -> InputRules:
        rules = values.get("inputs")
        chosen = {} if rules is None else python_values(fields_of(InputRules), rules)
        short = values.get("unknown_inputs")
        if short and chosen.setdefault("unknown", short) != short:
            message = "`unknownInputs` contradicts `unknown` of `inputs`"
            self.faults.add("conflicting-parameters", self._mark_of("unknownInputs"), message, "remove it")
        return replace(defaults, **chosen)

    def _streaming(self, defaults: Streaming, response_type: str, inputs: tuple[Input, ...]) -> Streaming:
        node = self._get("streaming")
        if response_type != "streaming":
            defaults = replace(defaults, resume=None)  # for others: nothing here has to go with it
        if node is not None and not isinstance(node, Mapping):
            message = f"`streaming` of {self.owner} must be a mapping, not {describe(node)}"
            hint = "write `{format: sse}`, or remove it"
            self.faults.add("wrong-type", node.mark, message, hint)
        if not isinstance(node, Mapping):
            return self._resumed(defaults, response_type)
        streaming, problems = parse_streaming(node, defaults)
        self.faults.extend(problems)
        if not problems:
            check_effects(node, streaming, defaults, response_type, inputs, self.faults)
        return self._resumed(streaming, response_type)

    def _resumed(self, streaming: Streaming, response_type: str) -> Streaming:
        """Take `resume` from what is not a stream; report it where the endpoint itself asks for it."""
        if streaming.resume is None or response_type == "streaming":
            return streaming
        node = self._get("streaming")
        resume = node.get("resume") if isinstance(node, Mapping) else None
        if resume is not None:
            message = "the endpoint sends a JSON response, so it has no stream to resume"
            hint = "write `responseType: streaming`"
            self.faults.add("not-resumable", resume.mark, message, hint)
        return replace(streaming, resume=None)

    def _function(self, common: dict[str, Any]) -> FunctionDefinition:
        inputs = read_inputs(self._get("inputParameters"), self.faults)
        for declared in inputs:
            if declared.location is not None:
                self.faults.add(
                    "bad-constraint",
                    declared.mark,
                    f"`{declared.name}` has `in`, and a function's inputs come from `call`",
                    "remove it",
                )
        return FunctionDefinition(inputs=inputs, **common)

    def _group(self, values: dict[str, Any], common: dict[str, Any], defaults: Streaming) -> GroupDefinition:
        read_headers(self._get("headers"), self.faults)
        self._rate_limits(values.get("rate_limit", ()))
        node = self._get("streaming")
        if isinstance(node, Mapping):
            self.faults.extend(parse_streaming(node, defaults)[1])
        elif node is not None:
            message = f"`streaming` of a group must be a mapping, not {describe(node)}"
            self.faults.add("wrong-type", node.mark, message, "write `{format: sse}`, or remove it")
        return GroupDefinition(
            path=self._path().rstrip("/"),
            root=self.root,
            stack=common["stack"],
            mark=common["mark"],
            authentication=self._authentication(),
            allow=common["allow"],
        )

    def _task(self, common: dict[str, Any]) -> Task:
        message = "tasks are not supported by this version"
        self.faults.add("not-yet", self._mark_of("kind"), message)
        return Task(schedule=self._get("schedule") or self.root, **common)

    def _text(self, key: str) -> str | None:
        """Return a required text; None where it is missing, which is reported elsewhere, or none."""
        node = self._get(key)
        if node is None or isinstance(node, Scalar):
            return None if node is None else node.text
        message = f"`{key}` of {self.owner} must be a text, not {describe(node)}"
        self.faults.add("wrong-type", node.mark, message)
        return None

    def _name(self) -> str:
        name = self._text("name")
        if name is not None and DEFINITION.fullmatch(name) is None:
            self.faults.add(
                "bad-name",
                self._mark_of("name"),
                f"`{name}` is not a valid name for {self.owner}",
                "begin with a letter or `_`, then letters, digits, `_` or `-`",
            )
        return name or ""

    def _method(self) -> str:
        node = self._get("method")
        if node is None:
            return "GET"
        if isinstance(node, Scalar) and node.text in METHODS:
            return node.text
        shown = f"`{node.text}`" if isinstance(node, Scalar) else describe(node)
        upper = node.text.upper() if isinstance(node, Scalar) else ""
        meant = f"did you mean `{upper}`?" if upper in METHODS else ""
        replacement = node.replacement(0, len(upper), upper) if meant and isinstance(node, Scalar) else None
        self.faults.add("bad-method", node.mark, f"{shown} is not an HTTP method", meant, replacement)
        return "GET"

    def _path(self, prefix: str = "") -> str:
        path = self._text("path")
        fault = None if path is None else refuse_path(path)
        if path is None:
            return ""
        if fault is None:
            whole = f"{prefix}{path}".rstrip("/") or "/" if prefix else path
            if prefix and (fault := refuse_path(whole)) is not None:  # both have a parameter of one name
                self.faults.add("bad-path", self._mark_of("path"), f"with the prefix of its group: {fault.message}")
            return whole
        node = self._get("path")
        replacement = None
        if fault.instead and isinstance(node, Scalar):
            replacement = node.replacement(0, len(node.text), fault.instead)
        self.faults.add("bad-path", self._mark_of("path"), fault.message, fault.hint, replacement)
        return fault.instead

    def _authentication(self) -> Authentication | None:
        """Return who may call an endpoint; None for everybody."""
        node = self._get("authentication")
        if node is None or (isinstance(node, Scalar) and node.value == _NONE):
            return None
        reading = _WaysReader(self.faults, self.arguments)
        reading.read(node)
        if not reading.ways and not self.faults.failed:
            reading.refuse(node)
        # Even where something is wrong: it is not everybody who may call.
        return Authentication(tuple(reading.ways), reading.optional)

    def _cache(self, arguments: Arguments | None, inputs: tuple[Input, ...]) -> Cache | None:
        if not isinstance(arguments, Arguments):
            return None
        for each in inputs:
            if each.type in ("file", "stream"):
                message = f"the endpoint has a {each.type} as input, so its answers can't be cached"
                self.faults.add("not-cacheable", arguments.mark, message)
        values = python_values(CACHE, arguments)
        names = values.pop("headers", ())
        for name in names:
            if _HEADER.fullmatch(name) is None:
                message = f"`{name}` is not a valid header name: letters, digits and - only"
                self.faults.add("bad-name", arguments.mark, message)
        if not isinstance(values.get("ttl"), float | int):
            return None  # which is reported
        if isinstance(by := values.get("by"), Value) and by.constant is None:
            del values["by"]
        return Cache(arguments.mark, headers=tuple(map(str.lower, names)), **values)

    def _rate_limits(self, limits: tuple[Arguments, ...]) -> tuple[RateLimit, ...]:
        node = self._get("rateLimit")
        for each in node.items if isinstance(node, Sequence) else (node,):
            if not isinstance(each, Mapping) or not is_null(each.get("limit")):
                continue
            algorithm = each.key("algorithm")
            if is_null(each.get("concurrent")):
                message = "a limit requires `limit` or `concurrent`"
                self.faults.add("missing-parameter", each.mark, message, "add `limit: 60/minute`")
            elif algorithm is not None:
                message = "`algorithm` says how `limit` counts, but `limit` is missing"
                hint = "add `limit: 60/minute`"
                self.faults.add("missing-parameter", algorithm.mark, message, hint)
        return tuple(map(self._rate_limit, limits))

    def _rate_limit(self, arguments: Arguments) -> RateLimit:
        values = {
            name: each.constant if isinstance(each, Value) and each.constant is not MISSING else each
            for name, each in python_values(LIMIT, arguments).items()
        }
        limit = values.pop("limit", None)
        # What is wrong was reported where it was read.
        fitting: dict[str, Any] = {"by": (str, Value), "concurrent": (int, Value), "algorithm": str}
        values = {name: each for name, each in values.items() if isinstance(each, fitting[name])}
        try:
            rate = limit if isinstance(limit, Value) or limit is None else parse_rate(limit)
        except ValueError:
            rate = None
        return RateLimit(arguments.mark, rate, **values)


_WAYS: Final = "write a name, [name, name] for any of them, or {name: {scopes: [chat], optional: true}}"
#: What says that everybody may call.
_NONE: Final = "none"


class _WaysReader:
    """Reads the ways in, whatever form they have."""

    def __init__(self, faults: Faults, arguments: ArgumentReader) -> None:
        self.faults = faults
        self._arguments = arguments
        self.ways: list[Way] = []
        self.optional = False

    def read(self, node: Node) -> None:
        if isinstance(node, Sequence):
            for item in node.items:
                if isinstance(item, Sequence):
                    self.refuse(item)
                else:
                    self.read(item)
        elif isinstance(node, Mapping):
            for key, options in node.items:
                self._add(Way(key.text, self._options(options), key.mark))
        elif isinstance(node.value, str) and node.value not in ("", _NONE) and "<<" not in node.value:
            self._add(Way(node.value, (), node.mark))
        else:
            self.refuse(node)

    def refuse(self, node: Node) -> None:
        """Report what is not an authentication."""
        if isinstance(node, Scalar) and isinstance(node.value, str) and "<<" in node.value:
            message = "authentication is set when the file is loaded: a binding is not allowed here"
            self.faults.add("constant-required", node.mark, message, _WAYS)
            return
        message = "`authentication` of an endpoint names those of the settings"
        self.faults.add("wrong-type", node.mark, message, _WAYS)

    def _add(self, way: Way) -> None:
        if any(each.name == way.name for each in self.ways):
            self.faults.add("duplicate-name", way.mark, f"`{way.name}` is named twice")
        self.ways.append(way)

    def _options(self, node: Node) -> tuple[str, ...]:
        """Return the scopes that a way must give; note whether it is optional."""
        if is_null(node):
            return ()
        if not isinstance(node, Mapping):
            self.faults.add("wrong-type", node.mark, "the value of an authentication must be a mapping", _WAYS)
            return ()
        read = self._arguments.read_arguments(WAY, node, "an authentication", "")
        self.optional = self.optional or python_values(WAY, read).get("optional", False)
        listed = read.get("scopes")
        scopes = (
            [each for each in listed.items if isinstance(each, ConstantArgument)] if isinstance(listed, Items) else []
        )
        for scope in scopes:
            if SCOPE.fullmatch(scope.value) is None:
                message = f"`{scope.value}` is not a valid scope: a scope has no spaces, quotes or backslashes"
                self.faults.add("wrong-type", scope.mark, message, "write [chat, read] for several")
        return tuple(scope.value for scope in scopes)


# -- keys of `streaming` without effect

#: What needs chunks that leave one after another. `resume` is refused with words of its own.
_CHUNKS: Final = (
    "format",
    "keepAlive",
    "maxBytes",
    "slowClient",
    "buffer",
    "compress",
    "done",
    "ids",
    "separator",
    "end",
)
_OWN_END: Final = "always has the end that its SDKs wait for"
_IN_ONE: Final = "is sent in one piece, at the end"
_OWN_FORM: Final = "has its own format for chunks"

#: By key: in which formats it has an effect, and what the others are like.
_BY_FORMAT: Final[dict[str, tuple[Callable[[Format], bool], str]]] = {
    "keepAlive": (lambda format_: format_.heartbeats, "has no heartbeats"),
    "ids": (lambda format_: format_.numbered, "does not number its chunks"),
    "done": (lambda format_: format_.done_event, "has no end event"),
    "separator": (lambda format_: format_.separated, _OWN_FORM),
    "end": (lambda format_: format_.separated, _OWN_FORM),
    "buffer": (lambda format_: not format_.whole, _IN_ONE),
    "compress": (lambda format_: not format_.whole, _IN_ONE),
    "slowClient": (lambda format_: not format_.whole, _IN_ONE),
}


def check_effects(
    node: Mapping,
    streaming: Streaming,
    defaults: Streaming,
    response_type: str,
    inputs: tuple[Input, ...],
    faults: Faults,
) -> None:
    """Report the keys of an endpoint's own `streaming:` that change nothing, where that is certain.

    Not those of the project's ``defaults``: each of them may be of use to some endpoint. What takes one of them back
    has an effect where that had one.
    """
    marks = {key.text: key.mark for key, value in node.items if not is_null(value)}
    if response_type == "json":
        receives = any(each.type == "stream" for each in inputs)
        useless = _CHUNKS if receives else (*_CHUNKS, "idleTimeout")
        for key in useless:
            if key in marks:
                faults.add(
                    "no-effect",
                    marks[key],
                    f"`{key}` has no effect: the endpoint sends a JSON response",
                    "write `responseType: streaming`, or remove it",
                )
    else:
        _check_format(marks, streaming, defaults, faults)
    _check_parts(node, streaming, response_type, faults)


def _check_format(marks: dict[str, Mark], streaming: Streaming, defaults: Streaming, faults: Faults) -> None:
    if (format_ := BY_NAME.get(streaming.format)) is None:
        return  # the request chooses it
    disconnects = "disconnect" in (streaming.slow_client, defaults.slow_client)
    for key, mark in marks.items():
        effect, why = _BY_FORMAT.get(key, (None, ""))
        if effect is None or effect(format_):
            continue
        if key == "ids" and streaming.resume is not None:
            continue  # without them no reader can come back, whatever the format calls them
        if key == "slowClient" and disconnects:
            continue  # it is how long a reader has for that piece
        if key == "done" and format_.dialect:
            why = _OWN_END
        message = f"`{key}` has no effect: `format: {format_.name}` {why}"
        faults.add("no-effect", mark, message, "remove it, or write another format")


def _check_parts(node: Mapping, streaming: Streaming, response_type: str, faults: Faults) -> None:
    """Report the parts of keys that change nothing."""
    for key, part, mark in _parts_of(node):
        if (key, part) == ("slowClient", "grace"):
            mode = streaming.slow_client
            # For an answer in one piece the finding is about the whole key.
            if mode != "disconnect" and response_type != "json" and streaming.format != "json":
                message = f"`grace` has no effect: `slowClient: {mode}` does not disconnect clients"
                faults.add("no-effect", mark, message, "write `mode: disconnect`, or remove it")
        elif (key, part) == ("maxDuration", "jitter"):
            if response_type == "json":
                message = "`jitter` has no effect: the endpoint sends a JSON response"
                faults.add("no-effect", mark, message, "remove it")
            elif not streaming.max_duration:
                message = "`jitter` has no effect: `maxDuration` is off, so that nothing is shorter"
                faults.add("no-effect", mark, message, "give a `limit`, or remove it")


def _parts_of(node: Mapping) -> Iterator[tuple[str, str, Mark]]:
    for key, value in node.items:
        for part, item in value.items if isinstance(value, Mapping) else ():
            if not is_null(item):
                yield key.text, part.text, part.mark

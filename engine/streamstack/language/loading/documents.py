"""From a document to a definition: the keys of each kind, and every fault with its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streamstack.errors import Diagnostic, Mark
from streamstack.formats import DIALECTS
from streamstack.language.declare import Registry
from streamstack.language.definition import (
    Definition,
    Endpoint,
    FunctionDefinition,
    Input,
    Stack,
    Task,
)
from streamstack.language.expressions import Value, parse_value
from streamstack.language.loading.authentication import read_authentication
from streamstack.language.loading.effects import check_effects
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.fields import Fields
from streamstack.language.loading.headers import check_content_type, read_headers
from streamstack.language.loading.inputs import read_inputs
from streamstack.language.loading.keys import KEYS, RESPONSE_TYPES, UNKNOWN_INPUTS
from streamstack.language.loading.limits import read_limits
from streamstack.language.loading.paths import METHODS, refuse_path
from streamstack.language.loading.sent import check_sent, check_streams
from streamstack.language.loading.steps import StepReader
from streamstack.language.loading.wording import describe, listed
from streamstack.language.names import DEFINITION
from streamstack.language.reading.nodes import Document, Mapping, Node, Scalar
from streamstack.language.streaming_settings import Streaming, parse_streaming
from streamstack.language.suggest import nearest
from streamstack.records import record

#: Keys that this version reads and refuses, and what it would mean to ignore them.
_NOT_YET: Final = {
    "cache": "would keep nothing",
}


@record()
class Reading:
    """What could be read of a document, with all that was found.

    ``definition`` stands even where there are errors, as far as it could be read. ``whole`` tells
    that nothing was left out of it, so that its names can be analysed.
    """

    definition: Definition | None
    findings: list[Diagnostic]
    whole: bool


def load(
    document: Document, registry: Registry, streaming_defaults: Streaming
) -> tuple[Definition | None, list[Diagnostic]]:
    """Load a document; None where it has an error, since it could not be run.

    All faults of the document are found in one go. Nothing is raised.
    """
    reading = read_document(document, registry, streaming_defaults)
    failed = any(finding.severity == "error" for finding in reading.findings)
    return None if failed else reading.definition, reading.findings


def read_document(document: Document, registry: Registry, streaming_defaults: Streaming) -> Reading:
    """Read as much of a document as its faults allow."""
    faults = Faults()
    root = document.root
    if not isinstance(root, Mapping):
        faults.add(
            "not-a-mapping",
            root.mark,
            f"a definition is a mapping of keys, and this is {describe(root)}",
            "write `method: GET`, `path: /...`, `functionStack:` and so on",
        )
        return Reading(None, faults.found, whole=False)
    definition = _DocumentReader(root, registry, faults).read(streaming_defaults)
    return Reading(definition, faults.found, whole=definition is not None and not faults.holes)


class _DocumentReader:
    """Reads one document whose root is a mapping."""

    def __init__(self, root: Mapping, registry: Registry, faults: Faults) -> None:
        self.root = root
        self.faults = faults
        self.fields = Fields(root, "a definition", faults)
        self.steps = StepReader(registry, faults)

    def read(self, streaming_defaults: Streaming) -> Definition | None:
        kind = self._kind()
        if kind is None:
            return None
        article = "an" if kind == "endpoint" else "a"
        self.fields = Fields(self.root, f"{article} {kind}", self.faults)
        served = [key for key in KEYS[kind] if key not in _NOT_YET]
        self.fields.refuse_unknown(KEYS[kind], f"its keys are {listed(served, 'and')}")
        if kind == "endpoint":
            return self._endpoint(streaming_defaults)
        return self._function() if kind == "function" else self._task()

    def _kind(self) -> str | None:
        node = self.fields.get("kind")
        if node is None:
            return "endpoint"
        if isinstance(node, Scalar) and node.text in KEYS:
            return node.text
        near = nearest(node.text, KEYS) if isinstance(node, Scalar) else None
        shown = f"`{node.text}`" if isinstance(node, Scalar) else describe(node)
        self.faults.add(
            "bad-kind",
            node.mark,
            f"{shown} is no kind of document",
            f"did you mean `{near}`?" if near else "",
        )
        return None

    def _endpoint(self, streaming_defaults: Streaming) -> Endpoint:
        fields = self.fields
        for key, meaning in _NOT_YET.items():
            if fields.get(key) is not None:
                self.faults.add(
                    "not-yet",
                    fields.key_mark(key),
                    f"`{key}` is not served by this version, which {meaning}: it is refused",
                    "leave it out, where what stands before the server does the same",
                )
        inputs = read_inputs(fields.get("inputParameters"), self.faults)
        path, path_mark = self._path()
        method = self._method()
        given = fields.get("inputParameters")
        written = {key.text for key, _ in given.items} if isinstance(given, Mapping) else set()
        check_sent(inputs, written, path, path_mark, self.faults)
        response_type = fields.choice("responseType", RESPONSE_TYPES, "streaming")
        streaming = self._streaming(streaming_defaults, response_type, inputs)
        # The SDKs send all that their own server takes; an endpoint declares what it uses of it.
        speaks = response_type == "streaming" and streaming.format in DIALECTS
        check_streams(inputs, method, streaming.format if speaks else "", self.faults)
        headers = read_headers(fields.get("headers"), self.faults)
        check_content_type(headers, response_type, streaming.format, self.faults)
        unknown_inputs = "ignore" if speaks else "refuse"
        return Endpoint(
            method=method,
            path=path,
            response_type=response_type,
            streaming=streaming,
            inputs=inputs,
            stack=self._stack(),
            mark=self.root.mark,
            path_mark=path_mark,
            summary=fields.text("summary"),
            description=fields.text("description"),
            tags=tuple(tag for tag, _ in fields.names("tags")),
            headers=headers,
            unknown_inputs=fields.choice("unknownInputs", UNKNOWN_INPUTS, unknown_inputs),
            response=self._response(),
            disabled=fields.flag("disabled"),
            allow=fields.codes("allow"),
            authentication=read_authentication(fields, self.faults),
            rate_limits=read_limits(fields, self.faults),
            cache=fields.get("cache"),
        )

    def _streaming(
        self, defaults: Streaming, response_type: str, inputs: tuple[Input, ...]
    ) -> Streaming:
        node = self.fields.get("streaming")
        if response_type != "streaming":
            defaults = replace(defaults, resume=None)  # for others: nothing here has to go with it
        if node is not None and not isinstance(node, Mapping):
            hint = "write `{format: sse}`, or leave it out"
            self.fields.wrong("streaming", node, "a mapping", hint)
        if not isinstance(node, Mapping):
            return self._resumed(defaults, response_type)
        streaming, problems = parse_streaming(node, defaults)
        self.faults.extend(problems)
        if not problems:
            check_effects(node, streaming, defaults, response_type, inputs, self.faults)
        return self._resumed(streaming, response_type)

    def _resumed(self, streaming: Streaming, response_type: str) -> Streaming:
        """Take `resume` from what is no stream; report it where the endpoint itself asks for it."""
        if streaming.resume is None or response_type == "streaming":
            return streaming
        node = self.fields.get("streaming")
        for key, value in node.items if isinstance(node, Mapping) else ():
            if key.text == "resume":
                message = "the endpoint answers with JSON in one piece: there is no stream to come back to"
                self.faults.add(
                    "not-resumable", value.mark, message, "write `responseType: streaming`"
                )
        return replace(streaming, resume=None)

    def _function(self) -> FunctionDefinition:
        fields = self.fields
        inputs = read_inputs(fields.get("inputParameters"), self.faults)
        for declared in inputs:
            if declared.location is not None:
                self.faults.add(
                    "bad-constraint",
                    declared.mark,
                    f"`{declared.name}` has `in`, and a function's inputs come from `call`",
                    "take it out",
                )
        return FunctionDefinition(
            name=self._name(),
            inputs=inputs,
            stack=self._stack(),
            mark=self.root.mark,
            name_mark=self._mark_of("name"),
            description=fields.text("description"),
            summary=fields.text("summary"),
            disabled=fields.flag("disabled"),
            allow=fields.codes("allow"),
        )

    def _task(self) -> Task:
        fields = self.fields
        self.faults.add(
            "not-yet",
            self._mark_of("kind"),
            "tasks are not served by this version, which would never run them: they are refused",
        )
        schedule = self._required("schedule", "add `schedule: {every: 5m}`")
        if schedule is not None and not isinstance(schedule, Mapping):
            fields.wrong("schedule", schedule, "a mapping", "write `{every: 5m}`")
        return Task(
            name=self._name(),
            schedule=schedule or self.root,
            stack=self._stack(),
            mark=self.root.mark,
            name_mark=self._mark_of("name"),
            description=fields.text("description"),
            summary=fields.text("summary"),
            disabled=fields.flag("disabled"),
            allow=fields.codes("allow"),
        )

    def _required(self, key: str, hint: str) -> Node | None:
        node = self.fields.get(key)
        if node is None:
            self.faults.cut(
                "missing-parameter",
                self.fields.key_mark(key),
                f"{self.fields.what} lacks `{key}`",
                hint,
            )
        return node

    def _mark_of(self, key: str) -> Mark:
        node = self.fields.get(key)
        return self.root.mark if node is None else node.mark

    def _stack(self) -> Stack:
        node = self._required("functionStack", "add `functionStack:` with a list of steps")
        stack = None if node is None else self.steps.read_stack(node, "functionStack")
        return stack or Stack((), self.root.mark)

    def _name(self) -> str:
        node = self._required("name", "add `name: ...`")
        if node is None:
            return ""
        name = self.fields.text("name")
        if isinstance(node, Scalar) and DEFINITION.fullmatch(name) is None:
            self.faults.add(
                "bad-name",
                node.mark,
                f"`{name}` is no name for {self.fields.what}",
                "begin with a letter or `_`, then letters, digits, `_` or `-`",
            )
        return name

    def _method(self) -> str:
        node = self._required("method", "add `method: GET`, or POST where the caller sends a body")
        if node is None:
            return "GET"
        if isinstance(node, Scalar) and node.text in METHODS:
            return node.text
        shown = f"`{node.text}`" if isinstance(node, Scalar) else describe(node)
        upper = node.text.upper() if isinstance(node, Scalar) else ""
        meant = f"did you mean `{upper}`?" if upper in METHODS else ""
        self.faults.add("bad-method", node.mark, f"{shown} is no method", meant)
        return "GET"

    def _path(self) -> tuple[str, Mark]:
        node = self._required("path", "add `path: /...`")
        if node is None:
            return "", self.root.mark
        path = self.fields.text("path")
        if not isinstance(node, Scalar):
            return "", node.mark
        fault = refuse_path(path)
        if fault is not None:
            self.faults.add("bad-path", node.mark, *fault)
            return "", node.mark
        return path, node.mark

    def _response(self) -> Value | None:
        node = self.fields.get("response")
        if node is None:
            return None
        value, problems = parse_value(node)
        self.faults.extend(problems)
        return value

"""The OpenAPI document of a project."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamstack.errors import Mark, fast_dataclass
from streamstack.formats import BY_NAME
from streamstack.language.analysis.emissions import follow_emissions, metadata_events, reachable
from streamstack.language.analysis.promises import OTHERS, UNNAMED
from streamstack.language.analysis.types import Results
from streamstack.language.authentication import ApiKey, CredentialPlace, Method
from streamstack.language.definition import Endpoint, Project
from streamstack.language.graph import JOB_START, Graph
from streamstack.language.openapi.chunks import Payloads, output_schema
from streamstack.language.openapi.components import Components
from streamstack.language.openapi.requests import JSON, make_body, make_parameters, portable, template_of
from streamstack.language.openapi.responses import (
    dialect_content,
    error_statuses,
    formats_of,
    is_bodiless,
    is_validated,
    make_content,
    make_errors,
    make_upgrade,
    own_media_types,
    raised,
    raises_any_status,
    success_headers,
    success_statuses,
)
from streamstack.language.schema import Definitions, Schema, shape_schema, unknown_parts
from streamstack.language.settings import Settings
from streamstack.language.shapes import ANY
from streamstack.language.values import to_json

#: The versions of OpenAPI, by how they are chosen.
VERSIONS: Final = {"3.2": "3.2.0", "3.1": "3.1.2"}
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_TEMPLATE: Final = re.compile(r"\{([^{}]*)\}")


@fast_dataclass()
class Unknown:
    """A chunk, an end marker or a response whose type is not known, or that of some of its parts."""

    mark: Mark
    parts: tuple[str, ...]

    def __str__(self) -> str:
        named = [each for each in self.parts if each]
        return f"{self.mark.file}:{self.mark.line}" + (f" ({', '.join(named)})" if named else "")


@fast_dataclass()
class Api:
    """The document of a project: OpenAPI as JSON data, and what of its emissions has no known type.

    ``emissions`` is how many chunks, end markers and responses there are; ``left_out`` are the inputs whose `schema`
    has references that lead nowhere in the document.
    """

    document: dict[str, Any]
    emissions: int
    unknown: tuple[Unknown, ...]
    left_out: tuple[Unknown, ...] = ()


def make_document(project: Project, settings: Settings, version: str = "3.2") -> Api:
    """Return the OpenAPI document of a project.

    Args:
        project: Its definitions, which have no errors.
        settings: Its settings: authentication, and what `server.openapi` says of the API.
        version: A key of VERSIONS.
    """
    return _Maker(project, settings, version).make()


class _Maker:
    """Makes one document."""

    def __init__(self, project: Project, settings: Settings, version: str) -> None:
        self._project = project
        self._settings = settings
        self._version = version
        self._components = Components()
        self._results = Results(project.functions)
        self._graphs = {name: Graph(each) for name, each in project.functions.items()}
        self._unknown: dict[Mark, Unknown] = {}
        self._marks: set[Mark] = set()
        self._names: set[str] = set()
        self._authored: dict[str, Schema] = {}
        self._left_out: dict[Mark, Unknown] = {}
        self._resumed: list[tuple[Endpoint, Schema]] = []

    def make(self) -> Api:
        about = self._settings.server.openapi
        info = {"title": about.title, "version": about.version}
        if about.description:
            info["description"] = about.description
        paths: dict[str, dict[str, Any]] = {}
        endpoints = sorted((each for each in self._project.endpoints if not each.disabled), key=lambda e: e.path)
        for endpoint in endpoints:
            path = template_of(endpoint.path)
            paths.setdefault(path, {})[endpoint.method.lower()] = self._operation(endpoint)
        self._resumed += [(each, self._job_events()) for each in endpoints if self._starts_jobs(each)]
        if self._resumed:
            paths["/_streams/{id}"] = self._streams()
        for name, schema in self._authored.items():
            self._components.add("schemas", name, portable(schema))
        tags = sorted({tag for each in endpoints for tag in each.tags})
        document = {
            "openapi": VERSIONS[self._version],
            "info": info,
            "servers": [{"url": about.url}],
            **({"tags": [{"name": tag} for tag in tags]} if tags else {}),
            "paths": paths,
            "components": self._components.sections,
        }
        data: dict[str, Any] = json.loads(to_json(document))
        if self._version == "3.1":
            data = _without_items(data)
        unknown, left_out = (
            tuple(sorted(each.values(), key=lambda one: one.mark)) for each in (self._unknown, self._left_out)
        )
        return Api(data, len(self._marks), unknown, left_out)

    # -- operations

    def _operation(self, endpoint: Endpoint) -> dict[str, Any]:
        name = self._name(endpoint)
        operation: dict[str, Any] = {"operationId": name}
        if endpoint.summary:
            operation["summary"] = endpoint.summary
        if endpoint.description:
            operation["description"] = endpoint.description
        if endpoint.tags:
            operation["tags"] = list(endpoint.tags)
        operation["security"] = self._security(endpoint)
        definitions = Definitions("#/components/schemas/", self._authored, f"{name}_")
        parameters = make_parameters(endpoint, definitions)
        if endpoint.streaming.resume is not None:
            parameters += [self._components.parameter("LastEventId"), self._components.parameter("LastEventIdInQuery")]
            if endpoint.method not in ("GET", "HEAD", "OPTIONS"):
                parameters.append(self._components.parameter("IdempotencyKey"))
        if parameters:
            operation["parameters"] = parameters
        body = make_body(endpoint, definitions)
        if body is not None:
            operation["requestBody"] = body
        operation["responses"] = self._responses(
            name, endpoint, definitions, has_body=body is not None, has_parameters=bool(parameters)
        )
        for each in definitions.left_out:
            self._left_out[each.mark] = Unknown(each.mark, (each.name,))
        return operation

    def _name(self, endpoint: Endpoint) -> str:
        """Return the operationId, which is made of the method and the path."""
        parts = [endpoint.method.lower()]
        for segment in _TEMPLATE.sub(lambda found: f" by {found[1].partition(':')[0]} ", endpoint.path).split("/"):
            parts += [word[:1].upper() + word[1:] for word in _WORD.findall(segment)]
        name = "".join(parts)
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def _responses(
        self, name: str, endpoint: Endpoint, definitions: Definitions, *, has_body: bool, has_parameters: bool
    ) -> dict[str, Any]:
        graph = Graph(endpoint)
        nodes = reachable(graph, self._graphs)
        statuses = success_statuses(graph, nodes)
        headers = success_headers(endpoint, nodes, self._components)
        description = endpoint.summary or "The response."
        content = self._content(name, endpoint, graph, definitions)
        for media in own_media_types(endpoint, nodes):
            content.setdefault(media, content.get(JSON, {}))
        responses: dict[str, Any] = {}
        for status in statuses if endpoint.streaming.format != "websocket" else ():
            responses[status] = {"description": description, "headers": headers}
            if content and not is_bodiless(status) and endpoint.method != "HEAD":
                responses[status]["content"] = content
        if endpoint.upgrades:
            responses |= make_upgrade(endpoint, headers)
        ways = endpoint.authentication.ways if endpoint.authentication is not None else ()
        forbidden = any(way.scopes or self._in_cookie(way.name) for way in ways)
        if endpoint.streaming.resume is not None:
            responses["204"] = {"description": "The stream has ended, and the client has received all of it."}
        if is_validated(endpoint):
            responses["304"] = {"description": "The client has the content already.", "headers": headers}
        errors = error_statuses(endpoint, nodes, has_body=has_body, has_parameters=has_parameters, scopes=forbidden)
        spec = BY_NAME.get(endpoint.streaming.format) if endpoint.response_type == "streaming" else None
        any_status = raises_any_status(nodes)
        return responses | make_errors(errors, list(raised(nodes)), self._components, spec, any_status=any_status)

    def _content(self, name: str, endpoint: Endpoint, graph: Graph, definitions: Definitions) -> Schema:
        sent = follow_emissions(endpoint, self._project.functions, self._results)
        promised = {each.name for each in endpoint.chunks}
        if endpoint.response_type == "json":
            shape = sent.response or ANY
            mark = endpoint.mark if endpoint.response is None else endpoint.response.mark
            if endpoint.response_schema is not None:
                self._note(mark, [])
                return {JSON: {"schema": output_schema(endpoint.response_schema, definitions)}}
            self._note(mark, unknown_parts(shape))
            return {JSON: {"schema": shape_schema(shape)}}
        formats = formats_of(endpoint)
        if formats[0][1].schemas is not None:
            for each in sent.emissions:
                self._note(each.mark, [])  # whatever the content is, the dialect says how it is sent
            return dialect_content(*formats[0])
        for each in sent.emissions:
            parts: list[str] = []
            names = {*(name or UNNAMED for name in each.events), *((OTHERS,) if each.others else ())}
            if each.content is not None and not (names <= promised and not each.closes):
                parts += unknown_parts(each.content)
            if each.metadata is not None:
                parts += (f"metadata.{part}" if part else "metadata" for part in unknown_parts(each.metadata))
            self._note(each.mark, parts)
        shapes = metadata_events(reachable(graph, self._graphs))
        marked = "frame" not in graph.root.exits and any(
            node.step.function.effects.closes and node.step.when is None and not node.step.disabled
            for node in graph.root.nodes
        )
        payloads = Payloads(name, endpoint, sent, shapes, self._components, definitions, marked=marked)
        content = make_content(payloads, formats)
        if endpoint.streaming.resume is not None:
            self._resumed.append((endpoint, {media: content[media] for media, spec in formats if spec.resumable}))
        return content

    def _note(self, mark: Mark, parts: Any) -> None:
        self._marks.add(mark)
        found = tuple(dict.fromkeys(parts))
        if found:
            before = self._unknown.get(mark)
            self._unknown[mark] = Unknown(mark, tuple(dict.fromkeys((*(before.parts if before else ()), *found))))

    # -- security

    def _security(self, endpoint: Endpoint) -> list[dict[str, list[str]]]:
        authentication = endpoint.authentication
        if authentication is None:
            return []
        found: list[dict[str, list[str]]] = []
        for way in authentication.ways:
            method = self._settings.authentication.get(way.name)
            for name, scheme in () if method is None else _schemes(way.name, method):
                self._components.add("securitySchemes", name, scheme)
                found.append({name: list(way.scopes)})
        return [*found, {}] if authentication.optional else found

    def _in_cookie(self, name: str) -> bool:
        method = self._settings.authentication.get(name)
        return method is not None and any(place.where == "cookie" for place in _places(method))

    # -- resume and cancel

    def _starts_jobs(self, endpoint: Endpoint) -> bool:
        return any(node.step.function.name == JOB_START for node in reachable(Graph(endpoint), self._graphs))

    def _job_events(self) -> Schema:
        """Return the content of the progress of any job."""
        schema = {
            "type": "object",
            "description": "An event of a job: a chunk of its function, `restarted` with the number of the attempt, "
            "`done` with what the function returned, `error` or `gap`.",
            "properties": {name: {"type": "string"} for name in ("event", "data", "id")},
            "required": ["data", "id"],
            "additionalProperties": False,
        }
        return {"text/event-stream": {"itemSchema": self._components.add("schemas", "JobEvent", schema)}}

    def _streams(self) -> dict[str, Any]:
        """Return the path where resumable streams are read and stopped."""
        components = self._components
        security: list[dict[str, list[str]]] = []
        items: dict[str, list[Schema]] = {}
        for endpoint, content in self._resumed:
            security += [each for each in self._security(endpoint) or [{}] if each not in security]
            for media, each in content.items():
                schemas = items.setdefault(media, [])
                if each["itemSchema"] not in schemas:
                    schemas.append(each["itemSchema"])
        content = {
            media: {"itemSchema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
            for media, schemas in items.items()
        }
        if security == [{}]:
            security = []
        after = {
            "name": "after",
            "in": "query",
            "description": "Id or number of the last chunk that the client has received.",
            "schema": {"type": "string"},
        }
        reading = {
            "operationId": "resumeStream",
            "summary": "Resume a stream, or read the progress of a job",
            "security": security,
            "parameters": [components.parameter("LastEventId"), after, components.parameter("LastEventIdInQuery")],
            "responses": {
                "200": {
                    "description": "The chunks that follow.",
                    "headers": components.headers("X-Run-Id", "X-Stream-Id"),
                    "content": content,
                },
                "204": {"description": "The stream has ended, and the client has received all of it."},
                **make_errors({400, 404, 406, 429, 503}, [], components, None),
            },
        }
        stopping = {
            "operationId": "cancelStream",
            "summary": "Cancel the run of a stream",
            "security": security,
            "responses": {
                "202": {
                    "description": "Another process runs it and was told to stop it.",
                    "content": {JSON: {"schema": components.schema("StreamStatus")}},
                },
                "204": {"description": "The run is stopped."},
                **make_errors({404, 503}, [], components, None),
            },
        }
        identity = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        identity["description"] = "Id of the stream, as in `X-Stream-Id`."
        return {"parameters": [identity], "get": reading, "delete": stopping}


def _places(method: Method) -> tuple[CredentialPlace, ...]:
    return (method.place,) if isinstance(method, ApiKey) else method.places


def _schemes(name: str, method: Method) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the security schemes of an authentication method: one for each place of the credentials."""
    for index, place in enumerate(_places(method)):
        named = name if not index else f"{name}-{place.where}-{place.name}"
        named = re.sub(r"[^A-Za-z0-9._-]", "_", named)
        if place.where == "header" and place.name.lower() == "authorization":
            bearer = {"type": "http", "scheme": "bearer"}
            yield named, bearer if isinstance(method, ApiKey) else bearer | {"bearerFormat": "JWT"}
        elif place.where == "subprotocol":
            yield named, {"type": "apiKey", "in": "header", "name": "Sec-WebSocket-Protocol"}
        else:
            yield named, {"type": "apiKey", "in": place.where, "name": place.name}


def _without_items(data: Any) -> Any:
    """Return data of OpenAPI 3.2 without `itemSchema`, which 3.1 does not have.

    As usual there, the schema of such a media type is that of each item, and its description says so.
    """
    if isinstance(data, list):
        return [_without_items(each) for each in data]
    if not isinstance(data, dict):
        return data
    found = {key: _without_items(each) for key, each in data.items()}
    if "itemSchema" in found:
        found["schema"] = {"description": "One item of the sequence.", "allOf": [found.pop("itemSchema")]}
    return found

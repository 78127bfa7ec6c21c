"""Whether the answers of an endpoint can be cached, and whether the key holds all that they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from streamstack.errors import Diagnostic
from streamstack.language.definition import Cache, Definition, Endpoint, FunctionDefinition
from streamstack.language.expressions import Read
from streamstack.language.findings import make_diagnostic
from streamstack.language.graph import Graph, Node, called_itself, values_of
from streamstack.spec import Nesting

#: Functions with effects beyond the answer, by the beginnings of their names.
_WRITES: Final = (
    *("db.insert", "db.update", "db.upsert", "db.delete", "db.execute", "db.patch", "counter.add"),
    *("channel.publish", "job.start", "email.", "webhook."),
)
#: What identifies a client in `request`.
_CLIENT: Final = ("cookies", "ip")
_CREDENTIALS: Final = ("authorization", "cookie", "proxy-authorization")
#: What of `request` is in every key, or in none of the answers.
_SAME: Final = ("method", "path", "parameters")


def check_cache(endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]) -> list[Diagnostic]:
    """Report what a cached endpoint reads and its key does not hold, and what its steps do beyond the answer."""
    cache = endpoint.cache
    if cache is None:
        return []
    found: dict[str, Diagnostic] = {}
    for definition, node in _nodes(endpoint, functions):
        step = node.step
        if step.function.name.startswith(_WRITES):
            message = f"`{step.function.name}` runs only when the answer of {endpoint.title} is not cached"
            found[f"{step.key_mark}"] = make_diagnostic("cache-writes", step.key_mark, message)
        if step.function.name == "respond" and step.arguments.get("cookies") is not None:
            message = f"an answer with cookies is for one client, so {endpoint.title} does not cache it"
            found[f"{step.key_mark}"] = make_diagnostic("not-cacheable", step.key_mark, message, severity="warning")
        for value in values_of(step):
            for read in value.reads:
                _check_read(endpoint, cache, read, found, inside=definition is endpoint)
    for value in () if endpoint.response is None else (endpoint.response,):
        for read in value.reads:
            _check_read(endpoint, cache, read, found, inside=True)
    return list(found.values())


def _nodes(endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]) -> Iterator[tuple[Definition, Node]]:
    """Yield the steps that an answer may come from, with their definitions: not what runs after it."""
    waiting: list[Definition] = [endpoint]
    met: set[str] = set()
    while waiting:
        definition = waiting.pop()
        for node in Graph(definition).nodes:
            if node.step.disabled or _runs_after(node):
                continue
            yield definition, node
            for name in called_itself(node.step):
                if name in functions and name not in met:
                    met.add(name)
                    waiting.append(functions[name])


def _runs_after(node: Node) -> bool:
    """Return whether a step runs only when the run has ended."""
    block = node.block
    while block.owner is not None:
        if block.nesting is Nesting.DEFERRED:
            return True
        block = block.owner.block
    return False


def _check_read(endpoint: Endpoint, cache: Cache, read: Read, found: dict[str, Diagnostic], *, inside: bool) -> None:
    """Report a read of what differs between requests with one key; ``inside``: in the endpoint's own steps."""
    part = str(read.path[0]).lower() if read.path else ""
    keyed = {
        (each.name, str(each.path[0]).lower() if each.path else "") for each in (cache.by.reads if cache.by else ())
    }
    if keyed & {(read.name, ""), (read.name, part)} or (read.name == "request" and ("request", "") in keyed):
        return
    code = ""
    shown = ".".join(map(str, (read.name, *read.path[:2])))
    if read.name == "auth":
        code = "cache-leak" if cache.by is not None and endpoint.authentication is not None else ""
    elif read.name in ("input", "sent"):
        code = "cache-key" if cache.by is not None and inside else ""
    elif read.name == "request" and part not in _SAME:
        header = str(read.path[1]).lower() if part == "headers" and len(read.path) > 1 else ""
        if part in ("", *_CLIENT) or header in _CREDENTIALS:
            code = "cache-leak"
        elif not header or header not in cache.headers:
            code = "cache-key"
    if code:
        message = f"the answer of {endpoint.title} depends on `{shown}`, which the key of its cache does not contain"
        found.setdefault(f"{read.mark}", make_diagnostic(code, read.mark, message))

"""From the nodes of an endpoint's `headers` to named values."""

from __future__ import annotations

import re
from typing import Final

from streamstack.language.expressions import Value, parse_value
from streamstack.language.headers import CONTROL_CHARACTERS, is_framing
from streamstack.language.loading.arguments import Faults, describe
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.values import MISSING
from streamstack.spec import is_null

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

_FRAMING_HINTS: Final = {
    "content-length": "remove it: the length of the body is sent",
    "transfer-encoding": "remove it: a body of unknown length is sent in chunks",
    "upgrade": "remove it; `websocket.stream` opens a WebSocket",
    "proxy-authorization": "remove it; user and password of a proxy stand in `http.proxy` of the settings",
}

#: What each fixed format is sent as; text and bytes may be called anything but an event stream.
_TYPES: Final = {
    "sse": ("text/event-stream",),
    "openai": ("text/event-stream",),
    "anthropic": ("text/event-stream",),
    "aiSdk": ("text/event-stream",),
    "ndjson": ("application/x-ndjson", "application/jsonl", "application/json-lines"),
    "csv": ("text/csv",),
    "json": ("application/json",),
}

Headers = tuple[tuple[str, Value], ...]


def read_headers(node: Node | None, faults: Faults) -> Headers:
    """Read headers by name. Names that are not tokens, or belong to the connection, are refused."""
    if node is None:
        return ()
    if not isinstance(node, Mapping):
        faults.add(
            "wrong-type",
            node.mark,
            f"`headers` is a mapping from names to values, and this is {describe(node)}",
            "write `X-Name: value`",
        )
        return ()
    found = []
    for key, item in node.items:
        if check_header(key, item, faults) and not is_null(item):
            value, problems = parse_value(item)
            faults.extend(problems)
            if not isinstance(item, Scalar):
                faults.add(
                    "wrong-type",
                    item.mark,
                    f"the header `{key.text}` is a text, and this is {describe(item)}",
                )
            found.append((key.text, value))
    return tuple(found)


def check_header(key: Scalar, item: Node, faults: Faults) -> bool:
    """Report a header that HTTP forbids, or that an author can't set; return whether its name is sound.

    Args:
        key: The name, as it is written.
        item: The value.
        faults: Takes the findings.
    """
    name = key.text
    if _TOKEN.fullmatch(name) is None:
        faults.add("bad-name", key.mark, f"`{name}` is no name of a header", "write it like X-Name")
        return False
    if is_framing(name):
        hint = _FRAMING_HINTS.get(name.lower(), "remove it")
        faults.add(
            "bad-name", key.mark, f"the header `{name}` can't be set: HTTP itself needs it", hint
        )
        return False
    for each in item.items if isinstance(item, Sequence) else (item,):
        if (
            isinstance(each, Scalar)
            and isinstance(each.value, str)
            and CONTROL_CHARACTERS.search(each.value)
        ):
            faults.add(
                "wrong-type",
                each.mark,
                f"the header `{name}` holds a line break or another control character",
                "write it on one line",
            )
    return True


def check_content_type(headers: Headers, response_type: str, format_: str, faults: Faults) -> None:
    """Report a Content-Type that contradicts what the writer sends."""
    for name, value in headers:
        if name.lower() != "content-type" or value.constant is MISSING:
            continue
        given = str(value.constant).partition(";")[0].strip().lower()
        if response_type == "json":
            if given.endswith(("/json", "+json")):
                continue
            sends = "application/json"
        elif format_ == "auto":
            sends = "what the request asks for, as `format: auto` does"
        elif format_ in _TYPES:
            if given in _TYPES[format_]:
                continue
            sends = _TYPES[format_][0]
        elif given != "text/event-stream":
            continue
        else:
            sends = f"no events, in the format {format_}"
        faults.add(
            "content-type-mismatch",
            value.mark,
            f"the header says {given}, and the endpoint sends {sends}",
        )

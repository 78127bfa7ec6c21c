"""From the nodes of an endpoint's `headers` to named values."""

from __future__ import annotations

import re
from typing import Final

from streamstack.formats import BY_NAME
from streamstack.language.expressions import Value, parse_value
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.wording import describe, is_null
from streamstack.language.reading.nodes import Mapping, Node, Scalar
from streamstack.language.values import MISSING

#: Headers of one connection or of the framing, which only the server knows (RFC 9110, 7.6.1).
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

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
        name = key.text
        if _TOKEN.fullmatch(name) is None:
            faults.add(
                "bad-name", key.mark, f"`{name}` is no name of a header", "write it like X-Name"
            )
        elif name.lower() in HOP_BY_HOP:
            faults.add(
                "bad-name",
                key.mark,
                f"the header `{name}` is set by the server alone",
                "take it out",
            )
        elif not is_null(item):
            value, problems = parse_value(item)
            faults.extend(problems)
            if not isinstance(item, Scalar):
                faults.add(
                    "wrong-type",
                    item.mark,
                    f"the header `{name}` is a text, and this is {describe(item)}",
                )
            elif isinstance(item.value, str) and any(char in item.value for char in "\r\n\0"):
                faults.add(
                    "wrong-type",
                    item.mark,
                    f"the header `{name}` has a line break",
                    "write it in one line",
                )
            found.append((name, value))
    return tuple(found)


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
        elif types := BY_NAME[format_].allowed_types:
            if given in types:
                continue
            sends = types[0]
        elif given != "text/event-stream":
            continue
        else:
            sends = f"no events, in the format {format_}"
        faults.add(
            "content-type-mismatch",
            value.mark,
            f"the header says {given}, and the endpoint sends {sends}",
        )

"""The files that a server serves of itself: the client for browsers."""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from aiohttp import hdrs

from streamstack.server.replies import Sent, send
from streamstack.server.request import Request

#: Path -> file of the package, and its media type.
ASSETS: Final = {"/_client.js": ("browser/streamstack.js", "text/javascript; charset=utf-8")}


@cache
def _load(path: str) -> tuple[bytes, bytes, str]:
    """Return a file, the same compressed, and its entity tag."""
    data = files("streamstack").joinpath(ASSETS[path][0]).read_bytes()
    return data, gzip.compress(data, mtime=0), f'W/"{sha256(data).hexdigest()[:16]}"'


def send_asset(request: Request, path: str) -> Sent:
    """Answer with a file, or 304 where the client has it (RFC 9110, section 13.1.2).

    Pages of any origin may import it: it is the same for everyone, and needs no credentials.
    """
    data, compressed, tag = _load(path)
    lines = (
        "Cache-Control: public, max-age=300\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept-Encoding\r\n"
        f"Content-Type: {ASSETS[path][1]}\r\nETag: {tag}\r\n"
    )
    if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return send(request, 304, lines.encode(), b"")
    if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        return send(request, 200, lines.encode() + b"Content-Encoding: gzip\r\n", compressed)
    return send(request, 200, lines.encode(), data)

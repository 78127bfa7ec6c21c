"""What the parser lets through though a proxy may read it otherwise: refused, so that no request hides another.

aiohttp's parser refuses the rest: a Content-Length beside a Transfer-Encoding, either of them twice or malformed, bare
line feeds, folded headers, spaces before a colon, control characters (RFC 9112, sections 2.2, 5, 6.3 and 11.2).
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs

from streamstack.errors import RunError
from streamstack.server.request import Request

#: A host with its port: a name, an IPv4 address, or an IPv6 address in brackets (RFC 3986, section 3.2.2).
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
#: Hosts that were looked at, so that each is looked at once; at most so many.
_known: set[str] = set()
_MOST: Final = 1000


def check_framing(request: Request) -> None:
    """Refuse a request that others may understand in another way.

    Raises RunError ``invalid-input``.
    """
    host = request.headers.get(hdrs.HOST)
    if (
        request.version == HttpVersion11
        and host in _known
        and hdrs.TRANSFER_ENCODING not in request.headers
    ):
        return
    _look_closer(request, host)


def _look_closer(request: Request, host: str | None) -> None:
    version = request.version
    if version not in (HttpVersion10, HttpVersion11):
        raise _refused("the request is no HTTP/1.1", 400)
    if host is not None and host not in _known:
        if not _HOST.fullmatch(host):
            raise _refused("Host must be a host with its port", 400)
        if len(_known) < _MOST:
            _known.add(host)
    codings = request.headers.getall(hdrs.TRANSFER_ENCODING, ())
    if not codings:
        return
    if version == HttpVersion10:
        raise _refused("HTTP/1.0 has no Transfer-Encoding", 400)
    if [each.strip().lower() for each in codings] != ["chunked"]:
        raise _refused("Transfer-Encoding can be chunked only", 400)


def _refused(message: str, status: int) -> RunError:
    return RunError("invalid-input", message, status=status)

"""Heads of answers: status line and headers as bytes, made ahead as far as they are known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from time import gmtime, strftime, time
from typing import Any

from streamstack.errors import RunError
from streamstack.language.headers import CONTROL_CHARACTERS, is_framing
from streamstack.language.values import kind, to_text

#: Headers that the server sets beside those of the connection and the framing.
RESERVED = frozenset({"date", "x-run-id", "x-stream-id"})

#: Status codes whose answers have no body (RFC 9110, section 6.4.1).
BODILESS = frozenset({204, 205, 304})

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

Headers = Iterable[tuple[str, str]]


def phrase(status: int) -> str:
    """Return the reason phrase of a status code, empty for one without."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def status_line(status: int) -> bytes:
    """Return the status line with its line end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class _Clock:
    """The Date header, made once a second."""

    __slots__ = ("line", "second")

    def __init__(self) -> None:
        self.second = 0
        self.line = b""


_clock = _Clock()


def date_line() -> bytes:
    """Return the Date header with its line end (RFC 9110, section 6.6.1)."""
    second = int(time())
    if second != _clock.second:
        _clock.second = second
        # The C locale's names: strftime follows the process's locale, which we never set.
        _clock.line = strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime(second)).encode()
    return _clock.line


def header_lines(headers: Headers) -> bytes:
    """Return headers as lines.

    Raises RunError ``template`` for a name or value that would break out of its line.
    """
    lines = []
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise RunError("template", f"{name!r} is no header name: letters, digits and - only")
        if CONTROL_CHARACTERS.search(value):
            raise RunError(
                "template",
                f"the value of the header {name} holds a line break or another control character",
            )
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("utf-8", "replace")


def own_headers(given: Mapping[str, Any], *, bound: bool = False) -> list[tuple[str, str]]:
    """Return an author's headers as text, without those that only the server sets.

    The texts of a list are joined, those of `Set-Cookie` are headers of their own; null is none.

    In values that are ``bound`` while a request is answered, line breaks and other control characters become spaces
    (RFC 9110, section 5.5): a caller who sends some may neither add a header nor make the run fail.
    Raises RunError ``template`` for one that would break out of its line.
    """
    headers = []
    for key, value in given.items():
        name = str(key)
        if is_framing(name) or name.lower() in RESERVED:
            continue
        texts = [
            CONTROL_CHARACTERS.sub(" ", to_text(each)) if bound else to_text(each)
            for each in (value if isinstance(value, list) else [value])
            if each is not None
        ]
        if (
            texts and name.lower() != "set-cookie"
        ):  # the one whose values can't be joined (RFC 9110, 5.3)
            texts = [", ".join(texts)]
        headers += [(name, text) for text in texts]
    header_lines(headers)  # told here, at the step that gives them
    return headers


def merge(defaults: Headers, *given: Headers) -> list[tuple[str, str]]:
    """Return the headers with later ones winning; the values of Vary are put together, all of Set-Cookie are sent."""
    merged = {name.lower(): (name, value) for name, value in defaults}
    cookies = []
    for headers in given:
        for name, value in headers:
            key = name.lower()
            if key == "set-cookie":
                cookies.append((name, value))
            elif key == "vary" and key in merged:
                merged[key] = (name, f"{merged[key][1]}, {value}")
            else:
                merged[key] = (name, value)
    return [*merged.values(), *cookies]


def check_status(status: Any) -> int:
    """Return a status an author gave.

    Raises RunError ``template`` for what is no final HTTP status.
    """
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        shown = status if isinstance(status, int) else f"a {kind(status)}"
        raise RunError("template", f"{shown} is no status: a whole number from 200 to 599 is")
    return status

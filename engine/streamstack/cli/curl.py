"""The command line of curl, read into a request (https://curl.se/docs/manpage.html).

Shell variables stay in the texts as `variable(NAME)`, since only the author of a definition knows what they hold.
"""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from getopt import GetoptError, gnu_getopt
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from streamstack.language.names import CONTROL_CHARACTERS

#: Encloses the name of a variable: characters that no command holds (Unicode, private use area).
_OPEN, _CLOSE = "\ue000", "\ue001"
VARIABLE: Final = re.compile(f"{_OPEN}([A-Za-z_][A-Za-z0-9_]*){_CLOSE}")
#: The name of a header field (RFC 9110, 5.6.2).
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What a shell gives a meaning to (POSIX.1-2017, XCU 2.2), by the name of the group.
_SHELL: Final = re.compile(
    r"""(?P<single>'[^']*')
      | (?P<ansi>\$'(?:\\.|[^'\\])*')
      | (?P<continued>\\\r?\n)
      | (?P<escaped>\\.)
      | \$(?P<braced>\{)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?(braced)[^}]*\})
      | (?P<command>\$\(|`)
      | (?P<double>")
      | (?P<comment>(?<!\S)\#[^\n]*)
      | (?P<operator>[|;&<>\n])""",
    re.VERBOSE | re.DOTALL,
)


#: Characters of a URL in a message; a longer one may be, or hold, a secret.
_LONGEST: Final = 30
#: What a command that is shown must not hold, since it may be a secret.
_REVEALING: Final = re.compile(r"[=:@]|[A-Za-z0-9_-]{12,}")


class CurlError(ValueError):
    """Why a command can't be read."""


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a multipart form; ``file`` tells that the value names a file."""

    name: str
    value: str
    file: bool = False
    content_type: str | None = None


@dataclass(slots=True)
class CurlRequest:
    """The request that a command makes.

    Args:
        url: The URL without its query string.
        query: The query parameters.
        headers: The header fields in their order.
        data: The body as text, with the `&` that curl puts between several `-d`.
        file: The name of the file that is the body.
        parts: The fields of a multipart form.
        user: `user:password` of Basic authentication.
        unbuffered: Whether the response is shown as it arrives (`-N`).
        output: The file that the response is written to.
        seconds: The limit of the whole request.
        retries: How often a failed request is repeated.
        notes: What was left out.
    """

    url: str = ""
    method: str | None = None
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    data: str | None = None
    file: str | None = None
    parts: list[Part] = field(default_factory=list)
    user: str | None = None
    unbuffered: bool = False
    output: str | None = None
    seconds: str | None = None
    retries: int = 0
    notes: list[str] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """Return the value of a header field, None where there is none."""
        return next((value for each, value in self.headers if each.lower() == name.lower()), None)

    @property
    def media_type(self) -> str:
        """The media type of the body as the command says it, in small letters; empty where it says none."""
        return (self.header("Content-Type") or "").partition(";")[0].strip().lower()


def variable(name: str) -> str:
    """Return what stands for a shell variable in a text."""
    return f"{_OPEN}{name}{_CLOSE}"


def written_name(text: str) -> str:
    """Return the name of a field with its variables as the command writes them: a name can't be bound.

    Raises CurlError for one that would be a binding.
    """
    if "<<" in text or "<%" in text:
        raise CurlError(f"the field `{text[:40]}` can't be written: `<<` is the beginning of a binding")
    return VARIABLE.sub(r"$\1", text)


def read_curl(command: str | Sequence[str]) -> CurlRequest:
    """Return the request of a command: of its text, or of its words where a shell has split it.

    Raises CurlError.
    """
    request = CurlRequest()
    words = _split(command, request) if isinstance(command, str) else list(command)
    if words[:1] == ["$"]:  # the prompt of a shell
        words = words[1:]
    if not words or not re.fullmatch(r"(?:\S*/)?curl(?:\.exe)?", words[0]):
        raise CurlError("the command does not begin with `curl`")
    _Options(request).read(words[1:])
    return request


def _split(text: str, request: CurlRequest) -> list[str]:
    """Return the words of a command, with its variables marked."""
    text = re.sub(r"[\ue000\ue001]", "", text).strip()
    prepared, at, quoted = [], 0, False
    for found in _SHELL.finditer(text):
        if found.start() < at:
            continue
        kind, piece = found.lastgroup, found[0]
        prepared.append(text[at : found.start()])
        at = found.end()
        if kind in ("single", "ansi", "comment", "operator") and quoted:
            at = found.start() + 1
            piece = text[found.start()]
        elif kind == "ansi":
            piece = shlex.quote(_unescape(piece[2:-1]))
        elif kind in ("continued", "comment"):
            piece = "" if quoted or kind == "comment" else " "
        elif kind == "escaped" and quoted and piece[1] in "$`":
            piece = piece[1]
        elif found["name"]:
            piece = variable(found["name"])
        elif kind == "command":
            raise CurlError(f"`{piece}...` runs another command: write its result in its place")
        elif kind == "double":
            quoted = not quoted
        elif kind == "operator":
            if re.match(r"&[^\s&=]+=", text[found.start() :]) and not text[: found.start()][-1:].isspace():
                raise CurlError("`&` in the URL ends the command: quote the URL, such as 'https://...?a=1&b=2'")
            _note_rest(text[found.start() :], request)
            at = len(text)
            break
        prepared.append(piece)
    prepared.append(text[at:])
    try:
        return shlex.split("".join(prepared))
    except ValueError as error:
        raise CurlError(f"a quote is not closed, or nothing follows a backslash ({error})") from None


def _unescape(text: str) -> str:
    r"""Return the text of `$'...'`, such as `It\'s`."""
    escaped = re.sub(r"\\(['\"?\\abefnrtv]|x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4})", _escape, text)
    return escaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _escape(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "xu" and len(code) > 1:
        return chr(int(code[1:], 16))
    return {"e": "\x1b", "?": "?"}.get(code) or codecs.decode(found[0], "unicode_escape")


def _note_rest(text: str, request: CurlRequest) -> None:
    """Take the file that the output is sent to; note what else follows a command."""
    if text.startswith("<<"):
        request.notes.append("the here-document was left out: put the body into the command, with `-d '...'`")
        return
    if (target := re.match(r">\s*([^\s|;&<>]+)\s*$", text)) is not None:
        request.output = target[1]
    elif rest := text.strip(" \n;&"):
        line = rest.splitlines()[0][:60]
        if _REVEALING.search(line):  # what follows may hold a secret
            word = re.match(r"[|;&<>\s]*[A-Za-z]{1,15}(?=\s)", line)
            line = f"{word[0] if word is not None else ''} ...".strip()
        request.notes.append(f"what follows the command was left out: `{line}`")


#: Options with a value, and without one; what is not read is known to be without effect on the request.
_VALUES: Final = {
    "X": "request",
    "H": "header",
    "d": "data",
    "F": "form",
    "u": "user",
    "o": "output",
    "m": "max-time",
    "A": "user-agent",
    "e": "referer",
    "b": "cookie",
    "T": "upload-file",
    "x": "proxy",
    "w": "write-out",
    "c": "cookie-jar",
    "D": "dump-header",
    "E": "cert",
    "K": "config",
    "r": "range",
    "y": "speed-time",
    "Y": "speed-limit",
}
_FLAGS: Final = {
    "G": "get",
    "N": "no-buffer",
    "k": "insecure",
    "I": "head",
    "s": "silent",
    "S": "show-error",
    "L": "location",
    "i": "include",
    "f": "fail",
    "v": "verbose",
    "g": "globoff",
    "O": "remote-name",
    "#": "progress-bar",
    "0": "http1.0",
    "4": "ipv4",
    "6": "ipv6",
    "n": "netrc",
    "J": "remote-header-name",
}
_LONG_VALUES: Final = (
    *_VALUES.values(),
    *("data-ascii", "data-raw", "data-binary", "data-urlencode", "json", "form-string", "url", "url-query"),
    *("oauth2-bearer", "retry", "retry-delay", "retry-max-time", "connect-timeout", "cacert", "key", "cert-type"),
    *("resolve", "connect-to", "limit-rate", "max-redirs", "interface", "unix-socket", "aws-sigv4", "max-filesize"),
    *("keepalive-time", "proto", "tls-max", "ciphers", "stderr", "trace", "trace-ascii"),
)
_LONG_FLAGS: Final = (
    *_FLAGS.values(),
    *("compressed", "fail-with-body", "http1.1", "http2", "http2-prior-knowledge", "http3", "tlsv1.2", "tlsv1.3"),
    *("location-trusted", "no-progress-meter", "retry-all-errors", "retry-connrefused", "basic", "digest", "ntlm"),
    *("create-dirs", "no-keepalive", "tcp-nodelay", "path-as-is", "ssl-reqd", "anyauth", "raw", "no-sessionid"),
)
#: Options that would change the request, with what to do instead.
_LEFT_OUT: Final = {
    "insecure": "certificates are always checked: give the server a valid one",
    "proxy": "set `http: {proxy: ...}` in streamstack.yaml",
    "cert": "client certificates are not supported",
    "key": "client certificates are not supported",
    "cacert": "the certificate authorities of the system are used (SSL_CERT_FILE adds one)",
    "config": "its options are not read: write them into the command",
    "netrc": "write the user with `-u`",
    "resolve": "hosts are looked up by the system",
    "connect-to": "write the other host into the URL",
    "unix-socket": "write an http:// or https:// URL",
    "aws-sigv4": "requests can't be signed this way",
    "digest": "digest authentication is not supported",
    "ntlm": "NTLM authentication is not supported",
    "limit-rate": "slow readers are slowed down by the client itself",
}


class _Options:
    """Reads the options of a command into a request."""

    def __init__(self, request: CurlRequest) -> None:
        self._request = request
        self._urls: list[str] = []
        self._data: list[str] = []
        self._get = False
        self._json = False

    def read(self, words: list[str]) -> None:
        """Read all words. Raises CurlError."""
        short = "".join(_FLAGS) + "".join(f"{letter}:" for letter in _VALUES)
        try:
            options, urls = gnu_getopt(words, short, [*_LONG_FLAGS, *(f"{name}=" for name in _LONG_VALUES)])
        except GetoptError as error:
            raise CurlError(f"{error.msg}: remove the option, only those of requests are known") from None
        for option, value in options:
            name = option.lstrip("-")
            name = name if option.startswith("--") else {**_VALUES, **_FLAGS}[name]
            if name in _LEFT_OUT:
                self._request.notes.append(f"`{option}` was left out: {_LEFT_OUT[name]}")
            else:
                self._apply(name, value)
        self._urls = [url for url in (*self._urls, *urls) if url.strip()]
        if len(self._urls) != 1:
            count = f"{len(self._urls)} URLs" if self._urls else "no URL"
            shown = " ".join("..." if "?" in url or len(url) > _LONGEST else url for url in self._urls)
            raise CurlError(f"the command has {count}, and needs one: {shown}".rstrip(": "))
        self._finish(self._urls[0])

    def _apply(self, name: str, value: str) -> None:
        request = self._request
        match name:
            case "request":
                request.method = value.upper()
            case "head":
                request.method = request.method or "HEAD"
            case "header":
                self._add_header(value)
            case "user-agent" | "referer" | "cookie":
                request.headers.append((name.title(), value))
            case "oauth2-bearer":
                request.headers.append(("Authorization", f"Bearer {value}"))
            case "url":
                self._urls.append(value)
            case "url-query":
                request.query += parse_qsl(value, keep_blank_values=True)
            case "user":
                request.user = value
            case "no-buffer":
                request.unbuffered = True
            case "output":
                request.output = value
            case "max-time":
                request.seconds = value
            case "retry":
                request.retries = int(value) if value.isdecimal() else 0
            case _:
                self._add_body(name, value)

    def _add_body(self, name: str, value: str) -> None:
        match name:
            case "get":
                self._get = True
            case "data-raw":
                self._data.append(value)
            case "data" | "data-ascii" | "data-binary":
                self._add_data(value)
            case "data-urlencode":
                self._add_encoded(value)
            case "json":
                self._json = True
                self._add_data(value)
            case "form" | "form-string":
                self._add_part(value, plain=name == "form-string")
            case "upload-file":
                self._request.file = value
                self._request.method = self._request.method or "PUT"

    def _finish(self, url: str) -> None:
        request = self._request
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url) and not VARIABLE.match(url):
            url = f"http://{url}"
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", ""):
            raise CurlError(f"the URL begins with {parts.scheme}://: only http:// and https:// can be requested")
        if parts.username is not None and request.user is None:
            request.user, parts = (
                f"{parts.username}:{parts.password or ''}",
                parts._replace(netloc=parts.netloc.rpartition("@")[2]),
            )
        request.url = urlunsplit(parts._replace(query="", fragment=""))
        request.query = parse_qsl(parts.query, keep_blank_values=True) + request.query
        data = ("" if self._json else "&").join(self._data) if self._data else None
        if self._get:
            request.query += parse_qsl(data or "", keep_blank_values=True)
        else:
            request.data = data
        if self._json:
            for name in ("Content-Type", "Accept"):
                if request.header(name) is None:
                    request.headers.append((name, "application/json"))
        has_body = request.data is not None or request.file is not None or request.parts
        if request.method is None:
            request.method = "POST" if has_body else "GET"

    def _add_header(self, value: str) -> None:
        if value.startswith("@"):
            self._request.notes.append(f"the headers in `{value}` were left out: write each with `-H`")
            return
        name, colon, text = value.partition(":")
        if not colon:
            name, colon, text = value.partition(";")
        if not _NAME.fullmatch(name.strip()) or CONTROL_CHARACTERS.search(text):
            raise CurlError(f"`-H {value[:40]!r}` can't be sent: write `-H 'Name: value'`")
        if text.strip() or value.endswith(";"):  # `Name:` removes a header of curl's own
            self._request.headers.append((name.strip(), text.strip()))

    def _add_data(self, value: str) -> None:
        if not value.startswith("@"):
            self._data.append(value)
        elif value == "@-":
            self._request.notes.append("the standard input was left out: write the body into the command, `-d '...'`")
        else:
            self._request.file = value[1:]

    def _add_encoded(self, value: str) -> None:
        name, equals, text = value.partition("=")
        if "@" in name:
            self._request.notes.append(f"the file in `--data-urlencode {value}` was left out: write its content")
        elif equals:
            self._data.append(
                f"{name}={quote(text, safe=_OPEN + _CLOSE)}" if name else quote(text, safe=_OPEN + _CLOSE)
            )
        else:
            self._data.append(quote(value, safe=_OPEN + _CLOSE))

    def _add_part(self, value: str, *, plain: bool) -> None:
        name, _, text = value.partition("=")
        if plain:
            self._request.parts.append(Part(name, text))
            return
        text, *attributes = [text.strip('"')] if text.startswith('"') else text.split(";")
        found = dict(each.strip().partition("=")[::2] for each in attributes)
        file = text[:1] in ("@", "<")
        self._request.parts.append(Part(name, text[file:], file, found.get("type")))

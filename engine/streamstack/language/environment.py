"""What settings take from outside: environment variables (also those of a `.env` file) and the URL of a Redis.

`<<env.NAME>>` and `<<env.NAME | default("...")>>` are the only forms: settings are decided before anything runs.
"""

from __future__ import annotations

import re
from collections import abc
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dotenv.parser import parse_stream

from streamstack.errors import Diagnostic, Mark
from streamstack.language.findings import make_diagnostic
from streamstack.language.nodes import Mapping, Node, Scalar, Sequence

_BINDING: Final = re.compile(r"\\<<|<<((?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|(?!>>)[\s\S])*)>>|<<")
_FORM: Final = re.compile(
    r"\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*"
    r"(?:\|\s*default\(\s*(?:(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|(-?[0-9]+)|(true|false))\s*\)\s*)?"
)
_ENV_HINT: Final = "write NAME=value, or NAME='value' around spaces, quotes and #"
_HINT: Final = 'write <<env.NAME>> or <<env.NAME | default("...")>>'


def read_env_file(path: Path, name: str) -> tuple[dict[str, str], list[Diagnostic]]:
    """Return the variables of a `.env` file, and what is wrong with it; none without such a file.

    Args:
        path: The file.
        name: The name that findings carry.

    Raises:
        OSError: It can't be opened.
    """
    if not path.is_file():
        return {}, []
    findings: list[Diagnostic] = []
    variables: dict[str, str] = {}
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        message = "This file is not UTF-8 text."
        return {}, [make_diagnostic("bad-setting", Mark(name, 1, 1), message, "save it as UTF-8")]
    for binding in parse_stream(StringIO(text)):
        if binding.key is not None and binding.value is not None and not binding.error:
            variables[binding.key] = binding.value
        elif binding.error or binding.key is not None:
            mark = Mark(name, binding.original.line, 1)
            findings.append(make_diagnostic("bad-setting", mark, "This line sets no variable.", _ENV_HINT))
    return variables, findings


def substitute(
    node: Node, env: abc.Mapping[str, str], *, check: bool, but: abc.Iterable[Node] = ()
) -> tuple[Node, list[Diagnostic]]:
    """Return a node with the variables in its values replaced by their text, and what is wrong.

    A value whose variable is missing becomes null; with ``check``, it is reported too. Text that was
    put in is never read again, so a variable can't hold a binding. ``but`` are nodes whose bindings are left to runs.
    """
    findings: list[Diagnostic] = []
    left = {id(each) for each in but}
    return _substitute(node, env, findings, check=check, left=left), findings


def blame(node: Node, findings: list[Diagnostic], env: abc.Mapping[str, str]) -> list[Diagnostic]:
    """Return findings with a hint that names the variables of a refused value; their values may be secrets.

    Args:
        node: What was written, before variables were put in.
        findings: What is wrong with the values.
        env: The environment.
    """
    names: dict[tuple[int, int], list[str]] = {}
    for each in _texts(node):
        forms = (_FORM.fullmatch(found[1] or "") for found in _BINDING.finditer(str(each.value)))
        names[each.mark.line, each.mark.column] = [form[1] for form in forms if form and form[1] in env]
    blamed = []
    for finding in findings:
        read = names.get((finding.line, finding.column))
        hint = ""
        if read and finding.code not in ("missing-environment", "bad-template"):
            listed = " and ".join(read)
            hint = f"the value is that of the environment variable {listed}: change it, or unset it"
        blamed.append(replace(finding, hint=hint) if hint else finding)
    return blamed


def _texts(node: Node) -> abc.Iterator[Scalar]:
    if isinstance(node, Mapping):
        for _, value in node.items:
            yield from _texts(value)
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _texts(item)
    elif isinstance(node.value, str) and "<<" in node.value:
        yield node


def _substitute(
    node: Node, env: abc.Mapping[str, str], findings: list[Diagnostic], *, check: bool, left: abc.Container[int]
) -> Node:
    if isinstance(node, Mapping):
        pairs = [(key, _substitute(value, env, findings, check=check, left=left)) for key, value in node.items]
        return Mapping(tuple(pairs), node.mark)
    if isinstance(node, Sequence):
        items = [_substitute(item, env, findings, check=check, left=left) for item in node.items]
        return Sequence(tuple(items), node.mark)
    if not isinstance(node.value, str) or "<<" not in node.value or id(node) in left:
        return node
    value = _fill(node, node.value, env, findings, check=check)
    # Its text is what is written. Without its source: places inside it are those of another text.
    return replace(node, value=value, source=None)


def _fill(
    node: Scalar, text: str, env: abc.Mapping[str, str], findings: list[Diagnostic], *, check: bool
) -> str | int | None:
    parts: list[str] = []
    end = 0
    missing = False
    for found in _BINDING.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        if found.group() == "\\<<":
            parts.append("<<")
            continue
        form = _FORM.fullmatch(found[1]) if found[1] is not None else None
        if form is None:
            what = "This binding is not closed." if found[1] is None else "This is not allowed here."
            message = f"{what} streamstack.yaml takes environment variables, no other expressions."
            findings.append(make_diagnostic("bad-template", node.mark_at(found.start()), message, _HINT))
            missing = True
            continue
        value: str | int | None = env.get(form[1], _default(form))
        if value is None:
            missing = True
            if check:
                message = f"The environment variable {form[1]} is not set."
                findings.append(make_diagnostic("missing-environment", node.mark_at(found.start()), message))
        elif found.group().strip() == text.strip() and not isinstance(value, str):
            return value
        else:
            parts.append(str(value).lower() if isinstance(value, bool) else str(value))
    parts.append(text[end:])
    return None if missing else _trim(text, "".join(parts))


def _trim(text: str, value: str) -> str:
    """Drop white space around one whole binding, as everywhere in the language."""
    found = _BINDING.fullmatch(text.strip())
    return value.strip() if found is not None and text != text.strip() else value


def _default(form: re.Match[str]) -> str | int | None:
    """Return the value of the default, None where there is none."""
    if form[2] is not None:
        return re.sub(r"\\(.)", r"\1", form[2][1:-1])
    if form[3] is not None:
        return int(form[3])
    return None if form[4] is None else form[4] == "true"


# ------------------------------------------------------------------------------ the URL of a Redis


#: How the URL of a Redis begins.
REDIS: Final = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is, and who asks it. ``path`` is a Unix socket's; ``options`` are TLS's, as redis-py has them.

    ``str()`` shows the place, and nothing that is secret.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    tls: bool = False
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: abc.Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}"


def parse_redis(url: str) -> RedisUrl:
    """Return what the URL of a Redis says.

    Raises ValueError, saying what to write, for one that is malformed. Its text is in no message: it may hold a
    password.
    """
    if any(character.isspace() for character in url):
        raise ValueError("there is white space in the URL: write %20 for a space in a password")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            "the URL can't be read: write redis://localhost:6379; in a password, write / as %2F, @ as %40, "
            ": as %3A and # as %23"
        ) from None
    if parts.fragment:
        raise ValueError("nothing may follow a #: in a password, write it as %23")
    options = _options(parts)
    user = unquote(parts.username) if parts.username else options.pop("username", None)
    password = unquote(parts.password) if parts.password else options.pop("password", None)
    database = options.pop("db", None)
    if parts.scheme == "unix":
        return _socket(parts, user, password, database or 0)
    if not parts.hostname:
        raise ValueError("the URL names no host: write redis://localhost:6379")
    if parts.path.strip("/"):
        database = _database(unquote(parts.path.strip("/")))
    return RedisUrl(
        parts.hostname,
        port or 6379,
        database=database or 0,
        tls=parts.scheme == "rediss",
        user=user,
        password=password,
        options=options,
    )


def _socket(parts: SplitResult, user: str | None, password: str | None, database: int) -> RedisUrl:
    path = unquote(parts.path)
    if not path.strip("/") or parts.hostname:
        raise ValueError("a socket is named by its whole path: write unix:///run/redis/redis.sock")
    return RedisUrl(path=path, database=database, user=user, password=password)


def _options(parts: SplitResult) -> dict[str, Any]:
    """Return what stands after the question mark. Raises ValueError for an unknown option."""
    known = _SHARED if parts.scheme != "rediss" else _SHARED | _TLS
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            names = ", ".join(known)
            raise ValueError(f"after the ? there is a name it does not know: it knows {names}")
        options[name] = known[name](value)
    return options


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise ValueError("a database of Redis is a number: write redis://localhost:6379/0")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "yes", "no"}:
        raise ValueError("`ssl_check_hostname` is true or false")
    return text.lower() in {"true", "yes"}


def _requirement(text: str) -> str:
    if text not in {"none", "optional", "required"}:
        raise ValueError("`ssl_cert_reqs` is none, optional or required")
    return text


_SHARED: Final[dict[str, abc.Callable[[str], Any]]] = {"db": _database, "username": str, "password": str}
_TLS: Final[dict[str, abc.Callable[[str], Any]]] = {
    "ssl_ca_certs": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _flag,
}

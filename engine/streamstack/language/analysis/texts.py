"""What concerns the text of a document: secrets, bindings of other tools, and which findings `allow` silences."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.definition import Definition
from streamstack.language.findings import make_diagnostic
from streamstack.language.graph import steps_of
from streamstack.language.nodes import Mapping, Node, Scalar, Sequence

#: What the tokens of well-known services look like.
_TOKENS: Final = re.compile(
    r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}"  # GitHub
    r"|\bAKIA[0-9A-Z]{16}"  # AWS
    r"|\bAIza[0-9A-Za-z_-]{30,}"  # Google
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"  # a JWT
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:Bearer|Basic) +[A-Za-z0-9._~+/=-]{12,}"
)
#: A password in a URL: postgres://user:password@host.
_IN_URL: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s:@<]+@")
#: Keys whose value is a secret, however they are spelt.
_KEYS: Final = frozenset(
    {"accesstoken", "apikey", "clientsecret", "password", "privatekey", "secret", "secretkey", "xapikey"}
)
_SEPARATORS: Final = re.compile(r"[-_ ]")

#: Its values are types and descriptions, whatever the names.
_DECLARATIONS: Final = "inputParameters"


#: A name in the brackets of Jinja2 and n8n, or a reserved one in those of JavaScript and the shell.
_FOREIGN: Final = re.compile(
    r"(?:^=)?\{\{-? *(\$?[A-Za-z_][^{}]*?) *-?\}\}"
    r"|\$\{ *((?:input|sent|request|auth|env|settings|loop|stream|run)\b[^{}]*?) *\}"
)


#: One that means what it means here.
_RESERVED: Final = re.compile(r"\$?(?:input|sent|request|auth|env|settings|loop|stream|run)\b")


def check_texts(root: Node, reported: Collection[Mark] = ()) -> list[Diagnostic]:
    """Report texts that are, or look like, secrets, and bindings in the brackets of other tools.

    ``reported`` are the places of texts whose brackets are reported elsewhere.
    """
    return list(_search(root, reported, named=True))


def _secret(what: str, mark: Mark) -> Diagnostic:
    return make_diagnostic("secret-in-definition", mark, f"{what} is in the file in plain text")


def _search(node: Node, reported: Collection[Mark], *, named: bool) -> Iterator[Diagnostic]:
    """Yield what is found; secrets by the names of keys too where ``named``."""
    if isinstance(node, Scalar):
        what = _looks_like(node)
        if what:
            yield _secret(what, node.mark)
        if isinstance(node.value, str) and "{" in node.value and node.mark not in reported:
            yield from _foreign(node, node.value)
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _search(item, reported, named=named)
    else:
        for key, item in node.items:
            if named and isinstance(item, Scalar) and _is_secret(key.text, item):
                yield _secret(f"the value of `{key.text}`", item.mark)
            else:
                yield from _search(item, reported, named=named and key.text != _DECLARATIONS)


def _foreign(node: Scalar, text: str) -> Iterator[Diagnostic]:
    for match in _FOREIGN.finditer(text):
        written, inner = match[0], match[1] or match[2]
        reserved = _RESERVED.match(inner)
        if inner.startswith("$") and reserved is None:
            hint = "write a value of this definition between << and >>, such as <<input.name>>"
        else:
            hint = f"write `<<{inner.lstrip('$')}>>`"
        yield make_diagnostic("foreign-binding", node.mark_at(match.start()), f"`{written}` is sent unchanged", hint)


def _is_secret(key: str, value: Scalar) -> bool:
    text = value.value
    if not isinstance(text, str) or len(text) < 4 or "<<" in text or "<%" in text:
        return False
    return _SEPARATORS.sub("", key).lower() in _KEYS


def _looks_like(node: Scalar) -> str:
    text = node.value
    if not isinstance(text, str) or len(text) < 10:
        return ""
    if _TOKENS.search(text):
        return "what looks like a secret"
    return "a password in a URL" if "://" in text and _IN_URL.search(text) else ""


def suppress(findings: Iterable[Diagnostic], definition: Definition, root: Node) -> list[Diagnostic]:
    """Leave out the findings of a document that its author allows."""
    ranges = _ranges(definition, root)
    return [
        finding
        for finding in findings
        if finding.code not in definition.allow
        and not any(finding.code in codes and begin <= finding.mark <= end for codes, begin, end in ranges)
    ]


def _ranges(definition: Definition, root: Node) -> list[tuple[frozenset[str], Mark, Mark]]:
    """Return the codes that steps allow, each with the first and last place of its step."""
    allowing = {step.mark: step.allow for step in steps_of(definition.stack) if step.allow}
    if not allowing:
        return []
    return [(allowing[node.mark], node.mark, _end(node)) for node in _mappings(root) if node.mark in allowing]


def _mappings(node: Node) -> Iterable[Mapping]:
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _mappings(item)
    elif isinstance(node, Mapping):
        yield node
        for _, item in node.items:
            yield from _mappings(item)


def _end(node: Node) -> Mark:
    """Return the last place of a node."""
    if isinstance(node, Scalar):
        return max(node.mark, node.mark_at(len(node.text)))
    inner = node.items if isinstance(node, Sequence) else [each for pair in node.items for each in pair]
    return max((_end(each) for each in inner), default=node.mark)

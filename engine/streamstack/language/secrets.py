"""Secrets in definitions and settings: texts that are, or look like, keys and passwords."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from streamstack.errors import Diagnostic
from streamstack.language.findings import make_diagnostic
from streamstack.language.nodes import Node, Scalar, Sequence

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
#: The literal default of a variable whose name says that it holds a secret, or of any variable below such a key.
_DEFAULT: Final = re.compile(r"\benv\.(\w+)\s*\|\s*default\(\s*([\"'])((?:(?!\2).){8,})\2", re.DOTALL)
_NAMES: Final = re.compile(r"(?:KEY|SECRET|PASSWORD|PASSWD|TOKEN)$", re.IGNORECASE)
#: What a default is that opens nothing.
_PLACEHOLDER: Final = re.compile(r"example|secret|dummy|test|change.?me|placeholder|development|your", re.IGNORECASE)


def find_secrets(node: Node, unnamed: Collection[str] = ()) -> Iterator[Diagnostic]:
    """Yield a finding for each secret in plain text.

    Args:
        node: The value to search.
        unnamed: Keys below which the names of keys say nothing.
    """
    return _search(node, unnamed, "", named=True)


def _search(node: Node, unnamed: Collection[str], key: str, *, named: bool) -> Iterator[Diagnostic]:
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _search(item, unnamed, "", named=named)
    elif not isinstance(node, Scalar):
        for name, item in node.items:
            yield from _search(item, unnamed, name.text, named=named and name.text not in unnamed)
    else:
        what = f"the value of `{key}`" if named and _is_secret(key, node) else _looks_like(node)
        if what:
            yield make_diagnostic("secret-in-definition", node.mark, f"{what} is in the file in plain text")


def _is_secret(key: str, value: Scalar) -> bool:
    # As it is written: in settings, variables are replaced by their values.
    text = value.text
    if not isinstance(value.value, str) or len(text) < 4 or _SEPARATORS.sub("", key).lower() not in _KEYS:
        return False
    return ("<<" not in text and "<%" not in text) or _default_in(text, any_name=True)


def _default_in(text: str, *, any_name: bool) -> bool:
    return any(
        (any_name or _NAMES.search(found[1])) and not _PLACEHOLDER.search(found[3]) for found in _DEFAULT.finditer(text)
    )


def _looks_like(node: Scalar) -> str:
    text = node.text
    if not isinstance(node.value, str) or len(text) < 10:
        return ""
    if _TOKENS.search(text):
        return "what looks like a secret"
    if "://" in text and _IN_URL.search(text):
        return "a password in a URL"
    return "the default of a variable that holds a secret" if _default_in(text, any_name=False) else ""

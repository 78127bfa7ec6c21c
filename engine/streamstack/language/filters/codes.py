"""Filters that encode, decode and sign texts and bytes."""

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT002

from __future__ import annotations

import base64 as codec
import binascii
import hashlib
import hmac as signing
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from streamstack.language.filters.expectations import (
    failed,
    items_of,
    text_argument,
    text_of,
    wrong,
)
from streamstack.language.filters.operations import declare
from streamstack.language.operators import refuse_stream
from streamstack.language.values import to_text

ALGORITHMS: Final = ("sha256", "sha512", "sha384", "sha1", "md5", "sha3_256", "blake2b")


def _bytes(value: Any, name: str) -> bytes:
    """Return bytes as they are, and anything else as its text in UTF-8."""
    if isinstance(value, bytes):
        return value
    refuse_stream(value)
    if value is None:
        raise wrong(name, "a text or bytes", value)
    return to_text(value).encode("utf-8", "surrogatepass")


@declare("filter", "base64", '"Zoë" | base64', "Wm/Dqw==")
def base64(value: Any) -> str:
    """Give the text's UTF-8, or bytes, in base64."""
    return codec.b64encode(_bytes(value, "base64")).decode()


@declare(
    "filter",
    "unbase64",
    '"Wm_Dqw" | unbase64',
    "Zoë",
)
def unbase64(value: Any, bytes: Any = False) -> Any:  # noqa: A002
    """Give the text that base64 (also that of URLs) holds; `bytes=true` gives the bytes, which need not be text."""
    text = text_of(value, "unbase64").translate({0x2D: "+", 0x5F: "/"})
    compact = "".join(text.split()).rstrip("=")
    try:
        data = codec.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise failed("unbase64", "the text is not base64") from None
    if bytes:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise failed("unbase64", "it holds no text; write `unbase64(bytes=true)`") from None


@declare(
    "filter",
    "urlEncode",
    '["a b/ü", {"q": "a&b", "n": 1}] | map("urlEncode")',
    ["a%20b%2F%C3%BC", "q=a%26b&n=1"],
    aliases=("urlencode",),
)
def url_encode(value: Any) -> str:
    """Give the text as a part of a URL, every reserved character escaped; of an object, a whole query."""
    if isinstance(value, dict):
        return "&".join(f"{_quoted(key)}={_quoted(one)}" for key, one in value.items())
    if isinstance(value, list):
        pairs = [items_of(pair, "urlEncode") for pair in value]
        if any(len(pair) != 2 for pair in pairs):
            raise failed("urlEncode", "a list must hold pairs of a name and a value")
        return "&".join(f"{_quoted(key)}={_quoted(one)}" for key, one in pairs)
    return _quoted(text_of(value, "urlEncode"))


def _quoted(value: Any) -> str:
    return quote(to_text(value).encode("utf-8", "replace"), safe="")


@declare("filter", "urlDecode", '"a%20b+c" | urlDecode', "a b c")
def url_decode(value: Any) -> str:
    """Give the text of a part of a URL."""
    return unquote(text_of(value, "urlDecode").replace("+", " "))


@declare("filter", "safe", '"a/b" | safe', "a/b")
def safe(value: Any) -> str:
    """Give the text as it is. Last in a binding inside of `url`, it keeps the text from being percent-encoded."""
    return text_of(value, "safe")


def _check_algorithm(arguments: Sequence[object]) -> tuple[str, str, str] | None:
    """Find a constant algorithm that is none."""
    if arguments and isinstance(arguments[0], str) and arguments[0] not in ALGORITHMS:
        return "bad-template", f"there is no hash `{arguments[0]}`", f"write {_KNOWN}"
    return None


_KNOWN: Final = f"one of {', '.join(ALGORITHMS)}"


@declare(
    "filter",
    "hash",
    '"abc" | hash("sha1")',
    "a9993e364706816aba3e25717850c26c9cd0d89d",
    check=_check_algorithm,
)
def hash_text(value: Any, algorithm: Any = "sha256") -> str:
    """Give the hash of a text's UTF-8, or of bytes, in hexadecimal.

    Not for passwords. By sha256, sha512, sha384, sha1, md5, sha3_256 or
    blake2b.
    """
    made = hashlib.new(_algorithm(algorithm, "hash"), usedforsecurity=False)
    made.update(_bytes(value, "hash"))
    return made.hexdigest()


@declare(
    "filter",
    "hmac",
    '"abc" | hmac("sha256", "key")',
    "9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab",
    check=_check_algorithm,
)
def hmac(value: Any, algorithm: Any, key: Any, encoding: Any = "hex") -> str:
    """Give the signature (HMAC) of a text's UTF-8, or of bytes, with a key, in hexadecimal or base64."""
    name = _algorithm(algorithm, "hmac")
    made = signing.new(_bytes(key, "hmac"), _bytes(value, "hmac"), name)
    if encoding == "base64":
        return codec.b64encode(made.digest()).decode()
    if encoding != "hex":
        raise failed("hmac", "the encoding is hex or base64")
    return made.hexdigest()


def _algorithm(algorithm: Any, name: str) -> str:
    word = text_argument(algorithm, name, "algorithm").lower().replace("sha-", "sha")
    if word not in ALGORITHMS:
        raise failed(name, f"there is no hash `{algorithm}`; write {_KNOWN}")
    return word

"""The section `models` of streamstack.yaml: models by names of the author's own."""

from __future__ import annotations

from collections.abc import Mapping as Entries
from dataclasses import dataclass
from typing import Final

from streamstack.errors import Diagnostic
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Mapping, Node, Scalar
from streamstack.language.suggest import did_you_mean

#: Whose wire a model speaks.
PROVIDERS: Final = ("openai", "openaiResponses", "anthropic", "gemini")

_KEYS: Final = {
    "provider": "provider",
    "model": "model",
    "baseUrl": "base_url",
    "apiKey": "api_key",
    "withoutKey": "without_key",
}
_REQUIRED: Final = ("provider", "model")
_ADDRESSES: Final = frozenset({"baseUrl", "withoutKey"})


@dataclass(frozen=True, slots=True)
class Model:
    """A model that definitions name: whose it is, what it is called there, where, with which key.

    What is None is the provider's default. ``without_key`` is the address that stands in while there is no key.
    """

    provider: str
    model: str
    base_url: str | None = None
    api_key: str | None = None
    without_key: str | None = None


def parse_models(node: Node | None) -> tuple[Entries[str, Model], list[Diagnostic]]:
    """Return the models by name, and what is wrong with the section.

    A model that is wrong is left out, and one whose variables of the environment are missing, which is told elsewhere.
    """
    findings: list[Diagnostic] = []
    models: dict[str, Model] = {}
    for key, value in node.items if isinstance(node, Mapping) else ():
        if not isinstance(value, Mapping):
            message = f"`models.{key.text}` is a mapping."
            hint = f"write `{key.text}: {{provider: openai, model: gpt-4o-mini}}`"
            findings.append(find("not-a-mapping", value.mark, message, hint))
            continue
        model = _read(f"models.{key.text}", value, findings)
        if model is not None:
            models[key.text] = model
    return models, findings


def _read(section: str, node: Mapping, findings: list[Diagnostic]) -> Model | None:
    texts: dict[str, str] = {}
    wrong = False
    for key, value in node.items:
        if key.text not in _KEYS:
            message = f"`{section}` has no `{key.text}`{did_you_mean(key.text, _KEYS)}"
            hint = f"it takes {', '.join(_KEYS)}"
            findings.append(find("unknown-setting", key.mark, message, hint))
            continue
        fault, instead = _fault_of(key.text, value)
        if fault:
            wrong = True
            message = f"`{section}.{key.text}`: {fault}"
            findings.append(find("bad-setting", value.mark, message, instead))
        elif isinstance(value, Scalar) and value.value is not None:
            texts[_KEYS[key.text]] = str(value.value).strip()
    for name in _REQUIRED:
        if node.key(name) is None:
            wrong = True
            message = f"`{section}` lacks `{name}`."
            hint = f"add `{name}: {'openai' if name == 'provider' else 'gpt-4o-mini'}`"
            findings.append(find("missing-parameter", node.mark, message, hint))
    if wrong:
        return None
    texts = {name: text for name, text in texts.items() if text}
    return Model(**texts) if {"provider", "model"} <= texts.keys() else None


def _fault_of(key: str, node: Node) -> tuple[str, str | None]:
    """Return why a value can't be, and what to write instead; empty where it can."""
    if isinstance(node, Scalar) and node.value is None:
        return "", None
    if not isinstance(node, Scalar) or isinstance(node.value, bool):
        return "a text is needed here", None
    text = node.text.strip() if not isinstance(node.value, str) else node.value.strip()
    if key == "provider" and text not in PROVIDERS:
        listed = ", ".join(PROVIDERS)
        return f"it must be one of {listed}{did_you_mean(text, PROVIDERS)}", f"write {listed}"
    if key in _ADDRESSES and text and not text.startswith(("http://", "https://", "/")):
        return (
            "an address begins with http:// or https://, or with / where it is this server's own",
            "write https://api.example.org/v1",
        )
    return "", None

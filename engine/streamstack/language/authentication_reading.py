"""From the section `authentication` to the ways to tell callers, with all that is wrong or weak in it."""

from __future__ import annotations

from pathlib import Path

from streamstack.errors import Diagnostic
from streamstack.language.authentication_keys import KeysReading
from streamstack.language.authentication_section import Section
from streamstack.language.authentication_settings import TYPES, Method, Methods
from streamstack.language.authentication_tokens import TokensReading
from streamstack.language.findings import find
from streamstack.language.names import DEFINITION
from streamstack.language.reading.nodes import Mapping, Node
from streamstack.language.suggest import did_you_mean


def parse_authentication(
    node: Node | None, written: Node | None, folder: Path
) -> tuple[Methods, list[Diagnostic]]:
    """Return the ways to tell callers by name, and what is wrong with the section.

    ``written`` is the section before the environment was put in. Files are looked for from ``folder``. One that is
    wrong is left out; its finding keeps the project from being served.
    """
    findings: list[Diagnostic] = []
    methods: dict[str, Method] = {}
    for key, value in node.items if isinstance(node, Mapping) else ():
        if DEFINITION.fullmatch(key.text) is None or key.text == "none":
            message = f"`{key.text}` is no name for an authentication"
            hint = "begin with a letter, then letters, digits, `_` or `-`; `none` means no authentication"
            findings.append(find("bad-name", key.mark, message, hint))
        before = written.get(key.text) if isinstance(written, Mapping) else None
        if not isinstance(value, Mapping) or not isinstance(before, Mapping):
            message = f"`authentication.{key.text}` is a mapping."
            hint = f"write `{key.text}: {{type: jwt, secret: << env.JWT_SECRET >>}}`"
            findings.append(find("not-a-mapping", value.mark, message, hint))
            continue
        method = _read(key.text, value, before, folder, findings)
        if method is not None:
            methods[key.text] = method
    return methods, findings


def _read(
    name: str, node: Mapping, written: Mapping, folder: Path, findings: list[Diagnostic]
) -> Method | None:
    """Return one of them, None where something is wrong with it; add what was found."""
    section = Section(name, node, written, folder)
    kind = section.text("type")
    method: Method | None = None
    if kind not in TYPES:
        section.add(
            "missing-parameter" if kind is None else "bad-setting",
            section.mark("type"),
            f"`authentication.{name}` needs a `type`: jwt or apiKey{did_you_mean(kind or '', TYPES)}",
            "add `type: jwt` or `type: apiKey`",
        )
    else:
        reading = TokensReading if kind == "jwt" else KeysReading
        section = reading(name, node, written, folder)
        section.refuse_unknown(kind)
        method = section.read()
    findings += section.found
    return None if any(each.severity == "error" for each in section.found) else method

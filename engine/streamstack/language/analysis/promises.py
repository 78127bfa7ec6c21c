"""Whether what an endpoint sends has the types that it declares under `chunks` and `responseSchema`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.analysis.emissions import Emission, Sent, follow_emissions
from streamstack.language.analysis.evaluate import an
from streamstack.language.analysis.types import Results
from streamstack.language.definition import Endpoint, FunctionDefinition, Input
from streamstack.language.findings import make_diagnostic
from streamstack.language.names import did_you_mean
from streamstack.language.shapes import NUMBERS, Shape, of_constant, unite
from streamstack.language.values import MISSING

#: What stands for chunks without an event name under `chunks`, and for names that are made at run time.
UNNAMED: Final = "message"
OTHERS: Final = "*"
_TEXTS: Final = frozenset({"text"})
_MOMENTS: Final = frozenset({"text", "timestamp", "date"})
#: The kinds of values whose JSON has a declared type; of all others any.
_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "text": _MOMENTS | {"bytes"},
    **dict.fromkeys(("email", "url", "uuid"), _TEXTS),
    **dict.fromkeys(("timestamp", "date"), _MOMENTS),
    "integer": frozenset({"integer"}),
    "decimal": NUMBERS,
    "boolean": frozenset({"boolean"}),
    "object": frozenset({"object"}),
    "list": frozenset({"list"}),
}


def check_declared(
    endpoint: Endpoint, functions: Mapping[str, FunctionDefinition], results: Results
) -> list[Diagnostic]:
    """Report chunks and responses that do not have, or may not have, the type that the endpoint declares."""
    if not endpoint.chunks and endpoint.response_schema is None:
        return []
    sent = follow_emissions(endpoint, functions, results)
    found = list(_check_chunks(endpoint, sent)) if endpoint.response_type != "json" else []
    declared = endpoint.response_schema
    if declared is not None and sent.response is not None:
        mark = declared.mark if endpoint.response is None else endpoint.response.mark
        for path, fault, sure in _faults(sent.response, declared, ""):
            message = f"{f'`{path}` of the response' if path else 'the response'} {fault}"
            found.append(
                _finding(mark, message, f"`responseSchema` in line {declared.mark.line} declares it", sure=sure)
            )
    return found


def _check_chunks(endpoint: Endpoint, sent: Sent) -> Iterator[Diagnostic]:
    declared = {each.name: each for each in endpoint.chunks}
    met: set[str] = set()
    for each in sent.chunks:
        names = {UNNAMED if name is None else name for name in each.events}
        met |= names
        for name in sorted(names & declared.keys()):
            yield from _check_emission(each, name, declared[name])
        if each.others and OTHERS in declared:
            yield from _check_emission(each, OTHERS, declared[OTHERS])
    if not any(each.others for each in sent.chunks):
        for name, promise in declared.items():
            if name not in met:
                hint = did_you_mean(name, met).lstrip(", ") or "remove it"
                what = "without an event name" if name == UNNAMED else f"with the event name `{name}`"
                yield make_diagnostic("unused-chunk", promise.mark, f"no step sends a chunk {what}", hint)


def _check_emission(emission: Emission, name: str, declared: Input) -> Iterator[Diagnostic]:
    if emission.content is None:
        return
    for path, fault, sure in _faults(emission.content, declared, ""):
        what = f"`{path}` of the content" if path else "the content"
        hint = f"`chunks.{name}` in line {declared.mark.line} declares it"
        at = emission.mark
        if emission.called is not None:
            what, at = f"the called function sends a chunk in {emission.mark}: {what}", emission.called
        yield _finding(at, f"{what} {fault}", hint, sure=sure)


def _finding(mark: Mark, message: str, hint: str, *, sure: bool) -> Diagnostic:
    return make_diagnostic("wrong-chunk", mark, message, hint, severity="error" if sure else "warning")


def _faults(shape: Shape, declared: Input, path: str) -> Iterator[tuple[str, str, bool]]:
    """Yield what of a value does not fit its declaration: where, what, and whether that is sure."""
    if declared.type == "json" or shape.kinds is None:
        return
    if shape.is_null:
        if not declared.nullable:
            yield path, "is null", True
        return
    kinds = unite(map(of_constant, declared.values)).kinds if declared.type == "enum" else _KINDS[declared.type]
    wrong = shape.kinds - (kinds or shape.kinds)
    if wrong:
        sure = wrong == shape.kinds
        yield path, f"{'is' if sure else 'may be'} {an(sorted(wrong))}, not {an([declared.type])}", sure
        if sure:
            return
    if shape.null and not shape.absent and not declared.nullable:
        yield path, f"may be null: {shape.null}", False
    if declared.type == "enum" and shape.constant is not MISSING and shape.constant not in declared.values:
        yield path, f"is {shape.constant!r}, which is none of the declared values", True
    if declared.items is not None and shape.items is not None:
        yield from _faults(shape.items, declared.items, f"{path}[]")
    if declared.properties is not None and shape.fields is not None and shape.is_only("object"):
        yield from _property_faults(shape, declared.properties, f"{path}." if path else "")


def _property_faults(shape: Shape, properties: tuple[Input, ...], path: str) -> Iterator[tuple[str, str, bool]]:
    names = {each.name for each in properties}
    for each in properties:
        field = shape.field(each.name)
        if field is None:
            if each.required:
                yield f"{path}{each.name}", "is missing", True
            continue
        if field.absent and each.required:
            yield f"{path}{each.name}", f"may be missing: {field.null}", False
        yield from _faults(field.sure if field.absent else field, each, f"{path}{each.name}")
    for name, field in (shape.fields or {}).items():
        if name not in names:
            yield f"{path}{name}", "is not declared", not field.absent

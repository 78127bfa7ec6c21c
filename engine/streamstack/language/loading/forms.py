"""Which form of a parameter a YAML node has: a scalar, a list, or a mapping."""

from __future__ import annotations

from streamstack.language.loading.constants import suits
from streamstack.language.loading.wording import KINDS
from streamstack.language.parameters import (
    Bound,
    Condition,
    Constant,
    Group,
    Kind,
    ListOf,
    Named,
    OneOf,
    Parameter,
    ParameterType,
    StackOf,
    Variable,
)
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence


def admits_mapping(wanted: ParameterType) -> bool:
    """Tell whether a mapping can be a value of this type."""
    if isinstance(wanted, OneOf):
        return any(admits_mapping(form) for form in wanted.forms)
    if isinstance(wanted, (Bound, Constant)):
        return wanted.kind in (Kind.ANY, Kind.OBJECT, Kind.HEADERS, Kind.ANY_OR_STREAM)
    return isinstance(wanted, (Named, Group))


def main_takes_mapping(parameters: tuple[Parameter, ...]) -> bool:
    """Tell whether a mapping below a function is the value of its main parameter.

    It is where the main parameter holds names of the author's own (`set: {total: 0}`), or is the
    only one and can be an object (`return: {id: 1}`). Everywhere else a mapping holds the
    parameters (`stream: {content: ...}`).
    """
    main = next((parameter for parameter in parameters if parameter.main), None)
    if main is None:
        return False
    return isinstance(main.type, Named) or (len(parameters) == 1 and admits_mapping(main.type))


def admits(form: ParameterType, node: Node) -> bool:
    """Tell whether a form of OneOf is the one that this node has."""
    match form:
        case Bound() | Constant():
            if isinstance(node, Scalar):
                return True
            return suits(form.kind, [] if isinstance(node, Sequence) else {}) and form.kind not in (
                Kind.DURATION,
                Kind.SIZE,
                Kind.EVERY,
                Kind.RATE,
            )
        case Condition() | Variable():
            return isinstance(node, Scalar)
        case StackOf() | ListOf():
            return isinstance(node, Sequence)
        case Group() | Named():
            return isinstance(node, Mapping)
        case OneOf():
            return any(admits(inner, node) for inner in form.forms)


def form_words(form: ParameterType) -> str:
    """Return what a message calls a form."""
    match form:
        case Bound() | Constant():
            return KINDS[form.kind]
        case Condition():
            return "a condition as << ... >>"
        case Variable():
            return "the name of a variable"
        case StackOf():
            return "a list of steps"
        case ListOf():
            return "a list"
        case _:
            return "a mapping"

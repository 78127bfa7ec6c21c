"""From the nodes of a step's parameters to arguments, by the types that its function declares."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.definition import (
    Argument,
    Arguments,
    Entries,
    Entry,
    Given,
    Items,
    Stack,
)
from streamstack.language.expressions import Value, parse_condition, parse_value
from streamstack.language.loading import modifiers
from streamstack.language.loading.constants import convert, not_chosen, out_of_range, suits
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.forms import admits, form_words
from streamstack.language.loading.headers import check_header
from streamstack.language.loading.statements import check_sql
from streamstack.language.loading.wording import KINDS, describe, how_to_write, is_null, listed
from streamstack.language.names import CODE, VARIABLE, check_variable, code_of
from streamstack.language.parameters import (
    Bound,
    Choice,
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
from streamstack.language.suggest import nearest
from streamstack.language.values import MISSING
from streamstack.records import record

#: Kinds written as numbers with units.
_MEASURES: Final = frozenset({Kind.DURATION, Kind.SIZE, Kind.EVERY, Kind.RATE})


@record()
class Site:
    """Where an argument stands: how messages and paths call it."""

    owner: str  # `stream`, `forEach.catch`, a step
    name: str  # of the parameter
    path: str  # functionStack[2].forEach.do
    default: Any = None
    key: str = ""  # what stands left of the colon, where it is not the parameter's name

    @property
    def words(self) -> str:
        return f"`{self.name}` of {self.owner}"

    def inner(self, name: str) -> Site:
        """Return the site of something below this one."""
        path = self.path + name if name.startswith("[") else f"{self.path}.{name}"
        return replace(self, path=path, name=self.name if name.startswith("[") else name)


class ArgumentReader:
    """Reads arguments; nested stacks are read by ``read_stack``, given their path."""

    def __init__(self, faults: Faults, read_stack: Callable[[Node, str], Stack | None]) -> None:
        self.faults = faults
        self._read_stack = read_stack

    def read_arguments(
        self,
        parameters: tuple[Parameter, ...],
        node: Mapping,
        owner: str,
        path: str,
        told: tuple[str, ...] = (),
    ) -> Arguments:
        """Read a mapping of parameters. A null one counts as not given.

        ``told`` are parameters whose absence is told elsewhere.
        """
        by_name = {parameter.name: parameter for parameter in parameters}
        given: dict[str, Argument] = {}
        named = set()
        for key, value in node.items:
            parameter = by_name.get(key.text)
            if parameter is None:
                told = (*told, self._refuse_unknown(key, by_name, owner) or "")
            elif not is_null(value):
                named.add(parameter.name)
                self._put(given, parameter, value, owner, f"{path}.{key.text}")
        self.require(parameters, named, node.mark, owner, told)
        return Arguments(given, node.mark)

    def read_main(self, parameter: Parameter, node: Node, owner: str, path: str) -> Arguments:
        """Read a bare value that stands for the main parameter."""
        given: dict[str, Argument] = {}
        site = Site(owner, parameter.name, path, parameter.default, owner.strip("`"))
        argument = self.read(parameter.type, node, site)
        if argument is None:
            self.faults.holes = True
        else:
            given[parameter.name] = argument
        return Arguments(given, node.mark)

    def require(
        self,
        parameters: tuple[Parameter, ...],
        named: Collection[str],
        mark: Mark,
        owner: str,
        told: Collection[str] = (),
    ) -> None:
        """Report the required parameters that are neither named nor told of elsewhere."""
        for parameter in parameters:
            if not parameter.required or parameter.name in named:
                continue
            self.faults.holes = True
            if parameter.name not in told:
                self.faults.add(
                    "missing-parameter",
                    mark,
                    f"{owner} lacks `{parameter.name}`",
                    f"add `{parameter.name}`: {parameter.description}",
                )

    def choose(self, choices: tuple[Choice, ...], node: Mapping, owner: str) -> None:
        """Report parameters that exclude one another, and where one of them is missing."""
        for choice in choices:
            given = [
                key for key, value in node.items if key.text in choice.names and not is_null(value)
            ]
            names = listed(f"`{name}`" for name in choice.names)
            if not given and choice.required:
                self.faults.cut(
                    "missing-parameter", node.mark, f"{owner} lacks {names}", f"add {names}"
                )
            for key in given[1:]:
                self.faults.add(
                    "conflicting-parameters",
                    key.mark,
                    f"{owner} takes {names}, and here are `{given[0].text}` and `{key.text}`",
                )

    def _refuse_unknown(self, key: Scalar, by_name: Collection[str], owner: str) -> str | None:
        """Report a parameter that does not exist; return the one that may be meant."""
        name = key.text
        near = nearest(name, by_name)
        if near:
            hint = f"did you mean `{near}`?"
        elif by_name:
            hint = f"{owner} takes {listed(by_name, 'and')}"
        else:
            hint = f"{owner} takes no parameters"
        if name in modifiers.NAMES and owner.startswith("`"):
            hint = f"`{name}` stands beside {owner}, not below it: write it two spaces further left"
        self.faults.add("unknown-parameter", key.mark, f"{owner} has no parameter `{name}`", hint)
        return near

    def _put(
        self,
        given: dict[str, Argument],
        parameter: Parameter,
        node: Node,
        owner: str,
        path: str,
    ) -> None:
        site = Site(owner, parameter.name, path, parameter.default)
        argument = self.read(parameter.type, node, site)
        if argument is None:
            self.faults.holes = True
        else:
            given[parameter.name] = argument

    def read(self, wanted: ParameterType, node: Node, site: Site) -> Argument | None:
        """Read one argument of a type; None where it is so wrong that nothing can stand for it."""
        match wanted:
            case Bound():
                return self._read_bound(wanted, node, site)
            case Condition():
                return self._parse(parse_condition, node)
            case Constant():
                return self._read_constant(wanted, node, site)
            case Variable():
                return self._read_variable(node, site)
            case StackOf():
                return self._read_stack(node, site.path)
            case Group():
                if isinstance(node, Mapping):
                    name = (
                        f"`{site.owner.strip('`')}.{site.name}`"
                        if site.owner[0] == "`"
                        else f"`{site.name}`"
                    )
                    return self.read_arguments(wanted.parameters, node, name, site.path)
                self._refuse(node, site, "a mapping", _group_hint(wanted, node, site))
            case ListOf():
                return self._read_list(wanted, node, site)
            case Named():
                return self._read_named(wanted, node, site)
            case OneOf():
                return self._read_one_of(wanted, node, site)
        return None

    def _refuse(self, node: Node, site: Site, wanted: str, hint: str = "") -> None:
        self.faults.add(
            "wrong-type",
            node.mark,
            f"{site.words} takes {wanted}, and this is {describe(node)}",
            hint,
        )

    def _parse(self, parse: Callable[[Node], tuple[Value, list[Diagnostic]]], node: Node) -> Value:
        value, found = parse(node)
        if found:
            self.faults.extend(found)
        return value

    def _read_bound(self, wanted: Bound, node: Node, site: Site) -> Argument:
        value = self._parse(parse_value, node)
        if wanted.kind is Kind.SQL:
            self.faults.extend(check_sql(value, node))
        elif wanted.kind is Kind.HEADERS and isinstance(node, Mapping):
            for key, item in node.items:
                check_header(key, item, self.faults)
        constant = value.constant
        if constant is not MISSING and wanted.expression:
            self.faults.add(
                "not-an-expression",
                node.mark,
                f"{site.words} is computed of each item, and this is {describe(node)}",
                _expression_hint(wanted, node),
            )
        elif constant is not MISSING:
            self.check(wanted, constant, node, site)
        elif not value.whole:
            self._check_form(wanted.kind, node, site)
        return value

    def _check_form(self, wanted: Kind, node: Node, site: Site) -> None:
        """Report a value with bindings inside that is surely of the wrong type."""
        if isinstance(node, Scalar):
            if wanted in _MEASURES or suits(wanted, ""):
                return
            self.faults.add(
                "wrong-type",
                node.mark,
                f"{site.words} takes {KINDS[wanted]}, and text around a binding is a text",
                "write one whole <<expression>>",
            )
        elif not suits(wanted, [] if isinstance(node, Sequence) else {}) or wanted in _MEASURES:
            self._refuse(node, site, KINDS[wanted], how_to_write(wanted, node))

    def check(self, wanted: Bound | Constant, value: Any, node: Node, site: Site) -> Any:
        """Report a constant that does not suit; return it converted, or MISSING."""
        if wanted.kind in _MEASURES and not isinstance(node, Scalar):
            self._refuse(node, site, KINDS[wanted.kind], how_to_write(wanted.kind, node))
            return MISSING
        try:
            converted = convert(wanted.kind, value)
        except ValueError as error:
            code = {Kind.SIZE: "bad-size", Kind.RATE: "bad-rate"}.get(wanted.kind, "bad-duration")
            hint = how_to_write(wanted.kind, node) if wanted.kind is Kind.EVERY else ""
            self.faults.add(code, node.mark, f"{site.words}: {error}", hint)
            return MISSING
        if not suits(wanted.kind, converted) and wanted.kind not in _MEASURES:
            self._refuse(node, site, KINDS[wanted.kind], how_to_write(wanted.kind, node))
            return MISSING
        unfit = not_chosen(converted, wanted.choices)
        if not unfit and isinstance(wanted, Bound) and wanted.refuses is not None:
            unfit = wanted.refuses(converted)
        if unfit:
            self._refuse(node, site, *unfit)
            return MISSING
        if isinstance(wanted, Bound) and wanted.code and not CODE.fullmatch(str(converted or "x")):
            near = code_of(str(converted))
            self.faults.add(
                "bad-name",
                node.mark,
                f"{site.words} is a code of words-with-hyphens, and this is {describe(node)}",
                f"write `{near}`" if near else "write it like sold-out",
            )
            return MISSING
        bound = out_of_range(converted, wanted.minimum, wanted.maximum, wanted.kind)
        if bound:
            self._refuse(node, site, f"{KINDS[wanted.kind]} of {bound}", f"write {bound}")
            return MISSING
        return converted

    def _read_constant(self, wanted: Constant, node: Node, site: Site) -> Given | None:
        value, problems = parse_value(node)
        self.faults.extend(problems)
        if problems:
            return None
        if value.constant is MISSING:
            self.faults.add(
                "constant-required",
                node.mark,
                f"{site.words} is decided when the file is loaded, and this holds a binding",
                f"write {KINDS[wanted.kind]} itself"
                if not wanted.choices
                else f"write {listed(wanted.choices)}",
            )
            return None
        converted = self.check(wanted, value.constant, node, site)
        return None if converted is MISSING else Given(converted, node.mark)

    def _read_variable(self, node: Node, site: Site) -> Given | None:
        if not isinstance(node, Scalar):
            self._refuse(node, site, "the name of a variable", "write a name, such as item")
            return None
        fault, hint = check_variable(node.text, site.default)
        if fault:
            self.faults.add("bad-name", node.mark, f"{site.words}: {fault}", hint)
            return None
        return Given(node.text, node.mark)

    def _read_list(self, wanted: ListOf, node: Node, site: Site) -> Items | None:
        if not isinstance(node, Sequence):
            shown = node.text if isinstance(node, Scalar) else "..."
            self._refuse(node, site, "a list", f"write [{shown}]")
            return None
        found = []
        for index, item in enumerate(node.items):
            argument = self.read(wanted.item, item, site.inner(f"[{index}]"))
            if argument is None:
                self.faults.holes = True
            else:
                found.append(argument)
        return Items(tuple(found), node.mark)

    def _read_named(self, wanted: Named, node: Node, site: Site) -> Entries | None:
        if not isinstance(node, Mapping):
            self._refuse(
                node, site, "a mapping", f"write `{site.key or site.name}: {{name: value}}`"
            )
            return None
        if len(node.items) < wanted.least:
            self.faults.cut(
                "missing-parameter",
                node.mark,
                f"{site.words} is empty",
                f"write {site.name}: {{name: ...}}",
            )
        found = []
        for key, item in node.items:
            fault, hint = check_variable(key.text) if wanted.keys_are_variables else ("", "")
            if key.text in wanted.taken:
                fault = f"`{key.text}` has a meaning of its own here: choose another name"
            if fault:
                self.faults.cut("bad-name", key.mark, f"{site.owner}: {fault}", hint)
                continue
            argument = self.read(wanted.item, item, site.inner(key.text))
            if argument is None:
                self.faults.holes = True
            else:
                found.append(Entry(key.text, key.mark, argument))
        return Entries(tuple(found), node.mark)

    def _read_one_of(self, wanted: OneOf, node: Node, site: Site) -> Argument | None:
        for form in wanted.forms:
            if admits(form, node):
                return self.read(form, node, site)
        words = listed(form_words(form) for form in wanted.forms)
        self._refuse(node, site, words, f"write {words}")
        return None


def _group_hint(wanted: Group, node: Node, site: Site) -> str:
    first = wanted.parameters[0].name
    shown = node.text if isinstance(node, Scalar) else "..."
    if isinstance(node, Sequence):
        stack = next(
            (each.name for each in wanted.parameters if isinstance(each.type, StackOf)), ""
        )
        if stack:
            return f"write the steps below `{site.name}: {stack}:`"
    return f"write `{site.name}: {{{first}: {shown}}}`"


def _expression_hint(wanted: Bound, node: Node) -> str:
    """Say how a field of the item is written where only its name stands."""
    name = wanted.per_item.default if wanted.per_item is not None else None
    if isinstance(node, Scalar) and isinstance(node.value, str) and VARIABLE.fullmatch(node.text):
        return f"write `<< {name or 'item'}.{node.text} >>`"
    return "write one whole <<expression>>"

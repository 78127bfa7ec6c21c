"""Reads the keys of documents and the parameters of steps by the fields that declare them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, Final

from streamstack.errors import Diagnostic, Mark, Replacement, fast_dataclass
from streamstack.formats import BY_MEDIA_TYPE, BY_NAME
from streamstack.language.definition import Argument, Arguments, Choice, ConstantArgument, Entries, Entry, Items, Stack
from streamstack.language.expressions import Expression, Template, Text, Value, parse_condition, parse_value
from streamstack.language.findings import make_diagnostic
from streamstack.language.foreign import advice_for_key, meant_key
from streamstack.language.keys import MODIFIER_NAMES
from streamstack.language.kinds import FACTS, FEW, MEASURES, Kind, convert, not_chosen, out_of_range, suits
from streamstack.language.names import (
    CODE,
    CONTROL_CHARACTERS,
    VARIABLE,
    certain,
    check_variable,
    code_of,
    is_framing,
    listed,
    nearest,
)
from streamstack.language.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.sql import statement_in
from streamstack.language.values import MISSING, kind
from streamstack.spec import (
    Bound,
    Condition,
    Constant,
    Custom,
    Field,
    Group,
    ListOf,
    Named,
    OneOf,
    SchemaOf,
    StackOf,
    Type,
    Variable,
    fields_by_name,
    is_null,
)

_WORD: Final = re.compile(r"\w+")
#: Branches of one step.
MOST_STACKS: Final = 500


class Faults:
    """The findings of one document, gathered as they are met.

    ``holes`` tells that something was left out of the definition because of a fault, so that an
    analysis of names would report what is only a consequence. ``unread`` are the words of steps that were left out as a
    whole, whose function does not exist: what they would bind is among them. None: no step was.
    """

    __slots__ = ("found", "holes", "unread")

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []
        self.holes = False
        self.unread: set[str] | None = None

    def leave_out(self, node: Node) -> None:
        """Note the words of a step that is left out."""
        self.unread = set() if self.unread is None else self.unread
        if isinstance(node, Scalar):
            self.unread.update(_WORD.findall(node.text))
        elif isinstance(node, Sequence):
            for item in node.items:
                self.leave_out(item)
        else:
            for key, item in node.items:
                self.unread.update(_WORD.findall(key.text))
                self.leave_out(item)

    def add(self, code: str, mark: Mark, message: str, hint: str = "", replacement: Replacement | None = None) -> None:
        """Add a finding; without a hint of its own it has its code's."""
        self.found.append(make_diagnostic(code, mark, message, hint or None, replacement))

    def cut(self, code: str, mark: Mark, message: str, hint: str = "") -> None:
        """Add a finding that keeps a part out of the definition."""
        self.holes = True
        self.add(code, mark, message, hint)

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add findings that another part made."""
        self.found.extend(diagnostics)

    @property
    def failed(self) -> bool:
        """Whether any of them is an error."""
        return any(diagnostic.severity == "error" for diagnostic in self.found)


# ---------------------------------------------------------------------------------------- wording

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_URL_BEGINS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|/(?!/)|$")
_BOOLEANS: Final = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}


def describe(node: Node) -> str:
    """Say what a value is, as its author would: `the text "5"`, `a list`."""
    if isinstance(node, Sequence):
        return "a list" if node.items else "an empty list"
    if isinstance(node, Mapping):
        return "a mapping" if node.items else "an empty mapping"
    if node.value == "":
        return "an empty text"
    if isinstance(node.value, str):
        shown = node.value if len(node.value) <= 40 else node.value[:37] + "..."
        return f'the text "{shown}"'
    if node.value is None:
        return "null"
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    return f"the {kind(node.value)} {node.value}"


def how_to_write(wanted: Kind, node: Node) -> str:
    """Say how the value that is meant is written, or at least one of its kind."""
    meant = as_meant(wanted, node)
    if not meant:
        return FACTS[wanted].example
    if wanted in (Kind.TEXT, Kind.URL):
        return f"write {meant}, in quotes"
    if wanted in (Kind.NUMBER, Kind.INTEGER):
        return f"write {meant}, without quotes"
    return f"write {meant} for a list of one" if wanted in (Kind.LIST, Kind.ITEMS) else f"write {meant}"


def as_meant(wanted: Kind, node: Node) -> str:
    """Return the YAML of a scalar as a value of another kind, "" where it has none."""
    text = node.text.strip() if isinstance(node, Scalar) and node.value is not None else ""
    if wanted in (Kind.TEXT, Kind.URL):
        return f'"{text}"' if text else ""
    if wanted is Kind.NUMBER:
        return text if _NUMBER.fullmatch(text) else ""
    if wanted is Kind.INTEGER:
        return text if text.isdigit() else ""
    if wanted is Kind.BOOLEAN:
        return _BOOLEANS.get(text.lower(), "")
    if wanted in (Kind.LIST, Kind.ITEMS):
        return f"[{text}]" if text else ""
    return f"<<{text}>>" if wanted is Kind.STREAM and VARIABLE.fullmatch(text) else ""


# --------------------------------------------------------------------------------------- arguments


@fast_dataclass()
class ArgumentSite:
    """Where an argument stands: how messages and paths call it."""

    owner: str  # `stream`, `forEach.catch`, a step
    name: str  # of the parameter
    path: str  # functionStack[2].forEach.do
    default: Any = None
    key: str = ""  # what stands left of the colon, where it is not the parameter's name

    @property
    def words(self) -> str:
        return f"`{self.name}` of {self.owner}"

    def inner(self, name: str) -> ArgumentSite:
        """Return the site of something below this one."""
        path = self.path + name if name.startswith("[") else f"{self.path}.{name}"
        return replace(self, path=path, name=self.name if name.startswith("[") else name)


class ArgumentReader:
    """Reads arguments; nested stacks are read by ``read_stack``, given their path.

    ``of_steps``: parameters of functions and what stands beside them, not keys of documents.
    """

    def __init__(
        self, faults: Faults, read_stack: Callable[[Node, str], Stack | None], *, of_steps: bool = True
    ) -> None:
        self.faults = faults
        self._read_stack = read_stack
        self._of_steps = of_steps

    def read_arguments(
        self,
        fields: tuple[Field, ...],
        node: Mapping,
        owner: str,
        path: str,
        reported: tuple[str, ...] = (),
        unread: Collection[str] = (),
    ) -> Arguments:
        """Read a mapping of parameters. A null one counts as not given.

        ``reported`` are parameters whose absence is reported elsewhere; ``unread`` those read elsewhere, as those
        are whose types have code of their own.
        """
        by_name = fields_by_name(fields)
        values: dict[str, Argument] = {}
        named = set()
        node, meant = self.as_meant(fields, node, owner, unread)
        for key, value in node.items:
            field = by_name.get(key.text)
            if field is not None and not is_null(value):
                named.add(field.name)
                if field.name not in unread and not isinstance(field.type, Custom):
                    self._put(values, field, value, owner, f"{path}.{key.text}" if path else key.text)
        self.require(fields, named, node.mark, owner, (*reported, *meant))
        return Arguments(values, node.mark)

    def as_meant(
        self, fields: tuple[Field, ...], node: Mapping, owner: str, unread: Collection[str] = ()
    ) -> tuple[Mapping, tuple[str, ...]]:
        """Report the unknown keys of a mapping, and read those whose meaning is certain as what they mean.

        So the errors in and around the value of a misspelt key are found in the same run.

        Returns:
            The mapping without the keys that stay unknown, and the names that these may stand for.
        """
        by_name = fields_by_name(fields)
        written = {key.text for key, _ in node.items}
        if all(name in by_name or name in unread for name in written):
            return node, ()
        items, reported = [], []
        for key, value in node.items:
            if key.text in by_name or key.text in unread:
                items.append((key, value))
                continue
            near, sure = self._refuse_unknown(key, by_name, owner, written)
            if sure:
                written.add(near)
                items.append((replace(key, text=near), value))
            elif near:
                reported.append(near)
        return replace(node, items=tuple(items)), tuple(reported)

    def read_main(self, parameter: Field, node: Node, owner: str, path: str) -> Arguments:
        """Read a bare value that stands for the main parameter."""
        values: dict[str, Argument] = {}
        site = ArgumentSite(owner, parameter.name, path, parameter.default, owner.strip("`"))
        argument = self.read(parameter.type, node, site)
        if argument is None:
            self.faults.holes = True
        else:
            values[parameter.name] = argument
        return Arguments(values, node.mark)

    def require(
        self,
        parameters: tuple[Field, ...],
        named: Collection[str],
        mark: Mark,
        owner: str,
        reported: Collection[str] = (),
    ) -> None:
        """Report the required parameters that are neither named nor reported elsewhere."""
        for parameter in parameters:
            if not parameter.required or parameter.name in named:
                continue
            self.faults.holes = True
            if parameter.name not in reported:
                self.faults.add(
                    "missing-parameter",
                    mark,
                    f"{owner} requires `{parameter.name}`",
                    f"add `{parameter.name}`: {parameter.description}",
                )

    def choose(self, choices: tuple[Choice, ...], node: Mapping, owner: str) -> None:
        """Report parameters that exclude one another, and where one of them is missing."""
        for choice in choices:
            present = [key for key, value in node.items if key.text in choice.names and not is_null(value)]
            names = listed(f"`{name}`" for name in choice.names)
            if not present and choice.required:
                self.faults.cut("missing-parameter", node.mark, f"{owner} requires {names}", f"add {names}")
            for key in present[1:] if not choice.several else ():
                self.faults.add(
                    "conflicting-parameters",
                    key.mark,
                    f"{owner} takes {names}, not both `{present[0].text}` and `{key.text}`",
                )

    def _refuse_unknown(
        self, key: Scalar, by_name: Collection[str], owner: str, written: Collection[str]
    ) -> tuple[str, bool]:
        """Report a parameter that does not exist; return the one that may be meant, and whether that is certain."""
        name = key.text
        near, sure = meant_key(name, [each for each in by_name if each not in written])
        replacement = key.replacement(0, len(name), near) if sure else None
        near = near or nearest(name, by_name) or ""
        if near:
            hint = f"did you mean `{near}`?"
        elif advice := advice_for_key(name):
            hint = advice
        elif by_name:
            hint = f"{owner} takes {listed(by_name, 'and')}"
        else:
            hint = f"{owner} takes no parameters"
        if not self._of_steps:
            message = f"unknown key `{name}` in {owner}"
            self.faults.add("unknown-key", key.mark, message, hint, replacement)
            return near, sure
        if name in MODIFIER_NAMES and owner.startswith("`"):
            hint = f"`{name}` is a step modifier: write it beside {owner}, two spaces further left"
            near, sure, replacement = "", False, None
        self.faults.add("unknown-parameter", key.mark, f"{owner} has no parameter `{name}`", hint, replacement)
        return near, sure

    def _put(self, values: dict[str, Argument], parameter: Field, node: Node, owner: str, path: str) -> None:
        site = ArgumentSite(owner, parameter.name, path, parameter.default)
        argument = self.read(parameter.type, node, site)
        if argument is not None:
            values[parameter.name] = argument
        elif self._of_steps:
            # For a key of a document its default stands.
            self.faults.holes = True

    def read(self, wanted: Type, node: Node, site: ArgumentSite) -> Argument | None:
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
                name = f"`{site.owner.strip('`')}.{site.name}`" if site.owner[0] == "`" else f"`{site.name}`"
                if isinstance(node, Mapping):
                    return self.read_arguments(wanted.parameters, node, name, site.path)
                if wanted.short:
                    return self.read_main(wanted.short_field, node, name, site.path)
                self._refuse(node, site, "a mapping", _group_hint(wanted, node, site))
            case ListOf() | Named() if not isinstance(node, Scalar) and self._has_too_many(wanted, node, site):
                return None
            case ListOf():
                return self._read_list(wanted, node, site)
            case Named():
                return self._read_named(wanted, node, site)
            case OneOf():
                return self._read_one_of(wanted, node, site)
            case SchemaOf():
                from streamstack.language.json_schema import read_schema  # noqa: PLC0415  (slow to import, rarely used)

                schema, found = read_schema(node, site.words)
                self.faults.extend(found)
                return None if schema is None else ConstantArgument(schema, node.mark)
        return None

    def _has_too_many(self, wanted: ListOf | Named, node: Sequence | Mapping, site: ArgumentSite) -> bool:
        """Report more stacks than one step may hold: each is a branch of generated code, whose compiler has bounds."""
        item = wanted.item
        stacks = isinstance(item, StackOf) or (
            isinstance(item, Group) and any(isinstance(each.type, StackOf) for each in item.parameters)
        )
        if not stacks or len(node.items) <= MOST_STACKS:
            return False
        hint = "look the value up in an object, as in << prices[input.name] >>, or `call` functions by a bound name"
        self.faults.cut(
            "wrong-type", node.mark, f"{site.words} has {len(node.items):,} entries, and may have {MOST_STACKS}", hint
        )
        return True

    def _refuse(
        self, node: Node, site: ArgumentSite, wanted: str, hint: str = "", instead: str = "", written: str = ""
    ) -> None:
        """Report a value of the wrong type.

        Args:
            node: The value.
            site: Where it stands.
            wanted: What it must be.
            hint: What to write.
            instead: The text that is surely meant, in the quotes that the value has.
            written: The same as YAML, quotes included.
        """
        replacement = None
        if isinstance(node, Scalar) and (instead or written):
            replacement = node.replacement(0, len(node.text), instead) if instead else node.rewrite(written)
        message = f"{site.words} must be {wanted}, not {describe(node)}"
        self.faults.add("wrong-type", node.mark, message, hint, replacement)

    def _parse(self, parse: Callable[[Node], tuple[Value, list[Diagnostic]]], node: Node) -> Value:
        value, found = parse(node)
        if found:
            self.faults.extend(found)
        return value

    def _read_bound(self, wanted: Bound, node: Node, site: ArgumentSite) -> Argument:
        value = self._parse(parse_value, node)
        if wanted.kind is Kind.SQL:
            self.faults.extend(check_sql(value, node))
        elif wanted.kind is Kind.URL:
            self._check_url(value, site)
        elif wanted.kind is Kind.HEADERS and isinstance(node, Mapping):
            for key, item in node.items:
                check_header(key, item, self.faults)
        constant = value.constant
        if constant is not MISSING and wanted.expression:
            self.faults.add(
                "not-an-expression",
                node.mark,
                f"{site.words} must be an expression that is computed for each item, not {describe(node)}",
                _expression_hint(wanted, node),
            )
        elif constant is not MISSING:
            self.check(wanted, constant, node, site)
        elif not value.whole:
            self._check_form(wanted.kind, node, site)
        return value

    def _check_form(self, wanted: Kind, node: Node, site: ArgumentSite) -> None:
        """Report a value with bindings inside that is surely of the wrong type."""
        if isinstance(node, Scalar):
            if wanted in MEASURES or suits(wanted, ""):
                return
            self.faults.add(
                "wrong-type",
                node.mark,
                f"{site.words} must be {FACTS[wanted].phrase}, and text around a binding makes it text",
                "write one whole <<expression>>",
            )
        elif not suits(wanted, [] if isinstance(node, Sequence) else {}) or wanted in MEASURES:
            self._refuse(node, site, FACTS[wanted].phrase, how_to_write(wanted, node))

    def check(self, wanted: Bound | Constant, value: Any, node: Node, site: ArgumentSite) -> Any:
        """Report a constant that does not suit; return it converted, or MISSING."""
        if wanted.kind in MEASURES and not isinstance(node, Scalar):
            self._refuse(node, site, FACTS[wanted.kind].phrase, how_to_write(wanted.kind, node))
            return MISSING
        try:
            converted = convert(wanted.kind, value)
        except ValueError as error:
            code = FACTS[wanted.kind].code
            hint = how_to_write(wanted.kind, node) if wanted.kind is Kind.EVERY else ""
            self.faults.add(code, node.mark, f"{site.words}: {error}", hint)
            return MISSING
        if not suits(wanted.kind, converted) and wanted.kind not in MEASURES:
            few = wanted.choices if len(wanted.choices) <= FEW else ()
            words = listed(few) or FACTS[wanted.kind].phrase
            hint = f"write {words}" if few else how_to_write(wanted.kind, node)
            self._refuse(node, site, words, hint, written="" if few else as_meant(wanted.kind, node))
            return MISSING
        unfit = not_chosen(converted, wanted.choices)
        instead = certain(converted, wanted.choices) if unfit and isinstance(converted, str) else ""
        if not unfit and isinstance(wanted, Bound) and wanted.refuses is not None:
            unfit = wanted.refuses(converted)
        if unfit:
            self._refuse(node, site, *unfit, instead)
            return MISSING
        if (
            isinstance(wanted, Bound)
            and wanted.code
            and not CODE.fullmatch("" if converted is None else str(converted))
        ):
            near = code_of(str(converted))
            self.faults.add(
                "bad-name",
                node.mark,
                f"{site.words} must be a code of words-with-hyphens, not {describe(node)}",
                f"write `{near}`" if near else "write it like sold-out",
                node.replacement(0, len(node.text), near) if near and isinstance(node, Scalar) else None,
            )
            return MISSING
        bound = out_of_range(converted, wanted.minimum, wanted.maximum, wanted.kind)
        if bound:
            self._refuse(node, site, f"{FACTS[wanted.kind].phrase} of {bound}", f"write {bound}")
            return MISSING
        return converted

    def _check_url(self, value: Value, site: ArgumentSite) -> None:
        """Report a URL that begins with neither a scheme nor the `/` of this server's own paths."""
        begins: Any = value.constant
        if isinstance(value, Text):
            begins = value.parts[0]
        if not isinstance(begins, str) or _URL_BEGINS.match(begins):
            return
        if isinstance(value, Text) and not set("./") & set(begins):
            return  # what is bound may hold the rest of the scheme
        shown = begins if len(begins) <= 40 else begins[:37] + "..."
        message = f"{site.words} must be a URL with its scheme, not `{shown}`"
        scheme = "wss" if site.owner == "`websocket.stream`" else "https"
        self.faults.add("wrong-type", value.mark, message, f"write {scheme}://{shown.lstrip('/')}")

    def _read_constant(self, wanted: Constant, node: Node, site: ArgumentSite) -> ConstantArgument | None:
        if wanted.kind is Kind.PROSE:
            if isinstance(node, Scalar):
                return ConstantArgument(node.text, node.mark)
            self._refuse(node, site, FACTS[Kind.PROSE].phrase, how_to_write(Kind.PROSE, node))
            return None
        value, problems = parse_value(node)
        self.faults.extend(problems)
        if problems:
            return None
        if value.constant is MISSING:
            self.faults.add(
                "constant-required",
                node.mark,
                f"{site.words} must be a constant, because it is read when the file is loaded",
                f"write {FACTS[wanted.kind].phrase} itself"
                if not wanted.choices
                else f"write {listed(wanted.choices)}",
            )
            return None
        converted = self.check(wanted, value.constant, node, site)
        return None if converted is MISSING else ConstantArgument(converted, node.mark)

    def _read_variable(self, node: Node, site: ArgumentSite) -> ConstantArgument | None:
        if not isinstance(node, Scalar):
            self._refuse(node, site, "the name of a variable", "write a name, such as item")
            return None
        fault, hint = check_variable(node.text, site.default)
        if fault:
            self.faults.add("bad-name", node.mark, f"{site.words}: {fault}", hint)
            return None
        return ConstantArgument(node.text, node.mark)

    def _read_list(self, wanted: ListOf, node: Node, site: ArgumentSite) -> Items | None:
        if isinstance(node, Sequence):
            items = node.items
        elif wanted.alone:
            items = (node,)
        else:
            shown = node.text if isinstance(node, Scalar) else "..."
            one = f"[{shown}]" if isinstance(node, Scalar) and VARIABLE.fullmatch(shown) else ""
            self._refuse(node, site, "a list", f"write [{shown}]", written=one)
            return None
        if not (wanted.least or 0) <= len(items) <= (wanted.most or len(items)):
            count = f"from {wanted.least} to {wanted.most} items"
            self._refuse(node, site, f"a list of {count}", f"write {count}")
        found = []
        for index, item in enumerate(items):
            argument = self.read(wanted.item, item, site.inner(f"[{index}]"))
            if argument is not None:
                found.append(argument)
            elif self._of_steps:
                self.faults.holes = True
        return Items(tuple(found), node.mark)

    def _read_named(self, wanted: Named, node: Node, site: ArgumentSite) -> Entries | None:
        if not isinstance(node, Mapping):
            self._refuse(node, site, "a mapping", f"write `{site.key or site.name}: {{name: value}}`")
            return None
        if len(node.items) < wanted.least:
            self.faults.cut(
                "missing-parameter", node.mark, f"{site.words} is empty", f"write {site.name}: {{name: ...}}"
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

    def _read_one_of(self, wanted: OneOf, node: Node, site: ArgumentSite) -> Argument | None:
        for form in wanted.forms:
            if form.admits(type(node)):
                return self.read(form, node, site)
        self._refuse(node, site, wanted.phrase, f"write {wanted.phrase}")
        return None


def _group_hint(wanted: Group, node: Node, site: ArgumentSite) -> str:
    first = wanted.parameters[0].name
    shown = node.text if isinstance(node, Scalar) else "..."
    if isinstance(node, Sequence):
        stack = next((each.name for each in wanted.parameters if isinstance(each.type, StackOf)), "")
        if stack:
            return f"write the steps below `{site.name}: {stack}:`"
    return f"write `{site.name}: {{{first}: {shown}}}`"


def _expression_hint(wanted: Bound, node: Node) -> str:
    """Say how a field of the item is written where only its name stands."""
    name = wanted.per_item.default if wanted.per_item is not None else None
    if isinstance(node, Scalar) and isinstance(node.value, str) and VARIABLE.fullmatch(node.text):
        return f"write `<< {name or 'item'}.{node.text} >>`"
    return "write one whole <<expression>>"


def check_sql(value: Value, node: Node) -> list[Diagnostic]:
    """Report the bindings that would be text of the statement, or stand for a name in it."""
    if isinstance(value, Expression):
        message = "the statement itself can't come from a binding: that would allow SQL injection"
        hint = "write the SQL out, with bindings for its values; `<% if %>` may choose among its parts"
        return [make_diagnostic("sql-position", value.mark, message, hint)]
    if isinstance(value, Template) and value.captures:
        message = f"`<% {value.captures} %>` makes text of values, and in SQL each is a parameter"
        return [make_diagnostic("sql-position", node.mark, message, "write the statement without it")]
    statement = statement_in(value)
    if statement is None:
        return []
    marks = [each.mark for each in value.bindings()]
    found = []
    # The parts of a template may exclude one another.
    if statement.second and not isinstance(value, Template):
        begins = " ".join(statement.second.split())
        shown = begins if len(begins) <= 40 else begins[:37] + "..."
        message = f"a step runs one SQL statement, but a second one starts here: {shown}"
        found.append(make_diagnostic("several-statements", node.mark, message))
    return found + [
        make_diagnostic(
            fault.code, marks[fault.index] if fault.index < len(marks) else node.mark, fault.message, fault.hint
        )
        for fault in statement.misplaced
    ]


def python_values(fields: tuple[Field, ...], arguments: Arguments) -> dict[str, Any]:
    """Return the arguments that are given by the names that Python has for them: constants and texts as such."""
    by_name = fields_by_name(fields)
    found: dict[str, Any] = {}
    for name, argument in arguments.by_name.items():
        value: Any = argument
        if isinstance(argument, ConstantArgument):
            value = argument.value
        elif isinstance(argument, Items):
            value = tuple(each.value if isinstance(each, ConstantArgument) else each for each in argument.items)
        found[by_name[name].python_name] = value
    return found


_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

_FRAMING_HINTS: Final = {
    "content-length": "remove it: the length of the body is sent",
    "transfer-encoding": "remove it: a body of unknown length is sent in chunks",
    "upgrade": "remove it; `websocket.stream` opens a WebSocket",
    "proxy-authorization": "remove it; user and password of a proxy stand in `http.proxy` of the settings",
}

Headers = tuple[tuple[str, Value], ...]


def read_headers(node: Node | None, faults: Faults) -> Headers:
    """Read headers by name. Names that are not tokens, or belong to the connection, are refused."""
    if node is None:
        return ()
    if not isinstance(node, Mapping):
        faults.add(
            "wrong-type",
            node.mark,
            f"`headers` must be a mapping from names to values, not {describe(node)}",
            "write `X-Name: value`",
        )
        return ()
    found = []
    for key, item in node.items:
        if check_header(key, item, faults) and not is_null(item):
            value, problems = parse_value(item)
            faults.extend(problems)
            if not isinstance(item, Scalar):
                faults.add("wrong-type", item.mark, f"the header `{key.text}` must be a text, not {describe(item)}")
            found.append((key.text, value))
    return tuple(found)


def check_header(key: Scalar, item: Node, faults: Faults) -> bool:
    """Report a header that HTTP forbids, or that an author can't set; return whether its name is sound.

    Args:
        key: The name, as it is written.
        item: The value.
        faults: Takes the findings.
    """
    name = key.text
    if _TOKEN.fullmatch(name) is None:
        faults.add("bad-name", key.mark, f"`{name}` is not a valid header name", "write it like X-Name")
        return False
    if _is_harmless(name, item):
        faults.add(
            "no-effect", key.mark, f"the header `{name}` has no effect: HTTP itself takes care of it", "remove it"
        )
    elif is_framing(name):
        hint = _FRAMING_HINTS.get(name.lower(), "remove it")
        faults.add("bad-name", key.mark, f"the header `{name}` can't be set: HTTP itself needs it", hint)
        return False
    for each in item.items if isinstance(item, Sequence) else (item,):
        if isinstance(each, Scalar) and isinstance(each.value, str) and CONTROL_CHARACTERS.search(each.value):
            faults.add(
                "wrong-type",
                each.mark,
                f"the header `{name}` holds a line break or another control character",
                "write it on one line",
            )
    return True


def _is_harmless(name: str, item: Node) -> bool:
    """Tell whether a header asks for what HTTP/1.1 does in any case."""
    value = item.text.strip().lower() if isinstance(item, Scalar) else ""
    return name.lower() == "keep-alive" or _USUAL.get(name.lower(), "") == value != ""


#: What connections of HTTP/1.1 and responses that stream do in any case.
_USUAL: Final = {"connection": "keep-alive", "transfer-encoding": "chunked"}


def format_of_headers(headers: Headers) -> str:
    """Return the format whose Content-Type stands among an endpoint's headers, "" where none does."""
    for name, value in headers:
        if name.lower() == "content-type" and value.constant is not MISSING:
            media = str(value.constant).partition(";")[0].strip().lower()
            return BY_MEDIA_TYPE[media].name if media in BY_MEDIA_TYPE else ""
    return ""


def check_content_type(headers: Headers, response_type: str, format_: str, faults: Faults) -> None:
    """Report a Content-Type that contradicts what the writer sends."""
    for name, value in headers:
        if name.lower() != "content-type" or value.constant is MISSING:
            continue
        media_type = str(value.constant).partition(";")[0].strip().lower()
        if response_type == "json":
            if media_type.endswith(("/json", "+json")):
                continue
            sends = "application/json"
        elif format_ == "auto":
            sends = "what the request asks for, as `format: auto` does"
        elif types := BY_NAME[format_].allowed_types:
            if media_type in types:
                continue
            sends = types[0]
        elif media_type != "text/event-stream":
            continue
        else:
            sends = f"no events, in the format {format_}"
        faults.add("content-type-mismatch", value.mark, f"the header says {media_type}, but the endpoint sends {sends}")

"""The spec system: parameters, document keys and settings are declared once, as fields.

A `Field` has a name, a type, a description and a default. Everything else is derived from it:

- reading YAML, with findings: `SettingsReader` for streamstack.yaml, `language.loading` for definitions;
- the JSON Schemas: `language.schema`;
- the reference pages: `language.reference`;
- the defaults.

To add a setting, declare it with `setting` on the dataclass that holds its value (`language.settings`). Keys of
documents and steps are declared in `language.keys`, parameters of functions beside their code.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

from streamstack.errors import Diagnostic, Mark, Replacement
from streamstack.language import nodes
from streamstack.language.findings import make_diagnostic
from streamstack.language.kinds import FACTS, MEASURES, Kind, convert, out_of_range, shown, suits
from streamstack.language.names import certain, did_you_mean, listed
from streamstack.language.nodes import Node, Scalar, Sequence
from streamstack.language.values import MISSING

# ---------------------------------------------------------------------------------------- types


class Nesting(Enum):
    """How a nested stack runs, for the analysis of names, loops and emission."""

    ONCE = "once"  # exactly once, in the step's own frame (db.transaction)
    LOOP = "loop"  # no, one or many times, in the step's own frame; break and continue mean it
    ALTERNATIVE = "alternative"  # at most one of the step's alternatives runs
    OTHERWISE = "otherwise"  # the alternative that runs when no other does (else, default)
    GUARDED = "guarded"  # may stop at any step (try.do)
    HANDLER = "handler"  # runs after a GUARDED stack failed (catch.do)
    FINALLY = "finally"  # runs however the GUARDED stack ended
    BRANCH = "branch"  # once, beside the others, on its own copy of the variables; a frame
    ITEM = "item"  # for each item, later, on its own copy; a frame (streams.map)
    DEFERRED = "deferred"  # when the run has ended (after); a frame on its own copy
    FRAME = "frame"  # at most once, in a frame of its own for `return` (cache.use)


@dataclass(frozen=True, slots=True)
class Binds:
    """A variable that a nested stack or expression sees: named by another parameter's value."""

    parameter: str  # the parameter that names it: `as`
    default: str | None = None  # its name when the author gives none: item
    stream: bool = False  # whether it may be a stream


#: More choices than these are not listed one by one in the reference.
_FEW_IN_REFERENCE: Final = 12


class _Form:
    """What every type says of itself: `phrase` in messages, `words` in the reference, and how it is written in YAML.

    Without words of its own a type is a mapping.
    """

    __slots__ = ()
    written_as: ClassVar[tuple[type[Node], ...]] = (nodes.Mapping,)

    @property
    def phrase(self) -> str:
        return "a mapping"

    @property
    def words(self) -> str:
        return "mapping"

    @property
    def inner_groups(self) -> tuple[Group, ...]:
        """The mappings with fields of their own inside the type."""
        return ()

    def admits(self, node: type[Node]) -> bool:
        """Return whether a scalar, a list or a mapping can be a value of the type."""
        return node in self.written_as


class _Valued(_Form):
    """A type whose values are of a kind."""

    __slots__ = ()
    kind: Kind
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]

    @property
    def phrase(self) -> str:
        return FACTS[self.kind].phrase

    @property
    def words(self) -> str:
        return self.value_words

    @property
    def value_words(self) -> str:
        few = self.choices if len(self.choices) <= _FEW_IN_REFERENCE else ()
        words = " or ".join(f"`{each}`" for each in few) or FACTS[self.kind].short
        least, most = (shown(self.kind, bound or 0) for bound in (self.minimum, self.maximum))
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {least} to {most}"
        if self.minimum is not None:
            return f"{words} of at least {least}"
        return words if self.maximum is None else f"{words} of at most {most}"

    def admits(self, node: type[Node]) -> bool:
        if node is Scalar:
            return True
        return self.kind not in MEASURES and suits(self.kind, [] if node is Sequence else {})


@dataclass(frozen=True, slots=True)
class Bound(_Valued):
    """A value that may hold bindings; constants are checked when the file is loaded."""

    kind: Kind = Kind.ANY
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()  # for TEXT: the words allowed
    code: bool = False  # for TEXT: of words-with-hyphens, as the codes of errors are
    per_item: Binds | None = None  # evaluated for each item, which is bound under this name
    names: str = ""  # of a database: it is a "table", or names "columns" (a text, a list, or keys)
    not_null: bool = False  # it fails on null and on a file, whatever else it takes
    expression: bool = False  # a value without a binding is a mistake: the same for every item
    # Says of a constant that the function would surely refuse what it takes instead, and what to write.
    refuses: Callable[[Any], tuple[str, str] | None] | None = None


@dataclass(frozen=True, slots=True)
class Condition(_Form):
    """A whole binding or a boolean. ``per_item`` as in Bound."""

    written_as = (Scalar,)
    phrase = "a condition as << ... >>"
    words = "condition"
    per_item: Binds | None = None


@dataclass(frozen=True, slots=True)
class Constant(_Valued):
    """A value that is known when the file is loaded; a binding is a finding (`constant-required`).

    Args:
        kind, minimum, maximum, choices: What the value may be.
        positive: Refuse 0.

    The following are for settings:
        off: `false` means 0.
        parse: Makes the value from what is written; raises ValueError that says what to write.
        pattern: What a text looks like, for editors.
        empty: An empty text counts as not given.
        verbatim: Keep white space, and allow an empty text.
        code: The finding for a wrong value, if not the kind's.
    """

    kind: Kind = Kind.TEXT
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    positive: bool = False
    off: bool = False
    parse: Callable[[str], Any] | None = None
    pattern: str = ""
    empty: bool = False
    verbatim: bool = False
    code: str = ""

    @property
    def words(self) -> str:
        if self.kind is Kind.PROSE and not self.choices:
            return "text"
        return f"{self.value_words}, constant"


@dataclass(frozen=True, slots=True)
class Variable(_Form):
    """The name of a variable that a nested stack sees (`as`)."""

    written_as = (Scalar,)
    phrase = "the name of a variable"
    words = "name of a variable"


@dataclass(frozen=True, slots=True)
class StackOf(_Form):
    """A nested function stack."""

    written_as = (Sequence,)
    phrase = "a list of steps"
    words = "steps"
    nesting: Nesting
    binds: tuple[Binds, ...] = ()
    loop: bool = False  # whether `loop` is bound in it
    transaction: bool = False  # whether a database transaction stays open while it runs


@dataclass(frozen=True, slots=True)
class Group(_Form):
    """A mapping with fields of its own (catch, split, pace; a section of the settings).

    Args:
        parameters: The fields.
        make: Makes a value from a dict of the values that are given. A function receives that value, so that it can
            tell a group from an object.

    The following are for settings and document keys:
        short: The field that a value alone stands for.
        switch: "off": `false` means None. "both": `true` also means the defaults.
        check: Checks all values together. It may change them, and returns whether they can be used.
        flat: The values are fields of the mapping around the group.
        named: `make` also receives `name` and `mark`.
        whole: Leave the group out if anything in it is wrong.
        example: A value as an author writes it, for hints.
    """

    parameters: tuple[Field, ...]
    make: Callable[..., Any] | None = None
    short: str = ""
    switch: str = ""
    check: Callable[[SettingsReader, nodes.Mapping, dict[str, Any], str], bool] | None = None
    flat: bool = False
    named: bool = False
    whole: bool = False
    example: str = ""

    @property
    def short_field(self) -> Field:
        """The field that a value alone stands for, where the group has one."""
        return fields_by_name(self.parameters)[self.short]

    @property
    def words(self) -> str:
        switched = {"both": ["true or false"], "off": ["false"], "": []}[self.switch]
        return ", or ".join([*([self.short_field.type.words] if self.short else []), "mapping", *switched])

    @property
    def inner_groups(self) -> tuple[Group, ...]:
        return (self,)


@dataclass(frozen=True, slots=True)
class Tagged(_Form):
    """A mapping whose fields depend on the value of one of its keys (the type of an authentication)."""

    key: str
    groups: Mapping[str, Group]
    description: str
    example: str = ""
    written_as = ()


@dataclass(frozen=True, slots=True)
class ListOf(_Form):
    """A list of one type (elseIf, on: [codes]). With ``alone``, and in settings, a single item needs no list."""

    item: Type
    alone: bool = False
    least: int | None = None
    most: int | None = None
    written_as = (Sequence,)
    phrase = "a list"

    @property
    def words(self) -> str:
        return f"{self.item.words}, or list of: {self.item.words}" if self.alone else f"list of: {self.item.words}"

    @property
    def inner_groups(self) -> tuple[Group, ...]:
        return self.item.inner_groups


@dataclass(frozen=True, slots=True)
class Named(_Form):
    """A mapping from the author's names to one kind of thing (cases, branches, set)."""

    item: Type
    keys_are_variables: bool = False  # each key must be a variable name
    names: str = ""  # of a database: its keys are "columns"
    taken: tuple[str, ...] = ()  # names that the function gives a meaning of its own
    least: int = 0  # how many there must be
    bare: bool = False  # a name alone stands for it with nothing below
    # Says why a key can't be a name, and what to write.
    refuses: Callable[[str], tuple[str, str] | None] | None = None
    # Of settings: looks at all of them together.
    check: Callable[[SettingsReader, nodes.Mapping, dict[str, Any], str], None] | None = None

    @property
    def words(self) -> str:
        return f"{'name, or ' if self.bare else ''}mapping from names to: {self.item.words}"

    @property
    def inner_groups(self) -> tuple[Group, ...]:
        return self.item.inner_groups


@dataclass(frozen=True, slots=True)
class OneOf(_Form):
    """One of several forms, told apart by the YAML node: a scalar, a list, or a mapping."""

    forms: tuple[Type, ...]

    @property
    def phrase(self) -> str:
        return listed(form.phrase for form in self.forms)

    @property
    def words(self) -> str:
        return ", or ".join(form.words for form in self.forms)

    @property
    def inner_groups(self) -> tuple[Group, ...]:
        return tuple(group for form in self.forms for group in form.inner_groups)

    def admits(self, node: type[Node]) -> bool:
        return any(form.admits(node) for form in self.forms)


@dataclass(frozen=True, slots=True)
class Custom(_Form):
    """A value with code and a schema of its own. In settings, ``read`` receives the reader, the node and its name."""

    schema: Mapping[str, Any]
    words: str = "any value"
    read: Callable[[SettingsReader, Node, str], Any] | None = None


@dataclass(frozen=True, slots=True)
class SchemaOf(_Form):
    """A JSON Schema that the author writes; what it is of stands in the field's description."""

    written_as = (Scalar, nodes.Mapping)
    phrase = "a JSON Schema"
    words = "JSON Schema, constant"


Type = Bound | Condition | Constant | Variable | StackOf | Group | Tagged | ListOf | Named | OneOf | SchemaOf | Custom


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter of a function, key of a document, or setting.

    Args:
        default: The value when the author gives none, or null. It is documented and, for plain functions, passed by
            the compiled call.
        main: The field that a value alone stands for.
        attribute: The attribute of the dataclass that holds the value, if it is not the name in snake_case.
        example: A value as an author writes it, for hints where the field is required.
    """

    name: str
    type: Type
    description: str
    required: bool = False
    default: Any = None
    main: bool = False
    attribute: str = ""
    example: str = ""

    @property
    def python_name(self) -> str:
        """The name under which Python code receives it: chunkSize is chunk_size, in is in_."""
        name = self.attribute or "".join("_" + c.lower() if c.isupper() else c for c in self.name)
        return name + "_" if name in _KEYWORDS else name


_KEYWORDS: Final = frozenset({"in", "from", "as", "is", "if", "else", "try", "finally", "return", "for", "with"})


def takes_mapping(parameters: tuple[Field, ...]) -> bool:
    """Return whether a mapping below a function is the value of its main parameter.

    It is where the main parameter holds names of the author's own (`set: {total: 0}`), or is the only one and can be
    an object (`return: {id: 1}`). Everywhere else a mapping holds the parameters (`stream: {content: ...}`).
    """
    main = next((parameter for parameter in parameters if parameter.main), None)
    if main is None:
        return False
    return isinstance(main.type, Named) or (len(parameters) == 1 and main.type.admits(nodes.Mapping))


# ----------------------------------------------------------------------------- fields of dataclasses


@dataclass(frozen=True, slots=True)
class Section:
    """A key that holds several settings of one dataclass; ``short`` is the one that a value alone stands for."""

    name: str
    description: str
    short: str = ""


def setting(  # noqa: PLR0913 (what there is to say of one)
    type_: Type,
    description: str,
    default: Any = MISSING,
    *,
    key: str = "",
    within: Section | None = None,
    factory: Callable[[], Any] | None = None,
    example: str = "",
    shown: str = "",
    secret: bool = False,
) -> Any:
    """Declare a field of a dataclass as a setting.

    Args:
        type_: What it may hold.
        description: A sentence for the reference and for editors.
        default: Its default; without it and `factory` the setting is required.
        key: Its key, if it is not the attribute's name in camelCase.
        within: The section of the mapping that holds the key.
        factory: Makes the default.
        example: A value as an author writes it, for hints where the setting is required.
        shown: The default as an author writes it, where the value does not say it.
        secret: Leave it out of `repr`.
    """
    written = None if default is MISSING else shown or default
    required = default is MISSING and factory is None
    declared = Field(key, type_, description, required, written, example=example)
    options: dict[str, Any] = {"metadata": {"setting": declared, "within": within}, "repr": not secret}
    if factory is not None:
        options["default_factory"] = factory
    elif default is not MISSING:
        options["default"] = default
    return dataclasses.field(**options)


@cache
def fields_of(made: type) -> tuple[Field, ...]:
    """Return the settings that a dataclass declares, in the order in which they stand."""
    found: dict[str, Field] = {}
    parts: dict[str, list[Field]] = {}
    for each in dataclasses.fields(made):
        declared = each.metadata.get("setting")
        if declared is None:
            continue
        words = each.name.split("_")
        key = declared.name or words[0] + "".join(word.capitalize() for word in words[1:])
        field = dataclasses.replace(declared, name=key, attribute=each.name)
        section = each.metadata["within"]
        if section is None:
            found[key] = field
            continue
        parts.setdefault(section.name, []).append(field)
        group = Group(tuple(parts[section.name]), short=section.short, flat=True)
        found[section.name] = Field(section.name, group, section.description)
    return tuple(found.values())


def group_of(made: type, **options: Any) -> Group:
    """Return the mapping whose fields a dataclass declares, and which makes one of it."""
    return Group(fields_of(made), make=made, **options)


def shown_default(field: Field) -> Any:
    """Return a default as authors write it: 1.0 of a duration, which is seconds, as `1s`; None for an empty text."""
    wanted, default = field.type, field.default
    if isinstance(wanted, (Bound, Constant)) and type(default) in (int, float):
        return shown(wanted.kind, default)
    return None if default == "" else default


def is_null(node: Node | None) -> bool:
    """Tell whether a value counts as not given."""
    return node is None or (isinstance(node, Scalar) and node.value is None)


def is_written(node: Node | None) -> bool:
    """Tell whether a setting is given in the file, be it by a variable that is not set."""
    # Where `substitute` put a variable in, it leaves no source.
    return node is not None and not (is_null(node) and getattr(node, "source", None) is not None)


#: Fields by name, of each tuple that was asked for: declarations live as long as the process.
_by_name: Final[dict[int, tuple[tuple[Field, ...], Mapping[str, Field]]]] = {}


def fields_by_name(fields: tuple[Field, ...]) -> Mapping[str, Field]:
    """Index fields by the name an author writes."""
    known = _by_name.get(id(fields))
    if known is None:
        known = fields, {field.name: field for field in fields}
        _by_name[id(fields)] = known  # which keeps the tuple, and so its id
    return known[1]


# --------------------------------------------------------------------------------------- settings


class RefusedError(ValueError):
    """Why a value can't be, with what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


_DIGITS: Final = re.compile(r"[0-9]{1,10}")


class SettingsReader:
    """Read settings by their types. Problems become findings, which never show a value: it may be a secret.

    A wrong value is left out, so that its default holds.

    Args:
        findings: Where findings are added.
        folder: The folder that file names are relative to.
        of_definition: The values are in a definition, where no environment variable can be.
        title: How messages name the whole file.
    """

    #: The finding for a wrong value that has no code of its own.
    fault: ClassVar[str] = "bad-setting"

    def __init__(
        self,
        findings: list[Diagnostic],
        folder: Path = Path(),
        *,
        of_definition: bool = False,
        title: str = "`streamstack.yaml`",
    ) -> None:
        self.findings = findings
        self.title = title
        self.folder = folder
        self.of_definition = of_definition

    def refuse(
        self, mark: Mark, message: str, hint: str | None = None, code: str = "", replacement: Replacement | None = None
    ) -> None:
        """Report something."""
        self.findings.append(make_diagnostic(code or self.fault, mark, message, hint, replacement))

    def values(
        self, fields: tuple[Field, ...], node: nodes.Mapping, name: str, known: str | None = None
    ) -> dict[str, Any]:
        """Return the values that a mapping gives, by attribute; report keys that there are not.

        ``known`` is a key that is read elsewhere.
        """
        by_name = fields_by_name(fields)
        owner = f"`{name}`" if name else self.title
        found: dict[str, Any] = {}
        for key, value in node.items:
            field = by_name.get(key.text)
            if field is None and key.text != known:
                self.refuse_key(key, (known, *by_name) if known else tuple(by_name), owner)
            if field is None or is_null(value):
                continue
            read = self.read(field.type, value, f"{name}.{key.text}" if name else key.text)
            if read is MISSING:
                continue
            flat = isinstance(field.type, Group) and field.type.flat
            found |= read if flat else {field.python_name: read}
        for field in fields:
            if field.required and not is_written(node.get(field.name)):
                self.refuse(
                    node.mark,
                    f"{owner} requires `{field.name}`.",
                    f"add `{field.name}: {field.example}`",
                    "missing-parameter",
                )
        return found

    def refuse_key(self, key: Scalar, known: tuple[str, ...], owner: str) -> None:
        """Report a key that does not exist."""
        near = certain(key.text, known)
        self.refuse(
            key.mark,
            f"{owner} has no `{key.text}`{did_you_mean(key.text, known)}",
            f"it takes {', '.join(known)}",
            "unknown-key" if self.of_definition else "unknown-setting",
            key.replacement(0, len(key.text), near) if near else None,
        )

    def read(self, wanted: Type, node: Node, name: str) -> Any:
        """Return the value of a node that is not null; MISSING where it is wrong, which is reported."""
        match wanted:
            case Constant():
                return self.constant(wanted, node, name)
            case Group():
                return self._group(wanted, node, name)
            case Tagged():
                return self._tagged(wanted, node, name)
            case ListOf():
                items = node.items if isinstance(node, Sequence) else (node,)
                read = [self.read(wanted.item, item, name) for item in items if not is_null(item)]
                return tuple(each for each in read if each is not MISSING)
            case Named():
                return self._named(wanted, node, name)
            case Custom() if wanted.read is not None:
                return wanted.read(self, node, name)
            case Bound():
                return nodes.plain(node)
        raise TypeError(f"{wanted} is not a type of settings")

    def constant(self, wanted: Constant, node: Node, name: str) -> Any:
        """Return a constant; what the environment gives is text, and read as what is wanted."""
        facts = FACTS[wanted.kind]
        scalar = isinstance(node, Scalar)
        code = wanted.code or (facts.code if facts.parse and scalar else self.fault)
        value = node.value if isinstance(node, Scalar) else None
        if self.of_definition and isinstance(value, str) and "<<" in value:
            message = f"`{name}`: a binding is not allowed here"
            self.refuse(node.mark, message, code="constant-required")
            return MISSING
        try:
            return self._converted(wanted, value)
        except ValueError as error:
            hint = error.hint if isinstance(error, RefusedError) else None
            near = certain(value, wanted.choices) if isinstance(value, str) else ""
            replacement = node.replacement(0, len(node.text), near) if near and isinstance(node, Scalar) else None
            self.refuse(node.mark, f"`{name}`: {error}", hint, code, replacement)
        return MISSING

    def _converted(self, wanted: Constant, value: Any) -> Any:
        """Return a value as it is wanted. Raises ValueError with what to write."""
        kind = wanted.kind
        if isinstance(value, str) and not wanted.verbatim:
            value = value.strip()
            if not value and wanted.empty:
                return MISSING
            if kind is Kind.BOOLEAN and value in ("true", "false"):
                value = value == "true"
            elif kind is Kind.INTEGER and _DIGITS.fullmatch(value):
                value = int(value)
        if wanted.off and value is False:
            value = 0
        if wanted.parse is not None:
            return wanted.parse(value)
        if kind is Kind.PROSE and type(value) in (int, float):
            value = str(value)
        if wanted.choices and value not in wanted.choices:
            meant = did_you_mean(value if isinstance(value, str) else "", wanted.choices)
            words = ", ".join(wanted.choices)
            raise RefusedError(f"must be one of {words}{meant}", f"write {words}")
        if value is None or not suits(kind, value) or (kind is Kind.PROSE and type(value) is bool):
            raise ValueError(_needed(wanted))
        if value == "" and kind in (Kind.TEXT, Kind.PROSE) and not wanted.verbatim:
            raise ValueError(_needed(wanted))
        made = convert(kind, value)
        if wanted.positive and made == 0:
            raise ValueError("it must be more than 0")
        if bound := out_of_range(made, wanted.minimum, wanted.maximum, kind):
            raise ValueError(_needed(wanted) if kind is Kind.INTEGER else f"it must be {bound}")
        return made

    def _group(self, wanted: Group, node: Node, name: str) -> Any:
        if wanted.switch and isinstance(node, Scalar) and (node.value is False or node.value == "false"):
            return None
        if wanted.switch == "both" and isinstance(node, Scalar):
            switched = self.constant(Constant(Kind.BOOLEAN), node, name)
            return switched if switched is MISSING else self._made(wanted, {}, node, name)
        if isinstance(node, nodes.Mapping):
            return self.mapping(wanted, node, name)
        if is_null(node) and not any(each.required for each in wanted.parameters):
            values = {}
        elif wanted.short:
            field = wanted.short_field
            value = self.read(field.type, node, name)
            if value is MISSING:
                return MISSING
            values = {field.python_name: value}
        else:
            return self._refuse_mapping(wanted.example, node, name)
        alone = nodes.Mapping((), node.mark)
        if wanted.check is not None and not wanted.check(self, alone, values, name):
            return MISSING
        return self._made(wanted, values, node, name)

    def _refuse_mapping(self, example: str, node: Node, name: str) -> Any:
        hint = f"write `{name.rpartition('.')[2]}: {example}`" if example else None
        self.refuse(node.mark, f"`{name}` is a mapping.", hint, "not-a-mapping")
        return MISSING

    def mapping(self, wanted: Group, node: nodes.Mapping, name: str, tag: str | None = None) -> Any:
        """Return the value of a mapping with fields; MISSING where it is wrong, which is reported."""
        before = len(self.findings)
        values = self.values(wanted.parameters, node, name, tag)
        if wanted.check is not None and not wanted.check(self, node, values, name):
            return MISSING
        found = self.findings[before:]
        if wanted.whole and any(each.severity == "error" for each in found):
            return MISSING
        return self._made(wanted, values, node, name)

    def _made(self, wanted: Group, values: dict[str, Any], node: Node, name: str) -> Any:
        if any(each.required and each.python_name not in values for each in wanted.parameters):
            return MISSING
        if wanted.named:
            values |= {"name": name.rpartition(".")[2], "mark": node.mark}
        return values if wanted.make is None or wanted.flat else wanted.make(**values)

    def _tagged(self, wanted: Tagged, node: Node, name: str) -> Any:
        if not isinstance(node, nodes.Mapping):
            return self._refuse_mapping(wanted.example, node, name)
        tag = node.get(wanted.key)
        kind = tag.value if isinstance(tag, Scalar) else None
        group = wanted.groups.get(kind) if isinstance(kind, str) else None
        if group is None:
            known = tuple(wanted.groups)
            meant = did_you_mean(str(kind or ""), known)
            self.refuse(
                node.mark if tag is None else tag.mark,
                f"`{name}` needs a `{wanted.key}`: {listed(known)}{meant}",
                f"add {listed(f'`{wanted.key}: {each}`' for each in known)}",
                "missing-parameter" if is_null(tag) else self.fault,
            )
            return MISSING
        return self.mapping(group, node, name, wanted.key)

    def _named(self, wanted: Named, node: Node, name: str) -> Any:
        if not isinstance(node, nodes.Mapping):
            return self._refuse_mapping("", node, name)
        found: dict[str, Any] = {}
        for key, value in node.items:
            fault = wanted.refuses(key.text) if wanted.refuses is not None else None
            if fault is not None:
                self.refuse(key.mark, *fault, "bad-name")
            read = self.read(wanted.item, value, f"{name}.{key.text}")
            if read is not MISSING:
                found[key.text] = read
        if wanted.check is not None:
            wanted.check(self, node, found, name)
        return found


def _needed(wanted: Constant) -> str:
    """Say what is needed, with its bounds."""
    words = listed(wanted.choices) or FACTS[wanted.kind].phrase
    if wanted.minimum is not None and wanted.maximum is not None:
        least, most = shown(wanted.kind, wanted.minimum), shown(wanted.kind, wanted.maximum)
        words += f" from {least} to {most}"
    elif wanted.minimum is not None:
        words += f" of at least {shown(wanted.kind, wanted.minimum)}"
    return f"must be {words}"

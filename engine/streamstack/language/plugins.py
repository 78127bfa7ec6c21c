"""Load plug-ins: run their files, and read the signatures of the functions and filters that they declare."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, Union, get_args, get_origin

from streamstack.errors import Diagnostic, Mark
from streamstack.language.definition import Effects, Function, Parameter, Registry
from streamstack.language.filters import FILTERS
from streamstack.language.filters.operations import Operation
from streamstack.language.findings import make_diagnostic
from streamstack.language.keys import MODIFIER_NAMES
from streamstack.language.kinds import Kind
from streamstack.language.plugin_files import PluginFile
from streamstack.plugins import Declaration, collecting
from streamstack.spec import Bound, Constant, Type


@dataclass(frozen=True, slots=True)
class Plugins:
    """What the plug-ins of a project add to the language, and what is wrong with them."""

    functions: tuple[Function, ...] = ()
    filters: Mapping[str, Operation] = field(default_factory=dict)
    findings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """How a plug-in's code is called.

    Args:
        code: What it declares.
        file: Its file, by the name that the log has.
        annotations: The types of its parameters, by their names in Python.
    """

    code: Callable[..., Any]
    file: PluginFile
    annotations: Mapping[str, Any]


class _WrongError(Exception):
    """Why a declaration can't be used."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


#: What was declared by files as they are: reading a project again does not run them again.
_loaded: Final[dict[Path, tuple[bytes, list[Declaration]]]] = {}
_FUNCTION_NAME: Final = re.compile(r"[a-z][A-Za-z0-9]*(\.[a-z][A-Za-z0-9]*)?")
_FILTER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load_plugins(files: Iterable[PluginFile], registry: Registry) -> Plugins:
    """Run plug-ins and return what they declare. Nothing is raised: what is wrong is a finding."""
    findings: list[Diagnostic] = []
    functions: dict[str, Function] = {}
    filters: dict[str, Operation] = {}
    owners: dict[tuple[str, str], str] = {}
    for file in files:
        for declared in _run(file, findings):
            mark = _mark_of(declared.code, file)
            try:
                _check_name(declared, registry, owners)
                if declared.what == "function":
                    functions[declared.name] = _function(declared, file, registry)
                else:
                    filters[declared.name] = _filter(declared, file, registry)
                owners[declared.what, declared.name] = str(mark)
            except _WrongError as error:
                message = f"{declared.what} `{declared.name}`: {error}"
                findings.append(make_diagnostic("bad-plugin", mark, message, error.hint or None))
    return Plugins(tuple(functions.values()), filters, tuple(findings))


def _run(file: PluginFile, findings: list[Diagnostic]) -> list[Declaration]:
    """Run a file, unless it has not changed since, and return what it declares."""
    try:
        source = file.path.read_bytes()
    except OSError as error:
        message = f"the plug-in {file.name} can't be read: {error.strerror}"
        findings.append(make_diagnostic("bad-plugin", file.mark, message))
        return []
    known = _loaded.get(file.path)
    if known is not None and known[0] == source:
        return known[1]
    module = types.ModuleType(f"streamstack_plugin_{file.path.stem}_{len(sys.modules)}")
    module.__file__ = str(file.path)
    sys.modules.setdefault(module.__name__, module)  # where dataclasses and pickle look for it
    try:
        with collecting() as declared:
            exec(compile(source, file.path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  (a file that the project names)
    except SyntaxError as error:
        ours = error.filename == str(file.path)
        mark = Mark(file.name, error.lineno or 1, error.offset or 1) if ours else Mark(file.name, 1, 1)
        findings.append(make_diagnostic("bad-plugin", mark, f"the plug-in is not valid Python: {error.msg}"))
        return []
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever a file does when it is run)
        mark = Mark(file.name, line_of(error, file) or 1, 1)
        message = f"the plug-in can't be imported: {type(error).__name__}: {error}"
        findings.append(make_diagnostic("bad-plugin", mark, message, "correct it, or install what it imports"))
        return []
    _loaded[file.path] = source, declared
    return declared


def line_of(error: BaseException, file: PluginFile) -> int | None:
    """Return the line of a plug-in that an error was raised at, or passed last."""
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file.path):
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _mark_of(code: Callable[..., Any], file: PluginFile) -> Mark:
    plain = inspect.unwrap(code)
    return Mark(file.name, getattr(getattr(plain, "__code__", None), "co_firstlineno", 1), 1)


def _check_name(declared: Declaration, registry: Registry, owners: Mapping[tuple[str, str], str]) -> None:
    name, what = declared.name, declared.what
    if what == "function":
        if not _FUNCTION_NAME.fullmatch(name) or name in MODIFIER_NAMES:
            raise _WrongError("the name is not valid, or reserved", "write `family.name`, such as `prices.convert`")
        taken = name in registry
    else:
        if not _FILTER_NAME.fullmatch(name):
            raise _WrongError("the name is not valid", "write letters, digits and `_`, such as `initials`")
        other = FILTERS.get(name)
        taken = other is not None and not other.plugin
    if taken:
        raise _WrongError("streamstack has one of this name", "write another name")
    if (where := owners.get((what, name))) is not None:
        raise _WrongError(f"it is declared in {where} too", "rename one of the two")


# ----------------------------------------------------------------------------------- declarations


def _function(declared: Declaration, file: PluginFile, registry: Registry) -> Function:
    code = declared.code
    if inspect.isgeneratorfunction(code):
        raise _WrongError("a generator would block the server", "write an `async def` with `yield`")
    summary, described = _documentation(code)
    hints = _hints(code)
    parameters: list[Parameter] = []
    for each in _parameters(code):
        wanted = _bound(hints[each.name], each.name)
        if isinstance(wanted, Bound) and wanted.kind is Kind.ITEMS and not _is_async(code):
            raise _WrongError(f"`{each.name}` is a stream, which only an `async def` can read")
        name = _camel(each.name)
        optional = each.default is not each.empty
        default = each.default if optional else None
        if isinstance(default, timedelta):
            default = default.total_seconds()
        if default is not None and not isinstance(default, (str, int, float, bool, list, dict)):
            raise _WrongError(f"the default of `{each.name}` must be a text, number, boolean, list, dict or None")
        parameters.append(
            Parameter(
                name,
                wanted,
                described.get(each.name) or f"`{name}`.",
                required=not optional,
                default=default,
                main=not parameters,
                attribute=each.name,
            )
        )
    signature = Signature(code, file, {name: hint for name, hint in hints.items() if name != "return"})
    if registry.make_run is None:
        raise _WrongError("plug-ins can't be run here")
    return Function(
        declared.name,
        summary,
        tuple(parameters),
        _effects(hints["return"], code),
        (),
        run=registry.make_run(signature),
        plugin=file.name,
    )


def _is_async(code: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)


def _filter(declared: Declaration, file: PluginFile, registry: Registry) -> Operation:
    code = declared.code
    if _is_async(code) or inspect.isgeneratorfunction(code):
        raise _WrongError("a filter is a plain function", "write `def`, and return a value")
    summary, _ = _documentation(code)
    hints = _hints(code)
    if not (declared_parameters := _parameters(code)):
        raise _WrongError("a filter takes the value on its left as its first parameter")
    first, *others = declared_parameters
    fields = tuple(
        Parameter(
            each.name,
            _constant(hints[each.name]),
            "",
            required=each.default is each.empty,
            default=None if each.default is each.empty else each.default,
        )
        for each in others
    )
    if registry.make_filter is None:
        raise _WrongError("plug-ins can't be run here")
    signature = Signature(code, file, {name: hint for name, hint in hints.items() if name != "return"})
    call = registry.make_filter(declared.name, signature)
    left, result = _shape(hints[first.name], first.name), _shape(hints["return"], "return")
    return Operation(
        what="filter",
        name=declared.name,
        summary=" ".join(summary.split()),
        example="",
        result=None,
        code=call,
        call=call,
        fields=fields,
        keywords=tuple(each.name for each in fields),
        minimum=sum(each.required for each in fields),
        maximum=len(fields),
        shape=f"{left if left != 'any' else ''} -> {result}",
        plugin=file.name,
    )


def _documentation(code: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return a docstring without its section `Args`, and what that says of each parameter."""
    text = inspect.getdoc(code)
    if not text:
        raise _WrongError("it has no docstring", "describe it in a sentence: it is its documentation")
    lines: list[str] = []
    described: dict[str, str] = {}
    name, inside = "", False
    for line in text.split("\n"):
        if re.fullmatch(r"(Args|Returns|Raises|Yields):", line):
            inside, name = True, "" if line == "Args:" else "-"
        elif not inside or (line and not line.startswith(" ")):
            inside = False
            lines.append(line)
        elif name != "-" and (found := re.match(r" {1,4}\*{0,2}(\w+)(?: \(.*?\))?: (.*)", line)):
            name = found[1]
            described[name] = found[2]
        elif name in described and line.strip():
            described[name] += " " + line.strip()
    return "\n".join(lines).strip(), described


def _hints(code: Callable[..., Any]) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(code)
    except Exception as error:
        raise _WrongError(f"its annotations can't be read: {error}") from error
    missing = [each for each in (*(one.name for one in _parameters(code)), "return") if each not in hints]
    if missing:
        raise _WrongError(
            f"`{missing[0]}` has no annotation", "annotate each parameter and the result: they are its types"
        )
    return hints


def _parameters(code: Callable[..., Any]) -> list[inspect.Parameter]:
    found = list(inspect.signature(code).parameters.values())
    for each in found:
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            raise _WrongError(f"`{each}` is not a parameter that YAML can name", "write a parameter for each argument")
    return found


def _camel(name: str) -> str:
    first, *rest = name.strip("_").split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


# ------------------------------------------------------------------------------------------- types

_STREAMS: Final = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)
_KINDS: Final[dict[Any, Kind]] = {
    str: Kind.TEXT,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
    Decimal: Kind.NUMBER,
    bool: Kind.BOOLEAN,
    timedelta: Kind.DURATION,
    list: Kind.LIST,
    abc.Sequence: Kind.LIST,
    dict: Kind.OBJECT,
    abc.Mapping: Kind.OBJECT,
}
_SHAPES: Final[dict[Any, str]] = {
    str: "text",
    int: "integer",
    float: "number",
    Decimal: "decimal",
    bool: "boolean",
    bytes: "bytes",
    datetime: "timestamp",
    date: "date",
    type(None): "null",
    list: "list",
    abc.Sequence: "list",
    dict: "object",
    abc.Mapping: "object",
    Any: "any",
    object: "any",
}


def without_none(annotation: Any) -> tuple[Any, bool]:
    """Return a type without `| None`, and whether it had that."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    arms = get_args(annotation)
    others = tuple(arm for arm in arms if arm is not type(None))
    return Union[others], len(others) < len(arms)  # noqa: UP007  (made of what it holds)


def _unfit(annotation: Any, name: str) -> NoReturn:
    shown = getattr(annotation, "__name__", None) or str(annotation)
    raise _WrongError(
        f"`{name}` has the type {shown}, which is not one of the language",
        "write str, int, float, bool, bytes, datetime, Decimal, list[...], dict[str, ...], a TypedDict, Literal[...], "
        "Any, or AsyncIterator[...] for a stream; and `| None`",
    )


def _bound(annotation: Any, name: str) -> Type:
    """Return the type of a parameter."""
    plain, _ = without_none(annotation)
    origin = get_origin(plain) or plain
    if origin is Literal:
        choices = get_args(plain)
        if not all(isinstance(each, str) for each in choices):
            _unfit(plain, name)
        return Bound(Kind.TEXT, choices=choices)
    if origin in _STREAMS:
        return Bound(Kind.ITEMS)
    if origin in _KINDS:
        return Bound(_KINDS[origin])
    if typing.is_typeddict(plain):
        return Bound(Kind.OBJECT)
    _shape(plain, name)  # which refuses what it does not know
    return Bound()


def _constant(annotation: Any) -> Type:
    """Return the type of a filter's argument."""
    plain, _ = without_none(annotation)
    kind = _KINDS.get(get_origin(plain) or plain)
    return Constant(kind) if kind in (Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN) else Bound()


def _effects(annotation: Any, code: Callable[..., Any]) -> Effects:
    if annotation in (None, type(None)):
        return Effects()
    if inspect.isasyncgenfunction(code):
        if get_origin(annotation) not in _STREAMS:
            raise _WrongError("it returns a stream", "write `-> AsyncIterator[...]` from collections.abc")
        return Effects(gives="stream", result=f"stream of {_alone(_shape(get_args(annotation)[0], 'return'))}")
    return Effects(gives="value", result=_shape(annotation, "return"))


def _shape(annotation: Any, name: str) -> str:
    """Return the shape of a type, in the notation of `language.shapes`."""
    plain, null = without_none(annotation)
    if null:
        return f"{_alone(_shape(plain, name))}?"
    origin, arguments = get_origin(plain), get_args(plain)
    if origin in (Union, types.UnionType):
        return " | ".join(_alone(_shape(arm, name)) for arm in arguments)
    if origin is Literal:
        return " | ".join(dict.fromkeys(_shape(type(each), name) for each in arguments))
    if origin in (list, abc.Sequence):
        return f"[{_shape(arguments[0], name)}]"
    if origin in (dict, abc.Mapping):
        if arguments[0] is not str:
            _unfit(plain, name)
        inner = _shape(arguments[1], name)
        return "object" if inner == "any" else f"{{..., *: {inner}}}"
    if typing.is_typeddict(plain):
        return "{" + ", ".join(_fields(plain, name)) + "}"
    try:
        return _SHAPES[plain]
    except (KeyError, TypeError):
        _unfit(plain, name)


def _fields(typed: Any, name: str) -> Iterator[str]:
    for key, annotation in typing.get_type_hints(typed, include_extras=True).items():
        marker = get_origin(annotation)
        marked = marker in (typing.Required, typing.NotRequired)
        shape = _shape(get_args(annotation)[0] if marked else annotation, name)
        optional = marker is typing.NotRequired or (not marked and key not in typed.__required_keys__)
        yield f"{key}: {_alone(shape)}~" if optional else f"{key}: {shape}"


def _alone(shape: str) -> str:
    """Return a shape as it is written before or after something else."""
    return f"({shape})" if " | " in shape or shape.endswith(("?", "~")) else shape

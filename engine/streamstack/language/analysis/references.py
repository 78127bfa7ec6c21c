"""Whether what steps name exists: functions of the project and their inputs, models, databases, authentications."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streamstack.errors import Diagnostic, Mark
from streamstack.language.definition import (
    Argument,
    Definition,
    Entries,
    FunctionDefinition,
    Given,
    Items,
    Step,
)
from streamstack.language.expressions import Value
from streamstack.language.findings import find
from streamstack.language.graph import constant, steps_of
from streamstack.language.loading.inputs import mismatch
from streamstack.language.settings import default_database
from streamstack.language.suggest import nearest
from streamstack.language.values import MISSING

#: The parameter that hands over inputs, beside the one that names the function.
INPUTS = "with"
#: The parameter that lists what a bound name may mean.
CHOICES = "oneOf"


def check_calls(
    definition: Definition, functions: Mapping[str, FunctionDefinition], unread: Collection[str]
) -> list[Diagnostic]:
    """Check every step of a definition that calls functions of the project.

    ``unread`` are the names of functions that exist, and whose declaration could not be read.
    """
    found: list[Diagnostic] = []
    for step in steps_of(definition.stack):
        if step.function.effects.calls:
            _check_step(step, functions, unread, found)
    return found


def _check_step(
    step: Step,
    functions: Mapping[str, FunctionDefinition],
    unread: Collection[str],
    found: list[Diagnostic],
) -> None:
    targets = []
    for parameter in step.function.effects.calls:
        for name, mark in _names(step.arguments.get(parameter)):
            if name in unread:
                continue
            target = functions.get(name)
            if target is None or target.disabled:
                found.append(_unknown(name, mark, functions))
            else:
                targets.append(target)
    main = step.function.main
    named = None if main is None else step.arguments.get(main.name)
    if main is None or main.name not in step.function.effects.calls or named is None:
        return
    if isinstance(named, Value) and named.constant is MISSING:
        if CHOICES in step.function.by_name and step.arguments.get(CHOICES) is None:
            found.append(
                find(
                    "missing-parameter",
                    step.key_mark,
                    f"`{step.function.name}` with a bound name lacks `{CHOICES}`",
                    f"add `{CHOICES}: [...]` with the functions that it may call",
                )
            )
    elif len(targets) == 1:
        _check_inputs(step, targets[0], found)


def _unknown(name: str, mark: Mark, functions: Mapping[str, FunctionDefinition]) -> Diagnostic:
    if name in functions:
        return find(
            "unknown-function",
            mark,
            f"the function `{name}` is disabled",
            f"take `disabled` out of {functions[name].mark}, or this call",
        )
    near = nearest(name, (each.name for each in functions.values() if not each.disabled))
    return find(
        "unknown-function",
        mark,
        f"the project has no function `{name}`",
        f"did you mean `{near}`?" if near else "declare it in a document with `kind: function`",
    )


def _names(argument: Argument | None) -> list[tuple[str, Mark]]:
    """Return the constant names that an argument holds."""
    if isinstance(argument, Given):
        return [(argument.value, argument.mark)] if isinstance(argument.value, str) else []
    if isinstance(argument, Value):
        constant = argument.constant
        if isinstance(constant, str):
            return [(constant, argument.mark)]
        if isinstance(constant, list):
            return [(each, argument.mark) for each in constant if isinstance(each, str)]
        return []
    if isinstance(argument, Items):
        return [pair for item in argument.items for pair in _names(item)]
    return []


def _check_inputs(step: Step, target: FunctionDefinition, found: list[Diagnostic]) -> None:
    given = step.arguments.get(INPUTS)
    if given is not None and not isinstance(given, Entries):
        return
    entries = given.entries if given is not None else ()
    by_name = {
        name: declared for declared in target.inputs for name in (declared.name, *declared.aliases)
    }
    sent = set()
    for entry in entries:
        declared = by_name.get(entry.key)
        if declared is None:
            near = nearest(entry.key, by_name)
            found.append(
                find(
                    "unknown-parameter",
                    entry.mark,
                    f"the function `{target.name}` has no input `{entry.key}`",
                    f"did you mean `{near}`?" if near else f"declare it in {target.mark.file}",
                )
            )
            continue
        value = entry.argument.constant if isinstance(entry.argument, Value) else MISSING
        if value is None:
            continue
        sent.add(declared.name)
        if value is not MISSING and isinstance(entry.argument, Value):
            fault = mismatch(declared, value)
            if fault:
                where = f"`{declared.name}` is declared in {declared.mark}"
                found.append(
                    find("wrong-type", entry.argument.mark, f"`{target.name}`: {fault}", where)
                )
    found.extend(
        find(
            "missing-parameter",
            step.key_mark,
            f"the function `{target.name}` needs the input `{declared.name}`",
            f"add `{declared.name}` under `{INPUTS}`",
        )
        for declared in target.inputs
        if declared.required and declared.name not in sent
    )


#: The code of a name that a section lacks, and what the section holds one of.
_CODES = {
    "models": ("unknown-model", "model"),
    "databases": ("unknown-database", "database"),
    "authentication": ("unknown-authentication", "authentication"),
}


def check_configured(
    definition: Definition, configured: Mapping[str, Collection[str]]
) -> list[Diagnostic]:
    """Report the constant names that the settings lack; ``configured`` are those they have, by section."""
    found = []
    for step in steps_of(definition.stack):
        for each in step.function.effects.configured:
            argument = step.arguments.get(each.parameter)
            if each.unless is not None and step.arguments.get(each.unless) is not None:
                continue
            known = configured.get(each.section)
            if known is None:
                continue
            if argument is None and each.section == "databases":
                if known and default_database(dict.fromkeys(known)) is None:
                    message = f"which database is meant? The settings have {', '.join(known)}"
                    hint = "write `database: name`, or call one of them `main`"
                    found.append(find("unknown-database", step.key_mark, message, hint))
                continue
            if not isinstance(argument, (Given, Value)):
                continue
            name = constant(argument)
            if not isinstance(name, str) or name in known:
                continue
            code, noun = _CODES[each.section]
            near = nearest(name, known)
            hint = f"declare it under `{each.section}` in streamstack.yaml"
            if each.unless is not None:
                hint += f", or give `{each.unless}`"
            message = f"the settings have no {noun} `{name}`"
            hint = f"did you mean `{near}`?" if near else hint
            found.append(find(code, argument.mark, message, hint))
    return found

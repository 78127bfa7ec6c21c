"""From the nodes of a `functionStack` to steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from streamstack.language.definition import (
    Argument,
    Arguments,
    ConstantArgument,
    Function,
    Registry,
    Retry,
    Stack,
    Step,
)
from streamstack.language.expressions import Value
from streamstack.language.foreign import FUNCTIONS, advice_for_key, look_up, meant_key
from streamstack.language.keys import MODIFIER_NAMES, MODIFIERS, RETRY
from streamstack.language.loading.arguments import ArgumentReader, ArgumentSite, Faults, describe, python_values
from streamstack.language.names import listed, nearest_and_sure
from streamstack.language.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.values import MISSING, parse_duration
from streamstack.spec import StackOf, is_null, takes_mapping

#: How deep stacks may be nested in one another.
DEEPEST: Final = 12


#: A step whose function is not known: it is left out as a whole.
_UNKNOWN: Final = object()


class StepReader:
    """Reads the stacks of one document."""

    def __init__(self, registry: Registry, faults: Faults) -> None:
        self.registry = registry
        self.faults = faults
        self._arguments = ArgumentReader(faults, self.read_stack)
        self._depth = 0
        self._unknown = False  # the function that was met last does not exist, and another is not surely meant

    def read_stack(self, node: Node, path: str) -> Stack | None:
        """Read a list of steps; None where it is not a list or lies too deep."""
        if not isinstance(node, Sequence):
            self.faults.cut(
                "wrong-type",
                node.mark,
                f"`{path.rpartition('.')[2]}` must be a list of steps, not {describe(node)}",
                "begin each step with `- `",
            )
            return None
        if self._depth >= DEEPEST:
            self.faults.cut("too-deep", node.mark, f"stacks are nested more than {DEEPEST} levels deep")
            return None
        self._depth += 1
        steps = []
        for index, item in enumerate(node.items):
            holes = self.faults.holes
            step = self._read_step(item, f"{path}[{index}]")
            if step is _UNKNOWN:
                # Its parameters are those of another function: what they lack leaves nothing else out.
                self.faults.holes = holes
                self.faults.leave_out(item)
            elif isinstance(step, Step):
                steps.append(step)
            else:
                self.faults.holes = True
        self._depth -= 1
        return Stack(tuple(steps), node.mark)

    def _read_step(self, node: Node, path: str) -> Step | object | None:
        """Read a step: None where it is none, `_UNKNOWN` where its function does not exist and another is not sure."""
        if isinstance(node, Scalar):
            return self._read_word(node, path)
        if not isinstance(node, Mapping):
            self.faults.add(
                "one-function",
                node.mark,
                f"a step must be a mapping with one function, not {describe(node)}",
                "write `- function: ...`",
            )
            return None
        found = self._find_function(node)
        unknown, self._unknown = self._unknown, False
        if found is None:
            # What is wrong with the modifiers is reported in the same run.
            self._read_modifiers(node, path)
            return _UNKNOWN if unknown else None
        function, key, value, node = found
        # A parameter that stands beside its function is reported there, and not as missing too.
        if isinstance(value, Mapping) and not takes_mapping(function.parameters):
            value, reported = self._arguments.as_meant(function.parameters, value, f"`{function.name}`")
        else:
            reported = ()
        beside = (*_beside(node, function), *reported)
        arguments = self._read_arguments(function, key, value, f"{path}.{function.name}", beside)
        modifiers = self._read_modifiers(node, path)
        self._refuse_result(function, modifiers)
        if unknown:
            return _UNKNOWN
        values = python_values(MODIFIERS, Arguments(modifiers, node.mark))
        for name, make in (("allow", frozenset), ("timeout", _timeout), ("retry", retry_of)):
            if name in values:
                values[name] = make(values[name])
        if "result" in values:
            values["result_mark"] = modifiers["as"].mark
        return Step(function, arguments, node.mark, key.mark, path, **values)

    def _read_word(self, node: Scalar, path: str) -> Step | object | None:
        """Read a step that is a function's name alone: `- break`."""
        function = self.registry.get(node.text) if isinstance(node.value, str) else None
        if function is None:
            words = isinstance(node.value, str) and _is_word(node.text)
            if not words:
                message = f"a step must be a mapping with one function, not {describe(node)}"
                self.faults.add("one-function", node.mark, message, "write `- function: ...`")
                return None
            function = self._refuse_function(node)
        unknown, self._unknown = self._unknown, False
        if function is None or unknown:
            return _UNKNOWN if unknown else None
        self._arguments.require(function.parameters, (), node.mark, f"`{function.name}`")
        return Step(function, Arguments({}, node.mark), node.mark, node.mark, path)

    def _find_function(self, node: Mapping) -> tuple[Function, Scalar, Node, Mapping] | None:
        """Return the one function of a step, with the mapping as it is meant.

        Reports the keys that are neither a function nor modifiers.
        """
        known = [(key, value) for key, value in node.items if key.text in self.registry]
        others = [key for key, _ in node.items if key.text not in self.registry and key.text not in MODIFIER_NAMES]
        if known:
            key, value = known[0]
            function = self.registry[key.text]
        elif others:
            # The key that looks most like a function is the one; the rest are unknown beside it.
            key = next((each for each in others if self._meant(each.text)[0]), others[0])
            others = [each for each in others if each is not key]
            value = next(each for name, each in node.items if name is key)
            refused = self._refuse_function(key)
            if refused is None:
                self._refuse_modifiers(node, others)
                return None
            function = refused
        else:
            message = "this step has no function"
            hint = "add one, such as `stream: ...`; `streamstack functions` lists them"
            self.faults.add("one-function", node.mark, message, hint)
            return None
        beside = _beside(node, function)
        for other, _ in known[1:]:
            self.faults.add(
                "one-function",
                other.mark,
                f"this step has the functions `{key.text}` and `{other.text}`; a step has one",
                _belongs(other.text, function, value, beside) or f"write `- {other.text}:` as a step of its own",
            )
        return (
            function,
            key,
            value,
            self._refuse_modifiers(node, others, lambda name: _belongs(name, function, value, beside)),
        )

    def _refuse_modifiers(
        self, node: Mapping, others: list[Scalar], belongs: Callable[[str], str] = lambda _: ""
    ) -> Mapping:
        """Report the keys beside a function that don't exist; return the step with those that are certain as meant."""
        written = {key.text for key, _ in node.items}
        renamed: dict[str, str] = {}
        for other in others:
            name = other.text
            hint, near, sure = belongs(name), "", False
            if not hint:
                near, sure = meant_key(name, [each for each in MODIFIER_NAMES if each not in written])
                hint = f"did you mean `{near}`?" if near else advice_for_key(name)
            if sure:
                renamed[name] = near
            message = f"`{name}` is neither a function nor a step modifier"
            replacement = other.replacement(0, len(name), near) if sure else None
            self.faults.add("unknown-modifier", other.mark, message, hint, replacement)
        items = ((replace(key, text=renamed.get(key.text, key.text)), value) for key, value in node.items)
        return replace(node, items=tuple(items)) if renamed else node

    def _meant(self, name: str) -> tuple[str, str, bool]:
        """Return the function that a name may mean, what to write, and whether the one can stand for the other."""
        advice = look_up(name, FUNCTIONS)
        if advice is not None and (not advice.name or advice.name in self.registry):
            return advice.name, advice.hint, advice.exact
        near, sure = nearest_and_sure(name, self.registry)
        if near:
            return near, f"did you mean `{near}`?", sure
        family, dot, _ = name.partition(".")
        relatives = [each for each in self.registry if dot and each.startswith(f"{family}.")]
        return "", f"`{family}` has {listed(relatives, 'and')}" if relatives else "", False

    def _refuse_function(self, key: Scalar) -> Function | None:
        """Report a function that does not exist; return the one that it may mean, for the sake of what is below it."""
        name, hint, sure = self._meant(key.text)
        replacement = key.replacement(0, len(key.text), name) if sure else None
        self.faults.add("unknown-function", key.mark, f"unknown function `{key.text}`", hint, replacement)
        self._unknown = not sure
        return self.registry.get(name)

    def _read_arguments(
        self, function: Function, key: Scalar, node: Node, path: str, beside: tuple[str, ...]
    ) -> Arguments:
        """Read what stands below a function: its parameters, or the value of its main one.

        A mapping is the value of the main parameter where `takes_mapping`, else the
        parameters. Anything else is the value of the main parameter.
        """
        owner = f"`{function.name}`"
        main = function.main
        if is_null(node):
            self._arguments.require(function.parameters, (), key.mark, owner, beside)
            return Arguments({}, key.mark)
        if isinstance(node, Mapping) and not takes_mapping(function.parameters):
            self._arguments.choose(function.choices, node, owner)
            return self._arguments.read_arguments(function.parameters, node, owner, path, beside)
        if main is not None:
            self._arguments.require(function.parameters, (main.name,), key.mark, owner, beside)
            return self._arguments.read_main(main, node, owner, path)
        self.faults.cut("wrong-type", node.mark, *_no_main(function, node, beside))
        return Arguments({}, node.mark)

    def _read_modifiers(self, node: Mapping, path: str) -> dict[str, Argument]:
        modifiers: dict[str, Argument] = {}
        for modifier in MODIFIERS:
            value = node.get(modifier.name)
            if value is None or is_null(value):
                continue
            site = ArgumentSite("a step", modifier.name, f"{path}.{modifier.name}")
            argument = self._arguments.read(modifier.type, value, site)
            if argument is not None:
                modifiers[modifier.name] = argument
            elif modifier.name == "as":
                self.faults.holes = True
        return modifiers

    def _refuse_result(self, function: Function, modifiers: dict[str, Argument]) -> None:
        result = modifiers.get("as")
        if isinstance(result, ConstantArgument) and function.effects.gives == "nothing":
            self.faults.add(
                "no-result",
                result.mark,
                f"`{function.name}` has no result, so `as` is not allowed",
                "take the `as` out" + _as_parameter(function),
            )


def _beside(node: Mapping, function: Function) -> tuple[str, ...]:
    """Return the parameters of a function that stand beside it."""
    return tuple(key.text for key, _ in node.items if key.text in function.by_name and key.text not in MODIFIER_NAMES)


def _belongs(name: str, function: Function, node: Node, beside: tuple[str, ...]) -> str:
    """Say where a key beside a function belongs that is one of its parameters, else nothing."""
    if name not in function.by_name:
        return ""
    belongs = f"`{name}` belongs to `{function.name}`: write"
    if is_null(node) or (isinstance(node, Mapping) and not takes_mapping(function.parameters)):
        return f"{belongs} it two spaces further right"
    # Beside a value that has no name yet nothing can stand.
    bare = function.main or next(
        (each for each in function.parameters if each.required and each.name not in beside), None
    )
    first = (bare.name,) if bare is not None and bare.name not in beside else ()
    shown = ", ".join(f"{each}: ..." for each in (*first, *beside))
    return f"{belongs} `{function.name}: {{{shown}}}`"


def _as_parameter(function: Function) -> str:
    if "as" in function.by_name:
        return f", or write it below `{function.name}:`, where it names what the function binds"
    return ""


def _no_main(function: Function, node: Node, beside: tuple[str, ...]) -> tuple[str, str]:
    """Say what a function takes that takes no bare value."""
    if not function.parameters:
        return (f"`{function.name}` takes no parameters, but got {describe(node)}", f"write `- {function.name}`")
    names = listed((parameter.name for parameter in function.parameters), "and")
    if isinstance(node, Sequence):
        for parameter in function.parameters:
            if isinstance(parameter.type, StackOf) and parameter.name not in beside:
                return (
                    f"`{function.name}` must be a mapping of {names}, not a list",
                    f"write the steps below `{function.name}: {parameter.name}:`",
                )
    return (
        f"`{function.name}` must be a mapping of {names}, not {describe(node)}",
        f"write `{function.name}: {{{function.parameters[0].name}: ...}}`",
    )


def _is_word(text: str) -> bool:
    return bool(text) and all(char.isalnum() or char in "._-" for char in text)


def _timeout(value: Value) -> Value | float | None:
    if value.constant is MISSING:
        return value
    try:
        return parse_duration(value.constant)
    except ValueError:
        return None  # reported where it was read


def retry_of(arguments: Arguments) -> Retry:
    """Return what `retry` says."""
    values = python_values(RETRY, arguments)
    return Retry(**{"times": 1, **values, "on": frozenset(values.get("on", ()))})

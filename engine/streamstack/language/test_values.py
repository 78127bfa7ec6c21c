"""The values of test files: texts, files, and expected values with their bindings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Sequence_
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Final

from streamstack.errors import Diagnostic, Replacement
from streamstack.language import nodes
from streamstack.language.cases import Expected
from streamstack.language.expressions import Value, evaluate, parse_value
from streamstack.language.foreign import advice_for_test_key, meant_test_key
from streamstack.language.kinds import Kind
from streamstack.language.names import did_you_mean, listed
from streamstack.language.nodes import Node, Scalar, Sequence
from streamstack.language.operators import equal
from streamstack.language.values import MISSING, to_text
from streamstack.spec import Bound, Constant, Group, ListOf, SettingsReader, Type, is_null

#: What an expected value may read.
_NAMES: Final = ("value", "env")
#: What a path may read.
_PATH_NAMES: Final = ("answers", "env")
#: Characters of a path that a finding shows.
_LONGEST_PATH: Final = 200


class ValueReader(SettingsReader):
    """Read the values of a test file: texts and files, and expected values with their bindings."""

    fault = "wrong-type"

    def __init__(self, findings: list[Diagnostic], folder: Path, project: Path) -> None:
        """``folder`` is where relative paths begin, ``project`` the folder that they stay in."""
        super().__init__(findings, folder, of_definition=True, title="a test file")
        self.project = project
        self.environment: dict[str, str] = {}  # of the test that is read, filled once all of it is known

    def mapping(self, wanted: Group, node: nodes.Mapping, name: str, tag: str | None = None) -> Any:
        """Read a mapping, in which a misspelt or foreign key counts as the one that it means."""
        known = tuple(each.name for each in wanted.parameters)
        written = {key.text for key, _ in node.items}
        items = []
        for key, value in node.items:
            near, sure = ("", False)
            if key.text not in known:
                near, sure = meant_test_key(key.text, [each for each in known if each not in written])
            if near:
                replacement = key.replacement(0, len(key.text), near) if sure else None
                self._refuse_key(key, name, f"did you mean `{near}`?", replacement)
                written.add(near)
            items.append((replace(key, text=near) if near else key, value))
        return super().mapping(wanted, replace(node, items=tuple(items)), name, tag)

    def refuse_key(self, key: Scalar, known: tuple[str, ...], owner: str) -> None:
        """Report a key that means none of those that can be written."""
        hint = advice_for_test_key(key.text) or f"{owner} takes {listed((f'`{each}`' for each in known), 'and')}"
        self._refuse_key(key, owner.strip("`") if owner != self.title else "", hint, None)

    def _refuse_key(self, key: Scalar, name: str, hint: str, replacement: Replacement | None) -> None:
        message = f"unknown key `{key.text}` in {f'`{name}`' if name else self.title}"
        self.refuse(key.mark, message, hint, "unknown-key", replacement)

    def read(self, wanted: Type, node: Node, name: str) -> Any:
        """Return the value of a node; MISSING where it is wrong, which is reported."""
        if isinstance(wanted, Bound):
            return self.expected(node)
        if isinstance(wanted, Constant) and wanted.kind is Kind.ANY:
            return self.data(node, name)
        if isinstance(wanted, ListOf) and not wanted.alone and not isinstance(node, Sequence):
            self.refuse(node.mark, f"`{name}` must be a list", f"write `{name.rpartition('.')[2]}: [...]`")
            return MISSING
        return super().read(wanted, node, name)

    def data(self, node: Node, name: str) -> Any:
        r"""Return a value without bindings; `\<<` is written for `<<`."""
        value, found = parse_value(node)
        self.findings += found
        data = value.constant
        if data is MISSING and not found:
            where = next((each.mark for each in value.bindings()), node.mark)
            hint = r"write the value itself (`\<<` for the characters): bindings stand below `expect`"
            self.refuse(where, f"`{name}`: a binding is not allowed here", hint, "constant-required")
        return data

    def text(self, node: Node, name: str) -> Any:
        """Return a text; a number or boolean as it is written."""
        if isinstance(node, Scalar) and not isinstance(node.value, str):
            return node.text.strip()
        if isinstance(node, Scalar):
            return self.data(node, name)
        self.refuse(node.mark, f"`{name}` must be a text")
        return MISSING

    def expected(self, node: Node) -> Any:
        """Return an expected value, in which each binding is an `Expected`."""
        if isinstance(node, Sequence):
            return [self.expected(item) for item in node.items]
        if isinstance(node, nodes.Mapping):
            return {key.text: self.expected(value) for key, value in node.items}
        value, found = parse_value(node)
        self.findings += found
        if value.constant is not MISSING or found:
            return None if value.constant is MISSING else value.constant
        self._check_names(value, _NAMES, "an expectation reads `value`, which is the actual one, and `env`")
        return Expected(node.text.strip(), node.mark, _matcher(value, self.environment))

    def path(self, node: Node, name: str) -> Any:
        """Return a path, and what binds it to the answers so far, None where it has no bindings."""
        value, found = parse_value(node)
        if not isinstance(node, Scalar) or found or value.constant is not MISSING:
            written = self.constant(Constant(), node, name)
            return MISSING if written is MISSING else (written, None)
        self._check_names(value, _PATH_NAMES, "a path reads `answers`, those of the requests before, and `env`")
        environment = self.environment

        def bind(answers: Sequence_[Mapping[str, Any]]) -> str:
            return to_text(evaluate(value, {"answers": list(answers), "env": environment}))

        return node.text.strip(), bind

    def _check_names(self, value: Value, names: tuple[str, ...], hint: str) -> None:
        for each in value.reads:
            if each.name not in names:
                message = f"`{each.name}` is not bound here{did_you_mean(each.name, names)}"
                self.refuse(each.mark, message, hint, "unbound-name")

    def bytes_of(self, node: Node, name: str) -> Any:
        """Return path and content of a file beside the test; MISSING where it can't be read, which is reported."""
        written = self.constant(Constant(), node, name)
        if written is MISSING:
            return MISSING
        path = self.folder / written
        hint = "write a path from the folder of the test file"
        try:
            if why := self._leaves_project(written):
                hint = "move the file below the project's folder, and write a path from the folder of the test file"
            elif path.is_file():
                return path, path.read_bytes()
            elif path.is_dir():
                why = "a folder, not a file"
            elif path.exists():
                why = "not a regular file"
            else:
                why = "no such file"
                near = get_close_matches(path.name, (each.name for each in path.parent.iterdir()), 1)
                hint = f"did you mean `{PurePath(written).with_name(near[0]).as_posix()}`?" if near else hint
        except (OSError, ValueError) as error:
            why = (getattr(error, "strerror", None) or "no such file").lower()
        self.refuse(node.mark, f"`{name}`: {why}: {written[:_LONGEST_PATH]}", hint)
        return MISSING

    def _leaves_project(self, written: str) -> str:
        """Return why a path is refused, "" if it is not: tests come with pull requests, and others run them."""
        if PurePath(written).is_absolute() or PureWindowsPath(written).anchor:
            return "an absolute path"
        inside = (self.folder / written).resolve().is_relative_to(self.project.resolve())
        return "" if inside else "outside the project's folder"

    def choose(self, node: nodes.Mapping, names: tuple[str, ...], name: str, *, required: bool = False) -> bool:
        """Report keys that exclude one another, or that all of them are missing; return whether neither is so."""
        present = [key for key, value in node.items if key.text in names and not is_null(value)]
        owner, words = f"`{name}`" if name else self.title, listed(f"`{each}`" for each in names)
        for key in present[1:]:
            message = f"{owner} takes {words}, not both `{present[0].text}` and `{key.text}`"
            self.refuse(key.mark, message, code="conflicting-parameters")
        if required and not present:
            self.refuse(node.mark, f"{owner} requires {words}", f"add {words}", "missing-parameter")
        return len(present) == 1 if required else len(present) < 2


def _matcher(value: Value, environment: Mapping[str, str]) -> Callable[[Any], bool]:
    def matches(actual: Any) -> bool:
        result = evaluate(value, {"value": actual, "env": environment})
        return result if type(result) is bool else bool(equal(result, actual))

    return matches

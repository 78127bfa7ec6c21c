"""The setting `plugins`: Python files of a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streamstack.errors import Mark
from streamstack.language.nodes import Node
from streamstack.language.values import MISSING
from streamstack.spec import Constant, Custom, SettingsReader


@dataclass(frozen=True, slots=True)
class PluginFile:
    """A plug-in that the settings name. ``name`` is how findings and the log call its file."""

    path: Path
    name: str
    mark: Mark


def _file(reader: SettingsReader, node: Node, name: str) -> Any:
    text = reader.constant(Constant(), node, name)
    if text is MISSING:
        return MISSING
    path = reader.folder / text
    hint = "write the path of a Python file of the project, relative to this file: plugins/prices.py"
    if not path.resolve().is_relative_to(reader.folder.resolve()):
        reader.refuse(node.mark, f"`{name}`: {text} is outside of the project", hint)
    elif path.suffix != ".py":
        reader.refuse(node.mark, f"`{name}`: {text} is not a Python file", hint)
    elif not path.is_file():
        reader.refuse(node.mark, f"`{name}`: no such file: {path}", hint)
    else:
        return PluginFile(path.resolve(), str(path), node.mark)
    return MISSING


#: The type of an entry of `plugins` in the settings.
PLUGIN: Final = Custom({"type": "string", "pattern": r"\.py$"}, "name of a Python file", _file)

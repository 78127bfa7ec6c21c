"""Whether what steps name is in the settings: models, databases."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streamstack.errors import Diagnostic
from streamstack.language.analysis.parts import constant
from streamstack.language.definition import Definition, Given
from streamstack.language.expressions import Value
from streamstack.language.findings import find
from streamstack.language.settings import default_database
from streamstack.language.suggest import nearest
from streamstack.language.walk import steps_of

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

"""Evaluating a value at once, where no stack is compiled: settings, tests, `--env`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamstack.errors import RunError
from streamstack.language.expressions.explain import Direct, explain
from streamstack.language.expressions.value import Value


def evaluate(value: Value, variables: Mapping[str, Any]) -> Any:
    """Return a value's data with these variables bound.

    Raises RunError ``template``, in the author's words, for whatever goes wrong.
    """
    spelling = Direct(variables)
    try:
        # Source that we have written ourselves, without builtins.
        return eval(value.source(spelling), spelling.space)  # noqa: S307
    except RunError:
        raise
    except Exception as error:
        raise RunError("template", explain(error, value, variables)) from error

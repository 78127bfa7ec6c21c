"""What may stand beside a step's function."""

from __future__ import annotations

from typing import Final

from streamstack.language.findings import FINDINGS
from streamstack.language.parameters import (
    Bound,
    Condition,
    Constant,
    Group,
    Kind,
    ListOf,
    Parameter,
    Variable,
)

RETRY: Final = (
    Parameter(
        "times",
        Constant(Kind.INTEGER, minimum=1, maximum=1000),
        "How often the step is tried again.",
        required=True,
    ),
    Parameter("delay", Constant(Kind.DURATION), "The wait before the first new try.", default="1s"),
    Parameter(
        "backoff",
        Constant(choices=("fixed", "exponential")),
        "Whether the delay stays as it is or doubles each time.",
        default="exponential",
    ),
    Parameter("maxDelay", Constant(Kind.DURATION), "The longest delay.", default="30s"),
    Parameter(
        "jitter",
        Constant(Kind.BOOLEAN),
        "Whether each delay is a random part of the full one.",
        default=True,
    ),
    Parameter(
        "on",
        ListOf(Constant()),
        "The codes it is tried again for; else every error but `invalid-input` and your own.",
    ),
)

MODIFIERS: Final = (
    Parameter("name", Constant(), "What traces, errors and the graph call the step."),
    Parameter("description", Constant(), "What the step is for."),
    Parameter("as", Variable(), "The variable the result is bound to."),
    Parameter(
        "when", Condition(), "Run the step only if this is true; passed over, its `as` is null."
    ),
    Parameter(
        "timeout",
        Bound(Kind.DURATION),
        "How long the step may take; then it fails with the error `timeout`.",
    ),
    Parameter(
        "retry", Group(RETRY), "Try the step again when it fails; never after it has emitted."
    ),
    Parameter(
        "disabled",
        Constant(Kind.BOOLEAN),
        "true: the step is passed over, and still validated.",
        default=False,
    ),
    Parameter(
        "allow",
        ListOf(Constant(choices=tuple(FINDINGS))),
        "Codes of findings that are silenced at this step.",
    ),
)

#: Their names.
NAMES: Final = frozenset(modifier.name for modifier in MODIFIERS)

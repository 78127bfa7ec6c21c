"""Expressions: from `<<...>>` in a definition to Python source.

`parse_value` and `parse_condition` turn a YAML node into a Value; `Value.source` writes it as one
line of Python for the stack it stands in; `evaluate` computes it at once.
"""

from streamstack.language.expressions.compile import (
    Constant,
    Expression,
    ListValue,
    ObjectValue,
    Read,
    Spelling,
    Text,
    Value,
)
from streamstack.language.expressions.evaluate import evaluate, explain, failing_expression
from streamstack.language.expressions.parse import parse_condition, parse_expression, parse_value
from streamstack.language.expressions.templates import Bound, Template

__all__ = [
    "Bound",
    "Constant",
    "Expression",
    "ListValue",
    "ObjectValue",
    "Read",
    "Spelling",
    "Template",
    "Text",
    "Value",
    "evaluate",
    "explain",
    "failing_expression",
    "parse_condition",
    "parse_expression",
    "parse_value",
]

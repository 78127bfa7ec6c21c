"""The key `rateLimit` of an endpoint: a rate, {limit, by, algorithm, concurrent}, or a list of such."""

from __future__ import annotations

from typing import Final

from streamstack.language.definition import RateLimit
from streamstack.language.expressions import Value, parse_value
from streamstack.language.loading.faults import Faults
from streamstack.language.loading.fields import Fields
from streamstack.language.loading.wording import describe, is_null, listed
from streamstack.language.rates import ALGORITHMS, Rate, parse_rate
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.suggest import nearest
from streamstack.language.values import MISSING

#: Who has a count of his own, where it is no binding that says so.
BY: Final = ("caller", "ip", "all")
LIMIT_KEYS: Final = {
    "limit": "How many calls in which time: 60/minute, 20/10s.",
    "by": "Who has a count of his own: `caller` (the subject of the authentication, else the address), `ip`, "
    "`all` (one count for all), or a binding.",
    "algorithm": "`fixed`: windows that follow one another. `sliding`: never more than that in any such time.",
    "concurrent": "How many runs may be under way at once.",
}
#: How many limits an endpoint may have.
MOST: Final = 10
_HINT: Final = "write 60/minute, {limit: 60/minute, by: ip}, or a list of such"


def read_limits(fields: Fields, faults: Faults) -> tuple[RateLimit, ...]:
    """Return the limits of an endpoint, in written order."""
    node = fields.get("rateLimit")
    if node is None:
        return ()
    items = node.items if isinstance(node, Sequence) else (node,)
    if not items or len(items) > MOST:
        told = f"`rateLimit` holds from 1 to {MOST} limits"
        faults.add("wrong-type", node.mark, told, _HINT)
        return ()
    found = [_read(item, faults) for item in items]
    return tuple(each for each in found if each is not None)


def _read(node: Node, faults: Faults) -> RateLimit | None:
    if isinstance(node, Scalar) and not is_null(node):
        return RateLimit(node.mark, _rate(node, faults))
    if not isinstance(node, Mapping):
        told = f"a limit is a rate or a mapping, and this is {describe(node)}"
        faults.add("wrong-type", node.mark, told, _HINT)
        return None
    fields = Fields(node, "a limit", faults)
    fields.refuse_unknown(LIMIT_KEYS, f"its keys are {listed(LIMIT_KEYS, 'and')}")
    limit, concurrent = fields.get("limit"), fields.get("concurrent")
    if limit is None and concurrent is None:
        told = "a limit lacks `limit` or `concurrent`"
        faults.add("missing-parameter", node.mark, told, "add `limit: 60/minute`")
        return None
    if limit is None and fields.get("algorithm") is not None:
        told = "`algorithm` says how `limit` counts, and there is none"
        faults.add(
            "missing-parameter", fields.key_mark("algorithm"), told, "add `limit: 60/minute`"
        )
    return RateLimit(
        node.mark,
        None if limit is None else _rate(limit, faults),
        _by(fields.get("by"), faults),
        fields.choice("algorithm", ALGORITHMS, ALGORITHMS[0]),
        None if concurrent is None else _concurrent(concurrent, faults),
    )


def _rate(node: Node, faults: Faults) -> Rate | Value | None:
    """Return a rate, or the binding that gives one."""
    value, problems = parse_value(node)
    faults.extend(problems)
    if problems or value.constant is MISSING:
        return value
    try:
        return parse_rate(value.constant)
    except ValueError as error:
        faults.add("bad-rate", node.mark, f"`limit`: {error}")
        return None


def _by(node: Node | None, faults: Faults) -> str | Value:
    """Return who has a count of his own, or the binding that says so."""
    if node is None:
        return BY[0]
    value, problems = parse_value(node)
    faults.extend(problems)
    if problems or value.constant is MISSING:
        return value
    if isinstance(value.constant, str) and value.constant in BY:
        return value.constant
    near = nearest(value.constant, BY) if isinstance(value.constant, str) else None
    told = f"`by` is {listed(BY)}, or a binding"
    hint = f"did you mean `{near}`?" if near else "write << auth.team >>, say"
    faults.add("wrong-type", node.mark, told, hint)
    return BY[0]


def _concurrent(node: Node, faults: Faults) -> int | Value | None:
    value, problems = parse_value(node)
    faults.extend(problems)
    if problems or value.constant is MISSING:
        return value
    if type(value.constant) is int and 1 <= value.constant <= 1_000_000:
        return value.constant
    told = "`concurrent` is a whole number of at least 1: how many runs may be under way at once"
    faults.add("wrong-type", node.mark, told, "write 3, say")
    return None

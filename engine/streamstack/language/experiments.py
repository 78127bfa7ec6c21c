"""The section `experiments` of streamstack.yaml: variants of values, one of which each caller always gets."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from collections.abc import Mapping as Entries
from dataclasses import dataclass, replace
from itertools import chain, product
from math import inf, prod
from types import MappingProxyType
from typing import Any, Final

from streamstack.errors import Diagnostic
from streamstack.language import shapes
from streamstack.language.definition import Endpoint, FunctionDefinition
from streamstack.language.expressions import Constant as Written
from streamstack.language.expressions import Read, Value, parse_value
from streamstack.language.findings import make_diagnostic
from streamstack.language.graph import all_values, steps_with_called, values_of
from streamstack.language.names import VARIABLE, did_you_mean, listed
from streamstack.language.nodes import Mapping, Node, Scalar, plain
from streamstack.language.shapes import ANY, TEXT, Shape, record
from streamstack.language.values import MISSING
from streamstack.spec import Custom, Field, Group, Named, SettingsReader

#: The name under which bindings read an experiment.
EXPERIMENT: Final = "experiment"
#: What `by` may be without a binding, as in a rate limit.
_KEYS: Final = ("caller", "ip")
#: Names that the binding `by` may read: it is evaluated before the stack runs.
_READABLE: Final = frozenset({"auth", "env", "input", "request", "sent", "settings"})
#: Variants of one experiment, and combinations of variants that one endpoint is measured in.
MOST_VARIANTS: Final = 20
MOST_COMBINATIONS: Final = 50


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant: its ``weight`` among the others, and its values."""

    weight: float
    values: Entries[str, Any]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Variants by name. ``by`` is `caller`, `ip`, or the binding whose value decides who gets the same variant."""

    name: str
    variants: Entries[str, Variant]
    by: str | Value = "caller"

    def choose(self, key: bytes) -> str:
        """Return the variant of a key: the same in every process, and in the proportion of the weights."""
        digest = hashlib.blake2b(b"%b\0%b" % (self.name.encode(), key), digest_size=8).digest()
        share = int.from_bytes(digest) / 2**64 * sum(each.weight for each in self.variants.values())
        chosen = ""
        for name, variant in self.variants.items():
            chosen = name if variant.weight else chosen
            share -= variant.weight
            if share < 0:
                break
        return chosen

    def bound(self, variant: str) -> dict[str, Any]:
        """Return what `experiment.NAME` is for a variant."""
        return {**self.variants[variant].values, "variant": variant}

    def fixed(self, variant: str) -> Experiment:
        """Return the experiment with one variant for all callers."""
        variants = {name: replace(each, weight=float(name == variant)) for name, each in self.variants.items()}
        return replace(self, variants=variants)

    @property
    def shape(self) -> Shape:
        """The shape of `experiment.NAME`."""
        each = [variant.values for variant in self.variants.values()]
        found = {name: _shape_of([values[name] for values in each]) for name in each[0]}
        return record({**found, "variant": TEXT})


def _shape_of(values: list[Any]) -> Shape:
    # A value that is null may be that of a variable which is not set here.
    return ANY if None in values else replace(shapes.unite(map(shapes.of_constant, values)), constant=MISSING)


def shape_of(experiments: Entries[str, Experiment], names: Collection[str]) -> Shape:
    """Return the shape of `experiment`; ``names`` are those in the settings, with experiments that are wrong."""
    return record({name: experiments[name].shape if name in experiments else ANY for name in names})


# --------------------------------------------------------------------------------------- reading


def keys_in(root: Node) -> Iterator[Node]:
    """Yield the nodes of `by` in settings: their bindings are evaluated for each run."""
    section = root.get("experiments") if isinstance(root, Mapping) else None
    for _, each in section.items if isinstance(section, Mapping) else ():
        if isinstance(each, Mapping) and (key := each.get("by")) is not None:
            yield key


def _key(reader: SettingsReader, node: Node, name: str) -> Any:
    value, found = parse_value(node)
    reader.findings += found
    if found:
        return MISSING
    if isinstance(value, Written):
        if value.constant in _KEYS:
            return value.constant
        message = f"`{name}`: must be caller, ip or a binding{did_you_mean(str(value.constant), _KEYS)}"
        reader.refuse(node.mark, message, "write caller, or << input.userId >>")
        return MISSING
    for read in value.reads:
        if read.name not in _READABLE:
            message = f"`{name}` is evaluated before the stack runs: `{read.name}` is not bound"
            reader.refuse(read.mark, message, f"read {listed(f'`{each}`' for each in sorted(_READABLE))}")
            return MISSING
    return value


def _variant(reader: SettingsReader, node: Node, name: str) -> Any:
    if not isinstance(node, Mapping):
        reader.refuse(node.mark, f"`{name}` is a mapping.", "write `a: {weight: 1, size: 5}`", "not-a-mapping")
        return MISSING
    weight, values = 1.0, {}
    for key, value in node.items:
        if key.text == "weight":
            written = value.value if isinstance(value, Scalar) else None
            if isinstance(written, (bool, str)) or written is None or not 0 <= written < inf:
                reader.refuse(value.mark, f"`{name}.weight`: must be a number of at least 0")
                return MISSING
            weight = float(written)
        elif key.text == "variant" or VARIABLE.fullmatch(key.text) is None:
            message = f"`{name}`: `{key.text}` can't be the name of a value"
            reader.refuse(
                key.mark, message, "write letters, digits and `_`; `variant` is the variant's name", "bad-name"
            )
        else:
            values[key.text] = plain(value)
    return Variant(weight, MappingProxyType(values))


def _check_variants(reader: SettingsReader, node: Mapping, found: dict[str, Any], name: str) -> None:
    """Require that each variant has the same values, so that a binding never fails for some callers only."""
    first = next(iter(found), None)
    for each, variant in found.items():
        lacking = [value for value in found[first].values if value not in variant.values] if first else []
        excess = [value for value in variant.values if value not in found[first].values] if first else []
        if lacking or excess:
            value = (lacking or excess)[0]
            without, other = (each, first) if lacking else (first, each)
            message = f"`{name}`: `{without}` has no `{value}`, which `{other}` has"
            reader.refuse((node.get(each) or node).mark, message, "give every variant the same values")


def _check_experiment(reader: SettingsReader, node: Mapping, values: dict[str, Any], name: str) -> bool:
    variants = values.get("variants")
    if variants is None:
        return False
    written = node.get("variants") or node
    if not 2 <= len(variants) <= MOST_VARIANTS:
        message = f"`{name}.variants`: an experiment has 2 to {MOST_VARIANTS} variants"
        reader.refuse(written.mark, message, "write `variants: {a: {weight: 1}, b: {weight: 1}}`")
        return False
    if not any(each.weight for each in variants.values()):
        reader.refuse(written.mark, f"`{name}.variants`: the weights are all 0", "give one a weight of 1")
        return False
    return True


def _refuse_name(name: str) -> tuple[str, str] | None:
    if VARIABLE.fullmatch(name) is not None:
        return None
    return f"`{name}` is not a valid name: bindings read it", "write letters, digits and `_`"


def _make(name: str, variants: dict[str, Variant], by: str | Value = "caller", **_: Any) -> Experiment:
    return Experiment(name, MappingProxyType(variants), by)


_VALUES: Final = {
    "type": "object",
    "properties": {"weight": {"type": "number", "minimum": 0, "description": "Weight among the variants. Default: 1."}},
}
#: The section.
EXPERIMENTS: Final = Named(
    Group(
        (
            Field(
                "variants",
                Named(
                    Custom(_VALUES, "mapping: `weight`, and values of your own", _variant),
                    refuses=_refuse_name,
                    check=_check_variants,
                ),
                "Variants by name: a `weight` (default 1), and the values that bindings read.",
                required=True,
                example="{small: {size: 5}, large: {size: 20}}",
            ),
            Field(
                "by",
                Custom({"type": ["string", "null"]}, "`caller` or `ip` or binding", _key),
                "Key that decides the variant: `caller` (the authenticated subject, or the client address), `ip`, or a "
                "binding. The same key always gets the same variant; null gets a random one.",
                default="caller",
            ),
        ),
        make=_make,
        check=_check_experiment,
        named=True,
        whole=True,
        example="{variants: {small: {size: 5}, large: {size: 20}}}",
    ),
    refuses=_refuse_name,
)


# -------------------------------------------------------------------------------- definitions


def reads_in(endpoint: Endpoint, functions: Entries[str, FunctionDefinition]) -> dict[str, Read]:
    """Return the experiments that an endpoint reads, itself or in functions that it calls, each with one place.

    One that reads `experiment` as a whole has the name "".
    """
    steps = steps_with_called(endpoint.stack, functions)
    values = chain(all_values(endpoint), chain.from_iterable(map(values_of, steps)))
    found: dict[str, Read] = {}
    for read in (read for value in values for read in value.reads if read.name == EXPERIMENT):
        found.setdefault(str(read.path[0]) if read.path else "", read)
    return found


def combinations(experiments: Collection[Experiment]) -> list[str]:
    """Return how metrics call each combination of variants, in the order of the experiments."""
    return [",".join(each) for each in product(*(experiment.variants for experiment in experiments))]


def check_experiments(
    endpoint: Endpoint, functions: Entries[str, FunctionDefinition], experiments: Entries[str, Experiment]
) -> list[Diagnostic]:
    """Report keys that an endpoint can't evaluate, bindings that come too early, and too many combinations."""
    found = [
        make_diagnostic(
            "bad-experiment", read.mark, "`rateLimit` is checked before the variant is chosen", "remove this binding"
        )
        for limit in endpoint.rate_limits
        for value in limit.bindings
        for read in value.reads
        if read.name == EXPERIMENT
    ]
    read = reads_in(endpoint, functions)
    taken = [each for name, each in experiments.items() if name in read or "" in read]
    if prod(len(each.variants) for each in taken) > MOST_COMBINATIONS:
        message = f"the experiments of {endpoint.title} have more than {MOST_COMBINATIONS} combinations of variants"
        found.append(make_diagnostic("bad-experiment", endpoint.mark, message, "read fewer experiments here"))
    inputs = {each.name for each in endpoint.inputs}
    anonymous = endpoint.authentication is None or endpoint.authentication.optional
    for each in taken:
        for needed in each.by.reads if isinstance(each.by, Value) else ():
            message = hint = ""
            if needed.name in ("input", "sent") and needed.path and needed.path[0] not in inputs:
                message = f"`{needed.name}.{needed.path[0]}`, which {endpoint.title} does not declare"
                hint = f"declare the input `{needed.path[0]}`, or change `by`"
            elif needed.name == "auth" and needed.path and not needed.soft and anonymous:
                message = f"`auth`, which is null for callers of {endpoint.title} without credentials"
                hint = "write `by: caller`, or `<< auth.sub | default(request.ip) >>`"
            if message:
                message = f"the variant of `{each.name}` is chosen by {message}"
                mark = (read.get(each.name) or read[""]).mark
                found.append(make_diagnostic("bad-experiment", mark, message, hint))
    return found

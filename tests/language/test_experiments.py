"""Experiments: which variant a key gets, and what bindings know of its values."""

from __future__ import annotations

from collections import Counter

import pytest

from streamstack.language.experiments import Experiment, combinations
from streamstack.language.settings import load_settings
from streamstack.language.shapes import INTEGER, TEXT


def experiment(variants: str, name: str = "x") -> Experiment:
    """Return an experiment that is read from settings."""
    text = f"experiments: {{{name}: {{variants: {variants}}}}}"
    settings, found = load_settings(text, "streamstack.yaml", {})
    assert found == []
    return settings.experiments[name]


@pytest.mark.parametrize(
    ("weights", "shares"), [((1, 1), (0.5, 0.5)), ((9, 1), (0.9, 0.1)), ((0, 1), (0, 1)), ((1, 0), (1, 0))]
)
def test_variants_have_the_proportion_of_their_weights(weights: tuple[int, int], shares: tuple[float, float]) -> None:
    """Of many keys each variant gets its part; one whose weight is 0 gets none."""
    tried = experiment(f"{{a: {{weight: {weights[0]}}}, b: {{weight: {weights[1]}}}}}")
    chosen = Counter(tried.choose(str(number).encode()) for number in range(5000))
    assert [chosen[name] / 5000 for name in "ab"] == pytest.approx(shares, abs=0.02 if 0 not in weights else 0)


def test_variants_never_change() -> None:
    """Every version, on every machine, gives a key the same variant; experiments are independent of one another."""
    one, other = experiment("{a: {}, b: {}, c: {}}"), experiment("{a: {}, b: {}, c: {}}", "y")
    assert "".join(one.choose(b"key-%d" % number) for number in range(20)) == "ccbccacbcaacabacbbac"
    assert "".join(other.choose(b"key-%d" % number) for number in range(20)) == "bbaccbcabbbababbccac"


def test_bindings_know_the_values() -> None:
    """A value has the type that it has in the variants, and no constant: it differs between callers."""
    tried = experiment("{a: {size: 5, mark: x}, b: {size: 20, mark: null}}")
    fields = tried.shape.fields or {}
    assert set(fields) == {"size", "mark", "variant"}
    assert (fields["size"].kinds, fields["size"].low, fields["size"].high) == (INTEGER.kinds, 5, 20)
    assert fields["mark"].kinds is None
    assert fields["variant"] == TEXT
    assert tried.bound("a") == {"size": 5, "mark": "x", "variant": "a"}
    assert combinations([tried, tried]) == ["a,a", "a,b", "b,a", "b,b"]

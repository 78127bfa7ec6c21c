"""Every filter, function and test does what its example says, and fails in the author's words."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cmp_to_key, reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.errors import Mark, RunError
from streamstack.language import operators
from streamstack.language.expressions import evaluate, parse_expression
from streamstack.language.filters import FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS, Operation
from streamstack.language.filters.collections import identity
from streamstack.language.values import Opaque, kind, to_json

EVERY = [
    pytest.param(operation, id=f"{operation.what}:{name}")
    for registry in (FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS)
    for name, operation in registry.items()
]


def compute(text: str, **variables: Any) -> Any:
    """Evaluate an expression that has no findings."""
    value, found = parse_expression(text, Mark("test.yaml", 1, 1))
    assert not found, found
    return evaluate(value, variables)


def message(text: str, **variables: Any) -> str:
    """Return the message of the error that an expression ends in."""
    with pytest.raises(RunError) as caught:
        compute(text, **variables)
    assert caught.value.code == "template"
    return caught.value.message


@pytest.mark.parametrize("operation", EVERY)
def test_example_gives_its_result(operation: Operation) -> None:
    """The example in the reference gives what it says."""
    found = compute(operation.example)
    assert found == operation.result
    assert kind(found) == kind(operation.result)


@pytest.mark.parametrize("operation", EVERY)
def test_is_documented(operation: Operation) -> None:
    """Each has a sentence, a usage, and an example that uses it."""
    assert operation.summary.endswith(".")
    assert re.match(r"`(value (\||is) )?\S+", operation.usage)
    assert operation.name.rstrip("=<>!") or operation.same_as
    if not operation.same_as:
        assert operation.name in operation.example


class Stream(Opaque):
    """A stream with one property."""

    def __getitem__(self, name: str) -> Any:
        return {"count": 3}[name]


def _refusal(operation: Operation, value: Any, given: list[Any]) -> str:
    try:
        operation.call(value, *given)
    except RunError as error:
        return f"{error.code}: {error.message}"
    return ""


AWKWARD = [None, True, 7, -1.5, Decimal("1.10"), "text", "", [], [1, "a", None], {}, {"a": [1]}, b"\xff",
           datetime(2026, 1, 31, tzinfo=UTC), Stream()]  # fmt: skip


@pytest.mark.parametrize("operation", EVERY)
def test_refuses_what_it_can_not_take_in_the_authors_words(operation: Operation) -> None:
    """Whatever it is passed, it works or fails in the author's words; none takes a stream."""
    if operation.what == "function":
        return
    arguments: list[list[Any]] = [[], [1], ["a"], ["sha256", "k"], [None], [[1], {}]]
    for value in AWKWARD:
        for passed in arguments:
            if len(passed) < operation.minimum:
                continue
            if operation.maximum is not None and len(passed) > operation.maximum:
                continue
            refused = _refusal(operation, value, passed)
            for word in ("NoneType", "'str'", "dict'", "object is not", "Traceback"):
                assert word not in refused
    if operation.what == "filter" and operation.name not in ("default", "d") and operation.minimum == 0:
        with pytest.raises(RunError, match="stream"):
            operation.call(Stream())


def test_decimals_keep_their_digits() -> None:
    """No filter turns a decimal into a binary fraction by the way."""
    price = Decimal("1.10")
    assert str(compute("price * 3", price=price)) == "3.30"
    assert str(compute("[price, 0.2] | sum", price=price)) == "1.30"
    assert compute("{'p': price} | toJson", price=price) == '{"p":1.10}'
    assert compute("price | toJson(2)", price=price) == "1.10"
    assert str(compute("price | round(1)", price=price)) == "1.1"
    assert compute('"1.10" | fromJson') == Decimal("1.10")
    assert compute("[0.1, x, 0.1] | unique | length", x=Decimal("0.1")) == 1


NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(10**17, 10**20),
    st.sampled_from([2**53, 2**53 + 1, 2**61 - 2, 2**61 - 1, 2**61, 10**18, 10**18 - 1, 10**400]),
    st.floats(-1e15, 1e15),
    st.floats(-2, 2).map(lambda each: round(each, 1)),
    st.decimals(allow_nan=False),
    st.decimals(-2, 2, places=1),
    st.integers(10**17, 10**20).map(Decimal),
)


@given(NUMBERS, NUMBERS)
def test_unique_takes_for_one_what_is_equal(one: Any, two: Any) -> None:
    """Two numbers are one to `unique` exactly if `==` says so, whatever their types and how they are written."""
    for pair in ([one, two], [one, one], [two, Decimal(repr(two)) if type(two) is float else two]):
        same = compute("a == b", a=pair[0], b=pair[1])
        assert compute("pair | unique | length", pair=pair) == (1 if same else 2)


@pytest.mark.parametrize("make", [Decimal, int, lambda number: Decimal(number) / 1000])
def test_numbers_can_not_be_chosen_to_collide(make: Any) -> None:
    """Of 20,000 numbers that are the same to Python's hash, each look-up would go through all before it."""
    chosen = [make((2**61 - 1) * number + 7 * (make is not Decimal)) for number in range(1, 20_001)]
    assert len({hash(each) for each in chosen}) < 20
    assert len({hash(identity(each)) for each in chosen}) > 19_990
    items = [{"id": each} for each in chosen]
    expressions = ("unique(attribute='id')", 'groupBy("id")', 'indexBy("id")', 'groupby("id")')
    for expression in expressions:
        assert compute(f"items | {expression} | length", items=items) == 20_000


def test_null_and_empty_lists_are_well_defined() -> None:
    """Of nothing, the sum is 0 and the rest null; null itself is refused."""
    assert compute("[[] | first, [] | last, [] | mean, [] | min, [] | max]") == [None] * 5
    assert compute("[[] | sum, [] | percentile(50)]") == [0, None]
    assert message("x | first", x=None) == ("`first` needs a list, got null; write `| default(...)` before it")
    assert message("x | sum", x=None).startswith("`sum` needs a list, got null")
    assert message("[1, null] | sum").startswith("`sum` needs numbers, got null")


def test_messages_name_the_filter_and_what_it_got() -> None:
    """A message says which filter, what it needs and what it got."""
    assert message("x | toInteger", x=[1]) == "`toInteger` needs a text or number, got a list"
    assert message('"1x" | toInteger') == '`toInteger`: "1x" is not a number'
    assert message("s | length", s=Stream()) == (
        "`length` needs a list, an object or a text, got a stream; use `collect` to read it into a variable first"
    )
    assert message('["1"] | sum') == "`sum` needs numbers, got a text; write `x | toDecimal` first"


def test_conversions() -> None:
    """Texts become numbers and values JSON, or it is said why not."""
    assert compute('" 42 " | toInteger') == 42
    assert compute('"4.9" | toInteger') == 4
    assert compute('"x" | toInteger(0)') == 0
    assert compute('"x" | toInteger(default=0)') == 0
    assert compute("now | toInteger", now=datetime(1970, 1, 1, 0, 1, tzinfo=UTC)) == 60
    assert message('("9" * 5000) | toInteger').endswith("is not a number")
    assert message('"{" | fromJson').startswith("`fromJson`: the text is not JSON (line 1 column 2")
    assert message('"NaN" | fromJson') == "`fromJson`: the text is not JSON (NaN is not allowed)"
    assert message("x | fromJson", x="9" * 5000).endswith("has too many digits)")
    assert message("x | fromJson", x="[" * 100_000).endswith("is nested too deeply)")
    assert compute('{"a": [1, {}]} | toJson(2)') == '{\n  "a": [\n    1,\n    {}\n  ]\n}'


def test_patterns_are_bounded() -> None:
    """Whatever the pattern and the text, also bound at run time: an answer in linear time, or an error."""
    text = "a" * 100_000 + "!"
    for pattern in ("^(\\w+ ?){1,10}$", "(a+)+$", "(a|ab|b)*c", "(.*)*x", "(,a?a?)*b"):
        assert compute("x | regexMatch(p)", x=text, p=pattern) is False, pattern
    assert compute("x | regexFind('(?<end>.)$', 'end')", x=text) == "!"
    assert "longer than the" in message("x | regexMatch(p)", x="a" * 1_000_000, p="[a-c]{900}")
    assert "not valid" in message("x | regexMatch(p)", x="a", p="(")
    assert "look-ahead" in message("x | regexFind(p)", x="a", p="(?=a)")
    assert message("x | regexFind('a', [1])", x="a").endswith("the pattern has no group [1]")
    assert message('"a" | regexReplace("a", "\\\\9")').startswith("`regexReplace`: the replacement")


def test_a_constant_pattern_is_checked_at_load() -> None:
    """A constant pattern that is none is a finding."""
    for written in ("x | regexMatch('(')", "x | regexReplace(pattern='(', replacement='')"):
        _, found = parse_expression(written, Mark("test.yaml", 1, 1))
        assert [one.code for one in found] == ["bad-pattern"]


def test_time() -> None:
    """Times are added in all units, and what is not a time is refused."""
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for time_, expected in (
        ("7 days", "2026-02-07T12:00:00Z"),
        ("-2h 30m", "2026-01-31T09:30:00Z"),
        ("1 year, 1 month", "2027-02-28T12:00:00Z"),
        ("90s", "2026-01-31T12:01:30Z"),
        (1500, "2026-01-31T12:00:01.500000Z"),
    ):
        assert compute("x | addTime(t) | toText", x=moment, t=time_) == expected
    assert compute('"2026-01-31" | toDate | addTime("1 day") | toText') == "2026-02-01"
    for wrong in ("soon", "", "7 dayz", "7", "1.5 months"):
        assert "is not a time span like" in message("x | addTime(t)", x=moment, t=wrong)
    assert "years 1 and 9999" in message('x | addTime("9000 years")', x=moment)
    assert "time zone" in message('x | date("%Y", "Mars/Base")', x=moment)
    assert "is not a timestamp" in message('"soon" | date')


def test_select_and_map_look_up_items_only() -> None:
    """Paths of fields reach items, and null where there is none."""
    rows = [{"user": {"name": "a"}, "n": 2}, {"user": None, "n": 1}]
    assert compute('rows | map(attribute="user.name")', rows=rows) == ["a", None]
    assert compute('rows | map(attribute="__class__")', rows=rows) == [None, None]
    assert compute('rows | sort(attribute="n") | map(attribute="n")', rows=rows) == [1, 2]
    assert compute('rows | selectattr("user", "none") | length', rows=rows) == 1
    assert compute('rows | sortBy("n", reverse=true) | map(attribute="n")', rows=rows) == [2, 1]
    assert compute('"b a" | split | sort | join("-")') == "a-b"


def test_named_filters_are_checked_at_load() -> None:
    """The filter that `map` names, and the test that `select` names, must exist."""
    for written, code in (
        ('x | map("uper")', "unknown-filter"),
        ('x | select("od")', "unknown-test"),
        ('x | selectattr("a", "equalz", 1)', "unknown-test"),
    ):
        _, found = parse_expression(written, Mark("test.yaml", 1, 1))
        assert [one.code for one in found] == [code]
        assert "did you mean" in found[0].message


def test_wrong_arguments_are_findings() -> None:
    """Arguments are counted and named when the file is loaded."""
    for written, words in (
        ("x | upper(1)", "`upper` takes no argument, got 1"),
        ("x | replace('a')", "`replace` needs `new`"),
        ("x | round(places=2)", "`round` has no argument `places`"),
        ("x | split(',', separator=',')", "`split` got `separator` twice"),
        ("x | hash('sha2')", "unknown hash `sha2`"),
        ("now(1)", "`now` takes no argument, got 1"),
        ("x is divisibleby", "`divisibleby` needs `number`"),
        ("x | format(1)", "unknown filter `format`"),
        ("x | join(*y)", "can't spread arguments"),
    ):
        _, found = parse_expression(written, Mark("test.yaml", 1, 1))
        assert len(found) == 1, written
        assert words in found[0].message


def test_tags_are_stripped_in_linear_time() -> None:
    """Comments that never end take no longer than others: each is not looked through to the end of the text."""
    started = time.perf_counter()
    for text in ("<!--" * 200_000, "-->" + "<!--" * 200_000, "<!--" * 200_000 + "-->"):
        assert isinstance(compute("x | striptags", x=text), str)
    assert time.perf_counter() - started < 5
    assert compute("x | striptags", x="a<!-- b > c -->d <!--e <i>f</i>") == "ad <!--e f"


@pytest.mark.parametrize(
    ("expression", "variables"),
    [
        ("x | replace('a', y)", {"x": "a" * 5_000, "y": "b" * 5_000}),
        ("x | replace('', y)", {"x": "a" * 5_000, "y": "b" * 5_000}),
        ("range(5000) | join(y)", {"y": "b" * 5_000}),
        ("x | regexReplace('a', y)", {"x": "a" * 5_000, "y": "b" * 5_000}),
        ("x | regexReplace('(a+)', y)", {"x": "a" * 5_000, "y": "\\1" * 5_000}),
    ],
)
def test_texts_do_not_grow_without_end(expression: str, variables: dict[str, Any]) -> None:
    """What would fill the memory by repeating one text is refused before it is made."""
    assert "the result would be too long" in message(expression, **variables)


def test_texts_may_grow() -> None:
    """Only what is added in fact counts."""
    long = "b" * 5_000
    assert compute("x | replace('a', y, 1)", x="a" * 5_000, y=long) == long + "a" * 4_999
    assert compute("x | regexReplace('a', y, '', 1)", x="a" * 5_000, y=long) == long + "a" * 4_999
    assert compute("x | regexReplace('z', y)", x="a" * 5_000, y=long) == "a" * 5_000
    assert compute("x | join(',')", x=[long] * 3_000) == ",".join([long] * 3_000)


def test_arguments_are_checked_as_they_are_declared() -> None:
    """Those that are known only in a run, before the filter begins; by position and by name."""
    for text in ("'a' | trim(x)", "'a' | trim(characters=x)"):
        assert message(text, x={}) == "`characters` of `trim` must be a text, got an object"
    assert message("[1] | first(x)", x=-1).startswith("`count` of `first` must be from 0 to")
    assert compute("[1, 2] | first(x)", x=None) == 1


def seconds(expression: str, **variables: Any) -> float:
    """Return the processor time of an expression, the least of three."""
    found = []
    for _ in range(3):
        started = time.thread_time()
        compute(expression, **variables)
        found.append(time.thread_time() - started)
    return min(found)


@pytest.mark.parametrize("expression", ["x | sort", "x | sortBy('n')", "x | percentile(50)"])
def test_sorting_compares_values_of_one_kind_as_python_does(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own order, 25 times as slow, is for lists of values that Python itself can't compare."""
    compared = []
    order = operators.order

    def counted(left: Any, right: Any) -> int:
        compared.append((left, right))
        return order(left, right)

    monkeypatch.setattr(operators, "order", counted)
    for numbers in ([3, 1, 2], [3.5, 1, 2.5], [Decimal("1.10"), 1.1, 0], [Decimal("1.10"), Decimal("1.1"), 0]):
        compute(expression, x=[{"n": n} for n in numbers] if "By" in expression else numbers)
    assert compared == []
    if "percentile" not in expression:
        mixed = [[3, Decimal("1.5")], [2.5, 1]]
        compute(expression, x=[{"n": n} for n in mixed] if "By" in expression else mixed)
        assert compared


NUMBERS = st.one_of(
    st.integers(-3, 3), st.floats(-3, 3), st.decimals(-3, 3, places=1), st.sampled_from([0.1, 2**70, 1e300, 1e-7, 1e-5])
)


@given(st.lists(NUMBERS, max_size=12), st.sampled_from(["", "n"]))
def test_the_quick_ways_give_what_one_by_one_gives(numbers: list[Any], attribute: str) -> None:
    """Sorting, extremes, sums and duplicates of numbers of all kinds, by themselves or in objects."""
    x = [{"n": n} for n in numbers] if attribute else numbers
    by = f"attribute='{attribute}'" if attribute else ""
    expected = sorted(numbers, key=cmp_to_key(operators.order))
    found = compute(f"x | sort({by})", x=x)
    assert [each["n"] for each in found] == expected if attribute else found == expected
    for name, better in (("min", operators.less), ("max", operators.greater)):
        best = reduce(lambda one, two: two if better(two, one) else one, numbers) if numbers else None
        extreme = compute(f"x | {name}({by})", x=x)
        assert (extreme["n"] if attribute and numbers else extreme) == best
    assert compute(f"x | sum({by})", x=x) == reduce(operators.add, numbers, 0)
    kept: list[Any] = []
    for number in numbers:
        if not any(operators.equal(number, each) for each in kept):
            kept.append(number)
    unique = compute(f"x | unique({by})", x=x)
    assert [each["n"] for each in unique] == kept if attribute else unique == kept


def test_order_of_several_kinds() -> None:
    """Numbers of all kinds are ordered among one another, dates among timestamps; others are not."""
    assert compute("x | sort", x=[2.5, Decimal("2.4"), 3, None]) == [Decimal("2.4"), 2.5, 3, None]
    moments = [datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 1), datetime(2026, 1, 3)]  # noqa: DTZ001
    assert compute("x | sort", x=moments) == [moments[1], moments[0], moments[2]]
    assert compute("x | sort(reverse=true)", x=["b", "A"]) == ["b", "A"]
    assert "compare" in message("x | sort", x=[1, "a"])


def test_slug_takes_linear_time() -> None:
    """Marks without end are not put in order."""
    marks = "\u0301\u0323" * 5_000
    assert compute("x | slug", x="A" + marks + "é Ǆ ﬁ") == "ae-dz-fi"
    assert seconds("x | slug", x=marks * 10) < 40 * seconds("x | slug", x=marks) + 0.01


_NUMBERS = st.one_of(
    st.integers(-5, 5), st.floats(-5, 5, allow_nan=False), st.decimals(-5, 5, allow_nan=False, places=2)
)


@given(
    st.one_of(
        st.lists(_NUMBERS),
        st.lists(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))),
        st.lists(st.lists(st.one_of(st.integers(0, 3), st.floats(0, 3)), max_size=3)),
        st.lists(st.tuples(st.text(max_size=2), st.integers(0, 3)).map(list)),
        st.lists(st.lists(st.one_of(st.booleans(), st.text(max_size=1), st.integers(0, 2)), max_size=2)),
    )
)
def test_the_fast_orders_are_the_order_of_comparisons(values: list[Any]) -> None:
    """Where a list is sorted by Python's own comparison or a key, it is as `<` of the language sorts it."""
    try:
        expected = sorted(values, key=cmp_to_key(operators.order))
    except RunError:
        with pytest.raises(RunError):
            sorted(values, key=operators.order_key(values))
    else:
        assert sorted(values, key=operators.order_key(values)) == expected


def grow(expression: str, value: Any) -> Any:
    """Compute an expression of `x` again and again, each time of what it has come to."""
    for _ in range(64):
        value = compute(expression, x=value)
    return value


@pytest.mark.parametrize(
    "expression", ["[x, x]", '{"a": x, "b": x}', "[x, [x]]", "x + x", "[x] * 2", "[[x, x] | first, x]"]
)
def test_a_value_that_doubles_itself_is_refused(expression: str) -> None:
    """It is small in memory, and had no end as JSON or in a comparison: the process was killed."""
    with pytest.raises(RunError, match=r"characters, written out|more than 10,000,000 items"):
        grow(expression, [1])
    assert len(to_json(compute("[x, x]", x=[[1] * 1000] * 1000))) > 4_000_000


@pytest.mark.parametrize("expression", ["x ~ x", "x + x", "[x, x] | join"])
def test_a_text_that_doubles_itself_is_refused(expression: str) -> None:
    """No text has more than 64,000,000 characters, whatever makes it."""
    with pytest.raises(RunError, match="more than 64,000,000 characters"):
        grow(expression, "ab")

"""Names, streams as values, and what a definition emits where: found on every path, at its place."""

from __future__ import annotations

from typing import Any

import pytest

from streamstack.language.analysis.walker import analyse, callees_of
from tests.language.analysing import Case, analyse_text, codes_in, find_in, read_cases

X = {"inputs": "x: {type: boolean}\nxs: {type: list}"}

#: Each case in tests/cases/analysis: its title, its stack, and the findings it must have.
CASES = [case for file in ("names", "properties", "frames", "streams", "emission") for case in read_cases(file)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_stack_has_these_findings(case: Case) -> None:
    """Every finding of a stack, with its exact place, and no other."""
    assert codes_in(case.stack, also=case.also, **X) == case.expected


#: What is asked, the stack, more of the endpoint, and the words of the first finding.
WORDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a slip": (
        "- set: {message: hi}\n- stream: << mesage >><< message >>",
        {},
        "`mesage` is not bound, did you mean `message`?",
    ),
    "an input without `input`": (
        "- stream: << city >>",
        {"inputs": "city: text"},
        "`city` is not bound: an input is read as `input.city`",
    ),
    "an input with a slip": (
        "- stream: << input.adress.stret >>",
        {"inputs": "address: {type: object}"},
        "`input` has no `adress`, did you mean `address`?",
    ),
    "a property of an item": (
        "- stream: << input.rows[0].nme >>",
        {"inputs": "rows: {type: list, items: {type: object, properties: {name: text}}}"},
        "`input.rows[0]` has no `nme`, did you mean `name`?",
    ),
    "a property of a text": (
        "- stream: << input.city.name >>",
        {"inputs": "city: text"},
        "`input.city` is a value of type text, which has no `name`",
    ),
    "a property of a list": (
        "- stream: << input.rows.first >>",
        {"inputs": "rows: {type: list}"},
        "`input.rows` is a list, which has no `first`",
    ),
    "in a branch": (
        "- parallel: {branches: {a: [{set: {b: 1}}, {return: << b >>}]}}\n- stream: << a >><< b >>",
        {},
        "`b` is bound only in the branch `a` in line 5, which has its own copy of the variables",
    ),
    "in the body of a loop": (
        "- forEach: {in: [1], do: [{stream: << item >>}]}\n- stream: << item >>",
        {},
        "`item` belongs to the body of the `forEach` in line 5 and is not bound here",
    ),
    "later": (
        "- stream: << a >>\n- set: {a: 1}",
        {},
        "`a` is not bound here: it is bound later, in line 6, on no path that leads here",
    ),
    "in an earlier turn": (
        "- repeat: {times: 2, do: [{stream: << a >>}, {set: {a: 1}}]}",
        {},
        "`a` is bound only by a later step of the loop, in line 5: in the first iteration it is not bound here",
    ),
    "a stream that is not read": (
        "- ask: hi\n  as: r\n- stream: x",
        {},
        "`r` is never read, so that nothing of the stream is ever fetched",
    ),
}


@pytest.mark.parametrize(("stack", "more", "words"), WORDS.values(), ids=WORDS.keys())
def test_a_message_says_what_is_wrong(stack: str, more: dict[str, Any], words: str) -> None:
    """The message names what was meant, or where the name is bound."""
    assert find_in(stack, **more)[0].split(" ", 2)[2] == words


def test_headers_see_inputs_and_reserved_names_only() -> None:
    """Headers are sent before the first step binds anything."""
    found = codes_in("- set: {a: 1}\n- stream: << a >>", more="headers: {X-A: << a >>, X-B: << input.b >>}\n")
    # Two columns are taken off for the indentation that only the stack has.
    assert found == ["-1:17 unbound-name", "-1:37 unknown-property"]


def test_response_sees_what_every_end_of_the_stack_binds() -> None:
    """A response is computed behind the last step, and behind every return."""
    stack = "- set: {a: 1}\n- if: {condition: << a > 1 >>, then: [return]}\n- set: {b: 1}"
    found = codes_in(stack, kind="json", more="response: << a + b + c >>\n")
    assert [each.split(" ")[1] for each in found] == ["maybe-unbound", "unbound-name"]


def test_json_endpoints_neither_emit_nor_answer_streams() -> None:
    """A chunk, an emitting function and a stream as the answer are refused."""
    also = "kind: function\nname: send\nfunctionStack: [{stream: x}]"
    stack = "- stream: x\n- call: send\n- ask: hi\n  as: r\n- return: << r >>"
    assert codes_in(stack, kind="json", also=also) == [
        "1:3 emits-in-json",
        "2:3 emits-in-json",
        "5:14 stream-in-expression",
    ]


def test_a_streaming_endpoint_has_no_response() -> None:
    """Nothing would send it."""
    assert codes_in("- stream: x", more="response: done\n") == ["-1:9 response-in-stream"]


def test_a_function_sees_its_inputs_and_nothing_of_its_caller() -> None:
    """The frame of a function is its own; a stream it gives is one of the caller's."""
    text = """\
kind: function
name: f
inputParameters: {q: text}
functionStack:
  - ask: << input.q >><< outer >>
    as: r
  - log: << request.ip >><< stream.count >><< input.p >>
  - return: << r >>
"""
    assert [(each.line, each.column, each.code) for each in analyse_text(text)] == [
        (5, 26, "unbound-name"),
        (7, 53, "unknown-property"),
    ]


def test_a_task_has_no_request_and_no_inputs() -> None:
    """What only an endpoint has is not bound."""
    text = "kind: task\nname: t\nschedule: {every: 5s}\nfunctionStack:\n  - log: << request.ip >><< input.a >>\n"
    assert [each.column for each in analyse_text(text) if each.code == "unbound-name"] == [13, 29]


def test_streams_given_by_functions_are_followed() -> None:
    """The caller consumes what a function returns once, and reads its properties."""
    also = "kind: function\nname: f\nfunctionStack:\n  - ask: hi\n    as: r\n  - return: << r >>"
    stack = """\
- call: f
  as: r
- forEach: {in: << r >>, do: [{stream: << item >>}]}
- stream: << r.message >><< r.status >>
- forEach: {in: << r >>, do: [{stream: << item >>}]}
"""
    assert codes_in(stack, also=also) == ["4:31 unknown-property", "5:20 consumed-twice"]


def test_consumptions_that_may_exclude_one_another_are_a_warning() -> None:
    """What surely fails on some path is an error; two conditions may never be true together."""
    head = "method: GET\npath: /t\ninputParameters: {x: boolean}\nfunctionStack:\n  - ask: hi\n    as: r\n"
    loop = "{forEach: {in: << r >>, do: [{stream: x}]}}"
    first = f"  - if: {{condition: << input.x >>, then: [{loop}]}}\n"
    second = f"  - if: {{condition: << not input.x >>, then: [{loop}]}}\n"
    assert [each.severity for each in analyse_text(head + first + second)] == ["warning"]
    assert [each.severity for each in analyse_text(head + first + f"  - {loop}\n")] == ["error"]


def test_allow_silences_a_code_within_its_step() -> None:
    """`allow` on a step holds for the steps nested in it, and for nothing else."""
    stack = """\
- repeat: {times: 1, do: [{stream: << a >>}]}
  allow: [unbound-name]
- stream: << a >>
"""
    assert codes_in(stack) == ["3:14 unbound-name"]
    assert codes_in(stack, more="allow: [unbound-name]\n") == []


def test_functions_that_call_one_another_are_followed_once() -> None:
    """Recursion ends, and a long chain of calls is not a deep recursion of the analysis."""
    chain = "\n---\n".join(f"kind: function\nname: f{n}\nfunctionStack: [{{call: f{n + 1}}}]" for n in range(400))
    last = "\n---\nkind: function\nname: f400\nfunctionStack: [{call: f0, when: << stream.count < 3 >>}, {stream: x}]"
    assert codes_in("- call: f0", also=chain + last) == []


def test_callees_are_shared_by_the_definitions_of_a_project() -> None:
    """A project's functions are given once, for all that call them."""
    assert analyse_text("method: GET\npath: /t\nfunctionStack: [{stream: x}]") == []
    assert callees_of({}).summary("nobody") is None
    assert analyse.__doc__

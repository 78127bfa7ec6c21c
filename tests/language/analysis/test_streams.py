"""The proof that a streaming endpoint streams: what waits for a whole stream before the first chunk."""

from __future__ import annotations

import time

import pytest

from streamstack.language.analysis.walker import analyse, callees_of
from streamstack.language.definition import Endpoint
from streamstack.language.loading.documents import read_document
from streamstack.language.loading.groups import Inheritance
from streamstack.language.project import validate
from streamstack.language.settings import Streaming
from streamstack.language.source import read
from tests.language.analysing import FUNCTIONS, Case, analyse_text, codes_in, read_cases

X = "x: {type: boolean}\nxs: {type: list}"


@pytest.mark.parametrize("case", read_cases("proof"), ids=lambda case: case.title)
def test_a_stack_is_proved_or_refused(case: Case) -> None:
    """What streams has no finding; what waits is named at its place."""
    assert codes_in(case.stack, also=case.also, inputs=X) == case.expected


def test_the_finding_names_the_step_the_stream_and_what_to_write() -> None:
    """The step by its name, both lines, and a loop to write instead."""
    text = """\
method: GET
path: /t
functionStack:
  - ask: hi
    as: reply
  - name: Wait for all of it
    collect: << reply >>
    as: all
  - stream: << all >>
"""
    (found,) = analyse_text(text)
    assert (found.line, found.column, found.severity) == (7, 5, "warning")
    assert found.message == (
        "`Wait for all of it` in line 7 waits for the whole of `reply` before the first chunk, sent in line 9"
    )
    assert found.hint == ("write `forEach` over `reply` and emit inside it, or move this step behind the first chunk")


def test_a_loop_is_told_to_send_as_it_goes() -> None:
    """The hint has the loop's own line."""
    text = """\
method: GET
path: /t
functionStack:
  - ask: hi
    as: reply
  - set: {words: []}
  - forEach: {in: << reply >>, do: [{append: {to: words, value: << item >>}}]}
  - stream: << words >>
"""
    (found,) = analyse_text(text)
    assert found.hint.startswith("emit inside the loop in line 7,")


def test_a_wait_in_a_function_is_found_at_its_call() -> None:
    """The caller reads where in the function the wait is, in which file."""
    text = """\
method: GET
path: /t
functionStack:
  - call: gather
    as: all
  - stream: << all >>
---
kind: function
name: gather
functionStack:
  - ask: hi
    as: reply
  - collect: << reply >>
    as: all
  - return: << all >>
"""
    (found,) = analyse_text(text)
    assert found.message == (
        "`call gather` in line 4 waits for the whole of `reply` (`collect` in line 13 of t.yaml) "
        "before the first chunk, sent in line 6"
    )


def test_a_fixed_json_format_holds_everything() -> None:
    """One document is sent at the end, whatever the stack does."""
    text = "method: GET\npath: /t\nstreaming: {format: json}\nfunctionStack: [{stream: x}]\n"
    assert [each.code for each in analyse_text(text)] == ["buffers-stream"]


def test_functions_and_json_endpoints_are_not_accused() -> None:
    """Whether holding a stream is a fault depends on who answers with it."""
    steps = "functionStack:\n  - ask: hi\n    as: r\n  - collect: << r >>\n    as: all\n  - return: << all >>\n"
    assert analyse_text("kind: function\nname: f\n" + steps) == []
    assert analyse_text("method: GET\npath: /t\nresponseType: json\n" + steps) == []


def test_a_request_body_read_as_it_arrives_is_a_stream_too() -> None:
    """Holding the whole upload before the first chunk is a wait."""
    stack = "- collect: << input.rows >>\n  as: all\n- stream: << all >>"
    rows = "rows: {type: stream, decode: ndjson}"
    assert codes_in(stack, inputs=rows) == ["1:3 buffers-stream"]
    stack = "- forEach: {in: << input.rows >>, do: [{stream: << item >>}]}\n- collect: << input.rows >>\n  as: _all"
    assert codes_in(stack, inputs=rows) == ["2:15 consumed-twice"]


def test_the_real_functions_are_declared_as_the_proof_needs() -> None:
    """With the language's own stream functions: waiting, cut short, at hand, merged."""
    text = """\
method: GET
path: /t
functionStack:
  - streams.interval: 10ms
    as: ticks
  - {step}
    as: all
  - stream: << all >>
"""
    taken = "streams.take: {in: << ticks >>, count: 2}\n    as: two\n  - collect: << two >>"
    for step, expected in (("collect: << ticks >>", ["buffers-stream"]), (taken, [])):
        files = {"t.yaml": text.replace("{step}", step)}
        assert [each.code for each in validate(files, FUNCTIONS, Streaming())[1]] == expected


def test_a_thousand_endpoints_are_analysed_in_about_a_second() -> None:
    """The work is linear in the steps: 100 endpoints of 300 steps take as long as 1,000 of 30."""
    block = """\
  - ask: << input.message >>
    as: r{n}
  - set: {a{n}: 1, b{n}: << input.size + {n} >>}
  - if: {condition: << b{n} > 3 >>, then: [{set: {a{n}: << a{n} + 1 >>}}], else: [{log: << b{n} >>}]}
  - try:
      do: [{forEach: {in: << r{n} >>, as: piece, do: [{stream: << piece.text ~ a{n} >>}]}}]
      catch: {do: [{log: << error.code >>}]}
"""
    head = (
        "method: GET\npath: /t\ninputParameters: {message: text, size: {type: integer, default: 1}}\nfunctionStack:\n"
    )
    steps = "".join(block.replace("{n}", str(n)) for n in range(30))
    (document,), _ = read(head + steps, "t.yaml")
    definition = read_document(document, FUNCTIONS, Inheritance(Streaming())).definition
    assert isinstance(definition, Endpoint)
    callees = callees_of({})
    begin = time.process_time()
    for _ in range(10):
        assert analyse(definition, callees) == []
    # About 0.1 s on the machine it was written on; the bound leaves room for slow ones.
    assert time.process_time() - begin < 1.5

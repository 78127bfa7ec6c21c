"""What the hints of findings say to write."""

from __future__ import annotations

import pytest

from streamstack.errors import Diagnostic
from streamstack.functions import REGISTRY
from streamstack.language.project import validate
from streamstack.language.settings import Streaming

HEAD = "method: GET\npath: /x\n"


def findings_of(steps: str, head: str = HEAD) -> list[Diagnostic]:
    """Validate an endpoint with these steps, and one that streams."""
    text = f"{head}functionStack:\n{steps}\n- stream: end\n"
    return validate({"a.yaml": text}, REGISTRY, Streaming(), {})[1]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("csv.parse", "did you mean `csv.read`?"),
        ("db.add", "did you mean `db.insert`?"),
        ("stream.end", "did you mean `done`?"),
        ("password.remember", "`password` has password.hash and password.verify"),
        ("something.else", "`streamstack functions` lists the functions"),
    ],
)
def test_what_is_no_function_has_a_name_here(name: str, hint: str) -> None:
    """What others call it, else what there is of its family, else where to look."""
    found = [each for each in findings_of(f"- {name}: 1") if each.code == "unknown-function"]
    assert [each.hint for each in found] == [hint]


@pytest.mark.parametrize(
    ("steps", "write"),
    [
        ("- stream: hi\n  delay: 5ms", "stream: {content: ..., delay: ...}"),
        ("- stream: [hi]\n  delay: 5ms", "stream: {content: ..., delay: ...}"),
        ("- try: {do: [{stream: << 1 >>, delay: 5ms}]}", "stream: {content: ..., delay: ...}"),
        ("- forEach: << [1] >>\n  do: [{stream: 1}]", "forEach: {in: ..., do: ...}"),
        ("- forEach: [1]\n  do: [{stream: 1}]", "forEach: {in: ..., do: ...}"),
        ("- if: << true >>\n  then: [{stream: 1}]", "if: {condition: ..., then: ...}"),
        (
            "- if: << true >>\n  then: [{stream: 1}]\n  else: [{stream: 2}]",
            "if: {condition: ..., then: ..., else: ...}",
        ),
    ],
)
def test_a_parameter_beside_a_bare_value_is_written_with_it(steps: str, write: str) -> None:
    """Moved to the right alone it would stand below a value, which is not YAML."""
    hints = [each.hint for each in findings_of(steps) if each.code == "unknown-modifier"]
    assert hints
    assert all(hint.endswith(f": write `{write}`") for hint in hints)


@pytest.mark.parametrize("steps", ["- stream:\n  delay: 5ms", "- stream: {id: 1}\n  delay: 5ms"])
def test_a_parameter_beside_a_mapping_moves_right(steps: str) -> None:
    """There the other parameters have their names already."""
    hints = [each.hint for each in findings_of(steps) if each.code == "unknown-modifier"]
    assert hints == ["`delay` belongs to `stream`: write it two spaces further right"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("sleep", "wait"),
        ("fetch", "http.request"),
        ("http.get", "http.request"),
        ("print", "log"),
        ("emit", "stream"),
        ("send", "stream"),
        ("yield", "stream"),
    ],
)
def test_functions_as_other_languages_call_them(word: str, meant: str) -> None:
    """The names that authors bring along are near none of ours."""
    value = {"wait": "5ms", "http.request": "https://example.org/"}.get(meant, "a")
    (found,) = findings_of(f"- {word}: {value}")
    assert (found.code, found.hint) == ("unknown-function", f"did you mean `{meant}`?")


@pytest.mark.parametrize(
    ("declared", "meant"),
    [
        ("{type: integer, min: 1}", "minimum"),
        ("{type: decimal, max: 1}", "maximum"),
        ("{type: text, max: 1}", "maxLength"),
        ("{type: list, min: 1}", "minItems"),
        ("{type: text, regex: a}", "pattern"),
        ("{type: text, optional: true}", "required"),
    ],
)
def test_keys_of_inputs_as_other_languages_call_them(declared: str, meant: str) -> None:
    """The key that fits the type is the one that is meant."""
    (found,) = findings_of("- stream: a", f"{HEAD}inputParameters: {{n: {declared}}}\n")
    assert (found.code, found.hint) == ("unknown-key", f"did you mean `{meant}`?")


@pytest.mark.parametrize(
    ("word", "meant"), [("interger", "integer"), ("bolean", "boolean"), ("strng", "text"), ("str", "text")]
)
def test_a_word_alone_near_a_type_is_no_description(word: str, meant: str) -> None:
    """Taken for a description, it would let any value in."""
    (found,) = findings_of("- stream: a", f"{HEAD}inputParameters: {{n: {word}}}\n")
    assert found.code == "unknown-type"
    assert found.hint.startswith(f"did you mean `{meant}`?")


@pytest.mark.parametrize("word", ["Title", "member", "filename", "next", "rate", "city", "data"])
def test_a_word_alone_may_be_a_description(word: str) -> None:
    """What only looks a little like a type is taken as it is."""
    assert not findings_of("- stream: a", f"{HEAD}inputParameters: {{n: {word}}}\n")


@pytest.mark.parametrize("text", ["{{ input.n > 1 }}", "={{input.n > 1}}", "${ input.n > 1 }"])
def test_a_condition_in_the_brackets_of_another_tool(text: str) -> None:
    """One finding tells both what it is and what to write."""
    head = f"{HEAD}inputParameters: {{n: integer}}\n"
    (found,) = findings_of(f'- stream: a\n  when: "{text}"', head)
    assert (found.code, found.hint) == ("not-an-expression", "write `<<input.n > 1>>`")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{{ message }}", "write `<<message>>`"),
        ("{{ $input.n }}", "write `<<input.n>>`"),
        ("={{ $json.n }}", "write `<<input.n>>`"),
        ("={{ $node.n }}", "write a value of this definition between << and >>, such as <<input.name>>"),
        ("${{ inputs.n }}", "write `<<input.n>>`"),
        ("${{ secrets.KEY }}", "write `<<env.KEY>>`"),
        ("${! this.n }", "write a value of this definition between << and >>, such as <<input.name>>"),
        ("{% if input.n %}", "write `<% if input.n %>`"),
    ],
)
def test_a_binding_in_the_brackets_of_another_tool(text: str, hint: str) -> None:
    """What can be written the same way here is written out."""
    (found,) = findings_of(f'- stream: "{text}"')
    assert (found.code, found.hint) == ("foreign-binding", hint)


def test_functions_of_expressions_that_are_filters() -> None:
    """Authors of Python write `len(x)`."""
    (found,) = findings_of("- set: {x: [1]}\n- stream: << len(x) >>")
    assert (found.code, found.hint) == ("unknown-function", "write `value | length`: it is a filter")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("sold out", "write `sold-out`"),
        ("SoldOut", "write `sold-out`"),
        ("SOLD_OUT", "write `sold-out`"),
        ("sold-out!", "write `sold-out`"),
        ("'404'", "write it like sold-out"),
    ],
)
@pytest.mark.parametrize("step", ["throw: {code: %s}", "precondition: {that: true, code: %s}"])
def test_a_code_of_an_error_is_words_with_hyphens(step: str, code: str, hint: str) -> None:
    """Clients and `catch` tell errors by their codes, which are all written one way."""
    found = [each for each in findings_of(f"- stream: 1\n- {step % code}") if each.severity == "error"]
    assert [(each.code, each.hint) for each in found] == [("bad-name", hint)]


@pytest.mark.parametrize("code", ["sold-out", "busy", "http2-lost", "<< input.n ~ 'x' >>"])
def test_a_sound_code_of_an_error(code: str) -> None:
    """One that is computed is let alone."""
    head = f"{HEAD}inputParameters: {{n: text}}\n"
    assert not findings_of(f"- precondition: {{that: true, code: {code}}}", head)


@pytest.mark.parametrize(
    ("step", "code", "silenced"),
    [
        ("- stream: << a >>\n  allow: [unbound-name]", "unbound-name", True),
        ("- set: {a: 1}\n  allow: [unused-variable]", "unused-variable", True),
        ("- strem: 1\n  allow: [unknown-function]", "unknown-function", False),
        ("- stream: {contet: 1}\n  allow: [unknown-parameter]", "unknown-parameter", False),
    ],
)
def test_allow_says_what_it_can_not_silence(step: str, code: str, silenced: bool) -> None:  # noqa: FBT001
    """What can't be read without a correction stays, and its hint says why."""
    found = [each for each in findings_of(step) if each.code == code]
    assert bool(found) is not silenced
    assert all("`allow` silences warnings" in each.hint for each in found)

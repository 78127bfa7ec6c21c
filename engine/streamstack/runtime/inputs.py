"""Declared inputs: where a request holds each, and the one error that names all that is wrong.

Rules that LANGUAGE leaves open, decided here and in the modules beside this one:

- An absent input that is not required is its default, else null; null that is sent is a value, refused unless the
  input is `nullable` (or `json`). Where one stack calls another, a null counts as not given.
- `inputs` of the settings or of an endpoint loosens the checks of what clients send, never those of a call.
- Unknown properties are refused in bodies at any depth where properties are declared; unknown names in the query, in
  headers and in cookies are ignored.
- JSON: 5.0 is an integer, "5" is none. Integers have 64 bits unless `minimum` or `maximum` says more. Decimals keep
  their digits. Nesting ends at 250 levels.
- Text: an empty one counts as not sent, except where a text (or a list of them) is declared; outer spaces of anything
  but texts are skipped; booleans are true, false, 1, 0, on, off; `json` is JSON where it parses, else the text.
  A list repeats its name, also as `tags[]` or `tags[0]`.
- Timestamps need their offset and keep it. A UUID becomes small letters. A URL is one of http, https, ws, wss.
- No message holds a value that was sent, whether the input is `sensitive` or not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from streamstack.language.definition import IN_QUERY, STRICT, Input, InputRules, place_of
from streamstack.language.values import MISSING
from streamstack.runtime.coercion import (
    CALL_RULES,
    Check,
    InputFaults,
    Inputs,
    JsonText,
    build,
    build_object,
    build_strict,
    build_unknown,
    check_items,
    check_json,
    count_fault,
    default_of,
    details_of,
    fill,
    invalid,
    text_reader,
)
from streamstack.runtime.values import File

__all__ = ["Checker", "Form", "Inputs", "JsonText", "Layout", "Lookup", "compile_inputs"]

#: What was sent under a name, in one place of a request; empty if nothing was.
Lookup = Callable[[str], Sequence[Any]]
#: The fields of a form, in the order of their first appearance.
Form = dict[str, list[Any]]
#: A body: none, JSON, a form, a text, or a file.
Body = JsonText | Form | str | File | None

_PLACES: Final = ("path", "query", "header", "cookie")


def compile_inputs(inputs: tuple[Input, ...], rules: InputRules = STRICT) -> Checker:
    """Compile declared inputs.

    Raises ValueError for a declaration that can't be served (a default that does not fit, a pattern that could take
    for ever), with its place in the file.
    """
    return Checker(inputs, rules)


class Checker:
    """Checks inputs: of a call by `check`, of a request by the layout for its method and route."""

    __slots__ = ("_call", "_layouts", "inputs", "rules")

    def __init__(self, inputs: tuple[Input, ...], rules: InputRules) -> None:
        self.inputs = inputs
        self.rules = rules
        self._call = build_object(inputs, CALL_RULES, call=True, result_type=Inputs)
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def check(self, values: Mapping[str, Any]) -> Inputs:
        """Check the values that one stack gives to another.

        Raises RunError ``invalid-input`` naming every fault.
        """
        faults = InputFaults(exact=True)
        result: Inputs = self._call(values, faults)
        if faults.found:
            raise invalid(details_of("input", faults))
        result.filled = faults.filled
        return result

    def layout(self, method: str, route: Sequence[str] | Mapping[str, str] = ()) -> Layout:
        """Return where requests of a method hold the inputs; ``route`` has the names of the path's parameters.

        Made once for each method and route. Raises ValueError for declarations that exclude one another.
        """
        key = (method, *route)
        found = self._layouts.get(key)
        if found is None:
            found = self._layouts[key] = Layout(self.inputs, self.rules, method, frozenset(route))
        return found


class Layout:
    """Where requests to one route hold the inputs, and how each is checked.

    ``declares_body`` tells whether one is in the body; ``takes_body`` also that the body has to be looked at only to
    refuse what it holds. ``files`` are the names of parts that are files, with what they are declared as; ``whole``
    is the input that is the body itself, ``stream`` the one that is the body as it arrives: it is not looked at here.
    """

    __slots__ = ("_body", "_groups", "_order", "declares_body", "files", "path", "stream", "takes_body", "whole")

    def __init__(self, inputs: tuple[Input, ...], rules: InputRules, method: str, route: frozenset[str]) -> None:
        streams = [each for each in inputs if each.type == "stream"]
        self.stream = streams[0] if streams else None
        inputs = tuple(each for each in inputs if each.type != "stream")
        wholes = [each for each in inputs if each.location == "wholeBody"]
        self.whole = wholes[0] if wholes else None
        taken = bool(wholes or streams)
        places = {each.name: place_of(each, method, route, whole=taken) for each in inputs}
        in_body = tuple(each for each in inputs if places[each.name] == "body")
        if self.whole is not None and (len(wholes) > 1 or in_body):
            other = (*wholes[1:], *in_body)[0]
            raise ValueError(f"{other.mark}: {other.name} is in the body, which {self.whole.name} takes whole")
        if self.stream is not None and (wholes or in_body or len(streams) > 1):
            other = (*wholes, *in_body, *streams[1:])[0]
            raise ValueError(f"{other.mark}: {other.name} is in the body, which {self.stream.name} reads as it arrives")
        self._order = tuple(each.name for each in inputs)
        self.path = frozenset(name for name, place in places.items() if place == "path")
        self._groups = []
        for place in _PLACES:
            held = tuple(each for each in inputs if places[each.name] == place)
            if held:
                self._groups.append((place, _Group(held, rules, commas=place == "header")))
        elsewhere = {
            name: place
            for each in inputs
            if (place := places[each.name]) in _PLACES
            for name in (each.name, *each.aliases)
        }
        self.declares_body = bool(in_body or wholes)
        self.takes_body = self.declares_body or (
            rules.unknown == "refuse" and method not in IN_QUERY and self.stream is None
        )
        if self.whole is not None:
            self._body = _build_whole(self.whole, rules)
        else:
            document = build_object(in_body, rules, call=False, result_type=Inputs, elsewhere=elsewhere)
            self._body = _build_parts(document, _build_form(in_body, rules, elsewhere))
        self.files = {
            name: each
            for each in in_body
            for name in _form_names(each)
            if each.type == "file" or (each.type == "list" and each.items is not None and each.items.type == "file")
        }

    def check(self, lookups: Callable[[str], Lookup], body: Body) -> Inputs:
        """Check all inputs of a request. ``lookups`` gives the look-up of a place: path, query, header, cookie.

        Raises RunError ``invalid-input`` naming every fault.
        """
        if self.takes_body and not self._groups:  # most requests, and so the fast way
            faults = InputFaults()
            found: Inputs = self._body(body, faults)
            if faults.found:
                raise invalid(details_of("body", faults))
            found.filled = faults.filled
            return found
        details: list[dict[str, str]] = []
        filled: list[tuple[dict[str, Any], str]] = []
        result = Inputs()
        for place, check in self._groups:
            faults = InputFaults()
            faults.filled = filled
            check(lookups(place), faults, result)
            if faults.found:
                details += details_of(place, faults)
        if self.takes_body:
            faults = InputFaults()
            faults.filled = filled
            held: Inputs = self._body(body, faults)
            if faults.found:
                details += details_of("body", faults)
            elif not details:
                result = _merge(self._order, result, held)
        if details:
            raise invalid(details)
        result.filled, result.path = filled, self.path
        return result


def _merge(order: tuple[str, ...], first: Inputs, second: Inputs) -> Inputs:
    """Return the inputs of two places in the order in which they are declared."""
    merged = Inputs((name, first[name] if name in first.keys() else second[name]) for name in order)  # noqa: SIM118
    merged.absent = first.absent | second.absent
    return merged


class _Group:
    """Checks inputs that arrive as texts under their names, in one place of a request."""

    __slots__ = ("_fields",)

    def __init__(self, inputs: tuple[Input, ...], rules: InputRules, *, commas: bool = False) -> None:
        self._fields = [
            (
                each.name,
                _form_names(each),
                _list_names(each),
                _build_texts(each, rules, commas=commas),
                each.required,
                default_of(each),
            )
            for each in inputs
        ]

    def __call__(self, lookup: Lookup, faults: InputFaults, result: dict[str, Any]) -> None:
        for name, names, list_names, check, required, make in self._fields:
            value: Any = MISSING
            sent = None
            for each in names:
                texts = lookup(each)
                if not texts:
                    continue
                if sent is not None:
                    faults.add_at(each, f"is another name of {name}: send one of them")
                    break
                sent = each
                before = len(faults.found)
                value = check(texts, faults)
                if len(faults.found) != before:
                    faults.under(before, each)
            if value is not MISSING:
                result[name] = value
                continue
            fill(result, name, make, faults)
            if any(map(lookup, list_names)):
                faults.add_at(name, f"is sent as the item of a list, and is not one: write {name}=...")
            elif required:
                faults.add_at(name, "is required")


def _build_texts(declared: Input, rules: InputRules, *, commas: bool = False) -> Check:
    """Compile the check of all texts sent under one name; it gives MISSING where they count as not sent.

    A text may be a JsonText (a part of a form that says it is JSON) or a File too. With ``commas`` they part the items
    of a list, as in headers (RFC 9110, section 5.3).
    """
    check_one = text_reader(declared, build_strict(declared, rules, call=False))
    if declared.type == "list":
        return _build_texts_of_list(declared, rules, check_one, commas=commas)
    # A form sends every field, also the empty ones.
    skips_empty = rules.skips_empty_text(declared)

    def check(texts: list[Any], faults: InputFaults) -> Any:
        if len(texts) > 1:
            return faults.add(f"is sent {len(texts)} times: send it once")
        text = texts[0]
        return MISSING if skips_empty and text == "" else check_one(text, faults)

    return check


def _build_texts_of_list(declared: Input, rules: InputRules, check_whole: Check, *, commas: bool) -> Check:
    low = declared.min_items or 0
    high = sys.maxsize if declared.max_items is None else declared.max_items
    item = declared.items if declared.items is not None else Input("items", "json", declared.mark)
    check_item = text_reader(item, build_strict(item, rules, call=False))
    split = commas and item.type not in ("object", "list", "json")
    skips_empty = rules.skips_empty_text(declared)

    def check(texts: list[Any], faults: InputFaults) -> Any:
        if split:
            texts = [part.strip(" \t") for text in texts for part in text.split(",")]
        if len(texts) == 1 and isinstance(texts[0], JsonText):
            return check_whole(texts[0], faults)
        if skips_empty and "" in texts:
            texts = [text for text in texts if text != ""]
            if not texts:
                return MISSING
        if not low <= len(texts) <= high:
            return faults.add(count_fault(low, high, len(texts)))
        return check_items(check_item, texts, faults)

    return check


def _form_names(declared: Input) -> tuple[str, ...]:
    """Return the names under which a form or a query may hold an input: that of a list also with brackets."""
    names = (declared.name, *declared.aliases)
    if declared.type != "list":
        return names
    return tuple(dict.fromkeys((*names, *(f"{name}[]" for name in names))))


def _list_names(declared: Input) -> tuple[str, ...]:
    """Return the names of an input that is not a list as `price[]` and `price[0]` have it."""
    if declared.type == "list":
        return ()
    return tuple(f"{name}[]" for name in (declared.name, *declared.aliases))


def _build_form(inputs: tuple[Input, ...], rules: InputRules, elsewhere: Mapping[str, str]) -> Check:
    """Compile the check of a form, by the names of its fields."""
    group = _Group(inputs, rules)
    refuse_unknown = build_unknown(inputs, elsewhere) if rules.unknown == "refuse" else None
    bracketed = {f"{name}[]" for each in inputs for name in (each.name, *each.aliases)}

    def check(form: Form, faults: InputFaults) -> Inputs:
        result = Inputs()
        group(lambda name: form.get(name, ()), faults, result)
        if refuse_unknown is not None:
            before = len(faults.found)
            refuse_unknown({name: sent for name, sent in form.items() if name not in bracketed}, faults)
            if len(faults.found) != before and len(form) == 1 and next(iter(form)).lstrip()[:1] in ("{", "["):
                # `curl -d '{...}'` says that it sends a form.
                del faults.found[:]
                faults.add("is JSON sent as a form: send the header `Content-Type: application/json`")
        return result

    return check


def _blank(data: bytes) -> bool:
    return not data or data.isspace()


def _build_parts(document: Check, form: Check) -> Check:
    """Compile the check of a body whose properties are inputs."""

    def check(body: Body, faults: InputFaults) -> Any:
        if isinstance(body, JsonText) and not _blank(body.data):
            return check_json(body.data, document, faults)
        if isinstance(body, dict):
            return form(body, faults)
        return document({}, faults)

    return check


def _build_whole(declared: Input, rules: InputRules) -> Check:
    """Compile the check of a body that is one input."""
    name = declared.name
    document = build(declared, rules, call=False)
    texts = _build_texts(declared, rules)
    form = None if declared.properties is None else _build_form(declared.properties, rules, {})
    make = default_of(declared)

    def take(body: Body, faults: InputFaults) -> Any:
        if isinstance(body, JsonText):
            return MISSING if _blank(body.data) else check_json(body.data, document, faults)
        if isinstance(body, dict):
            if form is not None:
                return dict(form(body, faults))
            return document({key: sent[0] if len(sent) == 1 else sent for key, sent in body.items()}, faults)
        if isinstance(body, str):
            return texts([body], faults)
        return MISSING if body is None else document(body, faults)

    def check(body: Body, faults: InputFaults) -> Inputs:
        result = Inputs()
        value = take(body, faults)
        if value is MISSING:
            fill(result, name, make, faults)
            if declared.required:
                faults.add("is required")
        else:
            result[name] = value
        return result

    return check

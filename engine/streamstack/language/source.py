"""Read YAML text into nodes, and write YAML; the only module that imports PyYAML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml
from yaml import events

from streamstack.errors import Diagnostic, Mark
from streamstack.language import traps
from streamstack.language.findings import make_diagnostic
from streamstack.language.nodes import Document, Mapping, Node, Scalar, Sequence, SourceText, Style, plain
from streamstack.language.traps import TrapReading, repair

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMERIC: Final = frozenset("+-.0123456789")
_LONGEST_NUMBER: Final = 400


def resolve(text: str) -> bool | int | float | str | None:
    """Return the value that a plain scalar's text stands for.

    Raises ValueError for a number of more than 400 digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    integer = _INTEGER.fullmatch(text)
    if not integer and not _FLOAT.fullmatch(text):
        return float(text.replace(".", "", 1)) if _INFINITE.fullmatch(text) else text
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("The number is too long.")
    if not integer:
        return float(text)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


# ------------------------------------------------------------------------------------------ syntax


_INVALID: Final = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_QUOTES: Final = "put quotes around the whole value"
_INDENT: Final = (
    "The line does not fit the lines above it.",
    "indent the keys of one mapping, and the `-` of one list, alike",
)
_FLOW: Final = "close every `{` and `[`, separate with commas, and quote values that hold `, : { } [ ]`"

#: The parser's words, a piece of each, with what they mean to an author and what to write.
_MEANINGS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "mapping values are not allowed",
        "A `: ` is not allowed here.",
        f"a text that holds `: ` needs quotes: {_QUOTES}, or check the indentation",
    ),
    (
        "could not find expected ':'",
        "A line has no `key:`.",
        "write `key: value`, or indent the line deeper than the text it belongs to",
    ),
    ("did not find expected ',' or '}'", "A `{` is not closed, or a comma is missing.", _FLOW),
    ("did not find expected ',' or ']'", "A `[` is not closed, or a comma is missing.", _FLOW),
    ("expected ',' or", "A bracket is not closed, or a comma is missing.", _FLOW),
    ("did not find expected key", *_INDENT),
    ("did not find expected '-' indicator", *_INDENT),
    ("expected <block end>", *_INDENT),
    (
        "block sequence entries are not allowed",
        "A list can't begin here.",
        "begin the list on a line of its own: `- item`",
    ),
    ("block collections", "A list or a mapping can't begin here.", "begin it on a line of its own"),
    ("unexpected end of stream", "A quote is not closed.", "close the quote"),
    ("unexpected document", "A quote is still open where the next document begins.", "close the quote"),
    (
        "unknown escape character",
        "The backslash begins no escape sequence that YAML knows.",
        "use single quotes, in which a backslash is a backslash",
    ),
    ("hexadecimal", "The escape sequence is not complete.", "use single quotes, in which a backslash is a backslash"),
    ("invalid Unicode character escape", "The escape sequence names no character.", "write the character itself"),
    (
        "document start",
        "The document has ended before this value.",
        "begin another document with `---`, or indent the line",
    ),
    (
        "indentation",
        "The indentation of the block of text is wrong.",
        "indent each of its lines by the same number of spaces",
    ),
    ("a tab character", "A tab is used where only spaces are allowed.", "indent with spaces"),
    ("expected node content", "A value is missing here.", "write a value, or null"),
    ("found duplicate anchor", "The anchor is defined twice.", "give it another name"),
)


def refuse_characters(source: SourceText) -> Diagnostic | None:
    """Return the finding of the first character that no YAML text can hold."""
    found = _INVALID.search(source.text)
    if found is None:
        return None
    char = ord(found.group())
    name = f"U+{char:04X}"
    where = source.mark(found.start())
    if char == 0:
        return make_diagnostic(
            "yaml-syntax", where, "The file holds a NUL character: it may not be text in UTF-8.", "save it as UTF-8"
        )
    if char in (0x85, 0x2028, 0x2029):
        hint = f'write it in double quotes as "\\u{char:04X}"'
        return make_diagnostic(
            "yaml-syntax", where, f"The invisible line break {name} would end the line for some readers.", hint
        )
    if 0xD800 <= char <= 0xDFFF:
        return make_diagnostic(
            "yaml-syntax", where, f"{name} is half a character: the file is not valid UTF-8.", "save it as UTF-8"
        )
    hint = f'remove it, or write it in double quotes as "\\u{char:04X}"'
    return make_diagnostic("yaml-syntax", where, f"The character {name} is not allowed in YAML.", hint)


def describe(source: SourceText, at: int, problem: str, context: str) -> tuple[str, str]:
    """Return message and hint for the parser's own words about a problem at an index."""
    char = source.text[at : at + 1]
    if "cannot start any token" in problem or "alphabetic or numeric" in problem:
        start, _ = source.line(at)
        if char == "\t" or (not source.text[start:at].strip(" \t") and "\t" in source.text[start:at]):
            return "A tab can't indent a line.", "indent with spaces"
        if "alias" in context or "anchor" in context:
            return "A value that begins with `*` or `&` is an alias or an anchor in YAML.", _QUOTES
        return f"A value can't begin with `{char}`.", _QUOTES
    for piece, message, hint in _MEANINGS:
        if piece in problem:
            return message, hint
    return (f"YAML can't read this: {problem or context or 'unknown problem'}.", "check the lines up to this place")


def syntax_fault(source: SourceText, at: int, problem: str, context: str, opened: Mark | None) -> Diagnostic:
    """Return the finding of a syntax error; ``opened`` is where the quote or bracket began."""
    message, hint = describe(source, at, problem, context)
    where = source.mark(at)
    if opened is not None and opened.line != where.line and message.startswith("A quote"):
        return make_diagnostic("yaml-syntax", opened, message, hint)
    if opened is not None and opened.line != where.line and "is not closed" in message:
        message = f"{message[:-1]}; it was opened in line {opened.line}."
    return make_diagnostic("yaml-syntax", where, message, hint)


# ------------------------------------------------------------------------------------------ source


__all__ = ["Document", "Mapping", "Node", "Scalar", "Sequence", "plain", "read"]

#: Bounds of a file: characters, levels of nesting, values that all aliases of a document may
#: stand for, documents that may be broken.
MOST_CHARACTERS: Final = 1_000_000
MOST_LEVELS: Final = 50
MOST_ALIASED: Final = 1000
MOST_BROKEN: Final = 20
#: Findings of one file that are reported, at most.
MOST_FINDINGS: Final = 200

_TOO_DEEP: Final = f"Values are nested more than {MOST_LEVELS} deep."
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STYLES: Final[dict[str | None, Style]] = {"'": "single", '"': "double", "|": "literal", ">": "folded"}
#: The anchor and the tag before a value.
_PROPERTIES: Final = re.compile(r"(?:[&!][^\s,\[\]{}]*(?:\s+(?:#[^\r\n]*)?)*){1,2}")
#: Blanks that are not spaces to YAML, in a plain text: at its begin, behind the `-` of an item or the `:` of a key.
_BLANKS: Final = re.compile(
    r"(?:^[ \t-]*|(?<=[\n\r])[ \t-]*|\A|[A-Za-z0-9_.]:)(?P<blank>[\u00a0\u2000-\u200b\u202f\u205f\u3000\ufeff]+)",
    re.MULTILINE,
)
_NEXT_DOCUMENT: Final = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)


def read(text: str, file: str) -> tuple[list[Document], list[Diagnostic]]:
    """Return the documents of a YAML text, and what is wrong with it, in the order of the text.

    Never raises, whatever the text. A document that is broken is left out; one with a YAML trap is
    read as if the quotes it needs were there. ``file`` is the name that places carry.
    """
    source = SourceText(file, text.removeprefix("\ufeff"))
    if len(text) > MOST_CHARACTERS:
        return [], [
            make_diagnostic("file-too-large", source.mark(0), f"The file has more than {MOST_CHARACTERS:,} characters.")
        ]
    refused = refuse_characters(source)
    if refused is not None:
        return [], [refused]
    reader = _Reader(source)
    reading = reader.read()
    findings: list[Diagnostic] = []
    if reading.faults:
        reader.note_blanks(0, len(source.text))
    if reader.blanks:
        # Read as spaces, which they look like: the places of all that follows stay.
        findings = [_no_blank(source, at) for at in sorted(reader.blanks)]
        signs = list(source.text)
        for at in reader.blanks:
            signs[at] = " "
        source.text = "".join(signs)
        reading = _Reader(source).read()
    if reading.traps or reading.faults:
        reading, found = repair(reading, lambda repaired: _Reader(repaired).read())
        findings += found
    return reading.documents, sorted({*findings, *reading.findings})


def _no_blank(source: SourceText, at: int) -> Diagnostic:
    """Return the finding of a blank that only looks like a space."""
    message = f"This is a blank (U+{ord(source.text[at]):04X}) that YAML takes for a letter, and no space."
    return make_diagnostic(
        "yaml-syntax", source.mark(at), message, "write a space", source.replacement(at, at + 1, " ")
    )


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come."""

    mark: Mark
    start: int
    flow: bool
    mapping: bool
    anchor: str | None
    count: int
    items: list[Any] = field(default_factory=list)
    keys: dict[str, Mark] = field(default_factory=dict)
    key: Scalar | None = None
    dropped: bool = False
    valueless: list[Scalar] = field(default_factory=list)
    previous: Scalar | None = None

    @property
    def awaits_key(self) -> bool:
        return self.mapping and self.key is None


def _parse(text: str) -> Iterator[Any]:
    """Give the parser's events (yaml.parse asks the parser twice for each)."""
    loader = _LOADER(text)
    try:
        event = loader.get_event()
        while event is not None:
            yield event
            event = loader.get_event()
    finally:
        loader.dispose()


def _too_deep(text: str) -> Any:
    """Return the mark at which values are nested too deep, None where they are not.

    For a text that ends where the parser found an error: it scans ahead of its events, so its own limit of nesting
    (libyaml 0.2.6: 1,000 levels) is reached before ours. Taken for a syntax error, it would be tried to be repaired.
    """
    if text.count("[") + text.count("{") + text.count("- ") + text.count(":") <= MOST_LEVELS:
        return None
    levels = 0
    try:
        for event in _parse(text):
            if isinstance(event, events.CollectionStartEvent):
                levels += 1
                if levels > MOST_LEVELS:
                    return event.start_mark
            elif isinstance(event, events.CollectionEndEvent):
                levels -= 1
    except yaml.MarkedYAMLError:
        return None
    return None


class _AbandonedError(Exception):
    """A document that can't be read on; ``at`` is where in the text."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class _Reader:
    """One pass over a source."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.documents: list[Document] = []
        self.findings: list[Diagnostic] = []
        self.traps: list[traps.Trap] = []
        self.faults: list[int] = []
        self._exact = not source.repaired
        self._index = 0
        self._opened: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._unused: dict[str, traps.Trap] = {}
        self.blanks: set[int] = set()
        self._commented = traps.holds_commented(source.text)
        self._count = 0
        self._aliased = 0

    def read(self) -> TrapReading:
        """Read all documents; after a broken one, go on with the next."""
        begin = 0
        for _ in range(MOST_BROKEN):
            following = self._read_from(begin)
            if following is None:
                break
            begin = following
            self._index += 1
        return TrapReading(self.source, self.documents, self.findings, self.traps, self.faults)

    def _read_from(self, begin: int) -> int | None:
        """Read documents from an index on; return where the next begins after a broken one."""
        source = self.source.blank(begin) if begin else self.source
        try:
            self._read_documents(_parse(source.text))
            return None
        except _AbandonedError as abandoned:
            at = abandoned.at
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark or error.context_mark
            at = min(mark.index if mark else 0, len(source.text))
            deep = _too_deep(source.text[:at])
            if deep is not None:
                at = deep.index
                self._add(make_diagnostic("too-deep", self._mark(deep), _TOO_DEEP))
            else:
                begun: Any = error.context_mark
                opened = self.source.mark(begun.index) if begun else None
                self.faults.append(at)
                self._add(syntax_fault(self.source, at, error.problem or "", error.context or "", opened))
        found = _NEXT_DOCUMENT.search(source.text, max(at, begin + 3 if begin else 0))
        return found.start() if found else None

    def _mark(self, mark: Any) -> Mark:
        if self._exact:
            return Mark(self.source.file, mark.line + 1, mark.column + 1)
        return self.source.mark(mark.index)

    def _read_documents(self, stream: Iterator[Any]) -> None:
        node: Node | None = None
        for event in stream:
            kind = type(event)
            if kind is events.ScalarEvent:
                node = self._scalar(event)
            elif kind is events.MappingStartEvent or kind is events.SequenceStartEvent:
                self._open(event, mapping=kind is events.MappingStartEvent)
                continue
            elif kind is events.MappingEndEvent or kind is events.SequenceEndEvent:
                node = self._close()
            elif kind is events.AliasEvent:
                node = self._alias(event)
            else:
                if kind is events.DocumentEndEvent and node is not None:
                    self._end_document(node)
                self._opened, self._anchors, self._count, self._aliased = [], {}, 0, 0
                self._unused = {}
                node = None
                continue
            top = self._opened[-1] if self._opened else None
            if top is None:
                continue
            if not top.mapping:
                top.items.append(node)
            elif top.key is not None:
                self._take_value(top, node)
            elif kind is events.ScalarEvent and isinstance(node, Scalar):
                self._take_key(top, node)
            else:
                self._refuse_key(top, node, self._mark(event.start_mark), kind)

    def _end_document(self, root: Node) -> None:
        """Keep a document, unless it is empty, as after a last `---`."""
        for trap in self._unused.values():
            self._trap(trap)
        if not isinstance(root, Scalar) or root.text or root.style != "plain":
            self.documents.append(Document(self.source.file, root, self._index))
        self._index += 1

    def _open(self, event: Any, *, mapping: bool) -> None:
        mark = self._mark(event.start_mark)
        self._count += 1
        if event.tag is not None:
            self._refuse_tag(event)
        if len(self._opened) >= MOST_LEVELS:
            self._abandon("too-deep", event, _TOO_DEEP)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        start, flow = event.start_mark.index, bool(event.flow_style)
        self._opened.append(_Open(mark, start, flow, mapping, event.anchor, self._count))

    def _close(self) -> Node:
        top = self._opened.pop()
        node: Node
        if top.mapping:
            parent = self._opened[-1] if self._opened else None
            if top.valueless and not (parent is not None and parent.flow and parent.awaits_key):
                self._refuse_valueless(top)
            node = Mapping(tuple(top.items), top.mark)
        else:
            node = Sequence(tuple(top.items), top.mark)
        if top.anchor is not None:
            self._anchors[top.anchor] = (node, self._count - top.count + 1)
        return node

    def _scalar(self, event: Any) -> Scalar:
        text: str = event.value
        style = _STYLES.get(event.style, "plain")
        top = self._opened[-1] if self._opened else None
        mark = self._mark(event.start_mark)
        start, end = event.start_mark.index, event.end_mark.index
        self._count += 1
        if event.tag is not None:
            self._refuse_tag(event)
        if event.tag is not None or event.anchor is not None:
            properties = _PROPERTIES.match(self.source.text, start, end)
            start = properties.end() if properties else start
            mark = self.source.mark(start)
        value: bool | int | float | str | None = text
        is_value = style == "plain" and not (top is not None and top.awaits_key)
        if is_value:
            try:
                value = resolve(text)
            except ValueError as error:
                self._add(make_diagnostic("yaml-syntax", mark, str(error), "put quotes around it"))
        scalar = Scalar(value, mark, text, style, self.source, start, end)
        if style == "plain" and not text.isascii():
            self._look_alikes(scalar)
        if is_value and (self._commented or "<<" in text) and len(self.traps) < MOST_FINDINGS:
            flow = top is not None and top.flow
            trap = traps.cut_value(self.source, scalar, flow=flow) if "<<" in text else None
            if trap is None and self._commented:
                trap = traps.commented_value(self.source, scalar, flow=flow)
            self._trap(trap)
        if event.anchor is not None:
            self._anchor(event, scalar)
        return scalar

    def _look_alikes(self, scalar: Scalar) -> None:
        """Note blanks that stand where a space of YAML's is meant, and quotes that are none."""
        text = scalar.text
        self.note_blanks(scalar.start, scalar.end)
        if text[0] in "\u201c\u201e\u2018\u00ab" and text[-1] in "\u201d\u201c\u2019\u00bb" and len(text) > 1:
            message = "Typographic quotes are part of the text."
            hint = "write straight quotes, or straight ones around these where they are meant to be sent"
            self._add(make_diagnostic("yaml-quotes", scalar.mark, message, hint, severity="warning"))

    def note_blanks(self, start: int, end: int) -> None:
        """Note the blanks of a part of the text that YAML should take for spaces."""
        if len(self.blanks) < MOST_FINDINGS:
            for found in _BLANKS.finditer(self.source.text, start, end):
                self.blanks.update(range(found.start("blank"), found.end("blank")))

    def _anchor(self, event: Any, scalar: Scalar) -> None:
        """Keep what an anchor names, and that it may be no anchor to the author."""
        name = event.anchor
        self._anchors[name] = (scalar, 1)
        self._trap(self._unused.pop(name, None))
        if scalar.style == "plain" and "<<" in scalar.text and len(self._unused) < MOST_FINDINGS:
            at = event.start_mark.index
            self._unused[name] = traps.anchored_value(self.source, scalar, at, name)

    def _alias(self, event: Any) -> Node:
        name = event.anchor
        self._unused.pop(name, None)
        known = self._anchors.get(name)
        if known is None:
            mark = self._mark(event.start_mark)
            if name in self._anchors:
                message = f"The alias `*{name}` is inside the value that it refers to."
                self._add(make_diagnostic("recursive-alias", mark, message))
            else:
                message = f"The anchor `&{name}` is not defined before this alias."
                self._add(make_diagnostic("unknown-alias", mark, message))
            return Scalar(None, mark)
        node, size = known
        self._count += size
        self._aliased += size
        if self._aliased > MOST_ALIASED:
            message = f"The aliases expand to more than {MOST_ALIASED} values."
            self._abandon("too-many-aliases", event, message)
        if len(self._opened) + _height(node) > MOST_LEVELS:
            message = f"This alias nests values more than {MOST_LEVELS} deep."
            self._abandon("too-deep", event, message)
        return node

    def _take_key(self, top: _Open, key: Scalar) -> None:
        """Begin an entry of a mapping; one whose key is refused is dropped when its value comes."""
        top.key = key
        text, style = key.text, key.style
        before = top.keys.get(text)
        if before is not None:
            message = f"Duplicate key `{text}`; the first is in line {before.line}."
            self._drop(top, make_diagnostic("duplicate-key", key.mark, message))
            return
        top.keys[text] = key.mark
        if style == "plain" and text == "<<" and traps.has_colon(self.source, key):
            self._drop(top, make_diagnostic("merge-key", key.mark, "The merge key `<<:` is not part of the language."))
        elif "<<" in text or ">>" in text:
            cut = traps.cut_value(self.source, key, flow=top.flow, key=True) if style == "plain" else None
            self._trap(cut or traps.binding_key(self.source, key, flow=top.flow))
            top.dropped = True
        elif not text and style == "plain":
            self._drop(top, make_diagnostic("bad-key", key.mark, "The key before the `:` is missing."))

    def _take_value(self, top: _Open, node: Node) -> None:
        key, top.key = top.key, None
        if top.dropped or key is None:
            top.dropped = False
            return
        if top.flow:
            text = node if isinstance(node, Scalar) and node.style == "plain" else None
            if text is not None and not text.text and not traps.has_colon(self.source, key):
                top.valueless.append(key)
                return
            if top.valueless:
                self._refuse_valueless(top)
            top.previous = text if text is not None and isinstance(text.value, str) else None
        top.items.append((key, node))

    def _refuse_valueless(self, top: _Open) -> None:
        keys, top.valueless = top.valueless, []
        if len(self.findings) < MOST_FINDINGS:
            message, replacement = traps.describe_valueless(self.source, top.previous, keys)
            hint = "give the key a value, or quote the text it belongs to"
            self._add(make_diagnostic("yaml-quotes", keys[0].mark, message, hint, replacement))

    def _refuse_key(self, top: _Open, node: Node, mark: Mark, kind: type) -> None:
        """Refuse what can't be a key, such as the inner braces of `{{name}}`."""
        top.key = Scalar("", mark)
        is_mapping = isinstance(node, Mapping) and kind is not events.AliasEvent
        described = traps.describe_mustache(self.source, top.start) if top.flow and is_mapping else None
        if described:
            self._drop(
                top, make_diagnostic("yaml-quotes", top.mark, described[0], "write a binding as <<name>>", described[1])
            )
            return
        if kind is events.AliasEvent:
            what = "An alias"
        else:
            what, mark = "A mapping" if is_mapping else "A list", node.mark
        self._drop(top, make_diagnostic("bad-key", mark, f"{what} can't be a key."))

    def _add(self, finding: Diagnostic) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)

    def _drop(self, top: _Open, finding: Diagnostic) -> None:
        self._add(finding)
        top.dropped = True

    def _trap(self, trap: traps.Trap | None) -> None:
        if trap is not None:
            self.traps.append(trap)

    def _refuse_tag(self, event: Any) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
        message = f"The tag `{tag[:60]}` is not part of the language."
        self._add(make_diagnostic("yaml-tag", self._mark(event.start_mark), message))

    def _abandon(self, code: str, event: Any, message: str) -> NoReturn:
        self._add(make_diagnostic(code, self._mark(event.start_mark), message))
        raise _AbandonedError(event.start_mark.index)


def _height(node: Node) -> int:
    """Count the levels of a node; a scalar has none."""
    if isinstance(node, Scalar):
        return 0
    inner = node.items if isinstance(node, Sequence) else [value for _, value in node.items]
    return 1 + max(map(_height, inner), default=0)


# ----------------------------------------------------------------------------------------- writing

#: Characters of a mapping or list that is written in one line.
_FLOW_WIDTH: Final = 90
#: What has to be written as an escape.
_INVISIBLE: Final = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\uf000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


class _Writer(yaml.SafeDumper):
    """Writes data as authors lay it out: short values in one line, lists indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002
        super().increase_indent(flow, False)


def _represent_text(writer: _Writer, text: str) -> yaml.ScalarNode:
    plain = resolve(text) == text and (text[:1].isalnum() or text[:1] in "<\\/_")
    style = '"' if _INVISIBLE.search(text) else "|" if "\n" in text else None if plain else "'"
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style)


def _represent_mapping(writer: _Writer, mapping: dict[str, Any]) -> yaml.MappingNode:
    flow = len(mapping) != 1 and _is_short(mapping)
    return writer.represent_mapping("tag:yaml.org,2002:map", mapping.items(), flow)


def _represent_list(writer: _Writer, items: list[Any]) -> yaml.SequenceNode:
    return writer.represent_sequence("tag:yaml.org,2002:seq", items, _is_short(items))


def _is_short(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    if any(isinstance(each, str) and "\n" in each for each in inner):
        return False
    return not any(isinstance(each, (dict, list)) and each for each in inner) and len(str(value)) <= _FLOW_WIDTH


_Writer.add_representer(str, _represent_text)
_Writer.add_representer(dict, _represent_mapping)
_Writer.add_representer(list, _represent_list)


def write(value: Any) -> str:
    """Return data as YAML that `read` reads."""
    text: str = yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=110)
    return text

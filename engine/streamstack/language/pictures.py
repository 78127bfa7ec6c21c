"""Pictures of step graphs: Mermaid text, and SVG with a layout of our own.

A stack is structured, so that its picture is nested boxes: the steps of a block stand below one another, the blocks of
a step beside one another below it. No edge needs a search for its way.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from streamstack.language.definition import ConstantArgument, Entries
from streamstack.language.expressions import Value
from streamstack.language.graph import Block, Edge, EdgeKind, Graph, Node
from streamstack.language.values import MISSING, to_text
from streamstack.spec import Nesting

#: Characters of a value that a picture shows.
_LONGEST: Final = 44


def title_of(graph: Graph) -> str:
    """Return what a picture of a definition is called: `GET /path`, `function name`."""
    return graph.definition.title


def lines_of(node: Node) -> list[str]:
    """Return the lines that a picture writes into a node: its function and name, its value, its modifiers."""
    step = node.step
    first = f"{node.number} {step.function.name}"
    if step.name:
        first += f": {_short(step.name)}"
    lines = [first]
    if detail := _detail(node):
        lines.append(_short(detail))
    notes = []
    if step.disabled:
        notes.append("disabled")
    if step.when is not None:
        notes.append(f"when {_shown(step.when)}")
    if step.result is not None:
        notes.append(f"as {step.result}")
    if step.retry is not None:
        notes.append(f"retry {step.retry.times}x")
    if step.timeout is not None:
        limit = _shown(step.timeout) if isinstance(step.timeout, Value) else f"{step.timeout:g} s"
        notes.append(f"timeout {limit}")
    if notes:
        lines.append(_short(", ".join(notes)))
    return lines


def _detail(node: Node) -> str:
    """Return the value that tells most of a step: the first of its parameters that is not a stack."""
    for parameter in node.step.function.parameters:
        argument = node.arguments.get(parameter.name)
        if isinstance(argument, Value):
            return _shown(argument)
        if isinstance(argument, ConstantArgument):
            return to_text(argument.value)
        if isinstance(argument, Entries) and not node.blocks:
            return ", ".join(entry.key for entry in argument.entries)
    return ""


def _shown(value: Value) -> str:
    if value.constant is not MISSING:
        return to_text(value.constant)
    if value.whole:
        return f"<< {value.text} >>"
    return ", ".join(f"<< {each.text} >>" for each in value.bindings())


def _short(text: str) -> str:
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


# -- Mermaid

_SHAPES: Final = {"if": ("{", "}"), "switch": ("{", "}")}
_DASHED: Final = frozenset({EdgeKind.ERROR, EdgeKind.AFTER, EdgeKind.RETRY})


def mermaid(graphs: Sequence[Graph]) -> str:
    """Return a Mermaid flowchart of some definitions, each a subgraph."""
    lines = ["flowchart TD"]
    for index, graph in enumerate(graphs):
        lines.append(f'  subgraph g{index}["{_quoted(title_of(graph))}"]')
        lines += (f"    {line}" for line in _mermaid_lines(graph, f"g{index}"))
        lines.append("  end")
    lines += [
        "  classDef emits fill:#dff5e1,stroke:#2e7d32",
        "  classDef leaves fill:#fbe9e7,stroke:#b23c17",
        "  classDef disabled fill:#f5f5f5,stroke:#9e9e9e,stroke-dasharray:4 3",
    ]
    return "\n".join(lines) + "\n"


def _mermaid_lines(graph: Graph, prefix: str) -> Iterator[str]:
    yield f'{prefix}_start(["start"])'
    for node in graph.nodes:
        opens, closes = _SHAPES.get(node.step.function.name, ("[", "]"))
        if any(block.loop for block in node.blocks):
            opens, closes = "[[", "]]"
        text = "<br/>".join(map(_quoted, lines_of(node)))
        style = _style(node)
        yield f'{prefix}_{node.number}{opens}"{text}"{closes}' + (f":::{style}" if style else "")
    yield f'{prefix}_end(["end"])'
    for edge in graph.edges:
        source = "start" if edge.source is None else str(edge.source.number)
        target = "end" if edge.target is None else str(edge.target.number)
        label = _edge_label(edge)
        arrow = "-.->" if edge.kind in _DASHED else "-->"
        shown = f'|"{_quoted(label)}"|' if label else ""
        yield f"{prefix}_{source} {arrow}{shown} {prefix}_{target}"


def _edge_label(edge: Edge) -> str:
    if edge.label or edge.kind in (EdgeKind.NEXT, EdgeKind.BODY, EdgeKind.FINALLY):
        return edge.label
    named = {EdgeKind.BACK: "next turn", EdgeKind.PARALLEL: "at once"}
    return named.get(edge.kind) or str(edge.kind.value)


def _style(node: Node) -> str:
    if node.step.disabled:
        return "disabled"
    if node.step.function.effects.ends:
        return "leaves"
    return "emits" if node.emits else ""


def _quoted(text: str) -> str:
    """Return text for Mermaid: all but letters, digits and a few signs is written by number."""
    return "".join(char if char.isalnum() or char in " .,:/_-" else f"#{ord(char)};" for char in text)


# -- SVG

_CHAR: Final = 7.25  # width of a character, px
_LINE: Final = 16.0
_PAD: Final = 12.0
_GAP: Final = 34.0  # between steps below one another
_BESIDE: Final = 22.0  # between blocks beside one another
_TITLE: Final = 20.0  # of a block's frame
_MARGIN: Final = 26.0  # beside a step with blocks, for the edges that pass it
_PILL: Final = (64.0, 26.0)
_STYLES: Final = """
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1f2430 }
.title { font-weight: bold; font-size: 14px }
.label { fill: #566; font-size: 11px }
.box { fill: #fff; stroke: #455a64; stroke-width: 1.2 }
.emits { fill: #dff5e1; stroke: #2e7d32 }
.leaves { fill: #fbe9e7; stroke: #b23c17 }
.disabled { fill: #f5f5f5; stroke: #9e9e9e; stroke-dasharray: 4 3 }
.frame { fill: #455a64; fill-opacity: .05; stroke: #90a4ae; stroke-dasharray: 2 3 }
.edge { fill: none; stroke: #455a64; stroke-width: 1.2; marker-end: url(#arrow) }
.error { stroke: #b23c17; stroke-dasharray: 5 4 }
.back { stroke: #1565c0 }
"""


@dataclass(slots=True)
class _Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass(slots=True)
class _Layout:
    """Where the nodes and blocks of a graph stand: the box of each node, and all that it holds."""

    boxes: dict[Node, _Box] = field(default_factory=dict)
    wholes: dict[Node, _Box] = field(default_factory=dict)
    frames: dict[Block, _Box] = field(default_factory=dict)

    def size_of_block(self, block: Block) -> tuple[float, float]:
        sizes = [self.size(node) for node in block.nodes]
        if not sizes:
            return _text_width(block.title) + 2 * _PAD, _LINE
        width = max(width for width, _ in sizes)
        return width, sum(height for _, height in sizes) + _GAP * (len(sizes) - 1)

    def _frame_size(self, block: Block) -> tuple[float, float]:
        width, height = self.size_of_block(block)
        return max(width, _text_width(block.title)) + 2 * _PAD, height + _TITLE + 2 * _PAD

    def _head(self, node: Node) -> tuple[float, float]:
        lines = lines_of(node)
        return max(map(_text_width, lines)) + 2 * _PAD, _LINE * len(lines) + _PAD

    def size(self, node: Node) -> tuple[float, float]:
        """Return the width and height of a node with its blocks."""
        known = self.wholes.get(node)
        if known is None:
            width, height = self._head(node)
            for row in _rows(node):
                sizes = [self._frame_size(block) for block in row]
                width = max(width, sum(w for w, _ in sizes) + _BESIDE * (len(sizes) - 1))
                height += _GAP + max(h for _, h in sizes)
            known = _Box(0, 0, width + (2 * _MARGIN if node.blocks else 0), height)
            self.wholes[node] = known
        return known.width, known.height

    def place_block(self, block: Block, middle: float, y: float) -> None:
        """Place the nodes of a block below one another."""
        for node in block.nodes:
            _, height = self.size(node)
            self._place(node, middle, y)
            y += height + _GAP

    def _place(self, node: Node, middle: float, y: float) -> None:
        whole = self.wholes[node]
        whole.x, whole.y = middle - whole.width / 2, y
        width, height = self._head(node)
        self.boxes[node] = _Box(middle - width / 2, y, width, height)
        y += height
        for row in _rows(node):
            sizes = [self._frame_size(block) for block in row]
            x = middle - (sum(w for w, _ in sizes) + _BESIDE * (len(sizes) - 1)) / 2
            y += _GAP
            for block, (frame_width, frame_height) in zip(row, sizes, strict=True):
                self.frames[block] = _Box(x, y, frame_width, frame_height)
                self.place_block(block, x + frame_width / 2, y + _TITLE + _PAD)
                x += frame_width + _BESIDE
            y += max(h for _, h in sizes)


def _rows(node: Node) -> list[list[Block]]:
    """Return the blocks of a node that stand beside one another; `finally` stands below the others."""
    last = node.nested(Nesting.FINALLY)
    first = [block for block in node.blocks if block not in last]
    return [row for row in (first, last) if row]


def _text_width(text: str) -> float:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return (len(text) + wide) * _CHAR


def svg(graphs: Sequence[Graph]) -> str:
    """Return one SVG picture of some definitions, below one another."""
    parts: list[str] = []
    width, y = 0.0, _PAD
    for graph in graphs:
        layout = _Layout()
        inner, height = layout.size_of_block(graph.root)
        inner = max(inner, _text_width(title_of(graph)) * 1.2, _PILL[0]) + 2 * _PAD
        middle = inner / 2
        start = _Box(middle - _PILL[0] / 2, y + 28, *_PILL)
        layout.place_block(graph.root, middle, start.bottom + _GAP)
        below = start.bottom + _GAP + (height + _GAP if graph.root.nodes else 0)
        end = _Box(middle - _PILL[0] / 2, below, *_PILL)
        parts.append(_text(_PAD, y + 16, title_of(graph), "title"))
        parts += _draw(graph, layout, start, end)
        width, y = max(width, inner), end.bottom + 2 * _PAD
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y:.0f}" '
        f'viewBox="0 0 {width:.0f} {y:.0f}" role="img">'
    )
    marker = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#455a64"/></marker></defs>'
    )
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, f"<style>{_STYLES}</style>", marker, ground, *parts, "</svg>"]) + "\n"


def _draw(graph: Graph, layout: _Layout, start: _Box, end: _Box) -> Iterator[str]:
    for block, box in layout.frames.items():
        yield _rectangle(box, "frame", 4)
        yield _text(box.x + 8, box.y + 15, block.title, "label")
        if not block.nodes:
            yield _text(box.x + 8, box.y + _TITLE + _PAD + 8, "no steps", "label")
    labels: dict[tuple[Node | None, Node | None], list[str]] = {}
    for edge in graph.edges:
        labels.setdefault((edge.source, edge.target), []).append(edge.label)
    for edge in graph.edges:
        same = labels.pop((edge.source, edge.target), [])
        yield from _draw_edge(edge, ", ".join(filter(None, same)), layout, start, end)
    for node, box in layout.boxes.items():
        yield f"<g><title>{escape(f'{node.mark}: {node.path}')}</title>"
        yield _rectangle(box, f"box {_style(node)}".strip(), 3)
        for index, line in enumerate(lines_of(node)):
            yield _text(box.x + _PAD, box.y + 17 + _LINE * index, line, "" if index else "head")
        yield "</g>"
    for box, words in ((start, "start"), (end, "end")):
        yield _rectangle(box, "box", 13)
        yield _text(box.middle - _text_width(words) / 2, box.y + 17, words)


def _draw_edge(edge: Edge, label: str, layout: _Layout, start: _Box, end: _Box) -> Iterator[str]:
    """Draw an edge as a path of straight lines; what leaves the definition early shows by its box alone."""
    early = edge.target is None and edge.kind in (EdgeKind.RETURN, EdgeKind.ERROR, EdgeKind.AFTER)
    if early or (edge.target is edge.source and edge.source is not None):
        return
    source = start if edge.source is None else layout.boxes[edge.source]
    target = end if edge.target is None else layout.boxes[edge.target]
    points = _points(edge, layout, source, target)
    style = "edge"
    if edge.kind in (EdgeKind.ERROR, EdgeKind.AFTER):
        style += " error"
    elif edge.kind in (EdgeKind.BACK, EdgeKind.CONTINUE):
        style += " back"
    shown = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    yield f'<path class="{style}" d="M{shown}"/>'
    into_block = edge.source is not None and edge.target is not None and _holds(edge.source, edge.target)
    if label and not into_block and edge.kind is not EdgeKind.ERROR:
        x, y = points[0]
        sideways = points[1][1] == y
        yield _text(x + 5, y - 4 if sideways else y + 12, label, "label")


def _points(edge: Edge, layout: _Layout, source: _Box, target: _Box) -> list[tuple[float, float]]:
    """Return the way of an edge: down, back along the left of a loop, or along the right past other boxes."""
    above = target.y - 14
    if edge.source is None:
        return _down(source, target, above)
    whole = layout.wholes[edge.source]
    if edge.target is not None and edge.kind in (EdgeKind.BACK, EdgeKind.CONTINUE):
        side, level = layout.wholes[edge.target].x + 8, target.y + target.height / 2
        back = [(side, level), (target.x, level)]
        if edge.source.blocks:
            left, low, beside = whole.x + 3, whole.bottom + 6, source.y + source.height / 2
            return [(source.x, beside), (left, beside), (left, low), (side, low), *back]
        # Below all that stands beside it within the loop.
        outer = edge.source
        while outer.block.owner is not None and outer.block.owner is not edge.target:
            outer = outer.block.owner
        low = layout.wholes[outer].bottom + 10
        return [(source.middle, source.bottom), (source.middle, low), (side, low), *back]
    if edge.target is not None and _holds(edge.source, edge.target):
        if edge.target.block.nesting is Nesting.FINALLY and len(_rows(edge.source)) > 1:
            return _past(whole.right - 8, source, target, above)
        return _down(source, target, source.bottom + 14)
    if edge.kind is EdgeKind.BREAK:
        loop = edge.source.block
        while loop.owner is not None and not loop.loop:
            loop = loop.owner.block
        around = layout.wholes[loop.owner] if loop.owner is not None else whole
        if target.y >= around.bottom:
            return _past(around.right - 14, source, target, above)
    if target.y <= source.bottom:  # beside it: from `do` to `catch`
        return _past(source.right + 14, source, target, above)
    if edge.source.blocks:
        return _past(whole.right - 8, source, target, above)
    return _down(source, target, above)


def _holds(node: Node, inner: Node) -> bool:
    """Tell whether a node stands directly in a block of another."""
    return inner.block.owner is node


def _down(source: _Box, target: _Box, level: float) -> list[tuple[float, float]]:
    """Return the points of a way down, which changes its column at a level."""
    return [(source.middle, source.bottom), (source.middle, level), (target.middle, level), (target.middle, target.y)]


def _past(side: float, source: _Box, target: _Box, above: float) -> list[tuple[float, float]]:
    """Return the points of a way along a side, down or up to just above the target."""
    beside = source.y + source.height / 2
    return [(source.right, beside), (side, beside), (side, above), (target.middle, above), (target.middle, target.y)]


def _rectangle(box: _Box, style: str, radius: int) -> str:
    return (
        f'<rect class="{style}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{radius}"/>'
    )


def _text(x: float, y: float, text: str, style: str = "") -> str:
    named = f' class="{style}"' if style else ""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return f'<text{named} x="{x:.1f}" y="{y:.1f}">{escape(shown)}</text>'

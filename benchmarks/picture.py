"""The results as a picture: bars of every compared case's main figure, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from statistics import median
from typing import Any

from figures import short
from servers import OURS

_WIDTH, _LABEL, _BAR, _ROW, _HEAD = 760, 130, 430, 26, 48
_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2937 }
.title { font-weight: 600; font-size: 14px }
.quiet { fill: #6b7280 }
.theirs { fill: #9ca3af }
.ours { fill: #0d9488 }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb } .quiet { fill: #9ca3af } .theirs { fill: #6b7280 } .ours { fill: #2dd4bf }
}
</style>"""


def draw(cases: Mapping[str, Any]) -> str | None:
    """Return the picture; None where no case compares anything."""
    panels = [(key, case) for key, case in cases.items() if case.get("samples")]
    if not panels:
        return None
    parts, top = [], 0
    for key, case in panels:
        panel, top = _panel(key, case, top)
        parts += panel
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([head, "<title>streamstack and its peers</title>", _STYLE, *parts, "</svg>\n"])


def _panel(key: str, case: Mapping[str, Any], top: int) -> tuple[list[str], int]:
    metric = case["metrics"][0]
    values = {peer: median(of[metric["name"]]) for peer, of in case["samples"].items()}
    largest = max(values.values()) or 1.0
    better = "more is better" if metric["more"] else "less is better"
    parts = [
        f'<text class="title" x="0" y="{top + 20}">{escape(key)}: {escape(case["title"])}</text>',
        f'<text class="quiet" x="0" y="{top + 38}">{metric["name"]}, {metric["unit"]}, {better}</text>',
    ]
    y = top + _HEAD
    for peer, value in values.items():
        width = max(1.0, value / largest * _BAR)
        own = peer == OURS
        fill = "ours" if own else "theirs"
        told = short(value)
        if not own and OURS in values and value:
            told += f"   ({short(values[OURS] / value)} x)"
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(peer)}</text>',
            f'<rect class="{fill}" x="{_LABEL}" y="{y + 1}" width="{width:.1f}" height="18" rx="2"/>',
            f'<text class="quiet" x="{_LABEL + width + 8:.1f}" y="{y + 14}">{told}</text>',
        ]
        y += _ROW
    return parts, y + 18

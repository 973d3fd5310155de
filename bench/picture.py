"""The picture of a run: bars for the medians, a line across each from the least to the greatest.

Changes when the picture does. Invariant: one scale for each panel, from zero. Plain SVG 1.1, readable on a light and a
dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.figures import FIGURES, Figure, spread
from bench.report import Run
from bench.servers import KINDS

COLUMNS, WIDTH, GAP, MARGIN = 2, 470, 28, 20
BAR, PITCH, TITLE, NAMES, ROOM = 18, 26, 40, 92, 124
COLOURS = {
    "resumable": "#2f6fde",
    "before": "#9dbdf3",
    "tus-node": "#8a8f98",
    "rustus": "#c08a4b",
    "tusd": "#5f9e7f",
    "null": "#cccccc",
}
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .t { font-weight: 600 } .u { fill: #57606a; font-size: 12px }
.bg { fill: #ffffff } .w { stroke: #24292f; stroke-width: 1.5 } .a { stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .u { fill: #9198a1 } .bg { fill: #0d1117 } .w { stroke: #e6edf3 } .a { stroke: #3d444d } }
"""


def _bar(run: Run, figure: Figure, server: str, top: float, scale: float) -> str:
    name = f'<text x="{NAMES - 8}" y="{top + 14}" text-anchor="end">{escape(KINDS[server].title)}</text>'
    found = spread(run.samples, figure, server)
    if found is None:
        return f'{name}<text class="u" x="{NAMES + 6}" y="{top + 14}">not measured</text>'
    width, low, high = (value * scale for value in (found.median, found.low, found.high))
    middle, told = top + BAR / 2, f"{found.median:,.{figure.digits}f}"
    return (
        f'{name}<rect x="{NAMES}" y="{top}" width="{max(1.0, width):.1f}" height="{BAR}" fill="{COLOURS[server]}"/>'
        f'<line class="w" x1="{NAMES + low:.1f}" x2="{NAMES + high:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{NAMES + max(width, high) + 8:.1f}" y="{top + 14}">{told} {escape(figure.unit)}</text>'
    )


def _panel(run: Run, figure: Figure, servers: Sequence[str], x: int, y: int) -> str:
    spreads = [spread(run.samples, figure, server) for server in servers]
    greatest = max((one.high for one in spreads if one), default=0.0)
    scale = (WIDTH - NAMES - ROOM) / greatest if greatest else 0.0
    better = "more is better" if figure.more_is_better else "less is better"
    parts = [
        f'<g transform="translate({x},{y})"><text class="t" x="0" y="14">{escape(figure.label)}</text>',
        f'<text class="u" x="0" y="30">{better}</text>',
        f'<line class="a" x1="{NAMES}" x2="{NAMES}" y1="{TITLE - 2}" y2="{TITLE + PITCH * len(servers) - 4}"/>',
        *(_bar(run, figure, server, TITLE + PITCH * row, scale) for row, server in enumerate(servers)),
    ]
    return "\n".join([*parts, "</g>"])


def draw(run: Run) -> str:
    """Return the SVG."""
    servers = run.servers()
    drawn = [figure for figure in FIGURES if figure.drawn and any(spread(run.samples, figure, s) for s in servers)]
    height = TITLE + PITCH * len(servers) + GAP
    rows = -(-len(drawn) // COLUMNS)
    whole_width, whole_height = 2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP, 2 * MARGIN + rows * height - GAP
    panels = [
        _panel(run, figure, servers, MARGIN + i % COLUMNS * (WIDTH + GAP), MARGIN + i // COLUMNS * height)
        for i, figure in enumerate(drawn)
    ]
    size = f'width="{whole_width}" height="{whole_height}" viewBox="0 0 {whole_width} {whole_height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Benchmarks of tus servers">',
            f"<style>{STYLE}</style>",
            '<rect class="bg" width="100%" height="100%"/>',
            *panels,
            "</svg>\n",
        ]
    )

"""The dashboard as a picture: what a Prometheus answers to the queries of examples/grafana-dashboard.json.

``python -m bench.dashboard --prometheus http://127.0.0.1:9090`` draws docs/dashboard.svg.
Invariant: nothing is drawn that isn't asked for in the dashboard's own words.
Plain SVG 1.1. Source: https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

from __future__ import annotations

import argparse
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.servers import ROOT

UNIT_WIDTH, UNIT_HEIGHT, MARGIN, SPACE = 46, 26, 14, 10
COLOURS = ("#2f6fde", "#d97706", "#2e9e6b", "#c2412d", "#8b5cf6", "#0e9aa7", "#b8860b", "#7a869a")
MOST_NAMED = 6
LONGEST_NAME = 19
"""Letters of a name that has half of a panel's width."""
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .t { font-weight: 600; font-size: 13px }
.u { fill: #57606a; font-size: 11px } .bg { fill: #f6f8fa } .p { fill: #ffffff; stroke: #d0d7de } .a { stroke: #e4e8ec }
.r { font-weight: 600; font-size: 14px } polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .u { fill: #9198a1 } .bg { fill: #010409 } .p { fill: #0d1117; stroke: #3d444d }
.a { stroke: #262c36 } }
"""

Ask = Callable[[str], Sequence[Mapping[str, Any]]]
"""The series of a query, each with ``metric`` (labels) and ``values`` (pairs of a time and a number's text)."""


@dataclass(frozen=True)
class Line:
    """``points``: seconds and values, in order."""

    name: str
    points: Sequence[tuple[float, float]]


def prometheus(url: str, start: float, end: float, step: float) -> Ask:
    """Asks that one, about this time."""

    def ask(query: str) -> Sequence[Mapping[str, Any]]:
        said = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": step})
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{said}", timeout=30) as answer:
            found: Sequence[Mapping[str, Any]] = json.load(answer)["data"]["result"]
            return found

    return ask


def lines_of(panel: Mapping[str, Any], ask: Ask, interval: str) -> list[Line]:
    """What the panel shows."""
    lines = []
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", interval).replace("$instance", ".*")
        for series in ask(query):
            name = re.sub(r"{{(\w+)}}", lambda found, of=series: of["metric"].get(found[1], ""), target["legendFormat"])
            points = [(float(at), float(value)) for at, value in series["values"] if value not in ("NaN", "+Inf")]
            lines.append(Line(shortened(name), points))
    return [line for line in lines if line.points]


def told_apart(names: Sequence[str]) -> list[str]:
    """Names without the server that all of them begin with: what is left tells them apart."""
    first = {name.partition(" ")[0] for name in names}
    if len(names) > 1 and len(first) == 1 and ":" in min(first) and all(" " in name for name in names):
        return [name.partition(" ")[2] for name in names]
    return list(names)


def ago(seconds: float) -> str:
    """A label of the time axis: ``10 min ago``, ``now``."""
    if not round(seconds):
        return "now"
    return f"{seconds / 60:.3g} min ago" if seconds >= 60 else f"{seconds:.0f} s ago"


def shortened(name: str) -> str:
    """Names of remotes without what only tests have."""
    return re.sub(r"(\w+://[^/ ]+)/t[0-9a-f]{8,}", r"\1", name)


def shown(value: float, unit: str) -> str:
    """The value as people read it."""
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:.3g} ms"
    base, names = (1024, ("", "Ki", "Mi", "Gi", "Ti")) if unit in ("bytes", "Bps") else (1000, ("", "k", "M", "G", "T"))
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value, step = value / base, step + 1
    suffix = {"bytes": "B", "Bps": "B/s", "reqps": "/s", "ops": "/s", "s": "s"}.get(unit, "")
    return f"{value:.3g} {names[step]}{suffix}".strip()


def _panel(panel: Mapping[str, Any], lines: Sequence[Line], start: float, end: float) -> str:
    at, unit = panel["gridPos"], panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
    x, y = at["x"] * UNIT_WIDTH + MARGIN, at["y"] * UNIT_HEIGHT + MARGIN
    width, height = at["w"] * UNIT_WIDTH - SPACE, at["h"] * UNIT_HEIGHT - SPACE
    named = sorted(lines, key=lambda line: -max(value for _, value in line.points))[:MOST_NAMED]
    left, top, right = 74, 30, 12
    names = told_apart([line.name for line in named])
    columns = 2 if all(len(name) <= LONGEST_NAME for name in names) else 1
    bottom = 30 + 16 * (-(-len(named) // columns))
    across, down = width - left - right, height - top - bottom
    greatest = max((value for line in lines for _, value in line.points), default=0.0) or 1.0
    parts = [
        f'<g transform="translate({x},{y})"><rect class="p" width="{width}" height="{height}" rx="4"/>',
        f'<text class="t" x="10" y="19">{escape(panel["title"])}</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        level, told = top + down * (1 - share), shown(greatest * share, unit)
        parts.append(f'<line class="a" x1="{left}" x2="{width - right}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text class="u" x="{left - 6}" y="{level + 4:.1f}" text-anchor="end">{told}</text>')
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        where, told = left + across * share, ago((end - start) * (1 - share))
        parts.append(f'<line class="a" x1="{where:.1f}" x2="{where:.1f}" y1="{top}" y2="{top + down}"/>')
        parts.append(f'<text class="u" x="{where:.1f}" y="{top + down + 14}" text-anchor="{anchor}">{told}</text>')
    for number, (line, name) in enumerate(zip(named, names, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{left + across * (when - start) / (end - start):.1f},{top + down * (1 - value / greatest):.1f}"
            for when, value in line.points
        )
        parts.append(f'<polyline points="{points}" stroke="{colour}"/>')
        column, row = number % columns, number // columns
        where, under = left + column * across / columns, height - bottom + 36 + 16 * row
        parts.append(f'<rect x="{where:.0f}" y="{under - 8}" width="10" height="3" fill="{colour}"/>')
        parts.append(f'<text class="u" x="{where + 15:.0f}" y="{under - 3}">{escape(name)}</text>')
    return "\n".join([*parts, "</g>"])


def draw(dashboard: Mapping[str, Any], ask: Ask, start: float, end: float, interval: str = "30s") -> str:
    """Return the SVG; panels that have nothing to show are there, and empty."""
    parts = []
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        if panel["type"] == "row":
            y = at["y"] * UNIT_HEIGHT + MARGIN + 18
            parts.append(f'<text class="r" x="{MARGIN + 4}" y="{y}">{escape(panel["title"])}</text>')
        else:
            parts.append(_panel(panel, lines_of(panel, ask, interval), start, end))
    width = 24 * UNIT_WIDTH + 2 * MARGIN - SPACE
    height = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in dashboard["panels"]) * UNIT_HEIGHT + 2 * MARGIN
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="The dashboard for resumable">'
    return "\n".join(
        [head, f"<style>{STYLE}</style>", '<rect class="bg" width="100%" height="100%"/>', *parts, "</svg>\n"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.dashboard", description="Draw the dashboard.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="where one is that has the metrics")
    parser.add_argument("--minutes", type=float, default=10.0, help="how much of the past is shown")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/dashboard.svg")
    chosen = parser.parse_args()
    end = time.time()
    start = end - 60 * chosen.minutes
    dashboard = json.loads((ROOT / "examples/grafana-dashboard.json").read_text(encoding="utf-8"))
    ask = prometheus(chosen.prometheus, start, end, max(2.0, (end - start) / 150))
    chosen.output.write_text(draw(dashboard, ask, start, end), encoding="utf-8")


if __name__ == "__main__":
    main()

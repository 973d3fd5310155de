"""The report: a table for people to read, and the samples as JSON to make it of again.

Changes when the report's form does. Invariant: nothing is told that is not in the samples; what is missing is named
with its reason. The words around the table are in ``page.md``.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from bench.figures import FIGURES, TARGETS, Figure, Sample, judge, ratio, spread
from bench.servers import KINDS, OURS

PICTURE = "benchmarks.svg"
PAGE = Path(__file__).with_name("page.md")
DASH = "\N{EN DASH}"
NONE = DASH
SIGNS = {True: "reached", False: "**missed**", None: "not measured"}


@dataclass
class Run:
    """One run of the benchmark: where it ran, what of, what came out, and what did not (by "measure/server")."""

    machine: Mapping[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def servers(self, limits: bool = False) -> list[str]:
        """Return the names of the servers with samples, ours first, or of the ``limits`` with samples."""
        told = [name for name in KINDS if any(sample.server == name for sample in self.samples)]
        return [name for name in told if bool(KINDS[name].limits) is limits]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def load(paths: Iterable[Path]) -> Run:
    """Read saved runs as one: what a later one measured takes the place of what an earlier one did."""
    whole = Run()
    for path in paths:
        data = json.loads(path.read_text(encoding="utf-8"))
        new = [Sample(**sample) for sample in data["samples"]]
        again = {sample.measure for sample in new}
        whole.machine = data["machine"]
        whole.versions.update(data["versions"])
        whole.samples = [sample for sample in whole.samples if sample.measure not in again] + new
        whole.missing = {k: v for k, v in whole.missing.items() if k.partition("/")[0] not in again} | data["missing"]
    return whole


def machine(directory: Path) -> dict[str, str]:
    """Say in a few words what this machine is; nothing that names it."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True).stdout.strip()
    return {
        "date": datetime.date.today().isoformat(),
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "files on": kind or "unknown",
        "Python": platform.python_version(),
        "Twisted": version("twisted"),
        "Klein": version("klein"),
    }


def _cell(run: Run, figure: Figure, server: str) -> str:
    found = spread(run.samples, figure, server)
    if found is None:
        return NONE
    low, mid, high = (f"{value:,.{figure.digits}f}" for value in (found.low, found.median, found.high))
    return mid if low == high else f"{mid} ({low}{DASH}{high})"


def _beside(run: Run, figure: Figure, rivals: Sequence[str]) -> list[str]:
    found = [ratio(run.samples, figure, rival) if figure.compared else None for rival in rivals]
    return [NONE if one is None else f"{one:.2f} x" for one in found]


def _promises(run: Run, figure: Figure, rivals: Sequence[str]) -> str:
    told = []
    for target in TARGETS:
        if (target.measure, target.field) == (figure.measure, figure.field) and target.rival in (None, *rivals):
            limit = "at least" if figure.more_is_better else "at most"
            of = f" x {KINDS[target.rival].title}" if target.rival else f" {figure.unit}"
            told.append(f"{limit} {target.bound:g}{of}: {SIGNS[judge(run.samples, target)]}")
    return "; ".join(told)


def table(run: Run) -> str:
    """Return the table of all figures that were measured, in Markdown."""
    servers = run.servers()
    rivals = [name for name in servers if name != OURS] if OURS in servers else []
    head = ["work", "unit", *(KINDS[name].title for name in servers), *(f"beside {KINDS[n].title}" for n in rivals)]
    lines = [[*head, "target"], ["---"] * (len(head) + 1)]
    for figure in FIGURES:
        cells = [_cell(run, figure, name) for name in servers]
        if any(cell != NONE for cell in cells):
            label = figure.label + (" ↑" if figure.more_is_better else " ↓")
            lines.append([label, figure.unit, *cells, *_beside(run, figure, rivals), _promises(run, figure, rivals)])
    return markdown(lines)


def limits(run: Run) -> str:
    """Return the table of what can be reached at all, in Markdown."""
    servers = run.servers(limits=True)
    head = ["work", "unit", KINDS[OURS].title, *(KINDS[name].title for name in servers)]
    lines = [[*head, *(f"beside {KINDS[name].title}" for name in servers)]]
    lines.append(["---"] * len(lines[0]))
    for figure in FIGURES:
        cells = [_cell(run, figure, name) for name in servers]
        if figure.field != "memory" and any(cell != NONE for cell in cells):
            lines.append([figure.label, figure.unit, _cell(run, figure, OURS), *cells, *_beside(run, figure, servers)])
    return markdown(lines)


def markdown(lines: Iterable[Sequence[str]]) -> str:
    """The table of these rows of cells."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _missing(run: Run) -> str:
    lines = []
    for what, reason in sorted(run.missing.items()):
        measure, _, server = what.partition("/")
        who = KINDS[server].title if server in KINDS else "all"
        lines.append(f"- {who}, {measure}: {reason}")
    return "\n\nNot measured:\n\n" + "\n".join(lines) if lines else ""


def document(run: Run) -> str:
    """Return docs/benchmarks.md."""
    rows = "\n".join(
        f"| {KINDS[name].title} {run.versions.get(name, '')} | {KINDS[name].durability} |" for name in run.servers()
    )
    pairs = len({sample.pair for sample in run.samples})
    where = "; ".join(f"{name}: {value}" for name, value in run.machine.items())
    page = PAGE.read_text(encoding="utf-8")
    return page.format(
        table=table(run),
        missing=_missing(run),
        limits=limits(run) if run.servers(limits=True) else "Not measured.",
        servers=rows,
        pairs=pairs,
        where=where,
        picture=PICTURE,
    )

"""What several workers give beside one, what a request and a commit cost, and how many workers some traffic needs.

Changes when such a figure, a goal or the form of its table does. Invariant: each number is the median of what was
measured, or is worked out from such numbers by the formula that docs/scaling.md tells; nothing is assumed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from bench.figures import Figure, ratio, spread
from bench.measure import GIB, MIB
from bench.nodes import MEASURES as NODES
from bench.report import NONE, SIGNS, Run, markdown
from bench.servers import OURS, POSTGRES, WORKERS

WORK = {
    "creation": (OURS, POSTGRES, WORKERS),
    "tls-parallel": (POSTGRES, WORKERS),
    "patches": (OURS, POSTGRES),
    "parallel": (POSTGRES,),
    **dict.fromkeys(NODES, (POSTGRES,)),
}
"""The measures, and of which servers."""
CREATION, PATCHES = "creation-with-upload of 4 KiB", "8 PATCHes over TLS"
COMMITS_PER_GIB = GIB // (8 * MIB)
GIB_OF_GBIT = 1e9 / 8 / GIB
BUSY = 0.7
"""The share of a core that is to be used; the rest is for bursts."""


def _found(run: Run, measure: str, field: str, server: str = POSTGRES) -> float:
    """The median, or not a number where nothing was measured."""
    found = spread(run.samples, _figure(measure, field), server)
    return math.nan if found is None else found.median


def _figure(measure: str, field: str) -> Figure:
    return Figure(measure, field, "", "", 0)


class Growth(NamedTuple):
    """What two workers do beside one. ``others`` is the client's and the database's processor time over the server's
    (c), ``ceiling`` is 2 / (1 + c), ``bound`` what comes out when all cores are busy and a request costs the same."""

    beside: float
    others: float
    ceiling: float
    bound: float


def growth(run: Run, measure: str, unit: float) -> Growth:
    """``unit``: processor seconds of a sample's costs are for so many of what its rate counts, in seconds."""
    server, database, client = (_found(run, measure, field) for field in ("cpu", "database", "client"))
    others = (database + client) / server
    busy = (server + database + client) * unit * _found(run, measure, "rate")
    beside = ratio(run.samples, _figure(measure, "rate"), POSTGRES, WORKERS)
    cores = float(run.machine.get("cores", "nan"))
    return Growth(math.nan if beside is None else beside, others, 2 / (1 + others), cores / busy)


def goals(run: Run) -> str:
    """The table of goals, in Markdown."""
    lines = [["work", "must reach", "found", ""], ["---"] * 4]

    def add(work: str, must: str, found: str, value: float, bound: float, more: bool = True) -> None:
        told = None if math.isnan(value) else value >= bound if more else value <= bound
        lines.append([work, must, NONE if told is None else found, SIGNS[told]])

    def beside(measure: str, work: str, bound: float) -> None:
        found = ratio(run.samples, _figure(measure, "rate"), OURS, POSTGRES)
        value = math.nan if found is None else found
        add(f"{work}, one worker with PostgreSQL beside SQLite", f"{bound} x", f"{value:.2f} x", value, bound)

    def grown(measure: str, work: str, unit: float) -> None:
        found = growth(run, measure, unit)
        told = (
            f"{found.beside:.2f} x: {found.beside / found.ceiling:.2f} of the ceiling, {found.ceiling:.2f} x"
            f" (c = {found.others:.2f}); {found.beside / found.bound:.2f} of the bound, {found.bound:.2f} x"
        )
        add(f"{work}, two workers beside one", "0.85 of the ceiling", told, found.beside / found.ceiling, 0.85)

    def within(measure: str, field: str, work: str, seconds: float, must: str) -> None:
        value = _found(run, measure, field)
        add(work, must, f"{value:.3f} s", value, seconds, more=False)

    beside("creation", CREATION, 0.7)
    grown("creation", CREATION, 1e-3)
    grown("tls-parallel", PATCHES, MIB / GIB)
    beside("patches", "PATCH of 256 MiB", 0.95)
    trips = 2 * _found(run, "elsewhere", "round-trip")
    must = f"0.2 s and two round trips ({_told(trips * 1e3, '.1f', 'ms')})"
    within("elsewhere", "silent", "HEAD, then PATCH elsewhere, the client is silent, slowest", 0.2 + trips, must)
    within("elsewhere", "frozen", "HEAD, then PATCH elsewhere, the process is frozen, slowest", 0.2 + trips, must)
    within("killed", "longest", "a server is killed: longest until an upload goes on elsewhere", 1.0, "1 s")
    turns = _found(run, "round-robin", "ratio")
    add("200 PATCHes of 256 KiB, in turn at two servers beside one", "0.7 x", f"{turns:.2f} x", turns, 0.7)
    return markdown(lines)


class Costs(NamedTuple):
    """Processor seconds: of workers for a GiB without TLS and over it, of worker and database for a small file, and of
    the database for a commit of a long append. ``log`` is what the database writes to its log for a small file (bytes).
    """

    gib: float
    gib_tls: float
    small: float
    small_database: float
    commit: float
    log: float

    @classmethod
    def of(cls, run: Run) -> Costs:
        """Those that were measured."""
        return cls(
            _found(run, "parallel", "cpu"),
            _found(run, "tls-parallel", "cpu"),
            _found(run, "creation", "cpu") / 1e3,
            _found(run, "creation", "database") / 1e3,
            _found(run, "parallel", "database") / COMMITS_PER_GIB,
            _found(run, "creation", "log"),
        )


def costs(run: Run) -> str:
    """The table of costs, in Markdown."""

    def of(server: str, measure: str = "creation") -> str:
        return _told(_found(run, measure, "rate", server), ",.0f", "files a second")

    def large(server: str) -> str:
        return _told(_found(run, "tls-parallel", "rate", server), ",.0f", "MiB a second")

    cost = Costs.of(run)
    rows = [
        ("*a*", _told(cost.gib, ".2f", "s for each GiB")),
        ("*a* over TLS", _told(cost.gib_tls, ".2f", "s for each GiB")),
        ("*b*", _told(cost.small * 1e3, ".3f", "ms for each file of 4 KiB, created with its bytes in one request")),
        ("*d*", _told(cost.small_database * 1e3, ".3f", "ms for each of these, with 32 clients at once")),
        ("*q*", _told(cost.commit * 1e3, ".2f", "ms for each commit")),
        ("*w*", _told(cost.log, ",.0f", "bytes for each of these files")),
        ("these files, SQLite, one worker", of(OURS)),
        ("PostgreSQL, one worker", of(POSTGRES)),
        ("PostgreSQL, two workers", of(WORKERS)),
        ("PostgreSQL, two servers with one worker each", of(POSTGRES, "two-nodes")),
        ("8 PATCHes over TLS, one worker", large(POSTGRES)),
        ("8 PATCHes over TLS, two workers", large(WORKERS)),
    ]
    return markdown([("", "measured"), ("---", "---"), *rows])


def _told(value: float, form: str, unit: str = "") -> str:
    return NONE if math.isnan(value) else f"{value:{form}} {unit}".strip()


LARGE = (
    (1, "nothing: one process with SQLite does it"),
    (10, "the disk, then the processor with TLS"),
    (100, "the shared directory: one NFS server rarely takes that. Use several installations"),
)
SMALL = (
    (1_000, "nothing: one process with SQLite does it, on a disk with short sync times"),
    (10_000, "the workers first, then the syncs of the directory"),
    (100_000, "the syncs of the directory: one rarely takes that. Use several installations"),
)
GROWING = (1, 2, 4, 8, 16, 32)


def _cores(seconds: float) -> str:
    """The cores for so many processor seconds a second."""
    cores = seconds / BUSY
    return _told(cores, ".2g" if cores < 10 else ".0f")


def large(run: Run) -> str:
    """What a network of each speed needs, in Markdown."""
    cost = Costs.of(run)
    head = ["clients send", "*G*", "cores of workers", "the same over TLS", "commits each second, about"]
    lines = [[*head, "cores of PostgreSQL", "what usually limits"], ["---"] * 7]
    for gbit, limit in LARGE:
        gib = gbit * GIB_OF_GBIT
        commits = gib * COMMITS_PER_GIB
        cores = [_cores(gib * cost.gib), _cores(gib * cost.gib_tls)]
        lines.append([f"{gbit} Gbit/s", f"{gib:.2g}", *cores, f"{commits:,.0f}", _cores(commits * cost.commit), limit])
    return markdown(lines)


def small(run: Run) -> str:
    """What so many small files a second need, in Markdown."""
    cost = Costs.of(run)
    head = ["files each second", "cores of workers", "cores of PostgreSQL", "its log each second"]
    lines = [[*head, "what usually limits"], ["---"] * 5]
    for files, limit in SMALL:
        cores = [_cores(files * cost.small), _cores(files * cost.small_database)]
        lines.append([f"{files:,}", *cores, _told(files * cost.log / 1e6, ".1f", "MB"), limit])
    return markdown(lines)


def growing(run: Run) -> str:
    """What more and more workers take in, each with a core, in Markdown."""
    cost = Costs.of(run)
    head = ["workers", "small files each second", "cores of PostgreSQL for these", "large files, Gbit/s"]
    lines = [[*head, "the same over TLS"], ["---"] * 5]
    for workers in GROWING:
        files = workers * BUSY / cost.small
        speeds = [_told(workers * BUSY / each / GIB_OF_GBIT, ",.0f") for each in (cost.gib, cost.gib_tls)]
        lines.append([str(workers), _told(files, ",.0f"), _cores(files * cost.small_database), *speeds])
    return markdown(lines)


BLOCKS: dict[str, Callable[[Run], str]] = {
    "goals": goals,
    "costs": costs,
    "large": large,
    "small": small,
    "growing": growing,
}


def text(run: Run) -> str:
    """All tables, and where they were measured."""
    return "\n\n".join([*(table(run) for table in BLOCKS.values()), _where(run)])


def _where(run: Run) -> str:
    rounds = len({sample.pair for sample in run.samples})
    machine = "; ".join(f"{name}: {value}" for name, value in run.machine.items())
    return f"{machine}; {run.versions.get(POSTGRES, '')}; medians of up to {rounds} rounds."


def rewrite(page: str, run: Run) -> str:
    """The page with each table between ``<!-- bench: NAME -->`` and ``<!-- /bench -->`` made anew."""
    tables = {**BLOCKS, "where": _where}

    def anew(match: re.Match[str]) -> str:
        return f"{match[1]}\n{tables[match[2]](run)}\n\n{match[3]}"

    return re.sub(rf"(<!-- bench: ({'|'.join(tables)}) -->\n).*?(<!-- /bench -->)", anew, page, flags=re.DOTALL)

"""What nodes without disks ask of their store and their database, and how fast they are beside a disk with a remote.

Changes when such a figure, a goal or the form of its table does. Invariant: each number is the median of what was
measured, beside another server always as the median of ratios taken pair by pair; requests are those that the store has
logged, without the looks at whether it is there; what is read back is compared by SHA-256 with what was sent.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

from bench import nodes, tiers
from bench.figures import Sample
from bench.load import HOST, Connection, LoadError, create, patch_head
from bench.measure import GIB, MIB, Bench, Measure, new_upload
from bench.report import NONE, SIGNS, Run, markdown
from bench.servers import DISKLESS, EQUAL, KINDS, OURS, Running
from bench.store import Gateway

TUS_NODE = "tus-node"
TUSD = 1183
"""Requests of tusd 2.8.0 for 50 MiB in 200 PATCHes, as measured once with the same store; see docs/benchmarks.md."""
LOOKS = (".ready", ".marker")
PIECE, CHUNK = 256 << 10, 5 * MIB
LENGTH = 50 * MIB
ROUND_ROBIN = 3
BILLED = 64 * MIB
"""The size of the files that the bill is for."""
OPERATIONS = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "GetObject", "HeadObject",
              "DeleteObjects")  # fmt: skip
WRITES, READS = 5e-6, 0.4e-6
"""US dollars for a request that writes or lists, and for one that reads; those that remove cost nothing."""
SETTLED = 60.0


# -- what is measured


@contextmanager
def _several(server: Running, count: int) -> Iterator[list[Running]]:
    """So many nodes: this one, and others with the same store and database."""
    with ExitStack() as stack:
        found = [server]
        for number in range(1, count):
            other = Running(
                server.kind, server.log.parent, server.store, database=server.database, log=f"other{number}.log"
            )
            stack.callback(other.kill)
            other.start()
            found.append(other)
        for each in found:
            each.warm()
        yield found


def _send(bench: Bench, servers: Sequence[Running], length: int, step: int) -> str:
    """An upload in PATCHes of so many bytes, each to the next server; its path, once its object is there."""
    path = new_upload(servers[0], length)
    connections = [Connection(each.port) for each in servers]
    for number, at in enumerate(range(0, length, step)):
        connection, size = connections[number % len(connections)], min(step, length - at)
        connection.send(patch_head(path, at, size))
        connection.send_from(bench.source.view, size, at)
        connection.answer("PATCH").expect(204)
    for connection in connections:
        connection.close()
    tiers.store_of(servers[0]).wait_for(tiers.name_of(path), length)
    return path


def _check(server: Running, path: str, digest: str) -> None:
    """Raise LoadError unless a download has that SHA-256, where the server gives any."""
    if not server.kind.own:
        return
    with urlopen(f"http://{HOST}:{server.port}{path}") as answer:
        if hashlib.sha256(answer.read()).hexdigest() != digest:
            raise LoadError("a download has other bytes than were sent")


def _ask(server: Running, statement: str) -> list[tuple[int]]:
    import psycopg

    if server.database is None:
        return []
    with psycopg.connect(server.database.url, autocommit=True) as connection:
        done = connection.execute(statement)
        return done.fetchall() if done.description else []


def _settled(server: Running) -> None:
    """What was replaced is removed: a minute passes at once."""
    if server.database is None:
        time.sleep(1.0)
        return
    end = time.monotonic() + SETTLED
    while _ask(server, "SELECT 1 FROM uploads WHERE finished_at IS NOT NULL AND NOT whole LIMIT 1"):
        if time.monotonic() > end:
            raise LoadError("an upload did not become an object")
        time.sleep(0.05)
    _ask(server, "UPDATE discarded SET at = at - 1000")
    while _ask(server, "SELECT 1 FROM discarded LIMIT 1"):
        if time.monotonic() > end:
            raise LoadError("what was replaced was not removed")
        time.sleep(0.2)
    time.sleep(0.3)  # the log's last lines


def _requests(server: Running, call: Callable[[], object]) -> Counter[str]:
    """Those that the store got for what is done here."""
    store = tiers.store_of(server)
    _settled(server)
    before = store.asked(LOOKS)
    call()
    _settled(server)
    return store.asked(LOOKS) - before


def _counted(step: int, count: int, length: int = LENGTH) -> Measure:
    """How many requests an upload in such steps costs, by so many nodes in turn."""

    def measure(bench: Bench, server: Running) -> dict[str, float]:
        with _several(server, count) as servers:
            paths: list[str] = []
            found = _requests(server, lambda: paths.append(_send(bench, servers, length, step)))
            _check(servers[-1], paths[0], bench.source.digest(0, length))
        return {"requests": found.total(), **_by_kind(found)}

    return measure


def _by_kind(found: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("s3_"): count for name, count in found.items()}


def _in_one(size: int) -> Measure:
    """The same of a file in the request that creates it."""

    def measure(bench: Bench, server: Running) -> dict[str, float]:
        server.warm()

        def send() -> None:
            with Connection(server.port) as connection:
                path = create(connection, server.kind.root, size, bench.source.read(0, size))
            tiers.store_of(server).wait_for(tiers.name_of(path), size)

        found = _requests(server, send)
        return {"requests": found.total(), **_by_kind(found)}

    return measure


def _bill(step: int) -> Measure:
    """Requests by kind, and bytes of the database's log, for each GiB in files of `BILLED` bytes, by two nodes."""

    def measure(bench: Bench, server: Running) -> dict[str, float]:
        count = max(1, bench.sizes.patch // BILLED)
        with _several(server, 2) as servers:
            log = server.database.log() if server.database else 0

            def send() -> None:
                for _ in range(count):
                    _send(bench, servers, BILLED, step)

            found = _requests(server, send)
            log = (server.database.log() if server.database else 0) - log
        scale = GIB / (count * BILLED)
        return {"log": log * scale, **{name: number * scale for name, number in _by_kind(found).items()}}

    return measure


def stuck(bench: Bench, server: Running) -> dict[str, float]:
    """The longest time that an upload can't go on when its node is killed, and when it is frozen (s)."""
    frozen = nodes.elsewhere(bench, server)["frozen"]
    return {"frozen": frozen, "killed": nodes.killed(bench, server)["longest"]}


WORK: dict[str, tuple[Measure, tuple[str, ...]]] = {
    "spool-big": (tiers.big, (OURS, DISKLESS)),
    "spool-pieces": (_counted(PIECE, 1), (DISKLESS, OURS, TUS_NODE)),
    "spool-pieces-in-turn": (_counted(PIECE, ROUND_ROBIN), (DISKLESS,)),
    "spool-chunks": (_counted(CHUNK, 1), (DISKLESS, EQUAL, OURS, TUS_NODE)),
    "spool-chunks-in-turn": (_counted(CHUNK, ROUND_ROBIN), (DISKLESS, EQUAL)),
    "spool-4k": (_in_one(4096), (DISKLESS, OURS, TUS_NODE)),
    "spool-8m": (_in_one(8 * MIB), (DISKLESS, OURS, TUS_NODE)),
    "spool-stuck": (stuck, (DISKLESS,)),
    "bill-files": (_bill(BILLED), (DISKLESS,)),
    "bill-chunks": (_bill(CHUNK), (DISKLESS, EQUAL)),
    "bill-pieces": (_bill(PIECE), (DISKLESS,)),
}
"""The measures, and of which servers; in a round these take turns."""
ONCE = ("spool-pieces", "spool-chunks", "spool-4k", "spool-8m", "bill-files", "bill-chunks", "bill-pieces")
"""What is counted, not timed: it comes out the same each time, but for what is asked on the way."""


def perform(run: Run, names: Sequence[str], known: Sequence[str], pairs: int, bench: Bench, scratch: Path) -> None:
    """Run these measures of those servers that are ``known``, and add their samples."""
    for name in names or WORK:
        measure, servers = WORK[name]
        for pair in range(min(2, pairs) if name.startswith(ONCE) else pairs):
            for server in servers:
                if server in known and f"{name}/{server}" not in run.missing:
                    _one(run, name, measure, server, pair, bench, scratch)


def _one(run: Run, name: str, measure: Measure, server: str, pair: int, bench: Bench, scratch: Path) -> None:
    began, place = time.monotonic(), Path(tempfile.mkdtemp(dir=scratch))
    try:
        with Gateway(place) as store, Running(KINDS[server], place, store) as running:
            values = measure(bench, running)
    except (LoadError, OSError) as error:
        run.missing[f"{name}/{server}"] = " ".join(str(error).split())[:300]
        print(f"{name:20} {pair + 1} {server:14} FAILED: {error}", flush=True)
    else:
        run.samples.append(Sample(name, server, pair, values))
        told = "  ".join(f"{key} {value:,.4g}" for key, value in values.items())
        print(f"{name:20} {pair + 1} {server:14} {told}   [{time.monotonic() - began:.1f} s]", flush=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)


# -- what is told


def _values(run: Run, measure: str, field: str, server: str = DISKLESS) -> list[float]:
    return [each.values.get(field, 0.0) for each in run.samples if (each.measure, each.server) == (measure, server)]


def _median(run: Run, measure: str, field: str, server: str = DISKLESS) -> float:
    found = _values(run, measure, field, server)
    return statistics.median(found) if found else math.nan


def _ratios(run: Run, ours: str, theirs: str) -> list[float]:
    """Of `spool-big`, pair by pair: a field of a node without a disk, over one of our remote."""
    found = {(each.pair, each.server): each.values for each in run.samples if each.measure == "spool-big"}
    pairs = {pair for pair, _ in found if (pair, OURS) in found and (pair, DISKLESS) in found}
    return [found[pair, DISKLESS][ours] / found[pair, OURS][theirs] for pair in sorted(pairs)]


def _with_error(found: Sequence[float]) -> str:
    """The median, and its standard error from the spread of the samples."""
    if not found:
        return NONE
    error = 1.253 * statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return f"{statistics.median(found):.2f} x" + ("" if math.isnan(error) else f" ± {error:.2f}")


def _count(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:,.0f}"


def goals(run: Run) -> str:
    """The table of goals, in Markdown."""
    head = ["work", "a node without a disk", "must reach", "", "our disk with `--remote`", "@tus/s3-store", "tusd"]
    lines = [head, ["---"] * len(head)]

    def add(work: str, value: float, told: str, must: str, bound: float, *others: str, more: bool = False) -> None:
        reached = None if math.isnan(value) else value >= bound if more else value <= bound
        cells = [*others, *[NONE] * (3 - len(others))]
        lines.append([work, NONE if math.isnan(value) else told, must, SIGNS[reached], *cells])

    def requests(work: str, measure: str, bound: int, server: str = DISKLESS, beside: str = "", tusd: str = "") -> None:
        value = _worst(run, measure, server)
        others = [_count(_median(run, beside, "requests", each)) for each in (OURS, TUS_NODE)] if beside else []
        add(work, value, f"{value:,.0f}", f"{bound}", bound, *others, *([tusd] if tusd else []))

    pieces, chunks = "requests for 50 MiB in 200 PATCHes of 256 KiB", "the same in 10 PATCHes of 5 MiB"
    requests(f"{pieces}, at one node", "spool-pieces", 12, beside="spool-pieces", tusd=f"{TUSD:,}")
    requests(f"{pieces}, in turn at three", "spool-pieces-in-turn", 12)
    requests(f"{chunks}, at one node", "spool-chunks", 12, beside="spool-chunks")
    requests(f"{chunks}, in turn at three", "spool-chunks-in-turn", 12)
    requests(f"{chunks}, in turn at three, equal parts", "spool-chunks-in-turn", 30, EQUAL)
    requests("requests for a file of 4 KiB in one request", "spool-4k", 1, beside="spool-4k")
    requests("requests for a file of 8 MiB in one request", "spool-8m", 1, beside="spool-8m")
    speeds, costs = _ratios(run, "answered", "rate"), _ratios(run, "cpu", "cpu")
    speed, cost = (statistics.median(each) if each else math.nan for each in (speeds, costs))
    answered, stored = _median(run, "spool-big", "answered"), _median(run, "spool-big", "rate", OURS)
    add(
        "512 MiB in one PATCH until it is acknowledged, beside the time until the store has it",
        *(speed, f"{answered:.0f} MiB/s: {_with_error(speeds)}", "0.95 x", 0.95),
        NONE if math.isnan(stored) else f"{stored:.0f} MiB/s",
        more=True,
    )
    mine, theirs = _median(run, "spool-big", "cpu"), _median(run, "spool-big", "cpu", OURS)
    add(
        "processor seconds for each GiB of these",
        *(cost, f"{mine:.2f} s: {_with_error(costs)}", "1 x", 1.0),
        NONE if math.isnan(theirs) else f"{theirs:.2f} s",
    )
    for field, work in (("killed", "a node is killed"), ("frozen", "a node is frozen")):
        value = max(_values(run, "spool-stuck", field), default=math.nan)
        add(f"{work}: longest until an upload goes on at another", value, f"{value:.3f} s", "1 s", 1.0)
    return markdown(lines)


def _worst(run: Run, measure: str, server: str) -> float:
    return max(_values(run, measure, "requests", server), default=math.nan)


BILLS = (
    ("bill-files", DISKLESS, "whole files in one PATCH"),
    ("bill-chunks", DISKLESS, "chunks of 5 MiB"),
    ("bill-chunks", EQUAL, "chunks of 5 MiB, equal parts"),
    ("bill-pieces", DISKLESS, "chunks of 256 KiB"),
)


def bill(run: Run) -> str:
    """What a GiB costs, in Markdown."""
    lines = [["for each GiB, in files of 64 MiB", *(title for _, _, title in BILLS)], ["---"] * (1 + len(BILLS))]

    def row(title: str, of: Callable[[str, str], str]) -> None:
        lines.append([title, *(of(measure, server) for measure, server, _ in BILLS)])

    for each in _operations(run):
        row(f"`{each}`", lambda measure, server, each=each: _count(_median(run, measure, each, server)))  # type: ignore[misc]
    row("requests, all", lambda measure, server: _count(sum(_kinds(run, measure, server).values())))
    row("price of these at AWS, US dollars", lambda measure, server: _price(_kinds(run, measure, server)))
    row(
        "bytes written to PostgreSQL (WAL)",
        lambda measure, server: _mib(_median(run, measure, "log", server)),
    )
    return markdown(lines)


def _operations(run: Run) -> list[str]:
    """Those that came, in their order; what is strange comes last."""
    names = {name for each in run.samples if each.measure.startswith("bill") for name in each.values if name != "log"}
    return [each for each in OPERATIONS if each in names] + sorted(names - set(OPERATIONS))


def _kinds(run: Run, measure: str, server: str) -> dict[str, float]:
    return {each: _median(run, measure, each, server) for each in _operations(run)} or {"": math.nan}


def _price(kinds: Mapping[str, float]) -> str:
    value = sum(
        count * (0.0 if name.startswith(("Delete", "Abort")) else READS if name.startswith(("Get", "Head")) else WRITES)
        for name, count in kinds.items()
    )
    return NONE if math.isnan(value) else f"{value:.4f}"


def _mib(value: float) -> str:
    return NONE if math.isnan(value) else f"{value / MIB:,.2f} MiB" if value > MIB else f"{value / 1024:,.0f} KiB"


def _where(run: Run) -> str:
    machine = "; ".join(f"{name}: {value}" for name, value in run.machine.items())
    rounds = len({sample.pair for sample in run.samples if sample.measure == "spool-big"})
    return f"{machine}; {run.versions.get(DISKLESS, '')}; versitygw; speeds: {rounds} rounds, in turn."


BLOCKS: dict[str, Callable[[Run], str]] = {"spool": goals, "bill": bill, "spool-where": _where}


def text(run: Run) -> str:
    """All tables, and where they were measured."""
    return "\n\n".join(table(run) for table in BLOCKS.values())


def rewrite(page: str, run: Run) -> str:
    """As `scaling.rewrite`, with the tables of this module."""

    def anew(match: re.Match[str]) -> str:
        return f"{match[1]}\n{BLOCKS[match[2]](run)}\n\n{match[3]}"

    return re.sub(rf"(<!-- bench: ({'|'.join(BLOCKS)}) -->\n).*?(<!-- /bench -->)", anew, page, flags=re.DOTALL)

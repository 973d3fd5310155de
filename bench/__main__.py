"""``python -m bench``: the options, and the order in which things are run.

Changes when an option does. Invariant: within a round the servers take turns, so that what else the machine does meets
them alike; what a rival can't do is noted and left out, what resumable can't do makes the exit status 1.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from bench import (
    clouds,
    database,
    draft,
    http2,
    interrupt,
    measure,
    nodes,
    picture,
    report,
    scaling,
    segments,
    small,
    spool,
    store,
    tiers,
)
from bench.figures import Sample
from bench.load import LoadError
from bench.measure import SMOKE, Bench, Measure, Sizes, Source
from bench.rivals import HERE, Unavailable
from bench.servers import (
    BEFORE,
    DEFAULT,
    DISKLESS,
    EQUAL,
    KINDS,
    LEAST,
    NULL,
    OURS,
    POSTGRES,
    ROOT,
    WORKERS,
    Kind,
    Running,
)

MEASURES: dict[str, Measure] = {
    **measure.MEASURES,
    **small.MEASURES,
    **draft.MEASURES,
    **segments.MEASURES,
    **tiers.MEASURES,
    **http2.MEASURES,
    **interrupt.MEASURES,
    **clouds.MEASURES,
    **nodes.MEASURES,
}
# These need minutes or tell little more the fifth time.
ROUNDS_AT_MOST = {
    "open": 2,
    **dict.fromkeys(("elsewhere", "killed", "round-robin"), 3),
    "takeover": 2,
    "stop": 2,
    "deaf": 1,
    "huge": 1,
    "http2": 2,
    "s3-slices": 1,
    "s3-paced": 3,
    "s3-many": 3,
    "s3-backlog": 1,
    "az": 3,
    "gs": 3,
}
LONG = ("huge",)
SHARED = ("big", "append", "tls", "s3-small", *scaling.WORK)
"""What is measured of servers that share a catalog."""
ONLY_SCALING = ("patches", "tls-parallel", *nodes.MEASURES)
"""What is measured for docs/scaling.md, and not for docs/benchmarks.md."""
SLOW = ("deaf", "huge", "s3-paced", "s3-backlog", *clouds.MEASURES)
DOCS = ROOT / "docs"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure resumable beside other tus servers.")
    parser.add_argument("--pairs", type=int, default=5, help="rounds of each measure (default 5)")
    parser.add_argument(
        "--only", default="", help=f"measures, with commas between: {','.join((*MEASURES, *spool.WORK))}"
    )
    parser.add_argument("--servers", default="", help=f"servers, with commas between: {','.join(KINDS)}")
    parser.add_argument("--long", action="store_true", help="also 10 GiB in one PATCH; needs 13 GiB of memory")
    parser.add_argument("--smoke", action="store_true", help="small, once, without peers: does the benchmark work?")
    parser.add_argument(
        "--calibrate", action="store_true", help="resumable beside the least program, and a server that does nothing"
    )
    parser.add_argument(
        "--scaling", action="store_true", help="what several workers give beside one, and the sizes in docs/scaling.md"
    )
    parser.add_argument(
        "--spool",
        action="store_true",
        help="what nodes without disks ask of their store, and the bill in docs/scaling.md",
    )
    parser.add_argument(
        "--dir", type=Path, default=Path("/dev/shm"), help="where everything is kept (default /dev/shm)"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the samples are saved")
    parser.add_argument("--docs", action="store_true", help="write docs/ also after a run of some measures or servers")
    parser.add_argument("--render", type=Path, nargs="+", metavar="FILE", help="only write docs/ from saved samples")
    chosen = parser.parse_args(arguments)
    for text, known in ((chosen.only, spool.WORK if chosen.spool else MEASURES), (chosen.servers, KINDS)):
        if unknown := [name for name in text.split(",") if name and name not in known]:
            parser.error(f"no such thing: {', '.join(unknown)} (known: {', '.join(known)})")
    return chosen


def ready(names: Sequence[str], run: report.Run) -> list[Kind]:
    """Make the servers ready and return those that are; the others are noted."""
    kinds = []
    for name in names:
        try:
            run.versions[name] = KINDS[name].prepare()
        except Unavailable as error:
            run.missing[f"all/{name}"] = str(error)
            print(f"left out: {name}: {error}", flush=True)
        else:
            kinds.append(KINDS[name])
    return kinds


def _fits(name: str, kind: Kind) -> bool:
    """Whether the measure is one for that server."""
    if kind.limits:
        return name in kind.limits
    if name in nodes.MEASURES:
        return kind.name == POSTGRES
    if kind.shared and name not in SHARED:
        return False
    if name in clouds.MEASURES or name in draft.MEASURES:
        return kind.name == OURS
    if name in http2.MEASURES or name in segments.MEASURES or name in tiers.ONLY_OWN:
        return kind.own
    return name not in tiers.MEASURES or kind.stored is not None


def perform(run: report.Run, kinds: Sequence[Kind], name: str, pairs: int, bench: Bench, scratch: Path) -> None:
    """Run one measure on all servers in turn, round by round, and add its samples to the run."""
    for pair in range(min(pairs, ROUNDS_AT_MOST.get(name, pairs))):
        for kind in kinds:
            if f"{name}/{kind.name}" in run.missing or not _fits(name, kind):
                continue
            began = time.monotonic()
            place = Path(tempfile.mkdtemp(dir=scratch))
            try:
                with ExitStack() as stack:
                    behind = stack.enter_context(store.Gateway(place)) if name in tiers.MEASURES else None
                    server = stack.enter_context(Running(kind, place, behind))
                    values = MEASURES[name](bench, server)
            except (LoadError, OSError) as error:
                run.missing[f"{name}/{kind.name}"] = " ".join(str(error).split())[:300]
                print(f"{name:9} {pair + 1} {kind.name:10} FAILED: {error}", flush=True)
            else:
                run.samples.append(Sample(name, kind.name, pair, values))
                told = "  ".join(f"{key} {value:,.4g}" for key, value in values.items())
                print(f"{name:9} {pair + 1} {kind.name:10} {told}   [{time.monotonic() - began:.1f} s]", flush=True)
            finally:
                shutil.rmtree(place, ignore_errors=True)


def publish(run: report.Run, chosen: argparse.Namespace) -> None:
    """Write the page and the picture, or the tables of docs/scaling.md."""
    if chosen.scaling or chosen.spool:
        page = DOCS / "scaling.md"
        rewrite = (spool if chosen.spool else scaling).rewrite
        page.write_text(rewrite(page.read_text(encoding="utf-8"), run), encoding="utf-8")
        print(f"wrote {page}")
        return
    DOCS.mkdir(exist_ok=True)
    (DOCS / "benchmarks.md").write_text(report.document(run), encoding="utf-8")
    (DOCS / report.PICTURE).write_text(picture.draw(run), encoding="utf-8")
    print(f"wrote {DOCS / 'benchmarks.md'} and {DOCS / report.PICTURE}")


def measured(chosen: argparse.Namespace) -> report.Run:
    """Do what the options ask for and return what came out."""
    names = [name for name in chosen.only.split(",") if name]
    servers = [name for name in chosen.servers.split(",") if name]
    if chosen.calibrate:
        names, servers = names or list(KINDS[LEAST].limits), servers or [OURS, LEAST, NULL]
    elif chosen.scaling:
        names, servers = names or list(scaling.WORK), servers or [OURS, POSTGRES, WORKERS]
    elif chosen.spool:
        servers = servers or [DISKLESS, EQUAL, OURS, *(() if chosen.smoke else (spool.TUS_NODE,))]
    elif not names:
        left_out = (*ONLY_SCALING, *(SLOW if chosen.smoke else () if chosen.long else LONG))
        names = [name for name in MEASURES if name not in left_out]
    database.place = chosen.dir
    pairs, sizes = (1, SMOKE) if chosen.smoke else (chosen.pairs, Sizes())
    run = report.Run(machine=report.machine(chosen.dir))
    kinds = ready(servers or ((OURS, BEFORE, LEAST) if chosen.smoke else DEFAULT), run)
    with tempfile.TemporaryDirectory(prefix="tus-bench-", dir=chosen.dir) as scratch:
        bench = Bench(Source(Path(scratch) / "source", sizes.big), sizes)
        if chosen.spool:
            store.binary()
            spool.perform(run, names, [kind.name for kind in kinds], pairs, bench, Path(scratch))
            return run
        for name in _possible(names, run):
            whose = [kind for kind in kinds if not chosen.scaling or kind.name in scaling.WORK[name]]
            perform(run, whose, name, pairs, bench, Path(scratch))
    return run


def _possible(names: Sequence[str], run: report.Run) -> list[str]:
    """Those that can be measured here: some need a store, or root."""
    possible = []
    for name in names:
        try:
            if name in tiers.MEASURES:
                store.binary()
            elif name in segments.MEASURES:
                segments.prepare()
            elif name in clouds.CLOUDS:
                clouds.CLOUDS[name].prepare()
        except Unavailable as error:
            run.missing[f"{name}/all"] = str(error)
            print(f"left out: {name}: {error}", flush=True)
        else:
            possible.append(name)
    return possible


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    chosen = options(arguments)
    if chosen.render:
        publish(report.load(chosen.render), chosen)
        return 0
    signal.signal(signal.SIGTERM, _end)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run = measured(chosen)
    if chosen.scaling or chosen.spool:
        print(f"\n{(spool if chosen.spool else scaling).text(run)}")
    elif not chosen.smoke:
        print(f"\n{report.table(run)}\n\n{report.limits(run)}")
    if not chosen.smoke:
        saved = chosen.results / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
        run.save(saved)
        print(f"\nsaved {saved}")
    partial = chosen.only or chosen.servers or chosen.calibrate or chosen.smoke or chosen.scaling or chosen.spool
    if run.samples and (chosen.docs or not partial):
        publish(run, chosen)
    asked = chosen.scaling or chosen.spool or not chosen.servers or OURS in chosen.servers.split(",")
    failed = [what for what in run.missing if chosen.scaling or chosen.spool or what.endswith(f"/{OURS}")]
    return 1 if failed and asked and not chosen.calibrate else 0


if __name__ == "__main__":
    sys.exit(main())

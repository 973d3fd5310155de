"""``python -m tests.soak``: about ten minutes, or as long as is said. Status 1 when anything was wrong."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .diskless import DisklessSoak
from .shared import FLEETS, SharedPlan, SharedSoak
from .soak import Plan, Soak

SECONDS = 4.0
"""What a trouble takes on the average; the pause after it is shorter."""
#: What a trouble and the pause after it take on the average where several processes share.
SHARED_SECONDS = 16.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--dir", type=Path, default=None, help="where uploads and the store are kept")
    parser.add_argument("--admin-port", type=int, default=0, help="where the metrics are, for a Prometheus to look at")
    parser.add_argument(
        "--shape",
        choices=("one", *FLEETS, "diskless"),
        default="one",
        help="one process, workers, nodes with one directory, or nodes without disks",
    )
    parser.add_argument("--seed", type=int, default=1, help="another course of things; not with one process")
    parser.add_argument("--log", type=Path, default=None, help="where the daemon's log goes at the end")
    chosen = parser.parse_args()
    for each in (signal.SIGINT, signal.SIGTERM):  # what was started ends as well
        signal.signal(each, lambda *_: sys.exit(1))
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="resumable-soak-", dir=chosen.dir) as scratch:
        soak = _made(chosen, Path(scratch), say)
        try:
            soak.run()
        finally:
            if chosen.log:
                chosen.log.write_text(soak.log)
    ledger = soak.ledger
    say(
        f"clients: {dict(ledger.done)}; {len(ledger.promises)} uploads, "
        f"{sum(each.size for each in ledger.promises) >> 20} MiB, {ledger.unknown} creations had no answer"
    )
    for each in ledger.problems[:40]:
        say(f"WRONG: {each}")
    say(f"{len(ledger.problems)} problems")
    return 1 if ledger.problems else 0


def _made(chosen: argparse.Namespace, scratch: Path, say: Callable[[str], None]) -> Soak | SharedSoak:
    if chosen.shape == "one":
        number = max(3, round(chosen.minutes * 60 / (1.6 * SECONDS)))
        return Soak(Plan(chosen.clients, number // 3, number // 3, SECONDS, chosen.admin_port), scratch, say)
    number = max(6, round(chosen.minutes * 60 / SHARED_SECONDS))
    plan = SharedPlan(chosen.shape, chosen.clients, number // 2, number // 4, SECONDS, seed=chosen.seed)
    return (DisklessSoak if chosen.shape == "diskless" else SharedSoak)(plan, scratch, say)


if __name__ == "__main__":
    sys.exit(main())

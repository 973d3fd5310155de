"""``python -m tests.soak``: about ten minutes, or as long as is said. Status 1 when anything was wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .soak import Plan, Soak

#: A trouble lasts as long, on the average, as the pause after it.
SECONDS = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--dir", type=Path, default=None, help="where uploads and the store are kept")
    parser.add_argument("--admin-port", type=int, default=0, help="where the metrics are, for a Prometheus to look at")
    parser.add_argument("--log", type=Path, default=None, help="where the daemon's log goes at the end")
    chosen = parser.parse_args()
    number = max(3, round(chosen.minutes * 60 / (2 * SECONDS)))
    plan = Plan(chosen.clients, number // 3, number // 3, SECONDS, chosen.admin_port)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="resumable-soak-", dir=chosen.dir) as scratch:
        soak = Soak(plan, Path(scratch), say)
        try:
            soak.run()
        finally:
            if chosen.log:
                chosen.log.write_text(soak.log)
    ledger = soak.ledger
    say(f"clients: {dict(ledger.done)}; {len(ledger.promises)} uploads, {ledger.unknown} creations had no answer")
    for each in ledger.problems[:40]:
        say(f"WRONG: {each}")
    say(f"{len(ledger.problems)} problems")
    return 1 if ledger.problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""How long uploads stand still when their keeper dies or freezes: measured by uploads of its own.

Invariant: an upload is measured from the blow until another process has taken a PATCH of it. Times are seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from random import Random

import psycopg

from tests.e2e.tus import Tus, patch_head
from tests.e2e.wire import Wire

from .clients import LATER
from .fleet import Fleet
from .ledger import Ledger, data_of

SIZE = 3 << 20
PIECE = 1024
NEXT_TRY = 0.02
TRIES = 60.0
KEEPERS = "SELECT uploads.id, pid FROM uploads JOIN workers ON kept_by = workers.id WHERE uploads.id = ANY(%s)"


@dataclass
class Stuck:
    """``kills`` and ``freezes``: the time of each upload that was measured. ``idle``: the same of one without a keeper,
    at the same moment: what the machine takes for it."""

    kills: list[float] = field(default_factory=list)
    freezes: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return "; ".join(
            f"{name}: {len(found)} uploads, median {sorted(found)[len(found) // 2]:.3f} s, longest {max(found):.3f} s"
            for name, found in (("killed", self.kills), ("frozen", self.freezes), ("without a keeper", self.idle))
            if found
        )


class Probe:
    """``bound``: seconds that no upload may stand still for longer; None: on a machine that promises nothing."""

    def __init__(self, fleet: Fleet, ledger: Ledger, seed: int, bound: float | None) -> None:
        self.stuck = Stuck()
        self._fleet = fleet
        self._ledger = ledger
        self._random = Random(seed)
        self._bound = bound
        self._numbers = iter(range(seed * 1_000_000 + 900_000_000, seed * 1_000_000 + 901_000_000))

    def strike(self, victim: int, blow: Callable[[], object], freezes: bool) -> None:
        """``blow`` hits the keeper of uploads in the middle of a body."""
        data = data_of(next(self._numbers), SIZE)
        others = self._fleet.ports_without(victim)
        under_way = self._under_way(victim, data, others)
        times = self.stuck.freezes if freezes else self.stuck.kills
        try:
            spare = self._created(others[0], len(data))
            blow()
            began = time.monotonic()
            threads = [
                threading.Thread(target=self._go_on, args=(path, data, began, others, times, 0, sent))
                for path, _, sent in under_way
            ]
            threads.append(
                threading.Thread(target=self._go_on, args=(spare, data, began, others, self.stuck.idle, 0, 0))
            )
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        finally:
            for _, wire, _ in under_way:
                wire.close()

    def _created(self, port: int, length: int) -> str:
        """Its path, as soon as the quotas allow one more. Raises OSError."""
        until = time.monotonic() + TRIES
        while True:
            with closing(Tus(port, timeout=20)) as tus:
                answer = tus.post(length)
            if answer.status == 201:
                return tus.path(answer)
            if answer.status not in LATER or time.monotonic() > until:
                raise OSError(f"a creation was answered {answer.status}")
            threading.Event().wait(0.2)

    def _under_way(self, victim: int, data: bytes, others: list[int]) -> list[tuple[str, Wire, int]]:
        """Uploads that it keeps, with their connections and how many bytes were sent."""
        to_it = [port for port in self._fleet.ports if port not in others]
        found: list[tuple[str, Wire, int]] = []
        for _ in range(4 if to_it else 9):
            port = self._random.choice(to_it or self._fleet.ports)
            with suppress(OSError, EOFError):
                path = self._created(port, len(data))
                wire = Wire(port, 20)
                sent = self._random.randrange(PIECE * 80, len(data) - PIECE)
                wire.offer(patch_head(path, 0, len(data)) + data[:sent])
                found.append((path, wire, sent))
        ids = {path.rpartition("/")[2] for path, _, _ in found}
        kept: set[str] = set()
        mine: set[str] = set()
        until = time.monotonic() + 3
        while kept != ids and time.monotonic() < until:
            with suppress(psycopg.Error):
                rows = self._fleet.database.ask(
                    KEEPERS,
                    (list(ids),),
                )
                kept = {upload for upload, _ in rows}
                mine = {upload for upload, pid in rows if pid == victim}
            threading.Event().wait(0.05)
        for path, wire, _ in found:
            if path.rpartition("/")[2] not in mine:  # another's: it goes on later, and counts for nothing
                wire.close()
                threading.Thread(target=self._finish, args=(path, data, others), daemon=True).start()
        return [each for each in found if each[0].rpartition("/")[2] in mine]

    def _go_on(
        self, path: str, data: bytes, began: float, ports: list[int], times: list[float], least: int, most: int
    ) -> None:
        tries: list[str] = []
        while time.monotonic() < began + TRIES:
            tus = Tus(self._random.choice(ports), timeout=20)
            try:
                head = tus.head(path)
                tries.append(f"HEAD {head.status}")
                if head.status == 200:
                    at = head.offset
                    if not least <= at <= most:
                        self._ledger.problem(f"probe: {path}: {at} is not from {least} to {most}")
                    answer = tus.patch(path, at, data[at : at + PIECE])
                    tries.append(f"PATCH {answer.status}")
                    if answer.status == 204:
                        break
            except (OSError, EOFError) as error:
                tries.append(f"{type(error).__name__} after {time.monotonic() - began:.2f} s")
            finally:
                tus.close()
            threading.Event().wait(NEXT_TRY)
        took = time.monotonic() - began
        times.append(took)
        if self._bound is not None and took > self._bound:
            self._ledger.problem(f"probe: {path} stood still for {took:.2f} s: {tries[:12]}")
        self._finish(path, data, ports)

    def _finish(self, path: str, data: bytes, ports: list[int]) -> None:
        until = time.monotonic() + 180
        while time.monotonic() < until:
            tus = Tus(self._random.choice(ports), timeout=20)
            try:
                head = tus.head(path)
                if head.status == 200 and head.offset == len(data):
                    self._ledger.finished(path, data)
                    return
                if head.status == 200:
                    tus.patch(path, head.offset, data[head.offset :])
            except (OSError, EOFError):
                pass
            except AssertionError as error:
                self._ledger.problem(f"probe: {path}: {str(error)[:300]}")
                return
            finally:
                tus.close()
            threading.Event().wait(0.1)
        self._ledger.problem(f"probe: {path} could not be finished")

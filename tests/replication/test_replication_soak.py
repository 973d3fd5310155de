"""Clients, faults, deaths and terminations in any order, drawn by seed: in the end every object is right."""

from __future__ import annotations

from random import Random

import pytest

from resumable.model.errors import CatalogUnavailable
from resumable.remotes import errors
from resumable.remotes.memory.remote import Fault
from tests.replication.rig import Rig, parts, plain

ERRORS = [
    errors.Transient("503"),
    errors.Transient("reset"),
    errors.Throttled("SlowDown", 3.0),
    errors.AuthFailed("expired"),
    errors.OutOfStep("which?"),
    OSError(5, "I/O error"),
    KeyError("unforeseen"),
]
OPERATIONS = [
    "initiate_upload",
    "write_chunk",
    "write_chunk",
    "finalize_upload",
    "abort_upload",
    "delete_object",
    "get_upload_progress",
    "confirmed_parts",
    "*",
]
CATALOG = ["advance", "store", "due", "get", "ended", "save_journal", "load_journal", "hasten", "next_retry", "park"]


class Play:
    """One game."""

    def __init__(self, rig: Rig, rng: Random) -> None:
        self.rig = rig
        self.rng = rng
        self.totals: dict[str, int] = {}
        self.gone: set[str] = set()

    def step(self) -> None:
        moves = [self.create, self.append, self.append, self.append, self.wait, self.wait, self.fault, self.fault]
        moves += [self.catalog_fault, self.kill, self.terminate, self.lose, self.stop]
        self.rng.choice(moves)()

    def create(self) -> None:
        size = self.rng.choice([0, 1, 30, 100, 101, 350, 900])
        deferred = size and self.rng.random() < 0.4
        upload_id = self.rig.create(None if deferred else size)
        self.totals[upload_id] = size

    def append(self) -> None:
        open_ones = [each for each, size in self.totals.items() if len(self.rig.data[each]) < size]
        if open_ones:
            self.more(self.rng.choice(open_ones), self.rng.choice([1, 60, 100, 250, 900]))

    def more(self, upload_id: str, size: int) -> None:
        data = self.rng.randbytes(min(size, self.totals[upload_id] - len(self.rig.data[upload_id])))
        known = self.rig.lengths[upload_id] is not None
        ends = len(self.rig.data[upload_id]) + len(data) == self.totals[upload_id]
        self.rig.append(upload_id, data, length=None if known or not ends else self.totals[upload_id])

    def wait(self) -> None:
        self.rig.advance(self.rng.choice([0.01, 0.05, 0.3, 2, 40]))

    def fault(self) -> None:
        remote = self.rig.remotes[self.rng.choice("ab")]
        operation = self.rng.choice(OPERATIONS)
        fault = Fault(
            operation,
            self.rng.choice(ERRORS),
            skip=self.rng.randrange(3),
            times=self.rng.choice([1, 1, 2, 6]),
            lost=self.rng.random() < 0.4,
            keep=self.rng.randrange(120) if operation == "write_chunk" and self.rng.random() < 0.3 else None,
            silent=self.rng.random() < 0.1,
        )
        remote.faults.add(fault)

    def catalog_fault(self) -> None:
        faults = self.rig.replicas.faults
        if faults:
            faults.clear()
        else:
            faults[self.rng.choice(CATALOG)] = CatalogUnavailable("full")

    def kill(self) -> None:
        self.rig.kill().start()

    def stop(self) -> None:
        self.rig.stop()
        self.rig.start()

    def lose(self) -> None:
        """A store loses what is unfinished."""
        self.rig.stores[self.rng.choice("ab")].unfinished.clear()

    def terminate(self) -> None:
        if self.totals and self.rng.random() < 0.5:
            upload_id = self.rng.choice(list(self.totals))
            del self.totals[upload_id]
            self.gone.add(upload_id)
            self.rig.terminate(upload_id)

    def end(self) -> None:
        """Nothing goes wrong any more, and the clients finish."""
        rig = self.rig
        rig.replicas.faults.clear()
        for remote in rig.remotes.values():
            remote.faults.clear()
        for upload_id, size in self.totals.items():
            if len(rig.data[upload_id]) < size:
                self.more(upload_id, size)
        for name in "ab":
            rig.settle(list(self.totals), name, seconds=2000)
            rig.until(lambda name=name: not any(rig.replica(each, name) for each in self.gone), seconds=2000)
            rig.check(*self.totals, remote=name)
            assert len(rig.stores[name].objects) == len(self.totals)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_objects_are_right_in_the_end(make, seed):
    play = Play(make({"a": parts(), "b": plain()}), Random(seed))
    for _ in range(60):
        play.step()
    play.end()

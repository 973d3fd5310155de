"""kill -9 at every step of a replica's life: the object is right, was made once, and nothing unfinished is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from resumable.replication.progress import CatalogJournal
from tests.replication.rig import Rig, parts, pattern, plain

REMOTE = {
    "initiate_upload",
    "write_chunk",
    "finalize_upload",
    "abort_upload",
    "get_upload_progress",
    "confirmed_parts",
    "delete_object",
}
CATALOG = {"advance", "store", "park", "ended", "save_journal", "hasten"}


class Death:
    """Counts the steps of one run, and ends it at one of them: before it has its effect, or after."""

    def __init__(self, step: int, after: bool) -> None:
        self.dead = False
        self._left = step
        self._after = after

    def step(self, act: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        if self.dead:
            return Deferred()
        self._left -= 1
        if self._left:
            return act().addBoth(self._heard)
        if not self._after:
            self.dead = True
            return Deferred()
        return act().addBoth(self._die)

    def _heard(self, result: Any) -> Any:
        return Deferred() if self.dead and not _cancelled(result) else result

    def _die(self, result: Any) -> Any:
        self.dead = True
        return self._heard(result)


def _cancelled(result: Any) -> bool:
    """By `Rig.bury`, or by replication while it lived."""
    return isinstance(result, Failure) and result.check(CancelledError) is not None


class Mortal:
    """Something whose methods are steps."""

    def __init__(self, inner: Any, names: set[str], death: Death) -> None:
        self._inner = inner
        self._names = names
        self._death = death
        directlyProvides(self, *providedBy(inner))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self._names:
            return method
        return lambda *args: self._death.step(lambda: maybeDeferred(method, *args))


class MortalRig(Rig):
    """A rig whose next run ends at a step."""

    death: Death

    def mortal(self, kind: Any, death: Death) -> MortalRig:
        self.death = death

        def make(rig: Rig, name: str, journal: CatalogJournal) -> Any:
            # replication and the backend's journal write to the catalog by the same steps
            rig.replicas = Mortal(rig.replicas, CATALOG, self.death)
            return Mortal(kind(rig, name, CatalogJournal(rig.replicas, name)), REMOTE, self.death)

        self.makes["a"] = make
        return self

    def revive(self) -> bool:
        """After a death: the next run, which doesn't end. Whether there was one."""
        if not self.death.dead:
            return False
        self.kill()
        self.death = Death(10**9, False)
        self.start()
        return True

    def work(self, seconds: float = 100.0) -> None:
        """Let time pass; a run that has ended is followed by the next."""
        end = self.clock.seconds() + seconds
        while not self.death.dead and self.clock.seconds() < end:
            self.advance(min(1.0, end - self.clock.seconds()))
        if self.revive():
            self.advance(seconds)


KINDS = {"parts": parts(), "plain": plain()}


def at_every_step(directory, kind, play, check):
    """Play it with a death at the first step, at the second, ... until it is over before. How many there were."""
    for after in (False, True):
        step = 0
        while True:
            step += 1
            place = directory / f"{after}-{step}"
            place.mkdir()
            rig = MortalRig(place).mortal(kind, Death(step, after))
            rig.start()
            try:
                upload_id = play(rig)
                rig.work()
                check(rig, upload_id)
                if rig.runs == 1:
                    break
            finally:
                rig.bury()
    return step


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 50, 350])
def test_a_death_at_any_step_of_an_upload_that_came_at_once(directory, kind, size):
    steps = at_every_step(
        directory, KINDS[kind], lambda rig: rig.upload(size), lambda rig, upload_id: rig.check(upload_id)
    )
    assert steps >= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_death_at_any_step_of_an_upload_of_deferred_length(directory, kind):
    def play(rig):
        upload_id = rig.create(None)
        for size in (150, 160):
            rig.append(upload_id, pattern(size))
            rig.work(2)
        rig.append(upload_id, pattern(45), length=355)
        return upload_id

    assert at_every_step(directory, KINDS[kind], play, lambda rig, upload_id: rig.check(upload_id)) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("size", [450, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_death_at_any_step_of_an_upload_that_is_terminated(directory, kind, size):
    def play(rig):
        upload_id = rig.create(1000)
        rig.append(upload_id, pattern(size))
        rig.work(2)
        rig.terminate(upload_id)
        return upload_id

    def check(rig, upload_id):
        assert rig.object(upload_id) is None
        assert rig.replica(upload_id) is None
        assert not rig.stores["a"].unfinished

    assert at_every_step(directory, KINDS[kind], play, check) >= 8


@pytest.mark.slow
def test_a_death_while_many_are_under_way(directory):
    def play(rig):
        for number in range(4):
            rig.upload(30 + 60 * number, seed=number)
        return None

    def check(rig, _):
        rig.check(*rig.data)

    assert at_every_step(directory, KINDS["parts"], play, check) >= 20


def test_death_after_death(directory):
    """Every run ends after a few steps, and gets a little further."""
    rig = MortalRig(directory).mortal(KINDS["parts"], Death(6, True))
    rig.start()
    upload_id = rig.upload(1000)
    for run in range(40):
        rig.advance(60)
        if not rig.death.dead:
            break
        rig.kill()
        rig.death = Death(6 + run % 3, run % 2 == 0)
        rig.start()
    rig.advance(60)
    try:
        rig.check(upload_id)
        assert rig.runs > 3
    finally:
        rig.bury()

"""kill -9 at every step of a replica's life: the object is right, was made once, and nothing unfinished is left."""

from __future__ import annotations

from typing import Any

import pytest

from resumable.replication.journal import CatalogJournal
from tests.replication.deaths import CATALOG, REMOTE, Death, Mortal
from tests.replication.rig import PART, Rig, parts, pattern, plain, whole


class MortalRig(Rig):
    """A rig whose next run ends at a step."""

    death: Death

    def mortal(self, kind: Any, death: Death) -> MortalRig:
        self.death = death

        def make(rig: Rig, name: str, journal: CatalogJournal) -> Any:
            # replication and the backend's journal write to the catalog by the same steps
            rig.replicas = Mortal(rig.replicas, CATALOG, self.death)
            rig.journals[name] = CatalogJournal(rig.replicas, name)
            return Mortal(kind(rig, name, rig.journals[name]), REMOTE, self.death)

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


KINDS = {"parts": parts(), "plain": plain(), "whole": whole()}


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
    assert steps >= (5 if kind != "whole" or size > PART else 2)


@pytest.mark.parametrize("size", [0, 1, PART])
def test_a_death_at_any_step_of_a_small_upload_that_is_created_with_its_bytes(directory, size):
    """And of its end: before and after the request, and each change of the catalog and the store that follows."""

    def check(rig, upload_id):
        rig.check(upload_id)
        rig.terminate(upload_id)
        rig.work()
        assert rig.object(upload_id) is None, "the journal knows what was stored"

    assert at_every_step(directory, KINDS["whole"], lambda rig: rig.post(pattern(size)), check) >= 8


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

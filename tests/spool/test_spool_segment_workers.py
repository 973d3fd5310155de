"""Several workers on one directory, each stopped between any two steps for as long as it likes.

Readers never see wrong bytes, what was acknowledged is always readable, and nothing interleaves.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from resumable.model.upload import GoneReason, Upload
from resumable.spool.segments import segment_directory, segment_sweeper
from resumable.testing.memory_segments import Fate
from tests.spool.segment_world import World

IDS = ["a" * 32, "b" * 32, "c" * 32]
FINAL = "f" * 32
#: Stories of the long test.
MANY = 2000 if os.environ.get("RESUMABLE_LONG") else 200

who = st.integers(0, 2)
uploads = st.integers(0, 2)
sizes = st.lists(st.integers(1, 14), min_size=1, max_size=4)


class Workers(RuleBasedStateMachine):
    world: World

    @initialize(number=st.integers(2, 3), lengths=st.lists(st.integers(5, 40), min_size=2, max_size=2))
    def begin(self, number, lengths):
        self.world = World(number)
        for upload_id, length in zip(IDS, lengths, strict=False):
            self.world.catalog.create(Upload(upload_id, 0.0, 0.0, length=length))

    def at(self, number):
        return self.world.processes[number % len(self.world.processes)]

    def known(self, number):
        ids = [each for each in IDS if each in self.world.catalog.rows]
        return ids[number % len(ids)]

    @rule(who=who, upload=uploads, sizes=sizes, small=st.booleans(), unfinished=st.booleans())
    def append(self, who, upload, sizes, small, unfinished):
        process, upload_id = self.at(who), self.known(upload)
        process.begin(self.world.append(process, upload_id, sizes, small, unfinished), upload_id)

    @rule(who=who, upload=uploads, size=st.integers(1, 20), small=st.booleans(), unfinished=st.booleans())
    def append_at_once(self, who, upload, size, small, unfinished):
        self.append(who, upload, [size], small, unfinished)
        self.at(who).run_all()

    @rule(who=who, upload=uploads)
    def append_the_rest(self, who, upload):
        self.append(who, upload, [15, 15, 15], False, False)

    @rule(who=who, length=st.integers(0, 20))
    def post(self, who, length):
        process = self.at(who)
        if IDS[2] not in self.world.catalog.rows:
            process.begin(self.world.post(process, IDS[2], length), IDS[2])

    @rule(who=who, upload=uploads)
    def read(self, who, upload):
        process = self.at(who)
        process.begin(self.world.read(process, self.known(upload)))

    @rule(who=who)
    def join(self, who):
        process = self.at(who)
        process.begin(process.engine.joiner.sweep(), "sweep")

    @rule(who=who, upload=uploads)
    def gather(self, who, upload):
        process, upload_id = self.at(who), self.known(upload)
        process.begin(self.world.gather(process, upload_id), f"gather {upload_id}")

    @rule(who=who, first=uploads, second=uploads)
    def assemble(self, who, first, second):
        sources = [self.known(first), self.known(second)]
        rows = self.world.catalog.rows
        if any(not rows[each].upload.finished or rows[each].upload.gone for each in sources):
            return
        if FINAL not in rows:
            self.world.catalog._create(Upload(FINAL, 0.0, 0.0), None)
            self.sources = sources
        if not rows[FINAL].upload.finished:
            process = self.at(who)
            process.begin(self.world.assemble(process, FINAL, self.sources), FINAL)

    @rule(who=who)
    def remove(self, who):
        process = self.at(who)
        process.begin(self.world.remove(process), "remove")

    @rule(who=who)
    def sweep(self, who):
        process = self.at(who)
        process.begin(process.engine.sweeper.sweep_discarded(), "discarded")

    @rule(who=who)
    def sweep_unknown(self, who):
        process = self.at(who)
        process.begin(process.engine.sweeper.sweep_unknown(), "unknown")

    @rule(who=who, count=st.integers(1, 60), seed=st.integers(0, 1 << 16))
    def steps(self, who, count, seed):
        rng = Random(seed)
        for _ in range(count):
            self.at(who).step(rng.randrange(4))

    @rule(count=st.integers(1, 60), seed=st.integers(0, 1 << 16))
    def steps_of_all(self, count, seed):
        rng = Random(seed)
        for _ in range(count):
            rng.choice([*self.world.processes, *self.world.ghosts]).step(rng.randrange(4))

    @rule(who=who)
    def go_on(self, who):
        self.at(who).run_all()

    @rule(what=st.integers(0, 11), who=who, upload=uploads, fate=st.sampled_from(Fate))
    def something_rare(self, what, who, upload, fate):
        world, upload_id = self.world, self.known(upload)
        if what == 0 and upload_id not in world.pinned:
            world.catalog.end(upload_id, GoneReason.TERMINATED)
        elif what == 1:
            process = self.at(who)
            process.kill()
            world.replace(process)
        elif what == 2:
            world.catalog._late.clear()  # no database answers after a day
            world.day_passes()
        elif what < 6:
            world.catalog.fates.append(fate)
        elif what < 8:
            world.catalog.land()
        elif what < 10:
            world.clock.advance(61)

    @invariant()
    def holds(self):
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.catalog.fates.clear()
            self.world.catalog._late.clear()
            try:
                self.world.finish()
            finally:
                self.world.stop()


@pytest.fixture(autouse=True)
def few_folders(monkeypatch):
    for module in (segment_directory, segment_sweeper):
        monkeypatch.setattr(module, "FOLDERS", ("00",))


@pytest.mark.parametrize(("examples", "steps"), [(40, 50), pytest.param(MANY, 80, marks=pytest.mark.slow, id="long")])
def test_what_is_acknowledged_is_readable_and_right_however_workers_stop(examples, steps):
    run_state_machine_as_test(
        Workers,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

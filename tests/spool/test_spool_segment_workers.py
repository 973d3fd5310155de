"""Several workers on one directory, each stopped between any two steps for as long as it likes.

Readers never see wrong bytes, what was acknowledged is always readable, and nothing interleaves: also where each is on
a machine of its own, which sees the directory late, as over a network file system.
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
from resumable.testing.memory_catalog import Fate
from tests.spool.segment_world import World
from tests.waiting import long

IDS = [letter * 32 for letter in "abcde0123456789"]
FINAL = "f" * 32
#: Stories of the long test.
MANY = 2000 if os.environ.get("RESUMABLE_LONG") else 100

who = st.integers(0, 2)
uploads = st.integers(0, 2)
hows = st.integers(0, 5)
often = st.sampled_from([0.0, 0.3, 0.9, 1.0])
seeds = st.integers(0, 1 << 16)
sizes = st.lists(st.integers(1, 14), min_size=1, max_size=4)

#: For a race: each is told of the story, who does it, to which upload, and how.
WORKS = [
    lambda story, who, upload, how: story.append(who, upload, [how + 1] * 4, how == 0, how == 1),
    lambda story, who, upload, how: story.append_the_rest(who, upload),
    lambda story, who, upload, how: story.read(who, upload, how),
    lambda story, who, upload, how: story.join(who),
    lambda story, who, upload, how: story.gather(who, upload),
    lambda story, who, upload, how: story.sweep(who),
    lambda story, who, upload, how: story.sweep_unknown(who),
]


class Workers(RuleBasedStateMachine):
    world: World
    late = False

    @initialize(number=st.integers(2, 3), lengths=st.lists(st.integers(5, 40), min_size=2, max_size=2))
    def begin(self, number, lengths):
        self.world = World(number, self.late)
        for length in lengths:
            self.create(length)

    def at(self, number):
        return self.world.processes[number % len(self.world.processes)]

    def known(self, number):
        """Of the latest."""
        ids = [each for each in IDS if each in self.world.catalog.rows]
        return ids[-1 - number % len(ids)]

    def unknown(self):
        return next((each for each in IDS if each not in self.world.catalog.rows), None)

    @rule(length=st.integers(5, 40))
    def create(self, length):
        if (upload_id := self.unknown()) is not None:
            self.world.catalog._create(Upload(upload_id, 0.0, 0.0, length=length), None)

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
        if (upload_id := self.unknown()) is not None:
            process.begin(self.world.post(process, upload_id, length), upload_id)

    @rule(who=who, upload=uploads, how=hows)
    def read(self, who, upload, how):
        process = self.at(who)
        process.begin(self.world.read(process, self.known(upload), how))

    @rule(who=who)
    def join(self, who):
        process = self.at(who)
        process.begin(process.engine.swept(), "sweep")

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

    @rule(who=who, count=st.integers(1, 60), seed=seeds)
    def steps(self, who, count, seed):
        rng = Random(seed)
        for _ in range(count):
            self.at(who).step(rng.randrange(4))

    @rule(count=st.integers(1, 60), seed=seeds)
    def steps_of_all(self, count, seed):
        rng = Random(seed)
        for _ in range(count):
            rng.choice([*self.world.processes, *self.world.ghosts]).step(rng.randrange(4))

    @rule(
        upload=uploads, works=st.lists(st.tuples(who, st.sampled_from(WORKS), hows), min_size=2, max_size=4), seed=seeds
    )
    def race(self, upload, works, seed):
        """All to their ends."""
        rng = Random(seed)
        for who, work, how in works:
            work(self, who, upload, how)
        racing = [process for process in self.world.processes if process.tasks]
        while racing:
            process = rng.choice(racing)
            if not process.step(rng.randrange(4)):
                racing.remove(process)

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
            world.pass_time(61)

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


class LateWorkers(Workers):
    """Each on a machine of its own, with a network file system."""

    late = True

    @rule(who=who, names=often, files=often, losses=often, seed=seeds)
    def another_view(self, who, names, files, losses, seed):
        machine = self.at(who).disk
        machine.late_names, machine.late_files, machine.losses = names, files, losses / 3
        machine.random.seed(seed)

    @rule(who=who)
    def tidy(self, who):
        self.join(who)
        self.at(who).run_all()
        self.world.pass_time(61)
        self.sweep(who)
        self.at(who).run_all()

    @rule(who=who, upload=uploads, how=hows, size=st.integers(1, 6), count=st.integers(0, 15))
    def watch(self, who, upload, how, size, count):
        """One reads a file to which another writes."""
        self.append_at_once(who, upload, size, False, False)
        self.read(who + 1, upload, how)
        for _ in range(count):
            self.at(who + 1).step(-1)
        self.append_at_once(who, upload, size, False, False)
        self.at(who + 1).run_all()

    @rule(who=who, upload=uploads, how=hows, count=st.integers(0, 15))
    def read_meanwhile(self, who, upload, how, count):
        """Files go that one has open, or is about to open."""
        self.read(who, upload, how)
        for _ in range(count):
            self.at(who).step(-1)
        self.append_the_rest(who + 1, upload)
        self.at(who + 1).run_all()
        self.tidy(who + 1)
        self.at(who).run_all()

    @rule(who=who, upload=uploads)
    def join_for_another(self, who, upload):
        """One finishes an upload and dies."""
        process, row = self.at(who), self.world.catalog.rows[self.known(upload)]
        self.append_the_rest(who, upload)
        while not row.upload.finished and process.step(0):
            pass
        process.kill()
        self.world.replace(process)
        self.join(who + 1)
        self.at(who + 1).run_all()

    @rule(who=who, upload=uploads)
    def look_for_losses(self, who, upload):
        """For an hour, while another writes."""
        for _ in range(5):
            self.append_at_once(who + 1, upload, 1, False, False)
            self.at(who).begin(self.at(who).engine.losses.step(), "losses")
            self.at(who).run_all()
            self.world.pass_time(900)

    @rule(who=who)
    def expire(self, who):
        self.at(who).disk.expire()


@pytest.fixture(autouse=True)
def few_folders(monkeypatch):
    for module in (segment_directory, segment_sweeper):
        monkeypatch.setattr(module, "FOLDERS", ("00",))


@pytest.mark.parametrize("how", [0, 3, 5])
def test_a_reader_goes_on_when_another_machine_has_removed_its_file(how):
    for count in range(16):
        story = LateWorkers()
        story.begin(number=3, lengths=[30])
        for who in range(3):
            story.another_view(who, 0.0, 0.0, 0.0, count)
        story.append_at_once(0, 0, 10, False, False)
        story.read(1, 0, how)
        for _ in range(count):
            story.at(1).step(0)
        story.append_the_rest(2, 0)
        story.at(2).run_all()
        story.tidy(2)
        story.at(1).run_all()
        assert not story.world.failures
        assert story.world.reads
        story.teardown()


@pytest.mark.parametrize(
    ("workers", "examples", "steps"),
    [
        (Workers, 20, 50),
        pytest.param(Workers, MANY, 80, marks=pytest.mark.slow, id="long"),
        (LateWorkers, 20, 40),
        pytest.param(LateWorkers, 2000, 80, marks=long, id="late-long"),
    ],
)
def test_what_is_acknowledged_is_readable_and_right_however_workers_stop(workers, examples, steps):
    run_state_machine_as_test(
        workers,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=workers.late and examples < 100,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""The engine crashed at every step of I/O, by a killed process and by a power loss, and found right afterwards.

`RESUMABLE_LONG=1` makes these try far more: more survivals of each crash, more and longer stories.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.uploads.crash_model import CrashModel, small_sizes
from tests.uploads.machine import machines

pytestmark = pytest.mark.usefixtures("way")

LONG = bool(os.environ.get("RESUMABLE_LONG"))
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

# -- every step of a small story


def story(model: CrashModel) -> Iterator[None]:
    """One of each: yields where the machine may be found stopped."""
    model.create(3000)
    yield
    upload = model.uploads[0]
    model.append(upload, 100)  # small
    yield
    model.append(upload, 1500, sent=1200)  # long
    yield
    model.head(upload)  # commits as it goes
    yield
    model.feed(model.sending[0], 200)
    yield
    model.lose(model.sending[0])
    yield
    model.append(upload, 800, check="bad")
    yield
    model.append(upload, 800, check="good", sent=700)
    yield
    model.advance(0.3)
    yield
    model.append(upload, upload.length - upload.acked)  # takes over, and finishes
    yield
    model.create_with(900, 900, False, "none", True)
    yield
    model.create_with(40, 1000, True, "none", True)
    yield
    model.create_with(30, 30, False, "bad", False)
    yield
    _, first, second, *_ = model.uploads
    model.concatenate([first, second, first])
    yield
    model.append(second, 2000, chunked=True)  # runs past its length
    yield
    model.append(second, second.length - second.acked, check="trailer")
    yield
    model.concatenate([first, second, first])  # the same request again
    yield
    model.concatenate([second, second])
    yield
    model.delete(first)
    yield
    model.delete(upload)
    yield
    model.sweep()
    yield
    final = model.uploads[-2]
    model.head(final)
    yield
    model.drop(final)
    yield
    model.sweep()
    yield
    model.head(final)
    yield


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as path, small_sizes():
        yield Path(path)


def told(model: CrashModel) -> bool:
    """Run the story to its end, or to the crash; whether the end was reached."""
    return all(not model.machine.down for _ in story(model))


def test_the_story_without_a_crash(directory: Path) -> None:
    model = CrashModel(next(machines(directory)), Random(1))
    assert told(model)
    model.check()
    upload, first, second, _, final, other = model.uploads
    assert other.finished and other.acked == 2000
    assert [each.gone for each in (upload, first, second, final)] == ["yes", "yes", "no", "no"]
    assert second.finished and final.finished
    assert final.acked == 2800
    assert final.dropped and final.id not in model.server.names()
    model.server.bury()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after", "torn"])
def test_a_crash_at_every_step(directory: Path, moment: Any) -> None:
    """At each step k = 1..N of the story, before and after its effect, and within a COMMIT; then the process is gone,
    or the power, with several survivals of what was not synced."""
    seeds = range(12 if LONG else 2)
    fresh = machines(directory)
    step = 0
    while True:
        step += 1
        machine = next(fresh)
        model = CrashModel(machine, Random(step))
        model.crash_at(step, moment, step)
        if told(model):
            model.server.bury()
            break
        if moment != "torn" or machine.trace[-1] == "COMMIT":
            for crash in ("kill", *seeds):
                after = recovered(model, crash)
                after.finish_all()
                after.server.bury()
        model.server.bury()
        shutil.rmtree(machine.catalog_directory.parent)
    assert step > 60


@pytest.mark.slow
@pytest.mark.parametrize("first", ["kill", 1])
def test_a_second_crash_after_one_at_every_step(directory: Path, first: Any) -> None:
    """What a crash has left in a file never counts, however the run after it ends: with an append that has begun and
    written nothing, and with one that has written something."""
    fresh = machines(directory)
    for step in range(1, 1000, 1 if LONG else 2):
        machine = next(fresh)
        model = CrashModel(machine, Random(step))
        model.crash_at(step, "before", step)
        if told(model):
            model.server.bury()
            return
        model.recover(first)
        for sent, second in ((0, "kill"), (600, "kill"), (700, step)):
            for upload in model.uploads:
                if upload.told and upload.gone == "no" and not upload.finished:
                    model.append(upload, 1000 if upload.length is None else upload.length - upload.acked, sent=sent)
            model.recover(second)
        model.finish_all()
        model.server.bury()
        shutil.rmtree(machine.catalog_directory.parent)
    raise AssertionError("the story has no end")


@pytest.mark.slow
@pytest.mark.parametrize("number,landed", [(errno.EIO, False), (errno.ENOSPC, True)])
def test_a_failure_at_every_step_and_a_power_loss_after_it(directory: Path, number: int, landed: bool) -> None:
    """A write, a sync, a rename, a COMMIT, ... that fails makes nothing be acknowledged that a power loss can take."""
    fresh = machines(directory)
    for step in range(1, 1000):
        machine = next(fresh)
        model = CrashModel(machine, Random(step))
        model.fail_at(step, number, landed)
        try:
            for _ in story(model):
                pass
        except IndexError:
            pass  # a creation was refused: the story can't go on
        if machine.steps < step:
            model.server.bury()
            return
        model.recover(step)
        model.finish_all()
        model.server.bury()
        shutil.rmtree(machine.catalog_directory.parent)
    raise AssertionError("the story has no end")


def recovered(model: CrashModel, crash: Any) -> CrashModel:
    """A model of its own that goes on after the crash; ``model`` may go on otherwise."""
    from copy import copy

    from attrs import evolve

    twin = copy(model)
    twin.uploads = [evolve(each, brought=set(each.brought)) for each in model.uploads]
    places = dict(zip(map(id, model.uploads), twin.uploads, strict=True))
    for each in twin.uploads:
        each.parts = tuple(places[id(part)] for part in each.parts)
    twin._waiting = []
    twin.sending = list(model.sending)
    twin.recover(crash)
    return twin


# -- any story

SIZES = st.sampled_from([0, 1, 100, 511, 512, 513, 1024, 1500, 2048, 2500, 4096])
CHECKS = st.sampled_from(
    ["none"] * 8 + ["good", "bad", "trailer", "bad trailer", "no trailer", "late trailer", "bad late trailer"]
)
PICKS = st.integers(0, 10_000)
SENT = st.one_of(st.none(), st.sampled_from([0, 1, 100, 600, 1000, 2000]))
SEEDS = st.integers(0, 1_000_000)
MOMENTS = st.sampled_from(["before", "after", "torn"])
CRASHES = st.one_of(st.just("kill"), SEEDS)
ERRNOS = st.sampled_from([errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
OPERATIONS = st.sampled_from(
    [
        *("open", "writev", "writev", "fdatasync", "fdatasync", "truncate", "close", "sync_directory"),
        *("rename", "unlink", "copy_range", "file_size"),
    ]
)


class Stories(RuleBasedStateMachine):
    """Clients, time, failures and crashes in any order; each step is checked by the model."""

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        self.place = Path(tempfile.mkdtemp(dir=MEMORY))
        self.small = small_sizes()
        self.small.__enter__()
        self.model = CrashModel(next(machines(self.place)), Random(seed))
        self.crash: Any = "kill"

    def pick(self, number: int) -> Any:
        return self.model.uploads[number % len(self.model.uploads)]

    def has_uploads(self) -> bool:
        return any(each.id for each in self.model.uploads)

    def is_sending(self) -> bool:
        return bool(self.model.sending)

    @rule(length=st.one_of(st.none(), SIZES), partial=st.booleans())
    def create(self, length: int | None, partial: bool) -> None:
        self.model.create(length, partial)

    @rule(size=SIZES, more=st.one_of(st.none(), SIZES), chunked=st.booleans(), check=CHECKS, partial=st.booleans())
    def create_with(self, size: int, more: int | None, chunked: bool, check: Any, partial: bool) -> None:
        self.model.create_with(size, None if more is None else size + more, chunked, check, partial)

    @rule(size=SIZES, more=SIZES, chunked=st.booleans(), check=CHECKS, sent=SENT)
    def create_slowly(self, size: int, more: int, chunked: bool, check: Any, sent: int | None) -> None:
        self.model.create_with(size, size + more, chunked, check, False, sent)

    @precondition(has_uploads)
    @rule(number=PICKS, size=SIZES, chunked=st.booleans(), check=CHECKS, ahead=st.sampled_from([0] * 6 + [-1, 1]))
    def append(self, number: int, size: int, chunked: bool, check: Any, ahead: int) -> None:
        self.model.append(self.pick(number), size, chunked=chunked, check=check, ahead=ahead)

    @precondition(has_uploads)
    @rule(number=PICKS, size=SIZES, chunked=st.booleans(), check=CHECKS, sent=SENT)
    def append_slowly(self, number: int, size: int, chunked: bool, check: Any, sent: int | None) -> None:
        self.model.append(self.pick(number), size, chunked=chunked, check=check, sent=sent)

    @precondition(has_uploads)
    @rule(number=PICKS, chunked=st.booleans(), check=CHECKS)
    def append_the_rest(self, number: int, chunked: bool, check: Any) -> None:
        upload = self.pick(number)
        end = upload.acked + 300 if upload.length is None else upload.length
        self.model.append(upload, max(0, end - upload.acked), chunked=chunked, check=check, length=end)

    @precondition(is_sending)
    @rule(number=PICKS, sent=SENT)
    def feed(self, number: int, sent: int | None) -> None:
        self.model.feed(self.model.sending[number % len(self.model.sending)], sent)

    @precondition(is_sending)
    @rule(number=PICKS)
    def lose(self, number: int) -> None:
        self.model.lose(self.model.sending[number % len(self.model.sending)])

    @precondition(has_uploads)
    @rule(number=PICKS)
    def head(self, number: int) -> None:
        self.model.head(self.pick(number))

    @precondition(has_uploads)
    @rule(number=PICKS)
    def delete(self, number: int) -> None:
        self.model.delete(self.pick(number))

    @precondition(has_uploads)
    @rule(number=PICKS)
    def drop(self, number: int) -> None:
        self.model.drop(self.pick(number))

    @precondition(lambda self: any(each.partial and each.told for each in self.model.uploads))
    @rule(numbers=st.lists(PICKS, min_size=1, max_size=3))
    def concatenate(self, numbers: list[int]) -> None:
        parts = [each for each in self.model.uploads if each.partial and each.told]
        self.model.concatenate([parts[number % len(parts)] for number in numbers])

    @rule(seconds=st.sampled_from([0.1, 0.3, 1.0, 11.0, 31.0]))
    def advance(self, seconds: float) -> None:
        self.model.advance(seconds)

    @rule()
    def tick(self) -> None:
        self.model.tick()

    @rule(late=st.booleans())
    def sweep(self, late: bool) -> None:
        if late:
            self.model.advance(4000.0)
        self.model.sweep()

    @rule(operation=OPERATIONS, number=ERRNOS, after=st.integers(0, 6))
    def fail(self, operation: str, number: int, after: int) -> None:
        self.model.fail(operation, number, after)

    @rule(landed=st.booleans(), times=st.integers(1, 3), after=st.integers(0, 3), full=st.booleans())
    def fail_commit(self, landed: bool, times: int, after: int, full: bool) -> None:
        self.model.fail_commit(landed, times, after, full)

    @rule(step=st.integers(1, 12), moment=MOMENTS, seed=SEEDS, crash=CRASHES)
    def crash_soon(self, step: int, moment: Any, seed: int, crash: Any) -> None:
        self.crash = crash
        self.model.crash_at(step, moment, seed)

    @rule(crash=CRASHES, again=st.one_of(st.none(), st.tuples(st.integers(1, 12), MOMENTS)))
    def crash_now(self, crash: Any, again: Any) -> None:
        self.model.recover(crash, again)

    @rule()
    def restart(self) -> None:
        self.model.restart()

    @invariant()
    def is_found_right_after_a_crash(self) -> None:
        if hasattr(self, "model") and self.model.machine.down:
            self.model.recover(self.crash)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        try:
            self.model.recover(self.crash)
            self.model.finish_all()
        finally:
            self.model.server.bury()
            self.small.__exit__(None, None, None)
            shutil.rmtree(self.place)


@pytest.mark.slow
def test_any_story_with_any_crash() -> None:
    """A stateful model of uploads against the real engine, on a disk that loses, fails and stops."""
    run_state_machine_as_test(
        Stories,
        settings=settings(
            max_examples=5000 if LONG else 60,
            stateful_step_count=60 if LONG else 30,
            derandomize=not LONG,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

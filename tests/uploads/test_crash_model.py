"""The engine crashed at every step of I/O, by a killed process and by a power loss, and found right afterwards.

`RESUMABLE_LONG=1` makes these try far more: more survivals of each crash, more and longer stories.
"""

from __future__ import annotations

import errno
import itertools
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

from resumable.uploads.digest_rules import DigestRules
from tests.uploads.crash_known import small_sizes
from tests.uploads.crash_model import CrashModel
from tests.uploads.fakes import FakeBody
from tests.uploads.machine import Machine, machines

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


def draft_story(model: CrashModel) -> Iterator[None]:
    """The same of the draft, of both protocols at one upload, and of digests."""
    model.draft_create(700, False)  # long, without a length
    yield
    upload = model.uploads[0]
    model.draft_append(upload, 1700, True, sent=800)
    yield
    model.look(upload)  # ends it
    yield
    model.append(upload, 100)  # by tus
    yield
    model.draft_append(upload, 0, False, length=upload.length or 2400)
    yield
    model.draft_append(upload, 2400 - upload.acked, False)  # long: all bytes, and not complete
    yield
    model.head(upload)
    yield
    model.draft_append(upload, 0, True)  # empty
    yield
    model.draft_create(1300, True, announced="right", sent=1000)
    yield
    lost = model.uploads[1]
    model.lose(model.sending[0])
    yield
    model.look(lost)
    yield
    model.append(lost, 1300 - lost.acked)  # tus completes it by its last byte
    yield
    model.draft_create(60, True, chunked=True)
    yield
    model.draft_create(900, True, announced="wrong")  # refused
    yield
    model.create(1200, announced="right")
    yield
    other = model.uploads[4]
    model.draft_append(other, 500, False, chunked=True, check="bad")
    yield
    model.draft_append(other, 500, False, chunked=True)
    yield
    model.draft_append(other, 700, False)  # an upload of tus is complete by that
    yield
    model.draft_create(300, False, length=1000, chunked=True)
    yield
    past = model.uploads[5]
    model.draft_append(past, 1000, True, chunked=True)  # runs past its length: invalid
    yield
    model.draft_create(200, False, length=200)
    yield
    whole = model.uploads[6]
    model.append(whole, 1)  # the last byte, once more
    yield
    model.delete(lost)
    yield
    model.sweep()
    yield


def digesting(machine: Machine, rng: Random) -> CrashModel:
    """A model of servers with `--digest`."""
    return CrashModel(machine, rng, DigestRules("sha-256"))


STORIES = pytest.mark.parametrize(
    "make,tell", [pytest.param(CrashModel, story, id="tus"), pytest.param(digesting, draft_story, id="draft")]
)


def steps(stride: int) -> Iterator[int]:
    """At which steps a story breaks off: at all; a quick run takes every ``stride``-th, others for each way of bodies,
    so that with 2 each step is taken in one of the ways."""
    return itertools.count(1) if LONG else itertools.count(1 + FakeBody.direct * stride // 2, stride)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as path, small_sizes():
        yield Path(path)


def told(model: CrashModel, tell: Any) -> bool:
    """Run the story to its end, or to the crash; whether the end was reached."""
    return all(not model.machine.down for _ in tell(model))


def test_the_story_without_a_crash(directory: Path) -> None:
    model = CrashModel(next(machines(directory)), Random(1))
    assert told(model, story)
    model.check()
    upload, first, second, _, final, other = model.uploads
    assert other.finished and other.acked == 2000
    assert [each.gone for each in (upload, first, second, final)] == ["yes", "yes", "no", "no"]
    assert second.finished and final.finished
    assert final.acked == 2800
    assert final.dropped and final.id not in model.server.names()
    model.server.bury()


def test_the_story_of_the_draft_without_a_crash(directory: Path) -> None:
    model = digesting(next(machines(directory)), Random(1))
    assert told(model, draft_story)
    model.check()
    upload, lost, short, wrong, other, _, whole = model.uploads
    assert [each.acked for each in (upload, short, other, whole)] == [2400, 60, 1200, 200]
    assert all(each.finished for each in (upload, lost, short, other, whole))
    assert not wrong.finished and wrong.acked == 900
    assert [each.gone for each in model.uploads] == ["no", "yes", "no", "no", "no", "yes", "no"]
    model.finish_all()
    model.server.bury()


@pytest.mark.slow
@STORIES
@pytest.mark.parametrize("moment", ["before", "after", "torn"])
def test_a_crash_at_every_step(directory: Path, moment: Any, make: Any, tell: Any) -> None:
    """At each step k = 1..N of the story, before and after its effect, and within a COMMIT; then the process is gone,
    or the power, with several survivals of what was not synced."""
    seeds = range(12 if LONG else 2)
    fresh = machines(directory)
    for step in steps(2):
        machine = next(fresh)
        model = make(machine, Random(step))
        model.crash_at(step, moment, step)
        if told(model, tell):
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
@STORIES
@pytest.mark.parametrize("first", ["kill", 1])
def test_a_second_crash_after_one_at_every_step(directory: Path, first: Any, make: Any, tell: Any) -> None:
    """What a crash has left in a file never counts, however the run after it ends: with an append that has begun and
    written nothing, and with one that has written something."""
    fresh = machines(directory)
    for step in steps(4):
        machine = next(fresh)
        model = make(machine, Random(step))
        model.crash_at(step, "before", step)
        if told(model, tell):
            model.server.bury()
            return
        model.recover(first)
        for sent, second in ((0, "kill"), (600, "kill"), (700, step)):
            for upload in model.uploads:
                if upload.told and upload.gone == "no" and not upload.finished:
                    left = 1000 if upload.length is None else upload.length - upload.acked
                    if upload.draft:
                        model.draft_append(upload, left, True, sent=sent)
                    else:
                        model.append(upload, left, sent=sent)
            model.recover(second)
        model.finish_all()
        model.server.bury()
        shutil.rmtree(machine.catalog_directory.parent)


@pytest.mark.slow
@STORIES
@pytest.mark.parametrize("number,landed", [(errno.EIO, False), (errno.ENOSPC, True)])
def test_a_failure_at_every_step_and_a_power_loss_after_it(
    directory: Path, number: int, landed: bool, make: Any, tell: Any
) -> None:
    """A write, a sync, a rename, a COMMIT, ... that fails makes nothing be acknowledged that a power loss can take."""
    fresh = machines(directory)
    for step in steps(2):
        machine = next(fresh)
        model = make(machine, Random(step))
        model.fail_at(step, number, landed)
        try:
            for _ in tell(model):
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
#: What the draft says of an append's content.
CONTENTS = st.sampled_from(["none"] * 6 + ["good", "bad"])
ANNOUNCED = st.sampled_from(["none"] * 4 + ["right", "right", "wrong"])
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

    @initialize(seed=SEEDS, digest=st.booleans())
    def begin(self, seed: int, digest: bool) -> None:
        self.place = Path(tempfile.mkdtemp(dir=MEMORY))
        self.small = small_sizes()
        self.small.__enter__()
        self.model = (digesting if digest else CrashModel)(next(machines(self.place)), Random(seed))
        self.crash: Any = "kill"

    def pick(self, number: int) -> Any:
        return self.model.uploads[number % len(self.model.uploads)]

    def has_uploads(self) -> bool:
        return any(each.id for each in self.model.uploads)

    def is_sending(self) -> bool:
        return bool(self.model.sending)

    @rule(length=st.one_of(st.none(), SIZES), partial=st.booleans(), announced=ANNOUNCED)
    def create(self, length: int | None, partial: bool, announced: Any) -> None:
        self.model.create(length, partial, announced)

    @rule(size=SIZES, more=st.one_of(st.none(), SIZES), chunked=st.booleans(), check=CHECKS, partial=st.booleans())
    def create_with(self, size: int, more: int | None, chunked: bool, check: Any, partial: bool) -> None:
        self.model.create_with(size, None if more is None else size + more, chunked, check, partial)

    @rule(size=SIZES, more=SIZES, chunked=st.booleans(), check=CHECKS, sent=SENT, announced=ANNOUNCED)
    def create_slowly(self, size: int, more: int, chunked: bool, check: Any, sent: int | None, announced: Any) -> None:
        self.model.create_with(size, size + more, chunked, check, False, sent, announced)

    @rule(
        size=SIZES,
        more=st.one_of(st.none(), SIZES),
        completes=st.booleans(),
        chunked=st.booleans(),
        check=CONTENTS,
        sent=SENT,
        announced=ANNOUNCED,
    )
    def draft_create(self, size: int, more: int | None, completes: bool, **said: Any) -> None:
        length = None if more is None else size + more * (not completes)
        self.model.draft_create(size, completes, length=length, **said)

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

    @precondition(has_uploads)
    @rule(
        number=PICKS,
        size=SIZES,
        completes=st.booleans(),
        chunked=st.booleans(),
        check=CONTENTS,
        ahead=st.sampled_from([0] * 6 + [-1, 1]),
        sent=SENT,
        announced=ANNOUNCED,
    )
    def draft_append(self, number: int, size: int, completes: bool, **said: Any) -> None:
        self.model.draft_append(self.pick(number), size, completes, **said)

    @precondition(has_uploads)
    @rule(number=PICKS, completes=st.booleans(), chunked=st.booleans(), check=CONTENTS, announced=ANNOUNCED)
    def draft_append_the_rest(self, number: int, completes: bool, **said: Any) -> None:
        upload = self.pick(number)
        end = upload.acked + 300 if upload.length is None else upload.length
        self.model.draft_append(upload, max(0, end - upload.acked), completes, length=end, **said)

    @precondition(has_uploads)
    @rule(number=PICKS, chunked=st.booleans(), announced=ANNOUNCED)
    def draft_complete(self, number: int, chunked: bool, announced: Any) -> None:
        self.model.draft_append(self.pick(number), 0, True, chunked=chunked, announced=announced)

    @precondition(has_uploads)
    @rule(number=PICKS)
    def look(self, number: int) -> None:
        self.model.look(self.pick(number))

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

"""Holds: one writer at a time, and a newer request never waits long for a dead one.

Each test is a row of the table of holds: the docstring quotes it.
"""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from resumable.protocol.errors import Gone, Held, OffsetMismatch
from resumable.uploads.holds import SILENCE, LocalHolds
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, UPLOADS, Server, pattern

DATA = pattern(LONG + 1000)


def receiving(server: Server, upload_id: str, offset: int = 0, length: int = 10 * LONG, data: bytes = DATA):
    """A PATCH under way that has received ``data``."""
    body = FakeBody(length)
    answer = server.patch(upload_id, offset, body)
    body.arrive(data)
    server.pump()
    return answer, body


# PATCH that can't match


@pytest.mark.parametrize("offset", [0, 1, LONG, LONG + 999, LONG + 1001])
def test_a_patch_that_cannot_match_is_refused_at_once_and_nobody_is_evicted(server, offset):
    """PATCH that can't match (its offset is not what the holder started from plus what it has received): 409 at
    once, nobody evicted."""
    upload_id = server.create(1 << 30).value.id
    first, body = receiving(server, upload_id)
    second = server.patch(upload_id, offset, b"x")
    assert isinstance(second.error, OffsetMismatch)
    assert not first.done and not body.discarded
    assert server.context.holds.takeovers == 0


def test_a_patch_that_cannot_match_does_not_disturb_a_silent_holder_either(server):
    """409 at once, nobody evicted: silence makes no difference."""
    upload_id = server.create(1 << 30).value.id
    first, body = receiving(server, upload_id)
    server.advance(60)
    assert server.patch(upload_id, 7, b"x").error.offset == 0  # what is committed
    assert not first.done and not body.discarded


# two PATCHes at the same offset


def test_of_two_patches_at_one_offset_the_first_keeps_the_hold(server):
    """Two PATCHes at the same offset, no byte received yet by the first: the first keeps the hold, the second gets
    409 when the first has moved."""
    upload_id = server.create(100).value.id
    body = FakeBody(100)
    first = server.patch(upload_id, 0, body)
    second = server.patch(upload_id, 0, b"y" * 100)
    assert not second.done
    server.advance(0.1)
    body.arrive(b"x" * 50)
    server.advance(SILENCE)
    assert isinstance(second.error, OffsetMismatch)
    body.arrive(b"x" * 50)
    server.pump()
    assert first.value.finished
    assert server.content(upload_id) == b"x" * 100


def test_the_second_patch_gets_409_when_the_first_is_done(server):
    """... the second gets 409 when the first has moved: a first that ended is told at once."""
    upload_id = server.create(100).value.id
    body = FakeBody(50)
    first = server.patch(upload_id, 0, body)
    second = server.patch(upload_id, 0, b"y" * 100)
    body.arrive(b"x" * 50)
    server.pump()
    assert first.value.offset == 50
    assert second.error.offset == 50


def test_the_second_patch_takes_over_from_a_silent_first(server):
    """..., else takes over from a silent one."""
    upload_id = server.create(100).value.id
    body = FakeBody(100)
    first = server.patch(upload_id, 0, body)
    second = server.patch(upload_id, 0, b"y" * 100)
    server.advance(0.24)
    assert not first.done and not second.done
    server.advance(0.26)
    assert isinstance(first.error, Held)
    assert body.discarded
    assert second.value.finished
    assert server.content(upload_id) == b"y" * 100


def test_eight_patches_racing_at_one_offset_one_wins_and_nothing_interleaves(server):
    """Eight PATCHes racing at one offset with different bytes: one wins, nothing interleaves."""
    upload_id = server.create(LONG).value.id
    bodies = [FakeBody(LONG) for _ in range(8)]
    answers = [server.patch(upload_id, 0, body) for body in bodies]
    for start in range(0, LONG, 1 << 13):
        for number, body in enumerate(bodies):
            body.arrive(bytes([number]) * min(1 << 13, LONG - start))
        server.turn()
    server.advance(5)
    assert [answer.status for answer in answers].count(409) == 7
    winner = next(number for number, answer in enumerate(answers) if answer.error is None)
    assert server.content(upload_id) == bytes([winner]) * LONG


def test_a_patch_where_a_silent_holder_stands_goes_on_from_there(server):
    """HEAD or PATCH while the holder is silent: the holder is evicted, its bytes committed. No HEAD is needed in
    between, if the client knows what it has sent."""
    upload_id = server.create(len(DATA) + 10).value.id
    first, _ = receiving(server, upload_id, length=len(DATA) + 10)
    second = server.patch(upload_id, len(DATA), b"y" * 10)
    server.advance(0.5)
    assert isinstance(first.error, Held)
    assert second.value.finished
    assert server.content(upload_id) == DATA + b"y" * 10


# HEAD


def test_head_of_a_live_append_commits_and_evicts_nobody(server):
    """HEAD while a live holder is receiving (a byte within the last 250 ms): commits, answers the committed offset,
    evicts nobody: polling never kills an upload."""
    upload_id = server.create(10 * LONG).value.id
    answer, body = receiving(server, upload_id)
    sent = len(DATA)
    for _ in range(20):
        server.advance(0.2)
        assert server.head(upload_id).value.offset == sent
        assert server.row(upload_id).offset == sent
        body.arrive(b"more")
        sent += 4
    assert not answer.done and not body.discarded
    assert server.context.holds.takeovers == 0
    body.arrive(bytes(10 * LONG - sent))
    server.pump()
    assert answer.value.finished


def test_head_of_a_live_small_append_commits_it_too(server):
    """HEAD while a live holder is receiving: commits, also what is still gathered in memory."""
    upload_id = server.create(100).value.id
    answer, body = receiving(server, upload_id, length=100, data=b"x" * 60)
    assert server.head(upload_id).value.offset == 60
    body.arrive(b"x" * 40)
    server.pump()
    assert answer.value.finished
    assert server.content(upload_id) == b"x" * 100


@pytest.mark.parametrize("size", [60, len(DATA)])
def test_head_of_a_silent_append_evicts_it_and_keeps_its_bytes(server, size):
    """HEAD while the holder is silent or half-open: the holder is evicted: its bytes committed, its request answered
    423 and closed; within 0.5 s."""
    upload_id = server.create(1 << 20).value.id
    answer, body = receiving(server, upload_id, length=1 << 20, data=DATA[:size])
    server.advance(0.25)
    head = server.head(upload_id)
    assert head.value.offset == size
    assert isinstance(answer.error, Held)
    assert answer.error.headers["Retry-After"]
    assert body.discarded
    assert server.content(upload_id) == DATA[:size]
    assert not server.context.holds.held(upload_id)
    assert server.context.holds.takeovers == 1


def test_a_client_that_comes_back_has_its_offset_within_half_a_second(server):
    """... within 0.5 s: of the clock, from the last byte of the dead connection to the answer."""
    upload_id = server.create(1 << 20).value.id
    receiving(server, upload_id, length=1 << 20)
    died = server.clock.seconds()
    head = server.head(upload_id)  # at once: the dead one still counts as live
    assert head.value.offset == len(DATA)
    patch = server.patch(upload_id, len(DATA), b"z")
    while not patch.done:
        server.advance(0.01)
    assert patch.value.offset == len(DATA) + 1
    assert 0.25 <= server.clock.seconds() - died <= 0.5


def test_head_that_waits_for_a_commit_sees_what_came_in_until_the_connection_dropped(server):
    """What arrived is kept: when a connection drops, the next HEAD reports it, also if the drop comes while that HEAD
    waits for a commit."""
    upload_id = server.create(1 << 20).value.id
    answer, body = receiving(server, upload_id, length=1 << 20)
    heads = [server.uploads.inspect(upload_id), server.uploads.inspect(upload_id)]
    results: list[object] = []
    for head in heads:
        head.addBoth(results.append)
    body.arrive(b"tail")
    body.lose()
    server.pump()
    assert answer.done
    assert [upload.offset for upload in results] == [len(DATA) + 4] * 2


# what is not silence


def test_a_pause_of_ours_is_not_silence(server):
    """Time that we pause the client is not its silence: a slow disk gets nobody evicted."""
    upload_id = server.create(1 << 30).value.id
    body = FakeBody(1 << 30)
    answer = server.patch(upload_id, 0, body)
    body.arrive(bytes(9 << 20))  # more than is queued for one append, and no thread has written yet
    assert body.events[-1] == "pause"
    server.clock.rightNow += 60  # the disk takes a minute for it
    heads: list[object] = []
    server.uploads.inspect(upload_id).addBoth(heads.append)
    server.pump()
    assert heads[0].offset == 9 << 20
    assert not answer.done and not body.discarded
    assert body.events[-1] == "resume"


def test_after_a_pause_the_client_has_a_quarter_of_a_second_again(server):
    """..., and its silence begins when it is free to send again."""
    upload_id = server.create(1 << 30).value.id
    body = FakeBody(1 << 30)
    answer = server.patch(upload_id, 0, body)
    body.arrive(bytes(9 << 20))
    server.clock.rightNow += 60
    server.pump()
    assert body.events[-1] == "resume"
    server.advance(0.2)
    assert server.head(upload_id).value.offset == 9 << 20
    assert not answer.done and not body.discarded
    server.advance(0.1)
    server.head(upload_id)
    assert isinstance(answer.error, Held)


@pytest.mark.parametrize("length", [100, LONG])
def test_the_time_before_we_want_the_body_is_not_silence(server, length):
    """A catalog that is slow to open the append is not the client's silence."""
    upload_id = server.create(length).value.id
    server.age()
    body = FakeBody(length)
    append = server.uploads.append(upload_id, _at(0), body)
    server.clock.rightNow += 5  # the catalog's thread has not come to it yet
    heads: list[object] = []
    server.uploads.inspect(upload_id).addBoth(heads.append)
    server.pump()
    assert heads[0].offset == 0
    body.arrive(bytes(length))
    server.pump()
    done: list[object] = []
    append.addBoth(done.append)
    assert done[0].finished


def _at(offset: int):
    from resumable.protocol.tus import Append

    return Append(offset, None, None, False)


def test_the_last_commit_is_not_silence(server):
    """Time that we spend on its last commit is not its silence: HEAD then waits for that."""
    upload_id = server.create(len(DATA)).value.id
    body = FakeBody(len(DATA))
    answer = server.patch(upload_id, 0, body)
    body.arrive(DATA)
    server.clock.rightNow += 60
    heads: list[object] = []
    server.uploads.inspect(upload_id).addBoth(heads.append)
    server.pump()
    assert answer.value.finished
    assert heads[0].offset == len(DATA)
    assert server.context.holds.takeovers == 0


# DELETE, and the hand-over


@pytest.mark.parametrize("silent", [False, True])
def test_delete_always_evicts(server, silent):
    """DELETE: always evicts."""
    upload_id = server.create(1 << 20).value.id
    answer, body = receiving(server, upload_id, length=1 << 20)
    if silent:
        server.advance(5)
    deleted = server.delete(upload_id)
    assert deleted.value is None
    assert isinstance(answer.error, (Held, Gone))
    assert body.discarded
    assert server.content(upload_id) is None
    assert isinstance(server.head(upload_id).error, Gone)


def test_delete_evicts_those_who_wait_as_well(server):
    """DELETE: always evicts; a PATCH that waited for the hold leaves no file behind."""
    upload_id = server.create(100).value.id
    first = server.patch(upload_id, 0, FakeBody(100))
    second = server.patch(upload_id, 0, FakeBody(100))
    assert server.delete(upload_id).done
    server.advance(1)
    assert first.done and second.done
    assert server.names() == set()


def test_the_hold_changes_hands_only_after_the_last_write_is_confirmed(server):
    """The hold changes hands only after the old writer has confirmed its last write; every new append first truncates
    the file to the committed offset."""
    upload_id = server.create(1 << 20).value.id
    first, _ = receiving(server, upload_id, length=1 << 20)
    server.advance(0.3)
    server.machine.trace.clear()
    newer = FakeBody.whole(b"y" * LONG)
    second = server.uploads.append(upload_id, _at(len(DATA)), newer)
    while not first.done:
        assert "deliver" not in newer.events
        server.turn()
    server.pump()
    steps = server.machine.trace
    # the old one's sync, its COMMIT and its close come before anything of the new one
    assert steps.index("fdatasync") < steps.index("COMMIT") < steps.index("close") < steps.index("open")
    results: list[object] = []
    second.addBoth(results.append)
    assert results[0].offset == len(DATA) + LONG
    assert server.content(upload_id) == DATA + b"y" * LONG


def test_a_new_append_truncates_what_was_never_committed(server):
    """Every new append and every rollback first truncates the file to the committed offset."""
    upload_id = server.upload(DATA, length=1 << 20)
    fd = server.disk.open(f"{UPLOADS}/{upload_id}")
    server.disk.writev(fd, [b"left over"], len(DATA))
    server.disk.close(fd)
    assert server.patch(upload_id, len(DATA), b"ok").value.offset == len(DATA) + 2
    assert server.content(upload_id) == DATA + b"ok"


def test_an_append_that_holds_keeps_the_hold_while_its_upload_is_created(serve):
    """The one that creates with a body has the hold: nobody expires it under its feet."""
    from resumable.uploads.limits import UploadLimits

    server = serve(limits=UploadLimits(expire_after=60))
    body = FakeBody(1 << 20)
    answer = server.create(1 << 20, body, checksum=_any_checksum())
    body.arrive(DATA)
    server.advance(300)
    server.sweep()
    (upload_id,) = server.names()
    assert server.row(upload_id).gone is None
    assert not answer.done


def _any_checksum():
    from tests.uploads.harness import sha1

    return sha1(b"something")


# LocalHolds by itself


class Holder:
    def __init__(self, clock: Clock, position: int = 0) -> None:
        self.position = position
        self.heard = clock.seconds()
        self.evicted: Deferred[None] = Deferred()

    async def evict(self, reason=None) -> None:
        await self.evicted

    async def settle(self) -> None:
        pass


class Ticking(Clock):
    """A clock that goes on whenever it is asked, as real ones do."""

    step = 0.0

    def seconds(self) -> float:
        self.rightNow += self.step
        return super().seconds()

    def callLater(self, when, what, *args, **kwargs):
        assert when >= 0, "as the reactor demands"
        return super().callLater(when, what, *args, **kwargs)


def test_a_holder_that_falls_silent_between_two_looks_at_the_clock_is_waited_for_no_longer():
    """Waiting for a live holder never asks the reactor for a time that is past."""
    clock = Ticking()
    holds = LocalHolds(clock)
    first, second = Holder(clock), Holder(clock)
    Deferred.fromCoroutine(holds.take("u", first, 0))
    clock.step = SILENCE * 0.6
    outcome: list[object] = []
    Deferred.fromCoroutine(holds.take("u", second, 0)).addBoth(outcome.append)
    clock.step = 0.0
    clock.advance(1)
    assert outcome == []  # it waits for the eviction
    holds.release("u", first)
    first.evicted.callback(None)
    assert outcome == [None]
    assert holds.held("u")


def test_who_does_not_have_the_hold_cannot_give_it_back():
    clock = Clock()
    holds = LocalHolds(clock)
    first, other = Holder(clock), Holder(clock)
    Deferred.fromCoroutine(holds.take("u", first, 0))
    holds.release("u", other)
    assert holds.held("u")
    holds.release("u", first)
    assert not holds.held("u")

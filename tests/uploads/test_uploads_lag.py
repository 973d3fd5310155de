"""`--max-lag`: clients wait while the remotes lag behind, and are sent away when that takes too long."""

from __future__ import annotations

import pytest

from resumable.protocol.errors import Stopping, Unavailable
from resumable.uploads.append import Lagging
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import LONG, pattern

PAUSE = 30.0
DATA = pattern(4 * LONG)


@pytest.fixture
def remote():
    return FakeReplication()


@pytest.fixture
def server(serve, remote):
    return serve(replication=remote, limits=UploadLimits(max_pause=PAUSE, retry_after=7))


def sending(server, size=LONG):
    """An append under way that has sent so much of DATA."""
    upload_id = server.create(len(DATA)).value.id
    body = FakeBody(len(DATA), DATA[:size])
    return upload_id, server.patch(upload_id, 0, body), body


def quiet(server):
    return server.context.replication.waits == 0 and not server.clock.getDelayedCalls()


# creations


@pytest.mark.parametrize("kind", ["none", "zero", "empty", "body", "partial", "final"])
def test_creations_over_the_bound_get_503_before_the_body(server, remote, kind):
    part = server.upload(b"part", partial=True)
    before = server.names()
    remote.lagging = True
    body = FakeBody(10)
    answer = {
        "none": lambda: server.create(10),
        "zero": lambda: server.create(0),
        "empty": lambda: server.create(10, FakeBody.chunked(b"")),
        "body": lambda: server.create(10, body),
        "partial": lambda: server.create(10, partial=True),
        "final": lambda: server.concat(part),
    }[kind]()
    assert isinstance(answer.error, Unavailable) and answer.cut is None
    assert answer.error.headers == {"Retry-After": "7"}
    assert "deliver" not in body.events
    assert server.names() == before and quiet(server)
    remote.catch_up()
    assert server.create(10).error is None


# appends


def test_an_append_under_way_is_paused_until_the_lag_is_small_again(server, remote):
    upload_id, answer, body = sending(server)
    assert body.events == ["deliver"]
    remote.lagging = True
    body.arrive(DATA[LONG : 2 * LONG])
    assert body.events[-1] == "pause"
    body.arrive(DATA[2 * LONG :])
    server.advance(PAUSE - 1)
    assert not answer.done and server.row(upload_id).offset <= 2 * LONG
    remote.catch_up()
    server.pump()
    assert body.events[-1] == "resume"
    assert answer.value.offset == len(DATA) and server.content(upload_id) == DATA
    assert quiet(server)


@pytest.mark.parametrize("size", [10, LONG])
def test_an_append_that_starts_then_waits_likewise(server, remote, size):
    upload_id = server.create(size).value.id
    remote.lagging = True
    body = FakeBody.whole(pattern(size))
    answer = server.patch(upload_id, 0, body)
    assert body.events == ["deliver", "pause"] and not answer.done
    remote.catch_up()
    server.pump()
    assert answer.value.offset == size and quiet(server)


def test_the_lag_may_be_too_large_again_and_again(server, remote):
    _, answer, body = sending(server)
    for start in range(LONG, 4 * LONG, LONG):
        remote.lagging = True
        body.arrive(DATA[start : start + LONG])
        server.advance(PAUSE - 1)
        remote.catch_up()
        server.pump()
    assert answer.value.offset == len(DATA) and quiet(server)


def test_a_pause_that_takes_too_long_commits_answers_503_and_closes(server, remote):
    upload_id, answer, body = sending(server)
    remote.lagging = True
    body.arrive(b"")
    body.arrive(DATA[LONG : 2 * LONG])
    server.advance(PAUSE - 0.1)
    assert not answer.done
    server.advance(0.1)
    assert isinstance(answer.error, Lagging) and answer.error.headers == {"Retry-After": "7"}
    assert body.discarded
    assert server.head(upload_id).value.offset >= LONG
    assert not server.context.holds.held(upload_id) and quiet(server)
    remote.catch_up()
    offset = server.row(upload_id).offset
    assert server.patch(upload_id, offset, DATA[offset:]).value.offset == len(DATA)
    assert server.content(upload_id) == DATA


def test_a_creation_under_way_is_paused_and_can_be_gone_on_with(server, remote):
    body = FakeBody(len(DATA), DATA[:LONG])
    answer = server.create(len(DATA), body)
    remote.lagging = True
    body.arrive(DATA[LONG : 2 * LONG])
    server.advance(PAUSE)
    assert isinstance(answer.error, Lagging)
    assert answer.cut is not None and answer.cut.offset == 2 * LONG


def test_a_body_that_is_here_to_its_last_byte_is_not_paused(server, remote):
    """The last bytes may make the lag too large; there is nobody to pause then."""
    upload_id, answer, body = sending(server)
    server.tick()
    remote.lagging = True
    body.arrive(DATA[LONG:])
    server.pump()
    assert answer.value.offset == len(DATA) and server.content(upload_id) == DATA
    assert quiet(server)


def test_an_append_without_bytes_is_not_paused(server, remote):
    upload_id = server.upload(b"12345", length=10)
    remote.lagging = True
    assert server.patch(upload_id, 5, b"").value.offset == 5


def test_the_last_byte_again_is_not_paused(serve):
    """It adds nothing to the lag."""
    remote = FakeReplication(acknowledges=True)
    server = serve(replication=remote)
    upload_id = server.create(10).value.id
    server.patch(upload_id, 0, b"0123456789")
    remote.lagging = True
    answer = server.patch(upload_id, 9, b"9")
    server.store(upload_id)
    assert answer.value.offset == 10


# nobody else is disturbed


def test_a_paused_client_is_not_silent(server, remote):
    """Time that we pause a client counts for none of our guards: HEAD commits and evicts nobody."""
    upload_id, answer, body = sending(server)
    remote.lagging = True
    body.arrive(DATA[LONG : 2 * LONG])
    server.advance(PAUSE / 2)
    assert server.head(upload_id).value.offset == 2 * LONG
    assert not answer.done and server.context.holds.takeovers == 0
    remote.catch_up()
    server.pump()
    server.advance(0.2)
    assert server.head(upload_id).error is None and server.context.holds.takeovers == 0, "it may send again from now on"


def test_head_and_delete_are_answered(server, remote):
    other = server.upload(b"other")
    upload_id, answer, body = sending(server)
    remote.lagging = True
    body.arrive(DATA[LONG : 2 * LONG])
    assert server.head(other).value.offset == 5
    assert server.delete(other).error is None
    assert server.delete(upload_id).error is None
    assert answer.status == 423 or answer.status == 410
    assert quiet(server)


def test_a_client_that_goes_while_it_is_paused_leaves_nothing_behind(server, remote):
    upload_id, _, body = sending(server)
    remote.lagging = True
    body.arrive(DATA[LONG : 2 * LONG])
    body.lose()
    server.pump()
    assert server.head(upload_id).value.offset == 2 * LONG
    assert quiet(server)


def test_a_disk_that_fails_while_a_client_is_paused_is_told_at_once(server, remote):
    upload_id, answer, body = sending(server)
    remote.lagging = True
    server.disk.fail_next("writev", 28)
    body.arrive(DATA[LONG : 2 * LONG])
    server.pump()
    assert answer.status == 507 and body.discarded and quiet(server)
    assert server.row(upload_id).offset <= LONG


def test_a_stop_does_not_wait_for_the_lag(server, remote):
    upload_id, answer, body = sending(server)
    remote.lagging = True
    body.arrive(DATA[LONG : 2 * LONG])
    assert server.ask(server.uploads.stop()).done
    assert isinstance(answer.error, Stopping)
    assert server.row(upload_id).offset == 2 * LONG
    assert quiet(server)

"""`--ack remote`: nobody hears that an upload is complete before it is stored. Each test is a row of the decisions."""

from __future__ import annotations

import errno

import pytest
from twisted.internet.defer import Deferred

from resumable.model.upload import ReplicaState
from resumable.protocol import tus
from resumable.protocol.errors import (
    BadRequest,
    ChecksumMismatch,
    Gone,
    OffsetMismatch,
    Stopping,
    TooLarge,
    Unavailable,
)
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import LONG, pattern, sha1

pytestmark = pytest.mark.usefixtures("way")

TIMEOUT = 20.0
DATA = b"0123456789"


@pytest.fixture
def remote():
    return FakeReplication(acknowledges=True)


@pytest.fixture
def server(serve, remote):
    return serve(replication=remote, limits=UploadLimits(ack_timeout=TIMEOUT, expire_after=3600.0, retry_after=7))


def withheld(server, data=DATA):
    """An upload that has all its bytes and isn't stored; its client was told 503."""
    upload_id = server.create(len(data)).value.id
    answer = server.patch(upload_id, 0, data)
    server.advance(TIMEOUT)
    assert answer.status == 503
    return upload_id


def patched(data):
    """What `Uploads.append` is given for a PATCH at 0."""
    return tus.Append(0, None, None, False), FakeBody.whole(data)


def quiet(server):
    """Nothing is left of any wait."""
    return server.context.replication.waits == 0 and not server.clock.getDelayedCalls()


# the request that completes the upload


@pytest.mark.parametrize("size", [1, 10, LONG])
def test_the_request_that_completes_an_upload_is_answered_when_it_is_stored(server, size):
    data = pattern(size)
    upload_id = server.create(size).value.id
    answer = server.patch(upload_id, 0, data)
    assert not answer.done
    server.advance(TIMEOUT - 1)
    assert not answer.done
    server.store(upload_id)
    assert answer.value.offset == size and answer.value.stored_at is not None
    assert server.head(upload_id).value.offset == size
    assert quiet(server)


def test_an_upload_that_is_stored_before_anybody_waits_is_answered_at_once(server, remote):
    upload_id = server.create(10).value.id
    committed = remote.committed

    def store_at_once(upload):
        committed(upload)
        if upload.finished:
            for replica in server.context.replication.chosen(upload):
                server.catalog.replicas.store(replica, {}, 1.0)

    remote.committed = store_at_once
    assert server.patch(upload_id, 0, DATA).value.offset == 10
    assert quiet(server)


def test_a_wake_up_between_the_look_and_the_wait_is_not_lost(server, remote, monkeypatch):
    """The upload becomes stored when the waiting request has read that it isn't."""
    get = server.catalog.get

    async def look(upload_id):
        row = await get(upload_id)
        if row.finished and row.stored_at is None:
            for replica in await server.catalog.replicas.of(upload_id):
                await server.catalog.replicas.store(replica, {}, 1.0)
            remote.stored(upload_id)
        return row

    monkeypatch.setattr(server.catalog, "get", lambda upload_id: Deferred.fromCoroutine(look(upload_id)))
    upload_id = server.create(10).value.id
    assert server.patch(upload_id, 0, DATA).value.offset == 10
    assert quiet(server)


def test_what_is_not_stored_in_time_is_503_with_retry_after(server):
    upload_id = server.create(10).value.id
    answer = server.patch(upload_id, 0, DATA)
    server.advance(TIMEOUT - 0.1)
    assert not answer.done
    server.advance(0.1)
    assert isinstance(answer.error, Unavailable)
    assert answer.error.headers == {"Retry-After": "7"}
    assert server.row(upload_id).finished, "it is durable and finished, and the server goes on by itself"
    assert quiet(server)


def test_an_append_that_does_not_complete_the_upload_waits_for_nothing(server):
    upload_id = server.create(10).value.id
    assert server.patch(upload_id, 0, b"01234").value.offset == 5
    assert server.patch(upload_id, 5, b"5678").value.offset == 9
    assert server.head(upload_id).value.offset == 9


def test_the_hold_is_released_before_the_wait(server):
    """Several may ask, and wait, at the same time; no HEAD or PATCH evicts or waits for another."""
    upload_id = server.create(10).value.id
    first = server.patch(upload_id, 0, DATA)
    assert not server.context.holds.held(upload_id)
    assert server.head(upload_id).value.offset == 9
    second = server.patch(upload_id, 9, b"9")
    assert not first.done and not second.done and not server.context.holds.held(upload_id)
    server.store(upload_id)
    assert first.value.offset == second.value.offset == 10
    assert quiet(server)


def test_without_the_option_nothing_is_withheld(serve):
    server = serve(replication=FakeReplication())
    upload_id = server.upload(DATA)
    assert server.row(upload_id).required == 1
    assert server.head(upload_id).value.offset == 10


def test_best_effort_remotes_alone_withhold_nothing(serve):
    server = serve(replication=FakeReplication((), ("best",), acknowledges=True))
    upload_id = server.upload(DATA)
    assert server.row(upload_id).required == 0
    assert server.head(upload_id).value.offset == 10


def test_every_required_remote_counts_and_no_other(serve):
    server = serve(replication=FakeReplication(("a", "b"), ("best",), acknowledges=True))
    upload_id = server.create(10).value.id
    answer = server.patch(upload_id, 0, DATA)
    server.store(upload_id, "a")
    server.store(upload_id, "best")
    assert not answer.done and server.head(upload_id).value.offset == 9
    server.store(upload_id, "b")
    assert answer.value.offset == 10


def test_partials_are_not_withheld(server):
    """Partials are not replicated, their final is."""
    assert server.create(10, FakeBody.whole(DATA), partial=True).value.offset == 10
    upload_id = server.upload(DATA, partial=True)
    assert server.head(upload_id).value.offset == 10


# what the client sees meanwhile


def test_until_it_is_stored_the_reported_offset_stays_at_length_minus_one(server):
    upload_id = withheld(server)
    seen = server.head(upload_id).value
    assert (seen.offset, seen.length) == (9, 10)
    assert server.context.withheld(seen)
    for wrong in (0, 8, 10, 11):
        answer = server.patch(upload_id, wrong, b"")
        assert isinstance(answer.error, OffsetMismatch) and answer.error.offset == 9
    server.store(upload_id)
    assert server.head(upload_id).value.offset == 10
    assert server.patch(upload_id, 10, b"").value.offset == 10
    assert server.patch(upload_id, 9, b"9").error.offset == 10


def test_no_upload_expires_and_no_expiry_while_it_is_withheld(server):
    upload_id = withheld(server)
    assert server.context.expires_at(server.head(upload_id).value) is None
    server.advance(7200.0)
    server.sweep()
    assert server.head(upload_id).value.offset == 9


def test_it_stays_withheld_through_a_restart(serve, machine, server, remote):
    upload_id = withheld(server)
    server.bury()
    server = serve(machine.after_kill(), replication=remote)
    assert server.head(upload_id).value.offset == 9
    server.store(upload_id)
    assert server.head(upload_id).value.offset == 10


# the last byte again


def test_the_last_byte_again_waits_again(server):
    upload_id = withheld(server)
    late = server.patch(upload_id, 9, b"9")
    server.advance(TIMEOUT)
    assert late.status == 503
    again = server.patch(upload_id, 9, FakeBody.chunked(b"9"))
    server.advance(TIMEOUT / 2)
    assert not again.done
    server.store(upload_id)
    assert again.value.offset == 10
    assert server.content(upload_id) == DATA
    assert quiet(server)


@pytest.mark.parametrize("body", [FakeBody.whole, FakeBody.chunked])
def test_a_different_byte_is_a_409(server, body):
    """(a different byte: 409)"""
    upload_id = withheld(server)
    answer = server.patch(upload_id, 9, body(b"x"))
    assert isinstance(answer.error, OffsetMismatch)
    assert (answer.error.offset, answer.error.headers) == (9, {"Upload-Offset": "9"})
    assert server.content(upload_id) == DATA
    assert quiet(server)


def test_an_empty_append_there_is_answered_at_once(server):
    upload_id = withheld(server)
    assert server.patch(upload_id, 9, b"").value.offset == 9
    assert server.patch(upload_id, 9, FakeBody.chunked(b"")).value.offset == 9


@pytest.mark.parametrize("body", [FakeBody.whole, FakeBody.chunked])
def test_more_than_the_last_byte_is_a_413(server, body):
    upload_id = withheld(server)
    answer = server.patch(upload_id, 9, body(b"9x"))
    assert isinstance(answer.error, TooLarge) and answer.error.offset == 9


def test_a_body_without_an_end_is_told_so_at_once(server):
    upload_id = withheld(server)
    body = FakeBody(None, b"9")
    answer = server.patch(upload_id, 9, body)
    assert not answer.done
    body.arrive(b"0")
    server.pump()
    assert answer.status == 413 and body.discarded


def test_the_last_byte_obeys_the_other_rules(server):
    upload_id = withheld(server)
    assert isinstance(server.patch(upload_id, 9, b"9", checksum=sha1(b"8")).error, ChecksumMismatch)
    assert isinstance(server.patch(upload_id, 9, b"9", length=11).error, BadRequest)
    answer = server.patch(upload_id, 9, b"9", checksum=sha1(b"9"), length=10)
    server.store(upload_id)
    assert answer.value.offset == 10


def test_a_last_byte_that_is_cut_off_changes_nothing(server):
    upload_id = withheld(server)
    body = FakeBody(None, b"9")
    server.patch(upload_id, 9, body)
    body.lose()
    server.pump()
    assert server.head(upload_id).value.offset == 9
    assert not server.context.holds.held(upload_id) and quiet(server)


def test_the_last_byte_needs_no_space_and_no_budget(serve, remote):
    """Nothing is written: neither a full disk nor short memory keeps a client from asking."""
    server = serve(replication=remote, limits=UploadLimits(ack_timeout=TIMEOUT), reserve=1, budget=0)
    server.context.space.room = 100.0
    upload_id = withheld(server)
    server.context.space.room = 0.0
    answer = server.patch(upload_id, 9, FakeBody.chunked(b"9"))
    server.store(upload_id)
    assert answer.value.offset == 10


def test_a_disk_that_can_not_be_read_is_503(server):
    upload_id = withheld(server)
    server.disk.fail_next("read", errno.EIO)
    assert server.patch(upload_id, 9, b"9").status == 503
    assert server.row(upload_id).gone is None


def test_a_silent_last_byte_is_taken_over_from(server):
    upload_id = withheld(server)
    silent = server.patch(upload_id, 9, FakeBody(1))
    server.advance(0.3)
    again = server.patch(upload_id, 9, b"9")
    assert silent.status == 423 and not again.done
    server.store(upload_id)
    assert again.value.offset == 10


# creations


def test_a_creation_with_all_the_bytes_waits(server):
    answer = server.create(10, FakeBody.whole(DATA))
    assert not answer.done
    (upload_id,) = server.names()
    server.store(upload_id)
    assert answer.value.offset == 10


def test_a_creation_with_all_the_bytes_that_is_not_stored_in_time_is_made(server):
    """Creation-with-upload answers 201 + Location with that offset."""
    answer = server.create(10, FakeBody.whole(DATA))
    server.advance(TIMEOUT)
    assert answer.value.offset == 9
    assert server.head(answer.value.id).value.offset == 9


@pytest.mark.parametrize("body", [None, FakeBody.chunked])
def test_a_zero_length_upload_waits(server, body):
    """A zero-length upload waits for finishing, else 503 with Location."""
    answer = server.create(0, body and body(b""))
    assert not answer.done
    (upload_id,) = server.names()
    server.store(upload_id)
    assert (answer.value.offset, answer.value.id) == (0, upload_id)

    late = server.create(0, body and body(b""))
    server.advance(TIMEOUT)
    assert late.status == 503 and late.cut is not None and late.cut.offset == 0
    asked = server.patch(late.cut.id, 0, b"")
    assert not asked.done
    server.store(late.cut.id)
    assert asked.value.offset == 0
    assert quiet(server)


# finals


def test_a_final_shows_no_offset_before_it_is_stored(server):
    """What shows it is `withheld`: HTTP leaves the field out. Its POST is answered when it is stored."""
    part = server.create(10, FakeBody.whole(DATA), partial=True).value.id
    answer = server.concat(part)
    (final,) = server.names() - {part}
    assert not answer.done
    seen = server.head(final).value
    assert seen.finished and server.context.withheld(seen) and seen.offset == 9
    server.store(final)
    assert answer.value.offset == 10
    seen = server.head(final).value
    assert seen.offset == 10 and not server.context.withheld(seen)


# how else a wait may end


def test_an_upload_that_ends_meanwhile_is_410(server):
    upload_id = server.create(10).value.id
    answer = server.patch(upload_id, 0, DATA)
    assert server.delete(upload_id).error is None
    assert isinstance(answer.error, Gone)
    assert quiet(server)
    assert server.replicas(upload_id)["far"].state is ReplicaState.ENDING


def test_a_creation_that_ends_meanwhile_is_410(server):
    answer = server.create(10, FakeBody.whole(DATA))
    (upload_id,) = server.names()
    server.delete(upload_id)
    assert isinstance(answer.error, Gone)


def test_stopping_ends_the_wait_with_503(server):
    upload_id = server.create(10).value.id
    waiting = server.patch(upload_id, 0, DATA)
    receiving = server.patch(server.create(10).value.id, 0, FakeBody(10))
    created = server.create(0)
    stopping = server.ask(server.uploads.stop())
    assert stopping.done
    assert [type(each.error) for each in (waiting, receiving, created)] == [Stopping] * 3
    assert created.cut is not None
    assert server.head(upload_id).value.offset == 9, "HEAD is answered while the server stops"
    assert quiet(server)


def test_who_completes_an_upload_while_the_server_stops_does_not_wait(server):
    upload_id = server.create(10).value.id
    answers = []
    server.uploads.append(upload_id, *patched(DATA)).addErrback(lambda failure: answers.append(failure.value))
    while "fdatasync" not in server.machine.trace:
        server.turn()  # its bytes are there, and the catalog is about to be told
    server.ask(server.uploads.stop())
    assert [type(each) for each in answers] == [Stopping]
    assert quiet(server)


def test_a_client_that_has_gone_leaves_no_wait_behind(server):
    """Klein cancels what it waits for when the connection is gone."""
    upload_id = server.create(10).value.id
    asking = (
        lambda: server.patch(upload_id, 0, DATA),
        lambda: server.create(0),
        lambda: server.create(10, FakeBody.whole(DATA)),
    )
    for ask in asking:
        answer = ask()
        assert not answer.done and not quiet(server)
        answer.deferred.addErrback(lambda failure: None)
        answer.deferred.cancel()
        server.pump()
        assert quiet(server)
    assert server.head(upload_id).value.offset == 9


def test_a_client_that_goes_before_its_bytes_are_committed_waits_for_nothing(server):
    upload_id = server.create(10).value.id
    going = server.uploads.append(upload_id, *patched(DATA))
    going.addErrback(lambda failure: None)
    going.cancel()
    server.pump()
    assert server.row(upload_id).finished, "what arrived is kept all the same"
    assert quiet(server)


def test_a_catalog_that_fails_meanwhile_takes_no_creation_back(server):
    answer = server.create(10, FakeBody.whole(DATA))
    (upload_id,) = server.names()
    server.catalog.stop()
    server.context.replication.stored(upload_id)
    server.pump()
    assert answer.value.offset == 9, "a creation was made, whatever becomes of the wait"

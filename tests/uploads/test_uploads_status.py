"""The status of an upload in both tiers, and parked replicas that are tried again."""

from __future__ import annotations

import pytest
from attrs import evolve

from resumable.model.listing import UploadState
from resumable.model.replica import TransferProgress
from resumable.model.upload import ReplicaState
from resumable.protocol import metadata, tus
from resumable.protocol.errors import Gone, NotFound, Unavailable
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import EPOCH, LONG, pattern

DATA = pattern(LONG)


@pytest.fixture
def remote():
    return FakeReplication(("near",), ("far",))


@pytest.fixture
def server(serve, remote):
    return serve(replication=remote, limits=UploadLimits(expire_after=3600.0))


def status(server, upload_id):
    return server.ask(server.uploads.status(upload_id)).value


def at(offset):
    """What `Uploads.append` is given for a PATCH there."""
    return tus.Append(offset, None, None, False), FakeBody.whole(b"x")


def test_an_upload_that_was_just_made(server):
    encoded = metadata.encode({"filename": "ä.txt", "blob": b"\xff"})
    upload_id = server.create(100, metadata=encoded).value.id
    seen = status(server, upload_id)
    assert (seen.id, seen.state, seen.length) == (upload_id, UploadState.UPLOADING, 100)
    assert (seen.received, seen.durable, seen.offset) == (0, 0, 0)
    assert (seen.created_at, seen.expires_at) == (EPOCH, EPOCH + 3600.0)
    assert seen.finished_at is seen.stored_at is None
    assert seen.metadata == {"filename": "ä.txt".encode(), "blob": b"\xff"}
    assert seen.local is True
    assert [(each.remote, each.required, each.state) for each in seen.replicas] == [
        ("near", True, ReplicaState.OPEN),
        ("far", False, ReplicaState.OPEN),
    ]


def test_received_is_ahead_of_durable_while_a_client_sends(server):
    upload_id = server.create(4 * LONG).value.id
    body = FakeBody(4 * LONG)
    server.patch(upload_id, 0, body)
    body.arrive(DATA)
    server.head(upload_id)
    body.arrive(DATA)
    seen = status(server, upload_id)
    assert (seen.received, seen.durable, seen.offset) == (2 * LONG, LONG, LONG)


def test_looking_never_touches_the_hold(server):
    """GET of the status resource never touches the hold: a silent holder is not evicted, nothing is committed."""
    upload_id = server.create(4 * LONG).value.id
    body = FakeBody(4 * LONG)
    answer = server.patch(upload_id, 0, body)
    body.arrive(DATA)
    server.advance(5.0)
    steps = server.machine.steps
    for _ in range(10):
        assert status(server, upload_id).received == LONG
    assert server.machine.steps == steps and not answer.done and not body.discarded
    assert server.context.holds.takeovers == 0


def test_an_append_that_does_not_fit_counts_for_nothing(server):
    """It has the hold for the moment in which it is looked at, and its offset may be anything."""
    upload_id = server.create(100).value.id
    server.age()
    server.uploads.append(upload_id, *at(90)).addErrback(lambda failure: None)
    assert server.context.holds.held(upload_id)
    assert server.context.holds.received(upload_id) is None
    server.pump()
    assert not server.context.holds.held(upload_id)


def test_what_is_under_way_is_ahead_of_what_is_recorded(server, remote):
    upload_id = server.upload(pattern(100))
    replica = server.replicas(upload_id)["near"]
    assert server.ask(server.catalog.replicas.advance(evolve(replica, confirmed=20))).value
    remote.moving = {"near": TransferProgress(sent=80, confirmed=50)}
    near, far = status(server, upload_id).replicas
    assert (near.sent, near.confirmed, near.lag) == (80, 50, 50)
    assert (far.sent, far.confirmed, far.lag) == (0, 0, 100)
    remote.moving = {}
    near, far = status(server, upload_id).replicas
    assert (near.sent, near.confirmed, near.lag) == (20, 20, 80)


def test_failures_are_told(server):
    upload_id = server.upload(pattern(100))
    replica = server.replicas(upload_id)["near"]
    failing = evolve(replica, key="k", attempts=3, error="503 SlowDown", retry_at=EPOCH + 9)
    assert server.ask(server.catalog.replicas.advance(failing)).value
    near = status(server, upload_id).replicas[0]
    assert (near.key, near.attempts, near.error, near.retry_at) == ("k", 3, "503 SlowDown", EPOCH + 9)


def test_finished_then_stored_then_dropped(server):
    upload_id = server.upload(pattern(100))
    seen = status(server, upload_id)
    assert (seen.state, seen.finished_at, seen.expires_at) == (UploadState.FINISHED, EPOCH, None)
    server.store(upload_id, "near")
    seen = status(server, upload_id)
    assert (seen.state, seen.stored_at) == (UploadState.STORED, EPOCH)
    near, far = seen.replicas
    assert (near.state, near.location, near.confirmed, near.lag) == (
        ReplicaState.STORED,
        f"near://{upload_id}",
        100,
        0,
    )
    assert near.stored_at == EPOCH
    assert (far.state, far.location, far.stored_at) == (ReplicaState.OPEN, None, None)
    server.store(upload_id, "far")
    server.drop(upload_id)
    seen = status(server, upload_id)
    assert (seen.state, seen.local, seen.durable, seen.offset) == (UploadState.STORED, False, 100, 100)


def test_a_withheld_byte_is_durable_and_not_in_the_offset(serve):
    server = serve(replication=FakeReplication(acknowledges=True))
    upload_id = server.create(10).value.id
    server.patch(upload_id, 0, b"0123456789")
    seen = status(server, upload_id)
    assert (seen.state, seen.received, seen.durable, seen.offset) == (UploadState.FINISHED, 10, 10, 9)


def test_a_final_is_assembling_until_it_is_made(server):
    part = server.create(10, partial=True).value.id
    final = server.concat(part).value.id
    assert status(server, final).state is UploadState.ASSEMBLING
    assert status(server, part).replicas == []
    server.patch(part, 0, b"0123456789")
    assert status(server, final).state is UploadState.FINISHED


def test_what_is_not_there_has_no_status(server):
    upload_id = server.upload(b"x")
    server.delete(upload_id)
    assert isinstance(server.ask(server.uploads.status(upload_id)).error, Gone)
    assert isinstance(server.ask(server.uploads.status("0" * 32)).error, NotFound)


def test_a_catalog_that_can_not_be_read_is_503(server):
    upload_id = server.upload(b"x")
    server.catalog.stop()
    assert isinstance(server.ask(server.uploads.status(upload_id)).error, Unavailable)
    assert isinstance(server.ask(server.uploads.restart(upload_id)).error, Unavailable)


def test_parked_replicas_are_tried_again_when_asked_for(server, remote):
    upload_id = server.upload(b"12345")
    for each in server.replicas(upload_id).values():
        assert server.ask(server.catalog.replicas.park(each, "403 AccessDenied", EPOCH)).value
    assert server.ask(server.uploads.restart(upload_id, "far")).value == 1
    assert remote.again == [upload_id], "the engine is woken"
    assert server.replicas(upload_id)["near"].state is ReplicaState.PARKED
    assert server.ask(server.uploads.restart(upload_id)).value == 1
    assert {each.state for each in server.replicas(upload_id).values()} == {ReplicaState.OPEN}
    remote.again.clear()
    assert server.ask(server.uploads.restart(upload_id)).value == 0
    assert remote.again == []


def test_what_is_not_there_can_not_be_tried_again(server):
    assert isinstance(server.ask(server.uploads.restart("0" * 32)).error, NotFound)

"""Uploads whose bytes are missing, and ids whose last upload has left something, where several workers share both."""

from __future__ import annotations

import pytest

from resumable.model.upload import GoneReason
from resumable.protocol.errors import BadRequest, Gone, NotFound, Unavailable
from resumable.spool.segments.loss_sweep import AGAIN, LOST_AFTER
from resumable.uploads.assembly import RETRY
from resumable.uploads.context import Questions
from resumable.uploads.limits import UploadLimits
from tests.uploads.asking import GIVEN, changed
from tests.uploads.cluster_rig import clusters
from tests.uploads.fakes import FakeBody, FakeHooks
from tests.uploads.harness import pattern

A, B = pattern(10_000, 1), pattern(3, 2)
DATA = b"0123456789"


@pytest.fixture(params=["simulated", pytest.param("postgres", marks=pytest.mark.process)])
def cluster(directory, request):
    """Over a simulated catalog, and over a real one."""
    cluster = clusters(request.param)(directory, deliverers=["outside"])
    yield cluster
    cluster.bury()


def pair(cluster):
    return cluster.engine(), cluster.engine()


# Ids that hooks give


def test_an_id_is_free_again_when_no_worker_has_anything_to_tell_of_it(cluster):
    given = changed(id=GIVEN)
    one, other = (
        cluster.engine(limits=UploadLimits(remember=60.0), questions=Questions(FakeHooks(create=[given])))
        for _ in range(2)
    )
    one.create(10, FakeBody.whole(DATA)).value  # noqa: B018
    assert isinstance(other.create(10, FakeBody.whole(A[:10])).error, BadRequest)
    other.delete(GIVEN)
    cluster.catalog.removed([GIVEN])
    cluster.store.layout.clear()
    cluster.catalog.forget(cluster.began + 1e6, 9)
    cluster.pump()
    assert isinstance(one.head(GIVEN).error, NotFound)
    assert isinstance(one.create(10, FakeBody.whole(A[:10])).error, BadRequest)
    outbox = cluster.catalog.outbox
    events = one.ask(outbox.due("outside", cluster.began + 1e6, 9)).value
    while events:
        events = one.ask(outbox.delivered([event.seq for event in events])).value
    assert one.create(10, FakeBody.whole(A[:10])).value.id == GIVEN
    assert cluster.content(GIVEN) == A[:10]


# Bytes that are missing


def find_losses(cluster, engine, seconds=0.0):
    """As the worker does with the sweeper's claim."""
    for wait in [0.0, *[AGAIN] * int(seconds / AGAIN)]:
        cluster.advance(wait)
        engine.ask(engine.losses.step())


def missing(cluster, upload_id):
    """Somebody has removed its files."""
    disk = cluster.store.disk
    for path in [each for each in disk._names if upload_id in each]:
        disk.unlink(path)


def test_an_upload_whose_bytes_are_missing_is_503_and_after_an_hour_410_at_each_worker(cluster):
    one, other = pair(cluster)
    upload_id = one.upload(DATA)
    missing(cluster, upload_id)
    assert isinstance(other.ask(other.uploads.read(upload_id)).error, Unavailable)
    assert list(one.losses._suspects) == list(other.losses._suspects) == [upload_id]
    find_losses(cluster, one, LOST_AFTER - AGAIN)
    assert isinstance(one.ask(one.uploads.read(upload_id)).error, Unavailable)
    assert cluster.row(upload_id).gone is None
    find_losses(cluster, one, AGAIN)
    assert cluster.row(upload_id).gone is GoneReason.LOST
    for each in (one, other):
        assert isinstance(each.ask(each.uploads.read(upload_id)).error, Gone)
        assert isinstance(each.head(upload_id).error, Gone)
    assert [each.context.counts.gone[GoneReason.LOST] for each in (one, other)] == [1, 0]


def test_an_append_elsewhere_to_a_lost_upload_is_ended(cluster):
    one, other = pair(cluster)
    upload_id = one.create(len(DATA) + (1 << 20)).value.id
    one.patch(upload_id, 0, DATA)
    missing(cluster, upload_id)
    body = FakeBody(1 << 20)
    append = other.patch(upload_id, len(DATA), body)
    body.arrive(A)
    find_losses(cluster, one, LOST_AFTER)
    assert cluster.row(upload_id).gone is GoneReason.LOST
    assert isinstance(append.error, Gone)


def test_a_final_of_a_lost_partial_ends_with_it(cluster):
    one, other = pair(cluster)
    lost, late = one.upload(A, partial=True), one.create(len(B), partial=True).value.id
    final = other.concat(lost, late).value
    missing(cluster, lost)
    other.patch(late, 0, B)
    assert cluster.row(final.id).gone is None, "it waits: the bytes may come back"
    find_losses(cluster, one, LOST_AFTER)
    assert cluster.row(lost).gone is GoneReason.LOST
    cluster.advance(RETRY)
    assert cluster.row(final.id).gone is GoneReason.TERMINATED

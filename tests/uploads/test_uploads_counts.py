"""Uploads are counted once for each thing that becomes of them, and not before it is durable."""

from __future__ import annotations

import errno

import pytest
from attrs.exceptions import FrozenInstanceError

from resumable.model.upload import GoneReason
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, pattern

HOUR = 3600.0


@pytest.fixture
def server(serve):
    return serve(limits=UploadLimits(expire_after=HOUR))


def seen(server):
    counts = server.context.counts
    return counts.created, counts.finished, dict(counts.gone)


def test_an_upload_at_once_is_created_and_finished(server):
    server.upload(b"whole")
    server.upload(pattern(LONG))
    assert seen(server) == (2, 2, {})


def test_an_upload_in_pieces_is_finished_once(server):
    upload_id = server.upload(b"half", length=8)
    assert seen(server) == (1, 0, {})
    server.patch(upload_id, 4, b"more")
    assert seen(server) == (1, 1, {})
    server.patch(upload_id, 8, b"")
    server.head(upload_id)
    assert seen(server) == (1, 1, {})


def test_an_empty_upload_counts_when_it_is_finished(server):
    upload_id = server.upload(b"")
    created, finished, _ = seen(server)
    server.patch(upload_id, 0, length=0)
    assert (created, seen(server)[1]) == (1, max(finished, 1))


def test_what_is_gone_counts_by_its_reason(server):
    server.delete(server.upload(b"whole"))
    server.upload(b"half", length=8)
    server.advance(HOUR + 1)
    server.sweep()
    server.sweep()
    assert seen(server) == (2, 1, {GoneReason.TERMINATED: 1, GoneReason.EXPIRED: 1})


def test_what_the_disk_did_not_take_does_not_count(server):
    server.disk.fail_next("writev", errno.ENOSPC)
    assert server.create(5, FakeBody.whole(b"whole")).status == 507
    assert seen(server) == (0, 0, {})


@pytest.mark.parametrize("name", ["limits", "replication", "questions", "quota", "places", "listeners"])
def test_nothing_that_uploads_share_is_replaced_once_it_is_made(server, name):
    with pytest.raises(FrozenInstanceError):
        setattr(server.context, name, getattr(server.context, name))

"""The draft with several workers: who looks at an upload ends the transfer that another worker receives."""

from __future__ import annotations

import pytest

from resumable.protocol.errors import TakenOver
from resumable.uploads.shared_holds import PATIENCE
from tests.uploads.cluster_rig import clusters
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, pattern

DATA = pattern(LONG + 1000)


@pytest.fixture(params=["simulated", pytest.param("postgres", marks=pytest.mark.process)])
def cluster(directory, request):
    cluster = clusters(request.param)(directory)
    yield cluster
    cluster.bury()


@pytest.fixture
def pair(cluster):
    return cluster.engine(), cluster.engine()


def receiving(engine, upload_id, draft=True):
    """An append under way that has received ``DATA``."""
    body = FakeBody(None if draft else 10 * LONG)
    answer = engine.draft_append(upload_id, 0, True, body) if draft else engine.patch(upload_id, 0, body)
    body.arrive(DATA)
    engine.pump()
    return answer, body


def look(cluster, engine, upload_id):
    answer = engine.look(upload_id)
    cluster.advance(PATIENCE)
    return answer.value


def test_R42_a_look_at_another_worker_ends_the_transfer_and_its_offset_stays_right(cluster, pair):
    one, two = pair
    upload_id = one.draft_create(False).value.id
    answer, body = receiving(one, upload_id)
    assert look(cluster, two, upload_id).offset == len(DATA)
    assert isinstance(answer.error, TakenOver) and body.discarded
    assert two.draft_append(upload_id, len(DATA), True, b"rest").value.finished
    assert two.content(upload_id) == DATA + b"rest"


def test_it_does_not_end_an_append_of_tus(cluster, pair):
    one, two = pair
    upload_id = one.create(10 * LONG).value.id
    answer, body = receiving(one, upload_id, draft=False)
    assert look(cluster, two, upload_id).offset == len(DATA)
    assert not answer.done and not body.discarded


def test_nor_does_a_look_by_tus_end_one_of_the_draft(cluster, pair):
    one, two = pair
    upload_id = one.draft_create(False).value.id
    answer, _ = receiving(one, upload_id)
    head = two.head(upload_id)
    cluster.advance(PATIENCE)
    assert head.value.offset == len(DATA) and not answer.done


@pytest.mark.parametrize("length", [None, len(DATA)])
def test_an_append_without_content_at_another_worker_completes_it(cluster, pair, length):
    one, two = pair
    upload_id = one.draft_create(False, DATA, length=length).value.id
    assert two.draft_append(upload_id, len(DATA), True).value.finished
    assert one.look(upload_id).value.finished
    assert one.content(upload_id) == DATA

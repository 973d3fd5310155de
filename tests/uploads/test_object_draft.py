"""The draft where the bytes go to an object store: its end is told apart from its last byte."""

from __future__ import annotations

import pytest

from resumable.model.errors import BodyLost
from resumable.protocol.errors import Gone, InconsistentLength, PastLength
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import pattern
from tests.uploads.object_cluster import PART, SMALL, sent

LONG = SMALL + 100
SIZES = [0, 1, SMALL, LONG, PART, PART + 1, 2 * PART, 2 * PART + LONG]


@pytest.mark.parametrize("size", [0, 1, SMALL, LONG, PART])
def test_a_file_in_the_request_that_creates_it_is_one_put(cluster, size):
    engine, data = cluster.engine(), pattern(size)
    upload = engine.draft_create(True, data).value
    assert upload.finished and sent(cluster) == {"put": 1}
    assert cluster.object(upload.id) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("body", [FakeBody.whole, FakeBody.chunked])
@pytest.mark.parametrize("length", [True, False])
def test_an_append_without_content_completes_what_is_there(cluster, size, body, length):
    engine, data = cluster.engine(), pattern(size)
    upload_id = engine.draft_create(False, length=size if length else None).value.id
    assert not engine.draft_append(upload_id, 0, False, body(data)).value.finished
    other = cluster.engine()
    upload = other.look(upload_id).value
    assert (upload.offset, upload.finished) == (size, False)
    assert other.draft_append(upload_id, size, True).value.finished
    cluster.advance(10)
    assert cluster.object(upload_id) == cluster.content(upload_id) == data


@pytest.mark.parametrize("first", SIZES)
@pytest.mark.parametrize("second", [1, LONG, PART])
@pytest.mark.parametrize("body", [FakeBody.whole, FakeBody.chunked])
def test_the_last_append_gives_it_its_length(cluster, first, second, body):
    engine, data = cluster.engine(), pattern(first + second)
    upload_id = engine.draft_create(False, body(data[:first])).value.id
    upload = engine.draft_append(upload_id, first, True, body(data[first:])).value
    assert upload.finished and upload.length == len(data)
    cluster.advance(10)
    assert cluster.object(upload_id) == data


@pytest.mark.parametrize("size", [1, LONG, PART, 2 * PART + LONG])
def test_tus_completes_an_upload_of_the_draft_by_its_last_byte(cluster, size):
    engine, data = cluster.engine(), pattern(size)
    upload_id = engine.draft_create(False, data, length=size).value.id
    assert engine.head(upload_id).value.offset == size - 1
    assert engine.patch(upload_id, size - 1, bytes([data[-1] ^ 1])).status == 409
    assert engine.patch(upload_id, size - 1, data[-1:]).value.finished
    cluster.advance(10)
    assert cluster.object(upload_id) == data


@pytest.mark.parametrize("size", [LONG, PART + LONG])
@pytest.mark.parametrize("length", [None, 4 * PART])
def test_what_has_come_before_the_client_went_is_kept_and_not_complete(cluster, size, length):
    engine, data, body = cluster.engine(), pattern(4 * PART), FakeBody(length)
    upload_id = engine.draft_create(False).value.id
    answer = engine.draft_append(upload_id, 0, True, body)
    body.arrive(data[:size])
    engine.pump()
    body.lose()
    cluster.advance(1)
    assert isinstance(answer.error, BodyLost)
    upload = cluster.engine().look(upload_id).value
    assert (upload.offset, upload.finished) == (size, False)
    assert engine.draft_append(upload_id, size, True, data[size:]).value.finished
    cluster.advance(10)
    assert cluster.object(upload_id) == data


@pytest.mark.parametrize("size", [0, LONG, PART])
def test_content_past_the_length_makes_the_upload_invalid(cluster, size):
    engine = cluster.engine()
    upload_id = engine.draft_create(False, length=size).value.id
    answer = engine.draft_append(upload_id, 0, True, FakeBody.chunked(pattern(size + 1)))
    assert isinstance(answer.error, PastLength)
    assert isinstance(engine.look(upload_id).error, Gone)


@pytest.mark.parametrize("size", [0, LONG, PART])
def test_content_that_ends_too_soon_completes_nothing(cluster, size):
    engine, data = cluster.engine(), pattern(size + 10)
    upload_id = engine.draft_create(False, length=size + 10).value.id
    assert isinstance(engine.draft_append(upload_id, 0, True, FakeBody.chunked(data[:size])).error, InconsistentLength)
    assert engine.draft_append(upload_id, size, True, data[size:]).value.finished
    cluster.advance(10)
    assert cluster.object(upload_id) == data

"""Digests where acknowledged bytes are in an object store: parts can't be read before their object is there."""

from __future__ import annotations

from typing import Any

import pytest

from resumable.uploads.digest_rules import DigestRules
from tests.uploads.digested import text, whole
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import pattern
from tests.uploads.object_cluster import PART, SMALL, SMALLEST, ObjectCluster

NONE, SHA256 = DigestRules(readable=False), DigestRules("sha-256", readable=False)
SIZES = [1, SMALL, SMALL + 100, PART, 3 * PART + 5]


@pytest.mark.parametrize("size", SIZES)
def test_an_upload_in_one_request_is_compared_before_it_is_finished(cluster: ObjectCluster, size: int) -> None:
    engine, data = cluster.engine(digests=NONE), pattern(size)
    right = engine.create(size, digests=whole(data)).value.id
    assert engine.patch(right, 0, data).value.finished
    cluster.advance(1)
    assert cluster.object(right) == data and engine.row(right).digest == text(data)
    wrong = engine.create(size, digests=whole(data + b"x")).value.id
    assert engine.patch(wrong, 0, data).status == 460
    cluster.advance(1)
    assert not engine.row(wrong).finished and cluster.object(wrong) is None
    assert engine.head(wrong).value.offset == size - 1


@pytest.mark.parametrize("size", SIZES)
def test_the_wrong_bytes_are_refused_by_every_worker(cluster: ObjectCluster, size: int) -> None:
    one, other, data = cluster.engine(digests=NONE), cluster.engine(digests=NONE), pattern(size)
    answer = one.create(size, FakeBody.whole(data), digests=whole(data + b"x"))
    assert answer.status == 460 and answer.cut is not None
    for engine in (one, other):
        assert engine.patch(answer.cut.id, size - 1, data[-1:]).status == 460
    assert other.delete(answer.cut.id).done


@pytest.mark.parametrize("digests", [NONE, SHA256])
@pytest.mark.parametrize("right", [True, False])
def test_one_in_several_requests_is_compared_once_it_is_an_object(
    cluster: ObjectCluster, logged: list[dict[str, Any]], digests: DigestRules, right: bool
) -> None:
    engine, data = cluster.engine(digests=digests), pattern(3 * PART)
    said = data if right else data + b"x"
    upload_id = engine.create(len(data), digests=whole(said)).value.id
    engine.patch(upload_id, 0, data[:PART]).value  # noqa: B018
    assert engine.patch(upload_id, PART, data[PART:]).value.finished
    cluster.advance(1)
    assert cluster.object(upload_id) == data
    row = engine.row(upload_id)
    assert row.announced == text(said) and row.digest == text(data)
    assert engine.uploads.digester.differing == (0 if right else 1)
    told = [event for event in logged if "another digest" in str(event.get("log_format"))]
    assert len(told) == (0 if right else 1)


@pytest.mark.parametrize("cut", [1, SMALL, SMALLEST - 1])
def test_a_small_one_in_several_requests_is_compared_before_it_is_finished(cluster: ObjectCluster, cut: int) -> None:
    """As long as no request has brought a part, all of it is in pieces, which can be read."""
    engine, other, data = cluster.engine(digests=NONE), cluster.engine(digests=NONE), pattern(SMALLEST + 100)
    wrong, right = (engine.create(len(data), digests=whole(said)).value.id for said in (b"other", data))
    for upload_id in (wrong, right):
        engine.patch(upload_id, 0, data[:cut]).value  # noqa: B018
    assert other.patch(wrong, cut, data[cut:]).status == 460
    assert engine.head(wrong).value.offset == len(data) - 1 and not engine.row(wrong).finished
    assert other.patch(right, cut, data[cut:]).value.finished
    cluster.advance(1)
    assert cluster.object(right) == data and engine.row(right).digest == text(data)


def test_with_the_option_each_upload_gets_its_digest(cluster: ObjectCluster) -> None:
    engine, data = cluster.engine(digests=SHA256), pattern(3 * PART)
    for cut in (0, PART):
        upload_id = engine.create(len(data)).value.id
        if cut:
            engine.patch(upload_id, 0, data[:cut]).value  # noqa: B018
        assert engine.patch(upload_id, cut, data[cut:]).value.finished
        cluster.advance(1)
        assert engine.row(upload_id).digest == text(data) and engine.row(upload_id).digest_due is None
    assert engine.uploads.digester.made == 1


def test_a_final_is_compared_before_it_is_finished(cluster: ObjectCluster) -> None:
    engine, pieces = cluster.engine(digests=NONE), [pattern(PART, 1), pattern(SMALL, 2)]
    ids = [engine.upload(each, partial=True) for each in pieces]
    cluster.advance(1)
    wrong = engine.concat(*ids, digests=whole(b"other"))
    cluster.advance(1)
    assert wrong.status == 460
    right = engine.concat(*ids, digests=whole(b"".join(pieces)))
    cluster.advance(1)
    assert right.value.finished

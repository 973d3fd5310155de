"""Appends whose bytes go to an object store: looks while they run, withheld bytes, checksums."""

from __future__ import annotations

from base64 import b64encode

import pytest

from resumable.protocol.errors import Unavailable
from resumable.uploads.context import Questions
from tests.uploads.fakes import FakeBody, FakeHooks
from tests.uploads.harness import pattern, sha1
from tests.uploads.object_cluster import (
    KIB,
    MOST_IN_ROW,
    PART,
    SMALL,
    SMALLEST,
    Shape,
    sent,
)

LONG = SMALL + 100
S3 = Shape()
BLOCKS = Shape(numbered=False)
COMPOSE = Shape(numbered=False, part_objects=True)


class TestLooks:
    def test_a_look_commits_what_came_and_the_append_goes_on(self, cluster):
        engine, other, data = cluster.engine(), cluster.engine(), pattern(2 * PART)
        upload_id = engine.create(2 * PART).value.id
        answer = engine.patch(upload_id, 0, body := FakeBody(2 * PART))
        body.arrive(data[:LONG])
        assert other.head(upload_id).value.offset == LONG
        body.arrive(data[LONG : PART + 100])
        assert engine.head(upload_id).value.offset == PART + 100
        assert cluster.content(upload_id) == data[: PART + 100]
        body.arrive(data[PART + 100 :])
        cluster.pump()
        assert answer.value.finished
        assert cluster.object(upload_id) == data

    def test_it_is_answered_while_the_store_is_down(self, cluster):
        engine, data = cluster.engine(), pattern(2 * PART)
        upload_id = engine.upload(data[:300], 2 * PART)
        engine.patch(upload_id, 300, body := FakeBody(2 * PART - 300))
        body.arrive(data[300 : 300 + 2 * MOST_IN_ROW])
        cluster.bucket.down = True
        head = engine.head(upload_id)
        cluster.advance(10)
        assert head.value.offset == 300
        cluster.bucket.down = False
        cluster.advance(10)


class TestWithheldLastBytes:
    def _hooked(self, cluster, *says):
        hooks = FakeHooks(finish=says)
        engine = cluster.engine(questions=Questions(hooks))
        engine.hooks = hooks
        return engine

    @pytest.mark.parametrize("size", [300, LONG, PART, 2 * PART, 2 * PART + 1])
    def test_the_last_byte_can_be_compared(self, cluster, size):
        engine = self._hooked(cluster, Unavailable("wait", 1))
        other, data = cluster.engine(questions=engine.context.questions), pattern(size)
        upload_id = engine.create(size).value.id
        engine.patch(upload_id, 0, data)
        assert engine.row(upload_id).offset == size
        assert not engine.row(upload_id).finished
        assert engine.head(upload_id).value.offset == size - 1
        wrong = bytes([data[-1] ^ 1])
        assert other.patch(upload_id, size - 1, wrong).status == 409
        assert other.patch(upload_id, size - 1, data[-1:]).status in (423, 503)
        assert cluster.content(upload_id) == data
        engine.hooks.says.clear()
        assert engine.patch(upload_id, size - 1, data[-1:]).value.finished
        cluster.advance(1)
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("size", [300, PART, 2 * PART, PART + SMALLEST])
    @pytest.mark.parametrize("together", [False, True])
    def test_so_it_can_where_the_length_comes_last(self, cluster, size, together):
        engine = self._hooked(cluster, Unavailable("wait", 1))
        data = pattern(size)
        upload_id = engine.create().value.id
        if together:
            engine.patch(upload_id, 0, FakeBody.chunked(data), length=size)
        else:
            engine.patch(upload_id, 0, data)
            engine.patch(upload_id, size, b"", length=size)
        cluster.advance(1)
        assert engine.head(upload_id).value.offset == size - 1
        assert engine.patch(upload_id, size - 1, bytes([data[-1] ^ 1])).status == 409
        engine.hooks.says.clear()
        assert engine.patch(upload_id, size - 1, data[-1:]).value.finished
        cluster.advance(1)
        assert cluster.object(upload_id) == data

    def test_bytes_that_cannot_be_read_are_no_other_bytes(self, cluster):
        engine, data = cluster.engine(), pattern(2 * PART)
        upload_id = engine.upload(data[:PART], 2 * PART)
        answer = engine.ask(engine.context.spool.read(upload_id, PART - 1, 1))
        assert type(answer.error).__name__ == "NotReadable"


class TestChecksums:
    @pytest.mark.parametrize("size", [300, LONG, 3 * PART])
    @pytest.mark.parametrize("trailer", [False, True])
    def test_nothing_leaves_before_it_is_verified(self, cluster, size, trailer):
        engine, data = cluster.engine(), pattern(size)
        upload_id = engine.create(size).value.id
        body = FakeBody(None) if trailer else FakeBody(size)
        check = {"trailer": True} if trailer else {"checksum": sha1(data)}
        answer = engine.patch(upload_id, 0, body, **check)
        body.arrive(data[:-1])
        cluster.advance(2)
        assert not sent(cluster)
        body.arrive(b"!")
        if trailer:
            body.end({"upload-checksum": f"sha1 {b64encode(sha1(data).digest).decode()}"})
        cluster.pump()
        assert answer.status == 460 or data.endswith(b"!")
        assert not sent(cluster)
        layout = cluster.stored(upload_id)
        assert (layout.offset, layout.parts, layout.pieces, layout.multipart) == (0, (), (), None)
        assert engine.patch(upload_id, 0, data, checksum=sha1(data)).value.finished
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("trailer", [False, True])
    def test_more_than_scratch_can_take_is_told_with_413(self, make, trailer):
        cluster = make(Shape(scratch=8 * KIB))
        engine, data = cluster.engine(), pattern(16 * KIB)
        upload_id = engine.create(16 * KIB).value.id
        body = FakeBody(None if trailer else 16 * KIB)
        answer = engine.patch(upload_id, 0, body, **({"trailer": True} if trailer else {"checksum": sha1(data)}))
        for at in range(0, len(data), KIB):
            body.arrive(data[at : at + KIB])
            cluster.pump()
        cluster.advance(1)
        assert answer.status == 413
        assert cluster.stored(upload_id).offset == 0

    def test_a_long_body_with_a_checksum_behind_it_is_not_held_up(self, make):
        cluster = make(Shape(scratch=1 << 20))
        engine, data = cluster.engine(), pattern(20 * PART)
        upload_id = engine.create(len(data)).value.id
        body = FakeBody(None)
        answer = engine.patch(upload_id, 0, body, trailer=True)
        for at in range(0, len(data), KIB):
            body.arrive(data[at : at + KIB])
            cluster.pump()
        body.end({"upload-checksum": f"sha1 {b64encode(sha1(data).digest).decode()}"})
        cluster.advance(1)
        assert answer.value.finished
        assert cluster.object(upload_id) == data

"""Appends whose bytes go to an object store: which requests they make, what is recorded of them, what is given back."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from resumable.spool.objects.append_parts import AT_ONCE
from resumable.spool.objects.object_sink import ObjectSink, ScratchFile
from resumable.testing.memory_catalog import Fate
from resumable.testing.memory_store import KeptObject
from resumable.uploads.append import PAUSE
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import pattern
from tests.uploads.object_cluster import (
    KIB,
    MOST_IN_ROW,
    PART,
    PREFIX,
    SMALL,
    SMALLEST,
    Shape,
    go,
    hold,
    sent,
)

LONG = SMALL + 100
S3 = Shape()
BLOCKS = Shape(numbered=False)
COMPOSE = Shape(numbered=False, part_objects=True)


class TestWholeFiles:
    @pytest.mark.parametrize("size", [0, 1, SMALL, LONG, PART])
    def test_a_file_in_the_request_that_creates_it_is_one_put(self, cluster, size):
        engine, data = cluster.engine(), pattern(size)
        upload = engine.create(size, FakeBody.whole(data)).value
        assert upload.finished or engine.row(upload.id).finished
        assert sent(cluster) == {"put": 1}
        assert cluster.stored(upload.id).whole
        assert cluster.object(upload.id) == cluster.content(upload.id) == data

    @pytest.mark.parametrize("size", [1, SMALL, LONG, PART])
    def test_so_is_a_file_in_one_append(self, cluster, size):
        engine, data = cluster.engine(), pattern(size)
        upload_id = engine.upload(data)
        assert sent(cluster) == {"put": 1}
        assert cluster.stored(upload_id).whole
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("size", [300, LONG])
    def test_and_one_whose_length_comes_with_its_bytes(self, cluster, size):
        engine, data = cluster.engine(), pattern(size)
        upload_id = engine.create().value.id
        assert engine.patch(upload_id, 0, data, length=size).value.finished
        assert sent(cluster) == {"put": 1}
        assert cluster.object(upload_id) == data

    def test_a_longer_one_is_a_multipart(self, cluster):
        engine, data = cluster.engine(), pattern(PART + 1)
        upload_id = engine.upload(data)
        assert sent(cluster) == {"begin": 1, "write_part": 2, "complete": 1}
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("size", [300, LONG])
    def test_a_put_whose_answer_was_lost_is_known_by_its_token(self, cluster, size):
        engine, data = cluster.engine(), pattern(size)
        upload_id = engine.create(size).value.id
        cluster.bucket.fates.append(Fate.UNHEARD)
        answer = engine.patch(upload_id, 0, data)
        cluster.advance(1)
        assert answer.value.finished
        assert sent(cluster) == {"put": 2, "find": 1}
        assert cluster.stored(upload_id).whole
        assert cluster.content(upload_id) == data

    @pytest.mark.parametrize("size", [300, LONG])
    def test_the_object_of_a_frozen_workers_try_is_replaced_by_the_one_that_is_acknowledged(self, cluster, size):
        frozen, other = cluster.engine(), cluster.engine()
        upload_id = frozen.create(size).value.id
        waiting = hold(cluster, "put")
        frozen.patch(upload_id, 0, b"x" * size)
        frozen.freeze()
        go(cluster, waiting)
        assert cluster.object(upload_id) == b"x" * size
        data = pattern(size)
        answer = other.patch(upload_id, 0, data)
        while waiting:
            go(cluster, waiting)
        assert answer.value.finished
        cluster.advance(1)
        assert cluster.stored(upload_id).whole
        assert cluster.object(upload_id) == data
        frozen.thaw()
        cluster.advance(1)
        assert cluster.object(upload_id) == cluster.content(upload_id) == data

    def test_the_late_try_of_a_creation_takes_nothing_from_the_upload(self, cluster):
        """Its client may have heard of the upload, and have gone on with it at another worker."""
        frozen, other = cluster.engine(), cluster.engine()
        waiting = hold(cluster, "put")
        data, lost = pattern(LONG), b"x" * LONG
        creation = frozen.create(LONG, FakeBody.whole(lost))
        upload_id = frozen.context.holds._holds.copy().popitem()[0]
        frozen.freeze()
        go(cluster, waiting)
        answer = other.patch(upload_id, 0, data)
        while waiting:
            go(cluster, waiting)
        assert answer.value.finished
        cluster.advance(1)
        frozen.thaw()
        cluster.advance(1)
        assert creation.status == 423
        assert cluster.object(upload_id) == data

    def test_an_object_of_somebody_else_stays(self, cluster):
        engine, data = cluster.engine(), pattern(LONG)
        upload_id = engine.create(LONG).value.id
        cluster.bucket.objects[f"{PREFIX}{upload_id}"] = KeptObject(b"theirs", 0.0, "1", "another", "theirs")
        assert engine.patch(upload_id, 0, data).value.finished, "its bytes are kept all the same"
        cluster.advance(30)
        assert cluster.object(upload_id) == b"theirs"
        assert not cluster.stored(upload_id).whole
        del cluster.bucket.objects[f"{PREFIX}{upload_id}"]
        engine.ask(engine.completer.sweep())
        assert cluster.object(upload_id) == cluster.content(upload_id) == data


class TestStoresWithoutConditions:
    def test_only_a_file_of_which_nobody_has_heard_is_one_put(self, make):
        cluster = make(Shape(conditional=False))
        engine = cluster.engine()
        upload = engine.create(SMALL, FakeBody.whole(pattern(SMALL))).value
        assert sent(cluster) == {"put": 1}
        assert cluster.object(upload.id) == pattern(SMALL)

    @pytest.mark.parametrize("size", [300, LONG])
    def test_an_append_isnt(self, make, size):
        cluster = make(Shape(conditional=False))
        engine = cluster.engine()
        upload_id = engine.upload(pattern(size))
        assert "put" not in sent(cluster)
        assert cluster.object(upload_id) == pattern(size)

    def test_nor_a_long_creation_whose_late_put_would_replace_what_came_after_it(self, make):
        cluster = make(Shape(conditional=False))
        engine, other = cluster.engine(), cluster.engine()
        waiting = hold(cluster, "put", "begin")
        creation = engine.create(LONG, FakeBody.whole(b"x" * LONG))
        upload_id = engine.context.holds._holds.copy().popitem()[0]
        engine.freeze()
        mine = waiting.pop()
        answer = other.patch(upload_id, 0, pattern(LONG))
        while waiting:
            go(cluster, waiting)
        cluster.advance(2)
        assert answer.value.finished
        assert cluster.object(upload_id) == pattern(LONG)
        mine.callback(None)
        cluster.pump()
        engine.thaw()
        cluster.advance(2)
        assert creation.status == 423
        assert cluster.object(upload_id) == pattern(LONG)


class TestParts:
    def test_parts_go_side_by_side_and_count_when_those_before_them_are_confirmed(self, cluster):
        engine, data = cluster.engine(), pattern(10 * PART)
        upload_id = engine.create(10 * PART).value.id
        waiting = hold(cluster, "write_part")
        engine.patch(upload_id, 0, body := FakeBody(10 * PART))
        body.arrive(data[: 3 * PART + 5])
        cluster.pump()
        assert len(waiting) == 3
        go(cluster, waiting, 2)
        cluster.advance(1)
        assert engine.row(upload_id).offset == 0, "the third can't count alone"
        go(cluster, waiting, 0)
        cluster.advance(1)
        body.arrive(data[3 * PART + 5 : 3 * PART + 6])
        cluster.pump()
        first = engine.row(upload_id).offset
        go(cluster, waiting, 0)
        cluster.advance(1)
        body.arrive(data[3 * PART + 6 : 3 * PART + 7])
        cluster.pump()
        assert (first, engine.row(upload_id).offset) == (PART, 3 * PART)
        assert cluster.content(upload_id) == data[: 3 * PART]
        assert [each.number for each in cluster.stored(upload_id).parts] != []
        cluster.bucket.before = None
        body.lose()
        cluster.advance(5)
        assert cluster.content(upload_id) == data[: 3 * PART + 7]

    def test_parts_are_committed_ten_times_a_second_at_most(self, cluster):
        """Each commit costs the database that all share; what a node that dies has not committed is sent again."""
        engine = cluster.engine()
        upload_id = engine.create(10 * PART).value.id
        engine.patch(upload_id, 0, body := FakeBody(10 * PART))
        offsets = []
        for seconds in (0.0, PAUSE, 0.04, 0.07):
            cluster.advance(seconds)
            body.arrive(bytes(PART))
            cluster.pump()
            offsets.append(engine.row(upload_id).offset)
        assert offsets[:3] == [0, 0, 0]
        assert offsets[3] >= 3 * PART
        body.lose()
        cluster.advance(1)

    def test_a_client_is_not_far_ahead_of_the_store(self, cluster):
        engine = cluster.engine()
        upload_id = engine.create(100 * PART).value.id
        waiting = hold(cluster, "write_part")
        engine.patch(upload_id, 0, body := FakeBody(100 * PART))
        arrived = 0
        while not body._paused:
            body.arrive(bytes(KIB))
            arrived += KIB
            cluster.pump()
        assert len(waiting) == 4
        assert 7 * PART <= arrived < 8 * PART - KIB, "a direct transfer has had room for a part up to its end"
        while waiting:
            go(cluster, waiting)
        cluster.advance(1)
        assert not body._paused

    @pytest.mark.parametrize(
        ("size", "where"),
        [(MOST_IN_ROW, "row"), (MOST_IN_ROW + 1, "object"), (SMALLEST - 1, "object"), (SMALLEST, "part")],
    )
    @pytest.mark.parametrize("shape", [S3, BLOCKS, COMPOSE])
    def test_what_is_left_at_a_cut(self, make, shape, size, where):
        cluster = make(shape)
        engine, data = cluster.engine(), pattern(10 * PART)
        upload_id = engine.create(10 * PART).value.id
        engine.patch(upload_id, 0, body := FakeBody(10 * PART))
        body.arrive(data[: PART + size])
        body.lose()
        cluster.advance(1)
        layout = cluster.stored(upload_id)
        assert layout.offset == PART + size
        assert [each.size for each in layout.parts] == [PART] + [size] * (where == "part")
        assert [each.in_row for each in layout.pieces] == ([] if where == "part" else [where == "row"])
        assert cluster.content(upload_id) == data[: PART + size]

    @pytest.mark.parametrize(("size", "takes"), [(SMALL, 0), (LONG, 1)])
    def test_one_whose_bytes_go_into_a_row_needs_only_its_commit(self, cluster, size, takes, monkeypatch):
        """No take, no question for the tail, no scratch."""
        engine, data = cluster.engine(), pattern(2 * size)
        upload_id = engine.create(3 * PART).value.id
        opened = []
        monkeypatch.setattr(ScratchFile, "open", lambda file, open=ScratchFile.open: [opened.append(1), open(file)])
        for offset in (0, size):
            assert engine.patch(upload_id, offset, data[offset : offset + size]).value.offset == offset + size
        assert (engine.row(upload_id).epoch, len(opened)) == (2 * takes, 2 * takes)
        assert [each.in_row for each in cluster.stored(upload_id).pieces] == [not takes] * 2
        assert cluster.content(upload_id) == data

    @pytest.mark.parametrize("fate", [Fate.LANDS, Fate.FAILS])
    def test_bodies_that_wait_for_the_catalog_go_to_scratch_when_they_are_many(self, cluster, monkeypatch, fate):
        """Else all connections could hold memory while the database says nothing."""
        monkeypatch.setattr("resumable.spool.objects.append_parts.MOST_GATHERED", SMALL)
        engine, data = cluster.engine(), pattern(SMALL)
        ids = [engine.create(3 * PART).value.id for _ in range(3)]
        catalog, waiting = engine.context.catalog, []
        commit = catalog.commit

        def slow(*given):
            waiting.append((given, answer := Deferred()))
            return answer

        catalog.commit = slow
        answers = [engine.patch(each, 0, data) for each in ids]
        cluster.pump()
        assert [engine.row(each).epoch for each in ids] == [0, 1, 1], "those that came later have taken their rows"
        context = engine.context.spool.context
        assert context.gathered.size == SMALL
        catalog.commit = commit
        catalog.fates.append(fate)
        for given, answer in waiting:
            commit(*given).chainDeferred(answer)
        cluster.advance(1)
        assert [each.status for each in answers] == [None if fate is Fate.LANDS else 503, None, None]
        assert context.gathered.size == 0

    def test_one_that_waits_for_its_commit_is_in_memory_once(self, cluster, monkeypatch):
        """Thousands may wait at once while the database is slow."""
        engine, data = cluster.engine(), pattern(SMALL)
        upload_id = engine.create(3 * PART).value.id
        commit, waiting = engine.context.catalog.commit, []
        given = []
        monkeypatch.setattr(
            ObjectSink, "take", lambda sink, take=ObjectSink.take: given.append(chunks := take(sink)) or chunks
        )
        engine.context.catalog.commit = lambda *args: waiting.append(args) or commit(*args)
        engine.patch(upload_id, 0, body := FakeBody(SMALL))
        for at in range(0, SMALL, 100):
            body.arrive(data[at : at + 100])
        cluster.pump()
        ((change, _),) = waiting
        assert change.segment.piece.data == data
        (chunks,) = given
        assert all(each is change.segment.piece.data for each in chunks)

    def test_equal_parts_are_equal(self, make):
        cluster = make(Shape(equal=True))
        engine, data = cluster.engine(), pattern(5 * PART + 9)
        upload_id = engine.create(len(data)).value.id
        at = 0
        for size in (PART - 1, PART - 1, 100, PART + 2, len(data)):
            piece = data[at : at + size]
            at = engine.patch(upload_id, at, piece).value.offset
            sizes = {each.size for each in cluster.stored(upload_id).parts}
            assert len(sizes) <= 1 or at == len(data)
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("shape", [S3, BLOCKS, COMPOSE, Shape(equal=True)])
    @pytest.mark.parametrize("first", [300, MOST_IN_ROW + 300])
    def test_another_engine_goes_on_with_the_tail(self, make, shape, first):
        cluster = make(shape)
        one, two, data = cluster.engine(), cluster.engine(), pattern(2 * PART + 50)
        upload_id = one.upload(data[:first], len(data))
        assert two.patch(upload_id, first, data[first : first + 100]).value.offset == first + 100
        assert len(cluster.stored(upload_id).pieces) == 2
        assert one.patch(upload_id, first + 100, data[first + 100 : PART + 10]).value.offset == PART + 10
        layout = cluster.stored(upload_id)
        assert [each.size for each in layout.parts] == [PART]
        assert [each.size for each in layout.pieces] == [10]
        assert cluster.content(upload_id) == data[: PART + 10]
        assert two.patch(upload_id, PART + 10, data[PART + 10 :]).value.finished
        assert cluster.object(upload_id) == data

    def test_a_small_append_takes_the_row_before_it_sends_a_part(self, cluster):
        one, two, data = cluster.engine(), cluster.engine(), pattern(2 * PART)
        upload_id = one.create(2 * PART).value.id
        epochs = []
        for at in range(0, PART + 1000, 500):
            engine = (one, two)[at // 500 % 2]
            assert engine.patch(upload_id, at, data[at : at + 500]).value.offset == at + 500
            layout = cluster.stored(upload_id)
            epochs.append(layout.epoch)
            assert cluster.content(upload_id) == data[: at + 500]
        assert layout.parts[0].size == PART
        assert epochs == [0] * 8 + [1] * 3, "only the append that sends a part takes the row"
        assert sent(cluster) == {"begin": 1, "write_part": 1}

    def test_a_tail_that_was_gathered_for_larger_parts_is_one_part(self, make):
        cluster = make(Shape(part_size=4 * PART))
        engine, data = cluster.engine(), pattern(10 * PART)
        upload_id = engine.create(10 * PART).value.id
        for at in range(0, 2 * PART + 500, 500):
            engine.patch(upload_id, at, data[at : at + 500])
        cluster.bucket.part_size = PART
        other = cluster.engine()
        offset = cluster.stored(upload_id).offset
        assert other.patch(upload_id, offset, data[offset : offset + 600]).value.offset == offset + 600
        assert cluster.content(upload_id) == data[: offset + 600]
        assert engine.patch(upload_id, offset + 600, data[offset + 600 :]).value.finished
        assert cluster.object(upload_id) == data

    def test_a_length_that_the_store_cannot_hold_is_told_with_413(self, make):
        cluster = make(Shape(limits=evolve(S3.limits, parts=4, largest_part=PART)))
        engine = cluster.engine()
        upload_id = engine.create(10 * PART).value.id
        answer = engine.patch(upload_id, 0, body := FakeBody(10 * PART))
        body.arrive(pattern(10 * PART))
        cluster.advance(1)
        assert answer.status == 413
        assert engine.context.holds.count == 0


class TestNumbers:
    def test_they_follow_each_other_as_long_as_each_append_ends_in_order(self, cluster):
        one, two, data = cluster.engine(), cluster.engine(), pattern(6 * PART)
        upload_id = one.upload(data[: 2 * PART], 6 * PART)
        two.patch(upload_id, 2 * PART, data[2 * PART : 5 * PART])
        one.patch(upload_id, 5 * PART, data[5 * PART :])
        assert cluster.object(upload_id) == data
        numbers = [each.number for each in cluster.catalog.rows.rows[upload_id].parts]
        assert numbers in ([], [1, 2, 3, 4, 5, 6])

    def test_a_part_of_a_frozen_append_lands_under_a_number_that_nobody_completes(self, cluster):
        frozen, other, data = cluster.engine(), cluster.engine(), pattern(4 * PART)
        upload_id = frozen.create(4 * PART).value.id
        waiting = hold(cluster, "write_part")
        frozen.patch(upload_id, 0, body := FakeBody(4 * PART))
        body.arrive(b"x" * (2 * PART + 7))
        cluster.pump()
        assert len(waiting) == 2
        frozen.freeze()
        late = [waiting.pop(), waiting.pop()]
        answer = other.patch(upload_id, 0, data[: 3 * PART])
        while waiting:
            go(cluster, waiting)
        cluster.advance(1)
        while waiting:
            go(cluster, waiting)
        assert answer.value.offset == 3 * PART
        assert [each.number for each in cluster.stored(upload_id).parts] == [17, 18, 19]
        for each in late:
            each.callback(None)
        cluster.pump()
        assert cluster.content(upload_id) == data[: 3 * PART]
        frozen.thaw()
        cluster.advance(5)
        while waiting:
            go(cluster, waiting)
        last = other.patch(upload_id, 3 * PART, data[3 * PART :])
        while waiting:
            go(cluster, waiting)
        cluster.advance(2)
        assert last.value.finished
        assert cluster.object(upload_id) == data

    def test_each_is_reserved_before_it_is_sent(self, cluster):
        """More than are reserved at a time: the rows of the rig see that none is recorded without."""
        engine, data = cluster.engine(), pattern(40 * PART)
        upload_id = engine.create(40 * PART).value.id
        highest: list[tuple[int, int]] = []
        row = cluster.catalog.rows.rows[upload_id]
        write = cluster.bucket._write_part

        def watched(key, handle, number, name, given):
            highest.append((number, row.reserved))
            return write(key, handle, number, name, given)

        cluster.bucket._write_part = watched
        engine.patch(upload_id, 0, data)
        assert cluster.object(upload_id) == data
        assert len(highest) == 40
        assert all(number <= reserved for number, reserved in highest)

    def test_one_that_a_commit_under_way_reserves_is_no_other_appends(self, cluster):
        engine, data = cluster.engine(), pattern(20 * PART)
        upload_id = engine.create(20 * PART).value.id
        side, answers = engine.context.catalog, []
        commit = side.commit

        def unheard(*args):
            answers.append((commit(*args), answer := Deferred()))
            return answer

        def hear():
            while answers:
                landed, answer = answers.pop(0)
                landed.chainDeferred(answer)
            cluster.pump()

        side.commit = unheard
        appended = engine.patch(upload_id, 0, body := FakeBody(20 * PART))
        parts = [data[at : at + PART] for at in range(0, len(data), PART)]
        engine.clock.rightNow += 1
        for part in parts[:16]:
            body.arrive(part)
            cluster.pump()
        engine.clock.rightNow += 1
        hear()
        body.arrive(parts[16])
        cluster.pump()
        engine.clock.rightNow += 1
        for part in parts[17:]:
            body.arrive(part)
            cluster.pump()
        side.commit = commit
        hear()
        cluster.advance(5)
        assert appended.value.finished
        assert cluster.object(upload_id) == data

    def test_an_append_without_parts_takes_none(self, cluster):
        engine, data = cluster.engine(), pattern(LONG)
        upload_id = engine.create(4 * PART).value.id
        engine.patch(upload_id, 0, body := FakeBody(4 * PART))
        body.arrive(data)
        engine.head(upload_id)
        body.lose()
        cluster.advance(1)
        assert cluster.stored(upload_id).offset == LONG
        assert cluster.stored(upload_id).reserved == 0

    @pytest.mark.parametrize("known", [0, PART, 2 * PART + 100])
    @pytest.mark.parametrize("down", [False, True])
    def test_those_that_the_store_refuses_are_free_again(self, make, known, down):
        """A client that tries again for hours, while the store takes no part, does not use its upload up."""
        cluster = make(S3)
        engine, data = cluster.engine(), pattern(6 * PART)
        upload_id = engine.upload(data[:known], 6 * PART)
        before = cluster.stored(upload_id).reserved
        for _ in range(20):
            cluster.bucket.down = down
            cluster.bucket.fates_of["write_part"].extend([Fate.FAILS] * 16)
            answer = engine.patch(upload_id, known, data[known:])
            cluster.advance(10)
            assert answer.status == 503
        layout = cluster.stored(upload_id)
        assert (layout.offset, layout.reserved) == (known, before)
        cluster.bucket.down = False
        cluster.bucket.fates_of.clear()
        assert engine.patch(upload_id, known, data[known:]).value.finished
        cluster.advance(1)
        assert cluster.object(upload_id) == data

    def test_none_is_tried_while_the_store_is_known_not_to_work(self, make):
        cluster = make(S3)
        engine, data = cluster.engine(), pattern(4 * PART)
        context = engine.context.spool.context
        down = [True]
        object.__setattr__(context, "is_down", lambda: down[0])
        upload_id = engine.create(4 * PART).value.id
        sent(cluster)
        assert engine.patch(upload_id, 0, data[:-1]).status == 503
        assert engine.patch(upload_id, 0, data[:500]).value.offset == 500, "a piece needs no store"
        assert sent(cluster) == {}
        assert cluster.stored(upload_id).reserved == 0
        down.clear()
        down.append(False)
        assert engine.patch(upload_id, 500, data[500:]).value.finished
        cluster.advance(1)
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("fate", [Fate.LATE, Fate.UNHEARD])
    def test_those_under_which_a_part_may_still_come_are_lost_and_no_others(self, make, fate):
        cluster = make(S3)
        engine, data = cluster.engine(), pattern(6 * PART)
        upload_id = engine.create(6 * PART).value.id
        cluster.bucket.fates_of["write_part"].extend([fate] * 16)
        answer = engine.patch(upload_id, 0, data)
        cluster.advance(10)
        assert answer.status == 503
        assert cluster.stored(upload_id).reserved == AT_ONCE
        cluster.bucket.fates_of.clear()
        assert engine.patch(upload_id, 0, data[: 3 * PART]).value.offset == 3 * PART
        assert cluster.stored(upload_id).reserved == AT_ONCE + 3
        while cluster.bucket._late:
            cluster.bucket.land(0)
        assert engine.patch(upload_id, 3 * PART, data[3 * PART :]).value.finished
        cluster.advance(1)
        assert cluster.object(upload_id) == data

    def test_a_multipart_whose_record_lost_is_abandoned(self, cluster):
        slow, other, data = cluster.engine(), cluster.engine(), pattern(3 * PART)
        upload_id = slow.create(3 * PART).value.id
        waiting = hold(cluster, "begin")
        late = slow.patch(upload_id, 0, body := FakeBody(3 * PART))
        body.arrive(data[: 2 * PART])
        cluster.pump()
        mine = waiting.pop()
        answer = other.patch(upload_id, 0, data)
        go(cluster, waiting)
        assert answer.value.finished
        mine.callback(None)
        cluster.advance(5)
        assert late.status == 423
        assert cluster.bucket.unfinished == []
        assert cluster.object(upload_id) == data

"""Appends whose bytes go to an object store, and the scratch that they share on the way."""

from __future__ import annotations

import itertools
import os

import pytest
from twisted.internet.defer import Deferred

from resumable.spool.objects.scratch import Scratch
from resumable.testing.memory_catalog import Fate
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import pattern, sha1
from tests.uploads.object_cluster import (
    KIB,
    MOST_IN_ROW,
    PART,
    SMALL,
    Shape,
    go,
    hold,
)

LONG = SMALL + 100
S3 = Shape()
BLOCKS = Shape(numbered=False)
COMPOSE = Shape(numbered=False, part_objects=True)


class TestScratch:
    def test_a_full_scratch_pauses_clients_and_is_relieved_by_pieces(self, make):
        cluster = make(Shape(scratch=3 * KIB))
        engine = cluster.engine()
        scratch: Scratch = engine.context.spool.context.scratch
        datas = [pattern(PART * 2, seed) for seed in range(4)]
        ids = [engine.create(2 * PART).value.id for _ in datas]
        bodies = [FakeBody(2 * PART) for _ in datas]
        answers = [engine.patch(each, 0, body) for each, body in zip(ids, bodies, strict=True)]
        most = 0
        for at in range(0, 2 * PART, 256):
            for body, data in zip(bodies, datas, strict=True):
                body.arrive(data[at : at + 256])
            cluster.pump()
            most = max(most, scratch.used)
        cluster.advance(5)
        assert [each.value.finished for each in answers] == [True] * 4
        assert {each for body in bodies for each in body.events} >= {"pause", "resume"}
        cluster.advance(5)
        for upload_id, data in zip(ids, datas, strict=True):
            assert cluster.object(upload_id) == data
        assert most <= 3 * KIB + 4 * (PART + 2 * KIB), "what is loaded of a tail for a part comes on top"

    def test_appends_that_were_committing_when_it_got_full_are_relieved_after_that(self, make):
        cluster = make(Shape(scratch=10 * KIB))
        engine, data = cluster.engine(), pattern(3 * PART)
        ids = [engine.create(3 * PART).value.id for _ in range(3)]
        bodies = [FakeBody(3 * PART) for _ in ids]
        commit, unheard = engine.context.catalog.commit, []

        def slow(*args):
            unheard.append((commit(*args), answer := Deferred()))
            return answer

        engine.context.catalog.commit = slow
        answers = [engine.patch(each, 0, body) for each, body in zip(ids, bodies, strict=True)]
        engine.clock.rightNow += 1
        for body in bodies:
            body.arrive(data[: PART + 1500])
            cluster.pump()
        for body in bodies:
            body.arrive(data[PART + 1500 : 2 * PART - 500])
        cluster.pump()
        assert engine.context.spool.context.scratch.full
        assert len(unheard) == 3
        engine.context.catalog.commit = commit
        for landed, answer in unheard:
            landed.chainDeferred(answer)
        cluster.pump()
        for body in bodies:
            body.arrive(data[2 * PART - 500 :])
        cluster.advance(5)
        assert [each.value.finished for each in answers] == [True] * 3
        assert [cluster.object(each) for each in ids] == [data] * 3

    def test_those_that_begin_while_it_is_full_are_relieved_as_well(self, make):
        cluster = make(Shape(scratch=3 * KIB))
        engine, data = cluster.engine(), pattern(2 * PART)
        ids = [engine.create(2 * PART).value.id for _ in range(5)]
        bodies = [FakeBody(2 * PART) for _ in ids]
        waiting, answers = hold(cluster, "write"), []
        for number, (each, body) in enumerate(zip(ids, bodies, strict=True)):
            answers.append(engine.patch(each, 0, body))
            body.arrive(data[: KIB + 600])
            cluster.pump()
            assert engine.context.spool.context.scratch.full == (number > 0)
        while waiting:
            go(cluster, waiting)
        for body in bodies:
            body.arrive(data[body._arrived :])
        for _ in range(50):
            go(cluster, waiting) if waiting else cluster.advance(1)
        assert [each.value.finished for each in answers] == [True] * 5

    def test_bytes_that_a_put_reads_stay_when_scratch_is_full(self, make):
        cluster = make(Shape(scratch=6 * KIB))
        engine, data = cluster.engine(), pattern(3 * KIB)
        upload_id = engine.upload(data[:600], len(data))
        real = engine.context.spool.context.scratch
        waiting: list = []
        run = engine.pool.run

        def slow(f, *args, **kwargs):
            """The PUT reads its bytes after others have filled scratch."""
            if getattr(f, "__name__", "") == "read" and not waiting:
                waiting.append(None)
                for user in tuple(real._users):
                    user.relieve()
            return run(f, *args, **kwargs)

        engine.pool.run = slow
        assert engine.patch(upload_id, 600, data[600:]).value.finished
        cluster.advance(1)
        assert waiting
        assert cluster.object(upload_id) == data

    def test_bytes_are_given_back_before_they_are_fetched_again(self, make):
        """Threads of a pool overtake each other: a hole that is punched later would be in the part."""
        cluster = make(Shape(scratch=3 * KIB))
        engine, data = cluster.engine(), pattern(2 * PART)
        ids = [engine.create(2 * PART).value.id for _ in range(2)]
        run, late = engine.pool.run, []

        def overtaking(f, *args, **kwargs):
            name = getattr(f, "__name__", "")
            if name == "punch" and args[0].cost > KIB + 500:
                late.append((done := Deferred(), f, args))
                return done
            asked = run(f, *args, **kwargs)
            if name == "place":
                asked.addCallback(lambda _: catch_up())
            return asked

        def catch_up():
            while late:
                done, f, args = late.pop()
                f(*args)
                done.callback(None)

        engine.pool.run = overtaking
        bodies = [FakeBody(2 * PART) for _ in ids]
        answers = [engine.patch(each, 0, body) for each, body in zip(ids, bodies, strict=True)]
        for at, size in enumerate((2 * KIB - 24, KIB + 400)):
            bodies[at].arrive(data[:size])
        cluster.pump()
        assert late
        for at, size in enumerate((2 * KIB - 24, KIB + 400)):
            bodies[at].arrive(data[size:])
        cluster.pump()
        catch_up()
        cluster.advance(5)
        assert [each.value.finished for each in answers] == [True, True]
        assert [cluster.object(each) for each in ids] == [data, data]

    @pytest.mark.parametrize("lends", ["lend", "lend_file"])
    def test_bytes_that_a_thread_still_sends_stay_whatever_the_store_has_said(self, make, lends):
        """A request that was given up may go on for a moment, in a thread, while the next one has been answered."""
        cluster = make(Shape(scratch=1 << 20))
        engine, data = cluster.engine(), pattern(12 * PART)
        store = engine.context.spool.context.store
        write_part, lent = store.write_part, []

        def lending(key, handle, number, name, region):
            if not lent:
                lent.append(getattr(region, lends)())
            return write_part(key, handle, number, name, region)

        def first():
            if lends == "lend":
                return lent[0].read(0, PART)
            fd, position = lent[0].file
            return os.pread(fd, PART, position)

        store.write_part = lending
        upload_id = engine.create(len(data)).value.id
        answer = engine.patch(upload_id, 0, body := FakeBody(len(data)))
        for at in range(0, 11 * PART, KIB):
            body.arrive(data[at : at + KIB])
            cluster.pump()
        assert first() == data[:PART]
        file = engine.context.spool.context.scratch
        before = file.used
        lent[0].give_back()
        lent[0].give_back()
        cluster.pump()
        assert file.used <= before
        body.arrive(data[11 * PART :])
        cluster.advance(1)
        assert answer.value.finished
        assert cluster.object(upload_id) == data

    def test_a_piece_that_a_thread_still_sends_stays_in_the_part_that_it_goes_into(self, make):
        """Scratch was full when the piece was stored: what is dropped late must not be what was fetched again since."""
        cluster = make(Shape(scratch=3 * KIB))
        engine, data = cluster.engine(), pattern(2 * PART)
        store = engine.context.spool.context.store
        write, write_part, lent = store.write, store.write_part, []

        def lending(name, region):
            if not lent:
                lent.append(region.lend())
            return write(name, region)

        def sending(*given):
            lent[0].give_back()
            return write_part(*given)

        store.write, store.write_part = lending, sending
        ids = [engine.create(2 * PART).value.id for _ in range(2)]
        bodies = [FakeBody(2 * PART) for _ in ids]
        answers = [engine.patch(each, 0, body) for each, body in zip(ids, bodies, strict=True)]
        for body, size in zip(bodies, (1600, 1900), strict=True):
            body.arrive(data[:size])
            cluster.pump()
        assert [cluster.stored(each).offset for each in ids] == [1600, 1900]
        assert lent
        for body in reversed(bodies):  # the piece that is lent is the larger one
            body.arrive(data[body._arrived :])
            cluster.pump()
        cluster.advance(5)
        assert [each.value.finished for each in answers] == [True] * 2
        assert [cluster.object(each) for each in ids] == [data] * 2

    def test_a_full_scratch_is_relieved_of_it_once_it_is_given_back(self, make):
        cluster = make(Shape(scratch=3 * KIB, equal=True))
        engine, data = cluster.engine(), pattern(2 * PART)
        store, scratch = engine.context.spool.context.store, engine.context.spool.context.scratch
        write, lent = store.write, []

        def lending(name, region):
            if not lent:
                lent.append(region.lend())
            return write(name, region)

        store.write = lending
        upload_id = engine.create(2 * PART).value.id
        answer = engine.patch(upload_id, 0, body := FakeBody(2 * PART))
        body.arrive(data[: 3 * KIB])
        cluster.pump()
        assert (cluster.stored(upload_id).offset, scratch.full) == (3 * KIB, True)
        lent[0].give_back()
        cluster.pump()
        assert (scratch.used, scratch.full) == (0, False)
        assert body.events[-1] == "resume"
        body.arrive(data[3 * KIB :])
        cluster.advance(5)
        assert answer.value.finished
        assert cluster.object(upload_id) == data

    def test_what_was_asked_to_make_room_while_it_ends_takes_none_afterwards(self, make):
        cluster = make(Shape(scratch=16 * KIB))
        engine, data = cluster.engine(), pattern(4 * PART)
        ids = [engine.create(4 * PART).value.id for _ in range(2)]
        bodies = [FakeBody(4 * PART) for _ in ids]
        ended = engine.patch(ids[0], 0, bodies[0])
        bodies[0].arrive(data[: PART + MOST_IN_ROW])
        cluster.pump()
        run, waiting = engine.pool.run, []

        def slow(f, *args, **kwargs):
            if f not in (closing.close, closing.punch):
                return run(f, *args, **kwargs)
            waiting.append((done := Deferred(), f, args))
            return done

        scratch, held = engine.context.spool.context.scratch, hold(cluster, "write_part")
        closing = next(iter(scratch._users))._scratch_file
        engine.pool.run = slow
        bodies[0].lose()
        cluster.pump()
        assert [f.__name__ for _, f, _ in waiting] == ["close"]
        answer = engine.patch(ids[1], 0, bodies[1])
        bodies[1].arrive(data[: 3 * PART])
        cluster.pump()
        while waiting:
            done, f, args = waiting.pop(0)
            done.callback(f(*args))
            cluster.pump()
        assert ended.done
        assert scratch.used == 3 * PART, "of the other one"
        engine.pool.run = run
        bodies[1].arrive(data[3 * PART :])
        for _ in range(50):
            go(cluster, held) if held else cluster.advance(1)
        assert answer.value.finished

    def test_a_body_with_a_checksum_does_not_fail_for_room_that_others_keep(self, make):
        cluster = make(Shape(scratch=16 * KIB))
        engine, data = cluster.engine(), pattern(12 * PART)
        ids = [engine.create(size).value.id for size in (12 * PART, 10 * KIB)]
        engine.patch(ids[0], 0, going := FakeBody(12 * PART))
        waiting = hold(cluster, "write_part")
        going.arrive(data[: 2 * PART])
        cluster.pump()
        while waiting:
            go(cluster, waiting)
        scratch = engine.context.spool.context.scratch
        assert scratch.used == 2 * PART, "kept"
        checked = data[: 10 * KIB]
        answer = engine.patch(ids[1], 0, body := FakeBody(10 * KIB), checksum=sha1(checked))
        for at in range(0, len(checked), KIB):
            body.arrive(checked[at : at + KIB])
            cluster.pump()
        for _ in range(20):
            go(cluster, waiting) if waiting else cluster.advance(1)
        assert answer.value.finished
        assert cluster.object(ids[1]) == checked
        going.lose()

    @pytest.mark.parametrize("size", [MOST_IN_ROW, 1500])
    def test_a_piece_under_way_keeps_its_bytes_though_a_part_with_them_is_confirmed(self, make, size):
        """A look has begun it, and the client sent on: a thread has it read late, or it is tried again."""
        cluster = make(Shape(scratch=1 << 20))
        engine, data = cluster.engine(), pattern(4 * PART)
        upload_id = engine.create(4 * PART).value.id
        answer = engine.patch(upload_id, 0, body := FakeBody(4 * PART))
        cluster.bucket.fates_of["write"].append(Fate.FAILS)
        run, reads = engine.pool.run, []

        def slow(f, *args, **kwargs):
            if f.__name__ != "read" or size > MOST_IN_ROW or reads:
                return run(f, *args, **kwargs)
            reads.append((done := Deferred(), f, args))
            return done

        body.arrive(data[:size])
        cluster.pump()
        engine.pool.run = slow
        head = engine.head(upload_id)
        assert not head.done
        body.arrive(data[size : 2 * PART + 100])
        cluster.pump()
        for done, f, args in reads:
            run(f, *args).chainDeferred(done)
        cluster.advance(1)
        assert head.value.offset >= size
        body.arrive(data[2 * PART + 100 :])
        cluster.advance(1)
        assert answer.value.finished
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("steps", [1, 3])
    def test_a_long_append_takes_the_room_of_a_few_parts(self, make, steps):
        cluster = make(Shape(scratch=1 << 20))
        engine, data = cluster.engine(), pattern(60 * PART)
        upload_id = engine.create(len(data)).value.id
        answer = engine.patch(upload_id, 0, body := FakeBody(len(data)))
        scratch, most = engine.context.spool.context.scratch, 0
        for at in range(0, len(data), steps * KIB):
            body.arrive(data[at : at + steps * KIB])
            cluster.pump()
            most = max(most, scratch.used)
        cluster.advance(1)
        assert answer.value.finished
        assert cluster.object(upload_id) == data
        assert PART <= most <= 6 * PART

    def test_room_that_an_append_keeps_is_given_back_when_others_need_it(self, make):
        cluster = make(Shape(scratch=16 * KIB))
        engine, data = cluster.engine(), pattern(4 * PART)
        ids = [engine.create(4 * PART).value.id for _ in range(2)]
        bodies = [FakeBody(4 * PART) for _ in ids]
        answers = [engine.patch(each, 0, body) for each, body in zip(ids, bodies, strict=True)]
        bodies[0].arrive(data[: PART + 10])
        cluster.pump()
        scratch = engine.context.spool.context.scratch
        assert scratch.used == PART + 10, "of the part that is confirmed"
        waiting = hold(cluster, "write_part")
        bodies[1].arrive(data[: 3 * PART])
        cluster.pump()
        assert scratch.used == 3 * PART + 10, "what was kept is gone"
        for body in bodies:
            body.arrive(data[body._arrived :])
        for _ in range(50):
            go(cluster, waiting) if waiting else cluster.advance(1)
        assert [each.value.finished for each in answers] == [True] * 2
        assert [cluster.object(each) for each in ids] == [data] * 2

    @pytest.mark.parametrize("operation", ["begin", "write_part", "write", "put", "open"])
    @pytest.mark.parametrize("shape", [S3, COMPOSE])
    @pytest.mark.parametrize("fate", [Fate.FAILS, Fate.UNHEARD, Fate.LATE])
    def test_it_is_given_back_whichever_request_fails_for_good(self, make, shape, operation, fate):
        """The client is told to come again, and nothing counts that the store doesn't have."""
        cluster = make(shape)
        engine, data = cluster.engine(), pattern(3 * PART)
        upload_id = engine.upload(data[: MOST_IN_ROW + 10], 3 * PART)
        cluster.bucket.fates_of[operation].extend([fate] * 12)
        answer = engine.patch(upload_id, MOST_IN_ROW + 10, data[MOST_IN_ROW + 10 : 2 * PART + MOST_IN_ROW + 10])
        cluster.advance(10)
        reached = len(cluster.bucket.fates_of[operation]) < 12
        assert answer.done
        if reached:
            assert answer.status == 503
            assert answer.error.headers["Retry-After"]
        cluster.check_given_back()
        row = cluster.stored(upload_id)
        assert cluster.content(upload_id) == data[: row.offset]
        cluster.bucket.fates_of.clear()
        cluster.bucket.land()
        assert engine.patch(upload_id, row.offset, data[row.offset :]).value.finished
        cluster.advance(1)
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("fate", [Fate.FAILS, Fate.UNHEARD])
    @pytest.mark.parametrize("step", range(6))
    def test_it_is_given_back_whichever_step_of_the_catalog_fails(self, cluster, step, fate):
        engine, data = cluster.engine(), pattern(3 * PART)
        upload_id = engine.upload(data[:300], 3 * PART)
        engine.context.catalog.fates.extend([Fate.LANDS] * step + [fate])
        answer = engine.patch(upload_id, 300, data[300 : 2 * PART + 300])
        cluster.advance(10)
        engine.context.catalog.fates.clear()
        assert answer.done
        assert answer.error is None or answer.status in (423, 503)
        cluster.check_given_back()
        row = cluster.stored(upload_id)
        assert cluster.content(upload_id) == data[: row.offset]
        assert engine.patch(upload_id, row.offset, data[row.offset :]).value.finished
        cluster.advance(1)
        assert cluster.object(upload_id) == data

    @pytest.mark.parametrize("how", ["lose", "newer here", "newer elsewhere", "delete", "stop"])
    @pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21])
    def test_it_is_given_back_however_the_append_ends(self, cluster, how, turns):
        engine, other, data = cluster.engine(), cluster.engine(), pattern(4 * PART)
        upload_id = engine.upload(data[:300], 4 * PART)
        answer = engine.patch(upload_id, 300, body := FakeBody(4 * PART - 300))
        body.arrive(data[300 : 2 * PART + 300])
        for _ in range(turns):
            if due := cluster.due():
                cluster.turn(due[turns % len(due)])
        if how == "lose":
            body.lose()
        elif how == "delete":
            engine.delete(upload_id)
        elif how == "stop":
            engine.ask(engine.uploads.appends.stop())
        else:
            newer = engine if how == "newer here" else other
            newer.patch(upload_id, newer.row(upload_id).offset, FakeBody(10))
        cluster.advance(3)
        if not answer.done:
            body.arrive(data[2 * PART + 300 : 2 * PART + 301])
        cluster.advance(3)
        if how in ("lose", "delete", "stop"):
            assert answer.done
            cluster.check_given_back([engine])
        row = engine.row(upload_id)
        if row.gone is None:
            assert cluster.content(upload_id) == data[: row.offset]

    def test_a_descriptor_is_not_closed_while_a_thread_uses_it(self, cluster):
        engine, data = cluster.engine(), pattern(2 * PART)
        upload_id = engine.create(3 * PART).value.id
        disk = engine.context.spool.context.scratch.disk
        engine.patch(upload_id, 0, body := FakeBody(3 * PART))
        body.arrive(data)
        for count in itertools.count():
            if not cluster.due():
                break
            if count == 6:
                body.lose()
                for part in (engine.context.holds._holds.copy().popitem()[1].holder._sink._parts,):
                    part.stop()
            cluster.turn(cluster.due()[0])
        cluster.advance(5)
        cluster.check_given_back()
        assert disk.closed > 0

    def test_the_store_is_down_for_long(self, cluster):
        engine, data = cluster.engine(), pattern(3 * PART)
        upload_id = engine.upload(data[:300], 3 * PART)
        cluster.bucket.down = True
        answer = engine.patch(upload_id, 300, data[300:])
        cluster.advance(10)
        assert answer.status == 503
        assert int(answer.error.headers["Retry-After"]) > 0
        assert engine.head(upload_id).value.offset == 300
        cluster.bucket.down = False
        assert engine.patch(upload_id, 300, data[300:]).value.finished
        assert cluster.object(upload_id) == data

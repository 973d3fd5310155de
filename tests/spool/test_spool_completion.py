"""A finished upload becomes one object with its bytes, whoever dies, freezes, comes twice or hears nothing."""

from __future__ import annotations

import re
from random import Random

import pytest
from attrs import evolve
from twisted.internet.defer import fail, succeed

from resumable.model.upload import FactKind
from resumable.remotes.errors import Permanent
from resumable.remotes.regions import BytesRegion
from tests.spool.completion_bench import DATA, DAY, ID, LIMITS, PART, PREFIX, Bench

KEY = PREFIX + ID
SHAPES = {
    "nothing": {},
    "a tail": {"pieces": (7, -5, 8)},
    "a large tail": {"pieces": (30, -25)},
    "parts": {"parts": (20, 20)},
    "parts and a tail": {"parts": (20, 20), "pieces": (7, -3)},
}
STORES = {
    "as S3": {},
    "without conditions": {"conditional": False},
    "equal parts": {"equal": True},
    "blocks": {"numbered": False},
    "parts are objects": {"part_objects": True},
}
LATER = 3600.0
"""Seconds after which everything that has failed is tried again."""
shapes = pytest.mark.parametrize("shape", SHAPES)
stores = pytest.mark.parametrize("store", STORES)
unlike_stores = pytest.mark.parametrize("store", [each for each in STORES if each != "equal parts"])
FATES = ("failed", "unheard", "late")


@pytest.fixture
def make():
    """Makes benches."""
    benches = []

    def made(store="as S3"):
        benches.append(Bench(**STORES[store]))
        return benches[-1]

    yield made
    for bench in benches:
        bench.close()


def length(shape):
    return sum(map(abs, (*SHAPES[shape].get("parts", ()), *SHAPES[shape].get("pieces", ()))))


def begun(make, shape, store="as S3"):
    """A bench with the upload, and a worker that has been told of it."""
    bench = make(store)
    bench.upload(**SHAPES[shape])
    worker = bench.worker("w1")
    worker.completer.wake(ID)
    return bench, worker


def finish(bench, name="w9"):
    """Another worker sweeps until nothing is left to do."""
    bench.claims.clear()
    worker = bench.worker(name)
    for _ in range(2):
        bench.clock.advance(LATER)
        bench.result(worker, worker.completer.sweep())
    return worker


def check(bench, shape):
    """The object is there, and recorded, with all bytes."""
    row = bench.row()
    assert row.whole and not row.parts and not row.pieces
    assert bench.content() == DATA[: length(shape)]
    assert row.made["size"] == length(shape) and row.made["upload_id"] == ID


def check_alone(bench, worker, expected=(KEY,)):
    """Nothing else is in the store after a day, not even what is late."""
    bench.land()
    for _ in range(2):
        bench.clock.advance(DAY + 1)
        bench.sweep(worker)
    assert tuple(bench.keys) == tuple(expected)
    assert bench.multiparts == []


# -- what becomes of it


@shapes
@stores
def test_an_upload_becomes_its_object_and_nothing_else_stays(make, shape, store):
    bench, worker = begun(make, shape, store)
    worker.go()
    check(bench, shape)
    assert (worker.completer.completed, worker.completer.stuck) == (1, 0)
    check_alone(bench, worker)


def test_a_tail_that_fits_one_part_takes_one_request(make):
    bench, worker = begun(make, "a tail")
    worker.go()
    assert [each for each in worker.asked if hasattr(bench.store, each)] == ["open", "put"]


def test_the_scratch_of_parts_is_bounded_and_given_back(make):
    bench, worker = begun(make, "a large tail")
    worker.go()
    assert worker.completion._room.used == 0
    assert (bench.opened, bench.disk.open) == (3, set())


def test_parts_gathered_for_larger_ones_become_several(make):
    bench, worker = begun(make, "a large tail")
    while not bench.row().parts:
        worker.step()
    assert [each.size for each in bench.row().parts] == [PART, PART, 15]
    assert [each.number for each in bench.row().parts] == [1, 2, 3]


def test_the_last_part_has_a_number_that_nobody_can_have_used(make):
    bench = make()
    bench.upload(**SHAPES["parts and a tail"])
    assert bench.now(bench.catalog.reserve(ID, bench.row().epoch, 9))  # of a worker that has died since
    worker = bench.worker("w1")
    worker.completer.wake(ID)
    while len(bench.row().parts) < 3:
        worker.step()
    assert bench.row().parts[-1].number == 10
    worker.go()
    check(bench, "parts and a tail")


def test_an_upload_that_is_gone_or_whole_asks_the_store_for_nothing(make):
    bench, worker = begun(make, "a tail")
    bench.end()
    worker.go()
    assert bench.keys == [each for each in bench.keys if "/.tails/" in each]
    bench, worker = begun(make, "a tail")
    worker.go()
    worker.asked.clear()
    worker.completer.wake(ID)
    worker.go()
    assert worker.asked == ["of"]


# -- what goes wrong


@shapes
@unlike_stores
def test_another_goes_on_where_a_worker_dies_between_any_two_steps(make, shape, store):
    step, died = 0, True
    while died:
        step += 1
        bench, worker = begun(make, shape, store)
        for _ in range(step):
            if worker.requests:
                worker.step()
        died = bool(worker.requests)
        other = finish(bench)
        check(bench, shape)
        check_alone(bench, other)
    assert step > 6


@shapes
@unlike_stores
@pytest.mark.parametrize("fate", FATES)
def test_whichever_answer_is_lost_the_object_gets_there(make, shape, store, fate):
    at, lost = 0, True
    while lost:
        bench, worker = begun(make, shape, store)
        worker.fates.extend(["done"] * at + [fate])
        if at == 0:  # it was asked before the fates were said
            worker.requests[0].fate = worker.fates.popleft()
        worker.go()
        lost = not worker.fates
        worker.fates.clear()
        other = finish(bench)
        check(bench, shape)
        bench.land()
        assert bench.content() == DATA[: length(shape)]
        check_alone(bench, other)
        at += 1
    assert at > 3


@shapes
@unlike_stores
def test_two_at_once_make_the_same_object(make, shape, store):
    for seed in range(6):
        random = Random(seed)
        bench, worker = begun(make, shape, store)
        bench.claims_lost = True
        other = bench.worker("w2")
        other.completer.wake(ID)
        while worker.requests or other.requests:
            random.choice([each for each in (worker, other) if each.requests]).step()
        if not bench.row().whole:
            finish(bench)
        check(bench, shape)
        assert worker.completer.lost == other.completer.lost == 0
        check_alone(bench, worker)


@shapes
@unlike_stores
@pytest.mark.parametrize("deleted", [False, True])
def test_one_that_was_frozen_does_no_harm_when_it_wakes(make, shape, store, deleted):
    step, frozen = 0, True
    while frozen:
        step += 1
        bench, worker = begun(make, shape, store)
        for _ in range(step):
            if worker.requests:
                worker.step()
        frozen = bool(worker.requests)
        other = finish(bench)
        check(bench, shape)
        if deleted:
            bench.end()
            assert bench.remove(other) == {}
            assert KEY not in bench.keys
        worker.go()
        if deleted:
            check_alone(bench, other, ())
        else:
            check(bench, shape)
            check_alone(bench, other)


@shapes
@unlike_stores
def test_what_is_late_until_the_upload_was_removed_goes_a_day_later(make, shape, store):
    at, lost = 0, True
    while lost:
        bench, worker = begun(make, shape, store)
        worker.fates.extend(["done"] * at + ["late"])
        if at == 0:
            worker.requests[0].fate = worker.fates.popleft()
        worker.go()
        lost = not worker.fates
        worker.fates.clear()
        bench.end()
        assert bench.remove(worker) == {}
        check_alone(bench, worker, ())
        at += 1


def test_an_answer_that_was_lost_is_found_at_once(make):
    for shape, asked in (("a tail", "put"), ("parts", "complete")):
        worker = begun(make, shape)[1]
        while worker.requests[0].name != asked:
            worker.step()
        worker.requests[0].fate = "unheard"
        worker.go()
        assert worker.completer.completed == 1 and worker.asked.count(asked) == 1


def test_an_appends_attempt_with_other_bytes_is_replaced(make):
    bench, worker = begun(make, "a tail")
    bench.now(bench.store.put(KEY, BytesRegion(b"x" * 20), bench.properties(token="an append's"), True))
    worker.go()
    check(bench, "a tail")
    assert worker.asked.count("complete") == 1  # a conflict could cost the parts


def test_another_uploads_object_is_never_touched(make, monkeypatch):
    """Nobody else can have drawn an upload's id; one that a hook has given may be anything."""
    monkeypatch.setattr("resumable.spool.objects.completion.DRAWN_ID", re.compile("nobody's"))
    for shape in SHAPES:
        for store in STORES:
            bench = make(store)
            bench.store._look = lambda *args: succeed(None)  # a store that replaces whatever there is
            bench.now(bench.store.put(KEY, BytesRegion(b"theirs"), bench.properties("c" * 32), True))
            bench.upload(**SHAPES[shape])
            worker = bench.worker("w1")
            worker.completer.wake(ID)
            worker.go()
            assert bench.content() == b"theirs" and not bench.row().whole
            assert worker.completer.stuck == 1
            bench.now(bench.store.remove([KEY]))
            finish(bench)
            check(bench, shape)


def test_lost_parts_are_counted_and_asked_for_again(make):
    bench = make()
    handle = bench.upload(**SHAPES["parts and a tail"])
    bench.now(bench.store.abandon(KEY, handle, ()))
    worker = bench.worker("w1")
    for count in (1, 2):
        bench.clock.advance(LATER)
        bench.result(worker, worker.completer.sweep())
        assert (worker.completer.stuck, worker.completer.lost) == (count, count)
    assert not bench.row().whole and bench.row().parts


def test_a_lost_piece_is_counted_as_well(make):
    bench, worker = begun(make, "a tail")
    bench.now(bench.store.remove([each for each in bench.keys if "/.tails/" in each]))
    worker.go()
    assert worker.completer.lost == 1 and bench.row().pieces and KEY not in bench.keys


def test_an_upload_without_numbers_left_is_stuck(make):
    bench = make()
    bench.upload(**SHAPES["parts and a tail"])
    assert bench.now(bench.catalog.reserve(ID, bench.row().epoch, LIMITS.parts))
    worker = bench.worker("w1")
    worker.completer.wake(ID)
    worker.go()
    assert (worker.completer.stuck, worker.completer.lost) == (1, 0)
    assert "write_part" not in worker.asked


def test_a_row_without_its_bytes_makes_no_object(make):
    bench, worker = begun(make, "a tail")
    bench.catalog.data_of = lambda upload_id, names: succeed({})
    worker.go()
    assert worker.completer.lost == 1 and KEY not in bench.keys and "put" not in worker.asked


def test_a_stream_is_closed(make):
    bench, worker = begun(make, "a tail")
    closed, open_ = [], bench.store.open

    def opened(*args):
        def watch(stream):
            stream.close = lambda: closed.append(args)
            return stream

        return open_(*args).addCallback(watch)

    bench.store.open = opened
    worker.go()
    assert len(closed) == 1


def test_a_refusal_for_good_is_told(make):
    bench, worker = begun(make, "parts")
    bench.store.complete = lambda *args, **kwargs: fail(Permanent("EntityTooSmall"))
    worker.go()
    assert worker.completer.stuck == 1


def test_a_stop_ends_it_after_the_step(make):
    bench, worker = begun(make, "a large tail")
    while "begin" not in worker.asked:
        worker.step()
    bench.result(worker, worker.completer.stop())
    assert "write_part" not in worker.asked and bench.row().multipart is not None
    assert worker.completion._room.used == 0
    finish(bench)
    check(bench, "a large tail")


# -- what two at once leave


def until(worker, name):
    """To where this is about to be asked."""
    while worker.requests[0].name != name or worker.requests[0].done:
        worker.step()
    return worker


def two_about(make, shape, name, store="as S3"):
    """Two workers that are about to ask the same."""
    bench, worker = begun(make, shape, store)
    bench.claims_lost = True
    other = bench.worker("w2")
    other.completer.wake(ID)
    return bench, until(worker, name), until(other, name)


def test_two_never_send_parts_under_one_number(make):
    bench, worker, other = two_about(make, "parts and a tail", "reserve")
    sent, write_part = [], bench.store.write_part

    def seen(key, handle, number, name, data):
        sent.append(number)
        return write_part(key, handle, number, name, data)

    bench.store.write_part = seen
    while worker.requests or other.requests:
        for each in (worker, other):
            if each.requests:
                each.step()
    check(bench, "parts and a tail")
    assert len(sent) == len(set(sent))


def test_of_two_multiparts_the_loser_abandons_its_own(make):
    bench, worker, other = two_about(make, "a large tail", "keep_multipart")
    worker.go()
    assert len(bench.multiparts) == 1
    other.go()
    assert bench.multiparts == []


def test_a_part_that_came_second_is_discarded(make):
    bench, worker, other = two_about(make, "parts and a tail", "add_last", "parts are objects")
    worker.go()
    other.go()
    bench.clock.advance(61)
    bench.result(worker, worker.sweeper.sweep_discarded())
    assert bench.keys == [KEY]


@pytest.mark.parametrize("removed", [False, True])
def test_what_was_made_for_one_that_is_gone_goes_at_once(make, removed):
    bench, worker = begun(make, "a tail")
    until(worker, "completed")
    bench.end()
    if removed:
        bench.remove(bench.worker("w2"))
        bench.now(bench.store.put(KEY, BytesRegion(b"late"), bench.properties(), True))
    assert KEY in bench.keys
    worker.go()
    assert KEY not in bench.keys


def test_a_partial_that_is_gone_may_be_a_finals_and_keeps_its_object(make):
    bench = make()
    bench.upload(**SHAPES["a tail"], partial=True)
    worker = bench.worker("w1")
    worker.completer.wake(ID)
    until(worker, "completed")
    bench.end()
    worker.go()
    assert bench.content(bench.names.key(ID, True)) == DATA[:20]


def test_an_upload_of_nothing_replaces_an_attempt_of_its_own_and_nothing_else(make):
    bench, worker = begun(make, "nothing")
    bench.now(bench.store.put(KEY, BytesRegion(b"x" * 5), bench.properties(), True))
    worker.go()
    check(bench, "nothing")
    bench, worker = begun(make, "nothing")
    until(worker, "put")
    bench.now(bench.store.put(KEY, BytesRegion(b"theirs"), bench.properties("c" * 32), True))
    worker.go()
    assert bench.content() == b"theirs"


# -- sizes


def sizes(bench, worker):
    found = {}
    while worker.requests:
        worker.step()
        found.update({each.start: each.size for each in bench.row().parts})
    return list(found.values())


def begin_with(bench, parts, pieces, reserved=0):
    bench.upload(parts, pieces)
    if reserved:
        assert bench.now(bench.catalog.reserve(ID, bench.row().epoch, reserved))
    worker = bench.worker("w1")
    worker.completer.wake(ID)
    return worker


def test_a_store_without_conditions_gets_no_whole_upload(make):
    _, worker = begun(make, "a tail", "without conditions")
    worker.go()
    assert "put" not in worker.asked and "complete" in worker.asked


def test_equal_parts_go_by_the_first_one(make):
    bench = make("equal parts")
    worker = begin_with(bench, (25, 25), (22,))
    assert sizes(bench, worker) == [25, 25, 22] and bench.row().whole


def test_parts_are_multiples_of_the_stores_unit(make):
    bench = make()
    bench.store.limits = evolve(LIMITS, multiple_of=8)
    worker = begin_with(bench, (), (50,))
    assert sizes(bench, worker) == [24, 24, 2] and bench.row().whole


def test_parts_are_as_large_as_the_numbers_that_are_left_demand(make):
    bench = make()
    worker = begin_with(bench, (20,), (55,), LIMITS.parts - 1)
    assert sizes(bench, worker) == [20, 55] and bench.row().whole


# -- what is told


def told(bench):
    return [each for each in bench.catalog.told if each.kind is FactKind.STORED]


def test_that_it_is_stored_is_told_where_no_remote_has_to_have_it(make):
    bench, worker = begun(make, "a tail")
    worker.go()
    (fact,) = told(bench)
    assert (fact.upload_id, fact.data["size"], fact.data["remote"]) == (ID, 20, None)


@pytest.mark.parametrize("more", [{"required": 1}, {"partial": True}])
def test_of_others_it_is_not_told(make, more):
    bench = make()
    bench.upload(**SHAPES["a tail"], **more)
    worker = bench.worker("w1")
    worker.completer.wake(ID)
    worker.go()
    assert bench.row().whole and told(bench) == []
    assert (worker.partials == [ID]) == bool(more.get("partial"))
    assert bool(worker.replicated) == bool(more.get("required"))

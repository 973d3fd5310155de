"""What is removed from the object store, and above all what isn't."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail

from resumable.model.upload import GoneReason, Upload
from resumable.remotes.errors import Throttled
from resumable.remotes.regions import BytesRegion
from resumable.spool.objects import object_sweeper
from resumable.spool.objects.errors import StoreFailed
from tests.spool.completion_bench import DATA, DAY, ID, OTHER, PREFIX, Bench

KEY = PREFIX + ID
TAIL = f"{PREFIX}.tails/{ID}/"


@pytest.fixture(params=["as S3", "parts are objects"])
def bench(request):
    bench = Bench(**({"part_objects": True} if request.param != "as S3" else {}))
    yield bench
    bench.close()


@pytest.fixture
def worker(bench):
    return bench.worker("w1")


def put(bench, key, upload_id=ID, data=b"late"):
    return bench.now(bench.store.put(key, BytesRegion(data), bench.properties(upload_id), True))


def write(bench, name):
    bench.now(bench.store.write(PREFIX + name, BytesRegion(b"piece")))


def a_day(bench, worker):
    bench.clock.advance(DAY + 1)
    bench.sweep(worker)


# -- of uploads that are gone


@pytest.mark.parametrize("partial", [False, True])
def test_all_that_an_unfinished_upload_has_goes(bench, worker, partial):
    bench.upload((20, 20), (7, -5), partial=partial)
    bench.end()
    assert bench.remove(worker) == {}
    assert bench.keys == [] and bench.multiparts == []


@pytest.mark.parametrize("partial", [False, True])
def test_the_object_of_a_whole_one_goes_whoever_made_it(bench, worker, partial):
    bench.upload((20,), (5,), partial=partial)
    worker.completer.wake(ID)
    worker.go()
    assert len([each for each in bench.keys if "/.tails/" not in each]) == 1
    bench.end()
    assert bench.remove(worker) == {}
    a_day(bench, worker)
    assert bench.keys == []


@pytest.mark.parametrize("partial", [False, True])
def test_so_does_that_of_one_of_which_no_layout_is_known(bench, worker, partial):
    bench.upload((), (5,), partial=partial)
    worker.completer.wake(ID)
    worker.go()
    bench.catalog.of_many = lambda ids: bench.catalog.get_many([])
    assert bench.result(worker, worker.removal.remove([ID])) == {}
    assert [each for each in bench.keys if "/.tails/" not in each] == []


def test_anothers_object_under_the_key_stays(bench, worker):
    bench.upload((20,), (5,))
    put(bench, KEY, "c" * 32, b"theirs")
    bench.end()
    assert bench.remove(worker) == {}
    a_day(bench, worker)
    assert bench.content() == b"theirs"


def test_an_upload_that_cannot_be_removed_keeps_no_other(bench, worker):
    bench.upload((20,), (5,))
    bench.upload((20,), (5,), upload_id=OTHER)
    bench.end()
    bench.end(OTHER)
    find = bench.store.find
    bench.store.find = lambda key: fail(Throttled("SlowDown", 3.0)) if key == KEY else find(key)
    errors = bench.remove(worker)
    assert list(errors) == [ID] and isinstance(errors[ID], StoreFailed)
    assert (errors[ID].strerror, errors[ID].retry_after) == ("SlowDown", 3.0)
    bench.store.find = find
    assert bench.remove(worker) == {}
    assert bench.keys == [] and bench.multiparts == []


def test_a_removal_that_was_cut_off_goes_on(bench):
    step, cut = 0, True
    while cut:
        step += 1
        upload_id = f"{step:032x}"
        bench.upload((20,), (7, -5), upload_id=upload_id)
        bench.end(upload_id)
        bench.clock.advance(61)
        first = bench.worker("w1")
        first.removal.remove([upload_id])
        for _ in range(step):
            if first.requests:
                first.step()
        cut = bool(first.requests)
        assert bench.remove(bench.worker("w2")) == {}
        first.go()
        assert bench.keys == [] and bench.multiparts == []


def test_an_id_that_no_upload_has_is_refused(worker):
    with pytest.raises(ValueError):
        worker.bench.result(worker, worker.removal.remove(["../x"]))


# -- what nobody names


def test_discarded_objects_go_a_minute_later(bench, worker):
    bench.upload((), (-5, -5))
    names = [each.removeprefix(PREFIX) for each in bench.keys]
    worker.completer.wake(ID)
    worker.go()
    bench.sweep(worker)
    assert set(names) < {each.removeprefix(PREFIX) for each in bench.keys}
    bench.clock.advance(61)
    bench.sweep(worker)
    assert bench.keys == [KEY]
    assert bench.now(bench.catalog.discarded(10)) == []


def test_what_a_sweep_that_was_stopped_has_not_removed_stays_known(bench, worker):
    bench.upload((), (-5, -5))
    worker.completer.wake(ID)
    worker.go()
    bench.clock.advance(61)
    discarded = bench.catalog.discarded
    bench.catalog.discarded = lambda limit: worker.sweeper.stop() or discarded(limit)
    bench.result(worker, worker.sweeper.sweep_discarded())
    bench.catalog.discarded = discarded
    assert [PREFIX + name for name in bench.now(discarded(10))] == [key for key in bench.keys if key != KEY]


def test_tails_that_no_row_names_go_when_they_are_a_day_old(bench, worker):
    bench.upload((), (-5, 3))
    (known,) = bench.keys
    write(bench, f".tails/{ID}/dead-1")
    bench.clock.advance(DAY - 1)
    write(bench, f".tails/{ID}/young-1")
    bench.sweep(worker)
    assert len(bench.keys) == 3
    bench.clock.advance(2)
    bench.sweep(worker)
    assert bench.keys == sorted([known, f"{TAIL}young-1"])


def test_a_name_that_was_recorded_since_the_list_stays(bench, worker):
    bench.upload((), (-5, 3))
    (known,) = bench.keys
    bench.clock.advance(DAY + 1)
    rows = bench.catalog.rows
    bench.catalog.rows = type(rows)()
    done = Deferred.fromCoroutine(worker.sweeper.sweep_unknown())
    worker.step()  # the list
    bench.catalog.rows = rows
    bench.result(worker, done)
    assert bench.keys == [known]


def test_pages_follow_each_other_and_a_stop_ends_the_sweep(bench, worker, monkeypatch):
    monkeypatch.setattr(object_sweeper, "PAGE", 3)
    for number in range(10):
        write(bench, f".tails/{ID}/dead-{number}")
    bench.clock.advance(DAY + 1)
    stopped = bench.worker("w2")
    done = Deferred.fromCoroutine(stopped.sweeper.sweep_unknown())
    stopped.step()
    stopped.sweeper.stop()
    bench.result(stopped, done)
    assert len(bench.keys) == 10
    bench.result(worker, worker.sweeper.sweep_unknown())
    assert bench.keys == [] and worker.sweeper.removed == 10


# -- multiparts


def begin(bench, key=KEY, upload_id=ID):
    return bench.now(bench.store.begin(key, bench.properties(upload_id, bench.names.token())))


def test_a_rows_multipart_stays_and_another_one_goes():
    bench = Bench()
    worker = bench.worker("w1")
    handle = bench.upload((20, 20), (5,))
    begin(bench)
    begin(bench, PREFIX + OTHER, OTHER)
    begin(bench, f"{PREFIX}by-hand", "by-hand")
    bench.clock.advance(DAY - 10)
    young = begin(bench)
    bench.clock.advance(11)
    bench.result(worker, worker.sweeper.sweep_unfinished())
    left = bench.multiparts
    assert sorted(each.key for each in left) == sorted([KEY, KEY, PREFIX + OTHER, f"{PREFIX}by-hand"])
    assert sum(bench.store.works_with(handle, each) for each in left) == 1
    assert sum(bench.store.works_with(young, each) for each in left) == 1
    assert not {"of", "of_many"} & set(worker.asked), "an upload may have thousands of parts"
    bench.close()


def test_the_multipart_of_a_partial_stays_as_long_as_a_final_needs_it():
    bench = Bench()
    worker = bench.worker("w1")
    bench.upload((20, 20), (5,), partial=True)
    bench.end()
    a_day(bench, worker)
    assert len(bench.multiparts) == 1


def test_a_multipart_begun_too_late_goes_and_that_of_a_lost_upload_stays():
    bench = Bench()
    worker = bench.worker("w1")
    bench.upload((), (5,))
    worker.completer.wake(ID)
    worker.go()
    bench.upload((), (5,), upload_id=OTHER)
    bench.end(OTHER)
    bench.remove(worker)
    begin(bench)
    begin(bench, PREFIX + OTHER, OTHER)
    lost = "c" * 32
    bench.upload((20,), (5,), upload_id=lost)
    bench.now(bench.catalog.end(lost, GoneReason.LOST))
    a_day(bench, worker)
    bench.now(bench.catalog.data_removed([lost]))
    a_day(bench, worker)
    assert [each.key for each in bench.multiparts] == [PREFIX + lost]


def test_the_multipart_of_one_that_became_whole_without_it_goes():
    bench = Bench()
    worker = bench.worker("w1")
    bench.upload()
    assert bench.now(bench.catalog.keep_multipart(ID, bench.row().epoch, begin(bench)))
    worker.completer.wake(ID)
    worker.go()
    assert bench.row().whole and bench.multiparts
    a_day(bench, worker)
    assert bench.multiparts == [] and bench.content() == b""


# -- objects that came late


@pytest.mark.parametrize("partial", [False, True])
def test_an_object_that_came_after_the_removal_goes_a_day_later(bench, worker, partial):
    bench.upload((), (5,), partial=partial)
    bench.end()
    bench.remove(worker)
    put(bench, bench.names.key(ID, partial))
    bench.sweep(worker)
    a_day(bench, worker)
    assert bench.keys == []


def test_so_does_that_of_a_dropped_upload(bench, worker):
    bench.upload((), (5,))
    row = bench.catalog.rows[ID]
    row.upload = evolve(row.upload, dropped_at=bench.clock.seconds())
    bench.now(bench.catalog.data_removed([ID]))
    put(bench, KEY)
    bench.sweep(worker)
    assert KEY in bench.keys
    a_day(bench, worker)
    assert bench.keys == []


def test_no_object_goes_of_which_that_is_not_certain(bench, worker):
    alive, unfinished, lost, unknown = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)
    bench.upload((), (5,), upload_id=alive)
    worker.completer.wake(alive)
    worker.go()
    bench.now(bench.catalog.create(Upload(unfinished, 0.0, 0.0, 50), (), ()))
    put(bench, PREFIX + unfinished, unfinished)
    bench.upload((), (5,), upload_id=lost)
    bench.now(bench.catalog.end(lost, GoneReason.LOST))
    bench.now(bench.catalog.data_removed([lost]))
    put(bench, PREFIX + lost, lost)
    put(bench, PREFIX + unknown, unknown)
    bench.upload((), (5,), upload_id="by-hand")
    bench.end("by-hand")
    bench.remove(worker)
    put(bench, f"{PREFIX}by-hand", "by-hand")
    needed = "f" * 32  # a partial that is gone, and that a final needs
    bench.upload((), (5,), upload_id=needed, partial=True)
    worker.completer.wake(needed)
    worker.go()
    bench.end(needed)
    put(bench, f"{PREFIX}deep/{'e' * 32}", "e" * 32)
    before = bench.keys
    for _ in range(3):
        a_day(bench, worker)
    assert bench.keys == before
    assert bench.content(PREFIX + alive) == DATA[:5]


def test_the_look_at_all_objects_goes_on_where_it_was_and_begins_anew_a_day_later(bench, worker, monkeypatch):
    monkeypatch.setattr(object_sweeper, "PAGE", 2)
    monkeypatch.setattr(object_sweeper, "PAGES", 2)
    ids = [f"{number:032x}" for number in range(7)]
    for each in ids:
        bench.upload((), (5,), upload_id=each)
        bench.end(each)
    bench.remove(worker)
    for each in ids:
        put(bench, PREFIX + each, each)
    left = []
    for _ in range(4):
        bench.result(worker, worker.sweeper.sweep_objects())
        left.append(len(bench.keys))
    assert left == [5, 1, 0, 0]
    put(bench, PREFIX + ids[3], ids[3])
    for _ in range(3):
        bench.result(worker, worker.sweeper.sweep_objects())
    assert len(bench.keys) == 1
    bench.clock.advance(DAY)
    for _ in range(2):
        bench.result(worker, worker.sweeper.sweep_objects())
    assert bench.keys == []


def test_a_store_that_fails_ends_the_sweep(bench, worker):
    write(bench, f".tails/{ID}/dead-1")
    bench.clock.advance(DAY + 1)
    bench.store.list = bench.down
    for sweep in (worker.sweeper.sweep_unknown, worker.sweeper.sweep_objects):
        with pytest.raises(StoreFailed):
            bench.result(worker, sweep())

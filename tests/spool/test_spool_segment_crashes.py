"""Segments when the machine, a process or the disk fails: what the catalog counts is readable, byte for byte."""

from __future__ import annotations

import contextlib
import errno
from random import Random

import pytest
from twisted.internet.defer import Deferred, gatherResults

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Upload
from resumable.spool.segments import segment_directory, segment_sweeper
from resumable.testing import SimulatedCrash
from resumable.testing.memory_catalog import Fate
from tests.spool.segment_bench import ID, OTHER, SimulatedBench

FINAL = "f" * 32
DATA = Random(7).randbytes(4000)


async def small_appends(engine):
    for start in range(0, 4000, 1000):
        await engine.small(DATA[start : start + 1000])


async def by_turns(engine):
    """Of two workers; the other one isn't cut off."""
    for at, start in enumerate(range(0, 4000, 1000)):
        await (engine if at % 2 else engine.other).small(DATA[start : start + 1000])
    await engine.joined()


async def long_append(engine):
    await engine.long(*[DATA[start : start + 500] for start in range(0, 4000, 500)])


async def small_then_long(engine):
    await engine.small(DATA[:700])
    await engine.long(DATA[700:2000], DATA[2000:])


async def whole(engine):
    await engine.create(OTHER, length=4000, data=DATA)


async def assembly(engine):
    await engine.other.small(DATA[:1500])
    await engine.small(DATA[1500:])
    await engine.catalog.create(Upload(FINAL, 0.0, 0.0))
    segment = await engine.assemble(FINAL, [(ID, 4000)])
    engine.finish_final(FINAL, segment)


async def gathering(engine):
    for at in range(66):
        await (engine if at % 2 else engine.other).small(DATA[at * 10 : at * 10 + 10])
    await engine.joined()


SCENARIOS = [small_appends, by_turns, long_append, small_then_long, whole, assembly, gathering]


@pytest.fixture(autouse=True)
def few_folders(monkeypatch):
    for module in (segment_directory, segment_sweeper):
        monkeypatch.setattr(module, "FOLDERS", ("00", "01"))


def begin(scenario, **more):
    """A machine on which the scenario is about to run: its bench, and its coroutine."""
    bench = SimulatedBench(**more)
    engine = bench.engine("w1", step=1024)
    engine.other = bench.engine("w2", step=1024)
    engine.other.context.listeners.joinable.clear()
    bench.result(engine.create(length=4000))
    return bench, scenario(engine)


def intact(disk, catalog, days_later=True):
    """Another worker, on what is left of the disk, reads what the catalog counts, and goes on to the end."""
    bench = SimulatedBench(disk, catalog)
    catalog._now = bench.clock.seconds
    engine = bench.engine("w3", step=1024)
    for upload_id, row in list(catalog.rows.items()):
        if upload_id == FINAL and not row.upload.finished:
            continue
        assert bench.result(engine.content(upload_id, piece=999)) == DATA[: row.upload.offset], upload_id
        if not row.upload.finished:
            bench.result(engine.small(DATA[row.upload.offset :], upload_id))
        bench.result(engine.joined())
        assert row.whole and bench.file(engine.spool.path(upload_id)) == DATA
    assert bench.disk.open_files == 0
    if not days_later:
        return
    bench.pass_time(61)
    bench.result(engine.sweeper.sweep_discarded())
    for path in bench.files(bench.directory):
        bench.age(path, 1e6)
    bench.result(engine.sweeper.sweep_unknown())
    known = {engine.spool.path(upload_id) for upload_id in catalog.rows if catalog.rows[upload_id].whole}
    left = set(bench.files(bench.directory)) - {"/up/.resumable/marker"}
    if FINAL in catalog.rows and not catalog.rows[FINAL].upload.finished:
        left.discard(engine.spool.path(FINAL))  # the file of an upload that has a row goes with that
    assert left == known


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_is_counted_is_readable_after_a_crash_between_any_two_steps(scenario, power):
    step, crashed = 0, True
    while crashed:
        step, crashed = step + (5 if scenario is gathering else 1), False
        bench, work = begin(scenario)
        bench.disk.crash_at(bench.disk.steps + step, before=bool(step % 2))
        try:
            bench.result(work)
        except SimulatedCrash:
            crashed = True
        intact(bench.disk.crash(Random(step)) if power else bench.disk.kill(), bench.catalog)


FAULTS = [
    "writev",
    "fdatasync",
    "sync_directory",
    "close",
    "create_new",
    "open",
    "rename",
    "link",
    "copy_range",
    "size",
]


@pytest.mark.parametrize("operation", FAULTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_is_counted_is_readable_after_the_disk_failed(scenario, operation):
    for after in range(0, 12, 2):
        bench, work = begin(scenario)
        bench.disk.fail_next(operation, errno.EIO, after)
        try:
            bench.result(work)
        except (OSError, AssertionError) as error:
            assert not isinstance(error, AssertionError) or "not fired" in str(error)
        bench.disk._faults.clear()
        bench.turn()
        intact(bench.disk.crash(Random(after)), bench.catalog)


@pytest.mark.parametrize("fate", [Fate.FAILS, Fate.UNHEARD, Fate.LATE])
@pytest.mark.parametrize("scenario", [small_appends, long_append, small_then_long, whole])
def test_whatever_is_counted_is_readable_after_a_commit_without_an_answer(scenario, fate):
    for after in range(8):
        for lands_first in (False, True):
            bench, work = begin(scenario)
            bench.catalog.fates.extend([Fate.LANDS] * after + [fate])
            with contextlib.suppress(CatalogUnavailable):
                bench.result(work)
            bench.catalog.fates.clear()
            if lands_first:
                bench.catalog.land()
            disk = bench.disk.kill()
            intact(disk, bench.catalog, days_later=False)
            bench.catalog.land()
            again = SimulatedBench(disk, bench.catalog)
            for upload_id in bench.catalog.rows:
                assert again.result(again.engine("w4").content(upload_id, piece=999)) == DATA


@pytest.fixture
def bench():
    return SimulatedBench()


def test_what_is_acknowledged_survives_a_power_loss_where_another_worker_died_while_it_made_the_directories():
    """They were there for the worker that came next, and not on the disk."""
    for step in [*range(1, 20), *range(255, 290, 2)]:
        bench = SimulatedBench()
        bench.disk.crash_at(step)
        with contextlib.suppress(SimulatedCrash):
            bench.engine("w0")
        bench.disk.crash_at(10_000)
        again = SimulatedBench(bench.disk.kill())
        engine = again.engine("w1")
        again.result(engine.create(length=100))
        again.result(engine.small(DATA))
        after = SimulatedBench(engine.disk.crash(Random(step)), again.catalog)
        assert after.result(after.engine("w2").content()) == DATA, step


@pytest.mark.parametrize("operation", ["writev", "fdatasync", "sync_directory"])
def test_a_small_append_that_failed_leaves_no_new_segment(bench, operation):
    engine = bench.engine()
    bench.result(engine.create(length=100))
    bench.disk.fail_next(operation, errno.ENOSPC)
    with pytest.raises(OSError):
        bench.result(engine.small(b"0123"))
    assert bench.files(engine.names.segments) == []
    bench.result(engine.small(b"4567"))
    assert bench.result(engine.content()) == b"4567"


def test_a_whole_one_that_failed_gives_back_its_room_and_not_its_name_which_may_be_anothers(bench):
    engine = bench.engine()
    bench.disk.fail_next("writev", errno.ENOSPC)
    with pytest.raises(OSError):
        bench.result(engine.create(length=4, data=b"0123"))
    assert bench.file(engine.spool.path(ID)) == b""
    bench.result(engine.create(length=4, data=b"4567"))
    assert bench.result(engine.content()) == b"4567"


def test_one_that_failed_fails_no_other_of_its_group(bench):
    engine = bench.engine()
    for upload_id in (ID, OTHER):
        bench.result(engine.create(upload_id, length=100))
    results = []
    bench.disk.fail_next("writev", errno.EIO)
    for upload_id in (ID, OTHER):
        Deferred.fromCoroutine(engine.small(b"0123", upload_id)).addBoth(results.append)
    bench.turn()
    assert results[1] is None and results[0].value.errno == errno.EIO
    assert bench.result(engine.content(OTHER)) == b"0123" and bench.result(engine.content(ID)) == b""


def test_a_group_of_small_appends_syncs_each_directory_once(bench):
    engine = bench.engine()
    ids = [f"{number:032x}" for number in range(20)]
    bench.disk.trace.clear()
    done = gatherResults([Deferred.fromCoroutine(engine.create(each, length=4, data=b"0123")) for each in ids])
    bench.result(done)
    operations = [operation for operation, _ in bench.disk.trace]
    assert operations.count("sync_directory") == 1 and operations.count("fdatasync") == 20
    assert operations[:21] == ["look", *["create_new", "writev"] * 10]


def test_a_whole_small_upload_costs_seven_system_calls(bench):
    """Two of them see that the directory is mounted; those of a batch do for all of it."""
    engine = bench.engine()
    bench.disk.trace.clear()
    bench.result(engine.create(length=4, data=b"0123"))
    assert [operation for operation, _ in bench.disk.trace] == [
        "look",
        "create_new",
        "writev",
        "fdatasync",
        "close",
        "sync_directory",
        "look",
    ]


def test_a_copy_that_finds_no_room_leaves_nothing_and_is_done_later(bench):
    engine, other = bench.engine("w1"), bench.engine("w2")
    bench.result(engine.create(length=8))
    bench.result(engine.small(b"0123"))
    bench.disk.free_bytes = 7
    bench.result(other.small(b"4567"))
    bench.turn()
    assert not engine.catalog.rows[ID].whole and bench.files(engine.names.finals) == []
    bench.disk.free_bytes = 8
    bench.result(engine.joined())
    assert bench.file(engine.spool.path(ID)) == b"01234567"


def test_a_copy_takes_bounded_steps_and_a_stop_ends_it_between_two(bench):
    engine, other = bench.engine("w1", step=1024), bench.engine("w2")
    bench.result(engine.create(length=4000))
    bench.result(other.small(DATA[:2000]))
    engine.context.listeners.joinable.clear()
    bench.result(engine.small(DATA[2000:]))
    bench.disk.trace.clear()
    sweep = Deferred.fromCoroutine(engine.joiner.sweep())
    while "copy_range" not in [operation for operation, _ in bench.disk.trace]:
        call = bench.clock.calls.pop(0)
        call.called = 1
        call.func()
    stopped = Deferred.fromCoroutine(engine.joiner.stop())
    bench.turn()
    assert stopped.called and sweep.called and not engine.catalog.rows[ID].whole
    copies = [operation for operation, _ in bench.disk.trace].count("fdatasync")
    assert 1 <= copies < 4
    bench.result(other.joined())
    assert bench.file(engine.spool.path(ID)) == DATA


def test_where_links_are_not_to_be_had_a_segment_is_copied(bench):
    engine = bench.engine()
    bench.result(engine.create(length=4))
    bench.disk.fail_next("link", errno.EPERM)
    bench.result(engine.small(b"01"))
    bench.result(engine.small(b"23"))
    assert (engine.joiner.linked, engine.joiner.joined) == (0, 1)
    assert bench.file(engine.spool.path(ID)) == b"0123"


def test_only_so_many_uploads_are_remembered_for_going_on(bench):
    engine = bench.engine()
    engine.spool._own._limit = 2
    ids = [f"{number:032x}" for number in range(3)]
    for each in ids:
        bench.result(engine.create(each, length=100))
        bench.result(engine.small(b"0123", each))
    for each in ids:
        bench.result(engine.small(b"4567", each))
    assert len(engine.spool._own._last) == 2
    assert len(engine.catalog.rows[ids[0]].segments) == 2


def test_a_stale_handle_is_a_reason_to_look_again(bench):
    engine = bench.engine()
    bench.result(engine.create(length=100))
    bench.result(engine.small(b"0123"))
    bench.disk.fail_next("open", errno.ESTALE)
    assert bench.result(engine.spool.read(ID, 0, 4)) == b"0123"
    bench.disk.fail_next("open", errno.ENOENT)
    reader = bench.result(engine.spool.reader(ID))
    assert bench.result(reader.read(0, 4)) == b"0123"
    bench.result(reader.close())

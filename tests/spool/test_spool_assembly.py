"""Copying uploads into one file. The steps are 8 bytes long here."""

from __future__ import annotations

import errno
from random import Random

import pytest
from twisted.internet.defer import Deferred

from resumable.spool import SpoolDamaged
from resumable.testing import SimulatedCrash
from tests.spool.spool_bench import Bench, RealBench

FINAL = "f" * 32
A, B, C = "a" * 32, "b" * 32, "c" * 32
PARTS = {A: b"0123456789", B: b"", C: b"abcdefghijklm"}
SOURCES = [(A, 10), (C, 13), (B, 0), (A, 10)]
WHOLE = b"0123456789abcdefghijklm0123456789"


@pytest.fixture
def bench():
    bench = Bench()
    put_parts(bench)
    return bench


def put_parts(bench):
    for upload_id, data in PARTS.items():
        bench.put_file(data, upload_id)


def assemble(bench, sources=SOURCES, shared=False):
    """As its user does it; ``shared``: while others copy as well."""

    async def work():
        assembly = bench.spool.assembly(FINAL, sources)
        await assembly.look()
        while not assembly.complete:
            await assembly.copy(assembly.next_size(shared))
        await assembly.name()

    return Deferred.fromCoroutine(work())


def assembled(bench, sources=SOURCES, shared=False):
    return bench.result(assemble(bench, sources, shared))


def is_whole_after_crashes(bench):
    return {bench.content(bench.disk.crash(Random(seed)), FINAL) for seed in range(20)} == {WHOLE}


def test_copies_the_sources_in_order_even_the_same_one_twice_and_is_durable(bench):
    assert assembled(bench) is None
    assert is_whole_after_crashes(bench)
    assert bench.disk.open_files == 0
    assert list(bench.disk.names("/spool/.resumable/finals")) == []


@pytest.mark.parametrize("sources", [[], [(B, 0)]])
def test_a_final_of_nothing_is_an_empty_file(bench, sources):
    assert assembled(bench, sources) is None
    assert bench.content(bench.disk.crash(Random(1)), FINAL) == b""


@pytest.mark.parametrize("length", [7, 8, 9, 10])
def test_ends_that_fall_on_a_step_or_beside_it(bench, length):
    assert assembled(bench, [(A, length)]) is None
    assert bench.content(upload_id=FINAL) == PARTS[A][:length]


def test_no_thread_is_held_for_longer_than_a_step(bench):
    assemble(bench)
    calls = 0
    while bench.clock.calls:
        synced = bench.operations().count("fdatasync")
        bench.clock.calls.pop(0).func()
        assert bench.operations().count("fdatasync") <= synced + 1
        calls += 1
    assert calls == 2 + -(-len(WHOLE) // 8)


def test_while_others_copy_as_well_steps_are_short_and_end_where_whole_ones_do(bench):
    assembly = bench.spool.assembly(FINAL, SOURCES)
    bench.result(assembly.look())
    ends, left = [], []
    for shared in (True, True, False, False, True, False, True, True, True):
        left.append(assembly.steps_left)
        bench.result(assembly.copy(assembly.next_size(shared)))
        ends.append(assembly.copied)
    assert ends == [2, 4, 8, 16, 18, 24, 26, 28, 30]
    assert left == [4, 3, 3, 3, 2, 1, 1, 0, 0]
    bench.result(assembly.copy(assembly.next_size(False)))
    assert assembly.next_size(True) == 1 and assembly.copied == 32
    bench.result(assembly.copy(1))
    bench.result(assembly.name())
    assert assembly.complete and is_whole_after_crashes(bench)


def test_doing_it_again_after_it_was_done_changes_nothing(bench):
    assembled(bench)
    bench.disk.trace.clear()
    assert assembled(bench) is None
    assert "writev" not in bench.operations() and "copy_range" not in bench.operations()
    assert bench.content(upload_id=FINAL) == WHOLE


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("power", [True, False])
def test_it_goes_on_wherever_it_crashed_and_never_has_the_name_before_it_is_whole(power, shared):
    step, crashed = 0, True
    while crashed:
        step += 1
        for before in (True, False):
            for seed in range(3):
                bench = Bench()
                put_parts(bench)
                bench.disk.crash_at(bench.disk.steps + step, before=before)
                try:
                    assembled(bench, shared=shared)
                    crashed = False
                except SimulatedCrash:
                    pass
                again = Bench(disk=bench.disk.crash(Random(seed)) if power else bench.disk.kill())
                assert again.content(upload_id=FINAL) in (None, WHOLE)
                assert assembled(again) is None
                assert is_whole_after_crashes(again)
    assert step > 40


def test_it_goes_on_from_the_last_step_that_was_surely_synced(bench):
    bench.disk.fail_next("copy_range", errno.ENOSPC, after=4)
    assert bench.failure(assemble(bench)).errno == errno.ENOSPC
    bench.disk.trace.clear()
    synced = bench.disk.file_size(f"/spool/.resumable/finals/{FINAL}")
    assert synced > 8
    assert assembled(bench) is None
    assert bench.operations().count("fdatasync") == -(-len(WHOLE) // 8) - (synced - 1) // 8
    assert is_whole_after_crashes(bench)


@pytest.mark.parametrize(
    "operation", ["open", "copy_range", "truncate", "fdatasync", "close", "rename", "sync_directory"]
)
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_it_can_be_done_again_after_any_failure(bench, operation, after):
    bench.disk.fail_next(operation, errno.EIO, after=after)
    tries = 1
    while assembled(bench) is not None:
        assert bench.disk.open_files == 0
        tries += 1
    assert tries <= 2  # it failed once, or what shall fail is not done so often
    assert bench.disk.open_files == 0
    assert is_whole_after_crashes(bench)


def test_a_source_that_is_missing_or_short_is_damaged(bench):
    damage = bench.failure(assemble(bench, [(A, 10), ("e" * 32, 3)]))
    assert isinstance(damage, SpoolDamaged)
    assert (damage.upload_id, damage.found) == ("e" * 32, None)
    damage = bench.failure(assemble(bench, [(A, 11)]))
    assert isinstance(damage, SpoolDamaged)
    assert (damage.upload_id, damage.found) == (A, 10)
    assert bench.content(upload_id=FINAL) is None
    assert bench.disk.open_files == 0


def test_a_source_may_be_longer_than_what_is_wanted_of_it(bench):
    assert assembled(bench, [(A, 3), (C, 2)]) is None
    assert bench.content(upload_id=FINAL) == b"012ab"


def test_removing_a_final_removes_what_was_copied_so_far(bench):
    bench.disk.fail_next("copy_range", errno.ENOSPC, after=4)
    bench.failure(assemble(bench))
    bench.result(bench.spool.remove([FINAL]))
    after = bench.disk.crash(Random(1))
    assert list(after.names("/spool/.resumable/finals")) == []


@pytest.mark.parametrize("moment", range(4))
def test_a_file_that_gets_its_name_while_it_is_removed_is_removed(bench, monkeypatch, moment):
    """By another thread, before any of the removal's operations."""
    assembly = bench.spool.assembly(FINAL, SOURCES)
    bench.result(assembly.look())
    while not assembly.complete:
        bench.result(assembly.copy(assembly.next_size(False)))
    moments = iter(range(4))

    def meanwhile(act):
        def do(path):
            if next(moments, None) == moment:
                assembly._name_it()
            return act(path)

        return do

    for operation in ("unlink", "sync_directory"):
        monkeypatch.setattr(bench.disk, operation, meanwhile(getattr(bench.disk, operation)))
    bench.result(bench.spool.remove([FINAL]))
    monkeypatch.undo()
    assert bench.content(bench.disk, FINAL) is None
    assert list(bench.disk.names("/spool/.resumable/finals")) == []


def test_a_copy_that_is_given_up_gives_back_its_half_file(bench):
    bench.disk.fail_next("copy_range", errno.ENOSPC, after=4)
    bench.failure(assemble(bench))
    assembly = bench.spool.assembly(FINAL, SOURCES)
    bench.result(assembly.look())
    assert assembly.copied == 16
    assert bench.result(assembly.discard()) is None
    assert list(bench.disk.crash(Random(1)).names("/spool/.resumable/finals")) == []
    assert not assembly.copied and assembled(bench) is None
    assert is_whole_after_crashes(bench)


def test_what_an_older_release_has_copied_is_copied_anew(bench):
    """Its steps were longer: the size of its file doesn't say what was synced."""
    bench.disk.make_directory("/spool/.resumable/assembly")
    bench.disk.close(bench.disk.open(f"/spool/.resumable/assembly/{FINAL}", create=True))
    again = Bench(disk=bench.disk.kill())
    assert again.disk.look("/spool/.resumable/assembly") is None
    assert assembled(again) is None
    assert again.content(upload_id=FINAL) == WHOLE


def test_on_a_real_disk_with_steps_of_real_length(tmp_path):
    data = Random(1).randbytes(3_000_001)
    with RealBench(tmp_path) as bench:
        bench.until(bench.spool.put(A, 0, [data]))
        bench.until(bench.spool.put(B, 0, []))
        bench.until(assemble(bench, [(A, len(data)), (B, 0), (A, len(data))]))
    assert (tmp_path / FINAL).read_bytes() == data * 2

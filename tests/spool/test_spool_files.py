"""The upload directory: small appends, reading, removing, and what start-up finds."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from random import Random

import pytest
from twisted.internet.defer import DeferredList
from twisted.python.failure import Failure

from resumable.aio.threads import Stopped
from resumable.model.upload import Upload
from resumable.spool import SpoolDamaged
from resumable.testing import SimulatedCrash
from tests.spool.spool_bench import ID, MIB, Bench, RealBench

OTHER = "b" * 32
OWN = "/spool/.resumable"


@pytest.fixture
def bench():
    return Bench()


def outcomes(bench, deferreds):
    return bench.result(DeferredList(deferreds, consumeErrors=True))


# -- small appends


def test_a_small_append_is_durable_when_it_is_answered(bench):
    assert bench.result(bench.spool.put(ID, 0, [b"hello", b" "])) is None
    assert bench.result(bench.spool.put(ID, 6, [b"world"])) is None
    for seed in range(20):
        assert bench.content(bench.disk.crash(Random(seed))) == b"hello world"


def test_appends_that_come_together_are_written_then_synced_then_named_at_once(bench):
    for name in "abc":
        bench.spool.put(name * 32, 0, [b"data"])
    bench.turn()
    assert bench.operations() == ["open", "writev"] * 3 + ["fdatasync"] * 3 + ["close"] * 3 + ["sync_directory"]
    assert bench.disk.open_files == 0


def test_the_changes_that_follow_appends_are_recorded_together_when_all_of_these_are_durable():
    synced = []

    def record(changes):
        synced.append(bench.operations("open", "writev", "close"))
        return [change.upper() for change in changes]

    bench = Bench(record=record)
    puts = [bench.spool.put(name * 32, 0, [b"data"], name) for name in "ab"]
    assert [answer for _, answer in outcomes(bench, puts)] == ["A", "B"]
    assert synced == [["fdatasync", "fdatasync", "sync_directory"]]


@pytest.mark.parametrize("operation", ["open", "writev", "fdatasync", "close"])
def test_no_change_is_recorded_for_an_append_that_failed(operation):
    recorded = []
    bench = Bench(record=lambda changes: recorded.extend(changes) or changes)
    bench.disk.fail_next(operation, errno.EIO)
    outcomes(bench, [bench.spool.put(name * 32, 0, [b"data"], name) for name in "ab"])
    assert recorded == ["b"]


def test_a_change_that_was_refused_fails_its_append_only():
    bench = Bench(record=lambda changes: [Failure(ValueError(changes[0])), *changes[1:]])
    answers = outcomes(bench, [bench.spool.put(name * 32, 0, [b"data"], name) for name in "ab"])
    assert [good for good, _ in answers] == [False, True]


def test_an_append_to_a_file_that_is_there_syncs_no_directory(bench):
    bench.put_file(b"data")
    bench.result(bench.spool.put(ID, 4, [b" more"]))
    assert bench.operations() == ["open", "size", "writev", "fdatasync", "close"]


def test_an_append_of_nothing_at_0_makes_an_empty_file(bench):
    assert bench.result(bench.spool.put(ID, 0, [])) is None
    assert bench.content(bench.disk.crash(Random(1))) == b""


@pytest.mark.parametrize(("offset", "expected"), [(0, b"!"), (4, b"left!")])
def test_what_an_earlier_try_left_past_the_offset_is_cut(bench, offset, expected):
    bench.put_file(b"left behind")
    bench.result(bench.spool.put(ID, offset, [b"!"]))
    assert bench.content() == expected


@pytest.mark.parametrize("left", [None, b"shor"])
def test_a_file_that_lacks_committed_bytes_is_damaged_and_left_alone(bench, left):
    if left is not None:
        bench.put_file(left)
    damage = bench.failure(bench.spool.put(ID, 5, [b"!"]))
    assert isinstance(damage, SpoolDamaged)
    assert (damage.upload_id, damage.expected, damage.found) == (ID, 5, left and 4)
    assert (bench.content(), bench.disk.open_files) == (left, 0)


@pytest.mark.parametrize("operation", ["open", "writev", "fdatasync", "close"])
def test_one_that_fails_does_not_spoil_the_others(bench, operation):
    bench.disk.fail_next(operation, errno.EIO, after=1)
    answers = outcomes(bench, [bench.spool.put(name * 32, 0, [b"data"]) for name in "abc"])
    assert [good for good, _ in answers] == [True, False, True]
    assert answers[1][1].value.errno == errno.EIO
    after = bench.disk.crash(Random(1))
    assert [bench.content(after, name * 32) for name in "ac"] == [b"data", b"data"]
    assert bench.disk.open_files == 0


def test_a_failing_directory_sync_fails_all_that_made_files_and_only_those(bench):
    bench.put_file(b"old")
    bench.disk.fail_next("sync_directory", errno.EIO)
    answers = outcomes(
        bench, [bench.spool.put(ID, 3, [b"!"]), bench.spool.put("c" * 32, 0, []), bench.spool.put(OTHER, 0, [b"x"])]
    )
    assert [good for good, _ in answers] == [True, False, False]


def test_a_write_that_failed_leaves_no_bytes_that_take_space(bench):
    bench.put_file(b"kept")
    bench.disk.fail_next("writev", errno.ENOSPC)
    assert bench.failure(bench.spool.put(ID, 4, [b"x" * 1000])).errno == errno.ENOSPC
    assert bench.content() == b"kept"


def test_it_can_be_tried_again_after_a_failed_sync_and_is_durable_then(bench):
    bench.disk.fail_next("fdatasync", errno.EIO)
    assert bench.failure(bench.spool.put(ID, 0, [b"data"])).errno == errno.EIO
    assert bench.result(bench.spool.put(ID, 0, [b"data"])) is None
    for seed in range(20):
        assert bench.content(bench.disk.crash(Random(seed))) == b"data"


def test_no_acknowledged_append_is_lost_wherever_the_power_fails():
    def run(step, before):
        """Until the crash: what was acknowledged."""
        bench = Bench()
        bench.disk.crash_at(bench.disk.steps + step, before=before)
        acknowledged = {}
        try:
            for offset in (0, 4, 8):
                for name in "abc":
                    put = bench.spool.put(name * 32, offset, [b"%d%s.." % (offset, name.encode())])
                    put.addCallback(lambda _, name=name, end=offset + 4: acknowledged.update({name: end}))
                bench.turn()
        except SimulatedCrash:
            return bench, acknowledged, True
        return bench, acknowledged, False

    step, crashed, crashes = 0, True, 0
    while crashed:
        step += 1
        for before in (True, False):
            bench, acknowledged, crashed = run(step, before)
            crashes += crashed
            for seed in range(5):
                after = bench.disk.crash(Random(seed))
                for name, end in acknowledged.items():
                    expected = b"".join(b"%d%s.." % (offset, name.encode()) for offset in range(0, end, 4))
                    assert bench.content(after, name * 32)[:end] == expected
    assert crashes > 60


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", ".resumable", "a\0b", "a b", "ä" * 32, "a" * 300, "a\n"]
)
def test_a_name_that_could_leave_the_directory_is_no_upload_id(bench, name):
    for use in (
        bench.spool.path,
        bench.spool.size,
        bench.spool.reader,
        lambda name: bench.spool.put(name, 0, []),
        lambda name: bench.spool.sink(name, 0, ceiling=None),
        lambda name: bench.spool.remove([name]),
        lambda name: bench.spool.assembly(name, []),
        lambda name: bench.spool.assembly(ID, [(name, 1)]),
        lambda name: bench.spool.adopt(name, 0, 1),
        bench.spool.set_aside,
    ):
        with pytest.raises(ValueError):
            use(name)
    assert bench.disk.trace == []


def test_after_stop_nothing_is_taken_and_everything_before_is_done(bench):
    put = bench.spool.put(ID, 0, [b"data"])
    assert bench.result(bench.spool.stop()) is None
    assert put.called
    assert isinstance(bench.failure(bench.spool.put(OTHER, 0, [])), Stopped)


# -- reading


def test_tells_sizes_and_free_space(bench):
    bench.put_file(b"12345")
    bench.disk.free_bytes = 4242
    assert bench.result(bench.spool.size(ID)) == 5
    assert bench.result(bench.spool.size(OTHER)) is None
    assert bench.result(bench.spool.free()) == 4242


def test_reads_a_range(bench):
    bench.put_file(b"0123456789")
    assert bench.result(bench.spool.read(ID, 3, 4)) == b"3456"
    assert bench.result(bench.spool.read(ID, 8, 4)) == b"89"
    assert isinstance(bench.failure(bench.spool.read(OTHER, 0, 4)), FileNotFoundError)
    assert bench.disk.open_files == 0


def test_the_starts_of_several_files_are_read_in_one_go(bench):
    bench.result(bench.spool.put(ID, 0, [b"0123456789"]))
    one, missing, whole = bench.spool.read_all([(ID, 4), (OTHER, 4), (ID, 100)])
    assert (one, whole) == (b"0123", b"0123456789")
    assert missing.check(FileNotFoundError)
    assert bench.disk.open_files == 0


def test_a_reader_reads_on_while_the_file_is_removed(bench):
    bench.put_file(b"0123456789")
    reader = bench.result(bench.spool.reader(ID))
    bench.result(bench.spool.remove([ID]))
    assert reader.size == 10
    assert bench.result(reader.read(4, 3)) == b"456"
    assert bench.result(reader.close()) is None
    assert bench.disk.open_files == 0


def test_a_reader_scans_in_pieces_and_tells_where_the_file_ended(bench):
    data = bytes(range(256)) * 1025
    bench.result(bench.spool.put(ID, 0, [data]))
    reader = bench.result(bench.spool.reader(ID))
    pieces = []
    assert bench.result(reader.scan(5, len(data), pieces.append)) == len(data) - 5
    assert b"".join(pieces) == data[5:]
    assert max(map(len, pieces)) == 256 * 1024
    assert isinstance(bench.failure(reader.scan(0, 5, lambda _: 1 // 0)), ZeroDivisionError)
    assert bench.result(reader.close()) is None


def test_a_reader_is_closed_only_after_reads_under_way_and_once(bench):
    bench.put_file(b"0123456789")
    reader = bench.result(bench.spool.reader(ID))
    reads = [reader.read(0, 5), reader.read(5, 5)]
    closed = [reader.close(), reader.close()]
    assert [good for good, _ in outcomes(bench, closed)] == [True, True]
    assert [bench.result(read) for read in reads] == [b"01234", b"56789"]
    assert isinstance(bench.failure(reader.read(0, 1)), ValueError)
    assert isinstance(bench.failure(reader.scan(0, 1, bytearray().extend)), ValueError)
    assert bench.result(reader.close()) is None
    assert bench.operations().count("close") == 1


def test_a_reader_that_is_lent_to_a_thread_is_closed_only_once_it_was_given_back(bench):
    bench.put_file(b"0123456789")
    reader = bench.result(bench.spool.reader(ID))
    first, second = reader.lend(), reader.lend()
    closed = reader.close()
    first.give_back()
    first.give_back()
    assert second.read(4, 9) == b"456789" and bench.disk.open_files == 1
    second.give_back()
    assert bench.result(closed) is None
    assert bench.disk.open_files == 0
    with pytest.raises(ValueError):
        reader.lend()


def test_a_reader_whose_read_or_close_fails_is_closed(bench):
    bench.put_file(b"0123456789")
    reader = bench.result(bench.spool.reader(ID))
    bench.disk.fail_next("read", errno.EIO)
    bench.disk.fail_next("close", errno.EIO)
    assert bench.failure(reader.read(0, 5)).errno == errno.EIO
    assert bench.result(reader.close()) is None
    assert bench.disk.open_files == 0


def test_digests_a_stretch_of_a_file(bench):
    data = Random(1).randbytes(3 * MIB)
    bench.put_file(data)
    digest = hashlib.sha256()
    sink = bench.sink(3 * MIB)
    bench.result(sink.prepare())
    assert bench.result(sink.feed(7, 2 * MIB + 5, digest)) is None
    assert digest.digest() == hashlib.sha256(data[7 : 2 * MIB + 5]).digest()
    assert isinstance(bench.failure(sink.feed(0, 4 * MIB, digest)), SpoolDamaged)
    assert bench.result(sink.close()) is None
    assert bench.disk.open_files == 0


def test_an_upload_whose_file_is_missing_or_short_is_known_to_be_damaged(bench):
    bench.put_file(b"01234")
    assert bench.result(bench.spool.check(Upload(ID, 0.0, 0.0, offset=5))) is None
    for upload_id, found in ((ID, 5), (OTHER, None)):
        damage = bench.failure(bench.spool.check(Upload(upload_id, 0.0, 0.0, offset=6)))
        assert isinstance(damage, SpoolDamaged) and damage.found == found


# -- removing


def test_removing_is_durable_and_does_not_mind_what_is_missing(bench):
    bench.put_file(b"x")
    bench.put_file(b"y", OTHER)
    assert bench.result(bench.spool.remove([ID, "c" * 32, OTHER])) == {}
    after = bench.disk.crash(Random(1))
    assert (bench.content(after), bench.content(after, OTHER)) == (None, None)
    assert bench.operations().count("sync_directory") == 2, "that of the uploads and that of the assemblies"


def test_removing_nothing_syncs_nothing(bench):
    assert bench.result(bench.spool.remove([])) == {}
    assert "sync_directory" not in bench.operations()


def test_removing_again_makes_a_removal_durable_that_was_cut_off_before_its_sync(bench):
    bench.put_file(b"x")
    bench.disk.unlink(f"{bench.spool.directory}/{ID}")
    assert bench.result(bench.spool.remove([ID])) == {}
    assert bench.content(bench.disk.crash(Random(1))) is None


def test_a_file_that_cannot_be_removed_is_answered_and_keeps_no_other(bench):
    bench.put_file(b"x")
    bench.put_file(b"y", OTHER)
    bench.disk.fail_next("unlink", errno.EROFS)
    stuck = bench.result(bench.spool.remove([ID, OTHER]))
    assert {upload_id: error.errno for upload_id, error in stuck.items()} == {ID: errno.EROFS}
    assert bench.content(bench.disk.crash(Random(1)), OTHER) is None


def test_a_removal_that_cannot_be_made_durable_says_so(bench):
    bench.put_file(b"x")
    bench.disk.fail_next("sync_directory", errno.EIO)
    assert bench.failure(bench.spool.remove([ID])).errno == errno.EIO


def test_a_creation_that_cannot_be_undone_says_so(bench):
    bench.put_file(b"x")
    bench.disk.fail_next("unlink", errno.EROFS)
    assert bench.failure(bench.spool.discard(ID)).errno == errno.EROFS


# -- start-up


def test_start_makes_its_directories_for_good_and_may_find_them():
    bench = Bench()
    after = bench.disk.crash(Random(1))
    assert set(after.names(OWN)) == {"finals", "orphans", "placing"}
    again = Bench(disk=after)
    assert [operation for operation, _ in after.trace if operation == "sync_directory"] == []
    again.put_file(b"x")


def test_the_listing_has_data_files_only(bench):
    bench.put_file(b"x")
    bench.put_file(b"y", OTHER)
    for name in (".gitkeep", "README", "twistd.pid", "A" * 32, "a" * 31):
        bench.disk.open(f"/spool/{name}", create=True)
    assert bench.spool.listing() == {ID, OTHER}


@pytest.mark.parametrize(("limit", "adopted"), [(100, 10), (7, 7), (4, 4), (2, 4)])
def test_bytes_past_the_committed_offset_are_adopted_up_to_the_limit_and_synced_first(limit, adopted):
    bench = Bench()
    fd = bench.disk.open(f"/spool/{ID}", create=True)
    bench.disk.writev(fd, [b"0123"], 0)
    bench.disk.fdatasync(fd)
    bench.disk.sync_directory("/spool")
    bench.disk.writev(fd, [b"456789"], 4)
    again = Bench(disk=bench.disk.kill())
    assert again.spool.adopt(ID, 4, limit) == adopted
    assert again.disk.open_files == 0
    for seed in range(20):
        assert again.content(again.disk.crash(Random(seed)))[:adopted] == b"0123456789"[:adopted]


def test_adopting_makes_the_name_of_a_new_file_durable(bench):
    fd = bench.disk.open(f"/spool/{ID}", create=True)
    bench.disk.writev(fd, [b"data"], 0)
    again = Bench(disk=bench.disk.kill())
    assert again.spool.adopt(ID, 0, 100) == 4
    for seed in range(20):
        assert again.content(again.disk.crash(Random(seed))) == b"data"


def test_bytes_whose_sync_had_failed_are_not_taken_for_durable(bench):
    """The kernel counts such pages as clean, so a sync alone would do nothing."""
    sink = bench.sink()
    sink.write(b"data")
    bench.result(sink.sync())
    sink.write(b" more")
    bench.disk.fail_next("fdatasync", errno.EIO)
    bench.failure(sink.sync())
    again = Bench(disk=bench.disk.kill())  # before the sink was closed
    assert again.spool.adopt(ID, 4, 100) == 9
    for seed in range(20):
        assert again.content(again.disk.crash(Random(seed))) == b"data more"


def test_nothing_is_adopted_of_a_file_that_is_missing_or_shorter(bench):
    assert bench.spool.adopt(ID, 0, 100) == 0
    assert bench.spool.adopt(ID, 5, 100) == 5
    bench.put_file(b"123")
    assert bench.spool.adopt(ID, 5, 100) == 5


@pytest.mark.parametrize("operation", ["file_size", "open", "read", "writev", "fdatasync", "sync_directory"])
def test_nothing_is_adopted_of_a_file_that_cannot_be_synced(bench, operation):
    bench.put_file(b"0123456789")
    bench.disk.fail_next(operation, errno.EIO)
    assert bench.spool.adopt(ID, 4, 100) == 4
    assert bench.disk.open_files == 0


def test_a_file_without_a_record_is_set_aside_for_good_and_never_replaces_another(bench):
    for data in (b"first", b"second", b"third"):
        bench.put_file(data)
        bench.spool.set_aside(ID)
    after = bench.disk.crash(Random(1))
    assert bench.content(after) is None
    contents = {name: bench.content(after, f".resumable/orphans/{name}") for name in after.names(f"{OWN}/orphans")}
    assert contents == {ID: b"first", f"{ID}.1": b"second", f"{ID}.2": b"third"}


# -- the real disk


def test_small_appends_on_a_real_disk(tmp_path):
    with RealBench(tmp_path) as bench:
        bench.until(DeferredList([bench.spool.put(f"{number:032x}", 0, [b"%d" % number]) for number in range(200)]))
        bench.until(bench.spool.put("0" * 32, 1, [b" more"]))
        assert bench.spool.listing() == {f"{number:032x}" for number in range(200)}
        assert bench.until(bench.spool.read("0" * 32, 0, 100)) == b"0 more"
        assert bench.until(bench.spool.read(f"{199:032x}", 0, 100)) == b"199"
        bench.until(bench.spool.remove([f"{number:032x}" for number in range(200)]))
        assert bench.spool.listing() == set()


@pytest.mark.process
def test_a_full_disk_fails_the_append_and_keeps_what_was_committed(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs takes root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        with RealBench(tmp_path) as bench:
            sink = bench.spool.sink(ID, 0, ceiling=None)
            sink.write(b"a" * 500_000)
            assert bench.until(sink.sync()) == 500_000
            sink.write(b"b" * 900_000)
            with pytest.raises(OSError) as caught:
                bench.until(sink.sync())
            assert caught.value.errno == errno.ENOSPC
            bench.until(sink.close())
            assert bench.until(bench.spool.free()) > 400_000
            with pytest.raises(OSError) as caught:
                bench.until(bench.spool.put(OTHER, 0, [b"c" * 900_000]))
            assert caught.value.errno == errno.ENOSPC
            bench.until(bench.spool.put(OTHER, 0, [b"c" * 400_000]))
            again = bench.spool.sink(ID, 500_000, ceiling=None)
            again.write(b"d" * 1000)
            assert bench.until(again.sync()) == 501_000
            bench.until(again.close())
        assert (tmp_path / ID).read_bytes() == b"a" * 500_000 + b"d" * 1000
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)

"""The queue between a body and its file."""

from __future__ import annotations

import errno
import hashlib
import threading
from random import Random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface.verify import verifyObject

from resumable.spool import Disk, SinkClosed, SpoolDamaged
from resumable.spool.sink import TURN
from tests.spool.spool_bench import ID, Bench, RealBench


@pytest.fixture
def bench():
    return Bench()


# -- taking in


def test_is_a_consumer(bench):
    assert verifyObject(IConsumer, bench.sink())


def test_gathers_until_it_is_started(bench):
    sink = bench.sink()
    sink.write(b"abc")
    sink.write(b"def")
    bench.turn()
    assert (sink.received, sink.written, bench.disk.trace) == (6, 0, [])
    assert sink.take() == [b"abc", b"def"]
    assert bench.budget.used == 0


def test_what_was_taken_back_is_gone_and_later_bytes_are_dropped(bench):
    sink = bench.sink()
    sink.write(b"abc")
    sink.take()
    sink.write(b"late")
    assert (sink.queued, bench.budget.used) == (0, 0)
    assert bench.result(sink.close()) is None


def test_a_started_sink_gives_nothing_back(bench):
    sink = bench.sink()
    sink.start()
    with pytest.raises(RuntimeError):
        sink.take()


def test_started_it_writes_what_was_gathered_and_what_comes_in_order(bench):
    sink = bench.sink()
    sink.write(b"abc")
    sink.start()
    sink.write(b"def")
    bench.turn()
    sink.write(b"ghi")
    bench.turn()
    assert (sink.received, sink.written, sink.queued) == (9, 9, 0)
    assert bench.content() == b"abcdefghi"


def test_what_waits_is_one_write(bench):
    sink = bench.sink()
    for _ in range(10):
        sink.write(b"x" * 100)
    sink.start()
    bench.turn()
    assert bench.operations() == ["open", "writev"]


def test_bytes_past_the_ceiling_are_dropped_and_told(bench):
    sink = bench.sink(ceiling=5)
    sink.write(b"abc")
    assert not sink.overrun
    sink.write(b"defg")
    assert (sink.overrun, sink.received) == (True, 5)
    sink.write(b"more")
    sink.start()
    bench.turn()
    assert bench.content() == b"abcde"


def test_bytes_up_to_the_ceiling_are_no_overrun(bench):
    sink = bench.sink(ceiling=3)
    sink.write(b"abc")
    sink.write(b"")
    assert (sink.overrun, sink.received) == (False, 3)


def test_the_hook_hears_of_every_write(bench):
    heard = []
    sink = bench.sink(ceiling=3)
    sink.on_write = lambda: heard.append((sink.received, sink.overrun))
    sink.write(b"ab")
    sink.write(b"cd")
    assert heard == [(2, False), (3, True)]


def test_the_digest_is_fed_in_order_with_what_was_written_and_not_in_the_reactor(bench):
    digest = hashlib.sha256()
    sink = bench.sink(ceiling=9, digest=digest)
    sink.start()
    sink.write(b"abc")
    sink.write(b"defghijk")
    assert digest.digest() == hashlib.sha256().digest()
    bench.turn()
    assert digest.digest() == hashlib.sha256(b"abcdefghi").digest()


# -- the file


def test_an_append_goes_on_at_its_offset_and_cuts_what_an_earlier_one_left(bench):
    bench.put_file(b"committed, and left behind")
    sink = bench.sink(offset=9)
    sink.start()
    sink.write(b"!")
    bench.turn()
    assert (bench.content(), sink.received, sink.written) == (b"committed!", 10, 10)


def test_an_append_from_0_empties_what_an_earlier_one_left(bench):
    bench.put_file(b"left behind")
    sink = bench.sink()
    sink.start()
    sink.write(b"new")
    bench.turn()
    assert bench.content() == b"new"


@pytest.mark.parametrize("left", [None, b"short"])
def test_a_file_that_lacks_committed_bytes_is_damaged_and_left_alone(bench, left):
    if left is not None:
        bench.put_file(left)
    sink = bench.sink(offset=9)
    sink.start()
    sink.write(b"!")
    damage = bench.failure(sink.sync())
    assert isinstance(damage, SpoolDamaged)
    assert (damage.upload_id, damage.expected, damage.found) == (ID, 9, left and 5)
    assert bench.content() == left
    bench.result(sink.close())
    assert bench.disk.open_files == 0


def test_no_file_is_made_before_the_first_byte(bench):
    sink = bench.sink()
    sink.start()
    assert bench.result(sink.sync()) == 0
    assert bench.result(sink.close()) is None
    assert bench.disk.trace == []


# -- sync


def test_sync_answers_the_offset_that_survives_a_crash(bench):
    sink = bench.sink()
    sink.start()
    sink.write(b"x" * 3000)
    assert bench.result(sink.sync()) == 3000
    sink.write(b"y" * 3000)
    bench.turn()
    assert (sink.durable, sink.written) == (3000, 6000)
    for seed in range(20):
        assert bench.content(bench.disk.crash(Random(seed)))[:3000] == b"x" * 3000


def test_the_first_sync_of_a_new_file_syncs_its_name_and_later_ones_do_not(bench):
    sink = bench.sink()
    sink.start()
    sink.write(b"x")
    bench.result(sink.sync())
    sink.write(b"y")
    bench.result(sink.sync())
    assert bench.operations() == ["open", "writev", "fdatasync", "sync_directory", "writev", "fdatasync"]


def test_an_append_to_an_old_file_syncs_no_name(bench):
    bench.put_file(b"old")
    sink = bench.sink(offset=3)
    sink.start()
    sink.write(b"x")
    bench.result(sink.sync())
    assert bench.operations("size") == ["open", "writev", "fdatasync"]


def test_a_sync_with_nothing_new_costs_nothing(bench):
    sink = bench.sink()
    sink.start()
    sink.write(b"x")
    bench.result(sink.sync())
    bench.disk.trace.clear()
    assert bench.result(sink.sync()) == 1
    assert bench.disk.trace == []


def test_syncs_that_come_together_share_one(bench):
    sink = bench.sink()
    sink.start()
    sink.write(b"x")
    first, second = sink.sync(), sink.sync()
    assert (bench.result(first), bench.result(second)) == (1, 1)
    assert bench.operations().count("fdatasync") == 1


def test_a_sync_starts_a_sink_that_only_gathered(bench):
    sink = bench.sink()
    sink.write(b"abc")
    assert bench.result(sink.sync()) == 3
    assert sink.started


def test_a_sync_covers_bytes_that_came_while_another_was_under_way(bench):
    sink = bench.sink()
    sink.start()
    sink.write(b"abc")
    answers = []
    first = sink.sync()
    first.addCallback(answers.append)
    # the first has been asked for, and only its bytes are written, when the next bytes come
    sink.write(b"defgh")
    second = sink.sync()
    assert bench.result(second) == 8
    assert answers[0] in (3, 8)
    assert bench.content() == b"abcdefgh"


def test_writes_go_on_while_a_sync_is_under_way(tmp_path):
    """With real threads: the sync is held up until a write that was asked for later has reached the file."""
    release = threading.Event()

    class SlowSync(Disk):
        def fdatasync(self, fd):
            assert release.wait(300)
            super().fdatasync(fd)

        def writev(self, fd, buffers, offset):
            super().writev(fd, buffers, offset)
            if offset:
                release.set()

    with RealBench(tmp_path, SlowSync()) as bench:
        sink = bench.spool.sink(ID, 0, ceiling=None)
        sink.write(b"abc")
        synced = sink.sync()
        bench.until(sink.drained())
        sink.write(b"def")
        assert bench.until(synced) == 3
        bench.until(sink.close())
    assert (tmp_path / ID).read_bytes() == b"abcdef"


@pytest.mark.parametrize("syncs", [True, False])
def test_a_sync_under_way_counts_when_a_later_write_fails(syncs, tmp_path):
    """On a full disk, say: what was synced is kept. With real threads: the write fails while the sync is held up."""
    release = threading.Event()

    class Full(Disk):
        def fdatasync(self, fd):
            assert release.wait(300)
            if not syncs:
                raise OSError(errno.EIO, "no sync either")
            super().fdatasync(fd)

        def writev(self, fd, buffers, offset):
            if offset:
                raise OSError(errno.ENOSPC, "full")
            super().writev(fd, buffers, offset)

    with RealBench(tmp_path, Full()) as bench:
        sink = bench.spool.sink(ID, 0, ceiling=None)
        failed = Deferred()
        sink.on_failure = lambda failure: failed.callback(failure.value)
        sink.write(b"abc")
        synced = sink.sync()
        bench.until(sink.drained())
        sink.write(b"def")
        assert bench.until(failed).errno == errno.ENOSPC
        outcomes = []
        synced.addBoth(outcomes.append)
        late = sink.sync()
        late.addErrback(lambda failure: failure.trap(OSError))
        assert late.called and not outcomes
        release.set()
        bench.until(sink.close())
    if syncs:
        assert outcomes == [3]
    else:
        assert outcomes[0].value.errno == errno.ENOSPC
    assert (tmp_path / ID).read_bytes() == (b"abc" if syncs else b"")


# -- close


def test_drained_fires_when_nothing_is_queued(bench):
    sink = bench.sink()
    sink.start()
    assert bench.result(sink.drained()) is None
    sink.write(b"x" * (TURN + 5))
    drained = sink.drained()
    assert not drained.called
    bench.turn()
    assert drained.called
    assert sink.written == TURN + 5


def test_close_waits_for_the_write_under_way_drops_the_rest_and_may_be_repeated(bench):
    sink = bench.sink()
    sink.start()
    for _ in range(3):
        sink.write(b"x" * TURN)
    bench.clock.calls[0].func()  # one turn's worth
    bench.clock.calls.pop(0)
    first, second = sink.close(), sink.close()
    assert bench.result(first) is None
    assert bench.result(second) is None
    assert bench.result(sink.close()) is None
    assert sink.written < 3 * TURN
    assert (bench.disk.open_files, bench.budget.used, sink.queued) == (0, 0, 0)
    sink.write(b"late")
    bench.turn()
    assert bench.operations().count("open") == 1


def test_a_sync_that_waits_when_the_sink_is_closed_fails(bench):
    sink = bench.sink()
    sink.write(b"abc")
    synced = sink.sync()
    bench.result(sink.close())
    assert isinstance(bench.failure(synced), SinkClosed)
    assert isinstance(bench.failure(sink.sync()), SinkClosed)


def test_close_cuts_the_file_where_it_is_told(bench):
    bench.put_file(b"kept")
    sink = bench.sink(offset=4)
    sink.start()
    sink.write(b" not verified")
    bench.turn()
    bench.result(sink.close(truncate_to=4))
    assert bench.content() == b"kept"
    assert bench.disk.open_files == 0


def test_a_failing_close_is_logged_and_closes_all_the_same(bench):
    sink = bench.sink()
    sink.start()
    sink.write(b"abc")
    bench.turn()
    bench.disk.fail_next("close", errno.EIO)
    assert bench.result(sink.close()) is None
    assert bench.disk.open_files == 0


# -- failures


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        ("open", errno.EMFILE),
        ("open", errno.EROFS),
        ("writev", errno.ENOSPC),
        ("writev", errno.EDQUOT),
        ("fdatasync", errno.EIO),
        ("sync_directory", errno.EIO),
    ],
)
def test_a_failure_ends_the_sink(bench, operation, number):
    told = []
    sink = bench.sink()
    sink.on_failure = told.append
    bench.disk.fail_next(operation, number)
    sink.write(b"x" * 1000)
    first, second = sink.sync(), sink.sync()
    assert bench.failure(first).errno == number
    assert bench.failure(second).errno == number
    assert [failure.value.errno for failure in told] == [number]
    sink.write(b"later")
    assert (sink.queued, bench.budget.used) == (0, 0)
    assert bench.failure(sink.sync()).errno == number
    bench.result(sink.close())
    assert (bench.disk.open_files, len(told)) == (0, 1)
    assert bench.operations().count("fdatasync") == (operation in ("fdatasync", "sync_directory"))


def test_after_a_failed_sync_the_file_is_cut_to_what_was_synced_before(bench):
    sink = bench.sink()
    sink.write(b"synced")
    bench.result(sink.sync())
    sink.write(b" perhaps lost")
    bench.disk.fail_next("fdatasync", errno.EIO)
    assert bench.failure(sink.sync()).errno == errno.EIO
    bench.result(sink.close())
    assert bench.content() == b"synced"


def test_the_next_append_after_a_failure_starts_from_what_is_durable(bench):
    sink = bench.sink()
    sink.write(b"synced")
    bench.result(sink.sync())
    bench.disk.fail_next("writev", errno.ENOSPC)
    sink.write(b" half of this")
    assert bench.failure(sink.sync()).errno == errno.ENOSPC
    bench.result(sink.close())
    again = bench.sink(offset=6)
    again.write(b" and more")
    assert bench.result(again.sync()) == 15
    assert bench.content() == b"synced and more"


@pytest.mark.parametrize("seed", range(10))
def test_a_failure_while_another_thread_is_at_the_file_ends_everything_once(seed):
    bench = Bench(rng=Random(seed))
    told = []
    sink = bench.sink()
    sink.on_failure = told.append
    sink.start()
    sink.write(b"x" * 100)
    synced = sink.sync()
    bench.disk.fail_next("fdatasync" if seed % 2 else "writev", errno.EIO, after=0 if seed % 2 else 1)
    for _ in range(3):
        sink.write(b"y" * TURN)
    closed = sink.drained().addCallback(lambda _: sink.close())
    bench.turn()
    assert closed.called
    assert len(told) == 1
    synced.addErrback(lambda failure: None)
    assert (bench.disk.open_files, bench.budget.used) == (0, 0)
    assert len(bench.content()) == sink.durable


def test_bytes_go_through_real_threads_unharmed(tmp_path):
    """Many buffers of many sizes, three sinks, two threads."""
    rng = Random(3)
    digests = [hashlib.sha256() for _ in range(3)]
    expected = [hashlib.sha256() for _ in range(3)]
    with RealBench(tmp_path) as bench:
        sinks = [bench.spool.sink(f"{number:032x}", 0, ceiling=None, digest=digests[number]) for number in range(3)]
        for _ in range(300):
            number = rng.randrange(3)
            data = rng.randbytes(rng.choice([1, 100, 5000, 70_000]))
            expected[number].update(data)
            sinks[number].write(data)
            if rng.random() < 0.1:
                assert bench.until(sinks[number].sync()) == sinks[number].received
        for sink in sinks:
            bench.until(sink.sync())
            bench.until(sink.close())
    for sink, fed, sent in zip(sinks, digests, expected, strict=True):
        assert fed.digest() == sent.digest()
        assert hashlib.sha256((tmp_path / sink.upload_id).read_bytes()).digest() == sent.digest()

"""Bytes that go from a socket to the data file by themselves."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading

import pytest
from zope.interface.verify import verifyObject

from resumable.aio.threads import AGAIN
from resumable.spool.direct import AHEAD, POOR, SAMPLE, TURN, DirectTransfer, Ending, IDirectConsumer
from resumable.spool.splice import CannotSplice, Splicer
from tests.spool.spool_bench import ID, MIB, Bench, Producer, RealBench

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="only Linux has splice(2)")


class Link:
    """A TCP connection: ``client`` sends, ``fd`` is the server's non-blocking socket. ``came``: what was counted."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.client = socket.create_connection(listening.getsockname())
            self.server, _ = listening.accept()
        self.server.setblocking(False)
        self.fd = self.server.fileno()
        self.came = 0

    def count(self, size):
        self.came += size

    def send(self, data):
        """From a thread; it ends when all was sent."""
        thread = threading.Thread(target=self.client.sendall, args=(data,))
        thread.start()
        return thread

    def reset(self):
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()

    def close(self):
        self.client.close()
        self.server.close()


@pytest.fixture
def link():
    link = Link()
    yield link
    link.close()


@pytest.fixture
def bench():
    return Bench()


def started(bench, **options):
    sink = (bench.spool.sink(ID, 0, **{"ceiling": None, **options})) if isinstance(bench, RealBench) else bench.sink()
    sink.start()
    sink.registerProducer(Producer(), True)
    return sink


def test_a_sink_takes_bytes_from_sockets(bench):
    assert verifyObject(IDirectConsumer, bench.sink())


@pytest.mark.parametrize("size", [10, MIB, 24 * MIB + 1])
def test_bytes_follow_those_that_were_queued_and_are_durable_like_them(tmp_path, link, size):
    blob = os.urandom(size)
    with RealBench(tmp_path) as bench:
        sink = started(bench)
        sink.write(b"before ")
        sender = link.send(blob)
        left = size
        while left:
            ending, before = bench.until(sink.receive(link.fd, left, link.count)), left
            left = size - link.came
            assert ending is not Ending.NEVER or left < before  # on a busy machine, they come in small pieces
        sender.join()
        assert sink.received == sink.written == 7 + size
        sink.write(b" after")
        assert bench.until(sink.sync()) == 7 + size + 6
        bench.until(sink.close())
    assert (tmp_path / ID).read_bytes() == b"before " + blob + b" after"


def test_not_a_byte_more_than_was_asked_for_is_taken(tmp_path, link):
    with RealBench(tmp_path) as bench:
        sink = started(bench)
        link.client.sendall(b"x" * 1000 + b"next request")
        assert bench.until(sink.receive(link.fd, 1000, link.count)) is Ending.AGAIN
        assert link.server.recv(100) == b"next request"
        bench.until(sink.close())
    assert (tmp_path / ID).read_bytes() == b"x" * 1000


def test_not_a_byte_past_the_ceiling_is_taken(tmp_path, link):
    with RealBench(tmp_path) as bench:
        sink = started(bench, ceiling=10)
        link.client.sendall(b"x" * 11)
        assert bench.until(sink.receive(link.fd, 11, link.count)) is Ending.AGAIN
        assert (link.came, sink.overrun) == (10, False)
        assert sink.receive(link.fd, 1, link.count) is None
        bench.until(sink.close())


@pytest.mark.parametrize("end", ["silence", "half-close", "close", "reset"])
def test_what_came_before_an_end_or_silence_is_kept(tmp_path, link, end):
    with RealBench(tmp_path) as bench:
        sink = started(bench)
        link.client.sendall(b"x" * 100_000)
        if end == "half-close":
            link.client.shutdown(socket.SHUT_WR)
        elif end == "close":
            link.client.close()
        elif end == "reset":
            link.reset()
        ending = Ending.AGAIN
        while ending is Ending.AGAIN:
            ending = bench.until(sink.receive(link.fd, MIB, link.count))
        assert ending is Ending.LATER
        assert sink.written == link.came == 100_000
        bench.until(sink.close())


def test_many_small_pieces_are_for_the_reactor(link, bench):
    sink = started(bench)
    transfer = DirectTransfer(link.fd, 0, MIB, AHEAD, lambda: None, Waiting())
    fd = bench.disk.open(f"/spool/{ID}", create=True)

    class Drip:
        """Brings little at a time."""

        put = staticmethod(bench.disk.put)

        @staticmethod
        def take(source, count, patience):
            link.client.sendall(b"x" * 100)
            while not (size := bench.disk.take(source, count, patience)):
                pass
            return size

    assert transfer.move(Drip, fd) is None
    assert transfer.ending is Ending.NEVER
    assert transfer.put == transfer.taken >= SAMPLE * 100
    assert transfer.put < SAMPLE * POOR
    bench.result(sink.close())


class Waiting:
    """A pool, as far as a transfer looks at it: whether calls wait."""

    def __init__(self, crowded=False, urgent=False):
        self.crowded, self.urgent = crowded, urgent


class Endless:
    """A disk for a client that always has a mebibyte more."""

    def __init__(self):
        self.puts = []

    def take(self, source, count, patience):
        return min(count, MIB)

    def put(self, fd, offset):
        self.puts.append(offset)


def test_after_a_turn_others_have_theirs_and_then_it_goes_on():
    transfer, disk = DirectTransfer(0, 0, 1 << 40, AHEAD, lambda: None, Waiting(crowded=True)), Endless()
    assert transfer.move(disk, 0) is AGAIN
    assert transfer.put == TURN
    transfer.limit = transfer.end
    assert transfer.move(disk, 0) is AGAIN
    assert disk.puts == list(range(0, 2 * TURN, MIB))


def test_a_new_call_waits_for_no_turn_and_then_the_turn_goes_on():
    transfer, disk = DirectTransfer(0, 0, 1 << 40, AHEAD, lambda: None, Waiting(crowded=True, urgent=True)), Endless()
    for times in range(1, TURN // MIB + 1):
        assert transfer.move(disk, 0) is AGAIN
        assert transfer.put == times * MIB


def test_it_goes_no_further_than_the_reactor_has_allowed():
    told = []
    transfer = DirectTransfer(0, 0, 1 << 40, AHEAD, lambda: told.append(transfer.put), Waiting())
    assert transfer.move(Endless(), 0) is None
    assert transfer.put == AHEAD
    assert transfer.ending is Ending.AGAIN
    assert told == [TURN, 2 * TURN]


def test_silence_while_others_wait_ends_a_turn_that_brought_little_and_only_that():
    class Sometimes(Endless):
        """Has so many bytes, then nothing."""

        def __init__(self, *sizes):
            super().__init__()
            self.sizes = list(sizes)

        def take(self, source, count, patience):
            assert patience == 0
            return self.sizes.pop(0)

    transfer = DirectTransfer(0, 0, 1 << 40, AHEAD, lambda: None, Waiting(crowded=True))
    disk = Sometimes(MIB, None, 1000, None)
    assert transfer.move(disk, 0) is AGAIN
    assert transfer.ending is None
    assert transfer.move(disk, 0) is None
    assert (transfer.ending, transfer.put) == (Ending.LATER, MIB + 1000)


# -- the sink


@pytest.mark.parametrize(
    "unfit",
    [
        lambda sink: sink.hold(True),
        lambda sink: sink.unregisterProducer(),
        lambda sink: sink.close(),
        lambda sink: setattr(sink, "direct", False),
        lambda sink: setattr(sink, "ahead", lambda: 1000),
    ],
)
def test_a_sink_that_is_paused_or_over_takes_nothing(bench, link, unfit):
    sink = started(bench)
    unfit(sink)
    assert sink.receive(link.fd, 10, link.count) is None
    assert bench.result(sink.close()) is None


def test_a_sink_that_gathers_or_digests_takes_nothing(bench, link):
    sink = bench.sink()
    sink.registerProducer(Producer(), True)
    assert sink.receive(link.fd, 10, link.count) is None

    class Counting:
        def update(self, data): ...

    digesting = bench.sink(digest=Counting())
    digesting.start()
    digesting.registerProducer(Producer(), True)
    assert digesting.receive(link.fd, 10, link.count) is None


def test_it_is_counted_like_bytes_that_were_written(bench, link):
    sink = started(bench)
    writes = []
    sink.on_write = lambda: writes.append((sink.received, sink.written))
    sink.write(b"abc")
    link.client.sendall(b"x" * 100)
    done = sink.receive(link.fd, 100, link.count)
    assert sink.receiving
    assert bench.result(done) is Ending.AGAIN
    assert writes == [(3, 0), (103, 103)]
    assert (link.came, bench.budget.used, sink.receiving) == (100, 0, False)


def test_it_ends_when_who_hears_of_the_bytes_fails(bench, link):
    """Else the connection would be paused for ever."""
    sink = started(bench)
    link.client.sendall(b"x" * 100)

    def fails():
        raise RuntimeError("a bug")

    sink.on_write, failures = fails, []
    sink.on_failure = failures.append
    assert bench.result(sink.receive(link.fd, 100, link.count)) is Ending.LATER
    assert isinstance(failures[0].value, RuntimeError)
    assert bench.result(sink.halt()) is None
    bench.result(sink.close())


@pytest.mark.parametrize(
    "stop", [lambda sink: sink.halt(), lambda sink: sink.hold(True), lambda sink: sink.unregisterProducer()]
)
def test_it_ends_when_it_is_told_to_go_no_further(bench, link, stop):
    sink = started(bench)
    link.client.sendall(b"x" * 100)
    done = sink.receive(link.fd, 100, link.count)
    stop(sink)
    assert bench.result(done) is Ending.AGAIN
    assert (link.came, sink.receiving) == (0, False)
    assert link.server.recv(1000) == b"x" * 100


def test_who_halts_it_is_told_first_and_all_is_counted_by_then(bench, link):
    sink = started(bench)
    order = []
    link.client.sendall(b"x" * 100)
    done = sink.receive(link.fd, 200, link.count)
    done.addCallback(lambda _: order.append("over"))
    bench.pool._waiting[0][0]()  # the thread has done its part, and the reactor doesn't know
    sink.halt().addCallback(lambda _: order.append(("halted", sink.received)))
    bench.turn()
    assert order == [("halted", 100), "over"]
    assert sink.halt().called


def test_a_close_waits_for_it(bench, link):
    sink = started(bench)
    link.client.sendall(b"x" * 100)
    done = sink.receive(link.fd, 100, link.count)
    closed = sink.close()
    assert not closed.called
    bench.turn()
    assert done.called and closed.called
    assert bench.disk.open_files == 0


@pytest.mark.parametrize("operation", ["put", "open", "writev"])
def test_a_full_disk_fails_the_sink_and_tells_how_much_has_left_the_socket(bench, link, operation):
    bench.put_file(b"durable")
    sink = bench.sink(7)
    sink.start()
    sink.registerProducer(Producer(), True)
    failures = []
    sink.on_failure = failures.append
    if operation == "writev":
        sink.write(b"queued")
    link.client.sendall(b"x" * 100)
    bench.disk.fail_next(operation, errno.ENOSPC)
    done = sink.receive(link.fd, 200, link.count)
    assert bench.result(done) is Ending.LATER
    assert [failure.value.errno for failure in failures] == [errno.ENOSPC]
    assert link.came == (100 if operation == "put" else 0)
    assert sink.receive(link.fd, 10, link.count) is None
    assert bench.result(sink.close()) is None
    assert bench.content() == b"durable"
    assert bench.budget.used == 0


def test_a_sync_that_fails_meanwhile_ends_it(bench, link):
    bench.put_file(b"durable")
    sink = bench.sink(7)
    sink.start()
    sink.registerProducer(Producer(), True)
    sink.write(b"abc")
    bench.turn()
    bench.disk.fail_next("fdatasync", errno.EIO)
    synced = sink.sync()
    link.client.sendall(b"x" * 100)
    done = sink.receive(link.fd, 200, link.count)
    assert bench.failure(synced).errno == errno.EIO
    assert done.called
    assert bench.result(sink.close()) is None
    assert bench.content() == b"durable"


def test_a_sync_meanwhile_answers_what_was_counted(bench, link):
    sink = started(bench)
    sink.write(b"abc")
    done = sink.receive(link.fd, 200, link.count)
    synced = sink.sync()
    link.client.sendall(b"x" * 100)
    assert bench.result(done) is Ending.LATER
    assert bench.result(synced) >= 3
    assert bench.result(sink.sync()) == 103


# -- system calls


def test_without_a_pipe_of_full_size_not_a_byte_is_taken(link, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EPERM, "64 pipes are enough")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    link.client.sendall(b"x")
    with pytest.raises(CannotSplice):
        Splicer().take(link.fd, 10, 1)
    assert link.server.recv(10) == b"x"


def test_a_source_that_cannot_be_spliced_is_left_to_the_reactor(monkeypatch):
    def refused(*_):
        raise OSError(errno.EINVAL, "no splice_read")

    monkeypatch.setattr(os, "splice", refused)
    with pytest.raises(CannotSplice):
        Splicer().take(0, 10, 0)


def test_a_file_system_that_cannot_gets_what_was_taken_and_is_asked_no_more(tmp_path, link, monkeypatch):
    splice = os.splice

    def only_from_sockets(source, target, count, offset_src=None, offset_dst=None, flags=0):
        if offset_dst is not None:
            raise OSError(errno.EINVAL, "no splice_write")
        return splice(source, target, count)

    monkeypatch.setattr(os, "splice", only_from_sockets)
    splicer = Splicer()
    with open(tmp_path / "file", "wb") as file:
        link.client.sendall(b"x" * 1000)
        assert splicer.take(link.fd, 2000, 30) == 1000
        splicer.put(file.fileno(), 0)
        with pytest.raises(CannotSplice):
            splicer.take(link.fd, 10, 0)
    assert (tmp_path / "file").read_bytes() == b"x" * 1000


def test_what_was_taken_and_not_put_is_thrown_away(tmp_path, link):
    splicer = Splicer()
    with open(tmp_path / "file", "wb") as file, open(tmp_path / "file", "rb") as reads:
        link.client.sendall(b"lost")
        assert splicer.take(link.fd, 100, 30) == 4
        with pytest.raises(OSError):
            splicer.put(reads.fileno(), 0)
        link.client.sendall(b"kept")
        assert splicer.take(link.fd, 100, 30) == 4
        splicer.put(file.fileno(), 0)
    assert (tmp_path / "file").read_bytes() == b"kept"

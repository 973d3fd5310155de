"""Bodies that lie in files: the kernel sends them, and all that can happen to a body happens to them as well."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater

from resumable.aio.threads import Pool
from resumable.httpclient import sendfile
from resumable.httpclient.bodies import RegionBody
from resumable.httpclient.client import Http, HttpLimits
from resumable.httpclient.errors import HttpError, TimedOut
from resumable.remotes.interfaces import RegionLost
from resumable.remotes.regions import FileLoan, RegionWindow
from resumable.spool.disk import Disk
from resumable.spool.reader import Reader
from resumable.testing.simulated_disk import SimulatedDisk
from tests.httpclient.turns import until
from tests.remotes.file_region import FileRegion

SIZE = 12 << 20
DATA = bytes(range(256)) * (SIZE // 256)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Region(FileRegion):
    """``read_bytes``: how many of it came into this process. It may claim to be longer than its file."""

    def __init__(self, data: bytes, claimed: int | None = None) -> None:
        super().__init__(data)
        self.size = claimed or len(data)
        self.read_bytes = 0

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        data = os.pread(self.descriptor, size, offset + len(b"before"))
        self.read_bytes += len(data)
        if len(data) < size:
            raise RegionLost("it is shorter than it was")
        return succeed(data)


class Watched(RegionBody):
    """``moved``: how often it was told of progress."""

    moved = 0

    def __setattr__(self, name: str, value: Any) -> None:
        def told() -> None:
            self.moved += 1
            value()

        super().__setattr__(name, told if name == "progress" else value)


class Store(Protocol):
    """Takes requests; `Stores.heard` says what happens then."""

    def connectionMade(self) -> None:
        self.factory.open.append(self)
        self.factory.connections += 1
        self.got = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        self.factory.heard(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self)

    @property
    def taken(self) -> int:
        """Bytes of the body so far."""
        end = self.got.find(b"\r\n\r\n", 0, 1000)
        return 0 if end < 0 else len(self.got) - end - 4


class Stores(Factory):
    protocol, noisy = Store, False

    def __init__(self) -> None:
        self.open: list[Any] = []
        self.connections = 0
        self.bodies: list[bytes] = []

    def heard(self, store: Any) -> None:
        """Answers a request that is whole."""
        if store.taken == SIZE:
            self.bodies.append(bytes(store.got))
            store.got.clear()
            store.transport.write(OK)


@asynccontextmanager
async def serving(clock: Any = None) -> AsyncIterator[tuple[Http, Stores, Callable[..., Deferred[Any]]]]:
    stores = Stores()
    port = reactor.listenTCP(0, stores, interface="127.0.0.1")
    http = Http(reactor, HttpLimits(idle_timeout=30.0), clock=clock)
    url = f"http://127.0.0.1:{port.getHost().port}/k"

    def put(region: Any) -> Deferred[Any]:
        body = region if isinstance(region, RegionBody) else RegionBody(region)
        return Deferred.fromCoroutine(http.request("PUT", url, {"X-A": "b"}, body, largest=100))

    try:
        yield http, stores, put
    finally:
        await http.close()
        await port.stopListening()
        for each in list(stores.open):
            each.transport.abortConnection()
        await until(lambda: not stores.open)
        await deferLater(reactor, 0)


def threads() -> int:
    return sum(each.name == "sendfile" for each in threading.enumerate())


@pytest_twisted.ensureDeferred
async def test_a_file_is_sent_without_being_read_and_its_connection_is_used_again() -> None:
    async with serving() as (_, stores, put):
        with Region(DATA) as region:
            for _ in range(3):
                assert (await put(region)).body == b"ok"
                await until(lambda: not region.lent)
            assert region.read_bytes == 0 and region.loans == 3
        assert stores.connections == 1
        for each in stores.bodies:
            head, _, body = each.partition(b"\r\n\r\n")
            assert head.startswith(b"PUT /k HTTP/1.1\r\nX-A: b\r\nHost: ") and body == DATA
            assert head.endswith(b"\r\nContent-Length: %d" % SIZE)


@pytest_twisted.ensureDeferred
async def test_several_are_sent_at_once_by_one_thread() -> None:
    async with serving() as (_, stores, put):
        with Region(DATA) as region:
            asking = [put(region) for _ in range(4)]
            await until(lambda: len(stores.open) == 4 and all(each.taken for each in stores.open))
            assert threads() == 1
            for each in asking:
                assert (await each).status == 200
            await until(lambda: not region.lent)
        assert [each.partition(b"\r\n\r\n")[2] == DATA for each in stores.bodies] == [True] * 4
    assert threads() == 0


@pytest_twisted.ensureDeferred
async def test_a_store_that_does_not_read_is_waited_for_and_others_are_served() -> None:
    async with serving() as (_, stores, put):
        with Region(DATA) as region:
            slow = put(region)
            await until(lambda: bool(stores.open))
            stuck = stores.open[0]
            stuck.transport.pauseProducing()
            assert (await put(region)).status == 200
            assert not slow.called
            stuck.transport.resumeProducing()
            assert (await slow).status == 200
            await until(lambda: not region.lent)


@pytest_twisted.ensureDeferred
async def test_silence_is_given_up_by_the_clock_but_not_what_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sendfile, "TELL_AFTER", 0.0)  # it is told of each step
    monkeypatch.setattr(sendfile, "AT_ONCE", 256 << 10)
    clock = Clock()
    async with serving(clock) as (_, stores, put):
        with Region(bytes(64 << 20)) as region:
            body = Watched(region)
            asking = put(body)
            await until(lambda: len(stores.open) > 0)
            for _ in range(4):  # far longer than the time-out, in all
                await until(lambda moved=body.moved: body.moved > moved)
                clock.advance(20)
                assert not asking.called
            stores.open[0].transport.pauseProducing()
            for _ in range(1000):
                await deferLater(reactor, 0)
            clock.advance(9)
            assert not asking.called
            clock.advance(30)
            with pytest.raises(TimedOut):
                await asking
            await until(lambda: not region.lent)
        assert not clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_who_waits_no_longer_gives_file_and_connection_back() -> None:
    async with serving() as (_, stores, put):
        with Region(DATA) as region:
            asking = put(region)
            await until(lambda: bool(stores.open) and stores.open[0].taken > 0)
            stores.open[0].transport.pauseProducing()
            asking.cancel()
            with pytest.raises(CancelledError):
                await asking
            await until(lambda: not region.lent)
            stores.open[0].transport.resumeProducing()
            await until(lambda: not stores.open)


@pytest.mark.parametrize("closes", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_early_refusal_is_heard_and_ends_the_body(closes: bool) -> None:
    async with serving() as (_, stores, put):

        def refuse(store: Any) -> None:
            if store.taken < 1 << 20:
                return
            store.transport.pauseProducing()
            store.transport.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
            stores.heard = lambda store: None  # type: ignore[method-assign]
            if closes:
                store.transport.loseConnection()

        stores.heard = refuse  # type: ignore[method-assign]
        with Region(DATA) as region:
            answer = await put(region)
            assert (answer.status, answer.body) == (403, b"no")
            await until(lambda: not region.lent)
            for each in stores.open:
                each.transport.resumeProducing()
            await until(lambda: not stores.open)


@pytest_twisted.ensureDeferred
async def test_a_reset_fails_the_request() -> None:
    async with serving() as (_, stores, put):
        stores.heard = lambda store: store.transport.abortConnection()  # type: ignore[method-assign]
        with Region(DATA) as region:
            with pytest.raises(HttpError):
                await put(region)
            await until(lambda: not region.lent)


@pytest_twisted.ensureDeferred
async def test_a_file_that_shrinks_fails_the_request_as_reading_it_does() -> None:
    async with serving() as (_, stores, put):
        with Region(DATA[:-1], claimed=SIZE) as region:
            with pytest.raises(RegionLost):
                await put(region)
            await until(lambda: not region.lent and not stores.open)


@pytest_twisted.ensureDeferred
async def test_what_the_kernel_can_not_send_is_read() -> None:
    """Not every file system can do it; here it's a directory."""
    async with serving() as (_, stores, put):
        with Region(DATA) as region:
            directory = os.open("/", os.O_RDONLY)
            try:
                region.lend_file = lambda: FileLoan((directory, 0), lambda: None)  # type: ignore[method-assign]
                for _ in range(2):
                    assert (await put(region)).status == 200
            finally:
                os.close(directory)
            assert region.read_bytes == 2 * SIZE and stores.connections == 1
        for each in stores.bodies:
            assert each.partition(b"\r\n\r\n")[2] == DATA


@pytest_twisted.ensureDeferred
async def test_what_the_kernel_stops_sending_in_the_middle_is_read_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def sends(to: int, file: int, offset: int, count: int) -> int:
        if offset > SIZE // 2:
            raise OSError(errno.EIO, "a bad block")
        return sendfile_(to, file, offset, min(count, 1 << 20))

    sendfile_ = os.sendfile
    monkeypatch.setattr(os, "sendfile", sends)
    async with serving() as (_, stores, put):
        with Region(DATA) as region:
            assert (await put(region)).status == 200
            assert SIZE // 4 < region.read_bytes < SIZE
        assert stores.bodies[0].partition(b"\r\n\r\n")[2] == DATA


@pytest_twisted.ensureDeferred
async def test_closing_ends_what_is_being_sent() -> None:
    async with serving() as (http, stores, put):
        with Region(DATA) as region:
            asking = put(region)
            await until(lambda: bool(stores.open) and stores.open[0].taken > 0)
            stores.open[0].transport.pauseProducing()
            await http.close()
            with pytest.raises(HttpError):
                await asking
            assert not region.lent


@pytest_twisted.ensureDeferred
async def test_after_closing_a_body_is_read_as_where_there_is_no_file() -> None:
    async with serving() as (http, stores, put):
        await http.close()
        with Region(DATA) as region:
            await put(region)  # nothing was sent by the kernel yet, so there is no thread that has ended
            await http.close()
            await until(lambda: not region.lent)
            assert (await put(region)).status == 200 and region.read_bytes == SIZE
        assert stores.bodies[0] == stores.bodies[1]


@pytest_twisted.ensureDeferred
async def test_the_spools_files_are_lent_until_they_are_given_back(tmp_path: Any) -> None:
    disk, pool = Disk(), Pool(reactor, 1, "spool")
    pool.start()
    fd = disk.open(str(tmp_path / "data"), create=True)
    disk.writev(fd, [b"0123456789"], 0)
    reader = Reader(disk, pool, fd, 10)
    loan = RegionWindow(reader, 3, 4).lend_file()
    assert loan is not None
    descriptor, offset = loan.file
    assert os.pread(descriptor, 4, offset) == b"3456"
    closing = reader.close()
    await deferLater(reactor, 0.01)
    assert not closing.called and os.pread(descriptor, 1, 0) == b"0"
    loan.give_back()
    await closing
    with pytest.raises(ValueError, match="closed"):
        RegionWindow(reader, 3, 4).lend_file()
    assert RegionBody(RegionWindow(reader, 3, 4)).lend() is None, "reading it tells why"
    await pool.stop()


@pytest_twisted.ensureDeferred
async def test_a_disk_that_is_none_of_the_kernels_lends_no_file() -> None:
    disk, pool = SimulatedDisk(), Pool(reactor, 1, "spool")
    pool.start()
    reader = Reader(disk, pool, disk.open("/data", create=True), 0)
    assert RegionWindow(reader, 0, 0).lend_file() is None
    await reader.close()
    await pool.stop()


@pytest_twisted.ensureDeferred
async def test_who_gives_up_after_the_stop_is_not_told_of_a_closed_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with Region(DATA) as region, theirs:
        sender = sendfile.FileSender(reactor)  # type: ignore[arg-type]
        sending = sender.send(ours, b"", (region.descriptor, len(b"before")), SIZE, lambda: None)
        await until(lambda: sending.sent > 0 or bool(theirs.recv(1, socket.MSG_PEEK)))
        await sender.stop()
        sending.cancel()
        await sending.done
        assert sending.sent < SIZE

"""The slots of a scratch file: what was put is there until it is dropped, and pages are used again."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.spool.direct import DirectTransfer
from resumable.spool.disk import Disk
from resumable.spool.objects.scratch import Scratch, punch
from resumable.spool.objects.slots import KEPT, MovingDisk, SlotDisk, Slots

PAGE = 4096
SLOT = 2 * PAGE


class File:
    """A real file in slots, beside the bytes that must be in it: None at those that were dropped."""

    def __init__(self, fd: int, size: int = SLOT) -> None:
        self.fd = fd
        self.slots = Slots(size)
        self.disk = SlotDisk(Disk(), self.slots)
        self.expected: list[int | None] = []
        self._next = 0

    @property
    def blocks(self) -> int:
        """Bytes that it takes."""
        return os.fstat(self.fd).st_blocks * 512

    def append(self, size: int) -> None:
        self.write(len(self.expected), size)

    def write(self, offset: int, size: int) -> None:
        data = bytes((self._next + at) % 251 for at in range(size))
        self._next += size
        self.disk.writev(self.fd, [data[: size // 3], data[size // 3 :]], offset)
        self.expected[offset : offset + size] = data

    def drop(self, start: int, end: int, keep: bool) -> None:
        """Those that are there from ``start`` to ``end``."""
        holes = self.slots.drop(start, end - start, keep)
        self.expected[start:end] = [None] * (end - start)
        self.punch(holes)

    def punch(self, holes) -> None:
        for position, size in holes.stretches:
            punch(self.fd, position, size)
        self.slots.punched(holes)

    def stretches(self, there: bool):
        """From where to where bytes are there, or are not."""
        at = 0
        while at < len(self.expected):
            begin = at
            while at < len(self.expected) and (self.expected[at] is None) == (self.expected[begin] is None):
                at += 1
            if (self.expected[begin] is not None) == there:
                yield begin, at

    def check(self) -> None:
        for start, end in self.stretches(True):
            assert list(self.disk.read(self.fd, end - start, start)) == self.expected[start:end]
        for start, end in self.stretches(False):
            first, last = -(-start // SLOT), end // SLOT
            for slot in range(first, last):
                with pytest.raises(OSError, match="dropped"):
                    self.disk.read(self.fd, 1, slot * SLOT)
        holes = sum(each is None for each in self.expected)
        assert self.slots.cost >= len(self.expected) - holes
        edges = 2 * PAGE * (1 + len(list(self.stretches(True))) + len(list(self.stretches(False))))
        assert self.blocks <= self.slots.cost + edges, "what is counted covers what is taken, but for parts of pages"


@contextmanager
def opened(size: int = SLOT):
    with tempfile.TemporaryDirectory() as directory:
        scratch = Scratch(directory, 1 << 30, Disk())
        fd = scratch.open()
        try:
            yield File(fd, size)
        finally:
            os.close(fd)


# Half of them end where slots do, as parts do.
PLACES = st.one_of(st.integers(0, 12).map(lambda n: n * SLOT), st.integers(0, 12 * SLOT))
STEPS = st.one_of(
    st.tuples(st.just("append"), PLACES, PLACES),
    st.tuples(st.just("drop"), PLACES, PLACES),
    st.tuples(st.just("give up"), PLACES, PLACES),
    st.tuples(st.just("fetch"), PLACES, PLACES),
    st.tuples(st.just("trim"), st.just(0), st.just(0)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=20))
def test_bytes_are_where_they_were_put_until_they_are_dropped(steps):
    with opened() as file:
        for name, first, second in steps:
            start, end = sorted((first, second))
            if name == "append":
                file.append(min(end - start, 3 * SLOT))
            elif name == "trim":
                file.punch(file.slots.trim())
            else:
                for begin, until in list(file.stretches(there=name != "fetch")):
                    begin, until = max(begin, start), min(until, end)
                    if begin >= until:
                        continue
                    if name == "fetch":
                        file.write(begin, until - begin)
                    else:
                        file.drop(begin, until, keep=name == "drop")
            file.check()
        for begin, until in list(file.stretches(True)):
            file.drop(begin, until, keep=True)
        file.punch(file.slots.trim())
        assert (file.slots.cost, file.blocks) == (0, 0)


def test_a_long_append_goes_round_a_few_slots():
    with opened() as file:
        for part in range(100):
            file.append(SLOT)
            if part >= 3:
                file.drop((part - 3) * SLOT, (part - 2) * SLOT, keep=True)
        assert os.fstat(file.fd).st_size <= 4 * SLOT
        assert file.slots.cost == 4 * SLOT
        file.check()


def test_no_more_than_a_few_slots_are_kept():
    with opened() as file:
        file.append(10 * SLOT)
        file.drop(0, 10 * SLOT, keep=True)
        assert file.slots.cost == file.blocks == KEPT * SLOT


def test_none_is_kept_where_scratch_is_short():
    with opened() as file:
        file.append(2 * SLOT)
        file.drop(0, 2 * SLOT, keep=False)
        assert file.slots.cost == file.blocks == 0


def test_a_hole_that_is_punched_late_takes_no_other_bytes_along():
    with opened() as file:
        file.append(2 * SLOT)
        late = file.slots.drop(0, SLOT, keep=False)
        file.write(0, SLOT)  # fetched again
        file.append(3 * SLOT)
        assert file.slots.cost == 6 * SLOT, "it counts until it is punched"
        file.punch(late)
        file.check()


def test_a_part_that_is_a_slot_is_one_stretch():
    slots = Slots(SLOT)
    slots.put(0, 3 * SLOT)
    slots.drop(0, SLOT, keep=True)
    slots.put(3 * SLOT, SLOT)
    assert slots.find(3 * SLOT, SLOT) == [(0, SLOT)]
    assert slots.find(SLOT, 2 * SLOT) == [(SLOT, 2 * SLOT)]
    assert slots.find(2 * SLOT, 2 * SLOT) == [(2 * SLOT, SLOT), (0, SLOT)]


@pytest.mark.skipif(not hasattr(os, "splice"), reason="only Linux has splice(2)")
def test_bytes_from_a_socket_go_to_their_slots():
    class Pool:
        crowded = urgent = False

    data = os.urandom(40 * SLOT + 77)
    with opened() as file, socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
        server.setblocking(False)
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        file.append(100)
        put = 100
        while put < 100 + len(data):
            transfer = DirectTransfer(server.fileno(), put, 100 + len(data), 1 << 20, lambda: None, Pool())
            transfer.move(MovingDisk(Disk(), file.slots, put), file.fd)
            put = transfer.put
        sender.join()
        client.close()
        server.close()
        assert file.disk.read(file.fd, len(data), 100) == data

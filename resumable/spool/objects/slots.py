"""Where the bytes of a scratch file are in it: room whose bytes the store has is used again by the bytes that follow.

A long append so goes round a few slots whose pages stay: to get new pages and to give them back took 15 % of the
processor's time of an append, on a tmpfs.

Invariants: a byte that was put and not dropped is where it was put; what was dropped is read no more: reading it raises
OSError or, where its slot has other bytes still, may answer zeros, never what came later.
Offsets and sizes are bytes, offsets are of the append's file.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Final

from attrs import frozen

from resumable.spool.disk import IDisk

KEPT: Final = 4
"""Slots whose pages stay for what follows. With fewer an append whose parts are confirmed together gives pages back;
more only take room."""

Stretch = tuple[int, int]
"""A position in the file, and how many bytes follow each other there."""


@frozen
class Holes:
    """Stretches whose pages are to be given back, and the bytes that these take."""

    stretches: Sequence[Stretch]
    cost: int


class Slots:
    """``size``: of a slot, best that of a part: then a part is one stretch. For any number of threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        #: Bytes that the file takes, those of kept slots too: never fewer than it does.
        self.cost = 0
        self._lock = Lock()
        self._made = 0
        self._kept: list[int] = []
        #: By the offset's slot: the number of the file's; by that: the bytes that it takes, and those not dropped.
        self._numbers: dict[int, int] = {}
        self._taken: dict[int, int] = {}
        self._live: dict[int, int] = {}

    def put(self, offset: int, size: int) -> Sequence[Stretch]:
        """Where these bytes are to be written."""
        found = []
        with self._lock:
            for slot, at, some in self._pieces(offset, size):
                number = self._numbers.get(slot)
                if number is None:
                    number = self._numbers[slot] = self._new()
                more = min(some, self.size - self._taken[number])
                self._taken[number] += more
                self.cost += more
                self._live[number] += some
                found.append((number * self.size + at, some))
        return found

    def find(self, offset: int, size: int) -> Sequence[Stretch]:
        """Where these bytes are: one stretch if they follow each other there. Raises OSError for dropped ones."""
        found: list[Stretch] = []
        with self._lock:
            for slot, at, some in self._pieces(offset, size):
                number = self._numbers.get(slot)
                if number is None:
                    raise OSError(errno.ENODATA, "bytes of an append were dropped before they were read")
                position = number * self.size + at
                if found and sum(found[-1]) == position:
                    found[-1] = (found[-1][0], found[-1][1] + some)
                else:
                    found.append((position, some))
        return found

    def drop(self, offset: int, size: int, keep: bool) -> Holes:
        """Nobody reads these bytes any more. ``keep``: whole slots may stay for what follows. The holes are to be
        punched, and then `punched` called."""
        holes: list[Stretch] = []
        cost = 0
        with self._lock:
            for slot, at, some in self._pieces(offset, size):
                number = self._numbers.get(slot)
                if number is None:
                    continue
                self._live[number] -= some
                if some == self.size == self._taken[number] and keep and len(self._kept) < KEPT:
                    del self._numbers[slot]
                    self._kept.append(number)
                elif self._live[number] > 0:
                    gone = min(some, self._taken[number])
                    self._taken[number] -= gone
                    cost += gone
                    holes.append((number * self.size + at, some))
                else:
                    del self._numbers[slot]
                    cost += self._forget(number)
                    holes.append((number * self.size, self.size))
        return Holes(holes, cost)

    def trim(self) -> Holes:
        """Keep nothing; as `drop`."""
        with self._lock:
            kept, self._kept = self._kept, []
            return Holes([(number * self.size, self.size) for number in kept], sum(map(self._forget, kept)))

    def punched(self, holes: Holes) -> None:
        """Their pages are given back."""
        with self._lock:
            self.cost -= holes.cost

    def left(self, offset: int) -> int:
        """Bytes from there to the end of its slot."""
        return self.size - offset % self.size

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """A slot of the offsets, the first offset in it, and the bytes in it."""
        while size > 0:
            slot, at = divmod(offset, self.size)
            some = min(size, self.size - at)
            yield slot, at, some
            offset += some
            size -= some

    def _new(self) -> int:
        """The number of a slot: a kept one, or one behind all others, as a hole may still be punched in what was."""
        if self._kept:
            number = self._kept.pop()
        else:
            number, self._made = self._made, self._made + 1
            self._taken[number] = 0
        self._live[number] = 0
        return number

    def _forget(self, number: int) -> int:
        """The bytes that it takes."""
        del self._live[number]
        return self._taken.pop(number)


class SlotDisk:
    """What a file in ``slots`` needs of an `IDisk`: the same calls, with the append's offsets. For one file."""

    def __init__(self, disk: IDisk, slots: Slots) -> None:
        self._disk = disk
        self._slots = slots

    def writev(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        """See `IDisk`."""
        stretches = self._slots.put(offset, sum(map(len, buffers)))
        if len(stretches) == 1:
            self._disk.writev(fd, buffers, stretches[0][0])
            return
        data, at = memoryview(b"".join(buffers)), 0
        for position, size in stretches:
            self._disk.writev(fd, [bytes(data[at : at + size])], position)
            at += size

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """See `IDisk`. Raises OSError also for dropped bytes."""
        return b"".join([self._disk.read(fd, some, position) for position, some in self._slots.find(offset, size)])

    def descriptor(self, fd: int) -> int | None:
        """See `IDisk`. The kernel knows nothing of slots: see `Slots.find`."""
        return self._disk.descriptor(fd)

    def close(self, fd: int) -> None:
        """See `IDisk`."""
        self._disk.close(fd)


class MovingDisk:
    """Takes no more from a socket than a slot has room for, as what was taken is put at one place."""

    def __init__(self, disk: IDisk, slots: Slots, offset: int) -> None:
        self._disk = disk
        self._slots = slots
        self._offset = offset
        self._size = 0

    def take(self, source: int, count: int, patience: float) -> int | None:
        """See `IDisk`."""
        size = self._disk.take(source, min(count, self._slots.left(self._offset)), patience)
        self._size = size or 0
        return size

    def put(self, fd: int, offset: int) -> None:
        """See `IDisk`; the offset is known."""
        for position, _ in self._slots.put(self._offset, self._size):
            self._disk.put(fd, position)
        self._offset += self._size

"""The files and directories of a simulated disk, and the changes to them that a crash may leave.

See `resumable.testing.simulated_disk`.
"""

from __future__ import annotations

import itertools
from random import Random

from attrs import define, field

SECTOR = 512
"""Bytes that reach the disk together or not at all."""

_inodes = itertools.count(1)
_moments = itertools.count(1)


@define
class About:
    """A file's attributes."""

    modified: int = 0
    mode: int = 0o600


@define(eq=False)
class File:
    """``unsynced`` holds (offset, data) for a write and (size, None) for a truncate, in order. The same file may have
    several names."""

    content: bytearray = field(factory=bytearray)
    durable: bytearray = field(factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(factory=list)
    inode: int = field(factory=lambda: next(_inodes))
    about: About = field(factory=About)
    durable_about: About = field(factory=About)

    def change(self, offset: int, data: bytes | None) -> None:
        """Write ``data`` at ``offset``; cut or extend to ``offset`` where data is None."""
        self.unsynced.append((offset, data))
        _apply(self.content, offset, data)
        self.about = About(next(_moments), self.about.mode)

    def sync(self) -> None:
        """Content and size are durable."""
        for each in self.unsynced:
            _apply(self.durable, *each)
        self.unsynced.clear()

    def sync_all(self) -> None:
        """Make content and attributes durable."""
        self.sync()
        self.durable_about = self.about

    def survivor(self, rng: Random) -> File:
        """The content after the crash: of each change all, nothing or some sectors; nothing that `sync_all` didn't
        keep."""
        content = bytearray(self.durable)
        for offset, data in self.unsynced:
            fate = rng.random()
            if fate < 0.3:
                continue
            if fate < 0.6 or data is None:
                _apply(content, offset, data)
                continue
            end = offset + len(data)
            for low in range(offset - offset % SECTOR, end, SECTOR):
                if rng.random() < 0.5:
                    first, last = max(low, offset), min(low + SECTOR, end)
                    _apply(content, first, data[first - offset : last - offset])
        return File(content, bytearray(content), [], self.inode, self.durable_about, self.durable_about)


@define(eq=False)
class SimulatedDirectory:
    """A directory: its content is its names."""

    inode: int = field(factory=lambda: next(_inodes))


Node = File | SimulatedDirectory
Names = dict[str, Node]
# the changes of names by one call, all or nothing; None: the name is gone
Renaming = dict[str, Node | None]


def rename(names: Names, renaming: Renaming) -> None:
    """Do it."""
    for path, node in renaming.items():
        if node is None:
            names.pop(path, None)
        else:
            names[path] = node


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data

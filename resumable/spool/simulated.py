"""A disk in memory that forgets, fails and stops as real ones do.

One reason to change: what a crash may leave on a disk. It keeps to what POSIX promises and to what Linux does after a
failed sync (https://lwn.net/Articles/752063/), not to the kinder behaviour of one file system.

What was written, truncated, created, renamed or unlinked is volatile: `SimulatedDisk.kill` (the process dies) keeps
all of it, `SimulatedDisk.crash` (the power fails) keeps of it what chance will. ``fdatasync`` makes a file's content
and size durable, ``sync_directory`` the names in a directory. For one thread only: use it with stepped threads.
"""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar

from attrs import define, field
from zope.interface import implementer

from resumable.spool.disk import IDisk

SECTOR = 512
"""Bytes that reach the disk together or not at all."""

P = ParamSpec("P")
R = TypeVar("R")


class SimulatedCrash(BaseException):
    """The machine has stopped here. A BaseException: no ``except Exception`` goes on after a crash."""


@define(eq=False)
class _File:
    """``unsynced`` holds (offset, data) for a write and (size, None) for a truncate, in order."""

    content: bytearray = field(factory=bytearray)
    durable: bytearray = field(factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(factory=list)


@define(eq=False)
class _Directory:
    pass


_Node = _File | _Directory
# what one call does to names, all or nothing; None: the name is gone
_Renaming = dict[str, _Node | None]


@define
class _Fault:
    operation: str
    number: int
    after: int


@define
class _Descriptor:
    path: str
    file: _File
    read_only: bool


def _operation(
    method: Callable[Concatenate[SimulatedDisk, P], R],
) -> Callable[Concatenate[SimulatedDisk, P], R]:
    """One step of I/O: counted, traced, and where it was asked for, failing or crashing."""
    name = method.__name__

    @wraps(method)
    def step(self: SimulatedDisk, /, *args: P.args, **kwargs: P.kwargs) -> R:
        fault = self._enter(name, args)
        if fault is None:
            result = method(self, *args, **kwargs)
            self._leave()
            return result
        self._spoil(name, args)
        self._leave()
        raise OSError(fault, os.strerror(fault))

    return step


@implementer(IDisk)
class SimulatedDisk:
    """See `resumable.spool.disk.IDisk` for the operations; ``/`` is there from the start.

    ``steps`` counts the operations so far. ``trace`` names them with the path they were about. ``free_bytes`` is what
    `free` answers; nothing enforces it. ``open_files`` counts descriptors in use.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.trace: list[tuple[str, str]] = []
        self.free_bytes = 1 << 40
        self._names: dict[str, _Node] = {"/": _Directory()}
        self._durable_names = dict(self._names)
        self._unsynced_names: list[_Renaming] = []
        self._descriptors: dict[int, _Descriptor] = {}
        self._next_fd = 3
        self._faults: list[_Fault] = []
        self._crash_step: int | None = None
        self._crash_before = True
        self._down = False

    # -- what a test does to it

    @property
    def open_files(self) -> int:
        return len(self._descriptors)

    def fail_next(self, operation: str, number: int, after: int = 0) -> None:
        """Let an operation (a method's name) fail with this errno: the next one, or the one ``after`` so many.

        A failing ``writev`` writes the first half of its bytes. A failing ``fdatasync`` leaves what was unsynced
        readable and counts it as clean: no later sync brings it to the disk. A failing ``close`` closes.
        """
        if not hasattr(IDisk.get(operation), "getSignatureInfo"):
            raise ValueError(f"no operation of a disk: {operation}")
        self._faults.append(_Fault(operation, number, after))

    def crash_at(self, step: int, *, before: bool = True) -> None:
        """Raise SimulatedCrash at the operation of that number (the first is 1), before or after its effect.

        Every operation after it raises SimulatedCrash too.
        """
        self._crash_step, self._crash_before = step, before

    def kill(self) -> SimulatedDisk:
        """The disk as the next process finds it: everything is there, no descriptor, the same is still volatile."""
        after = SimulatedDisk()
        after.free_bytes = self.free_bytes
        after._names, after._durable_names, after._unsynced_names = copy.deepcopy(
            (self._names, self._durable_names, self._unsynced_names)
        )
        return after

    def crash(self, rng: Random) -> SimulatedDisk:
        """The disk after the power failed.

        Of unsynced writes all, none, or any of their sectors survive; every other volatile change does or doesn't.
        """
        names = dict(self._durable_names)
        for renaming in self._unsynced_names:
            if rng.random() < 0.5:
                _rename(names, renaming)
        after = SimulatedDisk()
        after.free_bytes = self.free_bytes
        for path, node in sorted(names.items()):
            if path != "/" and not isinstance(after._names.get(os.path.dirname(path)), _Directory):
                continue  # its directory is lost, and it with it
            after._names[path] = _survivor(node, rng) if isinstance(node, _File) else node
        after._durable_names = dict(after._names)
        return after

    # -- the operations

    @_operation
    def open(self, path: str, create: bool = False, read_only: bool = False) -> int:
        node = self._names.get(path)
        if isinstance(node, _Directory):
            raise _error(errno.EISDIR, path)
        if node is None:
            if not create:
                raise _error(errno.ENOENT, path)
            self._need_directory(os.path.dirname(path))
            node = _File()
            self._change_names({path: node})
        elif create and node.content:
            _change(node, 0, None)
        self._next_fd += 1  # never one that was used before: who uses a closed one is found out
        self._descriptors[self._next_fd] = _Descriptor(path, node, read_only)
        return self._next_fd

    @_operation
    def writev(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        self._write(fd, b"".join(buffers), offset)

    @_operation
    def read(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self._descriptor(fd).file.content[offset : offset + size])

    @_operation
    def fdatasync(self, fd: int) -> None:
        file = self._descriptor(fd).file
        for change in file.unsynced:
            _apply(file.durable, *change)
        file.unsynced.clear()

    @_operation
    def truncate(self, fd: int, size: int) -> None:
        _change(self._writable(fd), size, None)

    @_operation
    def size(self, fd: int) -> int:
        return len(self._descriptor(fd).file.content)

    @_operation
    def close(self, fd: int) -> None:
        self._descriptor(fd)
        del self._descriptors[fd]

    @_operation
    def file_size(self, path: str) -> int | None:
        node = self._names.get(path)
        return len(node.content) if isinstance(node, _File) else None

    @_operation
    def rename(self, source: str, target: str) -> None:
        node = self._names.get(source)
        if node is None:
            raise _error(errno.ENOENT, source)
        self._need_directory(os.path.dirname(target))
        self._change_names({source: None, target: node})

    @_operation
    def unlink(self, path: str) -> bool:
        node = self._names.get(path)
        if isinstance(node, _Directory):
            raise _error(errno.EISDIR, path)
        if node is None:
            return False
        self._change_names({path: None})
        return True

    @_operation
    def sync_directory(self, path: str) -> None:
        self._need_directory(path)
        left = []
        for renaming in self._unsynced_names:
            if any(os.path.dirname(name) == path for name in renaming):
                _rename(self._durable_names, renaming)
            else:
                left.append(renaming)
        self._unsynced_names = left

    @_operation
    def make_directory(self, path: str) -> bool:
        if path in self._names:
            return False
        self._need_directory(os.path.dirname(path))
        self._change_names({path: _Directory()})
        return True

    @_operation
    def names(self, path: str) -> Iterator[str]:
        self._need_directory(path)
        return iter([os.path.basename(name) for name in self._names if os.path.dirname(name) == path and name != "/"])

    @_operation
    def copy_range(self, source: int, target: int, source_offset: int, target_offset: int, count: int) -> int:
        data = bytes(self._descriptor(source).file.content[source_offset : source_offset + count])
        self._write(target, data, target_offset)
        return len(data)

    @_operation
    def free(self, path: str) -> int:
        self._need_directory(path)
        return self.free_bytes

    @_operation
    def allocate(self, fd: int, size: int) -> None:
        file = self._writable(fd)
        if size > len(file.content):
            _change(file, size, None)

    # -- how a step goes

    def _enter(self, name: str, args: Sequence[Any]) -> int | None:
        """Count the step; the errno that it shall fail with."""
        if self._down:
            raise SimulatedCrash
        self.steps += 1
        self.trace.append((name, self._about(args[0])))
        if self._crash_before:
            self._crash_if_asked()
        for fault in [fault for fault in self._faults if fault.operation == name]:
            if not fault.after:
                self._faults.remove(fault)
                return fault.number
            fault.after -= 1
        return None

    def _leave(self) -> None:
        if not self._crash_before:
            self._crash_if_asked()

    def _crash_if_asked(self) -> None:
        if self.steps == self._crash_step:
            self._down = True
            raise SimulatedCrash

    def _about(self, subject: int | str) -> str:
        if isinstance(subject, str):
            return subject
        return self._descriptors[subject].path if subject in self._descriptors else "?"

    def _spoil(self, name: str, args: Sequence[Any]) -> None:
        """What a failing operation does all the same."""
        if name == "writev":
            data = b"".join(args[1])
            self._write(args[0], data[: len(data) // 2], args[2])
        elif name == "fdatasync":
            self._descriptor(args[0]).file.unsynced.clear()
        elif name == "close":
            self._descriptors.pop(args[0])

    def _descriptor(self, fd: int) -> _Descriptor:
        if fd not in self._descriptors:
            raise _error(errno.EBADF, str(fd))
        return self._descriptors[fd]

    def _writable(self, fd: int) -> _File:
        descriptor = self._descriptor(fd)
        if descriptor.read_only:
            raise _error(errno.EBADF, descriptor.path)
        return descriptor.file

    def _write(self, fd: int, data: bytes, offset: int) -> None:
        file = self._writable(fd)
        if data:
            _change(file, offset, data)

    def _need_directory(self, path: str) -> None:
        if not isinstance(self._names.get(path), _Directory):
            raise _error(errno.ENOENT, path)

    def _change_names(self, renaming: _Renaming) -> None:
        _rename(self._names, renaming)
        self._unsynced_names.append(renaming)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _rename(names: dict[str, _Node], renaming: _Renaming) -> None:
    for path, node in renaming.items():
        if node is None:
            names.pop(path, None)
        else:
            names[path] = node


def _change(file: _File, offset: int, data: bytes | None) -> None:
    file.unsynced.append((offset, data))
    _apply(file.content, offset, data)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """Write ``data`` at ``offset``; cut or extend to ``offset`` where data is None."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def _survivor(file: _File, rng: Random) -> _File:
    content = bytearray(file.durable)
    for offset, data in file.unsynced:
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
    return _File(content, bytearray(content))

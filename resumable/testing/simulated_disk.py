"""A disk in memory that forgets, fails and stops as real ones do.

It keeps to the promises of POSIX, and to Linux's behaviour after a failed sync (https://lwn.net/Articles/752063/), not
to the kinder behaviour of one file system.

Each write, truncation, creation, renaming and unlinking is volatile: `SimulatedDisk.kill` (the process dies) keeps
all of it, `SimulatedDisk.crash` (the power fails) keeps of it what chance will. ``fdatasync`` makes a file's content
and size durable, ``fsync`` its time and permissions too, ``sync_directory`` the names in a directory. For one thread
only: use it with stepped threads.
"""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar

from attrs import define
from zope.interface import implementer

from resumable.spool.disk import FileFacts, IDisk
from resumable.testing.simulated_nodes import About, File, Names, Node, Renaming, SimulatedDirectory, rename

P = ParamSpec("P")
R = TypeVar("R")


class SimulatedCrash(BaseException):
    """The machine has stopped here. A BaseException: no ``except Exception`` goes on after a crash."""


@define
class _Fault:
    operation: str
    number: int
    after: int


@define
class _Descriptor:
    path: str
    node: Node
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
        self._names: Names = {"/": SimulatedDirectory()}
        self._durable_names = dict(self._names)
        self._unsynced_names: list[Renaming] = []
        self._descriptors: dict[int, _Descriptor] = {}
        self._next_fd = 3
        self._taken = b""
        self._faults: list[_Fault] = []
        self._crash_step: int | None = None
        self._crash_before = True
        self._down = False

    # -- for tests

    @property
    def open_files(self) -> int:
        """How many descriptors are open."""
        return len(self._descriptors)

    def fail_next(self, operation: str, number: int, after: int = 0) -> None:
        """Let an operation (a method's name) fail with this errno: the next one, or the one ``after`` so many.

        A failing ``writev`` or ``put`` writes the first half of its bytes. A failing ``fdatasync`` leaves unsynced
        bytes readable and counts them as clean: no later sync brings them to the disk. A failing ``close`` closes.
        """
        if not hasattr(IDisk.get(operation), "getSignatureInfo"):
            raise ValueError(f"no operation of a disk: {operation}")
        self._faults.append(_Fault(operation, number, after))

    def age(self, path: str, seconds: float) -> None:
        """Let this file have been changed so many seconds earlier."""
        node = self._named(path)
        assert isinstance(node, File)
        node.about = About(node.about.modified - int(seconds * 1e9), node.about.mode)

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
                rename(names, renaming)
        after = SimulatedDisk()
        after.free_bytes = self.free_bytes
        survivors: dict[int, Node] = {}  # one, whatever number of names it has
        for path, node in sorted(names.items()):
            if path != "/" and not isinstance(after._names.get(os.path.dirname(path)), SimulatedDirectory):
                continue  # its directory is lost, and it with it
            if isinstance(node, File) and node.inode not in survivors:
                survivors[node.inode] = node.survivor(rng)
            after._names[path] = survivors.get(node.inode, node)
        after._durable_names = dict(after._names)
        return after

    # -- the operations

    @_operation
    def open(
        self,
        path: str,
        create: bool = False,
        read_only: bool = False,
        within: int | None = None,
        mode: int | None = None,
    ) -> int:
        path = self._whole(path, within)
        node = self._names.get(path)
        if isinstance(node, SimulatedDirectory):
            raise _error(errno.EISDIR, path)
        if node is None:
            if not create:
                raise _error(errno.ENOENT, path)
            self._need_directory(os.path.dirname(path))
            node = File()
            self._change_names({path: node})
        elif create and node.content:
            node.change(0, None)
        return self._opened(_Descriptor(path, node, read_only))

    @_operation
    def create_new(self, path: str) -> int:
        if path in self._names:
            raise _error(errno.EEXIST, path)
        self._need_directory(os.path.dirname(path))
        node = File()
        self._change_names({path: node})
        return self._opened(_Descriptor(path, node, False))

    @_operation
    def writev(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        self._write(fd, b"".join(buffers), offset)

    @_operation
    def read(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self._file(fd).content[offset : offset + size])

    def descriptor(self, fd: int) -> int | None:
        """See IDisk: its files are none of the kernel's."""
        return None

    @_operation
    def fdatasync(self, fd: int) -> None:
        self._file(fd).sync()

    @_operation
    def truncate(self, fd: int, size: int) -> None:
        self._writable(fd).change(size, None)

    @_operation
    def size(self, fd: int) -> int:
        return len(self._file(fd).content)

    @_operation
    def close(self, fd: int) -> None:
        self._descriptor(fd)
        del self._descriptors[fd]

    @_operation
    def file_size(self, path: str) -> int | None:
        node = self._names.get(path)
        return len(node.content) if isinstance(node, File) else None

    @_operation
    def rename(self, source: str, target: str, within: int | None = None) -> None:
        node, target = self._named(source), self._whole(target, within)
        self._need_directory(os.path.dirname(target))
        if self._names.get(target) is not node:  # else nothing happens, and both names stay
            self._change_names({source: None, target: node})

    @_operation
    def unlink(self, path: str, within: int | None = None) -> bool:
        path = self._whole(path, within)
        node = self._names.get(path)
        if isinstance(node, SimulatedDirectory):
            raise _error(errno.EISDIR, path)
        if node is None:
            return False
        self._change_names({path: None})
        return True

    @_operation
    def sync_directory(self, path: str) -> None:
        self._sync_names(path)

    @_operation
    def make_directory(self, path: str, mode: int | None = None, within: int | None = None) -> bool:
        path = self._whole(path, within)
        if path in self._names:
            return False
        self._need_directory(os.path.dirname(path))
        self._change_names({path: SimulatedDirectory()})
        return True

    @_operation
    def open_directory(self, path: str, within: int | None = None) -> int:
        path = self._whole(path, within)
        node = self._named(path)
        if not isinstance(node, SimulatedDirectory):
            raise _error(errno.ENOTDIR, path)
        return self._opened(_Descriptor(path, node, True))

    @_operation
    def remove_directory(self, path: str, within: int | None = None) -> bool:
        path = self._whole(path, within)
        if not isinstance(self._names.get(path), SimulatedDirectory) or self._listed(path):
            return False
        self._change_names({path: None})
        return True

    @_operation
    def link(self, source: str, target: str, within: int | None = None) -> bool:
        node, target = self._named(source), self._whole(target, within)
        if isinstance(node, SimulatedDirectory):
            raise _error(errno.EPERM, source)
        self._need_directory(os.path.dirname(target))
        if target in self._names:
            return False
        self._change_names({target: node})
        return True

    @_operation
    def look(self, what: str | int, within: int | None = None) -> FileFacts | None:
        node = self._descriptor(what).node if isinstance(what, int) else self._names.get(self._whole(what, within))
        if node is None:
            return None
        links = sum(each is node for each in self._names.values())
        if isinstance(node, SimulatedDirectory):
            return FileFacts(node.inode, 0, 0, links, is_file=False)
        return FileFacts(node.inode, len(node.content), node.about.modified, links)

    @_operation
    def set_mode(self, fd: int, mode: int) -> None:
        node = self._descriptor(fd).node
        if isinstance(node, File):
            node.about = About(node.about.modified, mode)

    @_operation
    def fsync(self, fd: int) -> None:
        descriptor = self._descriptor(fd)
        if isinstance(descriptor.node, File):
            descriptor.node.sync_all()
        else:
            self._sync_names(descriptor.path)

    @_operation
    def names(self, path: str) -> Iterator[str]:
        self._need_directory(path)
        return iter(self._listed(path))

    @_operation
    def copy_range(self, source: int, target: int, source_offset: int, target_offset: int, count: int) -> int:
        data = bytes(self._file(source).content[source_offset : source_offset + count])
        self._write(target, data, target_offset)
        return len(data)

    @_operation
    def take(self, source: int, count: int, patience: float) -> int | None:
        self._taken = b""
        try:
            self._taken = os.read(source, count)
        except BlockingIOError:
            return None
        except ConnectionError:
            return 0
        return len(self._taken)

    @_operation
    def put(self, fd: int, offset: int) -> None:
        data, self._taken = self._taken, b""
        self._write(fd, data, offset)

    @_operation
    def free(self, path: str) -> int:
        self._need_directory(path)
        return self.free_bytes

    @_operation
    def allocate(self, fd: int, size: int) -> None:
        file = self._writable(fd)
        if size > len(file.content):
            file.change(size, None)

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
        """The effect that a failing operation has nevertheless."""
        if name == "writev":
            data = b"".join(args[1])
            self._write(args[0], data[: len(data) // 2], args[2])
        elif name == "put":
            self._write(args[0], self._taken[: len(self._taken) // 2], args[1])
        elif name in ("fdatasync", "fsync"):
            node = self._descriptor(args[0]).node
            if isinstance(node, File):
                node.unsynced.clear()
        elif name == "close":
            self._descriptors.pop(args[0])

    def _opened(self, descriptor: _Descriptor) -> int:
        self._next_fd += 1  # never one that was used before: the use of a closed one fails
        self._descriptors[self._next_fd] = descriptor
        return self._next_fd

    def _descriptor(self, fd: int) -> _Descriptor:
        if fd not in self._descriptors:
            raise _error(errno.EBADF, str(fd))
        return self._descriptors[fd]

    def _file(self, fd: int) -> File:
        descriptor = self._descriptor(fd)
        if isinstance(descriptor.node, SimulatedDirectory):
            raise _error(errno.EISDIR, descriptor.path)
        return descriptor.node

    def _writable(self, fd: int) -> File:
        if self._descriptor(fd).read_only:
            raise _error(errno.EBADF, self._descriptor(fd).path)
        return self._file(fd)

    def _write(self, fd: int, data: bytes, offset: int) -> None:
        file = self._writable(fd)
        if data:
            file.change(offset, data)

    def _whole(self, path: str, within: int | None) -> str:
        """The path from the root on."""
        if within is None:
            return path
        if "/" in path or path in (".", ".."):
            raise _error(errno.EINVAL, path)  # within a directory a path is one name
        return f"{self._descriptor(within).path}/{path}"

    def _named(self, path: str) -> Node:
        if path not in self._names:
            raise _error(errno.ENOENT, path)
        return self._names[path]

    def _listed(self, path: str) -> list[str]:
        return [os.path.basename(name) for name in self._names if os.path.dirname(name) == path and name != "/"]

    def _need_directory(self, path: str) -> None:
        if not isinstance(self._names.get(path), SimulatedDirectory):
            raise _error(errno.ENOENT, path)

    def _change_names(self, renaming: Renaming) -> None:
        rename(self._names, renaming)
        self._unsynced_names.append(renaming)

    def _sync_names(self, path: str) -> None:
        self._need_directory(path)
        left = []
        for renaming in self._unsynced_names:
            if any(os.path.dirname(name) == path for name in renaming):
                rename(self._durable_names, renaming)
            else:
                left.append(renaming)
        self._unsynced_names = left


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)

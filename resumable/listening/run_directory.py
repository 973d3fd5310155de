"""The directory for what is one daemon's own while it runs: its lock, and the sockets on which it answers operators.

It is for daemons that share their upload directory; a daemon with an upload directory of its own has its socket there.
Invariants: a directory that is made here is for its own user only, and so is what is in it; what a process that is gone
has left is removed at the next start, and nothing else is. The lock is the kernel's (flock), of one open file that all
processes of a server have: whoever gets it knows that all of them are gone. That counts only where it proves it: in the
same file, on a local file system, since the kernel was started.
Spec: systemd.exec(5), RUNTIME_DIRECTORY; unix(7); flock(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from resumable.listening.endpoints import LONGEST_PATH, quoted
from resumable.model.errors import StartupError
from resumable.spool.directory import file_system

SOCKET: Final = "socket"
"""Stands for the machine's own socket among the endpoints for operators, until the run directory is known."""
USUAL: Final = Path("/run/resumable")
TEMPORARY: Final = "resumable-run-"
"""Begins the names of directories that were made for want of another."""
LOCK: Final = "lock"
"""The name of the file that a server locks, with the ids of its workers."""
LOCAL: Final = frozenset({"tmpfs", "ramfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "overlay"})
"""File systems of one kernel alone, on which a lock is free only when nobody has it."""
LONGEST_LOCK: Final = 1 << 16
"""Bytes of the lock's file that are read."""
CONFIG: Final = "config.toml"
"""The name of the copy of the configuration file that workers read, however it changes meanwhile."""
_OURS = re.compile(rf"admin(-\d+)?\.sock|{re.escape(CONFIG)}")


class RunDirectory:
    """The run directory at ``path``, locked. Making one raises OSError: BlockingIOError where another server uses it.

    ``boot_id``: names the machine's present boot. ``dead``: the ids of workers that used the directory before, and are
    gone for certain. The lock outlives a fork, and ends with the last process that has ``descriptor``.
    """

    def __init__(self, path: Path, boot_id: str = "") -> None:
        self.path = path
        self.descriptor = _locked(path / LOCK)
        self._boot_id = boot_id
        self._living: tuple[str, ...] = ()
        self.dead = self._left()

    def remember(self, worker_ids: Iterable[str]) -> None:
        """These are the server's workers now. To be told before they use the catalog."""
        self._living = tuple(worker_ids)
        text = " ".join((self._place(), *self.dead, *self._living)).encode()
        with suppress(OSError):  # a full disk: of who isn't remembered, the catalog finds out later
            os.pwrite(self.descriptor, text, 0)
            os.ftruncate(self.descriptor, len(text))

    def forget_dead(self) -> None:
        """The catalog knows now."""
        self.dead = ()
        self.remember(self._living)

    def keep_config(self, data: bytes) -> Path:
        """The path of a copy of the configuration file, for its own user only. Raises OSError."""
        path = self.path / CONFIG
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as opened:
            opened.write(data)
        return path

    def give_away(self, user: int, group: int) -> None:
        """It belongs to that user, with the lock and the sockets. Links are not followed: that user may have made them.
        Raises OSError."""
        os.fchown(self.descriptor, user, group)
        for each in self.path.iterdir():
            if _OURS.fullmatch(each.name):
                os.chown(each, user, group, follow_symlinks=False)
        os.chown(self.path, user, group)

    def close(self) -> None:
        """At the end of all its processes: give it up, and remove it if it was made for want of another."""
        with suppress(OSError):  # it may be another user's by now
            (self.path / LOCK).unlink()
        with suppress(OSError):
            (self.path / CONFIG).unlink()
        os.close(self.descriptor)
        if self.path.name.startswith(TEMPORARY) and self.path.parent == Path(tempfile.gettempdir()):
            shutil.rmtree(self.path, ignore_errors=True)

    def _left(self) -> tuple[str, ...]:
        place, *ids = os.pread(self.descriptor, LONGEST_LOCK, 0).decode("ascii", "replace").split(" ")
        is_proof = self._boot_id != "" and file_system(str(self.path)) in LOCAL
        return tuple(ids) if is_proof and place == self._place() else ()

    def _place(self) -> str:
        """Names the file itself, so that a copy of it, or one of another machine, isn't believed."""
        state = os.fstat(self.descriptor)
        return f"{self._boot_id or '-'}:{state.st_dev}:{state.st_ino}"


def _locked(path: Path) -> int:
    """The descriptor of the file at that path, locked, which is made if it is missing. Raises OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):  # the one who had it is just leaving
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def made(given: Path | None, environ: Mapping[str, str], boot_id: str = "") -> RunDirectory:
    """The run directory, made if it is missing, and locked: no other server uses it. ``given``: the operator's choice.
    Blocks. Raises StartupError."""
    if given is not None:
        return _chosen(given, boot_id)
    for each in _usual(environ):
        if not isinstance(found := _tried(each, boot_id), str):
            return found
    for each in _temporaries():
        # One of a server that was killed. One without a lock has only just been made.
        if (each / LOCK).exists() and not isinstance(found := _tried(each, boot_id), str):
            return found
    return _chosen(Path(tempfile.mkdtemp(prefix=TEMPORARY)), boot_id)


def _usual(environ: Mapping[str, str]) -> Iterator[Path]:
    first = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if first:
        yield Path(first)
    yield USUAL


def _chosen(path: Path, boot_id: str) -> RunDirectory:
    found = _tried(path, boot_id)
    if isinstance(found, str):
        raise StartupError(f"The run directory {path} can't be used ({found}): choose another with --run-dir.")
    return found


def _tried(path: Path, boot_id: str) -> RunDirectory | str:
    """Make and lock it, and remove what a dead process has left; or what keeps it from being a run directory."""
    if len(os.fsencode(socket_of(path, 256))) > LONGEST_PATH:
        return f"its path is too long: a socket has room for {LONGEST_PATH} bytes"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        found = RunDirectory(path, boot_id)
        remove_stale(path)
        if not any(map(_is_ours, path.iterdir())):
            return found
        os.close(found.descriptor)
    except BlockingIOError:
        pass
    except OSError as error:
        return error.strerror or str(error)
    return "another server uses it"


def _temporaries() -> Sequence[Path]:
    """Those of this user, the newest first."""
    found = []
    for each in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            state = each.lstat()
            if state.st_uid == os.geteuid() and each.is_dir() and not each.is_symlink():
                found.append((state.st_mtime, each))
    return [path for _, path in sorted(found, reverse=True)]


def remove_stale(path: Path) -> None:
    """Remove the sockets on which nobody answers any more."""
    for each in path.iterdir():
        if _is_ours(each) and not _answers(each):
            each.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    return _OURS.fullmatch(path.name) is not None and path.is_socket()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            return probe.connect_ex(os.fspath(path)) != errno.ECONNREFUSED
        except OSError:
            return True


def found(given: Path | None, environ: Mapping[str, str], *, temporary: bool = True) -> Path | None:
    """The socket for operators of a daemon that runs on this machine, where it can be told; see `made`.

    ``temporary``: also in a directory that was made for want of another.
    """
    if given is not None:
        return socket_of(given)
    for path in map(socket_of, places(None, environ, temporary=temporary)):
        with suppress(OSError):
            if path.is_socket():
                return path
    return None


def places(given: Path | None, environ: Mapping[str, str], *, temporary: bool = True) -> Sequence[Path]:
    """Where the run directory of a server of this machine may be; see `found`."""
    if given is not None:
        return [given]
    return [*_usual(environ), *(_temporaries() if temporary else ())]


def socket_of(path: Path, number: int | None = None) -> Path:
    """The path of the machine's socket for operators, or of that of the worker with this number."""
    return path / ("admin.sock" if number is None else f"admin-{number}.sock")


def endpoint_of(path: Path, number: int | None = None) -> str:
    """The endpoint string of `socket_of`."""
    return f"unix:address={quoted(str(socket_of(path, number)))}:mode=600:lockfile=0"


def settled(endpoints: Sequence[str], path: Path) -> tuple[str, ...]:
    """The endpoints for operators, now that the run directory is known."""
    return tuple(endpoint_of(path) if each == SOCKET else each for each in endpoints)

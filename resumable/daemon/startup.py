"""The checks before the daemon starts, and its signals. An error is one line that says what to change.

Invariants: no file that is opened here stays open, because `twistd` forks afterwards. No SIGHUP ends the daemon,
however early it comes; a second signal to stop changes nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

from resumable.aio import system
from resumable.model.errors import StartupError
from resumable.protocol.names import valid_id
from resumable.spool import IDisk
from resumable.spool.directory import (
    NETWORK,
    DirectoryInUse,
    DirectoryLock,
    file_system,
    mount_of,
    unfit_to_share,
)
from resumable.spool.files import OWN, PRIVATE
from resumable.spool.segments.moved_files import read_marker
from resumable.spool.segments.segment_directory import OWN_CATALOG, half_moved

HEAP_KEPT = 32 << 20
YOUNG = 10_000
"""Objects that are made before the garbage collector looks for circles among them. A failed request leaves a hundred
there, and a small upload's bytes at most."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _check_writable(path: str, disk: IDisk) -> None:
    """Raises StartupError."""
    own = os.path.join(path, OWN)
    try:
        make_directories(path, disk)
        make_directories(own, disk, PRIVATE)
        with tempfile.TemporaryFile(dir=own):
            pass
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise StartupError(
            f"The upload directory {path} can't be written ({error.strerror}): "
            "choose another with --upload-dir, or make it writable."
        ) from error


def check_directory(path: str, disk: IDisk) -> None:
    """The upload directory exists or can be made, may be written, is local and not in use. Raises StartupError."""
    _check_writable(path, disk)
    if (marker := read_marker(disk, path)) is not None:
        if moved := half_moved(marker.text, path):
            raise StartupError(moved)
        raise StartupError(
            f"The records of the upload directory {path} are in a PostgreSQL: name it with --catalog, take it over "
            "with `resumable catalog move --to sqlite --catalog postgresql://...`, or choose another with --upload-dir."
        )
    kind = file_system(path)
    if kind in NETWORK:
        raise StartupError(
            f"The upload directory {path} is on a network file system ({kind}), which can lose what was "
            "acknowledged: choose a local directory with --upload-dir."
        )
    lock = lock_of(path)
    take_lock(lock, path)
    lock.release()


def check_shared_directory(path: str, disk: IDisk, places: bool) -> None:
    """Several processes can share the upload directory: it exists or can be made, may be written, and keeps what was
    synced. ``places``: finished files are to get places there. Raises StartupError."""
    own = os.path.join(path, OWN)
    if (marker := read_marker(disk, path)) is not None and (moved := half_moved(marker.text, path)):
        raise StartupError(moved)
    mount = mount_of(path)
    if reason := unfit_to_share(mount):
        raise StartupError(f"The upload directory {path} can't be shared: {reason}.")
    if places and mount is not None and mount.kind in NETWORK:
        raise StartupError(
            f"--place on a network file system ({mount.kind}) was never tried: leave it out, or choose a local "
            "--upload-dir that the processes of one machine share."
        )
    if os.path.exists(os.path.join(own, "catalog.sqlite3")):
        raise StartupError(f"The upload directory {path} {OWN_CATALOG}.")
    _check_writable(path, disk)


def check_places(upload_dir: str, path: str, disk: IDisk, mode: int | None) -> None:
    """Finished files can be given names below ``path``, which exists or can be made. ``mode``: its permissions then,
    as those of the directories in it; one that exists is the operator's. Raises StartupError."""
    own, real, uploads = os.path.join(upload_dir, OWN), os.path.realpath(path), os.path.realpath(upload_dir)
    beneath = os.path.relpath(real, uploads)
    if beneath.split(os.sep)[0] in (".", OWN) or valid_id(beneath) or f"{uploads}{os.sep}".startswith(real + os.sep):
        raise StartupError(
            f"Finished files can't be placed in {path}, beside the server's own: choose another with --place-dir."
        )
    try:
        make_directories(path, disk, mode)
        with tempfile.NamedTemporaryFile(dir=own) as file:
            linked = os.path.join(path, f".{os.path.basename(file.name)}")
            os.link(file.name, linked)
            os.unlink(linked)
    except OSError as error:
        reason = f"can't be written ({error.strerror}): choose another with --place-dir, or make it writable"
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP):
            reason = "is on another file system than the uploads, or on one without hard links: choose --place-dir anew"
        raise StartupError(f"The directory for finished files, {path}, {reason}.") from error


def make_directories(path: str, disk: IDisk, mode: int | None = None) -> None:
    """Make ``path`` and the directories missing above it, all with ``mode`` (None: the disk's); each new name survives
    power loss. Raises OSError."""
    parent = os.path.dirname(path)
    if os.path.isdir(path) or parent == path:
        return
    make_directories(parent, disk, mode)
    if disk.make_directory(path, mode):
        disk.sync_directory(parent)


def lock_of(path: str) -> DirectoryLock:
    """The lock of the upload directory at ``path``, not taken yet."""
    return DirectoryLock(os.path.join(path, OWN, "lock"))


def take_lock(lock: DirectoryLock, path: str) -> None:
    """Raises StartupError when another daemon has it."""
    try:
        lock.acquire()
    except DirectoryInUse:
        raise StartupError(
            f"Another daemon uses the upload directory {path}: stop it, or choose another with --upload-dir."
        ) from None
    except OSError as error:
        raise StartupError(f"The upload directory {path} can't be locked ({error.strerror}).") from error


def raise_file_limit() -> None:
    """Every connection and every long append needs an open file: take as many as the system grants."""
    system.raise_file_limit()


def most_connections() -> int:
    """So many that each may have a long append and the rest of the server has files too, once the limit is raised."""
    most = system.most_files()
    return most if most == sys.maxsize else most // 2


def keep_heap() -> None:
    """Have glibc keep the memory of large reads between them (mallopt(3)).

    Its defaults hand the memory of every body's buffers back to the kernel and ask for it again: a fifth of the CPU
    of a large upload. The most that is kept at the heap's end is `HEAP_KEPT` bytes; for its holes see `give_back_heap`.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, HEAP_KEPT)
        mallopt(_M_MMAP_THRESHOLD, HEAP_KEPT)


def give_back_heap() -> None:
    """Return the pages of the heap's holes to the kernel (malloc_trim(3)): milliseconds, in a thread.

    Reads of 64 KiB leave a hole wherever something small and lasting was put behind them: with thousands of slow
    uploads these come to three times the memory in use.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(HEAP_KEPT)


def spare_collector() -> Callable[[], None]:
    """Have the garbage collector leave alone what needs it least; before the first request. Answers what undoes it.

    Modules, classes and the parts of the daemon stay for good (`gc.freeze`): going through all of them takes 50 ms, in
    which no request is answered, and small uploads made Python do it several times a second, for a quarter of their
    CPU. Requests that succeed leave it nothing, so it looks only when `YOUNG` more objects are there than the last
    time; the default, 700, is less than those of a few dozen requests under way, and cost a twentieth.
    """
    young, *older = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *older)

    def undo() -> None:
        gc.unfreeze()
        gc.set_threshold(young, *older)

    return undo


def boot_id() -> str:
    """Names the machine's present boot (random(4)); empty where that can't be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def handle_signals(reactor: Any, reload: Callable[[], None]) -> None:
    """From now on SIGHUP calls ``reload`` in the reactor; from when that runs, SIGTERM ends in success.

    Until it runs, SIGINT ends the process at once, as SIGTERM does: Python's own exception would leave threads behind,
    which keep it alive.
    """
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    reactor.callWhenRunning(_stop_once, reactor)


def _stop_once(reactor: Any) -> None:
    """A stop by SIGTERM is a success: twistd's own handler would end with status 143. SIGINT is twistd's to handle, and
    is left alone where the parent ignores it, or a debugger has it."""

    def stop(number: int, frame: FrameType | None) -> None:
        # the reactor raises when it is stopped twice
        for each in (signal.SIGTERM, *interrupts):
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            reactor.sigInt(number, frame)
        else:
            reactor.callFromThread(reactor.stop)

    interrupts = [signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.SIG_DFL else []
    for each in (signal.SIGTERM, *interrupts):
        signal.signal(each, stop)

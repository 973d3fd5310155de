"""The upload directory: whether it can be written and locked, by whom, and whether a daemon has it.

Invariant: each check removes the files that it makes, and none disturbs a daemon: its lock is read, never made.
Sources: flock(2), proc(5) on /proc/locks.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attrs import frozen

from resumable.doctor.findings import Finding
from resumable.spool.directory import NETWORK, Mount, mount_of
from resumable.spool.files import OWN

NAME = "directory"
LOCKS = "file locks"
PATIENCE = 30.0
"""Seconds for a second process to try a lock."""

_FLOCK = re.compile(r"\d+: FLOCK +\S+ +WRITE (\d+) [0-9a-f]+:[0-9a-f]+:(\d+) ")


@frozen
class CheckedDirectory:
    """The upload directory that is checked. ``nearest``: itself, or the nearest directory above it that exists.

    ``held``: whether a daemon has it, None where the lock can't be read. ``holder``: that daemon's process id, None
    where it isn't shown.
    """

    directory: str
    nearest: str
    held: bool | None = False
    holder: int | None = None

    @property
    def own(self) -> str:
        """The directory of the daemon's own files."""
        return os.path.join(self.directory, OWN)

    @property
    def lock(self) -> str:
        """The daemon's lock file."""
        return os.path.join(self.own, "lock")

    @property
    def catalog(self) -> str:
        """The catalog's file."""
        return os.path.join(self.own, "catalog.sqlite3")

    @property
    def exists(self) -> bool:
        """Whether the upload directory is there already."""
        return self.nearest == self.directory

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A temporary directory on the same file system. Raises OSError."""
        where = self.own if os.path.isdir(self.own) else self.nearest
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=where) as path:
            yield path


def place_of(directory: str) -> CheckedDirectory:
    """The upload directory as it is now."""
    nearest = directory
    while not os.path.isdir(nearest) and os.path.dirname(nearest) != nearest:
        nearest = os.path.dirname(nearest)
    place = CheckedDirectory(directory, nearest)
    held = is_held(place.lock)
    return CheckedDirectory(directory, nearest, held, holder(place.lock) if held else None)


def is_held(path: str) -> bool | None:
    """Whether a process has locked that file; None where it can't be opened. A free lock is taken for a moment."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def holder(path: str, locks: str = "/proc/locks") -> int | None:
    """The id of the process that has the lock; None where it isn't shown, as from within another container."""
    try:
        inode = os.stat(path).st_ino
        with open(locks, encoding="ascii") as lines:
            found = [match for line in lines if (match := _FLOCK.match(line)) and int(match[2]) == inode]
    except OSError:
        return None
    pids = [int(match[1]) for match in found if int(match[1]) > 0]
    return pids[0] if len(pids) == 1 else None


@frozen
class DirectoryFacts:
    """``writable``: why it can't be written, None where it can. ``mode``: permission bits. ``owner`` and ``me``: user
    ids. ``apart``: the daemon's own files are on another file system than the data."""

    place: CheckedDirectory
    writable: str | None
    mode: int = 0o755
    owner: int = 0
    me: int = 0
    mount: Mount | None = None
    apart: bool = False


def look(place: CheckedDirectory) -> DirectoryFacts:
    """Try to write there, and read the permissions. Raises OSError."""
    there = os.stat(place.nearest)
    try:
        with place.scratch():
            writable = None
    except OSError as error:
        writable = error.strerror or str(error)
    apart = os.path.isdir(place.own) and os.stat(place.own).st_dev != there.st_dev
    mount = mount_of(place.nearest)
    return DirectoryFacts(place, writable, stat.S_IMODE(there.st_mode), there.st_uid, os.geteuid(), mount, apart)


def judge(found: DirectoryFacts) -> list[Finding]:
    """The findings about the directory."""
    place = found.place
    if os.path.lexists(place.directory) and not os.path.isdir(place.directory):
        what = f"{place.directory} is no directory"
        return [Finding(NAME, "bad", what, "Choose another with --upload-dir.")]
    if found.writable is not None:
        what = f"{place.nearest} can't be written by {_user(found.me)}: {found.writable}"
        advice = (
            f"It belongs to {_user(found.owner)}. Run this as the user that the daemon runs as, give the directory to"
            " that user (chown), or choose another with --upload-dir."
        )
        return [Finding(NAME, "bad", what, advice)]
    what = f"{place.directory} can be written" if place.exists else f"{place.directory} will be made at the start"
    findings = [*_kind(found), *_rights(found), *_together(found)]
    return findings if any(each.level == "bad" for each in findings) else [Finding(NAME, "ok", what), *findings]


def _kind(found: DirectoryFacts) -> list[Finding]:
    if found.mount is None or found.mount.kind not in NETWORK:
        return []
    what = f"{found.place.directory} is on a network file system ({found.mount.kind})"
    return [Finding(NAME, "bad", what, "It can lose what was acknowledged: choose a local one with --upload-dir.")]


def _rights(found: DirectoryFacts) -> list[Finding]:
    findings = []
    if found.place.exists and found.me == 0 and found.owner != 0:
        what = f"it belongs to {_user(found.owner)}, and this was asked as root, who may do everything"
        advice = f"Ask as the user that the daemon runs as: sudo -u {_user(found.owner)} resumable doctor ..."
        findings.append(Finding(NAME, "warn", what, advice))
    if found.place.exists and found.mode & stat.S_IWOTH and not found.mode & stat.S_ISVTX:
        what = f"everybody on this machine may write there (mode {found.mode:04o})"
        findings.append(Finding(NAME, "warn", what, f"chmod o-w {found.place.directory}"))
    return findings


def _together(found: DirectoryFacts) -> list[Finding]:
    if not found.apart:
        return []
    what = f"{found.place.own} is on another file system than the data"
    advice = "Final uploads can't be moved into place from there: mount the upload directory as a whole."
    return [Finding(NAME, "bad", what, advice)]


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"uid {number}"


_TRY = """import fcntl, sys
with open(sys.argv[1]) as file:
    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError: sys.exit(77)
"""


def excludes(scratch: str) -> bool:
    """Whether a second process fails to lock a file that we have locked. Raises OSError, SubprocessError."""
    path = os.path.join(scratch, "lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried = subprocess.run([sys.executable, "-I", "-S", "-c", _TRY, path], timeout=PATIENCE, check=False)
        return tried.returncode == 77
    finally:
        os.close(handle)


def judge_locks(place: CheckedDirectory, excludes: bool | str) -> list[Finding]:
    """The finding about locks. ``excludes``: the answer of the function `excludes`, or why it could not be tried."""
    if excludes is not True:
        what = "a locked file can be locked again" if excludes is False else f"files can't be locked: {excludes}"
        advice = "Two daemons could write to one directory: choose a local file system with --upload-dir."
        return [Finding(LOCKS, "bad", what, advice)]
    if place.held is None:
        advice = "Run this as the user that the daemon runs as."
        return [Finding(LOCKS, "warn", f"they work, but {place.lock} can't be opened", advice)]
    if not place.held:
        return [Finding(LOCKS, "ok", "they work; no daemon has the upload directory")]
    who = "a daemon" if place.holder is None else f"process {place.holder}"
    return [Finding(LOCKS, "ok", f"they work; {who} has the upload directory")]

"""The upload directory: whether it can be written and locked, by whom, whether a daemon has it; and its permissions:
whether other users of this machine can read uploads, and whether the intended ones can.

Invariants: each check removes the files that it makes, and none disturbs a daemon: its lock is read, never made. The
check of permissions changes nothing, and opens no file.
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
from itertools import islice
from pathlib import Path

from attrs import frozen

from resumable.doctor.findings import Finding
from resumable.spool import Modes
from resumable.spool.directory import NETWORK, Mount, mount_of
from resumable.spool.files import OWN
from resumable.spool.placed_files import PlaceSettings

NAME = "directory"
LOCKS = "file locks"
PATIENCE = 30.0
"""Seconds for a second process to try a lock."""

_FLOCK = re.compile(r"\d+: FLOCK +\S+ +WRITE (\d+) [0-9a-f]+:[0-9a-f]+:(\d+) ")

PERMISSIONS = "permissions"
#: Data files that are looked at.
MOST = 10_000
_CLASSES = ((0o010, 0o040), (0o001, 0o004))
"""Group and others: to get through a directory, and to read a file."""


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


def judge(found: DirectoryFacts, shared: bool = False) -> list[Finding]:
    """The findings about the directory. ``shared``: by several servers, so that its file system is judged elsewhere."""
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
    findings = [*([] if shared else _kind(found)), *_rights(found), *_together(found)]
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


@frozen
class Sharing:
    """``exposed``: a data file that others than `--file-mode` says can read, and its mode. ``own``: the mode of what
    the daemon keeps for itself, where others can look into that: earlier releases made it so. ``narrower``: the place
    directory's mode where that lacks what `--place-dir-mode` gives. ``barred``: the upload directory's mode where that
    keeps those out who may look into the place directory."""

    directory: str
    places: PlaceSettings
    exposed: tuple[str, int] | None = None
    own: int | None = None
    narrower: int | None = None
    barred: int | None = None


def look_at_permissions(place: CheckedDirectory, modes: Modes, places: PlaceSettings) -> Sharing:
    """Read the modes of the directories and of the data files. Raises OSError."""
    if not place.exists:
        return Sharing(place.directory, places)
    readable = _readable(place.directory)
    exposed = next(_exposed(place.directory, readable & ~modes.file), None)
    own = _mode(place.own) if os.path.isdir(place.own) else 0
    opened = own if own & readable >> 2 else None
    wanted = places.rules.directory_mode
    if places.template is None or wanted is None:
        return Sharing(place.directory, places, exposed, opened)
    narrower = barred = None
    if places.directory.is_dir() and wanted & ~_mode(places.directory):
        narrower = _mode(places.directory)
    passes = _mode(place.directory)
    if Path(place.directory) in places.directory.parents and wanted & 0o011 & ~passes:
        barred = passes
    return Sharing(place.directory, places, exposed, opened, narrower, barred)


def _readable(directory: str) -> int:
    """The bits that let somebody else read a file in the directory: of those who can get there."""
    ways = [_mode(path) for path in (Path(directory), *Path(directory).parents)]
    # which group a directory is for isn't looked at: above the upload directory, anybody's way counts
    through = [all(way & (bit | 0o001) for way in ways[1:]) and ways[0] & bit for bit, _ in _CLASSES]
    return sum(read for open_, (_, read) in zip(through, _CLASSES, strict=True) if open_)


def _exposed(directory: str, wrong: int) -> Iterator[tuple[str, int]]:
    """Data files whose modes have some of these bits. What begins with a dot is none: no id does."""
    with os.scandir(directory) as entries:
        for entry in islice(entries, MOST if wrong else 0):
            mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
            if entry.is_file(follow_symlinks=False) and mode & wrong and not entry.name.startswith("."):
                yield entry.name, mode


def _mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def judge_permissions(found: Sharing) -> list[Finding]:
    """The findings about permissions."""
    findings = []
    places, wanted = found.places.directory, found.places.rules.directory_mode or 0
    if found.exposed is not None:
        name, mode = found.exposed
        what = f"others on this machine can read uploads: {name} in {found.directory} has mode {mode:04o}"
        advice = (
            f"chmod -R go-rwx {found.directory}: it was there before, or is shared by you. If it is meant, say so with"
            f" --file-mode {mode:o}."
        )
        findings.append(Finding(PERMISSIONS, "warn", what, advice))
    if found.own is not None:
        what = f"others on this machine can look into .resumable in {found.directory}: it has mode {found.own:04o}"
        findings.append(Finding(PERMISSIONS, "warn", what, f"chmod 700 {found.directory}/.resumable"))
    if found.narrower is not None:
        what = f"{places} has mode {found.narrower:04o}, and was there before --place-dir-mode {wanted:o}"
        findings.append(Finding(PERMISSIONS, "warn", what, f"chmod {wanted:o} {places}"))
    if found.barred is not None:
        what = f"whom --place-dir-mode lets in can't get there: {found.directory} has mode {found.barred:04o}"
        advice = f"chmod {found.barred | wanted & 0o011:o} {found.directory}, or choose a --place-dir that isn't in it."
        findings.append(Finding(PERMISSIONS, "warn", what, advice))
    return findings or [Finding(PERMISSIONS, "ok", "uploads can be read by nobody but those who are meant")]

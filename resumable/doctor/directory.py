"""The upload directory: whether it is there, may be written, and by whom.

Changes when the daemon asks something else of it. Invariant: nothing is made there that stays.
"""

from __future__ import annotations

import os
import pwd
import stat
from contextlib import suppress

from attrs import frozen

from resumable.doctor.findings import Finding
from resumable.doctor.place import Place
from resumable.spool.directory import NETWORK, Mount, mount_of

NAME = "directory"


@frozen
class Directory:
    """``writable``: why not, None if it is. ``mode``: permission bits. ``owner`` and ``me``: user ids. ``apart``: what
    the daemon keeps for itself is on another file system than the data."""

    place: Place
    writable: str | None
    mode: int = 0o755
    owner: int = 0
    me: int = 0
    mount: Mount | None = None
    apart: bool = False


def look(place: Place) -> Directory:
    there = os.stat(place.nearest)
    try:
        with place.scratch():
            writable = None
    except OSError as error:
        writable = error.strerror or str(error)
    apart = os.path.isdir(place.own) and os.stat(place.own).st_dev != there.st_dev
    mount = mount_of(place.nearest)
    return Directory(place, writable, stat.S_IMODE(there.st_mode), there.st_uid, os.geteuid(), mount, apart)


def judge(found: Directory) -> list[Finding]:
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


def _kind(found: Directory) -> list[Finding]:
    if found.mount is None or found.mount.kind not in NETWORK:
        return []
    what = f"{found.place.directory} is on a network file system ({found.mount.kind})"
    return [Finding(NAME, "bad", what, "It can lose what was acknowledged: choose a local one with --upload-dir.")]


def _rights(found: Directory) -> list[Finding]:
    findings = []
    if found.place.exists and found.me == 0 and found.owner != 0:
        what = f"it belongs to {_user(found.owner)}, and this was asked as root, who may do everything"
        advice = f"Ask as the user that the daemon runs as: sudo -u {_user(found.owner)} resumable doctor ..."
        findings.append(Finding(NAME, "warn", what, advice))
    if found.place.exists and found.mode & stat.S_IWOTH and not found.mode & stat.S_ISVTX:
        what = f"everybody on this machine may write there (mode {found.mode:04o})"
        findings.append(Finding(NAME, "warn", what, f"chmod o-w {found.place.directory}"))
    return findings


def _together(found: Directory) -> list[Finding]:
    if not found.apart:
        return []
    what = f"{found.place.own} is on another file system than the data"
    advice = "Final uploads can't be moved into place from there: mount the upload directory as a whole."
    return [Finding(NAME, "bad", what, advice)]


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"uid {number}"

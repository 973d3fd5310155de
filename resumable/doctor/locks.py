"""Whether a lock on a file keeps others out, and who has the daemon's.

Changes when the daemon locks in another way. Source: flock(2).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

from resumable.doctor.findings import Finding
from resumable.doctor.place import Place

NAME = "file locks"
_TRY = """import fcntl, sys
with open(sys.argv[1]) as file:
    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError: sys.exit(77)
"""
PATIENCE = 30.0


def excludes(scratch: str) -> bool:
    """Whether a second process fails to lock what we have locked. Raises OSError, subprocess.SubprocessError."""
    path = os.path.join(scratch, "lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried = subprocess.run([sys.executable, "-I", "-S", "-c", _TRY, path], timeout=PATIENCE, check=False)
        return tried.returncode == 77
    finally:
        os.close(handle)


def judge(place: Place, excludes: bool | str) -> list[Finding]:
    """``excludes``: as the function says, or why it couldn't be tried."""
    if excludes is not True:
        what = "a locked file can be locked again" if excludes is False else f"files can't be locked: {excludes}"
        advice = "Two daemons could write to one directory: choose a local file system with --upload-dir."
        return [Finding(NAME, "bad", what, advice)]
    if place.held is None:
        advice = "Run this as the user that the daemon runs as."
        return [Finding(NAME, "warn", f"they work, but {place.lock} can't be opened", advice)]
    if not place.held:
        return [Finding(NAME, "ok", "they work; no daemon has the upload directory")]
    who = "a daemon" if place.holder is None else f"process {place.holder}"
    return [Finding(NAME, "ok", f"they work; {who} has the upload directory")]

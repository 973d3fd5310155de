"""Which file system a path lies on.

Reason to change: what is asked of a mount. Source: proc(5), /proc/PID/mountinfo.
"""

from __future__ import annotations

import os
import re

from attrs import frozen

#: File systems on which neither locks nor syncs can be relied upon.
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone"})
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@frozen
class Mount:
    """``kind``: the type of file system. ``source``: what is mounted, as the kernel names it. ``device``:
    ``MAJOR:MINOR``. ``options``: those of the mount and those of the file system."""

    point: str
    kind: str
    source: str = ""
    device: str = ""
    options: frozenset[str] = frozenset()


def mount_of(path: str, mountinfo: str = "/proc/self/mountinfo") -> Mount | None:
    """The mount that ``path`` lies on; None where it can't be told."""
    path = os.path.realpath(path)
    found: Mount | None = None
    try:
        with open(mountinfo, "rb") as lines:
            for line in lines:
                mount = _read(line)
                inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
                if inside and (found is None or len(mount.point) >= len(found.point)):
                    found = mount
    except (OSError, IndexError):
        return None
    return found


def _read(line: bytes) -> Mount:
    fields, _, rest = line.rstrip(b"\n").partition(b" - ")
    first, last = fields.split(b" "), rest.split(b" ")
    options = _text(first[5]).split(",") + _text(last[2]).split(",")
    return Mount(_text(first[4]), _text(last[0]), _text(last[1]), _text(first[2]), frozenset(options))


def _text(word: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), word))

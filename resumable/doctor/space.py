"""Whether the file system has room: for bytes, and for files."""

from __future__ import annotations

import os
from itertools import islice

from attrs import frozen

from resumable.doctor.findings import Finding, size_text

NAME = "free space"
#: Files that are counted at most; a directory with more is only estimated.
COUNTED = 100_000
FEW_FILES, NO_FILES = 10_000, 100


@frozen
class SpaceFacts:
    """``free``: bytes that may still be written. ``files``: how many may still be made, None for any number. ``used``:
    bytes of the ``counted`` uploads here; ``more``: there are more of them."""

    free: int
    files: int | None
    used: int = 0
    counted: int = 0
    more: bool = False


def look(nearest: str, directory: str) -> SpaceFacts:
    """Ask the file system, and count the files of the directory. Raises OSError."""
    stats = os.statvfs(nearest)
    files = stats.f_favail if stats.f_files else None  # some file systems make them as they need
    used = counted = 0
    more = False
    if os.path.isdir(directory):
        with os.scandir(directory) as entries:
            here = (each for each in entries if each.is_file(follow_symlinks=False))
            for each in islice(here, COUNTED):
                used += each.stat(follow_symlinks=False).st_blocks * 512
                counted += 1
            more = next(here, None) is not None
    return SpaceFacts(stats.f_bavail * stats.f_frsize, files, used, counted, more)


def judge(room: SpaceFacts, reserve: int, max_size: int | None) -> list[Finding]:
    """The findings about room. ``reserve`` and ``max_size``: bytes, as in the settings."""
    free = size_text(room.free)
    if room.free <= reserve:
        what = f"{free} are free, and --reserve is {size_text(reserve)}: uploads are refused with 507"
        advice = "Make room on the disk, enlarge it, or let local copies go (--local reclaim, with a remote)."
        return [Finding(NAME, "bad", what, advice), *_files(room)]
    files = "files here have" if room.counted != 1 else "file here has"
    least = "at least " if room.more else ""
    used = f"; {least}{room.counted} {files} {size_text(room.used)}" if room.counted else ""
    findings = [Finding(NAME, "ok", f"{free} are free, {size_text(reserve)} in reserve{used}")]
    if max_size is not None and max_size > room.free - reserve:
        what = f"one upload of --max-size ({size_text(max_size)}) doesn't fit into {free}"
        findings.append(Finding(NAME, "warn", what, "Enlarge the disk, or lower --max-size."))
    return [*findings, *_files(room)]


def _files(room: SpaceFacts) -> list[Finding]:
    if room.files is None or room.files >= FEW_FILES:
        return []
    what = f"only {room.files} more files can be made (df -i), however much space there is"
    advice = "Each upload is a file: remove small ones, or make the file system anew with more inodes."
    return [Finding(NAME, "bad" if room.files < NO_FILES else "warn", what, advice)]

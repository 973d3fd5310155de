"""Permissions: whether other users of this machine can read uploads, and whether the intended ones can.

Invariant: nothing is changed, and no file is opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from attrs import frozen

from resumable.doctor.directory import CheckedDirectory
from resumable.doctor.findings import Finding
from resumable.spool import Modes
from resumable.spool.placed_files import PlaceSettings

NAME = "permissions"
#: Data files that are looked at.
MOST = 10_000
_CLASSES = ((0o010, 0o040), (0o001, 0o004))
"""Group and others: to get through a directory, and to read a file."""


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


def look(place: CheckedDirectory, modes: Modes, places: PlaceSettings) -> Sharing:
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


def judge(found: Sharing) -> list[Finding]:
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
        findings.append(Finding(NAME, "warn", what, advice))
    if found.own is not None:
        what = f"others on this machine can look into .resumable in {found.directory}: it has mode {found.own:04o}"
        findings.append(Finding(NAME, "warn", what, f"chmod 700 {found.directory}/.resumable"))
    if found.narrower is not None:
        what = f"{places} has mode {found.narrower:04o}, and was there before --place-dir-mode {wanted:o}"
        findings.append(Finding(NAME, "warn", what, f"chmod {wanted:o} {places}"))
    if found.barred is not None:
        what = f"whom --place-dir-mode lets in can't get there: {found.directory} has mode {found.barred:04o}"
        advice = f"chmod {found.barred | wanted & 0o011:o} {found.directory}, or choose a --place-dir that isn't in it."
        findings.append(Finding(NAME, "warn", what, advice))
    return findings or [Finding(NAME, "ok", "uploads can be read by nobody but those who are meant")]

"""Whether the catalog is sound, and the data files are as long as it says.

Invariants: a catalog that a daemon has open is left alone (see resumable/catalog/batches.py on second connections).
Any other is only read, under the daemon's lock. Files that SQLite makes beside it for reading are removed again.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice

from attrs import frozen

from resumable.catalog.batches import connect
from resumable.catalog.catalog_files import COMPANIONS
from resumable.catalog.damage import damage
from resumable.doctor.directory import CheckedDirectory
from resumable.doctor.findings import Finding, size_text
from resumable.model.errors import CatalogUnavailable

NAME = "catalog"
FILES = "data files"
#: Records that are compared with their files, the youngest first, and files that are looked up.
COMPARED = 20_000
SHOWN = 3
_ID = re.compile(r"[0-9a-f]{32}")
_ACKNOWLEDGED = """SELECT id, offset FROM uploads WHERE gone IS NULL AND dropped_at IS NULL AND offset > 0
    ORDER BY seq DESC LIMIT ?"""
_COUNT = "SELECT COUNT(*) FROM uploads WHERE gone IS NULL AND dropped_at IS NULL AND offset > 0"


@frozen
class CatalogFacts:
    """``size``: bytes of the catalog, None without one. ``damage``: the fault that was found in it; ``unread``: the
    reason why it could not be read. ``aside``: damaged catalogs that were kept; ``interrupted``: a recovery was.

    ``missing`` and ``short``: uploads whose file is not there, or shorter than was acknowledged, among the youngest
    ``compared`` of ``total``. ``strays``: files without a record.
    """

    size: int | None = None
    damage: str | None = None
    unread: str | None = None
    aside: tuple[str, ...] = ()
    interrupted: bool = False
    compared: int = 0
    total: int = 0
    missing: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    strays: int = 0


def look(place: CheckedDirectory, at_most: int = COMPARED) -> CatalogFacts:
    """Read the whole catalog, and compare it with the files. Only where no daemon has the directory. Raises OSError."""
    names = sorted(os.listdir(place.own)) if os.path.isdir(place.own) else []
    stem = os.path.basename(place.catalog)
    aside = tuple(name for name in names if name.startswith(f"{stem}.damaged-") and not name.endswith(("-wal", "-shm")))
    interrupted = f"{stem}.recovery" in names
    if stem not in names:
        return CatalogFacts(aside=aside, interrupted=interrupted)
    size = os.path.getsize(place.catalog)
    try:
        with _ours(place) as alone, _as_it_was(place.catalog, alone):
            wrong = damage(place.catalog)
            if wrong is not None:
                return CatalogFacts(size, wrong, aside=aside, interrupted=interrupted)
            with closing(connect(place.catalog, "ro")) as connection:
                return _compared(connection, place, at_most, size, aside, interrupted)
    except BlockingIOError:
        unread = "a daemon has just started"
    except (sqlite3.Error, CatalogUnavailable, PermissionError) as error:
        unread = getattr(error, "strerror", None) or str(error)
    return CatalogFacts(size, unread=unread, aside=aside, interrupted=interrupted)


def _compared(
    connection: sqlite3.Connection,
    place: CheckedDirectory,
    at_most: int,
    size: int,
    aside: tuple[str, ...],
    interrupted: bool,
) -> CatalogFacts:
    missing, short, compared = [], [], 0
    for upload_id, offset in connection.execute(_ACKNOWLEDGED, (at_most,)):
        compared += 1
        try:
            if os.stat(os.path.join(place.directory, upload_id), follow_symlinks=False).st_size < offset:
                short.append(upload_id)
        except FileNotFoundError:
            missing.append(upload_id)
    with os.scandir(place.directory) as entries:
        names = [each.name for each in islice((each for each in entries if _ID.fullmatch(each.name)), at_most)]
    known = "SELECT 1 FROM uploads WHERE id = ?"
    strays = sum(connection.execute(known, (name,)).fetchone() is None for name in names)
    (total,) = connection.execute(_COUNT).fetchone()
    return CatalogFacts(
        size,
        aside=aside,
        interrupted=interrupted,
        compared=compared,
        total=total,
        missing=tuple(missing),
        short=tuple(short),
        strays=strays,
    )


@contextmanager
def _ours(place: CheckedDirectory) -> Iterator[bool]:
    """Keep daemons from starting meanwhile. Yields False where that can't be done. Raises BlockingIOError where one has
    started, OSError."""
    try:
        handle = os.open(place.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # no daemon has run here; only a daemon makes the lock, perhaps as another user
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    finally:
        os.close(handle)


@contextmanager
def _as_it_was(catalog: str, alone: bool) -> Iterator[None]:
    """Remove the empty log and the index that SQLite makes for a reader, unless somebody else may use them."""
    made = [catalog + each for each in COMPANIONS if not os.path.exists(catalog + each)]
    try:
        yield
    finally:
        for each in made if alone else ():
            with suppress(FileNotFoundError):
                os.unlink(each)


def judge(found: CatalogFacts) -> list[Finding]:
    """The findings about the catalog and the data files."""
    findings = [_sound(found), *_history(found)]
    if found.size is None or found.damage is not None or found.unread is not None:
        return findings
    return [*findings, *_files(found)]


def _sound(found: CatalogFacts) -> Finding:
    if found.size is None:
        return Finding(NAME, "ok", "there is none yet; the first start makes it")
    if found.damage is not None:
        advice = (
            "The next start sets it aside and recovers what can be read. Copy the directory .resumable first, and look"
            " at the disk (dmesg, smartctl)."
        )
        return Finding(NAME, "bad", f"it is damaged: {found.damage}", advice)
    if found.unread is not None:
        advice = "Run this as the user that the daemon runs as, with the daemon's own release."
        return Finding(NAME, "bad", f"it can't be read: {found.unread}", advice)
    return Finding(NAME, "ok", f"{size_text(found.size)}, sound (quick_check)")


def _history(found: CatalogFacts) -> list[Finding]:
    findings = []
    if found.interrupted:
        what = "a recovery of a damaged catalog was cut off"
        findings.append(Finding(NAME, "warn", what, "The next start goes on with it."))
    if found.aside:
        what = f"{found.aside[-1]} is a damaged one that was set aside"
        advice = "Look at the disk (dmesg, smartctl). Once nobody misses an upload, it can be removed."
        findings.append(Finding(NAME, "warn", what, advice))
    return findings


def _files(found: CatalogFacts) -> list[Finding]:
    findings = []
    if found.missing:
        what = f"{len(found.missing)} are missing: {_some(found.missing)}"
        findings.append(Finding(FILES, "bad", what, _LOST))
    if found.short:
        what = f"{len(found.short)} are shorter than was acknowledged: {_some(found.short)}"
        findings.append(Finding(FILES, "bad", what, _LOST))
    if not findings:
        part = "" if found.compared == found.total else f", the youngest of {found.total}"
        findings.append(Finding(FILES, "ok", f"{found.compared} have all that was acknowledged{part}"))
    if found.strays:
        what = f"{found.strays} have no record, so nobody was ever told of them"
        findings.append(Finding(FILES, "ok", what, "The next start moves them to .resumable/orphans."))
    return findings


_LOST = (
    "Somebody removed or cut them, or the file system lost them: bring them back from a backup before the next start,"
    " else these uploads answer 410."
)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")

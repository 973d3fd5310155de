"""A damaged catalog is set aside, and a new one is made of all that can still be read of it.

Invariants: a damaged catalog is never changed nor deleted, only renamed, and all is read from a copy of it; a crash at
any step leaves the next start able to go on.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress

from twisted.logger import Logger

from resumable.catalog.batches import connect
from resumable.catalog.catalog_files import (
    COMPANIONS,
    OpenedCatalog,
    beside,
    free_name,
    fresh_catalog,
    note_of,
    put_in_place,
    sync_directory,
)
from resumable.catalog.recovery.damaged import copy_files, open_copy
from resumable.catalog.recovery.saving import TRIAL, save

_log = Logger()


def recover(path: str, at: float) -> OpenedCatalog:
    """Recover the damaged catalog at ``path``, or go on with an interrupted recovery; ``at`` is the time. Blocks.

    Raises sqlite3.Error or OSError when the new catalog can't be made.
    """
    note = note_of(path)
    if not os.path.exists(note):
        _write_note(note, free_name(path, at))
    with open(note, encoding="utf-8") as file:
        aside = beside(path, os.path.basename(file.read().strip()))
    recovered = _replace(path, aside, at)
    os.unlink(note)
    sync_directory(path)
    _log.critical(
        "{recovered} records were recovered; the damaged catalog is {aside}", recovered=recovered, aside=aside
    )
    return OpenedCatalog(created=True, recovered=recovered, set_aside=aside)


def _replace(path: str, aside: str, at: float) -> int:
    """Set it aside and build the new one; every step may have been done before a crash. How many records it has."""
    if os.path.exists(aside) and os.path.exists(path):  # the new one was in place already
        with closing(connect(path)) as connection:
            return int(connection.execute("SELECT count(*) FROM uploads").fetchone()[0])
    for companion in COMPANIONS:
        if os.path.exists(path + companion) and not os.path.exists(aside + companion):
            os.rename(path + companion, aside + companion)
    sync_directory(path)
    fresh = fresh_catalog(path)
    saved = _save_all(aside, fresh, at)
    put_in_place(fresh, path, at)
    return saved


def _save_all(damaged: str, fresh: str, at: float) -> int:
    """Copy the readable records of ``damaged`` into the empty catalog ``fresh``; answers how many.

    ``at``: the time that tombstones get.
    """
    copy = f"{fresh}.salvage"
    try:
        copy_files(damaged, copy)
        with closing(sqlite3.connect(fresh, isolation_level=None)) as target:
            target.execute("PRAGMA journal_mode = MEMORY").fetchall()
            target.execute("PRAGMA synchronous = OFF")
            target.execute("PRAGMA cache_size = -131072")  # 128 MiB: ids come in no order
            target.execute("BEGIN")
            saved = 0
            if (source := open_copy(copy, fresh, TRIAL, (0, 0))) is not None:
                with closing(source):
                    saved = save(source, target, at)
            target.execute("COMMIT")
            target.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        for companion in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(copy + companion)
    return saved


def _write_note(note: str, aside: str) -> None:
    with open(f"{note}.new", "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(os.path.basename(aside))
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{note}.new", note)
    sync_directory(note)

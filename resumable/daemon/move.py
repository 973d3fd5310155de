"""Moves the records of an upload directory from SQLite to PostgreSQL and back, while no server uses either.

To PostgreSQL: the marker says so; each unfinished file is also named as a segment; PostgreSQL takes all rows in one
transaction; SQLite's file gets another name; the marker names the installation. To SQLite: PostgreSQL lets no worker
begin; the marker says so; each upload's bytes become one file; SQLite's file is written, compared and named; the
segments go; the marker goes. `resumable.spool.segments.moved_files` has the marker's forms.

Invariants: at each moment one catalog at most lets a server start on the directory, and it has all records and all
bytes; after an interruption anywhere the same command goes on, and the opposite one takes back what isn't done. What
fails is taken back at once, where that is still possible.
"""

from __future__ import annotations

import os
import pwd
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from resumable.aio.threads import Batcher
from resumable.catalog.catalog_files import COMPANIONS, note_of, put_in_place, sync_directory
from resumable.catalog.damage import damage
from resumable.catalog.row_copies import (
    TABLES,
    UPLOADS,
    CatalogFile,
    CopiedTable,
    Row,
    deliverers_in,
    unavailable_file,
    written_catalog,
)
from resumable.catalog.sqlite import SqliteCatalog
from resumable.daemon import startup
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.model.upload import Segment
from resumable.spool import Budget, Disk, Spool
from resumable.spool.datafile import SpoolDamaged
from resumable.spool.directory import NETWORK, file_system
from resumable.spool.disk import IDisk
from resumable.spool.files import OWN, PRIVATE
from resumable.spool.segments.moved_files import Marker, MovedFiles, read_marker, remove_marker, write_marker
from resumable.spool.segments.segment_directory import MOVING, RETURNING
from resumable.uploads.recovery import recover

if TYPE_CHECKING:
    from resumable.catalog.postgres.takeover import Installation, Reading, StoredUpload, Takeover

T = TypeVar("T")

OFTEN: Final = 3.0
"""Seconds between two lines about progress."""
NAMED: Final = 3
"""Uploads that an error names."""
_OLD: Final = "The records of that database were moved to SQLite before, and may be old."
_AGAIN: Final = "the same command again goes on"

_ID, _OFFSET, _FINISHED, _GONE, _DROPPED, _ON_DISK = (
    UPLOADS.at(name) for name in ("id", "offset", "finished_at", "gone", "dropped_at", "on_disk")
)


def takeover(url: str) -> Takeover:
    """The catalog in the database at ``url``. Raises StartupError without the extra."""
    try:
        from resumable.catalog.postgres.postgres_connection import connector
        from resumable.catalog.postgres.takeover import Takeover
    except ImportError as error:
        raise StartupError(
            "postgresql://... needs the extra postgres: pip install 'resumable-server[postgres]'"
        ) from error
    return Takeover(connector(url))


class RecordMove:
    """Of the records of the upload directory ``root``; the database is ``postgres``.

    ``tell`` is called with lines for the operator; ``reached`` with a name after each step that an interruption may
    follow. Both methods block, may be repeated after any interruption, and raise StartupError, CatalogUnavailable and
    OSError.
    """

    def __init__(
        self,
        root: str,
        postgres: Takeover,
        *,
        tell: Callable[[str], None] = lambda line: None,
        reached: Callable[[str], None] = lambda step: None,
        disk: IDisk | None = None,
        wall: Callable[[], float] = time.time,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._own = os.path.join(root, OWN)
        self._path = os.path.join(self._own, "catalog.sqlite3")
        self._postgres = postgres
        self._tell = tell
        self._reached = reached
        self._disk = cast(IDisk, Disk()) if disk is None else disk
        self._wall = wall
        self._seconds = seconds

    def to_postgres(self) -> None:
        """See above."""
        with self._locked():
            marker = self._marker()
            found = self._postgres.look()
            if marker is None:
                self._begin(found)
            elif marker.state == MOVING:
                self._go_on(marker, found)
            else:
                self._check_installation(marker, found)
                if marker.state == RETURNING and os.path.exists(self._path):
                    raise StartupError("All records are in SQLite already: finish that with --to sqlite first.")
                if found.returned:
                    raise StartupError(_OLD)
                if marker.state == RETURNING or found.returning:
                    self._stay(marker)
                    self._tell("the records stay in PostgreSQL: what the move to SQLite had done is taken back")
                else:
                    self._tell(f"nothing to do: the records of {self._root} are in that PostgreSQL")

    def to_sqlite(self) -> None:
        """See above."""
        with self._locked():
            marker = self._marker()
            if marker is None:
                self._tell(f"nothing to do: the records of {self._root} are in SQLite")
                return
            found = self._postgres.look()
            if marker.state == MOVING and found.id != marker.installation:
                self._check_installation(marker, found)
                self._leave(marker)
                self._tell("the records stay in SQLite: what the move to PostgreSQL had done is taken back")
                return
            self._check_installation(marker, found)
            if marker.state == MOVING:
                self._finish(marker)
            self._return(Marker("", marker.installation), found, begun=marker.state == RETURNING)

    # -- what there is

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else moves the records, and no server has the directory for itself."""
        if not os.path.isdir(self._own):
            raise StartupError(f"{self._root} is no upload directory: there is no {self._own}.")
        owner = os.stat(self._own).st_uid
        if owner != os.geteuid():
            name = _user(owner)
            raise StartupError(f"{self._own} belongs to the user {name}: run this command as {name}, as the server is.")
        lock = startup.lock_of(self._root)
        startup.take_lock(lock, self._root)
        try:
            yield
        except sqlite3.Error as error:
            raise unavailable_file(error) from error
        except SpoolDamaged as error:
            raise StartupError(f"The {error}.") from error
        except ValueError as error:  # of a record that no release makes
            raise StartupError(f"A record of {self._root} can't be moved: {error}.") from error
        finally:
            lock.release()

    def _marker(self) -> Marker | None:
        marker = read_marker(self._disk, self._root)
        if marker is None and not os.path.exists(self._path):
            raise StartupError(f"There are no records in {self._root}: there is no {self._path}.")
        return marker

    def _check_installation(self, marker: Marker, found: Installation) -> None:
        if found.id not in (marker.installation, marker.before):
            raise StartupError(
                f"The records of {self._root} belong to another database: name the one that it was used with"
                f"{', or that its records are half moved to' if marker.state else ''}."
            )

    # -- to PostgreSQL

    def _begin(self, found: Installation) -> None:
        if found.returning:
            raise StartupError("The records of another upload directory are on their way out of that database.")
        if found.uploads and not found.returned:
            raise StartupError(f"That database has records of {found.uploads} uploads: name one that is empty.")
        self._postgres.check_unused()
        self._recover()
        self._check_files()
        marker = Marker(MOVING, os.urandom(16).hex(), found.id)
        write_marker(self._disk, self._root, marker)
        self._reached("marked")
        self._fill(marker)

    def _go_on(self, marker: Marker, found: Installation) -> None:
        self._check_installation(marker, found)
        self._tell("going on with a move that was interrupted")
        if found.id == marker.installation:
            self._finish(marker)
        else:
            self._recover()
            self._fill(marker)

    def _recover(self) -> None:
        """As the server does at its start, but that no upload is finished by it: hooks may have to be asked."""
        interrupted = os.path.exists(note_of(self._path))
        if what := "its recovery was interrupted" if interrupted else damage(self._path):
            what = " ".join(what.split())
            raise StartupError(f"The catalog is damaged ({what}): start the server once, which recovers what it can.")
        catalog = SqliteCatalog(
            self._path,
            batcher=lambda work: Batcher(cast(Any, None), work, name="catalog"),
            deliverers=deliverers_in(self._path),
        )
        spool = Spool(
            self._root,
            disk=self._disk,
            batcher=lambda work: Batcher(cast(Any, None), work, name="puts"),
            pool=cast(Any, None),
            budget=Budget(),
        )
        self._disk.make_directory(f"{self._own}/orphans", PRIVATE)
        try:
            opened = catalog.open()
            done = recover(catalog, opened, spool, startup.boot_id(), self._wall(), asks=True)
        finally:
            catalog.stop()
        if done.adopted or done.orphans:
            self._tell(f"{done.adopted} uploads moved on to bytes that had arrived, {done.orphans} files set aside")
        self._reached("recovered")

    @contextmanager
    def _catalog(self) -> Iterator[CatalogFile]:
        file = CatalogFile(self._path)
        try:
            yield file
        finally:
            file.close()

    def _check_files(self) -> None:
        files, lacking, counts = MovedFiles(self._disk, self._root, ""), [], [0, 0]
        with self._catalog() as catalog:
            for row in self._counted(catalog.rows(UPLOADS), "files looked at", catalog.count(UPLOADS)):
                counts[_is_open(row)] += 1
                if _has_data(row) and row[_OFFSET] and files.lacks(row[_ID], row[_OFFSET]):
                    lacking.append(row[_ID])
        _raise_for(lacking)
        self._tell(f"found {sum(counts)} uploads in {self._root}, {counts[1]} of them unfinished")

    def _fill(self, marker: Marker) -> None:
        files = MovedFiles(self._disk, self._root, marker.installation)

        def is_whole(row: Row) -> bool:
            finished = row[_FINISHED] is not None and row[_ON_DISK] == 1
            return finished and not files.lacks(row[_ID], row[_OFFSET])

        steps: list[str] = []

        def reached(step: str) -> None:
            steps.append(step)
            self._reached(step)

        def landed() -> bool:
            return "before commit" in steps and self._landed(marker)

        with self._undone(landed, lambda: self._leave(marker)), self._catalog() as catalog:
            files.make_folders()
            self._reached("folders")
            for row in self._counted(catalog.rows(UPLOADS), "files", catalog.count(UPLOADS)):
                if _is_open(row) and row[_OFFSET]:
                    files.give_segment(row[_ID], row[_OFFSET])
            files.sync_segments()
            self._reached("segments")

            def tables(table: CopiedTable) -> Iterable[Row]:
                return self._counted(catalog.rows(table), f"rows of {table.name}", catalog.count(table))

            def segments() -> Iterator[tuple[str, Segment]]:
                for row in catalog.rows(UPLOADS):
                    if _is_open(row) and row[_OFFSET]:
                        yield row[_ID], Segment(0, row[_OFFSET], files.segment_of(row[_ID]))

            counts = ", ".join(f"{catalog.count(table)} {table.name}" for table in TABLES)
            self._postgres.fill(
                *(marker.before, marker.installation, tables, is_whole, segments, catalog.last_event()),
                reached=reached,
                watched=self._compared,
            )
        self._reached("committed")
        self._tell(f"PostgreSQL has the records, read again and compared: {counts}")
        self._finish(marker)

    def _landed(self, marker: Marker) -> bool:
        """Whether PostgreSQL has the records. Raises CatalogUnavailable where that can't be known."""
        try:
            return self._postgres.look().id == marker.installation
        except CatalogUnavailable as error:
            raise CatalogUnavailable(
                f"{error}; whether the database has the records is not known: repeat the command when it answers"
            ) from error

    def _leave(self, marker: Marker) -> None:
        """Take back what was done before PostgreSQL had the records."""
        MovedFiles(self._disk, self._root, marker.installation).remove_segments()
        self._reached("segments removed")
        remove_marker(self._disk, self._root)
        self._reached("unmarked")

    def _finish(self, marker: Marker) -> None:
        """PostgreSQL has the records."""
        with self._undone(lambda: True):
            self._tidy_for_postgres(marker)

    def _tidy_for_postgres(self, marker: Marker) -> None:
        if os.path.exists(self._path):
            with self._catalog():
                pass  # closing it writes its log back
            self._reached("checkpointed")
            for companion in COMPANIONS[1:]:
                with suppress(FileNotFoundError):
                    os.unlink(self._path + companion)
            os.rename(self._path, f"{self._path}.moved")
            sync_directory(self._path)
            self._reached("renamed")
        with suppress(FileNotFoundError):
            os.unlink(f"{self._own}/ballast")
        files = MovedFiles(self._disk, self._root, marker.installation)
        with self._postgres.reading() as reading:
            files.forget(reading.unfinished())
        self._reached("files removed")
        write_marker(self._disk, self._root, Marker("", marker.installation))
        self._reached("done")

    # -- to SQLite

    def _return(self, marker: Marker, found: Installation, begun: bool) -> None:
        if begun and os.path.exists(self._path):
            self._close(marker)
            return
        if found.in_store:
            raise StartupError("Bytes of uploads are in an object store: these records can't be moved to SQLite.")
        if found.returned:
            raise StartupError(_OLD)
        if os.path.exists(self._path):
            raise StartupError(f"There is a {self._path}, which isn't this database's: move it away first.")
        if (kind := file_system(self._root)) in NETWORK:
            raise StartupError(
                f"{self._root} is on a network file system ({kind}), where SQLite can lose what was acknowledged: copy"
                " the directory to a local one first."
            )
        if begun:
            self._tell("going on with a move that was interrupted")
        self._postgres.bar()
        self._reached("barred")
        with self._undone(lambda: os.path.exists(self._path), lambda: self._stay(marker)):
            write_marker(self._disk, self._root, Marker(RETURNING, marker.installation))
            self._reached("marked")
            with self._postgres.reading() as reading:
                self._gather(MovedFiles(self._disk, self._root, marker.installation), reading)

                def tables(table: CopiedTable) -> Iterable[Row]:
                    return self._counted(reading.rows(table), f"rows of {table.name}", None)

                fresh = written_catalog(self._path, tables, reading.last_event(), self._compared)
            self._reached("written")
            put_in_place(fresh, self._path, self._wall())
        self._reached("named")
        self._close(marker)

    def _gather(self, files: MovedFiles, reading: Reading) -> None:
        """Put each upload's bytes into the file under its id."""
        count = unfinished = to_copy = 0
        lacking = []
        for each in reading.stored():
            count += 1
            unfinished += not (each.finished or each.gone)
            if not _needed(each):
                continue
            if files.missing(each.layout) is not None:
                if not each.gone:
                    lacking.append(each.layout.upload_id)
            else:
                to_copy += files.bytes_to_copy(each.layout)
        _raise_for(lacking)
        self._tell(f"found {count} uploads with data in {self._root}, {unfinished} of them unfinished")
        if to_copy > (free := files.free()):
            raise StartupError(
                f"{to_copy} bytes of segments have to be copied, and {self._root} has room for {free}: make room first."
            )
        for each in self._counted(reading.stored(), "files", count):
            if _needed(each) and files.missing(each.layout) is None:
                files.give_file(each.layout)
            elif each.waits and not each.gone:
                files.remove_file(each.layout.upload_id)
        files.sync_files()
        self._reached("files")

    def _stay(self, marker: Marker) -> None:
        """Take back what was done before SQLite had the records."""
        for companion in COMPANIONS:
            with suppress(FileNotFoundError):
                os.unlink(f"{self._path}.new{companion}")
        write_marker(self._disk, self._root, Marker("", marker.installation))
        self._reached("unmarked")
        self._postgres.unbar()
        self._reached("unbarred")

    def _close(self, marker: Marker) -> None:
        """SQLite has the records."""
        self._tell("SQLite has the records, read again and compared")
        with self._undone(lambda: True):
            self._tidy_for_sqlite(marker)

    def _tidy_for_sqlite(self, marker: Marker) -> None:
        MovedFiles(self._disk, self._root, marker.installation).remove_segments()
        self._reached("segments removed")
        self._postgres.returned()
        self._reached("returned")
        remove_marker(self._disk, self._root)
        self._reached("done")

    # -- helpers

    @contextmanager
    def _undone(self, landed: Callable[[], bool], undo: Callable[[], None] = lambda: None) -> Iterator[None]:
        """A failure takes back what was done, unless it came too late."""
        try:
            yield
        except (StartupError, CatalogUnavailable, OSError, sqlite3.Error, SpoolDamaged, ValueError):
            if landed():
                self._tell(f"the records have moved, but something is left to do: {_AGAIN}")
                raise
            try:
                undo()
            except (StartupError, CatalogUnavailable, OSError) as error:
                self._tell(f"this could not be taken back ({error}): {_AGAIN}")
            else:
                self._tell("nothing was moved: all is as it was")
            raise

    def _compared(self, rows: Iterable[Row], table: CopiedTable) -> Iterable[Row]:
        return self._counted(rows, f"rows of {table.name} compared", None)

    def _counted(self, each: Iterable[T], what: str, total: int | None) -> Iterator[T]:
        """Each of them, and now and then a line that tells how many there were."""
        last = self._seconds()
        for count, one in enumerate(each, 1):
            yield one
            if count % 256 == 0 and (now := self._seconds()) - last >= OFTEN:
                last = now
                self._tell(f"  {count}{'' if total is None else f' of {total}'} {what}")


def _has_data(row: Row) -> bool:
    """Whether its bytes have to be here."""
    return row[_GONE] is None and row[_DROPPED] is None and row[_ON_DISK] == 1


def _is_open(row: Row) -> bool:
    return row[_FINISHED] is None and row[_GONE] is None and row[_ON_DISK] == 1


def _needed(each: StoredUpload) -> bool:
    """Whether somebody may still read its bytes; of an unfinished final there are none."""
    return not each.waits and ((not each.gone and not each.dropped) or (each.pinned and each.finished))


def _raise_for(lacking: list[str]) -> None:
    if not lacking:
        return
    named = ", ".join(lacking[:NAMED]) + (", ..." if len(lacking) > NAMED else "")
    raise StartupError(
        f"Bytes of {len(lacking)} uploads are missing ({named}): put their files back, or start the server and remove"
        " them with `resumable rm`."
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

"""The local tier: one data file per upload in one directory. Small appends are written here, long ones by a `Sink`.

Invariant: when a Deferred of this class fires, its bytes and names are durable. An upload has one writer at a time (the
holds see to that). The server's own files lie in ``.resumable/``; everything else in the directory that is named like
an id is a data file.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from resumable.aio.threads import IBatcher, IPool
from resumable.model.upload import Through, Upload
from resumable.protocol.errors import TusError
from resumable.spool import datafile
from resumable.spool.assembly import STEP, Assembly
from resumable.spool.budget import Budget
from resumable.spool.datafile import DataFile, RunningDigest, SpoolDamaged, open_at
from resumable.spool.disk import IDisk, raise_first, unlink_each
from resumable.spool.file_syncs import FileSyncs
from resumable.spool.placing import PlaceDirectory, Rules
from resumable.spool.reader import Reader
from resumable.spool.sink import Sink

__all__ = ["Put", "PutBatcher", "Reader", "Sink", "Spool", "SpoolDamaged"]

OWN = ".resumable"
#: Of `OWN` and what is in it: the catalog and halves of files are nobody's but the server's, whoever may see the rest.
PRIVATE = 0o700
# also the form of ids that hooks give; nothing that could leave the directory or hide in it
SAFE_NAME = re.compile(r"[0-9A-Za-z_-]{1,200}")
DRAWN_ID = re.compile(r"[0-9a-f]{32}")
"""An id that the server has drawn, not a hook. Another name in the upload directory may be an operator's file."""


@frozen
class Put:
    """A small append: all its bytes, for one upload, at the offset where they belong. ``change``: see `Spool.put`."""

    upload_id: str
    offset: int
    chunks: Sequence[bytes]
    change: Any = None


PutBatcher = Callable[[Callable[[list[Put]], Sequence[Any]]], IBatcher[Put, Any]]
Record = Callable[[list[Any]], Sequence[Any]]
P = TypeVar("P", bound=Put)


def recorded(
    puts: Sequence[P], written: Sequence[Failure | None], record: Record, refused: Callable[[P], object] | None = None
) -> Sequence[Any]:
    """Record the changes of those puts that are ``written``: a result or a Failure for each. ``refused`` is called with
    each whose change is refused for good."""
    results: list[Any] = list(written)
    durable = [at for at, put in enumerate(puts) if put.change is not None and results[at] is None]
    if durable:
        for at, result in zip(durable, record([puts[at].change for at in durable]), strict=True):
            results[at] = result
            if refused is not None and isinstance(result, Failure) and result.check(TusError):
                refused(puts[at])
    return results


class Spool:
    """The upload directory.

    ``batcher`` makes the batcher that does small appends together, from the function that does them; the spool
    starts and stops it. ``pool`` does all else; it is the caller's to start and stop, after the spool. ``record`` makes
    the changes that follow puts, all together; it answers with a result or a Failure for each, and never raises.
    """

    def __init__(
        self,
        directory: str,
        *,
        disk: IDisk,
        batcher: PutBatcher,
        pool: IPool,
        budget: Budget,
        record: Record = list,
        assembly_step: int = STEP,
    ) -> None:
        self.directory = directory
        self._disk = disk
        self._pool = pool
        self._budget = budget
        self._record = record
        self._assembly_step = assembly_step
        self._syncs = FileSyncs(disk)
        self._puts = batcher(self._put_all)
        self._assembly = f"{directory}/{OWN}/finals"
        self._old_assembly = f"{directory}/{OWN}/assembly"
        self._orphans = f"{directory}/{OWN}/orphans"
        self._placing = f"{directory}/{OWN}/placing"

    # -- start and stop

    def start(self) -> None:
        """Make the directories that are missing and begin to work. Blocks; raises OSError."""
        own = (f"{self.directory}/{OWN}", self._assembly, self._orphans, self._placing)
        for path in (self.directory, *own):
            if self._disk.make_directory(path, PRIVATE if path in own else None):
                self._disk.sync_directory(os.path.dirname(path) or ".")
        for name in list(self._disk.names(self._placing)):  # work that a crash has cut off begins anew
            self._disk.unlink(f"{self._placing}/{name}")
        if self._disk.look(self._old_assembly) is not None:  # of older releases: synced in other steps
            for name in list(self._disk.names(self._old_assembly)):
                self._disk.unlink(f"{self._old_assembly}/{name}")
            self._disk.remove_directory(self._old_assembly)
        self._puts.start()

    def stop(self) -> Deferred[None]:
        """Fires when every `put` has been answered. Sinks and readers are their users' to close."""
        return self._puts.stop().addCallback(lambda _: self._syncs.stop())

    # -- appending

    def path(self, upload_id: str) -> str:
        """Where an upload's data lies. Raises ValueError for an invalid id."""
        if not SAFE_NAME.fullmatch(upload_id):
            raise ValueError("not an upload id")
        return f"{self.directory}/{upload_id}"

    def put(
        self,
        upload_id: str,
        offset: int,
        chunks: Sequence[bytes],
        change: Any = None,
        segment: object = None,
        is_new: bool = False,
    ) -> Deferred[Any]:
        """Write a small append in one go; it is durable when this fires. At 0 the file is made, even for no bytes.

        ``change``: is recorded once that is durable, in the same step; this fires with its result. Fails with OSError
        or SpoolDamaged when the file is missing or shorter than ``offset``; then nothing is recorded.
        """
        self.path(upload_id)
        return self._puts.submit(Put(upload_id, offset, chunks, change))

    def through(
        self, upload_id: str, offset: int, chunks: Sequence[bytes], segment: Any = None, is_new: bool = False
    ) -> Through:
        """See `ISpool.through`."""
        return partial(self.put, upload_id, offset, chunks, segment=segment, is_new=is_new)

    def sink(self, upload_id: str, offset: int, *, ceiling: int | None, digest: RunningDigest | None = None) -> Sink:
        """A queue into the upload's file from ``offset`` on. It takes no byte at or past the offset ``ceiling``.

        ``digest`` is fed with the written bytes, in order, in a thread.
        """
        file = DataFile(self._disk, self.directory, self.path(upload_id), upload_id, offset, digest)
        return Sink(upload_id, offset, file, ceiling=ceiling, pool=self._pool, budget=self._budget)

    def _put_all(self, puts: list[Put]) -> Sequence[Any]:
        """In the batcher's thread: make the files durable, then record the changes that follow them."""
        return recorded(puts, self._write_all(puts), self._record)

    def _write_all(self, puts: list[Put]) -> list[Failure | None]:
        """Write all, then sync each, then sync the directory once."""
        results: list[Failure | None] = [None] * len(puts)
        files: list[tuple[int, int]] = []
        for index, put in enumerate(puts):
            try:
                files.append((index, self._write_one(put)))
            except (OSError, SpoolDamaged):
                results[index] = Failure()
        created = []
        for (index, fd), error in zip(files, self._syncs.sync([fd for _, fd in files]), strict=True):
            try:
                self._disk.close(fd)
            except OSError as failed:
                error = error or failed
            if error is not None:
                results[index] = Failure(error)
            elif puts[index].offset == 0:
                created.append(index)
        if created:
            try:
                self._disk.sync_directory(self.directory)
            except OSError as error:
                for index in created:
                    results[index] = Failure(error)
        return results

    def _write_one(self, put: Put) -> int:
        fd = open_at(self._disk, f"{self.directory}/{put.upload_id}", put.upload_id, put.offset)
        try:
            if put.chunks:
                self._disk.writev(fd, put.chunks, put.offset)
        except Exception:
            with suppress(OSError):  # a courtesy to a full disk; the next append cuts it anyway
                self._disk.truncate(fd, put.offset)
            self._disk.close(fd)
            raise
        return fd

    # -- reading

    def size(self, upload_id: str) -> Deferred[int | None]:
        """The size of the upload's file, None when there is none."""
        return self._pool.run(self._disk.file_size, self.path(upload_id))

    def read(self, upload_id: str, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes, fewer only at the end of the file. Fails with OSError."""
        return self._pool.run(self._read, self.path(upload_id), offset, size)

    def read_all(self, starts: Sequence[tuple[str, int]]) -> Sequence[bytes | Failure]:
        """Of each of these uploads up to so many bytes from its start on, or the OSError. Blocks."""
        results: list[bytes | Failure] = []
        for upload_id, size in starts:
            try:
                results.append(self._read(self.path(upload_id), 0, size))
            except OSError:
                results.append(Failure())
        return results

    def check(self, upload: Upload) -> Deferred[None]:
        """Fails with SpoolDamaged unless the file has all bytes below the upload's offset; OSError."""
        return self._pool.run(self._check, upload.id, upload.offset)

    def reader(self, upload_id: str) -> Deferred[Reader]:
        """The upload's file, open for many reads; whoever gets it closes it. Fails with OSError."""
        return self._pool.run(self._open_reader, self.path(upload_id))

    def free(self) -> Deferred[int]:
        """Bytes that may still be written to the file system."""
        return self._pool.run(self._disk.free, self.directory)

    def _check(self, upload_id: str, offset: int) -> None:
        size = self._disk.file_size(self.path(upload_id))
        if size is None or size < offset:
            raise SpoolDamaged(upload_id, offset, size)

    def _read(self, path: str, offset: int, size: int) -> bytes:
        fd = self._disk.open(path, read_only=True)
        try:
            return self._disk.read(fd, size, offset)
        finally:
            self._disk.close(fd)

    def _open_reader(self, path: str) -> Reader:
        fd = self._disk.open(path, read_only=True)
        return Reader(self._disk, self._pool, fd, self._disk.size(fd))

    # -- removing and assembling

    def remove(self, upload_ids: Sequence[str]) -> Deferred[Mapping[str, OSError]]:
        """See `ISpool.remove`. Missing files are removed."""
        for upload_id in upload_ids:
            self.path(upload_id)
        return self._pool.run(self._remove, list(upload_ids))

    def discard(self, upload_id: str) -> Deferred[None]:
        """Remove the file that a creation has left which the catalog doesn't know. Fails with OSError."""
        return self.remove([upload_id]).addCallback(raise_first)

    def _remove(self, upload_ids: Sequence[str]) -> Mapping[str, OSError]:
        stuck: dict[str, OSError] = {}
        # A copy under way goes first: then it can't get its name behind our back.
        for directory in (self._assembly, self.directory) if upload_ids else ():
            stuck |= unlink_each(self._disk, [(upload_id, f"{directory}/{upload_id}") for upload_id in upload_ids])
            # even if none was there: an earlier removal may have been cut off before it was synced
            self._disk.sync_directory(directory)
        return stuck

    def assembly(self, final_id: str, sources: Sequence[tuple[str, int]]) -> Assembly:
        """Copying of the sources, (upload id, length) in order, into the file of ``final_id``.

        It goes on where a crash or a failure stopped an earlier one with the same arguments. One for a final at a time.
        """
        located = [(self.path(upload_id), upload_id, length) for upload_id, length in sources]
        final_path = self.path(final_id)
        working_path = f"{self._assembly}/{final_id}"
        return Assembly(self._disk, self._pool, working_path, final_path, located, self._assembly_step)

    # -- placing

    def whole(self, upload_ids: Sequence[str]) -> Deferred[Collection[str]]:
        """See `ISpool.whole`: all of them."""
        return succeed(upload_ids)

    def places(self, root: str, rules: Rules) -> PlaceDirectory:
        """The directory ``root``, on the same file system, for finished files. Its methods block."""
        return PlaceDirectory(self._disk, root, self.path, self._placing, rules)

    def opened(self, fd: int, size: int) -> Reader:
        """A reader of a file that is open."""
        return Reader(self._disk, self._pool, fd, size)

    # -- start-up only: these block

    def listing(self) -> set[str]:
        """The names of all data files. Blocks; raises OSError."""
        return {name for name in self._disk.names(self.directory) if DRAWN_ID.fullmatch(name)}

    def adopt(self, upload_id: str, committed: int, limit: int) -> int:
        """How far the upload's file may be believed after a crash in the same boot; durable up to there. Blocks.

        Between ``committed`` and ``limit``; ``committed`` too when the file is shorter or can't be read or synced.
        """
        return datafile.adopt(self._disk, self.directory, self.path(upload_id), upload_id, committed, limit)

    def set_aside(self, upload_id: str) -> None:
        """Move the upload's file to the orphans. Blocks; raises OSError."""
        datafile.set_aside(self._disk, self.directory, self._orphans, self.path(upload_id))

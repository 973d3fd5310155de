"""``file:///mnt/nas``: another directory or mount.

Invariant: bytes are confirmed in the journal only once they are synced, and an object gets its name only when all its
bytes are; every blocking call runs in the pool.

A file carries no upload id, so an object is ours if the journal says that we were placing it, its unfinished file is
gone, and its size is right. ``overwrite=refuse`` is checked just before the rename: a file that somebody else makes in
that instant is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar
from urllib.parse import quote

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool, Stopped
from resumable.model import keys, values
from resumable.remotes.file.filesystem import PARTS, FileModes, RemoteDirectory, sorted_out
from resumable.remotes.interfaces import (
    Conflict,
    IDeletable,
    IJournal,
    IKeyed,
    IProbe,
    IRegion,
    ISweeper,
    NotThere,
    OutOfStep,
    Stored,
    Transient,
    Unfinished,
)
from resumable.remotes.journals import ReplicaRecord, ReplicaRecords, Stage
from resumable.remotes.reading import IObjectStream, IReadable, Pieces, check_span, finalised
from resumable.remotes.regions import check_chunk, copy
from resumable.remotes.urls import BackendServices, RemoteSpec, Scheme

P = ParamSpec("P")
R = TypeVar("R")


@implementer(IKeyed, IDeletable, IProbe, IReadable, ISweeper)
class FileRemote:
    """Takes chunks in order. ``now`` is the time in seconds since the epoch."""

    _log = Logger()

    def __init__(
        self,
        directory: RemoteDirectory,
        journal: IJournal,
        pool: IPool,
        now: Callable[[], float],
        *,
        template: keys.KeyTemplate | None = None,
        replace: bool = False,
    ) -> None:
        self._directory = directory
        self._records = ReplicaRecords(ReplicaRecord, journal)
        self._pool = pool
        self._now = now
        self._template = template or keys.parse()
        self._replace = replace

    @deferred
    async def initiate_upload(
        self, upload_id: str, size: int | None, metadata: Mapping[str, bytes], key: str | None = None
    ) -> str:
        """See IKeyed."""
        record = await self._records.load(upload_id)
        if record is None:
            record = ReplicaRecord(key or self._template.render(upload_id, self._now(), metadata), Stage.OVER)
        if record.state is Stage.OVER:
            fresh, record = True, ReplicaRecord(record.key, handle=upload_id)
        else:
            fresh = await self._is_lost(upload_id, record)
            record = evolve(record, state=Stage.OPEN, confirmed=0) if fresh else record
        record = record.sized(size)
        await self._records.save(upload_id, record)
        if fresh:
            await self._run(self._directory.create, upload_id)
        return record.key

    @deferred
    async def write_chunk(self, upload_id: str, offset: int, data: IRegion, size: int) -> None:
        """See IRemoteStorage."""
        record = await self._records.started(upload_id)
        check_chunk(offset, data, size, record.size)
        if offset > record.confirmed:
            raise OutOfStep(f"{record.confirmed} bytes are there, the chunk begins at {offset}", record.confirmed)
        if offset + size <= record.confirmed:
            return
        if await self._is_lost(upload_id, record):
            raise NotThere("the unfinished file is gone or too short")
        file = self._directory.part_file(upload_id)
        try:
            done = record.confirmed - offset
            await copy(data, lambda start, piece: self._run(file.write, offset + start, piece), done)
            await self._run(file.sync)
        except BaseException:
            # not waited for: a caller that cancels because the mount hangs must not hang as well
            self._pool.run(file.close).addErrback(self._close_failed)
            raise
        await self._run(file.close)
        if not record.confirmed:
            await self._run(self._directory.sync_created)
        await self._records.save(upload_id, evolve(record, confirmed=offset + size))

    @deferred
    async def finalize_upload(self, upload_id: str) -> Stored:
        """See IRemoteStorage."""
        record = await self._records.started(upload_id)
        if record.stored:
            return record.stored
        size = record.known_size()
        if record.confirmed != size:
            raise OutOfStep(f"{record.confirmed} bytes of {size} are there", record.confirmed)
        part, placed = await self._run(self._directory.sizes, upload_id, record.key)
        if part is None and record.state is Stage.PLACING and placed == size:
            await self._run(self._directory.sync_placed, record.key)
        elif part is None or part < size:
            raise NotThere("the unfinished file is gone or too short")
        else:
            await self._place(upload_id, record, size, part)
        return await self._save_stored(upload_id, record)

    async def _place(self, upload_id: str, record: ReplicaRecord, size: int, there: int) -> None:
        if there > size:
            await self._run(self._directory.cut, upload_id, size)
        if not size:  # no chunk has made the name durable
            await self._run(self._directory.sync_created)
        placing = evolve(record, state=Stage.PLACING)
        await self._records.save(upload_id, placing)
        try:
            await self._run(self._directory.place, upload_id, record.key, size, self._replace)
        except Conflict:
            # the file that is there isn't ours, whatever becomes of the unfinished one
            await self._records.save(upload_id, evolve(record, state=Stage.OPEN))
            raise

    async def _save_stored(self, upload_id: str, record: ReplicaRecord) -> Stored:
        stored = Stored(f"file://{quote(self._directory.root)}/{record.key}", record.key, record.known_size())
        await self._records.save(upload_id, evolve(record, state=Stage.STORED, stored=stored))
        return stored

    @deferred
    async def abort_upload(self, upload_id: str) -> None:
        """See IRemoteStorage."""
        record = await self._records.load(upload_id)
        if record is None or record.state is Stage.STORED:
            return
        part, placed = await self._run(self._directory.sizes, upload_id, record.key)
        if record.state is Stage.PLACING and part is None and placed == record.size:
            await self._run(self._directory.sync_placed, record.key)
            await self._save_stored(upload_id, record)
            return
        await self._run(self._directory.remove_part, upload_id)
        await self._records.save(upload_id, evolve(record, state=Stage.OVER))

    @deferred
    async def get_upload_progress(self, upload_id: str) -> int:
        """See IRemoteStorage."""
        record = await self._records.started(upload_id)
        if await self._is_lost(upload_id, record):
            raise NotThere("the unfinished file is gone or too short")
        return record.confirmed

    @deferred
    async def delete_object(self, upload_id: str) -> bool:
        """See IDeletable. A foreign file of the same size under the same name can't be told from ours."""
        record = await self._records.load(upload_id)
        if record is None or record.state not in (Stage.PLACING, Stage.STORED):
            return False
        part, placed = await self._run(self._directory.sizes, upload_id, record.key)
        if part is not None and record.state is Stage.PLACING:
            return False
        ours = placed is not None and placed == record.size
        if ours or placed is None:  # where it is gone, that is to be durable
            await self._run(self._directory.remove_object, record.key)
        await self._records.save(upload_id, ReplicaRecord(record.key, Stage.OVER))
        return ours

    @deferred
    async def read_object(self, upload_id: str, start: int, size: int) -> IObjectStream:
        """See IReadable. A foreign file of the same size under the same name can't be told from ours."""
        record = await self._records.started(upload_id)
        total = finalised(record.stored)
        check_span(start, size, total)

        async def read(offset: int, size: int) -> bytes:
            return await self._run(self._directory.read_object, record.key, total, offset, size)

        await read(start, 0)
        return Pieces(read, start, size)

    def probe(self) -> Deferred[None]:
        """See IProbe."""
        return Deferred.fromCoroutine(self._run(self._directory.probe))

    @deferred
    async def list_unfinished(self, limit: int, after: Unfinished | None) -> Sequence[Unfinished]:
        """See ISweeper. A file doesn't say which key it was for: ``key`` is its own name."""
        found = await self._run(self._directory.unfinished)
        return [
            Unfinished(f"{PARTS}/{name}", name, upload_id=name) for name in found if not after or name > after.handle
        ][:limit]

    @deferred
    async def discard(self, found: Unfinished, upload_id: str, dry_run: bool) -> bool:
        """See ISweeper."""
        record = await self._records.load(upload_id)
        if found.handle == upload_id and record and record.state in (Stage.OPEN, Stage.PLACING):
            return False
        if not dry_run:
            await self._run(self._directory.remove_part, found.handle)
        return True

    async def _is_lost(self, upload_id: str, record: ReplicaRecord) -> bool:
        """Whether the file is missing that the journal names."""
        if record.state is Stage.STORED:
            return False
        part, placed = await self._run(self._directory.sizes, upload_id, record.key)
        if part is None:
            return not (record.state is Stage.PLACING and placed == record.size)
        return part < record.confirmed

    async def _run(self, f: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await self._pool.run(f, *args, **kwargs)
        except OSError as error:
            raise sorted_out(error, self._directory.root) from error
        except Stopped as error:
            raise Transient("the daemon is stopping") from error

    def _close_failed(self, failure: Failure) -> None:
        self._log.failure("closing a file of {root} failed", failure, root=self._directory.root)


def _make(spec: RemoteSpec, services: BackendServices) -> FileRemote:
    modes = FileModes(*(_mode(spec, option) for option in _MODES))
    directory = RemoteDirectory(services.disk, spec.path, spec.options.get("marker", ""), modes)
    return FileRemote(
        directory, services.journal, services.pool, services.now, template=spec.template, replace=spec.replace
    )


def _check(spec: RemoteSpec) -> None:
    marker = spec.options.get("marker")
    if marker is not None and (not marker or "/" in marker or marker in (".", "..")):
        raise ValueError("marker is the name of a file in the directory")
    for option in _MODES:
        _mode(spec, option)


def _mode(spec: RemoteSpec, option: str) -> int | None:
    """Permissions; None where the option isn't given. Raises ValueError."""
    if option not in spec.options:
        return None
    try:
        return _MODES[option](spec.options[option])
    except ValueError as error:
        raise ValueError(f"{option} is {error}") from None


_MODES = {
    "file-mode": values.permissions(0o600, 0o666, "permissions like 640, with all rights for the server's user"),
    "dir-mode": values.permissions(0o700, 0o7777, "permissions like 2750, with all rights for the server's user"),
}
OPTIONS = {
    "marker": "name of a file that exists only when the right file system is mounted",
    "file-mode": "permissions of the files, as `640` (default `--file-mode`)",
    "dir-mode": "permissions of new directories, as `2750` (default `--dir-mode`)",
}
SCHEME = Scheme("file", _make, "directory", OPTIONS, _check)

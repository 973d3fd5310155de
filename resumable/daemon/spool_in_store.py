"""Acknowledged bytes in an object store that several processes share; each has only scratch of its own.

Invariant: nothing of the upload directory is made, locked or looked at. A store that can't be reached keeps no process
from starting: it is looked at now and then, and readiness tells.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from resumable.aio.deferreds import TaskGroup, deferred
from resumable.aio.threads import IPool, Pool
from resumable.config.options import Settings
from resumable.daemon.shared_spool import ROUND, WHOLE_ROUND, Round, SharedParts
from resumable.model.errors import StartupError
from resumable.model.telemetry import SpoolState
from resumable.model.values import size_option
from resumable.protocol import digests
from resumable.remotes import urls
from resumable.remotes.errors import Conflict, RemoteError
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.object_store import IObjectStore, Made, ObjectProperties
from resumable.remotes.probe import advice, probe
from resumable.remotes.regions import BodyMemory, BytesRegion
from resumable.remotes.urls import BackendServices, RemoteSpec
from resumable.replication.object_copies import ObjectFiles
from resumable.spool import Disk
from resumable.spool.objects.append_parts import StoreContext
from resumable.spool.objects.completion import Completion
from resumable.spool.objects.object_assembly import AssemblyTools
from resumable.spool.objects.object_names import ObjectNames
from resumable.spool.objects.object_reader import WholeObjects
from resumable.spool.objects.object_spool import ObjectSpool
from resumable.spool.objects.object_sweeper import ObjectSweeper
from resumable.spool.objects.scratch import Scratch, ScratchDisk
from resumable.uploads.appends import NEVER
from resumable.uploads.completing import Completer
from resumable.uploads.context import UploadContext
from resumable.uploads.holds import JOINER, SWEEPER

log = Logger()

SCRATCH: Final = "scratch"
"""In the run directory. Its files have no names, so that nothing stays of a process that is gone."""
LEAST_PARTS: Final = 4
"""Scratch holds so many parts at least: one of them is for completing uploads, the others are for appends."""
DAY: Final = 86400.0
MARKER: Final = ".marker"
TEXT: Final = b"The uploads here belong to the catalog of a resumable server. Leave them to it.\n"
LAST: Final = 1.0
"""Seconds until a server ends whose store is another's: time for its log."""
LOOK: Final = 5.0
"""Seconds between two looks at whether the store can be reached, and those that one may take."""
AGAIN: Final = 30.0
"""Seconds between two tries of a spool that didn't work at the start."""
BODY_MEMORY: Final = 8 << 20
"""Bytes of requests to the store in memory."""


class SpoolInStore:
    """See `ISharedSpool`."""

    #: A commit costs a request.
    worthwhile: Final = NEVER

    def __init__(self, parts: SharedParts, spec: RemoteSpec) -> None:
        self._parts = parts
        self._spec = spec
        settings, reactor, catalog = parts.settings, parts.reactor, parts.catalog
        check_known(spec.name, parts.opened.directory, parts.opened.is_new, parts.opened.is_free)
        rng = Random(secrets.randbits(64))
        self._store = store = made_store(settings, spec, reactor, parts.pool, rng)
        disk = ScratchDisk(settings.modes)
        self._names = names = ObjectNames(store.prefix, parts.workers.id, lambda: secrets.token_hex(8))
        copies = settings.scratch_size // LEAST_PARTS
        directory = os.path.join(settings.run_dir or "", SCRATCH)
        self._scratch = scratch = Scratch(directory, settings.scratch_size - copies, disk)
        context = StoreContext(
            names,
            store,
            catalog.stored,
            scratch,
            clock=reactor,
            rng=rng,
            slots=DeferredSemaphore(settings.parts_per_remote),
            is_down=lambda: self._watch.wrong is not None,
        )
        tools = AssemblyTools(WholeObjects(context, parts.pool, reactor), self._metadata_of, self._when_whole)
        self.spool = ObjectSpool(context, tools, pool=parts.pool, budget=parts.budget, url=spec.name)
        self.files = ObjectFiles(store, names, catalog.stored, self._when_whole, reactor, context.lost)
        self._completion = Completion(
            store,
            catalog.stored,
            names,
            disk=disk,
            pool=parts.pool,
            open_scratch=scratch.open,
            room=BodyMemory(copies),
        )
        self._watch = StoreWatch(store, parts.opened.installation, catalog, self._end, reactor)
        self._tasks = TaskGroup(lambda failure: log.failure("the spool could not be tried", failure))
        self._completer: Completer | None = None
        self._sweeper: ObjectSweeper | None = None

    def start(self) -> None:
        """See `ISharedSpool.start`."""
        check_known(self._spec.name, self._parts.catalog.agree(self._spec.name))
        self.spool.start()

    def begin(self, context: UploadContext, late: Callable[[], None]) -> Sequence[Round]:
        """See `ISharedSpool.begin`."""
        catalog = self._parts.catalog
        self._completer = completer = Completer(context, catalog.stored, self._completion, late)
        self._sweeper = sweeper = ObjectSweeper(
            self._store, catalog.stored, self._names, catalog.get_many, context.wall
        )
        spec, reactor = self._spec, self._parts.reactor
        reactor.callWhenRunning(lambda: self._tasks.start(ready(spec.name, self._store, reactor)))
        return [
            Round(self._watch.look, LOOK),
            Round(completer.sweep, ROUND, JOINER),
            Round(self._watch.if_ours(sweeper.sweep_discarded), ROUND, SWEEPER),
            Round(self._watch.if_ours(sweeper.sweep_unknown), WHOLE_ROUND, SWEEPER),
            Round(self._watch.if_ours(sweeper.sweep_unfinished), WHOLE_ROUND, SWEEPER),
            Round(self._watch.if_ours(sweeper.sweep_objects), WHOLE_ROUND, SWEEPER),
        ]

    def _end(self) -> None:
        """The store has another catalog's uploads: nothing may be written or removed there."""
        log.critical(
            "the spool {spool} has the uploads of another catalog, and this server ends: use another prefix in --spool",
            spool=self._spec.name,
        )
        self._parts.reactor.callLater(LAST, os._exit, 1)

    def read_start(self, start: tuple[str, int]) -> Deferred[bytes]:
        """See `ISharedSpool.read_start`."""
        return self.spool.read_start(start)

    def _when_whole(self, upload_id: str, seconds: float) -> Deferred[bool]:
        return succeed(False) if self._completer is None else self._completer.when_whole(upload_id, seconds)

    @deferred
    async def _metadata_of(self, upload_id: str) -> Mapping[str, bytes]:
        upload = await self._parts.catalog.get(upload_id)
        return {} if upload is None else digests.object_metadata(upload.metadata, upload.digest)

    def ending(self) -> None:
        """See `ISharedSpool.ending`."""
        self._tasks.cancel()
        if self._sweeper is not None:
            self._sweeper.stop()

    def closing(self) -> Sequence[Callable[[], object]]:
        """See `ISharedSpool.closing`."""
        return [self._end_completer, self.spool.stop]

    def last(self) -> Sequence[Callable[[], object]]:
        """See `ISharedSpool.last`."""
        return [self._store.close]

    def stop_threads(self) -> None:
        """See `ISharedSpool.stop_threads`."""
        self.spool.stop()

    async def lost(self) -> str | None:
        """See `ISharedSpool.lost`."""
        return self._watch.fault

    def state(self) -> SpoolState:
        """See `ISharedSpool.state`."""
        lost = self.spool.context.lost.count + (0 if self._completer is None else self._completer.lost)
        return SpoolState(self._watch.fault is None, self._scratch.used, self._scratch.size, lost)

    async def _end_completer(self) -> None:
        if self._completer is not None:
            await self._completer.stop()


class IMarked(Protocol):
    """The catalog, as far as the marker goes."""

    def is_marked(self) -> Deferred[bool]:
        """See `PostgresCatalog.is_marked`."""

    def marked(self) -> Deferred[None]:
        """See `PostgresCatalog.marked`."""


class StoreWatch:
    """Whether the store can be reached and is this catalog's: by one cheap request now and then, for its marker, an
    object with the id of the installation.

    ``catalog`` knows whether the marker was ever seen: only before that it is made. ``stranger`` is called when the
    store turns out to be another catalog's.
    """

    def __init__(
        self,
        store: IObjectStore,
        installation: str,
        catalog: IMarked,
        stranger: Callable[[], None],
        clock: Any,
    ) -> None:
        self._store = store
        self._installation = installation
        self._catalog = catalog
        self._stranger = stranger
        self._clock = clock
        self._failed = False
        #: Whether the marker was seen.
        self.is_ours = False
        #: Why it can't be used, since the last two looks; None: it can, as far as is known.
        self.wrong: str | None = None

    @property
    def fault(self) -> str | None:
        """Why it can't be relied upon; None: it can."""
        return self.wrong or (None if self.is_ours else "the object store has not answered yet")

    def if_ours(self, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """The same, done only once the marker was seen."""

        async def do() -> None:
            if self.is_ours:
                await work()

        return do

    async def look(self) -> None:
        """Never fails for the store. A single failure is no outage. Raises CatalogUnavailable."""
        try:
            found = await Deferred.fromCoroutine(self._marker()).addTimeout(LOOK, self._clock)
        except RemoteError as error:
            self._tell(f"{error.reason}; {advice(error)}")
        except (TimeoutError, CancelledError):
            self._tell(f"no answer in {LOOK:.0f} s")
        else:
            if found is None:
                self._tell("the marker of this catalog's uploads isn't there: is this the bucket and the store?")
            elif found.token != self._installation:
                self.is_ours, self.wrong = False, "the spool has the uploads of another catalog"
                self._stranger()
            else:
                if self.wrong is not None:
                    log.info("the object store answers again")
                self._failed, self.wrong, self.is_ours = False, None, True

    async def _marker(self) -> Made | None:
        """The marker, which is made where it was never seen."""
        key = f"{self._store.prefix}{MARKER}"
        found = await self._store.find(key)
        if found is None and not await self._catalog.is_marked():
            properties = ObjectProperties(self._installation, self._installation, {})
            try:
                found = await self._store.put(key, BytesRegion(TEXT), properties, only_new=True)
            except Conflict:  # another worker's, or another catalog's
                found = await self._store.find(key)
        if found is not None and found.token == self._installation and not self.is_ours:
            await self._catalog.marked()
        return found

    def _tell(self, reason: str) -> None:
        if self._failed:
            if self.wrong is None:
                log.error("the object store can't be used: {reason}", reason=reason)
            self.wrong = f"the object store can't be used: {reason}"
        self._failed = True


async def ready(name: str, store: IObjectStore, clock: Any) -> None:
    """Try all that the spool needs, until it works. The log tells that once, and the first fault."""
    told = False
    while (wrong := (await probe([(name, store)], clock))[name]) is not None:
        if not told:
            log.error("the spool {spool} does not work, and is tried again: {reason}", spool=name, reason=wrong)
        told = True
        await deferLater(clock, AGAIN)
    log.info("spool ready: {spool}", spool=name)


def check_known(mine: str, known: str | None, is_new: bool = False, is_free: bool = False) -> None:
    """See that the catalog's uploads are in the store ``mine``. ``known``, ``is_new``, ``is_free``: see `Opened`.
    Raises StartupError."""
    if known == mine or (known is None and is_new) or (known is not None and "://" in known and is_free):
        return
    if known is not None and "://" in known:
        raise StartupError(f"The uploads of this catalog are in {known}, not in {mine}: correct --spool.")
    raise StartupError(
        "The uploads of this catalog are in an upload directory: leave out --spool, or name another database with"
        " --catalog."
    )


def made_store(settings: Settings, spec: RemoteSpec, reactor: Any, pool: IPool, rng: Random) -> IObjectStore:
    """The store of `--spool`. Raises StartupError, also for options that don't go with it."""
    services = BackendServices(
        reactor=reactor,
        pool=pool,
        journal=MemoryJournal(),
        disk=Disk(settings.modes),
        now=time.time,
        rng=rng,
        environ=os.environ,
        part_size=settings.part_size,
        timeout=settings.remote_timeout,
        parts=settings.parts_per_remote,
        memory=BodyMemory(BODY_MEMORY),
    )
    try:
        store = urls.make_store(spec, services)
    except ValueError as error:
        raise StartupError(str(error)) from error
    if settings.scratch_size < LEAST_PARTS * store.part_size:
        raise StartupError(
            f"--scratch-size {size_option(settings.scratch_size)} is too small: it must hold {LEAST_PARTS} parts of"
            f" {size_option(store.part_size)}; give more, or a smaller --part-size."
        )
    lifetime = store.lifetime
    if lifetime is not None and (settings.expire_after is None or settings.expire_after > lifetime - DAY):
        days = (lifetime - DAY) / DAY
        raise StartupError(
            f"--spool {spec.name} needs --expire-after {days:.0f}d or less: the store drops the bytes of unfinished"
            f" uploads after {lifetime / DAY:.0f} days."
        )
    return store


async def tried(reactor: Any, settings: Settings, spec: RemoteSpec) -> Mapping[str, str | None]:
    """Try the store of the spool: the fault by its name, None without one. Raises StartupError."""
    pool = Pool(reactor, 1, "spool")
    pool.start()
    try:
        store = made_store(settings, spec, reactor, pool, Random(secrets.randbits(64)))
        found = await probe([(spec.name, store)], reactor)
        await store.close()
    finally:
        await pool.stop()
    return found

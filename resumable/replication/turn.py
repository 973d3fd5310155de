"""A turn: a stretch of work on one replica.

One reason to change: in which order a remote is asked for what.

Invariant: a remote is given committed bytes only, is told the length before the last of them, and is asked to
finalise only what is finished and confirmed to the last byte. It is asked for its progress only where that isn't
known: requests to the store are one for a single part, else one for each part and what initiating and finalising cost.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import asdict, evolve, frozen
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError, maybeDeferred

from resumable.model.replica import Progress
from resumable.model.telemetry import REQUEST
from resumable.model.upload import ReplicaState, Upload
from resumable.protocol import metadata
from resumable.remotes.interfaces import (
    IDeletable,
    IKeyed,
    IPartRemote,
    IPlanned,
    NotThere,
    OutOfStep,
    Part,
    Permanent,
    Plan,
    Transient,
)
from resumable.remotes.plan import Step
from resumable.remotes.regions import RegionWindow
from resumable.replication.flight import Flight
from resumable.replication.settings import Figures, Means, Remote, Source
from resumable.replication.standing import Standing

T = TypeVar("T")

TURN_PARTS = 8
"""After so many parts a turn makes room for another; so many are written between two records of the progress."""
MISSTEPS = 3
"""So often in one turn the remote may have something else than it was thought to have."""


class Outcome(enum.Enum):
    """RESTS: all is done that could be, or another's turn has come. STORED: with the last of the required replicas, or
    not. REMOVED: nothing is left of it. OVERTAKEN: the replica has become something else meanwhile."""

    RESTS = "rests"
    STORED = "stored"
    COMPLETE = "complete"
    REMOVED = "removed"
    OVERTAKEN = "overtaken"


class Overtaken(Exception):
    """The replica is no longer in the state that it was in."""


@frozen
class Kit:
    """What all turns of one remote work with. ``slots``: the parts that may be on their way to it.

    ``worked`` is told that the remote did something, ``moved`` by how many bytes more are confirmed.
    """

    remote: Remote
    means: Means
    slots: DeferredSemaphore
    worked: Callable[[], None]
    moved: Callable[[int], None]
    figures: Figures


class Turn:
    """One at a time for a replica. ``crowded`` tells whether others wait for their turn."""

    def __init__(self, kit: Kit, standing: Standing, crowded: Callable[[], bool]) -> None:
        self._kit = kit
        self._backend = kit.remote.backend
        self._replicas = kit.means.replicas
        self._limits = kit.means.limits
        self._run = kit.means.run
        self._standing = standing
        self._crowded = crowded
        self._id = standing.replica.upload_id
        self._many = IPartRemote.providedBy(self._backend)
        self._source: Source | None = None
        self._flight: Flight | None = None
        self._cursor = 0
        self._taken = self._written = 0

    @property
    def progress(self) -> Progress:
        standing = self._standing
        ahead = sum(end - start for start, end in standing.ahead.items())
        flying = self._flight.size if self._flight else 0
        return Progress(standing.confirmed + ahead + flying, standing.confirmed)

    def look(self) -> None:
        """The standing's upload has become more."""
        if self._flight:
            self._flight.fill()

    async def run(self) -> Outcome:
        """Raises what the remote, the spool or the catalog failed with."""
        try:
            if self._standing.replica.state is ReplicaState.ENDING:
                return await self._remove()
            return await self._forward()
        except Overtaken:
            return Outcome.OVERTAKEN
        finally:
            if self._source is not None:
                await self._source.close()

    async def _remove(self) -> Outcome:
        kit, replica = self._kit, self._standing.replica
        await self._ask(lambda: self._backend.abort_upload(self._id))
        if replica.delete and IDeletable.providedBy(self._backend):
            await self._ask(lambda: IDeletable(self._backend).delete_object(self._id))
        kit.worked()
        await self._replicas.ended(replica)
        kit.figures.removed += 1
        return Outcome.REMOVED

    async def _forward(self) -> Outcome:
        kit, standing = self._kit, self._standing
        if self._upload.dropped_at is not None:
            raise Permanent("its local data was given up")
        for _ in range(MISSTEPS):
            try:
                await self._write()
                return await self._finish()
            except NotThere:
                kit.moved(standing.begin_anew(self._run))
            except OutOfStep:
                standing.doubt()
        raise Transient("what the remote has is again and again something else than it said")

    @property
    def _upload(self) -> Upload:
        assert self._standing.upload is not None
        return self._standing.upload

    # -- before the first byte

    async def _prepare(self) -> None:
        """Tell the remote what it has to know, and find out what it has."""
        kit, standing = self._kit, self._standing
        if standing.untold:
            upload = self._upload
            pairs = metadata.parse(upload.metadata or "")
            key = await self._ask(lambda: self._initiate(upload, pairs))
            standing.plan = await self._plan()
            standing.whole_parts = IPlanned.providedBy(self._backend)
            standing.told, standing.told_length = True, upload.length
            standing.replica = evolve(standing.replica, key=key)
        if standing.replica.run != self._run:
            kit.moved(await self._learn())

    def _initiate(self, upload: Upload, pairs: Mapping[str, bytes]) -> Deferred[str]:
        """With the key that it was given, or has already."""
        key = self._standing.replica.key
        if key is not None and IKeyed.providedBy(self._backend):
            return IKeyed(self._backend).initiate_upload(self._id, upload.length, pairs, key)
        return self._backend.initiate_upload(self._id, upload.length, pairs)

    async def _plan(self) -> Plan:
        if IPlanned.providedBy(self._backend):
            return await self._ask(lambda: IPlanned(self._backend).part_plan(self._id))
        return Plan((Step(self._limits.part_size, 1 << 40),))

    async def _learn(self) -> int:
        """Ask the remote what it has. Answers by how much that is more than was known."""
        standing = self._standing
        if IPartRemote.providedBy(self._backend):
            return standing.learn(
                await self._ask(lambda: IPartRemote(self._backend).confirmed_parts(self._id)), self._run
            )
        progress = await self._ask(lambda: self._backend.get_upload_progress(self._id))
        return standing.believe(min(progress, self._upload.offset), self._run)

    # -- parts

    async def _write(self) -> None:
        """Write what may be written, until others wait for their turn."""
        standing = self._standing
        while True:
            await self._prepare()
            self._cursor = standing.confirmed
            if self._tired or standing.part_from(self._cursor) is None:
                return
            if self._source is None:
                self._source = await self._kit.means.open(self._id)
            self._flight = Flight(self._limits.per_upload if self._many else 1, self._take, self._one)
            try:
                await self._flight.run()
            finally:
                self._flight = None

    @property
    def _tired(self) -> bool:
        return self._taken >= TURN_PARTS and self._crowded()

    def _take(self) -> Part | None:
        """The next part to go; None while there is none, or the remote has to be told something first."""
        if self._tired or self._standing.untold:
            return None
        part = self._standing.part_from(max(self._cursor, self._standing.confirmed))
        if part is not None:
            self._cursor = part.end
            self._taken += 1
        return part

    async def _one(self, part: Part) -> None:
        REQUEST.set(self._standing.request)  # a part begins in the turn of whatever made room for it
        kit = self._kit
        await kit.slots.acquire()
        try:
            assert self._flight is not None and self._source is not None
            if self._flight.failed:
                return
            data = RegionWindow(self._source, part.offset, part.size)
            await self._ask(lambda: self._backend.write_chunk(self._id, part.offset, data, part.size), part.size)
        finally:
            kit.slots.release()
        kit.figures.parts += 1
        kit.figures.bytes += part.size
        kit.moved(self._standing.confirm(part))
        kit.worked()
        self._written += 1
        if self._written % TURN_PARTS == 0:
            await self.save()

    # -- after the last

    async def _finish(self) -> Outcome:
        kit, standing, upload = self._kit, self._standing, self._upload
        if not upload.finished or standing.confirmed != upload.length:
            await self.save()
            return Outcome.RESTS
        stored = await self._ask(lambda: self._backend.finalize_upload(self._id))
        kit.worked()
        landed, complete = await self._replicas.store(standing.replica, asdict(stored), kit.means.wall())
        if not landed:
            return Outcome.OVERTAKEN
        kit.figures.stored += 1
        return Outcome.COMPLETE if complete else Outcome.STORED

    async def save(self) -> None:
        """Record what has changed. Raises Overtaken."""
        standing = self._standing
        replica = standing.settled()
        if replica != standing.saved:
            if not await self._replicas.advance(replica):
                raise Overtaken
            standing.saved = replica

    async def _ask(self, call: Callable[[], Deferred[T]], size: int = 0) -> T:
        """What the remote answers, within the time that one try may take."""
        seconds = self._limits.try_timeout + size / self._limits.slowest
        answer: Deferred[T] = maybeDeferred(call)
        try:
            return await answer.addTimeout(seconds, self._kit.means.clock)
        except TimeoutError:
            raise Transient(f"no answer within {seconds:.0f} s") from None

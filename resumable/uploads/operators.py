"""The use cases of operators: look through all uploads, count them, end some, retry replicas, and drain the server.

Invariants: looking disturbs no hold; one request looks at `MOST_ROWS` rows, or changes little more than `MOST_CHANGED`
uploads, and says where it stopped. Hooks can't refuse what an operator does; they get its events afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from resumable.catalog.upload_listing import ROWS
from resumable.model.listing import Counted, Filter, IListing, UploadState
from resumable.model.upload import ReplicaState, Upload
from resumable.protocol.errors import BadRequest, Gone, NotFound, WrongState
from resumable.uploads.context import UploadContext, as_answer
from resumable.uploads.status import UploadStatus, status_from, statuses_of
from resumable.uploads.uploads import Uploads

MOST_ROWS: Final = 200 * ROWS
MOST_CHANGED: Final = 10_000
AT_ONCE: Final = 50
"""Uploads that are read in one job of the catalog, and made into statuses in one go."""

T = TypeVar("T")


@frozen
class StatusPage(Generic[T]):
    """The uploads as ``shown``. ``place``: where to go on, perhaps before anything was found; None: this was the
    end."""

    shown: Sequence[T]
    place: int | None


@frozen
class Restarted:
    """How many replicas are tried again; ``more``: some are left, ask again."""

    count: int
    more: bool


@frozen
class Left:
    """What a drained server still has: uploads that aren't finished, requests that append, and by the name of their
    remote replicas that aren't there yet or have to be removed."""

    unfinished: int
    appending: int
    replicas: Mapping[str, int]


class Operators:
    """``remotes``: the names of all remotes. Every method raises TusError only."""

    def __init__(
        self, context: UploadContext, uploads: Uploads, listing: IListing, remotes: Collection[str] = ()
    ) -> None:
        self._context = context
        self._uploads = uploads
        self._remotes = remotes
        self._listing = listing

    async def page(
        self, wanted: Filter, place: int | None, limit: int, newest: bool, show: Callable[[UploadStatus], T]
    ) -> StatusPage[T]:
        """Up to ``limit`` uploads that match, behind that place, as ``show`` makes them: a few at a time.

        Raises BadRequest for a remote that neither is there nor has been, as far as is known.
        """
        found: list[T] = []
        first = place is None
        for _ in range(MOST_ROWS // ROWS):
            some = min(AT_ONCE, limit - len(found))
            look = await self._asked(self._listing.look(wanted, place, some, newest))
            found += [show(status_from(self._context, upload, replicas)) for upload, replicas in look.uploads]
            place = look.place
            if place is None or len(found) == limit:
                break
        if first and place is None and not found:
            self._check_remote(wanted.remote)
        return StatusPage(found, place)

    async def show(self, upload_id: str) -> UploadStatus:
        """One upload, even if it is gone."""
        upload = await self._asked(self._context.catalog.get(upload_id))
        if upload is None:
            raise NotFound("There is no such upload.")
        replicas = self._context.replicas
        return status_from(self._context, upload, () if replicas is None else await self._asked(replicas.of(upload_id)))

    async def statuses(self, upload_ids: Sequence[str]) -> Mapping[str, UploadStatus]:
        """Those of the ids that are known."""
        return await statuses_of(self._context, upload_ids)

    async def stop(self, upload_id: str) -> None:
        """End an upload that isn't finished; the request that appends to it is answered that it is gone."""
        self._check_unfinished(await self._context.present(upload_id))
        await self._context.holds.evict(upload_id, Gone("The upload was stopped."))
        self._check_unfinished(await self._context.present(upload_id))  # the last byte may just have been committed
        await self._uploads.stop_upload(upload_id)

    async def remove(self, upload_id: str) -> None:
        """End any upload, as its client could, and its objects with it where that is what DELETE does."""
        await self._uploads.stop_upload(upload_id)

    async def retry(self, upload_id: str, remote: str | None) -> int:
        """Try its parked replicas again, in one remote or in all; answers how many there were."""
        self._check_remote(remote)
        return await self._uploads.restart(upload_id, remote)

    async def retry_all(self, remote: str) -> Restarted:
        """Try everything again that was parked for that remote."""
        self._check_remote(remote)
        count, place = 0, None
        while True:
            parked = await self._asked(self._listing.parked(remote, place))
            place = parked.place
            for start in range(0, len(parked.upload_ids), AT_ONCE):
                some = parked.upload_ids[start : start + AT_ONCE]
                restarts = [Deferred.fromCoroutine(self._restarted(each, remote)) for each in some]
                count += sum(await gatherResults(restarts, consumeErrors=True))
            if place is None or count >= MOST_CHANGED:
                return Restarted(count, place is not None)

    async def begin_drain(self) -> None:
        """No upload begins any more, at none of the processes that share the catalog."""
        await self._asked(self._context.drain.begin(self._context.wall))

    async def end_drain(self) -> None:
        """Uploads may begin again."""
        await self._asked(self._context.drain.end())

    async def left(self) -> Left:
        """The work that is left until the server may be stopped for good."""
        context = self._context
        replicas: Mapping[str, int] = {}
        if context.replicas is not None:
            replicas = await self._asked(context.replicas.unfinished())
        return Left(await self._asked(self._listing.unfinished()), context.holds.count, replicas)

    async def _restarted(self, upload_id: str, remote: str) -> int:
        try:
            return await self._uploads.restart(upload_id, remote)
        except (NotFound, Gone):
            return 0

    async def _asked(self, answer: Deferred[T]) -> T:
        try:
            return await answer
        except Exception as error:
            raise as_answer(error, "") from error

    def _check_remote(self, remote: str | None) -> None:
        if remote is not None and remote not in self._remotes:
            raise BadRequest("remote: there is no remote of that name.")

    @staticmethod
    def _check_unfinished(upload: Upload) -> None:
        if upload.finished:
            raise WrongState("The upload is finished; DELETE removes it.")


FRESH: Final = 30.0
SHARE: Final = 100


@frozen
class Count:
    """A count, and when it ended (seconds since the epoch)."""

    uploads: Counter[UploadState]
    replicas: Counter[tuple[str, ReplicaState]]
    at: float


class Census:
    """How many uploads and replicas there are, by their state.

    All rows are gone through, in pieces between which commits get their turn. Invariant: that takes one part in `SHARE`
    of the time at most, however many rows there are and however often it is asked for, so a count may be `FRESH`
    seconds old, or with millions of rows some minutes. ``clock`` measures spans, ``wall`` tells the time of day.
    """

    def __init__(self, listing: IListing, clock: IReactorTime, wall: Callable[[], float]) -> None:
        self._listing = listing
        self._clock = clock
        self._wall = wall
        self._known: Count | None = None
        self._due = 0.0
        self._waiting: list[Deferred[Count]] | None = None

    def known(self) -> Deferred[Count]:
        """The last count, while the next one is made if it is time for that; waits for the first one only.

        Fails with CatalogUnavailable.
        """
        if self._waiting is None and (self._known is None or self._clock.seconds() >= self._due):
            self._waiting = []
            counting = Deferred.fromCoroutine(self._count())
        else:
            counting = None
        answer: Deferred[Count] = Deferred(self._no_longer)
        if self._known is not None:
            answer.callback(self._known)
        elif self._waiting is not None:
            self._waiting.append(answer)
        if counting is not None:
            counting.addCallbacks(self._counted, self._failed)
        return answer

    async def _count(self) -> Count:
        began = self._clock.seconds()
        uploads: Counter[UploadState] = Counter()
        replicas: Counter[tuple[str, ReplicaState]] = Counter()
        for ask in (self._listing.count_uploads, self._listing.count_replicas):
            found: Counted = await ask(None)
            while True:
                uploads.update(found.uploads)
                replicas.update(found.replicas)
                if found.place is None:
                    break
                found = await ask(found.place)
        now = self._clock.seconds()
        self._due = now + max(FRESH, SHARE * (now - began))
        return Count(uploads, replicas, self._wall())

    def _counted(self, count: Count) -> None:
        self._known = count
        for waiter in self._over():
            waiter.callback(count)

    def _failed(self, failure: Failure) -> None:
        for waiter in self._over():
            waiter.errback(failure)

    def _over(self) -> list[Deferred[Count]]:
        waiting, self._waiting = self._waiting or [], None
        return waiting

    def _no_longer(self, answer: Deferred[Count]) -> None:
        if self._waiting is not None and answer in self._waiting:
            self._waiting.remove(answer)

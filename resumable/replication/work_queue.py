"""The uploads that a remote has to look at next: new ones, those due for a retry, and those in the catalog.

Invariants: memory is bounded however much there is to do: an upload that finds no room here is found in the catalog
later, and a pass over the catalog goes on only when little is left here. Nothing waits for ever: a pass begins at the
first row whenever an upload found no room, and from time to time.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from resumable.aio.deferreds import Timer
from resumable.aio.threads import Stopped
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Replica, Upload
from resumable.replication.context import ReplicationContext

QUEUE = 1024
"""Uploads that wait for their transfer, at most."""
RETRIES = 1024
"""Uploads that wait for their next try, each with a timer, at most."""
PREFERRED = 64
"""Uploads that came while the remote was down, and that its trials begin with, at most."""
PAGE = 256
"""Rows of the catalog that are read at once."""
LOW = 256
"""With fewer in the queue the next page is read."""
NOW_AND_THEN = 30.0
"""Seconds between two passes, at least; and ten times as long as a pass takes."""
CATALOG_PAUSE = 5.0
"""Seconds after which a catalog that failed is asked again."""

_log = Logger()


class WorkQueue:
    """``wants`` decides whether a row that a pass found is to be queued; ``wake`` is called when there may be work."""

    def __init__(
        self,
        remote: str,
        context: ReplicationContext,
        wants: Callable[[Replica, Upload | None], bool],
        wake: Callable[[], None],
    ) -> None:
        self._remote = remote
        self._replicas = context.replicas
        self._clock = context.clock
        self._wall = context.wall
        self._wants = wants
        self._wake = wake
        self._queue: dict[str, None] = {}
        self._preferred: dict[str, None] = {}
        self._retries: dict[str, IDelayedCall] = {}
        self._place: int | None = None
        self._again = False
        self._retries_lost = False
        self._reading: Deferred[None] | None = None
        self._next_pass = Timer(context.clock, self._begin_pass)
        self._began = 0.0
        self._stopped = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def crowded(self) -> bool:
        """Whether uploads wait, here or in the catalog."""
        return bool(self._queue) or self._place is not None

    def add(self, upload_id: str) -> None:
        """Put it at the end of the queue, unless it is there. Without room it is found in the catalog later."""
        if upload_id in self._queue:
            return
        if len(self._queue) < QUEUE:
            self._queue[upload_id] = None
        else:
            self._again = True

    def prefer(self, upload_id: str) -> None:
        """It has never failed: take it first for a trial, if there is room to remember it."""
        if len(self._preferred) < PREFERRED:
            self._preferred[upload_id] = None

    def take(self, failed: Callable[[str], bool] | None = None) -> str | None:
        """Remove the first upload of the queue and answer its id; None: there is none.

        ``failed`` is given for a trial: uploads for which it is true come last then, because uploads that fail by
        themselves must not keep a remote down for all others.
        """
        upload_id = next(iter(self._queue), None)
        if failed is not None:
            untried = (each for each in self._queue if not failed(each))
            upload_id = next(iter(self._preferred), next(untried, upload_id))
        if upload_id is not None:
            self._preferred.pop(upload_id, None)
            self._queue.pop(upload_id, None)
            if (retry := self._retries.pop(upload_id, None)) is not None:
                retry.cancel()
        return upload_id

    def add_later(self, upload_id: str, seconds: float) -> None:
        """Put it into the queue after so many seconds."""
        if (known := self._retries.pop(upload_id, None)) is not None:
            known.cancel()
        if self._stopped:
            return
        if len(self._retries) < RETRIES:
            self._retries[upload_id] = self._clock.callLater(max(0.0, seconds), self._retry, upload_id)
        else:
            self._retries_lost = True

    def restart(self) -> None:
        """As `clear`, and forget which were preferred: all is found in the order of the catalog."""
        self._preferred.clear()
        self.clear()

    def clear(self) -> None:
        """Nothing can be done at the moment: empty the queue, and let all be found in the catalog again."""
        self._queue.clear()
        for retry in self._retries.values():
            retry.cancel()
        self._retries.clear()
        self._retries_lost = True
        self.search()

    def search(self) -> None:
        """Begin the next pass at the first row."""
        self._place, self._again = None, True

    def refill(self) -> None:
        """Read the next page of the catalog, if there is room and there may be more."""
        if self._stopped or self._reading is not None or len(self._queue) >= LOW:
            return
        if self._place is None:
            if not self._again:
                return
            self._place, self._again, self._began = 0, False, self._clock.seconds()
            self._next_pass.clear()
        self._reading = reading = Deferred.fromCoroutine(self._read(self._place))
        reading.addErrback(lambda failure: _log.failure("looking for work failed", failure, remote=self._remote))
        reading.addCallback(self._was_read)

    async def stop(self) -> None:
        """No timer and no question to the catalog is left when this returns."""
        self._stopped = True
        self.clear()
        self._next_pass.clear()
        if (reading := self._reading) is not None:
            reading.cancel()
            await reading

    async def _read(self, place: int) -> None:
        try:
            page = await self._replicas.due(self._remote, self._wall(), place, PAGE)
            for replica, upload in page.due:
                if self._wants(replica, upload):
                    self.add(replica.upload_id)
            if self._place != place:  # `search` was called meanwhile
                return
            self._place = page.after
            if page.after is None:
                await self._passed()
        except (CancelledError, Stopped):
            if not self._stopped:
                raise
        except CatalogUnavailable as error:
            _log.debug("looking for work: {reason}", remote=self._remote, reason=str(error))
            self._place = None
            self._next_pass.set(CATALOG_PAUSE)

    async def _passed(self) -> None:
        """A pass is over: when is the next?"""
        seconds = max(NOW_AND_THEN, 10 * (self._clock.seconds() - self._began))
        if self._retries_lost:
            self._retries_lost = False
            at = await self._replicas.next_retry(self._remote)
            if at is not None:
                self._retries_lost = True
                seconds = min(seconds, max(1.0, at - self._wall()))
        self._next_pass.set(seconds)

    def _was_read(self, _: None) -> None:
        self._reading = None
        if not self._stopped:
            self._wake()

    def _retry(self, upload_id: str) -> None:
        del self._retries[upload_id]
        self.add(upload_id)
        self._wake()

    def _begin_pass(self) -> None:
        self._again = True
        self._wake()

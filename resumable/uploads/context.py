"""What the use cases share: the tiers, the clocks, the limits, and one table from inner failures to answers.

The table (`as_answer`) is the only place that turns an OSError or a catalog failure into something a client sees.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Sequence

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.model.errors import BodyLost, CatalogUnavailable
from resumable.model.hooks import Changes, IProgress, NoHooks, QuestionKind, RequestView, as_data, request_as_data, view
from resumable.model.replica import IReplicas, IReplication, NoReplication
from resumable.model.upload import Fact, FactKind, Gone, ICatalog, Upload
from resumable.protocol import rules
from resumable.protocol.errors import InternalError, NoSpace, TusError, Unavailable
from resumable.spool.files import Spool
from resumable.uploads.holds import IHolds
from resumable.uploads.limits import Drain, IQuota, NoQuota, Space, UploadLimits
from resumable.uploads.places import IPlaces, NoPlaces
from resumable.uploads.questions import Questions
from resumable.uploads.schedule import Schedule

log = Logger()

_FULL = {errno.ENOSPC, errno.EDQUOT}
_BUSY = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}


@define
class Counts:
    """Only ever grows; ``gone`` by the reason. ``not_placed``: attempts at a place that have failed."""

    created: int = 0
    finished: int = 0
    placed: int = 0
    not_placed: int = 0
    gone: Counter[Gone] = field(factory=Counter)


@define
class UploadContext:
    """Everything an append needs to reach; made once by the service.

    ``clock`` measures spans (reactor seconds), ``wall`` tells the time of day for records. ``replicas`` is None where
    none are recorded. ``delete_objects``: the end of a stored upload by its client ends its objects too. ``told``:
    whether anybody is told of facts.
    """

    catalog: ICatalog
    spool: Spool
    holds: IHolds
    clock: IReactorTime
    wall: Callable[[], float]
    boot_id: str
    limits: UploadLimits
    space: Space
    schedule: Schedule
    replication: IReplication = field(factory=NoReplication)
    replicas: IReplicas | None = None
    quota: IQuota = field(factory=NoQuota)
    delete_objects: bool = True
    told: bool = True
    questions: Questions = field(factory=Questions)
    progress: IProgress = field(factory=NoHooks)
    counts: Counts = field(factory=Counts)
    drain: Drain = field(factory=Drain)
    places: IPlaces = field(factory=NoPlaces)
    #: A partial has finished, or is gone and never will: look at the finals that wait for it.
    on_partial_finished: Callable[[str], None] = field(default=lambda _: None)
    #: Whether a final is being put together, or its turn to be tried has yet to come: it isn't idle.
    assembles: Callable[[str], bool] = field(default=lambda _: False)
    on_ended: list[Callable[[str], None]] = field(factory=list)

    def largest(self, *own: int | None) -> int | None:
        """How large an upload may be at the most: the lowest of the operator's maximum and of its own; None: any."""
        return min((each for each in (self.limits.max_size, *own) if each is not None), default=None)

    def expires_at(self, upload: Upload) -> float | None:
        """When this upload will be removed if nobody touches it; None when it won't."""
        if self.limits.expire_after is None or upload.finished or upload.gone:
            return None
        return upload.touched_at + self.limits.expire_after

    async def create(
        self,
        upload: Upload,
        facts: Sequence[Fact],
        changes: Changes | None = None,
        request: RequestView | None = None,
    ) -> Upload | None:
        """Record a new upload with the replicas that are chosen for it; the record, or None: its id is taken.

        Of a final also None: a partial is gone, or the same request has made another. ``changes``: what hooks want of
        its key and remotes. ``request``: the one that asks for a final, for those who are asked before it is finished.
        """
        if changes is None:
            replicas = self.replication.chosen(upload)
        else:
            replicas = self.replication.chosen(upload, changes.remotes, changes.key)
        if replicas:
            upload = evolve(upload, required=sum(each.required for each in replicas))
        asked = None if request is None or not upload.is_final else request_as_data(request)
        if not await self.catalog.create(upload, facts, replicas, asked):
            return None
        self.counts.created += 1
        if upload.offset or upload.finished:
            self.committed(upload)
        return upload

    def committed(self, upload: Upload) -> None:
        """A commit has landed, and this is the record now: who works on from there is told."""
        self.counts.finished += upload.finished
        if not upload.is_partial:
            self.replication.committed(upload)
        elif upload.finished:
            self.on_partial_finished(upload.id)
        if upload.finished and upload.place is not None:
            self.places.wake(upload.id)

    def finishing(self, after: Upload) -> Upload:
        """The record of an upload that is finished with it, with the place that its file is to get."""
        place = self.places.planned(after) if after.place is None else None
        return after if place is None else evolve(after, place=place)

    def ended(self, upload_id: str) -> None:
        """The upload is gone."""
        self.replication.ended(upload_id)
        self.questions.over(upload_id)
        for tell in self.on_ended:
            tell(upload_id)

    def pending(self, upload: Upload) -> bool:
        """Whether it has all its bytes, and isn't finished before a hook has said so.

        Whether a hook is still asked doesn't count: one that isn't any more was when the last byte was committed.
        """
        return not upload.finished and upload.offset == upload.length and not upload.is_final

    def finishes(self, upload: Upload, offset: int, length: int | None) -> bool:
        """Whether a commit of that offset finishes the upload by itself."""
        return rules.finished(offset, length) and (upload.finished or not self.questions.asks(QuestionKind.FINISH))

    def withheld(self, upload: Upload) -> bool:
        """Whether it has all its bytes, and its client isn't to know: a hook hasn't agreed, or it isn't stored."""
        if self.pending(upload):
            return True
        waits = upload.finished and upload.required > 0 and upload.stored_at is None
        return waits and bool(self.replication.acknowledges)

    def shown(self, upload: Upload) -> Upload:
        """The upload as its client may see it: the last byte is not acknowledged while it is withheld."""
        return evolve(upload, offset=max(0, (upload.length or 0) - 1)) if self.withheld(upload) else upload

    def facts(self, upload: Upload, request: RequestView | None, *kinds: FactKind) -> Sequence[Fact]:
        """What is told of the upload as it is now; nothing where nobody is told."""
        if not self.told:
            return ()
        now, data = self.wall(), as_data(view(upload), request)
        return [Fact(kind, upload.id, now, data) for kind in kinds]


def as_answer(error: BaseException, upload_id: str) -> BaseException:
    """The error a client may see for an inner failure, logged once; protocol errors and cancellation pass unchanged."""
    if isinstance(error, CatalogUnavailable):
        log.error("catalog unavailable: {reason}", upload=upload_id, reason=str(error))
        return NoSpace() if error.no_space else Unavailable("The server can't record uploads at the moment.")
    if isinstance(error, OSError):
        log.error("spool failed: {reason}", upload=upload_id, reason=error.strerror, errno=error.errno)
        if error.errno in _FULL:
            return NoSpace()
        if error.errno in _BUSY:
            return Unavailable("The server is out of files or memory at the moment.")
        return Unavailable("The server can't write to its disk at the moment.")
    if isinstance(error, TusError | BodyLost | CancelledError) or not isinstance(error, Exception):
        return error
    log.failure("unexpected failure", Failure(error), upload=upload_id)
    return InternalError("The server failed in an unexpected way.")

"""The surroundings of all use cases (tiers, clocks, limits, hooks), the questions to hooks, and the common steps with
an upload's record.

`as_answer` is the only place that turns an OSError or a catalog failure into an error for the client. Invariants: a
context never changes once it is made; nothing counts before it is durable; the thing that hooks are asked about happens
only after a yes; no question outlives the server or its upload, and a question that was broken off was a no.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import ceil

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import Later
from resumable.model.errors import BodyLost, CatalogUnavailable
from resumable.model.hooks import (
    Answer,
    Changes,
    Granted,
    IHooks,
    IProgress,
    NoHooks,
    QuestionKind,
    RequestView,
    as_data,
    request_as_data,
    view,
)
from resumable.model.replica import IReplicas, IReplication, NoReplication
from resumable.model.upload import Fact, FactKind, GoneReason, ICatalog, Segment, StoreChange, Through, Upload
from resumable.protocol import rules
from resumable.protocol.errors import Gone, InternalError, NoSpace, NotFound, Stopping, TusError, Unavailable
from resumable.spool.datafile import NotReadable
from resumable.spool.interfaces import ISpool, IStoredFiles
from resumable.spool.objects.errors import StoreFailed
from resumable.spool.placed_files import PlacedFiles
from resumable.uploads.digest_rules import DigestRules
from resumable.uploads.holds import IHolds
from resumable.uploads.limits import Drain, IQuota, NoQuota, Space, UploadLimits
from resumable.uploads.other_workers import ENDED, IOtherWorkers, NoOtherWorkers

log = Logger()

_FULL = {errno.ENOSPC, errno.EDQUOT}
_BUSY = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}

ANNOUNCED_AFTER = 0.05
"""Seconds after which a client of the draft is told where its small upload is, though its body may soon be over."""

PATIENCE = 5
"""Seconds that a client is to wait for an object store that says nothing of that."""

LAGGING = "The server's storage doesn't keep up at the moment; resume later."

Listener = Callable[[str], None]


_NOTHING = Answer()


@define
class HookContext:
    """One request, as far as hooks have to do with it.

    ``request``: the request as hooks see it; None where there are no hooks. ``changes``: their changes to the upload
    that it makes. ``answer``: their additions to the client's success.
    """

    request: RequestView | None = None
    changes: Changes | None = None
    answer: Answer = _NOTHING

    def add(self, granted: Granted) -> None:
        """Hooks have agreed once more; where they say different things to the client, the later word counts."""
        theirs = {name.lower() for name in granted.answer.headers}
        kept = {name: value for name, value in self.answer.headers.items() if name.lower() not in theirs}
        self.answer = evolve(
            granted.answer,
            status=self.answer.status if granted.answer.status is None else granted.answer.status,
            headers={**kept, **granted.answer.headers},
            body=granted.answer.body or self.answer.body,
        )


class Questions:
    """Asks all hooks, and breaks questions off. ``hooks`` None: there are none."""

    def __init__(self, hooks: IHooks | None = None) -> None:
        self._hooks = hooks
        self._under_way: dict[Deferred[Granted], str] = {}
        self._stopping = False

    def asks(self, kind: QuestionKind) -> bool:
        """Whether a hook wants to be asked."""
        return self._hooks is not None and bool(self._hooks.asks(kind))

    async def ask(self, kind: QuestionKind, upload: Upload, request: RequestView | None = None) -> Granted:
        """A yes. Raises Refused with the hook's answer, Unavailable when a hook has failed, Stopping, Gone."""
        if self._hooks is None or not self._hooks.asks(kind):
            return Granted()
        if self._stopping:
            raise Stopping()
        asking = self._hooks.before(kind, view(upload), request)
        self._under_way[asking] = upload.id
        try:
            return await asking
        except CancelledError:
            raise (Stopping() if asking in self._under_way else Gone("The upload was removed.")) from None
        finally:
            self._under_way.pop(asking, None)

    def over(self, upload_id: str) -> None:
        """The upload is gone: end the questions about it."""
        for asking in [asking for asking, about in self._under_way.items() if about == upload_id]:
            del self._under_way[asking]
            asking.cancel()

    def stop(self) -> None:
        """Break off all questions under way, ask nothing more."""
        self._stopping = True
        for asking in tuple(self._under_way):
            asking.cancel()


@define
class Counts:
    """How many uploads were created, finished, ... since the start. Only ever grows; ``gone`` by the reason.
    ``not_placed``, ``not_removed``: attempts at a place, and at removing an upload's data, that have failed."""

    created: int = 0
    created_by_draft: int = 0
    finished: int = 0
    placed: int = 0
    not_placed: int = 0
    not_removed: int = 0
    gone: Counter[GoneReason] = field(factory=Counter)


@frozen
class UploadListeners:
    """Functions that are called with an upload's id when something has happened to it. Each listener adds itself when
    it is made.

    ``partial_finished``: a partial has finished, or is gone and never will finish. ``place_planned``: the upload is
    finished, and its file has a place to go to. ``ended``: the upload is gone. ``digest_due``: it is finished, and
    its digest is yet to be made. ``joinable``: the upload is finished,
    and its bytes are in segments that become one file.
    """

    partial_finished: list[Listener] = field(factory=list)
    place_planned: list[Listener] = field(factory=list)
    ended: list[Listener] = field(factory=list)
    digest_due: list[Listener] = field(factory=list)
    joinable: list[Listener] = field(factory=list)


@frozen
class UploadContext:
    """The surroundings of the use cases of uploads; made once by the service.

    ``clock`` measures spans (reactor seconds), ``wall`` tells the time of day for records. ``replicas`` is None where
    none are recorded. ``delete_objects``: the end of a stored upload by its client ends its objects too.
    ``records_facts``: whether facts are kept, for hooks. ``others``: the other workers that share the catalog.
    ``worthwhile``: see `Appends`; None: its own. ``objects``: the files of finished uploads, where the spool is in an
    object store. ``digests``: which digests of whole uploads are made. ``announcing``: calls that tell clients where
    their small uploads are.
    """

    catalog: ICatalog
    spool: ISpool
    holds: IHolds
    clock: IReactorTime
    wall: Callable[[], float]
    boot_id: str
    limits: UploadLimits
    space: Space
    places: PlacedFiles
    replication: IReplication = field(factory=NoReplication)
    replicas: IReplicas | None = None
    quota: IQuota = field(factory=NoQuota)
    delete_objects: bool = True
    records_facts: bool = True
    questions: Questions = field(factory=Questions)
    progress: IProgress = field(factory=NoHooks)
    counts: Counts = field(factory=Counts)
    drain: Drain = field(factory=Drain)
    listeners: UploadListeners = field(factory=UploadListeners)
    others: IOtherWorkers = field(factory=NoOtherWorkers)
    worthwhile: int | None = None
    objects: IStoredFiles | None = None
    digests: DigestRules = field(factory=DigestRules)
    announcing: Later = field(
        init=False, default=Factory(lambda self: Later(self.clock, ANNOUNCED_AFTER), takes_self=True)
    )

    # Reading a record

    async def present(self, upload_id: str) -> Upload:
        """The record of an upload that is there. Raises NotFound or Gone (T10, T17, T39, T48), Unavailable."""
        try:
            upload = await self.catalog.get(upload_id)
        except Exception as error:
            raise as_answer(error, upload_id) from error
        if upload is None:
            raise NotFound("There is no such upload.")
        if upload.gone is not None:
            raise Gone(f"The upload was {upload.gone.value}.")
        return upload

    def check_room(self) -> None:
        """Raises NoSpace, or Unavailable while the remotes lag too far behind for an upload to begin."""
        self.space.admit()
        if not self.replication.admits():
            raise Unavailable(LAGGING, self.limits.retry_after)

    def largest(self, *own: int | None) -> int | None:
        """How many bytes an upload may have: the lowest of the operator's maximum and of its own; None: any number."""
        largest = self.limits.max_size
        for each in own:
            if each is not None and (largest is None or each < largest):
                largest = each
        return largest

    def expires_at(self, upload: Upload) -> float | None:
        """When this upload will be removed unless a request touches it; None when it won't."""
        if self.limits.expire_after is None or upload.finished or upload.gone:
            return None
        return upload.touched_at + self.limits.expire_after

    def pending(self, upload: Upload) -> bool:
        """Whether it has all its bytes, and isn't finished before a hook has agreed, or before its digest is known to
        be the one that was announced.

        Whether a hook is still asked doesn't count: one that isn't any more was when the last byte was committed.
        """
        return not upload.finished and upload.offset == upload.length and not upload.is_final

    def withheld(self, upload: Upload) -> bool:
        """Whether it has all its bytes, and its client isn't to know: a hook hasn't agreed, or it isn't stored."""
        if self.pending(upload):
            return True
        waits = upload.finished and upload.required > 0 and upload.stored_at is None
        return waits and bool(self.replication.acknowledges)

    def shown(self, upload: Upload) -> Upload:
        """The upload as its client may see it: the last byte is not acknowledged while it is withheld."""
        return evolve(upload, offset=max(0, (upload.length or 0) - 1)) if self.withheld(upload) else upload

    # Changing a record

    async def create(
        self,
        upload: Upload,
        facts: Sequence[Fact],
        changes: Changes | None = None,
        request: RequestView | None = None,
        through: Through | None = None,
        segment: Segment | StoreChange | None = None,
    ) -> Upload | None:
        """Record a new upload with the replicas that are chosen for it; the record, or None: its id is taken.

        Of a final also None: a partial is gone, or the same request has made another. ``changes``: the id, key and
        remotes that hooks want. ``request``: the request for a final, which hooks see before the final is finished.
        ``through``, ``segment``: see ICatalog.
        """
        if changes is None:
            replicas = self.replication.chosen(upload, drawn=True)
        else:
            replicas = self.replication.chosen(upload, changes.remotes, changes.key, changes.id is None)
        if replicas:
            upload = evolve(upload, required=sum(each.required for each in replicas))
        facts = self.told(upload, facts, segment)
        if changes is not None and changes.id is not None and await self.catalog.has_remains(upload.id):
            return None
        asked = None if request is None or not upload.is_final else request_as_data(request)
        if not await self.catalog.create(upload, facts, replicas, asked, through, segment):
            return None
        self.counts.created += 1
        self.counts.created_by_draft += upload.draft
        if upload.offset or upload.finished:
            self.committed(upload)
        return upload

    def finishes(self, upload: Upload, offset: int, length: int | None) -> bool:
        """Whether a commit of that offset finishes the upload by itself."""
        return rules.finished(offset, length) and (upload.finished or not self.withholds(upload))

    def withholds(self, upload: Upload) -> bool:
        """Whether it isn't finished by its last byte alone: a hook is asked, or what was announced of it is yet to be
        compared, or differs."""
        return self.questions.asks(QuestionKind.FINISH) or not self.digests.settled(upload)

    def finishing(self, after: Upload) -> Upload:
        """The record of an upload that is finished with it, with the place that its file is to get, and the digest that
        is due."""
        place = self.places.planned(after) if after.place is None else None
        after = after if place is None else evolve(after, place=place)
        return self.digests.finishing(after)

    def facts(self, upload: Upload, request: RequestView | None, *kinds: FactKind) -> Sequence[Fact]:
        """Facts about the upload as it is now; none where no hook is told."""
        if not self.records_facts:
            return ()
        now, data = self.wall(), as_data(view(upload), request)
        return [Fact(kind, upload.id, now, data) for kind in kinds]

    def told(self, upload: Upload, facts: Sequence[Fact], segment: Segment | StoreChange | None) -> Sequence[Fact]:
        """These facts, and that it is stored, if this change says that its object is there."""
        if isinstance(segment, StoreChange) and segment.is_whole:
            return [*facts, *self.stored_facts(upload)]
        return facts

    def stored_facts(self, upload: Upload) -> Sequence[Fact]:
        """That it is stored, as its object is there, and no remote is required to have it: else that is told when they
        do."""
        if not self.records_facts or upload.is_partial or upload.required:
            return ()
        told = {**as_data(view(upload)), "remote": None, "size": upload.offset}
        return [Fact(FactKind.STORED, upload.id, self.wall(), told)]

    # After a change

    def committed(self, upload: Upload) -> None:
        """A commit has landed, and this is the record now: wake the remote tier and the listeners."""
        self.counts.finished += upload.finished
        if not upload.is_partial:
            if upload.finished or self.objects is None:  # no byte can be copied before the object is there
                self.replication.committed(upload)
        elif upload.finished:
            self.partial_finished(upload.id)
        if upload.finished and upload.place is not None:
            self.place_planned(upload.id)
        if upload.finished and upload.digest_due is not None:
            _call(self.listeners.digest_due, upload.id)

    def place_planned(self, upload_id: str) -> None:
        """The upload is finished, and its file may get its place."""
        _call(self.listeners.place_planned, upload_id)

    def partial_finished(self, partial_id: str) -> None:
        """A partial has finished, or never will: look at the finals that wait for it."""
        _call(self.listeners.partial_finished, partial_id)

    def joinable(self, upload_id: str) -> None:
        """The upload is finished, and its bytes aren't in one file yet."""
        _call(self.listeners.joinable, upload_id)

    def ended(self, upload_id: str) -> None:
        """The upload is gone: stop what is under way for it, here and elsewhere."""
        self.replication.ended(upload_id)
        self.ended_here(upload_id)
        if self.others.several:
            self.others.tell(ENDED, upload_id)

    def ended_here(self, upload_id: str) -> None:
        """The upload is gone, and others know it, replication too: stop what is under way for it here."""
        self.questions.over(upload_id)
        _call(self.listeners.ended, upload_id)


def _call(listeners: Iterable[Listener], upload_id: str) -> None:
    for listener in listeners:
        listener(upload_id)


def as_answer(error: BaseException, upload_id: str) -> BaseException:
    """The error a client may see for an inner failure, logged once; protocol errors and cancellation pass unchanged."""
    if isinstance(error, CatalogUnavailable):
        log.debug("catalog unavailable: {reason}", upload=upload_id, reason=str(error))
        return NoSpace() if error.no_space else Unavailable("The server can't record uploads at the moment.")
    if isinstance(error, NotReadable):
        log.warn("segments can't be read: {reason}", upload=upload_id, reason=error.strerror)
        return Unavailable("The upload's bytes can't be read here yet.")
    if isinstance(error, StoreFailed):
        log.warn("the object store failed: {reason}", upload=upload_id, reason=error.strerror)
        return Unavailable(
            "The server's storage doesn't take or give bytes at the moment.", ceil(error.retry_after or 5)
        )
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

"""Replicas: the catalog's record of them, and the interface between the use cases and replication.

Invariants: the rows of an upload's replicas are made in the transaction that makes the upload; `confirmed` never runs
ahead of the upload's committed offset; a STORED replica is only ever removed by the end of its upload. Sizes are bytes,
times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import Attribute, Interface, implementer

from resumable.model.upload import Replica, Upload
from resumable.protocol.errors import NotFound


@frozen
class Page:
    """Work found among the next rows: pairs of a replica and its upload (None, of ENDING ones only: it is forgotten).

    ``after`` is where to go on; None: this was the last page.
    """

    due: Sequence[tuple[Replica, Upload | None]]
    after: int | None


@frozen
class Backlog:
    """The data that one remote still lacks: committed bytes, the number of finished uploads, and the time when the
    oldest of these finished."""

    size: int = 0
    uploads: int = 0
    oldest: float | None = None


class IReplicas(Interface):
    """The catalog's record of replicas. Every method answers with a Deferred; changes are durable when it fires.

    All fail with CatalogUnavailable as ICatalog does. A change of a replica is a compare-and-set on its state.
    """

    def of(upload_id: str) -> Deferred[Sequence[Replica]]:
        """All replicas of an upload, in the order of creation."""

    def of_many(upload_ids: Sequence[str]) -> Deferred[Mapping[str, Sequence[Replica]]]:
        """The same for each of these uploads that has any."""

    def get(upload_id: str, remote: str) -> Deferred[tuple[Replica, Upload | None] | None]:
        """The upload's replica in one remote, with the upload; None: there is none."""

    def own(upload_id: str, remote: str) -> Deferred[tuple[Replica, Upload | None] | None]:
        """The same for whoever is to send it; None also: that is another worker, which lives."""

    def due(remote: str, now: float, after: int, limit: int) -> Deferred[Page]:
        """Looks at the next ``limit`` rows of this remote behind ``after`` (0: from the first on) that are OPEN or
        ENDING. Answers those whose ``retry_at`` has come and that have something to do: they are ENDING, or the upload
        is finished, or committed up to ``needs`` and past ``confirmed``.

        Where several workers share the uploads, only rows that this one is to send: those whose uploads it created, and
        those of workers that are gone, which it takes over when ``after`` is 0, a bounded number at a time."""

    def next_retry(remote: str) -> Deferred[float | None]:
        """The earliest ``retry_at`` of those that are OPEN or ENDING, and this worker's; None: there is none."""

    def advance(replica: Replica) -> Deferred[bool]:
        """Record key, confirmed, needs, run, attempts, error, retry_at and failing_since.

        False, and nothing recorded, if the state is no longer the replica's."""

    def store(
        replica: Replica, stored: Mapping[str, Any], at: float, journal: Mapping[str, Any] | None = None
    ) -> Deferred[tuple[bool, bool]]:
        """OPEN becomes STORED, all bytes are confirmed, and facts are written. Answers whether that landed, and whether
        every required replica of the upload is stored now; the last of them sets the upload's ``stored_at``.

        ``journal``: the record that the journal is to have then, of an object that was written in one piece."""

    def park(replica: Replica, reason: str, at: float) -> Deferred[bool]:
        """OPEN becomes PARKED, with a fact that says so; False if it is no longer OPEN."""

    def restart(upload_id: str, remote: str | None) -> Deferred[int]:
        """PARKED ones of this upload (in one remote, or all) become OPEN, as if nothing had failed. Answers the
        number."""

    def hasten(remote: str) -> Deferred[None]:
        """The remote is back: each replica of this worker that waits for a retry is due now."""

    def ended(replica: Replica) -> Deferred[None]:
        """Nothing of an ENDING one is in the store any more: forget it, its journal and parts."""

    def backlog(remote: str) -> Deferred[Backlog]:
        """The sums over OPEN ones, of all workers. Looks at every row, so ask at the start-up and then rarely."""

    def unfinished() -> Deferred[Mapping[str, int]]:
        """How many are OPEN or ENDING, by the name of their remote, whether it is configured or not."""

    def owners(remote: str, key: str) -> Deferred[Sequence[str]]:
        """The ids of the uploads that have a replica, in any state, under this key."""

    def load_journal(upload_id: str, remote: str) -> Deferred[dict[str, Any] | None]:
        """See `resumable.remotes.interfaces.IJournal.load`."""

    def save_journal(upload_id: str, remote: str, value: Mapping[str, Any]) -> Deferred[None]:
        """See `IJournal.save`. Does nothing when there is no such replica."""

    def load_parts(upload_id: str, remote: str) -> Deferred[dict[int, str]]:
        """See `IPartJournal.load_parts`."""

    def save_part(upload_id: str, remote: str, number: int, value: str) -> Deferred[None]:
        """See `IPartJournal.save_part`."""

    def drop_parts(upload_id: str, remote: str) -> Deferred[None]:
        """See `IPartJournal.drop_parts`."""

    def droppable(stored_before: float, limit: int) -> Deferred[Sequence[Upload]]:
        """Finished uploads, not gone, that have their data here and don't need it: there are required replicas, all
        of them STORED, the others STORED or PARKED, and the last was stored before that time. Oldest first."""

    def drop(upload_ids: Sequence[str], at: float) -> Deferred[Sequence[str]]:
        """Give up the local data of those that are still droppable, and answer their ids. Their ``dropped_at`` is set,
        and `ICatalog.removable` names them until `ICatalog.removed`."""


class IHeldReplicas(IReplicas):
    """The catalog's record of replicas where several workers share it. Each has a holder, the worker that sends it on:
    the one that made the upload, and another only once its row is gone."""

    def holders(upload_id: str) -> Deferred[Mapping[str, str]]:
        """The ids of the workers that hold its replicas, by remote: of those that are OPEN or ENDING. One whose
        holder's row is gone counts as this worker's: `own` would take it over."""


@frozen
class TransferProgress:
    """How far the transfer of one replica is now: ``sent`` bytes are on their way or in the remote, ``confirmed`` bytes
    are in it."""

    sent: int
    confirmed: int


class ICopy(Interface):
    """The bytes of an upload, read from a remote piece by piece."""

    def read(offset: int, size: int) -> Deferred[bytes]:
        """The bytes from ``offset`` on, where the last piece has ended: at most 1 MiB, even if ``size`` is more.

        One call at a time. Fails with NotFound when no remote has them, with Unavailable when none of these answers.
        """

    def close() -> None:
        """End: nothing more is read. May be repeated; a `read` under way may fail."""


class IReplication(Interface):
    """Replication, as the use cases see it. None of these blocks or raises."""

    acknowledges = Attribute("bool: `--ack remote`: a finished upload is acknowledged only once it is stored.")

    def chosen(
        upload: Upload, remotes: Collection[str] | None = None, key: str | None = None, drawn: bool = False
    ) -> Sequence[Replica]:
        """The replicas that a new upload gets; none for a partial.

        ``remotes``: the names of the only remotes it may go to; None: all. ``key``: the object's name in them.
        ``drawn``: its id was drawn for it, so that no other upload can have it.
        """

    def committed(upload: Upload) -> None:
        """The upload, as the catalog has it now, has more bytes, or has finished."""

    def ended(upload_id: str) -> None:
        """The upload is gone: its transfers stop."""

    def restarted(upload_id: str) -> None:
        """Parked replicas of the upload are open again: they are tried now."""

    def when_stored(upload_id: str) -> Deferred[None]:
        """Fires when every required replica of the upload is stored from now on; never fails, may be cancelled."""

    def progress(upload_id: str) -> Mapping[str, TransferProgress]:
        """The progress of its replicas under way, by remote."""

    def open_copy(upload_id: str, start: int, size: int) -> Deferred[ICopy]:
        """``size`` bytes (at least one) of the upload, from a remote that has it and answers. The caller closes it.

        Fails with NotFound when there is no copy that can be read, with Unavailable when there may be one later.
        """

    def signed_url(upload_id: str, content_type: str, disposition: str, lifetime: float) -> Deferred[str | None]:
        """A URL of a store where anybody may read the upload for so many seconds, with these header values.

        None: no remote that has it and answers can give one. Fails with Unavailable when the catalog can't be read.
        """

    def admits() -> bool:
        """Whether the remotes' lag behind the spool is below the operator's bound, so that clients may send."""

    def when_admitted() -> Deferred[None]:
        """Fires once `admits` answers True; at once if it does now."""


@implementer(IReplication)
class NoReplication:
    """IReplication without any remote."""

    acknowledges = False

    def chosen(
        self, upload: Upload, remotes: Collection[str] | None = None, key: str | None = None, drawn: bool = False
    ) -> Sequence[Replica]:
        return ()

    def committed(self, upload: Upload) -> None: ...

    def ended(self, upload_id: str) -> None: ...

    def restarted(self, upload_id: str) -> None: ...

    def when_stored(self, upload_id: str) -> Deferred[None]:
        return Deferred()

    def progress(self, upload_id: str) -> Mapping[str, TransferProgress]:
        return {}

    def open_copy(self, upload_id: str, start: int, size: int) -> Deferred[ICopy]:
        return fail(NotFound("The file is no longer on this server, and there is no remote to read it from."))

    def signed_url(self, upload_id: str, content_type: str, disposition: str, lifetime: float) -> Deferred[str | None]:
        return succeed(None)

    def admits(self) -> bool:
        return True

    def when_admitted(self) -> Deferred[None]:
        return succeed(None)

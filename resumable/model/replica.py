"""Replicas: what the catalog keeps of them, and how the tiers talk about them.

One reason to change: what is known of an upload's copy in one remote. Nothing here does any work.

Invariants: the rows of an upload's replicas are made in the transaction that makes the upload; `confirmed` never runs
ahead of the upload's committed offset (design.md 4); what is STORED is only ever removed by the end of its upload.
Sizes are bytes, times are seconds since the epoch.
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
    """Work found among the next rows: pairs of a replica and its upload (None: forgotten already, ENDING only).

    ``after`` is where to go on; None: this was the last page.
    """

    due: Sequence[tuple[Replica, Upload | None]]
    after: int | None


@frozen
class Backlog:
    """What one remote still lacks: committed bytes, uploads that have finished, and since when the oldest has."""

    size: int = 0
    uploads: int = 0
    oldest: float | None = None


class IReplicas(Interface):
    """The catalog's record of replicas. Every method answers with a Deferred; changes are durable when it fires.

    All fail with CatalogUnavailable as ICatalog does. A change of a replica is a compare-and-set on its state.
    """

    def of(upload_id: str) -> Deferred[Sequence[Replica]]:
        """All of an upload's, in the order of creation."""

    def get(upload_id: str, remote: str) -> Deferred[tuple[Replica, Upload | None] | None]:
        """One of them, with its upload; None: there is none."""

    def due(remote: str, now: float, after: int, limit: int) -> Deferred[Page]:
        """Looks at the next ``limit`` rows of this remote behind ``after`` (0: from the first on) that are OPEN or
        ENDING, and answers those that have something to do: ENDING, finished, or committed up to ``needs`` and past
        ``confirmed``; and whose ``retry_at`` has come."""

    def next_retry(remote: str) -> Deferred[float | None]:
        """The earliest ``retry_at`` of those that are OPEN or ENDING; None: nobody waits."""

    def advance(replica: Replica) -> Deferred[bool]:
        """Record key, confirmed, needs, run, attempts, error, retry_at and failing_since.

        False, and nothing recorded, if the state is no longer the replica's."""

    def store(replica: Replica, stored: Mapping[str, Any], at: float) -> Deferred[tuple[bool, bool]]:
        """OPEN becomes STORED, confirmed the whole; facts are written. Answers whether that landed, and whether every
        required replica of the upload is stored now; the upload's ``stored_at`` is set with the last of them."""

    def park(replica: Replica, reason: str, at: float) -> Deferred[bool]:
        """OPEN becomes PARKED, with a fact that says so; False if it is no longer OPEN."""

    def restart(upload_id: str, remote: str | None) -> Deferred[int]:
        """PARKED ones of this upload (of one remote, or all) become OPEN, as if nothing had failed; how many."""

    def hasten(remote: str) -> Deferred[None]:
        """The remote is back: whatever waits for a retry is due now."""

    def ended(replica: Replica) -> Deferred[None]:
        """Nothing of an ENDING one is in the store any more: forget it, its journal and parts."""

    def backlog(remote: str) -> Deferred[Backlog]:
        """Sums over the OPEN ones; looks at every row, so it is for the start-up and now and then."""

    def unfinished() -> Deferred[Mapping[str, int]]:
        """How many are OPEN or ENDING, by the name of their remote, whether there is such a remote or not."""

    def owners(remote: str, key: str) -> Deferred[Sequence[str]]:
        """The ids of the uploads that have a replica, in any state, under this key."""

    def load_journal(upload_id: str, remote: str) -> Deferred[dict[str, Any] | None]:
        """See `resumable.remotes.interfaces.IJournal.load`."""

    def save_journal(upload_id: str, remote: str, value: Mapping[str, Any]) -> Deferred[None]:
        """See IJournal.save. Does nothing when there is no such replica."""

    def load_parts(upload_id: str, remote: str) -> Deferred[dict[int, str]]:
        """See IPartJournal.load_parts."""

    def save_part(upload_id: str, remote: str, number: int, value: str) -> Deferred[None]:
        """See IPartJournal.save_part."""

    def drop_parts(upload_id: str, remote: str) -> Deferred[None]:
        """See IPartJournal.drop_parts."""

    def droppable(stored_before: float, limit: int) -> Deferred[Sequence[Upload]]:
        """Finished uploads, not gone, that have their data here and don't need it: there are required replicas, all
        of them STORED, every other STORED or PARKED, the last of them before that time. Oldest first."""

    def drop(upload_ids: Sequence[str], at: float) -> Deferred[Sequence[str]]:
        """Give up the local data of those that are still droppable: their ``dropped_at`` is set, and
        `ICatalog.removable` names them until `ICatalog.removed`. Answers whose."""


@frozen
class Progress:
    """How far one replica is at this moment: ``sent`` bytes are on their way or there, ``confirmed`` are there."""

    sent: int
    confirmed: int


class ICopy(Interface):
    """Bytes of an upload as a remote has them, one piece after the other."""

    def read(offset: int, size: int) -> Deferred[bytes]:
        """The bytes from ``offset`` on, where the last piece has ended: 1 MiB of them at most, whatever ``size`` is.

        One call at a time. NotFound, Unavailable: no remote has them, or none that answers.
        """

    def close() -> None:
        """Nothing more is read. May be repeated; a `read` under way may fail."""


class IReplication(Interface):
    """The engine between the tiers, as the use cases see it. None of these blocks or raises."""

    acknowledges = Attribute("bool: `--ack remote`: a finished upload is acknowledged only once it is stored.")

    def chosen(upload: Upload, remotes: Collection[str] | None = None, key: str | None = None) -> Sequence[Replica]:
        """The replicas that a new upload gets; none for a partial.

        ``remotes``: at most these, by name; None: all. ``key``: what it is to be called in them.
        """

    def committed(upload: Upload) -> None:
        """The upload, as the catalog has it now, has more bytes, or has finished."""

    def ended(upload_id: str) -> None:
        """The upload is gone: stop what is under way for it."""

    def restarted(upload_id: str) -> None:
        """Replicas of it that were parked are open again: try them now."""

    def when_stored(upload_id: str) -> Deferred[None]:
        """Fires when every required replica of the upload is stored from now on; fails with nothing, cancel it."""

    def progress(upload_id: str) -> Mapping[str, Progress]:
        """Those of its replicas that are being worked on right now, by remote."""

    def open_copy(upload_id: str, start: int, size: int) -> Deferred[ICopy]:
        """``size`` bytes (at least one) of the upload, from a remote that has it and answers. The caller closes it.

        NotFound: there is no copy any more, or none that can be read. Unavailable: there may be one later.
        """

    def signed_url(upload_id: str, content_type: str, disposition: str, lifetime: float) -> Deferred[str | None]:
        """A URL of a store where anybody may read the upload for so many seconds, with these header values.

        None: no remote that has it and answers can give one. Unavailable: the catalog doesn't tell.
        """

    def admits() -> bool:
        """Whether the lag behind the spool is below the operator's bound, so that clients may send."""

    def when_admitted() -> Deferred[None]:
        """Fires when that is so; at once if it is."""


@implementer(IReplication)
class NoReplication:
    """There are no remotes."""

    acknowledges = False

    def chosen(
        self, upload: Upload, remotes: Collection[str] | None = None, key: str | None = None
    ) -> Sequence[Replica]:
        return ()

    def committed(self, upload: Upload) -> None: ...

    def ended(self, upload_id: str) -> None: ...

    def restarted(self, upload_id: str) -> None: ...

    def when_stored(self, upload_id: str) -> Deferred[None]:
        return Deferred()

    def progress(self, upload_id: str) -> Mapping[str, Progress]:
        return {}

    def open_copy(self, upload_id: str, start: int, size: int) -> Deferred[ICopy]:
        return fail(NotFound("The file is no longer on this server, and there is no remote to read it from."))

    def signed_url(self, upload_id: str, content_type: str, disposition: str, lifetime: float) -> Deferred[str | None]:
        return succeed(None)

    def admits(self) -> bool:
        return True

    def when_admitted(self) -> Deferred[None]:
        return succeed(None)

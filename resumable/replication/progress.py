"""The progress of one remote's replicas, as this process knows it: the bytes that go next, and a cache.

Invariants: a replica's progress follows from the catalog's row, except for parts that a crash may forget: it may be
dropped between two transfers at any time, and is then made from the row again; so many replicas are remembered
and no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from attrs import define, evolve, field

from resumable.model.upload import Replica, ReplicaState, Upload
from resumable.remotes.interfaces import Intent, Part, Plan
from resumable.remotes.plan import ObjectTooLarge
from resumable.replication.context import ReplicationContext
from resumable.replication.lag import Lag

REMEMBERED = 4096
"""Replicas that need not be read from the catalog before their next transfer."""


def fresher(one: Upload | None, other: Upload | None) -> Upload | None:
    """The more recent of two records of the same upload; None counts as the oldest."""
    if one is None or other is None:
        return other if one is None else one
    return max(
        other, one, key=lambda each: (each.gone is not None, each.finished, each.offset, each.length is not None)
    )


@define(eq=False)
class ReplicaProgress:
    """How far one replica is, and which part it gets next.

    ``saved``: ``replica`` as the catalog has it. ``upload``: None while nothing is to be done. ``whole_parts``: the
    remote takes parts of its plan only. ``initiated``: `initiate_upload` was called in this process, with
    ``initiated_length``. ``ahead``: confirmed parts behind a gap, ends by offsets. ``counted``: committed bytes that
    are part of the lag. ``hurried``: the pause before the next try is only what the store asked for, which is over at
    ``not_before``. ``request``: the id of the client's latest request that brought bytes, if it is known.
    ``intent``: the remote gets the upload in one piece, and was asked for nothing else; the journal has its record.
    """

    replica: Replica
    saved: Replica
    upload: Upload | None = None
    plan: Plan | None = None
    whole_parts: bool = False
    initiated: bool = False
    initiated_length: int | None = None
    ahead: dict[int, int] = field(factory=dict)
    counted: int | None = None
    hurried: bool = False
    not_before: float = 0.0
    request: str = ""
    intent: Intent | None = None

    @property
    def confirmed(self) -> int:
        """Bytes from the start that the remote has confirmed."""
        return self.replica.confirmed

    @property
    def has_work(self) -> bool:
        """Whether a transfer would find something to do, now or after the pause before the next try."""
        upload = self.upload
        if self.replica.state is ReplicaState.ENDING:
            return True
        if upload is None or upload.gone or self.replica.state is not ReplicaState.OPEN:
            return False
        if upload.finished or self.plan is None:
            return upload.finished or (upload.offset > 0 and self.intent is None)
        try:
            return self.part_from(self.confirmed) is not None
        except ObjectTooLarge:  # the transfer will find out
            return True

    @property
    def needs_initiating(self) -> bool:
        """Whether the remote has yet to learn of the upload, or of its length."""
        assert self.upload is not None
        return not self.initiated or self.initiated_length != self.upload.length

    def part_from(self, start: int) -> Part | None:
        """The first part at or behind ``start`` that may be written now and isn't confirmed."""
        upload = self.upload
        if upload is None or self.plan is None:
            return None
        for part in self.plan.parts_within(upload.offset, upload.length, upload.finished, start):
            if not part.size or part.end <= start:  # nothing to write, or nothing that the plan has room for
                return None
            if not self.whole_parts and part.offset < start:
                part = Part(part.number, start, part.end - start)
            if part.offset not in self.ahead:
                return part
        return None

    def confirm(self, part: Part) -> int:
        """The remote has this part, so its failures are over. Answers by how many bytes ``confirmed`` has moved."""
        confirmed = self.confirmed
        if part.offset <= confirmed:
            confirmed = max(confirmed, part.end)
        else:
            self.ahead[part.offset] = part.end
        moved = self.set_confirmed(self._past_gaps(confirmed))
        self.replica = evolve(self.replica, attempts=0, error=None, retry_at=None, failing_since=None)
        return moved

    def set_confirmed_parts(self, parts: Sequence[Part], run: str) -> int:
        """The remote has exactly these parts; those past the committed offset don't count. Answers as `confirm`."""
        assert self.upload is not None
        committed = self.upload.offset
        self.ahead = {part.offset: part.end for part in parts if part.end <= committed}
        return self.set_confirmed(self._past_gaps(0), run)

    def set_confirmed(self, confirmed: int, run: str | None = None) -> int:
        """So many bytes are confirmed, as this ``run`` has found out. Answers by how many more that is (or fewer)."""
        moved = confirmed - self.confirmed
        self.replica = evolve(self.replica, confirmed=confirmed, run=self.replica.run if run is None else run)
        return moved

    def distrust(self) -> None:
        """Ask the remote for its progress before anything is sent."""
        self.ahead.clear()
        self.intent = None
        self.replica = evolve(self.replica, run="")

    def start_over(self, run: str) -> int:
        """The remote has nothing: all has to be written again. Answers as `set_confirmed`."""
        self.ahead.clear()
        self.initiated = False
        self.intent = None
        return self.set_confirmed(0, run)

    def failed(self, replica: Replica, not_before: float) -> None:
        """A transfer failed. ``replica`` says when it is tried again, ``not_before`` when at the earliest."""
        self.replica, self.not_before, self.hurried = replica, not_before, False

    def pause(self, now: float) -> float:
        """Seconds until the next try; 0 or less: it may be now."""
        at = self.not_before if self.hurried else self.replica.retry_at
        return 0.0 if at is None else at - now

    def for_catalog(self) -> Replica:
        """The replica as it is to be recorded, with the committed offset that it ``needs`` before it has work again."""
        self.replica = evolve(self.replica, needs=self._needs())
        return self.replica

    def _needs(self) -> int:
        """Below this the upload has nothing to send before it is finished."""
        upload, plan = self.upload, self.plan
        if plan is None or upload is None:
            return self.replica.needs
        if upload.length is None:
            return max(plan.part_at(self.confirmed).end, plan.first_size + 1)
        part = plan.part_at(self.confirmed, upload.length)
        return part.end + plan.waits(part, upload.length)

    def _past_gaps(self, confirmed: int) -> int:
        while confirmed in self.ahead:
            confirmed = self.ahead.pop(confirmed)
        return confirmed


class ReplicaCache:
    """The replicas of one remote that are remembered; others are read from the catalog.

    ``lag`` gets the bytes that are committed and not confirmed; None: they are not counted.
    """

    def __init__(self, remote: str, context: ReplicationContext, lag: Lag | None) -> None:
        self._remote = remote
        self._replicas = context.replicas
        self._lag = lag
        self._progress: OrderedDict[str, ReplicaProgress | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._progress)

    def get(self, upload_id: str) -> ReplicaProgress | None:
        """The replica's progress; None: it isn't remembered, or the upload has no replica in this remote."""
        return self._progress.get(upload_id)

    def lacks(self, upload_id: str) -> bool:
        """Whether the upload is known to have no replica in this remote."""
        return upload_id in self._progress and self._progress[upload_id] is None

    def remember(self, upload_id: str, progress: ReplicaProgress | None) -> None:
        """Remember it; None: the upload has no replica in this remote."""
        self._progress[upload_id] = progress
        self._progress.move_to_end(upload_id)
        if len(self._progress) > REMEMBERED:
            self._progress.popitem(last=False)

    def forget(self, upload_id: str, progress: ReplicaProgress | None = None) -> None:
        """Forget it, and take its missing bytes out of the lag. ``progress``: that of an upload that isn't
        remembered."""
        progress = self._progress.pop(upload_id, None) or progress
        if self._lag is not None and progress is not None and progress.counted is not None:
            self._lag.move(min(0, progress.confirmed - progress.counted))

    def read(self, replica: Replica, upload: Upload | None) -> ReplicaProgress:
        """Remember the catalog's row; for a replica that no transfer works on."""
        progress = self.get(replica.upload_id) or ReplicaProgress(replica, replica)
        progress.replica = progress.saved = replica
        if upload is not None:
            self.committed(progress, upload)
        self.remember(replica.upload_id, progress)
        return progress

    async def ask(self, upload_id: str) -> ReplicaProgress | None:
        """The progress with its upload, from the catalog if need be; None: there is no replica in this remote.

        Raises CatalogUnavailable.
        """
        progress = self.get(upload_id)
        if progress is not None and progress.upload is not None:
            return progress
        found = await self._replicas.own(upload_id, self._remote)
        if found is None:
            self.remember(upload_id, None)
            return None
        return self.read(*found)

    def committed(self, progress: ReplicaProgress, upload: Upload) -> None:
        """The upload has more bytes than before, or has finished: the new bytes are part of the lag."""
        if self._lag is not None and progress.counted is not None and upload.offset > progress.counted:
            self._lag.move(upload.offset - progress.counted)
        progress.counted = max(progress.counted or 0, upload.offset)
        progress.upload = fresher(progress.upload, upload)

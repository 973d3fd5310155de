"""What this process knows of one replica.

One reason to change: which bytes go next. No I/O.

Invariant: it says nothing that the catalog's row doesn't, but what a crash may forget: a standing may be thrown away
between two turns at any time, and is then made from the row again.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, evolve, field

from resumable.model.upload import Replica, ReplicaState, Upload
from resumable.remotes.interfaces import Part, Plan
from resumable.remotes.plan import ObjectTooLarge


def fresher(one: Upload | None, other: Upload | None) -> Upload | None:
    """Of two records of the same upload the one that is more recent."""
    if one is None or other is None:
        return other if one is None else one
    return max(
        other, one, key=lambda each: (each.gone is not None, each.finished, each.offset, each.length is not None)
    )


@define(eq=False)
class Standing:
    """``saved`` is what the catalog has of ``replica``. ``upload`` is None while nothing is to be done.

    ``whole_parts``: the remote takes parts of its plan only. ``told``: `initiate_upload` was called in this process,
    with ``told_length``. ``ahead``: confirmed behind a gap, ends by offsets. ``counted``: the committed bytes that
    have gone into the lag. ``hurried``: the pause before the next try is only what the store asked for, which is over
    at ``not_before``. ``request``: the client's latest request that it got bytes from, if that is known.
    """

    replica: Replica
    saved: Replica
    upload: Upload | None = None
    plan: Plan | None = None
    whole_parts: bool = False
    told: bool = False
    told_length: int | None = None
    ahead: dict[int, int] = field(factory=dict)
    counted: int | None = None
    hurried: bool = False
    not_before: float = 0.0
    request: str = ""

    @property
    def confirmed(self) -> int:
        return self.replica.confirmed

    @property
    def has_work(self) -> bool:
        """Whether a turn would find something to do, now or after the replica's pause."""
        upload = self.upload
        if self.replica.state is ReplicaState.ENDING:
            return True
        if upload is None or upload.gone or self.replica.state is not ReplicaState.OPEN:
            return False
        if upload.finished or self.plan is None:
            return upload.finished or upload.offset > 0
        try:
            return self.part_from(self.confirmed) is not None
        except ObjectTooLarge:  # the turn will find out
            return True

    @property
    def untold(self) -> bool:
        """Whether the remote has to be told of the upload, or of its length."""
        assert self.upload is not None
        return not self.told or self.told_length != self.upload.length

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
        """The remote has this part. Answers by how much that moved ``confirmed``; what had failed is over."""
        confirmed = self.confirmed
        if part.offset <= confirmed:
            confirmed = max(confirmed, part.end)
        else:
            self.ahead[part.offset] = part.end
        moved = self.believe(self._past_gaps(confirmed))
        self.replica = evolve(self.replica, attempts=0, error=None, retry_at=None, failing_since=None)
        return moved

    def learn(self, parts: Sequence[Part], run: str) -> int:
        """The remote has just these parts; what is past the committed offset counts for nothing."""
        assert self.upload is not None
        committed = self.upload.offset
        self.ahead = {part.offset: part.end for part in parts if part.end <= committed}
        return self.believe(self._past_gaps(0), run)

    def believe(self, confirmed: int, run: str | None = None) -> int:
        """So many bytes are confirmed. Answers by how much that is more, or less, than before."""
        moved = confirmed - self.confirmed
        self.replica = evolve(self.replica, confirmed=confirmed, run=self.replica.run if run is None else run)
        return moved

    def doubt(self) -> None:
        """The remote has to be asked what it has."""
        self.ahead.clear()
        self.replica = evolve(self.replica, run="")

    def begin_anew(self, run: str) -> int:
        """The remote has nothing: all has to be written again. Answers as `believe`."""
        self.ahead.clear()
        self.told = False
        return self.believe(0, run)

    def settled(self) -> Replica:
        """The replica with the committed offset that it ``needs``, for the catalog."""
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

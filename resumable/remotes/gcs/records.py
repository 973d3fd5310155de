"""What is kept of each upload in the journal.

One reason to change: what must outlive the process. Invariant: key and plan never change while a replica is open,
properties only where the store refuses them; what the store is about to be asked for is there before it is asked, but
for a session, whose name only the store gives. A session's URI is a secret: whoever has it may write, so it has no
representation.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve, field, frozen

from resumable.remotes import journaled
from resumable.remotes.gcs import objects
from resumable.remotes.interfaces import IJournal, Plan, Stored
from resumable.remotes.records import State


def _closing(plan: Plan) -> Plan:
    """A session makes its object at once when it has as many bytes as it was told."""
    return evolve(plan, closing=True)


@frozen
class Record:
    """One upload's replica. PLACING: the request that finishes the object may have been done.

    ``confirmed``: bytes, up to the end of a part, that the store has; ``crc``: their CRC32C.
    """

    key: str
    plan: Plan = field(converter=_closing)
    resource: dict[str, Any]
    state: State = State.OPEN
    size: int | None = None
    session: str | None = field(default=None, repr=False)
    confirmed: int = 0
    crc: int = 0
    stored: Stored | None = None

    def sized(self, size: int | None) -> Record:
        """With the size that was given now. Raises ValueError if it was another before."""
        if size is None or size == self.size:
            return self
        if self.size is not None or size < self.confirmed:
            raise ValueError(f"the size was {self.size}, {self.confirmed} are there, and now it is {size}")
        return evolve(self, size=size)

    def plainer(self) -> Record | None:
        """See `resumable.remotes.plainer.Plain`."""
        resource = objects.plainer(self.resource)
        return None if resource is None else evolve(self, resource=resource)

    def anew(self) -> Record:
        """Before anything was written."""
        return evolve(self, state=State.OPEN, session=None, confirmed=0, crc=0)


class Records(journaled.Records[Record]):
    """The records in a journal."""

    def __init__(self, journal: IJournal) -> None:
        super().__init__(Record, journal)

"""What is kept of each upload in the journal.

One reason to change: what must outlive the process. Invariant: key and plan never change while a replica is
open, properties only where the store refuses them; what the store is about to be asked for is there before it is asked.
Blocks aren't counted here: the store lists them, by names that say what they hold.
"""

from __future__ import annotations

import enum

from attrs import evolve, field, frozen

from resumable.remotes import journaled
from resumable.remotes.azure import properties
from resumable.remotes.interfaces import IJournal, Plan, Stored
from resumable.remotes.records import State
from resumable.remotes.turns import Turns


class Blocks(enum.Enum):
    """NONE: no block was asked for. ASKED: there may be some. THERE: one at least was confirmed."""

    NONE = "none"
    ASKED = "asked"
    THERE = "there"


@frozen
class Record:
    """One upload's replica. PLACING: a Put Block List may have happened. ``properties``: see `properties_for`."""

    key: str
    plan: Plan
    properties: dict[str, str]
    state: State = State.OPEN
    blocks: Blocks = field(default=Blocks.NONE, converter=Blocks)
    size: int | None = None
    stored: Stored | None = None

    def sized(self, size: int | None) -> Record:
        """With the size that was given now. Raises ValueError if it was another before."""
        if size is None or size == self.size:
            return self
        if self.size is not None:
            raise ValueError(f"the size was {self.size}, now it is {size}")
        return evolve(self, size=size)

    def plainer(self) -> Record | None:
        """See `resumable.remotes.plainer.Plain`."""
        left = properties.plainer(self.properties)
        return None if left is None else evolve(self, properties=left)


class Records(journaled.Records[Record]):
    """The records in a journal; one change at a time for each upload."""

    def __init__(self, journal: IJournal) -> None:
        super().__init__(Record, journal)
        self.alone = Turns().alone

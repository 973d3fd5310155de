"""What is kept of each upload in the journal.

One reason to change: what must outlive the process. Invariant: key, plan and properties never change while a replica
is open; what the store is about to be asked for is there before it is asked. Blocks aren't counted here: the store
lists them, by names that say what they hold.
"""

from __future__ import annotations

import enum

from attrs import asdict, evolve, frozen

from resumable.remotes.interfaces import IJournal, NotThere, Plan, Stored
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
    blocks: Blocks = Blocks.NONE
    size: int | None = None
    stored: Stored | None = None

    def sized(self, size: int | None) -> Record:
        """With the size that was given now. Raises ValueError if it was another before."""
        if size is None or size == self.size:
            return self
        if self.size is not None:
            raise ValueError(f"the size was {self.size}, now it is {size}")
        return evolve(self, size=size)


class Records:
    """The records in a journal; one change at a time for each upload."""

    def __init__(self, journal: IJournal) -> None:
        self._journal = journal
        self.alone = Turns().alone

    async def load(self, upload_id: str) -> Record | None:
        """The record; None if there was none. Raises ValueError for what isn't one."""
        value = await self._journal.load(upload_id)
        if value is None:
            return None
        try:
            value["stored"] = Stored(**value["stored"]) if value["stored"] else None
            value["plan"], value["state"] = Plan.from_json(value["plan"]), State(value["state"])
            value["blocks"] = Blocks(value["blocks"])
            return Record(**value)
        except (KeyError, TypeError) as error:
            raise ValueError("not a replica's record") from error

    async def started(self, upload_id: str) -> Record:
        """The record of an upload that was initiated and not aborted. Raises NotThere."""
        record = await self.load(upload_id)
        if record is None or record.state is State.OVER:
            raise NotThere("the upload was not initiated here")
        return record

    async def save(self, upload_id: str, record: Record) -> Record:
        """Make it durable; answers it."""
        value = asdict(record, recurse=False)
        value.update(
            plan=record.plan.to_json(),
            state=record.state.value,
            blocks=record.blocks.value,
            stored=asdict(record.stored) if record.stored else None,
        )
        await self._journal.save(upload_id, value)
        return record

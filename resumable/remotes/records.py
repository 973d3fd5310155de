"""What a backend without needs of its own keeps in its journal for each upload.

One reason to change: what must outlive the process. Invariant: key, plan and handle never change while a replica is
open; a size, once known, never does.
"""

from __future__ import annotations

import enum
from typing import Any

from attrs import asdict, evolve, frozen

from resumable.remotes.interfaces import IJournal, NotThere, OutOfStep, Plan, Stored


class State(enum.Enum):
    """OPEN: parts may be there. PLACING: being finalised, so the object may be there. OVER: aborted or deleted."""

    OPEN = "open"
    PLACING = "placing"
    STORED = "stored"
    OVER = "over"


@frozen
class Record:
    """One upload's replica. ``handle`` is the store's name for what is unfinished; ``confirmed`` counts bytes."""

    key: str
    state: State = State.OPEN
    size: int | None = None
    handle: str = ""
    confirmed: int = 0
    plan: Plan | None = None
    stored: Stored | None = None

    def sized(self, size: int | None) -> Record:
        """With the size that was given now. Raises ValueError if it was another before."""
        if size is None or size == self.size:
            return self
        if self.size is not None or size < self.confirmed:
            raise ValueError(f"the size was {self.size}, {self.confirmed} are there, and now it is {size}")
        return evolve(self, size=size)

    def known_size(self) -> int:
        """The size; raises OutOfStep while it isn't known."""
        if self.size is None:
            raise OutOfStep("the size of the upload was never given")
        return self.size


async def load(journal: IJournal, upload_id: str) -> Record | None:
    """The record; None if there was none. Raises ValueError for what isn't one."""
    value = await journal.load(upload_id)
    if value is None:
        return None
    try:
        value["state"] = State(value["state"])
        value["plan"] = Plan.from_json(value["plan"]) if value["plan"] else None
        value["stored"] = Stored(**value["stored"]) if value["stored"] else None
        return Record(**value)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a replica's record: {value!r}") from error


async def load_started(journal: IJournal, upload_id: str) -> Record:
    """The record of an upload that was initiated and not aborted. Raises NotThere."""
    record = await load(journal, upload_id)
    if record is None or record.state is State.OVER:
        raise NotThere("the upload was not initiated here")
    return record


async def save(journal: IJournal, upload_id: str, record: Record) -> None:
    """Make the record durable."""
    value: dict[str, Any] = {
        "key": record.key,
        "state": record.state.value,
        "size": record.size,
        "handle": record.handle,
        "confirmed": record.confirmed,
        "plan": record.plan.to_json() if record.plan else None,
        "stored": asdict(record.stored) if record.stored else None,
    }
    await journal.save(upload_id, value)

"""What is kept of each upload in the journal.

One reason to change: what must outlive the process. Invariant: key, plan and the checksum's algorithm never change
while a replica is open, headers only where the store refuses them; what the store is about to be asked for is there
before it is asked.
"""

from __future__ import annotations

import json

from attrs import evolve, field, frozen

from resumable.remotes import journaled
from resumable.remotes.interfaces import IJournal, IPartJournal, Plan, Stored
from resumable.remotes.records import State
from resumable.remotes.s3 import objects
from resumable.remotes.s3.answers import ListedPart
from resumable.remotes.turns import Turns


@frozen
class Record:
    """One upload's replica. PLACING: a CompleteMultipartUpload may have happened.

    ``multipart``: the store's upload id; empty: it was asked for, the answer isn't known; None: it was not.
    ``headers`` come from the upload's metadata. ``parts`` is used only with a journal that has no place for parts.
    """

    key: str
    plan: Plan
    headers: dict[str, str]
    checksum: str
    full_object: bool
    state: State = State.OPEN
    size: int | None = None
    multipart: str | None = None
    stored: Stored | None = None
    parts: dict[str, str] = field(factory=dict)

    def sized(self, size: int | None) -> Record:
        """With the size that was given now. Raises ValueError if it was another before."""
        if size is None or size == self.size:
            return self
        if self.size is not None:
            raise ValueError(f"the size was {self.size}, now it is {size}")
        return evolve(self, size=size)

    def plainer(self) -> Record | None:
        """See `resumable.remotes.plainer.Plain`."""
        headers = objects.plainer(self.headers)
        return None if headers is None else evolve(self, headers=headers)

    def without_multipart(self) -> Record:
        """Before anything was written."""
        return evolve(self, state=State.OPEN, multipart=None, parts={})


class Records(journaled.Records[Record]):
    """The records in a journal; one change at a time for each upload."""

    def __init__(self, journal: IJournal) -> None:
        super().__init__(Record, journal)
        self._part_journal = journal if IPartJournal.providedBy(journal) else None
        self.alone = Turns().alone

    async def save_part(self, upload_id: str, multipart: str, part: ListedPart) -> None:
        """Remember what the store has confirmed for this multipart."""
        value = json.dumps([part.size, part.etag, part.checksum, multipart], separators=(",", ":"))
        if self._part_journal is not None:
            await self._part_journal.save_part(upload_id, part.number, value)
            return

        async def add() -> None:
            record = await self.started(upload_id)
            await self.save(upload_id, evolve(record, parts={**record.parts, str(part.number): value}))

        await self.alone(upload_id, add)

    async def parts(self, upload_id: str, record: Record) -> dict[int, ListedPart]:
        """What was saved for the parts of the record's multipart."""
        found: dict[int, str] = {int(number): value for number, value in record.parts.items()}
        if self._part_journal is not None:
            found = await self._part_journal.load_parts(upload_id)
        known = {}
        for number, value in found.items():
            size, etag, checksum, multipart = json.loads(value)
            if multipart == record.multipart:
                known[number] = ListedPart(number, size, etag, checksum)
        return known

    async def drop_parts(self, upload_id: str) -> None:
        """Forget them, where they aren't in the record."""
        if self._part_journal is not None:
            await self._part_journal.drop_parts(upload_id)

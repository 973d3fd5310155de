"""Records of replicas in a journal, and a journal in memory, for tests and for tools that need not survive.

Invariant: records of one upload are changed one at a time, in the order in which that was asked for. Values go in and
out of the journal in memory as JSON, so that nothing gets through that a database would not keep, and nobody shares a
value with it.
"""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from attrs import AttrsInstance, evolve, fields, frozen
from twisted.internet.defer import Deferred, DeferredLock, succeed
from zope.interface import implementer

from resumable.remotes.interfaces import IJournal, IPartJournal, NotThere, OutOfStep, Plan, Stored


@implementer(IPartJournal)
class MemoryJournal:
    """It outlives a remote that is made anew over it, as a database outlives the process. ``saves`` counts."""

    def __init__(self) -> None:
        self.saves = 0
        self._values: dict[str, str] = {}
        self._parts: dict[str, dict[int, str]] = {}

    def load(self, upload_id: str) -> Deferred[dict[str, Any] | None]:
        """See IJournal."""
        value = self._values.get(upload_id)
        return succeed(None if value is None else json.loads(value))

    def save(self, upload_id: str, value: Mapping[str, Any]) -> Deferred[None]:
        """See IJournal."""
        self.saves += 1
        self._values[upload_id] = json.dumps(dict(value))
        return succeed(None)

    def save_part(self, upload_id: str, number: int, value: str) -> Deferred[None]:
        """See IPartJournal."""
        self.saves += 1
        self._parts.setdefault(upload_id, {})[number] = value
        return succeed(None)

    def load_parts(self, upload_id: str) -> Deferred[dict[int, str]]:
        """See IPartJournal."""
        return succeed(dict(self._parts.get(upload_id, {})))

    def drop_parts(self, upload_id: str) -> Deferred[None]:
        """See IPartJournal."""
        self._parts.pop(upload_id, None)
        return succeed(None)


class Stage(enum.Enum):
    """OPEN: parts may be there. PLACING: being finalised, so the object may be there. OVER: aborted or deleted."""

    OPEN = "open"
    PLACING = "placing"
    STORED = "stored"
    OVER = "over"


def agreed_size(known: int | None, size: int | None, confirmed: int = 0) -> int | None:
    """The size that is known now that ``size`` was given. Raises ValueError if it was another, or is too small."""
    if size is None or size == known:
        return known
    if known is not None or size < confirmed:
        raise ValueError(f"the size was {known}, {confirmed} are there, and now it is {size}")
    return size


@frozen
class ReplicaRecord:
    """One upload's replica. ``handle`` is the store's name for the unfinished object; ``confirmed`` counts bytes."""

    key: str
    state: Stage = Stage.OPEN
    size: int | None = None
    handle: str = ""
    confirmed: int = 0
    plan: Plan | None = None
    stored: Stored | None = None

    def sized(self, size: int | None) -> ReplicaRecord:
        """With the size that was given now. See `agreed_size`."""
        return evolve(self, size=agreed_size(self.size, size, self.confirmed))

    def known_size(self) -> int:
        """The size; raises OutOfStep while it isn't known."""
        if self.size is None:
            raise OutOfStep("the size of the upload was never given")
        return self.size


class KeptRecord(AttrsInstance, Protocol):
    """An attrs class with the fields ``plan`` (Plan or None), ``state`` and ``stored`` (Stored or None).

    Its other values are JSON, or enums whose field converts them back.
    """

    @property
    def state(self) -> Stage:
        """How far the replica has come."""


R = TypeVar("R", bound=KeptRecord)
T = TypeVar("T")


class ReplicaRecords(Generic[R]):
    """The records of one kind in a journal."""

    def __init__(self, kind: Callable[..., R], journal: IJournal) -> None:
        self._kind = kind
        self._journal = journal
        self._locks: dict[str, tuple[DeferredLock, int]] = {}

    async def load(self, upload_id: str) -> R | None:
        """The record; None if there was none. Raises ValueError for a value that is no record."""
        value = await self._journal.load(upload_id)
        if value is None:
            return None
        try:
            stored, plan, state = value.pop("stored", None), value.pop("plan"), Stage(value.pop("state"))
            return self._kind(
                **value,
                plan=Plan.from_json(plan) if plan else None,
                state=state,
                stored=Stored(**stored) if stored else None,
            )
        except (KeyError, TypeError):
            raise ValueError("not a replica's record") from None

    async def started(self, upload_id: str) -> R:
        """The record of an upload that was initiated and not aborted. Raises NotThere."""
        record = await self.load(upload_id)
        if record is None or record.state is Stage.OVER:
            raise NotThere("the upload was not initiated here")
        return record

    async def save(self, upload_id: str, record: R) -> R:
        """Make it durable; answers it."""
        await self._journal.save(upload_id, self.value(record))
        return record

    def value(self, record: R) -> dict[str, Any]:
        """The record as the journal keeps it."""
        values = {name: getattr(record, name) for name in _names(type(record))}
        return {name: value if type(value) in _JSON else _written(value) for name, value in values.items()}

    async def alone(self, upload_id: str, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> T:
        """Do the work while nobody else changes this upload's record. Nothing is kept of uploads without work."""
        lock, users = self._locks.get(upload_id, (DeferredLock(), 0))
        self._locks[upload_id] = lock, users + 1
        try:
            await lock.acquire()
            try:
                return await work()
            finally:
                lock.release()
        finally:
            lock, users = self._locks.pop(upload_id)
            if users > 1:
                self._locks[upload_id] = lock, users - 1


_JSON = {str, int, bool, dict, type(None)}


@functools.cache
def _names(kind: type[AttrsInstance]) -> Sequence[str]:
    return [each.name for each in fields(kind)]


def _written(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    return value.to_json() if isinstance(value, Plan | Stored) else value

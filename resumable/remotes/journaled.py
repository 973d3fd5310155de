"""Records of a backend's own kind, in its journal.

One reason to change: how what all such records hold is written down. Invariant: a record that is read back equals the
one that was saved; what isn't one is a ValueError that quotes nothing of it, since it may hold secrets.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from attrs import Attribute, AttrsInstance, asdict

from resumable.remotes.interfaces import IJournal, NotThere, Plan, Stored
from resumable.remotes.records import State


class Kept(AttrsInstance, Protocol):
    """An attrs class with the fields ``plan`` (Plan), ``state`` and ``stored`` (Stored or None). Its other values are
    JSON, or enums whose field converts them back."""

    @property
    def state(self) -> State:
        """What the replica has come to."""


R = TypeVar("R", bound=Kept)


class Records(Generic[R]):
    """The records of one kind in a journal."""

    def __init__(self, kind: Callable[..., R], journal: IJournal) -> None:
        self._kind = kind
        self._journal = journal

    async def load(self, upload_id: str) -> R | None:
        """The record; None if there was none. Raises ValueError for what isn't one."""
        value = await self._journal.load(upload_id)
        if value is None:
            return None
        try:
            stored = value.pop("stored", None)
            plan, state = Plan.from_json(value.pop("plan")), State(value.pop("state"))
            return self._kind(**value, plan=plan, state=state, stored=Stored(**stored) if stored else None)
        except (KeyError, TypeError):
            raise ValueError("not a replica's record") from None

    async def started(self, upload_id: str) -> R:
        """The record of an upload that was initiated and not aborted. Raises NotThere."""
        record = await self.load(upload_id)
        if record is None or record.state is State.OVER:
            raise NotThere("the upload was not initiated here")
        return record

    async def save(self, upload_id: str, record: R) -> R:
        """Make it durable; answers it."""
        await self._journal.save(upload_id, asdict(record, recurse=False, value_serializer=_written))
        return record


def _written(record: type, field: Attribute[Any], value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Plan):
        return value.to_json()
    return asdict(value) if isinstance(value, Stored) else value

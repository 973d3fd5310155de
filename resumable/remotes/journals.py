"""A journal in memory, for tests and for tools that need not survive.

One reason to change: what `IPartJournal` asks. Invariant: values go in and out as JSON, so that nothing gets through
here that a database would not keep, and nobody shares a value with the journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.remotes.interfaces import IPartJournal


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

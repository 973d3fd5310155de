"""Letters become events.

One reason to change: what of an event is read from its letter. Pure.

Invariant: the same letter always gives the same event, and no other letter of this catalog gives one with its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resumable.hooks.fair import owner
from resumable.hooks.interfaces import Event, EventKind
from resumable.model.hooks import from_data
from resumable.model.outbox import Letter


def event_of(letter: Letter) -> Event:
    """The event that this letter tells of."""
    fact = letter.fact
    upload, request, details = from_data(fact.upload_id, fact.data)
    key = f"evt_{fact.upload_id}_{fact.kind.value}_{letter.seq}"
    return Event(key, EventKind(fact.kind.value), fact.at, upload, request, details)


def owner_of(letter: Letter) -> str:
    """Whose it is, as `owner` says."""
    data: Mapping[str, Any] = letter.fact.data  # not all of it is read: this is asked of each that only waits, too
    return owner(data.get("identity"), data.get("request", {}).get("address", ""))

"""Letters become events.

One reason to change: how an event's id is made. Pure.

Invariant: the same letter always gives the same event, and no other letter of this catalog gives one with its id.
"""

from __future__ import annotations

from resumable.events.interfaces import Event, EventKind
from resumable.hooks import from_data
from resumable.letters import Letter


def event_of(letter: Letter) -> Event:
    """The event that this letter tells of."""
    fact = letter.fact
    upload, request, details = from_data(fact.upload_id, fact.data)
    key = f"evt_{fact.upload_id}_{fact.kind.value}_{letter.seq}"
    return Event(key, EventKind(fact.kind.value), fact.at, upload, request, details)

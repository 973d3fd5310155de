"""Events that were given up, for operators: shown, and sent on their way again.

Reason to change: what of them is shown. Invariant: nothing of a request's headers is, as they may be secrets. Times are
RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from resumable.http.answers import written
from resumable.model.outbox import IOutbox, OutboxEvent
from resumable.protocol.errors import BadRequest, NotFound

AT_ONCE = 100


class DeadEvents:
    """``hooks``: whose letters are in the outbox. ``wake``: those that were dead wait again."""

    def __init__(self, outbox: IOutbox, hooks: Sequence[str], wake: Callable[[], None]) -> None:
        self._outbox = outbox
        self._hooks = hooks
        self._wake = wake

    async def summary(self) -> dict[str, Any]:
        """How many wait and are dead, for each hook."""
        found = {}
        for hook in self._hooks:
            depth = await self._outbox.depth(hook)
            found[hook] = {"waiting": depth.waiting, "dead": depth.dead, "oldest": written(depth.oldest)}
        return {"hooks": found}

    async def listed(self, hook: str, after: str) -> dict[str, Any]:
        """The next `AT_ONCE` dead ones behind the number ``after``. Raises NotFound, BadRequest."""
        self._check(hook)
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise BadRequest("after is the number of an event.")
        letters = await self._outbox.dead(hook, int(after), AT_ONCE)
        more = letters[-1].seq if len(letters) == AT_ONCE else None
        return {"dead": [_shown(letter) for letter in letters], "next": more}

    async def replay(self, hook: str) -> dict[str, Any]:
        """All of them wait again. Raises NotFound."""
        self._check(hook)
        count = await self._outbox.replay(hook, None)
        self._wake()
        return {"replayed": count}

    def _check(self, hook: str) -> None:
        if hook not in self._hooks:
            raise NotFound("There is no such hook.")


def _shown(letter: OutboxEvent) -> dict[str, Any]:
    return {
        "seq": letter.seq,
        "upload": letter.fact.upload_id,
        "event": letter.fact.kind.value,
        "time": written(letter.fact.at),
        "attempts": letter.attempts,
        "error": letter.error,
        "dead_since": written(letter.dead_at),
    }

"""How the daemon stops: step by step, the way of the data.

Reason to change: what becomes of a step that fails. Invariant: whatever one step does, those after it are taken, so
that no thread outlives the stop and keeps the process from ending.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from twisted.logger import Logger

log = Logger()

Step = Callable[[], object]
"""Done when it returns; or, if it gives something to wait for, when that is."""


async def take_all(steps: Iterable[Step]) -> bool:
    """Take one after the other. What fails is logged. Whether none did."""
    good = True
    for step in steps:
        try:
            outcome = step()
            if isinstance(outcome, Awaitable):
                await outcome
        except Exception:
            good = False
            log.failure("a step of stopping failed; the others are taken all the same")
    return good

"""Draining: no upload begins, those that have begun go on.

Reason to change: what may still begin. Invariant: nobody who has begun an upload is turned away for it: not an append,
not the final upload of partial ones. It isn't kept: a daemon that starts drains nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from resumable.protocol.errors import Unavailable

RETRY_AFTER = 5
"""Seconds that clients are to wait: by then a balancer has noticed, and sends them elsewhere."""


class Drain:
    """``since``: when it began (seconds since the epoch); None: uploads may begin."""

    def __init__(self) -> None:
        self.since: float | None = None

    def begin(self, wall: Callable[[], float]) -> None:
        """Again changes nothing."""
        if self.since is None:
            self.since = wall()

    def end(self) -> None:
        """Uploads may begin."""
        self.since = None

    def check(self) -> None:
        """Raises Unavailable while no upload may begin."""
        if self.since is not None:
            raise Unavailable("No uploads begin here at the moment; try again, perhaps elsewhere.", RETRY_AFTER)

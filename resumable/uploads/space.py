"""Room on the spool's disk, known without asking the disk for every byte.

Invariant: between two looks at the disk, what was let in is subtracted from what the last look found, so the
reserve is kept at any speed.
"""

from __future__ import annotations

from resumable.protocol.errors import NoSpace
from resumable.spool.files import Spool


class Space:
    """Free bytes above the operator's reserve. A reserve of 0 leaves the judgement to the disk itself."""

    def __init__(self, reserve: int) -> None:
        self.reserve = reserve
        #: Bytes that may still come in before the reserve is touched, as far as known.
        self.room: float = float("inf")

    async def look(self, spool: Spool) -> None:
        """Ask the disk. Raises OSError when it won't tell."""
        if self.reserve:
            self.room = await spool.free() - self.reserve

    def admit(self) -> None:
        """Raises NoSpace when the reserve is reached."""
        if self.room <= 0:
            raise NoSpace()

    @property
    def scarce(self) -> bool:
        """Whether less than another reserve is left: what is only a cache may go."""
        return self.room < self.reserve

    def spend(self, size: int) -> bool:
        """Note that ``size`` bytes came in; False when that reaches into the reserve."""
        self.room -= size
        return self.room > 0

"""Room on the spool's disk, known without asking the disk for every byte.

Invariant: between two looks at the disk, what was let in is subtracted from what the last look found, so the
reserve is kept at any speed; and what was claimed for a copy is nobody else's until it is written or given up.
"""

from __future__ import annotations

from resumable.protocol.errors import NoSpace
from resumable.spool.files import Spool


class Space:
    """Free bytes above the operator's reserve. A reserve of 0 leaves the judgement of appends to the disk itself."""

    def __init__(self, reserve: int) -> None:
        self.reserve = reserve
        #: Bytes that may still come in before the reserve is touched, as far as known.
        self.room: float = float("inf")
        self._claimed = 0

    async def look(self, spool: Spool) -> None:
        """Ask the disk. Raises OSError when it won't tell."""
        if self.reserve:
            self.room = await spool.free() - self.reserve - self._claimed

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

    async def claim(self, spool: Spool, size: int) -> Claim:
        """Room for a copy, as the disk says at this moment. Raises NoSpace unless all of it fits; OSError."""
        if not size:
            return Claim(self, 0)
        room = await spool.free() - self.reserve - self._claimed
        if self.reserve:
            self.room = room
        if size > room:
            raise NoSpace()
        return Claim(self, size)


class Claim:
    """Room that is kept for one copy. ``left``: bytes that it has not written yet."""

    def __init__(self, space: Space, size: int) -> None:
        self._space = space
        self.left = size
        space._claimed += size
        space.room -= size

    def check(self, size: int) -> None:
        """Raises NoSpace when others than us have taken so much that the next ``size`` bytes don't fit."""
        if self._space.room + self.left < min(size, self.left):
            raise NoSpace()

    def spend(self, size: int) -> None:
        """So many bytes of it are written: the next look at the disk sees them."""
        self._space._claimed -= size
        self.left -= size

    def release(self) -> None:
        """Nothing more will be written. May be repeated."""
        self._space._claimed -= self.left
        self._space.room += self.left
        self.left = 0

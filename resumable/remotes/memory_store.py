"""What a store in memory holds.

One reason to change: what a test wants to see in a store. Invariant: it changes only by what a remote or a test does
to it; remotes that are made anew over it find all that the last one left.
"""

from __future__ import annotations

from attrs import define, field, frozen


@frozen
class Object:
    """What the store has under a key; ``upload_id`` is its metadata (None: somebody else's)."""

    data: bytes
    upload_id: str | None = None


@define
class Open:
    """Something unfinished. ``head`` bytes are confirmed, or the parts with these numbers."""

    key: str
    upload_id: str
    started_at: float
    content: bytearray = field(factory=bytearray)
    head: int = 0
    parts: set[int] = field(factory=set)

    def put(self, offset: int, data: bytes) -> None:
        """Write, which confirms nothing."""
        if len(self.content) < offset:
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(data)] = data


@define
class MemoryStore:
    """``objects`` by key, ``unfinished`` by handle; both are a test's to read and change."""

    objects: dict[str, Object] = field(factory=dict)
    unfinished: dict[str, Open] = field(factory=dict)
    handles: int = 0

    def next_handle(self) -> str:
        """A name that was never used."""
        self.handles += 1
        return f"{self.handles:08}"

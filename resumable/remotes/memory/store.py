"""A store in memory: its objects, and the faults that a test puts into it.

Invariant: only a remote or a test changes it; a new remote over it finds everything that the
last one left. A fault strikes exactly the calls that it was meant for, so a test that is run again sees the same.
"""

from __future__ import annotations

from attrs import define, evolve, field, frozen


@frozen
class MemoryObject:
    """An object under a key; ``upload_id`` is its metadata (None: somebody else's)."""

    data: bytes
    upload_id: str | None = None


@define
class OpenObject:
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

    objects: dict[str, MemoryObject] = field(factory=dict)
    unfinished: dict[str, OpenObject] = field(factory=dict)
    handles: int = 0

    def next_handle(self) -> str:
        """A name that was never used."""
        self.handles += 1
        return f"{self.handles:08}"


@frozen
class Fault:
    """A fault in a call of ``operation`` (a method's name; ``*``: any), of ``upload_id`` (None: any).

    ``skip`` calls go well before ``times`` calls don't (None: for ever). The call waits ``delay`` seconds of the
    clock, then fails with ``error`` (None: it goes well). ``lost``: it is done nevertheless, and only its answer is
    lost. ``keep``: of a chunk, that many bytes are written before it fails. ``silent``: it never answers, but to a
    cancel.
    """

    operation: str
    error: Exception | None = None
    upload_id: str | None = None
    skip: int = 0
    times: int | None = 1
    delay: float = 0.0
    lost: bool = False
    keep: int | None = None
    silent: bool = False


class Faults:
    """The faults that are still to come, and ``struck``, how many calls they met."""

    def __init__(self) -> None:
        self.struck = 0
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """From now on; of several that fit a call the oldest strikes."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._waiting.clear()

    def take(self, operation: str, upload_id: str) -> Fault | None:
        """The fault of this call, if any."""
        for index, fault in enumerate(self._waiting):
            if fault.operation not in ("*", operation) or fault.upload_id not in (None, upload_id):
                continue
            if fault.skip:
                self._waiting[index] = evolve(fault, skip=fault.skip - 1)
                continue
            if fault.times == 1:
                del self._waiting[index]
            elif fault.times is not None:
                self._waiting[index] = evolve(fault, times=fault.times - 1)
            self.struck += 1
            return fault
        return None

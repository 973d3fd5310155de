"""Several parts of one upload on their way to a remote at once.

Invariant: when `ParallelParts.run` is over, no part is on its way any more, however it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.python.failure import Failure

from resumable.remotes.interfaces import Part


class ParallelParts:
    """``width`` parts at once. ``take`` answers the next one, None while there is none; ``write`` writes one.

    After the first failure no part begins any more, and those on their way are waited for.
    """

    def __init__(
        self, width: int, take: Callable[[], Part | None], write: Callable[[Part], Coroutine[Deferred[Any], Any, None]]
    ) -> None:
        self._width = width
        self._take = take
        self._write = write
        self._under_way: dict[Part, Deferred[None]] = {}
        self._failure: Failure | None = None
        self._filling = False
        self._over: Deferred[None] = Deferred()

    @property
    def size(self) -> int:
        """Bytes on their way."""
        return sum(part.size for part in self._under_way)

    @property
    def failed(self) -> bool:
        """Whether a part has failed, so that no more shall begin."""
        return self._failure is not None

    async def run(self) -> None:
        """Write parts until none is on its way and none can be taken. Raises the error of the first that failed."""
        self.fill()
        try:
            await self._over
        except CancelledError:
            self._failure = self._failure or Failure()
            under_way = list(self._under_way.values())
            for each in under_way:
                each.cancel()
            await DeferredList(under_way)
            raise
        if self._failure is not None:
            self._failure.raiseException()

    def fill(self) -> None:
        """Begin as many parts as may begin."""
        if self._filling:
            return
        self._filling = True
        try:
            while self._failure is None and len(self._under_way) < self._width and (part := self._take()) is not None:
                self._under_way[part] = writing = Deferred.fromCoroutine(self._write(part))
                writing.addBoth(self._written, part)
        except Exception:  # `run` raises it
            self._failure = Failure()
        self._filling = False
        if not self._under_way and not self._over.called:
            self._over.callback(None)

    def _written(self, result: Failure | None, part: Part) -> None:
        del self._under_way[part]
        if isinstance(result, Failure) and self._failure is None:
            self._failure = result
        self.fill()

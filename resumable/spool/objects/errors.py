"""Failures of the store, as the use cases see those of a spool."""

from __future__ import annotations

import errno
from typing import Final

from twisted.logger import Logger

from resumable.model.errors import CatalogUnavailable
from resumable.model.stored import IStored
from resumable.remotes.errors import RemoteError, Throttled


class StoreFailed(OSError):
    """The object store has failed to take, give or remove bytes. ``retry_after``: seconds, where it said so."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(errno.EIO, reason)
        self.retry_after = retry_after


def store_failed(error: RemoteError) -> StoreFailed:
    """The same in the words of the spool."""
    return StoreFailed(error.reason, error.retry_after if isinstance(error, Throttled) else None)


TOLD: Final = 4096
"""Uploads that are remembered, so that each is told of once."""


class LostObjects:
    """What tells of finished uploads whose objects the store doesn't have: somebody has removed them."""

    _log = Logger()

    def __init__(self, stored: IStored) -> None:
        self._stored = stored
        self._told: dict[str, None] = {}
        #: Uploads since the start.
        self.count = 0

    async def missed(self, upload_id: str, key: str) -> None:
        """The store was asked for this object, and has none. That is told of once; not at all where the upload is gone
        by now, or the catalog can't tell."""
        try:
            layout = await self._stored.tail_of(upload_id)
        except CatalogUnavailable:
            return
        if layout is None or layout.gone or not layout.whole or upload_id in self._told:
            return
        if len(self._told) == TOLD:
            del self._told[next(iter(self._told))]
        self._told[upload_id] = None
        self.count += 1
        self._log.error("the store has lost the object {key} of a finished upload", upload=upload_id, key=key)

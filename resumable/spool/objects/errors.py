"""Failures of the store, as the use cases see those of a spool."""

from __future__ import annotations

import errno

from resumable.remotes.errors import RemoteError, Throttled


class StoreFailed(OSError):
    """The object store has failed to take, give or remove bytes. ``retry_after``: seconds, where it said so."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(errno.EIO, reason)
        self.retry_after = retry_after


def store_failed(error: RemoteError) -> StoreFailed:
    """The same in the words of the spool."""
    return StoreFailed(error.reason, error.retry_after if isinstance(error, Throttled) else None)

"""What the use cases share: the tiers, the clocks, the limits, and one table from inner failures to answers.

The table (`as_answer`) is the only place that turns an OSError or a catalog failure into something a client sees.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.interfaces import BodyLost, CatalogUnavailable, Fact, FactKind, ICatalog, Upload
from resumable.protocol.errors import InternalError, NoSpace, TusError, Unavailable
from resumable.spool.files import Spool
from resumable.uploads.holds import IHolds
from resumable.uploads.schedule import Schedule
from resumable.uploads.space import Space

log = Logger()

_FULL = {errno.ENOSPC, errno.EDQUOT}
_BUSY = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}


@frozen
class Limits:
    """The operator's bounds. None means unlimited (``max_size``) or never (``expire_after``)."""

    max_size: int | None = None
    expire_after: float | None = None
    remember: float = 7 * 86400.0


@define
class Engine:
    """Everything an append needs to reach; made once by the service.

    ``clock`` measures spans (reactor seconds), ``wall`` tells the time of day for records.
    """

    catalog: ICatalog
    spool: Spool
    holds: IHolds
    clock: IReactorTime
    wall: Callable[[], float]
    boot_id: str
    limits: Limits
    space: Space
    schedule: Schedule
    on_partial_finished: Callable[[str], None] = field(default=lambda _: None)

    def expires_at(self, upload: Upload) -> float | None:
        """When this upload will be removed if nobody touches it; None when it won't."""
        if self.limits.expire_after is None or upload.finished or upload.gone:
            return None
        return upload.touched_at + self.limits.expire_after

    def fact(self, kind: FactKind, upload: Upload) -> Fact:
        return Fact(kind, upload.id, self.wall(), {"length": upload.length, "offset": upload.offset})


def as_answer(error: BaseException, upload_id: str) -> BaseException:
    """The error a client may see for an inner failure, logged once; protocol errors pass unchanged."""
    if isinstance(error, CatalogUnavailable):
        log.error("catalog unavailable: {reason}", upload=upload_id, reason=str(error))
        return NoSpace() if error.no_space else Unavailable("The server can't record uploads at the moment.")
    if isinstance(error, OSError):
        log.error("spool failed: {reason}", upload=upload_id, reason=error.strerror, errno=error.errno)
        if error.errno in _FULL:
            return NoSpace()
        if error.errno in _BUSY:
            return Unavailable("The server is out of files or memory at the moment.")
        return Unavailable("The server can't write to its disk at the moment.")
    if isinstance(error, TusError | BodyLost) or not isinstance(error, Exception):
        return error
    log.failure("unexpected failure", Failure(error), upload=upload_id)
    return InternalError("The server failed in an unexpected way.")

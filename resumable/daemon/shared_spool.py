"""What several processes share their acknowledged bytes in, as each of them uses it: a directory or an object store.

`resumable.daemon.spool_in_directory` and `resumable.daemon.spool_in_store` are the two shapes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from resumable.aio.threads import Pool
from resumable.model.telemetry import SpoolState
from resumable.spool import Budget
from resumable.spool.interfaces import ISpool, IStoredFiles
from resumable.uploads.context import UploadContext
from resumable.uploads.other_workers import IOtherWorkers

if TYPE_CHECKING:  # the driver may not be there
    from resumable.catalog.postgres.catalog import Opened, PostgresCatalog
    from resumable.catalog.postgres.worker_table import PostgresWorkers
    from resumable.config.options import Settings

#: Seconds between two rounds of what is left over, between two looks at all segments, and at all that there is.
ROUND: Final = 10.0
LONG_ROUND: Final = 300.0
WHOLE_ROUND: Final = 3600.0


@frozen
class SharedParts:
    """The parts of a process that its spool is made with. ``opened``: as the catalog was found."""

    settings: Settings
    reactor: Any
    pool: Pool
    budget: Budget
    catalog: PostgresCatalog
    opened: Opened
    workers: PostgresWorkers
    others: IOtherWorkers


@frozen
class Round:
    """Work that one of all workers does every so many ``seconds``: who has the claim ``role``. None: each does it."""

    work: Callable[[], Awaitable[object]]
    seconds: float
    role: str | None = None


class ISharedSpool(Protocol):
    """Made before the process forks: it looks, and leaves nothing open. Raises StartupError."""

    @property
    def spool(self) -> ISpool:
        """For the use cases."""

    @property
    def worthwhile(self) -> int:
        """So many new bytes of a long append are committed after a second; see `Appends`."""

    @property
    def files(self) -> IStoredFiles | None:
        """See `UploadContext.objects`."""

    @property
    def state(self) -> Callable[[], SpoolState] | None:
        """For metrics. None: it isn't in an object store."""

    def start(self) -> None:
        """Before this worker has a row. Blocks. Raises StartupError, CatalogUnavailable, OSError."""

    def begin(self, context: UploadContext, late: Callable[[], None]) -> Sequence[Round]:
        """The worker has a row now; the rounds are the caller's to go. ``late``: see `ManyProcesses.open`."""

    def read_start(self, start: tuple[str, int]) -> Deferred[bytes]:
        """Up to so many bytes from an upload's start on. Fails with OSError."""

    def ending(self) -> None:
        """No round goes any more; one that does ends soon."""

    def closing(self) -> Sequence[Callable[[], object]]:
        """The steps of closing, in order, while the catalog still works."""

    def last(self) -> Sequence[Callable[[], object]]:
        """The steps after this worker's row is gone; the pool still works."""

    def stop_threads(self) -> None:
        """After a start that failed."""

    async def lost(self) -> str | None:
        """Why it can't be relied upon at the moment; None: it can. Quick: probes of readiness ask."""

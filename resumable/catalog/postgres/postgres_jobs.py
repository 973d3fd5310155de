"""Jobs on PostgreSQL: questions have a connection and a thread of their own, so none waits for a sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, gatherResults

from resumable.aio.threads import IBatcher
from resumable.catalog.batches import CatalogJob
from resumable.catalog.jobs import AnyJob, Jobs, Work
from resumable.catalog.postgres.postgres_batches import PostgresBatches
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Through

T = TypeVar("T")


class PostgresJobs(Jobs):
    """Changes go through ``batches``, questions through ``reads``. See `Jobs`."""

    def __init__(
        self,
        batches: PostgresBatches,
        reads: PostgresBatches,
        batcher: Callable[[str, Work], IBatcher[AnyJob, Any]],
        on_facts: Callable[[], None] | None,
    ) -> None:
        super().__init__(batches, lambda work: batcher("catalog", work), on_facts)
        self._changes, self._questions = batches, reads
        self._reader: IBatcher[AnyJob, Any] = batcher("questions", reads.run)

    def start(self) -> None:
        super().start()
        self._reader.start()

    def stop(self) -> Deferred[None]:
        """See `Jobs.stop`. Nobody waits any longer for the outcome of a COMMIT that nobody knows."""
        self._changes.give_up()
        if not self._started:
            self._questions.close()
            return super().stop()
        stopped = self._reader.stop().addCallback(lambda _: self._questions.close())
        return gatherResults([stopped, super().stop()]).addCallback(lambda _: None)

    def submit(self, job: CatalogJob[T], through: Through | None = None) -> Deferred[T]:
        """See `Jobs.submit`."""
        if job.writes or through is not None:
            return super().submit(job, through)
        if not self._working:
            return fail(CatalogUnavailable("the catalog is not running"))
        return self._reader.submit(job)

"""The values of the metrics, read where they are kept when somebody asks for them.

Invariants: nothing here is in the global registry; asking never fails and ends within `PATIENCE`: a value that isn't
known by then is left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from attrs import Factory, define, field, frozen
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.threads import Stopped
from resumable.catalog.batches import Timing
from resumable.hooks.calls import HookCounts
from resumable.http.site import StreamingSite
from resumable.http.watch import RequestLog
from resumable.metrics.meters import LogCounter, ReactorDelay, RemoteLag, RemoteLags
from resumable.metrics.names import METRICS
from resumable.model.errors import CatalogUnavailable
from resumable.model.listing import UploadState
from resumable.model.outbox import Depth, IOutbox
from resumable.model.telemetry import SpoolState, Tally
from resumable.model.upload import GoneReason, ReplicaState
from resumable.replication.service import Replication
from resumable.spool import Budget
from resumable.uploads.context import Counts
from resumable.uploads.holds import IHolds
from resumable.uploads.limits import Space
from resumable.uploads.operators import Census, Count

PATIENCE: Final = 5.0
"""Seconds."""
FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}

T = TypeVar("T")
Values = Mapping[tuple[str, ...], float | Tally]
"""By the values of labels."""

Certificates = Callable[[], Mapping[str, float]]
"""Seconds that certificates have left, by where they are shown."""

log = Logger()


@frozen
class MetricSources:
    """Where the values are kept. ``disk`` answers the bytes of the upload directory's disk that are free and in use.

    ``replication`` and ``lags`` are None without remotes. ``hooks``: by name, those with events in the outbox.
    ``spool_state``: None where the spool isn't in an object store.
    """

    version: str
    clock: IReactorTime
    wall: Callable[[], float]
    watch: RequestLog
    site: StreamingSite
    counts: Counts
    holds: IHolds
    space: Space
    budget: Budget
    disk: Callable[[], Awaitable[tuple[int, int]]]
    batches: Timing
    outbox: IOutbox
    delay: ReactorDelay
    log_counts: LogCounter
    census: Census
    hooks: Sequence[str] = ()
    hook_counts: HookCounts = field(factory=HookCounts)
    replication: Replication | None = None
    lags: RemoteLags | None = None
    certificates: Certificates = dict
    spool_state: Callable[[], SpoolState] | None = None


@define
class _Answers:
    """Values that had to be asked for, as of the last time."""

    disk: tuple[int, int] | None = None
    count: Count | None = None
    lags: dict[str, RemoteLag] = Factory(dict)
    outbox: dict[str, Depth] = Factory(dict)


class MetricsCollector(Collector):
    """Collects all metrics in a registry of its own."""

    def __init__(self, sources: MetricSources) -> None:
        self._sources = sources
        self._answers = _Answers()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def render(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        self._answers = await self._ask()
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """No metric: the registry would otherwise collect all of them to learn their names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Each metric whose value is known."""
        for name, values in self._values():
            metric = METRICS[name]
            family = FAMILIES[metric.kind](metric.name, metric.help.rstrip("."), labels=metric.labels)
            for labels, value in values.items():
                if isinstance(value, Tally):
                    family.add_metric(labels, value.cumulated(), value.total)
                else:
                    family.add_metric(labels, value)
            yield family

    # -- asking

    async def _ask(self) -> _Answers:
        sources, answers = self._sources, _Answers()

        async def disk() -> None:
            answers.disk = await sources.disk()

        async def census() -> None:
            answers.count = await sources.census.known()

        async def lag(lags: RemoteLags, name: str) -> None:
            answers.lags[name] = await lags.of(name)

        async def depth(hook: str) -> None:
            answers.outbox[hook] = await sources.outbox.depth(hook)

        questions: list[Coroutine[Deferred[Any], Any, None]] = [
            disk(),
            census(),
            *(depth(hook) for hook in sources.hooks),
        ]
        if sources.replication is not None and sources.lags is not None:
            questions += [lag(sources.lags, name) for name in sources.replication.queues]
        await gatherResults([Deferred.fromCoroutine(self._in_time(each)) for each in questions])
        return answers

    async def _in_time(self, question: Coroutine[Deferred[Any], Any, None]) -> None:
        try:
            await Deferred.fromCoroutine(question).addTimeout(PATIENCE, self._sources.clock)
        except (CatalogUnavailable, Stopped, TimeoutError, CancelledError, OSError) as error:
            log.debug("a metric is not known: {reason}", reason=str(error) or type(error).__name__)
        except Exception:
            log.failure("a metric is not known")

    # -- reading

    def _values(self) -> Iterator[tuple[str, Values]]:
        yield "info", {(self._sources.version,): 1}
        yield from self._requests()
        yield from self._uploads()
        yield from self._local()
        if self._sources.replication is not None:
            yield from self._remotes(self._sources.replication)
        yield from self._events()
        if certificates := self._sources.certificates():
            yield "tls_expires_seconds", {(endpoint,): left for endpoint, left in certificates.items()}
        yield "reactor_delay_seconds", _one(self._sources.delay.tally)
        yield "log_events_total", self._sources.log_counts.counts()

    def _requests(self) -> Iterator[tuple[str, Values]]:
        site, methods = self._sources.site, self._sources.watch.methods
        yield "requests_total", {(name, status): n for name, each in methods.items() for status, n in each.by_status()}
        yield "request_duration_seconds", {(name,): each.seconds for name, each in methods.items()}
        yield "received_bytes_total", _one(site.received)
        protocols = self._sources.watch.protocols
        yield "protocol_requests_total", {(name,): each.requests for name, each in protocols.items()}
        yield "protocol_received_bytes_total", {(name,): each.received for name, each in protocols.items()}
        yield "connections", _one(len(site.connections))
        yield "cut_off_total", {(why,): count for why, count in site.cut.items()}

    def _uploads(self) -> Iterator[tuple[str, Values]]:
        counts, holds = self._sources.counts, self._sources.holds
        yield "uploads_created_total", _one(counts.created)
        by_draft = counts.created_by_draft
        yield "protocol_uploads_created_total", {("tus",): counts.created - by_draft, ("draft",): by_draft}
        yield "uploads_finished_total", _one(counts.finished)
        yield "uploads_placed_total", _one(counts.placed)
        yield "placing_failures_total", _one(counts.not_placed)
        yield "removal_failures_total", _one(counts.not_removed)
        yield "uploads_gone_total", {(gone.value,): counts.gone[gone] for gone in GoneReason}
        if self._answers.count is not None:
            yield "uploads", {(state.value,): self._answers.count.uploads[state] for state in UploadState}
        yield "appends", _one(holds.count)
        yield "holds_taken_over_total", _one(holds.takeovers)

    def _local(self) -> Iterator[tuple[str, Values]]:
        sources = self._sources
        if self._answers.disk is not None:
            free, used = self._answers.disk
            yield "spool_free_bytes", _one(free)
            yield "spool_used_bytes", _one(used)
        yield "spool_reserve_bytes", _one(sources.space.reserve)
        yield "spool_queued_bytes", _one(sources.budget.used)
        if sources.spool_state is not None:
            state = sources.spool_state()
            yield "spool_up", _one(state.up)
            yield "spool_lost_total", _one(state.lost)
            yield "scratch_used_bytes", _one(state.scratch_used)
            yield "scratch_limit_bytes", _one(state.scratch_limit)
        yield "catalog_batch_seconds", _one(sources.batches.seconds)
        yield "catalog_batch_jobs", _one(sources.batches.jobs)

    def _remotes(self, replication: Replication) -> Iterator[tuple[str, Values]]:
        queues, lags = replication.queues, self._answers.lags
        yield "uploads_stored_total", _one(replication.stored)
        yield "remote_up", {(name,): 0 if queue.down else 1 for name, queue in queues.items()}
        yield "remote_lag_bytes", {(name,): behind.size for name, behind in lags.items()}
        yield "remote_lag_seconds", {(name,): behind.seconds for name, behind in lags.items()}
        yield "remote_queued", {(name,): queue.queued for name, queue in queues.items()}
        yield "remote_active", {(name,): queue.active for name, queue in queues.items()}
        if self._answers.count is not None:
            found = self._answers.count.replicas
            yield (
                "remote_replicas",
                {(name, state.value): found[name, state] for name in queues for state in ReplicaState},
            )
        yield "remote_parts_total", {(name,): queue.counts.parts for name, queue in queues.items()}
        yield "remote_bytes_total", {(name,): queue.counts.bytes for name, queue in queues.items()}
        yield "remote_stored_total", {(name,): queue.counts.stored for name, queue in queues.items()}
        yield "remote_removed_total", {(name,): queue.counts.removed for name, queue in queues.items()}
        yield "remote_retries_total", {(name,): queue.counts.retries for name, queue in queues.items()}
        yield (
            "remote_failures_total",
            {(name, kind): n for name, queue in queues.items() for kind, n in queue.counts.failures.items()},
        )
        yield "remote_parked_total", {(name,): queue.counts.parked for name, queue in queues.items()}
        yield "remote_outages_total", {(name,): queue.counts.opened for name, queue in queues.items()}

    def _events(self) -> Iterator[tuple[str, Values]]:
        depths, now = self._answers.outbox, self._sources.wall()
        yield "outbox_waiting", {(hook,): depth.waiting for hook, depth in depths.items()}
        yield "outbox_dead", {(hook,): depth.dead for hook, depth in depths.items()}
        ages = {hook: 0.0 if depth.oldest is None else max(0.0, now - depth.oldest) for hook, depth in depths.items()}
        yield "outbox_age_seconds", {(hook,): age for hook, age in ages.items()}
        yield "hook_calls_total", self._sources.hook_counts.calls
        yield "hook_duration_seconds", {(hook,): each for hook, each in self._sources.hook_counts.seconds.items()}


def _one(value: float | Tally) -> Values:
    """The value of a metric without labels."""
    return {(): value}

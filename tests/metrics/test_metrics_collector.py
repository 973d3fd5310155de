"""The metrics: every name has a value, what isn't known is left out, and what costs is asked seldom."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel

from resumable.catalog.batches import Timing
from resumable.hooks.calls import HookCounts
from resumable.http.watch import PROTOCOLS
from resumable.metrics.collector import PATIENCE, MetricsCollector, MetricSources
from resumable.metrics.meters import EVERY, FRESH, MOST, LogCounter, ReactorDelay, RemoteLags, part_of
from resumable.metrics.names import KINDS, METRICS
from resumable.model.errors import CatalogUnavailable
from resumable.model.listing import Counted, UploadState
from resumable.model.outbox import Depth
from resumable.model.replica import Backlog
from resumable.model.telemetry import SpoolState, Tally
from resumable.model.upload import GoneReason, ReplicaState
from resumable.replication.context import RemoteCounts
from resumable.spool import Budget
from resumable.uploads.context import Counts
from resumable.uploads.holds import LocalHolds
from resumable.uploads.limits import Space
from resumable.uploads.operators import Census
from tests.daemon.site_rig import Site

NOW = 1_700_000_000.0


class Replicas:
    """The part of IReplicas that metrics ask."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Any = Backlog(size=700, uploads=2, oldest=NOW - 60)

    def backlog(self, remote: str) -> Deferred[Backlog]:
        self.asked.append(remote)
        if isinstance(self.answer, Exception):
            raise self.answer
        return succeed(self.answer)


class Listing:
    """The part of IListing that metrics ask."""

    def __init__(self) -> None:
        self.broken = False

    def count_uploads(self, place: int | None) -> Deferred[Counted]:
        if self.broken:
            return fail(CatalogUnavailable("no"))
        return succeed(Counted(uploads={UploadState.STORED: 4, UploadState.UPLOADING: 1}))

    def count_replicas(self, place: int | None) -> Deferred[Counted]:
        return succeed(Counted(replicas={("near", ReplicaState.PARKED): 2, ("elsewhere", ReplicaState.OPEN): 5}))


class Rig:
    """Metrics over parts of a daemon that a test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.site = Site()
        self.replicas = Replicas()
        self.depth: Any = Depth(waiting=3, dead=1, oldest=NOW - 30)
        self.disk: Any = (1000, 500)
        self.counts = Counts()
        self.listing = Listing()
        self.hook_counts = HookCounts()
        self.hook_counts.add("hook", "created", "ok", 0.02)
        self.delay = ReactorDelay(self.clock)
        self.log_counts = LogCounter()
        self.batches = Timing()
        self.space = Space(64)
        self.far = self.queue()
        self.spool_state = SpoolState(True, 5 << 20, 768 << 20, 2)
        self.near = self.queue(lag=SimpleNamespace(size=5, oldest=None))
        replication: Any = SimpleNamespace(queues={"s3://far": self.far, "near": self.near}, stored=9)
        self.metrics = MetricsCollector(
            MetricSources(
                version="1.2.3",
                clock=self.clock,
                wall=lambda: NOW,
                watch=self.site.watch,
                site=self.site.site,
                counts=self.counts,
                holds=LocalHolds(self.clock),
                space=self.space,
                budget=Budget(),
                disk=self._disk,
                batches=self.batches,
                outbox=SimpleNamespace(depth=lambda hook: succeed(self.depth)),  # type: ignore[arg-type]
                delay=self.delay,
                log_counts=self.log_counts,
                census=Census(self.listing, self.clock, lambda: NOW),  # type: ignore[arg-type]
                hooks=["hook"],
                hook_counts=self.hook_counts,
                replication=replication,
                lags=RemoteLags(replication.queues, self.replicas, self.clock, lambda: NOW),  # type: ignore[arg-type]
                certificates=lambda: {"0.0.0.0:443": 86400.0},
                spool_state=lambda: self.spool_state,
            )
        )

    @staticmethod
    def queue(**more: Any) -> Any:
        counts = RemoteCounts(parts=4, bytes=400, stored=3, parked=1, retries=2, failures=Counter({"Unreachable": 2}))
        return SimpleNamespace(**({"counts": counts, "queued": 7, "active": 2, "down": False, "lag": None} | more))

    async def _disk(self) -> tuple[int, int]:
        if isinstance(self.disk, Exception):
            raise self.disk
        answer: tuple[int, int] = await self.disk if isinstance(self.disk, Deferred) else self.disk
        return answer

    def render(self) -> list[str]:
        """The document, once it is there."""
        found: list[str] = []
        Deferred.fromCoroutine(self.metrics.render()).addCallback(lambda document: found.append(document.decode()))
        return found

    def values(self) -> dict[str, float]:
        """Each sample: its name and labels as they are written, and its value."""
        (document,) = self.render()
        lines = (line.rpartition(" ") for line in document.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}


def test_every_metric_has_its_name_kind_and_help_and_no_other_is_shown() -> None:
    (document,) = Rig().render()
    families = {each.name: each for each in text_string_to_metric_families(document)}
    shown = {name for name in families if not name.startswith("process_")}
    assert shown == {metric.name.removesuffix("_total") for metric in METRICS.values()}
    for metric in METRICS.values():
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, f"{family.documentation}.") == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), metric.name


def test_names_follow_the_custom() -> None:
    for metric in METRICS.values():
        assert metric.kind in KINDS
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help[0].isupper() or metric.help[0].isdigit()


def test_nothing_is_registered_for_the_whole_process() -> None:
    Rig().render()
    assert not [each for each in REGISTRY.collect() if each.name.startswith("resumable")]


def test_metrics_are_those_of_the_moment() -> None:
    rig = Rig()
    rig.site.ask(method="PATCH")
    rig.counts.created, rig.counts.finished = 5, 4
    rig.counts.created_by_draft = 2
    rig.site.watch.protocols["draft"].requests = 7
    rig.site.watch.protocols["tus"].received = 900
    rig.counts.gone[GoneReason.EXPIRED] = 2
    rig.batches.seconds.add(0.004)
    rig.site.site.cut["unread"] = 3
    values = rig.values()
    assert values['resumable_requests_total{method="PATCH",status="2xx"}'] == 1
    assert [values[f'resumable_cut_off_total{{reason="{why}"}}'] for why in ("unread", "idle", "full")] == [3, 0, 0]
    assert values['resumable_request_duration_seconds_count{method="PATCH"}'] == 1
    assert values["resumable_received_bytes_total"] == rig.site.site.received > 0
    assert values["resumable_uploads_created_total"] == 5
    assert [values[f'resumable_protocol_uploads_created_total{{protocol="{name}"}}'] for name in PROTOCOLS] == [3, 2]
    assert [values[f'resumable_protocol_requests_total{{protocol="{name}"}}'] for name in PROTOCOLS] == [0, 7]
    assert [values[f'resumable_protocol_received_bytes_total{{protocol="{name}"}}'] for name in PROTOCOLS] == [900, 0]
    assert values["resumable_uploads_stored_total"] == 9
    assert values['resumable_uploads_gone_total{reason="expired"}'] == 2
    assert values["resumable_spool_free_bytes"] == 1000
    assert values["resumable_spool_reserve_bytes"] == 64
    assert values['resumable_catalog_batch_seconds_bucket{le="0.005"}'] == 1
    assert values['resumable_catalog_batch_seconds_bucket{le="0.0025"}'] == 0
    assert values['resumable_remote_lag_bytes{remote="s3://far"}'] == 700
    assert values['resumable_remote_lag_seconds{remote="s3://far"}'] == 60
    assert values['resumable_remote_lag_seconds{remote="near"}'] == 0
    assert values['resumable_remote_failures_total{kind="Unreachable",remote="near"}'] == 2
    assert values['resumable_outbox_age_seconds{hook="hook"}'] == 30
    rig.counts.created += 1
    rig.far.down = True
    values = rig.values()
    assert values["resumable_uploads_created_total"] == 6
    assert values['resumable_remote_up{remote="s3://far"}'] == 0
    assert values['resumable_remote_up{remote="near"}'] == 1


def test_the_catalog_is_asked_for_lag_seldom_and_only_where_nobody_counts_it() -> None:
    rig = Rig()
    rig.values()
    rig.clock.advance(FRESH - 1)
    rig.values()
    assert rig.replicas.asked == ["s3://far"]
    rig.clock.advance(1)
    rig.values()
    assert rig.replicas.asked == ["s3://far"] * 2


def test_what_fails_is_left_out() -> None:
    rig = Rig()
    rig.disk, rig.replicas.answer = OSError(5, "broken"), CatalogUnavailable("broken")
    values = rig.values()
    assert "resumable_spool_free_bytes" not in values
    assert 'resumable_remote_lag_bytes{remote="s3://far"}' not in values
    assert values['resumable_remote_lag_bytes{remote="near"}'] == 5
    assert values["resumable_spool_reserve_bytes"] == 64


def test_what_hangs_is_left_out_after_a_while() -> None:
    rig = Rig()
    rig.disk = Deferred()
    document = rig.render()
    assert document == []
    rig.clock.advance(PATIENCE)
    assert "resumable_spool_free_bytes" not in document[0] and "resumable_info" in document[0]


def test_a_spool_in_a_store_tells_whether_it_is_up_and_what_its_scratch_has() -> None:
    rig = Rig()
    names = ("resumable_spool_up", "resumable_scratch_used_bytes", "resumable_scratch_limit_bytes")
    assert [rig.values()[name] for name in names] == [1, 5 << 20, 768 << 20]
    assert rig.values()["resumable_spool_lost_total"] == 2
    rig.spool_state = SpoolState(False, 0, 768 << 20)
    assert [rig.values()[name] for name in names] == [0, 0, 768 << 20]


def test_without_remotes_hooks_and_a_store_there_are_no_metrics_of_them() -> None:
    rig = Rig()
    rig.metrics = MetricsCollector(
        MetricSources(
            version="1",
            clock=rig.clock,
            wall=lambda: NOW,
            watch=rig.site.watch,
            site=rig.site.site,
            counts=rig.counts,
            holds=LocalHolds(rig.clock),
            space=rig.space,
            budget=Budget(),
            disk=lambda: succeed((1, 1)),
            census=Census(rig.listing, rig.clock, lambda: NOW),  # type: ignore[arg-type]
            batches=rig.batches,
            outbox=SimpleNamespace(),  # type: ignore[arg-type]
            delay=rig.delay,
            log_counts=rig.log_counts,
        )
    )
    others = ("remote", "outbox", "uploads_stored", "tls", "spool_up", "spool_lost", "scratch")
    assert not [name for name in rig.values() if any(other in name for other in others)]


def test_a_name_that_an_operator_chose_is_escaped() -> None:
    rig = Rig()
    rig.far.counts.failures['we"ird\n\\'] = 1
    (document,) = rig.render()
    assert 'kind="we\\"ird\\n\\\\"' in document


# The event loop


def test_a_loop_in_time_has_no_delay() -> None:
    clock = Clock()
    delay = ReactorDelay(clock)
    delay.start()
    for _ in range(4):
        clock.advance(EVERY)
    assert (delay.tally.count, delay.tally.total) == (4, 0)
    delay.stop()
    assert not clock.getDelayedCalls()


def test_a_loop_that_was_blocked_is_late_by_that_much() -> None:
    clock = Clock()
    delay = ReactorDelay(clock)
    delay.start()
    clock.advance(EVERY + 2)
    assert (delay.tally.count, delay.tally.total) == (1, 2.0)
    delay.stop()
    delay.stop()


# What the log says


def test_warnings_and_worse_are_counted_by_part() -> None:
    log_counts = LogCounter()
    log = Logger("resumable.uploads.context.UploadContext", observer=log_counts)
    log.info("well")
    log.warn("hm")
    log.error("bad")
    log.error("bad")
    log.failure("worse", _failure())
    assert {key: count for key, count in log_counts.counts().items() if count} == {
        ("warn", "uploads.context"): 1,
        ("error", "uploads.context"): 2,
        ("critical", "uploads.context"): 1,
    }


def test_parts_are_modules_of_ours_and_packages_of_others() -> None:
    assert part_of("resumable.daemon.service") == "daemon.service"
    assert part_of("resumable.replication.remote_queue") == "replication.remote_queue"
    assert part_of("twisted.web.http.HTTPChannel") == "twisted"
    assert part_of("log_legacy") == "log_legacy"


def test_however_many_names_are_logged_there_are_few_counters() -> None:
    log_counts = LogCounter()
    for number in range(2 * MOST):
        Logger(f"plugin{number}", observer=log_counts).warn("x")
    counts = log_counts.counts()
    assert len(counts) <= MOST
    assert sum(counts.values()) == 2 * MOST


def test_every_level_is_there_from_the_start_so_that_the_first_error_shows_as_an_increase() -> None:
    assert LogCounter().counts() == {(level, "other"): 0 for level in ("warn", "error", "critical")}
    LogCounter()({"log_level": LogLevel.error})
    LogCounter()({})


def _failure() -> Any:
    from twisted.python.failure import Failure

    return Failure(RuntimeError("x"))


def test_uploads_and_replicas_are_told_by_state() -> None:
    values = Rig().values()
    assert values['resumable_uploads{state="stored"}'] == 4
    assert values['resumable_uploads{state="gone"}'] == 0
    assert values['resumable_remote_replicas{remote="near",state="parked"}'] == 2
    assert values['resumable_remote_replicas{remote="s3://far",state="open"}'] == 0
    assert not [name for name in values if "elsewhere" in name], "labels are the remotes that there are"


def test_a_catalog_that_can_not_count_leaves_the_rest() -> None:
    rig = Rig()
    rig.listing.broken = True
    values = rig.values()
    assert "resumable_appends" in values and 'resumable_uploads{state="stored"}' not in values


def test_what_came_of_hooks_is_counted() -> None:
    rig = Rig()
    rig.hook_counts.add("hook", "before-create", "refused", 3.0)
    values = rig.values()
    assert values['resumable_hook_calls_total{hook="hook",kind="created",outcome="ok"}'] == 1
    assert values['resumable_hook_calls_total{hook="hook",kind="before-create",outcome="refused"}'] == 1
    assert values['resumable_hook_duration_seconds_bucket{hook="hook",le="0.025"}'] == 1
    assert values['resumable_hook_duration_seconds_sum{hook="hook"}'] == 3.02


def test_a_bound_belongs_to_its_bucket() -> None:
    tally = Tally((1, 2))
    for value in (0, 1, 1.5, 2, 3):
        tally.add(value)
    assert tally.cumulated() == [("1", 2.0), ("2", 4.0), ("+Inf", 5.0)]
    assert (tally.count, tally.total) == (5, 7.5)


@given(st.lists(st.floats(-10, 1e6)), st.sets(st.integers(0, 1000), min_size=1))
def test_each_bucket_counts_all_that_is_at_most_its_bound(values: list[float], bounds: set[int]) -> None:
    tally = Tally(sorted(bounds))
    for value in values:
        tally.add(value)
    found = dict(tally.cumulated())
    assert found.pop("+Inf") == len(values)
    for name, count in found.items():
        assert count == sum(value <= float(name) for value in values)

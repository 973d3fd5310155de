"""The metrics of several workers as those of one machine.

Invariants: what a worker counts for itself has its number as label; what the workers have in common appears once, as
the first of them that knows it says. HELP and TYPE stand once for each metric.
Spec: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from resumable.metrics.names import COMMON, METRICS, WORKERS

LABEL: Final = "worker"

#: The parser takes the ending of a counter from its name.
_COMMON: Final = frozenset(METRICS[name].name for name in COMMON)


class _Families(Collector):
    """Metrics that are there already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def parsed(text: bytes) -> list[Metric]:
    """The metrics of one worker. Raises ValueError if that isn't the format of Prometheus."""
    return list(text_string_to_metric_families(text.decode()))


def merged(workers: Mapping[int, Sequence[Metric]], missing: int) -> bytes:
    """The metrics of the workers with these numbers, the one that was asked first. ``missing``: how many more there
    are."""
    found: dict[str, Metric] = {}
    for number, families in workers.items():
        for family in families:
            known = found.get(family.name)
            if known is None:
                known = found[family.name] = Metric(family.name, family.documentation, family.type)
            elif family.name in _COMMON:
                continue
            for sample in family.samples:
                labels = sample.labels if family.name in _COMMON else {**sample.labels, LABEL: str(number)}
                known.add_sample(sample.name, labels, sample.value)
    count = GaugeMetricFamily(WORKERS.name, WORKERS.help.rstrip("."), labels=WORKERS.labels)
    count.add_metric(["answered"], len(workers))
    count.add_metric(["missing"], missing)
    registry = CollectorRegistry()
    registry.register(_Families([*found.values(), count]))
    return generate_latest(registry)

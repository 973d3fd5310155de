"""The metrics of several workers as those of one machine."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from resumable.metrics import merged as merging
from resumable.metrics.names import COMMON, METRICS

ONE = b"""# HELP resumable_requests_total Finished requests.
# TYPE resumable_requests_total counter
resumable_requests_total{method="GET",status="2xx"} 5.0
# HELP resumable_uploads Uploads by state.
# TYPE resumable_uploads gauge
resumable_uploads{state="finished"} 7.0
# HELP resumable_catalog_batch_seconds Time.
# TYPE resumable_catalog_batch_seconds histogram
resumable_catalog_batch_seconds_bucket{le="0.1"} 1.0
resumable_catalog_batch_seconds_bucket{le="+Inf"} 2.0
resumable_catalog_batch_seconds_count 2.0
resumable_catalog_batch_seconds_sum 1.5
"""
TWO = ONE.replace(b"5.0", b"6.0").replace(b"7.0", b"8.0") + (
    b"# HELP resumable_outbox_waiting Events.\n# TYPE resumable_outbox_waiting gauge\n"
    b'resumable_outbox_waiting{hook="h"} 3.0\n'
)


def merged(texts: dict[int, bytes], missing: int) -> bytes:
    return merging.merged({number: merging.parsed(text) for number, text in texts.items()}, missing)


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
    }


def test_what_a_worker_counts_for_itself_has_its_number() -> None:
    found = samples(merged({2: TWO, 1: ONE}, 0))
    labels = (("method", "GET"), ("status", "2xx"))
    assert found["resumable_requests_total", (*labels, ("worker", "1"))] == 5
    assert found["resumable_requests_total", (*labels, ("worker", "2"))] == 6
    assert ("resumable_requests_total", labels) not in found
    assert found["resumable_catalog_batch_seconds_bucket", (("le", "0.1"), ("worker", "2"))] == 1
    assert found["resumable_catalog_batch_seconds_count", (("worker", "1"),)] == 2


def test_what_they_have_in_common_appears_once_as_the_first_that_knows_it_says() -> None:
    found = samples(merged({1: ONE, 2: TWO}, 0))
    assert {key: value for key, value in found.items() if key[0] == "resumable_uploads"} == {
        ("resumable_uploads", (("state", "finished"),)): 7
    }
    assert found["resumable_outbox_waiting", (("hook", "h"),)] == 3


def test_help_and_type_stand_once() -> None:
    lines = merged({1: ONE, 2: TWO}, 0).decode().splitlines()
    heads = [" ".join(line.split()[:3]) for line in lines if line.startswith("#")]
    assert len(heads) == len(set(heads))
    for line in ONE.decode().splitlines():
        assert not line.startswith("#") or line in lines


def test_who_did_not_answer_is_counted() -> None:
    found = samples(merged({1: ONE}, 2))
    assert found["resumable_workers", (("state", "answered"),)] == 1
    assert found["resumable_workers", (("state", "missing"),)] == 2


def test_what_is_in_common_are_metrics() -> None:
    assert set(METRICS) >= COMMON

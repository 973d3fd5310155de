"""Tallies count as Prometheus means histograms to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resumable.model.telemetry import Tally


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

"""Range: one is served as it is, everything else as the whole or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol.downloads import Span, wanted_range
from resumable.protocol.errors import RangeNotSatisfiable


class Lines:
    def __init__(self, *values):
        self._values = values

    def values(self, name):
        return self._values if name == "range" else ()


def span(value, total=100):
    found = wanted_range(Lines(value), total)
    return found and (found.start, found.size)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-19", (10, 10)),
        ("bytes=99-", (99, 1)),
        ("bytes=0-", (0, 100)),
        ("bytes=90-1000", (90, 10)),
        ("bytes=-1", (99, 1)),
        ("bytes=-100", (0, 100)),
        ("bytes=-101", (0, 100)),
        ("Bytes=5-6", (5, 2)),
        ("BYTES=5-6", (5, 2)),
        ("bytes= 5-6", (5, 2)),
        ("bytes=5-6 ", (5, 2)),
        ("bytes=,5-6,", (5, 2)),
        ("bytes=0000000000000000000000000000005-6", (5, 2)),
        (f"bytes=5-{'9' * 50_000}", (5, 95)),
        (f"bytes=-{'9' * 50_000}", (0, 100)),
        (f"bytes=0-{2**64}", (0, 100)),
    ],
)
def test_one_range_is_served(value, expected):
    assert span(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=-1-2",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=1- 2",
        "bytes =1-2",
        "bytes=2-1",
        "bytes=0x1-2",
        "bytes=1_0-20",
        "bytes=1.5-2",
        "bytes=\u00b2-",
        "bytes=\u0661-",
        "bytes=1-2\r\n",
        "bytes=1-2\n",
        "seconds=1-2",
        "items=0-5",
        "none",
        "0-5",
        "bytes: 0-5",
        "bytes=0-1,3-4",
        "bytes=0-,0-,0-",
        "bytes=0-50,25-75",
        "bytes=0-1;3-4",
        "bytes=" + ",".join(f"{number}-{number}" for number in range(10_000)),
        "bytes=" + "," * 50_000 + "x",
        f"bytes={'9' * 50_000}-5",
    ],
    ids=range(34),
)
def test_several_ranges_and_what_is_none_mean_all_of_it(value):
    assert span(value) is None


@pytest.mark.parametrize("value", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=-000", f"bytes={'9' * 50_000}-"])
def test_a_range_behind_the_end_is_416_and_says_where_that_is(value):
    with pytest.raises(RangeNotSatisfiable) as refused:
        span(value)
    assert refused.value.headers == {"Content-Range": "bytes */100"}


def test_of_nothing_no_byte_can_be_had():
    assert span("bytes=-5", 0) is None
    for value in ("bytes=0-", "bytes=0-0", "bytes=-0"):
        with pytest.raises(RangeNotSatisfiable):
            span(value, 0)


def test_the_field_given_twice_is_ignored():
    assert wanted_range(Lines("bytes=0-1", "bytes=2-3"), 100) is None
    assert wanted_range(Lines(), 100) is None


def test_the_span_is_told_in_content_range():
    assert Span(5, 2, 100).content_range == "bytes 5-6/100"


@given(st.integers(0, 2**63), st.integers(0, 2**70), st.none() | st.integers(0, 2**70))
def test_whatever_is_asked_for_lies_within(total, first, last):
    value = f"bytes={first}-{'' if last is None else last}"
    try:
        found = wanted_range(Lines(value), total)
    except RangeNotSatisfiable:
        assert first >= total
        return
    if found is None:
        assert last is not None and last < first
        return
    end = total - 1 if last is None else min(last, total - 1)
    assert (found.start, found.start + found.size - 1) == (first, end)
    assert found.size > 0 and end < total


@given(st.text(), st.integers(0, 1000))
def test_no_text_does_harm(text, total):
    for value in (text, f"bytes={text}"):
        try:
            found = wanted_range(Lines(value), total)
        except RangeNotSatisfiable:
            continue
        assert found is None or 0 <= found.start < found.start + found.size <= total

"""Times and bytes in JSON."""

from __future__ import annotations

import pytest

from resumable.model.values import json_text, json_time


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "1970-01-01T00:00:00.000Z"), (1_700_000_000.1239, "2023-11-14T22:13:20.123Z")],
)
def test_times_are_in_utc_to_the_millisecond(seconds, written):
    assert json_time(seconds) == written


@pytest.mark.parametrize(("value", "written"), [(b"", ""), ("né".encode(), "né"), (b"\xff", {"base64": "/w=="})])
def test_bytes_are_text_where_they_can_be(value, written):
    assert json_text(value) == written

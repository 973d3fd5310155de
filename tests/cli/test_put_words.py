"""Figures, windows of time and speeds of `resumable put`: what depends on nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from resumable.cli.figures import clock_text, percent, speed_text, took_text
from resumable.cli.speeds import LEAST, MOMENT, Pace
from resumable.cli.windows import DayWindow, day_window, seconds_until

# times and speeds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (3599, "59:59"), (3723, "1:02:03"), (3 * 86400 + 4 * 3600, "3 d 4 h"), (-3, "0:00")],
)
def test_times_as_a_clock_has_them(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_times_that_something_took_and_speeds() -> None:
    assert [took_text(0.44), took_text(52.3), took_text(61)] == ["0.4 s", "52 s", "1:01"]
    assert [speed_text(None), speed_text(12.5 * (1 << 20))] == ["", "12 MiB/s"]


def test_a_hundred_per_cent_is_said_only_when_all_is_there() -> None:
    assert [percent(999, 1000), percent(1000, 1000), percent(0, 0), percent(5, None)] == [99, 100, 100, 0]


# windows


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Berlin's time, whose hour between 2 and 3 is missing on 2026-03-29."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_window_is_read_as_people_write_it() -> None:
    assert day_window("22:00-06:00") == DayWindow(1320, 360)
    assert day_window("8:30-24:00") == DayWindow(510, 1440)


@pytest.mark.parametrize(
    "text", ["", "22-6", "25:00-06:00", "22:60-06:00", "06:00-24:01", "06:00-06:00", "a22:00-06:00"]
)
def test_other_windows_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a window of the day like"):
        day_window(text)


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ("2026-12-01T21:59:00", 60),
        ("2026-12-01T22:00:00", 0),
        ("2026-12-02T05:59:59", 0),
        ("2026-12-02T06:00:00", 16 * 3600),
        ("2026-03-29T06:00:00", 16 * 3600),
    ],
)
def test_a_window_goes_on_over_midnight(zone: None, now: str, seconds: float) -> None:
    assert seconds_until([day_window("22:00-06:00")], at(now)) == seconds


def test_the_next_of_several_windows_counts(zone: None) -> None:
    windows = [day_window("12:00-13:00"), day_window("20:00-21:00")]
    assert seconds_until(windows, at("2026-12-01T11:00:00")) == 3600
    assert seconds_until(windows, at("2026-12-01T13:00:00")) == 7 * 3600
    assert seconds_until(windows, at("2026-12-01T21:30:00")) == 14.5 * 3600
    assert seconds_until([], at("2026-12-01T21:30:00")) == 0


def test_the_hour_that_a_night_lacks_or_has_twice_is_counted_as_it_passes(zone: None) -> None:
    morning = [day_window("04:00-05:00")]
    assert seconds_until(morning, at("2026-03-29T01:00:00")) == 2 * 3600
    assert seconds_until(morning, at("2026-10-25T01:00:00")) == 4 * 3600


# speeds


def test_a_speed_is_that_of_the_last_moment() -> None:
    pace = Pace(100.0)
    assert pace.speed(100.0 + LEAST / 2) is None
    for second in range(1, 21):
        pace.moved(second * 1000 if second <= 10 else 10_000 + (second - 10) * 3000, 100.0 + second)
    assert pace.speed(120.0) == pytest.approx(3000)
    assert pace.left(30_000, 120.0) == pytest.approx(10)


def test_what_stands_still_gets_slower_and_has_no_end_at_last() -> None:
    pace = Pace(0.0)
    pace.moved(8000, 8.0)
    assert pace.speed(8.0) == pytest.approx(1000)
    assert pace.speed(16.0) == pytest.approx(500)
    pace.moved(8000, 16.0)
    pace.moved(8000, 16.0 + 2 * MOMENT)
    assert pace.left(100, 16.0 + 2 * MOMENT) is None


def test_a_pause_is_no_part_of_the_speed() -> None:
    pace = Pace(0.0)
    pace.moved(8000, 8.0)
    pace.again(3600.0)
    pace.moved(10_000, 3601.0)
    assert pace.speed(3601.0) == pytest.approx(2000)


def test_bytes_that_were_lost_on_the_way_are_no_speed_below_nothing() -> None:
    pace = Pace(0.0)
    pace.moved(8000, 2.0)
    pace.moved(2000, 3.0)
    pace.moved(5000, 4.0)
    assert pace.speed(4.0) is not None and pace.speed(4.0) > 0

"""What is printed, and numbers as people read them."""

from __future__ import annotations

import io
import json

import pytest

from resumable.cli.checkup import Report
from resumable.doctor.findings import Finding, age_text, size_text, span_text


def printed(*findings, as_json=False, width=62):
    out = io.StringIO()
    report = Report(out, as_json, width)
    for each in findings:
        report.tell(each)
    report.end()
    return out.getvalue(), report.bad


def test_a_line_for_each_and_below_it_what_to_change():
    text, bad = printed(Finding("clock", "ok", "right"), Finding("fsync", "bad", "it lies", "Buy another disk. " * 4))
    assert text.splitlines() == [
        "ok    clock             right",
        "bad   fsync             it lies",
        "                        > Buy another disk. Buy another disk.",
        "                          Buy another disk. Buy another disk.",
        "",
        "1 bad; see what to change behind each >",
    ]
    assert bad == 1


def test_the_last_line_counts():
    assert printed(Finding("a", "ok", "b"))[0].endswith("\nall is well\n")
    assert printed(Finding("a", "warn", "b", "c"))[0].endswith("\n1 warning; see what to change behind each >\n")
    assert "1 bad, 2 warnings;" in printed(*(Finding("a", level, "b", "c") for level in ("warn", "bad", "warn")))[0]


def test_lines_of_others_make_no_lines_of_ours():
    text, _ = printed(Finding("a", "bad", "one\ntwo\r\n\x0bthree", "x\ny"))
    assert "one two three" in text and "> x y" in text


def test_machines_get_an_object_a_line():
    text, _ = printed(Finding("clock", "ok", "right\nso"), Finding("fsync", "bad", "lies", "Buy."), as_json=True)
    assert [json.loads(line) for line in text.splitlines()] == [
        {"check": "clock", "level": "ok", "what": "right\nso", "advice": None},
        {"check": "fsync", "level": "bad", "what": "lies", "advice": "Buy."},
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (5 << 30, "5 GiB"), (2**63, "8 EiB")],
)
def test_sizes_are_shown_as_they_are_written(count, text):
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "age", "span"),
    [
        (0.0, "0s", "0 s"),
        (5e-6, "0s", "5 µs"),
        (0.0123, "0s", "12 ms"),
        (59.9, "59s", "60 s"),
        (3600.0, "1h", "3600 s"),
        (90000.0, "1d", "90000 s"),
    ],
)
def test_times_are_shown_in_their_largest_unit(seconds, age, span):
    assert age_text(seconds) == age
    assert span_text(seconds) == span

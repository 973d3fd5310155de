"""The moving picture of `resumable put`: a terminal's lines as they were drawn, and small enough for a page."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.recordings import PICTURE, Frame, Screen, drawn, shares, story


def test_a_line_that_is_drawn_anew_replaces_the_one_before() -> None:
    screen = Screen()
    screen.feed("$ put\r\n")
    screen.feed("\x1b[?25lfilm  1 %\r\n  stored  0 %")
    screen.feed("\r\x1b[2K\x1b[1A\x1b[2K\x1b[36mfilm\x1b[0m  2 %\r\n  stored  1 %")
    assert screen.lines == ["$ put", "\x1b[36mfilm\x1b[0m  2 %", "  stored  1 %"]
    screen.feed("\r\x1b[2K\x1b[1A\x1b[2K\x1b[?25hdone\r\n")
    assert screen.lines == ["$ put", "done", ""]


def test_each_frame_is_shown_for_its_time_and_words_are_escaped() -> None:
    frames = [Frame(("\x1b[32m<a>\x1b[0m \x1b[36m━━╸\x1b[0m",), 1.0), Frame(("b",), 3.0)]
    text = drawn(frames, "title")
    root = ElementTree.fromstring(text)
    assert [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")] == ["<a>", "b"]
    assert "0.0000%{transform:translateY(0px)}25.0000%{transform:translateY(-" in text
    assert "animation:go 4.00s" in text and "prefers-reduced-motion" in text
    assert text.count("<rect") == 2, "the window, and the bar without its empty half"


def test_the_picture_in_the_docs_is_small_and_shows_the_cut_and_the_rest() -> None:
    text = PICTURE.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert "the same command goes on" in text and "checked by the server" in text and "the last" in text


@pytest.mark.process
@pytest.mark.slow
def test_a_recording_shows_a_cut_and_goes_on_where_it_was() -> None:
    frames = story()
    shown = ["\n".join(frame.lines) for frame in frames]
    cut = next(number for number, text in enumerate(shown) if "interrupted" in text)
    before = [share for frame in frames[:cut] for share in shares(frame.lines)]
    after = [share for frame in frames[cut:] for share in shares(frame.lines) if share]
    assert before == sorted(before) and 43 <= before[-1] < 100
    assert after == sorted(after) and before[-1] - 5 <= after[0] < 100
    assert "film.mp4  160 MiB, the last" in shown[-1] and "checked by the server" in shown[-1]

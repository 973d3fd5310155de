"""The wording of server-sent events."""

from __future__ import annotations

import pytest

from resumable.http import events


@pytest.mark.parametrize(
    "accept",
    [
        ["text/event-stream"],
        ["Text/Event-Stream"],
        ["application/json;q=0.5, text/event-stream"],
        ["*/*", "text/event-stream;q=0.9"],
    ],
)
def test_who_names_the_type_of_event_streams_gets_events(accept: list[str]) -> None:
    assert events.asked_for(b"GET", accept)


@pytest.mark.parametrize(
    "accept", [[], ["*/*"], ["text/*"], ["application/json"], ["text/event-stream;q=0"], ["text/event-stream; q=0.000"]]
)
def test_who_does_not_name_it_gets_json(accept: list[str]) -> None:
    assert not events.asked_for(b"GET", accept)


def test_a_head_is_never_answered_with_events() -> None:
    assert not events.asked_for(b"HEAD", ["text/event-stream"])


def test_an_event_has_a_name_one_line_of_data_and_maybe_an_id() -> None:
    assert events.event(b"status", b"{}") == b"event: status\ndata: {}\n\n"
    assert events.event(b"status", b"{}", b"7") == b"id: 7\nevent: status\ndata: {}\n\n"


def test_data_of_several_lines_is_refused() -> None:
    with pytest.raises(AssertionError):
        events.event(b"status", b"{}\nevent: forged")


def test_the_same_document_has_the_same_id_in_every_process() -> None:
    assert events.identity_of(b"{}") == events.identity_of(b"{}") != events.identity_of(b"[]")

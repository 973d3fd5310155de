"""The table of a connection's states, and that connections keep to it."""

from __future__ import annotations

import pytest

from resumable.http.channel import StreamingChannel
from resumable.http.h1.states import (
    ANSWERING,
    BODY,
    CLOSING,
    DEAF,
    FIRST_HEAD,
    HEAD,
    IDLE,
    LINGERING,
    OPENED,
    TRANSITIONS,
    ChannelState,
)
from tests.http.http1_client import GET, Client, answer, patch


def test_every_state_is_in_the_table_and_may_be_left_for_closing() -> None:
    assert set(TRANSITIONS) == set(ChannelState)
    assert all(CLOSING in following for following in TRANSITIONS.values())


def test_every_state_is_reached() -> None:
    assert {state for following in TRANSITIONS.values() for state in following} == set(ChannelState) - {OPENED}


def test_only_a_complete_answer_to_a_complete_request_makes_a_connection_idle() -> None:
    assert {state for state, following in TRANSITIONS.items() if IDLE in following} == {ANSWERING}


def test_a_head_follows_nothing_but_the_beginning_and_an_idle_connection() -> None:
    before = {state for state, following in TRANSITIONS.items() if following & {FIRST_HEAD, HEAD}}
    assert before == {OPENED, IDLE}


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[ChannelState]:
    """The states that connections enter from now on."""
    entered: list[ChannelState] = []
    enter = StreamingChannel._enter

    def note(channel: StreamingChannel, state: ChannelState, *deadline: float) -> None:
        entered.append(state)
        enter(channel, state, *deadline)

    monkeypatch.setattr(StreamingChannel, "_enter", note)
    return entered


def test_two_requests_one_after_the_other(walked: list[ChannelState]) -> None:
    client = Client(answer)
    client.send(GET[:5], GET[5:], GET)
    assert walked == [FIRST_HEAD, ANSWERING, IDLE, HEAD, ANSWERING, IDLE]


def test_a_body_that_is_taken(walked: list[ChannelState]) -> None:
    client = Client()
    client.send(patch(5))
    client.deliver()
    client.send(b"hello")
    answer(client.request)
    assert walked == [FIRST_HEAD, BODY, ANSWERING, IDLE]


def test_an_early_answer(walked: list[ChannelState]) -> None:
    client = Client(answer)
    client.send(patch(5), b"hello")
    assert walked == [FIRST_HEAD, BODY, LINGERING, CLOSING]


def test_a_body_that_is_lost_and_answered(walked: list[ChannelState]) -> None:
    client = Client()
    client.send(patch(None), b"no chunk\r\n")
    answer(client.request)
    assert walked == [FIRST_HEAD, BODY, DEAF, LINGERING]


def test_a_refusal(walked: list[ChannelState]) -> None:
    client = Client()
    client.send(b"nonsense\r\n")
    client.hang_up()
    assert walked == [FIRST_HEAD, LINGERING, CLOSING]

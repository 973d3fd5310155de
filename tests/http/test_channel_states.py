"""The table of a connection's states, and that connections keep to it."""

from __future__ import annotations

import pytest
from http1_client import GET, Client, answer, patch

from resumable.http.channel import StreamingChannel
from resumable.http.h1.states import TRANSITIONS, State


def test_every_state_is_in_the_table_and_may_be_left_for_closing() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(State.CLOSING in following for following in TRANSITIONS.values())


def test_every_state_is_reached() -> None:
    assert {state for following in TRANSITIONS.values() for state in following} == set(State) - {State.OPENED}


def test_only_a_complete_answer_to_a_complete_request_makes_a_connection_idle() -> None:
    assert {state for state, following in TRANSITIONS.items() if State.IDLE in following} == {State.ANSWERING}


def test_a_head_follows_nothing_but_the_beginning_and_an_idle_connection() -> None:
    before = {state for state, following in TRANSITIONS.items() if following & {State.FIRST_HEAD, State.HEAD}}
    assert before == {State.OPENED, State.IDLE}


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """The states that connections enter from now on."""
    entered: list[State] = []
    enter = StreamingChannel._enter

    def note(channel: StreamingChannel, state: State, *seconds: float) -> None:
        entered.append(state)
        enter(channel, state, *seconds)

    monkeypatch.setattr(StreamingChannel, "_enter", note)
    return entered


def test_two_requests_one_after_the_other(walked: list[State]) -> None:
    client = Client(answer)
    client.send(GET[:5], GET[5:], GET)
    assert walked == [State.FIRST_HEAD, State.ANSWERING, State.IDLE, State.HEAD, State.ANSWERING, State.IDLE]


def test_a_body_that_is_taken(walked: list[State]) -> None:
    client = Client()
    client.send(patch(5))
    client.deliver()
    client.send(b"hello")
    answer(client.request)
    assert walked == [State.FIRST_HEAD, State.BODY, State.ANSWERING, State.IDLE]


def test_an_early_answer(walked: list[State]) -> None:
    client = Client(answer)
    client.send(patch(5), b"hello")
    assert walked == [State.FIRST_HEAD, State.BODY, State.LINGERING, State.CLOSING]


def test_a_body_that_is_lost_and_answered(walked: list[State]) -> None:
    client = Client()
    client.send(patch(None), b"no chunk\r\n")
    answer(client.request)
    assert walked == [State.FIRST_HEAD, State.BODY, State.DEAF, State.LINGERING]


def test_a_refusal(walked: list[State]) -> None:
    client = Client()
    client.send(b"nonsense\r\n")
    client.hang_up()
    assert walked == [State.FIRST_HEAD, State.LINGERING, State.CLOSING]

"""The probe: what an operator is told of each remote that doesn't work."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from resumable.remotes.errors import (
    AuthFailed,
    Conflict,
    NotThere,
    OutOfStep,
    Permanent,
    RemoteError,
    Throttled,
    Transient,
    Unusable,
)
from resumable.remotes.interfaces import IProbe
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.memory.remote import Fault, MemoryBucket, MemoryRemote
from resumable.remotes.probe import advice, probe


def remote(clock, error=None, **fault):
    made = MemoryRemote(MemoryBucket(), MemoryJournal(), clock)
    if error or fault:
        made.faults.add(Fault("probe", error, **fault))
    return made


def answers(clock, *remotes, **more):
    found = []
    probe(remotes, clock, **more).addCallback(found.append)
    clock.advance(0)
    return found


ERRORS = [AuthFailed, Unusable, Throttled, Transient, NotThere, Permanent, Conflict, OutOfStep, RemoteError]


@pytest.mark.parametrize("kind", ERRORS)
def test_what_is_wrong_is_one_line_of_reason_and_advice(kind):
    clock = Clock()
    (found,) = answers(clock, ("cold", remote(clock, kind("the reason", advice="what to change"))))
    assert found == {"cold": "the reason; what to change"}


@pytest.mark.parametrize("kind", ERRORS)
def test_no_error_is_told_without_what_to_do(kind):
    assert advice(kind("the reason"))


def test_remotes_that_work_have_nothing_to_say():
    clock = Clock()
    assert answers(clock, ("a", remote(clock)), ("b", object())) == [{"a": None, "b": None}]


def test_no_remotes_are_no_answers():
    assert answers(Clock()) == [{}]


def test_remotes_are_asked_at_once_and_none_is_waited_for_longer_than_the_time_out():
    clock = Clock()
    silent, other = remote(clock, silent=True), remote(clock, delay=9.0)
    found = answers(clock, ("silent", silent), ("slow", other), ("well", remote(clock)), patience=10.0)
    clock.advance(9)
    assert not found
    clock.advance(1)
    assert found == [
        {"silent": "no answer in 10 s; check its address, and what lies between", "slow": None, "well": None}
    ]
    assert not clock.getDelayedCalls()


@implementer(IProbe)
class Broken:
    def probe(self) -> Deferred[None]:
        return fail(KeyError("hunter2"))


def test_what_nobody_expected_is_logged_and_told_without_its_words():
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        (found,) = answers(Clock(), ("odd", Broken()))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert found == {"odd": "it could not be tried (KeyError); see the log"}
    assert [event["remote"] for event in events if "remote" in event] == ["odd"]

"""Reading back: required remotes first, the next where one fails, from the very byte, and nothing kept open in vain."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resumable.model.errors import CatalogUnavailable
from resumable.model.replica import ICopy
from resumable.model.upload import Replica, ReplicaState
from resumable.protocol.errors import NotFound, Unavailable
from resumable.remotes.errors import AuthFailed, NotThere, Throttled, Transient
from resumable.remotes.reading import IObjectStream, IReadable, ISigning, Presented
from resumable.replication.copies import OPENING, RESTING, Copies

DATA = bytes(range(100))
PRESENTED = Presented("a/b", "attachment", 60.0)


@implementer(IObjectStream)
class Stream:
    """Ten bytes at a time. ``breaks``: how many reads go well before one fails."""

    def __init__(self, data: bytes, breaks: int | None) -> None:
        self.data, self.breaks = data, breaks
        self.closed = False

    def read(self) -> Deferred[bytes]:
        assert not self.closed
        if self.breaks == 0:
            return fail(Transient("cut"))
        self.breaks = None if self.breaks is None else self.breaks - 1
        piece, self.data = self.data[:10], self.data[10:]
        return succeed(piece)

    def close(self) -> None:
        self.closed = True


@implementer(IReadable, ISigning)
class Remote:
    """Has the data. ``errors``: what the next tries to open it fail with; ``silent``: it never answers."""

    def __init__(self, data: bytes = DATA, *errors: Exception, breaks: int | None = None, silent: bool = False) -> None:
        self.data, self.errors, self.breaks, self.silent = data, list(errors), breaks, silent
        self.asked: list[tuple[int, int]] = []
        self.streams: list[Stream] = []
        self.given_up = 0
        self.url: str | None = "https://store/signed"

    def read_object(self, upload_id: str, start: int, size: int) -> Deferred[Any]:
        self.asked.append((start, size))
        if self.silent:
            return Deferred(self.cancelled)
        if self.errors:
            return fail(self.errors.pop(0))
        self.streams.append(Stream(self.data[start : start + size], self.breaks))
        return succeed(self.streams[-1])

    def signed_url(self, upload_id: str, presented: Presented) -> Deferred[str | None]:
        if self.silent:
            return Deferred(self.cancelled)
        return fail(self.errors.pop(0)) if self.errors else succeed(self.url)

    def cancelled(self, answer: Any) -> None:
        self.given_up += 1


class Plain:
    """A remote that can't be read from."""


class Rig:
    """``required``, ``optional``: remotes by name, in the order in which their replicas were made."""

    def __init__(self, states: dict[str, ReplicaState] | None = None, required: Any = (), **remotes: Any) -> None:
        self.clock = Clock()
        self.remotes = remotes
        self.rows = [
            Replica("u", name, required=name in required, state=(states or {}).get(name, ReplicaState.STORED))
            for name in remotes
        ]
        self.error: Exception | None = None
        self.copies = Copies(remotes, self, self.clock)  # type: ignore[arg-type]

    def of(self, upload_id: str) -> Deferred[Any]:
        return fail(self.error) if self.error else succeed(self.rows)

    def result(self, coroutine: Any) -> Any:
        """What it answers at once, or raises; a Deferred if it waits."""
        done = coroutine if isinstance(coroutine, Deferred) else Deferred.fromCoroutine(coroutine)
        found: list[Any] = []
        done.addBoth(found.append)
        if not found:
            return done
        if hasattr(found[0], "raiseException"):
            found[0].raiseException()
        return found[0]

    def open(self, start: int = 0, size: int = 100) -> Any:
        return self.result(self.copies.open("u", start, size))

    def rest(self, copy: Any, offset: int = 0, end: int = 100) -> bytes:
        got = b""
        while offset + len(got) < end:
            got += self.result(copy.read(offset + len(got), 1000))
        return got


def test_the_bytes_that_were_asked_for_come_from_one_request() -> None:
    rig = Rig(a=Remote())
    copy = rig.open(5, 50)
    assert verifyObject(ICopy, copy)
    assert rig.rest(copy, 5, 55) == DATA[5:55]
    assert rig.remotes["a"].asked == [(5, 50)]
    copy.close()
    copy.close()
    assert rig.remotes["a"].streams[0].closed and not rig.clock.getDelayedCalls()


def test_required_remotes_are_asked_first_and_only_those_that_have_it() -> None:
    remotes = {name: Remote() for name in ("parked", "optional", "one", "two")}
    rig = Rig({"parked": ReplicaState.PARKED}, ("parked", "one", "two"), **remotes)
    rig.rows.append(Replica("u", "unknown", state=ReplicaState.STORED))
    assert rig.rest(rig.open()) == DATA
    assert [name for name, remote in remotes.items() if remote.asked] == ["one"]


@pytest.mark.parametrize("error", [Transient("down"), AuthFailed("no"), NotThere("lost"), Throttled("slow", 3.0)])
def test_where_one_fails_the_next_is_asked(error: Exception) -> None:
    rig = Rig(required=("a", "b"), a=Remote(DATA, error), b=Remote())
    copy = rig.open(7, 93)
    assert rig.rest(copy, 7) == DATA[7:]
    assert rig.remotes["b"].asked == [(7, 93)]


def test_one_that_does_not_answer_is_not_waited_for_longer_than_a_while() -> None:
    rig = Rig(required=("a",), a=Remote(silent=True), b=Remote())
    found: list[Any] = []
    rig.copies.open("u", 0, 100).addBoth(found.append)
    rig.clock.advance(OPENING - 1)
    assert not found
    rig.clock.advance(1)
    assert rig.rest(found[0]) == DATA and rig.remotes["a"].given_up == 1


def test_where_all_fail_it_may_be_asked_for_again() -> None:
    rig = Rig(a=Remote(DATA, NotThere("lost")), b=Remote(DATA, Throttled("slow", 30.0)))
    with pytest.raises(Unavailable) as told:
        rig.open()
    assert told.value.retry_after == 30
    rig = Rig(a=Remote(DATA, Transient("down")))
    with pytest.raises(Unavailable) as told:
        rig.open()
    assert told.value.retry_after > 0 and "down" not in told.value.detail


def test_what_no_remote_has_is_not_found() -> None:
    for rig in (Rig(a=Remote(DATA, NotThere("x")), b=Remote(DATA, NotThere("x"))), Rig(a=Plain()), Rig()):
        with pytest.raises(NotFound):
            rig.open()


def test_a_catalog_that_fails_is_told_as_such() -> None:
    rig = Rig(a=Remote())
    rig.error = CatalogUnavailable("disk")
    for asked in (rig.copies.open("u", 0, 1), rig.copies.signed_url("u", PRESENTED)):
        with pytest.raises(Unavailable):
            rig.result(asked)


def test_another_remote_goes_on_where_one_breaks_off() -> None:
    rig = Rig(required=("a",), a=Remote(breaks=3), b=Remote())
    copy = rig.open()
    assert rig.rest(copy) == DATA
    assert (rig.remotes["a"].asked, rig.remotes["b"].asked) == ([(0, 100)], [(30, 70)])
    assert rig.remotes["a"].streams[0].closed


def test_the_same_remote_goes_on_where_there_is_no_other() -> None:
    rig = Rig(a=Remote(breaks=4))
    assert rig.rest(rig.open()) == DATA
    assert rig.remotes["a"].asked == [(0, 100), (40, 60), (80, 20)]


def test_a_remote_that_breaks_off_without_a_byte_is_not_asked_for_ever() -> None:
    rig = Rig(a=Remote(breaks=0), b=Remote(breaks=0))
    copy = rig.open()
    with pytest.raises(Unavailable):
        rig.rest(copy)
    assert len(rig.remotes["a"].asked) + len(rig.remotes["b"].asked) <= 4
    assert all(each.closed for name in "ab" for each in rig.remotes[name].streams)


@pytest.mark.parametrize("held", [DATA[:50], DATA + b"more"])
def test_an_object_of_another_length_is_no_copy(held: bytes) -> None:
    class Wrong(Remote):
        def read_object(self, upload_id: str, start: int, size: int) -> Deferred[Any]:
            return super().read_object(upload_id, start, 1000)

    rig = Rig(required=("a",), a=Wrong(held), b=Remote())
    assert rig.rest(rig.open()) == DATA


def test_who_rests_has_nothing_open_and_goes_on_later() -> None:
    rig = Rig(a=Remote())
    copy = rig.open()
    got = rig.result(copy.read(0, 10))
    rig.clock.advance(RESTING)
    assert rig.remotes["a"].streams[0].closed
    assert got + rig.rest(copy, 10) == DATA
    assert rig.remotes["a"].asked == [(0, 100), (10, 90)]
    rig.clock.advance(RESTING)
    assert rig.remotes["a"].streams[1].closed and not rig.clock.getDelayedCalls()


def test_who_leaves_while_a_remote_is_asked_again_gives_that_up() -> None:
    rig = Rig(a=Remote(breaks=1))
    copy = rig.open()
    rig.result(copy.read(0, 10))
    rig.remotes["a"].silent = True
    waiting = copy.read(10, 10)
    copy.close()
    with pytest.raises((CancelledError, Unavailable)):
        rig.result(waiting)
    assert rig.remotes["a"].given_up == 1 and not rig.clock.getDelayedCalls()


# signed URLs


def test_the_first_remote_that_can_gives_a_url() -> None:
    rig = Rig(required=("a", "b", "c"), plain=Plain(), a=Remote(DATA, NotThere("x")), b=Remote(), c=Remote())
    rig.remotes["b"].url = None
    rig.remotes["c"].url = "https://c/signed"
    assert rig.result(rig.copies.signed_url("u", PRESENTED)) == "https://c/signed"


def test_where_no_remote_gives_a_url_there_is_none() -> None:
    rig = Rig(a=Remote(DATA, AuthFailed("x")), b=Plain(), c=Remote(silent=True))
    found: list[Any] = []
    rig.copies.signed_url("u", PRESENTED).addBoth(found.append)
    rig.clock.advance(OPENING)
    assert found == [None]

"""Uploads and replicas are counted in pieces, now and then."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from resumable.model.errors import CatalogUnavailable
from resumable.model.listing import Counted, UploadState
from resumable.model.upload import ReplicaState
from resumable.uploads.operators import FRESH, SHARE, Census, Count


class Slow:
    """An IListing that answers when the test says so; each piece has one upload and one replica."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.asked: list[int | None] = []
        self.waiting: list[Callable[[], None]] = []
        self.broken = False

    def count_uploads(self, place: int | None) -> Deferred[Counted]:
        return self._answer(place, Counted({UploadState.STORED: 1}, {}, self._next(place)))

    def count_replicas(self, place: int | None) -> Deferred[Counted]:
        return self._answer(place, Counted({}, {("far", ReplicaState.OPEN): 1}, self._next(place)))

    def _next(self, place: int | None) -> int | None:
        following = (place or 0) + 1
        return following if following < self.pieces else None

    def _answer(self, place: int | None, found: Counted) -> Deferred[Counted]:
        self.asked.append(place)
        answer: Deferred[Counted] = Deferred()
        outcome = CatalogUnavailable("no") if self.broken else found
        self.waiting.append(lambda: answer.errback(outcome) if self.broken else answer.callback(found))  # type: ignore[arg-type]
        return answer

    def go(self, clock: Clock | None = None, seconds: float = 0.0) -> None:
        """Answer all, each after so many seconds."""
        while self.waiting:
            if clock is not None:
                clock.advance(seconds)
            self.waiting.pop(0)()


def census(pieces: int = 1) -> tuple[Census, Slow, Clock]:
    clock, listing = Clock(), Slow(pieces)
    return Census(listing, clock, lambda: 1e9 + clock.seconds()), listing, clock  # type: ignore[arg-type]


def known(census: Census) -> list[Count]:
    """The answer, once it is there."""
    found: list[Count] = []
    census.known().addCallbacks(found.append, lambda failure: failure.trap(CatalogUnavailable))
    return found


def test_all_pieces_are_added_up() -> None:
    counts, listing, _ = census(pieces=3)
    found = known(counts)
    listing.go()
    assert found == [Count(found[0].uploads, found[0].replicas, 1e9)]
    assert (found[0].uploads[UploadState.STORED], found[0].replicas["far", ReplicaState.OPEN]) == (3, 3)
    assert listing.asked == [None, 1, 2, None, 1, 2]


def test_all_who_ask_meanwhile_wait_for_one_count() -> None:
    counts, listing, _ = census()
    waiting = [known(counts) for _ in range(3)]
    listing.go()
    assert [len(each) for each in waiting] == [1, 1, 1]
    assert listing.asked == [None, None]


def test_while_it_is_counted_again_the_last_count_is_told() -> None:
    counts, listing, clock = census()
    known(counts)
    listing.go()
    clock.advance(FRESH - 1)
    (first,) = known(counts)
    assert listing.waiting == []
    clock.advance(1)
    assert known(counts) == [first]
    listing.go()
    assert known(counts)[0].at == 1e9 + FRESH


def test_what_takes_long_is_done_seldom() -> None:
    counts, listing, clock = census()
    known(counts)
    listing.go(clock, 5.0)
    clock.advance(SHARE * 10.0 - 1)
    known(counts)
    assert listing.waiting == []
    clock.advance(1)
    known(counts)
    assert listing.waiting != []


def test_a_catalog_that_fails_is_asked_again() -> None:
    counts, listing, _ = census()
    listing.broken = True
    assert known(counts) == []
    listing.go()
    listing.broken = False
    found = known(counts)
    listing.go()
    assert len(found) == 1


def test_who_goes_away_leaves_the_count_to_the_others() -> None:
    counts, listing, _ = census()
    gone = counts.known()
    stays = known(counts)
    gone.addErrback(lambda _: None)
    gone.cancel()
    listing.go()
    assert len(stays) == 1

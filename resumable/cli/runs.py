"""Carries several files at a time, in threads, and shows them while it does.

Invariants: the board is called in this thread alone. Ctrl-C ends all transfers within a moment, and leaves their state,
so that the same command goes on. What would fail in the same way for each file (a wrong token or URL) is tried once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from attrs import frozen

from resumable import client
from resumable.cli.advice import ends_all, words
from resumable.cli.boards import Board, Ended
from resumable.cli.receipts import Result
from resumable.cli.trips import AllTrips, Trip

OnEvent = Callable[[client.TransferEvent], None]
Work = Callable[[Trip, OnEvent], Result]

#: Seconds between two pictures.
REFRESH: Final = 0.2
#: Seconds for which Ctrl-C waits for the transfers: requests under way are cut at once.
PATIENCE: Final = 10.0


@frozen
class Happened:
    """What the showing thread is to hear of: an event, a result, an error, or (None) that it has begun."""

    trip: Trip
    what: client.TransferEvent | Result | Exception | None


class Runs:
    """``work``: carries one file, in a thread of its own. ``jobs``: how many at a time. ``cancel``: ends them all.
    ``words``: of an error, for people. ``ends_all``: whether the others would meet the same."""

    def __init__(
        self,
        trips: Sequence[Trip],
        work: Work,
        jobs: int,
        cancel: Callable[[], None],
        words: Callable[[Exception], str] = words,
        ends_all: Callable[[Exception], bool] = ends_all,
    ) -> None:
        self._work = work
        self._words = words
        self._ends_all = ends_all
        self._cancel = cancel
        self._next: Iterator[Trip] = iter(trips)
        self._lock = threading.Lock()
        self._happened: SimpleQueue[Happened | None] = SimpleQueue()
        self._ending = False
        self._waiting = len(trips)
        self.together = AllTrips(trips, time.monotonic())
        many = max(1, min(jobs, len(trips)))
        self._threads = [threading.Thread(target=self._carry_all, daemon=True) for _ in range(many)]
        self._running = many

    def start(self) -> None:
        """Begin; what is slow about showing can be made ready meanwhile."""
        for thread in self._threads:
            thread.start()

    def _take(self) -> Trip | None:
        with self._lock:
            return None if self._ending else next(self._next, None)

    def _carry_all(self) -> None:
        try:
            while (trip := self._take()) is not None:
                trip.begin(time.monotonic())
                self._happened.put(Happened(trip, None))
                self._happened.put(Happened(trip, self._carried(trip)))
        finally:
            self._happened.put(None)

    def _carried(self, trip: Trip) -> Result | Exception:
        try:
            return self._work(trip, self._heard(trip))
        except Exception as error:  # it is told in the other thread
            if self._ends_all(error):
                self._ending = True
            return error

    def _heard(self, trip: Trip) -> OnEvent:
        def heard(event: client.TransferEvent) -> None:
            trip.heed(event, time.monotonic())
            if not isinstance(event, client.Moved | client.Received | client.Looked | client.Checking):
                self._happened.put(Happened(trip, event))

        return heard

    def show(self, board: Board, finished: Callable[[Trip, Result], None]) -> Ended:
        """Until all is over. ``finished`` hears of each file that is there."""
        interrupted = False
        try:
            self._follow(board, finished)
        except KeyboardInterrupt:
            interrupted = True
            self._stop(finished, board)
        finally:
            board.close()
        return Ended(self.together, interrupted)

    def _follow(self, board: Board, finished: Callable[[Trip, Result], None]) -> None:
        due = 0.0
        while self._running:
            for each in self._news(REFRESH):
                self._tell(each, board, finished)
            now = time.monotonic()
            if now >= due:
                due = now + REFRESH
                self.together.tick(now)
                board.refresh(self.together, now)

    def _news(self, patience: float) -> Iterable[Happened]:
        """What has happened; the first of it within so many seconds."""
        try:
            while True:
                each = self._happened.get(timeout=patience)
                patience = 0
                if each is None:
                    self._running -= 1
                    if not self._running:
                        return
                else:
                    yield each
        except Empty:
            return

    def _tell(self, each: Happened, board: Board, finished: Callable[[Trip, Result], None]) -> None:
        trip, what = each.trip, each.what
        now = time.monotonic()
        if what is None:
            self._waiting -= 1
            self.together.begun(trip)
        elif isinstance(what, Result):
            trip.size = what.size
            trip.end("done", now)
            self.together.over(trip)
            finished(trip, what)
            board.done(trip, what)
        elif isinstance(what, client.TransferCancelled):
            self.together.over(trip)
        elif isinstance(what, Exception) and BrokenPipeError in (type(what), type(what.__cause__)):
            raise BrokenPipeError  # whoever reads standard output has enough
        elif isinstance(what, client.ClientError | OSError):
            trip.end("failed", now, self._words(what))
            self.together.over(trip)
            board.failed(trip, what)
        elif isinstance(what, Exception):
            raise what
        else:
            board.told(trip, what)

    def _stop(self, finished: Callable[[Trip, Result], None], board: Board) -> None:
        """Cut all, and take what has come to its end in this moment."""
        self._ending = True
        self._cancel()
        until = time.monotonic() + PATIENCE
        while self._running and time.monotonic() < until:
            for each in self._news(REFRESH):
                self._tell(each, board, finished)

    @property
    def untried(self) -> int:
        """Files that were never begun."""
        return self._waiting

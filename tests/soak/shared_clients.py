"""Clients of several processes behind a balancer: each of their requests may come to another one.

Invariant: an answer of the balancer's own (it lost its backend) counts as no answer; a HEAD that a server answers with
5xx while the database is there ends up in the ledger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import permutations
from typing import Final

from tests.e2e.tus import Fields, Tus, patch_head
from tests.e2e.wire import Answer

from .clients import LATER, MIB
from .draft_clients import BALANCER, DraftClient
from .fleet import Postgres
from .ledger import Ledger, data_of

LARGE: Final = 8 * MIB
"""Bytes of what is to take long."""


class BalancedTus(Tus):
    """By way of the balancer. ``refused``: how many HEADs were answered with 5xx during outages of the database."""

    def __init__(self, port: int, ledger: Ledger, database: Postgres) -> None:
        super().__init__(port, timeout=20)
        self._ledger = ledger
        self.database = database

    def ask(
        self,
        method: str,
        target: str | None = None,
        fields: Fields | None = None,
        body: bytes | Iterable[bytes] | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Answer:
        began = time.monotonic()
        answer = super().ask(method, target, fields, body, trailers)
        if method == "HEAD" and answer.status >= 500:
            if self.database.away(began, time.monotonic()):
                self._ledger.count("(HEAD refused in an outage)")
            else:
                self._ledger.problem(f"HEAD of {target} was answered {answer} while the database was there")
        return answer

    def _exchange(self, method: str, message: bytes) -> Answer:
        answer = super()._exchange(method, message)
        if answer.status in BALANCER and "tus-resumable" not in answer:
            self.close()
            raise EOFError("the balancer has lost its backend")
        return answer


class SharedClient(DraftClient):
    """Does what the others do, and what only matters where requests come to several processes.

    ``abandons``: whether some of its uploads shall expire.
    """

    ways = ("http1",)
    later = LATER | {408}
    """A process that stood still itself takes its clients for silent."""

    def __init__(
        self,
        tus: BalancedTus,
        ledger: Ledger,
        seed: int,
        gate: threading.Event,
        over: threading.Event,
        abandons: bool,
    ) -> None:
        super().__init__(tus, ledger, seed, gate, over)
        self._abandons = abandons
        self._another = lambda: BalancedTus(tus.port, ledger, tus.database)

    def kinds(self) -> list[tuple[Callable[[], None], int]]:
        own: list[tuple[Callable[[], None], int]] = [
            (self.pieces, 6), (self.polled, 3), (self.joined_early, 2), (self.contested, 2), (self.ended_under_way, 2),
        ]  # fmt: skip
        return [*super().kinds(), *own, *([(self.abandoned, 1)] if self._abandons else [])]

    def pieces(self) -> None:
        """Small appends, one after the other."""
        data = self._data(40_000)
        path = self._create(len(data))
        at = 0
        while (at := self._offset(path, at, len(data))) < len(data):
            piece = data[at : at + self._random.randrange(1, 8000)]
            answer = self._try(lambda at=at, piece=piece: self.tus.patch(path, at, piece))
            assert answer is None or answer.status in self.later | {204, 409}, answer
        self._ledger.finished(path, data)

    def polled(self) -> None:
        """A slow body, and HEADs beside it that disturb nobody and never go back."""
        data = self._data(6 * MIB)
        path = self._create(len(data))
        at = 0
        while (at := self._offset(path, at, len(data))) < len(data):
            try:
                with self.tus.wire() as wire:
                    wire.send(patch_head(path, at, len(data) - at))
                    known, step = at, max(1, (len(data) - at) // 12)
                    for begin in range(at, len(data), step):
                        wire.send(data[begin : begin + step])
                        known = self._offset(path, known, min(begin + step, len(data)))
                    at = known
                    answer = wire.answer("PATCH")
                    assert answer.status in self.later | {204, 409, 502}, answer
            except (OSError, EOFError):
                self._pause()
        self._ledger.finished(path, data)

    def joined_early(self) -> None:
        """The final is asked for before its partials are there, which come in another order."""
        pieces = [self._data(2 * MIB) for _ in range(3)]
        paths = [self._create(len(each), {"Upload-Concat": "partial"}) for each in pieces]
        final = self._create(None, {"Upload-Concat": "final;" + " ".join(paths)})
        for path, piece in self._random.sample(list(zip(paths, pieces, strict=True)), 3):
            self._bring(path, piece, cut=0.2, enter=False)
        self._until(lambda: "upload-offset" in self._persist(lambda: self.tus.head(final)))
        self._ledger.finished(final, b"".join(pieces))

    def abandoned(self) -> None:
        """It comes never again, and expires."""
        data = self._data(200_000)
        path = self._create(len(data))
        self._try(lambda: self.tus.patch(path, 0, data[: len(data) // 2]))
        self._ledger.abandoned(path)

    def contested(self) -> None:
        """Several send the same at one offset, at the same time: what is acknowledged is right."""
        data = self._data(2 * MIB)
        path = self._create(len(data))
        strange: list[Answer] = []

        def send() -> None:
            tus = self._another()
            try:
                answer = tus.patch(path, 0, data)
                if answer.status not in self.later | {204, 409}:
                    strange.append(answer)
            except (OSError, EOFError):
                pass
            finally:
                tus.close()

        threads = [threading.Thread(target=send) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not strange, strange
        self._bring(path, data)

    def ended_under_way(self) -> None:
        """Terminated in the middle of a body that comes to another process."""
        data = self._data(3 * MIB)
        path = self._create(len(data))
        try:
            with self.tus.wire() as wire:
                wire.send(patch_head(path, 0, len(data)) + data[: len(data) // 2])
                self._persist(lambda: self.tus.delete(path), also=(204, 404, 410))
                self._ledger.ended(path)
                wire.offer(data[len(data) // 2 :])
                answer = wire.answer("PATCH")
                assert answer.status in self.later | {404, 409, 410, 502}, answer
        except (OSError, EOFError):
            self._persist(lambda: self.tus.delete(path), also=(204, 404, 410))
            if not self._ledger.knows(path):
                self._ledger.ended(path)


class Bait(SharedClient):
    """Works only while ``gate`` is open, at what takes long. ``what``: the name of one of its methods. ``ready``: it
    comes to that now."""

    def __init__(self, tus: BalancedTus, ledger: Ledger, seed: int, over: threading.Event, what: str) -> None:
        self.gate = threading.Event()
        self.ready = threading.Event()
        super().__init__(tus, ledger, seed, self.gate, over, abandons=False)
        self._what = what

    def kinds(self) -> list[tuple[Callable[[], None], int]]:
        return [(getattr(self, self._what), 1)]

    def large_finals(self) -> None:
        """Several of the same partials, in all their orders."""
        pieces = [data_of(next(self._numbers), LARGE) for _ in range(3)]
        parts = [(self._create(len(each), {"Upload-Concat": "partial"}), each) for each in pieces]
        for path, piece in parts:
            self._bring(path, piece, enter=False)
        self.ready.set()
        for order in permutations(parts):
            if self.gate.is_set():
                final = self._create(None, {"Upload-Concat": "final;" + " ".join(path for path, _ in order)})
                self._until(lambda path=final: "upload-offset" in self._persist(lambda: self.tus.head(path)))
                self._ledger.finished(final, b"".join(piece for _, piece in order))

    def halves(self) -> None:
        """Two requests, and so most often segments of two processes."""
        data = data_of(next(self._numbers), LARGE)
        path = self._create(len(data))
        self._try(lambda: self.tus.patch(path, 0, data[: LARGE // 2]))
        self.ready.set()
        self._bring(path, data)

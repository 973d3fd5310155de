"""The base of the suite's tests, and the methods that a backend's test case must have.

Invariant: no test waits, or knows how a store works; everything goes through the interfaces and the methods of
`RemoteCase` that a test case fills in.
"""

from __future__ import annotations

import functools
import unittest
import uuid
from array import array
from collections.abc import Mapping
from threading import Event
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from resumable.remotes.interfaces import (
    IJournal,
    ILoan,
    IPartRemote,
    IPlanned,
    IRegion,
    IRemoteStorage,
    OutOfStep,
    Part,
    Stored,
)
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.plan import Plan, Step
from resumable.remotes.regions import STEP, BytesRegion

R = TypeVar("R")
LONGEST_SILENCE = 30.0
"""Seconds: so that a test that failed before it made the region speak ends."""


class JournalBroke(Exception):
    """The journal of a test stopped working, as if the process had died there."""


class SpoolBroke(Exception):
    """The region of a test can't be read."""


class BreakingJournal(MemoryJournal):
    """Takes ``good`` saves; the next one fails, with its effect or without, and so does all that follows."""

    def __init__(self) -> None:
        super().__init__()
        self.good: int | None = None
        self.keeps_the_last = False

    def save(self, upload_id: str, value: Mapping[str, Any]) -> Deferred[None]:
        """See IJournal."""
        return Deferred.fromCoroutine(self._counted(super().save, upload_id, value))

    def save_part(self, upload_id: str, number: int, value: str) -> Deferred[None]:
        """See IPartJournal."""
        return Deferred.fromCoroutine(self._counted(super().save_part, upload_id, number, value))

    def drop_parts(self, upload_id: str) -> Deferred[None]:
        """See IPartJournal."""
        return Deferred.fromCoroutine(self._counted(super().drop_parts, upload_id))

    async def _counted(self, save: Any, *args: Any) -> None:
        left, self.good = self.good, None if self.good is None else self.good - 1
        if left is None or left > 0 or (left == 0 and self.keeps_the_last):
            await save(*args)
        if left is not None and left <= 0:
            raise JournalBroke


@implementer(IRegion)
class WatchedRegion(BytesRegion):
    """Remembers the largest read; fails at the offset ``breaks_at``, or doesn't answer there if it is ``silent``.

    A thread that it was lent to it keeps waiting until `speak`.
    """

    def __init__(self, data: bytes, breaks_at: int | None = None, silent: bool = False) -> None:
        super().__init__(data)
        self.largest = 0
        self._breaks_at = breaks_at
        self._silent = silent
        self._spoken = Event()

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See IRegion."""
        self.largest = max(self.largest, size)
        if self._breaks_at is not None and offset + size > self._breaks_at:
            answer: Deferred[bytes] = Deferred()
            if not self._silent:
                answer.errback(SpoolBroke())
            return answer
        return super().read(offset, size)

    def lend(self) -> ILoan:
        """See IRegion."""
        return _WatchedLoan(self, super().lend())

    def speak(self) -> None:
        """Be silent no more, but fail."""
        self._spoken.set()

    def watch(self, offset: int, size: int) -> None:
        """The first step of a lent read, in its thread."""
        self.largest = max(self.largest, size)
        if self._breaks_at is not None and offset + size > self._breaks_at:
            if self._silent:
                self._spoken.wait(LONGEST_SILENCE)
            raise SpoolBroke


@implementer(ILoan)
class _WatchedLoan:
    def __init__(self, region: WatchedRegion, loan: ILoan) -> None:
        self._region = region
        self._loan = loan

    def read(self, offset: int, size: int) -> bytes:
        self._region.watch(offset, size)
        return self._loan.read(offset, size)

    def give_back(self) -> None:
        self._loan.give_back()


class RemoteCase:
    """``chunk_size``: a size of chunks that the store takes, at least 64 KiB (S3: 5 MiB)."""

    chunk_size: int = 3 * STEP
    carries_ids: bool = True
    """Whether the store's objects say whose they are; else one of the same size may be taken for ours."""

    # -- to be filled in

    def make_remote(self, journal: IJournal) -> Any:
        """A new backend on the store. Called again in the same test it means a restart: same store, same journal.

        Let each test have an empty store, or a prefix of its own in a shared one. If the backend provides IPlanned,
        let its parts have ``chunk_size`` bytes.
        """
        raise NotImplementedError

    def fetch(self, url: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """The answer to a GET by a stranger: status, headers by lower-case name, body. For ISigning only."""
        raise NotImplementedError

    def read_object(self, key: str) -> bytes | None:
        """The object that the store shows to others under a key; None: nothing."""
        raise NotImplementedError

    def put_foreign(self, key: str, data: bytes) -> None:
        """Put somebody else's object under a key. Left as it is, the tests that need it are skipped."""
        raise unittest.SkipTest("there is no way to put a foreign object into this store")

    def settle(self) -> None:
        """Let the backend do its waiting work, e.g. ``clock.advance(1)``. Called until there is an answer."""

    def outcome(self, answer: Deferred[R]) -> R | Failure:
        """The result of a Deferred. With a real reactor replace it, e.g. by ``pytest_twisted.blockon``."""
        results: list[R | Failure] = []
        answer.addBoth(results.append)
        for _ in range(100_000):
            if results:
                return results[0]
            self.settle()
        raise AssertionError("no answer")

    # -- for the tests

    journal: BreakingJournal
    remote: Any

    def setUp(self) -> None:
        """A new remote over an empty journal, the id of an upload, and its data."""
        self.journal = BreakingJournal()
        self.remote = self.make_remote(self.journal)
        self.id = self.new_id()
        self.data = pattern(2 * self.chunk_size + 1000)

    def restart(self) -> None:
        """A new process over the same store and journal."""
        self.journal.good = None
        self.remote = self.make_remote(self.journal)

    def new_id(self) -> str:
        """An upload's id that was never used."""
        return uuid.uuid4().hex

    def ask(self, answer: Deferred[R]) -> R:
        """The result; raises its failure."""
        result = self.outcome(answer)
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def refusal(self, answer: Deferred[Any], *kinds: type[Exception]) -> Any:
        """Its failure's exception, which is of one of the kinds."""
        result = self.outcome(answer)
        assert isinstance(result, Failure), f"it answered {result!r}"
        if not result.check(*kinds):
            result.raiseException()
        return result.value

    def need(self, interface: type[Interface]) -> Any:
        """The backend, or a skip if it hasn't that capability."""
        if not interface.providedBy(self.remote):
            raise unittest.SkipTest(f"the backend does not provide {interface.__name__}")
        return self.remote

    def initiate(self, size: int | None, upload_id: str = "", metadata: Mapping[str, bytes] | None = None) -> str:
        """Initiate an upload; answers its key."""
        remote: IRemoteStorage = self.remote
        return self.ask(remote.initiate_upload(upload_id or self.id, size, metadata or {}))

    def plan(self, upload_id: str = "") -> Plan:
        """The backend's own, or equal chunks."""
        if IPlanned.providedBy(self.remote):
            return self.ask(self.remote.part_plan(upload_id or self.id))
        return Plan((Step(self.chunk_size, 10_000),))

    def write(self, part: Part, data: bytes | None = None, upload_id: str = "") -> None:
        """Write that part of the data, or of ``self.data``."""
        piece = (self.data if data is None else data)[part.offset : part.end]
        self.ask(self.remote.write_chunk(upload_id or self.id, part.offset, BytesRegion(piece), part.size))

    def progress(self, upload_id: str = "") -> int:
        """How many bytes the remote has confirmed."""
        remote: IRemoteStorage = self.remote
        return self.ask(remote.get_upload_progress(upload_id or self.id))

    def begin(self, chunks: int = 1, size: int | None = -1) -> list[Part]:
        """Initiate and write that many chunks; answers all the parts there are."""
        self.initiate(len(self.data) if size == -1 else size)
        parts = list(self.plan().parts(len(self.data)))
        for part in parts[:chunks]:
            self.write(part)
        return parts

    def store(self, data: bytes | None = None, upload_id: str = "") -> Stored:
        """Do as replication does with a complete upload, whatever happened to it before."""
        data = self.data if data is None else data
        upload_id = upload_id or self.id
        for _ in range(5):
            try:
                self.initiate(len(data), upload_id)
                for part in self.plan(upload_id).parts_within(len(data), len(data), True, self.progress(upload_id)):
                    self.write(part, data, upload_id)
                stored: Stored = self.ask(self.remote.finalize_upload(upload_id))
                return stored
            except OutOfStep:
                continue
        raise AssertionError("out of step again and again")

    def takes_any_order(self) -> bool:
        """Whether parts may come in any order."""
        return bool(IPartRemote.providedBy(self.remote))


@functools.cache
def pattern(size: int) -> bytes:
    """Bytes of which each stretch is unlike the others."""
    numbers = array("I", range(size // 4 + 1))
    numbers.byteswap()  # the first bytes of small ones would be alike
    return numbers.tobytes()[:size]

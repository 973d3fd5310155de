"""From the reactor to the SDK and back, and the bodies that the SDK reads in its threads.

Invariant: the SDK runs in threads of its own, so many at most as requests may be under way; the daemon's other threads,
which write clients' data, never wait for a store. Each of its exceptions becomes a `RemoteError`, except for a failure
of reading the spool. A call that was given up reads no more of the spool; its thread ends with the answer or the
time-out.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from threading import Lock
from typing import Any, TypeVar

from azure.core.exceptions import AzureError
from azure.storage.blob import ContainerClient
from twisted.internet.defer import Deferred

from resumable.aio.threads import Pool
from resumable.httpclient.bodies import PIECE
from resumable.remotes.azure.access import AzureAccess
from resumable.remotes.azure.errors import error_from
from resumable.remotes.errors import AuthFailed
from resumable.remotes.interfaces import IRegion, RegionLost
from resumable.remotes.regions import STEP, BodyMemory

R = TypeVar("R")


class Calls:
    """``threads``: requests at once. ``now``: seconds since the epoch. ``memory``: of all bodies together.

    The threads start with the first call.
    """

    def __init__(
        self,
        reactor: Any,
        access: AzureAccess,
        threads: int,
        now: Callable[[], float],
        memory: BodyMemory | None = None,
    ) -> None:
        self._reactor = reactor
        self._memory = memory or BodyMemory()
        self._access = access
        self._now = now
        self._pool = Pool(reactor, threads, "azure")
        self._started = False
        self._bodies: set[BlobBody] = set()

    async def ask(self, operation: str, call: Callable[[ContainerClient], R]) -> R:
        """The answer of ``call``, made in a thread. Raises RemoteError; ``operation`` is named in its reason."""
        return await self._renewing(operation, lambda client: self._run(operation, call, client))

    async def send(self, operation: str, call: Callable[[ContainerClient, BlobBody], R], data: IRegion) -> R:
        """The same with a body, which ``call`` reads."""

        async def once(client: ContainerClient) -> R:
            body = BlobBody(self._reactor, data)
            self._bodies.add(body)
            try:
                return await self._run(operation, lambda given: call(given, body), client)
            except Exception:
                if body.failure is not None:
                    raise body.failure from None
                raise
            finally:
                self._bodies.discard(body)
                body.give_up()

        held = min(data.size, PIECE)
        await self._memory.acquire(held)
        try:
            return await self._renewing(operation, once)
        finally:
            self._memory.release(held)

    async def close(self) -> None:
        """Give up all calls that are under way, and end the threads."""
        for body in list(self._bodies):
            body.give_up()
        if self._started:
            await self._pool.stop()
        self._access.close()

    async def _renewing(self, operation: str, once: Callable[[ContainerClient], Coroutine[Deferred[Any], Any, R]]) -> R:
        """Once more, if there are new credentials."""
        client = self._access.client
        try:
            return await once(client)
        except AuthFailed as error:
            try:
                renewed = await self._run(operation, lambda _: self._access.renew(client), client)
            except ValueError as problem:
                raise AuthFailed(f"{error.reason}; {problem}", status=error.status, code=error.code) from None
            if not renewed:
                raise
        return await once(self._access.client)

    async def _run(self, operation: str, call: Callable[[ContainerClient], R], client: ContainerClient) -> R:
        if not self._started:
            self._started = True
            self._pool.start()
        try:
            return await self._pool.run(copy_context().run, call, client)
        except AzureError as error:
            raise error_from(operation, error, self._now()) from None


class GivenUp(Exception):
    """Nobody waits for this request any more."""


class BlobBody:
    """A region as a file for `requests`. ``failure``: the error of reading the region.

    Raises ValueError when the region can't be read any more.
    """

    def __init__(self, reactor: Any, region: IRegion) -> None:
        self.failure: BaseException | None = None
        self._reactor = reactor
        self._size = int(region.size)
        self._loan = region.lend()
        self._piece = b""
        self._read = 0
        self._guard = Lock()  # of the two below; held for no read
        self._reading = False
        self._given_up = False

    # in the thread

    def __len__(self) -> int:
        return self._size

    def tell(self) -> int:
        """How much was handed out."""
        return self._read - len(self._piece)

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes at most, at least one but at the end. Raises the region's error."""
        if not self._piece and self._read < self._size:
            self._piece = self._at(self._read)
            self._read += len(self._piece)
        taken = self._piece if size < 0 else self._piece[:size]  # no copy where that is all of it
        self._piece = self._piece[len(taken) :]
        return taken

    def md5(self) -> str:
        """Of the whole, in Base64, for Content-MD5: the store checks it before it takes the bytes. Raises as `read`."""
        md5 = hashlib.md5(usedforsecurity=False)
        for offset in range(0, self._size, STEP):
            md5.update(self._at(offset))
        return b64encode(md5.digest()).decode()

    def _at(self, offset: int) -> bytes:
        size = min(STEP, self._size - offset)
        try:
            self._begin()
            try:
                piece = self._loan.read(offset, size)
            finally:
                self._end()
            if len(piece) != size:
                raise RegionLost(f"{size} bytes were committed, {len(piece)} are there")
        except Exception as failure:
            self.failure = failure
            raise
        return piece

    def _begin(self) -> None:
        with self._guard:
            if self._given_up:
                raise GivenUp
            self._reading = True

    def _end(self) -> None:
        with self._guard:
            self._reading = False
            given_up = self._given_up
        if given_up:
            self._reactor.callFromThread(self._loan.give_back)

    # in the reactor

    def give_up(self) -> None:
        """Read no more, wherever the thread is. May be repeated."""
        with self._guard:
            self._given_up = True
            reading = self._reading
        if not reading:
            self._loan.give_back()

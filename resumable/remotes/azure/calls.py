"""From the reactor to the SDK and back.

One reason to change: how blocking calls are made, given up and renewed.

Invariant: the SDK runs in threads of its own, so many at most as requests may be under way; the daemon's other
threads, which write what clients send, never wait for a store. Whatever it raises becomes a `RemoteError`, but for
what reading the spool failed with. A call that was given up reads no more of the spool; its thread ends with the
answer or the time-out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from azure.core.exceptions import AzureError
from azure.storage.blob import ContainerClient
from twisted.internet.defer import Deferred

from resumable.aio.threads import Pool
from resumable.httpclient.bodies import PIECE
from resumable.remotes.azure.access import Access
from resumable.remotes.azure.body import Body
from resumable.remotes.azure.errors import error_from
from resumable.remotes.errors import AuthFailed
from resumable.remotes.interfaces import IRegion
from resumable.remotes.memory_held import Memory

R = TypeVar("R")


class Calls:
    """``threads``: requests at once. ``now``: seconds since the epoch. ``memory``: what all bodies may hold.

    The threads start with the first call.
    """

    def __init__(
        self, reactor: Any, access: Access, threads: int, now: Callable[[], float], memory: Memory | None = None
    ) -> None:
        self._reactor = reactor
        self._memory = memory or Memory()
        self._access = access
        self._now = now
        self._pool = Pool(reactor, threads, "azure")
        self._started = False
        self._bodies: set[Body] = set()

    async def ask(self, operation: str, call: Callable[[ContainerClient], R]) -> R:
        """What ``call`` answers in a thread. Raises RemoteError; ``operation`` is named in its reason."""
        return await self._renewing(operation, lambda client: self._run(operation, call, client))

    async def send(self, operation: str, call: Callable[[ContainerClient, Body], R], data: IRegion) -> R:
        """The same with a body, which ``call`` reads."""

        async def once(client: ContainerClient) -> R:
            body = Body(self._reactor, data)
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
        """Give up what is under way and end the threads."""
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

"""On PostgreSQL: messages between workers, by LISTEN and NOTIFY.

Invariants: nothing here waits for the database: one connection listens, and the reactor watches it; messages go
through another one, in a thread. They go in transactions of their own: a NOTIFY that commits with anything else makes
all others wait for the disk. Seconds and bytes.
Spec: https://www.postgresql.org/docs/current/sql-notify.html.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import psycopg
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.aio.deferreds import Timer
from resumable.aio.threads import IBatcher, Stopped
from resumable.catalog.postgres.postgres_connection import Connect, unavailable
from resumable.model.errors import CatalogUnavailable
from resumable.model.workers import IWake, Listener

MOST_BYTES: Final = 7900
"""Of one NOTIFY; the server takes less than 8,000."""
MOST_WAITING: Final = 10_000
"""Messages that wait to be told; the oldest are given up for newer ones."""
PAUSES: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the listening connection is tried again, the last one for ever."""
HEARING: Final = 5.0
"""Seconds within which a worker must hear itself."""
_ITSELF: Final = "itself"

Message = tuple[str, str, str]
"""Channel, topic, text."""


class IReactor(IReactorTime, IReactorFDSet):
    """What is needed of the reactor."""


class MakesBatcher(Protocol):
    """See `PostgresCatalog`."""

    def __call__(self, name: str, work: Callable[[list[Any]], Sequence[Any]], /) -> IBatcher[Any, Any]: ...


def channel(worker_id: str | None) -> str:
    """The channel of one worker, or (None) of all."""
    return f"resumable_{'all' if worker_id is None else worker_id}"


@implementer(IReadDescriptor)
class _Listening:
    """One connection that listens; the reactor watches its socket.

    The descriptor is a copy: libpq closes its own as soon as the connection is lost, and the number may be another's
    before the reactor was told.
    """

    def __init__(
        self, raw: psycopg.Connection[Any], heard: Callable[[bytes], None], lost: Callable[[BaseException], None]
    ) -> None:
        self._raw = raw
        self._descriptor = os.dup(raw.fileno())
        self._heard = heard
        self._lost = lost

    def logPrefix(self) -> str:
        return "wake"

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        libpq = self._raw.pgconn
        try:
            libpq.consume_input()
        except psycopg.Error as error:
            self._lost(error)
            return
        while (notify := libpq.notifies()) is not None:
            self._heard(notify.extra)

    def connectionLost(self, reason: Failure) -> None:
        self._lost(reason.value or ConnectionError())

    def close(self) -> None:
        """After the reactor has forgotten it."""
        os.close(self._descriptor)
        self._descriptor = -1
        with suppress(psycopg.Error):
            self._raw.close()


@implementer(IWake)
class PostgresWake:
    """IWake, for the worker ``worker_id``. ``batcher`` is called as that of `PostgresCatalog`.

    `start`, and at the end `stop`. Where a pooler is in between that gives each transaction another connection, nothing
    is ever heard: see `hears_itself`.
    """

    log = Logger()

    def __init__(self, connect: Connect, worker_id: str, reactor: IReactor, *, batcher: MakesBatcher) -> None:
        self._connect = connect
        self._id = worker_id
        self._reactor = reactor
        self._batcher: IBatcher[Callable[[], Any], Any] = batcher("wake", _call_each)
        self._telling: psycopg.Connection[Any] | None = None  # in the batcher's thread only
        self._listeners: dict[str, list[Listener]] = {}
        self._waiting: dict[Message, None] = {}
        self._under_way = False
        self._listening: _Listening | None = None
        self._retry = Timer(reactor, self._listen)
        self._failed = 0
        self._running = False

    def start(self) -> None:
        """Listen from now on. Never before the process has forked for good."""
        self._running = True
        self._batcher.start()
        self._listen()

    def stop(self) -> Deferred[None]:
        """Nothing is heard any more; what was told before goes out. May be repeated."""
        if self._running:
            self._running = False
            self._retry.clear()
            self._deafen()
            self._send()
            self._batcher.submit(self._hang_up).addErrback(lambda failure: failure.trap(Stopped))
        return self._batcher.stop()

    # IWake

    def tell(self, worker_id: str | None, topic: str, text: str) -> None:
        """See IWake. A text of more than `MOST_BYTES` is not told, and that is logged."""
        if not self._running:
            return
        message = (channel(worker_id), topic, text)
        if len(_encoded(self._id, [message])) > MOST_BYTES:
            self.log.error("a message is too long to be told", topic=topic, size=len(text))
            return
        self._waiting[message] = None
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        if not self._under_way:
            self._under_way = True
            self._reactor.callLater(0, self._send)

    def listen(self, topic: str, listener: Listener) -> None:
        """See IWake."""
        self._listeners.setdefault(topic, []).append(listener)

    def hears_itself(self) -> Deferred[bool]:
        """Whether a message that this worker tells itself arrives within `HEARING` seconds: asked at its start.

        False: a pooler is in between that gives each transaction another connection (PgBouncer: ``pool_mode`` must be
        ``session``). Fails with CatalogUnavailable when the database can't be reached.
        """
        token = secrets.token_hex(8)
        answer: Deferred[bool] = Deferred(lambda _: over())
        listeners = self._listeners.setdefault(_ITSELF, [])
        repeat: IDelayedCall | None = None

        def hear(_: str, text: str) -> None:
            if text == token and not answer.called:
                over()
                answer.callback(True)

        def give_up() -> None:
            listening = self._listening is not None
            over()
            if listening:
                answer.callback(False)
            else:
                answer.errback(CatalogUnavailable("the connection for messages between workers can't be made"))

        def again() -> None:
            nonlocal repeat
            repeat = self._reactor.callLater(HEARING / 20, again)
            if self._listening is not None:  # what is told before is heard by nobody
                self.tell(self._id, _ITSELF, token)

        def over() -> None:
            listeners.remove(hear)
            for call in (repeat, limit):
                if call is not None and call.active():
                    call.cancel()

        limit = self._reactor.callLater(HEARING, give_up)
        listeners.append(hear)
        again()
        return answer

    # Telling

    def _send(self) -> None:
        messages, self._waiting = list(self._waiting), {}
        if not messages:
            self._under_way = False
            return
        payloads = list(packed(self._id, messages))
        self._batcher.submit(lambda: self._notify(payloads)).addErrback(self._not_told).addCallback(
            lambda _: self._send()
        )

    def _not_told(self, failure: Failure) -> None:
        if failure.check(Stopped) is None:
            self.log.debug("other workers could not be told: {reason}", reason=str(failure.value))

    def _notify(self, payloads: Sequence[tuple[str, str]]) -> None:
        """In the batcher's thread. Raises CatalogUnavailable."""
        try:
            if self._telling is None or self._telling.closed:
                self._telling = self._connect()
                self._telling.execute("SET synchronous_commit = off")  # nothing is changed
            self._telling.execute(
                "SELECT pg_notify(channel, text) FROM json_to_recordset($1) AS told (channel text, text text)",
                (json.dumps([{"channel": name, "text": text} for name, text in payloads]),),
            )
        except psycopg.Error as error:
            self._hang_up()
            raise unavailable(error) from error

    def _hang_up(self) -> None:
        telling, self._telling = self._telling, None
        if telling is not None:
            with suppress(psycopg.Error):
                telling.close()

    # Hearing

    def _listen(self) -> None:
        self._batcher.submit(self._make_listening).addCallbacks(self._made, self._not_made).addErrback(
            lambda failure: self.log.failure("messages of other workers are not heard", failure)
        )

    def _make_listening(self) -> psycopg.Connection[Any]:
        """In the batcher's thread. Raises CatalogUnavailable."""
        try:
            raw = self._connect()
            try:
                raw.execute(f'LISTEN "{channel(self._id)}"; LISTEN "{channel(None)}"')  # together: none is lost between
            except BaseException:
                raw.close()
                raise
        except psycopg.Error as error:
            raise unavailable(error) from error
        return raw

    def _made(self, raw: psycopg.Connection[Any]) -> None:
        self._listening = listening = _Listening(raw, self._hear, self._lost)
        if not self._running:
            self._deafen()
            return
        if self._failed:
            self.log.info("messages of other workers are heard again")
        self._failed = 0
        self._reactor.addReader(listening)
        listening.doRead()  # what came with the answer to LISTEN makes the socket readable no more

    def _not_made(self, failure: Failure) -> None:
        failure.trap(CatalogUnavailable, Stopped)
        self._try_again(str(failure.value))

    def _lost(self, error: BaseException) -> None:
        self._deafen()
        self._try_again(str(unavailable(error)))

    def _try_again(self, reason: str) -> None:
        if not self._running:
            return
        if not self._failed:
            self.log.warn("messages of other workers are not heard: {reason}", reason=reason)
        self._retry.set(PAUSES[min(self._failed, len(PAUSES) - 1)])
        self._failed += 1

    def _deafen(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            self._reactor.removeReader(listening)
            listening.close()

    def _hear(self, payload: bytes) -> None:
        try:
            sender, to_all, messages = json.loads(payload)
            told = [(str(topic), str(text)) for topic, text in messages]
        except (TypeError, ValueError):
            self.log.warn("a message that no worker writes: {payload!r}", payload=payload[:100])
            return
        if to_all and sender == self._id:
            return
        for topic, text in told:
            for listener in tuple(self._listeners.get(topic, ())):
                try:
                    listener(sender, text)
                except Exception:
                    self.log.failure("a message of another worker", topic=topic)


def packed(sender: str, messages: Iterable[Message]) -> Iterator[tuple[str, str]]:
    """The channels and payloads that bring these messages, each at most `MOST_BYTES` long."""
    by_channel: dict[str, list[Message]] = {}
    for message in messages:
        by_channel.setdefault(message[0], []).append(message)
    for name, ours in by_channel.items():
        begun: list[Message] = []
        size = 0
        for message in ours:
            more = len(_encoded(sender, [message]))
            if begun and size + more > MOST_BYTES:
                yield name, _encoded(sender, begun).decode()
                begun, size = [], 0
            begun.append(message)
            size += more
        yield name, _encoded(sender, begun).decode()


def _encoded(sender: str, messages: Sequence[Message]) -> bytes:
    to_all = bool(messages) and messages[0][0] == channel(None)
    told = [(topic, text) for _, topic, text in messages]
    return json.dumps([sender, to_all, told], separators=(",", ":")).encode()


def _call_each(calls: list[Callable[[], Any]]) -> list[Any]:
    results: list[Any] = []
    for call in calls:
        try:
            results.append(call())
        except Exception as error:
            results.append(Failure(error))
    return results

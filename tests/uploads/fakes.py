"""Stand-ins for those around the use cases: a client that sends a body, the remote tier, hooks."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from resumable.model.errors import BodyLost
from resumable.model.hooks import Granted, IHooks, IProgress, QuestionKind
from resumable.model.replica import IReplication, TransferProgress
from resumable.model.upload import IBody, Replica, Upload
from resumable.protocol.errors import Unavailable
from resumable.spool.direct import Ending, IDirectConsumer


class Wire:
    """Bytes that have arrived on a socket, and how many of them were taken from it; closed with it."""

    def __init__(self, data: bytes) -> None:
        self.taken = 0
        self.fd, end = os.pipe2(os.O_NONBLOCK)
        os.write(end, data)
        os.close(end)

    def count(self, size: int) -> None:
        self.taken += size

    def __del__(self) -> None:
        os.close(self.fd)


@implementer(IBody, IPushProducer)
class FakeBody:
    """What a client sends, when the test says so.

    Ends by itself when ``length`` bytes have arrived; a chunked one (``length`` None) by `end`. ``events`` tells what
    the server did with it: ``deliver``, ``pause``, ``resume``, ``discard``. Where it is ``direct``, consumers that can
    take its bytes from a socket do so.
    """

    direct: ClassVar[bool] = False

    def __init__(self, length: int | None, data: bytes = b"") -> None:
        self.length = length
        self.trailers: Mapping[str, str] = {}
        self.events: list[str] = []
        self._held: list[bytes] = [data] if data else []
        self._arrived = len(data)
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._paused = self._discarded = self._taking = False
        self._result: BodyLost | Literal["complete"] | None = "complete" if self._arrived == length else None

    @classmethod
    def whole(cls, data: bytes) -> FakeBody:
        """One with a Content-Length, all of it here."""
        return cls(len(data), data)

    @classmethod
    def chunked(cls, data: bytes, trailers: Mapping[str, str] | None = None) -> FakeBody:
        """A chunked one, all of it here."""
        body = cls(None, data)
        body.end(trailers)
        return body

    @property
    def discarded(self) -> bool:
        return self._discarded

    # the client

    def arrive(self, data: bytes) -> FakeBody:
        self._arrived += len(data)
        self._held.append(data)
        if self._arrived == self.length:
            self._result = "complete"
        self._flush()
        return self

    def end(self, trailers: Mapping[str, str] | None = None) -> None:
        self.trailers = trailers or {}
        self._result = "complete"
        self._flush()

    def lose(self, reason: str = "disconnected") -> None:
        if self._result is None:
            self._result = BodyLost(reason)
            self._flush()

    # the server

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        assert self._done is None and not self._discarded, "a body is delivered once"
        self.events.append("deliver")
        self._done, self._consumer = Deferred(), consumer
        consumer.registerProducer(self, True)
        self._flush()
        return self._done

    def discard(self) -> None:
        self.events.append("discard")
        self._discarded = True
        self._held.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self.events.append("pause")
        self._paused = True

    def resumeProducing(self) -> None:
        self.events.append("resume")
        self._paused = False
        self._flush()

    def stopProducing(self) -> None:
        self.lose()

    def _flush(self) -> None:
        if self._taking:
            return
        lost = isinstance(self._result, BodyLost)
        while self._held and self._consumer is not None and (lost or not self._paused):
            if self.direct and not self._paused and self._receive(self._consumer):
                return
            self._consumer.write(self._held.pop(0))
        if self._result is None or self._held or self._consumer is None or self._done is None:
            return
        consumer, self._consumer = self._consumer, None
        consumer.unregisterProducer()
        if isinstance(self._result, BodyLost):
            self._done.errback(self._result)
        else:
            self._done.callback(None)

    def _receive(self, consumer: IConsumer) -> bool:
        """Have the consumer take what is here from a socket, 64 KiB at the most."""
        piece = b"".join(self._held)
        data, rest = piece[:65_536], piece[65_536:]
        wire = Wire(data)

        def ended(_: Ending) -> None:
            self._taking = False
            if not self._discarded:
                self._held[:] = [left for left in (data[wire.taken :] + rest, *late()) if left]
            self._flush()

        def late() -> list[bytes]:
            return self._held[count:]

        count = len(self._held)
        self._taking = True
        direct = IDirectConsumer(consumer, None)
        done = None if direct is None or self.length is None else direct.receive(wire.fd, len(data), wire.count)
        if done is None:
            self._taking = False
            return False
        done.addCallback(ended)
        return True


@implementer(IReplication)
class FakeReplication:
    """The engine between the tiers, as a test wants it: what it was told, and what it says.

    Uploads get a replica in each of ``required`` and ``optional``. ``told``: each record that was said to have
    changed; ``gone``: the ids that have ended; ``again``: those with replicas that are no longer parked; ``moving``:
    what `progress` answers; ``copies``: what `open_copy` does; ``url``: what `signed_url` does. `Server.store` stores.
    """

    def __init__(
        self, required: Sequence[str] = ("far",), optional: Sequence[str] = (), acknowledges: bool = False
    ) -> None:
        self.required, self.optional = tuple(required), tuple(optional)
        self.acknowledges = acknowledges
        self.told: list[Upload] = []
        self.copies: dict[str, Any] = {}
        self.url: str | None = None
        self.signed: list[tuple[Any, ...]] = []
        self.gone: list[str] = []
        self.again: list[str] = []
        self.moving: dict[str, TransferProgress] = {}
        self.waiting: dict[str, list[Deferred[None]]] = {}
        self.lagging = False
        self.paused: list[Deferred[None]] = []

    def chosen(
        self, upload: Upload, remotes: Collection[str] | None = None, key: str | None = None, drawn: bool = False
    ) -> Sequence[Replica]:
        if upload.is_partial:
            return ()
        names = [each for each in (*self.required, *self.optional) if remotes is None or each in remotes]
        return [Replica(upload.id, each, each in self.required, key=key) for each in names]

    def committed(self, upload: Upload) -> None:
        self.told.append(upload)

    def ended(self, upload_id: str) -> None:
        self.gone.append(upload_id)

    def restarted(self, upload_id: str) -> None:
        self.again.append(upload_id)

    def when_stored(self, upload_id: str) -> Deferred[None]:
        return self._waiter(self.waiting.setdefault(upload_id, []))

    def progress(self, upload_id: str) -> Mapping[str, TransferProgress]:
        return self.moving

    def open_copy(self, upload_id: str, start: int, size: int) -> Deferred[Any]:
        if upload_id not in self.copies:
            return fail(Unavailable("no copy", 7))
        return succeed(self.copies[upload_id])

    def signed_url(self, *asked: Any) -> Deferred[str | None]:
        self.signed.append(asked)
        return succeed(self.url)

    def admits(self) -> bool:
        return not self.lagging

    def when_admitted(self) -> Deferred[None]:
        return self._waiter(self.paused) if self.lagging else succeed(None)

    # what a test does

    @property
    def waits(self) -> int:
        """How many wait for anything."""
        return sum(map(len, self.waiting.values())) + len(self.paused)

    def stored(self, upload_id: str) -> None:
        for waiter in tuple(self.waiting.get(upload_id, ())):
            waiter.callback(None)

    def catch_up(self) -> None:
        """The lag is small again."""
        self.lagging = False
        for waiter in tuple(self.paused):
            waiter.callback(None)

    @staticmethod
    def _waiter(waiting: list[Deferred[None]]) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        waiting.append(waiter)

        def over(outcome: Any) -> Any:
            waiting.remove(waiter)
            return outcome

        return waiter.addBoth(over)


@implementer(IHooks, IProgress)
class FakeHooks:
    """Says to each kind of question what ``says`` has for it, one after another, the last for ever; else yes.

    ``asked``: what was asked, with the offset then. A Deferred is waited for. ``noted``: what of progress was told.
    """

    def __init__(self, *kinds: QuestionKind, **says: Any) -> None:
        self.kinds = kinds
        self.says = {QuestionKind[name.upper()]: list(answers) for name, answers in says.items()}
        self.asked = []
        self.requests = []
        self.noted = []
        self.is_due = True

    def asks(self, kind):
        return kind in self.kinds or kind in self.says

    def before(self, kind, upload, request=None):
        assert self.asks(kind)
        self.asked.append((kind, upload.id, upload.offset))
        self.requests.append(request)
        answers = self.says.get(kind) or [Granted()]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            return fail(answer)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def arrived(self, upload_id, look):
        if self.is_due and (seen := look()) is not None:
            self.noted.append((upload_id, seen.received, seen.upload.offset, seen.request))

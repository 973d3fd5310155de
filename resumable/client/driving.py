"""The core's steps on a reactor: requests by our agent, files read in threads, everything else as the core says.

Invariants: the reactor never waits for a file; cancelling the Deferred of a run ends its request, its wait or its parts
at once, and its work in a thread before anything that this uses is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from resumable.client.effects import (
    BodyStretch,
    CutShort,
    Effect,
    Exchange,
    HttpReply,
    Lost,
    Pause,
    Steps,
    Together,
    Work,
)
from resumable.client.exceptions import NotTrusted, SourceChanged
from resumable.client.pace import TokenBucket
from resumable.httpclient.agent import LightAgent
from resumable.httpclient.bodies import BytesBody, IdleTimeout, RegionBody, stream_of
from resumable.httpclient.errors import Insecure, error_for

KEPT = 1 << 20
"""Bytes of an answer's content that are kept."""
ASK = 1.0
"""Seconds between two questions whether to go on."""
T = TypeVar("T")


class _Late(Exception):
    """What a thread has made after it was cancelled."""

    def __init__(self, answer: Any, error: BaseException | None) -> None:
        self.answer, self.error = answer, error


class Driver:
    """Runs steps. ``timeout``: seconds without a byte moving."""

    def __init__(self, reactor: Any, agent: LightAgent, timeout: float, bucket: TokenBucket | None) -> None:
        self._reactor, self._agent, self._timeout, self._bucket = reactor, agent, timeout, bucket

    def now(self) -> float:
        """Seconds of the reactor's clock."""
        seconds: float = self._reactor.seconds()
        return seconds

    def run(self, steps: Steps[T]) -> Deferred[T]:
        """Fires with their result."""
        return Deferred.fromCoroutine(self._run(steps))

    async def _run(self, steps: Steps[T]) -> T:
        answer: Any = None
        error: BaseException | None = None
        late = False
        try:
            while True:
                try:
                    effect = steps.send(answer) if error is None else steps.throw(error)
                except StopIteration as end:
                    result: T = end.value
                    return result
                answer = error = None
                if late:
                    late, error = False, CancelledError()
                    continue
                try:
                    answer = await self._done(effect)
                except _Late as found:
                    answer, error, late = found.answer, found.error, True
                except Exception as raised:
                    error = raised
        finally:
            steps.close()

    async def _done(self, effect: Effect) -> Any:
        if isinstance(effect, Exchange):
            return await self._exchange(effect)
        if isinstance(effect, Pause):
            return await deferLater(self._reactor, effect.seconds)
        if isinstance(effect, Work):
            return await self._work(effect)
        return await self._together(effect)

    def _in_thread(self, call: Callable[[], T]) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call)

    async def _work(self, work: Work) -> Any:
        """What is in a thread can't be cancelled: it is waited for, so that what it has made can be given back."""
        done: Deferred[None] = Deferred()
        results: list[Any] = []

        def over(result: Any) -> None:
            results.append(result)
            done.callback(None)

        waiting: Deferred[None] = Deferred(lambda _: work.abandon())

        def tell(_: None) -> None:
            if not waiting.called:
                waiting.callback(None)

        done.addCallback(tell)
        self._in_thread(work.call).addBoth(over)
        try:
            await waiting
        except CancelledError:
            if not results:
                await done
            (found,) = results
            raise (_Late(None, found.value) if isinstance(found, Failure) else _Late(found, None)) from None
        (found,) = results
        if isinstance(found, Failure):
            raise found.value or CancelledError()
        return found

    async def _together(self, effect: Together) -> list[Any]:
        beside = [self.run(steps) for steps in effect.beside]
        runs = [self.run(steps) for steps in effect.steps]
        try:
            found: list[Any] = await gatherResults(runs, consumeErrors=True)
            return found
        except FirstError as error:
            raise (error.subFailure.value or error) from None
        finally:
            for each in (*runs, *beside):
                each.addErrback(lambda failure: None)
                each.cancel()
            await DeferredList([*runs, *beside])

    # -- requests

    async def _exchange(self, exchange: Exchange) -> HttpReply:
        watch = IdleTimeout(self._reactor, self._timeout)
        region = None if exchange.body is None else _Region(self, exchange, exchange.body, watch)
        body = BytesBody(b"") if exchange.method == "POST" else None if region is None else RegionBody(region)
        lines = "".join(f"{name}: {value}\r\n" for name, value in exchange.fields).encode("latin-1")
        try:
            asking = self._agent.ask(
                exchange.method.encode(), exchange.url.encode("ascii"), lines, body, has_host=False
            )
            watch.give_up = asking.cancel
            answer = await asking
            fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in answer.fields]
            return await self._answer(exchange, answer, HttpReply(answer.code, fields), watch)
        except CancelledError:
            if watch.expired:
                raise Lost(f"nothing has moved for {self._timeout:g} s") from None
            raise
        except Exception as problem:
            raise self._failure(problem, body, watch) from problem
        finally:
            watch.stop()
            if isinstance(body, RegionBody):
                body.stopProducing()

    def _failure(self, problem: Exception, body: Any, watch: IdleTimeout) -> BaseException:
        failure: Failure | None = getattr(body, "failure", None)
        if failure is not None and failure.value is not None:
            return failure.value
        if watch.expired:
            return Lost(f"nothing has moved for {self._timeout:g} s")
        if type(problem).__module__.startswith("resumable.client"):
            return problem
        found = error_for(problem)
        if isinstance(found, Insecure):
            return NotTrusted(f"{found}; for an authority of your own give its certificate (ca_file)")
        return Lost(str(found)) if isinstance(found, Exception) else found

    async def _answer(self, exchange: Exchange, answer: Any, reply: HttpReply, watch: IdleTimeout) -> HttpReply:
        watch.touch()
        accept = exchange.accept
        sink = None if accept is None else await self._in_thread(lambda: accept(reply))
        whole = answer.whole()
        stream = None if whole is not None else stream_of(answer, self._reactor, self._timeout, until_closed=True)
        content = b""
        asked = self.now()
        try:
            piece = whole if stream is None else await stream.read()
            while piece:
                watch.touch()
                if sink is not None:
                    await self._received(sink, piece)
                    watch.touch()
                else:
                    content += piece[: KEPT - len(content)]
                if sink is not None and exchange.may_go and self.now() - asked >= ASK:
                    asked = self.now()
                    if (wait := exchange.may_go()) > 0:
                        raise CutShort(wait)
                piece = b"" if stream is None else await stream.read()
        finally:
            if stream is not None:
                stream.close()
        return HttpReply(reply.status, reply.fields, content)

    async def _received(self, sink: Callable[[bytes], None], piece: bytes) -> None:
        await self._in_thread(lambda: sink(piece))
        if self._bucket is not None and (wait := self._bucket.spend(len(piece))) > 0:
            await deferLater(self._reactor, wait)

    async def read_body(self, body: BodyStretch, offset: int, size: int, watch: IdleTimeout) -> bytes:
        """Exactly these bytes, at the pace that is allowed. Raises SourceError."""
        left = size
        while self._bucket is not None and left:
            granted, wait = self._bucket.take(left)
            left -= granted
            if left:
                await deferLater(self._reactor, wait or 0.001)
            watch.touch()
        data = await self._in_thread(lambda: body.read(offset, size))
        if len(data) != size:
            raise SourceChanged("the source is shorter than it was when it was begun", "")
        return data


class _Region:
    """The content of a request, for `RegionBody`."""

    def __init__(self, driver: Driver, exchange: Exchange, body: BodyStretch, watch: IdleTimeout) -> None:
        self.size = body.size
        self._driver, self._exchange, self._body, self._watch = driver, exchange, body, watch
        self._asked = driver.now()

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See `httpclient.bodies.Content`."""
        return Deferred.fromCoroutine(self._read(offset, size))

    async def _read(self, offset: int, size: int) -> bytes:
        self._watch.touch()
        exchange, now = self._exchange, self._driver.now()
        if exchange.moved is not None and offset:
            exchange.moved(offset)  # the network has taken what was read before
        if exchange.may_go is not None and now - self._asked >= ASK:
            self._asked = now
            if (wait := exchange.may_go()) > 0:
                raise CutShort(wait)
        return await self._driver.read_body(self._body, offset, size, self._watch)

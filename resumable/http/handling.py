"""One request's handler, a coroutine, from its first step to the answer.

In place of a Deferred for each layer there is one object for each request. Invariants: a handler whose client has gone
is cancelled where it waits, and answers nobody; a failure is answered once. A handler keeps its context variables,
whatever runs between its steps (PEP 567).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.http.request import StreamingRequest
from resumable.model.errors import BodyLost
from resumable.protocol.errors import TusError

log = Logger()

Refuse = Callable[[StreamingRequest, Failure], bytes]
"""Sets the status and the fields of the answer to a failure; answers its body."""


class Handling:
    """A handler under way. Its result is the answer's body; ``refuse`` answers its failure."""

    __slots__ = ("_context", "_handler", "_refuse", "_request", "_waits_for")

    def __init__(
        self, request: StreamingRequest, handler: Coroutine[Deferred[Any], Any, bytes], refuse: Refuse
    ) -> None:
        self._request = request
        self._handler = handler
        self._refuse = refuse
        self._context: Context = copy_context()
        self._waits_for: Deferred[Any] | None = None

    def start(self) -> None:
        """Run it up to where it waits for the first time."""
        self._request.on_loss = self._cancel
        self._go_on(None)

    def _cancel(self) -> None:
        """The client has gone."""
        if self._waits_for is not None:
            self._waits_for.cancel()

    def _go_on(self, outcome: object) -> None:
        """The next step, with the outcome of what it has waited for."""
        self._waits_for = None
        try:
            if isinstance(outcome, Failure):
                waits_for = self._context.run(outcome.throwExceptionIntoGenerator, self._handler)
            else:
                waits_for = self._context.run(self._handler.send, outcome)
        except StopIteration as end:
            self._answer(end.value)
        except Exception:
            outcome = None  # it may hold the traceback, which holds this frame
            self._fail(Failure())
        else:
            self._waits_for = waits_for
            waits_for.addBoth(self._go_on)

    def _fail(self, failure: Failure) -> None:
        request, expected = self._request, failure.check(CancelledError, BodyLost, TusError)
        if not (request.gone or request.finished):
            try:
                self._answer(self._refuse(request, failure))
            except Exception:
                request.processingFailed(Failure())
        elif not expected:
            log.failure("a request failed that nobody waits for", failure, request=request.known_as)
        if expected and failure.value is not None:  # else somebody may still want to read it
            failure.value.__traceback__ = None  # its frames have the failure, in a circle

    def _answer(self, body: bytes) -> None:
        request = self._request
        request.on_loss = None
        if not (request.gone or request.finished):
            try:
                request.write(body)
                request.finish()
            except Exception:
                request.processingFailed(Failure())

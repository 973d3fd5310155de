"""One request's handler, a coroutine, from its first step to the answer.

In place of a Deferred for each layer there is one `Task` for each request. Invariants: a handler whose client has gone
is cancelled where it waits, and answers nobody; a failure is answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.deferreds import Task
from resumable.http.request import StreamingRequest
from resumable.model.errors import BodyLost
from resumable.protocol.errors import TusError

log = Logger()

Refuse = Callable[[StreamingRequest, Failure], bytes]
"""Sets the status and the fields of the answer to a failure; answers its body."""


def handle(request: StreamingRequest, handler: Coroutine[Deferred[Any], Any, bytes], refuse: Refuse) -> None:
    """Begin. The handler's result is the answer's body; ``refuse`` answers its failure."""
    task = Task(handler, partial(_done, request, refuse))
    request.on_loss = task.cancel
    task.go()


def _done(request: StreamingRequest, refuse: Refuse, outcome: bytes | Failure) -> None:
    request.on_loss = None
    if not isinstance(outcome, Failure):
        _answer(request, outcome)
        return
    expected = outcome.check(CancelledError, BodyLost, TusError)
    if not (request.gone or request.finished):
        try:
            _answer(request, refuse(request, outcome))
        except Exception:
            request.processingFailed(Failure())
    elif not expected:
        log.failure("a request failed that nobody waits for", outcome, request=request.known_as)
    if expected and outcome.value is not None:  # else somebody may still want to read it
        outcome.value.__traceback__ = None  # its frames have the failure, in a circle


def _answer(request: StreamingRequest, body: bytes) -> None:
    if not (request.gone or request.finished):
        try:
            request.write(body)
            request.finish()
        except Exception:
            request.processingFailed(Failure())

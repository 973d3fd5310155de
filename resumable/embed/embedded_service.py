"""The daemon's service within somebody else's process: without signals, service manager, log and tuning of memory.

Invariant: a stop commits the bytes that were received and answers the requests that are under way, as the daemon's
does; connections and ports that aren't ours stay open, and requests that come later are answered 503.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import succeed

from resumable.aio.deferreds import Timer, Waiters
from resumable.config.options import Settings
from resumable.daemon.children import Child, Clients
from resumable.daemon.parts import Parts
from resumable.daemon.service import UploadService
from resumable.embed.shared_request import EmbeddedRequest
from resumable.http.site import StreamingSite
from resumable.listening.run_directory import RunDirectory
from resumable.masking import masked
from resumable.model.errors import StartupError


class EmbeddedService(UploadService):
    """See `UploadServer`, which makes a new one at its start. ``parts``: what its resources answer with."""

    whole_process = False

    def __init__(self, settings: Settings, reactor: Any, run: RunDirectory | None) -> None:
        self.requests: set[EmbeddedRequest] = set()
        self.open = self.stopped = False
        self._reactor = reactor
        self._answered = Waiters()
        self.parts: Parts
        super().__init__(settings, reactor, run=run, environ={})

    def _children(self, parts: Parts, reactor: Any) -> Iterator[Child]:
        self.parts = parts
        for child in super()._children(parts, reactor):
            if isinstance(child, Clients):  # children stop in the opposite order
                yield Child(lambda: None, self._all_answered)
                yield child
                yield Child(self._begin, self._end)
            else:
                yield child

    @property
    def site(self) -> StreamingSite:
        """That of its own ports, if it has any; its counts are those of all requests."""
        return self.parts.site

    def began(self, request: EmbeddedRequest) -> None:
        """See `RequestOwner`."""
        self.requests.add(request)
        self.parts.operators.watch.prepare(request)

    def ended(self, request: EmbeddedRequest, seconds: float) -> None:
        """See `RequestOwner`."""
        self.site.received += request.body.received
        self.parts.operators.watch.done(request, seconds)
        self.requests.discard(request)
        if not self.requests:
            self._answered.fire()

    def _begin(self) -> None:
        self.open = True

    def _end(self) -> None:
        """No request begins from now on."""
        self.open, self.stopped = False, True
        for request in self.requests:
            request.close_after_answer()

    async def _all_answered(self) -> None:
        """They have been told to end; those that don't are ended without an answer."""
        abort = Timer(self._reactor, self._hang_up)
        abort.set(self.parts.settings.shutdown_timeout)
        await (self._answered.wait() if self.requests else succeed(None))
        abort.clear()

    def _hang_up(self) -> None:
        for request in list(self.requests):
            request.hang_up()

    def _give_up(self, error: BaseException) -> None:
        raise StartupError(masked(str(error))) from error

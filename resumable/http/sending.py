"""The bytes of a download as a response body, read piece by piece and sent at the client's pace.

Reason to change: how bytes get from where they lie to the client. Invariant: at most one piece is read ahead, and what
it is read from is closed however the download ends: sent, given up by the client, or failed.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from resumable.http.streaming import StreamingRequest

CHUNK: Final = 256 * 1024


class Source(Protocol):
    """The spool's Reader, or a copy in a remote."""

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes; none only at the end."""

    def close(self) -> object:
        """Nothing more is read; what is being read may fail."""


@implementer(IPushProducer)
class Sending:
    """Sends ``size`` bytes from ``start`` on.

    ``patience``: seconds that a client may leave a piece unread before its connection is cut; None: for ever.
    """

    def __init__(
        self,
        request: StreamingRequest,
        source: Source,
        start: int,
        size: int,
        clock: IReactorTime,
        patience: float | None = None,
    ) -> None:
        self._request = request
        self._source = source
        self._offset = start
        self._end = start + size
        self._clock = clock
        self._patience = patience
        self._resumed: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = self._closed = False

    async def run(self) -> None:
        """Returns when all is sent or the client has gone. Raises EOFError, and what reading does."""
        self._request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        try:
            if self._resumed is not None:  # others are sent before
                await self._resumed
            while self._offset < self._end and not self._gone():
                data = await self._source.read(self._offset, min(CHUNK, self._end - self._offset))
                if self._resumed is not None:
                    await self._resumed
                if self._gone():
                    break
                if not data:
                    raise EOFError("there are fewer bytes than there should be")
                self._offset += len(data)
                self._request.write(data)
        except Exception:
            if not self._gone():  # else it failed because it was closed
                raise
        finally:
            if not self._request.gone:  # a transport tells its producer that it's over before anybody else
                self._request.unregisterProducer()  # type: ignore[no-untyped-call]
            self._close()

    def _gone(self) -> bool:
        return self._stopped

    def _close(self) -> None:
        self._watch(None)
        if not self._closed:
            self._closed = True
            self._source.close()

    def _watch(self, seconds: float | None) -> None:
        """Give the client so long from now on."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._clock.callLater(seconds, self._request.channel.abort)

    def pauseProducing(self) -> None:
        if self._resumed is None and not self._closed:
            self._resumed = Deferred()
            self._watch(self._patience)

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            self._watch(None)
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._stopped = True
        self._close()
        self.resumeProducing()

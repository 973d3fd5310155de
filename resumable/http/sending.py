"""The bytes of a download as a response body, read piece by piece and sent at the client's pace.

Reason to change: how bytes get from where they lie to the client. Invariant: at most one piece is read ahead, no larger
than what the client would take where that is known, and what it is read from is closed however the download ends: sent,
given up by the client, or failed. A client that doesn't read is the connection's to find out.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
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
    """Sends ``size`` bytes from ``start`` on."""

    def __init__(self, request: StreamingRequest, source: Source, start: int, size: int) -> None:
        self._request = request
        self._source = source
        self._offset = start
        self._end = start + size
        self._resumed: Deferred[None] | None = None
        self._stopped = self._closed = False

    async def run(self) -> None:
        """Returns when all is sent or the client has gone. Raises EOFError, and what reading does."""
        self._request.registerProducer(self, True)  # type: ignore[no-untyped-call]
        try:
            if self._resumed is not None:  # others are sent before
                await self._resumed
            while self._offset < self._end and not self._gone():
                size = min(CHUNK, self._end - self._offset, self._request.channel.room)
                data = await self._source.read(self._offset, size)
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
        if not self._closed:
            self._closed = True
            self._source.close()

    def pauseProducing(self) -> None:
        if self._resumed is None and not self._closed:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._stopped = True
        self._close()
        self.resumeProducing()

"""An answer as Twisted's clients know it, of which the body comes at its reader's pace.

Invariants: `EARLY` bytes of a body and a piece are held until somebody reads. An answer that is over touches its
connection no more, which may be another's by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from resumable.httpclient.http1 import AnswerHead

EARLY = 64 << 10
"""Bytes of an answer's body that are taken before somebody reads it."""
HOP_BY_HOP = {
    b"content-length", b"connection", b"keep-alive", b"te", b"trailers", b"transfer-encoding", b"upgrade",
    b"proxy-connection",
}  # fmt: skip
"""Fields of one connection's, which aren't among an answer's `AgentAnswer.headers`, as with Twisted's agent."""


class ISteered(Protocol):
    """The connection that an answer comes on."""

    def pause(self) -> None:
        """Take no more for now."""

    def resume(self) -> None:
        """Take more."""

    def abort(self) -> None:
        """End it at once, whatever is under way."""


@implementer(IResponse)
class AgentAnswer:
    """See IResponse. ``fields``: all of them, with names as they came."""

    request = previousResponse = None

    def __init__(self, head: AnswerHead, length: Any, connection: ISteered, to_head: bool) -> None:
        self._hidden = HOP_BY_HOP - {b"content-length"} if to_head else HOP_BY_HOP
        self.version = (b"HTTP", 1, head.minor)
        self.code, self.phrase, self.fields, self.length = head.status, head.phrase, head.fields, length
        self._connection: ISteered | None = connection
        self._pieces: list[bytes] = []
        self._held = 0
        self._reader: Any = None
        self._end: Failure | None = None

    @property
    def headers(self) -> Headers:
        """Those of the answer, not those of the connection."""
        made = Headers()
        for name, value in self.fields:
            if name.lower() not in self._hidden:
                made.addRawHeader(name, value)
        return made

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response

    def whole(self) -> bytes | None:
        """The body, if all of it is here and nobody reads it; instead of `deliverBody`."""
        done = self._reader is None and self._end is not None and self._end.check(ResponseDone)
        return b"".join(self._pieces) if done else None

    def deliverBody(self, protocol: Any) -> None:
        """See IResponse."""
        self._reader = protocol
        protocol.makeConnection(_Reading(self))
        pieces, self._pieces = self._pieces, []
        if pieces:
            protocol.dataReceived(b"".join(pieces))
        if self._end is not None:
            protocol.connectionLost(self._end)
        elif self._held >= EARLY and self._connection is not None:
            self._connection.resume()

    def came(self, data: bytes) -> None:
        """More of the body."""
        if self._reader is not None:
            self._reader.dataReceived(data)
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._held >= EARLY and self._connection is not None:
            self._connection.pause()

    def ended(self, reason: Failure) -> None:
        """ResponseDone, PotentialDataLoss, or why the rest doesn't come."""
        if self._end is None:
            self._end, self._connection = reason, None
            if self._reader is not None:
                self._reader.connectionLost(reason)

    def on_connection(self, act: Callable[[ISteered], None]) -> None:
        """Do something with the connection, unless it is another answer's by now."""
        if self._connection is not None:
            act(self._connection)


class _Reading:
    """The transport of a protocol that reads a body."""

    disconnecting = False

    def __init__(self, answer: AgentAnswer) -> None:
        self._answer = answer

    def pauseProducing(self) -> None:
        self._answer.on_connection(lambda connection: connection.pause())

    def resumeProducing(self) -> None:
        self._answer.on_connection(lambda connection: connection.resume())

    def stopProducing(self) -> None:
        """The rest isn't wanted. Closing in peace would wait until the server has sent all of it."""
        self._answer.on_connection(lambda connection: connection.abort())

    loseConnection = abortConnection = stopProducing

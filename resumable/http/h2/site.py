"""What HTTP/2 needs of those who use it: the site that its connections belong to, and that site's requests.

Changes when one of its modules needs something else. `resumable.http.streaming` has both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.python.failure import Failure

from resumable.http.body import Body
from resumable.http.h1.head import Fields, RequestHead
from resumable.http.h2.limits import HeldBytes
from resumable.http.outgoing import Outgoing


class Request(Protocol):
    """What a stream needs of its request."""

    method: bytes
    startedWriting: Any

    def begin(self, head: RequestHead, body: Body) -> None:
        """Dispatch it."""

    def connectionLost(self, reason: Failure) -> None:
        """Its client has gone."""


class Watch(Protocol):
    """Who looks at requests."""

    def refused(self, status: int) -> None:
        """What came was no request, and this was the answer."""


class Site(Protocol):
    """What a connection needs of its factory."""

    network_timeout: float
    min_rate: int
    linger: float
    linger_bytes: int
    refusal_fields: Callable[[Sequence[bytes]], Fields]
    received: int
    held: HeldBytes
    seconds: Callable[[], float]

    @property
    def watch(self) -> Watch: ...

    def requestFactory(self, channel: Any) -> Request: ...

    def outgoing(self, transport: Any) -> Outgoing: ...

    def connected(self, channel: Any) -> None: ...

    def idle(self, channel: Any) -> None: ...

    def busy(self, channel: Any) -> None: ...

    def disconnected(self, channel: Any) -> None: ...

    def cut_off(self, why: str, transport: Any) -> None: ...

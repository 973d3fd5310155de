"""The part of an HTTP/2 connection that its streams share: frames that go out, windows, memory, and times.

Invariants: a client may send on only as far as its bytes were taken; no bytes of a client make memory grow beyond
`limits`, or work beyond `ClientPace`. Spec: RFC 9113 sections 5.2 and 6.9.
"""

from __future__ import annotations

import enum
import math
from typing import Any, Final

from twisted.internet.protocol import Protocol

from resumable.http.body import READ_AHEAD
from resumable.http.connections import Connections
from resumable.http.h2.frames import window_update
from resumable.http.h2.limits import CONNECTION_WINDOW, ClientPace, ReceiveWindow
from resumable.http.h2.machine import Http2Machine

LINGER: Final = 2.0
"""Seconds for a client to read the last words before its connection is closed; closing at once could eat them."""
MAX_BACKLOG: Final = 256 << 10
"""Bytes that wait for a client which doesn't read, beside the bodies of its answers. At more, it isn't read either."""


class LinkState(enum.Enum):
    """Whether frames are exchanged; or the client reads the last ones; or the transport is closing."""

    OPEN = "open"
    LINGERING = "lingering"
    CLOSED = "closed"


# Names of the module are found in a tenth of the time that a member of an enum takes.
OPEN, LINGERING, CLOSED = LinkState


class Http2Link(Protocol):
    """See the module. `Http2Connection` is made of it.

    ``choked``: the transport takes nothing for now. ``secure``: whether the connection is encrypted. ``lingers``: the
    client may be sending bytes that nobody reads, so that closing at once would reset the connection.
    """

    transport: Any

    def __init__(self, site: Connections) -> None:
        self.site = site
        self.machine = Http2Machine()
        self.pace = ClientPace(site.seconds())
        self.choked = self.lingers = self.secure = False
        self._window = ReceiveWindow(CONNECTION_WINDOW)
        self._state: LinkState = OPEN
        self._leaving = False  # one side has said GOAWAY
        self._due = math.inf  # when to look for streams whose client is too slow
        self._updates: list[bytes] = []  # frames to be sent that the machine needn't know
        self._client = ""
        self._held = 0
        self._backlog = 0
        self._reading = True
        self._full = False  # not read, because it, or its site, holds too much
        self._busy = False  # reading, further up the stack

    def flush(self) -> None:
        """Hand all frames that wait to the transport."""
        data = self.machine.data_to_send()
        if self._updates:
            data += b"".join(self._updates)
            self._updates.clear()
        if not data or self._state is CLOSED:
            return
        if self.choked:
            self._backlog += len(data)
        self.transport.write(data)

    def credit(self, number: int, window: ReceiveWindow, size: int) -> None:
        """So many bytes of a window are free again; ``number`` is the stream's, or 0."""
        more = window.give(size)
        if more and self._state is OPEN:
            self._updates.append(window_update(number, more))
            if not self._busy:
                self.flush()

    def took(self, size: int) -> None:
        """So many bytes of a stream have left memory."""
        self.credit(0, self._window, size)

    def hold(self, size: int) -> None:
        """So many more bytes of bodies wait in memory, or fewer."""
        self._held += size
        self.site.held.add(self._client, size)
        self.regulate()

    def look_at(self, when: float) -> None:
        """A stream wants to be checked then, if not earlier."""
        self._due = min(self._due, when)

    def linger(self) -> float:
        """Returns until when a client may go on to send bytes that nobody needs."""
        until = self.site.seconds() + (min(self.site.linger, LINGER) if self._leaving else self.site.linger)
        self.look_at(until)
        return until

    def regulate(self) -> None:
        """Read on, unless its client, or all together, hold too much, and this one has a part in it; or unless it asks
        for more than its budget, or its answers wait."""
        full = self._held > READ_AHEAD and self.site.held.full(self._client)
        if full:
            self.site.held.stopped(self)
        full = full or self._backlog > MAX_BACKLOG
        if self._full and not full:
            self._due = self.site.seconds() + self.site.network_timeout  # nobody was slow in the meantime
        self._full = full
        wanted = not (full or self.pace.ahead)
        if wanted != self._reading and self._state is not CLOSED:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def settle(self) -> None:
        """Send all that waits, and close the connection if nothing can follow."""
        raise NotImplementedError

"""Lines between the supervisor and its workers, over pipes and socket pairs.

Invariants: neither side waits for the other; what is left of a line at the end counts as a line; a line has a bound.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from zope.interface import implementer

AT_ONCE: Final = 65_536
LONGEST: Final = 1 << 20
"""Bytes of a line; a longer one is cut."""


@implementer(IReadDescriptor)
class LinePipe:
    """One end, which it owns. For the reactor's `addReader`, which calls `doRead` and, at the end, `connectionLost`.

    ``heard``: called with each line. ``ended``: the other end is closed.
    """

    def __init__(
        self, descriptor: int, heard: Callable[[str], object], ended: Callable[[], object] = lambda: None
    ) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._heard = heard
        self._ended = ended
        self._rest = b""
        self.open = True

    def fileno(self) -> int:
        """The file descriptor; -1 once it is closed."""
        return self._descriptor if self.open else -1

    def logPrefix(self) -> str:
        return "LinePipe"

    def doRead(self) -> Any:
        """Read what is there. Answers with a reason if that was the end."""
        try:
            data = os.read(self._descriptor, AT_ONCE)
        except BlockingIOError:
            return None
        except OSError:  # the other side has ended and left something unread
            data = b""
        if not data:
            return CONNECTION_DONE
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        for each in lines:
            self._heard(each.decode("utf-8", "replace"))
        return None

    def connectionLost(self, reason: object) -> None:
        """Close this end."""
        if not self.open:
            return
        self.open = False
        os.close(self._descriptor)
        rest, self._rest = self._rest, b""
        if rest:
            self._heard(rest.decode("utf-8", "replace"))
        self._ended()

    def tell(self, line: str) -> None:
        """Send a line to the other end. It is lost if that is closed, or has read nothing for long."""
        if self.open:
            with suppress(OSError):
                os.write(self._descriptor, line.encode() + b"\n")

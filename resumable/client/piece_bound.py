"""How long one request of a transfer may be, and the digest that goes with the last. No I/O here."""

from __future__ import annotations

from typing import Final

from resumable.client.client_transfer import ClientTransfer
from resumable.client.effects import Pause, Steps, Work
from resumable.client.events import PiecesShrunk

SMALLEST: Final = 256 << 10
"""Bytes: requests don't get shorter by themselves."""
WITH_CHECKSUM: Final = 16 << 20
"""Bytes of a request whose checksum must be known before it is sent."""
LAST: Final = 1 << 20
"""Bytes that wait for the digest of the whole."""


class PieceBound:
    """How long a request of this transfer may be; all its strands share it. ``most`` None: there is no bound."""

    def __init__(self, transfer: ClientTransfer, remembered: int | None) -> None:
        self._transfer = transfer
        known = [each for each in (transfer.options.chunk_size, remembered) if each is not None]
        self.most = min(known) if known else None

    def bound(self, most: int | None) -> None:
        """No request may be longer than that."""
        if most is not None and (self.most is None or most < self.most):
            self.most = most

    def shrink(self, refused: int) -> Steps[bool]:
        """A request of ``refused`` bytes was too long for something on the way. False: none is short enough."""
        if self.most is not None and self.most < refused:
            return True  # another strand has met it
        if refused <= SMALLEST:
            return False
        size = max(SMALLEST, refused // 2)
        self.most = size
        self._transfer.tell(PiecesShrunk(source=self._transfer.name, size=size))
        yield Work(lambda: self._transfer.state.remember_piece(self._transfer.address, size))
        return True


class LateDigest:
    """The SHA-256 of a whole source, which may still be computed. ``value`` None: it isn't known yet."""

    value: bytes | None = None

    def wait(self) -> Steps[bytes]:
        """It, once it is known."""
        while self.value is None:
            yield Pause(0.1)
        return self.value

"""A download into a stream, such as standard output: what is written can't be taken back.

Invariant: within one call it goes on at the same byte after trouble, and only with the same file. Its digest is known
at the end, when the bytes are out already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from resumable.client.client_transfer import ClientTransfer
from resumable.client.effects import HttpReply, Steps
from resumable.client.events import Downloaded
from resumable.client.exceptions import TargetUnwritable
from resumable.client.receiving import Receiving
from resumable.client.sources import HASHES


def get_into_stream(transfer: ClientTransfer, stream: BinaryIO) -> Steps[Downloaded]:
    """Receive the transfer's address into a binary stream, which stays open. Raises every ClientError but those of
    sources."""
    return ReceivingStream(transfer, stream).run()


class ReceivingStream(Receiving):
    """Receives into ``stream``."""

    def __init__(self, transfer: ClientTransfer, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        super().__init__(transfer, Path(str(getattr(stream, "name", "stream"))), True, "")

    def _open(self) -> None:
        self._file = self._stream

    def _accept(self, reply: HttpReply) -> Callable[[bytes], None] | None:
        sink = super()._accept(reply)
        if sink is not None and not self._offset and self._digests:
            self._hash = hashlib.new(HASHES[next(iter(self._digests))])
        return sink

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        super()._write(data)

    def _restart(self) -> None:
        if self._offset:
            raise TargetUnwritable(
                "the file at the server has changed, or can't be gone on with, and what was written can't be taken back"
            )

    def _digest(self, name: str) -> bytes:
        return self._hash.digest()

    def _drop(self) -> None:
        """It is out."""

    def _remember(self, known: dict[str, str | None] | None) -> None:
        """There is no next call."""

    def _place(self) -> None:
        """It has no name."""

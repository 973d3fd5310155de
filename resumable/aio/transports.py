"""Writing to Twisted's transports without waiting for the reactor's next turn.

The only file that knows private names of twisted.internet: `PRIVATES`, and ``_tempDataBuffer`` of each transport.
Invariant: bytes leave in the order in which they were written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection

PRIVATES: Final[Mapping[type, tuple[str, ...]]] = {FileDescriptor: ("_writeDisconnecting",)}
"""The names that are used beyond Twisted's documented interface. A test fails when one of them is missing."""


def unsent(transport: Any) -> bool:
    """Whether bytes that were written wait in this process for the network; with TLS, for the network below it."""
    network = transport if isinstance(transport, FileDescriptor) else getattr(transport, "transport", None)
    return isinstance(network, FileDescriptor) and bool(network.dataBuffer or network._tempDataBuffer)


def write_now(transport: Any, data: bytes) -> None:
    """Write ``data``. The kernel gets it at once if nothing waits and there is no TLS, instead of after two turns of
    the reactor and three system calls; what the kernel doesn't take waits as usual."""
    if (
        isinstance(transport, Connection)
        and transport.connected
        and not (transport.TLS or transport.disconnecting or transport._writeDisconnecting or unsent(transport))
    ):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int) and sent > 0:
            data = data[sent:]
    if data:
        transport.write(data)

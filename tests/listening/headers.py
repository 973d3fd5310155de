"""Headers of the PROXY protocol, in its binary version."""

from __future__ import annotations

import socket
import struct

from resumable.listening.proxy_header import SIGNATURE


def binary(family: int, addresses: bytes, command: int = 0x21, more: bytes = b"", size: int | None = None) -> bytes:
    length = len(addresses) + len(more) if size is None else size
    return SIGNATURE + struct.pack("!BBH", command, family, length) + addresses + more


V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 56324, 443)

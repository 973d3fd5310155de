"""The Unix sockets at which operators find a daemon: one inside its upload directory, or where they want it.

Changes when that place does. Invariant: whoever knows the upload directory knows the socket, and only the user that the
daemon runs as may connect, unless an operator says who else. Spec: unix(7).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from twisted.internet.endpoints import quoteStringArgument

from resumable.listening.ports import taken_apart

LONGEST: Final = 107
"""Bytes of a path that fit into sockaddr_un with the zero at their end."""


def socket_of(upload_dir: Path) -> Path:
    """The path of the socket."""
    return upload_dir / ".resumable" / "admin.sock"


def endpoint_of(upload_dir: Path) -> str:
    """Its description for Twisted. ValueError: the path is too long for a socket.

    It needs no lock of Twisted's, as the upload directory has one.
    """
    path = socket_of(upload_dir)
    if len(os.fsencode(path)) > LONGEST:
        raise ValueError(f"the path {path} is too long for a socket, which has room for {LONGEST} bytes")
    return f"unix:address={quoteStringArgument(str(path))}:mode=600:lockfile=0"


def closed(description: str) -> str:
    """An endpoint as it was given; a Unix socket whose mode isn't told is for the daemon's own user.

    Twisted would let everybody in, whatever the umask is.
    """
    kind, arguments, named = taken_apart(description)
    told = "mode" in named or len(arguments) + ("address" in named) > 1
    return f"{description}:mode=600" if kind == "unix" and not told else description

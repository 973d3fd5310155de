"""Endpoint strings, and whether their ports and sockets can be had. Nothing looked at here is kept open."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Sequence

from resumable.model.errors import StartupError

#: Connections that may wait to be accepted; the kernel's own limit (somaxconn) may be lower.
BACKLOG = 4096


LISTEN = "--port or --listen"


ADMIN_LISTEN = "--admin-listen"


#: What an endpoint string begins with whose connections begin with a header of the PROXY protocol.
PROXIED = "haproxy:"


def check_ports(endpoints: Sequence[str], flag: str = LISTEN) -> None:
    """The TCP ports and Unix sockets among the endpoint strings, which ``flag`` names, can be had. Raises
    StartupError."""
    for description in endpoints:
        kind, arguments, named = taken_apart(description.removeprefix(PROXIED))
        address = _tcp_address(kind, arguments, named)
        if address is not None:
            _check_port(description, flag, *address)
        elif kind == "unix" and (arguments or "address" in named):
            _check_socket(description, flag, os.path.abspath(named.get("address") or arguments[0]))


def taken_apart(description: str) -> tuple[str, list[str], dict[str, str]]:
    """Kind, arguments and named arguments of an endpoint string (twisted.internet.endpoints)."""
    kind, *parts = (re.sub(r"\\(.)", r"\1", each) for each in re.split(r"(?<!\\):", description))
    arguments = [each for each in parts if "=" not in each]
    return kind, arguments, dict(each.split("=", 1) for each in parts if "=" in each)


def _tcp_address(kind: str, arguments: list[str], named: dict[str, str]) -> tuple[int, str, int] | None:
    """Family, interface and port of an endpoint that listens on TCP; None for any other, or port 0."""
    if kind not in ("tcp", "tcp4", "tcp6", "ssl"):
        return None
    port = named.get("port") or (arguments or [""])[0]
    interface = named.get("interface", "::" if kind == "tcp6" else "")
    if not port.isdigit() or port == "0" or (":" in interface and kind != "tcp6"):
        return None
    return (socket.AF_INET6 if kind == "tcp6" else socket.AF_INET), interface, int(port)


def _check_port(description: str, flag: str, family: int, interface: str, port: int) -> None:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
            probe.listen(1)
        except OSError as error:
            raise StartupError(listen_failed(description, error, flag)) from error


def _check_socket(description: str, flag: str, path: str) -> None:
    """Nobody listens at ``path``, and a socket can be made there. What a killed daemon has left is cleared away."""
    place = os.path.dirname(path)
    try:
        if not os.path.isdir(place):
            raise OSError(errno.ENOTDIR, f"there is no directory {place}")
        if not os.access(place, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, f"the directory {place} can't be written")
        with socket.socket(socket.AF_UNIX) as probe:
            answer = probe.connect_ex(path)
        if answer == errno.ENOENT:
            return
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "there is something else of that name")
        if answer != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, "somebody listens there")
        # Twisted would ask whether the process named in the lock lives; in a container that is PID 1, which is us.
        os.unlink(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.lock")
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartupError(f"Can't listen on {description}: {reason}; choose another with {flag}.") from error


def listen_failed(description: str, error: object, flag: str = LISTEN) -> str:
    """One line for an endpoint that can't listen; ``flag``: what to change."""
    number = getattr(error, "errno", None) or getattr(getattr(error, "socketError", None), "errno", None)
    reason = {
        errno.EADDRINUSE: "the port is in use",
        errno.EACCES: "a port below 1024 needs more rights",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(number or 0, str(error).splitlines()[0] if str(error) else type(error).__name__)
    return f"Can't listen on {description}: {reason}; choose another with {flag}."


def widen_backlog(port: object) -> None:
    """Let connections that come all at once wait in the kernel: Twisted's 50 make the 51st wait for a second."""
    listening = getattr(port, "socket", None)
    if isinstance(listening, socket.socket):
        listening.listen(BACKLOG)

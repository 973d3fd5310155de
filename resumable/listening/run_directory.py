"""The directory for what is one daemon's own while it runs: the sockets on which it answers operators.

It is for daemons that share their upload directory; a daemon with an upload directory of its own has its socket there.
Invariants: a directory that is made here is for its own user only, and so are the sockets; what a process that is gone
has left is removed at the next start, and nothing else is.
Spec: systemd.exec(5), RUNTIME_DIRECTORY; unix(7).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from resumable.listening.endpoints import LONGEST_PATH, quoted
from resumable.model.errors import StartupError

SOCKET: Final = "socket"
"""Stands for the machine's own socket among the endpoints for operators, until the run directory is known."""
USUAL: Final = Path("/run/resumable")
TEMPORARY: Final = "resumable-run-"
"""Begins the names of directories that were made for want of another."""
_OURS = re.compile(r"admin(-\d+)?\.sock")


def made(given: Path | None, environ: Mapping[str, str]) -> Path:
    """The run directory, made if it is missing, that no other server uses. ``given``: the operator's choice. Blocks.
    Raises StartupError."""
    if given is not None:
        if problem := _unfit(given):
            raise StartupError(f"The run directory {given} can't be used ({problem}): choose another with --run-dir.")
        path = given
    else:
        path = next((each for each in _usual(environ) if _unfit(each) is None), None) or _temporary()
    return path


def _usual(environ: Mapping[str, str]) -> Iterator[Path]:
    first = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if first:
        yield Path(first)
    yield USUAL


def _unfit(path: Path) -> str | None:
    """Make it if it is missing, and remove what a dead process has left; what keeps it from being a run directory."""
    if len(os.fsencode(socket_of(path, 256))) > LONGEST_PATH:
        return f"its path is too long: a socket has room for {LONGEST_PATH} bytes"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        remove_stale(path)
        in_use = any(map(_is_ours, path.iterdir()))
    except OSError as error:
        return error.strerror or str(error)
    return "another server uses it" if in_use else None


def _temporary() -> Path:
    """A new one; those of daemons that were killed go."""
    for each in _temporaries():
        if remove_stale(each):  # another has perhaps only just been made
            with suppress(OSError):
                each.rmdir()
    path = Path(tempfile.mkdtemp(prefix=TEMPORARY))
    if problem := _unfit(path):
        raise StartupError(f"The run directory {path} can't be used ({problem}): choose another with --run-dir.")
    return path


def _temporaries() -> Sequence[Path]:
    """Those of this user, the newest first."""
    found = []
    for each in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            state = each.lstat()
            if state.st_uid == os.geteuid() and each.is_dir() and not each.is_symlink():
                found.append((state.st_mtime, each))
    return [path for _, path in sorted(found, reverse=True)]


def remove_stale(path: Path) -> int:
    """Remove the sockets on which nobody answers any more. How many there were."""
    count = 0
    for each in path.iterdir():
        if _is_ours(each) and not _answers(each):
            with suppress(FileNotFoundError):
                each.unlink()
                count += 1
    return count


def _is_ours(path: Path) -> bool:
    return _OURS.fullmatch(path.name) is not None and path.is_socket()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            return probe.connect_ex(os.fspath(path)) != errno.ECONNREFUSED
        except OSError:
            return True


def removed(path: Path) -> None:
    """At the end: remove it if it was made for want of another."""
    if path.name.startswith(TEMPORARY) and path.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(path, ignore_errors=True)


def found(given: Path | None, environ: Mapping[str, str], *, temporary: bool = True) -> Path | None:
    """The socket for operators of a daemon that runs on this machine, where it can be told; see `made`.

    ``temporary``: also in a directory that was made for want of another.
    """
    if given is not None:
        return socket_of(given)
    for each in (*_usual(environ), *(_temporaries() if temporary else ())):
        path = socket_of(each)
        with suppress(OSError):
            if path.is_socket():
                return path
    return None


def socket_of(path: Path, number: int | None = None) -> Path:
    """The path of the machine's socket for operators, or of that of the worker with this number."""
    return path / ("admin.sock" if number is None else f"admin-{number}.sock")


def endpoint_of(path: Path, number: int | None = None) -> str:
    """The endpoint string of `socket_of`."""
    return f"unix:address={quoted(str(socket_of(path, number)))}:mode=600:lockfile=0"


def settled(endpoints: Sequence[str], path: Path) -> tuple[str, ...]:
    """The endpoints for operators, now that the run directory is known."""
    return tuple(endpoint_of(path) if each == SOCKET else each for each in endpoints)

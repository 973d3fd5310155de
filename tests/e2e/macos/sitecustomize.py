"""Python starts with this where its directory is on PYTHONPATH: what Linux has and macOS lacks is hidden from then on.

Full syncs are written to the file that FULL_SYNCS names, a line each: the inode.
"""

from __future__ import annotations

import builtins
import ctypes
import fcntl
import io
import os
import resource
import select
import socket
import sys
from types import SimpleNamespace
from typing import Any

F_FULLFSYNC = 51

HIDDEN: list[tuple[Any, str]] = [
    (os, "fdatasync eventfd splice copy_file_range memfd_create pipe2 posix_fallocate posix_fadvise waitid O_TMPFILE"),
    (os, "sched_getaffinity sched_setaffinity pidfd_open setresuid setresgid O_PATH O_DIRECT getrandom preadv2"),
    (select, "epoll"),
    (socket, "SOCK_NONBLOCK SOCK_CLOEXEC TCP_INFO TCP_USER_TIMEOUT TCP_QUICKACK TCP_CORK MSG_MORE MSG_NOSIGNAL"),
    (socket, "SO_PEERCRED AF_NETLINK AF_VSOCK TCP_DEFER_ACCEPT"),
    (fcntl, "F_SETPIPE_SZ F_GETPIPE_SZ"),
]
HIDDEN_OF_LIBC = frozenset({"mallopt", "malloc_trim", "fallocate", "adjtimex", "prctl", "splice", "sync_file_range"})
LINUXES = ("/proc/", "/sys/", "/run/")


def hide() -> None:
    """All of it, once."""
    for module, names in HIDDEN:
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "darwin"
    # urllib imports it there
    sys.modules["_scproxy"] = SimpleNamespace(_get_proxy_settings=dict, _get_proxies=dict)  # type: ignore[assignment]
    _hide_files()
    _hide_functions()
    _sync_fully()
    _limit_files()


def _hide_files() -> None:
    def hidden(opener: Any) -> Any:
        def opened(file: Any, *arguments: Any, **more: Any) -> Any:
            if isinstance(file, str | os.PathLike) and os.fspath(file).startswith(LINUXES):
                raise FileNotFoundError(2, "hidden", file)
            return opener(file, *arguments, **more)

        return opened

    builtins.open = io.open = hidden(builtins.open)
    os.open = hidden(os.open)
    os.stat = hidden(os.stat)
    os.listdir = hidden(os.listdir)


def _hide_functions() -> None:
    class Library(ctypes.CDLL):
        def __getattr__(self, name: str) -> Any:
            if name in HIDDEN_OF_LIBC:
                raise AttributeError(name)
            return super().__getattr__(name)

    ctypes.CDLL = Library  # type: ignore[misc]


def _sync_fully() -> None:
    control = fcntl.fcntl
    told = os.environ.get("FULL_SYNCS")

    def controlled(fd: int, command: int, *argument: Any) -> Any:
        if command != F_FULLFSYNC:
            return control(fd, command, *argument)
        os.fsync(fd)
        if told:
            with open(told, "a", encoding="ascii") as file:
                file.write(f"{os.fstat(fd).st_ino}\n")
        return 0

    fcntl.F_FULLFSYNC = F_FULLFSYNC  # type: ignore[attr-defined]
    fcntl.fcntl = controlled  # type: ignore[assignment]


def _limit_files() -> None:
    """No limit is told of, and none may be asked for."""
    limits, limited = resource.getrlimit, resource.setrlimit

    def told(what: int) -> tuple[int, int]:
        soft, hard = limits(what)
        return (soft, resource.RLIM_INFINITY) if what == resource.RLIMIT_NOFILE else (soft, hard)

    def asked(what: int, limit: tuple[int, int]) -> None:
        if what == resource.RLIMIT_NOFILE:
            soft, hard = limit[0], limits(what)[1]
            if soft == resource.RLIM_INFINITY or soft > 10240:
                raise ValueError("current limit exceeds maximum limit")
            limit = (min(soft, hard), hard)
        limited(what, limit)

    resource.getrlimit = told  # type: ignore[assignment]
    resource.setrlimit = asked  # type: ignore[assignment]


hide()

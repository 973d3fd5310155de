"""What people at a terminal see of a start: the announcement before the log; of a daemon, where it went.

Invariants: no line of the log is lost, or waits longer than `PATIENCE`; a daemon keeps nothing of the terminal open
once its start has succeeded or failed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TextIO

from resumable.daemon.announcement import Row, Started, block, own_address, rows
from resumable.masking import masked

PATIENCE: Final = 5.0
"""Seconds for which the log waits for the announcement: a start that takes longer shows what it does."""


class HeldOutput(io.TextIOBase):
    """Keeps what is written to ``out`` until `first`, `release` or `PATIENCE`. ``monotonic``: seconds."""

    def __init__(self, out: TextIO, monotonic: Callable[[], float]) -> None:
        self._out = out
        self._monotonic = monotonic
        self._until: float | None = monotonic() + PATIENCE
        self._kept: list[str] = []

    def write(self, text: str) -> int:
        self._kept.append(text)
        if self._until is None or self._monotonic() > self._until:
            self.release()
        return len(text)

    def flush(self) -> None:
        if self._until is None:
            self._out.flush()

    def first(self, text: str) -> None:
        """Write this before what was kept; from now on nothing is."""
        self._out.write(text)
        self.release()

    def release(self) -> None:
        """Write what was kept; from now on nothing is."""
        self._until = None
        kept, self._kept = self._kept, []
        self._out.write("".join(kept))
        self._out.flush()


class ParentTerminal:
    """The standard output and error of the process that starts a daemon. Made before `twistd` forks; twistd's parent
    waits until the start has succeeded or failed, and one of both is told before that."""

    def __init__(self, twistd: Mapping[str, Any], log_file: str | None) -> None:
        self._files = [_copied(1), _copied(2)]
        self._pid_file = str(twistd.get("pidfile") or "")
        self._log_file = log_file

    def told(self, started: Started) -> None:
        """The start has succeeded."""
        self._end(0, block([*rows(started, own_address), *self._own_rows()]))

    def failed(self, problem: str) -> None:
        """The start has failed."""
        log = "" if self._log_file is None else f" (log: {self._log_file})"
        self._end(1, f"resumable: {problem}{log}\n")

    def _own_rows(self) -> Sequence[Row]:
        pid = str(os.getpid())
        where = f"{pid}, in {self._pid_file}" if self._pid_file else pid
        stop = f"kill $(cat {self._pid_file})" if self._pid_file else f"kill {pid}"
        log = "as twistd's --logger or --syslog say" if self._log_file is None else self._log_file
        return ("process", where), ("log", log), ("stop", stop)

    def _end(self, number: int, text: str) -> None:
        descriptor = self._files[number]
        with suppress(OSError):  # who started it has gone, or its disk is full: no reason not to serve
            if descriptor is not None:
                os.write(descriptor, masked(text).encode("utf-8", "backslashreplace"))
        for each in self._files:
            if each is not None:
                os.close(each)
        self._files = [None, None]


def _copied(descriptor: int) -> int | None:
    """None where it is closed."""
    try:
        return os.dup(descriptor)
    except OSError:
        return None

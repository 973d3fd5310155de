"""A file that operators edit while the server runs.

Reason to change: how a change is noticed. Invariant: what is answered is what the file says, a second old at the most;
while it can't be read or makes no sense nobody is let in by what it said before. It is read in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.threads import IPool
from resumable.auth.answers import Answers
from resumable.auth.secret import AccessProblem, read_text
from resumable.protocol.errors import Unavailable

T = TypeVar("T")
RECHECK = 1.0
"""Seconds between two looks at the file."""

log = Logger()


class WatchedFile(Generic[T]):
    """``parse`` gets the file's text, and raises AccessProblem; it runs in a thread of ``pool``."""

    def __init__(self, what: str, path: Path, parse: Callable[[str], T], pool: IPool, clock: IReactorTime) -> None:
        self._what = what
        self._path = path
        self._parse = parse
        self._pool = pool
        self._looks: Answers[T] = Answers(clock, RECHECK, most=1)
        self._seen: tuple[tuple[int, ...], T] | None = None
        self._complaint = ""

    def load(self) -> T:
        """What the file says now; blocks, and raises AccessProblem. For the start."""
        try:
            found = os.stat(self._path)
        except OSError as problem:
            raise AccessProblem(f"{self._what}: {self._path} can't be read ({problem.strerror})") from None
        version = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        if self._seen is None or self._seen[0] != version:
            self._seen = None
            self._seen = (version, self._parse(read_text(self._what, self._path)))
        return self._seen[1]

    def current(self) -> Deferred[T]:
        """What the file says; fails with Unavailable."""
        return self._looks.ask(b"", self._look)

    def _look(self) -> Deferred[T]:
        return Deferred.fromCoroutine(self._looked())

    async def _looked(self) -> T:
        try:
            found = await self._pool.run(self.load)
        except AccessProblem as problem:
            if self._complaint != str(problem):
                self._complaint = str(problem)
                log.error("nobody gets in by {what}: {problem}", what=self._what, problem=self._complaint)
            raise Unavailable("Credentials can't be checked now.", retry_after=5) from None
        self._complaint = ""
        return found


def lines(text: str) -> list[tuple[int, str]]:
    """Lines with their numbers, less empty ones and those that begin with #."""
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]

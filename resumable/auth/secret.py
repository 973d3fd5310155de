"""Secrets, as values or in files (as with Docker and Kubernetes); and files of secrets that operators edit while the
server runs.

Invariants: no ``repr``, no message and no log line holds a secret. A change to a watched file counts within a second;
while the file can't be read or parsed, nobody is let in by its earlier content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from resumable.aio.deferreds import Remembered
from resumable.aio.threads import IPool
from resumable.protocol.errors import Unavailable

LARGEST = 1 << 20
"""Bytes of a file of secrets; more is a mistake."""


class AccessProblem(ValueError):
    """Access can't be set up as asked; the message is one line that names the remedy."""


class Secret:
    """Bytes that nobody prints."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("secrets aren't pickled")


def read_secret(what: str, value: str | None, path: Path | None) -> Secret:
    """The secret ``what``, from itself or from a file, without white space around it. Blocks.

    Raises AccessProblem when both or none are given, when the file can't be read, or when there's nothing in it.
    """
    if (value is None) == (path is None):
        raise AccessProblem(f"{what}: give the secret or a file that holds it, one of the two")
    text = read_text(what, path) if path is not None else value or ""
    secret = text.strip()
    if not secret:
        raise AccessProblem(f"{what}: {path or 'the secret'} is empty")
    return Secret(secret.encode())


def read_text(what: str, path: Path) -> str:
    """A small regular file. Blocks. Raises AccessProblem."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a FIFO would wait
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise AccessProblem(f"{what}: {path} is not a file")
            content = file.read(LARGEST + 1)
    except OSError as problem:
        raise AccessProblem(f"{what}: {path} can't be read ({problem.strerror})") from None
    if len(content) > LARGEST:
        raise AccessProblem(f"{what}: {path} is larger than {LARGEST} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise AccessProblem(f"{what}: {path} is not UTF-8 text") from None


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
        self._looks: Remembered[T] = Remembered(clock, RECHECK, most=1)
        self._cached: tuple[tuple[int, ...], T] | None = None
        self._complaint = ""

    def load(self) -> T:
        """The file's content now, parsed. Blocks; raises AccessProblem. For the start."""
        try:
            found = os.stat(self._path)
        except OSError as problem:
            raise AccessProblem(f"{self._what}: {self._path} can't be read ({problem.strerror})") from None
        version = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        if self._cached is None or self._cached[0] != version:
            self._cached = None
            self._cached = (version, self._parse(read_text(self._what, self._path)))
        return self._cached[1]

    def current(self) -> Deferred[T]:
        """The file's content, parsed. Fails with Unavailable."""
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

"""Secrets, given as they are or as a file, as Docker and Kubernetes do.

Reason to change: where secrets come from. Invariant: no ``repr``, no message and no log line holds one.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST = 1 << 20
"""Bytes of a file of secrets; more is a mistake."""


class AccessProblem(ValueError):
    """Access can't be set up as asked; the message is one line that tells what to do."""


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

"""Names for placed files that are taken already, or too long. Pure.

One reason to change: what a file is called when its name is another's. Invariant: a name never exceeds `MAX_NAME`
bytes of UTF-8, so that it and its sidecar's fit every usual file system; what follows its last dot is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

SIDECAR = ".info.json"
#: Bytes of a name: NAME_MAX of Linux's file systems (limits.h), less what a sidecar's has more.
MAX_NAME = 255 - len(SIDECAR)
NUMBERS = 100
"""Numbers below this one are tried before the upload's id is taken: each costs a look at the disk."""


def fitted(name: str, mark: str = "") -> str:
    """The name with ``mark`` before its extension, its stem cut to fit."""
    stem, dot, extension = name.rpartition(".")
    ending = f"{mark}.{extension}" if dot and stem and len(extension.encode()) < 16 else mark
    stem = name[: len(name) - len(ending) + len(mark)]
    room = MAX_NAME - len(ending.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + ending


def candidates(name: str, upload_id: str) -> Iterator[str]:
    """``report.pdf``, ``report (2).pdf``, ``report (3).pdf``, ..., and at last one with the id, which no other has."""
    yield fitted(name)
    for number in range(2, NUMBERS):
        yield fitted(name, f" ({number})")
    yield fitted(name, f" ({upload_id})")

"""Small file systems that a test fills."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Mount(Protocol):
    """Makes a file system of ``size`` bytes."""

    def __call__(self, size: int, options: str = "rw") -> Path: ...


def free(place: Path) -> int:
    """Bytes that are free in the file system of ``place``."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def fill(place: Path, keep: int = 0) -> Path:
    """Take all of the free space but ``keep`` bytes with a file of our own."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while free(place) > keep:
                file.write(b"\0" * min(65_536, max(4096, free(place) - keep)))
        except OSError:
            pass
    return filler

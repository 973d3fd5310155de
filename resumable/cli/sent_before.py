"""Which files of a command of many were sent already, when it was cut: the same command again leaves them out.

Invariants: a file that has changed since (another size or time) is sent again; the record goes when all has been sent,
so that a command that has done its work does it anew. A record that can't be read or written only costs time.
"""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from resumable.cli.files_to_send import FileToSend

DIRECTORY: Final = "batches"
#: Seconds for which a record is kept: servers keep uploads for about as long.
KEPT: Final = 30 * 86400.0


class SentBefore:
    """``path``: of the record, None for no record."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[int]] = {}
        self._forms: dict[str, list[int]] = {}

    @classmethod
    def of(cls, state: Path, given: Namespace, files: int) -> SentBefore:
        """The record of this command, below the directory of the state. One file needs none."""
        if files < 2:
            return cls(None)
        told = [given.url, sorted(os.path.abspath(each) for each in given.what), sorted(given.meta)]
        name = sha256(json.dumps(told).encode()).hexdigest()[:32]
        record = cls(state / DIRECTORY / f"{name}.jsonl")
        record._begin(given.restart)
        return record

    def _begin(self, restart: bool) -> None:
        assert self._path is not None
        if restart:
            self.drop()
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for each in self._path.parent.glob("*.jsonl"):
                if each.stat().st_mtime < time.time() - KEPT:
                    each.unlink(missing_ok=True)
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # a kill may have cut the last line
                    entry = json.loads(line)
                    self._known[entry["path"]] = entry["form"]

    def has(self, file: FileToSend) -> bool:
        """Whether it was sent as it is. To be asked before it is sent: it is recorded as it was then."""
        if self._path is None or file.stream:
            return False
        form = self._forms[_path(file)] = _form(file)
        return bool(form) and self._known.get(_path(file)) == form

    def add(self, file: FileToSend, url: str) -> None:
        """It is sent."""
        if self._path is None or file.stream:
            return
        path = _path(file)
        form = self._forms[path] if path in self._forms else _form(file)
        line = json.dumps({"path": path, "form": form, "url": url})
        with suppress(OSError), open(self._path, "a", encoding="utf-8", opener=_private) as record:
            record.write(line + "\n")

    def drop(self) -> None:
        """All is sent."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _path(file: FileToSend) -> str:
    return os.path.abspath(file.path)


def _form(file: FileToSend) -> list[int]:
    try:
        about = file.path.stat()
    except OSError:
        return []
    return [about.st_size, about.st_mtime_ns]

"""What the server has promised, and what went wrong.

Invariant: an upload is entered only after its last byte was acknowledged, and stays entered for good. Used by several
threads.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.e2e.tus import pattern, sha256


@dataclass
class Promise:
    """A finished upload. ``events``: what hooks have to be told of it, in order; ``stored`` comes from the remote, if
    there is one, and once more from all of them. ``gone``: whether it was terminated."""

    path: str
    size: int
    digest: str
    events: list[str] = field(default_factory=list)
    gone: bool = False

    @property
    def id(self) -> str:
        return self.path.rpartition("/")[2]


class Ledger:
    """``done``: how often each kind of client came to its end. ``unknown``: creations whose answer was lost.
    ``read`` and ``kept``: bytes that auditors have found right, and that are to stay; under ``lock``."""

    def __init__(self, told: Sequence[str] = ("created", "finished", "stored", "stored")) -> None:
        """``told``: what hooks are told of an upload that is finished."""
        self._told = told
        self.promises: list[Promise] = []
        self.problems: list[str] = []
        self.done: Counter[str] = Counter()
        self.unknown = 0
        self.read = self.kept = 0
        self.lock = threading.Lock()
        self._unaudited: list[Promise] = []
        self._lock = threading.Lock()

    def finished(self, path: str, data: bytes) -> None:
        promise = Promise(path, len(data), sha256(data), list(self._told))
        with self._lock:
            self.promises.append(promise)
            self._unaudited.append(promise)

    def ended(self, path: str) -> None:
        """An upload was terminated before it was finished."""
        with self._lock:
            self.promises.append(Promise(path, 0, "", ["created", "terminated"], gone=True))

    def abandoned(self, path: str) -> None:
        """An upload will expire."""
        with self._lock:
            self.promises.append(Promise(path, 0, "", ["created", "expired"], gone=True))

    def knows(self, path: str) -> bool:
        with self._lock:
            return any(each.path == path for each in self.promises)

    def next_unaudited(self) -> Promise | None:
        with self._lock:
            return self._unaudited.pop(0) if self._unaudited else None

    def problem(self, what: str) -> None:
        with self._lock:
            self.problems.append(what)

    def count(self, kind: str) -> None:
        with self._lock:
            self.done[kind] += 1

    def lost_creation(self) -> None:
        with self._lock:
            self.unknown += 1


def data_of(seed: int, size: int) -> bytes:
    return pattern(size, seed)

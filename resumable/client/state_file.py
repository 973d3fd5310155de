"""The small file that remembers unfinished uploads, so that the same call goes on at the same byte.

Invariants: the file is always whole: it is written beside, synced, and renamed; two processes at once change it in
turn, by one lock; of two transfers of one source to one endpoint only one runs, by a lock that ends with its process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from attrs import asdict, define, field, frozen

from resumable.client.exceptions import AlreadySending, StateUnusable

VERSION: Final = 1


@define
class UploadEntry:
    """An unfinished upload. ``parts``: of parallel parts, (offset, size, url) each; ``fingerprint`` None: a stream."""

    key: str
    source: str
    endpoint: str
    protocol: str
    size: int | None
    fingerprint: dict[str, Any] | None
    url: str | None = None
    parts: list[tuple[int, int, str | None]] = field(factory=list)
    created: float = 0.0
    updated: float = 0.0

    @property
    def urls(self) -> list[str]:
        """Where the server has something of it."""
        return [url for url in (self.url, *(each[2] for each in self.parts)) if url is not None]


@frozen(kw_only=True)
class Leftover:
    """An unfinished upload, as its owner sees it. ``resumable`` False: a stream, which can't be read again."""

    key: str
    source: str
    endpoint: str
    protocol: str
    url: str | None
    urls: tuple[str, ...]
    size: int | None
    created: float
    updated: float
    resumable: bool


class EntryClaim:
    """The right to transfer one source to one endpoint. It ends with the process."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(self._file)
                raise AlreadySending(f"{name} is being sent there by another transfer already") from error
            except OSError as error:  # no locks on this file system, or it is broken
                os.close(self._file)
                why = error.strerror or error
                raise StateUnusable(
                    f"{path} can't be locked: {why}; set XDG_STATE_HOME to a directory of a local disk"
                ) from error
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(self._file).st_ino:
                    return
            os.close(self._file)  # the one before has removed it meanwhile

    def release(self) -> None:
        """Let others. May be repeated."""
        if self._file >= 0:
            with suppress(FileNotFoundError):
                self._path.unlink()
            os.close(self._file)
            self._file = -1


def state_directory() -> Path:
    """Where programs of this user keep their state (XDG Base Directory Specification), with our name."""
    given = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(given):  # "relative paths ... should be considered invalid"
        return Path(given) / "resumable"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/resumable"
    return Path.home() / ".local/state/resumable"


class StateFile:
    """The uploads that aren't finished, and the size of requests that each endpoint takes. All methods block, and
    raise StateUnusable."""

    def __init__(self, path: str | os.PathLike[str] | None = None, now: Callable[[], float] = time.time) -> None:
        self.path = Path(path) if path is not None else state_directory() / "uploads.json"
        self._now = now

    @staticmethod
    def key(endpoint: str, identity: str) -> str:
        """The key of the entry for a source and an endpoint."""
        return hashlib.sha256(f"{endpoint}\0{identity}".encode("utf-8", "surrogateescape")).hexdigest()[:24]

    def claim(self, key: str, name: str) -> EntryClaim:
        """The exclusive right to this entry. Raises AlreadySending."""
        with self._told():
            locks = self.path.parent / "locks"
            locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            return EntryClaim(locks / key, name)

    def find(self, key: str) -> UploadEntry | None:
        """The entry, if there is one."""
        return next((each for each in self._entries() if each.key == key), None)

    def entries(self) -> list[Leftover]:
        """All of them, the oldest first."""
        return sorted((_leftover(each) for each in self._entries()), key=lambda each: each.created)

    def save(self, entry: UploadEntry) -> None:
        """Write it, in place of the one with its key."""
        with self._changing() as document:
            entry.updated = self._now()
            entry.created = entry.created or entry.updated
            document["uploads"][entry.key] = asdict(entry)

    def forget(self, key: str) -> None:
        """Remove it. May be repeated."""
        if key in self._read()["uploads"]:
            with self._changing() as document:
                document["uploads"].pop(key, None)

    def piece(self, endpoint: str) -> int | None:
        """The most bytes of a request that something before this endpoint lets through; None: no bound is known."""
        found = self._read()["pieces"].get(endpoint)
        return found if isinstance(found, int) and found > 0 else None

    def remember_piece(self, endpoint: str, size: int) -> None:
        """Remember that bound."""
        with self._changing() as document:
            document["pieces"][endpoint] = size

    def download(self, key: str) -> dict[str, str]:
        """What is known of a file that isn't wholly received: its url and etag; empty: nothing."""
        found = self._read()["downloads"].get(key)
        return found if isinstance(found, dict) else {}

    def remember_download(self, key: str, known: dict[str, str | None] | None) -> None:
        """Remember it; None: forget it."""
        if known is None and key not in self._read()["downloads"]:
            return
        with self._changing() as document:
            if known is None:
                document["downloads"].pop(key, None)
            else:
                document["downloads"][key] = known

    def _entries(self) -> list[UploadEntry]:
        with self._told():
            found = []
            for each in self._read()["uploads"].values():
                entry = UploadEntry(**each)
                entry.parts = [(int(offset), int(size), url) for offset, size, url in entry.parts]
                found.append(entry)
            return found

    def _read(self) -> dict[str, Any]:
        with self._told():
            try:
                document = json.loads(self.path.read_text(encoding="utf-8", errors="surrogateescape"))
            except FileNotFoundError:
                document = {"version": VERSION, "uploads": {}, "pieces": {}}
            if document["version"] != VERSION or not isinstance(document["uploads"], dict):
                raise ValueError("another version has written it")
            document.setdefault("pieces", {})
            document.setdefault("downloads", {})
            if not isinstance(document["pieces"], dict) or not isinstance(document["downloads"], dict):
                raise ValueError("it has something else in it")
            assert isinstance(document, dict)
            return document

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        with self._told():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                document = self._read()
                yield document
                self._write(json.dumps(document, indent=1).encode("utf-8", "surrogateescape"))
            finally:
                os.close(lock)

    def _write(self, data: bytes) -> None:
        beside = f"{self.path}.new"  # under the lock, so that nobody else writes it
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as whole:
            whole.write(data)
            whole.flush()
            os.fsync(file)
        os.replace(beside, self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateUnusable(
                f"the state file {self.path} can't be used: {error.strerror or error}; "
                "set XDG_STATE_HOME to a directory that can be written"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateUnusable(f"{self.path} is no state file of ours ({error}): move it away") from error


def _leftover(entry: UploadEntry) -> Leftover:
    return Leftover(
        key=entry.key,
        source=entry.source,
        endpoint=entry.endpoint,
        protocol=entry.protocol,
        url=entry.url,
        urls=tuple(entry.urls),
        size=entry.size,
        created=entry.created,
        updated=entry.updated,
        resumable=entry.fingerprint is not None,
    )

"""What is sent: a file, bytes, or a stream whose length shows at its end.

Invariants: bytes are only read by position, and those of a stream are kept until the server has acknowledged them; what
a fingerprint says of a file depends on its size, its time and its content, and not on its inode, so that a copied or
restored directory goes on as well. Nothing here knows HTTP.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from attrs import frozen

from resumable.client.exceptions import SourceChanged, SourceUnreadable

SAMPLES: Final = 16
"""Places of a file whose content is in its fingerprint, its start and end among them."""
SAMPLE: Final = 4096
"""Bytes at each place."""
READ: Final = 1 << 20
"""Bytes that are read at once for a digest."""
HASHES: Final = {"sha-256": "sha256", "sha-512": "sha512"}
"""Names of hashlib by keys of Repr-Digest."""
Told = Callable[[int], None]


@frozen
class Window:
    """What can be sent now: so many bytes, and whether the source ends with them."""

    size: int
    last: bool


class SendSource:
    """A source that has all its bytes. ``size`` None: the length isn't known yet; ``once``: it can't be read again."""

    size: int | None = None
    once: bool = False

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self.identity = identity

    def fingerprint(self) -> dict[str, Any] | None:
        """What tells it from another of its name; None: it can't be read again. Raises SourceUnreadable. Blocks."""
        raise NotImplementedError

    def recheck(self) -> None:
        """Raises SourceChanged if it is known to have changed since `fingerprint`. Blocks for moments."""

    def window(self, offset: int, most: int | None) -> Window:
        """What can be sent from ``offset`` on, of ``most`` bytes at most. A stream blocks until it has something."""
        assert self.size is not None
        left = max(0, self.size - offset)
        size = left if most is None else min(left, most)
        return Window(size, size == left)

    def acknowledge(self, offset: int) -> None:
        """The server has the bytes before ``offset``."""

    def read(self, offset: int, size: int) -> bytes:
        """See `effects.ByPosition`."""
        raise NotImplementedError

    def fileno(self) -> int | None:
        """See `effects.ByPosition`."""
        return None

    def digests(self, algorithms: Sequence[str], told: Told) -> dict[str, bytes]:
        """Those of the whole source, by keys of `HASHES`. ``told``: of the bytes that are done. Blocks."""
        running = {name: hashlib.new(HASHES[name]) for name in algorithms}
        offset = 0
        while block := self.read(offset, READ):
            for each in running.values():
                each.update(block)
            offset += len(block)
            told(offset)
        return {name: each.digest() for name, each in running.items()}

    def close(self) -> None:
        """Nothing is read any more. May be repeated."""


class FileSource(SendSource):
    """A file. Raises SourceUnreadable."""

    size: int

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.path = Path(path)
        super().__init__(name or os.fspath(path), f"file:{os.path.abspath(path)}")
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise SourceUnreadable(f"{self.name} can't be read: {_why(error)}") from error
        found = os.fstat(self._file)
        import stat

        if not stat.S_ISREG(found.st_mode):
            os.close(self._file)
            kind = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file: send it as standard input"
            raise SourceUnreadable(f"{self.name} is {kind}")
        self.size = found.st_size
        self._times = (found.st_size, found.st_mtime_ns)

    def fingerprint(self) -> dict[str, Any]:
        """See `SendSource`: size, time in nanoseconds, and the SHA-256 of the sampled places."""
        sampled = hashlib.sha256()
        last = max(0, self.size - SAMPLE)
        for offset in sorted({last * number // (SAMPLES - 1) for number in range(SAMPLES)}):
            sampled.update(self.read(offset, SAMPLE))
        return {"size": self.size, "mtime_ns": self._times[1], "sampled": sampled.hexdigest()}

    def recheck(self) -> None:
        """See `SendSource`: size and time, of the open file and of what has its name now."""
        for which in (self._file, self.path):
            try:
                found = os.stat(which)
            except FileNotFoundError:
                continue  # it is open: its bytes are still those that were begun
            except OSError as error:
                raise SourceUnreadable(f"{self.name} can't be read: {_why(error)}") from error
            if (found.st_size, found.st_mtime_ns) != self._times:
                raise SourceChanged(f"{self.name} has changed while it was sent", self.name)

    def read(self, offset: int, size: int) -> bytes:
        """See `SendSource`."""
        try:
            return os.pread(self._file, size, offset)
        except OSError as error:
            raise SourceUnreadable(f"{self.name} can't be read: {_why(error)}") from error

    def fileno(self) -> int:
        """See `SendSource`."""
        return self._file

    def close(self) -> None:
        """See `SendSource`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class BytesSource(SendSource):
    """Bytes in memory."""

    size: int

    def __init__(self, data: bytes | bytearray | memoryview, name: str | None = None) -> None:
        self._data = memoryview(data).cast("B")
        self.size = len(self._data)
        self._digest = hashlib.sha256(self._data).hexdigest()
        super().__init__(name or f"{self.size} bytes", f"bytes:{self._digest}")

    def fingerprint(self) -> dict[str, Any]:
        """See `SendSource`: size and SHA-256."""
        return {"size": self.size, "sha256": self._digest}

    def read(self, offset: int, size: int) -> bytes:
        """See `SendSource`."""
        return bytes(self._data[offset : offset + size])


class StreamSource(SendSource):
    """What a stream gives, until it ends. A thread reads it, so that it flows while a request is under way.

    At most ``buffer`` bytes are kept: read, and not acknowledged.
    """

    once = True

    def __init__(self, stream: BinaryIO, buffer: int, name: str | None = None) -> None:
        super().__init__(name or str(getattr(stream, "name", "stream")), f"stream:{os.getpid()}:{id(stream)}")
        self._stream, self._most = stream, buffer
        self._kept = bytearray()
        self._start = 0
        self._ended = self._closed = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._running = hashlib.sha256()
        self._reader: threading.Thread | None = None

    def fingerprint(self) -> None:
        """See `SendSource`: it can't be read again."""
        return None

    def window(self, offset: int, most: int | None) -> Window:
        """See `SendSource`. Raises SourceUnreadable, and SourceChanged for bytes that aren't kept any more."""
        with self._changed:
            if self._reader is None:
                self._reader = threading.Thread(target=self._read_all, name="resumable-stream", daemon=True)
                self._reader.start()
            if offset < self._start:
                raise SourceChanged(
                    f"{self.name}: the server has {offset} bytes, and {self._start} are gone here",
                    self.name,
                )
            while not self._ended and self._start + len(self._kept) <= offset and not self._closed:
                self._changed.wait(1.0)  # so that a signal is heard
            if self._error is not None:
                raise SourceUnreadable(f"{self.name} can't be read: {_why(self._error)}") from self._error
            left = max(0, self._start + len(self._kept) - offset)
            size = left if most is None else min(left, most)
            return Window(size, self._ended and size == left)

    def acknowledge(self, offset: int) -> None:
        """See `SendSource`: they are dropped."""
        with self._changed:
            gone = min(max(0, offset - self._start), len(self._kept))
            del self._kept[:gone]
            self._start += gone
            self._changed.notify_all()

    def read(self, offset: int, size: int) -> bytes:
        """See `SendSource`."""
        with self._changed:
            at = offset - self._start
            return bytes(self._kept[at : at + size])

    def digests(self, algorithms: Sequence[str], told: Told) -> dict[str, bytes]:
        """See `SendSource`; only SHA-256 is known, once the stream has ended."""
        assert self._ended
        return {name: self._running.digest() for name in algorithms if name == "sha-256"}

    def close(self) -> None:
        """See `SendSource`. The stream itself stays open: it is its owner's."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _read_all(self) -> None:
        read = getattr(self._stream, "read1", self._stream.read)
        try:
            while block := self._room() and read(min(self._room(), READ)):
                self._running.update(block)
                with self._changed:
                    self._kept += block
                    self._changed.notify_all()
        except (OSError, ValueError) as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _room(self) -> int:
        """How many bytes may be read, once there is room; 0: nothing is wanted any more."""
        with self._changed:
            while len(self._kept) >= self._most and not self._closed:
                self._changed.wait()
            return 0 if self._closed else self._most - len(self._kept)


def source_of(
    given: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, name: str | None, buffer: int
) -> SendSource:
    """The source for what a caller has given: a path, bytes, or a stream. Raises SourceUnreadable."""
    if isinstance(given, bytes | bytearray | memoryview):
        return BytesSource(given, name)
    if isinstance(given, str | os.PathLike):
        return FileSource(given, name)
    return StreamSource(given, buffer, name)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

"""Clients of all kinds: patient, hasty, cut off, silent, rude. Each is a thread that does one thing after another.

Invariant, asserted by each of them at each answer: an offset never goes back behind an acknowledged one, and never runs
ahead of what was sent.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import ClassVar, Final

from tusclient.client import TusClient

from tests.e2e.tus import Tus, checksum, metadata, patch_head
from tests.e2e.wire import Answer

from .ledger import Ledger, data_of

MIB: Final = 1 << 20
PATIENCE: Final = 180.0
"""Seconds that a client goes on asking; longer than any trouble."""
LATER: Final = frozenset({423, 429, 503, 507})


class Over(Exception):
    """The soak is at its end."""


class Client(threading.Thread):
    """Works until ``over`` is set, and only while ``gate`` is open."""

    later: ClassVar[frozenset[int]] = LATER
    """Statuses after which it tries again."""

    def __init__(self, tus: Tus, ledger: Ledger, seed: int, gate: threading.Event, over: threading.Event) -> None:
        super().__init__(name=f"client-{seed}", daemon=True)
        self.tus = tus
        self.resting = threading.Event()
        self._ledger = ledger
        self._random = Random(seed)
        self._gate = gate
        self._over = over
        self._numbers = iter(range(seed * 1_000_000, (seed + 1) * 1_000_000))

    def kinds(self) -> list[tuple[Callable[[], None], int]]:
        """What it may do, and how often in comparison."""
        return [
            (self.small, 30), (self.sliced, 6), (self.cut_off, 6), (self.deferred, 3), (self.summed, 4),
            (self.joined, 2), (self.silent, 2), (self.ended, 3), (self.rude, 4), (self.tuspy, 2),
        ]  # fmt: skip

    def run(self) -> None:
        kinds = self.kinds()
        while not self._over.is_set():
            if not self._gate.is_set():
                self.tus.close()
                self.resting.set()
                self._gate.wait(0.1)
                continue
            self.resting.clear()
            (kind,) = self._random.choices([each for each, _ in kinds], [weight for _, weight in kinds])
            try:
                kind()
            except Over:
                break
            except Exception as error:
                self._ledger.problem(f"{kind.__name__}: {type(error).__name__}: {str(error)[:400]}")
                self.tus.close()
            else:
                self._ledger.count(kind.__name__)
        self.tus.close()
        self.resting.set()

    # -- kinds of clients

    def small(self) -> None:
        """Creation with all its bytes; at times it comes again later and finds it done."""
        data = self._data(8192)
        path = self._create(len(data), {"Content-Type": "application/offset+octet-stream"}, data)
        self._bring(path, data)

    def sliced(self) -> None:
        data = self._data(24 * MIB)
        self._bring(self._create(len(data)), data)

    def cut_off(self) -> None:
        data = self._data(16 * MIB)
        self._bring(self._create(len(data)), data, cut=0.6)

    def deferred(self) -> None:
        """Its length is known with its last bytes only, and they come in chunks."""
        data = self._data(4 * MIB)
        half = len(data) // 2
        path = self._create(None)
        while (at := self._offset(path, 0, half)) < half:
            self._later(lambda at=at: self.tus.patch(path, at, [data[at:half]]))
        while (at := self._offset(path, half, len(data))) < len(data):
            self._later(lambda at=at: self.tus.patch(path, at, [data[at:]], {"Upload-Length": str(len(data))}))
        self._ledger.finished(path, data)

    def summed(self) -> None:
        """With checksums, one of which is wrong."""
        data = self._data(2 * MIB)
        path = self._create(len(data))
        at, wrong = 0, self._random.random() < 0.5
        while (at := self._offset(path, at, len(data))) < len(data):
            piece = data[at : at + 700_000]
            said = checksum("sha1", b"other" if wrong else piece)
            answer = self._try(lambda at=at, p=piece, s=said: self.tus.patch(path, at, p, {"Upload-Checksum": s}))
            if wrong and answer is not None and answer.status not in self.later:
                assert answer.status == 460, answer
                wrong = False
        self._ledger.finished(path, data)

    def joined(self) -> None:
        pieces = [self._data(3 * MIB) for _ in range(3)]
        paths = [self._create(len(each), {"Upload-Concat": "partial"}) for each in pieces]
        for path, piece in zip(paths, pieces, strict=True):
            self._bring(path, piece, cut=0.2, enter=False)
        final = self._create(None, {"Upload-Concat": "final;" + " ".join(paths)})
        self._until(lambda: "upload-offset" in self._persist(lambda: self.tus.head(final)))
        self._ledger.finished(final, b"".join(pieces))

    def silent(self) -> None:
        """Half of a body, then nothing, and the line stays open; another one resumes."""
        data = self._data(2 * MIB)
        path = self._create(len(data))
        try:
            with self.tus.wire() as wire:
                wire.send(patch_head(path, 0, len(data)) + data[: len(data) // 2])
                self._bring(path, data)
        except OSError:
            self._bring(path, data)

    def ended(self) -> None:
        """Terminated, at whatever point."""
        data = self._data(6 * MIB)
        path = self._create(len(data))
        self._try(lambda: self.tus.patch(path, 0, data[: self._random.randrange(len(data))]))
        self._persist(lambda: self.tus.delete(path), also=(204, 404, 410))
        self._ledger.ended(path)

    def rude(self) -> None:
        """Nothing of it may have an effect."""
        data = self._data(4096)
        path = self._create(len(data))
        for ask in (
            lambda: self.tus.patch(path, 17, b"wrong offset"),
            lambda: self.tus.patch(path, 0, data + b"too long"),
            lambda: self.tus.patch(path, 0, data, {"Content-Type": "text/plain"}),
            lambda: self.tus.patch(path, 0, data, {"Upload-Checksum": "md6 x"}),
            lambda: self.tus.patch("/files/nonsense", 0, data),
            lambda: self.tus.head(path, {"Tus-Resumable": "0.1"}),
        ):
            answer = self._try(ask)
            assert answer is None or 400 <= answer.status < 500 or answer.status in self.later, answer
        try:
            with self.tus.wire() as wire:
                wire.send(self._random.randbytes(2000) + b"\r\n\r\n")
        except OSError:
            pass
        assert self._offset(path, 0, 0) == 0
        self._bring(path, data)

    def tuspy(self) -> None:
        """A real client, with its own idea of retrying."""
        data = self._data(3 * MIB)
        client = TusClient(f"http://127.0.0.1:{self.tus.port}/files/")
        uploader = None
        until = time.monotonic() + PATIENCE
        while True:
            try:
                uploader = uploader or client.uploader(
                    file_stream=io.BytesIO(data), chunk_size=1 * MIB, metadata={"filename": "x.bin"}
                )
                if not uploader.url:
                    uploader.set_url(uploader.create_url())
                uploader.offset = uploader.get_offset()
                uploader.upload()
                break
            except Exception as error:
                if uploader is None or not uploader.url:
                    self._ledger.lost_creation()
                if time.monotonic() > until:
                    raise
                del error
                self._pause()
        self._ledger.finished("/files/" + uploader.url.rpartition("/")[2], data)

    # -- what they are made of

    def _data(self, most: int) -> bytes:
        return data_of(next(self._numbers), self._random.randrange(1, most))

    def _create(self, length: int | None, fields: dict[str, str] | None = None, body: bytes | None = None) -> str:
        name = metadata(filename=f"{self.name}.bin")
        deferred = {"Upload-Defer-Length": "1"} if length is None and not (fields or {}).get("Upload-Concat") else {}
        while True:
            answer = self._try(
                lambda: self.tus.post(length, {**deferred, "Upload-Metadata": name, **(fields or {})}, body)
            )
            if answer is None or (answer.status == 503 and "location" in answer):
                self._ledger.lost_creation()
            elif answer.status == 201:
                return self.tus.path(answer)
            else:
                assert answer.status in self.later, answer
            self._pause()

    def _bring(self, path: str, data: bytes, cut: float = 0.0, enter: bool = True) -> None:
        """Send what is missing, in slices, until all of it is acknowledged."""
        at, sent = 0, len(data)
        while (at := self._offset(path, at, sent)) < len(data):
            piece = data[at : at + self._random.choice((64 << 10, 1 * MIB, 8 * MIB, len(data)))]
            if self._random.random() < cut:
                self._cut(path, at, piece)
                continue
            answer = self._try(lambda at=at, piece=piece: self.tus.patch(path, at, piece))
            if answer is not None and answer.status == 204:
                assert answer.offset == at + len(piece), answer
                at = answer.offset
            elif answer is not None:
                assert answer.status in self.later | {409}, answer
                self._pause()
        if enter:
            self._ledger.finished(path, data)

    def _cut(self, path: str, at: int, piece: bytes) -> None:
        """The line breaks within a body."""
        try:
            wire = self.tus.wire()
            wire.offer(patch_head(path, at, len(piece)) + piece[: self._random.randrange(len(piece) + 1)])
            self._random.choice((wire.reset, wire.close))()
        except OSError:
            self._pause()

    def _offset(self, path: str, least: int, most: int) -> int:
        answer = self._persist(lambda: self.tus.head(path))
        assert answer.status == 200, f"HEAD of an upload with {least} acknowledged bytes: {answer}"
        assert least <= answer.offset <= most, f"{path}: {answer.offset} is not from {least} to {most}"
        return answer.offset

    def _try(self, ask: Callable[[], Answer]) -> Answer | None:
        """One attempt; None when its answer was lost."""
        if self._over.is_set():
            raise Over
        try:
            return ask()
        except (OSError, EOFError):
            self.tus.close()
            self._pause()
            return None

    def _later(self, ask: Callable[[], Answer]) -> None:
        """One attempt, and a pause if it is to be made again."""
        answer = self._try(ask)
        if answer is not None and answer.status != 204:
            assert answer.status in self.later | {409}, answer
            self._pause()

    def _persist(self, ask: Callable[[], Answer], also: tuple[int, ...] = ()) -> Answer:
        """Ask until it is answered for good."""
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._try(ask)
            if answer is not None and (answer.status in also or answer.status not in self.later):
                return answer
            assert time.monotonic() < until, f"no answer for {PATIENCE} s; the last one: {answer}"
            self._pause()

    def _until(self, ask: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not ask():
            assert time.monotonic() < until, f"not so for {PATIENCE} s"
            self._pause()

    def _pause(self) -> None:
        if self._over.wait(self._random.uniform(0.05, 0.4)):
            raise Over


@contextmanager
def at_work(clients: Sequence[Client], over: threading.Event) -> Iterator[None]:
    """They work meanwhile; ``over`` ends them."""
    try:
        for each in clients:
            each.start()
        yield
    finally:
        over.set()
        for each in clients:
            each.join()

"""Clients of the draft: in one request, in a series, cut off, refused, and at uploads of both protocols.

Invariant, asserted at each answer, beside that of `clients`: an upload is complete only with all its bytes, and never
before a request that completes it was sent; whoever knows the URL of its upload gets no 5xx, but 507.
"""

from __future__ import annotations

import hashlib
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import ClassVar, Final

from tests.e2e.draft_client import DIALECTS, Draft, Fields, Reply, Way, path_of

from .clients import MIB, PATIENCE, Client, Over

VERSIONS: Final = tuple(DIALECTS)
WHOLE, CONTENT = "Repr-Digest", "Content-Digest"
BALANCER: Final = frozenset({502, 503})
"""A balancer's own statuses when it has lost the server."""


class DraftClient(Client):
    """Does what the others do, and speaks the draft at times, in all its versions. ``ways``: how it connects."""

    ways: ClassVar[tuple[Way, ...]] = ("http1", "http2")

    def kinds(self) -> list[tuple[Callable[[], None], int]]:
        return [
            *super().kinds(),
            (self.draft_whole, 12), (self.draft_cut, 6), (self.draft_series, 5), (self.draft_wrong, 3),
            (self.draft_ended, 3), (self.mixed, 6),
        ]  # fmt: skip

    # -- kinds

    def draft_whole(self) -> None:
        """All in one request; often with its digest."""
        draft, data = self._draft(), self._data(self._random.choice((8192, 8192, 6 * MIB)))
        fields = {name: digest(data) for name in (WHOLE, CONTENT) if self._random.random() < 0.3}
        self._draft_bring(draft, self._post(draft, data, fields=fields), data)

    def draft_cut(self) -> None:
        """The line breaks within the creation, once its upload was named, and again later."""
        draft, data = self._draft(), self._data(16 * MIB) + bytes(65_537)
        fields = {WHOLE: digest(data)} if self._random.random() < 0.3 else {}
        most = self._random.randrange(len(data))
        path = self._post(draft, data, most, fields)
        self._draft_bring(draft, path, data, most, cut=0.4)

    def draft_series(self) -> None:
        """Nobody knows its length before its end, which is at times a request of its own."""
        draft, data = self._draft(), self._data(3 * MIB)
        first = self._random.randrange(len(data)) if self._random.random() < 0.5 else 0
        path = self._post(draft, data[:first], complete=False)
        at, _ = self._look(draft, path, 0, first)
        while at < len(data):
            piece = data[at : at + self._random.randrange(1, MIB)]
            self._draft_append(draft, path, at, piece, complete=False)
            at, complete = self._look(draft, path, at, at + len(piece))
            assert not complete, "no request has completed it"
        self._draft_bring(draft, path, data)

    def draft_wrong(self) -> None:
        """A wrong Content-Digest leaves nothing; with a wrong Repr-Digest no upload is ever finished."""
        draft, data = self._draft(), self._data(2 * MIB)
        path = self._post(draft, b"", complete=False, fields={WHOLE: digest(data + b"?")})
        answer = self._draft_append(draft, path, 0, data, False, {CONTENT: digest(b"other" + data)})
        assert answer is None or answer.status in self.later | {400, 409}, answer
        assert self._look(draft, path, 0, 0) == (0, False)
        at = 0
        while at < len(data):
            self._draft_append(draft, path, at, data[at:], self._random.random() < 0.5)
            at, complete = self._look(draft, path, at, len(data))
            assert not complete, "its digest is another one"
        answer = self._persisted(lambda: self._resuming(draft.append(path, at, b"")))
        assert answer.status == 400, answer
        assert self._look(draft, path, at, at) == (at, False)
        self._cancel(draft, path)

    def draft_ended(self) -> None:
        """Terminated in the middle of a request."""
        draft, data = self._draft(), self._data(6 * MIB)
        path = self._post(draft, b"", complete=False, length=len(data))
        with suppress(OSError, EOFError), draft.begin("PATCH", path, draft.appending(0), len(data)) as transfer:
            transfer.send(data[: len(data) // 2])
            self._cancel(draft, path)
            transfer.send(data[len(data) // 2 :], end=True)
            answer = transfer.answer()
            assert answer.status >= 400, answer
        if not self._ledger.knows(path):
            self._cancel(draft, path)

    def mixed(self) -> None:
        """Begun by one protocol, and each part brought by any of both."""
        draft, data = self._draft(), self._data(2 * MIB)
        by_draft = self._random.random() < 0.5
        path = self._post(draft, b"", complete=False, length=len(data)) if by_draft else self._create(len(data))
        at = 0
        while True:
            at, complete = self._look(draft, path, at, len(data))
            if complete:
                break
            piece = data[at : at + self._random.choice((1, 100_000, MIB, len(data)))]
            if self._random.random() < 0.5:
                last = at + len(piece) == len(data)
                self._draft_append(draft, path, at, piece, last and self._random.random() < 0.7)
            else:
                # tus is told of the last byte only when the upload is complete
                here = self._offset(path, at - (at == len(data)), len(data))
                part = data[here : here + max(1, len(piece))]
                self._later(lambda here=here, part=part: self.tus.patch(path, here, part))
        self._ledger.finished(path, data)

    # -- what they are made of

    def _draft(self) -> Draft:
        return SoakDraft(self.tus.port, self._random.choice(VERSIONS), self._random.choice(self.ways), timeout=20)

    def _post(
        self,
        draft: Draft,
        data: bytes,
        most: int | None = None,
        fields: Fields | None = None,
        *,
        complete: bool = True,
        length: int | None = None,
    ) -> str:
        """A creation, again until its upload has a path, by its answer or by a 104, whatever becomes of it then.
        ``most``: so many bytes are sent, and then the line breaks."""
        while True:
            posting = Posting(draft, draft.creation(complete, length, fields), data, most)
            answer = self._asked(lambda posting=posting: posting.made(self._random))
            path = posting.path
            if answer is not None and answer.status < 300:
                assert answer.status == (200 if complete else 201), answer
                assert draft.dialect.complete(answer) is complete, answer
            if path is not None:
                if answer is None:
                    self._ledger.count("(draft: known by a 104 only)")
                return path
            if answer is None:
                self._ledger.lost_creation()
            else:
                assert answer.status in self.later, answer
            self._pause()

    def _draft_bring(self, draft: Draft, path: str, data: bytes, most: int | None = None, cut: float = 0.0) -> None:
        """Send what is missing until the upload is complete. ``most``: so much has been sent before."""
        at, sent = 0, len(data) if most is None else most
        while True:
            at, complete = self._look(draft, path, at, sent)
            if complete:
                assert at == len(data), f"{path}: complete with {at} bytes of {len(data)}"
                break
            piece = data[at : at + self._random.choice((64 << 10, MIB, 8 * MIB, len(data)))]
            last = at + len(piece) == len(data)
            if self._random.random() < cut:
                count = self._random.randrange(len(piece) + 1)
                with (
                    suppress(OSError, EOFError),
                    draft.begin("PATCH", path, draft.appending(at, last), len(piece)) as transfer,
                ):
                    transfer.send(piece[:count])
                    self._random.choice((transfer.drop, transfer.cut))()
                sent = max(sent, at + count)
                continue
            sent = max(sent, at + len(piece))
            self._draft_append(draft, path, at, piece, last)
        self._ledger.finished(path, data)

    def _draft_append(
        self, draft: Draft, path: str, at: int, piece: bytes, complete: bool, fields: Fields | None = None
    ) -> Reply | None:
        """One attempt, and a pause if it has failed; its answer."""
        chunked = self._random.random() < 0.3
        answer = self._asked(lambda: self._resuming(draft.append(path, at, piece, complete, fields, chunked=chunked)))
        if answer is not None and answer.status < 300:
            assert answer.offset == at + len(piece) and (answer.status == 200 or not complete), answer
        elif answer is not None:
            assert answer.status in (*self.later, 400, 409), answer
        if answer is None or answer.status >= 400:
            self._pause()
        return answer

    def _look(self, draft: Draft, path: str, least: int, most: int) -> tuple[int, bool]:
        """The offset, and whether the upload is complete."""
        answer = self._persisted(lambda: self._resuming(draft.head(path)))
        assert answer.status == 204, f"HEAD of an upload with {least} acknowledged bytes: {answer}"
        assert least <= answer.offset <= most, f"{path}: {answer.offset} is not from {least} to {most}"
        return answer.offset, draft.dialect.complete(answer) is True

    def _cancel(self, draft: Draft, path: str) -> None:
        answer = self._persisted(lambda: draft.cancel(path))
        assert answer.status in (204, 404, 410), answer
        self._ledger.ended(path)

    def _persisted(self, ask: Callable[[], Reply]) -> Reply:
        """Ask until it is answered for good."""
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._asked(ask)
            if answer is not None and answer.status not in self.later:
                return answer
            assert time.monotonic() < until, f"no answer for {PATIENCE} s; the last one: {answer}"
            self._pause()

    def _asked(self, ask: Callable[[], Reply | None]) -> Reply | None:
        """One attempt; None when its answer was lost, if not the server has ended it without one."""
        if self._over.is_set():
            raise Over
        try:
            answer = ask()
        except (OSError, EOFError):
            self._ledger.count("(draft: no answer)")
            self._pause()
            return None
        return answer

    @staticmethod
    def _resuming(answer: Reply) -> Reply:
        """An answer to one who knows the URL of the upload."""
        assert answer.status < 500 or answer.status == 507, f"a client that can resume was answered {answer}"
        return answer


class SoakDraft(Draft):
    """An answer of a balancer that has lost the server is none: EOFError."""

    def check(self, reply: Reply) -> Reply:
        if reply.status in BALANCER and reply.get("content-type") == "text/plain":
            raise EOFError("the balancer has lost its backend")
        return super().check(reply)


class Posting:
    """One creation. ``path``: of its upload, once that is known; ``most`` as in `DraftClient._post`."""

    def __init__(self, draft: Draft, fields: Fields, data: bytes, most: int | None) -> None:
        self.path: str | None = None
        self._draft, self._fields, self._data, self._most = draft, fields, data, most

    def made(self, random: Random) -> Reply | None:
        """The answer; None: it was not waited for. Raises OSError, EOFError: it never came."""
        length = None if random.random() < 0.3 else len(self._data)
        with self._draft.begin("POST", None, self._fields, length) as transfer:
            try:
                if self._most is not None and transfer.when_named() is not None:
                    transfer.send(self._data[: self._most])
                    random.choice((transfer.drop, transfer.cut))()
                    return None
                transfer.send(self._data, end=True)
                answer = self._draft.check(transfer.answer())
            finally:
                self.path = transfer.named
        self.path = path_of(answer) if "location" in answer else self.path
        return answer


def digest(data: bytes) -> str:
    """A value of the fields of RFC 9530."""
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"

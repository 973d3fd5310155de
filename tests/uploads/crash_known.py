"""What the clients of a `CrashModel` know: of one upload, and of one body that they send.

Invariant: what is known here comes from answers and from what was sent, never from the server's own record.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from unittest import mock

from attrs import define, field

from resumable.protocol.digests import RequestDigests
from tests.uploads.digested import content, text
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import sha1

#: Of tus a checksum, of the draft a Content-Digest, which knows only the first three.
Check = Literal["none", "good", "bad", "trailer", "bad trailer", "no trailer", "late trailer", "bad late trailer"]
#: A digest of the whole upload: of what it has at the end of this body or at its length, or of something else.
Announced = Literal["none", "right", "wrong"]
#: How a machine stops: the process is killed, or the power fails (with the seed of what survives).
Crash = Literal["kill"] | int

CHUNKED_ONLY = ("trailer", "bad trailer", "no trailer", "late trailer", "bad late trailer")


@contextmanager
def small_sizes() -> Iterator[None]:
    """Long appends begin at 512 bytes, parts are of 2 KiB, queues of 2 KiB."""
    with (
        mock.patch("resumable.uploads.append.SMALL", 512),
        mock.patch("resumable.uploads.append.PART", 2048),
        mock.patch("resumable.uploads.appends.WORTHWHILE", 256),
        mock.patch("resumable.spool.sink.HIGH", 2048),
        mock.patch("resumable.spool.sink.LOW", 1024),
        mock.patch("resumable.spool.sink.TURN", 1024),
    ):
        yield


@define(eq=False)
class Known:
    """One upload, as its clients know it. ``acked``: the offset they were told; ``reach``: the highest that may be.

    ``told`` of its id; ``gone``: ``no``, ``maybe`` (asked for, or by itself), ``yes`` (answered). ``dropped``: its data
    may have been given up. ``draft``: made by the draft; then ``completed`` says that a request that completes it came
    to its end, or that tus brought its last byte. ``announced``: the digest that it certainly has to have.
    """

    id: str
    source: bytes
    length: int | None
    brought: set[int] = field(factory=set)
    partial: bool = False
    parts: tuple[Known, ...] = ()
    told: bool = False
    acked: int = 0
    reach: int = 0
    finished: bool = False
    dropped: bool = False
    gone: Literal["no", "maybe", "yes"] = "no"
    draft: bool = False
    completed: bool = False
    announced: str | None = None

    @property
    def bytes(self) -> bytes:
        """The bytes that were meant."""
        return b"".join(part.source[: part.acked] for part in self.parts) if self.parts else self.source

    def offset(self, draft: bool) -> int:
        """Where a client of this protocol believes to be: tus is told of the last byte when the upload is finished."""
        waits = not self.finished and self.acked == self.length and not self.parts
        return max(0, self.acked - 1) if waits and not draft else self.acked

    def least(self, draft: bool) -> int:
        """The least offset that this protocol may be told; as `offset`, but a length may be recorded that nobody was
        told of."""
        return self.acked - 1 if self.acked in self.brought and not draft and not self.finished else self.offset(draft)

    def may_be_gone(self) -> bool:
        return self.gone != "no" or any(part.gone != "no" or not part.told for part in self.parts)

    def will_be_whole(self) -> bool:
        return bool(self.parts) and not self.may_be_gone() and all(part.finished for part in self.parts)

    def digest(self, announced: Announced, end: int) -> str | None:
        """What a request announces that says that the upload ends there, if its length isn't known."""
        if announced == "none":
            return None
        return text(self.source[: end if self.length is None else self.length] if announced == "right" else b"other")


@define(eq=False)
class Sending:
    """A body whose end has not been sent. ``completes``: the draft's, its end is the upload's; ``announced``: what it
    says of the whole upload."""

    upload: Known
    body: FakeBody
    start: int
    data: bytes
    check: Check
    draft: bool
    completes: bool
    announced: str | None
    sent: int = 0

    @classmethod
    def of(
        cls,
        upload: Known,
        start: int,
        size: int,
        chunked: bool,
        check: Check,
        announced: Announced = "none",
        draft: bool = False,
        completes: bool = False,
    ) -> Sending:
        """Of ``size`` bytes of the upload, but none of these where the check is to fail: they may never be seen."""
        data = upload.source[start : start + size]
        if check in ("bad", "bad trailer", "no trailer"):
            data = bytes(each ^ 0xFF for each in data)
        body = FakeBody(None if chunked or check in CHUNKED_ONLY else len(data))
        return cls(upload, body, start, data, check, draft, completes, upload.digest(announced, start + len(data)))

    @property
    def options(self) -> dict[str, Any]:
        """What the request says of its content, for the methods of `Server`."""
        said = RequestDigests(whole=self.announced)
        wrong = self.check == "bad"
        if self.draft:
            if self.check in ("good", "bad"):
                said = RequestDigests(content(self.data + b"?" * wrong).content, self.announced)
            return {"digests": said}
        options: dict[str, Any] = {"digests": said}
        if self.check in ("good", "bad"):
            options["checksum"] = sha1(self.data + b"?" * wrong)
        if self.check in ("trailer", "bad trailer", "no trailer"):
            options["trailer"] = True
        return options

    @property
    def trailers(self) -> dict[str, str]:
        if self.check in ("trailer", "late trailer"):
            return {"upload-checksum": f"sha1 {b64encode(sha1(self.data).digest).decode()}"}
        if self.check in ("bad trailer", "bad late trailer"):
            return {"upload-checksum": f"sha1 {b64encode(sha1(b'other').digest).decode()}"}
        return {}

    def advance(self, size: int, ended: bool) -> None:
        """So much more goes out; ``ended``: all of it has. The upload may have what it brings from now on."""
        self.sent += size
        upload, at = self.upload, self.start + self.sent
        if self.check in ("none", "late trailer", "bad late trailer") or (ended and self.check in ("good", "trailer")):
            upload.reach = max(upload.reach, at)
        if (
            self.draft
            and self.body.length is None
            and any(at > each for each in {upload.length, *upload.brought} - {None})
        ):
            upload.gone = "maybe" if upload.gone == "no" else upload.gone  # content past the length makes it invalid
        if ended and self.check in ("none", "good", "trailer", "late trailer"):
            lengths = {upload.length, *upload.brought}
            upload.completed |= self.completes if self.draft else at in lengths


__all__ = ["CHUNKED_ONLY", "Announced", "Check", "Crash", "Known", "Sending", "small_sizes"]

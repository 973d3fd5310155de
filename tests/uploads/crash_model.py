"""What clients may believe, held against the real engine on a machine that fails and crashes.

A `CrashModel` plays all clients. Of each upload it knows the bytes that were meant, the offset that was acknowledged,
and how far bytes were sent that may be kept; whatever the engine answers, and whatever is found after a crash, is
compared with that:

- every acknowledged byte is there and right, and an offset never decreases;
- no offset is past what was sent, no byte of an append with a wrong checksum is ever visible;
- a finished upload has exactly its bytes, and stays finished;
- what was terminated stays gone;
- the same request for a final has made one final, also if it was cut off;
- data is given up only where that was asked for, and counts for nothing less then;
- nothing is lost, nothing leaks: orphans are bounded by the creations that a crash cut off.

The engine's sizes are made small (`small_sizes`), so that every path is taken with a few kilobytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Literal
from unittest import mock

from attrs import define, field

from resumable.model.errors import BodyLost, CatalogUnavailable
from resumable.model.upload import GoneReason, Upload
from resumable.protocol import errors
from resumable.uploads.assembly import RETRY
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import ORPHANS, UPLOADS, Answer, Server, pattern, sha1
from tests.uploads.machine import Machine, Moment

#: The longest body or upload of a model.
LARGEST = 6000
EXPIRE_AFTER = 3600.0

Check = Literal["none", "good", "bad", "trailer", "bad trailer", "no trailer", "late trailer", "bad late trailer"]
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
    may have been given up.
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

    @property
    def bytes(self) -> bytes:
        """The bytes that were meant."""
        return b"".join(part.source[: part.acked] for part in self.parts) if self.parts else self.source

    def may_be_gone(self) -> bool:
        return self.gone != "no" or any(part.gone != "no" or not part.told for part in self.parts)

    def will_be_whole(self) -> bool:
        return bool(self.parts) and not self.may_be_gone() and all(part.finished for part in self.parts)


@define(eq=False)
class Sending:
    """A body whose end has not been sent."""

    upload: Known
    body: FakeBody
    start: int
    data: bytes
    check: Check
    sent: int = 0


@define(eq=False)
class CrashModel:
    """``rng`` chooses the order of the pool's threads. The catalog is in the machine's directory."""

    machine: Machine
    rng: Random
    server: Server = field(init=False)
    uploads: list[Known] = field(factory=list)
    sending: list[Sending] = field(factory=list)
    crashes: int = 0
    _wall: float = 1_700_000_000.0
    _waiting: list[tuple[Answer[Any], Callable[[Answer[Any]], None]]] = field(factory=list)
    _faulty: bool = False
    _cut: int = 0
    _ids: int = 0
    _next: Known | None = None

    def __attrs_post_init__(self) -> None:
        self._boot()

    # -- what clients do

    def create(self, length: int | None, partial: bool = False) -> None:
        self._create(length, None, partial, {})

    def create_with(
        self, size: int, length: int | None, chunked: bool, check: Check, partial: bool, sent: int | None = None
    ) -> None:
        """A creation with a body of ``size`` bytes, of which ``sent`` are sent now (None: all, and its end)."""
        self._create(length, (size, chunked, check, sent), partial, {})

    def _create(
        self, length: int | None, body: tuple[int, bool, Check, int | None] | None, partial: bool, _: object
    ) -> None:
        upload = Known("", pattern(LARGEST * 2, len(self.uploads)), length, partial=partial)
        self._next = upload
        self.uploads.append(upload)
        if body is None:
            answer = self.server.create(length, partial=partial)
            self._expect(answer, lambda answer: self._created(upload, None, answer))
            self.settle()
            return
        size, chunked, check, sent = body
        sending, options = self._body(upload, 0, size, chunked, check)
        answer = self.server.create(length, sending.body, partial=partial, **options)
        self._expect(answer, lambda answer: self._created(upload, sending, answer))
        self.feed(sending, sent)

    def append(
        self,
        upload: Known,
        size: int,
        *,
        chunked: bool = False,
        check: Check = "none",
        ahead: int = 0,
        length: int | None = None,
        sent: int | None = None,
    ) -> None:
        """A PATCH of ``size`` bytes where the client believes to be (``ahead`` of it: a wrong offset)."""
        start = max(0, upload.acked + ahead)
        sending, options = self._body(upload, start, min(size, len(upload.source) - start), chunked, check)
        answer = self.server.patch(upload.id, start, sending.body, length=length, **options)
        if length is not None:
            upload.brought.add(length)  # it may have been recorded, whatever is answered
        self._expect(answer, lambda answer: self._appended(upload, sending, answer))
        self.feed(sending, sent)

    def feed(self, sending: Sending, sent: int | None) -> None:
        """Send so many bytes more; None: all that is left, and the end."""
        left = sending.data[sending.sent :]
        piece = left if sent is None else left[:sent]
        sending.sent += len(piece)
        if sending.check in ("none", "late trailer", "bad late trailer"):
            sending.upload.reach = max(sending.upload.reach, sending.start + sending.sent)
        ended = sent is None or sending.sent == len(sending.data)
        if ended and sending.check in ("good", "trailer"):
            sending.upload.reach = max(sending.upload.reach, sending.start + sending.sent)
        if ended and sending in self.sending:
            self.sending.remove(sending)
        for start in range(0, len(piece), 700):
            sending.body.arrive(piece[start : start + 700])
        if ended and sending.body.length is None:
            sending.body.end(self._trailers(sending))
        self.settle()

    def lose(self, sending: Sending) -> None:
        self.sending.remove(sending)
        sending.body.lose()
        self.settle()

    def head(self, upload: Known) -> None:
        self._expect(self.server.head(upload.id), lambda answer: self._seen(upload, answer))
        self.settle()

    def delete(self, upload: Known) -> None:
        if upload.gone == "no":
            upload.gone = "maybe"
        self._expect(self.server.delete(upload.id), lambda answer: self._deleted(upload, answer))
        self.settle()

    def concatenate(self, parts: list[Known]) -> None:
        final = Known("", b"", None, parts=tuple(parts))
        self._next = final
        self.uploads.append(final)
        self._expect(
            self.server.concat(*(part.id for part in parts)), lambda answer: self._created(final, None, answer)
        )
        self.settle()

    # -- what happens to the server

    def drop(self, upload: Known) -> None:
        """The remotes have it, and its data here is given up; the file goes with the janitor's next round."""
        if upload.partial or not upload.finished or upload.gone != "no":
            return
        upload.dropped = True
        replicas, now = self.server.catalog.replicas, self.server.context.wall()
        found = self.server.ask(replicas.of(upload.id))
        if found.done and found.error is None:
            for each in found.value:
                self.server.ask(replicas.store(each, {}, now))
            self.server.ask(replicas.drop([upload.id], now))
        self.settle()

    def advance(self, seconds: float) -> None:
        self.server.advance(seconds)
        self.settle()

    def tick(self) -> None:
        self.server.tick()
        self.settle()

    def sweep(self) -> None:
        """A round of the janitor; what is idle may expire by it."""
        now = self.server.context.wall()
        if now - self._wall >= EXPIRE_AFTER:
            for upload in self.uploads:
                if upload.gone == "no" and (not upload.finished or upload.partial):
                    upload.gone = "maybe"
        self.server.ask(self.server.janitor.sweep())
        self.settle()

    def fail(self, operation: str, number: int, after: int) -> None:
        self._faulty = True
        self.machine.disk.fail_next(operation, number, after)

    def fail_commit(self, landed: bool, times: int, after: int, full: bool) -> None:
        self._faulty = True
        self.machine.fail_commit(landed=landed, times=times, after=after, full=full)

    def fail_at(self, step: int, number: int, landed: bool) -> None:
        self._faulty = True
        self.machine.fail_at(step, number, landed)

    def crash_at(self, step: int, moment: Moment, seed: int) -> None:
        """Let the machine stop so many steps from now; `recover` then."""
        self.machine.crash_at(step, moment, Random(seed))

    def restart(self) -> None:
        """A graceful stop and a start: everything received is committed."""
        self._forget_faults()
        if not self.machine.down:
            self.server.stop()
            self.settle()
        self.recover("kill")

    def recover(self, crash: Crash, at: tuple[int, Moment] | None = None) -> None:
        """Start again after a crash; ``at``: with another one during the start."""
        self.server.bury()
        self._cut += sum(not each.told for each in self.uploads)
        self.crashes += 1
        self._waiting.clear()
        self.sending.clear()
        while True:
            self.machine = (
                self.machine.after_kill() if crash == "kill" else self.machine.after_power_loss(Random(crash))
            )
            if at is not None:
                self.machine.crash_at(*at)
                at = None
            try:
                self._boot()
            except (OSError, CatalogUnavailable):
                assert self.machine.down, "a start that fails on a sound machine"
                self.server.bury()
            else:
                break
        self.check()

    # -- what must hold

    def check(self) -> None:
        """Look at everything, and let everything come to rest. Only when no body is under way."""
        assert not self.sending
        self._forget_faults()
        self.settle()
        for upload in self.uploads:
            self.head(upload)
        # assemblies that failed are tried again
        self.server.advance(RETRY + 1)
        self.server.ask(self.server.reclaimer.reclaim())
        for upload in self.uploads:
            self.head(upload)
            if upload.told and upload.will_be_whole() and not self.machine.down:
                assert upload.finished, "a final all of whose partials are finished is made"
        if not self.machine.down:
            self._check_leaks()

    def finish_all(self) -> None:
        """Every client comes back and sends what is missing; then everything is whole."""
        assert not self.sending
        self._forget_faults()
        for upload in self.uploads:
            if upload.told and upload.gone == "no" and not upload.parts and not upload.finished:
                end = upload.acked + 100 if upload.length is None else upload.length
                self.append(upload, end - upload.acked, length=end)
                assert upload.finished or self.machine.down
        if not self.machine.down:
            self.check()

    def _check_leaks(self) -> None:
        server = self.server
        pinned = {part.id for each in self.uploads if each.parts and not each.finished for part in each.parts}
        gone = {each.id for each in self.uploads if each.gone == "yes"} - pinned
        assert not gone & server.names(), "the data of what is gone is gone"
        dropped = {each.id for each in self.uploads if each.dropped and server.row(each.id).dropped_at is not None}
        assert not dropped & server.names(), "and so is what was given up"
        known = {each.id for each in self.uploads}
        assert server.names() <= known
        assert len(server.names(ORPHANS)) <= self._cut, "orphans come from creations that were cut off"
        assert self.machine.disk.open_files == 0
        assert server.spool._budget.used == 0
        assert len(server.uploads.appends) == 0
        assert not any(server.context.holds.held(each.id) for each in self.uploads)

    def settle(self) -> None:
        """Take what was answered."""
        self.server.pump()
        waiting, self._waiting = self._waiting, []
        for answer, handler in waiting:
            if answer.done:
                handler(answer)
            elif not self.machine.down:
                self._waiting.append((answer, handler))
        self.sending = [each for each in self.sending if not each.body.discarded]

    # -- answers

    def _created(self, upload: Known, sending: Sending | None, answer: Answer[Upload]) -> None:
        made = answer.cut if answer.error is not None else answer.value
        if made is not None and made.id != upload.id:
            upload = self._same_request(upload, made.id)
        if made is not None:
            assert made.id == upload.id
            upload.told = True
            self._believe(upload, made)
        if answer.error is not None:
            if sending is None:
                self._allow(answer, 400 if upload.parts else 0)
            else:
                self._check_refusal(upload, sending, answer)
        elif sending is not None:
            assert answer.value.offset == len(sending.data), "all of it was taken"

    def _same_request(self, again: Known, made: str) -> Known:
        """The final that was made by the same request before; nothing was made by this one."""
        assert again.parts and not again.id, "only a final is answered with another"
        self.uploads.remove(again)
        (first,) = (each for each in self.uploads if each.id == made)
        assert first.parts == again.parts and first.gone == "no"
        return first

    def _appended(self, upload: Known, sending: Sending, answer: Answer[Upload]) -> None:
        if answer.error is None:
            assert sending.check in ("none", "good", "trailer", "late trailer")
            assert answer.value.offset == sending.start + len(sending.data)
            self._believe(upload, answer.value)
        else:
            self._check_refusal(upload, sending, answer)

    def _check_refusal(self, upload: Known, sending: Sending, answer: Answer[Upload]) -> None:
        error = answer.error
        if isinstance(error, errors.Gone):
            assert upload.may_be_gone()
            return
        if isinstance(error, BodyLost):
            return
        if isinstance(error, errors.ChecksumMismatch):
            assert sending.check in ("bad", "bad trailer", "bad late trailer")
        offset = getattr(error, "offset", None)
        if offset is not None and upload.told:
            assert offset >= upload.acked, "an offset never decreases"
            assert offset <= upload.reach
            if isinstance(error, errors.TooLarge) and upload.length is not None and not upload.finished:
                assert offset < upload.length, "a body that runs past the length does not finish the upload"
            upload.acked = offset
        if upload.parts:
            self._allow(answer, 403, 0 if upload.told else 404)
            return
        self._allow(answer, 400, 404 if not upload.told else 0, 409, 413, 423, 460)

    def _seen(self, upload: Known, answer: Answer[Upload]) -> None:
        error = answer.error
        if error is None:
            assert upload.gone != "yes", "what was terminated stays gone"
            upload.gone = "no"
            self._believe(upload, answer.value)
        elif isinstance(error, errors.Gone):
            assert upload.may_be_gone(), f"{upload.id} is gone: {error.detail}"
            assert self.server.row(upload.id).gone is not GoneReason.LOST
            upload.gone = "yes"
        elif isinstance(error, errors.NotFound):
            assert not upload.told, "what a client was told of is there"
        else:
            self._allow(answer)

    def _deleted(self, upload: Known, answer: Answer[None]) -> None:
        if answer.error is None or isinstance(answer.error, errors.Gone):
            upload.gone = "yes"
        elif isinstance(answer.error, errors.NotFound):
            assert not upload.told
        else:
            self._allow(answer)

    def _allow(self, answer: Answer[Any], *statuses: int) -> None:
        """503 and 507 are for failures that were asked for, 503 also for a stop."""
        if answer.status in statuses:
            return
        stopping = isinstance(answer.error, errors.Stopping)
        assert stopping or (self._faulty and answer.status in (503, 507)), repr(answer.error)

    def _believe(self, upload: Known, row: Upload) -> None:
        """Hold what the server says against what is known; from now on it is acknowledged."""
        if upload.parts and not row.finished:
            assert not upload.finished
            return
        if upload.parts:
            for part in upload.parts:
                # its last append may have been acknowledged to nobody
                part.acked = max(part.acked, self.server.row(part.id).offset)
            assert row.offset == len(upload.bytes)
        else:
            assert row.offset >= upload.acked, "an offset never decreases"
            assert row.offset <= upload.reach, "no byte is there that was not sent, or was not verified"
        assert row.finished or not upload.finished, "what is finished stays finished"
        upload.acked = row.offset
        if row.finished:
            assert row.length == row.offset
            upload.finished = True
        if row.length != upload.length:
            assert upload.length is None, "once set the length does not change"
            assert row.length in upload.brought or upload.parts
            upload.length = row.length
        assert upload.dropped or row.dropped_at is None
        content = self.server.content(upload.id)
        if content is None and upload.dropped:
            return
        if upload.gone == "no":  # or its file may have been removed since this was answered
            content = content or b""
            assert content[: row.offset] == upload.bytes[: row.offset], "every acknowledged byte is there and right"
            assert not row.finished or len(content) == row.offset, "exactly its bytes"

    # -- inside

    def _boot(self) -> None:
        self._forget_faults()
        wall = self.server.context.wall() if self.crashes else self._wall
        self.server = Server(
            self.machine,
            rng=self.rng,
            wall=wall,
            limits=UploadLimits(max_size=1 << 20, expire_after=EXPIRE_AFTER),
            assembly_step=1024,
            budget=6000,
            new_id=self._new_id,
            replication=FakeReplication(),
        )
        self.server.start()

    def _new_id(self) -> str:
        assert self._next is not None
        self._ids += 1
        self._next.id = f"{self._ids:032x}"
        return self._next.id

    def _forget_faults(self) -> None:
        self._faulty = False
        self.machine.commit_faults.clear()
        self.machine.disk._faults.clear()

    def _expect(self, answer: Answer[Any], handler: Callable[[Answer[Any]], None]) -> None:
        self._waiting.append((answer, handler))

    def _body(
        self, upload: Known, start: int, size: int, chunked: bool, check: Check
    ) -> tuple[Sending, dict[str, Any]]:
        data = upload.source[start : start + size]
        options: dict[str, Any] = {}
        if check in ("good", "bad"):
            options["checksum"] = sha1(data if check == "good" else data + b"?")
        if check in ("trailer", "bad trailer", "no trailer"):
            options["trailer"] = True
        if check in ("bad", "bad trailer", "no trailer"):
            data = bytes(each ^ 0xFF for each in data)  # none of these may ever be seen
        body = FakeBody(None if chunked or check in CHUNKED_ONLY else len(data))
        sending = Sending(upload, body, start, data, check)
        self.sending.append(sending)
        return sending, options

    def _trailers(self, sending: Sending) -> dict[str, str]:
        if sending.check in ("trailer", "late trailer"):
            return {"upload-checksum": f"sha1 {b64encode(sha1(sending.data).digest).decode()}"}
        if sending.check in ("bad trailer", "bad late trailer"):
            return {"upload-checksum": f"sha1 {b64encode(sha1(b'other').digest).decode()}"}
        return {}


__all__ = ["LARGEST", "UPLOADS", "Check", "Crash", "CrashModel", "Known", "Sending", "small_sizes"]

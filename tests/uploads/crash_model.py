"""What clients may believe, held against the real engine on a machine that fails and crashes.

A `CrashModel` plays all clients. Of each upload it knows the bytes that were meant, the offset that was acknowledged,
and how far bytes were sent that may be kept; whatever the engine answers, and whatever is found after a crash, is
compared with that:

- every acknowledged byte is there and right, and an offset never decreases;
- no offset is past what was sent, no byte of an append with a wrong checksum is ever visible;
- a finished upload has exactly its bytes, and stays finished;
- an upload of the draft is finished only after a request that completes it came to its end, or tus brought its last
  byte; none is finished that has another digest than was announced, and what was announced is not forgotten;
- with `--digest` every finished upload has its digest in the end;
- what was terminated stays gone;
- the same request for a final has made one final, also if it was cut off;
- data is given up only where that was asked for, and counts for nothing less then;
- nothing is lost, nothing leaks: orphans are bounded by the creations that a crash cut off.

The engine's sizes are made small (`crash_known.small_sizes`), so that every path is taken with a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field

from resumable.model.errors import BodyLost, CatalogUnavailable
from resumable.model.upload import GoneReason, Upload
from resumable.protocol import errors
from resumable.protocol.digests import RequestDigests
from resumable.uploads.assembly import RETRY
from resumable.uploads.digest_rules import DigestRules
from resumable.uploads.limits import UploadLimits
from tests.uploads.crash_known import Announced, Check, Crash, Known, Sending
from tests.uploads.digested import text
from tests.uploads.fakes import FakeReplication
from tests.uploads.harness import ORPHANS, Answer, Server, pattern
from tests.uploads.machine import Machine, Moment

#: The longest body or upload of a model.
LARGEST = 6000
EXPIRE_AFTER = 3600.0


@define(eq=False)
class CrashModel:
    """``rng`` chooses the order of the pool's threads. The catalog is in the machine's directory. ``digests``: see
    `DigestRules`, at every start."""

    machine: Machine
    rng: Random
    digests: DigestRules = field(factory=DigestRules)
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

    def create(self, length: int | None, partial: bool = False, announced: Announced = "none") -> None:
        """By tus, without a body."""
        upload = self._made(length, partial=partial)
        said = upload.digest(announced, 0)
        answer = self.server.create(length, partial=partial, digests=RequestDigests(whole=said))
        self._expect(answer, lambda answer: self._created(upload, None, answer, said))
        self.settle()

    def create_with(
        self,
        size: int,
        length: int | None,
        chunked: bool,
        check: Check,
        partial: bool,
        sent: int | None = None,
        announced: Announced = "none",
    ) -> None:
        """By tus, with a body of ``size`` bytes, of which ``sent`` are sent now (None: all, and its end)."""
        upload = self._made(length, partial=partial)
        sending = self._sending(Sending.of(upload, 0, size, chunked, check, announced))
        answer = self.server.create(length, sending.body, partial=partial, **sending.options)
        self._expect(answer, lambda answer: self._created(upload, sending, answer, sending.announced))
        self.feed(sending, sent)

    def draft_create(
        self,
        size: int,
        completes: bool,
        *,
        length: int | None = None,
        chunked: bool = False,
        check: Check = "none",
        announced: Announced = "none",
        sent: int | None = None,
    ) -> None:
        """By the draft. ``length``: as Upload-Length says."""
        upload = self._made(length, draft=True)
        sending = self._sending(Sending.of(upload, 0, size, chunked, check, announced, True, completes))
        self._completes(sending)
        answer = self.server.draft_create(completes, sending.body, length=length, **sending.options)
        self._expect(answer, lambda answer: self._created(upload, sending, answer, sending.announced))
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
        announced: Announced = "none",
    ) -> None:
        """A PATCH of ``size`` bytes where a client of tus believes to be (``ahead`` of it: a wrong offset)."""
        start = max(0, upload.offset(draft=False) + ahead)
        size = min(size, len(upload.source) - start)
        sending = self._sending(Sending.of(upload, start, size, chunked, check, announced))
        if length is not None:
            upload.brought.add(length)  # it may have been recorded, whatever is answered
        answer = self.server.patch(upload.id, start, sending.body, length=length, **sending.options)
        self._expect(answer, lambda answer: self._appended(upload, sending, answer))
        self.feed(sending, sent)

    def draft_append(
        self,
        upload: Known,
        size: int,
        completes: bool,
        *,
        chunked: bool = False,
        check: Check = "none",
        ahead: int = 0,
        length: int | None = None,
        sent: int | None = None,
        announced: Announced = "none",
    ) -> None:
        """The same by the draft."""
        start = max(0, upload.offset(draft=True) + ahead)
        size = min(size, len(upload.source) - start)
        sending = self._sending(Sending.of(upload, start, size, chunked, check, announced, True, completes))
        if length is not None:
            upload.brought.add(length)
        self._completes(sending)
        answer = self.server.draft_append(upload.id, start, completes, sending.body, length=length, **sending.options)
        self._expect(answer, lambda answer: self._appended(upload, sending, answer))
        self.feed(sending, sent)

    def feed(self, sending: Sending, sent: int | None) -> None:
        """Send so many bytes more; None: all that is left, and the end."""
        left = sending.data[sending.sent :]
        piece = left if sent is None else left[:sent]
        ended = sent is None or len(piece) == len(left)
        sending.advance(len(piece), ended)
        if ended and sending in self.sending:
            self.sending.remove(sending)
        for start in range(0, len(piece), 700):
            sending.body.arrive(piece[start : start + 700])
        if ended and sending.body.length is None:
            sending.body.end(sending.trailers)
        self.settle()

    def lose(self, sending: Sending) -> None:
        self.sending.remove(sending)
        sending.body.lose()
        self.settle()

    def head(self, upload: Known) -> None:
        self._expect(self.server.head(upload.id), lambda answer: self._seen(upload, answer))
        self.settle()

    def look(self, upload: Known) -> None:
        """The draft's HEAD."""
        self._expect(self.server.look(upload.id), lambda answer: self._seen(upload, answer, draft=True))
        self.settle()

    def delete(self, upload: Known) -> None:
        if upload.gone == "no":
            upload.gone = "maybe"
        self._expect(self.server.delete(upload.id), lambda answer: self._deleted(upload, answer))
        self.settle()

    def concatenate(self, parts: list[Known]) -> None:
        final = self._next = Known("", b"", None, parts=tuple(parts))
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
        # assemblies and digests that failed are tried again
        self.server.advance(RETRY + 1)
        self.server.ask(self.server.reclaimer.reclaim())
        for upload in self.uploads:
            self.server.uploads.digester.wake(upload.id)
            self.look(upload)
            self.head(upload)
            self._check_digest(upload)
            if upload.told and upload.will_be_whole() and not self.machine.down:
                assert upload.finished, "a final all of whose partials are finished is made"
        if not self.machine.down:
            self._check_leaks()

    def finish_all(self) -> None:
        """Every client comes back and sends what is missing, by either protocol; then everything is whole, but what has
        another digest than was announced."""
        assert not self.sending
        self._forget_faults()
        for number, upload in enumerate(self.uploads):
            if upload.told and upload.gone == "no" and not upload.parts and not upload.finished:
                end = upload.acked + 100 if upload.length is None else upload.length
                announced = self.server.row(upload.id).announced
                if number % 2:
                    self.draft_append(upload, end - upload.acked, True)
                else:
                    self.append(upload, end - upload.offset(draft=False), length=end)
                fits = announced in (None, text(upload.source[:end]))
                assert upload.finished == fits or self.machine.down
        if not self.machine.down:
            self.check()

    def _check_digest(self, upload: Known) -> None:
        """With `--digest` what is finished has one by now."""
        if not upload.finished or upload.partial or upload.dropped or upload.gone != "no" or self.machine.down:
            return
        row = self.server.row(upload.id)
        if self.digests.algorithm is not None or row.announced is not None:
            assert row.digest == text(upload.bytes[: row.offset]), "its digest is made in the end"

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

    def _created(
        self, upload: Known, sending: Sending | None, answer: Answer[Upload], announced: str | None = None
    ) -> None:
        made = answer.cut if answer.error is not None else answer.value
        if made is not None and made.id != upload.id:
            upload = self._same_request(upload, made.id)
        if made is not None:
            assert made.id == upload.id
            upload.told = True
            upload.announced = announced
            self._believe(upload, made)
        if answer.error is not None:
            if sending is None:
                empty = upload.length == 0 and announced not in (None, text(b""))
                self._allow(answer, 400 if upload.parts else 460 * empty)
            else:
                self._check_refusal(upload, sending, answer)
        elif sending is not None:
            taken = len(sending.data)
            late = self._faulty and not upload.finished and taken == upload.length  # its digest couldn't be looked at
            assert answer.value.offset == taken - (late and not sending.draft), "all of it was taken"

    def _same_request(self, again: Known, made: str) -> Known:
        """The final that was made by the same request before; nothing was made by this one."""
        assert again.parts and not again.id, "only a final is answered with another"
        self.uploads.remove(again)
        (first,) = (each for each in self.uploads if each.id == made)
        assert first.parts == again.parts and first.gone != "yes"
        first.gone = "no"
        return first

    def _appended(self, upload: Known, sending: Sending, answer: Answer[Upload]) -> None:
        if answer.error is None:
            assert sending.check in ("none", "good", "trailer", "late trailer")
            assert answer.value.offset == sending.start + len(sending.data)
            if sending.announced is not None and not upload.finished:
                upload.announced = sending.announced
            self._believe(upload, answer.value, sending.draft)
            assert upload.finished or not sending.completes
        else:
            self._check_refusal(upload, sending, answer)

    def _check_refusal(self, upload: Known, sending: Sending, answer: Answer[Upload]) -> None:
        error = answer.error
        if isinstance(error, errors.Gone):
            assert upload.may_be_gone()
            return
        if isinstance(error, BodyLost):
            return
        if isinstance(error, errors.PastLength):
            assert upload.gone != "no" or not upload.told, "only what went past the length makes it invalid"
        if isinstance(error, (errors.ChecksumMismatch, errors.DigestMismatch)):
            checked = sending.check in ("bad", "bad trailer", "bad late trailer")
            assert checked or self._differs(upload, sending), "the bytes have another digest"
        if upload.parts:
            self._allow(answer, 403, 0 if upload.told else 404, *((400, 409) if sending.draft else ()))
            return
        offset = getattr(error, "offset", None)
        if offset is not None and upload.told:
            assert offset >= upload.least(sending.draft), "an offset never decreases"
            assert offset <= upload.reach
            if isinstance(error, errors.TooLarge) and upload.length is not None and not upload.finished:
                assert offset < upload.length or not offset, "past the length it does not finish the upload"
            upload.acked = max(upload.acked, offset)
        self._allow(answer, 400, 404 if not upload.told else 0, 409, 413, 423, 460)

    def _differs(self, upload: Known, sending: Sending) -> bool:
        """Whether a digest was announced that is not that of the bytes, or not the one announced before."""
        row = self.server.ask(self.server.catalog.get(upload.id)).value
        announced = sending.announced if row is None else row.announced
        known = {announced, row.digest if row is not None and row.finished else None, sending.announced} - {None}
        if sending.announced is not None and len(known) > 1:
            return True
        end = sending.start + len(sending.data) if row is None or row.length is None else row.length
        return announced is not None and announced != text(upload.source[:end])

    def _seen(self, upload: Known, answer: Answer[Upload], draft: bool = False) -> None:
        error = answer.error
        if error is None:
            assert upload.gone != "yes", "what was terminated stays gone"
            upload.gone = "no"
            self._believe(upload, answer.value, draft)
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

    def _believe(self, upload: Known, row: Upload, draft: bool = False) -> None:
        """Hold what the server says against what is known; from now on it is acknowledged. ``draft``: said by it."""
        if upload.parts and not row.finished:
            assert not upload.finished
            return
        if upload.parts:
            for part in upload.parts:
                # its last append may have been acknowledged to nobody
                part.acked = max(part.acked, self.server.row(part.id).offset)
            assert row.offset == len(upload.bytes)
        else:
            assert row.offset >= upload.least(draft), "an offset never decreases"
            assert row.offset <= upload.reach, "no byte is there that was not sent, or was not verified"
        assert row.finished or not upload.finished, "what is finished stays finished"
        upload.acked = max(upload.acked, row.offset)
        assert upload.announced in (None, row.announced), "what was announced is not forgotten"
        if row.finished:
            assert row.length == row.offset
            assert upload.completed or not upload.draft, "only who completes it finishes it"
            digest = text(upload.bytes[: row.offset])
            assert row.announced in (None, digest) and row.digest in (None, digest), "it has no other digest"
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
            digests=self.digests,
        )
        self.server.start()

    def _made(self, length: int | None, *, partial: bool = False, draft: bool = False) -> Known:
        """An upload that is about to be asked for."""
        source = pattern(LARGEST * 2, len(self.uploads))
        upload = self._next = Known("", source, length, partial=partial, draft=draft)
        self.uploads.append(upload)
        return upload

    def _sending(self, sending: Sending) -> Sending:
        self.sending.append(sending)
        return sending

    @staticmethod
    def _completes(sending: Sending) -> None:
        """The end of its content may be recorded as the length, whatever is answered."""
        if sending.completes:
            sending.upload.brought.add(sending.start + len(sending.data))

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

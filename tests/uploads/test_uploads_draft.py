"""Uploads by the IETF draft: complete when a request says so, cut off without loss, taken over by who looks at them."""

from __future__ import annotations

import errno

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resumable.model.errors import BodyLost
from resumable.model.hooks import Granted, QuestionKind
from resumable.model.upload import GoneReason, IInterim
from resumable.protocol.errors import (
    CompletedUpload,
    Gone,
    InconsistentLength,
    OffsetMismatch,
    PastLength,
    Refused,
    TakenOver,
    TooLarge,
    Unavailable,
)
from resumable.uploads.context import ANNOUNCED_AFTER
from resumable.uploads.holds import SILENCE
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import LONG, UPLOADS, pattern, told
from tests.uploads.machine import machines

DATA = pattern(1000)
BIG = pattern(3 * LONG)

pytestmark = pytest.mark.usefixtures("way")


@implementer(IInterim)
class Told:
    """What the client of a request was told before the answer."""

    def __init__(self):
        self.ids, self.offsets = [], []

    def created(self, upload):
        self.ids.append(upload.id)

    def committed(self, offset):
        self.offsets.append(offset)


def facts(server, upload_id):
    return [fact.kind.value for fact in told(server, "outside") if fact.upload_id == upload_id]


class TestCompleteness:
    @pytest.mark.parametrize("data", [b"", b"x", DATA, BIG], ids=len)
    def test_R15_a_creation_that_completes_is_finished_by_its_content(self, server, data):
        upload = server.draft_create(True, data).value
        assert upload.finished and (upload.offset, upload.length) == (len(data), len(data))
        assert server.uploads.complete(upload) and server.content(upload.id) == data

    @pytest.mark.parametrize("data", [b"", b"x", DATA, BIG], ids=len)
    def test_R7_so_it_is_where_only_the_end_of_its_content_shows_the_length(self, server, data):
        upload = server.draft_create(True, FakeBody.chunked(data)).value
        assert upload.finished and upload.length == len(data)
        assert server.content(upload.id) == data

    @pytest.mark.parametrize("length", [None, len(DATA)])
    def test_R16_one_that_does_not_is_unfinished_though_all_its_bytes_are_here(self, server, length):
        upload = server.draft_create(False, DATA, length=length).value
        assert not upload.finished and (upload.offset, upload.length) == (len(DATA), length)
        assert server.look(upload.id).value.offset == len(DATA)
        assert not server.uploads.complete(server.look(upload.id).value)

    @pytest.mark.parametrize("length", [None, len(DATA)])
    @pytest.mark.parametrize("body", [FakeBody.whole, FakeBody.chunked])
    def test_R35_an_append_without_content_completes_it(self, server, length, body):
        upload_id = server.draft_create(False, DATA, length=length).value.id
        upload = server.draft_append(upload_id, len(DATA), True, body(b"")).value
        assert upload.finished and server.uploads.complete(upload)
        assert upload.length == len(DATA) and server.content(upload_id) == DATA

    def test_R22_an_empty_file_is_completed_in_a_request_of_its_own(self, server):
        upload_id = server.draft_create(False).value.id
        assert server.draft_append(upload_id, 0, True).value.finished
        assert server.content(upload_id) == b""

    def test_R22_a_length_of_nothing_completes_nothing(self, server):
        upload = server.draft_create(False, length=0).value
        assert not upload.finished
        assert server.draft_append(upload.id, 0, True).value.finished

    @pytest.mark.parametrize("data", [b"x", DATA, BIG], ids=len)
    @pytest.mark.parametrize("body", [FakeBody.whole, FakeBody.chunked])
    def test_R33_the_last_append_gives_it_its_length(self, server, data, body):
        upload_id = server.draft_create(False, DATA).value.id
        upload = server.draft_append(upload_id, len(DATA), True, body(data)).value
        assert upload.finished and upload.length == len(DATA) + len(data)
        assert server.content(upload_id) == DATA + data

    def test_R4_nothing_is_appended_to_a_complete_one(self, server):
        upload_id = server.draft_create(True, DATA).value.id
        for completes, data in [(False, b"x"), (True, b"x"), (False, b"")]:
            answer = server.draft_append(upload_id, 1000, completes, data)
            assert isinstance(answer.error, CompletedUpload) and answer.error.headers["Upload-Offset"] == "1000"
        for completes in (True, False):
            assert isinstance(server.draft_append(upload_id, 0, completes, DATA).error, OffsetMismatch)
        assert server.content(upload_id) == DATA

    def test_R37_the_request_that_completed_it_is_answered_again(self, server):
        upload_id = server.draft_create(False, DATA).value.id
        for body in (b"", b"", FakeBody.chunked(b"")):
            assert server.draft_append(upload_id, len(DATA), True, body).value.finished

    def test_R4_it_stays_though_more_comes_then(self, server):
        upload_id = server.draft_create(True, DATA).value.id
        assert server.draft_append(upload_id, len(DATA), True, FakeBody.chunked(b"x")).status == 413
        assert server.look(upload_id).value.finished and server.content(upload_id) == DATA

    def test_its_facts_are_told_once(self, serve):
        server = serve(deliverers=["outside"])
        upload_id = server.draft_create(False, DATA).value.id
        server.draft_append(upload_id, len(DATA), True).value  # noqa: B018
        server.draft_append(upload_id, len(DATA), True).value  # noqa: B018
        assert facts(server, upload_id) == ["created", "finished"]


class TestLengths:
    def test_R8_the_content_that_completes_must_end_at_the_length(self, server):
        upload_id = server.draft_create(False, DATA, length=2000).value.id
        for data in (b"", b"x" * 999, b"x" * 1001):
            answer = server.draft_append(upload_id, 1000, True, data)
            assert isinstance(answer.error, InconsistentLength) and not isinstance(answer.error, PastLength)
        assert server.draft_append(upload_id, 1000, True, b"x" * 1000).value.finished

    def test_R8_content_whose_end_shows_its_length_is_kept_when_it_ends_too_soon(self, server):
        upload_id = server.draft_create(False, DATA, length=2000).value.id
        assert isinstance(
            server.draft_append(upload_id, 1000, True, FakeBody.chunked(b"y" * 5)).error, InconsistentLength
        )
        upload = server.look(upload_id).value
        assert (upload.offset, upload.finished) == (1005, False)

    @pytest.mark.parametrize("known", [None, 2000])
    def test_R8_a_length_never_changes(self, server, known):
        upload_id = server.draft_create(False, DATA, length=known).value.id
        assert server.draft_append(upload_id, 1000, False, b"y", length=2000).value.length == 2000
        answer = server.draft_append(upload_id, 1001, False, b"z", length=2001)
        assert isinstance(answer.error, InconsistentLength)
        assert server.look(upload_id).value.offset == 1001

    def test_R8_a_length_is_not_below_the_offset(self, server):
        upload_id = server.draft_create(False, DATA).value.id
        assert isinstance(server.draft_append(upload_id, 1000, False, b"y", length=999).error, InconsistentLength)
        assert server.look(upload_id).value.length is None

    @pytest.mark.parametrize("completes", [True, False])
    def test_R9_declared_content_past_the_length_is_refused_and_the_upload_goes_on(self, server, completes):
        upload_id = server.draft_create(False, DATA, length=1010).value.id
        assert isinstance(server.draft_append(upload_id, 1000, completes, b"y" * 11).error, InconsistentLength)
        assert server.draft_append(upload_id, 1000, True, b"y" * 10).value.finished

    @pytest.mark.parametrize("completes", [True, False])
    @pytest.mark.parametrize("extra", [1, 2 * LONG])
    def test_R9_content_that_goes_past_it_makes_the_upload_invalid(self, server, completes, extra):
        upload_id = server.draft_create(False, DATA, length=1010).value.id
        answer = server.draft_append(upload_id, 1000, completes, FakeBody.chunked(b"y" * (10 + extra)))
        assert isinstance(answer.error, PastLength)
        assert isinstance(server.look(upload_id).error, Gone)
        assert server.row(upload_id).gone is GoneReason.TERMINATED

    def test_R9_so_it_does_in_a_creation(self, server):
        body = FakeBody(None)
        answer = server.draft_create(False, body, length=len(BIG) + 1)
        for data in (BIG, b"xy"):
            body.arrive(data)
            server.pump()
        assert isinstance(answer.error, PastLength)
        assert isinstance(server.look(answer.cut.id).error, Gone)

    def test_R9_nothing_is_left_of_one_that_does_at_once(self, server):
        answer = server.draft_create(False, FakeBody.chunked(BIG), length=len(BIG) - 1)
        assert isinstance(answer.error, PastLength) and answer.cut is None

    def test_a_request_may_have_so_many_bytes(self, server):
        upload_id = server.draft_create(False).value.id
        answer = server.draft_append(upload_id, 0, False, FakeBody.chunked(DATA), at_most=100)
        assert isinstance(answer.error, TooLarge)
        assert server.look(upload_id).value.offset == 100  # what came is kept

    def test_an_upload_of_the_maximum_takes_no_more(self, serve):
        server = serve(limits=UploadLimits(max_size=1000))
        assert server.draft_create(False, b"", length=1001).status == 413
        upload_id = server.draft_create(False, DATA).value.id
        assert server.draft_append(upload_id, 1000, False, b"x").status == 413
        assert server.draft_append(upload_id, 1000, True).value.finished


class TestCutOff:
    @pytest.mark.parametrize("completes", [True, False])
    @pytest.mark.parametrize("length", [3 * LONG, None])
    def test_R21_R32_what_has_come_is_kept_and_nothing_is_completed(self, server, completes, length):
        told, body = Told(), FakeBody(length)
        answer = server.draft_create(completes, body, interim=told)
        body.arrive(BIG[:-1])
        server.pump()
        body.lose()
        server.pump()
        assert isinstance(answer.error, BodyLost) or answer.cut is not None
        [upload_id] = told.ids
        upload = server.look(upload_id).value
        assert (upload.offset, upload.finished) == (len(BIG) - 1, False)
        assert server.draft_append(upload_id, upload.offset, True, BIG[-1:]).value.finished
        assert server.content(upload_id) == BIG

    def test_R21_all_bytes_without_the_end_of_the_content_complete_nothing(self, server):
        upload_id = server.draft_create(False).value.id
        body = FakeBody(None)
        server.draft_append(upload_id, 0, True, body)
        body.arrive(DATA)
        server.pump()
        body.lose()
        server.pump()
        upload = server.look(upload_id).value
        assert (upload.offset, upload.length, upload.finished) == (1000, None, False)
        assert server.draft_append(upload_id, 1000, True).value.finished

    @pytest.mark.parametrize("data", [DATA, BIG], ids=len)
    @pytest.mark.parametrize("completes", [True, False])
    def test_a_crash_at_any_step_completes_nothing_that_no_request_has_completed(
        self, tmp_path, serve, completes, data
    ):
        """Bytes past the committed offset are adopted at start-up, but for the last one: a request whose end was not
        seen to be recorded completes nothing."""
        for step, machine in enumerate(machines(tmp_path), 1):
            server = serve(machine)
            upload_id = server.draft_create(False, length=len(data)).value.id
            machine.crash_at(step, "after")
            answer = server.draft_append(upload_id, 0, completes, data)
            if not machine.down:
                break
            recorded = machine.trace.count("COMMIT")
            server.bury()
            again = serve(machine.after_kill())
            upload = again.look(upload_id).value
            assert not answer.done and (completes or not upload.finished), f"step {step}"
            assert not upload.finished or recorded > 1, f"step {step}"
            if not upload.finished:
                rest = data[upload.offset :]
                assert again.draft_append(upload_id, upload.offset, True, rest).value.finished, f"step {step}"
            assert again.content(upload_id) == data
            again.bury()
        assert step > 3 and answer.done

    @pytest.mark.parametrize("draft", [True, False])
    def test_what_a_failed_append_has_left_is_no_part_of_an_upload_that_is_completed_without_it(self, server, draft):
        if draft:
            upload_id = server.draft_create(False, DATA).value.id
        else:
            upload_id = server.create(None).value.id
            server.patch(upload_id, 0, DATA).value  # noqa: B018
        body = FakeBody(None)
        server.draft_append(upload_id, len(DATA), True, body)
        body.arrive(BIG)
        server.pump()
        server.machine.fail_commit(landed=False, times=9, after=0, full=False)
        server.disk.fail_next("truncate", errno.ENOSPC, 0)
        body.lose()
        server.pump()
        server.machine.commit_faults.clear()
        assert len(server.content(upload_id)) > len(DATA)
        if draft:
            assert server.draft_append(upload_id, len(DATA), True).value.finished
        else:
            assert server.patch(upload_id, len(DATA), b"", length=len(DATA)).value.finished
        assert server.content(upload_id) == DATA

    def test_bytes_of_an_append_that_was_killed_are_adopted_without_the_last(self, machine, serve):
        server = serve()
        upload_id = server.draft_create(False).value.id
        body = FakeBody(2 * len(BIG))
        server.draft_append(upload_id, 0, True, body)
        body.arrive(BIG)
        server.pump()
        assert server.row(upload_id).offset == 0
        server.bury()
        assert serve(machine.after_kill()).look(upload_id).value.offset == len(BIG)


class TestInterim:
    def test_the_fake_is_one(self):
        verifyObject(IInterim, Told())

    def test_R14_the_client_of_a_long_one_is_told_where_it_is_before_its_bytes_are_written(self, server):
        told, body = Told(), FakeBody(len(BIG))
        answer = server.draft_create(True, body, interim=told)
        assert len(told.ids) == 1 and not answer.done
        assert server.row(told.ids[0]) is not None

    def test_the_client_of_a_short_one_is_told_if_it_takes_its_time(self, server):
        told, body = Told(), FakeBody(len(DATA))
        server.draft_create(True, body, interim=told)
        body.arrive(DATA[:10])
        server.pump()
        assert not told.ids
        server.advance(ANNOUNCED_AFTER)
        [upload_id] = told.ids
        body.lose()
        server.pump()
        assert server.look(upload_id).value.offset == 10

    def test_the_client_of_a_short_one_that_is_here_is_told_nothing(self, server):
        told = Told()
        assert server.draft_create(True, DATA, interim=told).value.finished
        server.advance(1)
        assert not told.ids and not told.offsets

    def test_nobody_waits_for_a_client_that_takes_none(self, server):
        body = FakeBody(len(DATA))
        server.draft_create(True, body)
        server.advance(SILENCE)
        body.lose()
        server.pump()
        assert not server.clock.getDelayedCalls()

    def test_R18_R36_it_is_told_of_commits(self, server):
        told, body = Told(), FakeBody(None)
        server.draft_create(True, body, interim=told)
        body.arrive(BIG)
        server.pump()
        server.advance(10)
        server.tick()
        assert told.offsets == [len(BIG)]


class TestHolds:
    def receiving(self, server, upload_id, offset=0):
        body = FakeBody(None)
        answer = server.draft_append(upload_id, offset, True, body)
        body.arrive(BIG)
        server.pump()
        return answer, body

    def test_R42_who_looks_ends_the_transfer_and_its_offset_stays_right(self, server):
        """The draft's HEAD: ends the transfer that it finds, live or not: the offset it answers stays right."""
        upload_id = server.draft_create(False).value.id
        answer, body = self.receiving(server, upload_id)
        assert server.look(upload_id).value.offset == len(BIG)
        assert isinstance(answer.error, TakenOver) and body.discarded
        assert server.draft_append(upload_id, len(BIG), True).value.finished

    def test_the_draft_looks_at_an_append_of_tus_without_ending_it(self, server):
        upload_id = server.create(1 << 30).value.id
        body = FakeBody(10 * LONG)
        answer = server.patch(upload_id, 0, body)
        body.arrive(BIG)
        server.pump()
        assert server.look(upload_id).value.offset == len(BIG)
        assert not answer.done and not body.discarded

    def test_polling_by_tus_does_not_end_an_append_of_the_draft(self, server):
        upload_id = server.draft_create(False).value.id
        answer, _ = self.receiving(server, upload_id)
        assert server.head(upload_id).value.offset == len(BIG)
        assert not answer.done

    def test_an_append_that_finds_another_one_and_a_failing_catalog_is_told_to_come_again(self, server):
        upload_id = server.create(1 << 30).value.id
        body = FakeBody(10 * LONG)
        server.patch(upload_id, 0, body)
        body.arrive(BIG)
        server.pump()
        server.machine.fail_commit(landed=False, times=3, after=0, full=False)
        assert isinstance(server.draft_append(upload_id, 0, False, DATA).error, Unavailable)

    def test_R39_R40_a_removal_ends_the_transfer_first(self, server):
        upload_id = server.draft_create(False).value.id
        answer, body = self.receiving(server, upload_id)
        assert server.delete(upload_id).done
        assert answer.error is not None and body.discarded
        assert isinstance(server.look(upload_id).error, Gone)

    def test_R31_R41_an_append_elsewhere_is_told_the_offset(self, server):
        upload_id = server.draft_create(False, DATA).value.id
        answer = server.draft_append(upload_id, 999, False, b"y")
        assert isinstance(answer.error, OffsetMismatch)
        assert answer.error.members == {"expected-offset": 1000, "provided-offset": 999}


class TestBothProtocols:
    def test_tus_sees_the_last_byte_of_an_incomplete_upload_withheld_and_completes_it_by_that(self, server):
        upload_id = server.draft_create(False, DATA, length=1000).value.id
        assert server.head(upload_id).value.offset == 999
        answer = server.patch(upload_id, 999, DATA[-1:]).value
        assert answer.finished and server.content(upload_id) == DATA

    def test_another_last_byte_is_refused(self, server):
        upload_id = server.draft_create(False, DATA, length=1000).value.id
        assert server.patch(upload_id, 999, bytes([DATA[-1] ^ 1])).status == 409

    def test_tus_completes_an_upload_of_the_draft_by_its_length(self, server):
        upload_id = server.draft_create(False, DATA[:500], length=1000).value.id
        assert server.patch(upload_id, 500, DATA[500:]).value.finished

    def test_the_draft_completes_an_upload_of_tus_by_its_length(self, server):
        upload_id = server.create(1000).value.id
        assert not server.draft_append(upload_id, 0, False, DATA[:500]).value.finished
        assert server.draft_append(upload_id, 500, False, DATA[500:]).value.finished

    def test_the_draft_gives_a_deferred_upload_of_tus_its_length(self, server):
        upload_id = server.create(None).value.id
        assert server.draft_append(upload_id, 0, True, DATA).value.finished
        assert server.head(upload_id).value.length == 1000

    def test_a_final_upload_takes_no_append_of_the_draft(self, server):
        partial = server.upload(DATA, partial=True)
        final = server.concat(partial).value.id
        assert server.draft_append(final, 1000, True).status == 403


class TestFinishing:
    def test_R49_hooks_are_asked_once_a_request_completes_it(self, hooked):
        server = hooked(QuestionKind.FINISH)
        upload_id = server.draft_create(False, DATA, length=1000).value.id
        assert not server.hooks.asked
        assert server.draft_append(upload_id, 1000, True).value.finished
        assert len(server.hooks.asked) == 1

    def test_a_refused_one_stays_incomplete_and_may_be_completed_later(self, hooked):
        server = hooked(QuestionKind.FINISH, finish=[Refused(403), Granted()])
        answer = server.draft_create(True, DATA)
        assert answer.status == 403 and answer.cut is not None
        upload = server.look(answer.cut.id).value
        assert (upload.offset, server.uploads.complete(upload)) == (1000, False)
        assert server.draft_append(upload.id, 1000, True).value.finished

    def test_with_ack_remote_it_is_complete_once_it_is_stored(self, serve):
        server = serve(
            replication=FakeReplication(acknowledges=True), limits=UploadLimits(ack_timeout=20.0, expire_after=3600.0)
        )
        answer = server.draft_create(True, DATA)
        server.advance(20)
        assert isinstance(answer.error, Unavailable)
        upload_id = answer.cut.id
        upload = server.look(upload_id).value
        assert upload.offset == 1000 and not server.uploads.complete(upload)
        again = server.draft_append(upload_id, 1000, True)
        assert not again.done
        server.store(upload_id)
        assert server.uploads.complete(again.value)

    def test_an_incomplete_one_expires(self, serve):
        server = serve(limits=UploadLimits(expire_after=3600.0))
        upload_id = server.draft_create(False, DATA, length=1000).value.id
        server.advance(3601)
        server.sweep()
        assert isinstance(server.look(upload_id).error, Gone)


def test_no_file_is_left_of_an_invalid_upload(server):
    upload_id = server.draft_create(False, DATA, length=1010).value.id
    server.draft_append(upload_id, 1000, False, FakeBody.chunked(b"y" * 11))
    server.sweep()
    assert upload_id not in list(server.machine.disk.names(UPLOADS))

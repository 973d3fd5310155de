"""Regions, journals and records: what backends read from and remember in."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from resumable.remotes import errors
from resumable.remotes.interfaces import IJournal, ILoan, IPartJournal, IRegion, NotThere, OutOfStep, RegionLost, Stored
from resumable.remotes.journals import MemoryJournal, ReplicaRecord, ReplicaRecords, Stage
from resumable.remotes.plan import for_length
from resumable.remotes.regions import STEP, BytesRegion, RegionWindow, check_chunk, copy


class File:
    """As the spool's Reader: fewer bytes at the end."""

    def __init__(self, data):
        self.data = data

    def read(self, offset, size):
        return succeed(self.data[offset : offset + size])

    def scan(self, offset, size, feed):
        feed(self.data[offset : offset + size])
        return succeed(len(self.data[offset : offset + size]))

    def lend(self):
        self.lent = True
        return self.Loan(self)

    class Loan:
        def __init__(self, file):
            self.file = file

        def read(self, offset, size):
            return self.file.data[offset : offset + size]

        def give_back(self):
            self.file.lent = False


class TestRegions(SynchronousTestCase):
    def test_they_provide_the_interface(self):
        for region in (BytesRegion(b"abc"), RegionWindow(File(b"abc"), 0, 3)):
            assert verifyObject(IRegion, region)

    def test_a_window_is_a_stretch_of_the_file(self):
        window = RegionWindow(File(b"0123456789"), 3, 4)
        assert window.size == 4
        assert self.successResultOf(window.read(0, 4)) == b"3456"
        assert self.successResultOf(window.read(1, 2)) == b"45"
        assert self.successResultOf(window.read(4, 0)) == b""

    def test_a_file_that_is_too_short_is_told(self):
        self.failureResultOf(RegionWindow(File(b"0123456789"), 8, 4).read(0, 4), RegionLost)
        self.failureResultOf(RegionWindow(File(b"0123456789"), 8, 4).scan(0, 4, bytearray().extend), RegionLost)

    def test_a_scan_feeds_the_bytes_in_order(self):
        for region in (BytesRegion(b"3456"), RegionWindow(File(b"0123456789"), 3, 4)):
            fed = bytearray()
            assert self.successResultOf(region.scan(1, 3, fed.extend)) is None
            assert fed == b"456"

    def test_what_is_lent_is_read_at_once_until_it_is_given_back(self):
        file = File(b"0123456789")
        for region in (BytesRegion(b"3456"), RegionWindow(file, 3, 4)):
            loan = region.lend()
            assert verifyObject(ILoan, loan)
            assert (loan.read(0, 4), loan.read(1, 2), loan.read(4, 0)) == (b"3456", b"45", b"")
            for offset, size in ((-1, 2), (0, 5), (3, 2), (5, 0), (1, -1)):
                with pytest.raises(ValueError):
                    loan.read(offset, size)
        assert file.lent
        loan.give_back()
        assert not file.lent
        with pytest.raises(RegionLost):
            RegionWindow(file, 8, 4).lend().read(0, 4)

    def test_what_a_scan_feeds_may_fail(self):
        self.failureResultOf(BytesRegion(b"three").scan(0, 4, int), ValueError)

    def test_nothing_outside_of_a_region_is_read(self):
        for region in (BytesRegion(b"3456"), RegionWindow(File(b"0123456789"), 3, 4)):
            for offset, size in ((-1, 2), (0, 5), (3, 2), (5, 0), (1, -1)):
                self.failureResultOf(region.read(offset, size), ValueError)
                self.failureResultOf(region.scan(offset, size, bytearray().extend), ValueError)

    def test_a_region_is_copied_piece_by_piece_each_after_the_one_before(self):
        written, answers = [], []

        def write(offset, piece):
            written.append((offset, len(piece)))
            answers.append(Deferred())
            return answers[-1]

        done = Deferred.fromCoroutine(copy(BytesRegion(bytes(STEP + 7)), write, 4))
        assert written == [(4, STEP)]
        answers[0].callback(None)
        assert written == [(4, STEP), (4 + STEP, 3)]
        self.assertNoResult(done)
        answers[1].callback(None)
        self.successResultOf(done)

    def test_records_are_read_back_as_they_were(self):
        journal = MemoryJournal()
        kept = ReplicaRecords(ReplicaRecord, journal)
        stored = Stored("memory://k", "k", 7, etag="e")
        record = ReplicaRecord("k", Stage.STORED, 7, "h", 7, for_length(7), stored)
        self.successResultOf(Deferred.fromCoroutine(kept.save("i", record)))
        assert self.successResultOf(Deferred.fromCoroutine(kept.load("i"))) == record

    def test_what_is_no_record_is_told(self):
        journal = MemoryJournal()
        kept = ReplicaRecords(ReplicaRecord, journal)
        self.successResultOf(journal.save("i", {"state": "open"}))
        self.failureResultOf(Deferred.fromCoroutine(kept.load("i")), ValueError)

    def test_what_is_over_was_not_started(self):
        journal = MemoryJournal()
        kept = ReplicaRecords(ReplicaRecord, journal)
        self.successResultOf(Deferred.fromCoroutine(kept.save("i", ReplicaRecord("k", Stage.OVER))))
        for upload_id in ("i", "unknown"):
            self.failureResultOf(Deferred.fromCoroutine(kept.started(upload_id)), NotThere)

    def test_a_journal_shares_nothing(self):
        journal = MemoryJournal()
        assert verifyObject(IJournal, journal) and verifyObject(IPartJournal, journal)
        value = {"list": [1]}
        self.successResultOf(journal.save("i", value))
        value["list"].append(2)
        loaded = self.successResultOf(journal.load("i"))
        assert loaded == {"list": [1]}
        loaded["list"].append(3)
        assert self.successResultOf(journal.load("i")) == {"list": [1]}

    def test_a_journal_keeps_parts_until_they_are_dropped(self):
        journal = MemoryJournal()
        for number, value in ((2, "b"), (1, "a"), (2, "c")):
            self.successResultOf(journal.save_part("i", number, value))
        assert self.successResultOf(journal.load_parts("i")) == {1: "a", 2: "c"}
        self.successResultOf(journal.drop_parts("i"))
        assert self.successResultOf(journal.load_parts("i")) == {}


@pytest.mark.parametrize(("offset", "size", "declared"), [(-1, 3, None), (0, 2, None), (0, 3, 2), (8, 3, 10)])
def test_chunks_that_cannot_be_are_refused(offset, size, declared):
    with pytest.raises(ValueError):
        check_chunk(offset, BytesRegion(b"abc"), size, declared)


def test_a_size_changes_only_from_unknown_to_known():
    assert ReplicaRecord("k").sized(5).sized(None).sized(5).size == 5
    with pytest.raises(ValueError):
        ReplicaRecord("k", size=5).sized(6)
    with pytest.raises(ValueError):
        ReplicaRecord("k", confirmed=6).sized(5)
    with pytest.raises(OutOfStep):
        ReplicaRecord("k").known_size()


RETRIED = {errors.Transient, errors.Throttled, errors.Unusable, errors.AuthFailed, errors.OutOfStep, errors.NotThere}
CONCERN_THE_REMOTE = {errors.Transient, errors.Throttled, errors.Unusable, errors.AuthFailed}


@pytest.mark.parametrize("kind", [*sorted(RETRIED, key=str), errors.Permanent, errors.Conflict])
def test_an_error_says_what_to_do(kind):
    error = kind("it broke", status=503, code="SlowDown", advice="wait")
    assert error.may_retry is (kind in RETRIED)
    assert error.about_remote is (kind in CONCERN_THE_REMOTE)
    assert (str(error), error.reason, error.status, error.code, error.advice) == (
        "it broke",
        "it broke",
        503,
        "SlowDown",
        "wait",
    )


def test_an_error_that_knows_more_says_it():
    assert errors.Throttled("x", 2.5).retry_after == 2.5
    assert errors.OutOfStep("x", 7).progress == 7
    assert errors.NotThere("x").progress == 0

"""The five operations of IRemoteStorage: one test for each promise of their docstrings.

Invariant: no test asks for more than a docstring promises.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from resumable.remotes.interfaces import (
    Conflict,
    IPlanned,
    IRemoteStorage,
    NotThere,
    OutOfStep,
    RemoteError,
    Stored,
)
from resumable.remotes.regions import STEP, BytesRegion
from resumable.testing.contract.case import RemoteCase, SpoolBroke, WatchedRegion, pattern

ODD_METADATA = {
    "filename": b"../a\r\nb\\c \xff\x00.txt",
    "empty": b"",
    "x" * 60: b"y" * 5000,
    "!": "\u00e9".encode(),
}


class Operations(RemoteCase):
    """initiate_upload, write_chunk, finalize_upload, abort_upload, get_upload_progress."""

    def test_it_provides_the_interface(self) -> None:
        """The remote has each method of IRemoteStorage, with its signature."""
        assert verifyObject(IRemoteStorage, self.remote)

    # a whole life

    def test_an_upload_of_several_chunks_is_stored_as_it_was(self) -> None:
        """The object appears when it is finalised, with all bytes; the answer has its key, size and location."""
        parts = self.begin(0)
        key = self.initiate(len(self.data))
        for part in parts:
            self.write(part)
            assert self.progress() == part.end
            if not self.plan().waits(part, len(self.data)):
                assert self.read_object(key) is None, "it is visible before it is finalised"
        stored = self.ask(self.remote.finalize_upload(self.id))
        assert isinstance(stored, Stored)
        assert (stored.key, stored.size) == (key, len(self.data))
        assert stored.key in stored.location
        assert self.read_object(key) == self.data
        assert self.progress() == len(self.data)

    def test_an_upload_of_one_chunk_is_stored(self) -> None:
        """An upload smaller than a chunk is stored as it was."""
        assert self.read_object(self.store(b"hello").key) == b"hello"

    def test_an_upload_of_exactly_one_full_chunk_is_stored(self) -> None:
        """An upload of exactly one chunk's size is stored as it was."""
        assert self.read_object(self.store(pattern(self.chunk_size)).key) == pattern(self.chunk_size)

    def test_an_empty_upload_is_stored_with_an_empty_chunk(self) -> None:
        """An upload of no bytes may be written as a chunk of size 0."""
        assert self.read_object(self.store(b"").key) == b""

    def test_an_empty_upload_is_stored_without_a_chunk(self) -> None:
        """An upload of no bytes may be finalised without a chunk."""
        key = self.initiate(0)
        assert self.ask(self.remote.finalize_upload(self.id)).size == 0
        assert self.read_object(key) == b""

    def test_uploads_do_not_disturb_each_other(self) -> None:
        """Two uploads whose chunks come in turn are stored under two keys, each with its own bytes."""
        other, theirs = self.new_id(), self.data[::-1]
        parts = self.begin(1)
        self.initiate(len(theirs), other)
        for part in parts:
            self.write(part, theirs, other)
        for part in parts[1:]:
            self.write(part)
        key, other_key = self.store().key, self.store(theirs, other).key
        assert key != other_key
        assert (self.read_object(key), self.read_object(other_key)) == (self.data, theirs)

    def test_any_metadata_is_taken(self) -> None:
        """Metadata that no store would take as it is fails no upload."""
        self.initiate(5, metadata=ODD_METADATA)
        assert self.read_object(self.store(b"hello").key) == b"hello"

    # initiate_upload

    def test_initiating_again_changes_nothing(self) -> None:
        """A repeated `initiate_upload` answers the same key and keeps the bytes, before and after the end."""
        first = self.initiate(len(self.data), metadata={"filename": b"a"})
        self.begin(1)
        assert self.initiate(len(self.data), metadata={"filename": b"a"}) == first
        assert self.progress() > 0
        stored = self.store()
        assert self.initiate(len(self.data)) == stored.key == first
        assert self.read_object(first) == self.data

    def test_a_deferred_length_is_given_later(self) -> None:
        """The size may be None first; a later `initiate_upload` gives it."""
        first = self.initiate(None)
        parts = self.begin(1, size=None)
        assert self.progress() == parts[0].end
        assert self.initiate(len(self.data)) == first
        assert self.progress() == parts[0].end
        assert self.read_object(self.store().key) == self.data

    def test_a_deferred_length_may_turn_out_short(self) -> None:
        """A size that becomes known late may be smaller than a chunk."""
        self.initiate(None)
        assert self.read_object(self.store(b"hello").key) == b"hello"

    def test_a_size_that_changes_is_an_error_of_the_caller(self) -> None:
        """Another size than the first raises ValueError."""
        self.initiate(10)
        self.refusal(self.remote.initiate_upload(self.id, 11, {}), ValueError)
        assert self.read_object(self.store(b"0123456789").key) == b"0123456789"

    # write_chunk

    def test_a_chunk_may_be_written_again(self) -> None:
        """A repeated chunk changes nothing."""
        parts = self.begin(2)
        for part in (parts[0], parts[1], parts[1]):
            self.write(part)
            assert self.progress() == parts[1].end
        key = self.store().key
        self.write(parts[0])
        assert self.read_object(key) == self.data

    def test_chunks_may_overlap_what_is_there(self) -> None:
        """A chunk may begin before the confirmed offset."""
        if IPlanned.providedBy(self.remote):
            return
        self.initiate(len(self.data))
        middle = self.chunk_size + self.chunk_size // 3
        for start, end in ((0, self.chunk_size), (self.chunk_size // 2, middle), (100, len(self.data))):
            piece = BytesRegion(self.data[start:end])
            self.ask(self.remote.write_chunk(self.id, start, piece, piece.size))
            assert self.progress() == end
        assert self.read_object(self.store().key) == self.data

    def test_a_chunk_behind_a_gap_is_out_of_step(self) -> None:
        """A chunk that leaves a gap raises OutOfStep, and progress stays."""
        parts = self.begin(1)
        if self.takes_any_order():
            return
        piece = BytesRegion(self.data[parts[2].offset :])
        error = self.refusal(self.remote.write_chunk(self.id, parts[2].offset, piece, piece.size), OutOfStep)
        assert error.may_retry
        assert self.progress() == parts[0].end
        assert self.read_object(self.store().key) == self.data

    def test_a_chunk_that_cannot_be_is_an_error_of_the_caller(self) -> None:
        """An offset or a size outside the upload, or a size that isn't the region's, raises ValueError."""
        self.initiate(10)
        self.refusal(self.remote.write_chunk(self.id, 0, BytesRegion(b"x" * 11), 11), ValueError)
        self.refusal(self.remote.write_chunk(self.id, 0, BytesRegion(b"x" * 10), 9), ValueError)
        self.refusal(self.remote.write_chunk(self.id, -1, BytesRegion(b"x" * 10), 10), ValueError)
        assert self.progress() == 0

    def test_a_chunk_of_an_upload_that_was_not_initiated_is_refused(self) -> None:
        """`write_chunk` raises NotThere."""
        self.refusal(self.remote.write_chunk(self.id, 0, BytesRegion(b"x"), 1), NotThere)

    def test_a_region_that_fails_is_not_taken_for_the_store(self) -> None:
        """The region's own error arrives, so that no store is blamed for the spool."""
        parts = self.begin(1)
        region = WatchedRegion(self.data[parts[1].offset : parts[1].end], STEP)
        error = self.refusal(self.remote.write_chunk(self.id, parts[1].offset, region, region.size), SpoolBroke)
        assert not isinstance(error, RemoteError)
        assert parts[0].end <= self.progress() <= parts[1].end
        assert self.read_object(self.store().key) == self.data

    def test_a_chunk_is_not_read_into_memory_as_a_whole(self) -> None:
        """A region is read in steps of at most STEP bytes."""
        parts = self.begin(0)
        region = WatchedRegion(self.data[: parts[0].end])
        self.ask(self.remote.write_chunk(self.id, 0, region, region.size))
        assert 0 < region.largest <= STEP

    def test_a_write_that_is_given_up_can_be_repeated(self) -> None:
        """A cancelled `write_chunk` ends at once and loses no earlier chunk."""
        parts = self.begin(1)
        region = WatchedRegion(self.data[parts[1].offset : parts[1].end], STEP, silent=True)
        answer = self.remote.write_chunk(self.id, parts[1].offset, region, region.size)
        self.settle()
        answer.cancel()
        self.refusal(answer, CancelledError, RemoteError)
        region.speak()
        assert self.progress() >= parts[0].end
        assert self.read_object(self.store().key) == self.data

    # finalize_upload

    def test_what_is_not_complete_is_not_finalised(self) -> None:
        """`finalize_upload` raises OutOfStep while bytes are missing, and makes no object."""
        self.begin(2)
        key = self.initiate(len(self.data))
        self.refusal(self.remote.finalize_upload(self.id), OutOfStep)
        assert self.read_object(key) is None
        assert self.read_object(self.store().key) == self.data

    def test_what_has_no_length_yet_is_not_finalised(self) -> None:
        """`finalize_upload` raises OutOfStep while the size is unknown."""
        self.begin(1, size=None)
        self.refusal(self.remote.finalize_upload(self.id), OutOfStep)

    def test_what_was_not_initiated_is_not_finalised(self) -> None:
        """`finalize_upload` raises NotThere."""
        self.refusal(self.remote.finalize_upload(self.id), NotThere)

    def test_finalising_again_answers_the_same(self) -> None:
        """A repeated `finalize_upload` answers as the first did, also after a restart."""
        stored = self.store()
        assert self.ask(self.remote.finalize_upload(self.id)) == stored
        self.restart()
        assert self.ask(self.remote.finalize_upload(self.id)) == stored
        assert self.read_object(stored.key) == self.data

    def test_a_foreign_object_is_not_overwritten(self) -> None:
        """Conflict, not to be retried; neither it nor an abort harms the other object."""
        parts = self.begin(0)
        key = self.initiate(len(self.data))
        self.put_foreign(key, b"theirs")
        closing = [part for part in parts if self.plan().waits(part, len(self.data))]
        for part in parts[: len(parts) - len(closing)]:
            self.write(part)
        last = [BytesRegion(self.data[part.offset : part.end]) for part in closing]
        error = self.refusal(
            self.remote.write_chunk(self.id, closing[0].offset, last[0], last[0].size)
            if closing
            else self.remote.finalize_upload(self.id),
            Conflict,
        )
        assert not error.may_retry
        assert self.read_object(key) == b"theirs"
        self.ask(self.remote.abort_upload(self.id))
        assert self.read_object(key) == b"theirs"

    def test_a_small_upload_does_not_overwrite_a_foreign_object_either(self) -> None:
        """Conflict, at the chunk or at the end."""
        key = self.initiate(5)
        self.put_foreign(key, b"their")
        try:
            self.store(b"hello")
        except Conflict:
            pass
        else:
            raise AssertionError("no Conflict")
        assert self.read_object(key) == b"their"

    # abort_upload

    def test_after_an_abort_nothing_is_known(self) -> None:
        """Each operation but `initiate_upload` raises NotThere."""
        parts = self.begin(1)
        self.ask(self.remote.abort_upload(self.id))
        self.refusal(self.remote.get_upload_progress(self.id), NotThere)
        self.refusal(self.remote.finalize_upload(self.id), NotThere)
        piece = BytesRegion(self.data[: parts[0].end])
        self.refusal(self.remote.write_chunk(self.id, 0, piece, piece.size), NotThere)

    def test_an_abort_may_be_repeated(self) -> None:
        """An abort answers when there is nothing, twice, and after a restart."""
        self.ask(self.remote.abort_upload(self.id))
        self.begin(1)
        self.ask(self.remote.abort_upload(self.id))
        self.restart()
        self.ask(self.remote.abort_upload(self.id))

    def test_after_an_abort_it_can_begin_anew(self) -> None:
        """The same upload can be initiated, written and stored again."""
        self.begin(1)
        self.ask(self.remote.abort_upload(self.id))
        self.initiate(len(self.data))
        assert self.progress() == 0
        assert self.read_object(self.store().key) == self.data

    def test_an_abort_leaves_what_is_stored(self) -> None:
        """An abort after the end keeps the object."""
        stored = self.store()
        self.ask(self.remote.abort_upload(self.id))
        assert self.read_object(stored.key) == self.data

    # get_upload_progress

    def test_nothing_is_known_of_what_was_not_initiated(self) -> None:
        """`get_upload_progress` raises NotThere, which may be retried."""
        assert self.refusal(self.remote.get_upload_progress(self.id), NotThere).may_retry

    def test_it_begins_with_no_bytes(self) -> None:
        """Progress after `initiate_upload` is 0."""
        self.initiate(len(self.data))
        assert self.progress() == 0

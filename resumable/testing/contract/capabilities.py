"""The capabilities that only some backends have, reading among them; the others skip these tests.

Invariant: as in `operations`.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from resumable.remotes.interfaces import (
    Conflict,
    IClosable,
    IDeletable,
    IKeyed,
    Intent,
    IPartRemote,
    IPlanned,
    IProbe,
    ISweeper,
    IWholeRemote,
    NotThere,
    Stored,
    Unfinished,
)
from resumable.remotes.reading import IObjectStream, IReadable, ISigning, Presented
from resumable.remotes.regions import BytesRegion
from resumable.testing.contract.case import RemoteCase, SpoolBroke, WatchedRegion

MIB = 1 << 20
PRESENTED = Presented("text/plain", "attachment; filename=\"a b.txt\"; filename*=UTF-8''%C3%A4%20b.txt", 60.0)


class Capabilities(RemoteCase):
    """IDeletable, IKeyed, IWholeRemote, IProbe, ISweeper, IPlanned, IPartRemote, IClosable."""

    def test_capabilities_are_as_their_interfaces_say(self) -> None:
        """Each capability that the backend declares has the methods of its interface."""
        for interface in (IDeletable, IKeyed, IWholeRemote, IProbe, ISweeper, IPlanned, IPartRemote, IClosable):
            if interface.providedBy(self.remote):
                assert verifyObject(interface, self.remote)

    # IKeyed

    def test_a_key_that_is_given_is_the_objects_and_stays_so(self) -> None:
        """The first key given to `initiate_upload` stays, whatever a later call or a restart gives."""
        remote = self.need(IKeyed)
        key = f"given/{self.id[:8]}/a name.txt"
        assert self.ask(remote.initiate_upload(self.id, len(self.data), {}, key)) == key
        assert self.initiate(len(self.data)) == key
        assert self.ask(remote.initiate_upload(self.id, len(self.data), {}, "another")) == key
        self.restart()
        assert self.initiate(len(self.data)) == key
        assert self.store().key == key
        assert self.read_object(key) == self.data

    # IWholeRemote

    def test_an_intent_is_what_initiating_would_fix(self) -> None:
        """The intent saves nothing; with its record in the journal, `initiate_upload` changes nothing any more."""
        intent = self._intend(b"hello")
        assert self.journal.saves == 0
        self.ask(self.journal.save(self.id, intent.record))
        assert self.initiate(5, metadata={"filename": b"another.txt"}) == intent.key
        assert self.ask(self.journal.load(self.id)) == json.loads(json.dumps(dict(intent.record)))
        assert self.read_object(self.store(b"hello").key) == b"hello"

    def test_an_intent_keeps_to_the_key_that_is_given(self) -> None:
        """The object gets the key that the intent was made with."""
        key = f"given/{self.id[:8]}/a name.txt"
        assert self._intend(b"hello", key).key == key
        assert self._write_whole(b"hello", key).key == key
        assert self.read_object(key) == b"hello"

    def test_there_is_no_intent_for_more_than_one_request(self) -> None:
        """An upload of several parts has to be initiated."""
        assert self.need(IWholeRemote).intend(self.id, len(self.data), {}) is None

    def test_a_small_object_is_made_at_once(self) -> None:
        """The object is there, and the record that comes with it is as good as the three operations'."""
        for data in (b"", b"hello"):
            self.id = self.new_id()
            stored = self._write_whole(data)
            assert (stored.size, self.read_object(stored.key)) == (len(data), data)
            self.restart()
            assert self.progress() == len(data)
            assert self.ask(self.remote.finalize_upload(self.id)) == stored
            self.ask(self.remote.abort_upload(self.id))
            assert self.read_object(stored.key) == data
            if IDeletable.providedBy(self.remote):
                assert self.ask(self.remote.delete_object(self.id)) is True
                assert self.read_object(stored.key) is None

    def test_a_small_object_whose_record_was_not_saved_is_found(self) -> None:
        """A crash before that loses only the answer: the next process finds the object, and needs no byte of it."""
        stored = self._write_whole(b"hello", saved=False)
        self.restart()
        assert self.initiate(5) == stored.key
        assert self.progress() == 5
        found = self.ask(self.remote.finalize_upload(self.id))
        assert (found.key, found.size) == (stored.key, 5)
        assert self.read_object(stored.key) == b"hello"

    def test_a_small_object_may_be_made_again(self) -> None:
        """After a lost answer the call is repeated: it answers for the same object."""
        stored = self._write_whole(b"hello", saved=False)
        again = self._write_whole(b"hello")
        assert (again.key, again.size) == (stored.key, 5)
        assert self.read_object(stored.key) == b"hello"
        self.restart()
        assert self.ask(self.remote.finalize_upload(self.id)) == again

    def test_a_small_upload_goes_on_step_by_step_where_it_was_not_written(self) -> None:
        """A crash before the store was asked, or bytes that can't be read: the three operations make the object."""
        intent = self._intend(b"hello")
        self.ask(self.journal.save(self.id, intent.record))
        self.refusal(self.remote.write_whole(self.id, intent, WatchedRegion(b"hello", 3)), SpoolBroke)
        assert self.read_object(intent.key) is None
        self.restart()
        assert self.store(b"hello").key == intent.key
        assert self.read_object(intent.key) == b"hello"

    def test_a_small_upload_that_ends_before_it_was_written_leaves_nothing(self) -> None:
        """An abort of an upload of which there is only the intent."""
        intent = self._intend(b"hello")
        self.ask(self.journal.save(self.id, intent.record))
        self.ask(self.remote.abort_upload(self.id))
        assert self.read_object(intent.key) is None
        self.refusal(self.remote.get_upload_progress(self.id), NotThere)

    def test_a_small_object_does_not_replace_another(self) -> None:
        """Somebody else's object under the key stays, and the upload is refused with Conflict."""
        key = f"given/{self.id}.txt"
        intent = self._intend(b"hello", key)
        self.put_foreign(key, b"theirs")
        self.ask(self.journal.save(self.id, intent.record))
        self.refusal(self.remote.write_whole(self.id, intent, BytesRegion(b"hello")), Conflict)
        assert self.read_object(key) == b"theirs"

    def _intend(self, data: bytes, key: str | None = None) -> Intent:
        intent: Intent | None = self.need(IWholeRemote).intend(self.id, len(data), {"filename": b"a.txt"}, key)
        assert intent is not None
        return intent

    def _write_whole(self, data: bytes, key: str | None = None, saved: bool = True) -> Stored:
        intent = self._intend(data, key)
        self.ask(self.journal.save(self.id, intent.record))
        stored, record = self.ask(self.remote.write_whole(self.id, intent, BytesRegion(data)))
        if saved:
            self.ask(self.journal.save(self.id, record))
        assert isinstance(stored, Stored)
        return stored

    # IDeletable

    def test_a_stored_object_is_deleted(self) -> None:
        """`delete_object` removes the object and answers True; False once there is none."""
        remote = self.need(IDeletable)
        key = self.store().key
        assert self.ask(remote.delete_object(self.id)) is True
        assert self.read_object(key) is None
        assert self.ask(remote.delete_object(self.id)) is False

    def test_a_stored_object_is_deleted_after_an_abort_too(self) -> None:
        """An abort forgets no stored object: `delete_object` still finds it."""
        remote = self.need(IDeletable)
        key = self.store().key
        self.ask(remote.abort_upload(self.id))
        assert self.ask(remote.delete_object(self.id)) is True
        assert self.read_object(key) is None

    def test_what_was_never_stored_is_not_deleted(self) -> None:
        """Without an object the answer is False, and parts that were written stay."""
        remote = self.need(IDeletable)
        assert self.ask(remote.delete_object(self.id)) is False
        self.begin(1)
        assert self.ask(remote.delete_object(self.id)) is False
        assert self.progress() > 0

    def test_a_foreign_object_is_not_deleted(self) -> None:
        """An object that somebody else put under the key stays."""
        remote = self.need(IDeletable)
        key = self.store().key
        self.put_foreign(key, b"theirs")
        assert self.ask(remote.delete_object(self.id)) is False
        assert self.read_object(key) == b"theirs"

    def test_after_a_deletion_it_can_begin_anew(self) -> None:
        """The same upload can be initiated, written and stored again."""
        remote = self.need(IDeletable)
        self.store()
        self.ask(remote.delete_object(self.id))
        self.initiate(len(self.data))
        assert self.progress() == 0
        assert self.read_object(self.store().key) == self.data

    # IProbe

    def test_a_probe_of_a_remote_that_works_is_content_and_leaves_nothing(self) -> None:
        """`probe` answers None and leaves no unfinished object."""
        remote = self.need(IProbe)
        assert self.ask(remote.probe()) is None
        if ISweeper.providedBy(remote):
            assert not self.ask(remote.list_unfinished(1000, None))

    # ISweeper

    def test_what_is_unfinished_is_listed_page_by_page(self) -> None:
        """`list_unfinished` keeps to the page's size, names each once, and none after an abort."""
        remote = self.need(ISweeper)
        ids = [self.new_id() for _ in range(3)]
        for self.id in ids:
            self.begin(1)
        found: list[Unfinished] = []
        while page := self.ask(remote.list_unfinished(2, found[-1] if found else None)):
            assert len(page) <= 2
            found += page
        assert len({(one.key, one.handle) for one in found}) == len(found) >= 3
        keys = {self.initiate(len(self.data), upload_id) for upload_id in ids}
        assert keys <= {one.key for one in found} or set(ids) <= {one.upload_id for one in found}
        for upload_id in ids:
            self.ask(remote.abort_upload(upload_id))
        assert not {(one.key, one.handle) for one in found} & {
            (one.key, one.handle) for one in self.ask(remote.list_unfinished(1000, None))
        }

    def test_what_an_upload_works_with_is_not_discarded(self) -> None:
        """`discard` answers False for an object that the named upload's record needs."""
        remote = self.need(ISweeper)
        parts = self.begin(1)
        for found in self.ask(remote.list_unfinished(1000, None)):
            assert self.ask(remote.discard(found, self.id, False)) is False
        assert self.progress() == parts[0].end

    def test_what_nobody_works_with_is_discarded(self) -> None:
        """`discard` removes it, again without harm; a dry run removes nothing."""
        remote = self.need(ISweeper)
        self.begin(1)
        found = self.ask(remote.list_unfinished(1000, None))
        stranger = self.new_id()
        for one in found:
            assert self.ask(remote.discard(one, stranger, True)) is True
        assert self.ask(remote.list_unfinished(1000, None)) == found
        for one in found * 2:
            assert self.ask(remote.discard(one, stranger, False)) is True
        assert not self.ask(remote.list_unfinished(1000, None))

    def test_an_upload_whose_parts_are_gone_from_the_store_begins_anew(self) -> None:
        """Progress raises NotThere; initiated again, the upload begins with no bytes."""
        remote = self.need(ISweeper)
        self.begin(2)
        for one in self.ask(remote.list_unfinished(1000, None)):
            self.ask(remote.discard(one, self.new_id(), False))
        self.refusal(remote.get_upload_progress(self.id), NotThere)
        self.initiate(len(self.data))
        assert self.progress() == 0
        assert self.read_object(self.store().key) == self.data

    # IPlanned

    def test_the_plan_stays_as_it_was_fixed(self) -> None:
        """A length that becomes known and a restart leave the plan of parts as it was."""
        remote = self.need(IPlanned)
        self.refusal(remote.part_plan(self.id), NotThere)
        self.initiate(None)
        plan = self.ask(remote.part_plan(self.id))
        self.initiate(len(self.data))
        assert self.ask(remote.part_plan(self.id)) == plan
        self.restart()
        assert self.ask(self.remote.part_plan(self.id)) == plan

    # IPartRemote

    def test_parts_are_taken_in_any_order(self) -> None:
        """Parts may be written in any order; progress ends at the first gap, also after a restart."""
        remote = self.need(IPartRemote)
        parts = self.begin(0)
        assert self.ask(remote.confirmed_parts(self.id)) == []
        for part in (parts[2], parts[0]):
            self.write(part)
        assert self.progress() == parts[0].end
        assert list(self.ask(remote.confirmed_parts(self.id))) == [parts[0], parts[2]]
        self.restart()
        assert self.progress() == parts[0].end
        assert list(self.ask(self.remote.confirmed_parts(self.id))) == [parts[0], parts[2]]
        self.write(parts[1])
        assert self.progress() == len(self.data)
        assert self.read_object(self.store().key) == self.data
        assert list(self.ask(self.remote.confirmed_parts(self.id))) == parts

    def test_parts_are_taken_at_the_same_time(self) -> None:
        """Parts may be written at once, the last one first."""
        remote = self.need(IPartRemote)
        parts = self.begin(0)
        pieces = [(part, BytesRegion(self.data[part.offset : part.end])) for part in parts]
        answers = [remote.write_chunk(self.id, part.offset, piece, piece.size) for part, piece in reversed(pieces)]
        self.ask(gatherResults(answers))
        assert self.progress() == len(self.data)
        assert self.read_object(self.store().key) == self.data

    def test_a_part_that_failed_is_not_confirmed(self) -> None:
        """A part whose region broke off counts neither as confirmed nor as progress."""
        remote = self.need(IPartRemote)
        parts = self.begin(0)
        region = WatchedRegion(self.data[: parts[0].end], parts[0].end - 1)
        self.refusal(remote.write_chunk(self.id, 0, region, region.size), SpoolBroke)
        assert self.ask(remote.confirmed_parts(self.id)) == []
        assert self.progress() == 0

    # IClosable

    def test_it_can_be_closed(self) -> None:
        """`close` answers None, though an upload is unfinished."""
        remote = self.need(IClosable)
        self.begin(1)
        assert self.ask(remote.close()) is None


class Readers(RemoteCase):
    """IReadable, ISigning."""

    def test_readers_are_as_their_interfaces_say(self) -> None:
        """Each capability that the backend declares has the methods of its interface."""
        for interface in (IReadable, ISigning):
            if interface.providedBy(self.remote):
                assert verifyObject(interface, self.remote)

    # IReadable

    def test_an_object_is_read_back(self) -> None:
        """A stored object reads as it was written, also after a restart."""
        remote = self.need(IReadable)
        self.store()
        assert self._read(remote, 0, len(self.data)) == self.data
        self.restart()
        assert self._read(self.remote, 0, len(self.data)) == self.data

    def test_any_bytes_of_an_object_are_read(self) -> None:
        """A range may begin and end anywhere, across a part's end too."""
        remote = self.need(IReadable)
        self.store()
        size = len(self.data)
        for start, end in ((0, 1), (size - 1, size), (5, 10), (self.chunk_size - 3, self.chunk_size + 3), (1, size)):
            assert self._read(remote, start, end - start) == self.data[start:end]

    def test_readers_do_not_disturb_each_other(self) -> None:
        """Two streams of one object have a position each."""
        remote = self.need(IReadable)
        self.store()
        one = self.ask(remote.read_object(self.id, 0, len(self.data)))
        other = self.ask(remote.read_object(self.id, 7, 100))
        first = self.ask(one.read())
        assert self._rest(other) == self.data[7:107]
        assert first + self._rest(one) == self.data

    def test_who_reads_no_further_may_say_so(self) -> None:
        """A stream may be closed before its end, and twice."""
        remote = self.need(IReadable)
        self.store()
        stream = self.ask(remote.read_object(self.id, 0, len(self.data)))
        assert self.data.startswith(self.ask(stream.read()))
        stream.close()
        stream.close()
        assert self._read(remote, 3, 4) == self.data[3:7]

    def test_bytes_that_an_object_does_not_have_are_an_error_of_the_caller(self) -> None:
        """A range outside the object raises ValueError."""
        remote = self.need(IReadable)
        self.store(b"hello")
        for start, size in ((-1, 2), (0, 0), (0, 6), (5, 1), (2, -1)):
            self.refusal(remote.read_object(self.id, start, size), ValueError)
        assert self._read(remote, 4, 1) == b"o"

    def test_what_was_not_finalised_is_not_read(self) -> None:
        """An upload that isn't there or isn't finalised raises NotThere."""
        remote = self.need(IReadable)
        self.refusal(remote.read_object(self.id, 0, 1), NotThere)
        self.begin(2)
        self.refusal(remote.read_object(self.id, 0, 1), NotThere)

    def test_what_was_deleted_is_not_read(self) -> None:
        """A deleted object raises NotThere."""
        remote = self.need(IReadable)
        self.store()
        self.ask(self.need(IDeletable).delete_object(self.id))
        self.refusal(remote.read_object(self.id, 0, 1), NotThere)

    def test_a_foreign_object_is_not_read(self) -> None:
        """An object that somebody else put under the key raises NotThere."""
        remote = self.need(IReadable)
        key = self.store(b"hello").key
        for theirs in (b"theirs", b"x", b"their") if self.carries_ids else (b"theirs", b"x"):
            self.put_foreign(key, theirs)
            for start in (0, 4):
                self.refusal(remote.read_object(self.id, start, 1), NotThere)
            self.refusal(remote.read_object(self.id, 0, 5), NotThere)

    # ISigning

    def test_a_stranger_may_read_the_object_for_a_while(self) -> None:
        """The signed URL answers anybody, with the type and disposition it was signed for."""
        url = self._signed()
        status, headers, body = self.fetch(url, {})
        assert (status, body) == (200, self.data)
        assert headers["content-type"] == PRESENTED.content_type
        assert headers["content-disposition"] == PRESENTED.disposition

    def test_a_stranger_may_read_some_of_the_object(self) -> None:
        """The signed URL answers a request with Range."""
        status, headers, body = self.fetch(self._signed(), {"Range": "bytes=5-9"})
        assert (status, body) == (206, self.data[5:10])
        assert headers["content-range"] == f"bytes 5-9/{len(self.data)}"

    def test_nobody_is_sent_to_what_is_not_there_or_not_ours(self) -> None:
        """No object, or another's object, raises NotThere in place of a URL."""
        remote = self.need(ISigning)
        self.refusal(remote.signed_url(self.id, PRESENTED), NotThere)
        self._signed()
        self.put_foreign(self.store().key, b"theirs")
        self.refusal(remote.signed_url(self.id, PRESENTED), NotThere)

    def _signed(self) -> str:
        remote = self.need(ISigning)
        self.store()
        url: str | None = self.ask(remote.signed_url(self.id, PRESENTED))
        if url is None:
            self.skipTest("the test's credentials can't sign")  # type: ignore[attr-defined]
        assert url is not None
        return url

    def _read(self, remote: Any, start: int, size: int) -> bytes:
        stream = self.ask(remote.read_object(self.id, start, size))
        assert verifyObject(IObjectStream, stream)
        return self._rest(stream)

    def _rest(self, stream: Any) -> bytes:
        found = b""
        while piece := self.ask(stream.read()):
            assert len(piece) <= MIB
            found += piece
        assert self.ask(stream.read()) == b""
        stream.close()
        return found

"""Remotes that can be read from; the others skip these tests.

Invariant: as in `operations`.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from resumable.remotes.interfaces import IDeletable, NotThere
from resumable.remotes.reading import IObjectStream, IReadable, ISigning, Presented
from resumable.testing.contract.case import RemoteCase

MIB = 1 << 20
PRESENTED = Presented("text/plain", "attachment; filename=\"a b.txt\"; filename*=UTF-8''%C3%A4%20b.txt", 60.0)


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

"""The promises of `resumable.remotes.object_store.IObjectStore`, as a suite that any driver can run. Public.

    class TestTape(ObjectStoreContract, unittest.TestCase):
        def make_store(self): ...

Invariant: no test asks for more than a docstring promises, or knows how a store works. What a store may do in several
ways is told by the attributes of `ObjectStoreContract`, and by those of the driver.
"""

from __future__ import annotations

import unittest
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from resumable.remotes.errors import CannotCopy, Conflict, NotThere, Permanent, RemoteError
from resumable.remotes.interfaces import Unfinished
from resumable.remotes.object_store import IObjectStore, Made, ObjectProperties, SentPart, made_from
from resumable.remotes.reading import Presented
from resumable.remotes.regions import BytesRegion
from resumable.testing.contract.case import SpoolBroke, WatchedRegion, pattern
from resumable.testing.contract.operations import ODD_METADATA

R = TypeVar("R")
UNICODE = {"filename": "naïve 文書.txt".encode(), "note": "größer".encode()}
PRESENTED = Presented("text/plain", 'attachment; filename="a.txt"', 60.0)


class ObjectStoreContract:
    """``part``: bytes of a part that the store takes; a smaller one is the last. Each test has a prefix of its own."""

    part = 256
    has_multiparts = True
    """Whether the store knows of a multipart from `begin` on, until it is complete or abandoned."""
    tells_what_is_over = True
    """Whether a part of a multipart that is over fails with NotThere; else it fails somehow."""
    numbers_jump = True
    """Whether the numbers of parts may have gaps."""
    complete_checks = True
    """Whether `complete` with ``only_new`` refuses to replace another's object."""
    rewrites_parts = True
    """Whether a part may be written twice."""
    copies_parts = True
    """Whether `copy_part` is to be had."""
    keeps_metadata = True
    """Whether an object carries an id and a token."""

    # -- to be filled in

    def make_store(self) -> Any:
        """A driver over an empty store, or a prefix of its own (with a slash at its end) in a shared one."""
        raise NotImplementedError

    def fetch(self, url: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """The answer to a GET by a stranger: status, headers by lower-case name, body."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let the driver do its waiting work. Called until there is an answer."""

    def outcome(self, answer: Deferred[R]) -> R | Failure:
        """The result of a Deferred. With a real reactor replace it, e.g. by ``pytest_twisted.blockon``."""
        results: list[R | Failure] = []
        answer.addBoth(results.append)
        for _ in range(100_000):
            if results:
                return results[0]
            self.settle()
        raise AssertionError("no answer")

    # -- for the tests

    store: Any

    def setUp(self) -> None:
        """A driver, an upload's id and key, and what its object is made with."""
        self.store = self.make_store()
        self.id = uuid.uuid4().hex
        self.key = f"{self.store.prefix}{self.id}"
        self.properties = ObjectProperties(self.id, "worker1-token1", {"filename": b"a.txt"})

    def ask(self, answer: Deferred[R]) -> R:
        """The result; raises its failure."""
        result = self.outcome(answer)
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def refusal(self, answer: Deferred[Any], *kinds: type[Exception]) -> Any:
        """Its failure's exception, which is of one of the kinds."""
        result = self.outcome(answer)
        assert isinstance(result, Failure), f"it answered {result!r}"
        if not result.check(*kinds):
            result.raiseException()
        return result.value

    def name_of(self, label: str) -> str:
        """A part's name; a key where parts are objects."""
        return f"{self.store.prefix}.tails/{self.id}/{label}" if self.store.part_objects else label

    def begin(self, properties: ObjectProperties | None = None) -> str:
        """A multipart's handle."""
        handle: str = self.ask(self.store.begin(self.key, properties or self.properties))
        return handle

    def send(self, handle: str, number: int, data: bytes, label: str = "") -> SentPart:
        """Write a part."""
        name = self.name_of(label or f"worker1-part{number}")
        receipt: str = self.ask(self.store.write_part(self.key, handle, number, name, BytesRegion(data)))
        return SentPart(number, name, len(data), receipt)

    def complete(
        self, handle: str, parts: Sequence[SentPart], only_new: bool = True, given: ObjectProperties | None = None
    ) -> Made:
        """Complete a multipart."""
        made: Made = self.ask(self.store.complete(self.key, handle, given or self.properties, parts, only_new))
        return made

    def put(self, key: str, data: bytes, properties: ObjectProperties, only_new: bool = True) -> Made:
        """Make an object at once."""
        made: Made = self.ask(self.store.put(key, BytesRegion(data), properties, only_new))
        return made

    def content(self, key: str, start: int = 0, size: int | None = None) -> bytes | None:
        """The bytes under a key, as `open` answers them; None: nothing is there."""
        if size is None:
            found = self.ask(self.store.find(key))
            if found is None or not found.size:
                return None if found is None else b""
            size = found.size - start
        stream, data = self.ask(self.store.open(key, start, size)), b""
        while piece := self.ask(stream.read()):
            data += piece
        stream.close()
        return data

    def is_made(self, made: Made | None, size: int, token: str = "", key: str = "") -> None:
        """What the store said of an object of ours."""
        assert made is not None
        assert (made.key, made.size) == (key or self.key, size)
        assert (made.token, made.upload_id) == (token or self.properties.token, self.id)
        assert made_from(made.to_json()) == made

    def put_anothers(self) -> None:
        """An object of another upload under the key."""
        self.put(self.key, b"another's", ObjectProperties("x" * 16, "worker2-token9", {}))

    def another(self, token: str) -> ObjectProperties:
        """Of the same upload, with another token."""
        return ObjectProperties(self.id, token, self.properties.metadata)

    def over(self) -> Sequence[type[Exception]]:
        """How a call for a multipart that is over fails."""
        return (NotThere,) if self.tells_what_is_over else (RemoteError,)

    def need(self, ability: bool) -> None:
        """Skip the test where the store doesn't have it."""
        if not ability:
            raise unittest.SkipTest("the store doesn't have this")

    def test_it_provides_the_interface(self) -> None:
        """The driver has each method and attribute of IObjectStore, with its signature."""
        assert verifyObject(IObjectStore, self.store)
        assert not self.store.prefix or self.store.prefix.endswith("/")
        assert self.store.limits.smallest_part <= self.store.part_size <= self.store.limits.largest_part

    # put, find

    def test_an_object_is_put_and_found(self) -> None:
        """`put` answers size, token and id; `find` the same; the bytes read as they were."""
        made = self.put(self.key, b"hello", self.properties)
        self.is_made(made, 5)
        found = self.ask(self.store.find(self.key))
        self.is_made(found, 5)
        assert not (made.etag and found.etag) or made.etag == found.etag
        assert self.content(self.key) == b"hello"

    def test_an_object_of_no_bytes_is_put(self) -> None:
        """`put` of none makes an object of none."""
        self.is_made(self.put(self.key, b"", self.properties), 0)
        self.is_made(self.ask(self.store.find(self.key)), 0)

    def test_nothing_is_found_where_nothing_is(self) -> None:
        """`find` answers None."""
        assert self.ask(self.store.find(self.key)) is None

    def test_only_new_replaces_nothing(self) -> None:
        """`put` with ``only_new`` fails with Conflict, and the object there stays, whoever made it."""
        self.put(self.key, b"first", self.properties)
        again = self.store.put(self.key, BytesRegion(b"second"), self.another("worker1-token2"), True)
        self.refusal(again, Conflict)
        assert self.content(self.key) == b"first"
        self.is_made(self.ask(self.store.find(self.key)), 5)

    def test_without_only_new_an_object_is_replaced(self) -> None:
        """`put` replaces bytes and token."""
        self.put(self.key, b"first", self.properties)
        self.is_made(self.put(self.key, b"second", self.another("worker1-token2"), False), 6, "worker1-token2")
        assert self.content(self.key) == b"second"
        self.is_made(self.ask(self.store.find(self.key)), 6, "worker1-token2")

    def test_any_metadata_is_taken(self) -> None:
        """Metadata that no store would take as it is fails no object, and doesn't cost it its id and token."""
        for number, metadata in enumerate((ODD_METADATA, UNICODE, {"resumable-upload-id": b"x", "RESUMABLE-TOKEN": b"y",
                                           "resumable-token": b"z", "resumable_token": b"w"})):  # fmt: skip
            given, key = ObjectProperties(self.id, f"w-{number}", metadata), f"{self.key}-{number}"
            self.is_made(self.put(key, b"hello", given), 5, f"w-{number}", key)
            self.is_made(self.ask(self.store.find(key)), 5, f"w-{number}", key)
        handle = self.begin(ObjectProperties(self.id, "w-9", UNICODE))
        given = ObjectProperties(self.id, "w-10", UNICODE)
        self.is_made(self.complete(handle, [self.send(handle, 1, b"last")], given=given), 4, "w-9")

    def test_odd_ids_are_keys(self) -> None:
        """The longest id, and ids of dashes and underscores."""
        for upload_id in ("_" * 16, "a" + "-_" * 20, "Z" * 128):
            key = f"{self.store.prefix}.partials/{upload_id}"
            made = self.put(key, b"hello", ObjectProperties(upload_id, "t", {}))
            assert (made.key, made.upload_id) == (key, upload_id)
            assert self.ask(self.store.find(key)).upload_id == upload_id
            assert [each.key for each in self.ask(self.store.list(key, "", 10))] == [key]
            self.ask(self.store.remove([key]))
            assert self.ask(self.store.find(key)) is None

    def test_errors_of_reading_come_through(self) -> None:
        """If the data can't be read that is no failure of the store; nothing is made."""
        data = pattern(1000)
        self.refusal(self.store.put(self.key, WatchedRegion(data, 0), self.properties, True), SpoolBroke)
        handle = self.begin()
        part = self.store.write_part(self.key, handle, 1, self.name_of("w-1"), WatchedRegion(data, 0))
        self.refusal(part, SpoolBroke)
        assert self.ask(self.store.find(self.key)) is None

    # multiparts

    def test_an_object_is_made_of_its_parts(self) -> None:
        """Nothing is visible before `complete`, whose object has all bytes, and the token that `begin` was given."""
        data, size = pattern(2 * self.part + 50), self.part
        handle = self.begin()
        assert self.store.token_of(handle) == self.properties.token
        parts = [self.send(handle, at + 1, data[at * size : (at + 1) * size]) for at in (1, 0, 2)]
        assert self.ask(self.store.find(self.key)) is None
        parts.sort(key=lambda part: part.number)
        self.is_made(self.complete(handle, parts, given=self.another("worker2-token2")), len(data))
        self.is_made(self.ask(self.store.find(self.key)), len(data))
        assert self.content(self.key) == data

    def test_handles_and_tokens_differ(self) -> None:
        """Two multiparts of one key have two handles, and the tokens that they were given."""
        first, second = self.begin(), self.begin(self.another("worker2-token2"))
        assert first != second
        assert self.begin() != first
        tokens = [self.store.token_of(handle) for handle in (first, second)]
        assert tokens == [self.properties.token, "worker2-token2"]

    def test_numbers_may_jump_and_sizes_differ(self) -> None:
        """Parts that weren't chosen don't count; where parts may differ, they do."""
        self.need(self.numbers_jump)
        data, handle = pattern(2 * self.part + 50), self.begin()
        second = self.part if self.store.limits.equal else self.part + 17
        parts = [self.send(handle, 3, data[: self.part]), self.send(handle, 17, data[self.part : self.part + second])]
        self.send(handle, 5, b"nobody's" * 9)
        self.send(handle, 40, b"nobody's")
        parts.append(self.send(handle, 100, data[self.part + second :][:9]))
        self.is_made(self.complete(handle, parts), self.part + second + 9)
        assert self.content(self.key) == data[: self.part + second + 9]

    def test_one_part_may_be_small(self) -> None:
        """A multipart of one part, of one byte."""
        handle = self.begin()
        self.is_made(self.complete(handle, [self.send(handle, 7 if self.numbers_jump else 1, b"x")]), 1)
        assert self.content(self.key) == b"x"

    def test_a_part_may_be_written_twice(self) -> None:
        """The same bytes under the same number and name: the first receipt counts as the second does."""
        self.need(self.rewrites_parts)
        for which in (0, 1):
            handle = self.begin(self.another(f"w-{which}"))
            receipts = [self.send(handle, 1, b"twice") for _ in range(2)]
            self.is_made(self.complete(handle, [receipts[which]], only_new=False), 5, f"w-{which}")
        assert self.content(self.key) == b"twice"

    def test_a_part_with_other_bytes_is_not_taken_for_the_one_that_was_confirmed(self) -> None:
        """A receipt whose part was overwritten by another's bytes: Permanent, and nothing is made."""
        self.need(self.rewrites_parts and self.store.numbered)
        handle = self.begin()
        part = self.send(handle, 1, b"right")
        self.send(handle, 1, b"wrong", "worker2-late")
        self.refusal(self.store.complete(self.key, handle, self.properties, [part], True), Permanent)
        assert self.ask(self.store.find(self.key)) is None

    def test_completing_again_does_no_harm(self) -> None:
        """Answers the same, or that the multipart isn't known, or that there is an object: ours, by its token."""
        handle = self.begin()
        parts = [self.send(handle, 1, b"once")]
        made = self.complete(handle, parts)
        for only_new in (True, False):
            again = self.outcome(self.store.complete(self.key, handle, self.properties, parts, only_new))
            if isinstance(again, Failure):
                assert again.check(NotThere, Conflict) if only_new else again.check(NotThere)
            else:
                assert again is not None
                self.is_made(again, made.size)
            self.is_made(self.ask(self.store.find(self.key)), made.size)
            assert self.content(self.key) == b"once"

    def test_completing_replaces_only_where_that_is_asked_for(self) -> None:
        """``only_new`` over another's object: Conflict, and it stays; the multipart is still there, and replaces it."""
        self.need(self.complete_checks)
        self.put_anothers()
        handle = self.begin()
        parts = [self.send(handle, 1, b"ours")]
        self.refusal(self.store.complete(self.key, handle, self.properties, parts, True), Conflict)
        assert self.content(self.key) == b"another's"
        self.is_made(self.complete(handle, parts, only_new=False), 4)
        assert self.content(self.key) == b"ours"

    def test_completing_may_replace(self) -> None:
        """Without ``only_new`` another's object is replaced."""
        self.put_anothers()
        handle = self.begin()
        self.is_made(self.complete(handle, [self.send(handle, 1, b"ours")], only_new=False), 4)
        assert self.content(self.key) == b"ours"

    def test_what_is_complete_is_known_no_more(self) -> None:
        """A late part of it: NotThere, and the object stays; abandoning it does nothing."""
        handle = self.begin()
        part = self.send(handle, 1, b"all")
        self.complete(handle, [part])
        late = self.outcome(self.store.write_part(self.key, handle, 2, self.name_of("w-late"), BytesRegion(b"late")))
        assert isinstance(late, Failure) or not self.has_multiparts
        assert not isinstance(late, Failure) or late.check(*self.over())
        self.ask(self.store.abandon(self.key, handle, [self.name_of("w-late")]))
        assert self.content(self.key) == b"all"

    def test_what_is_abandoned_is_gone(self) -> None:
        """Its parts aren't taken any more: NotThere; abandoning it again is fine."""
        handle = self.begin()
        part = self.send(handle, 1, b"all")
        for _ in range(2):
            self.ask(self.store.abandon(self.key, handle, [part.name]))
        if self.has_multiparts:
            self.refusal(self.store.complete(self.key, handle, self.properties, [part], True), *self.over())
            written = self.store.write_part(self.key, handle, 2, self.name_of("w-2"), BytesRegion(b"late"))
            self.refusal(written, *self.over())
        if self.store.part_objects:
            assert self.ask(self.store.find(part.name)) is None
        assert self.ask(self.store.find(self.key)) is None

    def test_a_multipart_that_never_was_is_not_there(self) -> None:
        """One that was abandoned is as one that was never begun, also for a second multipart of the same key."""
        self.need(self.has_multiparts)
        gone, other = self.begin(), self.begin(self.another("w-2"))
        self.ask(self.store.abandon(self.key, gone, []))
        self.refusal(self.store.write_part(self.key, gone, 1, "w-1", BytesRegion(b"x")), *self.over())
        self.is_made(self.complete(other, [self.send(other, 1, b"x")]), 1, "w-2")

    def test_a_part_is_copied_inside_the_store(self) -> None:
        """`copy_part` takes any bytes of any object; beside parts that were written."""
        self.need(self.copies_parts and self.store.copies_ranges)
        data, source = (
            pattern(2 * self.part + 50)[: self.part + 50],
            f"{self.store.prefix}.tails/{self.id}/w-a b+ü&?%.x",
        )
        self.ask(self.store.write(source, BytesRegion(data)))
        handle, names = self.begin(), [self.name_of("w-1"), self.name_of("w-2")]
        receipts = [
            self.ask(self.store.copy_part(self.key, handle, 1, names[0], source, 3, self.part)),
            self.ask(self.store.copy_part(self.key, handle, 2, names[1], source, self.part + 5, 45)),
        ]
        sizes = (self.part, 45)
        parts = [SentPart(at + 1, names[at], sizes[at], receipts[at]) for at in range(2)]
        self.is_made(self.complete(handle, parts), self.part + 45)
        assert self.content(self.key) == data[3 : 3 + self.part] + data[self.part + 5 :]

    def test_a_whole_object_is_copied_inside_the_store(self) -> None:
        """`copy_part` takes all bytes of any object; without `copies_ranges` it refuses some of them: CannotCopy."""
        self.need(self.copies_parts)
        data, source = pattern(self.part + 50), f"{self.store.prefix}.tails/{self.id}/w-a"
        self.ask(self.store.write(source, BytesRegion(data)))
        handle, name = self.begin(), self.name_of("w-1")
        if not self.store.copies_ranges:
            for start, size in ((0, self.part), (50, self.part)):
                self.refusal(self.store.copy_part(self.key, handle, 1, name, source, start, size), CannotCopy)
        receipt = self.ask(self.store.copy_part(self.key, handle, 1, name, source, 0, len(data)))
        self.is_made(self.complete(handle, [SentPart(1, name, len(data), receipt)]), len(data))
        assert self.content(self.key) == data

    def test_nothing_is_copied_from_nothing(self) -> None:
        """NotThere where the source isn't there, or the multipart isn't."""
        self.need(self.copies_parts)
        handle, source = self.begin(), f"{self.store.prefix}.tails/{self.id}/w-none"
        self.refusal(self.store.copy_part(self.key, handle, 1, self.name_of("w-1"), source, 0, 9), NotThere)
        if self.has_multiparts:
            self.ask(self.store.write(source, BytesRegion(b"123456789")))
            self.ask(self.store.abandon(self.key, handle, []))
            copied = self.store.copy_part(self.key, handle, 1, self.name_of("w-1"), source, 0, 9)
            self.refusal(copied, *self.over())

    # objects of pieces

    def test_any_bytes_of_an_object_are_read(self) -> None:
        """`open` answers a range; the objects of pieces carry no token."""
        name, data = f"{self.store.prefix}.tails/{self.id}/w-1", pattern(3000)
        self.ask(self.store.write(name, BytesRegion(data)))
        for start, end in ((0, 3000), (0, 1), (2999, 3000), (10, 2000)):
            assert self.content(name, start, end - start) == data[start:end]
        found = self.ask(self.store.find(name))
        assert (found.size, found.token, found.upload_id) == (3000, "", "")

    def test_bytes_that_are_not_there_cannot_be_opened(self) -> None:
        """No object, or fewer bytes than were asked for: NotThere."""
        name = f"{self.store.prefix}.tails/{self.id}/w-1"
        self.refusal(self.store.open(name, 0, 5), NotThere)
        self.ask(self.store.write(name, BytesRegion(b"12345")))
        self.refusal(self.store.open(name, 5, 1), NotThere)
        self.refusal(self.store.open(name, 2, 9), NotThere)

    def test_failures_are_of_the_remotes_tree(self) -> None:
        """NotThere and Conflict are RemoteErrors, with a reason of one line."""
        error = self.refusal(self.store.open(f"{self.key}-none", 0, 5), RemoteError)
        assert error.reason
        assert "\n" not in error.reason

    def test_many_objects_are_removed(self) -> None:
        """`remove` of some that are there and some that aren't; of none; again; nothing else goes."""
        names = [f"{self.store.prefix}.tails/{self.id}/w-{number} &<ü" for number in range(7)]
        for name in names[:5]:
            self.ask(self.store.write(name, BytesRegion(b"piece")))
        for _ in range(2):
            self.ask(self.store.remove(names[1:]))
        self.ask(self.store.remove([]))
        assert [self.content(name) for name in names[:3]] == [b"piece", None, None]
        assert [each.key for each in self.ask(self.store.list(f"{self.store.prefix}.tails/", "", 10))] == names[:1]

    # lists

    def test_objects_are_listed_in_pages(self) -> None:
        """By key, those of the prefix, behind the key ``after``, with size and time; no multiparts among them."""
        names = [f"{self.store.prefix}.tails/{self.id}/w-{number} ü+" for number in range(5)]
        for name in names:
            self.ask(self.store.write(name, BytesRegion(b"piece")))
        self.put(self.key, b"hello", self.properties)
        found: list[Any] = []
        while page := self.ask(self.store.list(f"{self.store.prefix}.tails/", found[-1].key if found else "", 2)):
            assert len(page) <= 2
            found += page
        assert [(each.key, each.size) for each in found] == [(name, 5) for name in names]
        assert all(isinstance(each.changed_at, float) for each in found)
        assert self.ask(self.store.list(f"{self.store.prefix}none/", "", 2)) == []
        assert self.key in [each.key for each in self.ask(self.store.list(self.store.prefix, "", 1000))]

    def test_what_is_unfinished_is_listed_in_pages(self) -> None:
        """Each once, with the store's own handle, until it is complete or dropped."""
        self.need(self.has_multiparts)
        handles = []
        for number in range(3):
            self.key = f"{self.store.prefix}{self.id}{number}"
            handles.append(self.begin())
            part = self.send(handles[-1], 1, b"part")
        found: list[Unfinished] = []
        while page := self.ask(self.store.list_unfinished(2, found[-1] if found else None)):
            assert len(page) <= 2
            found += page
        assert [each.key for each in found] == [f"{self.store.prefix}{self.id}{number}" for number in range(3)]
        works = [[self.store.works_with(handle, each) for each in found] for handle in handles]
        assert works == [[True, False, False], [False, True, False], [False, False, True]]
        self.complete(handles[-1], [part])
        for each in found * 2:
            self.ask(self.store.drop(each))
        assert self.ask(self.store.list_unfinished(10, None)) == []
        assert self.content(self.key) == b"part"

    # the rest

    def test_a_stranger_reads_by_a_signed_url(self) -> None:
        """With the fields that were asked for, with and without Range; None where the store can't."""
        self.put(self.key, b"hello", self.properties)
        url = self.ask(self.store.signed_url(self.key, PRESENTED))
        self.need(url is not None)
        status, headers, body = self.fetch(url, {})
        assert (status, headers["content-type"], body) == (200, "text/plain", b"hello")
        assert headers["content-disposition"] == PRESENTED.disposition
        status, _, body = self.fetch(url, {"Range": "bytes=1-2"})
        assert (status, body) == (206, b"el")

    def test_a_probe_leaves_nothing(self) -> None:
        """`probe` of a store that works answers None."""
        assert self.ask(self.store.probe()) is None
        assert self.ask(self.store.list(self.store.prefix, "", 10)) == []
        assert self.ask(self.store.list_unfinished(10, None)) == []

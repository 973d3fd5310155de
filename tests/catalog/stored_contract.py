"""What IStored promises, and ICatalog of a StoreChange, as a suite for any catalog of bytes in an object store.

Mixins for trial's SynchronousTestCase: see contract.py. `wait` lets time pass by the catalog's clock, `remove` says
that an upload's data is no longer there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from zope.interface.verify import verifyObject

from resumable.model.segments import REMOVED_AFTER
from resumable.model.stored import RESERVED, IStored, StoredLayout
from resumable.model.upload import Commit, GoneReason, Piece, StoreChange, StoredPart, Upload
from tests.catalog.contract import CatalogSuite, done, name, partial, upload

MADE = {"key": "some/key", "size": 1000, "etag": '"na\u00efve"'}


def part(start: int, end: int, number: int = 1, writer: str = "w") -> StoredPart:
    return StoredPart(start, end - start, number, f"part-{start}-{writer}", f'"{start}"')


def in_object(start: int, end: int, writer: str = "w") -> Piece:
    return Piece(start, end - start, f".tails/x/{start}-{writer}")


def in_row(start: int, end: int, writer: str = "w") -> Piece:
    return Piece(
        start, end - start, f"piece-{start}-{writer}", bytes(range(start % 200, start % 200 + 1)) * (end - start)
    )


def kept(*pieces: Piece) -> tuple[Piece, ...]:
    """As layouts have them."""
    return tuple(evolve(piece, data=None) for piece in pieces)


class StoredContract(CatalogSuite):
    """One test for each promise of IStored's docstrings, and of ICatalog's about an object store."""

    def wait(self, seconds: float) -> None:
        """Let so many seconds pass by the catalog's clock."""
        raise NotImplementedError

    def remove(self, number: int) -> None:
        """The upload's data is removed."""
        raise NotImplementedError

    def layout(self, number: int = 1) -> StoredLayout:
        found: StoredLayout | None = self.ask(self.catalog.stored.of(name(number)))
        assert found is not None
        return found

    def start(self, record: Upload, change: StoreChange | None = None) -> None:
        assert self.ask(self.catalog.create(record, (), segment=change)) is True

    def append(self, change: StoreChange | None, end: int, number: int = 1, **values: Any) -> Any:
        row = self.get(number)
        commit = Commit(name(number), row.epoch, row.offset, end, 150.0, segment=change, **values)
        return self.ask(self.catalog.commit(commit))

    def names(self) -> Sequence[str]:
        found: Sequence[str] = self.ask(self.catalog.stored.discarded(100))
        return sorted(found)

    def tail(self) -> None:
        """A finished upload of a part and two pieces."""
        self.start(upload(1))
        assert self.append(StoreChange(1, [part(0, 400)], in_object(400, 600), "m"), 600) is True
        assert self.append(StoreChange(1, (), in_row(600, 1000)), 1000, finished=True) is True

    def test_it_provides_the_interface(self) -> None:
        assert verifyObject(IStored, self.catalog.stored)

    # Recorded by create, begin and commit

    def test_what_an_upload_is_created_with_is_recorded(self) -> None:
        change = StoreChange(3, [part(0, 5), part(5, 7, 3)], in_row(7, 9), "handle")
        self.start(partial(1, offset=9), change)
        found = self.layout()
        expected = (change.parts, kept(in_row(7, 9)), "handle", 3, True, False)
        assert expected == (
            *(list(found.parts), found.pieces, found.multipart, found.reserved, found.is_partial, found.whole),
        )
        assert (found.offset, found.length, found.epoch, found.finished, found.gone) == (9, 1000, 0, False, False)
        self.start(done(upload(2)), StoreChange(made=MADE))
        assert self.layout(2) == StoredLayout(name(2), 1000, 1000, 0, finished=True, whole=True, made=MADE)
        assert self.ask(self.catalog.create(upload(1, offset=2), (), segment=StoreChange(piece=in_row(0, 2)))) is False
        assert self.layout() == found

    def test_parts_replace_the_pieces_that_start_before_their_end(self) -> None:
        self.start(upload(1))
        assert self.ask(self.catalog.begin(name(1), 0, 0, "boot", 0, 150.0)) is True
        assert self.layout().reserved == 0
        for piece in (in_object(0, 100), in_row(100, 200), in_object(200, 300)):
            assert self.append(StoreChange(RESERVED, (), piece), piece.start + piece.size) is True
        assert self.layout().pieces == kept(in_object(0, 100), in_row(100, 200), in_object(200, 300))
        assert self.append(StoreChange(1, [part(0, 200)], in_row(300, 310), "m"), 310) is True
        found = self.layout()
        assert (found.parts, found.pieces) == ((part(0, 200),), kept(in_object(200, 300), in_row(300, 310)))
        assert (found.reserved, found.multipart, found.epoch, found.parts_end) == (1, "m", 1, 200)
        # An end within a piece: the rest of it comes again.
        assert self.append(StoreChange(2, [part(200, 305, 2)], in_row(305, 320), "m"), 320) is True
        found = self.layout()
        assert (found.parts, found.pieces) == ((part(0, 200), part(200, 305, 2)), kept(in_row(305, 320)))
        # Without more bytes.
        assert self.append(StoreChange(3, [part(305, 320, 3)]), 320) is True
        assert (self.layout().parts_end, self.layout().pieces) == (320, ())
        assert self.names() == []
        self.wait(REMOVED_AFTER)
        assert self.names() == [".tails/x/0-w", ".tails/x/200-w"]

    def test_a_commit_that_would_leave_a_gap_lands_nowhere(self) -> None:
        self.start(upload(1))
        self.append(StoreChange(1, [part(0, 100)], in_object(100, 150), "m"), 150)
        before = self.get(1), self.layout()
        wrong = [
            StoreChange(2, [part(0, 200, 2, "v")]),
            StoreChange(2, [part(150, 200, 2)]),
            StoreChange(2, [part(120, 200, 2)]),
            StoreChange(2, [part(100, 120, 2)], in_object(150, 200)),
            StoreChange(2, [part(100, 200, 2)], multipart="another"),
        ]
        for change in wrong:
            assert self.append(change, 200) is False, change
        other = Commit(name(1), 4, 150, 200, 150.0, segment=StoreChange(piece=in_row(150, 200)))
        assert self.ask(self.catalog.commit(other)) is False
        assert (self.get(1), self.layout()) == before
        assert self.append(None, 150) is True
        assert self.layout() == before[1], "it said nothing of the store"

    def test_what_no_change_can_say_is_a_mistake(self) -> None:
        self.start(upload(1))
        wrong = [
            (StoreChange(piece=in_row(0, 9)), {}),
            (StoreChange(piece=in_row(2, 10)), {}),
            (StoreChange(piece=evolve(in_row(0, 10), data=b"short")), {}),
            (StoreChange(piece=evolve(in_row(0, 10), data=None)), {}),
            (StoreChange(piece=evolve(in_object(0, 10), data=bytes(10))), {}),
            (StoreChange(1, [part(0, 4), part(5, 10, 2)]), {}),
            (StoreChange(1, [part(0, 11)]), {}),
            (StoreChange(made=MADE), {}),
            (StoreChange(piece=in_row(0, 10), made=MADE), {"finished": True, "length": 10}),
        ]
        for change, values in wrong:
            commit = Commit(name(1), 0, 0, 10, 150.0, segment=change, **values)
            self.refusal(self.catalog.commit(commit), ValueError)
        assert self.get(1).offset == 0
        self.append(StoreChange(piece=in_row(0, 10)), 10)
        self.start(upload(2))
        same = Commit(name(2), 0, 0, 10, 150.0, segment=StoreChange(piece=in_row(0, 10)))
        self.refusal(self.catalog.commit(same), ValueError)
        assert (self.get(2).offset, self.layout(2).pieces) == (0, ())

    def test_an_object_of_all_bytes_takes_the_place_of_parts_and_pieces(self) -> None:
        self.start(upload(1))
        self.append(StoreChange(1, [evolve(part(0, 100), name=".tails/x/p")], in_object(100, 150), "m"), 150)
        assert self.append(StoreChange(5, made=MADE), 1000, finished=True) is True
        found = self.layout()
        assert (found.whole, found.made, found.parts, found.pieces, found.reserved) == (True, MADE, (), (), 5)
        self.wait(REMOVED_AFTER)
        assert self.names() == [".tails/x/100-w", ".tails/x/p"]
        assert self.ask(self.catalog.stored.completable("", 10)) == []

    # of, tail_of, of_many, tails_of, data_of

    def test_layouts_are_of_those_that_have_data(self) -> None:
        self.tail()
        self.start(upload(2))
        assert self.ask(self.catalog.stored.of_many([name(1), name(2), name(3)])) == {
            name(1): self.layout(1),
            name(2): StoredLayout(name(2), 0, 1000, 0),
        }
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        assert self.layout().gone and self.layout().parts
        self.remove(1)
        assert self.ask(self.catalog.stored.of(name(1))) is None
        assert self.ask(self.catalog.stored.of_many([name(1), name(3)])) == {}
        asked = [part(0, 400).name, in_object(400, 600).name]
        assert self.ask(self.catalog.stored.unknown(asked)) == asked

    def test_tails_have_the_first_part_and_the_last(self) -> None:
        parts = [part(100 * each, 100 * each + 100, each + 1) for each in range(4)]
        for number in range(1, 5):
            self.start(upload(number))
            self.append(
                StoreChange(number, parts[:number], in_object(100 * number, 500, str(number)), "m"), 500, number
            )
            ends = (parts[0], parts[number - 1]) if number > 1 else (parts[0],)
            expected = evolve(self.layout(number), parts=ends)
            assert self.ask(self.catalog.stored.tail_of(name(number))) == expected
            parts = [evolve(each, name=f"{each.name}-{number}") for each in parts]
        self.start(upload(5))
        self.start(done(upload(6)), StoreChange(made=MADE))
        stored, ids = self.catalog.stored, [name(number) for number in range(1, 8)]
        tails = self.ask(stored.tails_of(ids))
        assert tails == {each: self.ask(stored.tail_of(each)) for each in ids[:-1]} and tails[name(6)].made == MADE
        assert self.ask(stored.tail_of(name(7))) is None and self.ask(stored.tails_of([])) == {}
        self.ask(self.catalog.end(name(4), GoneReason.TERMINATED, 200.0, ()))
        assert self.ask(stored.tails_of(ids))[name(4)].gone
        self.remove(4)
        assert name(4) not in self.ask(stored.tails_of(ids)) and self.ask(stored.tail_of(name(4))) is None

    def test_data_is_of_pieces_in_rows(self) -> None:
        self.start(upload(1))
        piece = Piece(0, 256 * 1024, "all", bytes(range(256)) * 1024)
        self.start(upload(2, length=None, offset=piece.size), StoreChange(piece=piece))
        self.append(StoreChange(piece=in_object(0, 5)), 5)
        self.append(StoreChange(piece=in_row(5, 9)), 9)
        asked = ["all", in_object(0, 5).name, in_row(5, 9).name]
        assert self.ask(self.catalog.stored.data_of(name(1), asked)) == {in_row(5, 9).name: in_row(5, 9).data}
        assert self.ask(self.catalog.stored.data_of(name(2), asked)) == {"all": piece.data}
        assert self.ask(self.catalog.stored.data_of(name(3), asked)) == {}

    # keep_multipart, reserve

    def test_one_multipart_is_kept_and_numbers_move_ahead(self) -> None:
        self.tail()
        self.start(upload(2))
        stored = self.catalog.stored
        for number, epoch, multipart, landed in ((1, 0, "n", False), (2, 1, "n", False), (2, 0, "n", True)):
            assert self.ask(stored.keep_multipart(name(number), epoch, multipart)) is landed
        assert (self.layout(1).multipart, self.layout(2).multipart) == ("m", "n")
        for number, epoch, reserved, landed in ((1, 0, 2, True), (1, 0, 2, False), (1, 1, 3, False), (9, 0, 3, False)):
            assert self.ask(stored.reserve(name(number), epoch, reserved)) is landed
        assert self.layout(1).reserved == 2
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        self.start(done(upload(3)), StoreChange(made=MADE))
        for number in (1, 3):
            epoch = self.get(number).epoch
            assert self.ask(stored.reserve(name(number), epoch, 9)) is False
            assert self.ask(stored.unreserve(name(number), epoch, 0)) is False
            assert self.ask(stored.keep_multipart(name(number), epoch, "o")) is False

    def test_numbers_that_were_not_used_are_free_again_unless_the_upload_is_finished(self) -> None:
        self.tail()
        self.start(upload(2))
        stored = self.catalog.stored
        assert self.ask(stored.reserve(name(2), 0, 9)) is True
        for epoch, reserved, landed in ((1, 3, False), (0, 9, False), (0, 10, False), (0, 3, True), (0, 3, False)):
            assert self.ask(stored.unreserve(name(2), epoch, reserved)) is landed
        assert self.layout(2).reserved == 3
        assert self.ask(self.catalog.begin(name(2), 0, 0, "boot", 0, 150.0)) is True
        assert self.ask(stored.unreserve(name(2), 0, 1)) is False
        assert self.ask(stored.reserve(name(1), 0, 5)) is True
        assert self.ask(stored.unreserve(name(1), 0, 2)) is False
        assert (self.layout(1).reserved, self.layout(2).reserved) == (5, 3)

    # completable, add_last, completed

    def test_a_finished_upload_gets_its_last_part_and_becomes_whole(self) -> None:
        self.tail()
        self.start(upload(2))
        self.start(done(upload(3, length=0)))
        stored = self.catalog.stored
        first, second = sorted([name(1), name(3)])
        assert self.ask(stored.completable("", 10)) == [first, second]
        assert self.ask(stored.completable("", 1)) == [first]
        assert self.ask(stored.completable(first, 10)) == [second]
        last = StoreChange(2, [part(400, 1000, 2)])
        assert self.ask(stored.reserve(name(1), 0, 3)) is True
        wrong = (StoreChange(2, [part(600, 1000, 2)]), StoreChange(2, [part(400, 500)]))
        for epoch, change in ((1, last), *((0, each) for each in wrong)):
            assert self.ask(stored.add_last(name(1), epoch, change)) is False
        assert self.ask(stored.add_last(name(1), 0, last)) is True
        found = self.layout(1)
        assert (found.parts, found.pieces, found.reserved) == ((part(0, 400), part(400, 1000, 2)), (), 3)
        again = StoreChange(3, [part(400, 1000, 3, "other")])
        for number in (1, 2):
            assert self.ask(stored.add_last(name(number), 0, again)) is False
        assert self.ask(stored.completed(name(1), MADE, 300.0)) is True
        found = self.layout(1)
        assert (found.whole, found.made, found.parts, found.multipart) == (True, MADE, (), "m")
        for number in (1, 2, 9):
            assert self.ask(stored.completed(name(number), MADE, 300.0)) is False
        assert self.ask(stored.add_last(name(1), 0, again)) is False
        self.refusal(stored.add_last(name(3), 0, StoreChange(made=MADE)), ValueError)

    def test_what_is_gone_becomes_nothing_more(self) -> None:
        self.tail()
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        epoch, before = self.get(1).epoch, self.layout()
        assert self.ask(self.catalog.stored.completed(name(1), MADE, 300.0)) is False
        assert self.ask(self.catalog.stored.add_last(name(1), epoch, StoreChange(2, [part(400, 1000, 2)]))) is False
        assert self.ask(self.catalog.stored.completable("", 10)) == []
        assert self.layout() == before

    # discarded, discard, removed, unknown

    def test_a_discarded_name_that_a_row_has_stays(self) -> None:
        self.start(upload(1))
        stored = self.catalog.stored
        piece = in_object(0, 10)
        self.ask(stored.discard([piece.name, ".tails/y", "a label", ".tails/y"]))
        assert self.ask(stored.unknown([".tails/z", ".tails/y", piece.name])) == [".tails/z"]
        assert self.append(StoreChange(piece=piece), 10) is True
        self.wait(REMOVED_AFTER)
        assert self.names() == [".tails/y"]
        assert self.append(StoreChange(1, [part(0, 20)], None, "m"), 20) is True
        assert self.names() == [".tails/y"], "its row was there a moment ago"
        self.wait(REMOVED_AFTER)
        assert self.names() == [piece.name, ".tails/y"]
        self.ask(stored.removed([piece.name]))
        assert self.names() == [".tails/y"]
        assert self.ask(stored.unknown([piece.name, part(0, 20).name])) == [piece.name]

"""What ISegments promises, and ICatalog of segments, as a suite for any catalog of several processes.

Mixins for trial's SynchronousTestCase: see contract.py. `wait` lets time pass by the catalog's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from attrs import evolve
from zope.interface.verify import verifyObject

from resumable.catalog.postgres import segment_table
from resumable.model.segments import MOST_SEGMENTS, REMOVED_AFTER, ISegments, Layout
from resumable.model.upload import WHOLE, Commit, Fact, FactKind, GoneReason, Place, Segment, Upload
from tests.catalog.contract import CatalogSuite, done, name, partial, upload


def stretch(start: int, end: int, known: int = 0, writer: str = "w") -> Segment:
    """A segment from ``start`` to ``end``, under a name that tells where it starts."""
    return Segment(start, end - start, f"0a/x.{start}-{writer}", known)


def kept(*segments: Segment) -> tuple[Segment, ...]:
    """As the catalog has them."""
    return tuple(evolve(segment, known=segment.size) for segment in segments)


class SegmentSuite(CatalogSuite):
    """A catalog with segments."""

    def wait(self, seconds: float) -> None:
        """Let so many seconds pass by the catalog's clock."""
        raise NotImplementedError

    def layout(self, number: int) -> Layout | None:
        found: Layout | None = self.ask(self.catalog.segments.of(name(number)))
        return found

    def segments(self, number: int) -> tuple[Segment, ...]:
        found = self.layout(number)
        assert found is not None and not found.whole
        return tuple(found.segments)

    def start(self, record: Upload, segment: Segment | None) -> None:
        assert self.ask(self.catalog.create(record, (), segment=segment)) is True

    def append(self, number: int, segment: Segment | None, *, finished: bool = False, **values: Any) -> Any:
        """A commit of the bytes of the segment that aren't known yet."""
        row = self.get(number)
        start = row.offset if segment is None else segment.start + segment.known
        end = row.offset if segment is None else segment.start + segment.size
        change = Commit(name(number), row.epoch, start, end, 150.0, finished=finished, segment=segment, **values)
        return self.ask(self.catalog.commit(change))

    def pieces(self, number: int, *ends: int, **values: Any) -> list[Segment]:
        """A new upload of segments that end there."""
        found = [stretch(start, end) for start, end in zip((0, *ends), ends, strict=False)]
        self.start(upload(number, **values), None)
        for segment in found:
            assert self.append(number, segment) is True
        return found

    def names(self, limit: int = 100) -> Sequence[str]:
        found: Sequence[str] = self.ask(self.catalog.segments.discarded(limit))
        return found


class SegmentContract(SegmentSuite):
    """One test for each promise of ISegments' docstrings, and of ICatalog's about segments."""

    def test_it_provides_the_interface(self) -> None:
        assert verifyObject(ISegments, self.catalog.segments)

    # Recorded by create and commit

    def test_a_segment_is_recorded_with_the_upload_that_it_creates(self) -> None:
        self.start(upload(1, offset=7), stretch(0, 7))
        self.start(done(upload(2)), evolve(stretch(0, 1000), name="0b/y.0-w"))
        assert self.layout(1) == Layout(name(1), 7, False, kept(stretch(0, 7)))
        assert self.segments(2) == kept(evolve(stretch(0, 1000), name="0b/y.0-w"))

    def test_an_id_that_is_taken_gets_no_segment(self) -> None:
        self.start(upload(1), None)
        assert self.ask(self.catalog.create(upload(1, offset=7), (), segment=stretch(0, 7))) is False
        assert self.segments(1) == ()

    def test_a_commit_records_a_new_segment_or_what_more_a_known_one_has(self) -> None:
        self.start(upload(1), None)
        assert self.append(1, stretch(0, 10)) is True
        assert self.append(1, stretch(0, 25, known=10)) is True
        assert self.append(1, stretch(25, 30)) is True
        assert self.layout(1) == Layout(name(1), 30, False, kept(stretch(0, 25), stretch(25, 30)))

    def test_a_commit_of_no_bytes_has_no_segment(self) -> None:
        self.pieces(1, 1000)
        assert self.append(1, None, finished=True) is True
        assert self.get(1).finished
        assert self.segments(1) == kept(stretch(0, 1000))

    def test_a_commit_lands_only_if_the_catalog_has_just_the_known_bytes(self) -> None:
        self.pieces(1, 10)
        before = self.get(1)
        wrong = [
            stretch(0, 20, known=10, writer="other"),
            evolve(stretch(5, 20), known=5, name="0a/x.0-w"),
            evolve(stretch(9, 20), known=1),
        ]
        for segment in wrong:
            assert self.append(1, segment) is False
        assert self.get(1) == before
        assert self.segments(1) == kept(stretch(0, 10))

    def test_a_new_segment_is_not_where_one_is_or_called_as_another(self) -> None:
        self.pieces(1, 10)
        self.start(upload(2), None)
        assert self.append(2, stretch(0, 5)) is False, "the first has that name"
        assert (self.get(2).offset, self.segments(2)) == (0, ())

    def test_a_segment_that_is_not_as_it_was_fails_alone_and_with_all_of_its_change(self) -> None:
        self.catalog = self.make_catalog(["hook"])
        self.pieces(1, 10)
        fact = Fact(FactKind.FINISHED, name(1), 150.0)
        other = Fact(FactKind.FINISHED, name(2), 150.0)
        self.start(upload(2), None)
        wrong = stretch(0, 1000, known=10, writer="other")
        answers = [
            self.catalog.commit(Commit(name(1), 0, 10, 1000, 150.0, finished=True, facts=[fact], segment=wrong)),
            self.catalog.commit(Commit(name(2), 0, 0, 1000, 150.0, finished=True, facts=[other])),
            self.catalog.create(upload(3), ()),
        ]
        assert [self.ask(answer) for answer in answers] == [False, True, True]
        assert self.get(1) == upload(1, offset=10, adoptable=10, touched_at=150.0)
        assert self.told("hook") == [other]

    def test_a_commit_that_does_not_land_records_no_segment(self) -> None:
        self.pieces(1, 10)
        assert self.ask(self.catalog.commit(Commit(name(1), 4, 10, 20, 150.0, segment=stretch(10, 20)))) is False
        assert self.segments(1) == kept(stretch(0, 10))

    def test_a_segment_of_other_bytes_than_its_commit_is_a_mistake(self) -> None:
        self.pieces(1, 10)
        for segment in (stretch(10, 19), stretch(11, 20), stretch(0, 20), evolve(stretch(0, 20), name=WHOLE)):
            self.refusal(self.catalog.commit(Commit(name(1), 0, 10, 20, 150.0, segment=segment)), ValueError)
        self.refusal(self.catalog.create(upload(2, offset=7), (), segment=stretch(0, 6)), ValueError)
        assert self.get(1).offset == 10

    def test_what_is_whole_from_the_start_has_no_segments(self) -> None:
        self.start(done(upload(1)), Segment(0, 1000, WHOLE))
        self.start(upload(2), None)
        assert self.append(2, Segment(0, 1000, WHOLE), finished=True) is True
        self.start(done(upload(3, length=0)), Segment(0, 0, WHOLE))
        for number, offset in ((1, 1000), (2, 1000), (3, 0)):
            assert self.layout(number) == Layout(name(number), offset, True)
        assert self.ids_of(self.catalog.segments.joinable("", 10)) == []

    # of, of_many

    def test_nothing_is_where_no_data_is(self) -> None:
        assert self.layout(1) is None
        self.pieces(1, 10)
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        assert self.segments(1) == kept(stretch(0, 10)), "its files are still there"
        self.ask(self.catalog.removed([name(1)]))
        assert self.layout(1) is None
        assert self.ask(self.catalog.segments.unknown([stretch(0, 10).name])) == [stretch(0, 10).name]

    def test_many_are_asked_for_at_once(self) -> None:
        self.pieces(1, 10)
        self.start(done(upload(2)), Segment(0, 1000, WHOLE))
        self.start(upload(3), None)
        found = self.ask(self.catalog.segments.of_many([name(3), name(9), name(1), name(2)]))
        assert found == {
            name(1): Layout(name(1), 10, False, kept(stretch(0, 10))),
            name(2): Layout(name(2), 1000, True),
            name(3): Layout(name(3), 0),
        }
        assert self.ask(self.catalog.segments.of_many([])) == {}

    # joinable, made_whole

    def ids_of(self, answer: Any) -> list[str]:
        return [layout.upload_id for layout in self.ask(answer)]

    def finished(self, number: int) -> None:
        self.start(done(upload(number)), evolve(stretch(0, 1000), name=f"0a/{number}"))

    def test_what_is_finished_and_not_whole_is_joinable(self) -> None:
        for number in range(1, 5):
            self.finished(number)
        self.start(upload(5), None)
        self.start(done(upload(6, length=0)), None)
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        self.ask(self.catalog.segments.made_whole(name(2)))
        first, *others = sorted([name(3), name(4), name(6)])
        assert self.ids_of(self.catalog.segments.joinable("", 10)) == [first, *others]
        assert self.ids_of(self.catalog.segments.joinable("", 1)) == [first]
        assert self.ids_of(self.catalog.segments.joinable(first, 10)) == others
        layouts = {layout.upload_id: layout for layout in self.ask(self.catalog.segments.joinable("", 10))}
        assert layouts[name(3)] == self.layout(3)

    def test_what_is_made_whole_discards_its_segments(self) -> None:
        self.pieces(1, 10, 1000)
        self.append(1, None, finished=True)
        assert self.ask(self.catalog.segments.made_whole(name(1))) is True
        assert self.layout(1) == Layout(name(1), 1000, True)
        assert self.ask(self.catalog.segments.made_whole(name(1))) is False
        self.wait(REMOVED_AFTER)
        assert sorted(self.names()) == [stretch(0, 10).name, stretch(10, 1000).name]

    def test_what_is_gone_or_unfinished_is_not_made_whole(self) -> None:
        self.finished(1)
        self.pieces(2, 10)
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        for number in (1, 2, 3):
            assert self.ask(self.catalog.segments.made_whole(name(number))) is False
        assert len(self.segments(1)) == len(self.segments(2)) == 1
        self.wait(REMOVED_AFTER)
        assert self.names() == []

    def test_only_what_is_whole_goes_to_its_place(self) -> None:
        self.start(evolve(done(upload(1)), place=Place("a/1")), stretch(0, 1000))
        assert self.ids(self.catalog.unplaced("", 10)) == []
        assert self.ask(self.catalog.placed(name(1), Place("a/1", "5"), 300.0)) is False
        self.ask(self.catalog.segments.made_whole(name(1)))
        assert self.ids(self.catalog.unplaced("", 10)) == [name(1)]
        assert self.ask(self.catalog.placed(name(1), Place("a/1", "5"), 300.0)) is True

    # kept

    def test_what_has_bytes_is_kept_page_by_page_of_all_uploads(self) -> None:
        self.pieces(1, 10, 1000)
        self.start(done(upload(2)), Segment(0, 1000, WHOLE))
        self.start(upload(3), None)
        for number in (4, 5, 6):
            self.finished(number)
        self.ask(self.catalog.end(name(4), GoneReason.TERMINATED, 200.0, ()))
        self.ask(self.catalog.end(name(5), GoneReason.LOST, 200.0, ()))
        found: list[Layout] = []
        after, pages = "", 0
        while after is not None:
            layouts, after = self.ask(self.catalog.segments.kept(after, 2))
            assert len(layouts) <= 2
            found += layouts
            pages += 1
        assert pages == 4, "six uploads, and one look that finds no more"
        assert found == sorted(found, key=lambda layout: layout.upload_id)
        assert {layout.upload_id: layout for layout in found} == {name(n): self.layout(n) for n in (1, 2, 6)}

    # crowded, joined

    def test_the_unfinished_with_many_segments_are_crowded(self) -> None:
        for number in (1, 2, 3, 4):
            self.start(upload(number), None)
            changes = [
                Commit(name(number), 0, at, at + 1, 150.0, segment=stretch(at, at + 1, writer=str(number)))
                for at in range(MOST_SEGMENTS + (number != 2))
            ]
            for answer in [self.catalog.commit(change) for change in changes]:
                assert self.ask(answer) is True
        self.ask(self.catalog.end(name(4), GoneReason.TERMINATED, 200.0, ()))
        first, second = sorted([name(1), name(3)])
        assert self.ids_of(self.catalog.segments.crowded("", 10)) == [first, second]
        assert self.ids_of(self.catalog.segments.crowded("", 1)) == [first]
        assert self.ids_of(self.catalog.segments.crowded(first, 10)) == [second]
        (found,) = self.ask(self.catalog.segments.crowded(first, 1))
        assert len(found.segments) == MOST_SEGMENTS + 1 == found.offset
        with patch.object(segment_table, "ROWS", MOST_SEGMENTS + 1):  # looked at in each step, on PostgreSQL
            assert self.ids_of(self.catalog.segments.crowded("", 10)) == [first, second]
            assert self.ids_of(self.catalog.segments.crowded(first, 1)) == [second]
        self.ask(self.catalog.commit(Commit(name(1), 0, found.offset, found.offset, 160.0, found.offset, True)))
        assert self.ids_of(self.catalog.segments.crowded("", 10)) == [name(3)]

    def join(self, number: int, replaced: Sequence[Segment], joined: Segment) -> bool:
        answer: bool = self.ask(self.catalog.segments.joined(name(number), replaced, joined))
        return answer

    def test_segments_are_replaced_by_one_that_has_their_bytes(self) -> None:
        one, two, three, four = self.pieces(1, 10, 20, 30, 40)
        both = stretch(10, 30, writer="j")
        assert self.join(1, [two, three], both) is True
        assert self.layout(1) == Layout(name(1), 40, False, kept(one, both, four))
        assert self.append(1, stretch(30, 45, known=10)) is True, "the last goes on"
        self.wait(REMOVED_AFTER)
        assert sorted(self.names()) == [two.name, three.name]

    def test_nothing_is_joined_with_the_last_segment(self) -> None:
        pieces = self.pieces(1, 10, 20)
        assert self.join(1, pieces, stretch(0, 20, writer="j")) is False
        assert self.join(1, pieces[1:], stretch(10, 20, writer="j")) is False
        assert self.segments(1) == kept(*pieces)

    def test_nothing_is_joined_that_is_not_there_with_just_that_size(self) -> None:
        pieces = self.pieces(1, 10, 20, 30)
        others = [
            [stretch(0, 10), stretch(10, 20, writer="other")],
            [stretch(0, 20)],
            [stretch(0, 5), stretch(5, 20)],
            [stretch(0, 10), stretch(10, 15), stretch(15, 20)],
        ]
        for wrong in others:
            assert self.join(1, wrong, stretch(0, 20, writer="j")) is False
        assert self.join(2, pieces[:2], stretch(0, 20, writer="j")) is False
        assert self.segments(1) == kept(*pieces)
        self.wait(REMOVED_AFTER)
        assert self.names() == []

    def test_nothing_is_joined_that_does_not_follow_each_other(self) -> None:
        one, two, three, _ = pieces = self.pieces(1, 10, 20, 30, 40)
        assert self.join(1, [one, three], stretch(0, 20, writer="j")) is False
        assert self.join(1, [two, one], stretch(0, 20, writer="j")) is False
        assert self.segments(1) == kept(*pieces)

    def test_a_join_of_other_bytes_is_a_mistake(self) -> None:
        one, two, _ = pieces = self.pieces(1, 10, 20, 30)
        for wrong in (stretch(0, 19), stretch(1, 20), Segment(0, 20, WHOLE)):
            self.refusal(self.catalog.segments.joined(name(1), [one, two], wrong), ValueError)
        self.refusal(self.catalog.segments.joined(name(1), [], stretch(0, 0)), ValueError)
        assert self.segments(1) == kept(*pieces)

    def test_nothing_is_joined_of_what_is_gone(self) -> None:
        pieces = self.pieces(1, 10, 20, 30)
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        assert self.join(1, pieces[:2], stretch(0, 20, writer="j")) is False
        assert self.segments(1) == kept(*pieces)

    # discarded, removed, unknown, unknown_uploads

    def test_files_are_discarded_after_a_while_until_they_are_removed(self) -> None:
        pieces = self.pieces(1, 10, 20, 30)
        assert self.join(1, pieces[:2], stretch(0, 20, writer="j")) is True
        self.wait(REMOVED_AFTER - 5)
        assert self.names() == []
        self.wait(5)
        assert sorted(self.names()) == [pieces[0].name, pieces[1].name]
        assert len(self.names(1)) == 1
        self.ask(self.catalog.segments.removed([pieces[0].name, "0a/other"]))
        assert self.names() == [pieces[1].name]

    def test_names_are_unknown_that_no_row_has(self) -> None:
        one, two, three = self.pieces(1, 10, 20, 30)
        self.join(1, [one, two], stretch(0, 20, writer="j"))
        asked = ["0b/z", one.name, three.name, "0a/a", stretch(0, 20, writer="j").name]
        assert self.ask(self.catalog.segments.unknown(asked)) == ["0b/z", "0a/a"]
        self.ask(self.catalog.segments.removed([one.name]))
        assert self.ask(self.catalog.segments.unknown([one.name, two.name])) == [one.name]

    def test_a_file_under_an_id_is_nobodys_unless_it_is_whole_and_not_removed(self) -> None:
        for number in (1, 2, 3):
            self.start(done(upload(number)), Segment(0, 1000, WHOLE))
        self.pieces(4, 10)
        for number in (2, 3):
            self.ask(self.catalog.end(name(number), GoneReason.TERMINATED, 200.0, ()))
        self.ask(self.catalog.removed([name(3)]))
        asked = [name(number) for number in range(1, 6)]
        assert self.ask(self.catalog.segments.unknown_uploads(asked)) == [name(3), name(4), name(5)]

    # What ICatalog does with data

    def test_data_of_what_is_gone_stays_for_those_who_looked_before(self) -> None:
        self.pieces(1, 10)
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, self.now() - 5, ()))
        assert self.ids(self.catalog.removable(10)) == []
        self.wait(REMOVED_AFTER)
        assert self.ids(self.catalog.removable(10)) == [name(1)]

    def now(self) -> float:
        """The catalog's clock."""
        raise NotImplementedError

    def test_removed_drops_no_segment_of_what_has_its_data(self) -> None:
        self.pieces(1, 10)
        self.ask(self.catalog.removed([name(1)]))
        assert self.segments(1) == kept(stretch(0, 10))

    def test_a_partial_that_is_pinned_does_not_expire(self) -> None:
        self.start(done(partial(1)), Segment(0, 1000, WHOLE))
        final = evolve(upload(2, concat="final;..."), partials=(name(1),))
        assert self.ask(self.catalog.create(final, ())) is True
        assert self.ask(self.catalog.end(name(1), GoneReason.EXPIRED, 200.0, (), idle_since=150.0)) is False
        assert self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ())) is True

    def test_what_was_touched_since_does_not_expire(self) -> None:
        self.pieces(1, 10)
        assert self.ask(self.catalog.end(name(1), GoneReason.EXPIRED, 200.0, (), idle_since=149.0)) is False
        assert self.ask(self.catalog.end(name(1), GoneReason.EXPIRED, 200.0, (), idle_since=150.0)) is True

    def test_a_final_does_not_expire_when_a_partial_was_touched_since(self) -> None:
        self.start(partial(1), None)
        final = evolve(upload(2, concat="final;..."), partials=(name(1),))
        assert self.ask(self.catalog.create(final, ())) is True
        assert self.append(1, stretch(0, 10)) is True
        assert self.ask(self.catalog.end(name(2), GoneReason.EXPIRED, 200.0, (), idle_since=149.0)) is False
        assert self.ask(self.catalog.end(name(2), GoneReason.EXPIRED, 200.0, (), idle_since=151.0)) is True

"""What ICatalog promises, as a suite that any catalog can be put through; replica_contract.py has its replicas.

Mixins for trial's SynchronousTestCase: `make_catalog` gives a running catalog, `settle` lets it do its work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from resumable.model.upload import Asked, Commit, Fact, FactKind, GoneReason, ICatalog, Place, Upload


def name(number: int) -> str:
    """An id like the real ones, scattered as they are."""
    return f"{(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128):032x}"


def upload(number: int = 1, /, **values: Any) -> Upload:
    return Upload(**{"id": name(number), "created_at": 100.0, "touched_at": 100.0, "length": 1000, **values})


def partial(number: int, /, **values: Any) -> Upload:
    return upload(number, concat="partial", **values)


def final(number: int, parts: Sequence[int], /, **values: Any) -> Upload:
    return upload(number, concat="final;...", partials=tuple(name(part) for part in parts), **values)


def done(record: Upload) -> Upload:
    return evolve(record, offset=record.length, adoptable=record.length, finished_at=record.touched_at)


class CatalogSuite:
    """A catalog, and how to ask it."""

    catalog: Any

    def make_catalog(self, deliverers: Sequence[str] = ()) -> Any:
        """A running, empty catalog."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let the catalog do what it was asked."""

    def setUp(self) -> None:
        self.catalog = self.make_catalog()

    def ask(self, answer: Deferred[Any]) -> Any:
        self.settle()
        return self.successResultOf(answer)  # type: ignore[attr-defined]

    def refusal(self, answer: Deferred[Any], *kinds: type[Exception]) -> Failure:
        self.settle()
        return self.failureResultOf(answer, *kinds)  # type: ignore[attr-defined]

    def add(self, *records: Upload) -> None:
        for record in records:
            assert self.ask(self.catalog.create(record, ())) is True

    def get(self, number: int) -> Upload:
        found: Upload | None = self.ask(self.catalog.get(name(number)))
        assert found is not None
        return found

    def told(self, deliverer: str) -> list[Fact]:
        """Deliver all that it is to be told."""
        facts = []
        while events := self.ask(self.catalog.outbox.due(deliverer, 1e9, 100)):
            facts += [event.fact for event in events]
            self.ask(self.catalog.outbox.delivered([event.seq for event in events]))
        return facts

    def ids(self, answer: Deferred[Any]) -> list[str]:
        return [one if isinstance(one, str) else one.id for one in self.ask(answer)]


class CatalogContract(CatalogSuite):
    """One test for each promise of ICatalog's docstrings."""

    def test_it_provides_the_interface(self) -> None:
        assert verifyObject(ICatalog, self.catalog)

    # create, get, get_many

    def test_a_created_upload_is_read_back_as_it_was(self) -> None:
        records = [
            upload(1),
            upload(2, length=None, metadata="name bmFtZQ==,empty", created_at=1.25, touched_at=2.5),
            upload(3, offset=7, adoptable=9, epoch=3, boot_id="a-boot"),
            upload(4, length=1 << 62, offset=(1 << 62) - 1, adoptable=1 << 62),
            upload(5, metadata="na\u00efve \u2603", concat="partial"),
            final(6, [5, 1, 5]),
            done(upload(7)),
            upload(8, gone=GoneReason.LOST, gone_at=3.0),
            done(upload(9, length=0)),
            upload(10, owner="na\u00efve@example", max_size=1 << 40),
            evolve(done(upload(11)), place=Place("2026-01-31/na\u00efve file.txt")),
            evolve(done(upload(12)), place=Place("a b/c", "1700000000123456789")),
            final(13, [1], asked="0123"),
        ]
        self.add(*records)
        for record in records:
            self.assertEqual(record, self.ask(self.catalog.get(record.id)))  # type: ignore[attr-defined]
        kept = self.ask(self.catalog.get_many([record.id for record in records]))
        self.assertEqual({record.id: record for record in records}, kept)  # type: ignore[attr-defined]

    def test_nothing_below_the_offset_may_be_adopted(self) -> None:
        self.add(upload(1, offset=7, adoptable=0))
        assert self.get(1).adoptable == 7

    def test_an_id_that_is_taken_is_refused_and_the_record_stays(self) -> None:
        self.add(upload(1, metadata="first"))
        assert self.ask(self.catalog.create(upload(1, metadata="second"), ())) is False
        assert self.get(1).metadata == "first"

    def test_the_id_of_an_upload_that_is_gone_is_taken(self) -> None:
        self.add(upload(1))
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        assert self.ask(self.catalog.create(upload(1), ())) is False
        assert self.get(1).gone is GoneReason.TERMINATED

    def test_an_unknown_upload_is_none(self) -> None:
        assert self.ask(self.catalog.get(name(1))) is None

    def test_a_record_that_goes_past_its_length_is_refused_alone(self) -> None:
        wrong = self.catalog.create(upload(1, length=10, offset=11), ())
        right = self.catalog.create(upload(2), ())
        self.refusal(wrong, ValueError)
        assert self.ask(right) is True
        assert self.ask(self.catalog.get(name(1))) is None

    def test_a_number_too_large_is_refused_alone(self) -> None:
        wrong = self.catalog.create(upload(1, length=1 << 70), ())
        right = self.catalog.create(upload(2), ())
        self.settle()
        self.refusal(wrong, OverflowError, ValueError)
        assert self.ask(right) is True

    def test_get_many_answers_those_that_are_known(self) -> None:
        self.add(upload(1), upload(2))
        found = self.ask(self.catalog.get_many([name(2), name(3), name(1)]))
        assert found == {name(1): upload(1), name(2): upload(2)}
        assert self.ask(self.catalog.get_many([])) == {}

    # begin

    def test_begin_raises_the_epoch_and_records_what_may_be_adopted(self) -> None:
        self.add(upload(1))
        assert self.ask(self.catalog.begin(name(1), 0, 0, "boot", 1000, 150.0)) is True
        assert self.get(1) == upload(1, epoch=1, boot_id="boot", adoptable=1000, touched_at=150.0)

    def test_begin_needs_the_offset_and_the_epoch(self) -> None:
        self.add(upload(1, offset=5, epoch=2))
        before = self.get(1)
        for epoch, start in [(1, 5), (3, 5), (2, 4), (2, 6)]:
            assert self.ask(self.catalog.begin(name(1), epoch, start, "boot", 1000, 150.0)) is False
        assert self.get(1) == before
        assert self.ask(self.catalog.begin(name(9), 0, 0, "boot", 0, 150.0)) is False

    def test_begin_is_refused_when_finished_or_gone(self) -> None:
        self.add(done(upload(1)), upload(2))
        self.ask(self.catalog.end(name(2), GoneReason.EXPIRED, 150.0, ()))
        assert self.ask(self.catalog.begin(name(1), 0, 1000, "boot", 1000, 160.0)) is False
        assert self.ask(self.catalog.begin(name(2), 0, 0, "boot", 0, 160.0)) is False

    def test_begin_with_nothing_to_adopt(self) -> None:
        self.add(upload(1, offset=5, adoptable=900, epoch=1))
        assert self.ask(self.catalog.begin(name(1), 1, 5, "boot", 5, 150.0)) is True
        assert self.get(1).adoptable == 5

    # commit

    def test_commit_moves_the_offset(self) -> None:
        self.add(upload(1))
        assert self.ask(self.catalog.commit(Commit(name(1), 0, 0, 400, 150.0))) is True
        assert self.get(1) == upload(1, offset=400, adoptable=400, touched_at=150.0)

    def test_a_commit_of_an_evicted_append_never_lands(self) -> None:
        self.add(upload(1))
        self.ask(self.catalog.begin(name(1), 0, 0, "boot", 0, 150.0))
        self.ask(self.catalog.begin(name(1), 1, 0, "boot", 0, 151.0))
        assert self.ask(self.catalog.commit(Commit(name(1), 1, 0, 400, 152.0))) is False
        assert self.get(1).offset == 0
        assert self.ask(self.catalog.commit(Commit(name(1), 2, 0, 300, 153.0))) is True

    def test_commit_needs_the_offset_that_it_starts_from(self) -> None:
        self.add(upload(1, offset=5, adoptable=5))
        for start in (4, 6):
            assert self.ask(self.catalog.commit(Commit(name(1), 0, start, 400, 150.0))) is False
        assert self.get(1) == upload(1, offset=5, adoptable=5)

    def test_of_two_commits_at_one_offset_one_lands(self) -> None:
        self.add(upload(1))
        answers = [self.catalog.commit(Commit(name(1), 0, 0, size, 150.0)) for size in (300, 400)]
        assert [self.ask(answer) for answer in answers] == [True, False]
        assert self.get(1).offset == 300

    def test_commit_records_a_length_or_leaves_it(self) -> None:
        self.add(upload(1, length=None))
        self.ask(self.catalog.commit(Commit(name(1), 0, 0, 0, 150.0, length=70)))
        assert self.get(1).length == 70
        self.ask(self.catalog.commit(Commit(name(1), 0, 0, 60, 151.0)))
        assert (self.get(1).length, self.get(1).offset) == (70, 60)

    def test_a_commit_past_the_length_is_refused(self) -> None:
        self.add(upload(1))
        self.refusal(self.catalog.commit(Commit(name(1), 0, 0, 1001, 150.0)), ValueError)
        assert self.get(1) == upload(1)

    def test_a_commit_that_goes_back_is_a_mistake(self) -> None:
        self.add(upload(1, offset=5))
        self.refusal(self.catalog.commit(Commit(name(1), 0, 5, 4, 150.0)), ValueError)

    def test_commit_finishes(self) -> None:
        self.add(upload(1))
        assert self.ask(self.catalog.commit(Commit(name(1), 0, 0, 1000, 150.0, finished=True))) is True
        assert self.get(1) == done(upload(1, touched_at=150.0))

    def test_the_whole_length_alone_does_not_finish(self) -> None:
        self.add(upload(1))
        self.ask(self.catalog.commit(Commit(name(1), 0, 0, 1000, 150.0)))
        assert not self.get(1).finished
        assert self.ask(self.catalog.commit(Commit(name(1), 0, 1000, 1000, 151.0, finished=True))) is True
        assert self.get(1).finished

    def test_finished_before_the_length_is_a_mistake(self) -> None:
        self.add(upload(1))
        self.refusal(self.catalog.commit(Commit(name(1), 0, 0, 999, 150.0, finished=True)), ValueError)
        assert self.get(1) == upload(1)

    def test_a_commit_on_a_finished_or_gone_upload_does_not_land(self) -> None:
        self.add(done(upload(1)), upload(2))
        self.ask(self.catalog.end(name(2), GoneReason.TERMINATED, 150.0, ()))
        assert self.ask(self.catalog.commit(Commit(name(1), 0, 1000, 1000, 160.0, finished=True))) is False
        assert self.ask(self.catalog.commit(Commit(name(2), 0, 0, 10, 160.0))) is False
        assert self.ask(self.catalog.commit(Commit(name(3), 0, 0, 10, 160.0))) is False

    def test_what_may_be_adopted_outlives_commits_until_the_finish(self) -> None:
        self.add(upload(1))
        self.ask(self.catalog.begin(name(1), 0, 0, "boot", 800, 150.0))
        self.ask(self.catalog.commit(Commit(name(1), 1, 0, 500, 151.0)))
        assert self.get(1).adoptable == 800
        self.ask(self.catalog.commit(Commit(name(1), 1, 500, 900, 152.0)))
        assert self.get(1).adoptable == 900
        self.ask(self.catalog.commit(Commit(name(1), 1, 900, 1000, 153.0, finished=True)))
        assert self.get(1).adoptable == 1000

    def test_a_clock_that_goes_backwards_shortens_no_life(self) -> None:
        self.add(upload(1, touched_at=500.0))
        self.ask(self.catalog.begin(name(1), 0, 0, "boot", 0, 50.0))
        self.ask(self.catalog.commit(Commit(name(1), 1, 0, 10, 60.0)))
        assert self.get(1).touched_at == 500.0
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 70.0, ()))
        self.ask(self.catalog.removed([name(1)]))
        assert self.ask(self.catalog.forget(400.0, 10)) == 0

    # touch

    def test_touch_moves_the_time_and_nothing_else_and_never_back(self) -> None:
        record = upload(1, epoch=3, offset=5, adoptable=5)
        self.add(record)
        assert self.ask(self.catalog.touch(name(1), 3, 200.0)) is True
        assert self.get(1) == evolve(record, touched_at=200.0)
        assert self.ask(self.catalog.touch(name(1), 3, 150.0)) is True
        assert self.get(1).touched_at == 200.0

    def test_touch_needs_the_epoch_and_an_upload_that_goes_on(self) -> None:
        self.add(upload(1, epoch=3), done(upload(2)), upload(3, gone=GoneReason.TERMINATED, gone_at=100.0))
        for number, epoch in ((1, 2), (1, 4), (2, 0), (3, 0), (4, 0)):
            assert self.ask(self.catalog.touch(name(number), epoch, 200.0)) is False
        assert self.get(1).touched_at == 100.0

    def test_an_upload_that_was_touched_does_not_expire(self) -> None:
        self.add(upload(1))
        assert self.ask(self.catalog.touch(name(1), 0, 200.0)) is True
        assert self.ids(self.catalog.expired(150.0, 10)) == []
        assert self.ask(self.catalog.end(name(1), GoneReason.EXPIRED, 300.0, (), idle_since=150.0)) is False

    # end, removable, removed, forget

    def test_end_marks_an_upload_gone_once(self) -> None:
        self.add(upload(1), done(upload(2)))
        for number, gone in ((1, GoneReason.EXPIRED), (2, GoneReason.TERMINATED)):
            assert self.ask(self.catalog.end(name(number), gone, 200.0, ())) is True
            assert self.ask(self.catalog.end(name(number), GoneReason.LOST, 300.0, ())) is False
            assert (self.get(number).gone, self.get(number).gone_at) == (gone, 200.0)
        assert self.ask(self.catalog.end(name(3), GoneReason.EXPIRED, 200.0, ())) is False

    def test_the_data_of_what_is_gone_may_be_removed_but_never_what_was_lost(self) -> None:
        self.add(*(upload(number) for number in range(1, 5)))
        for number, gone in ((1, GoneReason.EXPIRED), (2, GoneReason.TERMINATED), (3, GoneReason.LOST)):
            self.ask(self.catalog.end(name(number), gone, 200.0 + number, ()))
        assert self.ids(self.catalog.removable(10)) == [name(1), name(2)]
        assert self.ids(self.catalog.removable(1)) == [name(1)]
        self.ask(self.catalog.removed([name(1), name(9)]))
        assert self.ids(self.catalog.removable(10)) == [name(2)]

    def test_a_pinned_partial_keeps_its_data_until_the_final_is_done(self) -> None:
        self.add(done(partial(1)), done(partial(2)), final(3, [1, 2]), final(4, [1]))
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        self.ask(self.catalog.end(name(2), GoneReason.TERMINATED, 201.0, ()))
        assert self.ids(self.catalog.removable(10)) == []
        self.ask(self.catalog.commit(Commit(name(3), 0, 0, 1000, 300.0, finished=True)))
        assert self.ids(self.catalog.removable(10)) == [name(2)]
        self.ask(self.catalog.end(name(4), GoneReason.TERMINATED, 400.0, ()))
        assert self.ids(self.catalog.removable(10)) == [name(1), name(2), name(4)]

    def test_forget_drops_old_records_whose_data_is_removed(self) -> None:
        self.add(*(upload(number) for number in range(1, 6)))
        for number in range(1, 5):
            self.ask(self.catalog.end(name(number), GoneReason.TERMINATED, 200.0 + number, ()))
        self.ask(self.catalog.removed([name(1), name(2), name(4)]))
        assert self.ask(self.catalog.forget(204.0, 1)) == 1
        assert self.ask(self.catalog.forget(204.0, 10)) == 1
        assert self.ask(self.catalog.forget(204.0, 10)) == 0
        known = [number for number in range(1, 6) if self.ask(self.catalog.get(name(number)))]
        assert known == [3, 4, 5]

    # unplaced, placed

    def test_what_is_finished_with_a_place_waits_for_it(self) -> None:
        self.add(upload(1), upload(2), upload(3), done(upload(4)))
        for number, place in ((1, Place("a/1")), (2, None), (3, Place("a/3"))):
            change = Commit(name(number), 0, 0, 1000, 200.0, finished=True, place=place)
            assert self.ask(self.catalog.commit(change)) is True
        assert self.get(1).place == Place("a/1")
        assert self.ids(self.catalog.unplaced("", 10)) == sorted([name(1), name(3)])
        first, second = sorted([name(1), name(3)])
        assert self.ids(self.catalog.unplaced("", 1)) == [first]
        assert self.ids(self.catalog.unplaced(first, 10)) == [second]

    def test_a_place_that_the_row_has_already_stays(self) -> None:
        self.add(upload(1, place=Place("hook/1")))
        assert self.ids(self.catalog.unplaced("", 10)) == [], "it isn't finished"
        change = Commit(name(1), 0, 0, 1000, 200.0, finished=True, place=Place("a/1"))
        assert self.ask(self.catalog.commit(change)) is True
        assert self.get(1).place == Place("hook/1")

    def test_what_is_placed_waits_no_more_and_its_data_file_may_go(self) -> None:
        self.add(evolve(done(upload(1)), place=Place("a/1")))
        assert self.ask(self.catalog.placed(name(1), Place("a/1 (2)", "5"), 300.0)) is True
        assert self.get(1).place == Place("a/1 (2)", "5")
        assert self.get(1).dropped_at == 300.0
        assert self.ids(self.catalog.unplaced("", 10)) == []
        assert self.ask(self.catalog.placed(name(1), Place("a/1", "6"), 300.0)) is False
        assert self.ids(self.catalog.removable(10)) == [name(1)]
        self.ask(self.catalog.removed([name(1)]))
        assert self.ids(self.catalog.removable(10)) == []
        assert self.get(1).gone is None

    def test_what_did_not_wait_is_not_placed(self) -> None:
        self.add(done(upload(1)), upload(2, place=Place("a/2")), evolve(done(upload(3)), place=Place("a/3")))
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 200.0, ()))
        for number in (1, 2, 3, 4):
            assert self.ask(self.catalog.placed(name(number), Place("x", "1"), 300.0)) is False
        assert self.ids(self.catalog.unplaced("", 10)) == []

    def test_a_gone_upload_with_a_place_stays_removable_until_that_is_cleared(self) -> None:
        self.add(*(evolve(done(upload(number)), place=Place("a")) for number in (1, 2)))
        self.ask(self.catalog.placed(name(1), Place("a", "5"), 300.0))
        self.ask(self.catalog.removed([name(1)]))
        for number in (1, 2):
            assert self.ask(self.catalog.end(name(number), GoneReason.TERMINATED, 400.0 + number, ())) is True
        self.ask(self.catalog.removed([name(1), name(2)]))
        assert self.ids(self.catalog.removable(10)) == [name(1), name(2)], "nobody has said so of their places"
        self.ask(self.catalog.removed([name(1), name(2)], [name(1), name(2)]))
        assert self.ids(self.catalog.removable(10)) == []
        assert self.ask(self.catalog.forget(1000.0, 10)) == 2

    def test_unplaced_says_nothing_of_an_upload_that_is_not_gone(self) -> None:
        self.add(evolve(done(upload(1)), place=Place("a")))
        self.ask(self.catalog.removed([name(1)], [name(1)]))
        assert self.get(1).place == Place("a")

    def test_removed_says_nothing_of_an_upload_that_is_not_gone(self) -> None:
        self.add(upload(1))
        self.ask(self.catalog.removed([name(1)]))
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        assert self.ids(self.catalog.removable(10)) == [name(1)]

    # expired

    def test_idle_unfinished_uploads_expire_oldest_first(self) -> None:
        self.add(*(upload(number, created_at=9.0, touched_at=at) for number, at in ((1, 30.0), (2, 20.0), (3, 40.0))))
        assert self.ids(self.catalog.expired(40.0, 10)) == [name(2), name(1)]
        assert self.ids(self.catalog.expired(40.0, 1)) == [name(2)]

    def test_finished_uploads_never_expire_but_finished_partials_do(self) -> None:
        self.add(done(upload(1)), done(partial(2)), upload(3))
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 200.0, ()))
        assert self.ids(self.catalog.expired(1e9, 10)) == [name(2)]

    def test_partials_that_an_unfinished_final_needs_do_not_expire(self) -> None:
        self.add(done(partial(1)), done(partial(2)), partial(3), final(4, [1, 3], touched_at=500.0))
        assert self.ids(self.catalog.expired(400.0, 10)) == [name(2)]

    def test_partials_of_a_finished_or_gone_final_expire(self) -> None:
        self.add(done(partial(1)), done(partial(2)), done(final(3, [1])), final(4, [2]))
        self.ask(self.catalog.end(name(4), GoneReason.EXPIRED, 200.0, ()))
        assert sorted(self.ids(self.catalog.expired(400.0, 10))) == sorted([name(1), name(2)])

    def test_a_final_that_is_not_put_together_expires_as_others_do(self) -> None:
        self.add(done(partial(1)), done(evolve(partial(2), touched_at=450.0)), final(3, [1, 2]))
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        assert self.ids(self.catalog.expired(400.0, 10)) == [], "a partial of it was touched since"
        assert self.ids(self.catalog.expired(500.0, 10)) == [name(3)]

    def test_what_has_finished_since_it_was_idle_does_not_expire(self) -> None:
        self.add(done(partial(1)), final(2, [1]), upload(3))
        assert sorted(self.ids(self.catalog.expired(400.0, 10))) == [name(2), name(3)]
        for number in (2, 3):
            self.ask(self.catalog.commit(Commit(name(number), 0, 0, 10, 450.0, 10, True)))
            assert self.ask(self.catalog.end(name(number), GoneReason.EXPIRED, 500.0, ())) is False
            assert self.get(number).gone is None and self.get(number).finished
        assert self.ask(self.catalog.end(name(1), GoneReason.EXPIRED, 500.0, ())) is True

    def test_a_final_with_an_unfinished_partial_expires(self) -> None:
        self.add(done(partial(1)), partial(2), final(3, [1, 2]))
        assert self.ids(self.catalog.expired(400.0, 10)) == [name(3)]

    def test_a_final_does_not_expire_while_its_partials_are_appended_to(self) -> None:
        self.add(done(partial(1)), partial(2), final(3, [1, 2]))
        self.ask(self.catalog.commit(Commit(name(2), 0, 0, 10, 450.0)))
        assert self.ids(self.catalog.expired(400.0, 10)) == []
        assert self.ids(self.catalog.expired(500.0, 10)) == [name(3)]

    # finals

    def test_finals_of_a_partial_are_those_that_still_need_it(self) -> None:
        self.add(partial(1), partial(2))
        self.add(final(3, [1, 2]), final(4, [1], created_at=50.0), done(final(5, [1])), final(6, [2]), final(7, [1]))
        self.ask(self.catalog.end(name(7), GoneReason.TERMINATED, 200.0, ()))
        found = self.ask(self.catalog.finals_of(name(1), "", 10))
        first, second = sorted([final(4, [1], created_at=50.0), final(3, [1, 2])], key=lambda each: each.id)
        assert list(found) == [first, second]
        assert self.ids(self.catalog.finals_of(name(1), "", 1)) == [first.id]
        assert self.ids(self.catalog.finals_of(name(1), first.id, 10)) == [second.id]
        assert self.ids(self.catalog.finals_of(name(9), "", 10)) == []

    def test_a_final_may_be_assembled_when_none_of_its_partials_is_unfinished(self) -> None:
        self.add(done(partial(1)), partial(2), final(3, [1]), final(4, [1, 2]), final(5, [1, 1]), upload(6))
        self.ask(self.catalog.end(name(5), GoneReason.TERMINATED, 200.0, ()))
        assert self.ask(self.catalog.assemblable("", 10)) == ([name(3)], None)
        assert self.ask(self.catalog.assemblable("", 10, name(2))) == ([], None)
        self.ask(self.catalog.commit(Commit(name(2), 0, 0, 1000, 300.0, finished=True)))
        assert self.ask(self.catalog.assemblable("", 10)) == (sorted([name(3), name(4)]), None)
        assert self.ask(self.catalog.assemblable("", 10, name(2))) == ([name(4)], None)
        self.ask(self.catalog.commit(Commit(name(4), 0, 0, 1000, 300.0, finished=True)))
        assert self.ask(self.catalog.assemblable("", 10)) == ([name(3)], None)

    def test_assemblable_finals_are_looked_for_in_steps(self) -> None:
        self.add(done(partial(1)), partial(2), *(final(number, [1 + number % 2]) for number in range(3, 13)))
        found, after = [], ""
        for _ in range(4):
            some, after = self.ask(self.catalog.assemblable(after, 3))
            assert len(some) <= 3
            found += some
        assert after is None
        assert found == sorted(name(number) for number in range(4, 13, 2))

    def test_a_final_that_can_not_be_made_any_more_is_to_be_looked_at(self) -> None:
        self.add(partial(1), partial(2), final(3, [1, 2]), final(4, [1, 9]))
        assert self.ask(self.catalog.assemblable("", 10)) == ([name(4)], None), "a partial is unknown"
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        assert self.ask(self.catalog.assemblable("", 10)) == (sorted([name(3), name(4)]), None)

    def test_a_final_of_a_partial_that_is_gone_is_not_made(self) -> None:
        self.add(done(partial(1)), done(partial(2)))
        self.ask(self.catalog.end(name(1), GoneReason.EXPIRED, 200.0, ()))
        assert self.ask(self.catalog.create(final(3, [2, 1], asked="k"), ())) is False
        assert self.ask(self.catalog.get(name(3))) is None
        assert self.ask(self.catalog.asked("k", 0.0)) is None
        assert self.ids(self.catalog.expired(1e9, 10)) == [name(2)], "nothing is pinned"

    def test_partials_that_were_used_are_spent_when_no_final_needs_them(self) -> None:
        """Removed `--keep-partials` after the last final that used them."""
        self.add(*(done(partial(number)) for number in (1, 2, 3)), final(4, [1, 2]), final(5, [2]), final(6, [3]))
        self.ask(self.catalog.end(name(6), GoneReason.TERMINATED, 200.0, ()))
        assert self.ids(self.catalog.spent(1e9, 10)) == []
        self.ask(self.catalog.commit(Commit(name(4), 0, 0, 1000, 300.0, finished=True)))
        assert self.ids(self.catalog.spent(1e9, 10)) == [name(1)], "another needs the second"
        assert self.ids(self.catalog.spent(299.0, 10)) == []
        self.ask(self.catalog.commit(Commit(name(5), 0, 0, 1000, 400.0, finished=True)))
        assert self.ids(self.catalog.spent(399.0, 10)) == [name(1)]
        assert self.ids(self.catalog.spent(400.0, 10)) == [name(1), name(2)]
        assert self.ids(self.catalog.spent(400.0, 1)) == [name(1)]
        self.ask(self.catalog.end(name(1), GoneReason.EXPIRED, 500.0, ()))
        assert self.ids(self.catalog.spent(1e9, 10)) == [name(2)]
        assert self.ids(self.catalog.expired(1e9, 10)) == [name(3)], "a refused final leaves its partials as they were"
        assert self.ids(self.catalog.replicas.droppable(1e9, 10)) == []
        assert self.ask(self.catalog.replicas.drop([name(2)], 600.0)) == []

    # asked, request, heard

    def test_a_final_is_found_by_the_request_that_has_made_it(self) -> None:
        one = final(3, [1], asked="key", metadata="m")
        assert self.ask(self.catalog.create(one, (), (), {"method": "POST"})) is True
        assert self.ask(self.catalog.asked("key", 1e9)) == Asked(one)
        assert self.ask(self.catalog.request(name(3))) == {"method": "POST"}
        assert self.ask(self.catalog.asked("other", 0.0)) is None
        assert self.ask(self.catalog.create(final(4, [1], asked="key"), ())) is False, "it is on its way"
        assert self.ask(self.catalog.get(name(4))) is None

    def test_it_is_found_for_a_while_after_it_is_finished(self) -> None:
        self.ask(self.catalog.create(final(3, [1], asked="key"), (), (), {"method": "POST"}))
        self.ask(self.catalog.commit(Commit(name(3), 0, 0, 1000, 300.0, finished=True)))
        assert self.ask(self.catalog.asked("key", 300.0)).upload.finished
        assert self.ask(self.catalog.asked("key", 301.0)) is None
        assert self.ask(self.catalog.request(name(3))) is None, "cookies aren't kept for longer than they are needed"
        again = final(4, [1], asked="key")
        assert self.ask(self.catalog.create(again, ())) is True
        assert self.ask(self.catalog.asked("key", 301.0)) == Asked(again)
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 400.0, ()))
        assert self.ask(self.catalog.asked("key", 301.0)) == Asked(again)

    def test_one_that_was_ended_is_not_found(self) -> None:
        for finished in (False, True):
            number = 3 + finished
            self.ask(self.catalog.create(final(number, [1], asked="key"), ()))
            if finished:
                self.ask(self.catalog.commit(Commit(name(number), 0, 0, 1000, 300.0, finished=True)))
            self.ask(self.catalog.end(name(number), GoneReason.TERMINATED, 400.0, ()))
            assert self.ask(self.catalog.asked("key", 0.0)) is None

    def test_a_refusal_is_found_until_it_was_heard(self) -> None:
        self.ask(self.catalog.create(final(3, [1], asked="key"), (), (), {"method": "POST"}))
        refusal = {"status": 403, "body": "no \u2603"}
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 400.0, (), False, refusal))
        found = self.ask(self.catalog.asked("key", 400.0))
        assert found.refusal == refusal and found.upload.gone is GoneReason.TERMINATED
        assert self.ask(self.catalog.request(name(3))) is None
        assert self.ask(self.catalog.asked("key", 401.0)) is None
        self.ask(self.catalog.heard("key"))
        assert self.ask(self.catalog.asked("key", 400.0)) is None

    def test_what_is_on_its_way_or_has_finished_is_not_heard(self) -> None:
        self.ask(self.catalog.create(final(3, [1], asked="key"), (), (), {"method": "POST"}))
        self.ask(self.catalog.heard("key"))
        assert self.ask(self.catalog.asked("key", 0.0)) is not None
        self.ask(self.catalog.commit(Commit(name(3), 0, 0, 1000, 300.0, finished=True)))
        self.ask(self.catalog.heard("key"))
        assert self.ask(self.catalog.asked("key", 0.0)) is not None

    def test_requests_are_forgotten_that_were_over_before(self) -> None:
        for number, at in ((3, 300.0), (4, 400.0), (5, 350.0), (6, None)):
            self.ask(self.catalog.create(final(number, [1], asked=f"key{number}"), ()))
            if at is not None:
                self.ask(self.catalog.commit(Commit(name(number), 0, 0, 1000, at, finished=True)))
        assert self.ask(self.catalog.forget_asked(400.0, 1)) == 1
        assert self.ask(self.catalog.forget_asked(400.0, 10)) == 1
        assert self.ask(self.catalog.forget_asked(400.0, 10)) == 0
        found = [number for number in (3, 4, 5, 6) if self.ask(self.catalog.asked(f"key{number}", 0.0))]
        assert found == [4, 6]

    # facts

    def test_without_deliverers_no_fact_is_kept(self) -> None:
        self.ask(self.catalog.create(upload(1), [Fact(FactKind.CREATED, name(1), 100.0)]))
        assert self.told("hook") == []

    def test_facts_are_kept_for_each_deliverer_until_it_has_delivered_them(self) -> None:
        self.catalog = catalog = self.make_catalog(["hook", "log"])
        created = Fact(FactKind.CREATED, name(1), 100.0, {"size": 3, "name": "\u2603"})
        finished = Fact(FactKind.FINISHED, name(1), 150.0)
        ended = Fact(FactKind.TERMINATED, name(1), 200.0)
        self.ask(catalog.create(upload(1), [created]))
        self.ask(catalog.commit(Commit(name(1), 0, 0, 1000, 150.0, finished=True, facts=[finished])))
        self.ask(catalog.end(name(1), GoneReason.TERMINATED, 200.0, [ended]))
        for deliverer in ("hook", "log"):
            assert self.ask(catalog.has_remains(name(1))) is True
            assert self.told(deliverer) == [created, finished, ended]
            assert self.told(deliverer) == []
        assert self.ask(catalog.has_remains(name(1))) is False

    def test_a_change_that_does_not_land_leaves_no_fact(self) -> None:
        self.catalog = catalog = self.make_catalog(["hook"])
        fact = Fact(FactKind.FINISHED, name(1), 100.0)
        self.add(upload(1))
        self.ask(catalog.create(upload(1), [fact]))
        self.ask(catalog.commit(Commit(name(1), 5, 0, 1000, 150.0, finished=True, facts=[fact])))
        self.ask(catalog.end(name(2), GoneReason.TERMINATED, 200.0, [fact]))
        assert self.told("hook") == []

    def test_a_fact_that_can_not_be_written_takes_its_change_with_it(self) -> None:
        self.catalog = catalog = self.make_catalog(["hook"])
        wrong = catalog.create(upload(1), [Fact(FactKind.CREATED, name(1), 100.0, {"what": object()})])
        right = catalog.create(upload(2), [Fact(FactKind.CREATED, name(2), 100.0)])
        self.settle()
        self.refusal(wrong, TypeError)
        assert self.ask(right) is True
        assert self.ask(catalog.get(name(1))) is None
        assert [fact.upload_id for fact in self.told("hook")] == [name(2)]

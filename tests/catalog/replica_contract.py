"""What IReplicas, and ICatalog of replicas, promise, as a suite that any catalog can be put through."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from zope.interface.verify import verifyObject

from resumable.model.replica import Backlog, IReplicas, Page
from resumable.model.upload import Fact, FactKind, GoneReason, Place, Replica, ReplicaState, Upload
from tests.catalog.contract import CatalogSuite, done, name, upload

A, B = "s3", "tape"
WORDS = {"location": "s3://bucket/k", "key": "k", "size": 1000, "etag": '"x"', "checksum": None}
FAILED = {"attempts": 3, "error": "503: \u2603", "retry_at": 500.0, "failing_since": 400.0}


def replica(number: int, remote: str = A, /, **values: Any) -> Replica:
    return Replica(name(number), remote, **values)


def bare(found: Replica) -> Replica:
    """Without the place, which only the catalog knows."""
    assert found.seq > 0
    return evolve(found, seq=0)


class ReplicaContract(CatalogSuite):
    """One test for each promise of IReplicas' docstrings."""

    def setUp(self) -> None:
        super().setUp()
        self.replicas = self.catalog.replicas

    def make(self, record: Upload, *replicas: Replica) -> None:
        assert self.ask(self.catalog.create(record, (), replicas)) is True

    def of(self, number: int) -> list[Replica]:
        return [bare(one) for one in self.ask(self.replicas.of(name(number)))]

    def find(self, number: int, remote: str = A) -> Replica:
        found = self.ask(self.replicas.get(name(number), remote))
        assert found is not None
        one: Replica = found[0]
        return one

    def store(self, number: int, remote: str = A, at: float = 200.0) -> Any:
        return self.ask(self.replicas.store(replica(number, remote, key="k"), WORDS, at))

    def park(self, number: int, remote: str = A) -> Any:
        return self.ask(self.replicas.park(replica(number, remote), "denied", 300.0))

    def due(self, remote: str = A, now: float = 1000.0) -> list[str]:
        page = self.ask(self.replicas.due(remote, now, 0, 100))
        assert page.after is None
        return [one.upload_id for one, _ in page.due]

    def droppable(self, before: float = 1e9, limit: int = 100) -> list[str]:
        return self.ids(self.replicas.droppable(before, limit))

    def test_they_provide_the_interface(self) -> None:
        assert verifyObject(IReplicas, self.replicas)

    # create, of, get

    def test_replicas_are_made_with_their_upload_and_read_back_as_they_were(self) -> None:
        wanted = [
            replica(1, "b", required=False, needs=8 << 20),
            replica(1, "a", key="k", confirmed=5, run="r", **FAILED),
            replica(1, "c", state=ReplicaState.STORED, stored_at=3.0, stored=WORDS),
        ]
        self.make(upload(1), *wanted)
        self.make(upload(2))
        assert self.of(1) == wanted, "in the order of creation"
        assert self.of(2) == self.of(9) == []
        many = self.ask(self.replicas.of_many([name(9), name(1), name(2)]))
        assert {key: [bare(one) for one in found] for key, found in many.items()} == {name(1): wanted}
        found, record = self.ask(self.replicas.get(name(1), "a"))
        assert (bare(found), record) == (wanted[1], self.get(1))
        assert self.ask(self.replicas.get(name(1), "d")) is None

    def test_the_upload_counts_the_remotes_that_must_have_it(self) -> None:
        self.make(upload(1, required=7), replica(1, "a"), replica(1, "b", required=False), replica(1, "c"))
        self.make(upload(2, required=7))
        assert (self.get(1).required, self.get(2).required) == (2, 0)

    def test_an_id_that_is_taken_gets_no_replicas(self) -> None:
        self.make(upload(1))
        assert self.ask(self.catalog.create(upload(1), (), [replica(1)])) is False
        assert self.of(1) == []

    def test_an_upload_has_one_replica_in_a_remote(self) -> None:
        self.refusal(self.catalog.create(upload(1), (), [replica(1), replica(1)]), ValueError)
        assert self.ask(self.catalog.get(name(1))) is None

    # due, next_retry, hasten

    def test_due_are_the_finished_and_those_with_enough_to_send(self) -> None:
        self.make(done(upload(1)), replica(1, needs=5000))
        self.make(upload(2, offset=10), replica(2, needs=10))
        self.make(upload(3, offset=9), replica(3, needs=10))
        self.make(upload(4, offset=10), replica(4, confirmed=10))
        self.make(upload(5), replica(5))
        self.make(done(upload(6, length=0)), replica(6))
        self.make(done(upload(7)), replica(7, confirmed=1000), replica(7, B))
        assert self.due() == [name(1), name(2), name(6), name(7)]
        assert self.due(B) == [name(7)] and self.due("none") == []

    def test_what_comes_with_due_is_the_replica_and_its_upload(self) -> None:
        self.make(done(upload(1)), replica(1))
        ((found, record),) = self.ask(self.replicas.due(A, 0.0, 0, 10)).due
        assert (bare(found), record) == (replica(1), self.get(1))

    def test_due_are_those_whose_retry_has_come(self) -> None:
        for number, retry_at in ((1, None), (2, 500.0), (3, 500.5)):
            self.make(done(upload(number)), replica(number, retry_at=retry_at))
        assert self.due(now=500.0) == [name(1), name(2)]

    def test_due_never_has_what_is_stored_or_parked(self) -> None:
        for number in (1, 2):
            self.make(done(upload(number)), replica(number))
        assert self.store(1) == (True, True) and self.park(2) is True
        assert self.due() == []

    def test_due_looks_at_so_many_rows_and_tells_where_to_go_on(self) -> None:
        for number in range(1, 8):
            self.make(upload(number) if number % 3 else done(upload(number)), replica(number), replica(number, B))
        after, pages = 0, []
        while after is not None and len(pages) < 9:
            page = self.ask(self.replicas.due(A, 0.0, after, 2))
            pages.append([one.upload_id for one, _ in page.due])
            after = page.after
        assert pages == [[], [name(3)], [name(6)], []]
        assert self.ask(self.replicas.due(A, 0.0, 1 << 40, 2)) == Page([], None)

    def test_due_has_what_is_ending_even_when_its_upload_is_forgotten(self) -> None:
        self.make(upload(1), replica(1, retry_at=900.0))
        self.make(upload(2), replica(2))
        for number in (1, 2):
            self.ask(self.catalog.end(name(number), GoneReason.EXPIRED, 200.0, ()))
        self.ask(self.catalog.removed([name(2)]))
        assert self.ask(self.catalog.forget(1e9, 10)) == 1
        first, second = self.ask(self.replicas.due(A, 0.0, 0, 10)).due
        assert first[0].state is second[0].state is ReplicaState.ENDING
        assert first[1] == self.get(1) and second[1] is None

    def test_the_next_retry_is_the_earliest_of_those_under_way(self) -> None:
        assert self.ask(self.replicas.next_retry(A)) is None
        for number, retry_at in ((1, 500.0), (2, 400.0), (3, 600.0), (4, None)):
            self.make(done(upload(number)), replica(number, retry_at=retry_at))
        self.make(done(upload(5)), replica(5, B, retry_at=5.0))
        assert self.ask(self.replicas.next_retry(A)) == 400.0
        self.park(2)
        assert self.ask(self.replicas.next_retry(A)) == 500.0

    def test_when_the_remote_is_back_all_that_waits_for_it_is_due(self) -> None:
        self.make(done(upload(1)), replica(1, **FAILED), replica(1, B, **FAILED))
        self.ask(self.replicas.hasten(A))
        assert self.of(1) == [replica(1, **{**FAILED, "retry_at": None}), replica(1, B, **FAILED)]
        assert self.ask(self.replicas.next_retry(A)) is None
        assert self.due(now=0.0) == [name(1)] and self.due(B, now=0.0) == []

    # advance

    def test_advance_records_the_work_and_the_failures(self) -> None:
        self.make(upload(1, offset=500), replica(1), replica(1, B))
        now = replica(1, key="k", confirmed=500, needs=600, run="r", **FAILED)
        assert self.ask(self.replicas.advance(now)) is True
        assert self.of(1) == [now, replica(1, B)]

    def test_advance_touches_nothing_else(self) -> None:
        self.make(upload(1), replica(1))
        self.ask(self.replicas.advance(replica(1, required=False, stored={"no": 1}, stored_at=5.0, delete=True)))
        assert self.of(1) == [replica(1)]

    def test_advance_needs_the_state(self) -> None:
        self.make(upload(1), replica(1))
        before = self.find(1)
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        ending = self.find(1)
        assert self.ask(self.replicas.advance(evolve(before, confirmed=7))) is False
        assert self.find(1) == ending
        assert self.ask(self.replicas.advance(evolve(ending, attempts=1))) is True
        assert self.ask(self.replicas.advance(replica(2))) is False

    # store

    def test_store_records_the_whole_and_forgets_the_failures_and_parts(self) -> None:
        self.make(done(upload(1)), replica(1, confirmed=7, run="r", **FAILED))
        self.ask(self.replicas.save_part(name(1), A, 1, "etag"))
        self.ask(self.replicas.save_journal(name(1), A, {"key": "k"}))
        assert self.store(1) == (True, True)
        state = ReplicaState.STORED
        assert self.of(1) == [replica(1, key="k", confirmed=1000, run="r", state=state, stored=WORDS, stored_at=200.0)]
        assert self.ask(self.replicas.load_parts(name(1), A)) == {}
        assert self.ask(self.replicas.load_journal(name(1), A)) == {"key": "k"}, "its object may have to be deleted"

    def test_the_first_record_of_the_journal_comes_with_the_replica(self) -> None:
        self.make(upload(1), replica(1, "a", intent={"key": "k", "size": 5}), replica(1, "b"))
        assert self.ask(self.replicas.load_journal(name(1), "a")) == {"key": "k", "size": 5}
        assert self.ask(self.replicas.load_journal(name(1), "b")) is None
        assert self.of(1) == [replica(1, "a"), replica(1, "b")], "and is not part of it"

    def test_the_last_record_of_the_journal_comes_with_the_outcome(self) -> None:
        self.make(done(upload(1)), replica(1, intent={"key": "k"}), replica(1, B, intent={"key": "k"}))
        stored = self.replicas.store(replica(1, key="k"), WORDS, 200.0, {"key": "k", "stored": WORDS})
        assert self.ask(stored) == (True, False)
        assert self.ask(self.replicas.load_journal(name(1), A)) == {"key": "k", "stored": WORDS}
        assert self.ask(self.replicas.load_journal(name(1), B)) == {"key": "k"}
        again = self.replicas.store(replica(1, key="k"), WORDS, 300.0, {"key": "other"})
        assert self.ask(again) == (False, False)
        assert self.ask(self.replicas.load_journal(name(1), A)) == {"key": "k", "stored": WORDS}

    def test_an_upload_is_stored_with_the_last_that_is_required(self) -> None:
        self.make(done(upload(1)), replica(1, "a"), replica(1, "b"), replica(1, "c", required=False))
        assert self.store(1, "a", 200.0) == (True, False)
        assert self.get(1).stored_at is None
        assert self.store(1, "b", 201.0) == (True, True)
        assert self.store(1, "c", 202.0) == (True, True)
        assert self.get(1).stored_at == 201.0

    def test_one_that_nobody_requires_makes_no_upload_stored(self) -> None:
        self.make(done(upload(1)), replica(1, required=False))
        assert self.store(1) == (True, False)
        assert self.get(1).stored_at is None

    def test_only_an_open_one_becomes_stored(self) -> None:
        for number in (1, 2, 3):
            self.make(done(upload(number)), replica(number))
        self.store(1, at=200.0)
        self.park(2)
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 200.0, ()))
        before = [self.find(number) for number in (1, 2, 3)]
        assert [self.store(number, at=300.0) for number in (1, 2, 3, 4)] == [(False, False)] * 4
        assert [self.find(number) for number in (1, 2, 3)] == before

    # park, restart

    def test_a_parked_one_waits_for_nothing_and_says_why(self) -> None:
        self.make(done(upload(1)), replica(1, key="k", confirmed=5, **FAILED))
        assert self.park(1) is True
        told = {**FAILED, "error": "denied", "retry_at": None}
        assert self.of(1) == [replica(1, key="k", confirmed=5, state=ReplicaState.PARKED, **told)]
        assert self.park(1) is False and self.park(2) is False

    def test_restart_opens_what_is_parked_as_if_nothing_had_failed(self) -> None:
        self.make(done(upload(1)), *(replica(1, one, **FAILED) for one in "abcd"))
        for one in "abc":
            self.park(1, one)
        assert self.ask(self.replicas.restart(name(1), "a")) == 1
        assert self.ask(self.replicas.restart(name(1), "d")) == 0, "is not parked"
        assert self.of(1)[0] == replica(1, "a")
        assert self.ask(self.replicas.restart(name(1), None)) == 2
        assert self.of(1) == [*(replica(1, one) for one in "abc"), replica(1, "d", **FAILED)]
        assert self.ask(self.replicas.restart(name(2), None)) == 0

    def test_nothing_is_restarted_that_has_no_data_here(self) -> None:
        self.make(done(upload(1)), replica(1), replica(1, B, required=False))
        self.store(1)
        self.park(1, B)
        self.ask(self.replicas.drop([name(1)], 300.0))
        assert self.ask(self.replicas.restart(name(1), None)) == 0
        assert self.find(1, B).state is ReplicaState.PARKED

    # end, ended, forget

    def test_the_end_of_an_upload_ends_what_is_not_stored(self) -> None:
        self.make(done(upload(1)), *(replica(1, one, key="k", **FAILED) for one in "abc"))
        self.store(1, "a")
        self.park(1, "b")
        stored = self.of(1)[0]
        assert self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ())) is True
        ending = ReplicaState.ENDING
        assert self.of(1) == [stored, *(replica(1, one, key="k", state=ending) for one in "bc")]

    def test_with_delete_the_stored_go_too(self) -> None:
        self.make(done(upload(1)), replica(1), replica(1, B))
        self.store(1)
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, (), True))
        assert [(one.state, one.delete) for one in self.of(1)] == [(ReplicaState.ENDING, True)] * 2
        assert self.find(1).key == "k" and self.find(1).stored == WORDS

    def test_what_was_lost_here_stays_where_it_is_stored(self) -> None:
        self.make(done(upload(1)), replica(1), replica(1, B))
        self.store(1)
        self.ask(self.catalog.end(name(1), GoneReason.LOST, 200.0, ()))
        assert [one.state for one in self.of(1)] == [ReplicaState.STORED, ReplicaState.ENDING]

    def test_an_end_that_does_not_land_ends_no_replica(self) -> None:
        self.make(upload(1), replica(1))
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        before = self.of(1)
        assert self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, (), True)) is False
        assert self.of(1) == before

    def test_ended_forgets_the_replica_its_journal_and_its_parts(self) -> None:
        self.make(upload(1), replica(1), replica(1, B))
        for remote in (A, B):
            self.ask(self.replicas.save_part(name(1), remote, 1, "etag"))
        self.ask(self.replicas.ended(self.find(1)))
        assert len(self.of(1)) == 2, "is not ending"
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        self.ask(self.replicas.ended(self.find(1)))
        assert [one.remote for one in self.of(1)] == [B]
        assert self.ask(self.replicas.load_parts(name(1), A)) == {}
        assert self.ask(self.replicas.load_parts(name(1), B)) == {1: "etag"}

    def test_a_forgotten_upload_keeps_only_what_is_ending(self) -> None:
        self.make(done(upload(1)), replica(1), replica(1, B))
        self.make(done(upload(2)), replica(2))
        self.store(1)
        self.store(2)
        self.ask(self.replicas.save_part(name(1), B, 1, "etag"))
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        self.ask(self.catalog.removed([name(1)]))
        assert self.ask(self.catalog.forget(1e9, 10)) == 1
        assert [(one.remote, one.state) for one in self.of(1)] == [(B, ReplicaState.ENDING)]
        assert self.ask(self.replicas.load_parts(name(1), B)) == {1: "etag"}, "it is needed to clear up"
        assert self.ask(self.catalog.has_remains(name(1))) is True
        self.ask(self.replicas.ended(self.find(1, B)))
        assert self.ask(self.catalog.has_remains(name(1))) is False
        assert len(self.of(2)) == 1

    # backlog, owners

    def test_the_backlog_sums_what_is_open(self) -> None:
        assert self.ask(self.replicas.backlog(A)) == Backlog()
        self.make(upload(1, offset=300), replica(1, confirmed=100, needs=900))
        self.make(done(upload(2, touched_at=170.0)), replica(2, confirmed=10))
        self.make(done(upload(3, touched_at=160.0)), replica(3, retry_at=5.0))
        self.make(done(upload(4)), replica(4), replica(4, B))
        self.make(done(upload(5)), replica(5))
        self.make(upload(6, offset=5), replica(6))
        self.store(4)
        self.park(5)
        self.ask(self.catalog.end(name(6), GoneReason.EXPIRED, 200.0, ()))
        assert self.ask(self.replicas.backlog(A)) == Backlog(200 + 990 + 1000, 2, 160.0)
        assert self.ask(self.replicas.backlog(B)) == Backlog(1000, 1, 100.0)

    def test_owners_of_a_key_are_those_in_any_state(self) -> None:
        for number in range(1, 6):
            self.make(done(upload(number)), replica(number, key="k" if number < 5 else None), replica(number, B))
        self.store(1)
        self.park(2)
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 200.0, ()))
        assert self.ask(self.replicas.owners(A, "k")) == [name(number) for number in (1, 2, 3, 4)]
        assert self.ask(self.replicas.owners(B, "k")) == self.ask(self.replicas.owners(A, "other")) == []

    # journal and parts

    def test_a_journal_is_loaded_as_it_was_saved_last(self) -> None:
        self.make(upload(1), replica(1), replica(1, B))
        assert self.ask(self.replicas.load_journal(name(1), A)) is None
        for value in ({"plan": [[8, 2]], "name": "\u2603"}, {"key": None, "size": 1 << 60}):
            self.ask(self.replicas.save_journal(name(1), A, value))
            assert self.ask(self.replicas.load_journal(name(1), A)) == value
        assert self.ask(self.replicas.load_journal(name(1), B)) is None

    def test_parts_are_kept_singly(self) -> None:
        self.make(upload(1), replica(1), replica(1, B))
        for number, value in ((2, "two"), (10_000, "last"), (2, "again")):
            self.ask(self.replicas.save_part(name(1), A, number, value))
        self.ask(self.replicas.save_part(name(1), B, 1, "other"))
        assert self.ask(self.replicas.load_parts(name(1), A)) == {2: "again", 10_000: "last"}
        self.ask(self.replicas.drop_parts(name(1), A))
        assert self.ask(self.replicas.load_parts(name(1), A)) == {}
        assert self.ask(self.replicas.load_parts(name(1), B)) == {1: "other"}

    def test_without_a_replica_nothing_is_saved(self) -> None:
        self.make(upload(1))
        self.ask(self.replicas.save_journal(name(1), A, {}))
        self.ask(self.replicas.save_part(name(1), A, 1, "etag"))
        assert self.ask(self.replicas.load_journal(name(1), A)) is None
        assert self.ask(self.replicas.load_parts(name(1), A)) == {}

    def test_unfinished_are_counted_for_each_remote(self) -> None:
        assert self.ask(self.replicas.unfinished()) == {}
        for number in range(1, 6):
            self.make(done(upload(number)), replica(number), replica(number, B))
        self.store(1)
        self.park(2)
        self.ask(self.catalog.end(name(3), GoneReason.TERMINATED, 200.0, ()))
        assert self.ask(self.replicas.unfinished()) == {A: 3, B: 5}

    # droppable, drop

    def test_droppable_is_what_all_have_that_must(self) -> None:
        self.make(done(upload(1)), replica(1, "a"), replica(1, "b"), replica(1, "c", required=False))
        self.store(1, "a")
        self.store(1, "b")
        assert self.droppable() == [], "best effort is waited for"
        self.park(1, "c")
        assert self.ask(self.replicas.droppable(1e9, 10)) == [self.get(1)]
        self.ask(self.replicas.restart(name(1), "c"))
        assert self.droppable() == []
        self.store(1, "c")
        assert self.droppable() == [name(1)]

    def test_never_droppable_is_what_nobody_has_or_a_required_one_lacks(self) -> None:
        self.make(done(upload(1)))
        self.make(done(upload(2)), replica(2, required=False))
        self.make(done(upload(3)), replica(3), replica(3, B))
        self.park(2)
        self.park(3)
        self.store(3, B)
        assert self.droppable() == []

    def test_what_no_remote_had_to_take_stays_however_many_have_it(self) -> None:
        self.make(done(upload(1)), replica(1, required=False), replica(1, B, required=False))
        self.store(1)
        self.store(1, B)
        assert self.droppable() == [] and self.ask(self.replicas.drop([name(1)], 300.0)) == []

    def test_what_is_gone_is_not_dropped(self) -> None:
        self.make(done(upload(1)), replica(1))
        self.store(1)
        self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()))
        assert self.droppable() == []
        assert self.ask(self.replicas.drop([name(1)], 300.0)) == []

    def test_droppable_are_those_stored_before_a_time_oldest_first(self) -> None:
        for number, at in ((1, 203.0), (2, 201.0), (3, 202.0)):
            self.make(done(upload(number)), replica(number), replica(number, B, required=False))
            self.store(number, A, 200.0)
            self.store(number, B, at)
        assert self.droppable(203.0) == [name(2), name(3)]
        assert self.droppable(limit=1) == [name(2)]

    def test_dropped_data_is_removable_until_removed(self) -> None:
        for number in (1, 2):
            self.make(done(upload(number)), replica(number))
        self.store(1)
        assert self.ask(self.replicas.drop([name(1), name(2), name(3)], 300.0)) == [name(1)]
        assert (self.get(1).dropped_at, self.get(2).dropped_at) == (300.0, None)
        assert self.get(1).gone is None
        assert self.droppable() == [] and self.ask(self.replicas.drop([name(1)], 400.0)) == []
        assert self.ids(self.catalog.removable(10)) == [name(1)]
        self.ask(self.catalog.removed([name(1), name(2)]))
        assert self.ids(self.catalog.removable(10)) == []
        assert self.ask(self.catalog.forget(1e9, 10)) == 0, "it is not gone"

    def test_a_dropped_upload_ends_and_is_forgotten_as_any(self) -> None:
        for number in (1, 2):
            self.make(done(upload(number)), replica(number))
            self.store(number)
            self.ask(self.replicas.drop([name(number)], 300.0))
        self.ask(self.catalog.removed([name(1)]))
        for number in (1, 2):
            self.ask(self.catalog.end(name(number), GoneReason.TERMINATED, 400.0, ()))
        assert self.ids(self.catalog.removable(10)) == [name(2)]
        assert self.ask(self.catalog.forget(1e9, 10)) == 1

    def test_lost_data_is_not_removable_even_when_dropped(self) -> None:
        self.make(done(upload(1)), replica(1))
        self.store(1)
        self.ask(self.catalog.end(name(1), GoneReason.LOST, 300.0, ()))
        self.ask(self.replicas.drop([name(1)], 400.0))
        assert self.ids(self.catalog.removable(10)) == []

    def test_what_was_dropped_has_no_data_to_lose(self) -> None:
        self.make(done(upload(1)), replica(1))
        self.store(1)
        self.ask(self.replicas.drop([name(1)], 300.0))
        assert self.ask(self.catalog.end(name(1), GoneReason.LOST, 400.0, ())) is False
        assert self.ask(self.catalog.end(name(1), GoneReason.TERMINATED, 400.0, ())) is True

    def test_stored_uploads_do_not_expire(self) -> None:
        self.make(done(upload(1)), replica(1))
        self.store(1)
        assert self.ids(self.catalog.expired(1e9, 10)) == []
        self.ask(self.replicas.drop([name(1)], 300.0))
        assert self.ids(self.catalog.expired(1e9, 10)) == []

    # placed files

    def place(self, number: int) -> bool:
        landed: bool = self.ask(self.catalog.placed(name(number), Place("a", "5"), 250.0))
        return landed

    def test_the_data_file_of_a_placed_upload_stays_until_no_replica_needs_it(self) -> None:
        self.make(evolve(done(upload(1)), place=Place("a")), replica(1, "a"), replica(1, "b", required=False))
        assert self.place(1) is True
        self.store(1, "a", 300.0)
        assert self.get(1).dropped_at is None, "best effort is waited for"
        self.store(1, "b", 301.0)
        assert self.get(1).dropped_at == 301.0
        assert self.ids(self.catalog.removable(10)) == [name(1)]

    def test_it_goes_at_once_where_all_replicas_were_stored_or_given_up_before(self) -> None:
        self.make(evolve(done(upload(1)), place=Place("a")), replica(1, "a"), replica(1, "b", required=False))
        self.store(1, "a")
        self.park(1, "b")
        assert self.get(1).dropped_at is None
        assert self.place(1) is True
        assert self.get(1).dropped_at == 250.0

    def test_a_required_replica_that_is_parked_keeps_it(self) -> None:
        self.make(evolve(done(upload(1)), place=Place("a")), replica(1, "a"))
        self.place(1)
        self.park(1, "a")
        assert self.get(1).dropped_at is None
        assert self.ask(self.replicas.restart(name(1), "a")) == 1
        self.store(1, "a", 300.0)
        assert self.get(1).dropped_at == 300.0

    def test_what_has_a_place_is_never_droppable(self) -> None:
        """Else a file that waits for its place could be dropped before it has got there."""
        self.make(evolve(done(upload(1)), place=Place("a")), replica(1, "a"))
        self.store(1, "a")
        assert self.droppable() == [] and self.ask(self.replicas.drop([name(1)], 300.0)) == []

    # facts

    def facts(self) -> list[Fact]:
        return self.told("hook")

    def test_what_is_stored_or_given_up_is_told(self) -> None:
        self.catalog = self.make_catalog(["hook"])
        self.replicas = self.catalog.replicas
        self.make(done(upload(1)), replica(1, "a"), replica(1, "b", required=False), replica(1, "c"))
        self.store(1, "a", 200.0)
        self.park(1, "c")
        self.ask(self.replicas.restart(name(1), "c"))
        self.store(1, "c", 201.0)
        self.store(1, "c", 202.0)
        self.store(1, "b", 203.0)

        it: dict[str, object] = {"length": 1000, "offset": 1000}

        def stored(remote: str, at: float, required: bool) -> Fact:
            place = {"location": "s3://bucket/k", "etag": '"x"', "key": "k", "size": 1000}
            data = {**it, **place, "remote": remote, "required": required}
            return Fact(FactKind.STORED, name(1), at, data)

        assert self.facts() == [
            stored("a", 200.0, True),
            Fact(FactKind.FAILED, name(1), 300.0, {**it, "remote": "c", "reason": "denied"}),
            stored("c", 201.0, True),
            Fact(FactKind.STORED, name(1), 201.0, {**it, "remote": None, "size": 1000}),
            stored("b", 203.0, False),
        ]

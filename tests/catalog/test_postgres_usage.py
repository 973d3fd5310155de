"""What identities have stored, as several workers count it in one database."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import psycopg
import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_connection import connector
from resumable.catalog.postgres.usage_table import Sums, enforce
from resumable.model.upload import Commit, GoneReason, Segment, Upload
from resumable.model.usage import IUsage, Quota
from resumable.protocol.errors import Held, NoSpace, TooLarge, TooManyRequests, UsedUp
from tests.catalog.doubles import HandBatcher
from tests.catalog.on_postgres import with_tables
from tests.postgres import emptied

pytestmark = pytest.mark.process

WORKERS = "0000000000000001", "0000000000000002"
NONE = Quota()


@functools.cache
def shared() -> str:
    url = with_tables()
    with psycopg.connect(url, autocommit=True) as connection:
        for worker in WORKERS:
            connection.execute("INSERT INTO workers (id, node, pid) VALUES (%s, 'here', 1)", (worker,))
    return url


class Worker:
    """A catalog of its own on the database; `do` waits for the answers of some changes that go together."""

    def __init__(self, url: str, worker_id: str) -> None:
        self.batchers: list[HandBatcher] = []

        def make(name: str, work: Callable[[list[Any]], Sequence[Any]]) -> HandBatcher:
            self.batchers.append(HandBatcher(work))
            return self.batchers[-1]

        self.catalog = PostgresCatalog(connector(url), worker_id, batcher=make)
        self.catalog.start()

    def do(self, *changes: Deferred[Any]) -> list[Any]:
        found: list[Any] = [None] * len(changes)
        for number, change in enumerate(changes):
            change.addBoth(lambda result, number=number: found.__setitem__(number, result))
        while any(batcher.jobs for batcher in self.batchers):
            for batcher in self.batchers:
                batcher.flush()
        return [result.value if isinstance(result, Failure) else result for result in found]

    def create(self, *uploads: Upload) -> list[Any]:
        return self.do(*(self.catalog.create(upload, (), segment=segment(upload)) for upload in uploads))

    def one(self, change: Deferred[Any]) -> Any:
        (found,) = self.do(change)
        return found

    def usage(self, owner: str | None) -> Sums:
        return self.one(self.catalog.usage.usage(owner))


def segment(upload: Upload) -> Segment | None:
    return Segment(0, upload.offset, f"{upload.id}.0-w-r") if upload.offset else None


def upload(upload_id: str, length: int | None = 100, owner: str | None = "me", offset: int = 0) -> Upload:
    finished = 2.0 if offset == length else None
    return Upload(upload_id, 1.0, 1.0, length, offset, owner=owner, finished_at=finished)


class Room:
    def __init__(self, url: str) -> None:
        self.url = url
        self.one, self.two = (Worker(url, worker_id) for worker_id in WORKERS)

    def enforce(self, each: Quota = NONE, overall: Quota = NONE) -> bool:
        with connector(self.url)() as raw:
            return enforce(raw, each, overall)

    def recount(self) -> None:
        """As at the first start with bounds."""
        each = self.ask("SELECT each_size, each_unfinished_size, each_unfinished FROM quotas")
        overall = self.ask("SELECT all_size, all_unfinished_size, all_unfinished FROM quotas")
        self.enforce()
        for found in each:
            self.enforce(Quota(*found), Quota(*overall[0]))

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        with connector(self.url)() as raw:
            return raw.execute(statement).fetchall()

    def sums(self) -> dict[str, Sums]:
        rows = self.ask("SELECT owner, size, unfinished_size, unfinished FROM usage")
        return {owner: Sums(*map(int, sums)) for owner, *sums in rows}

    def check(self) -> None:
        """The sums are those that counting everything anew gives."""
        before = self.sums()
        self.recount()
        empty = {"*": Sums()}
        assert {**empty, **before} == {**empty, **self.sums()}


@pytest.fixture
def room() -> Iterator[Room]:
    url = shared()
    emptied(url)
    room = Room(url)
    room.enforce()
    yield room
    room.enforce()
    for worker in (room.one, room.two):
        worker.catalog.stop()


def test_it_provides_the_interface(room):
    assert verifyObject(IUsage, room.one.catalog.usage)


def test_without_bounds_there_is_no_row_no_trigger_and_no_table(room):
    room.one.create(upload("a"))
    assert room.sums() == {}
    assert room.ask("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []
    assert room.ask("SELECT to_regclass('quotas')") == [(None,)]


def test_lengths_and_offsets_count_from_the_creation_to_the_end(room):
    assert room.enforce(Quota(10_000))
    assert room.one.create(upload("known"), upload("deferred", None), upload("theirs", 7, "they")) == [True] * 3
    assert room.two.usage("me") == Sums(100, 100, 2)
    assert room.two.usage("they") == Sums(7, 7, 1) and room.two.usage(None) == Sums(107, 107, 3)
    commit = Commit("deferred", 0, 0, 30, 2.0, segment=Segment(0, 30, "x.0-w-1"))
    assert room.two.one(room.two.catalog.commit(commit))
    assert room.one.usage("me") == Sums(130, 130, 2)
    finish = Commit("known", 0, 0, 100, 2.0, finished=True, segment=Segment(0, 100, "y.0-w-1"))
    assert room.one.one(room.one.catalog.commit(finish))
    assert room.one.usage("me") == Sums(130, 30, 1)
    for upload_id in ("known", "deferred"):
        assert room.two.one(room.two.catalog.end(upload_id, GoneReason.TERMINATED, 9.0, ()))
        room.check()
    assert room.one.usage("me") == Sums() and room.one.usage(None) == Sums(7, 7, 1)
    assert set(room.sums()) == {"*", "u:they"}


def test_an_identity_may_be_called_as_it_likes(room):
    room.enforce(Quota(1000))
    room.one.create(upload("a", 1, "*"), upload("b", 2, ""), upload("c", 4, None), upload("d", 8, "u:*"))
    assert room.one.usage("*") == Sums(1, 1, 1) and room.one.usage(None) == Sums(15, 15, 4)
    assert room.one.usage("") == Sums(6, 6, 2) and room.one.usage("u:*") == Sums(8, 8, 1)


@pytest.mark.parametrize(
    ("each", "overall", "refusal", "words"),
    [
        (Quota(size=150), NONE, NoSpace, "used up"),
        (Quota(unfinished_size=150), NONE, NoSpace, "used up"),
        (Quota(unfinished=1), NONE, TooManyRequests, "Too many"),
        (Quota(size=99), NONE, TooLarge, "all that may be stored"),
        (NONE, Quota(size=150), NoSpace, "used up"),
        (NONE, Quota(unfinished=1), TooManyRequests, "Too many"),
        (NONE, Quota(unfinished_size=99), TooLarge, "all that may be stored"),
    ],
)
def test_what_passes_a_bound_is_refused_with_the_words_for_clients_and_counts_nothing(
    room, each, overall, refusal, words
):
    room.enforce(each, overall)
    found = room.one.create(upload("a")) + room.two.create(upload("b"))
    assert isinstance(found[-1], refusal) and words in found[-1].detail
    if refusal is not TooLarge:
        assert found[0] is True and found[-1].headers == {"Retry-After": "60"}
    assert room.one.one(room.one.catalog.get("b")) is None
    room.check()


def test_a_refused_creation_takes_none_of_those_beside_it_along(room):
    room.enforce(Quota(size=100))
    others = [upload(f"other{number}", 100, f"owner{number}") for number in range(10)]
    found = room.one.create(*others[:5], upload("a", 60), upload("b", 60), *others[5:])
    assert [isinstance(each, NoSpace) for each in found] == [False] * 6 + [True] + [False] * 5
    room.check()


def test_others_have_bounds_of_their_own(room):
    room.enforce(Quota(size=100), Quota(size=250))
    assert room.one.create(upload("a"), upload("b", owner="they")) == [True, True]
    (refused,) = room.two.create(upload("c", owner="somebody"))
    assert isinstance(refused, NoSpace)
    assert room.two.create(upload("d", 50, "somebody")) == [True]


def test_finishing_makes_room_for_unfinished_ones_and_an_end_for_all(room):
    room.enforce(Quota(size=200, unfinished=1))
    assert room.one.create(upload("a")) == [True]
    assert isinstance(room.one.create(upload("b"))[0], TooManyRequests)
    finish = Commit("a", 0, 0, 100, 2.0, finished=True, segment=Segment(0, 100, "y.0-w-1"))
    assert room.two.one(room.two.catalog.commit(finish))
    assert room.one.create(upload("b")) == [True]
    assert isinstance(room.one.create(upload("c", 1))[0], TooManyRequests)
    room.two.one(room.two.catalog.end("a", GoneReason.TERMINATED, 9.0, ()))
    room.two.one(room.two.catalog.end("b", GoneReason.EXPIRED, 9.0, ()))
    assert room.one.create(upload("c", 200)) == [True]


def test_a_length_that_is_told_later_is_refused_if_it_does_not_fit(room):
    room.enforce(Quota(size=150))
    room.one.create(upload("a", 100, offset=100), upload("b", None))
    commit = Commit("b", 0, 0, 0, 2.0, length=60)
    assert isinstance(room.two.one(room.two.catalog.commit(commit)), NoSpace)
    assert room.two.one(room.two.catalog.get("b")).length is None
    assert room.two.one(room.two.catalog.commit(evolve(commit, length=50))) is True
    room.check()


def test_bytes_of_a_deferred_length_are_not_committed_beyond_a_bound(room):
    room.enforce(Quota(size=50))
    room.one.create(upload("b", None))
    commit = Commit("b", 0, 0, 51, 2.0, segment=Segment(0, 51, "x.0-w-1"))
    assert isinstance(room.two.one(room.two.catalog.commit(commit)), TooLarge)
    assert room.two.one(room.two.catalog.get("b")).offset == 0
    assert room.ask("SELECT * FROM segments") == []


# Portions


def test_a_portion_counts_until_the_length_is_known_or_it_is_released(room):
    room.enforce(Quota(size=1000))
    room.one.create(upload("a", None))
    assert room.one.one(room.one.catalog.usage.reserve("a", 400, 0)) is True
    assert room.two.usage("me") == Sums(400, 400, 1)
    assert room.one.one(room.one.catalog.usage.reserve("a", 300, 0)) is True  # it has that
    assert room.two.usage("me") == Sums(400, 400, 1)
    commit = Commit("a", 0, 0, 30, 2.0, segment=Segment(0, 30, "x.0-w-1"), last=False)
    room.one.one(room.one.catalog.commit(commit))
    assert room.two.usage("me") == Sums(400, 400, 1)
    epoch = room.one.one(room.one.catalog.get("a")).epoch
    room.one.one(room.one.catalog.usage.release("a", epoch))
    assert room.two.usage("me") == Sums(30, 30, 1)
    room.check()


def test_a_portion_that_does_not_fit_is_refused_and_counts_nothing(room):
    room.enforce(Quota(size=1000))
    room.one.create(upload("a", None), upload("b", 700))
    usage = room.two.catalog.usage
    assert isinstance(room.two.one(usage.reserve("a", 301, 0)), NoSpace)
    assert isinstance(room.two.one(usage.reserve("a", 1001, 0)), TooLarge)
    assert room.two.usage("me") == Sums(700, 700, 2)
    assert room.two.one(usage.reserve("a", 300, 0)) is True
    assert room.two.usage("me") == Sums(1000, 1000, 2)


def test_an_append_that_was_overtaken_releases_nothing(room):
    room.enforce(Quota(size=1000))
    room.one.create(upload("a", None))
    room.one.one(room.one.catalog.usage.reserve("a", 400, 0))
    assert room.two.one(room.two.catalog.begin("a", 0, 0, "boot", 0, 2.0))
    room.one.one(room.one.catalog.usage.release("a", 0))
    assert room.two.usage("me") == Sums(400, 400, 1)
    room.two.one(room.two.catalog.usage.release("a", 1))
    assert room.two.usage("me") == Sums(0, 0, 1)


@pytest.mark.parametrize("size", [0, 20])
def test_the_next_append_gives_back_what_a_dead_worker_had_reserved_however_small_it_is(room, size):
    """A small one doesn't take the upload; its commit is all that there is of it."""
    room.enforce(Quota(size=1000))
    room.one.create(upload("a", None))
    assert room.one.one(room.one.catalog.begin("a", 0, 0, "boot", 0, 2.0))
    assert room.one.one(room.one.catalog.usage.reserve("a", 400, 1)) is True
    part = Segment(0, 30, "x.0-w-1")
    assert room.one.one(room.one.catalog.commit(Commit("a", 1, 0, 30, 2.0, segment=part, last=False)))
    more = Segment(30, size, "x.30-v-1") if size else None
    assert room.two.one(room.two.catalog.commit(Commit("a", 1, 30, 30 + size, 3.0, segment=more)))
    assert room.two.usage("me") == Sums(30 + size, 30 + size, 1)
    room.check()


def test_an_append_that_was_overtaken_reserves_nothing(room):
    room.enforce(Quota(size=1000))
    room.one.create(upload("a", None))
    assert room.two.one(room.two.catalog.begin("a", 0, 0, "boot", 0, 2.0))
    assert isinstance(room.one.one(room.one.catalog.usage.reserve("a", 400, 0)), Held)
    assert room.two.usage("me") == Sums(0, 0, 1)


def test_nothing_is_reserved_for_an_upload_that_is_gone(room):
    room.enforce(Quota(size=1000))
    room.one.create(upload("a", None))
    room.one.one(room.one.catalog.end("a", GoneReason.TERMINATED, 9.0, ()))
    assert room.one.one(room.one.catalog.usage.reserve("a", 400, 0)) is False
    assert room.one.one(room.one.catalog.usage.reserve("b", 400, 0)) is False


def test_what_a_dead_worker_had_reserved_is_given_back_by_counting(room):
    room.enforce(Quota(size=1000))
    room.one.create(upload("a", None), upload("b", None))
    assert room.one.one(room.one.catalog.begin("b", 0, 0, "boot", 0, 2.0))
    for upload_id, epoch in (("a", 0), ("b", 1)):
        room.one.one(room.one.catalog.usage.reserve(upload_id, 400, epoch))
    room.recount()
    assert room.two.usage("me") == Sums(400, 400, 2)  # an append of a living worker has it


# Bounds that are set, changed and given up


def test_bounds_that_are_set_later_count_what_is_there(room):
    room.one.create(upload("a"), upload("b", None), upload("c", 10, offset=10), upload("d", 5, "they"))
    room.one.one(room.one.catalog.end("d", GoneReason.EXPIRED, 9.0, ()))
    assert room.enforce(Quota(size=150))
    assert room.sums() == {"*": Sums(110, 100, 2), "u:me": Sums(110, 100, 2)}
    assert isinstance(room.two.create(upload("e", 50))[0], NoSpace)


def test_the_same_bounds_again_change_nothing(room):
    assert room.enforce(Quota(size=150))
    before = room.ask("SELECT oid FROM pg_trigger WHERE NOT tgisinternal ORDER BY oid")
    assert not room.enforce(Quota(size=150)) and not room.enforce(Quota(size=150))
    assert room.ask("SELECT oid FROM pg_trigger WHERE NOT tgisinternal ORDER BY oid") == before != []


def test_other_bounds_hold_at_once_at_every_worker_without_counting(room):
    room.enforce(Quota(size=150))
    room.one.create(upload("a"))
    assert not room.enforce(Quota(size=250), Quota(unfinished=2))
    assert room.two.create(upload("b")) == [True]
    assert isinstance(room.one.create(upload("c", 1))[0], TooManyRequests)


def test_a_bound_below_what_is_there_hinders_nobody_from_finishing_or_removing(room):
    room.one.create(upload("a"), upload("b", None))
    room.enforce(Quota(10, 10, 1), Quota(10, 10, 1))
    finish = Commit("a", 0, 0, 100, 2.0, finished=True, segment=Segment(0, 100, "y.0-w-1"))
    assert room.one.one(room.one.catalog.commit(finish)) is True
    assert room.two.one(room.two.catalog.end("a", GoneReason.TERMINATED, 9.0, ())) is True
    room.check()


def test_bounds_that_are_given_up_leave_nothing_behind(room):
    room.enforce(Quota(size=150))
    room.one.create(upload("a"))
    assert not room.enforce()
    assert room.one.create(upload("b", 10_000)) == [True] and room.sums() == {}


def test_sums_beyond_64_bits_are_counted(room):
    room.enforce(NONE, Quota(unfinished=100))
    huge = 2**63 - 1
    assert room.one.create(upload("a", huge), upload("b", huge)) == [True, True]
    assert room.one.usage("me").size == 2 * huge
    room.check()


# In parallel


def test_two_workers_that_create_at_the_same_time_never_pass_a_bound(room):
    room.enforce(Quota(size=2000, unfinished=30), Quota(size=5000))
    accepted: list[Upload] = []
    refused: list[Exception] = []

    def work(worker: Worker, name: str) -> None:
        rng = Random(name)
        for batch in range(12):
            uploads = [
                upload(f"{name}-{batch}-{number}", rng.choice([None, 50, 100, 150]), rng.choice("abc"))
                for number in range(rng.randint(1, 8))
            ]
            for each, result in zip(uploads, worker.create(*uploads), strict=True):
                (accepted if result is True else refused).append(each if result is True else result)
            mine = [each for each in accepted if each.id.startswith(name)]
            if mine and rng.random() < 0.5:
                gone = rng.choice(mine)
                worker.one(worker.catalog.end(gone.id, GoneReason.TERMINATED, 9.0, ()))

    threads = [
        threading.Thread(target=work, args=(worker, name)) for worker, name in ((room.one, "one"), (room.two, "two"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted and refused and {type(each) for each in refused} <= {UsedUp, TooManyRequests}
    sums = room.sums()
    assert sums["*"].size <= 5000
    assert all(each.size <= 2000 and each.unfinished <= 30 for owner, each in sums.items() if owner != "*")
    room.check()

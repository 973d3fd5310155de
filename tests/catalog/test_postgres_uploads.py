"""Several workers over one database: of what can't both be, one lands; and what a worker's row, a batch and its order
mean for changes of uploads."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from twisted.internet.defer import Deferred

from resumable.catalog.postgres import upload_statements as statements
from resumable.catalog.postgres.postgres_batches import LOCK_UPLOADS, SetJob, _statements
from resumable.catalog.postgres.postgres_connection import connector, translated
from resumable.catalog.postgres.segment_table import SegmentTable
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import WHOLE, Commit, Fact, FactKind, GoneReason, Segment
from tests.catalog.contract import done, name, partial, upload
from tests.catalog.faults import outcome
from tests.catalog.lossy import Lossy
from tests.catalog.on_postgres import WORKERS, CatalogOfWorker, shared
from tests.catalog.segment_contract import kept, stretch
from tests.postgres import emptied

pytestmark = pytest.mark.process


def rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(shared(), autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def workers() -> Iterator[list[CatalogOfWorker]]:
    emptied(shared(), keep=("installation",))
    for worker_id in WORKERS:
        rows("INSERT INTO workers (id, node, pid) VALUES (%s, 'here', 1)", worker_id)
    found = [CatalogOfWorker(shared(), worker_id) for worker_id in WORKERS]
    yield found
    for worker in found:
        worker.catalog.stop()


def commit(number: int, start: int, offset: int, epoch: int = 0, **values: Any) -> Commit:
    return Commit(name(number), epoch, start, offset, 150.0, **values)


def kept_by(number: int) -> str | None:
    ((found,),) = rows("SELECT kept_by FROM uploads WHERE id = %s", name(number))
    return None if found is None else str(found)


# Of two, one


def test_of_two_workers_commits_at_one_offset_and_epoch_one_lands(workers: list[CatalogOfWorker]) -> None:
    one, other = workers
    one.ask(one.catalog.create(upload(1), ()))
    answers = [
        worker.catalog.commit(commit(1, 0, size, segment=stretch(0, size, writer=str(size))))
        for worker, size in ((one, 300), (other, 400))
    ]
    other.flush()
    one.flush()
    assert [outcome(answer) for answer in answers] == [False, True]
    layout = one.ask(one.catalog.segments.of(name(1)))
    assert (layout.offset, layout.segments) == (400, kept(stretch(0, 400, writer="400")))


def test_however_batches_of_two_workers_meet_each_offset_is_given_once(workers: list[CatalogOfWorker]) -> None:
    """In opposite orders, with other kinds of changes between them."""
    one, other = workers
    numbers = range(1, 25)
    one.ask_all(*(one.catalog.create(upload(number), ()) for number in numbers))
    epochs = dict.fromkeys(numbers, 0)
    with ThreadPoolExecutor(2) as pool:
        for round in range(10):
            asked: dict[tuple[int, str], list[Deferred[bool]]] = {}
            for worker, order in ((one, numbers), (other, reversed(numbers))):
                for number in order:
                    writer = str(workers.index(worker))
                    start, end, epoch = round * 10, round * 10 + 10, epochs[number]
                    if (number + round) % 3:
                        kind = "commit"
                        answer = worker.catalog.commit(
                            commit(number, start, end, epoch, segment=stretch(start, end, writer=f"{writer}-{number}"))
                        )
                    else:
                        kind = "begin"
                        answer = worker.catalog.begin(name(number), epoch, start, "boot", 0, 150.0)
                    asked.setdefault((number, kind), []).append(answer)
            list(pool.map(CatalogOfWorker.flush, workers))
            for (number, kind), answers in asked.items():
                assert sorted(outcome(answer) for answer in answers) == [False, True]
                if kind == "begin":
                    epochs[number] += 1
                    change = commit(number, round * 10, round * 10 + 10, epochs[number])
                    part = stretch(round * 10, round * 10 + 10, writer=f"t-{number}")
                    assert one.ask(one.catalog.commit(Commit(**{**_values(change), "segment": part})))
    layouts = one.ask(one.catalog.segments.of_many([name(number) for number in numbers]))
    for layout in layouts.values():
        assert [segment.start for segment in layout.segments] == list(range(0, 100, 10))


def _values(change: Commit) -> dict[str, Any]:
    return {each: getattr(change, each) for each in ("upload_id", "epoch", "start", "offset", "at")}


def test_of_two_creations_with_one_id_one_is_made(workers: list[CatalogOfWorker]) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers = [
            [worker.catalog.create(upload(number, metadata=each), ()) for number in order]
            for worker, each, order in ((workers[0], "a", range(20)), (workers[1], "b", range(19, -1, -1)))
        ]
        list(pool.map(CatalogOfWorker.flush, workers))
    one, other = ([outcome(answer) for answer in each] for each in answers)
    assert all(sorted(pair) == [False, True] for pair in zip(one, reversed(other), strict=True))


def test_a_partial_that_ends_is_pinned_or_its_final_is_not_made(workers: list[CatalogOfWorker]) -> None:
    one, other = workers
    with ThreadPoolExecutor(2) as pool:
        for number in range(1, 21):
            one.ask(one.catalog.create(done(partial(number)), ()))
            final = upload(100 + number, concat="final;...", partials=(name(number),))
            made = one.catalog.create(final, ())
            ended = other.catalog.end(name(number), GoneReason.EXPIRED, 200.0, ())
            list(pool.map(CatalogOfWorker.flush, workers))
            assert sorted([outcome(made), outcome(ended)]) == [False, True]


def test_a_final_of_one_request_is_made_once(workers: list[CatalogOfWorker]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for number in range(1, 11):
            answers = [
                worker.catalog.create(
                    upload(number + 100 * at, concat="final;...", partials=(name(99),), asked=str(number)), ()
                )
                for at, worker in enumerate(workers)
            ]
            list(pool.map(CatalogOfWorker.flush, workers))
            assert sorted(outcome(answer) for answer in answers) == [False, True]
    assert rows("SELECT count(*) FROM pins") == rows("SELECT count(*) FROM uploads") == [(10,)]


# A worker's row


def test_a_worker_without_a_row_changes_nothing_and_is_told_once(workers: list[CatalogOfWorker]) -> None:
    one, other = workers
    one.ask(one.catalog.create(upload(1), ()))
    rows("DELETE FROM workers WHERE id = %s", WORKERS[0])
    asked: list[Callable[[], Deferred[Any]]] = [
        lambda: one.catalog.create(upload(2), ()),
        lambda: one.catalog.begin(name(1), 0, 0, "boot", 0, 150.0),
        lambda: one.catalog.commit(commit(1, 0, 10)),
        lambda: one.catalog.end(name(1), GoneReason.TERMINATED, 150.0, ()),
        lambda: one.catalog.segments.joined(name(1), [stretch(0, 1), stretch(1, 2)], stretch(0, 2)),
        lambda: one.catalog.segments.made_whole(name(1)),
        lambda: one.catalog.removed([name(1)]),
    ]
    for ask in asked:
        assert isinstance(one.ask(ask()), CatalogUnavailable)
    assert one.disowned == [WORKERS[0]]
    assert other.ask(other.catalog.get(name(1))) == upload(1)
    assert other.ask(other.catalog.commit(commit(1, 0, 10))) is True
    assert one.ask(one.catalog.get(name(1))).offset == 10, "it may still ask"


def test_the_keeper_is_who_began_until_its_last_commit(workers: list[CatalogOfWorker]) -> None:
    one, other = workers
    one.ask(one.catalog.create(upload(1), ()))
    assert kept_by(1) is None
    one.ask(one.catalog.begin(name(1), 0, 0, "boot", 0, 150.0))
    assert kept_by(1) == WORKERS[0]
    one.ask(one.catalog.commit(commit(1, 0, 10, 1, last=False)))
    assert kept_by(1) == WORKERS[0]
    other.ask(other.catalog.begin(name(1), 1, 10, "boot", 0, 150.0))
    assert kept_by(1) == WORKERS[1]
    assert one.ask(one.catalog.commit(commit(1, 10, 20, 1))) is False
    assert kept_by(1) == WORKERS[1]
    other.ask(other.catalog.commit(commit(1, 10, 1000, 2, finished=True)))
    assert kept_by(1) is None


def test_the_keeper_of_a_new_upload_is_who_goes_on_with_it(workers: list[CatalogOfWorker]) -> None:
    one, _ = workers
    one.ask_all(
        one.catalog.create(upload(1, epoch=1), ()),
        one.catalog.create(upload(2), ()),
        one.catalog.create(done(upload(3, epoch=1)), ()),
    )
    assert [kept_by(number) for number in (1, 2, 3)] == [WORKERS[0], None, None]


# A lost connection


@pytest.mark.parametrize("first", ["before", "after"])
@pytest.mark.parametrize("second", ["before", "after"])
def test_what_is_acknowledged_after_a_lost_connection_has_landed(
    workers: list[CatalogOfWorker], monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    """A batch is never taken for another that has landed."""
    one, _ = workers
    lossy = Lossy(one, monkeypatch)
    one.ask_all(one.catalog.create(upload(1), ()), one.catalog.create(upload(2), ()))
    lossy.loses = first
    answer = one.ask(one.catalog.commit(commit(1, 0, 10)))
    assert isinstance(answer, CatalogUnavailable)
    assert one.ask(one.catalog.get(name(1))).offset == (10 if first == "after" else 0)
    lossy.loses = second
    ended = one.ask(one.catalog.end(name(2), GoneReason.TERMINATED, 200.0, ()))
    found = one.ask(one.catalog.get(name(2)))
    assert (found.gone is not None) == (second == "after")
    assert ended is True if second == "after" else isinstance(ended, CatalogUnavailable)


# A batch


def test_changes_of_one_upload_in_one_batch_take_effect_in_order(workers: list[CatalogOfWorker]) -> None:
    one, _ = workers
    catalog = one.catalog
    answers = one.ask_all(
        catalog.create(upload(1), ()),
        catalog.commit(commit(1, 0, 10, segment=stretch(0, 10))),
        catalog.create(upload(2), ()),
        catalog.commit(commit(1, 10, 20, segment=stretch(0, 20, known=10))),
        catalog.begin(name(1), 0, 20, "boot", 0, 150.0),
        catalog.commit(commit(1, 20, 30)),
        catalog.commit(commit(1, 20, 30, 1, segment=stretch(20, 30))),
        catalog.end(name(2), GoneReason.TERMINATED, 200.0, ()),
        catalog.commit(commit(2, 0, 10)),
        catalog.commit(commit(1, 30, 1000, 1, finished=True, segment=stretch(30, 1000))),
        catalog.segments.made_whole(name(1)),
        catalog.end(name(1), GoneReason.TERMINATED, 300.0, ()),
    )
    assert answers == [True, True, True, True, True, False, True, True, False, True, True, True]
    assert one.ask(catalog.get(name(1))).gone_at == 300.0
    assert one.ask(catalog.segments.of(name(1))).whole


def test_a_join_and_the_commits_around_it_keep_their_order(workers: list[CatalogOfWorker]) -> None:
    one, _ = workers
    one.ask(one.catalog.create(upload(1), ()))
    pieces = [stretch(at, at + 10) for at in (0, 10, 20)]
    both = stretch(0, 20, writer="j")
    answers = one.ask_all(
        *(one.catalog.commit(commit(1, piece.start, piece.start + 10, segment=piece)) for piece in pieces),
        one.catalog.segments.joined(name(1), pieces[:2], both),
        one.catalog.commit(commit(1, 30, 40, segment=stretch(20, 40, known=10))),
        one.catalog.segments.joined(name(1), [both, stretch(20, 40)], stretch(0, 40, writer="k")),
        one.catalog.segments.joined(name(1), [both], stretch(0, 20, writer="l")),
    )
    assert answers == [True, True, True, True, True, False, True]
    layout = one.ask(one.catalog.segments.of(name(1)))
    assert layout.segments == kept(stretch(0, 20, writer="l"), stretch(20, 40))


def test_one_that_is_no_record_fails_alone_among_many(workers: list[CatalogOfWorker]) -> None:
    one, _ = workers
    wrong = {
        3: upload(3, length=10, offset=11),
        7: upload(7, metadata="\0"),
        9: upload(9, metadata="\ud800"),
        10: upload(10, length=1 << 70),
    }
    records = {number: upload(number) for number in range(1, 12)} | wrong
    answers = one.ask_all(*(one.catalog.create(record, ()) for record in records.values()))
    assert [number for number, answer in zip(records, answers, strict=True) if answer is not True] == list(wrong)
    assert all(isinstance(answer, ValueError) for answer in answers if answer is not True), answers
    found = one.ask(one.catalog.get_many([name(number) for number in records]))
    assert found.keys() == {name(number) for number in records.keys() - wrong.keys()}


def test_when_nothing_is_prepared_any_more_it_is_prepared_anew(workers: list[CatalogOfWorker]) -> None:
    """As psycopg may drop all of it after a ROLLBACK."""
    one, _ = workers
    for number in range(3):
        assert one.ask(one.catalog.create(upload(number), ())) is True
        assert one.ask(one.catalog.commit(commit(number, 0, 10))) is True
        one.catalog._batches.open().raw.execute("DEALLOCATE ALL")


def test_any_text_is_text(workers: list[CatalogOfWorker]) -> None:
    one, _ = workers
    texts = ["it's", "a\\'b", "$1 ?1 %s {}", "'; DROP TABLE uploads; --", "\u2603 \U0001f600 \x7f\t\n", '"', "E'\\x'"]
    records = [upload(number, metadata=text, owner=text) for number, text in enumerate(texts)]
    assert one.ask_all(*(one.catalog.create(record, ()) for record in records)) == [True] * len(texts)
    assert one.ask_all(*(one.catalog.get(record.id) for record in records)) == records
    assert one.ask_all(*(one.catalog.commit(commit(number, 0, 10)) for number in range(3))) == [True] * 3
    assert one.ask_all(*(one.catalog.get(text) for text in texts)) == [None] * len(texts)
    assert isinstance(one.ask(one.catalog.get("\0")), ValueError)


def test_after_one_that_fails_the_others_go_on_as_before(workers: list[CatalogOfWorker]) -> None:
    """Also those whose statements were just to be prepared on the server."""
    one, _ = workers
    for round in range(8):
        wrong, right = (one.catalog.create(each, ()) for each in (upload(900, length=1, offset=2), upload(round)))
        begun = one.catalog.begin(name(round), 0, 0, "boot", 0, 150.0) if round else None
        one.flush()
        assert isinstance(outcome(wrong), ValueError) and outcome(right) is True
        assert begun is None or outcome(begun) is True


def test_the_rows_of_a_batch_are_changed_in_the_order_of_ids(workers: list[CatalogOfWorker]) -> None:
    one, _ = workers
    for number in range(1, 30):
        one.catalog.commit(commit(number, 0, 10))
    jobs = [job for job, _ in one.batchers["catalog"].jobs]
    assert all(isinstance(job, SetJob) and job.locks for job in jobs)
    ((_, (values,)),) = _statements(jobs)
    ids = [row["id"] for row in json.loads(values)]
    assert ids == sorted(name(number) for number in range(1, 30))
    one.flush()


def test_a_batch_of_questions_answers_each(workers: list[CatalogOfWorker]) -> None:
    one, _ = workers
    one.ask_all(*(one.catalog.create(upload(number, offset=number), ()) for number in (1, 2, 3)))
    found = one.ask_all(*(one.catalog.get(name(number)) for number in (3, 9, 1, 1)))
    assert [each and each.offset for each in found] == [3, None, 1, 1]


# Facts


def test_of_an_uploads_facts_only_the_first_is_next_for_each_deliverer(workers: list[CatalogOfWorker]) -> None:
    one = CatalogOfWorker(shared(), WORKERS[0], ["hook", "log"])
    facts = [Fact(kind, name(1), 100.0) for kind in (FactKind.CREATED, FactKind.FINISHED)]
    one.ask(one.catalog.create(done(upload(1)), facts, segment=Segment(0, 1000, WHOLE)))
    one.ask(one.catalog.create(upload(2), [Fact(FactKind.CREATED, name(2), 100.0)]))
    one.ask(one.catalog.commit(commit(2, 0, 1000, finished=True, facts=[Fact(FactKind.FINISHED, name(2), 150.0)])))
    found = rows("SELECT deliverer, upload_id, kind, state FROM outbox ORDER BY seq")
    for deliverer, number in itertools.product(("hook", "log"), (1, 2)):
        told = [row[2:] for row in found if row[:2] == (deliverer, name(number))]
        assert told == [("created", "next"), ("finished", "behind")]
    one.catalog.stop()


def test_facts_are_heard_of_only_when_they_are_kept(workers: list[CatalogOfWorker]) -> None:
    heard: list[int] = []
    one = CatalogOfWorker(shared(), WORKERS[0], ["hook"])
    one.catalog.on_facts = lambda: heard.append(1)
    created = Fact(FactKind.CREATED, name(1), 100.0)
    one.ask(one.catalog.create(upload(1), [created]))
    assert heard == [1]
    one.ask(one.catalog.create(upload(1), [created]))
    one.ask(one.catalog.commit(commit(1, 0, 10)))
    assert heard == [1]
    one.catalog.stop()


# How it finds rows


def test_changes_and_questions_go_by_the_id_however_small_the_tables_seem(workers: list[CatalogOfWorker]) -> None:
    """Not by an index of all unfinished uploads, and not row by row."""
    one, _ = workers
    one.ask(one.catalog.create(upload(1), ()))
    found = []
    with connector(shared())() as raw:
        for statement in (
            statements.BEGIN,
            statements.commit(True, True),
            statements.commit(False, False),
            statements.GET,
            LOCK_UPLOADS,
            SegmentTable.MADE_WHOLE,
            SegmentTable.OF,
        ):
            text = translated(statement)
            values = ["[]"] * (1 + ("$2" in text))
            plan = raw.execute(f"EXPLAIN {text}".encode(), values).fetchall()
            found.append("\n".join(row[0] for row in plan))
    for plan in found:
        assert "Seq Scan" not in plan and "uploads_to_expire" not in plan, plan
        assert "uploads_pkey" in plan or "uploads_to_join" in plan, plan


def test_what_has_expired_is_found_without_a_look_at_younger_uploads(workers: list[CatalogOfWorker]) -> None:
    with connector(shared())() as raw:
        text = translated(workers[0].catalog.EXPIRED)
        plan = "\n".join(row[0] for row in raw.execute(f"EXPLAIN {text}".encode(), [1.0, 256]).fetchall())
    assert "uploads_to_expire" in plan and "Index Cond: (created_at <" in plan, plan

"""Bytes in an object store, on PostgreSQL: two workers, a COMMIT whose answer is lost, a worker taken for dead, plans,
and what those pay that have no object store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from resumable.catalog.postgres import upload_statements as statements
from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_batches import _statements, _values
from resumable.catalog.postgres.postgres_connection import Connection, connector, translated
from resumable.catalog.postgres.postgres_schema import STORED
from resumable.catalog.postgres.postgres_uploads import PostgresUploadTable
from resumable.catalog.postgres.stored_table import StoredTable
from resumable.model.errors import CatalogUnavailable
from resumable.model.stored import StoredLayout
from resumable.model.upload import Commit, Fact, FactKind, Piece, Replica, StoreChange
from tests.catalog.contract import done, name, upload
from tests.catalog.doubles import HandBatcher
from tests.catalog.lossy import Lossy
from tests.catalog.on_postgres import WORKERS, CatalogOfWorker, looked_at, shared, with_tables
from tests.catalog.stored_contract import MADE, in_object, in_row, part
from tests.postgres import emptied

pytestmark = pytest.mark.process

MANY = 100_000 if "RESUMABLE_LONG" in os.environ else 6_000


@pytest.fixture
def workers() -> Iterator[list[CatalogOfWorker]]:
    emptied(shared(), keep=("installation",))
    with psycopg.connect(shared(), autocommit=True) as connection:
        for worker_id in WORKERS:
            connection.execute("INSERT INTO workers (id, node, pid) VALUES (%s, 'here', 1)", (worker_id,))
    found = [CatalogOfWorker(shared(), worker_id) for worker_id in WORKERS]
    yield found
    for worker in found:
        worker.catalog.stop()


def commit(start: int, change: StoreChange, end: int, epoch: int = 0, number: int = 1) -> Commit:
    return Commit(name(number), epoch, start, end, 150.0, segment=change)


def layout(worker: CatalogOfWorker, number: int = 1) -> StoredLayout:
    found: StoredLayout = worker.ask(worker.catalog.stored.of(name(number)))
    return found


def test_of_two_appends_of_two_workers_at_one_offset_one_lands(workers: list[CatalogOfWorker]) -> None:
    one, two = workers
    one.ask(one.catalog.create(upload(1), (), segment=StoreChange()))
    pieces = [in_row(0, 10, "one"), in_object(0, 12, "two")]
    answers = [
        worker.catalog.commit(commit(0, StoreChange(piece=piece), piece.size))
        for worker, piece in zip(workers, pieces, strict=True)
    ]
    assert (two.ask(answers[1]), one.ask(answers[0])) == (True, False)
    assert [piece.name for piece in layout(one).pieces] == [pieces[1].name]
    assert layout(two).offset == 12
    # The newer one takes it; what the older one then says of its part is nowhere.
    assert one.ask(one.catalog.begin(name(1), 0, 12, "boot", 0, 150.0)) is True
    assert two.ask(two.catalog.commit(commit(12, StoreChange(1, [part(0, 20)], None, "m"), 20))) is False
    assert two.ask(two.catalog.stored.keep_multipart(name(1), 0, "m")) is False
    assert one.ask(one.catalog.commit(commit(12, StoreChange(1, [part(0, 20)], None, "n"), 20, epoch=1))) is True
    assert (layout(two).multipart, layout(two).parts) == ("n", (part(0, 20),))


def test_changes_of_many_uploads_in_one_batch_fail_alone(workers: list[CatalogOfWorker]) -> None:
    one, _ = workers
    one.ask_all(*(one.catalog.create(upload(number), (), segment=StoreChange()) for number in (1, 2, 3)))
    answers = one.ask_all(
        one.catalog.commit(commit(0, StoreChange(1, [part(0, 10)], None, "m"), 10)),
        one.catalog.commit(commit(0, StoreChange(1, [part(0, 10, 1, "x")], Piece(10, 3, "a", b"abc"), "m"), 13, 0, 2)),
        one.catalog.commit(commit(0, StoreChange(1, [part(2, 10, 1, "y")], None, "m"), 10, 0, 3)),
        one.catalog.commit(commit(10, StoreChange(1, (), Piece(10, 2, "b", b"de")), 12)),
        one.catalog.create(upload(4, offset=2), (), segment=StoreChange(piece=Piece(0, 2, "c", b"fg"))),
        one.catalog.create(done(upload(5)), (), segment=StoreChange(made=MADE)),
    )
    assert answers == [True, True, False, True, True, True]
    assert [layout(one, number).offset for number in range(1, 6)] == [12, 13, 0, 12 - 10, 1000]
    assert one.ask(one.catalog.stored.data_of(name(1), ["a", "b", "c"])) == {"b": b"de"}


BYTES = (bytes(range(256)), b"'", b"\\x27", b"$1?0', '", b"\0\0")


def test_each_piece_has_its_own_bytes_whatever_else_goes_with_it(workers: list[CatalogOfWorker]) -> None:
    """Creations and commits of one batch, with and without replicas, facts, and a piece that is an object."""
    one = CatalogOfWorker(shared(), WORKERS[0], ["hook"])

    def change(start: int, number: int) -> StoreChange:
        data = BYTES[number % len(BYTES)]
        return StoreChange(piece=Piece(start, len(data), f"{number}-{start}", data))

    def create(number: int, change: StoreChange) -> Any:
        facts = [Fact(FactKind.CREATED, name(number), 1.0)] if number % 2 else []
        replicas = [Replica(name(number), "far")] if number % 3 else []
        assert change.piece is not None
        return one.catalog.create(upload(number, offset=change.piece.size), facts, replicas, segment=change)

    def grow(start: int, number: int, change: StoreChange) -> Any:
        assert change.piece is not None
        end, last = start + change.piece.size, number % 3 == 0
        facts = [Fact(FactKind.FINISHED, name(number), 1.0)] if number % 2 else []
        return one.catalog.commit(
            Commit(name(number), 0, start, end, 150.0, end if last else None, last, facts, segment=change)
        )

    numbers = range(12)
    assert set(one.ask_all(*(create(number, change(0, number)) for number in numbers))) == {True}
    later = [
        create(20, StoreChange(piece=in_object(0, 9))),
        *(create(number, change(0, number)) for number in (21, 22)),
    ]
    starts = {number: len(BYTES[number % len(BYTES)]) for number in numbers}
    later += [grow(start, number, change(start, number)) for number, start in starts.items()]
    later.append(grow(9, 20, StoreChange(piece=in_object(9, 30))))
    assert set(one.ask_all(*later)) == {True}
    wanted = [(number, start) for number in numbers for start in (0, starts[number])] + [(21, 0), (22, 0)]
    for number, start in wanted:
        found = one.ask(one.catalog.stored.data_of(name(number), [f"{number}-{start}"]))
        assert found == {f"{number}-{start}": BYTES[number % len(BYTES)]}
    one.catalog.stop()


def test_bytes_of_pieces_are_in_no_json(workers: list[CatalogOfWorker]) -> None:
    """They are read much faster beside it."""
    one, _ = workers
    one.catalog.create(upload(1, offset=2), (), segment=StoreChange(piece=Piece(0, 2, "a", b"ab")))
    one.catalog.create(upload(2, offset=9), (), segment=StoreChange(piece=in_object(0, 9)))
    one.catalog.create(upload(3, offset=3), (), segment=StoreChange(piece=Piece(0, 3, "c", b"cde")))
    one.catalog.create(upload(4), ())
    first, second = _statements([job for job, _ in one.batchers["catalog"].jobs])
    values, data = first[1]
    rows = {row["id"]: row.get("piece_data") for row in json.loads(str(values))}
    assert {each: number and data[number - 1] for each, number in rows.items()} == {
        name(1): b"ab",
        name(2): None,
        name(3): b"cde",
    }
    assert [json.loads(str(each))[0]["id"] for each in second[1]] == [name(4)], "it has no bytes at all"
    one.flush()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_name_tells_whether_a_change_has_landed_whose_answer_was_lost(
    workers: list[CatalogOfWorker], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """And nothing lands once that was looked at: whoever asks takes the upload first."""
    one, two = workers
    lossy = Lossy(one, monkeypatch)
    one.ask(one.catalog.create(upload(1), (), segment=StoreChange()))
    change = commit(0, StoreChange(1, [part(0, 6)], in_object(6, 10), "m"), 10)
    lossy.loses = moment
    assert isinstance(one.ask(one.catalog.commit(change)), CatalogUnavailable)
    landed = moment == "after"
    found = layout(two)
    assert [each.name for each in (*found.parts, *found.pieces)] == ["part-0-w", ".tails/x/6-w"] * landed
    assert two.ask(two.catalog.stored.unknown([".tails/x/6-w"])) == [".tails/x/6-w"] * (not landed)
    assert two.ask(two.catalog.begin(name(1), 0, 10 if landed else 0, "boot", 0, 150.0)) is True
    assert one.ask(one.catalog.commit(change)) is False
    assert layout(two).offset == found.offset


def test_a_worker_that_was_taken_for_dead_records_nothing(workers: list[CatalogOfWorker]) -> None:
    one, two = workers
    one.ask(one.catalog.create(done(upload(1)), (), segment=StoreChange(piece=in_row(0, 1000))))
    before = layout(two)
    with psycopg.connect(shared(), autocommit=True) as connection:
        connection.execute("DELETE FROM workers WHERE id = %s", (WORKERS[0],))
    stored, last = one.catalog.stored, StoreChange(1, [part(0, 1000)], None, "m")
    for ask in (
        lambda: stored.keep_multipart(name(1), 0, "m"),
        lambda: stored.reserve(name(1), 0, 5),
        lambda: stored.unreserve(name(1), 0, 0),
        lambda: stored.add_last(name(1), 0, last),
        lambda: stored.completed(name(1), MADE, 200.0),
        lambda: stored.discard([".tails/x"]),
        lambda: one.catalog.create(upload(2), (), segment=StoreChange()),
    ):
        assert isinstance(one.ask(ask()), CatalogUnavailable)
    assert layout(two) == before
    assert two.ask(two.catalog.stored.unknown([".tails/x"])) == [".tails/x"]


# What others pay


def test_without_an_object_store_statements_say_nothing_of_one(workers: list[CatalogOfWorker]) -> None:
    texts = [statements.BEGIN, *(statements.create(facts, facts) for facts in (True, False))]
    texts += [statements.commit(finishes, facts) for finishes in (True, False) for facts in (True, False)]
    for text in texts:
        assert not any(word in text for word in ("reserved", "multipart", "parts", "pieces", "discarded"))
    one, _ = workers
    one.ask(one.catalog.create(upload(1), ()))
    one.ask(one.catalog.begin(name(1), 0, 0, "boot", 0, 150.0))
    assert layout(one).reserved == 0


def test_no_release_that_knows_of_no_store_comes_once_there_is_one() -> None:
    url = with_tables()
    oldest = "SELECT oldest FROM installation"
    with connector(url)() as raw:
        assert raw.execute(oldest).fetchone() == (1,)
        catalog = PostgresCatalog(connector(url), None, batcher=lambda name, work: HandBatcher(work), stored=True)
        catalog.open()
        assert catalog.agree("s3://bucket") == "s3://bucket"
        catalog.stop()
        assert raw.execute(oldest).fetchone() == (STORED,)
        indexed = raw.execute("""SELECT count(*) FROM pg_indexes WHERE tablename = 'uploads'
            AND indexdef ~ 'multipart|reserved|made'""").fetchone()
        assert indexed == (0,), "rows change in place"
        kept = raw.execute(
            "SELECT attstorage FROM pg_attribute WHERE attname = 'data' AND attrelid = 'pieces'::regclass"
        )
        assert kept.fetchone() in (("e",), (b"e",))


# Plans

ID = "c81e728d9d4c2f636f067f89cc14862c"  # md5('2'); its parts end at 20, its pieces at 40
CHANGE = {"id": ID, "epoch": 1, "start": 40, "offset": 50, "at": 1, "reserved": 9}
PIECE = {"piece_start": 40, "piece_size": 10, "piece_name": "x", "piece_data": bytes(10)}
PARTS = {"first_part": 20, "cut": 50, "parts": [{"start": 20, "size": 30, "number": 3, "name": "n", "receipt": ""}]}
LAST = {"first_part": 20, "cut": 40, "parts": [{"start": 20, "size": 20, "number": 3, "name": "n", "receipt": ""}]}
CREATED = {"id": "new", "created_at": 1, "touched_at": 1, "offset": 50, "epoch": 1, "adoptable": 50, "required": 0}
CREATED["draft"] = False
PLANNED: dict[str, tuple[str, Any]] = {
    "take": (statements.BEGIN, [{**CHANGE, "adoptable": 0, "kept_by": "w"}]),
    "creation": (statements.create(stored=True), [{**CREATED, **PARTS, "first_part": 0, "reserved": 3}]),
    "piece": (statements.commit(finishes=False, facts=False, stored=True), [{**CHANGE, **PIECE}]),
    "part": (statements.commit(finishes=False, facts=False, stored=True), [{**CHANGE, **PARTS}]),
    "last commit": (statements.commit(finishes=True, facts=False, stored=True), [{**CHANGE, **PARTS, "length": 50}]),
    "object": (
        statements.commit(finishes=True, facts=False, stored=True),
        [{**CHANGE, "made": "{}", "cut": 50, "length": 50}],
    ),
    "layout": (StoredTable.OF, [{"id": ID}]),
    "tail": (StoredTable.TAIL_OF, [{"id": ID}]),
    "multipart": (StoredTable.KEEP_MULTIPART, [{**CHANGE, "multipart": "m"}]),
    "number": (StoredTable.RESERVE, [CHANGE]),
    "numbers back": (StoredTable.UNRESERVE, [CHANGE]),
    "last part": (StoredTable.ADD_LAST, [{**CHANGE, **LAST, "id": "finished"}]),
    "completion": (StoredTable.COMPLETED_SILENTLY, [{**CHANGE, "made": "{}", "id": "finished"}]),
}
QUESTIONS = {
    "layouts": (StoredTable.OF_MANY, f"ARRAY['{ID}']"),
    "tails": (StoredTable.TAILS_OF, f"ARRAY['{ID}']"),
    "data": (StoredTable.DATA_OF, f"'{ID}', ARRAY['2.20']"),
    "completable": (StoredTable.COMPLETABLE, "'', 10"),
    "discarded": (StoredTable.DISCARDED, "10"),
    "unknown": (StoredTable.UNKNOWN, "ARRAY['2.20', '.x']"),
    "removed parts": (PostgresUploadTable.DROP_PARTS, f"ARRAY['{ID}']"),
    "removed pieces": (PostgresUploadTable.DROP_PIECES, f"ARRAY['{ID}']"),
}
SMALL = (
    """INSERT INTO uploads (id, created_at, touched_at, length, "offset", epoch, adoptable, finished_at)
        VALUES ('finished', 1, 1, 40, 40, 1, 40, 1)""",
    """INSERT INTO parts (upload_id, start, size, number, name, receipt)
        SELECT 'finished', s, 10, 1, 'f' || s, '' FROM generate_series(0, 10, 10) AS s""",
    """INSERT INTO pieces (upload_id, start, size, name)
        SELECT 'finished', s, 10, '.f' || s FROM generate_series(20, 30, 10) AS s""",
    "ANALYZE",
)
LARGE = (
    f"""INSERT INTO uploads (id, created_at, touched_at, "offset", epoch, adoptable)
        SELECT md5(i::text), 1, 1, 40, 1, 40 FROM generate_series(1, {MANY}) AS i""",
    f"""INSERT INTO parts (upload_id, start, size, number, name, receipt)
        SELECT md5(i::text), s, 10, 1, i || '.' || s, ''
        FROM generate_series(1, {MANY // 2}) AS i, generate_series(0, 10, 10) AS s""",
    f"""INSERT INTO pieces (upload_id, start, size, name, data)
        SELECT md5(i::text), s, 10, i || '.' || s, '0123456789'
        FROM generate_series(1, {MANY // 2}) AS i, generate_series(20, 30, 10) AS s""",
    f"INSERT INTO discarded (name, at) SELECT '.d' || i, i FROM generate_series(1, {MANY}) AS i",
)


def test_plans_of_small_tables_are_good_for_large_ones() -> None:
    """See test_postgres_plans.py."""
    with connector(with_tables())() as raw:
        for statement in SMALL:
            raw.execute(statement)
        raw.execute("SET plan_cache_mode = force_generic_plan", prepare=False)
        connection = Connection(raw)
        for statement, _ in PLANNED.values():
            connection.together([(statement, _values(statement, [[]]))])
        for statement in LARGE:
            raw.execute(statement)
        calls = {
            what: connection._called(statement, _values(statement, [values]))
            for what, (statement, values) in PLANNED.items()
        }
        check(raw, calls)
        raw.execute("ANALYZE")
        for number, (statement, _) in enumerate(QUESTIONS.values()):
            raw.execute(f"PREPARE asked_{number} AS {translated(statement)}".encode(), prepare=False)
        calls |= {what: f"EXECUTE asked_{at} ({values})" for at, (what, (_, values)) in enumerate(QUESTIONS.items())}
        check(raw, calls)


def check(raw: psycopg.Connection[Any], calls: dict[str, str]) -> None:
    for what, call in calls.items():
        with raw.transaction(force_rollback=True):
            row = raw.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {call}".encode(), prepare=False).fetchone()
        assert row is not None
        assert looked_at(row[0][0]["Plan"]) <= 60, f"{what}: {json.dumps(row[0], indent=1)}"

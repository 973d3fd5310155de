"""What start-up asks of the catalog before the reactor runs."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve

from resumable.catalog import replica_table, schema
from resumable.catalog.outbox_table import OutboxTable
from resumable.catalog.replica_table import ReplicaTable
from resumable.catalog.sqlite import OpenedCatalog
from resumable.catalog.upload_listing import Listing
from resumable.catalog.upload_table import UploadTable
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Fact, FactKind, GoneReason, Replica
from tests.catalog.contract import done, final, name, upload
from tests.catalog.doubles import Shelf, first_version, older_version

FEW = (replica_table.OF, ReplicaTable.OWNERS)  # what they sort is one upload's, or one key's


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_the_first_open_creates_and_the_second_finds(shelf: Shelf) -> None:
    first = shelf.catalog()
    assert first.open() == OpenedCatalog(created=True, recovered=None, set_aside=None)
    assert first.stop().called, "never started, closed all the same"
    second = shelf.catalog()
    assert second.open() == OpenedCatalog(created=False, recovered=None, set_aside=None)
    assert second.stop().called


def test_the_code_of_recovery_is_loaded_by_damage_alone(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> list[str]:
        return [name for name in sys.modules if name.startswith("resumable.catalog.recovery")]

    for module in loaded():
        monkeypatch.delitem(sys.modules, module)
    for created in (True, False):
        catalog = shelf.catalog()
        assert catalog.open().created is created
        assert catalog.stop().called
    assert loaded() == []


def test_the_log_of_a_catalog_that_was_taken_away_is_not_the_new_ones(shelf: Shelf) -> None:
    Path(f"{shelf.path}-wal").write_bytes(b"the log of another")
    catalog = shelf.catalog()
    assert catalog.open().created
    assert catalog.stop().called
    kept = [one for one in os.listdir(shelf.directory) if "damaged" in one]
    assert [(shelf.directory / one).read_bytes() for one in kept] == [b"the log of another"]


def test_a_directory_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnavailable) as caught:
        Shelf(tmp_path / "missing").catalog().open()
    assert not caught.value.no_space


def test_only_appends_of_this_boot_with_bytes_to_adopt_are_adoptable(shelf: Shelf) -> None:
    catalog = shelf.running()
    wanted = upload(1, offset=5, adoptable=900, epoch=1, boot_id="this", metadata="m")
    for record in (
        wanted,
        upload(2, offset=5, adoptable=900, epoch=1, boot_id="another"),
        upload(3, offset=5, adoptable=5, epoch=1, boot_id="this"),
        upload(4),
        done(upload(5, boot_id="this")),
        upload(6, offset=5, adoptable=900, boot_id="this", gone=GoneReason.TERMINATED, gone_at=1.0),
    ):
        catalog.create(record, ())
    shelf.flush()
    assert catalog.adoptable("this") == [wanted]
    assert catalog.adoptable("none") == []
    assert catalog.stop().called


def test_adopting_moves_the_offset_within_what_may_be(shelf: Shelf) -> None:
    catalog = shelf.running()
    catalog.create(upload(1, offset=5, adoptable=900, epoch=1, boot_id="this"), ())
    shelf.flush()
    assert not catalog.adopted(name(1), 5, 200.0, ())
    assert not catalog.adopted(name(1), 901, 200.0, ())
    assert not catalog.adopted(name(2), 7, 200.0, ())
    assert catalog.adopted(name(1), 700, 200.0, ())
    assert not catalog.adopted(name(1), 800, 200.0, ()), "nothing more may be"
    found = catalog.get(name(1))
    shelf.flush()
    assert found.result == upload(1, offset=700, adoptable=700, epoch=1, boot_id="this", touched_at=200.0)
    assert catalog.adoptable("this") == []
    assert catalog.stop().called


def test_adopting_the_last_byte_finishes_and_says_so(shelf: Shelf) -> None:
    catalog = shelf.running(deliverers=["hook"])
    catalog.create(upload(1, adoptable=1000, epoch=1, boot_id="this"), ())
    catalog.create(upload(2, adoptable=1000, epoch=1, boot_id="this", length=None), ())
    shelf.flush()
    fact = Fact(FactKind.FINISHED, name(1), 200.0)
    assert catalog.adopted(name(1), 1000, 200.0, [fact])
    assert catalog.adopted(name(2), 1000, 200.0, ())
    assert not catalog.adopted(name(1), 1000, 300.0, [fact])
    found, unknown, due = catalog.get(name(1)), catalog.get(name(2)), catalog.outbox.due("hook", 0.0, 5)
    shelf.flush()
    assert found.result.finished_at == 200.0
    assert not unknown.result.finished
    assert [one.fact for one in due.result] == [fact]
    assert catalog.stop().called


def test_ids_are_all_that_are_known_in_order(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable.catalog.upload_table.IDS_AT_ONCE", 3)
    catalog = shelf.running()
    for number in range(10):
        catalog.create(upload(number), ())
    ended = catalog.end(name(3), GoneReason.EXPIRED, 200.0, ())
    shelf.flush()
    assert ended.result is True
    assert list(catalog.ids()) == [name(number) for number in range(10)]
    assert catalog.stop().called


def test_data_without_a_record_is_lost_and_stays_so(shelf: Shelf) -> None:
    catalog = shelf.running()
    catalog.create(upload(1), ())
    shelf.flush()
    assert catalog.record_lost([name(1), name(2), name(3)], 200.0) == 2
    assert catalog.record_lost([name(2)], 300.0) == 0
    found = catalog.get_many([name(1), name(2)])
    marked, again = (catalog.end(name(1), GoneReason.LOST, at, ()) for at in (250.0, 260.0))
    now, removable, forgotten = catalog.get(name(1)), catalog.removable(10), catalog.forget(1e9, 10)
    shelf.flush()
    assert found.result[name(1)].gone is None
    assert (found.result[name(2)].gone, found.result[name(2)].gone_at) == (GoneReason.LOST, 200.0)
    assert [marked.result, again.result] == [True, False]
    assert now.result.gone is GoneReason.LOST
    assert removable.result == [] and forgotten.result == 0
    assert catalog.stop().called


def test_a_new_deliverer_starts_from_now_and_one_that_returns_too(shelf: Shelf) -> None:
    def facts_of(deliverers: list[str], number: int) -> dict[str, list[str]]:
        catalog = shelf.running(deliverers=deliverers)
        catalog.create(upload(number), [Fact(FactKind.CREATED, name(number), 1.0)])
        answers = {one: catalog.outbox.due(one, 0.0, 10) for one in ("hook", "log")}
        assert catalog.stop().called
        return {one: [event.fact.upload_id for event in answer.result] for one, answer in answers.items()}

    assert facts_of([], 1) == {"hook": [], "log": []}
    assert facts_of(["hook"], 2) == {"hook": [name(2)], "log": []}
    assert facts_of(["hook", "log"], 3) == {"hook": [name(2), name(3)], "log": [name(3)]}
    assert facts_of(["log"], 4) == {"hook": [], "log": [name(3), name(4)]}
    assert facts_of(["hook", "log"], 5) == {"hook": [name(5)], "log": [name(3), name(4), name(5)]}


def test_the_schema_is_reached_by_migrations_from_any_version(tmp_path: Path) -> None:
    for version in range(len(schema.MIGRATIONS)):
        path = str(tmp_path / f"from-{version}")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statements in schema.MIGRATIONS[:version]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
            schema.migrate(connection)
            assert schema.version(connection) == len(schema.MIGRATIONS)
            schema.migrate(connection)


def test_a_catalog_of_the_first_version_keeps_what_it_has(shelf: Shelf) -> None:
    records = [
        upload(1, offset=7, adoptable=9, epoch=3, boot_id="this", metadata="m"),
        done(upload(2)),
        upload(3, gone=GoneReason.TERMINATED, gone_at=200.0),
        upload(4, gone=GoneReason.LOST, gone_at=200.0),
        final(5, [2]),
    ]
    first_version(shelf, records)
    catalog = shelf.catalog()
    assert catalog.open() == OpenedCatalog(created=False)
    assert catalog.adoptable("this") == [records[0]]
    catalog.start()
    found = catalog.get_many([record.id for record in records])
    removable, unassembled = catalog.removable(10), catalog.assemblable("", 10)
    catalog.create(done(upload(6)), (), [Replica(name(6), "s3")])
    stored = catalog.replicas.store(Replica(name(6), "s3"), {}, 300.0)
    droppable, of_old = catalog.replicas.droppable(1e9, 10), catalog.replicas.of(name(2))
    assert catalog.stop().called
    assert found.result == {record.id: record for record in records}
    assert (removable.result, unassembled.result) == ([name(3)], ([name(5)], None))
    assert stored.result == (True, True) and of_old.result == []
    assert [one.id for one in droppable.result] == [name(6)]
    again = shelf.catalog()
    assert again.open() == OpenedCatalog(created=False)
    assert again.stop().called


def test_what_clients_had_signed_their_urls_with_is_not_kept(shelf: Shelf) -> None:
    records = [
        evolve(final(1, [2, 3]), concat=f"final;/files/{name(2)}?token=secret http://h/files/{name(3)}"),
        evolve(final(4, [2]), concat=f"final;/files/{name(2)}"),
        upload(5, concat="partial"),
    ]
    older_version(shelf, 4, records)
    catalog = shelf.running()
    found = catalog.get_many([record.id for record in records])
    assert catalog.stop().called
    assert [found.result[record.id].concat for record in records] == [
        f"final;{name(2)} {name(3)}",
        f"final;/files/{name(2)}",
        "partial",
    ]


def test_the_schema_is_on_the_first_page_alone(shelf: Shelf) -> None:
    """A new first page makes a catalog whole again that has lost its own: see recovery/damaged.py."""
    assert shelf.running().stop().called
    assert Path(shelf.path).read_bytes()[100] == 13, "a leaf of a table"


def test_no_question_looks_at_finished_uploads(shelf: Shelf) -> None:
    """Each goes by an index; what walks through `uploads` itself would cost seconds with a million finished."""
    catalog = shelf.running()
    connection = catalog._batches.open()
    wanted = {
        schema.GET: "uploads_by_id",
        UploadTable.REMOVABLE: "uploads_to_remove",
        UploadTable.EXPIRED: "uploads_to_expire",
        UploadTable.UNASSEMBLED: "COVERING INDEX pins_by_final (final_id>?)",
        UploadTable.PINNING: "PRIMARY KEY (partial_id=? AND final_id>?)",
        UploadTable.SPENT: "uploads_to_drop",
        UploadTable.ASKED: "PRIMARY KEY (key=?)",
        UploadTable.REQUEST: "uploads_by_id",
        UploadTable.OVER: "PRIMARY KEY (key=?)",
        UploadTable.NOT_ASKED: "PRIMARY KEY (key=?)",
        UploadTable.HEARD: "PRIMARY KEY (key=?)",
        UploadTable.USED: "uploads_by_id",
        UploadTable.PINNED: "pins_by_final",
        UploadTable.ADOPTABLE: "uploads_to_expire",
        UploadTable.FINALS_OF: "uploads_by_id",
        UploadTable.FORGETTABLE: "uploads_to_forget",
        UploadTable.COMMIT: "uploads_by_id",
        UploadTable.UNPIN: "pins_by_final",
        UploadTable.END: "uploads_by_id",
        UploadTable.OWNER_OF: "uploads_by_id",
        UploadTable.UNPLACED: "uploads_in_wait (id>?)",
        UploadTable.UNDIGESTED: "uploads_in_wait (id>?)",
        UploadTable.ANNOUNCE: "uploads_by_id",
        UploadTable.SET_DIGEST: "uploads_by_id",
        UploadTable.PLACED: "uploads_by_id",
        OutboxTable.TAKE: "outbox_by_upload (deliverer=? AND upload_id=?)",
        OutboxTable.FRESH: "outbox_by_state (deliverer=? AND state=? AND retry_at=? AND rowid>?)",
        OutboxTable.RIPE: "outbox_by_state (deliverer=? AND state=? AND retry_at<?)",
        OutboxTable.NEXT_DUE: "outbox_by_state (deliverer=? AND state=? AND retry_at>?)",
        OutboxTable.BEHIND: "outbox_by_upload (deliverer=? AND upload_id=? AND rowid>?)",
        OutboxTable.PASS_ON: "INTEGER PRIMARY KEY",
        OutboxTable.STEP_BACK: "outbox_by_upload (deliverer=? AND upload_id=? AND rowid>?)",
        OutboxTable.REPLAY: "outbox_by_upload (deliverer=? AND upload_id=? AND rowid<?)",
        OutboxTable.DEAD: "outbox_by_state (deliverer=? AND state=? AND retry_at=? AND rowid>?)",
        OutboxTable.DEPTH: "COVERING INDEX outbox_by_state (deliverer=?)",
        replica_table.OF: "replicas_by_upload",
        ReplicaTable.GET: "replicas_by_upload",
        ReplicaTable.AT: "INTEGER PRIMARY KEY",
        ReplicaTable.SCAN: "replicas_in_work (remote=? AND rowid>?)",
        ReplicaTable.BACKLOG: "replicas_in_work",
        ReplicaTable.UNFINISHED: "replicas_in_work",
        Listing.UNFINISHED: "uploads_to_expire",
        ReplicaTable.NEXT_RETRY: "replicas_waiting",
        ReplicaTable.OWNERS: "replicas_by_key (remote=? AND key=?)",
        ReplicaTable.DROPPABLE: "uploads_to_drop",
        ReplicaTable.PARTS: "PRIMARY KEY (upload_id=? AND remote=?)",
        ReplicaTable.HASTEN: "replicas_waiting",
        replica_table.END: "replicas_by_upload",
        ReplicaTable.ADVANCE: "replicas_by_upload",
        ReplicaTable.STORE: "replicas_by_upload",
        ReplicaTable.STORED: "replicas_by_upload",
        replica_table.SETTLE: "replicas_by_upload",
        ReplicaTable.RESTART: "replicas_by_upload",
        replica_table.FORGET: "replicas_by_upload",
        replica_table.FORGET_PARTS: "PRIMARY KEY (upload_id=?",
        ReplicaTable.SAVE_PART: "replicas_by_upload",
        ReplicaTable.DROP: "uploads_by_id",
    }
    for query, index in wanted.items():
        values = (None,) * _parameters(query)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
        assert any(index in step for step in plan), (query, plan)
        named = ("SCAN found", "SCAN (subquery")
        scans = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]
        assert all(step.startswith(named) for step in scans), (query, plan)
        sorts = any("TEMP B-TREE" in step for step in plan)
        assert not sorts or query in (UploadTable.ADOPTABLE, OutboxTable.RIPE, *FEW), (query, plan)
    assert catalog.stop().called


def test_an_upload_with_a_replica_costs_one_statement_more(shelf: Shelf) -> None:
    catalog = shelf.running()
    said: list[str] = []
    catalog._batches.open().set_trace_callback(said.append)
    counts = []
    for number, replicas in ((1, []), (2, [Replica(name(2), "s3")])):
        catalog.create(upload(number), (), replicas)
        shelf.flush()
        counts.append(len(said))
        said.clear()
    assert counts[1] == counts[0] + 1, counts
    assert catalog.stop().called


def test_a_fact_costs_one_insert_for_each_deliverer(shelf: Shelf) -> None:
    counts = []
    for number, deliverers in enumerate(([], ["hook"], ["hook", "log"])):
        catalog = shelf.running(deliverers=deliverers)
        said: list[str] = []
        catalog._batches.open().set_trace_callback(said.append)
        catalog.create(upload(number), [Fact(FactKind.CREATED, name(number), 1.0), Fact(FactKind.FAILED, "x", 2.0)])
        shelf.flush()
        assert sum("INSERT INTO outbox" in statement for statement in said) == 2 * len(deliverers)
        counts.append(len(said))
        assert catalog.stop().called
    assert counts == [counts[0], counts[0] + 2, counts[0] + 4]


@pytest.mark.parametrize("tried", [False, True])
def test_what_waits_costs_nothing_until_it_is_due(shelf: Shelf, tried: bool) -> None:
    """Counted in SQLite's own steps: a time of the machine's would tell little."""
    catalog = shelf.running(deliverers=["hook"])
    connection = catalog._batches.open()
    steps = []
    for _ in range(3):
        facts = [Fact(FactKind.CREATED, name(number), 1.0) for number in range(600) for _ in range(3)]
        catalog.create(upload(len(steps)), facts)
        shelf.flush()
        if tried:
            for seq in range(1, len(facts) * (len(steps) + 1) + 1):
                catalog.outbox.failed(seq, "no", 50.0)
            shelf.flush()
        count = [0]
        for counted in (False, True):  # newer SQLites count what it takes to prepare a statement, too
            if counted:
                connection.set_progress_handler(lambda count=count: count.__setitem__(0, count[0] + 1), 1)
            due, coming = catalog.outbox.due("hook", 0.0, 256), catalog.outbox.next_due("hook", 0.0)
            shelf.flush()
        connection.set_progress_handler(None, 0)
        assert len(due.result) == (0 if tried else 256) and coming.result == (50.0 if tried else None)
        steps.append(count[0])
    assert steps[0] == steps[1] == steps[2] > 0
    assert catalog.stop().called


def _parameters(query: str) -> int:
    numbered = [number for number in range(1, 10) if f"?{number}" in query]
    return max(numbered) if numbered else query.count("?")

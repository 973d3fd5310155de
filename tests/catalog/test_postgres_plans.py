"""Questions that come again and again look at what they answer, and at little more, however many rows there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from resumable.catalog.postgres import upload_statements as statements
from resumable.catalog.postgres.postgres_connection import connector, translated
from resumable.catalog.postgres.postgres_outbox import PostgresOutboxTable
from resumable.catalog.postgres.postgres_replicas import PostgresReplicaTable
from resumable.catalog.postgres.postgres_uploads import PostgresUploadTable
from resumable.catalog.postgres.segment_table import SegmentTable
from resumable.catalog.upload_listing import Listing
from tests.catalog.on_postgres import looked_at, with_tables

pytestmark = pytest.mark.process

MANY = 12_000
PAGE = 10
ID = "'c81e728d9d4c2f636f067f89cc14862c'"  # md5('2')
NOW = "extract(epoch FROM now())"
FILL = (
    "INSERT INTO workers (id, node, pid) SELECT 'w' || i, 'here', i FROM generate_series(0, 3) AS i",
    # Unfinished ones, and stored ones that keep their data.
    f"""INSERT INTO uploads (id, created_at, touched_at, length, "offset", epoch, adoptable, required, whole,
            finished_at, stored_at, settled_at)
        SELECT md5(i::text), {NOW}, {NOW}, 200, CASE WHEN i % 2 = 0 THEN 20 ELSE 200 END, 1, 200, 1, i % 2 = 1,
            CASE WHEN i % 2 = 1 THEN 7 END, CASE WHEN i % 2 = 1 THEN 7 END, CASE WHEN i % 2 = 1 THEN 7 END
        FROM generate_series(1, {MANY}) AS i""",
    f"""INSERT INTO segments (upload_id, start, size, name) SELECT md5(i::text), s, 10, i || '.' || s
        FROM generate_series(2, {MANY}, 2) AS i, generate_series(0, 10, 10) AS s""",
    f"""INSERT INTO replicas (upload_id, remote, required, state, confirmed, needs, run, attempts, deletes, holder)
        SELECT md5(i::text), 'a', true, CASE WHEN i % 2 = 1 THEN 'stored' ELSE 'open' END, 0, 100, '', 0, false,
            CASE WHEN i % 3 > 0 THEN 'w' || (i % 4) END FROM generate_series(1, {MANY}) AS i""",
    f"""INSERT INTO outbox (deliverer, upload_id, kind, at, data, state) SELECT 'h', md5(i::text), 'created', 1, '{{}}',
        'next' FROM generate_series(1, {MANY}) AS i""",
    f"INSERT INTO discarded (name, at) SELECT 'd' || i, i FROM generate_series(1, {MANY}) AS i",
    f"INSERT INTO finals (key, id, at) SELECT 'q' || i, md5(i::text), 100 + i FROM generate_series(1, {MANY}) AS i",
    "INSERT INTO outbox (deliverer, upload_id, kind, at, data, state) VALUES ('g', 'x', 'created', 1, '{}', 'next')",
    "ANALYZE",
)
Replicas, Uploads, Events = PostgresReplicaTable, PostgresUploadTable, PostgresOutboxTable
QUESTIONS = {
    "crowded": (SegmentTable.COUNTED, f"'5', {PAGE}"),
    "joinable": (SegmentTable.JOINABLE, f"'', {PAGE}"),
    "discarded": (SegmentTable.DISCARDED, f"{PAGE}"),
    "layout": (SegmentTable.OF, f"""'[{{"id": {ID.replace("'", '"')}}}]'"""),
    "upload": (statements.GET, f"""'[{{"id": {ID.replace("'", '"')}}}]'"""),
    "backlog": (Replicas.HELD, f"'a', {PAGE}, 'w2', 50"),
    "backlog of nobody's": (Replicas.NOT_HELD, f"'a', {PAGE}, 50"),
    "due": (Replicas.OWN_SCAN, f"'a', 1e9, 50, {PAGE}, 'w2'"),
    "due of all": (Replicas.WHOLE_SCAN, f"'a', 1e9, 50, {PAGE}"),
    "due ones": (Replicas.PAIRS, f"ARRAY{list(range(1, PAGE))}"),
    "next retry": (Replicas.NEXT_RETRY, "'a', 'w2'"),
    "holders that are gone": (Replicas.GONE, "'a'"),
    "nobody's": (Replicas.NOBODYS, "'a'"),
    "droppable": (Replicas.DROPPABLE, f"8, {PAGE}"),
    "expired": (Uploads.EXPIRED, f"100, {PAGE}"),
    "removable": (Uploads.REMOVABLE, f"{PAGE}"),
    "forgettable": (Uploads.FORGETTABLE, f"100, {PAGE}"),
    "used partials": (Uploads.SPENT, f"100, {PAGE}"),
    "unplaced": (Uploads.UNPLACED, f"'', {PAGE}"),
    "undigested": (Uploads.UNDIGESTED, f"'', {PAGE}"),
    "finals": (Uploads.UNASSEMBLED, f"'', {PAGE}"),
    "requests of finals": (Uploads.FORGET_ASKED, f"100, {PAGE}"),
    "events": (Events.FRESH, f"'h', 50, {PAGE}"),
    "events again": (Events.RIPE, f"'h', 1e9, {PAGE}"),
    "events behind another hook's": (Events.FRESH, f"'g', 0, {PAGE}"),
    "number of events": (Events.DEPTH, "'g'"),
    "next event": (Events.NEXT_DUE, "'h', 0"),
    "count": (Listing.COUNT_UPLOADS, f"50, {PAGE}"),
}


@pytest.fixture(scope="module")
def raw() -> Iterator[Any]:
    with connector(with_tables())() as raw:
        for statement in FILL:
            raw.execute(statement)
        yield raw


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_looks_at_few_rows(raw: Any, name: str, mode: str) -> None:
    """Also when the server has planned it for whatever values: it does so from the sixth time on."""
    statement, values = QUESTIONS[name]
    raw.execute(f"SET plan_cache_mode = {mode}", prepare=False)
    with raw.transaction(force_rollback=True):
        raw.execute(f"PREPARE question AS {translated(statement)}".encode(), prepare=False)
        call = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE question({values})".encode()
        (found,) = raw.execute(call, prepare=False).fetchone()
    raw.execute("DEALLOCATE question", prepare=False)
    assert looked_at(found[0]["Plan"]) <= 10 * PAGE, json.dumps(found, indent=1)


ONE = json.dumps([{"id": ID.strip("'")}])
CHANGE = {"id": ID.strip("'"), "epoch": 1, "start": 20, "offset": 30, "first": 10, "size": 20, "known": 10}
PINS = f"""INSERT INTO pins (final_id, partial_id)
    SELECT 'f' || i, md5(i::text) FROM generate_series(1, {MANY}) AS i"""
PLANNED = {
    "upload": (statements.GET, ONE),
    "layout": (SegmentTable.OF, ONE),
    "take": (statements.BEGIN, json.dumps([{**CHANGE, "at": 1, "kept_by": "w0"}])),
    "commit": (statements.commit(finishes=False, facts=False), json.dumps([{**CHANGE, "at": 1, "name": "2.10"}])),
    "last commit": (
        statements.commit(finishes=True, facts=False),
        json.dumps([{**CHANGE, "offset": 200, "size": 190, "at": 1, "name": "2.10"}]),
    ),
    "whole": (SegmentTable.MADE_WHOLE, ONE),
}


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_of_a_small_table_is_good_for_a_large_one(name: str) -> None:
    """A connection keeps its plans until the table is analysed, and until then a table may grow a thousandfold."""
    statement, value = PLANNED[name]
    with connector(with_tables())() as raw:
        raw.execute(FILL[0])
        raw.execute("""INSERT INTO uploads (id, created_at, touched_at, "offset", epoch, adoptable, required)
            VALUES ('first', 1, 1, 10, 1, 10, 0)""")
        raw.execute("INSERT INTO segments (upload_id, start, size, name) VALUES ('first', 0, 10, 'first')")
        raw.execute("ANALYZE")
        raw.execute("SET plan_cache_mode = force_generic_plan", prepare=False)
        raw.execute(f"PREPARE planned (json) AS {translated(statement)}".encode(), prepare=False)
        raw.execute(b"EXECUTE planned ('[]')", prepare=False)
        for fill in (*FILL[1:3], *FILL[6:7], PINS):
            raw.execute(fill)
        call = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE planned ('{value}')".encode()
        (found,) = raw.execute(call, prepare=False).fetchone()
    assert looked_at(found[0]["Plan"]) <= PAGE, json.dumps(found, indent=1)

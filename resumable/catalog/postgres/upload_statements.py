"""On PostgreSQL: the statements that do creations, takes, commits and questions for many uploads at once.

Each is one statement over JSON (see `SetJob`), with everything that belongs to the change: the upload's row, its
segment (or what an object store got: `stored_statements`), its replicas, its facts. Invariant: this is written only
where the upload's row has changed.

``(id IN (SELECT ...)) IS TRUE`` looks in a hash of the few rows of the batch; a join would compare each with each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from resumable.catalog.postgres import stored_statements as stores
from resumable.catalog.schema import FIELDS, REPLICA_FIELDS, from_replica, to_digest, to_json, to_placed, to_row
from resumable.model.upload import WHOLE, Commit, Fact, Replica, Segment, StoreChange, Upload

# Neither finished nor gone; in words by which PostgreSQL doesn't look for the rows in the index of all of these.
OPEN: Final = "COALESCE(uploads.finished_at, uploads.gone_at) IS NULL"

_TYPES: Final = {
    **dict.fromkeys(("created_at", "touched_at", "finished_at", "gone_at", "stored_at", "dropped_at"), "float8"),
    **dict.fromkeys(("length", "offset", "epoch", "adoptable", "max_size"), "bigint"),
    **dict.fromkeys(("confirmed", "needs"), "bigint"),
    **dict.fromkeys(("retry_at", "failing_since"), "float8"),
    **dict.fromkeys(("required", "attempts"), "integer"),
    "draft": "boolean",
}
_NAMES: Final = FIELDS.split(", ")
_REPLICA_NAMES: Final = (*REPLICA_FIELDS.removesuffix(", seq").split(", "), "journal", "holder")
_REPLICA_TYPES: Final = {**_TYPES, "required": "boolean", "deletes": "boolean"}


def _columns(names: Sequence[str], types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {types.get(name, 'text')}" for name in names)


def _present(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What is None is left out: no name is NULL there."""
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


# Segments

_SEGMENT: Final = "first bigint, size bigint, known bigint, name text, whole boolean"


def segment_row(segment: Segment | None, start: int, offset: int, finished: bool) -> dict[str, Any]:
    """What a change from ``start`` to ``offset`` has of its segment.

    One that brings all bytes of a finished upload and names no segment has them in the file under the upload's id.
    Raises ValueError for a segment that doesn't end at ``offset``, or whose known bytes don't end at ``start``.
    """
    if segment is None:
        return {"whole": True} if finished and start == 0 and offset > 0 else {}
    if segment.name == WHOLE:
        if not finished or start or segment.start:
            raise ValueError(f"only all bytes of a finished upload are whole, not those from {start} to {offset}")
        return {"whole": True}
    if segment.start + segment.known != start or segment.start + segment.size != offset or offset == start:
        raise ValueError(f"the segment {segment} has not the bytes from {start} to {offset}")
    return {"first": segment.start, "size": segment.size, "known": segment.known, "name": segment.name}


# Replicas and facts

ADD_REPLICAS: Final = f"""INSERT INTO replicas ({", ".join(_REPLICA_NAMES)}) SELECT {", ".join(_REPLICA_NAMES)}
    FROM json_to_recordset(?1) AS replica(i integer, {_columns(_REPLICA_NAMES, _REPLICA_TYPES)}) ORDER BY i"""
"""The replicas of a new upload: `replica_rows`."""
TAKE: Final = """INSERT INTO outbox (deliverer, upload_id, kind, at, data, state)
    SELECT taker, fact.upload_id, kind, fact.at, data, CASE WHEN follows OR EXISTS (SELECT 1 FROM outbox AS earlier
        WHERE earlier.deliverer = taker AND earlier.upload_id = fact.upload_id AND earlier.dead_at IS NULL)
        THEN 'behind' ELSE 'next' END
    FROM json_to_recordset(?{number}) AS fact(changed text, i integer, upload_id text, kind text, at float8, data text,
        follows boolean, takers text[]) CROSS JOIN unnest(takers) AS taker
    WHERE (changed IN (SELECT id FROM {of})) IS TRUE ORDER BY i"""


def replica_rows(upload_id: str, replicas: Sequence[Replica], worker_id: str | None) -> list[dict[str, Any]]:
    """The replicas of a new upload, with their intents, for a statement; ``worker_id`` sends them."""
    rows = []
    for number, replica in enumerate(replicas):
        journal = None if replica.intent is None else to_json(replica.intent)
        row = _present(_REPLICA_NAMES, (*from_replica(upload_id, replica)[:-1], journal, worker_id))
        rows.append({"i": number, **row})
    return rows


def fact_rows(upload_id: str, facts: Sequence[Fact], deliverers: Sequence[str]) -> list[dict[str, Any]]:
    """The facts of one change of that upload, for a statement. Raises TypeError for data that is no JSON."""
    rows: list[dict[str, Any]] = []
    for number, fact in enumerate(facts):
        values = {"upload_id": fact.upload_id, "kind": fact.kind.value, "at": fact.at, "data": to_json(fact.data)}
        follows = any(row["upload_id"] == fact.upload_id for row in rows)
        rows.append({"changed": upload_id, "i": number, **values, "follows": follows, "takers": deliverers})
    return rows


# Creation

_CREATED: Final = f"{_columns(_NAMES, _TYPES)}, kept_by text"
_WITH_SEGMENT: Final = (
    f"job AS (SELECT * FROM json_to_recordset(?1) AS job({_CREATED}, {_SEGMENT}))",
    f"""made AS (INSERT INTO uploads ({FIELDS}, kept_by, whole)
        SELECT {FIELDS}, kept_by, COALESCE(whole, false) FROM job ON CONFLICT (id) DO NOTHING RETURNING id)""",
    """added AS (INSERT INTO segments (upload_id, start, size, name)
        SELECT id, first, size, name FROM job WHERE name IS NOT NULL AND (id IN (SELECT id FROM made)) IS TRUE)""",
)
_STORED: Final = (
    f"job AS (SELECT * FROM json_to_recordset(?1) AS job({_CREATED}, {stores.COLUMNS}))",
    f"""made AS (INSERT INTO uploads ({FIELDS}, kept_by, whole, made, multipart, reserved)
        SELECT {FIELDS}, kept_by, made IS NOT NULL, made, multipart, COALESCE(reserved, 0) FROM job
        ON CONFLICT (id) DO NOTHING RETURNING id)""",
    *stores.NEW,
)


@cache
def create(replicas: bool = False, facts: bool = False, stored: bool = False) -> str:
    """The statement over `upload_row`, and `replica_rows` and `fact_rows` where there are any. ``stored``: with a
    StoreChange."""
    parts = [*(_STORED if stored else _WITH_SEGMENT)]
    if replicas:
        only = "WHERE (upload_id IN (SELECT id FROM made)) IS TRUE ORDER BY"
        parts.append(f"copied AS ({ADD_REPLICAS.replace('?1', '?2').replace('ORDER BY', only)})")
    if facts:
        parts.append(f"told AS ({TAKE.format(number=3 if replicas else 2, of='made')})")
    return f"WITH {', '.join(parts)} SELECT id FROM made"


def upload_row(upload: Upload, segment: Segment | StoreChange | None, worker_id: str | None) -> dict[str, Any]:
    """A new upload, of which ``worker_id`` has an append under way if its epoch says so. See `segment_row`."""
    row = _present(_NAMES, to_row(upload))
    if upload.epoch and worker_id is not None and not upload.finished:
        row["kept_by"] = worker_id
    if isinstance(segment, StoreChange):
        return row | stores.new_row(segment, upload.offset, upload.finished)
    return row | segment_row(segment, 0, upload.offset, upload.finished)


# Appends

#: So that the plan goes by the index, also one that was made when the table had few rows.
ONLY_THESE: Final = "uploads.id = ANY(ARRAY(SELECT id FROM job))"
BEGIN: Final = f"""WITH job AS (SELECT * FROM json_to_recordset(?1) AS job(id text, epoch bigint, start bigint,
        boot_id text, adoptable bigint, at float8, kept_by text))
    UPDATE uploads SET epoch = uploads.epoch + 1, boot_id = job.boot_id,
        adoptable = GREATEST(uploads.offset, job.adoptable), touched_at = GREATEST(uploads.touched_at, job.at),
        kept_by = job.kept_by
    FROM job WHERE {ONLY_THESE} AND uploads.id = job.id
        AND uploads.offset = job.start AND uploads.epoch = job.epoch AND {OPEN}
    RETURNING uploads.id"""

_CHANGED: Final = """id text, epoch bigint, start bigint, offset bigint, at float8, length bigint,
    goes_on boolean, placed text, digest text"""
# The last commit of an append gives back what was reserved ahead, by whomever.
_MOVED: Final = """offset = job.offset, touched_at = GREATEST(uploads.touched_at, job.at),
    length = COALESCE(job.length, uploads.length), digest = COALESCE(job.digest, uploads.digest),
    kept_by = CASE WHEN job.goes_on THEN uploads.kept_by END,
    charged = CASE WHEN job.goes_on THEN uploads.charged ELSE 0 END"""
_FINISHED: Final = """adoptable = job.offset, finished_at = GREATEST(uploads.touched_at, job.at),
    placed = COALESCE(uploads.placed, job.placed)"""
# The partials of a final that is finished are used, and its request is over.
_OF_FINALS: Final = (
    """unpinned AS (DELETE FROM pins USING moved WHERE final_id = ANY(ARRAY(SELECT id FROM moved WHERE is_final))
        AND final_id = moved.id RETURNING partial_id, moved.at)""",
    """used AS (UPDATE uploads SET settled_at = GREATEST(settled_at, pinned.at)
        FROM (SELECT partial_id, MAX(at) AS at FROM unpinned GROUP BY partial_id) AS pinned
        WHERE uploads.id = ANY(ARRAY(SELECT partial_id FROM unpinned)) AND uploads.id = partial_id AND gone IS NULL)""",
    """answered AS (UPDATE finals SET at = moved.at, said = NULL FROM moved
        WHERE finals.key = ANY(ARRAY(SELECT asked FROM moved WHERE is_final))
        AND finals.key = moved.asked AND finals.id = moved.id)""",
)
_IS_OUT_OF_DATE: Final = """name IS NOT NULL AND id NOT IN (SELECT upload_id FROM grown)
    AND id NOT IN (SELECT upload_id FROM added)"""


_GROWN: Final = (
    """grown AS (UPDATE segments SET size = moved.size FROM moved
        WHERE segments.name = ANY(ARRAY(SELECT name FROM moved)) AND moved.known > 0
        AND segments.upload_id = moved.id AND segments.start = moved.first
        AND segments.name = moved.name AND segments.size = moved.known RETURNING upload_id)""",
    """added AS (INSERT INTO segments (upload_id, start, size, name)
        SELECT id, first, size, name FROM moved WHERE known = 0
        ON CONFLICT DO NOTHING RETURNING upload_id)""",
)


@cache
def commit(finishes: bool, facts: bool, stored: bool = False) -> str:
    """The statement over `commit_row`, and `fact_rows` where there are any. ``stored``: with a StoreChange."""
    more = f"adoptable = GREATEST(uploads.adoptable, job.offset), {_MOVED}"
    columns, told = (stores.COLUMNS, stores.TOLD) if stored else (_SEGMENT, "job.first, job.size, job.known, job.name")
    told = f"job.id, job.at, {told}"
    if finishes:
        whole = stores.FINISHED if stored else "whole = uploads.whole OR COALESCE(job.whole, false)"
        more = f"{_FINISHED}, {whole}, {_MOVED}"
        told += ", uploads.partials IS NOT NULL AS is_final, uploads.asked"
    if stored:
        more += f", {stores.MOVED}"
    parts = [
        f"job AS (SELECT * FROM json_to_recordset(?1) AS job({_CHANGED}, {columns}))",
        f"""moved AS (UPDATE uploads SET {more} FROM job
            WHERE {ONLY_THESE} AND uploads.id = job.id
            AND uploads.offset = job.start AND uploads.epoch = job.epoch AND {OPEN}
            RETURNING {told})""",
        *((stores.CHANGED_LAST if finishes else stores.CHANGED) if stored else _GROWN),
        *(_OF_FINALS if finishes else ()),
    ]
    if facts:
        parts.append(f"told AS ({TAKE.format(number=2, of='moved')})")
    landed = f"SELECT id, CASE WHEN {_IS_OUT_OF_DATE} THEN resumable_conflict() END FROM moved"
    return f"WITH {', '.join(parts)} {stores.LANDED if stored else landed}"


def commit_row(change: Commit) -> dict[str, Any]:
    """Raises ValueError for an offset that goes back; see `segment_row`."""
    if change.offset < change.start:
        raise ValueError(f"a commit from {change.start} back to {change.offset}")
    row = {"id": change.upload_id, "epoch": change.epoch, "start": change.start, "offset": change.offset}
    row |= _present(("at", "length"), (change.at, change.length))
    if not change.last:
        row["goes_on"] = True
    if change.finished and change.place is not None:
        row["placed"] = to_placed(change.place)
    if (digest := to_digest(change.digest, change.digest_due)) is not None:
        row["digest"] = digest
    if isinstance(change.segment, StoreChange):
        return row | stores.stored_row(change.segment, change.start, change.offset, change.finished)
    return row | segment_row(change.segment, change.start, change.offset, change.finished)


# Questions

GET: Final = f"""SELECT {", ".join(f"uploads.{name}" for name in _NAMES)} FROM uploads
    WHERE id = ANY(ARRAY(SELECT id FROM json_to_recordset(?1) AS job(id text)))"""

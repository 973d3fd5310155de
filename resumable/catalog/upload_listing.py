"""IListing: rows are read in the order of creation, `ROWS` of them in each job.

Invariant: the text of a statement holds nothing that was asked for, only values do; no job looks at more than `ROWS`
rows. Spec: https://www.sqlite.org/rowidtable.html (``seq`` is the rowid).
"""

from __future__ import annotations

from collections import Counter
from sqlite3 import Connection
from typing import Any, Final

from zope.interface import implementer

from resumable.catalog.jobs import CatalogTable, reads
from resumable.catalog.replica_table import replicas_of
from resumable.catalog.schema import FIELDS, LIMIT, NEEDS_EXPIRY, to_upload
from resumable.model.listing import Counted, Filter, Found, IListing, Parked, UploadState
from resumable.model.upload import ReplicaState

ROWS: Final = 500
"""Rows of one job, which takes a millisecond or two: commits wait for it."""

_STATE: Final = """CASE WHEN gone IS NOT NULL THEN 'gone' WHEN stored_at IS NOT NULL THEN 'stored'
    WHEN finished_at IS NOT NULL THEN 'finished' WHEN partials IS NOT NULL THEN 'assembling' ELSE 'uploading' END"""
_OLDEST: Final = "WHERE seq > ? ORDER BY seq LIMIT ?"
_NEWEST: Final = "WHERE seq < ? ORDER BY seq DESC LIMIT ?"
_NAMED: Final = "id >= ? AND id < ?"
# By the index on ids, never in the order of seq: those that match are few.
_FEW_OLDEST: Final = f"WHERE {_NAMED} AND seq + 0 > ? ORDER BY seq + 0 LIMIT ?"
_FEW_NEWEST: Final = f"WHERE {_NAMED} AND seq + 0 < ? ORDER BY seq + 0 DESC LIMIT ?"
_REPLICA: Final = """EXISTS (SELECT 1 FROM replicas WHERE upload_id = uploads.id
    AND remote = COALESCE(?, remote) AND state = COALESCE(?, state))"""

_COMPARED: Final = {
    "owner": "COALESCE(owner, '') = ?",
    "created_after": "created_at >= ?",
    "created_before": "created_at < ?",
    "finished_after": "finished_at >= ?",
    "finished_before": "finished_at < ?",
    "idle_since": "touched_at < ?",
    "min_size": "COALESCE(length, offset) >= ?",
}


@implementer(IListing)
class Listing(CatalogTable):
    """IListing, over the tables of uploads and replicas."""

    AT = f"SELECT {FIELDS} FROM uploads WHERE seq = ?"

    @reads
    def look(
        self, connection: Connection, wanted: Filter, place: int | None, limit: int, newest: bool = False
    ) -> Found:
        condition, values = _condition(wanted)
        start, order = (LIMIT, _NEWEST) if newest else (0, _OLDEST)
        # The few columns that decide; the rest is only read of those that match.
        named: tuple[str, ...] = ()
        if wanted.id_prefix is not None and self._are_few(connection, wanted.id_prefix):
            order, named = _FEW_NEWEST if newest else _FEW_OLDEST, _between(wanted.id_prefix)
        scan = f"SELECT seq, {condition} FROM uploads {order}"
        rows = connection.execute(scan, (*values, *named, start if place is None else place, ROWS)).fetchall()
        matching = [number for number, (_, matches) in enumerate(rows) if matches][:limit]
        uploads = [to_upload(connection.execute(self.AT, (rows[number][0],)).fetchone()) for number in matching]
        found = [(upload, replicas_of(connection, upload.id)) for upload in uploads]
        end = matching[-1] + 1 if len(matching) == limit else len(rows)
        return Found(found, _place(rows[:end], end == len(rows)))

    FEW = f"SELECT COUNT(*) FROM (SELECT 1 FROM uploads WHERE {_NAMED} LIMIT ?) AS few"

    def _are_few(self, connection: Connection, prefix: str) -> bool:
        """Whether so few ids begin with it that all of them may be looked at."""
        return int(connection.execute(self.FEW, (*_between(prefix), ROWS + 1)).fetchone()[0]) <= ROWS

    COUNT_UPLOADS = f"SELECT seq, {_STATE} FROM uploads {_OLDEST}"

    @reads
    def count_uploads(self, connection: Connection, place: int | None) -> Counted:
        rows = connection.execute(self.COUNT_UPLOADS, (place or 0, ROWS)).fetchall()
        return Counted(uploads=Counter(UploadState(state) for _, state in rows), place=_place(rows))

    COUNT_REPLICAS = f"SELECT seq, remote, state FROM replicas {_OLDEST}"

    @reads
    def count_replicas(self, connection: Connection, place: int | None) -> Counted:
        rows = connection.execute(self.COUNT_REPLICAS, (place or 0, ROWS)).fetchall()
        found = Counter((remote, ReplicaState(state)) for _, remote, state in rows)
        return Counted(replicas=found, place=_place(rows))

    PARKED = f"SELECT seq, CASE WHEN remote = ? AND state = 'parked' THEN upload_id END FROM replicas {_OLDEST}"

    @reads
    def parked(self, connection: Connection, remote: str, place: int | None) -> Parked:
        rows = connection.execute(self.PARKED, (remote, place or 0, ROWS)).fetchall()
        return Parked([upload_id for _, upload_id in rows if upload_id is not None], _place(rows))

    UNFINISHED = f"SELECT COUNT(*) FROM uploads WHERE {NEEDS_EXPIRY}"

    @reads
    def unfinished(self, connection: Connection) -> int:
        return int(connection.execute(self.UNFINISHED).fetchone()[0])


def _place(rows: list[tuple[Any, ...]], read_all: bool = True) -> int | None:
    return None if not rows or (read_all and len(rows) < ROWS) else int(rows[-1][0])


def _between(prefix: str) -> tuple[str, str]:
    """The least text that begins with ``prefix``, and the least above all of those."""
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _condition(wanted: Filter) -> tuple[str, list[object]]:
    """An expression and its values."""
    states = sorted(state.value for state in wanted.states)
    among = f"({_STATE}) IN ({', '.join('?' * len(states))})" if states else "0 = 1"
    conditions, values = [among], list[object](states)
    for name, condition in _COMPARED.items():
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if wanted.id_prefix is not None:
        conditions.append(_NAMED)
        values += _between(wanted.id_prefix)
    if wanted.remote is not None or wanted.replica is not None:
        conditions.append(_REPLICA)
        values += [wanted.remote, None if wanted.replica is None else wanted.replica.value]
    return " AND ".join(conditions), values

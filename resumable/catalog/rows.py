"""How a record becomes a row and back. Invariant: a row that is read back gives an equal record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from sqlite3 import Connection
from typing import Any, Final

from resumable.model.upload import GoneReason, Place, Replica, ReplicaState, Upload

FIELDS: Final = (
    "id, created_at, touched_at, length, offset, metadata, concat, partials, "
    "finished_at, gone, gone_at, epoch, boot_id, adoptable, required, stored_at, dropped_at, owner, max_size, "
    "placed, asked"
)
INSERT: Final = f"INSERT INTO uploads ({FIELDS}) VALUES ({', '.join('?' * 21)})"
GET: Final = f"SELECT {FIELDS} FROM uploads WHERE id = ?"
REPLICA_FIELDS: Final = (
    "upload_id, remote, required, state, key, confirmed, needs, run, "
    "attempts, error, retry_at, failing_since, stored_at, stored, deletes, seq"
)

_GONE = {gone.value: gone for gone in GoneReason}
_STATES = {state.value: state for state in ReplicaState}


def to_row(upload: Upload) -> tuple[object, ...]:
    """The values of FIELDS; ``adoptable`` is never below the offset."""
    return (
        upload.id,
        upload.created_at,
        upload.touched_at,
        upload.length,
        upload.offset,
        upload.metadata,
        upload.concat,
        " ".join(upload.partials) if upload.partials else None,
        upload.finished_at,
        None if upload.gone is None else upload.gone.value,
        upload.gone_at,
        upload.epoch,
        upload.boot_id,
        max(upload.offset, upload.adoptable),
        upload.required,
        upload.stored_at,
        upload.dropped_at,
        upload.owner,
        upload.max_size,
        to_placed(upload.place),
        upload.asked,
    )


def to_upload(row: tuple[Any, ...]) -> Upload:
    """The record of one row of FIELDS."""
    upload_id, created, touched, length, offset, metadata, concat, listed, finished, gone, gone_at, *others = row
    others[-2] = None if others[-2] is None else _to_place(others[-2])
    return Upload(
        upload_id,
        created,
        touched,
        length,
        offset,
        metadata,
        concat,
        () if listed is None else tuple(listed.split(" ")),
        finished,
        None if gone is None else _GONE[gone],
        gone_at,
        *others,
    )


def to_uploads(rows: Iterable[tuple[Any, ...]]) -> list[Upload]:
    """The records of rows of FIELDS."""
    return [to_upload(row) for row in rows]


def find_upload(connection: Connection, upload_id: str) -> Upload | None:
    """The upload of that id, gone or not; None: there is no record."""
    row = connection.execute(GET, (upload_id,)).fetchone()
    return None if row is None else to_upload(row)


def to_placed(place: Place | None) -> str | None:
    """The value of the column ``placed``: see schema.py."""
    return None if place is None else f"{place.stamp or '>'} {place.path}"


def _to_place(placed: str) -> Place:
    stamp, _, path = placed.partition(" ")
    return Place(path, None if stamp == ">" else stamp)


def to_replica(row: tuple[Any, ...]) -> Replica:
    """The record of one row of REPLICA_FIELDS."""
    upload_id, remote, required, state, *work, stored, deletes, seq = row
    words = None if stored is None else json.loads(stored)
    values = (upload_id, remote, bool(required), _STATES[state], *work, words, bool(deletes), seq)
    return Replica(*values)


def from_replica(upload_id: str, replica: Replica) -> tuple[object, ...]:
    """The values of REPLICA_FIELDS for a new row of that upload: the database gives it its ``seq``."""
    return (
        upload_id,
        replica.remote,
        replica.required,
        replica.state.value,
        replica.key,
        replica.confirmed,
        replica.needs,
        replica.run,
        replica.attempts,
        replica.error,
        replica.retry_at,
        replica.failing_since,
        replica.stored_at,
        None if replica.stored is None else to_json(replica.stored),
        replica.delete,
        None,
    )


def to_json(value: Mapping[str, Any]) -> str:
    """The object as compact JSON text."""
    return json.dumps(dict(value), ensure_ascii=False, separators=(",", ":"))

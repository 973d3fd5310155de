"""The catalog's tables, the migrations that lead to them, and how a record becomes a row and back.

A record that gains or loses a field needs a new migration; an old one is never edited. Invariant: the tables are made
by the same statements in the same order everywhere, so the first page of a fresh catalog fits any other of its version
(recovery relies on that). ``PRAGMA user_version`` counts the migrations that have run:
https://www.sqlite.org/pragma.html#pragma_user_version

``uploads`` keeps its rows in the order of creation and finds them by an index on the random id: rows that are
being appended to are young and share pages, so a batch of commits touches few of them. ``pins`` names the partials that
unfinished finals need. Every partial index covers only rows that some work waits for, so a million finished uploads
cost these queries nothing. ``settled_at`` is set while an upload has its data here and doesn't need it: it is the time
when the last of its replicas was stored or, of a partial, when the last final that used it was finished.

``finals`` has a row for each final upload whose request may come again: ``key`` is that request's digest (``asked``
in ``uploads``), ``at`` is when it was over, and ``said`` is the request for hooks before that, a refusal after it.

All of the schema has to fit the first page; SQLite keeps the text of each statement, so they run without the spaces
that they are laid out with. A catalog that was migrated has its later tables on other pages than one made anew; should
it lose its first page, then it loses their rows.

``placed`` is a stamp, which begins with a digit, and a path; or ``>`` and a path, until the file is there.

``announced`` and ``digest`` are dictionaries of RFC 9530; until the latter is known, ``digest`` is ``>`` and the
algorithm that it is to be made by, if any.

An event in ``outbox`` is the ``next`` one of its upload for its deliverer, waits ``behind`` that one, or is ``dead``.

Invariant: a row that is read back gives an equal record.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from sqlite3 import Connection
from typing import Any, Final

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import GoneReason, Place, Replica, ReplicaState, Upload

PAGE_SIZE: Final = 4096
APPLICATION_ID: Final = 0x7265736D  # "resm"
LIMIT: Final = (1 << 63) - 1  # SQLite's largest integer

UPLOAD_CHECKS: Final = (
    "typeof(offset) = 'integer' AND offset >= 0 AND adoptable >= offset",
    "length IS NULL OR (typeof(length) = 'integer' AND offset <= length)",
    "finished_at IS NULL OR offset IS length",
    "gone IS NULL OR (gone IN ('expired', 'terminated', 'lost') AND gone_at IS NOT NULL)",
)
REPLICA_CHECK: Final = "state IN ('open', 'stored', 'parked', 'ending')"

NEEDS_EXPIRY: Final = "gone IS NULL AND (finished_at IS NULL OR (concat IS NOT NULL AND partials IS NULL))"
WAITING_FINAL: Final = "partials IS NOT NULL AND finished_at IS NULL AND gone IS NULL"
HAS_DATA: Final = "on_disk = 1 AND IFNULL(gone, dropped_at) <> 'lost'"  # gone but not lost, or dropped
IS_CLEARED: Final = "gone IS NOT NULL AND on_disk = 0"
IS_SETTLED: Final = "settled_at IS NOT NULL"
# of a row of finals and its upload: when it was over for its client; NULL while it is on its way, to a remote too
ASKED_UNTIL: Final = "CASE WHEN uploads.required > 0 AND uploads.gone IS NULL THEN uploads.stored_at ELSE finals.at END"
AWAITS_PLACE: Final = "placed >= '>'"
AWAITS_DIGEST: Final = "digest < 'a'"
AWAITS_ANY: Final = f"{AWAITS_PLACE} OR {AWAITS_DIGEST}"
IN_WORK: Final = "state IN ('open', 'ending')"
WAITS: Final = f"{IN_WORK} AND retry_at IS NOT NULL"
ARRANGE: Final = """UPDATE outbox SET state = 'next' WHERE seq IN
    (SELECT MIN(seq) FROM outbox WHERE dead_at IS NULL GROUP BY deliverer, upload_id)"""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"""CREATE TABLE uploads (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            created_at REAL NOT NULL,
            touched_at REAL NOT NULL,
            length INTEGER,
            offset INTEGER NOT NULL,
            metadata TEXT,
            concat TEXT,
            partials TEXT,
            finished_at REAL,
            gone TEXT,
            gone_at REAL,
            epoch INTEGER NOT NULL,
            boot_id TEXT,
            adoptable INTEGER NOT NULL,
            on_disk INTEGER NOT NULL DEFAULT 1,
            {", ".join(f"CHECK ({each})" for each in UPLOAD_CHECKS)}
        )""",
        "CREATE UNIQUE INDEX uploads_by_id ON uploads (id)",
        f"CREATE INDEX uploads_to_expire ON uploads (touched_at) WHERE {NEEDS_EXPIRY}",
        f"CREATE INDEX uploads_to_assemble ON uploads (created_at) WHERE {WAITING_FINAL}",
        "CREATE INDEX uploads_to_remove ON uploads (gone_at) WHERE gone IN ('expired', 'terminated') AND on_disk = 1",
        f"CREATE INDEX uploads_to_forget ON uploads (gone_at) WHERE {IS_CLEARED}",
        """CREATE TABLE pins (
            partial_id TEXT NOT NULL,
            final_id TEXT NOT NULL,
            PRIMARY KEY (partial_id, final_id)
        ) WITHOUT ROWID""",
        "CREATE INDEX pins_by_final ON pins (final_id)",
        """CREATE TABLE outbox (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            deliverer TEXT NOT NULL,
            upload_id TEXT NOT NULL,
            kind TEXT NOT NULL,
            at REAL NOT NULL,
            data TEXT NOT NULL
        )""",
        "CREATE INDEX outbox_by_deliverer ON outbox (deliverer, seq)",
        "CREATE TABLE batches (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL)",
        "INSERT INTO batches VALUES (1, 0)",
    ),
    (
        "ALTER TABLE uploads ADD required INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE uploads ADD stored_at REAL",
        "ALTER TABLE uploads ADD dropped_at REAL",
        "ALTER TABLE uploads ADD settled_at REAL",
        "DROP INDEX uploads_to_remove",
        f"CREATE INDEX uploads_to_remove ON uploads (gone_at) WHERE {HAS_DATA}",
        f"CREATE INDEX uploads_to_drop ON uploads (settled_at) WHERE {IS_SETTLED}",
        f"""CREATE TABLE replicas (
seq INTEGER PRIMARY KEY,
upload_id TEXT NOT NULL,
remote TEXT NOT NULL,
required INTEGER NOT NULL,
state TEXT NOT NULL CHECK ({REPLICA_CHECK}),
key TEXT,
confirmed INTEGER NOT NULL,
needs INTEGER NOT NULL,
run TEXT NOT NULL,
attempts INTEGER NOT NULL,
error TEXT,
retry_at REAL,
failing_since REAL,
stored_at REAL,
stored TEXT,
deletes INTEGER NOT NULL,
journal TEXT)""",
        "CREATE UNIQUE INDEX replicas_by_upload ON replicas (upload_id, remote)",
        f"CREATE INDEX replicas_in_work ON replicas (remote) WHERE {IN_WORK}",
        f"CREATE INDEX replicas_waiting ON replicas (remote, retry_at) WHERE {WAITS}",
        "CREATE INDEX replicas_by_key ON replicas (remote, key) WHERE key IS NOT NULL",
        """CREATE TABLE replica_parts (
upload_id TEXT,
remote TEXT,
number INTEGER,
value TEXT NOT NULL,
PRIMARY KEY (upload_id, remote, number)) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE uploads ADD owner TEXT",
        "ALTER TABLE uploads ADD max_size INTEGER",
        "ALTER TABLE outbox ADD attempts INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE outbox ADD error TEXT",
        "ALTER TABLE outbox ADD retry_at REAL",
        "ALTER TABLE outbox ADD dead_at REAL",
        "ALTER TABLE outbox ADD state TEXT NOT NULL DEFAULT 'behind'",
        "DROP INDEX outbox_by_deliverer",
        ARRANGE,
        "CREATE INDEX outbox_by_state ON outbox (deliverer, state, retry_at)",
        "CREATE INDEX outbox_by_upload ON outbox (deliverer, upload_id) WHERE dead_at IS NULL",
    ),
    (
        "ALTER TABLE uploads ADD placed TEXT",
        f"CREATE INDEX uploads_to_place ON uploads (id) WHERE {AWAITS_PLACE}",
    ),
    (
        "ALTER TABLE uploads ADD asked TEXT",
        "DROP INDEX uploads_to_assemble",  # pins_by_final finds them as well
        "CREATE TABLE finals (key TEXT PRIMARY KEY, id TEXT NOT NULL, at REAL, said TEXT) WITHOUT ROWID",
        # The tokens of clients' signed URLs aren't kept any more.
        "UPDATE uploads SET concat = 'final;' || partials WHERE partials IS NOT NULL AND concat GLOB '*[?:]*'",
    ),
    (
        "ALTER TABLE uploads ADD draft INT DEFAULT 0",
        "ALTER TABLE uploads ADD announced TEXT",
        "ALTER TABLE uploads ADD digest TEXT",
        "DROP INDEX uploads_to_place",
        f"CREATE INDEX uploads_in_wait ON uploads (id) WHERE {AWAITS_ANY}",  # two would not fit the first page
    ),
)

PIN: Final = "INSERT INTO pins (partial_id, final_id) VALUES (?, ?) ON CONFLICT DO NOTHING"


def version(connection: sqlite3.Connection) -> int:
    """How many migrations have run."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Run the migrations that are missing, each in a transaction; raises CatalogUnavailable on a newer catalog."""
    current = version(connection)
    if current > len(MIGRATIONS):
        raise CatalogUnavailable(f"the catalog is of version {current}, made by a newer release")
    for number, statements in enumerate(MIGRATIONS[current:], current + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(" ".join(statement.split()))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")


FIELDS: Final = (
    "id, created_at, touched_at, length, offset, metadata, concat, partials, "
    "finished_at, gone, gone_at, epoch, boot_id, adoptable, required, stored_at, dropped_at, owner, max_size, "
    "placed, asked, draft, announced, digest"
)
INSERT: Final = f"INSERT INTO uploads ({FIELDS}) VALUES ({', '.join('?' * 24)})"
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
        upload.draft,
        upload.announced,
        to_digest(upload.digest, upload.digest_due),
    )


def to_upload(row: tuple[Any, ...]) -> Upload:
    """The record of one row of FIELDS."""
    upload_id, created, touched, length, offset, metadata, concat, listed, finished, gone, gone_at, *others = row
    *others, placed, asked, draft, announced, digest = others
    due = digest[1:] if digest is not None and digest.startswith(">") else None
    others += [None if placed is None else _to_place(placed), asked, bool(draft), announced]
    others += [None if due is not None else digest, due]
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
    """The value of the column ``placed``: see above."""
    return None if place is None else f"{place.stamp or '>'} {place.path}"


def to_digest(digest: str | None, due: str | None) -> str | None:
    """The value of the column ``digest``: see above."""
    return digest if digest is not None or due is None else f">{due}"


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


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(value: Mapping[str, Any]) -> str:
    """The object as compact JSON text."""
    return _encode(dict(value))

"""On PostgreSQL: what identities have stored, and the bounds of it.

Invariants: whatever changes an upload's record, in whichever statement and worker, changes the sums in the same
transaction, and fails if that passes a bound: triggers do it. They run when the transaction commits, so the rows of
``usage``, which all transactions share, are the last that are locked, and in the same order everywhere: first that of
all uploads. Where no bound is set there is no trigger, no row and no table of these.

``usage.owner`` is ``*`` for all uploads, and ``u:`` with the identity for one's own. A transaction that only moves an
offset below what counts already touches no row here.
Source: https://www.postgresql.org/docs/current/sql-createtrigger.html (constraint triggers).
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from attrs import frozen
from twisted.logger import Logger
from zope.interface import implementer

from resumable.catalog.jobs import CatalogTable, reads, writes
from resumable.catalog.postgres.postgres_connection import Connection, take_long
from resumable.catalog.postgres.postgres_schema import LOCK
from resumable.model.usage import IUsage, Quota, does_not_fit, never_fits, too_many
from resumable.protocol.errors import Held, TusError

NEVER_FITS: Final = "23RQ1"
DOES_NOT_FIT: Final = "23RQ2"
TOO_MANY: Final = "23RQ3"
"""SQLSTATEs of the triggers. Class 23: an error of the one change, not of the database."""
_REFUSALS: Final = {NEVER_FITS: never_fits, DOES_NOT_FIT: does_not_fit, TOO_MANY: too_many}

VERSION: Final = 1
"""Of the triggers; with another one they are made anew, and everything is counted."""

log = Logger()


def refusal(error: psycopg.Error) -> TusError | None:
    """The error for the client, where a trigger has refused its change."""
    made = _REFUSALS.get(error.sqlstate or "")
    return None if made is None else made()


@frozen
class Sums:
    """Sums, like `Quota`."""

    size: int = 0
    unfinished_size: int = 0
    unfinished: int = 0


@implementer(IUsage)
class UsageTable(CatalogTable):
    """IUsage. Only where `enforce` has set bounds."""

    # The trigger counts it, and raises.
    RESERVE = "UPDATE uploads SET charged = GREATEST(charged, ?2) WHERE id = ?1 AND epoch = ?3 AND gone IS NULL"
    THERE = "SELECT 1 FROM uploads WHERE id = ? AND gone IS NULL"

    @writes
    def reserve(self, connection: Connection, upload_id: str, total: int, epoch: int) -> bool:
        """See IUsage."""
        if connection.execute(self.RESERVE, (upload_id, total, epoch)).rowcount == 1:
            return True
        if connection.execute(self.THERE, (upload_id,)).fetchone() is not None:
            raise Held("A newer request has taken this upload over.")
        return False

    RELEASE = "UPDATE uploads SET charged = 0 WHERE id = ? AND epoch = ? AND charged > 0"

    @writes
    def release(self, connection: Connection, upload_id: str, epoch: int) -> None:
        """See IUsage."""
        connection.execute(self.RELEASE, (upload_id, epoch))

    USED = "SELECT size, unfinished_size, unfinished FROM usage WHERE owner = ?"

    @reads
    def usage(self, connection: Connection, owner: str | None) -> Sums:
        """Sums of that identity's uploads ("": nobody's); None: of all uploads."""
        row = connection.execute(self.USED, ("*" if owner is None else f"u:{owner}",)).fetchone()
        return Sums() if row is None else Sums(*map(int, row))


_TABLE: Final = """CREATE TABLE IF NOT EXISTS quotas (
    one integer PRIMARY KEY CHECK (one = 1),
    version integer NOT NULL,
    each_size bigint, each_unfinished_size bigint, each_unfinished bigint,
    all_size bigint, all_unfinished_size bigint, all_unfinished bigint
)"""
_BOUNDS: Final = (
    "version, each_size, each_unfinished_size, each_unfinished, all_size, all_unfinished_size, all_unfinished"
)

_FUNCTION: Final = f"""CREATE OR REPLACE FUNCTION resumable_usage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    old_size numeric := 0; old_open integer := 0;
    new_size numeric := 0; new_open integer := 0;
    who text; row_of text; used record; bounds record; most record;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        IF OLD.gone IS NULL THEN
            old_size := COALESCE(OLD.length, GREATEST(OLD.charged, OLD."offset"));
            old_open := (OLD.finished_at IS NULL)::integer;
        END IF;
        who := COALESCE(OLD.owner, '');
    END IF;
    IF TG_OP <> 'DELETE' THEN
        IF NEW.gone IS NULL THEN
            new_size := COALESCE(NEW.length, GREATEST(NEW.charged, NEW."offset"));
            new_open := (NEW.finished_at IS NULL)::integer;
        END IF;
        who := COALESCE(NEW.owner, '');
    END IF;
    IF (old_size, old_open) = (new_size, new_open) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO bounds FROM quotas WHERE one = 1;
    FOREACH row_of IN ARRAY ARRAY['*', 'u:' || who] LOOP
        INSERT INTO usage AS now (owner, size, unfinished_size, unfinished)
            VALUES (row_of, new_size - old_size, new_open * new_size - old_open * old_size, new_open - old_open)
            ON CONFLICT (owner) DO UPDATE SET size = now.size + excluded.size,
                unfinished_size = now.unfinished_size + excluded.unfinished_size,
                unfinished = now.unfinished + excluded.unfinished
            RETURNING size, unfinished_size, unfinished INTO used;
        IF row_of = '*' THEN
            SELECT bounds.all_size AS size, bounds.all_unfinished_size AS unfinished_size,
                bounds.all_unfinished AS unfinished INTO most;
        ELSE
            SELECT bounds.each_size AS size, bounds.each_unfinished_size AS unfinished_size,
                bounds.each_unfinished AS unfinished INTO most;
            IF used.size = 0 AND used.unfinished = 0 AND used.unfinished_size = 0 THEN
                DELETE FROM usage WHERE owner = row_of;
            END IF;
        END IF;
        IF new_open > old_open AND used.unfinished > most.unfinished THEN
            RAISE EXCEPTION 'too many unfinished uploads' USING ERRCODE = '{TOO_MANY}';
        END IF;
        IF new_size - old_size > most.size OR (new_open = 1 AND new_size - old_size > most.unfinished_size) THEN
            RAISE EXCEPTION 'larger than a quota' USING ERRCODE = '{NEVER_FITS}';
        END IF;
        IF new_size > old_size AND (used.size > most.size OR (new_open = 1
            AND used.unfinished_size > most.unfinished_size)) THEN
            RAISE EXCEPTION 'a quota is used up' USING ERRCODE = '{DOES_NOT_FIT}';
        END IF;
    END LOOP;
    RETURN NULL;
END $$"""

_TRIGGER: Final = (
    "CREATE CONSTRAINT TRIGGER usage_of_{} AFTER {} ON uploads DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW WHEN ({}) EXECUTE FUNCTION resumable_usage()"
)
_TRIGGERS: Final = {
    "new": ("INSERT", "NEW.gone IS NULL"),
    "changed": (
        'UPDATE OF gone, length, finished_at, charged, "offset"',
        "OLD.gone IS DISTINCT FROM NEW.gone OR OLD.length IS DISTINCT FROM NEW.length"
        " OR (OLD.finished_at IS NULL) <> (NEW.finished_at IS NULL) OR (NEW.length IS NULL"
        ' AND GREATEST(OLD.charged, OLD."offset") <> GREATEST(NEW.charged, NEW."offset"))',
    ),
    "dropped": ("DELETE", "OLD.gone IS NULL"),
}

_COUNTED: Final = """SUM(size), SUM(size) FILTER (WHERE open), COUNT(*) FILTER (WHERE open)
    FROM (SELECT COALESCE(owner, '') AS owner, COALESCE(length, GREATEST(charged, "offset"))::numeric AS size,
        finished_at IS NULL AS open FROM uploads WHERE gone IS NULL) AS counted"""
_RECOUNT: Final = (
    "TRUNCATE usage",
    f"INSERT INTO usage SELECT 'u:' || owner, one, COALESCE(two, 0), three FROM"
    f" (SELECT owner, {_COUNTED} GROUP BY owner) AS sums (owner, one, two, three)",
    f"INSERT INTO usage SELECT '*', COALESCE(one, 0), COALESCE(two, 0), three FROM"
    f" (SELECT {_COUNTED}) AS sums (one, two, three)",
)


def enforce(raw: psycopg.Connection[Any], each: Quota, overall: Quota) -> bool:
    """Set the bounds of each identity, and of all together, for every worker; without any, nothing counts any more.

    To be called at each start: with the bounds that are there already it changes nothing. Otherwise it waits for
    changes under way; and where none were set before, it counts all uploads while changes wait. True: it has counted.
    Blocks. Raises psycopg.Error.
    """
    found = (VERSION, *(each.size, each.unfinished_size, each.unfinished))
    bounds = (*found, *(overall.size, overall.unfinished_size, overall.unfinished))
    if (each, overall) == (Quota(), Quota()):
        if _there(raw):
            take_long(raw)
            with raw.transaction():
                _remove(raw)
        return False
    if _there(raw) and _recorded(raw) == bounds:
        return False
    take_long(raw)
    with raw.transaction():
        raw.execute("SELECT pg_advisory_xact_lock($1)", (LOCK,))
        was = _recorded(raw) if _there(raw) else None
        if was is not None and was[0] == VERSION:
            _record(raw, bounds)
            return False
        _remove(raw)
        raw.execute("LOCK TABLE uploads IN SHARE ROW EXCLUSIVE MODE")
        raw.execute(_TABLE)
        _record(raw, bounds)
        raw.execute(_FUNCTION)
        for name, (event, condition) in _TRIGGERS.items():
            raw.execute(_TRIGGER.format(name, event, condition))
        _count(raw)
    return True


def _count(raw: psycopg.Connection[Any]) -> None:
    """What was reserved for appends of workers that are gone is given back first."""
    raw.execute(
        "UPDATE uploads SET charged = 0 WHERE charged > 0 AND NOT EXISTS (SELECT 1 FROM workers WHERE id = kept_by)"
    )
    raw.execute("SET CONSTRAINTS ALL IMMEDIATE")  # what that has changed is counted before the sums are made anew
    for statement in _RECOUNT:
        raw.execute(statement)
    log.info("what identities have stored was counted")


def _there(raw: psycopg.Connection[Any]) -> bool:
    row = raw.execute("SELECT to_regclass('quotas') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])


def _recorded(raw: psycopg.Connection[Any]) -> tuple[Any, ...] | None:
    return raw.execute(f"SELECT {_BOUNDS} FROM quotas").fetchone()


def _record(raw: psycopg.Connection[Any], bounds: tuple[int | None, ...]) -> None:
    raw.execute("DELETE FROM quotas")
    values = ", ".join(f"${number + 1}::bigint" for number in range(len(bounds)))
    raw.execute(f"INSERT INTO quotas (one, {_BOUNDS}) VALUES (1, {values})", bounds)


def _remove(raw: psycopg.Connection[Any]) -> None:
    for name in _TRIGGERS:
        raw.execute(f"DROP TRIGGER IF EXISTS usage_of_{name} ON uploads")
    raw.execute("DROP TABLE IF EXISTS quotas")
    raw.execute("TRUNCATE usage")

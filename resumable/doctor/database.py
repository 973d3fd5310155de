"""The database that several servers share: whether what it acknowledges lasts, and whether there is room for one more.

Invariant: nothing is changed, and no password is printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resumable.catalog.postgres.inspection import DatabaseFacts, inspect
from resumable.catalog.postgres.postgres_connection import connector
from resumable.catalog.postgres.postgres_schema import MIGRATIONS, RETURNED, RETURNING
from resumable.doctor.findings import Finding, span_text

NAME = "database"
WORKERS = "workers"
OLDEST = 140000
#: Connections of one worker; see docs/scaling.md.
EACH = 5
#: Seconds for a question and its answer: above it, small uploads wait for the database more than for the disk.
SLOW = 0.005
#: Seconds that the clocks may differ.
APART = 2.0


def look(url: str) -> DatabaseFacts:
    """Ask the database at ``url``. Blocks. Raises CatalogUnavailable."""
    return inspect(connector(url))


def judge(found: DatabaseFacts, versions: int = len(MIGRATIONS)) -> list[Finding]:
    """The findings about the server. ``versions``: the migrations that this release knows."""
    findings = [*_lasting(found), *_usable(found, versions), *_quick(found)]
    if any(each.level == "bad" for each in findings):
        return findings
    what = f"PostgreSQL {found.version}; a question takes {span_text(found.round_trip)}"
    return [Finding(NAME, "ok", what), *findings]


def _lasting(found: DatabaseFacts) -> list[Finding]:
    findings = []
    if found.version_number < OLDEST:
        what = f"PostgreSQL {found.version} is too old"
        findings.append(Finding(NAME, "bad", what, "Upgrade it to 14 or later."))
    if found.standby:
        what = "the server is a standby, which can't be written"
        findings.append(Finding(NAME, "bad", what, "Name the primary in --catalog."))
    elif found.read_only:
        advice = "Name the primary in --catalog, or take default_transaction_read_only away."
        findings.append(Finding(NAME, "bad", "the database is read-only", advice))
    if not found.fsync:
        what = "the server has fsync = off: a power cut loses acknowledged bytes"
        findings.append(Finding(NAME, "bad", what, "Turn fsync on in postgresql.conf, and restart the server."))
    if not found.full_page_writes:
        what = "the server has full_page_writes = off: a power cut can damage the tables"
        findings.append(Finding(NAME, "warn", what, "Turn it on, unless the file system writes pages as a whole."))
    return findings


def _usable(found: DatabaseFacts, versions: int) -> list[Finding]:
    findings = []
    if found.installation is None and not found.may_create:
        what = "there are no tables yet, and this user may not make any"
        advice = "GRANT CREATE ON SCHEMA public TO the user, or make it the owner of the database."
        findings.append(Finding(NAME, "bad", what, advice))
    if found.oldest in (RETURNED, RETURNING):
        what = "its records were moved to SQLite, or are on their way there"
        findings.append(Finding(NAME, "bad", what, "Leave out --catalog, or use resumable catalog move."))
    elif found.oldest > versions:
        what = f"its tables are of version {found.schema_version}, which this release may not use"
        findings.append(Finding(NAME, "bad", what, "Upgrade this release; the tables were made by a newer one."))
    left = found.most - found.connections
    if left < EACH:
        what = f"{found.connections} of {found.most} connections are in use, and each worker needs {EACH}"
        findings.append(Finding(NAME, "bad", what, "Raise max_connections, or start fewer workers."))
    elif left < 4 * EACH:
        what = f"{found.connections} of {found.most} connections are in use, and each worker needs {EACH}"
        findings.append(Finding(NAME, "warn", what, "Raise max_connections before more workers are started."))
    if found.pooled:
        what = "a pooler shares connections: settings of a connection and messages between servers get lost"
        advice = "Set pool_mode = session for this database, or name the server itself in --catalog."
        findings.append(Finding(NAME, "bad", what, advice))
    elif not found.hears:
        what = "a message to oneself is not heard: a pooler that shares connections is in between"
        advice = "Set pool_mode = session for this database, or name the server itself in --catalog."
        findings.append(Finding(NAME, "warn", what, advice))
    return findings


def _quick(found: DatabaseFacts) -> list[Finding]:
    findings = []
    if found.round_trip > SLOW:
        what = f"a question takes {span_text(found.round_trip)}"
        findings.append(Finding(NAME, "warn", what, "Put the server nearer: each request waits for two or three."))
    if abs(found.ahead) > APART:
        side = "ahead of" if found.ahead > 0 else "behind"
        what = f"its clock is {span_text(abs(found.ahead))} {side} this machine's"
        findings.append(Finding(NAME, "warn", what, "Let all machines follow one time server (NTP)."))
    return findings


def unreached(problem: str) -> Finding:
    """The finding about a database that can't be asked: a reason, and after a semicolon what to change."""
    what, _, advice = problem.rpartition("; ") if "; " in problem else (problem, "", "")
    advice = advice or "compare --catalog and PGPASSWORD with those of your database"
    return Finding(NAME, "bad", what, f"{advice[0].upper()}{advice[1:]}.")


def judge_workers(disagreements: Sequence[str], workers: Mapping[str, object]) -> list[Finding]:
    """The findings about the servers that run now. ``disagreements``: a line for each option that differs."""
    if disagreements:
        advice = "Give all servers of one catalog the same value."
        return [Finding(WORKERS, "bad", each, advice) for each in disagreements]
    count = len(workers)
    return [Finding(WORKERS, "ok", f"{count} run now, with the same options" if count else "none runs now")]

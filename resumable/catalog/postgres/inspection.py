"""What there is to know of a PostgreSQL before it is relied upon: for the start, and for ``resumable doctor``.

Nothing is changed. Source: https://www.postgresql.org/docs/current/runtime-config-wal.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from attrs import field, frozen

from resumable.catalog.postgres.postgres_connection import Connect, unavailable
from resumable.catalog.postgres.postgres_schema import is_pooled

#: Questions whose answers are timed.
TIMED = 20
#: Seconds to hear a message of one's own.
HEARS_WITHIN = 5.0

_FACTS = """SELECT current_setting('server_version_num')::int, current_setting('server_version'),
    current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery(),
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    extract(epoch FROM clock_timestamp()), current_setting('synchronous_standby_names'),
    has_schema_privilege('public', 'CREATE'), current_setting('transaction_read_only') = 'on',
    to_regclass('installation') IS NOT NULL"""


@frozen
class DatabaseFacts:
    """``version_number``: as `server_version_num`. ``connections`` of ``most`` are in use. ``ahead``: seconds that its
    clock is before this machine's. ``round_trip``: seconds for a question and its answer, the median. ``hears``:
    whether a message to oneself came back; not through a pooler that shares connections. ``standbys``: those that a
    commit waits for, by `synchronous_standby_names`. ``may_create``: tables. ``read_only``: nothing can be changed.
    ``pooled``: a pooler gives each transaction another connection. ``installation``, ``directory``, ``schema_version``
    and ``oldest``: of the tables, None and 0 where there are none yet. ``workers``: their options by their node and id.
    """

    version_number: int
    version: str
    fsync: bool
    full_page_writes: bool
    standby: bool
    most: int
    connections: int
    ahead: float
    round_trip: float
    hears: bool
    standbys: str
    may_create: bool
    read_only: bool = False
    pooled: bool = False
    installation: str | None = None
    directory: str | None = None
    schema_version: int = 0
    oldest: int = 0
    workers: Mapping[str, Mapping[str, str]] = field(factory=dict)


def inspect(connect: Connect, wall: Callable[[], float] = time.time) -> DatabaseFacts:
    """Look at the database. Blocks for some seconds at most. Raises CatalogUnavailable."""
    try:
        with connect() as raw, connect() as other:
            return _inspect(raw, is_pooled(raw, other), wall)
    except psycopg.Error as error:
        raise unavailable(error) from error


def _inspect(raw: psycopg.Connection[Any], pooled: bool, wall: Callable[[], float]) -> DatabaseFacts:
    spans = []
    for _ in range(TIMED):
        began = time.perf_counter()
        raw.execute("SELECT 1").fetchone()
        spans.append(time.perf_counter() - began)
    before = wall()
    row = raw.execute(_FACTS).fetchone()
    assert row is not None
    number, version, fsync, pages, standby, most, used, now, standbys, creates, still, made = row
    facts: dict[str, Any] = {}
    if made:
        found = raw.execute("SELECT id, directory, version, oldest FROM installation").fetchone()
        if found is not None:
            facts = dict(zip(("installation", "directory", "schema_version", "oldest"), found, strict=True))
            facts["workers"] = _workers(raw)
    return DatabaseFacts(
        version_number=number,
        version=version,
        fsync=fsync == "on",
        full_page_writes=pages == "on",
        standby=standby,
        most=most,
        connections=used,
        ahead=float(now) - (before + wall()) / 2,
        round_trip=sorted(spans)[len(spans) // 2],
        hears=not pooled and _hears(raw),
        standbys=standbys,
        may_create=creates,
        read_only=still,
        pooled=pooled,
        **facts,
    )


def _hears(raw: psycopg.Connection[Any]) -> bool:
    """In several steps: a pooler in transaction mode may give each to another connection."""
    raw.execute("LISTEN resumable_doctor")
    raw.execute("SELECT pg_notify('resumable_doctor', '')")
    heard = any(True for _ in raw.notifies(timeout=HEARS_WITHIN, stop_after=1))
    raw.execute("UNLISTEN resumable_doctor")
    return heard


def _workers(raw: psycopg.Connection[Any]) -> dict[str, dict[str, str]]:
    rows = raw.execute(
        "SELECT node, id, options FROM workers WHERE seen_at > extract(epoch FROM clock_timestamp()) - 10"
    ).fetchall()
    return {f"{node} ({name})": json.loads(options) for node, name, options in rows}

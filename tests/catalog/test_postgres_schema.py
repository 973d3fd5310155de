"""The tables on PostgreSQL: who makes them, which servers are refused, and what an operator is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from resumable.catalog.postgres import postgres_schema as schema
from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_connection import connector, unavailable
from resumable.catalog.postgres.postgres_schema import MIGRATIONS, check_server, migrate
from resumable.model.errors import CatalogUnavailable
from tests.catalog.doubles import HandBatcher
from tests.postgres import database
from tests.waiting import eventually

pytestmark = pytest.mark.process


@pytest.fixture
def url() -> str:
    return database()


def opened(url: str) -> PostgresCatalog:
    catalog = PostgresCatalog(connector(url), None, batcher=lambda name, work: HandBatcher(work))
    catalog.open()
    return catalog


def refusal(url: str) -> str:
    with pytest.raises(CatalogUnavailable) as raised:
        opened(url)
    text = str(raised.value)
    assert "\n" not in text and "secret" not in text
    return text


# Versions


def test_of_workers_that_start_at_once_one_makes_the_tables(url: str) -> None:
    def start(number: int) -> bool:
        with connector(url)() as raw:
            return migrate(raw, f"id-{number}")

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(start, range(4)))
    assert sorted(made) == [False, False, False, True]
    with connector(url)() as raw:
        row = raw.execute("SELECT id, version FROM installation").fetchone()
    assert row == (f"id-{made.index(True)}", len(MIGRATIONS))


def test_a_worker_of_the_release_before_may_use_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """And starts on them: its own migrations are some of these. So servers are restarted one after the other."""
    url = database()
    with connector(url)() as raw:
        migrate(raw, "new")
        monkeypatch.setattr(schema, "MIGRATIONS", MIGRATIONS[:1])
        assert migrate(raw, "old") is False
        assert raw.execute("SELECT id, version FROM installation").fetchone() == ("new", len(MIGRATIONS))
    catalog = PostgresCatalog(connector(url), None, batcher=lambda name, work: HandBatcher(work))
    assert catalog.open().installation == "new"
    catalog.stop()


def test_tables_are_migrated_once_and_keep_what_is_in_them(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(url)
    with connector(url)() as raw:
        raw.execute("INSERT INTO claims (name) VALUES ('janitor')")
        more = (len(MIGRATIONS), ("ALTER TABLE claims ADD note text",))
        monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, more))
        assert migrate(raw, "other") is False
        assert migrate(raw, "other") is False
        assert raw.execute("SELECT name, note FROM claims").fetchall() == [("janitor", None)]


def test_a_migration_that_fails_leaves_everything_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(url)
    more = (len(MIGRATIONS), ("ALTER TABLE claims ADD note text", "ALTER TABLE nothing ADD note text"))
    with connector(url)() as raw:
        with monkeypatch.context() as patch, pytest.raises(psycopg.errors.UndefinedTable):
            patch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, more))
            migrate(raw, "other")
        assert raw.execute("SELECT version FROM installation").fetchone() == (len(MIGRATIONS),)
        assert migrate(raw, "other") is False


def test_an_upgrade_waits_for_no_worker_that_waits_for_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the release before that has changed a replica, and goes on to its upload: PostgreSQL would end either."""
    with connector(url)() as raw, monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", MIGRATIONS[:1])
        migrate(raw, "old")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(url, autocommit=True) as look, ThreadPoolExecutor(1) as pool:
        with psycopg.connect(url) as worker:
            worker.execute("UPDATE replicas SET attempts = 1")
            upgrade = pool.submit(opened, url)
            assert eventually(lambda: (look.execute(waits).fetchone() or [0])[0])
            worker.execute("UPDATE uploads SET required = 1")
        upgrade.result().stop()
        assert look.execute("SELECT version FROM installation").fetchone() == (len(MIGRATIONS),)


def test_newer_tables_may_be_used_as_far_as_they_say(url: str) -> None:
    """During an upgrade the old workers go on; a start of one of that release is as good."""
    opened(url)
    with connector(url)() as raw:
        raw.execute("UPDATE installation SET version = 1000, oldest = $1", (len(MIGRATIONS),))
        opened(url)
        assert raw.execute("SELECT version FROM installation").fetchone() == (1000,)
        raw.execute("UPDATE installation SET oldest = $1", (len(MIGRATIONS) + 1,))
        assert "upgrade this one" in refusal(url)


# Servers


class Answers:
    """A connection to a server that describes itself so."""

    def __init__(self, *row: Any) -> None:
        self.row = row

    def execute(self, statement: str) -> Answers:
        return self

    def fetchone(self) -> tuple[Any, ...]:
        return self.row


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ((130012, "13.12", "on", False), "PostgreSQL 13.12 is too old: 14 or later is needed"),
        ((170000, "17.0", "on", True), "a standby, which can't be written: name the primary"),
        ((170000, "17.0", "off", False), "fsync = off, and can lose acknowledged bytes: turn it on"),
        ((140000, "14.0", "on", False), None),
    ],
)
def test_a_server_that_could_lose_what_it_acknowledges_is_refused(row: tuple[Any, ...], told: str | None) -> None:
    if told is None:
        check_server(Answers(*row))  # type: ignore[arg-type]
    else:
        with pytest.raises(CatalogUnavailable, match=told):
            check_server(Answers(*row))  # type: ignore[arg-type]


# What an operator is told


def test_an_unknown_database_is_told_with_what_to_do(url: str) -> None:
    assert refusal(url.replace("/test_", "/no_test_")).endswith("make it (createdb), or correct --catalog")


def test_a_user_that_may_make_no_tables_is_told_so(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("DROP ROLE IF EXISTS reader")
        raw.execute("CREATE ROLE reader LOGIN PASSWORD 'secret'")
        raw.execute("REVOKE CREATE ON SCHEMA public FROM public")
    told = refusal(url.replace("postgres:@", "reader:secret@"))
    assert told.endswith("GRANT this user the right, or make it the owner of the database")


def test_too_many_connections_are_told_with_what_to_change(url: str) -> None:
    name = url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("DROP ROLE IF EXISTS one")
        raw.execute("CREATE ROLE one LOGIN CONNECTION LIMIT 1")
        raw.execute(f"GRANT ALL ON DATABASE {name} TO one")
        theirs = url.replace("postgres:@", "one:@")
        with psycopg.connect(theirs):
            assert "max_connections" in refusal(theirs)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            'FATAL:  password authentication failed for user "u"',
            "correct PGPASSWORD, the password file, or the user in --catalog",
        ),
        ("FATAL:  sorry, too many clients already", "raise max_connections"),
        ("FATAL:  remaining connection slots are reserved for roles", "raise max_connections"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "pg_hba.conf"),
    ],
)
def test_what_a_server_says_while_a_connection_is_made_comes_with_advice(said: str, advice: str) -> None:
    error = psycopg.OperationalError(f"connection to postgresql://u:secret@h/db\nfailed: {said}")
    text = str(unavailable(error))
    assert advice in text and "\n" not in text and "secret" not in text and text.startswith("PostgreSQL: ")


@pytest.mark.parametrize(
    "url", ["postgresql://u:sec%ret@h/db", "postgresql://u:secret@h/db?sslmod=off", "postgresql://[u:secret"]
)
def test_a_url_that_cannot_be_read_gives_away_no_password(url: str) -> None:
    with pytest.raises(CatalogUnavailable) as raised:
        connector(url)()
    assert "sec" not in str(raised.value) and "--catalog" in str(raised.value)

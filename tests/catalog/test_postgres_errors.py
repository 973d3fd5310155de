"""What an error of PostgreSQL says to an operator: one line, no secret, and what to change where that is known."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from resumable.catalog.postgres.postgres_connection import connector, unavailable
from resumable.catalog.postgres.postgres_schema import is_pooled
from tests.postgres import database


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (psycopg.OperationalError('FATAL:  password authentication failed for user "u"'), "correct PGPASSWORD"),
        (psycopg.OperationalError('FATAL:  database "x" does not exist'), "createdb"),
        (psycopg.OperationalError("FATAL:  no pg_hba.conf entry for host"), "pg_hba.conf"),
        (psycopg.OperationalError("FATAL:  sorry, too many clients already"), "max_connections"),
        (psycopg.OperationalError("FATAL:  remaining connection slots are reserved"), "max_connections"),
        (psycopg.OperationalError("failed to resolve host 'x'"), "correct the host"),
        (psycopg.OperationalError("connection timeout expired"), "start the server"),
        (errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction"), "primary"),
        (errors.DiskFull("could not extend file"), "make room"),
        (errors.InsufficientPrivilege("permission denied for schema public"), "GRANT"),
    ],
)
def test_it_says_what_to_change(error, advice):
    told = unavailable(error)
    assert advice in str(told).partition("; ")[2] and "\n" not in str(told)
    assert told.no_space == isinstance(error, errors.DiskFull)


def test_of_several_addresses_one_is_told_of():
    with pytest.raises(psycopg.OperationalError) as failed:
        connector("postgresql://u:hunter2@127.0.0.1:1,127.0.0.1:2/x")()
    told = str(unavailable(failed.value))
    assert told.count("refused") == 1 and told.endswith("; start the server, or correct --catalog")
    assert "hunter2" not in told and "Is the server running" not in told


def test_an_error_that_is_not_known_is_told_as_it_is():
    assert str(unavailable(errors.InternalError_("a table\nis damaged"))) == "PostgreSQL: a table is damaged"
    assert str(unavailable(psycopg.OperationalError())) == "PostgreSQL: OperationalError"


@pytest.mark.process
def test_connections_to_the_server_itself_are_not_pooled():
    connect = connector(database())
    with connect() as one, connect() as other:
        assert not is_pooled(one, other)

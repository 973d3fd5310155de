"""The catalog off the reactor's thread, with the real Batcher."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail, gatherResults

from resumable.aio.threads import Batcher
from resumable.catalog.batches import connect
from resumable.catalog.sqlite import OpenedCatalog, SqliteCatalog
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Commit
from tests.catalog.contract import name, upload
from tests.catalog.doubles import Shelf


@pytest_twisted.ensureDeferred
async def test_many_at_once_share_commits_in_one_thread_and_the_stop_closes_there(tmp_path: Path) -> None:
    from twisted.internet import reactor

    path = str(tmp_path / "catalog.sqlite3")
    catalog = SqliteCatalog(path, batcher=lambda work: Batcher[Any, Any](reactor, work, name="catalog"))
    assert catalog.open() == OpenedCatalog(created=True)
    catalog.start()
    created = await gatherResults([catalog.create(upload(number), ()) for number in range(200)])
    commits = [catalog.commit(Commit(name(number), 0, 0, number, 150.0)) for number in range(200)]
    stopped = catalog.stop()
    assert created == [True] * 200
    assert await gatherResults(commits) == [True] * 200, "what was asked before the stop is done"
    await stopped
    assert not [one for one in threading.enumerate() if one.name == "catalog"]
    connection = connect(path)
    assert connection.execute("SELECT sum(offset), count(*) FROM uploads").fetchone() == (sum(range(200)), 200)
    (batches,) = connection.execute("SELECT number FROM batches").fetchone()
    assert batches < 400, "fewer transactions than changes"
    connection.close()


@pytest_twisted.ensureDeferred
async def test_two_threads_take_turns_at_the_connection_and_no_change_is_lost(tmp_path: Path) -> None:
    from twisted.internet import reactor

    path = str(tmp_path / "catalog.sqlite3")
    catalog = SqliteCatalog(path, batcher=lambda work: Batcher[Any, Any](reactor, work, name="catalog", limit=3))
    other = Batcher[Any, Any](reactor, catalog.jobs.do, name="other", limit=3)
    catalog.open()
    catalog.start()
    other.start()
    ways = (None, other.submit)
    created = await gatherResults([catalog.create(upload(each), (), through=ways[each % 2]) for each in range(200)])
    assert created == [True] * 200
    commits = [catalog.commit(Commit(name(each), 0, 0, each, 150.0), ways[each // 2 % 2]) for each in range(200)]
    assert await gatherResults(commits) == [True] * 200
    await other.stop()
    await catalog.stop()
    connection = connect(path)
    assert connection.execute("SELECT sum(offset), count(*) FROM uploads").fetchone() == (sum(range(200)), 200)
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_catalog_that_was_stopped_sends_no_change_to_another_thread(tmp_path: Path) -> None:
    from twisted.internet import reactor

    path = str(tmp_path / "catalog.sqlite3")
    catalog = SqliteCatalog(path, batcher=lambda work: Batcher[Any, Any](reactor, work, name="catalog"))
    catalog.open()
    catalog.start()
    await catalog.stop()
    sent: list[Any] = []

    def through(change: Any) -> Deferred[Any]:
        sent.append(change)
        return Deferred()

    with pytest.raises(CatalogUnavailable):
        await catalog.create(upload(1), (), through=through)
    assert not sent


def test_a_change_is_not_made_when_the_work_before_it_fails(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    catalog = shelf.running()
    refused: list[Any] = []

    def through(change: Any) -> Deferred[Any]:
        refused.append(change)
        return fail(OSError("no room"))

    answers: list[Any] = []
    catalog.create(upload(1), ()).addBoth(answers.append)
    catalog.create(upload(2), (), through=through).addErrback(lambda failure: answers.append(failure.type))
    catalog.commit(Commit(name(1), 0, 0, 400, 150.0), through).addErrback(lambda failure: answers.append(failure.type))
    catalog.get_many([name(1), name(2)]).addBoth(answers.append)
    shelf.flush()
    assert answers == [OSError, OSError, True, {name(1): upload(1)}]
    assert len(refused) == 2
    catalog.stop()

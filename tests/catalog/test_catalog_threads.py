"""The catalog off the reactor's thread, with the real Batcher."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import gatherResults

from resumable.aio.threads import Batcher
from resumable.catalog.batches import connect
from resumable.catalog.sqlite import OpenedCatalog, SqliteCatalog
from resumable.model.upload import Commit
from tests.catalog.contract import name, upload


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

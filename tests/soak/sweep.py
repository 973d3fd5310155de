"""``python -m tests.soak.sweep DATABASE SPOOL``: what the product's sweeper removes if all is days old.

No process may be at work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from resumable.aio.threads import Pool
from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_connection import connector
from resumable.remotes import urls
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.regions import BodyMemory
from resumable.remotes.urls import BackendServices
from resumable.spool.disk import Disk
from resumable.spool.objects.object_names import ObjectNames
from resumable.spool.objects.object_sweeper import OLD, ObjectSweeper

from .shared_watch import AtOnce

MIB = 1 << 20


async def swept(reactor: Any, database: str, url: str) -> int:
    """How many objects and multiparts were removed."""
    pool = Pool(reactor, 2, "sweep")
    pool.start()
    services = BackendServices(
        reactor=reactor,
        pool=pool,
        journal=MemoryJournal(),
        disk=Disk(),
        now=time.time,
        rng=Random(),
        environ=os.environ,
        part_size=8 * MIB,
        timeout=20.0,
        parts=4,
        memory=BodyMemory(8 * MIB),
    )
    store = urls.make_store(urls.parse_spool(url, environ=os.environ), services)
    catalog = PostgresCatalog(connector(database), None, batcher=lambda name, work: AtOnce(work), stored=True)
    catalog.open()
    catalog.start()
    names = ObjectNames(store.prefix, "0" * 16, lambda: "0")
    sweeper = ObjectSweeper(store, catalog.stored, names, catalog.get_many, lambda: time.time() + 2 * OLD)
    try:
        for sweep in (sweeper.sweep_discarded, sweeper.sweep_unknown, sweeper.sweep_unfinished, sweeper.sweep_objects):
            await sweep()
    finally:
        await store.close()
        catalog.stop()
        await pool.stop()
    return sweeper.removed


def main(reactor: Any, arguments: Sequence[str]) -> Deferred[None]:
    database, url = arguments
    return Deferred.fromCoroutine(swept(reactor, database, url)).addCallback(print)


if __name__ == "__main__":
    react(main, (sys.argv[1:],))

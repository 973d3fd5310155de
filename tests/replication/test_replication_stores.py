"""Replication over each of the other stores: whatever happens to the process or the store, the object is right in the
end, and nothing unfinished is left."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from resumable.model import keys
from resumable.remotes import urls
from resumable.replication.context import ReplicationLimits
from resumable.spool.disk import Disk
from tests.remotes import azure_rig, gcs_rig
from tests.remotes.azure_servers import AZURITE, KEY, azurite
from tests.remotes.gcs_servers import started
from tests.replication.deaths import CATALOG, REMOTE, Death, Mortal
from tests.replication.real import Daemon, running

PART = 256 << 10
QUICK = ReplicationLimits(part_size=PART, base_delay=0.02, max_delay=0.1)
DATA = Random(1).randbytes(3 * PART + 77)


class Files:
    """A directory."""

    def __init__(self, directory: Any) -> None:
        self.root = directory
        self.trouble: Callable[[], None] = lambda: os.rename(directory, f"{directory}.gone")
        self.calm: Callable[[], None] = lambda: os.rename(f"{directory}.gone", directory)

    def remote(self, journal: Any, pool: Any) -> Any:
        means = urls.BackendServices(reactor, pool, journal, Disk(), time.time, Random(1), part_size=PART)
        return urls.make(urls.parse(f"file://{self.root}"), means)

    async def content(self, key: str) -> bytes | None:
        path = self.root / key
        return path.read_bytes() if path.exists() else None

    async def unfinished(self) -> list[str]:
        return [path.name for path in self.root.glob(".resumable-parts/*")]


class Azure:
    def __init__(self, rig: azure_rig.Rig, prefix: str) -> None:
        self.rig, self.prefix = rig, prefix

    def trouble(self, how: str = "refuse", times: int = 0) -> None:
        for operation, _ in azure_rig.OPERATIONS:
            self.rig.proxy.trouble(operation, how, times=times)

    async def secrets(self) -> list[str]:
        return [KEY, "sig="]

    def calm(self) -> None:
        self.rig.proxy.calm()

    def remote(self, journal: Any, pool: Any) -> Any:
        self.rig.journal = journal
        return self.rig.remote(self.prefix, part_size=PART)

    async def content(self, key: str) -> bytes | None:
        return await self.rig.content(f"{self.prefix}/{key}")

    async def unfinished(self) -> list[str]:
        mine = [name for name in await self.rig.names() if name.startswith(self.prefix)]
        return [name for name in mine if await self.rig.content(name) is None]


class Google:
    def __init__(self, rig: gcs_rig.Rig, prefix: str) -> None:
        self.rig, self.prefix = rig, prefix

    def trouble(self, how: str = "refuse", times: int = 0) -> None:
        for operation, _ in gcs_rig.OPERATIONS:
            self.rig.proxy.trouble(operation, how, times=times)

    async def secrets(self) -> list[str]:
        return ["upload_id=", *self.rig.server.store.sessions]

    def calm(self) -> None:
        self.rig.proxy.calm()

    def remote(self, journal: Any, pool: Any) -> Any:
        self.rig.journal = journal
        return self.rig.remote(template=keys.parse(prefix=self.prefix), part_size=PART)

    async def content(self, key: str) -> bytes | None:
        return await self.rig.content(f"{self.prefix}/{key}")

    async def unfinished(self) -> list[str]:
        return [key for key in self.rig.server.store.objects if key.startswith(f"{self.prefix}/.resumable-")]


@pytest.fixture(scope="module", params=["file", AZURITE, "gs"])
def server(request, tmp_path_factory):
    if request.param == "file":
        yield None
    elif request.param == "azurite":
        pytest.importorskip("azure.storage.blob")
        with azurite(tmp_path_factory.mktemp("azurite")) as running_server:
            yield running_server
    else:
        with started("ours", tmp_path_factory.mktemp("gcs")) as running_server:
            yield running_server


@asynccontextmanager
async def opened(server: Any, directory: Any) -> AsyncIterator[Any]:
    """The store, with a prefix of its own."""
    prefix = directory.name.replace("_", "-")
    if server is None:
        place = directory / "nas"
        place.mkdir()
        yield Files(place)
    elif hasattr(server, "endpoint"):
        async with azure_rig.rig(server) as rig:
            yield Azure(rig, prefix)
    else:
        async with gcs_rig.rig(server) as rig:
            yield Google(rig, prefix)


async def stored(it: Daemon, upload_id: str) -> None:
    async def is_stored() -> bool:
        upload = await it.catalog.get(upload_id)
        return upload.stored_at is not None

    await it.until(is_stored)


@pytest_twisted.ensureDeferred
async def test_it_has_the_first_half_while_the_client_pauses_and_a_next_run_goes_on(server, tmp_path):
    async with opened(server, tmp_path) as store:
        async with running(tmp_path, store.remote, limits=QUICK) as it:
            upload = await it.create(1, len(DATA))
            await it.append(upload.id, DATA[: 2 * PART])

            async def has_half() -> bool:
                return (await it.replica(upload.id)).confirmed == 2 * PART

            await it.until(has_half)
            assert await store.content(upload.id) is None, "nothing is seen before all is there"
        async with running(tmp_path, store.remote, "2", limits=QUICK) as it:
            await it.append(upload.id, DATA[2 * PART :])
            await stored(it, upload.id)
            assert it.replication.queues["far"].counts.bytes <= len(DATA) - 2 * PART, (
                "what was there was not sent again"
            )
        assert await store.content(upload.id) == DATA
        assert not await store.unfinished()


@pytest_twisted.ensureDeferred
async def test_an_outage_for_the_whole_of_some_uploads_is_made_good_by_itself(server, tmp_path):
    async with opened(server, tmp_path) as store, running(tmp_path, store.remote, limits=QUICK) as it:
        store.trouble()
        contents = [Random(number).randbytes(number * PART // 2) for number in range(6)]
        uploads = [await it.create(number, len(data)) for number, data in enumerate(contents)]
        for upload, data in zip(uploads, contents, strict=True):
            await it.append(upload.id, data)

        async def has_failed() -> bool:
            return it.replication.queues["far"].counts.failures.total() > 2

        await it.until(has_failed)
        store.calm()
        await gatherResults([pytest_twisted.defer.ensureDeferred(stored(it, each.id)) for each in uploads])
        for upload, data in zip(uploads, contents, strict=True):
            assert await store.content(upload.id) == data
        assert not await store.unfinished()


@pytest_twisted.ensureDeferred
async def test_of_an_upload_that_is_terminated_nothing_is_left(server, tmp_path):
    async with opened(server, tmp_path) as store, running(tmp_path, store.remote, limits=QUICK) as it:
        unfinished, finished = await it.create(1, len(DATA)), await it.create(2, len(DATA))
        await it.append(unfinished.id, DATA[: 2 * PART])
        await it.append(finished.id, DATA)
        await stored(it, finished.id)

        async def begun() -> bool:
            return (await it.replica(unfinished.id)).confirmed > 0

        await it.until(begun)
        for upload in (unfinished, finished):
            await it.terminate(upload.id)
            await it.until_removed(upload.id)
            assert await store.content(upload.id) is None
        assert not await store.unfinished()


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest_twisted.ensureDeferred
async def test_a_death_at_any_step_of_a_replica_is_made_good(server, tmp_path, after):
    """Before a step has its effect, or after it and before its answer is heard."""
    async with opened(server, tmp_path) as store:
        for step in range(1, 60):
            place = tmp_path / f"run-{step}"
            place.mkdir()
            death = Death(step, after)
            upload = await lived(store, place, step, death)
            async with running(place, store.remote, "2", limits=QUICK) as it:
                await stored(it, upload)
            assert await store.content(upload) == DATA
            assert not await store.unfinished()
            if not death.dead:
                break
        assert 8 <= step < 59


async def lived(store: Any, place: Any, number: int, death: Death) -> str:
    """A run with an upload, until it is stored or the run ends."""

    def remote(journal: Any, pool: Any) -> Any:
        return Mortal(store.remote(journal, pool), REMOTE, death)

    async with running(place, remote, limits=QUICK, replicas=lambda replicas: Mortal(replicas, CATALOG, death)) as it:
        upload = await it.create(number, len(DATA))
        for start in range(0, len(DATA), PART):
            await it.append(upload.id, DATA[start : start + PART])
            await deferLater(reactor, 0.01)

        async def over() -> bool:
            return death.dead or (await it.catalog.get(upload.id)).stored_at is not None

        await it.until(over)
    return upload.id


@pytest.mark.parametrize("how", ["refuse", "lose", "reset"])
@pytest_twisted.ensureDeferred
async def test_neither_log_nor_status_says_a_secret_when_the_store_fails(server, tmp_path, how):
    if server is None:
        pytest.skip("a directory has no secrets")
    with capturedLogs() as said:
        async with opened(server, tmp_path) as store, running(tmp_path, store.remote, limits=QUICK) as it:
            store.trouble(how, times=2)
            upload = await it.create(1, len(DATA))
            await it.append(upload.id, DATA)
            errors = []

            async def is_stored() -> bool:
                errors.append((await it.replica(upload.id)).error)
                return (await it.catalog.get(upload.id)).stored_at is not None

            await it.until(is_stored)
            secrets = await store.secrets()
            assert any(errors)
    ours = [event for event in said if not formatEvent(event).startswith('"127.0.0.1" - - [')]  # the fake's own log
    lines = [formatEvent(event) for event in ours] + [str(event) for event in ours] + [str(each) for each in errors]
    for secret in secrets:
        assert not [line for line in lines if secret in line]

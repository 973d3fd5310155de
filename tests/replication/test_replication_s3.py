"""Replication with real threads, real files and an S3 server behind a proxy that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.remotes.s3_rig import MIB, rig
from tests.remotes.s3_servers import VERSITYGW, started
from tests.replication.real import Daemon, running


@pytest.fixture(scope="module", params=["moto", VERSITYGW])
def server(request, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


@asynccontextmanager
async def daemon(server, directory, run: str = "1") -> AsyncIterator[tuple[Any, Daemon]]:
    async with rig(server) as s3:

        def remote(journal, pool):
            s3.journal = journal
            return s3.remote()

        async with running(directory, remote, run) as it:
            yield s3, it


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_fifty_mebibytes_in_two_hundred_pieces_cost_nine_requests(server, tmp_path):
    data = Random(1).randbytes(50 * MIB)
    async with daemon(server, tmp_path) as (s3, it):
        upload = await it.create(1, len(data))
        stored = it.replication.when_stored(upload.id)
        for start in range(0, len(data), MIB // 4):
            await it.append(upload.id, data[start : start + MIB // 4])
        await stored
        assert s3.proxy.requests == {"CreateMultipartUpload": 1, "UploadPart": 7, "CompleteMultipartUpload": 1}
        assert await s3.content(upload.id) == data


@pytest_twisted.ensureDeferred
async def test_small_uploads_cost_one_request_each(server, tmp_path):
    async with daemon(server, tmp_path) as (s3, it):
        uploads = [await it.create(100 + number, 4096) for number in range(40)]
        stored = [it.replication.when_stored(each.id) for each in uploads]
        for number, each in enumerate(uploads):
            await it.append(each.id, Random(number).randbytes(4096))
        await gatherResults(stored)
        assert s3.proxy.requests == {"PutObject": 40}
        assert await s3.content(uploads[7].id) == Random(7).randbytes(4096)


@pytest_twisted.ensureDeferred
async def test_the_store_has_the_first_half_while_the_client_pauses_and_a_next_run_goes_on(server, tmp_path):
    data = Random(2).randbytes(32 * MIB)
    async with daemon(server, tmp_path) as (s3, it):
        upload = await it.create(2, len(data))
        await it.append(upload.id, data[: 16 * MIB])

        async def has_half() -> bool:
            (replica,) = await it.catalog.replicas.of(upload.id)
            return replica.confirmed == 16 * MIB

        await it.until(has_half)
        assert s3.proxy.requests["UploadPart"] == 2
    async with daemon(server, tmp_path, "2") as (s3, it):
        stored = it.replication.when_stored(upload.id)
        await it.append(upload.id, data[16 * MIB :])
        await stored
        assert s3.proxy.requests["UploadPart"] == 2
        assert s3.proxy.requests["ListParts"] == 1
        assert await s3.content(upload.id) == data


@pytest_twisted.ensureDeferred
async def test_the_multipart_of_a_terminated_upload_is_aborted(server, tmp_path):
    async with daemon(server, tmp_path) as (s3, it):
        upload = await it.create(3, 64 * MIB)
        await it.append(upload.id, Random(3).randbytes(20 * MIB))

        async def begun() -> bool:
            return s3.proxy.requests.get("UploadPart", 0) > 0

        await it.until(begun)
        await it.terminate(upload.id)
        await it.until_removed(upload.id)
        assert await s3.unfinished() == []

"""aiotus 1.1.0, the asyncio client."""

from __future__ import annotations

import asyncio
import io

import aiohttp
import aiotus
import pytest
import yarl

from .daemon import Daemon
from .tus import Tus, pattern

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # its way with chunks

DATA = pattern(1_200_011, seed=15)


def test_a_file_and_its_metadata_arrive_whole(daemon: Daemon, tus: Tus) -> None:
    described: dict[str, bytes | None] = {"filename": "naïve.bin".encode(), "flag": None}

    async def go() -> tuple[str, dict[str, bytes | None]]:
        location = await aiotus.upload(daemon.url, io.BytesIO(DATA), described, chunksize=300_000)
        assert location is not None and location.is_absolute()
        found = await aiotus.metadata(str(location))
        assert found is not None
        return location.path, dict(found)

    path, found = asyncio.run(go())
    assert found == described
    assert tus.content(path) == DATA


def test_an_empty_file_is_finished(daemon: Daemon, tus: Tus) -> None:
    location = asyncio.run(aiotus.upload(daemon.url, io.BytesIO(b"")))
    assert location is not None
    assert tus.content(location.path) == b""


def test_several_files_become_one(daemon: Daemon, tus: Tus) -> None:
    """Its ``Upload-Concat: final;`` carries bare paths."""
    pieces = [io.BytesIO(DATA[:5]), io.BytesIO(b""), io.BytesIO(DATA[5:])]
    location = asyncio.run(aiotus.upload_multiple(daemon.url, pieces))
    assert location is not None
    assert tus.content(location.path) == DATA
    assert "://" not in tus.head(location.path)["upload-concat"]


def test_an_interrupted_upload_goes_on(daemon: Daemon, tus: Tus) -> None:
    path = tus.create(len(DATA), None, DATA[:300_000])

    async def go() -> None:
        async with aiohttp.ClientSession() as session:
            await aiotus.core.upload_buffer(session, yarl.URL(daemon.origin + path), io.BytesIO(DATA))

    asyncio.run(go())
    assert tus.content(path) == DATA


def test_the_server_is_asked_for_what_it_can(daemon: Daemon) -> None:
    """OPTIONS without Tus-Resumable."""
    found = asyncio.run(_configuration(daemon))
    assert found.protocol_versions == ["1.0.0"]
    assert "creation" in found.protocol_extensions


async def _configuration(daemon: Daemon) -> aiotus.core.ServerConfiguration:
    async with aiohttp.ClientSession() as session:
        return await aiotus.core.configuration(session, yarl.URL(daemon.url))


def test_a_creation_with_a_type_and_no_bytes_is_no_creation_with_upload(tus: Tus) -> None:
    """Its creation POST has Content-Type application/octet-stream and length 0: not 415."""
    answer = tus.ask("POST", None, {"Upload-Length": "5", "Content-Type": "application/octet-stream"})
    assert answer.status == 201
    assert tus.offset(tus.path(answer)) == 0

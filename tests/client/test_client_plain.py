"""Both faces against a plain tus server: without status, digests, checksums, concatenation and removal."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from resumable.client import (
    AsyncClient,
    Client,
    ClientOptions,
    NothingThere,
    StateFile,
    TransferCancelled,
    TransferEvent,
)
from tests.client.plain_tus import PlainTus, plain_tus

DATA = random.Random(8).randbytes(2_000_003)


@pytest.fixture
def server() -> Iterator[PlainTus]:
    with plain_tus() as it:
        yield it


@pytest.fixture
def state(directory: Path) -> StateFile:
    return StateFile(directory / "state/uploads.json")


def content(server: PlainTus, url: str) -> bytes:
    return bytes(server.uploads[url.removeprefix(server.url.removesuffix("/files"))][1])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("face", ["blocking", "deferred"])
@pytest.mark.parametrize("kind", ["file", "stream"])
async def test_it_sends_goes_on_and_says_that_nothing_was_compared(
    server: PlainTus, state: StateFile, directory: Path, face: str, kind: str
) -> None:
    path = directory / "source"
    path.write_bytes(DATA)
    source: Any = path if kind == "file" else io.BytesIO(DATA)
    server.breaks = 2
    options = ClientOptions(checksum="auto", parts=2, wait_stored=True, poll_status=0.05)
    told: list[TransferEvent] = []
    if face == "blocking":
        with Client(options, on_event=told.append, state=state) as client:
            done = await deferToThread(client.put, source, server.url)
    else:
        it = AsyncClient(reactor, options, on_event=told.append, state=state)
        done = await it.put(source, server.url)
        await it.close()
    assert content(server, done.url) == DATA
    assert (done.checked, done.stored, done.size) == (False, None, len(DATA))
    assert len([each for each in told if each.name == "retried"]) == 2
    assert state.entries() == []


@pytest_twisted.ensureDeferred
async def test_cancelling_the_deferred_ends_the_transfer_and_the_next_goes_on(
    server: PlainTus, state: StateFile, directory: Path
) -> None:
    path = directory / "source"
    path.write_bytes(DATA)
    moving: Deferred[None] = Deferred()

    def on_event(event: TransferEvent) -> None:
        if event.name == "moved" and not moving.called:
            moving.callback(None)

    slow = AsyncClient(reactor, ClientOptions(limit_rate=1e6), on_event=on_event, state=state)
    sending = slow.put(path, server.url)
    await moving
    sending.cancel()
    with pytest.raises(CancelledError):
        await sending
    await slow.close()
    (leftover,) = state.entries()
    it = AsyncClient(reactor, ClientOptions(), state=state)
    assert (await it.leftovers(server.url)) == [leftover]
    assert await it.offset(leftover) is not None
    done = await it.put(path, server.url)
    await it.close()
    assert done.url == leftover.url
    assert content(server, done.url) == DATA


@pytest_twisted.ensureDeferred
async def test_cancel_ends_the_blocking_face_from_another_thread(
    server: PlainTus, state: StateFile, directory: Path
) -> None:
    path = directory / "source"
    path.write_bytes(DATA)
    client = Client(ClientOptions(limit_rate=1e6), state=state)

    def on_event(event: TransferEvent) -> None:
        if event.name == "moved":
            client.cancel()

    with pytest.raises(TransferCancelled):
        await deferToThread(client.put, path, server.url, on_event=on_event)
    (leftover,) = client.leftovers()
    assert client.offset(leftover) is not None
    server.uploads.clear()
    assert client.offset(leftover) is None
    client.forget(leftover)
    client.close()
    assert client.leftovers() == []


def test_what_on_event_raises_ends_the_transfer(server: PlainTus, state: StateFile) -> None:
    def on_event(event: TransferEvent) -> None:
        raise ZeroDivisionError

    with Client(state=state, on_event=on_event) as client, pytest.raises(ZeroDivisionError):
        client.put(DATA, server.url)


def test_an_address_that_is_not_there(server: PlainTus, state: StateFile, directory: Path) -> None:
    with Client(state=state) as client:
        assert client.status(server.url + "/none") is None
        with pytest.raises(NothingThere):
            client.get(server.url + "/none", directory / "x")

"""A container as the spool, over Azurite: the contract, and the requests it takes."""

from __future__ import annotations

import unittest

import pytest
import pytest_twisted

from resumable.remotes.azure import azure_spool
from resumable.remotes.errors import CannotCopy, NotThere
from resumable.remotes.object_store import ObjectProperties, SentPart
from resumable.remotes.regions import BytesRegion
from tests.remotes.azure_rig import rig
from tests.remotes.azure_servers import azurite, sas
from tests.remotes.live_contract import LiveStoreContract
from tests.remotes.s3_proxy import answer, error

OURS = ObjectProperties("u1", "w-1", {"filename": b"a.txt"})
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


class TestAzurite(LiveStoreContract, unittest.TestCase):
    has_multiparts = False
    copies_parts = False  # Azurite answers Put Block From URL with 501: test_azure_spool_pure

    @classmethod
    def setUpClass(cls) -> None:
        """The server is the module's."""

    @classmethod
    def tearDownClass(cls) -> None:
        """It goes with the module."""

    @pytest.fixture(autouse=True)
    def _running(self, server):
        self.server = server

    def rigged(self):
        return rig(self.server)


@pytest.fixture
def prefix(request):
    return "".join(c for c in request.node.name if c.isalnum())[-80:]


async def sent(store, key: str, handle: str, name: str, data: bytes) -> SentPart:
    return SentPart(1, name, len(data), await store.write_part(key, handle, 1, name, BytesRegion(data)))


@pytest_twisted.ensureDeferred
async def test_giving_a_handle_up_asks_nothing_since_it_would_take_the_blocks_of_others_along(server, prefix):
    async with rig(server) as it:
        store, key = it.store(prefix), f"{prefix}/u1"
        lost, kept = await store.begin(key, OURS), await store.begin(key, OURS)
        await sent(store, key, lost, "w-1", b"lost")
        part = await sent(store, key, kept, "w-2", b"kept")
        await store.abandon(key, lost, ["w-1"])
        assert it.proxy.requests == {"Put Block": 2}
        made = await store.complete(key, kept, OURS, [part], True)
        assert (made.size, await it.content(key)) == (4, b"kept")


@pytest_twisted.ensureDeferred
async def test_blocks_that_azure_has_dropped_are_not_there(server, prefix):
    async with rig(server) as it:
        store, key = it.store(prefix), f"{prefix}/u1"
        handle = await store.begin(key, OURS)
        with pytest.raises(NotThere):
            await store.complete(key, handle, OURS, [SentPart(1, "w-1", 4, "md5:x")], True)


@pytest_twisted.ensureDeferred
async def test_a_file_is_one_request_a_part_another_and_the_end_one_more(server, prefix):
    async with rig(server) as it:
        store, key = it.store(prefix, tier="cool"), f"{prefix}/u1"
        await store.put(f"{key}2", BytesRegion(b"whole"), OURS, True)
        handle = await store.begin(key, OURS)
        parts = [await sent(store, key, handle, name, name.encode()) for name in ("w-1", "w-2")]
        await store.complete(key, handle, OURS, parts, True)
        assert it.proxy.requests == {"Put Blob": 1, "Put Block": 2, "Put Block List": 1}
        assert (await it.blob(key)).blob_tier == "Cool"
        await store.write(f"{key}3", BytesRegion(b"a piece, soon removed"))
        assert (await it.blob(f"{key}3")).blob_tier == "Hot"


@pytest_twisted.ensureDeferred
async def test_a_stream_has_bytes_of_one_state_and_no_more_requests_than_pieces(server, prefix):
    data = bytes(range(256)) * (5 << 10)
    async with rig(server) as it:
        store, key = it.store(prefix), f"{prefix}/u1"
        await it.put(key, data)
        stream = await store.open(key, 1, len(data) - 1)
        assert it.proxy.requests == {"Get Blob": 1}
        assert await stream.read() + await stream.read() + await stream.read() == data[1:]
        assert it.proxy.requests == {"Get Blob": 2}
        stream = await store.open(key, 0, len(data))
        await stream.read()
        await it.put(key, data[::-1])
        with pytest.raises(NotThere):
            await stream.read()


@pytest.mark.parametrize("refused", [False, True])
@pytest_twisted.ensureDeferred
async def test_blobs_are_removed_in_batches_or_one_by_one_where_the_store_has_none(server, prefix, refused):
    async with rig(server) as it:
        store, names = it.store(prefix), [f"{prefix}/{number}" for number in range(3)]
        for name in names:
            await store.write(name, BytesRegion(b"piece"))
        if refused:
            it.proxy.trouble("Blob Batch", "answer", answer=answer("400 Bad Request", error("InvalidInput")))
        it.proxy.requests.clear()
        await store.remove([*names, f"{prefix}/none"])
        assert it.proxy.requests == {"Blob Batch": 1, **({"Delete Blob": 4} if refused else {})}
        assert not [name for name in await it.names() if name.startswith(prefix)]


@pytest_twisted.ensureDeferred
async def test_more_blobs_than_a_batch_takes_are_removed(server, prefix, monkeypatch):
    assert azure_spool.BATCH == 256
    monkeypatch.setattr(azure_spool, "BATCH", 2)
    async with rig(server) as it:
        await it.store(prefix).remove([f"{prefix}/{number}" for number in range(4)])
        assert it.proxy.requests == {"Blob Batch": 2}


@pytest_twisted.ensureDeferred
async def test_a_sas_is_enough_for_a_spool(server, prefix):
    environ = {"AZURE_STORAGE_SAS_TOKEN": sas(read=True, write=True, delete=True, list=True)}
    async with rig(server) as it:
        store = it.store(prefix, environ=environ)
        await store.probe()
        await store.write(f"{prefix}/1", BytesRegion(b"1"))
        await store.write(f"{prefix}/2", BytesRegion(b"2"))
        await store.remove([f"{prefix}/1", f"{prefix}/2"])
        assert await store.list(f"{prefix}/", "", 10) == []


@pytest_twisted.ensureDeferred
async def test_a_part_that_azurite_cannot_copy_has_to_go_through_us(server, prefix):
    async with rig(server) as it:
        store, key = it.store(prefix), f"{prefix}/u1"
        await store.write(f"{key}2", BytesRegion(b"source"))
        with pytest.raises(CannotCopy):
            await store.copy_part(key, await store.begin(key, OURS), 1, "w-1", f"{key}2", 0, 6)
        assert it.proxy.requests == {"Put Blob": 1, "Put Block From URL": 1}


@pytest_twisted.ensureDeferred
async def test_a_blob_whose_metadata_is_refused_goes_without_and_stays_ours(server, prefix):
    async with rig(server) as it:
        store, key = it.store(prefix), f"{prefix}/u1"
        refused = answer("400 Bad Request", error("InvalidMetadata"), x_ms_error_code="InvalidMetadata")
        it.proxy.trouble("Put Blob", "answer", answer=refused)
        given = ObjectProperties("u1", "w-1", {"note": b"x"})
        await store.put(key, BytesRegion(b"hello"), given, True)
        found = await store.find(key)
        assert (found.upload_id, found.token) == ("u1", "w-1")
        assert "note" not in (await it.blob(key)).metadata


@pytest_twisted.ensureDeferred
async def test_a_list_goes_on_where_the_last_answer_ended(server, prefix):
    async with rig(server) as it:
        store, names = it.store(prefix), [f"{prefix}/{number}" for number in range(4)]
        for name in names:
            await store.write(name, BytesRegion(b"piece"))
        pages = [await store.list(f"{prefix}/", after, 2) for after in ("", names[1], names[3])]
        assert [each.key for page in pages for each in page] == names
        assert it.proxy.requests["List Blobs"] <= 3
        assert [each.key for each in await store.list(f"{prefix}/", names[0], 2)] == names[1:3]

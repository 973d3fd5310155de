"""Google's remote: which requests are made, what objects are given, what is left, and who may ask."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import succeed

from resumable.model import keys
from resumable.remotes import urls
from resumable.remotes.errors import AuthFailed, Conflict, OutOfStep, Permanent, Unusable
from resumable.remotes.gcs.credentials import Token
from resumable.remotes.gcs.records import GcsObjectOptions, GcsRecord
from resumable.remotes.gcs.remote import OPTIONS, SCHEME
from resumable.remotes.gcs.requests import GcsPlace, GcsRequests
from resumable.remotes.interfaces import IPartRemote, ISweeper
from resumable.remotes.journals import MemoryJournal, ReplicaRecords
from resumable.remotes.plan import TIB
from resumable.remotes.regions import BytesRegion
from tests.remotes.gcs_rig import MIB, QUANTUM, rig
from tests.remotes.gcs_servers import BUCKET, started
from tests.remotes.simple_engine import upload

U1, U2 = "1" * 32, "2" * 32
BIG = bytes(range(256)) * (MIB // 128) + b"the rest"
ROUND = BIG[: 2 * MIB]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with started("ours", tmp_path_factory.mktemp("buckets")) as running:
        yield running


@pytest.fixture
def store(server):
    server.store.objects.clear()
    server.store.sessions.clear()
    server.store.token = None
    return server.store


@pytest.mark.parametrize(
    ("data", "requests"),
    [
        (b"", {"Insert": 1}),
        (b"small", {"Insert": 1}),
        (ROUND, {"StartSession": 1, "Chunk": 1, "Finish": 1}),
        (BIG, {"StartSession": 1, "Chunk": 2, "Finish": 1}),
        (BIG[: MIB + QUANTUM + 1], {"StartSession": 1, "Chunk": 1, "Finish": 1}),
    ],
    ids=len,
)
@pytest_twisted.ensureDeferred
async def test_few_requests_are_made(server, store, data, requests):
    async with rig(server) as it:
        stored = await upload(it.remote(part_size=MIB), U1, data)
        assert it.proxy.requests == requests
        assert await it.content(stored.key) == data
        assert not store.unfinished and not store.refused


@pytest_twisted.ensureDeferred
async def test_what_an_object_is_given(server, store):
    metadata = {
        "filename": "bücher\n.pdf".encode(),
        "filetype": b"application/pdf",
        "Team": b"a",
        "resumable-upload-id": b"x",
    }
    options = GcsObjectOptions(storage_class="NEARLINE")
    async with rig(server) as it:
        for upload_id, data in ((U1, b"small"), (U2, BIG)):
            stored = await upload(it.remote(part_size=MIB, options=options), upload_id, data, metadata)
            made = store.objects[stored.key][1]
            assert made["contentType"] == "application/pdf" and made["storageClass"] == "NEARLINE"
            assert "attachment" in made["contentDisposition"] and "\n" not in made["contentDisposition"]
            assert made["metadata"] == {
                "filename": "bücher?.pdf",
                "filetype": "application/pdf",
                "team": "a",
                "resumable-upload-id": upload_id,
            }
            assert stored.location == f"gs://{BUCKET}/{stored.key}"
            assert stored.version == made["generation"] and stored.checksum == f"crc32c:{made['crc32c']}"
        plain = it.remote(options=GcsObjectOptions(client_metadata=False))
        stored = await upload(plain, "3" * 32, b"x", metadata)
        assert store.objects[stored.key][1]["metadata"] == {"resumable-upload-id": "3" * 32}


def test_metadata_stays_within_what_the_store_takes():
    many = {f"name{number:03}": b"v" * 100 for number in range(200)}
    found = GcsObjectOptions().resource_for(U1, many)["metadata"]
    assert 50 < len(found) < 200
    assert sum(len(name) + len(value) for name, value in found.items()) <= 8192


@pytest_twisted.ensureDeferred
async def test_chunks_come_in_order_and_a_plan_says_how_they_are_cut(server, store):
    async with rig(server) as it:
        remote = it.remote(part_size=300_000)
        assert not IPartRemote.providedBy(remote) and not ISweeper.providedBy(remote)
        await remote.initiate_upload(U1, len(BIG), {})
        plan = await remote.part_plan(U1)
        assert plan.first_size == 2 * QUANTUM  # rounded up
        second = plan.part_numbered(2, len(BIG))
        with pytest.raises(OutOfStep) as caught:
            await remote.write_chunk(U1, second.offset, BytesRegion(BIG[second.offset : second.end]), second.size)
        assert caught.value.progress == 0 and not it.proxy.requests
        with pytest.raises(ValueError, match="no part of the plan"):
            await remote.write_chunk(U1, 0, BytesRegion(BIG[:QUANTUM]), QUANTUM)
        with pytest.raises(Permanent):
            await remote.initiate_upload(U2, 5 * TIB + 1, {})


@pytest_twisted.ensureDeferred
async def test_the_store_is_asked_what_it_has_once_after_a_restart(server, store):
    async with rig(server) as it:
        remote = it.remote(part_size=MIB)
        await remote.initiate_upload(U1, 4 * MIB, {})
        for number in range(4):
            if number == 2:
                remote = it.remote(part_size=MIB)
            await remote.write_chunk(U1, number * MIB, BytesRegion(bytes(MIB)), MIB)
        assert it.proxy.requests == {"StartSession": 1, "Chunk": 3, "Ask": 1, "Finish": 1}


@pytest_twisted.ensureDeferred
async def test_the_journal_has_no_more_than_it_needs_and_sessions_are_shown_nowhere(server, store):
    async with rig(server) as it:
        remote = it.remote(part_size=MIB)
        await remote.initiate_upload(U1, len(BIG), {"filename": b"a" * 900})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:MIB]), MIB)
        saved = await it.journal.load(U1)
        assert "secret-" in saved["session"] and len(json.dumps(saved)) < 6000
        assert "secret-" not in repr(await ReplicaRecords(GcsRecord, it.journal).load(U1))
        await upload(remote, U1, BIG)
        assert (await it.journal.load(U1))["session"] is None


@pytest_twisted.ensureDeferred
async def test_two_that_write_the_same_key_do_not_finish_over_each_other(server, store):
    async with rig(server) as it:
        template = keys.parse("{metadata[filename]}")
        first, second = it.remote(part_size=MIB, template=template), it.remote(part_size=MIB, template=template)
        for remote, upload_id in ((first, U1), (second, U2)):
            await remote.initiate_upload(upload_id, len(ROUND), {"filename": b"same"})
            await remote.write_chunk(upload_id, 0, BytesRegion(ROUND[:MIB]), MIB)
        await second.write_chunk(U2, MIB, BytesRegion(ROUND[MIB:]), MIB)
        with pytest.raises(Conflict):
            await first.write_chunk(U1, MIB, BytesRegion(ROUND[MIB:]), MIB)
        assert store.objects["same"][1]["metadata"]["resumable-upload-id"] == U2
        assert await first.delete_object(U1) is False
        await first.abort_upload(U1)
        assert not store.unfinished


@pytest_twisted.ensureDeferred
async def test_an_abort_leaves_nothing_of_an_upload_that_was_written_but_for_its_end(server, store):
    async with rig(server) as it:
        remote = it.remote(part_size=MIB)
        await remote.initiate_upload(U1, len(BIG), {})
        for offset in (0, MIB):
            await remote.write_chunk(U1, offset, BytesRegion(BIG[offset : offset + MIB]), MIB)
        assert len(store.unfinished) == 1
        await it.remote().abort_upload(U1)
        assert not store.unfinished and not store.objects


@pytest_twisted.ensureDeferred
async def test_a_probe_needs_the_bucket_and_the_rights_and_leaves_nothing(server, store):
    async with rig(server) as it:
        await it.remote(template=keys.parse(prefix="a/b")).probe()
        assert it.proxy.requests == {"StartSession": 1, "Cancel": 1, "LookUp": 1, "Delete": 1}
        assert not store.unfinished and not store.objects
        it.requests.place = GcsPlace("another-bucket", it.requests.place.base)
        with pytest.raises(Unusable) as caught:
            await it.remote().probe()
        assert "create the bucket" in caught.value.advice


class Tokens:
    """Gives "old" until that is refused."""

    def __init__(self, *values: str) -> None:
        self.values = list(values)
        self.asked = 0

    def get(self):
        self.asked += 1
        return succeed(Token(self.values[0]))

    def renew(self, refused):
        if len(self.values) > 1:
            self.values.pop(0)
            return self.get()
        return succeed(None)


@pytest_twisted.ensureDeferred
async def test_a_refused_token_is_renewed_once_without_anybody_noticing(server, store):
    store.token = "new"
    async with rig(server, Tokens("old", "new")) as it:
        assert (await upload(it.remote(part_size=MIB), U1, BIG)).size == len(BIG)
        assert it.proxy.requests["StartSession"] == 2
    async with rig(server, Tokens("old")) as it:
        with pytest.raises(AuthFailed) as caught:
            await upload(it.remote(), U2, b"small")
        assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.advice
        assert "old" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_a_token_goes_to_the_endpoint_only():
    class Recorder:
        seen: list = []  # noqa: RUF012

        async def request(self, method, url, headers, body, *, largest, patience=1.0):
            from resumable.httpclient.client import HttpAnswer

            self.seen.append((url, headers))
            return HttpAnswer(200, {"location": "https://elsewhere.example/upload?upload_id=1"}, b"{}")

    requests = GcsRequests(GcsPlace("bucket", "https://store.example"), Tokens("token"), Recorder())
    await requests.send("x", "GET", "https://store.example:443/storage")
    await requests.send("x", "GET", "https://elsewhere.example/storage")
    await requests.send("x", "GET", "http://store.example/storage")
    assert ["Authorization" in headers for _, headers in Recorder.seen] == [True, False, False]


# what an operator says


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket",
        "gs://my.bucket_1/a/prefix?storage-class=COLDLINE&part-size=32M&metadata=no&acl=projectPrivate",
        "gs://bucket?credentials=/etc/key.json&user-project=my-project&endpoint=https://private.googleapis.com",
        "gs://bucket?endpoint=localhost:4443",
        "gs://bucket?kms-key=projects/p/locations/eu/keyRings/r/cryptoKeys/k",
    ],
)
def test_urls_that_are_taken_make_a_remote(url):
    spec = urls.parse(url)
    means = urls.BackendServices(reactor, None, MemoryJournal(), None, time.time, Random(1))
    assert urls.make(spec, means) is not None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("gs://Bucket", "a bucket's name"),
        ("gs://bucket?storage-class=cold line", "storage-class is"),
        ("gs://bucket?part-size=1", "part-size is"),
        ("gs://bucket?part-size=many", "part-size is"),
        ("gs://bucket?credentials=key.json", "absolute path"),
        ("gs://bucket?kms-key=k", "kms-key is projects/"),
        ("gs://bucket?acl=everyone", "acl is"),
        ("gs://bucket?metadata=maybe", "metadata is yes or no"),
        ("gs://bucket?endpoint=ftp://host", "an endpoint looks like"),
        ("gs://bucket?endpoint=https://user:password@host", "an endpoint looks like"),
        ("gs://bucket?endpoint=http://host&anonymous=no", "needs an endpoint that is https"),
        ("gs://bucket?endpoint=http://host&credentials=/key.json", "of no use"),
        ("gs://bucket?storageclass=x", "storage-class"),
    ],
)
def test_urls_that_are_not_taken_say_why_in_one_line(url, why):
    with pytest.raises(urls.BadRemote) as caught:
        urls.parse(url)
    assert why in str(caught.value) and "\n" not in str(caught.value) and "password" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_the_variable_of_emulators_is_heeded(server, store):
    environ = {"STORAGE_EMULATOR_HOST": server.url.removeprefix("http://")}
    spec = urls.parse(f"gs://{BUCKET}/there", environ=environ)
    remote = urls.make(spec, urls.BackendServices(reactor, None, MemoryJournal(), None, time.time, Random(1), environ))
    try:
        await upload(remote, U1, BIG)
        assert [key for key in store.objects] == [f"there/{U1}"]
    finally:
        await remote.close()


def test_every_option_is_on_the_page_word_for_word():
    page = (Path(__file__).parents[2] / "docs" / "google.md").read_text("utf-8")
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (.*) \|$", page.partition("## Options")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert dict(rows) == dict(OPTIONS) == dict(SCHEME.options)


@pytest.mark.process
def test_google_auth_is_imported_with_the_scheme_only_and_named_when_it_is_missing():
    script = (
        "import sys\n"
        "from resumable.remotes import urls\n"
        "assert not any(name.startswith('google.auth') for name in sys.modules)\n"
        "sys.modules['google.auth'] = None\n"
        "try:\n    urls.parse('gs://bucket')\nexcept urls.BadRemote as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert "pip install 'resumable-server[gcs]'" in run.stdout and run.stdout.count("\n") == 1

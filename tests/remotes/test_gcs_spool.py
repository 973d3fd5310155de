"""A bucket as the spool: which requests are made, how parts become an object, and what is left."""

from __future__ import annotations

import json
import time
from random import Random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import succeed

from resumable.remotes import urls
from resumable.remotes.errors import CannotCopy, Conflict, NotThere, Transient
from resumable.remotes.gcs.credentials import Anonymous
from resumable.remotes.gcs.gcs_spool import FAN, LIMITS, Draft
from resumable.remotes.gcs.remote import SCHEME
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.metadata import ID_METADATA, PLAIN, TOKEN_METADATA
from resumable.remotes.object_store import ObjectProperties, SentPart
from resumable.remotes.reading import Presented
from resumable.remotes.regions import BytesRegion
from tests.remotes.gcs_rig import rig
from tests.remotes.gcs_servers import BUCKET, started
from tests.remotes.s3_proxy import answer

KEY = "p/u1"
OURS = ObjectProperties("u1", "w-1", {"filename": b"a.txt"})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with started("ours", tmp_path_factory.mktemp("buckets")) as running:
        yield running


@pytest.fixture
def bucket(server):
    server.store.objects.clear()
    server.store.composed.clear()
    server.store.page = 1000
    yield server.store
    assert not server.store.refused
    assert not server.store.sessions


def name_of(number: int) -> str:
    return f"p/.tails/u1/w-{number:04}"


def made(bucket, count: int) -> list[SentPart]:
    """So many parts of 3 bytes, as `write_part` leaves them."""
    parts = []
    for number in range(1, count + 1):
        there = bucket.create(name_of(number), b"%03d" % (number % 1000), {}, None)
        parts.append(SentPart(number, name_of(number), 3, f"crc32c:{there['crc32c']}"))
    return parts


async def sent(store, handle: str, number: int, data: bytes) -> SentPart:
    receipt = await store.write_part(KEY, handle, number, name_of(number), BytesRegion(data))
    return SentPart(number, name_of(number), len(data), receipt)


# requests


@pytest_twisted.ensureDeferred
async def test_each_part_is_one_request_and_32_of_them_become_an_object_by_one(server, bucket):
    async with rig(server) as it:
        store = it.store("p")
        handle = await store.begin(KEY, OURS)
        assert it.proxy.requests == {}
        parts = [await sent(store, handle, number, b"part%d" % number) for number in range(1, FAN + 1)]
        assert it.proxy.requests == {"Insert": FAN}
        await store.complete(KEY, handle, OURS, parts, True)
        assert it.proxy.requests == {"Insert": FAN, "Compose": 1}
        assert bucket.objects[KEY][0] == b"".join(b"part%d" % number for number in range(1, FAN + 1))


@pytest_twisted.ensureDeferred
async def test_a_whole_file_is_one_request_and_reading_it_another(server, bucket):
    async with rig(server) as it:
        store = it.store("p")
        await store.put(KEY, BytesRegion(b"hello"), OURS, True)
        assert it.proxy.requests == {"Insert": 1}
        stream = await store.open(KEY, 1, 3)
        assert await stream.read() == b"ell"
        stream.close()
        assert it.proxy.requests == {"Insert": 1, "Read": 1}


# compose


@pytest.mark.parametrize(("count", "requests"), [(33, 2), (FAN * FAN + 1, 34)])
@pytest_twisted.ensureDeferred
async def test_many_parts_are_composed_as_a_tree_of_which_only_the_object_and_the_parts_are_left(
    server, bucket, count, requests
):
    parts = made(bucket, count)
    async with rig(server) as it:
        store = it.store("p")
        done = await store.complete(KEY, await store.begin(KEY, OURS), OURS, parts, True)
        assert it.proxy.requests["Compose"] == requests
    assert (done.size, done.token, done.upload_id) == (3 * count, "w-1", "u1")
    assert bucket.objects[KEY][0] == b"".join(b"%03d" % (number % 1000) for number in range(1, count + 1))
    assert sorted(bucket.objects) == sorted([KEY, *(part.name for part in parts)])
    between = [key for key, _ in bucket.composed[:-1]]
    assert all(key.startswith(f"{name_of(1)}.") for key in between)  # where sweepers look


@pytest_twisted.ensureDeferred
async def test_of_two_that_complete_the_same_none_has_objects_in_between_that_the_other_removes(server, bucket):
    parts = made(bucket, FAN + 2)
    async with rig(server) as it:
        store = it.store("p")
        handle = await store.begin(KEY, OURS)
        for _ in range(2):
            await store.complete(KEY, handle, OURS, parts, False)
    between = [key for key, _ in bucket.composed if key != KEY]
    assert len(between) == len(set(between)) == 4
    finals = [sources for key, sources in bucket.composed if key == KEY]
    assert not set(finals[0]) & set(finals[1])


@pytest_twisted.ensureDeferred
async def test_what_a_failed_complete_made_in_between_is_removed(server, bucket):
    parts = made(bucket, FAN + 2)
    bucket.create(KEY, b"another's", {}, None)
    async with rig(server) as it:
        store = it.store("p")
        with pytest.raises(Conflict):
            await store.complete(KEY, await store.begin(KEY, OURS), OURS, parts, True)
    assert bucket.objects[KEY][0] == b"another's"
    assert len(bucket.objects) == FAN + 3


@pytest_twisted.ensureDeferred
async def test_parts_of_no_bytes_are_left_out_and_nothing_else_makes_an_object_of_none(server, bucket):
    async with rig(server) as it:
        store = it.store("p")
        handle = await store.begin(KEY, OURS)
        none, some = await sent(store, handle, 1, b""), await sent(store, handle, 2, b"some")
        await store.complete(KEY, handle, OURS, [none, some], True)
        assert bucket.composed == [(KEY, [some.name])]
        empty = await store.complete("p/u2", handle, OURS, [none], True)
        assert (empty.size, empty.token) == (0, "w-1")
        with pytest.raises(Conflict):
            await store.complete("p/u2", handle, OURS, [none], True)


@pytest.mark.parametrize("count", [2, FAN + 1])
@pytest_twisted.ensureDeferred
async def test_an_object_that_was_made_of_other_bytes_is_taken_back(server, bucket, count):
    parts = made(bucket, count)
    bucket.damages = True
    async with rig(server) as it:
        store = it.store("p")
        handle = await store.begin(KEY, OURS)
        with pytest.raises(Transient, match="other bytes"):
            await store.complete(KEY, handle, OURS, parts, True)
        assert sorted(bucket.objects) == sorted(part.name for part in parts)
        await store.complete(KEY, handle, OURS, parts, True)


@pytest_twisted.ensureDeferred
async def test_without_one_of_its_parts_no_object_is_made(server, bucket):
    parts = made(bucket, 2)
    del bucket.objects[parts[0].name]
    async with rig(server) as it:
        store = it.store("p")
        with pytest.raises(NotThere):
            await store.complete(KEY, await store.begin(KEY, OURS), OURS, parts, True)
    assert sorted(bucket.objects) == [parts[1].name]


@pytest_twisted.ensureDeferred
async def test_an_object_whose_answer_was_lost_is_found_by_its_token(server, bucket):
    parts = made(bucket, 2)
    async with rig(server) as it:
        store = it.store("p")
        handle = await store.begin(KEY, OURS)
        it.proxy.trouble("Compose", "lose")
        with pytest.raises(Transient):
            await store.complete(KEY, handle, OURS, parts, True)
        with pytest.raises(Conflict):
            await store.complete(KEY, handle, OURS, parts, True)
        assert (await store.find(KEY)).token == store.token_of(handle)


# what objects are given


@pytest_twisted.ensureDeferred
async def test_parts_have_the_class_of_the_object_which_compose_demands_but_not_its_acl(server, bucket):
    async with rig(server) as it:
        store = it.store("p", storage_class="NEARLINE", acl="publicRead", kms_key="k")
        seen = []
        it.requests.send, send = (lambda *args, **more: seen.append(args[2]) or send(*args, **more)), it.requests.send
        handle = await store.begin(KEY, OURS)
        await store.complete(KEY, handle, OURS, [await sent(store, handle, 1, b"part")], True)
    assert {made["storageClass"] for _, made in bucket.objects.values()} == {"NEARLINE"}
    assert ["PredefinedAcl" in url or "predefinedAcl" in url for url in seen] == [False, True]
    assert "destinationPredefinedAcl=publicRead" in seen[1]
    assert all("kmsKeyName=k" in url for url in seen)


@pytest_twisted.ensureDeferred
async def test_an_object_whose_metadata_is_refused_goes_without_and_stays_ours(server, bucket):
    body = json.dumps({"error": {"message": "Metadata is too large."}})
    async with rig(server) as it:
        store = it.store("p")
        for operation in ("Insert", "Compose"):
            it.proxy.trouble(operation, "answer", answer=answer("400 Bad Request", body))
        await store.put("p/u2", BytesRegion(b"x"), OURS, True)
        await store.complete(KEY, await store.begin(KEY, OURS), OURS, made(bucket, 1), True)
    for key in ("p/u2", KEY):
        assert bucket.objects[key][1]["metadata"] == {ID_METADATA: "u1", TOKEN_METADATA: "w-1"}


def test_of_the_metadata_only_id_and_token_stay_and_then_the_name_goes():
    ours = {ID_METADATA: "u1", TOKEN_METADATA: "t"}
    draft = Draft("k", {"contentType": "a/b", "contentDisposition": "c", "metadata": {**ours, "note": "n"}})
    plainer = draft.plainer()
    assert plainer.resource == {"contentType": "a/b", "contentDisposition": "c", "metadata": ours}
    plainest = plainer.plainer()
    assert plainest.resource == {"contentType": PLAIN, "metadata": ours}
    assert plainest.plainer() is None


# copies


@pytest_twisted.ensureDeferred
async def test_a_whole_object_is_copied_inside_the_store_and_a_range_is_not(server, bucket):
    async with rig(server) as it:
        store = it.store("p")
        handle, source = await store.begin(KEY, OURS), "p/.partials/u2"
        await store.put(source, BytesRegion(b"of a partial"), OURS, True)
        receipt = await store.copy_part(KEY, handle, 1, name_of(1), source, 0, 12)
        for start, size in ((0, 11), (1, 11), (0, 13)):
            with pytest.raises(CannotCopy):
                await store.copy_part(KEY, handle, 2, name_of(2), source, start, size)
        with pytest.raises(NotThere):
            await store.copy_part(KEY, handle, 2, name_of(2), "p/.partials/none", 0, 9)
        assert bucket.objects[name_of(1)][1].get("metadata") is None
        done = await store.complete(KEY, handle, OURS, [SentPart(1, name_of(1), 12, receipt)], True)
        assert (bucket.objects[KEY][0], done.token) == (b"of a partial", "w-1")
        assert name_of(2) not in bucket.objects


# removal, lists


@pytest_twisted.ensureDeferred
async def test_a_thousand_objects_are_removed_by_ten_requests(server, bucket):
    names = [part.name for part in made(bucket, 900)] + [f"p/none-{number}" for number in range(100)]
    async with rig(server) as it:
        await it.store("p").remove(names)
        assert it.proxy.requests == {"Batch": 10}
    assert not bucket.objects


@pytest_twisted.ensureDeferred
async def test_a_store_without_batches_removes_one_by_one(server, bucket):
    names = [part.name for part in made(bucket, 3)]
    async with rig(server) as it:
        it.proxy.trouble("Batch", "answer", answer=answer("404 Not Found"))
        await it.store("p").remove([*names, "p/none"])
        assert it.proxy.requests == {"Batch": 1, "Delete": 4}
    assert not bucket.objects


@pytest_twisted.ensureDeferred
async def test_a_list_goes_on_where_the_store_ends_its_page(server, bucket):
    bucket.page = 2
    names = [part.name for part in made(bucket, 7)]
    async with rig(server) as it:
        store = it.store("p")
        assert [each.key for each in await store.list("p/", "", 5)] == names[:5]
        found = await store.list("p/", names[4], 5)
        assert [each.key for each in found] == names[5:]
        assert found[0].changed_at == 1796076000.5


# the rest


@pytest_twisted.ensureDeferred
async def test_an_account_that_signs_gives_urls_without_a_look_at_the_object(server, bucket):
    class Signer(Anonymous):
        def sign(self, text_for):
            return succeed(("me@p", text_for("me@p")[:4]))

    async with rig(server, Signer()) as it:
        url = await it.store("p").signed_url("p/u 1", Presented("text/plain", "inline", 60.0))
        assert f"/{BUCKET}/p/u%201?" in url
        assert "X-Goog-Expires=60" in url
        assert it.proxy.requests == {}


@pytest_twisted.ensureDeferred
async def test_the_scheme_makes_the_spool_of_the_url_of_a_remote(server, bucket):
    spec = urls.parse(f"gs://{BUCKET}/p?endpoint={server.url}&part-size=1M&storage-class=NEARLINE&metadata=no")
    services = urls.BackendServices(reactor=reactor, pool=None, journal=MemoryJournal(), disk=None, now=time.time,
                                    rng=Random(0))  # fmt: skip
    store = SCHEME.make_store(spec, services)
    assert (store.prefix, store.part_size, store.limits) == ("p/", 1 << 20, LIMITS)
    await store.put(f"{store.prefix}u1", BytesRegion(b"hello"), OURS, True)
    kept = bucket.objects["p/u1"][1]
    assert (kept["storageClass"], kept["metadata"]) == ("NEARLINE", {ID_METADATA: "u1", TOKEN_METADATA: "w-1"})
    await store.probe()
    assert list(bucket.objects) == ["p/u1"]
    await store.close()

"""What an Azure remote makes of its options, of credentials, of what a container holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted

from resumable.remotes import urls
from resumable.remotes.azure import remote as azure_remote
from resumable.remotes.azure import scheme as choices
from resumable.remotes.azure.records import VARIABLES
from resumable.remotes.errors import AuthFailed, Conflict, NotThere, Permanent, Transient, Unusable
from tests.remotes.azure_rig import rig, upload, write
from tests.remotes.azure_servers import ACCOUNT, AZURITE, CONTAINER, KEY, azurite, sas
from tests.remotes.s3_proxy import answer, error

U1, U2 = "1" * 32, "2" * 32
PART = 64 << 10
BIG = bytes(range(256)) * (2 * PART // 256) + b"the rest"
WRONG = "d3Jvbmc="


@pytest.fixture(scope="module", params=[AZURITE])
def server(tmp_path_factory):
    with azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def prefix(request):
    return "".join(c for c in request.node.name if c.isalnum())[-80:]


# what a blob is given


@pytest.mark.parametrize("data", [b"hello", BIG], ids=["one", "several"])
@pytest_twisted.ensureDeferred
async def test_a_blob_has_the_properties_that_the_upload_and_the_operator_gave(server, prefix, data):
    metadata = {"filename": "größe.txt".encode(), "filetype": b"text/plain", "my-note": b"a b", "1st": b"x"}
    async with rig(server) as it:
        stored = await upload(it.remote(prefix, tier="cool"), U1, data, metadata)
        blob = await it.blob(stored.key)
        assert blob.content_settings.content_type == "text/plain"
        assert blob.content_settings.content_disposition.endswith("filename*=UTF-8''gr%C3%B6%C3%9Fe.txt")
        assert blob.blob_tier == "Cool"
        assert blob.metadata["resumable_upload_id"] == U1
        assert blob.metadata["my_note"] == "a b" and blob.metadata["_1st"] == "x"
        assert blob.metadata["filename"].startswith("=?UTF-8?B?")
        assert stored.location == f"az://{CONTAINER}/{stored.key}" and stored.etag == blob.etag
        if data == b"hello":
            assert stored.checksum == "md5:XUFAKrxLKna5cZ2REBfFkg=="
            assert bytes(blob.content_settings.content_md5).hex() == "5d41402abc4b2a76b9719d911017c592"


@pytest_twisted.ensureDeferred
async def test_the_metadata_of_clients_can_be_left_out(server, prefix):
    async with rig(server) as it:
        stored = await upload(it.remote(prefix, metadata="no"), U1, b"hello", {"note": b"x", "filetype": b"text/css"})
        blob = await it.blob(stored.key)
        assert blob.metadata == {"resumable_upload_id": U1} and blob.content_settings.content_type == "text/css"


@pytest_twisted.ensureDeferred
async def test_keys_with_blanks_and_letters_of_all_kinds_are_found_again(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix, key="{metadata[filename]}/{id}")
        name = "ä b+c%20d#e?f&g=h'i.txt"
        stored = await upload(remote, U1, BIG, {"filename": name.encode()})
        assert stored.key == f"{prefix}/{name}/{U1}"
        assert await it.content(stored.key) == BIG
        assert await remote.delete_object(U1) is True


@pytest_twisted.ensureDeferred
async def test_what_is_too_large_is_refused_for_good(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        with pytest.raises(Permanent):
            await remote.initiate_upload(U1, 50_000 * 4000 * 2**20 + 1, {})
        await remote.initiate_upload(U2, None, {})
        with pytest.raises(Permanent):
            await remote.initiate_upload(U2, 50_000 * 4000 * 2**20, {})
        assert (await remote.part_plan(U2)).first_size == PART


# what is left, and what is not


@pytest_twisted.ensureDeferred
async def test_an_abort_that_was_interrupted_is_ended_before_it_begins_anew(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        key = await remote.initiate_upload(U1, len(BIG), {})
        await write(remote, U1, BIG, 1)
        it.proxy.trouble("Delete Blob", "refuse")
        with pytest.raises(Transient):
            await remote.abort_upload(U1)
        assert await it.content(key) == b""  # how Azure gets rid of blocks
        stored = await upload(it.remote(prefix), U1, BIG)
        assert await it.content(stored.key) == BIG


@pytest_twisted.ensureDeferred
async def test_an_abort_touches_no_blob_of_others(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        key = await remote.initiate_upload(U1, len(BIG), {})
        await write(remote, U1, BIG, 1)
        await it.put(key, b"theirs")
        before = (await it.blob(key)).etag
        await remote.abort_upload(U1)
        assert (await it.blob(key)).etag == before and await it.content(key) == b"theirs"


@pytest_twisted.ensureDeferred
async def test_blocks_are_left_to_expire_where_that_is_wanted(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix, abort="expire")
        await remote.probe()
        await remote.initiate_upload(U1, len(BIG), {})
        await write(remote, U1, BIG, 1)
        it.proxy.requests.clear()
        await remote.abort_upload(U1)
        assert await remote.list_unfinished(10, None) == []
        assert it.proxy.requests == {}
        with pytest.raises(NotThere):
            await remote.get_upload_progress(U1)
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG


@pytest_twisted.ensureDeferred
async def test_only_uncommitted_blobs_under_the_prefix_are_listed_over_many_pages(server, prefix, monkeypatch):
    monkeypatch.setattr(azure_remote, "PAGE", 2)
    async with rig(server) as it:
        remote, other = it.remote(prefix), it.remote(f"{prefix}-other")
        ids = [f"{index:032x}" for index in range(7)]
        for one in ids:
            if int(one, 16) % 2:
                await upload(remote, one, b"stored")
            else:
                await remote.initiate_upload(one, len(BIG), {})
                await write(remote, one, BIG, 1)
        await other.initiate_upload(U1, len(BIG), {})
        await write(other, U1, BIG, 1)
        found = []
        while page := await remote.list_unfinished(1, found[-1] if found else None):
            found += page
        assert [one.key for one in found] == [f"{prefix}/{one}" for one in ids[::2]]
        assert all(one.started_at for one in found)
        requests = it.proxy.requests.pop("List Blobs")
        assert requests <= 8
        assert len(await it.remote(prefix).list_unfinished(10, found[1])) == 2
        for one in found:
            assert await remote.discard(one, U2, False)


@pytest_twisted.ensureDeferred
async def test_uncommitted_blobs_are_told_apart_as_azure_lists_them(server, prefix):
    """Azurite adds an ETag and a date; without those, and with what the vendor's page says, it is the same."""
    blobs = f"""<Blob><Name>{prefix}/a</Name><Properties><Content-Length>0</Content-Length>
        <BlobType>BlockBlob</BlobType></Properties></Blob>
        <Blob><Name>{prefix}/b</Name><Properties><Last-Modified>Wed, 09 Sep 2026 09:20:03 GMT</Last-Modified>
        <Etag>0x8CBFF45D8A29A19</Etag><Content-Length>0</Content-Length><Content-Type>text/html</Content-Type>
        <BlobType>BlockBlob</BlobType></Properties></Blob>"""
    page = f'<?xml version="1.0"?><EnumerationResults><Blobs>{blobs}</Blobs><NextMarker /></EnumerationResults>'
    async with rig(server) as it:
        it.proxy.trouble("List Blobs", "answer", answer=answer("200 OK", " ".join(page.split())))
        (found,) = await it.remote(prefix).list_unfinished(10, None)
        assert (found.key, found.started_at) == (f"{prefix}/a", None)


# who we are


@pytest_twisted.ensureDeferred
async def test_every_kind_of_credentials_lets_us_in(server, prefix, tmp_path):
    everything = sas(read=True, write=True, list=True, delete=True, create=True)
    async with rig(server) as it:
        string = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={it.endpoint};"
        environs = [
            {"AZURE_STORAGE_KEY": KEY},
            {"AZURE_STORAGE_SAS_TOKEN": everything},
            {"AZURE_STORAGE_CONNECTION_STRING": string},
        ]
        for number, environ in enumerate(environs):
            remote = it.remote(prefix, environ=environ)
            await remote.probe()
            assert await it.content((await upload(remote, f"{number:032}", BIG)).key) == BIG
        for option, value in (("key_file", KEY), ("sas_file", everything), ("connection_string_file", string)):
            (tmp_path / option).write_text(value + "\n")
            await it.remote(prefix, environ={}, **{option: str(tmp_path / option)}).probe()


@pytest_twisted.ensureDeferred
async def test_a_netrc_of_the_user_is_none_of_the_credentials(server, prefix, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login somebody password else")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with rig(server) as it:
        await it.remote(prefix).probe()


@pytest_twisted.ensureDeferred
async def test_a_secret_that_was_replaced_in_its_file_is_taken_without_anybody_noticing(server, prefix, tmp_path):
    file = tmp_path / "key"
    file.write_text(WRONG)
    async with rig(server) as it:
        remote = it.remote(prefix, environ={}, key_file=str(file))
        with pytest.raises(AuthFailed) as caught:
            await upload(remote, U1, BIG)
        assert caught.value.advice and WRONG not in caught.value.reason
        file.write_text(KEY)
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG
        file.unlink()
        it.proxy.trouble(
            "Get Blob Properties",
            "answer",
            answer=answer("403 No", error("AuthenticationFailed"), x_ms_error_code="AuthenticationFailed"),
        )
        with pytest.raises(AuthFailed) as caught:
            await remote.delete_object(U1)
        assert "cannot be read" in caught.value.reason


@pytest_twisted.ensureDeferred
async def test_a_probe_names_what_is_wrong(server, prefix):
    async with rig(server) as it:
        with pytest.raises(AuthFailed) as caught:
            await it.remote(prefix, environ={"AZURE_STORAGE_KEY": WRONG}).probe()
        assert "correct the key" in caught.value.advice  # to Azurite this is a failed authorization
        reading = {"AZURE_STORAGE_SAS_TOKEN": sas(read=True, list=True)}
        with pytest.raises(AuthFailed) as caught:
            await it.remote(prefix, environ=reading).probe()
        assert "Storage Blob Data Contributor" in caught.value.advice
        await it.remote(prefix, environ=reading, abort="expire").probe()
        it.proxy.trouble("Put Block", "answer", answer=answer("404 No", error("ContainerNotFound")))
        with pytest.raises(Unusable) as caught:
            await it.remote(prefix).probe()
        assert caught.value.code == "ContainerNotFound" and "create the container" in caught.value.advice
        assert not [name for name in await it.names() if name.startswith(prefix)]


@pytest_twisted.ensureDeferred
async def test_a_sas_that_may_create_but_not_replace_parks_on_a_foreign_blob(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        key = await remote.initiate_upload(U1, 5, {})
        await it.put(key, b"their")
        refused = answer("403 No", error("UnauthorizedBlobOverwrite"), x_ms_error_code="UnauthorizedBlobOverwrite")
        it.proxy.trouble("Put Blob", "answer", answer=refused)
        with pytest.raises(Conflict):
            await upload(remote, U1, b"hello")


# what a URL may say


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("az://", "bucket is missing"),
        ("az://UPPER/x", "lower-case"),
        ("az://a--b", "lower-case"),
        ("az://container?tier=tepid", "tier is one of hot"),
        ("az://container?auth=kerberos", "auth is one of"),
        ("az://container?account=Ä", "account's name"),
        ("az://container?endpoint=ftp://x", "endpoint looks like"),
        ("az://container?endpoint=https://x%3Fsig=1", "endpoint looks like"),
        ("az://container?endpoint=http://x&auth=identity", "https only"),
        ("az://container?key-file=/a&sas-file=/b", "one kind of credentials"),
        ("az://container?key-file=/a&auth=sas", "one kind of credentials"),
        ("az://container?key-file=a", "absolute"),
        ("az://container?part-size=4001M", "part-size"),
        ("az://container?api-version=new", "2025-11-05"),
        ("az://container?metadata=perhaps", "yes or no"),
        ("az://container?abort=never", "drop, expire"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(url, what):
    with pytest.raises(urls.BadRemote) as caught:
        urls.parse(url)
    assert what in str(caught.value) and "\n" not in str(caught.value) and "sig" not in str(caught.value)


def test_a_missing_extra_is_one_line_that_names_the_command(monkeypatch):
    monkeypatch.setattr(choices, "find_spec", lambda name: None)
    with pytest.raises(urls.BadRemote) as caught:
        urls.parse("az://container")
    assert "pip install 'resumable-server[azure]'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.process
def test_reading_a_url_does_not_load_the_sdk():
    program = (
        "import sys; from resumable.remotes import urls; urls.parse('az://container/x?account=abc');"
        "print([name for name in sys.modules if name.startswith(('azure.core', 'azure.storage.', 'msal', 'requests'))])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert run.stdout.strip() == "[]"


def test_the_page_explains_every_option():
    page = (Path(__file__).parents[2] / "docs" / "azure.md").read_text(encoding="utf-8")
    for option, meaning in choices.OPTIONS.items():
        assert f"| `{option}` | {meaning} |" in page
    for variable in (*VARIABLES.values(), "AZURE_STORAGE_ACCOUNT"):
        assert variable in page

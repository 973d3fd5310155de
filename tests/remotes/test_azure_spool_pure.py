"""A container as the spool: names of blocks, metadata, copies: without a store."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

import pytest
import pytest_twisted
from azure.core.exceptions import HttpResponseError
from hypothesis import given
from hypothesis import strategies as st

from resumable.remotes import urls
from resumable.remotes.azure.access import AzureAccess
from resumable.remotes.azure.azure_spool import LIFETIME, AzureSpoolStore, Blob, block_id
from resumable.remotes.azure.errors import error_from
from resumable.remotes.azure.records import BlobOptions, block_name
from resumable.remotes.azure.scheme import SCHEME
from resumable.remotes.azure.store import AzureStore
from resumable.remotes.errors import CannotCopy, NotThere, RemoteError, Transient, Unusable
from resumable.remotes.object_store import ObjectProperties
from resumable.remotes.plan import Part
from tests.remotes.azure_servers import ACCOUNT, CONTAINER, KEY

OURS = ObjectProperties("u1", "w-1", {"filename": b"a.txt"})
NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789_-", min_size=1, max_size=80)
NOW = 1_800_000_000.0


# without a store


def store_over(client, access=None, seed: int = 1) -> AzureSpoolStore:
    """A spool whose requests go to this client of the SDK, in the reactor's thread."""

    class Calls:
        async def ask(self, operation, call):
            try:
                return call(client)
            except HttpResponseError as failed:
                raise error_from(operation, failed, NOW) from None

    store = AzureStore(Calls(), CONTAINER, BlobOptions(None, "scope"), False, True)
    return AzureSpoolStore(store, Calls(), Calls(), access, lambda: NOW, Random(seed), prefix="p/",
                           client_metadata=True, part_size=1 << 20)  # fmt: skip


def handle_of(token: str = "w-1", seed: int = 1) -> str:
    answered = []
    store_over(None, seed=seed).begin("p/u1", ObjectProperties("u1", token, {})).addCallback(answered.append)
    return answered[0]


@given(NAMES, NAMES)
def test_names_of_blocks_are_as_long_as_a_remotes_and_differ_by_part_and_by_handle(one, other):
    first, second = handle_of(), handle_of(seed=2)
    name = block_id(first, one)
    assert len(name) == len(block_name("u1", Part(1, 0, 1))) <= 64
    assert name.isascii()
    assert (block_id(first, other) == name) == (one == other)
    assert block_id(second, one) != name


def test_handles_of_workers_whose_random_bits_are_the_same_differ_by_their_tokens():
    assert handle_of("w-1") != handle_of("w-2")
    assert block_id(handle_of("w-1"), "part") != block_id(handle_of("w-2"), "part")


def test_of_the_metadata_only_id_and_token_stay_and_then_the_name_goes():
    ours = {"meta:resumable_upload_id": "u1", "meta:resumable_token": "t"}
    blob = Blob("k", {"Content-Type": "a/b", "Content-Disposition": "c", "meta:note": "n", **ours})
    plainer = blob.plainer()
    assert plainer.properties == {"Content-Type": "a/b", "Content-Disposition": "c", **ours}
    plainest = plainer.plainer()
    assert plainest.properties == {"Content-Type": "application/octet-stream", **ours}
    assert plainest.plainer() is None


def test_a_spool_is_no_archive():
    spec = urls.parse(f"az://{CONTAINER}/p?account={ACCOUNT}&tier=archive")
    with pytest.raises(ValueError, match="readable"):
        SCHEME.make_store(spec, None)


def test_what_azure_forgets_by_itself_is_not_listed_since_nobody_could_drop_it_safely():
    store, listed = store_over(None), []
    store.list_unfinished(10, None).addCallback(listed.append)
    assert (listed, store.lifetime) == ([[]], LIFETIME)


# copies inside the store: Azurite has none


class Client:
    """Of the SDK, a blob of it, too. ``answers``: what a copy answers, or raises."""

    url = "https://a.blob.core.windows.net/c/p/u2"

    def __init__(self, answers=None, credential=None, url: str | None = None) -> None:
        self.answers = answers
        self.credential = credential
        self.url = url or self.url
        self.copied = []

    def get_blob_client(self, key):
        self.key = key
        return self

    def stage_block_from_url(self, *args, **more):
        self.copied.append((self.key, args, more))
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


def refusal(status: int, code: str) -> HttpResponseError:
    failed = HttpResponseError(response=SimpleNamespace(status_code=status, reason="", headers={}))
    failed.error_code = code
    return failed


@pytest_twisted.ensureDeferred
async def test_a_part_is_copied_from_a_range_of_a_blob_that_the_store_is_let_into():
    client = Client({"content_md5": bytearray(range(16))})
    access = SimpleNamespace(source=lambda key, now: (f"https://a/{key}?sig", "Bearer t"))
    handle, store = handle_of(), store_over(client, access)
    receipt = await store.copy_part("p/u1", handle, 3, "w-3", "p/.partials/u2", 5, 7)
    args = (block_id(handle, "w-3"), "https://a/p/.partials/u2?sig", 5, 7)
    assert client.copied == [("p/u1", args, {"source_authorization": "Bearer t", "encryption_scope": "scope"})]
    assert receipt == "md5:AAECAwQFBgcICQoLDA0ODw=="


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "CannotVerifyCopySource", NotThere),
        (416, "InvalidRange", NotThere),
        (403, "CannotVerifyCopySource", CannotCopy),
        (401, "CannotVerifyCopySource", CannotCopy),
        (403, "AuthorizationFailure", CannotCopy),
        (501, "NotImplemented", CannotCopy),
        (404, "ContainerNotFound", Unusable),
        (500, "InternalError", Transient),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_copy_that_fails_says_whether_the_bytes_have_to_go_through_us(status, code, kind):
    store = store_over(Client(refusal(status, code)), SimpleNamespace(source=lambda key, now: ("https://a", None)))
    with pytest.raises(RemoteError) as raised:
        await store.copy_part("p/u1", handle_of(), 1, "w-1", "p/u2", 0, 7)
    assert type(raised.value) is kind


def test_the_store_is_let_into_a_source_by_the_credentials_that_there_are():
    def source(environ, **options):
        access = AzureAccess(CONTAINER, {"account": ACCOUNT, **options}, environ)
        try:
            return access.source("p/u2", NOW)
        finally:
            access.close()

    plain = f"https://{ACCOUNT}.blob.core.windows.net/{CONTAINER}/p/u2"
    url, header = source({"AZURE_STORAGE_KEY": KEY})
    assert url.startswith(f"{plain}?")
    assert "sp=r&" in url
    assert "sig=" in url
    assert header is None
    assert source({"AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=x"}) == (f"{plain}?sv=1&sig=x", None)
    connection = f"BlobEndpoint=https://{ACCOUNT}.blob.core.windows.net;SharedAccessSignature=sv=1&sig=x"
    assert source({"AZURE_STORAGE_CONNECTION_STRING": connection}) == (f"{plain}?sv=1&sig=x", None)


def test_an_identity_lets_the_store_into_a_source_by_its_token():
    access = AzureAccess(CONTAINER, {"account": ACCOUNT}, {})
    asked = []

    def get_token(scope):
        asked.append(scope)
        return SimpleNamespace(token="t")

    access.client = Client(credential=SimpleNamespace(get_token=get_token))
    assert access.source("p/u2", NOW) == (Client.url, "Bearer t")
    assert asked == ["https://storage.azure.com/.default"]
    access.close()

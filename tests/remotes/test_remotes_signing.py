"""Signed URLs, against what the makers' own tools sign."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import pytest_twisted
from azure.storage.blob import BlobServiceClient, UserDelegationKey
from google.auth import exceptions
from google.auth.credentials import Credentials, Signing
from twisted.internet import reactor

from resumable.aio.threads import Pool
from resumable.remotes.azure.access import AzureAccess
from resumable.remotes.errors import AuthFailed, Transient
from resumable.remotes.gcs.credentials import Anonymous, GoogleTokens, Unsigned
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.reading import Presented
from resumable.remotes.s3.credentials import Keys
from resumable.remotes.s3.records import S3ObjectOptions
from resumable.remotes.s3.signing import encode_path, encode_query, presigned
from tests.remotes.s3_rig import rig
from tests.remotes.s3_servers import started
from tests.remotes.simple_engine import upload

NOW = datetime(2026, 1, 31, 12, 34, 56, tzinfo=UTC).timestamp()
NAMED = 'attachment; filename="a b.txt"'
PRESENTED = Presented("text/plain", NAMED, 300.0)


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


def test_an_s3_url_is_signed_as_botocore_does() -> None:
    fields = {
        "response-content-type": "text/plain",
        "response-content-disposition": NAMED,
        "response-cache-control": "private, no-store",
    }
    address = (
        f"https://s3.eu-central-1.amazonaws.com{encode_path('/bucket/in/ä b~c')}?{encode_query([*fields.items()])}"
    )
    url = presigned(address, Keys("AKID", "SECRET", "TOKEN/+="), "eu-central-1", NOW, 300.9)
    assert query_of(url) == fields | {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": "AKID/20260131/eu-central-1/s3/aws4_request",
        "X-Amz-Date": "20260131T123456Z",
        "X-Amz-Expires": "300",
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Security-Token": "TOKEN/+=",
        "X-Amz-Signature": "861ecb920a56e8c824000e3db7dd1b5d2ae568d50b6e6c600cfd446198c27a5a",
    }
    assert url.startswith("https://s3.eu-central-1.amazonaws.com/bucket/in/%C3%A4%20b~c?") and "SECRET" not in url


@pytest.mark.parametrize(("asked", "given"), [(0.0, "1"), (1e9, "604800")])
def test_no_url_is_good_for_longer_than_stores_allow(asked: float, given: str) -> None:
    assert query_of(presigned("https://h/b/k", Keys("a", "s", None), "r", NOW, asked))["X-Amz-Expires"] == given
    assert query_of(Unsigned("https://h/b/k", [], NOW, asked).signed("e", b""))["X-Goog-Expires"] == given


def test_a_google_url_is_signed_as_their_library_does() -> None:
    query = [("response-content-type", "text/plain"), ("response-content-disposition", NAMED), ("userProject", "p-1")]
    unsigned = Unsigned("https://storage.googleapis.com/the-bucket/in/%C3%A4%20b~c", query, NOW, 300.0)
    email = "robot@p.iam.gserviceaccount.com"
    assert unsigned.text(email) == (
        b"GOOG4-RSA-SHA256\n20260131T123456Z\n20260131/auto/storage/goog4_request\n"
        b"cb403421eb69eee0f457221820827eb061f976bdaa4aaa156c7b8fe6e9dd5dec"
    )
    assert unsigned.signed(email, b"\x01\x02") == (
        "https://storage.googleapis.com/the-bucket/in/%C3%A4%20b~c?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential="
        "robot%40p.iam.gserviceaccount.com%2F20260131%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20260131T123456Z&"
        "X-Goog-Expires=300&X-Goog-SignedHeaders=host&response-content-disposition=attachment%3B%20filename%3D%22a%20"
        "b.txt%22&response-content-type=text%2Fplain&userProject=p-1&X-Goog-Signature=0102"
    )


class Signs(Credentials, Signing):
    """Credentials with a key; ``error``: what signing fails with."""

    signer = None
    signer_email = "robot@p"
    error: Exception | None = None

    def refresh(self, request: Any) -> None:
        raise AssertionError("nobody asked for a token")

    def sign_bytes(self, message: bytes) -> bytes:
        if self.error is not None:
            raise self.error
        return message[::-1]


async def signature(found: Any) -> Any:
    pool = Pool(reactor, 1, "tokens")
    pool.start()
    try:
        return await GoogleTokens(pool, lambda: NOW, lambda: found).sign(str.encode)
    finally:
        await pool.stop()


@pytest_twisted.ensureDeferred
async def test_google_credentials_with_a_key_sign_in_a_thread() -> None:
    assert await signature(Signs()) == ("robot@p", b"p@tobor")


@pytest_twisted.ensureDeferred
async def test_google_credentials_without_a_key_sign_nothing() -> None:
    assert await signature(object()) is None
    assert await Anonymous().sign(str.encode) is None


@pytest.mark.parametrize(
    ("raised", "told"),
    [(exceptions.TransportError("s3cret"), Transient), (exceptions.RefreshError("s3cret"), AuthFailed)],
)
@pytest_twisted.ensureDeferred
async def test_what_a_signature_fails_with_is_sorted_and_tells_no_secret(raised: Exception, told: Any) -> None:
    found = Signs()
    found.error = raised
    with pytest.raises(told) as failure:
        await signature(found)
    assert "s3cret" not in str(failure.value)


ACCOUNT = {"account": "acc"}


def test_an_azure_url_is_signed_with_the_accounts_key() -> None:
    url = AzureAccess("box", ACCOUNT, {"AZURE_STORAGE_KEY": "c2VjcmV0"}).signed_url("in/ä b.txt", PRESENTED, NOW)
    assert url is not None and url.startswith("https://acc.blob.core.windows.net/box/in/%C3%A4%20b.txt?")
    found = query_of(url)
    assert (found["sp"], found["sr"], found["spr"], found["se"]) == ("r", "b", "https", "2026-01-31T12:39:56Z")
    assert (found["rsct"], found["rscd"], found["rscc"]) == ("text/plain", NAMED, "private, no-store")
    assert found["sig"] and "c2VjcmV0" not in url


def test_a_sas_of_our_own_is_never_given_on() -> None:
    assert (
        AzureAccess("box", ACCOUNT, {"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=ours"}).signed_url("k", PRESENTED, NOW)
        is None
    )
    words = "BlobEndpoint=https://acc.blob.core.windows.net;SharedAccessSignature=sv=1&sig=ours"
    access = AzureAccess("box", {}, {"AZURE_STORAGE_CONNECTION_STRING": words})
    assert access.signed_url("k", PRESENTED, NOW) is None


def test_an_identity_signs_with_a_key_that_it_asks_for_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[datetime, datetime]] = []

    def give(self: Any, start: datetime, end: datetime) -> UserDelegationKey:
        asked.append((start, end))
        key = UserDelegationKey()
        key.signed_oid, key.signed_tid, key.signed_service, key.signed_version = "o", "t", "b", "2026-01-01"
        key.signed_start, key.signed_expiry, key.value = "2026-01-31T12:00:00Z", "2026-01-31T14:00:00Z", "c2VjcmV0"
        return key

    monkeypatch.setattr(BlobServiceClient, "get_user_delegation_key", give)
    access = AzureAccess("box", ACCOUNT, {})
    for later in (0, 60, 3600):
        url = access.signed_url("k", PRESENTED, NOW + later)
        assert url is not None and query_of(url)["skoid"] == "o" and "c2VjcmV0" not in url
    assert len(asked) == 1
    assert asked[0][0].timestamp() < NOW and asked[0][1].timestamp() == NOW + 3600 + 300
    access.signed_url("k", PRESENTED, NOW + 3601)
    assert len(asked) == 2
    access.close()


@pytest_twisted.ensureDeferred
async def test_an_object_under_a_customers_key_is_signed_for_nobody(tmp_path: Any) -> None:
    with started("moto", tmp_path) as server:
        async with rig(server) as it:
            it.journal = MemoryJournal()
            upload_id = "0" * 32
            await upload(it.remote(), upload_id, b"hello")
            assert await it.remote().signed_url(upload_id, PRESENTED) is not None
            remote = it.remote(options=S3ObjectOptions(customer_key=bytes(32)))
            assert await remote.signed_url(upload_id, PRESENTED) is None

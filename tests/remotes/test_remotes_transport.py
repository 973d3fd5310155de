"""Connections to a store with TLS, and headers that have to go with every request."""

from __future__ import annotations

from base64 import b64encode
from hashlib import md5, sha256

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import Site

from resumable.aio.threads import Pool
from resumable.httpclient.bodies import RegionBody
from resumable.httpclient.client import Http, HttpAnswer
from resumable.model.keys import parse
from resumable.remotes.errors import Transient, Unusable
from resumable.remotes.interfaces import Plan
from resumable.remotes.plan import Step
from resumable.remotes.regions import BytesRegion
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.credentials import StaticCredentials
from resumable.remotes.s3.endpoint import AWS, R2, Endpoint
from resumable.remotes.s3.records import S3ObjectOptions, S3Record
from resumable.remotes.s3.requests import S3Requests
from resumable.remotes.s3.scheme import policy_for
from resumable.remotes.s3.store import S3Store
from tests.certificates import certified

# of Twisted with a pyOpenSSL that is newer
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@pytest.fixture(scope="module")
def certificate() -> PrivateCertificate:
    return certified("localhost").private


class Store200(Resource):
    """Remembers what came."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.payload = ""

    def render(self, request):
        self.size = len(request.content.read())
        self.payload = request.getHeader("x-amz-content-sha256")
        request.setHeader("ETag", '"e"')
        return b""


async def put_over_tls(certificate, policy, signed: bool = False) -> Store200:
    store, pool = Store200(), Pool(reactor, 1, "tls")
    pool.start()
    port = reactor.listenSSL(0, Site(store), certificate.options(), interface="127.0.0.1")
    http = Http(reactor, policy=policy)
    place = Endpoint("https", "localhost", port.getHost().port, "/b", "us-east-1", "b")
    requests = S3Requests(place, StaticCredentials("a", "s"), http, pool, lambda: 0.0, sign_bodies=signed)
    try:
        await S3Client(requests).put_object("k", BytesRegion(bytes(3 << 20)))
        return store
    finally:
        await http.close()
        await pool.stop()
        await port.stopListening()
        await deferLater(reactor, 0.05)


@pytest.mark.parametrize("signed", [True, False])
@pytest_twisted.ensureDeferred
async def test_the_signature_of_a_body_is_sent_where_it_is_asked_for(certificate, signed):
    trusted = trustRootFromCertificates([Certificate(certificate.original)])
    store = await put_over_tls(certificate, BrowserLikePolicyForHTTPS(trusted), signed)
    assert store.size == 3 << 20
    assert store.payload == (sha256(bytes(3 << 20)).hexdigest() if signed else "UNSIGNED-PAYLOAD")


@pytest_twisted.ensureDeferred
async def test_an_authority_of_ones_own_is_trusted_from_a_file(certificate, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_bytes(b"somebody's\n" + Certificate(certificate.original).dumpPEM())
    assert (await put_over_tls(certificate, policy_for(str(file)))).size == 3 << 20


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_nobody_trusts_is_told_as_such(certificate):
    with pytest.raises(Unusable) as caught:
        await put_over_tls(certificate, BrowserLikePolicyForHTTPS())
    assert "certificate" in caught.value.advice


class Scripted:
    """Answers each request alike and remembers its headers."""

    def __init__(self, body: bytes) -> None:
        self.headers: list[dict[str, str]] = []
        self.body = body

    async def request(self, method, url, headers, body, *, largest, patience=1.0) -> HttpAnswer:
        self.headers.append(dict(headers))
        return HttpAnswer(200, {"etag": '"e"', "content-length": "0"}, self.body)


@pytest_twisted.ensureDeferred
async def test_a_customers_key_goes_with_every_request_for_its_object():
    http = Scripted(b"<ListPartsResult/>")
    place = Endpoint("https", "h", 443, "/b", "us-east-1", "b")
    client = S3Client(S3Requests(place, StaticCredentials("a", "s", "token"), http, None, lambda: 0.0))
    store = S3Store(client, AWS, S3ObjectOptions(customer_key=b"k" * 32), parse(), False)
    record = S3Record(
        key="k",
        plan=Plan((Step(5, 10),)),
        headers={},
        checksum="crc32c",
        full_object=True,
        size=7,
        multipart="m",
    )
    await store.put("u", record, BytesRegion(b"abc"))
    await store.upload_part(record, 1, BytesRegion(b"abcde"))
    await store.list_parts(record)
    await store.find_ours("u", record)
    for act in (store.create("u", record), store.complete("u", record, [], None)):
        with pytest.raises(Transient):  # the script's answer is none for these
            await act
    assert len(http.headers) == 6
    for headers in http.headers:
        assert headers["x-amz-server-side-encryption-customer-algorithm"] == "AES256"
        assert headers["X-Amz-Security-Token"] == "token"
        assert "x-amz-server-side-encryption-customer-key-md5" in headers["Authorization"]
    put, part, complete = http.headers[0], http.headers[1], http.headers[-1]
    assert put["If-None-Match"] == complete["If-None-Match"] == "*"
    assert put["x-amz-checksum-crc32c"] and part["x-amz-checksum-crc32c"]
    assert http.headers[4]["x-amz-checksum-algorithm"] == "CRC32C"
    assert http.headers[4]["x-amz-checksum-type"] == "FULL_OBJECT"


@pytest_twisted.ensureDeferred
async def test_a_replica_goes_on_with_the_checksum_that_it_was_begun_with():
    """As R2's of an older release, which began with MD5."""
    http, place = Scripted(b""), Endpoint("https", "h", 443, "/b", "auto", "b")
    client = S3Client(S3Requests(place, StaticCredentials("a", "s"), http, None, lambda: 0.0, sign_bodies=False))
    store = S3Store(client, R2, S3ObjectOptions(), parse(), False)
    plan = Plan((Step(5, 10),))
    record = S3Record(key="k", plan=plan, headers={}, checksum="md5", full_object=False, size=7, multipart="m")
    await store.upload_part(record, 1, BytesRegion(b"abcde"))
    await store.upload_part(evolve(record, checksum="crc32c"), 1, BytesRegion(b"abcde"))
    old, new = http.headers
    assert old["content-md5"] == b64encode(md5(b"abcde").digest()).decode() and "x-amz-checksum-crc32c" not in old
    assert "content-md5" not in new and new["x-amz-checksum-crc32c"]


def test_a_body_knows_its_length():
    assert RegionBody(BytesRegion(b"abc")).length == 3

"""S3 without a network: signatures, errors, endpoints, checksums, documents, properties of objects."""

from __future__ import annotations

import contextlib
import zlib
from datetime import UTC, datetime
from random import Random
from unittest import mock
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from google_crc32c import Checksum
from hypothesis import given
from hypothesis import strategies as st

from resumable.httpclient.errors import HttpError, TimedOut, Unreached
from resumable.protocol.names import disposition
from resumable.remotes.errors import (
    AuthFailed,
    Conflict,
    NotThere,
    Permanent,
    Throttled,
    Transient,
    Unusable,
    Unwelcome,
    remote_error,
)
from resumable.remotes.s3.answers import BadXml, complete_document, error_from, error_in, may_be_metadata, parse
from resumable.remotes.s3.checksums import ALGORITHMS, Algorithm, algorithm, encoded, of_whole
from resumable.remotes.s3.credentials import Keys
from resumable.remotes.s3.endpoint import (
    AWS,
    BACKBLAZE,
    CAUTIOUS,
    CEPH,
    DIALECTS,
    GCS_INTEROP,
    GENERIC,
    R2,
    Endpoint,
    S3Place,
    dialect,
    resolve,
)
from resumable.remotes.s3.records import S3ObjectOptions
from resumable.remotes.s3.signing import EMPTY_SHA256, UNSIGNED, S3Signer, encode_path, encode_query
from tests.remotes.s3_proxy import error

ROOM = CAUTIOUS
NOW = datetime.fromisoformat("2013-05-24T00:00:00+00:00").timestamp()
AWS_KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
ODD_KEYS = ["a//b", "e/../f", "p%2Fq", "q?uery#frag", "grüße/日本", "sp ace+plus", "a;b&c=d", "~tilde'()*!", "./x"]


# -- signatures


@pytest.mark.parametrize(
    ("method", "url", "headers", "payload", "signature"),
    [
        ("GET", "https://examplebucket.s3.amazonaws.com/test.txt", {"Range": "bytes=0-9"}, EMPTY_SHA256,
         "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("GET", "https://examplebucket.s3.amazonaws.com/?lifecycle=", {}, EMPTY_SHA256,
         "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", {}, EMPTY_SHA256,
         "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)  # fmt: skip
def test_the_examples_of_the_specification_are_signed_as_it_says(method, url, headers, payload, signature):
    signed = S3Signer("us-east-1").sign(method, url, headers, payload, AWS_KEYS, NOW)
    assert signed["Authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_signed_as_botocore_itself_signs_what_is_sent(key):
    place = Endpoint("http", "127.0.0.1", 9000, "/bucket", "eu-west-1", "bucket")
    url = place.url(key) + "?partNumber=1&uploadId=a%2Fb"
    headers = {"Host": "127.0.0.1:9000", "Content-Type": "text/plain", "x-amz-meta-a": "b"}
    ours = S3Signer("eu-west-1").sign("PUT", url, headers, UNSIGNED, Keys("k", "s", "token"), NOW)
    request = AWSRequest("PUT", url, headers=dict(headers))
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: datetime.fromtimestamp(NOW)):
        theirs = S3SigV4Auth(Credentials("k", "s", "token"), "s3", "eu-west-1")
        theirs.payload = lambda request: UNSIGNED
        theirs.add_auth(request)
    assert ours["Authorization"] == request.headers["Authorization"]
    assert ours["X-Amz-Security-Token"] == "token"


CHARACTERS = [chr(code) for code in range(32, 127)] + list("/&=+%?#;äß日\U0001f600\n\t")
PRINTABLE = [chr(code) for code in range(32, 127)] + [" "] * 20


def random_request(random: Random) -> tuple[str, str, dict[str, str], str, Keys, float]:
    def text(characters: list[str], most: int, least: int = 0) -> str:
        return "".join(random.choices(characters, k=random.randint(least, most)))

    host = random.choice(["h", "h:9000", "b.s3.eu-central-1.amazonaws.com", "[::1]:9000"])
    query = [(text(CHARACTERS, 6, 1), text(CHARACTERS, 6)) for _ in range(random.randint(0, 5))]
    url = f"http://{host}{encode_path('/' + text(CHARACTERS, 20))}" + (f"?{encode_query(query)}" if query else "")
    headers = {f"x-{text(list('abc-amz09'), 9, 1)}": text(PRINTABLE, 20) for _ in range(random.randint(0, 6))}
    keys = Keys(text(list("AKI9"), 20, 4), text(CHARACTERS, 40, 4), random.choice([None, text(list("ab/+="), 30, 1)]))
    payload = random.choice([UNSIGNED, EMPTY_SHA256])
    method = random.choice(["GET", "PUT", "POST", "HEAD", "DELETE"])
    return method, url, {**headers, "Host": host}, payload, keys, random.randrange(4_000_000_000)


def test_thousands_of_requests_are_signed_as_botocore_signs_them():
    random, signer, previous = Random(1), S3Signer("eu-west-1"), None
    for number in range(3000):
        method, url, headers, payload, keys, now = random_request(random)
        if number % 3:
            keys, now = previous  # the key of the day is kept
        previous = keys, now
        ours = signer.sign(method, url, headers, payload, keys, now)
        request = AWSRequest(method, url, headers=headers)
        theirs = S3SigV4Auth(Credentials(keys.access_key, keys.secret_key, keys.token), "s3", "eu-west-1")
        request.context["timestamp"] = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        theirs.payload = lambda request, payload=payload: payload
        theirs._modify_request_before_signing(request)
        signature = theirs.signature(theirs.string_to_sign(request, theirs.canonical_request(request)), request)
        theirs._inject_signature_to_request(request, signature)
        assert ours == dict(request.headers.items()), (method, url, headers)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_every_byte_of_a_key_is_escaped_once_and_nothing_is_normalised(key):
    path = encode_path(f"/{key}")
    assert path == "/" + "/".join(quote(part, safe="~") for part in key.split("/"))
    assert not set(path) & set("?#; ")


def test_the_query_is_sorted_and_a_name_without_value_keeps_its_sign():
    assert encode_query([("uploads", ""), ("prefix", "a/b c")]) == "prefix=a%2Fb%20c&uploads="


def test_the_host_is_signed_with_its_port():
    ours = Endpoint("http", "h", 9000, "/b", "r", "b")
    assert ours.netloc == "h:9000" and Endpoint("https", "h", 443, "", "r", "b").netloc == "h"
    assert Endpoint("http", "::1", 9000, "/b", "r", "b").url("k") == "http://[::1]:9000/b/k"


def test_a_new_day_has_a_new_signing_key():
    signer = S3Signer("us-east-1")
    days = [signer.sign("GET", "http://h/b/k", {}, UNSIGNED, AWS_KEYS, NOW + day * 86400) for day in (0, 1, 0)]
    assert days[0]["Authorization"] == days[2]["Authorization"] != days[1]["Authorization"]


def test_keys_do_not_show_themselves():
    keys = Keys("an-access", "a-secret", "a-token")
    assert not any(word in repr(keys) for word in ("an-access", "a-secret", "a-token"))
    assert "0000" not in repr(S3ObjectOptions(customer_key=b"0" * 32))


# -- errors

CLASSES = [
    (503, "SlowDown", Throttled), (503, "", Throttled), (429, "TooManyRequests", Throttled),
    (500, "InternalError", Transient),
    (502, "", Transient), (400, "RequestTimeout", Transient), (400, "BadDigest", Transient),
    (409, "OperationAborted", Transient),
    (409, "ConditionalRequestConflict", Transient), (400, "InvalidPart", Transient),
    (403, "AccessDenied", AuthFailed), (403, "InvalidAccessKeyId", AuthFailed),
    (403, "SignatureDoesNotMatch", AuthFailed),
    (400, "ExpiredToken", AuthFailed), (401, "", AuthFailed), (403, "", AuthFailed),
    (403, "RequestTimeTooSkewed", Unusable), (404, "NoSuchBucket", Unusable), (501, "NotImplemented", Unusable),
    (400, "InvalidArgument", Unusable), (400, "KMS.DisabledException", Unusable), (301, "PermanentRedirect", Unusable),
    (404, "NoSuchUpload", NotThere), (404, "NoSuchKey", NotThere), (404, "", NotThere),
    (412, "PreconditionFailed", Conflict), (412, "", Conflict),
    (400, "EntityTooSmall", Permanent), (400, "EntityTooLarge", Permanent), (400, "KeyTooLongError", Permanent),
    (400, "MetadataTooLarge", Unwelcome), (431, "", Unwelcome), (400, "RequestHeaderSectionTooLarge", Unwelcome),
    (400, "InvalidTag", Unusable), (400, "AuthorizationHeaderMalformed", Unusable),
    (404, "XAdminUserNotFound", AuthFailed),
    (400, "AccessControlListNotSupported", Unusable),
    (400, "WhoKnows", Permanent), (599, "WhoKnows", Transient),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code", "kind"), CLASSES)
def test_each_answer_asks_for_its_own_reaction(status, code, kind):
    found = error_from("PutObject", status, {}, error(code).encode() if code else b"", "us-east-1")
    assert type(found) is kind
    assert found.status == status and (not code or found.code == code)
    assert "PutObject" in found.reason and "\n" not in found.reason


@pytest.mark.parametrize(
    ("status", "code", "surely"),
    [
        (403, "AccessDenied", True), (400, "BadDigest", True), (404, "NoSuchUpload", True), (413, "", True),
        (503, "SlowDown", True), (429, "", True), (503, "", False), (503, "Unheard", False),
        (500, "InternalError", False), (502, "", False), (504, "", False), (301, "PermanentRedirect", False),
    ],
)  # fmt: skip
def test_what_was_surely_not_done_is_told_from_what_may_have_been(status, code, surely):
    found = error_from("UploadPart", status, {}, error(code).encode() if code else b"", "us-east-1")
    assert found.undone is surely


@pytest.mark.parametrize(
    ("failure", "surely"), [(Unreached("no"), True), (TimedOut(5), False), (HttpError("no"), False)]
)
def test_a_request_that_reached_nobody_was_surely_not_done(failure, surely):
    assert remote_error(failure, "UploadPart").undone is surely


@pytest.mark.parametrize(
    ("status", "code", "may"),
    [
        (400, "InvalidArgument", True), (400, "InvalidRequest", True), (400, "", True), (400, "WhoKnows", True),
        (422, "", True), (400, "EntityTooSmall", False), (400, "KeyTooLongError", False), (403, "AccessDenied", False),
        (403, "WhoKnows", False), (404, "NoSuchBucket", False), (412, "", False), (500, "InternalError", False),
        (400, "InvalidStorageClass", False), (400, "InvalidTag", False), (400, "BadDigest", False),
    ],
)  # fmt: skip
def test_what_may_be_about_the_metadata_is_told_from_what_is_not(status, code, may):
    found = error_from("PutObject", status, {}, error(code).encode() if code else b"", "us-east-1")
    assert may_be_metadata(found) is may


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "Fri, 24 May 2013 00:00:30 GMT", "date": "Fri, 24 May 2013 00:00:00 GMT"}, 30.0),
        ({"retry-after": "Fri, 24 May 2013 00:00:30 GMT"}, None),
        ({"retry-after": "soon", "date": "Fri, 24 May 2013 00:00:00 GMT"}, None),
        ({"retry-after": "9" * 5000}, 3600.0),
        ({"retry-after": "\u00b2", "date": "Fri, 24 May 2013 00:00:00 GMT"}, None),
        ({"retry-after": "Fri, 24 May 2013 00:00:30 +99999999999999999999"}, None),
    ],
)
def test_a_store_may_say_how_long_to_wait(headers, pause):
    found = error_from("PutObject", 503, headers, error("SlowDown").encode(), "us-east-1")
    assert isinstance(found, Throttled) and found.retry_after == pause


@pytest.mark.parametrize(
    ("status", "headers", "document"),
    [
        (301, {"x-amz-bucket-region": "eu-west-1"}, error("PermanentRedirect")),
        (400, {}, error("AuthorizationHeaderMalformed", Region="eu-west-1")),
        (403, {"x-amz-bucket-region": "eu-west-1"}, ""),
        (307, {"x-amz-bucket-region": "eu-west-1"}, error("TemporaryRedirect")),
    ],
)
def test_a_bucket_elsewhere_is_told_with_its_region(status, headers, document):
    found = error_from("HeadObject", status, headers, document.encode(), "us-east-1")
    assert type(found) is Unusable
    assert "eu-west-1" in found.reason and found.advice == "set the region to eu-west-1"


DENIED = "User: arn:aws:iam::1:user/x is not authorized to perform: {} on resource: y because no policy allows it"


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (DENIED.format("s3:PutObjectTagging"), "allow s3:PutObjectTagging on the bucket and prefix"),
        (DENIED.format("kms:GenerateDataKey"), "allow kms:GenerateDataKey on the key"),
        ("Access Denied.", "allow s3:PutObject, s3:AbortMultipartUpload"),
    ],
)
def test_a_missing_right_is_named(message, advice):
    found = error_from("CreateMultipartUpload", 403, {}, error("AccessDenied", message).encode(), "us-east-1")
    assert type(found) is AuthFailed and found.advice.startswith(advice)


@pytest.mark.parametrize("code", ["", "AccessDenied", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"])
def test_who_is_not_let_in_is_told_what_to_change(code):
    for status in (401, 403):
        assert error_from("HeadObject", status, {}, error(code).encode() if code else b"", "us-east-1").advice


def test_a_wrong_clock_is_told_with_how_wrong_it_is():
    document = error("RequestTimeTooSkewed", RequestTime="20260101T000000Z", ServerTime="2026-01-01T01:00:00Z")
    found = error_from("PutObject", 403, {}, document.encode(), "us-east-1")
    assert type(found) is Unusable and "3600 s behind" in found.reason and "clock" in found.advice


def test_no_secret_of_an_answer_gets_into_a_reason():
    secret = "AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY " + "f" * 64
    found = error_from("PutObject", 403, {}, error("SignatureDoesNotMatch", secret + "\nx").encode(), "us-east-1")
    assert not any(word in found.reason for word in secret.split())


def test_a_success_with_an_error_inside_is_an_error():
    body = b"\n  \n" + error("InternalError").encode()
    found = error_in("CompleteMultipartUpload", 200, {}, body, "us-east-1")
    assert type(found) is Transient and found.code == "InternalError"
    unknown = error_in("CompleteMultipartUpload", 200, {}, error("Whatever").encode(), "us-east-1")
    assert type(unknown) is Transient
    assert error_in("CompleteMultipartUpload", 200, {}, b"<CompleteMultipartUploadResult/>", "us-east-1") is None
    assert isinstance(error_in("x", 200, {}, error("NoSuchUpload").encode(), "r"), NotThere)


@given(st.integers(300, 599), st.binary(max_size=200))
def test_any_answer_is_some_error(status, body):
    assert error_from("PutObject", status, {}, body, "us-east-1").reason


# -- documents


@pytest.mark.parametrize(
    "document",
    [
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>&unknown;</a>",
        b"<a>" * 20 + b"</a>" * 20,
        b"<a>",
        b"",
        b"nothing",
    ],
)
def test_a_document_that_is_not_to_be_trusted_is_refused(document):
    with pytest.raises(BadXml):
        parse(document)


@given(st.binary(max_size=300))
def test_reading_never_fails_in_another_way(document):
    with contextlib.suppress(BadXml):
        parse(document)


def test_names_are_read_without_their_namespace():
    root = parse(b'<R xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><A> x </A><A>y</A></R>')
    assert root.name == "R" and root.find("A") == "x" and [each.text for each in root.all("A")] == [" x ", "y"]


def test_what_is_written_is_escaped():
    root = parse(complete_document([[("ETag", '"<&>"'), ("PartNumber", "1")]]))
    assert next(root.all("Part")).find("ETag") == '"<&>"'


# -- endpoints


@pytest.mark.parametrize(
    ("place", "url"),
    [
        (S3Place("my-bucket"), "https://my-bucket.s3.us-east-1.amazonaws.com/k"),
        (S3Place("my-bucket", "eu-west-1"), "https://my-bucket.s3.eu-west-1.amazonaws.com/k"),
        (S3Place("my-bucket", "cn-north-1"), "https://my-bucket.s3.cn-north-1.amazonaws.com.cn/k"),
        (S3Place("my-bucket", path_style=True), "https://s3.us-east-1.amazonaws.com/my-bucket/k"),
        (S3Place("dotted.bucket"), "https://s3.us-east-1.amazonaws.com/dotted.bucket/k"),
        (S3Place("my-bucket", dual_stack=True), "https://my-bucket.s3.dualstack.us-east-1.amazonaws.com/k"),
        (S3Place("my-bucket", "us-west-2", fips=True), "https://my-bucket.s3-fips.us-west-2.amazonaws.com/k"),
        (S3Place("my-bucket", accelerate=True), "https://my-bucket.s3-accelerate.amazonaws.com/k"),
        (S3Place("b-1", url="http://127.0.0.1:9000"), "http://127.0.0.1:9000/b-1/k"),
        (S3Place("b-1", url="http://minio.local:9000", path_style=True), "http://minio.local:9000/b-1/k"),
        (S3Place("b-1", url="https://s3.local/base/"), "https://b-1.s3.local/base/k"),
        (S3Place("b.c", url="https://s3.local"), "https://s3.local/b.c/k"),
        (S3Place("Big_Bucket", url="http://s3.local"), "http://s3.local/Big_Bucket/k"),
    ],
)
def test_a_bucket_has_the_address_that_its_options_say(place, url):
    assert resolve(place, AWS).url("k") == url


def test_region_and_style_default_to_those_of_the_dialect():
    assert resolve(S3Place("b-1", url="https://x.r2.example"), R2).region == "auto"
    assert resolve(S3Place("b-1", url="https://x.r2.example"), R2).url("k") == "https://x.r2.example/b-1/k"
    assert resolve(S3Place("b-1")).region == "us-east-1"


@pytest.mark.parametrize(
    "place",
    [
        S3Place(""), S3Place("a b"), S3Place("b-1", "no region"), S3Place("b-1", url="ftp://x"),
        S3Place("b-1", url="minio:9000"),
        S3Place("b-1", url="http://user:password@x"), S3Place("b-1", url="http://x", fips=True),
        S3Place("b-1", url="http://x:y"),
        S3Place("dotted.bucket", accelerate=True), S3Place("bucket--use1-az4--x-s3"), S3Place("b-1", url="http://x/?a=b"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_is_refused_in_one_line(place):
    with pytest.raises(ValueError) as caught:
        resolve(place, AWS)
    assert "\n" not in str(caught.value) and "password" not in str(caught.value)


# -- dialects


def test_dialects_are_found_by_name_and_can_be_changed():
    assert dialect("aws", path_style=True).path_style
    assert set(DIALECTS) == {"generic", "aws", "minio", "r2", "backblaze", "ceph", "gcs-interop"}
    with pytest.raises(ValueError, match="minio"):
        dialect("mineio")


def test_stores_that_take_no_amazon_checksums_are_sent_none():
    for each in (BACKBLAZE, GENERIC, CEPH, GCS_INTEROP):
        assert each.checksum == "md5"


def test_r2_takes_the_cheap_checksum_of_equal_parts_but_none_of_the_whole():
    assert (R2.checksum, R2.full_object, R2.limits.equal) == ("crc32c", False, True)


# -- checksums


@pytest.mark.parametrize(
    ("name", "check"),
    [("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888"), ("md5", "25f9e794323b453885f5181f1b624d0b")],
)
def test_algorithms_give_their_published_check_values(name, check):
    if name == "crc64nvme":
        pytest.importorskip("awscrt")
    made = ALGORITHMS[name].make()
    made.update(b"1234")
    made.update(b"56789")
    assert made.digest().hex() == check


def slow_crc(data: bytes, chosen: Algorithm) -> int:
    """Bit by bit, as the definition says."""
    ones = (1 << chosen.bits) - 1
    crc = ones
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ chosen.polynomial if crc & 1 else crc >> 1
    return crc ^ ones


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.sampled_from(["crc32c", "crc64nvme"]))
def test_checksums_of_parts_make_up_that_of_the_whole(parts, name):
    chosen = ALGORITHMS[name]
    width = chosen.bits // 8
    values = [(encoded(slow_crc(part, chosen).to_bytes(width, "big")), len(part)) for part in parts]
    assert of_whole(chosen, values) == encoded(slow_crc(b"".join(parts), chosen).to_bytes(width, "big"))


def test_large_parts_make_up_the_whole_too():
    data = bytes(range(256)) * 40_000
    cut = [data[:8_000_000], data[8_000_000:]]
    values = [(encoded(Checksum(part).digest()), len(part)) for part in cut]
    assert of_whole(ALGORITHMS["crc32c"], values) == encoded(Checksum(data).digest())


def test_the_slow_checksum_is_right():
    assert slow_crc(b"123456789", ALGORITHMS["crc64nvme"]) == 0xAE8B14860A799888
    plain = Algorithm("", zlib.crc32, "", 0xEDB88320, 32)  # the one of zip
    assert slow_crc(b"abc", plain) == zlib.crc32(b"abc")


def test_an_algorithm_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="crc32c"):
        algorithm("crc33")
    assert algorithm("none") is None


# -- properties of objects


def test_type_and_name_of_an_object_come_from_the_metadata():
    headers = S3ObjectOptions().headers_for(
        "u1", {"filetype": b"image/png", "filename": 'Grüße "x".png'.encode()}, ROOM
    )
    assert headers["Content-Type"] == "image/png"
    disposition = headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename=\"Gr__e _x_.png\"; filename*=UTF-8''Gr%C3%BC")
    assert headers["x-amz-meta-resumable-upload-id"] == "u1"


@pytest.mark.parametrize("kind", [b"text/html\r\nX: y", b"nonsense", b"", b"a/b; c=d\x00", "ä/b".encode()])
def test_a_type_that_is_none_is_not_passed_on(kind):
    assert S3ObjectOptions().headers_for("u1", {"filetype": kind}, ROOM)["Content-Type"] == "application/octet-stream"


@given(
    st.dictionaries(st.text(max_size=30) | st.sampled_from(["a", "b", "c"]), st.binary(max_size=1500), max_size=15),
    st.sampled_from(list(DIALECTS.values())),
)
def test_whatever_clients_send_headers_stay_small_plain_and_signable(metadata, spoken):
    headers = S3ObjectOptions().headers_for("0" * 32, {**metadata, "resumable-upload-id": b"another"}, spoken.metadata)
    mine = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
    counted = 0 if spoken is AWS else len("x-amz-meta-")
    assert sum(len(name) - len("x-amz-meta-") + counted + len(value) for name, value in mine.items()) <= (
        8192 if spoken in (R2, GCS_INTEROP) else 2048
    )
    assert len(mine) <= (10 if spoken is BACKBLAZE else 99)
    assert mine["x-amz-meta-resumable-upload-id"] == "0" * 32
    for name, value in headers.items():
        assert (name + value).isascii() and value.isprintable() and value == " ".join(value.split())


def test_clients_metadata_can_be_kept_back():
    assert "x-amz-meta-a" not in S3ObjectOptions(client_metadata=False).headers_for("u1", {"a": b"b"}, ROOM)


def test_a_long_name_keeps_its_extension_and_no_marks_that_turn_it_round():
    name = "\u202e" + "ü" * 300 + "\u200b.pdf"
    value = S3ObjectOptions().headers_for("u1", {"filename": name.encode()}, ROOM)["Content-Disposition"]
    assert value == disposition("ü" * 125 + ".pdf") and value.endswith(".pdf")


def test_options_of_objects_become_headers():
    options = S3ObjectOptions("GLACIER", "private", "aws:kms", "key-1", None, {"a b": "c&d"})
    assert options.creation_headers() == {
        "x-amz-storage-class": "GLACIER",
        "x-amz-acl": "private",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
        "x-amz-tagging": "a%20b=c%26d",
    }
    assert options.access_headers() == {}


def test_a_customers_key_goes_with_each_request():
    options = S3ObjectOptions(customer_key=b"k" * 32)
    assert options.access_headers() == options.creation_headers()
    assert len(options.access_headers()) == 3
    for wrong in ({"customer_key": b"short"}, {"customer_key": b"k" * 32, "encryption": "AES256"}, {"kms_key": "k"}):
        with pytest.raises(ValueError):
            S3ObjectOptions(**wrong)

"""Google's answers, regions that requests are made of, and names in URLs: without a network."""

from __future__ import annotations

import json

import google_crc32c
import pytest
import pytest_twisted

from resumable.remotes.errors import (
    AuthFailed,
    Conflict,
    NotThere,
    OutOfStep,
    Permanent,
    Throttled,
    Transient,
    Unusable,
    Unwelcome,
)
from resumable.remotes.gcs.records import object_from
from resumable.remotes.gcs.requests import Framed, GcsPlace, Stretch, clean, crc_of, error_from
from resumable.remotes.regions import BytesRegion


def refusal(message: str, reason: str) -> bytes:
    return json.dumps({"error": {"message": message, "errors": [{"reason": reason}]}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, refusal("Bad", "invalid"), Permanent, "invalid"),
        (400, refusal("Provided CRC32C doesn't match", "invalid"), Transient, "badDigest"),
        (400, refusal("The total size of custom metadata exceeds 8 KiB", "invalid"), Unwelcome, "metadataTooLarge"),
        (431, b"", Unwelcome, "unknown"),
        (400, refusal("Invalid storage class", "invalid"), Unusable, "invalidStorageClass"),
        (400, refusal("x", "cloudKmsBadKey"), Unusable, "cloudKmsBadKey"),
        (401, b"", AuthFailed, "authError"),
        (403, refusal("x", "forbidden"), AuthFailed, "forbidden"),
        (403, refusal("x", "retentionPolicyNotMet"), Unusable, "retentionPolicyNotMet"),
        (403, refusal("x", "userRateLimitExceeded"), Throttled, "userRateLimitExceeded"),
        (404, b"Not Found", NotThere, "notFound"),
        (404, refusal("The specified bucket does not exist.", "notFound"), Unusable, "bucketNotFound"),
        (408, b"", Transient, "unknown"),
        (409, b"", Transient, "conflict"),
        (410, b"", NotThere, "gone"),
        (412, refusal("x", "conditionNotMet"), Conflict, "conditionNotMet"),
        (413, refusal("x", "uploadTooLarge"), Permanent, "uploadTooLarge"),
        (416, b"", OutOfStep, "requestedRangeNotSatisfiable"),
        (429, b"<html>", Throttled, "rateLimitExceeded"),
        (499, b"", NotThere, "cancelled"),
        (500, b"[]", Transient, "unknown"),
        (502, b"", Transient, "unknown"),
        (503, b"{", Throttled, "backendError"),
        (302, b"", Unusable, "unknown"),
        (400, refusal("x", "not a word"), Permanent, "invalid"),
        (400, b'{"error": "x"}', Permanent, "invalid"),
    ],
)
def test_each_answer_is_one_error(status, body, kind, code):
    error = error_from("insert", status, {}, body)
    assert (type(error), error.code, error.status) == (kind, code, status)
    assert "\n" not in error.reason and error.reason.startswith("insert: ")


def test_the_pause_is_heeded():
    assert error_from("x", 503, {"retry-after": "12"}, b"").retry_after == 12.0
    assert error_from("x", 429, {}, b"").retry_after is None


@pytest.mark.parametrize(
    "secret",
    ["https://storage.googleapis.com/upload/storage/v1/b/x/o?upload_id=ABC", "upload_id=AEnB2U", "ya29.a0Ae", "A" * 40],
)
def test_no_secret_gets_into_a_reason(secret):
    for body in (refusal(f"no {secret} here\r\n", "invalid"), f"no {secret} here".encode()):
        assert secret not in str(error_from("x", 404, {}, body))
    assert len(clean("a b " * 1000)) <= 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"name": "a", "size": "x", "generation": "1"}', b"\xff", b"null"]
)
def test_an_answer_that_describes_no_object_is_transient(body):
    with pytest.raises(Transient):
        object_from("x", body)


@pytest_twisted.ensureDeferred
async def test_a_framed_region_reads_as_one():
    framed = Framed(b"head", BytesRegion(b"0123456789"), b"foot")
    whole = b"head0123456789foot"
    assert framed.size == len(whole)
    for start in range(framed.size):
        for end in range(start, framed.size + 1):
            assert await framed.read(start, end - start) == whole[start:end]


@pytest_twisted.ensureDeferred
async def test_the_checksum_of_a_stretch_is_that_of_what_was_read_and_starts_anew_with_it():
    data = bytes(range(256)) * 8
    stretch = Stretch(BytesRegion(data), 100, 1000, await crc_of(BytesRegion(data), 100))
    for _ in range(2):  # a request that is sent twice
        assert await stretch.read(0, 600) + await stretch.read(600, 400) == data[100:1100]
        assert stretch.crc == google_crc32c.value(data[:1100])


def test_names_in_urls_are_quoted():
    place = GcsPlace("b", "http://h", "payer")
    assert place.object("a/b c?d") == "http://h/storage/v1/b/b/o/a%2Fb%20c%3Fd?userProject=payer"
    assert place.upload("resumable", "a/b&c", [("ifGenerationMatch", "0")]) == (
        "http://h/upload/storage/v1/b/b/o?uploadType=resumable&name=a%2Fb%26c&ifGenerationMatch=0&userProject=payer"
    )
    assert place.is_here("http://h:80/x") and not place.is_here("https://h/x") and not place.is_here("http://[x")

"""Upload-Checksum: T42, T43, T45."""

import hashlib
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol import checksum
from resumable.protocol.errors import BadRequest


def written(algorithm, digest):
    return f"{algorithm} {b64encode(digest).decode()}"


def test_T43_sha1_comes_first_and_names_are_lower_case_ascii():
    names = list(checksum.STANDARD)
    assert names == ["sha1", "md5", "sha256", "sha512", "crc32", "blake2b"]
    assert all(name.isascii() and name == name.lower() for name in names)


def test_T45_the_example_of_the_specification():
    parsed = checksum.parse("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", checksum.STANDARD)
    assert parsed == checksum.Checksum("sha1", hashlib.sha1(b"hello world").digest())


@given(name=st.sampled_from(list(checksum.STANDARD)), chunks=st.lists(st.binary(max_size=50), max_size=4))
def test_T45_every_algorithm_round_trips_and_has_its_size(name, chunks):
    digest = checksum.STANDARD[name]()
    for chunk in chunks:
        digest.update(chunk)
    result = digest.digest()
    assert len(result) == checksum.SIZES[name]
    assert checksum.parse(written(name, result), checksum.STANDARD) == checksum.Checksum(name, result)


def test_crc32_is_big_endian():
    digest = checksum.Crc32()
    digest.update(b"1234")
    digest.update(b"56789")
    assert digest.digest() == zlib.crc32(b"123456789").to_bytes(4, "big") == bytes.fromhex("cbf43926")


@pytest.mark.parametrize(
    "value", ["sha3 YWJj", "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "", " ", "md4 ", "crc32c AAAAAA=="]
)
def test_T42_an_unknown_algorithm_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Checksum"):
        checksum.parse(value, checksum.STANDARD)


@pytest.mark.parametrize(
    "value",
    [
        *("sha1", "sha1 ", "sha1 *", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0", "sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
        *(
            "sha1 Kq5sNclPz7QV2-lfQIuc6R7oRu0=",
            "sha1\tKq5sNclPz7QV2+lfQIuc6R7oRu0=",
        ),
    ],
)
def test_T45_a_malformed_checksum_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Checksum"):
        checksum.parse(value, checksum.STANDARD)


@pytest.mark.parametrize("value", ["sha1 YWJj", "md5 YWJj", "crc32 YWJj", "md5 Kq5sNclPz7QV2+lfQIuc6R7oRu0="])
def test_T42_a_checksum_of_another_length_is_one_that_no_bytes_have(value):
    assert not checksum.parse(value, checksum.STANDARD).is_possible


def test_T45_an_algorithm_from_elsewhere_can_be_offered():
    assert checksum.parse("crc32c AAAAAA==", ["sha1", "crc32c"]).digest == bytes(4)
    assert checksum.parse("house YWJj", ["house"]).digest == b"abc"
    with pytest.raises(BadRequest):
        checksum.parse("house ", ["house"])


@given(st.text(max_size=40) | st.builds("{} {}".format, st.sampled_from(list(checksum.STANDARD)), st.text(max_size=40)))
def test_T45_any_value_is_a_checksum_or_400(value):
    try:
        parsed = checksum.parse(value, checksum.STANDARD)
    except BadRequest as error:
        assert error.detail.isascii() and error.detail.isprintable()
    else:
        assert parsed.is_possible == (len(parsed.digest) == checksum.SIZES[parsed.algorithm]) and parsed.digest

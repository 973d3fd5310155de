"""RFC 9530: what requests say of digests, what is wanted, and the texts that are kept."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol import digests
from resumable.protocol.checksum import Checksum
from resumable.protocol.digests import NONE, RequestDigests, of_request
from resumable.protocol.errors import BadRequest, ChecksumMismatch, DigestMismatch, InvalidDigest

DATA = b'{"hello": "world"}\n'
SHA256, SHA512 = hashlib.sha256(DATA).digest(), hashlib.sha512(DATA).digest()
PROBLEM = "https://iana.org/assignments/http-problem-types#"


def member(algorithm: str, digest: bytes) -> str:
    return f"{algorithm}=:{b64encode(digest).decode()}:"


S256, S512 = member("sha-256", SHA256), member("sha-512", SHA512)


class Said:
    """Header fields."""

    def __init__(self, **fields: str | list[str]) -> None:
        self._fields = {name.replace("_", "-"): value for name, value in fields.items()}

    def values(self, name: str) -> list[str]:
        value = self._fields.get(name, [])
        return [value] if isinstance(value, str) else value


# Content-Digest and Repr-Digest


def test_a_request_without_digests_says_nothing() -> None:
    assert of_request(Said(), 5) is of_request(Said(), 5, {"filename": b"a"}) is NONE


def test_the_example_of_RFC_9530() -> None:
    said = of_request(Said(content_digest="sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"), 19)
    assert said == RequestDigests((Checksum("sha-256", SHA256),))


def test_both_fields_and_all_known_algorithms_are_taken() -> None:
    said = of_request(Said(content_digest=f"{S512}, {S256}", repr_digest=[S512, S256]), 19)
    assert set(said.content) == {Checksum("sha-256", SHA256), Checksum("sha-512", SHA512)}
    assert said.whole == f"{S256}, {S512}"


def test_parameters_mean_nothing() -> None:
    assert of_request(Said(repr_digest=f"{S256};a=1"), 1).whole == S256


@pytest.mark.parametrize("value", ["md5=:YWJj:", "sha=5, unixsum=:AA==:", "x"])
def test_unknown_algorithms_are_ignored(value: str) -> None:
    assert of_request(Said(content_digest=value, repr_digest=f"{value}, {S256}"), 5) == RequestDigests((), S256)


@pytest.mark.parametrize(
    "value", ["sha-256=", "sha-256=:A A:", "=", "sha-256=:YQ==", f"{S256},", "SHA-256=:YQ==:", "\xe4"]
)
def test_a_field_that_is_malformed_is_as_good_as_absent(value: str) -> None:
    assert of_request(Said(content_digest=value, repr_digest=value), 5) == NONE


@pytest.mark.parametrize(
    "value", ["sha-256=1", "sha-256", "sha-256=?0", 'sha-512="abc"', "sha-256=(:YQ==:)", "sha-256=:YQ==:", "sha-512=::"]
)
@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
def test_what_no_bytes_can_have_is_refused(value: str, header: str) -> None:
    with pytest.raises(InvalidDigest) as raised:
        of_request(Said(**{header.lower().replace("-", "_"): value}), 5)
    error = raised.value
    assert (error.status, error.type) == (400, f"{PROBLEM}digest-invalid-values")
    (found,) = error.members["invalid-digests"]  # type: ignore[misc]
    assert (found["algorithm"], found["header"]) == (value.partition("=")[0], header) and found["reason"]


def test_a_body_of_no_bytes_has_one_digest() -> None:
    empty = member("sha-256", hashlib.sha256().digest())
    assert of_request(Said(content_digest=empty), 0).content
    with pytest.raises(DigestMismatch):
        of_request(Said(content_digest=S256), 0)
    assert of_request(Said(content_digest=S256), None).content


def test_a_body_is_held_against_its_digest() -> None:
    digests.check_content(Checksum("sha-256", SHA256), SHA256)
    with pytest.raises(DigestMismatch) as raised:
        digests.check_content(Checksum("sha-256", SHA256), hashlib.sha256(b"other").digest())
    error = raised.value
    assert (error.status, error.type) == (400, f"{PROBLEM}digest-mismatching-values")
    provided = f":{b64encode(SHA256).decode()}:"
    assert error.members == {
        "mismatching-digests": [
            {"algorithm": "sha-256", "provided-digest": provided, "header": "Content-Digest"},
        ]
    }


# Upload-Metadata


@pytest.mark.parametrize(
    "value", [SHA256, SHA256.hex().encode(), SHA256.hex().upper().encode(), b64encode(SHA256)], ids=str
)
def test_metadata_announce_a_digest(value: bytes) -> None:
    assert of_request(Said(), 0, {"sha256": value}) == RequestDigests((), S256)


@pytest.mark.parametrize(
    "value", [b"", b"abc", SHA512, SHA256.hex()[1:].encode(), b"g" * 64, b"\xff" * 44, b64encode(SHA512)]
)
def test_any_other_value_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="sha256"):
        of_request(Said(), 0, {"sha256": value})


def test_metadata_and_field_must_agree() -> None:
    assert of_request(Said(repr_digest=S512), 0, {"sha256": SHA256}).whole == f"{S256}, {S512}"
    assert of_request(Said(repr_digest=S256), 0, {"sha256": SHA256}).whole == S256
    with pytest.raises(DigestMismatch):
        of_request(Said(repr_digest=S256), 0, {"sha256": hashlib.sha256(b"x").digest()})


# Texts


@given(st.dictionaries(st.sampled_from(["sha-256", "sha-512"]), st.binary(min_size=1, max_size=64)))
def test_texts_are_read_back(found: dict[str, bytes]) -> None:
    assert digests.read(digests.render(found) or None) == found


def test_announcements_are_merged_unless_they_differ() -> None:
    assert digests.merged(None, None) is None
    assert digests.merged(S256, None) == digests.merged(None, S256) == digests.merged(S256, S256) == S256
    assert digests.merged(S512, S256) == f"{S256}, {S512}"
    with pytest.raises(DigestMismatch):
        digests.merged(S256, member("sha-256", bytes(32)))


def test_an_upload_is_settled_once_all_that_was_announced_is_known_and_right() -> None:
    other = member("sha-256", bytes(32))
    assert digests.is_settled(None, None) and digests.is_settled(None, S256)
    assert not digests.is_settled(S256, None) and digests.lacking(S256, None) == ["sha-256"]
    assert not digests.is_settled(f"{S256}, {S512}", S256)
    assert digests.lacking(f"{S256}, {S512}", S256) == ["sha-512"]
    assert digests.is_settled(S256, f"{S256}, {S512}")
    assert not digests.is_settled(other, S256)


def test_the_refusal_is_that_of_the_protocol() -> None:
    other = member("sha-256", bytes(32))
    assert digests.refusal(S256, S256, draft=True) is None is digests.refusal(S256, S512, draft=False)
    assert isinstance(digests.refusal(other, S256, draft=False), ChecksumMismatch)
    refusal = digests.refusal(other, S256, draft=True)
    assert isinstance(refusal, DigestMismatch) and "Repr-Digest" in str(refusal.members)
    assert b64encode(SHA256).decode() not in str(refusal.members), "ours is never told"


# Want-*


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sha-256=1", "sha-256"),
        ("sha-256=1, sha-512=5", "sha-512"),
        ("sha-512=5, sha-256=10", "sha-256"),
        ("sha-512=0, sha-256=1", "sha-256"),
        ("sha-256=0", None),
        ("md5=9, sha-512=1", "sha-512"),
        ("md5=9", None),
        ("sha-256", None),
        ("sha-256=11, sha-512=-1", None),
        ("sha-256=1.5", None),
        ("sha-256=", None),
        ("", None),
    ],
)
def test_the_most_wanted_algorithm_is_chosen(value: str, expected: str | None) -> None:
    assert digests.wanted(Said(want_repr_digest=value), "want-repr-digest", ["sha-256", "sha-512"]) == expected


def test_an_answer_has_what_is_wanted_or_all() -> None:
    both = f"{S256}, {S512}"
    assert digests.chosen(Said(), "want-repr-digest", both) == both
    assert digests.chosen(Said(), "want-repr-digest", None) is None
    assert digests.chosen(Said(want_repr_digest="sha-512=2"), "want-repr-digest", both) == S512
    assert digests.chosen(Said(want_repr_digest="sha-512=2"), "want-repr-digest", S256) is None
    assert digests.chosen(Said(want_repr_digest="sha-256=0"), "want-repr-digest", both) is None


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_hashes_run_together(chunks: list[bytes]) -> None:
    hashes = digests.Hashes(["sha-512", "sha-256"])
    for chunk in chunks:
        hashes.update(chunk)
    data = b"".join(chunks)
    expected = {"sha-256": hashlib.sha256(data).digest(), "sha-512": hashlib.sha512(data).digest()}
    assert digests.read(hashes.text(["sha-256", "sha-512"])) == expected
    assert not digests.Hashes([]) and digests.Hashes([]).text([]) is None

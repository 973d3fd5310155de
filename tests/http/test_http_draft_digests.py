"""Digests (RFC 9530) in requests and answers of the draft."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resumable.uploads.digest_rules import DigestRules
from tests.http.draft_client import PROBLEMS, Draft, upload_id
from tests.http.visitor import serving
from tests.uploads.digested import text
from tests.uploads.harness import pattern

DATA = pattern(12_345)
MISMATCHING, INVALID = f"{PROBLEMS}digest-mismatching-values", f"{PROBLEMS}digest-invalid-values"


@pytest.fixture
def draft() -> Iterator[Draft]:
    with serving(digests=DigestRules("sha-256")) as server:
        yield Draft(server)


def test_a_creation_with_its_digests_is_finished(draft: Draft) -> None:
    said = draft.post(DATA, "?1", f"Content-Digest: {text(DATA)}", f"Repr-Digest: {text(DATA, 'sha-512')}")
    assert said.status == 200
    assert draft.file(upload_id(said)) == DATA
    got = Draft(draft.server, None).tell("GET", f"/files/{upload_id(said)}")
    assert got.get("Repr-Digest") == text(DATA, "sha-256", "sha-512")


def test_content_with_another_digest_leaves_the_offset_where_it_was(draft: Draft) -> None:
    upload = draft.created(DATA[:100], f"Content-Digest: {text(DATA[:100])}")
    said = draft.patch(upload, 100, DATA[100:], "?1", f"Content-Digest: {text(b'other')}")
    assert said.status == 400 and said.problem["type"] == MISMATCHING
    assert draft.head(upload).get("Upload-Offset") == "100"
    assert draft.patch(upload, 100, DATA[100:], "?1", f"Content-Digest: {text(DATA[100:])}").status == 200


def test_an_upload_of_other_bytes_than_announced_is_not_completed(draft: Draft) -> None:
    upload = draft.created(DATA[:100], f"Repr-Digest: {text(b'other')}")
    said = draft.patch(upload, 100, DATA[100:], "?1")
    assert said.status == 400 and said.problem["type"] == MISMATCHING
    assert said.problem["mismatching-digests"] == [
        {"algorithm": "sha-256", "provided-digest": text(b"other").partition("=")[2], "header": "Repr-Digest"}
    ]
    assert draft.head(upload).get("Upload-Complete") == "?0"
    assert Draft(draft.server, None).tell("GET", f"/files/{upload}").status == 404
    assert draft.delete(upload).status == 204


def test_a_creation_of_other_bytes_than_announced_says_where_it_is(draft: Draft) -> None:
    said = draft.post(DATA, "?1", f"Repr-Digest: {text(b'other')}")
    assert said.status == 400 and said.problem["type"] == MISMATCHING
    upload = said.named or upload_id(said)
    assert draft.head(upload).get("Upload-Complete") == "?0"
    assert draft.delete(upload).status == 204


def test_a_digest_that_no_bytes_have_is_refused_and_an_unknown_one_ignored(draft: Draft) -> None:
    said = draft.post(DATA, "?1", "Repr-Digest: sha-256=:YWJj:")
    assert said.status == 400 and said.problem["type"] == INVALID
    assert draft.post(DATA, "?1", "Repr-Digest: md5=:YWJj:", "Content-Digest: sha=:YQ==:").status == 200


def test_a_finished_upload_is_not_confirmed_to_who_announces_another_digest(draft: Draft) -> None:
    """The answer to ?1 was lost, and the request that asks for it again is the first to announce."""
    upload = upload_id(draft.post(DATA, "?1"))
    again = (upload, len(DATA), b"", "?1")
    said = draft.patch(*again, f"Repr-Digest: {text(b'other')}")
    assert said.status == 400 and said.problem["type"] == MISMATCHING
    assert draft.patch(*again, f"Repr-Digest: {text(DATA)}").status == 200
    assert draft.patch(*again).status == 200

"""What a client of the draft may get wrong: each case has a defined answer, and does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, globalLogPublisher

from resumable.uploads.limits import UploadLimits
from tests.http.draft_client import INCONSISTENT, MISMATCH, PARTIAL, Draft, appending, upload_id
from tests.http.visitor import serving
from tests.uploads.harness import Server

DATA = b"0123456789"
TUS = "Tus-Resumable: 1.0.0"
OCTETS = "Content-Type: application/offset+octet-stream"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(limits=UploadLimits(max_size=1000)) as server:
        yield server


def again(draft: Draft) -> Draft:
    """Another connection to the same server."""
    return Draft(draft.server, draft.version)


# which protocol


def test_a_version_without_fields_of_the_draft_asks_for_nothing(draft: Draft) -> None:
    """It asks for nothing: 400 for requests with content, and without the version what isn't of the draft is told how
    to speak tus, as before."""
    said = draft.tell("POST", "/files/", content=DATA)
    assert said.status == 400 and not said.interims and not draft.server.names()
    upload = draft.created(DATA[:5])
    assert again(draft).tell("PATCH", f"/files/{upload}", content=DATA[5:]).status in (400, 415)
    assert again(draft).head(upload).state == (204, "?0", "5")
    plain = Draft(draft.server, None).tell("POST", "/files/", content=DATA)
    assert plain.status == 412 and plain.get("Tus-Version") == "1.0.0"


@pytest.mark.parametrize("complete", ["Upload-Complete: ?1", "Upload-Incomplete: ?1"])
def test_a_request_of_tus_stays_one_whatever_else_it_says(draft: Draft, complete: str) -> None:
    """Tus-Resumable wins: no 104, and tus's rules."""
    said = draft.tell("POST", "/files/", TUS, complete, "Upload-Length: 10", OCTETS, content=DATA[:4])
    assert (said.status, said.get("Tus-Resumable"), said.get("Upload-Offset")) == (201, "1.0.0", "4")
    assert not said.interims and said.get("Upload-Complete") is None
    upload = upload_id(said)
    assert draft.tell("POST", "/files/", TUS, complete).status == 400
    found = again(draft).tell("HEAD", f"/files/{upload}", TUS, complete)
    assert (found.status, found.get("Upload-Length"), found.get("Upload-Complete")) == (200, "10", None)
    kind = f"Content-Type: {PARTIAL}"
    refused = again(draft).tell("PATCH", f"/files/{upload}", TUS, complete, kind, "Upload-Offset: 4", content=b"4")
    assert refused.status == 415
    done = draft.tell("PATCH", f"/files/{upload}", TUS, complete, OCTETS, "Upload-Offset: 4", content=DATA[4:])
    assert (done.status, done.get("Upload-Offset"), done.get("Upload-Complete")) == (204, "10", None)
    assert draft.file(upload) == DATA


def test_an_unsupported_version_of_tus_is_refused_with_fields_of_the_draft_too(draft: Draft) -> None:
    said = draft.tell("POST", "/files/", "Tus-Resumable: 0.2.2", "Upload-Complete: ?1", content=DATA)
    assert said.status == 412 and not said.interims and not draft.server.names()


def test_an_unknown_version_is_served_as_the_newest_without_104(draft: Draft) -> None:
    for version in (1, 2, 11, 4711, "nonsense", '"8"', "9.5", "-8", "9999999999999999"):
        draft.version = version
        said = draft.post(DATA[:5], "?0")
        assert (said.status, said.get("Upload-Complete"), said.interims) == (201, "?0", [])
        assert again(draft).patch(upload_id(said), 5, b"x", None).status == 400
        assert draft.patch(upload_id(said), 5, DATA[5:], "?1").status == 200


def test_the_name_of_the_first_versions_counts_for_them_alone(draft: Draft) -> None:
    """Upload-Incomplete of a client of interop 10 is an unknown field."""
    assert draft.tell("POST", "/files/", "Upload-Incomplete: ?0", content=DATA).status == 400
    draft.version = 3
    said = draft.tell("POST", "/files/", "Upload-Incomplete: ?0", "Upload-Something: x", content=DATA)
    assert said.status == 200


# numbers


def test_an_offset_past_the_end(draft: Draft) -> None:
    upload = draft.created(DATA[:5], "Upload-Length: 10")
    for offset, complete in product((6, 11, 10**15 - 1), ("?0", "?1")):
        said = again(draft).patch(upload, offset, b"", complete)
        assert said.state == (409, "?0", "5") and said.problem["type"] == MISMATCH
    assert again(draft).head(upload).state == (204, "?0", "5")


@pytest.mark.parametrize("value", ["1000000000000000", "9" * 40, "-1", "00000000000000005"])
def test_integers_that_are_too_long_or_negative(draft: Draft, value: str) -> None:
    upload = draft.created(DATA[:5])
    assert again(draft).patch(upload, None, DATA[5:], "?1", f"Upload-Offset: {value}").status == 400
    assert again(draft).patch(upload, 5, DATA[5:], "?1", f"Upload-Length: {value}").status == 200


def test_a_length_that_changes(draft: Draft) -> None:
    upload = draft.created(DATA[:5], "Upload-Length: 10")
    for length in (9, 11, 5, 4, 0):
        for complete in ("?0", "?1"):
            said = again(draft).patch(upload, 5, b"", complete, f"Upload-Length: {length}")
            assert said.status == 400 and said.problem["type"] == INCONSISTENT
    assert again(draft).head(upload).get("Upload-Length") == "10"


def test_a_length_below_what_is_there(draft: Draft) -> None:
    upload = draft.created(DATA[:5])
    assert 400 <= again(draft).patch(upload, 5, b"", "?0", "Upload-Length: 4").status < 500
    assert again(draft).head(upload).get("Upload-Length") is None
    assert again(draft).patch(upload, 5, DATA[5:], "?1").status == 200


def test_a_content_that_is_shorter_than_the_length_in_the_last_append(draft: Draft) -> None:
    """?1 says that the content is all that is left: a chunked one that ends early completes nothing."""
    upload = draft.created(DATA[:5], "Upload-Length: 10")
    said = draft.patch(upload, 5, b"2\r\n56\r\n0\r\n\r\n", "?1", "Transfer-Encoding: chunked")
    assert (said.status, said.problem["type"]) == (400, INCONSISTENT)
    status, complete, offset = again(draft).head(upload).state
    assert (status, complete) == (204, "?0")
    at = int(offset or 0)
    assert at in (5, 7)
    assert again(draft).patch(upload, at, DATA[at:], "?1").status == 200
    assert draft.file(upload) == DATA


@pytest.mark.parametrize("content", [b"", b"x"])
def test_complete_twice(draft: Draft, content: bytes) -> None:
    upload = draft.created(DATA[:5])
    assert draft.patch(upload, 5, DATA[5:], "?1").status == 200
    said = draft.patch(upload, 10, content, "?1")
    assert said.status in ({400, 409} if content else {200, 400, 409})
    assert again(draft).head(upload).state == (204, "?1", "10")
    assert draft.file(upload) == DATA


# where nothing is


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_uploads_that_don_t_exist(draft: Draft, method: str) -> None:
    for name in ("f" * 32, "nothing", "..", "%00", "a" * 300):
        said = again(draft).tell(method, f"/files/{name}", *(appending(0, "?1") if method == "PATCH" else ()))
        assert said.status in (400, 404) and said.get("Upload-Offset") is None and not said.interims


def test_what_was_cancelled_is_gone_for_both_protocols(draft: Draft) -> None:
    upload = draft.created(DATA)
    assert draft.delete(upload).status == 204
    for said in (again(draft).head(upload), again(draft).patch(upload, 10, b"", "?1"), again(draft).delete(upload)):
        assert said.status == 410
    assert draft.tus("HEAD", upload).status == 410


def test_final_uploads_of_tus_take_nothing_from_the_draft(draft: Draft) -> None:
    """What is put together of partials is finished by nobody else."""
    part = Draft(draft.server, None).tell("POST", "/files/", TUS, "Upload-Length: 10", "Upload-Concat: partial")
    joined = f"Upload-Concat: final;/files/{upload_id(part)}"
    final = upload_id(Draft(draft.server, None).tell("POST", "/files/", TUS, joined))
    said = draft.patch(final, 0, b"x", "?1")
    assert said.status == 403


# both


def test_a_tus_client_finishes_a_draft_upload_that_has_all_its_bytes(draft: Draft) -> None:
    """To tus, all bytes are the end, but only ?1 is here: it is shown one byte less, and sends the last one again."""
    upload = draft.created(DATA, "Upload-Length: 10")
    seen = draft.tus("HEAD", upload)
    assert (seen.status, seen.get("Upload-Offset"), seen.get("Upload-Length")) == (200, "9", "10")
    assert draft.head(upload).state == (204, "?0", "10")
    wrong = draft.tus("PATCH", upload, OCTETS, "Upload-Offset: 9", "Content-Length: 1", content=b"x")
    assert wrong.status == 409
    done = draft.tus("PATCH", upload, OCTETS, "Upload-Offset: 9", "Content-Length: 1", content=DATA[9:])
    assert (done.status, done.get("Upload-Offset")) == (204, "10")
    assert draft.head(upload).state == (204, "?1", "10")
    assert draft.file(upload) == DATA


def test_the_draft_finishes_a_tus_upload_whose_length_was_deferred(draft: Draft) -> None:
    made = Draft(draft.server, None).tell("POST", "/files/", TUS, "Upload-Defer-Length: 1", OCTETS, content=DATA[:5])
    upload = upload_id(made)
    assert draft.head(upload).state == (204, "?0", "5")
    assert draft.patch(upload, 5, DATA[5:], "?1").state[:2] == (200, "?1")
    seen = draft.tus("HEAD", upload)
    assert (seen.get("Upload-Offset"), seen.get("Upload-Length"), seen.get("Upload-Defer-Length")) == ("10", "10", None)
    assert draft.file(upload) == DATA


def test_the_draft_gives_a_tus_upload_its_length_without_completing_it(draft: Draft) -> None:
    made = Draft(draft.server, None).tell("POST", "/files/", TUS, "Upload-Defer-Length: 1")
    upload = upload_id(made)
    assert draft.patch(upload, 0, DATA[:5], "?0", "Upload-Length: 10").status == 204
    assert draft.tus("HEAD", upload).get("Upload-Length") == "10"


def test_a_tus_client_that_polls_ends_no_transfer_of_the_draft(draft: Draft) -> None:
    upload = draft.created(b"", "Upload-Length: 10")
    draft.open("PATCH", f"/files/{upload}", appending(0, "?1", "Content-Length: 10"), DATA[:5])
    seen = draft.tus("HEAD", upload)
    assert (seen.status, seen.get("Upload-Offset")) == (200, "5")
    draft.send(DATA[5:])
    assert draft.heard().status == 200


def test_a_tus_append_with_a_checksum_that_is_wrong_leaves_a_draft_upload_as_it_was(draft: Draft) -> None:
    upload = draft.created(DATA[:5], "Upload-Length: 10")
    wrong = "Upload-Checksum: sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA="
    fields = (OCTETS, "Upload-Offset: 5", "Content-Length: 5", wrong)
    assert draft.tus("PATCH", upload, *fields, content=DATA[5:]).status == 460
    assert draft.head(upload).state == (204, "?0", "5")
    assert draft.patch(upload, 5, DATA[5:], "?1").status == 200


# what is no failure


@contextmanager
def nothing_logged() -> Iterator[None]:
    """Fails if an error is logged."""
    complaints: list[Any] = []

    def look(event: Any) -> None:
        if event["log_level"] >= LogLevel.error:
            complaints.append(event)

    globalLogPublisher.addObserver(look)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(look)
    assert not complaints


@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
def test_a_creation_whose_client_leaves_while_it_is_ended_for_another_request(draft: Draft, method: str) -> None:
    """As after a lost connection: the HEAD of a client that resumes comes before the server notices the loss."""
    draft.open("POST", "/files/", ("Upload-Complete: ?1", "Content-Length: 1000"), DATA)
    upload = draft.announced().named
    other = again(draft)
    with nothing_logged():
        head = f"{method} /files/{upload} HTTP/1.1\r\nHost: t\r\nUpload-Draft-Interop-Version: 10\r\n\r\n"
        other.channel.dataReceived(head.encode())
        draft.lose()
        assert other.heard().status == 204


# anything at all

VALUES = st.one_of(
    st.sampled_from(
        ["?1", "?0", "0", "5", "10", "", "?", "(", "-1", "1.5", '"', '"x"', ":YQ==:", "a;b=c", "1, 2", "\xff"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12),
)
NAMES = (
    "Upload-Complete",
    "Upload-Incomplete",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Limit",
    "Upload-Draft-Interop-Version",
    "Content-Type",
    "Content-Disposition",
    "Content-Encoding",
    "Tus-Resumable",
    "Expect",
)
LINES = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=7)


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["POST", "PATCH", "HEAD", "DELETE", "OPTIONS"]), LINES), max_size=6))
def test_fields_with_anything_in_them(requests: list[tuple[str, list[tuple[str, str]]]]) -> None:
    """Whatever they say, each request is answered, by no 5xx, and nothing is logged as an error."""
    with serving(limits=UploadLimits(max_size=1000)) as server, nothing_logged():
        upload = Draft(server).created(DATA[:5])
        for method, lines in requests:
            client = Draft(server, None)
            path = "/files/" if method in ("POST", "OPTIONS") else f"/files/{upload}"
            content = DATA[5:7] if method in ("POST", "PATCH") else b""
            said = client.tell(method, path, *(f"{name}: {value}" for name, value in lines), content=content)
            assert 200 <= said.status < 500, (method, lines, said.status)

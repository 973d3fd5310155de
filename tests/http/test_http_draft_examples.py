"""The draft's own examples: the requests of its text, with smaller numbers, and what it says of their answers.

Where an example of the text leaves a choice (the status of a success, the body of an answer) the answer is ours.
Spec: draft-ietf-httpbis-resumable-upload, sections "Overview" and "Examples".
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resumable.uploads.limits import UploadLimits
from tests.http.draft_client import INCONSISTENT, MISMATCH, Draft, limits, upload_id
from tests.http.visitor import serving
from tests.uploads.harness import Server, pattern

SIZE = 12_345
MAX = 1_234_567
DATA = pattern(SIZE)
TYPE = "Content-Type: application/partial-upload"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(limits=UploadLimits(max_size=MAX, expire_after=3600.0)) as server:
        yield server


def test_overview_1_a_file_of_known_size_in_one_request_that_breaks(draft: Draft) -> None:
    """Section "Example 1": creation, a flow that is interrupted, HEAD, PATCH to the end."""
    draft.open("POST", "/files/", ("Upload-Complete: ?1", f"Content-Length: {SIZE}"), DATA[:5000])
    upload = draft.announced().named
    assert upload is not None
    draft.lose()
    client = Draft(draft.server)
    found = client.tell("HEAD", f"/files/{upload}")
    assert found.status == 204
    offset = int(found.get("Upload-Offset") or -1)
    assert offset == 5000
    fields = ("Upload-Complete: ?1", f"Upload-Offset: {offset}", TYPE)
    assert client.tell("PATCH", f"/files/{upload}", *fields, content=DATA[offset:]).status == 200
    assert client.file(upload) == DATA


def test_overview_1_a_client_that_isn_t_interested_any_more(draft: Draft) -> None:
    """Section "Example 1", step 4."""
    upload = draft.created(DATA[:5000])
    said = draft.tell("DELETE", f"/files/{upload}")
    assert said.status == 204 and said.final is not None and said.final.body == b""


def test_overview_2_a_series_of_parts(draft: Draft) -> None:
    """Section "Example 2": 201 with Location, 204, HEAD, 204, 200."""
    made = draft.tell("POST", "/files/", "Upload-Complete: ?0", content=DATA[:1000])
    assert made.status == 201
    path = f"/files/{upload_id(made)}"
    for at in (1000, 2000):
        assert draft.tell("HEAD", path).get("Upload-Offset") == str(at)
        fields = ("Upload-Complete: ?0", f"Upload-Offset: {at}", TYPE)
        assert draft.tell("PATCH", path, *fields, content=DATA[at : at + 1000]).status == 204
    fields = ("Upload-Complete: ?1", "Upload-Offset: 3000", TYPE)
    assert draft.tell("PATCH", path, *fields, content=DATA[3000:]).status == 200
    assert draft.file(upload_id(made)) == DATA


def test_creation_a_everything_in_the_first_request(draft: Draft) -> None:
    """Section "Upload Creation", example A."""
    said = draft.tell(
        "POST",
        "/files/",
        "Content-Disposition: inline; filename=\"file name.jpg\"; filename*=UTF-8''file%20name.jpg",
        f"Content-Length: {SIZE}",
        f"Upload-Length: {SIZE}",
        "Upload-Complete: ?1",
        content=DATA[:1000],
    )
    first, *progress = [*said.of(104), *draft.announced().of(104)]
    assert upload_id(first) and limits(first)["max-size"] == MAX
    assert all(each.get("Upload-Offset") for each in progress)
    draft.send(DATA[1000:])
    said = draft.heard()
    assert (said.status, said.get("Upload-Complete"), said.get("Location")) == (200, "?1", first.get("Location"))
    got = Draft(draft.server, None).tell("GET", f"/files/{upload_id(said)}")
    assert "file%20name.jpg" in (got.get("Content-Disposition") or "") or '"file name.jpg"' in (
        got.get("Content-Disposition") or ""
    )


def test_creation_b_the_first_part(draft: Draft) -> None:
    """Section "Upload Creation", example B."""
    fields = ("Upload-Complete: ?0", f"Upload-Length: {SIZE}", "Content-Length: 2345")
    draft.open("POST", "/files/", fields, DATA[:345])
    first, *_ = draft.announced().of(104)
    draft.send(DATA[345:2345])
    said = draft.heard()
    assert (said.status, said.get("Upload-Complete"), said.get("Location")) == (201, "?0", first.get("Location"))
    assert limits(said)["max-size"] == MAX


def test_creation_c_after_a_failure_the_client_resumes(draft: Draft) -> None:
    """Section "Upload Creation", example C, where an interruption of ours closes the connection in place of the 500."""
    fields = ("Upload-Complete: ?1", f"Upload-Length: {SIZE}", f"Content-Length: {SIZE}")
    draft.open("POST", "/files/", fields, DATA[:2345])
    upload = draft.announced().named
    assert upload is not None
    draft.server.ask(draft.server.uploads.stop())
    said = draft.heard()
    assert said.status == 0 and draft.wire.disconnecting


def test_retrieval(draft: Draft) -> None:
    """Section "Offset Retrieval"."""
    upload = draft.created(DATA[:2500], "Upload-Length: 10000")
    said = draft.tell("HEAD", f"/files/{upload}")
    assert said.state == (204, "?0", "2500")
    assert (said.get("Upload-Length"), said.get("Cache-Control")) == ("10000", "no-store")
    assert 0 < limits(said)["max-age"] <= 3600


def test_append_a_not_the_last_part(draft: Draft) -> None:
    """Section "Upload Append", example A."""
    upload = draft.created(DATA[:2000])
    fields = ("Upload-Complete: ?0", "Upload-Offset: 2000", "Content-Length: 3456", TYPE)
    said = draft.tell("PATCH", f"/files/{upload}", *fields, content=DATA[2000:5456])
    assert said.state[:2] == (204, "?0") and said.named is None
    assert draft.head(upload).get("Upload-Offset") == "5456"


def test_append_b_the_last_part(draft: Draft) -> None:
    """Section "Upload Append", example B."""
    upload = draft.created(DATA[:10_000])
    fields = ("Upload-Complete: ?1", "Upload-Offset: 10000", "Content-Length: 2345", TYPE)
    said = draft.tell("PATCH", f"/files/{upload}", *fields, content=DATA[10_000:])
    assert said.state[:2] == (200, "?1")
    assert draft.file(upload) == DATA


def test_cancellation(draft: Draft) -> None:
    """Section "Upload Cancellation"."""
    assert draft.tell("DELETE", f"/files/{draft.created()}").status == 204


def test_requests_of_the_examples_name_no_version(draft: Draft) -> None:
    """Every example: without Upload-Draft-Interop-Version all is the same but the 104s."""
    plain = Draft(draft.server, None)
    made = plain.tell("POST", "/files/", "Upload-Complete: ?0", content=DATA[:5000])
    assert (made.status, made.get("Upload-Complete"), made.interims) == (201, "?0", [])
    path = f"/files/{upload_id(made)}"
    assert plain.tell("HEAD", path).state == (204, "?0", "5000")
    fields = ("Upload-Complete: ?1", "Upload-Offset: 5000", TYPE)
    assert plain.tell("PATCH", path, *fields, content=DATA[5000:]).state[:2] == (200, "?1")
    found = plain.tell("HEAD", path)
    assert found.status in (200, 204) and found.state[1:] == ("?1", str(SIZE))
    assert plain.tell("DELETE", path).status == 204
    assert plain.tell("HEAD", path).status == 410


def test_problem_of_a_mismatching_offset(draft: Draft) -> None:
    """Section "Mismatching Offset": the resource is at 1250, the client at 2500."""
    upload = draft.created(DATA[:1250])
    said = draft.patch(upload, 2500, DATA[2500:], "?1")
    assert said.state == (409, "?0", "1250")
    assert said.get("Content-Type") == "application/problem+json"
    problem = said.problem
    assert (problem["type"], problem["expected-offset"], problem["provided-offset"]) == (MISMATCH, 1250, 2500)
    assert problem["title"]


def test_problem_of_inconsistent_lengths(draft: Draft) -> None:
    """Section "Inconsistent Length"."""
    upload = draft.created(DATA[:1250], "Upload-Length: 5000")
    said = draft.patch(upload, 1250, b"", "?0", "Upload-Length: 6000")
    assert (said.status, said.get("Upload-Complete")) == (400, "?0")
    assert said.problem["type"] == INCONSISTENT and said.problem["title"]


def test_a_client_that_expects_100_may_be_sent_both(draft: Draft) -> None:
    """Section "Status Code 104": the server MUST NOT omit the 100 because of a 104."""
    draft.open("POST", "/files/", ("Upload-Complete: ?1", f"Content-Length: {SIZE}", "Expect: 100-continue"))
    assert {each.status for each in draft.announced().interims} == {100, 104}


def test_an_upload_is_made_by_post_alone(draft: Draft) -> None:
    """Section "Upload Creation": any method that takes content may make one; here the collection takes POST, and says
    so to others."""
    for method in ("PUT", "PATCH"):
        said = Draft(draft.server).tell(method, "/files/", "Upload-Complete: ?1", content=DATA)
        assert said.status == 405 and "POST" in (said.get("Allow") or "")
    assert not draft.server.names()

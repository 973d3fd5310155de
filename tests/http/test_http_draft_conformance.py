"""The server's obligations in the draft, R1 to R23: fields, state, length, limits and creation.

Each docstring begins with the number of the obligation (docs/conformance.md); the later ones are in
test_http_draft_conformance_appends. Spec: draft-ietf-httpbis-resumable-upload.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resumable.uploads.limits import UploadLimits
from tests.http.draft_client import COMPLETED, INCONSISTENT, NEWEST, Draft, Said, limits, upload_id
from tests.http.visitor import serving
from tests.uploads.harness import UPLOADS, Server

DATA = b"0123456789"
MAX = 1000
PARTIAL = "Content-Type: application/partial-upload"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(limits=UploadLimits(max_size=MAX, expire_after=3600.0)) as server:
        yield server


def again(draft: Draft) -> Draft:
    """Another connection to the same server."""
    return Draft(draft.server, draft.version)


# fields

NO_INTEGER = [
    "-1",
    "1.0",
    '"5"',
    "?1",
    "five",
    "1000000000000000",
    "5, 6",
    "(5)",
    "",
    "5;",
    "0x5",
    "+5",
    ":NQ==:",
    "@5",
]


def test_a_length_that_is_no_integer_is_as_if_it_weren_t_there(draft: Draft) -> None:
    """R1: Upload-Length is an Integer that is not negative; another value: the field is ignored."""
    for value in NO_INTEGER:
        upload = draft.created(b"abc", f"Upload-Length: {value}")
        assert draft.head(upload).get("Upload-Length") is None, value
        assert draft.patch(upload, 3, b"d", "?1", f"Upload-Length: {value}").status == 200, value
        assert draft.file(upload) == b"abcd"


def test_an_offset_that_is_no_integer_is_as_if_it_weren_t_there(draft: Draft) -> None:
    """R1: Upload-Offset is an Integer that is not negative; without it an append is 400."""
    upload = draft.created(b"abc")
    for value in NO_INTEGER:
        assert again(draft).patch(upload, None, b"d", "?1", f"Upload-Offset: {value}").status == 400, value
    assert again(draft).head(upload).state == (204, "?0", "3")


NO_BOOLEAN = ["1", "true", "?2", "?1, ?1", '"?1"', "", "?", "1.0", "?1;", "??1"]


def test_a_completeness_that_is_no_boolean_is_as_if_it_weren_t_there(draft: Draft) -> None:
    """R1: Upload-Complete is a Boolean; another value: the field is ignored. Then nothing asks for the draft at a
    creation, and an append is 400."""
    upload = draft.created(b"abc")
    for value in NO_BOOLEAN:
        said = again(draft).post(DATA, value)
        assert 400 <= said.status < 500 and not said.of(104) and said.get("Location") is None, value
        assert again(draft).patch(upload, 3, b"d", value).status == 400, value
    assert again(draft).head(upload).state == (204, "?0", "3")
    assert draft.server.names() == {upload}


def test_parameters_of_items_are_ignored(draft: Draft) -> None:
    """R1: all three are Items, so they may have parameters that mean nothing here."""
    said = draft.post(b"abc", "?0;x=1;y", 'Upload-Length: 4;unit="bytes"')
    assert (said.status, draft.head(upload_id(said)).get("Upload-Length")) == (201, "4")
    assert draft.patch(upload_id(said), "3;a", b"d", "?1;b=?0").status == 200


def test_two_lines_of_an_item_are_no_item(draft: Draft) -> None:
    """R1: several lines are one value with commas, and so none."""
    upload = draft.created(b"abc", "Upload-Length: 10", "Upload-Length: 10")
    assert draft.head(upload).get("Upload-Length") is None
    assert draft.patch(upload, None, b"d", "?0", "Upload-Offset: 3", "Upload-Offset: 3").status == 400


def test_the_largest_integer_is_one(draft: Draft) -> None:
    """R1: an Integer has up to 15 digits."""
    upload = draft.created()
    assert draft.patch(upload, "999999999999999", b"x", "?0").status == 409
    with serving() as server:
        assert limits(Draft(server).tell("OPTIONS", "/files/")) == {"min-size": 0}
        assert Draft(server).head(Draft(server).created(b"", "Upload-Length: 999999999999999")).get(
            "Upload-Length"
        ) == str(10**15 - 1)


def test_limits_are_a_dictionary_of_integers_and_those_of_a_client_count_for_nothing(draft: Draft) -> None:
    """R2: Upload-Limit is a Dictionary of Integers; of a request it means nothing."""
    known = {"max-size", "min-size", "max-append-size", "min-append-size", "max-age"}
    assert set(limits(draft.tell("OPTIONS", "/files/"))) <= known
    upload = draft.created(DATA, "Upload-Limit: max-size=1, colour=7")
    assert limits(draft.head(upload))["max-size"] == MAX


# state


def test_an_offset_never_decreases(draft: Draft) -> None:
    """R3: the offset never decreases."""
    upload, seen = draft.created(b"01"), []
    for offset, content in ((2, b"23"), (0, b"xx"), (4, b""), (4, b"4"), (3, b"y"), (9, b"z"), (5, b"56789")):
        draft.patch(upload, offset, content, "?0")
        seen.append(int(draft.head(upload).get("Upload-Offset") or -1))
    assert seen == [4, 4, 4, 5, 5, 5, 10]
    assert draft.patch(upload, 10, b"", "?1").status == 200
    assert draft.file(upload) == DATA


def test_an_upload_whose_bytes_were_lost_is_rejected(draft: Draft) -> None:
    """R3: if state is lost, everything on that resource is rejected."""
    upload = draft.created(DATA)
    draft.server.disk.unlink(f"{UPLOADS}/{upload}")
    again(draft).patch(upload, 10, b"x", "?1")
    for said in (again(draft).head(upload), again(draft).patch(upload, 10, b"x", "?1"), again(draft).delete(upload)):
        assert said.status == 410


def test_nothing_is_appended_after_completion(draft: Draft) -> None:
    """R4: complete is what a ?1 request has completed, and then nothing may be appended."""
    upload = draft.created(DATA[:5])
    assert draft.patch(upload, 5, DATA[5:], "?1").status == 200
    for content, complete in ((b"x", "?0"), (b"x", "?1"), (b"", "?0")):
        said = again(draft).patch(upload, 10, content, complete)
        assert said.status in (400, 409) and said.problem["type"] == COMPLETED
        assert said.get("Upload-Complete") == "?0"
    assert again(draft).head(upload).state == (204, "?1", "10")
    assert draft.file(upload) == DATA


def test_all_bytes_are_not_completion(draft: Draft) -> None:
    """R4: the offset may be the length, and the upload incomplete still: nothing can be read, and it expires."""
    upload = draft.created(DATA, "Upload-Length: 10")
    assert draft.head(upload).state == (204, "?0", "10")
    assert Draft(draft.server, None).tell("GET", f"/files/{upload}").status == 404
    assert not draft.server.row(upload).finished
    other = draft.created(b"", "Upload-Length: 0")
    assert draft.head(other).state == (204, "?0", "0")
    assert draft.patch(other, 0, b"", "?1").status == 200
    draft.server.advance(3700.0)
    draft.server.sweep()
    assert again(draft).head(upload).status == 410
    assert again(draft).head(other).state == (204, "?1", "0")


def test_every_upload_has_a_name_of_its_own(draft: Draft) -> None:
    """R5: URIs are unique, and never used again."""
    names = [draft.created() for _ in range(20)]
    for name in names:
        assert draft.delete(name).status == 204
    names += [draft.created() for _ in range(20)]
    assert len(set(names)) == 40
    assert all(draft.head(name).status == 410 for name in names[:20])


def test_who_has_answered_is_told(draft: Draft) -> None:
    """R6: ?1 on an answer of the target, ?0 on one of the protocol."""
    assert draft.post(DATA, "?1").get("Upload-Complete") == "?1"
    made = draft.post(DATA, "?0", "Upload-Length: 20")
    assert made.get("Upload-Complete") == "?0"
    upload = upload_id(made)
    assert draft.patch(upload, 3, b"x", "?1").get("Upload-Complete") == "?0"
    assert draft.patch(upload, 10, b"x", "?0").get("Upload-Complete") == "?0"
    assert draft.patch(upload, 11, b"012345678", "?1").get("Upload-Complete") == "?1"


# length


@pytest.mark.parametrize(
    ("complete", "fields", "length"),
    [
        ("?0", ("Content-Length: 20", "Upload-Length: 30"), "30"),
        ("?1", ("Content-Length: 20", "Upload-Length: 20"), "20"),
        ("?1", ("Content-Length: 20",), "20"),
        ("?1", ("Transfer-Encoding: chunked", "Upload-Length: 20"), "20"),
        ("?1", ("Transfer-Encoding: chunked",), None),
        ("?0", ("Content-Length: 20",), None),
    ],
)
def test_the_length_is_recorded_at_once(
    draft: Draft, complete: str, fields: tuple[str, ...], length: str | None
) -> None:
    """R7: the length is that of Upload-Length, or with ?1 the offset and the content: recorded before the content."""
    draft.open("POST", "/files/", (f"Upload-Complete: {complete}", *fields))
    upload = draft.announced().named
    assert upload is not None
    assert again(draft).head(upload).get("Upload-Length") == length


def test_an_append_records_the_length_too(draft: Draft) -> None:
    """R7: by Upload-Length, or by ?1 and its content."""
    upload = draft.created(b"abc")
    assert draft.patch(upload, 3, b"d", "?0", "Upload-Length: 8").status == 204
    assert draft.head(upload).get("Upload-Length") == "8"
    other = draft.created(b"abc")
    draft.open("PATCH", f"/files/{other}", ("Upload-Offset: 3", "Upload-Complete: ?1", PARTIAL, "Content-Length: 4"))
    assert again(draft).head(other).get("Upload-Length") == "7"


def test_lengths_that_don_t_match_are_refused(draft: Draft) -> None:
    """R8: what two requests, or two fields of one, say of the length must match: 400 with the problem type, and the
    upload goes on as it was."""
    refused = [again(draft).post(DATA, "?1", "Upload-Length: 12"), again(draft).post(DATA, "?0", "Upload-Length: 9")]
    assert not any(each.get("Location") or each.named for each in refused) and not draft.server.names()
    upload = draft.created(DATA[:5], "Upload-Length: 10")
    refused += [
        again(draft).patch(upload, 5, b"5", "?0", "Upload-Length: 11"),
        again(draft).patch(upload, 5, b"5", "?1"),
        again(draft).patch(upload, 5, DATA[5:], "?1", "Upload-Length: 11"),
        again(draft).patch(upload, 5, b"", "?1"),
    ]
    for said in refused:
        assert (said.status, said.problem["type"]) == (400, INCONSISTENT)
        assert said.get("Upload-Complete") == "?0"
    assert again(draft).head(upload).state == (204, "?0", "5")
    assert again(draft).patch(upload, 5, DATA[5:], "?1", "Upload-Length: 10").status == 200
    assert draft.file(upload) == DATA


def test_a_content_that_is_announced_past_the_length_is_refused_before_it_is_read(draft: Draft) -> None:
    """R9: nothing past the length is taken; what was announced in time is stored nowhere, and the upload goes on."""
    upload = draft.created(DATA[:5], "Upload-Length: 10")
    said = draft.patch(upload, 5, b"567890", "?0")
    assert said.status == 400
    assert again(draft).head(upload).state == (204, "?0", "5")
    assert again(draft).patch(upload, 5, DATA[5:], "?1").status == 200
    assert draft.file(upload) == DATA


@pytest.mark.parametrize("complete", ["?0", "?1"])
def test_a_content_that_turns_out_to_pass_the_length_invalidates_the_upload(draft: Draft, complete: str) -> None:
    """R9: MUST reject once the offset passes the length, and invalidate the resource."""
    upload = draft.created(DATA[:5], "Upload-Length: 10")
    said = draft.patch(upload, 5, b"6\r\n567890\r\n0\r\n\r\n", complete, "Transfer-Encoding: chunked")
    assert said.status == 400
    for after in (
        again(draft).head(upload),
        again(draft).patch(upload, 5, DATA[5:], "?1"),
        again(draft).delete(upload),
    ):
        assert after.status == 410


# limits


def test_a_length_over_the_limit_is_refused_at_once(draft: Draft) -> None:
    """R10: max-size; R13: the refusal carries the limits."""
    for said in (again(draft).post(b"", "?0", f"Upload-Length: {MAX + 1}"), again(draft).post(bytes(MAX + 1), "?1")):
        assert said.status == 413 and limits(said)["max-size"] == MAX
        assert not said.of(104) and said.get("Location") is None
    upload = draft.created(bytes(MAX))
    said = draft.patch(upload, MAX, b"x", "?0")
    assert said.status == 413 and limits(said)["max-size"] == MAX
    assert again(draft).head(upload).state == (204, "?0", str(MAX))
    assert again(draft).patch(upload, MAX, b"", "?1").status == 200


def test_the_size_of_one_request_has_limits(server: Server) -> None:
    """R10: max-append-size and min-append-size, of appends and creations; the least doesn't hold for an empty creation,
    nor with ?1. R13: the refusals carry them."""

    def client() -> Draft:
        return Draft(server, min_append=3, max_append=6)

    told = {"max-size": MAX, "min-append-size": 3, "max-append-size": 6, "max-age": 3600}
    assert limits(client().tell("OPTIONS", "/files/")) == told
    for content, complete, status in ((b"01", "?0", 400), (DATA, "?0", 413), (DATA, "?1", 413)):
        said = client().post(content, complete)
        assert (said.status, limits(said)) == (status, told) and not said.of(104)
    assert not server.names()
    upload = client().created()
    for content, complete, status in ((b"01", "?0", 400), (DATA, "?0", 413), (DATA, "?1", 413), (b"012", "?0", 204)):
        said = client().patch(upload, 0, content, complete)
        assert (said.status, limits(said)) == (status, told)
    assert client().patch(upload, 3, DATA[3:9], "?0").status == 204
    assert client().patch(upload, 9, DATA[9:], "?1").status == 200
    assert client().file(upload) == DATA
    assert client().post(b"0", "?1").status == 200


def test_a_request_that_turns_out_to_pass_its_limit_is_cut_there(server: Server) -> None:
    """R10: a chunked content over max-append-size is 413; what was in time is kept, and the upload goes on."""
    upload = Draft(server).created()
    said = Draft(server, max_append=6).patch(
        upload, 0, b"a\r\n" + DATA + b"\r\n0\r\n\r\n", "?1", "Transfer-Encoding: chunked"
    )
    assert said.status == 413 and limits(said)["max-append-size"] == 6
    status, complete, offset = Draft(server).head(upload).state
    assert (status, complete) == (204, "?0") and int(offset or -1) <= 6
    assert Draft(server).patch(upload, int(offset or 0), DATA[int(offset or 0) :], "?1").status == 200
    assert Draft(server).file(upload) == DATA


def test_the_life_that_is_left_is_a_limit(draft: Draft) -> None:
    """R10: max-age is what is left of it."""
    upload = draft.created(DATA)
    first = limits(draft.head(upload))["max-age"]
    assert 3590 <= first <= 3600
    draft.server.advance(600.0)
    assert limits(again(draft).head(upload))["max-age"] == first - 600


def test_limits_don_t_get_tighter(draft: Draft) -> None:
    """R11: those of an upload stay as they were told."""
    made = draft.post(b"", "?0")
    upload, seen = upload_id(made), [limits(made)]
    for offset in range(5):
        draft.patch(upload, offset, b"x", "?0")
        seen.append(limits(draft.head(upload)))
    assert {each["max-size"] for each in seen} == {MAX}
    assert len({tuple(sorted(each)) for each in seen}) == 1


def test_options_tells_the_limits(draft: Draft, server: Server) -> None:
    """R12: OPTIONS on a creation target carries Upload-Limit, min-size=0 where there are none."""
    said = draft.tell("OPTIONS", "/files/")
    assert said.status in (200, 204) and limits(said)["max-size"] == MAX
    assert said.get("Tus-Version") == "1.0.0"
    with serving() as unlimited:
        assert Draft(unlimited, None).tell("OPTIONS", "/files/").get("Upload-Limit") == "min-size=0"


def test_refusals_for_limits_carry_them(draft: Draft) -> None:
    """R13: all limits of the upload."""
    said = draft.post(b"", "?0", f"Upload-Length: {MAX + 1}")
    assert said.status == 413 and said.get("Upload-Limit") == again(draft).tell("OPTIONS", "/files/").get(
        "Upload-Limit"
    )


# creation


def test_the_104_names_the_upload_and_its_limits(draft: Draft) -> None:
    """R14: the 104 MUST carry Location and Upload-Limit; it comes before the content."""
    draft.open("POST", "/files/", ("Upload-Complete: ?1", "Content-Length: 10"))
    said = draft.announced()
    (interim,) = said.of(104)
    assert said.status == 0 and upload_id(interim) and limits(interim)["max-size"] == MAX
    assert interim.get("Upload-Draft-Interop-Version") == str(NEWEST)
    assert interim.get("Upload-Complete") is None and interim.get("Content-Length") is None
    draft.send(DATA)
    done = draft.heard()
    assert (done.status, done.get("Upload-Complete")) == (200, "?1")


@pytest.mark.parametrize("method", ["POST"])
def test_a_whole_file_is_answered_as_the_target_answers(draft: Draft, method: str) -> None:
    """R15: ?1 processed: the target's answer."""
    said = draft.post(DATA, "?1", method=method)
    assert (said.status, said.get("Upload-Complete"), said.final and said.final.body) == (200, "?1", b"")
    assert draft.file(upload_id(said)) == DATA


def test_a_part_is_answered_with_the_way_to_the_rest(draft: Draft) -> None:
    """R16: ?0 processed: MUST carry Location and Upload-Limit; 201."""
    said = draft.post(DATA, "?0")
    assert (said.status, said.get("Upload-Complete"), limits(said)["max-size"]) == (201, "?0", MAX)
    assert draft.head(upload_id(said)).state == (204, "?0", "10")


@pytest.mark.parametrize("complete", ["?0", "?1"])
def test_every_answer_to_a_creation_has_the_same_location(draft: Draft, complete: str) -> None:
    """R17: MUST be the same Location in all informational and final responses; R19: Upload-Complete in the last."""
    draft.open("POST", "/files/", (f"Upload-Complete: {complete}", "Content-Length: 10"))
    first = draft.announced().of(104)[0].get("Location")
    draft.send(DATA)
    said = draft.heard()
    assert said.get("Upload-Complete") == complete
    assert first == said.get("Location") is not None


def grow(draft: Draft, size: int, steps: int, seconds: float) -> Said:
    """Send ``size`` bytes in so many steps, so far apart; what was answered in between."""
    said = b""
    for _ in range(steps):
        draft.send(bytes(size // steps))
        draft.server.advance(seconds)
        draft.server.tick()
        said += draft.wire.value()
        draft.wire.clear()
    return Said(said)


def test_progress_is_reported_at_a_bounded_pace() -> None:
    """R18: 104s with Upload-Offset while a creation's content is processed, not one for each read of the socket."""
    size = 8 << 20
    with serving() as server:
        draft = Draft(server)
        draft.open("POST", "/files/", ("Upload-Complete: ?1", f"Content-Length: {size}"))
        first = draft.announced()
        said = grow(draft, size, 64, 0.25)
        offsets = said.progress
        assert first.named and offsets and offsets == sorted(offsets) and offsets[-1] <= size
        assert len(offsets) <= 32
        assert {each.get("Location") for each in said.of(104)} <= {None, first.of(104)[0].get("Location")}
        assert (said.status, said.get("Upload-Complete")) == (200, "?1")


@pytest.mark.parametrize("complete", ["?0", "?1"])
def test_every_answer_says_whether_it_is_complete(draft: Draft, complete: str) -> None:
    """R19: SHOULD carry Upload-Complete; R38: answers to appends, too."""
    said = draft.post(b"", "?0")
    assert said.get("Upload-Complete") == "?0"
    assert draft.patch(upload_id(said), 0, DATA, complete).get("Upload-Complete") == complete


def test_nobody_is_redirected(draft: Draft) -> None:
    """R20 and R28: SHOULD NOT be 301, 302 or 303; without the slash, too."""
    upload = draft.created(DATA)
    for said in (
        again(draft).tell("POST", "/files", "Upload-Complete: ?0"),
        again(draft).tell("HEAD", f"/files/{upload}/"),
        again(draft).head(upload),
        again(draft).patch(upload, 10, b"", "?0"),
        again(draft).delete(upload),
    ):
        assert said.status not in range(300, 400)


@pytest.mark.parametrize("complete", ["?0", "?1"])
@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_what_came_of_an_interrupted_creation_is_kept(draft: Draft, complete: str, framing: str) -> None:
    """R21: as much as possible is kept, and it is never complete."""
    draft.open("POST", "/files/", (f"Upload-Complete: {complete}", framing))
    upload = draft.announced().named
    assert upload is not None
    draft.send(b"7\r\n0123456\r\n" if framing.startswith("Transfer") else DATA[:7])
    draft.lose()
    assert again(draft).head(upload).state == (204, "?0", "7")
    assert again(draft).patch(upload, 7, DATA[7:], "?1").status == 200
    assert draft.file(upload) == DATA


def test_all_bytes_of_an_interrupted_creation_don_t_complete_it(draft: Draft) -> None:
    """R21: with all bytes and the length known, but the end of the content missing."""
    draft.open("POST", "/files/", ("Upload-Complete: ?1", "Upload-Length: 10", "Transfer-Encoding: chunked"))
    upload = draft.announced().named
    assert upload is not None
    draft.send(b"a\r\n0123456789\r\n")
    draft.lose()
    status, complete, offset = again(draft).head(upload).state
    assert (status, complete) == (204, "?0") and int(offset or 0) <= 10
    assert again(draft).patch(upload, int(offset or 0), DATA[int(offset or 0) :], "?1").status == 200
    assert draft.file(upload) == DATA


def test_an_empty_content(draft: Draft) -> None:
    """R22: with ?1 an empty file, with ?0 a careful creation."""
    said = draft.post(b"", "?1")
    assert (said.status, said.get("Upload-Complete")) == (200, "?1")
    assert draft.file(upload_id(said)) == b""
    careful = draft.post(b"", "?0")
    assert (careful.status, careful.get("Upload-Complete")) == (201, "?0")
    assert draft.head(upload_id(careful)).state == (204, "?0", "0")
    bare = draft.tell("POST", "/files/", "Upload-Complete: ?0")
    assert bare.status == 201


def test_the_representation_s_fields_are_kept_and_checked(draft: Draft) -> None:
    """R23: Content-Type, -Encoding and -Disposition are metadata, MUST be validated, and are served on download."""
    said = draft.post(
        DATA,
        "?1",
        "Content-Type: image/png",
        "Content-Encoding: gzip",
        "Content-Disposition: inline; filename=\"a b.png\"; filename*=UTF-8''%C3%A4%20b.png",
    )
    assert said.status == 200
    found = Draft(draft.server, None).tell("GET", f"/files/{upload_id(said)}")
    assert (found.status, found.get("Content-Type"), found.get("Content-Encoding")) == (200, "image/png", "gzip")
    assert "%C3%A4%20b.png" in (found.get("Content-Disposition") or "")


@pytest.mark.parametrize(
    "field",
    [
        'Content-Disposition: inline; filename="../../etc/passwd"',
        "Content-Disposition: inline; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd%00%0D%0Ax",
        'Content-Disposition: ;;;="',
        "Content-Type: no type at all",
        'Content-Type: text/html; charset="',
        "Content-Encoding: gzip, , \x7f",
    ],
)
def test_metadata_that_is_no_good_does_no_harm(draft: Draft, field: str) -> None:
    """R23: refused, or made harmless."""
    said = draft.post(DATA, "?1", field)
    if said.status != 200:
        assert said.status == 400 and not said.of(104)
        return
    found = Draft(draft.server, None).tell("GET", f"/files/{upload_id(said)}")
    assert found.status == 200
    shown = found.get("Content-Disposition") or ""
    assert "/" not in shown.replace("application/", "") and "%00" not in shown and "%0D" not in shown
    assert "%2F" not in shown

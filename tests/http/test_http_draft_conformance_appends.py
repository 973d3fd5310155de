"""The server's obligations in the draft, R24 to R50: retrieval, appends, cancellation, concurrency, versions, security.

Each docstring begins with the number of the obligation (docs/conformance.md); the earlier ones are in
test_http_draft_conformance. Spec: draft-ietf-httpbis-resumable-upload.
"""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64encode
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs

from resumable.auth.guard import AccessGuard
from resumable.auth.interfaces import AuthRequest
from resumable.http.admission import Admission
from resumable.http.origin import Origin
from resumable.model.principal import Principal
from resumable.protocol.errors import Forbidden, Unauthorized, Unavailable
from resumable.uploads.limits import UploadLimits
from tests.http.draft_client import MISMATCH, NEWEST, PARTIAL, Draft, Said, appending, limits, upload_id
from tests.http.visitor import serving
from tests.uploads.harness import EPOCH, Server

DATA = b"0123456789"
MAX = 1 << 30
OLDEST = 3
VERSIONS = range(OLDEST, NEWEST + 1)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(limits=UploadLimits(max_size=MAX)) as server:
        yield server


def again(draft: Draft) -> Draft:
    """Another connection to the same server."""
    return Draft(draft.server, draft.version)


def under_way(draft: Draft, upload: str, content: bytes = b"", complete: str = "?1") -> None:
    """An append of DATA of which ``content`` has come."""
    draft.open("PATCH", f"/files/{upload}", appending(0, complete, f"Content-Length: {len(DATA)}"), content)


def hung_up(draft: Draft) -> bool:
    """Whether its connection was closed without a final answer."""
    return draft.wire.disconnecting and draft.heard().status == 0


# retrieval


def test_head_tells_the_offset(draft: Draft) -> None:
    """R24: MUST carry Upload-Offset."""
    upload = draft.created()
    assert draft.head(upload).get("Upload-Offset") == "0"
    draft.patch(upload, 0, DATA[:4], "?0")
    assert draft.head(upload).get("Upload-Offset") == "4"
    draft.patch(upload, 4, DATA[4:], "?1")
    assert draft.head(upload).get("Upload-Offset") == "10"


@pytest.mark.parametrize("version", range(5, NEWEST + 1))
def test_head_tells_completeness_and_the_length(draft: Draft, version: int) -> None:
    """R25: up to interop 9 MUST carry Upload-Complete, and Upload-Length if it is known; later it may."""
    upload, other = draft.created(), draft.created(b"", "Upload-Length: 10")
    draft.version = version
    assert (draft.head(upload).get("Upload-Complete"), draft.head(upload).get("Upload-Length")) == ("?0", None)
    assert (draft.head(other).get("Upload-Complete"), draft.head(other).get("Upload-Length")) == ("?0", "10")
    draft.patch(upload, 0, DATA, "?1")
    assert (draft.head(upload).get("Upload-Complete"), draft.head(upload).get("Upload-Length")) == ("?1", "10")


@pytest.mark.parametrize("version", [3, 4])
def test_head_of_the_first_versions_says_the_opposite(draft: Draft, version: int) -> None:
    """R25: Upload-Incomplete in interop 3 and 4."""
    draft.version = version
    said = draft.tell("POST", "/files/", "Upload-Incomplete: ?1")
    assert (said.status, said.get("Upload-Incomplete"), said.get("Upload-Complete")) == (201, "?1", None)
    upload = upload_id(said)
    assert draft.head(upload).get("Upload-Incomplete") == "?1"
    done = draft.tell("PATCH", f"/files/{upload}", "Upload-Offset: 0", "Upload-Incomplete: ?0", content=DATA)
    assert done.status == 200 and done.get("Upload-Incomplete") in (None, "?0")
    assert draft.head(upload).get("Upload-Incomplete") == "?0"
    assert draft.file(upload) == DATA


def test_head_tells_the_limits(draft: Draft) -> None:
    """R26: MUST carry Upload-Limit."""
    assert limits(draft.head(draft.created()))["max-size"] == MAX
    with serving() as unlimited:
        other = Draft(unlimited)
        assert other.head(other.created()).get("Upload-Limit") is not None


def test_head_may_not_be_stored(draft: Draft) -> None:
    """R27: SHOULD carry Cache-Control: no-store."""
    assert draft.head(draft.created()).get("Cache-Control") == "no-store"


def test_head_is_204_without_a_body(draft: Draft) -> None:
    """R29: 2xx, 204 as in the examples; R28: no redirect."""
    upload = draft.created(DATA)
    for said in (draft.head(upload), again(draft).head(upload), Draft(draft.server, None).head(upload)):
        assert said.status == 204 and said.final is not None and said.final.body == b""
    assert draft.patch(upload, 10, b"", "?1").status == 200
    assert draft.head(upload).status == 204


def test_get_retrieves_the_offset_too(draft: Draft) -> None:
    """R24 to R27: what holds for HEAD holds for a successful GET, too, by which a client may ask as well."""
    upload = draft.created(DATA[:5], "Upload-Length: 10")
    for at in (5, 10):
        said = draft.tell("GET", f"/files/{upload}")
        assert said.status in range(200, 300)
        assert said.state[1:] == ("?1" if at == 10 else "?0", str(at))
        assert (said.get("Upload-Length"), limits(said)["max-size"]) == ("10", MAX)
        if at == 5:
            assert said.get("Cache-Control") == "no-store"
            assert draft.patch(upload, 5, DATA[5:], "?1").status == 200


# appends


def test_an_append_without_its_fields_is_refused(draft: Draft) -> None:
    """R30: Upload-Offset and Upload-Complete are required, else 400."""
    upload = draft.created(DATA[:5])
    for offset, complete in ((None, "?1"), (None, None), (None, "?0")):
        assert again(draft).patch(upload, offset, b"x", complete).status == 400
    for version in (7, 8, 9, 10, None):
        draft.version = version
        assert again(draft).patch(upload, 5, b"x", None).status == 400
    assert again(draft).head(upload).state == (204, "?0", "5")


def test_interop_6_counts_an_append_without_completeness_as_the_last(draft: Draft) -> None:
    """R30: in drafts 04 and 05 no Upload-Complete is ?1."""
    draft.version = 6
    upload = draft.created(DATA[:5])
    assert draft.patch(upload, 5, DATA[5:], None).state[:2] == (200, "?1")
    assert draft.file(upload) == DATA


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", "application/partial", "image/png"])
def test_an_append_of_another_type_is_refused(draft: Draft, kind: str) -> None:
    """R30: application/partial-upload, else 415."""
    upload = draft.created(DATA[:5])
    assert draft.patch(upload, 5, DATA[5:], "?1", f"Content-Type: {kind}").status == 415
    assert again(draft).head(upload).state == (204, "?0", "5")


def test_an_append_without_a_type_is_refused_and_parameters_and_case_are_not(draft: Draft) -> None:
    """R30: media types have no case, and may have parameters (RFC 9110, section 8.3.1)."""
    upload = draft.created()
    fields = ("Upload-Offset: 0", "Upload-Complete: ?0")
    assert again(draft).tell("PATCH", f"/files/{upload}", *fields, content=b"0").status == 415
    assert draft.patch(upload, 0, b"0", "?0", "Content-Type: Application/Partial-Upload").status == 204
    assert draft.patch(upload, 1, b"1", "?0", f"Content-Type: {PARTIAL}; x=1").status == 204


@pytest.mark.parametrize("version", [3, 4, 5])
def test_the_first_versions_know_no_type_of_appends(draft: Draft, version: int) -> None:
    """R30: application/partial-upload from interop 6 on."""
    upload = draft.created(DATA[:5])
    draft.version = version
    word = "Upload-Incomplete: ?0" if version < 5 else "Upload-Complete: ?1"
    for kind in ((), ("Content-Type: application/octet-stream",)):
        fields = ("Upload-Offset: 9", word, *kind)
        assert again(draft).tell("PATCH", f"/files/{upload}", *fields, content=DATA[5:]).status == 409
    assert draft.tell("PATCH", f"/files/{upload}", "Upload-Offset: 5", word, content=DATA[5:]).status == 200
    assert draft.file(upload) == DATA


@pytest.mark.parametrize("complete", ["?0", "?1"])
def test_an_offset_that_doesn_t_match_is_told_the_right_one(draft: Draft, complete: str) -> None:
    """R31: MUST be 409 with ?0 and the right Upload-Offset; the problem type has both offsets."""
    upload = draft.created(DATA[:5])
    for offset in (0, 4, 6, 10, 11, 10**15 - 1):
        said = again(draft).patch(upload, offset, b"x", complete)
        assert said.state == (409, "?0", "5")
        problem = said.problem
        assert (problem["type"], problem["expected-offset"], problem["provided-offset"]) == (MISMATCH, 5, offset)
    assert again(draft).head(upload).state == (204, "?0", "5")


def test_who_missed_the_last_answer_and_sends_again_is_told_the_right_offset(draft: Draft) -> None:
    """R31: MUST be 409 for a completed upload, too: with the right offset the client comes to its answer (R37), while
    400 is an end to it."""
    upload = draft.created(DATA[:5])
    assert draft.patch(upload, 5, DATA[5:], "?1").status == 200
    assert again(draft).patch(upload, 5, DATA[5:], "?1").state == (409, "?0", "10")
    assert again(draft).patch(upload, 10, b"", "?1").state[:2] == (200, "?1")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("complete", ["?0", "?1"])
def test_what_came_of_an_interrupted_append_is_kept(draft: Draft, complete: str, chunked: bool) -> None:
    """R32: the prefix is kept, and it is never complete."""
    upload = draft.created(DATA[:2], "Upload-Length: 10")
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 8"
    draft.open("PATCH", f"/files/{upload}", appending(2, complete, framing))
    draft.send(b"5\r\n23456\r\n" if chunked else DATA[2:7])
    draft.lose()
    assert again(draft).head(upload).state == (204, "?0", "7")
    assert again(draft).patch(upload, 7, DATA[7:], "?1").status == 200
    assert draft.file(upload) == DATA


def test_a_kill_after_the_last_byte_of_a_part_doesn_t_complete_it(draft: Draft) -> None:
    """R32: bytes that a start finds after a crash complete nothing that their request hasn't."""
    size = 100_000
    upload = draft.created(b"", f"Upload-Length: {size}")
    draft.open("PATCH", f"/files/{upload}", appending(0, "?0", "Transfer-Encoding: chunked"))
    draft.send(b"%x\r\n" % size + bytes(size) + b"\r\n")
    machine = draft.server.machine
    draft.server.bury()
    server = Server(machine.after_kill()).start()
    after = Draft(server)
    status, complete, offset = after.head(upload).state
    assert (status, complete) == (204, "?0")
    assert Draft(server, None).tell("GET", f"/files/{upload}").status == 404
    assert after.patch(upload, int(offset or 0), bytes(size - int(offset or 0)), "?1").status == 200
    assert after.file(upload) == bytes(size)
    server.bury()


def test_the_last_append_is_answered_as_the_creation_would_be(draft: Draft) -> None:
    """R33: ?1 processed: the answer that the target would give, MUST carry ?1."""
    whole = draft.post(DATA, "?1")
    upload = draft.created(DATA[:5])
    said = draft.patch(upload, 5, DATA[5:], "?1")
    assert (said.status, said.get("Upload-Complete")) == (whole.status, "?1") == (200, whole.get("Upload-Complete"))
    assert said.final is not None and said.final.body == b""


def test_a_part_is_acknowledged(draft: Draft) -> None:
    """R34: ?0 processed: 2xx with ?0."""
    upload = draft.created()
    for at in range(len(DATA)):
        said = draft.patch(upload, at, DATA[at : at + 1], "?0")
        assert (said.status, said.get("Upload-Complete")) == (204, "?0")
    assert draft.head(upload).state == (204, "?0", "10")


@pytest.mark.parametrize("length", [(), ("Upload-Length: 10",)])
def test_an_empty_content_completes(draft: Draft, length: tuple[str, ...]) -> None:
    """R35: ?1 with an empty content completes."""
    upload = draft.created(DATA, *length)
    assert draft.patch(upload, 10, b"", "?0").status == 204
    assert draft.patch(upload, 10, b"", "?1").state[:2] == (200, "?1")
    assert draft.head(upload).get("Upload-Length") == "10"
    assert draft.file(upload) == DATA


def test_progress_of_an_append_has_no_location() -> None:
    """R36: SHOULD be told by 104s with Upload-Offset, which MUST NOT carry Location."""
    size = 8 << 20
    with serving() as server:
        draft = Draft(server)
        upload = draft.created()
        draft.open("PATCH", f"/files/{upload}", appending(0, "?1", f"Content-Length: {size}"))
        said = b""
        for _ in range(64):
            draft.send(bytes(size // 64))
            server.advance(0.25)
            server.tick()
            said += draft.wire.value()
            draft.wire.clear()
        told = Said(said)
        assert told.status == 200 and told.progress and told.progress == sorted(told.progress)
        assert 0 < len(told.progress) <= 32 and told.named is None


def test_who_missed_the_last_answer_learns_that_it_is_complete(draft: Draft) -> None:
    """R37: the server MAY replay the final response; HEAD says that the upload is complete in any case."""
    upload = draft.created(DATA[:5])
    assert draft.patch(upload, 5, DATA[5:], "?1").status == 200
    assert again(draft).head(upload).state == (204, "?1", "10")
    said = again(draft).patch(upload, 10, b"", "?1")
    assert (said.status, said.get("Upload-Complete")) == (200, "?1")
    assert again(draft).patch(upload, 10, b"", "?1", "Upload-Length: 11").status == 400


# cancellation and concurrency


def test_a_cancellation_frees_everything_and_ends_what_is_under_way(draft: Draft) -> None:
    """R39: SHOULD deactivate and end transfers under way first; 204."""
    upload = draft.created()
    under_way(draft, upload, DATA[:5])
    said = again(draft).delete(upload)
    assert said.status == 204 and said.final is not None and said.final.body == b""
    assert hung_up(draft)
    assert again(draft).head(upload).status == 410
    assert again(draft).delete(upload).status == 410
    assert upload not in draft.server.names()


def test_a_finished_upload_can_be_cancelled_too(draft: Draft) -> None:
    """R39: whoever cancels wants it gone."""
    upload = upload_id(draft.post(DATA, "?1"))
    assert draft.delete(upload).status == 204
    assert draft.head(upload).status == 410


@pytest.mark.parametrize("first", [b"", DATA[:5]])
def test_two_appends_at_once_don_t_mix(draft: Draft, first: bytes) -> None:
    """R40: no race, no loss, no corruption: one of them is refused or ended; the file is that of the other."""
    upload = draft.created()
    under_way(draft, upload, first)
    other = again(draft)
    said = other.patch(upload, len(first), b"x" * (10 - len(first)), "?1")
    draft.server.advance(2.0)
    final = said if said.status else other.heard()
    draft.send(DATA[len(first) :])
    expected = DATA if final.status == 409 else first + b"x" * (10 - len(first))
    if final.status == 409:
        assert draft.heard().status == 200
    else:
        assert final.status == 200
    assert draft.file(upload) == expected


def test_a_refusal_while_another_append_is_under_way_tells_an_offset_that_is_right(draft: Draft) -> None:
    """R31 and R41: a client that sends again from the offset it knows, while the server still has its lost request,
    is told how far that has come: never the offset that it has just given."""
    upload = draft.created()
    under_way(draft, upload, DATA[:5])
    other = again(draft)
    said = other.patch(upload, 0, DATA, "?1")
    if said.status == 0:
        draft.server.advance(2.0)
        said = other.heard()
    assert said.state == (409, "?0", "5")
    assert (said.problem["expected-offset"], said.problem["provided-offset"]) == (5, 0)
    other = again(draft)
    done = other.patch(upload, 5, DATA[5:], "?1")
    if done.status == 0:
        draft.server.advance(2.0)
        done = other.heard()
    assert done.status == 200
    assert draft.file(upload) == DATA


def test_an_offset_that_was_told_is_accepted(draft: Draft) -> None:
    """R41: MUST NOT be outdated: the next append at it is taken, whatever was under way; R42: it ends that."""
    upload = draft.created()
    under_way(draft, upload, DATA[:5])
    other = again(draft)
    assert other.head(upload).state == (204, "?0", "5")
    draft.send(DATA[5:7])
    assert hung_up(draft)
    assert other.patch(upload, 5, DATA[5:], "?1").status == 200
    assert draft.file(upload) == DATA


def test_a_new_request_ends_the_transfer_before_it(draft: Draft) -> None:
    """R42: HEAD, PATCH and DELETE end the transfer before them, of a creation too; R43: HTTP/1.1 closes the
    connection."""
    draft.open("POST", "/files/", ("Upload-Complete: ?1", "Content-Length: 10"))
    upload = draft.announced().named
    assert upload is not None
    draft.send(DATA[:3])
    second = again(draft)
    assert second.head(upload).state == (204, "?0", "3")
    assert hung_up(draft)
    under_way_at(second, upload, 3, DATA[3:5])
    third = again(draft)
    said = third.patch(upload, 5, DATA[5:7], "?0")
    draft.server.advance(2.0)
    assert (said if said.status else third.heard()).status == 204
    assert second.wire.disconnecting
    under_way_at(third, upload, 7, DATA[7:8])
    assert again(draft).delete(upload).status == 204
    assert hung_up(third)


def under_way_at(draft: Draft, upload: str, offset: int, content: bytes) -> None:
    framing = f"Content-Length: {len(DATA) - offset}"
    draft.open("PATCH", f"/files/{upload}", appending(offset, "?1", framing), content)


# 104 and versions


@pytest.mark.parametrize("version", VERSIONS)
def test_a_100_is_sent_beside_the_104(draft: Draft, version: int) -> None:
    """R44: MUST NOT omit 100 because of 104."""
    draft.version = version
    word = "Upload-Incomplete: ?0" if version < 5 else "Upload-Complete: ?1"
    draft.open("POST", "/files/", (word, "Content-Length: 10", "Expect: 100-continue"))
    said = draft.announced()
    assert len(said.of(100)) == 1 and said.named and said.status == 0
    draft.send(DATA)
    assert draft.heard().status == 200


def test_without_a_matching_version_there_is_no_104(draft: Draft) -> None:
    """R45: MUST NOT send 104 without a matching version; all else works."""
    for version in (None, 0, 1, 2, 11, 30, "?1", '"10"', "10, 10", "ten", "9.0", "", "-9"):
        draft.version = version
        without_104(draft)


def without_104(draft: Draft) -> None:
    draft.open("POST", "/files/", ("Upload-Complete: ?0", "Content-Length: 5"))
    assert not draft.announced().interims
    draft.send(DATA[:5])
    said = draft.heard()
    assert said.status == 201 and not said.interims
    done = draft.patch(upload_id(said), 5, DATA[5:], "?1")
    assert done.status == 200 and not done.interims
    assert draft.file(upload_id(said)) == DATA


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_comes_back_in_each_104(draft: Draft, version: int) -> None:
    """R46: MUST echo the version in each 104."""
    draft.version = version
    word = "Upload-Incomplete: ?0" if version < 5 else "Upload-Complete: ?1"
    draft.open("POST", "/files/", (word, "Content-Length: 200000"), bytes(100_000))
    said = draft.announced()
    draft.server.advance(20.0)
    draft.server.tick()
    assert said.status == 0 and said.of(104)
    assert {each.get("Upload-Draft-Interop-Version") for each in said.of(104)} == {str(version)}


def test_a_client_of_http_1_0_gets_no_104(draft: Draft) -> None:
    """R45: nor does one that can't take any informational response (RFC 9110, section 15.2)."""
    draft.send(
        b"POST /files/ HTTP/1.0\r\nHost: t\r\nUpload-Draft-Interop-Version: 10\r\nUpload-Complete: ?1\r\n"
        b"Content-Length: 10\r\n\r\n" + DATA
    )
    said = draft.heard()
    assert said.status == 200 and not said.interims


def test_requests_that_come_pipelined_get_no_104_in_each_other_s_answers(draft: Draft) -> None:
    """R45: a 104 never stands where the answer to another request is due."""
    head = b"POST /files/ HTTP/1.1\r\nHost: t\r\nUpload-Draft-Interop-Version: 10\r\nUpload-Complete: ?1\r\n"
    one = head + b"Content-Length: 10\r\n\r\n" + DATA
    draft.send(one + one)
    first = draft.heard()
    assert first.status == 200 and first.final is not None
    second = Said(first.final.body)
    assert second.status == 200 and not second.interims


# coding and security


def test_offsets_count_coded_bytes_after_transfer_decoding(draft: Draft) -> None:
    """R47: Content-Encoding belongs to the bytes that are counted, Transfer-Encoding doesn't."""
    coded = gzip.compress(DATA * 20, mtime=0)
    half = len(coded) // 2
    upload = draft.created(coded[:half], "Content-Encoding: gzip", f"Upload-Length: {len(coded)}")
    assert draft.head(upload).get("Upload-Offset") == str(half)
    rest = coded[half:]
    chunks = b"%x\r\n%s\r\n" % (1, rest[:1]) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest) - 1, rest[1:])
    assert draft.patch(upload, half, chunks, "?1", "Transfer-Encoding: chunked").status == 200
    assert draft.head(upload).state == (204, "?1", str(len(coded)))
    assert draft.file(upload) == coded


class Doorkeeper:
    """Lets in who is on the list."""

    def __init__(self) -> None:
        self.listed = {"ann", "bob"}
        self.asked: list[AuthRequest] = []

    def authorize(self, ask: AuthRequest) -> Deferred[Principal]:
        self.asked.append(ask)
        who = ask.one("x-who")
        if who is None:
            return fail(Unauthorized("Who are you?", ['Bearer realm="resumable"']))
        return succeed(Principal(who)) if who in self.listed else fail(Forbidden("You are not on the list."))


@pytest.fixture
def doorkeeper() -> Doorkeeper:
    return Doorkeeper()


@pytest.fixture
def guarded(server: Server, doorkeeper: Doorkeeper) -> Draft:
    guard = AccessGuard(doorkeeper, server.catalog.owner_of, lambda: EPOCH)
    return Draft(server, admission=Admission(Origin("/files/", None, ()), guard))


def test_uploads_are_for_those_who_may(guarded: Draft) -> None:
    """R48: access to an upload's URI is authorised; a 104 comes after that, too."""
    said = guarded.post(DATA, "?0")
    assert said.status == 401 and not said.interims and not guarded.server.names()
    upload = guarded.created(DATA[:5], "X-Who: ann")
    path = f"/files/{upload}"
    for fields, status in (((), {401}), (("X-Who: bob",), {403, 404}), (("X-Who: eve",), {403})):
        for method, more in (("HEAD", ()), ("PATCH", appending(5, "?1")), ("DELETE", ())):
            assert guarded.tell(method, path, *fields, *more).status in status
    assert guarded.head(upload, "X-Who: ann").state == (204, "?0", "5")


@pytest.mark.parametrize("method", ["HEAD", "PATCH"])
def test_who_can_resume_hears_of_no_failure_to_ask_about_access(
    guarded: Draft, doorkeeper: Doorkeeper, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours that will pass is the end of an upload: not that nobody can be asked who may, either."""
    upload = guarded.created(DATA[:5], "X-Who: ann")
    monkeypatch.setattr(doorkeeper, "authorize", lambda _: fail(Unavailable("Nobody knows.", retry_after=5)))
    fields = ("X-Who: ann", *(appending(5, "?1") if method == "PATCH" else ()))
    with capturedLogs() as logged:
        guarded.open(method, f"/files/{upload}", fields, DATA[5:] if method == "PATCH" else b"")
        guarded.server.pump()
    assert hung_up(guarded)
    assert [(each["reason"], each["status"]) for each in logged if "not told" in each["log_format"]] == [
        ("Nobody knows.", 503)
    ], "the operator learns of it: the client and the access log don't"


def test_addresses_can_t_be_guessed_and_tell_nothing(draft: Draft) -> None:
    """R48: unguessable, and no internals in it; nor in refusals."""
    said = draft.post(DATA[:5], "?0")
    assert (said.get("Location") or "").endswith(f"/files/{upload_id(said)}") and len(upload_id(said)) >= 22
    for refused in (again(draft).patch(upload_id(said), 0, b"x", "?1"), again(draft).head("f" * 32)):
        assert refused.final is not None and b"/up" not in refused.final.body and b".py" not in refused.final.body


def test_who_may_no_longer_upload_can_t_finish(guarded: Draft, doorkeeper: Doorkeeper) -> None:
    """R49: whether the client may is checked again at the end."""
    upload = guarded.created(DATA[:5], "X-Who: ann")
    doorkeeper.listed.remove("ann")
    assert guarded.patch(upload, 5, DATA[5:], "?1", "X-Who: ann").status == 403
    doorkeeper.listed.add("ann")
    other = Draft(guarded.server)
    assert other.head(upload).state == (204, "?0", "5")


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_digests_are_verified(draft: Draft, algorithm: str) -> None:
    """R50: RFC 9530's digests are an extension of ours: Content-Digest and Repr-Digest."""

    def digest(data: bytes) -> str:
        return f"{algorithm}=:{b64encode(hashlib.new(algorithm.replace('-', ''), data).digest()).decode()}:"

    said = again(draft).post(DATA, "?1", f"Content-Digest: {digest(b'other')}")
    assert said.status == 400 and "digest" in said.problem["type"]
    good = draft.post(DATA, "?1", f"Content-Digest: {digest(DATA)}", f"Repr-Digest: {digest(DATA)}")
    assert good.status == 200
    assert draft.file(upload_id(good)) == DATA

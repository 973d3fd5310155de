"""Digests of whole uploads: those that clients announce keep wrong bytes from being finished, others are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from attrs import evolve

from resumable.model.hooks import QuestionKind
from resumable.model.upload import FactKind
from resumable.protocol import digests
from resumable.protocol.digests import RequestDigests
from resumable.protocol.errors import ChecksumMismatch, DigestMismatch
from resumable.uploads import digesting
from resumable.uploads.digest_rules import STEP, DigestRules
from tests.uploads.digested import content, text, whole
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, Server, pattern, sha1, told
from tests.uploads.machine import Machine

MADE = DigestRules("sha-256")
SIZES = [0, 1, 5000, LONG, 3 * LONG]


# Content-Digest


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_a_body_with_its_digest_is_kept(server: Server, way: None, size: int, algorithm: str) -> None:
    data = pattern(size)
    upload_id = server.create(size).value.id
    assert server.patch(upload_id, 0, data, digests=content(data, algorithm)).value.offset == size
    assert server.row(upload_id).finished and server.content(upload_id) in (data, None if size == 0 else data)


@pytest.mark.parametrize("size", SIZES[1:])
def test_of_a_body_with_another_digest_nothing_is_kept(server: Server, size: int) -> None:
    data = pattern(size)
    upload_id = server.create(size + 1).value.id
    answer = server.patch(upload_id, 0, data, digests=content(data + b"x"))
    assert isinstance(answer.error, DigestMismatch)
    assert answer.error.type == "https://iana.org/assignments/http-problem-types#digest-mismatching-values"
    assert server.head(upload_id).value.offset == 0
    assert server.patch(upload_id, 0, data, digests=content(data)).value.offset == size


def test_a_body_that_was_cut_off_is_not_kept_without_its_end(server: Server) -> None:
    data = pattern(3 * LONG)
    upload_id = server.create(len(data)).value.id
    body = FakeBody(len(data))
    server.patch(upload_id, 0, body, digests=content(data))
    body.arrive(data[: 2 * LONG])
    server.pump()
    body.lose()
    server.pump()
    assert server.head(upload_id).value.offset == 0


@pytest.mark.parametrize("size", [5000, LONG])
@pytest.mark.parametrize(("right", "true"), [(False, True), (True, False), (True, True)])
def test_a_checksum_and_a_digest_both_have_to_hold(server: Server, size: int, right: bool, true: bool) -> None:
    data = pattern(size)
    upload_id = server.create(size).value.id
    said = content(data if true else data + b"x")
    answer = server.patch(upload_id, 0, data, checksum=sha1(data if right else data + b"x"), digests=said)
    if right and true:
        assert answer.value.offset == size
    else:
        assert isinstance(answer.error, DigestMismatch if right else ChecksumMismatch)
        assert server.head(upload_id).value.offset == 0


@pytest.mark.parametrize("size", [5000, LONG])
def test_of_two_digests_of_a_body_both_have_to_hold(server: Server, size: int) -> None:
    data = pattern(size)
    upload_id = server.create(size).value.id
    said = RequestDigests((*content(data).content, *content(data + b"x", "sha-512").content))
    assert isinstance(server.patch(upload_id, 0, data, digests=said).error, DigestMismatch)


def test_a_creation_whose_body_has_another_digest_makes_nothing(server: Server) -> None:
    answer = server.create(10, FakeBody.whole(b"0123456789"), digests=content(b"other"))
    assert isinstance(answer.error, DigestMismatch) and answer.cut is None
    assert server.names() == set()


# What a client announces


@pytest.mark.parametrize("size", SIZES)
def test_an_upload_in_one_request_that_is_as_announced_is_finished(serve, way: None, size: int) -> None:
    server, data = serve(deliverers=["outside"]), pattern(size)
    upload_id = server.create(size, FakeBody.whole(data), digests=whole(data)).value.id
    row = server.row(upload_id)
    assert row.finished and row.offset == size
    assert row.announced == row.digest == text(data)
    finished = told(server, "outside")[-1]
    assert finished.kind is FactKind.FINISHED and finished.data["digest"] == text(data)


@pytest.mark.parametrize("cut", [1, LONG, 2 * LONG + 1])
def test_so_is_one_in_several_requests(server: Server, cut: int) -> None:
    data = pattern(3 * LONG)
    upload_id = server.create(len(data), digests=whole(data, "sha-256", "sha-512")).value.id
    server.patch(upload_id, 0, data[:cut]).value  # noqa: B018
    assert server.patch(upload_id, cut, data[cut:]).value.offset == len(data)
    row = server.row(upload_id)
    assert row.finished and row.digest == text(data, "sha-256", "sha-512")


def test_a_digest_may_be_announced_with_any_request(server: Server) -> None:
    data = pattern(10_000)
    upload_id = server.create(len(data)).value.id
    server.patch(upload_id, 0, data[:5000]).value  # noqa: B018
    assert server.patch(upload_id, 5000, data[5000:], digests=whole(data)).value.offset == len(data)
    assert server.row(upload_id).finished and server.row(upload_id).announced == text(data)


@pytest.mark.parametrize("size", [2, 5000, 3 * LONG])
@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("draft", [False, True])
def test_other_bytes_than_announced_are_never_finished(server: Server, size: int, cut: int, draft: bool) -> None:
    data = pattern(size)
    upload_id = server.create(size, digests=whole(data + b"x")).value.id
    if draft:
        made_by_draft(server, upload_id)
    if cut:
        server.patch(upload_id, 0, data[:cut]).value  # noqa: B018
    refusal = DigestMismatch if draft else ChecksumMismatch
    for offset in (cut, size - 1, size - 1):
        answer = server.patch(upload_id, offset, data[offset:])
        assert isinstance(answer.error, refusal) and answer.status == (400 if draft else 460)
        assert server.head(upload_id).value.offset == size - 1, "the last byte is withheld"
    row = server.row(upload_id)
    assert not row.finished and row.digest == text(data), "it is made once"
    assert server.delete(upload_id).done
    assert server.head(upload_id).status == 410


def made_by_draft(server: Server, upload_id: str) -> None:
    """As if the draft had made it."""
    get = server.catalog.get
    server.catalog.get = lambda wanted: get(wanted).addCallback(  # type: ignore[method-assign]
        lambda row: evolve(row, draft=True) if wanted == upload_id and row is not None else row
    )


@pytest.mark.parametrize("size", [0, 1, 5000, LONG])
def test_a_creation_with_other_bytes_is_refused_and_names_what_is_to_be_deleted(server: Server, size: int) -> None:
    data = pattern(size)
    answer = server.create(size, FakeBody.whole(data), digests=whole(data + b"x"))
    assert isinstance(answer.error, ChecksumMismatch) and answer.cut is not None
    assert answer.cut.offset == max(0, size - 1)
    assert not server.row(answer.cut.id).finished


def test_the_wrong_bytes_are_refused_by_the_next_run_too(machine: Machine, serve: Callable[..., Server]) -> None:
    server, data = serve(), pattern(3 * LONG)
    upload_id = server.create(len(data), digests=whole(data + b"x")).value.id
    assert server.patch(upload_id, 0, data).status == 460
    server.stop()
    again = serve(machine.after_kill())
    assert again.head(upload_id).value.offset == len(data) - 1
    assert again.patch(upload_id, len(data) - 1, data[-1:]).status == 460


def test_a_crash_before_the_comparison_finishes_nothing(machine: Machine, serve: Callable[..., Server]) -> None:
    server, data = serve(), pattern(3 * LONG)
    upload_id = server.create(len(data), digests=whole(data + b"x")).value.id
    server.write_uncommitted(upload_id, data)
    server.bury()
    again = serve(machine.after_kill())
    assert again.head(upload_id).value.offset == len(data) - 1
    assert not again.row(upload_id).finished
    assert again.patch(upload_id, len(data) - 1, data[-1:]).status == 460


def test_another_announcement_is_refused_before_a_byte_is_taken(server: Server) -> None:
    data = pattern(100)
    upload_id = server.create(100, digests=whole(data)).value.id
    answer = server.patch(upload_id, 0, data, digests=whole(b"other"))
    assert isinstance(answer.error, DigestMismatch)
    assert server.head(upload_id).value.offset == 0
    assert server.patch(upload_id, 0, data, digests=whole(data)).value.offset == 100


def test_one_by_another_algorithm_is_added(server: Server) -> None:
    data = pattern(100)
    upload_id = server.create(100, digests=whole(data)).value.id
    assert server.patch(upload_id, 0, data, digests=whole(data + b"x", "sha-512")).status == 460
    assert server.patch(upload_id, 99, data[99:], digests=whole(data + b"x", "sha-512")).status == 460
    assert set(digests.read(server.row(upload_id).announced)) == {"sha-256", "sha-512"}


def test_hooks_are_asked_only_about_the_right_bytes(hooked) -> None:
    server = hooked(QuestionKind.FINISH)
    wrong = server.create(10, FakeBody.whole(b"0123456789"), digests=whole(b"other"))
    assert wrong.status == 460 and server.hooks.asked == []
    right = server.create(10, FakeBody.whole(b"0123456789"), digests=whole(b"0123456789"))
    assert right.value.offset == 10
    assert [kind for kind, *_ in server.hooks.asked] == [QuestionKind.FINISH]


def test_a_client_that_asks_again_meanwhile_waits_for_the_same_reading(server: Server) -> None:
    data = pattern(3 * LONG)
    upload_id = server.create(len(data), digests=whole(data)).value.id
    server.patch(upload_id, 0, data[:LONG]).value  # noqa: B018
    with held(server) as go:
        first = server.patch(upload_id, LONG, data[LONG:])
        assert not first.done and server.head(upload_id).value.offset == len(data) - 1
        second = server.patch(upload_id, len(data) - 1, data[-1:])
        assert not second.done
        go()
    server.pump()
    assert first.value.offset == second.value.offset == len(data)


def test_an_upload_that_is_deleted_meanwhile_is_not_read_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(3 * LONG)
    upload_id = server.create(len(data), digests=whole(data)).value.id
    server.patch(upload_id, 0, data[:LONG]).value  # noqa: B018
    with held(server) as go:
        answer = server.patch(upload_id, LONG, data[LONG:])
        assert server.delete(upload_id).done
        go()
    server.pump()
    assert answer.error is not None and server.head(upload_id).status == 410


class held:
    """Hashing for requests waits for its turn until told."""

    def __init__(self, server: Server) -> None:
        self.turns = server.context.digests.turns
        self.server = server

    def __enter__(self) -> Callable[[], None]:
        for _ in range(self.turns.limit):
            assert self.turns.acquire().called
        return self.go

    def __exit__(self, *_: object) -> None: ...

    def go(self) -> None:
        for _ in range(self.turns.limit):
            self.turns.release()
        self.server.pump()


# Final uploads


def partials(server: Server, *pieces: bytes) -> list[str]:
    return [server.upload(each, partial=True) for each in pieces]


def test_a_final_that_is_as_announced_is_finished(server: Server) -> None:
    final = server.concat(*partials(server, b"abc", b"defg"), digests=whole(b"abcdefg")).value
    assert final.finished and server.row(final.id).digest == text(b"abcdefg")


def test_a_final_of_other_bytes_is_refused_and_ended(server: Server) -> None:
    ids = partials(server, b"abc", b"defg")
    answer = server.concat(*ids, digests=whole(b"other"))
    assert isinstance(answer.error, ChecksumMismatch)
    assert server.concat(*ids).value.finished, "the same request without it begins anew"


# --digest


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_an_upload_in_one_request_is_finished_with_its_digest(serve, way: None, size: int, algorithm: str) -> None:
    server = serve(digests=DigestRules(algorithm), deliverers=["outside"])
    data = pattern(size)
    upload_id = server.create(size).value.id
    assert server.patch(upload_id, 0, data).value.offset == size
    row = server.row(upload_id)
    assert row.finished and row.digest == text(data, algorithm) and row.digest_due is None
    assert told(server, "outside")[-1].data["digest"] == row.digest
    assert server.uploads.digester.made == 0, "nothing is read once more"


def test_a_long_body_is_committed_as_it_comes_all_the_same(serve) -> None:
    server, data = serve(digests=MADE), pattern(3 * LONG)
    upload_id = server.create(len(data)).value.id
    body = FakeBody(len(data))
    server.patch(upload_id, 0, body)
    body.arrive(data[: 2 * LONG])
    server.advance(12)
    server.tick()
    assert server.row(upload_id).offset == 2 * LONG
    body.arrive(data[2 * LONG :])
    server.pump()
    assert server.row(upload_id).digest == text(data)


def test_commits_along_the_way_leave_the_digest_to_the_last_one(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable.uploads.append.PART", LONG)
    server, data = serve(digests=MADE), pattern(3 * LONG)
    commits: list[tuple[int, bool]] = []
    commit = server.catalog.commit

    def seen(change, through=None):
        commits.append((change.offset, change.finished))
        return commit(change, through)

    monkeypatch.setattr(server.catalog, "commit", seen)
    upload_id = server.create(len(data)).value.id
    body = FakeBody(len(data))
    answer = server.patch(upload_id, 0, body)
    for start in range(0, len(data), LONG):
        body.arrive(data[start : start + LONG])
        for _ in range(20):
            if server.clock.getDelayedCalls():
                server.pump()
    assert answer.value.offset == len(data)
    assert commits[-1] == (len(data), True) and len([each for each in commits if each[1]]) == 1
    assert server.row(upload_id).digest == text(data)


def test_one_in_several_requests_gets_it_after_the_finish(serve) -> None:
    server, data = serve(digests=MADE, deliverers=["outside"]), pattern(3 * LONG)
    upload_id = server.create(len(data)).value.id
    server.patch(upload_id, 0, data[:LONG]).value  # noqa: B018
    server.patch(upload_id, LONG, data[LONG:]).value  # noqa: B018
    server.pump()
    assert server.row(upload_id).digest == text(data) and server.row(upload_id).digest_due is None
    assert server.uploads.digester.made == 1
    assert "digest" not in told(server, "outside")[-1].data, "it wasn't known at the finish"


def test_so_does_a_final_but_no_partial(serve) -> None:
    server = serve(digests=MADE)
    ids = partials(server, b"abc", b"defg")
    final = server.concat(*ids).value
    server.pump()
    assert [server.row(each).digest for each in ids] == [None, None]
    assert server.row(final.id).digest == text(b"abcdefg")


def test_what_a_run_leaves_is_made_by_the_next(machine: Machine, serve: Callable[..., Server]) -> None:
    server, data = serve(digests=MADE), pattern(3 * LONG)
    upload_id = server.create(len(data)).value.id
    server.patch(upload_id, 0, data[:LONG]).value  # noqa: B018
    server.uploads.digester._background.stopping = True
    server.patch(upload_id, LONG, data[LONG:]).value  # noqa: B018
    assert server.row(upload_id).digest_due == "sha-256"
    server.bury()
    again = serve(machine.after_kill(), digests=MADE)
    assert again.row(upload_id).digest == text(data)


def test_without_the_option_nothing_is_made(server: Server) -> None:
    upload_id = server.upload(pattern(5000))
    row = server.row(upload_id)
    assert (row.digest, row.digest_due, row.announced) == (None, None, None)


def test_a_file_that_fails_is_tried_again_later(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, data = serve(digests=MADE), pattern(2 * LONG)
    upload_id = server.create(len(data)).value.id
    server.patch(upload_id, 0, data[:LONG]).value  # noqa: B018
    reads = server.spool.reader
    calls: list[str] = []

    def fails(wanted: str):
        calls.append(wanted)
        raise OSError(5, "no")

    monkeypatch.setattr(server.spool, "reader", fails)
    server.patch(upload_id, LONG, data[LONG:]).value  # noqa: B018
    server.pump()
    server.sweep()
    assert calls == [upload_id] and server.row(upload_id).digest_due == "sha-256"
    monkeypatch.setattr(server.spool, "reader", reads)
    server.advance(digesting.SOONEST)
    server.sweep()
    server.pump()
    assert server.row(upload_id).digest == text(data)


def test_more_than_a_step_is_read_in_steps(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable.uploads.digest_rules.STEP", LONG)
    server, data = serve(digests=MADE), pattern(3 * LONG + 7)
    upload_id = server.create(len(data)).value.id
    server.patch(upload_id, 0, data[:LONG]).value  # noqa: B018
    server.patch(upload_id, LONG, data[LONG:]).value  # noqa: B018
    server.pump()
    assert server.row(upload_id).digest == text(data)
    assert STEP == 4 << 20


def test_both_an_announced_and_a_wanted_digest_are_made(serve) -> None:
    server, data = serve(digests=MADE), pattern(3 * LONG)
    for cut in (0, LONG):
        upload_id = server.create(len(data), digests=whole(data, "sha-512")).value.id
        if cut:
            server.patch(upload_id, 0, data[:cut]).value  # noqa: B018
        assert server.patch(upload_id, cut, data[cut:]).value.offset == len(data)
        assert server.row(upload_id).digest == text(data, "sha-256", "sha-512")
    assert hashlib.sha256(data).digest() == digests.read(server.row(upload_id).digest)["sha-256"]

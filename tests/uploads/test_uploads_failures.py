"""What a failing disk, a failing catalog, a lost file, a stop and a disconnect make of a request."""

from __future__ import annotations

import errno
from base64 import b64encode

import pytest
from twisted.internet.defer import CancelledError, Deferred

from resumable.model.upload import GoneReason, Upload
from resumable.protocol.errors import BadRequest, Gone, Held, NoSpace, NotFound, Stopping, TusError, Unavailable
from resumable.uploads.context import as_answer
from resumable.uploads.uploads import shielded
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, UPLOADS, Server, pattern, sha1

DATA = pattern(LONG)
BIG = 1 << 32

ERRORS = [
    (errno.EIO, 503, Unavailable),
    (errno.ENOSPC, 507, NoSpace),
    (errno.EDQUOT, 507, NoSpace),
    (errno.EMFILE, 503, Unavailable),
    (errno.ENFILE, 503, Unavailable),
    (errno.EROFS, 503, Unavailable),
    (errno.EACCES, 503, Unavailable),
]


# the disk


@pytest.mark.parametrize("number,status,kind", ERRORS)
@pytest.mark.parametrize("operation", ["open", "writev", "fdatasync"])
@pytest.mark.parametrize("size", [10, LONG], ids=["small", "long"])
def test_a_write_or_sync_that_fails_is_answered_and_the_upload_goes_on_from_its_offset(
    server, operation, number, status, kind, size
):
    """No space (ENOSPC, EDQUOT): 507 on PATCH, bytes kept, Retry-After. Writing or syncing that fails poisons the open
    file: nothing past the committed offset is trusted, the file is opened anew and truncated to it."""
    upload_id = server.upload(b"before", length=BIG)
    server.disk.fail_next(operation, number)
    answer = server.patch(upload_id, 6, pattern(size))
    assert type(answer.error) is kind
    assert answer.status == status
    assert int(answer.error.headers["Retry-After"]) > 0
    assert server.head(upload_id).value.offset == 6
    assert server.disk.open_files == 0
    assert server.patch(upload_id, 6, b" and after").value.offset == 16
    assert server.content(upload_id) == b"before and after"


@pytest.mark.parametrize("how", ["header", "trailer", "late trailer"])
@pytest.mark.parametrize("operation", ["open", "writev", "fdatasync"])
def test_a_disk_that_fails_is_not_taken_for_a_wrong_checksum(server, operation, how):
    """Mismatch 460 is for the client's mistakes; a disk's failure is ours, and the same bytes are welcome again."""
    upload_id = server.create(BIG).value.id
    body = FakeBody(None)
    answer = server.patch(
        upload_id, 0, body, checksum=sha1(DATA) if how == "header" else None, trailer=how == "trailer"
    )
    server.disk.fail_next(operation, errno.EIO)
    body.arrive(DATA)
    body.end({} if how == "header" else {"upload-checksum": f"sha1 {b64encode(sha1(DATA).digest).decode()}"})
    server.pump()
    assert isinstance(answer.error, Unavailable)
    assert server.head(upload_id).value.offset == 0
    assert server.patch(upload_id, 0, DATA, checksum=sha1(DATA)).value.offset == LONG


@pytest.mark.parametrize("size", [10, LONG])
def test_a_sync_that_failed_is_not_repeated_to_commit_the_same_bytes(server, size):
    """The sync is never repeated to commit the same bytes (after EIO the pages may be gone)."""
    upload_id, body, _answer = _under_way(server)
    body.arrive(pattern(size))
    server.disk.fail_next("fdatasync", errno.EIO)
    server.machine.trace.clear()
    body.lose()
    server.pump()
    assert server.machine.trace.count("fdatasync") == 1
    assert server.head(upload_id).value.offset == 0
    assert server.patch(upload_id, 0, b"again").value.offset == 5
    assert server.content(upload_id) == b"again"


def test_what_was_committed_before_a_failure_stays(server):
    """Nothing past the committed offset is trusted, and everything below it is."""
    upload_id, body, answer = _under_way(server)
    body.arrive(DATA)
    assert server.head(upload_id).value.offset == LONG
    server.disk.fail_next("writev", errno.ENOSPC)
    body.arrive(DATA)
    server.pump()
    assert isinstance(answer.error, NoSpace)
    assert body.discarded
    assert server.head(upload_id).value.offset == LONG
    assert server.content(upload_id) == DATA


@pytest.mark.parametrize("operation", ["open", "writev", "fdatasync", "sync_directory"])
@pytest.mark.parametrize("size", [10, LONG], ids=["small", "long"])
@pytest.mark.parametrize("number,status", [(errno.EIO, 503), (errno.ENOSPC, 507)])
def test_a_creation_that_fails_on_the_disk(server, operation, size, number, status):
    """No space: 507 on POST; a small one was never there, a long one can be resumed at its Location."""
    server.disk.fail_next(operation, number)
    answer = server.create(size, FakeBody.whole(pattern(size)))
    assert answer.status == status
    assert (answer.cut is not None) == (size == LONG)
    if answer.cut is not None:
        assert server.head(answer.cut.id).value.offset == 0
        assert server.patch(answer.cut.id, 0, pattern(size)).value.finished
        assert server.content(answer.cut.id) == pattern(size)
    else:
        assert server.names() == set()


def test_of_appends_that_are_synced_together_only_the_failed_one_fails(server):
    """One writer serves the small steps: they share a round, not a fate."""
    ids = [server.create(10).value.id for _ in range(3)]
    bodies = [FakeBody(10) for _ in ids]
    answers = [server.patch(upload_id, 0, body) for upload_id, body in zip(ids, bodies, strict=True)]
    server.disk.fail_next("fdatasync", errno.EIO, after=1)
    for body in bodies:
        body.arrive(b"0123456789")
    server.pump()
    assert [answer.status for answer in answers] == [None, 503, None]
    assert [server.head(upload_id).value.offset for upload_id in ids] == [10, 0, 10]


def test_a_close_that_fails_takes_nothing_back(server):
    upload_id = server.create(LONG).value.id
    server.disk.fail_next("close", errno.EIO)
    assert server.patch(upload_id, 0, DATA).value.finished
    assert server.head(upload_id).value.offset == LONG


def test_a_rollback_that_cannot_truncate_is_made_good_by_the_next_append(server):
    """Every new append first truncates the file to the committed offset, whatever an earlier one left there."""
    upload_id = server.create(BIG).value.id
    server.disk.fail_next("truncate", errno.EIO)
    answer = server.patch(upload_id, 0, DATA, checksum=sha1(b"other"))
    assert answer.status == 460
    assert server.content(upload_id) == DATA  # it is there, and counts for nothing
    assert server.head(upload_id).value.offset == 0
    assert server.patch(upload_id, 0, b"right").value.offset == 5
    assert server.content(upload_id) == b"right"


def test_delete_works_on_a_full_disk(server):
    """No space: DELETE works."""
    upload_id = server.upload(b"data")
    server.machine.fail_commit(full=True)
    assert server.delete(upload_id).error is None
    assert server.names() == set()


def test_a_delete_whose_file_cannot_be_removed_is_made_good_by_the_janitor(server):
    upload_id = server.upload(b"data")
    server.disk.fail_next("unlink", errno.EIO)
    assert server.delete(upload_id).status == 503
    assert isinstance(server.head(upload_id).error, Gone)
    server.sweep()
    assert server.names() == set()


# the reserve


def test_the_reserve_refuses_new_bytes_and_keeps_the_old(serve):
    """No space (reserve reached): 507 on POST and PATCH, bytes kept, Retry-After; DELETE works."""
    server = serve(reserve=1000)
    upload_id, body, answer = _under_way(server)
    server.disk.free_bytes = 1000 + LONG
    server.ask(server.context.space.look(server.spool))
    body.arrive(DATA[:-1])
    server.pump()
    assert not answer.done
    body.arrive(DATA[-1:])
    server.pump()
    assert isinstance(answer.error, NoSpace)
    assert server.head(upload_id).value.offset == LONG
    assert server.patch(upload_id, LONG, b"x").status == 507
    assert server.create(10, FakeBody.whole(bytes(10))).status == 507
    assert server.create(10).status == 507
    assert server.patch(upload_id, LONG).value.offset == LONG  # nothing comes in by this
    assert server.delete(upload_id).error is None
    server.disk.free_bytes = 1 << 30
    server.ask(server.context.space.look(server.spool))
    assert server.create(10, FakeBody.whole(bytes(10))).value.finished


def test_without_a_reserve_the_disk_itself_judges(server):
    server.disk.free_bytes = 0
    server.ask(server.context.space.look(server.spool))
    assert server.upload(b"data")


# the catalog


@pytest.mark.parametrize("size", [10, LONG], ids=["small", "long"])
@pytest.mark.parametrize("full,status", [(False, 503), (True, 507)])
@pytest.mark.parametrize("after", [0, 1])
def test_a_commit_that_the_catalog_refuses_is_not_acknowledged(server, size, full, status, after):
    """The catalog can't take the change: nothing is acknowledged, and the upload goes on from what is proven."""
    upload_id = server.upload(b"before", length=BIG)
    server.machine.fail_commit(full=full, after=after, times=9)
    answer = server.patch(upload_id, 6, pattern(size))
    server.machine.commit_faults.clear()
    if after and size == 10:
        assert answer.value.offset == 16
        return
    assert answer.status == status
    assert server.head(upload_id).value.offset == 6
    assert server.patch(upload_id, 6, b" and after").value.offset == 16
    assert server.content(upload_id) == b"before and after"


@pytest.mark.parametrize("size", [10, LONG], ids=["small", "long"])
def test_a_commit_that_failed_but_landed_is_read_back(server, size):
    """A failed catalog commit is read back before anything is answered."""
    upload_id = server.upload(b"before", length=BIG)
    server.machine.fail_commit(landed=True, times=2)
    assert server.patch(upload_id, 6, pattern(size)).value.offset == 6 + size
    assert server.head(upload_id).value.offset == 6 + size


@pytest.mark.parametrize("size", [0, 10, LONG])
@pytest.mark.parametrize("full,status", [(False, 503), (True, 507)])
def test_a_creation_that_the_catalog_refuses(server, size, full, status):
    server.machine.fail_commit(full=full, times=9)
    body = FakeBody.whole(pattern(size)) if size else None
    answer = server.create(size if size else 10, body)
    server.machine.commit_faults.clear()
    assert answer.status == status
    assert answer.cut is None


def test_a_live_append_outlives_a_catalog_that_fails_for_a_moment(server):
    """HEAD can't be answered then; the append goes on and commits later."""
    upload_id, body, answer = _under_way(server)
    body.arrive(DATA)
    server.pump()
    server.machine.fail_commit(times=1)
    assert isinstance(server.head(upload_id).error, Unavailable)
    assert not answer.done
    assert server.head(upload_id).value.offset == LONG
    body.lose()
    server.pump()
    assert server.head(upload_id).value.offset == LONG


@pytest.mark.parametrize("size", [10, LONG], ids=["small", "long"])
def test_an_append_that_another_writer_has_overtaken_changes_nothing(server, size):
    """Offset commits are compare-and-set on (offset, hold epoch)."""
    upload_id, body, answer = _under_way(server)
    body.arrive(pattern(size))
    server.pump()
    row = server.row(upload_id)
    assert server.ask(server.catalog.begin(upload_id, row.epoch, 0, "elsewhere", BIG, 0.0)).value
    body.lose()
    server.pump()
    assert isinstance(answer.error, Held)
    assert server.row(upload_id).offset == 0


@pytest.mark.parametrize("size", [10, LONG], ids=["small", "long"])
def test_an_append_whose_upload_goes_away_is_410(server, size):
    upload_id, body, answer = _under_way(server, size)
    server.ask(server.catalog.end(upload_id, GoneReason.EXPIRED, 0.0, []))
    body.arrive(pattern(size))
    server.pump()
    assert isinstance(answer.error, Gone)


def test_an_id_that_was_taken_is_refused(serve):
    """Ids: one given is validated and must be new."""
    server = serve(new_id=lambda: "f" * 32)
    assert server.create(10).error is None
    assert isinstance(server.create(10).error, BadRequest)
    assert isinstance(server.create(10, FakeBody.whole(bytes(10))).error, TusError)


# a lost data file


@pytest.mark.parametrize("left", [None, 3])
@pytest.mark.parametrize("ask", ["head", "patch", "long patch", "read"])
def test_an_upload_whose_data_is_lost_answers_410(server, ask, left):
    """Never a wrong byte acknowledged: a file that is missing or shorter than its offset makes the upload gone."""
    upload_id = server.upload(b"before", length=6 if ask == "read" else BIG)
    path = f"{UPLOADS}/{upload_id}"
    if left is None:
        server.disk.unlink(path)
    else:
        fd = server.disk.open(path)
        server.disk.truncate(fd, left)
        server.disk.close(fd)
    if ask == "head":
        answer = server.head(upload_id)
    elif ask == "read":
        answer = server.ask(server.uploads.read(upload_id))
    else:
        answer = server.patch(upload_id, 6, pattern(10 if ask == "patch" else LONG))
    assert isinstance(answer.error, Gone)
    assert server.row(upload_id).gone is GoneReason.LOST
    assert isinstance(server.head(upload_id).error, Gone)
    server.sweep()
    # what is left is never deleted for it
    assert server.content(upload_id) == (None if left is None else b"bef")


def test_what_is_unknown_is_404_and_what_is_gone_is_410(server):
    """Expired or terminated, still remembered: 410; unknown: 404. Before anything else is looked at."""
    unknown = "0" * 32
    gone = server.upload(b"data")
    server.delete(gone)
    for upload_id, kind in ((unknown, NotFound), (gone, Gone)):
        assert type(server.head(upload_id).error) is kind
        assert type(server.patch(upload_id, 3, b"x").error) is kind
        assert type(server.delete(upload_id).error) is kind
        malformed = server.ask(server.uploads.append(upload_id, BadRequest("bad"), FakeBody(1)))
        assert type(malformed.error) is kind
    assert server.context.holds.held(unknown) is False


def test_a_malformed_patch_is_told_so_once_its_upload_is_there(server):
    upload_id = server.upload(b"data", length=10)
    error = BadRequest("Upload-Offset is missing.")
    assert server.ask(server.uploads.append(upload_id, error, FakeBody(1))).error is error


# stop


@pytest.mark.parametrize("size", [10, LONG], ids=["small", "long"])
def test_a_stop_commits_what_was_received_and_answers_503(server, size):
    """Server stopping: requests under way: received bytes committed, PATCH 503 with Retry-After, HEAD answered."""
    upload_id, body, answer = _under_way(server)
    body.arrive(pattern(size))
    stopped = server.ask(server.uploads.stop())
    assert stopped.done
    assert isinstance(answer.error, Stopping)
    assert answer.error.headers["Retry-After"]
    assert server.head(upload_id).value.offset == size
    assert isinstance(server.patch(upload_id, size, b"x").error, Stopping)
    assert isinstance(server.create(1).error, Stopping)
    assert isinstance(server.concat(upload_id).error, Stopping)


def test_a_stop_answers_creations_with_their_location(server):
    """The same for POST bodies, once the upload is there."""
    answer = server.create(BIG, FakeBody(BIG).arrive(DATA))
    server.ask(server.uploads.stop())
    assert isinstance(answer.error, Stopping)
    assert answer.cut.offset == LONG
    assert server.head(answer.cut.id).value.offset == LONG


def test_a_stop_answers_those_who_wait_for_a_hold(server):
    upload_id = server.create(100).value.id
    answers = [server.patch(upload_id, 0, FakeBody(100)) for _ in range(3)]
    assert server.ask(server.uploads.stop()).done
    assert [type(answer.error) for answer in answers] == [Stopping] * 3


def test_a_stop_waits_for_the_last_commit(server):
    _upload_id, body, _answer = _under_way(server)
    body.arrive(DATA)
    stopped: list[object] = []
    Deferred.fromCoroutine(server.uploads.stop()).addBoth(stopped.append)
    assert stopped == []
    server.pump()
    assert stopped == [None]
    assert server.disk.open_files == 0


# disconnects and the shield


def test_a_client_that_is_gone_does_not_cancel_the_commit(server):
    """Klein cancels the route's Deferred on disconnect: the commit of received bytes must not be its child."""
    upload_id = server.create(BIG).value.id
    body = FakeBody(BIG).arrive(DATA)
    server.bodies.append(body)
    from resumable.protocol.tus import Append

    answer = server.uploads.append(upload_id, Append(0, None, None, False), body)
    failures: list[object] = []
    answer.addErrback(failures.append)
    server.turn()
    body.lose()
    answer.cancel()
    server.pump()
    assert failures[0].check(CancelledError)
    assert server.head(upload_id).value.offset == LONG
    assert not server.context.holds.held(upload_id)


def test_the_shield_gives_the_outcome_to_who_waits():
    inner: Deferred[int] = Deferred()

    async def work() -> int:
        return await inner

    results: list[object] = []
    shielded(work()).addBoth(results.append)
    inner.callback(3)
    assert results == [3]


# the table from inner failures to answers


def test_what_is_unexpected_is_a_500_without_details():
    """Errors: no traces, no paths."""
    answer = as_answer(ValueError("/secret/path"), "u")
    assert isinstance(answer, TusError)
    assert answer.status == 500
    assert "secret" not in answer.detail


def test_answers_to_os_errors_name_no_path():
    for number, status, _ in ERRORS:
        answer = as_answer(OSError(number, "message", "/secret/path"), "u")
        assert isinstance(answer, TusError)
        assert answer.status == status
        assert "secret" not in answer.detail


def _under_way(server: Server, length: int = BIG):
    upload: Upload = server.create(length).value
    body = FakeBody(length)
    return upload.id, body, server.patch(upload.id, 0, body)

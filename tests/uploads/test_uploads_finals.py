"""Final uploads, DELETE of what they need, and what becomes of them when something of that is lost."""

from __future__ import annotations

import errno
from random import Random

import pytest

from resumable.model.upload import GoneReason
from resumable.protocol.concat import FinalUpload
from resumable.protocol.errors import BadRequest, Forbidden, Gone, NotFound, Stopping, TooLarge
from resumable.protocol.tus import Creation
from resumable.uploads.assembly import RETRY
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import UPLOADS, Server, pattern, sha1
from tests.uploads.machine import machines

A, B, C = pattern(10_000, 1), pattern(3, 2), pattern(5_000, 3)


def partials(server: Server, *datas: bytes) -> list[str]:
    return [server.upload(data, partial=True) for data in datas]


# concatenation


def test_a_final_of_finished_partials_is_answered_when_it_is_finished(server):
    """When all partials are finished, the POST is answered once the final is: bytes in one regular file."""
    ids = partials(server, A, B, C)
    final = server.concat(*ids).value
    assert (final.length, final.offset, final.finished) == (len(A + B + C), len(A + B + C), True)
    done = server.head(final.id).value
    assert (done.offset, done.finished) == (done.length, True)
    assert server.content(final.id) == A + B + C


def _final(ids):
    urls = tuple(f"/files/{each}" for each in ids)
    return Creation(None, False, None, FinalUpload(urls), "final;" + " ".join(urls), None, False, False), ids


@pytest.mark.parametrize("waits", [False, True])
def test_the_201_is_durable(serve, machine, waits):
    """..., durable as a manifest that pins its partials: a power loss right after the 201 loses nothing."""
    server = serve()
    a, b = server.upload(A, partial=True), server.create(len(B), partial=True).value.id
    if not waits:
        server.patch(b, 0, B)
    answers: list[object] = []
    server.uploads.concatenate(*_final([a, b])).addBoth(answers.append)
    while not answers:
        server.turn()
    server.bury()
    server = serve(machine.after_power_loss(Random(3)))
    if waits:
        server.patch(b, 0, B)
    server.pump()
    assert server.content(answers[0].id) == A + B


def test_a_partial_may_be_named_several_times_and_be_empty(server):
    """Concat URLs: a 0-byte part too."""
    a, empty = partials(server, A, b"")
    final = server.concat(a, empty, a).value.id
    server.pump()
    assert server.head(final).value.offset == 2 * len(A)
    assert server.content(final) == A + A
    nothing = server.concat(empty).value.id
    server.pump()
    assert server.head(nothing).value.finished
    assert server.content(nothing) == b""


def test_a_final_of_unfinished_partials_waits_for_them(server):
    """concatenation-unfinished: HEAD has no Upload-Offset until done, and the length as soon as it is known."""
    a = server.create(len(A), partial=True).value.id
    b = server.create(partial=True).value.id
    final = server.concat(a, b).value
    assert final.length is None
    server.patch(a, 0, A)
    assert server.head(final.id).value.length is None
    server.patch(b, 0, B, length=len(B) + 1)
    head = server.head(final.id).value
    assert (head.length, head.finished) == (len(A + B) + 1, False)
    server.patch(b, len(B), b"!")
    assert server.head(final.id).value.finished
    assert server.content(final.id) == A + B + b"!"


def test_a_final_outlives_its_partials(server):
    ids = partials(server, A, B)
    final = server.concat(*ids).value.id
    for partial in ids:
        assert server.delete(partial).error is None
    assert server.names() == {final}
    assert server.content(final) == A + B


@pytest.mark.parametrize("body", [b"", b"x"])
def test_patch_of_a_final_is_403_before_the_offset_is_looked_at(server, body):
    """PATCH on a final upload: 403, before the offset is looked at, finished or not, malformed or not."""
    (a,) = partials(server, A)
    unfinished = server.create(10, partial=True).value.id
    for final in (server.concat(a).value.id, server.concat(unfinished).value.id):
        assert isinstance(server.patch(final, 99, body).error, Forbidden)
        malformed = server.ask(server.uploads.append(final, BadRequest("bad"), FakeBody(1)))
        assert isinstance(malformed.error, Forbidden)
        assert not server.context.holds.held(final)


def test_what_is_no_partial_cannot_be_concatenated(server):
    whole = server.upload(A)
    (a,) = partials(server, A)
    final = server.concat(a).value.id
    (gone,) = partials(server, B)
    server.delete(gone)
    for each in (whole, final, gone, "0" * 32):
        assert isinstance(server.concat(a, each).error, BadRequest)


def test_a_sum_over_the_maximum_is_413(serve):
    """A sum over the maximum is 413."""
    server = serve(limits=UploadLimits(max_size=len(A) + 1))
    a, b = partials(server, A, B)
    assert isinstance(server.concat(a, b).error, TooLarge)
    assert server.concat(a).error is None


def test_a_sum_that_turns_out_over_the_maximum_ends_the_final(serve):
    """... also where a length was deferred: such a final can't be made, and becomes 410."""
    server = serve(limits=UploadLimits(max_size=len(A) + 1))
    (a,) = partials(server, A)
    b = server.create(partial=True).value.id
    final = server.concat(a, b).value.id
    server.patch(b, 0, B, length=len(B))
    assert isinstance(server.head(final).error, Gone)
    assert server.head(b).value.finished


def test_a_final_cannot_be_read_before_it_is_whole(server):
    b = server.create(3, partial=True).value.id
    final = server.concat(b).value.id
    assert isinstance(server.ask(server.uploads.read(final)).error, NotFound)
    server.patch(b, 0, B)
    _, reader = server.ask(server.uploads.read(final)).value
    assert server.ask(reader.read(0, 10)).value == B
    server.ask(reader.close())


# partials that go away


def test_a_pinned_partial_answers_delete_with_204_and_lives_until_then(serve, machine):
    """A pinned partial answers DELETE with 204 and lives until then."""
    server = serve()
    (a,) = partials(server, A)
    b = server.create(len(B), partial=True).value.id
    final = server.concat(a, b).value.id
    assert server.delete(a).error is None
    assert isinstance(server.head(a).error, Gone)
    server.sweep()
    assert server.content(a) == A
    server.patch(b, 0, B)
    assert server.content(final) == A + B
    assert server.content(a) is None
    assert server.names() == {b, final}


def test_a_final_whose_unfinished_partial_goes_away_becomes_410(server):
    """A final whose unfinished partial goes away becomes 410."""
    (a,) = partials(server, A)
    b = server.upload(b"x", length=len(B), partial=True)
    final = server.concat(a, b).value.id
    server.delete(b)
    assert isinstance(server.head(final).error, Gone)
    assert server.head(a).value.finished
    assert server.names() == {a}


def test_a_delete_that_lets_a_partial_finish_does_not_end_its_final(server):
    """DELETE evicts, and what arrived is committed: a partial that this finishes is a finished one."""
    b = server.create(len(B), partial=True).value.id
    final = server.concat(b).value.id
    body = FakeBody(None)  # its end is not seen yet
    server.patch(b, 0, body)
    body.arrive(B)
    deleted = server.uploads.terminate(b)
    body.end()  # while DELETE looks it up
    server.pump()
    outcome: list[object] = []
    deleted.addBoth(outcome.append)
    assert outcome == [None]
    assert server.head(final).value.finished
    assert server.content(final) == B
    assert server.names() == {final}


def test_a_final_whose_unfinished_partial_is_lost_becomes_410(server):
    """... goes away: also if its data file is damaged."""
    b = server.upload(b"x", length=len(B), partial=True)
    final = server.concat(b).value.id
    server.disk.unlink(f"{UPLOADS}/{b}")
    assert isinstance(server.head(b).error, Gone)
    assert isinstance(server.head(final).error, Gone)


def test_a_final_whose_finished_partial_is_lost_becomes_410(server):
    """..., and where that is found out when it is copied, the partial is 410 as well: never a wrong byte."""
    (a,) = partials(server, A)
    b = server.create(len(B), partial=True).value.id
    final = server.concat(a, b).value.id
    fd = server.disk.open(f"{UPLOADS}/{a}")
    server.disk.truncate(fd, 5)
    server.disk.close(fd)
    server.patch(b, 0, B)
    assert isinstance(server.head(final).error, Gone)
    assert server.row(a).gone is GoneReason.LOST
    assert server.head(b).value.finished
    server.advance(2 * RETRY)
    assert server.names() == {a, b}
    assert server.names(f"{UPLOADS}/.resumable/finals") == set()


def test_delete_of_a_waiting_final_frees_its_partials(server):
    (a,) = partials(server, A)
    b = server.create(len(B), partial=True).value.id
    final = server.concat(a, b).value.id
    server.delete(a)
    assert server.content(a) == A
    assert server.delete(final).error is None
    server.sweep()
    assert server.content(a) is None
    server.patch(b, 0, B)
    assert isinstance(server.head(final).error, Gone)
    assert server.names() == {b}


@pytest.mark.parametrize("turns", range(0, 16))
def test_delete_of_a_final_in_the_midst_of_its_assembly_leaves_nothing(serve, turns):
    """Terminated ones free their disk at once, whatever is under way."""
    server = serve(assembly_step=2000)
    (a,) = partials(server, A)
    answers: list[object] = []
    server.uploads.concatenate(*_final([a])).addBoth(answers.append)
    final = f"{2:032x}"
    while server.ask(server.catalog.get(final)).value is None and not answers:
        server.turn()
    for _ in range(turns):
        if not answers:
            server.turn()
    server.delete(final)
    assert answers, "nobody waits for what is gone"
    server.advance(2 * RETRY)
    server.sweep()
    assert isinstance(server.head(final).error, Gone)
    assert server.names() == {a}
    assert server.names(f"{UPLOADS}/.resumable/finals") == set()


# failures and restarts


@pytest.mark.parametrize("operation", ["open", "copy_range", "fdatasync", "rename", "sync_directory", "truncate"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_assembly_that_failed_is_tried_again(serve, operation, number):
    """Resumable: finalisation that failed is retried by the server itself."""
    server = serve(assembly_step=4000)
    a, b = partials(server, A, B)
    server.disk.fail_next(operation, number)
    answer = server.concat(a, b)
    assert answer.status == (507 if number == errno.ENOSPC else 503)
    final = answer.made.id
    assert server.names(f"{UPLOADS}/.resumable/finals") == set(), "its half file is given back"
    assert not server.head(final).value.finished
    server.advance(RETRY - 1)
    assert not server.head(final).value.finished
    server.advance(1)
    assert server.head(final).value.finished
    assert server.content(final) == A + B


def test_an_assembly_whose_commit_failed_is_tried_again(server):
    (a,) = partials(server, A)
    server.machine.fail_commit(after=1, times=1)
    answer = server.concat(a)
    assert answer.status == 503
    final = answer.made.id
    assert not server.head(final).value.finished
    server.advance(RETRY)
    assert server.head(final).value.finished
    assert server.content(final) == A


@pytest.mark.slow
@pytest.mark.parametrize("power", [False, True])
def test_an_assembly_goes_on_after_a_crash_at_any_of_its_steps(serve, directory, power):
    """Copied into one regular file ..., resumable after a crash."""
    fresh = machines(directory / "each")
    for step in range(1, 60):
        for moment in ("before", "after"):
            machine = next(fresh)
            server = serve(machine, assembly_step=4000)
            ids = partials(server, A, B, C)
            machine.crash_at(step, moment)
            answer = server.concat(*ids)
            over = not machine.down
            server.bury()
            after = machine.after_power_loss(Random(step)) if power else machine.after_kill()
            server = serve(after, assembly_step=4000)
            server.advance(RETRY)
            again = server.concat(*ids).value
            assert server.head(again.id).value.finished
            assert server.content(again.id) == A + B + C
            assert not answer.done or answer.value.id == again.id
            assert server.names() == {*ids, again.id}, "the same request has made one final"
            assert server.names(f"{UPLOADS}/.resumable/finals") == set()
            for upload_id, data in zip(ids, (A, B, C), strict=True):
                assert server.content(upload_id) == data
            server.bury()
        if over:
            return
    raise AssertionError("it has no end")


def test_a_stop_does_not_wait_for_a_long_assembly(serve, machine):
    """Graceful stop, within a bound: an assembly under way ends with its step, and goes on at the next start."""
    server = serve(assembly_step=100)
    (a,) = partials(server, A)
    answers: list[object] = []
    server.uploads.concatenate(*_final([a])).addBoth(answers.append)
    while "copy_range" not in server.machine.trace:
        server.turn()
    copied = server.machine.trace.count("copy_range")
    server.stop()
    assert server.machine.trace.count("copy_range") <= copied + 2
    server.bury()
    server = serve(machine.after_kill(), assembly_step=100)
    server.pump()
    cut = answers[0].value
    assert isinstance(cut.error, Stopping)
    assert server.content(cut.upload.id) == A


def test_checksums_and_partials_go_together(server):
    upload_id = server.create(len(A), partial=True).value.id
    assert server.patch(upload_id, 0, A, checksum=sha1(B)).status == 460
    final = server.concat(upload_id).value.id
    assert server.patch(upload_id, 0, A, checksum=sha1(A)).value.finished
    assert server.content(final) == A

"""What expires, what doesn't, and what is forgotten."""

from __future__ import annotations

import errno
import os

import pytest

from resumable.model.upload import GoneReason
from resumable.protocol.errors import Gone, NotFound
from resumable.uploads import janitor
from resumable.uploads.assembly import Assembler
from resumable.uploads.holds import ASSEMBLER, JANITOR, LocalRoles
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import EPOCH, LONG, pattern, sha1, told

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def server(serve):
    return serve(limits=UploadLimits(expire_after=HOUR, remember=7 * DAY), deliverers=["outside"])


def kinds(server, upload_id):
    return [fact.kind.value for fact in told(server, "outside") if fact.upload_id == upload_id]


def round_after(server, seconds):
    """The janitor's next round, so much later."""
    server.advance(seconds)
    server.sweep()


def test_an_unfinished_upload_expires_when_it_was_idle_for_so_long(server):
    """Expiry removes only unfinished uploads, idle for --expire-after."""
    upload_id = server.upload(b"half", length=8)
    round_after(server, HOUR - 1)
    assert server.head(upload_id).error is None
    round_after(server, 2)
    assert isinstance(server.head(upload_id).error, Gone)
    assert isinstance(server.patch(upload_id, 4, b"more").error, Gone)
    assert server.row(upload_id).gone is GoneReason.EXPIRED
    assert server.names() == set()
    assert kinds(server, upload_id) == ["created", "expired"]


def test_an_append_puts_the_expiry_off(server):
    upload_id = server.upload(b"half", length=8)
    round_after(server, HOUR - 1)
    server.patch(upload_id, 4, b"m")
    assert server.context.expires_at(server.row(upload_id)) == EPOCH + 2 * HOUR - 1
    round_after(server, HOUR - 1)
    assert server.head(upload_id).error is None


def test_a_finished_upload_never_expires(server):
    """Never a finished upload; no Upload-Expires once finished."""
    whole, empty = server.upload(b"whole"), server.upload(b"")
    server.patch(empty, 0, length=0)
    round_after(server, 365 * DAY)
    assert server.head(whole).value.finished
    assert server.context.expires_at(server.row(whole)) is None
    assert server.content(whole) == b"whole"


def test_without_an_expiry_nothing_expires(serve):
    server = serve()
    upload_id = server.upload(b"half", length=8)
    round_after(server, 365 * DAY)
    assert server.head(upload_id).value.offset == 4
    assert server.context.expires_at(server.row(upload_id)) is None


def test_partials_that_no_final_needs_expire(server):
    """... and partials that no final needs, finished ones too."""
    lone, needed, open_one = (server.upload(b"part", partial=True) for _ in range(3))
    waiting = server.create(4, partial=True).value.id
    server.concat(needed, waiting)
    round_after(server, HOUR + 1)  # the final waits for a partial that is idle too: it expires, then what it needed
    round_after(server, 1)
    for upload_id in (lone, needed, open_one, waiting):
        assert isinstance(server.head(upload_id).error, Gone)
    assert server.names() == set()


def test_a_final_that_is_waited_for_keeps_its_partials(server):
    """A pinned partial lives until then."""
    done = server.upload(b"done", partial=True)
    waiting = server.create(2 * LONG, partial=True).value.id
    final = server.concat(done, waiting).value.id
    for offset in range(3):  # something comes now and then
        round_after(server, HOUR - 60)
        server.patch(waiting, offset, b"x")
    assert server.head(done).error is None
    assert server.head(final).error is None


def waiting_for_room(server):
    """A final that is whole but for its assembly, which the disk has no room for; and its partial."""
    partial = server.create(LONG, partial=True).value.id
    final = server.concat(partial).value.id
    server.disk.free_bytes = 2000 + LONG - 1
    server.ask(server.context.space.look(server.spool))
    server.patch(partial, 0, pattern(LONG))
    assert server.names() == {partial} and not server.row(final).finished
    return final, partial


@pytest.fixture
def full(serve):
    """With a reserve, which its disk will get down to."""
    return serve(limits=UploadLimits(expire_after=HOUR), deliverers=["outside"], reserve=2000)


def test_a_final_that_waits_for_room_expires_and_gives_its_partials_back(full):
    """Expiry removes unfinished uploads that are idle: also those that can't be put together."""
    final, partial = waiting_for_room(full)
    round_after(full, HOUR - 1)
    assert full.row(final).gone is full.row(partial).gone is None
    round_after(full, 2)
    assert isinstance(full.head(final).error, Gone) and full.row(final).gone is GoneReason.EXPIRED
    assert kinds(full, final) == ["created", "expired"]
    round_after(full, 1)
    assert full.row(partial).gone is GoneReason.EXPIRED
    assert full.names() == set()


def test_room_in_time_keeps_it_from_expiring(full):
    final, _ = waiting_for_room(full)
    round_after(full, HOUR - 60)
    full.disk.free_bytes = 1 << 30
    round_after(full, 60)
    round_after(full, 365 * DAY)
    assert full.head(final).value.finished


def test_a_final_that_was_not_tried_since_the_start_does_not_expire(full, serve, monkeypatch):
    """The server was down for longer than uploads are kept; it has all that it needs by now."""
    final, _ = waiting_for_room(full)
    full.bury()
    with monkeypatch.context() as patched:
        patched.setattr(Assembler, "start", lambda _: None)
        server = serve(full.machine.after_kill(), limits=UploadLimits(expire_after=HOUR))
    server.disk.free_bytes = 1 << 30
    round_after(server, 2 * HOUR)
    assert server.row(final).gone is None
    server.assembler.start()
    server.pump()
    assert server.head(final).value.finished


def test_an_upload_that_is_being_appended_to_does_not_expire(server):
    """Held uploads don't expire, however long ago their last commit is."""
    upload_id = server.create(LONG).value.id
    body = FakeBody(LONG)
    answer = server.patch(upload_id, 0, body, checksum=sha1(pattern(LONG)))
    body.arrive(pattern(LONG)[:-1])
    round_after(server, 2 * HOUR)
    body.arrive(pattern(LONG)[-1:])
    server.pump()
    assert answer.value.finished


def test_a_clock_that_was_set_forward_expires_nothing_in_that_round(server):
    """Clock going forwards: the round is left out, so that those who are there come back in time."""
    upload_id = server.upload(b"half", length=8)
    server.skew = 30 * DAY
    round_after(server, 30)
    assert server.head(upload_id).error is None
    server.patch(upload_id, 4, b"m")
    round_after(server, 30)
    assert server.head(upload_id).error is None


def test_a_clock_that_goes_backwards_expires_nothing(server):
    """Clock going backwards: what is touched then keeps its later time."""
    upload_id = server.upload(b"half", length=8)
    server.skew = -30 * DAY
    for _ in range(3):
        round_after(server, 30)
        assert server.head(upload_id).error is None
    server.patch(upload_id, 4, b"m")
    assert server.row(upload_id).touched_at == EPOCH
    server.skew = 0
    round_after(server, 30)
    round_after(server, 30)
    assert server.head(upload_id).error is None


def test_what_is_gone_is_remembered_and_then_forgotten(server):
    """Expired or terminated, still remembered (--remember, 7 days): 410; unknown: 404."""
    upload_id = server.upload(b"data")
    server.delete(upload_id)
    round_after(server, 7 * DAY - 10)
    assert isinstance(server.head(upload_id).error, Gone)
    round_after(server, 20)
    assert isinstance(server.head(upload_id).error, NotFound)
    assert kinds(server, upload_id) == ["created", "finished", "terminated"]


def test_more_than_a_batch_is_removed_at_once(server):
    """Terminated ones free their disk at once, with whatever else there is to remove."""
    ids = [server.upload(b"x", length=2) for _ in range(300)]
    for upload_id in ids:
        server.ask(server.catalog.end(upload_id, GoneReason.EXPIRED, EPOCH, [])).value  # noqa: B018
    last = server.upload(b"x")
    server.delete(last)
    assert server.names() == set()


@pytest.fixture
def stuck(server, monkeypatch):
    """Ids whose files can't be removed."""
    ids, unlink = set(), server.machine.disk.unlink

    def fails(path, within=None):
        if path.rpartition("/")[2] in ids:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)
        return unlink(path, within)

    monkeypatch.setattr(server.machine.disk, "unlink", fails)
    return ids


def test_files_that_cannot_be_removed_keep_no_other_and_are_tried_again(server, stuck):
    """More of them than are removed together; the janitor's next round removes them."""
    ids = {server.upload(b"x", length=2) for _ in range(300)}
    for upload_id in ids:
        server.ask(server.catalog.end(upload_id, GoneReason.EXPIRED, EPOCH, [])).value  # noqa: B018
    stuck |= ids
    last = server.upload(b"x")
    assert server.delete(last).error is None and server.names() == ids
    assert server.context.counts.not_removed == len(ids)
    server.delete(server.upload(b"x"))
    assert server.context.counts.not_removed == len(ids), "requests don't try them again"
    server.sweep()
    assert server.names() == ids and server.context.counts.not_removed == 2 * len(ids)
    stuck.clear()
    server.sweep()
    assert server.names() == set() and server.ask(server.catalog.removable(1)).value == []


@pytest.mark.parametrize("has_name", [True, False])
def test_the_log_names_data_that_cannot_be_removed_also_where_it_is_no_file(server, monkeypatch, logged, has_name):
    upload_id = server.upload(b"x", length=2)

    def fails(path, within=None):
        raise OSError(errno.EIO, "the store is away", *([path] if has_name else []))

    monkeypatch.setattr(server.machine.disk, "unlink", fails)
    server.ask(server.catalog.end(upload_id, GoneReason.EXPIRED, EPOCH, [])).value  # noqa: B018
    server.sweep()
    (event,) = [each for each in logged if "can't be removed" in (each.get("log_format") or "")]
    assert event["path"].endswith(upload_id) and event["upload"] == upload_id


def test_who_needs_room_hears_of_data_that_cannot_be_removed_and_once(server, stuck):
    upload_id = server.upload(b"x", length=2)
    stuck.add(upload_id)
    server.ask(server.catalog.end(upload_id, GoneReason.EXPIRED, EPOCH, [])).value  # noqa: B018
    assert isinstance(server.ask(server.reclaimer.make_room()).error, PermissionError)
    assert server.ask(server.reclaimer.make_room()).error is None, "what was given up since is removed"


def test_what_cannot_be_removed_is_tried_so_often_and_no_more(server, stuck, monkeypatch):
    monkeypatch.setattr(janitor, "BATCH", 2)
    monkeypatch.setattr(janitor, "MOST_STUCK", 3)
    for _ in range(9):
        upload_id = server.upload(b"x", length=2)
        stuck.add(upload_id)
        server.ask(server.catalog.end(upload_id, GoneReason.EXPIRED, EPOCH, [])).value  # noqa: B018
    server.sweep()
    assert server.context.counts.not_removed == 4


def test_two_deletes_at_once_one_is_410(server):
    upload_id = server.upload(b"data")
    first, second = server.uploads.terminate(upload_id), server.uploads.terminate(upload_id)
    outcomes: list[object] = []
    first.addBoth(outcomes.append)
    second.addBoth(outcomes.append)
    server.pump()
    assert outcomes.count(None) == 1
    assert sum(getattr(each, "type", None) is Gone for each in outcomes) == 1
    assert kinds(server, upload_id).count("terminated") == 1


def test_a_reader_is_not_disturbed_by_a_delete(server):
    upload_id = server.upload(b"data")
    upload, reader = server.ask(server.uploads.read(upload_id)).value
    server.delete(upload_id)
    assert server.ask(reader.read(0, upload.offset)).value == b"data"
    server.ask(reader.close())
    assert server.disk.open_files == 0


def test_one_process_has_every_role():
    outcomes: list[object] = []
    for role in (JANITOR, ASSEMBLER):
        LocalRoles().granted(role).addCallback(outcomes.append)
    assert outcomes == [True, True]

"""What a start makes of the last run's end."""

from __future__ import annotations

import errno
import os
from random import Random

import pytest

from resumable.model.upload import GoneReason
from resumable.protocol.errors import Gone, NotFound
from resumable.uploads.recovery import UploadsRecovered
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, ORPHANS, UPLOADS, pattern, sha1, told
from tests.uploads.machine import content

DATA = pattern(LONG + 7)
BIG = 1 << 32


def dies_receiving(server, length=BIG, body=None, data=DATA, **options):
    """A PATCH whose bytes have reached the file, none of them committed; then the process is killed."""
    upload_id = server.create(length).value.id
    body = body or FakeBody(length)
    server.patch(upload_id, 0, body, **options)
    body.arrive(data)
    server.pump()
    assert server.row(upload_id).offset == 0
    assert server.content(upload_id) == data
    server.bury()
    return upload_id


def test_what_was_written_before_a_kill_is_adopted(serve, machine):
    """Bytes past the committed offset are adopted at start-up with the same boot id, synced first."""
    upload_id = dies_receiving(serve())
    after = machine.after_kill()
    server = serve(after)
    assert server.recovered == UploadsRecovered(adopted=1, orphans=0, lost=0)
    assert server.head(upload_id).value.offset == len(DATA)
    # synced first: the sync comes before the COMMIT
    assert after.trace.index("fdatasync") < len(after.trace) - 1 - after.trace[::-1].index("COMMIT")
    server.bury()
    for seed in range(20):
        survivor = after.disk.crash(Random(seed))
        assert content(survivor, f"{UPLOADS}/{upload_id}") == DATA


def test_after_a_power_loss_nothing_is_adopted(serve, machine):
    """..., with the same boot id: the catalog's offset rules."""
    upload_id = dies_receiving(serve())
    server = serve(machine.after_power_loss(Random(1)))
    assert server.recovered.adopted == 0
    assert server.head(upload_id).value.offset == 0
    assert server.patch(upload_id, 0, b"anew").value.offset == 4
    assert server.content(upload_id) == b"anew"


def test_where_the_boot_has_no_name_nothing_is_adopted(serve, machine):
    """A machine that can't tell its boots apart adopts nothing."""
    upload_id = dies_receiving(serve(boot_id=""))
    server = serve(machine.after_kill(), boot_id="")
    assert server.recovered.adopted == 0
    assert server.head(upload_id).value.offset == 0


@pytest.mark.parametrize("trailer", [False, True])
def test_bytes_whose_checksum_is_pending_are_never_adopted(serve, machine, trailer):
    """... no checksum pending."""
    body = FakeBody(None)
    options = {"trailer": True} if trailer else {"checksum": sha1(b"other")}
    upload_id = dies_receiving(serve(), body=body, **options)
    server = serve(machine.after_kill())
    assert server.recovered.adopted == 0
    assert server.head(upload_id).value.offset == 0


@pytest.mark.parametrize("trailer", [False, True])
def test_what_an_unverified_append_left_is_not_adopted_for_a_later_one(serve, machine, trailer):
    """Every new append first truncates the file to the committed offset: before it tells the catalog that its own
    bytes may be adopted, or a second kill would make a first one's bytes count."""
    body = FakeBody(None)
    options = {"trailer": True} if trailer else {"checksum": sha1(b"other")}
    upload_id = dies_receiving(serve(), body=body, **options)
    second = machine.after_kill()
    server = serve(second)
    server.patch(upload_id, 0, FakeBody(BIG))  # it is opened, and nothing comes
    server.bury()
    server = serve(second.after_kill())
    assert server.head(upload_id).value.offset == 0


def test_what_a_power_loss_left_is_not_adopted_for_a_later_append(serve, machine):
    """The same where the tail of the file is what a power loss has made of it."""
    upload_id = dies_receiving(serve())
    second = machine.after_power_loss(Random(1))
    fd = second.disk.open(f"{UPLOADS}/{upload_id}", create=True)
    second.disk.writev(fd, [bytes(1000)], 0)  # zeros: the size has survived, the bytes have not
    second.disk.close(fd)
    server = serve(second)
    server.patch(upload_id, 0, FakeBody(BIG))
    server.bury()
    server = serve(second.after_kill())
    assert server.head(upload_id).value.offset == 0


def test_adoption_stops_where_a_chunked_append_had_to(serve, machine):
    """... capped at the length: and below it, as long as its end has not been seen."""
    upload_id = dies_receiving(serve(), len(DATA), FakeBody(None))
    server = serve(machine.after_kill())
    assert server.head(upload_id).value.offset == len(DATA) - 1
    assert not server.row(upload_id).finished
    assert server.patch(upload_id, len(DATA) - 1, DATA[-1:]).value.finished
    assert server.content(upload_id) == DATA


def test_adoption_of_everything_finishes_the_upload(serve, machine):
    """..., with the fact in the same transaction."""
    server = serve(deliverers=["outside"])
    upload_id = server.create(len(DATA)).value.id
    server.write_uncommitted(upload_id, DATA)
    server.bury()
    server = serve(machine.after_kill(), deliverers=["outside"])
    assert server.row(upload_id).finished
    assert [fact.kind.value for fact in told(server, "outside")] == ["created", "finished"]
    assert server.content(upload_id) == DATA


def test_a_partial_that_is_finished_by_adoption_lets_its_final_be_assembled(serve, machine):
    server = serve()
    partial = server.create(len(DATA), partial=True).value.id
    final = server.concat(partial, partial).value.id
    server.write_uncommitted(partial, DATA)
    server.bury()
    server = serve(machine.after_kill())
    server.pump()
    assert server.head(final).value.finished
    assert server.content(final) == DATA * 2


@pytest.mark.parametrize("operation", ["open", "read", "writev", "fdatasync", "sync_directory"])
def test_bytes_that_cannot_be_made_durable_are_not_adopted(serve, machine, operation):
    upload_id = dies_receiving(serve())
    after = machine.after_kill()
    after.disk.fail_next(operation, errno.EIO)
    server = serve(after)
    assert server.recovered.adopted == 0
    assert server.head(upload_id).value.offset == 0
    assert server.patch(upload_id, 0, b"anew").value.offset == 4


def test_a_sync_that_failed_before_the_kill_does_not_make_adoption_lie(serve, machine):
    """After EIO the pages may be gone: what is adopted is written once more."""
    server = serve()
    upload_id = server.create(BIG).value.id
    body = FakeBody(BIG)
    server.patch(upload_id, 0, body)
    body.arrive(DATA)
    server.pump()
    server.disk.fail_next("fdatasync", errno.EIO)
    body.lose()
    while "fdatasync" not in server.machine.trace:
        server.turn()
    server.bury()
    after = machine.after_kill()
    server = serve(after)
    offset = server.head(upload_id).value.offset
    server.bury()
    for seed in range(20):
        assert (content(after.disk.crash(Random(seed)), f"{UPLOADS}/{upload_id}") or b"")[:offset] == DATA[:offset]


def test_a_file_that_no_record_knows_is_set_aside(serve, machine):
    """A creation that died before its record was committed: nobody was told of it. Its file is moved, not deleted."""
    server = serve()
    body = FakeBody(10)
    server.create(10, body)
    machine.crash_at(6)
    body.arrive(b"0123456789")
    server.pump()
    assert machine.trace[-2:] == ["sync_directory", "COMMIT"]
    server.bury()
    (name,) = set(machine.disk.names(UPLOADS)) - {".resumable"}
    server = serve(machine.after_kill())
    assert server.recovered == UploadsRecovered(adopted=0, orphans=1, lost=0)
    assert server.names() == set()
    assert server.names(ORPHANS) == {name}
    assert isinstance(server.head(name).error, NotFound)
    server.bury()
    assert serve(server.machine.after_kill()).recovered.orphans == 0


def test_without_a_catalog_every_data_file_answers_410(serve, machine):
    """A damaged catalog is set aside ...; uploads that can't be proven answer 410; data files are never deleted."""
    upload_id = _finished(serve)
    after = machine.after_kill()
    for name in os.listdir(after.catalog_directory):
        os.unlink(after.catalog_directory / name)
    server = serve(after)
    assert server.recovered == UploadsRecovered(adopted=0, orphans=0, lost=1)
    assert isinstance(server.head(upload_id).error, Gone)
    assert server.row(upload_id).gone is GoneReason.LOST
    server.sweep()
    assert server.content(upload_id) == DATA
    assert server.names(ORPHANS) == set()


def test_a_damaged_catalog_is_set_aside_and_what_it_cannot_prove_answers_410(serve, machine):
    upload_id = _finished(serve)
    after = machine.after_kill()
    with open(after.catalog_path, "r+b") as file:
        size = os.path.getsize(after.catalog_path)
        file.write(os.urandom(size))
    server = serve(after)
    assert server.head(upload_id).error is None or isinstance(server.head(upload_id).error, Gone)
    assert server.content(upload_id) == DATA
    assert any("damaged" in name for name in os.listdir(after.catalog_directory))


def _finished(serve) -> str:
    server = serve()
    upload_id = server.upload(DATA)
    server.bury()
    return upload_id


def test_a_graceful_stop_leaves_nothing_to_recover(serve, machine):
    server = serve()
    upload_id = server.create(BIG).value.id
    body = FakeBody(BIG)
    server.patch(upload_id, 0, body)
    body.arrive(DATA)
    server.stop()
    server = serve(machine.after_kill())
    assert server.recovered == UploadsRecovered(adopted=0, orphans=0, lost=0)
    assert server.head(upload_id).value.offset == len(DATA)


def test_a_committed_file_that_is_short_at_the_start_is_found_out_when_it_is_asked_for(serve, machine):
    upload_id = _finished(serve)
    after = machine.after_kill()
    fd = after.disk.open(f"{UPLOADS}/{upload_id}")
    after.disk.truncate(fd, 5)
    server = serve(after)
    assert isinstance(server.head(upload_id).error, Gone)
    assert server.content(upload_id) == DATA[:5]

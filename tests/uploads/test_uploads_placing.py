"""Finished uploads get their places: when, which, what may go wrong, and what becomes of them afterwards."""

from __future__ import annotations

import errno
import json
import os
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from resumable.model.hooks import Changes, Granted, QuestionKind
from resumable.model.listing import UploadState
from resumable.model.upload import FactKind, Place
from resumable.protocol import metadata
from resumable.protocol.digests import render
from resumable.protocol.errors import Gone, NotFound
from resumable.spool.placed_files import PlaceSettings, parse
from resumable.spool.placing import SIDECAR, Collision, Rules
from resumable.uploads.context import Questions
from resumable.uploads.digest_rules import DigestRules
from tests.uploads.fakes import FakeBody, FakeHooks, FakeReplication
from tests.uploads.harness import LONG, PLACED, UPLOADS, pattern, told
from tests.uploads.machine import content

DATA = b"0123456789"
FOREIGN = b"somebody else's"


def wanted(template="{date}/{metadata[filename]}", **values):
    return PlaceSettings(Path(PLACED), parse(template), **values)


@pytest.fixture
def machine(machine):
    for path in (UPLOADS, PLACED):
        machine.disk.make_directory(path)
        machine.disk.sync_directory(path.rpartition("/")[0] or "/")
    return machine


@pytest.fixture
def server(serve):
    return serve(placing=wanted())


def named(name):
    return metadata.encode({"filename": name})


def upload(server, data=DATA, name="report.pdf"):
    upload_id = server.create(len(data), metadata=named(name)).value.id
    if data:
        assert server.patch(upload_id, 0, data).value.offset == len(data)
    return upload_id


def placed(disk):
    """Every file in the place directory, by its path from there."""
    found = {path: content(disk, path) for path in disk._names if path.startswith(f"{PLACED}/") and is_file(disk, path)}
    return {path.removeprefix(f"{PLACED}/"): data for path, data in found.items()}


def is_file(disk, path):
    return hasattr(disk._names[path], "content")


def put(disk, path, data):
    fd = disk.open(path, create=True)
    disk.writev(fd, [data], 0)
    disk.fsync(fd)
    disk.close(fd)
    disk.sync_directory(path.rpartition("/")[0])


def read(server, upload_id):
    answer = server.ask(server.uploads.read(upload_id))
    if answer.error is not None:
        return answer.error
    _, reader = answer.value
    data = server.ask(reader.read(0, 1 << 20)).value
    server.ask(reader.close())
    return data


# -- when


def test_a_finished_file_is_placed_and_no_longer_lies_under_its_id(server):
    upload_id = upload(server)
    assert placed(server.disk) == {"2023-11-14/report.pdf": DATA}
    assert server.content(upload_id) is None
    row = server.row(upload_id)
    assert row.placed and row.place.path == "2023-11-14/report.pdf"
    assert server.head(upload_id).value.offset == len(DATA)
    assert read(server, upload_id) == DATA
    assert server.context.counts.placed == 1


def test_the_status_tells_its_place(server):
    upload_id = server.create(len(DATA), metadata=named("x")).value.id
    assert server.ask(server.uploads.status(upload_id)).value.placed is None
    server.patch(upload_id, 0, DATA)
    seen = server.ask(server.uploads.status(upload_id)).value
    assert (seen.state, seen.placed, seen.local) == (UploadState.FINISHED, "2023-11-14/x", False)


def test_one_that_is_not_finished_is_not_placed(server):
    upload_id = server.create(100, metadata=named("x")).value.id
    server.patch(upload_id, 0, DATA)
    server.sweep()
    assert placed(server.disk) == {} and server.content(upload_id) == DATA


def test_an_upload_without_bytes_is_placed_too(server):
    upload_id = server.create(0, metadata=named("empty")).value.id
    assert placed(server.disk) == {"2023-11-14/empty": b""}
    assert read(server, upload_id) == b""


def test_a_creation_with_all_its_bytes_is_placed_too(server):
    server.create(len(DATA), FakeBody.whole(DATA), metadata=named("x"))
    assert placed(server.disk) == {"2023-11-14/x": DATA}


def test_a_final_is_placed_and_its_partials_are_not(serve):
    server = serve(placing=wanted("{id}"))
    partial = server.upload(DATA, partial=True)
    assert placed(server.disk) == {}
    final = server.concat(partial, partial).value.id
    assert placed(server.disk) == {final: DATA * 2}
    assert server.content(partial) == DATA


def test_one_that_a_hook_has_to_agree_to_is_placed_once_it_has(serve):
    later = Deferred()
    server = serve(placing=wanted(), questions=Questions(FakeHooks(QuestionKind.FINISH, finish=[later])))
    upload_id = server.create(len(DATA), metadata=named("x")).value.id
    server.patch(upload_id, 0, DATA)
    assert placed(server.disk) == {}
    later.callback(Granted())
    server.pump()
    assert placed(server.disk) == {"2023-11-14/x": DATA}


def test_one_that_is_finished_by_adoption_is_placed(serve, machine):
    data = pattern(LONG + 7)
    server = serve(placing=wanted())
    upload_id = server.create(len(data), metadata=named("x")).value.id
    server.write_uncommitted(upload_id, data)
    server.bury()
    server = serve(machine.after_kill(), placing=wanted())
    assert placed(server.disk) == {"2023-11-14/x": data}


def test_what_was_finished_before_places_were_asked_for_stays(serve, machine):
    server = serve()
    upload_id = server.upload(DATA)
    server.bury()
    server = serve(machine.after_kill(), placing=wanted())
    server.sweep()
    assert placed(server.disk) == {} and server.content(upload_id) == DATA


def test_it_is_told_with_its_path(serve):
    server = serve(placing=wanted(), deliverers=["outside"])
    upload(server)
    facts = told(server, "outside")
    assert [fact.kind for fact in facts] == [FactKind.CREATED, FactKind.FINISHED, FactKind.PLACED]
    assert facts[-1].data["path"] == "2023-11-14/report.pdf"
    assert facts[-1].data["offset"] == len(DATA)


# -- where


def test_a_second_file_of_the_name_is_numbered(server):
    first, second = upload(server, b"one"), upload(server, b"two")
    assert placed(server.disk) == {"2023-11-14/report.pdf": b"one", "2023-11-14/report (2).pdf": b"two"}
    assert (read(server, first), read(server, second)) == (b"one", b"two")


def test_a_sidecar_tells_what_is_known(serve):
    server = serve(placing=wanted("{owner}/{metadata[filename]}", sidecar=True))
    server.by = evolve(server.by, name="ann")
    upload_id = server.create(3, metadata=metadata.encode({"filename": "ä.txt", "raw": b"\xff"})).value.id
    server.patch(upload_id, 0, b"abc")
    assert set(placed(server.disk)) == {"ann/ä.txt", f"ann/ä.txt{SIDECAR}"}
    assert json.loads(placed(server.disk)[f"ann/ä.txt{SIDECAR}"]) == {
        "id": upload_id,
        "path": "ann/ä.txt",
        "size": 3,
        "metadata": {"filename": "ä.txt", "raw": {"base64": "/w=="}},
        "created_at": "2023-11-14T22:13:20.000Z",
        "finished_at": "2023-11-14T22:13:20.000Z",
        "owner": "ann",
    }


@pytest.mark.parametrize("sizes", [(len(DATA),), (3, len(DATA) - 3)])
def test_a_sidecar_tells_the_digest_also_where_that_is_made_afterwards(serve, sizes):
    server = serve(placing=wanted(sidecar=True), digests=DigestRules("sha-256"))
    upload_id = server.create(len(DATA), metadata=metadata.encode({"filename": "report.pdf"})).value.id
    offset = 0
    for size in sizes:
        server.patch(upload_id, offset, DATA[offset : offset + size])
        offset += size
    digest = server.row(upload_id).digest
    assert digest == render({"sha-256": sha256(DATA).digest()})
    assert json.loads(placed(server.disk)[f"2023-11-14/report.pdf{SIDECAR}"])["digest"] == digest


def test_the_place_is_the_one_that_was_recorded_whatever_the_template_says_now(serve, machine):
    server = serve(placing=wanted())
    machine.disk.fail_next("link", errno.ENOSPC)
    upload(server)
    server.bury()
    server = serve(machine.after_kill(), placing=wanted("other/{id}"))
    assert placed(server.disk) == {"2023-11-14/report.pdf": DATA}


# -- failures


@pytest.mark.parametrize(("key", "path"), [("a/b.pdf", "a/b.pdf"), ("a/.b/x.info.json", "a/b/x_info.json")])
@pytest.mark.parametrize("placing", [wanted(), None], ids=["with a template", "without"])
def test_a_hook_that_chooses_the_key_chooses_the_place(serve, key, path, placing):
    server = serve(placing=placing, questions=Questions(FakeHooks(create=[Granted(Changes(key=key))])))
    upload_id = server.create(len(DATA), metadata=named("x")).value.id
    server.sweep()
    server.patch(upload_id, 0, DATA)
    assert placed(server.disk) == ({path: DATA} if placing else {})
    server.delete(upload_id)
    partial = server.upload(DATA, partial=True)
    assert placed(server.disk) == {} and server.content(partial) == DATA


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_what_can_not_be_placed_stays_acknowledged_and_is_tried_again(server, number, logged):
    server.disk.fail_next("make_directory", number)
    server.disk.fail_next("make_directory", number)
    upload_id = upload(server)
    assert server.head(upload_id).value.finished and read(server, upload_id) == DATA
    assert placed(server.disk) == {} and server.row(upload_id).place == Place("2023-11-14/report.pdf")
    server.sweep()
    assert placed(server.disk) == {}
    server.sweep()
    assert placed(server.disk) == {"2023-11-14/report.pdf": DATA}
    assert server.content(upload_id) is None
    complaints = [each for each in logged if "can't be placed" in each["log_format"]]
    assert [each["upload"] for each in complaints] == [upload_id], "once, not with every round"
    assert server.context.counts.not_placed == 2
    server.disk.fail_next("link", number)
    upload(server, name="x")
    assert sum("can't be placed" in each["log_format"] for each in logged) == 2, "it worked in between"


def test_a_catalog_that_fails_leaves_it_to_the_next_round(server, machine):
    upload_id = server.create(len(DATA), metadata=named("x")).value.id
    machine.fail_commit(after=1, times=3)
    server.patch(upload_id, 0, DATA)
    server.sweep()
    server.sweep()
    assert placed(server.disk) == {"2023-11-14/x": DATA} and server.row(upload_id).placed
    assert server.content(upload_id) is None


def test_many_that_finish_at_once_are_placed_all(serve, monkeypatch):
    monkeypatch.setattr("resumable.uploads.background.REMEMBERED", 3)
    monkeypatch.setattr("resumable.uploads.placing.BATCH", 2)
    server = serve(placing=wanted("{id}"))
    bodies = [FakeBody(1) for _ in range(20)]
    ids = [server.create(1).value.id for _ in bodies]
    for upload_id, body in zip(ids, bodies, strict=True):
        server.patch(upload_id, 0, body)
    for body in bodies:
        body.arrive(b"x")
    server.pump()
    assert set(placed(server.disk)) == set(ids)
    assert server.names() == {"finished"}


@pytest.mark.parametrize("turns", range(0, 30, 2))
def test_one_that_finishes_while_another_is_placed_does_not_wait_for_a_round(serve, turns):
    server = serve(placing=wanted("{id}"))
    ids = [server.create(len(DATA)).value.id for _ in range(2)]
    for upload_id in ids:
        server.uploads.append(upload_id, *_append())
        for _ in range(turns):
            if server.clock.calls:
                server.turn()
    server.pump()
    assert placed(server.disk) == dict.fromkeys(ids, DATA)
    assert server.names() == {"finished"}


# -- remotes


def test_the_data_file_stays_until_the_remotes_have_it(serve):
    server = serve(placing=wanted(), replication=FakeReplication(("near",), ("far",)))
    upload_id = upload(server)
    assert (
        placed(server.disk) == {"2023-11-14/report.pdf": DATA} == {"2023-11-14/report.pdf": server.content(upload_id)}
    )
    server.disk.unlink(f"{PLACED}/2023-11-14/report.pdf")
    assert read(server, upload_id) == DATA, "by its own name"
    server.store(upload_id, "near")
    server.sweep()
    assert server.content(upload_id) == DATA
    server.store(upload_id, "far")
    server.sweep()
    assert server.content(upload_id) is None
    assert server.head(upload_id).value.offset == len(DATA)


# -- what an operator does with it


def test_a_file_that_was_taken_away_is_handed_over(server):
    upload_id = upload(server)
    server.disk.rename(f"{PLACED}/2023-11-14/report.pdf", "/elsewhere")
    assert server.head(upload_id).value.offset == len(DATA)
    assert isinstance(read(server, upload_id), NotFound)
    assert server.row(upload_id).gone is None, "nothing was lost"
    assert server.delete(upload_id).error is None
    assert content(server.disk, "/elsewhere") == DATA
    assert isinstance(server.head(upload_id).error, Gone)


def test_another_file_in_its_place_is_neither_shown_nor_removed(server):
    upload_id = upload(server)
    server.disk.unlink(f"{PLACED}/2023-11-14/report.pdf")
    other = upload(server, DATA[::-1])
    assert placed(server.disk) == {"2023-11-14/report.pdf": DATA[::-1]}
    assert isinstance(read(server, upload_id), NotFound), "it is somebody else's"
    server.delete(upload_id)
    assert read(server, other) == DATA[::-1]


# -- the end


def test_a_deleted_upload_takes_its_placed_file_along(serve):
    server = serve(placing=wanted("{id}/{metadata[filename]}", sidecar=True))
    upload_id = upload(server)
    assert len(placed(server.disk)) == 2
    assert server.delete(upload_id).error is None
    assert placed(server.disk) == {} and f"{PLACED}/{upload_id}" not in server.disk._names
    assert server.row(upload_id).place is None
    server.advance(8 * 86400.0)
    server.sweep()
    assert isinstance(server.head(upload_id).error, NotFound), "and it is forgotten in time"


def test_a_placed_file_that_cannot_be_removed_is_tried_again_and_keeps_no_other(server, monkeypatch):
    upload_id, other = upload(server), upload(server, DATA[::-1])
    stuck, unlink = ["report.pdf"], server.machine.disk.unlink

    def fails(path, within=None):
        if path in stuck:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)
        return unlink(path, within)

    monkeypatch.setattr(server.machine.disk, "unlink", fails)
    assert server.delete(upload_id).status == 503
    assert server.delete(other).error is None
    assert list(placed(server.disk).values()) == [DATA] and server.context.counts.not_removed == 1
    stuck.clear()
    server.sweep()
    assert placed(server.disk) == {} and server.ask(server.catalog.removable(1)).value == []


def test_one_that_is_deleted_while_it_waits_is_never_placed(server):
    server.disk.fail_next("link", errno.EACCES)
    upload_id = upload(server)
    server.delete(upload_id)
    server.sweep()
    assert placed(server.disk) == {} and server.content(upload_id) is None


@pytest.mark.parametrize("turns", range(0, 40, 2))
def test_one_that_is_deleted_while_it_is_being_placed_is_not_left_behind(serve, turns):
    server = serve(placing=wanted(sidecar=True))
    upload_id = server.create(len(DATA), metadata=named("x")).value.id
    server.uploads.append(upload_id, *_append()).addErrback(lambda failure: None)
    for _ in range(turns):
        if server.clock.calls:
            server.turn()
    server.delete(upload_id)
    server.sweep()
    assert placed(server.disk) == {} and server.content(upload_id) is None


def _append():
    from resumable.protocol import tus

    return tus.Append(0, None, None, False), FakeBody.whole(DATA)


def test_finished_files_never_expire_wherever_they_are(serve):
    from resumable.uploads.limits import UploadLimits

    server = serve(placing=wanted(), limits=UploadLimits(expire_after=60.0))
    upload(server)
    server.advance(3600.0)
    server.sweep()
    assert placed(server.disk) == {"2023-11-14/report.pdf": DATA}


def test_without_the_option_what_was_placed_before_is_still_read_and_removed(serve, machine):
    server = serve(placing=wanted())
    upload_id = upload(server)
    server.bury()
    server = serve(machine.after_kill())
    assert read(server, upload_id) == DATA
    server.delete(upload_id)
    assert placed(server.disk) == {}


# -- crashes


def story(server, ids, name="x.bin"):
    """A file is uploaded and placed where another is."""
    made = server.create(len(DATA), metadata=named(name))
    if made.done and made.error is None:
        ids.append(made.value.id)
        server.patch(ids[0], 0, DATA)


@pytest.mark.slow
@pytest.mark.parametrize("crash", ["kill", 1, 2])
@pytest.mark.parametrize("collision", [Collision.NUMBER, Collision.REPLACE])
@pytest.mark.parametrize("moment", ["before", "after", "torn"])
def test_a_crash_at_every_step_leaves_each_file_in_one_place_exactly_once(directory, crash, collision, moment):
    """Finish, place, record, remove the data file: wherever it stops, the next start ends with the file placed."""
    from tests.uploads.harness import Server
    from tests.uploads.machine import machines

    fresh = machines(directory)
    settings = wanted("d/{metadata[filename]}", rules=Rules(collision), sidecar=True)
    for step in range(1, 1000):
        machine = next(fresh)
        for path in (UPLOADS, PLACED, f"{PLACED}/d"):
            machine.disk.make_directory(path)
            machine.disk.sync_directory(path.rpartition("/")[0] or "/")
        others = {"d/other": FOREIGN} | ({"d/x.bin": FOREIGN} if collision is Collision.NUMBER else {})
        for path, data in others.items():
            put(machine.disk, f"{PLACED}/{path}", data)
        server = Server(machine, placing=settings).start()
        ids = []
        machine.crash_at(step, moment, Random(step))
        story(server, ids)
        over = not machine.down
        server.bury()
        after = machine.after_kill() if crash == "kill" else machine.after_power_loss(Random(crash * step))
        server = Server(after, placing=settings).start()
        server.sweep()
        files = {path: data for path, data in placed(server.disk).items() if not path.endswith(SIDECAR)}
        if ids and server.row(ids[0]).finished:
            row = server.row(ids[0])
            assert files == {**others, row.place.path: DATA}
            assert json.loads(placed(server.disk)[f"{row.place.path}{SIDECAR}"])["id"] == ids[0]
            assert server.content(ids[0]) is None and row.dropped_at is not None
            assert read(server, ids[0]) == DATA
            survivor = server.disk.crash(Random(step))
            assert {**others, row.place.path: DATA}.items() <= placed(survivor).items(), "durable"
        else:
            assert files == others
        assert server.names("/up/.resumable/placing") == set()
        server.bury()
        if over:
            assert step > 30 and row.finished
            return
    raise AssertionError("the story has no end")


@pytest.mark.parametrize("crash", ["kill", 1])
@pytest.mark.parametrize(
    "waits", [pytest.param(True, id="not placed yet", marks=pytest.mark.slow), pytest.param(False, id="placed")]
)
def test_a_crash_at_every_step_of_a_deletion_leaves_nothing_of_it_and_all_of_others(directory, crash, waits):
    from tests.uploads.harness import Server
    from tests.uploads.machine import machines

    fresh = machines(directory)
    settings = wanted("d/{metadata[filename]}", sidecar=True)
    for step in range(1, 1000):
        machine = next(fresh)
        for path in (UPLOADS, PLACED, f"{PLACED}/d"):
            machine.disk.make_directory(path)
            machine.disk.sync_directory(path.rpartition("/")[0] or "/")
        put(machine.disk, f"{PLACED}/d/x.bin", FOREIGN)
        server = Server(machine, placing=settings).start()
        ids = []
        if waits:  # linked, and not recorded
            machine.fail_commit(after=2, times=2)
        story(server, ids)
        assert server.row(ids[0]).placed is not waits
        machine.commit_faults.clear()
        machine.crash_at(step)
        deleted = server.delete(ids[0])
        over = not machine.down
        server.bury()
        after = machine.after_kill() if crash == "kill" else machine.after_power_loss(Random(step))
        server = Server(after, placing=settings).start()
        server.sweep()
        server.sweep()
        if server.row(ids[0]).gone:
            assert placed(server.disk) == {"d/x.bin": FOREIGN} and server.content(ids[0]) is None
        else:
            assert not deleted.done
            assert placed(server.disk)["d/x (2).bin"] == DATA and placed(server.disk)["d/x.bin"] == FOREIGN
        server.bury()
        if over:
            assert step > 5 and deleted.error is None
            return
    raise AssertionError("the story has no end")

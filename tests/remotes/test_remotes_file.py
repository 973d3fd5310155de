"""A directory as a remote: the contract, what it looks like on disk, and a crash at every step."""

from __future__ import annotations

import errno
import os
import tempfile
from random import Random

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from resumable.aio.threads import Pool
from resumable.model.keys import parse
from resumable.remotes import urls
from resumable.remotes.file.filesystem import PARTS, RemoteDirectory
from resumable.remotes.file.remote import SCHEME, FileRemote
from resumable.remotes.interfaces import (
    AuthFailed,
    Conflict,
    NotThere,
    OutOfStep,
    Permanent,
    Transient,
    Unusable,
)
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.regions import BytesRegion
from resumable.spool.disk import Disk
from resumable.testing import CallQueue, SimulatedCrash, SimulatedDisk, SteppedPool
from resumable.testing.contract import RemoteContract

ROOT = "/nas"
ID = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
DATA = bytes(range(256)) * 40
SIZE = len(DATA)
CHUNK = 4096


def mounted():
    disk = SimulatedDisk()
    disk.make_directory(ROOT)
    disk.sync_directory("/")
    return disk


def content(disk, path):
    """What is under a name; None: nothing."""
    size = disk.file_size(path)
    if size is None:
        return None
    fd = disk.open(path, read_only=True)
    try:
        return disk.read(fd, size, 0)
    finally:
        disk.close(fd)


class Process:
    """A run of the daemon, as far as this remote goes."""

    def __init__(self, disk, journal, **options):
        marker = options.pop("marker", "")
        self.disk, self.journal, self.clock = disk, journal, Clock()
        self.pool = SteppedPool(self.clock)
        self.pool.start()
        self.remote = FileRemote(RemoteDirectory(disk, ROOT, marker), journal, self.pool, lambda: 0.0, **options)

    def do(self, answer):
        """The result; raises what it failed with."""
        results = []
        answer.addBoth(results.append)
        while not results:
            self.clock.advance(0)
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def initiate(self, size=SIZE, upload_id=ID, **metadata):
        return self.do(self.remote.initiate_upload(upload_id, size, metadata))

    def write(self, offset, data, upload_id=ID):
        self.do(self.remote.write_chunk(upload_id, offset, BytesRegion(data), len(data)))

    def progress(self):
        return self.do(self.remote.get_upload_progress(ID))

    def store(self, data=DATA, upload_id=ID, **metadata):
        """All that the engine does, from wherever the last process left off."""
        for _ in range(4):
            try:
                self.initiate(len(data), upload_id, **metadata)
                offset = self.do(self.remote.get_upload_progress(upload_id))
                while offset < len(data):
                    self.write(offset, data[offset : offset + CHUNK], upload_id)
                    offset += CHUNK
                return self.do(self.remote.finalize_upload(upload_id))
            except OutOfStep:
                continue
        raise AssertionError("out of step again and again")


class TestOnASimulatedDisk(RemoteContract, SynchronousTestCase):
    carries_ids = False

    def setUp(self):
        self.disk = mounted()
        super().setUp()

    def tearDown(self):
        self.settle()
        assert not self.disk.open_files

    def make_remote(self, journal):
        self.process = Process(self.disk, journal)
        return self.process.remote

    def read_object(self, key):
        return content(self.disk, f"{ROOT}/{key}")

    def put_foreign(self, key, data):
        fd = self.disk.open(f"{ROOT}/{key}", create=True)
        self.disk.writev(fd, [data], 0)
        self.disk.close(fd)

    def settle(self):
        for _ in range(3):
            self.process.clock.advance(0)


class TestOnARealDisk(RemoteContract, SynchronousTestCase):
    carries_ids = False

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.queue = CallQueue()
        self.pool = Pool(self.queue, name="remote", size=2)
        self.pool.start()
        super().setUp()

    def tearDown(self):
        self.queue.until(self.pool.stop())

    def make_remote(self, journal):
        return FileRemote(
            RemoteDirectory(Disk(), self.directory.name),
            journal,
            self.pool,
            lambda: 0.0,
            template=parse("{date}/x/{id}"),
        )

    def outcome(self, answer):
        results = []
        self.queue.until(answer.addBoth(results.append))
        return results[0]

    def read_object(self, key):
        try:
            with open(f"{self.directory.name}/{key}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def put_foreign(self, key, data):
        path = f"{self.directory.name}/{key}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


# -- on disk


def test_it_is_written_beside_and_renamed():
    process = Process(mounted(), MemoryJournal())
    process.initiate()
    process.write(0, DATA[:CHUNK])
    assert content(process.disk, f"{ROOT}/{PARTS}/{ID}") == DATA[:CHUNK]
    assert content(process.disk, f"{ROOT}/{ID}") is None
    stored = process.store()
    assert content(process.disk, f"{ROOT}/{ID}") == DATA
    assert content(process.disk, f"{ROOT}/{PARTS}/{ID}") is None
    assert stored.location == f"file://{ROOT}/{ID}"


def test_the_bytes_are_synced_before_they_are_confirmed_and_before_the_rename():
    process = Process(mounted(), MemoryJournal())
    process.store(b"hello")
    steps = [name for name, _ in process.disk.trace]
    assert steps.index("writev") < steps.index("fdatasync") < steps.index("rename")
    assert steps.index("rename") < len(steps) - 1 - steps[::-1].index("sync_directory")


def test_keys_may_have_directories():
    process = Process(mounted(), MemoryJournal(), template=parse("a/{metadata[filename]}/{id}"))
    assert process.store(filename=b"../b").key == f"a/.._b/{ID}"
    assert content(process.disk, f"{ROOT}/a/.._b/{ID}") == DATA


def test_what_is_known_already_is_not_written_again():
    process = Process(mounted(), MemoryJournal())
    process.initiate()
    process.write(0, DATA[:CHUNK])
    before = len(process.disk.trace)
    process.write(0, DATA[:CHUNK])
    assert "writev" not in [name for name, _ in process.disk.trace[before:]]


def test_a_foreign_file_is_replaced_when_that_was_asked_for():
    for replace in (False, True):
        process = Process(mounted(), MemoryJournal(), template=parse("{metadata[filename]}"), replace=replace)
        process.disk.close(process.disk.open(f"{ROOT}/name", create=True))
        if replace:
            process.store(filename=b"name")
            assert content(process.disk, f"{ROOT}/name") == DATA
        else:
            with pytest.raises(Conflict):
                process.store(filename=b"name")
            assert content(process.disk, f"{ROOT}/name") == b""


def test_two_uploads_of_one_key_do_not_overwrite_each_other():
    process = Process(mounted(), MemoryJournal(), template=parse("{metadata[filename]}"))
    process.store(filename=b"name")
    with pytest.raises(Conflict):
        process.store(b"other", OTHER, filename=b"name")
    assert content(process.disk, f"{ROOT}/name") == DATA
    process.do(process.remote.abort_upload(OTHER))
    assert process.do(process.remote.delete_object(OTHER)) is False
    assert content(process.disk, f"{ROOT}/name") == DATA


def test_a_foreign_file_is_not_taken_for_ours_when_the_unfinished_one_disappears():
    process = Process(mounted(), MemoryJournal(), template=parse("{metadata[filename]}"))
    fd = process.disk.open(f"{ROOT}/name", create=True)
    process.disk.writev(fd, [DATA[::-1]], 0)
    process.disk.close(fd)
    with pytest.raises(Conflict):
        process.store(filename=b"name")
    process.disk.unlink(f"{ROOT}/{PARTS}/{ID}")
    with pytest.raises(NotThere):
        process.do(process.remote.finalize_upload(ID))
    assert content(process.disk, f"{ROOT}/name") == DATA[::-1]


def test_a_finalisation_that_was_given_up_and_happened_is_no_conflict():
    process = Process(mounted(), MemoryJournal())
    process.initiate()
    for offset in range(0, len(DATA), CHUNK):
        process.write(offset, DATA[offset : offset + CHUNK])
    first, second = process.remote.finalize_upload(ID), process.remote.finalize_upload(ID)
    process.clock.advance(0)
    first.cancel()
    first.addErrback(lambda failure: None)
    try:
        process.do(second)
    except Transient:
        process.do(process.remote.finalize_upload(ID))
    assert content(process.disk, f"{ROOT}/{ID}") == DATA
    assert nothing_unfinished(process)


def test_a_file_that_was_placed_meanwhile_is_no_conflict():
    disk = mounted()
    directory = RemoteDirectory(disk, ROOT)
    directory.create(ID)
    directory.place(ID, "name", 0, False)
    with pytest.raises(Transient):
        directory.place(ID, "name", 0, False)


@pytest.mark.parametrize("name", [b".resumable-parts", b".mounted"])
def test_our_own_names_are_no_keys(name):
    disk = mounted()
    disk.close(disk.open(f"{ROOT}/.mounted", create=True))
    process = Process(disk, MemoryJournal(), template=parse("{metadata[filename]}"), marker=".mounted")
    with pytest.raises(Permanent):
        process.store(filename=name)


@pytest.mark.parametrize("upload_id", ["../../etc/passwd", "", "a", ".probe", "a/" + "b" * 20])
def test_what_is_no_id_names_no_file(upload_id):
    process = Process(mounted(), MemoryJournal())
    with pytest.raises(ValueError, match="id"):
        process.initiate(5, upload_id)
    assert all(not name.startswith("..") for name in process.disk.names("/"))


def test_bytes_that_were_written_and_never_confirmed_are_not_part_of_the_object():
    process = Process(mounted(), MemoryJournal())
    process.initiate(None)
    process.disk.fail_next("fdatasync", errno.EIO)
    with pytest.raises(Transient):
        process.write(0, DATA)
    assert process.progress() == 0
    assert process.store(b"short").size == 5
    assert content(process.disk, f"{ROOT}/{ID}") == b"short"


def test_an_unfinished_file_that_has_become_shorter_begins_anew():
    process = Process(mounted(), MemoryJournal())
    process.initiate()
    process.write(0, DATA[:CHUNK])
    fd = process.disk.open(f"{ROOT}/{PARTS}/{ID}")
    process.disk.truncate(fd, 100)
    process.disk.close(fd)
    with pytest.raises(NotThere):
        process.progress()
    process.store()
    assert content(process.disk, f"{ROOT}/{ID}") == DATA


def test_a_part_file_that_was_closed_is_not_opened_again():
    disk = mounted()
    directory = RemoteDirectory(disk, ROOT)
    directory.create(ID)
    file = directory.part_file(ID)
    file.write(0, b"x")
    file.close()
    for late in (lambda: file.write(1, b"y"), file.sync):
        with pytest.raises(OSError):
            late()
    file.close()
    assert not disk.open_files
    assert content(disk, f"{ROOT}/{PARTS}/{ID}") == b"x"


# -- errors


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, Transient),
        (errno.EIO, Transient),
        (errno.ESTALE, Transient),
        (errno.EACCES, AuthFailed),
        (errno.EROFS, AuthFailed),
        (errno.EFBIG, Permanent),
    ],
)
def test_errors_of_the_disk_are_sorted_by_what_to_do(number, kind):
    process = Process(mounted(), MemoryJournal())
    process.initiate()
    process.disk.fail_next("writev", number)
    with pytest.raises(kind) as error:
        process.write(0, DATA)
    assert error.value.code == errno.errorcode[number]
    assert os.strerror(number) in error.value.reason and ROOT in error.value.reason
    process.store()
    assert content(process.disk, f"{ROOT}/{ID}") == DATA


def test_a_directory_that_is_not_there_is_never_made():
    process = Process(SimulatedDisk(), MemoryJournal())
    for answer in (process.remote.initiate_upload(ID, 1, {}), process.remote.probe()):
        with pytest.raises(Unusable) as error:
            process.do(answer)
        assert ROOT in error.value.reason and "mount" in error.value.advice
    assert list(process.disk.names("/")) == []


def test_progress_of_what_lies_on_an_unmounted_directory_is_not_lost():
    journal = MemoryJournal()
    process = Process(mounted(), journal)
    process.initiate()
    process.write(0, DATA[:CHUNK])
    with pytest.raises(Unusable):
        Process(SimulatedDisk(), journal).progress()
    assert process.progress() == CHUNK


def test_without_its_marker_a_directory_is_not_mounted():
    process = Process(mounted(), MemoryJournal(), marker=".mounted")
    with pytest.raises(Unusable, match=r"\.mounted"):
        process.initiate()
    process.disk.close(process.disk.open(f"{ROOT}/.mounted", create=True))
    process.store()


def test_a_file_system_that_syncs_no_directories_will_do():
    process = Process(mounted(), MemoryJournal())
    for _ in range(20):
        process.disk.fail_next("sync_directory", errno.EINVAL)
    process.store()
    assert content(process.disk, f"{ROOT}/{ID}") == DATA


def test_a_daemon_that_stops_is_no_fault_of_the_upload():
    process = Process(mounted(), MemoryJournal())
    process.do(process.pool.stop())
    with pytest.raises(Transient):
        process.initiate()


def test_a_probe_says_what_is_wrong():
    process = Process(mounted(), MemoryJournal())
    process.disk.fail_next("open", errno.EACCES)
    with pytest.raises(AuthFailed) as error:
        process.do(process.remote.probe())
    assert "write there" in error.value.advice


# -- crashes


def crash_everywhere(life, aftermath, check):
    """Stop at each step of ``life``, before and after it, the process or the power.

    Then ``aftermath``, in a new process, and ``check``, also once more on what the power leaves.
    """
    for before in (True, False):
        for power in (False, True):
            for step in range(1, 200):
                disk, journal = mounted(), MemoryJournal()
                disk.crash_at(disk.steps + step, before=before)
                try:
                    life(Process(disk, journal))
                except SimulatedCrash:
                    survivor = disk.crash(Random(step)) if power else disk.kill()
                    process = Process(survivor, journal)
                    aftermath(process)
                    check(process)
                    # and that is durable
                    for seed in range(4):
                        check(Process(survivor.crash(Random(seed)), journal))
                else:
                    assert step > 8
                    break
            else:
                raise AssertionError("it never ends")


def nothing_unfinished(process):
    return process.do(process.remote.list_unfinished(10, None)) == []


def test_after_a_crash_at_any_step_the_object_is_there_once_and_whole():
    def check(process):
        assert content(process.disk, f"{ROOT}/{ID}") == DATA
        assert nothing_unfinished(process)

    crash_everywhere(Process.store, Process.store, check)


def test_after_a_crash_at_any_step_the_directories_of_its_key_are_there():
    template = parse("a/b/{id}")

    def store(process):
        Process(process.disk, process.journal, template=template).store()

    def check(process):
        assert content(process.disk, f"{ROOT}/a/b/{ID}") == DATA

    crash_everywhere(store, store, check)


def test_after_a_crash_at_any_step_an_empty_object_is_there():
    def check(process):
        assert content(process.disk, f"{ROOT}/{ID}") == b""
        assert nothing_unfinished(process)

    crash_everywhere(lambda process: process.store(b""), lambda process: process.store(b""), check)


def test_after_a_crash_at_any_step_no_confirmed_byte_is_missing():
    def life(process):
        process.initiate()
        for offset in range(0, len(DATA), CHUNK):
            process.write(offset, DATA[offset : offset + CHUNK])

    def aftermath(process):
        try:
            offset = process.progress()
        except NotThere:
            process.initiate()
            offset = 0
        if offset < len(DATA):
            process.write(offset, DATA[offset : offset + CHUNK])

    def check(process):
        confirmed = process.progress()
        assert confirmed > 0
        assert content(process.disk, f"{ROOT}/{PARTS}/{ID}")[:confirmed] == DATA[:confirmed]

    crash_everywhere(life, aftermath, check)


def test_an_abort_after_a_crash_at_any_step_leaves_nothing_unfinished():
    def abort(process):
        process.do(process.remote.abort_upload(ID))

    def check(process):
        assert nothing_unfinished(process)
        assert content(process.disk, f"{ROOT}/{ID}") in (None, DATA)

    crash_everywhere(Process.store, abort, check)


def test_a_deletion_after_a_crash_at_any_step_leaves_nothing():
    def life(process):
        process.store()
        process.do(process.remote.delete_object(ID))

    def aftermath(process):
        process.do(process.remote.abort_upload(ID))
        process.do(process.remote.delete_object(ID))

    def check(process):
        assert nothing_unfinished(process)
        assert content(process.disk, f"{ROOT}/{ID}") is None

    crash_everywhere(life, aftermath, check)


# -- URL


def test_it_is_made_from_a_url():
    spec = urls.parse("file:///nas?key={date}/{id}&marker=.mounted")
    means = urls.BackendServices(Clock(), SteppedPool(Clock()), MemoryJournal(), mounted(), lambda: 0.0, Random(1))
    assert isinstance(urls.make(spec, means), FileRemote)


@pytest.mark.parametrize(
    ("options", "modes"),
    [("", (0o600, 0o700)), ("&file-mode=640&dir-mode=2750", (0o640, 0o2750)), ("&file-mode=664", (0o664, 0o700))],
)
def test_files_are_for_the_servers_user_unless_the_url_says_otherwise(tmp_path, options, modes):
    queue = CallQueue()
    pool = Pool(queue, name="remote", size=1)
    pool.start()
    spec = urls.parse(f"file://{tmp_path}?key=a/{{id}}{options}", lambda name: SCHEME)
    remote = SCHEME.make(spec, urls.BackendServices(Clock(), pool, MemoryJournal(), Disk(), lambda: 0.0, Random(1)))
    before = os.umask(0)
    try:
        for step in (
            lambda: remote.initiate_upload(ID, 0, {}),
            lambda: remote.finalize_upload(ID),
        ):
            queue.until(step())
    finally:
        os.umask(before)
        queue.until(pool.stop())
    found = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o7777 for path in tmp_path.rglob("*")}
    assert found == {PARTS: 0o700, "a": modes[1], f"a/{ID}": modes[0]}


@pytest.mark.parametrize("option", ["file-mode=400", "file-mode=x", "dir-mode=600", "dir-mode="])
def test_permissions_are_octal_and_leave_the_server_its_rights(option):
    with pytest.raises(urls.BadRemote, match=option.partition("=")[0]):
        urls.parse(f"file:///nas?{option}", lambda name: SCHEME)


@pytest.mark.parametrize("marker", ["", "a/b", ".."])
def test_a_marker_is_a_name(marker):
    with pytest.raises(urls.BadRemote, match="marker"):
        urls.parse(f"file:///nas?marker={marker}", lambda name: SCHEME)

"""The upload directory: written to or not, by whom, on what; and the lock in it."""

from __future__ import annotations

import os
import stat

import pytest

from resumable.doctor import directory
from resumable.doctor.directory import CheckedDirectory, DirectoryFacts, place_of
from resumable.spool.directory import DirectoryLock, Mount, mount_of

HERE = CheckedDirectory("/srv/up", "/srv/up")
ABOVE = CheckedDirectory("/srv/up", "/srv")


def test_a_directory_that_can_be_written_is_well(tmp_path):
    (found,) = directory.judge(directory.look(place_of(str(tmp_path))))
    assert found.level == "ok" or found.what.startswith("it belongs to")
    assert os.listdir(tmp_path) == []


def test_one_that_is_not_there_yet_is_not_made(tmp_path):
    there = place_of(f"{tmp_path}/a/b")
    assert there.nearest == str(tmp_path)
    found = directory.judge(directory.look(there))
    assert [each.level for each in found] == ["ok"]
    assert "will be made" in found[0].what
    assert os.listdir(tmp_path) == []


def test_a_file_in_its_place_is_bad(tmp_path):
    (tmp_path / "up").write_text("")
    (found,) = directory.judge(directory.look(place_of(f"{tmp_path}/up")))
    assert found.level == "bad" and "is no directory" in found.what


@pytest.mark.parametrize(
    ("found", "level", "word"),
    [
        (DirectoryFacts(HERE, "Permission denied"), "bad", "chown"),
        (DirectoryFacts(ABOVE, "Read-only file system"), "bad", "--upload-dir"),
        (DirectoryFacts(HERE, None, mount=Mount("/srv", "nfs4")), "bad", "--upload-dir"),
        (DirectoryFacts(HERE, None, apart=True), "bad", "as a whole"),
        (DirectoryFacts(HERE, None, owner=12345), "warn", "sudo -u uid 12345"),
        (DirectoryFacts(HERE, None, mode=0o777), "warn", "chmod o-w /srv/up"),
    ],
)
def test_what_is_wrong_says_what_to_change_there(found, level, word):
    wrong = [each for each in directory.judge(found) if each.level != "ok"]
    assert [each.level for each in wrong] == [level]
    assert word in wrong[0].advice


@pytest.mark.parametrize(
    "found",
    [
        DirectoryFacts(HERE, None, owner=5, me=5, mount=Mount("/", "ext4")),
        DirectoryFacts(HERE, None, mode=0o777 | stat.S_ISVTX),
        DirectoryFacts(ABOVE, None, owner=5, mode=0o777),
    ],
)
def test_what_others_may_do_harmlessly_is_no_warning(found):
    assert [each.level for each in directory.judge(found)] == ["ok"]


# The lock


def held(path) -> DirectoryLock:
    (path / ".resumable").mkdir()
    lock = DirectoryLock(str(path / ".resumable" / "lock"))
    lock.acquire()
    return lock


def test_who_has_the_lock_is_seen_and_not_disturbed(tmp_path):
    assert place_of(str(tmp_path)).held is False
    lock = held(tmp_path)
    found = place_of(str(tmp_path))
    assert found.held is True
    assert found.holder in (os.getpid(), None)
    lock.release()
    assert place_of(str(tmp_path)).held is False
    lock.acquire()
    lock.release()


def test_a_lock_is_never_made(tmp_path):
    place_of(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_the_holder_is_the_one_process_that_the_kernel_names(tmp_path):
    lock, table = tmp_path / "lock", tmp_path / "locks"
    lock.write_text("")
    inode = lock.stat().st_ino
    line = "{}: FLOCK  ADVISORY  WRITE {} 08:01:{} 0 EOF\n"
    for lines, pid in [
        ([(1, 77, inode), (2, 78, inode + 1)], 77),
        ([(1, 0, inode)], None),  # it is in another container
        ([(1, 77, inode), (2, 78, inode)], None),  # the same number on two disks
        ([], None),
    ]:
        table.write_text("".join(line.format(*each) for each in lines) + "9: POSIX  ADVISORY  READ 5 00:1b:1 0 0\n")
        assert directory.holder(str(lock), str(table)) == pid


@pytest.mark.process
def test_a_lock_keeps_another_process_out(tmp_path):
    assert directory.excludes(str(tmp_path))


@pytest.mark.parametrize(
    ("there", "excludes", "level", "word"),
    [
        (CheckedDirectory("/u", "/u"), True, "ok", "no daemon"),
        (CheckedDirectory("/u", "/u", True, 4711), True, "ok", "process 4711"),
        (CheckedDirectory("/u", "/u", True), True, "ok", "a daemon"),
        (CheckedDirectory("/u", "/u", None), True, "warn", "can't be opened"),
        (CheckedDirectory("/u", "/u"), False, "bad", "locked again"),
        (CheckedDirectory("/u", "/u"), "No locks available", "bad", "No locks available"),
    ],
)
def test_locks_are_judged(there, excludes, level, word):
    (found,) = directory.judge_locks(there, excludes)
    assert found.level == level
    assert word in found.what
    assert bool(found.advice) is (level != "ok")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open any file")
def test_a_lock_that_can_not_be_opened_is_not_taken_for_a_free_one(tmp_path):
    held(tmp_path).release()
    os.chmod(tmp_path / ".resumable" / "lock", 0)
    assert place_of(str(tmp_path)).held is None


# Mounts

MOUNTS = """\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw,nobarrier
40 22 0:35 / /srv/donn\u00e9es rw,noatime - nfs4 server:/export rw,vers=4.2
42 22 0:36 / /srv/with\\040blank rw,relatime - overlay overlay rw,volatile
"""


def test_a_mount_is_read_with_all_its_options_and_any_name(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS, encoding="utf-8")
    assert mount_of("/srv", str(table)) == Mount(
        "/", "ext4", "/dev/root", "259:1", frozenset({"rw", "relatime", "nobarrier"})
    )
    assert mount_of("/srv/donn\u00e9es/up", str(table)).kind == "nfs4"
    assert "volatile" in mount_of("/srv/with blank", str(table)).options
    table.write_text("nonsense\n")
    assert mount_of("/srv", str(table)) is None

"""The system calls: the real disk and the simulated one keep the same promises."""

from __future__ import annotations

import errno
import os
import subprocess
from abc import ABC, abstractmethod

import pytest
from zope.interface.verify import verifyObject

from resumable.spool.disk import IOV_MAX, Disk, IDisk, Modes
from resumable.testing import SimulatedDisk


class DiskContract(ABC):
    @abstractmethod
    def make_disk(self, tmp_path):
        """A disk and a directory on it that is there and empty."""

    @pytest.fixture(autouse=True)
    def a_disk(self, tmp_path):
        self.disk, self.directory = self.make_disk(tmp_path)
        self.path = f"{self.directory}/file"

    def content(self, path=None):
        fd = self.disk.open(path or self.path, read_only=True)
        try:
            return self.disk.read(fd, 1 << 20, 0)
        finally:
            self.disk.close(fd)

    def make(self, data=b"", path=None):
        fd = self.disk.open(path or self.path, create=True)
        self.disk.writev(fd, [data], 0)
        self.disk.close(fd)

    def test_provides_the_interface(self):
        assert verifyObject(IDisk, self.disk)

    def test_opening_makes_a_file_only_when_asked_and_empties_an_old_one_then(self):
        with pytest.raises(FileNotFoundError):
            self.disk.open(self.path)
        self.make(b"old content")
        self.disk.close(self.disk.open(self.path))
        assert self.content() == b"old content"
        self.disk.close(self.disk.open(self.path, create=True))
        assert self.content() == b""

    def test_a_new_file_is_made_only_where_there_is_nothing(self):
        fd = self.disk.create_new(self.path)
        self.disk.writev(fd, [b"mine"], 0)
        self.disk.close(fd)
        with pytest.raises(FileExistsError):
            self.disk.create_new(self.path)
        assert self.content() == b"mine"
        with pytest.raises(FileNotFoundError):
            self.disk.create_new(f"{self.directory}/missing/file")

    def test_writes_all_buffers_at_the_offset(self):
        fd = self.disk.open(self.path, create=True)
        self.disk.writev(fd, [b"abc", b"", b"de"], 0)
        self.disk.writev(fd, [b"XY", b"Z"], 4)
        self.disk.writev(fd, [], 100)
        assert self.disk.size(fd) == 7
        self.disk.close(fd)
        assert self.content() == b"abcdXYZ"

    def test_writes_more_buffers_than_one_call_may_take(self):
        buffers = [bytes([number % 256]) * 3 for number in range(2 * IOV_MAX + 7)]
        fd = self.disk.open(self.path, create=True)
        self.disk.writev(fd, buffers, 5)
        self.disk.close(fd)
        assert self.content() == bytes(5) + b"".join(buffers)

    def test_reads_less_than_asked_only_at_the_end(self):
        self.make(b"0123456789")
        fd = self.disk.open(self.path, read_only=True)
        assert self.disk.read(fd, 4, 2) == b"2345"
        assert self.disk.read(fd, 4, 8) == b"89"
        assert self.disk.read(fd, 4, 10) == b""
        self.disk.close(fd)

    def test_a_file_open_for_reading_refuses_writes(self):
        self.make(b"abc")
        fd = self.disk.open(self.path, read_only=True)
        with pytest.raises(OSError):
            self.disk.writev(fd, [b"x"], 0)
        self.disk.close(fd)
        assert self.content() == b"abc"

    def test_truncates_and_extends(self):
        self.make(b"0123456789")
        fd = self.disk.open(self.path)
        self.disk.truncate(fd, 4)
        assert self.disk.size(fd) == 4
        self.disk.truncate(fd, 6)
        self.disk.fdatasync(fd)
        self.disk.close(fd)
        assert self.content() == b"0123\0\0"
        assert self.disk.file_size(self.path) == 6

    def test_a_closed_descriptor_is_refused(self):
        fd = self.disk.open(self.path, create=True)
        self.disk.close(fd)
        with pytest.raises(OSError) as caught:
            self.disk.fdatasync(fd)
        assert caught.value.errno == errno.EBADF

    def test_names_come_and_go(self):
        assert self.disk.file_size(self.path) is None
        assert self.disk.unlink(self.path) is False
        self.make(b"one")
        assert set(self.disk.names(self.directory)) == {"file"}
        self.make(b"two", f"{self.directory}/other")
        self.disk.rename(self.path, f"{self.directory}/other")
        self.disk.sync_directory(self.directory)
        assert set(self.disk.names(self.directory)) == {"other"}
        assert self.content(f"{self.directory}/other") == b"one"
        assert self.disk.unlink(f"{self.directory}/other") is True
        assert set(self.disk.names(self.directory)) == set()

    def test_an_unlinked_file_that_is_open_can_still_be_read(self):
        self.make(b"abc")
        fd = self.disk.open(self.path, read_only=True)
        self.disk.unlink(self.path)
        assert self.disk.read(fd, 3, 0) == b"abc"
        self.disk.close(fd)

    def test_makes_a_directory_once(self):
        assert self.disk.make_directory(f"{self.directory}/sub") is True
        assert self.disk.make_directory(f"{self.directory}/sub") is False
        self.make(b"x", f"{self.directory}/sub/file")
        with pytest.raises(FileNotFoundError):
            self.make(b"x", f"{self.directory}/missing/file")

    def test_a_link_is_another_name_and_replaces_nothing(self):
        self.make(b"one")
        self.make(b"two", f"{self.directory}/other")
        assert self.disk.link(self.path, f"{self.directory}/other") is False
        assert self.content(f"{self.directory}/other") == b"two"
        assert self.disk.link(self.path, f"{self.directory}/third") is True
        one, third = self.disk.look(self.path), self.disk.look(f"{self.directory}/third")
        assert one == third and one.links == 2 and one.is_file and one.size == 3
        assert self.disk.look(f"{self.directory}/other").inode != one.inode
        self.disk.rename(self.path, f"{self.directory}/third")
        assert self.disk.look(self.path) == one, "both are one file: nothing happens"
        with pytest.raises(FileNotFoundError):
            self.disk.link(f"{self.directory}/none", f"{self.directory}/fourth")
        with pytest.raises(FileNotFoundError):
            self.disk.rename(f"{self.directory}/none", self.path)

    def test_a_change_of_the_content_shows(self):
        self.make(b"one")
        before = self.disk.look(self.path)
        fd = self.disk.open(self.path)
        self.disk.set_mode(fd, 0o600)
        assert self.disk.look(fd) == before
        self.disk.writev(fd, [b"two"], 0)
        self.disk.fsync(fd)
        self.disk.close(fd)
        # two changes within one tick of the system's clock show no difference: that is no promise
        assert self.disk.look(self.path).modified >= before.modified
        assert self.disk.look(f"{self.directory}/none") is None

    def test_what_is_within_a_directory_that_is_open(self):
        root = self.disk.open_directory(self.directory)
        assert self.disk.make_directory("sub", 0o750, within=root) is True
        assert self.disk.make_directory("sub", within=root) is False
        sub = self.disk.open_directory("sub", within=root)
        fd = self.disk.open("new", create=True, within=sub)
        self.disk.writev(fd, [b"abc"], 0)
        self.disk.close(fd)
        assert self.content(f"{self.directory}/sub/new") == b"abc"
        assert self.disk.look("new", within=sub).size == 3
        assert self.disk.look("sub", within=root).is_file is False
        self.make(b"one")
        assert self.disk.link(self.path, "new", within=sub) is False
        assert self.disk.link(self.path, "linked", within=sub) is True
        self.disk.rename(self.path, "new", within=sub)
        assert set(self.disk.names(f"{self.directory}/sub")) == {"new", "linked"}
        self.disk.fsync(sub)
        assert self.disk.remove_directory("sub", within=root) is False
        assert self.disk.unlink("new", within=sub) is self.disk.unlink("linked", within=sub) is True
        assert self.disk.unlink("linked", within=sub) is False
        self.disk.close(sub)
        assert self.disk.remove_directory("sub", within=root) is True
        assert self.disk.remove_directory("sub", within=root) is False
        for missing in (self.disk.open, self.disk.open_directory):
            with pytest.raises(FileNotFoundError):
                missing("sub", within=root)
        self.make(b"x")
        with pytest.raises(NotADirectoryError):
            self.disk.open_directory("file", within=root)
        assert self.disk.remove_directory("file", within=root) is False
        self.disk.close(root)

    def test_copies_a_range_and_answers_0_only_at_the_end(self):
        self.make(b"0123456789")
        source = self.disk.open(self.path, read_only=True)
        target = self.disk.open(f"{self.directory}/copy", create=True)
        assert self.disk.copy_range(source, target, 2, 3, 5) == 5
        assert self.disk.copy_range(source, target, 8, 8, 100) == 2
        assert self.disk.copy_range(source, target, 10, 10, 100) == 0
        self.disk.close(source)
        self.disk.close(target)
        assert self.content(f"{self.directory}/copy") == b"\0\0\0" + b"23456" + b"89"

    def test_allocating_extends_the_file_and_never_shortens_it(self):
        fd = self.disk.open(self.path, create=True)
        self.disk.allocate(fd, 100)
        assert self.disk.size(fd) == 100
        self.disk.allocate(fd, 10)
        assert self.disk.size(fd) == 100
        self.disk.close(fd)

    def test_tells_the_free_space(self):
        assert self.disk.free(self.directory) > 0


class TestDisk(DiskContract):
    def make_disk(self, tmp_path):
        return Disk(), str(tmp_path)

    def test_a_short_write_is_continued_where_it_stopped(self, monkeypatch):
        real = os.pwritev
        sizes = []

        def short(fd, buffers, offset):
            sizes.append(sum(map(len, buffers)))
            left = 3
            cut = []
            for buffer in buffers:
                cut.append(bytes(buffer[:left]))
                left -= len(cut[-1])
            return real(fd, cut, offset)

        monkeypatch.setattr(os, "pwritev", short)
        fd = self.disk.open(self.path, create=True)
        self.disk.writev(fd, [b"ab", b"", b"cdefg", b"h", b"ij"], 1)
        self.disk.close(fd)
        assert self.content() == b"\0abcdefghij"
        assert sizes == [10, 7, 4, 1]

    def test_a_short_read_is_continued(self, monkeypatch):
        self.make(b"0123456789")
        real = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, size, offset: real(fd, min(size, 3), offset))
        assert self.content() == b"0123456789"

    @pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
    def test_copying_works_where_the_system_call_does_not(self, monkeypatch, number):
        def refuse(*args):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("resumable.spool.disk.copy_file_range", refuse)
        self.test_copies_a_range_and_answers_0_only_at_the_end()

    def test_copying_believes_no_0_that_is_not_the_end(self, monkeypatch):
        monkeypatch.setattr("resumable.spool.disk.copy_file_range", lambda *args: 0)
        self.test_copies_a_range_and_answers_0_only_at_the_end()

    def test_other_errors_of_copying_are_raised(self, monkeypatch):
        def fail(*args):
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr("resumable.spool.disk.copy_file_range", fail)
        with pytest.raises(OSError, match="full"):
            self.test_copies_a_range_and_answers_0_only_at_the_end()

    def test_a_symbolic_link_is_not_followed(self, tmp_path):
        (tmp_path / "secret").write_bytes(b"secret")
        (tmp_path / "file").symlink_to(tmp_path / "secret")
        for create in (False, True):
            with pytest.raises(OSError) as caught:
                self.disk.open(self.path, create=create)
            assert caught.value.errno == errno.ELOOP
        assert (tmp_path / "secret").read_bytes() == b"secret"

    def test_within_a_directory_no_symbolic_link_is_followed(self, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "secret").write_bytes(b"secret")
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "way").symlink_to(tmp_path / "outside")
        (tmp_path / "in" / "file").symlink_to(tmp_path / "outside" / "secret")
        within = self.disk.open_directory(f"{self.directory}/in")
        with pytest.raises(NotADirectoryError):
            self.disk.open_directory("way", within=within)
        with pytest.raises(OSError):
            self.disk.open("file", read_only=True, within=within)
        assert self.disk.look("file", within=within).is_file is False
        assert self.disk.make_directory("way", within=within) is False
        self.make(b"ours")
        assert self.disk.link(self.path, "file", within=within) is False
        assert self.disk.unlink("file", within=within) is True
        assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"
        self.disk.close(within)

    def test_a_pipe_that_somebody_has_put_there_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        within = self.disk.open_directory(self.directory)
        assert self.disk.look("pipe", within=within).is_file is False
        self.disk.close(self.disk.open("pipe", read_only=True, within=within))
        self.disk.close(within)

    def test_permissions_are_set(self, tmp_path):
        fd = self.disk.open(self.path, create=True)
        self.disk.set_mode(fd, 0o664)
        self.disk.close(fd)
        assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o664

    @pytest.mark.parametrize("umask", [0, 0o022, 0o077])
    @pytest.mark.parametrize("modes", [Modes(), Modes(0o640, 0o2750), Modes(0o644, 0o755), Modes(0o666, 0o777)])
    def test_what_is_made_has_these_permissions_whatever_the_umask(self, tmp_path, umask, modes):
        disk = Disk(modes)
        before = os.umask(umask)
        try:
            for name, mode in (("file", None), ("other", 0o660)):
                disk.close(disk.open(f"{tmp_path}/{name}", create=True, mode=mode))
            for name, mode in (("sub", None), ("further", 0o1777)):
                assert disk.make_directory(f"{tmp_path}/{name}", mode)
        finally:
            os.umask(before)
        found = {path.name: path.stat().st_mode & 0o7777 for path in tmp_path.iterdir()}
        assert found == {"file": modes.file, "other": 0o660, "sub": modes.directory, "further": 0o1777}

    def test_what_is_there_keeps_its_permissions(self, tmp_path):
        (tmp_path / "sub").mkdir(0o711)
        (tmp_path / "file").touch(0o604)
        self.disk.close(self.disk.open(self.path, create=True))
        assert not self.disk.make_directory(f"{self.directory}/sub", 0o777)
        assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o604
        assert (tmp_path / "sub").stat().st_mode & 0o7777 == 0o711

    def test_descriptors_are_not_inherited(self):
        fd = self.disk.open(self.path, create=True)
        assert os.get_inheritable(fd) is False
        self.disk.close(fd)

    def test_offsets_beyond_2_to_the_32(self):
        fd = self.disk.open(self.path, create=True)
        self.disk.writev(fd, [b"end"], (1 << 32) + 5)
        assert self.disk.size(fd) == (1 << 32) + 8
        assert self.disk.read(fd, 10, (1 << 32) + 4) == b"\0end"
        self.disk.close(fd)


class TestSimulatedDisk(DiskContract):
    def make_disk(self, tmp_path):
        disk = SimulatedDisk()
        disk.make_directory("/spool")
        return disk, "/spool"


@pytest.fixture(params=[pytest.param("tmpfs", marks=pytest.mark.process)])
def tiny(tmp_path):
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs takes root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield str(tmp_path)
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk_is_ENOSPC_and_what_was_synced_before_stays(tiny):
    disk = Disk()
    fd = disk.open(f"{tiny}/file", create=True)
    disk.writev(fd, [b"a" * 600_000], 0)
    disk.fdatasync(fd)
    with pytest.raises(OSError) as caught:
        disk.writev(fd, [b"b" * 300_000] * 3, 600_000)
    assert caught.value.errno == errno.ENOSPC
    assert disk.free(tiny) == 0
    assert disk.read(fd, 600_000, 0) == b"a" * 600_000
    disk.close(fd)

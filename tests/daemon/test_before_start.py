"""What is looked at before the daemon starts, where a real machine does not show it."""

from __future__ import annotations

import gc
import os
import platform
import weakref
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from resumable.config.options import Options
from resumable.daemon import startup
from resumable.daemon.children import Collector
from resumable.daemon.service import UploadService
from resumable.listening.endpoints import check_ports
from resumable.model.errors import StartupError
from resumable.spool import Disk, Modes
from resumable.spool.directory import file_system

MOUNTS = """\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:35 / /srv/share rw,relatime - nfs4 server:/export rw
41 40 259:2 / /srv/share/disk rw,relatime - xfs /dev/sdb rw
42 22 0:36 / /srv/with\\040blank rw,relatime - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/uploads", "ext4"),
        ("/srv/share", "nfs4"),
        ("/srv/share/uploads", "nfs4"),
        ("/srv/share/disk/uploads", "xfs"),
        ("/srv/shared", "ext4"),
        ("/srv/with blank/uploads", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert file_system(path, str(tmp_path / "mountinfo")) == kind


def test_where_mounts_can_not_be_read_nothing_is_refused(tmp_path: Path) -> None:
    assert file_system("/", str(tmp_path / "nothing")) is None


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs"])
def test_network_file_systems_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems are refused: they can lose what was acknowledged."""
    monkeypatch.setattr(startup, "file_system", lambda _: kind)
    with pytest.raises(StartupError, match=rf"network file system \({kind}\).*--upload-dir"):
        startup.check_directory(str(tmp_path), Disk())


@pytest.mark.parametrize("description", ["tcp:0", "systemd:domain=INET:index=0"])
def test_endpoints_that_can_not_be_looked_at_are_left_to_the_start(description: str) -> None:
    check_ports([description])


class WatchedDisk(Disk):
    def __init__(self):
        super().__init__()
        self.synced = []

    def sync_directory(self, path):
        super().sync_directory(path)
        self.synced.append(path)


def test_new_directories_are_durable(tmp_path):
    """New files, renames and new directories sync their parent."""
    disk = WatchedDisk()
    for _ in range(2):
        startup.make_directories(f"{tmp_path}/a/b/.resumable", disk)
    assert disk.synced == [f"{tmp_path}", f"{tmp_path}/a", f"{tmp_path}/a/b"]


@pytest.fixture
def umask():
    """As permissive as can be."""
    before = os.umask(0)
    yield os.umask
    os.umask(before)


def modes(root):
    return {str(path.relative_to(root)): path.stat().st_mode & 0o7777 for path in sorted(root.rglob("*"))}


def test_what_is_made_at_the_start_is_for_the_servers_user_alone(tmp_path, umask):
    startup.check_directory(f"{tmp_path}/a/uploads", Disk())
    assert modes(tmp_path) == {"a": 0o700, "a/uploads": 0o700, "a/uploads/.resumable": 0o700, **LOCK}


LOCK = {"a/uploads/.resumable/lock": 0o600}


def test_what_an_operator_shares_is_shared_whatever_the_umask_is_but_for_what_is_ours(tmp_path, umask):
    umask(0o077)
    startup.check_directory(f"{tmp_path}/a/uploads", Disk(Modes(0o640, 0o2750)))
    assert modes(tmp_path) == {"a": 0o2750, "a/uploads": 0o2750, "a/uploads/.resumable": 0o2700, **LOCK}


def test_a_directory_that_is_there_stays_as_it_is(tmp_path, umask):
    (tmp_path / "a/uploads").mkdir(0o755, parents=True)
    startup.check_directory(f"{tmp_path}/a/uploads", Disk())
    assert (tmp_path / "a/uploads").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "a/uploads/.resumable").stat().st_mode & 0o7777 == 0o700


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon:"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc keeps its heap as it likes")
def test_the_holes_of_the_heap_are_given_back():
    """Memory is flat: what slow uploads leave behind between small objects goes back to the kernel."""
    before = resident()
    pairs = [(bytes(b"x" * 65_536), bytes(b"y" * 600)) for _ in range(2000)]
    lasting = [small for _, small in pairs]
    del pairs
    startup.give_back_heap()
    assert len(lasting) == 2000
    assert resident() - before < 32 << 20


def test_what_is_there_at_the_start_is_hidden_from_the_garbage_collector(tmp_path: Path) -> None:
    """Going through all of it takes 50 ms, in which no request is answered."""
    options = Options()
    options.parseOptions(["--upload-dir", str(tmp_path)])
    [collector] = [each for each in UploadService(options.settings(), Clock()).services if isinstance(each, Collector)]
    garbage: list[object] = []
    garbage.append(garbage)
    garbage.append(kept := Disk())
    gone = weakref.ref(kept)
    del garbage, kept
    before = gc.get_threshold()
    collector.startService()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] == startup.YOUNG
    assert gone() is None, "it would stay for good"
    collector.stopService()
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before

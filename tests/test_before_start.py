"""What is looked at before the daemon starts, where a real machine does not show it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from resumable import startup
from resumable.spool import Disk
from resumable.spool.lock import file_system
from resumable.startup import StartupError

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
        startup.check_directory(str(tmp_path))


@pytest.mark.parametrize("description", ["tcp:0", "systemd:domain=INET:index=0", "tcp:8080:interface=\\:\\:1"])
def test_endpoints_that_can_not_be_looked_at_are_left_to_the_start(description: str) -> None:
    startup.check_ports([description])


class WatchedDisk(Disk):
    def __init__(self):
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

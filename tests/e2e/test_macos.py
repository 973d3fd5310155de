"""A daemon without what only Linux has, as on macOS: nothing that was acknowledged is lost, and every command works.

Hidden by macos/sitecustomize.py: the calls, /proc and /sys, the limit of open files; ``sys.platform`` is macOS's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .commands import command
from .daemon import ROOT, Daemon, eventually
from .tus import Tus, holder, metadata, pattern

pytestmark = pytest.mark.process

SIZE = 3 << 20


class Mac(Daemon):
    """A daemon to which Linux's calls are hidden. ``synced``: the inodes of its full syncs."""

    shares = False

    def __init__(self, *flags: str) -> None:
        hidden = os.pathsep.join([str(Path(__file__).parent / "macos"), str(ROOT)])
        super().__init__(*flags, env={"PYTHONPATH": hidden})
        self.env["FULL_SYNCS"] = str(self.home / "syncs")

    @property
    def synced(self) -> list[int]:
        return [int(line) for line in (self.home / "syncs").read_text().split()]

    def ask(self, *arguments: str) -> str:
        done = command(*arguments, cwd=self.home, env=self.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def mac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mac]:
    nas = tmp_path_factory.mktemp("nas")
    with Mac("--remote", f"file://{nas}?name=nas") as daemon:
        daemon.start()
        yield daemon
        assert not daemon.complaints(), "\n".join(daemon.complaints())


@pytest.fixture
def client(mac: Mac) -> Iterator[Tus]:
    tus = mac.attach(Tus(mac.port))
    yield tus
    tus.close()


def test_an_upload_that_is_cut_and_killed_goes_on_and_is_fetched(mac: Mac, client: Tus) -> None:
    data = pattern(SIZE)
    path = client.create(SIZE, {"Upload-Metadata": metadata(filename="a.bin")})
    with holder(client, path, 0, SIZE, data[: SIZE // 2]):
        eventually(lambda: client.offset(path) > 0)
    eventually(lambda: client.offset(path) == SIZE // 2)
    mac.restart()
    assert client.offset(path) == SIZE // 2, "what was acknowledged outlives SIGKILL"
    client.finish(path, data)
    assert client.content(path) == data
    mac.restart()
    assert client.content(path) == data


def test_what_is_acknowledged_was_synced_to_the_platter(mac: Mac, client: Tus) -> None:
    path = client.create(5, None, b"abc")
    file = next(each for each in mac.upload_dir.iterdir() if each.name.startswith(path.rpartition("/")[2]))
    catalog = mac.upload_dir / ".resumable"
    assert file.stat().st_ino in mac.synced
    assert mac.upload_dir.stat().st_ino in mac.synced or catalog.stat().st_ino in mac.synced


def test_partial_uploads_are_put_together_without_copies_by_the_kernel(client: Tus) -> None:
    data = pattern(SIZE)
    parts = [client.partial(data[: SIZE // 3]), client.partial(data[SIZE // 3 :])]
    final = client.concat(*parts)
    client.assembled(final)
    assert client.content(final) == data


def test_operators_are_answered(mac: Mac, client: Tus) -> None:
    path = client.create(5, {"Upload-Metadata": metadata(filename="b.txt")}, b"abcde")
    upload_id = path.rpartition("/")[2]
    eventually(lambda: json.loads(mac.ask("show", upload_id[:8], "--json"))["state"] == "stored")
    assert upload_id in mac.ask("ls", "--newest")
    assert mac.ask("rm", upload_id[:8]) == f"{upload_id}: removed\n"


def test_the_doctor_says_what_it_did_not_look_at(mac: Mac) -> None:
    found = mac.ask("doctor", "--json", *mac.arguments()[1:])
    told = {each["check"]: each for each in map(json.loads, found.splitlines())}
    assert all(each["level"] != "bad" for each in told.values()), found
    assert told["memory"]["what"].startswith("not looked at")

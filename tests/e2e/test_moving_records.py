"""The records of real servers move to PostgreSQL and back: clients go on where they were, and mistakes are one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgres import database, server

from .commands import command, refuse
from .daemon import BOUND, Daemon, environment, eventually
from .disks import Mount
from .nodes import Nodes
from .tus import Tus, patch_head, pattern


class Installation:
    """One upload directory, a server that has it for itself, and two nodes that share it."""

    def __init__(self) -> None:
        self.nodes = Nodes(2)
        self.home, self.upload_dir, self.url = self.nodes.home, self.nodes.upload_dir, self.nodes.url
        self.nas = self.home / "nas"
        self.nas.mkdir()
        flags = ("--remote", f"file://{self.nas}?name=nas", "--keep-partials", "1h")
        for node in self.nodes.daemons:
            node.flags = (*node.flags, *flags)
        self.alone = Daemon("--catalog", "sqlite", *flags, upload_dir=self.upload_dir)
        self.tus = self.alone.attach(Tus(self.alone.port))

    def move(self, to: str, *more: str) -> subprocess.CompletedProcess[str]:
        return command("catalog", "move", "--to", to, "--upload-dir", str(self.upload_dir), *more, cwd=self.home)

    def share(self) -> str:
        done = self.move(self.url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def go_back(self) -> str:
        done = self.move("sqlite", "--catalog", self.url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, to: str, *more: str) -> str:
        """The one line that it says."""
        done = self.move(to, *more)
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 1 and len(lines) == 1 and lines[0].startswith("resumable: "), (done, lines)
        return lines[0].removeprefix("resumable: ")

    def stop_nodes(self) -> None:
        for node in self.nodes.daemons:
            assert node.stop() == 0

    def close(self) -> None:
        self.alone.close()
        self.nodes.close()


@pytest.fixture
def installation() -> Iterator[Installation]:
    made = Installation()
    yield made
    complaints = [*made.alone.complaints(), *made.nodes.complaints()]
    made.close()
    assert not complaints, "\n".join(complaints)


def content(tus: Tus, path: str) -> bytes:
    answer = tus.get(path)
    assert answer.status == 200, answer
    return answer.body


def test_clients_go_on_at_several_nodes_and_then_at_one_server_again(installation: Installation) -> None:
    alone, tus = installation.alone.start(), installation.tus
    data = {name: pattern(900_000, number) for number, name in enumerate(("new", "begun", "cut", "small", "deferred"))}
    path = {name: tus.create(None if name == "deferred" else 900_000) for name in data}
    done = tus.create(5000, body=pattern(5000, 9))
    parts = [tus.partial(pattern(1000, 10)), tus.create(2000, {"Upload-Concat": "partial"})]
    final = tus.concat(*parts)
    deleted = tus.create(10, body=b"0123456789")
    assert tus.delete(deleted).status == 204
    for name, size in (("begun", 300_000), ("small", 1), ("deferred", 100_000)):
        assert tus.patch(path[name], 0, data[name][:size]).status == 204
    with tus.wire() as wire:
        wire.send(patch_head(path["cut"], 0, 900_000) + data["cut"][:200_000])
        file = installation.upload_dir / path["cut"].rpartition("/")[2]
        assert eventually(lambda: file.exists() and file.stat().st_size == 200_000)
        alone.kill()

    said = installation.share()
    assert "1 uploads moved on to bytes that had arrived" in said and "found 10 uploads" in said
    assert "start each server with: twistd -n --pidfile= resumable --catalog 'postgresql://...@/" in said
    here, there = installation.nodes.start().tus
    assert {name: there.offset(path[name]) for name in data} == {
        **{"new": 0, "begun": 300_000, "cut": 200_000},
        **{"small": 1, "deferred": 100_000},
    }
    assert content(here, done) == content(there, done) == pattern(5000, 9)
    assert there.head(deleted).status in (404, 410)
    there.finish(path["begun"], data["begun"])
    for name in ("new", "small", "deferred"):
        for tus_of in (here, there, here):
            at = tus_of.offset(path[name])
            assert tus_of.patch(path[name], at, data[name][at : at + 100_000]).status == 204
    assert here.patch(parts[1], 0, pattern(1500, 11)[:700]).status == 204
    assert content(there, path["begun"]) == data["begun"]
    born = there.create(400_000)
    assert here.patch(born, 0, pattern(400_000, 12)[:123_456]).status == 204
    installation.stop_nodes()

    assert "SQLite has the records" in installation.go_back()
    alone.start()
    assert {name: tus.offset(path[name]) for name in data} == {
        **{"new": 300_000, "begun": 900_000, "cut": 200_000},
        **{"small": 300_001, "deferred": 400_000},
    }
    assert tus.offset(born) == 123_456
    for name in ("new", "cut", "small"):
        tus.finish(path[name], data[name])
    answer = tus.patch(path["deferred"], 400_000, data["deferred"][400_000:], {"Upload-Length": "900000"})
    assert answer.status == 204
    tus.finish(born, pattern(400_000, 12))
    rest = pattern(1500, 11)[:700] + pattern(1300, 13)
    tus.finish(parts[1], rest)
    assert eventually(lambda: tus.head(final).get("upload-offset"), 30)
    assert content(tus, final) == pattern(1000, 10) + rest
    for name in data:
        assert content(tus, path[name]) == data[name], name
    assert content(tus, done) == pattern(5000, 9)
    sizes = [900_000] * 5 + [5000, 3000, 400_000]
    assert eventually(
        lambda: sorted(each.stat().st_size for each in installation.nas.iterdir() if each.is_file()) == sorted(sizes)
    )


def test_servers_that_run_are_named(installation: Installation) -> None:
    installation.alone.start()
    installation.tus.create(10, body=b"0123456789")
    assert "Another daemon uses the upload directory" in installation.refused(installation.url)
    assert installation.alone.stop() == 0
    installation.share()
    installation.nodes.daemons[0].start()
    assert "stop all servers" in installation.refused("sqlite", "--catalog", installation.url)
    assert installation.nodes.daemons[0].stop() == 0
    installation.go_back()
    run = ("--run-dir", str(installation.home / "run"))
    said = refuse(
        "--catalog", installation.url, *run, "--upload-dir", str(installation.home / "x"), cwd=installation.home
    )
    assert "the records of this database were moved to SQLite" in said


def test_mistakes_are_one_line_and_change_nothing(installation: Installation) -> None:
    assert "is no upload directory" in installation.refused(installation.url)
    installation.alone.start()
    path = installation.tus.create(10, body=b"0123456789")
    assert installation.alone.stop() == 0
    secret = "postgresql://uploads:s3cret@127.0.0.1:1/uploads"
    said = installation.refused(secret)
    assert "onnection" in said and "s3cret" not in said
    said = installation.refused(wrong_password())
    assert "password authentication failed" in said and "wr0ng" not in said

    own = installation.upload_dir / ".resumable"
    if os.geteuid() == 0:
        os.chown(own, 12345, 12345)
        assert "belongs to the user 12345: run this command as 12345" in installation.refused(installation.url)
        os.chown(own, 0, 0)
    code = "import sys; sys.modules['psycopg'] = None; from resumable.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "catalog", "move", "--to", installation.url],
        cwd=installation.home,
        env=environment({"RESUMABLE_UPLOAD_DIR": str(installation.upload_dir)}),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "resumable: postgresql://... needs the extra postgres: pip install 'resumable-server[postgres]'\n"
    )
    installation.share()
    other = "another database: name the one that it was used with"
    assert other in installation.refused("sqlite", "--catalog", database())
    installation.go_back()
    installation.alone.start()
    assert content(installation.tus, path) == b"0123456789"


def wrong_password() -> str:
    """The URL of the tests' server, for a user whose password is another one."""
    with psycopg.connect(server(), autocommit=True) as connection:
        row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        file = Path(row[0])
        if "movers" not in file.read_text():
            connection.execute("CREATE ROLE movers LOGIN PASSWORD 'right'")
            file.write_text(f"local all movers scram-sha-256\n{file.read_text()}")
            connection.execute("SELECT pg_reload_conf()")
    return server().replace("postgres:@", "movers:wr0ng@", 1)


def test_a_full_disk_takes_the_move_back(installation: Installation, tmpfs: Mount) -> None:
    """There is no room for the directories of segments."""
    place = tmpfs(32 << 20, "rw,nr_inodes=100")
    installation.alone.upload_dir = installation.upload_dir = place
    installation.alone.flags = ("--catalog", "sqlite", "--reserve", "0")
    installation.alone.start()
    path = installation.tus.create(10, body=b"01234")
    assert installation.alone.stop() == 0
    done = installation.move(installation.url)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "nothing was moved: all is as it was")
    (line,) = done.stderr.splitlines()
    assert line.startswith("resumable: ") and line.endswith("No space left on device")
    installation.alone.start()
    assert installation.tus.offset(path) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["catalog"], "required: COMMAND"),
        (["catalog", "move"], "required: --to"),
        (["catalog", "move", "--to", "mysql://u:s3cret@h/d"], "expected sqlite, or a URL like postgresql://"),
        (["catalog", "move", "--to", "sqlite"], "needs --catalog postgresql://..."),
        (["catalog", "move", "--to", "postgresql://h/d", "--catalog", "postgresql://h/e"], "takes no other --catalog"),
        (["catalog", "move", "--to", "sqlite", "--what"], "unrecognized arguments: --what"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_status_2(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert words in line and "s3cret" not in line

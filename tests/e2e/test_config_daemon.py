"""A daemon with a configuration file: in the foreground, in the background with another directory, and with workers."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from tests.waiting import answers

from .commands import command, refuse
from .daemon import Daemon, eventually, free_port, run_twistd
from .nodes import Workers
from .tus import Tus


@pytest.mark.parametrize("daemonised", [False, True])
def test_a_mistake_in_the_file_is_one_line(daemonised: bool, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('upload-dir = "u"\nmax-size = "10X"\n')
    said = refuse("--config", "r.toml", cwd=tmp_path, daemonised=daemonised)
    assert said.startswith("resumable: max-size in r.toml '10X': expected a size")
    (tmp_path / "r.toml").write_text("maxsize = 1\n")
    said = refuse(cwd=tmp_path, daemonised=daemonised, env={"RESUMABLE_CONFIG": "r.toml"})
    assert said == "resumable: r.toml: maxsize is no option: did you mean max-size?"


def test_a_relative_file_and_its_paths_start_where_the_daemon_is_started(tmp_path: Path) -> None:
    """With --rundir it runs elsewhere, in the background."""
    port = free_port()
    (tmp_path / "run").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "r.toml").write_text(
        f'upload-dir = "u"\nlisten = ["tcp:{port}:interface=127.0.0.1"]\nmax-size = {{ file = "most" }}\n'
    )
    (tmp_path / "most").write_text("5\n")
    twistd = [f"--rundir={tmp_path / 'run'}", f"--pidfile={tmp_path / 'pid'}", f"--logfile={tmp_path / 'log'}"]
    done = run_twistd(*twistd, "resumable", "--config", "etc/r.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pid = eventually(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    try:
        assert eventually(lambda: answers(port))
        with closing(Tus(port)) as tus:
            assert tus.post(6).status == 413
            tus.create(5, None, b"12345")
        listed = command("ls", "--json", cwd=tmp_path, env={"RESUMABLE_CONFIG": "etc/r.toml"})
        assert listed.stdout.count("\n") == 1, listed.stderr
        assert (tmp_path / "u").is_dir()
    finally:
        os.kill(pid, signal.SIGTERM)
        assert eventually(lambda: not (tmp_path / "pid").exists())


def test_workers_go_by_the_file_as_it_was_at_the_start() -> None:
    with Workers() as two:
        shared = f'catalog = {{ env = "DATABASE" }}\nworkers = 2\nrun-dir = "{two.run_dir}"\nmax-size = 5\n'
        (two.home / "r.toml").write_text(shared)
        two.flags = ("--config", "r.toml")
        two.env = {"DATABASE": two.database}
        two.start()
        eventually(lambda: len(two.rows()) == 2)
        for tus in two.by_worker().values():
            assert tus.post(6).status == 413
            assert tus.post(5).status == 201
        copy = two.run_dir / "config.toml"
        assert copy.stat().st_mode & 0o777 == 0o600
        (two.home / "r.toml").write_text("nonsense = 1\n")
        before = two.rows()
        os.kill(min(before), signal.SIGKILL)
        eventually(lambda: len(two.rows()) == 2 and set(two.rows()) != set(before))
        with closing(Tus(two.port)) as tus:
            assert tus.post(6).status == 413
        assert two.stop() == 0
        assert not copy.exists()


def test_a_secret_that_everybody_can_read_is_in_the_log() -> None:
    with Daemon() as daemon:
        (daemon.home / "r.toml").write_text(f'auth-jwt-secret = "{"hunter2" * 8}"\n')
        (daemon.home / "r.toml").chmod(0o644)
        daemon.flags = ("--config", "r.toml")
        daemon.start()
        assert "r.toml has a secret (auth-jwt-secret)" in daemon.log
        assert daemon.stop() == 0
        assert "hunter2" not in daemon.log
        assert daemon.log.count("every user of this machine can read it") == 1

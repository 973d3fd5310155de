"""Several processes on the sockets of one: real processes that only tell who they are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import long

from .daemon import BOUND, environment, eventually
from .supervised import Supervised, gone, of_process


@pytest.fixture
def two() -> Iterator[Supervised]:
    """Two workers that answer with the id of their process."""
    with Supervised("--shutdown-timeout", "1", count=2, real=False) as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


def test_both_workers_get_connections_on_the_one_socket(two: Supervised) -> None:
    assert two.pids(2) == sorted(two.workers)


def test_a_worker_that_is_killed_is_started_again_while_the_other_goes_on(two: Supervised) -> None:
    one, other = two.pids(2)
    os.kill(one, signal.SIGKILL)
    assert two.seen("has ended: SIGKILL") and two.seen("is started again in 1 s")
    assert other in two.pids(2, without=[one])
    assert two.stop() == 0


@long
@pytest.mark.slow
def test_a_worker_that_stands_still_is_killed_and_started_again(two: Supervised) -> None:
    one, other = two.pids(2)
    os.kill(one, signal.SIGSTOP)
    assert two.seen("has not answered for 5 s, and is killed")
    assert other in two.pids(2, without=[one])
    assert gone(one)


def test_a_stop_ends_all_and_is_a_success(two: Supervised) -> None:
    pids = two.pids(2)
    assert two.stop() == 0
    assert all(map(gone, pids))
    assert two.log.count("stops") == 2 and "started again" not in two.log


def test_the_workers_stop_as_usual_when_their_supervisor_is_killed(two: Supervised) -> None:
    pids = two.pids(2)
    assert two.process is not None
    os.kill(two.process.pid, signal.SIGKILL)
    assert eventually(lambda: all(map(gone, pids)))
    assert two.log.count("stops") == 2


@long
@pytest.mark.slow
def test_a_worker_that_does_not_stop_is_killed_at_last() -> None:
    with Supervised("--shutdown-timeout", "0.1", count=2, real=False) as it:
        it.say("stubborn")
        it.start()
        pids = it.pids(2)
        assert it.stop() == 0
        assert all(map(gone, pids)) and it.log.count("doesn't end, and is killed") == 2


def test_a_reload_reaches_all_and_the_service_manager_is_told_when_it_is_done() -> None:
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with Supervised(count=2, real=False) as it, notify as systemd:
        systemd.bind(f"{it.home}/notify")
        it.env = {"NOTIFY_SOCKET": f"{it.home}/notify", "WATCHDOG_USEC": "600000"}
        it.start()
        told: list[str] = []

        def has_told(*lines: str) -> bool:
            with suppress(BlockingIOError):
                while True:
                    told.extend(systemd.recv(4096).decode().split("\n"))
            rest = iter(told)
            return all(line in rest for line in lines)

        assert eventually(lambda: has_told("READY=1", "WATCHDOG=1"))
        assert told.count("READY=1") == 1, "by the supervisor alone"
        assert it.process is not None
        it.process.send_signal(signal.SIGHUP)
        assert it.seen("reads its files anew", 2)
        assert eventually(lambda: has_told("READY=1", "RELOADING=1", "READY=1"))
        assert it.stop() == 0
        assert has_told("READY=1", "RELOADING=1", "READY=1", "STOPPING=1")


def launched(it: Supervised) -> None:
    """As by `Supervised.start`, which waits until uploads are taken."""
    with (it.home / "daemon.log").open("wb") as log:
        command = [*it.wrapper, "-n", "--pidfile=", *it.arguments()]
        it.process = subprocess.Popen(
            command, cwd=it.home, env=environment(), stdout=log, stderr=log, start_new_session=True
        )


def test_a_stop_while_the_first_worker_starts_ends_both_and_is_a_success() -> None:
    with Supervised(count=2, real=False) as it:
        it.say("slow")
        launched(it)
        assert it.seen("worker 1 is not ready")
        (worker,) = it.workers
        assert "take uploads" not in it.log
        assert it.stop() == 0
        assert gone(worker) and "Traceback" not in it.log and "started again" not in it.log
        assert not list(it.run_dir.iterdir()) and not list(it.upload_dir.glob(".resumable/*.sock"))
        assert it.upload_dir.exists()


def test_so_does_a_stop_as_soon_as_the_first_worker_is_ready() -> None:
    with Supervised(count=2, real=False) as it:
        it.say("hasty")
        launched(it)
        assert it.process is not None and it.process.wait(BOUND) == 0
        assert it.log.count("worker 1 stops") == 1 and not list(it.run_dir.iterdir())


def test_the_log_tells_that_uploads_are_taken_once_all_workers_take_them(two: Supervised) -> None:
    assert two.seen("2 workers take uploads on 127.0.0.1")
    assert two.process is not None
    two.process.send_signal(signal.SIGHUP)
    assert two.seen("reads its files anew", 2)
    assert two.log.count("take uploads") == 1


def test_a_start_that_fails_is_the_workers_own_line_once_and_status_1() -> None:
    with Supervised(count=2, real=False) as it:
        it.say("refuse")
        with pytest.raises(AssertionError, match="ended with status 1"):
            it.start()
        assert it.log.count("resumable: this worker can't start") == 1 and "Traceback" not in it.log


@long
@pytest.mark.slow
def test_a_worker_that_can_not_start_later_is_tried_again_and_again(two: Supervised) -> None:
    one, other = two.pids(2)
    two.say("refuse")
    os.kill(one, signal.SIGKILL)
    assert two.seen("says: resumable: this worker can't start", 2)
    assert two.seen("is started again in 2 s")
    assert two.asked() == other
    two.say("refuse", False)
    assert two.pids(2, without=[one])
    assert two.stop() == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others may read: that of a test is for its user alone."""
    with tempfile.TemporaryDirectory(prefix="resumable-e2e-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_as_a_daemon_the_workers_lines_are_in_the_log_file(place: Path) -> None:
    with Supervised(count=2, real=False) as it:
        pid_file, log = place / "pid", place / "log"
        twistd = [f"--pidfile={pid_file}", f"--logfile={log}", *it.arguments()]
        done = subprocess.run(
            [*it.wrapper, *twistd], cwd=it.home, env=environment(), capture_output=True, text=True, timeout=BOUND
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert str(log) in done.stdout and str(pid_file) in done.stdout
        pid = int(pid_file.read_text())
        pids = it.pids(2)
        os.kill(pid, signal.SIGTERM)
        assert eventually(lambda: gone(pid) and all(map(gone, pids)))
        assert log.read_text().count("stops\n") == 2
        assert not pid_file.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_workers_have_the_user_the_group_and_the_umask_that_twistd_changes_to() -> None:
    """The user stays root here: another one may not be allowed to run this Python."""
    group = 65534
    with Supervised(count=2, real=False) as it:
        twistd = ["-n", "--pidfile=", "--uid=0", f"--gid={group}", "--umask=027", *it.arguments()]
        with (it.home / "out").open("wb") as out:
            it.process = subprocess.Popen(
                [*it.wrapper, *twistd], cwd=it.home, env=environment(), stdout=out, stderr=out, start_new_session=True
            )
        for pid in it.pids(2):
            assert of_process(pid, "Gid").split() == [str(group)] * 4
            assert int(of_process(pid, "Umask"), 8) == 0o027
        assert {each.stat().st_gid for each in (it.run_dir, *it.run_dir.iterdir())} == {group}
        assert {each.name for each in it.run_dir.iterdir()} == {"admin-1.sock", "admin-2.sock", "lock"}
        assert it.stop() == 0
        assert not list(it.run_dir.iterdir())

"""Starting, from a command line: what is wrong is one clear line and status 1; what is right works as a daemon too."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from resumable.spool.directory import DirectoryInUse, DirectoryLock

from .commands import refuse
from .daemon import BOUND, Daemon, eventually, free_port, run_twistd
from .tus import Tus


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that somebody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_help_shows_the_plugin(tmp_path: Path) -> None:
    done = run_twistd("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "    resumable " in done.stdout
    flags = run_twistd("resumable", "--help-all", cwd=tmp_path).stdout
    for flag in ("port", "listen", "upload-dir", "base-path", "max-size", "expire-after", "network-timeout"):
        assert f"--{flag}" in flags
    for flag in ("public-url", "behind-proxy"):
        assert f"--{flag}" in flags


@pytest.mark.parametrize("daemonised", [False, True])
def test_a_port_in_use(daemonised: bool, busy: int, tmp_path: Path) -> None:
    listen = f"tcp:{busy}:interface=127.0.0.1"
    said = refuse("--listen", listen, "--upload-dir", str(tmp_path / "u"), cwd=tmp_path, daemonised=daemonised)
    assert str(busy) in said and "in use" in said


@pytest.mark.parametrize("daemonised", [False, True])
def test_two_daemons_on_one_directory(daemonised: bool, tmp_path: Path) -> None:
    with Daemon() as first:
        first.start()
        listen = f"tcp:{free_port()}:interface=127.0.0.1"
        said = refuse("--listen", listen, "--upload-dir", str(first.upload_dir), cwd=tmp_path, daemonised=daemonised)
        assert str(first.upload_dir) in said and "nother" in said
        tus = first.attach(Tus(first.port))
        assert tus.content(tus.create(3, None, b"abc")) == b"abc"


@pytest.mark.parametrize("daemonised", [False, True])
def test_a_directory_that_can_not_be_written(daemonised: bool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/resumable")):
        listen = f"tcp:{free_port()}:interface=127.0.0.1"
        said = refuse("--listen", listen, "--upload-dir", str(place), cwd=tmp_path, daemonised=daemonised)
        assert str(place) in said


@pytest.mark.slow
@pytest.mark.parametrize("daemonised", [False, True])
def test_a_unix_socket_that_can_not_be_made(daemonised: bool, tmp_path: Path) -> None:
    taken, file = tmp_path / "taken", tmp_path / "file"
    file.touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(taken))
        server.listen()
        for place, why in (
            (tmp_path / "nowhere" / "s", "no directory"),
            (file / "s", "no directory"),
            (file, "something else"),
            (taken, "somebody listens"),
            (tmp_path / ("s" * 120), "too long"),
        ):
            said = refuse("--listen", f"unix:{place}", cwd=tmp_path, daemonised=daemonised)
            assert str(place) in said and why in said


def test_a_hook_that_cannot_run(tmp_path: Path) -> None:
    """Found out before the fork, so that whoever starts the daemon sees it."""
    said = refuse("--guard", "exec:./script --key hidden", "--upload-dir", "u", cwd=tmp_path, daemonised=True)
    assert f"hook guard: there is no program {tmp_path / 'script'}: " in said and "hidden" not in said
    assert not (tmp_path / "pid").exists()


def test_a_program_is_looked_for_where_the_daemon_is_started(tmp_path: Path) -> None:
    """With --rundir it runs elsewhere."""
    (tmp_path / "script").write_text("#!/bin/sh\n[ $HOOK_EVENT != before-create ]\n")
    (tmp_path / "script").chmod(0o755)
    (tmp_path / "run").mkdir()
    port = free_port()
    arguments = ["--listen", f"tcp:{port}:interface=127.0.0.1", "--upload-dir", str(tmp_path / "u")]
    rundir = [f"--rundir={tmp_path / 'run'}", f"--pidfile={tmp_path / 'pid'}", f"--logfile={tmp_path / 'log'}"]
    done = run_twistd(*rundir, "resumable", *arguments, "--guard", "exec:./script", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pid = eventually(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    try:
        assert eventually(lambda: answers(port))
        with closing(Tus(port)) as tus:
            assert tus.post(10).status == 403
    finally:
        os.kill(pid, signal.SIGTERM)
        assert eventually(lambda: not (tmp_path / "pid").exists())


def test_a_unix_socket_that_a_killed_daemon_left() -> None:
    """The lock that Twisted has left beside it may name a process that lives: in a container it is always PID 1."""
    with Daemon() as daemon:
        path = daemon.home / "http.sock"
        daemon.flags = ("--listen", f"unix:{path}")
        daemon.start()
        daemon.kill()
        lock = Path(f"{path}.lock")
        assert path.is_socket() and lock.is_symlink()
        lock.unlink()
        lock.symlink_to(str(os.getpid()))
        daemon.start()
        assert daemon.stop() == 0


@pytest.mark.parametrize("daemonised", [False, True])
def test_a_start_that_fails_late_ends(daemonised: bool, tmp_path: Path) -> None:
    """What is wrong shows only after the fork, when threads run: no process stays that has the port and the lock."""
    with Daemon() as daemon:
        daemon.start()
        assert daemon.stop() == 0
        with closing(sqlite3.connect(daemon.upload_dir / ".resumable" / "catalog.sqlite3")) as catalog:
            catalog.execute("PRAGMA user_version = 99")
        mode = (
            [f"--pidfile={tmp_path / 'pid'}", f"--logfile={tmp_path / 'log'}"] if daemonised else ["-n", "--pidfile="]
        )
        done = run_twistd(*mode, *daemon.arguments(), cwd=tmp_path)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "newer release" in said and "Traceback" not in said
        assert not daemonised or f"(log: {tmp_path / 'log'})" in said
        lock = DirectoryLock(str(daemon.upload_dir / ".resumable" / "lock"))
        assert eventually(lambda: acquired(lock))
        lock.release()


def acquired(lock: DirectoryLock) -> bool:
    try:
        lock.acquire()
    except DirectoryInUse:
        return False
    return True


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "u").mkdir(mode=0o500)
    assert str(tmp_path / "u") in refuse("--upload-dir", str(tmp_path / "u"), cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "http"),
        ("--port", "65536"),
        ("--listen", "tcp"),
        ("--listen", "nonsense:1"),
        ("--upload-dir", ""),
        ("--base-path", "/fi les/"),
        ("--base-path", "http://x/"),
        ("--max-size", "lots"),
        ("--max-size", "-1"),
        ("--expire-after", "soon"),
        ("--network-timeout", "0"),
        ("--network-timeout", "-5"),
        ("--public-url", "ftp://x/"),
        ("--public-url", "/files/"),
        ("--behind-proxy", "everyone"),
        ("--behind-proxy", "10.0.0.0/99"),
        ("--reserve", "half"),
        ("--writers", "0"),
        ("--cors-origin", "example.org/path"),
        ("--min-rate", "x"),
        ("--remember", "x"),
        ("--shutdown-timeout", "x"),
    ],
    ids=" ".join,
)
def test_a_wrong_value(arguments: tuple[str, str], tmp_path: Path) -> None:
    said = refuse(*arguments, cwd=tmp_path)
    assert arguments[0].lstrip("-") in said and arguments[1] in said
    assert list(tmp_path.iterdir()) == []


def test_a_flag_or_an_argument_that_nobody_knows(tmp_path: Path) -> None:
    assert "--colour" in refuse("--colour", "red", cwd=tmp_path)
    assert "uploads" in refuse("uploads", cwd=tmp_path)


def test_a_wrong_value_in_the_environment(tmp_path: Path) -> None:
    said = refuse(cwd=tmp_path, env={"RESUMABLE_MAX_SIZE": "lots"})
    assert "RESUMABLE_MAX_SIZE" in said and "lots" in said


def test_every_flag_has_a_variable_and_flags_win() -> None:
    env = {"RESUMABLE_MAX_SIZE": "1K", "RESUMABLE_BASE_PATH": "/up/", "RESUMABLE_EXPIRE_AFTER": "0"}
    with Daemon("--max-size", "2K", env=env) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port, base="/up/"))
        assert tus.options()["tus-max-size"] == "2048"
        created = tus.post(5)
        assert tus.path(created).startswith("/up/")
        assert "upload-expires" not in created


@pytest.mark.parametrize("base", ["/files", "/files/"])
def test_the_collection_answers_with_and_without_the_slash(base: str, tmp_path: Path) -> None:
    with Daemon("--base-path", base) as daemon:
        daemon.start()
        for asked in ("/files", "/files/"):
            tus = daemon.attach(Tus(daemon.port, base=asked))
            assert tus.content(tus.create(3, None, b"abc")) == b"abc"


def test_several_endpoints_and_a_unix_socket() -> None:
    with Daemon() as daemon:
        other, path = free_port(), daemon.home / "http.sock"
        daemon.flags = ("--listen", f"tcp:{other}:interface=127.0.0.1", "--listen", f"unix:{path}")
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        upload = tus.create(3, None, b"abc")
        with closing(Tus(other)) as second:
            assert second.content(upload) == b"abc"
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(BOUND)
            link.connect(str(path))
            link.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            assert link.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_public_url_is_what_clients_see() -> None:
    with Daemon("--public-url", "https://up.example.org/in/") as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        location = tus.post(5)["location"]
        assert location.startswith("https://up.example.org/in/")
        assert tus.offset("/files/" + location.rsplit("/", 1)[-1]) == 0


@pytest.mark.parametrize(("trusted", "seen"), [("loopback", "https://up.example"), ("10.0.0.0/8", "http://127.0.0.1")])
def test_forwarded_fields_count_from_trusted_addresses_only(trusted: str, seen: str) -> None:
    with Daemon("--behind-proxy", trusted) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        for fields in (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "up.example"},
            {"Forwarded": 'for=1.2.3.4;proto=https;host="up.example"'},
        ):
            assert tus.post(5, fields)["location"].startswith(f"{seen}/files/")


def test_as_a_daemon_with_pidfile_and_logfile(tmp_path: Path) -> None:
    port = free_port()
    pid_file, log = tmp_path / "twistd.pid", tmp_path / "twistd.log"
    listen = ("--listen", f"tcp:{port}:interface=127.0.0.1")
    started = run_twistd(f"--pidfile={pid_file}", f"--logfile={log}", "resumable", *listen, cwd=tmp_path)
    try:
        assert started.returncode == 0, started.stderr
        assert started.stderr == "" and str(log) in started.stdout
        pid = int(eventually(lambda: pid_file.read_text() if pid_file.exists() else ""))
        assert eventually(lambda: answers(port))
        with closing(Tus(port)) as tus:
            path = tus.create(3, None, b"abc")
        assert (tmp_path / "uploads" / path.removeprefix("/files/")).read_bytes() == b"abc", (
            "relative to where it began"
        )
        os.kill(pid, signal.SIGTERM)
        assert eventually(lambda: not Path(f"/proc/{pid}").exists())
        assert not pid_file.exists()
        text = log.read_text()
        assert "Traceback" not in text and "stopped" in text
    finally:
        if pid_file.exists():
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)


def answers(port: int) -> bool:
    try:
        with closing(Tus(port)) as tus:
            return tus.options().status == 200
    except OSError:
        return False


def test_as_pid_1(tmp_path: Path) -> None:
    """As in a container: nobody else reaps or forwards signals there."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True, timeout=BOUND)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no new pid namespace may be made here")
    with Daemon() as daemon:
        daemon.wrapper = unshare
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(3, None, b"ab")
        inner = eventually(lambda: child_of(daemon))
        os.kill(inner, signal.SIGTERM)
        assert daemon.wait() == 0
        daemon.wrapper = ()
        daemon.start()
        assert tus.offset(path) == 2


def child_of(daemon: Daemon) -> int | None:
    """The process that unshare has started."""
    assert daemon.process is not None
    pid = daemon.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None

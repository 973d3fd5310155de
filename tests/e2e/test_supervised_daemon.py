"""A real worker under a supervisor: uploads, restarts, operators, and every kind of socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from resumable.cli.admin_client import AdminLine
from resumable.spool.directory import DirectoryLock

from .commands import command
from .daemon import eventually, free_port
from .sockets import Scene, tls_at, unix_at, upload_and_read
from .supervised import Supervised, gone
from .tus import Tus, pattern

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@pytest.fixture(scope="module")
def one() -> Iterator[Supervised]:
    with Supervised("--log-format", "json") as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


def line(it: Supervised, name: str) -> AdminLine:
    return AdminLine(f"unix:{it.run_dir / name}")


def test_an_upload_goes_on_after_its_worker_was_killed(one: Supervised) -> None:
    data = pattern(300_000, seed=3)
    with closing(Tus(one.port)) as tus:
        path = tus.create(len(data), None, data[:100_000])
        (worker,) = one.workers
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: gone(worker) and one.workers)
    with closing(Tus(one.port)) as tus:
        assert tus.offset(path) == 100_000
        tus.finish(path, data)
        assert tus.content(path) == data


def test_each_line_of_the_log_tells_its_worker(one: Supervised) -> None:
    assert one.seen("1 workers take uploads")
    lines = [json.loads(each) for each in one.log.splitlines()]
    said = {each["message"]: each.get("worker") for each in lines}
    assert said[f"uploads are taken at /files/ on 127.0.0.1:{one.port}"] == 1
    assert said[f"1 workers take uploads on 127.0.0.1:{one.port}"] is None


def test_the_run_directory_and_its_sockets_are_private(one: Supervised) -> None:
    assert stat.S_IMODE(one.run_dir.stat().st_mode) == 0o700
    files = {each.name: stat.S_IMODE(each.stat().st_mode) for each in one.run_dir.iterdir()}
    assert files == {"admin-1.sock": 0o600, "lock": 0o600}


def test_metrics_of_the_machine_have_the_workers_number_and_those_of_one_worker_have_not(one: Supervised) -> None:
    machine = AdminLine(f"unix:{one.upload_dir}/.resumable/admin.sock").ask("GET", "/metrics").document
    assert 'resumable_connections{worker="1"}' in machine and 'process_open_fds{worker="1"}' in machine
    assert 'resumable_uploads{state="finished"}' in machine
    assert 'resumable_workers{state="answered"} 1.0' in machine
    own = line(one, "admin-1.sock").ask("GET", "/metrics").document
    assert "\nresumable_connections " in own and "worker=" not in own


def test_a_worker_is_ready_by_itself(one: Supervised) -> None:
    assert line(one, "admin-1.sock").ask("GET", "/readyz").document == {"ready": True, "wrong": {}}
    assert line(one, "admin-1.sock").ask("GET", "/healthz").status == 200


def test_operators_find_the_daemon_by_its_run_directory(one: Supervised) -> None:
    """The machine's socket is there in the second shape."""
    listen = f"unix:{one.run_dir}/admin.sock"
    with Supervised("--admin-listen", listen) as it:
        it.start()
        with closing(Tus(it.port)) as tus:
            path = tus.create(3, None, b"abc")
        for place, env in ((["--run-dir", str(one.run_dir)], {}), ([], {"RESUMABLE_RUN_DIR": str(one.run_dir)})):
            shown = command("ls", *place, cwd=one.home, env=env)
            assert shown.returncode == 0 and path.rpartition("/")[2] in shown.stdout
        assert it.stop() == 0


def test_a_start_that_fails_late_is_one_line_and_status_1() -> None:
    """What is wrong shows only in the worker."""
    with Supervised() as it:
        lock = DirectoryLock(str(it.upload_dir / ".resumable" / "lock"))
        it.start()
        assert it.stop() == 0
        (it.upload_dir / ".resumable" / "catalog.sqlite3").unlink()
        (it.upload_dir / ".resumable" / "catalog.sqlite3").mkdir()
        with pytest.raises(AssertionError, match="ended with status 1"):
            it.start()
        said = [each for each in it.log.splitlines() if "resumable: " in each]
        assert len(said) == 1 and "Traceback" not in it.log and "started again" not in it.log
        lock.acquire()
        lock.release()
        with closing(socket.socket()) as probe:
            assert probe.connect_ex(("127.0.0.1", it.port)) != 0


def test_a_mistake_that_the_supervisor_sees_is_one_line(tmp_path: Path) -> None:
    with Supervised() as it:
        it.start()
        with Supervised("--upload-dir", str(it.upload_dir)) as other:
            with pytest.raises(AssertionError, match="ended with status 1"):
                other.start()
            assert other.log.startswith("resumable: Another daemon uses") and len(other.log.splitlines()) == 1
        assert it.stop() == 0


def test_a_stop_commits_what_was_received_and_leaves_no_socket() -> None:
    with Supervised("--admin-listen", f"tcp:{free_port()}:interface=127.0.0.1") as it:
        path = it.home / "http.sock"
        it.flags = (*it.flags, "--listen", f"unix:{path}:mode=660")
        it.start()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with closing(Tus(it.port)) as tus:
            upload = tus.create(10, None, b"abc")
            assert it.stop() == 0
        assert not path.exists() and not list(it.run_dir.iterdir())
        assert it.log.count("every byte that was received is committed") == 1
        it.start()
        with closing(Tus(it.port)) as tus:
            assert tus.offset(upload) == 3
        assert it.stop() == 0


def test_after_a_kill_of_all_it_starts_on_what_was_left() -> None:
    with Supervised() as it:
        path = it.home / "http.sock"
        it.flags = (*it.flags, "--listen", f"unix:{path}")
        it.start()
        it.kill()
        assert path.is_socket() and (it.run_dir / "admin-1.sock").is_socket()
        eventually(lambda: unheld(it))
        it.start()
        assert it.stop() == 0


def unheld(it: Supervised) -> bool:
    """Whether the worker, too, has ended: killed, it keeps the lock for a moment."""
    lock = DirectoryLock(str(it.upload_dir / ".resumable" / "lock"))
    with suppress(Exception):
        lock.acquire()
        lock.release()
        return True
    return False


def test_every_kind_of_socket_is_inherited() -> None:
    with Supervised() as it:
        supervise = it.wrapper
        scene = Scene(it)
        it.wrapper = [*it.wrapper, *supervise]
        with closing(scene.systemd) as systemd:
            it.start()
            inet = lambda: socket.create_connection(("127.0.0.1", systemd.port), timeout=60)  # noqa: E731
            for connect in (
                inet,
                lambda: unix_at(systemd.path),
                lambda: unix_at(scene.unix),
                lambda: tls_at(scene.tls),
            ):
                upload_and_read(scene.client(connect))
            (worker,) = it.workers
            os.kill(worker, signal.SIGKILL)
            assert eventually(lambda: gone(worker) and it.workers)
            upload_and_read(scene.client(lambda: unix_at(systemd.path)))
            upload_and_read(scene.client(lambda: tls_at(scene.tls)))
            assert it.stop() == 0
            with closing(inet()), closing(unix_at(systemd.path)):
                pass  # systemd keeps its sockets

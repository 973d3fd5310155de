"""What an operator sees of a real daemon: metrics while uploads run, readiness, the log."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .daemon import BOUND, Daemon, environment, eventually, free_port, run_twistd, twistd_command
from .tus import Tus, chunk, patch_head, pattern

MIB = 2**20


class Watched(Daemon):
    """A daemon with a listener for operators."""

    def __init__(self, *flags: str) -> None:
        self.admin_port = free_port()
        super().__init__("--admin-listen", f"tcp:{self.admin_port}:interface=127.0.0.1", *flags)

    def look(self, path: str) -> tuple[int, str]:
        """What operators are answered; status 0 when nobody listens."""
        return get(f"http://127.0.0.1:{self.admin_port}{path}")

    def metrics(self) -> dict[str, float]:
        status, text = self.look("/metrics")
        assert status == 200
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=BOUND) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def stopping(daemon: Watched) -> tuple[int, str] | None:
    """What operators are told once it isn't ready."""
    status, text = daemon.look("/readyz")
    return (status, text) if status == 503 else None


@pytest.fixture
def watched() -> Iterator[Watched]:
    with Watched("--remote", "memory://far") as daemon:
        yield daemon.start()
        assert not daemon.complaints(), "\n".join(daemon.complaints())


@contextmanager
def client(daemon: Daemon) -> Iterator[Tus]:
    tus = daemon.attach(Tus(daemon.port))
    try:
        yield tus
    finally:
        tus.close()


def test_metrics_move_while_an_upload_runs(watched: Watched) -> None:
    with client(watched) as tus:
        before = watched.metrics()
        path = tus.create(3 * MIB)
        with tus.wire() as wire:
            wire.send(patch_head(path, 0, None, {"Expect": "100-continue"}))
            assert wire.interim() == 100
            wire.send(chunk(pattern(MIB)))
            eventually(lambda: watched.metrics()["resumable_received_bytes_total"] > MIB)
            during = watched.metrics()
            assert during["resumable_appends"] == 1
            assert during["resumable_uploads_created_total"] == before["resumable_uploads_created_total"] + 1
            assert during["resumable_uploads_finished_total"] == 0
            assert during["resumable_connections"] >= 1
        eventually(lambda: watched.metrics()['resumable_requests_total{method="PATCH",status="lost"}'] == 1)
        offset = tus.offset(path)
        assert tus.patch(path, offset, pattern(3 * MIB)[offset:]).status == 204
        eventually(lambda: watched.metrics()["resumable_uploads_stored_total"] == 1)
        after = watched.metrics()
    assert after["resumable_uploads_finished_total"] == 1
    assert after['resumable_remote_bytes_total{remote="memory://far"}'] == 3 * MIB
    assert after['resumable_remote_up{remote="memory://far"}'] == 1
    assert after["resumable_catalog_batch_seconds_count"] > before["resumable_catalog_batch_seconds_count"]
    eventually(lambda: watched.metrics()["resumable_reactor_delay_seconds_count"] > 0)
    assert after["resumable_spool_free_bytes"] > after["resumable_spool_reserve_bytes"]
    assert after["process_open_fds"] > 0


def test_no_client_makes_the_metrics_grow(watched: Watched) -> None:
    with client(watched) as tus:
        tus.create(5)

        def names() -> set[str]:
            return set(watched.metrics())

        before = names()
        for number in range(50):
            tus.ask(f"FROB{number}", f"/files/{number}", {"X-Request-ID": f"id-{number}"})
            tus.ask("GET", f"/files/{number}?{number}={number}", {"Host": f"h{number}"})
        assert names() == before
        assert watched.metrics()['resumable_requests_total{method="other",status="4xx"}'] == 50


def test_metrics_are_never_on_a_port_for_uploads(watched: Watched) -> None:
    assert get(f"{watched.origin}/metrics")[0] == 404
    assert get(f"{watched.origin}/readyz") == (200, "ready\n")
    assert watched.look("/healthz") == (200, "ok\n")
    assert watched.look("/readyz") == (200, '{"ready": true, "wrong": {}}\n')
    assert watched.look("/files/")[0] == 404


def at_socket(path: Path, target: str) -> bytes:
    """What is answered there; nothing when nobody listens."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(BOUND)
        if link.connect_ex(str(path)):
            return b""
        link.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: link.recv(65536), b""))


def test_operators_are_answered_in_the_upload_directory_by_itself() -> None:
    with Daemon() as daemon:
        daemon.start()
        path = daemon.upload_dir / ".resumable" / "admin.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"resumable_info" in at_socket(path, "/metrics")
        assert get(f"{daemon.origin}/metrics")[0] == 404
        daemon.kill()
        assert path.is_socket()
        daemon.start()
        assert b"200 OK" in at_socket(path, "/healthz")
        assert daemon.stop() == 0
        assert not path.exists()


def test_the_admin_api_on_a_port_needs_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    with Watched("--admin-token-file", str(token)) as daemon, client(daemon.start()) as tus:
        upload_id = tus.create(5).rpartition("/")[2]
        assert daemon.look("/v1/uploads")[0] == 401
        link = http.client.HTTPConnection("127.0.0.1", daemon.admin_port, timeout=BOUND)
        fields = {"Authorization": "Bearer 0123456789abcdef"}
        link.request("GET", "/v1/uploads", headers=fields)
        assert [each["id"] for each in json.load(link.getresponse())["uploads"]] == [upload_id]
        link.request("POST", f"/v1/uploads/{upload_id}/stop", headers=fields)
        assert link.getresponse().status == 204
        link.close()
        assert tus.ask("HEAD", f"/files/{upload_id}").status == 410
        assert "0123456789abcdef" not in daemon.log


def test_an_admin_api_that_anybody_could_use_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("short")
    for flags, said in (
        (["--admin-on-public"], "--admin"),
        (["--admin-token-file", str(tmp_path / "token")], "at least 16 bytes"),
        (["--admin-token-file", str(tmp_path / "nothing")], "can't be read"),
    ):
        listen = ["--listen", "tcp:0:interface=127.0.0.1"]
        ended = run_twistd("-n", "--pidfile=", "resumable", *listen, *flags, cwd=tmp_path)
        assert ended.returncode == 1 and said in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr


def test_operators_can_be_left_out() -> None:
    with Daemon("--admin-listen", "none") as daemon:
        daemon.start()
        assert not (daemon.upload_dir / ".resumable" / "admin.sock").exists()
        assert "operators" not in daemon.log


def test_a_disk_at_its_reserve_is_not_ready_but_alive() -> None:
    with Watched("--reserve", "100P") as daemon:
        daemon.start()
        eventually(lambda: daemon.look("/readyz")[0] == 503)
        status, text = daemon.look("/readyz")
        assert (status, json.loads(text)["ready"], list(json.loads(text)["wrong"])) == (503, False, ["disk"])
        assert get(f"{daemon.origin}/readyz") == (503, "not ready\n")
        assert get(f"{daemon.origin}/healthz") == (200, "ok\n")
        values = daemon.metrics()
        assert values["resumable_spool_free_bytes"] < values["resumable_spool_reserve_bytes"]


def test_at_a_stop_operators_are_told_while_requests_end() -> None:
    with Watched("--shutdown-timeout", "20") as daemon, client(daemon.start()) as tus:
        path = tus.create(100)
        with tus.wire() as wire:
            wire.send(patch_head(path, 0, 100, {"Expect": "100-continue"}))
            assert wire.interim() == 100
            daemon.terminate()
            # It is answered at once, and then has two seconds to read that.
            status, text = eventually(lambda: stopping(daemon))
            assert (status, list(json.loads(text)["wrong"])) == (503, ["stopping"])
            assert get(f"{daemon.origin}/readyz")[0] == 0
        assert daemon.wait() == 0
    assert daemon.look("/readyz")[0] == 0


def test_json_lines_with_requests_and_without_secrets() -> None:
    with Watched("--log-format", "json", "--access-log", "info") as daemon:
        with client(daemon.start()) as tus:
            fields = {"Upload-Length": "5", "X-Request-ID": "mine"}
            answer = tus.ask("POST", "/files/?token=hunter2", fields)
            assert answer["x-request-id"] == "mine"
            made = tus.ask("POST", "/files/", {"Upload-Length": "5", "X-Request-ID": "not sane"})["x-request-id"]
            assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", made)
        assert daemon.stop() == 0
        events = [json.loads(line) for line in daemon.log.splitlines()]
        asked = {event["request"]: event for event in events if "request" in event}
        assert (asked["mine"]["method"], asked["mine"]["status"]) == ("POST", 201)
        assert asked["mine"]["path"] == "/files/?token=..."
        assert made in asked
        assert "hunter2" not in daemon.log
        assert events[-1]["message"] == "Server Shut Down."


def test_what_is_below_the_level_is_not_logged() -> None:
    with Daemon("--log-level", "warn") as daemon:
        daemon.start()
        assert daemon.stop() == 0
        assert daemon.log == ""


def test_text_is_twistds_own(watched: Watched) -> None:
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[[^]]+\] "
    assert watched.stop() == 0  # while it runs the last line may be half there
    assert [line for line in watched.log.splitlines() if not re.match(pattern, line)] == []
    assert watched.log.endswith("Server Shut Down.\n")


def test_a_daemon_in_the_background_logs_to_its_file(tmp_path: Path) -> None:
    log, pid, port = tmp_path / "x.log", tmp_path / "x.pid", free_port()
    arguments = ["resumable", "--listen", f"tcp:{port}:interface=127.0.0.1", "--upload-dir", str(tmp_path / "up")]
    command = [*twistd_command(), "--pidfile", str(pid), "--logfile", str(log), *arguments, "--log-format", "json"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, timeout=BOUND, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200)
        os.kill(int(pid.read_text()), signal.SIGUSR1)
        eventually((tmp_path / "x.log.1").exists)
        assert b"200 OK" in at_socket(tmp_path / "up" / ".resumable" / "admin.sock", "/healthz")
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)
        eventually(lambda: not pid.exists())
    lines = (tmp_path / "x.log.1").read_text().splitlines() + log.read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines][-1] == "Server Shut Down."

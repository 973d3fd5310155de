"""resumable.client against real daemons: both faces, both protocols, killed on either side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.certificates import certified
from tests.waiting import free_port

from .daemon import BOUND, ROOT, Daemon, environment, eventually
from .in_between import in_between
from .tus import Tus, pattern

FLAGS = ("--digest", "sha256", "--remote", "memory://")
DATA = pattern(16 * 1024 * 1024 + 3, seed=17)
SLOW = 8e6
FACES = pytest.mark.parametrize("face", ["blocking", "deferred"])
BOTH = pytest.mark.parametrize("spoken", ["tus", "draft"])


class Running:
    """A client that runs. ``said``: what it has told so far."""

    def __init__(self, home: Path, face: str, way: str, source: Path | str, url: str, **options: Any) -> None:
        command = [sys.executable, "-m", "tests.e2e.client_program", face, way, str(source), url, json.dumps(options)]
        self._out = home / "said"
        self._out.write_bytes(b"")
        with self._out.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment({"XDG_STATE_HOME": str(home / "state")}),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> list[dict[str, Any]]:
        lines = self._out.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]

    def moving(self) -> None:
        """Wait until bytes have moved."""
        eventually(lambda: any(each.get("event") in ("moved", "received") for each in self.said) or self.ended())
        assert self.process.poll() is None, self._out.read_text()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def end(self, given: bytes | None = None) -> dict[str, Any]:
        """The last that it says."""
        self.process.communicate(given, timeout=BOUND)
        assert self.said, self._out.read_text()
        return self.said[-1]

    def result(self, given: bytes | None = None) -> dict[str, Any]:
        last = self.end(given)
        assert "result" in last, self._out.read_text()
        found: dict[str, Any] = last["result"]
        return found

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=BOUND)

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.said if each.get("event") == kind]


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts clients, which have one state file."""
    running: list[Running] = []

    def start(*args: Any, **options: Any) -> Running:
        running.append(Running(tmp_path, *args, **options))
        return running[-1]

    yield start
    for each in running:
        if not each.ended():
            each.kill()


def stored(daemon: Daemon, url: str) -> bytes:
    return (daemon.upload_dir / url.rpartition("/")[2]).read_bytes()


@FACES
@BOTH
def test_killed_and_called_again_it_goes_on_at_the_same_byte(
    daemon: Daemon, run: Run, source: Path, face: str, spoken: str
) -> None:
    first = run(face, "put", source, daemon.url, protocol=spoken, limit_rate=SLOW)
    first.moving()
    first.kill()
    second = run(face, "put", source, daemon.url, protocol=spoken)
    done = second.result()
    assert stored(daemon, done["url"]) == DATA
    assert 0 < done["resumed_from"] < len(DATA)
    assert done["checked"] is True
    assert done["sent"] == len(DATA) - done["resumed_from"]
    (begun,) = second.told("begun")
    assert (begun["url"], begun["offset"]) == (first.told("begun")[0]["url"], done["resumed_from"])


@pytest.mark.slow
@FACES
@BOTH
def test_it_goes_on_by_itself_when_the_server_is_killed(
    serve: Callable[..., Daemon], run: Run, source: Path, face: str, spoken: str
) -> None:
    daemon = serve()
    client = run(face, "put", source, daemon.url, protocol=spoken, limit_rate=SLOW)
    client.moving()
    daemon.restart()
    done = client.result()
    assert stored(daemon, done["url"]) == DATA
    assert client.told("retried") and client.told("recovered")


@FACES
def test_a_file_in_one_request_is_compared_with_the_servers_digest(
    daemon: Daemon, run: Run, source: Path, face: str
) -> None:
    done = run(face, "put", source, daemon.url).result()
    assert done["checked"] is True
    assert stored(daemon, done["url"]) == DATA


@FACES
def test_a_source_that_has_changed_since_is_noticed(daemon: Daemon, run: Run, source: Path, face: str) -> None:
    first = run(face, "put", source, daemon.url, limit_rate=SLOW)
    first.moving()
    first.kill()
    times = source.stat()
    source.write_bytes(DATA[:-1] + b"!")  # the same size, and the same time
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(face, "put", source, daemon.url).end()["error"] == "SourceChanged"
    done = run(face, "put", source, daemon.url, on_changed="restart").result()
    assert stored(daemon, done["url"]) == DATA[:-1] + b"!"


@FACES
@BOTH
def test_a_source_that_changes_while_it_is_sent_makes_no_finished_upload(
    daemon: Daemon, tus: Tus, run: Run, source: Path, face: str, spoken: str
) -> None:
    client = run(face, "put", source, daemon.url, protocol=spoken, limit_rate=SLOW)
    client.moving()
    with source.open("r+b") as file:
        file.write(b"!")
    end = client.end()
    assert end["error"] == "SourceChanged" and "fresh=True sends it anew" in end["text"]
    url = client.told("begun")[0]["url"]
    assert client.told("sent") == []
    assert 0 < tus.offset(urlsplit(url).path) < len(DATA)
    done = run(face, "put", source, daemon.url, on_changed="restart").result()
    assert stored(daemon, done["url"]) == b"!" + DATA[1:]
    assert tus.head(urlsplit(url).path).status in (404, 410)


@FACES
@BOTH
def test_pieces_shrink_until_a_proxy_lets_them_through(
    daemon: Daemon, run: Run, source: Path, face: str, spoken: str
) -> None:
    with in_between(daemon.port, most=3 << 20) as between:
        client = run(face, "put", source, between.url, protocol=spoken)
        done = client.result()
    assert stored(daemon, done["url"]) == DATA
    assert [each["size"] for each in client.told("piecesshrunk")] == [8388609, 4194304, 2097152]
    assert client.told("retried") == []


@FACES
@BOTH
def test_lost_answers_cost_no_byte(daemon: Daemon, run: Run, source: Path, face: str, spoken: str) -> None:
    with in_between(daemon.port) as between:
        between.loses = 3
        client = run(face, "put", source, between.url, protocol=spoken, chunk_size=5_000_000)
        done = client.result()
    assert stored(daemon, done["url"]) == DATA
    assert len(client.told("retried")) == 3


@FACES
@BOTH
def test_standard_input_is_sent_while_it_comes(daemon: Daemon, run: Run, face: str, spoken: str) -> None:
    with in_between(daemon.port) as between:
        between.loses = 1
        done = run(face, "put", "-", between.url, protocol=spoken, buffer=1 << 20).result(DATA)
    assert stored(daemon, done["url"]) == DATA
    assert (done["size"], done["sent"], done["checked"]) == (len(DATA), len(DATA), True)


@FACES
def test_parallel_parts_with_checksums_go_on_after_a_kill(daemon: Daemon, run: Run, source: Path, face: str) -> None:
    options = {"parts": 3, "checksum": "auto", "announce": True, "chunk_size": 1 << 20}
    first = run(face, "put", source, daemon.url, limit_rate=SLOW, **options)
    first.moving()
    first.kill()
    done = run(face, "put", source, daemon.url, **options).result()
    assert done["checked"] is True
    assert stored(daemon, done["url"]) == DATA


@FACES
def test_it_tells_of_both_tiers_and_waits_until_it_is_stored(daemon: Daemon, run: Run, source: Path, face: str) -> None:
    client = run(face, "put", source, daemon.url, wait_stored=True, poll_status=0.05)
    assert client.result()["stored"] is True
    last = client.told("looked")[-1]["tiers"]
    assert (last["state"], last["received"]) == ("stored", len(DATA))
    assert last["replicas"][0]["confirmed"] == len(DATA)


@FACES
def test_a_download_goes_on_after_a_kill_and_is_checked(
    daemon: Daemon, run: Run, source: Path, tmp_path: Path, face: str
) -> None:
    url = run(face, "put", source, daemon.url).result()["url"]
    target = tmp_path / "received.bin"
    first = run(face, "get", target, url, limit_rate=SLOW)
    first.moving()
    first.kill()
    assert not target.exists()
    done = run(face, "get", target, url).result()
    assert target.read_bytes() == DATA
    assert 0 < done["resumed_from"] < len(DATA)
    assert done["checked"] is True
    assert run(face, "get", target, url).end()["error"] == "TargetExists"


@FACES
def test_only_one_process_sends_a_file_to_an_endpoint(daemon: Daemon, run: Run, source: Path, face: str) -> None:
    first = run(face, "put", source, daemon.url, limit_rate=SLOW)
    first.moving()
    assert run("blocking", "put", source, daemon.url).end()["error"] == "AlreadySending"
    first.kill(signal.SIGINT)
    assert run("deferred", "put", source, daemon.url).result()["resumed_from"] > 0


@FACES
def test_a_certificate_is_verified_unless_that_is_given_up(
    serve: Callable[..., Daemon], run: Run, source: Path, tmp_path: Path, face: str
) -> None:
    own = certified("server")
    key, authority = tmp_path / "server.pem", tmp_path / "ca.pem"
    key.write_bytes(own.both)
    authority.write_bytes(own.pem)
    port = free_port()
    serve("--listen", f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={key}")
    url = f"https://127.0.0.1:{port}/files/"
    assert run(face, "put", source, url).end()["error"] == "NotTrusted"
    assert run(face, "put", source, url, insecure=True).result()["size"] == len(DATA)
    path = tmp_path / "again"
    path.write_bytes(DATA)
    assert run(face, "put", path, url, ca_file=str(authority)).result()["size"] == len(DATA)


def test_the_blocking_face_imports_no_twisted() -> None:
    code = "import sys, resumable.client; print([m for m in sys.modules if m.startswith(('twisted', 'ssl', 'http.'))])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

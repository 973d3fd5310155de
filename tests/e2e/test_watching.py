"""Statuses as server-sent events, from real daemons: to clients, to operators, from several workers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from . import tools
from .daemon import BOUND, ROOT, Daemon, environment, eventually
from .nodes import Workers
from .tus import Tus, pattern


class Stream:
    """One connection that reads events."""

    def __init__(self, link: socket.socket, target: str) -> None:
        self.link = link
        link.settimeout(BOUND)
        link.sendall(f"GET {target} HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n".encode())
        self._file = link.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass

    @classmethod
    def of(cls, port: int, target: str) -> Stream:
        return cls(socket.create_connection(("127.0.0.1", port)), target)

    def events(self) -> Iterator[tuple[str, Any]]:
        """Until the stream ends."""
        name = ""
        while True:
            size = int(self._file.readline() or b"0", 16)
            for line in self._file.read(size).decode().splitlines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    yield name, json.loads(line[6:])
            self._file.readline()
            if not size:
                return

    def close(self) -> None:
        self._file.close()
        self.link.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon() as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


def test_a_client_watches_its_upload_until_it_is_finished(daemon: Daemon) -> None:
    data = pattern(300_000)
    with closing(Tus(daemon.port)) as tus:
        path = tus.create(len(data))
        with closing(Stream.of(daemon.port, f"{path}/status")) as stream:
            found = stream.events()
            assert next(found)[1]["offset"] == 0
            tus.patch(path, 0, data[:100_000])
            assert next(found)[1]["offset"] == 100_000
            tus.patch(path, 100_000, data[100_000:])
            *_, last, end = found
            assert last[1]["state"] == "finished" and end == ("end", {"state": "finished"})


def test_an_operator_watches_all_uploads_at_the_socket(daemon: Daemon) -> None:
    if daemon.shares:
        pytest.skip("its admin socket is elsewhere")
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(daemon.upload_dir / ".resumable/admin.sock"))
    with closing(Stream(link, "/v1/uploads?state=any")) as stream, closing(Tus(daemon.port)) as tus:
        found = stream.events()
        assert next(found) == ("uploads", {"uploads": [], "next": None})
        path = tus.create(3)
        name, row = next(found)
        assert (name, row["id"]) == ("upload", path.rpartition("/")[2])


@pytest.mark.parametrize("page", ["docs/api.md", "docs/remotes.md"])
def test_the_docs_commands_show_events(daemon: Daemon, page: str) -> None:
    if daemon.shares:
        pytest.skip("its admin socket is elsewhere")
    with closing(Tus(daemon.port)) as tus:
        upload_id = tus.create(3).rpartition("/")[2]
    (line,) = re.findall(r"^\$ (curl -N .*)$", (ROOT / page).read_text(), re.MULTILINE)
    line = line.replace("localhost:8080", f"127.0.0.1:{daemon.port}").replace(
        "24e533e02ec3bc40c387f1a0e460e216", upload_id
    )
    environ = {**environment(), "SOCKET": str(daemon.upload_dir / ".resumable/admin.sock")}
    shell = subprocess.Popen([tools.need("bash"), "-c", f"exec {line}"], env=environ, stdout=subprocess.PIPE, text=True)
    assert shell.stdout is not None
    assert [shell.stdout.readline() for _ in range(2)] == ["retry: 2000\n", "\n"]
    said = iter(shell.stdout.readline, "")
    assert upload_id in next(each for each in said if each.startswith("data: "))
    shell.kill()
    shell.communicate(timeout=BOUND)


def test_a_stop_waits_for_no_stream_and_no_slow_reader(daemon: Daemon) -> None:
    with closing(Tus(daemon.port)) as tus:
        path = tus.create(3)
        streams = [Stream.of(daemon.port, f"{path}/status") for _ in range(50)]
        assert {each.status for each in streams} == {200}
        daemon.flags = ()
        assert daemon.stop() == 0
        for each in streams:
            assert [name for name, _ in each.events()] == ["status"]
            each.close()
    assert "aborted" not in daemon.log


def test_a_watcher_at_one_worker_sees_what_another_receives() -> None:
    with Workers() as two:
        two.start()
        assert eventually(lambda: len(two.rows()) == 2)
        data = pattern(200_000)
        one, other = two.by_worker().values()
        path = one.create(len(data))
        link = other.wire().socket
        stream = Stream(link, f"{path}/status")
        found = stream.events()
        assert next(found)[1]["offset"] == 0
        one.patch(path, 0, data[:100_000])
        assert next(found)[1]["offset"] == 100_000
        one.patch(path, 100_000, data[100_000:])
        assert list(found)[-1] == ("end", {"state": "finished"})
        stream.close()
        assert not two.complaints(), "\n".join(two.complaints())

"""URLSession of iOS and macOS, request by request: the client that apps use without knowing of resumable uploads.

It sends a whole file in one request, which says by a field that it can be resumed. If a 104 of its version named the
upload before the connection ended, it asks by HEAD and sends the rest by PATCH, each over a new connection. An app gets
whatever final answer comes first: a 5xx ends the upload. iOS 17 speaks interop version 3, 18.0 version 5, 18.1 version
6, and 26.2 version 8. Source: Apple's documentation of URLSession, and drafts 01, 03, 05 and 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from .daemon import Daemon, eventually
from .disks import Mount, fill
from .draft_client import Draft, Reply, Transfer, Way
from .tus import Tus, pattern

VERSIONS = {"iOS 17": 3, "iOS 18.0": 5, "iOS 18.1": 6, "iOS 26.2": 8}
WAYS: tuple[Way, ...] = ("http1", "http2")
DATA = pattern(1_500_000, seed=191)
SENT = 1_000_000
"""Bytes of it that have been sent when something happens."""
MIB = 1 << 20


class Task:
    """One upload task of an app: it is given one answer, or none."""

    def __init__(self, port: int, version: int, way: Way, data: bytes) -> None:
        self.draft, self.data = Draft(port, version, way), data
        self.path = ""
        self.offset = 0
        self._transfer: Transfer | None = None

    def __repr__(self) -> str:
        return f"version {self.draft.version} over {self.draft.way}"

    @contextmanager
    def begun(self, sent: int) -> Iterator[None]:
        """The one request: the 104 has come, and that many bytes have gone."""
        fields = self.draft.creation(fields={"Content-Type": "application/octet-stream"})
        with self.draft.begin("POST", None, fields, len(self.data)) as self._transfer:
            self.path = self._transfer.resumption()
            self._transfer.send(self.data[:sent], end=sent == len(self.data))
            yield

    def send_rest(self, sent: int) -> None:
        assert self._transfer is not None
        self._transfer.send(self.data[sent:], end=True)

    def answer(self) -> Reply:
        """EOFError: the connection, or the stream, has ended without one."""
        assert self._transfer is not None
        return self.draft.check(self._transfer.answer())

    def resume(self) -> Reply:
        """The answer to the rest. EOFError as above."""
        found = self.draft.head(self.path)
        assert found.status == 204 and self.draft.dialect.complete(found) is False, f"{self}: {found}"
        self.offset = found.offset
        return self.draft.append(self.path, self.offset, self.data[self.offset :])


def tasks(daemon: Daemon, data: bytes = DATA) -> list[Task]:
    """One of each version, over each version of HTTP."""
    return [Task(daemon.port, version, way, data) for version in VERSIONS.values() for way in WAYS]


def begin(under_way: Iterable[Task], daemon: Daemon, stack: ExitStack) -> None:
    """All at once; the server has written what was sent."""
    for task in under_way:
        stack.enter_context(task.begun(SENT))
    for task in under_way:
        eventually(partial(written, daemon, task, SENT))


def written(daemon: Daemon, task: Task, size: int) -> bool:
    """Whether the data file has that many bytes."""
    file = daemon.upload_dir / task.path.removeprefix("/files/")
    return file.exists() and file.stat().st_size == size


def is_dropped(task: Task) -> None:
    with pytest.raises(EOFError):
        pytest.fail(f"{task}: the app is told {task.answer()}")


def is_done(task: Task, answer: Reply, tus: Tus) -> None:
    assert answer.status == 200 and task.draft.dialect.complete(answer) is True, f"{task}: {answer}"
    assert tus.content(task.path) == task.data


def test_an_upload_without_trouble_is_one_request(serve: Callable[..., Daemon]) -> None:
    daemon = serve("--h2c")
    tus = daemon.attach(Tus(daemon.port))
    for task in tasks(daemon):
        with task.begun(len(DATA)):
            is_done(task, task.answer(), tus)


def test_a_lost_connection_is_only_a_pause(serve: Callable[..., Daemon]) -> None:
    """The question how far the upload is comes as soon as the connection has ended; the log has no complaint of it."""
    daemon = serve("--h2c")
    tus = daemon.attach(Tus(daemon.port))
    for task in tasks(daemon):
        with task.begun(SENT):
            eventually(partial(written, daemon, task, SENT))
        is_done(task, task.resume(), tus)
        assert task.offset == SENT


def test_kill_9_is_only_a_pause(serve: Callable[..., Daemon]) -> None:
    daemon = serve("--h2c")
    tus = daemon.attach(Tus(daemon.port))
    with ExitStack() as stack:
        under_way = tasks(daemon)
        begin(under_way, daemon, stack)
        daemon.kill()
        for task in under_way:
            is_dropped(task)
    daemon.start()
    for task in under_way:
        is_done(task, task.resume(), tus)
        assert task.offset <= SENT


def test_a_stop_is_only_a_pause_and_what_came_before_is_kept(serve: Callable[..., Daemon]) -> None:
    """SIGTERM: no app is told a 5xx."""
    daemon = serve("--h2c")
    tus = daemon.attach(Tus(daemon.port))
    with ExitStack() as stack:
        under_way = tasks(daemon)
        begin(under_way, daemon, stack)
        daemon.terminate()
        for task in under_way:
            is_dropped(task)
    assert daemon.wait() == 0
    daemon.start()
    for task in under_way:
        is_done(task, task.resume(), tus)
        assert task.offset == SENT


def test_a_full_disk_is_only_a_pause(tmpfs: Mount, serve: Callable[..., Daemon]) -> None:
    """A 507 would end the upload, in an append as well: the connection ends, until there is space."""
    place, data = tmpfs(24 * MIB), pattern(12 * MIB, seed=192)
    daemon = serve("--h2c", "--reserve", "0", upload_dir=place)
    tus = daemon.attach(Tus(daemon.port))
    for task in tasks(daemon, data):
        with task.begun(SENT):
            eventually(partial(written, daemon, task, SENT))
            filler = fill(place, keep=5 * MIB)
            task.send_rest(SENT)
            is_dropped(task)
        with pytest.raises(EOFError):
            task.resume()
        filler.unlink()
        is_done(task, task.resume(), tus)
        assert tus.delete(task.path).status == 204


def test_a_disk_that_was_full_before_is_told_to_whoever_has_no_104(tmpfs: Mount, serve: Callable[..., Daemon]) -> None:
    """There is nothing that could be resumed."""
    daemon = serve("--h2c", "--reserve", "32M", upload_dir=tmpfs(24 * MIB))
    for task in tasks(daemon):
        reply = task.draft.create(b"abc")
        assert (reply.status, reply.heads) == (507, ()), f"{task}: {reply}"

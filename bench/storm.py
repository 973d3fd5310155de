"""Many small uploads: one after the other on each of some kept connections, or each on a new connection.

Changes when the shape of that load does. Invariant: every acknowledged upload is counted in ``acknowledged``, also
those answered before and after the timed part, so that what the server kept can be compared with what it said.
The requests are made beforehand and the answers barely looked at: ``--calibrate`` says what this can do.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.load import OCTETS, Connection, LoadError, head_of, patch_head, path_of

READ = 1 << 16
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
LOCATION = re.compile(rb"\r\nlocation: *([^\r]+)", re.IGNORECASE)


@dataclass
class Lane:
    """One connection: what it sends again and again, and what is under way on it.

    ``request`` creates an upload of ``length`` bytes, which is answered with ``status``. If ``split``, it has no body:
    this goes out in a PATCH as soon as the creation is answered. ``last`` is the last answer to a creation.
    """

    connection: Connection
    body: bytes
    request: bytes
    length: int
    split: bool = False
    status: bytes = b"201"
    appending: bool = False
    began: float = 0.0
    heard: bytes = b""
    last: bytes = b""

    def fire(self, now: float) -> None:
        self.began, self.heard, self.appending = now, b"", False
        self.connection.send(self.request)

    def done(self) -> bool:
        """Take what came, go on where there is more to send, and tell whether the upload is acknowledged."""
        data = self.connection.sock.recv(READ)
        if not data:
            raise LoadError("a connection was closed in the middle of a storm")
        self.heard = final(self.heard + data if self.heard else data)
        if not complete(self.heard, b"204" if self.appending else self.status):
            return False
        if self.appending:
            return True
        self.last = self.heard
        if self.split:
            self.heard, self.appending = b"", True
            self.connection.send(patch_head(last_path(self), 0, self.length) + self.body)
        return not self.split


@dataclass
class Storm:
    """What a storm gave: ``latencies`` (seconds) of the answers within ``seconds``, and how many were acknowledged."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    acknowledged: int = 0

    @property
    def rate(self) -> float:
        """Uploads per second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Return the latency (seconds) that ``share`` of the uploads stayed below."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def final(heard: bytes) -> bytes:
    """What came, without whole informational responses at its beginning."""
    while heard.startswith(b"HTTP/1.1 1") and (end := heard.find(b"\r\n\r\n")) > 0:
        heard = heard[end + 4 :]
    return heard


def complete(answer: bytes, status: bytes = b"201") -> bool:
    """Tell whether an answer of that status is there with all of its body; LoadError when it has another one."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not answer.startswith(b"HTTP/1.1 " + status):
        raise LoadError(f"answered {answer[:200]!r}, not {status.decode()}")
    head = answer[: end + 2]
    if length := LENGTH.search(head):
        return len(answer) >= end + 4 + int(length[1])
    return answer.endswith(b"0\r\n\r\n") if CHUNKED.search(head) else True


def lanes(connections: Iterable[Connection], root: str, size: int, split: bool = False) -> list[Lane]:
    """On each connection uploads of ``size`` bytes of its own will be sent."""
    return [_lane(connection, root, os.urandom(size), size, split) for connection in connections]


def _lane(connection: Connection, root: str, body: bytes, length: int, split: bool) -> Lane:
    headers = {"Upload-Length": str(length)}
    if split:
        request = head_of("POST", root, {**headers, "Content-Length": "0"})
    else:
        request = head_of("POST", root, {**headers, "Content-Type": OCTETS, "Content-Length": str(length)}) + body
    return Lane(connection, body, request, length, split)


def crowd(port: int, root: str, count: int, half: bytes, at_once: int) -> tuple[float, list[Lane]]:
    """Open ``count`` connections, each of which creates an upload, sends ``half`` of it and stays open.

    ``at_once`` of them wait for an answer at a time. Returns the seconds until one more connection is answered, and the
    lanes.
    """
    began = time.perf_counter()
    opened: list[Lane] = []
    waiting: dict[int, Lane] = {}
    poller = select.epoll()
    try:
        while waiting or len(opened) < count:
            while len(waiting) < at_once and len(opened) < count:
                lane = _lane(Connection(port), root, half, 2 * len(half), split=True)
                opened.append(lane)
                waiting[lane.connection.sock.fileno()] = lane
                poller.register(lane.connection.sock, select.EPOLLIN)
                lane.fire(0.0)
            ready = poller.poll(30.0)
            if not ready:
                raise LoadError(f"{len(waiting)} creations were never answered")
            for fd, _ in ready:
                waiting[fd].done()
                if waiting[fd].appending:
                    poller.unregister(fd)
                    del waiting[fd]
    finally:
        poller.close()
    with Connection(port) as last:
        last.ask("OPTIONS", root, {})
    return time.perf_counter() - began, opened


def blow(over: Sequence[Lane], seconds: float, patience: float = 30.0) -> Storm:
    """Keep every lane busy for ``seconds``, then wait up to ``patience`` seconds for the answers under way."""
    storm, clock, latencies = Storm(seconds), time.perf_counter, []
    by_fd = {lane.connection.sock.fileno(): lane for lane in over}
    poller = select.epoll(len(by_fd))
    try:
        end = clock() + seconds
        for fd, lane in by_fd.items():
            poller.register(fd, select.EPOLLIN)
            lane.fire(clock())
        busy = len(by_fd)
        while busy:
            ready = poller.poll(1.0)
            for fd, _ in ready:
                lane = by_fd[fd]
                if not lane.done():
                    continue
                storm.acknowledged += 1
                now = clock()
                if now < end:
                    latencies.append(now - lane.began)
                    lane.fire(now)
                else:
                    busy -= 1
            if not ready and clock() > end + patience:
                raise LoadError(f"{busy} uploads were never answered")
    finally:
        poller.close()
    storm.latencies = latencies
    return storm


def last_path(lane: Lane) -> str:
    """Return the path of the upload that the lane was acknowledged last."""
    location = LOCATION.search(lane.last)
    if location is None:
        raise LoadError(f"a creation was answered without Location: {lane.last[:200]!r}")
    return path_of(location[1].decode("latin-1"))

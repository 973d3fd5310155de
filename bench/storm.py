"""Many small uploads over keep-alive connections: one request in flight on each, the next as soon as it is answered.

Changes when the shape of that load does. Invariant: every acknowledged upload is counted in ``acknowledged``, also
those answered before and after the timed part, so that what the server kept can be compared with what it said.
The requests are made beforehand and the answers barely looked at: ``--calibrate`` says what this can do.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.load import OCTETS, Connection, LoadError, head_of, path_of

READ = 1 << 16
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
LOCATION = re.compile(rb"\r\nlocation: *([^\r]+)", re.IGNORECASE)


@dataclass
class Lane:
    """One connection: what it sends again and again, and what is under way on it."""

    connection: Connection
    body: bytes
    request: bytes
    began: float = 0.0
    heard: bytes = b""
    last: bytes = b""

    def fire(self, now: float) -> None:
        self.began, self.heard = now, b""
        self.connection.send(self.request)


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


def complete(answer: bytes) -> bool:
    """Tell whether a 201 with all of its body is there; LoadError when it is another status."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not answer.startswith(b"HTTP/1.1 201"):
        raise LoadError(f"a creation was answered {answer[:200]!r}")
    head = answer[: end + 2]
    if length := LENGTH.search(head):
        return len(answer) >= end + 4 + int(length[1])
    return answer.endswith(b"0\r\n\r\n") if CHUNKED.search(head) else True


def lanes(port: int, root: str, connections: int, size: int) -> list[Lane]:
    """Open the connections; each will send uploads of ``size`` bytes of its own."""
    made = []
    for _ in range(connections):
        body = os.urandom(size)
        headers = {"Upload-Length": str(size), "Content-Type": OCTETS, "Content-Length": str(size)}
        made.append(Lane(Connection(port), body, head_of("POST", root, headers) + body))
    return made


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
                data = lane.connection.sock.recv(READ)
                if not data:
                    raise LoadError("a connection was closed in the middle of a storm")
                lane.heard = lane.heard + data if lane.heard else data
                if not complete(lane.heard):
                    continue
                storm.acknowledged += 1
                lane.last = lane.heard
                now = clock()
                if now < end:
                    latencies.append(now - lane.began)
                    lane.fire(now)
                else:
                    busy -= 1
            if not ready and clock() > end + patience:
                raise LoadError(f"{busy} creations were never answered")
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

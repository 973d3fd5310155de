"""What is measured when things break: a holder that falls silent, a server that is told to stop.

Changes when such a measurement does. Invariant: the client behaves as published clients do (it asks by HEAD where to go
on, and tries again until it is let), so the seconds are those that a person waits.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from bench.load import Connection, LoadError, create, offset_of, patch_head
from bench.measure import GIB, MIB, Bench, Measure, check_file
from bench.servers import Running

PATIENCE = 20.0
AGAIN = 0.05
LIVE = 0.25
SENT = MIB
LENGTH = 8 * MIB


def _silent(bench: Bench, server: Running, silence: float) -> tuple[Connection, str]:
    """Begin an append, send a part of it and fall silent; as half-open as the server can tell."""
    with Connection(server.port) as connection:
        path = create(connection, server.kind.root, LENGTH)
    holder = Connection(server.port)
    holder.send(patch_head(path, 0, LENGTH))
    holder.send_from(bench.source.view, SENT)
    time.sleep(silence)
    return holder, path


def _offset_at_last(server: Running, path: str) -> int:
    """Ask by HEAD until an offset is told."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with Connection(server.port, PATIENCE) as connection:
            answer = connection.ask("HEAD", path, {})
        if answer.status in (200, 204):
            return int(answer.headers["upload-offset"])
        time.sleep(AGAIN)
    raise LoadError(f"no offset within {PATIENCE:.0f} s of a holder's silence")


def _by_head(bench: Bench, server: Running, silence: float) -> tuple[float, float]:
    """Return the seconds until HEAD told an offset, and the share of what was sent that it had kept."""
    holder, path = _silent(bench, server, silence)
    with holder:
        began = time.perf_counter()
        offset = _offset_at_last(server, path)
        took = time.perf_counter() - began
    if offset > SENT or (server.kind.own and silence > LIVE and offset != SENT):
        raise LoadError(f"HEAD told {offset} where {SENT} bytes had been sent")
    return took, offset / SENT


def _by_patch(bench: Bench, server: Running, silence: float) -> float:
    """Return the seconds until a second append of the same upload was accepted and had ended it."""
    holder, path = _silent(bench, server, silence)
    with holder:
        began, offset = time.perf_counter(), SENT
        while time.perf_counter() - began < PATIENCE:
            with Connection(server.port, PATIENCE) as connection:
                # A refusal may come, and the connection go, while the body is still on its way.
                with suppress(LoadError):
                    connection.send(patch_head(path, offset, LENGTH - offset))
                    connection.send_from(bench.source.view, LENGTH - offset, offset)
                answer = connection.answer("PATCH")
            if answer.status == 204:
                took = time.perf_counter() - began
                check_file(server, path, bench.source.digest(0, LENGTH))
                return took
            time.sleep(AGAIN)
            offset = _offset_at_last(server, path)
    raise LoadError(f"no second append within {PATIENCE:.0f} s of a holder's silence")


def takeover(bench: Bench, server: Running) -> dict[str, float]:
    """Slowest HEAD and PATCH (s) over the silences, and the least share (%) of the sent bytes that HEAD told of."""
    server.warm()
    by_head = [_by_head(bench, server, silence) for silence in bench.sizes.silences]
    by_patch = [_by_patch(bench, server, silence) for silence in bench.sizes.silences]
    return {
        "head": max(took for took, _ in by_head),
        "patch": max(by_patch),
        "kept": 100 * min(kept for _, kept in by_head),
    }


class Sender(threading.Thread):
    """Sends an append in pieces of 1 MiB, a hundred a second at most.

    It ends at an answer that comes early, as curl does; a ``deaf`` one goes on until the connection is closed on it.
    """

    def __init__(self, bench: Bench, connection: Connection, path: str, length: int, deaf: bool) -> None:
        super().__init__(daemon=True)
        self.bench, self.connection, self.path, self.length, self.deaf = bench, connection, path, length, deaf
        self.sent = 0
        self.status: int | None = None

    def run(self) -> None:
        with suppress(LoadError):
            self.connection.send(patch_head(self.path, 0, self.length))
            while self.sent < self.length and (self.deaf or not self.connection.answered()):
                self.connection.send_from(self.bench.source.view, min(MIB, self.length - self.sent), self.sent)
                self.sent = min(self.length, self.sent + MIB)
                time.sleep(0.01)
        with suppress(LoadError):
            self.status = self.connection.answer("PATCH").status
        self.connection.close()


def stop(bench: Bench, server: Running) -> dict[str, float]:
    """SIGTERM with an upload under way: seconds to the end, exit status, and the share (%) of sent bytes kept."""
    return _stop(bench, server, deaf=False)


def stop_deaf(bench: Bench, server: Running) -> dict[str, float]:
    """The same with a client that does not listen while it sends."""
    return _stop(bench, server, deaf=True)


def _stop(bench: Bench, server: Running, deaf: bool) -> dict[str, float]:
    server.warm()
    length = GIB
    with Connection(server.port) as connection:
        path = create(connection, server.kind.root, length)
    sender = Sender(bench, Connection(server.port), path, length, deaf)
    sender.start()
    time.sleep(0.5)
    sent = sender.sent
    took, status = server.stop()
    sender.join(PATIENCE)
    server.start()
    with Connection(server.port) as connection:
        offset = offset_of(connection, path)
    if server.kind.own and (status != 0 or offset == 0):
        raise LoadError(f"stopped with status {status} and kept {offset} of {sent} bytes")
    with server.file_of(path).open("rb") as data:
        if data.read(offset) != b"".join(bench.source.read(at, min(MIB, offset - at)) for at in range(0, offset, MIB)):
            raise LoadError("other bytes were kept than were sent")
    kept = min(100.0, 100 * offset / sent) if sent else 0.0
    return {"seconds": took, "status": float(status), "answered": float(sender.status or 0), "kept": kept}


MEASURES: dict[str, Measure] = {"takeover": takeover, "stop": stop, "deaf": stop_deaf}

"""Downloads over real sockets: who leaves in the middle, or never reads, holds nothing."""

from __future__ import annotations

import os
from pathlib import Path

from .daemon import Daemon, eventually, resident
from .tus import Tus, head_bytes, pattern

DATA = pattern(32 << 20, seed=41)


def held(daemon: Daemon, path: str) -> int:
    """How often the server has the upload's data file open."""
    assert daemon.process is not None
    name = str(daemon.upload_dir.resolve() / path.rpartition("/")[2])
    found = 0
    for each in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        try:
            found += os.readlink(each) == name
        except FileNotFoundError:
            continue
    return found


def test_clients_that_leave_or_never_read_hold_no_file_and_no_memory(daemon: Daemon, tus: Tus) -> None:
    path = tus.create(len(DATA), None, DATA)
    assert tus.content(path) == DATA
    before = resident(daemon)
    wires = [tus.wire() for _ in range(8)]
    try:
        for wire in wires:
            wire.send(head_bytes("GET", path))
        eventually(lambda: held(daemon, path) == len(wires))
        assert tus.offset(path) == len(DATA), "others are served"
        assert resident(daemon) - before < len(DATA), "eight times the file would be 256 MiB"
        for wire in wires[::2]:
            wire.reset()
        for wire in wires[1::2]:
            wire.close()
        eventually(lambda: held(daemon, path) == 0)
    finally:
        for wire in wires:
            wire.close()

"""One PATCH over a path whose segments are as small as on a wire: a pair of virtual Ethernet devices.

Changes when another path is wanted. Invariant: the client is in a network namespace of its own, and no end of the pair
joins or splits segments for the other (offloads are off), so that the server gets each packet of the MTU alone. Needs
root, iproute2 and ethtool. See veth(4), ip-netns(8).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from bench.http2 import appended
from bench.load import LoadError, free_port
from bench.measure import GIB, MIB, Bench, Measure
from bench.rivals import Unavailable
from bench.servers import Running

OURS, THEIRS = "10.213.77.1", "10.213.77.2"
OFFLOADS = ("tso", "gso", "gro")


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise LoadError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def wire(mtu: int) -> Iterator[list[str]]:
    """The pair; yields the words that start a program at its other end."""
    space = f"tus-bench-{os.getpid()}"
    near, far = f"tus{os.getpid()}a", f"tus{os.getpid()}b"
    within = ["ip", "netns", "exec", space]
    _do("ip", "netns", "add", space)
    try:
        _do("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", space)
        for start, device, address in (([], near, OURS), (within, far, THEIRS)):
            _do(*start, "ethtool", "-K", device, *(word for offload in OFFLOADS for word in (offload, "off")))
            _do(*start, "ip", "address", "add", f"{address}/30", "dev", device)
            _do(*start, "ip", "link", "set", device, "mtu", str(mtu), "up")
        yield within
        _do("ip", "link", "delete", near)
    finally:
        _do("ip", "netns", "delete", space)


def prepare() -> None:
    """Raise Unavailable where there can be no such pair."""
    for tool in ("ip", "ethtool"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is not installed")
    try:
        with wire(1500):
            pass
    except LoadError as error:
        raise Unavailable(f"no network namespace of our own: {error}") from error


def _over(bench: Bench, server: Running, mtu: int) -> dict[str, float]:
    """MiB/s, and CPU seconds per GiB."""
    with wire(mtu) as within:
        place, port, size = server.directory.parent / "wired", free_port(), bench.sizes.linked
        place.mkdir()
        listen = ["--listen", f"tcp:{port}:interface={OURS}"]
        kind = replace(server.kind, command=lambda plain, uploads: [*server.kind.command(plain, uploads), *listen])
        with Running(kind, place) as wired:
            wired.warm()
            took, cpu = appended(bench, wired, within, "plain", (OURS, port), size)
    return {"rate": size / MIB / took, "cpu": cpu * GIB / size}


def ethernet(bench: Bench, server: Running) -> dict[str, float]:
    """Segments of an Ethernet."""
    return _over(bench, server, 1500)


def jumbo(bench: Bench, server: Running) -> dict[str, float]:
    """Segments of an Ethernet with jumbo frames."""
    return _over(bench, server, 9000)


MEASURES: dict[str, Measure] = {"mtu-1500": ethernet, "mtu-9000": jumbo}

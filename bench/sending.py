"""``resumable put`` beside curl: ``python -m bench.sending [ROUNDS] [BYTES] [DIRECTORY]``.

Each sends the same file to a daemon on this machine, in turn: curl in one POST with all bytes, `put` without a
terminal, and `put` in one, with its bars. Prints the seconds of each, with the start of the program, the ratio to
curl's in the same round, and the most memory of `put`. The directory is best one in memory (/dev/shm).
"""

from __future__ import annotations

import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.e2e.daemon import Daemon

KIB = 1024
#: Prints the most KiB that a command used. A child counts the memory of what it was forked from: this is small.
_MEMORY = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def curl(source: Path, url: str) -> None:
    """One POST, whose body streams."""
    fields = ["Tus-Resumable: 1.0.0", f"Upload-Length: {source.stat().st_size}"]
    fields += ["Content-Type: application/offset+octet-stream", "Expect:"]
    flags = [part for each in fields for part in ("-H", each)]
    # without the slash: curl -T would append the file's name
    subprocess.run(["curl", "-fsS", "-X", "POST", "-T", str(source), *flags, url.rstrip("/")], check=True)


def put(source: Path, url: str) -> None:
    """Its output is no terminal."""
    subprocess.run(command(source, url), check=True, stdout=subprocess.DEVNULL, env=environment(source))


def put_with_bars(source: Path, url: str) -> None:
    """Its output is a terminal of 88 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 88, 0, 0))
    with subprocess.Popen(command(source, url), stdin=its, stdout=its, stderr=its, env=environment(source)) as process:
        os.close(its)
        try:
            while os.read(ours, 1 << 16):
                pass
        except OSError:  # Linux's end of a terminal
            pass
        os.close(ours)
    assert process.returncode == 0


def command(source: Path, url: str) -> list[str]:
    return [sys.executable, "-m", "resumable", "put", str(source), url]


def environment(source: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(source.parent / "state"), "TERM": "xterm-256color"}


def timed(run: Callable[[Path, str], None], source: Path, daemon: Daemon) -> float:
    """Seconds; the upload is removed."""
    began = time.monotonic()
    run(source, daemon.url)
    took = time.monotonic() - began
    for each in daemon.upload_dir.iterdir():
        if each.is_file():
            each.unlink()
    return took


def main(rounds: int = 5, size: int = 1 << 30, directory: str = "/dev/shm") -> None:
    """Print what was found."""
    ways: Sequence[Callable[[Path, str], None]] = (curl, put, put_with_bars)
    took: dict[str, list[float]] = {each.__name__: [] for each in ways}
    with tempfile.TemporaryDirectory(dir=directory) as home, Daemon(upload_dir=Path(home) / "uploads") as daemon:
        daemon.start()
        source = Path(home) / "source.bin"
        with source.open("wb") as file:
            for _ in range(0, size, 1 << 20):
                file.write(os.urandom(min(size, 1 << 20)))
        for _ in range(rounds):
            for each in ways:
                took[each.__name__].append(timed(each, source, daemon))
        small = [sys.executable, "-c", _MEMORY, *command(source, daemon.url)]
        memory = int(subprocess.run(small, check=True, capture_output=True, env=environment(source)).stdout)
    for name, seconds in took.items():
        ratios = [each / base for each, base in zip(seconds, took["curl"], strict=True)]
        print(
            f"{name:14} {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f}),"
            f" {statistics.median(ratios):.2f} x curl ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"most memory of put: {memory / KIB:.0f} MiB")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(int(each) for each in given[:2]), *given[2:3])

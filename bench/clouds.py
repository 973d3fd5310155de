"""What is measured of the remotes of Azure and Google: each on its emulator, beside the vendor's own SDK.

Changes when an emulator does. Invariant: the SDK sends the same bytes to the same emulator, once before us and once
after, in pieces of the same size, as many at once, with the same checksums, since an emulator gets faster as it warms
up and slower as it fills; imports and first connections are not timed. What is in the store is compared by SHA-256 with
what was sent, after the clock has stopped. The store is another machine's matter, so half of the cores are the
emulator's, and the others are of whoever uploads to it.
https://learn.microsoft.com/azure/storage/common/storage-use-azurite, https://github.com/oittaa/gcp-storage-emulator
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import proc
from bench.load import HOST, LoadError
from bench.measure import GIB, MIB, Bench, Measure, new_upload, send_whole
from bench.rivals import Unavailable
from bench.sdk import ACCOUNT, KEY, Sdk
from bench.servers import ROOT, START_SECONDS, Running, free_port
from resumable.cli.admin_client import AdminLine

PLACE = "bench"
AZURITE = ROOT / "tests/remotes/azurite/node_modules/azurite/dist/src/blob/main.js"
# By itself it waits for one connection at a time, and closes each after one request.
THREADED = """
from http import server
server.HTTPServer = server.ThreadingHTTPServer
server.BaseHTTPRequestHandler.protocol_version = "HTTP/1.1"
from gcp_storage_emulator.__main__ import main
main()
"""


@dataclass(frozen=True)
class Cloud:
    """A vendor's emulator and SDK. ``endpoint`` and ``remote`` are of the port, the latter of a directory, too."""

    needs: tuple[str, ...]
    command: Callable[[int, Path], list[str]]
    make: Callable[[int], None]
    endpoint: Callable[[int], str]
    remote: Callable[[int, Path], str]

    def prepare(self) -> None:
        """Raise Unavailable where something is not installed."""
        for package in self.needs:
            try:
                version(package)
            except PackageNotFoundError as error:
                raise Unavailable(f"{package} is not installed: pip install {package}") from error
        self.command(0, Path())


def _azurite(port: int, directory: Path) -> list[str]:
    if AZURITE.exists() and (node := shutil.which("node")):
        start = [node, str(AZURITE)]
    elif found := shutil.which("azurite-blob"):
        start = [found]
    else:
        raise Unavailable("Azurite is not installed: npm install -g azurite")
    # the SDK may speak a newer version of the service than it knows
    flags = ["--skipApiVersionCheck", "--disableTelemetry", "--location", str(directory)]
    return [*start, *flags, "--blobHost", HOST, "--blobPort", str(port)]


def _azure_endpoint(port: int) -> str:
    return f"http://{HOST}:{port}/{ACCOUNT}"


def _azure_remote(port: int, directory: Path) -> str:
    secret = directory / "key"
    secret.touch(0o600)
    secret.write_text(KEY)
    return f"az://{PLACE}?account={ACCOUNT}&endpoint={_azure_endpoint(port)}&auth=key&key-file={secret}&part-size=8M"


def _make_container(port: int) -> None:
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient(_azure_endpoint(port), {"account_name": ACCOUNT, "account_key": KEY}) as service:
        service.create_container(PLACE)


def _google(port: int, directory: Path) -> list[str]:
    return [sys.executable, "-c", THREADED, "start", "--host", HOST, "--port", str(port), "--in-memory"]


def _google_endpoint(port: int) -> str:
    return f"http://{HOST}:{port}"


def _make_bucket(port: int) -> None:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/storage/v1/b?project=test", json.dumps({"name": PLACE}), headers)
    if connection.getresponse().status != 200:
        raise LoadError("the emulator made no bucket")
    connection.close()


CLOUDS = {
    "az": Cloud(("azure-storage-blob",), _azurite, _make_container, _azure_endpoint, _azure_remote),
    "gs": Cloud(
        ("gcp-storage-emulator", "google-cloud-storage"),
        _google,
        _make_bucket,
        _google_endpoint,
        lambda port, directory: f"gs://{PLACE}?endpoint={_google_endpoint(port)}&part-size=8M",
    ),
}


@contextmanager
def _emulator(cloud: Cloud, scratch: Path) -> Iterator[tuple[int, Path]]:
    """Running, with an empty container or bucket; yields its port and its log."""
    port, log, data = free_port(), scratch / "emulator.log", scratch / "emulator"
    data.mkdir()
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    with log.open("wb") as out, _on(cores[:half] or cores):
        process = subprocess.Popen(cloud.command(port, data), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        end = time.monotonic() + START_SECONDS
        while not _listens(port):
            if time.monotonic() > end or process.poll() is not None:
                raise LoadError(f"the emulator did not start: {log.read_text(errors='replace')[-300:]}")
            time.sleep(0.05)
        cloud.make(port)
        with _on(cores[half:]):
            yield port, log
    finally:
        process.kill()
        process.wait()


@contextmanager
def _on(cores: Iterable[int]) -> Iterator[None]:
    """What is started within runs on these cores, and so does this thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def _asked(log: Path) -> int:
    time.sleep(0.2)  # the log's last lines
    return log.read_bytes().count(b' HTTP/1.1" ')


def _stored(server: Running, path: str) -> str:
    """The key of the object of an upload that has been answered, so its status says that it is stored."""
    line = AdminLine(f"unix:{server.directory}/.resumable/admin.sock")
    status = line.ask("GET", f"/v1/uploads/{path.rpartition('/')[2]}").document
    if status["state"] != "stored":
        raise LoadError(f"answered, but not stored: {status['replicas']}")
    return str(status["replicas"][0]["key"])


def _ours(bench: Bench, server: Running, size: int) -> tuple[str, float, float]:
    """One PATCH, which is answered once it is stored: the object's key, seconds, and CPU seconds of the server."""
    path = new_upload(server, size)
    cpu, began = proc.cpu_seconds(server.pid), time.perf_counter()
    send_whole(bench, server, path, 0, size)
    took, cpu = time.perf_counter() - began, proc.cpu_seconds(server.pid) - cpu
    return _stored(server, path), took, cpu


def _beside(name: str, bench: Bench, server: Running) -> dict[str, float]:
    """Of one PATCH until it is stored: speed, requests, peak of memory above idle, CPU, each as `FIGURES` has it.

    ``beside``: our speed / that of the SDK, which has the file; ``received``: of the SDK that has to receive it.
    """
    cloud, size, scratch = CLOUDS[name], bench.sizes.stored // 2, server.directory.parent / "cloud"
    scratch.mkdir()
    file = scratch / "file"
    file.write_bytes(bench.source.view[:size])
    with _emulator(cloud, scratch) as (port, log):
        remote = cloud.remote(port, scratch)
        flags = ["--remote", remote, "--ack", "remote"]
        kind = replace(server.kind, command=lambda own, where: [*server.kind.command(own, where), *flags])
        with Running(kind, scratch) as ours, Sdk(name, cloud.endpoint(port), PLACE, scratch) as sdk:
            _ours(bench, ours, size // 4)
            before = sdk.send(file)
            asked, idle = _asked(log), proc.memory(ours.pid, "VmRSS")
            proc.forget_peak(ours.pid)
            key, took, cpu = _ours(bench, ours, size)
            memory, asked = proc.memory(ours.pid, "VmHWM") - idle, _asked(log) - asked
            after = sdk.send(file)
            received, _ = sdk.receive(bench.source.view, size)
            if sdk.digest(key) != bench.source.digest(0, size):
                raise LoadError("the store has other bytes than were sent")
    return {
        "rate": size / MIB / took,
        "beside": (before[0] + after[0]) / 2 / took,
        "received": received / took,
        "requests": asked,
        "memory": max(0, memory) / MIB,
        "cpu": cpu * GIB / size,
        "sdk-cpu": (before[1] + after[1]) / 2 * GIB / size,
    }


def azure(bench: Bench, server: Running) -> dict[str, float]:
    """Azurite, beside azure-storage-blob."""
    return _beside("az", bench, server)


def google(bench: Bench, server: Running) -> dict[str, float]:
    """gcp-storage-emulator, beside google-cloud-storage."""
    return _beside("gs", bench, server)


MEASURES: dict[str, Measure] = {"az": azure, "gs": google}

"""What is measured of the remotes of Azure and Google: each on its emulator, beside the vendor's own SDK.

Changes when an emulator does, or how an SDK is best used. Invariant: the SDK sends the same bytes to the same emulator,
in pieces of the same size, as many at once, with the same checksums; its imports and first connection are not timed.
What is in the store is compared by SHA-256 with what was sent, after the clock has stopped.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import proc
from bench.load import HOST, Connection, LoadError, create
from bench.measure import MIB, Bench, Measure, new_upload, send_whole
from bench.rivals import Unavailable
from bench.servers import ROOT, START_SECONDS, Running, free_port

ACCOUNT, PLACE = "devstoreaccount1", "bench"
# the emulator's own, which everybody knows
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
AZURITE = ROOT / "tests/remotes/azurite/node_modules/azurite/dist/src/blob/main.js"
# By itself it waits for one connection at a time, and closes each after one request.
THREADED = """
from http import server
server.HTTPServer = server.ThreadingHTTPServer
server.BaseHTTPRequestHandler.protocol_version = "HTTP/1.1"
from gcp_storage_emulator.__main__ import main
main()
"""
# Each is given its endpoint, the file and our object's key; it answers seconds for the file and our object's SHA-256.
AZURE_SDK = f"""
import hashlib, json, os, sys, time
from azure.storage.blob import BlobServiceClient
endpoint, path, key = sys.argv[1:]
credential = {{"account_name": {ACCOUNT!r}, "account_key": {KEY!r}}}
service = BlobServiceClient(endpoint, credential, max_block_size=8 << 20, max_single_put_size=8 << 20)
container = service.get_container_client({PLACE!r})
container.upload_blob("warm", b"warm", validate_content=True)
with open(path, "rb") as file:
    began = time.perf_counter()
    container.upload_blob("sdk", file, length=os.path.getsize(path), max_concurrency=4, validate_content=True)
    took = time.perf_counter() - began
found = hashlib.sha256()
for chunk in container.download_blob(key).chunks():
    found.update(chunk)
print(json.dumps([took, found.hexdigest()]))
"""
GOOGLE_SDK = f"""
import hashlib, json, sys, time
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
endpoint, path, key = sys.argv[1:]
client = storage.Client("test", AnonymousCredentials(), client_options={{"api_endpoint": endpoint}})
bucket = client.bucket({PLACE!r})
bucket.blob("warm").upload_from_string(b"warm")
blob = bucket.blob("sdk", chunk_size=8 << 20)
began = time.perf_counter()
blob.upload_from_filename(path, checksum="crc32c")
took = time.perf_counter() - began
print(json.dumps([took, hashlib.sha256(bucket.blob(key).download_as_bytes()).hexdigest()]))
"""


@dataclass(frozen=True)
class Cloud:
    """A vendor's emulator and SDK. ``endpoint`` and ``remote`` are of the port, the latter of a directory, too."""

    needs: tuple[str, ...]
    command: Callable[[int, Path], list[str]]
    make: Callable[[int], None]
    endpoint: Callable[[int], str]
    remote: Callable[[int, Path], str]
    sdk: str

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
    "az": Cloud(("azure-storage-blob",), _azurite, _make_container, _azure_endpoint, _azure_remote, AZURE_SDK),
    "gs": Cloud(
        ("gcp-storage-emulator", "google-cloud-storage"),
        _google,
        _make_bucket,
        _google_endpoint,
        lambda port, directory: f"gs://{PLACE}?endpoint={_google_endpoint(port)}&part-size=8M",
        GOOGLE_SDK,
    ),
}


@contextmanager
def _emulator(cloud: Cloud, scratch: Path) -> Iterator[tuple[int, Path]]:
    """Running, with an empty container or bucket; yields its port and its log."""
    port, log, data = free_port(), scratch / "emulator.log", scratch / "emulator"
    data.mkdir()
    with log.open("wb") as out:
        process = subprocess.Popen(cloud.command(port, data), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        end = time.monotonic() + START_SECONDS
        while not _listens(port):
            if time.monotonic() > end or process.poll() is not None:
                raise LoadError(f"the emulator did not start: {log.read_text(errors='replace')[-300:]}")
            time.sleep(0.05)
        cloud.make(port)
        yield port, log
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def _asked(log: Path) -> int:
    time.sleep(0.2)  # the log's last lines
    return log.read_bytes().count(b' HTTP/1.1" ')


def _stored(server: Running, path: str, seconds: float = 120.0) -> str:
    """Wait until the upload's status says that it is stored; returns its object's key."""
    end, status = time.monotonic() + seconds, dict[str, Any]()
    with Connection(server.port) as connection:
        while time.monotonic() < end:
            status = json.loads(connection.ask("GET", f"{path}/status", {}).expect(200).body)
            if status["state"] == "stored":
                return str(status["replicas"][0]["key"])
            time.sleep(0.01)
    raise LoadError(f"not stored within {seconds:.0f} s: {status.get('replicas')}")


def _sdk(cloud: Cloud, port: int, file: Path, key: str) -> tuple[float, str]:
    """Let the SDK send the file; returns its seconds, and the SHA-256 of the object of that key."""
    command = [sys.executable, "-c", cloud.sdk, cloud.endpoint(port), str(file), key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "NO_PROXY": HOST})
    if done.returncode:
        raise LoadError(f"the SDK failed: {done.stderr[-300:]}")
    took, digest = json.loads(done.stdout)
    return float(took), str(digest)


def _beside(cloud: Cloud, bench: Bench, server: Running) -> dict[str, float]:
    """One PATCH until it is stored: MiB/s, requests, peak of memory above idle (MiB); MiB/s beside the SDK's."""
    size, scratch = bench.sizes.stored // 2, server.directory.parent / "cloud"
    scratch.mkdir()
    with _emulator(cloud, scratch) as (port, log):
        remote = cloud.remote(port, scratch)
        kind = replace(server.kind, command=lambda own, where: [*server.kind.command(own, where), "--remote", remote])
        with Running(kind, scratch) as ours:
            with Connection(ours.port) as connection:
                _stored(ours, create(connection, kind.root, 4096, os.urandom(4096)))
            path, before, idle = new_upload(ours, size), _asked(log), proc.memory(ours.pid, "VmRSS")
            proc.forget_peak(ours.pid)
            began = time.perf_counter()
            send_whole(bench, ours, path, 0, size)
            key = _stored(ours, path)
            took, peak = time.perf_counter() - began, proc.memory(ours.pid, "VmHWM")
            requests = _asked(log) - before
        (scratch / "file").write_bytes(bench.source.view[:size])
        theirs, digest = _sdk(cloud, port, scratch / "file", key)
    if digest != bench.source.digest(0, size):
        raise LoadError("the store has other bytes than were sent")
    memory = max(0, peak - idle) / MIB
    return {"rate": size / MIB / took, "beside": theirs / took, "requests": requests, "memory": memory}


def azure(bench: Bench, server: Running) -> dict[str, float]:
    """Azurite, beside azure-storage-blob with four blocks of 8 MiB at once and their MD5."""
    return _beside(CLOUDS["az"], bench, server)


def google(bench: Bench, server: Running) -> dict[str, float]:
    """gcp-storage-emulator, beside google-cloud-storage with one session in chunks of 8 MiB and their CRC32C."""
    return _beside(CLOUDS["gs"], bench, server)


MEASURES: dict[str, Measure] = {"az": azure, "gs": google}

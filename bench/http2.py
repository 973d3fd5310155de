"""What HTTP/2 costs beside HTTP/1.1, over the same TLS: on a long link, and without one.

Changes when such a measurement does. Invariant: both send the same bytes to the same server, one after the other, from
a process of their own, and what is kept is compared by SHA-256.
"""

from __future__ import annotations

import datetime
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench import proc
from bench.load import HOST, LoadError
from bench.measure import GIB, MIB, Bench, check_file, new_upload
from bench.servers import ROOT, Running, free_port

DELAY = 0.05
"""Seconds in each direction."""
RATE = 50 * MIB
SECONDS = 120.0


def certificate(file: Path) -> None:
    """Write a key and its self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


@contextmanager
def long_link(target: int) -> Iterator[int]:
    """The port of a link to that one."""
    port = free_port()
    command = [sys.executable, "-m", "bench.link", str(port), str(target), str(DELAY), str(RATE)]
    with subprocess.Popen(command, cwd=ROOT) as link:
        try:
            for _ in range(500):
                try:
                    socket.create_connection((HOST, port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield port
        finally:
            link.kill()


def compared(bench: Bench, server: Running) -> dict[str, float]:
    """Speeds (MiB/s) of one PATCH by both versions on both ways, HTTP/2's beside the other's, CPU seconds per GiB."""
    place = server.directory.parent / "secure"
    place.mkdir()
    key, port, size = place / "key.pem", free_port(), bench.sizes.linked
    certificate(key)
    listen = ["--listen", f"ssl:{port}:privateKey={key}:interface={HOST}"]
    kind = replace(server.kind, command=lambda plain, uploads: [*server.kind.command(plain, uploads), *listen])
    file = place / "body"
    file.write_bytes(bench.source.read(0, size))
    found = {}
    with Running(kind, place) as secure, long_link(port) as far:
        secure.warm()
        for way, entrance in (("far", far), ("near", port)):
            for version in ("1.1", "2"):
                path = new_upload(secure, size)
                cpu = proc.cpu_seconds(secure.pid)
                took = _append(version, entrance, path, file, size)
                found[f"{way}-{version}-cpu"] = (proc.cpu_seconds(secure.pid) - cpu) * GIB / size
                found[f"{way}-{version}"] = size / MIB / took
                check_file(secure, path, bench.source.digest(0, size))
    return found | {way: found[f"{way}-2"] / found[f"{way}-1.1"] for way in ("far", "near")}


def _append(version: str, port: int, path: str, file: Path, size: int) -> float:
    command = [sys.executable, "-m", "bench.append", version, str(port), path, str(file), str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise LoadError(f"HTTP/{version}: {done.stderr.strip()[-300:]}")
    return float(done.stdout)


MEASURES = {"http2": compared}

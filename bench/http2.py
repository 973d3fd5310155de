"""PATCHes over TLS: what HTTP/2 costs beside HTTP/1.1, on a long link and without one; and many at once.

Changes when such a measurement does. Invariant: both send the same bytes to the same server, one after the other, from
a process of their own, and what is kept is compared by SHA-256.
"""

from __future__ import annotations

import datetime
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench import proc
from bench.load import HOST, LoadError
from bench.measure import GIB, MIB, Bench, Measure, at_once, check_file, new_upload
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


@contextmanager
def _secured(server: Running) -> Iterator[tuple[Running, int]]:
    """Another such server that listens with TLS as well, and the port of that."""
    if server.kind.secured is None:
        raise LoadError("was not asked to listen with TLS")
    place, port = server.directory.parent / "secure", free_port()
    place.mkdir()
    certificate(place / "key.pem")
    listen = server.kind.secured(port, place / "key.pem")
    kind = replace(server.kind, command=lambda plain, uploads: [*server.kind.command(plain, uploads), *listen])
    with Running(kind, place) as secure:
        secure.warm()
        yield secure, port


def _compared(bench: Bench, server: Running, port: int, size: int) -> dict[str, float]:
    """Speeds (MiB/s) of one PATCH by both versions, HTTP/2's beside the other's, and CPU seconds per GiB."""
    found: dict[str, float] = {}
    for version in ("1.1", "2") if server.kind.own else ("1.1",):
        took, cpu = appended(bench, server, [], version, (HOST, port), size)
        found |= {version: size / MIB / took, f"{version}-cpu": cpu * GIB / size}
    return found | ({"beside": found["2"] / found["1.1"]} if "2" in found else {})


def appended(
    bench: Bench, server: Running, start: Sequence[str], way: str, where: tuple[str, int], size: int
) -> tuple[float, float]:
    """Send one PATCH by ``bench.append``, started by the words of ``start``, to an address and a port.

    Returns seconds, and CPU seconds of the server.
    """
    file = server.directory.parent / "body"
    file.write_bytes(bench.source.view[:size])
    path, cpu = new_upload(server, size), proc.cpu_seconds(server.pid)
    command = [*start, sys.executable, "-m", "bench.append", way, where[0], str(where[1]), path, str(file), str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    cpu = proc.cpu_seconds(server.pid) - cpu
    if done.returncode:
        raise LoadError(f"{way}: {done.stderr.strip()[-300:]}")
    check_file(server, path, bench.source.digest(0, size))
    return float(done.stdout), cpu


def parallel(bench: Bench, server: Running) -> dict[str, float]:
    """Several PATCHes at once by HTTP/1.1, on connections that were there before: values as of `measure.parallel`."""
    with _secured(server) as (secure, port):
        return at_once(bench, secure, secure.connections(bench.sizes.parallel, port))


def near(bench: Bench, server: Running) -> dict[str, float]:
    """Both versions on loopback."""
    with _secured(server) as (secure, port):
        return _compared(bench, secure, port, bench.sizes.linked)


def far(bench: Bench, server: Running) -> dict[str, float]:
    """Both versions over a long link."""
    with _secured(server) as (secure, port), long_link(port) as link:
        return _compared(bench, secure, link, bench.sizes.linked)


MEASURES: dict[str, Measure] = {"tls": near, "tls-parallel": parallel, "http2": far}

"""A daemon at every kind of socket at once: systemd's, TLS, unix, and the PROXY protocol behind a real HAProxy.

This process plays systemd: it makes sockets, hands them over, keeps them, and is told how the daemon is.
"""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.certificates import laptop

from .commands import refuse
from .daemon import BOUND, Daemon, eventually, free_port, run_twistd
from .sockets import CLIENT, Scene, tls_at, unix_at, upload_and_read
from .tools import need
from .tus import head_bytes

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Daemon() as daemon:
        it = Scene(daemon)
        with closing(it.systemd):
            daemon.start()
            yield it
            assert not daemon.complaints(), "\n".join(daemon.complaints())


def test_systemd_is_told_of_a_start(scene: Scene) -> None:
    assert eventually(lambda: scene.systemd.has_told("STATUS=bringing the upload directory in order", "READY=1"))
    assert eventually(lambda: scene.systemd.has_told("WATCHDOG=1")), "and again and again that the reactor turns"
    assert eventually(lambda: scene.systemd.has_told("WATCHDOG=1"))


def test_uploads_come_in_at_every_socket(scene: Scene) -> None:
    inet = lambda: socket.create_connection(("127.0.0.1", scene.systemd.port), timeout=BOUND)  # noqa: E731
    for connect in (inet, lambda: unix_at(scene.systemd.path), lambda: unix_at(scene.unix), lambda: tls_at(scene.tls)):
        upload_and_read(scene.client(connect))


def test_a_unix_socket_is_for_whom_its_mode_says_and_believes_the_proxy_at_it(scene: Scene) -> None:
    assert stat.S_IMODE(scene.unix.stat().st_mode) == 0o660
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "up.example", "X-Forwarded-For": "198.51.100.9"}
    location = scene.client(lambda: unix_at(scene.unix)).post(5, forwarded)["location"]
    assert location.startswith("https://up.example/files/")
    assert eventually(lambda: "198.51.100.9 POST" in scene.daemon.log)


def test_a_renewed_certificate_is_shown_after_sighup(scene: Scene) -> None:
    old = tls_at(scene.tls)
    before = scene.shown()
    scene.pem.write_bytes(laptop().both)
    process = scene.daemon.process
    assert process is not None
    scene.systemd.hear()
    process.send_signal(signal.SIGHUP)
    assert eventually(lambda: scene.systemd.hear() and scene.shown() != before)
    assert eventually(lambda: scene.systemd.has_told("RELOADING=1", "READY=1"))
    with closing(old):
        old.sendall(head_bytes("OPTIONS", "/files/"))
        assert old.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("said", [head_bytes("OPTIONS", "/files/"), b"PROXY TCP4 1.2.3.4 x 1 2\r\n"])
def test_without_the_proxys_header_nothing_is_served(scene: Scene, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", scene.proxied), timeout=BOUND) as link:
        link.sendall(said)
        with suppress(ConnectionResetError):
            assert link.recv(100) == b""


def test_nobody_but_the_proxy_may_say_whose_a_connection_is(scene: Scene) -> None:
    link = socket.create_connection(("127.0.0.1", scene.proxied), timeout=BOUND, source_address=(CLIENT, 0))
    with closing(link), suppress(ConnectionError):
        link.sendall(b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2\r\n" + head_bytes("OPTIONS", "/files/"))
        assert link.recv(100) == b""


@pytest.fixture
def haproxy(scene: Scene, tmp_path: Path) -> Iterator[dict[str, int]]:
    """Its ports, by how it speaks to the daemon."""
    ways = {
        "v1": (scene.proxied, "send-proxy check check-send-proxy"),
        "v2": (scene.proxied, "send-proxy-v2 check check-send-proxy"),
        "tls": (scene.proxied_tls, "send-proxy-v2"),
    }
    ports = {name: free_port() for name in ways}
    lines = ["defaults", "    mode tcp", "    timeout connect 5s", "    timeout client 60s", "    timeout server 60s"]
    for name, (port, how) in ways.items():
        lines += [f"listen {name}", f"    bind 127.0.0.1:{ports[name]}", f"    server s 127.0.0.1:{port} {how}"]
        if "check" in how:
            lines += ["    option httpchk GET /healthz", "    default-server inter 200ms"]
    config = tmp_path / "haproxy.cfg"
    config.write_text("\n".join(lines) + "\n")
    with (tmp_path / "haproxy.log").open("wb") as log:
        proxy = subprocess.Popen([need("haproxy"), "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        assert eventually(lambda: proxy.poll() is not None or all(map(accepts, ports.values())))
        assert proxy.poll() is None, (tmp_path / "haproxy.log").read_text()
        yield ports
        assert "is DOWN" not in (tmp_path / "haproxy.log").read_text(), "its health checks are answered"
    finally:
        proxy.kill()
        proxy.wait()


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_behind_a_real_haproxy_the_client_is_its_client(scene: Scene, haproxy: dict[str, int]) -> None:
    def plain(port: int) -> Callable[[], socket.socket]:
        return lambda: socket.create_connection(("127.0.0.1", port), timeout=BOUND, source_address=(CLIENT, 0))

    claims = {"X-Forwarded-For": "198.51.100.66", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    for way in ("v1", "v2", "tls"):
        port = haproxy[way]
        connect = plain(port) if way != "tls" else lambda: tls_at(haproxy["tls"], source=CLIENT)
        tus = scene.client(connect)
        upload_and_read(tus)
        location = tus.post(5, {**claims, "X-Request-ID": f"by-{way}"})["location"]
        assert location.startswith(f"{'https' if way == 'tls' else 'http'}://127.0.0.1/files/")
        lines = eventually(lambda: [line for line in scene.daemon.log.splitlines() if f"by-{way}" in line])  # noqa: B023
        assert f"{CLIENT} POST" in lines[0], "neither the proxy's address nor the one that the client claims"


def test_http_2_is_agreed_on_in_tls_whoever_is_in_between(scene: Scene, haproxy: dict[str, int]) -> None:
    for port in (scene.tls, haproxy["tls"]):
        for offered in (["h2", "http/1.1"], ["http/1.1"]):
            with closing(tls_at(port, offered)) as link:
                assert link.selected_alpn_protocol() == offered[0]


def test_a_restart_refuses_and_loses_no_connection(scene: Scene) -> None:
    """systemd keeps the sockets; what connects meanwhile waits in them, and is answered by the next process."""
    daemon, systemd = scene.daemon, scene.systemd
    path = scene.client(lambda: unix_at(scene.unix)).create(5)
    answers: list[bytes] = []
    stop = Event()

    def knock() -> None:
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", systemd.port), timeout=BOUND) as link:
                link.sendall(head_bytes("HEAD", path, {"Connection": "close"}))
                answers.append(link.recv(100)[:13])

    knocker = Thread(target=knock)
    knocker.start()
    try:
        assert eventually(lambda: len(answers) > 3)
        assert daemon.stop() == 0
        assert systemd.has_told("STOPPING=1")
        waiting = [socket.create_connection(("127.0.0.1", systemd.port), timeout=BOUND), unix_at(systemd.path)]
        for link in waiting:
            link.settimeout(BOUND)
            link.sendall(head_bytes("HEAD", path))
        daemon.start()
        for link in waiting:
            with closing(link):
                assert link.recv(100).startswith(b"HTTP/1.1 200 ")
        seen = len(answers)
        assert eventually(lambda: len(answers) > seen + 3)
    finally:
        stop.set()
        knocker.join(BOUND)
    assert set(answers) == {b"HTTP/1.1 200 "}
    assert eventually(lambda: systemd.has_told("READY=1"))


def test_who_was_let_in_before_a_stop_is_answered(scene: Scene) -> None:
    """Its request comes when nobody listens any more. Who wasn't let in yet is answered by the next process."""
    daemon, systemd = scene.daemon, scene.systemd
    path = scene.client(lambda: unix_at(scene.unix)).create(5)
    early = [socket.create_connection(("127.0.0.1", systemd.port), timeout=BOUND) for _ in range(20)]
    stopper = Thread(target=daemon.stop)
    stopper.start()
    try:
        assert eventually(lambda: systemd.has_told("STOPPING=1"))
        for link in early:
            link.sendall(head_bytes("HEAD", path))
    finally:
        stopper.join(BOUND)
    daemon.start()
    for link in early:
        with closing(link):
            assert link.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_socket_that_nobody_has_handed_over_is_one_line(tmp_path: Path) -> None:
    listen = ("--listen", "systemd:domain=INET:index=0", "--upload-dir", str(tmp_path))
    done = run_twistd("-n", "--pidfile=", "resumable", *listen, cwd=tmp_path)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert [line for line in said if "systemd has handed over no such socket" in line] == said[-1:]


def test_a_certificate_that_can_not_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cert").write_bytes(laptop().pem)
    files = ("--port", "0", "--tls-cert", str(tmp_path / "cert"), "--upload-dir", str(tmp_path / "u"))
    assert f"{tmp_path / 'cert'} has no key" in refuse(*files, cwd=tmp_path)

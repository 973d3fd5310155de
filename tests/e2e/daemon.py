"""A real ``twistd`` process for tests: started, killed, stopped and started again on one port and directory.

Invariant: no process outlives the test that started it, and nothing here waits longer than its bound.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, TypeVar

from tests.postgres import database
from tests.waiting import BOUND, eventually, free_port

ROOT = Path(__file__).resolve().parents[2]
"""The project's directory; it is put first on the child's PYTHONPATH, so that an older installed copy never runs."""

T = TypeVar("T")


class Closable(Protocol):
    """Something with a connection that ends with the process."""

    def close(self) -> None:
        """Close it; it may be used again."""


C = TypeVar("C", bound=Closable)


def twistd_command() -> list[str]:
    """How to start twistd; the variable RESUMABLE_TWISTD names another one (an installed copy, say)."""
    other = os.environ.get("RESUMABLE_TWISTD")
    return [other] if other else [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of ours, the project first on its path, and ``extra``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RESUMABLE_", "AWS_"))}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    kept["PYTHONUNBUFFERED"] = "1"
    return {**kept, **(extra or {})}


def run_twistd(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run twistd to its own end and give back its status and output; for starts that must fail."""
    return subprocess.run(
        [*wrapper, *twistd_command(), *arguments],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


class Daemon:
    """One service: its port, its directory and, between `start` and `kill` or `stop`, its process.

    ``flags`` follow ``twistd -n --pidfile= resumable --listen ... --upload-dir ...``. ``preexec`` runs in the
    child before twistd (to set limits), ``wrapper`` is a command that runs it, ``descriptors`` stay open for it.
    Everything lives in one temporary directory that `close` removes.
    """

    more: ClassVar[Sequence[str]] = ()
    """Flags of all daemons; their own win."""
    shares: ClassVar[bool] = os.environ.get("TESTS_CATALOG") == "postgres"
    """Whether all daemons have their catalog in a PostgreSQL, each in a database of its own."""

    def __init__(
        self,
        *flags: str,
        env: Mapping[str, str] | None = None,
        upload_dir: Path | None = None,
        preexec: Callable[[], None] | None = None,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="resumable-e2e-"))
        self.upload_dir = upload_dir or self.home / "uploads"
        self.upload_dir.mkdir(exist_ok=True)
        self.port = free_port()
        self.flags = flags
        self.env = dict(env or {})
        self.preexec = preexec
        self.wrapper: Sequence[str] = ()
        self.descriptors: Sequence[int] = ()
        self.process: subprocess.Popen[bytes] | None = None
        if self.shares and "--catalog" not in flags:
            self.env = {"RESUMABLE_CATALOG": database(), "RESUMABLE_RUN_DIR": str(self.home / "run"), **self.env}
        self._log = self.home / "daemon.log"
        self._clients: list[Closable] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where uploads are created."""
        return f"{self.origin}/files/"

    @property
    def log(self) -> str:
        """All that it has printed, over every start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def attach(self, client: C) -> C:
        """Close this client whenever the process ends."""
        self._clients.append(client)
        return client

    def _detach(self) -> None:
        for client in self._clients:
            client.close()

    def arguments(self) -> list[str]:
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        return ["resumable", "--listen", listen, "--upload-dir", str(self.upload_dir), *self.more, *self.flags]

    def start(self) -> Daemon:
        """Start the process and wait until it answers; AssertionError with its log when it does not."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, *twistd_command(), "-n", "--pidfile=", *self.arguments()],
                cwd=self.home,
                env=environment(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=self.preexec,
                pass_fds=self.descriptors,
                start_new_session=True,
            )
        try:
            eventually(lambda: self._healthy() or not self.alive, BOUND)
            assert self.alive, f"twistd ended with status {self.process.returncode}:\n{self.log}"
        except BaseException:
            self.kill()
            raise
        return self

    def _healthy(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
                link.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
                return link.recv(64).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL, as a power cut would; nothing when it does not run."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(BOUND)
        self._detach()

    def terminate(self) -> None:
        """SIGTERM, without waiting for the end."""
        assert self.process is not None
        self.process.terminate()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.terminate()
        return self.wait()

    def wait(self) -> int:
        """The exit status, once it has ended by itself."""
        assert self.process is not None
        status = self.process.wait(BOUND)
        self._detach()
        return status

    def restart(self) -> None:
        """SIGKILL and start again on the same port and directory."""
        self.kill()
        self.start()

    def complaints(self) -> list[str]:
        """Lines of the log that no request and no kill may ever cause."""
        bad = ("Traceback (most recent", "Unhandled", "Unhandled Error", "never awaited", "never retrieved")
        lines = self.log.splitlines()
        found = [n for n, line in enumerate(lines) if any(word in line for word in bad)]
        return ["\n".join(lines[n : n + 25]) for n in found[:5]]

    def close(self) -> None:
        """End the process, if any, and remove its directory."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def resident(daemon: Daemon) -> int:
    """Bytes of memory that the server has now."""
    assert daemon.process is not None
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

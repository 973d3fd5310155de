"""A worker's side: its part of the work as the supervisor gives it, and the line to the supervisor.

``python -m resumable.daemon.worker`` is twistd with the arguments that follow. Invariants: a worker ends as it does on
SIGTERM when the line to its supervisor closes; no process that it starts inherits anything of this.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

from attrs import asdict, evolve, frozen

from resumable.config.options import Settings
from resumable.daemon.pipes import LinePipe
from resumable.listening import run_directory
from resumable.listening.shared_ports import ConnectionTable, Share

VARIABLE: Final = "_RESUMABLE_WORKER"
"""The environment variable with the `Assignment`, as JSON."""


@frozen
class Inherited:
    """File descriptors of sockets that are bound already, in the order of the endpoints; none: they are bound here."""

    listen: tuple[int, ...] = ()
    admin_listen: tuple[int, ...] = ()


@frozen
class Assignment:
    """A worker's ``number`` among ``count``, and the file descriptors that it inherits. ``line``: to its supervisor.

    ``table``: of the connections that each worker has. ``run_dir``: None if it has no socket of its own; ``lock``: of
    that directory, which it has in common with its supervisor.
    """

    number: int
    count: int
    line: int
    table: int
    sockets: Inherited
    run_dir: str | None = None
    lock: int | None = None

    def written(self) -> str:
        """As `taken` reads it."""
        return json.dumps(asdict(self))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that it inherits."""
        lock = () if self.lock is None else (self.lock,)
        return (self.line, self.table, *lock, *self.sockets.listen, *self.sockets.admin_listen)

    def share(self) -> Share:
        """Its share of the clients' connections."""
        return Share(ConnectionTable(self.table, self.count), self.number)

    @property
    def socket(self) -> str | None:
        """The endpoint string of its own socket for operators."""
        return None if self.run_dir is None else run_directory.endpoint_of(Path(self.run_dir), self.number)

    @property
    def others(self) -> dict[int, str]:
        """The paths of the other workers' sockets for operators, by number."""
        if self.run_dir is None:
            return {}
        numbers = (number for number in range(1, self.count + 1) if number != self.number)
        return {number: str(run_directory.socket_of(Path(self.run_dir), number)) for number in numbers}

    def settle(self, settings: Settings) -> Settings:
        """The settings of this worker: it answers operators at the machine's sockets and, if it has one, at its own."""
        if self.run_dir is None:
            return settings
        path = Path(self.run_dir)
        machine = run_directory.settled(settings.admin_listen, path)
        own = run_directory.endpoint_of(path, self.number)
        return evolve(settings, run_dir=path, admin_listen=(*machine, own))


def taken(environ: MutableMapping[str, str]) -> Assignment | None:
    """This process's assignment; None if nobody supervises it. It is there once only."""
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    given = json.loads(text)
    sockets = Inherited(**{name: tuple(each) for name, each in given.pop("sockets").items()})
    found = Assignment(sockets=sockets, **given)
    for each in found.descriptors:
        os.set_inheritable(each, False)
    return found


class SupervisorLine:
    """The supervisor, as a worker knows it. It stands where a service manager is told how the daemon does.

    ``end``: called when the supervisor is gone.
    """

    def __init__(self, descriptor: int, reactor: Any, end: Callable[[], object]) -> None:
        self._reactor = reactor
        self._end = end
        self._pipe = LinePipe(descriptor, self._heard, self._gone)

    def registered(self, worker_id: str) -> None:
        """The worker has this id in the catalog, from where it is removed when the process has ended."""
        self._pipe.tell(f"worker {worker_id}")

    def failed(self, reason: str) -> None:
        """The start has failed."""
        self._pipe.tell(f"error {' '.join(reason.splitlines())}")

    def starting(self) -> None:
        """Before anything that takes long."""
        self._reactor.addReader(self._pipe)

    def ready(self) -> None:
        """Uploads are taken; files that may change have been read."""
        self._pipe.tell("ready")

    def reloading(self) -> None:
        """Until the next `ready`."""

    def closed(self) -> None:
        """No connection is accepted any more."""
        self._pipe.tell("closed")

    def stopping(self, seconds: float) -> None:
        """The supervisor knows how long it takes at most."""

    def stopped(self) -> None:
        """The process ends, and the line with it."""
        self._end = lambda: None

    def _gone(self) -> None:
        self._end()

    def _heard(self, line: str) -> None:
        if line == "ping":
            self._pipe.tell("pong")


def end_this_process() -> None:
    """As if by SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run twistd. An interrupt from the terminal is the supervisor's to pass on."""
    from twisted.scripts.twistd import run

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv[0] = "twistd"
    run()


if __name__ == "__main__":
    main()

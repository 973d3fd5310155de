"""Starts the processes of workers, and reads what they say.

Invariants: a worker inherits its line to the supervisor, the sockets and nothing else. Whatever it writes to its
standard error is logged, or is the reason why the first start has failed. Spec: systemd.exec(5), for the variables.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import IO, Any, Final

from attrs import frozen
from twisted.logger import Logger

from resumable.daemon.pipes import LinePipe
from resumable.daemon.supervisor import ProcessEvents
from resumable.daemon.worker import VARIABLE, Assignment
from resumable.model.errors import StartupError

_OF_THE_SUPERVISOR: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)
"""Variables by which a service manager addresses one process."""

log = Logger()


def command(twistd: Mapping[str, Any], arguments: Sequence[str], number: int) -> list[str]:
    """The command line of the worker with that number. ``twistd``: this process's options of twistd; ``arguments``:
    those for resumable. Raises StartupError."""
    if twistd.get("chroot") is not None:
        raise StartupError("--workers doesn't work with twistd's --chroot: there is no Python in there to start them.")
    found = [sys.executable, "-m", "resumable.daemon.worker", "-n", "--pidfile="]
    if twistd.get("reactor"):
        found.append(f"--reactor={twistd['reactor']}")
    if twistd.get("rundir", ".") != ".":
        found.append(f"--rundir={twistd['rundir']}")
    if twistd.get("logger"):
        found.append(f"--logger={twistd['logger'].__module__}.{twistd['logger'].__qualname__}")
    elif twistd.get("syslog"):
        found += ["--syslog", f"--prefix={twistd.get('prefix', 'twisted')}-{number}"]
    return [*found, "resumable", *arguments]


class ChildProcess:
    """See `WorkerProcess`."""

    def __init__(self, process: subprocess.Popen[bytes], line: LinePipe) -> None:
        self.pid = process.pid
        self._process = process
        self._line = line

    def tell(self, line: str) -> None:
        self._line.tell(line)

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def status(self) -> int | None:
        return self._process.poll()


@frozen
class LaunchPlan:
    """How processes are started. ``command`` and ``assignment`` of the worker with a number, the latter with the file
    descriptor of its line; ``directory``: where it begins; None: in this process's."""

    command: Callable[[int], Sequence[str]]
    assignment: Callable[[int, int], Assignment]
    directory: str | None = None


class Launcher:
    """Starts processes. Their standard output is written to ``output``, or inherited if that is None; lines of their
    standard error are logged, or kept in ``said``, with the worker's number, until `log_errors`."""

    def __init__(self, plan: LaunchPlan, reactor: Any) -> None:
        self.output: IO[Any] | None = None
        self.said: list[tuple[int, str]] = []
        self._plan = plan
        self._reactor = reactor
        self._pipes: list[LinePipe] = []
        self._logs = False

    def __call__(self, number: int, events: ProcessEvents) -> ChildProcess:
        """See `Launch`."""
        ours, theirs = socket.socketpair()
        given = self._plan.assignment(number, theirs.fileno())
        errors, their_errors = os.pipe()
        output, their_output = (None, None) if self.output is None else os.pipe()
        left = {name: value for name, value in os.environ.items() if name not in _OF_THE_SUPERVISOR}
        try:
            process = subprocess.Popen(
                self._plan.command(number),
                env={**left, VARIABLE: given.written()},
                stdin=subprocess.DEVNULL,
                stdout=their_output,
                stderr=their_errors,
                cwd=self._plan.directory,
                pass_fds=given.descriptors,
            )
        except OSError:
            ours.close()
            for each in (errors, output):
                if each is not None:
                    os.close(each)
            raise
        finally:
            theirs.close()
            for each in (their_errors, their_output):
                if each is not None:
                    os.close(each)
        line = self._watch(LinePipe(ours.detach(), events.heard, events.hung_up))
        self._watch(LinePipe(errors, partial(self._error, number)))
        if output is not None:
            self._watch(LinePipe(output, self._write))
        return ChildProcess(process, line)

    def _watch(self, pipe: LinePipe) -> LinePipe:
        self._pipes = [*(each for each in self._pipes if each.open), pipe]
        self._reactor.addReader(pipe)
        return pipe

    def wait(self, done: Callable[[], bool]) -> None:
        """Read what comes, before the reactor runs. Blocks."""
        while not done():
            ready = select.poll()
            pipes = {each.fileno(): each for each in self._pipes if each.open}
            for each in pipes:
                ready.register(each, select.POLLIN)
            for each, _ in ready.poll(50):
                if pipes[each].doRead() is not None:
                    self._reactor.removeReader(pipes[each])
                    pipes[each].connectionLost(None)

    def log_errors(self) -> None:
        """From now on. Those that were kept are logged, too."""
        self._logs = True
        for number, line in self.said:
            self._error(number, line)
        self.said.clear()

    def _error(self, number: int, line: str) -> None:
        if self._logs:
            log.warn("worker {worker} says: {line}", worker=number, line=line)
        else:
            self.said.append((number, line))

    def _write(self, line: str) -> None:
        if self.output is not None:
            self.output.write(f"{line}\n")
            self.output.flush()

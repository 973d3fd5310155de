"""Daemons whose workers are processes of their own: real ones with one worker, or with two that only tell who they are.

As long as a test needs no PostgreSQL, there is one real worker at most: the first shape allows no more.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .daemon import BOUND, Daemon, eventually

#: twistd, with a supervisor whatever the options say. The command of twistd that a `Daemon` has is left out.
SUPERVISED = """
import os, sys
from pathlib import Path
from attrs import evolve
from twisted.scripts.twistd import run
from resumable.daemon import service
from resumable.listening import run_directory

def with_run_directory(settings):
    run = run_directory.made(Path({run_dir!r}), os.environ)
    admin_listen = run_directory.settled(settings.admin_listen, run.path)
    return evolve(settings, run_dir=run.path, admin_listen=admin_listen), run

service.with_run_directory = with_run_directory
service.worker_count = lambda settings: {count}
fake = {fake!r}
if fake:
    service.command = lambda twistd, arguments, number: [sys.executable, fake]
given = sys.argv[1:]
sys.argv = ["twistd", *(given[3:] if given[0] == sys.executable else given)]
run()
"""

#: A worker that answers each connection with its process's id. Files beside it change what it does.
FAKE = """
import os, signal, sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from resumable.daemon.startup import handle_signals
from resumable.daemon.worker import SupervisorLine, end_this_process, taken
from resumable.listening.shared_ports import shared_port

here = Path(__file__).parent
mine = taken(os.environ)
if (here / "refuse").exists():
    sys.exit("resumable: this worker can't start")
line = SupervisorLine(mine.line, reactor, end_this_process)

class Says(Protocol):
    def connectionMade(self):
        self.transport.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n%d" % os.getpid())
        if not (here / "lasting").exists():
            self.transport.loseConnection()

share = mine.share()

def say(words):
    print(f"worker {mine.number} {words}", flush=True)

def reload():
    say("reads its files anew")
    line.reloading()
    line.ready()

def stop():
    say("stops")
    line.closed()
    line.stopped()

for descriptor in mine.sockets.listen:
    shared_port(descriptor, Factory.forProtocol(Says), reactor, share)
handle_signals(reactor, reload)
line.starting()
reactor.addSystemEventTrigger("before", "shutdown", stop)
if (here / "stubborn").exists():
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, signal.SIG_IGN)
reactor.callWhenRunning(line.registered, f"id-{os.getpid()}")
if (here / "slow").exists():
    reactor.callWhenRunning(say, "is not ready")
else:
    reactor.callWhenRunning(line.ready)
if (here / "hasty").exists():
    reactor.callWhenRunning(os.kill, os.getppid(), signal.SIGTERM)
reactor.run()
"""


class Supervised(Daemon):
    """``count`` workers; ``real`` ones take uploads."""

    def __init__(self, *flags: str, count: int = 1, real: bool = True) -> None:
        super().__init__(*flags)
        self.run_dir = self.home / "run"
        self.fake = self.home / "fake.py"
        self.fake.write_text(FAKE)
        script = self.home / "supervised.py"
        script.write_text(
            SUPERVISED.format(count=count, run_dir=str(self.run_dir), fake="" if real else str(self.fake))
        )
        self.wrapper = [sys.executable, str(script)]

    def say(self, word: str, said: bool = True) -> None:
        """What new fake workers do from now on."""
        if said:
            (self.home / word).touch()
        else:
            (self.home / word).unlink()

    def asked(self) -> int:
        """The process that took a new connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=BOUND) as link:
            data = b""
            while more := link.recv(100):
                data += more
        return int(data.rpartition(b"\r\n")[2])

    def pids(self, count: int, without: Sequence[int] = ()) -> list[int]:
        """So many processes that take connections, and none of those."""
        found: set[int] = set()

        def enough() -> bool:
            with suppress(ConnectionError, ValueError):
                found.add(self.asked())
            return len(found - set(without)) >= count

        eventually(enough)
        return sorted(found - set(without))

    @property
    def workers(self) -> list[int]:
        """The processes below this one."""
        assert self.process is not None
        pid = self.process.pid
        with suppress(FileNotFoundError):
            return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def seen(self, pattern: str, times: int = 1) -> bool:
        """Waits until so many lines of the log match."""
        return eventually(lambda: len(re.findall(pattern, self.log)) >= times)


def gone(pid: int) -> bool:
    """Whether the process has ended; nobody needs to have waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def of_process(pid: int, field: str) -> str:
    """A field of its state; see proc(5)."""
    found = re.search(rf"^{field}:\s*(.+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return found[1]

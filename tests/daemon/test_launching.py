"""The command lines of workers, and the lines between them and their supervisor."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import textFileLogObserver

from resumable.config.options import Options, Settings
from resumable.daemon.launching import command
from resumable.daemon.pipes import LONGEST, LinePipe
from resumable.daemon.service import worker_count
from resumable.daemon.supervised import owner_of
from resumable.daemon.worker import VARIABLE, Assignment, Inherited, SupervisorLine, taken
from resumable.model.errors import StartupError

START = [sys.executable, "-m", "resumable.daemon.worker", "-n", "--pidfile="]


@pytest.mark.parametrize(
    ("twistd", "words"),
    [
        ({}, []),
        ({"nodaemon": False, "pidfile": "/run/p", "uid": 5, "gid": 5, "umask": 0o77, "logfile": "/var/log/r"}, []),
        ({"rundir": "run"}, ["--rundir=run"]),
        ({"reactor": "poll"}, ["--reactor=poll"]),
        ({"syslog": True, "prefix": "up"}, ["--syslog", "--prefix=up-2"]),
        ({"logger": textFileLogObserver}, ["--logger=twisted.logger._file.textFileLogObserver"]),
    ],
)
def test_a_worker_is_twistd_in_the_foreground_that_logs_as_its_supervisor_would(
    twistd: dict[str, Any], words: list[str]
) -> None:
    assert command(twistd, ["--port", "1"], 2) == [*START, *words, "resumable", "--port", "1"]


def test_no_worker_could_start_in_a_chroot() -> None:
    with pytest.raises(StartupError, match="chroot"):
        command({"chroot": "/srv"}, [], 1)


@pytest.mark.parametrize(
    ("twistd", "owner"),
    [({}, None), ({"uid": 0, "gid": 7}, (0, 7)), ({"uid": 0}, (0, 0)), ({"gid": 7}, (-1, 7))],
)
def test_the_run_directory_is_for_the_user_that_twistd_changes_to(twistd: dict[str, Any], owner: object) -> None:
    assert owner_of(twistd) == owner


def settings(*flags: str) -> Settings:
    options = Options({})
    options.parseOptions(list(flags))
    return options.settings()


def test_one_worker_has_no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings()
    assert worker_count(given) is None
    assert worker_count(evolve(given, workers=3)) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5})
    assert worker_count(evolve(given, workers=None)) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert worker_count(evolve(given, workers=None)) is None


def test_an_assignment_is_taken_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.set_inheritable(True)
        given = Assignment(2, 3, theirs.fileno(), theirs.fileno(), Inherited((theirs.fileno(),), ()), "/run/r")
        environ = {VARIABLE: given.written(), "OTHER": "x"}
        assert taken(environ) == given
        assert environ == {"OTHER": "x"} and taken(environ) is None
        assert not theirs.get_inheritable(), "hooks don't inherit it"


def test_a_worker_answers_at_the_machines_sockets_and_at_its_own() -> None:
    shared = settings("--catalog", "postgresql://h/d", "--admin-listen", "tcp:1", "--admin-listen", "socket")
    worker = Assignment(2, 3, -1, -1, Inherited(), "/run/r")
    machine, own = (f"unix:address=/run/r/{name}.sock:mode=600:lockfile=0" for name in ("admin", "admin-2"))
    assert worker.settle(shared).admin_listen == ("tcp:1", machine, own)
    assert worker.socket == own
    assert worker.others == {1: "/run/r/admin-1.sock", 3: "/run/r/admin-3.sock"}


# Lines


class Pair:
    """A pipe, and what comes out of it."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.lines: list[str] = []
        self.ended = 0
        self.pipe = LinePipe(reading, self.lines.append, self.end)

    def end(self) -> None:
        self.ended += 1


def test_lines_come_whole_however_they_were_written() -> None:
    it = Pair()
    os.write(it.writing, b"one\ntw")
    it.pipe.doRead()
    assert it.lines == ["one"]
    os.write(it.writing, b"o\n\xff\nrest")
    os.close(it.writing)
    it.pipe.doRead()
    it.pipe.connectionLost(it.pipe.doRead())
    assert it.lines == ["one", "two", "\ufffd", "rest"] and it.ended == 1
    it.pipe.connectionLost(None)
    assert it.ended == 1 and it.pipe.fileno() == -1


def test_a_line_without_an_end_does_not_grow_for_ever() -> None:
    it = Pair()
    while not it.lines:
        os.write(it.writing, b"x" * 60_000)
        it.pipe.doRead()
    assert LONGEST < len(it.lines[0]) <= LONGEST + 60_000
    os.close(it.writing)
    it.pipe.connectionLost(it.pipe.doRead())


def test_nobody_waits_for_one_that_reads_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        pipe = LinePipe(ours.detach(), lambda line: None)
        for _ in range(100_000):
            pipe.tell("ping")
    pipe.tell("to nobody")
    pipe.connectionLost(None)
    pipe.tell("after the end")


class Reactor(Clock):
    def addReader(self, reader: Any) -> None:
        self.reader = reader


def test_a_worker_ends_when_its_supervisor_is_gone_and_answers_it_till_then() -> None:
    ours, theirs = socket.socketpair()
    ended: list[bool] = []
    reactor = Reactor()
    line = SupervisorLine(theirs.detach(), reactor, lambda: ended.append(True))
    with ours:
        line.starting()
        line.registered("abc")
        line.ready()
        ours.sendall(b"ping\n")
        reactor.reader.doRead()
        line.failed("one\ntwo")
        assert ours.recv(1000) == b"worker abc\nready\npong\nerror one two\n"
    assert ended == []
    reactor.reader.connectionLost(reactor.reader.doRead())
    assert ended == [True]


def test_a_worker_that_has_stopped_ends_once() -> None:
    """The reactor closes the line, too."""
    ours, theirs = socket.socketpair()
    ended: list[bool] = []
    reactor = Reactor()
    line = SupervisorLine(theirs.detach(), reactor, lambda: ended.append(True))
    line.starting()
    line.stopped()
    ours.close()
    reactor.reader.connectionLost(None)
    assert ended == []

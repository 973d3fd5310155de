"""Signals: a stop is a stop, however often somebody asks for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from resumable.daemon import startup


class Reactor:
    """What `handle_signals` needs of one; like Twisted's, it doesn't let itself be stopped twice."""

    def __init__(self) -> None:
        self.stops = 0

    def callWhenRunning(self, call: Callable[..., None], *arguments: object) -> None:
        call(*arguments)

    def callFromThread(self, call: Callable[[], None]) -> None:
        call()

    def sigInt(self, number: int, frame: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.stops += 1
        assert self.stops == 1


@pytest.fixture
def restored() -> Iterator[None]:
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_an_impatient_operator_stops_it_once(first: int, second: int) -> None:
    reactor = Reactor()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    startup.handle_signals(reactor, lambda: None)
    os.kill(os.getpid(), first)
    os.kill(os.getpid(), second)
    assert reactor.stops == 1


@pytest.mark.usefixtures("restored")
def test_an_interrupt_before_the_reactor_runs_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception there would leave the threads of the daemon, which would keep the process."""
    reactor = Reactor()
    monkeypatch.setattr(reactor, "callWhenRunning", lambda *arguments: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    startup.handle_signals(reactor, lambda: None)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


@pytest.mark.usefixtures("restored")
def test_an_interrupt_that_the_parent_ignores_stays_ignored() -> None:
    """As under nohup, or behind `&` in a script."""
    reactor = Reactor()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    startup.handle_signals(reactor, lambda: None)
    os.kill(os.getpid(), signal.SIGINT)
    assert reactor.stops == 0

"""What the supervisor does about its workers, with processes that are none, on a clock that stands still."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from resumable.daemon.supervisor import (
    LINGER,
    LONGEST_PAUSE,
    MOST_UNANSWERED,
    REAP_EVERY,
    STABLE,
    ProcessEvents,
    Supervisor,
    WorkerState,
    described,
)
from resumable.daemon.systemd import STARTING
from tests.daemon.site_rig import Listening


class Process:
    """One that does as it is told. ``answers``: whether its event loop runs."""

    def __init__(self, number: int, events: ProcessEvents, pid: int) -> None:
        self.number = number
        self.events = events
        self.pid = pid
        self.told: list[str] = []
        self.signals: list[int] = []
        self.answers = True
        self.stubborn = False
        self.ended: int | None = None

    def tell(self, line: str) -> None:
        self.told.append(line)
        if self.answers and line == "ping":
            self.events.heard("pong")

    def send_signal(self, number: int) -> None:
        if self.ended is None:
            self.signals.append(number)
            if number == signal.SIGKILL or (number == signal.SIGTERM and not self.stubborn):
                self.end(-number if number == signal.SIGKILL else 0)

    def status(self) -> int | None:
        return self.ended

    def end(self, status: int) -> None:
        self.ended = status
        self.events.hung_up()


class Scene:
    """A supervisor of so many workers, its processes in the order of their starts, and what it has told."""

    def __init__(self, count: int = 2, died: Callable[[str], object] | None = None) -> None:
        self.clock = Clock()
        self.processes: list[Process] = []
        self.broken = False
        self.ready = 0
        self.closed = 0
        self.dead: list[str] = []
        self.it = Supervisor(count, self.launch, self.clock, died or self.dead.append)

    def launch(self, number: int, events: ProcessEvents) -> Process:
        if self.broken:
            raise OSError(11, "no more processes")
        self.processes.append(Process(number, events, 100 + len(self.processes)))
        return self.processes[-1]

    def start(self) -> Scene:
        self.it.first.start(trial=True)
        self.last.events.heard("ready")
        self.it.start(self.say_ready)
        return self

    def all_ready(self) -> Scene:
        self.start()
        for each in self.processes[1:]:
            each.events.heard("ready")
        return self

    def say_ready(self) -> None:
        self.ready += 1

    def stop(self, bound: float = 30) -> Deferred[None]:
        def closed() -> None:
            self.closed += 1

        return self.it.stop(bound, closed)

    @property
    def last(self) -> Process:
        return self.processes[-1]

    def seconds(self, number: float) -> None:
        """They pass, a second at a time."""
        self.clock.pump([1.0] * int(number))


def test_it_is_ready_once_all_workers_are() -> None:
    it = Scene(3).start()
    assert [each.number for each in it.processes] == [1, 2, 3]
    it.processes[1].events.heard("ready")
    assert it.ready == 0
    it.processes[2].events.heard("ready")
    assert it.ready == 1


def test_nothing_but_the_first_starts_before_it_is_ready() -> None:
    it = Scene(3)
    it.it.first.start(trial=True)
    assert len(it.processes) == 1 and it.it.first.state is WorkerState.STARTING


def test_a_first_worker_that_ends_at_its_start_is_not_started_again() -> None:
    it = Scene()
    it.it.first.start(trial=True)
    it.last.events.heard("error the port is in use")
    it.last.end(1)
    it.seconds(100)
    assert len(it.processes) == 1
    assert (it.it.first.process, it.it.first.ended_with, it.it.first.error) == (None, 1, "the port is in use")


def test_one_that_ends_is_started_again_after_a_second_and_the_pause_doubles_up_to_half_a_minute() -> None:
    it = Scene(1).start()
    for pause in (1, 2, 4, 8, 16, 30, 30):
        before = len(it.processes)
        it.last.end(-signal.SIGSEGV)
        it.clock.advance(pause - 0.01)
        assert len(it.processes) == before
        it.clock.advance(0.01)
        assert len(it.processes) == before + 1
    assert LONGEST_PAUSE == 30


def test_one_that_was_up_for_a_minute_is_started_again_at_once_and_its_pauses_begin_anew() -> None:
    it = Scene(1).start()
    it.last.end(1)
    it.clock.advance(1)
    it.last.events.heard("ready")
    it.seconds(STABLE)
    it.last.end(1)
    it.clock.advance(0)
    assert len(it.processes) == 3
    it.last.end(1)
    it.clock.advance(0.99)
    assert len(it.processes) == 3
    it.clock.advance(0.01)
    assert len(it.processes) == 4


def test_a_pause_of_one_worker_concerns_no_other() -> None:
    it = Scene(2).all_ready()
    it.processes[0].end(1)
    it.processes[1].end(1)
    it.clock.advance(1)
    assert [each.number for each in it.processes] == [1, 2, 1, 2]


def test_a_process_that_can_not_be_started_is_tried_again() -> None:
    it = Scene(1).start()
    it.broken = True
    it.last.end(1)
    it.clock.advance(1)
    it.broken = False
    it.clock.advance(2)
    assert len(it.processes) == 2


def test_the_id_of_a_dead_worker_is_told_at_once_and_once() -> None:
    it = Scene(2).all_ready()
    it.processes[1].events.heard("worker 0123456789abcdef")
    it.processes[1].end(-signal.SIGKILL)
    assert it.dead == ["0123456789abcdef"]
    it.clock.advance(1)
    it.last.end(1)
    assert it.dead == ["0123456789abcdef"], "the one after it has not told its own yet"


@pytest.mark.parametrize("late", [False, True])
def test_it_goes_on_when_the_hook_for_dead_workers_fails(late: bool) -> None:
    failing: Deferred[None] = Deferred()

    def died(worker_id: str) -> object:
        if late:
            return failing
        raise RuntimeError("the database is away")

    it = Scene(1, died).start()
    it.last.events.heard("worker a")
    with Listening() as events:
        it.last.end(1)
        if late:
            failing.errback(RuntimeError("the database is away"))
        it.clock.advance(1)
    assert len(it.processes) == 2
    assert [each for each in events if each.get("log_failure") is not None]


def test_one_that_has_not_answered_for_five_seconds_is_killed_and_started_again() -> None:
    it = Scene(2).all_ready()
    hung = it.processes[0]
    it.seconds(10)
    hung.answers = False
    it.seconds(MOST_UNANSWERED)
    assert hung.signals == []
    it.seconds(1)
    assert hung.signals == [signal.SIGKILL] and it.processes[1].signals == []
    it.seconds(1)
    assert [each.number for each in it.processes] == [1, 2, 1]


def test_one_that_answers_late_lives_on() -> None:
    it = Scene(1).start()
    it.last.answers = False
    for _ in range(5):
        it.seconds(MOST_UNANSWERED)
        it.last.events.heard("pong")
    assert it.last.signals == []


def test_a_machine_that_was_suspended_kills_nobody() -> None:
    it = Scene(2).all_ready()
    for each in it.processes:
        each.answers = False
    it.clock.advance(100_000)
    assert not any(each.signals for each in it.processes)
    for each in it.processes:
        each.events.heard("pong")
        each.answers = True
    it.seconds(20)
    assert not any(each.signals for each in it.processes)


def test_one_that_starts_is_given_the_time_that_a_recovery_may_take() -> None:
    it = Scene(2).start()
    slow = it.processes[1]
    slow.answers = False
    it.seconds(STARTING - 1)
    assert slow.signals == []
    slow.answers = True
    slow.events.heard("ready")
    it.seconds(100)
    assert slow.signals == []


def test_one_that_never_gets_ready_is_killed_at_last() -> None:
    it = Scene(2).start()
    it.processes[1].answers = False
    it.seconds(STARTING + 1)
    assert it.processes[1].signals == [signal.SIGKILL]


def test_a_process_that_has_closed_its_line_is_waited_for_and_killed_if_it_lingers() -> None:
    it = Scene(1).start()
    first = it.last
    first.events.hung_up()
    it.clock.pump([REAP_EVERY] * 10)
    assert len(it.processes) == 1 and first.signals == []
    it.clock.pump([REAP_EVERY] * int(LINGER / REAP_EVERY))
    assert first.signals == [signal.SIGKILL]
    it.seconds(2)
    assert len(it.processes) == 2


def test_a_process_that_ended_while_others_hold_its_line_is_noticed() -> None:
    it = Scene(1).start()
    it.last.ended = -signal.SIGKILL
    it.seconds(3)
    assert len(it.processes) == 2


def test_a_stop_is_told_to_all_and_is_done_when_all_have_ended() -> None:
    it = Scene(3).all_ready()
    it.processes[2].stubborn = True
    done: list[None] = []
    it.stop().addCallback(done.append)
    assert [each.signals for each in it.processes] == [[signal.SIGTERM]] * 3
    assert not done
    it.processes[2].end(0)
    assert done == [None]
    it.seconds(100)
    assert len(it.processes) == 3
    assert not it.clock.getDelayedCalls()


def test_who_does_not_stop_within_the_bound_is_killed() -> None:
    it = Scene(2).all_ready()
    for each in it.processes:
        each.stubborn = True
    done: list[None] = []
    it.stop(30).addCallback(done.append)
    it.seconds(29)
    assert not done
    it.seconds(1)
    assert [each.signals[-1] for each in it.processes] == [signal.SIGKILL] * 2
    assert done == [None]


def test_a_stop_ends_those_that_are_starting_and_starts_none_that_pauses() -> None:
    it = Scene(3).start()
    it.processes[1].end(1)
    done: list[None] = []
    it.stop().addCallback(done.append)
    assert it.processes[2].signals == [signal.SIGTERM]
    assert done == [None]
    it.seconds(100)
    assert len(it.processes) == 3


def test_the_ports_may_close_when_no_worker_accepts_any_more() -> None:
    it = Scene(2).all_ready()
    for each in it.processes:
        each.stubborn = True
    it.stop()
    it.processes[0].events.heard("closed")
    assert it.closed == 0
    it.processes[1].end(0)
    assert it.closed == 1
    it.processes[0].end(0)
    assert it.closed == 1


def test_nobody_is_asked_for_a_sign_of_life_during_the_stop() -> None:
    """What a stop takes is bounded by itself; the disk may hold it up for longer than a worker may be silent."""
    it = Scene(1).start()
    it.last.stubborn, it.last.answers = True, False
    it.stop(100)
    it.seconds(90)
    assert it.last.signals == [signal.SIGTERM]


def test_a_reload_is_told_to_all_and_is_done_when_all_have_read_their_files() -> None:
    it = Scene(2).all_ready()
    it.it.reload()
    assert [each.signals for each in it.processes] == [[signal.SIGHUP]] * 2
    it.processes[0].events.heard("ready")
    assert it.ready == 1
    it.processes[1].events.heard("ready")
    assert it.ready == 2


def test_a_reload_waits_for_nobody_that_has_ended() -> None:
    it = Scene(2).all_ready()
    it.it.reload()
    it.processes[0].events.heard("ready")
    it.processes[1].end(1)
    assert it.ready == 2


def test_a_reload_does_not_disturb_one_that_is_starting() -> None:
    """It has no handler yet, and the signal would end it."""
    it = Scene(2).all_ready()
    it.processes[0].end(1)
    it.clock.advance(1)
    it.it.reload()
    assert it.last.signals == []


def test_how_a_process_has_ended_is_said_in_words() -> None:
    assert [described(status) for status in (0, 3, -9, -200)] == ["status 0", "status 3", "SIGKILL", "signal 200"]

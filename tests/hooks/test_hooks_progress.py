"""Progress is told now and then, waits for nobody, and may be answered with a stop."""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from zope.interface.verify import verifyObject

from resumable.hooks.interfaces import Allow, EventKind, HookFailed, Refuse
from resumable.hooks.progress import MOST, ProgressEvents, Watcher
from resumable.model.hooks import Answer, Arrived, IProgress
from tests.hooks.delivering import Watches
from tests.hooks.servers import REQUEST, UPLOAD


class Bench:
    """``note``: so many bytes of that upload have arrived."""

    def __init__(self, *hooks) -> None:
        self.clock = Clock()
        self.stopped = []
        self.counted = []
        self.progress = ProgressEvents(
            [Watcher(f"hook{n}", hook) for n, hook in enumerate(hooks)],
            lambda *each: self.stopped.append(each),
            clock=self.clock, wall=self.clock.seconds, interval=2.0, count=lambda *each: self.counted.append(each[:3]),
        )  # fmt: skip

    def note(self, upload, received, request=None):
        self.progress.arrived(upload.id, lambda: Arrived(upload, received, request))


def test_it_provides_what_the_use_cases_want():
    assert verifyObject(IProgress, Bench().progress)


def test_of_one_upload_one_event_goes_in_each_interval():
    hook = Watches()
    bench = Bench(hook)
    for tick in range(33):
        bench.note(UPLOAD, tick, REQUEST)
        bench.note(evolve(UPLOAD, id="another-upload-id"), tick)
        bench.clock.advance(0.25)
    mine = [event for event in hook.came if event.upload.id == UPLOAD.id]
    assert [event.at for event in mine] == [0, 2, 4, 6, 8] and len(hook.came) == 10
    received = [event.details["received"] for event in mine]
    assert received == sorted(received) and received[-1] > 20
    assert {event.kind for event in mine} == {EventKind.PROGRESS}
    assert len({event.id for event in hook.came}) == 10
    assert mine[0].request == REQUEST
    assert {event.upload.offset for event in mine} == {UPLOAD.offset}, "what is safe"


def test_without_watchers_nothing_is_due():
    bench = Bench()
    bench.note(UPLOAD, 5)


def test_slow_watchers_make_events_be_left_out_not_pile_up():
    hook = Watches(Deferred())
    bench = Bench(hook)
    for number in range(1000):
        bench.note(evolve(UPLOAD, id=f"upload-{number:016}", identity=f"{number % 2}"), 5)
    assert len(hook.came) == MOST


@pytest.mark.parametrize("again", [False, True])
def test_one_client_whose_events_hang_leaves_places_for_others(again):
    bench = Bench(hook := Watches(Deferred()))
    for _ in range(1 + again):
        for number in range(1000):
            bench.note(evolve(UPLOAD, id=f"upload-{number:016}"), 5, REQUEST)
        bench.clock.advance(2)
    assert len(hook.came) == MOST * 3 // 4
    bench.note(UPLOAD, 5, evolve(REQUEST, address="198.51.100.1"))
    bench.note(evolve(UPLOAD, id="another-upload-id", identity="ann"), 5, REQUEST)
    assert [event.upload.id for event in hook.came[-2:]] == [UPLOAD.id, "another-upload-id"]


def test_of_one_upload_one_event_is_under_way():
    slow = Deferred()
    hook = Watches(slow)
    bench = Bench(hook, Watches())
    for _ in range(8):
        bench.note(UPLOAD, 5)
        bench.clock.advance(1)
    assert len(hook.came) == 1
    slow.callback(None)
    bench.note(UPLOAD, 5)
    assert len(hook.came) == 2


def test_uploads_whose_events_hang_leave_places_for_others():
    bench = Bench(hook := Watches())
    hook.watch = lambda event: Deferred() if event.upload.id.startswith("bad") else heard.append(event)
    heard, ticks = [], 1200
    for tick in range(ticks):
        for number in range(100):
            bench.note(evolve(UPLOAD, id=f"bad-{number:016}"), 5)
        bench.note(evolve(UPLOAD, id="good-0000000000000000"), tick)
        bench.clock.advance(1)
    gaps = [later.details["received"] - event.details["received"] for event, later in pairwise(heard)]
    assert max(gaps[1:]) == 2 and len(heard) > 0.9 * ticks / 2


def test_a_refusal_stops_the_upload_with_the_hooks_words():
    bench = Bench(Watches(Refuse(Answer(409, {"X-Why": "gone"}))))
    bench.note(UPLOAD, 5)
    ((upload_id, error),) = bench.stopped
    assert (upload_id, error.status, error.headers) == (UPLOAD.id, 409, {"X-Why": "gone"})
    assert bench.counted == [("hook0", "progress", "refused")]


@pytest.mark.parametrize("said", [HookFailed("no"), RuntimeError("x"), True, Allow(), Refuse(Answer(200))], ids=repr)
def test_a_watcher_that_fails_or_says_nonsense_stops_nothing(said):
    bench = Bench(Watches(said), Watches())
    bench.note(UPLOAD, 5)
    assert bench.stopped == []
    assert bench.counted == [("hook0", "progress", "failed"), ("hook1", "progress", "ok")]


def test_a_watcher_that_is_down_is_asked_seldom_and_logged_once(logged):
    hook = Watches(HookFailed("no answer: ConnectionRefusedError"))
    bench = Bench(hook)
    for second in range(60):
        bench.note(UPLOAD, second)
        bench.clock.advance(1)
    assert 8 <= len(hook.came) <= 13
    hook.said = None
    for second in range(10):
        bench.note(UPLOAD, second)
        bench.clock.advance(1)
    lines = [formatEvent(event) for event in logged]
    assert lines == [
        f"hook hook0 () failed at progress of {UPLOAD.id}: no answer: ConnectionRefusedError",
        "hook hook0 () works again",
    ]


def test_a_watcher_that_never_answers_is_given_up():
    bench = Bench(Watches(Deferred()))
    bench.note(UPLOAD, 5)
    bench.clock.advance(11)
    assert bench.counted == [("hook0", "progress", "failed")]


def test_a_stop_cancels_what_is_under_way():
    cancelled = []
    bench = Bench(Watches(Deferred(cancelled.append)))
    bench.note(UPLOAD, 5)
    stopped = Deferred.fromCoroutine(bench.progress.stop())
    assert stopped.called and len(cancelled) == 1 and bench.counted == []
    bench.note(evolve(UPLOAD, id="another-upload-id"), 5)
    assert len(cancelled) == 1 and not bench.clock.getDelayedCalls()

"""Progress is told now and then, waits for nobody, and may be answered with a stop."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resumable.events.interfaces import Allow, EventKind, HookFailed, IWatcher, Refuse
from resumable.events.progress import MOST, Progress, Watcher
from resumable.hooks import Answer, IProgress
from tests.events.servers import REQUEST, UPLOAD


@implementer(IWatcher)
class Watches:
    def __init__(self, said=None) -> None:
        self.said = said
        self.came = []

    def watch(self, event):
        self.came.append(event)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


class Bench:
    def __init__(self, *hooks) -> None:
        self.clock = Clock()
        self.stopped = []
        self.counted = []
        self.progress = Progress(
            [Watcher(f"hook{n}", hook) for n, hook in enumerate(hooks)],
            lambda *each: self.stopped.append(each),
            clock=self.clock, wall=lambda: 5.0, interval=2.0, count=lambda *each: self.counted.append(each[:3]),
        )  # fmt: skip


def test_it_provides_what_the_use_cases_want():
    assert verifyObject(IProgress, Bench().progress)


def test_of_one_upload_one_event_goes_in_each_interval():
    hook = Watches()
    bench = Bench(hook)
    for second in range(8):
        bench.progress.note(evolve(UPLOAD, offset=second), REQUEST)
        bench.progress.note(evolve(UPLOAD, id="another-upload-id", offset=second))
        bench.clock.advance(1)
    mine = [event for event in hook.came if event.upload.id == UPLOAD.id]
    assert [event.upload.offset for event in mine] == [0, 2, 4, 6] and len(hook.came) == 8
    assert {event.kind for event in mine} == {EventKind.PROGRESS}
    assert len({event.id for event in hook.came}) == 8
    assert mine[0].request == REQUEST


def test_without_watchers_nothing_is_due():
    bench = Bench()
    assert not bench.progress.wanted and not bench.progress.due(UPLOAD.id)
    bench.progress.note(UPLOAD)


def test_slow_watchers_make_events_be_left_out_not_pile_up():
    hook = Watches(Deferred())
    bench = Bench(hook)
    for number in range(1000):
        bench.progress.note(evolve(UPLOAD, id=f"upload-{number:016}"))
    assert len(hook.came) == MOST and not bench.progress.due("another")


def test_a_refusal_stops_the_upload_with_the_hooks_words():
    bench = Bench(Watches(Refuse(Answer(409, {"X-Why": "gone"}))))
    bench.progress.note(UPLOAD)
    ((upload_id, error),) = bench.stopped
    assert (upload_id, error.status, error.headers) == (UPLOAD.id, 409, {"X-Why": "gone"})
    assert bench.counted == [("hook0", "progress", "refused")]


@pytest.mark.parametrize("said", [HookFailed("no"), RuntimeError("x"), True, Allow(), Refuse(Answer(200))], ids=repr)
def test_a_watcher_that_fails_or_says_nonsense_stops_nothing(said):
    bench = Bench(Watches(said), Watches())
    bench.progress.note(UPLOAD)
    assert bench.stopped == []
    assert bench.counted == [("hook0", "progress", "failed"), ("hook1", "progress", "ok")]


def test_a_watcher_that_never_answers_is_given_up():
    bench = Bench(Watches(Deferred()))
    bench.progress.note(UPLOAD)
    bench.clock.advance(11)
    assert bench.counted == [("hook0", "progress", "failed")]


def test_a_stop_cancels_what_is_under_way():
    cancelled = []
    bench = Bench(Watches(Deferred(cancelled.append)))
    bench.progress.note(UPLOAD)
    stopped = Deferred.fromCoroutine(bench.progress.stop())
    assert stopped.called and len(cancelled) == 1 and bench.counted == []
    bench.progress.note(evolve(UPLOAD, id="another-upload-id"))
    assert len(cancelled) == 1 and not bench.clock.getDelayedCalls()

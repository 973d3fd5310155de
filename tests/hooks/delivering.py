"""Hooks and watchers that keep what they get, and a deliverer with an outbox and a clock."""

from __future__ import annotations

from math import inf
from random import Random

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from resumable.hooks.deliver import Deliverer
from resumable.hooks.interfaces import EventKind, HookFailed, IHook, IWatcher
from resumable.hooks.retry_policy import RetryPolicy
from tests.hooks.outbox import MemoryOutbox

FAST = RetryPolicy(per_second=inf)


@implementer(IHook)
class Recorder:
    """``answer`` decides each event; what arrived is in ``arrived``, what came at all in ``came``."""

    def __init__(self, answer=lambda event: None) -> None:
        self.answer = answer
        self.came = []
        self.arrived = []
        self.under_way = 0
        self.most = 0

    def deliver(self, event):
        self.came.append(event)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            said = self.answer(event)
        except HookFailed:
            self.under_way -= 1
            raise
        done = said if isinstance(said, Deferred) else succeed(said)
        done.addBoth(self._done)
        return done.addCallback(lambda _: self.arrived.append(event))

    def _done(self, result):
        self.under_way -= 1
        return result

    def of(self, upload_id, events=None):
        return [
            event.kind.value for event in (self.arrived if events is None else events) if event.upload.id == upload_id
        ]


class Bench:
    """An outbox, a clock, and deliverers over them."""

    def __init__(self, hook, policy=FAST, kinds=frozenset(EventKind)) -> None:
        self.clock = Clock()
        self.outbox = MemoryOutbox()
        self.hook = hook
        self.policy = policy
        self.kinds = kinds
        self.counted = []
        self.deliverer = self.make()

    def make(self):
        return Deliverer(
            "hook", self.hook, self.outbox, clock=self.clock, wall=self.clock.seconds, rng=Random(1),
            policy=self.policy, kinds=self.kinds, count=lambda *each: self.counted.append(each[:3]),
            target="https://example.org",
        )  # fmt: skip

    def restart(self):
        """As after a crash: whatever the old deliverer knew is gone, nothing calls it any more."""
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.deliverer = self.make()
        self.deliverer.start()
        self.run(0.1)

    def post(self, *facts):
        seqs = self.outbox.post(*facts)
        self.deliverer.wake()
        self.run(0)
        return seqs

    def run(self, seconds, steps=20):
        for _ in range(steps):
            self.clock.advance(seconds / steps)


def unsteady(bench, rng):
    """Three answers in ten are a failure; the others take up to a second."""
    if rng.random() < 0.3:
        raise HookFailed("no")
    later = Deferred()
    bench.clock.callLater(rng.random(), later.callback, None)
    return later


def answered(event):
    raise HookFailed("it answered 500")


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

"""Blocking work off the reactor: the real threads, and the stepped ones, keep the same promises."""

from __future__ import annotations

import gc
import threading
import weakref
from abc import ABC, abstractmethod
from random import Random

import pytest
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.aio.threads import AGAIN, IN_A_ROW, Batcher, Pool, Stopped
from resumable.testing import CallQueue, SteppedBatcher, SteppedPool


def failure_of(deferred):
    failures = []
    deferred.addErrback(failures.append)
    assert failures, "has not failed"
    return failures[0].value


class RealThreads:
    def setup_method(self):
        self.reactor = CallQueue()

    def until(self, deferred):
        return self.reactor.until(deferred)

    def make_batcher(self, work, limit=256):
        return Batcher(self.reactor, work, name="batcher", limit=limit)

    def make_pool(self):
        return Pool(self.reactor, 3, "pool")


class SteppedThreads:
    def setup_method(self):
        self.clock = Clock()

    def until(self, deferred):
        results = []
        deferred.addBoth(results.append)
        self.clock.advance(0)
        assert results, "has not fired"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def make_batcher(self, work, limit=256):
        return SteppedBatcher(self.clock, work, limit=limit)

    def make_pool(self):
        return SteppedPool(self.clock)


class BatcherContract(ABC):
    @abstractmethod
    def make_batcher(self, work, limit=256): ...

    @abstractmethod
    def until(self, deferred): ...

    def test_each_job_gets_its_own_result_or_failure(self):
        def work(jobs):
            return [Failure(OSError(job)) if job % 2 else job * 10 for job in jobs]

        batcher = self.make_batcher(work)
        batcher.start()
        answers = [batcher.submit(job) for job in range(6)]
        outcomes = self.until(DeferredList(answers, consumeErrors=True))
        assert [good for good, _ in outcomes] == [True, False] * 3
        assert [result for good, result in outcomes if good] == [0, 20, 40]
        assert [result.value.args for good, result in outcomes if not good] == [(1,), (3,), (5,)]
        self.until(batcher.stop())

    def test_what_work_raises_fails_the_whole_group_and_the_next_group_is_done(self):
        def work(jobs):
            if "bad" in jobs:
                raise OSError(5, "broken")
            return jobs

        batcher = self.make_batcher(work)
        batcher.start()
        with pytest.raises(OSError, match="broken"):
            self.until(batcher.submit("bad"))
        assert self.until(batcher.submit("good")) == "good"
        self.until(batcher.stop())

    def test_a_miscount_of_results_fails_the_group_instead_of_answering_wrongly(self):
        batcher = self.make_batcher(lambda jobs: [])
        batcher.start()
        with pytest.raises(RuntimeError, match="1 jobs got 0 results"):
            self.until(batcher.submit("job"))
        self.until(batcher.stop())

    def test_stop_fires_after_everything_submitted_is_answered(self):
        answered = []
        batcher = self.make_batcher(lambda jobs: jobs, limit=3)
        batcher.start()
        for job in range(10):
            batcher.submit(job).addCallback(answered.append)
        self.until(batcher.stop())
        assert answered == list(range(10))

    def test_submitting_after_stop_or_before_start_fails_clearly(self):
        batcher = self.make_batcher(lambda jobs: jobs)
        assert isinstance(failure_of(batcher.submit(1)), Stopped)
        batcher.start()
        self.until(batcher.stop())
        assert isinstance(failure_of(batcher.submit(1)), Stopped)

    def test_stop_may_be_repeated_and_may_come_without_start(self):
        batcher = self.make_batcher(lambda jobs: jobs)
        self.until(batcher.stop())
        batcher.start()
        self.until(DeferredList([batcher.stop(), batcher.stop()]))
        self.until(batcher.stop())

    def test_a_group_has_no_more_jobs_than_the_limit(self):
        sizes = []

        def work(jobs):
            sizes.append(len(jobs))
            return jobs

        batcher = self.make_batcher(work, limit=4)
        batcher.start()
        self.until(DeferredList([batcher.submit(job) for job in range(10)]))
        self.until(batcher.stop())
        assert max(sizes) <= 4
        assert sum(sizes) == 10

    def test_a_caller_that_cancelled_does_not_disturb_the_others(self):
        batcher = self.make_batcher(lambda jobs: jobs)
        batcher.start()
        cancelled, other = batcher.submit(1), batcher.submit(2)
        cancelled.addErrback(lambda failure: None)
        cancelled.cancel()
        assert self.until(other) == 2
        self.until(batcher.stop())


class PoolContract(ABC):
    @abstractmethod
    def make_pool(self): ...

    @abstractmethod
    def until(self, deferred): ...

    def test_answers_what_the_call_answers(self):
        pool = self.make_pool()
        pool.start()
        assert self.until(pool.run(divmod, 7, 3)) == (2, 1)
        assert self.until(pool.run(int, "ff", base=16)) == 255
        self.until(pool.stop())

    def test_fails_with_what_the_call_raises(self):
        pool = self.make_pool()
        pool.start()
        with pytest.raises(ZeroDivisionError):
            self.until(pool.run(divmod, 7, 0))
        self.until(pool.stop())

    def test_stop_fires_after_everything_submitted_is_answered(self):
        answered = []
        pool = self.make_pool()
        pool.start()
        for number in range(20):
            pool.run(int, number).addCallback(answered.append)
        self.until(pool.stop())
        assert sorted(answered) == list(range(20))

    def test_a_call_that_wants_to_go_on_is_called_again_and_answered_once(self):
        results = [AGAIN, AGAIN, "done"]
        pool = self.make_pool()
        pool.start()
        answer = pool.run(results.pop, 0)
        assert self.until(answer) == "done"
        assert results == []
        self.until(pool.stop())

    def test_a_call_that_wants_to_go_on_is_done_before_a_stop_fires(self):
        results, answered = [AGAIN] * 50 + ["done"], []
        pool = self.make_pool()
        pool.start()
        pool.run(results.pop, 0).addCallback(answered.append)
        self.until(pool.stop())
        assert answered == ["done"]

    def test_what_a_call_tells_is_known_before_its_result(self):
        known = []
        pool = self.make_pool()
        pool.start()
        answer = pool.run(pool.tell, known.append, 1)
        answer.addCallback(lambda _: known.append(2))
        self.until(answer)
        assert known == [1, 2]
        self.until(pool.stop())

    def test_running_after_stop_or_before_start_fails_clearly(self):
        pool = self.make_pool()
        assert isinstance(failure_of(pool.run(int)), Stopped)
        pool.start()
        self.until(pool.stop())
        assert isinstance(failure_of(pool.run(int)), Stopped)
        self.until(pool.stop())


class TestBatcher(RealThreads, BatcherContract):
    def test_what_comes_while_a_group_is_under_way_is_one_group_answered_by_one_call(self):
        release, begun = threading.Event(), Deferred()
        groups, calls = [], []
        from_thread = self.reactor.callFromThread

        def work(jobs):
            groups.append(list(jobs))
            if len(groups) == 1:
                from_thread(begun.callback, None)
                assert release.wait(300)
            return jobs

        def spy(*args):
            if threading.current_thread().name == "batcher":
                calls.append(args)
            from_thread(*args)

        self.reactor.callFromThread = spy
        batcher = self.make_batcher(work)
        batcher.start()
        first = batcher.submit(0)
        self.until(begun)
        rest = [batcher.submit(job) for job in range(1, 50)]
        release.set()
        self.until(DeferredList([first, *rest]))
        assert groups == [[0], list(range(1, 50))]
        assert len(calls) == 2
        self.until(batcher.stop())

    def test_work_runs_in_one_thread_of_that_name_that_ends_with_stop(self):
        batcher = self.make_batcher(lambda jobs: [threading.current_thread() for _ in jobs])
        batcher.start()
        thread = self.until(batcher.submit(1))
        assert thread is self.until(batcher.submit(2))
        assert (thread.name, thread.daemon) == ("batcher", False)
        self.until(batcher.stop())
        assert not thread.is_alive()

    def test_answers_come_in_the_reactors_thread(self):
        batcher = self.make_batcher(lambda jobs: jobs)
        batcher.start()
        seen = batcher.submit(1).addCallback(lambda _: threading.current_thread())
        assert self.until(seen) is threading.current_thread()
        self.until(batcher.stop())

    def test_starting_twice_is_refused_and_starting_again_after_stop_works(self):
        batcher = self.make_batcher(lambda jobs: jobs)
        batcher.start()
        with pytest.raises(RuntimeError):
            batcher.start()
        self.until(batcher.stop())
        batcher.start()
        assert self.until(batcher.submit(1)) == 1
        self.until(batcher.stop())


class TestPool(RealThreads, PoolContract):
    def test_it_knows_of_calls_without_a_thread(self):
        pool = self.make_pool()
        pool.start()
        release, barrier = threading.Event(), threading.Barrier(4)

        def wait():
            barrier.wait(300)
            assert release.wait(300)

        assert not pool.crowded
        calls = [pool.run(wait) for _ in range(3)]
        barrier.wait(300)
        assert not pool.crowded
        calls.append(pool.run(int))
        assert pool.crowded
        release.set()
        self.until(DeferredList(calls))
        assert not pool.crowded
        self.until(pool.stop())

    def beside_a_long_call(self, new, times):
        """The order in which one thread does ``new`` calls that come while a long one is done for the first time."""
        pool = Pool(self.reactor, 1, "one")
        pool.start()
        began, release, order = threading.Event(), threading.Event(), []

        def long():
            order.append("long")
            began.set()
            assert release.wait(300)
            return AGAIN if order.count("long") < times else None

        calls = [pool.run(long)]
        assert began.wait(300)
        assert not pool.urgent
        calls += [pool.run(order.append, number) for number in range(new)]
        assert pool.urgent
        release.set()
        self.until(DeferredList(calls))
        self.until(pool.stop())
        return order

    def test_a_new_call_passes_those_that_want_to_go_on(self):
        assert self.beside_a_long_call(new=2, times=3) == ["long", 0, 1, "long", "long"]

    def test_new_calls_keep_nobody_from_going_on_for_ever(self):
        assert self.beside_a_long_call(new=2 * IN_A_ROW, times=2).index("long", 1) == IN_A_ROW - 1

    def test_no_more_threads_than_its_size_and_that_many_at_once(self):
        pool = self.make_pool()
        pool.start()
        barrier = threading.Barrier(3)

        def meet():
            barrier.wait(300)  # passes only when three are in here at once
            return threading.current_thread()

        outcomes = self.until(DeferredList([pool.run(meet) for _ in range(9)]))
        assert len({thread for _, thread in outcomes}) == 3
        self.until(pool.stop())
        assert not any(thread.is_alive() for _, thread in outcomes)

    def test_an_idle_thread_keeps_no_work_and_no_result_alive(self):
        class Thing:
            pass

        pool = self.make_pool()
        pool.start()
        argument, result = Thing(), Thing()
        seen = [weakref.ref(argument), weakref.ref(result)]
        done: Deferred[object] = pool.run(lambda _: seen[1](), argument).addCallback(lambda _: None)
        self.until(done)
        # a barrier through every thread: each is past its last call
        barrier = threading.Barrier(3)
        self.until(DeferredList([pool.run(barrier.wait, 30) for _ in range(3)]))
        del argument, result, done
        gc.collect()
        assert [each() for each in seen] == [None, None]
        self.until(pool.stop())


class TestSteppedBatcher(SteppedThreads, BatcherContract):
    def test_nothing_happens_before_the_clock_turns(self):
        batcher = self.make_batcher(lambda jobs: jobs)
        batcher.start()
        answer = batcher.submit(1)
        assert not answer.called
        self.clock.advance(0)
        assert answer.called

    def test_what_waits_is_one_group(self):
        groups = []
        batcher = self.make_batcher(lambda jobs: groups.append(list(jobs)) or jobs)
        batcher.start()
        for job in range(5):
            batcher.submit(job)
        self.clock.advance(0)
        assert groups == [[0, 1, 2, 3, 4]]


class TestSteppedPool(SteppedThreads, PoolContract):
    def test_calls_run_in_order_or_in_any_order_that_the_seed_gives(self):
        def order(rng):
            ran = []
            pool = SteppedPool(self.clock, rng)
            pool.start()
            for number in range(8):
                pool.run(ran.append, number)
            self.clock.advance(0)
            return ran

        assert order(None) == list(range(8))
        assert order(Random(1)) == order(Random(1)) != list(range(8))

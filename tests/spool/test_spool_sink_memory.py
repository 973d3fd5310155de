"""The queue between a body and its file: how many bytes it holds, and when the body must wait."""

from __future__ import annotations

import errno

import pytest

from resumable.spool.sink import HIGH, LOW, TURN
from tests.spool.spool_bench import MIB, Bench, Producer


@pytest.fixture
def bench():
    return Bench()


def test_the_producer_is_paused_at_the_high_mark_and_resumed_at_the_low_one(bench):
    sink, body = bench.sink(), Producer()
    sink.registerProducer(body, True)
    for _ in range(HIGH // MIB - 1):
        sink.write(b"x" * MIB)
    assert body.calls == []
    sink.write(b"x" * MIB)
    assert (body.calls, sink.paused) == (["pause"], True)
    sink.start()
    while body.paused:
        assert sink.queued > LOW
        bench.clock.calls.pop(0).func()
    assert sink.queued <= LOW
    bench.turn()
    assert body.calls == ["pause", "resume"]


def test_a_pull_producer_and_a_second_producer_are_refused(bench):
    sink = bench.sink()
    with pytest.raises(RuntimeError):
        sink.registerProducer(Producer(), False)
    sink.registerProducer(Producer(), True)
    with pytest.raises(RuntimeError):
        sink.registerProducer(Producer(), True)


def test_bytes_queued_when_the_producer_leaves_are_written(bench):
    sink = bench.sink()
    sink.registerProducer(Producer(), True)
    sink.write(b"abc")
    sink.start()
    sink.unregisterProducer()
    bench.turn()
    assert bench.content() == b"abc"


def test_a_producer_is_not_left_paused_by_a_failed_or_closed_sink(bench):
    for end in ("fail", "close"):
        sink, body = bench.sink(), Producer()
        sink.registerProducer(body, True)
        if end == "fail":
            bench.disk.fail_next("open", errno.EACCES)
            sink.start()
        sink.write(b"x" * HIGH)
        assert body.paused
        if end == "fail":
            bench.turn()
        else:
            bench.result(sink.close())
        assert not body.paused


def test_a_producer_that_writes_while_it_is_resumed_loses_nothing(bench):
    sink = bench.sink()

    class Eager(Producer):
        left = 3

        def resumeProducing(self):
            super().resumeProducing()
            while self.left and not self.paused:
                self.left -= 1
                sink.write(b"y" * HIGH)

    sink.registerProducer(Eager(), True)
    sink.start()
    sink.write(b"x" * HIGH)
    bench.turn()
    assert (sink.written, bench.budget.used) == (4 * HIGH, 0)


def many(bench, count, started=True):
    pairs = []
    for number in range(count):
        sink, body = bench.sink(upload_id=f"{number:032x}"), Producer()
        sink.registerProducer(body, True)
        if started:
            sink.start()
        pairs.append((sink, body))
    return pairs


def test_together_sinks_hold_no_more_than_the_budget():
    bench = Bench(limit=4 * MIB)
    pairs = many(bench, 6)
    for sink, _ in pairs[:5]:
        sink.write(b"x" * MIB)
    assert [body.paused for _, body in pairs] == [True] * 5 + [False]
    late, body = pairs[5]
    late.write(b"x")
    assert body.paused
    bench.turn()
    assert [body.paused for _, body in pairs] == [False] * 6
    assert (bench.budget.used, bench.budget.over) == (0, False)


def test_a_sink_with_nothing_queued_does_not_wait_for_the_others():
    bench = Bench(limit=4 * MIB)
    (one, body), (holder, _) = many(bench, 2)
    gathering = bench.sink(upload_id="f" * 32)
    gathering.write(b"x" * 4 * MIB)
    one.write(b"x")
    assert bench.budget.over
    assert body.paused
    bench.turn()
    assert bench.budget.over
    assert not body.paused
    assert holder.queued == 0


def test_who_only_gathers_is_told_that_memory_is_short_and_paused_until_it_is_started():
    bench = Bench(limit=4 * MIB)
    pairs = many(bench, 5, started=False)
    told = []
    for sink, _ in pairs:
        sink.on_pressure = lambda sink=sink: told.append(sink)
        sink.write(b"x" * MIB)
    assert told == [sink for sink, _ in pairs]
    assert [body.paused for _, body in pairs] == [True] * 5
    for sink, _ in pairs:
        sink.start()
    bench.turn()
    assert [body.paused for _, body in pairs] == [False] * 5


def test_who_only_gathers_and_cannot_be_told_is_never_left_waiting():
    bench = Bench(limit=4 * MIB)
    pairs = many(bench, 6, started=False)
    for sink, _ in pairs:
        sink.write(b"x" * MIB)
    assert [body.paused for _, body in pairs] == [False] * 6


def test_a_sink_started_when_memory_is_short_does_not_break_the_telling():
    bench = Bench(limit=4 * MIB)
    pairs = many(bench, 5, started=False)
    for sink, _ in pairs:
        sink.on_pressure = sink.start
        sink.write(b"x" * MIB)
    bench.turn()
    assert [sink.written for sink, _ in pairs] == [MIB] * 5
    assert [body.paused for _, body in pairs] == [False] * 5


def test_one_large_upload_gives_others_their_turn(bench):
    large, small = bench.sink(upload_id="b" * 32), bench.sink(upload_id="c" * 32)
    large.start()
    small.start()
    large.write(b"x")
    for _ in range(3):
        large.write(b"x" * TURN)
    small.write(b"y")
    bench.turn()
    paths = [path[-1] for operation, path in bench.disk.trace if operation == "writev"]
    assert paths.index("c") < len(paths) - 1 - paths[::-1].index("b")


def test_thousands_of_idle_sinks_are_cheap_and_hold_no_thread(bench):
    sinks = [bench.sink(upload_id=f"{number:032x}") for number in range(5000)]
    assert not hasattr(sinks[0], "__dict__")
    assert bench.clock.calls == []

"""Engines over one catalog, each stopped between any two steps for as long as it likes: requests for one upload come
to any of them in any order, messages are late or lost, and the upload's bytes are those of one client after the other.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.model.upload import Upload
from resumable.protocol.errors import TusError
from resumable.uploads.limits import UploadLimits
from tests.uploads.cluster_rig import Cluster, Engine, clusters
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, Answer

#: What a client may be told: another offset, another request, the upload is gone, or nothing, as it has gone itself.
REFUSALS = {409, 410, 423, None}

steps = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.integers(0, 7)),
        st.tuples(st.just("turn"), st.integers(0, 7)),
        st.tuples(st.just("turn"), st.integers(0, 7)),
        st.tuples(st.just("patch"), st.integers(0, 2), st.sampled_from(["row", "row", "known", "start"])),
        st.tuples(st.just("patch"), st.integers(0, 2), st.just("row")),
        st.tuples(st.just("arrive"), st.integers(0, 7), st.sampled_from([1, 100, LONG])),
        st.tuples(st.just("arrive"), st.integers(0, 7), st.sampled_from([1, 100, LONG])),
        st.tuples(st.just("lose"), st.integers(0, 7)),
        st.tuples(st.just("head"), st.integers(0, 2)),
        st.tuples(st.just("freeze"), st.integers(0, 2)),
        st.tuples(st.just("thaw"), st.integers(0, 2)),
        st.tuples(st.just("advance"), st.sampled_from([0.05, 0.3, 2.0, 30.0])),
        st.tuples(st.just("messages"), st.sampled_from(["late", "prompt", "deliver", "lose"])),
        st.tuples(st.just("pump")),
        st.tuples(st.just("delete"), st.integers(0, 2)),
    ),
    max_size=60,
)


@define
class Sent:
    """A PATCH. All of its bytes have the value ``tag``."""

    tag: int
    start: int
    body: FakeBody
    answer: Answer[Upload]
    sent: int = 0


class Client:
    """All clients of one upload, and what must be true whatever they and the workers do."""

    def __init__(self, cluster: Cluster, engines: list[Engine], length: int) -> None:
        self.cluster, self.engines = cluster, engines
        self.upload_id = engines[0].create(length).value.id
        self.patches: list[Sent] = []
        self.heads: list[Answer[Upload]] = []
        self.known = 0
        self.content = b""
        self.asked: list[Answer] = []

    def ask(self, work) -> Answer:
        answer: Answer = Answer(self.engines[0].machine, work)
        self.asked.append(answer)
        return answer

    def patch(self, number: int, where: str, size: int) -> None:
        engine = self.engines[number % len(self.engines)]
        if engine.frozen:
            return
        row = self.cluster.row(self.upload_id)
        start = {"row": row.offset, "known": self.known, "start": 0}[where]
        size = min(size, (row.length or size) - start)
        if size <= 0:
            return
        from resumable.protocol.tus import Append

        body = engine._sent(FakeBody(size))
        answer = self.ask(engine.uploads.append(self.upload_id, Append(start, None, None, False), body))
        self.patches.append(Sent(len(self.patches) % 251 + 1, start, body, answer))

    def arrive(self, number: int, size: int) -> None:
        under_way = [each for each in self.patches if not each.answer.done and each.body._result is None]
        if under_way:
            each = under_way[number % len(under_way)]
            size = min(size, each.body.length - each.sent)
            each.sent += size
            each.body.arrive(bytes([each.tag]) * size)

    def check(self) -> None:
        row = self.cluster.row(self.upload_id)
        content = self.cluster.content(self.upload_id)
        assert content.startswith(self.content), "committed bytes stay what they are"
        assert len(content) == row.offset
        self.content = content
        for head in self.heads:
            if head.done and head.error is None:
                assert head.value.offset <= row.offset, "no more is acknowledged than is there"
                self.known = max(self.known, head.value.offset)
        for sent in self.patches:
            if sent.answer.done and sent.answer.error is None:
                end = sent.answer.value.offset
                assert end == sent.start + sent.body.length
                assert content[sent.start : end] == bytes([sent.tag]) * (end - sent.start), "nothing interleaves"
                self.known = max(self.known, end)
        for answer in self.asked:
            if isinstance(answer.error, TusError):
                assert answer.status in REFUSALS, answer.error
        runs = [tag for tag, _ in itertools.groupby(content)]
        assert len(runs) == len(set(runs)), "one client's bytes after the other's"

    def step(self, name: str, *given) -> None:
        cluster = self.cluster
        if name == "turn":
            due = cluster.due()
            if due:
                cluster.turn(due[given[0] % len(due)])
        elif name == "patch":
            self.patch(*given, size=[300, LONG, 3 * LONG][len(self.patches) % 3])
        elif name == "arrive":
            self.arrive(*given)
        elif name == "lose":
            under_way = [each for each in self.patches if each.body._result is None]
            if under_way:
                under_way[given[0] % len(under_way)].body.lose()
        elif name in ("head", "delete"):
            engine = self.engines[given[0] % len(self.engines)]
            if not engine.frozen:
                work = engine.uploads.inspect if name == "head" else engine.uploads.terminate
                answer = self.ask(work(self.upload_id))
                if name == "head":
                    self.heads.append(answer)
        elif name == "freeze":
            self.engines[given[0] % len(self.engines)].freeze()
        elif name == "thaw":
            engine = self.engines[given[0] % len(self.engines)]
            engine.frozen, engine.clock.rightNow = False, cluster.clock.rightNow
        elif name == "advance":
            cluster.advance(given[0])
            for engine in self.engines:
                if not engine.frozen:
                    engine.uploads.appends.tick(engine.clock.seconds())
        elif name == "pump":
            cluster.pump()
        elif given[0] == "deliver":
            cluster.fake.deliver()
        elif given[0] == "lose":
            cluster.fake.lose()
        else:
            cluster.fake.held_back = given[0] == "late"


@given(st.sampled_from([2, 3]), st.sampled_from([4000, 4 * LONG, 1 << 40]), steps)
def test_whatever_the_workers_do_an_upload_is_one_clients_bytes_after_the_others(count, length, steps):
    """Offsets never go back, no more is acknowledged than is committed, and nothing interleaves."""
    run("simulated", count, length, steps)


@pytest.mark.process
@pytest.mark.slow
@settings(max_examples=40)
@given(st.sampled_from([2, 3]), st.sampled_from([4000, 4 * LONG, 1 << 40]), steps)
def test_the_same_with_a_real_database(count, length, steps):
    run("postgres", count, length, steps)


def run(kind, count, length, steps):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        cluster = clusters(kind)(Path(directory))
        limits = UploadLimits(expire_after=86_400.0)
        client = Client(cluster, [cluster.engine(limits=limits) for _ in range(count)], length)
        for step in steps:
            client.step(*step)
            client.check()
        cluster.fake.held_back = False
        for engine in client.engines:
            engine.frozen, engine.clock.rightNow = False, cluster.clock.rightNow
        cluster.pump()
        for sent in client.patches:
            sent.body.lose()
        cluster.advance(2)
        client.check()
        assert all(answer.done for answer in client.asked), "every request is answered"
        assert all(engine.context.holds.count == 0 for engine in client.engines), "every hold is given back"
        cluster.bury()


@given(st.sampled_from([1, 2, 3]), st.sampled_from([300, LONG]), st.lists(st.integers(0, 11), max_size=150))
def test_of_eight_patches_at_one_offset_one_is_left(count, size, turns):
    """In whatever order their steps are taken."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        cluster = Cluster(Path(directory))
        client = Client(cluster, [cluster.engine() for _ in range(count)], size)
        for number in range(8):
            client.patch(number, "start", size)
        for turn in turns:
            if turn >= 8:
                client.arrive(turn, size)
            elif due := cluster.due():
                cluster.turn(due[turn % len(due)])
            client.check()
        while any(each.body._result is None and not each.answer.done for each in client.patches):
            client.arrive(0, size)
            cluster.pump()
        cluster.pump()
        client.check()
        assert [each.answer.error for each in client.patches].count(None) == 1
        assert client.cluster.row(client.upload_id).finished
        cluster.bury()

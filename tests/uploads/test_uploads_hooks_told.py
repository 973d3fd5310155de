"""Hooks are told what has happened to an upload, and how a running one gets on."""

from __future__ import annotations

from itertools import pairwise

import pytest
from twisted.internet.task import Clock

from resumable.hooks.interfaces import Refuse
from resumable.hooks.progress import ProgressEvents, Watcher
from resumable.model.hooks import Answer, Granted, QuestionKind
from resumable.model.upload import FactKind
from resumable.uploads.context import HookContext
from tests.hooks.delivering import Watches
from tests.uploads.asking import DATA, REQUEST, kinds, posted
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, pattern, told
from tests.uploads.machine import machines

FINISH = QuestionKind.FINISH


def test_facts_have_the_upload_and_the_request_that_caused_them(hooked):
    server = hooked()
    creation, body = posted(10, DATA, "a MQ==")
    upload = server.ask(server.uploads.create(creation, body, hooks=HookContext(REQUEST))).value
    created, finished = told(server, "outside")
    assert (created.kind, finished.kind) == (FactKind.CREATED, FactKind.FINISHED)
    assert created.upload_id == upload.id
    told_of = {"method": "POST", "uri": "/files/", "address": "192.0.2.7:1", "headers": {"cookie": ["a=1"]}}
    request = {**told_of, "id": "7f3a-1", "protocol": None, "protocol_version": None}
    assert created.data == {"length": 10, "offset": 10, "metadata": "a MQ==", "request": request}


def test_progress_is_noted_when_bytes_arrive_and_somebody_wants_to_know(hooked):
    server = hooked()
    upload_id = server.create(10).value.id
    server.patch(upload_id, 0, b"012")
    server.hooks.is_due = False
    server.patch(upload_id, 3, b"345")
    server.hooks.is_due = True
    server.patch(upload_id, 6, b"6789")
    assert server.hooks.noted == [(upload_id, 3, 0, None)], "its end is told otherwise"


@pytest.mark.parametrize("declared", [True, False])
def test_a_slow_upload_is_told_of_at_every_interval_and_stopped_within_one(hooked, declared):
    """5 KB/s; nothing commits before ten seconds have passed."""
    stopped, watches, clock = [], Watches(), Clock()
    progress = ProgressEvents(
        [Watcher("hook", watches)], lambda *each: stopped.append(each), clock=clock, wall=lambda: 5.0
    )
    server = hooked(progress=progress, clock=clock)
    upload_id = server.create(LONG).value.id
    body = FakeBody(LONG if declared else None)
    answer = server.patch(upload_id, 0, body)
    for _ in range(9):
        for _ in range(5):
            body.arrive(bytes(1000))
            server.advance(0.2)
    server.advance(0.001)
    told = [(event.details["received"], event.upload.offset) for event in watches.came]
    assert len(told) == 10 and {offset for _, offset in told} == {0}
    assert all(4000 <= later - one <= 6000 for (one, _), (later, _) in pairwise(told))
    assert server.row(upload_id).offset == 0 and stopped == []
    watches.said = Refuse(Answer(410))
    body.arrive(bytes(1000))
    server.advance(1.0)
    ((ended, refusal),) = stopped
    server.ask(server.uploads.stop_upload(ended, refusal))
    assert answer.error.status == 410 and server.row(upload_id).gone is not None


def test_of_an_upload_that_nobody_can_know_yet_no_progress_is_told(hooked):
    server = hooked()
    creation, _ = posted(100, DATA, None)
    body = FakeBody(100)
    server.ask(server.uploads.create(creation, body, hooks=HookContext(REQUEST)))
    body.arrive(bytes(50))
    server.pump()
    assert server.hooks.noted == []


def test_answers_of_several_questions_are_put_together():
    visit = HookContext()
    visit.add(Granted(answer=Answer(202, {"X-A": "1", "X-B": "1"}, b"first")))
    visit.add(Granted(answer=Answer(None, {"x-b": "2"})))
    assert visit.answer == Answer(202, {"X-A": "1", "x-b": "2"}, b"first")


@pytest.mark.parametrize("moment", ["before", "after", "torn"])
@pytest.mark.parametrize("size", [10, LONG])
def test_a_crash_at_any_step_finishes_nothing_unasked_and_tells_of_each_end_once(hooked, directory, size, moment):
    """Until a run comes to its end before the crash does."""
    data = pattern(size)
    for step, machine in enumerate(machines(directory / "each"), 1):
        server = hooked(FINISH, on=machine)
        machine.crash_at(step, moment)
        made = server.create(size)
        upload_id = made.value.id if made.done else None
        if upload_id is not None:
            server.patch(upload_id, 0, data)
        crashed = machine.down
        asked = bool(server.hooks.asked)
        server.bury()
        if upload_id is None:
            continue
        again = hooked(FINISH, on=machine.after_kill())
        assert asked or not again.row(upload_id).finished
        offset = again.head(upload_id).value.offset
        assert again.patch(upload_id, offset, data[offset:]).value.offset == size
        assert again.content(upload_id) == data
        assert again.hooks.asked or asked
        assert kinds(again, upload_id) == [FactKind.CREATED, FactKind.FINISHED]
        again.bury()
        if not crashed:
            break

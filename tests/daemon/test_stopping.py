"""Stopping: whatever one step does, those after it are taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs

from resumable.aio.threads import Pool
from resumable.daemon.children import take_all
from resumable.daemon.many_processes import ManyProcesses
from resumable.spool import Budget
from tests.parsing import parse
from tests.postgres import database


@pytest_twisted.ensureDeferred
async def test_a_step_that_fails_keeps_no_other_from_being_taken_and_is_logged_once() -> None:
    taken: list[str] = []

    def at_once() -> None:
        raise OSError("at once")

    async def later() -> None:
        raise ValueError("later")

    with capturedLogs() as logged:
        good = await take_all(
            [at_once, lambda: taken.append("one"), later, lambda: fail(KeyError("fired")), lambda: taken.append("two")]
        )
    assert taken == ["one", "two"]
    assert not good
    assert [type(event["log_failure"].value) for event in logged] == [OSError, ValueError, KeyError]


@pytest_twisted.ensureDeferred
async def test_a_step_is_waited_for_before_the_next_is_taken() -> None:
    taken: list[str] = []
    ready: Deferred[None] = Deferred()

    async def slow() -> None:
        await ready
        taken.append("slow")

    outcome = Deferred.fromCoroutine(take_all([slow, lambda: taken.append("next")]))
    assert taken == []
    ready.callback(None)
    assert await outcome
    assert taken == ["slow", "next"]


@pytest_twisted.ensureDeferred
async def test_a_step_of_several_that_did_not_all_work_is_not_good() -> None:
    def fails() -> None:
        raise OSError("inside")

    with capturedLogs() as logged:
        good = await take_all([lambda: Deferred.fromCoroutine(take_all([fails]))])
    assert not good
    assert len(logged) == 1


@pytest.mark.process
def test_one_heartbeat_without_an_answer_is_not_the_last_while_requests_are_under_way(tmp_path: Path) -> None:
    """Others would take the worker for dead, and refuse what it has yet to commit."""
    tmp_path.chmod(0o700)
    settings = parse("--upload-dir", str(tmp_path), "--catalog", database())
    shape = ManyProcesses(settings, reactor, Pool(reactor, 1, "spool"), Budget())  # type: ignore[arg-type]
    requests, heartbeats = shape._answer_time, shape._heartbeat_time
    shape.ending()
    for one in (requests, heartbeats):
        assert one.is_over(settings.shutdown_timeout / 2)
    assert (requests.over, heartbeats.over) == (True, False)
    shape._end_loops()
    assert heartbeats.is_over(settings.shutdown_timeout / 2) and heartbeats.over

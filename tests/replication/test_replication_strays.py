"""Replicas whose remote isn't configured any more are told of, kept, and go on when it is back."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent

from resumable.daemon import remote_tier as tiers
from resumable.remotes.urls import RemoteSpec
from tests.replication.rig import parts, pattern


def told(rig: Any, *names: str) -> list[str]:
    with capturedLogs() as said:
        rig.ask(tiers.tell_of_strays(rig.catalog.replicas, [RemoteSpec("memory", name) for name in names]))
    return [formatEvent(event) for event in said if event["log_namespace"] == "resumable.daemon.remote_tier"]


def test_a_line_for_each_remote_that_is_not_there_any_more_and_that_something_waits_for(make):
    rig = make({"a": parts(), "b": parts(), "c": parts()})
    first = rig.create(300)
    rig.create(300)
    rig.append(first, pattern(300))
    rig.advance(60)
    assert told(rig, "a", "b", "c") == []
    assert told(rig, "a") == [
        "1 replicas wait for b, and there is no such remote",
        "1 replicas wait for c, and there is no such remote",
    ]


def test_it_is_never_stored_nor_dropped_while_the_remote_is_missing_and_goes_on_when_it_is_back(make):
    rig = make({"a": parts(), "b": parts()})
    upload_id = rig.create(300)
    rig.append(upload_id, pattern(200))
    rig.advance(60)
    rig.stop()
    without, rig.makes = rig.makes, {"a": rig.makes["a"]}
    rig.start()
    rig.append(upload_id, pattern(100, seed=2))
    rig.advance(60)
    assert rig.row(upload_id).finished and rig.row(upload_id).stored_at is None
    assert rig.ask(rig.catalog.replicas.droppable(1e12, 10)) == []
    assert told(rig, "a") == ["1 replicas wait for b, and there is no such remote"]
    rig.stop()
    rig.makes = without
    rig.start()
    rig.advance(60)
    rig.check(upload_id)
    assert told(rig, "a", "b") == []

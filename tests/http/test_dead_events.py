"""Operators see events that were given up, and send them on their way again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from resumable.http.admin.overview import AT_ONCE, DeadEvents
from resumable.http.site import StreamingSite
from tests.hooks.outbox import MemoryOutbox, fact
from tests.http.admin_rig import tree
from tests.http.visitor import Reply


class Operator:
    """Works on an outbox through the admin API."""

    def __init__(self) -> None:
        self.outbox = MemoryOutbox(["hook"])
        self.wakes = 0
        self.tree = tree(dead=DeadEvents(self.outbox, ["hook"], self.wake))

    def wake(self) -> None:
        self.wakes += 1

    def ask(self, method: str, path: str) -> Reply:
        channel = StreamingSite(self.tree.resource, reactor=Clock()).buildProtocol(None)
        wire = StringTransport()
        channel.makeConnection(wire)
        channel.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".encode())
        return Reply(wire.value())

    def told(self, method: str, path: str) -> Any:
        reply = self.ask(method, path)
        assert reply.status == 200 and reply.get("Content-Type") == "application/json"
        return json.loads(reply.body)

    def bury(self, upload_id: str) -> None:
        (seq,) = self.outbox.post(fact(upload_id, at=10.0, request={"headers": {"cookie": ["secret"]}}))
        self.outbox.bury(seq, "it answered 500", 99.0)


@pytest.fixture
def operator() -> Operator:
    return Operator()


def test_dead_events_are_counted_shown_and_replayed(operator: Operator) -> None:
    operator.outbox.post(fact("w", at=5.0))
    operator.bury("u")
    assert operator.told("GET", "/v1/hooks") == {
        "hooks": {"hook": {"waiting": 1, "dead": 1, "oldest": "1970-01-01T00:00:05.000Z"}}
    }
    assert operator.told("GET", "/v1/hooks/hook/dead") == {
        "dead": [
            {
                "seq": 2,
                "upload": "u",
                "event": "created",
                "time": "1970-01-01T00:00:10.000Z",
                "attempts": 1,
                "error": "it answered 500",
                "dead_since": "1970-01-01T00:01:39.000Z",
            }
        ],
        "next": None,
    }
    assert operator.told("POST", "/v1/hooks/hook/replay") == {"replayed": 1}
    assert operator.wakes == 1
    assert operator.told("GET", "/v1/hooks")["hooks"]["hook"]["dead"] == 0


def test_many_dead_events_come_in_pages(operator: Operator) -> None:
    for number in range(AT_ONCE + 1):
        operator.bury(f"u{number}")
    first = operator.told("GET", "/v1/hooks/hook/dead")
    assert (len(first["dead"]), first["next"]) == (AT_ONCE, AT_ONCE)
    last = operator.told("GET", f"/v1/hooks/hook/dead?after={first['next']}")
    assert ([each["upload"] for each in last["dead"]], last["next"]) == ([f"u{AT_ONCE}"], None)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/hooks/other/dead", 404),
        ("POST", "/v1/hooks/other/replay", 404),
        ("GET", "/v1/hooks/hook/replay", 405),
        ("GET", "/v1/hooks/hook/dead?after=-1", 400),
        ("GET", "/v1/hooks/hook/dead?after=%C2%B2", 400),
    ],
)
def test_what_makes_no_sense_is_refused(operator: Operator, method: str, path: str, status: int) -> None:
    assert operator.ask(method, path).status == status


def test_without_hooks_there_is_nothing(operator: Operator) -> None:
    operator.tree = tree()
    assert operator.told("GET", "/v1/hooks") == {"hooks": {}}
    assert operator.ask("GET", "/v1/hooks/hook/dead").status == 404

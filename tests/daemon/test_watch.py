"""What is counted and logged of requests, and their ids."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from resumable.http.request import StreamingRequest
from resumable.http.watch import METHODS, OTHER, SECONDS, shown
from tests.daemon.site_rig import Listening, Site, finish


def test_requests_are_counted_by_method_and_class_of_status() -> None:
    site = Site(finish(204))
    site.ask(method="PATCH")
    site.ask(method="PATCH")
    site.watch.methods["PATCH"].seconds.add(0)
    assert site.ended("PATCH") == {"2xx": 2}
    assert site.ended("HEAD") == {}


@pytest.mark.parametrize("status", [200, 301, 404, 507])
def test_a_status_counts_for_its_class(status: int) -> None:
    site = Site(finish(status))
    site.ask()
    assert site.ended("GET") == {f"{status // 100}xx": 1}


def test_the_method_that_was_meant_counts() -> None:
    def handler(request: StreamingRequest) -> None:
        request.method = b"DELETE"
        finish()(request)

    site = Site(handler)
    site.ask(method="POST")
    assert (site.ended("DELETE"), site.ended("POST")) == ({"2xx": 1}, {})


def test_no_client_can_make_a_counter() -> None:
    site = Site()
    for number in range(500):
        site.ask(method=f"FROB{number}")
    site.ask(method="patch")
    assert set(site.watch.methods) == {*METHODS, OTHER}
    assert site.ended(OTHER) == {"2xx": 501}


def test_a_client_that_goes_before_its_answer_is_lost() -> None:
    waiting: list[StreamingRequest] = []
    site = Site(waiting.append)
    channel, _ = site.send(b"HEAD /files/x HTTP/1.1\r\nHost: h\r\n\r\n")
    channel.connectionLost(Failure(ConnectionLost()))
    assert site.ended("HEAD") == {"lost": 1}
    waiting.pop().finish()
    assert site.ended("HEAD") == {"lost": 1}


def test_what_is_no_request_counts_as_other() -> None:
    site = Site()
    site.send(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert site.ended(OTHER) == {"4xx": 1}


def test_durations_go_from_the_head_to_the_end_of_the_answer() -> None:
    waiting: list[StreamingRequest] = []
    site = Site(waiting.append)
    site.send(b"GET /files/x HTTP/1.1\r\nHost: h\r\n\r\n")
    site.clock.advance(3)
    waiting.pop().finish()
    seconds = site.watch.methods["GET"].seconds
    assert (seconds.total, seconds.count) == (3.0, 1)
    assert seconds.counts[SECONDS.index(5)] == 1


def test_requests_and_their_content_are_counted_by_protocol_and_those_of_none_are_not() -> None:
    def handler(request: StreamingRequest) -> None:
        if b"draft" in request.path:
            request.speaks = ("draft", "8")
        finish()(request)

    site = Site(handler)
    site.send(b"PATCH /files/draft HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
    site.ask(path="/files/download")
    counted = {name: (each.requests, each.received) for name, each in site.watch.protocols.items()}
    assert counted["tus"] == (0, 0) and counted["draft"][0] == 1


# Ids


@pytest.mark.parametrize("name", ["abc", "1-67891233-abcdef012345678912345678", "a" * 128, "A/b+c==", "x:y@z~"])
def test_a_sane_id_is_kept_and_echoed(name: str) -> None:
    seen: list[str] = []

    def handler(request: StreamingRequest) -> None:
        seen.append(request.known_as)
        finish()(request)

    assert Site(handler).ask(f"X-Request-ID: {name}").get("x-request-id") == name
    assert seen == [name]


@pytest.mark.parametrize("name", ["", "a" * 129, "a b", "a,b", "<script>", "a\x7fb", "\xe9", '"', "%0d%0a"])
def test_any_other_id_is_replaced(name: str) -> None:
    assert Site().ask(f"X-Request-ID: {name}").get("x-request-id") == "run-1"


def test_two_ids_are_none() -> None:
    assert Site().ask("X-Request-ID: a", "X-Request-ID: b").get("x-request-id") == "run-1"


def test_ids_that_are_made_differ_and_are_in_the_request_too() -> None:
    seen: list[str] = []

    def handler(request: StreamingRequest) -> None:
        seen.append(request.known_as)
        finish()(request)

    site = Site(handler)
    assert [site.ask().get("x-request-id") for _ in range(3)] == seen == ["run-1", "run-2", "run-3"]


# The access log


def test_without_being_asked_for_no_request_is_logged() -> None:
    with Listening() as events:
        Site().ask()
    assert events == []


@pytest.mark.parametrize("level", [LogLevel.debug, LogLevel.info])
def test_each_request_is_one_event_with_its_fields(level: LogLevel) -> None:
    site = Site(finish(404), level=level)
    with Listening() as events:
        site.ask("X-Request-ID: abc", method="HEAD", path="/files/x")
    (event,) = events
    assert event["log_level"] is level
    assert {name: event[name] for name in ("method", "path", "status", "received", "sent", "peer", "request")} == {
        "method": "HEAD",
        "path": "/files/x",
        "status": 404,
        "received": 0,
        "sent": 0,
        "peer": "192.0.2.1",
        "request": "abc",
    }
    assert "HEAD /files/x 404" in formatEvent(event)


def test_no_value_of_a_query_is_logged() -> None:
    site = Site(level=LogLevel.info)
    with Listening() as events:
        site.ask(path="/files/x?token=hunter2&expires=1;sig=hunter2&flag&x='\"<hunter2")
    assert "hunter2" not in str(events)
    assert events[0]["path"] == "/files/x?token=...&expires=...&flag&x=..."


def test_what_was_no_request_is_logged_too() -> None:
    site = Site(level=LogLevel.info)
    with Listening() as events:
        site.send(b"nonsense\r\n\r\n")
    assert [event["status"] for event in events] == [400]


def test_a_path_breaks_no_line_and_has_an_end() -> None:
    assert shown("/a\nb\x1b[31m\xe9") == "/a\\nb\\x1b[31m\\xe9"
    assert len(shown("/" + "a" * 9000)) == 2000


def test_what_is_logged_of_a_request_that_fails_has_its_id() -> None:
    def handler(request: StreamingRequest) -> None:
        raise RuntimeError("broken")

    with Listening() as events:
        reply = Site(handler).ask("X-Request-ID: abc")
    assert (reply.status, reply.get("x-request-id")) == (500, "abc")
    assert [event["request"] for event in events if event["log_level"] is LogLevel.critical] == ["abc"]

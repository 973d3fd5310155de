"""Requests driven byte by byte through `StreamingSite.buildProtocol`: dispatch, observers, Klein, any bytes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from klein import Klein
from twisted.internet.interfaces import IPushProducer
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from resumable.http.request import StreamingRequest
from resumable.http.site import StreamingSite
from resumable.http.twisted_web import PRIVATES, TESTED_TWISTED
from resumable.model.errors import BodyLost
from resumable.model.upload import IBody
from tests.http.http1_client import EXPECT, GET, Client, Consumer, Watcher, answer, patch, problem_of

# What we lean on


def test_twisted_still_has_every_private_name_that_is_leaned_on() -> None:
    """Tested with the versions from TESTED_TWISTED[0] to TESTED_TWISTED[1]; run everything here before widening it."""
    oldest, newest = (tuple(map(int, version.split("."))) for version in TESTED_TWISTED)
    version = (twisted.version.major, twisted.version.minor)
    assert oldest <= version <= newest, (
        f"resumable/http/twisted_web.py was never tested with Twisted {twisted.__version__}"
    )
    for kind, names in PRIVATES.items():
        missing = [name for name in names if not hasattr(kind, name)]
        assert not missing, f"Twisted {twisted.__version__}: {kind.__name__} has no {missing} any more"
    client = Client()
    for name in ("requests", "persistent", "_networkProducer"):
        assert hasattr(client.channel, name), f"Twisted {twisted.__version__}: a channel has no {name} any more"


def test_a_body_keeps_its_contract() -> None:
    client = Client()
    client.send(patch(5))
    assert verifyObject(IBody, client.body)
    assert verifyObject(IPushProducer, client.body)


@pytest.mark.parametrize(("http2", "offered"), [(True, [b"h2", b"http/1.1"]), (False, [b"http/1.1"])])
def test_http2_is_offered_unless_it_is_switched_off(http2: bool, offered: list[bytes]) -> None:
    assert Client(http2=http2).site.acceptableProtocols() == offered


# Dispatch


def test_a_request_is_dispatched_when_its_headers_are_complete() -> None:
    client = Client()
    head = patch(5)
    client.send(head[:-1])
    assert client.tree.requests == []
    client.send(head[-1:])
    assert len(client.tree.requests) == 1
    assert (client.request.method, client.request.path) == (b"PATCH", b"/files/1")
    assert client.body.length == 5
    assert client.body.received == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_cuts_between_reads_do_not_matter(size: int) -> None:
    client = Client(lambda request: None)
    stream = patch(5) + b"hello"
    client.send(*(stream[at : at + size] for at in range(0, len(stream), size)))
    consumer, ends = client.deliver()
    assert (consumer.data, ends) == (b"hello", [""])


def test_a_request_without_a_body_has_an_empty_one() -> None:
    client = Client()
    client.send(GET)
    assert client.body.length == 0
    consumer, ends = client.deliver()
    assert (ends, consumer.data, consumer.registrations, consumer.producer) == ([""], b"", 1, None)


def test_the_request_content_is_always_empty() -> None:
    client = Client()
    client.send(patch(5) + b"hello")
    assert client.request.content.read() == b""


def test_unknown_methods_reach_the_resources() -> None:
    client = Client(lambda request: answer(request, 405))
    assert client.send(GET.replace(b"GET", b"FOO")).startswith(b"HTTP/1.1 405 ")


def test_query_arguments_and_percent_encoding_are_decoded() -> None:
    client = Client()
    client.send(GET.replace(b"/files/1", b"/a%20b/c?x=1&x=2"))
    assert client.request.postpath == [b"a b", b"c"]
    assert client.request.args == {b"x": [b"1", b"2"]}


def test_the_absolute_form_is_accepted_and_its_authority_replaces_host() -> None:
    client = Client()
    client.send(GET.replace(b"/files/1", b"http://other:8080/files/1?a=b"))
    assert client.request.path == b"/files/1"
    assert client.request.requestHeaders.getRawHeaders(b"host") == [b"other:8080"]


def test_the_watch_sees_a_request_right_before_dispatch_and_may_change_the_method() -> None:
    seen: list[bytes] = []

    def prepare(request: StreamingRequest) -> None:
        assert request.body.length == 5
        request.method = b"PATCH"
        request.responseHeaders.setRawHeaders(b"X-Prepared", [b"yes"])

    def handler(request: StreamingRequest) -> None:
        seen.append(request.method)
        answer(request)

    client = Client(handler, watch=Watcher(prepare))
    assert b"X-Prepared: yes" in client.send(patch(5, method="POST"))
    assert seen == [b"PATCH"]


def test_the_watch_may_answer_itself() -> None:
    client = Client(watch=Watcher(lambda request: answer(request, 400)))
    assert client.send(GET).startswith(b"HTTP/1.1 400 ")
    assert client.tree.requests == []


def test_the_watch_is_told_once_of_each_request_that_ends_and_how_long_it_took() -> None:
    waiting: list[StreamingRequest] = []
    watcher = Watcher()
    client = Client(waiting.append, watch=watcher)
    client.send(GET)
    client.advance(2)
    answer(waiting.pop(), 404)
    assert watcher.seen == [(b"GET", 404, False, 2.0)]
    client.send(GET)
    client.hang_up()
    assert [seen[2] for seen in watcher.seen] == [False, True]


def test_the_watch_is_told_of_what_was_no_request() -> None:
    watcher = Watcher()
    Client(watch=watcher).send(b"NONSENSE\r\n\r\n")
    assert (watcher.seen, watcher.refusals) == ([], [400])


def test_a_site_counts_the_bytes_that_come_in() -> None:
    client = Client(answer)
    client.send(GET, GET[:7])
    assert client.site.received == len(GET) + 7


def test_answers_name_no_version_and_no_content_type_of_their_own() -> None:
    client = Client(lambda request: answer(request, 200, b"ok"))
    head = client.send(GET).partition(b"\r\n\r\n")[0]
    assert b"Server: resumable\r\n" in head + b"\r\n"
    assert b"Twisted" not in head
    assert b"Content-Type" not in head


def test_a_handler_that_raises_answers_500_as_problem_json_without_a_trace() -> None:
    def handler(request: StreamingRequest) -> None:
        raise ValueError("secret")

    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        client = Client(handler)
        status, _, document = problem_of(client.send(GET))
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert (status, document["status"]) == (500, 500)
    assert "secret" not in json.dumps(document)
    assert any(event.get("log_failure") and event["log_failure"].check(ValueError) for event in logged)


def test_options_asterisk_is_answered() -> None:
    assert Client().send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 200 ")


# Klein


def klein_client(route: Callable[..., Any], **options: Any) -> Client:
    app = Klein()
    app.route("/files/<name>", methods=["PATCH", "GET"])(route)
    client = Client()
    site = StreamingSite(app.resource(), reactor=client.clock, **options)
    client = Client(site=site)
    return client


def test_a_klein_route_runs_at_header_completion() -> None:
    seen: list[StreamingRequest] = []
    consumer = Consumer()

    async def route(request: Any, name: str) -> bytes:
        seen.append(request)
        await request.body.deliver(consumer)
        request.setResponseCode(204)
        return b""

    client = klein_client(route)
    client.send(patch(5) + b"he")
    assert len(seen) == 1
    assert client.send(b"llo").startswith(b"HTTP/1.1 204 ")
    assert consumer.data == b"hello"
    assert client.send(patch(1), b"x").startswith(b"HTTP/1.1 204 ")


def test_a_klein_route_that_is_cancelled_by_a_disconnect_has_got_the_bytes() -> None:
    consumer = Consumer()
    losses: list[str] = []
    logged: list[Any] = []

    async def route(request: Any, name: str) -> bytes:
        try:
            await request.body.deliver(consumer)
        except BodyLost as lost:
            losses.append(lost.reason)
            raise
        return b""

    globalLogPublisher.addObserver(logged.append)
    try:
        client = klein_client(route)
        client.send(patch(5) + b"he")
        client.hang_up()
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert (consumer.data, losses) == (b"he", ["disconnected"])
    assert not [event for event in logged if event.get("log_failure")]


def test_a_klein_route_that_ignores_the_body_answers_early() -> None:
    client = klein_client(lambda request, name: b"no")
    assert b"Connection: close\r\n" in client.send(patch(5))


def test_nothing_here_warns_or_leaks_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = Client(lambda request: answer(request, 409))
        client.send(patch(100))
        client.hang_up()


FRAGMENTS = [
    *(patch(3), patch(3, EXPECT), patch(None), patch(0), GET),
    *(b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"\r\n", b"\n", b"\r", b"\0", b": ", b"zz"),
    *(b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n", b"x" * 70_000),
]


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12), st.integers(1, 40), st.booleans(), st.booleans())
def test_no_stream_of_bytes_breaks_a_connection(fragments: list[bytes], cut: int, at_once: bool, pausing: bool) -> None:
    """Whatever comes, nothing raises, each body has one end, each request one answer, and no timer is left."""
    ends: list[object] = []
    consumers: list[Consumer] = []

    def ended(outcome: object, request: StreamingRequest) -> None:
        ends.append(outcome)
        answer(request, 200, b"ok")

    def handler(request: StreamingRequest) -> None:
        consumers.append(Consumer(pause_after=1 if pausing else None))
        request.body.deliver(consumers[-1]).addBoth(ended, request)

    client = Client(handler)
    stream = b"".join(fragments)
    pieces = [stream] if at_once else [stream[at : at + cut] for at in range(0, min(len(stream), 2_000), cut)]
    received = client.send(*pieces)
    assert received.count(b"HTTP/1.1 200 ") == len(ends)
    assert received.count(b"HTTP/1.1 4") + received.count(b"HTTP/1.1 5") <= 1
    client.advance(200)
    for consumer in consumers:
        consumer.pause_after = None
        if consumer.producer is not None:
            consumer.producer.resumeProducing()
    client.hang_up()
    assert len(ends) == len(consumers) == len(client.tree.requests)
    assert all(outcome is None or outcome.check(BodyLost) for outcome in ends)  # type: ignore[attr-defined]
    assert client.clock.getDelayedCalls() == []

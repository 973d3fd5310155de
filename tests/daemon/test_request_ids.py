"""The id of a client's request goes along: into the log, to hooks and to stores; never another's."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Site

from resumable.daemon import logs
from resumable.httpclient.client import Http, HttpLimits
from resumable.model.telemetry import REQUEST
from resumable.model.upload import Fact, FactKind, Upload
from tests.hooks.delivering import Bench, Recorder
from tests.http.visitor import UPLOAD, Nothing, connect, request


class Waiting(Nothing):
    """Uploads whose creation takes until `go`; ``seen``: the request that each was made for, after the wait."""

    def __init__(self) -> None:
        self.waits: list[Deferred[None]] = []
        self.seen: list[str] = []

    def create(self, creation: Any, body: Any, by: Any, hooks: Any) -> Deferred[Upload]:
        wait: Deferred[None] = Deferred()
        self.waits.append(wait)

        async def make() -> Upload:
            await wait
            self.seen.append(REQUEST.get())
            return UPLOAD

        return Deferred.fromCoroutine(make())


def test_what_a_request_begins_knows_its_id_to_the_end_whatever_comes_between() -> None:
    uploads = Waiting()
    channels = {name: connect(uploads)[0] for name in ("one", "two")}
    for name, channel in channels.items():
        channel.dataReceived(request("Host: x", f"X-Request-ID: {name}"))
    for wait in reversed(uploads.waits):
        wait.callback(None)
    assert uploads.seen == ["two", "one"]
    assert REQUEST.get() == ""


def logged(form: str, name: str) -> str:
    file = StringIO()
    before = REQUEST.set(name)
    try:
        Logger("resumable.test", observer=logs.observer(form, "info", file)).warn("of {upload}", upload="u1")
    finally:
        REQUEST.reset(before)
    return file.getvalue()


def test_a_line_of_the_log_names_the_request_that_it_is_about() -> None:
    assert json.loads(logged("json", "abc-1"))["request"] == "abc-1"
    assert "request" not in json.loads(logged("json", ""))
    assert logged("text", "abc-1").endswith("of u1 [abc-1]\n")
    assert logged("text", "").endswith("of u1\n")


def test_an_event_is_delivered_in_the_name_of_its_own_request() -> None:
    seen: list[str] = []
    hook = Recorder(lambda event: seen.append(REQUEST.get()))
    bench = Bench(hook)
    bench.deliverer.start()
    told = {"method": "POST", "uri": "/", "address": "", "headers": {}}
    before = REQUEST.set("somebody-else")
    bench.post(Fact(FactKind.CREATED, "u", 0.0, {"request": {**told, "id": "abc"}}))
    bench.post(Fact(FactKind.EXPIRED, "v", 0.0, {}))
    bench.post(Fact(FactKind.CREATED, "w", 0.0, {"request": told}))  # written before there were ids
    REQUEST.reset(before)
    bench.run(5)
    assert sorted(seen) == ["", "", "abc"]


class Header(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        return (request.getHeader("x-request-id") or "none").encode()


@pytest_twisted.ensureDeferred
async def test_requests_to_stores_and_hooks_carry_the_id_as_a_header() -> None:
    port = reactor.listenTCP(0, Site(Header()), interface="127.0.0.1")
    http = Http(reactor, HttpLimits(), clock=Clock())
    url = f"http://127.0.0.1:{port.getHost().port}/"
    try:
        for name, answer in (("abc-1", b"abc-1"), ("", b"none")):
            before = REQUEST.set(name)
            found = await Deferred.fromCoroutine(http.request("GET", url, {}, None, largest=100))
            REQUEST.reset(before)
            assert found.body == answer
    finally:
        await http.close()
        await port.stopListening()

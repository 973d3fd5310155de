"""The relay of ``resumable dashboard``: it serves one browser, and no other page, name or program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from twisted.web.server import Site
from zope.interface import implementer

from resumable.cli.relay import Relay, owner_of_link
from tests.http.visitor import Reply

HOST = "Host: 127.0.0.1:4711"


class Body:
    """The daemon's side of an answer's body."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        self.events.append("stop")

    def loseConnection(self) -> None:
        self.events.append("lose")


class Told:
    """An answer of the daemon, whose body a test sends."""

    def __init__(self, code: int = 200, **fields: str) -> None:
        self.code = code
        self.headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
        self.body = Body()
        self.protocol: Any = None

    def deliverBody(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.makeConnection(self.body)

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def end(self) -> None:
        self.protocol.connectionLost(Failure(ResponseDone()))


@implementer(IAgent)
class Daemon:
    """Keeps what it is asked, and answers when a test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, Headers]] = []
        self.answers: list[Deferred[Any]] = []
        self.away = False

    def request(self, method: bytes, uri: bytes, headers: Headers | None = None, body: Any = None) -> Deferred[Any]:
        assert headers is not None and body is None
        self.asked.append((method, uri, headers))
        self.answers.append(fail(ConnectionRefusedError()) if self.away else Deferred())
        return self.answers[-1]


class Browser:
    def __init__(self, bearer: str | None = None) -> None:
        self.daemon = Daemon()
        self.owners: dict[tuple[int, int], int] = {}
        self.relay = Relay(self.daemon, "http://localhost", bearer, lambda *ports: self.owners.get(ports))
        self.relay.opened_at(4711)
        self.site = Site(self.relay, reactor=Clock())
        self.address = self.relay.url.removeprefix("http://127.0.0.1:4711")
        self.prefix = self.address.partition("/?")[0]
        self.cookie = ""

    def begin(self, path: str, *fields: str, method: str = "GET", host: str = HOST) -> tuple[Any, StringTransport]:
        channel, wire = self.site.buildProtocol(None), StringTransport()
        channel.makeConnection(wire)
        lines = [
            f"{method} {path} HTTP/1.1",
            host,
            "Content-Length: 0",
            *fields,
            *([self.cookie] if self.cookie else []),
        ]
        channel.dataReceived("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return channel, wire

    def ask(self, path: str, *fields: str, method: str = "GET", host: str = HOST) -> Reply:
        return Reply(self.begin(path, *fields, method=method, host=host)[1].value())

    def open(self) -> Reply:
        """As the browser does that the command has opened."""
        reply = self.ask(self.address, "Sec-Fetch-Site: none")
        (given,) = reply.all("Set-Cookie")
        self.cookie = f"Cookie: {given.partition(';')[0]}"
        return reply


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def inside(browser: Browser) -> Browser:
    browser.open()
    return browser


def test_the_address_becomes_a_cookie_that_neither_scripts_nor_other_sites_get(browser: Browser) -> None:
    reply = browser.open()
    assert (reply.status, reply.get("Location")) == (303, f"{browser.prefix}/dashboard/")
    cookie = reply.get("Set-Cookie") or ""
    assert cookie.endswith(f"; Path={browser.prefix}/; HttpOnly; SameSite=Strict")
    assert (reply.get("Cache-Control"), reply.get("Referrer-Policy")) == ("no-store", "no-referrer")


def test_another_user_who_has_seen_the_address_of_a_browser_cant_open_it(browser: Browser) -> None:
    browser.relay.users = {1000, 0}
    browser.owners[54321, 4711] = 1001
    refused = browser.ask(browser.address)
    assert refused.status == 403 and refused.all("Set-Cookie") == []
    browser.owners[54321, 4711] = 1000
    assert browser.open().status == 303


def test_where_the_system_doesnt_say_whose_a_connection_is_the_address_is_enough(browser: Browser) -> None:
    browser.relay.users = {1000}
    assert browser.open().status == 303


def test_whose_a_connection_is_is_in_a_table_of_the_system(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1267 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 1 1\n"
        "   1: 0100007F:1267 0100007F:D431 01 00000000:00000000 00:00000000 00000000     7        0 2 1\n"
        "   2: 0100007F:D431 0100007F:1267 01 00000000:00000000 00:00000000 00000000  1001        0 3 1\n"
    )
    assert owner_of_link(54321, 4711, table) == 1001
    assert owner_of_link(54322, 4711, table) is None
    assert owner_of_link(54321, 4711, tmp_path / "none") is None


def test_the_address_is_good_once(browser: Browser) -> None:
    browser.open()
    browser.cookie = ""
    again = browser.ask(browser.address)
    assert again.status == 403 and again.all("Set-Cookie") == []


@pytest.mark.parametrize("query", ["?token=", "?token=x", "?token=a&token=b", "?token"])
def test_a_wrong_token_is_refused_and_the_right_one_stays_good(browser: Browser, query: str) -> None:
    assert browser.ask(f"{browser.prefix}/{query}").status == 403
    assert browser.open().status == 303


def test_without_the_cookie_nothing_is_passed_on(browser: Browser) -> None:
    for cookie in ("", "Cookie: resumable-dashboard=", "Cookie: resumable-dashboard=x"):
        browser.cookie = cookie
        for method in ("GET", "PUT", "DELETE"):
            assert browser.ask(f"{browser.prefix}/v1/drain", method=method).status == 403
    assert browser.daemon.asked == []


@pytest.mark.parametrize(
    "host",
    [
        "Host: evil.example",
        "Host: evil.example:4711",
        "Host: 127.0.0.1",
        "Host: 127.0.0.1:4712",
        "Host: localhost:4711",
        "X: y",
    ],
)
def test_another_name_that_leads_here_gets_nothing(inside: Browser, host: str) -> None:
    assert inside.ask(f"{inside.prefix}/v1/status", host=f"Host: {host}").status == 421
    assert inside.daemon.asked == []


@pytest.mark.parametrize(
    "fields",
    [
        ["Origin: https://evil.example"],
        ["Origin: null"],
        ["Origin: http://127.0.0.1:4712"],
        ["Origin: http://127.0.0.1:4711", "Origin: https://evil.example"],
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: same-site"],
        ["Origin: http://127.0.0.1:4711", "Sec-Fetch-Site: cross-site"],
    ],
)
def test_a_page_of_another_site_gets_nothing(inside: Browser, fields: Sequence[str]) -> None:
    assert inside.ask(f"{inside.prefix}/v1/drain", *fields, method="PUT").status == 403
    assert inside.daemon.asked == []


def test_a_foreign_page_can_t_use_the_address_up(browser: Browser) -> None:
    assert browser.ask(browser.address, "Sec-Fetch-Site: cross-site").status == 403
    assert browser.open().status == 303


@pytest.mark.parametrize("path", ["/", "/v1/status", "/dashboard/", "/x/v1/status"])
def test_what_is_not_below_its_path_is_not_there(inside: Browser, path: str) -> None:
    assert inside.ask(path).status == 404


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/metrics"), ("GET", "/admin/v1/status"), ("PATCH", "/v1/status"), ("GET", "/v1")]
)
def test_only_the_dashboard_and_the_api_are_passed_on(inside: Browser, method: str, path: str) -> None:
    assert inside.ask(inside.prefix + path, method=method).status == 404
    assert inside.daemon.asked == []


def test_the_daemon_gets_the_request_without_what_is_the_relay_s(inside: Browser) -> None:
    inside.begin(
        f"{inside.prefix}/v1/uploads?state=any",
        *("Origin: http://127.0.0.1:4711", "Sec-Fetch-Site: same-origin", "Accept: text/event-stream"),
        *("Referer: http://127.0.0.1:4711/x", "Authorization: Bearer y"),
    )
    ((method, uri, headers),) = inside.daemon.asked
    assert (method, uri) == (b"GET", b"http://localhost/v1/uploads?state=any")
    assert {name.lower(): values for name, values in headers.getAllRawHeaders() if values} == {
        b"accept": [b"text/event-stream"]
    }


def test_the_token_of_the_api_is_added_and_never_shown() -> None:
    browser = Browser("s3cret-s3cret-s3cret")
    opened = browser.open()
    browser.begin(f"{browser.prefix}/v1/drain", method="PUT")
    ((_, _, headers),) = browser.daemon.asked
    assert headers.getRawHeaders(b"authorization") == [b"Bearer s3cret-s3cret-s3cret"]
    assert "s3cret" not in browser.address + str(opened.fields)


def test_an_answer_goes_through_as_it_comes(inside: Browser) -> None:
    _, wire = inside.begin(f"{inside.prefix}/v1/uploads")
    told = Told(content_type="text/event-stream", cache_control="no-store", set_cookie="a=b", server="x")
    inside.daemon.answers[0].callback(told)
    assert b"\r\n\r\n" in wire.value(), "its head goes out before any event"
    reply = Reply(wire.value())
    assert (reply.status, reply.get("Content-Type"), reply.all("Set-Cookie")) == (200, "text/event-stream", [])
    wire.clear()
    told.send(b"event: x\n\n")
    assert b"event: x" in wire.value()
    told.end()
    assert wire.value().endswith(b"0\r\n\r\n")


def test_a_browser_that_reads_slowly_slows_the_daemon_down(inside: Browser) -> None:
    _, wire = inside.begin(f"{inside.prefix}/v1/uploads")
    told = Told()
    inside.daemon.answers[0].callback(told)
    wire.producer.pauseProducing()  # type: ignore[union-attr]
    wire.producer.resumeProducing()  # type: ignore[union-attr]
    assert told.body.events == ["pause", "resume"]


def test_when_the_browser_has_gone_the_daemon_is_asked_no_more(inside: Browser) -> None:
    channel, _ = inside.begin(f"{inside.prefix}/v1/uploads")
    told = Told()
    inside.daemon.answers[0].callback(told)
    channel.connectionLost(Failure(ResponseDone()))
    assert "lose" in told.body.events
    told.end()


def test_an_answer_that_breaks_off_doesn_t_look_complete(inside: Browser) -> None:
    _, wire = inside.begin(f"{inside.prefix}/v1/uploads")
    told = Told()
    inside.daemon.answers[0].callback(told)
    told.send(b"a part")
    told.protocol.connectionLost(Failure(RuntimeError("reset")))
    assert wire.disconnecting and not wire.value().endswith(b"0\r\n\r\n")


def test_a_daemon_that_is_away_is_told_of(inside: Browser) -> None:
    inside.daemon.away = True
    reply = inside.ask(f"{inside.prefix}/v1/uploads")
    assert reply.status == 502 and b"doesn't answer" in reply.body

"""The dashboard's files, the last hour in figures, and which pages may ask the admin API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from resumable.auth.secret import Secret
from resumable.http.admin import dashboard
from resumable.http.admin.api import Admin, AdminServices, SocketAuth, TokenAuth
from resumable.http.admin.dashboard import NAMES, Dashboard
from resumable.http.admin.history import COUNTS, EVERY, LEVELS, POINTS, RATES, Figures, History
from resumable.http.admission import Admission
from resumable.http.origin import Origin
from resumable.http.site import StreamingSite
from tests.http.admin_rig import NoMetrics, Office
from tests.http.visitor import Reply, serving
from tests.uploads.harness import Server

ASSETS = Path(dashboard.__file__).parent / "assets"
TOKEN = "0123456789abcdef"
BEARER = f"Authorization: Bearer {TOKEN}"


def ask(path: str, *fields: str, method: str = "GET") -> Reply:
    services = AdminServices(NoMetrics(), None, None, None, dashboard=Dashboard())  # type: ignore[arg-type]
    site = StreamingSite(Admin(services, SocketAuth()).resource, reactor=Clock())
    channel, wire = site.buildProtocol(None), StringTransport()
    channel.makeConnection(wire)
    channel.dataReceived("\r\n".join([f"{method} {path} HTTP/1.1", "Host: t", *fields, "", ""]).encode())
    return Reply(wire.value())


# The page


@pytest.mark.parametrize("name", ["", *NAMES])
def test_its_files_are_there_and_run_nothing_from_elsewhere(name: str) -> None:
    reply = ask(f"/dashboard/{name}")
    assert reply.status == 200 and reply.body == (ASSETS / (name or "index.html")).read_bytes()
    policy = reply.get("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert reply.get("X-Content-Type-Options") == "nosniff" and reply.get("Cache-Control") == "no-cache"


def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    etag = ask("/dashboard/main.js").get("ETag")
    again = ask("/dashboard/main.js", f"If-None-Match: {etag}")
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["/", "/dashboard"])
def test_the_listener_leads_to_it(path: str) -> None:
    reply = ask(path)
    assert (reply.status, reply.get("Location")) == (308, "/dashboard/")


@pytest.mark.parametrize(
    "path", ["/dashboard/x.js", "/dashboard/../api.py", "/dashboard/%2e%2e/__init__.py", "/dashboard/__init__.py"]
)
def test_nothing_else_is_there(path: str) -> None:
    assert ask(path).status == 404


def test_it_can_only_be_read() -> None:
    assert ask("/dashboard/", "Content-Length: 0", method="POST").status == 405


def test_the_files_are_all_that_there_are_and_small() -> None:
    assert {each.name for each in ASSETS.iterdir()} == set(NAMES)
    assert sum(each.stat().st_size for each in ASSETS.iterdir()) <= 100_000


def test_the_page_has_neither_code_nor_style_nor_addresses_of_others_in_it() -> None:
    page = (ASSETS / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*src=)|style=|\son\w+=|javascript:", page) == []
    for each in ASSETS.iterdir():
        assert set(re.findall(r"https?://[^\s\"'`)]+", each.read_text())) <= {"http://www.w3.org/2000/svg"}


def test_no_text_of_an_upload_can_become_html() -> None:
    for each in ASSETS.glob("*.js"):
        text = each.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)


# Which pages may ask


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def by_token(server: Server, token: str | None = TOKEN) -> Office:
    secret = None if token is None else Secret(token.encode())
    return Office(server, TokenAuth(secret, Admission(Origin("/files/", None, []))))


OWN = ["Origin: http://t", "Sec-Fetch-Site: same-origin"]


def test_a_page_from_here_may_ask_with_the_token(server: Server) -> None:
    assert by_token(server).ask("PUT", "/v1/drain", *OWN, BEARER).status == 200
    assert by_token(server).ask("PUT", "/v1/drain", "Origin: https://t", BEARER).status == 200
    assert server.context.drain.since is not None


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_page_from_here_may_nothing_without_the_token(server: Server, method: str) -> None:
    assert by_token(server).refused(method, "/v1/drain", *OWN)[0] == 401
    assert by_token(server).refused(method, "/v1/drain", *OWN, BEARER + "x")[0] == 401
    assert by_token(server, None).refused(method, "/v1/drain", *OWN, BEARER)[0] == 403
    assert server.context.drain.since is None


@pytest.mark.parametrize(
    "fields",
    [
        ["Origin: http://evil.example"],
        ["Origin: http://t:81"],
        ["Origin: http://t.evil.example"],
        ["Origin: null"],
        ["Origin: "],
        ["Origin: ftp://t"],
        ["Origin: http://t", "Origin: http://evil.example"],
        ["Origin: http://t", "Sec-Fetch-Site: same-site"],
        ["Origin: http://t", "Sec-Fetch-Site: cross-site"],
    ],
)
def test_a_page_from_elsewhere_may_nothing_even_with_the_token(server: Server, fields: list[str]) -> None:
    assert by_token(server).refused("PUT", "/v1/drain", *fields, BEARER)[0] == 403
    assert server.context.drain.since is None


def test_where_the_socket_lets_in_no_page_may_ask_not_even_one_from_here(server: Server) -> None:
    assert Office(server).refused("PUT", "/v1/drain", *OWN)[0] == 403
    assert server.context.drain.since is None


# The last hour


class Gauges:
    """A process whose figures a test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.figures: dict[str, float | None] = dict.fromkeys((*RATES, *COUNTS, *LEVELS), 0)
        self.history = History(self.clock, lambda: 1_700_000_000 + self.clock.seconds(), self._look)

    async def _look(self) -> Figures:
        return dict(self.figures)

    def point(self, **figures: float | None) -> None:
        self.figures.update(figures)
        self.clock.advance(EVERY)


def test_what_grows_is_told_by_the_second_or_by_the_point_and_the_rest_as_it_is() -> None:
    gauges = Gauges()
    gauges.history.start()
    gauges.point(received=1000, failed=3, free=7)
    gauges.point(received=1500, failed=3, free=9)
    told = gauges.history.document()
    assert (told["received"], told["failed"], told["free"]) == ([100, 50], [3, 0], [7, 9])
    assert told["at"] == ["2023-11-14T22:13:30.000Z", "2023-11-14T22:13:40.000Z"]


def test_an_hour_is_kept_and_no_more() -> None:
    gauges = Gauges()
    gauges.history.start()
    for number in range(POINTS + 10):
        gauges.point(lag=number)
    told = gauges.history.document()
    assert len(told["at"]) == told["most"] == POINTS == 3600 / told["interval"]
    assert told["lag"][-1] == POINTS + 9


def test_what_is_not_known_is_null() -> None:
    gauges = Gauges()
    gauges.history.start()
    gauges.point(free=None, received=None)
    gauges.point(received=100)
    assert gauges.history.document()["free"] == [None, None]
    assert gauges.history.document()["received"] == [None, None]


def test_nothing_is_taken_after_the_stop() -> None:
    gauges = Gauges()
    gauges.history.start()
    gauges.history.stop()
    gauges.point()
    assert gauges.history.document()["at"] == [] and not gauges.clock.getDelayedCalls()


def test_the_hour_is_described(server: Server) -> None:
    office = Office(server)
    gauges = Gauges()
    gauges.history.start()
    gauges.point(received=5, free=None)
    office.admin._services = evolve(office.admin._services, history=gauges.history)
    assert office.told("GET", "/v1/history")["interval"] == EVERY

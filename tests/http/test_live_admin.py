"""The admin API's events: one upload, lists, the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from resumable.http.live import EVERY
from tests.http.admin_rig import Office
from tests.http.event_stream import ACCEPT, parsed, unchunked
from tests.http.visitor import serving
from tests.uploads.fakes import FakeReplication
from tests.uploads.harness import Server

DATA = b"0123456789"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(replication=FakeReplication(("far",), ("near",))) as server:
        yield server


@pytest.fixture
def office(server: Server) -> Office:
    return Office(server)


class Screen:
    """An operator's stream."""

    def __init__(self, office: Office, target: str) -> None:
        self.office, self.wire = office, StringTransport()
        channel = office.site.buildProtocol(None)
        channel.makeConnection(self.wire)
        channel.dataReceived(f"GET {target} HTTP/1.1\r\nHost: t\r\n{ACCEPT}\r\n\r\n".encode())
        office.server.pump()
        self.head, _, rest = self.wire.value().partition(b"\r\n\r\n")
        self.first = parsed(unchunked(rest)) if b"chunked" in self.head else []
        self.wire.clear()

    def comes(self) -> list[tuple[str, Any]]:
        self.office.server.advance(EVERY)
        data = self.wire.value()
        self.wire.clear()
        return parsed(unchunked(data))


def test_a_list_is_its_page_then_the_rows_that_change(office: Office, server: Server) -> None:
    first, second = server.upload(length=10), server.upload(length=20)
    screen = Screen(office, "/v1/uploads")
    assert screen.first == [("uploads", office.told("GET", "/v1/uploads"))]
    assert screen.comes() == []
    server.patch(second, 0, DATA[:3])
    ((name, row),) = screen.comes()
    assert (name, row["id"], row["offset"]) == ("upload", second, 3)
    third = server.upload(length=30)
    ((name, row),) = screen.comes()
    assert (name, row["id"]) == ("upload", third)
    assert office.ask("DELETE", f"/v1/uploads/{first}").status == 204
    assert screen.comes() == [("gone", {"id": first})]


def test_a_list_heeds_its_filters(office: Office, server: Server) -> None:
    upload_id = server.upload(length=10)
    screen = Screen(office, "/v1/uploads?state=uploading&min_size=10")
    assert [row["id"] for row in screen.first[0][1]["uploads"]] == [upload_id]
    server.upload(length=9)
    assert screen.comes() == []
    server.patch(upload_id, 0, DATA)
    assert screen.comes() == [("gone", {"id": upload_id})]


def test_a_list_that_is_not_understood_is_refused(office: Office) -> None:
    assert b" 400 " in Screen(office, "/v1/uploads?sate=any").head


def test_one_upload_is_watched_until_it_is_gone(office: Office, server: Server) -> None:
    upload_id = server.upload(length=10)
    screen = Screen(office, f"/v1/uploads/{upload_id}")
    assert screen.first == [("upload", office.told("GET", f"/v1/uploads/{upload_id}"))]
    server.patch(upload_id, 0, DATA)
    assert [row["state"] for _, row in screen.comes()] == ["finished"]
    server.store(upload_id)
    assert [row["state"] for _, row in screen.comes()] == ["stored"]
    assert office.ask("DELETE", f"/v1/uploads/{upload_id}").status == 204
    (name, row), end = screen.comes()
    assert (name, row["gone"]) == ("upload", "terminated") and end == ("end", {"state": "gone"})


def test_an_upload_that_is_not_known_is_not_found(office: Office) -> None:
    assert b" 404 " in Screen(office, f"/v1/uploads/{'f' * 32}").head


def test_the_daemon_is_told_of_when_more_than_the_time_has_changed(office: Office, server: Server) -> None:
    screen = Screen(office, "/v1/status")
    ((name, document),) = screen.first
    assert name == "status" and document["draining"] is False
    assert screen.comes() == []
    office.told("PUT", "/v1/drain")
    ((name, document),) = screen.comes()
    assert name == "status" and document["draining"] is True

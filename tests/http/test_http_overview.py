"""How the daemon is, as operators are told, and its drain."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from resumable.uploads.operators import FRESH
from tests.http.admin_rig import Office
from tests.http.visitor import Client, serving
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(replication=FakeReplication(("far",), ("near",))) as server:
        yield server


@pytest.fixture
def office(server: Server) -> Office:
    return Office(server)


def test_the_status_is_that_of_the_moment(office: Office, server: Server) -> None:
    server.upload(b"0123456789")
    server.delete(server.upload(length=5))
    running = server.upload(length=5)
    server.patch(running, 0, FakeBody(5))
    server.advance(2.5)
    told = office.told("GET", "/v1/status")
    assert (told["version"], told["uptime"], told["ready"], told["draining"]) == ("1.2.3", 2.5, True, False)
    assert told["uploads"] == {"uploading": 1, "assembling": 0, "finished": 1, "stored": 0, "gone": 1}
    assert told["since_start"] == {"created": 3, "finished": 1, "gone": 1}
    assert told["appending"] == 1
    assert told["spool"] == {"free": 1000, "used": 500, "reserve": 0, "queued": 0}
    assert [each["name"] for each in told["remotes"]] == ["far", "near"]


def test_uploads_are_counted_now_and_then_only(office: Office, server: Server) -> None:
    assert office.told("GET", "/v1/status")["uploads"]["uploading"] == 0
    server.upload(length=5)
    server.advance(FRESH - 1)
    assert office.told("GET", "/v1/status")["uploads"]["uploading"] == 0
    server.advance(1)
    office.told("GET", "/v1/status")
    assert office.told("GET", "/v1/status")["uploads"]["uploading"] == 1


def test_a_disk_that_does_not_tell_is_not_known(office: Office) -> None:
    office.disk = OSError()
    assert office.told("GET", "/v1/status")["spool"]["free"] is None


def test_each_remote_is_told_with_what_it_lacks(office: Office, server: Server) -> None:
    server.upload(b"0123456789")
    far, near = office.told("GET", "/v1/remotes")["remotes"]
    assert (far["state"], far["next_try"], near["state"], near["next_try"]) == ("up", None, "down", 3.5)
    assert far["lag"] == {"bytes": 700, "seconds": 60.0}
    assert far["replicas"] == {"open": 1, "stored": 0, "parked": 0, "ending": 0}
    assert far["since_start"]["failures"] == {"Unreachable": 2}


# Drain


def test_while_it_drains_nothing_begins_and_what_has_begun_goes_on(office: Office, server: Server) -> None:
    client = Client(server)
    first, second = server.upload(length=5, partial=True), server.upload(b"12345", partial=True)
    assert office.told("PUT", "/v1/drain")["unfinished"] == 2
    refused = client.ask("POST", "/files/", "Upload-Length: 5")
    assert (refused.status, refused.get("Retry-After")) == (503, "5")
    assert server.patch(first, 0, b"12345").value.offset == 5
    assert server.head(first).value.offset == 5
    final = client.ask("POST", "/files/", f"Upload-Concat: final;/files/{first} /files/{second}")
    assert final.status == 201
    assert office.told("DELETE", "/v1/drain")["draining"] is False
    assert client.ask("POST", "/files/", "Upload-Length: 5").status == 201


def test_a_drain_tells_what_is_left(office: Office, server: Server) -> None:
    office.told("PUT", "/v1/drain")
    office.told("DELETE", "/v1/drain")
    upload_id = server.upload(length=5)
    server.patch(upload_id, 0, FakeBody(5))
    told = office.told("PUT", "/v1/drain")
    assert (told["unfinished"], told["appending"], told["replicas"]) == (1, 1, {"far": 1, "near": 1})
    server.delete(upload_id)
    left = office.told("GET", "/v1/drain")
    assert (left["unfinished"], left["appending"]) == (0, 0)
    assert left["replicas"] == {"far": 1, "near": 1}, "what was sent has to be removed there"


def test_a_drain_that_is_asked_for_again_is_the_same(office: Office, server: Server) -> None:
    since = office.told("PUT", "/v1/drain")["since"]
    server.advance(10.0)
    assert office.told("PUT", "/v1/drain")["since"] == since


def test_a_balancer_sees_a_drain_at_once(office: Office) -> None:
    assert office.ask("GET", "/readyz").status == 200
    office.told("PUT", "/v1/drain")
    reply = office.ask("GET", "/readyz")
    assert (reply.status, json.loads(reply.body)["wrong"]) == (503, {"drain": "no upload may begin"})
    office.told("DELETE", "/v1/drain")
    assert office.ask("GET", "/readyz").status == 200

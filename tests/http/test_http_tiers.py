"""What HTTP says of two tiers: bytes that are withheld, clients that are paused, files that are elsewhere, status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from resumable.auth.guard import AccessGuard
from resumable.auth.interfaces import AuthRequest
from resumable.http.admission import Admission
from resumable.http.origin import Origin
from resumable.model.principal import Principal
from resumable.model.upload import ReplicaState
from resumable.protocol import metadata
from resumable.uploads.limits import UploadLimits
from tests.http.visitor import Client, created, new, serving
from tests.uploads.fakes import FakeReplication
from tests.uploads.harness import EPOCH, LONG, Server, pattern

DATA = b"0123456789"
ORIGIN = "https://app.example"


@pytest.fixture
def remote() -> FakeReplication:
    return FakeReplication()


@pytest.fixture
def server(remote: FakeReplication) -> Iterator[Server]:
    limits = UploadLimits(expire_after=3600.0, ack_timeout=20.0, max_pause=30.0, retry_after=7)
    with serving(replication=remote, limits=limits) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


# bytes that are withheld


def test_until_it_is_stored_every_answer_has_the_offset_length_minus_one(client: Client, remote: Any) -> None:
    remote.acknowledges = True
    upload_id = new(client)
    client.patch(upload_id, 0, DATA)
    assert client.reply() is None
    client.server.advance(20.0)
    late = client.reply()
    assert late is not None and late.status == 503
    assert late.get("Retry-After") == "7" and late.get("Content-Type") == "application/problem+json"

    seen = client.ask("HEAD", f"/files/{upload_id}")
    assert (seen.status, seen.get("Upload-Offset"), seen.get("Upload-Length")) == (200, "9", "10")
    assert seen.get("Upload-Expires") is None

    client.patch(upload_id, 9, b"")
    empty = client.reply()
    assert empty is not None and (empty.status, empty.get("Upload-Offset")) == (204, "9")
    assert empty.get("Upload-Expires") is None

    client.patch(upload_id, 10, b"")
    wrong = client.reply()
    assert wrong is not None and (wrong.status, wrong.get("Upload-Offset")) == (409, "9")

    client.patch(upload_id, 9, b"x")
    other = client.reply()
    assert other is not None and (other.status, other.get("Upload-Offset")) == (409, "9")

    client.patch(upload_id, 9, b"9")
    assert client.reply() is None
    client.server.store(upload_id)
    stored = client.reply()
    assert stored is not None and (stored.status, stored.get("Upload-Offset")) == (204, "10")
    assert client.ask("HEAD", f"/files/{upload_id}").get("Upload-Offset") == "10"


def test_a_creation_with_all_bytes_is_201_with_location_and_that_offset(client: Client, remote: Any) -> None:
    remote.acknowledges = True
    kind = "Content-Type: application/offset+octet-stream"
    client.begin("POST", "/files/", "Upload-Length: 10", kind, body=DATA)
    assert client.reply() is None
    client.server.advance(20.0)
    reply = client.reply()
    assert reply is not None and (reply.status, reply.get("Upload-Offset")) == (201, "9")
    assert reply.get("Upload-Expires") is None
    assert client.ask("HEAD", f"/files/{created(reply)}").get("Upload-Offset") == "9"


def test_a_zero_length_creation_is_503_with_location(client: Client, remote: Any) -> None:
    remote.acknowledges = True
    client.begin("POST", "/files/", "Upload-Length: 0")
    client.server.advance(20.0)
    reply = client.reply()
    assert reply is not None and reply.status == 503 and reply.get("Retry-After") == "7"
    assert client.ask("HEAD", f"/files/{created(reply)}").get("Upload-Offset") == "0"


@pytest.mark.parametrize("size", [0, 10])
def test_a_final_has_no_upload_offset_until_it_is_stored(client: Client, remote: Any, size: int) -> None:
    remote.acknowledges = True
    part = client.server.upload(DATA[:size], partial=True)
    asked = f"Upload-Concat: final;http://host/files/{part}?token=secret"
    client.begin("POST", "/files/", asked)
    client.server.advance(30.0)
    reply = client.reply()
    assert reply is not None and reply.status == 503 and reply.get("Retry-After") == "7"
    assert reply.get("Upload-Offset") is None and reply.get("Upload-Concat") == f"final;/files/{part}"
    final = created(reply)
    seen = client.ask("HEAD", f"/files/{final}")
    assert seen.status == 200 and seen.get("Upload-Offset") is None and seen.get("Upload-Expires") is None
    client.server.store(final)
    assert client.ask("HEAD", f"/files/{final}").get("Upload-Offset") == str(size)
    again = client.ask("POST", "/files/", asked)
    assert (again.status, created(again), again.get("Upload-Offset")) == (201, final, str(size))
    assert again.get("Upload-Concat") == f"final;/files/{part}"


def test_an_upload_that_is_deleted_meanwhile_is_410(client: Client, remote: Any) -> None:
    remote.acknowledges = True
    upload_id = new(client)
    client.patch(upload_id, 0, DATA)
    assert Client(client.server).ask("DELETE", f"/files/{upload_id}").status == 204
    reply = client.reply()
    assert reply is not None and reply.status == 410


def test_a_connection_that_is_lost_leaves_no_wait_behind(client: Client, remote: Any) -> None:
    remote.acknowledges = True
    upload_id = new(client)
    client.patch(upload_id, 0, DATA)
    assert remote.waits == 1
    client.channel.connectionLost(Failure(ConnectionLost()))
    client.server.pump()
    assert remote.waits == 0 and not client.server.clock.getDelayedCalls()


# clients that are paused


def test_creations_are_refused_before_the_body(client: Client, remote: Any) -> None:
    remote.lagging = True
    kind = "Content-Type: application/offset+octet-stream"
    client.begin("POST", "/files/", "Upload-Length: 10", kind, "Content-Length: 10", "Expect: 100-continue")
    reply = client.reply()
    assert reply is not None and reply.status == 503 and reply.get("Retry-After") == "7"
    assert reply.get("Location") is None and reply.get("Connection") == "close"


def test_a_pause_closes_the_window_and_none_of_the_guards_counts_it(client: Client, remote: Any) -> None:
    """Neither the idle time-out nor the least rate: 60 seconds of them pass here in pauses of less than 30."""
    data = pattern(6 * LONG)
    upload_id = new(client, len(data))
    client.patch(upload_id, 0, data[:LONG], f"Content-Length: {len(data)}")
    for start in range(LONG, len(data), LONG):
        remote.lagging = True
        client.send(data[start : start + 1000])
        assert client.wire.producerState == "paused"
        client.server.advance(29.0)
        assert client.reply() is None
        remote.catch_up()
        client.server.pump()
        assert client.wire.producerState == "producing"
        client.send(data[start + 1000 : start + LONG])
    reply = client.reply()
    assert reply is not None and (reply.status, reply.get("Upload-Offset")) == (204, str(len(data)))


def test_a_pause_over_30_s_commits_answers_503_and_closes(client: Client, remote: Any) -> None:
    upload_id = new(client, 4 * LONG)
    client.patch(upload_id, 0, pattern(LONG), f"Content-Length: {4 * LONG}")
    remote.lagging = True
    client.send(b"x")
    client.server.advance(30.0)
    reply = client.reply()
    assert reply is not None and reply.status == 503 and reply.get("Retry-After") == "7"
    assert reply.get("Connection") == "close"
    assert Client(client.server).ask("HEAD", f"/files/{upload_id}").get("Upload-Offset") == str(LONG + 1)


def test_the_connection_is_closed_even_if_the_whole_body_has_come(client: Client, remote: Any) -> None:
    upload_id = new(client)
    remote.lagging = True
    client.patch(upload_id, 0, DATA)
    client.server.advance(30.0)
    reply = client.reply()
    assert reply is not None and reply.status == 503 and reply.get("Connection") == "close"


# files that are elsewhere


@pytest.fixture
def dropped(server: Server) -> str:
    upload_id = server.upload(DATA)
    server.store(upload_id)
    server.drop(upload_id)
    server.sweep()
    return upload_id


def test_a_dropped_upload_is_there_and_its_file_is_not(client: Client, dropped: str) -> None:
    seen = client.ask("HEAD", f"/files/{dropped}")
    assert (seen.status, seen.get("Upload-Offset")) == (200, "10")
    assert client.ask("DELETE", f"/files/{dropped}").status == 204
    assert client.ask("HEAD", f"/files/{dropped}").status == 410


# status


def status(client: Client, upload_id: str) -> dict[str, Any]:
    reply = client.ask("GET", f"/files/{upload_id}/status", tus=False)
    assert (reply.status, reply.get("Content-Type"), reply.get("Cache-Control")) == (
        200,
        "application/json",
        "no-store",
    )
    found: dict[str, Any] = json.loads(reply.body)
    return found


def test_the_status_of_an_upload_is_json(client: Client) -> None:
    encoded = metadata.encode({"filename": "ä.txt", "blob": b"\xff"})
    upload_id = new(client, 10, f"Upload-Metadata: {encoded}")
    client.patch(upload_id, 0, b"01234")
    client.reply()
    assert status(client, upload_id) == {
        "id": upload_id,
        "state": "uploading",
        "length": 10,
        "received": 5,
        "durable": 5,
        "offset": 5,
        "created_at": "2023-11-14T22:13:20.000Z",
        "finished_at": None,
        "stored_at": None,
        "expires_at": "2023-11-14T23:13:20.000Z",
        "metadata": {"filename": "ä.txt", "blob": {"base64": "/w=="}},
        "local": "here",
        "protocol": "tus",
        "announced": None,
        "digest": None,
        "replicas": [
            {
                "required": True,
                "state": "open",
                "sent": 0,
                "confirmed": 0,
                "lag": 5,
                "stored_at": None,
                "trouble": None,
            }
        ],
    }


def test_the_status_of_a_stored_and_dropped_upload(client: Client, dropped: str) -> None:
    found = status(client, dropped)
    assert (found["state"], found["local"], found["stored_at"]) == ("stored", "dropped", "2023-11-14T22:13:20.000Z")
    (replica,) = found["replicas"]
    assert (replica["state"], replica["confirmed"], replica["lag"]) == ("stored", 10, 0)


SAID = "AccessDenied: arn:aws:iam::123456789012:user/up may not s3:PutObject"


@pytest.mark.parametrize(("state", "trouble"), [(ReplicaState.OPEN, "retrying"), (ReplicaState.PARKED, "failed")])
def test_of_a_failing_replica_strangers_are_told_that_it_fails_and_nothing_else(
    client: Client, state: ReplicaState, trouble: str
) -> None:
    """Names of buckets, keys, accounts, and what a store says, are for operators."""
    upload_id = client.server.upload(DATA)
    fail(client.server, upload_id, state)
    (replica,) = status(client, upload_id)["replicas"]
    assert (replica["state"], replica["trouble"]) == (state.value, trouble)
    text = client.ask("GET", f"/files/{upload_id}/status", tus=False).body.decode()
    for word in ("far", "a/secret/key", "AccessDenied", "arn:", "123456789012", "retry_at", "location"):
        assert word not in text


def fail(server: Server, upload_id: str, state: ReplicaState) -> None:
    failing = evolve(
        server.replicas(upload_id)["far"], key="a/secret/key", attempts=2, error=SAID, retry_at=EPOCH + 0.5
    )
    assert server.ask(server.catalog.replicas.advance(failing)).value
    if state is ReplicaState.PARKED:
        assert server.ask(server.catalog.replicas.park(failing, SAID, EPOCH)).value


def test_an_admin_is_told_all_of_it(server: Server) -> None:
    """At the same address, with credentials that make an admin."""
    upload_id = server.upload(DATA)
    fail(server, upload_id, ReplicaState.OPEN)

    class Authorizer:
        def authorize(self, ask: AuthRequest) -> Deferred[Principal]:
            return succeed(Principal(ask.one("x-who") or ""))

    guard = AccessGuard(Authorizer(), server.catalog.owner_of, lambda: EPOCH, admins=frozenset({"root"}))
    client = Client(server, admission=Admission(Origin("/files/", None, []), guard))
    told = {
        who: json.loads(client.ask("GET", f"/files/{upload_id}/status", f"X-Who: {who}", tus=False).body)
        for who in ("ann", "root")
    }
    assert SAID not in json.dumps(told["ann"]) and "remote" not in told["ann"]["replicas"][0]
    (replica,) = told["root"]["replicas"]
    assert (replica["remote"], replica["key"], replica["error"]) == ("far", "a/secret/key", SAID)
    assert (replica["attempts"], replica["retry_at"]) == (2, "2023-11-14T22:13:20.500Z")


def test_the_status_of_what_is_not_there(client: Client) -> None:
    gone = client.server.upload(DATA)
    client.server.delete(gone)
    for upload_id, expected in ((gone, 410), ("0" * 32, 404), ("..", 404)):
        reply = client.ask("GET", f"/files/{upload_id}/status", tus=False)
        assert reply.status == expected and reply.get("Content-Type") == "application/problem+json"


def test_the_status_is_asked_for_without_tus_resumable_and_across_origins(client: Client) -> None:
    upload_id = new(client)
    reply = client.ask("GET", f"/files/{upload_id}/status", f"Origin: {ORIGIN}", tus=False)
    assert reply.status == 200 and reply.get("Access-Control-Allow-Origin") == "*"
    preflight = client.ask(
        "OPTIONS", f"/files/{upload_id}/status", f"Origin: {ORIGIN}", "Access-Control-Request-Method: GET", tus=False
    )
    assert preflight.status == 200 and "GET" in (preflight.get("Access-Control-Allow-Methods") or "")
    head = client.ask("HEAD", f"/files/{upload_id}/status", tus=False)
    assert head.status == 200 and head.body == b"" and int(head.get("Content-Length") or 0) > 100


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
def test_the_status_can_only_be_looked_at(client: Client, method: str) -> None:
    upload_id = new(client)
    reply = client.ask(method, f"/files/{upload_id}/status")
    assert reply.status == 405 and reply.get("Allow") == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE", "POST"])
def test_nothing_else_is_below_an_upload(client: Client, method: str) -> None:
    upload_id = new(client)
    for path in ("other", "Status", "status/more", "status%2Fmore"):
        assert client.ask(method, f"/files/{upload_id}/{path}").status == 404


def test_the_path_of_the_status_is_the_operators_choice(server: Server) -> None:
    client = Client(server, status_path="progress")
    upload_id = new(client)
    assert client.ask("GET", f"/files/{upload_id}/progress", tus=False).status == 200
    assert client.ask("GET", f"/files/{upload_id}/status", tus=False).status == 404


def test_the_status_needs_no_downloads(server: Server) -> None:
    client = Client(server, download=False)
    assert client.ask("GET", f"/files/{new(client)}/status", tus=False).status == 200

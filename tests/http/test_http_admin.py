"""The admin API: uploads found, shown, ended and tried again, and what is refused."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from resumable.http.admin.query import FILTERS
from resumable.model.principal import Principal
from resumable.model.upload import ReplicaState
from resumable.protocol import metadata
from tests.http.admin_rig import DOCUMENT, ROUTES, Office
from tests.http.visitor import serving
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import EPOCH, LONG, Server, pattern

DATA = b"0123456789"
UNKNOWN = "f" * 32


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(replication=FakeReplication(("far",), ("near",))) as server:
        yield server


@pytest.fixture
def office(server: Server) -> Office:
    return Office(server)


# The description


def test_the_description_is_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_route_is_described_and_nothing_else() -> None:
    routes = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in ROUTES.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {
        (path, method)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
        if method != "parameters"
    }
    assert described == routes


def test_the_description_is_served(office: Office) -> None:
    assert office.told("GET", "/v1/openapi.json") == json.loads(json.dumps(DOCUMENT))


# Looking


def test_uploads_are_listed_oldest_first(office: Office, server: Server) -> None:
    ids = [server.upload(length=5) for _ in range(3)]
    assert office.ids() == ids
    assert office.ids("order=newest") == ids[::-1]


def test_pages_follow_each_other_whatever_comes_and_goes(office: Office, server: Server) -> None:
    ids = [server.upload(length=5) for _ in range(5)]
    first = office.told("GET", "/v1/uploads?limit=2")
    assert [each["id"] for each in first["uploads"]] == ids[:2]
    for gone in (ids[1], ids[2]):
        server.delete(gone)
    new = server.upload(length=5)
    second = office.told("GET", f"/v1/uploads?limit=2&after={first['next']}")
    assert [each["id"] for each in second["uploads"]] == ids[3:]
    last = office.told("GET", f"/v1/uploads?limit=2&after={second['next']}")
    assert ([each["id"] for each in last["uploads"]], last["next"]) == ([new], None)


def test_pages_back_in_time_follow_each_other(office: Office, server: Server) -> None:
    ids = [server.upload(length=5) for _ in range(3)]
    first = office.told("GET", "/v1/uploads?limit=2&order=newest")
    server.upload(length=5)
    last = office.told("GET", f"/v1/uploads?limit=2&order=newest&after={first['next']}")
    assert [each["id"] for each in last["uploads"]] == [ids[0]]


def test_what_is_gone_is_shown_only_on_request(office: Office, server: Server) -> None:
    here, gone = server.upload(length=5), server.upload(length=5)
    server.delete(gone)
    assert office.ids() == [here]
    assert office.ids("state=gone") == [gone]
    assert office.ids("state=any") == [here, gone]
    shown = office.told("GET", f"/v1/uploads/{gone}")
    assert (shown["state"], shown["gone"], shown["gone_at"] is None) == ("gone", "terminated", False)
    assert shown["local"] is None and office.told("GET", f"/v1/uploads/{here}")["local"] == "here"


def test_uploads_are_found_by_what_became_of_them(office: Office, server: Server) -> None:
    uploading, finished, stored = server.upload(length=5), server.upload(DATA), server.upload(DATA)
    server.store(stored, "far")
    assert office.ids("state=uploading") == office.ids("state=unfinished") == [uploading]
    assert office.ids("state=finished") == [finished]
    assert office.ids("state=stored") == [stored]
    assert office.ids("state=assembling") == []
    assert office.ids("remote=far&replica=stored") == [stored]
    assert office.ids("replica=open&state=stored") == [stored], "near still lacks it"
    assert office.ids("remote=near&replica=stored") == []


def test_a_remote_that_there_has_never_been_is_no_filter(office: Office, server: Server) -> None:
    """Of one that isn't configured any more, what still has replicas there is found."""
    upload = server.upload(DATA)
    assert office.refused("GET", "/v1/uploads?remote=elsewhere")[0] == 400
    del office.queues["far"]
    assert office.ids("remote=far") == [upload]


def test_an_upload_is_found_by_the_beginning_of_its_id(office: Office, server: Server) -> None:
    ids = [server.upload(length=5) for _ in range(3)]
    assert office.ids(f"id_prefix={ids[1]}") == [ids[1]]
    assert office.ids(f"id_prefix={ids[1][:4]}") == [each for each in ids if each.startswith(ids[1][:4])]
    server.delete(ids[1])
    assert office.ids(f"id_prefix={ids[1]}") == [] and office.ids(f"id_prefix={ids[1]}&state=any") == [ids[1]]


def test_uploads_are_found_by_owner_time_and_size(office: Office, server: Server) -> None:
    nobodys = server.upload(length=5)
    server.advance(10.0)
    server.by = Principal("ann")
    anns = server.upload(DATA)
    assert office.ids("owner=ann") == [anns]
    assert office.ids("owner=") == [nobodys]
    assert office.ids("created_after=2023-11-14T22:13:25Z") == [anns]
    assert office.ids("created_before=2023-11-14T22:13:25Z") == [nobodys]
    assert office.ids("created_before=2023-11-15T00:13:25%2B02:00") == [nobodys]
    assert office.ids("finished_after=2023-11-14T22:13:25Z") == [anns]
    assert office.ids("finished_before=2023-11-14T22:13:25Z") == []
    assert office.ids("idle_since=2023-11-14T22:13:25.5Z") == [nobodys]
    assert office.ids("min_size=10") == [anns]
    assert office.ids(f"min_size={(1 << 63) - 1}") == []


def test_one_upload_is_shown_with_both_tiers(office: Office, server: Server) -> None:
    server.by = Principal("ann")
    upload_id = server.create(20, metadata=metadata.encode({"filename": "ä".encode(), "raw": b"\xff"})).value.id
    server.patch(upload_id, 0, FakeBody(20))
    shown = office.told("GET", f"/v1/uploads/{upload_id}")
    assert (shown["owner"], shown["appending"], shown["state"]) == ("ann", True, "uploading")
    assert shown["metadata"] == {"filename": "ä", "raw": {"base64": "/w=="}}
    assert [(each["remote"], each["state"]) for each in shown["replicas"]] == [("far", "open"), ("near", "open")]


def test_looking_disturbs_nobody(office: Office, server: Server) -> None:
    upload_id = server.upload(length=4 * LONG)
    body = FakeBody(4 * LONG)
    answer = server.patch(upload_id, 0, body)
    body.arrive(pattern(LONG))
    server.advance(5.0)
    office.ids()
    office.told("GET", f"/v1/uploads/{upload_id}")
    office.told("GET", "/v1/drain")
    assert not answer.done and server.context.holds.held(upload_id)


# Ending


def test_an_upload_is_ended_whatever_it_is_doing(office: Office, server: Server) -> None:
    running, finished = server.upload(length=4 * LONG), server.upload(DATA)
    body = FakeBody(4 * LONG)
    answer = server.patch(running, 0, body)
    body.arrive(pattern(LONG))
    for upload_id in (running, finished):
        assert office.ask("DELETE", f"/v1/uploads/{upload_id}").status == 204
        assert server.content(upload_id) is None
        assert office.refused("DELETE", f"/v1/uploads/{upload_id}")[0] == 410
    assert answer.error.status == 410


def test_an_upload_under_way_is_spared_where_that_is_asked_for(office: Office, server: Server) -> None:
    running, idle = server.upload(length=4 * LONG), server.upload(DATA)
    body = FakeBody(4 * LONG)
    answer = server.patch(running, 0, body)
    body.arrive(pattern(LONG))
    status, detail = office.refused("DELETE", f"/v1/uploads/{running}?unless=appending")
    assert status == 409 and "appends" in detail and not answer.done
    assert office.ask("DELETE", f"/v1/uploads/{idle}?unless=appending").status == 204
    assert office.refused("DELETE", f"/v1/uploads/{running}?unless=stored")[0] == 400
    assert office.ask("DELETE", f"/v1/uploads/{running}").status == 204


def test_a_stop_ends_the_request_and_the_upload(office: Office, server: Server) -> None:
    upload_id = server.upload(length=4 * LONG)
    body = FakeBody(4 * LONG)
    answer = server.patch(upload_id, 0, body)
    body.arrive(pattern(LONG))
    assert office.ask("POST", f"/v1/uploads/{upload_id}/stop").status == 204
    assert (answer.error.status, answer.error.detail) == (410, "The upload was stopped.")
    assert server.head(upload_id).error.status == 410


def test_what_is_finished_is_not_stopped(office: Office, server: Server) -> None:
    upload_id = server.upload(DATA)
    assert office.refused("POST", f"/v1/uploads/{upload_id}/stop")[0] == 409
    assert server.content(upload_id) == DATA


def test_what_finishes_by_its_stop_stays(office: Office, server: Server) -> None:
    """What was received is committed first; if that was all, the upload is finished."""
    upload_id = server.upload(length=LONG)
    body = FakeBody(LONG)
    server.patch(upload_id, 0, body)
    body.arrive(pattern(LONG))
    assert office.refused("POST", f"/v1/uploads/{upload_id}/stop")[0] == 409
    assert server.content(upload_id) == pattern(LONG)


# Trying again


def park(server: Server, upload_id: str, remote: str = "far") -> None:
    replicas = server.catalog.replicas
    assert server.ask(replicas.park(server.replicas(upload_id)[remote], "denied", EPOCH)).value


def test_a_parked_replica_is_tried_again(office: Office, server: Server) -> None:
    upload_id = server.upload(DATA)
    park(server, upload_id)
    park(server, upload_id, "near")
    assert office.ids("remote=far&replica=parked") == [upload_id]
    assert office.told("POST", f"/v1/uploads/{upload_id}/retry?remote=far") == {"restarted": 1}
    assert office.told("POST", f"/v1/uploads/{upload_id}/retry") == {"restarted": 1}
    assert office.told("POST", f"/v1/uploads/{upload_id}/retry") == {"restarted": 0}
    assert {each.state for each in server.replicas(upload_id).values()} == {ReplicaState.OPEN}


def test_all_that_was_parked_for_a_remote_is_tried_again(office: Office, server: Server) -> None:
    ids = [server.upload(DATA) for _ in range(3)]
    for upload_id in ids:
        park(server, upload_id)
    park(server, ids[0], "near")
    assert office.told("POST", "/v1/retry?remote=far") == {"restarted": 3, "more": False}
    assert office.ids("replica=parked") == [ids[0]]
    assert server.context.replication.again == ids  # type: ignore[attr-defined]


def test_an_upload_that_has_gone_meanwhile_is_no_failure() -> None:
    with serving(replication=FakeReplication(("far",), ("near",)), delete_objects=False) as server:
        ids = [server.upload(DATA) for _ in range(2)]
        for upload_id in ids:
            park(server, upload_id)
        server.delete(ids[0])
        assert Office(server).told("POST", "/v1/retry?remote=far")["restarted"] == 1


# Refusals


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("/v1/uploads?stat=stored", "stat"),
        ("/v1/uploads?state=stored&state=gone", "state"),
        ("/v1/uploads?state=", "state"),
        ("/v1/uploads?replica=sent", "replica"),
        ("/v1/uploads?order=down", "order"),
        ("/v1/uploads?id_prefix=abc", "id_prefix"),
        ("/v1/uploads?id_prefix=ab%25d", "id_prefix"),
        ("/v1/uploads?limit=0", "limit"),
        ("/v1/uploads?limit=1001", "limit"),
        ("/v1/uploads?limit=-1", "limit"),
        ("/v1/uploads?limit=%C2%B2", "limit"),
        ("/v1/uploads?min_size=9223372036854775808", "min_size"),
        ("/v1/uploads?created_after=yesterday", "created_after"),
        ("/v1/uploads?created_after=2026-01-01", "created_after"),
        ("/v1/uploads?created_after=2026-01-01T00:00:00", "created_after"),
        ("/v1/uploads?after=1", "after"),
        ("/v1/uploads?after=%FF", "query"),
        ("/v1/uploads?after=cDEuLTE", "after"),
        ("/v1/uploads?after=cDEuMDE", "after"),
        ("/v1/uploads?after=cDEuOTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk", "after"),
        (f"/v1/uploads?after={urlsafe_b64encode(b'p1.' + b'9' * 4999).decode().rstrip('=')}", "after"),
        ("/v1/uploads?owner=a%00b", "owner"),
        ("/v1/uploads?%00=1", "parameter"),
        ("/v1/status?x", "x"),
        ("/v1/remotes?verbose=1", "verbose"),
        (f"/v1/uploads/{UNKNOWN}?x=1", "x"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(office: Office, target: str, word: str) -> None:
    status, detail = office.refused("GET", target)
    assert status == 400 and word in detail


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/retry"),
        ("POST", "/v1/retry?remote=elsewhere"),
        ("POST", f"/v1/uploads/{UNKNOWN}/retry?remote=elsewhere"),
        ("POST", f"/v1/uploads/{UNKNOWN}/stop?force=1"),
        ("DELETE", f"/v1/uploads/{UNKNOWN}?force=1"),
        ("PUT", "/v1/drain?seconds=5"),
    ],
)
def test_no_change_is_made_that_was_not_meant(office: Office, method: str, target: str) -> None:
    assert office.refused(method, target)[0] == 400


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"/v1/uploads/{UNKNOWN}"),
        ("DELETE", f"/v1/uploads/{UNKNOWN}"),
        ("POST", f"/v1/uploads/{UNKNOWN}/stop"),
        ("POST", f"/v1/uploads/{UNKNOWN}/retry"),
        ("GET", "/v1/uploads/.."),
        ("GET", "/v1/uploads/..%2F..%2Fetc%2Fpasswd"),
        ("GET", "/v1/uploads/a%00b"),
        ("GET", "/v1/uploads/%FF"),
        ("GET", "/v1"),
        ("GET", "/v2/uploads"),
        ("GET", "/"),
    ],
)
def test_what_is_not_there_is_not_found(office: Office, method: str, target: str) -> None:
    assert office.refused(method, target)[0] == 404


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("POST", "/v1/uploads", "GET, HEAD"),
        ("GET", f"/v1/uploads/{UNKNOWN}/stop", "POST"),
        ("POST", f"/v1/uploads/{UNKNOWN}", "DELETE, GET, HEAD"),
        ("POST", "/v1/drain", "DELETE, GET, HEAD, PUT"),
    ],
)
def test_other_methods_are_told_which_there_are(office: Office, method: str, target: str, allowed: str) -> None:
    reply = office.ask(method, target)
    assert (reply.status, reply.get("Allow")) == (405, allowed)


def test_every_filter_is_described() -> None:
    described = [each["name"] for each in DOCUMENT["paths"]["/v1/uploads"]["get"]["parameters"]]
    assert described == list(FILTERS)


def test_the_guide_has_every_route_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `([A-Z]+)` \| `(/[^`?]*)[^`]*` \|", page, re.MULTILINE))
    paths = DOCUMENT["paths"].items()
    assert shown == {(method.upper(), path) for path, each in paths for method in each if method != "parameters"}
    for method, path in shown:
        summary = DOCUMENT["paths"][path][method.lower()]["summary"]
        assert f"| {summary} |" in page

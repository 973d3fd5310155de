"""What HTTP says for hooks: their refusals, what they add to a success, and what they get to see of a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.http.admission import Admission, text_of
from resumable.http.origin import Origin
from resumable.model.hooks import Answer, Changes, Granted, IHooks, QuestionKind, RequestView, UploadView
from resumable.model.values import networks
from resumable.protocol.errors import Refused, Unavailable
from resumable.uploads.context import Questions
from tests.http.visitor import Client, created, serving
from tests.uploads.harness import Server

DATA = b"0123456789"
PATCH = ("Content-Type: application/offset+octet-stream",)


@implementer(IHooks)
class Says:
    """Says the same to every question of its kinds, and keeps them."""

    def __init__(self, *kinds: QuestionKind) -> None:
        self.kinds = kinds
        self.says: Granted | Exception = Granted()
        self.asked: list[tuple[QuestionKind, UploadView, RequestView | None]] = []

    def asks(self, kind: QuestionKind) -> bool:
        return kind in self.kinds

    def before(self, kind: QuestionKind, upload: UploadView, request: RequestView | None = None) -> Deferred[Granted]:
        self.asked.append((kind, upload, request))
        return fail(self.says) if isinstance(self.says, Exception) else succeed(self.says)


@pytest.fixture
def hooks() -> Says:
    return Says(*QuestionKind)


@pytest.fixture
def server(hooks: Says) -> Iterator[Server]:
    with serving(questions=Questions(hooks)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server, admission=Admission(Origin("/files/", None, ()), forward=("cookie", "x-own")))


def patch(client: Client, upload_id: str, offset: int, body: bytes) -> Any:
    return client.ask("PATCH", f"/files/{upload_id}", *PATCH, f"Upload-Offset: {offset}", body=body)


def test_hooks_are_told_the_target_in_the_one_spelling_that_counts(client: Client, hooks: Says) -> None:
    assert client.ask("POST", "/%66iles/?a=%20b", "Upload-Length: 10").status == 201
    request = hooks.asked[0][2]
    assert request is not None and request.uri == "/files/?a=%20b"


def test_a_refusal_is_answered_in_the_hooks_words(client: Client, hooks: Says) -> None:
    hooks.says = Refused(402, {"Content-Type": "application/json", "X-Why": "money"}, b'{"error": "money"}')
    reply = client.ask("POST", "/files/", "Upload-Length: 10")
    assert (reply.status, reply.body) == (402, b'{"error": "money"}')
    assert (reply.get("Content-Type"), reply.get("X-Why")) == ("application/json", "money")
    assert reply.get("Content-Length") == "18" and reply.get("Location") is None
    assert reply.get("Tus-Resumable") == "1.0.0"


def test_a_refusal_without_a_body_is_a_problem_document(client: Client, hooks: Says) -> None:
    hooks.says = Refused(403, {"X-Why": "no"})
    reply = client.ask("POST", "/files/", "Upload-Length: 10")
    assert (reply.status, reply.get("X-Why"), reply.get("Content-Type")) == (403, "no", "application/problem+json")
    assert json.loads(reply.body)["status"] == 403 and len(reply.body) >= 256


def test_a_hook_that_fails_is_503_with_retry_after(client: Client, hooks: Says) -> None:
    hooks.says = Unavailable("Nobody knows.", 7)
    reply = client.ask("POST", "/files/", "Upload-Length: 10")
    assert (reply.status, reply.get("Retry-After"), reply.get("Location")) == (503, "7", None)


def test_a_success_says_what_hooks_add(client: Client, hooks: Says) -> None:
    hooks.says = Granted(answer=Answer(202, {"X-Job": "7"}, b"wait"))
    reply = client.ask("POST", "/files/", "Upload-Length: 10")
    assert (reply.status, reply.get("X-Job"), reply.body) == (202, "7", b"wait")
    assert reply.get("Content-Length") == "4"
    upload_id = created(reply)
    hooks.says = Granted(answer=Answer(None, {"X-Job": "8"}, b"more"))
    reply = patch(client, upload_id, 0, b"012")
    assert (reply.status, reply.body, reply.get("Upload-Offset")) == (200, b"more", "3"), "204 has no body"
    hooks.says = Granted(answer=Answer(None, {"X-Job": "9"}))
    reply = patch(client, upload_id, 3, b"345")
    assert (reply.status, reply.body, reply.get("X-Job"), reply.get("Content-Length")) == (204, b"", "9", None)
    reply = client.ask("DELETE", f"/files/{upload_id}")
    assert (reply.status, reply.get("X-Job")) == (204, "9")


def test_a_page_may_read_what_hooks_add_to_that_answer(client: Client, hooks: Says) -> None:
    def readable(*fields: str) -> set[str]:
        said = client.ask("POST", "/files/", "Upload-Length: 10", *fields).get("Access-Control-Expose-Headers")
        return set((said or "").split(", "))

    origin = "Origin: https://app.example"
    hooks.says = Granted(answer=Answer(None, {"X-Job": "7"}))
    assert readable(origin) >= {"X-Job", "Location"} and readable() == {""}
    hooks.says = Refused(402, {"X-Why": "money"})
    assert readable(origin) >= {"X-Why", "Retry-After"} and "X-Job" not in readable(origin)
    hooks.says = Granted()
    assert not {"X-Job", "X-Why"} & readable(origin)


def test_a_hook_gives_id_and_metadata_to_a_new_upload(client: Client, hooks: Says) -> None:
    hooks.says = Granted(Changes(id="an-id-that-was-given", metadata={"a": b"1"}), raw_metadata="a MQ==")
    hooks.kinds = (QuestionKind.CREATE,)
    assert created(client.ask("POST", "/files/", "Upload-Length: 10")) == "an-id-that-was-given"
    seen = client.ask("HEAD", "/files/an-id-that-was-given")
    assert (seen.status, seen.get("Upload-Metadata")) == (200, "a MQ==")
    assert client.ask("POST", "/files/", "Upload-Length: 10").status == 400


def test_hooks_see_the_request_and_of_its_headers_those_that_were_chosen(client: Client, hooks: Says) -> None:
    client.ask("POST", "/files/?a=b", "Upload-Length: 10", "COOKIE: a=1", "Cookie: b=2", "Authorization: Bearer secret")
    ((kind, upload, request),) = hooks.asked
    assert (kind, upload.length, request) == (
        QuestionKind.CREATE,
        10,
        RequestView(
            "POST", "/files/?a=b", "192.0.2.1:5", {"cookie": ("a=1", "b=2")}, protocol="tus", protocol_version="1.0.0"
        ),
    )


def test_hooks_see_what_a_client_sent_as_utf8_or_else_as_latin_1(server: Server, hooks: Says) -> None:
    client = Client(server, admission=Admission(Origin("/files/", None, ()), forward=["x-own"]))
    client.ask("POST", "/files/", "Upload-Length: 10", "X-Own: Grüße ☃")
    assert hooks.asked[0][2].headers == {"x-own": ("Grüße ☃",)}
    assert [text_of(line) for line in (b"plain", b"Gr\xc3\xbc\xc3\x9fe", b"Gr\xfc\xdfe")] == ["plain", "Grüße", "Grüße"]


def test_behind_a_proxy_hooks_see_the_clients_address(server: Server, hooks: Says) -> None:
    trusting = Origin("/files/", None, networks(["192.0.2.1"]))
    client = Client(server, admission=Admission(trusting, forward=()))
    client.ask("POST", "/files/", "Upload-Length: 10", "X-Forwarded-For: 198.51.100.7")
    assert hooks.asked[0][2] == RequestView(
        "POST", "/files/", "198.51.100.7", {}, protocol="tus", protocol_version="1.0.0"
    )


def test_a_before_finish_that_refuses_withholds_the_last_byte_until_it_agrees(client: Client, hooks: Says) -> None:
    hooks.kinds = (QuestionKind.FINISH,)
    hooks.says = Refused(422, {}, b"infected")
    whole = client.ask("POST", "/files/", "Upload-Length: 10", *PATCH, body=DATA)
    assert (whole.status, whole.get("Upload-Offset")) == (201, "9")
    upload_id = created(whole)
    seen = client.ask("HEAD", f"/files/{upload_id}")
    assert (seen.get("Upload-Offset"), seen.get("Upload-Length")) == ("9", "10")
    assert client.ask("GET", f"/files/{upload_id}", tus=False).status == 404
    refused = patch(client, upload_id, 9, b"9")
    assert (refused.status, refused.body) == (422, b"infected")
    assert patch(client, upload_id, 9, b"x").status == 409
    hooks.says = Granted(answer=Answer(None, {"X-Job": "7"}))
    agreed = patch(client, upload_id, 9, b"9")
    assert (agreed.status, agreed.get("Upload-Offset"), agreed.get("X-Job")) == (204, "10", "7")
    assert [upload.offset for _, upload, _ in hooks.asked] == [10, 10, 10]


def test_a_creation_with_all_its_bytes_tells_the_full_offset_when_guards_agree(client: Client, hooks: Says) -> None:
    hooks.kinds = (QuestionKind.FINISH,)
    hooks.says = Granted(answer=Answer(None, {"X-Job": "7"}))
    whole = client.ask("POST", "/files/", "Upload-Length: 10", *PATCH, body=DATA)
    assert (whole.status, whole.get("Upload-Offset"), whole.get("X-Job")) == (201, "10", "7")


def test_an_empty_upload_whose_hook_fails_is_503_with_location(client: Client, hooks: Says) -> None:
    hooks.kinds = (QuestionKind.FINISH,)
    hooks.says = Unavailable("Nobody knows.", 7)
    reply = client.ask("POST", "/files/", "Upload-Length: 0")
    assert (reply.status, reply.get("Retry-After")) == (503, "7")
    assert created(reply)
    hooks.says = Granted()
    assert patch(client, created(reply), 0, b"").status == 204


def test_a_running_upload_is_stopped_with_the_hooks_answer(client: Client, server: Server, hooks: Says) -> None:
    hooks.kinds = ()
    upload_id = created(client.ask("POST", "/files/", "Upload-Length: 10"))
    client.patch(upload_id, 0, b"012", "Content-Length: 10")
    assert client.reply() is None
    server.ask(server.uploads.stop_upload(upload_id, Refused(410, {"X-Why": "closed"}, b"The project was closed.")))
    reply = client.reply()
    assert reply is not None
    assert (reply.status, reply.get("X-Why"), reply.body) == (410, "closed", b"The project was closed.")

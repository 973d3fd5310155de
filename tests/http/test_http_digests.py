"""Digests over HTTP: the fields of RFC 9530 in requests and answers, and problems as documents."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator

import pytest

from resumable.protocol import metadata
from resumable.uploads.digest_rules import DigestRules
from tests.http.visitor import Client, Reply, created, new, serving

DATA = b"0123456789"
TYPE = "Content-Type: application/offset+octet-stream"


def field(data: bytes, algorithm: str = "sha-256") -> str:
    digest = hashlib.new(algorithm.replace("-", ""), data).digest()
    return f"{algorithm}=:{b64encode(digest).decode()}:"


@pytest.fixture
def client() -> Iterator[Client]:
    with serving() as server:
        yield Client(server)


@pytest.fixture
def digesting() -> Iterator[Client]:
    """Of a server with --digest sha256."""
    with serving(digests=DigestRules("sha-256")) as server:
        yield Client(server)


def patch(client: Client, upload_id: str, offset: int, body: bytes, *fields: str) -> Reply:
    client.patch(upload_id, offset, body, *fields)
    reply = client.reply()
    assert reply is not None
    return reply


def post(client: Client, body: bytes, *fields: str) -> Reply:
    return client.ask("POST", "/files/", f"Upload-Length: {len(body)}", TYPE, *fields, body=body)


def problem(reply: Reply) -> dict[str, object]:
    assert reply.get("Content-Type") == "application/problem+json"
    document: dict[str, object] = json.loads(reply.body)
    assert document["status"] == reply.status
    return document


def test_a_body_with_another_content_digest_is_refused_and_forgotten(client: Client) -> None:
    upload_id = new(client)
    reply = patch(client, upload_id, 0, DATA[:5], f"Content-Digest: {field(b'other')}")
    assert reply.status == 400
    document = problem(reply)
    assert document["type"] == "https://iana.org/assignments/http-problem-types#digest-mismatching-values"
    assert document["mismatching-digests"] == [
        {
            "algorithm": "sha-256",
            "provided-digest": field(b"other").partition("=")[2],
            "header": "Content-Digest",
        }
    ]
    assert client.ask("HEAD", f"/files/{upload_id}").get("Upload-Offset") == "0"
    assert patch(client, upload_id, 0, DATA[:5], f"Content-Digest: {field(DATA[:5])}").status == 204


def test_a_digest_that_is_none_is_refused(client: Client) -> None:
    reply = patch(client, new(client), 0, DATA, "Content-Digest: sha-512=:YWJj:")
    assert reply.status == 400
    assert problem(reply)["type"] == "https://iana.org/assignments/http-problem-types#digest-invalid-values"


@pytest.mark.parametrize("said", ["md5=:AAAA:", "sha-256=:", "nonsense,,"])
def test_what_is_not_understood_is_ignored(client: Client, said: str) -> None:
    assert patch(client, new(client), 0, DATA, f"Content-Digest: {said}", f"Repr-Digest: {said}").status == 204


def test_a_creation_with_its_body_may_have_digests(client: Client) -> None:
    assert post(client, DATA, f"Content-Digest: {field(DATA)}", f"Repr-Digest: {field(DATA)}").status == 201
    assert post(client, DATA, f"Content-Digest: {field(b'')}").status == 400


@pytest.mark.parametrize("encode", [bytes.hex, lambda digest: b64encode(digest).decode(), bytes])
def test_a_client_announces_its_file_in_the_metadata(client: Client, encode: object) -> None:
    digest = hashlib.sha256(DATA).digest()
    said = metadata.encode({"sha256": encode(digest)})  # type: ignore[operator]
    upload_id = new(client, 10, f"Upload-Metadata: {said}")
    assert patch(client, upload_id, 0, DATA[:4]).status == 204
    assert patch(client, upload_id, 4, DATA[4:]).status == 204
    status = json.loads(client.ask("GET", f"/files/{upload_id}/status", tus=False).body)
    assert status["state"] == "finished"
    assert status["announced"] == status["digest"] == field(DATA)


def test_another_file_than_announced_is_460_until_it_is_deleted(client: Client) -> None:
    said = metadata.encode({"sha256": hashlib.sha256(b"other").hexdigest()})
    upload_id = new(client, 10, f"Upload-Metadata: {said}")
    assert patch(client, upload_id, 0, DATA[:4]).status == 204
    for offset in (4, 9):
        reply = patch(client, upload_id, offset, DATA[offset:])
        assert reply.status == 460 and "announced" in str(problem(reply)["detail"])
        head = client.ask("HEAD", f"/files/{upload_id}")
        assert (head.get("Upload-Offset"), head.get("Upload-Length")) == ("9", "10")
    assert client.ask("GET", f"/files/{upload_id}", tus=False).status == 404
    assert client.ask("DELETE", f"/files/{upload_id}").status == 204


def test_a_creation_with_another_file_than_announced_names_what_to_delete(client: Client) -> None:
    reply = post(client, DATA, f"Repr-Digest: {field(b'other')}")
    assert (reply.status, reply.get("Upload-Offset")) == (460, "9")
    assert client.ask("DELETE", f"/files/{created(reply)}").status == 204


@pytest.mark.parametrize("value", [b"abc", b""])
def test_a_digest_in_the_metadata_that_is_none_is_400(client: Client, value: bytes) -> None:
    said = metadata.encode({"sha256": value})
    assert client.ask("POST", "/files/", "Upload-Length: 10", f"Upload-Metadata: {said}").status == 400


def test_a_download_has_the_digest_of_the_whole_file(digesting: Client) -> None:
    upload_id = created(post(digesting, DATA))
    path = f"/files/{upload_id}"
    for method, fields in (("GET", ()), ("HEAD", ()), ("GET", ("Range: bytes=2-3",))):
        reply = digesting.ask(method, path, *fields, tus=False)
        assert reply.get("Repr-Digest") == field(DATA)
        assert reply.get("Content-Digest") is None
    assert digesting.ask("GET", path, "Range: bytes=2-3", tus=False).status == 206
    assert digesting.ask("HEAD", path).get("Repr-Digest") == field(DATA)
    assert digesting.ask("HEAD", path, "Want-Repr-Digest: sha-512=1").get("Repr-Digest") is None


def test_a_download_has_what_the_client_wants(digesting: Client) -> None:
    said = f"Repr-Digest: {field(DATA, 'sha-512')}"
    path = f"/files/{created(post(digesting, DATA, said))}"

    def asked(*fields: str) -> Reply:
        return digesting.ask("GET", path, *fields, tus=False)

    assert asked().get("Repr-Digest") == f"{field(DATA)}, {field(DATA, 'sha-512')}"
    assert asked("Want-Repr-Digest: sha-512=3, sha-256=1").get("Repr-Digest") == field(DATA, "sha-512")
    assert asked("Want-Repr-Digest: md5=3").get("Repr-Digest") is None
    assert asked("Want-Content-Digest: sha-256=1").get("Content-Digest") == field(DATA)
    part = asked("Want-Content-Digest: sha-256=1", "Range: bytes=2-3")
    assert part.status == 206 and part.get("Content-Digest") is None


def test_an_etag_does_not_change_when_the_digest_becomes_known() -> None:
    with serving(digests=DigestRules("sha-256")) as server:
        client = Client(server)
        upload_id = new(client)
        patch(client, upload_id, 0, DATA[:5])
        server.uploads.digester._background.stopping = True
        patch(client, upload_id, 5, DATA[5:])
        before = client.ask("GET", f"/files/{upload_id}", tus=False)
        server.uploads.digester._background.stopping = False
        server.sweep()
        server.pump()
        after = client.ask("GET", f"/files/{upload_id}", tus=False)
    assert before.get("Repr-Digest") is None and after.get("Repr-Digest") == field(DATA)
    assert before.get("ETag") == after.get("ETag")


def test_options_say_which_digests_are_wanted(client: Client) -> None:
    reply = client.ask("OPTIONS", "/files/")
    assert reply.get("Want-Content-Digest") == reply.get("Want-Repr-Digest") == "sha-256=10, sha-512=9"


def test_pages_of_other_origins_may_send_and_read_them(client: Client) -> None:
    fields = ("Origin: https://a.example", "Access-Control-Request-Method: PATCH")
    said = client.ask("OPTIONS", "/files/", *fields)
    allowed = (said.get("Access-Control-Allow-Headers") or "").split(", ")
    assert {"Content-Digest", "Repr-Digest", "Want-Repr-Digest"} <= set(allowed)
    exposed = client.ask("POST", "/files/", "Origin: https://a.example", "Upload-Length: 1")
    assert "Repr-Digest" in (exposed.get("Access-Control-Expose-Headers") or "")

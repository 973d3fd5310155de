"""What becomes of a 104 on the way to the client, and what the operator is told to do.

The same at a real server is in tests/e2e/test_doctor.py.
"""

from __future__ import annotations

import re

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from resumable.doctor.findings import Finding
from resumable.doctor.interim import NAME, check_interim
from tests.doctor.front import TUS, said

INFORM = b"HTTP/1.1 104 Upload Resumption Supported\r\nLocation: /files/one\r\nUpload-Limit: min-size=0\r\n\r\n"
PROGRESS = b"HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: 1\r\n\r\n"
MADE = said(201, "Location: /files/one", "Upload-Complete: ?0")


class Between:
    """Answers a POST of a client that takes 104s with ``early`` when its head has come, with ``late`` when its content
    has; one of a client that doesn't with ``plain`` at its end."""

    def __init__(self, early: bytes, late: bytes, plain: bytes = MADE) -> None:
        self.early, self.late, self.plain = early, late, plain
        self.asked: list[bytes] = []
        self.url = ""

    async def look(self, **options: object) -> Finding:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(Factory.forProtocol(lambda: _Answering(self)))
        self.url = f"http://127.0.0.1:{port.getHost().port}/files"
        try:
            found = await check_interim(
                reactor, self.url, {"Authorization": "Bearer x"}, **{"patience": 0.2, "interim": "always", **options}
            )
        finally:
            await port.stopListening()
        assert found.name == NAME and all(b"authorization: bearer x" in head.lower() for head in self.asked)
        assert (found.level == "ok") == (not found.advice)
        return found

    @property
    def methods(self) -> list[str]:
        return [head.split(b" ")[0].decode() for head in self.asked]


class _Answering(Protocol):
    def __init__(self, between: Between) -> None:
        self._between = between
        self._heard = b""

    def dataReceived(self, data: bytes) -> None:
        before = self._heard
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        if not end:
            return
        begins = b"\r\n\r\n" not in before
        if begins:
            self._between.asked.append(head)
        if not head.startswith(b"POST"):
            self.transport.write(said(204))
            return
        takes = b"upload-draft-interop-version" in head.lower()
        if begins and takes:
            self.transport.write(self._between.early)
        length = re.search(rb"(?i)content-length: *([0-9]+)", head)
        assert length is not None
        if len(body) == int(length[1]):
            self.transport.write(self._between.late if takes else self._between.plain)


@pytest_twisted.ensureDeferred
async def test_one_that_comes_before_the_answer_is_well_and_its_upload_is_removed() -> None:
    between = Between(INFORM, PROGRESS + MADE)
    found = await between.look()
    assert (found.level, "iOS can resume" in found.what) == ("ok", True)
    assert between.methods == ["POST", "DELETE"] and b" /files/one " in between.asked[1]
    assert b"upload-complete: ?0" in between.asked[0].lower()


@pytest_twisted.ensureDeferred
async def test_a_creation_has_as_many_bytes_as_the_server_takes() -> None:
    between = Between(INFORM, MADE)
    for bounds in ({}, {"least": 200_000}, {"most": 1000}, {"least": 500, "most": 700}):
        await between.look(**bounds)
    posts = [head for head in between.asked if head.startswith(b"POST")]
    lengths = [re.findall(rb"(?i)content-length: ([0-9]+)", head) for head in posts]
    assert lengths == [[b"131073"], [b"200000"], [b"1000"], [b"700"]]


@pytest_twisted.ensureDeferred
async def test_one_that_is_swallowed_is_a_warning() -> None:
    between = Between(b"", MADE)
    found = await between.look()
    assert found.level == "warn" and "swallows" in found.what and "nginx can't" in found.advice
    assert between.methods == ["POST", "DELETE"]


@pytest_twisted.ensureDeferred
async def test_one_without_its_location_is_no_help() -> None:
    assert (await Between(PROGRESS, MADE).look()).level == "warn"


@pytest_twisted.ensureDeferred
async def test_one_that_comes_with_the_end_of_the_content_comes_too_late() -> None:
    found = await Between(b"", INFORM + MADE).look()
    assert found.level == "warn" and "whole request" in found.what and "docs/proxies.md" in found.advice


@pytest.mark.parametrize("late", [b"", b"17\r\nHTTP/1.1 201 Created\r\n\r\n", PROGRESS], ids=range(3))
@pytest_twisted.ensureDeferred
async def test_one_that_was_taken_for_the_answer_breaks_the_upload(late: bytes) -> None:
    between = Between(INFORM, late)
    found = await between.look()
    assert found.level == "bad" and "takes a 104 for the answer" in found.what and "--interim never" in found.advice
    assert between.methods == ["POST", "DELETE", "POST", "DELETE"], "what either has made is ended"


@pytest_twisted.ensureDeferred
async def test_one_that_was_made_an_answer_breaks_clients_of_http_2_though_its_bytes_look_well() -> None:
    """nginx 1.22 sends the real answer behind it, as a body that ends with the connection."""
    nginx = INFORM.replace(b"Location", b"Server: nginx\r\nDate: today\r\nConnection: keep-alive\r\nLocation")
    found = await Between(b"", nginx + MADE).look()
    assert found.level == "bad" and "takes a 104 for the answer" in found.what and "--interim never" in found.advice


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_fails_at_one_is_told_from_a_server_that_is_down() -> None:
    found = await Between(said(502), b"").look()
    assert found.level == "bad" and "502" in found.what and "--interim never" in found.advice
    found = await Between(said(502), b"", said(502)).look()
    assert found.level == "skip" and "not looked at" in found.what and "502" in found.what


@pytest_twisted.ensureDeferred
async def test_a_server_that_sends_none_behind_proxies_could_be_told_to() -> None:
    found = await Between(b"", MADE).look(interim="auto")
    assert found.level == "warn" and "--interim auto" in found.what and "--interim always" in found.advice


@pytest_twisted.ensureDeferred
async def test_a_server_that_never_sends_one_is_not_asked() -> None:
    between = Between(b"", MADE)
    found = await between.look(interim="never")
    assert (found.level, between.asked) == ("ok", []) and "--interim never" in found.what


@pytest.mark.parametrize("answer", [said(401, TUS), said(403), said(412, TUS)], ids=range(3))
@pytest_twisted.ensureDeferred
async def test_a_refusal_says_nothing_of_informational_responses(answer: bytes) -> None:
    between = Between(answer, b"")
    found = await between.look()
    assert found.level == "skip" and "not looked at" in found.what and between.methods == ["POST"]


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_another_checks_finding() -> None:
    found = await check_interim(reactor, "http://127.0.0.1:9/files/", patience=0.2)
    assert found.level == "skip" and "not looked at" in found.what

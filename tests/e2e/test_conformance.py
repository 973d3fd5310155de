"""The server's obligations in tus 1.0.0's core protocol, over HTTP: one test for each of T1 to T20.

The extensions are in test_conformance_extensions. Each docstring begins with the number of the obligation.
"""

from __future__ import annotations

import pytest

from .daemon import Daemon, eventually
from .tus import OCTETS, Tus, check, head_bytes, patch_head

MAX = 10 * 2**20
FLAGS = ("--max-size", str(MAX), "--network-timeout", "2")
NOWHERE = "/files/" + "0" * 32


@pytest.fixture(scope="module", params=["http1", "http2"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_offset_and_length_are_non_negative_integers(tus: Tus) -> None:
    """T1: Upload-Offset and Upload-Length are non-negative integers."""
    path = tus.create(10, None, b"abc")
    found = tus.head(path)
    assert (found["upload-offset"], found["upload-length"]) == ("3", "10")
    for wrong in ("-1", "+3", "3.0", "0x3", "3 ", "three", "", "٣".encode().decode("latin-1")):
        if wrong.strip() != "3":
            assert tus.patch(path, 3, b"d", {"Upload-Offset": wrong}).status == 400, wrong
            assert tus.post(None, {"Upload-Length": wrong}).status == 400, wrong
    assert tus.offset(path) == 3


def test_every_answer_but_the_one_to_options_names_the_version(tus: Tus) -> None:
    """T2: Tus-Resumable on every response except OPTIONS."""
    path = tus.create(3)
    answers = [
        tus.post(1),
        tus.post(None),
        tus.head(path),
        tus.head(NOWHERE),
        tus.patch(path, 1, b"a"),
        tus.patch(path, 0, b"abc"),
        tus.get(path),
        tus.get(NOWHERE),
        tus.ask("PUT", path),
        tus.ask("POST", None, {"Tus-Resumable": "0.2.2"}),
        tus.delete(path),
    ]
    assert {answer["tus-resumable"] for answer in answers} == {"1.0.0"}
    assert "tus-resumable" not in tus.options()


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1", "2", "1.0.0, 1.0.0", ""])
def test_another_version_is_refused_unprocessed(version: str | None, tus: Tus) -> None:
    """T3: unsupported version: 412 + Tus-Version, request not processed."""
    path = tus.create(3)
    fields = {"Tus-Resumable": version}
    refused = [
        tus.post(5, fields),
        tus.patch(path, 0, b"abc", fields),
        tus.head(path, fields),
        tus.ask("DELETE", path, fields),
    ]
    for answer in refused:
        assert answer.status == 412
        assert answer["tus-version"] == "1.0.0"
        assert "location" not in answer and "upload-offset" not in answer
    assert tus.offset(path) == 0


def test_versions_are_listed_in_order_of_preference(tus: Tus) -> None:
    """T4: Tus-Version: comma list in order of preference."""
    assert tus.options()["tus-version"] == "1.0.0"


def test_extensions_are_listed_without_blanks(tus: Tus) -> None:
    """T5: Tus-Extension: comma list."""
    listed = tus.options()["tus-extension"].split(",")
    assert set(listed) == {
        "creation",
        "creation-with-upload",
        "creation-defer-length",
        "expiration",
        "checksum",
        "checksum-trailer",
        "termination",
        "concatenation",
        "concatenation-unfinished",
    }
    assert len(listed) == len(set(listed))


def test_the_maximum_is_announced(tus: Tus) -> None:
    """T6: Tus-Max-Size non-negative integer, there when a hard limit is known."""
    assert tus.options()["tus-max-size"] == str(MAX)


def test_the_method_override_counts_and_the_real_method_does_not(tus: Tus) -> None:
    """T7: X-HTTP-Method-Override is honoured; the real method is then ignored."""
    path = tus.create(6)
    for real, offset, data in (("POST", 0, b"ab"), ("PUT", 2, b"cd"), ("DELETE", 4, b"ef")):
        fields = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": str(offset), "Content-Type": OCTETS}
        answer = tus.ask(real, path, fields, data)
        assert (answer.status, answer.offset) == (204, offset + 2)
    assert tus.content(path) == b"abcdef"
    seen = tus.ask("POST", path, {"X-HTTP-Method-Override": "HEAD"})
    assert (seen.status, seen.offset, seen.body) == (200, 6, b"")
    assert tus.ask("POST", path, {"X-HTTP-Method-Override": "DELETE"}).status == 204
    assert tus.head(path).status == 410


def test_head_carries_the_offset(tus: Tus) -> None:
    """T8: HEAD carries Upload-Offset, 0 and complete too."""
    path = tus.create(4)
    assert tus.head(path)["upload-offset"] == "0"
    tus.patch(path, 0, b"ab")
    assert tus.head(path)["upload-offset"] == "2"
    tus.patch(path, 2, b"cd")
    assert tus.head(path)["upload-offset"] == "4"


def test_head_carries_the_length_if_it_is_known(tus: Tus) -> None:
    """T9: HEAD carries Upload-Length if known."""
    assert tus.head(tus.create(4))["upload-length"] == "4"
    assert tus.head(tus.create(0))["upload-length"] == "0"
    assert "upload-length" not in tus.head(tus.create(None))


def test_head_of_nothing(tus: Tus) -> None:
    """T10: HEAD of nothing is 404 without Upload-Offset."""
    answer = tus.head(NOWHERE)
    assert answer.status == 404
    assert "upload-offset" not in answer


def test_head_of_something(tus: Tus) -> None:
    """T11: success is 200 or 204; here 200, which tusgo wants."""
    assert tus.head(tus.create(4)).status == 200


def test_head_may_not_be_stored(tus: Tus) -> None:
    """T12: HEAD carries Cache-Control: no-store."""
    assert tus.head(tus.create(4))["cache-control"] == "no-store"


def test_patch_is_taken_on_any_upload_url(tus: Tus) -> None:
    """T13: PATCH on any upload URL: sized, deferred, partial; absolute form of the target too."""
    for path in (tus.create(2), tus.create(None), tus.create(2, {"Upload-Concat": "partial"})):
        assert tus.patch(path, 0, b"a").status == 204
        assert tus.patch(f"http://127.0.0.1:{tus.port}{path}", 1, b"b").status == 204


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "text/plain", "application/offset"])
def test_patch_of_another_type(kind: str | None, tus: Tus) -> None:
    """T14: type application/offset+octet-stream, else 415."""
    path = tus.create(2)
    assert tus.patch(path, 0, b"ab", {"Content-Type": kind}).status == 415
    assert tus.offset(path) == 0


def test_another_offset_changes_nothing(tus: Tus) -> None:
    """T15: offset mismatch 409, nothing changed."""
    path = tus.create(6, None, b"abc")
    for offset in (0, 2, 4, 6, 7, 2**62):
        answer = tus.patch(path, offset, b"x")
        assert (answer.status, answer.offset) == (409, 3)
    tus.finish(path, b"abcdef")
    assert tus.content(path) == b"abcdef"


def test_a_patch_moves_the_offset_by_what_was_taken(tus: Tus) -> None:
    """T16: success 204 with Upload-Offset = old + bytes taken."""
    path = tus.create(6)
    for body in (b"a", b"", b"bcd", [b"e", b"f"]):
        before = tus.offset(path)
        answer = tus.patch(path, before, body)
        assert (answer.status, answer.offset) == (
            204,
            before + len(b"".join(body) if body and isinstance(body, list) else body),
        )
    assert tus.content(path) == b"abcdef"


def test_patch_of_nothing(tus: Tus) -> None:
    """T17: PATCH of nothing 404."""
    assert tus.patch(NOWHERE, 0, b"a").status == 404


def test_a_silent_body_is_closed_and_what_came_is_kept(tus: Tus) -> None:
    """T18: network errors are handled predictably, the connection closed on a time-out."""
    path = tus.create(100)
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, 100) + b"0123456789")
        answer = check("PATCH", wire.answer())
        assert answer.status == 408
        assert wire.ended()
    tus.close()  # this one was silent for as long
    assert tus.offset(path) == 10


@pytest.mark.parametrize("way", ["fin", "reset", "half-close"])
@pytest.mark.parametrize("chunked", [False, True])
def test_what_came_before_the_connection_broke_is_kept(way: str, chunked: bool, tus: Tus) -> None:
    """T19: as much received data as possible is stored."""
    path = tus.create(100_000)
    data = b"x" * 70_000
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, None if chunked else 100_000))
        wire.send(b"%x\r\n" % 100_000 + data if chunked else data)
        if way == "reset":
            wire.reset()
        elif way == "half-close":
            wire.half_close()
            with pytest.raises(EOFError):
                wire.answer()
    assert eventually(lambda: tus.offset(path) == len(data))


def test_options_ignores_the_version_of_the_request(tus: Tus, daemon: Daemon) -> None:
    """T20: OPTIONS 200/204 with Tus-Version, ignoring the request's Tus-Resumable."""
    for version in (None, "1.0.0", "0.2.2", "nonsense"):
        answer = tus.options({"Tus-Resumable": version})
        assert answer.status == 200
        assert answer["tus-version"] == "1.0.0"
    path = tus.create(1)
    with tus.wire() as wire:
        assert wire.send(head_bytes("OPTIONS", path, {"Tus-Resumable": None})).answer()["tus-version"] == "1.0.0"

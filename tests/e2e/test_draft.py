"""The draft, in every interop version that clients speak, over HTTP/1.1 and HTTP/2: what a client does with a file.

Each test is run by a client of each version over both. What is right for every version is in `draft_client`; the
obligations by number are in tests/http/test_http_draft_conformance*.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.certificates import certified

from .daemon import Daemon, eventually, free_port
from .draft_client import DIALECTS, NEWEST, Draft, Reply, Transfer, Way, limits, path_of
from .tus import Tus, pattern

MAX = 50 * 2**20
DATA = pattern(300_000, seed=160)
TLS = free_port()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    key = tmp_path_factory.mktemp("tls") / "server.pem"
    key.write_bytes(certified("localhost").both)
    listen = f"ssl:{TLS}:privateKey={key}:interface=127.0.0.1"
    with Daemon("--h2c", "--max-size", str(MAX), "--expire-after", "3600", "--listen", listen) as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


@pytest.fixture(params=["http1", "http2"])
def way(request: pytest.FixtureRequest) -> Way:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=DIALECTS)
def draft(request: pytest.FixtureRequest, daemon: Daemon, way: Way) -> Draft:
    return Draft(daemon.port, request.param, way)


@pytest.fixture
def newest(daemon: Daemon, way: Way) -> Draft:
    return Draft(daemon.port, NEWEST, way)


def test_a_whole_file_in_one_request(draft: Draft) -> None:
    reply = draft.create(DATA)
    assert (reply.status, draft.dialect.complete(reply), reply.body) == (200, True, b"")
    assert reply.resumption == path_of(reply)
    assert draft.content(path_of(reply)) == DATA


def test_a_whole_file_whose_length_nobody_knows(draft: Draft) -> None:
    reply = draft.create(DATA, chunked=True)
    assert (reply.status, draft.dialect.complete(reply)) == (200, True)
    assert draft.content(path_of(reply)) == DATA


def test_careful_creation_then_one_append(draft: Draft) -> None:
    made = draft.create(b"", False, len(DATA))
    assert (made.status, draft.dialect.complete(made)) == (201, False)
    path = path_of(made)
    assert draft.offset(path) == 0
    done = draft.append(path, 0, DATA)
    assert (done.status, draft.dialect.complete(done)) == (200, True)
    assert draft.content(path) == DATA


def test_a_series_of_parts(draft: Draft) -> None:
    path = draft.created(DATA[:100_000])
    part = draft.append(path, 100_000, DATA[100_000:200_000], False, chunked=True)
    assert (part.status, draft.dialect.complete(part)) == (204, False)
    found = draft.head(path)
    assert (found.status, found.offset, draft.dialect.complete(found)) == (204, 200_000, False)
    assert draft.append(path, 200_000, DATA[200_000:], False).status == 204
    done = draft.append(path, len(DATA), b"")
    assert (done.status, draft.dialect.complete(done)) == (200, True)
    assert draft.content(path) == DATA


def test_a_file_is_resumed_after_the_connection_was_lost_in_the_middle(draft: Draft) -> None:
    with draft.begin("POST", None, draft.creation(), len(DATA)) as transfer:
        path = transfer.resumption()
        transfer.send(DATA[:123_456])
    assert eventually(lambda: draft.offset(path)) <= 123_456
    done = draft.resume(path, DATA)
    assert (done.status, draft.dialect.complete(done)) == (200, True)
    assert draft.content(path) == DATA


def test_an_append_is_resumed_after_its_client_has_called_it_off(draft: Draft) -> None:
    path = draft.created(DATA[:1000], len(DATA))
    with draft.begin("PATCH", path, draft.appending(1000), None) as transfer:
        transfer.send(DATA[1000:200_000])
        transfer.drop()
    assert 1000 <= draft.offset(path) <= 200_000
    assert draft.resume(path, DATA).status == 200
    assert draft.content(path) == DATA


def test_a_file_is_given_up(draft: Draft) -> None:
    path = draft.created(DATA[:1000])
    assert draft.cancel(path).status == 204
    assert draft.head(path).status == 410
    assert draft.append(path, 1000, b"x").status == 410


def test_a_client_of_every_version_gets_an_empty_file(draft: Draft) -> None:
    reply = draft.create(b"")
    assert (reply.status, draft.dialect.complete(reply)) == (200, True)
    assert draft.content(path_of(reply)) == b""


def test_a_client_that_waits_for_100_is_sent_both(draft: Draft) -> None:
    """R44: a 100 isn't omitted because of a 104."""
    reply = draft.create(DATA, fields={"Expect": "100-continue"})
    assert reply.status == 200 and {100, 104} <= set(reply.interim)
    path = draft.created(DATA[:10])
    done = draft.append(path, 10, DATA[10:], fields={"Expect": "100-continue"})
    assert done.status == 200 and 100 in done.interim
    assert draft.content(path) == DATA


@pytest.mark.parametrize("version", [None, 0, 2, 11, 99])
def test_who_says_no_version_or_another_one_gets_no_104_and_is_served(
    version: int | None, daemon: Daemon, way: Way
) -> None:
    """R45: no 104 without a matching version."""
    draft = Draft(daemon.port, version, way)
    reply = draft.create(DATA, fields={"Expect": "100-continue"})
    assert (reply.status, reply.interim) == (200, (100,))
    path = draft.created(DATA[:10])
    assert draft.resume(path, DATA).interim == ()
    assert draft.content(path) == DATA


def test_each_way_of_http_reaches_the_upload_of_the_other(daemon: Daemon) -> None:
    one, two, tls = (Draft(daemon.port, NEWEST), Draft(daemon.port, 6, "http2"), Draft(TLS, 5, "tls2"))
    path = one.created(DATA[:10])
    assert two.append(path, 10, DATA[10:20], False).status == 204
    assert tls.append(path, 20, DATA[20:30], False).status == 204
    tus = Tus(daemon.port)
    assert tus.head(path).offset == 30
    assert tls.resume(path, DATA).status == 200
    assert one.content(path) == tus.content(path) == DATA
    tus.close()
    reply = tls.create(DATA)
    assert reply.resumption == path_of(reply) and reply["location"].startswith("https://")


def told_of(transfer: Transfer, data: bytes) -> Reply:
    """Send half of it, wait until progress is told, and send the rest; the answer."""
    half = len(data) // 2
    transfer.send(data[:half])
    assert 0 < transfer.interim(104, "upload-offset").offset <= half
    transfer.send(data[half:], end=True)
    return transfer.answer()


def test_a_long_append_is_told_its_progress(daemon: Daemon) -> None:
    """R36: 104s with Upload-Offset while the content is processed, without Location, at a bounded pace."""
    draft, data = Draft(daemon.port, NEWEST, "http2"), pattern(8_000_000, seed=161)
    path = draft.created(b"", len(data))
    with draft.begin("PATCH", path, draft.appending(0), len(data)) as transfer:
        done = draft.check(told_of(transfer, data))
    assert done.status == 200 and done.resumption is None
    assert 0 < len(done.progress) < 100
    assert not any("location" in each for each in done.heads)
    assert draft.content(path) == data


def test_a_long_creation_is_told_its_progress(daemon: Daemon) -> None:
    """R18: 104s with Upload-Offset after the one with Location."""
    draft, data = Draft(daemon.port), pattern(8_000_000, seed=162)
    with draft.begin("POST", None, draft.creation(), len(data)) as transfer:
        path = transfer.resumption()
        done = draft.check(told_of(transfer, data))
    assert done.status == 200 and path_of(done) == path and 0 < len(done.progress) < 100
    assert draft.content(path) == data


def test_limits_are_told_everywhere_and_the_same(newest: Draft) -> None:
    """R12, R14, R16, R26: Upload-Limit on OPTIONS, the 104, the 201 and HEAD."""
    told = limits(newest.options())
    assert told["max-size"] == MAX
    with newest.begin("POST", None, newest.creation(False), 10) as transfer:
        first = transfer.interim(104, "location")
        transfer.send(DATA[:10], end=True)
        made = transfer.answer()
    for answer in (first, made, newest.head(path_of(made))):
        assert limits(answer)["max-size"] == MAX


def test_a_client_is_told_how_long_its_upload_lives_in_the_words_of_its_version(draft: Draft) -> None:
    """R10: max-age, before interop 7 expires; R26: HEAD carries it."""
    told = limits(draft.head(draft.created(DATA[:10])))
    assert told["max-size"] == MAX
    if draft.dialect.limit_age is not None:
        assert 0 < told[draft.dialect.limit_age] <= 3600


def test_what_is_over_a_limit_is_refused_with_the_limits(newest: Draft) -> None:
    """R13: rejections for limits carry them."""
    for refused in (newest.create(b"", False, MAX + 1), newest.create(b"x", True, MAX + 1)):
        assert refused.status in (400, 413) and "location" not in refused
    refused = newest.create(b"", False, MAX + 1)
    assert (refused.status, limits(refused)["max-size"]) == (413, MAX)

"""The draft when things break: connections cut at every byte, a killed daemon, two clients at once, a cancellation.

Obligations by number: R3, R21, R32 (what was received is kept, and never counts as complete), R39 to R43 (one transfer
at a time, and how the one before is ended).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import pytest

from tests.waiting import long

from .daemon import Daemon, eventually
from .draft_client import DIALECTS, NEWEST, Draft, Transfer, Way, path_of
from .tus import Tus, holder, pattern

SMALL = pattern(40, seed=170)
DATA = pattern(3_000_000, seed=171)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon("--h2c") as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


@pytest.fixture(params=["http1", "http2"])
def draft(request: pytest.FixtureRequest, daemon: Daemon) -> Draft:
    return Draft(daemon.port, NEWEST, request.param)


def resumed(draft: Draft, path: str, sent: int, data: bytes, at_least: int = 0) -> None:
    """R21 and R32: no more is there than was sent, the rest can be sent, and the file is right."""
    found = draft.head(path)
    assert found.status == 204 and draft.dialect.complete(found) is False
    assert at_least <= found.offset <= sent
    done = draft.append(path, found.offset, data[found.offset :])
    assert (done.status, draft.dialect.complete(done)) == (200, True)
    assert draft.content(path) == data


def cut_creations(draft: Draft, sizes: Iterable[int], length: int | None, end: Callable[[Transfer], None]) -> None:
    """Creations of SMALL, all under way at once, each of which ends after so many bytes of its content."""
    with ExitStack() as stack:
        transfers = [stack.enter_context(draft.begin("POST", None, draft.creation(), length)) for _ in sizes]
        for size, transfer in zip(sizes, transfers, strict=True):
            path = transfer.resumption()
            transfer.send(SMALL[:size])
            end(transfer)
            resumed(draft, path, size, SMALL)


@pytest.mark.parametrize("version", [3, NEWEST])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_creation_cut_after_each_byte_of_its_content(daemon: Daemon, version: int, chunked: bool) -> None:
    """R21: an interrupted creation keeps what came, and is never complete: not with all of its bytes, either, where the
    end of a chunked content is missing."""
    length = None if chunked else len(SMALL)
    cut_creations(Draft(daemon.port, version), range(len(SMALL) + chunked), length, Transfer.cut)


def test_a_stream_reset_after_each_byte_of_its_content(daemon: Daemon) -> None:
    """R21: the same over HTTP/2, by RST_STREAM."""
    cut_creations(Draft(daemon.port, NEWEST, "http2"), range(len(SMALL)), len(SMALL), Transfer.drop)


@pytest.mark.parametrize("version", [5, NEWEST])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_append_cut_after_each_byte_of_its_content(daemon: Daemon, version: int, chunked: bool) -> None:
    """R32: an interrupted append keeps the prefix, and is never complete."""
    draft = Draft(daemon.port, version)
    for size in range(10, len(SMALL) + chunked):
        path = draft.created(SMALL[:10])
        with draft.begin("PATCH", path, draft.appending(10), None if chunked else len(SMALL) - 10) as transfer:
            transfer.send(SMALL[10:size])
        resumed(draft, path, size, SMALL, at_least=10)


def test_a_creation_that_was_cut_and_looked_for_at_once_is_no_failure_of_the_server(daemon: Daemon) -> None:
    """R42: the HEAD may come before the server knows that the client has gone: nothing has failed, and nothing is
    logged as if (the daemon's fixture looks)."""
    draft = Draft(daemon.port)
    for _ in range(10):
        with draft.begin("POST", None, draft.creation(), len(DATA)) as transfer:
            path = transfer.resumption()
            transfer.send(DATA[:1_000_000])
        assert draft.offset(path) <= 1_000_000
    assert not daemon.complaints(), "\n".join(daemon.complaints())


def test_a_request_cut_within_its_head_makes_nothing(daemon: Daemon) -> None:
    draft = Draft(daemon.port)
    tus = daemon.attach(Tus(daemon.port))
    before = {each.name for each in daemon.upload_dir.iterdir()}
    head = b"POST /files/ HTTP/1.1\r\nHost: t\r\nUpload-Draft-Interop-Version: 10\r\nUpload-Complete: ?1\r\n\r\n"
    for size in range(len(head)):
        with tus.wire() as wire:
            wire.send(head[:size])
    assert draft.options().status in (200, 204)
    assert {each.name for each in daemon.upload_dir.iterdir()} == before


def test_all_bytes_of_a_creation_cut_before_its_answer_are_there(draft: Draft) -> None:
    """R37: who never heard the answer asks, and is told that it is complete, or sends the rest."""
    with draft.begin("POST", None, draft.creation(), len(SMALL)) as transfer:
        path = transfer.resumption()
        transfer.send(SMALL, end=True)
    found = eventually(lambda: seen if (seen := draft.head(path)).offset == len(SMALL) else None)
    if draft.dialect.complete(found) is False:
        assert draft.append(path, len(SMALL), b"").status == 200
    assert draft.content(path) == SMALL


@pytest.mark.parametrize(("version", "way"), [(3, "http1"), (NEWEST, "http2")])
def test_kill_9_in_the_middle_of_an_upload(version: int, way: Way) -> None:
    """R3: the offset never decreases, through a killed daemon either, and the upload goes on to its right end."""
    with Daemon("--h2c") as daemon:
        daemon.start()
        draft = Draft(daemon.port, version, way)
        with draft.begin("POST", None, draft.creation(), len(DATA)) as transfer:
            path = transfer.resumption()
            transfer.send(DATA[:1_500_000])
            known = transfer.interim(104, "upload-offset").offset
            daemon.restart()
        resumed(draft, path, 1_500_000, DATA, at_least=known)
        assert not daemon.complaints(), "\n".join(daemon.complaints())


@long
@pytest.mark.parametrize("version", DIALECTS)
def test_kill_9_at_many_points_of_an_upload(version: int) -> None:
    """R3: as above, for every version, with an append between all kills."""
    with Daemon("--h2c") as daemon:
        daemon.start()
        draft = Draft(daemon.port, version)
        path, at = draft.created(b"", len(DATA)), 0
        for sent in range(300_000, len(DATA), 300_000):
            with draft.begin("PATCH", path, draft.appending(at), len(DATA) - at) as transfer:
                transfer.send(DATA[at:sent])
                daemon.restart()
            found = draft.offset(path)
            assert at <= found <= sent
            at = found
        resumed(draft, path, len(DATA), DATA, at_least=at)


# one transfer at a time


def under_way(draft: Draft, path: str, size: int) -> Transfer:
    """An append of the whole of DATA whose first ``size`` bytes the server has taken."""
    transfer = draft.begin("PATCH", path, draft.appending(0, fields={"Expect": "100-continue"}), len(DATA))
    transfer.interim(100)
    transfer.send(DATA[:size])
    return transfer


def test_a_new_append_ends_the_one_before_it(draft: Draft) -> None:
    """R40, R42 and R43: of two appends at once the newer goes on, the older is ended without an answer or refused, and
    their bytes don't mix."""
    path = draft.created(b"", len(DATA))
    with under_way(draft, path, 200_000) as old:
        at = draft.offset(path)
        assert at <= 200_000
        done = draft.append(path, at, DATA[at:])
        assert done.status == 200
        old.send(b"x" * 1000)
        assert old.hung_up()
    assert draft.content(path) == DATA


def test_two_appends_at_once_at_one_offset_don_t_mix(draft: Draft) -> None:
    """R40: the second one wins where the first is silent, or is refused with the right offset."""
    path = draft.created(b"", len(DATA))
    with under_way(draft, path, 0) as old:
        done = draft.append(path, 0, DATA)
        if done.status == 409:
            assert draft.resume(path, DATA).status == 200
        else:
            assert done.status == 200
        old.send(b"x" * 1000)
        old.hung_up()
    assert draft.content(path) == DATA


def test_a_head_ends_the_transfer_that_it_finds_and_its_offset_stays_right(draft: Draft) -> None:
    """R41 to R43: the offset that HEAD answers is accepted, whatever was under way; HTTP/1.1 closes the connection,
    HTTP/2 resets the stream."""
    path = draft.created(b"", len(DATA))
    with under_way(draft, path, 500_000) as old:
        at = draft.offset(path)
        assert at <= 500_000
        old.send(b"x" * 100_000)
        assert old.hung_up()
    assert draft.offset(path) == at
    assert draft.append(path, at, DATA[at:]).status == 200
    assert draft.content(path) == DATA


def test_a_head_ends_a_creation_under_way(draft: Draft) -> None:
    """R42: a creation, too."""
    with draft.begin("POST", None, draft.creation(), len(DATA)) as old:
        path = old.resumption()
        old.send(DATA[:500_000])
        at = draft.offset(path)
        assert old.hung_up()
    resumed(draft, path, 500_000, DATA, at_least=at)


def test_a_cancellation_ends_the_transfer_under_way(draft: Draft) -> None:
    """R39 and R43: DELETE ends the transfer before it is answered, and nothing is left."""
    with draft.begin("POST", None, draft.creation(), len(DATA)) as creation:
        path = creation.resumption()
        creation.send(DATA[:100_000])
        assert draft.cancel(path).status == 204
        assert creation.hung_up()
    assert draft.head(path).status == 410
    path = draft.created(b"", len(DATA))
    with under_way(draft, path, 100_000) as append:
        assert draft.cancel(path).status == 204
        assert append.hung_up()
    assert draft.append(path, 0, DATA).status == 410


def test_a_failure_in_the_middle_of_a_transfer_hangs_up(draft: Draft, daemon: Daemon) -> None:
    """Who has heard a 104 resumes after a lost connection, but takes a final 5xx for the end: so a server that stops
    doesn't answer."""
    transfer = draft.begin("POST", None, draft.creation(), len(DATA))
    with transfer:
        path = transfer.resumption()
        transfer.send(DATA[:100_000])
        daemon.terminate()
        assert transfer.hung_up()
    assert daemon.wait() == 0
    daemon.start()
    resumed(draft, path, 100_000, DATA)


def test_a_tus_append_under_way_and_the_draft_s_head(draft: Draft, daemon: Daemon) -> None:
    """R42: whatever protocol the transfer before speaks."""
    tus = daemon.attach(Tus(daemon.port))
    path = tus.create(len(DATA))
    with holder(tus, path, 0, len(DATA), DATA[:100]):
        answer = draft.ask("HEAD", path, {"Upload-Complete": "?0"})
        assert answer.status == 204 and answer.offset <= 100
    tus.close()
    assert path_of(draft.create(SMALL)) != path

"""SIGKILL at every step of a replica's life: before a request has reached the store, in the middle of it, and after it
was done but before its answer was heard.

No hooks in the daemon: the proxy before the store kills it. More of it with RESUMABLE_LONG=1.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from .daemon import BOUND, Daemon, eventually
from .stores import (
    CREDENTIALS,
    LONG,
    MIB,
    QUICK,
    Proxy,
    Store,
    ready,
    replica,
    status,
    stored,
    whole,
)
from .tiers import LARGE, MOST, SMALL, STEPS, begun, kill_in, survived
from .tus import Tus, patch_head

pytestmark = pytest.mark.slow

PREFIX = "kills"


@pytest.fixture(scope="module")
def daemon(store: Store, proxy: Proxy) -> Iterator[Daemon]:
    with Daemon("--remote", store.remote(proxy.url, PREFIX), *QUICK, env=CREDENTIALS) as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


@pytest.fixture(autouse=True)
def undisturbed(daemon: Daemon, tus: Tus, proxy: Proxy) -> Iterator[None]:
    """Nothing but the test's own requests come from now on."""
    ready(daemon)
    proxy.forget()
    yield
    proxy.calm()


def cases() -> Iterator[tuple[str, int, bytes]]:
    for step in ("before", "after", "middle"):
        yield step, 0, SMALL
        for skip in range(5):
            # only parts have bodies to speak of
            if skip in ((1, 3) if step == "middle" else range(5) if LONG or step == "after" else (0, 4)):
                yield step, skip, LARGE


@pytest.mark.parametrize(
    ("step", "skip", "data"), [pytest.param(*each, id=f"{each[0]}-{each[1]}-{len(each[2])}") for each in cases()]
)
def test_killed_at_any_request_the_object_is_there_once(
    step: str, skip: int, data: bytes, daemon: Daemon, tus: Tus, store: Store, proxy: Proxy
) -> None:
    before = store.objects(PREFIX)
    kill_in(daemon, proxy, step, skip)
    path = begun(tus, data)
    survived(daemon)
    tus.finish(path, data)
    stored(tus, path)
    whole(store, PREFIX, path, data)
    assert len(store.objects(PREFIX)) == len(before) + 1
    assert len(proxy.of(path)) <= MOST, proxy.counts(path)
    assert tus.content(path) == data
    assert not store.multiparts(PREFIX)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("after", "before"), ("after", "after"), ("before", "after")])
@pytest.mark.parametrize("skip", range(5) if LONG else [4])
def test_killed_again_while_it_finds_out_what_is_there(
    skip: int, first: str, second: str, daemon: Daemon, tus: Tus, store: Store, proxy: Proxy
) -> None:
    kill_in(daemon, proxy, first, skip)
    path = begun(tus, LARGE)
    eventually(lambda: not daemon.alive)
    daemon.kill()
    kill_in(daemon, proxy, second, 0)
    with suppress(AssertionError):
        daemon.start()  # may be killed before it answers
    survived(daemon)
    tus.finish(path, LARGE)
    stored(tus, path)
    whole(store, PREFIX, path, LARGE)
    assert not store.multiparts(PREFIX)


@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("operation", ["HeadObject", "DeleteObject"])
def test_killed_while_it_deletes_an_object_it_goes_on_deleting(
    operation: str, step: str, daemon: Daemon, tus: Tus, store: Store, proxy: Proxy
) -> None:
    path = begun(tus, SMALL)
    stored(tus, path)
    kill_in(daemon, proxy, step, 0, operation)
    with suppress(OSError, EOFError):
        assert tus.delete(path).status == 204
    survived(daemon)
    assert tus.head(path).status == 410
    eventually(lambda: path.rpartition("/")[2] not in store.objects(PREFIX))


@pytest.mark.parametrize("step", ["before", "after"])
def test_killed_while_it_aborts_a_multipart_it_goes_on_aborting(
    step: str, daemon: Daemon, tus: Tus, store: Store, proxy: Proxy
) -> None:
    path = tus.create(len(LARGE), None, LARGE[: 6 * MIB])
    eventually(lambda: store.parts(PREFIX, path.rpartition("/")[2]))
    kill_in(daemon, proxy, step, 0, "AbortMultipartUpload")
    with suppress(OSError, EOFError):
        assert tus.delete(path).status == 204
    survived(daemon)
    eventually(lambda: not store.multiparts(PREFIX))
    assert not store.objects(PREFIX).get(path.rpartition("/")[2])


def test_killed_between_requests_confirmed_parts_are_not_sent_again(
    daemon: Daemon, tus: Tus, store: Store, proxy: Proxy
) -> None:
    """The client has sent two parts and a bit; nothing is under way."""
    path = tus.create(len(LARGE))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(LARGE)) + LARGE[:-1])
        eventually(lambda: replica(status(tus, path))["confirmed"] == 10 * MIB)
        daemon.restart()
    tus.finish(path, LARGE)
    stored(tus, path)
    whole(store, PREFIX, path, LARGE)
    assert proxy.counts(path)["UploadPart"] == 3
    assert proxy.counts(path)["CreateMultipartUpload"] == 1


@pytest.mark.parametrize("step", ["stop", "kill"])
def test_stopped_while_parts_are_on_their_way(step: str, daemon: Daemon, tus: Tus, store: Store, proxy: Proxy) -> None:
    """SIGTERM: status 0 within the bound, with a store that answers nothing; then it goes on with the other parts."""
    proxy.trouble("UploadPart", "hold", skip=1, times=0)
    path = tus.create(len(LARGE), None, LARGE)
    proxy.wait_for(2)
    eventually(lambda: [each for each in proxy.of(path) if each.operation == "UploadPart" and each.status == 200])
    eventually(lambda: replica(status(tus, path))["sent"] == len(LARGE))
    if step == "stop":
        assert daemon.stop() == 0
    else:
        daemon.kill()
    proxy.calm()
    daemon.start()
    stored(tus, path)
    whole(store, PREFIX, path, LARGE)
    assert proxy.counts(path)["UploadPart"] == 5, "the part that was confirmed was sent once"
    assert proxy.counts(path)["CreateMultipartUpload"] == 1


def test_stopped_with_a_client_and_a_store_in_the_middle_of_everything(
    daemon: Daemon, tus: Tus, store: Store, proxy: Proxy
) -> None:
    paths = [tus.create(len(LARGE), None, LARGE[: 7 * MIB]) for _ in range(4)]
    with tus.wire() as wire:
        wire.send(patch_head(paths[0], 7 * MIB, len(LARGE) - 7 * MIB) + LARGE[7 * MIB : 8 * MIB])
        eventually(lambda: proxy.counts(paths[0])["UploadPart"])
        assert daemon.stop() == 0
    daemon.start()
    for path in paths:
        tus.finish(path, LARGE)
        stored(tus, path)
        whole(store, PREFIX, path, LARGE)
        assert proxy.counts(path)["UploadPart"] <= 4
    assert not store.multiparts(PREFIX)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [25 if LONG else 3])
def test_killed_at_random_with_many_uploads(kills: int, daemon: Daemon, tus: Tus, store: Store, proxy: Proxy) -> None:
    """Clients that go on as clients do, and a daemon that dies again and again."""
    rng = random.Random(7)
    contents = [rng.randbytes(rng.choice([0, 10, 70_000, 5 * MIB, 6 * MIB, 12 * MIB])) for _ in range(8)]
    paths = [tus.create(len(data)) for data in contents]
    pairs = list(zip(paths, contents, strict=True))
    senders = [threading.Thread(target=keep_sending, args=(daemon.port, *each)) for each in pairs]
    for sender in senders:
        sender.start()
    for _ in range(kills):
        kill_in(daemon, proxy, rng.choice(list(STEPS)), rng.randrange(6))
        with suppress(AssertionError):
            eventually(lambda: not daemon.alive, 2)
        proxy.calm()
        with suppress(AssertionError):
            daemon.restart()
    if not daemon.alive:
        daemon.restart()
    for sender in senders:
        sender.join(BOUND)
    for path, data in pairs:
        stored(tus, path)
        whole(store, PREFIX, path, data)
        assert len(proxy.of(path)) <= 5 + 7 * (kills + 1), proxy.counts(path)
    assert not store.multiparts(PREFIX)


def keep_sending(port: int, path: str, data: bytes) -> None:
    """Until all of it is there, whatever happens to the server."""
    with closing(Tus(port)) as client:
        while True:
            try:
                at = client.offset(path)
                if at == len(data):
                    return
                client.patch(path, at, data[at : at + 3 * MIB])
            except (OSError, EOFError):
                threading.Event().wait(0.05)

"""Bytes are in the store while the client is still sending; an outage drains by itself; a bounded lag slows clients."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from resumable.remotes.s3.store import PROBE

from .daemon import BOUND, Daemon, eventually
from .stores import (
    CREDENTIALS,
    MIB,
    QUICK,
    Proxy,
    Seen,
    Store,
    proxied,
    ready,
    replica,
    status,
    stored,
    whole,
)
from .tus import Tus, check, patch_head, pattern

Start = Callable[..., tuple[Daemon, Tus, str]]


@pytest.fixture
def proxy(store: Store) -> Iterator[Proxy]:
    with proxied(store) as it:
        yield it


@pytest.fixture
def start(store: Store, proxy: Proxy) -> Iterator[Start]:
    """A daemon with more flags: itself, a client, and the prefix of its objects."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def started(*flags: str) -> tuple[Daemon, Tus, str]:
            prefix = f"{proxy.url.rpartition(':')[2]}-{next(numbers)}"
            daemon = Daemon("--remote", store.remote(proxy.url, prefix), *QUICK, *flags, env=CREDENTIALS)
            stack.enter_context(daemon).start()
            ready(daemon)
            proxy.forget()
            stack.callback(lambda: daemon.complaints() and pytest.fail("\n".join(daemon.complaints())))
            return daemon, daemon.attach(Tus(daemon.port)), prefix

        yield started


def key(path: str) -> str:
    return path.rpartition("/")[2]


def test_half_way_through_a_patch_that_pauses_the_store_has_the_parts_of_the_first_half(
    start: Start, store: Store, proxy: Proxy
) -> None:
    _, tus, prefix = start("--part-size", "8M")
    data = pattern(64 * MIB, seed=1)
    path = tus.create(len(data))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(data)) + data[: 34 * MIB])
        eventually(lambda: replica(status(tus, path))["confirmed"] == 32 * MIB)
        assert store.parts(prefix, key(path)) == [8 * MIB] * 4
        found = status(tus, path)
        assert (found["state"], found["received"]) == ("uploading", 34 * MIB)
        assert 32 * MIB <= found["durable"] <= 34 * MIB
        assert replica(found)["lag"] == found["durable"] - 32 * MIB
        assert key(path) not in store.objects(prefix)
        wire.send(data[34 * MIB :])
        answer = check("PATCH", wire.answer("PATCH"))
        assert (answer.status, answer.offset) == (204, len(data))
    stored(tus, path)
    whole(store, prefix, path, data)
    assert len(proxy.of(path)) == 10, proxy.counts(path)


@pytest.mark.parametrize("at_once", [1, 3])
def test_after_an_outage_uploads_drain_in_order_within_the_limit(
    at_once: int, start: Start, store: Store, proxy: Proxy
) -> None:
    """Nobody asks for it. Finishing and looking up have two connections of their own."""
    daemon, tus, prefix = start("--parts-per-remote", str(at_once))
    proxy.down()
    contents = [pattern(50_000 + number, seed=number) for number in range(25)]
    paths = [tus.create(len(data), None, data) for data in contents[:5]]
    eventually(lambda: all(replica(status(tus, path))["trouble"] for path in paths))
    eventually(lambda: "remote down" in daemon.log)
    paths += [tus.create(len(data), None, data) for data in contents[5:]]
    large = pattern(11 * MIB, seed=99)
    paths.append(tus.create(len(large), None, large))
    proxy.up()
    for path, data in zip(paths, [*contents, large], strict=True):
        stored(tus, path)
        whole(store, prefix, path, data)
    assert daemon.log.count("remote down") == 1 == daemon.log.count("remote up again")
    order = list(dict.fromkeys(each.key for each in proxy.seen if each.key != PROBE))
    asked = [[key(path) for path in paths].index(each) for each in order]
    # turns begin in order; those that run side by side reach the store as their files are opened and as it takes their
    # connections, so while one goes through all that wait, each of the others may sit on one upload
    late = [number for number in range(5) if asked.index(number) >= 5 + at_once + 2]
    assert len(late) < at_once, (late, asked)
    parts = [each for each in proxy.seen if each.operation in ("PutObject", "UploadPart")]
    assert len(crowd(parts)) <= at_once, crowd(parts)
    assert len(proxy.seen) <= 2 * (25 + 5)


def crowd(requests: Sequence[Seen]) -> list[Seen]:
    """Those of these that were under way when most were."""
    under_way = ([other for other in requests if other.at <= each.at < other.done] for each in requests)
    return max(under_way, key=len, default=[])


def test_an_outage_in_the_middle_of_an_upload(start: Start, store: Store, proxy: Proxy) -> None:
    _, tus, prefix = start()
    data = pattern(21 * MIB, seed=2)
    path = tus.create(len(data), None, data[: 6 * MIB])
    eventually(lambda: replica(status(tus, path))["confirmed"] == 5 * MIB)
    proxy.down()
    answer = tus.patch(path, 6 * MIB, data[6 * MIB :])
    assert (answer.status, answer.offset) == (204, len(data))
    eventually(lambda: replica(status(tus, path))["trouble"])
    found = status(tus, path)
    assert (found["state"], replica(found)["confirmed"], replica(found)["lag"]) == ("finished", 5 * MIB, 16 * MIB)
    proxy.up()
    stored(tus, path)
    whole(store, prefix, path, data)
    assert proxy.counts(path)["UploadPart"] == 5
    assert replica(status(tus, path))["trouble"] is None


def test_with_max_lag_a_client_waits_for_a_store_that_stalls_and_goes_on_with_it(
    start: Start, store: Store, proxy: Proxy
) -> None:
    """--max-lag slows clients down; creations over the bound get 503 before the body."""
    _, tus, prefix = start("--max-lag", "12M", "--remote-timeout", "30s")
    data = pattern(64 * MIB, seed=3)
    proxy.trouble("UploadPart", "hold", times=0)
    path = tus.create(len(data))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(data)))
        wire.socket.setblocking(False)
        sent = 0
        refused = None
        while refused is None:
            sent += push(wire.socket, data[sent:])
            with tus.wire() as other:
                other.send("POST /files/ HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 5\r\n\r\n")
                answer = check("POST", other.answer())
            refused = answer if answer.status == 503 else None
        assert int(refused["retry-after"]) >= 1
        assert sent < len(data)
        durable = status(tus, path)["durable"]
        assert durable < len(data)
        proxy.calm()
        wire.socket.settimeout(BOUND)
        wire.send(data[sent:])
        answer = check("PATCH", wire.answer("PATCH"))
        assert (answer.status, answer.offset) == (204, len(data))
    stored(tus, path)
    whole(store, prefix, path, data)
    assert tus.post(5).status == 201


def push(link: socket.socket, data: bytes) -> int:
    """What the other side takes at once, up to 1 MiB."""
    try:
        return link.send(data[:MIB])
    except BlockingIOError:
        return 0


def test_without_max_lag_nothing_is_slowed_down(start: Start, store: Store, proxy: Proxy) -> None:
    _, tus, prefix = start("--remote-timeout", "30s")
    data = pattern(64 * MIB, seed=4)
    proxy.trouble("UploadPart", "hold", times=0)
    path = tus.create(len(data), None, data)
    assert tus.offset(path) == len(data)
    assert replica(status(tus, path))["confirmed"] == 0
    assert tus.post(5).status == 201
    proxy.calm()
    stored(tus, path)
    whole(store, prefix, path, data)

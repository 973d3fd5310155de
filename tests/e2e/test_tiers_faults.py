"""A fault matrix with real sockets: whatever the store or the way to it does, appends go well and the object is right.

Every fault lasts until the client is done, where it can; so no append can have waited for the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.remotes.s3_proxy import answer, error

from .daemon import Daemon
from .stores import CREDENTIALS, LONG, MIB, QUICK, Proxy, Store, ready, stored, whole
from .tiers import EACH, send
from .tus import Tus, metadata, pattern

PREFIX = "faults"
SMALL, LARGE = pattern(300_007, seed=1), pattern(11 * MIB + 13, seed=2)
UNDISTURBED = {len(SMALL): 1, len(LARGE): 5}
"""Requests that it takes; 3 parts are 5."""


@dataclass(frozen=True)
class Fault:
    """``times`` 0: until the client is done."""

    operation: str
    how: str
    answer: bytes = b""
    times: int = 0

    def __str__(self) -> str:
        status = self.answer.decode().split(" ")[1:2]
        return "-".join([self.operation, self.how, *status])


def answers(operation: str) -> Iterator[Fault]:
    """What a store may say instead of doing it."""
    yield Fault(operation, "answer", answer("500 Internal Server Error", error("InternalError")))
    yield Fault(operation, "answer", answer("503 Slow Down", error("SlowDown"), Retry_After="1"), 1)
    yield Fault(operation, "answer", answer("403 Forbidden", error("AccessDenied")))
    yield Fault(operation, "answer", answer("400 Bad Request", error("ExpiredToken")))


PUTS = ["PutObject", "UploadPart"]
MAKING = [*PUTS, "CreateMultipartUpload", "CompleteMultipartUpload"]
FAULTS = [
    *(Fault(each, how) for each in MAKING for how in ("refuse", "stall")),
    *(Fault(each, "lose", times=times) for each in MAKING for times in range(1, 3 if LONG else 2)),
    *(Fault(each, "half", times=1) for each in MAKING),
    *(
        Fault(each, how, times=times)
        for each in PUTS
        for how in ("reset", "corrupt")
        for times in range(1, 4 if LONG else 2)
    ),
    *(fault for each in MAKING for fault in answers(each)),
    Fault("CompleteMultipartUpload", "replace", answer("200 OK", error("InternalError")), 1),
    Fault("CompleteMultipartUpload", "answer", answer("200 OK", error("InternalError")), 2),
]


@pytest.fixture(scope="module")
def daemon(store: Store, proxy: Proxy) -> Iterator[Daemon]:
    with Daemon("--remote", store.remote(proxy.url, PREFIX), *QUICK, env=CREDENTIALS) as it:
        it.start()
        ready(it)
        yield it
        assert not it.complaints(), "\n".join(it.complaints())
        for secret in CREDENTIALS["AWS_SECRET_ACCESS_KEY"], CREDENTIALS["AWS_ACCESS_KEY_ID"]:
            assert secret not in it.log


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_object_is_right_and_no_append_has_failed(fault: Fault, tus: Tus, store: Store, proxy: Proxy) -> None:
    if fault.how == "corrupt" and store.name == "moto":
        pytest.skip("moto compares no checksums")
    data = SMALL if fault.operation == "PutObject" else LARGE
    proxy.forget()
    before = store.objects(PREFIX)
    proxy.trouble(fault.operation, fault.how, answer=fault.answer, times=fault.times)
    path = send(tus, data)
    proxy.wait_for(1)
    if not fault.times:
        assert tus.patch(path, len(data)).status == 204
        assert tus.content(path) == data
        proxy.calm()
    stored(tus, path)
    proxy.calm()
    whole(store, PREFIX, path, data)
    assert len(store.objects(PREFIX)) == len(before) + 1
    assert not store.multiparts(PREFIX)
    assert proxy.struck >= 1
    # with a part that is wrong rclone drops the whole multipart, and those in flight beside it
    times = 2 if store.name == "rclone" and str(fault) == "UploadPart-corrupt" else 1
    assert len(proxy.of(path)) <= times * UNDISTURBED[len(data)] + EACH * proxy.struck, proxy.counts(path)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_undisturbed_it_takes_one_request_or_one_for_each_part_and_two(
    data: bytes, tus: Tus, store: Store, proxy: Proxy
) -> None:
    path = send(tus, data)
    stored(tus, path)
    whole(store, PREFIX, path, data)
    assert len(proxy.of(path)) == UNDISTURBED[len(data)], proxy.counts(path)


@pytest.mark.parametrize("seconds", [1, 2])
def test_a_store_that_asks_for_a_pause_gets_it(seconds: int, tus: Tus, store: Store, proxy: Proxy) -> None:
    """Retry-After: no request for the upload comes in between."""
    said = answer("503 Slow Down", error("SlowDown"), Retry_After=str(seconds))
    proxy.trouble("PutObject", "answer", answer=said)
    path = send(tus, SMALL)
    stored(tus, path)
    first, second = proxy.of(path)
    assert second.at - first.at >= 0.99 * seconds
    assert proxy.counts(path) == {"PutObject": 2}


@pytest.mark.slow
def test_a_storm_of_all_faults_at_once(daemon: Daemon, tus: Tus, store: Store, proxy: Proxy) -> None:
    """Ten uploads, and every kind of fault that ends by itself somewhere among their requests."""
    proxy.forget()
    for number, fault in enumerate(FAULTS):
        if fault.how not in ("stall", "corrupt" if store.name == "moto" else ""):
            proxy.trouble(fault.operation, fault.how, answer=fault.answer, times=1, skip=number % 3)
    contents = [replaced(LARGE if number % 2 else SMALL, number) for number in range(10)]
    paths = [send(tus, data) for data in contents]
    for path, data in zip(paths, contents, strict=True):
        stored(tus, path)
        whole(store, PREFIX, path, data)
    proxy.calm()
    assert not store.multiparts(PREFIX)
    total = sum(UNDISTURBED[len(data)] for data in contents)
    assert len(proxy.seen) <= total + EACH * proxy.struck


def replaced(data: bytes, number: int) -> bytes:
    """As long, but another content."""
    return number.to_bytes(4) + data[4:]


@pytest.mark.parametrize(
    ("operation", "data"), [("PutObject", SMALL), ("CreateMultipartUpload", LARGE)], ids=["one", "many"]
)
def test_metadata_that_the_store_refuses_parks_nothing(
    tus: Tus, store: Store, proxy: Proxy, daemon: Daemon, operation: str, data: bytes
) -> None:
    """The object goes without, with one warning; the client sees what it has written."""
    said = metadata(filename="größe.bin", note="n" * 300)
    proxy.forget()
    refusal = answer("400 Bad Request", error("MetadataTooLarge", "Your metadata headers exceed the maximum"))
    proxy.trouble(operation, "answer", answer=refusal, times=1)
    path = tus.create(len(data), {"Upload-Metadata": said})
    tus.finish(path, data)
    stored(tus, path)
    proxy.calm()
    whole(store, PREFIX, path, data)
    assert proxy.struck == 1 and tus.head(path)["upload-metadata"] == said
    lines = [line for line in daemon.log.splitlines() if "goes without" in line and path.rpartition("/")[2] in line]
    assert len(lines) == 1 and "MetadataTooLarge" in lines[0]

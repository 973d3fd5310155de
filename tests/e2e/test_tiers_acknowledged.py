"""``--ack remote``: a client is told of the end once the store has the object, and of length - 1 until then."""

from __future__ import annotations

import io
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tusclient.client import TusClient

from .daemon import BOUND, ROOT, Daemon, eventually
from .stores import CREDENTIALS, MIB, QUICK, Proxy, Store, ready, status, stored, whole
from .tus import OCTETS, Tus, check, head_bytes, metadata, patch_head, pattern
from .wire import Wire

PREFIX = "acknowledged"
FLAGS = ("--ack", "remote", "--ack-timeout", "1s", "--terminate-remote", "keep")
DATA = pattern(200_003, seed=1)


@pytest.fixture(scope="module")
def daemon(store: Store, proxy: Proxy) -> Iterator[Daemon]:
    with Daemon("--remote", store.remote(proxy.url, PREFIX), *QUICK, *FLAGS, env=CREDENTIALS) as it:
        it.start()
        ready(it)
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


@pytest.fixture
def outage(proxy: Proxy) -> Iterator[Proxy]:
    """The store is down until somebody says `up`."""
    proxy.down()
    yield proxy
    proxy.up()


def key(path: str) -> str:
    return path.rpartition("/")[2]


def silent(wire: Wire) -> bool:
    return not select.select([wire.socket], [], [], 0)[0]


@pytest.mark.parametrize("data", [DATA, pattern(11 * MIB, seed=2)], ids=["small", "large"])
def test_204_comes_only_when_the_object_is_there(
    data: bytes, daemon: Daemon, tus: Tus, store: Store, proxy: Proxy
) -> None:
    proxy.forget()
    held = "PutObject" if len(data) < MIB else "CompleteMultipartUpload"
    proxy.trouble(held, "hold")
    path = tus.create(len(data))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(data)) + data)
        proxy.wait_for(1)
        assert silent(wire)
        assert tus.offset(path) == len(data) - 1
        assert key(path) not in store.objects(PREFIX)
        proxy.calm()
        answer = check("PATCH", wire.answer("PATCH"))
    if answer.status == 503:  # this machine took more than a second
        answer = eventually(lambda: got if (got := tus.patch(path, len(data) - 1, data[-1:])).status == 204 else None)
    assert (answer.status, answer.offset) == (204, len(data))
    whole(store, PREFIX, path, data)
    assert status(tus, path)["state"] == "stored"
    assert tus.offset(path) == len(data)


def test_with_the_store_down_it_is_503_and_length_minus_one_until_it_is_back(
    tus: Tus, store: Store, outage: Proxy
) -> None:
    path = tus.create(len(DATA))
    refused = tus.patch(path, 0, DATA)
    assert refused.status == 503 and int(refused["retry-after"]) >= 1
    assert tus.offset(path) == len(DATA) - 1
    again = tus.patch(path, len(DATA) - 1, DATA[-1:])
    assert again.status == 503 and "retry-after" in again
    other = tus.patch(path, len(DATA) - 1, bytes([DATA[-1] ^ 1]))
    assert other.status == 409, "the last byte came again, and was another one"
    outage.up()
    answer = eventually(lambda: got if (got := tus.patch(path, len(DATA) - 1, DATA[-1:])).status == 204 else None)
    assert answer.offset == len(DATA)
    assert tus.offset(path) == len(DATA)
    whole(store, PREFIX, path, DATA)


def test_the_server_goes_on_by_itself_while_nobody_asks(tus: Tus, store: Store, outage: Proxy) -> None:
    path = tus.create(len(DATA))
    assert tus.patch(path, 0, DATA).status == 503
    outage.up()
    eventually(lambda: key(path) in store.objects(PREFIX))
    stored(tus, path)
    answer = tus.patch(path, len(DATA) - 1, DATA[-1:])
    assert (answer.status, answer.offset) in ((204, len(DATA)), (409, len(DATA)))
    assert tus.offset(path) == len(DATA)
    whole(store, PREFIX, path, DATA)


def test_a_daemon_that_dies_meanwhile_still_withholds_and_still_goes_on(
    daemon: Daemon, tus: Tus, store: Store, outage: Proxy
) -> None:
    path = tus.create(len(DATA))
    assert tus.patch(path, 0, DATA).status == 503
    daemon.restart()
    assert tus.offset(path) == len(DATA) - 1
    outage.up()
    stored(tus, path)
    assert tus.offset(path) == len(DATA)
    whole(store, PREFIX, path, DATA)


@pytest.mark.parametrize("data", [DATA, b"x"], ids=["many", "one"])
def test_creation_with_upload_is_201_with_the_offset_that_counts(
    data: bytes, tus: Tus, store: Store, proxy: Proxy
) -> None:
    """Creation-with-upload answers 201 + Location with that offset."""
    created = tus.post(len(data), None, data)
    assert (created.status, created.offset) == (201, len(data))
    whole(store, PREFIX, tus.path(created), data)
    proxy.down()
    created = tus.post(len(data), None, data)
    path = tus.path(created)
    assert (created.status, created.offset) == (201, len(data) - 1)
    assert tus.offset(path) == len(data) - 1
    proxy.up()
    assert eventually(lambda: tus.patch(path, len(data) - 1, data[-1:]).status == 204)
    whole(store, PREFIX, path, data)


def test_a_zero_length_upload_waits_too(tus: Tus, store: Store, proxy: Proxy) -> None:
    """A zero-length upload waits for finishing, else 503 with Location."""
    created = tus.post(0)
    assert created.status == 201
    whole(store, PREFIX, tus.path(created), b"")
    proxy.down()
    created = tus.post(0)
    assert created.status == 503 and "retry-after" in created
    path = tus.path(created)
    proxy.up()
    stored(tus, path)
    assert tus.offset(path) == 0
    whole(store, PREFIX, path, b"")


def test_a_client_that_goes_away_while_it_waits_disturbs_nothing(tus: Tus, store: Store, proxy: Proxy) -> None:
    proxy.forget()
    proxy.trouble("PutObject", "hold")
    path = tus.create(len(DATA))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(DATA)) + DATA)
        proxy.wait_for(1)
        wire.reset()
    proxy.calm()
    stored(tus, path)
    assert tus.offset(path) == len(DATA)
    whole(store, PREFIX, path, DATA)


def test_deleting_what_somebody_waits_for_ends_the_wait(tus: Tus, proxy: Proxy) -> None:
    proxy.forget()
    proxy.trouble("PutObject", "hold")
    path = tus.create(len(DATA))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(DATA)) + DATA)
        proxy.wait_for(1)
        assert tus.delete(path).status == 204
        answer = check("PATCH", wire.answer("PATCH"))
    assert answer.status in (410, 423, 503)
    proxy.calm()
    assert tus.head(path).status == 410


def test_sigterm_answers_those_who_wait(daemon: Daemon, tus: Tus, store: Store, proxy: Proxy) -> None:
    proxy.forget()
    proxy.trouble("PutObject", "hold")
    path = tus.create(len(DATA))
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, len(DATA)) + DATA)
        proxy.wait_for(1)
        daemon.terminate()
        answer = check("PATCH", wire.answer("PATCH"))
        assert answer.status == 503 and "retry-after" in answer
    assert daemon.wait() == 0
    proxy.calm()
    daemon.start()
    stored(tus, path)
    whole(store, PREFIX, path, DATA)


def test_tuspy_survives_an_outage(daemon: Daemon, tus: Tus, store: Store, outage: Proxy) -> None:
    uploader = TusClient(daemon.url).uploader(
        file_stream=io.BytesIO(DATA), chunk_size=60_000, retries=30, retry_delay=0.2
    )
    back = threading.Timer(2.5, outage.up)
    back.start()
    uploader.upload()
    back.join()
    assert uploader.offset == len(DATA)
    whole(store, PREFIX, f"/{key(uploader.url)}", DATA)


def test_the_example_client_survives_an_outage(
    daemon: Daemon, tus: Tus, store: Store, outage: Proxy, tmp_path: Path
) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(DATA)
    command = [sys.executable, str(ROOT / "examples" / "upload.py"), str(source), "--endpoint", daemon.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    back = threading.Timer(2.5, outage.up)
    back.start()
    out, err = process.communicate(timeout=BOUND)
    back.join()
    assert process.returncode == 0, err
    whole(store, PREFIX, f"/{key(out.strip())}", DATA)


def test_without_remote_for_an_upload_nobody_waits(store: Store, outage: Proxy) -> None:
    """An upload that no required remote takes is answered at once, whatever --ack says."""
    remote = store.remote(outage.url, "others", when="filetype:image/*")
    with Daemon("--remote", remote, *QUICK, *FLAGS, env=CREDENTIALS) as daemon:
        tus = daemon.start().attach(Tus(daemon.port))
        fields = {"Upload-Metadata": metadata(filetype="text/plain"), "Content-Type": OCTETS}
        message = head_bytes("POST", "/files/", {**fields, "Upload-Length": "3", "Content-Length": "3"}) + b"abc"
        with tus.wire() as wire:
            answer = check("POST", wire.send(message).answer())
        assert (answer.status, answer.offset) == (201, 3)

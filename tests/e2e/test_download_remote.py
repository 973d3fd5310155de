"""Files that only a store has: through the server, or from the store itself, whole and in ranges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from .daemon import Daemon, eventually, resident
from .stores import CREDENTIALS, MIB, QUICK, Proxy, Store, proxied, real_store, status, stored
from .tus import Tus, head_bytes, metadata, pattern
from .wire import Answer

DATA = pattern(24 * MIB + 11, seed=5)
NAME = {"Upload-Metadata": metadata(filename="ä page.html", filetype="text/html")}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Proxy]]:
    # rclone answers a range of a signed URL with 200
    with real_store(tmp_path_factory.mktemp("store"), "versitygw", "moto") as store, proxied(store) as it:
        yield store, it


@pytest.fixture(scope="module", params=["proxy", "redirect"])
def site(request: pytest.FixtureRequest, proxy: tuple[Store, Proxy]) -> Iterator[tuple[str, Tus, Daemon, str]]:
    """How it is downloaded, a client, the server, and the path of a file that only the store has."""
    store, way = proxy
    url = store.remote(way.url, request.param)
    flags = ("--remote", url, "--local", "drop", "--download-from-remote", request.param)
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(*flags, *QUICK, "--remote-timeout", "60s", env=CREDENTIALS)).start()
        tus = daemon.attach(Tus(daemon.port))
        stack.callback(tus.close)
        path = tus.create(len(DATA), NAME, DATA)
        stored(tus, path)
        eventually(lambda: status(tus, path)["local"] == "dropped")
        eventually(lambda: not (Path(daemon.upload_dir) / path.rpartition("/")[2]).exists())
        yield request.param, tus, daemon, path


def get(tus: Tus, path: str, **fields: str) -> Answer:
    with tus.wire() as wire:
        given = {"Tus-Resumable": None, "Connection": "close", **{k.replace("_", "-"): v for k, v in fields.items()}}
        return wire.send(head_bytes("GET", path, given)).answer()


def followed(tus: Tus, path: str, **fields: str) -> tuple[int, dict[str, str], bytes]:
    """What a browser ends up with."""
    request = Request(f"http://127.0.0.1:{tus.port}{path}", headers={k.replace("_", "-"): v for k, v in fields.items()})
    try:
        with urlopen(request) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except HTTPError as error:
        return error.code, {}, error.read()


def test_the_bytes_are_right_whole_and_in_ranges(site: tuple[str, Tus, Daemon, str]) -> None:
    way, tus, _, path = site
    assert get(tus, path).status == (200 if way == "proxy" else 307)
    code, fields, body = followed(tus, path)
    assert (code, body) == (200, DATA)
    assert fields["content-type"] == "application/octet-stream"
    assert fields["content-disposition"].startswith("attachment;")
    size = len(DATA)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=5242870-5242890", 5242870, 5242891),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
    ):
        code, fields, body = followed(tus, path, Range=asked)
        assert (code, body) == (206, DATA[start:end])
        assert fields["content-range"] == f"bytes {start}-{end - 1}/{size}"
    assert get(tus, path, Range=f"bytes={size}-").status == 416
    assert get(tus, path, If_None_Match="*").status == 304
    assert tus.offset(path) == size


def test_readers_that_leave_or_never_read_hold_no_memory(site: tuple[str, Tus, Daemon, str]) -> None:
    way, tus, daemon, path = site
    if way == "redirect":
        pytest.skip("the bytes don't come through here")
    before = resident(daemon)
    wires = [tus.wire() for _ in range(8)]
    try:
        for wire in wires:
            wire.send(head_bytes("GET", path))
        assert followed(tus, path)[2] == DATA, "others are served"
        assert resident(daemon) - before < 2 * len(DATA), "eight times the file would be 200 MiB"
    finally:
        for wire in wires:
            wire.close()


def test_while_the_store_is_down_it_is_503_and_afterwards_all_is_well(
    site: tuple[str, Tus, Daemon, str], proxy: tuple[Store, Proxy]
) -> None:
    _, tus, daemon, path = site
    proxy[1].down()
    answer = get(tus, path)
    assert answer.status == 503 and answer["retry-after"] and answer["content-type"] == "application/problem+json"
    proxy[1].up()
    assert followed(tus, path, Range="bytes=1-3")[2] == DATA[1:4]
    assert not [each for each in daemon.complaints() if "can't be read from" not in each]

"""Fixtures: one daemon for each module, with the module's FLAGS, and a client for each test; stores; small disks;
a file with the module's DATA, and Node, which sends it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from . import tools
from .daemon import BOUND, Daemon
from .disks import Mount
from .hook_server import HookServer
from .http2 import Tus2
from .stores import Proxy, Store, proxied, real_store
from .tus import Tus


@pytest.fixture(scope="module")
def protocol() -> str:
    """What clients speak: "http1" or "http2". A module whose tests have to pass over both gives this parameters."""
    return "http1"


@pytest.fixture(scope="module")
def body_way() -> str:
    """How long bodies come: as by default, or "direct" from the first read on. A module whose tests have to pass over
    both gives this parameters."""
    return "default"


@pytest.fixture(scope="module", autouse=True)
def ways(body_way: str) -> Iterator[None]:
    """All daemons of the module go this way."""
    Daemon.more = ("--direct-from", "1") if body_way == "direct" else ()
    yield
    Daemon.more = ()


@pytest.fixture(scope="module")
def daemon(request: pytest.FixtureRequest, protocol: str, ways: None) -> Iterator[Daemon]:
    """A running daemon with the flags that the module names in FLAGS; its log must stay free of complaints."""
    flags: tuple[str, ...] = getattr(request.module, "FLAGS", ())
    with Daemon(*flags, *(["--h2c"] if protocol == "http2" else [])) as it:
        it.start()
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


@pytest.fixture
def tus(daemon: Daemon, protocol: str) -> Iterator[Tus]:
    """A client of the module's daemon; starts the daemon again if a test before left it dead."""
    if not daemon.alive:
        daemon.start()
    client = daemon.attach((Tus2 if protocol == "http2" else Tus)(daemon.port))
    yield client
    client.close()


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with the bytes that the module names in DATA."""
    path = tmp_path / "big.bin"
    path.write_bytes(request.module.DATA)
    return path


@pytest.fixture(scope="module")
def node() -> str:
    """The path of Node, with tus-js-client and Uppy installed beside the scenarios."""
    found = tools.need("node")
    tools.install_npm("tus-js-client and Uppy", tools.NODE)
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The first store of S3's kind that is installed here."""
    with real_store(tmp_path_factory.mktemp("store")) as it:
        yield it


@pytest.fixture(scope="module")
def proxy(store: Store) -> Iterator[Proxy]:
    """The way to ``store``, on which a test makes trouble."""
    with proxied(store) as it:
        yield it


@pytest.fixture
def serve() -> Iterator[Callable[..., Daemon]]:
    """Starts daemons with these flags; their logs must stay free of complaints."""
    daemons: list[Daemon] = []

    def start(*flags: str, **options: Any) -> Daemon:
        daemons.append(Daemon(*flags, **options))
        return daemons[-1].start()

    yield start
    for each in daemons:
        complaints = each.complaints()
        each.close()
        assert not complaints, "\n".join(complaints)


@pytest.fixture
def hook() -> Iterator[HookServer]:
    """A hook server that answers well until a test says otherwise."""
    with HookServer() as server:
        yield server


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Mount]:
    """Makes file systems of so many bytes."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    with ExitStack() as mounted:

        def mount(size: int, options: str = "rw") -> Path:
            place = tmp_path / f"disk{size}-{options}"
            place.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size},{options}", "tmpfs", str(place)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
            if done.returncode != 0:
                pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", "-l", str(place)], timeout=BOUND, check=False)
            return place

        yield mount

"""Several daemons that share a PostgreSQL and an object store, and nothing else: nodes without a disk that matters.

Invariant: what is in the bucket is read from the store itself; the nodes reach it only through the proxy, which counts.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from tests.postgres import database
from tests.remotes.s3_proxy import OPERATIONS

from .daemon import Daemon, eventually
from .stores import CREDENTIALS, LONG, Proxy, Store, Trouble, real_store, unique_prefix
from .tus import Tus

ALL_OPERATIONS = [
    ("DeleteObjects", rb"POST [^ ]*[?&]delete"),
    ("ListObjects", rb"GET [^ ]*[?&]list-type="),
    ("UploadPartCopy", rb"(?is)PUT [^ ]*partNumber=.*\r\nx-amz-copy-source:"),
    ("GetBucketLifecycleConfiguration", rb"GET [^ ]*[?&]lifecycle"),
    ("GetBucketVersioning", rb"GET [^ ]*[?&]versioning"),
    ("Options", rb"OPTIONS "),
    *OPERATIONS,
]
#: Attempts are few and near each other, so that a test needn't wait for them.
QUICK = ("--part-size", "5M", "--remote-timeout", "10s")
#: The janitor comes every two seconds.
SHORT = ("--keep-partials", "20s")
SHIFT = 100_000
"""Seconds that pass at once for what is to be removed, a day and more."""


class Node(Daemon):
    """It has a run directory below its home, and no upload directory."""

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    def arguments(self) -> list[str]:
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        run = () if "--run-dir" in self.flags else ("--run-dir", str(self.run_dir))
        return ["resumable", "--listen", listen, *run, *self.flags]

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def stop_dead(self) -> None:
        """SIGKILL by whoever is in its way, without a word to its clients."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait()

    def lose_disk(self) -> None:
        """All that it has written goes, as with its machine. It must not run."""
        assert not self.alive
        for each in self.home.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()


class Diskless:
    """``count`` nodes with one bucket. ``options``: of the spool's URL. ``operations``: what the proxy tells apart;
    None: as the store says."""

    operations: Sequence[tuple[str, bytes]] | None = ALL_OPERATIONS

    def __init__(self, store: Store, count: int, *flags: str, env: Mapping[str, str] | None = None, **options: str):
        self.store, self.prefix = store, unique_prefix()
        self.proxy = Proxy(store.port, self.operations or store.operations)
        self.url = database()
        shared = ("--catalog", self.url, "--spool", store.remote(self.proxy.url, self.prefix, **options))
        self.nodes = [Node(*shared, *flags, env={**CREDENTIALS, **(env or {})}) for _ in range(count)]
        self.tus = [node.attach(Tus(node.port)) for node in self.nodes]

    def start(self) -> Diskless:
        """All of those that don't run."""
        dead = [each for each in self.nodes if not each.alive]
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(Node.start, dead))
        return self

    def __enter__(self) -> Diskless:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for client in self.tus:
            client.close()
        for node in self.nodes:
            node.close()
        self.proxy.down()

    def fresh(self) -> None:
        """Requests count from nothing, and come over new connections: nodes close those that were long unused."""
        self.proxy.forget()
        for client in self.tus:
            client.close()

    def complaints(self) -> list[str]:
        return [each for node in self.nodes for each in node.complaints()]

    # -- the catalog

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows, if there may be any."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            done = connection.execute(statement, values or None)
            return done.fetchall() if done.description else []

    def pass_time(self) -> None:
        """A day and more has passed since what is gone went, and since what was replaced was; once for each of it."""
        for table, column in (("uploads", "gone_at"), ("uploads", "dropped_at"), ("discarded", "at")):
            self.ask(
                f"UPDATE {table} SET {column} = {column} - {SHIFT}"
                f" WHERE {column} > extract(epoch FROM clock_timestamp()) - {SHIFT / 2}"
            )

    def expire(self, *paths: str) -> None:
        """Nobody has touched these for very long."""
        ids = [upload_id(each) for each in paths]
        self.ask("UPDATE uploads SET touched_at = 1, created_at = 1 WHERE id = ANY(%s)", ids)

    @contextmanager
    def locked(self, path: str) -> Iterator[None]:
        """Nobody can change the upload's row meanwhile: a commit is under way, and doesn't land."""
        with psycopg.connect(self.url) as connection:
            connection.execute("SELECT FROM uploads WHERE id = %s FOR UPDATE", (upload_id(path),))
            yield
            connection.rollback()

    def commit_waits(self) -> bool:
        """Whether somebody waits for a lock."""
        return self.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")[0][0] > 0

    def row(self, path: str) -> tuple[int, bool]:
        """Offset, and whether the object is there."""
        ((offset, whole),) = self.ask('SELECT "offset", whole FROM uploads WHERE id = %s', upload_id(path))
        return offset, whole

    def whole(self, path: str) -> None:
        """Wait until the object is there, and nothing else of this upload's parts and tail is recorded."""
        eventually(lambda: self.row(path)[1])

    # -- the store

    def left(self) -> list[str]:
        """Objects and unfinished multiparts under the prefix, but for the marker."""
        objects = [each for each in self.store.objects(self.prefix) if not each.endswith(".marker")]
        return [*objects, *self.store.multiparts(self.prefix)]

    def requests(self, path: str) -> Counter[str]:
        """Those about this upload since the last `forget`, and all that removed something."""
        name = upload_id(path)
        found = [each for each in self.proxy.seen if name in each.target or each.operation == "DeleteObjects"]
        return Counter(each.operation for each in found)

    def strike(self, node: Node, operation: str, how: str, **more: Any) -> Trouble:
        """SIGKILL for the node when it comes to that request: see `Trouble`."""
        return self.proxy.trouble(operation, how, do=node.stop_dead, **more)


def upload_id(path: str) -> str:
    return path.rpartition("/")[2]


@contextmanager
def diskless(
    directory: Path, count: int, *flags: str, env: Mapping[str, str] | None = None, **options: str
) -> Iterator[Diskless]:
    """Nodes on the first store that can be had; rclone's has no conditions. Their logs stay free of complaints."""
    with ExitStack() as stack:
        store = stack.enter_context(real_store(directory, "versitygw", "moto"))
        nodes = stack.enter_context(Diskless(store, count, *flags, env=env, **options))
        yield nodes
        assert not nodes.complaints(), "\n".join(nodes.complaints())


@contextmanager
def meanwhile(call: Callable[[], object]) -> Iterator[None]:
    """It goes on in a thread of its own; its end is waited for. What it raises by losing its server is dropped."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except (OSError, EOFError):
            pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failed, failed


def patched(port: int, path: str, offset: int, data: bytes) -> int:
    """The status of a PATCH on a connection of its own. Raises OSError, EOFError."""
    with closing(Tus(port)) as client:
        return client.patch(path, offset, data).status


__all__ = ["LONG", "QUICK", "SHORT", "Diskless", "Node", "diskless", "meanwhile", "patched", "upload_id"]

"""One soak from beginning to end.

Its course: a time with restarts; two long times of one process with everything except restarts, and a rest after each;
and the reckoning. Invariant: each fault that is found ends up in the ledger; nothing is excused.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from resumable.cli.admin_client import AdminClient, AdminLine
from tests.e2e.daemon import Daemon
from tests.e2e.hook_server import YES, HookServer
from tests.e2e.stores import CREDENTIALS, Store, proxied, ready, real_store, unique_prefix
from tests.e2e.tus import Tus
from tests.waiting import eventually, free_port

from . import watch
from .auditor import Auditor, unkept, untold
from .clients import PATIENCE, at_work
from .draft_clients import DraftClient
from .ledger import Ledger
from .trouble import Troubles

AUDITORS = 3
SOON = 2.0
"""Seconds after which unfinished uploads and partials go at the end."""
FLAGS = (
    "--part-size", "5M", "--retry-delay", "50ms", "--retry-delay-max", "2s", "--remote-timeout", "5s",
    "--hook-timeout", "1s", "--guard-timeout", "3s", "--guard-questions", "before-create", "--remember", "1s",
    "--h2c", "--local", "drop", "--network-timeout", "10", "--log-format", "json",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """``clients`` at once. ``restarts``: troubles at first, many of them restarts; then twice ``troubles``, without.

    Each lasts ``seconds`` on the average, and is followed by a shorter pause. ``expiry``: seconds after which
    unfinished uploads go; more than any client is ever silent.
    """

    clients: int
    restarts: int
    troubles: int
    seconds: float
    admin_port: int = 0
    expiry: float = 120.0


class Soak:
    """``ledger.problems`` says what was wrong after `run`."""

    def __init__(self, plan: Plan, scratch: Path, say: Callable[[str], None]) -> None:
        self.ledger = Ledger()
        self._plan = plan
        self._scratch = scratch
        self._say = say
        self._gate = threading.Event()
        self._over = threading.Event()
        self._random = Random(3)
        self.log = ""
        self._admin = f"unix:{scratch}/admin.sock"
        self._admin_port = plan.admin_port or free_port()

    def run(self) -> None:
        with ExitStack() as stack:
            store = stack.enter_context(real_store(self._scratch))
            proxy = stack.enter_context(proxied(store))
            hook = stack.enter_context(HookServer(pause=0.7))
            guard = stack.enter_context(HookServer(lambda _: YES))
            prefix = unique_prefix()
            daemon = stack.enter_context(
                Daemon(
                    "--remote",
                    store.remote(proxy.url, prefix),
                    "--hook",
                    f"soak={hook.url}",
                    "--guard",
                    guard.url,
                    "--admin-listen",
                    f"tcp:{self._admin_port}:interface=127.0.0.1",
                    "--admin-listen",
                    self._admin,
                    *FLAGS,
                    "--expire-after",
                    f"{self._plan.expiry:g}s",
                    "--keep-partials",
                    f"{self._plan.expiry:g}s",
                    env=CREDENTIALS,
                    upload_dir=self._scratch / "uploads",
                )
            )
            daemon.start()
            ready(daemon)
            troubles = Troubles(daemon, proxy, hook, guard, self.ledger, self._plan.seconds)
            auditors = [Auditor(daemon.port, store, prefix, self.ledger, seed) for seed in range(AUDITORS)]
            for each in auditors:
                each.start()
            stack.callback(self._keep_log, daemon)
            self._course(daemon, troubles, auditors)
            self._reckon(daemon, store, prefix, hook)

    def _keep_log(self, daemon: Daemon) -> None:
        self.log = daemon.log

    def _course(self, daemon: Daemon, troubles: Troubles, auditors: list[Auditor]) -> None:
        plan = self._plan
        with self._clients(daemon.port) as clients:
            self._gate.set()
            kinds = [*troubles.everyday(), *troubles.restarts() * 4]
            troubles.make_all(kinds, plan.restarts, self._random, self._say)
            self._rest(daemon, troubles, clients, auditors)
            rests = []
            for _ in range(2):  # by the first rest all that is kept for good has been met
                self._gate.set()
                troubles.make_all(troubles.everyday(), plan.troubles, self._random, self._say)
                rests.append(self._rest(daemon, troubles, clients, auditors))
        for each in watch.leaks(*rests):
            self.ledger.problem(each)
        for each in auditors:
            each.closing.set()
            each.join()
        self._say(f"troubles: {dict(troubles.made)}")

    @contextmanager
    def _clients(self, port: int) -> Iterator[list[DraftClient]]:
        clients = [
            DraftClient(Tus(port, timeout=20), self.ledger, seed + 1, self._gate, self._over)
            for seed in range(self._plan.clients)
        ]
        with at_work(clients, self._over):
            yield clients

    def _rest(
        self, daemon: Daemon, troubles: Troubles, clients: list[DraftClient], auditors: list[Auditor]
    ) -> watch.Rest:
        """Nobody asks for anything, and all that was to be done is done."""
        self._gate.clear()
        for each in clients:
            each.resting.wait()
        troubles.calm()
        eventually(lambda: self._metric('resumable_outbox_waiting{hook="soak"}') == 0, 4 * PATIENCE)
        for each in auditors:
            each.idle.clear()  # it sets it again when all that was finished is stored and right
        for each in auditors:
            each.idle.wait()
        eventually(lambda: self._metric("resumable_connections") == 0, PATIENCE)
        threading.Event().wait(3)  # free memory is given back now and then
        assert daemon.process is not None
        found = watch.rest(daemon.process.pid)
        self._say(f"at rest after {sum(self.ledger.done.values())} turns of clients: {found}")
        return found

    def _metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin_port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        found = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in found}

    def _metric(self, name: str) -> float | None:
        return self._metrics().get(name)

    def _reckon(self, daemon: Daemon, store: Store, prefix: str, hook: HookServer) -> None:
        """Nothing was lost, everything was told, and nothing is left over. No client is there any more, so what is
        unfinished may expire soon."""
        ledger = self.ledger
        self._stop(daemon)
        daemon.flags = (*daemon.flags, "--expire-after", f"{SOON:g}s", "--keep-partials", f"{SOON:g}s")
        daemon.start()
        kept = sum(not each.gone for each in ledger.promises)

        def clean() -> bool:  # what was begun by lost requests expires, what was deleted goes
            return not unkept(ledger, store, prefix) and not untold(ledger, hook)

        until = time.monotonic() + 2 * PATIENCE
        while not clean() and time.monotonic() < until:
            threading.Event().wait(0.5)
        for each in [*unkept(ledger, store, prefix), *untold(ledger, hook)][:20]:
            ledger.problem(each)
        self._expired(daemon)
        eventually(lambda: self._metric('resumable_outbox_waiting{hook="soak"}') == 0, PATIENCE)
        self._stop(daemon)
        for each in daemon.complaints():
            ledger.problem(f"in the log: {each}")
        rows, files = watch.rows(daemon.upload_dir), watch.files(daemon.upload_dir)
        self._say(f"rows left: {json.dumps(rows)}, data files left: {len(files)}, uploads kept: {kept}")
        if not kept <= rows["uploads"] <= kept + ledger.unknown:
            ledger.problem(f"{rows['uploads']} rows of uploads, {kept} were kept, {ledger.unknown} had no answer")
        ledger.problems += [
            f"{rows[each]} rows are left in {each}" for each in ("outbox", "replica_parts", "pins") if rows[each]
        ]
        if rows["replicas"] > rows["uploads"]:
            ledger.problem(f"{rows['replicas']} replicas of {rows['uploads']} uploads are left")
        if files:
            ledger.problem(f"data files are left: {files[:5]}")

    def _stop(self, daemon: Daemon) -> None:
        status = daemon.stop()
        if status:
            self.ledger.problem(f"a stop at the end ended with status {status}")

    def _expired(self, daemon: Daemon) -> None:
        """Partials and unfinished ones have expired, and what is gone is forgotten: a round after its file went."""
        records = AdminClient(AdminLine(self._admin))

        def left() -> bool:
            return bool(watch.files(daemon.upload_dir)) or any(
                page for state in ("gone", "uploading") for page in records.uploads({"state": state}, None)
            )

        until = time.monotonic() + 2 * PATIENCE
        while left() and time.monotonic() < until:
            threading.Event().wait(0.5)

"""One soak of several processes, from beginning to end: nodes, or the workers of one machine.

Its course: a time in which processes die; two long times of the same processes, in which everything else goes wrong,
and a rest after each; and the reckoning. Invariant: each fault that is found ends up in the ledger; nothing is excused.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

from resumable.httpclient.client import HttpLimits
from tests.e2e.balancer import Balancer
from tests.e2e.hook_server import YES, HookServer
from tests.e2e.stores import CREDENTIALS, Proxy, Store, real_store, unique_prefix
from tests.e2e.tus import Tus, sha256
from tests.remotes.s3_proxy import OPERATIONS
from tests.waiting import eventually

from . import shared_watch, watch
from .auditor import Auditor, unkept, untold
from .clients import LATER, PATIENCE, at_work
from .fleet import Fleet, NodeFleet, Postgres, WorkerFleet
from .ledger import Ledger, Promise
from .moments import MOMENTS, REQUESTS, Moments
from .probe import Probe
from .shared_clients import Bait, BalancedTus, SharedClient
from .shared_trouble import SharedTroubles

AUDITORS = 3
KEPT = 40 << 20
"""Bytes of uploads that stay to the end."""
MOST_STORED, MOST_UNFINISHED = 1500 << 20, 80
FLAGS = (
    "--part-size", "5M", "--retry-delay", "50ms", "--retry-delay-max", "2s", "--remote-timeout", "5s",
    "--hook-timeout", "1s", "--guard-timeout", "3s", "--guard-questions", "before-create,before-finish",
    "--remember", "1s", "--network-timeout", "10", "--log-format", "json",
    "--max-stored", str(MOST_STORED), "--max-unfinished", str(MOST_UNFINISHED),
)  # fmt: skip
BAITS = {"assembly": "large_finals", "finishing": "halves"}
"""What clients do so that processes are caught in these moments."""
FLEETS: dict[str, type[NodeFleet | WorkerFleet]] = {"nodes": NodeFleet, "workers": WorkerFleet}
SWEPT = 240.0
"""Seconds within which what is to be removed is: a minute, a round, and another one for what a claim's end took."""
MORE_CONNECTIONS = 6
POOLED = 8
"""Connections to the database and threads that a process may have more than at the rest before. Those to the store, the
hook and the guard are many more after a burst, but none is kept for longer than `UNUSED`."""
UNUSED = HttpLimits().kept_for + 3
"""Seconds after which no unused connection is left, and free memory was given back."""
REMOVALS = "SELECT FROM replicas WHERE state = 'ending' AND looks < 2"


@dataclass(frozen=True)
class SharedPlan:
    """``deaths``: troubles at first, in which processes die; then twice ``troubles`` of the others.

    ``longest``: seconds that a process stands still at most. ``bound``: seconds that no upload may stand still for
    longer; None: the machine promises nothing. ``sweeps``: whether the end of all that is removed late is waited for,
    which takes minutes. ``expiry``: seconds; more than any client is ever silent. ``first``: names of the troubles
    to begin with, instead of any ``deaths``.
    """

    shape: str
    clients: int
    deaths: int
    troubles: int
    seconds: float
    longest: float = 30.0
    bound: float | None = 1.0
    sweeps: bool = True
    expiry: float = 300.0
    seed: int = 1
    first: tuple[str, ...] = ()


class SharedAuditor(Auditor):
    """Also reads each upload at each process, and the file under its id."""

    def __init__(self, fleet: Fleet, store: Store, prefix: str, ledger: Ledger, seed: int, port: int) -> None:
        super().__init__(port, store, prefix, ledger, seed, terminates=0.9)
        self._fleet = fleet
        self._tus = BalancedTus(port, ledger, fleet.database)

    def _audit(self, promise: Promise) -> None:
        for port in self._fleet.ports * (3 // len(self._fleet.ports)):
            self._read(promise, port)
        self._look(promise)
        with self._ledger.lock:
            self._ledger.read += promise.size
            keeps = promise.size + self._ledger.kept <= KEPT and self._random.random() < 0.3
            if keeps:
                self._ledger.kept += promise.size
        self._terminates = 0.0 if keeps else 1.0
        super()._audit(promise)

    def _look(self, promise: Promise) -> None:
        """At where its bytes are."""
        file = self._fleet.upload_dir / promise.id
        assert shared_watch.wait_for(file.is_file, PATIENCE), "no file is under its id"
        assert sha256(file.read_bytes()) == promise.digest, "another file is under its id"

    def _read(self, promise: Promise, port: int) -> None:
        until = time.monotonic() + 2 * PATIENCE
        while True:
            tus = Tus(port, timeout=20)
            answer = None
            try:
                answer = tus.get(promise.path)
            except (OSError, EOFError):
                pass
            finally:
                tus.close()
            if answer is not None and answer.status == 200:
                assert sha256(answer.body) == promise.digest, f"GET at {port}: other bytes"
                return
            assert answer is None or answer.status in LATER, f"GET at {port}: {str(answer)[:300]}"
            assert time.monotonic() < until, f"GET at {port}: {answer}"
            threading.Event().wait(0.1)

    def _state(self, promise: Promise) -> str:
        try:
            answer = self._tus.get(f"{promise.path}/status")
        except (OSError, EOFError):
            return "unknown"
        if answer.status in (502, 503):
            return "unknown"
        assert answer.status == 200, answer
        return str(json.loads(answer.body)["state"])


class SharedSoak:
    """``ledger.problems`` says what was wrong after `run`."""

    operations: ClassVar[Sequence[tuple[str, bytes]]] = OPERATIONS
    told: ClassVar[Sequence[str]] = ("created", "finished", "stored", "stored")
    rules: ClassVar[Mapping[str, str]] = shared_watch.RULES
    tables: ClassVar[Sequence[str]] = shared_watch.TABLES
    emptied: ClassVar[Sequence[str]] = ("segments", "discarded", "pins", "outbox", "replica_parts")
    """Tables in which no row is left at the end."""
    moments: ClassVar[Mapping[str, str]] = MOMENTS
    requests: ClassVar[Mapping[str, Sequence[str]]] = REQUESTS
    baits: ClassVar[Mapping[str, str]] = BAITS
    auditors: ClassVar[int] = AUDITORS
    may_grow: ClassVar[int] = watch.MAY_GROW
    pooled: ClassVar[int] = POOLED
    stores: ClassVar[Sequence[str]] = ()
    """Those that will do; none: any."""

    def __init__(self, plan: SharedPlan, scratch: Path, say: Callable[[str], None]) -> None:
        self.ledger = Ledger(self.told)
        self.log = ""
        self._plan = plan
        self._scratch = scratch
        self._say = say
        self._gate = threading.Event()
        self._over = threading.Event()
        self._random = Random(plan.seed)

    def run(self) -> None:
        plan = self._plan
        with ExitStack() as stack:
            store = stack.enter_context(real_store(self._scratch, *self.stores))
            proxy = Proxy(store.port, self.operations)
            stack.callback(proxy.down)
            hook = stack.enter_context(HookServer(pause=0.7))
            guard = stack.enter_context(HookServer(lambda _: YES))
            database = stack.enter_context(Postgres())
            prefix = unique_prefix()
            flags = (
                *("--hook", f"soak={hook.url}", "--guard", guard.url),
                *(*FLAGS, "--expire-after", f"{plan.expiry:g}s", "--keep-partials", f"{plan.expiry:g}s"),
            )
            fleet = self._fleet(database, store.remote(proxy.url, prefix), flags)
            stack.callback(fleet.close)
            stack.callback(self._keep_log, fleet)
            fleet.start()
            balancer = stack.enter_context(Balancer(fleet.ports))
            probe = Probe(fleet, self.ledger, plan.seed, plan.bound)
            baits = {
                moment: Bait(BalancedTus(balancer.port, self.ledger, database), self.ledger, seed, self._over, what)
                for seed, (moment, what) in enumerate(self.baits.items(), 100 * plan.seed + 90)
            }
            moments = Moments(fleet, proxy, guard, baits, self.moments, self.requests)
            troubles = SharedTroubles(
                *(fleet, balancer, probe, moments, proxy, hook, guard, self.ledger),
                *(plan.seconds, plan.longest, plan.seed),
            )
            auditors = [self._auditor(fleet, store, prefix, seed, balancer.port) for seed in range(self.auditors)]
            sampler = shared_watch.Sampler(fleet, self.ledger, (MOST_STORED, MOST_UNFINISHED), self.rules)
            for each in (sampler, *auditors):
                each.start()
            self._course(fleet, balancer, troubles, auditors, list(baits.values()))
            self._say(f"troubles: {dict(troubles.made)}")
            self._say(f"struck in the middle of: {dict(troubles.hits)}")
            if plan.sweeps:  # else so few that one may miss
                self.ledger.problems += troubles.missed()
            self._say(f"standing still: {probe.stuck}")
            self._say(
                f"catalog: {sampler.looks} looks, at most {sampler.connections} connections, {sampler.used} used,"
                f" {sampler.idle:.1f} s idle in a transaction"
            )
            self._reckon(fleet, store, prefix, hook)
            sampler.closing.set()
            sampler.join()
            self._end(fleet)
            self._leftovers(fleet, store, prefix)

    def _fleet(self, database: Postgres, url: str, flags: Sequence[str]) -> Fleet:
        """``url``: of the store."""
        return FLEETS[self._plan.shape](database, self._scratch, "--remote", url, *flags, env=CREDENTIALS)

    def _auditor(self, fleet: Fleet, store: Store, prefix: str, seed: int, port: int) -> SharedAuditor:
        return SharedAuditor(fleet, store, prefix, self.ledger, seed, port)

    def _keep_log(self, fleet: Fleet) -> None:
        self.log = fleet.logs

    def _course(
        self,
        fleet: Fleet,
        balancer: Balancer,
        troubles: SharedTroubles,
        auditors: list[SharedAuditor],
        baits: list[Bait],
    ) -> None:
        plan = self._plan
        with self._clients(balancer.port, fleet, baits) as clients:
            self._gate.set()
            kinds = [troubles.named(name) for name in plan.first] or troubles.deaths()
            troubles.make_all(kinds, len(plan.first) or plan.deaths, self._random, self._say)
            rests = [self._rest(fleet, troubles, clients, auditors)]
            for _ in range(2 if plan.troubles else 0):  # by the second rest all that is kept for good has been met
                self._gate.set()
                troubles.make_all(troubles.everyday(), plan.troubles, self._random, self._say)
                rests.append(self._rest(fleet, troubles, clients, auditors))
        (before, connections), (after, more) = rests[-2:] if plan.troubles else rests * 2
        if before.keys() != after.keys():
            self.ledger.problem(f"processes have ended: {sorted(before)} are {sorted(after)}")
        for pid in before.keys() & after.keys():
            for each in watch.leaks(before[pid], after[pid], self.pooled, self.may_grow):
                self.ledger.problem(each)
        if more > connections + MORE_CONNECTIONS:
            self.ledger.problem(f"connections to the database have grown: {connections} -> {more}")
        for auditor in auditors:
            auditor.closing.set()
            auditor.join()

    @contextmanager
    def _clients(self, port: int, fleet: Fleet, baits: list[Bait]) -> Iterator[list[SharedClient]]:
        clients = [
            *baits,
            *(
                SharedClient(
                    BalancedTus(port, self.ledger, fleet.database),
                    *(self.ledger, 100 * self._plan.seed + number, self._gate, self._over),
                    abandons=self._plan.sweeps,
                )
                for number in range(1, self._plan.clients + 1)
            ),
        ]
        with at_work(clients, self._over):
            yield clients

    def _rest(
        self, fleet: Fleet, troubles: SharedTroubles, clients: list[SharedClient], auditors: list[SharedAuditor]
    ) -> tuple[dict[int, watch.Rest], int]:
        """Nobody asks for anything, and all that was to be done is done."""
        self._gate.clear()
        for each in clients:
            each.resting.wait()
        troubles.calm()
        told = shared_watch.wait_for(lambda: fleet.database.ask("SELECT FROM outbox") == [], 2 * PATIENCE)
        if not told:
            left = fleet.database.ask("SELECT state, kind, attempts, error, count(*) FROM outbox GROUP BY 1, 2, 3, 4")
            self.ledger.problem(f"events wait: {left[:10]}")
        for each in auditors:
            each.idle.clear()  # it sets it again when all that was finished is stored and right
        for each in auditors:
            each.idle.wait()
        eventually(lambda: fleet.connections() == 0, PATIENCE)
        if self._plan.troubles:  # this rest is compared with another one
            shared_watch.wait_for(lambda: fleet.database.ask(REMOVALS) == [], 2 * PATIENCE)
            threading.Event().wait(UNUSED)
        found = {pid: watch.rest(pid) for pid in fleet.serving()}
        connections = fleet.database.ask(shared_watch.CONNECTIONS)[0][0]
        self._say(
            f"at rest after {sum(self.ledger.done.values())} turns of clients: {connections} connections; "
            + "; ".join(f"{pid}: {each}" for pid, each in found.items())
        )
        return found, connections

    def _reckon(self, fleet: Fleet, store: Store, prefix: str, hook: HookServer) -> None:
        """Nothing was lost, everything was told, and nothing is left over."""
        ledger = self.ledger

        def wrong() -> list[str]:
            return [*self._unkept(store, prefix), *untold(ledger, hook), *disorder(hook)]

        # What was begun by lost requests expires, what was deleted goes.
        shared_watch.wait_for(lambda: not wrong(), PATIENCE + 2 * self._plan.expiry)
        for each in wrong()[:20]:
            ledger.problem(each)
        kept = {each.id for each in ledger.promises if not each.gone}
        if self._plan.sweeps:
            self._sweeps(fleet, kept)

    def _unkept(self, store: Store, prefix: str) -> list[str]:
        return unkept(self.ledger, store, prefix)

    def _sweeps(self, fleet: Fleet, kept: set[str]) -> None:
        """All that goes late has gone."""
        ledger = self.ledger

        def left() -> list[str]:
            found = shared_watch.rows(fleet, self.tables)
            wrong = [f"{found[each]} rows are left in {each}" for each in self.emptied if found[each]]
            if not len(kept) <= found["uploads"] <= len(kept) + ledger.unknown:
                wrong.append(f"{found['uploads']} rows of uploads, {len(kept)} were kept, {ledger.unknown} unknown")
            if found["replicas"] > found["uploads"]:
                wrong.append(f"{found['replicas']} replicas of {found['uploads']} uploads")
            return wrong

        shared_watch.wait_for(lambda: not left(), SWEPT + 3 * self._plan.expiry)
        for each in left():
            ledger.problem(each)
        found = fleet.database.ask(
            "SELECT name, holder IN (SELECT id FROM workers) FROM claims WHERE name LIKE 'final:%'"
        )
        if found:
            ledger.problem(f"claims are left: {found[:5]}")
        self._say(f"rows left: {json.dumps(shared_watch.rows(fleet, self.tables))}; uploads kept: {len(kept)}")

    def _end(self, fleet: Fleet) -> None:
        for status in fleet.stop():
            if status:
                self.ledger.problem(f"the last stop ended with status {status}")
        rows = fleet.database.ask("SELECT id, pid FROM workers WHERE seen_at > extract(epoch FROM now()) - 10")
        if rows:
            self.ledger.problem(f"rows of workers are left: {rows}")
        for daemon in fleet.daemons:
            for each in daemon.complaints():
                self.ledger.problem(f"in the log: {each}")

    def _leftovers(self, fleet: Fleet, store: Store, prefix: str) -> None:
        """What crashes have left is swept, and nothing else."""
        ledger = self.ledger
        unnamed = len(shared_watch.unnamed(fleet))
        removed = shared_watch.sweep_as_after_days(fleet)
        self._say(f"files that crashes and refused changes had left: {removed}, {unnamed} of them segments")
        ledger.problems += [f"{each}: no row names it" for each in shared_watch.unnamed(fleet)][:10]
        ledger.problems += [f"{each} is left in .resumable" for each in shared_watch.odd(fleet.upload_dir)]
        there = shared_watch.files(fleet.upload_dir)
        known = {each for (each,) in fleet.database.ask("SELECT id FROM uploads WHERE whole AND on_disk = 1")}
        ledger.problems += [f"{each}: a file of no upload" for each in sorted(there - known)[:10]]
        for promise in ledger.promises:
            if promise.gone:
                continue
            if promise.id not in there:
                ledger.problem(f"{promise.id}: no file is under its id at the end")
            elif sha256((fleet.upload_dir / promise.id).read_bytes()) != promise.digest:
                ledger.problem(f"{promise.id}: another file is under its id at the end")


def disorder(hook: HookServer) -> list[str]:
    """Events whose first coming was not in the order of their sequence, or that have two."""
    numbers: dict[str, str] = {}
    last: dict[str, str] = {}
    wrong = []
    for each in hook.documents:
        if each["id"] in numbers:
            if numbers[each["id"]] != each["sequence"]:
                wrong.append(f"event {each['id']} of {each['subject']} has had two numbers")
            continue
        numbers[each["id"]] = each["sequence"]
        if last.get(each["subject"], "") >= each["sequence"]:
            wrong.append(f"{each['subject']}: {each['type']} {each['sequence']} came after {last[each['subject']]}")
        last[each["subject"]] = each["sequence"]
    return wrong

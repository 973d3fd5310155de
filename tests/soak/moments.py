"""What a process is in the middle of, and how to catch it there.

Invariant: a moment counts only if it is found while the process stands still, so that it can't have passed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from tests.e2e.hook_server import HookServer
from tests.e2e.stores import Proxy

from .clients import PATIENCE
from .fleet import Ask, Fleet
from .shared_clients import Bait

MOMENTS: Final[Mapping[str, str]] = {
    "body": "SELECT pid, uploads.id FROM uploads JOIN workers ON kept_by = workers.id WHERE gone IS NULL",
    "commit": """WITH free AS (SELECT id FROM workers FOR NO KEY UPDATE SKIP LOCKED)
        SELECT pid, id FROM workers WHERE id NOT IN (SELECT id FROM free)""",
    "finishing": """SELECT pid, uploads.id FROM uploads JOIN segments ON upload_id = uploads.id
        JOIN workers ON split_part(name, '-', -2) = workers.id
        WHERE finished_at IS NOT NULL AND NOT whole AND gone IS NULL""",
    "withheld": """SELECT pid, uploads.id FROM claims JOIN workers ON holder = workers.id
        JOIN uploads ON name = 'finish:' || uploads.id WHERE finished_at IS NULL AND "offset" = length""",
    "assembly": "SELECT pid, name FROM claims JOIN workers ON holder = workers.id WHERE name LIKE 'final:%'",
    "copy": "SELECT pid, upload_id FROM replicas JOIN workers ON holder = workers.id WHERE state = 'open'",
}
"""Processes in the middle of what is named: ``copy`` is one to a remote, to be looked for in the requests, too."""
REQUESTS: Final[Mapping[str, Sequence[str]]] = {"copy": ("PutObject", "UploadPart")}
AIMING: Final = 20.0
"""Seconds that are waited for a process to be in the middle of it."""
HELD: Final = 4
"""Requests of each kind that the store leaves unanswered, for one of them to be caught."""
RELOAD: Final = "SELECT pg_reload_conf()"
SLOW_COMMITS: Final = ("ALTER SYSTEM SET commit_siblings = 0", "ALTER SYSTEM SET commit_delay = 50000", RELOAD)
"""As with a slow disk: each takes 50 ms."""
QUICK_COMMITS: Final = ("ALTER SYSTEM RESET commit_siblings", "ALTER SYSTEM RESET commit_delay", RELOAD)


@dataclass(frozen=True)
class Caught:
    """A process that stands still. ``moments``: all in which it does."""

    pid: int
    moments: set[str]


class Moments:
    """``baits``: clients that lead to a moment, by its name. ``known``: the moments, as `MOMENTS`; ``requests``: those
    that are to be looked for in the requests to the store, too, and the operations that are held up for them."""

    def __init__(
        self,
        fleet: Fleet,
        store: Proxy,
        guard: HookServer,
        baits: Mapping[str, Bait],
        known: Mapping[str, str] = MOMENTS,
        requests: Mapping[str, Sequence[str]] = REQUESTS,
    ) -> None:
        self.known = known
        self._requests = requests
        self._fleet = fleet
        self._store = store
        self._guard = guard
        self._baits = baits

    @contextmanager
    def caught(self, moment: str) -> Iterator[Caught | None]:
        """A process that stands still in the middle of it, to be killed, or left like that; None: none was caught.

        What it sends to the store arrives only after it has woken or was killed. Raises psycopg.Error."""
        with ExitStack() as stack, self._fleet.database.connected() as ask:
            with self._slow(moment, ask):
                victim = self._catch(stack, moment, ask)
            stack.callback(self._store.calm)
            yield victim

    def _catch(self, stack: ExitStack, moment: str, ask: Ask) -> Caught | None:
        until = time.monotonic() + AIMING
        while time.monotonic() < until:
            for pid in self._now(moment, ask) & set(self._fleet.processes()):
                with ExitStack() as stopped:
                    stopped.enter_context(self._fleet.frozen(pid))
                    if pid in self._now(moment, ask):
                        stack.push(stopped.pop_all())
                        return Caught(pid, {moment} | {each for each in self.known if pid in self._now(each, ask)})
            threading.Event().wait(0.002)
        return None

    def _now(self, moment: str, ask: Ask) -> set[int]:
        found = ask(self.known[moment])
        if moment in self._requests:
            operations = self._requests[moment]
            under_way = [
                each.target for each in self._store.seen[-200:] if not each.done and each.operation in operations
            ]
            return {pid for pid, upload in found if any(upload in target for target in under_way)}
        return {pid for pid, _ in found}

    @contextmanager
    def _slow(self, moment: str, ask: Ask) -> Iterator[None]:
        """More processes come into the middle of it, and stay there for longer."""
        bait = self._baits.get(moment)
        if bait is not None:
            bait.ready.clear()
            bait.gate.set()
            bait.ready.wait(PATIENCE)
        try:
            if moment == "withheld":
                self._guard.mode = "slow"
            for operation in self._requests.get(moment, ()):
                self._store.trouble(operation, "hold", times=HELD)
            if moment == "commit":
                for each in SLOW_COMMITS:
                    ask(each)
            yield
        finally:
            if bait is not None:
                bait.gate.clear()
            if moment == "commit":
                for each in QUICK_COMMITS:
                    ask(each)
            self._guard.mode = "well"

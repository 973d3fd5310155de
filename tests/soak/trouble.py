"""What goes wrong around the daemon, one thing after another.

Invariant: each trouble ends by itself and leaves all as it was; when `Troubles.calm` has returned nothing is wrong any
more.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from tests.e2e.daemon import Daemon
from tests.e2e.hook_server import HookServer
from tests.e2e.stores import Proxy

from .ledger import Ledger

Say = Callable[[str], None]
SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Around:
    """Those of the store, of the hook and of the guard. ``seconds``: how long one lasts."""

    def __init__(
        self, store: Proxy, hook: HookServer, guard: HookServer, ledger: Ledger, seconds: float, seed: int = 11
    ) -> None:
        self.made: Counter[str] = Counter()
        self._store = store
        self._hook = hook
        self._guard = guard
        self._ledger = ledger
        self._seconds = seconds
        self._random = Random(seed)
        self._over = threading.Event()

    def around(self) -> list[Callable[[], None]]:
        return [self.store_down, self.store_slow_down, self.store_loses, self.store_stalls, self.hook_fails,
                self.hook_dead, self.guard_fails]  # fmt: skip

    def make(self, trouble: Callable[[], None]) -> None:
        name = trouble.__name__
        self.made[name] += 1
        try:
            trouble()
        except Exception as error:
            self._ledger.problem(f"{name}: {type(error).__name__}: {error}")

    def make_all(self, kinds: Sequence[Callable[[], None]], number: int, random: Random, say: Say) -> None:
        """So many of them, with a pause after each; each kind comes before one comes again."""
        waiting: list[Callable[[], None]] = []
        for _ in range(number):
            waiting = waiting or random.sample(kinds, len(kinds))
            trouble = waiting.pop()
            known, began = len(self._ledger.problems), time.monotonic()
            self.make(trouble)
            found = "".join(f"\n    {each}" for each in self._ledger.problems[known:])
            say(f"{trouble.__name__}, {time.monotonic() - began:.0f} s{found}")
            self._over.wait(self._seconds * random.uniform(0.2, 1.0))
        self.calm()

    def calm(self) -> None:
        self._store.up()
        self._store.calm()
        self._hook.mode = self._guard.mode = "well"

    def store_down(self) -> None:
        self._store.down()
        self._last()
        self._store.up()

    def store_slow_down(self) -> None:
        self._store.trouble("*", "answer", answer=SLOW_DOWN, times=0)
        self._last()
        self._store.calm()

    def store_loses(self) -> None:
        for operation in ("PutObject", "UploadPart", "CompleteMultipartUpload", "CreateMultipartUpload"):
            self._store.trouble(operation, self._random.choice(("lose", "half", "reset", "corrupt")), times=3)
        self._last()
        self._store.calm()

    def store_stalls(self) -> None:
        self._store.trouble("*", "stall", times=6)
        self._last()
        self._store.calm()

    def hook_fails(self) -> None:
        self._hook.mode = self._random.choice(("error", "cut", "slow", "redirect"))
        self._last()
        self._hook.mode = "well"

    def hook_dead(self) -> None:
        self._hook.die()
        self._last()
        self._hook.start()

    def guard_fails(self) -> None:
        self._guard.mode = self._random.choice(("error", "cut", "garbage"))
        self._last()
        self._guard.mode = "well"

    def _last(self) -> None:
        self._over.wait(self._seconds * self._random.uniform(0.5, 1.5))


class Troubles(Around):
    """And those of one daemon."""

    def __init__(
        self, daemon: Daemon, store: Proxy, hook: HookServer, guard: HookServer, ledger: Ledger, seconds: float
    ) -> None:
        super().__init__(store, hook, guard, ledger, seconds)
        self._daemon = daemon

    def everyday(self) -> list[Callable[[], None]]:
        """Those that a process lives through."""
        return [*self.around(), self.reload]

    def restarts(self) -> list[Callable[[], None]]:
        return [self.stop_and_start, self.kill_and_start]

    def make(self, trouble: Callable[[], None]) -> None:
        super().make(trouble)
        if not self._daemon.alive:
            self._ledger.problem(f"after {trouble.__name__} the daemon is dead: {self._daemon.log[-600:]}")
            self._daemon.start()

    def reload(self) -> None:
        assert self._daemon.process is not None
        os.kill(self._daemon.process.pid, signal.SIGHUP)
        self._last()
        assert self._daemon.alive, "SIGHUP has ended the daemon"

    def stop_and_start(self) -> None:
        status = self._daemon.stop()
        assert status == 0, f"a stop ended with status {status}"
        self._daemon.start()

    def kill_and_start(self) -> None:
        self._daemon.kill()
        self._daemon.start()

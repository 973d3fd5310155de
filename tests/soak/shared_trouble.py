"""What goes wrong with several processes and their database: they are killed, stand still, and come back.

Invariant: that of `trouble`. ``hits`` counts the moments in which a process was when it was struck, see `moments`.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from tests.e2e.balancer import Balancer
from tests.e2e.hook_server import HookServer
from tests.e2e.stores import Proxy

from .fleet import Fleet, NodeFleet, WorkerFleet, wait
from .ledger import Ledger
from .moments import Moments
from .probe import Probe
from .trouble import Around

CUT: Final = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'soak'
    AND pid <> pg_backend_pid()"""


class SharedTroubles(Around):
    """``longest``: seconds that a process stands still at most; above DEAD_AFTER it is taken for dead."""

    def __init__(
        self,
        fleet: Fleet,
        balancer: Balancer,
        probe: Probe,
        moments: Moments,
        store: Proxy,
        hook: HookServer,
        guard: HookServer,
        ledger: Ledger,
        seconds: float,
        longest: float,
        seed: int,
    ) -> None:
        super().__init__(store, hook, guard, ledger, seconds, seed)
        self._fleet = fleet
        self._balancer = balancer
        self._probe = probe
        self._moments = moments
        self.hits: Counter[str] = Counter()
        self._longest = longest

    def everyday(self) -> list[Callable[[], None]]:
        return [*self.around(), self.reload, self.database_stops, self.database_quits, self.database_dies,
                self.database_stands_still, self.connections_cut, self.freeze_for_a_moment]  # fmt: skip

    def deaths(self) -> list[Callable[[], None]]:
        found = [self.kill_keeper, self.freeze_keeper, self.freeze_all, self.rolling, self.kill_two,
                 self.kill_with_database]  # fmt: skip
        if isinstance(self._fleet, WorkerFleet):
            found.append(self.kill_supervisor)
        return [
            *found,
            *(self._aimed(blow, moment) for blow in (self.kill, self.freeze) for moment in self._moments.known),
        ]

    def named(self, name: str) -> Callable[[], None]:
        return next(each for each in (*self.deaths(), *self.everyday()) if each.__name__ == name)

    def _aimed(self, blow: Callable[[str], None], moment: str) -> Callable[[], None]:
        def trouble() -> None:
            blow(moment)

        trouble.__name__ = f"{blow.__name__}_{moment}"
        return trouble

    def missed(self) -> list[str]:
        """Moments in which fewer than half of those that were to be struck in them were."""
        tried = {name: self.made[name] for each in self.deaths() if (name := each.__name__) in self.made}
        return [
            f"{name}: {self.hits[name]} of {times} processes were struck in that moment"
            for name, times in tried.items()
            if name.partition("_")[2] in self._moments.known and 2 * self.hits[name] < times
        ]

    def make(self, trouble: Callable[[], None]) -> None:
        super().make(trouble)
        self._balancer.use(self._fleet.ports)
        try:
            self._fleet.database.up()
            self._fleet.mend()
        except Exception as error:
            self._ledger.problem(f"after {trouble.__name__}: {type(error).__name__}: {str(error)[-900:]}")

    # -- processes

    def _anyone(self) -> int:
        return self._random.choice(self._fleet.serving())

    def kill_keeper(self) -> None:
        victim = self._anyone()
        self._probe.strike(victim, lambda: self._fleet.kill(victim), freezes=False)

    def kill(self, moment: str) -> None:
        with self._moments.caught(moment) as victim:
            if victim is not None:
                self.hits.update(f"kill_{each}" for each in victim.moments)
                self._fleet.kill(victim.pid)
        self._last()

    def freeze(self, moment: str) -> None:
        """At times the balancer notices it, at times each third request goes there in vain."""
        with self._moments.caught(moment) as victim:
            if victim is not None:
                self.hits.update(f"freeze_{each}" for each in victim.moments)
                with self._fleet.frozen(*self._with_supervisor(victim.pid)[:-1]):
                    if self._random.random() < 0.7:
                        self._balancer.use(self._fleet.ports_without(victim.pid))
                    wait(self._longest)
        wait(2.0)  # who was taken for dead ends by itself

    def kill_two(self) -> None:
        for victim in self._random.sample(self._fleet.serving(), 2):
            self._fleet.kill(victim)
        self._last()

    def kill_supervisor(self) -> None:
        assert isinstance(self._fleet, WorkerFleet)
        self._fleet.kill_supervisor()

    def freeze_for_a_moment(self) -> None:
        """Nobody takes it for dead."""
        with self._fleet.frozen(self._anyone()):
            wait(self._random.uniform(0.2, 2.5))

    def freeze_keeper(self) -> None:
        """Its uploads go on elsewhere meanwhile."""
        victim = self._anyone()
        freeze = self._fleet.frozen(*self._with_supervisor(victim))
        with ExitStack() as stack:
            self._probe.strike(victim, lambda: stack.enter_context(freeze), freezes=True)
            self._last()

    def _with_supervisor(self, victim: int) -> list[int]:
        """A supervisor kills a worker that doesn't answer, so it stands still, too."""
        return [self._fleet.supervisor, victim] if isinstance(self._fleet, WorkerFleet) else [victim]

    def freeze_all(self) -> None:
        """As a machine that is put to sleep."""
        pids = self._fleet.serving()
        seconds = self._random.uniform(self._longest / 2, self._longest)
        with self._fleet.frozen(*(self._with_supervisor(pids[0])[:-1]), *pids):
            wait(seconds)
        wait(2.0)

    def rolling(self) -> None:
        """One after the other is stopped and started. A machine's workers stop together."""
        for each in self._fleet.daemons:
            if isinstance(self._fleet, NodeFleet) and self._random.random() < 0.5:
                self._balancer.use([port for port in self._fleet.ports if port != each.port])
            status = each.stop()
            if status:
                self._ledger.problem(f"a stop ended with status {status}")
            each.start()
            self._balancer.use(self._fleet.ports)
        self._fleet.settle()

    def reload(self) -> None:
        self._fleet.reload()
        self._last()

    # -- the database

    def database_stops(self) -> None:
        with self._fleet.database.outage():
            self._fleet.database.stop()
            self._last()

    def database_quits(self) -> None:
        with self._fleet.database.outage():
            self._fleet.database.signal(signal.SIGQUIT)
            self._last()

    def database_dies(self) -> None:
        with self._fleet.database.outage():
            self._fleet.database.signal(signal.SIGKILL)
            self._last()

    def database_stands_still(self) -> None:
        with self._fleet.database.outage():
            self._fleet.database.signal(signal.SIGSTOP)
            try:
                wait(self._random.uniform(0.5, self._longest / 2))
            finally:
                self._fleet.database.signal(signal.SIGCONT)

    def connections_cut(self) -> None:
        with self._fleet.database.outage():
            self._fleet.database.ask(CUT)

    def kill_with_database(self) -> None:
        with self._fleet.database.outage():
            victim = self._anyone()
            self._fleet.database.signal(signal.SIGKILL)
            self._fleet.kill(victim)
            self._last()

"""A machine that a test can stop, break and start again.

Every operation of the disk and every COMMIT of the catalog is a step of it: `Machine.crash_at` stops it there.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

from zope.interface import implementer

from resumable.catalog.batches import connect
from resumable.spool.disk import IDisk
from resumable.testing import SimulatedDisk

T = TypeVar("T")

Moment = Literal["before", "after", "torn"]


class Down(OSError):
    """The machine has stopped."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the machine is down")


class Machine:
    """A disk, a catalog file and a boot. ``steps`` counts I/O; ``trace`` names it."""

    def __init__(self, directory: Path, *, disk: SimulatedDisk | None = None, boot: int = 1, run: int = 0) -> None:
        self.catalog_directory = directory
        self.disk = disk or SimulatedDisk()
        self.boot = boot
        self.run = run
        self.steps = 0
        self.trace: list[str] = []
        self.down = False
        self.commit_faults: list[Callable[[Callable[[], Any]], Any]] = []
        self._crash_step: int | None = None
        self._faulty_step: tuple[int, int, bool] | None = None
        self._moment: Moment = "before"
        self._rng = Random(0)

    @property
    def catalog_path(self) -> str:
        return str(self.catalog_directory / "catalog.sqlite3")

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def crash_at(self, step: int, moment: Moment = "before", rng: Random | None = None) -> None:
        """Stop at the step of that number (from now: the next one is 1), before or after its effect.

        ``torn``: a COMMIT is cut off within what it writes; another step is as ``after``.
        """
        self._crash_step, self._moment = self.steps + step, moment
        self._rng = rng or Random(step)

    def fail_at(self, step: int, number: int, landed: bool = False) -> None:
        """Let the step of that number (from now: the next one is 1) fail with this errno; a COMMIT as `fail_commit`."""
        self._faulty_step = self.steps + step, number, landed

    def step(self, name: str, act: Callable[[], T]) -> T:
        if self.down:
            raise Down
        self.steps += 1
        self.trace.append(name)
        if self._faulty_step is not None and self.steps == self._faulty_step[0]:
            self._fail(name, *self._faulty_step[1:])
        if self.steps != self._crash_step:
            return act()
        size = self._log_size()
        try:
            if self._moment != "before":
                act()
        finally:
            self.stop(self._rng.randint(size, max(size, self._log_size())) if self._moment == "torn" else None)
        raise Down

    def _fail(self, name: str, number: int, landed: bool) -> None:
        if name != "COMMIT":
            self.disk.fail_next(name, number)
            return
        # this one is on its way already: what it does is decided now
        self.fail_commit(landed=landed, full=number in (errno.ENOSPC, errno.EDQUOT))

    def stop(self, log_size: int | None = None) -> None:
        """Nothing has an effect from now on. ``log_size``: what is left of the catalog's log."""
        if self.down:
            return
        self.down = True
        after = self.catalog_directory / "left"
        after.mkdir()
        for suffix in ("", "-wal"):
            if os.path.exists(self.catalog_path + suffix):
                shutil.copyfile(self.catalog_path + suffix, after / f"catalog.sqlite3{suffix}")
        if log_size is not None and (after / "catalog.sqlite3-wal").exists():
            os.truncate(after / "catalog.sqlite3-wal", log_size)

    def after_kill(self) -> Machine:
        """The same boot; the process is gone."""
        self.stop()
        return self._next(self.disk.kill(), self.boot)

    def after_power_loss(self, rng: Random) -> Machine:
        """The next boot, with what has survived."""
        self.stop()
        return self._next(self.disk.crash(rng), self.boot + 1)

    def _next(self, disk: SimulatedDisk, boot: int) -> Machine:
        directory = Path(tempfile.mkdtemp(prefix=f"run-{self.run + 1}-", dir=self.catalog_directory.parent))
        shutil.copytree(self.catalog_directory / "left", directory, dirs_exist_ok=True)
        return Machine(directory, disk=disk, boot=boot, run=self.run + 1)

    def fail_commit(self, *, landed: bool = False, times: int = 1, after: int = 0, full: bool = False) -> None:
        """Let COMMITs fail: ``times`` of them, ``after`` so many that work; ``landed``: with their effect."""

        def fault(act: Callable[[], Any]) -> Any:
            if landed:
                act()
            error = sqlite3.OperationalError("no room" if full else "cannot write")
            error.sqlite_errorname = "SQLITE_FULL" if full else "SQLITE_ERROR"
            raise error

        self.commit_faults += [lambda act: act()] * after + [fault] * times

    def connect(self, path: str) -> Any:
        """What SqliteCatalog makes its connection with."""
        if self.down:
            raise sqlite3.OperationalError("the machine is down")
        return _Connection(self, connect(path))

    def commit(self, act: Callable[[], Any]) -> Any:
        return self.step("COMMIT", lambda: self.commit_faults.pop(0)(act) if self.commit_faults else act())

    def _log_size(self) -> int:
        try:
            return os.path.getsize(f"{self.catalog_path}-wal")
        except FileNotFoundError:
            return 0


class _Connection:
    """An sqlite3.Connection whose COMMITs are steps of the machine."""

    def __init__(self, machine: Machine, connection: sqlite3.Connection) -> None:
        self._machine = machine
        self._connection = connection

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement == "COMMIT":
            try:
                return self._machine.commit(lambda: self._connection.execute(statement))
            except Down as error:
                raise sqlite3.OperationalError(str(error)) from error
        if self._machine.down:
            raise sqlite3.OperationalError("the machine is down")
        return self._connection.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@implementer(IDisk)
class MachineDisk:
    """The machine's disk; every operation is a step of the machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._machine.disk, name)
        return lambda *args, **kwargs: self._machine.step(name, lambda: method(*args, **kwargs))


def content(disk: SimulatedDisk, path: str) -> bytes | None:
    """A file's bytes as a process would read them; no operation of the disk, so nothing fails or counts."""
    node = disk._names.get(path)
    return None if node is None else bytes(node.content)  # type: ignore[union-attr]


def machines(directory: Path) -> Iterator[Machine]:
    """Fresh machines in directories of their own."""
    for number in itertools.count():
        place = directory / f"machine-{number}" / "run-0"
        place.mkdir(parents=True)
        yield Machine(place)

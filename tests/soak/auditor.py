"""Goes after every promise: the upload is stored, the object is right, and its events are told in order.

Invariant: what it finds in the store it has read from the store itself, past the network that is spoiled.
"""

from __future__ import annotations

import threading
import time
from random import Random

from tests.e2e.hook_server import HookServer
from tests.e2e.stores import Store, status
from tests.e2e.tus import Tus, sha256

from .clients import PATIENCE
from .ledger import Ledger, Promise


class Auditor(threading.Thread):
    """``terminates``: the share of uploads that are deleted once they have been found right, to keep the disk small."""

    def __init__(
        self, port: int, store: Store, prefix: str, ledger: Ledger, seed: int, terminates: float = 0.8
    ) -> None:
        super().__init__(name=f"auditor-{seed}", daemon=True)
        self.closing = threading.Event()
        self.idle = threading.Event()
        self._tus = Tus(port, timeout=20)
        self._store = store
        self._prefix = prefix
        self._ledger = ledger
        self._terminates = terminates
        self._random = Random(seed)

    def run(self) -> None:
        """Until ``closing`` is set and nothing is left to look at."""
        while True:
            promise = self._ledger.next_unaudited()
            if promise is not None:
                self.idle.clear()
                try:
                    self._audit(promise)
                except Exception as error:
                    self._ledger.problem(f"{promise.path}: {type(error).__name__}: {str(error)[:600]}")
                continue
            self.idle.set()
            if self.closing.wait(0.1):
                self._tus.close()
                return

    def _audit(self, promise: Promise) -> None:
        until = time.monotonic() + 2 * PATIENCE
        while (found := self._state(promise)) != "stored":
            assert time.monotonic() < until, f"is {found}, not stored"
            threading.Event().wait(0.1)
        assert sha256(self._store.content(self._prefix, promise.id)) == promise.digest, "another object is stored"
        if self._random.random() < self._terminates:
            while True:
                try:
                    answer = self._tus.delete(promise.path)
                except (OSError, EOFError):
                    self._tus.close()
                    threading.Event().wait(0.1)
                    continue
                if answer.status in (204, 404, 410):
                    break
                assert time.monotonic() < until, answer
            promise.gone = True
            promise.events.append("terminated")

    def _state(self, promise: Promise) -> str:
        try:
            return str(status(self._tus, promise.path)["state"])
        except (OSError, EOFError):
            return "unknown: the daemon is down"


def untold(ledger: Ledger, hook: HookServer) -> list[str]:
    """What hooks should have been told and were not, or not in order."""
    told: dict[str, list[str]] = {}
    seen: set[str] = set()
    for each in hook.documents:
        if each["id"] not in seen:
            seen.add(each["id"])
            told.setdefault(each["subject"], []).append(each["type"].rpartition(".")[2])
    wrong = [each for each in ledger.promises if told.get(each.id) != each.events]
    return [f"{each.path}: told {told.get(each.id)}, not {each.events}" for each in wrong]


def unkept(ledger: Ledger, store: Store, prefix: str) -> list[str]:
    """Objects that are missing, were not removed, or are nobody's; and multiparts that are left."""
    objects = store.objects(prefix)
    problems = [
        f"{each.path}: not in the store" for each in ledger.promises if not each.gone and each.id not in objects
    ]
    problems += [f"{each.path}: still in the store" for each in ledger.promises if each.gone and each.id in objects]
    strange = objects.keys() - {each.id for each in ledger.promises}
    if len(strange) > ledger.unknown:
        problems.append(f"{len(strange)} objects are nobody's, {ledger.unknown} creations had no answer")
    return problems + [f"{key}: its multipart is left" for key in store.multiparts(prefix)]

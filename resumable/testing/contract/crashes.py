"""Restarts, and crashes wherever something is saved.

Invariant: a process that dies before or after any save leaves a store from which the next one reaches the whole object,
once, with nothing unfinished left.
"""

from __future__ import annotations

from collections.abc import Callable

from resumable.remotes.interfaces import ISweeper, Unfinished
from resumable.testing.contract.case import JournalBroke, RemoteCase

MOST_SAVES = 60


class Crashes(RemoteCase):
    """The journal breaks at each of its saves in turn, and a new process goes on."""

    def test_a_restart_after_each_chunk_loses_nothing(self) -> None:
        """Progress after a restart is the end of the last chunk written."""
        parts = self.begin(0)
        for part in parts:
            self.restart()
            assert self.progress() == part.offset
            self.write(part)
        self.restart()
        assert self.progress() == len(self.data)
        assert self.read_object(self.store().key) == self.data

    def test_a_crash_at_any_save_on_the_way_to_the_object_is_made_good(self) -> None:
        """The next process stores the object, and sends no stored byte again."""
        self._crash_everywhere(lambda: self._check_stored(self.store().key), self._go_on)

    def test_a_crash_at_any_save_of_a_small_upload_is_made_good(self) -> None:
        """The same holds for an upload of a single chunk."""
        self.data = b"hello"
        self._crash_everywhere(lambda: self._check_stored(self.store().key), self._go_on)

    def test_a_crash_at_any_save_of_an_abort_is_made_good(self) -> None:
        """The next process aborts it, and nothing is left."""

        def abort() -> None:
            self.begin(1)
            self.ask(self.remote.abort_upload(self.id))

        self._crash_everywhere(abort)

    def test_an_abort_after_a_crash_at_any_save_leaves_nothing_unfinished(self) -> None:
        """The next process may abort an upload that the last one began to store."""
        self._crash_everywhere(lambda: self._check_stored(self.store().key), self._abort)

    def _go_on(self) -> None:
        if self.read_object(self.initiate(len(self.data))) is not None:
            assert self.progress() == len(self.data), "bytes that are stored already are to be sent again"
        self._check_stored(self.store().key)

    def _abort(self) -> None:
        self.ask(self.remote.abort_upload(self.id))

    def _check_stored(self, key: str) -> None:
        assert self.read_object(key) == self.data

    def _crash_everywhere(self, life: Callable[[], None], afterwards: Callable[[], None] | None = None) -> None:
        """Break each save of ``life``, with and without its effect; then ``afterwards``, or the whole life again."""
        for keeps in (True, False):
            for good in range(MOST_SAVES):
                self.id = self.new_id()
                self.restart()
                self.journal.good, self.journal.keeps_the_last = good, keeps
                try:
                    life()
                except JournalBroke:
                    self.restart()
                    (afterwards or life)()
                    assert not self._unfinished(), f"something is left after a crash at save {good + 1}"
                else:
                    assert good > 0, "it saved nothing"
                    break
            else:
                raise AssertionError(f"more than {MOST_SAVES} saves for one upload of three chunks")

    def _unfinished(self) -> list[Unfinished]:
        """The unfinished objects of this upload in the store."""
        if not ISweeper.providedBy(self.remote):
            return []
        found: list[Unfinished] = []
        while page := self.ask(self.remote.list_unfinished(100, found[-1] if found else None)):
            found += page
        key = (self.ask(self.journal.load(self.id)) or {}).get("key")
        return [one for one in found if self.id in (one.upload_id, one.key) or one.key == key]

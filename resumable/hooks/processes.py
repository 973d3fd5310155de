"""One run of a command: bounded in time and in its output. Blocks: for a thread.

Invariant: when `Run.talk` returns, the process is dead, all that it left in its group is killed, its pipes are
closed.
Python has no waitid on macOS before 3.13: there, the group of a process that has just ended is killed by an id that is
free by then if nobody is left in it.
Source: waitid(2): WNOWAIT leaves a zombie whose id nobody else can get, so that its group can be killed safely.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from attrs import frozen

PIECE = 64 << 10
GLANCE = 0.05
SHORTEST_GLANCE = 0.001
"""Seconds between two looks whether a process has ended: others may hold its pipes, or it may have closed them."""

KEPT_OF_STDERR = 4 << 10


@frozen
class CommandOutcome:
    """``status``: the exit status; negative: the signal that ended it; None: we have killed it, as it took or said too
    much. ``output``: its stdout, None when that was longer than the limit. ``said``: the end of its stderr."""

    status: int | None
    output: bytes | None
    said: bytes


class Run:
    """Starts the command in a group of its own. Raises OSError, ValueError when it can't be started."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: str | None = None) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environment), cwd=directory, start_new_session=True
        )
        self._killed = False
        self._over = False

    def kill(self) -> None:
        """Kill it and its group; from any thread, at any time before `talk` has returned."""
        self._killed = True
        if not self._over:
            with suppress(ProcessLookupError, PermissionError):  # the latter is macOS's for a group of zombies
                os.killpg(self._process.pid, signal.SIGKILL)

    def talk(self, data: bytes, seconds: float, limit: int, clock: Callable[[], float]) -> CommandOutcome:
        """Give the process ``data`` on stdin, and gather its output until it ends, ``seconds`` by ``clock`` at most.

        ``limit``: bytes of stdout."""
        deadline = clock() + seconds
        with _Conversation(self._process, data, limit) as conversation:
            try:
                while not self._has_ended():
                    if self._killed or conversation.is_too_much or clock() >= deadline:
                        self._killed = True
                        break
                    conversation.step()
                conversation.drain()
            finally:
                ended_itself = not self._killed
                self.kill()
                self._over = True
                status = self._process.wait()
            return CommandOutcome(status if ended_itself else None, conversation.output, conversation.said)

    def _has_ended(self) -> bool:
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


class _Conversation:
    """The three pipes, none of which may block the others."""

    def __init__(self, process: subprocess.Popen[bytes], data: bytes, limit: int) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.said = b""
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._rest = memoryview(data)
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._glance = SHORTEST_GLANCE
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Conversation:
        for pipe, events, act in (
            (self._stdin, selectors.EVENT_WRITE, self._write),
            (self._stdout, selectors.EVENT_READ, self._read),
            (self._stderr, selectors.EVENT_READ, self._listen),
        ):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, events, act)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for pipe in (self._stdin, self._stdout, self._stderr):
            with suppress(BrokenPipeError):
                pipe.close()

    @property
    def is_too_much(self) -> bool:
        """Whether the output is longer than the limit."""
        return self._size > self._limit

    @property
    def output(self) -> bytes | None:
        """All of stdout so far; None: it is too much."""
        return None if self.is_too_much else b"".join(self._pieces)

    def step(self) -> None:
        """Serve the pipes that are ready, or rest for a moment."""
        ready = self._selector.select(GLANCE if len(self._selector.get_map()) else self._glance)
        if not ready:
            self._glance = min(GLANCE, 2 * self._glance)
        for key, _ in ready:
            self._act(key)

    def drain(self) -> None:
        """Read the rest of stdout and stderr; of an endless stream no more than the limit."""
        for key in tuple(self._selector.get_map().values()):
            if key.fileobj is not self._stdin:
                while not self.is_too_much and self._act(key):
                    pass

    def _act(self, key: selectors.SelectorKey) -> bool:
        """Whether there may be more; a pipe that is at its end is not looked at again."""
        try:
            goes_on: bool = key.data()
        except BlockingIOError:
            return False
        except BrokenPipeError:  # it does not want to know
            goes_on = False
        if not goes_on:
            self._selector.unregister(key.fileobj)
            if key.fileobj is self._stdin:
                with suppress(BrokenPipeError):
                    self._stdin.close()
        return goes_on

    def _write(self) -> bool:
        self._rest = self._rest[os.write(self._stdin.fileno(), self._rest[:PIECE]) :]
        return bool(self._rest)

    def _read(self) -> bool:
        piece = os.read(self._stdout.fileno(), PIECE)
        self._size += len(piece)
        if not self.is_too_much:
            self._pieces.append(piece)
        return bool(piece)

    def _listen(self) -> bool:
        piece = os.read(self._stderr.fileno(), PIECE)
        self.said = (self.said + piece)[-KEPT_OF_STDERR:]
        return bool(piece)

"""Regions of files that the kernel sends over sockets: one thread for all of a client's connections.

Invariants: no byte of a file comes into this process. The thread never waits for one socket. It works with a duplicate
of a socket's descriptor, so that nothing that the reactor does with the connection gives the number to another one;
both that and the file are no longer in use when `FileSending.done` fires. Between requests it sleeps.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from time import monotonic

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads

AT_ONCE = 4 << 20
"""Bytes for one connection before another has its turn."""
TELL_AFTER = 0.25
"""Seconds after which the reactor is told of progress."""


class FileSending:
    """``head`` and the region on their way over one connection. ``sent``: bytes of the region so far.

    ``done`` fires when nothing of it is in use any more: all is sent, or ``error`` says why not, or it was cancelled.
    ``progress`` is called, in the reactor, while bytes move.
    """

    def __init__(
        self,
        sender: FileSender,
        to: socket.socket,
        head: bytes,
        file: tuple[int, int],
        size: int,
        progress: Callable[[], None],
    ) -> None:
        self.size = size
        self.sent = 0
        self.error: OSError | None = None
        self.done: Deferred[None] = Deferred()
        self.progress = progress
        self.to, self.head, (self.file, self.offset) = to, head, file
        self.told = monotonic()
        self.wanted = True
        self._sender = sender

    def cancel(self) -> None:
        """Send no more. ``done`` fires soon. May be repeated, also after the end."""
        if self.wanted:
            self.wanted = False
            if not self._sender.stopped:  # else the thread has ended all of them
                self._sender.tell(self)


class FileSender:
    """The thread, which begins with the first region."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._thread: Thread | None = None
        self._queue: SimpleQueue[FileSending | None] = SimpleQueue()
        self.stopped = False

    def send(
        self, to: socket.socket, head: bytes, file: tuple[int, int], size: int, progress: Callable[[], None]
    ) -> FileSending:
        """Send ``head``, then ``size`` bytes of the file (its descriptor, the offset) over a non-blocking socket.

        The socket is a duplicate, and closed at the end; the file is the caller's to close after that.
        """
        sending = FileSending(self, to, head, file, size, progress)
        self.tell(sending)
        return sending

    def tell(self, sending: FileSending | None) -> None:
        """Let the thread look at this one, which is new or is to end; None: it ends itself, and all of them."""
        if self._thread is None:
            self._waking, self._woken = socket.socketpair()
            self._waking.setblocking(False)
            self._woken.setblocking(False)
            self._thread = Thread(target=self._run, name="sendfile", daemon=True)
            self._thread.start()
        self._queue.put(sending)
        with contextlib.suppress(BlockingIOError):  # else it has been told often enough
            self._waking.send(b"x")

    def stop(self) -> Deferred[None]:
        """Cancel all; fires when the thread has ended. Nothing can be sent after it. May be repeated."""
        if self._thread is not None and not self.stopped:
            self.stopped = True
            self.tell(None)
            self._thread.join()  # it never waits
            self._waking.close()
        return succeed(None)

    # -- in the thread

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self._woken as woken:
            selector.register(woken, selectors.EVENT_READ)
            working = True
            while working:
                for key, _ in selector.select():
                    if key.data is None:
                        working = self._look(selector)
                    elif key.fd in selector.get_map():  # else its end has just been looked at
                        self._advance(selector, key.data)
            for key in list(selector.get_map().values()):
                if key.data is not None:
                    self._end(selector, key.data)

    def _look(self, selector: selectors.BaseSelector) -> bool:
        self._woken.recv(4096)
        while not self._queue.empty():
            sending = self._queue.get()
            if sending is None:
                return False
            if sending.wanted:
                selector.register(sending.to, selectors.EVENT_WRITE, sending)
                self._advance(selector, sending)
            else:
                self._end(selector, sending)
        return True

    def _advance(self, selector: selectors.BaseSelector, sending: FileSending) -> None:
        try:
            if sending.head:
                more = getattr(socket, "MSG_MORE", 0)  # it goes in one packet with the first bytes
                sending.head = sending.head[sending.to.send(sending.head, more) :]
                if sending.head:
                    return
            offset, left = sending.offset + sending.sent, sending.size - sending.sent
            count = os.sendfile(sending.to.fileno(), sending.file, offset, min(AT_ONCE, left))
        except BlockingIOError:
            return
        except OSError as error:
            self._end(selector, sending, error)
            return
        sending.sent += count
        if not count or sending.sent == sending.size:
            self._end(selector, sending, None if count else OSError("the file is shorter than it was"))
        elif (now := monotonic()) - sending.told > TELL_AFTER:
            sending.told = now
            self._reactor.callFromThread(sending.progress)

    def _end(self, selector: selectors.BaseSelector, sending: FileSending, error: OSError | None = None) -> None:
        if sending.to.fileno() < 0:
            return  # it had ended before it was cancelled
        if sending.to.fileno() in selector.get_map():
            selector.unregister(sending.to)
        sending.to.close()
        sending.error = error
        self._reactor.callFromThread(sending.done.callback, None)

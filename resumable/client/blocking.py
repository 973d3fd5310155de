"""The blocking face: the core's steps, run in the caller's thread over sockets.

Invariant: a transfer that ends early, by an exception, by Ctrl-C or by `cancel`, leaves only what goes on: its threads
end before the call does, the state file keeps the upload.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from resumable.client.client_options import ClientOptions
from resumable.client.client_transfer import ClientTransfer, Surroundings
from resumable.client.effects import Effect, Exchange, Pause, Steps, Together, Work
from resumable.client.events import Downloaded, Tiers, TransferEvent, Uploaded
from resumable.client.links import Connector, Interrupt, tls_context
from resumable.client.looking import look
from resumable.client.pace import TokenBucket
from resumable.client.putting import offset_steps, put_steps, remove_steps
from resumable.client.receiving import get_steps
from resumable.client.receiving_stream import get_into_stream
from resumable.client.sources import source_of
from resumable.client.state_file import Leftover, StateFile
from resumable.client.wire import Wire

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")
OnEvent = Callable[[TransferEvent], None]
Sendable = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
AROUND = Surroundings(wall=time.time, now=time.monotonic, random=random.random)


class Client:
    """Sends and receives, one call at a time or several in threads. ``state`` None: the user's own state file.

    ``on_event`` is called in the thread that sends, one call at a time; what it raises ends the transfer.
    """

    def __init__(
        self,
        options: ClientOptions | None = None,
        *,
        on_event: OnEvent | None = None,
        state: StateFile | None = None,
    ) -> None:
        self.options = options or ClientOptions()
        self.state = state or StateFile()
        self._on_event = on_event
        self._context: ssl.SSLContext | None = None
        rate = self.options.limit_rate
        bucket = None if rate is None else TokenBucket(rate, AROUND.now)
        connector = Connector(self.options.timeout, self.options.proxy, self._tls)
        self._wire = Wire(connector, self.options.timeout, bucket)
        self._running: set[Interrupt] = set()

    def put(
        self,
        source: Sendable,
        endpoint: str,
        *,
        metadata: Mapping[str, str | bytes] | None = None,
        name: str | None = None,
        on_event: OnEvent | None = None,
        fresh: bool = False,
    ) -> Uploaded:
        """Send a file (by its path), bytes or a stream to the URL at which uploads are created. The same call again
        goes on at the same byte; ``fresh``: it begins anew. ``metadata`` None: the file's name.

        Raises ClientError: see `exceptions`; whatever ``on_event`` raises.
        """
        kept = source_of(source, name, self.options.buffer)
        try:
            transfer = self._transfer(kept.name, endpoint, on_event)
            pairs = default_metadata(source) if metadata is None else metadata
        except BaseException:
            kept.close()
            raise
        return self._run(put_steps(transfer, kept, pairs, fresh))

    def get(
        self,
        url: str,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        on_event: OnEvent | None = None,
        overwrite: bool = False,
    ) -> Downloaded:
        """Receive a file; into a directory by the name that the server gives; or into a binary stream. The same call
        again goes on at the same byte of ``target`` + ".part". Raises ClientError: see `exceptions`."""
        return self._run(getting(self._transfer(url, url, on_event), target, overwrite))

    def status(self, url: str) -> Tiers | None:
        """What the server tells of both tiers; None: it has no such resource. Raises ClientError."""
        transfer = self._transfer(url, url, None)
        return self._run(transfer.patiently(lambda: look(transfer, transfer.address)))

    def leftovers(self, endpoint: str | None = None) -> list[Leftover]:
        """The unfinished uploads of the state file (to this endpoint), the oldest first. Raises StateUnusable."""
        return [each for each in self.state.entries() if endpoint is None or each.endpoint == endpoint]

    def remove(self, leftover: Leftover) -> None:
        """Remove it at the server, and forget it. Raises ClientError; then it isn't forgotten."""
        transfer = self._transfer(leftover.source, leftover.endpoint, None)
        self._run(remove_steps(transfer, leftover.key))

    def forget(self, leftover: Leftover) -> None:
        """Forget it, and leave what the server has. Raises StateUnusable."""
        self.state.forget(leftover.key)

    def offset(self, leftover: Leftover) -> int | None:
        """How many bytes of it the server has; None: it has it no longer. Raises ClientError."""
        transfer = self._transfer(leftover.source, leftover.endpoint, None)
        return self._run(offset_steps(transfer, leftover))

    def cancel(self) -> None:
        """End all calls that run: they raise TransferCancelled soon. For handlers of signals, and for other threads."""
        for each in list(self._running):
            each.set()

    def close(self) -> None:
        """Close idle connections. The client may be used again."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _transfer(self, name: str, address: str, on_event: OnEvent | None) -> ClientTransfer:
        told = on_event or self._on_event
        lock = threading.RLock()

        def tell(event: TransferEvent) -> None:
            if told is not None:
                with lock:
                    told(event)

        return ClientTransfer(name, address, self.options, self.state, tell, AROUND)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = tls_context(self.options.ca_file, self.options.insecure)
        return self._context

    def _run(self, steps: Steps[T]) -> T:
        interrupt = Interrupt()
        self._running.add(interrupt)
        try:
            return run_steps(steps, self._wire, interrupt)
        finally:
            self._running.discard(interrupt)
            interrupt.close()


def put(
    source: Sendable,
    endpoint: str,
    *,
    options: ClientOptions | None = None,
    on_event: OnEvent | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
    name: str | None = None,
) -> Uploaded:
    """One `Client.put`."""
    with Client(options, on_event=on_event) as client:
        return client.put(source, endpoint, metadata=metadata, name=name)


def get(
    url: str,
    target: str | os.PathLike[str] | BinaryIO,
    *,
    options: ClientOptions | None = None,
    on_event: OnEvent | None = None,
) -> Downloaded:
    """One `Client.get`."""
    with Client(options, on_event=on_event) as client:
        return client.get(url, target)


def getting(transfer: ClientTransfer, target: str | os.PathLike[str] | BinaryIO, overwrite: bool) -> Steps[Downloaded]:
    """The steps that receive into a path or a stream."""
    if isinstance(target, str | os.PathLike):
        return get_steps(transfer, Path(target), overwrite)
    return get_into_stream(transfer, target)


def default_metadata(source: Sendable) -> dict[str, str | bytes]:
    """The name of a file."""
    if not isinstance(source, str | os.PathLike):
        return {}
    return {
        "filename": os.path.basename(os.fspath(source)).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    }


def run_steps(steps: Steps[T], wire: Wire, interrupt: Interrupt) -> T:
    """The result of these steps, each effect done in this thread. Raises what they raise."""
    answer: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                effect = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = error = None
            try:
                answer = _done(effect, wire, interrupt)
            except BaseException as raised:
                error = raised
    finally:
        steps.close()


def _done(effect: Effect, wire: Wire, interrupt: Interrupt) -> Any:
    interrupt.check()
    if isinstance(effect, Exchange):
        return wire.exchange(effect, interrupt)
    if isinstance(effect, Pause):
        return interrupt.wait(effect.seconds)
    if isinstance(effect, Work):
        interrupt.abandon = effect.abandon
        try:
            return effect.call()
        except Exception:
            interrupt.check()
            raise
        finally:
            interrupt.abandon = _nothing
    return _together(effect, wire, interrupt)


def _nothing() -> None:
    """There is no work to end."""


def _together(effect: Together, wire: Wire, interrupt: Interrupt) -> Sequence[Any]:
    """Each of them in a thread of its own."""
    results: list[Any] = [None] * len(effect.steps)
    errors: list[BaseException] = []
    whole, beside = Interrupt(interrupt), Interrupt(interrupt)

    def run(number: int, steps: Steps[Any]) -> None:
        part = Interrupt(whole)
        try:
            results[number] = run_steps(steps, wire, part)
        except BaseException as error:
            errors.append(error)
            whole.set()
        finally:
            part.close()

    def run_beside(steps: Steps[None]) -> None:
        part = Interrupt(beside)
        try:
            run_steps(steps, wire, part)
        except BaseException as error:
            if not beside.is_set:
                errors.append(error)
                whole.set()
        finally:
            part.close()

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(effect.steps)]
    others = [threading.Thread(target=run_beside, args=(each,), daemon=True) for each in effect.beside]
    try:
        for thread in (*threads, *others):
            thread.start()
        _join(threads)
    except BaseException:
        whole.set()
        raise
    finally:
        beside.set()
        _join([thread for thread in (*threads, *others) if thread.ident is not None])
        whole.close()
        beside.close()
    if errors:
        raise errors[0]
    return results


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(1.0)  # so that a signal is heard

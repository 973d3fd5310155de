"""The process of `resumable.testing.upload_server`: ``python -m resumable.testing.server_process``.

It reads its options, one JSON object in a line, writes where it listens and then each event, a JSON object a line each,
and stops at the end of its input. Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from attrs import asdict
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from resumable.embed import StartupError, UploadServer
from resumable.hooks import Event, EventKind
from resumable.testing.running_server import ReportedEvent

HOST = "127.0.0.1"


class _UntilTheEnd(Protocol):
    """The other process; it is gone when its end of the pipe is closed."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._reactor.stop()


def main() -> int:
    """The exit status."""
    from twisted.internet import reactor

    return run(reactor)


def run(reactor: Any) -> int:
    """See `main`."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)

    def tell(document: object) -> None:
        print(json.dumps(document), file=out, flush=True)

    def report(event: Event) -> None:
        told = asdict(reported(event))
        del told["path"]
        tell(told)

    try:
        server = UploadServer(reactor=reactor, **json.loads(sys.stdin.readline()))
        server.on(*(kind.value for kind in EventKind), thread=False)(report)
        server.start()
    except StartupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    port = reactor.listenTCP(0, server.site(), interface=HOST)
    tell({"url": f"http://{HOST}:{port.getHost().port}{server.settings.base_path}"})
    StandardIO(_UntilTheEnd(reactor), reactor=reactor)
    reactor.run()
    return 0


def reported(event: Event) -> ReportedEvent:
    """The event for the other process."""
    upload = event.upload
    metadata = {name: value.decode("utf-8", "replace") for name, value in upload.metadata.items()}
    path: Any = upload.id
    return ReportedEvent(event.kind.value, upload.id, path, upload.length, upload.offset, metadata, event.details)


if __name__ == "__main__":
    sys.exit(main())

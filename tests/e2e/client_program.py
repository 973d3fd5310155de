"""A program that uses `resumable.client`: what it is told comes out as lines of JSON, and then the result or the error.

python -m tests.e2e.client_program blocking|deferred put|get SOURCE URL '{"retry_for": 5}'
"""

from __future__ import annotations

import json
import sys
from typing import Any

from resumable.client import Client, ClientError, ClientOptions, TransferEvent


def say(document: dict[str, Any]) -> None:
    """A line."""
    print(json.dumps(document, default=str), flush=True)


def on_event(event: TransferEvent) -> None:
    """Every event but progress, of which only the first is told."""
    if event.name not in ("moved", "received") or not told:
        told.extend([event] if event.name in ("moved", "received") else [])
        say(event.as_json())


told: list[TransferEvent] = []


def blocking(way: str, source: Any, url: str, options: ClientOptions) -> Any:
    """By `Client`."""
    with Client(options, on_event=on_event) as client:
        return client.put(source, url) if way == "put" else client.get(url, source)


def deferred(way: str, source: Any, url: str, options: ClientOptions) -> Any:
    """By `AsyncClient`."""
    from twisted.internet import reactor
    from twisted.python.failure import Failure

    from resumable.client import AsyncClient

    loop: Any = reactor
    results: list[Any] = []

    def begin() -> None:
        client = AsyncClient(loop, options, on_event=on_event)
        done: Any = client.put(source, url) if way == "put" else client.get(url, source)
        done.addBoth(results.append).addCallback(lambda _: client.close()).addBoth(lambda _: loop.stop())

    loop.callWhenRunning(begin)
    loop.run()
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def main() -> int:
    """See the module."""
    face, way, source, url, options = sys.argv[1:]
    given: Any = sys.stdin.buffer if source == "-" else source
    from attrs import asdict

    try:
        result = {"blocking": blocking, "deferred": deferred}[face](
            way, given, url, ClientOptions(**json.loads(options))
        )
    except ClientError as error:
        say({"error": type(error).__name__, "text": str(error)})
        return 1
    say({"result": asdict(result)})
    return 0


if __name__ == "__main__":
    sys.exit(main())

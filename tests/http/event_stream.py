"""A client of server-sent events, without sockets."""

from __future__ import annotations

import json
from typing import Any

from resumable.http.live import LIFE
from tests.http.visitor import Client
from tests.uploads.harness import Server

ACCEPT = "Accept: text/event-stream"


class Watching:
    """One client's stream."""

    def __init__(self, client: Client, upload_id: str, *fields: str) -> None:
        self.client, self.wire = client, client.wire
        client.begin("GET", f"/files/{upload_id}/status", ACCEPT, *fields, tus=False)
        self.head, _, rest = self.wire.value().partition(b"\r\n\r\n")
        self.wire.clear()
        self.first = unchunked(rest)

    def comes(self, seconds: float = 0.0) -> list[tuple[str, Any]]:
        """The events of so many seconds, and what the wire has already."""
        if seconds:
            self.client.server.advance(seconds)
        data = unchunked(self.wire.value())
        self.wire.clear()
        return parsed(data)

    @property
    def over(self) -> bool:
        return b"\r\n0\r\n\r\n" in b"\r\n" + self.wire.value()


def unchunked(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        found, data = found + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return found


def parsed(data: bytes) -> list[tuple[str, Any]]:
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def another(server: Server, **options: Any) -> Client:
    client = Client(server, **options)
    client.channel.site.network_timeout = 10 * LIFE
    return client

"""Somebody in front of the server who answers each method with what a test has written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

TUS = "Tus-Resumable: 1.0.0"


def said(status: int, *fields: str) -> bytes:
    """An answer with these fields and no body."""
    return "\r\n".join([f"HTTP/1.1 {status} X", *fields, "Content-Length: 0", "", ""]).encode()


class Front:
    """``answers``: by method; a method without one is never answered. ``{url}`` in one is the server's own,
    ``{metadata}`` the Upload-Metadata that it was sent last. A head of more than ``longest`` bytes is refused."""

    def __init__(self, answers: Mapping[str, bytes]) -> None:
        self.answers = dict(answers)
        self.asked: list[bytes] = []
        self.url = ""
        self.metadata = b""
        self.longest = 1 << 20
        self._port: Any = None

    async def open(self) -> Front:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self._port = await endpoint.listen(Factory.forProtocol(lambda: _Answering(self)))
        self.url = f"http://127.0.0.1:{self._port.getHost().port}/files/"
        return self

    async def close(self) -> None:
        await self._port.stopListening()


class _Answering(Protocol):
    def __init__(self, front: Front) -> None:
        self._front = front
        self._heard = b""

    def dataReceived(self, data: bytes) -> None:
        whole = b"\r\n\r\n" in self._heard
        self._heard += data
        head, end, _ = self._heard.partition(b"\r\n\r\n")
        if whole or not end:
            return
        self._front.asked.append(head)
        sent = re.search(rb"(?i)\r\nupload-metadata: *([^\r]*)", head)
        if sent:
            self._front.metadata = sent[1]
        answer = self._front.answers.get(head.split(b" ")[0].decode())
        if len(head) > self._front.longest:
            answer = said(400)
        if answer is not None:
            self.transport.write(
                answer.replace(b"{url}", self._front.url.encode()).replace(b"{metadata}", self._front.metadata)
            )
            self.transport.loseConnection()

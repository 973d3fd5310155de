"""HTTP/1.1 over a plain socket, for tests that must see and send every byte themselves.

Invariant: whatever goes out is exactly what the caller gave, and an answer is read by RFC 9112's framing rules alone;
every wait is bounded.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .daemon import BOUND


@dataclass(frozen=True)
class Answer:
    """One final answer; ``interim`` are the statuses of the informational ones before it."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    interim: tuple[int, ...] = ()

    def get(self, name: str) -> str | None:
        """The field's value, several joined by ", " in order; None when there is none."""
        found = [value for key, value in self.fields if key == name.lower()]
        return ", ".join(found) if found else None

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        assert value is not None, f"no {name} in {self}"
        return value

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    @property
    def problem(self) -> dict[str, Any]:
        """The body as problem+json (RFC 9457)."""
        assert (self.get("content-type") or "").startswith("application/problem+json"), self
        found = json.loads(self.body)
        assert isinstance(found, dict), self
        return found

    @property
    def offset(self) -> int:
        """Upload-Offset as a number."""
        return int(self["upload-offset"])


class Wire:
    """One connection."""

    def __init__(self, port: int, timeout: float = BOUND) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, data: bytes | str) -> Wire:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def offer(self, data: bytes) -> bool:
        """Send what the other side takes; False when it has closed."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def half_close(self) -> None:
        """FIN our way; the other way stays open."""
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """The next final answer; ``method`` tells whether it may have a body. EOFError when the other side closes."""
        interim: list[int] = []
        while True:
            status, fields = self._head()
            if status >= 200:
                return Answer(status, fields, self._body(method, status, dict(fields)), tuple(interim))
            interim.append(status)

    def interim(self) -> int:
        """The status of the next head, which must be an informational one."""
        status, _ = self._head()
        assert status < 200, status
        return status

    def ended(self) -> bool:
        """Wait for the other side's end; True when it came without another byte, by FIN or reset."""
        try:
            self._buffer += self.socket.recv(65536)
        except ConnectionResetError:
            return True
        return not self._buffer

    def _head(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, *_ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1" and len(status) == 3, lines[0]
        fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            assert colon and name and name == name.strip(), f"bad header line {line!r}"
            fields.append((name.lower(), value.strip()))
        return int(status), tuple(fields)

    def _body(self, method: str, status: int, fields: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        if "transfer-encoding" in fields:
            whole = b""
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                whole += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            while self._until(b"\r\n"):
                pass
            return whole
        if "content-length" in fields:
            return self._exactly(int(fields["content-length"]))
        return self._rest()

    def _more(self) -> bool:
        data = self.socket.recv(1 << 20)
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._more():
                raise EOFError(f"closed after {self._buffer!r}")
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    def _exactly(self, size: int) -> bytes:
        got, self._buffer = [self._buffer[:size]], self._buffer[size:]
        missing = size - len(got[0])
        while missing:
            data = self.socket.recv(min(missing, 1 << 20))
            if not data:
                raise EOFError(f"closed {missing} bytes early")
            got.append(data)
            missing -= len(data)
        return b"".join(got)

    def _rest(self) -> bytes:
        while self._more():
            pass
        whole, self._buffer = self._buffer, b""
        return whole

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with RST instead of FIN, as a killed client's kernel may."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

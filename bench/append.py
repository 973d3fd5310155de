"""One PATCH, without TLS or over it by either version of HTTP, from a process of its own.

``python -m bench.append plain|1.1|2 ADDRESS PORT PATH FILE SIZE``

Changes when appends are to be sent in another way. Prints the seconds from the first byte of the request to the
answer. Invariant: both versions go through the same code down to TLS; HTTP/2 waits for nothing but windows.
"""

from __future__ import annotations

import mmap
import select
import socket
import ssl
import struct
import sys
import time
from pathlib import Path

from hpack import Decoder, Encoder

from bench.load import HOST, OCTETS, LoadError, head_of, secure

FRAME = 16_384
BATCH = 262_144
WINDOW = 65_535
DATA, HEADERS, RST, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8


def connect(address: str, port: int) -> socket.socket:
    """Return a connection without TLS."""
    plain = socket.create_connection((address, port), timeout=60)
    plain.settimeout(None)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def over_http_1(link: socket.socket, path: str, view: memoryview) -> float:
    with link:
        began = time.perf_counter()
        sized = {"Content-Length": str(len(view)), "Upload-Offset": "0", "Content-Type": OCTETS}
        link.sendall(head_of("PATCH", path, sized))
        for at in range(0, len(view), BATCH):
            link.sendall(view[at : at + BATCH])
        status = link.recv(65_536).split(b" ")[1]
        took = time.perf_counter() - began
    if status != b"204":
        raise LoadError(f"answered {status!r}")
    return took


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    return b"".join([struct.pack(">I", len(payload))[1:], bytes([kind, flags]), struct.pack(">I", stream), payload])


class Http2:
    """One connection with one request."""

    def __init__(self, link: ssl.SSLSocket) -> None:
        self.link = link
        self.windows = {0: WINDOW, 1: WINDOW}
        self.initial = WINDOW
        self.status = b""
        self._came = b""
        link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
        link.setblocking(False)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.link.send(view) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                select.select([self.link], [self.link], [], 60)
                self.hear()
        self.hear()

    def wait(self) -> None:
        """Wait until something was heard."""
        if not self.link.pending():
            select.select([self.link], [], [], 60)
        self.hear()

    def hear(self) -> None:
        try:
            while data := self.link.recv(65_536):
                self._came += data
                self._look()
            raise LoadError("the connection was closed")
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass

    def _look(self) -> None:
        while len(self._came) >= 9 and len(self._came) >= 9 + (size := int.from_bytes(self._came[:3], "big")):
            kind, flags, stream = self._came[3], self._came[4], int.from_bytes(self._came[5:9], "big")
            payload, self._came = self._came[9 : 9 + size], self._came[9 + size :]
            if kind == SETTINGS and not flags & 1:
                for name, value in struct.iter_unpack(">HI", payload):
                    if name == 4:
                        self.windows[1] += value - self.initial
                        self.initial = value
            elif kind == WINDOW_UPDATE:
                self.windows[stream] += int.from_bytes(payload, "big")
            elif kind == HEADERS:
                self.status = dict(Decoder().decode(payload, raw=True))[b":status"]
            elif kind in (RST, GOAWAY):
                raise LoadError(f"frame {kind}: {payload!r}")

    def append(self, port: int, path: str, view: memoryview) -> float:
        began = time.perf_counter()
        fields = [(":method", "PATCH"), (":scheme", "https"), (":authority", f"{HOST}:{port}"), (":path", path)]
        fields += [("tus-resumable", "1.0.0"), ("upload-offset", "0"), ("content-type", OCTETS)]
        head = Encoder().encode([*fields, ("content-length", str(len(view)))])
        self.send(frame(HEADERS, 4, 1, head))
        at = 0
        while at < len(view):
            frames, size = [], 0
            while size < BATCH and at < len(view) and (room := min(FRAME, *self.windows.values())) > 0:
                piece = view[at : at + room]
                at, size = at + len(piece), size + len(piece)
                for stream in self.windows:
                    self.windows[stream] -= len(piece)
                frames.append(frame(DATA, int(at == len(view)), 1, piece))
            if frames:
                self.send(b"".join(frames))
            else:
                self.wait()
        while not self.status:
            self.wait()
        if self.status != b"204":
            raise LoadError(f"answered {self.status!r}")
        return time.perf_counter() - began


def main() -> None:
    way, address, port, path, file, size = sys.argv[1:]
    with Path(file).open("rb") as opened:
        view = memoryview(mmap.mmap(opened.fileno(), int(size), prot=mmap.PROT_READ))
    plain = connect(address, int(port))
    if way == "2":
        print(Http2(secure(plain, "h2")).append(int(port), path, view))
    else:
        print(over_http_1(plain if way == "plain" else secure(plain, "http/1.1"), path, view))


if __name__ == "__main__":
    main()

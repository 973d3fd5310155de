"""A blocking client of HTTP/2, over TLS or without, on which requests can be left half sent.

Invariant: nothing here waits longer than its time-out.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping
from types import TracebackType

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from .daemon import BOUND
from .tus import Tus, check
from .wire import Answer

Fields = Mapping[str, str]


class States(H2ConnectionStateMachine):
    """After GOAWAY the streams under way go on."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        return [] if input_ is ConnectionInputs.RECV_GOAWAY else super().process_input(input_)


class Http2:
    """One connection. ``numbers`` of requests are those of their streams."""

    def __init__(self, port: int, *, tls: bool = False, timeout: float = BOUND) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["h2", "http/1.1"])
            self.socket = context.wrap_socket(self.socket)
            assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self.h2.state_machine = States()
        self.heads: dict[int, tuple[tuple[str, str], ...]] = {}
        self.bodies: dict[int, bytes] = {}
        self.interim: dict[int, int] = {}
        self.interims: dict[int, list[Answer]] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaway: int | None = None
        try:
            self.h2.initiate_connection()
            self._flush()
            self._hear()  # its settings: the windows are known from now on
        except BaseException:
            self.close()
            raise

    def begin(self, method: str, path: str, fields: Fields | None = None, *, end: bool = False) -> int:
        """Send the head of a request."""
        number = self.h2.get_next_available_stream_id()
        self.bodies[number] = b""
        given = {name.lower(): value for name, value in (fields or {}).items()}
        host = given.pop("host", "127.0.0.1")
        head = [(":method", method), (":scheme", "https"), (":authority", host), (":path", path), *given.items()]
        self.h2.send_headers(number, head, end_stream=end)
        self._flush()
        return number

    def send(self, number: int, data: bytes, *, end: bool = False, trailers: Fields | None = None) -> None:
        """Send of a body as fast as the windows open."""
        at = 0
        while at < len(data) and number not in self.resets:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room:
                self.h2.send_data(number, data[at : at + room])
                at += room
                self._flush()
            else:
                self._hear()
        if number in self.resets:
            return
        if trailers is not None:
            self.h2.send_headers(number, [(name.lower(), value) for name, value in trailers.items()], end_stream=True)
        elif end:
            self.h2.end_stream(number)
        self._flush()

    def reset(self, number: int) -> None:
        self.h2.reset_stream(number, 8)
        self._flush()

    def interim_of(self, number: int) -> int:
        """The status of an answer before the answer."""
        while number not in self.interim:
            self._hear()
        return self.interim[number]

    def reset_of(self, number: int) -> int:
        """The code that this request was called off with."""
        while number not in self.resets:
            self._hear()
        return self.resets[number]

    def answer(self, number: int) -> Answer:
        while number not in self.ended:
            assert number not in self.resets or number in self.heads, f"reset with {self.resets[number]}"
            self._hear()
        (_, status), *fields = self.heads[number]
        return Answer(int(status), tuple(fields), self.bodies[number])

    def ask(
        self, method: str, path: str, fields: Fields | None = None, body: bytes = b"", trailers: Fields | None = None
    ) -> Answer:
        announced = {"Content-Length": str(len(body))} if body and trailers is None else {}
        number = self.begin(method, path, {"Tus-Resumable": "1.0.0", **announced, **(fields or {})}, end=not body)
        if body:
            self.send(number, body, end=True, trailers=trailers)
        return self.answer(number)

    def _flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def _hear(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the server has closed the connection")
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                self.heads[event.stream_id] = tuple(event.headers)
            elif isinstance(event, InformationalResponseReceived):
                (_, status), *fields = event.headers
                self.interim[event.stream_id] = int(status)
                self.interims.setdefault(event.stream_id, []).append(Answer(int(status), tuple(fields), b""))
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.resets[event.stream_id] = int(event.error_code)
            elif isinstance(event, ConnectionTerminated):
                self.goaway = int(event.error_code)
        self._flush()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Tus2(Tus):
    """A tus client over HTTP/2; what it sends byte by byte goes over HTTP/1.1, to the same port."""

    _link: Http2 | None = None

    def ask(
        self,
        method: str,
        target: str | None = None,
        fields: Mapping[str, str | None] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Answer:
        whole = body if isinstance(body, bytes) else b"".join(body or ())
        announced = {} if body is None or not isinstance(body, bytes) else {"Content-Length": str(len(body))}
        said = {"Tus-Resumable": "1.0.0", **announced, **(fields or {})}
        sent = {name: value for name, value in said.items() if value is not None and name != "Transfer-Encoding"}
        for again in (True, False):
            if self._link is None:
                self._link = Http2(self.port, timeout=self.timeout)
            try:
                path = (target or self.base).removeprefix(f"http://127.0.0.1:{self.port}")  # has no absolute form
                number = self._link.begin(method, path, sent, end=body is None)
                if body is not None:
                    self._link.send(number, whole, end=True, trailers=trailers)
                return check(method, self._link.answer(number))
            except OSError:  # an idle connection is closed
                self.close()
                if not again:
                    raise
        raise AssertionError

    def close(self) -> None:
        super().close()
        if self._link is not None:
            self._link.close()
            self._link = None

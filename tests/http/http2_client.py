"""A client of HTTP/2 without sockets: h2's other half beside one of our connections, on a clock of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from resumable.http.request import StreamingRequest
from resumable.http.site import StreamingSite
from tests.http.http1_client import Consumer, Handler, Tree, Wire, answer, ending, nothing

MIB = 1 << 20
SETTINGS, PING, CONTINUATION, HEADERS, WINDOW_UPDATE, RST, PRIORITY = 4, 6, 9, 1, 8, 3, 2


class Answer:
    """What was answered on one stream, so far."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.informational: list[str] = []
        self.informed: list[dict[str, str]] = []
        self.body = b""
        self.ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.fields.get(":status", 0))


class States(H2ConnectionStateMachine):
    """After GOAWAY the streams under way go on."""

    def process_input(self, input_: ConnectionInputs) -> Any:
        return [] if input_ is ConnectionInputs.RECV_GOAWAY else super().process_input(input_)


class Client:
    """One connection; ``wire`` is its transport. ``acknowledge``: whether the bodies of answers are taken at once."""

    def __init__(
        self, handler: Handler = nothing, site: StreamingSite | None = None, address: str = "192.0.2.1", **options: Any
    ) -> None:
        self.clock = Clock()
        self.tree = Tree(handler)
        self.site = site or StreamingSite(self.tree, reactor=self.clock, h2c=True, **options)
        self.wire = Wire(peerAddress=IPv4Address("TCP", address, 4711))
        self.channel = self.site.buildProtocol(None)
        self.channel.makeConnection(self.wire)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.state_machine = States()
        self.answers: dict[int, Answer] = {}
        self.goaway: ConnectionTerminated | None = None
        self.acknowledge = True
        self.h2.initiate_connection()
        self.exchange()

    def exchange(self) -> None:
        """Let the two talk until neither has more to say."""
        while said := self.h2.data_to_send():
            self.channel.dataReceived(said)
            self.hear()
        self.hear()

    def hear(self) -> None:
        heard = self.wire.value()
        self.wire.clear()
        with contextlib.suppress(ProtocolError) if self.goaway else contextlib.nullcontext():
            for event in self.h2.receive_data(heard) if heard else ():
                self.note(event)
        if said := self.h2.data_to_send():
            self.channel.dataReceived(said)
            self.hear()

    def note(self, event: Any) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = event
        answer = self.answers.get(getattr(event, "stream_id", 0), Answer())
        if isinstance(event, InformationalResponseReceived):
            answer.informational.append(dict(event.headers)[":status"])
            answer.informed.append(dict(event.headers))
        elif isinstance(event, ResponseReceived):
            answer.fields = dict(event.headers)
        elif isinstance(event, DataReceived):
            answer.body += event.data
            if self.acknowledge and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code)

    def send(self, method: str = "GET", path: str = "/files/1", *, end: bool = True, **fields: object) -> int:
        """Send the head of a request; answers the number of its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        head = [(":method", method), (":scheme", "http"), (":authority", "example.com"), (":path", path)]
        head += [(name.replace("_", "-"), str(value)) for name, value in fields.items()]
        self.h2.send_headers(stream, head, end_stream=end)
        self.exchange()
        return stream

    def patch(self, length: int | None = None, **fields: object) -> int:
        announced = {} if length is None else {"content_length": length}
        return self.send("PATCH", end=False, **announced, **fields)

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send as much of a body; it has to fit into the windows."""
        size = self.h2.max_outbound_frame_size
        for piece in [data[at : at + size] for at in range(0, len(data), size)] or [b""]:
            self.h2.send_data(stream, piece)
        if end:
            self.h2.end_stream(stream)
        self.exchange()

    def raw(self, kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> None:
        """Send a frame that h2 would not."""
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        self.channel.dataReceived(head + payload)
        self.hear()

    def hang_up(self) -> None:
        self.channel.connectionLost(Failure(ConnectionLost()))

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds * 4))
        self.hear()

    @property
    def request(self) -> StreamingRequest:
        return self.tree.requests[-1]

    def deliver(self, consumer: Consumer | None = None) -> tuple[Consumer, list[str]]:
        """Have the last request's body delivered; how it ends is put in the list."""
        consumer = consumer or Consumer()
        ends = ending(self.request.body.deliver(consumer))
        self.hear()
        return consumer, ends

    def window(self, stream: int) -> int:
        """How many bytes of this body may be sent."""
        return self.h2.local_flow_control_window(stream)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Nothing goes out meanwhile: the transport's buffer is full."""
        self.wire.producer.pauseProducing()
        yield
        self.wire.producer.resumeProducing()
        self.hear()


def ok(request: StreamingRequest) -> None:
    answer(request, 200, b"ok")


def frame(kind: int, payload: bytes, flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

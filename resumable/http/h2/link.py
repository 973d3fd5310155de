"""The part of an HTTP/2 connection that its streams share: frames that go out, windows, memory, the state machine.

The machine is `h2` with our settings. The bytes of bodies go past it, because h2 copies each byte four times and makes
a text of it; `Http2Machine.body_ended` tells it of their ends.

Invariants: a client may send on only as far as its bytes were taken, and so much that 50 MiB/s over a round trip of
50 ms never wait for a window; no bytes of a client make memory grow beyond `limits`, or work beyond `ClientPace`;
neither a header table of the client's choosing nor the streams of a long connection make it grow.
Specs: RFC 9113 sections 5 and 6; https://python-hyper.org/projects/h2/
"""

from __future__ import annotations

import enum
import math
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import DenialOfServiceError, ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy, StreamInputs, StreamState
from hpack.exceptions import HPACKError
from hyperframe.frame import Frame, HeadersFrame, RstStreamFrame
from twisted.internet.protocol import Protocol

from resumable.http.body import READ_AHEAD
from resumable.http.connections import Connections
from resumable.http.h2.frames import MAX_FRAME, window_update
from resumable.http.h2.limits import CONNECTION_WINDOW, STREAM_WINDOW, ClientPace, ReceiveWindow

LINGER: Final = 2.0
"""Seconds for a client to read the last words before its connection is closed; closing at once could eat them."""
MAX_BACKLOG: Final = 256 << 10
"""Bytes that wait for a client which doesn't read, beside the bodies of its answers. At more, it isn't read either."""

MAX_STREAMS: Final = 100
"""Requests at once on one connection."""
MAX_HEADER_LIST: Final = 65_536
"""Bytes of one decoded header list that we ask for, counted as RFC 9113 does. See h1.MAX_HEAD."""
DECODED: Final = 2 * MAX_HEADER_LIST
"""And that we decode, for those who don't heed it and are refused alone; more is taken for an attack."""
HEADER_TABLE: Final = 4_096
"""Bytes that we remember of the fields that we have sent, however much the client would remember."""

MOST_READ: Final = 262_144
"""Bytes asked of the kernel at once, at most. Frames in as many bytes may keep other connections waiting."""
_READ = 65_536
_SMALLEST_WINDOW = 65_535
_ANY = (1 << 32) - 1
_GOAWAY = (ConnectionInputs.SEND_GOAWAY, ConnectionInputs.RECV_GOAWAY)


class LinkState(enum.Enum):
    """Whether frames are exchanged; or the client reads the last ones; or the transport is closing."""

    OPEN = "open"
    LINGERING = "lingering"
    CLOSED = "closed"


# Names of the module are found in a tenth of the time that a member of an enum takes.
OPEN, LINGERING, CLOSED = LinkState


class _States(H2ConnectionStateMachine):
    """For h2 a connection is over with GOAWAY; RFC 9113 section 6.8 lets the streams under way finish."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        return [] if input_ in _GOAWAY else super().process_input(input_)


def _settings(streams: int) -> Settings:
    return Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
        },
    )


class Http2Machine(H2Connection):
    """One connection's state. What it wants to say is in `data_to_send`, the settings from the start."""

    MAX_CLOSED_STREAMS = 1_000

    def __init__(self) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,  # `frames.head_of` does
                validate_outbound_headers=False,
            )
        )
        self.state_machine = _States()
        self.local_settings = _settings(MAX_STREAMS)
        self.max_inbound_frame_size = MAX_FRAME
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - _SMALLEST_WINDOW)
        self.local_settings = _settings(_ANY)  # one more than we have said ends that stream only: Http2Connection
        self.decoder.max_header_list_size = DECODED

    def clear_outbound_data_buffer(self) -> None:
        """h2 does this when the client says GOAWAY. Here the bytes stay: they belong to streams that go on."""

    def settings_changed(self) -> None:
        """The client has sent settings."""
        if self.encoder.header_table_size > HEADER_TABLE:
            self.encoder.header_table_size = HEADER_TABLE

    def body_ended(self, number: int) -> None:
        """The last DATA frame of this open stream has come."""
        self.streams[number].state_machine.process_input(StreamInputs.RECV_END_STREAM)

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        """A head that breaks the rules ends its stream, not the connection (RFC 9113 section 8.1.1)."""
        try:
            return super()._receive_headers_frame(frame)
        except (StreamClosedError, StreamIDTooLowError):
            raise
        except ProtocolError as error:
            stream = self.streams.get(frame.stream_id)
            if stream is None or isinstance(error, DenialOfServiceError) or isinstance(error.__cause__, HPACKError):
                raise  # the state of the compression is lost, so no later head can be read
            stream.state_machine.state = StreamState.CLOSED
            stream.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
            code = ErrorCodes.PROTOCOL_ERROR
            event = StreamReset(stream_id=frame.stream_id, error_code=code, remote_reset=False)
            return [RstStreamFrame(frame.stream_id, error_code=code)], [event]


class Http2Link(Protocol):
    """See the module. `Http2Connection` is made of it.

    ``choked``: the transport takes nothing for now. ``secure``: whether the connection is encrypted. ``lingers``: the
    client may be sending bytes that nobody reads, so that closing at once would reset the connection.
    """

    transport: Any

    def __init__(self, site: Connections) -> None:
        self.site = site
        self.machine = Http2Machine()
        self.pace = ClientPace(site.seconds())
        self.choked = self.lingers = self.secure = False
        self._window = ReceiveWindow(CONNECTION_WINDOW)
        self._state: LinkState = OPEN
        self._leaving = False  # one side has said GOAWAY
        self._due = math.inf  # when to look for streams whose client is too slow
        self._updates: list[bytes] = []  # frames to be sent that the machine needn't know
        self._client = ""
        self._held = 0
        self._backlog = 0
        self._reading = True
        self._read_size = _READ
        self._full = False  # not read, because it, or its site, holds too much
        self._busy = False  # reading, further up the stack

    def flush(self) -> None:
        """Hand all frames that wait to the transport."""
        data = self.machine.data_to_send()
        if self._updates:
            data += b"".join(self._updates)
            self._updates.clear()
        if not data or self._state is CLOSED:
            return
        if self.choked:
            self._backlog += len(data)
        self.transport.write(data)

    def credit(self, number: int, window: ReceiveWindow, size: int) -> None:
        """So many bytes of a window are free again; ``number`` is the stream's, or 0."""
        more = window.give(size)
        if more and self._state is OPEN:
            self._updates.append(window_update(number, more))
            if not self._busy:
                self.flush()

    def took(self, size: int) -> None:
        """So many bytes of a stream have left memory."""
        self.credit(0, self._window, size)

    def hold(self, size: int) -> None:
        """So many more bytes of bodies wait in memory, or fewer."""
        self._held += size
        self.site.held.add(self._client, size)
        self.regulate()

    def read_more(self, came: int) -> None:
        """A read has brought so many bytes of bodies: the next one may be larger, or is as large as at first."""
        size = self._read_size
        size = min(2 * size, MOST_READ) if 2 * came > size else _READ
        if size != self._read_size and hasattr(self.transport, "bufferSize"):
            self._read_size = self.transport.bufferSize = size

    def look_at(self, when: float) -> None:
        """A stream wants to be checked then, if not earlier."""
        self._due = min(self._due, when)

    def linger(self) -> float:
        """Returns until when a client may go on to send bytes that nobody needs."""
        until = self.site.seconds() + (min(self.site.linger, LINGER) if self._leaving else self.site.linger)
        self.look_at(until)
        return until

    def regulate(self) -> None:
        """Read on, unless its client, or all together, hold too much, and this one has a part in it; or unless it asks
        for more than its budget, or its answers wait."""
        full = self._held > READ_AHEAD and self.site.held.full(self._client)
        if full:
            self.site.held.stopped(self)
        full = full or self._backlog > MAX_BACKLOG
        if self._full and not full:
            self._due = self.site.seconds() + self.site.network_timeout  # nobody was slow in the meantime
        self._full = full
        wanted = not (full or self.pace.ahead)
        if wanted != self._reading and self._state is not CLOSED:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def settle(self) -> None:
        """Send all that waits, and close the connection if nothing can follow."""
        raise NotImplementedError

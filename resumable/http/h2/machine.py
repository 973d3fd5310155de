"""The state machine of HTTP/2 as this server wants it: `h2` with our settings, without the bytes of bodies.

Bodies go past it because h2 copies each byte four times and makes a text of it; `body_ended` tells it of their ends.
Invariants: a client may send so much that 50 MiB/s over a round trip of 50 ms
never wait for a window; neither a header table of the client's choosing nor the streams of a long connection make it
grow. Specs: RFC 9113 sections 5 and 6; https://python-hyper.org/projects/h2/
"""

from __future__ import annotations

from typing import Final

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import DenialOfServiceError, ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamClosedBy, StreamInputs, StreamState
from hpack.exceptions import HPACKError
from hyperframe.frame import Frame, HeadersFrame, RstStreamFrame

from resumable.http.h2.frames import MAX_FRAME
from resumable.http.h2.limits import CONNECTION_WINDOW, STREAM_WINDOW

MAX_STREAMS: Final = 100
"""Requests at once on one connection."""
MAX_HEADER_LIST: Final = 65_536
"""Bytes of one decoded header list that we ask for, counted as RFC 9113 does. See h1.head.MAX_HEAD."""
DECODED: Final = 2 * MAX_HEADER_LIST
"""And that we decode, for those who don't heed it and are refused alone; more is taken for an attack."""
HEADER_TABLE: Final = 4_096
"""Bytes that we remember of the fields that we have sent, however much the client would remember."""

_SMALLEST_WINDOW = 65_535
_ANY = (1 << 32) - 1
_GOAWAY = (ConnectionInputs.SEND_GOAWAY, ConnectionInputs.RECV_GOAWAY)


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
                validate_inbound_headers=False,  # head.py does
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

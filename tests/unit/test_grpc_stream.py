# SPDX-License-Identifier: GPL-2.0-or-later
"""The trap stream's own HTTP/2 against an independent implementation (h2), and against peers that break the protocol."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.settings import SettingCodes, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_service.link.grpc_stream import (
    CONTINUATION,
    CONTROL_BYTES,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    GOAWAY,
    HEADERS,
    HEADERS_BYTES,
    OUTPUT_BYTES,
    PADDED,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_BYTES,
    WINDOW_UPDATE,
    GrpcStream,
)
from splitvisor.limits import MESSAGE_BYTES
from tests.amounts import examples

PATH = "/package.Service/Method"
ANSWER = [(":status", "200"), ("content-type", "application/grpc")]


class Server:
    """h2 as the server of one stream."""

    def __init__(self, window: int = 65535, frame: int = 16384) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        values = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame}
        self.h2.local_settings = Settings(client=False, initial_values=values)
        self.h2.max_inbound_frame_size = frame
        self.h2.initiate_connection()
        self.events: list[Event] = []
        self.body = bytearray()
        self._waiting = bytearray()

    def receive(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived):
                self.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, WindowUpdated):
                self._push()

    def send(self, message: bytes) -> None:
        """Say a message, as far as the client's window has room for it."""
        self._waiting += struct.pack(">BI", 0, len(message)) + message
        self._push()

    def _push(self) -> None:
        while self._waiting and (room := min(self.h2.local_flow_control_window(1), self.h2.max_outbound_frame_size)):
            self.h2.send_data(1, bytes(self._waiting[:room]))
            del self._waiting[:room]

    def messages(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.body):
            _, size = struct.unpack_from(">BI", self.body, at)
            found.append(bytes(self.body[at + 5 : at + 5 + size]))
            at += 5 + size
        return found

    def saw(self, kind: type[Event]) -> bool:
        return any(isinstance(event, kind) for event in self.events)


def exchange(stream: GrpcStream, server: Server, chunk: int = 1 << 20) -> list[bytes]:
    """Carry bytes to and fro, in pieces, until both are silent; return what the client got."""
    messages = []
    while True:
        sent = bytes(stream.output[:chunk])
        stream.wrote(len(sent))
        if sent:
            server.receive(sent)
        back = server.h2.data_to_send()
        for start in range(0, len(back), chunk):
            messages += stream.receive(back[start : start + chunk])
        if not sent and not back:
            return messages


def requested(server: Server) -> dict[str, str]:
    """The header fields of the stream."""
    [request] = [event for event in server.events if isinstance(event, RequestReceived)]
    return {str(name): str(value) for name, value in request.headers}


def opened(**settings: int) -> tuple[GrpcStream, Server]:
    """A stream that the server has answered."""
    stream, server = GrpcStream(PATH, "localhost"), Server(**settings)
    exchange(stream, server)
    server.h2.send_headers(1, ANSWER)
    exchange(stream, server)
    return stream, server


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def test_a_stream_opens_as_a_grpc_request() -> None:
    stream, server = GrpcStream(PATH, "host.example:7000", secure=True), Server()
    exchange(stream, server)
    fields = requested(server)
    assert fields == {
        ":method": "POST", ":scheme": "https", ":path": PATH, ":authority": "host.example:7000", "te": "trailers",
        "content-type": "application/grpc", "user-agent": fields["user-agent"],
    }  # fmt: skip
    assert fields["user-agent"].startswith("splitvisor/")
    assert stream.heard


def test_a_long_name_is_said_whole() -> None:
    stream, server = GrpcStream(PATH, "h" * 300), Server()
    exchange(stream, server)
    assert requested(server)[":authority"] == "h" * 300


@settings(max_examples=examples(60))
@given(
    there=st.lists(st.integers(0, 100_000), max_size=6),
    back=st.lists(st.integers(0, 100_000), max_size=6),
    window=st.integers(1000, 200_000),
    frame_bytes=st.sampled_from([16384, 20_000, (1 << 24) - 1]),
    chunk=st.integers(1000, 70_000),
)
def test_messages_arrive_whole_and_in_order_whatever_the_windows(
    there: Sequence[int], back: Sequence[int], window: int, frame_bytes: int, chunk: int
) -> None:
    stream, server = opened(window=window, frame=frame_bytes)
    said = [bytes([number % 251]) * size for number, size in enumerate(there)]
    answered = [bytes([number % 241 + 1]) * size for number, size in enumerate(back)]
    for message in said:
        stream.send(message)
    for message in answered:
        server.send(message)
    got = exchange(stream, server, chunk)
    assert server.messages() == said
    assert got == answered
    assert stream.has_room
    assert stream.end is None


def test_small_pieces_are_put_together() -> None:
    stream, server = opened()
    server.send(b"ab")
    server.send(b"c" * 300)
    assert exchange(stream, server, chunk=1) == [b"ab", b"c" * 300]


def test_more_than_a_window_comes_in() -> None:
    stream, server = opened()
    big = bytes(3 << 20)
    for _ in range(2 * WINDOW_BYTES // len(big) + 1):
        server.send(big)
    assert len(exchange(stream, server)) == 2 * WINDOW_BYTES // len(big) + 1


def test_output_is_bounded_while_the_connection_takes_nothing() -> None:
    stream, _ = opened(window=1 << 30)
    for _ in range(8):
        stream.send(bytes(1 << 20))
    assert len(stream.output) < OUTPUT_BYTES + FRAME_BYTES
    assert not stream.has_room


def test_the_end_is_said_after_everything() -> None:
    stream, server = opened(window=1000)
    stream.send(bytes(5000))
    stream.finish()
    exchange(stream, server)
    assert server.messages() == [bytes(5000)]
    assert server.saw(StreamEnded)


def test_a_cancelled_stream_is_reset() -> None:
    stream, server = opened()
    stream.cancel()
    exchange(stream, server)
    assert server.saw(StreamReset)
    assert stream.end is not None
    assert stream.end.code is grpc.StatusCode.CANCELLED


def test_pings_go_both_ways() -> None:
    stream, server = opened()
    stream.ping()
    assert stream.pong_awaited
    exchange(stream, server)
    assert not stream.pong_awaited
    assert server.saw(PingReceived)
    server.h2.ping(b"12345678")
    exchange(stream, server)
    assert [event.ping_data for event in server.events if event.__class__.__name__ == "PingAckReceived"] == [b"12345678"]


@pytest.mark.parametrize(
    ("status", "message", "code", "details"),
    [
        ("0", "", grpc.StatusCode.OK, ""),
        ("3", "call 3%3A gr%C3%BC%C3%9Fe", grpc.StatusCode.INVALID_ARGUMENT, "call 3: grüße"),
        ("99", "new", grpc.StatusCode.UNKNOWN, "new"),
        ("x", "", grpc.StatusCode.INTERNAL, "the peer ended the stream without a status"),
    ],
)
def test_the_status_is_told_behind_the_last_message(status: str, message: str, code: grpc.StatusCode, details: str) -> None:
    stream, server = opened()
    server.send(b"last")
    server.h2.send_headers(1, [("grpc-status", status), ("grpc-message", message)], end_stream=True)
    assert exchange(stream, server) == [b"last"]
    assert stream.end is not None
    assert (stream.end.code, stream.end.details) == (code, details)


def test_a_refusal_without_an_answer_is_told() -> None:
    stream, server = GrpcStream(PATH, "localhost"), Server()
    exchange(stream, server)
    server.h2.send_headers(1, [*ANSWER, ("grpc-status", "7"), ("grpc-message", "no")], end_stream=True)
    exchange(stream, server)
    assert stream.end is not None
    assert (stream.end.code, stream.end.details) == (grpc.StatusCode.PERMISSION_DENIED, "no")


def test_long_header_fields_come_in_parts() -> None:
    stream, server = GrpcStream(PATH, "localhost"), Server()
    exchange(stream, server)
    server.h2.send_headers(1, [*ANSWER, ("x-long", "abcdefgh" * 1000)])
    block = server.h2.data_to_send()
    size = int.from_bytes(block[:3], "big")
    payload = block[9 : 9 + size]
    stream.receive(frame(HEADERS, 0, 1, payload[:100]) + frame(CONTINUATION, END_HEADERS, 1, payload[100:]))
    assert stream.end is None
    server.send(b"x")
    assert exchange(stream, server) == [b"x"]


def test_a_server_that_takes_no_calls_is_unavailable_and_one_that_ends_lets_a_call_go_on() -> None:
    stream, server = opened()
    server.h2.close_connection(last_stream_id=1)
    stream.receive(server.h2.data_to_send())
    assert stream.end is None
    stream = GrpcStream(PATH, "localhost")
    stream.receive(frame(SETTINGS, 0, 0, b"") + frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11) + b"too_many_pings"))
    assert stream.end is not None
    assert (stream.end.code, stream.end.details) == (grpc.StatusCode.UNAVAILABLE, "the peer takes no calls: too_many_pings")


@pytest.mark.parametrize(
    ("error", "code"),
    [(7, grpc.StatusCode.UNAVAILABLE), (8, grpc.StatusCode.CANCELLED), (2, grpc.StatusCode.INTERNAL)],
)
def test_a_reset_says_why(error: int, code: grpc.StatusCode) -> None:
    stream, _ = opened()
    stream.receive(frame(RST_STREAM, 0, 1, struct.pack(">I", error)))
    assert stream.end is not None
    assert stream.end.code is code


_SETTINGS = frame(SETTINGS, 0, 0, b"")
BROKEN = {
    "does not speak HTTP/2": (b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100),),
    "sent a frame of": (_SETTINGS, struct.pack(">I", FRAME_BYTES + 1)[1:] + bytes(6)),
    "sent data without an answer": (_SETTINGS, frame(DATA, 0, 1, b"x")),
    "did not end its header fields": (_SETTINGS, frame(HEADERS, 0, 1, b""), frame(PING, 0, 0, bytes(8))),
    "bytes of header fields": (_SETTINGS, frame(HEADERS, 0, 1, bytes(HEADERS_BYTES + 1))),
    "broken header fields": (_SETTINGS, frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff")),
    "HTTP status 503": (_SETTINGS, frame(HEADERS, END_HEADERS, 1, b"\x08\x03503")),
    "answered on a stream that was not opened": (_SETTINGS, frame(HEADERS, END_HEADERS, 3, b"")),
    "went on with header fields": (_SETTINGS, frame(CONTINUATION, END_HEADERS, 1, b"")),
    "broken settings": (frame(SETTINGS, 0, 0, b"12345"),),
    "a window that is too large": (frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)),),
    "a window that cannot be": (_SETTINGS, *2 * [frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1))]),
    "wants frames of": (frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 16383)),),
    "a broken ping": (_SETTINGS, frame(PING, 0, 0, b"1")),
    "pushed": (_SETTINGS, frame(PUSH_PROMISE, 0, 1, bytes(4))),
    "too short": (_SETTINGS, frame(RST_STREAM, 0, 1, b"")),
    "padding": (_SETTINGS, frame(HEADERS, PADDED | END_HEADERS, 1, b"\x05abc")),
}
OPEN_BROKEN = {
    "a packed message": frame(DATA, 0, 1, b"\x01" + bytes(4)),
    "a message of": frame(DATA, 0, 1, struct.pack(">BI", 0, MESSAGE_BYTES + 1)),
    "without a status": frame(DATA, END_STREAM, 1, b""),
    "padding": frame(DATA, PADDED, 1, b"\x01"),
}


@pytest.mark.parametrize("complaint", BROKEN)
def test_a_peer_that_breaks_the_protocol_loses_the_stream(complaint: str) -> None:
    stream = GrpcStream(PATH, "localhost")
    assert stream.receive(b"".join(BROKEN[complaint])) == []
    assert stream.end is not None
    assert stream.end.code is grpc.StatusCode.INTERNAL
    assert complaint in stream.end.details


@pytest.mark.parametrize("complaint", OPEN_BROKEN)
def test_so_does_one_that_answered_first(complaint: str) -> None:
    stream, _ = opened()
    stream.receive(OPEN_BROKEN[complaint])
    assert stream.end is not None
    assert complaint in stream.end.details


def test_a_peer_that_sends_more_than_it_may_loses_the_stream() -> None:
    stream, _ = opened()
    part = frame(DATA, 0, 1, bytes(FRAME_BYTES))
    stream._receive_window = FRAME_BYTES - 1
    stream.receive(part)
    assert stream.end is not None
    assert "sent more than it may" in stream.end.details


def test_a_peer_that_asks_and_does_not_read_loses_the_stream() -> None:
    stream, _ = opened()
    pings = frame(PING, 0, 0, bytes(8)) * 1000
    for _ in range((OUTPUT_BYTES + CONTROL_BYTES) // len(pings) + 2):
        stream.receive(pings)
    assert stream.end is not None
    assert "does not read" in stream.end.details
    assert len(stream.output) < OUTPUT_BYTES + CONTROL_BYTES + len(pings)


def test_a_server_in_trouble_is_no_trouble_here() -> None:
    """h2 ends the connection itself when it is asked to do what it must not; the stream sees its GOAWAY and what follows."""
    stream, server = opened()
    server.h2.close_connection(error_code=2, last_stream_id=0)
    stream.receive(server.h2.data_to_send())
    assert stream.end is not None
    assert stream.end.code is grpc.StatusCode.UNAVAILABLE
    assert not server.saw(ConnectionTerminated)


_FRAMES = st.builds(
    frame, st.integers(0, 12), st.integers(0, 255), st.sampled_from([0, 1, 1, 1, 2, 3, 1 << 31 | 1]), st.binary(max_size=64)
)


@settings(max_examples=examples(400))
@given(answered=st.booleans(), pieces=st.lists(st.one_of(_FRAMES, st.binary(max_size=40)), max_size=12), say=st.binary())
def test_no_bytes_make_it_fail_or_grow(answered: bool, pieces: Sequence[bytes], say: bytes) -> None:
    stream = opened()[0] if answered else GrpcStream(PATH, "localhost")
    if not answered:
        stream.receive(_SETTINGS)
    for piece in pieces:
        stream.receive(piece)
        stream.send(say)
    assert len(stream.output) < OUTPUT_BYTES + CONTROL_BYTES
    if stream.end is not None:
        output = len(stream.output)
        stream.send(say)
        assert stream.receive(b"".join(pieces)) == []
        assert len(stream.output) == output

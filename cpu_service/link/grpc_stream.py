# SPDX-License-Identifier: GPL-2.0-or-later
"""One bidirectional gRPC stream on an HTTP/2 connection of its own, without input and output: bytes go in, messages come out.

It is the client's side of RFC 9113 (HTTP/2) and of gRPC's protocol over it, as far as one stream needs them. docs/decisions/007
tells why the trap stream does not use gRPC's own client. The peer may be hostile: what it can make this side keep is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import grpc
from hpack import Decoder, HPACKError

from splitvisor import __version__
from splitvisor.limits import MESSAGE_BYTES

"""The largest message in either direction; the contract of the trap stream promises it."""
WINDOW_BYTES = 8 << 20
"""What the peer may send before it hears that this side has taken it."""
FRAME_BYTES = 1 << 20
"""The largest frame that is taken."""
HEADERS_BYTES = 16 << 10
"""The largest block of header fields that is taken, packed and unpacked."""
OUTPUT_BYTES = 256 << 10
"""Messages are cut into frames as long as fewer bytes than this wait to be written."""
CONTROL_BYTES = 1 << 20
"""Answers to pings and settings that a peer may have waiting; with more, it is taken for one that does not read."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STREAM = 1
"""The number of the only stream."""
_DEFAULT_WINDOW = 0xFFFF
_MAX_WINDOW = 0x7FFF_FFFF
_DEFAULT_FRAME, _MAX_FRAME = 1 << 14, (1 << 24) - 1
_HEADER = struct.Struct(">HBBBI")
_PREFIX = struct.Struct(">BI")
_SETTING = struct.Struct(">HI")
_WORD = struct.Struct(">I")
_PING_BYTES = 8
_STATUSES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


# Frames, their flags, settings and errors: RFC 9113, sections 6 and 7. Plain numbers, because an enum's operators are slow.
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 2, 4, 5
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 1, 7, 8, 11

_RESET_CODES: Mapping[int, grpc.StatusCode] = {
    REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE,
    CANCEL: grpc.StatusCode.CANCELLED,
    ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""What gRPC makes of a stream that was reset; of any other code, INTERNAL."""


@dataclass(frozen=True)
class StreamEnd:
    """How a stream ended."""

    code: grpc.StatusCode
    details: str


class _PeerError(Exception):
    """The peer does not keep the protocol; the message says how."""


class GrpcStream:
    """A stream from its first byte to its last. Not safe for threads.

    Args:
        path: "/PACKAGE.SERVICE/METHOD".
        authority: who is called, for the peer's logs.
        secure: the bytes go through TLS.
    """

    def __init__(self, path: str, authority: str, *, secure: bool = False) -> None:
        self.output = bytearray()
        """Bytes for the connection; whoever writes them takes them out."""
        self.end: StreamEnd | None = None
        """Set when the stream has ended."""
        self.heard = False
        """The peer speaks HTTP/2."""
        self.pong_awaited = False
        """A ping of this side was not answered yet."""
        self._input = bytearray()
        self._body = bytearray()
        """Messages that the peer has given no room for yet."""
        self._finishing = False
        """Nothing follows what is in _body."""
        self._connection_window = self._stream_window = self._initial_window = _DEFAULT_WINDOW
        self._frame_bytes = _DEFAULT_FRAME
        self._receive_window = WINDOW_BYTES
        self._message = bytearray()
        self._decoder = Decoder(max_header_list_size=HEADERS_BYTES)
        self._headers: bytearray | None = None
        """A block of header fields that goes on in the next frame."""
        self._headers_end_stream = False
        self._answered = False
        """The peer's first header fields were taken."""
        self._handlers: Mapping[int, Callable[[int, int, bytes], None]] = {
            HEADERS: self._take_headers,
            RST_STREAM: self._take_reset,
            SETTINGS: self._take_settings,
            PUSH_PROMISE: self._take_push,
            PING: self._take_ping,
            GOAWAY: self._take_goaway,
            WINDOW_UPDATE: self._take_window_update,
            CONTINUATION: self._take_continuation,
        }
        self._open(path, authority, "https" if secure else "http")

    def _open(self, path: str, authority: str, scheme: str) -> None:
        settings = {
            ENABLE_PUSH: 0,
            INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            MAX_FRAME_SIZE: FRAME_BYTES,
        }
        fields = {
            ":method": "POST",
            ":scheme": scheme,
            ":path": path,
            ":authority": authority,
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": f"splitvisor/{__version__}",
        }
        self.output += _PREFACE
        self._put(SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in settings.items()))
        self._put(WINDOW_UPDATE, 0, 0, _WORD.pack(WINDOW_BYTES - _DEFAULT_WINDOW))
        self._put(HEADERS, END_HEADERS, _STREAM, b"".join(_field(*field) for field in fields.items()))

    # This side.

    def send(self, message: bytes) -> None:
        """Say a message, of at most MESSAGE_BYTES, as soon as the peer has room for it."""
        if self.end is None:
            self._body += _PREFIX.pack(0, len(message)) + message
            self._cut()

    def finish(self) -> None:
        """Say that no message follows."""
        self._finishing = True
        self._cut()

    def cancel(self) -> None:
        """End the stream from this side."""
        self._end_here(CANCEL, StreamEnd(grpc.StatusCode.CANCELLED, "cancelled"))

    def ping(self) -> None:
        """Ask for a sign of life; pong_awaited is True until it has come."""
        self.pong_awaited = True
        self._put(PING, 0, 0, bytes(_PING_BYTES))

    @property
    def has_room(self) -> bool:
        """True: what was said so far is in output."""
        return not self._body

    def wrote(self, count: int) -> None:
        """So many bytes of output went out."""
        del self.output[:count]
        if self._body:
            self._cut()

    def _cut(self) -> None:
        """Put messages into frames as far as the peer's windows and this side's output have room."""
        body, at = self._body, 0
        while at < len(body) and len(self.output) < OUTPUT_BYTES:
            size = min(len(body) - at, self._frame_bytes, self._connection_window, self._stream_window)
            if size <= 0:
                break
            self._put(DATA, 0, _STREAM, bytes(body[at : at + size]) if at or size < len(body) else body)
            self._connection_window -= size
            self._stream_window -= size
            at += size
        del body[:at]
        if self._finishing and not body and self.end is None:
            self._finishing = False
            self._put(DATA, END_STREAM, _STREAM, b"")

    def _put(self, kind: int, flags: int, stream: int, payload: bytes | bytearray) -> None:
        size = len(payload)
        self.output += _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream)
        self.output += payload

    def _put_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """The same for what the peer can provoke."""
        if len(self.output) > OUTPUT_BYTES + CONTROL_BYTES:
            raise _PeerError("does not read what it asks for")
        self._put(kind, flags, stream, payload)

    def _end_here(self, code: int, end: StreamEnd) -> None:
        if self.end is None:
            self.end = end
            self._body.clear()
            self._put(RST_STREAM, 0, _STREAM, _WORD.pack(code))

    # The peer's side.

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes of the connection; return the messages that are complete now. See `end` for whether more can come."""
        messages: list[bytes] = []
        buffer = self._input
        buffer += data
        at, size = 0, len(buffer)
        try:
            while self.end is None and size - at >= _HEADER.size:
                high, low, kind, flags, stream = _HEADER.unpack_from(buffer, at)
                if not self.heard and (kind != SETTINGS or flags & ACK):
                    raise _PeerError("does not speak HTTP/2")
                length = high << 8 | low
                if length > FRAME_BYTES:
                    raise _PeerError(f"sent a frame of {length} bytes")
                if size - at - _HEADER.size < length:
                    break
                at += _HEADER.size
                payload = bytes(buffer[at : at + length])
                at += length
                self._take(kind, flags, stream & _MAX_WINDOW, payload, messages)
        except _PeerError as error:
            self._end_here(PROTOCOL_ERROR, StreamEnd(grpc.StatusCode.INTERNAL, f"the peer {error}"))
        del buffer[:at]
        return messages

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, messages: list[bytes]) -> None:
        self.heard = True
        if self._headers is not None and kind != CONTINUATION:
            raise _PeerError("did not end its header fields")
        if kind == DATA:
            self._take_data(flags, stream, payload, messages)
        elif (handler := self._handlers.get(kind)) is not None:  # What is not known is passed over (RFC 9113, section 5.5).
            handler(flags, stream, payload)

    def _take_data(self, flags: int, stream: int, payload: bytes, messages: list[bytes]) -> None:
        if stream != _STREAM or not self._answered:
            raise _PeerError("sent data without an answer")
        self._receive_window -= len(payload)
        if self._receive_window < 0:
            raise _PeerError("sent more than it may")
        if self._receive_window < WINDOW_BYTES // 2:
            more = _WORD.pack(WINDOW_BYTES - self._receive_window)
            self._receive_window = WINDOW_BYTES
            self._put_control(WINDOW_UPDATE, 0, 0, more)
            self._put_control(WINDOW_UPDATE, 0, _STREAM, more)
        if flags & PADDED:
            payload = _without_padding(payload)
        message = self._message
        message += payload
        at = 0
        while len(message) - at >= _PREFIX.size:
            packed, length = _PREFIX.unpack_from(message, at)
            if packed:
                raise _PeerError("sent a packed message, which nobody asked for")
            if length > MESSAGE_BYTES:
                raise _PeerError(f"sent a message of {length} bytes")
            start = at + _PREFIX.size
            if len(message) - start < length:
                break
            at = start + length
            messages.append(bytes(message[start:at]))
        del message[:at]
        if flags & END_STREAM:
            raise _PeerError("ended the stream without a status")

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if stream != _STREAM:
            raise _PeerError("answered on a stream that was not opened")
        if flags & PADDED:
            payload = _without_padding(payload)
        if flags & PRIORITY:
            payload = payload[5:]
        self._headers_end_stream = bool(flags & END_STREAM)
        self._headers = bytearray()
        self._take_continuation(flags, stream, payload)

    def _take_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._headers is None or stream != _STREAM:
            raise _PeerError("went on with header fields that it had not begun")
        self._headers += payload
        if len(self._headers) > HEADERS_BYTES:
            raise _PeerError(f"sent more than {HEADERS_BYTES} bytes of header fields")
        if not flags & END_HEADERS:
            return
        block, self._headers = bytes(self._headers), None
        try:
            fields = {_text(name): _text(value) for name, value in self._decoder.decode(block, raw=True)}
        except HPACKError as error:
            raise _PeerError(f"sent broken header fields: {error}") from error
        self._take_fields(fields)

    def _take_fields(self, fields: Mapping[str, str]) -> None:
        if not self._answered:
            self._answered = True
            status = fields.get(":status", "")
            if status != "200":
                raise _PeerError(f"answered with HTTP status {status or 'none'}")
        if not self._headers_end_stream:
            return
        status = fields.get("grpc-status", "")
        if not status.isascii() or not status.isdecimal() or len(status) > 3:
            raise _PeerError("ended the stream without a status")
        code = _STATUSES.get(int(status), grpc.StatusCode.UNKNOWN)
        self.end = StreamEnd(code, unquote(fields.get("grpc-message", ""), errors="replace"))

    def _take_reset(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream == _STREAM:
            error = _word(payload)
            code = _RESET_CODES.get(error, grpc.StatusCode.INTERNAL)
            self.end = StreamEnd(code, f"the peer reset the stream, HTTP/2 error {error}")

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) % _SETTING.size:
            raise _PeerError("sent broken settings")
        if flags & ACK:
            return
        for setting, value in _SETTING.iter_unpack(payload):
            if setting == INITIAL_WINDOW_SIZE:
                if value > _MAX_WINDOW:
                    raise _PeerError("gave a window that is too large")
                self._stream_window += value - self._initial_window
                self._initial_window = value
            elif setting == MAX_FRAME_SIZE:
                if not _DEFAULT_FRAME <= value <= _MAX_FRAME:
                    raise _PeerError(f"wants frames of {value} bytes")
                self._frame_bytes = min(value, FRAME_BYTES)
        self._put_control(SETTINGS, ACK, 0, b"")
        self._cut()

    def _take_push(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise _PeerError("pushed what nobody asked for")

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) != _PING_BYTES:
            raise _PeerError("sent a broken ping")
        if flags & ACK:
            self.pong_awaited = False
        else:
            self._put_control(PING, ACK, 0, payload)

    def _take_goaway(self, _flags: int, _stream: int, payload: bytes) -> None:
        if _word(payload) & _MAX_WINDOW < _STREAM:  # Otherwise the stream may go on to its end.
            reason = _text(payload[8 : 8 + HEADERS_BYTES])
            self.end = StreamEnd(grpc.StatusCode.UNAVAILABLE, f"the peer takes no calls{': ' if reason else ''}{reason}")

    def _take_window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        more = _word(payload) & _MAX_WINDOW
        if stream == _STREAM:
            self._stream_window += more
        elif not stream:
            self._connection_window += more
        if not more or max(self._stream_window, self._connection_window) > _MAX_WINDOW:
            raise _PeerError("gave a window that cannot be")
        self._cut()


def _field(name: str, value: str) -> bytes:
    """A header field that no table has or keeps (RFC 7541, section 6.2.2)."""
    return b"\x00" + b"".join(_length(len(text)) + text.encode() for text in (name, value))


def _length(length: int) -> bytes:
    """An integer with a prefix of 7 bits (RFC 7541, section 5.1)."""
    if length < 0x7F:
        return bytes((length,))
    packed, length = bytearray((0x7F,)), length - 0x7F
    while length >= 0x80:
        packed.append(length & 0x7F | 0x80)
        length >>= 7
    packed.append(length)
    return bytes(packed)


def _word(payload: bytes) -> int:
    if len(payload) < _WORD.size:
        raise _PeerError("sent a frame that is too short")
    word: int = _WORD.unpack_from(payload)[0]
    return word


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("latin-1")


def _without_padding(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _PeerError("sent padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]

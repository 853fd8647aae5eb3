# SPDX-License-Identifier: GPL-2.0-or-later
"""The server's half of telnet, without a connection: bytes in, keys and sizes out.

RFC 854 (the protocol), 855 (subnegotiation), 857 (ECHO), 858 (SUPPRESS-GO-AHEAD), 1073 (NAWS), and 1143 for negotiation without
loops: an option's state decides whether a request is answered, so that a peer cannot make this side talk for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
ERASE_LINE, ERASE_CHARACTER, ARE_YOU_THERE, INTERRUPT_PROCESS = 248, 247, 246, 244
CR, LF, NUL = 13, 10, 0
MAX_ANSWERS = 100
"""Requests of a connection that are answered: a peer that breaks the rules cannot go on for ever either."""
SUBNEGOTIATION_BYTES = 64
"""Longer ones are read to their end and ignored."""


class Option(IntEnum):
    """Options that this server knows."""

    ECHO = 1
    SUPPRESS_GO_AHEAD = 3
    NAWS = 31


OURS = (Option.ECHO, Option.SUPPRESS_GO_AHEAD)
"""What this side does: the guest echoes, character by character."""
THEIRS = (Option.SUPPRESS_GO_AHEAD, Option.NAWS)
"""What the other side is asked to do."""

_KEYS = {INTERRUPT_PROCESS: b"\x03", ERASE_CHARACTER: b"\x7f", ERASE_LINE: b"\x15"}
"""Commands that stand for a key."""
_THERE = b"\r\n[yes]\r\n"

_LONE_CR = re.compile(rb"\r(?=[^\n])")


@dataclass(frozen=True)
class Size:
    """The size of the other side's terminal; 0 is not known."""

    rows: int
    columns: int


class _Side:
    """One side's options (RFC 1143 without queues: nothing is taken back here that was asked for).

    Args:
        agree, refuse: the verbs that this side sends.
        known: options that it agrees to.
    """

    def __init__(self, agree: int, refuse: int, known: tuple[Option, ...]) -> None:
        self._agree, self._refuse, self._known = agree, refuse, known
        self._asked = set(known)
        self.enabled: set[int] = set()

    def ask(self) -> bytes:
        """What to say at first."""
        return b"".join(bytes((IAC, self._agree, option)) for option in self._known)

    def turn(self, option: int, on: bool) -> bytes:
        """The other side wants or reports an option on or off; return the answer, empty when it is one itself."""
        was_asked = option in self._asked
        self._asked.discard(option)
        if on:
            if option in self.enabled:
                return b""
            if option not in self._known:
                return bytes((IAC, self._refuse, option))
            self.enabled.add(option)
            return b"" if was_asked else bytes((IAC, self._agree, option))
        if option not in self.enabled:
            return b""
        self.enabled.discard(option)
        return bytes((IAC, self._refuse, option))


class _State(Enum):
    DATA = 0
    COMMAND = 1
    NEGOTIATION = 2
    SUBNEGOTIATION = 3
    SUBNEGOTIATION_IAC = 4


class TelnetServer:
    """One connection's protocol state."""

    def __init__(self) -> None:
        self._us = _Side(WILL, WONT, OURS)
        self._them = _Side(DO, DONT, THEIRS)
        self.replies = bytearray(self._us.ask() + self._them.ask())
        """What has to be sent; the owner takes it away."""
        self._state = _State.DATA
        self._verb = 0
        self._answers = 0
        self._parameters = bytearray()
        self._after_cr = False
        self._wrote_cr = False

    def receive(self, data: bytes) -> Iterator[bytes | Size]:
        """Yield what was typed (Enter is CR) and the terminal's sizes, in order; `replies` may grow."""
        keys = bytearray()
        for byte in data:
            if self._state is _State.DATA and byte != IAC:
                # An end of line is CR LF or CR NUL.
                if not (self._after_cr and byte in (LF, NUL)):
                    keys.append(byte)
                self._after_cr = byte == CR
                continue
            item = self._step(byte)
            if isinstance(item, bytes):
                keys += item
            elif item is not None:
                if keys:
                    yield bytes(keys)
                    keys.clear()
                yield item
        if keys:
            yield bytes(keys)

    def _step(self, byte: int) -> bytes | Size | None:
        """Take a byte of a command."""
        match self._state:
            case _State.DATA:
                self._state = _State.COMMAND
            case _State.COMMAND:
                return self._command(byte)
            case _State.NEGOTIATION:
                self._state = _State.DATA
                self._negotiate(byte)
            case _State.SUBNEGOTIATION:
                if byte == IAC:
                    self._state = _State.SUBNEGOTIATION_IAC
                else:
                    self._parameter(byte)
            case _State.SUBNEGOTIATION_IAC:
                if byte == IAC:
                    self._state = _State.SUBNEGOTIATION
                    self._parameter(byte)
                elif byte == SE:
                    self._state = _State.DATA
                    return self._subnegotiated()
                else:  # Its end is missing; what follows is a command (RFC 855 has no rule, others do so too).
                    self._state = _State.COMMAND
                    return self._command(byte)
        return None

    def _command(self, byte: int) -> bytes | None:
        self._state = _State.DATA
        if byte == IAC:
            self._after_cr = False
            return b"\xff"
        if byte in (WILL, WONT, DO, DONT):
            self._state, self._verb = _State.NEGOTIATION, byte
        elif byte == SB:
            self._state = _State.SUBNEGOTIATION
            self._parameters.clear()
        elif byte == ARE_YOU_THERE:
            self.replies += _THERE
        return _KEYS.get(byte)

    def _negotiate(self, option: int) -> None:
        if self._answers < MAX_ANSWERS:
            side = self._us if self._verb in (DO, DONT) else self._them
            answer = side.turn(option, self._verb in (DO, WILL))
            self._answers += bool(answer)
            self.replies += answer

    def _parameter(self, byte: int) -> None:
        if len(self._parameters) <= SUBNEGOTIATION_BYTES:
            self._parameters.append(byte)

    def _subnegotiated(self) -> Size | None:
        option, values = self._parameters[:1], self._parameters[1:]
        if option != bytes((Option.NAWS,)) or len(values) != 4 or Option.NAWS not in self._them.enabled:
            return None
        return Size(rows=int.from_bytes(values[2:]), columns=int.from_bytes(values[:2]))

    def encode(self, data: bytes) -> bytes:
        """Return what a guest wrote as telnet sends it: IAC doubled, a NUL after a CR that no LF follows."""
        if not data:
            return b""
        lead = b"\0" if self._wrote_cr and data[0] != LF else b""
        self._wrote_cr = data[-1] == CR
        return lead + _LONE_CR.sub(b"\r\0", data.replace(b"\xff", b"\xff\xff"))

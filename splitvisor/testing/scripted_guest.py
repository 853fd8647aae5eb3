# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest driven from Python by a test: real code on a real vCPU makes the calls, one `sc 1` each."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.testing.loop import DEADLINE_S, LoopThread
from splitvisor.testing.script import RECORD, GuestError, ScriptSession

MAX_ARGUMENTS = 9
TABLE_BYTES = 1 << 20
"""Size of the table at the start of the guest's area; the guest makes all its calls in one loop."""
BLOCK_BYTES = 64 << 10
"""Size of the area after the table: argument blocks of RTAS and client calls, and the data they point to."""
POLL_S = 0.002
MAX_PROPERTY_BYTES = 32 << 10

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_WORD_MASK = 0xFFFF_FFFF
_SOURCE_MASK = 0x00FF_FFFF

Argument = int | bytes | str
"""Argument of an RTAS or client call: a word, or data to place in memory and pass by its address; a text gets its NUL."""


class HcallResult(NamedTuple):
    """The registers after a hypercall."""

    result: int
    """r3, signed."""
    outputs: tuple[int, ...]
    """r4 to r12, unsigned; registers that the call did not set hold its arguments."""


class ScriptedMemory:
    """Guest RAM by physical address: read `memory[address:address + 8]`, or assign bytes of that length to it."""

    def __init__(self, session: ScriptSession, loop: LoopThread) -> None:
        self._memory, self._loop = session.vm.memory, loop

    def __len__(self) -> int:
        return self._memory.size

    def __getitem__(self, where: slice) -> bytes:
        start, length = self._range(where)
        return self._loop.run(self._memory.read(start, length))

    def __setitem__(self, where: slice, data: bytes) -> None:
        start, length = self._range(where)
        if length != len(data):
            raise ValueError(f"{len(data)} bytes for a range of {length}")
        self._loop.run(self._memory.write(start, data))

    @staticmethod
    def _range(where: slice) -> tuple[int, int]:
        if not isinstance(where, slice) or where.start is None or where.stop is None or where.step is not None:
            raise TypeError("guest memory is accessed in ranges: memory[address:address + length]")
        return where.start, where.stop - where.start


class ScriptedGuest:
    """The guest. It runs on vCPU 0, in 32-bit real mode, under Splitvisor's firmware.

    Args:
        session: its back end's half.
        loop: where that runs.
    """

    def __init__(self, session: ScriptSession, loop: LoopThread) -> None:
        self._session, self._loop = session, loop
        self.memory = ScriptedMemory(session, loop)
        """All of RAM."""
        base, size = loop.run(_settled(session.area))
        self._block = base + TABLE_BYTES
        self._free, self._end = self._block + BLOCK_BYTES, base + size
        self._rtas_tokens: dict[str, int] = {}

    # Memory.

    def allocate(self, size: int, align: int = 64) -> int:
        """Return the address, a multiple of align, of size unused bytes. Raises GuestError if there are none left."""
        address = -(-self._free // align) * align
        if size < 0 or address + size > self._end:
            raise GuestError(f"no {size} bytes left of the guest's {self._end - self._block} bytes for the script")
        self._free = address + size
        return address

    def place(self, data: bytes) -> int:
        """Put data into unused RAM; return its address."""
        address = self.allocate(len(data))
        self.memory[address : address + len(data)] = data
        return address

    # Calls.

    def hcall(self, token: int, *arguments: int, timeout: float = DEADLINE_S) -> HcallResult:
        """Make a hypercall.

        Args:
            token: value of r3; Hcall has PAPR's tokens.
            arguments: values of r4 and up; at most 9, modulo 2**64.
            timeout: seconds until TimeoutError.

        Raises GuestError if the call ends or resets the machine.
        """
        return self.hcalls([(token, *arguments)], timeout=timeout)[0]

    def hcalls(self, calls: Sequence[Sequence[int]], *, decrementer: int = 0, timeout: float = DEADLINE_S) -> list[HcallResult]:
        """Make any number of hypercalls, each (token, arguments...), in a loop inside the guest.

        The guest fetches all of them from the test at once.

        Args:
            calls: registers from r3.
            decrementer: ticks of 1/512 MHz to set the decrementer to before each call, so that H_CEDE ends; 0: do not set it.
            timeout: seconds until TimeoutError for each megabyte of calls, which is 13,107 of them.

        Raises GuestError as hcall() does.
        """
        results: list[HcallResult] = []
        step = TABLE_BYTES // RECORD.size
        for start in range(0, len(calls), step):
            table = b"".join(map(_record, calls[start : start + step]))
            answered = self._loop.run(self._session.run(table, decrementer), timeout)
            results += (HcallResult(_signed(words[0]), tuple(words[1:])) for words in RECORD.iter_unpack(answered))
        return results

    def rtas(self, name: str, *arguments: Argument, returns: int = 1) -> tuple[int, ...]:
        """Make an RTAS call with its token from the device tree; return its words, the status first and signed.

        Raises GuestError if the tree has no such call.
        """
        token = self._rtas_tokens.get(name)
        if token is None:
            value = self.property("/rtas", name)
            if value is None:
                raise GuestError(f"the device tree has no RTAS call {name!r}")
            token = self._rtas_tokens[name] = int.from_bytes(value, "big")
        _, words = self._call_with_block(Hcall.H_RTAS, token, arguments, returns)
        return (_signed(words[0], 32), *words[1:]) if words else ()

    def client(self, service: str, *arguments: Argument, returns: int = 1) -> tuple[int, ...]:
        """Call a service of the Open Firmware client interface; return its words.

        Raises GuestError if there is no such service.
        """
        result, words = self._call_with_block(Hcall.H_OF_CLIENT, service, arguments, returns)
        if result != H.SUCCESS:
            raise GuestError(f"the client interface has no service {service!r}")
        return words

    def property(self, path: str, name: str) -> bytes | None:
        """Return a property of the machine's device tree, or None."""
        [phandle] = self.client("finddevice", path)
        if phandle == _WORD_MASK:
            return None
        [length] = self.client("getproplen", phandle, name)
        if length == _WORD_MASK:
            return None
        room = self._block + BLOCK_BYTES - MAX_PROPERTY_BYTES
        self.client("getprop", phandle, name, room, min(length, MAX_PROPERTY_BYTES))
        return self.memory[room : room + min(length, MAX_PROPERTY_BYTES)]

    def _call_with_block(
        self, token: int, first: Argument, arguments: Sequence[Argument], returns: int
    ) -> tuple[int, tuple[int, ...]]:
        """Make a hypercall whose argument is the address of {first, nargs, nret, args, rets}: an RTAS or client call."""
        count = 3 + len(arguments) + returns
        data = bytearray(4 * count)
        words = []
        for argument in (first, *arguments):
            if isinstance(argument, int):
                words.append(argument & _WORD_MASK)
                continue
            words.append(self._block + len(data))
            data += argument.encode() + b"\0" if isinstance(argument, str) else argument
            data += bytes(-len(data) % 8)
        if len(data) > BLOCK_BYTES - MAX_PROPERTY_BYTES:
            raise GuestError(f"arguments of {len(data)} bytes are too long; place() them and pass their address")
        struct.pack_into(f">{3 + len(arguments)}I", data, 0, words[0], len(arguments), returns, *words[1:])
        self.memory[self._block : self._block + len(data)] = bytes(data)
        result = self.hcall(token, self._block).result
        room = self._block + 4 * (count - returns)
        return result, struct.unpack(f">{returns}I", self.memory[room : room + 4 * returns])

    # Interrupts.

    def route_interrupt(self, source: int, priority: int = 5) -> None:
        """Let an interrupt source reach this vCPU: ibm,set-xive, and the processor's priority below all others.

        Raises GuestError if there is no such source.
        """
        [status] = self.rtas("ibm,set-xive", source, 0, priority)
        if status:
            raise GuestError(f"ibm,set-xive refuses interrupt source {source:#x} with status {status}")
        self.hcall(Hcall.H_CPPR, 0xFF)

    def accept_interrupt(self, timeout: float = DEADLINE_S) -> int | None:
        """Accept and end the pending interrupt; return its source, or None if there is none within timeout seconds."""
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while True:
            xirr = self.hcall(Hcall.H_XIRR).outputs[0]
            if xirr & _SOURCE_MASK:
                self.hcall(Hcall.H_EOI, xirr)
                return xirr & _SOURCE_MASK
            if time.monotonic() >= deadline:
                return None
            pause.wait(POLL_S)


async def _settled(future: asyncio.Future[tuple[int, int]]) -> tuple[int, int]:
    return await asyncio.shield(future)


def _record(call: Sequence[int]) -> bytes:
    if not 1 <= len(call) <= 1 + MAX_ARGUMENTS:
        raise ValueError(f"a hypercall has a token and at most {MAX_ARGUMENTS} arguments, not {len(call) - 1}")
    return RECORD.pack(*(value & _MASK for value in call), *bytes(RECORD.size // 8 - len(call)))


def _signed(value: int, bits: int = 64) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value

# SPDX-License-Identifier: GPL-2.0-or-later
"""An opened VTY. Its read and write are hypercalls of PAPR's terminal option, 16 bytes at a time (LoPAPR 16.6)."""

from __future__ import annotations

from of_client_service.device_tree import Package
from of_client_service.instances import Instance
from splitvisor.backend import Call, Vm
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import state_pb2 as pb

CHUNK = 16
MAX_TRANSFER = 4096
"""Bytes of one read or write; the client gets a short count and goes on from there."""
NOTHING_TO_READ = -2
"""What read answers without input, by the convention of IEEE 1275's serial devices."""
CARRIAGE_RETURN = 0x0D


class TerminalInstance(Instance):
    """A VTY.

    Args:
        package: its package.
        path: see Instance.
        unit: its unit address.
        unread: input that came with an earlier H_GET_TERM_CHAR and did not fit its reader's buffer.
        after_return: the last input byte was CR: the NUL that PAPR puts behind it is not input.
    """

    def __init__(self, package: Package, path: str, unit: int, unread: bytes = b"", *, after_return: bool = False) -> None:
        super().__init__(package, path)
        self.unit = unit
        self._unread = bytearray(unread)
        self._after_return = after_return

    async def read(self, vm: Vm, buffer: int, length: int) -> int | None:
        """Take what was typed; -2 when that is nothing."""
        wanted = min(length, MAX_TRANSFER)
        if not wanted:
            return 0
        vm.memory.check(buffer, wanted)  # before input is taken that could not be delivered
        data = await self.take(vm, wanted)
        if not data:
            return NOTHING_TO_READ
        await vm.memory.write(buffer, data)
        return len(data)

    async def write(self, vm: Vm, call: Call, buffer: int, length: int) -> int | None:
        """Write once the call has been answered."""
        data = await vm.memory.read(buffer, min(length, MAX_TRANSFER)) if length else b""
        self.put(call, data)
        return len(data)

    def put(self, call: Call, data: bytes) -> None:
        """Write bytes once the call has been answered."""
        for start in range(0, len(data), CHUNK):
            chunk = data[start : start + CHUNK]
            padded = chunk.ljust(CHUNK, b"\0")
            first, second = int.from_bytes(padded[:8], "big"), int.from_bytes(padded[8:], "big")
            call.post(Hcall.H_PUT_TERM_CHAR, self.unit, len(chunk), first, second)

    async def take(self, vm: Vm, limit: int) -> bytes:
        """Return what was typed, at most limit bytes; never waits for more."""
        while len(self._unread) < limit:
            received = await self._receive(vm)
            if not received:
                break
            for byte in received:
                if byte or not self._after_return:
                    self._unread.append(byte)
                self._after_return = byte == CARRIAGE_RETURN
        data = bytes(self._unread[:limit])
        del self._unread[:limit]
        return data

    async def _receive(self, vm: Vm) -> bytes:
        result, outputs = await vm.invoke(Hcall.H_GET_TERM_CHAR, self.unit)
        if result != H.SUCCESS or len(outputs) < 3:
            return b""
        length, first, second = outputs[:3]
        return (first.to_bytes(8, "big") + second.to_bytes(8, "big"))[: min(length, CHUNK)]

    def save(self, state: pb.InstanceState) -> None:
        """See Instance."""
        state.terminal, state.unread, state.after_return = self.unit, bytes(self._unread), self._after_return

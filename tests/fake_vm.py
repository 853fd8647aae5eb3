# SPDX-License-Identifier: GPL-2.0-or-later
"""A Vm without a connection, for unit tests of handlers: real bytes as memory, and a record of what a session asked for."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Awaitable, Callable, Sequence

from splitvisor.backend import Call, Handler, Result, Vm
from splitvisor.block.buffers import Buffers
from splitvisor.declarations.dma import PAGE_BYTES, WINDOW_BYTES, DmaWindow, Piece, Scatter
from splitvisor.declarations.guest_memory import GuestMemory
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.tce_file import FILE_BYTES, TCE_READ, TCE_WRITE, TceTables, TceWindow

Invocation = Callable[[int, Sequence[int]], tuple[int, Sequence[int]]]


class BytesMemory(GuestMemory):
    """Guest RAM in a bytearray."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.data = bytearray(size)

    async def read(self, address: int, length: int) -> bytes:
        self.check(address, length)
        return bytes(self.data[address : address + length])

    async def write(self, address: int, data: bytes) -> None:
        self.check(address, len(data))
        self.data[address : address + len(data)] = data


class BytesWindow(DmaWindow):
    """A DMA window of a FakeVm: TCEs that a test sets, and RAM in a bytearray."""

    def __init__(self, memory: BytesMemory, tces: TceWindow) -> None:
        self._memory, self.tces = memory, tces

    def _buffers(self, pieces: Sequence[Piece], permission: int) -> Buffers:
        ranges = self.tces.ranges(pieces, permission, self._memory.size)
        return Buffers(memoryview(self._memory.data)[address : address + size] for address, size in ranges)

    async def gather(self, pieces: Sequence[Piece]) -> Buffers:
        return self._buffers(pieces, TCE_READ)

    async def scatter(self, pieces: Sequence[Piece]) -> Scatter:
        async def commit(length: int) -> None:
            self._buffers(pieces, TCE_WRITE)

        return Scatter(self._buffers(pieces, TCE_WRITE), commit)


class FakeVm(Vm):
    """Records interrupts, queue entries, machine actions and invoked hypercalls."""

    def __init__(self, *, size: int = 1 << 20, vcpus: int = 1, devices: Sequence[pb.DeviceSpec] = (), name: str = "test") -> None:
        self.name = name
        self.incarnation = 1
        self.vcpus = vcpus
        self.devices = devices
        self.slots = range(64)
        self.ram = BytesMemory(size)
        self.memory = self.ram
        self.interrupts: list[int] = []
        self.actions: list[tuple[pb.MachineActionKind, str]] = []
        self.inventory_changes = 0
        self.tables = TceTables(mmap.mmap(-1, FILE_BYTES))
        self.entries: list[tuple[int, int, bytes]] = []
        self.invoked: list[tuple[int, tuple[int, ...]]] = []
        self.answer: Invocation = lambda token, arguments: (0, ())

    def interrupt(self, source: int) -> None:
        self.interrupts.append(source)

    def dma_window(self, unit_address: int) -> BytesWindow:
        tces = self.tables.add(unit_address, WINDOW_BYTES // PAGE_BYTES)
        assert tces is not None
        return BytesWindow(self.ram, tces)

    def soon(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(call)

    def put_entries(self, unit_address: int, position: int, entries: bytes) -> None:
        self.entries.append((unit_address, position, entries))

    def machine_action(self, kind: pb.MachineActionKind, reason: str) -> None:
        self.actions.append((kind, reason))

    def inventory_changed(self) -> None:
        self.inventory_changes += 1

    async def invoke(self, token: int, *arguments: int) -> tuple[int, Sequence[int]]:
        self.invoked.append((token, arguments))
        return self.answer(token, arguments)


def make_call(session: object, handler: Handler, *arguments: int, returns: int = 0, vcpu: int = 0) -> tuple[Result | int, Call]:
    """Run one handler to its end, as a trap would; return what it answered and the call with its effects."""
    call = Call(vcpu=vcpu, arguments=arguments, returns=returns)
    answer = handler(session, call)
    if not isinstance(answer, Awaitable):
        return answer, call

    async def finish() -> Result | int:
        return await answer

    return asyncio.run(finish()), call

# SPDX-License-Identifier: GPL-2.0-or-later
"""The two ways in which a back end reaches guest RAM: a shared mapping, or requests on the trap stream."""

from __future__ import annotations

import asyncio
import mmap
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from splitvisor.declarations.guest_memory import GuestAddressError, GuestMemory
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.ram_file import RamFile

CHUNK_BYTES = 1 << 20
"""The largest memory_read and memory_write of the contract."""
REPLY_WRITE_BYTES = 2 << 20
"""Writes of one call that travel with its reply; more go ahead of it."""


class BackendMemory(GuestMemory):
    """Guest memory that knows which call it is used in, so that writes can travel with the reply."""

    frozen: asyncio.Event | None = None
    """Set while the VM is being saved: what a device writes on its own waits for the event."""

    def stand_still(self, still: bool) -> None:
        """Let what devices write on their own wait, or go on."""
        if still and self.frozen is None:
            self.frozen = asyncio.Event()
        elif not still and self.frozen is not None:
            self.frozen.set()
            self.frozen = None

    async def may_write(self) -> None:
        """Wait until the VM does not stand still."""
        if self.frozen is not None:
            await self.frozen.wait()

    def begin_call(self, operands: Sequence[pb.MemoryBlock]) -> None:
        """A call starts; operands are the memory that came with it."""

    async def before_invoke(self) -> None:
        """Another owner's call follows within this one: it sees what was written so far, and may write itself."""

    @abstractmethod
    def end_call(self, reply: pb.Reply) -> None:
        """The call ends: put what it wrote into its reply."""


class MappedMemory(BackendMemory):
    """RAM mapped from the file that cpu_service has mapped too.

    Args:
        ram: the file.
        report_dirty: told of ranges that were written outside of a call.
        written_by_dma: returns ranges that were written through DMA windows, and were not told to cpu_service yet.
    """

    def __init__(
        self,
        ram: RamFile,
        report_dirty: Callable[[pb.MemoryRange], None],
        written_by_dma: Callable[[], Sequence[pb.MemoryRange]] = tuple,
    ) -> None:
        self.size = ram.size
        self._ram = ram
        self._report_dirty, self._written_by_dma = report_dirty, written_by_dma
        self._dirty: list[pb.MemoryRange] | None = None

    async def read(self, address: int, length: int) -> bytes:
        """See GuestMemory."""
        self.check(address, length)
        return self._ram.map[address : address + length]

    async def write(self, address: int, data: bytes) -> None:
        """See GuestMemory."""
        self.check(address, len(data))
        if self.frozen is not None and self._dirty is None:
            await self.frozen.wait()
        self._ram.map[address : address + len(data)] = data
        written = pb.MemoryRange(address=address, length=len(data))
        if self._dirty is None:
            self._report_dirty(written)
        else:
            self._dirty.append(written)

    def begin_call(self, operands: Sequence[pb.MemoryBlock]) -> None:
        """See BackendMemory."""
        self._dirty = []

    def end_call(self, reply: pb.Reply) -> None:
        """See BackendMemory."""
        if self._dirty:
            reply.dirty.extend(self._dirty)
        reply.dirty.extend(self._written_by_dma())
        self._dirty = None

    @property
    def map(self) -> mmap.mmap:
        """All of RAM."""
        return self._ram.map

    def close(self) -> None:
        """Unmap, now or when the last transfer of a device is done with it."""
        with suppress(BufferError):
            self._ram.close()


class MemoryRequester(Protocol):
    """Asks cpu_service for memory over the trap stream."""

    def __call__(self, *, read: pb.MemoryRange | None = None, write: pb.MemoryBlock | None = None) -> Awaitable[pb.MemoryResult]:
        """Send one request and return its answer."""


class StreamMemory(BackendMemory):
    """RAM of another host, read and written through the trap stream.

    Operands that came with the call are read without asking, and a call's writes go with its reply.

    Args:
        size: bytes of RAM.
        request: asks cpu_service.
    """

    def __init__(self, size: int, request: MemoryRequester) -> None:
        self.size = size
        self._request = request
        self._operands: Sequence[pb.MemoryBlock] = ()
        self._writes: list[pb.MemoryBlock] | None = None
        self._write_bytes = 0

    async def read(self, address: int, length: int) -> bytes:
        """See GuestMemory."""
        self.check(address, length)
        if self._writes and any(_overlap(block, address, length) for block in self._writes):
            await self._flush()
        for block in self._operands:
            offset = address - block.address
            if offset >= 0 and offset + length <= len(block.data):
                return block.data[offset : offset + length]
        parts = []
        for start in range(address, address + length, CHUNK_BYTES):
            wanted = min(CHUNK_BYTES, address + length - start)
            result = await self._request(read=pb.MemoryRange(address=start, length=wanted))
            if not result.ok or len(result.data) != wanted:
                raise GuestAddressError(start, wanted, self.size)
            parts.append(result.data)
        return b"".join(parts)

    async def read_string(self, address: int, limit: int) -> bytes:
        """See GuestMemory; an operand that holds the whole string answers."""
        for block in self._operands:
            offset = address - block.address
            if 0 <= offset < len(block.data):
                end = block.data.find(b"\0", offset, offset + limit)
                if end >= 0 and not self._writes:
                    return block.data[offset:end]
        return await super().read_string(address, limit)

    async def write(self, address: int, data: bytes) -> None:
        """See GuestMemory."""
        self.check(address, len(data))
        # What came with the call is older than this write.
        self._operands = [block for block in self._operands if not _overlap(block, address, len(data))]
        for start in range(0, len(data), CHUNK_BYTES):
            block = pb.MemoryBlock(address=address + start, data=bytes(data[start : start + CHUNK_BYTES]))
            if self._writes is None:
                await self._send(block)
                continue
            self._writes.append(block)
            self._write_bytes += len(block.data)
            if self._write_bytes > REPLY_WRITE_BYTES:
                await self._flush()

    async def _send(self, block: pb.MemoryBlock) -> None:
        if self.frozen is not None and self._writes is None:
            await self.frozen.wait()
        result = await self._request(write=block)
        if not result.ok:
            raise GuestAddressError(block.address, len(block.data), self.size)

    async def _flush(self) -> None:
        writes, self._writes, self._write_bytes = self._writes or [], [], 0
        for block in writes:
            await self._send(block)

    async def before_invoke(self) -> None:
        """See BackendMemory."""
        if self._writes:
            await self._flush()
        self._operands = ()

    def begin_call(self, operands: Sequence[pb.MemoryBlock]) -> None:
        """See BackendMemory."""
        self._operands = operands
        self._writes = []
        self._write_bytes = 0

    def end_call(self, reply: pb.Reply) -> None:
        """See BackendMemory."""
        if self._writes:
            reply.writes.extend(self._writes)
        self._operands = ()
        self._writes = None


def _overlap(block: pb.MemoryBlock, address: int, length: int) -> bool:
    return block.address < address + length and address < block.address + len(block.data)

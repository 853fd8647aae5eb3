# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers the memory requests of a back end that has not mapped guest RAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from cpu_service.engine.ram import GuestRam
from splitvisor.declarations.dma import DmaError, Piece
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.tce_file import TCE_READ, TCE_WRITE, TceWindow

REQUEST_BYTES = 1 << 20
"""The largest memory_read that is answered."""

log = structlog.get_logger()


class MemoryAnswers:
    """Guest RAM for one back end.

    Args:
        backend: its name.
        ram: guest RAM.
        written: told of each address and length that was written.
        window: returns the DMA window of one of the back end's devices by its LIOBN; None: there is none.
    """

    def __init__(
        self, backend: str, ram: GuestRam, written: Callable[[int, int], None], window: Callable[[int], TceWindow | None]
    ) -> None:
        self._backend, self._ram, self._written, self._window = backend, ram, written, window

    def read(self, request: pb.MemoryRead) -> pb.AttachRequest:
        """Return the answer to a request for memory."""
        result = pb.MemoryResult(id=request.id)
        if request.liobn:
            self._read_window(request, result)
        elif request.range.length <= REQUEST_BYTES:
            try:
                result.data = self._ram.read(request.range.address, request.range.length)
                result.ok = True
            except GuestAddressError as error:
                log.info("back end asked for memory outside RAM", backend=self._backend, reason=str(error))
        return pb.AttachRequest(memory_result=result)

    def write(self, request: pb.MemoryWrite) -> pb.AttachRequest:
        """Write memory; return the answer."""
        if request.liobn:
            return self._write_window(request)
        address, data = request.block.address, request.block.data
        ok = address + len(data) <= self._ram.size
        if ok:
            self._ram.map[address : address + len(data)] = data
            self._written(address, len(data))
        return pb.AttachRequest(memory_result=pb.MemoryResult(id=request.id, ok=ok))

    def _ranges(self, liobn: int, pieces: Sequence[Piece], permission: int) -> Sequence[tuple[int, int]]:
        """Return the guest physical ranges of pieces of a window. Raises DmaError."""
        window = self._window(liobn)
        if window is None:
            raise DmaError(f"it has no device with the DMA window {liobn:#x}")
        if sum(piece.length for piece in pieces) > REQUEST_BYTES:
            raise DmaError(f"more than {REQUEST_BYTES} bytes in one request")
        return window.ranges(pieces, permission, self._ram.size)

    def _read_window(self, request: pb.MemoryRead, result: pb.MemoryResult) -> None:
        pieces = [Piece(each.address, each.length) for each in (request.range, *request.more)]
        try:
            ranges = self._ranges(request.liobn, pieces, TCE_READ)
        except DmaError as error:
            log.info("a device may not read memory", backend=self._backend, reason=str(error))
            return
        memory = self._ram.map
        result.data = b"".join([memory[address : address + size] for address, size in ranges])
        result.ok = True

    def _write_window(self, request: pb.MemoryWrite) -> pb.AttachRequest:
        blocks = (request.block, *request.more)
        pieces = [Piece(block.address, len(block.data)) for block in blocks]
        result = pb.MemoryResult(id=request.id)
        try:
            ranges = self._ranges(request.liobn, pieces, TCE_WRITE)
        except DmaError as error:
            log.info("a device may not write memory", backend=self._backend, reason=str(error))
            return pb.AttachRequest(memory_result=result)
        data = memoryview(blocks[0].data if len(blocks) == 1 else b"".join(block.data for block in blocks))
        for address, size in ranges:
            self._ram.map[address : address + size] = data[:size]
            self._written(address, size)
            data = data[size:]
        result.ok = True
        return pb.AttachRequest(memory_result=result)

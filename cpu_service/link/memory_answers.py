# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers the memory requests of a back end that has not mapped guest RAM."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from cpu_service.engine.ram import GuestRam
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.rpc import trap_pb2 as pb

REQUEST_BYTES = 1 << 20
"""The largest memory_read that is answered."""

log = structlog.get_logger()


class MemoryAnswers:
    """Guest RAM for one back end.

    Args:
        backend: its name.
        ram: guest RAM.
        written: told of each address and length that was written.
    """

    def __init__(self, backend: str, ram: GuestRam, written: Callable[[int, int], None]) -> None:
        self._backend, self._ram, self._written = backend, ram, written

    def read(self, request: pb.MemoryRead) -> pb.AttachRequest:
        """Return the answer to a request for memory."""
        result = pb.MemoryResult(id=request.id)
        if request.range.length <= REQUEST_BYTES:
            try:
                result.data = self._ram.read(request.range.address, request.range.length)
                result.ok = True
            except GuestAddressError as error:
                log.info("back end asked for memory outside RAM", backend=self._backend, reason=str(error))
        return pb.AttachRequest(memory_result=result)

    def write(self, request: pb.MemoryWrite) -> pb.AttachRequest:
        """Write memory; return the answer."""
        address, data = request.block.address, request.block.data
        ok = address + len(data) <= self._ram.size
        if ok:
            self._ram.map[address : address + len(data)] = data
            self._written(address, len(data))
        return pb.AttachRequest(memory_result=pb.MemoryResult(id=request.id, ok=ok))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory during one recorded call, as far as the recording knows it."""

from __future__ import annotations

from splitvisor.recording.conversation import Step
from splitvisor.rpc import trap_pb2 as pb


class CallMemory:
    """What a call can read: its operands, what the back end read when it was recorded, and what has been written since.

    A back end that reads the same bytes in another order or in other pieces gets them too. A range that was read again, because
    it had changed meanwhile, is answered with each of its contents in turn.
    """

    def __init__(self, step: Step) -> None:
        reads = [
            pb.MemoryBlock(address=asked.memory_read.range.address, data=answer.memory_result.data)
            for asked, answer in step.asked
            if asked.HasField("memory_read") and answer is not None and answer.memory_result.ok
        ]
        self.refused = {
            (asked.memory_read.range.address, asked.memory_read.range.length)
            for asked, answer in step.asked
            if asked.HasField("memory_read") and answer is not None and not answer.memory_result.ok
        }
        """Addresses and lengths that were not in RAM."""
        operands = [block for trap in step.traps for block in trap.operands]
        self._layers = [*reversed(reads), *reversed(operands)]
        """The first contents of a byte on top."""
        self._reads = reads

    def write(self, block: pb.MemoryBlock) -> None:
        """The back end writes."""
        self._layers.append(block)

    def read(self, address: int, length: int) -> bytes | None:
        """Return length bytes; None when the recording does not have all of them."""
        for index, block in enumerate(self._reads):
            if (block.address, len(block.data)) == (address, length):
                del self._reads[index]
                return block.data
        found, known = bytearray(length), bytearray(length)
        for block in self._layers:
            start, end = max(address, block.address), min(address + length, block.address + len(block.data))
            if start < end:
                found[start - address : end - address] = block.data[start - block.address : end - block.address]
                known[start - address : end - address] = b"\1" * (end - start)
        return bytes(found) if all(known) else None
